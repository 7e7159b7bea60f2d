"""Scheduling policy, priority and affinity (sched(7)): stored and told, not acted upon.

Only affinity has an effect beyond these calls: it is what `nproc` counts.
"""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_NICE
from sentry.abi.errors import SysError
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.resource import RLIMIT_NICE, RLIMIT_RTPRIO
from sentry.abi.sched import (
    SCHED_BATCH,
    SCHED_DEADLINE,
    SCHED_EXT,
    SCHED_FIFO,
    SCHED_IDLE,
    SCHED_NORMAL,
    SCHED_RR,
)
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import TICK_NS, pack_timespec
from sentry.kernel.wait import yield_now
from sentry.syscalls.args import read_extensible
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, UInt

PRIO_PROCESS = 0
PRIO_PGRP = 1
PRIO_USER = 2
SCHED_RESET_ON_FORK = 0x4000_0000
REAL_TIME = (SCHED_FIFO, SCHED_RR)
RR_SLICE_NS = 100_000_000

#: struct sched_attr: size policy flags nice priority runtime deadline period util_min util_max.
SCHED_ATTR = Struct("<IIQiIQQQII")
SCHED_ATTR_SIZE_VER0 = 48
SCHED_FLAG_RESET_ON_FORK = 1
SCHED_FLAG_RECLAIM = 2
SCHED_FLAG_DL_OVERRUN = 4
SCHED_FLAG_KEEP_POLICY = 8
SCHED_FLAG_KEEP_PARAMS = 16
SCHED_FLAG_UTIL_CLAMP = 0x60
#: Of SCHED_DEADLINE: the least and the longest period, ns; and its share of all CPUs.
DEADLINE_PERIODS = (100_000, (1 << 22) * 1000)
DEADLINE_SHARE = 0.95


def _target(task: Task, pid: int) -> Task:
    """The task with thread id `pid` (0: the caller); SysError(ESRCH)."""
    found = task if pid == 0 else task.find_task(pid)
    if found is None:
        raise SysError(errno.ESRCH)
    return found


def _owns(task: Task, target: Task) -> bool:
    mine, theirs = task.cred, target.cred
    return mine.euid in (theirs.euid, theirs.uid) or mine.ns_capable(theirs.user_ns, CAP_SYS_NICE)


def _may_nice(task: Task, target: Task, nice: int) -> bool:
    return 20 - nice <= target.group.limit(RLIMIT_NICE) or task.cred.capable(CAP_SYS_NICE)


def _check_deadline(wanted: tuple[int, int, int]) -> None:
    """__checkparam_dl(); SysError(EINVAL)."""
    runtime, deadline, period = wanted
    period = period or deadline
    valid = (
        deadline and runtime >= 1 << 10 and not (deadline | period) >> 63 and runtime <= deadline <= period
        and DEADLINE_PERIODS[0] <= period <= DEADLINE_PERIODS[1]
    )  # fmt: skip
    if not valid:
        raise SysError(errno.EINVAL)


def _check_bandwidth(task: Task, target: Task, wanted: tuple[int, int, int]) -> None:
    """Whether the CPUs have so much time left (sched_rt_runtime_us); SysError(EBUSY)."""
    runtime, deadline, period = wanted
    share = runtime / (period or deadline)
    for other in task.kernel.tasks.values():
        if other is not target and other.sched.policy == SCHED_DEADLINE:
            share += other.sched.deadline[0] / (other.sched.deadline[2] or other.sched.deadline[1])
    if share > DEADLINE_SHARE * task.kernel.host.cpus:
        raise SysError(errno.EBUSY)


