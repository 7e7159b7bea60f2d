"""Waiting: wait queues, timers, and the only suspension point of the kernel.

Kernel code is coroutines on one thread; at most one runs, and between two awaits nothing else
does.  So the recipe for sleeping needs no lock and cannot lose a wake-up:

    while not condition():
        await block((file.queue, POLLIN), deadline=deadline)

`block` returns True when a queue was woken, False when `deadline` passed (test the condition once
more: both may have happened), and raises Interrupted when the sleeper has a signal to handle.

A `Runner` carries one coroutine at a time; a task is one, a kernel job (`Scheduler.spawn`) is
another.  The `Scheduler` owns what is ready to run and the timers; kernel/kernel.py turns it.
"""

from __future__ import annotations

from _collections import deque
from _heapq import heappop, heappush
from time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable
    from typing import Any

ALL_EVENTS = 0xFFFFFFFF
#: What one turn of the loop does at most (Scheduler.run).
MAX_STEPS = 1000
MAX_TIMERS = 64
TURN_NS = 2_000_000
#: So many parts of one call are done in one turn (breathe).
PARTS = 32


class Interrupted(Exception):
    """Raised at an `await` whose task has a signal to handle; the dispatcher decides on restart.

    `restart`: how, where that is not what the call's table entry says."""

    def __init__(self, restart: int = 0) -> None:
        super().__init__()
        self.restart = restart


class Entry:
    """A place in a wait queue: `callback(events)` is called at each wake-up that matches `mask`."""

    __slots__ = ("callback", "exclusive", "mask")

    def __init__(
        self, callback: Callable[[int], None], mask: int = ALL_EVENTS, exclusive: bool = False
    ) -> None:
        self.callback = callback
        self.mask = mask
        self.exclusive = exclusive


class WaitQueue:
    """Who wants to hear of events, in order of arrival (Linux's wait_queue_head)."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[Entry, None] = {}

    def add(self, entry: Entry) -> None:
        self._entries[entry] = None

    def remove(self, entry: Entry) -> None:
        self._entries.pop(entry, None)

    def wake(self, mask: int = ALL_EVENTS, count: int = -1) -> int:
        """Tell the entries whose mask meets `mask`; at most `count` exclusive ones.  How many heard."""
        if not self._entries:
            return 0
        told = 0
        for entry in list(self._entries):
            if not entry.mask & mask:
                continue
            if entry.exclusive:
                if count == 0:
                    continue
                count -= 1
            told += 1
            entry.callback(mask)
        return told

    def __bool__(self) -> bool:
        return bool(self._entries)


class Timer:
    """A callback at a time; `cancel` may be called at any time, also after it fired."""

    __slots__ = ("callback", "deadline")

    def __init__(self, deadline: int, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Scheduler:
    """What can run now, and what will be due later.  Times are CLOCK_MONOTONIC nanoseconds."""

    def __init__(self) -> None:
        self._ready: deque[tuple[Runner, object, BaseException | None]] = deque()
        self._timers: list[tuple[int, int, Timer]] = []
        self._sequence = 0
        #: How often `run` was called.
        self.turns = 0
        #: So many timers that some may be dead.
        self._crowded = 1024

    def at(self, deadline: int, callback: Callable[[], None]) -> Timer:
        """Call `callback` from the loop once `deadline` has passed."""
        timer = Timer(deadline, callback)
        self._sequence += 1
        heappush(self._timers, (deadline, self._sequence, timer))
        if len(self._timers) > self._crowded:
            self._drop_cancelled()
        return timer

    def _drop_cancelled(self) -> None:
        """Cancelled timers stay in the heap until due; don't let them pile up."""
        alive = [entry for entry in self._timers if entry[2].callback is not None]
        if len(alive) < len(self._timers) // 2:
            alive.sort()
            self._timers = alive
        self._crowded = max(1024, 2 * len(alive))

    def make_ready(self, runner: Runner, value: object = None, error: BaseException | None = None) -> None:
        self._ready.append((runner, value, error))

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> Runner:
        """Run a kernel job beside the tasks; its result is dropped, its exception is reported."""
        job = Runner(self)
        job.start(coro)
        return job

    def run(self) -> bool:
        """Run what is due or ready, until nothing is; whether anything was.

        At most MAX_STEPS and MAX_TIMERS, and hardly longer than TURN_NS: for runners that make each other or
        themselves ready for ever, and for timers that are due again as soon as they have expired.  The tasks
        in their programs get their turn too.
        """
        worked = False
        self.turns += 1
        if not self._ready and not self._timers:
            return worked
        timers, end = MAX_TIMERS, 0
        for count in range(MAX_STEPS):
            if count == 1:
                end = monotonic_ns() + TURN_NS
            elif end and monotonic_ns() > end:
                break
            if timers and self._timers and self._timers[0][0] <= monotonic_ns():
                timers -= 1
                timer = heappop(self._timers)[2]
                if timer.callback is not None:
                    callback, timer.callback = timer.callback, None
                    callback()
                    worked = True
                continue
            if not self._ready:
                break
            runner, value, error = self._ready.popleft()
            runner.step(value, error)
            worked = True
        return worked

    def timeout(self) -> int:
        """Nanoseconds until the next timer; 0 when something is ready; -1 when nothing will be."""
        if self._ready:
            return 0
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heappop(timers)
        if not timers:
            return -1
        return max(0, timers[0][0] - monotonic_ns())


