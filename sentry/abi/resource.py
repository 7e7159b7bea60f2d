"""Resource limits and usage (getrlimit(2), getrusage(2))."""

from __future__ import annotations

from _struct import Struct

RLIMIT_CPU = 0
RLIMIT_FSIZE = 1
RLIMIT_DATA = 2
RLIMIT_STACK = 3
RLIMIT_CORE = 4
RLIMIT_RSS = 5
RLIMIT_NPROC = 6
RLIMIT_NOFILE = 7
RLIMIT_MEMLOCK = 8
RLIMIT_AS = 9
RLIMIT_LOCKS = 10
RLIMIT_SIGPENDING = 11
RLIMIT_MSGQUEUE = 12
RLIMIT_NICE = 13
RLIMIT_RTPRIO = 14
RLIMIT_RTTIME = 15
RLIM_NLIMITS = 16

RLIM_INFINITY = 0xFFFF_FFFF_FFFF_FFFF

RLIMIT = Struct("<QQ")
#: utime, stime (timeval each), maxrss in KiB, then 13 longs that Linux mostly leaves 0.
RUSAGE = Struct("<qqqq 14q")
RUSAGE_SELF = 0
RUSAGE_CHILDREN = -1
RUSAGE_THREAD = 1
