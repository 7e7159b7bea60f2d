"""What a task asked of the scheduler and the like, kept for those who ask back (sched(7)).

Guest threads are scheduled by the host; the Sentry stores policy, priority and nice value and
answers with them, but does not act on them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task

SCHED_NORMAL = 0
SCHED_FIFO = 1
SCHED_RR = 2
SCHED_BATCH = 3
SCHED_IDLE = 5
SCHED_DEADLINE = 6
SCHED_EXT = 7

DEFAULT_SLACK_NS = 50_000
DEFAULT_SLICE_NS = 2_800_000


class Sched:
    """Found by `sched_of(task)`; inherited by `for_child`."""

    __slots__ = (
        "default_slack_ns", "io_flusher", "ioprio", "nice", "personality", "policy", "priority",
        "reset_on_fork", "slack_ns", "slice_ns", "thp_disable",
    )  # fmt: skip

    def __init__(self) -> None:
        self.policy = SCHED_NORMAL
        #: 1-99 for SCHED_FIFO and SCHED_RR, else 0.
        self.priority = 0
        self.nice = 0
        self.reset_on_fork = False
        self.slice_ns = DEFAULT_SLICE_NS
        #: As ioprio_set(2) packs it; 0: follows the nice value.
        self.ioprio = 0
        self.slack_ns = self.default_slack_ns = DEFAULT_SLACK_NS
        self.personality = 0
        self.io_flusher = False
        self.thp_disable = False

    def for_child(self) -> Sched:
        """What fork(2) and clone(2) give the child."""
        new = Sched.__new__(Sched)
        for name in Sched.__slots__:
            setattr(new, name, getattr(self, name))
        new.default_slack_ns = self.slack_ns
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


def sched_of(task: Task) -> Sched:
    """The settings of `task`, made when first needed."""
    sched = task.extra.get("sched")
    if sched is None:
        sched = task.extra["sched"] = Sched()
    assert isinstance(sched, Sched)
    return sched
