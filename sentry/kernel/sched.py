"""What a task asked of the scheduler and the like, kept for those who ask back (sched(7)).

Guest threads are scheduled by the host; the Sentry stores policy, priority and nice value and
answers with them, but does not act on them.
"""

from __future__ import annotations

from sentry.abi.sched import SCHED_DEADLINE, SCHED_FIFO, SCHED_IDLE, SCHED_NORMAL, SCHED_RR

DEFAULT_SLACK_NS = 50_000
#: personality(2).
READ_IMPLIES_EXEC = 0x0400000
DEFAULT_SLICE_NS = 2_800_000


class Sched:
    """A task's `sched`; inherited by `for_child`."""

    __slots__ = (
        "deadline", "deadline_flags", "default_slack_ns",
        "io_flusher", "ioprio", "mce_kill", "mempolicy", "nice", "personality", "policy", "priority",
        "reset_on_fork", "slack_ns", "slice_ns", "thp_disable",
    )  # fmt: skip

    def __init__(self) -> None:
        self.policy = SCHED_NORMAL
        #: 1-99 for SCHED_FIFO and SCHED_RR, else 0.
        self.priority = 0
        self.nice = 0
        self.reset_on_fork = False
        #: Of SCHED_DEADLINE: (runtime, deadline, period), ns; and its flags as sched_setattr(2) has them.
        self.deadline = (0, 0, 0)
        self.deadline_flags = 0
        self.slice_ns = DEFAULT_SLICE_NS
        #: As ioprio_set(2) packs it; 0: follows the nice value.
        self.ioprio = 0
        self.slack_ns = self.default_slack_ns = DEFAULT_SLACK_NS
        self.personality = 0
        self.io_flusher = False
        #: PR_MCE_KILL_…
        self.mce_kill = 2
        self.thp_disable = False
        #: set_mempolicy(2): (mode with flags, nodes).
        self.mempolicy = (0, 0)

    def for_child(self) -> Sched:
        """What fork(2) and clone(2) give the child."""
        new = Sched.__new__(Sched)
        new.policy, new.priority, new.nice = self.policy, self.priority, self.nice
        new.deadline, new.deadline_flags = (0, 0, 0), 0
        new.reset_on_fork, new.slice_ns, new.ioprio = self.reset_on_fork, self.slice_ns, self.ioprio
        new.slack_ns = new.default_slack_ns = self.slack_ns
        new.personality, new.mempolicy = self.personality, self.mempolicy
        new.mce_kill = self.mce_kill
        new.io_flusher, new.thp_disable = self.io_flusher, self.thp_disable
        if self.reset_on_fork:
            new.reset_on_fork = False
            if self.policy in (SCHED_FIFO, SCHED_RR, SCHED_DEADLINE):
                new.policy, new.priority = SCHED_NORMAL, 0
                new.nice = 0
            new.nice = max(new.nice, 0)
        return new

    def effective_ioprio(self) -> int:
        """The I/O class and level that apply: class 2 (best effort), level from the nice value."""
        if self.ioprio:
            return self.ioprio
        if self.policy in (SCHED_FIFO, SCHED_RR):
            return 1 << 13 | 4
        return (3 << 13 if self.policy == SCHED_IDLE else 2 << 13) | (self.nice + 20) // 5
