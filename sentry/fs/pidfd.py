"""Process file descriptors (pidfd_open(2), Linux fs/pidfs.c).

A PidFile names a process, or with O_EXCL (PIDFD_THREAD) a thread, for good: its number may be somebody else's
later, the file is not.  It is readable once that has ended; who leads its process ends with the last there.
"""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_EXCL
from sentry.abi.poll import POLLHUP, POLLIN, POLLRDNORM
from sentry.fs import nsfs
from sentry.fs.anon import AnonFilesystem, AnonInode
from sentry.fs.file import File
from sentry.fs.proc.access import may_access
from sentry.kernel.wait import WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task

PIDFS_MAGIC = 0x50494446
O_NONCREATION = ~0o2001500  # O_EXCL stays: it is the file's kind
PIDFS = AnonFilesystem(b"pidfs", PIDFS_MAGIC)

#: struct pidfd_info: mask, cgroup id, pid, tgid, ppid, real to file system ids, exit status.
INFO = Struct("<QQ11Ii")
INFO_PID, INFO_CREDS, INFO_CGROUP, INFO_EXIT = 1, 2, 4, 8
PIDFD_IOCTL = 0xFF
PIDFD_GET_INFO = 11
#: ioctls 1 to 10 by what they open.
_NAMESPACES = (
    b"cgroup", b"ipc", b"mnt", b"net", b"pid", b"pid_for_children", b"time", b"time_for_children", b"user",
    b"uts",
)  # fmt: skip


def namespace_of(task: Task, name: bytes) -> Any:
    """The namespace that /proc/PID/ns/`name` stands for; None for one that a dead task has no more."""
    if name == b"user":
        return task.cred.user_ns
    if name == b"pid":
        return task.pid.ns
    if name == b"mnt":
        return None if task.fs is None or task.exited else task.fs.namespace
    if task.exited:
        return None
    return getattr(task.nsproxy, name.decode())


class PidInode(AnonInode):
    __slots__ = ("pid",)

    def __init__(self, pid: Any) -> None:
        if not pid.ino:
            pid.ino = PIDFS.new_ino()
        super().__init__(PIDFS, pid.ino, 0o700, b"anon_inode:[pidfd]")
        self.pid = pid

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return PidFile(self.pid, flags & O_NONCREATION & ~3)


class PidFile(File):
    """`pid` is a sentry.kernel.pids.Pid."""

    __slots__ = ("pid",)

    def __init__(self, pid: Any, flags: int) -> None:
        inode = PidInode(pid)
        super().__init__(inode, 2 | flags, PIDFS.path(inode))
        self.pid = pid
        if pid.queue is None:
            pid.queue = WaitQueue()
        self.queue = pid.queue

    @property
    def of_thread(self) -> bool:
        return bool(self.flags & O_EXCL)

    def poll(self) -> int:
        task = self.pid.task
        if task is None:
            return POLLIN | POLLRDNORM | POLLHUP
        group = task.group
        # A leader's end is that of the process, whichever kind of file this is (delay_group_leader).
        if task.exited if task is not group.leader else group.zombie and not group.undead:
            return POLLIN | POLLRDNORM
        return 0

    def target(self, task: Task) -> Task:
        """The task it names, if `task` may see it; SysError(ESRCH)."""
        found: Task | None = self.pid.task
        if found is None:
            raise SysError(errno.ESRCH)
        return found

    def fdinfo(self, reader: Task | None = None) -> bytes:
        """Pid as the reader sees it, NSpid as all see it from there on; -1 when it is gone."""
        pid = self.pid
        if pid.task is None:
            return b"Pid:\t-1\nNSpid:\t-1\n"
        numbers = pid.numbers
        if reader is not None:
            level = reader.pid.ns.level
            numbers = numbers[level:] if pid.nr(reader.pid.ns) else (0,)
        return b"Pid:\t%d\nNSpid:\t%s\n" % (numbers[0], b"\t".join([b"%d" % number for number in numbers]))

    async def ioctl(self, task: Task, request: int, arg: int) -> int:
        if request >> 8 & 0xFF != PIDFD_IOCTL:
            raise SysError(errno.ENOTTY)
        number = request & 0xFF
        if number == PIDFD_GET_INFO and request >> 30 == 3 and request >> 16 & 0x3FFF >= INFO.size:
            return self._info(task, arg)
        if request >> 8 != PIDFD_IOCTL or not 1 <= number <= len(_NAMESPACES):
            raise SysError(errno.ENOTTY)
        if arg:
            raise SysError(errno.EINVAL)
        target = self.target(task)
        if not may_access(task, task.cred, target):
            raise SysError(errno.EACCES)
        ns = namespace_of(target, _NAMESPACES[number - 1])
        if ns is None:
            raise SysError(errno.ESRCH)
        return nsfs.install(task, ns)

    def _info(self, task: Task, arg: int) -> int:
        """PIDFD_GET_INFO: the first version of struct pidfd_info."""
        if not arg:
            raise SysError(errno.EINVAL)
        wanted = task.mm.read_u64(arg)
        pid, ns = self.pid, task.pid.ns
        if not pid.nr(ns):
            raise SysError(errno.EREMOTE)  # since 7.0, and in 6.18.14 and 6.19.10; before, ESRCH
        target = pid.task
        mask, numbers, ids, status = 0, (0, 0, 0), (0,) * 8, 0
        if wanted & INFO_EXIT and pid.status is not None and pid.group is None:
            mask, status = INFO_EXIT, pid.status
        if target is None:
            if not mask:
                raise SysError(errno.ESRCH)
        else:
            group, cred, space = target.group, target.cred, task.cred.user_ns
            parent = group.parent
            numbers = pid.nr(ns), group.pid.nr(ns), 0 if parent is None else parent.pid.nr(ns)
            ids = (
                space.uid(cred.uid), space.gid(cred.gid), space.uid(cred.euid), space.gid(cred.egid),
                space.uid(cred.suid), space.gid(cred.sgid), space.uid(cred.fsuid), space.gid(cred.fsgid),
            )  # fmt: skip
            mask |= INFO_PID | INFO_CREDS | (INFO_CGROUP if wanted & INFO_CGROUP else 0)
        task.mm.write(arg, INFO.pack(mask, 1 if mask & INFO_CGROUP else 0, *numbers, *ids, status))
        return 0
