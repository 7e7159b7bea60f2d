"""What of an address space is in memory, as the host's page tables have it (AddressSpace.resident).

The question costs some 60 ns a page, and some microseconds a mapping.  So of an address space of more than
BUDGET pages only every n-th is looked at, and of more than MOST small mappings only some; and a large mapping
without any access, which hardly ever holds anything, not at all.  Where the
host tells nothing (move_pages(2) may be missing or forbidden) there is a guess: programs touch most of small
mappings and little of great ones.
"""

from __future__ import annotations

from time import monotonic_ns

from sentry.abi.errors import SysError
from sentry.abi.fcntl import SEEK_DATA, SEEK_HOLE
from sentry.abi.mman import PAGE_SIZE, VM_DONTEXPAND, VM_PFNMAP, VM_PRISTINE, VM_SHARED
from sentry.mm.shared import SharedAnonymous

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.mm.manager import MemoryManager
    from sentry.mm.vma import Vma

#: Pages that one measurement looks at, and mappings: the large ones, and about as many of the others.
BUDGET = 1 << 16
MOST = 1024
_SMALL = 2 << 20
_GUESS = 256 * 1024
#: How old a measurement may be for `peak`.
_FRESH_NS = 100_000_000
ANON, FILE, SHMEM = 0, 1, 2


def kind_of(vma: Vma) -> int:
    """What the pages of a mapping count as (RssAnon, RssFile, RssShmem).

    A page of a private file mapping that was written to is the program's own; which ones were can't be seen,
    so all of a mapping count as that as soon as it could be written to.
    """
    if vma.file is None:
        return ANON
    if not vma.flags & VM_SHARED:
        return FILE if vma.flags & VM_PRISTINE else ANON
    return SHMEM if vma.file.in_memory else FILE


def of_vma(mm: MemoryManager, vma: Vma, step: int = 1) -> int:
    """Bytes of a mapping that are in memory; only every `step`-th page is looked at, and at most BUDGET."""
    ours = vma.flags & VM_DONTEXPAND and vma.file is None
    if ours or vma.flags & VM_PFNMAP or (not vma.prot and vma.size > _SMALL):
        return 0
    step = max(step, _step(vma.size // PAGE_SIZE, BUDGET))
    count = -(-vma.size // (PAGE_SIZE * step))
    found = mm.space.resident(vma.start, count, PAGE_SIZE * step)
    if found < 0:
        return min(vma.size, _GUESS) if vma.prot else 0
    return min(vma.size, found * step * PAGE_SIZE)


def _step(count: int, most: int) -> int:
    """Which of `count` things to look at, if no more than `most`: every n-th.  It is odd, so that it doesn't
    meet the same place of each huge page."""
    return 1 if count <= most else count // most + 1 | 1


def _some(mm: MemoryManager) -> list[tuple[Vma, int]]:
    """Mappings, and for how many each of them stands."""
    tree = mm.tree
    if len(tree) <= MOST:
        return [(vma, 1) for vma in tree.vmas]
    large = tree.large(_SMALL, MOST)
    stride = _step(len(tree), MOST)
    chosen = set(large)
    others = [i for i in range(0, len(tree), stride) if i not in chosen]
    return [(tree.nth(i), 1) for i in large] + [(tree.nth(i), stride) for i in others]


def sample(mm: MemoryManager, budget: int = BUDGET) -> list[tuple[Vma, int, int]]:
    """What to look at: mappings, every how manieth page of each, and for how many such ones it stands."""
    some = _some(mm)
    small = sum([vma.size for vma, _ in some if vma.size <= _SMALL]) // PAGE_SIZE
    large = sum([vma.size for vma, _ in some if vma.prot and vma.size > _SMALL]) // PAGE_SIZE
    steps = _step(small, budget), _step(small + large, budget)
    return [(vma, steps[vma.size > _SMALL], times) for vma, times in some]


def measure(mm: MemoryManager, budget: int = BUDGET) -> tuple[int, int, int]:
    """Bytes in memory by kind: (anonymous, of files, of shared memory)."""
    sums = [0, 0, 0]
    for vma, step, times in sample(mm, budget):
        sums[kind_of(vma)] += of_vma(mm, vma, step) * times
    mm.measured_ns = monotonic_ns()
    mm.peak_rss = max(mm.peak_rss, sum(sums))
    return sums[0], sums[1], sums[2]


def resident(mm: MemoryManager) -> int:
    """Bytes in memory (VmRSS)."""
    return sum(measure(mm)) if mm.users else 0


def peak(mm: MemoryManager) -> int:
    """The most that was in memory whenever somebody asked (VmHWM); a measurement of a moment ago will do."""
    if mm.users and monotonic_ns() - mm.measured_ns > _FRESH_NS:
        measure(mm)
    return mm.peak_rss


def in_core(mm: MemoryManager, vma: Vma, start: int, count: int) -> bytes:
    """mincore(2) for `count` pages of one mapping: a byte each, 1 for a page that can be had without waiting.

    Of a file that is the host's, the answer is Linux's own to those who may not write to it: yes.
    """
    file = vma.file
    if file is not None and not file.in_memory:
        return b"\1" * count
    mapped = mm.space.page_states(start, count)
    if mapped is None:
        return b"\1" * count
    result = mapped.replace(b"\2", b"\1")
    if file is None:
        return result
    cached = bytearray(result)
    seek = file.seek_data if isinstance(file, SharedAnonymous) else file.node.seek_data
    _mark_data(cached, vma.offset_of(start), seek)
    return bytes(cached)


def _mark_data(cached: bytearray, offset: int, seek: Callable[[int, int], int]) -> None:
    """Set a byte of `cached` for each page from `offset` on that is no hole."""
    position, end = offset, offset + len(cached) * PAGE_SIZE
    try:
        while position < end:
            data = seek(position, SEEK_DATA)
            position = seek(data, SEEK_HOLE)
            first = max(0, (data - offset) // PAGE_SIZE)
            last = min(len(cached), -(-(position - offset) // PAGE_SIZE))
            if first < last:
                cached[first:last] = b"\1" * (last - first)
    except (OSError, SysError):
        pass  # ENXIO: there is nothing behind