def _set_policy(
    task: Task, target: Task, policy: int, priority: int, reset: bool, nice: int | None = None,
    deadline: tuple[int, int, int] = (0, 0, 0),
) -> None:  # fmt: skip
    """sched_setscheduler(2), "Privileges and resource limits"."""
    if policy not in (SCHED_NORMAL, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE, SCHED_DEADLINE):
        raise SysError(errno.EINVAL)
    real_time = policy in REAL_TIME
    if not 0 <= priority <= 99:
        raise SysError(errno.EINVAL)
    if policy == SCHED_DEADLINE:
        _check_deadline(deadline)
    if real_time != (priority != 0):
        raise SysError(errno.EINVAL)
    sched = target.sched
    if not task.cred.capable(CAP_SYS_NICE):
        limit = target.group.limit(RLIMIT_RTPRIO)
        raises_nice = nice is not None and nice < sched.nice and not _may_nice(task, target, nice)
        too_high = real_time and (
            (policy != sched.policy and not limit) or (priority > sched.priority and priority > limit)
        )
        leaves_idle = sched.policy == SCHED_IDLE != policy and not _may_nice(task, target, sched.nice)
        if (
            too_high
            or raises_nice
            or leaves_idle
            or policy == SCHED_DEADLINE
            or not _owns(task, target)
            or (sched.reset_on_fork and not reset)
        ):
            raise SysError(errno.EPERM)
    if policy == SCHED_DEADLINE:
        _check_bandwidth(task, target, deadline)
    sched.policy, sched.priority, sched.reset_on_fork = policy, priority, reset
    sched.deadline = deadline if policy == SCHED_DEADLINE else (0, 0, 0)
    if nice is not None:
        sched.nice = nice


@syscall(SYS.sched_yield)
async def sched_yield(task: Task) -> None:
    """sched_yield(2)."""
    await yield_now()


@syscall(SYS.sched_setscheduler, partial="stored only")
def sched_setscheduler(task: Task, pid: Int, policy: Int, param: Addr) -> None:
    """sched_setscheduler(2)."""
    if policy < 0 or pid < 0 or not param:
        raise SysError(errno.EINVAL)
    priority = _signed(task.mm.read_u32(param))
    target = _target(task, pid)
    _set_policy(task, target, policy & ~SCHED_RESET_ON_FORK, priority, bool(policy & SCHED_RESET_ON_FORK))


@syscall(SYS.sched_setparam, partial="stored only")
def sched_setparam(task: Task, pid: Int, param: Addr) -> None:
    """sched_setparam(2)."""
    if pid < 0 or not param:
        raise SysError(errno.EINVAL)
    priority = _signed(task.mm.read_u32(param))
    target = _target(task, pid)
    sched = target.sched
    _set_policy(task, target, sched.policy, priority, sched.reset_on_fork)


@syscall(SYS.sched_getscheduler)
def sched_getscheduler(task: Task, pid: Int) -> int:
    """sched_getscheduler(2)."""
    if pid < 0:
        raise SysError(errno.EINVAL)
    sched = _target(task, pid).sched
    return sched.policy | (SCHED_RESET_ON_FORK if sched.reset_on_fork else 0)


@syscall(SYS.sched_getparam)
def sched_getparam(task: Task, pid: Int, param: Addr) -> None:
    """sched_getparam(2)."""
    if pid < 0 or not param:
        raise SysError(errno.EINVAL)
    task.mm.write_u32(param, _target(task, pid).sched.priority)


@syscall(SYS.sched_get_priority_max)
def sched_get_priority_max(task: Task, policy: Int) -> int:
    """sched_get_priority_max(2)."""
    return _priority_limit(policy, 99)


@syscall(SYS.sched_get_priority_min)
def sched_get_priority_min(task: Task, policy: Int) -> int:
    """sched_get_priority_min(2)."""
    return _priority_limit(policy, 1)


def _priority_limit(policy: int, real_time: int) -> int:
    if policy in REAL_TIME:
        return real_time
    if policy in (SCHED_NORMAL, SCHED_BATCH, SCHED_IDLE, SCHED_DEADLINE, SCHED_EXT):
        return 0
    raise SysError(errno.EINVAL)


@syscall(SYS.sched_rr_get_interval)
def sched_rr_get_interval(task: Task, pid: Int, interval: Addr) -> None:
    """sched_rr_get_interval(2)."""
    if pid < 0:
        raise SysError(errno.EINVAL)
    sched = _target(task, pid).sched
    slices = {SCHED_RR: RR_SLICE_NS, SCHED_FIFO: 0, SCHED_DEADLINE: 0}
    # Told in whole ticks, so that an ordinary slice is mostly 0.
    ticks = slices.get(sched.policy, sched.slice_ns) // TICK_NS
    task.mm.write(interval, pack_timespec(ticks * TICK_NS))


