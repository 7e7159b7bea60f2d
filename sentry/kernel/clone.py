"""Making tasks: fork, vfork, threads, and everything between them (clone(2))."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_EXCL
from sentry.abi.mman import USER_END
from sentry.abi.ptrace import PTRACE_EVENT_VFORK_DONE
from sentry.abi.sched import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_CLEAR_SIGHAND,
    CLONE_DETACHED,
    CLONE_FILES,
    CLONE_FS,
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_PARENT,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_PTRACE,
    CLONE_SETTLS,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    NEW_NAMESPACES,
    SCHED_DEADLINE,
)
from sentry.abi.signal import NSIG, SS_AUTODISARM, SS_DISABLE
from sentry.kernel.bound import FORCED_FUTEX, FORCED_PROTECTION
from sentry.kernel.group import ThreadGroup
from sentry.kernel.namespaces import create_user_ns, unshare_mounts, unshare_proxy
from sentry.kernel.pids import new_pid
from sentry.kernel.sched import READ_IMPLIES_EXEC
from sentry.kernel.task import Task
from sentry.kernel.timers import watch_cpu_limit
from sentry.kernel.wait import WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.namespaces import NsProxy
    from sentry.kernel.pids import Pid, PidNamespace


class CloneArgs:
    """struct clone_args.  `parent_tid` and `pidfd` are addresses, `set_tid` the numbers that the child is to
    have, `user_ns` what the child's credentials are made with."""

    __slots__ = ("child_tid", "exit_signal", "flags", "parent_tid", "pidfd", "set_tid", "stack", "tls")

    def __init__(
        self,
        flags: int,
        exit_signal: int,
        stack: int = 0,
        parent_tid: int = 0,
        child_tid: int = 0,
        tls: int = 0,
        pidfd: int = 0,
        set_tid: tuple[int, ...] = (),
    ) -> None:
        self.flags = flags
        self.exit_signal = exit_signal
        self.stack = stack
        self.parent_tid = parent_tid
        self.child_tid = child_tid
        self.tls = tls
        self.pidfd = pidfd
        self.set_tid = set_tid


def _check(task: Task, args: CloneArgs) -> None:
    """What copy_process() refuses before it makes anything; SysError(EINVAL)."""
    flags = args.flags
    proxy = task.nsproxy
    invalid = (
        flags >> 34
        or (flags & CLONE_FS and flags & (CLONE_NEWNS | CLONE_NEWUSER))
        or (flags & CLONE_THREAD and not flags & CLONE_SIGHAND)
        or (flags & CLONE_SIGHAND and not flags & CLONE_VM)
        or (flags & CLONE_SIGHAND and flags & CLONE_CLEAR_SIGHAND)
        or (flags & CLONE_PARENT and task.group.unkillable)
        or (flags & CLONE_PIDFD and flags & CLONE_DETACHED)
        or not 0 <= args.exit_signal <= NSIG
    )
    if invalid:
        raise SysError(errno.EINVAL)
    if flags & CLONE_THREAD and (
        flags & (CLONE_NEWPID | CLONE_NEWUSER) or proxy.pid_for_children is not task.pid.ns
    ):
        raise SysError(errno.EINVAL)
    if flags & (CLONE_THREAD | CLONE_VM) and flags & CLONE_NEWTIME:
        raise SysError(errno.EINVAL)
    if flags & CLONE_SETTLS and args.tls >= USER_END:
        raise SysError(errno.EPERM)


def _namespaces(task: Task, flags: int) -> tuple[Credentials, NsProxy]:
    """(credentials, namespaces) of the child; SysError(EPERM, ENOSPC, EINVAL)."""
    cred, proxy = task.cred, task.nsproxy
    if flags & CLONE_NEWUSER:
        cred = create_user_ns(task.kernel, cred, task.fs.chrooted)
    if flags & NEW_NAMESPACES & ~CLONE_NEWUSER:
        if not cred.own_capable(CAP_SYS_ADMIN):
            raise SysError(errno.EPERM)
        if flags & CLONE_NEWIPC and flags & CLONE_SYSVSEM:
            raise SysError(errno.EINVAL)
        proxy = unshare_proxy(task.kernel, proxy, task.pid.ns, cred, flags)
    if proxy.time_for_children is not proxy.time and not flags & CLONE_VM:
        proxy = proxy.copy()
        proxy.time = proxy.time_for_children
    return cred, proxy


def _child_pid(task: Task, args: CloneArgs, cred: Credentials, proxy: NsProxy) -> Pid:
    ns = proxy.pid_for_children
    wanted = args.set_tid
    if wanted:
        if len(wanted) > ns.level + 1:
            raise SysError(errno.EINVAL)
        space: PidNamespace | None = ns
        for _ in wanted:
            assert space is not None
            if not any(
                cred.ns_capable(space.user_ns, cap) for cap in (CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN)
            ):
                raise SysError(errno.EPERM)
            space = space.parent
    return new_pid(ns, wanted)


def _give_pidfd(task: Task, pid: Pid, args: CloneArgs) -> int | None:
    """A descriptor for the child, told to the caller; SysError(EMFILE, EFAULT)."""
    if not args.flags & CLONE_PIDFD:
        return None
    flags = O_EXCL if args.flags & CLONE_THREAD else 0
    from sentry.fs.pidfd import PidFile

    fd = task.install(PidFile(pid, flags), cloexec=True)
    try:
        task.mm.write_u32(args.pidfd, fd)
    except SysError:
        task.files.close(fd)
        raise
    return fd


