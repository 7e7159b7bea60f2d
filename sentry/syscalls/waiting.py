"""wait4(2) and waitid(2): what has become of children."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_NONBLOCK
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
    stop_status,
)
from sentry.kernel.group import cause_of_death
from sentry.kernel.wait import Interrupted, block
from sentry.syscalls.limits import pack_rusage
from sentry.syscalls.table import ERESTARTSYS, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.group import ThreadGroup
    from sentry.kernel.pids import Pid
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int


#: What waitid(2) says of no child.
NOTHING = SigInfo(0, 0, 0, 0, status=0, child=True)


class _Wanted:
    """Which children a wait call is about, and what of them.  `pid` is None for all of them."""

    __slots__ = ("kind", "options", "pid")

    def __init__(self, kind: int, pid: Pid | None, options: int) -> None:
        self.kind = kind
        self.pid = pid
        self.options = options

    def names(self, task: Task) -> bool:
        if self.kind == P_PID:
            return task.pid is self.pid
        return self.kind != P_PGID or task.group.pgrp.pid is self.pid

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
        return _News(leader, status, *cause_of_death(status), lambda: kernel.reap(child, waited=True))
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
        from sentry.kernel.ptrace import bury

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

    SysError(ECHILD) when none can ever match: a zombie, for one, neither stops nor continues.
    """
    group, options = task.group, wanted.options
    if wanted.kind == P_PID:
        only = None if wanted.pid is None else wanted.pid.group
        children = [only] if only is not None and only in group.children else []
    else:
        children = sorted(group.children, key=lambda child: child.tgid)
    possible = False
    for child in children:
        trace = child.leader.trace
        if not wanted.matches(child) or (trace is not None and trace.tracer.group is group):
            continue
        if options & WNOTHREAD and child.creator is not task:
            continue
        possible = possible or bool(not child.zombie or child.undead or trace or options & WEXITED)
        news = _news_of_child(child, options)
        if news is not None:
            return news
    tracers = [] if not group.tracing else [task] if options & WNOTHREAD else group.tasks
    for tracer in tracers:
        for tracee in tracer.tracees:
            if not wanted.names(tracee):
                continue
            possible = True
            news = _news_of_tracee(tracer, tracee, options)
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
    usage = b""
    if rusage:
        child = news.task.group
        utime, stime = child.cpu_times()
        usage = pack_rusage(
            utime + child.child_utime,
            stime + child.child_stime,
            max(child.max_rss, child.child_max_rss) >> 10,
        )
    if not options & WNOWAIT:
        news.take()
    if rusage:
        task.mm.write(rusage, usage)


def _pgrp_pid(task: Task, number: int) -> Pid | None:
    """The Pid of the process group `number` (0: the caller's)."""
    pgrp = task.find_pgrp(number) if number else task.group.pgrp
    return None if pgrp is None else pgrp.pid


def _task_pid(task: Task, number: int) -> Pid | None:
    named = task.find_task(number)
    return None if named is None else named.pid


@syscall(SYS.wait4, on_signal=ERESTARTSYS)
async def wait4(task: Task, pid: Int, status: Addr, options: Int, rusage: Addr) -> int:
    """wait4(2)."""
    if options & 0xFFFFFFFF & ~(WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WCLONE | WALL):
        raise SysError(errno.EINVAL)
    if pid == -0x80000000:
        raise SysError(errno.ESRCH)
    options |= WEXITED
    if pid < -1 or pid == 0:
        wanted = _Wanted(P_PGID, _pgrp_pid(task, -pid), options)
    elif pid == -1:
        wanted = _Wanted(P_ALL, None, options)
    else:
        wanted = _Wanted(P_PID, _task_pid(task, pid), options)
    news = await _wait(task, wanted)
    if news is None:
        return 0
    number = news.task.pid.nr(task.pid.ns)
    _take(task, news, options, rusage)
    if status:
        task.mm.write_u32(status, news.word)
    return number


def _whom(task: Task, kind: int, number: int) -> tuple[Pid | None, bool]:
    """(Pid that waitid(2) names, whether EAGAIN stands for "not yet"); SysError(EINVAL, EBADF)."""
    if kind == P_ALL:
        return None, False
    if kind not in (P_PID, P_PGID, P_PIDFD) or number < 0 or (kind == P_PID and not number):
        raise SysError(errno.EINVAL)
    if kind == P_PGID:
        return _pgrp_pid(task, number), False
    if kind == P_PID:
        return _task_pid(task, number), False
    file = task.files.get(number)
    from sentry.fs.pidfd import PidFile

    if not isinstance(file, PidFile):
        raise SysError(errno.EBADF)
    return file.pid, bool(file.flags & O_NONBLOCK)


async def _waitid(task: Task, kind: int, number: int, options: int) -> _News | None:
    known = WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | WNOTHREAD | WCLONE | WALL
    if options & 0xFFFFFFFF & ~known or not options & (WEXITED | WSTOPPED | WCONTINUED):
        raise SysError(errno.EINVAL)
    pid, polite = _whom(task, kind, number)
    wanted = _Wanted(P_PID if kind == P_PIDFD else kind, pid, options | (WNOHANG if polite else 0))
    news = await _wait(task, wanted)
    if news is None and polite and not options & WNOHANG:
        raise SysError(errno.EAGAIN)
    return news


@syscall(SYS.waitid, on_signal=ERESTARTSYS)
async def waitid(task: Task, kind: Int, number: Int, infop: Addr, options: Int, rusage: Addr) -> int:
    """waitid(2).  What there is to say of no child is zeroes, after an error, too."""
    try:
        news = await _waitid(task, kind, number, options)
    except SysError:
        if infop:
            _write_info(task, infop, NOTHING)
        raise
    if news is None:
        if infop:
            _write_info(task, infop, NOTHING)
        return 0
    child = news.task
    uid = task.cred.user_ns.uid(child.cred.uid)
    info = SigInfo(SIGCHLD, news.code, child.pid.nr(task.pid.ns), uid, status=news.value, child=True)
    _take(task, news, options, rusage)
    if infop:
        _write_info(task, infop, info)
    return 0


def _write_info(task: Task, addr: int, info: SigInfo) -> None:
    """Signal number, code, process, user and status; nothing else of the siginfo is touched."""
    data = info.pack()
    task.mm.write(addr, data[:12])
    task.mm.write(addr + 16, data[16:28])
