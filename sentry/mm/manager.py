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
    MAP_32BIT,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_HUGETLB,
    MAP_KNOWN,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_TYPE,
    MAX_MAP_COUNT,
    MMAP_MIN_ADDR,
    PAGE_MASK,
    PAGE_SIZE,
    PROT_EXEC,
    PROT_GROWSDOWN,
    PROT_GROWSUP,
    PROT_RWX,
    PROT_SEM,
    PROT_WRITE,
    RLIM_INFINITY,
    RLIMIT_AS,
    RLIMIT_DATA,
    RLIMIT_MEMLOCK,
    RLIMIT_STACK,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYALL,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_WIPEONFORK,
    VM_WRITE,
)
from sentry.mm.access import GuestAccess
from sentry.mm.layout import LOW_BEGIN, LOW_END, STACK_GUARD, Layout, find_free, is_free, search_up
from sentry.mm.shared import SharedAnonymous
from sentry.mm.vma import Vma, VmaTree
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.mm.commit import Commit
    from sentry.platform.base import AddressSpace, Thread

#: A stack grows by at least this much, to save faults.
_STACK_STEP = 128 * 1024
#: MAP_POPULATE beyond this is left to the faults.
_POPULATE_LIMIT = 64 << 20
_MADV_POPULATE_READ, _MADV_POPULATE_WRITE = 22, 23
_U64 = 1 << 64


def page_up(size: int) -> int:
    return (size + PAGE_MASK) & ~PAGE_MASK


def no_limit(number: int) -> int:
    """Limits of nobody in particular."""
    return 8 << 20 if number == RLIMIT_STACK else RLIM_INFINITY


