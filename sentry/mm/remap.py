"""mremap(2)."""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.mman import (
    MAP_NONBLOCK,
    MMAP_MIN_ADDR,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PAGE_MASK,
    PAGE_SIZE,
    PROT_WRITE,
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_PFNMAP,
    VM_SEALED,
    VM_SHARED,
)
from sentry.mm.shared import Ring, Segment
from sentry.mm.state import page_up
from sentry.mm.vma import Vma
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.mm.manager import MemoryManager


#: How often what is moved may turn out to be several mappings of the host's.
_MOST_HALVED = 4096


async def remap(mm: MemoryManager, addr: int, old_size: int, new_size: int, flags: int, new_addr: int) -> int:
    """Resize or move a mapping: its new address.  SysError(EINVAL, EFAULT, ENOMEM, EAGAIN, EPERM)."""
    if (
        flags & ~(MREMAP_FIXED | MREMAP_MAYMOVE | MREMAP_DONTUNMAP)
        or (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) and not flags & MREMAP_MAYMOVE)
        or (flags & MREMAP_DONTUNMAP and old_size != new_size)
        or addr & PAGE_MASK
    ):
        raise SysError(errno.EINVAL)
    old_size, new_size = page_up(old_size), page_up(new_size)
    if not new_size or old_size >= 1 << 64 or new_size > GUEST_TOP:
        raise SysError(errno.EINVAL)
    vma = mm.find(addr)
    if vma is None:
        raise SysError(errno.EFAULT)
    if vma.flags & VM_SEALED:
        raise SysError(errno.EPERM)
    moves = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)
    host_fd = None
    if vma.file is not None and (not old_size or flags & MREMAP_DONTUNMAP):
        file = vma.file.get()
        try:
            shared = bool(vma.flags & VM_SHARED)
            host_fd = await file.host_mapping(shared, shared and bool(vma.max_prot & PROT_WRITE))
        finally:
            file.put()
        vma = mm.find(addr)
        if vma is None or vma.file is not file:
            raise SysError(errno.EFAULT)
    if moves:
        _check_target(mm, addr, old_size, new_addr, new_size)
    if flags == MREMAP_FIXED | MREMAP_MAYMOVE and old_size == new_size and addr + old_size > vma.end:
        return _move_all(mm, addr, old_size, new_addr)
    if flags & MREMAP_FIXED:
        mm.unmap(new_addr, new_size)
    if old_size > new_size or (old_size == new_size and not moves):
        if addr > GUEST_TOP - old_size:
            raise SysError(errno.EINVAL)
        if old_size > new_size:
            mm.unmap(addr + new_size, old_size - new_size)
        if not moves:
            return addr
        old_size = new_size
    vma = mm.find(addr)
    if vma is None:
        raise SysError(errno.EFAULT)
    _check_resize(mm, vma, addr, old_size, new_size, flags)
    locked = vma.flags & (VM_LOCKED | VM_LOCKONFAULT) == VM_LOCKED
    if not moves and addr + old_size == vma.end and _extend(mm, vma, new_size - old_size):
        if locked:
            await mm.populate(addr + old_size, addr + new_size)
        return addr
    if not flags & MREMAP_MAYMOVE:
        raise SysError(errno.ENOMEM)
    if not flags & MREMAP_FIXED:
        wish = new_addr & ~PAGE_MASK if flags & MREMAP_DONTUNMAP else 0
        if not wish and 0 < old_size < new_size:
            found = lib.mm_find_roomy(mm.c, new_size)
        else:
            found = _place(mm, wish, new_size)
        if not found:
            raise SysError(errno.ENOMEM)
        new_addr = found
    if not old_size:
        mm.map_at(new_addr, new_size, vma.flags, vma.file, vma.offset_of(addr), host_fd, vma.name)
        return new_addr
    _move(mm, addr, old_size, new_addr, new_size, bool(flags & MREMAP_DONTUNMAP), host_fd)
    if locked and new_size > old_size:
        await mm.populate(new_addr + old_size, new_addr + new_size)
    return new_addr


async def remap_pages(mm: MemoryManager, start: int, size: int, prot: int, page: int, flags: int) -> None:
    """remap_file_pages(2), made of mmap as Linux does since 3.16: show other pages of the same file.

    SysError(EINVAL, ENOMEM)."""
    start &= ~PAGE_MASK
    size &= ~PAGE_MASK
    if prot or size <= 0 or start + size >= 1 << 64 or page + size // PAGE_SIZE >= 1 << 64:
        raise SysError(errno.EINVAL)
    vma = mm.find(start)
    if vma is None or not vma.flags & VM_SHARED or vma.file is None or not vma.max_prot & PROT_WRITE:
        raise SysError(errno.EINVAL)  # of a file that is open for reading only, a mapping is not VM_SHARED
    vma_flags, file, position = vma.flags, vma.file.get(), vma.end
    try:
        for other in mm.tree.overlapping(position, start + size):
            if other.start != position or other.file is not file or other.flags != vma_flags:
                break
            position = other.end
        if position < start + size:
            raise SysError(errno.EINVAL)
        host_fd = await file.host_mapping(True, True)
        if isinstance(file, Segment) and not file.replace(_whole(mm, start, start + size)):
            mm.unmap(start, size)
            raise SysError(errno.EINVAL)
        mm.map_at(start, size, vma_flags, file, page * PAGE_SIZE, host_fd)
    finally:
        file.put()
    if not flags & MAP_NONBLOCK:
        await mm.populate(start, start + size)


def _whole(mm: MemoryManager, start: int, end: int) -> int:
    """How many mappings lie within [start, end)."""
    return sum(start <= vma.start and vma.end <= end for vma in mm.tree.overlapping(start, end))


