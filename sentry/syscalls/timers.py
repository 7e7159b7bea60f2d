"""Clocks, sleeping and timers (time(7), clock_gettime(2), nanosleep(2), setitimer(2), timer_create(2))."""

from __future__ import annotations

import errno
from time import clock_gettime_ns, monotonic_ns, time_ns

from sentry.abi import time as t
from sentry.abi.errors import SysError
from sentry.abi.resource import RLIMIT_SIGPENDING
from sentry.abi.signal import NSIG, SIGALRM
from sentry.abi.syscall_nr import SYS
from sentry.kernel.signals import MAX_QUEUED
from sentry.kernel.timers import (
    ALARM_CLOCKS,
    MONOTONIC,
    TIMER_CLOCKS,
    WALL_CLOCKS,
    Clock,
    PosixTimer,
    find_clock,
    interval_timer,
)
from sentry.kernel.wait import Interrupted, block
from sentry.syscalls.table import ERESTARTNOHAND, RestartBlock, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, UInt

INT_MAX = 0x7FFF_FFFF
ADJ_OFFSET_SS_READ = 0xA001


def _read_timespec(task: Task, addr: int) -> int:
    return t.unpack_timespec(task.mm.read(addr, t.TIMESPEC.size))


def _is_clock_device(clock_id: int) -> bool:
    """Whether the id names an open /dev/ptpN, which no sandbox has."""
    return clock_id < 0 and clock_id & 7 == t.CLOCKFD


def _timer_clock(task: Task, clock_id: int) -> Clock:
    """A clock that can time something; SysError(EINVAL, EOPNOTSUPP)."""
    if _is_clock_device(clock_id) or clock_id in ALARM_CLOCKS:
        raise SysError(errno.EOPNOTSUPP)
    clock = find_clock(task, clock_id)
    if clock.owner is None and clock_id not in TIMER_CLOCKS:
        raise SysError(errno.EOPNOTSUPP)
    return clock


# Telling the time.


@syscall(SYS.clock_gettime)
def clock_gettime(task: Task, clock_id: Int, ts: Addr) -> None:
    """clock_gettime(2)."""
    if clock_id in ALARM_CLOCKS:
        raise SysError(errno.EINVAL)
    task.mm.write(ts, t.pack_timespec(find_clock(task, clock_id).now()))


@syscall(SYS.clock_getres)
def clock_getres(task: Task, clock_id: Int, ts: Addr) -> None:
    """clock_getres(2)."""
    if clock_id in ALARM_CLOCKS:
        raise SysError(errno.EINVAL)
    resolution = find_clock(task, clock_id).resolution()
    if ts:
        task.mm.write(ts, t.pack_timespec(resolution))


@syscall(SYS.clock_settime, partial="nobody may set a clock: EPERM")
def clock_settime(task: Task, clock_id: Int, ts: Addr) -> None:
    """clock_settime(2)."""
    if clock_id > 0 or (clock_id == 0 and not ts):
        raise SysError(errno.EFAULT if clock_id == 0 else errno.EINVAL)
    if clock_id < 0:
        find_clock(task, clock_id)
    data = task.mm.read(ts, t.TIMESPEC.size)
    if clock_id == 0:
        t.unpack_timespec(data)
    raise SysError(errno.EPERM)


@syscall(SYS.settimeofday, partial="nobody may set a clock: EPERM")
def settimeofday(task: Task, tv: Addr, tz: Addr) -> None:
    """settimeofday(2)."""
    if tv:
        t.timeval_ns(*t.TIMEVAL.unpack(task.mm.read(tv, t.TIMEVAL.size)))
    if tz:
        task.mm.read(tz, t.TIMEZONE.size)
    raise SysError(errno.EPERM)


@syscall(SYS.gettimeofday)
def gettimeofday(task: Task, tv: Addr, tz: Addr) -> None:
    """gettimeofday(2); the kernel's time zone is UTC."""
    if tv:
        task.mm.write(tv, t.pack_timeval(time_ns()))
    if tz:
        task.mm.write(tz, t.TIMEZONE.pack(0, 0))


@syscall(SYS.time)
def time(task: Task, tloc: Addr) -> int:
    """time(2): the second of the last tick, as Linux has it."""
    now = clock_gettime_ns(t.CLOCK_REALTIME_COARSE) // t.NS
    if tloc:
        task.mm.write_u64(tloc, now)
    return now


