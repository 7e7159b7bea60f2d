"""Long work is done in pieces: how much of it lies between two turns of somebody else."""

from __future__ import annotations

import itertools
import os
import sys
from types import SimpleNamespace

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from fakespace import FakeSpace, run

from sentry.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE, MS_ASYNC
from sentry.kernel.wait import PARTS, Scheduler, each, yield_now
from sentry.mm import Commit, MemoryManager, advise
from sentry.mm.vma import VmaTree
from sentry.net import disposal
from sentry.net.unix.names import Names


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


def test_calls_over_many_mappings_let_others_run(scheduler, monkeypatch):
    size, count = 4096, 1000
    space = FakeSpace()
    mm = MemoryManager(space, Commit())
    base = run(mm.map(0, 2 * count * size, 0, MAP_PRIVATE | MAP_ANONYMOUS, None, 0))
    for i in range(count):
        mm.protect(base + 2 * i * size, size, 3)
    assert len(mm.tree) == 2 * count
    populated, looked = [], []
    space.advise = lambda *args: populated.append(args)
    scheduler.spawn(advise.lock(mm, base, 2 * count * size, 0))
    assert most_between(scheduler, populated, 2 * count) <= PARTS
    find = VmaTree.find
    monkeypatch.setattr(VmaTree, "find", lambda tree, addr: looked.append(addr) or find(tree, addr))
    scheduler.spawn(advise.sync(mm, base, 2 * count * size, MS_ASYNC))
    assert most_between(scheduler, looked, 2 * count) <= advise.SYNC_STEP


def test_a_long_list_of_sockets_in_pieces():
    names = Names()
    sockets = [SimpleNamespace(type=1) for _ in range(700)]
    for sock in sockets:
        names.enter(sock)
    first = sockets[0].number
    found = names.after(0, 256)
    assert found == sockets[:256]
    for sock in sockets[100:300]:
        names.forget(sock, b"")
    assert names.after(found[-1].number, 256) == sockets[300:556], "whoever goes makes nobody be missed"
    assert names.after(first, 2) == sockets[1:3] and names.after(sockets[-1].number, 256) == []
    for sock in sockets:
        names.forget(sock, b"")
    assert not names.sockets


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
