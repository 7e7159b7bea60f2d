"""File: an open file description (struct file), and what can be done with one.

A File never sleeps by itself for readiness: an operation that isn't ready raises SysError(EAGAIN),
and whoever called it waits on `queue` for the poll bits it needs and tries again (`O_NONBLOCK`
is the caller's business).  Operations are coroutines since bytes may have to come from the host.
"""

from __future__ import annotations

import errno
from _operator import attrgetter

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_ACCMODE, O_PATH
from sentry.abi.poll import POLLIN, POLLNVAL, POLLOUT, POLLRDNORM, POLLWRNORM
from sentry.fs import fsnotify, spare
from sentry.fs.locks import posix_release, release_file
from sentry.kernel.wait import WaitQueue
from sentry.platform import queue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.inode import Field, Inode
    from sentry.fs.owner import FileOwner


#: As the offset of `pwrite`: behind the last byte, without moving the position (RWF_APPEND).
APPEND = -1
_new, _cast = ffi.new, ffi.cast
_VFILE = ffi.typeof("struct vfile *")
CLOSE_LATER: int = lib.CLOSE_LATER
#: struct vfile * → the File, of all that Python has put into a descriptor table (fdtable.py) or met there.
installed: dict[Any, File] = {}
fsnotify.installed = installed


def file_of(vfile: Any) -> File:
    """The File at a number of a descriptor table."""
    file = installed.get(vfile)
    if file is None:
        file = installed[vfile] = spare.adopt(vfile)
    return file


def drain_closed() -> None:
    """End the files that the engine has closed since the last time, before anybody sees the next trap."""
    while vfile := lib.vfile_take_closed():
        file = file_of(vfile)
        if not vfile.refs:  # else it turned out to be mapped
            file.closed()


queue.and_then.append(drain_closed)


def _set_pos(file: File, pos: int) -> None:
    file.c.pos = pos


def _set_flags(file: File, flags: int) -> None:
    file.c.flags = flags