async def clone(task: Task, args: CloneArgs) -> int:
    """Make a task like `task`; its id.  SysError(EAGAIN, EINVAL, ENOMEM, ENOSPC, EPERM…)."""
    _check(task, args)
    kernel = task.kernel
    if task.sched.policy == SCHED_DEADLINE and not task.sched.reset_on_fork:
        raise SysError(errno.EAGAIN)
    kernel.check_process_limit(task)
    flags = args.flags
    if not flags & CLONE_FILES:
        task.files.check_copy(kernel.knobs.nr_open)
    cred, proxy = _namespaces(task, flags)
    fs = task.fs if flags & CLONE_FS else task.fs.copy()
    if flags & CLONE_NEWNS:
        unshare_mounts(kernel, fs, cred)
    pid = _child_pid(task, args, cred, proxy)
    files = task.files if flags & CLONE_FILES else task.files.copy()
    pidfd = None
    try:
        pidfd = _give_pidfd(task, pid, args)
        if flags & CLONE_VM:
            thread = task.mm.space.new_thread(task.thread)
            mm = task.mm.get()
            if not flags & (CLONE_THREAD | CLONE_VFORK):
                mm.multiprocess = True
        else:
            mm, thread = task.mm.fork(task.thread)
    except BaseException:
        if pidfd is not None:
            task.files.close(pidfd)
        if files is not task.files:
            files.close_all()
        raise
    files.users += flags & CLONE_FILES != 0
    fs.users += flags & CLONE_FS != 0
    tid = pid.numbers[0]
    if flags & CLONE_THREAD:
        group = task.group
        group.sighand.keep()
    else:
        group = _new_group(task, pid, args)
    child = Task(kernel, tid, group, cred, pid)
    child.nsproxy = proxy
    if not flags & CLONE_THREAD:
        group.leader = child
    if mm is not task.mm:
        mm.act_for(group)
    child.mm, child.files, child.fs = mm, files, fs
    child.ipc = proxy.ipc if flags & CLONE_NEWIPC else proxy.ipc.get()
    if flags & CLONE_SYSVSEM:
        from sentry.kernel.ipc.sem import undo_list

        child.sysvsem = undo_list(task)
        child.sysvsem.users += 1
    if not flags & CLONE_VM and task.ipc.has_segments:
        task.ipc.shm.forked(task)
    if task.seccomp is not None:
        child.set_seccomp(task.seccomp)
    if mm.mdwe or task.sched.personality & READ_IMPLIES_EXEC:
        child.force(FORCED_PROTECTION, True)
    if kernel.futexes.holds(mm):
        child.force(FORCED_FUTEX, True)
    child.bind(thread)
    child.name = task.name
    child.blocked = task.blocked
    child.affinity = task.affinity
    child.sched = task.sched.for_child()
    if not flags & CLONE_VM or flags & CLONE_VFORK:
        child.altstack = task.altstack
    if child.altstack[1] & SS_AUTODISARM and flags & CLONE_VM:
        child.altstack = (0, SS_DISABLE, 0)
    kernel.add_task(child)
    event = 0
    trace = task.trace
    if trace is not None:
        event = trace.clone_event(flags, args.exit_signal)
        if event or flags & CLONE_PTRACE:
            trace.adopt(child)
    if not flags & CLONE_SIGHAND:
        child.publish_actions()
    number = pid.nr(task.pid.ns)
    if flags & CLONE_PARENT_SETTID:
        _try_write_u32(task, args.parent_tid, number)
    if flags & CLONE_CHILD_SETTID:
        _try_write_u32(child, args.child_tid, pid.vnr)
    if flags & CLONE_CHILD_CLEARTID:
        child.clear_child_tid = args.child_tid
    regs = child.regs
    regs.rax = 0
    if args.stack:
        regs.rsp = args.stack
    if flags & CLONE_SETTLS:
        regs.fs_base = args.tls
    if kernel.strace is not None:
        kernel.strace.cloned(task, child)
    queue = child.vfork_queue = WaitQueue() if flags & CLONE_VFORK else None
    child.return_to_user()
    if event and trace is not None:
        await trace.event(event, pid.nr(trace.tracer.pid.ns))
    if queue is not None:
        while child.vfork_queue is queue:
            await block((queue, 1), interruptible=False)
        if task.trace is not None:
            await task.trace.event(PTRACE_EVENT_VFORK_DONE, pid.nr(task.trace.tracer.pid.ns))
    return number


def _try_write_u32(task: Task, addr: int, value: int) -> None:
    """The task exists by now: a bad address is not an error any more."""
    try:
        task.mm.write_u32(addr, value)
    except SysError:
        pass


def _new_group(task: Task, pid: Pid, args: CloneArgs) -> ThreadGroup:
    kernel = task.kernel
    old = task.group
    if args.flags & CLONE_SIGHAND:
        sighand = old.sighand
        sighand.keep()
        sighand.users += 1
    elif args.flags & CLONE_CLEAR_SIGHAND:
        sighand = old.sighand.copy()
        sighand.reset_handlers()
    else:
        sighand = old.sighand.copy()
    sibling = args.flags & CLONE_PARENT
    parent = old.parent if sibling else old
    assert parent is not None
    group = ThreadGroup(kernel, pid.numbers[0], parent, sighand, pid)
    group.creator = old.creator if sibling else task
    group.exit_signal = old.exit_signal if sibling else args.exit_signal
    group.limits, group.packed = dict(old.limits), old.packed
    group.exe = old.exe
    group.dumpable, group.dump_ns = old.dumpable, old.dump_ns
    group.oom_score_adj, group.oom_score_adj_min = old.oom_score_adj, old.oom_score_adj_min
    ns = pid.ns
    if ns.init is None:
        ns.init = group
        group.unkillable = True
    group.enter(old.pgrp)
    group.tty = old.tty
    parent.children.add(group)
    watch_cpu_limit(group)
    return group
