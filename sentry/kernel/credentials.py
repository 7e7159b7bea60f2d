"""Credentials of a task: user and group ids, capabilities (credentials(7), capabilities(7)).

Immutable by habit: a change makes a copy (`Credentials.copy`) and replaces `task.cred`, so that
open files and other threads keep what they had.
"""

from __future__ import annotations

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_NET_ADMIN = 12
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_SYS_NICE = 23
CAP_SYS_RESOURCE = 24
CAP_SYS_TIME = 25
CAP_SYS_TTY_CONFIG = 26
CAP_MKNOD = 27
CAP_LAST_CAP = 40
CAP_ALL = (1 << (CAP_LAST_CAP + 1)) - 1


class Credentials:
    __slots__ = (
        "ambient", "bounding", "effective", "egid", "euid", "fsgid", "fsuid", "gid", "groups", "inheritable",
        "keep_caps", "no_new_privs", "permitted", "securebits", "sgid", "suid", "uid",
    )  # fmt: skip

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...] = ()) -> None:
        self.uid = self.euid = self.suid = self.fsuid = uid
        self.gid = self.egid = self.sgid = self.fsgid = gid
        self.groups = groups
        all_caps = CAP_ALL if uid == 0 else 0
        self.effective = self.permitted = all_caps
        self.inheritable = self.ambient = 0
        self.bounding = CAP_ALL
        self.securebits = 0
        self.keep_caps = False
        self.no_new_privs = False

    def copy(self) -> Credentials:
        new = Credentials.__new__(Credentials)
        for name in Credentials.__slots__:
            setattr(new, name, getattr(self, name))
        return new

    def capable(self, cap: int) -> bool:
        """Whether the effective set has capability number `cap`."""
        return bool(self.effective >> cap & 1)

    def in_group(self, gid: int) -> bool:
        """Whether `gid` is the file-system group or a supplementary one."""
        return gid == self.fsgid or gid in self.groups
