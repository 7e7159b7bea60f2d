"""Signal frames of x86-64: the bytes a handler finds on its stack (arch/x86/kernel/signal_64.c).

sp -> pretcode (the restorer's address)
      struct ucontext
      siginfo_t
      ... padding ...
      XSAVE area, 64-byte aligned, with _fpx_sw_bytes at 464 and MAGIC2 behind it
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.mman import USER_END
from sentry.abi.signal import (
    FP_SW,
    FP_SW_OFFSET,
    FP_XSTATE_MAGIC1,
    FP_XSTATE_MAGIC2,
    FXSAVE_SIZE,
    SA_ONSTACK,
    SA_RESTORER,
    SIGCONTEXT,
    SIGCONTEXT_SIZE,
    SIGINFO_SIZE,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    UC_FP_XSTATE,
    UC_SIGCONTEXT_SS,
    UC_STRICT_RESTORE_SS,
    UCONTEXT_HEAD,
    UCONTEXT_SIZE,
    SigInfo,
)
from sentry.kernel.signals import sanitize_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.signals import Action
    from sentry.kernel.task import Task

RED_ZONE = 128
EFLAGS_DF = 0x400
EFLAGS_TF = 0x100
EFLAGS_RF = 0x10000
#: The flags that sigreturn may change (FIX_EFLAGS).
EFLAGS_USER = 0x50DD5
MAX_XSTATE = 64 * 1024


def on_alt_stack(task: Task, sp: int) -> bool:
    """Whether `sp` lies in the alternate stack (SS_AUTODISARM ones never count)."""
    base, flags, size = task.altstack
    return not flags & SS_AUTODISARM and base < sp <= base + size


def alt_stack_flags(task: Task, sp: int) -> int:
    """ss_flags as sigaltstack(2) reports them."""
    _base, flags, size = task.altstack
    if not size:
        return SS_DISABLE
    return flags & SS_AUTODISARM | (SS_ONSTACK if on_alt_stack(task, sp) else 0)


def push(task: Task, action: Action, info: SigInfo, mask: int) -> None:
    """Build the frame for `action` and point the registers at the handler.

    `mask` is what sigreturn restores.  SysError(EFAULT) when the stack cannot take the frame.
    """
    handler, flags, restorer, _ = action
    regs = task.regs
    if not flags & SA_RESTORER:
        raise SysError(errno.EFAULT)
    sp = regs.rsp - RED_ZONE
    base, ss_flags, size = task.altstack
    nested = on_alt_stack(task, regs.rsp)
    if flags & SA_ONSTACK and size and not nested:
        sp = base + size
    on_alt = bool((nested or sp == base + size) and size and not ss_flags & SS_AUTODISARM)
    alt = (base, alt_stack_flags(task, regs.rsp), size) if size else (base, SS_DISABLE, 0)
    fault = (task.fault_error, task.fault_trapno, task.fault_addr)
    packed = info.pack()
    lowest = base if on_alt else 0
    if 0 < sp <= USER_END and task.thread.push_frame(action, packed, mask, sp, lowest, alt, fault):
        if ss_flags & SS_AUTODISARM:
            task.altstack = (0, SS_DISABLE, 0)
        return
    xstate = task.thread.get_fpstate()
    features = int.from_bytes(xstate[FP_SW_OFFSET : FP_SW_OFFSET + 8], "little")
    software = FP_SW.pack(FP_XSTATE_MAGIC1, len(xstate) + 4, features, len(xstate))
    fp = sp - len(xstate) - 4 & ~63
    if not 0 < fp < USER_END:
        raise SysError(errno.EFAULT)
    area = b"".join(
        (
            xstate[:FP_SW_OFFSET],
            software.ljust(FXSAVE_SIZE - FP_SW_OFFSET, b"\0"),
            xstate[FXSAVE_SIZE:],
            FP_XSTATE_MAGIC2.to_bytes(4, "little"),
        )
    )
    frame_size = 8 + UCONTEXT_SIZE + SIGINFO_SIZE
    frame = (fp - frame_size & ~15) - 8
    if on_alt and not base <= frame:
        raise SysError(errno.EFAULT)
    context = SIGCONTEXT.pack(
        regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        regs.rdi, regs.rsi, regs.rbp, regs.rbx, regs.rdx, regs.rax, regs.rcx, regs.rsp,
        regs.rip, regs.eflags, regs.cs & 0xFFFF, 0, 0, regs.ss & 0xFFFF,
        task.fault_error, task.fault_trapno, mask & 0xFFFFFFFFFFFFFFFF, task.fault_addr, fp,
    )  # fmt: skip
    head = UCONTEXT_HEAD.pack(
        UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
        0,
        base,
        alt_stack_flags(task, regs.rsp) if size else SS_DISABLE,
        0,
        size,
    )
    data = b"".join(
        (
            restorer.to_bytes(8, "little"),
            head,
            context.ljust(SIGCONTEXT_SIZE, b"\0"),
            mask.to_bytes(8, "little"),
            packed,
        )
    )
    if frame < 0 or not _in_stack(task, frame):
        raise SysError(errno.EFAULT)
    task.mm.write(fp, area)
    task.mm.write(frame, data)
    task.thread.reset_fpstate()
    if ss_flags & SS_AUTODISARM:
        task.altstack = (0, SS_DISABLE, 0)
    regs.rdi = info.signo
    regs.rsi = frame + 8 + UCONTEXT_SIZE
    regs.rdx = frame + 8
    regs.rax = 0
    regs.rsp = frame
    regs.rip = handler
    regs.eflags &= ~(EFLAGS_DF | EFLAGS_TF | EFLAGS_RF)


def _in_stack(task: Task, frame: int) -> bool:
    """Make room below a growing stack for a frame that the host would not fault in for us."""
    vma = task.mm.find(frame)
    return vma is not None or task.mm.handle_fault(frame, 6)


def pop(task: Task) -> None:
    """rt_sigreturn(2): restore what `push` saved.  SysError(EFAULT) when the frame is unusable."""
    regs = task.regs
    frame = regs.rsp - 8
    data = task.mm.read(frame + 8, UCONTEXT_SIZE)
    _flags, _link, stack, stack_flags, _pad, stack_size = UCONTEXT_HEAD.unpack_from(data)
    context = SIGCONTEXT.unpack_from(data, UCONTEXT_HEAD.size)
    mask = int.from_bytes(data[UCONTEXT_SIZE - 8 :], "little")
    fp = context[-1]
    if fp:
        _restore_fp(task, fp)
    else:
        task.thread.reset_fpstate()
    (
        regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        regs.rdi, regs.rsi, regs.rbp, regs.rbx, regs.rdx, regs.rax, regs.rcx, regs.rsp,
        regs.rip,
    ) = context[:17]  # fmt: skip
    regs.eflags = regs.eflags & ~EFLAGS_USER | context[17] & EFLAGS_USER
    task.blocked = sanitize_mask(mask)
    if stack_flags & ~(SS_ONSTACK | SS_DISABLE | SS_AUTODISARM) == 0 and not on_alt_stack(task, regs.rsp):
        task.altstack = (0, SS_DISABLE, 0) if stack_flags & SS_DISABLE else (stack, stack_flags, stack_size)


def _restore_fp(task: Task, fp: int) -> None:
    legacy = task.mm.read(fp, FXSAVE_SIZE)
    magic, extended, features, size = FP_SW.unpack_from(legacy, FP_SW_OFFSET)
    current = task.thread.get_fpstate()
    host_features = current[FP_SW_OFFSET : FP_SW_OFFSET + 8]
    if magic == FP_XSTATE_MAGIC1 and FXSAVE_SIZE < size <= min(len(current), MAX_XSTATE) and extended >= size:
        rest = task.mm.read(fp + FXSAVE_SIZE, size - FXSAVE_SIZE)
        state = legacy[:FP_SW_OFFSET] + host_features + legacy[FP_SW_OFFSET + 8 : FXSAVE_SIZE] + rest
        state += current[len(state) :]
        enabled = int.from_bytes(state[FXSAVE_SIZE : FXSAVE_SIZE + 8], "little") & features
        state = state[:FXSAVE_SIZE] + enabled.to_bytes(8, "little") + state[FXSAVE_SIZE + 8 :]
    else:
        # Only the legacy area: x87 and SSE, everything else initial.
        state = legacy[:FP_SW_OFFSET] + host_features + bytes(40) + (3).to_bytes(8, "little")
        state += bytes(len(current) - len(state))
    try:
        task.thread.set_fpstate(state)
    except SysError:
        raise SysError(errno.EFAULT) from None
