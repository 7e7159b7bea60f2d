"""The descriptor by which a supervisor answers calls for a filtered task (seccomp_unotify(2)).

A task that a filter hands over (SECCOMP_RET_USER_NOTIF) puts a `Notification` here and sleeps; whoever reads
it may answer, let the call go on, or install descriptors before.  A notification is NEW until it was read,
SENT until it was answered.
"""

from __future__ import annotations

import errno
from _struct import Struct
from os import urandom

from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_CLOEXEC
from sentry.abi.poll import POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from sentry.fs.anon import AnonFile, anon_inode
from sentry.kernel.wait import Interrupted, WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOTIF_RECV = 0xC050_2100
NOTIF_SEND = 0xC018_2101
NOTIF_ID_VALID = 0x4008_2102
NOTIF_ID_VALID_AS_FIRST = 0x8008_2102  # Linux 5.0 had the direction wrong
NOTIF_ADDFD = 0x4018_2103
NOTIF_SET_FLAGS = 0x4008_2104

#: struct seccomp_notif without its data: id, pid, flags.
NOTIF = Struct("<QII")
NOTIF_SIZE = 80
#: struct seccomp_notif_resp: id, val, error, flags.
RESPONSE = Struct("<QqiI")
#: struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags.
ADDFD = Struct("<QIIII")
FLAG_CONTINUE = 1
ADDFD_SETFD, ADDFD_SEND = 1, 2
FD_SYNC_WAKE_UP = 1

NEW, SENT, ANSWERED = range(3)
ERESTARTSYS = 512
RLIMIT_NOFILE = 7


class Notification:
    __slots__ = ("answer", "data", "id", "queue", "state", "task")

    def __init__(self, number: int, task: Any, data: bytes) -> None:
        self.id = number
        self.task = task
        #: struct seccomp_data.
        self.data = data
        self.state = NEW
        #: What the call returns; None: it is made after all.
        self.answer: int | None = None
        self.queue = WaitQueue()

    def reply(self, answer: int | None) -> None:
        self.answer = answer
        self.state = ANSWERED
        self.queue.wake()


class Listener(AnonFile):
    """`killable`: what has been read is only interrupted by what kills (WAIT_KILLABLE_RECV)."""

    __slots__ = ("_asking", "_last", "gone", "killable", "users")

    def __init__(self, killable: bool) -> None:
        inode, path = anon_inode(b"seccomp notify")
        super().__init__(inode, 2, path)
        self.queue = WaitQueue()
        self._asking: dict[int, Notification] = {}
        self._last = int.from_bytes(urandom(7), "little")
        self.killable = killable
        #: Tasks with the filter.
        self.users = 0
        #: Nobody can answer any more.
        self.gone = False

    def left(self) -> None:
        """A task that had the filter has it no more."""
        self.users -= 1
        if not self.users:
            self.queue.wake(POLLHUP)

    def release(self) -> None:
        self.gone = True
        for asking in list(self._asking.values()):
            asking.reply(-errno.ENOSYS)

    async def ask(self, task: Any, data: bytes) -> int | None:
        """What the supervisor says that a call returns; None: it is to be made.

        Interrupted at a signal: the call is restarted as any."""
        if self.gone:
            return -errno.ENOSYS
        self._last = self._last + 1 & 0xFFFF_FFFF_FFFF_FFFF
        asking = self._asking[self._last] = Notification(self._last, task, data)
        self.queue.wake(POLLIN | POLLRDNORM)
        try:
            while asking.state != ANSWERED:
                await block((asking.queue, 1), interruptible=not (self.killable and asking.state == SENT))
            return asking.answer
        except Interrupted:
            raise Interrupted(ERESTARTSYS) from None
        finally:
            del self._asking[asking.id]

    def poll(self) -> int:
        mask = 0
        for asking in self._asking.values():
            mask |= {NEW: POLLIN | POLLRDNORM, SENT: POLLOUT | POLLWRNORM}.get(asking.state, 0)
        return mask if self.users else mask | POLLHUP

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        if request == NOTIF_RECV:
            return await self._receive(task, arg)
        if request == NOTIF_SEND:
            return self._send(task, arg)
        if request in (NOTIF_ID_VALID, NOTIF_ID_VALID_AS_FIRST):
            self._sent(task.mm.read_u64(arg), errno.ENOENT)
            return 0
        if request == NOTIF_ADDFD:
            return self._add_fd(task, arg)
        if request == NOTIF_SET_FLAGS and not arg & ~FD_SYNC_WAKE_UP:
            return 0
        raise SysError(errno.EINVAL)

    def _sent(self, number: int, otherwise: int) -> Notification:
        """The notification, which waits for its answer; SysError(ENOENT, or `otherwise` if it doesn't)."""
        asking = self._asking.get(number)
        if asking is None:
            raise SysError(errno.ENOENT)
        if asking.state != SENT:
            raise SysError(otherwise)
        return asking

    async def _receive(self, task: Any, addr: int) -> int:
        if any(task.mm.read(addr, NOTIF_SIZE)):
            raise SysError(errno.EINVAL)
        while True:
            for asking in self._asking.values():
                if asking.state == NEW:
                    pid = asking.task.pid.nr(task.pid.ns)
                    task.mm.write(addr, NOTIF.pack(asking.id, pid, 0) + asking.data)
                    asking.state = SENT
                    if self.killable:
                        asking.queue.wake()
                    self.queue.wake(POLLOUT | POLLWRNORM)
                    return 0
            if not self.users:
                raise SysError(errno.ENOENT)
            await block((self.queue, POLLIN | POLLHUP))

    def _send(self, task: Any, addr: int) -> int:
        number, value, error, flags = RESPONSE.unpack(task.mm.read(addr, RESPONSE.size))
        if flags & ~FLAG_CONTINUE or (flags and (error or value)):
            raise SysError(errno.EINVAL)
        self._sent(number, errno.EINPROGRESS).reply(None if flags else error or value)
        return 0

    def _add_fd(self, task: Any, addr: int) -> int:
        number, flags, source, wanted, fd_flags = ADDFD.unpack(task.mm.read(addr, ADDFD.size))
        if fd_flags & ~O_CLOEXEC or flags & ~(ADDFD_SETFD | ADDFD_SEND):
            raise SysError(errno.EINVAL)
        if wanted and not flags & ADDFD_SETFD:
            raise SysError(errno.EINVAL)
        file = task.files.get(source)
        asking = self._sent(number, errno.EINPROGRESS)
        target = asking.task
        cloexec = bool(fd_flags)
        if flags & ADDFD_SETFD:
            if wanted >= target.group.limit(RLIMIT_NOFILE):
                raise SysError(errno.EBADF)
            target.files.replace(wanted, file.get(), cloexec)
        else:
            wanted = target.install(file.get(), cloexec)
        if flags & ADDFD_SEND:
            asking.reply(wanted)
        fd: int = wanted
        return fd
