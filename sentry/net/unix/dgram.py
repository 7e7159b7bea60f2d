"""Datagram and sequenced-packet sockets of AF_UNIX: one message is one write and one read."""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, POLLRDNORM
from sentry.abi.socket import (
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    RCV_SHUTDOWN,
    SHUTDOWN_MASK,
    SOCK_DGRAM,
    SOCK_SEQPACKET,
    SUN_PATH,
    TCP_CLOSE,
    TCP_ESTABLISHED,
)
from sentry.kernel.wait import ALL_EVENTS, Interrupted
from sentry.net.socket import Ancillary
from sentry.net.unix import names, rights
from sentry.net.unix.connected import ConnectedSock
from sentry.net.unix.sock import WRITABLE, UnixSock, bytes_of, ticket_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.task import Task
    from sentry.net.socket import Message, Sink, Source
    from sentry.net.unix.names import Names


#: What Linux finds room for, however much the socket might send: the largest kmalloc, and 17 pages.
LARGEST = (4 << 20) - 320 + 17 * 4096


class PacketSock(UnixSock):
    __slots__ = ()

    def poll(self) -> int:
        c = self.c
        mask = 0
        if c.error:
            mask |= POLLERR
        if c.shutdown & RCV_SHUTDOWN:
            mask |= POLLRDHUP | POLLIN | POLLRDNORM
        if c.shutdown == SHUTDOWN_MASK or (self.type == SOCK_SEQPACKET and c.state == TCP_CLOSE):
            mask |= POLLHUP
        if c.count:
            mask |= POLLIN | POLLRDNORM
        if lib.unix_writable(c):
            mask |= WRITABLE
        return mask

    # Sending

    async def send(self, task: Task, source: Source, message: Message) -> int:
        if message.flags & MSG_OOB:
            raise SysError(errno.EOPNOTSUPP)
        if message.name:
            names.check(message.name)
        self.autobind_for_creds()
        size = source.left
        if size > self.c.sndbuf - 32:
            raise SysError(errno.EMSGSIZE)
        await self.wait_for_room(message.nonblock)
        if size > LARGEST:
            raise SysError(errno.ENOBUFS)
        try:
            skb = self.new_message(source.take(size))
        except SysError:
            self.write_space()
            raise
        # It counts for the sender from here on, also while he waits for a receiver.
        try:
            other = await self._find_receiver(task, message)
            self.seal(task, skb, message.ancillary, other)
        except (SysError, Interrupted):
            self.free_message(skb)
            self.write_space()
            raise
        message.ancillary = None
        other.queue_message(skb)
        return size

    async def _find_receiver(self, task: Task, message: Message) -> UnixSock:
        """To whom it goes, once there is room.  A receiver that was closed meanwhile is looked for again."""
        deadline = self.send_deadline(message.nonblock)
        other = None if message.name else self.peer
        if other is None and not message.name:
            raise SysError(errno.ENOTCONN)
        while True:
            if other is None:
                if not message.name:
                    raise SysError(errno.ECONNRESET)
                other = await names.find(task, self.names, message.name, self.type)
            if other.peer is not None and other.peer is not self:
                raise SysError(errno.EPERM)
            if other.dead:
                self._lost(other)
                other = None
                continue
            if other.c.shutdown & RCV_SHUTDOWN:
                raise SysError(errno.EPIPE)
            if other is self or other.peer is self or not other.is_full:
                return other
            if deadline == 0 and self.peer is other:
                other.relays[self] = None
            await self.sleep(POLLOUT, deadline, other.peer_queue)
            other = None if message.name else self.peer

    def _lost(self, other: UnixSock) -> None:
        """The receiver is closed; SysError if that is all there is to say."""
        raise SysError(errno.EPIPE)

    # Receiving

    async def receive(self, task: Task, sink: Sink, message: Message) -> int:
        if message.flags & MSG_OOB:
            raise SysError(errno.EOPNOTSUPP)
        skb, skip = await self._next(message)
        if skb is None:
            return 0
        if not message.flags & MSG_PEEK:
            lib.skb_unlink(self.c, skb)
        self.has_room()
        try:
            return self._give(skb, skip, sink, message)
        finally:
            if not message.flags & MSG_PEEK:
                self.free_message(skb)

    async def _next(self, message: Message) -> tuple[Any, int]:
        """The message to be received, and how many bytes of it to leave out; (None, 0) at the end."""
        deadline = self.receive_deadline(message.nonblock)
        while True:
            self.check_error()
            skb, skip = self._find(message)
            if skb:
                return skb, skip
            if self.c.shutdown & RCV_SHUTDOWN and (deadline != 0 or self.type == SOCK_SEQPACKET):
                return None, 0
            await self.sleep(POLLIN, deadline)

    def _find(self, message: Message) -> tuple[Any, int]:
        skb, skip = self.c.first, 0
        if message.flags & MSG_PEEK:
            skip = max(0, self.options.peek_off)
            while skb and skip and skip >= skb.size:
                skip -= skb.size
                skb = skb.next
        return skb, skip

    def _give(self, skb: Any, skip: int, sink: Sink, message: Message) -> int:
        options = self.options
        self.tell(message, skb)
        message.stamped = True
        left: int = skb.size - skip
        size = min(sink.left, left)
        if size < left:
            message.out_flags |= MSG_TRUNC
        sink.put(bytes_of(skb, skip, size))
        ancillary = message.ancillary = Ancillary()
        ancillary.creds = self.creds_of(skb)
        ticket = ticket_of(skb)
        carried = [] if ticket is None else ticket.ancillary.files
        if message.flags & MSG_PEEK:
            if options.peek_off >= 0:
                options.peek_off += size
            ancillary.files = [] if ticket is None else rights.peek(ticket.ancillary)
        else:
            if options.peek_off >= 0:
                options.peek_off = max(0, options.peek_off - skb.size)
            if carried and ticket is not None:
                ancillary.files = rights.detach(ticket.ancillary)
        return left if message.flags & MSG_TRUNC else size


