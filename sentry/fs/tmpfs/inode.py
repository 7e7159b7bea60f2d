"""The tmpfs file system: its limits, directories, symbolic links and nodes.

A directory maps names to (cursor, inode); cursors only grow, so a listing that goes on by cursor
misses nothing that was there all the time and shows nothing twice (readdir(3)).
"""

from __future__ import annotations

import errno
from _bisect import bisect_left
from time import time_ns

from sentry._engine import ffi
from sentry.abi.errors import SysError
from sentry.abi.fcntl import RENAME_EXCHANGE, RENAME_NOREPLACE
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFREG
from sentry.fs.dirfile import DirectoryFile
from sentry.fs.inode import Filesystem
from sentry.fs.tmpfs.node import TmpfsInode, storage
from sentry.fs.tmpfs.regular import RegularInode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from sentry.fs.dentry import Dentry, Path
    from sentry.fs.file import File
    from sentry.fs.inode import Inode
    from sentry.kernel.credentials import Credentials

TMPFS_MAGIC = 0x01021994
NO_LIMIT = 1 << 50
#: Pages that are charged in advance, when fewer than QUOTA_LEAST are left, and there is room for many more.
QUOTA, QUOTA_LEAST, QUOTA_ROOM = 256, 32, 16384
#: What a name adds to the size of its directory, as on Linux.
DIRENT_SIZE = 20
#: How many files can be found by their number.
MAX_HANDLES = 4096


class Tmpfs(Filesystem):
    type_name = b"tmpfs"
    magic = TMPFS_MAGIC

    def __init__(
        self, limit_bytes: int = 0, reopen_readonly: Callable[[int], Awaitable[int]] | None = None,
        mode: int = 0o1777, uid: int = 0, gid: int = 0,
    ) -> None:  # fmt: skip
        """`limit_bytes`: for data, 0 for none.  `reopen_readonly(fd)`: a descriptor of the same memfd that
        is open for reading only; without it no shared mapping of a file opened O_RDONLY is possible."""
        super().__init__()
        self.limit_pages = limit_bytes // PAGE_SIZE or NO_LIMIT
        #: Pages charged, and a struct tmpfs_quota: how many of these are in no file yet.
        self._charged = 0
        self.quota: Any = ffi.new("struct tmpfs_quota *")
        self.limit_inodes = storage.MAX_INODES
        self.used_inodes = 0
        self.reopen_readonly = reopen_readonly
        self._next_ino = 1
        #: Inode number → a name of the file, of those that a handle was asked of (name_to_handle_at(2)).
        self.handles: dict[int, Dentry] = {}
        self.root = self._make_root(mode, uid, gid)

    def _make_root(self, mode: int, uid: int, gid: int) -> DirectoryInode:
        return self.new_directory(mode, uid, gid)

    def note_handle(self, dentry: Dentry) -> None:
        """Be able to find the file of `dentry` by its number; of too many the first is forgotten."""
        if dentry.deleted or dentry.inode is None:
            return
        self.handles[dentry.inode.ino] = dentry
        if len(self.handles) > MAX_HANDLES:
            del self.handles[next(iter(self.handles))]

    def by_handle(self, ino: int) -> Dentry:
        """SysError(ESTALE)."""
        dentry = self.handles.get(ino)
        if dentry is None or dentry.deleted or dentry.inode is None:
            raise SysError(errno.ESTALE)
        return dentry

    def options(self) -> bytes:
        if self.limit_pages == NO_LIMIT:
            return b""
        return b",size=%dk" % (self.limit_pages * 4)

    async def statfs(self) -> tuple[int, int, int, int, int, int]:
        limit = 0 if self.limit_pages == NO_LIMIT else self.limit_pages
        free = max(0, min(limit, self.room())) if limit else 0
        return PAGE_SIZE, limit, free, free, self.limit_inodes, max(0, self.limit_inodes - self.used_inodes)

    @property
    def used_pages(self) -> int:
        """Pages that its files use."""
        left: int = self.quota.left
        return self._charged - left

    def room(self) -> int:
        """How many pages more its files may use."""
        left: int = self.quota.left
        return min(self.limit_pages - self._charged, storage.room()) + left

    def charge(self, pages: int) -> None:
        """Count `pages` more (or fewer); SysError(ENOSPC)."""
        if pages > 0:
            room = self.room()
            if pages > room:
                raise SysError(errno.ENOSPC)
            if pages > room - self.quota.left:
                self._give_back()
        self.count(pages)

    def charge_ahead(self) -> None:
        """Let the engine have some pages to let files grow by, unless there is little room."""
        if self.quota.left < QUOTA_LEAST and self.room() > QUOTA_ROOM:
            self.count(QUOTA)
            self.quota.left += QUOTA

    def _give_back(self) -> None:
        self.count(-self.quota.left)
        self.quota.left = 0

    def __del__(self) -> None:
        self._give_back()

    def count(self, pages: int) -> None:
        """`pages` (maybe negative) have come into use."""
        self._charged += pages
        storage.count(pages)

    def count_inodes(self, number: int) -> None:
        self.used_inodes += number
        storage.inodes += number

    def new_ino(self) -> int:
        """A number for a new file, which counts from now on; SysError(ENOSPC)."""
        if self.used_inodes >= self.limit_inodes or storage.inodes >= storage.MAX_INODES:
            raise SysError(errno.ENOSPC)
        self.count_inodes(1)
        self._next_ino += 1
        return self._next_ino - 1

    def new_directory(self, mode: int, uid: int, gid: int) -> DirectoryInode:
        return DirectoryInode(self, self.new_ino(), S_IFDIR | mode, uid, gid)

    def new_regular(self, mode: int, uid: int, gid: int) -> RegularInode:
        return RegularInode(self, self.new_ino(), S_IFREG | mode, uid, gid)

    def new_symlink(self, target: bytes, uid: int, gid: int) -> SymlinkInode:
        return SymlinkInode(self, self.new_ino(), target, uid, gid)

    def new_node(self, mode: int, rdev: int, uid: int, gid: int) -> TmpfsInode:
        node = TmpfsInode(self, self.new_ino(), mode, uid, gid)
        node.rdev = rdev
        return node


