"""System V semaphores: semget, semop, semtimedop, semctl."""

from __future__ import annotations

import errno
from _struct import unpack
from time import monotonic_ns

from sentry.abi.errors import SysError
from sentry.abi.ipc import (
    GETALL,
    GETNCNT,
    GETPID,
    GETVAL,
    GETZCNT,
    IPC_INFO,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    S_IRUGO,
    S_IWUGO,
    SEM_INFO,
    SEM_STAT,
    SEM_STAT_ANY,
    SEM_UNDO,
    SEMAEM,
    SEMBUF,
    SEMID_DS,
    SEMINFO,
    SEMUSZ,
    SEMVMX,
    SETALL,
    SETVAL,
)
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import TIMESPEC, timespec_ns
from sentry.kernel.ipc.sem import SemSet, Waiter, undo_list
from sentry.syscalls.table import EINTR, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Flags, Int, UInt, ULong


#: Of one call, whatever /proc/sys/kernel/sem says: they are tried in one turn.
MOST_OPERATIONS = 1 << 14


@syscall(SYS.semget)
def semget(task: Task, key: Int, count: Int, flags: Flags) -> int:
    """semget(2)."""
    return task.ipc.sem.get_set(task, key, count, flags)


async def _operate(task: Task, semid: int, addr: int, count: int, timeout: tuple[int, int] | None) -> None:
    table = task.ipc.sem
    if count > table.opm:
        raise SysError(errno.E2BIG)
    if count < 1:
        raise SysError(errno.EINVAL)
    if count > MOST_OPERATIONS:
        raise SysError(errno.ENOMEM)
    operations = list(SEMBUF.iter_unpack(task.mm.read(addr, count * SEMBUF.size)))
    if semid < 0:
        raise SysError(errno.EINVAL)
    deadline = None if timeout is None else monotonic_ns() + timespec_ns(*timeout)
    sems = table.find(semid, SemSet)
    undo = None
    if any(flags & SEM_UNDO for _number, _change, flags in operations):
        undo = undo_list(task).find(sems)
    if max(number for number, _change, _flags in operations) >= len(sems.values):
        raise SysError(errno.EFBIG)
    waiter = Waiter(operations, task.group.tgid, undo)
    sems.check(task.cred, S_IWUGO if waiter.alters else S_IRUGO)
    await sems.operate(waiter, deadline)


@syscall(SYS.semop, on_signal=EINTR)
async def semop(task: Task, semid: Int, sops: Addr, count: UInt) -> None:
    """semop(2): never restarted, whatever SA_RESTART says (signal(7))."""
    await _operate(task, semid, sops, count, None)


@syscall(SYS.semtimedop, on_signal=EINTR)
async def semtimedop(task: Task, semid: Int, sops: Addr, count: UInt, timeout: Addr) -> None:
    """semtimedop(2)."""
    limit = TIMESPEC.unpack(task.mm.read(timeout, TIMESPEC.size)) if timeout else None
    await _operate(task, semid, sops, count, limit)


async def _find(task: Task, semid: int) -> SemSet:
    sems = task.ipc.sem.find(semid, SemSet)
    if sems.busy:
        await sems.settle()
    return sems


@syscall(SYS.semctl)
async def semctl(task: Task, semid: Int, number: Int, command: Int, arg: ULong) -> int:
    """semctl(2)."""
    if semid < 0:
        raise SysError(errno.EINVAL)
    table = task.ipc.sem
    if command in (IPC_INFO, SEM_INFO):
        real = command == SEM_INFO
        task.mm.write(
            arg,
            SEMINFO.pack(
                table.mns, table.mni, table.mns, table.mns, table.msl, table.opm, table.opm,
                len(table) if real else SEMUSZ, SEMVMX, table.used if real else SEMAEM,
            ),
        )  # fmt: skip
        return table.highest
    if command in (IPC_STAT, SEM_STAT, SEM_STAT_ANY):
        sems = table.find(semid, SemSet) if command == IPC_STAT else table.at(semid, SemSet)
        if command != SEM_STAT_ANY:
            sems.check(task.cred, S_IRUGO)
        task.mm.write(arg, sems.pack(task.cred))
        return 0 if command == IPC_STAT else sems.id
    if command in (GETALL, GETVAL, GETPID, GETNCNT, GETZCNT):
        return _get(task, await _find(task, semid), number, command, arg)
    if command in (SETVAL, SETALL):
        await _set(task, semid, number, command, arg)
    elif command == IPC_SET:
        _, uid, gid, _, _, mode, *_ = SEMID_DS.unpack(task.mm.read(arg, SEMID_DS.size))
        sems = table.find(semid, SemSet)
        sems.check_owner(task.cred)
        sems.set_perm(task.cred, uid, gid, mode)
    elif command == IPC_RMID:
        sems = await _find(task, semid)
        sems.check_owner(task.cred)
        table.destroy(sems)
    else:
        raise SysError(errno.EINVAL)
    return 0


def _get(task: Task, sems: SemSet, number: int, command: int, arg: int) -> int:
    sems.check(task.cred, S_IRUGO)
    if command == GETALL:
        task.mm.write(arg, b"".join([value.to_bytes(2, "little") for value in sems.values]))
        return 0
    if not 0 <= number < len(sems.values):
        raise SysError(errno.EINVAL)
    if command == GETVAL:
        return sems.values[number]
    if command == GETPID:
        return sems.pids.get(number, 0)
    return sems.sleepers(number, command == GETZCNT)


async def _set(task: Task, semid: int, number: int, command: int, arg: int) -> None:
    value = (arg & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
    if command == SETVAL and not 0 <= value <= SEMVMX:
        raise SysError(errno.ERANGE)
    sems = await _find(task, semid)
    count = len(sems.values)
    if command == SETVAL:
        if not 0 <= number < count:
            raise SysError(errno.EINVAL)
        sems.check(task.cred, S_IWUGO)
        values = {number: value}
    else:
        sems.check(task.cred, S_IWUGO)
        values = dict(enumerate(unpack(f"<{count}H", task.mm.read(arg, 2 * count))))
        if max(values.values()) > SEMVMX:
            raise SysError(errno.ERANGE)
    sems.set_values(values, task.group.tgid)
