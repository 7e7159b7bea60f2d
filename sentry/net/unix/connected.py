"""Connections of AF_UNIX: listen(2), connect(2) and accept(2) of stream and sequenced-packet sockets.

connect makes the other end itself, an *embryo* that stands in the listening socket's row until somebody
accepts it; both ends may be used at once.
"""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.poll import POLLIN, POLLOUT, POLLPRI, POLLRDBAND, POLLRDNORM
from sentry.abi.socket import (
    RCV_SHUTDOWN,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
)
from sentry.kernel.wait import ALL_EVENTS
from sentry.net.socket import SOMAXCONN
from sentry.net.unix import names
from sentry.net.unix.sock import ODD_EMBRYO, UnixSock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.task import Task


class ConnectedSock(UnixSock):
    """`row`: who has connected to this listening socket, in order."""

    __slots__ = ()

    @property
    def hot(self) -> Any:
        return self.c

    def listen(self, task: Task, backlog: int) -> None:
        if not self.c.name_size:
            raise SysError(errno.EINVAL)
        if self.state not in (TCP_CLOSE, TCP_LISTEN):
            raise SysError(errno.EINVAL)
        backlog = min(backlog, SOMAXCONN) if backlog >= 0 else SOMAXCONN
        if backlog > self.backlog:
            self.peer_queue.wake(ALL_EVENTS)
        self.backlog = backlog
        self.state = TCP_LISTEN
        self.note_peer(task)

    async def connect(self, task: Task, address: bytes, nonblock: bool) -> None:
        names.check(address)
        self.autobind_for_creds()
        deadline = self.send_deadline(nonblock)
        while True:
            other = await names.find(task, self.names, address, self.type)
            if other.state != TCP_LISTEN or other.c.shutdown & RCV_SHUTDOWN:
                raise SysError(errno.ECONNREFUSED)
            if not other.is_full:
                break
            await self.sleep(POLLOUT, deadline, other.peer_queue)
        if self.state != TCP_CLOSE:
            raise SysError(errno.EISCONN if self.state == TCP_ESTABLISHED else errno.EINVAL)
        assert isinstance(other, ConnectedSock)
        other.arrive(self._make_embryo(task, other))

    def _make_embryo(self, task: Task, other: ConnectedSock) -> UnixSock:
        """The other end of this connection."""
        embryo: UnixSock = type(self)(self.names)  # type: ignore[call-arg, arg-type]
        embryo.set_peer(self)
        embryo.state = self.state = TCP_ESTABLISHED
        embryo.c.odd |= ODD_EMBRYO
        embryo.note_peer(task)
        embryo.set_name(other.name())
        embryo.place = other.place
        self.peer_cred = other.peer_cred
        self.set_peer(embryo)
        return embryo

    def arrive(self, embryo: UnixSock) -> None:
        self.row.append(embryo)
        self.c.count = len(self.row)
        self.queue.wake(POLLIN | POLLPRI | POLLRDNORM | POLLRDBAND)

    async def accept(self, task: Task, nonblock: bool) -> UnixSock:
        if self.state != TCP_LISTEN:
            raise SysError(errno.EINVAL)
        deadline = self.receive_deadline(nonblock)
        while True:
            self.check_error()
            if self.row:
                return self._accept()
            if deadline != 0 and self.c.shutdown & RCV_SHUTDOWN:
                raise SysError(errno.EINVAL)
            await self.sleep(POLLIN, deadline)

    def _accept(self) -> UnixSock:
        embryo: UnixSock = self.row.popleft()
        self.c.count = len(self.row)
        self.peer_queue.wake(ALL_EVENTS, 1)
        mine, its = self.options, embryo.options
        its.passcred, its.passpidfd, its.passsec = mine.passcred, mine.passpidfd, mine.passsec
        embryo.c.odd = 0
        embryo.options_changed()
        return embryo

    def release(self, embryo: bool = False) -> None:
        row = list(self.row)
        self.row.clear()
        self.c.count -= len(row)
        super().release(embryo)
        for waiting in row:
            waiting.release(True)


assert lib.UNIX_LISTEN == TCP_LISTEN
