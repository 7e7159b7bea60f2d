"""Signals: actions, masks, sending, waiting, alternate stacks."""

from __future__ import annotations

import errno
from time import monotonic_ns

from sentry.abi.errors import SysError
from sentry.abi.signal import (
    MINSIGSTKSZ,
    NSIG,
    SA_KNOWN,
    SI_TKILL,
    SI_USER,
    SIG_BLOCK,
    SIG_SETMASK,
    SIG_UNBLOCK,
    SIGACTION,
    SIGCONT,
    SIGINFO_SIZE,
    SIGKILL,
    SIGSEGV,
    SIGSTOP,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    STACK_T,
    SigInfo,
    bit,
)
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import TIMESPEC, unpack_timespec
from sentry.kernel import frames
from sentry.kernel.signals import sanitize_mask
from sentry.kernel.task import NO_RESULT
from sentry.kernel.timers import hurry
from sentry.kernel.userns import INITIAL
from sentry.kernel.wait import Interrupted, block
from sentry.syscalls.table import EINTR, ERESTARTNOHAND, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.group import ThreadGroup
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, Signal, Size

SIGSET_SIZE = 8


def read_mask(task: Task, addr: int, size: int) -> int:
    """The signal set at `addr`; SysError(EINVAL) unless `size` is that of the kernel's sigset_t."""
    if size != SIGSET_SIZE:
        raise SysError(errno.EINVAL)
    return task.mm.read_u64(addr)


@syscall(SYS.rt_sigaction)
def rt_sigaction(task: Task, signo: Signal, action: Addr, old: Addr, size: Size) -> None:
    """sigaction(2)."""
    if size != SIGSET_SIZE or not 1 <= signo <= NSIG:
        raise SysError(errno.EINVAL)
    hand = task.group.sighand
    previous = hand.get(signo)
    if action:
        handler, flags, restorer, mask = SIGACTION.unpack(task.mm.read(action, SIGACTION.size))
        if signo in (SIGKILL, SIGSTOP):
            raise SysError(errno.EINVAL)
        hand.set(signo, (handler, flags & SA_KNOWN, restorer, sanitize_mask(mask)))
        if hand.ignores(signo):
            task.group.pending.discard(bit(signo))
            for member in task.group.tasks:
                member.pending.discard(bit(signo))
    if old:
        task.mm.write(old, SIGACTION.pack(*previous))


@syscall(SYS.rt_sigprocmask)
def rt_sigprocmask(task: Task, how: Int, new: Addr, old: Addr, size: Size) -> None:
    """sigprocmask(2)."""
    if size != SIGSET_SIZE:
        raise SysError(errno.EINVAL)
    previous = task.blocked
    if new:
        mask = task.mm.read_u64(new)
        if how == SIG_BLOCK:
            task.set_blocked(previous | mask)
        elif how == SIG_UNBLOCK:
            task.set_blocked(previous & ~mask)
        elif how == SIG_SETMASK:
            task.set_blocked(mask)
        else:
            raise SysError(errno.EINVAL)
    if old:
        task.mm.write_u64(old, previous)


@syscall(SYS.rt_sigpending)
def rt_sigpending(task: Task, addr: Addr, size: Size) -> None:
    """sigpending(2)."""
    if size > SIGSET_SIZE:
        raise SysError(errno.EINVAL)
    bits = task.pending_bits() & task.blocked
    task.mm.write(addr, bits.to_bytes(8, "little")[:size])


@syscall(SYS.rt_sigreturn)
def rt_sigreturn(task: Task) -> object:
    """rt_sigreturn(2)."""
    try:
        frames.pop(task)
    except SysError:
        task.kernel.signals.force(task, SigInfo(SIGSEGV, 0x80))
    if task.pending_bits() & ~task.blocked:
        hurry(task)
    return NO_RESULT


