"""System V semaphores (sysvipc(7), semop(2), semctl(2); Linux ipc/sem.c).

A set's operations are tried as a whole.  What can't be done yet waits in order of arrival, and whoever
changes a value carries out, on behalf of the sleepers, all that has become possible: a sleeper finds its
result in its `Waiter`.

Whom a change may concern is known (`Pending`): those with one operation by the semaphore and by what they
wait for, the others by all semaphores that they name.  As on Linux those come first who change nothing, then
the others in order of arrival; and where one of them has changed something, those before him are looked at
once more.  What that takes beyond one turn a job does, and whoever wants the set meanwhile waits (`settle`).
"""

from __future__ import annotations

import errno
from _heapq import heappop, heappush

from sentry.abi.errors import SysError
from sentry.abi.ipc import IPC_NOWAIT, SEM_UNDO, SEMAEM, SEMID_DS, SEMMNI, SEMMNS, SEMMSL, SEMOPM, SEMVMX
from sentry.kernel.ipc.ids import IpcIds, IpcObject, Memory, now
from sentry.kernel.wait import Interrupted, WaitQueue, block, yield_now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task
    from sentry.kernel.wait import Scheduler

    #: (sem_num, sem_op, sem_flg)
    Operation = tuple[int, int, int]

#: In semaphores, with those that undo lists mirror; a set counts for SET more, a record of undos for UNDO.
memory = Memory(1 << 20)
SET, UNDO = 16, 4
#: Operations of sleepers that are looked at in one turn.
LOOKS = 4096


class Waiter:
    """A semop(2) that waits: `result` is None until somebody has decided it (0, or an errno)."""

    __slots__ = ("alters", "blocking", "numbers", "operations", "order", "pid", "queue", "result", "undo")

    def __init__(self, operations: list[Operation], pid: int, undo: Undo | None) -> None:
        self.operations = operations
        self.pid = pid
        self.undo = undo
        #: The operation that could not be done the last time.
        self.blocking: Operation = operations[0]
        self.result: int | None = None
        self.queue = WaitQueue()
        self.alters = any(change for _number, change, _flags in operations)
        #: Of those that wait: in order of arrival, and the semaphores of several operations.
        self.order = 0
        self.numbers: frozenset[int] = frozenset()


class Undo:
    """What one process, or several (CLONE_SYSVSEM), will take back of one set (struct sem_undo)."""

    __slots__ = ("adjust", "sems")

    def __init__(self, sems: SemSet) -> None:
        self.sems = sems
        #: Number of a semaphore → what will be added to it.
        self.adjust: dict[int, int] = {}


class UndoList:
    """struct sem_undo_list; `users` tasks share it."""

    __slots__ = ("undos", "users")

    def __init__(self) -> None:
        self.users = 1
        self.undos: dict[SemSet, Undo] = {}

    def find(self, sems: SemSet) -> Undo:
        """The record of `sems`, made where there is none; SysError(ENOMEM)."""
        undo = self.undos.get(sems)
        if undo is None:
            memory.charge(UNDO + len(sems.values))
            undo = self.undos[sems] = Undo(sems)
            sems.undos[undo] = self
        return undo

    def put(self, pid: int) -> None:
        """One user less; the last one undoes everything, as process `pid`."""
        self.users -= 1
        if self.users:
            return
        for sems, undo in list(self.undos.items()):
            self.forget(undo)
            sems.undo(undo, pid)

    def forget(self, undo: Undo) -> None:
        del self.undos[undo.sems]
        del undo.sems.undos[undo]
        memory.charge(-UNDO - len(undo.sems.values))


