"""Stream sockets of AF_UNIX: bytes without boundaries, save that of descriptors and of who has sent them.

The engine serves plain reads and writes of connected ones (csrc/engine/fast_unix.c); this is their
specification.
"""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.poll import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLPRI,
    POLLRDHUP,
    POLLRDNORM,
)
from sentry.abi.signal import SIGPIPE
from sentry.abi.socket import (
    MSG_NOSIGNAL,
    MSG_OOB,
    MSG_PEEK,
    MSG_WAITALL,
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SHUTDOWN_MASK,
    SIOCATMARK,
    SOCK_STREAM,
    TCP_CLOSE,
    TCP_ESTABLISHED,
)
from sentry.net.socket import Ancillary
from sentry.net.unix import rights
from sentry.net.unix.connected import ConnectedSock
from sentry.net.unix.sock import NULL, WRITABLE, bytes_of, ticket_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.task import Task
    from sentry.net.socket import Creds, Message, Sink, Source
    from sentry.net.unix.names import Names
    from sentry.net.unix.sock import UnixSock


class StreamSock(ConnectedSock):
    __slots__ = ()
    proto_name = b"UNIX-STREAM"

    def __init__(self, namespace: Names) -> None:
        super().__init__(SOCK_STREAM, namespace)

    def poll(self) -> int:
        c = self.c
        mask = 0
        if c.error:
            mask |= POLLERR
        if c.shutdown == SHUTDOWN_MASK or c.state == TCP_CLOSE:
            mask |= POLLHUP
        if c.shutdown & RCV_SHUTDOWN:
            mask |= POLLRDHUP | POLLIN | POLLRDNORM
        if c.count:
            mask |= POLLIN | POLLRDNORM
        if c.oob:
            mask |= POLLPRI
        if lib.unix_writable(c):
            mask |= WRITABLE
        return mask

    # Sending

    async def send(self, task: Task, source: Source, message: Message) -> int:
        flags = message.flags
        total = source.left
        if flags & MSG_OOB:
            if not total:
                raise SysError(errno.EOPNOTSUPP)
            total -= 1
        if message.name:
            raise SysError(errno.EISCONN if self.state == TCP_ESTABLISHED else errno.EOPNOTSUPP)
        other = self.peer
        if other is None:
            raise SysError(errno.ENOTCONN)
        if self.c.shutdown & SEND_SHUTDOWN:
            self._broken(task, flags)
        sent = 0
        try:
            while sent < total:
                size = min(total - sent, lib.unix_chunk(self.c))
                await self._send_piece(task, other, source, size, message, sent == 0)
                sent += size
            if flags & MSG_OOB:
                await self._send_piece(task, other, source, 1, message, sent == 0, True)
                sent += 1
        except BaseException:
            if not sent:
                raise
        return sent

    def _broken(self, task: Task, flags: int) -> None:
        if not flags & MSG_NOSIGNAL:
            task.send_own(SIGPIPE)
        raise SysError(errno.EPIPE)

    async def _send_piece(
        self, task: Task, other: UnixSock, source: Source, size: int, message: Message, first: bool,
        urgent: bool = False,
    ) -> None:  # fmt: skip
        """Queue the next `size` bytes as one message.  Descriptors go with the first."""
        await self.wait_for_room(message.nonblock)
        try:
            data = source.take(size)
            if other.dead or other.c.shutdown & RCV_SHUTDOWN:
                if urgent:
                    raise SysError(errno.EPIPE)
                self._broken(task, message.flags if first else MSG_NOSIGNAL)
            skb = self.new_message(data)
            try:
                self._seal(task, skb, message, other)
            except SysError:
                self.free_message(skb)
                raise
        except SysError:
            self.write_space()
            raise
        if urgent:
            other.c.oob = skb
            if other.file is not None:
                other.file.tell_urgent()
        other.queue_message(skb)

    def _seal(self, task: Task, skb: Any, message: Message, other: UnixSock) -> None:
        """The first piece takes the descriptors along, each of them who has sent it."""
        given, carried = message.ancillary, None
        if given is not None:
            carried = Ancillary()
            carried.creds, carried.files = given.creds, given.files
        self.seal(task, skb, carried, other)
        if given is not None:
            given.files = []

    # Receiving

    async def receive(self, task: Task, sink: Sink, message: Message) -> int:
        flags = message.flags
        if self.state != TCP_ESTABLISHED:
            raise SysError(errno.EINVAL)
        if flags & MSG_OOB:
            return self._receive_urgent(sink, message)
        reading = _Reading(self, sink, message)
        size = sink.left
        least = (size if flags & MSG_WAITALL else min(self.options.rcvlowat, size)) or 1
        deadline = self.receive_deadline(message.nonblock)
        while not reading.run():
            if reading.copied >= least:
                break
            error = self.take_error()
            if error and not reading.copied:
                raise SysError(error)
            if error or self.c.shutdown & RCV_SHUTDOWN:
                break
            try:
                await self.sleep(POLLIN, deadline)
            except BaseException:
                if reading.copied:
                    break
                raise
        if message.ancillary is None:
            message.ancillary = Ancillary()
        if self.options.inq:
            message.inq = self.c.size
        return reading.copied

    def _receive_urgent(self, sink: Sink, message: Message) -> int:
        """The byte out of band, once (unlike on TCP it stays where it is; its place is the mark)."""
        c = self.c
        skb = c.oob
        if not skb or self.options.oobinline:
            raise SysError(errno.EINVAL)
        if not message.flags & MSG_PEEK:
            c.oob = NULL
            self._drop_mark_before(skb)
        data = bytes_of(skb, skb.start, 1)
        if not message.flags & MSG_PEEK:
            lib.skb_consume(c, skb, 1)
        if sink.left:
            sink.put(data)
        message.out_flags |= MSG_OOB
        return 1

    def _drop_mark_before(self, skb: Any) -> None:
        """Of marks whose bytes were taken, two in a row are one."""
        before = self.c.first
        while before != skb and before.next != skb:
            before = before.next
        if before != skb and before.start == before.size:
            lib.skb_unlink(self.c, before)
            self.free_message(before)

    @property
    def at_mark(self) -> bool:
        """SIOCATMARK: whether the byte out of band, or where it was, is next."""
        c = self.c
        first = c.first
        if not first:
            return False
        if first == c.oob:
            return True
        return first.start == first.size and (not c.oob or first.next == c.oob)

    async def ioctl(self, task: Task, request: int, arg: int) -> int:
        if request == SIOCATMARK:
            task.mm.write_u32(arg, self.at_mark)
            return 0
        return await super().ioctl(task, request, arg)


