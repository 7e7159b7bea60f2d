"""The suspension point: order of events, wake-ups, deadlines, interruption."""

from __future__ import annotations

from time import monotonic_ns

import pytest

from sentry.kernel.wait import MAX_TIMERS, Interrupted, Runner, Scheduler, WaitQueue, block, yield_now


class Sleeper(Runner):
    """A runner that records how its coroutine ended."""

    def __init__(self, scheduler):
        super().__init__(scheduler)
        self.pending = False
        self.dying = False
        self.outcome = None

    def signal_pending(self):
        return self.pending

    def kill_pending(self):
        return self.dying

    def finished(self, result, error):
        self.outcome = result if error is None else error


@pytest.fixture
def scheduler():
    return Scheduler()


def test_a_call_that_never_sleeps_ends_in_start(scheduler):
    sleeper = Sleeper(scheduler)

    async def call():
        return 7

    sleeper.start(call())
    assert sleeper.outcome == 7
    assert not sleeper.busy


def test_wake_matches_mask_and_counts(scheduler):
    queue = WaitQueue()
    sleepers = [Sleeper(scheduler) for _ in range(3)]

    async def call(mask):
        return await block((queue, mask))

    for sleeper, mask in zip(sleepers, (1, 2, 3), strict=True):
        sleeper.start(call(mask))
    assert queue.wake(1) == 2
    scheduler.run()
    assert [s.outcome for s in sleepers] == [True, None, True]
    assert queue.wake(4) == 0
    assert queue.wake() == 1
    scheduler.run()
    assert sleepers[1].outcome is True
    assert not queue, "nobody is left in the queue"


def test_exclusive_waiters_are_woken_one_by_one_in_order(scheduler):
    queue = WaitQueue()
    order = []

    async def call(name):
        await block((queue, 1), exclusive=True)
        order.append(name)

    for name in "abc":
        Sleeper(scheduler).start(call(name))
    for _ in range(3):
        assert queue.wake(1, count=1) == 1
        scheduler.run()
    assert order == ["a", "b", "c"]


def test_deadline_in_the_past_does_not_sleep(scheduler):
    sleeper = Sleeper(scheduler)

    async def call():
        return await block(deadline=monotonic_ns() - 1)

    sleeper.start(call())
    assert sleeper.outcome is False


def test_deadline_wakes_with_false(scheduler):
    sleeper = Sleeper(scheduler)

    async def call():
        return await block(deadline=monotonic_ns() + 1_000_000)

    sleeper.start(call())
    assert sleeper.sleeping
    while sleeper.busy:
        scheduler.run()
    assert sleeper.outcome is False


def test_two_wakes_of_one_sleep_count_once(scheduler):
    first, second = WaitQueue(), WaitQueue()
    sleeper = Sleeper(scheduler)
    seen = []

    async def call():
        seen.append(await block((first, 1), (second, 1)))
        seen.append(await block((first, 1)))

    sleeper.start(call())
    first.wake()
    second.wake()
    scheduler.run()
    assert seen == [True] and sleeper.sleeping


def test_interrupt_unwinds_and_leaves_no_entry(scheduler):
    queue = WaitQueue()
    sleeper = Sleeper(scheduler)

    async def call():
        await block((queue, 1))

    sleeper.start(call())
    sleeper.interrupt()
    scheduler.run()
    assert isinstance(sleeper.outcome, Interrupted)
    assert not queue


def test_pending_signal_prevents_an_interruptible_sleep_only(scheduler):
    queue = WaitQueue()
    one, other = Sleeper(scheduler), Sleeper(scheduler)
    one.pending = other.pending = True

    async def call(interruptible):
        return await block((queue, 1), interruptible=interruptible)

    one.start(call(True))
    other.start(call(False))
    assert isinstance(one.outcome, Interrupted)
    assert other.sleeping
    other.interrupt()
    assert other.sleeping, "interrupt does not end an uninterruptible sleep"
    other.kill()
    scheduler.run()
    assert isinstance(other.outcome, Interrupted), "but kill does, while it is killable"


def test_unkillable_sleep_ignores_kill(scheduler):
    queue = WaitQueue()
    sleeper = Sleeper(scheduler)
    sleeper.dying = True

    async def call():
        return await block((queue, 1), interruptible=False, killable=False)

    sleeper.start(call())
    sleeper.kill()
    assert sleeper.sleeping
    queue.wake()
    scheduler.run()
    assert sleeper.outcome is True


def test_yield_now_lets_others_run(scheduler):
    order = []

    async def call(name):
        order.append(name + "1")
        await yield_now()
        order.append(name + "2")

    for name in "ab":
        Sleeper(scheduler).start(call(name))
    scheduler.run()
    assert order == ["a1", "b1", "a2", "b2"]


def test_cancelled_timers_do_not_pile_up(scheduler):
    for _ in range(5000):
        scheduler.at(monotonic_ns() + 10**12, lambda: None).cancel()
    assert len(scheduler._timers) <= 1025
    assert scheduler.timeout() == -1


def test_restless_timers_and_runners_do_not_keep_the_loop(scheduler):
    fired = []

    def again():
        fired.append(1)
        scheduler.at(0, again)

    async def restless():
        while True:
            await yield_now()

    again()
    Sleeper(scheduler).start(restless())
    assert scheduler.run()
    assert 1 < len(fired) <= MAX_TIMERS + 1
    assert scheduler.timeout() == 0


def test_many_live_timers_are_not_searched_each_time(scheduler):
    far = monotonic_ns() + 10**15
    timers = [scheduler.at(far + i, lambda: None) for i in range(5000)]
    assert scheduler._crowded >= 4096
    for timer in timers:
        timer.cancel()
    for i in range(6000):
        scheduler.at(far + i, lambda: None).cancel()
    assert len(scheduler._timers) < 9000
