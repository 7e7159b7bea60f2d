"""Where things go in an address space: random bases, and the search for free address ranges.

As arch/x86/mm/mmap.c and mm/mmap.c lay it out: the stack at the top, mappings growing down from
below it, position-independent programs at two thirds, the heap behind the program.
"""

from __future__ import annotations

import os

from sentry.abi.mman import MMAP_MIN_ADDR, PAGE_MASK, PAGE_SIZE, VM_GROWSDOWN
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.mm.vma import Vma, VmaTree

#: Nothing but the stack itself comes this near to a stack (stack_guard_gap).
STACK_GUARD = 256 * PAGE_SIZE
ELF_DYN_BASE = (0x7FFF_FFFF_F000 // 3 * 2) & ~PAGE_MASK
LOW_BEGIN, LOW_END = 0x4000_0000, 0x8000_0000
_MIN_GAP, _MAX_GAP = 128 << 20, GUEST_TOP // 6 * 5
_STACK_RANDOM_PAGES = 0x3FFFFF
_MMAP_RANDOM_BITS = 28
_BRK_RANDOM = 0x0200_0000
_LEGACY_BASE = GUEST_TOP // 3 & ~PAGE_MASK


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


def guarded_start(vma: Vma) -> int:
    """Where a mapping begins for its neighbour below (vm_start_gap)."""
    return max(vma.start - STACK_GUARD, 0) if vma.flags & VM_GROWSDOWN else vma.start


def is_free(tree: VmaTree, start: int, end: int) -> bool:
    """Whether [start, end) is unmapped and no stack's guard gap."""
    vma = tree.find(start)
    return vma is None or end <= guarded_start(vma)


def search_down(tree: VmaTree, size: int, low: int, high: int) -> int | None:
    """The highest free place for `size` bytes within [low, high)."""
    vmas = tree.vmas
    i = tree.index(high - 1)
    if i < len(vmas):
        high = min(high, guarded_start(vmas[i]))
    while True:
        i -= 1
        floor = vmas[i].end if i >= 0 else 0
        if high - floor >= size:
            addr = high - size
            return addr if addr >= low else None
        if i < 0 or floor <= low:
            return None
        high = min(high, guarded_start(vmas[i]))


def search_up(tree: VmaTree, size: int, low: int, high: int) -> int | None:
    """The lowest free place for `size` bytes within [low, high)."""
    vmas = tree.vmas
    i = tree.index(low)
    while low + size <= high:
        if i == len(vmas) or low + size <= guarded_start(vmas[i]):
            return low
        low = max(low, vmas[i].end)
        i += 1
    return None


def find_free(tree: VmaTree, size: int, mmap_base: int, top: int) -> int | None:
    """A place for a mapping without a wish: below mmap_base, or else anywhere (arch_get_unmapped_area)."""
    addr = search_down(tree, size, MMAP_MIN_ADDR, mmap_base)
    return addr if addr is not None else search_up(tree, size, _LEGACY_BASE, top)
