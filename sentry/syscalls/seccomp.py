"""seccomp(2), and the two operations of prctl(2) that came before it."""

from __future__ import annotations

import errno

from sentry.abi import seccomp as s
from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.syscall_nr import SYS
from sentry.fs.listener import Listener
from sentry.kernel import bpf
from sentry.kernel.seccomp import STRICT, Filter
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, UInt

_TSYNC, _ESRCH = s.FILTER_FLAG_TSYNC, s.FILTER_FLAG_TSYNC_ESRCH
_LISTENER, _KILLABLE = s.FILTER_FLAG_NEW_LISTENER, s.FILTER_FLAG_WAIT_KILLABLE_RECV
_FLAGS = _TSYNC | _ESRCH | _LISTENER | _KILLABLE | s.FILTER_FLAG_LOG | s.FILTER_FLAG_SPEC_ALLOW


def set_strict(task: Task) -> None:
    """SECCOMP_SET_MODE_STRICT; SysError(EINVAL) under a filter."""
    if task.seccomp is not None and task.seccomp is not STRICT:
        raise SysError(errno.EINVAL)
    task.set_seccomp(STRICT)


def _read_program(task: Task, addr: int) -> list[bpf.Instruction]:
    count, where = s.SOCK_FPROG.unpack(task.mm.read(addr, s.SOCK_FPROG.size))
    if not 0 < count <= s.BPF_MAXINSNS:
        raise SysError(errno.EINVAL)
    if not task.cred.no_new_privs and not task.cred.own_capable(CAP_SYS_ADMIN):
        raise SysError(errno.EACCES)
    return bpf.parse(task.mm.read(where, count * s.SOCK_FILTER.size))


def _cannot_sync(task: Task) -> int:
    """A thread that can't have the caller's filters, since they don't descend from its own; or 0."""
    mine = task.seccomp
    for other in task.group.tasks:
        if other is task or other.exited or other.seccomp is None:
            continue
        theirs = other.seccomp
        if not isinstance(theirs, Filter) or not isinstance(mine, Filter) or not mine.descends_from(theirs):
            return other.pid.vnr
    return 0


def set_filter(task: Task, flags: int, addr: int) -> int:
    """SECCOMP_SET_MODE_FILTER: 0, a listener's descriptor, or with TSYNC the id of a thread that can't be
    synchronised."""
    if flags & ~_FLAGS or (flags & _KILLABLE and not flags & _LISTENER):
        raise SysError(errno.EINVAL)
    if flags & _TSYNC and flags & _LISTENER and not flags & _ESRCH:
        raise SysError(errno.EINVAL)
    program = _read_program(task, addr)
    old = task.seccomp
    if old is STRICT:
        raise SysError(errno.EINVAL)
    assert old is None or isinstance(old, Filter)
    if bpf.converted_length(program) + (old.total + 4 if old else 0) > s.MAX_INSTRUCTIONS:
        raise SysError(errno.ENOMEM)
    if flags & _LISTENER and old is not None and old.listeners:
        raise SysError(errno.EBUSY)
    if flags & _TSYNC and (failed := _cannot_sync(task)):
        if flags & _ESRCH:
            raise SysError(errno.ESRCH)
        return failed
    listener = Listener(bool(flags & _KILLABLE)) if flags & _LISTENER else None
    fd = 0 if listener is None else task.install(listener, cloexec=True)
    new = Filter(program, old, bool(flags & s.FILTER_FLAG_LOG), listener)
    task.set_seccomp(new)
    if flags & _TSYNC:
        for other in task.group.tasks:
            if other is not task and not other.exited:
                _adopt(task, other, new)
    return fd


def _adopt(task: Task, other: Task, chain: Filter) -> None:
    other.set_seccomp(chain)
    if task.cred.no_new_privs and not other.cred.no_new_privs:
        cred = other.cred.copy()
        cred.no_new_privs = True
        other.set_cred(cred)


@syscall(SYS.seccomp)
def seccomp(task: Task, operation: UInt, flags: UInt, args: Addr) -> int:
    """seccomp(2)."""
    if operation == s.SECCOMP_SET_MODE_FILTER:
        return set_filter(task, flags, args)
    if flags or (operation == s.SECCOMP_SET_MODE_STRICT and args):
        raise SysError(errno.EINVAL)
    if operation == s.SECCOMP_SET_MODE_STRICT:
        set_strict(task)
    elif operation == s.SECCOMP_GET_ACTION_AVAIL:
        if task.mm.read_u32(args) not in s.ACTIONS:
            raise SysError(errno.EOPNOTSUPP)
    elif operation == s.SECCOMP_GET_NOTIF_SIZES:
        task.mm.write(args, s.NOTIF_SIZES.pack(80, 24, 64))
    else:
        raise SysError(errno.EINVAL)
    return 0
