"""Clocks, and the timers that send signals: setitimer(2), timer_create(2).

A `Clock` is something with a time in nanoseconds: one of the host's clocks, or the CPU time that a
task or a thread group has used.  A `KernelTimer` expires when its clock reaches `expiry`.  It sits
in the scheduler's heap under the monotonic time at which to look next; for a CPU clock, whose pace
nobody knows in advance, that is a guess which `_check` refines.

Invariants: `expiry` is 0 while disarmed; `_handle` is the one entry in the heap, or None.  A timer
whose signal has not been delivered yet sends no second one: expirations meanwhile are counted
(timer_getoverrun(2)), and looked at rarely, so that no interval however short can keep the loop busy.
Nor can it keep the program busy with its handler only: see `hurry`.
"""

from __future__ import annotations

import errno
from time import clock_gettime_ns, monotonic_ns

from sentry.abi.errors import SysError
from sentry.abi.resource import RLIM_INFINITY, RLIMIT_CPU
from sentry.abi.signal import SI_KERNEL, SI_TIMER, SIGALRM, SIGKILL, SIGPROF, SIGVTALRM, SIGXCPU, SigInfo
from sentry.abi.time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_COARSE,
    CLOCK_MONOTONIC_RAW,
    CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
    CLOCK_REALTIME_COARSE,
    CLOCK_TAI,
    CLOCK_THREAD_CPUTIME_ID,
    CLOCKFD,
    CPUCLOCK_PERTHREAD,
    CPUCLOCK_PROF,
    CPUCLOCK_SCHED,
    CPUCLOCK_VIRT,
    ITIMER_PROF,
    ITIMER_REAL,
    ITIMER_VIRTUAL,
    NS,
    SIGEV_NONE,
    SIGEV_THREAD_ID,
    TICK_NS,
)
from sentry.kernel.cputime import group_times, outside, task_times
from sentry.kernel.group import ThreadGroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.signals import SigPending
    from sentry.kernel.task import Task
    from sentry.kernel.wait import Timer

WALL_CLOCKS = (
    CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE,
    CLOCK_BOOTTIME, CLOCK_TAI,
)  # fmt: skip
#: Those that have timers and sleeps.
TIMER_CLOCKS = (CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI)
ALARM_CLOCKS = (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)

#: Never look further ahead than this (about twelve days): keeps deadlines small for everybody below.
FARTHEST_NS = 1_000_000_000_000_000
#: The shortest time between two signals of one timer.
SHORTEST_NS = 50_000
#: How often to look again at a timer whose signal is still pending.
PENDING_NS = 10_000_000
#: At most this power of two times SHORTEST_NS, for a program that comes to nothing but its handler.
MAX_STREAK = 10
OVERRUN_MAX = 0x7FFF_FFFF