@syscall(SYS.times)
def times(task: Task, buf: Addr) -> int:
    """times(2), in ticks of 10 ms."""
    tick = t.NS // t.USER_HZ
    if buf:
        group = task.group
        used = (*group.cpu_times(), group.child_utime, group.child_stime)
        task.mm.write(buf, t.TMS.pack(*(value // tick for value in used)))
    return monotonic_ns() // tick


@syscall(SYS.adjtimex, partial="read only: EPERM for changes")
def adjtimex(task: Task, timex: Addr) -> int:
    """adjtimex(2): TIME_ERROR, since this clock is not disciplined by anybody the guest could ask."""
    data = task.mm.read(timex, t.TIMEX.size)
    modes = int.from_bytes(data[:4], "little")
    if modes not in (0, ADJ_OFFSET_SS_READ):
        raise SysError(errno.EPERM)
    now = time_ns()
    errors = (16_000_000, 16_000_000)
    constants = (2, 1, 32_768_000)
    time_of_day = (now // t.NS, now % t.NS // 1000)
    data = t.TIMEX.pack(modes, 0, 0, *errors, t.STA_UNSYNC, *constants, *time_of_day, 10_000, *(0,) * 9)
    task.mm.write(timex, data)
    return t.TIME_ERROR


@syscall(SYS.clock_adjtime, partial="read only: EPERM for changes")
def clock_adjtime(task: Task, clock_id: Int, timex: Addr) -> int:
    """clock_adjtime(2)."""
    if clock_id == t.CLOCK_REALTIME:
        return adjtimex(task, timex)
    if _is_clock_device(clock_id):
        raise SysError(errno.EINVAL)
    if clock_id not in WALL_CLOCKS and clock_id not in ALARM_CLOCKS:
        find_clock(task, clock_id)
    raise SysError(errno.EOPNOTSUPP)


# Sleeping.


async def _sleep(task: Task, clock: Clock, target: int, remaining: int) -> int:
    """Sleep until `clock` shows `target`.  Relative sleeps only: at a signal the rest is written to
    `remaining` (0: not wanted), and the sleep can be continued."""
    try:
        while clock.now() < target:
            await block(deadline=clock.deadline(target))
    except Interrupted:
        left = target - clock.now()
        if left <= 0:
            return 0
        if remaining:
            task.mm.write(remaining, t.pack_timespec(left))
        raise RestartBlock(lambda again: _sleep(again, clock, target, remaining)) from None
    return 0


@syscall(SYS.nanosleep)
async def nanosleep(task: Task, request: Addr, remaining: Addr) -> int:
    """nanosleep(2)."""
    duration = _read_timespec(task, request)
    return await _sleep(task, MONOTONIC, monotonic_ns() + duration, remaining)


@syscall(SYS.clock_nanosleep, on_signal=ERESTARTNOHAND)
async def clock_nanosleep(task: Task, clock_id: Int, flags: Int, request: Addr, remaining: Addr) -> int:
    """clock_nanosleep(2)."""
    if clock_id == t.CLOCK_THREAD_CPUTIME_ID:
        raise SysError(errno.EOPNOTSUPP)
    clock = _timer_clock(task, clock_id)
    target = _read_timespec(task, request)
    if clock.owner is task:
        raise SysError(errno.EINVAL)
    if not flags & t.TIMER_ABSTIME:
        # A relative sleep does not notice that a clock is set, so all wall clocks are one.
        if clock.owner is None:
            clock = MONOTONIC
        return await _sleep(task, clock, clock.now() + target, remaining)
    while clock.now() < target:
        await block(deadline=clock.deadline(target))
    return 0


# Interval timers.


def _pack_itimerval(value: int, interval: int) -> bytes:
    return t.pack_timeval(interval) + t.pack_timeval(value)


def _shown(remaining: int) -> int:
    """A running timer never shows 0: at least a microsecond."""
    return max(1000, remaining) if remaining else 0


@syscall(SYS.getitimer)
def getitimer(task: Task, which: Int, value: Addr) -> None:
    """getitimer(2)."""
    if which not in (t.ITIMER_REAL, t.ITIMER_VIRTUAL, t.ITIMER_PROF):
        raise SysError(errno.EINVAL)
    timer = interval_timer(task.group, which)
    task.mm.write(value, _pack_itimerval(_shown(timer.remaining()), timer.interval))


@syscall(SYS.setitimer)
def setitimer(task: Task, which: Int, new: Addr, old: Addr) -> None:
    """setitimer(2); no new value means 0, as Linux has it."""
    value = interval = 0
    if new:
        raw = t.ITIMERSPEC.unpack(task.mm.read(new, t.ITIMERSPEC.size))
        interval, value = t.timeval_ns(*raw[:2]), t.timeval_ns(*raw[2:])
    if which not in (t.ITIMER_REAL, t.ITIMER_VIRTUAL, t.ITIMER_PROF):
        raise SysError(errno.EINVAL)
    timer = interval_timer(task.group, which)
    before = _pack_itimerval(_shown(timer.remaining()), timer.interval)
    if value:
        timer.arm(timer.clock.now() + value, interval)
    else:
        timer.cancel()
        timer.interval = interval
    if old:
        task.mm.write(old, before)


@syscall(SYS.alarm)
def alarm(task: Task, seconds: UInt) -> int:
    """alarm(2): seconds that were left of the previous one, rounded, but never to 0."""
    timer = interval_timer(task.group, t.ITIMER_REAL)
    left = _shown(timer.remaining()) // 1000
    if seconds:
        timer.arm(monotonic_ns() + min(seconds, INT_MAX) * t.NS)
    else:
        timer.cancel()
    whole, micro = divmod(left, 1_000_000)
    return whole + (micro >= 500_000 or (whole == 0 and micro > 0))


# POSIX timers.


def _find_timer(task: Task, timer_id: int) -> PosixTimer:
    timer = task.group.posix_timers.get(timer_id)
    if timer is None:
        raise SysError(errno.EINVAL)
    assert isinstance(timer, PosixTimer)
    return timer


def _new_timer_id(task: Task) -> int:
    """Ids count up, so that a stale one is not somebody else's at once; SysError(EAGAIN)."""
    group = task.group
    if len(group.posix_timers) >= group.limit(RLIMIT_SIGPENDING) or PosixTimer.total >= MAX_QUEUED:
        raise SysError(errno.EAGAIN)
    timer_id = int(group.extra.get("next_timer_id", 0)) if group.posix_timers else 0
    while timer_id in group.posix_timers:
        timer_id = (timer_id + 1) & INT_MAX
    group.extra["next_timer_id"] = (timer_id + 1) & INT_MAX
    return timer_id


def _check_sigevent(task: Task, notify: int, signo: int, tid: int) -> Task | None:
    """The task that a SIGEV_THREAD_ID names; SysError(EINVAL) as good_sigevent() has it."""
    if notify not in (t.SIGEV_SIGNAL, t.SIGEV_NONE, t.SIGEV_THREAD, t.SIGEV_THREAD_ID):
        raise SysError(errno.EINVAL)
    target: Task | None = None
    if notify == t.SIGEV_THREAD_ID:
        target = task.find_task(tid)
        if target is None or target.group is not task.group:
            raise SysError(errno.EINVAL)
    if notify != t.SIGEV_NONE and not 0 < signo <= NSIG:
        raise SysError(errno.EINVAL)
    return target


@syscall(SYS.timer_create)
def timer_create(task: Task, clock_id: Int, event: Addr, timer_addr: Addr) -> None:
    """timer_create(2)."""
    raw = task.mm.read(event, t.SIGEVENT_SIZE) if event else None
    clock = _timer_clock(task, clock_id)
    timer_id = _new_timer_id(task)
    if raw is None:
        value, signo, notify, tid = timer_id, SIGALRM, t.SIGEV_SIGNAL, 0
    else:
        value, signo, notify, tid = t.SIGEVENT.unpack_from(raw)
    target = _check_sigevent(task, notify, signo, tid)
    task.mm.write_u32(timer_addr, timer_id)
    task.group.posix_timers[timer_id] = PosixTimer(task.group, clock, timer_id, notify, signo, value, target)


def _pack_itimerspec(timer: PosixTimer) -> bytes:
    return t.pack_itimerspec(timer.interval, timer.remaining())


@syscall(SYS.timer_settime)
def timer_settime(task: Task, timer_id: Int, flags: Int, new: Addr, old: Addr) -> None:
    """timer_settime(2)."""
    if not new:
        raise SysError(errno.EINVAL)
    interval, value = t.unpack_itimerspec(task.mm.read(new, t.ITIMERSPEC.size))
    timer = _find_timer(task, timer_id)
    before = _pack_itimerspec(timer)
    timer.overrun = 0
    if value:
        timer.arm(value if flags & t.TIMER_ABSTIME else timer.clock.now() + value, interval)
    else:
        timer.cancel()
    if old:
        task.mm.write(old, before)


@syscall(SYS.timer_gettime)
def timer_gettime(task: Task, timer_id: Int, value: Addr) -> None:
    """timer_gettime(2)."""
    data = _pack_itimerspec(_find_timer(task, timer_id))
    task.mm.write(value, data)


@syscall(SYS.timer_getoverrun)
def timer_getoverrun(task: Task, timer_id: Int) -> int:
    """timer_getoverrun(2)."""
    return _find_timer(task, timer_id).overrun


@syscall(SYS.timer_delete)
def timer_delete(task: Task, timer_id: Int) -> None:
    """timer_delete(2)."""
    _find_timer(task, timer_id).cancel()
    del task.group.posix_timers[timer_id]
