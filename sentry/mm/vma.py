"""Mappings of an address space: Vma (struct vm_area_struct) and VmaTree, the ordered set of them.

Invariants of the tree: mappings are page aligned, not empty, do not overlap, and stand in order of
address; neighbours that could be one mapping are one (unless a mapping must keep its identity,
VM_DONTEXPAND).  Every Vma in a tree holds one reference to its file.

The tree is two parallel lists and bisect: address spaces have tens of mappings, seldom thousands,
and moving list elements is a memmove.
"""

from __future__ import annotations

from _bisect import bisect_right

from sentry.abi.mman import VM_DONTEXPAND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Vma:
    """[start, end) with one protection and one origin.  Changed only through its tree."""

    __slots__ = ("end", "file", "flags", "name", "offset", "start")

    def __init__(
        self, start: int, end: int, flags: int, file: Any = None, offset: int = 0, name: bytes = b""
    ) -> None:
        self.start = start
        self.end = end
        #: VM_* bits.
        self.flags = flags
        #: A File or SharedAnonymous, None for private anonymous memory.
        self.file = file
        #: Bytes into `file` at `start`; meaningless without one.
        self.offset = offset
        #: As /proc/PID/maps shows it, where that doesn't follow from file or place: [vdso], [anon:…].
        self.name = name

    @property
    def prot(self) -> int:
        """PROT_* as they are now."""
        return self.flags & 7

    @property
    def max_prot(self) -> int:
        """PROT_* that mprotect(2) may give."""
        return self.flags >> 4 & 7

    @property
    def size(self) -> int:
        return self.end - self.start

    def offset_of(self, addr: int) -> int:
        """Offset into the file at `addr` (0 for anonymous memory)."""
        return self.offset + addr - self.start if self.file is not None else 0

    def __repr__(self) -> str:
        origin = f"{self.file!r}, {self.offset:#x}, {self.name!r}"
        return f"Vma({self.start:#x}, {self.end:#x}, {self.flags:#x}, {origin})"


def joins(left: Vma, right: Vma) -> bool:
    """Whether `right` continues `left`, so that one mapping could describe both."""
    return (
        left.end == right.start
        and left.flags == right.flags
        and left.file is right.file
        and left.name == right.name
        and not left.flags & VM_DONTEXPAND
        and (left.file is None or left.offset + left.end - left.start == right.offset)
    )


class VmaTree:
    """The mappings of one address space in order of address."""

    __slots__ = ("_starts", "vmas")

    def __init__(self) -> None:
        self.vmas: list[Vma] = []
        self._starts: list[int] = []

    def fill(self, vmas: list[Vma]) -> None:
        """Take over the mappings of another tree, in order, with a reference to each file (fork)."""
        self.vmas = vmas
        self._starts = [vma.start for vma in vmas]
        self.join(0, vmas[-1].end if vmas else 0)

    def __len__(self) -> int:
        return len(self.vmas)

    def __iter__(self) -> Iterator[Vma]:
        return iter(self.vmas)

    def index(self, addr: int) -> int:
        """Position of the first mapping that ends above `addr`; len(self) if none does."""
        i = bisect_right(self._starts, addr)
        if i and self.vmas[i - 1].end > addr:
            return i - 1
        return i

    def find(self, addr: int) -> Vma | None:
        """The first mapping that ends above `addr` (find_vma): it may begin above it, too."""
        i = self.index(addr)
        return self.vmas[i] if i < len(self.vmas) else None

    def at(self, addr: int) -> Vma | None:
        """The mapping that contains `addr` (vma_lookup)."""
        i = bisect_right(self._starts, addr) - 1
        if i >= 0 and self.vmas[i].end > addr:
            return self.vmas[i]
        return None

    def before(self, addr: int) -> Vma | None:
        """The last mapping that begins below `addr`."""
        i = bisect_right(self._starts, addr - 1) - 1
        return self.vmas[i] if i >= 0 else None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """Mappings that share a byte with [start, end), in order."""
        i = self.index(start)
        j = bisect_right(self._starts, end - 1, i)
        return self.vmas[i:j]

    def covers(self, start: int, end: int) -> bool:
        """Whether every page of [start, end) is mapped."""
        for vma in self.overlapping(start, end):
            if vma.start > start:
                return False
            start = vma.end
        return start >= end

    def insert(self, vma: Vma) -> Vma:
        """Add a mapping (its reference to the file passes to the tree) where nothing is; the mapping
        it has become part of."""
        i = bisect_right(self._starts, vma.start)
        vmas = self.vmas
        assert vma.start < vma.end
        assert i == 0 or vmas[i - 1].end <= vma.start
        assert i == len(vmas) or vma.end <= vmas[i].start
        vmas.insert(i, vma)
        self._starts.insert(i, vma.start)
        self._join(i)
        return vmas[i - 1] if self._join(i - 1) else vmas[i]

    def _join(self, i: int) -> bool:
        """Make mappings i and i+1 one if they can be."""
        vmas = self.vmas
        if i < 0 or i + 1 >= len(vmas) or not joins(vmas[i], vmas[i + 1]):
            return False
        vmas[i].end = vmas[i + 1].end
        if vmas[i + 1].file is not None:
            vmas[i + 1].file.put()
        del vmas[i + 1]
        del self._starts[i + 1]
        return True

    def split(self, addr: int) -> None:
        """Make `addr` a border if it lies inside a mapping."""
        i = bisect_right(self._starts, addr) - 1
        if i < 0:
            return
        vma = self.vmas[i]
        if vma.start == addr or vma.end <= addr:
            return
        right = Vma(addr, vma.end, vma.flags, vma.file, vma.offset_of(addr), vma.name)
        if vma.file is not None:
            vma.file.get()
        vma.end = addr
        self.vmas.insert(i + 1, right)
        self._starts.insert(i + 1, addr)

    def splits(self, start: int, end: int) -> int:
        """By how many mappings cutting out [start, end) would raise the number of mappings, at most."""
        vma = self.at(start)
        if vma is not None and vma.start < start and vma.end > end:
            return 1
        return 0

    def remove(self, start: int, end: int) -> list[Vma]:
        """Take [start, end) out; what was there, cut to size.  File references pass to the caller."""
        if not self.overlapping(start, end):
            return []
        self.split(start)
        self.split(end)
        i = self.index(start)
        j = bisect_right(self._starts, end - 1, i)
        removed = self.vmas[i:j]
        del self.vmas[i:j]
        del self._starts[i:j]
        return removed

    def isolate(self, start: int, end: int) -> list[Vma]:
        """The mappings that make up what is mapped of [start, end), split so that none reaches beyond.
        After changing them call `join`."""
        self.split(start)
        self.split(end)
        return self.overlapping(start, end)

    def join(self, start: int, end: int) -> None:
        """Merge neighbours at and between the borders `start` and `end`."""
        i = max(self.index(start) - 1, 0)
        while i + 1 < len(self.vmas) and self.vmas[i].end <= end:
            if not self._join(i):
                i += 1

    def extend_down(self, vma: Vma, start: int) -> None:
        """Let `vma` begin at `start`, below its present beginning, where nothing is (stack growth)."""
        i = bisect_right(self._starts, vma.start) - 1
        assert self.vmas[i] is vma and (i == 0 or self.vmas[i - 1].end <= start)
        if vma.file is not None:
            vma.offset -= vma.start - start
        vma.start = self._starts[i] = start

    def clear(self) -> list[Vma]:
        """Empty the tree; what was in it, file references and all."""
        removed, self.vmas, self._starts = self.vmas, [], []
        return removed
