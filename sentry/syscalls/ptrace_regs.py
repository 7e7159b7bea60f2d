"""A stopped tracee's registers, in the layouts of ptrace(2) (arch/x86/kernel/ptrace.c)."""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi import ptrace as abi
from sentry.abi.errors import SysError
from sentry.abi.mman import USER_END
from sentry.abi.prctl import ARCH_GET_FS, ARCH_GET_GS, ARCH_SET_FS, ARCH_SET_GS
from sentry.abi.signal import FP_SW_OFFSET, FXSAVE_SIZE, SIGTRAP
from sentry.kernel.debugregs import DebugRegs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.ptrace import Tracee
    from sentry.kernel.task import Task

NAMES = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
REGS = Struct("<27Q")
U64 = (1 << 64) - 1
USER_RPL = 3
DEBUG_REGISTERS = 8
SELECTORS = frozenset(("cs", "ss", "ds", "es", "fs", "gs"))
#: CF PF AF ZF SF TF DF OF RF AC: what a tracer may change; NT stays clear.
FLAG_MASK = 0x50DD5
MXCSR_OFFSET = 24
MXCSR_MASK = 0xFFFF
#: In the XSAVE header: which components are there; x87 and SSE.
XSTATE_BV_OFFSET = 512
XSTATE_LEGACY = 3


def get_regs(task: Task) -> bytes:
    """struct user_regs_struct."""
    regs = task.regs
    return REGS.pack(*[getattr(regs, name) for name in NAMES])


def _check(name: str, value: int) -> int:
    """The value that is stored (putreg).  SysError(EIO)."""
    if name in SELECTORS:
        value &= 0xFFFF
        if (value and value & 3 != USER_RPL) or (not value and name in ("cs", "ss")):
            raise SysError(errno.EIO)
    elif name in ("fs_base", "gs_base") and value >= USER_END:
        raise SysError(errno.EIO)
    return value


def _put(task: Task, name: str, value: int) -> None:
    value = _check(name, value)
    if name == "eflags":
        value = task.regs.eflags & ~FLAG_MASK | value & FLAG_MASK
    setattr(task.regs, name, value)


