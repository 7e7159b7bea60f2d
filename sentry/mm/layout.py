"""Where things go in an address space: random bases (the search for free ranges is in csrc/engine/mm.c).

As arch/x86/mm/mmap.c and mm/mmap.c lay it out: the stack at the top, mappings growing down from
below it, position-independent programs at two thirds, the heap behind the program.
"""

from __future__ import annotations

import os
from _struct import Struct

from sentry.abi.mman import PAGE_MASK, PAGE_SIZE
from sentry.platform.base import GUEST_TOP

#: Nothing but the stack itself comes this near to a stack (stack_guard_gap).
STACK_GUARD = 256 * PAGE_SIZE
ELF_DYN_BASE = (0x7FFF_FFFF_F000 // 3 * 2) & ~PAGE_MASK
LOW_BEGIN, LOW_END = 0x4000_0000, 0x8000_0000
_MIN_GAP, _MAX_GAP = 128 << 20, GUEST_TOP // 6 * 5
_STACK_RANDOM_PAGES = 0x3FFFFF
_WORDS = Struct("<4Q")
_MMAP_RANDOM_BITS = 28
_BRK_RANDOM = 0x0200_0000


def random_below(limit: int) -> int:
    """A random number in [0, limit)."""
    return int.from_bytes(os.urandom(8), "little") % limit


def _draw(randomize: bool) -> tuple[int, ...]:
    return _WORDS.unpack(os.urandom(_WORDS.size)) if randomize else (0, 0, 0, 0)


class Layout:
    """The bases of one program.  `randomize` False gives the same ones each time (personality(2))."""

    __slots__ = ("_gap", "brk_random", "mmap_base", "pie_base", "stack_top")

    def __init__(self, top: int, stack_limit: int, randomize: bool) -> None:
        """`top`: the first address above what may be used (the vDSO's beginning, or GUEST_TOP)."""
        draws = _draw(randomize)
        self._place_own(top, draws)
        gap = stack_limit + STACK_GUARD + (_STACK_RANDOM_PAGES + 1) * PAGE_SIZE
        self._gap = min(max(gap, _MIN_GAP), _MAX_GAP)
        self._place_mappings(top, draws)
        self.pie_base = ELF_DYN_BASE + draws[2] % (1 << _MMAP_RANDOM_BITS) * PAGE_SIZE

    def _place_mappings(self, top: int, draws: tuple[int, ...]) -> None:
        mmap_random = draws[1] % (1 << _MMAP_RANDOM_BITS) * PAGE_SIZE
        self.mmap_base = (top - self._gap - mmap_random) & ~PAGE_MASK

    def _place_own(self, top: int, draws: tuple[int, ...]) -> None:
        self.stack_top = (top - draws[0] % _STACK_RANDOM_PAGES * PAGE_SIZE) & ~PAGE_MASK
        self.brk_random = draws[3] % (_BRK_RANDOM // PAGE_SIZE) * PAGE_SIZE

    def again(self, top: int, randomize: bool, mapped: bool = True) -> Layout:
        """For another run: the same bases for mappings (where some have been `mapped` from there), others for
        stack and heap."""
        layout = Layout.__new__(Layout)
        layout._gap, layout.mmap_base, layout.pie_base = self._gap, self.mmap_base, self.pie_base
        draws = _draw(randomize)
        if not mapped:
            layout._place_mappings(top, draws)
        layout._place_own(top, draws)
        return layout
