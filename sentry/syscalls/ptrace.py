"""ptrace(2): the requests.  What a stop is, and what follows it, is in sentry/kernel/ptrace.py.

Permission is ptrace(2)'s "Ptrace access mode checking" with real credentials; there is no Yama, which is the
same as its ptrace_scope 0.
"""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi import ptrace as abi
from sentry.abi.capability import CAP_SYS_PTRACE
from sentry.abi.errors import SysError
from sentry.abi.signal import NSIG, SIGINFO_SIZE, SIGKILL, SigInfo
from sentry.abi.syscall_nr import SYS
from sentry.fs.proc.access import may_access
from sentry.kernel import ptrace
from sentry.kernel.signals import sanitize_mask
from sentry.mm import force
from sentry.syscalls import ptrace_regs
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.ptrace import Tracee
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, Long

    #: (the calling task, the stopped tracee, addr, data): the result.
    Request = Callable[[Task, Task, int, int], int | None]

WORD = 8
SIGSET_SIZE = 8
IOVEC = Struct("<QQ")
SIGINFO_HEAD = Struct("<iii")


def may_trace(task: Task, target: Task) -> bool:
    """ptrace_may_access(PTRACE_MODE_ATTACH_REALCREDS)."""
    return may_access(task, task.cred, target, real=True)


@syscall(SYS.ptrace, partial="no PTRACE_SINGLEBLOCK, no thread areas: EIO")
def ptrace_(task: Task, request: Long, pid: Int, addr: Addr, data: Addr) -> int | None:
    """ptrace(2)."""
    if request == abi.PTRACE_TRACEME:
        return _traceme(task)
    target = task.find_task(pid)
    if target is None:
        raise SysError(errno.ESRCH)
    if request in (abi.PTRACE_ATTACH, abi.PTRACE_SEIZE):
        return _attach(task, target, request == abi.PTRACE_SEIZE, addr, data)
    trace = target.trace
    if trace is None or trace.tracer is not task:
        raise SysError(errno.ESRCH)
    if request == abi.PTRACE_KILL:
        target.send_signal(SIGKILL)
        return 0
    if request == abi.PTRACE_INTERRUPT:
        if not trace.seized:
            raise SysError(errno.EIO)
        trace.interrupt()
        return 0
    if not trace.stopped or trace.listening:
        raise SysError(errno.ESRCH)
    handler = _REQUESTS.get(request)
    if handler is None:
        raise SysError(errno.EIO)
    return handler(task, target, addr, data)


def _traceme(task: Task) -> int:
    parent = task.group.parent
    creator = task.group.creator
    if creator is None or creator.exited or creator.group is not parent:
        assert parent is not None
        creator = next((other for other in parent.tasks if not other.exited), parent.leader)
    mine, others = task.cred, creator.cred
    plain = mine.user_ns is others.user_ns and not mine.permitted & ~others.permitted
    if not plain and not others.ns_capable(mine.user_ns, CAP_SYS_PTRACE):
        raise SysError(errno.EPERM)
    ptrace.traceme(task, creator)
    return 0


def _check_options(task: Task, options: int) -> None:
    if options & ~abi.PTRACE_O_MASK:
        raise SysError(errno.EINVAL)
    if options & abi.PTRACE_O_SUSPEND_SECCOMP:
        # As a kernel without CONFIG_CHECKPOINT_RESTORE.
        raise SysError(errno.EINVAL)


def _attach(task: Task, target: Task, seize: bool, addr: int, options: int) -> int:
    if seize:
        if addr or options & ~abi.PTRACE_O_MASK:
            raise SysError(errno.EIO)
        _check_options(task, options)
    if target.group is task.group or target.mm is None or not may_trace(task, target):
        raise SysError(errno.EPERM)
    if target.exited or target.trace is not None:
        raise SysError(errno.EPERM)
    ptrace.attach(task, target, seize, options if seize else 0)
    return 0


def _trace(target: Task) -> Tracee:
    assert target.trace is not None
    return target.trace


# Memory


def _check_memory(target: Task) -> None:
    """SysError(EIO): the tracer may not see the memory of a program that it could not read
    (ptrace_access_vm())."""
    group = target.group
    if group.dumpable != 1 and not _trace(target).cred.ns_capable(group.dump_ns, CAP_SYS_PTRACE):
        raise SysError(errno.EIO)


