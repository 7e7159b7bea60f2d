"""Processes: clone and its kin, exit, wait, ids, process groups and sessions."""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.sched import (
    CLONE_DETACHED,
    CLONE_FILES,
    CLONE_FS,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    CSIGNAL,
    NEW_NAMESPACES,
)
from sentry.abi.signal import (
    CLD_CONTINUED,
    CLD_STOPPED,
    CLD_TRAPPED,
    SIGCHLD,
    SIGCONT,
    SigInfo,
)
from sentry.abi.syscall_nr import SYS
from sentry.abi.wait import (
    CONTINUED_STATUS,
    P_ALL,
    P_PGID,
    P_PID,
    P_PIDFD,
    WALL,
    WCLONE,
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WNOTHREAD,
    WNOWAIT,
    WSTOPPED,
    WUNTRACED,
    exit_status,
    stop_status,
)
from sentry.kernel.clone import CloneArgs
from sentry.kernel.clone import clone as make_task
from sentry.kernel.group import ProcessGroup, Session, cause_of_death
from sentry.kernel.ipc.sem import leave_undo_list
from sentry.kernel.ptrace import bury
from sentry.kernel.task import NO_RESULT
from sentry.kernel.wait import Interrupted, block
from sentry.syscalls.args import read_extensible
from sentry.syscalls.limits import pack_rusage
from sentry.syscalls.table import ERESTARTNOINTR, ERESTARTSYS, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.group import ThreadGroup
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, Size, ULong

CLONE_ARGS = Struct("<11Q")
CLONE_ARGS_SIZE_VER0 = 64


@syscall(SYS.fork, on_signal=ERESTARTNOINTR)
async def fork(task: Task) -> int:
    """fork(2)."""
    return await make_task(task, CloneArgs(0, SIGCHLD))


@syscall(SYS.vfork, on_signal=ERESTARTNOINTR)
async def vfork(task: Task) -> int:
    """vfork(2)."""
    return await make_task(task, CloneArgs(CLONE_VFORK | CLONE_VM, SIGCHLD))


@syscall(SYS.clone, on_signal=ERESTARTNOINTR, partial="no namespaces, no CLONE_PIDFD")
async def clone(task: Task, flags: ULong, stack: Addr, ptid: Addr, ctid: Addr, tls: Addr) -> int:
    """clone(2)."""
    if flags & CLONE_PIDFD and flags & (CLONE_DETACHED | CLONE_PARENT_SETTID):
        raise SysError(errno.EINVAL)
    args = CloneArgs(flags & 0xFFFFFFFF & ~CSIGNAL, flags & CSIGNAL, stack, ptid, ctid, tls)
    return await make_task(task, args)


@syscall(SYS.clone3, on_signal=ERESTARTNOINTR, partial="no namespaces, no pidfd, no set_tid, no cgroup")
async def clone3(task: Task, args: Addr, size: Size) -> int:
    """clone3(2)."""
    fields = read_extensible(task, args, size, CLONE_ARGS, CLONE_ARGS_SIZE_VER0)
    (
        flags,
        _pidfd,
        child_tid,
        parent_tid,
        exit_signal,
        stack,
        stack_size,
        tls,
        set_tid,
        set_tid_size,
        _cgroup,
    ) = fields
    if flags & (CSIGNAL | CLONE_DETACHED) or exit_signal & ~CSIGNAL or exit_signal > 64:
        raise SysError(errno.EINVAL)
    if flags & CLONE_THREAD and exit_signal:
        raise SysError(errno.EINVAL)
    if bool(stack) != bool(stack_size) or set_tid or set_tid_size:
        raise SysError(errno.EINVAL)
    if stack + stack_size >= 1 << 47:
        raise SysError(errno.EINVAL)
    return await make_task(
        task, CloneArgs(flags, exit_signal, stack + stack_size, parent_tid, child_tid, tls)
    )


@syscall(SYS.unshare, partial="files and fs only; namespaces are refused")
def unshare(task: Task, flags: ULong) -> None:
    """unshare(2)."""
    known = CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | NEW_NAMESPACES
    if flags & ~known:
        raise SysError(errno.EINVAL)
    if flags & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM) and len(task.group.tasks) > 1:
        raise SysError(errno.EINVAL)
    if flags & NEW_NAMESPACES:
        raise SysError(errno.EINVAL if task.cred.capable(CAP_SYS_ADMIN) else errno.EPERM)
    if flags & CLONE_FS and task.fs.users > 1:
        task.fs.users -= 1
        task.set_fs(task.fs.copy())
    if flags & CLONE_SYSVSEM:
        leave_undo_list(task)
    if flags & CLONE_FILES and task.files.users > 1:
        task.files.users -= 1
        task.files.check_copy()
        task.set_files(task.files.copy())


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


