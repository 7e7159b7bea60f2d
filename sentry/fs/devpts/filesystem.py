"""devpts: /dev/pts/N for each pseudo-terminal, and ptmx to make new ones (pts(4))."""

from __future__ import annotations

import errno
from time import time_ns

from sentry.abi.errors import SysError
from sentry.abi.fcntl import KEPT_FLAGS, O_NOCTTY, O_RDWR
from sentry.abi.stat import DT_CHR, S_IFCHR, S_IFDIR
from sentry.fs.dentry import Dentry, Mount, Path
from sentry.fs.dirfile import SnapshotDirectory
from sentry.fs.inode import CACHE_NEVER, Filesystem, Inode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.devpts.pty import MasterFile, Pty, SlaveFile
    from sentry.fs.file import File
    from sentry.kernel.credentials import Credentials

DEVPTS_MAGIC = 0x1CD1
#: In all instances together, and how many of them only the first instance gets (kernel.pty.max and reserve).
MAX_PTYS = 4096
RESERVED = 1024
MAX_DIGITS = 4
TTY_GID = 5
PTMX_INO = 2
FIRST_INO = 3
PTS_MAJOR = 136
PTMX_RDEV = 5 << 8 | 2


def pts_rdev(index: int) -> int:
    """The device number of slave `index` (as makedev(3))."""
    return (index & 0xFF) | PTS_MAJOR << 8 | (index & ~0xFF) << 12


class PtsInode(Inode):
    """A node of devpts; owner and mode may be changed (grantpt(3), mesg(1))."""

    __slots__ = ()
    fs: DevptsFilesystem

    async def setattr(self, changes: dict[str, int]) -> None:
        if "size" in changes and len(changes) == 1:
            return
        if "mode" in changes:
            self.mode = self.mode & ~0o7777 | changes["mode"] & 0o7777
        for name in ("uid", "gid", "atime", "mtime"):
            if name in changes:
                setattr(self, name, changes[name])
        self.ctime = time_ns()

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        if self.ino == PTMX_INO:
            return self.fs.open_ptmx(self, path, flags, cred)
        return self.fs.open_slave(self.ino - FIRST_INO, flags, path)


class PtsDirectory(Inode):
    """The root: generated, so that slaves come and go with their masters."""

    __slots__ = ()
    fs: DevptsFilesystem
    caching = CACHE_NEVER

    async def lookup(self, name: bytes) -> Inode:
        if name == b"ptmx":
            return self.fs.ptmx
        pty = self.fs.ptys.get(int(name)) if name.isdigit() and len(name) <= MAX_DIGITS else None
        if pty is None or name != b"%d" % pty.index:
            raise SysError(errno.ENOENT)
        return pty.inode

    async def snapshot(self) -> list[tuple[int, int, bytes]]:
        """(ino, DT_ type, name) of each entry."""
        slaves = [(index + FIRST_INO, DT_CHR, b"%d" % index) for index in sorted(self.fs.ptys)]
        return [(PTMX_INO, DT_CHR, b"ptmx"), *slaves]

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return SnapshotDirectory(self, flags & KEPT_FLAGS, path)


class DevptsFilesystem(Filesystem):
    type_name = b"devpts"
    magic = DEVPTS_MAGIC
    #: Pairs of which somebody has a side open, in all instances.
    count = 0

    def __init__(self, most: int = MAX_PTYS - RESERVED) -> None:
        super().__init__()
        self._most = most
        #: The numbers in use: also of those whose master is closed already, as long as a slave is open.
        self._indices: set[int] = set()
        self.root = PtsDirectory(self, 1, S_IFDIR | 0o755)
        self.root.nlink = 2
        self.ptmx = PtsInode(self, PTMX_INO, S_IFCHR | 0o666)
        self.ptmx.rdev = PTMX_RDEV
        self.ptys: dict[int, Pty] = {}
        self._mount = Mount(self, Dentry(None, b"", self.root))

    def options(self) -> bytes:
        return b",gid=5,mode=620,ptmxmode=666"

    def slave_path(self, pty: Pty) -> Path:
        """A place for a slave that nobody walked to; it shows as the path that names it."""
        return Path(self._mount, Dentry(None, b"/dev/pts/%d" % pty.index, pty.inode))

    def _new(self, uid: int) -> Pty:
        if DevptsFilesystem.count >= self._most:
            raise SysError(errno.ENOSPC)
        index = 0
        while index in self._indices:
            index += 1
        from sentry.fs.devpts.pty import Pty

        pty = Pty(self, index)
        self._indices.add(index)
        DevptsFilesystem.count += 1
        inode = pty.inode = PtsInode(self, index + FIRST_INO, S_IFCHR | 0o620, uid, TTY_GID)
        inode.blksize = 1024
        inode.rdev = pts_rdev(index)
        self.ptys[index] = pty
        return pty

    def open_ptmx(self, inode: Inode, path: Path | None, flags: int, cred: Credentials) -> MasterFile:
        """A new pair: the File of its master; SysError(ENOSPC)."""
        from sentry.fs.devpts.pty import MasterFile

        return MasterFile(self._new(cred.fsuid), inode, flags & KEPT_FLAGS, path)

    def open_slave(self, index: int, flags: int, path: Path | None = None) -> SlaveFile:
        """SysError(EIO) when it is locked or there is none."""
        pty = self.ptys.get(index)
        if pty is None:
            raise SysError(errno.EIO)
        return pty.open(flags, path)

    def new_pair(self, uid: int = 0) -> tuple[MasterFile, SlaveFile]:
        """A pair for the kernel's own use, its slave unlocked and open."""
        from sentry.fs.devpts.pty import MasterFile

        pty = self._new(uid)
        master = MasterFile(pty, self.ptmx, O_RDWR, Path(self._mount, Dentry(None, b"/dev/ptmx", self.ptmx)))
        pty.locked = False
        return master, pty.open(O_RDWR | O_NOCTTY)

    def forget(self, pty: Pty) -> None:
        """The master was closed: the slave has no name any more."""
        if self.ptys.get(pty.index) is pty:
            del self.ptys[pty.index]

    def free(self, pty: Pty) -> None:
        """Both sides were closed."""
        self._indices.discard(pty.index)
        DevptsFilesystem.count -= 1