@syscall(SYS.sched_getattr)
def sched_getattr(task: Task, pid: Int, attr: Addr, size: UInt, flags: UInt) -> None:
    """sched_getattr(2)."""
    if not attr or pid < 0 or not SCHED_ATTR_SIZE_VER0 <= size <= PAGE_SIZE or flags:
        raise SysError(errno.EINVAL)
    sched = _target(task, pid).sched
    fair = sched.policy not in (*REAL_TIME, SCHED_DEADLINE)
    size = min(size, SCHED_ATTR.size)
    times = (sched.slice_ns, 0, 0) if fair else sched.deadline
    flags = int(sched.reset_on_fork) | sched.deadline_flags
    data = SCHED_ATTR.pack(size, sched.policy, flags, sched.nice if fair else 0, sched.priority, *times, 0, 0)
    task.mm.write(attr, data[:size])


@syscall(SYS.sched_setattr, partial="stored only; no utilisation clamps: EOPNOTSUPP")
def sched_setattr(task: Task, pid: Int, attr: Addr, flags: UInt) -> None:
    """sched_setattr(2)."""
    if not attr or pid < 0 or flags:
        raise SysError(errno.EINVAL)
    size = task.mm.read_u32(attr) or SCHED_ATTR_SIZE_VER0
    try:
        fields = read_extensible(task, attr, size, SCHED_ATTR, SCHED_ATTR_SIZE_VER0)
    except SysError as error:
        if error.errno == errno.EFAULT:
            raise
        # Tell the caller which size of struct sched_attr this kernel knows.
        task.mm.write_u32(attr, SCHED_ATTR.size)
        raise SysError(errno.E2BIG) from None
    _, policy, bits, nice, priority, *times, _, _ = fields
    if bits & SCHED_FLAG_UTIL_CLAMP and size < SCHED_ATTR.size:
        raise SysError(errno.EINVAL)
    if policy > 0x7FFF_FFFF or bits >> 7:
        raise SysError(errno.EINVAL)
    target = _target(task, pid)
    sched = target.sched
    if bits & SCHED_FLAG_KEEP_POLICY:
        policy = sched.policy
    if bits & SCHED_FLAG_KEEP_PARAMS:
        priority, nice, times = sched.priority, sched.nice, list(sched.deadline)
    nice = max(-20, min(19, nice))
    fair = policy in (SCHED_NORMAL, SCHED_BATCH)
    reset = bool(bits & SCHED_FLAG_RESET_ON_FORK)
    if bits & SCHED_FLAG_UTIL_CLAMP:
        raise SysError(errno.EOPNOTSUPP)
    runtime, deadline, period = times
    period = period or deadline
    before = sched.policy, sched.priority, sched.deadline, sched.nice
    _set_policy(task, target, policy, priority, reset, nice if fair else None, (runtime, deadline, period))
    if bits & SCHED_FLAG_KEEP_PARAMS:
        # Not even the policy changes then.
        sched.policy, sched.priority, sched.deadline, sched.nice = before
        return
    deadline_flags = SCHED_FLAG_RECLAIM | SCHED_FLAG_DL_OVERRUN
    sched.deadline_flags = bits & deadline_flags if policy == SCHED_DEADLINE else 0
    if runtime and fair:
        sched.slice_ns = max(100_000, min(100_000_000, runtime))


@syscall(SYS.sched_setaffinity, partial="stored only: guest threads run where the host lets the sandbox run")
def sched_setaffinity(task: Task, pid: Int, size: UInt, mask: Addr) -> None:
    """sched_setaffinity(2)."""
    possible = (1 << task.kernel.host.cpus) - 1
    wanted = int.from_bytes(task.mm.read(mask, min(size, _mask_size(task))) if size else b"", "little")
    target = _target(task, pid)
    if not _owns(task, target):
        raise SysError(errno.EPERM)
    if not wanted & possible:
        raise SysError(errno.EINVAL)
    if target.sched.policy == SCHED_DEADLINE and wanted & possible != possible:
        raise SysError(errno.EBUSY)  # its bandwidth was promised on all of them
    target.affinity = wanted & possible


