"""/proc/PID/uid_map, gid_map, projid_map and setgroups (user_namespaces(7)).

A map is written once, by a file that was opened with rights over the namespace; what it may say depends on
the rights that who opened it has in the parent namespace, too.  Inside the kernel an extent leads to the
initial namespace at once.
"""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SETFCAP, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.fs.proc.base import GeneratedFile, GeneratedInode, current_task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.dentry import Path
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.kernel.userns import IdMap, UserNamespace

MAX_EXTENTS = 340
MAX_SIZE = 4096
_IDS = 1 << 32
INVALID = 0xFFFFFFFF
#: File → (attribute of the namespace, the capability that mapping others' ids takes).
_KINDS = {
    b"uid_map": ("uids", CAP_SETUID),
    b"gid_map": ("gids", CAP_SETGID),
    b"projid_map": ("projids", 0),
}


def show(ns: UserNamespace, name: bytes, opener: Credentials) -> bytes:
    """Each extent: first inside, first as the opener's namespace sees it, count."""
    lower = ns.parent if opener.user_ns is ns else opener.user_ns
    field = _KINDS[name][0]
    lines = []
    for first, kernel, count in getattr(ns, field).extents:
        shown = kernel if lower is None else getattr(lower, field).up(kernel)
        lines.append(b"%10d %10d %10d\n" % (first, shown, count))
    return b"".join(lines)


def _overlap(first: int, count: int, other: int, size: int) -> bool:
    return first < other + size and other < first + count


def _parse(data: bytes) -> list[tuple[int, int, int]]:
    """(first inside, first outside, count) of each line; SysError(EINVAL)."""
    extents: list[tuple[int, int, int]] = []
    if len(data) >= MAX_SIZE:
        raise SysError(errno.EINVAL)
    for line in data.split(b"\0", 1)[0].removesuffix(b"\n").split(b"\n"):
        words = line.split()
        if len(words) != 3 or not all(word.isdigit() and len(word) <= 10 for word in words):
            raise SysError(errno.EINVAL)
        first, outside, count = (int(word) for word in words)
        wraps = first + count >= _IDS or outside + count >= _IDS
        if INVALID in (first, outside) or not count or wraps or len(extents) >= MAX_EXTENTS:
            raise SysError(errno.EINVAL)
        for other, out, size in extents:
            if _overlap(first, count, other, size) or _overlap(outside, count, out, size):
                raise SysError(errno.EINVAL)
        extents.append((first, outside, count))
    return extents


def _permitted(
    opener: Credentials, ns: UserNamespace, name: bytes, extents: list[tuple[int, int, int]]
) -> bool:
    """new_idmap_permitted()."""
    parent = ns.parent
    assert parent is not None
    field, cap = _KINDS[name]
    if cap == CAP_SETUID and not _may_map_root(opener, ns, extents):
        return False
    if len(extents) == 1 and extents[0][2] == 1 and opener.euid == ns.owner:
        kernel = getattr(parent, field).down(extents[0][1])
        if cap == CAP_SETUID and kernel == opener.euid:
            return True
        if cap == CAP_SETGID and kernel == opener.egid and not ns.may_setgroups:
            return True
    writer = current_task()
    return not cap or (
        opener.ns_capable(parent, cap) and (writer is None or writer.cred.ns_capable(parent, cap))
    )


def _may_map_root(opener: Credentials, ns: UserNamespace, extents: list[tuple[int, int, int]]) -> bool:
    """Id 0 of the parent needs CAP_SETFCAP, of the opener or, if he is inside, of the creator
    (verify_root_map())."""
    if all(outside for _, outside, _ in extents):
        return True
    if opener.user_ns is ns:
        return ns.setfcap
    assert ns.parent is not None
    return opener.ns_capable(ns.parent, CAP_SETFCAP)


def store(kernel: Kernel, ns: UserNamespace, name: bytes, data: bytes, opener: Credentials) -> None:
    """Write a map; SysError(EPERM, EINVAL)."""
    parent = ns.parent
    field, cap = _KINDS[name]
    if parent is None or opener.user_ns not in (ns, parent):
        raise SysError(errno.EPERM)
    id_map: IdMap = getattr(ns, field)
    if id_map.extents or (cap and not opener.ns_capable(ns, CAP_SYS_ADMIN)):
        raise SysError(errno.EPERM)
    extents = _parse(data)
    if not _permitted(opener, ns, name, extents):
        raise SysError(errno.EPERM)
    lower: IdMap = getattr(parent, field)
    mapped = tuple((first, lower.down_range(outside, count), count) for first, outside, count in extents)
    if any(kernel == INVALID for _, kernel, _ in mapped):
        raise SysError(errno.EPERM)
    id_map.extents = mapped
    for other in kernel.tasks.values():
        if other.cred.user_ns is ns and not other.exited:
            other.publish_ids()


def store_setgroups(ns: UserNamespace, data: bytes, opener: Credentials) -> None:
    """Deny it for good, before the group map is there; SysError(EPERM, EINVAL)."""
    word = data.split(b"\0", 1)[0].rstrip(b" \t\n")
    if len(data) >= 8 or word not in (b"allow", b"deny"):
        raise SysError(errno.EINVAL)
    if not opener.ns_capable(ns, CAP_SYS_ADMIN):
        raise SysError(errno.EPERM)
    if word == b"allow":
        if not ns.may_setgroups:
            raise SysError(errno.EPERM)
    elif ns.gids.extents:
        raise SysError(errno.EPERM)
    else:
        ns.may_setgroups = False


class IdMapFile(GeneratedFile):
    """An open map, or setgroups, of the namespace that the task was in then.  It counts who opened it: a
    set-id program that is made to write to a descriptor must lend its rights to nobody."""

    __slots__ = ("cred", "kernel", "name", "ns")

    def __init__(self, inode: GeneratedInode, flags: int, path: Path, task: Task, cred: Credentials) -> None:
        super().__init__(inode, flags, path)
        self.kernel = task.kernel
        self.ns = task.cred.user_ns
        self.name = path.dentry.name
        self.cred = cred
        self.make = self._show

    def _show(self) -> bytes:
        if self.name == b"setgroups":
            return b"allow\n" if self.ns.may_setgroups else b"deny\n"
        return show(self.ns, self.name, self.cred)

    async def pwrite(self, data: bytes, offset: int) -> int:
        if self.name == b"setgroups":
            store_setgroups(self.ns, bytes(data), self.cred)
        else:
            store(self.kernel, self.ns, self.name, bytes(data), self.cred)
        return len(data)
