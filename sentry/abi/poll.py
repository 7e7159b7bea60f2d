"""Bits of poll(2) and layouts of the poll and select families."""

from __future__ import annotations

from _struct import Struct

POLLIN = 0x001
POLLPRI = 0x002
POLLOUT = 0x004
POLLERR = 0x008
POLLHUP = 0x010
POLLNVAL = 0x020
POLLRDNORM = 0x040
POLLRDBAND = 0x080
POLLWRNORM = 0x100
POLLWRBAND = 0x200
POLLMSG = 0x400
POLLRDHUP = 0x2000
#: Reported whether asked for or not.
POLLALWAYS = POLLERR | POLLHUP
#: What a file that is always ready shows.
POLLREADY = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM

#: struct pollfd: fd, events, revents.
POLLFD = Struct("<ihH")
#: The last argument of pselect6: pointer to the mask, its size.
SIGSET_ARG = Struct("<QQ")

#: What makes a descriptor count in select's three sets (fs/select.c).
SELECT_IN = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR
SELECT_OUT = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR
SELECT_EX = POLLPRI
