"""eventfd(2): a counter to wait for."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.poll import POLLERR, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from sentry.fs.anon import AnonFile, anon_inode

MAX = 0xFFFFFFFFFFFFFFFE


class EventFile(AnonFile):
    __slots__ = ("count", "semaphore")

    def __init__(self, count: int, semaphore: bool, flags: int) -> None:
        inode, path = anon_inode(b"[eventfd]")
        super().__init__(inode, 2 | flags, path)
        self.count = count
        self.semaphore = semaphore

    def poll(self) -> int:
        mask = 0
        if self.count:
            mask |= POLLIN | POLLRDNORM
        if self.count < MAX:
            mask |= POLLOUT | POLLWRNORM
        if self.count > MAX:
            mask |= POLLERR
        # Linux's eventfd shows POLLIN and POLLOUT only.
        return mask & (POLLIN | POLLOUT | POLLERR)

    async def read(self, size: int) -> bytes:
        if size < 8:
            raise SysError(errno.EINVAL)
        if not self.count:
            raise SysError(errno.EAGAIN)
        value = 1 if self.semaphore else self.count
        self.count -= value
        self.queue.wake(POLLOUT | POLLWRNORM)
        return value.to_bytes(8, "little")

    async def write(self, data: bytes) -> int:
        if len(data) != 8:
            raise SysError(errno.EINVAL)
        value = int.from_bytes(data, "little")
        if value > MAX:
            raise SysError(errno.EINVAL)
        if self.count + value > MAX:
            raise SysError(errno.EAGAIN)
        self.signal(value)
        return 8

    def signal(self, value: int) -> None:
        """Add to the counter from inside the kernel."""
        self.count = min(self.count + value, MAX + 1)
        self.queue.wake(POLLIN | POLLRDNORM)
