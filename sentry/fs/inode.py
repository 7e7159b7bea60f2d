"""Inode and Filesystem: the interface each file system implements (struct inode_operations).

Attributes are always in the units of struct stat; times are nanoseconds since the epoch.  They stand
in a struct vnode (csrc/abi/vfs.h), where the engine's fast paths find them, too.

Operations are coroutines, since a remote file system waits for its server; one in memory just never
suspends.  Whoever calls them (walk.py, the system calls) has checked permissions, and that names are
valid; a file system checks what only it knows (EEXIST, ENOTEMPTY, EROFS…).
"""

from __future__ import annotations

import errno
from _operator import attrgetter
from time import time_ns

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_NOATIME
from sentry.abi.fileattr import FS_NOATIME_FL
from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, makedev
from sentry.fs import special

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.dirfile import DirectoryFile
    from sentry.fs.file import File
    from sentry.fs.locks import FileLocks
    from sentry.fs.mutex import Mutex
    from sentry.kernel.credentials import Credentials

    class Field:
        """An integer of an object's C struct, as type checkers see the properties below."""

        def __get__(self, instance: object, owner: object) -> int: ...
        def __set__(self, instance: object, value: int) -> None: ...


#: How a directory's names may be cached (Inode.caching): for as long as this kernel changes them
#: itself; after asking `lookup` again each time (it must return the same object for the same file);
#: not at all (generated directories: each lookup may make a new inode).
CACHE_EXACT = 0
CACHE_REVALIDATE = 1
CACHE_NEVER = 2

#: Inode.c.flags: the attributes are true without a `refresh`.
LIVE: int = lib.VNODE_LIVE
#: And of a file whose bytes are the host's: it was written to, so it can't be LIVE before the next refresh.
CHANGED: int = lib.VNODE_CHANGED
_new = ffi.new
_VNODE = ffi.typeof("struct vnode *")
#: What a time stamp can be (Linux's s_time_max): others are cut to the nearest, as utimensat(2) does.
TIME_MAX = 0x7FFF_FFFF_FFFF_FFFF


def _attribute(name: str) -> Field:
    """The property of an inode that is the field `name` of its struct vnode."""

    def put(inode: Inode, value: int) -> None:
        setattr(inode.c, name, value)

    return property(attrgetter("c." + name), put)  # type: ignore[return-value]


def _time(name: str) -> Field:
    def put(inode: Inode, value: int) -> None:
        setattr(inode.c, name, max(-TIME_MAX, min(value, TIME_MAX)))

    return property(attrgetter("c." + name), put)  # type: ignore[return-value]


class Filesystem:
    """One mounted instance (struct super_block)."""

    #: As in /proc/mounts and /proc/filesystems.
    type_name = b"none"
    #: f_type of statfs(2).
    magic = 0
    #: A name that isn't there is ENOENT even for calls that would make it, before any check (procfs).
    fixed_names = False
    _next_dev = 20

    def __init__(self) -> None:
        #: st_dev of its inodes: an anonymous device number of the sandbox, never the host's.
        self.dev = makedev(0, Filesystem._next_dev)
        Filesystem._next_dev += 1
        self.readonly = False
        #: Whether an access time older than a day is renewed by a read.
        self.relatime_day = True
        #: Serialises changes of directories in file systems whose operations may sleep; None: not needed.
        self.lock: Mutex | None = None
        self.source = self.type_name
        #: The user namespace that it belongs to (s_user_ns); None: the initial one.
        self.user_ns: Any = None

    def options(self) -> bytes:
        """What /proc/mounts shows behind ro or rw, b"" or with a comma in front."""
        return b""

    def over(self, lower: Any) -> Inode:
        """How a file of the file system below this one (an overlay), or of this one, shows here."""
        inode: Inode = lower
        return inode

    def known_of(self, directory: Inode) -> Iterable[bytes]:
        """The names in `directory.listing_data()` of files that have an Inode."""
        return ()

    async def sync(self) -> None:
        """syncfs(2)."""

    async def statfs(self) -> tuple[int, int, int, int, int, int]:
        """(block size, blocks, blocks free, blocks available, inodes, inodes free)."""
        return 4096, 0, 0, 0, 0, 0


