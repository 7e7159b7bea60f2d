"""User and group ids, supplementary groups, capability sets (credentials(7), capabilities(7)).

Ids are 32 bits; 4294967295 (-1) means "leave it" where the man page says so, else it is invalid.
As on Linux the calls change the calling thread alone; the C library spreads them over a process.
"""

from __future__ import annotations

import errno

from sentry.abi.capability import (
    CAP_ALL,
    CAP_DATA,
    CAP_HEADER,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
    CAP_VERSION_1,
    CAP_VERSION_2,
    CAP_VERSION_3,
)
from sentry.abi.errors import SysError
from sentry.abi.syscall_nr import SYS
from sentry.kernel.credentials import (
    Credentials,
    Groups,
    fix_caps_after_setfsuid,
    fix_caps_after_setuid,
    loses_dumpable,
)
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, UInt

UNCHANGED = 0xFFFF_FFFF
NGROUPS_MAX = 65536


def commit(task: Task, new: Credentials) -> None:
    """Give `task` the credentials `new` (commit_creds())."""
    if loses_dumpable(new, task.cred):
        task.group.dumpable = 0
        task.pdeath_signal = 0
    task.set_cred(new)


@syscall(SYS.getuid)
def getuid(task: Task) -> int:
    """getuid(2)."""
    return task.cred.shown_ids()[0]


@syscall(SYS.geteuid)
def geteuid(task: Task) -> int:
    """geteuid(2)."""
    return task.cred.shown_ids()[1]


@syscall(SYS.getgid)
def getgid(task: Task) -> int:
    """getgid(2)."""
    return task.cred.shown_ids()[2]


@syscall(SYS.getegid)
def getegid(task: Task) -> int:
    """getegid(2)."""
    return task.cred.shown_ids()[3]


@syscall(SYS.setuid)
def setuid(task: Task, uid: UInt) -> None:
    """setuid(2)."""
    old = task.cred
    uid = old.user_ns.kuid(uid)
    new = old.copy()
    if old.own_capable(CAP_SETUID):
        new.uid = new.suid = uid
    elif uid not in (old.uid, old.suid):
        raise SysError(errno.EPERM)
    new.euid = new.fsuid = uid
    fix_caps_after_setuid(new, old)
    commit(task, new)


@syscall(SYS.setgid)
def setgid(task: Task, gid: UInt) -> None:
    """setgid(2)."""
    old = task.cred
    gid = old.user_ns.kgid(gid)
    new = old.copy()
    if old.own_capable(CAP_SETGID):
        new.gid = new.sgid = gid
    elif gid not in (old.gid, old.sgid):
        raise SysError(errno.EPERM)
    new.egid = new.fsgid = gid
    commit(task, new)


def _kernel_uids(cred: Credentials, *uids: int) -> list[int]:
    """The kernel's ids for a caller's, of which UNCHANGED is none; SysError(EINVAL)."""
    return [uid if uid == UNCHANGED else cred.user_ns.kuid(uid) for uid in uids]


def _kernel_gids(cred: Credentials, *gids: int) -> list[int]:
    return [gid if gid == UNCHANGED else cred.user_ns.kgid(gid) for gid in gids]


@syscall(SYS.setreuid)
def setreuid(task: Task, ruid: UInt, euid: UInt) -> None:
    """setreuid(2)."""
    old = task.cred
    ruid, euid = _kernel_uids(old, ruid, euid)
    new = old.copy()
    capable = old.own_capable(CAP_SETUID)
    if ruid != UNCHANGED:
        new.uid = ruid
        if ruid not in (old.uid, old.euid) and not capable:
            raise SysError(errno.EPERM)
    if euid != UNCHANGED:
        new.euid = euid
        if euid not in (old.uid, old.euid, old.suid) and not capable:
            raise SysError(errno.EPERM)
    if ruid != UNCHANGED or (euid != UNCHANGED and euid != old.uid):
        new.suid = new.euid
    new.fsuid = new.euid
    fix_caps_after_setuid(new, old)
    commit(task, new)


