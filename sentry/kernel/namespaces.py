"""What a task sees of the system apart from its files and its rights (struct nsproxy, namespaces(7)).

Each task has an `NsProxy`, shared by threads and children until one of them is to differ; it is replaced,
never changed.  The other namespaces stand where they act: mounts in `Task.fs.namespace`, users in
`Task.cred.user_ns`, process ids in `Task.pid.ns`.
"""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SETFCAP
from sentry.abi.errors import SysError
from sentry.abi.sched import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from sentry.kernel.pids import MAX_LEVEL, PidNamespace
from sentry.kernel.userns import INITIAL, Charge, Namespace, UserNamespace
from sentry.kernel.wait import WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.dentry import FsContext
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.ipc.namespace import IpcNamespace
    from sentry.net.namespace import NetNamespace

#: CLONE_NEW… of each kind, as /proc/PID/ns names them.
FLAGS = {
    b"cgroup": CLONE_NEWCGROUP,
    b"ipc": CLONE_NEWIPC,
    b"mnt": CLONE_NEWNS,
    b"net": CLONE_NEWNET,
    b"pid": CLONE_NEWPID,
    b"time": CLONE_NEWTIME,
    b"user": CLONE_NEWUSER,
    b"uts": CLONE_NEWUTS,
}
#: Of the first ones of a kernel.
FIRST_INOS = {b"cgroup": 4026531835, b"ipc": 4026531839, b"net": 4026531833, b"time": 4026531834,
              b"uts": 4026531838}  # fmt: skip


class NameWatch:
    """How often a name was changed in any UTS namespace, and who waits for that (struct ctl_table_poll)."""

    __slots__ = ("changes", "queue")

    def __init__(self) -> None:
        self.changes = 0
        self.queue = WaitQueue()

    def changed(self) -> None:
        self.changes += 1
        self.queue.wake()


class UtsNamespace(Namespace):
    """What uname(2) tells (struct uts_namespace)."""

    __slots__ = ("domainname", "nodename", "release", "version")
    kind = b"uts"
    #: Of the fields that can be set: all namespaces have the same.
    watches = {"nodename": NameWatch(), "domainname": NameWatch()}

    def __init__(self, user_ns: UserNamespace, ino: int, nodename: bytes, release: bytes) -> None:
        super().__init__(user_ns, ino)
        self.nodename = nodename
        self.domainname = b"(none)"
        self.release = release
        self.version = b"#1 SMP PREEMPT_DYNAMIC Sentry"

    def set_name(self, field: str, name: bytes) -> None:
        setattr(self, field, name)
        self.watches[field].changed()

    def copy(self, user_ns: UserNamespace, ino: int) -> UtsNamespace:
        new = UtsNamespace(user_ns, ino, self.nodename, self.release)
        new.domainname = self.domainname
        return new


class CgroupNamespace(Namespace):
    """There is one cgroup, so its root looks the same from everywhere."""

    __slots__ = ()
    kind = b"cgroup"

    def copy(self, user_ns: UserNamespace, ino: int) -> CgroupNamespace:
        return CgroupNamespace(user_ns, ino)


class TimeNamespace(Namespace):
    """Offsets of the clocks that count from boot; they stay 0."""

    __slots__ = ()
    kind = b"time"

    def copy(self, user_ns: UserNamespace, ino: int) -> TimeNamespace:
        return TimeNamespace(user_ns, ino)


class NsProxy:
    """The namespaces of a task; `…_for_children` are those that its children get."""

    __slots__ = ("cgroup", "ipc", "net", "pid_for_children", "time", "time_for_children", "uts")

    def __init__(
        self, uts: UtsNamespace, ipc: IpcNamespace, net: NetNamespace, cgroup: CgroupNamespace,
        time: TimeNamespace, pids: PidNamespace,
    ) -> None:  # fmt: skip
        self.uts = uts
        self.ipc = ipc
        self.net = net
        self.cgroup = cgroup
        self.time = self.time_for_children = time
        self.pid_for_children = pids

    def copy(self) -> NsProxy:
        new = NsProxy(self.uts, self.ipc, self.net, self.cgroup, self.time, self.pid_for_children)
        new.time_for_children = self.time_for_children
        return new