def _peek(task: Task, target: Task, addr: int, data: int) -> int:
    _check_memory(target)
    try:
        word = force.read_upto(target.mm, addr, WORD)
    except SysError:
        word = b""
    if len(word) < WORD:
        raise SysError(errno.EIO)
    task.mm.write(data, word)
    return 0


def _poke(_task: Task, target: Task, addr: int, data: int) -> int:
    _check_memory(target)
    try:
        done = force.write_upto(target.mm, addr, data.to_bytes(WORD, "little"))
    except SysError:
        done = 0
    if done < WORD:
        raise SysError(errno.EIO)
    return 0


# Registers


def _peek_user(task: Task, target: Task, addr: int, data: int) -> int:
    task.mm.write_u64(data, ptrace_regs.peek_user(target, addr))
    return 0


def _poke_user(_task: Task, target: Task, addr: int, data: int) -> int:
    ptrace_regs.poke_user(target, addr, data)
    return 0


def _get_regs(task: Task, target: Task, _addr: int, data: int) -> int:
    task.mm.write(data, ptrace_regs.get_regs(target))
    return 0


def _set_regs(task: Task, target: Task, _addr: int, data: int) -> int:
    ptrace_regs.set_regs(target, task.mm.read(data, abi.USER_REGS_SIZE))
    return 0


def _get_fpregs(task: Task, target: Task, _addr: int, data: int) -> int:
    task.mm.write(data, ptrace_regs.get_fpregs(target))
    return 0


def _set_fpregs(task: Task, target: Task, _addr: int, data: int) -> int:
    ptrace_regs.set_fpregs(target, task.mm.read(data, abi.FPREGS_SIZE))
    return 0


def _regset(task: Task, target: Task, note: int, iovec: int, store: bool) -> int:
    base, size = IOVEC.unpack(task.mm.read(iovec, IOVEC.size))
    regset = ptrace_regs.REGSETS.get(note & 0xFFFFFFFF)
    if regset is None or size % WORD:
        raise SysError(errno.EINVAL)
    get, put = regset
    whole = get(target)
    size = min(size, len(whole))
    if store:
        put(target, task.mm.read(base, size))
    else:
        task.mm.write(base, whole[:size])
    task.mm.write_u64(iovec + 8, size)
    return 0


def _get_regset(task: Task, target: Task, addr: int, data: int) -> int:
    return _regset(task, target, addr, data, False)


def _set_regset(task: Task, target: Task, addr: int, data: int) -> int:
    return _regset(task, target, addr, data, True)


def _arch_prctl(task: Task, target: Task, addr: int, data: int) -> int:
    """arch_prctl(2) of the tracee, with its arguments the other way round."""
    value = ptrace_regs.arch_prctl(target, data & 0xFFFFFFFF, addr)
    if value is not None:
        task.mm.write_u64(addr, value)
    return 0


# Signals and stops


def _get_siginfo(task: Task, target: Task, _addr: int, data: int) -> int:
    info = _trace(target).info
    if info is None:
        raise SysError(errno.EINVAL)
    task.mm.write(data, info.pack())
    return 0


def _set_siginfo(task: Task, target: Task, _addr: int, data: int) -> int:
    raw = task.mm.read(data, SIGINFO_SIZE)
    trace = _trace(target)
    if trace.info is None:
        raise SysError(errno.EINVAL)
    signo, _, code = SIGINFO_HEAD.unpack_from(raw)
    trace.info = SigInfo(signo, code, raw=raw)
    return 0


def _peek_siginfo(task: Task, target: Task, addr: int, data: int) -> int:
    offset, flags, count = abi.PEEKSIGINFO_ARGS.unpack(task.mm.read(addr, abi.PEEKSIGINFO_ARGS.size))
    if flags & ~abi.PTRACE_PEEKSIGINFO_SHARED or count < 0:
        raise SysError(errno.EINVAL)
    pending = target.group.pending if flags & abi.PTRACE_PEEKSIGINFO_SHARED else target.pending
    queued = pending.queued()[offset : offset + count]
    for done, info in enumerate(queued):
        try:
            task.mm.write(data + done * SIGINFO_SIZE, info.pack())
        except SysError:
            if done:
                return done
            raise
    return len(queued)


