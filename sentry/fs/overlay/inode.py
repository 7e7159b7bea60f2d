"""The overlay file system: tmpfs inodes that begin as images of lower ones.

An overlay inode with a `lower` shows its number, attributes and content until something changes:
- attributes and names simply change in the overlay inode, which from then on stands in
  `OverlayFilesystem.modified`, so that the lower file leads to it again (hard links do, too);
- the data of a regular file is copied when it is first opened for writing or truncated.  Whoever
  had opened it for reading before keeps reading the lower file, as on Linux;
- a directory has its own entries over the lower ones, and `whiteouts`: lower names that are gone.

A directory with a lower one can be renamed: it takes its `lower` along (Linux: redirect_dir=on).
"""

from __future__ import annotations

import errno
from _weakref import ref

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_ACCMODE, O_RDONLY
from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from sentry.fs import spare
from sentry.fs.dirfile import SnapshotDirectory
from sentry.fs.mutex import Mutex
from sentry.fs.tmpfs.inode import DirectoryInode, SymlinkInode, Tmpfs
from sentry.fs.tmpfs.node import TmpfsInode
from sentry.fs.tmpfs.regular import INLINE_MAX, RegularInode
from sentry.kernel.wait import yield_now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.file import File
    from sentry.fs.inode import Filesystem, Inode
    from sentry.kernel.credentials import Credentials

OVERLAYFS_MAGIC = 0x794C7630
#: New files are numbered from here on, beyond the numbers of usual lower file systems.
FIRST_INO = 1 << 48
COPY_CHUNK = 1 << 20
#: Links of merged directories aren't counted; find(1) knows what 1 means.
DIR_NLINK = 1
_learn = lib.dnode_learn


class OverlayFilesystem(Tmpfs):
    """`lower_root` is a directory of any file system whose directories have `snapshot`; `cred` is who
    opens lower files to copy them up, whoever writes to them."""

    type_name = b"overlay"
    magic = OVERLAYFS_MAGIC

    def __init__(
        self,
        lower_root: Inode,
        cred: Credentials,
        limit_bytes: int = 0,
        reopen_readonly: Callable[[int], Awaitable[int]] | None = None,
    ) -> None:
        self._lower_root = lower_root
        self.cred = cred
        #: id(lower inode) → overlay inode: all that exist, and those that must not be forgotten.
        self.known: dict[int, ref[_Over]] = {}
        self.modified: dict[int, _Over] = {}
        self.copying = Mutex()
        super().__init__(limit_bytes, reopen_readonly)
        self.lock = Mutex()
        self._next_ino = FIRST_INO

    @property
    def lower(self) -> Filesystem:
        return self._lower_root.fs

    def _make_root(self, mode: int, uid: int, gid: int) -> DirectoryInode:
        root = self.over(self._lower_root)
        assert isinstance(root, DirectoryInode)
        return root

    def options(self) -> bytes:
        return b""

    def over(self, lower: Inode) -> TmpfsInode:
        """The overlay inode of a lower one."""
        known = self.known.get(id(lower))
        inode = None if known is None else known()
        if inode is None:
            kind = lower.mode & S_IFMT
            cls = _CLASSES.get(kind, OverlayNode)
            self.count_inodes(1)
            inode = cls(self, lower)
            assert isinstance(inode, _Over)
            self.known[id(lower)] = ref(inode)
        return inode


class _Over(TmpfsInode):
    """What overlay inodes share, mixed into the tmpfs classes; `lower` is a slot of each."""

    __slots__ = ()
    fs: OverlayFilesystem
    if TYPE_CHECKING:
        lower: Inode

    def _begin(self, lower: Inode) -> None:
        """Show the attributes of `lower`."""
        self.lower = lower  # type: ignore[misc]
        self.c.ours = 0
        self.uid, self.gid, self.nlink, self.rdev = lower.uid, lower.gid, lower.nlink, lower.rdev
        self.mode, self.size, self.blksize, self.blocks = lower.mode, lower.size, lower.blksize, lower.blocks
        self.atime, self.mtime, self.ctime, self.btime = lower.atime, lower.mtime, lower.ctime, lower.btime

    def __del__(self) -> None:
        known = self.fs.known
        mine = known.get(id(self.lower))
        if mine is not None and mine() in (None, self):
            del known[id(self.lower)]
        super().__del__()

    def changed(self) -> None:
        if self.nlink > 0:
            self.fs.modified[id(self.lower)] = self
            self.c.ours = 1
        else:
            self.fs.modified.pop(id(self.lower), None)

    async def listxattr(self) -> list[bytes]:
        if self.xattrs is None:
            return await self.lower.listxattr()
        return await super().listxattr()

    async def getxattr(self, name: bytes) -> bytes:
        if self.xattrs is None:
            return await self.lower.getxattr(name)
        return await super().getxattr(name)

    async def _copy_xattrs(self) -> None:
        """From now on the extended attributes are our own."""
        if self.xattrs is not None:
            return
        xattrs = {}
        try:
            for name in await self.lower.listxattr():
                xattrs[name] = await self.lower.getxattr(name)
        except SysError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA):
                raise
        if self.xattrs is None:
            self._resize_xattrs(sum(len(name) + len(value) + 32 for name, value in xattrs.items()))
            self.xattrs = xattrs

    async def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        self._check_name(name)
        await self._copy_xattrs()
        await super().setxattr(name, value, flags)

    async def removexattr(self, name: bytes) -> None:
        self._check_name(name)
        await self._copy_xattrs()
        await super().removexattr(name)


