"""Futexes (futex(2)): waiters by key, in order of arrival.

The key of a private futex is its address space and address; of a shared one, what the page is
backed by and the offset there, so that processes meet at different addresses.  The value is
compared and the waiter queued without an await between, and every wake-up comes through here, so
none is lost.
"""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi.errors import SysError
from sentry.abi.mman import USER_END
from sentry.kernel.wait import WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task

Key = tuple[int, int]

FUTEX_WAITERS = 0x80000000
FUTEX_OWNER_DIED = 0x40000000
FUTEX_TID_MASK = 0x3FFFFFFF
ROBUST_LIST_LIMIT = 2048
_ROBUST_HEAD = Struct("<3Q")
MATCH_ANY = 0xFFFFFFFF


class Waiter:
    __slots__ = ("bitset", "key", "queue", "woken")

    def __init__(self, key: Key, bitset: int) -> None:
        self.key = key
        self.bitset = bitset
        self.queue = WaitQueue()
        self.woken = False


class Futexes:
    def __init__(self) -> None:
        self._waiters: dict[Key, list[Waiter]] = {}

    def key(self, task: Task, addr: int, private: bool, look: bool = True) -> Key:
        """SysError(EINVAL) for an unaligned address, EFAULT for one that cannot be read (where the caller
        finds that out anyway, it need not `look`)."""
        if addr & 3:
            raise SysError(errno.EINVAL)
        if addr >= USER_END:
            raise SysError(errno.EFAULT)
        if not private:
            backing = task.mm.shared_backing(addr)
            if backing is not None:
                return backing
            if look:
                task.mm.read(addr, 4)
        return (id(task.mm), addr)

    async def wait(self, key: Key, bitset: int, deadline: int | None) -> bool:
        """Queue at once and sleep until woken: True, or the deadline passes: False."""
        waiter = Waiter(key, bitset)
        self._waiters.setdefault(key, []).append(waiter)
        try:
            while not waiter.woken:
                if not await block((waiter.queue, 1), deadline=deadline) and not waiter.woken:
                    return False
            return True
        finally:
            if not waiter.woken:
                self._remove(waiter)

    def _remove(self, waiter: Waiter) -> None:
        queue = self._waiters[waiter.key]
        queue.remove(waiter)
        if not queue:
            del self._waiters[waiter.key]

    def wake(self, key: Key, count: int, bitset: int = MATCH_ANY) -> int:
        """Wake up to `count` waiters whose bitset meets `bitset`; how many."""
        woken = 0
        waiters = self._waiters.get(key)
        if waiters is None:
            return 0
        for waiter in list(waiters):
            if woken >= count:
                break
            if waiter.bitset & bitset:
                self._remove(waiter)
                waiter.woken = True
                waiter.queue.wake()
                woken += 1
        return woken

    def requeue(self, key: Key, target: Key, count: int) -> int:
        """Let up to `count` waiters of `key` wait at `target` instead; how many moved."""
        waiters = self._waiters.get(key, [])[:count]
        if key != target:
            for waiter in waiters:
                self._remove(waiter)
                waiter.key = target
                self._waiters.setdefault(target, []).append(waiter)
        return len(waiters)

    def exit_task(self, task: Task) -> None:
        """A task ends: hand over its robust futexes, then CLEARTID when others share its memory."""
        try:
            self._walk_robust_list(task)
        except SysError:
            pass
        addr, task.clear_child_tid = task.clear_child_tid, 0
        if addr and task.mm.users > 1:
            try:
                task.mm.write_u32(addr, 0)
                self._wake_one(task, addr)
            except SysError:
                pass

    def _wake_one(self, task: Task, addr: int) -> None:
        """Whoever waits for a word that was written just now: for a private futex, or a shared one."""
        key = self.key(task, addr, private=False, look=False)
        if not self.wake(key, 1) or key != (id(task.mm), addr):
            self.wake((id(task.mm), addr), 1)

    def _walk_robust_list(self, task: Task) -> None:
        """struct robust_list_head: first entry, offset of the futex word, entry under way."""
        head, task.robust_list = task.robust_list, 0
        if not head:
            return
        mm = task.mm
        entry, offset, pending = _ROBUST_HEAD.unpack(mm.read(head, _ROBUST_HEAD.size))
        for _ in range(ROBUST_LIST_LIMIT):
            if entry & ~1 == head:
                break
            following = mm.read_u64(entry & ~1)
            if entry & ~1 != pending & ~1:
                self._owner_died(task, (entry & ~1) + offset & 0xFFFFFFFFFFFFFFFF)
            entry = following
        if pending & ~1:
            self._owner_died(task, (pending & ~1) + offset & 0xFFFFFFFFFFFFFFFF)

    def _owner_died(self, task: Task, addr: int) -> None:
        if addr & 3:
            return
        mm = task.mm
        value = mm.read_u32(addr)
        while value & FUTEX_TID_MASK == task.pid.vnr:
            seen = mm.space.cmpxchg32(addr, value, value & FUTEX_WAITERS | FUTEX_OWNER_DIED)
            if seen == value:
                if value & FUTEX_WAITERS:
                    self._wake_one(task, addr)
                break
            value = seen
