"""Processes: clone and its kin, exit, ids, process groups and sessions."""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi.errors import SysError
from sentry.abi.mman import USER_END
from sentry.abi.sched import (
    CLONE_DETACHED,
    CLONE_INTO_CGROUP,
    CLONE_NEWTIME,
    CLONE_PARENT,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    CSIGNAL,
)
from sentry.abi.signal import NSIG, SIGCHLD
from sentry.abi.syscall_nr import SYS
from sentry.abi.wait import exit_status
from sentry.kernel.clone import CloneArgs
from sentry.kernel.clone import clone as make_task
from sentry.kernel.group import ProcessGroup, Session
from sentry.kernel.pids import MAX_LEVEL
from sentry.kernel.task import NO_RESULT
from sentry.syscalls.args import read_extensible
from sentry.syscalls.table import ERESTARTNOINTR, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.group import ThreadGroup
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, Size, ULong

CLONE_ARGS = Struct("<11Q")
CLONE_ARGS_SIZE_VER0 = 64
INT_MAX = 0x7FFFFFFF
TASK_SIZE_MAX = USER_END


@syscall(SYS.fork, on_signal=ERESTARTNOINTR)
async def fork(task: Task) -> int:
    """fork(2)."""
    return await make_task(task, CloneArgs(0, SIGCHLD))


@syscall(SYS.vfork, on_signal=ERESTARTNOINTR)
async def vfork(task: Task) -> int:
    """vfork(2)."""
    return await make_task(task, CloneArgs(CLONE_VFORK | CLONE_VM, SIGCHLD))


@syscall(SYS.clone, on_signal=ERESTARTNOINTR)
async def clone(task: Task, flags: ULong, stack: Addr, ptid: Addr, ctid: Addr, tls: Addr) -> int:
    """clone(2).  The word for CLONE_PIDFD is that for CLONE_PARENT_SETTID: not both."""
    if flags & CLONE_PIDFD and flags & CLONE_PARENT_SETTID:
        raise SysError(errno.EINVAL)
    args = CloneArgs(flags & 0xFFFFFFFF & ~CSIGNAL, flags & CSIGNAL, stack, ptid, ctid, tls, ptid)
    return await make_task(task, args)


@syscall(
    SYS.clone3, on_signal=ERESTARTNOINTR, partial="no descriptor names a cgroup: CLONE_INTO_CGROUP is EBADF"
)
async def clone3(task: Task, args: Addr, size: Size) -> int:
    """clone3(2)."""
    fields = read_extensible(task, args, size, CLONE_ARGS, CLONE_ARGS_SIZE_VER0)
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, count, cgroup = fields
    if count > MAX_LEVEL or bool(set_tid) != bool(count) or exit_signal & ~CSIGNAL or exit_signal > NSIG:
        raise SysError(errno.EINVAL)
    if flags & CLONE_INTO_CGROUP and (cgroup > INT_MAX or size < CLONE_ARGS.size):
        raise SysError(errno.EINVAL)
    wanted = _set_tid(task, set_tid, count) if count else ()
    if flags & (CSIGNAL & ~CLONE_NEWTIME | CLONE_DETACHED) or (
        flags & (CLONE_THREAD | CLONE_PARENT) and exit_signal
    ):
        raise SysError(errno.EINVAL)
    if bool(stack) != bool(stack_size) or stack + stack_size > TASK_SIZE_MAX:
        raise SysError(errno.EINVAL)
    if flags & CLONE_INTO_CGROUP:
        raise SysError(errno.EBADF)
    top = stack + stack_size
    return await make_task(
        task, CloneArgs(flags, exit_signal, top, parent_tid, child_tid, tls, pidfd, wanted)
    )


def _set_tid(task: Task, addr: int, count: int) -> tuple[int, ...]:
    return tuple(memoryview(task.mm.read(addr, 4 * count)).cast("i"))


@syscall(SYS.exit)
def exit(task: Task, code: Int) -> object:
    """_exit(2) of one thread."""
    task.kernel.exit_task(task, exit_status(code))
    return NO_RESULT


@syscall(SYS.exit_group)
def exit_group(task: Task, code: Int) -> object:
    """exit_group(2)."""
    kernel = task.kernel
    kernel.exit_group(task.group, exit_status(code), by=task)
    kernel.exit_task(task, task.group.exit_status)
    return NO_RESULT


@syscall(SYS.getpid)
def getpid(task: Task) -> int:
    """getpid(2)."""
    return task.group.pid.vnr


@syscall(SYS.gettid)
def gettid(task: Task) -> int:
    """gettid(2)."""
    return task.pid.vnr


@syscall(SYS.getppid)
def getppid(task: Task) -> int:
    """getppid(2)."""
    parent = task.group.parent
    return 0 if parent is None else parent.pid.nr(task.pid.ns)


def _group(task: Task, pid: int) -> ThreadGroup:
    """The process of the thread `pid` (0: the caller's); SysError(ESRCH)."""
    found = task if pid == 0 else task.find_task(pid)
    if found is None:
        raise SysError(errno.ESRCH)
    return found.group


@syscall(SYS.getpgid)
def getpgid(task: Task, pid: Int) -> int:
    """getpgid(2)."""
    return _group(task, pid).pgrp.pid.nr(task.pid.ns)


@syscall(SYS.getpgrp)
def getpgrp(task: Task) -> int:
    """getpgrp(2)."""
    return task.group.pgrp.pid.nr(task.pid.ns)


@syscall(SYS.getsid)
def getsid(task: Task, pid: Int) -> int:
    """getsid(2)."""
    return _group(task, pid).session.pid.nr(task.pid.ns)


@syscall(SYS.setpgid)
def setpgid(task: Task, pid: Int, pgid: Int) -> None:
    """setpgid(2)."""
    if pgid < 0 or (not pgid and pid < 0):
        raise SysError(errno.EINVAL)
    me = task.group
    group = me if pid == 0 else task.find_group(pid)
    if group is None:
        raise SysError(errno.ESRCH if task.find_task(pid) is None else errno.EINVAL)
    if group is not me:
        if group.parent is not me:
            raise SysError(errno.ESRCH)
        if group.session is not me.session:
            raise SysError(errno.EPERM)
        if group.did_exec:
            raise SysError(errno.EACCES)
    if group.session.leader is group:
        raise SysError(errno.EPERM)
    pgrp: ProcessGroup | None
    if pgid in (0, group.pid.nr(task.pid.ns)):
        pgrp = group.pid.ns.pgrps.get(group.pid.vnr)
        if pgrp is None:
            pgrp = ProcessGroup(group.tgid, group.session, group.pid)
            task.kernel.add_pgrp(pgrp)
    else:
        pgrp = task.find_pgrp(pgid)
        if pgrp is None or pgrp.session is not me.session:
            raise SysError(errno.EPERM)
    if pgrp is not group.pgrp:
        group.enter(pgrp)


@syscall(SYS.setsid)
def setsid(task: Task) -> int:
    """setsid(2)."""
    group = task.group
    kernel = task.kernel
    if group.tgid in kernel.processes_by_pgid:
        raise SysError(errno.EPERM)
    pgrp = ProcessGroup(group.tgid, Session(group.tgid, group, group.pid), group.pid)
    kernel.add_pgrp(pgrp)
    group.enter(pgrp)
    group.tty = None
    return group.pid.vnr
