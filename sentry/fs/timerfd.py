"""timerfd_create(2): a timer that is read.

One scheduler timer is armed for the next expiry; an interval timer is not armed again before its
file is read or asked (then what was missed is counted at once), so nobody is woken for nothing.
Times inside are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

import errno
import time
from time import monotonic_ns

from sentry.abi.epoll import TFD_TIMER_ABSTIME
from sentry.abi.errors import SysError
from sentry.abi.poll import POLLIN, POLLRDNORM
from sentry.abi.time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
    NS,
)
from sentry.fs.anon import AnonFile, anon_inode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.wait import Scheduler, Timer

CLOCKS = (CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)
#: As far ahead as a timer can be (the kernel's KTIME_MAX).
FAR = 0x7FFFFFFFFFFFFFFF


def _now(clock: int) -> int:
    if clock in (CLOCK_REALTIME, CLOCK_REALTIME_ALARM):
        return time.time_ns()
    if clock in (CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM):
        return time.clock_gettime_ns(CLOCK_BOOTTIME)
    return monotonic_ns()


class TimerFile(AnonFile):
    __slots__ = ("_due", "_flags", "_interval", "_scheduler", "_ticks", "_timer", "clock")

    def __init__(self, clock: int, flags: int, scheduler: Scheduler) -> None:
        inode, path = anon_inode(b"[timerfd]")
        super().__init__(inode, 2 | flags, path)
        self.clock = clock
        self._scheduler = scheduler
        self._timer: Timer | None = None
        #: When the armed expiry is due, or was; 0: disarmed.
        self._due = 0
        self._interval = 0
        self._ticks = 0
        #: As given to timerfd_settime(2).
        self._flags = 0

    def release(self) -> None:
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._due < FAR:
            self._timer = self._scheduler.at(self._due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._ticks += 1
        self.queue.wake(POLLIN | POLLRDNORM)

    def _catch_up(self) -> None:
        """Count the intervals that passed since an expiry, and arm the next one."""
        if self._timer is None and self._due and self._due <= monotonic_ns():
            if not self._ticks:
                # Due, but the loop had no time yet to say so.
                self._ticks = 1
            if self._interval:
                missed = (monotonic_ns() - self._due) // self._interval
                self._ticks += missed
                self._due += (missed + 1) * self._interval
                self._arm()
            else:
                self._due = 0

    def settime(self, flags: int, interval: int, value: int) -> tuple[int, int]:
        """timerfd_settime(2), in nanoseconds; (interval, time left) of before."""
        old = self.gettime()
        self._cancel()
        self._ticks = 0
        self._interval = interval
        self._flags = flags
        self._due = 0
        if value:
            now = monotonic_ns()
            ahead = value - _now(self.clock) if flags & TFD_TIMER_ABSTIME else value
            self._due = min(now + max(ahead, 0), FAR)
            self._arm()
        return old

    def gettime(self) -> tuple[int, int]:
        """(interval, time left) in nanoseconds; 0 left: disarmed."""
        self._catch_up()
        left = max(self._due - monotonic_ns(), 1) if self._due else 0
        return self._interval, left

    def fdinfo(self) -> bytes:
        """/proc/PID/fdinfo."""
        interval, left = self.gettime()
        return b"clockid: %d\nticks: %d\nsettime flags: 0%o\nit_value: (%d, %d)\nit_interval: (%d, %d)\n" % (
            self.clock,
            self._ticks,
            self._flags,
            *divmod(left, NS),
            *divmod(interval, NS),
        )

    def poll(self) -> int:
        return POLLIN | POLLRDNORM if self._ticks else 0

    async def read(self, size: int) -> bytes:
        if size < 8:
            raise SysError(errno.EINVAL)
        if not self._ticks:
            raise SysError(errno.EAGAIN)
        self._catch_up()
        ticks, self._ticks = self._ticks, 0
        return ticks.to_bytes(8, "little")
