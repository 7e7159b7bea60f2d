"""Memory: mmap and its family."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_IPC_LOCK, CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.mman import (
    MADV_HWPOISON,
    MADV_SOFT_OFFLINE,
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
from sentry.kernel.wait import yield_now
from sentry.mm import advise
from sentry.mm.remap import remap, remap_pages
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.syscalls.args import Addr, Fd, Flags, Int, Size, ULong

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


@syscall(SYS.mremap)
async def mremap(task: Task, addr: Addr, old_size: Size, new_size: Size, flags: ULong, new_addr: Addr) -> int:
    """mremap(2)."""
    return await remap(acting(task), addr, old_size, new_size, flags, new_addr)


@syscall(
    SYS.madvise,
    partial="hints (WILLNEED, COLD, PAGEOUT) are accepted and ignored; no MADV_MERGEABLE, MADV_HWPOISON",
)
def madvise(task: Task, addr: Addr, length: Size, advice: Int) -> None:
    """madvise(2)."""
    if advice in (MADV_HWPOISON, MADV_SOFT_OFFLINE) and not task.cred.capable(CAP_SYS_ADMIN):
        raise SysError(errno.EPERM)
    advise.advise(acting(task), addr, length, advice)


@syscall(SYS.msync)
async def msync(task: Task, addr: Addr, length: Size, flags: Flags) -> None:
    """msync(2)."""
    await advise.sync(task.mm, addr, length, flags)


@syscall(SYS.mincore, partial="all pages of a file of the host's count as resident")
async def mincore(task: Task, addr: Addr, length: Size, vec: Addr) -> None:
    """mincore(2)."""
    for piece in advise.resident(task.mm, addr, length):
        task.mm.write(vec, piece)
        vec += len(piece)
        if len(piece) >= advise.RESIDENT_STEP:
            await yield_now()


@syscall(SYS.mlock)
async def mlock(task: Task, addr: Addr, length: Size) -> None:
    """mlock(2)."""
    await advise.lock(acting(task), addr, length, 0)


@syscall(SYS.mlock2)
async def mlock2(task: Task, addr: Addr, length: Size, flags: Flags) -> None:
    """mlock2(2)."""
    await advise.lock(acting(task), addr, length, flags)


@syscall(SYS.munlock)
def munlock(task: Task, addr: Addr, length: Size) -> None:
    """munlock(2)."""
    advise.unlock(acting(task), addr, length)


@syscall(SYS.mlockall)
async def mlockall(task: Task, flags: Flags) -> None:
    """mlockall(2)."""
    await advise.lock_all(acting(task), flags)


@syscall(SYS.munlockall)
def munlockall(task: Task) -> None:
    """munlockall(2)."""
    advise.unlock_all(acting(task))


@syscall(SYS.mseal)
def mseal(task: Task, addr: Addr, length: Size, flags: ULong) -> None:
    """mseal(2)."""
    advise.seal(task.mm, addr, length, flags)


@syscall(SYS.remap_file_pages)
async def remap_file_pages(
    task: Task, addr: Addr, size: Size, prot: ULong, page: ULong, flags: ULong
) -> None:
    """remap_file_pages(2)."""
    await remap_pages(acting(task), addr, size, prot, page, flags)


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