def set_regs(task: Task, data: bytes) -> None:
    """Registers in the order of user_regs_struct, as many as `data` has; those before a bad one are set."""
    for number in range(len(data) // 8):
        _put(task, NAMES[number], int.from_bytes(data[8 * number : 8 * number + 8], "little"))


def peek_user(task: Task, offset: int) -> int:
    """A word of struct user: registers, debug registers, 0 elsewhere.  SysError(EIO)."""
    if offset % 8 or offset >= abi.USER_SIZE:
        raise SysError(errno.EIO)
    if offset < abi.USER_REGS_SIZE:
        value: int = getattr(task.regs, NAMES[offset // 8])
        return value
    if 0 <= offset - abi.USER_DEBUGREG < 8 * DEBUG_REGISTERS:
        trace = task.trace
        debug = DebugRegs() if trace is None or trace.debug is None else trace.debug
        return debug.get((offset - abi.USER_DEBUGREG) // 8)
    return 0


def poke_user(task: Task, offset: int, value: int) -> None:
    """SysError(EIO); EINVAL for a debug register that asks for what can't be watched."""
    if offset % 8 or offset >= abi.USER_SIZE:
        raise SysError(errno.EIO)
    if offset < abi.USER_REGS_SIZE:
        _put(task, NAMES[offset // 8], value)
    elif not 0 <= offset - abi.USER_DEBUGREG < 8 * DEBUG_REGISTERS:
        raise SysError(errno.EIO)
    else:
        trace = task.trace
        assert trace is not None
        if trace.debug is None:
            trace.debug = DebugRegs()
        trace.debug.set((offset - abi.USER_DEBUGREG) // 8, value)


def get_fpregs(task: Task) -> bytes:
    """struct user_fpregs_struct: what FXSAVE stores."""
    state = task.thread.get_fpstate()
    return state[:FP_SW_OFFSET] + bytes(FXSAVE_SIZE - FP_SW_OFFSET)


def set_fpregs(task: Task, data: bytes) -> None:
    """All of it.  SysError(EINVAL)."""
    if len(data) != abi.FPREGS_SIZE:
        raise SysError(errno.EINVAL)
    state = task.thread.get_fpstate()
    legacy = data[:FP_SW_OFFSET]
    if int.from_bytes(legacy[MXCSR_OFFSET : MXCSR_OFFSET + 4], "little") & ~MXCSR_MASK:
        raise SysError(errno.EINVAL)
    present = int.from_bytes(state[XSTATE_BV_OFFSET : XSTATE_BV_OFFSET + 8], "little") | XSTATE_LEGACY
    rest = (
        state[FP_SW_OFFSET:XSTATE_BV_OFFSET] + present.to_bytes(8, "little") + state[XSTATE_BV_OFFSET + 8 :]
    )
    task.thread.set_fpstate(legacy + rest)


def get_xstate(task: Task) -> bytes:
    """The XSAVE area; the first of the words for software says which components there are."""
    state = task.thread.get_fpstate()
    features = state[FP_SW_OFFSET : FP_SW_OFFSET + 8]
    return state[:FP_SW_OFFSET] + features + bytes(FXSAVE_SIZE - FP_SW_OFFSET - 8) + state[FXSAVE_SIZE:]


def set_xstate(task: Task, data: bytes) -> None:
    """All of the area.  SysError(EFAULT) for a part of it, EINVAL for what the CPU would refuse."""
    state = task.thread.get_fpstate()
    if len(data) != len(state):
        raise SysError(errno.EFAULT)
    features = int.from_bytes(state[FP_SW_OFFSET : FP_SW_OFFSET + 8], "little")
    header = data[XSTATE_BV_OFFSET : XSTATE_BV_OFFSET + 64]
    if int.from_bytes(header[:8], "little") & ~features or any(header[8:]):
        raise SysError(errno.EINVAL)
    if int.from_bytes(data[MXCSR_OFFSET : MXCSR_OFFSET + 4], "little") & ~MXCSR_MASK:
        raise SysError(errno.EINVAL)
    task.thread.set_fpstate(data[:FP_SW_OFFSET] + state[FP_SW_OFFSET:FXSAVE_SIZE] + data[FXSAVE_SIZE:])


#: By note type: (all of it, put as much as there is).
REGSETS: dict[int, tuple[Callable[[Task], bytes], Callable[[Task, bytes], None]]] = {
    abi.NT_PRSTATUS: (get_regs, set_regs),
    abi.NT_PRFPREG: (get_fpregs, set_fpregs),
    abi.NT_X86_XSTATE: (get_xstate, set_xstate),
}


def arch_prctl(task: Task, option: int, value: int) -> int | None:
    """arch_prctl(2) of another task: what is asked for, or None.  SysError(EINVAL, EPERM)."""
    if option in (ARCH_SET_FS, ARCH_SET_GS):
        if value >= USER_END:
            raise SysError(errno.EPERM)
        setattr(task.regs, "fs_base" if option == ARCH_SET_FS else "gs_base", value)
        return None
    if option in (ARCH_GET_FS, ARCH_GET_GS):
        base: int = task.regs.fs_base if option == ARCH_GET_FS else task.regs.gs_base
        return base
    raise SysError(errno.EINVAL)


def syscall_info(task: Task, trace: Tracee) -> bytes:
    """struct ptrace_syscall_info (PTRACE_GET_SYSCALL_INFO)."""
    regs = task.regs
    op, tail = abi.PTRACE_SYSCALL_INFO_NONE, b""
    code = 0 if trace.info is None else trace.info.code
    call = (regs.orig_rax, regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9)
    if code == SIGTRAP | abi.PTRACE_EVENT_SECCOMP << 8:
        op = abi.PTRACE_SYSCALL_INFO_SECCOMP
        tail = abi.SYSCALL_INFO_SECCOMP.pack(*call, trace.message)
    elif code == SIGTRAP | 0x80:
        if trace.message == abi.PTRACE_EVENTMSG_SYSCALL_ENTRY:
            op = abi.PTRACE_SYSCALL_INFO_ENTRY
            tail = abi.SYSCALL_INFO_ENTRY.pack(*call)
        elif trace.message == abi.PTRACE_EVENTMSG_SYSCALL_EXIT:
            op = abi.PTRACE_SYSCALL_INFO_EXIT
            value = regs.rax - (1 << 64) if regs.rax >> 63 else regs.rax
            tail = abi.SYSCALL_INFO_EXIT.pack(value, -4095 <= value < 0)
    return abi.SYSCALL_INFO_HEAD.pack(op, abi.AUDIT_ARCH_X86_64, regs.rip, regs.rsp) + tail