class SymlinkInode(TmpfsInode):
    __slots__ = ("target",)
    fixed_link = True

    def __init__(self, fs: Tmpfs, ino: int, target: bytes, uid: int, gid: int) -> None:
        super().__init__(fs, ino, S_IFLNK | 0o777, uid, gid)
        self.target = target
        self.size = len(target)

    async def readlink(self) -> bytes:
        return self.target


class DirectoryInode(TmpfsInode):
    """A directory.  `_find`, `_put`, `_drop` and `_empty` are what an overlay does differently."""

    __slots__ = ("_entries", "_next_cursor", "_order")
    plain = True

    def __init__(self, fs: Tmpfs, ino: int, mode: int, uid: int, gid: int) -> None:
        super().__init__(fs, ino, mode, uid, gid)
        self.nlink = 2
        self.size = 2 * DIRENT_SIZE
        self._entries: dict[bytes, tuple[int, TmpfsInode]] = {}
        self._next_cursor = 2
        #: (cursor, name) in order; None after a change.
        self._order: list[tuple[int, bytes]] | None = None

    async def _find(self, name: bytes) -> TmpfsInode | None:
        entry = self._entries.get(name)
        return None if entry is None else entry[1]

    async def _empty(self) -> bool:
        return not self._entries

    def _put(self, name: bytes, inode: TmpfsInode) -> None:
        """Let `name`, which is vacant, be `inode`."""
        self.size += DIRENT_SIZE
        self._entries[name] = (self._next_cursor, inode)
        self._next_cursor += 1
        self._order = None

    def _drop(self, name: bytes) -> None:
        if self._entries.pop(name, None) is not None:
            self.size -= DIRENT_SIZE
            self._order = None

    def _touch(self) -> None:
        self.changed()
        self.mtime = self.ctime = time_ns()

    async def _vacant(self, name: bytes) -> None:
        """SysError unless a file `name` can be made here: ENOENT in a removed directory, EEXIST."""
        if self.nlink == 0:
            raise SysError(errno.ENOENT)
        if await self._find(name) is not None:
            raise SysError(errno.EEXIST)

    async def _existing(self, name: bytes) -> TmpfsInode:
        inode = await self._find(name)
        if inode is None:
            raise SysError(errno.ENOENT)
        return inode

    async def lookup(self, name: bytes) -> Inode:
        return await self._existing(name)

    async def create(self, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        await self._vacant(name)
        return self._add(name, self.fs.new_regular(mode, uid, gid))

    async def tmpfile(self, mode: int, uid: int, gid: int) -> Inode:
        inode = self.fs.new_regular(mode, uid, gid)
        inode.nlink = 0
        inode.linkable = True
        return inode

    async def mkdir(self, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        await self._vacant(name)
        inode = self._add(name, self.fs.new_directory(mode, uid, gid))
        self._count(1)
        return inode

    async def mknod(self, name: bytes, mode: int, rdev: int, uid: int, gid: int) -> Inode:
        await self._vacant(name)
        return self._add(name, self.fs.new_node(mode, rdev, uid, gid))

    async def symlink(self, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        await self._vacant(name)
        return self._add(name, self.fs.new_symlink(target, uid, gid))

    def _add(self, name: bytes, inode: TmpfsInode) -> TmpfsInode:
        self._touch()
        self._put(name, inode)
        return inode

    async def link(self, name: bytes, inode: Inode) -> None:
        await self._vacant(name)
        assert isinstance(inode, TmpfsInode)
        inode.changed()
        inode.nlink += 1
        inode.linkable = False
        inode.ctime = time_ns()
        self._add(name, inode)

    async def unlink(self, name: bytes) -> None:
        inode = await self._existing(name)
        self._touch()
        self._drop(name)
        self._unlinked(inode)

    def _count(self, delta: int) -> None:
        """One subdirectory more or less: its `..` is a link of this directory."""
        self.nlink += delta

    def _unlinked(self, inode: TmpfsInode) -> None:
        """`inode` lost a name of this directory."""
        if inode.is_dir:
            inode.nlink = 0
            self._count(-1)
        else:
            inode.nlink -= 1
        if not inode.nlink:
            self.fs.handles.pop(inode.ino, None)
        inode.ctime = time_ns()
        inode.changed()

    async def rmdir(self, name: bytes) -> None:
        inode = await self._existing(name)
        assert isinstance(inode, DirectoryInode)
        if not await inode._empty():
            raise SysError(errno.ENOTEMPTY)
        self._touch()
        self._drop(name)
        self._unlinked(inode)

    async def rename(self, name: bytes, new_dir: Inode, new_name: bytes, flags: int) -> None:
        assert isinstance(new_dir, DirectoryInode)
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise SysError(errno.EINVAL)
        if new_dir.nlink == 0:
            raise SysError(errno.ENOENT)
        inode = await self._existing(name)
        target = await new_dir._find(new_name)
        if target is None:
            if flags & RENAME_EXCHANGE:
                raise SysError(errno.ENOENT)
        elif not flags & RENAME_EXCHANGE and isinstance(target, DirectoryInode) and not await target._empty():
            raise SysError(errno.ENOTEMPTY)
        self._touch()
        new_dir._touch()
        self._drop(name)
        if target is not None:
            new_dir._drop(new_name)
            if flags & RENAME_EXCHANGE:
                self._moved_in(name, target, new_dir)
            else:
                new_dir._unlinked(target)
        new_dir._moved_in(new_name, inode, self)

    def _moved_in(self, name: bytes, inode: TmpfsInode, old: DirectoryInode) -> None:
        """`inode` is called `name` here from now on, and comes from `old`."""
        self._put(name, inode)
        if inode.is_dir and old is not self:
            old._count(-1)
            self._count(1)
        inode.ctime = time_ns()
        inode.changed()

    async def snapshot(self) -> list[tuple[int, int, bytes]]:
        return [(inode.ino, inode.mode >> 12 & 15, name) for name, (_, inode) in self._entries.items()]

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        order = self._order
        if order is None:
            order = self._order = [(entry[0], name) for name, entry in self._entries.items()]
        first = bisect_left(order, (cursor, b""))
        result = []
        for at, name in order[first : first + count]:
            inode = self._entries[name][1]
            result.append((inode.ino, at + 1, inode.mode >> 12 & 15, name))
        return result

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return self.open_directory(path, flags)

    def open_directory(self, path: Path, flags: int, c: Any = None) -> DirectoryFile:
        return DirectoryFile(self, flags, path, c)