@syscall(SYS.setregid)
def setregid(task: Task, rgid: UInt, egid: UInt) -> None:
    """setregid(2)."""
    old = task.cred
    rgid, egid = _kernel_gids(old, rgid, egid)
    new = old.copy()
    capable = old.own_capable(CAP_SETGID)
    if rgid != UNCHANGED:
        new.gid = rgid
        if rgid not in (old.gid, old.egid) and not capable:
            raise SysError(errno.EPERM)
    if egid != UNCHANGED:
        new.egid = egid
        if egid not in (old.gid, old.egid, old.sgid) and not capable:
            raise SysError(errno.EPERM)
    if rgid != UNCHANGED or (egid != UNCHANGED and egid != old.gid):
        new.sgid = new.egid
    new.fsgid = new.egid
    commit(task, new)


@syscall(SYS.setresuid)
def setresuid(task: Task, ruid: UInt, euid: UInt, suid: UInt) -> None:
    """setresuid(2)."""
    old = task.cred
    ruid, euid, suid = _kernel_uids(old, ruid, euid, suid)
    allowed = (UNCHANGED, old.uid, old.euid, old.suid)
    if not old.own_capable(CAP_SETUID) and not (ruid in allowed and euid in allowed and suid in allowed):
        raise SysError(errno.EPERM)
    new = old.copy()
    if ruid != UNCHANGED:
        new.uid = ruid
    if euid != UNCHANGED:
        new.euid = euid
    if suid != UNCHANGED:
        new.suid = suid
    new.fsuid = new.euid
    fix_caps_after_setuid(new, old)
    commit(task, new)


@syscall(SYS.setresgid)
def setresgid(task: Task, rgid: UInt, egid: UInt, sgid: UInt) -> None:
    """setresgid(2)."""
    old = task.cred
    rgid, egid, sgid = _kernel_gids(old, rgid, egid, sgid)
    allowed = (UNCHANGED, old.gid, old.egid, old.sgid)
    if not old.own_capable(CAP_SETGID) and not (rgid in allowed and egid in allowed and sgid in allowed):
        raise SysError(errno.EPERM)
    new = old.copy()
    if rgid != UNCHANGED:
        new.gid = rgid
    if egid != UNCHANGED:
        new.egid = egid
    if sgid != UNCHANGED:
        new.sgid = sgid
    new.fsgid = new.egid
    commit(task, new)


@syscall(SYS.getresuid)
def getresuid(task: Task, ruid: Addr, euid: Addr, suid: Addr) -> None:
    """getresuid(2)."""
    cred, space = task.cred, task.cred.user_ns
    task.mm.write_u32(ruid, space.uid(cred.uid))
    task.mm.write_u32(euid, space.uid(cred.euid))
    task.mm.write_u32(suid, space.uid(cred.suid))


@syscall(SYS.getresgid)
def getresgid(task: Task, rgid: Addr, egid: Addr, sgid: Addr) -> None:
    """getresgid(2)."""
    cred, space = task.cred, task.cred.user_ns
    task.mm.write_u32(rgid, space.gid(cred.gid))
    task.mm.write_u32(egid, space.gid(cred.egid))
    task.mm.write_u32(sgid, space.gid(cred.sgid))


@syscall(SYS.setfsuid)
def setfsuid(task: Task, uid: UInt) -> int:
    """setfsuid(2): the previous value, whether or not the call had an effect."""
    old = task.cred
    shown = old.user_ns.uid(old.fsuid)
    uid = old.user_ns.uids.down(uid)
    allowed = uid in (old.uid, old.euid, old.suid, old.fsuid) or old.own_capable(CAP_SETUID)
    if uid not in (UNCHANGED, old.fsuid) and allowed:
        new = old.copy()
        new.fsuid = uid
        fix_caps_after_setfsuid(new, old)
        commit(task, new)
    return shown


@syscall(SYS.setfsgid)
def setfsgid(task: Task, gid: UInt) -> int:
    """setfsgid(2)."""
    old = task.cred
    shown = old.user_ns.gid(old.fsgid)
    gid = old.user_ns.gids.down(gid)
    allowed = gid in (old.gid, old.egid, old.sgid, old.fsgid) or old.own_capable(CAP_SETGID)
    if gid not in (UNCHANGED, old.fsgid) and allowed:
        new = old.copy()
        new.fsgid = gid
        commit(task, new)
    return shown


