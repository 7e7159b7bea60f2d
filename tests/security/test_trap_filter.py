"""The stub's filter on `trap`, call by call: what it answers to every number, from every place, for every
argument that it looks at.

The program is run by a small interpreter here, and compared with the rules as the design states them, which
are written down a second time below.  That the host's kernel reads it the same way is seen in
tests/unit/test_trap.py.
"""

from __future__ import annotations

import struct
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sentry.abi.syscall_nr import SYS
from sentry.platform.base import GUEST_TOP
from sentry.platform.trap_filter import ALLOW, ARCH_X86_64, NOTIFY, STUB_SIZE, TRAP, trap_filter

PROGRAM = list(struct.iter_unpack("<HBBI", trap_filter()))
ARCH_I386 = 0x4000_0003
INSIDE = (GUEST_TOP, GUEST_TOP + 2, GUEST_TOP + STUB_SIZE - 1)
OUTSIDE = (
    0, 2, 0x40_0000, GUEST_TOP - 1, GUEST_TOP + STUB_SIZE, GUEST_TOP - (1 << 32), GUEST_TOP + (1 << 32),
    (1 << 32) | GUEST_TOP & 0xFFFF_FFFF, GUEST_TOP & 0xFFFF_FFFF, GUEST_TOP + 0x1_0000, 0xFFFF_FFFF_FF60_0400,
    GUEST_TOP | 1 << 63,
)  # fmt: skip
NAMES = {ALLOW: "allow", NOTIFY: "notify", TRAP: "trap"}
WIDE = st.integers(0, 2**64 - 1)


