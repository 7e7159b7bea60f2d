"""unshare(2), setns(2): leaving and entering namespaces, and what else threads share (namespaces(7))."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_CHROOT
from sentry.abi.errors import SysError
from sentry.abi.sched import (
    CLONE_FILES,
    CLONE_FS,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VM,
    NEW_NAMESPACES,
)
from sentry.abi.syscall_nr import SYS
from sentry.fs.dentry import Path, cross
from sentry.fs.nsfs import NsFile
from sentry.fs.pidfd import PidFile
from sentry.fs.proc.access import may_access
from sentry.kernel.ipc.sem import leave_undo_list
from sentry.kernel.namespaces import FLAGS, create_user_ns, unshare_mounts, unshare_proxy
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.dentry import FsContext
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.namespaces import NsProxy
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Fd, Int, ULong

_SHARED = CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_VM | CLONE_SIGHAND | CLONE_THREAD
#: Entered in this order (validate_nsset()): the user namespace may give the rights for the others.
_ORDER = (
    (CLONE_NEWUSER, "user"),
    (CLONE_NEWNS, "mnt"),
    (CLONE_NEWUTS, "uts"),
    (CLONE_NEWIPC, "ipc"),
    (CLONE_NEWPID, "pid"),
    (CLONE_NEWCGROUP, "cgroup"),
    (CLONE_NEWNET, "net"),
    (CLONE_NEWTIME, "time"),
)


def _alone(task: Task) -> bool:
    return len(task.group.tasks) == 1


@syscall(SYS.unshare, partial="time namespaces have no offsets")
def unshare(task: Task, flags: ULong) -> None:
    """unshare(2)."""
    if flags & CLONE_NEWUSER:
        flags |= CLONE_THREAD | CLONE_FS
    if flags & CLONE_VM:
        flags |= CLONE_SIGHAND
    if flags & CLONE_SIGHAND:
        flags |= CLONE_THREAD
    if flags & CLONE_NEWNS:
        flags |= CLONE_FS
    if flags & ~(_SHARED | NEW_NAMESPACES):
        raise SysError(errno.EINVAL)
    if flags & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM) and not _alone(task):
        raise SysError(errno.EINVAL)
    if (flags & (CLONE_SIGHAND | CLONE_VM) and task.group.sighand.users > 1) or (
        flags & CLONE_VM and task.mm.users > 1
    ):
        raise SysError(errno.EINVAL)
    kernel = task.kernel
    cred, proxy = task.cred, task.nsproxy
    files = task.files
    if flags & CLONE_FILES and files.users > 1:
        files.check_copy(kernel.knobs.nr_open)
    if flags & CLONE_NEWUSER:
        cred = create_user_ns(kernel, cred, task.fs.chrooted)
    if flags & NEW_NAMESPACES & ~CLONE_NEWUSER:
        if not cred.own_capable(CAP_SYS_ADMIN):
            raise SysError(errno.EPERM)
        proxy = unshare_proxy(kernel, proxy, task.pid.ns, cred, flags)
    fs = task.fs.copy() if flags & (CLONE_FS | CLONE_NEWNS) and task.fs.users > 1 else task.fs
    if flags & CLONE_NEWNS:
        unshare_mounts(kernel, fs, cred)
    if fs is not task.fs:
        task.fs.users -= 1
        task.set_fs(fs)
    if flags & CLONE_FILES and files.users > 1:
        files.users -= 1
        task.set_files(files.copy())
    if flags & (CLONE_SYSVSEM | CLONE_NEWIPC):
        leave_undo_list(task)
    _set_proxy(task, proxy, fresh=bool(flags & CLONE_NEWIPC))
    if cred is not task.cred:
        task.set_cred(cred)


def _set_proxy(task: Task, proxy: NsProxy, fresh: bool = False) -> None:
    """`fresh`: the IPC namespace was made for this task, and has counted it."""
    if proxy.ipc is not task.ipc:
        if task.ipc.has_segments:
            task.ipc.shm.exit_task(task)
        task.ipc.put()
        task.ipc = proxy.ipc if fresh else proxy.ipc.get()
    task.nsproxy = proxy


class _Entry:
    """What setns(2) is about to change; nothing is, unless all of it can be (struct nsset)."""

    __slots__ = ("cred", "flags", "fs", "mounts", "proxy", "task")

    def __init__(self, task: Task, flags: int) -> None:
        self.task = task
        self.flags = flags
        self.cred: Credentials = task.cred
        self.fs: FsContext = task.fs
        self.proxy: NsProxy = task.nsproxy.copy()
        self.mounts: Any = None

    def add(self, kind: str, ns: Any) -> None:
        """Enter `ns`; SysError(EPERM, EINVAL, EUSERS)."""
        if kind == "user":
            self._add_user(ns)
            return
        if not self.cred.ns_capable(ns.user_ns, CAP_SYS_ADMIN) or not self.cred.own_capable(CAP_SYS_ADMIN):
            raise SysError(errno.EPERM)
        if kind == "mnt":
            if not self.cred.own_capable(CAP_SYS_CHROOT):
                raise SysError(errno.EPERM)
            if self.fs.users > 1:
                raise SysError(errno.EINVAL)
            self.mounts = ns
        elif kind == "pid":
            if not self.task.pid.ns.contains(ns):
                raise SysError(errno.EINVAL)
            self.proxy.pid_for_children = ns
        elif kind == "time":
            if not _alone(self.task):
                raise SysError(errno.EUSERS)
            self.proxy.time = self.proxy.time_for_children = ns
        else:
            setattr(self.proxy, kind, ns)

    def _add_user(self, ns: Any) -> None:
        if ns is self.cred.user_ns or not _alone(self.task) or self.fs.users > 1:
            raise SysError(errno.EINVAL)
        if not self.cred.ns_capable(ns, CAP_SYS_ADMIN):
            raise SysError(errno.EPERM)
        self.cred = self.cred.enter_user_ns(ns)

    def commit(self) -> None:
        task = self.task
        if self.proxy.ipc is not task.ipc:
            leave_undo_list(task)
        _set_proxy(task, self.proxy)
        if self.mounts is not None:
            fs = task.fs
            root = self.mounts.root
            fs.namespace = self.mounts
            fs.root = fs.cwd = cross(Path(root, root.root))
        if self.cred is not task.cred:
            task.set_cred(self.cred)


@syscall(SYS.setns)
def setns(task: Task, fd: Fd, flags: Int) -> None:
    """setns(2)."""
    file = task.files.get(fd)
    if isinstance(file, NsFile):
        ns = file.ns
        if flags and flags != FLAGS[ns.kind]:
            raise SysError(errno.EINVAL)
        entry = _Entry(task, FLAGS[ns.kind])
        entry.add(ns.kind.decode(), ns)
    elif isinstance(file, PidFile):
        if not flags or flags & ~NEW_NAMESPACES:
            raise SysError(errno.EINVAL)
        entry = _of_process(task, file, flags)
    else:
        raise SysError(errno.EINVAL)
    entry.commit()


def _of_process(task: Task, file: PidFile, flags: int) -> _Entry:
    """The namespaces of another process; SysError(EPERM, ESRCH)."""
    target = file.target(task)
    if target.exited:
        raise SysError(errno.ESRCH)
    if not may_access(task, task.cred, target, real=True):
        raise SysError(errno.EPERM)
    entry = _Entry(task, flags)
    for flag, kind in _ORDER:
        if not flags & flag:
            continue
        if kind == "user":
            ns: Any = target.cred.user_ns
        elif kind == "mnt":
            if target.fs is None:
                raise SysError(errno.EPERM)  # the Sentry's own init
            ns = target.fs.namespace
        elif kind == "pid":
            ns = target.pid.ns
        else:
            ns = getattr(target.nsproxy, kind)
        entry.add(kind, ns)
    return entry
