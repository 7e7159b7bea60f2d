"""What grows: the heap by brk(2), stacks by page faults below them."""

from __future__ import annotations

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.mman import (
    MMAP_MIN_ADDR,
    PAGE_MASK,
    PAGE_SIZE,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYALL,
    VM_NORESERVE,
    VM_READ,
    VM_WRITE,
)
from sentry.abi.resource import RLIMIT_DATA, RLIMIT_STACK
from sentry.mm.layout import STACK_GUARD
from sentry.mm.mapping import Mapping
from sentry.mm.state import page_up
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.mm.vma import Vma

#: A stack grows by at least this much, to save faults.
_STACK_STEP = 128 * 1024


class Growth(Mapping):
    __slots__ = ()

    def set_brk(self, addr: int) -> int:
        """brk(2): the new program break, or the old one if `addr` can't be it."""
        old = self.brk
        if addr < self.start_brk or addr >= GUEST_TOP:
            return old
        if addr - self.start_brk + self.end_data - self.start_data > self.limit(RLIMIT_DATA):
            return old
        old_end, end = page_up(old), page_up(addr)
        if end < old_end:
            try:
                self.unmap(end, old_end - end)
            except SysError:
                return old
        elif end > old_end:
            flags = VM_READ | VM_WRITE | VM_MAYALL | self.def_flags
            if not lib.mm_is_free(self.c, old_end, end + PAGE_SIZE):
                return old
            try:
                self.check_lock(flags, end - old_end)
                self.map_at(old_end, end - old_end, flags)
            except SysError:
                return old
            if flags & (VM_LOCKED | VM_LOCKONFAULT) == VM_LOCKED:
                self.fault_in(old_end, end - old_end, flags)
        self.brk = addr
        return addr

    def handle_fault(self, addr: int, error: int) -> bool:
        """A page fault at `addr` (`error` as the CPU tells it): whether a stack grew over it, so that
        the access should be tried again."""
        vma = self.tree.find(addr)
        if vma is None or not vma.flags & VM_GROWSDOWN or addr < MMAP_MIN_ADDR:
            return False
        if vma.start <= addr:
            # Another thread's fault has grown it already, or else the access is not allowed.
            return (
                not error & 1 and not self.guards and bool(vma.flags & (VM_WRITE if error & 2 else VM_READ))
            )
        start = addr & ~PAGE_MASK
        limit = self.limit(RLIMIT_STACK)
        if vma.end - start > limit:
            return False
        below = self.tree.before(vma.start)
        floor = MMAP_MIN_ADDR
        if below is not None:
            floor = below.end
            if below.prot and not below.flags & VM_GROWSDOWN:
                floor += STACK_GUARD
        if start < floor:
            return False
        generous = max(min(start, vma.start - _STACK_STEP), floor, vma.end - (limit & ~PAGE_MASK))
        return (generous < start and self._grow(vma, generous)) or self._grow(vma, start)

    def _grow(self, vma: Vma, start: int) -> bool:
        size = vma.start - start
        try:
            self.check_expand(vma.flags, size)
            self.check_lock(vma.flags, size)
            if vma.flags & VM_ACCOUNT:
                self.commit.charge(size, self.owner)
        except SysError:
            return False
        try:
            self.space.map_anon(start, size, vma.prot, bool(vma.flags & VM_NORESERVE))
        except SysError:
            if vma.flags & VM_ACCOUNT:
                self.commit.uncharge(size)
            return False
        lib.mm_grow_down(self.c, vma.start, start)
        return True

    def _grow_stack(self, addr: int, size: int) -> bool:
        end = addr + size
        while addr < end:
            vma = self.tree.find(addr)
            if vma is None:
                return False
            if vma.start > addr:
                return self.handle_fault(addr, 6)
            addr = vma.end
        return False
