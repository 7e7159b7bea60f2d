"""CPU time of tasks and processes.

User time is what the host has counted.  A guest process is one host process, whose CPU clock anybody may
read (clock_getcpuclockid(3)), for all of its threads together.  A thread's own time only it can ask for, so
a thread that runs is told its share of that: by how long it has been out of the kernel.  System time is
what its handlers have taken in the Sentry.  Host processes change with execve(2), so a group carries on
what it used in those before; a child of vfork(2) has none of its own yet, and counts how long it was out of
the kernel.
"""

from __future__ import annotations

from time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.group import ThreadGroup
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager


def outside(task: Task) -> int:
    """How long the task has been in its program, ns: computing, waiting for a CPU, or in what the platform
    does for it."""
    if not task.running:
        return task.utime_ns
    task.utime_ns -= task.thread.take_idle()
    return task.utime_ns + max(0, monotonic_ns() - task.resumed_ns)


def _all_outside(group: ThreadGroup) -> int:
    return group.dead_utime + sum(outside(task) for task in group.tasks)


def _user(group: ThreadGroup, mm: MemoryManager | None) -> int:
    if mm is not None and mm.actor is group:
        used: int | None = mm.space.cpu_ns()
        if used is not None:
            return int(group.carried_utime + used)
    return int(group.carried_utime + _all_outside(group) - group.carried_outside)


def group_times(group: ThreadGroup) -> tuple[int, int]:
    """(user, system) nanoseconds of all tasks of `group`, dead ones included."""
    tasks = group.tasks
    if not tasks:
        return group.carried_utime + group.dead_utime - group.carried_outside, group.dead_stime
    stime = group.dead_stime
    for task in tasks:
        stime += task.stime_ns
    return _user(group, tasks[0].mm), stime


def task_times(task: Task) -> tuple[int, int]:
    """(user, system) nanoseconds of one task."""
    group = task.group
    if len(group.tasks) == 1 and not group.dead_utime:
        return group_times(group)
    if task.thread is not None and not task.running and not task.exited:
        used = task.thread.cpu_ns()
        if used is not None:
            if task.cpu_base is None:
                # Whoever had the host thread before has used some of it.
                task.cpu_base = max(0, used - task.utime_ns) if task.thread.used_before else 0
            return used - task.cpu_base, task.stime_ns
    mine = outside(task)
    everybody = _all_outside(group) - group.carried_outside
    total, _ = group_times(group)
    return min(mine, total * mine // everybody if everybody > 0 else 0), task.stime_ns


def leave_memory(task: Task, mm: MemoryManager) -> None:
    """The task gives `mm` up: with its last one, the group leaves the host process."""
    group = task.group
    if len(group.tasks) == 1:
        group.carried_utime = _user(group, mm)
        group.carried_outside = _all_outside(group)
        task.cpu_base = -group.carried_utime
