"""Credentials of a task: user and group ids, capabilities (credentials(7), capabilities(7)).

Immutable by habit: a change makes a copy (`Credentials.copy`) and replaces `task.cred`, so that
open files and other threads keep what they had.

The functions below the class are the transitions that capabilities(7) describes: what a change
of user ids does to capability sets, what execve(2) makes of them.
"""

from __future__ import annotations

import errno

from sentry._engine import ffi
from sentry.abi.capability import (
    CAP_ALL,
    CAP_FS_SET,
    CAP_KILL,
    CAP_SETUID,
    CAP_SYS_PTRACE,
    VFS_CAP_REVISION_3,
    VFS_CAP_REVISION_MASK,
    VFS_CAP_SIZE_1,
    VFS_CAP_SIZE_3,
    VFS_CAP_SIZES,
)
from sentry.abi.errors import SysError
from sentry.abi.prctl import SECBIT_KEEP_CAPS, SECBIT_NO_SETUID_FIXUP, SECBIT_NOROOT
from sentry.abi.stat import S_ISGID, S_ISUID, S_IXGRP
from sentry.kernel.userns import INITIAL, INVALID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sentry.kernel.userns import UserNamespace


#: Ids in all lists of supplementary groups that there are.
MAX_GROUPS = 1 << 20


class Groups(tuple[int, ...]):
    """Supplementary groups, sorted.  Sockets keep the credentials of who made them, however many there were,
    so all lists together have a limit.  SysError(ENOMEM)."""

    total = 0
    #: uint32_t[], shared by all credentials with this list.
    c: Any

    def __new__(cls, ids: Iterable[int] = ()) -> Groups:
        new = super().__new__(cls, ids)
        if Groups.total + len(new) > MAX_GROUPS:
            raise SysError(errno.ENOMEM)
        return new

    def __init__(self, ids: Iterable[int] = ()) -> None:
        Groups.total += len(self)
        self.c = ffi.new("uint32_t[]", list(self))

    def __del__(self) -> None:
        if hasattr(self, "c"):
            Groups.total -= len(self)


