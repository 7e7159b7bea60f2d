"""The `trap` platform: guest threads trap by a seccomp filter of their own and wait in a shared record.

Address spaces are stub processes as on `ptrace`, cloned from a zygote, and guest memory is their own
memory. But nobody traces them: a system call becomes a SIGSYS, whose handler is the stub's code
(csrc/stub), which writes the registers into a record that the engine shares with it (csrc/abi/record.h,
csrc/platform/trap.c).  As long as both are awake no process is ever switched.
"""

from __future__ import annotations

from sentry._engine import lib
from sentry.platform.base import GUEST_TOP
from sentry.platform.ptrace import PtracePlatform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Host system calls that this platform makes after `start`, for the Sentry's own seccomp filter.
HOST_SYSCALLS = (
    "wait4",  # WNOHANG|__WALL, rusage NULL
    "epoll_pwait2",  # or, on hosts before 5.11, the next
    "epoll_pwait",
    "epoll_ctl",
    "read",  # the bell
    "ppoll",  # one descriptor, the seccomp listener
    "ioctl",  # SECCOMP_IOCTL_NOTIF_RECV, _NOTIF_SEND, _NOTIF_ADDFD
    "process_vm_readv",
    "process_vm_writev",
    "move_pages",  # nodes NULL: moves nothing
    "kill",  # SIGKILL to stubs
    "tgkill",  # the kick
    "futex",  # on the records
    "memfd_create",  # records
    "ftruncate",
    "mmap",
    "munmap",
    "sched_yield",
    "sched_setaffinity",  # its own and stubs' (csrc/platform/trap_place.c)
    "rt_sigreturn",  # from the SIGCHLD handler
    "clock_gettime",  # of stubs' CPU time, or where the vDSO can't answer
    "close",
    "rt_sigaction",
    "rt_sigprocmask",
)


class TrapPlatform(PtracePlatform):
    """`stub_fd` and `filter_bytes` (sentry/_bin/stub_trap.bpf) as for PtracePlatform."""

    name = "trap"
    hosts_futexes = True
    patched_entry = GUEST_TOP + 40  # STUB_PATCHED_OFFSET of csrc/abi/stub.h

    def __init__(self, stub_fd: int, filter_bytes: bytes) -> None:
        super().__init__(stub_fd, filter_bytes, pin=False)

    def _begin_boot(self) -> Any:
        return lib.ptrace_boot_begin(*self._boot)

    def _choose(self) -> None:
        lib.engine_use_trap(self._engine)