class Runner:
    """Carries one coroutine at a time, and suspends and resumes it."""

    __slots__ = ("_coro", "_interruptible", "_killable", "_sleeping", "scheduler")

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._coro: Coroutine[Any, Any, Any] | None = None
        self._sleeping = False
        self._interruptible = False
        self._killable = False

    def signal_pending(self) -> bool:
        """Whether an interruptible sleep has to end (a task overrides this)."""
        return False

    def kill_pending(self) -> bool:
        """Whether even a killable sleep has to end (a task overrides this)."""
        return False

    def finished(self, result: object, error: BaseException | None) -> None:
        """The coroutine came to its end (a task overrides this)."""
        if error is not None:
            raise error

    @property
    def busy(self) -> bool:
        """Whether a coroutine is under way."""
        return self._coro is not None

    @property
    def sleeping(self) -> bool:
        return self._sleeping

    def start(self, coro: Coroutine[Any, Any, Any]) -> None:
        """Run `coro` up to its first suspension, or to its end."""
        assert self._coro is None
        self._coro = coro
        self.step(None, None)

    def step(self, value: object, error: BaseException | None) -> None:
        global _current
        coro = self._coro
        if coro is None:
            return
        outer, _current = _current, self
        try:
            if error is None:
                coro.send(value)
            else:
                coro.throw(error)
        except StopIteration as stop:
            _current = outer
            self._coro = None
            self.finished(stop.value, None)
        except Exception as exc:
            _current = outer
            self._coro = None
            self.finished(None, exc)
        else:
            _current = outer

    def wake(self, value: object = True, error: BaseException | None = None) -> None:
        """End the present sleep.  Only the first call of a sleep counts."""
        if self._sleeping:
            self._sleeping = False
            self.scheduler.make_ready(self, value, error)

    def interrupt(self) -> None:
        """End an interruptible sleep with Interrupted; no effect on anything else."""
        if self._interruptible:
            self.wake(None, Interrupted())

    def kill(self) -> None:
        """End an interruptible or killable sleep with Interrupted."""
        if self._interruptible or self._killable:
            self.wake(None, Interrupted())

    def _on_event(self, _events: int) -> None:
        self.wake(True)

    def _on_deadline(self) -> None:
        self.wake(False)


class _Suspend:
    __slots__ = ()

    def __await__(self) -> Generator[None, object, object]:
        return (yield)


_SUSPEND = _Suspend()
_current: Runner | None = None


def current() -> Runner:
    """The runner whose coroutine is running."""
    assert _current is not None
    return _current


async def block(
    *sources: tuple[WaitQueue, int],
    deadline: int | None = None,
    interruptible: bool = True,
    killable: bool = True,
    exclusive: bool = False,
) -> bool:
    """Suspend until one of `sources` (queue, event mask) is woken: True; or `deadline` passes: False.

    `deadline` is absolute CLOCK_MONOTONIC nanoseconds.  Raises Interrupted at once, or later, when
    the sleep is interruptible and a signal has to be handled.  One that is only killable ends so when
    the task must die; one that is neither goes on until it is woken.
    """
    runner = current()
    if (interruptible and runner.signal_pending()) or (killable and runner.kill_pending()):
        raise Interrupted
    if deadline is not None and deadline <= monotonic_ns():
        return False
    entries = [(queue, Entry(runner._on_event, mask, exclusive)) for queue, mask in sources]
    for queue, entry in entries:
        queue.add(entry)
    timer = None if deadline is None else runner.scheduler.at(deadline, runner._on_deadline)
    runner._sleeping = True
    runner._interruptible = interruptible
    runner._killable = killable
    try:
        return bool(await _SUSPEND)
    finally:
        runner._sleeping = False
        runner._interruptible = runner._killable = False
        for queue, entry in entries:
            queue.remove(entry)
        if timer is not None:
            timer.cancel()


async def yield_now() -> None:
    """Let everything else that is ready run first."""
    runner = current()
    runner._sleeping = True
    runner.wake(None)
    await _SUSPEND


async def each(steps: Iterable[object]) -> None:
    """Do all `steps`, each little work, and let others run now and then."""
    left = PARTS
    for _ in steps:
        left -= 1
        if not left:
            left = PARTS
            await yield_now()


async def breathe(count: int) -> None:
    """Between two of the many parts of a call, of which `count` are done: let others run now and then, and
    raise Interrupted when the task has to die."""
    if not count % PARTS:
        await yield_now()
    if current().kill_pending():
        raise Interrupted
