"""Generated files that may be long: made piece by piece, as Linux's seq_file does it.

A read makes as much as is little work, and goes on where the last one ended; what a file keeps meanwhile is
the rest of one piece.  So nobody waits for all of it, and it lies in no memory.  Reading at any other offset
goes through all that stands before, piece by piece.
"""

from __future__ import annotations

from sentry.fs.proc.base import O_NONCREATION, GeneratedFile, GeneratedInode, keep
from sentry.kernel.wait import yield_now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.fs.dentry import Path
    from sentry.fs.file import File
    from sentry.kernel.credentials import Credentials


class SequenceInode(GeneratedInode):
    """Like any that is generated, but for what its `make` is."""

    __slots__ = ()

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return SequenceFile(self, flags & O_NONCREATION, path)


class SequenceFile(GeneratedFile):
    """`make` gives, for a cursor (0 at first), the text from there on and the cursor behind it: the same
    cursor at the end, another one where there was much to skip.  `_data` begins at `_offset`; what follows it
    is at `_cursor`."""

    __slots__ = ("_cursor", "_offset")

    def __init__(self, inode: GeneratedInode, flags: int, path: Path | None) -> None:
        super().__init__(inode, flags, path)
        self._offset = self._cursor = 0

    async def pread(self, size: int, offset: int) -> bytes:
        data, at, cursor = self._data, self._offset, self._cursor
        if data is None or offset != at or offset == 0:
            data, at, cursor = b"", 0, 0
        if not data:
            data, cursor = await self._advance(cursor)
        while data and offset >= at + len(data):
            await yield_now()
            at += len(data)
            data, cursor = await self._advance(cursor)
        piece = data[offset - at : offset - at + size] if data else b""
        self._offset, self._cursor = offset + len(piece), cursor
        keep(self, data[self._offset - at :])
        return piece

    async def _advance(self, cursor: int) -> tuple[bytes, int]:
        make: Callable[[int], tuple[bytes, int]] = self.make
        data, after = make(cursor)
        while not data and after != cursor:
            await yield_now()
            cursor = after
            data, after = make(cursor)
        return data, after

    async def read(self, size: int) -> bytes:
        piece = await self.pread(size, self.pos)
        self.pos += len(piece)
        return piece
