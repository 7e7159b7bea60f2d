"""Memory: mmap and its family, memory of other processes."""

from __future__ import annotations

import errno
from _struct import iter_unpack

from sentry.abi.capability import CAP_IPC_LOCK, CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.fcntl import IOV_MAX, MAX_RW_COUNT
from sentry.abi.mman import MAP_ANONYMOUS, MAP_HUGETLB, PAGE_MASK
from sentry.abi.syscall_nr import SYS
from sentry.fs.proc.access import may_access
from sentry.mm import advise
from sentry.mm.remap import remap
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.syscalls.args import Addr, Fd, Flags, Int, Size, UInt, ULong

_COPY_PIECE = 1 << 20


def acting(task: Task) -> MemoryManager:
    """The task's memory, told whose limits count."""
    mm = task.mm
    if mm.actor is not task.group:
        mm.act_for(task.group)
    mm.may_lock = task.cred.capable(CAP_IPC_LOCK)
    return mm


@syscall(SYS.mmap, partial="MAP_HUGETLB memory is never available (ENOMEM); MAP_SYNC is refused")
async def mmap(task: Task, addr: Addr, length: Size, prot: ULong, flags: ULong, fd: Fd, offset: ULong) -> int:
    """mmap(2)."""
    if offset & PAGE_MASK:
        raise SysError(errno.EINVAL)
    mm = acting(task)
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
    acting(task).protect(addr, length, prot)


@syscall(SYS.brk)
def brk(task: Task, addr: Addr) -> int:
    """brk(2): the system call's own convention, the break that holds now."""
    return acting(task).set_brk(addr)


@syscall(SYS.mremap)
async def mremap(task: Task, addr: Addr, old_size: Size, new_size: Size, flags: ULong, new_addr: Addr) -> int:
    """mremap(2)."""
    return await remap(acting(task), addr, old_size, new_size, flags, new_addr)


@syscall(SYS.madvise, partial="hints are accepted and ignored; no MADV_COLLAPSE, MADV_GUARD_INSTALL")
def madvise(task: Task, addr: Addr, length: Size, advice: Int) -> None:
    """madvise(2)."""
    if advice in (100, 101) and not task.cred.capable(CAP_SYS_ADMIN):
        raise SysError(errno.EPERM)
    advise.advise(acting(task), addr, length, advice)


@syscall(SYS.msync)
async def msync(task: Task, addr: Addr, length: Size, flags: Flags) -> None:
    """msync(2)."""
    await advise.sync(task.mm, addr, length, flags)


@syscall(SYS.mincore, partial="every mapped page counts as resident")
def mincore(task: Task, addr: Addr, length: Size, vec: Addr) -> None:
    """mincore(2)."""
    pages = advise.resident(task.mm, addr, length)
    while pages:
        step = min(pages, _COPY_PIECE)
        task.mm.write(vec, b"\1" * step)
        vec += step
        pages -= step


@syscall(SYS.mlock)
def mlock(task: Task, addr: Addr, length: Size) -> None:
    """mlock(2)."""
    advise.lock(acting(task), addr, length, 0)


@syscall(SYS.mlock2)
def mlock2(task: Task, addr: Addr, length: Size, flags: Flags) -> None:
    """mlock2(2)."""
    advise.lock(acting(task), addr, length, flags)


@syscall(SYS.munlock)
def munlock(task: Task, addr: Addr, length: Size) -> None:
    """munlock(2)."""
    advise.unlock(acting(task), addr, length)


@syscall(SYS.mlockall)
def mlockall(task: Task, flags: Flags) -> None:
    """mlockall(2)."""
    advise.lock_all(acting(task), flags)


@syscall(SYS.munlockall)
def munlockall(task: Task) -> None:
    """munlockall(2)."""
    advise.unlock_all(acting(task))


@syscall(SYS.membarrier, partial="MEMBARRIER_CMD_QUERY, which answers that there is no other command")
def membarrier(task: Task, command: Int, flags: UInt, cpu: Int) -> int:
    """membarrier(2): a barrier would have to run on every CPU that a guest thread is on."""
    if flags or command:
        raise SysError(errno.EINVAL)
    return 0


def _read_iovec(mm: MemoryManager, addr: int, count: int) -> list[tuple[int, int]]:
    """An iovec array, cut to MAX_RW_COUNT bytes in all.  SysError(EINVAL, EFAULT)."""
    if count > IOV_MAX:
        raise SysError(errno.EINVAL)
    pairs = list(iter_unpack("<QQ", mm.read(addr, 16 * count)))
    if any(size >= 1 << 63 for _, size in pairs):
        raise SysError(errno.EINVAL)
    room = MAX_RW_COUNT
    result = []
    for base, size in pairs:
        result.append((base, min(size, room)))
        room -= min(size, room)
    return result


def _pieces(local: list[tuple[int, int]], remote: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """(local address, remote address, size) of runs that lie in one element of either array."""
    i = j = skip_local = skip_remote = 0
    while i < len(local) and j < len(remote):
        size = min(local[i][1] - skip_local, remote[j][1] - skip_remote, _COPY_PIECE)
        if size:
            yield local[i][0] + skip_local, remote[j][0] + skip_remote, size
        skip_local += size
        skip_remote += size
        if skip_local == local[i][1]:
            i, skip_local = i + 1, 0
        if skip_remote == remote[j][1]:
            j, skip_remote = j + 1, 0


def _process_vm(
    task: Task,
    pid: int,
    local_iov: int,
    local_count: int,
    remote_iov: int,
    remote_count: int,
    flags: int,
    write: bool,
) -> int:
    if flags:
        raise SysError(errno.EINVAL)
    local = _read_iovec(task.mm, local_iov, local_count)
    remote = _read_iovec(task.mm, remote_iov, remote_count)
    if not any(size for _, size in local):
        return 0
    target = task.find_task(pid)
    if target is None or target.mm is None:
        raise SysError(errno.ESRCH)
    if not may_access(task, task.cred, target, real=True):
        raise SysError(errno.EPERM)
    done = 0
    for here, there, size in _pieces(local, remote):
        try:
            if write:
                copied = target.mm.write_upto(there, task.mm.read_upto(here, size))
            else:
                copied = task.mm.write_upto(here, target.mm.read_upto(there, size))
        except SysError:
            if not done:
                raise
            break
        done += copied
        if copied < size:
            break
    return done


@syscall(SYS.process_vm_readv)
def process_vm_readv(
    task: Task, pid: Int, local_iov: Addr, local_count: ULong, remote_iov: Addr, remote_count: ULong,
    flags: ULong,
) -> int:  # fmt: skip
    """process_vm_readv(2)."""
    return _process_vm(task, pid, local_iov, local_count, remote_iov, remote_count, flags, False)


@syscall(SYS.process_vm_writev)
def process_vm_writev(
    task: Task, pid: Int, local_iov: Addr, local_count: ULong, remote_iov: Addr, remote_count: ULong,
    flags: ULong,
) -> int:  # fmt: skip
    """process_vm_writev(2)."""
    return _process_vm(task, pid, local_iov, local_count, remote_iov, remote_count, flags, True)
