"""Numbers and layouts of epoll(7), eventfd(2), timerfd_create(2) and signalfd(2)."""

from __future__ import annotations

from _struct import Struct

EPOLL_CTL_ADD = 1
EPOLL_CTL_DEL = 2
EPOLL_CTL_MOD = 3
EPOLL_CLOEXEC = 0o2000000

EPOLLIN = 0x001
EPOLLPRI = 0x002
EPOLLOUT = 0x004
EPOLLERR = 0x008
EPOLLHUP = 0x010
EPOLLNVAL = 0x020
EPOLLRDNORM = 0x040
EPOLLRDBAND = 0x080
EPOLLWRNORM = 0x100
EPOLLWRBAND = 0x200
EPOLLMSG = 0x400
EPOLLRDHUP = 0x2000
EPOLLEXCLUSIVE = 1 << 28
EPOLLWAKEUP = 1 << 29
EPOLLONESHOT = 1 << 30
EPOLLET = 1 << 31
#: Bits that change how an event is reported, not which.
EPOLL_PRIVATE = EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET
#: What may stand beside EPOLLEXCLUSIVE (fs/eventpoll.c, EPOLLEXCLUSIVE_OK_BITS).
EPOLL_EXCLUSIVE_OK = (
    EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE
)  # fmt: skip

#: struct epoll_event, packed on x86-64: events, data.
EPOLL_EVENT = Struct("<IQ")
#: INT_MAX / sizeof(struct epoll_event).
EPOLL_MAX_EVENTS = 0x7FFFFFFF // 12

EFD_SEMAPHORE = 1
EFD_CLOEXEC = 0o2000000
EFD_NONBLOCK = 0o4000

TFD_TIMER_ABSTIME = 1
TFD_TIMER_CANCEL_ON_SET = 2
TFD_CLOEXEC = 0o2000000
TFD_NONBLOCK = 0o4000

SFD_CLOEXEC = 0o2000000
SFD_NONBLOCK = 0o4000
#: struct signalfd_siginfo: signo errno code pid uid fd tid band overrun trapno status int ptr utime
#: stime addr addr_lsb, padded to 128 bytes.
SIGNALFD_SIGINFO = Struct("<IiiIIiIIIIiiQQQQH46x")
