"""Semaphore sets: who goes on when a value changes, against the plain way to find that out; and in how many
turns."""

from __future__ import annotations

import errno
import random
from types import SimpleNamespace

import pytest

from sentry.abi.ipc import IPC_NOWAIT, SEM_UNDO
from sentry.kernel.ipc import sem
from sentry.kernel.ipc.sem import SemSet, SemTable, Undo, Waiter
from sentry.kernel.wait import Runner, Scheduler, yield_now

COUNT = 4


@pytest.fixture
def scheduler():
    return Scheduler()


def make_set(scheduler, count=COUNT):
    task = SimpleNamespace(scheduler=scheduler, cred=SimpleNamespace(euid=0, egid=0))
    return SemSet(SemTable(), 0, 0o600, count, task)


def destroy(sems):
    sems.table.used += len(sems.values)
    sem.memory.charge(sem.SET + len(sems.values))
    sems.table.add(sems)
    sems.table.destroy(sems)


class Caller(Runner):
    """A semop(2) and what came of it."""

    def __init__(self, scheduler, sems, operations, ended, undo=None):
        super().__init__(scheduler)
        self.name = len(ended.callers)
        ended.callers.append(self)
        self.ended = ended
        self.outcome = None
        self.waiter = Waiter(operations, self.name, undo)
        self.start(sems.operate(self.waiter, None))

    def finished(self, result, error):
        self.outcome = 0 if error is None else error.errno
        self.ended.append((self.name, self.outcome))


class Log(list):
    def __init__(self):
        super().__init__()
        self.callers = []


class Plain:
    """All who wait are tried again and again: first who changes nothing, then in order of arrival."""

    def __init__(self, sems):
        self.sems = sems
        self.waiting = []
        self.ended = []
        self.undos = {}

    def operate(self, name, operations, undo):
        waiter = Waiter(operations, name, undo)
        result = self.sems.attempt(waiter)
        if result is None:
            self.waiting.append((name, waiter))
            return
        self.ended.append((name, result))
        if result == 0 and waiter.alters:
            self.update()

    def update(self):
        again = True
        while again:
            again = False
            for name, waiter in sorted(self.waiting, key=lambda entry: entry[1].alters):
                result = self.sems.attempt(waiter)
                if result is None:
                    continue
                self.waiting.remove((name, waiter))
                self.ended.append((name, result))
                if result == 0 and waiter.alters:
                    again = True
                    break