class Credentials:
    __slots__ = (
        "_c", "_plain", "ambient", "bounding", "effective", "egid", "euid", "fsgid", "fsuid",
        "gid", "groups", "inheritable", "no_new_privs", "permitted", "securebits", "sgid", "suid", "uid",
        "user_ns",
    )  # fmt: skip

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...] = ()) -> None:
        self.uid = self.euid = self.suid = self.fsuid = uid
        self.gid = self.egid = self.sgid = self.fsgid = gid
        self.groups: Groups = Groups(groups)
        all_caps = CAP_ALL if uid == 0 else 0
        self.effective = self.permitted = all_caps
        self.inheritable = self.ambient = 0
        self.bounding = CAP_ALL
        self.securebits = 0
        self.no_new_privs = False
        #: In which the capabilities count.  The ids are the initial namespace's all the same.
        self.user_ns: UserNamespace = INITIAL
        self._c: Any = None
        #: What they become by executing a program without privileges of its own (exec_credentials).
        self._plain: tuple[Credentials, bool] | None = None

    @property
    def c(self) -> Any:
        """struct vcred (csrc/abi/dcache.h), made when a task gets these credentials: nothing changes then.
        None within a user namespace, which the engine knows nothing of: Python does such a task's paths."""
        if self.user_ns is not INITIAL:
            return None
        c = self._c
        if c is None:
            c = self._c = ffi.new("struct vcred *")
            c.uid, c.gid, c.fsuid, c.fsgid = self.uid, self.gid, self.fsuid, self.fsgid
            c.effective, c.of_real = self.effective, self.of_real
            c.groups = self.groups.c
            c.group_count = len(self.groups)
        return c

    @property
    def of_real(self) -> int:
        """The capabilities that access(2) goes by: root's for root alone."""
        if self.securebits & SECBIT_NO_SETUID_FIXUP:
            return self.effective
        return self.permitted if self.uid == self.user_ns.uids.down(0) else 0

    def copy(self) -> Credentials:
        new = Credentials.__new__(Credentials)
        for name in Credentials.__slots__:
            setattr(new, name, getattr(self, name))
        new._c = new._plain = None
        return new

    def same(self, other: Credentials) -> bool:
        """Whether they are equal in all that they say."""
        return all(getattr(self, name) == getattr(other, name) for name in _SAID)

    def capable(self, cap: int) -> bool:
        """Whether the effective set has capability number `cap`, and it counts for the whole system."""
        return bool(self.effective >> cap & 1) and self.user_ns is INITIAL

    def ns_capable(self, ns: UserNamespace, cap: int) -> bool:
        """Whether `cap` is there for what belongs to `ns` (cap_capable())."""
        mine = self.user_ns
        space: UserNamespace | None = ns
        while space is not None:
            if space is mine:
                return bool(self.effective >> cap & 1)
            if space.level <= mine.level:
                return False
            if space.parent is mine and space.owner == self.euid:
                return True
            space = space.parent
        return False

    def own_capable(self, cap: int) -> bool:
        """Whether `cap` is there for what belongs to the own user namespace."""
        return bool(self.effective >> cap & 1)

    def capable_over(self, uid: int, gid: int | None, cap: int) -> bool:
        """Whether `cap` is there for a file of this owner and group, if the group matters
        (capable_wrt_inode_uidgid(), inode_owner_or_capable())."""
        if not self.effective >> cap & 1:
            return False
        ns = self.user_ns
        return ns is INITIAL or (ns.uids.up(uid) != INVALID and (gid is None or ns.gids.up(gid) != INVALID))

    def shown_ids(self) -> tuple[int, int, int, int]:
        """(uid, euid, gid, egid) as the task itself sees them."""
        ns = self.user_ns
        if ns is INITIAL:
            return self.uid, self.euid, self.gid, self.egid
        return ns.uid(self.uid), ns.uid(self.euid), ns.gid(self.gid), ns.gid(self.egid)

    def enter_user_ns(self, ns: UserNamespace) -> Credentials:
        """What they become in `ns`, made or entered (set_cred_user_ns())."""
        new = self.copy()
        new.user_ns = ns
        new.effective = new.permitted = new.bounding = CAP_ALL
        new.inheritable = new.ambient = new.securebits = 0
        return new

    def in_group(self, gid: int) -> bool:
        """Whether `gid` is the file-system group or a supplementary one."""
        return gid == self.fsgid or gid in self.groups

    def may_signal(self, target: Credentials) -> bool:
        """Whether a task with these may send signals to one that has `target` (kill_ok_by_cred())."""
        return (
            self.euid in (target.suid, target.uid)
            or self.uid in (target.suid, target.uid)
            or self.ns_capable(target.user_ns, CAP_KILL)
        )

    def may_access(self, target: Credentials, dumpable: int = 1, real: bool = False) -> bool:
        """Whether these let a task look into another process, which has `target` (ptrace(2), "Ptrace
        access mode checking").

        `dumpable` is the other process's; `real` selects PTRACE_MODE_REALCREDS instead of FSCREDS.
        A process may always look into itself: that the caller has tested.
        """
        if self.ns_capable(target.user_ns, CAP_SYS_PTRACE):
            return True
        uid, gid = (self.uid, self.gid) if real else (self.fsuid, self.fsgid)
        if not uid == target.euid == target.suid == target.uid:
            return False
        if not gid == target.egid == target.sgid == target.gid:
            return False
        mine = self.permitted if real else self.effective
        return dumpable == 1 and self.user_ns is target.user_ns and not target.permitted & ~mine


_SAID = tuple(name for name in Credentials.__slots__ if not name.startswith("_"))


def fix_caps_after_setuid(new: Credentials, old: Credentials) -> None:
    """Adjust the capability sets of `new`, whose user ids differ from `old` (capabilities(7), "Effect
    of user ID changes on capabilities")."""
    if new.securebits & SECBIT_NO_SETUID_FIXUP:
        return
    root = old.user_ns.uids.down(0)
    if root in (old.uid, old.euid, old.suid) and root not in (new.uid, new.euid, new.suid):
        if not new.securebits & SECBIT_KEEP_CAPS:
            new.permitted = new.effective = 0
        new.ambient = 0
    if old.euid == root and new.euid != root:
        new.effective = 0
    elif old.euid != root and new.euid == root:
        new.effective = new.permitted


def fix_caps_after_setfsuid(new: Credentials, old: Credentials) -> None:
    """The same for a file-system user id set by itself (setfsuid(2))."""
    if new.securebits & SECBIT_NO_SETUID_FIXUP:
        return
    root = old.user_ns.uids.down(0)
    if old.fsuid == root and new.fsuid != root:
        new.effective &= ~CAP_FS_SET
    elif old.fsuid != root and new.fsuid == root:
        new.effective |= CAP_FS_SET & new.permitted


def loses_dumpable(new: Credentials, old: Credentials) -> bool:
    """Whether the change takes PR_SET_DUMPABLE and PR_SET_PDEATHSIG back (prctl(2)): the process may
    now hold secrets of another user."""
    return (
        new.euid != old.euid
        or new.egid != old.egid
        or new.fsuid != old.fsuid
        or new.fsgid != old.fsgid
        or bool(new.permitted & ~old.permitted)
    )


class FileCaps:
    """The extended attribute security.capability (capabilities(7), "File capabilities")."""

    __slots__ = ("effective", "inheritable", "permitted")

    def __init__(self, permitted: int, inheritable: int, effective: bool) -> None:
        self.permitted = permitted
        self.inheritable = inheritable
        #: Whether what the program may have is effective at once.
        self.effective = effective


