"""What to ask for ahead: whoever opens a directory's files one after the other gets the next ones, too, and
whoever lists its directories one after the other gets the next ones' listings.

"One after the other" is by the order of the listing (find, grep -r, tar) or by name (git add, a shell's
`*`).  The window doubles as long as that goes on, like a disk's readahead; a new directory begins with what
was right for the last one, unless most of that was for nothing.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gofer.messages import Listing

FIRST, MOST = 4, 48
#: In directories of so few files, who has opened two will open them all (the files of a locale).
FEW = 16
#: How deep trees are whose directories are listed before their neighbours are.
DEPTH = 8
#: How many may be left out by who still goes by the order.
MAY_SKIP = 2
#: Listings that came ahead and were not used yet, the names in them, and the descriptors that came along.
MAX_FORESEEN, MAX_FORESEEN_NAMES, MAX_FORESEEN_FILES = 512, 8192, 256


class Ahead:
    """What a file system's readers have been seen to do."""

    __slots__ = ("_batches", "_patience", "start")

    def __init__(self, patience: int = 0) -> None:
        """`patience`: how many directories' turns it may take until something is used."""
        #: How many to ask for ahead at the first use of a directory.
        self.start = 0
        self._patience = patience
        #: What came ahead and was not judged yet, the oldest first: lent.Batches, or Foreseens.
        self._batches: list[list[Any]] = []

    def came(self, batch: list[Any]) -> None:
        self._batches.append(batch)

    def more(self, item: Any) -> None:
        """`item` came with the last batch."""
        self._batches[-1:] = [[*batch, item] for batch in self._batches[-1:] or [[]]]

    def learn(self, window: int) -> None:
        """`window` were asked for ahead, and rightly so."""
        self.start = min(max(self.start, window * 2, FIRST), MOST)

    def judge(self) -> None:
        """Another directory's turn: was what came for the last ones worth it?"""
        while len(self._batches) > self._patience:
            used = count = 0
            for item in self._batches.pop(0):
                mine, of = item.tally()
                used += mine
                count += of
            if 2 * used < count:
                self.start //= 4


class Order:
    """A directory's entries of one type (DT_…), and where its readers are."""

    __slots__ = ("_expected", "_names", "_rank", "_uses", "_which", "_window")

    def __init__(self, listing: Listing, kind: int) -> None:
        listed = [name for _, other, name in listing.brief if other == kind]
        #: By listing and by name.
        self._names = (listed, sorted(listed))
        self._rank = [{name: i for i, name in enumerate(names)} for names in self._names]
        self._expected = [-1, -1]
        self._which = self._uses = 0
        self._window = -1

    def came(self, count: int, ahead: Ahead) -> None:
        """The first `count` came along with the listing."""
        ahead.judge()
        self._window = count
        self._expected = [count, count]

    def after(self, name: bytes, ahead: Ahead) -> list[bytes]:
        """`name` is used: the likely next ones, to be asked for with it."""
        at = [rank.get(name, -1) for rank in self._rank]
        if at[0] < 0:
            return []
        self._uses += 1
        which = self._which
        if self._window < 0:
            ahead.judge()
            self._window = ahead.start
        else:
            for which in (self._which, 1 - self._which):
                if 0 <= at[which] - self._expected[which] <= MAY_SKIP:
                    self._window = min(max(self._window * 2, FIRST), MOST)
                    ahead.learn(self._window // 2)
                    break
            else:
                which = self._window = 0
        self._which = which
        names = self._names[which][at[which] + 1 : at[which] + 1 + self._window]
        self._expected = [i + 1 for i in at]
        self._expected[which] += len(names)
        if self._uses > 1 and len(self._names[0]) <= FEW:
            names = [other for other in self._names[which] if other != name]
        return names


class Foreseen:
    """A directory's listing that came before anybody asked, and descriptors of its first files."""

    __slots__ = ("at", "files", "listing", "told", "used")

    def __init__(self, listing: Listing, at: Sequence[int], files: Sequence[int]) -> None:
        self.listing = listing
        #: Offsets of entries in listing.data, and the descriptor of each (negative: none); closed with this.
        self.at = at
        self.files = files
        self.used = False
        #: The struct listing of the engine that says the same, None: there is none.
        self.told: Any = None

    def tally(self) -> tuple[int, int]:
        return int(self.used or bool(self.told is not None and self.told.used)), 1

    def __del__(self) -> None:
        for fd in self.files:
            if fd >= 0:
                os.close(fd)


class Foresight:
    """Listings that came ahead, by the directory's number."""

    __slots__ = ("_files", "_names", "_seen")

    def __init__(self) -> None:
        self._seen: dict[int, Foreseen] = {}
        self._files = self._names = 0

    def __contains__(self, ino: int) -> bool:
        return ino in self._seen

    def add(self, ino: int, foreseen: Foreseen) -> None:
        self.take(ino)
        self._seen[ino] = foreseen
        self._files += len(foreseen.files)
        self._names += len(foreseen.listing.brief)
        while (
            len(self._seen) > MAX_FORESEEN
            or self._files > MAX_FORESEEN_FILES
            or self._names > MAX_FORESEEN_NAMES
        ):
            self.take(next(iter(self._seen)))

    def files_of(self, ino: int) -> Sequence[int]:
        """The descriptors that came along with the directory `ino`, which are the caller's from now on."""
        foreseen = self._seen.get(ino)
        if foreseen is None:
            return ()
        files, foreseen.files = foreseen.files, ()
        self._files -= len(files)
        return files

    def take(self, ino: int) -> Foreseen | None:
        foreseen = self._seen.pop(ino, None)
        if foreseen is not None:
            self._files -= len(foreseen.files)
            self._names -= len(foreseen.listing.brief)
        return foreseen
