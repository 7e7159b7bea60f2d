"""Calls that may wait for the host's disk, made by C threads (csrc/engine/pool.c).

The loop must never wait for a disk.  Whoever reads a host file tries `preadv2(RWF_NOWAIT)` first and
comes here only for what is not in the page cache.  `start` runs before lock-down, since it makes
threads; the sleep cannot be interrupted, as for a disk on Linux.
"""

from __future__ import annotations

import errno

from sentry._engine import ffi, lib
from sentry.abi.epoll import EPOLLIN
from sentry.abi.errors import SysError
from sentry.kernel.wait import WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.platform.base import Platform

THREADS = 2


def start() -> int:
    """Start the threads; the descriptor that tells of results.  OSError."""
    fd: int = lib.pool_start(THREADS)
    if fd < 0:
        raise OSError(-fd, "cannot start the pool's threads")
    return fd


class _Job:
    __slots__ = ("buffer", "queue", "result")

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer
        self.queue = WaitQueue()
        self.result: int | None = None


class Pool:
    def __init__(self, fd: int, platform: Platform) -> None:
        """`fd`: what `start` returned."""
        self._jobs: dict[int, _Job] = {}
        self._last = 0
        self._result = ffi.new("int64_t *")
        self._room = WaitQueue()
        platform.watch(fd, EPOLLIN, self._on_results)

    def _on_results(self, _events: int) -> None:
        while token := lib.pool_take(self._result):
            job = self._jobs.pop(token, None)
            if job is not None:  # else a memfd that somebody let go (sentry/fs/tmpfs/regular.py)
                job.result = self._result[0]
                job.queue.wake()
            self._room.wake()

    async def _run(self, kind: int, fd: int, size: int, offset: int) -> tuple[int, bytearray]:
        """Wait for one call; the caller keeps `fd` open meanwhile.  SysError."""
        self._last += 1
        token, job = self._last, _Job(bytearray(size))
        keep: Any = ffi.from_buffer("char[]", job.buffer)
        self._jobs[token] = job
        while (error := lib.pool_submit(kind, fd, keep, size, offset, token)) == -errno.EAGAIN:
            await block((self._room, 1), interruptible=False, killable=False)
        if error:
            del self._jobs[token]
            raise SysError(-error)
        while job.result is None:
            await block((job.queue, 1), interruptible=False, killable=False)
        del keep
        if job.result < 0:
            raise SysError(-job.result)
        return job.result, job.buffer

    async def pread(self, fd: int, size: int, offset: int) -> bytes:
        """pread(2)."""
        count, buffer = await self._run(lib.POOL_PREAD, fd, size, offset)
        return bytes(memoryview(buffer)[:count])

    async def fsync(self, fd: int) -> None:
        """fsync(2)."""
        await self._run(lib.POOL_FSYNC, fd, 0, 0)