def _get_sigmask(task: Task, target: Task, addr: int, data: int) -> int:
    if addr != SIGSET_SIZE:
        raise SysError(errno.EINVAL)
    mask = target.blocked if target.saved_mask is None else target.saved_mask
    task.mm.write_u64(data, mask)
    return 0


def _set_sigmask(task: Task, target: Task, addr: int, data: int) -> int:
    if addr != SIGSET_SIZE:
        raise SysError(errno.EINVAL)
    mask = sanitize_mask(task.mm.read_u64(data))
    target.saved_mask = None
    target.set_blocked(mask)
    return 0


def _set_options(task: Task, target: Task, _addr: int, data: int) -> int:
    _check_options(task, data)
    _trace(target).options = data
    return 0


def _get_message(task: Task, target: Task, _addr: int, data: int) -> int:
    task.mm.write_u64(data, _trace(target).message)
    return 0


def _get_syscall_info(task: Task, target: Task, size: int, data: int) -> int:
    info = ptrace_regs.syscall_info(target, _trace(target))
    task.mm.write(data, info[: min(size, len(info))])
    return len(info)


def _listen(_task: Task, target: Task, _addr: int, _data: int) -> int:
    trace = _trace(target)
    if not trace.seized or trace.info is None or trace.info.code >> 8 != abi.PTRACE_EVENT_STOP:
        raise SysError(errno.EIO)
    trace.listen()
    return 0


# Going on


def _resume(calls: bool = False, emulate: bool = False, step: bool = False) -> Request:
    def resume(_task: Task, target: Task, _addr: int, data: int) -> int:
        if data > NSIG:
            raise SysError(errno.EIO)
        trace = _trace(target)
        trace.calls, trace.emulate, trace.step = calls, emulate, step
        trace.resume(data)
        return 0

    return resume


def _detach(_task: Task, target: Task, _addr: int, data: int) -> int:
    if data > NSIG:
        raise SysError(errno.EIO)
    _trace(target).detach(data)
    return 0


_REQUESTS: dict[int, Request] = {
    abi.PTRACE_PEEKTEXT: _peek,
    abi.PTRACE_PEEKDATA: _peek,
    abi.PTRACE_PEEKUSER: _peek_user,
    abi.PTRACE_POKETEXT: _poke,
    abi.PTRACE_POKEDATA: _poke,
    abi.PTRACE_POKEUSER: _poke_user,
    abi.PTRACE_CONT: _resume(),
    abi.PTRACE_SYSCALL: _resume(calls=True),
    abi.PTRACE_SINGLESTEP: _resume(step=True),
    abi.PTRACE_SYSEMU: _resume(emulate=True),
    abi.PTRACE_SYSEMU_SINGLESTEP: _resume(emulate=True, step=True),
    abi.PTRACE_GETREGS: _get_regs,
    abi.PTRACE_SETREGS: _set_regs,
    abi.PTRACE_GETFPREGS: _get_fpregs,
    abi.PTRACE_SETFPREGS: _set_fpregs,
    abi.PTRACE_DETACH: _detach,
    abi.PTRACE_OLDSETOPTIONS: _set_options,
    abi.PTRACE_ARCH_PRCTL: _arch_prctl,
    abi.PTRACE_SETOPTIONS: _set_options,
    abi.PTRACE_GETEVENTMSG: _get_message,
    abi.PTRACE_GETSIGINFO: _get_siginfo,
    abi.PTRACE_SETSIGINFO: _set_siginfo,
    abi.PTRACE_GETREGSET: _get_regset,
    abi.PTRACE_SETREGSET: _set_regset,
    abi.PTRACE_LISTEN: _listen,
    abi.PTRACE_PEEKSIGINFO: _peek_siginfo,
    abi.PTRACE_GETSIGMASK: _get_sigmask,
    abi.PTRACE_SETSIGMASK: _set_sigmask,
    abi.PTRACE_GET_SYSCALL_INFO: _get_syscall_info,
}