class File:
    """What a descriptor refers to.  Shared by dup and fork; `refs` counts descriptors (and other
    holders, such as mappings); the last `put` calls `release`."""

    __slots__ = ("_claim", "c", "created", "inode", "owner", "path", "queue", "watches")
    #: Access mode and status flags as F_GETFL shows them (creation flags removed).
    flags: Field = property(attrgetter("c.flags"), _set_flags)  # type: ignore[assignment]
    pos: Field = property(attrgetter("c.pos"), _set_pos)  # type: ignore[assignment]
    refs: Field = property(attrgetter("c.refs"))  # type: ignore[assignment]
    #: Which of the engine's fast paths serve it (VFILE_*).
    fast_kind: int = lib.VFILE_PYTHON
    #: What the engine does with its last close: CLOSE_LATER where nobody can tell when `release` runs.
    fast_closing: int = lib.CLOSE_AT_ONCE
    #: Whether even a read of no bytes asks it: EINVAL where that is less than it has to say (eventfd(2)).
    counts = False
    #: Whether the engine should know where it was opened: for paths that begin there, a mount's flags.
    fast_start = False
    #: A read or write is one message, all of its vectors, and sleeps by itself: `receive` and `send`.
    messages = False
    #: Whether its bytes stand in memory that the Sentry holds, as those of a tmpfs do.
    in_memory = False

    #: Whether seals forbid new shared mappings that can be written (F_SEAL_WRITE, fcntl(2)).
    write_sealed = False

    def __init__(self, inode: Inode, flags: int, path: Path | None = None, c: Any = None) -> None:
        #: struct vfile (csrc/abi/vfs.h): what the engine's fast paths need; `inode` stands there too.
        if c is None:
            c = _new(_VFILE)
            c.refs = 1
        self.c = c
        self.inode = inode
        c.node = inode.c
        c.flags = flags
        c.kind = self.fast_kind
        self.path = path
        if path is not None and self.fast_start:
            c.mount, c.dnode = path.mount.c, path.dentry.c
        c.closing = self.fast_closing
        #: Woken with poll bits whenever readiness may have changed.
        self.queue = WaitQueue()
        #: Whoever F_SETOWN named, and the like; see syscalls/descriptors.py.
        self.owner: FileOwner | None = None
        #: The epoll registrations of this file (epoll.py), None while there never was one.
        self.watches: dict[Any, None] | None = None
        #: Whether its open made the file (F_CREATED_QUERY).
        self.created = False
        #: 1: counts among the inode's writers, -1: among its texts.
        self._claim = 0

    def again(self, c: Any) -> File:
        """The File of `c`, which the engine has made: another description of the same file (spare.py)."""
        raise NotImplementedError

    def set_inode(self, inode: Inode) -> None:
        """Show `inode` as the file that is open (an overlay puts its own before the lower one)."""
        self.inode = inode
        self.c.node = inode.c

    @property
    def readable(self) -> bool:
        flags: int = self.c.flags
        return flags & O_ACCMODE in (0, 2) and not flags & O_PATH

    @property
    def writable(self) -> bool:
        flags: int = self.c.flags
        return flags & O_ACCMODE in (1, 2) and not flags & O_PATH

    def get(self) -> File:
        self.c.refs += 1
        return self

    def put(self) -> None:
        c = self.c
        c.refs -= 1
        if not c.refs:
            if not c.spare:
                self.closed()
            elif c.spare == lib.SPARE_OPEN:
                lib.vfile_settle(c)  # the engine closed it while we held it

    def closed(self) -> None:
        """The last reference is gone."""
        c = self.c
        installed.pop(c, None)
        if fsnotify.watching:
            fsnotify.closed(self)
        if self.owner is not None:
            self.owner.set_async(self, False)  # its own end is no news
        if self.watches:
            for watch in list(self.watches):
                watch.detach()
        if c.node.locks or self.inode.locks is not None:
            release_file(self.inode, self)
        if self._claim > 0:
            self.inode.writers -= 1
        elif self._claim:
            self.inode.texts -= 1
        self._claim = 0
        self.created = False
        if spare.limit and spare.keep(self):
            return
        if not queue.hold_until_free(c, self.release):
            self.release()

    def claim_write(self) -> None:
        """This file was opened for writing: nobody may execute it meanwhile (ETXTBSY)."""
        self.inode.writers += 1
        self._claim = 1

    def claim_text(self) -> None:
        """This file is a program under way: nobody may open it for writing meanwhile (ETXTBSY)."""
        if not self._claim:
            self.inode.texts += 1
            self._claim = -1

    def release(self) -> None:
        """Nobody can use the file any more."""

    @property
    def lock_owner(self) -> int:
        """The owner of its OFD locks (locks.py)."""
        return int(_cast("uintptr_t", self.c))

    def flush(self, owner: int) -> None:
        """A descriptor of the table `owner` was closed (other references may remain): POSIX locks end."""
        if self.c.node.locks:
            posix_release(self.inode, owner)
        if fsnotify.watching:
            fsnotify.flushed(self, owner)

    def poll(self) -> int:
        """The poll bits that hold now."""
        return POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM

    def check_flags(self, flags: int) -> None:
        """Called before F_SETFL changes `flags`; SysError(EINVAL, EPERM)."""

    @property
    def pollable(self) -> bool:
        """Whether epoll takes it (EPERM for regular files and directories)."""
        return True

    @property
    def seekable(self) -> bool:
        return False

    @property
    def nowait(self) -> bool:
        """Whether RWF_NOWAIT is supported (FMODE_NOWAIT)."""
        return True

    @property
    def discards(self) -> bool:
        """Whether a write never looks at the buffer, not even to see if it is there (null(4))."""
        return False

    async def read(self, size: int) -> bytes:
        """Up to `size` bytes at `pos`, which moves on; b"" at the end.  SysError(EAGAIN): not ready."""
        raise SysError(errno.EINVAL)

    async def read_to(self, size: int, store: Callable[..., int]) -> int:
        """`read` for a guest: `store` copies bytes to its buffer, or to an offset there, and says how many;
        how many bytes were read."""
        data = await self.read(size)
        return store(data) if data else 0

    def merges(self, odd: int) -> bool:
        """Whether the odd bytes of a write, its size modulo a page, are taken before its pages are."""
        return False

    async def write(self, data: bytes) -> int:
        """Bytes taken of `data`, at `pos` (or the end, O_APPEND).  SysError(EAGAIN): no room."""
        raise SysError(errno.EINVAL)

    async def receive(self, task: Any, sink: Any, nowait: bool) -> int:
        """read(2) of a file of `messages` (sockets): bytes given to the Sink (net/socket.py)."""
        raise SysError(errno.EINVAL)

    async def send(self, task: Any, source: Any, nowait: bool) -> int:
        """write(2) of a file of `messages`: bytes taken of the Source.  It sends SIGPIPE itself."""
        raise SysError(errno.EINVAL)

    async def pread(self, size: int, offset: int) -> bytes:
        raise SysError(errno.ESPIPE)

    async def pwrite(self, data: bytes, offset: int) -> int:
        raise SysError(errno.ESPIPE)

    async def lseek(self, offset: int, whence: int) -> int:
        raise SysError(errno.ESPIPE)

    async def readdir(self) -> list[tuple[int, int, int, bytes]]:
        """The next entries of a directory from `pos` on: (ino, offset of the next, DT_ type, name).

        The system call packs as many as fit and sets `pos` to the offset of the last one packed;
        an empty list is the end.
        """
        raise SysError(errno.ENOTDIR)

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        raise SysError(errno.ENOTTY)

    async def fsync(self) -> None:
        raise SysError(errno.EINVAL)

    async def truncate(self, size: int) -> None:
        raise SysError(errno.EINVAL)

    async def fallocate(self, mode: int, offset: int, size: int) -> None:
        raise SysError(errno.ENODEV)

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        """The host descriptor to map this file by, with exactly the access that is due (design §5);
        None: private anonymous zeroes instead (/dev/zero).  SysError(ENODEV, EACCES)."""
        raise SysError(errno.ENODEV)


class PathFile(File):
    """What O_PATH opens: a place, without access to what is there."""

    __slots__ = ()
    fast_closing = CLOSE_LATER
    fast_start = True

    def poll(self) -> int:
        return POLLNVAL
