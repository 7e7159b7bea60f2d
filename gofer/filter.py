"""The Gofer's seccomp filter: calls on files, and what the interpreter needs to live.

Compiled by libseccomp when the package is built, loaded raw at run time (confine.py).  There is no
openat (only openat2), nothing that makes a process, a socket or a mount, and no executable memory.
"""

from __future__ import annotations

import tempfile

from sentry.abi.mman import MAP_ANONYMOUS, PROT_EXEC
from sentry.abi.stat import S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The order is that of how often they are called.
READING = (
    "openat2", "newfstatat", "close", "recvmsg", "sendto", "sendmsg", "fstat", "statx", "pread64",
    "getdents64", "readlinkat", "lseek", "fstatfs", "fgetxattr", "flistxattr", "write",
)  # fmt: skip
WRITING = (
    "pwrite64", "ftruncate", "fsync", "fdatasync", "mkdirat", "symlinkat", "linkat", "renameat", "renameat2",
    "unlinkat", "fchmodat", "fchmodat2", "fchownat", "utimensat", "fsetxattr", "fremovexattr",
)  # fmt: skip
RUNTIME = (
    "futex", "brk", "munmap", "mremap", "madvise", "rt_sigreturn", "rt_sigprocmask", "restart_syscall",
    "getrandom", "clock_gettime", "getpid", "sched_yield", "exit", "exit_group",
)  # fmt: skip
# F_GETFD F_SETFD F_GETFL F_OFD_GETLK F_OFD_SETLK F_DUPFD_CLOEXEC F_GET_SEALS
FCNTL = (1, 2, 3, 36, 37, 1030, 1034)
#: 0 means S_IFREG.
MKNOD_TYPES = (S_IFREG, S_IFIFO, S_IFSOCK, 0)


def import_libseccomp() -> Any:
    """libseccomp's own Python module where it is installed, else pyseccomp (the same API over ctypes)."""
    try:
        import seccomp
    except ImportError:
        import pyseccomp as seccomp
    return seccomp


def gofer_filter(writable: bool = True) -> Any:
    """A libseccomp SyscallFilter; without `writable` nothing on the host can be changed by it."""
    seccomp = import_libseccomp()
    filter_ = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    names = READING + (WRITING if writable else ("fsync", "fdatasync")) + RUNTIME
    for rank, name in enumerate(names):
        try:
            filter_.add_rule(seccomp.ALLOW, name)
            filter_.syscall_priority(name, max(255 - rank, 1))
        except (OSError, ValueError):
            continue  # newer than the libseccomp of the build host
    for command in FCNTL:
        filter_.add_rule(seccomp.ALLOW, "fcntl", seccomp.Arg(1, seccomp.EQ, command))
    for kind in MKNOD_TYPES if writable else ():
        filter_.add_rule(seccomp.ALLOW, "mknodat", seccomp.Arg(2, seccomp.MASKED_EQ, S_IFMT, kind))
    not_exec = seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, 0)
    anonymous = seccomp.Arg(3, seccomp.MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS)
    filter_.add_rule(seccomp.ALLOW, "mmap", not_exec, anonymous)
    filter_.add_rule(seccomp.ALLOW, "mprotect", not_exec)
    return filter_


def export(rules: Any) -> bytes:
    """A libseccomp SyscallFilter as an array of struct sock_filter, as the kernel takes it."""
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def compile_filter(writable: bool = True) -> bytes:
    """The Gofer's filter as `confine` loads it."""
    return export(gofer_filter(writable))
