"""Futexes (futex(2)): waiters by key, in order of arrival.

The key of a private futex is its address space and address; of a shared one, what the page is backed by and
the offset there, so that processes meet at different addresses.  The value is compared and the waiter queued
without an await between, and every wake-up comes through here, so none is lost.

Where the platform hands private futexes to the host (`hosts_futexes`), nobody private waits here, except in
calls that the host is not asked for (`begin_private`).  While there are any, the futex calls of that address
space are forced to come here, and wake the host's waiters, too (`Futexes.host`).
"""

from __future__ import annotations

import errno

from sentry.abi import futex as f
from sentry.abi.errors import SysError
from sentry.abi.mman import USER_END
from sentry.abi.syscall_nr import SYS
from sentry.kernel.bound import FORCED_FUTEX
from sentry.kernel.futex_pi import PriorityFutexes
from sentry.kernel.wait import WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
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
        self.pi = PriorityFutexes(self)
        #: Address spaces in which private futexes are waited for here, though the host has them: how many.
        self._held: dict[MemoryManager, int] = {}

    def key(self, task: Task, addr: int, private: bool, look: bool = True) -> Key:
        """SysError(EINVAL) for an unaligned address, EFAULT for one that cannot be read (where the caller
        finds that out anyway, it need not `look`)."""
        if addr & 3:
            raise SysError(errno.EINVAL)
        if addr >= USER_END:
            raise SysError(errno.EFAULT)
        if private:
            return (id(task.mm), addr)
        backing = task.mm.shared_backing(addr)
        if backing is not None:
            return backing
        if look:
            task.mm.read(addr, 4)
        return (id(task.mm), addr | MM_SHARED)

    def add(self, waiter: Waiter) -> None:
        self._waiters.setdefault(waiter.key, []).append(waiter)

    def remove(self, waiter: Waiter) -> None:
        queue = self._waiters[waiter.key]
        queue.remove(waiter)
        if not queue:
            del self._waiters[waiter.key]

    def has_waiters(self, key: Key) -> bool:
        return key in self._waiters

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
            self.pi.check_plain(key)
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

    # Private futexes that are the host's

    def host(self, task: Task, addr: int, command: int, *rest: int) -> int:
        """What a futex(2) of `task` on the host's private futexes gives; SysError."""
        result: int = task.mm.space.host_call(SYS.futex, addr, command | f.PRIVATE, *rest)
        return result

    def hosted(self, mm: MemoryManager) -> bool:
        """Whether the private futexes there are the host's."""
        return self._kernel.platform.hosts_futexes and not mm.own_futexes

    def holds(self, mm: MemoryManager) -> bool:
        """Whether somebody waits here for a private futex that others believe to be the host's."""
        return mm in self._held

    def begin_private(self, mm: MemoryManager) -> None:
        """Somebody is about to wait here, if the word at the address still says so afterwards."""
        if not self.hosted(mm):
            return
        self._held[mm] = self._held.get(mm, 0) + 1
        if self._held[mm] == 1:
            self._force(mm, True)

    def end_private(self, mm: MemoryManager) -> None:
        """That is over."""
        if mm in self._held:
            self._held[mm] -= 1
            if not self._held[mm]:
                del self._held[mm]
                self._force(mm, False)

    def _force(self, mm: MemoryManager, on: bool) -> None:
        for task in self._kernel.tasks.values():
            if task.mm is mm:
                task.force(FORCED_FUTEX, on)
