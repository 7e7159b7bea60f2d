"""Resource limits and usage (getrlimit(2), getrusage(2))."""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi.capability import CAP_SYS_RESOURCE
from sentry.abi.errors import SysError
from sentry.abi.resource import (
    RLIM_INFINITY,
    RLIM_NLIMITS,
    RLIMIT,
    RLIMIT_CPU,
    RLIMIT_FSIZE,
    RLIMIT_NOFILE,
    RUSAGE,
    RUSAGE_CHILDREN,
    RUSAGE_SELF,
    RUSAGE_THREAD,
)
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import NS
from sentry.kernel.cputime import task_times
from sentry.kernel.timers import watch_cpu_limit
from sentry.mm import residence
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.group import ThreadGroup
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, UInt


def _set_limit(task: Task, group: ThreadGroup, resource: int, soft: int, hard: int) -> None:
    if soft > hard:
        raise SysError(errno.EINVAL)
    if resource == RLIMIT_NOFILE and hard > task.kernel.knobs.nr_open:
        raise SysError(errno.EPERM)
    if hard > group.limits[resource][1] and not task.cred.capable(CAP_SYS_RESOURCE):
        raise SysError(errno.EPERM)
    group.set_limit(resource, soft, hard)
    if group.tgid == 1:
        return  # the Sentry's own init: it has no memory, and no descriptors
    for member in group.tasks:
        mm = member.mm
        mm.act_for(group)
        if mm.users > len(group.tasks):  # vfork: the other process has other limits from now on
            mm.c.state |= lib.MM_SLOW
    if resource == RLIMIT_CPU:
        watch_cpu_limit(group)
    elif resource == RLIMIT_FSIZE and soft != RLIM_INFINITY:
        for member in group.tasks:
            member.files.limit_sizes()
    elif resource == RLIMIT_NOFILE:
        for member in group.tasks:
            member.files.set_limit(soft, len(group.tasks))


@syscall(SYS.getrlimit)
def getrlimit(task: Task, resource: UInt, limit: Addr) -> None:
    """getrlimit(2)."""
    if resource >= RLIM_NLIMITS:
        raise SysError(errno.EINVAL)
    task.mm.write(limit, RLIMIT.pack(*task.group.limits[resource]))


@syscall(SYS.setrlimit, partial="RSS, LOCKS, MSGQUEUE, NICE, RTTIME are stored only")
def setrlimit(task: Task, resource: UInt, limit: Addr) -> None:
    """setrlimit(2)."""
    soft, hard = RLIMIT.unpack(task.mm.read(limit, RLIMIT.size))
    if resource >= RLIM_NLIMITS:
        raise SysError(errno.EINVAL)
    _set_limit(task, task.group, resource, soft, hard)


@syscall(SYS.prlimit64, partial="RSS, LOCKS, MSGQUEUE, NICE, RTTIME are stored only")
def prlimit64(task: Task, pid: Int, resource: UInt, new: Addr, old: Addr) -> None:
    """prlimit(2)."""
    wanted = RLIMIT.unpack(task.mm.read(new, RLIMIT.size)) if new else None
    target = task if pid == 0 else task.find_task(pid)
    if target is None:
        raise SysError(errno.ESRCH)
    _check_prlimit(task, target)
    if resource >= RLIM_NLIMITS:
        raise SysError(errno.EINVAL)
    before = target.group.limits[resource]
    if wanted is not None:
        _set_limit(task, target.group, resource, *wanted)
    if old:
        task.mm.write(old, RLIMIT.pack(*before))


def _check_prlimit(task: Task, target: Task) -> None:
    """SysError(EPERM) unless all the target's ids are the caller's (prlimit(2))."""
    mine, theirs = task.cred, target.cred
    same = (
        mine.uid == theirs.euid == theirs.suid == theirs.uid
        and mine.gid == theirs.egid == theirs.sgid == theirs.gid
    )
    if target is not task and not same and not mine.ns_capable(theirs.user_ns, CAP_SYS_RESOURCE):
        raise SysError(errno.EPERM)


def pack_rusage(utime: int, stime: int, maxrss_kib: int = 0, faults: tuple[int, int] = (0, 0)) -> bytes:
    """struct rusage from nanoseconds of CPU time."""
    times = (utime // NS, utime % NS // 1000, stime // NS, stime % NS // 1000)
    return RUSAGE.pack(*times, maxrss_kib, 0, 0, 0, *faults, *(0,) * 8)


@syscall(SYS.getrusage, partial="no context switches; no faults of ended children")
def getrusage(task: Task, who: Int, usage: Addr) -> None:
    """getrusage(2)."""
    group = task.group
    maxrss, faults = 0, (0, 0)
    if who == RUSAGE_SELF:
        utime, stime = group.cpu_times()
    elif who == RUSAGE_THREAD:
        utime, stime = task_times(task)
    elif who == RUSAGE_CHILDREN:
        utime, stime = group.child_utime, group.child_stime
        maxrss = group.child_max_rss >> 10
    else:
        raise SysError(errno.EINVAL)
    if who != RUSAGE_CHILDREN:
        maxrss = residence.peak(task.mm) // 1024
        told = None if task.thread is None else task.thread.rusage(who)
        if told is not None:
            minor, major = RUSAGE.unpack(told)[8:10]
            faults = (minor, major)
    task.mm.write(usage, pack_rusage(utime, stime, maxrss, faults))
