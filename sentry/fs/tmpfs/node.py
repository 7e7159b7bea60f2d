"""What all inodes of a tmpfs share: attributes that are simply set, and extended attributes."""

from __future__ import annotations

import errno
from time import time_ns

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import XATTR_CREATE, XATTR_REPLACE
from sentry.abi.fileattr import FS_NOATIME_FL
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from sentry.fs.inode import Inode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.tmpfs.inode import Tmpfs
    from sentry.mm.commit import Commit

#: Names and values of one file together (a guest may not fill the Sentry's memory with them).
XATTR_MAX = 131072


class Storage:
    """What the files of every tmpfs (and memfds) share: the sandbox's limits of shared memory and of files.

    `commit` is set by whoever boots the sandbox; without one there is no limit of memory.
    """

    __slots__ = ("commit", "inodes")
    #: Each inode costs about a kilobyte of the Sentry's own memory.
    MAX_INODES = 262144

    def __init__(self) -> None:
        self.commit: Commit | None = None
        self.inodes = 0

    def room(self) -> int:
        """How many pages may still come into use."""
        return 1 << 50 if self.commit is None else self.commit.shared_room() // PAGE_SIZE

    def count(self, pages: int) -> None:
        """`pages` (maybe negative) have come into use."""
        if self.commit is not None:
            self.commit.count_shared(pages * PAGE_SIZE)


storage = Storage()


class TmpfsInode(Inode):
    """A file of a tmpfs.  Lives as long as a name, an open file or a mapping refers to it."""

    __slots__ = ("_xattr_size", "fsflags", "linkable", "xattrs")
    fs: Tmpfs

    def __init__(self, fs: Tmpfs, ino: int, mode: int, uid: int, gid: int) -> None:
        super().__init__(fs, ino, mode, uid, gid)
        self.xattrs: dict[bytes, bytes] | None = None
        self._xattr_size = 0
        self.fsflags: int | None = 0 if mode & S_IFMT in (S_IFREG, S_IFDIR, S_IFLNK) else None
        self.c.ours = 1
        #: An O_TMPFILE file without a name, which link may still give it.
        self.linkable = False

    def __del__(self) -> None:
        fs = self.fs
        fs.count_inodes(-1)
        fs.count(-self.held_pages())

    def held_pages(self) -> int:
        """What the file counts for in the file system's limit."""
        return -(-self._xattr_size // PAGE_SIZE)

    def changed(self) -> None:
        """Attributes or names of this file change now (an overlay notes that it has its own copy)."""

    def set_fsflags(self, flags: int) -> None:
        """What they forbid or change is Python's from now on: attributes are not LIVE any more."""
        self.changed()
        self.fsflags = flags
        c = self.c
        if flags:
            c.flags &= ~lib.VNODE_LIVE
        c.flags = c.flags & ~lib.VNODE_NOATIME | (lib.VNODE_NOATIME if flags & FS_NOATIME_FL else 0)
        self.ctime = time_ns()

    async def setattr(self, changes: dict[str, int]) -> None:
        self.changed()
        mode = changes.get("mode")
        if mode is not None:
            self.mode = self.mode & ~0o7777 | mode & 0o7777
        if "uid" in changes:
            self.uid = changes["uid"]
        if "gid" in changes:
            self.gid = changes["gid"]
        if "atime" in changes:
            self.atime = changes["atime"]
        if "mtime" in changes:
            self.mtime = changes["mtime"]
        self.ctime = time_ns()

    def _check_name(self, name: bytes) -> None:
        if name.startswith(b"user."):
            if self.kind not in (S_IFREG, S_IFDIR):
                raise SysError(errno.EPERM)
        elif not name.startswith((b"trusted.", b"security.")):
            raise SysError(errno.EOPNOTSUPP)

    @property
    def file_caps(self) -> bytes | None:
        return None if self.xattrs is None else self.xattrs.get(b"security.capability")

    async def listxattr(self) -> list[bytes]:
        return list(self.xattrs or ())

    async def getxattr(self, name: bytes) -> bytes:
        if not name.startswith((b"user.", b"trusted.", b"security.")):
            raise SysError(errno.EOPNOTSUPP)
        value = (self.xattrs or {}).get(name)
        if value is None:
            raise SysError(errno.ENODATA)
        return value

    async def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        self._check_name(name)
        xattrs = self.xattrs or {}
        old = xattrs.get(name)
        if flags & XATTR_CREATE and old is not None:
            raise SysError(errno.EEXIST)
        if flags & XATTR_REPLACE and old is None:
            raise SysError(errno.ENODATA)
        size = self._xattr_size + len(value) - (len(old) if old is not None else -len(name) - 32)
        self._resize_xattrs(size)
        self.changed()
        xattrs[name] = value
        self.xattrs = xattrs
        self.ctime = time_ns()

    async def removexattr(self, name: bytes) -> None:
        self._check_name(name)
        if self.xattrs is None or name not in self.xattrs:
            raise SysError(errno.ENODATA)
        self.changed()
        self._resize_xattrs(self._xattr_size - len(self.xattrs.pop(name)) - len(name) - 32)
        self.ctime = time_ns()

    def _resize_xattrs(self, size: int) -> None:
        if size > XATTR_MAX:
            raise SysError(errno.ENOSPC)
        pages = -(-size // PAGE_SIZE) + self._xattr_size // -PAGE_SIZE
        if pages:
            self.fs.charge(pages)
        self._xattr_size = size
