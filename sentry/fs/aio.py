"""Asynchronous I/O contexts (io_setup(2)).

As on Linux with buffered files, an operation is done when io_submit(2) returns; only polls go on for longer.
A context belongs to an address space: its id is the address there of the ring of completed events, shared
memory from which programs may take them without a call (libaio's io_getevents, fio).  So the ring is all that
is known of them here; what programs write to it, `head` above all, is believed only as far as it makes sense.
"""

from __future__ import annotations

import errno
import os
from _struct import Struct

from sentry.abi.errors import SysError
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.poll import POLLERR, POLLHUP
from sentry.kernel.wait import Entry, WaitQueue
from sentry.mm.shared import Ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.eventfd import EventFile
    from sentry.fs.file import File
    from sentry.mm.manager import MemoryManager

#: data obj res res2
IO_EVENT = Struct("<QQqq")
#: data key rw_flags opcode reqprio fd buf nbytes offset reserved2 flags resfd
IOCB = Struct("<QIIHhIQQqQII")
#: struct aio_ring before its events: id, nr, head, tail, magic, compatible and other features, its own size.
RING = Struct("<8I")
RING_MAGIC = 0xA10A10A1
_ENDS = Struct("<II")
_TAIL = Struct("<I")
_HEAD_AT, _TAIL_AT = 8, 12
#: No ring has more.
MOST_EVENTS = 0x10000000 // IO_EVENT.size

#: Requests of all contexts, whatever aio-max-nr says: they are the Sentry's own memory.
MOST = 1 << 20


class Limits:
    """/proc/sys/fs/aio-nr and aio-max-nr: requests of all contexts."""

    def __init__(self) -> None:
        self.used, self.most = 0, 65536
        #: Polls under way: rings have room for more than was asked for.
        self.polls = 0

    def check(self, count: int) -> None:
        """SysError(EAGAIN) when `count` more would be too many."""
        if self.used + count > min(self.most, MOST):
            raise SysError(errno.EAGAIN)


limits = Limits()


class Poll:
    """An IOCB_CMD_POLL under way."""

    __slots__ = ("_context", "_data", "_entry", "_eventfd", "_file", "_mask", "_queue", "obj")

    def __init__(
        self, context: AioContext, file: File, mask: int, data: int, obj: int, eventfd: EventFile | None
    ) -> None:
        if limits.polls >= MOST:
            raise SysError(errno.EAGAIN)
        limits.polls += 1
        self._context = context
        self._file = file.get()
        self._mask = mask | POLLERR | POLLHUP
        self._data, self.obj, self._eventfd = data, obj, eventfd
        self._entry = Entry(self._on_event, self._mask)
        self._queue = file.queue
        context.polls[self] = None
        self._queue.add(self._entry)
        self._on_event(0)

    def _on_event(self, events: int) -> None:
        # Who is woken tells all that there is; who looks by himself keeps to what was asked for.
        ready = self._file.poll()
        if ready & self._mask and self in self._context.polls:
            self.end()
            self._context.complete(
                self._data, self.obj, ready if events else ready & self._mask, self._eventfd
            )

    def cancel(self) -> None:
        """io_cancel(2): it ends without having seen anything."""
        self.end()
        self._context.complete(self._data, self.obj, 0, self._eventfd)

    def end(self) -> None:
        limits.polls -= 1
        self._queue.remove(self._entry)
        self._context.polls.pop(self, None)
        self._file.put()


