"""The engine's loop and confinement: descriptors, CPU placement, the stub's filter, second opinions.

Machine code is written out as bytes; fixtures and harness: platform_harness.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from platform_harness import DATA, PAGE, PLATFORMS, READ, SPIN, SYSCALL, raises, start

from sentry.platform import base

pytest_plugins = ["platform_harness"]

SYS_CLONE = 56


def test_watch(platform):
    left, right = os.pipe()
    seen = []
    platform.watch(left, select.EPOLLIN, seen.append)
    assert platform.wait(0) == [] and seen == []
    os.write(right, b"x")
    platform.wait(-1)
    platform.wait(-1)
    assert seen == [select.EPOLLIN] * 2
    other = []
    platform.watch(left, select.EPOLLIN | select.EPOLLET, other.append)
    platform.wait(-1)
    platform.wait(0)
    assert len(seen) == 2 and other == [select.EPOLLIN]
    platform.unwatch(left)
    platform.unwatch(left)
    os.write(right, b"x")
    assert platform.wait(0) == [] and len(other) == 1
    os.close(left)
    os.close(right)


def test_one_engine_a_process(platform):
    with pytest.raises(OSError) as caught:
        start()
    assert caught.value.errno == errno.EBUSY


def test_watch_refuses_regular_files(platform):
    fd = os.open(__file__, os.O_RDONLY)
    with pytest.raises(PermissionError):
        platform.watch(fd, select.EPOLLIN, print)
    os.close(fd)


def test_callback_that_raises_loses_no_trap(platform, guest):
    left, right = os.pipe()

    def bug(events):
        raise ZeroDivisionError

    platform.watch(left, select.EPOLLIN, bug)
    os.write(right, b"x")
    guest.code(SYSCALL)
    guest.thread.resume()
    bugs, traps = 0, []
    while not (bugs and traps):
        try:
            traps += platform.wait(-1)
        except ZeroDivisionError:
            bugs += 1
    platform.unwatch(left)
    assert [t.thread for t in traps] == [guest.thread]
    os.close(left)
    os.close(right)


def test_descriptors_do_not_starve_while_a_guest_traps(platform, guest):
    left, right = os.pipe()
    seen = []
    platform.watch(left, select.EPOLLIN, seen.append)
    os.write(right, b"x")
    guest.code(SYSCALL + b"\xeb\xfc")
    for _ in range(1000):
        guest.thread.resume()
        guest.trap()
        if seen:
            break
    platform.unwatch(left)
    assert seen
    os.close(left)
    os.close(right)


def test_computing_threads_spread_and_come_home(platform, guest):
    if not platform._pin or os.cpu_count() < 2 or len(os.sched_getaffinity(1)) < 2:
        pytest.skip("one CPU")
    home = os.sched_getaffinity(0)
    pid = guest.space._tgid
    assert os.sched_getaffinity(pid) == home
    guest.code(SPIN)
    guest.thread.resume()
    for _ in range(10_000):
        if os.sched_getaffinity(pid) != home:
            break
        assert platform.wait(30_000_000) == []
    assert len(os.sched_getaffinity(pid)) > 1
    guest.thread.kick()
    guest.trap()
    guest.code(SYSCALL + b"\xeb\xfc")
    for _ in range(10_000):
        guest.thread.resume()
        guest.trap()
        if os.sched_getaffinity(pid) == home:
            break
    assert os.sched_getaffinity(pid) == home


@pytest.mark.parametrize(
    ("number", "args"),
    [
        (39, ()),  # getpid
        (2, (DATA, 0, 0)),  # open
        (SYS_CLONE, (signal.SIGCHLD,)),  # clone with other flags
        (9, (0x1000_0000, PAGE, READ, 0x21, 2**64 - 1, 0)),  # shared anonymous memory
        (9, (0x1000_0000, PAGE, READ, 0x40022, 2**64 - 1, 0)),  # MAP_HUGETLB
        (9, (0x1000_0000, PAGE, READ, 0x2022, 2**64 - 1, 0)),  # MAP_LOCKED
        (0x4000_0000 | 9, (0x1000_0000, PAGE, READ, 0x22, 2**64 - 1, 0)),  # x32
    ],
)
def test_filter_refuses_what_the_platform_never_asks(guest, number, args):
    """On `ptrace` it kills, on `trap` the stub's own handler answers."""
    if guest.platform.name == "trap":
        if number == SYS_CLONE:
            pytest.skip("a notification: test_trap")
        with raises(errno.ENOSYS):
            guest.space._call(number, *args, *[0] * (2 - len(args)))
        guest.space.map_anon(0x1000_0000, PAGE, READ)
        return
    with raises(errno.ESRCH):
        guest.space._call(number, *args, *[0] * (2 - len(args)))
    assert guest.trap().kind == base.DEAD


def test_a_notification_nobody_ordered_is_refused(guest):
    from sentry.platform.ptrace import check, lib

    # Order one mapping while the thread makes another: the engine must compare.
    with raises(errno.EINVAL):
        check(lib.guest_map_file(guest.space._engine, guest.thread._c, 0x1000_0001, PAGE, READ, 0x11, 0, 0))
    guest.space.map_anon(0x1000_0000, PAGE, READ)


def test_registers_agree_with_python_ptrace(guest):
    from ptrace.binding import func, linux_struct
    from sentry._engine import ffi

    if guest.platform.name != "ptrace":
        pytest.skip("nobody traces it")
    theirs = linux_struct.user_regs_struct
    for name, _ in theirs._fields_:
        assert getattr(theirs, name).offset == ffi.offsetof("struct guest_regs", name)
    guest.run(SYSCALL, rax=1, rbx=0x1234, r15=15, r9=9)
    regs = func.ptrace_getregs(guest.thread._c.pid)
    for name, _ in theirs._fields_:
        assert getattr(regs, name) == getattr(guest.regs, name), name


@pytest.mark.parametrize("which", ["list", "built"])
@pytest.mark.parametrize("name", PLATFORMS)
def test_platform_works_confined(name, which):
    """A fresh process allows itself HOST_SYSCALLS and what the interpreter needs, or takes the filter that
    the Sentry is shipped with, and must survive."""
    script = Path(__file__).parent / "platform_confined.py"
    root = Path(base.__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, str(script), name, which]
    done = subprocess.run(command, capture_output=True, env=env, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr.decode())
    assert done.stdout == b"ok\n"
