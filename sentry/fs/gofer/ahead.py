"""Which files to open ahead: whoever opens a directory's files one after the other gets the next ones too.

"One after the other" is by the order of the listing (find, grep -r, tar) or by name (git add, a shell's
`*`).  The window doubles as long as that goes on, like a disk's readahead; a new directory begins with what
was right for the last one, unless most of that was for nothing.
"""

from __future__ import annotations

from sentry.abi.stat import DT_REG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gofer.messages import Listing

FIRST, MOST = 4, 48


class Ahead:
    """What a file system's readers have been seen to do."""

    __slots__ = ("_batch", "start")

    def __init__(self) -> None:
        #: How many files to open ahead at the first open of a directory.
        self.start = 0
        #: The struct vfiles that were lent last.
        self._batch: list[Any] = []

    def lent(self, batch: list[Any]) -> None:
        self._batch = batch

    def learn(self, window: int) -> None:
        """`window` files were opened ahead, and rightly so."""
        self.start = min(max(self.start, window * 2, FIRST), MOST)

    def judge(self) -> None:
        """Another directory's turn: was the last one's worth it?"""
        batch, self._batch = self._batch, []
        used = 0
        for c in batch:
            used += c.flags != 0  # an open sets some
        if 2 * used < len(batch):
            self.start //= 4


class Order:
    """A directory's files, and where its readers are."""

    __slots__ = ("_expected", "_names", "_rank", "_window")

    def __init__(self, listing: Listing) -> None:
        listed = [name for _, kind, name in listing.brief if kind == DT_REG]
        #: By listing and by name.
        self._names = (listed, sorted(listed))
        self._rank = [{name: i for i, name in enumerate(names)} for names in self._names]
        self._expected = [-1, -1]
        self._window = -1

    def after(self, name: bytes, ahead: Ahead) -> list[bytes]:
        """`name` is opened: the names to open with it, the likely ones."""
        at = [rank.get(name, -1) for rank in self._rank]
        if at[0] < 0:
            return []
        which = 0
        if self._window < 0:
            ahead.judge()
            self._window = ahead.start
        else:
            for which in (0, 1):
                if 0 <= at[which] - self._expected[which] <= self._window + 1:
                    self._window = min(max(self._window * 2, FIRST), MOST)
                    ahead.learn(self._window // 2)
                    break
            else:
                which = self._window = 0
        names = self._names[which][at[which] + 1 : at[which] + 1 + self._window]
        self._expected = [i + 1 for i in at]
        self._expected[which] += len(names)
        return names
