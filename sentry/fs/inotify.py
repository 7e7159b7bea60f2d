"""inotify(7): instances, their watches and their queues (Linux fs/notify/inotify)."""

from __future__ import annotations

import errno
from _collections import deque
from itertools import islice

from sentry.abi.errors import SysError
from sentry.abi.inotify import (
    IN_ALL_EVENTS,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    INOTIFY_EVENT,
)
from sentry.abi.ioctl import FIONREAD
from sentry.abi.poll import POLLIN, POLLRDNORM
from sentry.abi.stat import major, minor
from sentry.fs import fsnotify
from sentry.fs.anon import FDINFO_PIECE, AnonFile, anon_inode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.file import File
    from sentry.fs.inode import Inode

    #: Watch descriptor, mask, cookie, padded name.
    Event = tuple[int, int, int, bytes]

#: What is told even to who did not ask.
_ALWAYS = IN_UNMOUNT | IN_IGNORED | IN_Q_OVERFLOW
_KEPT = IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT | IN_UNMOUNT
#: The length of a name is a multiple of this (round_event_name_len).
_NAME_UNIT = INOTIFY_EVENT.size


class Limits:
    """/proc/sys/fs/inotify, and how much of it each user has: user id → instances, watches."""

    def __init__(self) -> None:
        self.max_queued_events, self.max_user_instances, self.max_user_watches = 16384, 128, 65536
        self.instances: dict[int, int] = {}
        self.watches: dict[int, int] = {}
        #: What the events in all queues take, in bytes.
        self.queued = 0


limits = Limits()
#: Of all users together: they are the Sentry's own memory.
MAX_WATCHES, MAX_QUEUED = 1 << 20, 128 << 20
#: Bytes of an event besides its name.
EVENT = 160


def _pack(event: Event) -> bytes:
    wd, mask, cookie, name = event
    return INOTIFY_EVENT.pack(wd, mask, cookie, len(name)) + name


def _count(counts: dict[int, int], user: int, more: int) -> None:
    """`more` (maybe negative) of something that `user` has; who has none is not remembered."""
    left = counts.get(user, 0) + more
    if left:
        counts[user] = left
    else:
        counts.pop(user, None)


def _cost(name: bytes) -> int:
    return EVENT + len(name)


class Watch:
    """One inode that an instance watches; keeps the place alive, and so the names of its files."""

    __slots__ = ("inode", "inotify", "mask", "path", "wd")

    def __init__(self, inotify: InotifyFile, path: Path, wd: int, mask: int) -> None:
        self.inotify = inotify
        self.path = path
        self.inode: Inode = path.inode
        self.wd = wd
        self.mask = mask

    def event(self, mask: int, cookie: int, name: bytes, unlinked: bool) -> None:
        if not mask & (self.mask & IN_ALL_EVENTS | _ALWAYS):
            return
        if unlinked and self.mask & IN_EXCL_UNLINK and name:
            return
        self.inotify.queue_event(self.wd, mask, cookie, name)
        if self.mask & IN_ONESHOT:
            self.inotify.drop(self)

    def closed(self, file: File, owner: int) -> None:
        """Watches don't care."""

    def inode_gone(self) -> None:
        self.inotify.drop(self)


