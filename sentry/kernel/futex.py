"""Futexes (futex(2)): waiters by key, in order of arrival.

The key of a private futex is its address space and address; of a shared one, what the page is backed by and
the offset there, so that processes meet at different addresses.  The value is compared and the waiter queued
without an await between, and every wake-up comes through here, so none is lost.

Where the platform hands futexes to the host (`hosts_futexes`), nobody waits here, except in calls that the
host is not asked for, and in traced memory (`begin`).  While there are any, the futex calls of all who may
meet them are forced to come here, and wake the host's waiters, too (`wake_at`).
"""

from __future__ import annotations

import errno

from sentry.abi import futex as f
from sentry.abi.errors import SysError
from sentry.abi.mman import USER_END
from sentry.abi.syscall_nr import SYS
from sentry.kernel.bound import FORCED_FUTEX
from sentry.kernel.wait import WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.futex_pi import PriorityFutexes
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager

Key = tuple[int, int]
#: A shared futex in memory that is not: only the threads of one address space meet there, but nobody who
#: says that it is private (FUT_OFF_MMSHARED).
MM_SHARED = 2


class Waiter:
    """One place in a queue; several of one caller may share a `queue` (futex_waitv(2))."""

    __slots__ = ("bitset", "key", "queue", "woken")

    def __init__(self, key: Key, bitset: int, queue: WaitQueue | None = None) -> None:
        self.key = key
        self.bitset = bitset
        self.queue = WaitQueue() if queue is None else queue
        self.woken = False


