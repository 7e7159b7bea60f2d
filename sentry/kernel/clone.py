"""Making tasks: fork, vfork, threads, and everything between them (clone(2))."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.mman import USER_END
from sentry.abi.ptrace import PTRACE_EVENT_VFORK_DONE
from sentry.abi.sched import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_CLEAR_SIGHAND,
    CLONE_FILES,
    CLONE_FS,
    CLONE_INTO_CGROUP,
    CLONE_NEWNS,
    CLONE_NEWPID,
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
)
from sentry.abi.signal import NSIG, SS_AUTODISARM, SS_DISABLE
from sentry.kernel.group import ThreadGroup
from sentry.kernel.ipc.sem import undo_list
from sentry.kernel.task import Task
from sentry.kernel.timers import watch_cpu_limit
from sentry.kernel.wait import WaitQueue, block


class CloneArgs:
    """struct clone_args, as far as it is used."""

    __slots__ = ("child_tid", "exit_signal", "flags", "parent_tid", "set_tid", "stack", "tls")

    def __init__(
        self,
        flags: int,
        exit_signal: int,
        stack: int = 0,
        parent_tid: int = 0,
        child_tid: int = 0,
        tls: int = 0,
    ) -> None:
        self.flags = flags
        self.exit_signal = exit_signal
        self.stack = stack
        self.parent_tid = parent_tid
        self.child_tid = child_tid
        self.tls = tls


def _check(task: Task, args: CloneArgs) -> None:
    flags = args.flags
    if flags >> 34:
        raise SysError(errno.EINVAL)
    if flags & CLONE_THREAD and not flags & CLONE_SIGHAND:
        raise SysError(errno.EINVAL)
    if flags & CLONE_SIGHAND and not flags & CLONE_VM:
        raise SysError(errno.EINVAL)
    if flags & CLONE_SIGHAND and flags & CLONE_CLEAR_SIGHAND:
        raise SysError(errno.EINVAL)
    if flags & CLONE_FS and flags & (CLONE_NEWNS | CLONE_NEWUSER):
        raise SysError(errno.EINVAL)
    if flags & CLONE_THREAD and flags & (CLONE_NEWPID | CLONE_NEWUSER):
        raise SysError(errno.EINVAL)
    if flags & NEW_NAMESPACES:
        # As a kernel without namespaces for a caller without CAP_SYS_ADMIN.
        raise SysError(errno.EPERM if not task.cred.capable(CAP_SYS_ADMIN) else errno.EINVAL)
    if flags & (CLONE_PIDFD | CLONE_INTO_CGROUP):
        raise SysError(errno.EINVAL)
    if not 0 <= args.exit_signal <= NSIG:
        raise SysError(errno.EINVAL)
    if flags & CLONE_SETTLS and args.tls >= USER_END:
        raise SysError(errno.EPERM)
    if flags & CLONE_PARENT and task.group.parent is task.kernel.init:
        raise SysError(errno.EINVAL)


async def clone(task: Task, args: CloneArgs) -> int:
    """Make a task like `task`; its id.  SysError(EAGAIN, EINVAL, ENOMEM, EPERM)."""
    _check(task, args)
    kernel = task.kernel
    kernel.check_process_limit(task)
    flags = args.flags
    if not flags & CLONE_FILES:
        task.files.check_copy()
    tid = kernel.new_pid()
    if flags & CLONE_VM:
        thread = task.mm.space.new_thread(task.thread)
        mm = task.mm.get()
    else:
        mm, thread = task.mm.fork(task.thread)
    if flags & CLONE_THREAD:
        group = task.group
        group.sighand.keep()
    else:
        group = _new_group(task, tid, args)
    child = Task(kernel, tid, group, task.cred)
    if not flags & CLONE_THREAD:
        group.leader = child
    if mm is not task.mm:
        mm.act_for(group)
    child.mm = mm
    child.ipc = task.ipc.get()
    if flags & CLONE_SYSVSEM:
        child.sysvsem = undo_list(task)
        child.sysvsem.users += 1
    if not flags & CLONE_VM and task.ipc.shm.by_index:
        task.ipc.shm.forked(task)
    if flags & CLONE_FILES:
        child.files = task.files
        child.files.users += 1
    else:
        child.files = task.files.copy()
    if flags & CLONE_FS:
        child.fs = task.fs
        child.fs.users += 1
    else:
        child.fs = task.fs.copy()
    child.set_seccomp(task.seccomp)
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
    if flags & CLONE_PARENT_SETTID:
        _try_write_u32(task, args.parent_tid, tid)
    if flags & CLONE_CHILD_SETTID:
        _try_write_u32(child, args.child_tid, tid)
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
        await trace.event(event, tid)
    if queue is not None:
        while child.vfork_queue is queue:
            await block((queue, 1), interruptible=False)
        if task.trace is not None:
            await task.trace.event(PTRACE_EVENT_VFORK_DONE, tid)
    return tid


def _try_write_u32(task: Task, addr: int, value: int) -> None:
    """The task exists by now: a bad address is not an error any more."""
    try:
        task.mm.write_u32(addr, value)
    except SysError:
        pass


def _new_group(task: Task, tid: int, args: CloneArgs) -> ThreadGroup:
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
    parent = old.parent if args.flags & CLONE_PARENT else old
    assert parent is not None
    group = ThreadGroup(kernel, tid, parent, sighand)
    group.creator = old.creator if args.flags & CLONE_PARENT else task
    group.exit_signal = old.exit_signal if args.flags & CLONE_PARENT else args.exit_signal
    group.limits, group.packed = dict(old.limits), old.packed
    group.exe = old.exe
    group.dumpable = old.dumpable
    group.oom_score_adj = old.oom_score_adj
    group.enter(old.pgrp)
    parent.children.add(group)
    kernel.groups[tid] = group
    watch_cpu_limit(group)
    return group