class _Wanted:
    """Which children a wait call is about, and what of them."""

    __slots__ = ("kind", "number", "options")

    def __init__(self, kind: int, number: int, options: int) -> None:
        self.kind = kind
        self.number = number
        self.options = options

    def names(self, task: Task) -> bool:
        if self.kind == P_PID:
            return task.tid == self.number
        return self.kind != P_PGID or task.group.pgrp.pgid == self.number

    def matches(self, child: ThreadGroup) -> bool:
        if not self.names(child.leader):
            return False
        options = self.options
        if options & WALL:
            return True
        return (child.exit_signal != SIGCHLD) == bool(options & WCLONE)


class _News:
    """What a wait call tells of `task`: the status word, the CLD_ code, si_status; `take` makes it old."""

    __slots__ = ("code", "take", "task", "value", "word")

    def __init__(self, task: Task, word: int, code: int, value: int, take: Callable[[], object]) -> None:
        self.task = task
        self.word = word
        self.code = code
        self.value = value
        self.take = take


def _continued(task: Task, group: ThreadGroup) -> _News:
    def take() -> None:
        group.continued = False

    return _News(task, CONTINUED_STATUS, CLD_CONTINUED, SIGCONT, take)


def _news_of_child(child: ThreadGroup, options: int) -> _News | None:
    leader, kernel = child.leader, child.kernel
    if child.zombie:
        # One that is traced, or whose threads are, is the tracer's first.
        if not options & WEXITED or child.undead or leader.trace is not None:
            return None
        status = child.exit_status
        return _News(leader, status, *cause_of_death(status), lambda: kernel.reap(child))
    if child.stopped and not child.stop_reported and options & WSTOPPED:

        def take() -> None:
            child.stop_reported = True

        return _News(leader, stop_status(child.stop_signal), CLD_STOPPED, child.stop_signal, take)
    if child.continued and options & WCONTINUED:
        return _continued(leader, child)
    return None


def _news_of_tracee(tracer: Task, tracee: Task, options: int) -> _News | None:
    trace, group = tracee.trace, tracee.group
    assert trace is not None
    if tracee.exited:
        # A leader's end is the process's.
        if not options & WEXITED or (tracee is group.leader and (not group.zombie or group.undead)):
            return None
        status = group.exit_status if group.dying else trace.exit_status
        return _News(tracee, status, *cause_of_death(status), lambda: bury(tracee, tracer, True))
    code = trace.report()
    if code:

        def take() -> None:
            trace.code = 0

        return _News(tracee, stop_status(code), CLD_TRAPPED, code, take)
    if group.continued and options & WCONTINUED:
        return _continued(tracee, group)
    return None


def _find(task: Task, wanted: _Wanted) -> _News | None:
    """What a child or tracee has to report; None: nothing yet.

    SysError(ECHILD) when none can ever match.
    """
    group = task.group
    if wanted.kind == P_PID:
        only = task.kernel.groups.get(wanted.number)
        children = [only] if only is not None and only in group.children else []
    else:
        children = sorted(group.children, key=lambda child: child.tgid)
    possible = False
    for child in children:
        trace = child.leader.trace
        if not wanted.matches(child) or (trace is not None and trace.tracer.group is group):
            continue
        possible = True
        news = _news_of_child(child, wanted.options)
        if news is not None:
            return news
    for tracer in (task,) if wanted.options & WNOTHREAD else group.tasks:
        for tracee in tracer.tracees:
            if not wanted.names(tracee):
                continue
            possible = True
            news = _news_of_tracee(tracer, tracee, wanted.options)
            if news is not None:
                return news
    if not possible:
        raise SysError(errno.ECHILD)
    return None


async def _wait(task: Task, wanted: _Wanted) -> _News | None:
    """What `_find` finds, as soon as there is something; None with WNOHANG.

    A child that has ended comes before a signal: its own SIGCHLD, above all, interrupts nothing.
    """
    interrupted: Interrupted | None = None
    while True:
        news = _find(task, wanted)
        if news is not None or wanted.options & WNOHANG:
            return news
        if interrupted is not None:
            raise interrupted
        try:
            await block((task.group.child_queue, 1))
        except Interrupted as error:
            interrupted = error


def _take(task: Task, news: _News, options: int, rusage: int) -> None:
    """The caller has heard of it: write `rusage`, and let it not be told again (unless WNOWAIT)."""
    child = news.task.group
    utime, stime = child.cpu_times()
    usage = pack_rusage(utime + child.child_utime, stime + child.child_stime, child.max_rss >> 10)
    if not options & WNOWAIT:
        news.take()
    if rusage:
        task.mm.write(rusage, usage)


