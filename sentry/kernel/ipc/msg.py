"""System V message queues (sysvipc(7), msgop(2), msgctl(2); Linux ipc/msg.c).

A message that somebody waits for goes to him at once and never stands in the queue: receivers wait in
order of arrival, each with a `Receiver` that takes the message or an errno.
"""

from __future__ import annotations

import errno
from _collections import deque

from sentry.abi.ipc import MSGMAX, MSGMNB, MSGMNI, MSQID_DS
from sentry.kernel.ipc.ids import IpcIds, IpcObject, Memory, now
from sentry.kernel.wait import WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task

#: In bytes; each message counts for HEAD more, each queue for QUEUE.
memory = Memory(128 << 20)
HEAD, QUEUE = 128, 1024

ANY, EQUAL, NOT_EQUAL, AT_MOST, NUMBER = range(5)
LONG_MAX = (1 << 63) - 1


class Message:
    __slots__ = ("data", "kind")

    def __init__(self, kind: int, data: bytes) -> None:
        self.kind = kind
        self.data = data


class Wish:
    """Which message msgrcv(2) wants: by type, or by its number in the queue (MSG_COPY)."""

    __slots__ = ("how", "kind")

    def __init__(self, kind: int, but_not: bool = False, number: bool = False) -> None:
        self.kind = kind
        if number:
            self.how = NUMBER
        elif kind == 0:
            self.how = ANY
        elif kind < 0:
            self.how = AT_MOST
            self.kind = min(-kind, LONG_MAX)
        else:
            self.how = NOT_EQUAL if but_not else EQUAL

    def wants(self, message: Message) -> bool:
        how = self.how
        return (
            how == ANY
            or (how == EQUAL and message.kind == self.kind)
            or (how == NOT_EQUAL and message.kind != self.kind)
            or (how == AT_MOST and message.kind <= self.kind)
        )


class Receiver:
    """A msgrcv(2) that waits.  `outcome` is None, then its message or an errno."""

    __slots__ = ("outcome", "pid", "queue", "room", "wish")

    def __init__(self, wish: Wish, room: int, pid: int) -> None:
        self.wish = wish
        #: The longest message that it takes.
        self.room = room
        self.pid = pid
        self.outcome: Message | int | None = None
        self.queue = WaitQueue()

    def end(self, outcome: Message | int) -> None:
        self.outcome = outcome
        self.queue.wake()


class MsgQueue(IpcObject):
    """struct msg_queue."""

    __slots__ = (
        "cbytes", "limit", "lrpid", "lspid", "messages", "receivers", "rtime", "senders", "stime", "table",
    )  # fmt: skip

    def __init__(self, table: MsgTable, key: int, flags: int, task: Task) -> None:
        super().__init__(key, flags, task.cred)
        self.table = table
        self.stime = self.rtime = self.lspid = self.lrpid = 0
        self.cbytes = 0
        #: msg_qbytes.
        self.limit = table.mnb
        self.messages: deque[Message] = deque()
        self.receivers: dict[Receiver, None] = {}
        #: Woken when there may be room.
        self.senders = WaitQueue()

    def pack(self, cred: Credentials) -> bytes:
        """struct msqid64_ds."""
        return MSQID_DS.pack(
            *self.perm(cred), self.stime, self.rtime, self.ctime, self.cbytes, len(self.messages), self.limit,
            self.lspid, self.lrpid, 0, 0,
        )  # fmt: skip

    def fits(self, size: int) -> bool:
        return size + self.cbytes <= self.limit and 1 + len(self.messages) <= self.limit

    def send(self, message: Message, pid: int) -> None:
        """Give the message, which counts in `memory`, to who waits for it, or put it into the queue that has
        room."""
        self.lspid, self.stime = pid, now()
        size = len(message.data)
        for receiver in list(self.receivers):
            if not receiver.wish.wants(message):
                continue
            del self.receivers[receiver]
            if size > receiver.room:
                receiver.end(errno.E2BIG)
                continue
            self.lrpid, self.rtime = receiver.pid, now()
            receiver.end(message)
            memory.charge(-size - HEAD)
            return
        self.messages.append(message)
        self.cbytes += size

    def find(self, wish: Wish) -> Message | None:
        """The message that `wish` means now."""
        if wish.how == NUMBER:
            if not 0 <= wish.kind < len(self.messages):
                return None
            numbered: Message = self.messages[wish.kind]
            return numbered
        best: Message | None = None
        for message in self.messages:
            if wish.wants(message) and (best is None or message.kind < best.kind):
                best = message
                if wish.how != AT_MOST:
                    break
        return best

    def take(self, message: Message, pid: int) -> None:
        """Remove the message, which `pid` receives."""
        if self.messages[0] is message:
            self.messages.popleft()
        else:
            self.messages.remove(message)
        self.cbytes -= len(message.data)
        memory.charge(-len(message.data) - HEAD)
        self.lrpid, self.rtime = pid, now()
        self.senders.wake()

    def settings_changed(self) -> None:
        """IPC_SET: who sleeps looks again whether it may, and whether there is room."""
        self.expel(errno.EAGAIN)
        self.senders.wake()

    def expel(self, number: int) -> None:
        """End the sleep of all receivers with an errno."""
        receivers, self.receivers = self.receivers, {}
        for receiver in receivers:
            receiver.end(number)


class MsgTable(IpcIds):
    """The queues of one namespace and their limits."""

    __slots__ = ("max", "mnb", "mni")

    def __init__(self) -> None:
        super().__init__()
        self.max, self.mnb, self.mni = MSGMAX, MSGMNB, MSGMNI

    def get_queue(self, task: Task, key: int, flags: int) -> int:
        """msgget(2)."""

        def make() -> MsgQueue:
            self.check_room(self.mni)
            memory.charge(QUEUE)
            return MsgQueue(self, key, flags, task)

        return self.get(key, flags, task.cred, make, lambda found: None)

    def destroy(self, queue: MsgQueue) -> None:
        """IPC_RMID."""
        self.remove(queue)
        queue.expel(errno.EIDRM)
        queue.senders.wake()
        memory.charge(-queue.cbytes - HEAD * len(queue.messages) - QUEUE)
        queue.messages.clear()

    def queues(self) -> list[MsgQueue]:
        return [queue for queue in self if isinstance(queue, MsgQueue)]

    def totals(self) -> tuple[int, int]:
        """(messages, bytes) in all queues."""
        queues = self.queues()
        return sum(len(queue.messages) for queue in queues), sum(queue.cbytes for queue in queues)

    def close(self) -> None:
        """The namespace is gone."""
        for queue in self.queues():
            self.destroy(queue)

    def listing(self, cred: Credentials) -> bytes:
        """/proc/sysvipc/msg."""
        lines = [
            b"       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid"
            b"      stime      rtime      ctime\n"
        ]
        for queue in self.queues():
            lines.append(
                b"%10d %10d  %4o  %10u %10u %5u %5u %5u %5u %5u %5u %10u %10u %10u\n" % (
                    queue.key, queue.id, queue.mode, queue.cbytes, len(queue.messages), queue.lspid,
                    queue.lrpid, *queue.ids(cred), queue.stime, queue.rtime,
                    queue.ctime,
                )
            )  # fmt: skip
        return b"".join(lines)
