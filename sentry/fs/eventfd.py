"""eventfd(2): a counter to wait for.  It stands in C, where most reads and writes are served too."""

from __future__ import annotations

import errno

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.poll import POLLERR, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from sentry.fs.anon import AnonFile, anon_inode
from sentry.platform.queue import SharedQueue

MAX = 0xFFFFFFFFFFFFFFFE


class EventFile(AnonFile):
    """`event` is a struct eventfd (csrc/abi/queue.h)."""

    __slots__ = ("_id", "event")
    _last_id = -1

    def __init__(self, count: int, semaphore: bool, flags: int) -> None:
        inode, path = anon_inode(b"[eventfd]")
        super().__init__(inode, 2 | flags, path)
        event = lib.eventfd_new(count, semaphore)
        if not event:
            raise SysError(errno.ENOMEM)
        EventFile._last_id += 1
        self._id = EventFile._last_id
        self.event = event = ffi.gc(event, lib.eventfd_free)
        self.queue = SharedQueue(ffi.addressof(event, "queue"), event)
        self.c.object = event
        self.c.kind = lib.VFILE_EVENTFD

    def fdinfo(self) -> bytes:
        """/proc/PID/fdinfo."""
        return b"eventfd-count: %16x\neventfd-id: %d\neventfd-semaphore: %d\n" % (
            self.count,
            self._id,
            self.semaphore,
        )

    @property
    def count(self) -> int:
        count: int = self.event.count
        return count

    @property
    def semaphore(self) -> bool:
        return bool(self.event.semaphore)

    def poll(self) -> int:
        # Linux's eventfd shows POLLIN and POLLOUT only.
        count = self.event.count
        return (POLLIN if count else 0) | (POLLOUT if count < MAX else 0) | (POLLERR if count > MAX else 0)

    async def read(self, size: int) -> bytes:
        if size < 8:
            raise SysError(errno.EINVAL)
        event = self.event
        if not event.count:
            raise SysError(errno.EAGAIN)
        value: int = 1 if event.semaphore else event.count
        event.count -= value
        self.queue.wake(POLLOUT | POLLWRNORM)
        return value.to_bytes(8, "little")

    async def write(self, data: bytes) -> int:
        if len(data) != 8:
            raise SysError(errno.EINVAL)
        value = int.from_bytes(data, "little")
        if value > MAX:
            raise SysError(errno.EINVAL)
        if self.event.count + value > MAX:
            raise SysError(errno.EAGAIN)
        self.signal(value)
        return 8

    def signal(self, value: int) -> None:
        """Add to the counter from inside the kernel."""
        self.event.count = min(self.event.count + value, MAX + 1)
        self.queue.wake(POLLIN | POLLRDNORM)
