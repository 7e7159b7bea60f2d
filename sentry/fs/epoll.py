"""epoll(7): a set of files, and those of them that may be ready (Linux fs/eventpoll.c).

An `Item` is one registration, of a descriptor number and a file together.  It stands in the file's
wait queue for as long as it lives; a wake-up puts it on the ready list.  `collect` looks at each
item on the list once more and reports what really holds: level-triggered items then go to the end
of the list, edge-triggered ones leave it until the next wake-up, one-shot ones are disabled.

The registration holds no reference: when a file's last reference goes, `File.put` drops its items.
"""

from __future__ import annotations

import errno
from itertools import islice

from sentry._engine import ffi, lib
from sentry.abi.epoll import (
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLL_EXCLUSIVE_OK,
    EPOLL_PRIVATE,
    EPOLLERR,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLHUP,
    EPOLLIN,
    EPOLLONESHOT,
    EPOLLRDNORM,
    EPOLLWAKEUP,
)
from sentry.abi.errors import SysError
from sentry.abi.stat import major, minor
from sentry.fs.anon import FDINFO_PIECE, AnonFile, anon_inode
from sentry.kernel.wait import Entry
from sentry.platform.queue import SharedQueue, drain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.file import File
    from sentry.kernel.wait import WaitQueue

#: How deep epoll files may watch one another (EP_MAX_NESTS), and how many may watch one file.
MAX_NESTS = 4
MAX_WATCHERS = 1000
#: How many ways of each length may lead from a file to epoll files that nobody watches: a wake-up goes
#: all of them (path_limits).
MAX_PATHS = (1000, 500, 100, 50, 10)
#: Registrations of all epoll files together: as many as there can be sockets.
MAX_ITEMS = 1 << 18
READY = EPOLLIN | EPOLLRDNORM


class Item:
    """One registration, a struct epitem: `events` as given, and `data`, what epoll_wait hands back.

    A file that C knows has the epitem itself in its queue, any other an entry of ours, which passes on what
    it hears.
    """

    __slots__ = ("_queue", "c", "entry", "epoll", "fd", "file")

    def __init__(self, epoll: EpollFile, fd: int, file: File, events: int, data: int) -> None:
        self.epoll = epoll
        self.fd = fd
        self.file = file
        c = lib.epitem_new(epoll.set, file.c, events, data)
        if not c:
            raise SysError(errno.ENOMEM)
        self.c = ffi.gc(c, lib.epitem_free)
        self.entry: Entry | None = None
        #: Kept, since what a signalfd's queue is depends on who asks.
        self._queue: WaitQueue | None = None
        if not lib.epitem_is_native(c):
            self.entry = Entry(self._on_event, events & ~EPOLL_PRIVATE, bool(events & EPOLLEXCLUSIVE))
            self._queue = file.queue
            self._queue.add(self.entry)
        if file.watches is None:
            file.watches = {}
            file.c.closing = lib.CLOSE_AT_ONCE
        file.watches[self] = None

    @property
    def events(self) -> int:
        events: int = lib.epitem_events(self.c)
        return events

    @property
    def data(self) -> int:
        data: int = lib.epitem_data(self.c)
        return data

    def set_events(self, events: int, data: int) -> None:
        """EPOLL_CTL_MOD, or a one-shot item is disabled; the queue hears of the new mask."""
        lib.epitem_set(self.c, events, data)
        if self.entry is not None and self._queue is not None:
            self._queue.remove(self.entry)
            self.entry.mask = events & ~EPOLL_PRIVATE
            self._queue.add(self.entry)

    def detach(self) -> None:
        """Leave the set: EPOLL_CTL_DEL, or one of the two files is gone."""
        if self.entry is not None and self._queue is not None:
            self._queue.remove(self.entry)
        lib.epitem_leave(self.c)
        if self.file.watches is not None:
            self.file.watches.pop(self, None)
        self.epoll.forget(self)

    def _on_event(self, _events: int) -> None:
        if self.entry is not None and self.entry.mask:
            self.epoll.mark_ready(self)

    def poll(self) -> int:
        """What holds of what was asked for."""
        return self.file.poll() & self.events & ~EPOLL_PRIVATE


