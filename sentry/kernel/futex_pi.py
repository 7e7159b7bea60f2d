"""Futexes with an owner: FUTEX_LOCK_PI and its kin (futex(2), "Priority-inheritance futexes").

The word says who has the lock, in its thread id, and whether anybody waits.  A `Lock` exists while somebody
waits; its waiters stand in order of real-time priority, then of arrival, and the lock is handed to the first
of them by whoever unlocks it or dies.  The owner does not inherit the priority of those who wait, since it is
the host that schedules.
"""

from __future__ import annotations

import errno

from sentry.abi import futex as f
from sentry.abi.errors import SysError
from sentry.abi.sched import SCHED_DEADLINE, SCHED_FIFO, SCHED_RR
from sentry.kernel.wait import Interrupted, WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.futex import Futexes, Key
    from sentry.kernel.task import Task

ERESTARTNOINTR = 513
#: How far a chain of locks whose owners wait for others is followed (max_lock_depth).
MAX_DEPTH = 1024


def urgency(task: Task) -> int:
    """Who is served first: the lower number."""
    sched = task.sched
    if sched.policy == SCHED_DEADLINE:
        return -100
    return -sched.priority if sched.policy in (SCHED_FIFO, SCHED_RR) else 0


class Locker:
    """Somebody who waits for a lock; `addr` is where its word is for him."""

    __slots__ = ("addr", "got", "lock", "queue", "task")

    def __init__(self, task: Task, addr: int) -> None:
        self.task = task
        self.addr = addr
        self.queue = WaitQueue()
        self.lock: Lock | None = None
        self.got = False


class Lock:
    """A lock that somebody waits for (struct futex_pi_state)."""

    __slots__ = ("key", "owner", "waiters")

    def __init__(self, key: Key, owner: Task) -> None:
        self.key = key
        self.owner = owner
        self.waiters: list[Locker] = []

    def add(self, locker: Locker) -> None:
        mine = urgency(locker.task)
        at = len(self.waiters)
        while at and urgency(self.waiters[at - 1].task) > mine:
            at -= 1
        self.waiters.insert(at, locker)
        locker.lock = self


class Requeued(Locker):
    """A waiter of FUTEX_WAIT_REQUEUE_PI at `key`, to be moved to the lock at `target`."""

    __slots__ = ("key", "target")

    def __init__(self, task: Task, addr: int, key: Key, target: Key) -> None:
        super().__init__(task, addr)
        self.key = key
        self.target = target