class DgramSock(PacketSock):
    __slots__ = ()

    def __init__(self, namespace: Names) -> None:
        super().__init__(SOCK_DGRAM, namespace)

    def poll(self) -> int:
        mask = super().poll()
        peer = self.peer
        if mask & POLLOUT and peer is not None and peer.peer is not self and peer.is_full and not peer.dead:
            peer.relays[self] = None
            mask &= ~WRITABLE
        return mask

    async def connect(self, task: Task, address: bytes, nonblock: bool) -> None:
        if len(address) < SUN_PATH:
            raise SysError(errno.EINVAL)
        if address[:SUN_PATH] == b"\0\0":  # AF_UNSPEC
            self._connect(None)
            return
        names.check(address)
        self.autobind_for_creds()
        other = await names.find(task, self.names, address, self.type)
        if other.peer is not None and other.peer is not self:
            raise SysError(errno.EPERM)
        self.state = other.state = TCP_ESTABLISHED
        self._connect(other)

    def _connect(self, other: UnixSock | None) -> None:
        old = self.peer
        self.set_peer(other)
        if old is None:
            return
        if other is None:
            self.state = TCP_CLOSE
        self._stop_waiting(old)
        if old is not other:
            self._disconnected(old)
            if old.peer is None and not old.dead:
                old.state = TCP_CLOSE

    def _stop_waiting(self, old: UnixSock) -> None:
        """It need not be told any more when `old` has room: perhaps it may send to another one now."""
        old.relays.pop(self, None)
        self.queue.wake(WRITABLE)

    def _disconnected(self, old: UnixSock) -> None:
        """What has come from `old` is thrown away, and `old` is told if it was connected here."""
        if not self.c.count:
            return
        self.purge()
        self.peer_queue.wake(ALL_EVENTS)
        if not old.dead and old.peer is self:
            old.fail(errno.ECONNRESET)

    def _lost(self, other: UnixSock) -> None:
        if self.peer is not other:
            return
        self.set_peer(None)
        self._stop_waiting(other)
        self.state = TCP_CLOSE
        self._disconnected(other)
        raise SysError(errno.ECONNREFUSED)


class SeqpacketSock(PacketSock, ConnectedSock):
    __slots__ = ()

    def __init__(self, namespace: Names) -> None:
        super().__init__(SOCK_SEQPACKET, namespace)

    def check_connected(self) -> None:
        self.check_error()
        if self.state != TCP_ESTABLISHED:
            raise SysError(errno.ENOTCONN)

    async def send(self, task: Task, source: Source, message: Message) -> int:
        self.check_connected()
        message.name = b""
        return await super().send(task, source, message)

    async def receive(self, task: Task, sink: Sink, message: Message) -> int:
        if self.state != TCP_ESTABLISHED:
            raise SysError(errno.ENOTCONN)
        return await super().receive(task, sink, message)
