"""The futex calls that came after futex(2): futex_waitv(2), futex_wait, futex_wake, futex_requeue.

Their waiters stand in the Sentry also where futexes are the host's
(sentry/kernel/futex.py).
"""

from __future__ import annotations

import errno
from time import monotonic_ns, time_ns

from sentry.abi import futex as f
from sentry.abi.errors import SysError
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import CLOCK_MONOTONIC, CLOCK_REALTIME, TIMESPEC, unpack_timespec
from sentry.kernel.futex import Waiter
from sentry.kernel.wait import WaitQueue, block
from sentry.syscalls import futex
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, UInt, ULong

_NO_NUMA = "no FUTEX2_NUMA or FUTEX2_MPOL: EINVAL, as before Linux 6.16"


def _is_private(flags: int, *values: int) -> bool:
    """SysError(EINVAL) unless the futex has 32 bits, and the values too."""
    if flags & ~f.FUTEX2_PRIVATE != f.FUTEX2_SIZE_U32 or any(value >> 32 for value in values):
        raise SysError(errno.EINVAL)
    return bool(flags & f.FUTEX2_PRIVATE)


def _deadline(task: Task, timeout: int, clock: int) -> int | None:
    """An absolute time as a monotonic one; SysError(EFAULT, EINVAL)."""
    if not timeout:
        return None
    if clock not in (CLOCK_REALTIME, CLOCK_MONOTONIC):
        raise SysError(errno.EINVAL)
    deadline = unpack_timespec(task.mm.read(timeout, TIMESPEC.size))
    return deadline + (monotonic_ns() - time_ns() if clock == CLOCK_REALTIME else 0)


@syscall(SYS.futex_wake, partial=_NO_NUMA)
def futex_wake(task: Task, addr: Addr, mask: ULong, count: Int, flags: UInt) -> int:
    """futex_wake(2): unlike FUTEX_WAKE, none is none."""
    private = _is_private(flags, mask)
    if not mask:
        raise SysError(errno.EINVAL)
    task.kernel.futexes.key(task, addr, private)
    return futex.wake(task, addr, private, count, mask) if count else 0


@syscall(SYS.futex_wait, partial=_NO_NUMA)
async def futex_wait(
    task: Task, addr: Addr, value: ULong, mask: ULong, flags: UInt, timeout: Addr, clock: Int
) -> int:
    """futex_wait(2)."""
    private = _is_private(flags, value, mask)
    deadline = _deadline(task, timeout, clock)
    return await futex.wait(task, addr, private, value, mask, deadline, False)


def _read_waiters(task: Task, addr: int, count: int) -> list[tuple[int, int, bool]]:
    """(address, value, private) of each struct futex_waitv; SysError(EFAULT, EINVAL)."""
    found = []
    for value, where, flags, reserved in f.FUTEX_WAITV.iter_unpack(
        task.mm.read(addr, count * f.FUTEX_WAITV.size)
    ):
        if reserved:
            raise SysError(errno.EINVAL)
        found.append((where, value, _is_private(flags, value)))
    return found


@syscall(SYS.futex_requeue, partial=_NO_NUMA)
def futex_requeue(task: Task, waiters: Addr, flags: UInt, wake: Int, requeue: Int) -> int:
    """futex_requeue(2): from the first to the second of two futexes."""
    if flags or not waiters:
        raise SysError(errno.EINVAL)
    (addr, value, private), (target, _, also) = _read_waiters(task, waiters, 2)
    return futex.requeue(task, addr, target, (private, also), wake, requeue, value)


@syscall(SYS.futex_waitv, partial=_NO_NUMA)
async def futex_waitv(task: Task, waiters: Addr, count: UInt, flags: UInt, timeout: Addr, clock: Int) -> int:
    """futex_waitv(2): the index of one that was woken."""
    if flags or not 0 < count <= f.FUTEX_WAITV_MAX or not waiters:
        raise SysError(errno.EINVAL)
    deadline = _deadline(task, timeout, clock)
    wanted = _read_waiters(task, waiters, count)
    futexes, mm = task.kernel.futexes, task.mm
    queue = WaitQueue()
    entries: list[Waiter] = []
    held = [kind for kind in {private for _, _, private in wanted} if futexes.begin(mm, kind)]
    try:
        for addr, _, is_private in wanted:
            entries.append(Waiter(futexes.key(task, addr, is_private), f.MATCH_ANY, queue))
            futexes.add(entries[-1])
        for addr, value, _ in wanted:
            if task.mm.read_u32(addr) != value:
                raise SysError(errno.EAGAIN)
        while True:
            in_time = await block((queue, 1), deadline=deadline)
            for index, entry in enumerate(entries):
                if entry.woken:
                    return index
            if not in_time:
                raise SysError(errno.ETIMEDOUT)
    finally:
        for entry in entries:
            if not entry.woken:
                futexes.remove(entry)
        for kind in held:
            futexes.end(mm, kind)
