"""futex(2), robust lists and the address that a thread's end clears."""

from __future__ import annotations

import errno
from time import monotonic_ns, time_ns

from sentry.abi import futex as f
from sentry.abi.capability import CAP_SYS_PTRACE
from sentry.abi.errors import SysError
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import TIMESPEC, unpack_timespec
from sentry.kernel.wait import Interrupted
from sentry.syscalls.table import ERESTARTSYS, RestartBlock, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, Size, UInt

#: What a platform makes of futexes by itself.
HOSTED = (f.WAIT, f.WAKE, f.REQUEUE, f.CMP_REQUEUE, f.WAKE_OP, f.WAIT_BITSET, f.WAKE_BITSET)
_WAITS = (f.WAIT, f.WAIT_BITSET)
_TIMED = (f.WAIT, f.LOCK_PI, f.LOCK_PI2, f.WAIT_BITSET, f.WAIT_REQUEUE_PI)
_WITH_REALTIME = (f.WAIT_BITSET, f.WAIT_REQUEUE_PI, f.LOCK_PI2)
_PI = (f.LOCK_PI, f.LOCK_PI2, f.UNLOCK_PI, f.TRYLOCK_PI, f.WAIT_REQUEUE_PI, f.CMP_REQUEUE_PI)


async def wait(
    task: Task, addr: int, private: bool, value: int, bitset: int, deadline: int | None, relative: bool
) -> int:
    """FUTEX_WAIT_BITSET in the Sentry."""
    if not bitset:
        raise SysError(errno.EINVAL)
    futexes = task.kernel.futexes
    mm = task.mm
    key = futexes.key(task, addr, private, look=False)
    held = futexes.begin(mm, private)
    try:
        if mm.read_u32(addr) != value:
            raise SysError(errno.EAGAIN)
        woken = await futexes.wait(key, bitset, deadline)
    except Interrupted:
        if relative and deadline is not None:
            # The deadline stays what it was, however often the wait is interrupted.
            raise RestartBlock(
                lambda task: wait(task, addr, private, value, bitset, deadline, True)
            ) from None
        raise
    finally:
        if held:
            futexes.end(mm, private)
    if not woken:
        raise SysError(errno.ETIMEDOUT)
    return 0


def _interrupted(task: Task, relative: bool, has_timeout: bool) -> object:
    """A kick has ended a wait that the platform carries out: for a signal, or for nothing.  Then it waits
    again, unless it is until a time that the platform alone knows: a spurious wake-up, as futex(2) allows."""
    if not task.signal_pending():
        return 0 if relative else task.pass_on()
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
    if op > 4:
        raise SysError(errno.ENOSYS)
    space = task.mm.space
    old = task.mm.read_u32(addr)
    while True:
        new = (oparg, old + oparg, old | oparg, old & ~oparg, old ^ oparg)[op] & 0xFFFFFFFF
        seen = space.cmpxchg32(addr, old, new)
        if seen == old:
            break
        old = seen
    if cmp > 5:
        raise SysError(errno.ENOSYS)
    signed = (old ^ 0x80000000) - 0x80000000
    return (
        signed == cmparg, signed != cmparg, signed < cmparg, signed <= cmparg, signed > cmparg,
        signed >= cmparg,
    )[cmp]  # fmt: skip


def _deadline(task: Task, command: int, realtime: bool, timeout: int) -> int | None:
    """Monotonic time at which the call is to end; SysError(EFAULT, EINVAL)."""
    if command not in _TIMED or not timeout:
        return None
    deadline = unpack_timespec(task.mm.read(timeout, TIMESPEC.size))
    if command == f.WAIT:
        return deadline + monotonic_ns()
    if realtime or command == f.LOCK_PI:
        return deadline + monotonic_ns() - time_ns()
    return deadline


def _signed(value: int) -> int:
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def wake(task: Task, addr: int, private: bool, count: int, bitset: int) -> int:
    """FUTEX_WAKE_BITSET."""
    if not bitset:
        raise SysError(errno.EINVAL)
    return task.kernel.futexes.wake_at(task, addr, private, max(count, 1), bitset)


def requeue(
    task: Task, addr: int, target: int, private: tuple[bool, bool], count: int, limit: int,
    expected: int | None,
) -> int:  # fmt: skip
    """FUTEX_CMP_REQUEUE (`expected` not None), FUTEX_REQUEUE."""
    if count < 0 or limit < 0:
        raise SysError(errno.EINVAL)
    return task.kernel.futexes.requeue_at(task, addr, target, private, count, limit, expected)