class _Reading:
    """One recv(2) under way: what it has copied, and from whom."""

    __slots__ = ("_creds", "_message", "_peeks", "_sink", "_skip", "_sock", "copied")

    def __init__(self, sock: StreamSock, sink: Sink, message: Message) -> None:
        self._sock = sock
        self._sink = sink
        self._message = message
        self._peeks = bool(message.flags & MSG_PEEK)
        self._skip = max(sock.options.peek_off, 0) if self._peeks else 0
        #: Of whom the bytes are: never those of two senders, where that can be seen (SO_PASSCRED).
        self._creds: Creds | None = None
        self.copied = 0

    def run(self) -> bool:
        """Copy what is there; False when more has to come."""
        sock = self._sock
        skb = sock.c.first
        while skb:
            skb = self._pass_mark(skb)
            if not skb:
                return self.copied > 0
            while skb and self._skip >= skb.size - skb.start:
                self._skip -= skb.size - skb.start
                skb = skb.next
            if not skb:
                return False
            following = skb.next
            if not self._take(skb, skb.size - skb.start):
                return True
            if self._peeks:  # on Linux, goes on without room: descriptors further on are seen, too
                skb = following
                if not skb:
                    return True
            elif not self._sink.left:
                return True
            else:
                skb = sock.c.first
        return False

    def _pass_mark(self, skb: Any) -> Any:
        """The message to read from: no read goes over the mark, and a byte out of band that nobody has asked
        for is skipped by the read that begins there (manage_oob).  NULL: there is none for this read."""
        c, inline = self._sock.c, self._sock.options.oobinline
        if skb.start == skb.size:
            if self.copied and (not c.oob or skb == c.oob):
                return NULL
            following = skb.next
            if not self._peeks:
                self._discard(skb)
            if not following:
                return NULL
            skb = following
        if skb != c.oob:
            return skb
        if self.copied:
            return NULL
        if self._peeks:
            return skb if inline else skb.next
        c.oob = NULL
        if inline:
            return skb
        self._discard(skb)
        return c.first

    def _discard(self, skb: Any) -> None:
        """A byte that nobody has read goes on to count among those to be read, as on Linux."""
        c = self._sock.c
        size = c.size
        lib.skb_unlink(c, skb)
        c.size = size
        self._sock.free_message(skb)

    def _take(self, skb: Any, left: int) -> bool:
        """Copy from one message; whether the next one may follow it."""
        sock = self._sock
        if sock.passes_creds:
            creds = sock.creds_of(skb)
            if self._creds is None:
                self._creds = creds
                self._message.ancillary = self._message.ancillary or Ancillary()
                self._message.ancillary.creds = creds
            elif self._creds != creds:
                return False
        sock.tell(self._message, skb)
        chunk = min(left - self._skip, self._sink.left)
        try:
            self._sink.put(bytes_of(skb, skb.start + self._skip, chunk))
        except SysError:
            if not self.copied:
                raise
            return False
        self.copied += chunk
        return self._peeked(skb, chunk) if self._peeks else self._taken(skb, chunk)

    def _taken(self, skb: Any, chunk: int) -> bool:
        sock, options = self._sock, self._sock.options
        lib.skb_consume(sock.c, skb, chunk)
        if options.peek_off >= 0:
            options.peek_off = max(0, options.peek_off - chunk)
        files = self._take_files(skb)
        if skb.start < skb.size:
            return False
        self._discard(skb)
        return not files

    def _peeked(self, skb: Any, chunk: int) -> bool:
        options = self._sock.options
        if options.peek_off >= 0:
            options.peek_off += chunk
        self._skip = 0
        ticket = ticket_of(skb)
        if ticket is None or not ticket.ancillary.files:
            return True
        self._give(rights.peek(ticket.ancillary))
        return False

    def _take_files(self, skb: Any) -> bool:
        ticket = ticket_of(skb)
        if ticket is None or not ticket.ancillary.files:
            return False
        self._give(rights.detach(ticket.ancillary))
        return True

    def _give(self, files: list[Any]) -> None:
        ancillary = self._message.ancillary = self._message.ancillary or Ancillary()
        ancillary.files = files
