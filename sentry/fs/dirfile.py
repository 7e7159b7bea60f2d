"""Open directories: positions, "." and "..", and the two ways to list (getdents(2), seekdir(3)).

Position 0 is before ".", 1 before "..", and from 2 on it is a cursor of the directory's own choice
that only grows.  A directory in memory gives entries by cursor (`DirectoryFile` over
`Inode.entries`), so that a listing goes on rightly while names come and go.  Others are listed as
a whole when first read or rewound (`SnapshotDirectory`).
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import SEEK_CUR, SEEK_SET
from sentry.abi.stat import DT_DIR
from sentry.fs.file import CLOSE_LATER, File

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.dentry import Path

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