def answer(nr: int, ip: int, args: tuple[int, ...] = (), arch: int = ARCH_X86_64) -> str:
    """What the program says, as seccomp(2) would run it."""
    data = struct.pack("<IIQ6Q", nr & 0xFFFF_FFFF, arch, ip, *args, *[0] * (6 - len(args)))
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = PROGRAM[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= value
        elif code == 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
            at += yes if accumulator == value else no
        elif code == 0x35:  # BPF_JMP | BPF_JGE | BPF_K
            at += yes if accumulator >= value else no
        elif code == 0x06:  # BPF_RET | BPF_K
            return NAMES[value]
        else:
            raise AssertionError(f"instruction {code:#x}")


def expected(nr: int, args: tuple[int, ...] = ()) -> str:
    """The design's list, for a call from the stub's text."""
    a = [*args, *[0] * (6 - len(args))]
    if nr in {
        SYS.rt_sigreturn, SYS.restart_syscall, SYS.sigaltstack, SYS.sched_yield, SYS.exit, SYS.exit_group,
        SYS.munmap, SYS.mprotect, SYS.madvise, SYS.getrandom, SYS.getrusage,
    }:  # fmt: skip
        return "allow"
    if nr in {SYS.clone, SYS.mremap}:
        return "notify"
    if nr == SYS.mmap:
        flags, fd = a[3], a[4] & 0xFFFF_FFFF
        if flags & ~(0x10 | 0x4000) in {0x1, 0x2}:
            return "allow" if 5 <= fd < 9 else "trap"
        private = flags & 0xF == 2 and flags & 0x20
        return "allow" if private and not flags & ~(0x2 | 0x10 | 0x20 | 0x4000) else "trap"
    if nr == SYS.close:
        return "notify" if a[0] & 0xFFFF_FFFF == 0xFFFF_FFF0 else "allow"
    if nr == SYS.futex:  # nothing with priority inheritance, nothing that takes a second lock
        command = a[1] & 0xFFFF_FFFF & ~(128 | 256)
        return "allow" if command in {0, 1, 3, 4, 5, 9, 10} else "trap"
    if nr == SYS.membarrier:
        return "allow" if a[0] & 0xFFFF_FFFF in {8, 16, 32, 64} else "trap"
    if nr == SYS.clock_gettime:  # the CPU time of the thread itself
        return "allow" if a[0] & 0xFFFF_FFFF == 3 else "trap"
    if nr == SYS.write:
        return "allow" if a[0] & 0xFFFF_FFFF == 0 else "trap"
    return "trap"


def test_every_number_from_everywhere() -> None:
    for nr in range(1024):
        for ip in INSIDE:
            assert answer(nr, ip) == expected(nr), (nr, hex(ip))
        for ip in OUTSIDE:
            assert answer(nr, ip) == "trap", (nr, hex(ip))


@pytest.mark.parametrize("base", [0x4000_0000, 0x4000_0200, 0x8000_0000, 0xFFFF_FC00])
def test_other_ranges_of_numbers(base: int) -> None:
    """x32, its own numbers, and negative ones."""
    for nr, ip in product(range(base, base + 1024), INSIDE + OUTSIDE):
        assert answer(nr, ip) == "trap", (hex(nr), hex(ip))


def test_other_architectures() -> None:
    """int 0x80 and 32-bit code, wherever they are; and an architecture that there is not."""
    for nr, ip in product(range(512), INSIDE + OUTSIDE):
        assert answer(nr, ip, arch=ARCH_I386) == "trap"
    for arch in (0, 0x3E, 0x8000_003E, 0xC000_00B7, 0xFFFF_FFFF):
        assert answer(SYS.munmap, GUEST_TOP, arch=arch) == "trap"


def test_every_flag_of_mmap() -> None:
    for bits in (*range(64), *(1 << shift for shift in range(6, 64))):
        for flags in (bits, bits | 0x22, bits | 0x32, bits | 0x11, bits | 0x12, bits | 0x4022):
            for fd in (*range(12), 2**31, 2**32 + 5, 2**64 - 1):
                args = (0x1000, 4096, 3, flags, fd, 0)
                assert answer(SYS.mmap, GUEST_TOP, args) == expected(SYS.mmap, args), hex(flags)
                assert answer(SYS.mmap, 0x40_0000, args) == "trap"


def test_every_descriptor_of_close() -> None:
    for fd in (*range(1024), 2**31, 2**32 - 32, *range(2**32 - 17, 2**32 + 16), 2**64 - 16, 2**64 - 1):
        assert answer(SYS.close, GUEST_TOP, (fd,)) == expected(SYS.close, (fd,)), fd
        assert answer(SYS.close, 0x40_0000, (fd,)) == "trap"


def test_every_operation_of_futex() -> None:
    for operation in (*range(1024), *(1 << shift for shift in range(32)), 2**32, 2**32 + 6, 2**64 - 1):
        args = (0x1000, operation)
        assert answer(SYS.futex, GUEST_TOP, args) == expected(SYS.futex, args), operation


def test_every_clock_and_barrier() -> None:
    for command in (*range(128), *(1 << shift for shift in range(64)), 2**32 + 8, 2**64 - 8):
        assert answer(SYS.membarrier, GUEST_TOP, (command,)) == expected(SYS.membarrier, (command,)), command
    for clock in (*range(64), *range(2**32 - 64, 2**32), 2**32 + 3, 2**64 - 5):
        assert answer(SYS.clock_gettime, GUEST_TOP, (clock,)) == expected(SYS.clock_gettime, (clock,)), clock


def test_every_descriptor_of_write() -> None:
    for fd in (*range(1024), 2**32, 2**32 + 1, 2**64 - 1, 2**31):
        assert answer(SYS.write, GUEST_TOP, (fd, 0x1000, 8)) == expected(SYS.write, (fd,)), fd


@given(
    st.integers(0, 2**32 - 1) | st.integers(0, 512), WIDE | st.sampled_from(INSIDE), st.tuples(*[WIDE] * 6)
)
@example(SYS.mmap, GUEST_TOP, (0, 0, 0, 0x22, 0, 0))
def test_anything(nr: int, ip: int, args: tuple[int, ...]) -> None:
    inside = GUEST_TOP <= ip < GUEST_TOP + STUB_SIZE
    assert answer(nr, ip, args) == (expected(nr, args) if inside else "trap")


def test_the_number_alone_is_never_enough() -> None:
    """Each path through the program passes the tests of architecture and place first."""
    assert PROGRAM[0][0] == 0x20 and PROGRAM[0][3] == 4
    assert PROGRAM[1][0] == 0x15 and PROGRAM[1][3] == ARCH_X86_64
    loads = [at for at, (code, _, _, value) in enumerate(PROGRAM) if code == 0x20 and value == 0]
    places = [at for at, (code, _, _, value) in enumerate(PROGRAM) if code == 0x20 and value in (8, 12)]
    assert max(places) < min(loads)
