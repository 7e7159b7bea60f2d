"""madvise(2), msync(2), mincore(2), mlock(2) and relatives: calls over ranges that change no map."""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi import mman
from sentry.abi.errors import SysError
from sentry.abi.mman import (
    PAGE_MASK,
    PAGE_SIZE,
    VM_DONTEXPAND,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_PRISTINE,
    VM_SEALED,
    VM_SHARED,
    VM_WRITE,
)
from sentry.abi.resource import RLIMIT_MEMLOCK
from sentry.kernel.wait import yield_now
from sentry.mm.residence import in_core
from sentry.mm.state import page_up
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.mm.manager import MemoryManager
    from sentry.mm.vma import Vma

_U64 = 1 << 64
#: Pages that mincore(2) looks at before others may run on.
RESIDENT_STEP = 1 << 16
#: Mappings that msync(2) looks at before others may run on.
SYNC_STEP = 256
#: Advice that only sets flags of ours: advice → (bits cleared, bits set).
_FLAGS = {
    mman.MADV_NORMAL: (mman.VM_SEQ_READ | mman.VM_RAND_READ, 0),
    mman.MADV_RANDOM: (mman.VM_SEQ_READ, mman.VM_RAND_READ),
    mman.MADV_SEQUENTIAL: (mman.VM_RAND_READ, mman.VM_SEQ_READ),
    mman.MADV_DONTFORK: (0, mman.VM_DONTCOPY),
    mman.MADV_DOFORK: (mman.VM_DONTCOPY, 0),
    mman.MADV_WIPEONFORK: (0, mman.VM_WIPEONFORK),
    mman.MADV_KEEPONFORK: (mman.VM_WIPEONFORK, 0),
    mman.MADV_DONTDUMP: (0, mman.VM_DONTDUMP),
    mman.MADV_DODUMP: (mman.VM_DONTDUMP, 0),
    mman.MADV_HUGEPAGE: (mman.VM_NOHUGEPAGE, mman.VM_HUGEPAGE),
    mman.MADV_NOHUGEPAGE: (mman.VM_HUGEPAGE, mman.VM_NOHUGEPAGE),
}
#: Advice of these that no mapping refuses unless it has one of the bits.
_SUSPECT = {
    mman.MADV_NORMAL: 0,
    mman.MADV_RANDOM: 0,
    mman.MADV_SEQUENTIAL: 0,
    mman.MADV_DONTFORK: VM_SEALED,
    mman.MADV_DOFORK: VM_PFNMAP,
    mman.MADV_KEEPONFORK: 0,
    mman.MADV_DONTDUMP: 0,
    mman.MADV_DODUMP: VM_DONTEXPAND | VM_PFNMAP,
}
#: Hints that may as well do nothing.
_IGNORED = (mman.MADV_WILLNEED, mman.MADV_COLD, mman.MADV_PAGEOUT)
#: Advice that the host follows.
_HOST = (
    mman.MADV_DONTNEED,
    mman.MADV_FREE,
    mman.MADV_REMOVE,
    mman.MADV_POPULATE_READ,
    mman.MADV_POPULATE_WRITE,
    mman.MADV_DONTNEED_LOCKED,
    mman.MADV_COLLAPSE,
    mman.MADV_GUARD_INSTALL,
    mman.MADV_GUARD_REMOVE,
)
_POPULATE = (mman.MADV_POPULATE_READ, mman.MADV_POPULATE_WRITE)
#: Advice that loses contents, which what is sealed and can't be written to must keep (mseal(2)).
_DISCARDS = (
    mman.MADV_DONTNEED,
    mman.MADV_FREE,
    mman.MADV_REMOVE,
    mman.MADV_DONTNEED_LOCKED,
    mman.MADV_DONTFORK,
    mman.MADV_WIPEONFORK,
    mman.MADV_GUARD_INSTALL,
)


def _end_of(start: int, size: int) -> int:
    """The end of the pages from `start` on that `size` bytes reach into; SysError(EINVAL)."""
    end = start + page_up(size)
    if start & PAGE_MASK or end >= _U64 or (size and not page_up(size)):
        raise SysError(errno.EINVAL)
    return end