@syscall(SYS.sigaltstack)
def sigaltstack(task: Task, new: Addr, old: Addr) -> None:
    """sigaltstack(2)."""
    base, _flags, size = task.altstack
    sp = task.regs.rsp
    previous = STACK_T.pack(base, _signed(frames.alt_stack_flags(task, sp)), 0, size)
    if new:
        base, flags, _, size = STACK_T.unpack(task.mm.read(new, STACK_T.size))
        flags &= 0xFFFFFFFF
        if frames.on_alt_stack(task, sp):
            raise SysError(errno.EPERM)
        if flags & ~SS_AUTODISARM not in (0, SS_ONSTACK, SS_DISABLE):
            raise SysError(errno.EINVAL)
        if flags & SS_DISABLE:
            task.altstack = (0, flags, 0)
        else:
            if size < MINSIGSTKSZ:
                raise SysError(errno.ENOMEM)
            task.altstack = (base, flags & SS_AUTODISARM, size)
    if old:
        task.mm.write(old, previous)


def _signed(flags: int) -> int:
    return (flags ^ 0x80000000) - 0x80000000


@syscall(SYS.rt_sigsuspend, on_signal=ERESTARTNOHAND)
async def rt_sigsuspend(task: Task, addr: Addr, size: Size) -> int:
    """sigsuspend(2)."""
    mask = read_mask(task, addr, size)
    task.set_temporary_mask(mask)
    while True:
        await block()


@syscall(SYS.pause, on_signal=ERESTARTNOHAND)
async def pause(task: Task) -> int:
    """pause(2)."""
    while True:
        await block()


@syscall(SYS.rt_sigtimedwait, on_signal=EINTR)
async def rt_sigtimedwait(task: Task, addr: Addr, infop: Addr, timeout: Addr, size: Size) -> int:
    """sigtimedwait(2)."""
    mask = sanitize_mask(read_mask(task, addr, size))
    deadline = None
    if timeout:
        deadline = monotonic_ns() + unpack_timespec(task.mm.read(timeout, TIMESPEC.size))
    info = task.take_signal(mask)
    if info is None:
        # What is not blocked wakes us, too, and is ours rather than its handler's.
        try:
            while info is None:
                if not await block((task.group.signal_queue, 1), deadline=deadline):
                    info = task.take_signal(mask)
                    if info is None:
                        raise SysError(errno.EAGAIN)
                    break
                info = task.take_signal(mask)
        except Interrupted:
            info = task.take_signal(mask)
            if info is None:
                raise
    if infop:
        task.mm.write(infop, info.pack())
    return info.signo


def may_signal(task: Task, target: Task, signo: int) -> bool:
    """kill(2)'s permission rule; threads of one process may always."""
    group = target.group
    if task.group is group or task.cred.may_signal(target.cred):
        return True
    return signo == SIGCONT and task.group.session is group.session


def user_info(task: Task, signo: int, code: int = SI_USER) -> SigInfo:
    """What kill(2) says of its caller."""
    return SigInfo(signo, code, task.group.pid.vnr, task.cred.uid)


def check_signal(signo: int) -> None:
    if not 0 <= signo <= NSIG:
        raise SysError(errno.EINVAL)


def _as_seen(task: Task, target: Task, info: SigInfo) -> tuple[SigInfo, bool]:
    """(`info` as `target` is to have it, whether the sender is above it): from a namespace around that of the
    target a signal comes from nobody, and even an init has to obey."""
    outside = not task.pid.nr(target.pid.ns)
    space = target.cred.user_ns
    if (outside or space is not INITIAL) and info.code in (SI_USER, SI_TKILL) and info.raw is None:
        info = SigInfo(info.signo, info.code, 0 if outside else info.pid, space.uid(info.uid))
    return info, outside


def send_to_group(task: Task, group: ThreadGroup, signo: int, info: SigInfo) -> None:
    """kill(2) of one process; SysError(EPERM)."""
    if not may_signal(task, group.leader, signo):
        raise SysError(errno.EPERM)
    if signo:
        info, outside = _as_seen(task, group.leader, info)
        task.kernel.signals.send_group(group, signo, info, force=outside)


def send_to_pgrp(task: Task, groups: list[ThreadGroup], signo: int, info: SigInfo) -> None:
    """kill(2) of several: what the last one says if none takes it; SysError(ESRCH) if there is none."""
    if not groups:
        raise SysError(errno.ESRCH)
    sent, failed = False, SysError(errno.EPERM)
    for group in groups:
        try:
            send_to_group(task, group, signo, info)
            sent = True
        except SysError as error:
            failed = error
    if not sent:
        raise failed


