"""The platform interface: what the kernel asks of whatever runs guest code.

A platform makes address spaces, runs guest threads in them until they trap, and tells the kernel
why they trapped.  It knows nothing of tasks, files or signals; nothing above this package knows
how a trap is made.

Ownership rule: from the moment `Platform.wait` reports a trap of a thread until `Thread.resume`,
the Sentry owns the thread: its registers are valid and may be changed.  While it runs, the only
call allowed on it is `kick`.  Memory operations of an address space may be used at any time; they
are cheap while at least one of its threads is stopped (a system call handler's own thread always
is), else one is stopped for them and reports KICKED afterwards.

Death is the exception to ownership: a host process that is killed from outside (out of memory) is
reported DEAD for each of its threads at once, also for those that the Sentry owns, and again whenever
such a thread is resumed.  Operations on it raise SysError(ESRCH).

Every address and size given to a memory operation is page aligned and lies below `GUEST_TOP`;
the caller (sentry.mm) decides every address, the host never chooses.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod

from sentry.abi.errors import SysError
from sentry.abi.mman import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Why a thread stopped (Trap.kind).
SYSCALL = 1  # regs.orig_rax holds the number; regs.rip is behind the instruction
FAULT = 2  # a CPU exception: signo, code (si_code), addr (si_addr), trapno, error describe it
KICKED = 3  # it was kicked, or woke without reason; harmless
SITE = 6  # a system call instruction that traps often: `code` 1: it has, now; 0: it was answered without us
DEAD = 4  # the host thread is gone (killed from outside, or out of memory)

#: The first address above guest memory: the stub lives in [GUEST_TOP, end of user space).
GUEST_TOP = 0x7FFF_0000_0000


class Trap:
    """One stop of a guest thread, as `Platform.wait` reports it."""

    __slots__ = ("addr", "code", "error", "kind", "signo", "thread", "trapno")

    def __init__(
        self, thread: Thread, kind: int, signo: int = 0, code: int = 0, addr: int = 0,
        trapno: int = 0, error: int = 0,
    ) -> None:  # fmt: skip
        self.thread = thread
        self.kind = kind
        self.signo = signo
        self.code = code
        self.addr = addr
        self.trapno = trapno
        self.error = error


class Thread(ABC):
    """One guest thread of an address space.

    `regs` is a struct with the 64-bit fields of Linux's user_regs_struct: r15 r14 r13 r12 rbp rbx
    r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs.
    Writing an out-of-range value into it is harmless to the host: the platform forces the
    segment registers and the system bits of eflags before it resumes.  `orig_rax` is only reported:
    the value in it at resume means nothing, the host restarts no system call.
    """

    __slots__ = ("hot", "owner", "regs", "space")
    space: AddressSpace
    regs: object
    #: Whether its host thread has run another guest thread before.
    used_before = False
    #: What the platform may answer for the kernel, in the program's own address space: a struct with
    #: `sigmask` (the signal mask: the program may change it by itself; it may hold nonsense), `known` and
    #: `ids` (see csrc/abi/engine.h).
    hot: Any
    #: Free for the kernel: the task that runs on this thread.
    owner: object

    @abstractmethod
    def resume(self) -> None:
        """Let the thread run with `regs` until its next trap."""

    @abstractmethod
    def set_files(self, table: Any) -> None:
        """The struct fd_table (csrc/abi/vfs.h) of the program, or None: from now on the platform may answer
        system calls on it without a trap (csrc/engine/fast.h).  It must live until the next call of this."""

    def set_memory(self, mm: Any) -> None:  # noqa: B027
        """The struct mm (csrc/abi/mm.h) of the program, or None; as `set_files`."""

    def set_task(self, sighand: Any, tgid: int, tid: int, uid: int, nested: bool = False) -> None:  # noqa: B027
        """The struct sighand (csrc/abi/sighand.h) of the task, or None, and who it is in its namespace, which
        is not the first one if `nested`; as `set_files`."""

    def set_io(self, counts: Any) -> None:  # noqa: B027
        """The struct io_counts of the task, or None; as `set_files`."""

    def tell_actions(self, sighand: Any) -> None:  # noqa: B027
        """The struct sighand is this stopped thread's alone: the platform may answer rt_sigaction(2) on it,
        and says so in there."""

    def set_forced(self, forced: int, allowed: list[int] | None = None) -> None:
        """Not 0: the platform answers no call by itself from now on.  `allowed`, a set of calls as eight
        words, are still answered while `forced` has only the reasons FORCED_SECCOMP and FORCED_FUTEX."""
        self.hot.forced = forced

    def set_altstack(self, there: bool) -> None:  # noqa: B027
        """Whether signal frames are the kernel's business alone: the task has an alternate signal stack, or
        had a fault, of which each later frame tells."""

    def push_frame(
        self, action: tuple[int, int, int, int], info: bytes, mask: int, stack: int, lowest: int,
        alt: tuple[int, int, int], fault: tuple[int, int, int],
    ) -> bool:  # fmt: skip
        """Build a signal frame below `stack`, not below `lowest`, and let the stopped thread run its handler.

        False where the kernel has to do it itself, and nothing has happened.  `action` is (handler, flags,
        restorer, mask), `info` siginfo_t, `alt` stack_t, `fault` (error code, trap number, address).
        """
        return False

    @abstractmethod
    def set_fs(self, context: Any) -> None:
        """The struct fs_context of the program (csrc/abi/dcache.h) or None: likewise for calls on paths."""

    @abstractmethod
    def set_cred(self, cred: Any) -> None:
        """Its struct vcred.  Nothing is answered while one of the three is missing."""

    @abstractmethod
    def kick(self) -> None:
        """Make a running thread trap soon (KICKED, or whatever it was about to report).  One whose call
        sleeps in the platform (`asleep`) is reported with that call at once: SYSCALL."""

    def stop(self) -> None:  # noqa: B027
        """A kick that waits: on return the Sentry owns the thread, whose trap `wait` reports in due time.
        SysError(ESRCH) where it is dead."""

    @property
    def asleep(self) -> bool:
        """Whether a running thread sleeps in a call that the platform serves by itself."""
        return False

    @property
    def blocked(self) -> bool:
        """Whether a running thread sleeps on the host, where futexes are the host's."""
        return False

    def take_idle(self) -> int:
        """How long it was `asleep` since the last time somebody asked, in ns."""
        return 0

    def take_progress(self) -> int:
        """Of a reported call that was `asleep` before: how many bytes it has moved.  0 the next time."""
        return 0

    def take_deadline(self) -> int:
        """Of such a call: when it ends, CLOCK_MONOTONIC, ns (0: no limit, or not known).  0 the next time."""
        return 0

    def cpu_ns(self) -> int | None:
        """CPU time that the stopped host thread has used in its life, other guest threads' before included;
        None: it can't be told."""
        return None

    def rusage(self, who: int) -> bytes | None:
        """What getrusage(2) tells of the host process or the stopped host thread (RUSAGE_*), or None."""
        return None

    @abstractmethod
    def set_patches(self, table: Any) -> None:
        """The patched call sites of the address space (sentry.mm.patch), for the platform to count traps;
        None: nothing is to be patched."""

    @abstractmethod
    def set_pending(self, bits: int) -> None:
        """Publish the signals that would be delivered if they were not blocked, before `hot.sigmask` is
        looked at: a program that unblocks one of them at the same moment sees them, or we see its new
        mask."""

    @abstractmethod
    def exit(self, all_go: bool = False) -> None:
        """End this (stopped) thread.  The address space lives on while it has other threads; `all_go`: these
        are about to end, too, so the host's thread may as well wait for that."""

    @abstractmethod
    def get_fpstate(self) -> bytes:
        """The XSAVE area in the standard (non-compacted) format, as a signal frame carries it."""

    @abstractmethod
    def set_fpstate(self, data: bytes) -> None:
        """Install an XSAVE area; SysError(EINVAL) where the CPU would refuse it."""

    @abstractmethod
    def reset_fpstate(self) -> None:
        """The state a fresh program starts with (execve)."""