def _move_all(mm: MemoryManager, addr: int, size: int, new_addr: int) -> int:
    """Move several mappings at once, as Linux does since 6.17; holes between them stay as they are in the new
    place.  SysError: those before may have been moved."""
    end = addr + size
    if end > GUEST_TOP:
        raise SysError(errno.EFAULT)
    for vma in mm.tree.overlapping(addr, end):
        start, stop = max(addr, vma.start), min(end, vma.end)
        target = new_addr + start - addr
        if vma.flags & VM_SEALED:
            raise SysError(errno.EPERM)
        _check_resize(mm, vma, start, stop - start, stop - start, 0)
        mm.unmap(target, stop - start)
        _move(mm, start, stop - start, target, stop - start, False, None)
    return new_addr


def _check_target(mm: MemoryManager, addr: int, old_size: int, new_addr: int, new_size: int) -> None:
    """MREMAP_FIXED and MREMAP_DONTUNMAP: what the new place must be."""
    if new_addr & PAGE_MASK or new_addr > GUEST_TOP - new_size:
        raise SysError(errno.EINVAL)
    if addr + old_size > new_addr and new_addr + new_size > addr:
        raise SysError(errno.EINVAL)
    if len(mm.tree) + 2 >= mm.commit.max_maps - 3:
        raise SysError(errno.ENOMEM)
    if 0 < new_addr < MMAP_MIN_ADDR:
        raise SysError(errno.EPERM)


def _check_resize(mm: MemoryManager, vma: Vma, addr: int, old_size: int, new_size: int, flags: int) -> None:
    """vma_to_resize."""
    if not old_size and not vma.flags & VM_SHARED:
        raise SysError(errno.EINVAL)
    if flags & MREMAP_DONTUNMAP and vma.flags & (VM_DONTEXPAND | VM_PFNMAP):
        raise SysError(errno.EINVAL)
    if old_size > vma.end - addr:
        raise SysError(errno.EFAULT)
    if new_size == old_size:
        return
    if vma.flags & (VM_DONTEXPAND | VM_PFNMAP):
        raise SysError(errno.EFAULT)
    if vma.offset_of(addr) + new_size > 1 << 63:
        raise SysError(errno.EINVAL)
    mm.check_lock(vma.flags, new_size - old_size)
    mm.check_expand(vma.flags, new_size - old_size)


def _place(mm: MemoryManager, wish: int, size: int) -> int:
    if wish >= MMAP_MIN_ADDR and wish <= GUEST_TOP - size and lib.mm_is_free(mm.c, wish, wish + size):
        return wish
    return mm.find_free(size)


def _extend(mm: MemoryManager, vma: Vma, delta: int) -> bool:
    """Let `vma` reach `delta` bytes further, if nothing is there."""
    end = vma.end
    if end + delta > GUEST_TOP or not lib.mm_is_free(mm.c, end, end + delta):
        return False
    if vma.file is None:
        mm.map_at(end, delta, vma.flags & ~VM_ACCOUNT, name=vma.name)
        return True
    if vma.flags & VM_ACCOUNT:
        mm.commit.charge(delta, mm.owner)
    try:
        mm.space.remap(end - PAGE_SIZE, PAGE_SIZE, end - PAGE_SIZE, PAGE_SIZE + delta)
    except SysError:
        if vma.flags & VM_ACCOUNT:
            mm.commit.uncharge(delta)
        raise
    mm.tree.insert(Vma(end, end + delta, vma.flags, vma.file, vma.offset_of(end), vma.name))
    return True


def _move(
    mm: MemoryManager, addr: int, old_size: int, new_addr: int, new_size: int, keep: bool, host_fd: int | None
) -> None:
    """Move [addr, addr+old_size) to `new_addr`, where nothing is, and give it `new_size` bytes."""
    mm.check_count(2)
    source = mm.find(addr)
    assert source is not None
    ring = source.file if isinstance(source.file, Ring) else None
    if ring is not None and ring.mm is not mm:
        raise SysError(errno.EINVAL)
    charge = new_size if keep else new_size - old_size
    mm.leave_code(addr, addr + old_size, gone=False)
    if source.flags & VM_ACCOUNT:
        mm.commit.charge(charge, mm.owner)
    try:
        _move_host(mm, addr, old_size, new_addr, new_size)
    except SysError:
        if source.flags & VM_ACCOUNT:
            mm.commit.uncharge(charge)
        raise
    flags, file, offset = source.flags, source.file, source.offset_of(addr)
    if ring is not None:
        ring.addr = new_addr
    mm.tree.insert(Vma(new_addr, new_addr + new_size, flags, file, offset, source.name))
    if keep:
        prot = flags & 7
        if host_fd is None:
            mm.space.map_anon(addr, old_size, prot)
        else:
            mm.space.map_file(addr, old_size, prot, bool(flags & VM_SHARED), host_fd, offset)
        mm.set_flags(addr, addr + old_size, VM_LOCKED | VM_LOCKONFAULT, 0)
        return
    mm.tree.remove(addr, addr + old_size, uncharge=False)


def _move_host(mm: MemoryManager, old: int, size: int, new: int, new_size: int) -> None:
    """Move host memory, and let its end grow.  Where one mapping of ours is several of the host's, it says
    EFAULT: halve.  How often, is limited: what the host says comes through the guest's hands."""
    rest = [(old, size, new, new_size)]
    failed = 0
    while rest:
        old, size, new, new_size = rest.pop()
        try:
            mm.space.remap(old, size, new, new_size)
        except SysError as error:
            failed += 1
            if error.errno != errno.EFAULT or size == PAGE_SIZE or failed > _MOST_HALVED:
                raise
            half = (size // 2) & ~PAGE_MASK or PAGE_SIZE
            rest.append((old + half, size - half, new + half, new_size - half))
            rest.append((old, half, new, half))