def parse_file_caps(value: bytes, space: UserNamespace) -> FileCaps | None:
    """struct vfs_ns_cap_data; None for those of another user namespace.  SysError(EINVAL)."""
    size, revision = len(value), int.from_bytes(value[:4], "little")
    flags, revision = revision & 1, revision & VFS_CAP_REVISION_MASK
    if (revision, size) not in VFS_CAP_SIZES:
        raise SysError(errno.EINVAL)
    words = memoryview(value[4 : 4 + 8 * (1 if size == VFS_CAP_SIZE_1 else 2)]).cast("I")
    permitted = sum(word << 32 * i for i, word in enumerate(words[::2])) & CAP_ALL
    inheritable = sum(word << 32 * i for i, word in enumerate(words[1::2])) & CAP_ALL
    root = int.from_bytes(value[20:24], "little") if size == VFS_CAP_SIZE_3 else INITIAL.uids.down(0)
    owner: UserNamespace | None = space
    while owner is not None and owner.uids.down(0) != root:
        owner = owner.parent
    return None if owner is None else FileCaps(permitted, inheritable, bool(flags))


def owned_file_caps(value: bytes, space: UserNamespace) -> bytes:
    """What becomes of a value that is set in `space`: it counts in there only (cap_convert_nscap()).

    SysError(EINVAL)."""
    parse_file_caps(value, space)
    if space is INITIAL or len(value) == VFS_CAP_SIZE_1:
        return value
    head = int.from_bytes(value[:4], "little") & ~VFS_CAP_REVISION_MASK | VFS_CAP_REVISION_3
    inside = int.from_bytes(value[20:24], "little") if len(value) == VFS_CAP_SIZE_3 else 0
    return head.to_bytes(4, "little") + value[4:20] + space.kuid(inside).to_bytes(4, "little")


def exec_credentials(
    cred: Credentials,
    inode_mode: int,
    inode_uid: int,
    inode_gid: int,
    nosuid: bool = False,
    shared: bool = False,
    caps: FileCaps | None = None,
) -> tuple[Credentials, bool]:
    """What execve(2) of a file turns `cred` into: (new credentials, AT_SECURE).

    `nosuid` is the mount's flag; `shared` says that a task outside the group shares the file system
    context (CLONE_FS), which keeps set-user-ID programs from gaining anything; `caps` are the file's.
    SysError(EPERM): they can't be had.

    `cred` belongs to a task, and is itself the answer where nothing changes.
    """
    if shared or inode_mode & (S_ISUID | S_ISGID) or caps is not None:
        return _exec_credentials(cred, inode_mode, inode_uid, inode_gid, nosuid, shared, caps)
    plain = cred._plain
    if plain is None:
        new, secure = _exec_credentials(cred, 0, 0, 0, False, False, None)
        plain = cred._plain = (cred if new.same(cred) else new, secure)
    return plain


def _exec_credentials(
    cred: Credentials, inode_mode: int, inode_uid: int, inode_gid: int, nosuid: bool, shared: bool,
    caps: FileCaps | None,
) -> tuple[Credentials, bool]:  # fmt: skip
    new = cred.copy()
    space = cred.user_ns
    root = space.uids.down(0)
    if not nosuid and not cred.no_new_privs and space.maps(inode_uid, inode_gid):
        if inode_mode & S_ISUID:
            new.euid = inode_uid
        if inode_mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP:
            new.egid = inode_gid
    new.permitted = 0
    effective = False
    if nosuid:
        caps = None
    if caps is not None:
        new.permitted = (cred.inheritable & caps.inheritable) | (caps.permitted & cred.bounding)
        effective = caps.effective
        if effective and caps.permitted & ~new.permitted:
            raise SysError(errno.EPERM)
    set_user_root = caps is not None and new.euid == root != new.uid
    if not new.securebits & SECBIT_NOROOT and root in (new.euid, new.uid) and not set_user_root:
        new.permitted = cred.bounding | cred.inheritable
        effective = effective or new.euid == root
    set_id = new.euid != cred.uid or new.egid != cred.gid
    gained = new.permitted & ~cred.permitted
    if (set_id or gained) and (shared or cred.no_new_privs):
        if cred.no_new_privs or not cred.own_capable(CAP_SETUID):
            new.euid, new.egid = new.uid, new.gid
        new.permitted &= cred.permitted
    new.suid = new.fsuid = new.euid
    new.sgid = new.fsgid = new.egid
    if set_id or caps is not None:
        new.ambient = 0
    new.permitted |= new.ambient
    new.effective = new.permitted if effective else new.ambient
    new.securebits &= ~SECBIT_KEEP_CAPS
    secure = set_id or (new.uid != root and (effective or bool(new.permitted & ~new.ambient)))
    return new, secure
