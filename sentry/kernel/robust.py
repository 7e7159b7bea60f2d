"""What a task's end does to futexes: robust lists, locks with waiters, CLEARTID (get_robust_list(2))."""

from __future__ import annotations

from sentry.abi import futex as f
from sentry.abi.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task


def leave_futexes(task: Task) -> None:
    """A task ends, or executes another program: whoever waits for what it holds hears of it."""
    try:
        _walk_robust_list(task)
    except SysError:
        pass
    task.kernel.futexes.exit_task(task)
    addr, task.clear_child_tid = task.clear_child_tid, 0
    if addr and task.mm.users > 1:
        try:
            task.kernel.futexes.clear_and_wake(task, addr)
        except SysError:
            pass


def _wake_one(task: Task, addr: int) -> None:
    """Whoever waits for a word that was written just now, as for a shared futex."""
    try:
        task.kernel.futexes.wake_at(task, addr, False, 1, look=False)
    except SysError:
        pass  # nobody can wait for such a word


def _walk_robust_list(task: Task) -> None:
    """Bit 0 of a pointer to an entry says that its futex is one with priority inheritance."""
    head, task.robust_list = task.robust_list, 0
    if not head:
        return
    mm = task.mm
    entry, offset, pending = f.ROBUST_HEAD.unpack(mm.read(head, f.ROBUST_HEAD.size))
    seen = {head}
    for _ in range(f.ROBUST_LIST_LIMIT):
        # Whoever comes back to an entry other than the head goes in circles, and all is done.
        if entry & ~1 in seen:
            break
        seen.add(entry & ~1)
        following = mm.read_u64(entry & ~1)
        if entry & ~1 != pending & ~1:
            _owner_died(task, (entry & ~1) + offset, bool(entry & 1), False)
        entry = following
    if pending & ~1:
        _owner_died(task, (pending & ~1) + offset, bool(pending & 1), True)


def _owner_died(task: Task, addr: int, pi: bool, pending: bool) -> None:
    """handle_futex_death(): locks that others wait for as such are handed over by `PriorityFutexes`."""
    if addr & 3:
        return
    mm = task.mm
    value = mm.read_u32(addr & 0xFFFF_FFFF_FFFF_FFFF)
    if pending and not pi and not value:
        # Unlocked, but nobody has been woken yet.
        _wake_one(task, addr)
    while value & f.FUTEX_TID_MASK == task.pid.vnr:
        seen = mm.space.cmpxchg32(addr, value, value & f.FUTEX_WAITERS | f.FUTEX_OWNER_DIED)
        if seen == value:
            if value & f.FUTEX_WAITERS and not pi:
                _wake_one(task, addr)
            break
        value = seen
