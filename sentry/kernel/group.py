"""Thread groups, process groups and sessions (struct signal_struct, struct pid).

A ThreadGroup is what user space calls a process.  It becomes a zombie when its last task has
exited and lives until its parent waits for it.
"""

from __future__ import annotations

from time import monotonic_ns

from sentry.abi.resource import RLIM_NLIMITS
from sentry.abi.signal import CLD_DUMPED, CLD_EXITED, CLD_KILLED, SIGCONT, SIGHUP
from sentry.kernel import ioacct
from sentry.kernel.cputime import group_times
from sentry.kernel.pids import Pid
from sentry.kernel.signals import SigHand, SigPending
from sentry.kernel.userns import INITIAL
from sentry.kernel.wait import WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.abi.signal import SigInfo
    from sentry.fs.dentry import Path
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.kernel.userns import UserNamespace


def cause_of_death(status: int) -> tuple[int, int]:
    """(CLD_ code, si_status) for a wait status."""
    if status & 0x7F:
        return CLD_DUMPED if status & 0x80 else CLD_KILLED, status & 0x7F
    return CLD_EXITED, status >> 8 & 0xFF


class Session:
    """A session: process groups that share a controlling terminal (credentials(7))."""

    __slots__ = ("leader", "old_foreground", "pid", "sid")

    def __init__(self, sid: int, leader: ThreadGroup | None, pid: Pid | None = None) -> None:
        self.sid = sid
        self.pid = pid or Pid((sid,))
        self.leader = leader
        #: The foreground of a terminal that was hung up: told at the end of the leader (tty_old_pgrp).
        self.old_foreground: Pid | None = None


class ProcessGroup:
    """A job; it exists as long as it has members."""

    __slots__ = ("members", "pgid", "pid", "session")

    def __init__(self, pgid: int, session: Session, pid: Pid | None = None) -> None:
        self.pgid = pgid
        self.pid = pid or Pid((pgid,))
        self.pid.pgrp = self
        self.session = session
        self.members: set[ThreadGroup] = set()

    def orphaned(self, leaving: ThreadGroup | None = None) -> bool:
        """No member has its parent in another group of the same session (POSIX 3.264)."""
        for member in self.members:
            parent = member.parent
            if member is leaving or member.zombie or parent is None or parent.tgid == 1:
                continue
            if parent.pgrp is not self and parent.session is self.session:
                return False
        return True


