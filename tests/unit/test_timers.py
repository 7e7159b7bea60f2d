"""Clocks, sleeps and signal timers: the scheduler is turned by hand, so nothing depends on speed."""

from __future__ import annotations

import errno
import time
from struct import pack, unpack

import pytest
from misc_support import BASE, World

from sentry.abi import time as t
from sentry.abi.errors import SysError
from sentry.abi.signal import SI_TIMER, SIGALRM, SIGRTMIN, SIGUSR1, bit
from sentry.abi.syscall_nr import SYS
from sentry.kernel import timers
from sentry.kernel.timers import Clock, PosixTimer, TimerInfo, find_clock
from sentry.kernel.wait import Interrupted, Runner
from sentry.syscalls.table import TABLE, RestartBlock

HOUR = 3600 * t.NS
HANDLER = (0x400000, 0, 0, 0)


class FakeClock(Clock):
    """A clock that the test sets."""

    __slots__ = ("time",)

    def __init__(self) -> None:
        super().__init__(t.CLOCK_MONOTONIC)
        self.time = 1000 * t.NS

    def now(self) -> int:
        return self.time

    def deadline(self, target: int) -> int:
        # Due at once for the scheduler: the timer has to look at the clock by itself.
        return 0


class Sleeper(Runner):
    """Carries a handler that sleeps, and keeps what ended it."""

    error: BaseException | None = None

    def finished(self, result: object, error: BaseException | None) -> None:
        self.error = error


@pytest.fixture
def world() -> World:
    world = World()
    hand = world.task.group.sighand
    for signo in (SIGALRM, SIGUSR1, SIGRTMIN):
        hand.set(signo, HANDLER)
    return world


def look(timer: timers.KernelTimer) -> None:
    """Let `timer` look at its clock, as the scheduler would."""
    timer._look_at(None)
    timer._check()


@pytest.mark.parametrize("seconds, nanoseconds", [(-1, 0), (0, -1), (0, t.NS), (5, 1 << 40)])
def test_bad_timespec(seconds: int, nanoseconds: int) -> None:
    with pytest.raises(SysError) as error:
        t.timespec_ns(seconds, nanoseconds)
    assert error.value.errno == errno.EINVAL


def test_times_beyond_the_clock_are_cut() -> None:
    assert t.timespec_ns(1 << 62, 5) == t.KTIME_MAX


def test_clock_gettime_follows_the_host(world: World) -> None:
    for clock_id in timers.WALL_CLOCKS:
        before = time.clock_gettime_ns(clock_id)
        assert world.call(SYS.clock_gettime, clock_id, BASE) == 0
        seconds, nanoseconds = unpack("<qq", world.task.mm.read(BASE, 16))
        assert before <= seconds * t.NS + nanoseconds <= time.clock_gettime_ns(clock_id)
    assert world.call(SYS.clock_gettime, 1, 0) == -errno.EFAULT


@pytest.mark.parametrize("clock_id", [8, 9, 10, 12, 16, 77, -1, -5, (~99999 << 3) | 2])
def test_clocks_that_are_not_there(world: World, clock_id: int) -> None:
    assert world.call(SYS.clock_gettime, clock_id, BASE) == -errno.EINVAL
    assert world.call(SYS.clock_getres, clock_id, 0) == -errno.EINVAL


def test_clocks_that_cannot_time_anything(world: World) -> None:
    world.task.mm.write(BASE, pack("<qq", 0, 1))
    for clock_id in (4, 5, 6, 8, 9):
        assert world.call(SYS.clock_nanosleep, clock_id, 0, BASE, 0) == -errno.EOPNOTSUPP
        assert world.call(SYS.timer_create, clock_id, 0, BASE + 64) == -errno.EOPNOTSUPP
    assert world.call(SYS.clock_nanosleep, 10, 0, BASE, 0) == -errno.EINVAL
    assert world.call(SYS.clock_nanosleep, t.CLOCK_THREAD_CPUTIME_ID, 0, BASE, 0) == -errno.EOPNOTSUPP