class Futexes:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waiters: dict[Key, list[Waiter]] = {}
        self._pi: PriorityFutexes | None = None
        #: Address spaces in which private futexes are waited for here, though the host has them: how many.
        self._held: dict[MemoryManager, int] = {}
        #: How many wait here for shared futexes, though the host has them.
        self._held_shared = 0

    @property
    def pi(self) -> PriorityFutexes:
        """Those with owners."""
        if self._pi is None:
            from sentry.kernel.futex_pi import PriorityFutexes

            self._pi = PriorityFutexes(self)
        return self._pi

    def exit_task(self, task: Task) -> None:
        """Its locks go to those who wait for them."""
        if self._pi is not None:
            self._pi.exit_task(task)

    def key(self, task: Task, addr: int, private: bool, look: bool = True) -> Key:
        """SysError(EINVAL) for an unaligned address, EFAULT for one that cannot be read (where the caller
        finds that out anyway, it need not `look`)."""
        if addr & 3:
            raise SysError(errno.EINVAL)
        if addr >= USER_END:
            raise SysError(errno.EFAULT)
        if private:
            return (id(task.mm), addr)
        if look:
            task.mm.read(addr, 4)
        return task.mm.shared_backing(addr) or (id(task.mm), addr | MM_SHARED)

    def add(self, waiter: Waiter) -> None:
        self._waiters.setdefault(waiter.key, []).append(waiter)

    def remove(self, waiter: Waiter) -> None:
        queue = self._waiters[waiter.key]
        queue.remove(waiter)
        if not queue:
            del self._waiters[waiter.key]

    async def wait(self, key: Key, bitset: int, deadline: int | None) -> bool:
        """Queue at once and sleep until woken: True, or the deadline passes: False."""
        waiter = Waiter(key, bitset)
        self.add(waiter)
        try:
            while not waiter.woken:
                if not await block((waiter.queue, 1), deadline=deadline) and not waiter.woken:
                    return False
            return True
        finally:
            if not waiter.woken:
                self.remove(waiter)

    def wake(self, key: Key, count: int, bitset: int = f.MATCH_ANY) -> int:
        """Wake up to `count` waiters whose bitset meets `bitset`; how many.

        SysError(EINVAL) where somebody waits for a lock with an owner."""
        woken = 0
        waiters = self._waiters.get(key)
        if waiters is None:
            if self._pi is not None:
                self._pi.check_plain(key)
            return 0
        for waiter in list(waiters):
            if woken >= count:
                break
            if waiter.bitset & bitset:
                self.remove(waiter)
                waiter.woken = True
                waiter.queue.wake()
                woken += 1
        return woken

    def requeue(self, key: Key, target: Key, count: int) -> int:
        """Let up to `count` waiters of `key` wait at `target` instead; how many moved."""
        waiters = self._waiters.get(key, [])[:count]
        if key != target:
            for waiter in waiters:
                self.remove(waiter)
                waiter.key = target
                self.add(waiter)
        return len(waiters)

    # Futexes that are the host's

    def hosts_waits(self, mm: MemoryManager) -> bool:
        """Whether who waits for a futex of `mm` by futex(2) does so on the host."""
        return self._kernel.platform.hosts_futexes and not mm.own_futexes

    def _hosts_waiters(self, mm: MemoryManager, private: bool) -> bool:
        """Whether somebody may wait on the host for a futex of `mm`."""
        return self._kernel.platform.hosts_futexes and not (private and mm.own_futexes)

    @staticmethod
    def _host(task: Task, addr: int, private: bool, command: int, *rest: int) -> int:
        """What a futex(2) of `task` on the host gives; SysError."""
        command |= f.PRIVATE if private else 0
        result: int = task.mm.space.host_call(SYS.futex, addr, command, *rest)
        return result

    def wake_at(
        self, task: Task, addr: int, private: bool, count: int, bitset: int = f.MATCH_ANY, look: bool = True
    ) -> int:
        """`wake` of those who wait here and of the host's, for a futex in the memory of `task`.

        SysError(EFAULT, EINVAL)."""
        woken = self.wake(self.key(task, addr, private, look), count, bitset)
        if woken < count and self._hosts_waiters(task.mm, private):
            woken += self._host(task, addr, private, f.WAKE_BITSET, count - woken, 0, 0, bitset)
        return woken

    def clear_and_wake(self, task: Task, addr: int) -> None:
        """What a thread's end does to its CLEARTID word: 0, and one of those who wait wakes up.

        SysError(EFAULT, EINVAL)."""
        if not self._hosts_waiters(task.mm, False) or addr & 3:
            task.mm.write_u32(addr, 0)
            self.wake_at(task, addr, False, 1, look=False)
            return
        self._host(task, addr, False, f.WAKE_OP, 1, 0, addr, f.SET_ZERO)
        if self._waiters:
            self.wake(self.key(task, addr, False, look=False), 1)

    def has_waiters(self, task: Task, addr: int, key: Key) -> bool:
        """Whether anybody waits for the futex `key`, which is at `addr` in the memory of `task`."""
        private = key == (id(task.mm), addr)
        if key in self._waiters or not self._hosts_waiters(task.mm, private):
            return key in self._waiters
        # Who is moved to where he is stays there, and is counted.
        return self._host(task, addr, private, f.REQUEUE, 0, 1, addr) > 0

    def requeue_at(
        self, task: Task, addr: int, target: int, private: tuple[bool, bool], count: int, limit: int,
        expected: int | None,
    ) -> int:  # fmt: skip
        """FUTEX_CMP_REQUEUE (`expected` not None), FUTEX_REQUEUE: wake `count`, let `limit` others wait at
        `target`; how many both were.  SysError(EAGAIN, EFAULT, EINVAL)."""
        key, other = self.key(task, addr, private[0]), self.key(task, target, private[1])
        if expected is not None and task.mm.read_u32(addr) != expected:
            raise SysError(errno.EAGAIN)
        woken = self.wake(key, count)
        moved = self.requeue(key, other, limit)
        if not self._hosts_waiters(task.mm, private[0]):
            return woken + moved
        if private[0] == private[1]:
            rest = (count - woken, limit - moved, target)
            return woken + moved + self._host(task, addr, private[0], f.REQUEUE, *rest)
        # The host knows no futex that is private here and shared there: all wake up, and look again.
        left = min(count - woken + limit - moved, 0x7FFF_FFFF)
        return woken + moved + self._host(task, addr, private[0], f.WAKE, left)

    def holds(self, mm: MemoryManager | None) -> bool:
        """Whether somebody waits here for a futex of `mm` that others believe to be the host's."""
        return self._held_shared > 0 or mm in self._held

    def begin(self, mm: MemoryManager, private: bool) -> bool:
        """Somebody is about to wait here, if the word at the address still says so afterwards; whether `end`
        has to follow."""
        if not self._hosts_waiters(mm, private):
            return False
        if not private:
            self._held_shared += 1
            if self._held_shared == 1:
                self._force(None)
        else:
            self._held[mm] = self._held.get(mm, 0) + 1
            if self._held[mm] == 1:
                self._force(mm)
        return True

    def end(self, mm: MemoryManager, private: bool) -> None:
        """That is over."""
        if not private:
            self._held_shared -= 1
            if not self._held_shared:
                self._force(None)
        else:
            self._held[mm] -= 1
            if not self._held[mm]:
                del self._held[mm]
                self._force(mm)

    def _force(self, mm: MemoryManager | None) -> None:
        """Let the tasks of `mm`, or all, know whether their calls have to come here."""
        for task in self._kernel.tasks.values():
            if mm is None or task.mm is mm:
                task.force(FORCED_FUTEX, self.holds(task.mm))
