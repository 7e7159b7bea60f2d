"""A program's vectors as what a socket takes bytes from, or gives bytes to."""

from __future__ import annotations

from sentry.net.socket import Sink, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task


class _Cursor:
    """Where in a list of (address, size) one is."""

    __slots__ = ("_done", "_index", "_vectors")

    def __init__(self, vectors: list[tuple[int, int]]) -> None:
        self._vectors = vectors
        self._index = self._done = 0

    def pieces(self, size: int) -> list[tuple[int, int]]:
        """The next `size` bytes as (address, size)."""
        index, done = self._index, self._done
        pieces = []
        while size:
            addr, length = self._vectors[index]
            piece = min(length - done, size)
            pieces.append((addr + done, piece))
            size -= piece
            done += piece
            if done == length:
                index, done = index + 1, 0
        return pieces

    def move(self, size: int) -> None:
        """They are done."""
        while size and size >= self._vectors[self._index][1] - self._done:
            size -= self._vectors[self._index][1] - self._done
            self._index, self._done = self._index + 1, 0
        self._done += size


class GuestSource(Source):
    __slots__ = ("_cursor", "_task")

    def __init__(self, task: Task, vectors: list[tuple[int, int]]) -> None:
        super().__init__(sum([size for _, size in vectors]))
        self._task = task
        self._cursor = _Cursor(vectors)

    def skip(self, size: int) -> None:
        self._cursor.move(size)
        self.left -= size

    def take(self, size: int) -> bytes:
        pieces = self._cursor.pieces(size)
        read = self._task.mm.read
        data = read(*pieces[0]) if len(pieces) == 1 else b"".join([read(*piece) for piece in pieces])
        self.skip(size)
        return data


class GuestSink(Sink):
    __slots__ = ("_cursor", "_task")

    def __init__(self, task: Task, vectors: list[tuple[int, int]]) -> None:
        super().__init__(sum([size for _, size in vectors]))
        self._task = task
        self._cursor = _Cursor(vectors)

    def put(self, data: bytes) -> None:
        size = len(data)
        done = 0
        for addr, piece in self._cursor.pieces(size):
            self._task.mm.write(addr, data[done : done + piece] if piece < size else data)
            done += piece
        self._cursor.move(size)
        self.left -= size