def advise(mm: MemoryManager, start: int, size: int, advice: int) -> None:
    """madvise(2).  Unmapped parts are skipped, and make it end with ENOMEM."""
    if advice not in _FLAGS and advice not in _IGNORED and advice not in _HOST:
        raise SysError(errno.EINVAL)
    end = _end_of(start, size)
    if end == start:
        return
    if advice in _SUSPECT and not mm.tree.flagged(start, end, _SUSPECT[advice]):
        hole = not mm.tree.covers(start, end)  # without a look at each of very many
        mm.set_flags(start, end, *_FLAGS[advice])
        if hole:
            raise SysError(errno.ENOMEM)
        return
    position, hole = start, False
    for vma in mm.tree.overlapping(start, end):
        hole |= vma.start > position
        if hole and advice in _POPULATE:
            break
        first, position = max(vma.start, start), min(vma.end, end)
        _check(vma, advice)
        if advice in _HOST:
            if advice not in _POPULATE:
                mm.leave_code(first, position, gone=False)
            mm.guards |= advice == mman.MADV_GUARD_INSTALL
            mm.space.advise(first, position - first, advice)
        elif advice == mman.MADV_HUGEPAGE or advice == mman.MADV_NOHUGEPAGE:
            _quietly(mm, first, position - first, advice)
    if advice in _FLAGS:
        mm.set_flags(start, end, *_FLAGS[advice])
    if hole or position < end:
        raise SysError(errno.ENOMEM)


def _quietly(mm: MemoryManager, start: int, size: int, advice: int) -> None:
    """A host without transparent huge pages answers EINVAL; the guest need not know."""
    try:
        mm.space.advise(start, size, advice)
    except SysError:
        pass


def _check(vma: Vma, advice: int) -> None:
    """What `advice` can't be given for."""
    flags = vma.flags
    if (
        flags & VM_SEALED
        and advice in _DISCARDS
        and not flags & VM_WRITE
        and not (vma.file is not None and flags & (VM_SHARED | VM_PRISTINE))
    ):
        raise SysError(errno.EPERM)
    if advice in (mman.MADV_COLD, mman.MADV_PAGEOUT, mman.MADV_GUARD_INSTALL):
        bad = flags & (VM_LOCKED | VM_PFNMAP)
    elif advice == mman.MADV_GUARD_REMOVE:
        bad = flags & VM_PFNMAP
    elif advice in (mman.MADV_DONTNEED, mman.MADV_FREE):
        bad = flags & (VM_LOCKED | VM_PFNMAP) or (advice == mman.MADV_FREE and vma.file is not None)
    elif advice == mman.MADV_REMOVE:
        if (
            not flags & VM_LOCKED
            and vma.file is not None
            and flags & (VM_SHARED | VM_MAYWRITE) != VM_SHARED | VM_MAYWRITE
        ):
            raise SysError(errno.EACCES)
        bad = flags & VM_LOCKED or vma.file is None
    elif advice == mman.MADV_WIPEONFORK:
        bad = vma.file is not None or flags & VM_SHARED
    elif advice == mman.MADV_DODUMP:
        bad = flags & (VM_DONTEXPAND | VM_PFNMAP)
    elif advice == mman.MADV_DOFORK:
        bad = flags & VM_PFNMAP
    else:
        bad = 0
    if bad:
        raise SysError(errno.EINVAL)


async def sync(mm: MemoryManager, start: int, size: int, flags: int) -> None:
    """msync(2)."""
    if flags & ~(mman.MS_ASYNC | mman.MS_INVALIDATE | mman.MS_SYNC) or start & PAGE_MASK:
        raise SysError(errno.EINVAL)
    if flags & mman.MS_ASYNC and flags & mman.MS_SYNC:
        raise SysError(errno.EINVAL)
    end = start + page_up(size)
    if end >= _U64:
        raise SysError(errno.ENOMEM)
    hole, count = False, 0
    while start < end:
        vma = mm.tree.find(start)
        if vma is None or vma.start >= end:
            hole = True
            break
        hole |= vma.start > start
        start = vma.end
        count += 1
        if not count % SYNC_STEP:
            await yield_now()
        if flags & mman.MS_INVALIDATE and vma.flags & VM_LOCKED:
            raise SysError(errno.EBUSY)
        if flags & mman.MS_SYNC and vma.file is not None and vma.flags & VM_SHARED:
            file = vma.file.get()
            try:
                await file.fsync()
            finally:
                file.put()
    if hole:
        raise SysError(errno.ENOMEM)


