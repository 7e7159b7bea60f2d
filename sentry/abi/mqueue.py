"""POSIX message queues: limits and layouts (include/uapi/linux/mqueue.h, ipc/mqueue.c)."""

from __future__ import annotations

from _struct import Struct

MQ_PRIO_MAX = 32768
#: Bounds of the sysctls, and of what a caller with CAP_SYS_RESOURCE may ask for.
HARD_MSGMAX, HARD_MSGSIZEMAX = 65536, 16 << 20
MIN_MSGSIZEMAX = 128
#: mq_flags mq_maxmsg mq_msgsize mq_curmsgs
MQ_ATTR = Struct("<qqqq32x")
#: sigev_value sigev_signo sigev_notify
SIGEVENT = Struct("<Qii")
SIGEVENT_SIZE = 64
SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD = 0, 1, 2
SI_MESGQ = -3
#: SIGEV_THREAD: what the netlink socket is sent, with one of the codes as the last byte.
NOTIFY_COOKIE_LEN = 32
NOTIFY_WOKENUP, NOTIFY_REMOVED = 1, 2
MQUEUE_MAGIC = 0x19800202
#: st_size of each queue.
FILENT_SIZE = 80
