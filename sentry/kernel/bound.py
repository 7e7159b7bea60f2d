"""The part of a task that its platform thread knows of: what changes here is told there (`Thread.hot`)."""

from __future__ import annotations

from sentry.abi.signal import SS_DISABLE
from sentry.abi.syscall_nr import SYS
from sentry.kernel import ioacct
from sentry.kernel.pids import Pid
from sentry.kernel.signals import SigPending, sanitize_mask
from sentry.kernel.wait import Runner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.dentry import FsContext
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.fdtable import FDTable
    from sentry.kernel.group import ProcessGroup, ThreadGroup
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.namespaces import NsProxy
    from sentry.kernel.seccomp import Filter, Strict
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.platform.base import Thread

#: Why every call of a task is to be seen by Python (Task.force).
FORCED_STRACE = 1
FORCED_PTRACE = 2
FORCED_SECCOMP = 4
FORCED_FUTEX = 8
FORCED_PROTECTION = 16
#: futex(2).
_FUTEX_BIT = 1 << SYS.futex

#: Numbers of calls that a set of them knows, as a bit mask: all of these.
CALLS = 512
ALL_CALLS = (1 << CALLS) - 1
#: Of Thread.hot: all of it is true; and futexes are the kernel's.
ALL_KNOWN = 0x3FF
OWN_FUTEXES = 1 << 10


def words(bits: int) -> list[int]:
    """A set of calls as the 64-bit words of guest_hot.allowed."""
    return [bits >> shift & 0xFFFF_FFFF_FFFF_FFFF for shift in range(0, CALLS, 64)]


class Detached:
    """Stands in for `Thread.hot` while a task has no thread."""

    __slots__ = ("clear_tid", "ids", "known", "pending", "robust_list", "sigmask")

    def __init__(self, sigmask: int = 0) -> None:
        self.sigmask = sigmask
        self.clear_tid = self.robust_list = 0
        self.known = self.pending = 0
        self.ids: tuple[int, ...] = ()


