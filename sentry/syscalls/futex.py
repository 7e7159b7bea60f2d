"""futex(2), robust lists and the address that a thread's end clears."""

from __future__ import annotations

import errno
from time import monotonic_ns, time_ns

from sentry.abi.capability import CAP_SYS_PTRACE
from sentry.abi.errors import SysError
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import TIMESPEC, unpack_timespec
from sentry.kernel.futex import MATCH_ANY
from sentry.kernel.task import PASS_ENDED
from sentry.kernel.wait import Interrupted
from sentry.syscalls.table import ERESTARTSYS, RestartBlock, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, Size, UInt

WAIT, WAKE, FD, REQUEUE, CMP_REQUEUE, WAKE_OP, LOCK_PI, UNLOCK_PI, TRYLOCK_PI = range(9)
WAIT_BITSET, WAKE_BITSET, WAIT_REQUEUE_PI, CMP_REQUEUE_PI, LOCK_PI2 = range(9, 14)
PRIVATE = 128
CLOCK_REALTIME = 256
ROBUST_HEAD_SIZE = 24
#: What a platform makes of private futexes by itself.
HOSTED = (WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_BITSET, WAKE_BITSET)


async def _wait(
    task: Task, addr: int, private: bool, value: int, bitset: int, deadline: int | None, relative: bool
) -> int:
    if not bitset:
        raise SysError(errno.EINVAL)
    futexes = task.kernel.futexes
    key = futexes.key(task, addr, private, look=False)
    if task.mm.read_u32(addr) != value:
        raise SysError(errno.EAGAIN)
    try:
        woken = await futexes.wait(key, bitset, deadline)
    except Interrupted:
        if relative and deadline is not None:
            # The deadline stays what it was, however often the wait is interrupted.
            raise RestartBlock(
                lambda task: _wait(task, addr, private, value, bitset, deadline, True)
            ) from None
        raise
    if not woken:
        raise SysError(errno.ETIMEDOUT)
    return 0


def _interrupted(task: Task, has_timeout: bool) -> int:
    """A kick has ended a wait that the platform carries out: for a signal, or for nothing, which is a
    spurious wake-up (futex(2) allows them)."""
    if not task.signal_pending():
        return 0
    if has_timeout:
        raise RestartBlock(_spurious)
    raise Interrupted


async def _spurious(_task: Task) -> int:
    """The signal had no handler: let the program look at its word, and wait again."""
    return 0


def _wake_op(task: Task, addr: int, encoded: int) -> bool:
    """Apply FUTEX_WAKE_OP's operation to the word at `addr`; whether the old value compares true."""
    op = encoded >> 28 & 7
    cmp = encoded >> 24 & 15
    oparg = (encoded >> 12 & 0xFFF ^ 0x800) - 0x800
    cmparg = (encoded & 0xFFF ^ 0x800) - 0x800
    if encoded >> 31 & 1:
        oparg = 1 << (oparg & 31)
    if op > 4 or cmp > 5:
        raise SysError(errno.ENOSYS)
    space = task.mm.space
    old = task.mm.read_u32(addr)
    while True:
        new = (oparg, old + oparg, old | oparg, old & ~oparg, old ^ oparg)[op] & 0xFFFFFFFF
        seen = space.cmpxchg32(addr, old, new)
        if seen == old:
            break
        old = seen
    signed = (old ^ 0x80000000) - 0x80000000
    return (
        signed == cmparg, signed != cmparg, signed < cmparg, signed <= cmparg, signed > cmparg,
        signed >= cmparg,
    )[cmp]  # fmt: skip


@syscall(SYS.futex, on_signal=ERESTARTSYS, partial="no priority inheritance (LOCK_PI and its kin): ENOSYS")
async def futex(
    task: Task, addr: Addr, op: Int, value: UInt, timeout: Addr, addr2: Addr, value3: UInt
) -> object:
    """futex(2)."""
    command = op & ~(PRIVATE | CLOCK_REALTIME)
    private = bool(op & PRIVATE)
    hosted = private and task.kernel.platform.hosts_futexes and command in HOSTED and not task.mm.own_futexes
    if hosted and task.forced and task.passing != PASS_ENDED:
        return task.pass_on()
    futexes = task.kernel.futexes
    if op & CLOCK_REALTIME and command not in (WAIT, WAIT_BITSET):
        raise SysError(errno.ENOSYS)
    if command in (WAIT, WAIT_BITSET):
        deadline = None
        if timeout:
            deadline = unpack_timespec(task.mm.read(timeout, TIMESPEC.size))
            if command == WAIT:
                deadline += monotonic_ns()
            elif op & CLOCK_REALTIME:
                deadline += monotonic_ns() - time_ns()
        bitset = MATCH_ANY if command == WAIT else value3
        if hosted:
            return _interrupted(task, bool(timeout))
        return await _wait(task, addr, private, value, bitset, deadline, command == WAIT)
    count = (value ^ 0x80000000) - 0x80000000
    if command in (WAKE, WAKE_BITSET):
        bitset = MATCH_ANY if command == WAKE else value3
        if not bitset:
            raise SysError(errno.EINVAL)
        return futexes.wake(futexes.key(task, addr, private), max(count, 1), bitset)
    if command in (REQUEUE, CMP_REQUEUE):
        key, target = futexes.key(task, addr, private), futexes.key(task, addr2, private)
        limit = (timeout & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
        if count < 0 or limit < 0:
            raise SysError(errno.EINVAL)
        if command == CMP_REQUEUE and task.mm.read_u32(addr) != value3:
            raise SysError(errno.EAGAIN)
        woken = futexes.wake(key, count)
        return woken + futexes.requeue(key, target, limit)
    if command == WAKE_OP:
        key, other = futexes.key(task, addr, private), futexes.key(task, addr2, private)
        also = _wake_op(task, addr2, value3)
        woken = futexes.wake(key, max(count, 1))
        if also:
            woken += futexes.wake(other, max(timeout & 0xFFFFFFFF, 1))
        return woken
    raise SysError(errno.ENOSYS)


@syscall(SYS.set_robust_list)
def set_robust_list(task: Task, head: Addr, size: Size) -> None:
    """set_robust_list(2)."""
    if size != ROBUST_HEAD_SIZE:
        raise SysError(errno.EINVAL)
    task.robust_list = head


@syscall(SYS.get_robust_list)
def get_robust_list(task: Task, pid: Int, head: Addr, size: Addr) -> None:
    """get_robust_list(2)."""
    target = task if pid == 0 else task.find_task(pid)
    if target is None:
        raise SysError(errno.ESRCH)
    if target.cred.uid != task.cred.uid and not task.cred.capable(CAP_SYS_PTRACE):
        raise SysError(errno.EPERM)
    task.mm.write_u64(size, ROBUST_HEAD_SIZE)
    task.mm.write_u64(head, target.robust_list)


@syscall(SYS.set_tid_address)
def set_tid_address(task: Task, addr: Addr) -> int:
    """set_tid_address(2)."""
    task.clear_child_tid = addr
    return task.pid.vnr