class EpollFile(AnonFile):
    """`set` is a struct epoll (csrc/abi/queue.h), which has the ready list and the queue."""

    __slots__ = ("_by_c", "_items", "set")
    #: How many registrations all of them have.
    registered = 0

    def __init__(self) -> None:
        inode, path = anon_inode(b"[eventpoll]")
        super().__init__(inode, 2, path)
        c = lib.epoll_new()
        if not c:
            raise SysError(errno.ENOMEM)
        self.set = c = ffi.gc(c, lib.epoll_free)
        self.queue = SharedQueue(ffi.addressof(c, "queue"), c)
        self.c.object = c
        self.c.kind = lib.VFILE_EPOLL
        self._items: dict[tuple[int, File], Item] = {}
        self._by_c: dict[Any, Item] = {}

    def release(self) -> None:
        for item in list(self._items.values()):
            item.detach()

    def items(self) -> list[Item]:
        """The registrations in order of arrival (for /proc/PID/fdinfo)."""
        return list(self._items.values())

    def fdinfo_from(self, first: int) -> tuple[bytes, int]:
        """/proc/PID/fdinfo: registrations from the one of that number on, and how many."""
        lines = [
            b"tfd: %8d events: %8x data: %16x  pos:%d ino:%x sdev:%x\n" % (
                item.fd, item.events, item.data, item.file.pos, item.file.inode.ino,
                major(item.file.inode.fs.dev) << 20 | minor(item.file.inode.fs.dev),
            )
            for item in islice(self._items.values(), first, first + FDINFO_PIECE)
        ]  # fmt: skip
        return b"".join(lines), len(lines)

    def _ready(self) -> list[Item]:
        """The items to look at, in order."""
        found = []
        c = self.set.first_ready
        while c:
            found.append(self._by_c[c])
            c = lib.epitem_next(c)
        return found

    def poll(self) -> int:
        for item in self._ready():
            if item.poll():
                return READY
            lib.epitem_unready(item.c)
        return 0

    def check(self, op: int, file: File, events: int) -> None:
        """What epoll_ctl refuses before it looks for the registration; SysError(EINVAL, ELOOP)."""
        if op != EPOLL_CTL_DEL and events & EPOLLEXCLUSIVE:
            if op == EPOLL_CTL_MOD:
                raise SysError(errno.EINVAL)
            if op == EPOLL_CTL_ADD and (isinstance(file, EpollFile) or events & ~EPOLL_EXCLUSIVE_OK):
                raise SysError(errno.EINVAL)
        if op == EPOLL_CTL_ADD and isinstance(file, EpollFile):
            above, below = _height_above(self, 0), _depth_below(file, self, 0)
            if above + below > MAX_NESTS:
                raise SysError(errno.ELOOP)

    def insert(self, fd: int, file: File, events: int, data: int) -> None:
        """EPOLL_CTL_ADD; SysError(EEXIST, ENOSPC, EINVAL)."""
        if (fd, file) in self._items:
            raise SysError(errno.EEXIST)
        if EpollFile.registered >= MAX_ITEMS:
            raise SysError(errno.ENOSPC)
        if file.watches is not None and len(file.watches) >= MAX_WATCHERS:
            raise SysError(errno.EINVAL)
        item = Item(self, fd, file, _with_always(events), data)
        self._items[fd, file] = item
        EpollFile.registered += 1
        self._by_c[item.c] = item
        if (self.watches or isinstance(file, EpollFile)) and not _few_paths(file):
            item.detach()
            raise SysError(errno.EINVAL)
        if item.poll():
            self.mark_ready(item)

    def modify(self, fd: int, file: File, events: int, data: int) -> None:
        """EPOLL_CTL_MOD; SysError(ENOENT, EINVAL)."""
        item = self._find(fd, file)
        if item.events & EPOLLEXCLUSIVE:
            raise SysError(errno.EINVAL)
        item.set_events(_with_always(events), data)
        if item.poll():
            self.mark_ready(item)

    def delete(self, fd: int, file: File) -> None:
        """EPOLL_CTL_DEL; SysError(ENOENT)."""
        self._find(fd, file).detach()

    def _find(self, fd: int, file: File) -> Item:
        item = self._items.get((fd, file))
        if item is None:
            raise SysError(errno.ENOENT)
        return item

    def forget(self, item: Item) -> None:
        if self._items.pop((item.fd, item.file), None) is not None:
            EpollFile.registered -= 1
        self._by_c.pop(item.c, None)

    def mark_ready(self, item: Item) -> None:
        """`item` may be ready: epoll_wait will look.  Told again even if it is on the list already,
        since who waits may have looked before."""
        if lib.epitem_mark(item.c):
            drain()

    def collect(self, count: int) -> list[tuple[Item, int]]:
        """Up to `count` (item, events) that are ready now; these have been reported."""
        found: list[tuple[Item, int]] = []
        again: list[Item] = []
        for item in self._ready():
            if len(found) >= count:
                break
            lib.epitem_unready(item.c)
            events = item.poll()
            if not events:
                continue
            found.append((item, events))
            if item.events & EPOLLONESHOT:
                item.set_events(item.events & EPOLL_PRIVATE, item.data)
            elif not item.events & EPOLLET:
                again.append(item)
        for item in again:
            lib.epitem_ready(item.c)
        return found

    def give_back(self, events: list[tuple[Item, int]]) -> None:
        """The guest's buffer had no room for them: these of what `collect` took from the list are to be
        reported again, before all others."""
        for item, got in reversed(events):
            if item.events & EPOLLONESHOT:
                item.set_events(item.events | got, item.data)
            lib.epitem_ready_first(item.c)