class OverlayNode(_Over, TmpfsInode):
    """A FIFO, socket or device node."""

    __slots__ = ("__weakref__", "lower")

    def __init__(self, fs: OverlayFilesystem, lower: Inode) -> None:
        super().__init__(fs, lower.ino, lower.mode, 0, 0)
        self._begin(lower)


class OverlaySymlink(_Over, SymlinkInode):
    __slots__ = ("__weakref__", "lower")

    def __init__(self, fs: OverlayFilesystem, lower: Inode) -> None:
        super().__init__(fs, lower.ino, b"", 0, 0)
        self._begin(lower)

    async def readlink(self) -> bytes:
        if not self.target:
            self.target = await self.lower.readlink()
        return self.target


class OverlayRegular(_Over, RegularInode):
    __slots__ = ("__weakref__", "copied", "lower")

    def __init__(self, fs: OverlayFilesystem, lower: Inode) -> None:
        super().__init__(fs, lower.ino, lower.mode, 0, 0)
        self._begin(lower)
        #: Whether the data is ours by now.
        self.copied = False

    async def refresh(self) -> None:
        if self.copied:
            await super().refresh()

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        if not self.copied and flags & O_ACCMODE == O_RDONLY:
            file = await self.lower.open(path, flags, cred)
            file.set_inode(self)
            return file
        await self.copy_up(path, self.size)
        return await super().open(path, flags, cred)

    def may_reopen(self, file: File) -> bool:
        return not self.copied or file.c.kind == lib.VFILE_TMPFS

    async def setattr(self, changes: dict[str, int]) -> None:
        size = changes.get("size")
        if size is not None and not self.copied:
            await self.copy_up(None, min(size, self.size))
        await super().setattr(changes)

    async def copy_up(self, path: Path | None, size: int) -> None:
        """Make the first `size` bytes of the lower file our own data.  SysError(ENOSPC…): nothing done."""
        async with self.fs.copying:
            if self.copied:
                return
            mtime, ctime = self.mtime, self.ctime
            old_size, old_blocks, self.size = self.size, self.blocks, 0
            try:
                done = await self._copy(path, size) if size else 0
                self.size = done
                self.blocks = self.pages * 8
                self.copied = True
                spare.forget_inode(self)
            except BaseException:
                super().truncate(0)
                self.size, self.blocks = old_size, old_blocks
                raise
            finally:
                self.mtime, self.ctime = mtime, ctime
            self.changed()

    async def _copy(self, path: Path | None, size: int) -> int:
        source = await self.lower.open(path, O_RDONLY, self.fs.cred)  # type: ignore[arg-type]
        try:
            if size > INLINE_MAX:
                self._to_memfd()
            done = 0
            while done < size:
                data = await source.pread(min(COPY_CHUNK, size - done), done)
                if not data:
                    break
                count = self.write_at(data, done)
                if count < len(data):
                    raise SysError(errno.ENOSPC)
                done += count
                if done < size:
                    await yield_now()
            return done
        finally:
            source.put()


class OverlayDirectory(_Over, DirectoryInode):
    __slots__ = ("__weakref__", "lower", "whiteouts")

    def __init__(self, fs: OverlayFilesystem, lower: Inode) -> None:
        super().__init__(fs, lower.ino, lower.mode, 0, 0)
        self._begin(lower)
        self.nlink = DIR_NLINK
        #: Names of the lower directory that are gone or stand in `_entries`.
        self.whiteouts: set[bytes] = set()

    def _count(self, delta: int) -> None:
        return

    async def foresee(self, names: list[bytes], opening: bool) -> None:
        if names[0] not in self._entries and names[0] not in self.whiteouts:
            await self.lower.foresee(names, opening)

    async def _find(self, name: bytes) -> TmpfsInode | None:
        entry = self._entries.get(name)
        if entry is not None:
            return entry[1]
        if name in self.whiteouts:
            return None
        try:
            lower = await self.lower.lookup(name)
        except SysError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return self.fs.over(lower)

    def _drop(self, name: bytes) -> None:
        if name in self._entries:
            super()._drop(name)
        else:
            self.whiteouts.add(name)

    async def _empty(self) -> bool:
        if self._entries:
            return False
        return all(name in self.whiteouts for _, _, name in await self.lower.snapshot())

    async def snapshot(self) -> list[tuple[int, int, bytes]]:
        mine = self._entries
        gone = self.whiteouts
        listing = await super().snapshot()
        lower = await self.lower.snapshot()
        listing += [entry for entry in lower if entry[2] not in gone and entry[2] not in mine]
        return listing

    def learn(self, place: Path) -> None:
        lower, c = self.lower, place.dentry.c
        data = lower.listing_data()
        if data is None or place.dentry.inode is not self:
            return
        if not self._entries and not self.whiteouts and not c.listing:
            lib.dnode_list(c, data, len(data))
        if _learn(c, data, len(data), self.fs.dev, DIR_NLINK):
            for names in (self._entries, self.whiteouts, lower.fs.known_of(lower)):
                for name in names:
                    lib.dnode_unlearn(lib.dnode_learnt(c, name, len(name)))
            lower.lend(place)
        lower.foretell(place)

    def learnt(self, name: bytes, c: Any) -> Inode:
        return self.fs.over(self.lower.learnt(name, c))

    def open_directory(self, path: Path, flags: int, c: Any = None) -> SnapshotDirectory:
        return SnapshotDirectory(self, flags, path, c)


_CLASSES: dict[int, type] = {S_IFREG: OverlayRegular, S_IFDIR: OverlayDirectory, S_IFLNK: OverlaySymlink}