@syscall(SYS.wait4, on_signal=ERESTARTSYS)
async def wait4(task: Task, pid: Int, status: Addr, options: Int, rusage: Addr) -> int:
    """wait4(2)."""
    if options & 0xFFFFFFFF & ~(WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WCLONE | WALL):
        raise SysError(errno.EINVAL)
    if pid == -0x80000000:
        raise SysError(errno.ESRCH)
    if pid < -1:
        wanted = _Wanted(P_PGID, -pid, options | WEXITED)
    elif pid == -1:
        wanted = _Wanted(P_ALL, 0, options | WEXITED)
    elif pid == 0:
        wanted = _Wanted(P_PGID, task.group.pgrp.pgid, options | WEXITED)
    else:
        wanted = _Wanted(P_PID, pid, options | WEXITED)
    news = await _wait(task, wanted)
    if news is None:
        return 0
    tid = news.task.tid
    _take(task, news, options, rusage)
    if status:
        task.mm.write_u32(status, news.word)
    return tid


@syscall(SYS.waitid, on_signal=ERESTARTSYS, partial="no P_PIDFD")
async def waitid(task: Task, kind: Int, number: Int, infop: Addr, options: Int, rusage: Addr) -> int:
    """waitid(2)."""
    known = WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | WNOTHREAD | WCLONE | WALL
    if options & 0xFFFFFFFF & ~known or not options & (WEXITED | WSTOPPED | WCONTINUED):
        raise SysError(errno.EINVAL)
    if kind == P_PID and number <= 0:
        raise SysError(errno.EINVAL)
    if kind == P_PGID:
        if number < 0:
            raise SysError(errno.EINVAL)
        number = number or task.group.pgrp.pgid
    if kind == P_PIDFD:
        raise SysError(errno.EBADF)
    if kind not in (P_ALL, P_PID, P_PGID):
        raise SysError(errno.EINVAL)
    news = await _wait(task, _Wanted(kind, number, options))
    if news is None:
        if infop:
            # Only these fields are cleared (waitid(2)).
            task.mm.write(infop, bytes(12))
            task.mm.write(infop + 12, bytes(16))
        return 0
    child = news.task
    info = SigInfo(SIGCHLD, news.code, child.tid, child.cred.uid, status=news.value, child=True)
    _take(task, news, options, rusage)
    if infop:
        # si_utime and si_stime are not reported by waitid.
        task.mm.write(infop, info.pack()[:28])
    return 0


@syscall(SYS.getpid)
def getpid(task: Task) -> int:
    """getpid(2)."""
    return task.group.tgid


@syscall(SYS.gettid)
def gettid(task: Task) -> int:
    """gettid(2)."""
    return task.tid


@syscall(SYS.getppid)
def getppid(task: Task) -> int:
    """getppid(2)."""
    parent = task.group.parent
    return 0 if parent is None else parent.tgid


def _group(task: Task, pid: int) -> ThreadGroup:
    if pid == 0:
        return task.group
    group = task.kernel.groups.get(pid)
    if group is None:
        raise SysError(errno.ESRCH)
    return group


@syscall(SYS.getpgid)
def getpgid(task: Task, pid: Int) -> int:
    """getpgid(2)."""
    return _group(task, pid).pgrp.pgid


@syscall(SYS.getpgrp)
def getpgrp(task: Task) -> int:
    """getpgrp(2)."""
    return task.group.pgrp.pgid


@syscall(SYS.getsid)
def getsid(task: Task, pid: Int) -> int:
    """getsid(2)."""
    return _group(task, pid).session.sid


@syscall(SYS.setpgid)
def setpgid(task: Task, pid: Int, pgid: Int) -> None:
    """setpgid(2)."""
    if pgid < 0 or (pid < 0 and not pgid):
        raise SysError(errno.EINVAL)
    group = _group(task, pid)
    me = task.group
    pgid = pgid or group.tgid
    if group is not me:
        if group.parent is not me:
            raise SysError(errno.ESRCH)
        if group.session is not me.session:
            raise SysError(errno.EPERM)
        if group.did_exec:
            raise SysError(errno.EACCES)
    if group.session.leader is group:
        raise SysError(errno.EPERM)
    kernel = task.kernel
    pgrp = kernel.processes_by_pgid.get(pgid)
    if pgid != group.tgid and (pgrp is None or pgrp.session is not me.session):
        raise SysError(errno.EPERM)
    if pgrp is None:
        pgrp = kernel.processes_by_pgid[pgid] = ProcessGroup(pgid, group.session)
    if pgrp is not group.pgrp:
        group.enter(pgrp)


@syscall(SYS.setsid)
def setsid(task: Task) -> int:
    """setsid(2)."""
    group = task.group
    kernel = task.kernel
    if group.tgid in kernel.processes_by_pgid:
        raise SysError(errno.EPERM)
    pgrp = ProcessGroup(group.tgid, Session(group.tgid, group))
    kernel.processes_by_pgid[group.tgid] = pgrp
    group.enter(pgrp)
    return group.tgid
