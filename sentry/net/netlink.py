"""AF_NETLINK (netlink(7)), as far as mq_notify(3) goes: a socket that the kernel sends messages to.

There is no network that NETLINK_ROUTE could speak of, so nobody listens on the kernel's side: a request is
ECONNREFUSED, and the C library's functions for interfaces and addresses do without.
"""

from __future__ import annotations

import errno
from _collections import deque

from sentry.abi.errors import SysError
from sentry.abi.poll import POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from sentry.abi.socket import (
    AF_NETLINK,
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    NETLINK_ROUTE,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCKADDR_NL,
    TCP_CLOSE,
)
from sentry.kernel.wait import WaitQueue
from sentry.net.socket import RMEM_DEFAULT, WMEM_DEFAULT, Ancillary, Sock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.net.socket import Message, Sink, Source

#: What a short message costs its receiver (SKB_TRUESIZE).
_OVERHEAD = 768
#: Messages that all sockets together may hold: they are the Sentry's own memory.
MAX_MESSAGES = 65536
#: The highest of the port ids that are made up: -4097.
_LAST_MADE_UP = 0xFFFFEFFF


class Room:
    """Room for one message in the buffer of `sock`, until the message comes or this is forgotten."""

    __slots__ = ("_sock",)

    def __init__(self, sock: NetlinkSock) -> None:
        self._sock: NetlinkSock | None = sock

    def deliver(self, data: bytes) -> None:
        sock, self._sock = self._sock, None
        assert sock is not None
        sock.arrive(data)

    def __del__(self) -> None:
        if self._sock is not None:
            self._sock.give_back()


class NetlinkSock(Sock):
    __slots__ = ("_dead", "_messages", "_peer", "_port", "_ports", "_promised", "rcvbuf", "sndbuf", "state")
    family = AF_NETLINK
    proto_name = b"NETLINK"
    #: Of MAX_MESSAGES, how many are there or have room; and the last port id that was made up.
    _held = 0
    _rover = _LAST_MADE_UP + 1

    def __init__(self, ports: set[int], type_: int, protocol: int) -> None:
        super().__init__(type_, protocol, WaitQueue())
        self.rcvbuf, self.sndbuf, self.state = RMEM_DEFAULT, WMEM_DEFAULT, TCP_CLOSE
        #: The port ids in use in the namespace, and this socket's: 0 for none yet.
        self._ports = ports
        self._port = 0
        #: (port id, groups) that connect(2) named.
        self._peer = (0, 0)
        self._messages: deque[bytes] = deque()
        #: Messages that have been given room and are still to come.
        self._promised = 0
        self._dead = False

    def release(self) -> None:
        self._dead = True
        NetlinkSock._held -= len(self._messages)
        self._messages.clear()
        self._ports.discard(self._port)
        self.queue.wake(POLLOUT)

    # The kernel's side

    async def reserve(self) -> Room:
        """Room for one message (netlink_attachskb()); sleeps until there is.  SysError(ENOBUFS)."""
        deadline = self.send_deadline(False)
        while (len(self._messages) + self._promised) * _OVERHEAD > self.rcvbuf and not self._dead:
            await self.sleep(POLLOUT, deadline)
        if NetlinkSock._held >= MAX_MESSAGES:
            raise SysError(errno.ENOBUFS)
        NetlinkSock._held += 1
        self._promised += 1
        return Room(self)

    def give_back(self) -> None:
        NetlinkSock._held -= 1
        self._promised -= 1
        self.queue.wake(POLLOUT)

    def arrive(self, data: bytes) -> None:
        if self._dead:
            self.give_back()
            return
        self._promised -= 1
        self._messages.append(data)
        self.queue.wake(POLLIN | POLLRDNORM)

    # The program's side

    def _parse(self, address: bytes) -> tuple[int, int]:
        """(port id, groups) of a struct sockaddr_nl; SysError(EINVAL)."""
        if len(address) < SOCKADDR_NL.size:
            raise SysError(errno.EINVAL)
        family, port, groups = SOCKADDR_NL.unpack_from(address)
        if family != AF_NETLINK:
            raise SysError(errno.EINVAL)
        return port, groups

    def _take_port(self, port: int) -> None:
        if port in self._ports:
            raise SysError(errno.EADDRINUSE)
        self._ports.add(port)
        self._port = port

    def _take_any_port(self, task: Task) -> None:
        """netlink_autobind(): the process id, else a number that is negative."""
        port: int = task.group.pid.vnr
        while port in self._ports:
            rover = NetlinkSock._rover
            port = NetlinkSock._rover = rover - 1 if rover > 1 << 31 else _LAST_MADE_UP
        self._take_port(port)

    async def bind(self, task: Task, address: bytes) -> None:
        port, _ = self._parse(address)
        if self._port:
            if port != self._port:
                raise SysError(errno.EINVAL)
        elif port:
            self._take_port(port)
        else:
            self._take_any_port(task)

    async def connect(self, task: Task, address: bytes, nonblock: bool) -> None:
        if len(address) < 2:
            raise SysError(errno.EINVAL)
        if address[:2] == b"\0\0":
            self._peer = (0, 0)
            return
        peer = self._parse(address)
        if not self._port:
            self._take_any_port(task)
        self._peer = peer

    def name(self) -> bytes:
        return SOCKADDR_NL.pack(AF_NETLINK, self._port, 0)

    def peer_name(self) -> bytes:
        return SOCKADDR_NL.pack(AF_NETLINK, *self._peer)

    def poll(self) -> int:
        return POLLOUT | POLLWRNORM | (POLLIN | POLLRDNORM if self._messages else 0)

    async def send(self, task: Task, source: Source, message: Message) -> int:
        if message.ancillary is not None:
            message.ancillary.drop()
        if message.flags & MSG_OOB:
            raise SysError(errno.EOPNOTSUPP)
        if message.name:
            self._parse(message.name)
        if not self._port:
            self._take_any_port(task)
        if source.left > self.sndbuf - 32:
            raise SysError(errno.EMSGSIZE)
        source.take(source.left)
        raise SysError(errno.ECONNREFUSED)

    async def receive(self, task: Task, sink: Sink, message: Message) -> int:
        if message.flags & MSG_OOB:
            raise SysError(errno.EOPNOTSUPP)
        deadline = self.receive_deadline(message.nonblock)
        while not self._messages:
            await self.sleep(POLLIN, deadline)
        data = self._messages[0]
        if not message.flags & MSG_PEEK:
            self._messages.popleft()
            NetlinkSock._held -= 1
            self.queue.wake(POLLOUT)
        message.name = SOCKADDR_NL.pack(AF_NETLINK, 0, 0)
        message.ancillary = Ancillary()
        size = min(sink.left, len(data))
        if size < len(data):
            message.out_flags |= MSG_TRUNC
        sink.put(data[:size])
        return len(data) if message.flags & MSG_TRUNC else size


def create(ports: set[int], type_: int, protocol: int) -> NetlinkSock:
    """socket(2); SysError(ESOCKTNOSUPPORT, EPROTONOSUPPORT)."""
    if type_ not in (SOCK_RAW, SOCK_DGRAM):
        raise SysError(errno.ESOCKTNOSUPPORT)
    if protocol != NETLINK_ROUTE:
        raise SysError(errno.EPROTONOSUPPORT)
    return NetlinkSock(ports, type_, protocol)
