"""MemoryManager: one guest address space (struct mm_struct) and the calls that shape it.

It keeps the tree of mappings, decides every address, enforces limits, and orders the platform's
AddressSpace to follow.  Bookkeeping and host memory change together: whatever can fail is checked
first, and where the host refuses after all, the range is left unmapped in both.

The limits are those of the process that makes the call: `limit` (RLIMIT number → bytes) is set
by whoever acts for a process (`syscalls/memory.py`, exec, fork).
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.mman import (
    PAGE_MASK,
    PROT_GROWSDOWN,
    PROT_GROWSUP,
    PROT_RWX,
    PROT_SEM,
    PROT_WRITE,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTEXPAND,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_NORESERVE,
    VM_SHARED,
    VM_WIPEONFORK,
    VM_WRITE,
)
from sentry.mm.growth import Growth
from sentry.mm.state import FIELDS, page_up
from sentry.mm.vma import Vma, VmaTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.platform.base import Thread

_U64 = 1 << 64


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
            self.space.destroy()
            charged = 0
            for vma in self.tree.clear():
                if vma.flags & VM_ACCOUNT:
                    charged += vma.end - vma.start
                if vma.file is not None:
                    vma.file.put()
            self.commit.uncharge(charged)
            self.total_vm = self.data_vm = self.stack_vm = self.exec_vm = self.locked_vm = 0
            exe, self.exe = self.exe, None
            if exe is not None:
                exe.put()

    def fork(self, thread: Thread) -> tuple[MemoryManager, Thread]:
        """A copy-on-write copy, and its only thread, cloned from `thread` (stopped, of this space).

        SysError(ENOMEM, EAGAIN).  The copy has one user.
        """
        inherited = [vma for vma in self.tree if not vma.flags & VM_DONTCOPY]
        charge = sum(vma.size for vma in inherited if vma.flags & VM_ACCOUNT)
        self.commit.charge(charge, self.owner)
        try:
            child_thread = self.space.fork(thread)
        except SysError:
            self.commit.uncharge(charge)
            raise
        child = MemoryManager.__new__(MemoryManager)
        for name in FIELDS:
            setattr(child, name, getattr(self, name))
        child.space = child_thread.space
        child.users = 1
        child.tree = VmaTree()
        child.def_flags = child.locked_vm = 0
        for vma in self.tree:
            if vma.flags & VM_DONTCOPY:
                child._count(vma.flags & ~VM_LOCKED, -vma.size)
        if self.exe is not None:
            self.exe.get()
        if self.patches is not None:
            child.patches = self.patches.fork(child)
        copies = []
        for vma in inherited:
            if vma.file is not None:
                vma.file.get()
            flags = vma.flags & ~(VM_LOCKED | VM_LOCKONFAULT)
            copies.append(Vma(vma.start, vma.end, flags, vma.file, vma.offset, vma.name))
        child.tree.fill(copies)
        try:
            for vma in self.tree:
                if vma.flags & (VM_DONTCOPY | VM_WIPEONFORK):
                    child.leave_code(vma.start, vma.end, [vma])
                if vma.flags & VM_DONTCOPY:
                    child.space.unmap(vma.start, vma.size)
                elif vma.flags & VM_WIPEONFORK:
                    child.space.map_anon(vma.start, vma.size, vma.prot)
        except SysError:
            child.put()
            raise
        return child, child_thread

    def protect(self, start: int, size: int, prot: int) -> None:
        """mprotect(2): changes what comes before the first page that it can't change, as Linux does."""
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
        prot &= PROT_RWX
        vma = self.tree.find(start)
        if vma is None:
            raise SysError(errno.ENOMEM)
        if grows:
            if vma.start >= end:
                raise SysError(errno.ENOMEM)
            if grows == PROT_GROWSUP or not vma.flags & VM_GROWSDOWN:
                raise SysError(errno.EINVAL)
            start = vma.start
        done, charged, error = self._check_protect(start, end, prot)
        if done > start:
            self.leave_code(start, done, self.tree.overlapping(start, done), gone=False)
            try:
                self.space.protect(start, done - start, prot)
            except SysError:
                self.commit.uncharge(charged)
                raise
            self._set_prot(start, done, prot)
        if error:
            raise SysError(error)

    def _check_protect(self, start: int, end: int, prot: int) -> tuple[int, int, int]:
        """How far [start, end) can get `prot`, what was charged for that, and why not further."""
        charged = grown = 0
        for vma in self.tree.overlapping(start, end):
            if vma.start > start:
                return start, charged, errno.ENOMEM
            if prot & ~vma.max_prot:
                return start, charged, errno.EACCES
            stop = min(vma.end, end)
            if prot & PROT_WRITE and not vma.flags & (VM_WRITE | VM_SHARED):
                if not vma.flags & VM_GROWSDOWN and self.data_vm + grown + stop - start > self._data_limit():
                    return start, charged, errno.ENOMEM
                if not vma.flags & (VM_ACCOUNT | VM_NORESERVE):
                    try:
                        self.commit.charge(stop - start, self.owner)
                    except SysError as error:
                        return start, charged, error.errno
                    charged += stop - start
                grown += stop - start
            start = stop
        return start, charged, 0 if start >= end else errno.ENOMEM

    def _set_prot(self, start: int, end: int, prot: int) -> None:
        for vma in self.tree.isolate(start, end):
            size = vma.size
            self._count(vma.flags, -size)
            if prot & PROT_WRITE and not vma.flags & (VM_WRITE | VM_SHARED | VM_NORESERVE):
                vma.flags |= VM_ACCOUNT
            vma.flags = vma.flags & ~PROT_RWX | prot
            self._count(vma.flags, size)
        self.tree.join(start, end)

    def set_flags(self, start: int, end: int, clear: int, put: int) -> None:
        """Change bits of what is mapped of [start, end) that mean nothing to the host."""
        for vma in self.tree.isolate(start, end):
            self._count(vma.flags, -vma.size)
            vma.flags = vma.flags & ~clear | put
            self._count(vma.flags, vma.size)
        self.tree.join(start, end)

    def set_anon_name(self, start: int, end: int, name: bytes) -> None:
        """prctl(PR_SET_VMA_ANON_NAME): `name` as /proc/PID/maps shows it ([anon:…]), b"" for none."""
        for vma in self.tree.isolate(start, end):
            if vma.file is None and not vma.flags & VM_DONTEXPAND:
                vma.name = name
        self.tree.join(start, end)