@syscall(SYS.getgroups)
def getgroups(task: Task, count: Int, list: Addr) -> int:
    """getgroups(2)."""
    space = task.cred.user_ns
    groups = [space.gid(gid) for gid in task.cred.groups]
    if count < 0 or (count and len(groups) > count):
        raise SysError(errno.EINVAL)
    if count and groups:
        task.mm.write(list, b"".join(gid.to_bytes(4, "little") for gid in groups))
    return len(groups)


def may_setgroups(cred: Credentials) -> bool:
    """Within a user namespace, only once its group ids have a meaning, and if that was not denied."""
    space = cred.user_ns
    return cred.own_capable(CAP_SETGID) and bool(space.gids.extents) and space.may_setgroups


@syscall(SYS.setgroups)
def setgroups(task: Task, count: Int, list: Addr) -> None:
    """setgroups(2)."""
    if not may_setgroups(task.cred):
        raise SysError(errno.EPERM)
    if not 0 <= count <= NGROUPS_MAX:
        raise SysError(errno.EINVAL)
    data = task.mm.read(list, 4 * count) if count else b""
    space = task.cred.user_ns
    groups = sorted([space.kgid(gid) for gid in memoryview(data).cast("I")])
    new = task.cred.copy()
    new.groups = Groups(groups)
    task.set_cred(new)


def _cap_words(task: Task, header: Addr) -> int:
    """How many 32-bit words a set has in the version that the header asks for; SysError(EINVAL)
    after the header was given the version we like best (capget(2))."""
    version = task.mm.read_u32(header)
    if version == CAP_VERSION_1:
        return 1
    if version in (CAP_VERSION_2, CAP_VERSION_3):
        return 2
    task.mm.write_u32(header, CAP_VERSION_3)
    raise SysError(errno.EINVAL)


@syscall(SYS.capget)
def capget(task: Task, header: Addr, data: Addr) -> None:
    """capget(2)."""
    try:
        words = _cap_words(task, header)
    except SysError as error:
        if error.errno == errno.EINVAL and not data:
            return
        raise
    if not data:
        return
    pid = CAP_HEADER.unpack(task.mm.read(header, CAP_HEADER.size))[1]
    if pid < 0:
        raise SysError(errno.EINVAL)
    target = task if pid == 0 else task.find_task(pid)
    if target is None:
        raise SysError(errno.ESRCH)
    cred = target.cred
    out = b""
    for word in range(words):
        shift = 32 * word
        sets = (cred.effective, cred.permitted, cred.inheritable)
        out += CAP_DATA.pack(*(value >> shift & 0xFFFF_FFFF for value in sets))
    task.mm.write(data, out)


@syscall(SYS.capset)
def capset(task: Task, header: Addr, data: Addr) -> None:
    """capset(2)."""
    words = _cap_words(task, header)
    pid = CAP_HEADER.unpack(task.mm.read(header, CAP_HEADER.size))[1]
    if pid not in (0, task.pid.vnr):
        raise SysError(errno.EPERM)
    raw = task.mm.read(data, CAP_DATA.size * words)
    effective = permitted = inheritable = 0
    for word in range(words):
        low = CAP_DATA.unpack_from(raw, CAP_DATA.size * word)
        effective |= low[0] << 32 * word
        permitted |= low[1] << 32 * word
        inheritable |= low[2] << 32 * word
    old = task.cred
    new = old.copy()
    new.effective, new.permitted, new.inheritable = (
        effective & CAP_ALL,
        permitted & CAP_ALL,
        inheritable & CAP_ALL,
    )
    _check_capset(new, old)
    new.ambient &= new.permitted & new.inheritable
    commit(task, new)


def _check_capset(new: Credentials, old: Credentials) -> None:
    """The rules of capabilities(7), "Programmatically adjusting capability sets"; SysError(EPERM)."""
    if (
        (not old.own_capable(CAP_SETPCAP) and new.inheritable & ~(old.inheritable | old.permitted))
        or new.inheritable & ~(old.inheritable | old.bounding)
        or new.permitted & ~old.permitted
        or new.effective & ~new.permitted
    ):
        raise SysError(errno.EPERM)
