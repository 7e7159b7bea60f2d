"""nsfs: namespaces as files, in /proc/PID/ns, to be kept open, bound to a name, and entered (ioctl_nsfs(2)).

The namespaces are those of sentry/kernel (Namespace, and MountNamespace of this package): objects with
`kind`, `ino` and `user_ns`, and those that nest with `parent`.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.fs.anon import AnonFilesystem, AnonInode
from sentry.fs.file import File

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task

NSFS_MAGIC = 0x6E736673
NS_GET_USERNS, NS_GET_PARENT, NS_GET_NSTYPE, NS_GET_OWNER_UID = 0xB701, 0xB702, 0xB703, 0xB704
NS_GET_PID_FROM_PIDNS, NS_GET_TGID_FROM_PIDNS = 0x8004B706, 0x8004B707
NS_GET_PID_IN_PIDNS, NS_GET_TGID_IN_PIDNS = 0x8004B708, 0x8004B709
_PID_IOCTLS = (NS_GET_PID_FROM_PIDNS, NS_GET_TGID_FROM_PIDNS, NS_GET_PID_IN_PIDNS, NS_GET_TGID_IN_PIDNS)
#: CLONE_NEW… of each kind.
TYPES = {
    b"cgroup": 0x02000000, b"ipc": 0x08000000, b"mnt": 0x00020000, b"net": 0x40000000, b"pid": 0x20000000,
    b"time": 0x00000080, b"user": 0x10000000, b"uts": 0x04000000,
}  # fmt: skip
O_NONCREATION = ~0o2001700
NSFS = AnonFilesystem(b"nsfs", NSFS_MAGIC)


class NsInode(AnonInode):
    """One namespace.  There may be several of the same: what counts is the number."""

    __slots__ = ("ns",)
    immutable = True

    def __init__(self, ns: Any) -> None:
        super().__init__(NSFS, ns.ino, 0o100444, b"%s:[%d]" % (ns.kind, ns.ino))
        self.ns = ns
        if ns.kind == b"ipc":  # what is in it stays as long as somebody can enter it
            ns.get()

    def __del__(self) -> None:
        if self.ns.kind == b"ipc":
            self.ns.put()

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        if flags & 3:
            raise SysError(errno.EPERM)
        return NsFile(self, flags & O_NONCREATION, path)


def path_of(ns: Any) -> Path:
    """Where a link to `ns` leads."""
    return NSFS.path(NsInode(ns))


class NsFile(File):
    """An open namespace."""

    __slots__ = ()

    @property
    def ns(self) -> Any:
        return self.inode.ns  # type: ignore[attr-defined]

    async def ioctl(self, task: Task, request: int, arg: int) -> int:
        ns = self.ns
        if request == NS_GET_USERNS:
            return install(task, _parent_user(task, ns.parent if ns.kind == b"user" else ns.user_ns))
        if request == NS_GET_PARENT:
            return install(task, _parent(task, ns))
        if request == NS_GET_NSTYPE:
            return TYPES[ns.kind]
        if request == NS_GET_OWNER_UID:
            if ns.kind != b"user":
                raise SysError(errno.EINVAL)
            task.mm.write_u32(arg, task.cred.user_ns.uid(ns.owner))
            return 0
        if request in _PID_IOCTLS:
            return _translate(task, ns, request, arg)
        raise SysError(errno.ENOTTY)


def install(task: Task, ns: Any) -> int:
    """A descriptor for `ns` in the table of `task`."""
    path = path_of(ns)
    return task.install(NsFile(path.inode, 0, path), cloexec=True)


def _parent_user(task: Task, user_ns: Any) -> Any:
    """`user_ns`, if it is the caller's or below it; SysError(EPERM)."""
    if user_ns is None or not user_ns.within(task.cred.user_ns):
        raise SysError(errno.EPERM)
    return user_ns


def _parent(task: Task, ns: Any) -> Any:
    if ns.kind == b"user":
        return _parent_user(task, ns.parent)
    if ns.kind != b"pid":
        raise SysError(errno.EINVAL)
    if ns.parent is None or not task.pid.ns.contains(ns.parent):
        raise SysError(errno.EPERM)
    return ns.parent


def _translate(task: Task, ns: Any, request: int, number: int) -> int:
    """A process id between the caller's namespace and `ns`; SysError(ESRCH)."""
    if ns.kind != b"pid":
        raise SysError(errno.EINVAL)
    inward = request in (NS_GET_PID_IN_PIDNS, NS_GET_TGID_IN_PIDNS)
    found = task.find_task(number) if inward else ns.tasks.get(number)
    if found is None:
        raise SysError(errno.ESRCH)
    pid = found.group.pid if request in (NS_GET_TGID_FROM_PIDNS, NS_GET_TGID_IN_PIDNS) else found.pid
    result: int = pid.nr(ns if inward else task.pid.ns)
    if not result:
        raise SysError(errno.ESRCH)
    return result
