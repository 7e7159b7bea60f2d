"""Long work is done in pieces: how much of it lies between two turns of somebody else."""

from __future__ import annotations

import itertools

import pytest

from sentry.kernel.wait import PARTS, Scheduler, each, yield_now
from sentry.net import disposal


@pytest.fixture
def scheduler(monkeypatch):
    scheduler = Scheduler()
    monkeypatch.setattr(disposal, "scheduler", scheduler)
    monkeypatch.setattr(disposal, "_turn", -1)
    return scheduler


def most_between(scheduler, done, total):
    """The most that `done` grows between two turns of a job that runs beside, until it is `total`."""
    seen = [len(done)]

    async def beside():
        while len(done) < total:
            await yield_now()
            seen.append(len(done))

    scheduler.spawn(beside())
    for _ in range(total):
        scheduler.run()
    assert len(done) == total
    return max(after - before for before, after in itertools.pairwise(seen))


def counted(done, count, inner=None):
    for number in range(count):
        done.append(number)
        if inner is not None:
            inner(number)
        yield


def test_each_lets_others_run(scheduler):
    done = []
    scheduler.spawn(each(counted(done, 1000)))
    assert len(done) == PARTS
    assert most_between(scheduler, done, 1000) == PARTS


def test_little_is_let_go_of_at_once_and_much_by_a_job(scheduler):
    scheduler.run()
    done = []
    disposal.carry_out(counted(done, 100))
    assert len(done) == 100
    much = []
    disposal.carry_out(counted(much, 1000))
    assert len(much) == disposal.AT_ONCE - 100, "the limit is one of the whole turn"
    assert most_between(scheduler, much, 1000) == PARTS
    scheduler.run()
    done.clear()
    disposal.carry_out(counted(done, 100))
    assert len(done) == 100


def test_a_long_chain_is_no_deep_one(scheduler):
    done, ends = [], []

    def next_one(number):
        if len(done) < 5000:
            disposal.carry_out(counted(done, 1, next_one))

    def then():
        assert not disposal.busy()
        ends.append(len(done))

    def last(number):
        disposal.afterwards(then)
        next_one(number)

    disposal.carry_out(counted(done, 1, last))
    assert most_between(scheduler, done, 5000) == PARTS
    for _ in range(10):
        scheduler.run()
    assert ends == [5000]