class MemoryManager(GuestAccess):
    __slots__ = (
        "arg_end",
        "arg_start",
        "auxv",
        "brk",
        "commit",
        "data_vm",
        "def_flags",
        "end_code",
        "end_data",
        "env_end",
        "env_start",
        "exe",
        "exec_vm",
        "layout",
        "limit",
        "locked_vm",
        "may_lock",
        "owner",
        "stack_vm",
        "start_brk",
        "start_code",
        "start_data",
        "start_stack",
        "top",
        "total_vm",
        "tree",
        "users",
        "vdso",
    )  # fmt: skip

    def __init__(self, space: AddressSpace, commit: Commit, vdso: tuple[int, int, int] = (0, 0, 0)) -> None:
        """`vdso` is what Platform.vdso() says of every new address space."""
        self.space = space
        self.commit = commit
        self.vdso = vdso
        self.tree = VmaTree()
        #: How many tasks (and other holders) use it: `get`, `put`.
        self.users = 1
        self.limit: Callable[[int], int] = no_limit
        #: Whether the process that acts may exceed RLIMIT_MEMLOCK (CAP_IPC_LOCK).
        self.may_lock = False
        #: Name of the program, for messages.
        self.owner = b""
        #: The executable's File, which is kept open (/proc/PID/exe).
        self.exe: Any = None
        #: Bytes mapped, in all and by kind (VmSize, VmData, VmStk, VmExe+VmLib, VmLck).
        self.total_vm = self.data_vm = self.stack_vm = self.exec_vm = self.locked_vm = 0
        #: VM_LOCKED and the like for mappings to come (mlockall).
        self.def_flags = 0
        self.start_code = self.end_code = self.start_data = self.end_data = 0
        self.start_brk = self.brk = self.start_stack = 0
        self.arg_start = self.arg_end = self.env_start = self.env_end = 0
        self.auxv = b""
        #: First address above what mappings are placed in.
        self.top = GUEST_TOP
        if vdso[0]:
            self._insert_special(vdso)
        self.layout = Layout(self.top, no_limit(RLIMIT_STACK), False)

    def _insert_special(self, vdso: tuple[int, int, int]) -> None:
        vvar, code, end = vdso
        if end > GUEST_TOP:
            return
        self.top = min(vvar, code)
        flags = VM_MAYREAD | VM_DONTEXPAND | VM_DONTDUMP | VM_READ
        for start, stop, name, more in (
            (vvar, code, b"[vvar]", VM_PFNMAP),
            (code, end, b"[vdso]", VM_EXEC | VM_MAYEXEC | VM_MAYWRITE),
        ):
            if start < stop:
                vma = Vma(start, stop, flags | more, name=name)
                self._count(vma.flags, vma.size)
                self.tree.insert(vma)

    # Users

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
        for name in MemoryManager.__slots__:
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
        copies = []
        for vma in inherited:
            if vma.file is not None:
                vma.file.get()
            flags = vma.flags & ~(VM_LOCKED | VM_LOCKONFAULT)
            copies.append(Vma(vma.start, vma.end, flags, vma.file, vma.offset, vma.name))
        child.tree.fill(copies)
        try:
            for vma in self.tree:
                if vma.flags & VM_DONTCOPY:
                    child.space.unmap(vma.start, vma.size)
                elif vma.flags & VM_WIPEONFORK:
                    child.space.map_anon(vma.start, vma.size, vma.prot)
        except SysError:
            child.put()
            raise
        return child, child_thread

    # Bookkeeping

    def _count(self, flags: int, size: int) -> None:
        """`size` (maybe negative) bytes more are mapped with `flags`."""
        self.total_vm += size
        if flags & VM_GROWSDOWN:
            self.stack_vm += size
        elif flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
            self.data_vm += size
        elif flags & (VM_WRITE | VM_EXEC) == VM_EXEC:
            self.exec_vm += size
        if flags & VM_LOCKED:
            self.locked_vm += size

    def _forget(self, vma: Vma) -> None:
        """`vma` has left the tree."""
        size = vma.size
        self._count(vma.flags, -size)
        if vma.flags & VM_ACCOUNT:
            self.commit.uncharge(size)
        if vma.file is not None:
            vma.file.put()

    def check_expand(self, flags: int, size: int) -> None:
        """SysError(ENOMEM) if `size` bytes more with `flags` would pass RLIMIT_AS or RLIMIT_DATA."""
        limit = self.limit
        if self.total_vm + size > limit(RLIMIT_AS):
            raise SysError(errno.ENOMEM)
        if (
            flags & (VM_WRITE | VM_SHARED | VM_GROWSDOWN) == VM_WRITE
            and self.data_vm + size > self._data_limit()
        ):  # fmt: skip
            raise SysError(errno.ENOMEM)

    def _data_limit(self) -> int:
        """RLIMIT_DATA for mappings, where 0 means none (a courtesy of Linux to valgrind); brk takes it
        at its word."""
        return self.limit(RLIMIT_DATA) or RLIM_INFINITY

    def check_lock(self, flags: int, size: int) -> None:
        """SysError(EAGAIN) if `size` bytes more, locked if `flags` say so, pass RLIMIT_MEMLOCK."""
        if flags & VM_LOCKED and not self.may_lock and self.locked_vm + size > self.limit(RLIMIT_MEMLOCK):
            raise SysError(errno.EAGAIN)

    def check_count(self, more: int = 1) -> None:
        """SysError(ENOMEM) if `more` further mappings would be too many."""
        if len(self.tree) + more > MAX_MAP_COUNT:
            raise SysError(errno.ENOMEM)

    def find(self, addr: int) -> Vma | None:
        """The mapping that contains `addr`."""
        return self.tree.at(addr)

    def shared_backing(self, addr: int) -> tuple[int, int] | None:
        """What identifies a shared byte in every address space: (its memory, offset); None: private."""
        vma = self.tree.at(addr)
        if vma is None or not vma.flags & VM_SHARED or vma.file is None:
            return None
        inode = vma.file.inode
        return id(vma.file if inode is None else inode), vma.offset_of(addr)

    # mmap

    async def map(
        self, addr: int, size: int, prot: int, flags: int, file: Any = None, offset: int = 0
    ) -> int:
        """mmap(2): the address of the new mapping.

        `file` is None with MAP_ANONYMOUS; the mapping takes a reference of its own.  `offset` is page aligned.
        """
        if size == 0:
            raise SysError(errno.EINVAL)
        size = page_up(size)
        if not 0 < size <= GUEST_TOP:
            raise SysError(errno.ENOMEM)
        if offset + size > _U64:
            raise SysError(errno.EOVERFLOW)
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
            vm_flags = self._check_file(file, prot, flags, vm_flags)
            shared = bool(vm_flags & VM_SHARED)
            host_fd = await file.host_mapping(shared, shared and bool(vm_flags & VM_MAYWRITE))
            start = self._place(addr, size, flags)
            if host_fd is None:
                file = None
        elif flags & MAP_TYPE not in (MAP_SHARED, MAP_PRIVATE) or (
            flags & MAP_TYPE == MAP_SHARED and vm_flags & VM_GROWSDOWN
        ):
            raise SysError(errno.EINVAL)
        elif flags & MAP_HUGETLB:
            raise SysError(errno.ENOMEM)
        self.map_at(start, size, vm_flags, file, offset, host_fd)
        if flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE or vm_flags & (VM_LOCKED | VM_LOCKONFAULT) == VM_LOCKED:
            self.populate(start, size, vm_flags)
        return start

    def _vm_flags(self, prot: int, flags: int) -> int:
        vm_flags = prot & PROT_RWX | VM_MAYALL | self.def_flags
        if flags & MAP_TYPE in (MAP_SHARED, MAP_SHARED_VALIDATE):
            vm_flags |= VM_SHARED
        if flags & MAP_GROWSDOWN:
            vm_flags |= VM_GROWSDOWN
        if flags & MAP_LOCKED:
            vm_flags |= VM_LOCKED
        if flags & MAP_NORESERVE:
            vm_flags |= VM_NORESERVE
        return vm_flags

    def _check_file(self, file: Any, prot: int, flags: int, vm_flags: int) -> int:
        """What the file's open mode allows: `vm_flags` with fewer VM_MAY bits, or SysError."""
        kind = flags & MAP_TYPE
        if kind in (MAP_SHARED, MAP_SHARED_VALIDATE):
            if kind == MAP_SHARED_VALIDATE and flags & ~MAP_KNOWN:
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
        addr &= ~PAGE_MASK
        if addr:
            addr = max(addr, MMAP_MIN_ADDR)
            top = LOW_END if flags & MAP_32BIT else GUEST_TOP
            if addr <= top - size and is_free(self.tree, addr, addr + size):
                return addr
        if flags & MAP_32BIT:
            found = search_up(self.tree, size, LOW_BEGIN, LOW_END)
        else:
            found = self.find_free(size)
        if found is None:
            raise SysError(errno.ENOMEM)
        return found

    def find_free(self, size: int) -> int | None:
        """A free place for `size` bytes."""
        return find_free(self.tree, size, self.layout.mmap_base, self.top)

    def map_at(
        self, start: int, size: int, flags: int, file: Any = None, offset: int = 0, host_fd: int | None = None,
        name: bytes = b"",
    ) -> Vma:  # fmt: skip
        """Make the mapping [start, start+size), replacing what is there.  SysError(ENOMEM…).

        Shared memory without a file becomes SharedAnonymous; otherwise `host_fd` stands for `file`.
        """
        tree = self.tree
        end = start + size
        replaced = sum(min(v.end, end) - max(v.start, start) for v in tree.overlapping(start, end))
        self.check_expand(flags, size - replaced if size > replaced else 0)
        self.check_count(1 + tree.splits(start, end))
        reserve = not flags & VM_NORESERVE
        if file is None and flags & VM_SHARED:
            file = SharedAnonymous(size, self.commit, reserve, self.owner)
            host_fd, offset = file.host_fd, 0
        else:
            if reserve and flags & (VM_SHARED | VM_WRITE) == VM_WRITE:
                self.commit.charge(size, self.owner)
                flags |= VM_ACCOUNT
            if file is not None:
                file.get()
        vma = Vma(start, end, flags, file, offset, name)
        self._count(flags, size)
        for old in tree.remove(start, end):
            self._forget(old)
        try:
            if host_fd is None:
                self.space.map_anon(start, size, flags & PROT_RWX, not reserve)
            else:
                self.space.map_file(start, size, flags & PROT_RWX, bool(flags & VM_SHARED), host_fd, offset)
        except SysError:
            self._forget(vma)
            self.space.unmap(start, size)
            raise
        return tree.insert(vma)

    def populate(self, start: int, size: int, flags: int) -> None:
        """Fault pages in, as a kindness: errors don't matter."""
        if size > _POPULATE_LIMIT or not flags & PROT_RWX:
            return
        write = flags & (VM_WRITE | VM_SHARED) == VM_WRITE
        try:
            self.space.advise(start, size, _MADV_POPULATE_WRITE if write else _MADV_POPULATE_READ)
        except SysError:
            pass

    # munmap and mprotect

    def unmap(self, addr: int, size: int) -> None:
        """munmap(2)."""
        if addr & PAGE_MASK or addr > GUEST_TOP or size > GUEST_TOP - addr:
            raise SysError(errno.EINVAL)
        size = page_up(size)
        if size == 0:
            raise SysError(errno.EINVAL)
        tree = self.tree
        if tree.splits(addr, addr + size):
            self.check_count()
        removed = tree.remove(addr, addr + size)
        if removed:
            self.space.unmap(addr, size)
            for vma in removed:
                self._forget(vma)

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

    # brk and stacks

    def set_brk(self, addr: int) -> int:
        """brk(2): the new program break, or the old one if `addr` can't be it."""
        old = self.brk
        if addr < self.start_brk or addr >= GUEST_TOP:
            return old
        if addr - self.start_brk + self.end_data - self.start_data > self.limit(RLIMIT_DATA):
            return old
        old_end, end = page_up(old), page_up(addr)
        if end < old_end:
            self.unmap(end, old_end - end)
        elif end > old_end:
            flags = VM_READ | VM_WRITE | VM_MAYALL | self.def_flags
            if not is_free(self.tree, old_end, end + PAGE_SIZE):
                return old
            try:
                self.check_lock(flags, end - old_end)
                self.map_at(old_end, end - old_end, flags)
            except SysError:
                return old
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
            return not error & 1 and bool(vma.flags & (VM_WRITE if error & 2 else VM_READ))
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
        for begin in (generous, start):
            if begin <= start and self._grow(vma, begin):
                return True
        return False

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
        self._count(vma.flags, size)
        self.tree.extend_down(vma, start)
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
