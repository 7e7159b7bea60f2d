"""MemoryManager: one guest address space (struct mm_struct) and the calls that shape it.

It keeps the tree of mappings, decides every address, enforces limits, and orders the platform's
AddressSpace to follow.  Bookkeeping and host memory change together: whatever can fail is checked
first, and where the host refuses after all, the range is left unmapped in both.

The limits are those of the process that makes the call: `limit` (RLIMIT number → bytes) is set
by whoever acts for a process (`syscalls/memory.py`, exec, fork).
"""

from __future__ import annotations

import errno

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.mman import (
    PAGE_MASK,
    PROT_GROWSDOWN,
    PROT_GROWSUP,
    PROT_RWX,
    PROT_SEM,
    VM_DONTCOPY,
    VM_GROWSDOWN,
    VM_SEALED,
    VM_WIPEONFORK,
)
from sentry.mm.growth import Growth
from sentry.mm.state import page_up
from sentry.mm.vma import VmaTree, let_go, take_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.platform.base import Thread

_U64 = 1 << 64
_done, _charged = ffi.new("uint64_t *"), ffi.new("uint64_t *")


class MemoryManager(Growth):
    """See the module; the fields are those of AddressState."""

    __slots__ = ()

    def get(self) -> MemoryManager:
        """One more user (CLONE_VM)."""
        self.users += 1
        return self

    def put(self) -> None:
        """One user less; the last one takes the address space away."""
        self.users -= 1
        if self.users == 0:
            if self.aio is not None:
                self.aio.close()
            self.space.destroy()
            self.tree.clear()
            exe, self.exe = self.exe, None
            if exe is not None:
                exe.put()

    def fork(
        self, thread: Thread, memory: tuple[int, int, int] | None = None
    ) -> tuple[MemoryManager, Thread]:
        """A copy-on-write copy, and its only thread, cloned from `thread` (stopped, of this space).

        SysError(ENOMEM, EAGAIN).  The copy has one user.  Its host memory has `memory` (addr, size, PROT_*)
        more, which the caller has to `book`.
        """
        child = MemoryManager.__new__(MemoryManager)
        child.commit = self.commit
        child.tree = VmaTree(self.commit.c)
        child.c = child.tree.c
        special = lib.mm_fork(child.c, self.c)
        if special < 0:
            self.check(special, self.total_vm)
        try:
            child_thread = self.space.fork(thread, memory)
        except SysError:
            child.tree.clear()
            raise
        child.space = child_thread.space
        child.users = 1
        child.own_futexes, child.membarriers = False, self.membarriers
        child.aio = None
        child._limit, child.actor = self._limit, None
        child.peak_rss = child.measured_ns = 0
        child.guards = self.guards
        child.policies = None if self.policies is None else self.policies.copy()
        child.may_lock, child.owner = self.may_lock, self.owner
        child._layout, child.vdso, child.auxv = self._layout, self.vdso, self.auxv
        child.start_code, child.end_code, child.start_stack = self.start_code, self.end_code, self.start_stack
        child.arg_start, child.arg_end = self.arg_start, self.arg_end
        child.env_start, child.env_end = self.env_start, self.env_end
        child.mdwe = 0 if self.mdwe & 2 else self.mdwe
        child.dump_filter, child.multiprocess = self.dump_filter, False
        child.exe = self.exe
        if self.exe is not None:
            self.exe.get()
        child.patches = None if self.patches is None else self.patches.fork(child)
        if special:
            self._fork_specials(child)
        return child, child_thread

    def _fork_specials(self, child: MemoryManager) -> None:
        """What madvise(2) has kept from being copied to `child`."""
        try:
            for vma in self.tree:
                if vma.flags & (VM_DONTCOPY | VM_WIPEONFORK):
                    child.leave_code(vma.start, vma.end)
                if vma.flags & VM_DONTCOPY:
                    child.space.unmap(vma.start, vma.size)
                elif vma.flags & VM_WIPEONFORK:
                    child.space.map_anon(vma.start, vma.size, vma.prot)
        except SysError:
            child.put()
            raise

    def protect(self, start: int, size: int, prot: int, known_key: bool = True) -> None:
        """mprotect(2), pkey_mprotect(2) with a key that is not `known_key`: changes what comes before the
        first page that it can't change, as Linux does."""
        grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
        prot &= ~grows
        if grows == PROT_GROWSDOWN | PROT_GROWSUP or start & PAGE_MASK:
            raise SysError(errno.EINVAL)
        if size == 0:
            return
        end = start + page_up(size)
        if end >= _U64 or end <= start:
            raise SysError(errno.ENOMEM)
        if prot & ~(PROT_RWX | PROT_SEM):
            raise SysError(errno.EINVAL)
        if not known_key:
            raise SysError(errno.EINVAL)
        prot &= PROT_RWX
        if grows:
            vma = self.tree.find(start)
            if vma is None or vma.start >= end:
                raise SysError(errno.ENOMEM)
            if grows == PROT_GROWSUP or not vma.flags & VM_GROWSDOWN:
                raise SysError(errno.EINVAL)
            start = vma.start
        if self.c.state & lib.MM_SEALED:
            end = self._unsealed_part(start, end, prot)
        error = lib.mm_check_protect(self.c, start, end, prot, _done, _charged)
        done, charged = _done[0], _charged[0]
        if done > start:
            self.leave_code(start, done, gone=False)
            try:
                self.space.protect(start, done - start, prot)
            except SysError:
                self.commit.uncharge(charged)
                raise
            lib.mm_set_prot(self.c, start, done, prot)
            let_go()
        if error:
            self.check(error, end - done)

    def _unsealed_part(self, start: int, end: int, prot: int) -> int:
        """`end`; but where something of [start, end) is sealed, mprotect gets that far only (mseal(2))."""
        sealed = self.tree.flagged(start, end, VM_SEALED)
        if sealed is not None:
            if sealed[0] > start:
                self.protect(start, sealed[0] - start, prot)
            raise SysError(errno.EPERM)
        return end

    def set_flags(self, start: int, end: int, clear: int, put: int) -> None:
        """Change bits of what is mapped of [start, end) that mean nothing to the host."""
        self.tree.set_flags(start, end, clear, put)

    def set_anon_name(self, start: int, end: int, name: bytes) -> None:
        """prctl(PR_SET_VMA_ANON_NAME): `name` as /proc/PID/maps shows it ([anon:…]), b"" for none."""
        number = take_number(name)
        result = lib.mm_set_name(self.c, start, end, number)
        lib.mm_object_put(number)
        let_go()
        self.check(result)