class AddressSpace(ABC):
    """Guest memory: a set of host mappings below GUEST_TOP that the kernel orders one by one."""

    @abstractmethod
    def map_anon(self, addr: int, size: int, prot: int, noreserve: bool = False) -> None:
        """Private anonymous memory, replacing whatever was there.  SysError(ENOMEM)."""

    @abstractmethod
    def map_file(self, addr: int, size: int, prot: int, shared: bool, host_fd: int, offset: int) -> None:
        """Map the Sentry's host descriptor `host_fd`, replacing whatever was there.

        A shared mapping has exactly the access mode of `host_fd`.  SysError(EACCES, ENOMEM, ENODEV…).
        """

    @abstractmethod
    def unmap(self, addr: int, size: int) -> None: ...

    @abstractmethod
    def protect(self, addr: int, size: int, prot: int) -> None: ...

    @abstractmethod
    def remap(self, old: int, old_size: int, new: int, new_size: int) -> None:
        """Move and resize one mapping; `new == old` resizes in place.  What was at `new` is gone."""

    @abstractmethod
    def advise(self, addr: int, size: int, advice: int) -> None:
        """madvise(2) with an advice the caller has vetted."""

    @abstractmethod
    def read(self, addr: int, size: int) -> bytes:
        """Exactly `size` bytes, or SysError(EFAULT)."""

    @abstractmethod
    def read_upto(self, addr: int, size: int) -> bytes:
        """As many of `size` bytes as can be read, at least one, or SysError(EFAULT)."""

    @abstractmethod
    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """All of `data`, or SysError(EFAULT) (a prefix may have been written)."""

    @abstractmethod
    def write_upto(self, addr: int, data: bytes | bytearray | memoryview) -> int:
        """As much of `data` as can be written: bytes written, at least one, or SysError(EFAULT)."""

    @abstractmethod
    def cmpxchg32(self, addr: int, expected: int, new: int) -> int:
        """Atomically compare and exchange a 32-bit word; the old value.  SysError(EFAULT, EAGAIN)."""

    def host_call(self, number: int, *args: int) -> int:
        """A system call that a stopped thread makes on the host, with the guest's memory as its own: only
        what the platform allows itself anyway.  SysError."""
        raise SysError(errno.ENOSYS)

    def write_code(self, addr: int, data: bytes, prot: int) -> None:
        """Change code in private memory of protection `prot` (see sentry.mm.patch).  SysError(ENOSYS,
        EFAULT)."""
        raise SysError(errno.ENOSYS)

    @abstractmethod
    def fork(self, thread: Thread, memory: tuple[int, int, int] | None = None) -> Thread:
        """Clone the address space copy-on-write: the only thread of the copy, stopped.

        `thread` (stopped, of this space) is the one cloned; the new thread has its registers and FP state.
        The copy has private anonymous memory at `memory` (addr, size, PROT_*), too.
        """

    @abstractmethod
    def new_thread(self, like: Thread) -> Thread:
        """One more thread in this space, stopped, with the registers and FP state of `like`."""

    @abstractmethod
    def destroy(self) -> None:
        """Kill every thread and give the memory back.  No trap is reported for it any more."""

    def cpu_ns(self) -> int | None:
        """CPU time that all its host threads have used; None: it can't be told."""
        return None

    def resident(self, addr: int, count: int, stride: int = PAGE_SIZE) -> int:
        """How many of `count` mapped pages, `stride` bytes from each to the next, are in memory; the page of
        zeroes that all share doesn't count.  -1: the platform can't tell."""
        return -1

    def page_states(self, addr: int, count: int) -> bytes | None:
        """For each of `count` mapped pages from `addr` on: 0: not in memory; 1: it is; 2: the page of zeroes
        that all share.  None: the platform can't tell."""
        return None


