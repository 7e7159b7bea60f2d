"""What a stub process may ask of the host: the seccomp filter of every guest address space.

A guest's own system calls never get as far as this filter (PTRACE_SYSEMU stops them earlier); it
judges the calls that the Sentry makes a stub do, and whatever a guest could make happen if the
tracing had a hole.  What it allows reaches nothing but the caller's own memory and threads.

Used at build time only: `sentry.runtime.filters` compiles it into sentry/_bin/stub.bpf.
"""

from __future__ import annotations

import signal

from sentry.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE
from sentry.abi.sched import (
    CLONE_FILES,
    CLONE_FS,
    CLONE_PARENT,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VM,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The two clones that csrc/platform/inject.c makes, and no other.
CLONE_PROCESS_FLAGS = CLONE_PARENT | signal.SIGCHLD
CLONE_THREAD_FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM

#: PRIVATE_EXPEDITED and PRIVATE_EXPEDITED_SYNC_CORE, and what registers them: CPUs that run this process,
#: and no others, are interrupted.
MEMBARRIERS = (8, 16, 32, 64)

_ALL_BITS = 0xFFFF_FFFF_FFFF_FFFF
#: mmap flags that are free to choose; all others are compared.
_FREE_MMAP_FLAGS = MAP_FIXED | MAP_NORESERVE


def stub_filter(seccomp: Any) -> Any:
    """The filter as an object of libseccomp's module `seccomp`; everything unnamed kills the process."""
    arg, eq, masked = seccomp.Arg, seccomp.EQ, seccomp.MASKED_EQ
    result = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    result.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    for name in ("munmap", "mprotect", "madvise", "mremap", "close", "exit", "exit_group"):
        result.add_rule(seccomp.ALLOW, name)
    for command in MEMBARRIERS:
        result.add_rule(seccomp.ALLOW, "membarrier", arg(0, masked, 0xFFFF_FFFF, command))
    # Private anonymous memory: no huge-page pool, nothing locked, nothing shared.
    result.add_rule(
        seccomp.ALLOW,
        "mmap",
        arg(3, masked, _ALL_BITS & ~_FREE_MMAP_FLAGS, MAP_PRIVATE | MAP_ANONYMOUS),
    )
    # A descriptor: the Sentry compares the call with its order and lends the descriptor.
    result.add_rule(seccomp.NOTIFY, "mmap", arg(3, masked, MAP_ANONYMOUS, 0))
    for flags in (CLONE_PROCESS_FLAGS, CLONE_THREAD_FLAGS):
        result.add_rule(seccomp.ALLOW, "clone", arg(0, eq, flags))
    # The vsyscall page: the host kernel emulates a call into it without a ptrace stop, but asks this
    # filter.  TRAP becomes a signal stop, which the platform reports as an ordinary system call.
    for name in ("gettimeofday", "time", "getcpu"):
        result.add_rule(seccomp.TRAP, name)
    return result
