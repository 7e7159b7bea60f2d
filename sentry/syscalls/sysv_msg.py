"""System V message queues: msgget, msgsnd, msgrcv, msgctl."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SYS_RESOURCE
from sentry.abi.errors import SysError
from sentry.abi.ipc import (
    IPC_INFO,
    IPC_NOWAIT,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    MSG_COPY,
    MSG_EXCEPT,
    MSG_INFO,
    MSG_NOERROR,
    MSG_STAT,
    MSG_STAT_ANY,
    MSGINFO,
    MSGMNB,
    MSGMNI,
    MSGSEG,
    MSGSSZ,
    MSQID_DS,
    S_IRUGO,
    S_IWUGO,
)
from sentry.abi.syscall_nr import SYS
from sentry.kernel.ipc.msg import HEAD, Message, MsgQueue, Receiver, Wish, memory
from sentry.kernel.wait import Interrupted, block
from sentry.syscalls.table import ERESTARTNOHAND, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Flags, Int, Long

_INT_MAX = 0x7FFFFFFF


def _signed(value: int) -> int:
    return (value ^ 1 << 63) - (1 << 63)


@syscall(SYS.msgget)
def msgget(task: Task, key: Int, flags: Flags) -> int:
    """msgget(2)."""
    return task.ipc.msg.get_queue(task, key, flags)


@syscall(SYS.msgsnd, on_signal=ERESTARTNOHAND)
async def msgsnd(task: Task, msqid: Int, msgp: Addr, size: Long, flags: Flags) -> None:
    """msgsnd(2)."""
    table = task.ipc.msg
    kind = _signed(task.mm.read_u64(msgp))
    if not 0 <= size <= table.max or msqid < 0 or kind < 1:
        raise SysError(errno.EINVAL)
    memory.charge(size + HEAD)
    try:
        message = Message(kind, task.mm.read(msgp + 8, size))
        queue = table.find(msqid, MsgQueue)
        await _room(task, queue, size, flags)
    except BaseException:
        memory.charge(-size - HEAD)
        raise
    queue.send(message, task.group.tgid)


async def _room(task: Task, queue: MsgQueue, size: int, flags: int) -> None:
    """Until a message of `size` bytes may be sent; SysError(EACCES, EAGAIN, EIDRM), Interrupted."""
    while True:
        queue.check(task.cred, S_IWUGO)
        if queue.fits(size):
            return
        if flags & IPC_NOWAIT:
            raise SysError(errno.EAGAIN)
        await block((queue.senders, 1))
        if queue.deleted:
            raise SysError(errno.EIDRM)


async def _receive(task: Task, queue: MsgQueue, wish: Wish, room: int, flags: int) -> Message:
    while True:
        queue.check(task.cred, S_IRUGO)
        message = queue.find(wish)
        if message is not None:
            if len(message.data) > room and not flags & MSG_NOERROR:
                raise SysError(errno.E2BIG)
            if flags & MSG_COPY and len(message.data) > room:
                raise SysError(errno.EINVAL)
            if not flags & MSG_COPY:
                queue.take(message, task.group.tgid)
            return message
        if flags & IPC_NOWAIT:
            raise SysError(errno.ENOMSG)
        receiver = Receiver(wish, _INT_MAX if flags & MSG_NOERROR else room, task.group.tgid)
        queue.receivers[receiver] = None
        try:
            while receiver.outcome is None:
                try:
                    await block((receiver.queue, 1))
                except Interrupted:
                    if receiver.outcome is None:
                        raise
        finally:
            queue.receivers.pop(receiver, None)
        outcome = receiver.outcome
        if isinstance(outcome, Message):
            return outcome
        if outcome != errno.EAGAIN:
            raise SysError(outcome)


@syscall(SYS.msgrcv, on_signal=ERESTARTNOHAND)
async def msgrcv(task: Task, msqid: Int, msgp: Addr, size: Long, kind: Long, flags: Flags) -> int:
    """msgrcv(2)."""
    table = task.ipc.msg
    if msqid < 0 or size < 0:
        raise SysError(errno.EINVAL)
    room = size
    if flags & MSG_COPY:
        if flags & MSG_EXCEPT or not flags & IPC_NOWAIT:
            raise SysError(errno.EINVAL)
        room = min(size, table.max)
    queue = table.find(msqid, MsgQueue)
    wish = Wish(kind, bool(flags & MSG_EXCEPT), bool(flags & MSG_COPY))
    message = await _receive(task, queue, wish, room, flags)
    data = message.data[:size]
    task.mm.write(msgp, message.kind.to_bytes(8, "little") + data)
    return len(data)


@syscall(SYS.msgctl)
def msgctl(task: Task, msqid: Int, command: Int, buf: Addr) -> int:
    """msgctl(2)."""
    if msqid < 0 or command < 0:
        raise SysError(errno.EINVAL)
    table = task.ipc.msg
    if command in (IPC_INFO, MSG_INFO):
        pool, headers, total = MSGMNI * MSGMNB // 1024, MSGMNB, MSGMNB
        if command == MSG_INFO:
            pool = len(table)
            headers, total = table.totals()
        info = MSGINFO.pack(pool, headers, table.max, table.mnb, table.mni, MSGSSZ, total, MSGSEG)
        task.mm.write(buf, info)
        return table.highest
    if command in (IPC_STAT, MSG_STAT, MSG_STAT_ANY):
        queue = table.find(msqid, MsgQueue) if command == IPC_STAT else table.at(msqid, MsgQueue)
        if command != MSG_STAT_ANY:
            queue.check(task.cred, S_IRUGO)
        task.mm.write(buf, queue.pack(task.cred))
        return 0 if command == IPC_STAT else queue.id
    if command == IPC_SET:
        fields = MSQID_DS.unpack(task.mm.read(buf, MSQID_DS.size))
        queue = table.find(msqid, MsgQueue)
        queue.check_owner(task.cred)
        limit = fields[16]
        if limit > table.mnb and not task.cred.capable(CAP_SYS_RESOURCE):
            raise SysError(errno.EPERM)
        queue.set_perm(task.cred, fields[1], fields[2], fields[5])
        queue.limit = limit
        queue.settings_changed()
    elif command == IPC_RMID:
        queue = table.find(msqid, MsgQueue)
        queue.check_owner(task.cred)
        table.destroy(queue)
    else:
        raise SysError(errno.EINVAL)
    return 0
