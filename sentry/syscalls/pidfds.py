"""pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2)."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_EXCL, O_NONBLOCK
from sentry.abi.signal import SI_TKILL, SI_USER
from sentry.abi.syscall_nr import SYS
from sentry.fs.pidfd import PidFile
from sentry.fs.proc.access import may_access
from sentry.fs.proc.task import TaskDirectory
from sentry.syscalls.signals import (
    check_signal,
    read_info,
    send_to_group,
    send_to_pgrp,
    send_to_task,
    user_info,
)
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Int, Signal, UInt

PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP, PIDFD_SIGNAL_PROCESS_GROUP = 1, 2, 4


@syscall(SYS.pidfd_open)
def pidfd_open(task: Task, pid: Int, flags: UInt) -> int:
    """pidfd_open(2)."""
    if flags & ~(O_NONBLOCK | O_EXCL) or pid <= 0:
        raise SysError(errno.EINVAL)
    found = task.find_task(pid)
    if found is None:
        raise SysError(errno.ESRCH)
    if not flags & O_EXCL and found is not found.group.leader:
        raise SysError(errno.ENOENT)
    return task.install(PidFile(found.pid, flags), cloexec=True)


def _named(task: Task, fd: int) -> tuple[Task, bool]:
    """(task, whether the thread alone is meant) of a pidfd, or of a directory /proc/PID.

    SysError(EBADF, ESRCH)."""
    file = task.files.get_any(fd)
    if isinstance(file, PidFile):
        return file.target(task), file.of_thread
    if isinstance(file.inode, TaskDirectory):
        return file.inode.target(), False
    raise SysError(errno.EBADF)


@syscall(SYS.pidfd_send_signal)
def pidfd_send_signal(task: Task, fd: Fd, signo: Signal, infop: Addr, flags: UInt) -> None:
    """pidfd_send_signal(2)."""
    if flags not in (0, PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP, PIDFD_SIGNAL_PROCESS_GROUP):
        raise SysError(errno.EINVAL)
    target, thread = _named(task, fd)
    if not target.pid.nr(task.pid.ns):
        raise SysError(errno.EINVAL)
    thread = flags == PIDFD_SIGNAL_THREAD or (not flags and thread)
    if infop:
        info = read_info(task, signo, infop)
        if info.signo != int.from_bytes(task.mm.read(infop, 4), "little", signed=True):
            raise SysError(errno.EINVAL)
        if (target.pid is not task.pid or flags == PIDFD_SIGNAL_PROCESS_GROUP) and (
            info.code >= 0 or info.code == SI_TKILL
        ):
            raise SysError(errno.EPERM)
    else:
        info = user_info(task, signo, SI_TKILL if thread else SI_USER)
    check_signal(signo)
    if flags == PIDFD_SIGNAL_PROCESS_GROUP:
        pgrp = target.pid.ns.pgrps.get(target.pid.vnr)
        if pgrp is None:
            raise SysError(errno.ESRCH)
        send_to_pgrp(task, list(pgrp.members), signo, info)
    elif thread:
        send_to_task(task, target, signo, info)
    else:
        send_to_group(task, target.group, signo, info)


@syscall(SYS.pidfd_getfd)
def pidfd_getfd(task: Task, fd: Fd, target_fd: Int, flags: UInt) -> int:
    """pidfd_getfd(2)."""
    if flags:
        raise SysError(errno.EINVAL)
    file = task.files.get(fd)
    if not isinstance(file, PidFile):
        raise SysError(errno.EBADF)
    target = file.target(task)
    if not may_access(task, task.cred, target, real=True):
        raise SysError(errno.EPERM)
    if target.exited or target.files is None:
        raise SysError(errno.ESRCH)
    return task.install(target.files.get_any(target_fd).get(), cloexec=True)