class Bound(Runner):
    """`Task` without its ways in and out."""

    __slots__ = (
        "_altstack", "_cred", "_forced", "exited", "fault_trapno", "files", "fs", "group", "hot", "io",
        "kernel", "mm", "nsproxy", "pending", "pid", "regs", "seccomp", "thread", "tid",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, tid: int, group: ThreadGroup, cred: Credentials, pid: Pid | None = None
    ) -> None:
        super().__init__(kernel.scheduler)
        self.kernel = kernel
        #: In the outermost namespace; for user space it is `pid`.
        self.tid = tid
        if pid is None:
            pid = group.pid if tid == group.tgid else Pid((tid,), (kernel.pid_ns,))
        self.pid = pid
        pid.task = self  # type: ignore[assignment]
        self.nsproxy: NsProxy = kernel.nsproxy
        self.group = group
        self._cred = cred
        #: The thread's, or a stand-in; `blocked` is in there.
        self.hot: Any = Detached()
        self.mm: MemoryManager = None  # type: ignore[assignment]
        self.files: FDTable = None  # type: ignore[assignment]
        self.fs: FsContext = None  # type: ignore[assignment]
        self.thread: Thread = None  # type: ignore[assignment]
        self.regs: Any = None
        #: struct io_counts: what it has read and written (ioacct.py).
        self.io = ioacct.new()
        self.pending = SigPending()
        self.exited = False
        #: Of the last fault of the program, 0 before the first one.
        self.fault_trapno = 0
        self._altstack = (0, SS_DISABLE, 0)
        #: What its calls have to pass (seccomp(2)).
        self.seccomp: Filter | Strict | None = None
        self._forced = FORCED_STRACE if kernel.strace is not None else 0

    @property
    def blocked(self) -> int:
        """The signal mask, bit N-1 for signal N."""
        return sanitize_mask(self.hot.sigmask)

    @blocked.setter
    def blocked(self, mask: int) -> None:
        self.hot.sigmask = mask

    @property
    def clear_child_tid(self) -> int:
        """Where to store 0 and wake a futex at the end (set_tid_address(2)); 0: nowhere."""
        addr: int = self.hot.clear_tid
        return addr

    @clear_child_tid.setter
    def clear_child_tid(self, addr: int) -> None:
        self.hot.clear_tid = addr

    @property
    def robust_list(self) -> int:
        """The head of the list of held futexes (set_robust_list(2)), or 0."""
        addr: int = self.hot.robust_list
        return addr

    @robust_list.setter
    def robust_list(self, addr: int) -> None:
        self.hot.robust_list = addr

    @property
    def cred(self) -> Credentials:
        return self._cred

    @cred.setter
    def cred(self, cred: Credentials) -> None:
        self._cred = cred
        self.publish_ids()

    def bind(self, thread: Thread) -> None:
        """Run on `thread` from now on."""
        mask, old = self.blocked, self.hot
        self.thread = thread
        self.regs = thread.regs
        thread.owner = self
        hot = self.hot = thread.hot
        hot.sigmask, hot.clear_tid, hot.robust_list = mask, old.clear_tid, old.robust_list
        hot.limits = self.group.packed_limits()
        self.publish_ids()
        patches = self.mm.patches
        thread.set_patches(None if patches is None else patches.table)
        thread.set_files(None if self.files is None else self.files.c)
        thread.set_memory(None if self.mm is None else self.mm.c)
        thread.set_altstack(self._altstack[2] != 0 or self.fault_trapno != 0)
        thread.set_fs(None if self.fs is None else self.fs.c)
        thread.set_cred(self.cred.c)
        thread.set_io(self.io)
        self._set_forced()

    @property
    def forced(self) -> int:
        """Why Python sees every call: FORCED_*; 0: it does not."""
        return self._forced

    def force(self, reason: int, on: bool) -> None:
        """Let Python see every call, or no longer, for `reason` (FORCED_*); several may hold at once.

        The program may run: what it has called before is answered as it was begun."""
        self._forced = self._forced | reason if on else self._forced & ~reason
        if self.thread is not None and not self.exited:
            self._set_forced()

    def _set_forced(self) -> None:
        forced = self._forced
        if not forced:
            self.thread.set_forced(0)
            return
        allowed = ALL_CALLS if self.seccomp is None else self.seccomp.always
        self.thread.set_forced(forced, words(allowed & ~_FUTEX_BIT if forced & FORCED_FUTEX else allowed))

    def set_seccomp(self, chain: Filter | Strict | None) -> None:
        """Filter calls by `chain` from the next one on."""
        before = () if self.seccomp is None else self.seccomp.listeners
        for listener in () if chain is None else chain.listeners:
            if listener not in before:
                listener.users += 1
        self.seccomp = chain
        self.force(FORCED_SECCOMP, chain is not None)

    @property
    def altstack(self) -> tuple[int, int, int]:
        """The alternate signal stack: (base, flags, size)."""
        return self._altstack

    @altstack.setter
    def altstack(self, stack: tuple[int, int, int]) -> None:
        self._altstack = stack
        if self.thread is not None:
            self.thread.set_altstack(stack[2] != 0 or self.fault_trapno != 0)

    def unbind(self) -> None:
        """The thread will be somebody else's, or nobody's."""
        self.hot = Detached(self.blocked)

    def publish_ids(self) -> None:
        """Let the platform answer getpid(2) and its kin."""
        group, pid = self.group, self.pid
        parent = group.parent
        tgid, tid = group.pid.vnr, pid.vnr
        ids = self._cred.shown_ids()
        self.hot.ids = (tgid, tid, 0 if parent is None else parent.pid.nr(pid.ns), *ids, 0)
        self.hot.known = ALL_KNOWN | OWN_FUTEXES if self.mm is not None and self.mm.own_futexes else ALL_KNOWN
        if self.thread is not None:
            self.thread.set_task(group.sighand.c, tgid, tid, ids[0], pid.ns.level > 0)

    def find_task(self, number: int) -> Task | None:
        """The task that a thread id means to this one."""
        return self.pid.ns.tasks.get(number)

    def find_group(self, number: int) -> ThreadGroup | None:
        """The process that a process id means to this one."""
        return self.pid.ns.groups.get(number)

    def find_pgrp(self, number: int) -> ProcessGroup | None:
        """The process group that a number means to this one."""
        return self.pid.ns.pgrps.get(number)

    def publish_actions(self) -> None:
        """Let the platform answer rt_sigaction(2), where the actions are this task's alone."""
        group = self.group
        if group.sighand.users == 1 and group.leader is self and len(group.tasks) <= 1:
            self.thread.tell_actions(group.sighand.c)

    def publish_pending(self) -> None:
        """A signal was queued for this task: to be called before its mask is looked at."""
        if self.thread is not None and not self.exited:
            self.thread.set_pending(self.pending.bits | self.group.pending.bits)

    def set_files(self, files: FDTable) -> None:
        """Use the descriptors of `files` from now on."""
        if self.thread is not None:
            self.thread.set_files(files.c)
        self.files = files

    def set_fs(self, fs: FsContext) -> None:
        """Walk paths from the root and working directory of `fs` from now on."""
        if self.thread is not None:
            self.thread.set_fs(fs.c)
        self.fs = fs

    def forget_cred(self, cred: Credentials) -> None:
        """The task is gone: any credentials will do, and `cred` hold nothing."""
        self._cred = cred

    def set_cred(self, cred: Credentials) -> None:
        """Have the credentials `cred` from now on, which nobody changes any more."""
        if self.thread is not None:
            self.thread.set_cred(cred.c)
        self.cred = cred
