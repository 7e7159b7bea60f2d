"""How a 9P request reaches the Gofer and its reply comes back: tags, frames, descriptors.

The half of the client that knows no file operations (client.py has them).  A request is sent at
once and its reply is first waited for on the spot, for up to PATIENCE_MS: the Gofer mostly answers
within 100 µs, and a suspended coroutine costs a round through the event loop.  Only then does the
caller suspend, and others run.  Any number of requests may be under way, each with its own tag.

The Gofer is not trusted more than it has to be: a reply that does not decode, answers nothing, or
has the wrong type ends the connection, as the Gofer's death does.  From then on every call fails
with EIO.  Descriptors are CLOEXEC, and closed unless a reply claims them.
"""

from __future__ import annotations

import errno
import os
from _collections import deque
from _socket import (
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SCM_RIGHTS,
    SOL_SOCKET,
    socket,
)
from _struct import Struct
from fcntl import F_DUPFD_CLOEXEC, fcntl
from select import EPOLLIN, EPOLLOUT, POLLIN, POLLOUT
from select import poll as new_poll
from time import monotonic_ns

from gofer.messages import (
    HEADER,
    MAX_OPENFILES,
    MIN_MSIZE,
    REPLY_OF,
    Message,
    ProtocolError,
    Rlerror,
    decode_reply,
)
from sentry.abi.errors import SysError
from sentry.kernel.wait import WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Poller(Protocol):
        def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None: ...
        def unwatch(self, fd: int) -> None: ...


PATIENCE_MS = 2
#: Requests under way; clunks, which cannot wait, may go beyond.
MAX_CALLS = 1024
MAX_TAG = 0xFFFE
_RECEIVE = 65536
_MAX_PENDING_FDS = MAX_OPENFILES + 4
#: In place of a descriptor that the host dropped on its way, for want of a free number.
DROPPED = -1
_INT = Struct("=i")
_ANCILLARY = CMSG_SPACE(_INT.size * MAX_OPENFILES)


def errno_of(ecode: int) -> int:
    """A server's error number, or EIO for what is none."""
    return ecode if 0 < ecode < 4096 else errno.EIO


class Call:
    """A request under way."""

    __slots__ = ("abandoned", "clunks", "done", "fd", "fds", "queue", "reply", "then", "want")

    def __init__(self, want: type[Message]) -> None:
        self.want = want
        self.done = False
        #: None once `done`: the server is gone.
        self.reply: Message | None = None
        #: The descriptor that came along; None: none; DROPPED.
        self.fd: int | None = None
        #: Those that came with a message that has `fds`, DROPPED among them.
        self.fds: list[int] = []
        #: Who waits; None while nobody does.
        self.queue: WaitQueue | None = None
        #: Nobody will come for the reply.
        self.abandoned = False
        #: A fid number that is free again when this is answered; -1: none.
        self.clunks = -1
        #: What is done when the reply has come, whoever waits; it takes the descriptors.
        self.then: Callable[[], None] | None = None


