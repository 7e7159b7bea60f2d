"""What the stub of the `trap` platform answers by itself, without a word to the Sentry."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import sanitized
from platform_harness import DATA, EXEC, READ, SYSCALL, WRITE, Guest, start

from sentry.abi import time as abi
from sentry.abi.syscall_nr import SYS
from sentry.platform import base
from sentry.platform.ptrace import PtracePlatform

pytest_plugins = ["platform_harness"]

INT3 = b"\xcc"
#: csrc/abi/stub.h
PATCHED = base.GUEST_TOP + 40
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


def patched(number: int) -> bytes:
    """Code that makes a call as from a patched site."""
    code = b"\x48\xb9" + struct.pack("<Q", PATCHED) + b"\x49\x89\xcd"  # mov $PATCHED,%rcx; mov %rcx,%r13
    code += b"\x9f\x0f\x90\xc0" + b"\x41\xbb" + struct.pack("<I", number)  # lahf; seto %al; mov $…,%r11d
    return code + b"\x48\x8d\x0d\x03\0\0\0" + b"\x41\xff\xe5"  # lea after(%rip),%rcx; jmp *%r13


def test_fs_base_by_instruction_across_an_answer(guest):
    """Nobody has told the record of it when the answer comes."""
    wrfsbase, rdfsbase = bytes.fromhex("f3480faed7"), bytes.fromhex("f3480faec7")
    for code in (SYSCALL, patched(SYS.sched_yield)):
        assert guest.call(wrfsbase + code + rdfsbase, rax=SYS.sched_yield, rdi=DATA) == DATA
        assert guest.regs.fs_base == DATA
        guest.regs.fs_base = 0


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
    assert answered(guest, SYS.futex, DATA, 129, 1) is None
    guest.thread.hot.passes = 1
    assert answered(guest, SYS.gettimeofday, DATA, 0) is None
    guest.thread.hot.forced = 4  # a filter's; more reasons have the end of the call told, too
    assert answered(guest, SYS.futex, DATA, 129, 1) == 0
    assert answered(guest, SYS.futex, DATA, 129, 1) is None


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
    times = 300_000 if long_form else 20_000
    assert int(sanitized.run("vdso", tmp_path, seeded.randrange(1 << 32), times)) > 0


def test_what_the_end_of_a_thread_is_told_to(guest):
    hot = guest.thread.hot
    for number, args in ((SYS.set_tid_address, (0x1234,)), (SYS.set_robust_list, (0x5678, 24))):
        assert answered(guest, number, *args) is None
    hot.known, hot.ids[1] = 1 << 8, 77
    assert answered(guest, SYS.set_tid_address, 0x1234) == 77
    assert answered(guest, SYS.set_robust_list, 0x5678, 24) == 0
    assert (hot.clear_tid, hot.robust_list) == (0x1234, 0x5678)
    assert answered(guest, SYS.set_robust_list, 0, 23) is None
    assert answered(guest, SYS.set_robust_list, 0, 24 | 1 << 32) is None


def test_limits(guest):
    guest.thread.hot.limits = [100 * number for number in range(32)]
    assert answered(guest, SYS.getrlimit, 3, DATA) is None
    guest.thread.hot.known = 1 << 9
    for number in range(16):
        for call in ((SYS.getrlimit, number, DATA), (SYS.prlimit64, 0, number | 1 << 32, 0, DATA)):
            guest.space.write(DATA, bytes(16))
            assert answered(guest, *call) == 0
            assert guest.space.read(DATA, 16) == struct.pack("<QQ", 200 * number, 200 * number + 100)
    for call in (
        (SYS.getrlimit, 16, DATA), (SYS.getrlimit, 3, 0), (SYS.getrlimit, 3, base.GUEST_TOP - 8),
        (SYS.prlimit64, 1, 3, 0, DATA), (SYS.prlimit64, 0, 3, DATA, DATA), (SYS.prlimit64, 0, 3, 0, 0),
        (SYS.prlimit64, 0, 0xFFFF_FFFF, 0, DATA),
    ):  # fmt: skip
        assert answered(guest, *call) is None, call


def test_a_few_random_bytes(guest):
    guest.space.write(DATA, bytes(512))
    assert answered(guest, SYS.getrandom, DATA, 256, 1) == 256
    data = guest.space.read(DATA, 512)
    assert data[:256].count(0) < 20 and data[256:] == bytes(256)
    assert answered(guest, SYS.getrandom, DATA, 0, 0) == 0
    assert answered(guest, SYS.getrandom, DATA, 8, 0x80) == -22 % (1 << 64)
    assert answered(guest, SYS.getrandom, 8, 8, 0) == -14 % (1 << 64)
    assert answered(guest, SYS.getrandom, DATA, 257, 0) is None
    assert answered(guest, SYS.getrandom, base.GUEST_TOP - 4, 8, 0) is None
    assert answered(guest, SYS.getrandom, base.GUEST_TOP + 0x100, 8, 0) is None


def test_fs_base(guest):
    for value in (0x1234_5678, 0, 0x7FFF_FFFF_EFFF) * 4:  # every eighth answer is a trap as well
        assert answered(guest, SYS.arch_prctl, 0x1002, value) == 0
        assert guest.regs.fs_base == value
    assert answered(guest, SYS.arch_prctl, 0x1002, 0x7FFF_FFFF_F000) is None
    assert answered(guest, SYS.arch_prctl, 0x1001, 8) is None
    assert guest.regs.fs_base == 0x7FFF_FFFF_EFFF


def test_what_there_is_not(guest):
    assert answered(guest, SYS.rseq, DATA, 32, 0, 0x53053053) == -38 % (1 << 64)


def test_nothing_while_every_call_has_to_be_seen(guest):
    guest.thread.hot.forced, guest.thread.hot.known = 1, 0x3FF
    for number, args in (
        (SYS.set_tid_address, (DATA,)), (SYS.set_robust_list, (DATA, 24)), (SYS.getrlimit, (3, DATA)),
        (SYS.getrandom, (DATA, 8, 0)), (SYS.arch_prctl, (0x1002, 8)), (SYS.rseq, ()),
    ):  # fmt: skip
        assert answered(guest, number, *args) is None
