"""The platforms: fork, threads, and death at any moment.

Machine code is written out as bytes; fixtures and harness: platform_harness.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from platform_harness import CODE, DATA, PAGE, READ, SPIN, SYSCALL, WRITE, Guest, raises

from sentry.abi.errors import SysError
from sentry.platform import base, hostthread
from sentry.platform.hostthread import MAX_PARKED

pytest_plugins = ["platform_harness"]


def test_fork_is_copy_on_write(guest, memfd):
    guest.space.map_file(0x1000_0000, PAGE, READ | WRITE, True, memfd, 0)
    guest.space.write(DATA, b"old")
    guest.run(SYSCALL, rax=57, rbx=99)
    child = Guest(guest.platform, guest.space.fork(guest.thread))
    assert child.regs.rbx == 99 and child.regs.rip == guest.regs.rip
    guest.space.write(DATA, b"new")
    child.space.write(0x1000_0000, b"shared")
    assert child.space.read(DATA, 3) == b"old"
    assert guest.space.read(0x1000_0000, 6) == b"shared"
    assert child.call(b"\x48\x89\xdf") == 99
    assert guest.call(b"\x48\x89\xdf") == 99
    grandchild = Guest(guest.platform, child.space.fork(child.thread))
    child.space.destroy()
    assert grandchild.space.read(DATA, 3) == b"old"
    grandchild.space.destroy()


def test_threads_share_memory(guest):
    guest.code(SYSCALL + SPIN)
    threads = [guest.thread] + [guest.space.new_thread(guest.thread) for _ in range(7)]
    assert len({t._c.pid for t in threads}) == 8 and len({t._c.tgid for t in threads}) == 1
    for i, thread in enumerate(threads):
        thread.regs.rax = i
        thread.resume()
    seen = {}
    while len(seen) < 8:
        for trap in guest.platform.wait(-1):
            assert trap.kind == base.SYSCALL
            seen[trap.thread] = trap.thread.regs.orig_rax
    assert [seen[t] for t in threads] == list(range(8))
    for thread in threads[1:]:
        thread.exit()
    assert len(os.listdir(f"/proc/{guest.space._tgid}/task")) == 1 + MAX_PARKED
    again = guest.space.new_thread(guest.thread)
    assert again._c.pid in {t._c.pid for t in threads}


def test_threads_wait_for_the_end_of_their_process(guest, monkeypatch):
    monkeypatch.setattr(hostthread, "MAX_LEFT", 8)
    count, before = 12, guest.platform.parked
    others = [guest.space.new_thread(guest.thread) for _ in range(count)]
    for thread in others:
        thread.exit(True)
    assert guest.platform.parked == 8, "in all processes together"
    assert len(os.listdir(f"/proc/{guest.space._tgid}/task")) == 1 + 8 - before
    guest.space.new_thread(guest.thread)
    assert guest.platform.parked == 7
    guest.space.destroy()
    assert guest.platform.parked == before


def test_leader_is_parked_not_ended(guest):
    space = guest.space
    other = Guest(guest.platform, space.new_thread(guest.thread))
    guest.thread.exit()
    assert other.call(b"\x90", rdi=5) == 5
    assert space.read(CODE, 1) == b"\x90"
    space.map_anon(0x1000_0000, PAGE, READ)
    forked = Guest(guest.platform, space.fork(other.thread))
    assert forked.call(b"\x90", rdi=6) == 6
    forked.space.destroy()
    state = bytearray(other.thread.get_fpstate())
    state[160:168] = b"parkpark"
    state[512] |= 3
    other.thread.set_fpstate(bytes(state))
    third = space.new_thread(other.thread)
    assert third._c.pid == third._c.tgid, "the leader serves again"
    assert third.get_fpstate()[160:168] == b"parkpark" and third.regs.rip == other.regs.rip
    third.exit()
    other.thread.exit()
    guest.platform.wait(0)
    with raises(errno.ESRCH):
        space.read(CODE, 1)


def test_exit_of_the_last_thread_ends_the_process(platform):
    guest = Guest(platform)
    pid = guest.space._tgid
    guest.thread.exit()
    while os.path.exists(f"/proc/{pid}"):
        assert platform.wait(1_000_000) == []
    guest.space.destroy()


def test_killed_while_running(guest):
    others = [guest.space.new_thread(guest.thread) for _ in range(2)]
    guest.code(SPIN)
    for thread in [guest.thread, *others]:
        thread.regs.rip = CODE
        thread.resume()
    os.kill(guest.space._tgid, signal.SIGKILL)
    dead = set()
    while len(dead) < 3:
        for trap in guest.platform.wait(-1):
            assert trap.kind == base.DEAD
            dead.add(trap.thread)
    assert dead == {guest.thread, *others}
    assert_dead(guest)


def assert_dead(guest):
    space = guest.space
    for call in (
        lambda: space.map_anon(0x1000_0000, PAGE, READ),
        lambda: space.read(CODE, 1),
        lambda: space.write(CODE, b"x"),
        lambda: space.cmpxchg32(DATA, 0, 0),
        lambda: space.fork(guest.thread),
        lambda: space.new_thread(guest.thread),
        lambda: space.map_file(0x1000_0000, PAGE, READ, True, 0, 0),
        lambda: guest.thread.get_fpstate(),
    ):
        with raises(errno.ESRCH):
            call()
    guest.thread.kick()
    guest.thread.resume()
    assert guest.trap().kind == base.DEAD


@pytest.mark.parametrize("operation", ["map_anon", "map_file", "fork", "new_thread", "cmpxchg", "resume"])
def test_killed_while_stopped(guest, memfd, operation):
    extra = guest.space.new_thread(guest.thread)
    guest.code(SYSCALL)
    os.kill(guest.space._tgid, signal.SIGKILL)
    operations = {
        "map_anon": lambda: guest.space.map_anon(0x1000_0000, PAGE, READ),
        "map_file": lambda: guest.space.map_file(0x1000_0000, PAGE, READ, True, memfd, 0),
        "fork": lambda: guest.space.fork(guest.thread),
        "new_thread": lambda: guest.space.new_thread(guest.thread),
        "cmpxchg": lambda: guest.space.cmpxchg32(DATA, 0, 0),
    }
    if operation == "resume":
        guest.thread.resume()
    else:
        with raises(errno.ESRCH):
            operations[operation]()
    dead = set()
    while dead != {guest.thread, extra}:
        for trap in guest.platform.wait(-1):
            assert trap.kind == base.DEAD
            dead.add(trap.thread)
    assert_dead(guest)


@pytest.mark.parametrize("operation", ["map_file", "fork", "new_thread", "map_anon"])
def test_killed_at_any_moment(platform, memfd, operation):
    """A killer races with the operation; whatever it hits, the answer is ESRCH and nothing is left."""
    for round_ in range(40):
        guest = Guest(platform)
        pid = guest.space._tgid
        go = threading.Event()
        victim = threading.Thread(target=lambda go=go, pid=pid: (go.wait(), os.kill(pid, signal.SIGKILL)))
        victim.start()
        children = []
        try:
            for i in range(100_000):
                if i == round_ % 4:
                    go.set()
                if operation == "map_file":
                    guest.space.map_file(0x1000_0000, PAGE, READ, True, memfd, 0)
                elif operation == "map_anon":
                    guest.space.map_anon(0x1000_0000, PAGE, READ)
                elif operation == "fork":
                    children.append(guest.space.fork(guest.thread))
                    children.pop().space.destroy()
                else:
                    # More than are kept: one that is used again needs nothing of the stub.
                    threads = [guest.space.new_thread(guest.thread) for _ in range(MAX_PARKED + 1)]
                    for thread in threads:
                        thread.exit()
        except SysError as error:
            assert error.errno in (errno.ESRCH, errno.ENOMEM), str(error)
        else:
            pytest.fail("it survived")
        victim.join()
        for child in children:
            child.space.destroy()
        guest.space.destroy()
    check = Guest(platform)
    check.space.map_file(0x1000_0000, PAGE, READ, True, memfd, 0)
    check.space.destroy()
    # A child whose parent died while it cloned is nobody's: it is killed when its first stop comes.
    expected = {platform._zygote.pid} | {s._tgid for s in platform._spaces}
    for _ in range(10_000):
        assert platform.wait(1_000_000) == []
        if children_of_this_process() == expected:
            break
    assert children_of_this_process() == expected


def children_of_this_process():
    me = os.getpid()
    return {int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()}


def test_destroy_swallows_pending_traps(platform):
    guest = Guest(platform)
    guest.code(SYSCALL)
    guest.thread.resume()
    other = Guest(platform)
    guest.space.destroy()
    other.code(SYSCALL)
    other.thread.resume()
    assert other.trap().kind == base.SYSCALL
    other.space.destroy()
    assert platform.wait(0) == []
