"""Which CPU stubs run on (csrc/platform/trap_place.c)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from platform_harness import SPIN, SYSCALL, Guest, start

from sentry.abi.syscall_nr import SYS
from sentry.platform.ptrace import PtracePlatform

EVERYWHERE = os.sched_getaffinity(0)
pytestmark = pytest.mark.skipif(len(EVERYWHERE) == 1, reason="this host has one CPU")


@pytest.fixture
def platform() -> Iterator[PtracePlatform]:
    result = start(name="trap")
    yield result
    result.close()
    assert os.sched_getaffinity(0) == EVERYWHERE


def place(guest: Guest) -> set[int]:
    return os.sched_getaffinity(guest.thread._c.pid)


def compute(platform: PtracePlatform, guest: Guest, seconds: float) -> None:
    guest.code(SPIN)
    guest.thread.resume()
    assert platform.wait(int(seconds * 1e9)) == []


def stop(guest: Guest) -> None:
    guest.thread.kick()
    guest.trap()


def bound(platform: PtracePlatform) -> bool:
    """Not where the machine is so busy that nobody is bound to a CPU."""
    return len(os.sched_getaffinity(0)) == 1


def test_who_traps_shares_our_cpu_and_who_computes_does_not(platform: PtracePlatform) -> None:
    guest = Guest(platform)
    guest.run(SYSCALL, rax=SYS.getpid)
    if bound(platform):
        assert place(guest) == os.sched_getaffinity(0)
    compute(platform, guest, 0.1)
    assert place(guest) == EVERYWHERE
    stop(guest)
    guest.space.destroy()


def test_who_forks_comes_home(platform: PtracePlatform) -> None:
    guest = Guest(platform)
    compute(platform, guest, 0.1)
    stop(guest)
    assert place(guest) == EVERYWHERE
    child = Guest(platform, guest.space.fork(guest.thread))
    if bound(platform):
        assert place(guest) == place(child) == os.sched_getaffinity(0)
    else:
        assert place(child) == EVERYWHERE
    child.space.destroy()
    guest.space.destroy()


def test_threads_start_where_their_maker_is(platform: PtracePlatform) -> None:
    guest = Guest(platform)
    compute(platform, guest, 0.1)
    stop(guest)
    other = guest.space.new_thread(guest.thread)
    assert os.sched_getaffinity(other._c.pid) == EVERYWHERE
    guest.space.destroy()


def test_computing_costs_no_wake_ups(platform: PtracePlatform) -> None:
    """The first looks decide; then the engine sleeps as long as it is told."""
    guest = Guest(platform)
    compute(platform, guest, 0.1)
    before = os.times()
    assert platform.wait(500_000_000) == []
    after = os.times()
    assert after.user + after.system - before.user - before.system < 0.1
    stop(guest)
    guest.space.destroy()
