"""Where things go in an address space: random bases (the search for free ranges is in csrc/engine/mm.c).

As arch/x86/mm/mmap.c and mm/mmap.c lay it out: the stack at the top, mappings growing down from
below it, position-independent programs at two thirds, the heap behind the program.
"""

from __future__ import annotations

import os

from sentry.abi.mman import PAGE_MASK, PAGE_SIZE
from sentry.platform.base import GUEST_TOP

#: Nothing but the stack itself comes this near to a stack (stack_guard_gap).
STACK_GUARD = 256 * PAGE_SIZE
ELF_DYN_BASE = (0x7FFF_FFFF_F000 // 3 * 2) & ~PAGE_MASK
LOW_BEGIN, LOW_END = 0x4000_0000, 0x8000_0000
_MIN_GAP, _MAX_GAP = 128 << 20, GUEST_TOP // 6 * 5
_STACK_RANDOM_PAGES = 0x3FFFFF
_MMAP_RANDOM_BITS = 28
_BRK_RANDOM = 0x0200_0000


def random_below(limit: int) -> int:
    """A random number in [0, limit)."""
    return int.from_bytes(os.urandom(8), "little") % limit


def random_pages(limit: int) -> int:
    """A random page-aligned number of bytes below `limit` pages."""
    return random_below(limit) * PAGE_SIZE


class Layout:
    """The bases of one program.  `randomize` False gives the same ones each time (personality(2))."""

    __slots__ = ("brk_random", "mmap_base", "pie_base", "stack_top")

    def __init__(self, top: int, stack_limit: int, randomize: bool) -> None:
        """`top`: the first address above what may be used (the vDSO's beginning, or GUEST_TOP)."""
        stack_random = random_pages(_STACK_RANDOM_PAGES) if randomize else 0
        self.stack_top = (top - stack_random) & ~PAGE_MASK
        gap = stack_limit + STACK_GUARD + (_STACK_RANDOM_PAGES + 1) * PAGE_SIZE
        gap = min(max(gap, _MIN_GAP), _MAX_GAP)
        mmap_random = random_pages(1 << _MMAP_RANDOM_BITS) if randomize else 0
        self.mmap_base = (top - gap - mmap_random) & ~PAGE_MASK
        self.pie_base = ELF_DYN_BASE + (random_pages(1 << _MMAP_RANDOM_BITS) if randomize else 0)
        self.brk_random = random_pages(_BRK_RANDOM // PAGE_SIZE) if randomize else 0
