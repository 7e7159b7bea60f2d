"""signalfd(2): pending signals of whoever reads, as records.

Like Linux, the file has no owner: a read, a poll and a wait concern the signals of the task that
makes them, so `queue` is that task's.
"""

from __future__ import annotations

import errno

from sentry.abi.epoll import SIGNALFD_SIGINFO
from sentry.abi.errors import SysError
from sentry.abi.poll import POLLIN, POLLRDNORM
from sentry.fs.anon import AnonFile, anon_inode
from sentry.kernel import wait
from sentry.kernel.wait import WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.abi.signal import SigInfo


class SignalFile(AnonFile):
    __slots__ = ("_own_queue", "mask")

    def __init__(self, mask: int, flags: int) -> None:
        inode, path = anon_inode(b"[signalfd]")
        super().__init__(inode, 2 | flags, path)
        self.mask = mask

    @property
    def queue(self) -> WaitQueue:
        task = _task()
        queue: WaitQueue = self._own_queue if task is None else task.group.signal_queue
        return queue

    @queue.setter
    def queue(self, queue: WaitQueue) -> None:
        self._own_queue = queue

    def set_mask(self, mask: int) -> None:
        """signalfd(2) on an existing file."""
        self.mask = mask
        self.queue.wake(POLLIN | POLLRDNORM)

    def fdinfo(self) -> bytes:
        """/proc/PID/fdinfo."""
        return b"sigmask:\t%016x\n" % self.mask

    def poll(self) -> int:
        task = _task()
        return POLLIN | POLLRDNORM if task is not None and task.pending_bits() & self.mask else 0

    async def read(self, size: int) -> bytes:
        records: list[bytes] = []

        def store(record: bytes, _at: int) -> int:
            records.append(record)
            return len(record)

        await self.read_to(size, store)
        return b"".join(records)

    async def read_to(self, size: int, store: Callable[..., int]) -> int:
        """One after the other: a signal that a bad buffer has no room for is lost, the next ones stay."""
        count = size // SIGNALFD_SIGINFO.size
        if not count:
            raise SysError(errno.EINVAL)
        task = _task()
        done = 0
        while task is not None and done < count * SIGNALFD_SIGINFO.size:
            info = task.take_signal(self.mask)
            if info is None:
                break
            try:
                stored: int = store(pack(info), done)
            except SysError:
                stored = 0
            if stored < SIGNALFD_SIGINFO.size:
                if not done:
                    raise SysError(errno.EFAULT)
                break
            done += stored
        if not done:
            raise SysError(errno.EAGAIN)
        return done


def _task() -> Any:
    runner = wait._current
    return runner if hasattr(runner, "pending_bits") else None


def pack(info: SigInfo) -> bytes:
    """struct signalfd_siginfo of `info`."""
    value = info.value
    return SIGNALFD_SIGINFO.pack(
        info.signo, info.errno, info.code, info.pid & 0xFFFFFFFF, info.uid & 0xFFFFFFFF, 0,
        info.timerid & 0xFFFFFFFF, 0, info.overrun & 0xFFFFFFFF, 0, info.status,
        (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000,
        value & 0xFFFFFFFFFFFFFFFF, info.utime, info.stime, info.addr, 0,
    )  # fmt: skip