def test_nobody_sets_clocks(world: World) -> None:
    world.task.mm.write(BASE, pack("<qq", 5, 0))
    assert world.call(SYS.clock_settime, 0, BASE) == -errno.EPERM
    assert world.call(SYS.clock_settime, 0, 0) == -errno.EFAULT
    assert world.call(SYS.clock_settime, 1, BASE) == -errno.EINVAL
    assert world.call(SYS.settimeofday, BASE, 0) == -errno.EPERM
    world.task.mm.write(BASE, bytes(208))
    assert world.call(SYS.adjtimex, BASE) == t.TIME_ERROR
    world.task.mm.write_u32(BASE, 2)
    assert world.call(SYS.adjtimex, BASE) == -errno.EPERM
    assert world.call(SYS.clock_adjtime, 1, BASE) == -errno.EOPNOTSUPP


def test_cpu_clocks_of_processes_and_threads(world: World) -> None:
    task, other = world.task, world.new_process()
    task.utime_ns, task.stime_ns = 3 * t.NS, 2 * t.NS
    other.utime_ns = 7 * t.NS
    thread = world.new_task(task.group, world.kernel.new_pid())
    thread.utime_ns = t.NS
    tgid = task.group.tgid
    assert find_clock(task, t.CLOCK_PROCESS_CPUTIME_ID).now() == 6 * t.NS
    assert find_clock(task, t.CLOCK_THREAD_CPUTIME_ID).now() == 5 * t.NS
    assert find_clock(task, ~tgid << 3 | t.CPUCLOCK_VIRT).now() == 4 * t.NS
    assert find_clock(task, ~thread.tid << 3 | 6).now() == t.NS
    assert find_clock(task, ~other.tid << 3 | 2).now() == 7 * t.NS
    with pytest.raises(SysError):
        find_clock(task, ~other.tid << 3 | 6)
    assert find_clock(task, ~tgid << 3).resolution() == t.TICK_NS


def test_nanosleep_reports_the_rest_and_can_be_continued(world: World) -> None:
    task = world.task
    task.mm.write(BASE, pack("<qq", 3600, 0))
    sleeper = Sleeper(world.kernel.scheduler)
    sleeper.start(TABLE[SYS.nanosleep].handler(task, BASE, BASE + 16))
    assert sleeper.sleeping
    sleeper.interrupt()
    world.kernel.scheduler.run()
    assert isinstance(sleeper.error, RestartBlock)
    seconds, nanoseconds = unpack("<qq", task.mm.read(BASE + 16, 16))
    assert 3500 * t.NS < seconds * t.NS + nanoseconds < HOUR
    sleeper.start(sleeper.error.continuation(task))
    assert sleeper.sleeping
    sleeper.interrupt()
    world.kernel.scheduler.run()
    assert isinstance(sleeper.error, RestartBlock)


