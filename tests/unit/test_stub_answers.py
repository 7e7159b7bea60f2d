"""What the stub of the `trap` platform answers by itself, without a word to the Sentry."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from platform_harness import DATA, EXEC, READ, SYSCALL, WRITE, Guest, start

from sentry.abi import time as abi
from sentry.abi.syscall_nr import SYS
from sentry.platform import base
from sentry.platform.ptrace import PtracePlatform

pytest_plugins = ["platform_harness"]

NATIVE = Path(__file__).parent / "native" / "vdso.c"
INT3 = b"\xcc"
ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")


@pytest.fixture(scope="module")
def platform() -> Iterator[PtracePlatform]:
    result = start(name="trap")
    yield result
    result.close()


def answered(guest: Guest, number: int, *args: int) -> int | None:
    """The call's result, or None where it came to the Sentry."""
    trap = guest.run(SYSCALL + INT3, rax=number, **dict(zip(ARGUMENTS, args, strict=False)))
    if trap.kind == base.SYSCALL:
        assert guest.regs.orig_rax == number
        return None
    assert trap.kind == base.FAULT, trap.kind
    return int(guest.regs.rax)


WALL_CLOCKS = [
    abi.CLOCK_REALTIME, abi.CLOCK_MONOTONIC, abi.CLOCK_MONOTONIC_RAW, abi.CLOCK_REALTIME_COARSE,
    abi.CLOCK_MONOTONIC_COARSE, abi.CLOCK_BOOTTIME, abi.CLOCK_TAI,
]  # fmt: skip


@pytest.mark.parametrize("clock", WALL_CLOCKS)
def test_clocks(guest, clock):
    before = time.clock_gettime_ns(clock)
    assert answered(guest, SYS.clock_gettime, clock, DATA) == 0
    seconds, nanoseconds = struct.unpack("<qq", guest.space.read(DATA, 16))
    assert before <= seconds * abi.NS + nanoseconds <= time.clock_gettime_ns(clock)


def test_time_of_day(guest):
    before = time.time_ns() // 1000
    guest.space.write(DATA + 16, b"zonezonebehind")
    assert answered(guest, SYS.gettimeofday, DATA, DATA + 16) == 0
    seconds, microseconds, zone, behind = struct.unpack("<qqq6s", guest.space.read(DATA, 30))
    assert before <= seconds * 1_000_000 + microseconds <= time.time_ns() // 1000
    assert (zone, behind) == (0, b"behind")
    assert answered(guest, SYS.gettimeofday, 0, 0) == 0


def test_seconds(guest):
    before = int(time.clock_gettime(abi.CLOCK_REALTIME_COARSE))
    now = answered(guest, SYS.time, DATA)
    assert now is not None and before <= now <= time.time()
    assert struct.unpack("<q", guest.space.read(DATA, 8)) == (now,)
    assert answered(guest, SYS.time, 0) >= now


UNKNOWN = [
    (abi.CLOCK_PROCESS_CPUTIME_ID, DATA), (abi.CLOCK_THREAD_CPUTIME_ID, DATA),
    (abi.CLOCK_REALTIME_ALARM, DATA),
    (10, DATA), (32, DATA), (1 << 31, DATA), (-6 & (1 << 64) - 1, DATA), (0, 0), (0, base.GUEST_TOP),
    (0, base.GUEST_TOP - 8), (0, (1 << 64) - 8),
]  # fmt: skip


@pytest.mark.parametrize(("clock", "addr"), UNKNOWN)
def test_what_the_sentry_has_to_answer(guest, clock, addr):
    """CPU time, what there is not, what can't be written to."""
    assert answered(guest, SYS.clock_gettime, clock, addr) is None
    assert (guest.regs.rdi, guest.regs.rsi) == (clock, addr)


def test_time_to_a_bad_address(guest):
    assert answered(guest, SYS.gettimeofday, base.GUEST_TOP - 8, 0) is None
    assert answered(guest, SYS.gettimeofday, DATA, base.GUEST_TOP) is None
    assert answered(guest, SYS.time, base.GUEST_TOP) is None


def test_when_every_call_has_to_be_seen(guest):
    guest.thread.hot.forced = 1
    for number in (SYS.clock_gettime, SYS.gettimeofday, SYS.time):
        assert answered(guest, number, DATA, DATA) is None


def test_a_vdso_without_data(guest):
    """The function is there, but what it reads is not: its fault is ours, not the guest's."""
    data, code, _ = guest.platform.vdso()
    guest.space.unmap(data, code - data)
    for _ in range(3):
        assert answered(guest, SYS.clock_gettime, 0, DATA) is None


@pytest.mark.parametrize("code", [None, b"\0", b"\x31\xc0\xc3\x90", INT3])  # none; xor %eax,%eax; ret; nop
def test_a_vdso_that_is_another(guest, code):
    _, first, end = guest.platform.vdso()
    guest.space.unmap(first, end - first)
    if code is not None:
        guest.space.map_anon(first, end - first, READ | WRITE | EXEC)
        guest.space.write(first, code * ((end - first) // len(code)))
    assert answered(guest, SYS.clock_gettime, 0, DATA) is None
    assert answered(guest, SYS.time, 0) is None


def test_symbols_of_damaged_images(tmp_path, seeded, long_form):
    program = tmp_path / "vdso"
    flags = [
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    include = f"-I{NATIVE.parents[3] / 'csrc/abi'}"
    subprocess.run(["gcc", *flags, include, "-o", program, NATIVE], check=True, timeout=120)
    times = "300000" if long_form else "20000"
    command = [program, str(seeded.randrange(1 << 32)), times]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (command, done)
    assert int(done.stdout) > 0