class InotifyFile(AnonFile):
    __slots__ = ("_by_inode", "_events", "_last_wd", "_overflowed", "_user", "pending", "watches_by_wd")

    def __init__(self, flags: int, user: int) -> None:
        """SysError(EMFILE) when `user` has too many."""
        count = limits.instances.get(user, 0)
        if count >= limits.max_user_instances:
            raise SysError(errno.EMFILE)
        _count(limits.instances, user, 1)
        inode, path = anon_inode(b"inotify")
        super().__init__(inode, flags, path)
        self._user = user
        self.watches_by_wd: dict[int, Watch] = {}
        self._by_inode: dict[Any, Watch] = {}
        self._last_wd = 0
        #: (wd, mask, cookie, padded name), and how many bytes they make.
        self._events: deque[Event] = deque()
        self.pending = 0
        self._overflowed = False

    def release(self) -> None:
        for watch in self.watches_by_wd.values():
            fsnotify.remove(watch)
        _count(limits.watches, self._user, -len(self.watches_by_wd))
        self.watches_by_wd.clear()
        self._by_inode.clear()
        _count(limits.instances, self._user, -1)
        limits.queued -= sum([_cost(event[3]) for event in self._events])
        self._events.clear()

    def watch(self, path: Path, mask: int) -> int:
        """inotify_add_watch(2): the watch descriptor.  SysError(EEXIST, ENOSPC)."""
        found = self._by_inode.get(path.inode)
        if found is not None:
            if mask & IN_MASK_CREATE:
                raise SysError(errno.EEXIST)
            found.mask = (found.mask if mask & IN_MASK_ADD else 0) | mask & _KEPT
            return found.wd
        if limits.watches.get(self._user, 0) >= limits.max_user_watches or fsnotify.watching >= MAX_WATCHES:
            raise SysError(errno.ENOSPC)
        self._last_wd = self._last_wd % 0x7FFFFFFF + 1
        while self._last_wd in self.watches_by_wd:
            self._last_wd = self._last_wd % 0x7FFFFFFF + 1
        watch = Watch(self, path, self._last_wd, mask & _KEPT)
        self.watches_by_wd[watch.wd] = self._by_inode[watch.inode] = watch
        _count(limits.watches, self._user, 1)
        fsnotify.add(watch)
        return watch.wd

    def unwatch(self, wd: int) -> None:
        """inotify_rm_watch(2); SysError(EINVAL)."""
        watch = self.watches_by_wd.get(wd)
        if watch is None:
            raise SysError(errno.EINVAL)
        self.drop(watch)

    def drop(self, watch: Watch) -> None:
        """The watch ends, whoever wants that."""
        if self.watches_by_wd.pop(watch.wd, None) is None:
            return
        del self._by_inode[watch.inode]
        _count(limits.watches, self._user, -1)
        fsnotify.remove(watch)
        self.queue_event(watch.wd, IN_IGNORED, 0, b"")

    def queue_event(self, wd: int, mask: int, cookie: int, name: bytes) -> None:
        """Unless it says the same as the last one, or there is no room."""
        if name:
            name = name.ljust((len(name) // _NAME_UNIT + 1) * _NAME_UNIT, b"\0")
        events = self._events
        if events:
            last = events[-1]
            if last[0] == wd and last[1] == mask and last[3] == name and not mask & IN_IGNORED:
                return
        if len(events) >= limits.max_queued_events or limits.queued + _cost(name) > MAX_QUEUED:
            if self._overflowed:
                return
            self._overflowed = True
            wd, mask, cookie, name = -1, IN_Q_OVERFLOW, 0, b""
        limits.queued += _cost(name)
        events.append((wd, mask, cookie, name))
        self.pending += INOTIFY_EVENT.size + len(name)
        self.queue.wake(POLLIN | POLLRDNORM)

    def fdinfo_from(self, first: int) -> tuple[bytes, int]:
        """/proc/PID/fdinfo: watches, the latest first, from the one of that number on, and how many."""
        lines = []
        for watch in islice(reversed(self.watches_by_wd.values()), first, first + FDINFO_PIECE):
            dev = watch.inode.fs.dev
            lines.append(
                b"inotify wd:%x ino:%x sdev:%x mask:%x ignored_mask:0 \n"
                % (watch.wd, watch.inode.ino, major(dev) << 20 | minor(dev), watch.mask & ~IN_UNMOUNT)
            )
        return b"".join(lines), len(lines)

    def poll(self) -> int:
        return POLLIN | POLLRDNORM if self._events else 0

    def _take(self, size: int) -> list[Event]:
        """Whole events; SysError(EAGAIN), SysError(EINVAL) if the first does not fit."""
        if not self._events:
            raise SysError(errno.EAGAIN)
        taken = []
        while self._events:
            event = self._events[0]
            needed = INOTIFY_EVENT.size + len(event[3])
            if needed > size:
                break
            size -= needed
            self._events.popleft()
            self._count(event, -1)
            taken.append(event)
        if not taken:
            raise SysError(errno.EINVAL)
        return taken

    def _count(self, event: Event, sign: int) -> None:
        _, mask, _, name = event
        limits.queued += sign * _cost(name)
        self.pending += sign * (INOTIFY_EVENT.size + len(name))
        if mask & IN_Q_OVERFLOW:
            self._overflowed = sign > 0

    async def read(self, size: int) -> bytes:
        """Whole events; SysError(EINVAL) if the first does not fit."""
        return b"".join([_pack(event) for event in self._take(size)])

    async def read_to(self, size: int, store: Callable[..., int]) -> int:
        """As on Linux, the event that a bad buffer has no room for is lost, with those before it."""
        taken = self._take(size)
        data = b"".join([_pack(event) for event in taken])
        try:
            stored: int = store(data)
        except SysError:
            stored = 0
        if stored == len(data):
            return stored
        lost = 0
        while stored >= 0:
            stored -= INOTIFY_EVENT.size + len(taken[lost][3])
            lost += 1
        for event in reversed(taken[lost:]):
            self._events.appendleft(event)
            self._count(event, 1)
        raise SysError(errno.EFAULT)

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        if request != FIONREAD:
            raise SysError(errno.ENOTTY)
        task.mm.write_u32(arg, self.pending)
        return 0