class Transport:
    """A connection.  `sock_fd` becomes its own; `poller` may be set later (see Client.run)."""

    def __init__(
        self, sock_fd: int, poller: Poller | None = None, on_death: Callable[[], None] | None = None
    ) -> None:
        self._sock = socket(fileno=sock_fd)
        self._fd = sock_fd
        self._poller: Poller | None = None
        self._on_death = on_death
        self._poll = new_poll()
        self._poll.register(sock_fd, POLLIN)
        self._patience = PATIENCE_MS
        #: How long to wait for a reply awake: where there is a CPU to spare, sleeping takes longer.
        self.spin_ns = 0
        self._calls: dict[int, Call] = {}
        self._free_tags: list[int] = []
        self._next_tag = 0
        self._call_ended = WaitQueue()
        self._free_fids: list[int] = []
        self._next_fid = 1
        # What the socket would not take: (rest of the frame, our copy of the descriptor to send or -1).
        self._out: deque[tuple[bytes, int]] = deque()
        self._in = b""
        # Descriptors received and not yet claimed, in order.
        self._fds: list[int] = []
        self.dead = False
        self.msize = MIN_MSIZE * 2
        if poller is not None:
            self.set_poller(poller)

    def set_poller(self, poller: Poller) -> None:
        self._poller = poller
        self._watch()

    def close(self) -> None:
        """Hang up.  Calls under way fail with EIO; `on_death` is not called."""
        self._on_death = None
        self._die()

    async def _call(self, message: Message, tag: int = -1) -> Message:
        """Send a request and get its reply; Rlerror is raised as SysError."""
        return (await self._exchange(message, -1, tag))[1]

    async def _exchange(self, message: Message, fd: int = -1, tag: int = -1) -> tuple[int | None, Message]:
        """The same with `fd` sent along: (descriptor that came with the reply, reply)."""
        while len(self._calls) >= MAX_CALLS and not self.dead:
            await block((self._call_ended, 1), interruptible=False)
        call = await self._answered(self._submit(message, fd, tag))
        assert call.reply is not None
        return call.fd, call.reply

    async def arrival(self, call: Call) -> None:
        """Wait until `call`, which has a `then`, is done."""
        for _ in range(16):
            if call.done or not self._turn():
                break
        if call.queue is None:
            call.queue = WaitQueue()
        while not call.done:
            await block((call.queue, 1), interruptible=False)

    async def _answered(self, call: Call) -> Call:
        """Wait for the reply, which is no Rlerror then."""
        for _ in range(16):  # a bound, in case the traffic is all for others
            if call.done or not self._turn():
                break
        if not call.done:
            call.queue = WaitQueue()
            try:
                while not call.done:
                    await block((call.queue, 1), interruptible=False)
            finally:
                call.abandoned = not call.done
        if call.reply is None:
            raise SysError(errno.EIO)
        if call.reply.__class__ is Rlerror:
            raise SysError(errno_of(call.reply.ecode))
        if call.fd == DROPPED:
            raise SysError(errno.ENFILE)
        return call

    def _submit(self, message: Message, fd: int = -1, tag: int = -1) -> Call:
        """Send a request.  SysError for what cannot be said in the protocol (a name that is too long)."""
        if self.dead:
            raise SysError(errno.EIO)
        if tag < 0:
            if self._free_tags:
                tag = self._free_tags.pop()
            elif self._next_tag < MAX_TAG:
                tag = self._next_tag
                self._next_tag += 1
            else:
                raise SysError(errno.EAGAIN)
        try:
            frame = message.encode(tag)
            if len(frame) > self.msize:
                raise ProtocolError("message too long", errno.EMSGSIZE)
        except ProtocolError as exc:
            if tag < MAX_TAG:
                self._free_tags.append(tag)
            raise SysError(exc.errno) from None
        call = self._calls[tag] = Call(REPLY_OF[message.__class__])
        self._send(frame, fd)
        return call

    def _turn(self) -> bool:
        """Wait shortly for the socket and serve it; False when nothing came."""
        if self.dead:
            return False
        poll = self._poll.poll
        until = monotonic_ns() + self.spin_ns
        while not (ready := poll(0)) and monotonic_ns() < until:
            os.sched_yield()  # the Gofer may be waiting for this CPU
        ready = ready or poll(self._patience)
        if ready:
            self._on_ready(ready[0][1])
        return bool(ready)

    def _on_ready(self, events: int) -> None:
        if events & POLLOUT and not self.dead:
            self._flush()
        if events & ~POLLOUT and not self.dead:
            self._receive()

    # Sending.

    def _send(self, frame: bytes, fd: int) -> None:
        if self._out:
            self._out.append((frame, fcntl(fd, F_DUPFD_CLOEXEC, 0) if fd >= 0 else -1))
            return
        rest = self._send_now(frame, fd)
        if rest:
            # The descriptor goes with the first byte.
            late = fd >= 0 and len(rest) == len(frame)
            self._out.append((rest, fcntl(fd, F_DUPFD_CLOEXEC, 0) if late else -1))
            self._watch()

    def _send_now(self, frame: bytes, fd: int) -> bytes:
        """What the socket did not take."""
        ancillary = [(SOL_SOCKET, SCM_RIGHTS, _INT.pack(fd))] if fd >= 0 else []
        try:
            return frame[self._sock.sendmsg([frame], ancillary, MSG_DONTWAIT | MSG_NOSIGNAL) :]
        except BlockingIOError:
            return frame
        except OSError:
            self._die()
            return b""

    def _flush(self) -> None:
        while self._out:
            frame, fd = self._out.popleft()
            rest = self._send_now(frame, fd)
            if rest and len(rest) == len(frame):
                self._out.appendleft((frame, fd))
                return
            if fd >= 0:
                os.close(fd)
            if rest:
                self._out.appendleft((rest, -1))
                return
        if not self.dead:
            self._watch()

    def _watch(self) -> None:
        """Have POLLOUT reported as long as something is to be sent."""
        self._poll.modify(self._fd, POLLIN | POLLOUT if self._out else POLLIN)
        if self._poller is not None:
            self._poller.watch(self._fd, EPOLLIN | EPOLLOUT if self._out else EPOLLIN, self._on_ready)

    # Receiving.

    def _receive(self) -> None:
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                _RECEIVE, _ANCILLARY, MSG_DONTWAIT | MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            self._die()
            return
        for level, kind, payload in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                for (fd,) in _INT.iter_unpack(payload[: len(payload) & ~3]):
                    self._fds.append(fd)
        if flags & MSG_CTRUNC:
            # Some are missing behind those that came: which, and how many, the reply will tell.
            self._fds.append(DROPPED)
        if not data or len(self._fds) > _MAX_PENDING_FDS or not self._take_frames(data):
            self._die()

    def _take_frames(self, data: bytes) -> bool:
        """Complete the calls whose replies are in `data`; False when the peer breaks the protocol."""
        buf = self._in + data if self._in else data
        pos = 0
        while len(buf) - pos >= HEADER.size:
            size = HEADER.unpack_from(buf, pos)[0]
            if not HEADER.size <= size <= self.msize:
                return False
            if len(buf) - pos < size:
                break
            try:
                tag, reply = decode_reply(buf[pos : pos + size])
            except ProtocolError:
                return False
            if not self._complete(tag, reply):
                return False
            pos += size
        self._in = buf[pos:]
        if not self._in:
            self._drop_fds()
        return True

    def _complete(self, tag: int, reply: Message) -> bool:
        call = self._calls.get(tag)
        if call is None or (reply.__class__ is not call.want and reply.__class__ is not Rlerror):
            return False
        if "hasfd" in reply.FIELDS and reply.hasfd:
            if not self._fds:
                return False
            call.fd = self._fds.pop(0)
        elif "fds" in reply.FIELDS:
            call.fds, self._fds = self._fds[: reply.fds], self._fds[reply.fds :]
            if call.fds and call.fds[-1] == DROPPED:
                call.fds += [DROPPED] * (reply.fds - len(call.fds))
            if len(call.fds) != reply.fds:
                self._fds += call.fds
                return False
        del self._calls[tag]
        if tag < MAX_TAG:
            self._free_tags.append(tag)
        if call.clunks >= 0:
            self._free_fids.append(call.clunks)
        call.reply = reply
        call.done = True
        if call.then is not None:
            call.then()
        elif call.abandoned:
            for fd in (call.fd, *call.fds):
                if fd is not None and fd >= 0:
                    os.close(fd)
        if call.queue is not None:
            call.queue.wake()
        self._call_ended.wake()
        return True

    def _drop_fds(self) -> None:
        while self._fds:
            fd = self._fds.pop()
            if fd >= 0:
                os.close(fd)

    def _die(self) -> None:
        """The connection is over: fail everything, once."""
        if self.dead:
            return
        self.dead = True
        if self._poller is not None:
            self._poller.unwatch(self._fd)
        self._sock.close()
        self._drop_fds()
        while self._out:
            fd = self._out.popleft()[1]
            if fd >= 0:
                os.close(fd)
        calls = list(self._calls.values())
        self._calls.clear()
        for call in calls:
            call.done = True
            if call.queue is not None:
                call.queue.wake()
        self._call_ended.wake()
        if self._on_death is not None:
            self._on_death()
