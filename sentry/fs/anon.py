"""Files without a name: pipes, eventfd and their like (Linux's pipefs and anon_inodefs).

Each has an inode with a `link_text`, what /proc/PID/fd shows, and a Path in a mount of its own that
no namespace holds, so that whoever follows such a link arrives at the inode.
"""

from __future__ import annotations

import errno
from time import time_ns

from sentry.abi.errors import SysError
from sentry.fs.dentry import Dentry, Mount, Path
from sentry.fs.file import File
from sentry.fs.inode import Filesystem, Inode

ANON_MAGIC = 0x09041934
PIPE_MAGIC = 0x50495045

#: How many entries of a file /proc/PID/fdinfo tells of at once.
FDINFO_PIECE = 256


class AnonFilesystem(Filesystem):
    """A file system nobody can mount; `mount` is the kernel's own."""

    def __init__(self, type_name: bytes, magic: int) -> None:
        self.type_name = type_name
        self.magic = magic
        super().__init__()
        root = Inode(self, 1, 0o040000)
        self.mount = Mount(self, Dentry(None, b"", root))
        self._last_ino = 1

    def new_ino(self) -> int:
        self._last_ino += 1
        return self._last_ino

    def path(self, inode: AnonInode) -> Path:
        return Path(self.mount, Dentry(None, inode.link_text, inode))


class AnonInode(Inode):
    """`link_text` is what readlink of /proc/PID/fd/N answers."""

    __slots__ = ("link_text",)

    def __init__(
        self, fs: Filesystem, ino: int, mode: int, link_text: bytes, uid: int = 0, gid: int = 0
    ) -> None:
        super().__init__(fs, ino, mode, uid, gid)
        self.link_text = link_text

    async def setattr(self, changes: dict[str, int]) -> None:
        if changes:
            raise SysError(errno.EOPNOTSUPP)


class OwnInode(AnonInode):
    """An inode of a pipe's or a socket's own: its mode and owner can be changed."""

    __slots__ = ()

    async def setattr(self, changes: dict[str, int]) -> None:
        for name in ("uid", "gid", "atime", "mtime"):
            if name in changes:
                setattr(self, name, changes[name])
        if "mode" in changes:
            self.mode = self.mode & ~0o7777 | changes["mode"] & 0o7777
        self.ctime = time_ns()


class AnonFile(File):
    """Base of eventfd, timerfd, signalfd and epoll files: lseek(2) does nothing to them."""

    __slots__ = ()
    counts = True

    async def lseek(self, offset: int, whence: int) -> int:
        return 0


PIPEFS = AnonFilesystem(b"pipefs", PIPE_MAGIC)
#: All of them are one inode to stat(2).
ANON_INO = 1039
ANON_INODEFS = AnonFilesystem(b"anon_inodefs", ANON_MAGIC)


def anon_inode(kind: bytes) -> tuple[AnonInode, Path]:
    """The inode and path of an `anon_inode:[kind]` file; all of them show the same mode and owner."""
    inode = AnonInode(ANON_INODEFS, ANON_INO, 0o600, b"anon_inode:" + kind)
    return inode, ANON_INODEFS.path(inode)