class AioContext:
    """struct kioctx."""

    __slots__ = ("_completed", "_held", "_room", "_tail", "dead", "polls", "queue", "ring", "slots")

    def __init__(self, mm: MemoryManager, room: int, cpus: int) -> None:
        """`room`: for so many requests it is made; how many fit depends on `cpus` and pages.

        SysError(EINVAL, EAGAIN, ENOMEM)."""
        events = 2 * max(room, 4 * cpus) & 0xFFFFFFFF
        if events > MOST_EVENTS:
            raise SysError(errno.EINVAL)
        if not events or room > limits.most:
            raise SysError(errno.EAGAIN)
        limits.check(room)
        size = -(-(RING.size + (events + 2) * IO_EVENT.size) // PAGE_SIZE) * PAGE_SIZE
        self.ring = Ring(size, mm)
        limits.used += room
        self._room = room
        #: One of them is always free; so that many requests may be under way, or completed and not fetched.
        self.slots = (size - RING.size) // IO_EVENT.size
        self._tail = 0
        #: Requests that have a slot, and of these the completed.
        self._held = self._completed = 0
        #: In order of arrival; several may have the same iocb.
        self.polls: dict[Poll, None] = {}
        self.queue = WaitQueue()
        self.dead = False

    def publish(self, number: int) -> None:
        """It is number `number` of its address space."""
        header = RING.pack(number, self.slots, 0, 0, RING_MAGIC, 1, 0, RING.size)
        os.pwrite(self.ring.host_fd, header, 0)

    def _ends(self) -> tuple[int, int]:
        """Head and tail as the ring has them now: anything."""
        head, tail = _ENDS.unpack(os.pread(self.ring.host_fd, _ENDS.size, _HEAD_AT))
        return head, tail

    def take_slot(self) -> None:
        """For a request that is submitted.  SysError(EAGAIN, EINVAL)."""
        if self.dead:
            raise SysError(errno.EINVAL)
        if self._held >= self.slots - 1:
            waiting = (self._tail - self._ends()[0] % self.slots) % self.slots
            fetched = max(0, self._completed - waiting)
            self._completed -= fetched
            self._held -= fetched
        if self._held >= self.slots - 1:
            raise SysError(errno.EAGAIN)
        self._held += 1

    def give_back(self) -> None:
        """The request could not be submitted."""
        self._held -= 1

    def poll_of(self, obj: int) -> Poll:
        """The poll that was submitted last with the iocb at the address `obj`; SysError(EINVAL)."""
        for poll in reversed(self.polls):
            if poll.obj == obj:
                return poll
        raise SysError(errno.EINVAL)

    def complete(self, data: int, obj: int, result: int, eventfd: EventFile | None) -> None:
        """An operation is done, with a count or a negative errno."""
        if not self.dead:
            fd = self.ring.host_fd
            os.pwrite(fd, IO_EVENT.pack(data, obj, result, 0), RING.size + self._tail * IO_EVENT.size)
            self._tail = (self._tail + 1) % self.slots
            os.pwrite(fd, _TAIL.pack(self._tail), _TAIL_AT)
            self._completed += 1
        if eventfd is not None:
            eventfd.signal(1)
        self.queue.wake()

    def fetch(self, most: int) -> tuple[bytes, int]:
        """At most `most` completed events, and what `head` is once the caller has them."""
        if self.dead:
            return b"", 0
        head, tail = self._ends()
        if head == tail:
            return b"", head
        head, tail = head % self.slots, tail % self.slots
        found = b""
        while most and head != tail:
            count = min(most, (tail if head < tail else self.slots) - head)
            found += os.pread(self.ring.host_fd, count * IO_EVENT.size, RING.size + head * IO_EVENT.size)
            head = (head + count) % self.slots
            most -= count
        return found, head

    def advance(self, head: int) -> None:
        os.pwrite(self.ring.host_fd, _TAIL.pack(head), _HEAD_AT)

    def destroy(self) -> None:
        if not self.dead:
            self.dead = True
            self.ring.mm = None
            limits.used -= self._room
            for poll in list(self.polls):
                poll.end()
            self.ring.put()
            self.queue.wake()


class AioTable(dict[int, AioContext]):
    """The contexts of one address space by their numbers, which the rings have."""

    def enter(self, context: AioContext) -> None:
        number = 0
        while number in self:
            number += 1
        self[number] = context
        context.publish(number)

    def find(self, mm: MemoryManager, addr: int) -> tuple[int, AioContext]:
        """The context whose ring is at `addr`, and its number.  SysError(EINVAL)."""
        try:
            number = mm.read_u32(addr)
        except SysError:
            raise SysError(errno.EINVAL) from None
        context = self.get(number)
        if context is None or context.ring.addr != addr:
            raise SysError(errno.EINVAL)
        return number, context

    def close(self) -> None:
        """The address space is gone."""
        for context in self.values():
            context.destroy()
        self.clear()
