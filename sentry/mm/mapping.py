"""mmap(2) and munmap(2): where a mapping may go, what it may become, making it and taking it away."""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.mman import (
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MAP_32BIT,
    MAP_ANONYMOUS,
    MAP_DROPPABLE,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_HUGE_MASK,
    MAP_HUGE_SHIFT,
    MAP_HUGETLB,
    MAP_KNOWN,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_SYNC,
    MAP_TYPE,
    MMAP_MIN_ADDR,
    PAGE_MASK,
    PAGE_SIZE,
    PROT_EXEC,
    PROT_RWX,
    PROT_WRITE,
    VM_DONTDUMP,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYALL,
    VM_MAYEXEC,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_READ,
    VM_SEALED,
    VM_SHARED,
    VM_WIPEONFORK,
    VM_WRITE,
)
from sentry.abi.resource import RLIMIT_MEMLOCK
from sentry.kernel.wait import PARTS, yield_now
from sentry.mm.layout import LOW_BEGIN, LOW_END
from sentry.mm.shared import SharedAnonymous
from sentry.mm.state import AddressState, page_up
from sentry.mm.vma import let_go, number_of, take_number
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Pages are faulted in by pieces of this size: others want to run, too.
_POPULATE_STEP = 16 << 20
#: Logarithms of the huge pages that there might be.
_HUGE_SIZES = (0, 21, 30)
#: No file is longer than this, in whole pages.
_FILE_END = (1 << 63) - PAGE_SIZE