@syscall(SYS.sched_getaffinity)
def sched_getaffinity(task: Task, pid: Int, size: UInt, mask: Addr) -> int:
    """sched_getaffinity(2): how many bytes were written."""
    if size * 8 < task.kernel.host.cpus or size % 8:
        raise SysError(errno.EINVAL)
    target = _target(task, pid)
    length: int = min(size, _mask_size(task))
    task.mm.write(mask, target.affinity.to_bytes(length, "little"))
    return length


def _mask_size(task: Task) -> int:
    """Bytes of a CPU mask: whole words for all possible CPUs."""
    return int((task.kernel.host.cpus + 63) // 64 * 8)


def _chosen(task: Task, which: int, who: int, groups: tuple[int, int, int]) -> list[Task]:
    """The tasks that getpriority(2) or ioprio_get(2) means; `groups` are its names for process, process
    group and user.  SysError(EINVAL) for another one."""
    if which == groups[0]:
        found = task if who == 0 else task.find_task(who)
        return [] if found is None else [found]
    if which == groups[1]:
        pgrp = task.group.pgrp if who == 0 else task.find_pgrp(who)
        return [] if pgrp is None else [member for group in pgrp.members for member in group.tasks]
    if which == groups[2]:
        uid = task.cred.user_ns.uids.down(who) if who else task.cred.uid
        seen = task.pid.ns.tasks.values()
        return [other for other in seen if other.cred.uid == uid and other.group.tgid != 1]
    raise SysError(errno.EINVAL)


@syscall(SYS.getpriority)
def getpriority(task: Task, which: Int, who: Int) -> int:
    """getpriority(2): 20 - nice, so that it is never negative."""
    tasks = _chosen(task, which, who, (PRIO_PROCESS, PRIO_PGRP, PRIO_USER))
    if not tasks:
        raise SysError(errno.ESRCH)
    return 20 - min(other.sched.nice for other in tasks)


@syscall(SYS.setpriority, partial="stored only")
def setpriority(task: Task, which: Int, who: Int, nice: Int) -> None:
    """setpriority(2)."""
    nice = max(-20, min(19, nice))
    error = errno.ESRCH
    for other in _chosen(task, which, who, (PRIO_PROCESS, PRIO_PGRP, PRIO_USER)):
        if other.cred.uid != task.cred.euid and other.cred.euid != task.cred.euid and not _owns(task, other):
            error = errno.EPERM
        elif nice < other.sched.nice and not _may_nice(task, other, nice):
            error = errno.EACCES
        else:
            if error == errno.ESRCH:
                error = 0
            other.sched.nice = nice
    if error:
        raise SysError(error)


IOPRIO_WHO = (1, 2, 3)
IOPRIO_NONE, IOPRIO_RT, IOPRIO_BE, IOPRIO_IDLE = range(4)


@syscall(SYS.ioprio_get)
def ioprio_get(task: Task, which: Int, who: Int) -> int:
    """ioprio_get(2)."""
    tasks = _chosen(task, which, who, IOPRIO_WHO)
    if not tasks:
        raise SysError(errno.ESRCH)
    if which == IOPRIO_WHO[0]:
        return tasks[0].sched.ioprio
    return min(other.sched.effective_ioprio() for other in tasks)


@syscall(SYS.ioprio_set, partial="stored only")
def ioprio_set(task: Task, which: Int, who: Int, ioprio: Int) -> None:
    """ioprio_set(2)."""
    kind, ioprio = ioprio >> 13 & 7, ioprio & 0xFFFF
    if kind == IOPRIO_RT and not (task.cred.capable(CAP_SYS_ADMIN) or task.cred.capable(CAP_SYS_NICE)):
        raise SysError(errno.EPERM)
    if kind not in range(4) or (kind == IOPRIO_NONE and ioprio & 7):
        raise SysError(errno.EINVAL)
    tasks = _chosen(task, which, who, IOPRIO_WHO)
    if not tasks:
        raise SysError(errno.ESRCH)
    for other in tasks:
        if other.cred.uid not in (task.cred.euid, task.cred.uid) and not task.cred.capable(CAP_SYS_NICE):
            raise SysError(errno.EPERM)
        other.sched.ioprio = ioprio


def _signed(value: int) -> int:
    return (value ^ 0x8000_0000) - 0x8000_0000
