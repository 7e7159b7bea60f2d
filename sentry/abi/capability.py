"""Capability numbers and the structures of capget(2) (linux/capability.h, capabilities(7)).

A capability set is an integer in which bit number CAP_X stands for CAP_X.
"""

from __future__ import annotations

from _struct import Struct

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_LINUX_IMMUTABLE = 9
CAP_NET_BIND_SERVICE = 10
CAP_NET_BROADCAST = 11
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13
CAP_IPC_LOCK = 14
CAP_IPC_OWNER = 15
CAP_SYS_MODULE = 16
CAP_SYS_RAWIO = 17
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_PACCT = 20
CAP_SYS_ADMIN = 21
CAP_SYS_BOOT = 22
CAP_SYS_NICE = 23
CAP_SYS_RESOURCE = 24
CAP_SYS_TIME = 25
CAP_SYS_TTY_CONFIG = 26
CAP_MKNOD = 27
CAP_LEASE = 28
CAP_AUDIT_WRITE = 29
CAP_AUDIT_CONTROL = 30
CAP_SETFCAP = 31
CAP_MAC_OVERRIDE = 32
CAP_MAC_ADMIN = 33
CAP_SYSLOG = 34
CAP_WAKE_ALARM = 35
CAP_BLOCK_SUSPEND = 36
CAP_AUDIT_READ = 37
CAP_PERFMON = 38
CAP_BPF = 39
CAP_CHECKPOINT_RESTORE = 40
CAP_LAST_CAP = CAP_CHECKPOINT_RESTORE
CAP_ALL = (1 << (CAP_LAST_CAP + 1)) - 1

#: Gained and lost with a file-system user id of 0.
CAP_FS_SET = (
    1 << CAP_CHOWN | 1 << CAP_MKNOD | 1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH | 1 << CAP_FOWNER
    | 1 << CAP_FSETID | 1 << CAP_LINUX_IMMUTABLE | 1 << CAP_MAC_OVERRIDE
)  # fmt: skip

CAP_VERSION_1 = 0x19980330
CAP_VERSION_2 = 0x20071026
CAP_VERSION_3 = 0x20080522
#: struct __user_cap_header_struct: version, pid.
CAP_HEADER = Struct("<Ii")
#: struct __user_cap_data_struct: effective, permitted, inheritable (32 bits of each).
CAP_DATA = Struct("<III")

#: struct vfs_ns_cap_data, the value of security.capability: its revisions and their sizes.
VFS_CAP_REVISION_MASK = 0xFF000000
VFS_CAP_REVISION_3 = 0x03000000
VFS_CAP_SIZE_1, VFS_CAP_SIZE_2, VFS_CAP_SIZE_3 = 12, 20, 24
VFS_CAP_SIZES = (
    (0x01000000, VFS_CAP_SIZE_1),
    (0x02000000, VFS_CAP_SIZE_2),
    (VFS_CAP_REVISION_3, VFS_CAP_SIZE_3),
)