def test_absolute_sleep_is_simply_interrupted(world: World) -> None:
    task = world.task
    task.mm.write(BASE, pack("<qq", time.time_ns() // t.NS + 3600, 0) + b"untouched")
    sleeper = Sleeper(world.kernel.scheduler)
    sleeper.start(
        TABLE[SYS.clock_nanosleep].handler(task, t.CLOCK_REALTIME, t.TIMER_ABSTIME, BASE, BASE + 16)
    )
    sleeper.interrupt()
    world.kernel.scheduler.run()
    assert isinstance(sleeper.error, Interrupted) and task.mm.read(BASE + 16, 9) == b"untouched"


def test_sleeps_that_are_over_at_once(world: World) -> None:
    world.task.mm.write(BASE, pack("<qq", 0, 0))
    assert world.call(SYS.nanosleep, BASE, 0) == 0
    assert world.call(SYS.nanosleep, 0, 0) == -errno.EFAULT
    world.task.mm.write(BASE, pack("<qq", 1, 0))
    assert world.call(SYS.clock_nanosleep, t.CLOCK_REALTIME, t.TIMER_ABSTIME, BASE, 0) == 0


def test_alarm_and_setitimer_share_one_timer(world: World) -> None:
    mm = world.task.mm
    assert world.call(SYS.alarm, 100) == 0
    assert world.call(SYS.alarm, 50) == 100
    assert world.call(SYS.getitimer, 0, BASE) == 0
    interval_s, interval_us, seconds, micro = unpack("<4q", mm.read(BASE, 32))
    assert (interval_s, interval_us) == (0, 0) and 49 <= seconds + micro / 1e6 <= 50
    mm.write(BASE, pack("<4q", 1, 0, 0, 600_000))
    assert world.call(SYS.setitimer, 0, BASE, 0) == 0
    assert world.call(SYS.alarm, 0) == 1
    assert world.call(SYS.getitimer, 0, BASE) == 0 and not any(mm.read(BASE, 32))
    assert world.call(SYS.getitimer, 3, BASE) == -errno.EINVAL
    mm.write(BASE, pack("<4q", 0, 0, 0, 1_000_000))
    assert world.call(SYS.setitimer, 0, BASE, 0) == -errno.EINVAL
    assert world.call(SYS.setitimer, 0, 0, 0) == 0


def test_interval_timer_sends_one_signal_at_a_time(world: World) -> None:
    group = world.task.group
    world.task.blocked = bit(SIGALRM)
    timer = timers.interval_timer(group, t.ITIMER_REAL)
    clock = timer.clock = FakeClock()
    timer.arm(clock.time + 100, 100)
    look(timer)
    assert not group.pending.bits
    clock.time += 100
    look(timer)
    assert group.pending.bits == bit(SIGALRM)
    clock.time += 250
    look(timer)
    assert len(group.pending.queues[SIGALRM]) == 1
    assert timer.expiry > clock.time and timer.interval == 100


def create(world: World, notify: int = t.SIGEV_SIGNAL, signo: int = SIGUSR1, tid: int = 0) -> PosixTimer:
    world.task.mm.write(BASE, pack("<Qiii", 0x1234, signo, notify, tid).ljust(64, b"\0"))
    assert world.call(SYS.timer_create, t.CLOCK_MONOTONIC, BASE, BASE + 64) == 0
    timer_id = world.task.mm.read_u32(BASE + 64)
    timer = world.task.group.posix_timers[timer_id]
    timer.clock = FakeClock()
    return timer


def test_posix_timer_counts_overruns(world: World) -> None:
    world.task.blocked = bit(SIGRTMIN)
    timer = create(world, signo=SIGRTMIN)
    clock = timer.clock
    timer.arm(clock.time + 100, 100)
    clock.time += 100
    look(timer)
    clock.time += 350
    look(timer)
    queue = world.task.group.pending.queues[SIGRTMIN]
    assert len(queue) == 1
    info = world.task.take_signal(bit(SIGRTMIN))
    assert isinstance(info, TimerInfo)
    signo, _, code, _, timer_id, overrun, value = unpack("<iiiiiiQ", info.pack()[:32])
    assert (signo, code, timer_id, overrun, value) == (SIGRTMIN, SI_TIMER, timer.timer_id, 3, 0x1234)
    assert world.call(SYS.timer_getoverrun, timer.timer_id) == 3
    assert timer.remaining() == 50


def test_setting_a_timer_anew_detaches_the_old_signal(world: World) -> None:
    world.task.blocked = bit(SIGUSR1)
    timer = create(world)
    timer.arm(timer.clock.time, 100)
    look(timer)
    info = world.task.take_signal(bit(SIGUSR1))
    timer.arm(timer.clock.time + HOUR)
    assert info is not None
    info.pack()
    assert timer.remaining() == HOUR and timer.overrun == 0


def test_ignored_signals_do_not_stop_a_periodic_timer(world: World) -> None:
    timer = create(world)
    world.task.group.sighand.set(SIGUSR1, (1, 0, 0, 0))
    timer.arm(timer.clock.time, 100)
    look(timer)
    assert timer.expiry > timer.clock.time and timer._handle is not None


def test_a_full_signal_queue_delays_the_timer(world: World) -> None:
    world.task.blocked = bit(SIGRTMIN)
    timer = create(world, signo=SIGRTMIN)
    world.task.group.limits[11] = (0, 0)
    timer.arm(timer.clock.time, 0)
    look(timer)
    assert not world.task.group.pending.bits and timer.expiry and timer._handle is not None


def test_thread_directed_timer(world: World) -> None:
    group = world.task.group
    thread = world.new_task(group, world.kernel.new_pid())
    thread.blocked = bit(SIGUSR1)
    timer = create(world, t.SIGEV_THREAD_ID, SIGUSR1, thread.tid)
    timer.arm(timer.clock.time)
    look(timer)
    assert thread.pending.bits == bit(SIGUSR1) and not group.pending.bits


def test_timer_without_notification_only_counts_down(world: World) -> None:
    timer = create(world, t.SIGEV_NONE)
    timer.arm(timer.clock.time + 100, 40)
    assert timer._handle is None
    timer.clock.time += 150
    assert timer.remaining() == 30
    timer.arm(timer.clock.time + 100)
    timer.clock.time += 150
    assert timer.remaining() == 0


@pytest.mark.parametrize(
    "notify, signo, tid",
    [(0, 0, 0), (0, 65, 0), (2, 0, 0), (3, 10, 0), (4, 10, 99), (5, 10, 0), (-1, 10, 0)],
)
def test_bad_sigevent(world: World, notify: int, signo: int, tid: int) -> None:
    world.task.mm.write(BASE, pack("<Qiii", 0, signo, notify, tid).ljust(64, b"\0"))
    assert world.call(SYS.timer_create, 1, BASE, BASE + 64) == -errno.EINVAL
    assert not world.task.group.posix_timers


def test_timer_calls(world: World) -> None:
    mm = world.task.mm
    timer = create(world)
    timer_id = timer.timer_id
    for nr in (SYS.timer_delete, SYS.timer_getoverrun):
        assert world.call(nr, timer_id + 1) == -errno.EINVAL
    assert world.call(SYS.timer_settime, timer_id, 0, 0, 0) == -errno.EINVAL
    mm.write(BASE, pack("<4q", 2, 0, 5, 0))
    assert world.call(SYS.timer_settime, timer_id, 0, BASE, BASE + 32) == 0
    assert not any(mm.read(BASE + 32, 32))
    assert world.call(SYS.timer_gettime, timer_id, BASE + 32) == 0
    assert unpack("<4q", mm.read(BASE + 32, 32)) == (2, 0, 5, 0)
    mm.write(BASE, pack("<4q", 0, 0, 0, 0))
    assert world.call(SYS.timer_settime, timer_id, 0, BASE, BASE + 32) == 0
    assert unpack("<4q", mm.read(BASE + 32, 32)) == (2, 0, 5, 0)
    assert world.call(SYS.timer_gettime, timer_id, BASE) == 0 and not any(mm.read(BASE, 32))
    assert world.call(SYS.timer_delete, timer_id) == 0
    assert world.call(SYS.timer_gettime, timer_id, BASE) == -errno.EINVAL


def test_timers_have_a_limit(world: World) -> None:
    world.task.group.limits[11] = (3, 3)
    results = [world.call(SYS.timer_create, 1, 0, BASE) for _ in range(4)]
    assert results == [0, 0, 0, -errno.EAGAIN]


def test_the_end_of_a_process_ends_its_timers(world: World) -> None:
    timer = create(world)
    timer.clock = timers.MONOTONIC
    timer.arm(time.monotonic_ns() + HOUR, 0)
    timer.cancel()
    assert timer._handle is None and world.kernel.scheduler.timeout() == -1


def test_times_and_gettimeofday(world: World) -> None:
    task = world.task
    task.utime_ns, task.group.child_stime = 25_000_000, 2 * t.NS
    assert world.call(SYS.times, BASE) > 0
    assert unpack("<4q", task.mm.read(BASE, 32)) == (2, 0, 0, 200)
    assert world.call(SYS.times, 8) == -errno.EFAULT
    assert world.call(SYS.gettimeofday, BASE, BASE + 16) == 0
    assert abs(unpack("<q", task.mm.read(BASE, 8))[0] - time.time()) < 60
    assert world.call(SYS.time, BASE) == task.mm.read_u64(BASE)
