"""process_vm_readv(2), process_vm_writev(2): memory of another process, within its protections."""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi.errors import SysError
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.syscall_nr import SYS
from sentry.fs.proc.access import may_access
from sentry.kernel.wait import yield_now
from sentry.syscalls.file_io import iovecs
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.syscalls.args import Addr, Int, ULong

IOV_MAX = 1024
IOVEC = Struct("<QQ")
#: Bytes that are copied in one go, and those after which others get their turn.
PIECE = 64 << 10
TURN = 4 << 20


def _remote(task: Task, addr: int, count: int) -> list[tuple[int, int]]:
    if count > IOV_MAX:
        raise SysError(errno.EINVAL)
    data = task.mm.read(addr, count * IOVEC.size) if count else b""
    vectors = list(IOVEC.iter_unpack(data))
    if any(size >> 63 for _, size in vectors):
        raise SysError(errno.EINVAL)
    return vectors


def _pieces(local: list[tuple[int, int]], remote: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """(local address, remote address, size) in order, none across a page border of the remote side but at a
    multiple of PIECE from its beginning."""
    mine = iter(local)
    here, room = 0, 0
    for there, size in remote:
        while size:
            if not room:
                here, room = next(mine, (0, 0))
                if not room:
                    return
            piece = min(size, room, PIECE - there % PAGE_SIZE)
            yield here, there, piece
            here, room = here + piece, room - piece
            there, size = there + piece, size - piece


def _copy(source: MemoryManager, at: int, target: MemoryManager, to: int, size: int) -> int:
    """Bytes copied.  SysError(EFAULT) for none."""
    return target.write_upto(to, source.read_upto(at, size))


async def _transfer(
    task: Task, pid: int, lvec: int, lcount: int, rvec: int, rcount: int, flags: int, out: bool
) -> int:
    if flags:
        raise SysError(errno.EINVAL)
    local = iovecs(task, lvec, min(lcount, IOV_MAX + 1))
    if not local:
        return 0
    remote = _remote(task, rvec, rcount)
    if not any(size for _, size in remote):
        return 0
    target = task.kernel.tasks.get(pid)
    if target is None or target.mm is None:
        raise SysError(errno.ESRCH)
    if not may_access(task, task.cred, target, real=True):
        raise SysError(errno.EPERM)
    mine, theirs = task.mm, target.mm
    done = turn = 0
    for here, there, size in _pieces(local, remote):
        try:
            copied = _copy(mine, here, theirs, there, size) if out else _copy(theirs, there, mine, here, size)
        except SysError as error:
            if done:
                break
            raise SysError(errno.EFAULT) from error
        done += copied
        turn += copied
        if copied < size:
            break
        if turn >= TURN:
            turn = 0
            await yield_now()
            if task.kill_pending() or not theirs.users:
                break
    return done


@syscall(SYS.process_vm_readv)
async def process_vm_readv(
    task: Task, pid: Int, lvec: Addr, lcount: ULong, rvec: Addr, rcount: ULong, flags: ULong
) -> int:
    """process_vm_readv(2)."""
    return await _transfer(task, pid, lvec, lcount, rvec, rcount, flags, out=False)


@syscall(SYS.process_vm_writev)
async def process_vm_writev(
    task: Task, pid: Int, lvec: Addr, lcount: ULong, rvec: Addr, rcount: ULong, flags: ULong
) -> int:
    """process_vm_writev(2)."""
    return await _transfer(task, pid, lvec, lcount, rvec, rcount, flags, out=True)