def send_to_task(task: Task, target: Task, signo: int, info: SigInfo) -> None:
    """tgkill(2); SysError(EPERM)."""
    if not may_signal(task, target, signo):
        raise SysError(errno.EPERM)
    if signo:
        info, outside = _as_seen(task, target, info)
        task.kernel.signals.send_task(target, signo, info, force=outside)


@syscall(SYS.kill)
def kill(task: Task, pid: Int, signo: Signal) -> None:
    """kill(2)."""
    info = user_info(task, signo)
    if pid > 0:
        named = task.find_task(pid)
        if named is None:
            raise SysError(errno.ESRCH)
        check_signal(signo)
        send_to_group(task, named.group, signo, info)
        return
    if pid == -0x80000000:
        raise SysError(errno.ESRCH)
    if pid == -1:
        targets = [g for n, g in list(task.pid.ns.groups.items()) if n > 1 and g is not task.group]
    else:
        pgrp = task.group.pgrp if pid == 0 else task.find_pgrp(-pid)
        targets = [] if pgrp is None else list(pgrp.members)
    if targets:
        check_signal(signo)
    try:
        send_to_pgrp(task, targets, signo, info)
    except SysError as error:
        if pid != -1 or error.errno != errno.EPERM:  # of all processes, those count that are one's own
            raise


@syscall(SYS.tgkill)
def tgkill(task: Task, tgid: Int, tid: Int, signo: Signal) -> None:
    """tgkill(2)."""
    if tgid <= 0 or tid <= 0:
        raise SysError(errno.EINVAL)
    _tkill(task, tgid, tid, signo, user_info(task, signo, SI_TKILL))


@syscall(SYS.tkill)
def tkill(task: Task, tid: Int, signo: Signal) -> None:
    """tkill(2)."""
    if tid <= 0:
        raise SysError(errno.EINVAL)
    _tkill(task, None, tid, signo, user_info(task, signo, SI_TKILL))


def _tkill(task: Task, tgid: int | None, tid: int, signo: int, info: SigInfo) -> None:
    target = task.find_task(tid)
    if target is None or (tgid is not None and target.group.pid.nr(task.pid.ns) != tgid):
        raise SysError(errno.ESRCH)
    check_signal(signo)
    send_to_task(task, target, signo, info)


def read_info(task: Task, signo: int, addr: int) -> SigInfo:
    """The caller's own siginfo."""
    raw = task.mm.read(addr, SIGINFO_SIZE)
    code = int.from_bytes(raw[8:12], "little", signed=True)
    raw = signo.to_bytes(4, "little", signed=True) + raw[4:]
    pid = int.from_bytes(raw[16:20], "little", signed=True)
    uid = int.from_bytes(raw[20:24], "little")
    value = int.from_bytes(raw[24:32], "little")
    return SigInfo(signo, code, pid, uid, value=value, raw=raw)


def _queued_info(task: Task, target: int, signo: int, addr: int) -> SigInfo:
    """It may not pretend to be the kernel or another process's kill."""
    info = read_info(task, signo, addr)
    if (info.code >= 0 or info.code == SI_TKILL) and target != task.group.pid.vnr:
        raise SysError(errno.EPERM)
    return info


@syscall(SYS.rt_sigqueueinfo)
def rt_sigqueueinfo(task: Task, tgid: Int, signo: Signal, infop: Addr) -> None:
    """rt_sigqueueinfo(2)."""
    info = _queued_info(task, tgid, signo, infop)
    named = task.find_task(tgid)
    if named is None:
        raise SysError(errno.ESRCH)
    check_signal(signo)
    send_to_group(task, named.group, signo, info)


@syscall(SYS.rt_tgsigqueueinfo)
def rt_tgsigqueueinfo(task: Task, tgid: Int, tid: Int, signo: Signal, infop: Addr) -> None:
    """rt_tgsigqueueinfo(2)."""
    if tgid <= 0 or tid <= 0:
        raise SysError(errno.EINVAL)
    _tkill(task, tgid, tid, signo, _queued_info(task, tgid, signo, infop))


@syscall(SYS.restart_syscall, on_signal=EINTR)
async def restart_syscall(task: Task) -> int:
    """restart_syscall(2): go on with an interrupted sleep."""
    continuation, task.restart_block = task.restart_block, None
    if continuation is None:
        raise SysError(errno.EINTR)
    result: int = await continuation(task)
    return result
