"""Open directories: positions, "." and "..", and the two ways to list (getdents(2), seekdir(3)).

Position 0 is before ".", 1 before "..", and from 2 on it is a cursor of the directory's own choice
that only grows.  A directory in memory gives entries by cursor (`DirectoryFile` over
`Inode.entries`), so that a listing goes on rightly while names come and go.  Others are listed as
a whole when first read or rewound (`SnapshotDirectory`).

The engine opens directories, too (csrc/engine/fast_dir.c).  Those have no File: one that is closed before
anybody asks never gets one.  `meet` makes it when Python sees the descriptor, and when the name or the mount
goes by which a File finds its place.  What hangs at a dentry so keeps it in the cache (dcache.py).
"""

from __future__ import annotations

import errno

from gofer.messages import Listing
from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import SEEK_CUR, SEEK_SET
from sentry.abi.stat import DT_DIR
from sentry.fs import lent, spare
from sentry.fs.dentry import Dentry, Mount, Path
from sentry.fs.file import CLOSE_LATER, File, installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: How many entries one readdir returns at most.
BATCH = 512


def parent_ino(path: Path | None) -> int:
    """The inode number of `..` as seen at `path`, 0 where nothing is known."""
    if path is None:
        return 0
    mount = path.mount
    dentry = path.dentry
    while dentry is mount.root and mount.parent is not None and mount.mountpoint is not None:
        dentry, mount = mount.mountpoint, mount.parent
    above = dentry.parent or dentry
    return above.inode.ino if above.inode is not None else 0


class DirectoryFile(File):
    """An open directory whose inode has `entries(cursor, count)`."""

    __slots__ = ()

    fast_start = True
    fast_closing = CLOSE_LATER
    pollable = False
    seekable = True

    async def read(self, size: int) -> bytes:
        raise SysError(errno.EISDIR)

    async def pread(self, size: int, offset: int) -> bytes:
        raise SysError(errno.EISDIR)

    async def lseek(self, offset: int, whence: int) -> int:
        if whence == SEEK_CUR:
            offset += self.pos
        elif whence != SEEK_SET:
            raise SysError(errno.EINVAL)
        if offset < 0:
            raise SysError(errno.EINVAL)
        self.pos = offset
        return offset

    async def fsync(self) -> None:
        return

    async def readdir(self) -> list[tuple[int, int, int, bytes]]:
        entries: list[tuple[int, int, int, bytes]] = []
        pos = self.pos
        if pos == 0:
            entries.append((self.inode.ino, 1, DT_DIR, b"."))
        if pos <= 1:
            entries.append((parent_ino(self.path), 2, DT_DIR, b".."))
        entries += await self.entries(max(pos, 2), BATCH)
        return entries

    def go_on(self, listing: list[tuple[int, int, bytes]]) -> None:
        """The engine has begun to list it; `listing`: as `snapshot` gives it."""

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        """(ino, next cursor, DT_ type, name) of at most `count` entries from `cursor` on."""
        inode = self.inode
        if inode.nlink == 0:
            return []
        inode.touch_atime(self.flags)
        return await inode.entries(cursor, count)


class SnapshotDirectory(DirectoryFile):
    """An open directory that is listed as a whole: its inode has `snapshot()`."""

    __slots__ = ("_listing",)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._listing: list[tuple[int, int, bytes]] | None = None

    def go_on(self, listing: list[tuple[int, int, bytes]]) -> None:
        self._listing = listing
        self.c.dir_end = len(listing) + 2

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        listing = self._listing
        if listing is None or self.pos == 0:
            # (ino, DT_ type, name) without "." and "..".
            listing = self._listing = await self.inode.snapshot()
            if self.path is not None and not self.path.dentry.deleted:
                self.inode.learn(self.path)
            self.c.dir_end = len(listing) + 2
        first = cursor - 2
        return [
            (ino, first + index + 3, kind, name)
            for index, (ino, kind, name) in enumerate(listing[first : first + count])
        ]


def meet(c: Any, dentry: Dentry | None = None) -> File:
    """The File of the directory `c`, which is open at `dentry`."""
    mount = Mount.of(c.mount.id)
    if dentry is None:
        dentry = lent.Hooks.dentry_of(c.dnode, mount.root)
        if c in installed:
            return installed[c]  # its dentry has just been made
    listing = ffi.cast("struct listing *", c.object)
    data = ffi.buffer(listing.data, listing.size)[:] if listing else None
    lib.directory_met(c)
    assert dentry.inode is not None
    file = dentry.inode.open_directory(Path(mount, dentry), c.flags, ffi.gc(c, lib.vfile_free))
    if data is not None:
        file.go_on(Listing(data).brief)
    installed[file.c] = file
    return file


def forget_mount(mount: Mount) -> None:
    """`mount` goes: what is open there needs its Files."""
    found = []
    c = lib.directory_next(ffi.NULL)
    while c:
        if c.mount == mount.c:
            found.append(c)
        c = lib.directory_next(c)
    for c in found:
        if c not in installed:
            meet(c)


lent.Hooks.meet_directory = meet
spare.Directories.meet, spare.Directories.forget_mount = meet, forget_mount
