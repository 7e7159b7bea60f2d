"""Memory that is mapped already: moved, advised upon, locked, written back."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.mman import MADV_HWPOISON, MADV_SOFT_OFFLINE
from sentry.abi.syscall_nr import SYS
from sentry.kernel.wait import PARTS, yield_now
from sentry.mm import advise
from sentry.mm.remap import remap, remap_pages
from sentry.syscalls.memory import acting
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Flags, Int, Size, ULong


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
    for count, piece in enumerate(advise.resident(task.mm, addr, length), 1):
        task.mm.write(vec, piece)
        vec += len(piece)
        if len(piece) >= advise.RESIDENT_STEP or not count % PARTS:
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