class Inode:
    """A file.  Subclasses override the operations that their kind of file has."""

    __slots__ = ("attached", "c", "fs", "locks", "texts", "writers")
    mode = _attribute("mode")
    uid = _attribute("uid")
    gid = _attribute("gid")
    nlink = _attribute("nlink")
    ino = _attribute("ino")
    rdev = _attribute("rdev")
    blksize = _attribute("blksize")
    #: Bytes; units of 512 bytes.
    size = _attribute("size")
    blocks = _attribute("blocks")
    atime = _time("atime")
    mtime = _time("mtime")
    ctime = _time("ctime")
    btime = _time("btime")
    #: FS_…_FL (ioctl_iflags(2)); None: this file can't have any.
    fsflags: int | None = None
    #: `c.flags` of a new one.
    _flags = LIVE
    #: For directories: CACHE_EXACT, CACHE_REVALIDATE or CACHE_NEVER.
    caching = CACHE_EXACT
    #: For directories: an open(2) only makes a File, by `open_directory`; so the engine may do it first.
    plain = False
    #: For symbolic links: `readlink` always says the same.
    fixed_link = False
    #: Nobody may write to it, whatever the mode says: EPERM (S_IMMUTABLE).
    immutable = False
    #: No capability lets anybody do what the mode doesn't.
    strict = False

    def grants(self, cred: Credentials, mask: int) -> bool:
        """Whether `cred` may do what neither the mode nor capabilities allow (a rule of the file's own)."""
        return False

    def __init__(self, fs: Filesystem, ino: int, mode: int, uid: int = 0, gid: int = 0) -> None:
        self.fs = fs
        #: struct vnode: the attributes.
        c: Any = _new(_VNODE)
        self.c = c
        c.dev = fs.dev
        c.ino = ino
        c.mode = mode
        c.uid = uid
        c.gid = gid
        c.nlink = 1
        c.blksize = 4096
        c.flags = self._flags
        c.atime = c.mtime = c.ctime = c.btime = time_ns()
        #: Record and flock locks; see locks.py.
        self.locks: FileLocks | None = None
        #: What a FIFO (its pipe), a bound socket or a device keeps with its inode.
        self.attached: Any = None
        #: Files open for writing, and programs under way: only one of the two may be (File.claim_write).
        self.writers = self.texts = 0

    def __init_subclass__(cls) -> None:
        if "refresh" in cls.__dict__:
            cls._flags = 0  # it has to say when its attributes are LIVE

    @property
    def kind(self) -> int:
        """The S_IFMT bits."""
        mode: int = self.c.mode
        return mode & S_IFMT

    @property
    def is_dir(self) -> bool:
        mode: int = self.c.mode
        return mode & S_IFMT == S_IFDIR

    @property
    def is_symlink(self) -> bool:
        mode: int = self.c.mode
        return mode & S_IFMT == S_IFLNK

    def touch_atime(self, flags: int) -> None:
        """The file was read: move atime on as relatime does, unless `flags` has O_NOATIME."""
        if flags & O_NOATIME or self.fs.readonly or (self.fsflags or 0) & FS_NOATIME_FL:
            return
        c = self.c
        atime = c.atime
        if atime <= c.mtime or atime <= c.ctime:
            c.atime = time_ns()
        elif self.fs.relatime_day:
            now = time_ns()
            if now - atime > 86_400_000_000_000:
                c.atime = now

    async def refresh(self) -> None:
        """Bring the attribute fields up to date (a remote or generated file overrides this, and sets LIVE
        in `c.flags` where the engine may do without)."""

    async def setattr(self, changes: dict[str, int]) -> None:
        """Set some of mode (permission bits) uid gid size atime mtime; ctime follows by itself."""
        raise SysError(errno.EPERM)

    def set_fsflags(self, flags: int) -> None:
        """Change `fsflags`, which are not None."""
        raise SysError(errno.ENOTTY)

    async def foresee(self, names: list[bytes], opening: bool) -> None:
        """`names` will be looked up next, the first one here and each of the others in the one before it, and
        with `opening`, what the last one is will be opened for reading: whoever has to ask somebody else may
        ask for all at once."""

    async def lookup(self, name: bytes) -> Inode:
        """The entry `name` of this directory; SysError(ENOENT)."""
        raise SysError(errno.ENOTDIR)

    async def create(self, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        """A new regular file; `mode` is permission bits, umask applied."""
        raise SysError(errno.EACCES)

    async def tmpfile(self, mode: int, uid: int, gid: int) -> Inode:
        """O_TMPFILE: a new regular file without a name; `link` can give it one."""
        raise SysError(errno.EOPNOTSUPP)

    async def mkdir(self, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        raise SysError(errno.EPERM)

    async def mknod(self, name: bytes, mode: int, rdev: int, uid: int, gid: int) -> Inode:
        """A FIFO, socket or device node; `mode` includes the type."""
        raise SysError(errno.EPERM)

    async def symlink(self, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        raise SysError(errno.EPERM)

    async def link(self, name: bytes, inode: Inode) -> None:
        raise SysError(errno.EPERM)

    async def unlink(self, name: bytes) -> None:
        raise SysError(errno.EPERM)

    async def rmdir(self, name: bytes) -> None:
        raise SysError(errno.EPERM)

    async def rename(self, name: bytes, new_dir: Inode, new_name: bytes, flags: int) -> None:
        """Within one file system; `flags` are RENAME_NOREPLACE and RENAME_EXCHANGE."""
        raise SysError(errno.EPERM)

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        """For DirectoryFile: (ino, next cursor, DT_ type, name) from `cursor` (≥ 2) on."""
        raise SysError(errno.ENOTDIR)

    async def snapshot(self) -> list[tuple[int, int, bytes]]:
        """For SnapshotDirectory: (ino, DT_ type, name) of all, without "." and ".."."""
        raise SysError(errno.ENOTDIR)

    def listing_data(self) -> bytes | None:
        """What is in this directory as Rlistdir.data (gofer/messages.py), as long as that never changes."""
        return None

    def learn(self, place: Path) -> None:
        """This directory, at `place`, was listed: let the engine know about what is in it."""

    def lend(self, place: Path) -> None:
        """The engine has learnt what is in this directory, at `place`."""

    def foretell(self, place: Path) -> None:
        """Likewise, and may be told what others hold that will be listed next."""

    def learnt(self, name: bytes, c: Any) -> Inode:
        """The inode of `name`, which the engine has learnt, without asking; `c`: its struct vnode."""
        raise NotImplementedError

    def open_directory(self, path: Path, flags: int, c: Any) -> DirectoryFile:
        """`open` of a `plain` directory; `c`: the struct vfile."""
        raise NotImplementedError

    async def readlink(self) -> bytes:
        raise SysError(errno.EINVAL)

    async def follow(self) -> Path | None:
        """For magic links (/proc/self/fd/N): the place it leads to; None: follow readlink()."""
        return None

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        """An open file description; `flags` as given to open(2), already vetted.  O_TRUNC and O_CREAT
        have been done.  FIFOs and device nodes are the same in every file system."""
        return await special.open_special(self, path, flags, cred)

    def may_reopen(self, file: File) -> bool:
        """Whether an open of this inode for reading would be like `file`, which is one (spare.py)."""
        return True

    @property
    def file_caps(self) -> bytes | None:
        """What security.capability says to execve(2), None where it says nothing: only files of the sandbox's
        own memory are looked at."""
        return None

    async def listxattr(self) -> list[bytes]:
        return []

    async def getxattr(self, name: bytes) -> bytes:
        raise SysError(errno.ENODATA if name.startswith(b"user.") else errno.EOPNOTSUPP)

    async def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        raise SysError(errno.EOPNOTSUPP)

    async def removexattr(self, name: bytes) -> None:
        raise SysError(errno.EOPNOTSUPP)
