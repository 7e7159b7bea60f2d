"""SocketFile: a socket as a file (Linux's sockfs), and the names of sockets in the file system.

What a program reads and writes is passed on to the Sock (sentry/net/socket.py), one message a call.
"""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_ASYNC, O_NONBLOCK, O_PATH
from sentry.abi.signal import SIGURG
from sentry.abi.socket import MSG_DONTWAIT, MSG_EOR, MSG_NOSIGNAL, SOCK_SEQPACKET
from sentry.abi.stat import S_IFSOCK
from sentry.fs import modify
from sentry.fs.anon import AnonFilesystem, OwnInode
from sentry.fs.dentry import Path
from sentry.fs.file import File, PathFile
from sentry.fs.walk import MAY_WRITE, permission, walk, walk_parent
from sentry.kernel import wait
from sentry.net.socket import BytesSink, BytesSource, Message
from sentry.net.unix import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task
    from sentry.net.socket import Sink, Sock, Source
    from sentry.net.unix.sock import UnixSock

SOCKFS_MAGIC = 0x534F434B
SOCKFS = AnonFilesystem(b"sockfs", SOCKFS_MAGIC)


class SocketInode(OwnInode):
    """bind(2) gives its mode and owner to the name that it makes."""

    __slots__ = ()

    def __init__(self, uid: int, gid: int) -> None:
        ino = SOCKFS.new_ino()
        super().__init__(SOCKFS, ino, 0o140777, b"socket:[%d]" % ino, uid, gid)


class SocketFile(File):
    __slots__ = ("sock",)
    messages = True

    def __init__(self, sock: Sock, nonblock: bool, cred: Credentials) -> None:
        inode = SocketInode(cred.fsuid, cred.fsgid)
        super().__init__(inode, 2 | (O_NONBLOCK if nonblock else 0), SOCKFS.path(inode))
        self.sock = sock
        sock.file = self
        self.queue = sock.queue
        hot = sock.hot
        if hot is not None:
            self.c.object = hot
            self.c.kind = lib.VFILE_UNIX

    def release(self) -> None:
        self.sock.file = None
        self.sock.release()

    def poll(self) -> int:
        return self.sock.poll()

    def check_flags(self, flags: int) -> None:
        self.sock.set_async(bool(flags & O_ASYNC))

    @property
    def nonblock(self) -> bool:
        return bool(self.flags & O_NONBLOCK)

    def fdinfo(self) -> bytes:
        return self.sock.fdinfo()

    def tell_urgent(self) -> None:
        """A byte out of band has come: SIGURG to whoever F_SETOWN named."""
        if self.owner is not None:
            self.owner.send(SIGURG)

    # What read(2) and write(2) do, as far as they sleep

    async def receive(self, task: Task, sink: Sink, nowait: bool) -> int:
        if not sink.left:
            return 0
        message = Message(MSG_DONTWAIT if nowait or self.nonblock else 0)
        try:
            return await self.sock.receive(task, sink, message)
        finally:
            if message.ancillary is not None:
                message.ancillary.drop()

    async def send(self, task: Task, source: Source, nowait: bool) -> int:
        flags = MSG_DONTWAIT if nowait or self.nonblock else 0
        if self.sock.type == SOCK_SEQPACKET:
            flags |= MSG_EOR
        return await self.send_message(task, source, Message(flags))

    async def send_message(self, task: Task, source: Source, message: Message) -> int:
        """Send what the engine has not sent yet of it, if it began; and then no error counts any more."""
        done: int = task.thread.take_progress()
        if not done:
            return await self.sock.send(task, source, message)
        source.skip(done)
        message.flags |= MSG_NOSIGNAL
        try:
            return done + await self.sock.send(task, source, message)
        except (SysError, wait.Interrupted):
            return done

    # For splice(2) and its kin: without sleeping

    async def read(self, size: int) -> bytes:
        sink = BytesSink(size)
        await self.receive(_task(), sink, True)
        return sink.data

    async def write(self, data: bytes) -> int:
        return await self.send(_task(), BytesSource(data), True)

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        return await self.sock.ioctl(task, request, arg)


class _Paths:
    """See names.Paths; a place is a Path."""

    async def make(self, task: Task, path: bytes, sock: UnixSock) -> Path:
        try:
            directory, name, slash = await walk_parent(task.fs, task.cred, path)
            if name in (b"", b".", b".."):
                raise SysError(errno.EEXIST)
            if slash:
                await walk(task.fs, task.cred, name, directory, follow=False)
                raise SysError(errno.EEXIST)
            mode = S_IFSOCK | (sock.file.inode.mode & 0o7777)
            dentry = await modify.mknod(directory, name, mode, 0, task.fs.umask, task.cred)
        except SysError as error:
            raise SysError(errno.EADDRINUSE if error.errno == errno.EEXIST else error.errno) from None
        assert dentry.inode is not None
        dentry.inode.attached = sock
        return Path(directory.mount, dentry)

    async def remove(self, task: Task, place: Path) -> None:
        place.inode.attached = None
        parent = place.dentry.parent
        if parent is not None and not place.dentry.deleted:
            await modify.unlink(Path(place.mount, parent), place.dentry.name, False, task.cred)

    async def find(self, task: Task, path: bytes) -> tuple[UnixSock, Path]:
        place = await walk(task.fs, task.cred, path)
        inode = place.inode
        await inode.refresh()
        permission(inode, task.cred, MAY_WRITE)
        if inode.kind != S_IFSOCK or inode.attached is None:
            raise SysError(errno.ECONNREFUSED)
        return inode.attached, place

    def touch(self, place: Path) -> None:
        place.inode.touch_atime(0)

    def open(self, place: Path) -> File:
        return PathFile(place.inode, O_PATH, place)

    def leave(self, place: Path, sock: UnixSock) -> None:
        inode = place.dentry.inode
        if inode is not None and inode.attached is sock:
            inode.attached = None


names.paths = _Paths()


def _task() -> Any:
    """The task on whose behalf this runs."""
    return wait.current()


def socket_of(task: Task, fd: int) -> SocketFile:
    """The socket at a descriptor; SysError(EBADF, ENOTSOCK)."""
    file = task.files.get(fd)
    if not isinstance(file, SocketFile):
        raise SysError(errno.ENOTSOCK)
    return file
