"""What an address space is made of (struct mm_struct's fields), and the checks before it grows.

AddressState is the bottom of MemoryManager: state.py holds the fields and their bookkeeping,
mapping.py mmap and munmap, growth.py brk and stacks, manager.py users, fork and mprotect.
"""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi.core import FILTER_DEFAULT
from sentry.abi.errors import SysError
from sentry.abi.mman import (
    PAGE_MASK,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
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
    from sentry.mm.policy import Ranges
    from sentry.platform.base import AddressSpace


def page_up(size: int) -> int:
    return (size + PAGE_MASK) & ~PAGE_MASK


def no_limit(number: int) -> int:
    """Limits of nobody in particular."""
    return 8 << 20 if number == RLIMIT_STACK else RLIM_INFINITY


class _InC:
    """A field that stands in struct mm, where the engine sees it too."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, mm: AddressState, kind: object = None) -> int:
        value: int = getattr(mm.c, self.name)
        return value

    def __set__(self, mm: AddressState, value: int) -> None:
        setattr(mm.c, self.name, value)


class AddressState(GuestAccess):
    __slots__ = (
        "_layout", "_limit", "actor", "aio", "arg_end", "arg_start", "auxv", "c", "commit", "dump_filter",
        "end_code", "env_end", "env_start", "exe", "guards", "may_lock", "mdwe", "measured_ns", "membarriers",
        "multiprocess", "own_futexes", "owner", "patches", "peak_rss", "policies", "start_code",
        "start_stack", "tree", "users", "vdso",
    )  # fmt: skip

    #: Bytes mapped, in all and by kind (VmSize, VmData, VmStk, VmExe+VmLib, VmLck).
    total_vm = _InC("total_vm")
    data_vm = _InC("data_vm")
    stack_vm = _InC("stack_vm")
    exec_vm = _InC("exec_vm")
    locked_vm = _InC("locked_vm")
    #: The most that total_vm ever was (VmPeak).
    peak_vm = _InC("peak_vm")
    #: VM_LOCKED and the like for mappings to come (mlockall).
    def_flags = _InC("def_flags")
    start_data = _InC("start_data")
    end_data = _InC("end_data")
    start_brk = _InC("start_brk")
    brk = _InC("brk")
    #: First address above what mappings are placed in.
    top = _InC("top")

    def __init__(self, space: AddressSpace, commit: Commit, vdso: tuple[int, int, int] = (0, 0, 0)) -> None:
        """`vdso` is what Platform.vdso() says of every new address space."""
        self.space = space
        self.commit = commit
        self.vdso = vdso
        self.tree = VmaTree(commit.c)
        #: struct mm, the tree's.
        self.c = self.tree.c
        #: The patched call sites; None where the platform or the user wants none.
        self.patches: CodePatches | None = None
        #: Whether futexes are the kernel's here, even where the platform would host them.
        self.own_futexes = False
        #: What membarrier(2) was told to be ready for.
        self.membarriers = 0
        #: The most that was seen in memory (bytes), and when that was last looked at (sentry.mm.residence).
        self.peak_rss = self.measured_ns = 0
        #: Memory policies of mappings (mbind(2)).
        self.policies: Ranges | None = None
        #: Whether there may be guard pages that the tree knows nothing of (MADV_GUARD_INSTALL).
        self.guards = False
        #: How many tasks (and other holders) use it: `get`, `put`.
        self.users = 1
        self._limit: Callable[[int], int] = no_limit
        #: The thread group whose limits these are.
        self.actor: Any = None
        #: Whether the process that acts may exceed RLIMIT_MEMLOCK (CAP_IPC_LOCK).
        self.may_lock = False
        #: Its asynchronous I/O contexts (fs/aio.py), None while there never was one.
        self.aio: Any = None
        #: Name of the program, for messages.
        self.owner = b""
        #: The executable's File, which is kept open (/proc/PID/exe).
        self.exe: Any = None
        self.start_code = self.end_code = self.start_stack = 0
        self.arg_start = self.arg_end = self.env_start = self.env_end = 0
        #: PR_SET_MDWE.
        self.mdwe = 0
        #: Which mappings a core dump has (FILTER_*; /proc/PID/coredump_filter).
        self.dump_filter = FILTER_DEFAULT
        #: Other processes share it, or did, and not only by vfork(2).
        self.multiprocess = False
        self.auxv = b""
        self.top = GUEST_TOP
        if vdso[0]:
            self._insert_special(vdso)
        self.layout = Layout(self.top, no_limit(RLIMIT_STACK), False)

    def _insert_special(self, vdso: tuple[int, int, int]) -> None:
        vvar, code, end = vdso
        if end > GUEST_TOP:
            return
        self.top = min(vvar, code)
        flags = VM_MAYREAD | VM_DONTEXPAND | VM_READ
        for start, stop, name, more in (
            (vvar, code, b"[vvar]", VM_PFNMAP | VM_DONTDUMP),
            (code, end, b"[vdso]", VM_EXEC | VM_MAYEXEC | VM_MAYWRITE),
        ):
            if start < stop:
                self.tree.insert(Vma(start, stop, flags | more, name=name))

    @property
    def limit(self) -> Callable[[int], int]:
        """RLIMIT number → bytes, of the process that acts."""
        return self._limit

    @limit.setter
    def limit(self, limit: Callable[[int], int]) -> None:
        self._limit = limit
        self.c.limit_as, self.c.limit_data = limit(RLIMIT_AS), limit(RLIMIT_DATA)

    def act_for(self, group: Any) -> None:
        """The limits of the thread group `group` count from now on, or have changed."""
        self.actor = group
        self.limit = group.limit

    @property
    def layout(self) -> Layout:
        return self._layout

    @layout.setter
    def layout(self, layout: Layout) -> None:
        self._layout = layout
        self.c.mmap_base = layout.mmap_base

    def check(self, result: int, size: int = 0) -> int:
        """The result of a call of csrc/engine/mm.c that wanted `size` bytes more; SysError."""
        if result < 0:
            if result == lib.MM_REFUSED:
                self.commit.refuse(size, self.owner)
            raise SysError(-result)
        return result

    def leave_code(self, start: int, end: int, gone: bool = True) -> None:
        """Code in [start, end), if there is any, is about to change: see CodePatches.withdraw."""
        if self.patches is not None:
            self.patches.withdraw(start, end, gone)

    def check_expand(self, flags: int, size: int) -> None:
        """SysError(ENOMEM) if `size` bytes more with `flags` would pass RLIMIT_AS or RLIMIT_DATA."""
        self.check(lib.mm_check_expand(self.c, flags, size))

    def check_lock(self, flags: int, size: int) -> None:
        """SysError(EAGAIN) if `size` bytes more, locked if `flags` say so, pass RLIMIT_MEMLOCK."""
        if flags & VM_LOCKED and not self.may_lock and self.locked_vm + size > self.limit(RLIMIT_MEMLOCK):
            raise SysError(errno.EAGAIN)

    def check_count(self, more: int = 1) -> None:
        """SysError(ENOMEM) if `more` further mappings would be too many."""
        if len(self.tree) + more > self.commit.max_maps:
            raise SysError(errno.ENOMEM)

    def find(self, addr: int) -> Vma | None:
        """The mapping that contains `addr`."""
        return self.tree.at(addr)

    def shared_backing(self, addr: int) -> tuple[int, int] | None:
        """What identifies a shared byte in every address space: (its memory, offset); None: private."""
        if not self.tree.flags_at(addr) & VM_SHARED:
            return None
        vma = self.tree.at(addr)
        if vma is None or vma.file is None:
            return None
        inode = vma.file.inode
        return id(vma.file if inode is None else inode), vma.offset_of(addr)