class Mapping(AddressState):
    __slots__ = ()

    async def map(
        self, addr: int, size: int, prot: int, flags: int, file: Any = None, offset: int = 0
    ) -> int:
        """mmap(2): the address of the new mapping.

        `file` is None with MAP_ANONYMOUS; the mapping takes a reference of its own.  `offset` is
        page aligned.
        """
        if size == 0:
            raise SysError(errno.EINVAL)
        size = page_up(size)
        if not 0 < size <= GUEST_TOP:
            raise SysError(errno.ENOMEM)
        self.check_count()
        if flags & MAP_FIXED_NOREPLACE:
            flags |= MAP_FIXED
        start = self._place(addr, size, flags)
        if flags & MAP_LOCKED and not self.may_lock and not self.limit(RLIMIT_MEMLOCK):
            raise SysError(errno.EPERM)
        vm_flags = self._vm_flags(prot, flags)
        self.check_lock(vm_flags, size)
        host_fd = None
        if file is not None:
            if offset + size > _FILE_END:
                raise SysError(errno.EOVERFLOW)
            vm_flags = self._check_file(file, prot, flags, vm_flags)
            shared = bool(vm_flags & VM_SHARED)
            host_fd = await file.host_mapping(shared, shared and bool(vm_flags & VM_MAYWRITE))
            start = self._place(addr, size, flags)
            if host_fd is None:
                file = None
        else:
            vm_flags = self._check_anonymous(flags, vm_flags)
        if file is not None and flags & MAP_FIXED and self._is_there(start, size, vm_flags, file, offset):
            self._remake(start, size, vm_flags, file, offset)
        else:
            self.map_at(start, size, vm_flags, file, offset, host_fd)
        if (
            flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE
            or vm_flags & (VM_LOCKED | VM_LOCKONFAULT) == VM_LOCKED
        ):
            await self.populate(start, start + size)
        return start

    def _check_anonymous(self, flags: int, vm_flags: int) -> int:
        """What MAP_ANONYMOUS goes with: `vm_flags` with what its kind adds, or SysError."""
        kind = flags & MAP_TYPE
        if kind == MAP_DROPPABLE:
            # Nobody has to take such memory away (mmap(2)): this host's is kept as long as any other.
            if vm_flags & (VM_LOCKED | VM_GROWSDOWN):
                raise SysError(errno.EINVAL)
            vm_flags |= VM_WIPEONFORK | VM_DONTDUMP | VM_NORESERVE
        elif kind not in (MAP_SHARED, MAP_PRIVATE) or (kind == MAP_SHARED and vm_flags & VM_GROWSDOWN):
            raise SysError(errno.EINVAL)
        if flags & MAP_HUGETLB:
            raise SysError(
                errno.ENOMEM if flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK in _HUGE_SIZES else errno.EINVAL
            )
        return vm_flags

    def _vm_flags(self, prot: int, flags: int) -> int:
        vm_flags = prot & PROT_RWX | VM_MAYALL | self.def_flags
        if flags & MAP_TYPE in (MAP_SHARED, MAP_SHARED_VALIDATE):
            vm_flags |= VM_SHARED
        if flags & MAP_GROWSDOWN:
            vm_flags |= VM_GROWSDOWN
        if flags & MAP_LOCKED:
            vm_flags |= VM_LOCKED
        # A strict limit counts everything that can be written, as vm.overcommit_memory=2 does.
        if flags & MAP_NORESERVE and not self.commit.limit:
            vm_flags |= VM_NORESERVE
        return vm_flags

    def _check_file(self, file: Any, prot: int, flags: int, vm_flags: int) -> int:
        """What the file's open mode allows: `vm_flags` with fewer VM_MAY bits, or SysError."""
        kind = flags & MAP_TYPE
        if kind in (MAP_SHARED, MAP_SHARED_VALIDATE):
            # With MAP_SYNC it is the file system that refuses MAP_SHARED; tmpfs doesn't care.
            if flags & ~MAP_KNOWN if kind == MAP_SHARED_VALIDATE else flags & MAP_SYNC and not file.in_memory:
                raise SysError(errno.EOPNOTSUPP)
            if not file.writable:
                if prot & PROT_WRITE:
                    raise SysError(errno.EACCES)
                vm_flags &= ~VM_MAYWRITE
        elif kind != MAP_PRIVATE:
            raise SysError(errno.EINVAL)
        if not file.readable:
            raise SysError(errno.EACCES)
        if file.path is not None and file.path.mount.flags & 8:  # MNT_NOEXEC
            if prot & PROT_EXEC:
                raise SysError(errno.EPERM)
            vm_flags &= ~VM_MAYEXEC
        if flags & MAP_HUGETLB or vm_flags & VM_GROWSDOWN:
            raise SysError(errno.EINVAL)
        if vm_flags & VM_SHARED and file.write_sealed:
            if prot & PROT_WRITE:
                raise SysError(errno.EPERM)
            vm_flags &= ~VM_MAYWRITE
        return vm_flags

    def _place(self, addr: int, size: int, flags: int) -> int:
        """Where a mapping goes (get_unmapped_area).  SysError(ENOMEM, EINVAL, EPERM, EEXIST)."""
        if flags & MAP_FIXED:
            if addr > GUEST_TOP - size:
                raise SysError(errno.ENOMEM)
            if addr & PAGE_MASK:
                raise SysError(errno.EINVAL)
            if addr < MMAP_MIN_ADDR:
                raise SysError(errno.EPERM)
            if flags & MAP_FIXED_NOREPLACE and self.tree.overlapping(addr, addr + size):
                raise SysError(errno.EEXIST)
            return addr
        anywhere = not addr
        addr &= ~PAGE_MASK
        if addr:
            addr = max(addr, MMAP_MIN_ADDR)
            top = LOW_END if flags & MAP_32BIT else GUEST_TOP
            if addr <= top - size and lib.mm_is_free(self.c, addr, addr + size):
                return addr
        found: int
        if flags & MAP_32BIT:
            found = lib.mm_find_low(self.c, size, LOW_BEGIN, LOW_END)
        elif anywhere and flags & (MAP_ANONYMOUS | MAP_TYPE) == MAP_ANONYMOUS | MAP_PRIVATE:
            found = lib.mm_find_anon(self.c, size)
        else:
            found = self.find_free(size)
        if not found:
            raise SysError(errno.ENOMEM)
        return found

    def find_free(self, size: int) -> int:
        """A free place for `size` bytes: below mmap_base, or else anywhere; 0 if there is none."""
        addr: int = lib.mm_find_free(self.c, size)
        return addr

    def map_at(
        self, start: int, size: int, flags: int, file: Any = None, offset: int = 0,
        host_fd: int | None = None, name: bytes = b"",
    ) -> None:  # fmt: skip
        """Make the mapping [start, start+size), replacing what is there.  SysError(ENOMEM…).

        Shared memory without a file becomes SharedAnonymous; otherwise `host_fd` stands for `file`.
        """
        if file is None and flags & VM_SHARED:
            file = SharedAnonymous(size, self.commit, self.owner)
            host_fd = file.host_fd
            try:
                self.book(start, size, flags, file, 0, name)
            finally:
                file.put()
        else:
            self.book(start, size, flags, file, offset, name)
        try:
            if host_fd is None:
                self.space.map_anon(start, size, flags & PROT_RWX, bool(flags & VM_NORESERVE))
            else:
                self.space.map_file(start, size, flags & PROT_RWX, bool(flags & VM_SHARED), host_fd, offset)
        except SysError:
            self.tree.remove(start, start + size)
            self.space.unmap(start, size)
            raise

    def _is_there(self, start: int, size: int, flags: int, file: Any, offset: int) -> bool:
        """Whether a mapping to be made shows what is there already, save its protection: so dynamic linkers
        make a library's segments, after having mapped all of it."""
        number = number_of(file)
        return not flags & VM_SHARED and bool(
            number and lib.mm_is_pristine(self.c, start, start + size, number, offset)
        )

    def _remake(self, start: int, size: int, flags: int, file: Any, offset: int) -> None:
        self.book(start, size, flags, file, offset)
        try:
            self.space.protect(start, size, flags & PROT_RWX)
        except SysError:
            self.tree.remove(start, start + size)
            self.space.unmap(start, size)
            raise

    def book(
        self, start: int, size: int, flags: int, file: Any = None, offset: int = 0, name: bytes = b""
    ) -> None:
        """Note down a mapping that replaces what is there, for the caller to make.  SysError(ENOMEM,
        EPERM)."""
        self.check_seal(start, start + size)
        if self.policies is not None:
            self.policies.forget(start, start + size)
        self.leave_code(start, start + size)
        if file is None and not name:
            result = lib.mm_map(self.c, start, start + size, flags, 0, 0, 0)
        else:
            number, called = take_number(file), take_number(name)
            result = lib.mm_map(self.c, start, start + size, flags, number, offset if number else 0, called)
            lib.mm_object_put(number)
            lib.mm_object_put(called)
        let_go()
        if result:
            self.check(result, size)

    async def populate(self, start: int, end: int) -> bool:
        """Fault in what is mapped of [start, end) and not only to be locked when it is touched (mm_populate):
        whether all of it is there now."""
        whole, left = True, PARTS
        while start < end:
            vma = self.tree.find(start)
            if vma is None or vma.start >= end:
                return False
            whole &= vma.start <= start
            start = max(start, vma.start)
            piece = min(vma.end, end, start + _POPULATE_STEP) - start
            if not vma.flags & (VM_LOCKONFAULT | VM_PFNMAP) and not self.fault_in(start, piece, vma.flags):
                whole = False
            start += piece
            left -= 1
            if start < end and (piece == _POPULATE_STEP or not left):
                left = PARTS
                await yield_now()
        return whole

    def fault_in(self, start: int, size: int, flags: int) -> bool:
        """Fault in pages of one mapping; whether the host could."""
        # What can only be written to can't be populated by reading.
        write = flags & (VM_WRITE | VM_SHARED) == VM_WRITE or flags & (VM_WRITE | VM_READ) == VM_WRITE
        try:
            self.space.advise(start, size, MADV_POPULATE_WRITE if write else MADV_POPULATE_READ)
        except SysError:
            return False
        return True

    def check_seal(self, start: int, end: int) -> None:
        """SysError(EPERM) if some of [start, end) is sealed (mseal(2))."""
        if self.c.state & lib.MM_SEALED and self.tree.flagged(start, end, VM_SEALED) is not None:
            raise SysError(errno.EPERM)

    def unmap(self, addr: int, size: int) -> None:
        """munmap(2)."""
        if addr & PAGE_MASK or addr > GUEST_TOP or size > GUEST_TOP - addr:
            raise SysError(errno.EINVAL)
        size = page_up(size)
        if size == 0:
            raise SysError(errno.EINVAL)
        self.check_seal(addr, addr + size)
        self.leave_code(addr, addr + size)
        if self.check(lib.mm_unmap(self.c, addr, addr + size)):
            if self.policies is not None:
                self.policies.forget(addr, addr + size)
            self.space.unmap(addr, size)
            let_go()
