"""Debug registers of a traced task, carried out by steps (arch/x86/kernel/ptrace.c, hw_breakpoint.c).

The CPU's own are out of reach, so a task that has one of these enabled runs an instruction at a time, and
behind each it is seen whether what is watched has changed, or the next instruction is one to stop at; where
reads are watched, too, the instruction is decoded before.  It is slow, but what `watch` and `hbreak` of a
debugger ask for.  A store of the value that was there already is no change.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.mman import USER_END
from sentry.kernel.operands import INSN_MAX, touched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task

COUNT = 4
#: What an idle DR6 looks like; in there a 1 means "has not happened" or nothing at all.
DR6_RESERVED = 0xFFFF0FF0
DR_STEP = 0x4000
DR7_RESERVED = 0xFFFFFFFF0000FC00
EXECUTE, WRITE, IO, ACCESS = range(4)
#: By the two bits of a length.
SIZES = (1, 2, 8, 4)


class DebugRegs:
    """`Tracee.debug`, once a tracer has written one."""

    __slots__ = ("_before", "_touched", "addrs", "control", "happened")

    def __init__(self) -> None:
        self.addrs = [0] * COUNT
        #: DR7 as it was written, and DR6 with 1 for what has happened.
        self.control = 0
        self.happened = 0
        self._before: list[bytes] = []
        self._touched: list[tuple[int, int]] = []

    @property
    def active(self) -> bool:
        return bool(self.control & 0xFF)

    def get(self, number: int) -> int:
        if number < COUNT:
            return self.addrs[number]
        return self.happened ^ DR6_RESERVED if number == 6 else self.control if number == 7 else 0

    def set(self, number: int, value: int) -> None:
        """SysError(EINVAL) for what can't be watched, EIO for registers that there are none of."""
        if number < COUNT:
            kind, size, enabled = _decode(self.control, number)
            _check(value, kind if enabled else WRITE, size if enabled else 1)
            self.addrs[number] = value
        elif number == 6:
            self.happened = value ^ DR6_RESERVED
        elif number == 7:
            for slot in range(COUNT):
                kind, size, enabled = _decode(value & ~DR7_RESERVED, slot)
                if enabled:
                    _check(self.addrs[slot], kind, size)
            self.control = value
        else:
            raise SysError(errno.EIO)

    def _watched(self) -> list[tuple[int, int, int, int]]:
        """(slot, kind, address, size) of those that are enabled."""
        found = []
        for slot in range(COUNT):
            kind, size, enabled = _decode(self.control, slot)
            if enabled:
                found.append((slot, kind, self.addrs[slot], size))
        return found

    def before_step(self, task: Task) -> None:
        watched = self._watched()
        self._before = [_read(task, addr, size) for _, _, addr, size in watched]
        self._touched = []
        if any(kind == ACCESS for _, kind, _, _ in watched):
            try:
                self._touched = touched(task.regs, task.mm.read_upto(task.regs.rip, INSN_MAX))
            except SysError:
                pass

    def after_step(self, task: Task) -> bool:
        """Whether one has been hit: DR6 says which."""
        self.happened = 0
        for (slot, kind, addr, size), before in zip(self._watched(), self._before, strict=False):
            if kind == EXECUTE:
                hit = bool(task.regs.rip == addr)
            else:
                hit = _read(task, addr, size) != before
            if kind == ACCESS:
                hit = hit or any(at < addr + size and addr < at + length for at, length in self._touched)
            if hit:
                self.happened |= 1 << slot
        return bool(self.happened)


def _decode(control: int, slot: int) -> tuple[int, int, bool]:
    """(kind, size, whether it is enabled) of a slot in DR7."""
    bits = control >> (16 + 4 * slot)
    return bits & 3, SIZES[bits >> 2 & 3], bool(control >> 2 * slot & 3)


def _check(addr: int, kind: int, size: int) -> None:
    if kind == IO or (kind == EXECUTE and size != 1) or addr % size or addr + size > USER_END:
        raise SysError(errno.EINVAL)


def _read(task: Task, addr: int, size: int) -> bytes:
    try:
        return task.mm.read(addr, size)
    except SysError:
        return b""
