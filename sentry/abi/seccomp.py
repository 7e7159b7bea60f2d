"""seccomp(2): operations, flags, actions and structs (linux/seccomp.h, linux/filter.h)."""

from __future__ import annotations

from _struct import Struct

SECCOMP_MODE_DISABLED, SECCOMP_MODE_STRICT, SECCOMP_MODE_FILTER = range(3)

SECCOMP_SET_MODE_STRICT, SECCOMP_SET_MODE_FILTER, SECCOMP_GET_ACTION_AVAIL, SECCOMP_GET_NOTIF_SIZES = range(4)

FILTER_FLAG_TSYNC = 1
FILTER_FLAG_LOG = 2
FILTER_FLAG_SPEC_ALLOW = 4
FILTER_FLAG_NEW_LISTENER = 8
FILTER_FLAG_TSYNC_ESRCH = 16
FILTER_FLAG_WAIT_KILLABLE_RECV = 32

RET_KILL_PROCESS = 0x8000_0000
RET_KILL_THREAD = 0
RET_TRAP = 0x0003_0000
RET_ERRNO = 0x0005_0000
RET_USER_NOTIF = 0x7FC0_0000
RET_TRACE = 0x7FF0_0000
RET_LOG = 0x7FFC_0000
RET_ALLOW = 0x7FFF_0000
RET_ACTION = 0xFFFF_0000
RET_DATA = 0xFFFF
ACTIONS = (
    RET_KILL_PROCESS, RET_KILL_THREAD, RET_TRAP, RET_ERRNO, RET_USER_NOTIF, RET_TRACE, RET_LOG, RET_ALLOW,
)  # fmt: skip

AUDIT_ARCH_X86_64 = 0xC000_003E
#: siginfo_t.si_code of RET_TRAP.
SYS_SECCOMP = 1

#: struct sock_fprog: length, address; struct sock_filter: code, jt, jf, k.
SOCK_FPROG = Struct("<H6xQ")
SOCK_FILTER = Struct("<HBBI")
#: struct seccomp_data: nr, arch, instruction pointer, arguments.
SECCOMP_DATA = Struct("<iIQ6Q")
#: struct seccomp_notif_sizes: of struct seccomp_notif, seccomp_notif_resp and seccomp_data.
NOTIF_SIZES = Struct("<HHH")

BPF_MAXINSNS = 4096
#: Instructions of all filters of a task, each filter counted as 4 more (MAX_INSNS_PER_PATH).
MAX_INSTRUCTIONS = 32768