class Platform(ABC):
    """A running platform: the source of address spaces and of traps."""

    name: str
    #: Whether futexes are the host's: the kernel only hears of a wait that a kick has ended, or of a forced
    #: call, which it has to let pass (Task.pass_on).
    hosts_futexes = False
    #: Where patched call sites jump to; 0: this platform has no use for them.
    patched_entry = 0

    @abstractmethod
    def new_address_space(self) -> Thread:
        """An empty address space (nothing mapped but stub, vvar and vDSO) with one stopped thread."""

    @abstractmethod
    def vdso(self) -> tuple[int, int, int]:
        """(first address of vvar, address of the vDSO's ELF header, end) in every new address space."""

    @abstractmethod
    def set_fast(self, on: bool) -> None:
        """Whether system calls may be answered by the platform's fast paths at all (Thread.set_files)."""

    @abstractmethod
    def fast_count(self) -> int:
        """How many system calls the fast paths have answered."""

    @abstractmethod
    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` from `wait` whenever epoll reports `fd`; level triggered unless
        `events` says otherwise (EPOLLONESHOT, EPOLLET).  A second call for an fd replaces the first.
        OSError(EPERM) for descriptors that cannot be polled (regular files)."""

    @abstractmethod
    def unwatch(self, fd: int) -> None: ...

    @abstractmethod
    def wait(self, timeout_ns: int) -> list[Trap]:
        """Sleep until a thread traps, a watched descriptor is ready (its callback has been called) or
        `timeout_ns` is over (-1: no limit).  Returns the traps, maybe none."""

    @abstractmethod
    def close(self) -> None:
        """Kill what is left."""