def random_operations(choose):
    count = 1 if choose.random() < 0.6 else choose.randrange(2, 6)
    return [
        (
            choose.randrange(COUNT),
            choose.choice([-3, -2, -1, -1, 0, 0, 1, 2, 30000]),
            choose.choice([0, 0, 0, IPC_NOWAIT, SEM_UNDO]),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(40))
def test_the_same_go_on_as_by_trying_all(scheduler, seed):
    choose = random.Random(seed)
    sems, other = make_set(scheduler), make_set(scheduler)
    plain, ended = Plain(other), Log()
    undos = Undo(sems), Undo(other)
    sems.undos[undos[0]] = other.undos[undos[1]] = None
    for name in range(120):
        if choose.random() < 0.1:
            values = {number: choose.randrange(3) for number in range(choose.randrange(1, COUNT + 1))}
            sems.set_values(values, 0)
            other.set_values(values, 0)
            plain.update()
        operations = random_operations(choose)
        Caller(scheduler, sems, operations, ended, undos[0])
        plain.operate(name, operations, undos[1])
        while scheduler.run():
            pass
        assert sems.values == other.values and undos[0].adjust == undos[1].adjust
        assert sorted(ended) == sorted(plain.ended)
        assert len(sems.waiting) == len(plain.waiting)
    pending = sems.pending
    left = [
        *pending.mixed,
        *(w for lines in (pending.lines, pending.zeros) for d in lines.values() for w in d),
    ]
    assert sorted(w.order for w in left) == [w.order for w in sems.waiting]
    sems.undos.clear()
    destroy(sems)
    while scheduler.run():
        pass
    assert all(caller.outcome is not None for caller in ended.callers)


def test_in_order_of_arrival(scheduler):
    sems, ended = make_set(scheduler), Log()
    for change in (-1, -3, -1, -2):
        Caller(scheduler, sems, [(0, change, 0)], ended)
    sems.set_values({0: 4}, 0)
    scheduler.run()
    assert ended == [(0, 0), (1, 0)] and sems.values[0] == 0
    Caller(scheduler, sems, [(0, 2, 0)], ended)
    scheduler.run()
    assert ended[2:] == [(4, 0), (2, 0)] and sems.values[0] == 1


def test_who_waits_for_zero_goes_before_who_takes_it(scheduler):
    sems, ended = make_set(scheduler), Log()
    sems.values[0] = 1
    Caller(scheduler, sems, [(0, 0, 0), (0, 1, 0)], ended)
    Caller(scheduler, sems, [(0, 0, 0)], ended)
    Caller(scheduler, sems, [(0, -1, 0)], ended)
    scheduler.run()
    assert sorted(ended) == [(0, 0), (1, 0), (2, 0)] and sems.values[0] == 1


@pytest.fixture
def attempts(monkeypatch):
    """How many operations have been looked at."""
    looked = []
    attempt = SemSet.attempt

    def counting(self, waiter):
        looked.extend(waiter.operations)
        return attempt(self, waiter)

    monkeypatch.setattr(SemSet, "attempt", counting)
    return looked


def crowd(scheduler, sems, size, length):
    ended = Log()
    for _ in range(size):
        Caller(scheduler, sems, [(0, 1, 0), (0, -1, 0)] * (length // 2) + [(1, -1, 0)], ended)
    return ended


def test_a_change_that_concerns_nobody_looks_at_nobody(scheduler, attempts):
    sems = make_set(scheduler)
    crowd(scheduler, sems, 100, 50)
    for _ in range(100):
        Caller(scheduler, sems, [(3, -1, 0)], Log())
    attempts.clear()
    Caller(scheduler, sems, [(2, 1, 0)], Log())
    assert len(attempts) == 1
    Caller(scheduler, sems, [(3, 2, 0)], Log())
    assert len(attempts) == 4, "and of many who want more nobody but the first"


def test_a_crowd_is_looked_at_in_many_turns(scheduler, attempts):
    sems = make_set(scheduler)
    ended, late = crowd(scheduler, sems, 200, 100), Log()
    attempts.clear()
    most, seen = [0], [0]

    async def beside():
        while len(ended) < 150:
            most[0] = max(most[0], len(attempts) - seen[0])
            seen[0] = len(attempts)
            await yield_now()

    sems.set_values({1: 150}, 0)
    assert sems.busy and len(attempts) <= sem.LOOKS + 101
    latecomer = Caller(scheduler, sems, [(1, -1, 0)], late)
    assert latecomer.outcome is None and latecomer.waiter not in sems.waiting, "it waits for its turn"
    scheduler.spawn(beside())
    for _ in range(10000):
        scheduler.run()
    assert most[0] <= sem.LOOKS + 101
    assert len(attempts) > 10 * sem.LOOKS or len(attempts) > 150 * 101
    assert [name for name, _ in ended] == list(range(150)), "nobody came in between"
    assert not sems.busy and sems.values[1] == 0 and latecomer.waiter in sems.waiting


def test_a_set_goes_away_meanwhile(scheduler):
    sems = make_set(scheduler)
    ended = crowd(scheduler, sems, 200, 100)
    sems.set_values({1: 150}, 0)
    late = Log()
    Caller(scheduler, sems, [(1, -1, 0)], late)
    assert sems.busy
    destroy(sems)
    for _ in range(100):
        scheduler.run()
    assert not sems.busy and late == [(0, errno.EIDRM)]
    assert len(ended) == 200 and {outcome for _, outcome in ended} == {0, errno.EIDRM}