class PriorityFutexes:
    def __init__(self, futexes: Futexes) -> None:
        self._futexes = futexes
        self._locks: dict[Key, Lock] = {}
        self._requeued: dict[Key, list[Requeued]] = {}
        self._blocked: dict[Task, Locker] = {}

    def check_plain(self, key: Key) -> None:
        """SysError(EINVAL) where a plain wake-up meets waiters for a lock."""
        if key in self._locks or key in self._requeued:
            raise SysError(errno.EINVAL)

    def _take(self, task: Task, addr: int, key: Key, waiter: Task, wait: bool) -> Lock | None:
        """Lock the word at `addr` in the memory of `task` for `waiter`: None, or the lock to wait for.

        SysError(EAGAIN, EDEADLK, EFAULT, EINVAL, EPERM, ESRCH)."""
        space = task.mm.space
        value = task.mm.read_u32(addr)
        while True:
            owner_tid = value & f.FUTEX_TID_MASK
            if owner_tid == waiter.pid.vnr:
                raise SysError(errno.EDEADLK)
            lock = self._locks.get(key)
            if lock is not None:
                if owner_tid != lock.owner.pid.vnr:
                    raise SysError(errno.EINVAL)
                return lock
            if key in self._requeued or self._futexes.has_waiters(task, addr, key):
                raise SysError(errno.EINVAL)
            if owner_tid:
                new = value | f.FUTEX_WAITERS
            else:
                new = value & f.FUTEX_OWNER_DIED | waiter.pid.vnr | (f.FUTEX_WAITERS if wait else 0)
            seen = space.cmpxchg32(addr, value, new)
            if seen == value:
                return self._owned(task, key, owner_tid) if owner_tid else None
            value = seen

    def _owned(self, task: Task, key: Key, owner_tid: int) -> Lock:
        owner = task.find_task(owner_tid)
        if owner is None or owner.exited:
            raise SysError(errno.ESRCH)
        if owner.group.tgid == 1:
            raise SysError(errno.EPERM)
        return Lock(key, owner)

    def _check_deadlock(self, task: Task, lock: Lock) -> None:
        """SysError(EDEADLK) when the owner waits for the caller, maybe by way of others."""
        for _ in range(MAX_DEPTH):
            if lock.owner is task:
                raise SysError(errno.EDEADLK)
            locker = self._blocked.get(lock.owner)
            if locker is None or locker.lock is None:
                return
            lock = locker.lock

    async def lock(self, task: Task, addr: int, key: Key, deadline: int | None) -> None:
        """FUTEX_LOCK_PI.  SysError(ETIMEDOUT and those of `_take`)."""
        lock = self._take(task, addr, key, task, wait=False)
        if lock is None:
            return
        self._check_deadlock(task, lock)
        locker = Locker(task, addr)
        self._enqueue(lock, locker)
        try:
            await self._sleep(locker, deadline)
        except Interrupted:
            raise Interrupted(ERESTARTNOINTR) from None

    def try_lock(self, task: Task, addr: int, key: Key) -> None:
        """FUTEX_TRYLOCK_PI.  SysError(EAGAIN and those of `_take`)."""
        if self._take(task, addr, key, task, wait=False) is not None:
            raise SysError(errno.EAGAIN)

    def _enqueue(self, lock: Lock, locker: Locker) -> None:
        self._locks[lock.key] = lock
        lock.add(locker)
        self._blocked[locker.task] = locker

    async def _sleep(self, locker: Locker, deadline: int | None) -> None:
        try:
            while not locker.got:
                if not await block((locker.queue, 1), deadline=deadline) and not locker.got:
                    raise SysError(errno.ETIMEDOUT)
        except Interrupted:
            if not locker.got:
                raise
        finally:
            self._blocked.pop(locker.task, None)
            if not locker.got and locker.lock is not None:
                self._leave(locker.lock, locker)

    def _leave(self, lock: Lock, locker: Locker) -> None:
        lock.waiters.remove(locker)
        if not lock.waiters:
            del self._locks[lock.key]

    def unlock(self, task: Task, addr: int, key: Key) -> None:
        """FUTEX_UNLOCK_PI.  SysError(EFAULT, EINVAL, EPERM)."""
        value = task.mm.read_u32(addr)
        if value & f.FUTEX_TID_MASK != task.pid.vnr:
            raise SysError(errno.EPERM)
        lock = self._locks.get(key)
        if lock is None:
            if key in self._requeued or self._futexes.has_waiters(task, addr, key):
                raise SysError(errno.EINVAL)
            while (seen := task.mm.space.cmpxchg32(addr, value, 0)) != value:
                if seen & f.FUTEX_TID_MASK != task.pid.vnr:
                    raise SysError(errno.EAGAIN)
                value = seen
            return
        if lock.owner is not task:
            raise SysError(errno.EINVAL)
        self._hand_over(lock, task, addr, 0)

    def _hand_over(self, lock: Lock, task: Task, addr: int, died: int) -> None:
        """The first waiter has the lock now: say so in the word, and wake him."""
        locker = lock.waiters[0]
        value = task.mm.read_u32(addr)
        while True:
            new = f.FUTEX_WAITERS | locker.task.pid.vnr | died | (value & f.FUTEX_OWNER_DIED if died else 0)
            seen = task.mm.space.cmpxchg32(addr, value, new)
            if seen == value:
                break
            value = seen
        self._leave(lock, locker)
        lock.owner = locker.task
        locker.got = True
        locker.queue.wake()

    async def wait_requeue(
        self, task: Task, addr: int, value: int, deadline: int | None, lock_addr: int, private: bool
    ) -> None:
        """FUTEX_WAIT_REQUEUE_PI: wait at `addr`, and get the lock at `lock_addr`.  SysError."""
        futexes = self._futexes
        key, target = futexes.key(task, addr, private), futexes.key(task, lock_addr, private)
        if task.mm.read_u32(addr) != value:
            raise SysError(errno.EAGAIN)
        if key == target:
            raise SysError(errno.EINVAL)
        waiter = Requeued(task, lock_addr, key, target)
        queue = self._requeued.setdefault(key, [])
        queue.append(waiter)
        try:
            await self._sleep(waiter, deadline)
        except Interrupted:
            if waiter.lock is not None:
                raise SysError(errno.EAGAIN) from None
            raise Interrupted(ERESTARTNOINTR) from None
        finally:
            self._forget_requeued(waiter)

    def _forget_requeued(self, waiter: Requeued) -> None:
        queue = self._requeued.get(waiter.key)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._requeued[waiter.key]

    def requeue(self, task: Task, addr: int, key: Key, target: Key, lock_addr: int, count: int) -> int:
        """FUTEX_CMP_REQUEUE_PI, the value compared: the first waiter gets the lock if it is free, up to
        `count` others wait for it; how many were moved.  SysError."""
        if self._futexes.has_waiters(task, addr, key):
            raise SysError(errno.EINVAL)
        waiters = sorted(self._requeued.get(key, ()), key=lambda waiter: urgency(waiter.task))
        if any(waiter.target != target for waiter in waiters[: count + 1]):
            raise SysError(errno.EINVAL)
        moved = 0
        for waiter in waiters:
            if moved > count:
                break
            lock = self._take(task, lock_addr, target, waiter.task, wait=count > 0)
            self._forget_requeued(waiter)
            moved += 1
            if lock is None:
                waiter.got = True
                waiter.queue.wake()
            else:
                self._enqueue(lock, waiter)
        return moved

    def exit_task(self, task: Task) -> None:
        """Its locks that somebody waits for go to the first of these (exit_pi_state_list())."""
        for lock in [lock for lock in self._locks.values() if lock.owner is task]:
            heir = lock.waiters[0]
            try:
                self._hand_over(lock, heir.task, heir.addr, f.FUTEX_OWNER_DIED)
            except SysError:
                # Its word is gone.
                self._leave(lock, heir)
                heir.got = True
                heir.queue.wake()
