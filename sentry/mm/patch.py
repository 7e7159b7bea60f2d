"""Call-site patching of one address space: what may be patched, where trampolines go, and putting code back.

csrc/engine/patch.c decides how a site is patched and counts its traps; docs/patching.md tells the whole
story.  Here are the parts that need the map of the address space.  The bookkeeping follows the memory: fork
copies it, exec begins with none, and before patched code, its padding or its trampoline is unmapped, moved
or made writable, `withdraw` puts the program's own bytes back.

Trampolines stand in ordinary mappings, [trampolines] in /proc/PID/maps, below the module that they serve.  So
everything that holds for mappings holds for them, too: nothing else is placed there, limits count them,
and a program that unmaps them just gets its own code back.
"""

from __future__ import annotations

from _struct import Struct

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.mman import (
    MMAP_MIN_ADDR,
    PAGE_SIZE,
    PROT_EXEC,
    PROT_READ,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.mm.manager import MemoryManager

NAME = b"[trampolines]"
#: At which trap a site is examined: patching it costs as much as some tens of traps.
THRESHOLD = 32
#: One address space never has more pages of trampolines.
MAX_PAGES = 64

SYSCALL_SIZE = 2
#: How far a jump reaches, with a margin for the code around a site and for a page.
_REACH = (1 << 31) - 4 * PAGE_SIZE
_SLOT: int = lib.PATCH_SLOT
_CODE = VM_READ | VM_EXEC
#: The vDSO and our own pages have VM_DONTEXPAND.
_UNFIT = VM_WRITE | VM_SHARED | VM_PFNMAP | VM_DONTEXPAND
_TRAMPOLINES = VM_READ | VM_EXEC | VM_MAYREAD | VM_MAYEXEC | VM_DONTEXPAND
_PATCHED: int = lib.PATCH_PATCHED
_REFUSED: int = lib.PATCH_REFUSED
_U64 = Struct("<Q")

_plan = ffi.new("struct patch_plan *")
_steps = ffi.new("struct patch_step[]", lib.PATCH_STEPS_MAX)
_slot = ffi.new("uint8_t[]", _SLOT)


class CodePatches:
    """`entry` is the address of the stub's entry for trampolines, the same in every address space."""

    __slots__ = ("_mm", "_pages", "entry", "table")

    def __init__(self, mm: MemoryManager, entry: int, threshold: int = THRESHOLD) -> None:
        self._mm = mm
        self.entry = entry
        #: struct patch_table *, for the engine: valid as long as this object lives.
        self.table = _owned(lib.patch_table_new(threshold))
        #: [address, slots used] of each page of trampolines.
        self._pages: list[list[int]] = []

    def fork(self, mm: MemoryManager) -> CodePatches:
        """The bookkeeping for `mm`, whose memory is a copy of ours."""
        child = CodePatches.__new__(CodePatches)
        child._mm = mm
        child.entry = self.entry
        child.table = _owned(lib.patch_table_copy(self.table))
        child._pages = [page.copy() for page in self._pages]
        return child

    @property
    def count(self) -> int:
        """Sites that are patched."""
        count: int = lib.patch_count(self.table, _PATCHED)
        return count

    @property
    def alone(self) -> bool:
        """Whether one task uses this memory: the one that has trapped."""
        return self._mm.users <= 1

    def consider(self, regs: Any) -> bool:
        """Patch the site that a thread has just trapped at, if it can be done; whether it was.

        To be called when patch_trap said so.  `regs` are the thread's registers (struct guest_regs) at the
        trap; they don't change, the call itself is served as ever.
        """
        site = lib.patch_find(self.table, regs.rip - SYSCALL_SIZE)
        if not site or site.state == _PATCHED:
            return False
        try:
            done = self._patch(site, regs)
        except SysError:
            done = False
        lib.patch_set(self.table, site, _PATCHED if done else _REFUSED)
        return done

    def _patch(self, site: Any, regs: Any) -> bool:
        mm = self._mm
        addr: int = site.plan.site
        vma = mm.find(addr)
        if vma is None or vma.flags & (_CODE | _UNFIT) != _CODE:
            return False
        begin = max(vma.start, addr - lib.PATCH_BEFORE)
        code = bytearray(mm.space.read(begin, min(vma.end, addr + lib.PATCH_AFTER) - begin))
        lib.patch_overlay(self.table, ffi.from_buffer(code), len(code), begin)
        if lib.patch_analyze(ffi.from_buffer(code), len(code), begin, ffi.addressof(regs), _plan) < 0:
            return False
        place = self._new_slot(_plan.start, vma.start)
        if place is None:
            return False
        page, trampoline = place
        if not lib.patch_emit(_plan, trampoline, page, _slot):
            return False
        self._write(trampoline, ffi.buffer(_slot)[:])
        site.plan = _plan[0]
        site.trampoline = trampoline
        return self._store(site, False)

    def _write(self, addr: int, data: bytes) -> None:
        """AddressSpace.write_code: write into private executable memory, whatever its protection, without
        ever taking away the right to execute it.

        What lies in one aligned word of 8 bytes is written by one store.  When it returns, no processor
        executes what was there before.  SysError(ENOMEM, EFAULT, ESRCH).
        """
        self._mm.space.write_code(addr, data, PROT_READ | PROT_EXEC)

    def _store(self, site: Any, undo: bool) -> bool:
        """Write a site's jump, or its own bytes; False, and nothing is changed, if the host refuses."""
        plan = site.plan
        count = lib.patch_steps(ffi.addressof(plan), site.trampoline, self.alone, undo, _steps)
        write = self._write
        done = 0
        try:
            for done in range(count):
                step = _steps[done]
                write(step.addr, ffi.buffer(step.bytes, step.size)[:])
        except SysError:
            # Threads may be waiting for the last step: let them go on with what was there.
            insn = bytes(plan.insn)[: plan.length]
            for step in [] if undo else list(_steps)[:done][::-1]:
                offset = step.addr - plan.start
                if 0 <= offset < plan.length:
                    write(step.addr, insn[offset : offset + step.size])
            return False
        return bool(count)

    def _new_slot(self, near: int, module: int) -> tuple[int, int] | None:
        """(page, address) of room for a trampoline within reach of `near`, code of a mapping that begins at
        `module`."""
        for page in self._pages:
            if page[1] < PAGE_SIZE // _SLOT and abs(page[0] - near) < _REACH:
                break
        else:
            made = self._new_page(near, module)
            if made is None:
                return None
            page = made
        slot = page[1]
        page[1] += 1
        return page[0], page[0] + slot * _SLOT

    def _new_page(self, near: int, module: int) -> list[int] | None:
        if len(self._pages) >= MAX_PAGES:
            return None
        mm = self._mm
        near &= -PAGE_SIZE
        low, high = max(MMAP_MIN_ADDR, near - _REACH), min(GUEST_TOP, near + _REACH)
        # Below, where no heap or stack will want to grow to.
        addr: int = lib.mm_find_high(mm.c, PAGE_SIZE, low, module)
        if not addr:
            addr = lib.mm_find_low(mm.c, PAGE_SIZE, module, high)
        if not addr:
            return None
        mm.map_at(addr, PAGE_SIZE, _TRAMPOLINES, name=NAME)
        self._write(addr, _U64.pack(self.entry))
        page = [addr, 1]
        self._pages.append(page)
        return page

    def withdraw(self, start: int, end: int, gone: bool = True) -> None:
        """[start, end) is about to be unmapped or replaced (`gone`), moved, or given to the program to write.

        Whatever leads there, or away from there, is put back.  Sites there are examined anew if they trap
        again.
        """
        table = self.table
        for page in self._pages:
            if start <= page[0] < end:
                break
        else:
            # Most calls of mmap and munmap.
            if not lib.patch_knows(table, start, end):
                return
        while site := lib.patch_touching(table, start, end):
            plan = site.plan
            if not (gone and start <= plan.start and plan.site + SYSCALL_SIZE <= end):
                self._store(site, True)
            lib.patch_set(table, site, _REFUSED)
        lib.patch_drop_trampolines(table, start, end)
        lib.patch_forget(table, start, end)
        self._pages = [page for page in self._pages if not start <= page[0] < end]

    def stop(self) -> None:
        """Put everything back and patch no more: somebody (a debugger) wants to see the program's code.

        No thread may be in a trampoline."""
        pages = self._pages
        self.withdraw(0, GUEST_TOP, gone=False)
        lib.patch_table_stop(self.table)
        for addr, _ in pages:
            try:
                self._mm.unmap(addr, PAGE_SIZE)
            except SysError:
                pass  # then nothing leads there

    def settle(self, regs: Any, signo: int = 0) -> bool:
        """Take a stopped thread out of the trampolines, before anybody sees its registers.

        To be called when a thread was kicked or has faulted (with the fault's `signo`).  True: the fault was
        our own doing, the thread should just go on.
        """
        return bool(lib.patch_settle(self.table, ffi.addressof(regs), signo))


def _owned(table: Any) -> Any:
    if not table:
        raise MemoryError
    return ffi.gc(table, lib.patch_table_free)
