"""The seccomp filters, compiled at build time: `python -m sentry.runtime.filters OUTDIR`.

libseccomp (through its own `seccomp` module, or pyseccomp) costs 37 ms to import, so a run does not:
the build writes each filter as a raw array of struct sock_filter into sentry/_bin/NAME.bpf, and
`confine.load_filter` installs the bytes.  A test compiles them anew and compares.

This file holds the Sentry's filter and the reaper's.  Both are allow-lists: whatever is not named, on
whatever architecture, kills the process.  docs/security.md gives the reason for each entry.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gofer.filter import compile_filter, export, import_libseccomp
from sentry.abi.fcntl import AT_EMPTY_PATH
from sentry.abi.mman import PROT_EXEC
from sentry.abi.prctl import PR_SET_DUMPABLE
from sentry.platform.stub_filter import stub_filter
from sentry.platform.trap_filter import trap_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

WORD = 0xFFFF_FFFF
LONG = 0xFFFF_FFFF_FFFF_FFFF
#: Linux never gives out a larger pid (PID_MAX_LIMIT).
PID_BITS = 22

#: Work on what the process already has: its memory, its descriptors, its clock, itself.
SENTRY_PLAIN = (
    # data
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2",
    "lseek", "fstat", "fstatfs", "ftruncate", "fallocate", "fsync", "fdatasync", "fadvise64", "flock",
    "sendfile", "copy_file_range", "splice", "tee",
    # descriptors
    "close", "close_range", "dup", "dup2", "dup3", "pipe2", "eventfd2", "memfd_create", "epoll_create1",
    "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6",
    "timerfd_create", "timerfd_settime", "timerfd_gettime", "signalfd4",
    # the sockets that it was given: the Gofer's, the CLI's, maybe stdio
    "sendmsg", "recvmsg", "sendto", "recvfrom", "shutdown", "getsockopt", "getsockname",
    # memory
    "munmap", "mremap", "madvise", "brk", "mincore",
    # time
    "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time",
    # itself
    "getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getrandom", "getrusage",
    "times", "sysinfo", "uname", "getcpu", "sched_yield", "sched_getaffinity", "sched_setaffinity",
    "futex", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigsuspend",
    "rt_sigtimedwait", "sigaltstack", "restart_syscall", "exit", "exit_group",
    # its stubs: only processes of its own PID namespace, by ids above zero
    "tgkill", "wait4", "waitid", "process_vm_readv", "process_vm_writev",
)  # fmt: skip

#: Everything that resumes, stops, reads or writes a tracee.  SEIZE and ATTACH are missing: new stubs
#: are clones of the zygote and come traced, so nobody else can be attached to.
SENTRY_PTRACE = (
    7,  # CONT
    9,  # SINGLESTEP
    12,  # GETREGS
    13,  # SETREGS
    31,  # SYSEMU
    32,  # SYSEMU_SINGLESTEP
    0x4200,  # SETOPTIONS
    0x4201,  # GETEVENTMSG
    0x4202,  # GETSIGINFO
    0x4203,  # SETSIGINFO
    0x4204,  # GETREGSET
    0x4205,  # SETREGSET
    0x4207,  # INTERRUPT
    0x4208,  # LISTEN
    0x420E,  # GET_SYSCALL_INFO
)

SENTRY_IOCTL = (
    0x5401,  # TCGETS
    0x5402,  # TCSETS
    0x5403,  # TCSETSW
    0x5404,  # TCSETSF
    0x540B,  # TCFLSH
    0x540F,  # TIOCGPGRP
    0x5411,  # TIOCOUTQ
    0x5413,  # TIOCGWINSZ
    0x541B,  # FIONREAD
    0xC0502100,  # SECCOMP_IOCTL_NOTIF_RECV
    0xC0182101,  # SECCOMP_IOCTL_NOTIF_SEND
    0x40082102,  # SECCOMP_IOCTL_NOTIF_ID_VALID
    0x40182103,  # SECCOMP_IOCTL_NOTIF_ADDFD
)

#: No F_SETOWN, F_SETSIG (signals to others), F_NOTIFY, leases.
SENTRY_FCNTL = (
    0,  # F_DUPFD
    1,  # F_GETFD
    2,  # F_SETFD
    3,  # F_GETFL
    4,  # F_SETFL
    5,  # F_GETLK
    6,  # F_SETLK
    36,  # F_OFD_GETLK
    37,  # F_OFD_SETLK
    1030,  # F_DUPFD_CLOEXEC
    1031,  # F_SETPIPE_SZ
    1032,  # F_GETPIPE_SZ
    1033,  # F_ADD_SEALS
    1034,  # F_GET_SEALS
)


def _allow_list(seccomp: Any) -> Any:
    result = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    result.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    return result


def _allow_words(seccomp: Any, rules: Any, name: str, index: int, values: Iterable[int]) -> None:
    """Allow `name` where its 32-bit argument `index` has one of the values.

    The upper half of the register is not compared: the kernel does not look at it either."""
    for value in values:
        rules.add_rule(seccomp.ALLOW, name, seccomp.Arg(index, seccomp.MASKED_EQ, WORD, value))


def sentry_filter(tracing: bool = True) -> Any:
    """What the Sentry may call once it is locked down; `tracing`: on the ptrace platform."""
    seccomp = import_libseccomp()
    rules = _allow_list(seccomp)
    arg, masked = seccomp.Arg, seccomp.MASKED_EQ
    for name in SENTRY_PLAIN:
        rules.add_rule(seccomp.ALLOW, name)
    for name in ("mmap", "mprotect"):
        rules.add_rule(seccomp.ALLOW, name, arg(2, masked, PROT_EXEC, 0))
    for request in SENTRY_PTRACE if tracing else ():
        rules.add_rule(seccomp.ALLOW, "ptrace", arg(0, seccomp.EQ, request))
    _allow_words(seccomp, rules, "ioctl", 1, SENTRY_IOCTL)
    _allow_words(seccomp, rules, "fcntl", 1, SENTRY_FCNTL)
    # fstat(2) in the C library; the path behind it is not resolved when it is empty.  A path that is
    # not leads into an empty directory.
    _allow_words(seccomp, rules, "newfstatat", 3, (AT_EMPTY_PATH,))
    # Which pages of a stub are in memory; without nodes it moves none.
    rules.add_rule(seccomp.ALLOW, "move_pages", arg(3, seccomp.EQ, 0))
    # Its own limits, to read.
    rules.add_rule(seccomp.ALLOW, "prlimit64", arg(0, seccomp.EQ, 0), arg(2, seccomp.EQ, 0))
    # kill: pids above zero only, since 0 and below name process groups, and the Sentry's is the CLI's
    # and its whole pipeline's.  libseccomp compares an argument once a rule, so "not zero" is one rule
    # a bit.
    beyond = LONG & ~((1 << PID_BITS) - 1)
    for bit in range(PID_BITS):
        rules.add_rule(seccomp.ALLOW, "kill", arg(0, masked, beyond | 1 << bit, 1 << bit))
    return rules


def reaper_filter() -> Any:
    """What pid 1 may call from just before it executes the reaper."""
    seccomp = import_libseccomp()
    rules = _allow_list(seccomp)
    for name in ("execveat", "wait4", "exit_group", "restart_syscall", "rt_sigreturn"):
        rules.add_rule(seccomp.ALLOW, name)
    dumpable = seccomp.Arg(0, seccomp.MASKED_EQ, WORD, PR_SET_DUMPABLE)
    rules.add_rule(seccomp.ALLOW, "prctl", dumpable, seccomp.Arg(1, seccomp.EQ, 0))
    return rules


def compile_all() -> dict[str, bytes]:
    """The filters of all confined processes by the name of their file."""
    return {
        "sentry": export(sentry_filter()),
        "reaper": export(reaper_filter()),
        "sentry_trap": export(sentry_filter(tracing=False)),
        "stub": export(stub_filter(import_libseccomp())),
        "stub_trap": trap_filter(),
        "gofer": compile_filter(writable=False),
        "gofer_rw": compile_filter(writable=True),
    }


def main(out: str) -> None:
    for name, program in compile_all().items():
        Path(out, name + ".bpf").write_bytes(program)


if __name__ == "__main__":
    main(sys.argv[1])
