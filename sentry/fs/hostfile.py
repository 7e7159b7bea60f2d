"""Files of the host behind guest descriptors: the standard streams of `sentry run`.

A host descriptor is one of five kinds, by what it is (`host_kind`):

    regular   read and written at the host's own position, which the caller shares, as natively
    char      /dev/null and the like: never waits
    pipe      may have to wait; so may
    socket
    tty

An inherited descriptor shares its open file description with whoever started us, so it never gets
O_NONBLOCK.  Where the runtime could open the same thing anew (`own`) that one has O_NONBLOCK, and
EAGAIN tells us to wait.  Otherwise poll(2) is asked first, and no more is written than then fits
for sure: PIPE_BUF bytes to a pipe, some hundred to a terminal.

The host is watched only while somebody waits in the file's queue, edge triggered: whoever waits has
looked before, and a descriptor that stays ready does not wake an idle Sentry again and again.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
from fcntl import ioctl as host_ioctl

from sentry.abi.epoll import EPOLLET
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_ACCMODE, O_APPEND
from sentry.abi.ioctl import FIONREAD
from sentry.abi.poll import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDHUP,
    POLLRDNORM,
    POLLREADY,
    POLLWRNORM,
)
from sentry.abi.signal import SIGTTIN
from sentry.fs.anon import AnonFilesystem, AnonInode
from sentry.fs.devpts.hosttty import HostTty, host_tty
from sentry.fs.file import APPEND, File
from sentry.kernel.wait import Entry, WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.kernel.credentials import Credentials
    from sentry.platform.base import Platform

REGULAR, CHAR, PIPE, SOCKET, TTY = "regular", "char", "pipe", "socket", "tty"

PIPE_BUF = 4096
#: n_tty wakes writers when fewer than 256 bytes are on their way (WAKEUP_CHARS).
TTY_CHUNK = 256
MAX_CHUNK = 1 << 20

HOSTFS = AnonFilesystem(b"hostfs", 0x00C0FFEE)
#: The devices that are the same everywhere, by st_rdev.
_DEVICES = {
    0x103: b"/dev/null", 0x105: b"/dev/zero", 0x107: b"/dev/full", 0x108: b"/dev/random",
    0x109: b"/dev/urandom",
}  # fmt: skip
#: Host (device, inode) → our inode number, so that `cat <f >>f` still sees that both are one file.
_inos: dict[tuple[int, int], int] = {}


def host_kind(fd: int) -> str:
    """What the host descriptor `fd` is: REGULAR, CHAR, PIPE, SOCKET or TTY."""
    form = os.fstat(fd).st_mode & 0o170000
    if form == 0o010000:
        return PIPE
    if form == 0o140000:
        return SOCKET
    if form == 0o020000:
        return TTY if os.isatty(fd) else CHAR
    if form in (0o100000, 0o060000, 0o040000):
        return REGULAR
    return PIPE


class HostQueue(WaitQueue):
    """A wait queue that has the host watch `fd` while it has entries."""

    __slots__ = ("_armed", "_fd", "_poller")

    def __init__(self, fd: int, poller: Platform) -> None:
        super().__init__()
        self._fd = fd
        self._poller = poller
        self._armed = 0

    def add(self, entry: Entry) -> None:
        super().add(entry)
        wanted = POLLIN
        for other in self._entries:
            if other.mask & (POLLOUT | POLLWRNORM):
                wanted |= POLLOUT
            if other.mask & POLLPRI:
                wanted |= POLLPRI
        if wanted != self._armed:
            self._armed = wanted
            # POLLRDHUP and EPOLLRDHUP are the same bit, as all poll bits are.
            self._poller.watch(self._fd, wanted | POLLRDHUP | EPOLLET, self._on_event)

    def remove(self, entry: Entry) -> None:
        super().remove(entry)
        if not self._entries:
            self.disarm()

    def disarm(self) -> None:
        if self._armed:
            self._armed = 0
            self._poller.unwatch(self._fd)

    def _on_event(self, events: int) -> None:
        if events & POLLIN:
            events |= POLLRDNORM
        if events & POLLOUT:
            events |= POLLWRNORM
        self.wake(events)


class HostInode(AnonInode):
    """Shows the host file's type, mode, size and times; owner and device are the sandbox's."""

    __slots__ = ("_opened",)

    def __init__(self, fd: int, kind: str, uid: int, gid: int) -> None:
        stat = os.fstat(fd)
        ino = _inos.setdefault((stat.st_dev, stat.st_ino), len(_inos) + 2)
        # The host's own name for it is none of the guest's business (and cannot be asked for any more).
        if kind == TTY:
            name = b"/dev/console"
        elif kind == CHAR and stat.st_rdev in _DEVICES:
            name = _DEVICES[stat.st_rdev]
        else:
            name = b"%s:[%d]" % (kind.encode() if kind in (PIPE, SOCKET) else b"host", ino)
        super().__init__(HOSTFS, ino, stat.st_mode, name, uid, gid)
        self.rdev = stat.st_rdev
        #: The open files; the first one's descriptor stands for them all.
        self._opened: list[HostFile] = []
        self._load(stat)

    def _load(self, stat: os.stat_result) -> None:
        self.size = stat.st_size
        self.blksize = stat.st_blksize
        self.blocks = stat.st_blocks
        self.nlink = max(1, stat.st_nlink)
        self.atime, self.mtime, self.ctime = stat.st_atime_ns, stat.st_mtime_ns, stat.st_ctime_ns

    async def refresh(self) -> None:
        if self._opened:
            self._load(os.fstat(self._opened[0].host_fd))

    async def setattr(self, changes: dict[str, int]) -> None:
        """Only the size (open with O_TRUNC): a guest does not change a host file's other attributes."""
        if set(changes) != {"size"}:
            raise SysError(errno.EPERM)
        for file in self._opened:
            if file.writable:
                await file.truncate(changes["size"])
                return
        raise SysError(errno.EACCES)

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        """/dev/stdin and the like: one more file on the same host description."""
        need = flags & O_ACCMODE
        for file in self._opened:
            if need == file.flags & O_ACCMODE or file.flags & O_ACCMODE == 2:
                return file.again(flags)
        raise SysError(errno.EACCES if self._opened else errno.ENXIO)


