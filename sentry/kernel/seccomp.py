"""Seccomp filters of guests: what becomes of a call before its handler sees it (seccomp(2)).

A `Filter` is one program and the chain of those that were installed before it; it never changes and is
shared by all who inherit it.  `always` are the calls that the whole chain allows whatever their arguments are
(Linux's action cache): the platform goes on answering these by itself, and here they cost one look.
"""

from __future__ import annotations

from sentry._engine import ffi, lib
from sentry.abi.seccomp import (
    AUDIT_ARCH_X86_64,
    RET_ACTION,
    RET_ALLOW,
    RET_DATA,
    RET_ERRNO,
    RET_KILL_PROCESS,
    RET_LOG,
    RET_TRACE,
    RET_TRAP,
    RET_USER_NOTIF,
    SECCOMP_DATA,
    SECCOMP_MODE_FILTER,
    SECCOMP_MODE_STRICT,
    SYS_SECCOMP,
)
from sentry.abi.signal import SIGKILL, SIGSYS, SigInfo
from sentry.abi.syscall_nr import SYS
from sentry.abi.wait import signal_status
from sentry.kernel.bound import ALL_CALLS, CALLS, words
from sentry.kernel.bpf import converted_length

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sentry.fs.listener import Listener
    from sentry.kernel.bpf import Instruction
    from sentry.kernel.task import Task

MAX_ERRNO = 4095
ENOSYS = 38
_STRICT_CALLS = (SYS.read, SYS.write, SYS.exit, SYS.rt_sigreturn)


class Strict:
    """SECCOMP_SET_MODE_STRICT: four calls; any other kills the thread by SIGKILL."""

    mode = SECCOMP_MODE_STRICT
    length = 0
    listeners = ()
    always = sum(1 << nr for nr in _STRICT_CALLS)

    def check(self, task: Task, nr: int) -> bool:
        task.kernel.exit_task(task, signal_status(SIGKILL))
        return False


STRICT = Strict()


class Filter:
    """A chain of filters that begins with the newest one."""

    __slots__ = ("_code", "_count", "always", "length", "listener", "listeners", "log", "parent", "total")
    mode = SECCOMP_MODE_FILTER

    def __init__(
        self, program: Sequence[Instruction], parent: Filter | None, log: bool = False,
        listener: Listener | None = None,
    ) -> None:  # fmt: skip
        self._code = ffi.new("struct bpf_instruction[]", list(program))
        self._count = len(program)
        self.parent = parent
        self.log = log
        #: Who answers for this one (seccomp_unotify(2)), and all of the chain.
        self.listener = listener
        self.listeners: tuple[Listener, ...] = parent.listeners if parent else ()
        if listener is not None:
            self.listeners += (listener,)
        #: Filters in the chain, and instructions as they count against its limit.
        self.length: int = 1 + (parent.length if parent else 0)
        self.total: int = converted_length(program) + (parent.total + 4 if parent else 0)
        bitmap = ffi.new("uint64_t[]", CALLS // 64)
        always = parent.always if parent else ALL_CALLS
        bitmap[0 : CALLS // 64] = words(always)
        lib.bpf_allowed(self._code, self._count, AUDIT_ARCH_X86_64, bitmap)
        self.always: int = int.from_bytes(ffi.buffer(bitmap)[:], "little")

    def descends_from(self, other: Filter | None) -> bool:
        """Whether `other` is in the chain (nothing is, in any)."""
        found: Filter | None = self
        while found is not None and found is not other:
            found = found.parent
        return found is other

    def run(self, data: Any) -> tuple[int, Filter]:
        """The action that wins, and whose it is: the least as a signed number; among equal ones the newest
        filter's."""
        result, winner = RET_ALLOW, self
        level = RET_ALLOW
        found: Filter | None = self
        while found is not None:
            value: int = lib.bpf_run(found._code, found._count, data, 0xFFFF)
            action = _level(value)
            if action < level:
                result, level, winner = value, action, found
            found = found.parent
        return result, winner

    def check(self, task: Task, nr: int) -> bool:
        """Whether the call is to be made; if not, all that follows from that has been done."""
        regs = task.regs
        number = (nr ^ 0x8000_0000) - 0x8000_0000
        arguments = (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9)
        data = SECCOMP_DATA.pack(number, AUDIT_ARCH_X86_64, regs.rip, *arguments)
        action, winner = self.run(ffi.from_buffer("uint32_t[]", data))
        kind, value = action & RET_ACTION, action & RET_DATA
        if kind in (RET_ALLOW, RET_LOG):
            return True
        if kind == RET_ERRNO:
            task.finished(-min(value, MAX_ERRNO), None)
        elif kind == RET_TRACE and task.trace is not None:
            return task.trace.ask_for_filter(value)
        elif kind == RET_USER_NOTIF and winner.listener is not None:
            task.start(_ask(task, winner.listener, nr, data))
        elif kind in (RET_TRACE, RET_USER_NOTIF):
            # Nobody listens.
            task.finished(-ENOSYS, None)
        elif kind == RET_TRAP:
            _trap(task, number, value)
        else:
            _kill(task, number, whole=kind == RET_KILL_PROCESS)
        return False


async def _ask(task: Task, listener: Listener, nr: int, data: bytes) -> object:
    """What the supervisor answers, or else the call itself."""
    answer = await listener.ask(task, data)
    return answer if answer is not None else await task.handle(nr)


def _level(value: int) -> int:
    """Actions in order of precedence are signed numbers; an unknown one kills the process (seccomp(2))."""
    action = value & RET_ACTION
    return action - (1 << 32) if action & 0x8000_0000 else action


def _trap(task: Task, nr: int, value: int) -> None:
    """SIGSYS with the registers as they were at the call, which does not happen (syscall_rollback())."""
    regs = task.regs
    regs.rax = regs.orig_rax
    task.kernel.signals.force(task, _information(task, nr, value))
    task.finished(task.regs.rax, None)


def _information(task: Task, nr: int, value: int) -> SigInfo:
    arch = AUDIT_ARCH_X86_64
    return SigInfo(SIGSYS, SYS_SECCOMP, addr=task.regs.rip, syscall=nr, arch=arch, errno=value)


def _kill(task: Task, nr: int, whole: bool) -> None:
    """SIGSYS ends the process, or only the thread if it is not the last one."""
    if whole or len(task.group.tasks) == 1:
        task.die(_information(task, nr, 0))
    else:
        task.kernel.exit_task(task, signal_status(SIGSYS))