class Clock:
    """A wall clock (`owner` None) or the CPU time of `owner`, a Task or ThreadGroup."""

    __slots__ = ("clock_id", "kind", "owner")

    def __init__(
        self, clock_id: int, owner: Task | ThreadGroup | None = None, kind: int = CPUCLOCK_SCHED
    ) -> None:
        self.clock_id = clock_id
        self.owner = owner
        #: CPUCLOCK_VIRT counts user time, the others user and system time.
        self.kind = kind

    def now(self) -> int:
        owner = self.owner
        if owner is None:
            return clock_gettime_ns(self.clock_id)
        user, system = group_times(owner) if isinstance(owner, ThreadGroup) else task_times(owner)
        return user if self.kind == CPUCLOCK_VIRT else user + system

    def resolution(self) -> int:
        if self.owner is not None:
            return 1 if self.kind == CPUCLOCK_SCHED else TICK_NS
        return TICK_NS if self.clock_id in (CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE) else 1

    def deadline(self, target: int) -> int:
        """The monotonic time at which to look whether this clock has reached `target`."""
        left = max(0, target - self.now())
        if self.owner is not None:
            tasks = len(self.owner.tasks) if isinstance(self.owner, ThreadGroup) else 1
            left = max(TICK_NS, left // max(1, tasks))
        return monotonic_ns() + min(left, FARTHEST_NS)


MONOTONIC = Clock(CLOCK_MONOTONIC)


def find_clock(task: Task, clock_id: int) -> Clock:
    """The clock that `task` means by `clock_id`; SysError(EINVAL).  Alarm clocks have no time here."""
    if clock_id in WALL_CLOCKS or clock_id in ALARM_CLOCKS:
        return Clock(clock_id)
    if clock_id == CLOCK_PROCESS_CPUTIME_ID:
        return Clock(clock_id, task.group)
    if clock_id == CLOCK_THREAD_CPUTIME_ID:
        return Clock(clock_id, task)
    kind = clock_id & 3
    if clock_id >= 0 or kind == CLOCKFD:
        raise SysError(errno.EINVAL)
    pid = ~(clock_id >> 3)
    owner: Task | ThreadGroup | None
    if clock_id & CPUCLOCK_PERTHREAD:
        owner = task if pid == 0 else task.find_task(pid)
        if owner is not None and owner.group is not task.group:
            owner = None
    else:
        owner = task.group if pid in (0, task.pid.vnr) else task.find_group(pid)
    if owner is None:
        raise SysError(errno.EINVAL)
    return Clock(clock_id, owner, kind)


class KernelTimer:
    """A time on a clock and what happens then; `cancel` may be called at any time."""

    __slots__ = ("_handle", "clock", "expiry", "group", "interval")

    def __init__(self, group: ThreadGroup, clock: Clock) -> None:
        self.group = group
        self.clock = clock
        #: In the clock's time; 0: disarmed.
        self.expiry = 0
        self.interval = 0
        self._handle: Timer | None = None

    def arm(self, expiry: int, interval: int = 0) -> None:
        """Expire when the clock shows `expiry`, then every `interval` ns (0: once)."""
        self.cancel()
        self.expiry = max(1, expiry)
        self.interval = interval
        self._look_at(self.clock.deadline(self.expiry))

    def cancel(self) -> None:
        """Disarm."""
        self.expiry = self.interval = 0
        self._look_at(None)

    def _look_at(self, deadline: int | None) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if deadline is not None:
            self._handle = self.group.kernel.scheduler.at(deadline, self._check)

    def remaining(self) -> int:
        """Nanoseconds until the next expiry; 0 when disarmed, at least 1 when armed."""
        if not self.expiry:
            return 0
        left = self.expiry - self.clock.now()
        if left <= 0 and self.interval:
            left = self.interval - -left % self.interval
        return max(1, left)

    def _check(self) -> None:
        self._handle = None
        if not self.expiry or self.group.zombie:
            return
        now = self.clock.now()
        if now < self.expiry:
            self._look_at(self.clock.deadline(self.expiry))
        else:
            self.expired(now)

    def _advance(self, now: int) -> int:
        """Move `expiry` behind `now`; how many expirations are skipped by that."""
        skipped = max(0, now - self.expiry) // self.interval
        self.expiry += (skipped + 1) * self.interval
        return skipped

    def _chosen(self, signo: int) -> Task | None:
        """Who is to take the signal of a CPU timer of the process; None: whoever would take any.

        On Linux it is the thread that runs when the time is up; here the one that has been in its program for
        longest since it was chosen before."""
        tasks = self.group.tasks
        if self.clock.owner is not self.group or len(tasks) == 1:
            return None
        best, most = None, -1
        for task in tasks:
            thread = task.thread
            if not task.running or thread.asleep or thread.blocked or task.blocked >> (signo - 1) & 1:
                continue
            used = outside(task) - task.signalled_ns
            if used > most:
                best, most = task, used
        if best is not None:
            best.signalled_ns = outside(best)
        return best

    def expired(self, now: int) -> None:
        raise NotImplementedError


ITIMER_SIGNALS = {ITIMER_REAL: SIGALRM, ITIMER_VIRTUAL: SIGVTALRM, ITIMER_PROF: SIGPROF}


class IntervalTimer(KernelTimer):
    """One of the three timers of setitimer(2)."""

    __slots__ = ("signo",)

    def __init__(self, group: ThreadGroup, which: int) -> None:
        kinds = {ITIMER_VIRTUAL: CPUCLOCK_VIRT, ITIMER_PROF: CPUCLOCK_PROF}
        super().__init__(group, Clock(-1, group, kinds[which]) if which in kinds else MONOTONIC)
        self.signo = ITIMER_SIGNALS[which]

    def expired(self, now: int) -> None:
        pending = bool(self.group.pending.bits >> (self.signo - 1) & 1)
        if not pending:
            self.group.send_signal(self.signo, SigInfo(self.signo, SI_KERNEL), self._chosen(self.signo))
        if not self.interval:
            self.expiry = 0
            return
        self._advance(now)
        pause = PENDING_NS if pending else SHORTEST_NS
        self._look_at(max(self.clock.deadline(self.expiry), monotonic_ns() + pause))


def interval_timer(group: ThreadGroup, which: int) -> IntervalTimer:
    """The timer ITIMER_… of `group`, made when first needed."""
    timer = group.itimer_real if which == ITIMER_REAL else group.itimers.get(which)
    if timer is None:
        timer = IntervalTimer(group, which)
        if which == ITIMER_REAL:
            group.itimer_real = timer
        else:
            group.itimers[which] = timer
    assert isinstance(timer, IntervalTimer)
    return timer


class CpuLimit(KernelTimer):
    """RLIMIT_CPU (getrlimit(2)): SIGXCPU at the soft limit and every second on, SIGKILL at the hard."""

    __slots__ = ()

    def __init__(self, group: ThreadGroup) -> None:
        super().__init__(group, Clock(-1, group, CPUCLOCK_PROF))

    def start(self) -> None:
        """The limits have been set.  No time at all means one second, as on Linux."""
        soft, _ = self.group.limits[RLIMIT_CPU]
        self.cancel()
        if soft != RLIM_INFINITY:
            self.arm(max(1, soft) * NS)

    def expired(self, now: int) -> None:
        soft, hard = self.group.limits[RLIMIT_CPU]
        if now >= hard * NS:
            self.group.send_signal(SIGKILL)
            return
        self.group.send_signal(SIGXCPU, SigInfo(SIGXCPU, SI_KERNEL))
        self.group.set_limit(RLIMIT_CPU, min(max(1, soft) + 1, hard), hard)
        self.start()


def watch_cpu_limit(group: ThreadGroup) -> None:
    """RLIMIT_CPU of `group` has been set, or `group` is new and has inherited one."""
    limit = group.extra.get("cpu limit")
    if limit is None:
        if group.limit(RLIMIT_CPU) == RLIM_INFINITY:
            return
        limit = group.extra["cpu limit"] = CpuLimit(group)
    limit.start()


class TimerInfo(SigInfo):
    """The siginfo of a POSIX timer: packing it is its delivery, when the overruns are known."""

    __slots__ = ("hurried", "setting", "timer")
    preallocated = True

    def __init__(self, timer: PosixTimer) -> None:
        super().__init__(timer.signo, SI_TIMER, value=timer.value, timerid=timer.timer_id)
        self.timer = timer
        self.setting = timer.setting
        #: The program has been nowhere but in a handler since the signal before.
        self.hurried = False

    def pack(self) -> bytes:
        self.timer.delivered(self)
        return super().pack()


def hurry(task: Task) -> None:
    """`task` has ended a handler, and the next signal is there already.

    A handler costs a program much more here than on Linux, and all the more if others run, too.  A timer with
    a short interval would have its next signal ready whenever the handler ends, and the program would never
    get on; so the timer waits longer each time."""
    for pending in (task.pending, task.group.pending):
        for signo, queue in pending.queues.items():
            if queue and not task.blocked >> (signo - 1) & 1 and isinstance(queue[0], TimerInfo):
                queue[0].hurried = True


class PosixTimer(KernelTimer):
    """A timer of timer_create(2).  `target` is the task that SIGEV_THREAD_ID names, else None."""

    __slots__ = ("info", "notify", "overrun", "setting", "signo", "streak", "target", "timer_id", "value")
    #: How many there are.
    total = 0

    def __init__(
        self, group: ThreadGroup, clock: Clock, timer_id: int, notify: int, signo: int, value: int,
        target: Task | None = None,
    ) -> None:  # fmt: skip
        super().__init__(group, clock)
        PosixTimer.total += 1
        self.timer_id = timer_id
        self.notify = notify
        self.signo = signo
        self.value = value
        self.target = target if notify & SIGEV_THREAD_ID else None
        #: Overruns of the last delivered signal.
        self.overrun = 0
        #: Counts timer_settime calls, so that a signal of an old setting doesn't re-arm the new one.
        self.setting = 0
        #: The signal on its way, if there is one.
        self.info: TimerInfo | None = None
        #: How often, about, a signal has come right behind the handler of the one before.
        self.streak = 0

    def __del__(self) -> None:
        PosixTimer.total -= 1

    def arm(self, expiry: int, interval: int = 0) -> None:
        super().arm(expiry, interval)
        if self.notify == SIGEV_NONE:
            self._look_at(None)

    def cancel(self) -> None:
        super().cancel()
        self.setting += 1
        self.info = None

    def remaining(self) -> int:
        if self.notify == SIGEV_NONE and not self.interval and self.expiry <= self.clock.now():
            return 0
        return super().remaining()

    def _still_pending(self) -> bool:
        pending: SigPending = self.group.pending if self.target is None else self.target.pending
        return self.info is not None and self.info in pending.queues.get(self.signo, ())

    def expired(self, now: int) -> None:
        if self._still_pending():
            self._look_at(monotonic_ns() + max(self.interval, PENDING_NS))
            return
        self.info = TimerInfo(self)
        try:
            if self.target is None:
                self.group.send_signal(self.signo, self.info, self._chosen(self.signo))
            else:
                self.target.send_signal(self.signo, self.info)
        except SysError:
            # RLIMIT_SIGPENDING: try again later.
            self._look_at(monotonic_ns() + PENDING_NS)
            return
        if not self.interval:
            self.expiry = 0
        elif self._still_pending():
            # `delivered` counts what is missed until then and arms the timer anew.
            self._look_at(monotonic_ns() + max(self.interval, PENDING_NS))
        else:
            # The signal is ignored; go on in case that changes.
            self._advance(now)
            self._look_at(max(self.clock.deadline(self.expiry), monotonic_ns() + PENDING_NS))

    def delivered(self, info: TimerInfo) -> None:
        """`info` reaches the program: account for what it missed since, and arm for the next time."""
        if info is not self.info or info.setting != self.setting:
            return
        self.info = None
        self.overrun = 0
        if self.interval and self.expiry:
            self.overrun = info.overrun = min(self._advance(self.clock.now()), OVERRUN_MAX)
            self.streak = min(self.streak + 1, MAX_STREAK) if info.hurried else self.streak // 2
            pause = SHORTEST_NS << self.streak
            self._look_at(max(self.clock.deadline(self.expiry), monotonic_ns() + pause))