#: Kind → the field of an NsProxy that unshare(2) and clone(2) replace.
_FIELDS = {CLONE_NEWUTS: "uts", CLONE_NEWIPC: "ipc", CLONE_NEWNET: "net", CLONE_NEWCGROUP: "cgroup",
           CLONE_NEWTIME: "time_for_children"}  # fmt: skip


def _first(ns: Any) -> Any:
    ns.user_ns, ns.ino = INITIAL, FIRST_INOS[ns.kind]
    return ns


def first_proxy(
    nodename: bytes, release: bytes, ipc: IpcNamespace, net: NetNamespace, pids: PidNamespace
) -> NsProxy:
    """The namespaces of a container's first task."""
    ino = FIRST_INOS
    return NsProxy(
        UtsNamespace(INITIAL, ino[b"uts"], nodename, release),
        _first(ipc),
        _first(net),
        CgroupNamespace(INITIAL, ino[b"cgroup"]),
        TimeNamespace(INITIAL, ino[b"time"]),
        pids,
    )


def _new(old: Any, user_ns: UserNamespace, ino: int) -> Any:
    """Another namespace of the kind of `old`: a copy of what it says, or an empty one."""
    if hasattr(old, "copy"):
        return old.copy(user_ns, ino)
    new = type(old)()
    new.user_ns, new.ino = user_ns, ino
    return new


def unshare_proxy(kernel: Any, old: NsProxy, active: PidNamespace, cred: Credentials, flags: int) -> NsProxy:
    """`old` with new namespaces of the kinds in `flags`, owned by the user namespace of `cred`.

    `active` is the caller's own process id namespace.  SysError(ENOSPC, EINVAL).
    """
    new = old.copy()
    user_ns = cred.user_ns
    for flag, field in _FIELDS.items():
        if flags & flag:
            made = _new(getattr(old, field), user_ns, kernel.new_ns_ino())
            made.charge = Charge(made.kind, user_ns, cred.euid)
            setattr(new, field, made)
    if flags & CLONE_NEWPID:
        parent = old.pid_for_children
        if parent is not active or not user_ns.within(parent.user_ns):
            raise SysError(errno.EINVAL)
        if parent.level >= MAX_LEVEL:
            raise SysError(errno.ENOSPC)
        pids = PidNamespace(parent, user_ns, kernel.new_ns_ino())
        pids.charge = Charge(pids.kind, user_ns, cred.euid)
        new.pid_for_children = pids
    return new


def create_user_ns(kernel: Any, cred: Credentials, chrooted: bool) -> Credentials:
    """What `cred` becomes in a new user namespace (create_user_ns()): all capabilities in there.

    SysError(ENOSPC): nested too deeply, or too many; SysError(EPERM): in a chroot, or without a mapped id.
    """
    parent = cred.user_ns
    if parent.level > MAX_LEVEL:
        raise SysError(errno.ENOSPC)
    space = UserNamespace(parent, cred.euid, cred.egid, kernel.new_ns_ino())
    space.charge = Charge(space.kind, parent, cred.euid)
    if chrooted or not parent.maps(cred.euid, cred.egid):
        raise SysError(errno.EPERM)
    space.setfcap = cred.own_capable(CAP_SETFCAP)
    return cred.enter_user_ns(space)


def unshare_mounts(kernel: Any, fs: FsContext, cred: Credentials) -> None:
    """Give `fs`, which is the caller's alone, a mount namespace of its own: a copy; SysError(ENOSPC)."""
    old = fs.namespace
    new = old.copy(cred.user_ns, kernel.new_ns_ino(), fs)
    new.charge = Charge(new.kind, cred.user_ns, cred.euid)
    fs.namespace = new