def _with_always(events: int) -> int:
    return (events | EPOLLERR | EPOLLHUP) & ~EPOLLWAKEUP


def _depth_below(file: EpollFile, origin: EpollFile, depth: int) -> int:
    """How many levels of epoll files `file` heads (1: it watches none); SysError(ELOOP) if `origin` is
    among them."""
    if file is origin or depth > MAX_NESTS:
        raise SysError(errno.ELOOP)
    deepest = 0
    for item in file._items.values():
        if isinstance(item.file, EpollFile):
            deepest = max(deepest, _depth_below(item.file, origin, depth + 1))
    return deepest + 1


def _height_above(file: EpollFile, height: int) -> int:
    """How many levels of epoll files watch `file`."""
    if height > MAX_NESTS:
        raise SysError(errno.ELOOP)
    highest = 0
    for item in file.watches or ():
        highest = max(highest, 1 + _height_above(item.epoll, height + 1))
    return highest


def _few_paths(file: File) -> bool:
    """Whether MAX_PATHS holds for `file`, or for each file below it if it is an epoll file."""
    below: dict[File, None] = {}
    _collect_below(file, below)
    return all(
        _count_paths(leaf, 0, [0] * len(MAX_PATHS)) for leaf in below if not isinstance(leaf, EpollFile)
    )


def _collect_below(file: File, found: dict[File, None]) -> None:
    if file in found:
        return
    found[file] = None
    if isinstance(file, EpollFile):
        for item in file._items.values():
            _collect_below(item.file, found)


def _count_paths(file: File, depth: int, counts: list[int]) -> bool:
    for item in file.watches or ():
        if item.epoll.watches:
            if depth + 1 == len(MAX_PATHS) or not _count_paths(item.epoll, depth + 1, counts):
                return False
        else:
            counts[depth] += 1
            if counts[depth] > MAX_PATHS[depth]:
                return False
    return True