class Pending:
    """Who waits at a set, by what may end that; and what has changed since they were looked at."""

    __slots__ = ("changed", "lines", "mixed", "orders", "zeros")

    def __init__(self) -> None:
        #: Those with one operation, by the number of their semaphore: for more, or for none.
        self.lines: dict[int, dict[Waiter, None]] = {}
        self.zeros: dict[int, dict[Waiter, None]] = {}
        self.mixed: dict[Waiter, None] = {}
        self.orders = 0
        #: Number of a semaphore → whether it may have become more.
        self.changed: dict[int, bool] = {}

    def add(self, waiter: Waiter) -> None:
        self.orders += 1
        waiter.order = self.orders
        if len(waiter.operations) > 1:
            waiter.numbers = frozenset([number for number, _change, _flags in waiter.operations])
            self.mixed[waiter] = None
        else:
            number = waiter.operations[0][0]
            (self.lines if waiter.alters else self.zeros).setdefault(number, {})[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        if len(waiter.operations) > 1:
            self.mixed.pop(waiter, None)
            return
        places, number = self.lines if waiter.alters else self.zeros, waiter.operations[0][0]
        line = places.get(number)
        if line is not None:
            line.pop(waiter, None)
            if not line:
                del places[number]


class SemSet(IpcObject):
    """struct sem_array."""

    __slots__ = (
        "busy", "idle", "otime", "pending", "pids", "scheduler", "table", "undos", "values", "waiting",
    )  # fmt: skip

    def __init__(self, table: SemTable, key: int, flags: int, count: int, task: Task) -> None:
        super().__init__(key, flags, task.cred)
        self.table = table
        self.otime = 0
        self.values = [0] * count
        #: Who changed a semaphore last.
        self.pids: dict[int, int] = {}
        #: In order of arrival.
        self.waiting: dict[Waiter, None] = {}
        self.pending: Pending | None = None
        #: A job carries out what has become possible; who waits for it.
        self.busy = False
        self.idle: WaitQueue | None = None
        self.scheduler: Scheduler = task.scheduler
        self.undos: dict[Undo, UndoList] = {}

    def pack(self, cred: Credentials) -> bytes:
        """struct semid64_ds."""
        return SEMID_DS.pack(*self.perm(cred), self.otime, 0, self.ctime, 0, len(self.values), 0, 0)

    def attempt(self, waiter: Waiter) -> int | None:
        """Do all operations of `waiter`: 0, an errno, or None for one that has to wait.  All or nothing."""
        values = self.values
        done: list[tuple[int, int, int | None]] = []
        adjust = waiter.undo.adjust if waiter.undo is not None else {}
        for operation in waiter.operations:
            number, change, flags = operation
            old = values[number]
            new = old + change
            result: int | None = 0
            if (not change and old) or new < 0:
                waiter.blocking = operation
                result = errno.EAGAIN if flags & IPC_NOWAIT else None
            elif new > SEMVMX:
                result = errno.ERANGE
            elif flags & SEM_UNDO:
                undo = adjust.get(number, 0) - change
                if not -SEMAEM - 1 <= undo <= SEMAEM:
                    result = errno.ERANGE
                else:
                    done.append((number, old, adjust.get(number, 0)))
                    adjust[number] = undo
                    values[number] = new
            else:
                done.append((number, old, None))
                values[number] = new
            if result != 0:
                for number, old, before in reversed(done):
                    values[number] = old
                    if before is not None:
                        adjust[number] = before
                return result
        for number, _change, _flags in waiter.operations:
            self.pids[number] = waiter.pid
        return 0

    async def operate(self, waiter: Waiter, deadline: int | None) -> None:
        """semop(2); SysError(EAGAIN, EIDRM, ERANGE), Interrupted."""
        if self.busy:
            await self.settle()
        result = self.attempt(waiter)
        if result is None:
            self.waiting[waiter] = None
            if self.pending is None:
                self.pending = Pending()
            self.pending.add(waiter)
            try:
                while waiter.result is None:
                    try:
                        if not await block((waiter.queue, 1), deadline=deadline) and waiter.result is None:
                            raise SysError(errno.EAGAIN)
                    except Interrupted:
                        if waiter.result is None:
                            raise
            finally:
                self._leave(waiter)
            result = waiter.result
        elif result == 0:
            self.otime = now()
            if waiter.alters and self.waiting:
                self._note(waiter)
                self.update()
        if result:
            raise SysError(result)

    async def settle(self) -> None:
        """Wait until nobody carries out what others wait for; SysError(EIDRM), and Interrupted if the task
        dies."""
        while self.busy:
            if self.idle is None:
                self.idle = WaitQueue()
            await block((self.idle, 1), interruptible=False)
        if self.deleted:
            raise SysError(errno.EIDRM)

    def _leave(self, waiter: Waiter) -> None:
        self.waiting.pop(waiter, None)
        if self.pending is not None:
            self.pending.remove(waiter)

    def _note(self, waiter: Waiter) -> None:
        """What it wanted has been done."""
        if self.pending is not None:
            changed = self.pending.changed
            for number, change, _flags in waiter.operations:
                if change:
                    changed[number] = change > 0 or changed.get(number, False)

    def update(self) -> None:
        """Values have changed: do what has become possible."""
        pending = self.pending
        if pending is None or self.busy:
            return
        if not self.waiting:
            pending.changed.clear()
            return
        steps, left = self._carry_out(pending), LOOKS
        for looks in steps:
            left -= looks
            if left <= 0:
                self.busy = True
                self.scheduler.spawn(self._carry_on(steps))
                return

    async def _carry_on(self, steps: Iterator[int]) -> None:
        left = 0
        try:
            for looks in steps:
                left -= looks
                if left <= 0:
                    left = LOOKS
                    await yield_now()
        finally:
            self.busy = False
            if self.idle is not None:
                self.idle.wake()

    def _carry_out(self, pending: Pending) -> Iterator[int]:
        """The steps of `update`: how many operations each has looked at."""
        #: Who is to be looked at; of a line its first, and after each the next.
        todo: list[tuple[bool, int, Waiter]] = []
        queued: set[Waiter] = set()
        lines: dict[int, Iterator[Waiter]] = {}

        def look_at(waiter: Waiter) -> None:
            if waiter not in queued:
                queued.add(waiter)
                heappush(todo, (waiter.alters, waiter.order, waiter))

        while True:
            changed, pending.changed = pending.changed, {}
            if changed:
                for number, more in changed.items():
                    if not self.values[number]:
                        for waiter in pending.zeros.get(number, ()):
                            look_at(waiter)
                    if more and number in pending.lines:
                        lines[number] = iter(list(pending.lines[number]))
                        look_at(next(lines[number]))
                for waiter in pending.mixed:
                    if not waiter.numbers.isdisjoint(changed):
                        look_at(waiter)
                yield len(changed) + len(pending.mixed)
            if not todo:
                return
            waiter = heappop(todo)[2]
            queued.remove(waiter)
            if waiter in self.waiting:
                result = self.attempt(waiter)
                if result is not None:
                    self._leave(waiter)
                    self._end(waiter, result)
                    if result == 0:
                        self.otime = now()
                        self._note(waiter)
            number = waiter.operations[0][0]
            if waiter.alters and len(waiter.operations) == 1 and self.values[number]:
                following = next(lines[number], None)
                if following is not None:
                    look_at(following)
            yield len(waiter.operations)

    def _end(self, waiter: Waiter, result: int) -> None:
        waiter.result = result
        waiter.queue.wake()

    def undo(self, undo: Undo, pid: int) -> None:
        """A process has ended: add what it promised, as far as that goes."""
        for number, change in undo.adjust.items():
            if change:
                self.values[number] = min(max(self.values[number] + change, 0), SEMVMX)
                self.pids[number] = pid
                if self.pending is not None:
                    self.pending.changed[number] = True
        self.otime = now()
        self.update()

    def set_values(self, values: dict[int, int], pid: int) -> None:
        """SETVAL and SETALL, which nobody undoes; the values have been checked."""
        for undo in self.undos:
            if len(values) == len(self.values):
                undo.adjust.clear()
            for number in values if undo.adjust else ():
                undo.adjust.pop(number, None)
        for number, value in values.items():
            self.values[number] = value
            self.pids[number] = pid
        if self.pending is not None:
            self.pending.changed.update(dict.fromkeys(values, True))
        self.ctime = now()
        self.update()

    def sleepers(self, number: int, for_zero: bool) -> int:
        """How many wait for this semaphore to become zero, or greater (GETZCNT, GETNCNT)."""
        return sum(
            1
            for waiter in self.waiting
            if waiter.blocking[0] == number and (waiter.blocking[1] == 0) == for_zero
        )


class SemTable(IpcIds):
    """The sets of one namespace and their limits (/proc/sys/kernel/sem)."""

    __slots__ = ("mni", "mns", "msl", "opm", "used")

    def __init__(self) -> None:
        super().__init__()
        self.msl, self.mns, self.opm, self.mni = SEMMSL, SEMMNS, SEMOPM, SEMMNI
        #: Semaphores in all sets.
        self.used = 0

    def get_set(self, task: Task, key: int, count: int, flags: int) -> int:
        """semget(2)."""
        if not 0 <= count <= self.msl:
            raise SysError(errno.EINVAL)

        def make() -> SemSet:
            if not count:
                raise SysError(errno.EINVAL)
            if self.used + count > self.mns:
                raise SysError(errno.ENOSPC)
            self.check_room(self.mni)
            memory.charge(SET + count)
            self.used += count
            return SemSet(self, key, flags, count, task)

        def check(found: IpcObject) -> None:
            assert isinstance(found, SemSet)
            if count > len(found.values):
                raise SysError(errno.EINVAL)

        return self.get(key, flags, task.cred, make, check)

    def destroy(self, sems: SemSet) -> None:
        """IPC_RMID."""
        self.remove(sems)
        for undo, owner in list(sems.undos.items()):
            owner.forget(undo)
        waiting, sems.waiting, sems.pending = sems.waiting, {}, None
        for waiter in waiting:
            sems._end(waiter, errno.EIDRM)
        self.used -= len(sems.values)
        memory.charge(-SET - len(sems.values))

    def sets(self) -> list[SemSet]:
        return [sems for sems in self if isinstance(sems, SemSet)]

    def close(self) -> None:
        """The namespace is gone."""
        for sems in self.sets():
            self.destroy(sems)

    def listing(self, cred: Credentials) -> bytes:
        """/proc/sysvipc/sem."""
        lines = [b"       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"]
        for sems in self.sets():
            lines.append(
                b"%10d %10d  %4o %10u %5u %5u %5u %5u %10u %10u\n" % (
                    sems.key, sems.id, sems.mode, len(sems.values), *sems.ids(cred),
                    sems.otime, sems.ctime,
                )
            )  # fmt: skip
        return b"".join(lines)


def undo_list(task: Task) -> UndoList:
    """The undo list of `task`, made where there is none."""
    if task.sysvsem is None:
        task.sysvsem = UndoList()
    return task.sysvsem


def leave_undo_list(task: Task) -> None:
    """The task ends, or wants one of its own (exit_sem)."""
    undos, task.sysvsem = task.sysvsem, None
    if undos is not None:
        undos.put(task.group.tgid)
