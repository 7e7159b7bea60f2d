"""The CLI's watch on the stubs' memory: whom it kills, and when it looks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from sentry.runtime import watch
from sentry.runtime.watch import LONGEST, SHORTEST, SLACK, MemoryWatch

MIB = 1 << 20
#: "init", whose child is the "Sentry", which has memory of its own; its children have as many MiB as asked
#: for.  The Sentry says who died of what.
FAMILY = """
import os, sys, time
def hold(size):
    data = bytearray(os.urandom(1 << 20) * size)
    children = []
    for _ in range(int(sys.argv[2])):
        if not (pid := os.fork()):
            time.sleep(60)
            os._exit(0)
        children.append(pid)
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)
    os._exit(0)
if pid := os.fork():
    os.waitpid(pid, 0)
    os._exit(0)
own = bytearray(os.urandom(1 << 20) * 100)
for size in map(int, sys.argv[1].split(",")):
    if not os.fork():
        del own
        hold(size)
try:
    while True:
        pid, status = os.wait()
        os.write(1, b"%d died of %d\\n" % (pid, status))
except ChildProcessError:
    pass
time.sleep(60)
"""


class Family:
    def __init__(self, sizes: list[int], forks: int = 0) -> None:
        command = [sys.executable, "-I", "-c", FAMILY, ",".join(map(str, sizes)), str(forks)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert self.process.stdout is not None
        self.lines = self.process.stdout
        self.stubs = sorted(int(self.lines.readline()) for _ in sizes)
        (self.sentry,) = watch.children(self.process.pid)

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.lines.close()


@pytest.fixture
def family():
    families = []

    def make(sizes: list[int], forks: int = 0) -> Family:
        families.append(Family(sizes, forks))
        return families[-1]

    yield make
    for one in families:
        one.close()


def test_the_largest_is_killed_and_nobody_else(family) -> None:
    one = family([10, 60, 30])
    assert watch.children(one.sentry) == one.stubs
    largest = max(one.stubs, key=watch.resident)
    keeper = MemoryWatch(80 * MIB - SLACK)
    keeper.look(0.0, one.process.pid)
    assert keeper.kills == 1
    assert one.lines.readline() == b"%d died of 9\n" % largest
    keeper.look(1.0, one.process.pid)
    assert keeper.kills == 1 and sorted(watch.children(one.sentry)) == sorted(set(one.stubs) - {largest})


def test_as_many_as_it_takes(family) -> None:
    one = family([40, 40, 40])
    keeper = MemoryWatch(60 * MIB - SLACK)
    keeper.look(0.0, one.process.pid)
    assert keeper.kills == 2


def test_within_the_limit_nobody_is(family) -> None:
    one = family([20, 20])
    keeper = MemoryWatch(80 * MIB - SLACK)
    keeper.look(0.0, one.process.pid)
    assert keeper.kills == 0


def test_what_a_fork_shares_counts_once(family) -> None:
    """The children of a stub are the Sentry's in a sandbox; here they only hold their share."""
    one = family([50], forks=4)
    assert watch.resident(one.stubs[0]) >= 50 * MIB > 20 * MIB > watch.share(one.stubs[0])
    keeper = MemoryWatch(40 * MIB - SLACK)
    keeper.look(0.0, one.process.pid)
    assert keeper.kills == 0


def test_it_looks_less_and_less_often_while_nothing_grows(family) -> None:
    one = family([1])
    keeper = MemoryWatch(200 * MIB)
    gaps = []
    now = 100.0
    for _ in range(8):
        keeper.look(now, one.process.pid)
        gaps.append(keeper.due - now)
        now = keeper.due
    assert gaps[0] == pytest.approx(SHORTEST) and gaps[-1] == pytest.approx(LONGEST)
    assert gaps == sorted(gaps)


def test_a_number_that_belongs_to_somebody_else_is_left_alone(family) -> None:
    one, other = family([1]), family([1])
    assert not watch.kill(other.stubs[0], one.sentry)
    assert watch.parent(other.stubs[0]) == other.sentry
    assert not watch.kill(1 << 30, one.sentry)


def test_a_sandbox_that_has_gone() -> None:
    keeper = MemoryWatch(MIB)
    keeper.look(0.0, 1 << 30)
    assert keeper.kills == 0 and watch.resident(1 << 30) == 0 == watch.parent(1 << 30)
