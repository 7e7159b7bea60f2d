"""What an address space is made of (struct mm_struct's fields), and the checks before it grows.

AddressState is the bottom of MemoryManager: state.py holds the fields and their bookkeeping,
mapping.py mmap and munmap, growth.py brk and stacks, manager.py users, fork and mprotect.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.mman import (
    MAX_MAP_COUNT,
    PAGE_MASK,
    VM_ACCOUNT,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from sentry.abi.resource import RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK
from sentry.mm.access import GuestAccess
from sentry.mm.layout import Layout
from sentry.mm.vma import Vma, VmaTree
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.mm.commit import Commit
    from sentry.mm.patch import CodePatches
    from sentry.platform.base import AddressSpace


def page_up(size: int) -> int:
    return (size + PAGE_MASK) & ~PAGE_MASK


def no_limit(number: int) -> int:
    """Limits of nobody in particular."""
    return 8 << 20 if number == RLIMIT_STACK else RLIM_INFINITY


class AddressState(GuestAccess):
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
        "patches",
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
        #: The patched call sites; None where the platform or the user wants none.
        self.patches: CodePatches | None = None
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

    def leave_code(self, start: int, end: int, vmas: list[Vma], gone: bool = True) -> None:
        """Code among `vmas`, which make up [start, end), is about to change: see CodePatches.withdraw."""
        if self.patches is not None:
            for vma in vmas:
                if vma.flags & VM_EXEC:
                    self.patches.withdraw(start, end, gone)
                    return

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


#: Everything that fork copies.
FIELDS = ("space", *AddressState.__slots__)
