"""Memory of other processes: copying it, advice about it, where its pages are."""

from __future__ import annotations

import errno
from _struct import iter_unpack, pack

from sentry.abi.capability import CAP_SYS_NICE
from sentry.abi.errors import SysError
from sentry.abi.fcntl import IOV_MAX, MAX_RW_COUNT
from sentry.abi.mman import MADV_COLD, MADV_COLLAPSE, MADV_PAGEOUT, MADV_WILLNEED, PAGE_MASK
from sentry.abi.numa import MPOL_MF_MOVE, MPOL_MF_MOVE_ALL
from sentry.abi.syscall_nr import SYS
from sentry.fs.pidfd import PidFile
from sentry.fs.proc.access import may_access
from sentry.kernel.wait import yield_now
from sentry.mm.advise import advise
from sentry.mm.policy import NODES
from sentry.syscalls.numa import read_nodes
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.syscalls.args import Addr, Fd, Flags, Int, Size, UInt, ULong

_COPY_PIECE = 1 << 20
#: Bytes after which others may run on.
_COPY_TURN = 16 << 20
#: PIDFD_SELF_THREAD and PIDFD_SELF_THREAD_GROUP.
_SELF = (-10000, -10001)
#: What may be advised for another process.
_REMOTE = (MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED, MADV_COLLAPSE)
#: Pages that move_pages(2) looks at before others may run on.
_PAGES_STEP = 4096


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


def _owner(task: Task, pid: int) -> Task:
    """The task `pid`, whose memory `task` may look into.  SysError(ESRCH, EPERM)."""
    target = task.find_task(pid)
    if target is None or target.mm is None:
        raise SysError(errno.ESRCH)
    if not may_access(task, task.cred, target, real=True):
        raise SysError(errno.EPERM)
    return target


async def _process_vm(
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
    if not any(size for _, size in local):
        return 0
    remote = _read_iovec(task.mm, remote_iov, remote_count)
    if not any(size for _, size in remote):
        return 0
    target = _owner(task, pid)
    there_mm = target.mm
    done = turn = 0
    for here, there, size in _pieces(local, remote):
        try:
            if write:
                copied = there_mm.write_upto(there, task.mm.read_upto(here, size))
            else:
                copied = task.mm.write_upto(here, there_mm.read_upto(there, size))
        except SysError:
            if not done:
                raise
            break
        done += copied
        if copied < size:
            break
        turn += size
        if turn >= _COPY_TURN:
            turn = 0
            await yield_now()
            if task.kill_pending() or target.mm is not there_mm:
                break
    return done


@syscall(SYS.process_vm_readv)
async def process_vm_readv(
    task: Task, pid: Int, local_iov: Addr, local_count: ULong, remote_iov: Addr, remote_count: ULong,
    flags: ULong,
) -> int:  # fmt: skip
    """process_vm_readv(2)."""
    return await _process_vm(task, pid, local_iov, local_count, remote_iov, remote_count, flags, False)


@syscall(SYS.process_vm_writev)
async def process_vm_writev(
    task: Task, pid: Int, local_iov: Addr, local_count: ULong, remote_iov: Addr, remote_count: ULong,
    flags: ULong,
) -> int:  # fmt: skip
    """process_vm_writev(2)."""
    return await _process_vm(task, pid, local_iov, local_count, remote_iov, remote_count, flags, True)


def _target(task: Task, fd: int) -> Task:
    """Whom a pidfd names, PIDFD_SELF and PIDFD_SELF_THREAD_GROUP included.  SysError(EBADF, ESRCH)."""
    if fd in _SELF:
        return task
    file = task.files.get_any(fd)
    if not isinstance(file, PidFile):
        raise SysError(errno.EBADF)
    return file.target(task)


@syscall(SYS.process_madvise, partial="as madvise; of another process only hints, which do nothing")
def process_madvise(task: Task, fd: Fd, iov: Addr, count: Size, advice: Int, flags: UInt) -> int:
    """process_madvise(2)."""
    if flags:
        raise SysError(errno.EINVAL)
    pieces = _read_iovec(task.mm, iov, count)
    target = _target(task, fd)
    mm = target.mm
    if mm is None or target.exited:
        raise SysError(errno.ESRCH)
    if mm is not task.mm:
        if not may_access(task, task.cred, target):
            raise SysError(errno.EPERM)
        if advice not in _REMOTE:
            raise SysError(errno.EINVAL)
        if not task.cred.capable(CAP_SYS_NICE):
            raise SysError(errno.EPERM)
    done = 0
    for addr, size in pieces:
        try:
            advise(mm, addr, size, advice)
        except SysError:
            if not done:
                raise
            break
        done += size
    return done


@syscall(SYS.process_mrelease, partial="the memory goes when the process does, no sooner")
def process_mrelease(task: Task, fd: Fd, flags: UInt) -> None:
    """process_mrelease(2)."""
    if flags:
        raise SysError(errno.EINVAL)
    target = _target(task, fd)
    if target.mm is None or target.exited:
        raise SysError(errno.ESRCH)
    if not target.group.dying:
        raise SysError(errno.EINVAL)


def _state(mm: MemoryManager, addr: int) -> int:
    """What move_pages(2) says of a page: its node or a negative errno."""
    if mm.find(addr) is None:
        return -errno.EFAULT
    state = mm.space.page_states(addr & ~PAGE_MASK, 1)
    return 0 if state is None or state == b"\1" else -errno.ENOENT if state == b"\0" else -errno.EFAULT


@syscall(SYS.move_pages, partial="there is one node: nothing moves")
async def move_pages(
    task: Task, pid: Int, count: ULong, pages: Addr, nodes: Addr, status: Addr, flags: Flags
) -> None:
    """move_pages(2)."""
    if flags & ~(MPOL_MF_MOVE | MPOL_MF_MOVE_ALL):
        raise SysError(errno.EINVAL)
    if flags & MPOL_MF_MOVE_ALL and not task.cred.capable(CAP_SYS_NICE):
        raise SysError(errno.EPERM)
    mm = _owner(task, pid).mm if pid else task.mm
    done = 0
    while done < count:
        step = min(count - done, _PAGES_STEP)
        addrs = [addr for (addr,) in iter_unpack("<Q", task.mm.read(pages + 8 * done, 8 * step))]
        if nodes:
            for (node,) in iter_unpack("<i", task.mm.read(nodes + 4 * done, 4 * step)):
                if node:
                    raise SysError(errno.ENODEV)
        states = [_state(mm, addr) for addr in addrs]
        task.mm.write(status + 4 * done, pack(f"<{step}i", *states))
        done += step
        if done < count:
            await yield_now()


@syscall(SYS.migrate_pages, partial="there is one node: nothing moves")
def migrate_pages(task: Task, pid: Int, maxnode: ULong, old_nodes: Addr, new_nodes: Addr) -> None:
    """migrate_pages(2)."""
    read_nodes(task, old_nodes, maxnode)
    new = read_nodes(task, new_nodes, maxnode)
    if pid:
        _owner(task, pid)
    if new & ~NODES and not task.cred.capable(CAP_SYS_NICE):
        raise SysError(errno.EPERM)
    if not new & NODES:
        raise SysError(errno.EINVAL)