class ThreadGroup:
    __slots__ = (
        "carried_outside",
        "carried_utime",
        "child_max_rss",
        "child_queue",
        "child_stime",
        "child_utime",
        "children",
        "cmdline",
        "continued",
        "creator",
        "dead_stime",
        "dead_utime",
        "did_exec",
        "dump_ns",
        "dumpable",
        "dumping",
        "dying",
        "exe",
        "exec_task",
        "exit_signal",
        "exit_status",
        "extra",
        "io",
        "itimer_real",
        "itimers",
        "kernel",
        "leader",
        "limits",
        "max_rss",
        "oom_score_adj",
        "oom_score_adj_min",
        "packed",
        "parent",
        "pending",
        "pgrp",
        "pid",
        "posix_timers",
        "sighand",
        "signal_queue",
        "start_ns",
        "stop_reported",
        "stop_signal",
        "stopped",
        "subreaper",
        "task_queue",
        "tasks",
        "tgid",
        "tracing",
        "tty",
        "undead",
        "unkillable",
        "zombie",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, tgid: int, parent: ThreadGroup | None, sighand: SigHand, pid: Pid | None = None
    ) -> None:
        self.kernel = kernel
        #: In the outermost namespace; for user space it is `pid`.
        self.tgid = tgid
        self.pid = pid or Pid((tgid,), (kernel.pid_ns,))
        self.pid.group = self
        self.leader: Task
        #: The parent's task that made this, or took it over (the real_parent of Linux's task_struct).
        self.creator: Task | None = None
        #: Traced tasks that have exited, and nobody has waited for: until then the process is no zombie.
        self.undead = 0
        #: How many tasks those of this group trace.
        self.tracing = 0
        self.tasks: list[Task] = []
        self.parent = parent
        self.children: set[ThreadGroup] = set()
        self.pgrp: ProcessGroup
        #: The controlling terminal (a Terminal of fs/devpts), or None.
        self.tty: Any = None
        self.sighand = sighand
        self.pending = SigPending()
        #: Woken when a signal is queued for any task here (signalfd, sigtimedwait).
        self.signal_queue = WaitQueue()
        #: Woken when a child changes state (wait4).
        self.child_queue = WaitQueue()
        #: Woken when a task of this group has exited (execve waits for the others).
        self.task_queue = WaitQueue()
        self.limits: dict[int, tuple[int, int]] = {}
        #: They as `Thread.hot` has them, once somebody wants to know.
        self.packed: list[int] | None = None
        self.exe: Path | None = None
        self.cmdline = b""
        self.start_ns = monotonic_ns()
        #: Wait status that the whole group dies with, once `dying`.
        self.exit_status = 0
        self.dying = False
        self.zombie = False
        #: What the parent gets when this group ends (clone's low byte).
        self.exit_signal = 17
        self.stopped = False
        self.stop_signal = 0
        #: A stop, or a continuation, that no wait has reported yet.
        self.stop_reported = True
        self.continued = False
        self.subreaper = False
        #: The init of a process id namespace: what it has no handler for is ignored.
        self.unkillable = False
        #: The task that is in execve and waits for the others to go.
        self.exec_task: Task | None = None
        self.did_exec = False
        self.dumpable = 1
        #: Whose CAP_SYS_PTRACE counts when it is not dumpable (mm_struct.user_ns).
        self.dump_ns: UserNamespace = INITIAL
        #: Who writes a core file.
        self.dumping: Task | None = None
        self.oom_score_adj = 0
        #: Below this it needs CAP_SYS_RESOURCE.
        self.oom_score_adj_min = 0
        #: Bytes: no task had more resident (an upper bound: what was mapped when it ended).
        self.max_rss = 0
        #: The largest among the children that were waited for, and theirs.
        self.child_max_rss = 0
        self.child_utime = self.child_stime = 0
        self.dead_utime = self.dead_stime = 0
        #: What its threads that are gone have read and written, and children that were waited for.
        self.io = ioacct.new()
        #: User time in the address spaces of earlier programs, and how long it was outside until then.
        self.carried_utime = self.carried_outside = 0
        self.itimer_real: Any = None
        self.itimers: dict[int, Any] = {}
        self.posix_timers: dict[int, Any] = {}
        #: State of subsystems above the kernel, by name.
        self.extra: dict[str, Any] = {}

    @property
    def session(self) -> Session:
        return self.pgrp.session

    def limit(self, resource: int) -> int:
        """The soft limit of an RLIMIT_ number."""
        return self.limits[resource][0]

    def set_limit(self, resource: int, soft: int, hard: int) -> None:
        """Change one; what else follows from that is the caller's."""
        self.limits[resource] = (soft, hard)
        self.packed = None
        for task in self.tasks:
            if task.thread is not None and not task.exited:
                task.hot.limits = self.packed_limits()

    def packed_limits(self) -> list[int]:
        """Soft and hard limits by number (guest_hot.limits)."""
        packed = self.packed
        if packed is None:
            limits = self.limits
            packed = self.packed = [value for number in range(RLIM_NLIMITS) for value in limits[number]]
        return packed

    def cpu_times(self) -> tuple[int, int]:
        """(user, system) nanoseconds of all tasks, dead ones included."""
        return group_times(self)

    def io_text(self) -> bytes:
        """/proc/PID/io."""
        return ioacct.of_group(self)

    def send_signal(self, signo: int, info: SigInfo | None = None, chosen: Task | None = None) -> None:
        """Queue a signal for the process (kill(2)); any task that doesn't block it may take it."""
        self.kernel.signals.send_group(self, signo, info, chosen=chosen)

    def enter(self, pgrp: ProcessGroup) -> None:
        """Move into `pgrp`, leaving the old process group."""
        self.leave_pgrp()
        self.pgrp = pgrp
        pgrp.members.add(self)

    def leave_pgrp(self) -> None:
        old = getattr(self, "pgrp", None)
        if old is not None:
            old.members.discard(self)
            if not old.members:
                self.kernel.forget_pgrp(old)
                old.pid.pgrp = None

    def hang_up_orphans(self, children: list[ThreadGroup]) -> None:
        """This group has ended, and `children` have a new parent: process groups that are orphaned by
        that and have stopped members get SIGHUP and SIGCONT (exit(3), kill_orphaned_pgrp)."""
        parent = self.parent
        affected = {child.pgrp for child in children if child.session is self.session}
        affected.discard(self.pgrp)
        if parent is not None and parent.pgrp is not self.pgrp and parent.session is self.session:
            affected.add(self.pgrp)
        for pgrp in affected:
            members = [member for member in pgrp.members if member is not self and not member.zombie]
            if any(member.stopped for member in members) and pgrp.orphaned(leaving=self):
                for member in members:
                    member.send_signal(SIGHUP)
                    member.send_signal(SIGCONT)
