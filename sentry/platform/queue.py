"""Wait queues that the engine's fast paths know too (csrc/abi/queue.h).

C's waiters (parked system calls, epoll registrations) stand in the C queue, Python's entries in this
object; a wake-up from either side reaches both.  What C has woken is written down there until
`drain`, which the platform calls whenever the engine says so, and which runs after every wake-up by
Python, since that may have reached an epoll set in C whose own sleepers are Python's.

`hold_until_free` is the other half of a file's life: a parked call holds its file, and a file that is closed
meanwhile ends when the call does.
"""

from __future__ import annotations

from sentry._engine import ffi, lib
from sentry.kernel.wait import ALL_EVENTS, Entry, WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: The queues that have entries of Python's.
_waiting: dict[Any, SharedQueue] = {}
#: What to do when the last parked call lets go of a file.
_held: dict[Any, Callable[[], None]] = {}
_mask = ffi.new("uint32_t *")
#: What else is to be done before Python sees the next trap, whenever C has something to tell.
and_then: list[Callable[[], None]] = []


class SharedQueue(WaitQueue):
    """`c` is a struct queue, part of `owner` (which is kept alive); without them it is a queue of its own."""

    __slots__ = ("_c", "_owner")

    def __init__(self, c: Any = None, owner: object = None) -> None:
        super().__init__()
        if c is None:
            c = owner = ffi.gc(lib.queue_new(), lib.queue_free)
        self._c = c
        self._owner = owner

    def add(self, entry: Entry) -> None:
        if not self._entries:
            _waiting[self._c] = self
        super().add(entry)
        self._c.python_mask |= entry.mask & ALL_EVENTS

    def remove(self, entry: Entry) -> None:
        super().remove(entry)
        if not self._entries:
            self._c.python_mask = 0
            _waiting.pop(self._c, None)

    def wake(self, mask: int = ALL_EVENTS, count: int = -1) -> int:
        """As for any queue; C's waiters are not counted and not limited by `count`."""
        told = super().wake(mask, count) if self._entries else 0
        if lib.queue_wake(self._c, mask):
            drain()
        return told

    def tell(self, mask: int) -> None:
        """C woke the queue, and has told its own waiters."""
        super().wake(mask)

    def __bool__(self) -> bool:
        return bool(self._entries) or bool(self._c.first)


def drain() -> None:
    """Tell Python's entries what C has woken since the last time."""
    while c := lib.queue_take(_mask):
        queue = _waiting.get(c)
        if queue is not None:
            queue.tell(_mask[0])
    while file := lib.vfile_take():
        _held.pop(file)()


def hold_until_free(vfile: Any, release: Callable[[], None]) -> bool:
    """Whether a parked call holds `vfile`; if so `release` is called when it no longer does."""
    if not vfile.holds:
        return False
    vfile.closed = 1
    _held[vfile] = release
    return True
