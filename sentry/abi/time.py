"""Clocks and the structs that carry times (time(7), clock_gettime(2), getitimer(2))."""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi.errors import SysError

CLOCK_REALTIME = 0
CLOCK_MONOTONIC = 1
CLOCK_PROCESS_CPUTIME_ID = 2
CLOCK_THREAD_CPUTIME_ID = 3
CLOCK_MONOTONIC_RAW = 4
CLOCK_REALTIME_COARSE = 5
CLOCK_MONOTONIC_COARSE = 6
CLOCK_BOOTTIME = 7
CLOCK_REALTIME_ALARM = 8
CLOCK_BOOTTIME_ALARM = 9
CLOCK_TAI = 11

#: A negative clock id is ~pid << 3 | kind: bit 2 set for one thread, bits 0-1 say what is counted.
CPUCLOCK_PERTHREAD = 4
CPUCLOCK_PROF = 0
CPUCLOCK_VIRT = 1
CPUCLOCK_SCHED = 2
CLOCKFD = 3

TIMER_ABSTIME = 1

ITIMER_REAL = 0
ITIMER_VIRTUAL = 1
ITIMER_PROF = 2

SIGEV_SIGNAL = 0
SIGEV_NONE = 1
SIGEV_THREAD = 2
SIGEV_THREAD_ID = 4

NS = 1_000_000_000
#: The kernel's ktime_t is a signed 64-bit count of nanoseconds; larger times are cut to this.
KTIME_MAX = 0x7FFF_FFFF_FFFF_FFFF
#: Length of a scheduler tick, hence the resolution of the _COARSE clocks (CONFIG_HZ=250).
TICK_NS = 4_000_000
USER_HZ = 100

TIMESPEC = Struct("<qq")
TIMEVAL = Struct("<qq")
ITIMERSPEC = Struct("<qqqq")
TIMEZONE = Struct("<ii")
TMS = Struct("<qqqq")
#: The head of struct sigevent (64 bytes): value, signo, notify, thread id.
SIGEVENT = Struct("<Qiii")
SIGEVENT_SIZE = 64
#: struct timex: modes offset freq maxerror esterror status constant precision tolerance time tick ppsfreq
#: jitter shift stabil jitcnt calcnt errcnt stbcnt tai, and 11 spare words.
TIMEX = Struct("<I4x qqqq i4x qqq qq q qq i4x qqqqq i 44x")
STA_UNSYNC = 0x40
TIME_ERROR = 5


def timespec_ns(seconds: int, nanoseconds: int) -> int:
    """Nanoseconds of a timespec from user space; SysError(EINVAL) as timespec64_valid() has it."""
    if seconds < 0 or not 0 <= nanoseconds < NS:
        raise SysError(errno.EINVAL)
    return min(seconds * NS + nanoseconds, KTIME_MAX)


def unpack_timespec(data: bytes) -> int:
    """The same of a struct timespec."""
    return timespec_ns(*TIMESPEC.unpack(data))


def unpack_itimerspec(data: bytes) -> tuple[int, int]:
    """(interval, value) in nanoseconds of a struct itimerspec from user space; SysError(EINVAL)."""
    seconds, nanoseconds, value, rest = ITIMERSPEC.unpack(data)
    return timespec_ns(seconds, nanoseconds), timespec_ns(value, rest)


def timeval_ns(seconds: int, microseconds: int) -> int:
    """Nanoseconds of a timeval from user space; SysError(EINVAL)."""
    if seconds < 0 or not 0 <= microseconds < 1_000_000:
        raise SysError(errno.EINVAL)
    return min(seconds * NS + microseconds * 1000, KTIME_MAX)


def pack_timespec(ns: int) -> bytes:
    return TIMESPEC.pack(ns // NS, ns % NS)


def pack_itimerspec(interval: int, value: int) -> bytes:
    return ITIMERSPEC.pack(interval // NS, interval % NS, value // NS, value % NS)


def pack_timeval(ns: int) -> bytes:
    return TIMEVAL.pack(ns // NS, ns % NS // 1000)