async def _priority(
    task: Task, command: int, addr: int, addr2: int, private: bool, words: tuple[int, int, int],
    deadline: int | None,
) -> int:  # fmt: skip
    """The operations with priority inheritance."""
    futexes = task.kernel.futexes
    value, limit, value3 = words
    if command in (f.WAIT_REQUEUE_PI, f.CMP_REQUEUE_PI) and addr == addr2:
        raise SysError(errno.EINVAL)
    if command == f.WAIT_REQUEUE_PI:
        await futexes.pi.wait_requeue(task, addr, value, deadline, addr2, private)
        return 0
    if command == f.CMP_REQUEUE_PI and (_signed(limit) < 0 or value != 1):
        raise SysError(errno.EINVAL)
    key = futexes.key(task, addr, private)
    if command == f.CMP_REQUEUE_PI:
        target = futexes.key(task, addr2, private)
        if task.mm.read_u32(addr) != value3:
            raise SysError(errno.EAGAIN)
        return futexes.pi.requeue(task, addr, key, target, addr2, limit)
    if command == f.UNLOCK_PI:
        futexes.pi.unlock(task, addr, key)
    elif command == f.TRYLOCK_PI:
        futexes.pi.try_lock(task, addr, key)
    else:
        await futexes.pi.lock(task, addr, key, deadline)
    return 0


@syscall(
    SYS.futex, on_signal=ERESTARTSYS, partial="waiters for a lock don't lend their priority to its owner"
)
async def futex(
    task: Task, addr: Addr, op: Int, value: UInt, timeout: Addr, addr2: Addr, value3: UInt
) -> object:
    """futex(2)."""
    command = op & ~(f.PRIVATE | f.CLOCK_REALTIME)
    private = bool(op & f.PRIVATE)
    futexes = task.kernel.futexes
    hosted = command in HOSTED and futexes.hosts_waits(task.mm)
    alone = command in _WAITS or not futexes.holds(task.mm)
    if hosted and alone and not task.was_kicked():
        return task.pass_on()
    deadline = _deadline(task, command, bool(op & f.CLOCK_REALTIME), timeout)
    if op & f.CLOCK_REALTIME and command not in _WITH_REALTIME:
        raise SysError(errno.ENOSYS)
    if command in _WAITS:
        bitset = f.MATCH_ANY if command == f.WAIT else value3
        if hosted:
            return _interrupted(task, command == f.WAIT and bool(timeout), bool(timeout))
        return await wait(task, addr, private, value, bitset, deadline, command == f.WAIT)
    count, limit = _signed(value), _signed(timeout)
    if command in (f.WAKE, f.WAKE_BITSET):
        return wake(task, addr, private, count, f.MATCH_ANY if command == f.WAKE else value3)
    if command in (f.REQUEUE, f.CMP_REQUEUE):
        expected = value3 if command == f.CMP_REQUEUE else None
        return requeue(task, addr, addr2, (private, private), count, limit, expected)
    if command == f.WAKE_OP:
        futexes.key(task, addr, private), futexes.key(task, addr2, private)
        also = _wake_op(task, addr2, value3)
        woken = wake(task, addr, private, count, f.MATCH_ANY)
        return woken + (wake(task, addr2, private, limit, f.MATCH_ANY) if also else 0)
    if command in _PI:
        return await _priority(task, command, addr, addr2, private, (value, limit, value3), deadline)
    raise SysError(errno.ENOSYS)


@syscall(SYS.set_robust_list)
def set_robust_list(task: Task, head: Addr, size: Size) -> None:
    """set_robust_list(2)."""
    if size != f.ROBUST_HEAD.size:
        raise SysError(errno.EINVAL)
    task.robust_list = head


@syscall(SYS.get_robust_list)
def get_robust_list(task: Task, pid: Int, head: Addr, size: Addr) -> None:
    """get_robust_list(2)."""
    target = task if pid == 0 else task.find_task(pid)
    if target is None:
        raise SysError(errno.ESRCH)
    if target.cred.uid != task.cred.uid and not task.cred.ns_capable(target.cred.user_ns, CAP_SYS_PTRACE):
        raise SysError(errno.EPERM)
    task.mm.write_u64(size, f.ROBUST_HEAD.size)
    task.mm.write_u64(head, target.robust_list)


@syscall(SYS.set_tid_address)
def set_tid_address(task: Task, addr: Addr) -> int:
    """set_tid_address(2)."""
    task.clear_child_tid = addr
    return task.pid.vnr