def resident(mm: MemoryManager, start: int, size: int) -> Iterator[bytes]:
    """mincore(2): what its vector gets for [start, start+size), piece by piece."""
    if start & PAGE_MASK:
        raise SysError(errno.EINVAL)
    if start > GUEST_TOP or size > GUEST_TOP - start:
        raise SysError(errno.ENOMEM)
    end = start + page_up(size)
    while start < end:
        vma = mm.find(start)
        if vma is None:
            raise SysError(errno.ENOMEM)
        count = min((min(end, vma.end) - start) // PAGE_SIZE, RESIDENT_STEP)
        yield in_core(mm, vma, start, count)
        start += count * PAGE_SIZE


async def lock(mm: MemoryManager, start: int, size: int, flags: int) -> None:
    """mlock2(2).  What is locked is faulted in; but guest memory is swapped as the host likes."""
    if flags & ~mman.MLOCK_ONFAULT:
        raise SysError(errno.EINVAL)
    limit = mm.limit(RLIMIT_MEMLOCK)
    if not limit and not mm.may_lock:
        raise SysError(errno.EPERM)
    size = page_up(size + (start & PAGE_MASK))
    start &= ~PAGE_MASK
    end = start + size
    if not mm.may_lock:
        mine = sum(
            min(v.end, end) - max(v.start, start)
            for v in mm.tree.overlapping(start, end)
            if v.flags & VM_LOCKED
        )
        if mm.locked_vm + size - mine > limit:
            raise SysError(errno.ENOMEM)
    if end >= _U64:
        raise SysError(errno.EINVAL)
    _set_lock(mm, start, end, VM_LOCKED | (VM_LOCKONFAULT if flags else 0))
    if not flags and not await mm.populate(start, end):
        raise SysError(errno.ENOMEM)


def unlock(mm: MemoryManager, start: int, size: int) -> None:
    """munlock(2)."""
    size = page_up(size + (start & PAGE_MASK))
    start &= ~PAGE_MASK
    if start + size >= _U64:
        raise SysError(errno.EINVAL)
    _set_lock(mm, start, start + size, 0)


def seal(mm: MemoryManager, start: int, size: int, flags: int) -> None:
    """mseal(2): all of [start, start+size), or nothing."""
    if flags:
        raise SysError(errno.EINVAL)
    end = _end_of(start, size)
    if end == start:
        return
    if not mm.tree.covers(start, end):
        raise SysError(errno.ENOMEM)
    mm.set_flags(start, end, 0, VM_SEALED)
    mm.c.state |= lib.MM_SEALED


def _mark(mm: MemoryManager, start: int, end: int, bits: int) -> None:
    """Lock or unlock what is mapped of [start, end); what isn't the program's own can't be (mlock_fixup)."""
    while (others := mm.tree.flagged(start, end, VM_DONTEXPAND | VM_PFNMAP)) is not None:
        if start < others[0]:
            mm.set_flags(start, others[0], VM_LOCKED | VM_LOCKONFAULT, bits)
        start = others[1]
    if start < end:
        mm.set_flags(start, end, VM_LOCKED | VM_LOCKONFAULT, bits)


def _set_lock(mm: MemoryManager, start: int, end: int, bits: int) -> None:
    """Up to the first hole, which is an error."""
    if end <= start:
        return
    done: int = lib.mm_hole(mm.c, start, end)
    if done > start:
        _mark(mm, start, done, bits)
    if done < end:
        raise SysError(errno.ENOMEM)


async def lock_all(mm: MemoryManager, flags: int) -> None:
    """mlockall(2)."""
    if not flags or flags & ~7 or flags == mman.MCL_ONFAULT:
        raise SysError(errno.EINVAL)
    limit = mm.limit(RLIMIT_MEMLOCK)
    if not limit and not mm.may_lock:
        raise SysError(errno.EPERM)
    if flags & mman.MCL_CURRENT and mm.total_vm > limit and not mm.may_lock:
        raise SysError(errno.ENOMEM)
    bits = VM_LOCKED | (VM_LOCKONFAULT if flags & mman.MCL_ONFAULT else 0)
    mm.def_flags = bits if flags & mman.MCL_FUTURE else 0
    if flags & mman.MCL_CURRENT:
        _mark(mm, 0, GUEST_TOP, bits)
        if not flags & mman.MCL_ONFAULT:
            await mm.populate(0, GUEST_TOP)


def unlock_all(mm: MemoryManager) -> None:
    """munlockall(2)."""
    mm.def_flags = 0
    _mark(mm, 0, GUEST_TOP, 0)