class HostFile(File):
    """`host_fd` (closed with the last reference) seen through the guest's `flags`."""

    __slots__ = ("_poller", "_private", "_socket", "_watch", "host_fd", "kind", "own", "tty")

    def __init__(
        self, host_fd: int, flags: int, poller: Platform, kind: str = "", own: bool = False, uid: int = 0,
        gid: int = 0, inode: HostInode | None = None,
    ) -> None:  # fmt: skip
        """`own`: `host_fd` is our own O_NONBLOCK opening; `kind`: see `host_kind`, found out if empty."""
        self.kind = kind or host_kind(host_fd)
        inode = inode or HostInode(host_fd, self.kind, uid, gid)
        super().__init__(inode, flags, HOSTFS.path(inode))
        self.host_fd = host_fd
        self.own = own
        self._poller = poller
        #: Whether `pos` counts (a regular file opened again), rather than the host's shared position.
        self._private = False
        inode._opened.append(self)
        self.tty: HostTty | None = None
        self._watch: Any = None
        self._socket: Any = None
        if self.kind in (PIPE, SOCKET, TTY):
            self.queue = HostQueue(host_fd, poller)
            self._watch = select.poll()
            self._watch.register(host_fd, POLLIN | POLLPRI | POLLOUT | POLLRDHUP)
        if self.kind == SOCKET:
            # All three are given, so that nothing asks the host (or sets a flag there).
            self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, host_fd)
        if self.kind == TTY:
            self.tty = host_tty(inode.rdev)
            self.tty.files.append(self)

    def again(self, flags: int) -> HostFile:
        """Another File on the same host file, as if it had been opened anew."""
        try:
            fd = os.dup(self.host_fd)
        except OSError as error:
            raise SysError(error.errno or errno.EIO) from None
        inode = self.inode
        assert isinstance(inode, HostInode)
        flags &= O_ACCMODE | 0o6000 | 0o100000
        file = HostFile(fd, flags, self._poller, self.kind, self.own, inode=inode)
        file._private = self.kind == REGULAR
        return file

    def release(self) -> None:
        inode = self.inode
        assert isinstance(inode, HostInode)
        inode._opened.remove(self)
        if isinstance(self.queue, HostQueue):
            self.queue.disarm()
        if self._socket is not None:
            self._socket.detach()
        if self.tty is not None:
            self.tty.files.remove(self)
        os.close(self.host_fd)

    @property
    def pollable(self) -> bool:
        return self._watch is not None

    @property
    def seekable(self) -> bool:
        return self.kind == REGULAR

    def poll(self) -> int:
        if self._watch is None:
            return POLLREADY
        events = self._host_events()
        if events & POLLIN and self.readable:
            events |= POLLRDNORM
        if events & POLLOUT and self.writable:
            events |= POLLWRNORM
        return events

    def _host_events(self) -> int:
        for _, events in self._watch.poll(0):
            return int(events)
        return 0

    async def read(self, size: int) -> bytes:
        size = min(size, MAX_CHUNK)
        if self.tty is not None:
            self.tty.check_change(SIGTTIN)
        asks = self._watch is not None and not self.own and size
        if asks and not self._host_events() & (POLLIN | POLLHUP | POLLERR):
            raise SysError(errno.EAGAIN)
        if self._private:
            data = await self.pread(size, self.pos)
            self.pos += len(data)
            return data
        try:
            if self._socket is not None:
                return bytes(self._socket.recv(size, _socket.MSG_DONTWAIT))
            return os.read(self.host_fd, size)
        except OSError as error:
            raise SysError(error.errno or errno.EIO) from None

    async def write(self, data: bytes) -> int:
        chunk: Any = data
        if self._private:
            if self.flags & O_APPEND:
                self.pos = os.fstat(self.host_fd).st_size
            count = await self.pwrite(data, self.pos)
            self.pos += count
            return count
        if self._watch is not None and not self.own and data:
            if not self._host_events() & (POLLOUT | POLLHUP | POLLERR):
                raise SysError(errno.EAGAIN)
            if self.kind != SOCKET:
                chunk = memoryview(data)[: PIPE_BUF if self.kind == PIPE else TTY_CHUNK]
        try:
            if self._socket is not None:
                return int(self._socket.send(chunk, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL))
            return os.write(self.host_fd, chunk)
        except OSError as error:
            raise SysError(error.errno or errno.EIO) from None

    async def pread(self, size: int, offset: int) -> bytes:
        if self.kind not in (REGULAR, CHAR):
            raise SysError(errno.ESPIPE)
        try:
            return os.pread(self.host_fd, min(size, MAX_CHUNK), offset)
        except OSError as error:
            raise SysError(error.errno or errno.EIO) from None

    async def pwrite(self, data: bytes, offset: int) -> int:
        if self.kind not in (REGULAR, CHAR):
            raise SysError(errno.ESPIPE)
        try:
            if offset == APPEND:
                offset = os.fstat(self.host_fd).st_size
            return os.pwrite(self.host_fd, data, offset)
        except OSError as error:
            raise SysError(error.errno or errno.EIO) from None

    async def lseek(self, offset: int, whence: int) -> int:
        fd = self.host_fd
        try:
            if not self._private:
                return os.lseek(fd, offset, whence)
            if whence == os.SEEK_CUR:
                offset, whence = self.pos + offset, os.SEEK_SET
            shared = os.lseek(fd, 0, os.SEEK_CUR)
            self.pos = os.lseek(fd, offset, whence)
            os.lseek(fd, shared, os.SEEK_SET)
            return self.pos
        except OSError as error:
            raise SysError(error.errno or errno.ESPIPE) from None

    async def fsync(self) -> None:
        try:
            os.fsync(self.host_fd)
        except OSError as error:
            raise SysError(error.errno or errno.EINVAL) from None

    async def truncate(self, size: int) -> None:
        try:
            os.ftruncate(self.host_fd, size)
        except OSError as error:
            raise SysError(error.errno or errno.EINVAL) from None

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        if self.kind != REGULAR:
            raise SysError(errno.ENODEV)
        if not self.readable or (shared and writable and not self.writable):
            raise SysError(errno.EACCES)
        return self.host_fd

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        if self.tty is not None:
            return await self.tty.ioctl(self, task, request, arg)
        if request != FIONREAD or self.kind not in (PIPE, SOCKET):
            raise SysError(errno.ENOTTY)
        try:
            count = host_ioctl(self.host_fd, FIONREAD, bytes(4))
        except OSError as error:
            raise SysError(error.errno or errno.ENOTTY) from None
        task.mm.write(arg, count)
        return 0
