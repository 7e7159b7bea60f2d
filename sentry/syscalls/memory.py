"""Memory: what maps it.  Calls about memory that is there are in pages.py."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_IPC_LOCK
from sentry.abi.errors import SysError
from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_HUGETLB,
    PAGE_MASK,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    USER_END,
)
from sentry.abi.syscall_nr import SYS
from sentry.kernel.sched import READ_IMPLIES_EXEC
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.syscalls.args import Addr, Fd, Int, Size, ULong

PKEY_DISABLE = 3
NO_PKEYS = "no protection keys, as on a CPU without them: ENOSPC"


def acting(task: Task) -> MemoryManager:
    """The task's memory, told whose limits count."""
    mm = task.mm
    if mm.actor is not task.group:
        mm.act_for(task.group)
    mm.may_lock = task.cred.capable(CAP_IPC_LOCK)
    return mm


def _as_personality(task: Task, prot: int) -> int:
    """What is readable can be executed, too, for programs that count on it (personality(2))."""
    return prot | PROT_EXEC if prot & PROT_READ and task.sched.personality & READ_IMPLIES_EXEC else prot


def _refuse_gain(mm: MemoryManager, addr: int, length: int, prot: int) -> None:
    """SysError(EACCES) where PR_SET_MDWE forbids: code that can be written, or that was none before
    (map_deny_write_exec())."""
    end = min(addr + length, USER_END)
    while addr < end:
        vma = mm.tree.find(addr)
        if vma is None or vma.start >= end:
            return
        if prot & PROT_WRITE or not vma.prot & PROT_EXEC:
            raise SysError(errno.EACCES)
        addr = vma.end


@syscall(SYS.mmap, partial="MAP_HUGETLB memory is never available (ENOMEM); MAP_SYNC is refused")
async def mmap(task: Task, addr: Addr, length: Size, prot: ULong, flags: ULong, fd: Fd, offset: ULong) -> int:
    """mmap(2)."""
    if offset & PAGE_MASK:
        raise SysError(errno.EINVAL)
    mm = acting(task)
    if task.forced:
        prot = _as_personality(task, prot)
        if mm.mdwe and prot & (PROT_WRITE | PROT_EXEC) == PROT_WRITE | PROT_EXEC:
            raise SysError(errno.EACCES)
    if flags & MAP_ANONYMOUS:
        return await mm.map(addr, length, prot, flags)
    file = task.files.get(fd)
    if flags & MAP_HUGETLB:
        raise SysError(errno.EINVAL)
    file.get()
    try:
        return await mm.map(addr, length, prot, flags & ~MAP_ANONYMOUS, file, offset)
    finally:
        file.put()


@syscall(SYS.munmap)
def munmap(task: Task, addr: Addr, length: Size) -> None:
    """munmap(2)."""
    acting(task).unmap(addr, length)


@syscall(SYS.mprotect)
def mprotect(task: Task, addr: Addr, length: Size, prot: ULong) -> None:
    """mprotect(2)."""
    mm = acting(task)
    if task.forced:
        prot = _as_personality(task, prot)
        if mm.mdwe and prot & PROT_EXEC:
            _refuse_gain(mm, addr, length, prot)
    mm.protect(addr, length, prot)


@syscall(SYS.brk)
def brk(task: Task, addr: Addr) -> int:
    """brk(2): the system call's own convention, the break that holds now."""
    return acting(task).set_brk(addr)


@syscall(SYS.pkey_alloc, partial=NO_PKEYS)
def pkey_alloc(task: Task, flags: ULong, rights: ULong) -> None:
    """pkey_alloc(2)."""
    if flags or rights & ~PKEY_DISABLE:
        raise SysError(errno.EINVAL)
    raise SysError(errno.ENOSPC)


@syscall(SYS.pkey_free, partial=NO_PKEYS)
def pkey_free(task: Task, key: Int) -> None:
    """pkey_free(2): no key is allocated."""
    raise SysError(errno.EINVAL)


@syscall(SYS.pkey_mprotect, partial=NO_PKEYS)
def pkey_mprotect(task: Task, addr: Addr, length: Size, prot: ULong, key: Int) -> None:
    """pkey_mprotect(2)."""
    acting(task).protect(addr, length, prot, key == -1)
