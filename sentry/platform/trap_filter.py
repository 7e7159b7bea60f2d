"""The seccomp filter of a stub on the `trap` platform.

It is what makes a guest's system call a trap, so it looks at the instruction pointer, which libseccomp
can't; the program is put together here by hand.  Where the call comes from is no boundary: a guest can jump
into the stub's code, or write over it.  So whatever is allowed to the stub is harmless in a guest's hands:
it reaches nothing but its own memory and threads.  What is not, is reported to the Sentry, which compares
it with the order that it gave (csrc/platform/trap_order.c).

Used at build time only: `sentry.runtime.filters` writes it to sentry/_bin/stub_trap.bpf.
"""

from __future__ import annotations

from _struct import Struct

from sentry.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import CLOCK_THREAD_CPUTIME_ID
from sentry.platform.base import GUEST_TOP
from sentry.platform.stub_filter import MEMBARRIERS

#: csrc/abi/stub.h: STUB_SIZE, and the others of csrc/abi/record.h.
STUB_SIZE = 0x4000
BELL_FD = 0
LENT_FD, LENT_MAX = 5, 4
LEND_TOKEN = 0xFFFF_FFF0

ALLOW = 0x7FFF_0000
NOTIFY = 0x7FC0_0000
TRAP = 0x0003_0000
ARCH_X86_64 = 0xC000_003E

#: Offsets in struct seccomp_data.
NR, ARCH, IP_LOW, IP_HIGH = 0, 4, 8, 12

PLAIN = (
    "rt_sigreturn", "restart_syscall", "sigaltstack", "sched_yield", "exit", "exit_group", "munmap",
    "mprotect", "madvise", "getrandom", "getrusage",
)  # fmt: skip
#: Seen by the Sentry first.
CHECKED = ("clone", "mremap")
#: FUTEX_WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_BITSET, WAKE_BITSET: nothing with priorities.
FUTEX_OPERATIONS = (0, 1, 3, 4, 5, 9, 10)
FUTEX_FLAGS = 128 | 256

_INSTRUCTION = Struct("<HBBI")
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _AT_LEAST = 0x15, 0x35


def _low(index: int) -> int:
    """Where the lower half of argument `index` stands in struct seccomp_data."""
    return 16 + 8 * index


class _Program:
    """BPF with labels: every jump goes forward, to a label that comes later."""

    def __init__(self) -> None:
        self._code: list[tuple[int, str | None, str | None, int]] = []
        self._labels: dict[str, int] = {}

    def load(self, offset: int) -> None:
        self._code.append((_LOAD, None, None, offset))

    def mask(self, bits: int) -> None:
        self._code.append((_AND, None, None, bits))

    def equal(self, value: int, yes: str | None = None, no: str | None = None) -> None:
        """Go to `yes` or `no`; None is the next instruction."""
        self._code.append((_EQUAL, yes, no, value))

    def at_least(self, value: int, yes: str | None = None, no: str | None = None) -> None:
        self._code.append((_AT_LEAST, yes, no, value))

    def answer(self, action: int) -> None:
        self._code.append((_RETURN, None, None, action))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def assemble(self) -> bytes:
        def distance(at: int, label: str | None) -> int:
            return 0 if label is None else self._labels[label] - at - 1

        return b"".join(
            _INSTRUCTION.pack(op, distance(at, yes), distance(at, no), value)
            for at, (op, yes, no, value) in enumerate(self._code)
        )


def trap_filter() -> bytes:
    """The filter as an array of struct sock_filter."""
    p = _Program()
    p.load(ARCH)
    p.equal(ARCH_X86_64, no="trap")
    p.load(IP_HIGH)
    p.equal(GUEST_TOP >> 32, no="trap")
    p.load(IP_LOW)
    p.at_least((GUEST_TOP & 0xFFFF_FFFF) + STUB_SIZE, yes="trap")
    p.load(NR)
    for name in ("futex", "mmap", "write", "close", "clock_gettime", "membarrier"):
        p.equal(getattr(SYS, name), yes=name)
    for name in PLAIN:
        p.equal(getattr(SYS, name), yes="allow")
    for name in CHECKED:
        p.equal(getattr(SYS, name), yes="notify")
    p.label("trap")
    p.answer(TRAP)
    p.label("allow")
    p.answer(ALLOW)
    p.label("notify")
    p.answer(NOTIFY)
    p.label("futex")
    p.load(_low(1))
    p.mask(0xFFFF_FFFF & ~FUTEX_FLAGS)
    for operation in FUTEX_OPERATIONS:
        p.equal(operation, yes="allow2")
    p.answer(TRAP)
    p.label("clock_gettime")
    # The CPU time of this thread, and of nobody else.
    p.load(_low(0))
    p.equal(CLOCK_THREAD_CPUTIME_ID, yes="allow2")
    p.answer(TRAP)
    p.label("membarrier")
    p.load(_low(0))
    for command in MEMBARRIERS:
        p.equal(command, yes="allow2")
    p.answer(TRAP)
    p.label("write")
    p.load(_low(0))
    p.equal(BELL_FD, yes="allow2")
    p.answer(TRAP)
    p.label("close")
    p.load(_low(0))
    p.equal(LEND_TOKEN, yes="notify2", no="allow2")
    p.label("mmap")
    # Private anonymous memory: no huge-page pool, nothing locked, nothing shared.
    p.load(_low(3) + 4)
    p.equal(0, no="trap2")
    p.load(_low(3))
    p.mask(0xFFFF_FFFF & ~(MAP_FIXED | MAP_NORESERVE))
    p.equal(MAP_PRIVATE | MAP_ANONYMOUS, yes="allow2")
    # Files that the Sentry has lent.
    p.equal(MAP_PRIVATE, yes="lent")
    p.equal(MAP_SHARED, no="trap2")
    p.label("lent")
    p.load(_low(4))
    p.at_least(LENT_FD, no="trap2")
    p.at_least(LENT_FD + LENT_MAX, no="allow2")
    p.label("trap2")
    p.answer(TRAP)
    p.label("allow2")
    p.answer(ALLOW)
    p.label("notify2")
    p.answer(NOTIFY)
    return p.assemble()
