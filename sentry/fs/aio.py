"""Asynchronous I/O contexts (io_setup(2)).

As on Linux with buffered files, an operation is done when io_submit(2) returns; only polls go on for longer.
A context belongs to an address space: its id is the address of a page there, which on Linux has the ring of
completed events.  Ours stays empty, so that libaio asks the kernel.
"""

from __future__ import annotations

import errno
from _collections import deque
from _struct import Struct

from sentry.abi.errors import SysError
from sentry.abi.poll import POLLERR, POLLHUP
from sentry.kernel.wait import Entry, WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.eventfd import EventFile
    from sentry.fs.file import File

#: data obj res res2
IO_EVENT = Struct("<QQqq")
#: data key rw_flags opcode reqprio fd buf nbytes offset reserved2 flags resfd
IOCB = Struct("<QIIHhIQQqQII")


#: Requests of all contexts, whatever aio-max-nr says: they are the Sentry's own memory.
MOST = 1 << 20


class Limits:
    """/proc/sys/fs/aio-nr and aio-max-nr: requests of all contexts."""

    def __init__(self) -> None:
        self.used, self.most = 0, 65536

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
        self._queue.remove(self._entry)
        self._context.polls.pop(self, None)
        self._file.put()


class AioContext:
    """struct kioctx."""

    __slots__ = ("addr", "dead", "events", "polls", "queue", "room")

    def __init__(self, addr: int, room: int) -> None:
        self.addr = addr
        #: How many operations may be under way or completed and not fetched.
        self.room = room
        limits.used += room
        self.events: deque[bytes] = deque()
        #: In order of arrival; several may have the same iocb.
        self.polls: dict[Poll, None] = {}
        self.queue = WaitQueue()
        self.dead = False

    @property
    def full(self) -> bool:
        return len(self.events) + len(self.polls) >= self.room

    def poll_of(self, obj: int) -> Poll:
        """The poll that was submitted last with the iocb at the address `obj`; SysError(EINVAL)."""
        for poll in reversed(self.polls):
            if poll.obj == obj:
                return poll
        raise SysError(errno.EINVAL)

    def complete(self, data: int, obj: int, result: int, eventfd: EventFile | None) -> None:
        """An operation is done, with a count or a negative errno."""
        self.events.append(IO_EVENT.pack(data, obj, result, 0))
        if eventfd is not None:
            eventfd.signal(1)
        self.queue.wake()

    def destroy(self) -> None:
        if not self.dead:
            self.dead = True
            limits.used -= self.room
            for poll in list(self.polls):
                poll.end()
            self.queue.wake()


class AioTable(dict[int, AioContext]):
    """The contexts of one address space by id."""

    def find(self, number: int) -> AioContext:
        """SysError(EINVAL)."""
        context = self.get(number)
        if context is None:
            raise SysError(errno.EINVAL)
        return context

    def close(self) -> None:
        """The address space is gone."""
        for context in self.values():
            context.destroy()
        self.clear()
