"""The transport: frames from a stream socket to a session and back, one at a time.

What the peer sends is hostile.  A frame whose boundary is known is always answered, if only by
Rlerror; when the boundary itself cannot be believed (size below a header, or beyond msize) the
connection ends.  Descriptors arrive attached to the first byte of their message; one that no
Treopen takes is closed.
"""

from __future__ import annotations

import errno
import os
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_DONTWAIT, SCM_RIGHTS, SOL_SOCKET
from _struct import Struct, pack
from time import monotonic_ns

from gofer.messages import HEADER, Message, ProtocolError, Rlerror, Treopen, decode_request
from sentry.abi.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Sequence
    from typing import Any

    from gofer.session import Session

_INT = Struct("=i")
_RECEIVE = 65536
_ROOM = CMSG_SPACE(_INT.size)
#: Longer than most clients take from a reply to the next request.
_SPIN_NS = 150_000
#: Descriptors in the air: the protocol sends one at a time and waits for the reply.
_MAX_PENDING_FDS = 16


class Server:
    __slots__ = ("_fds", "_pending", "_spin", "log", "session", "sock")

    def __init__(
        self, sock: socket, session: Session, log: Callable[[str], None], spin: bool = False
    ) -> None:
        """`spin`: wait for the next request awake for a moment, because there is a CPU to spare."""
        self.sock = sock
        self.session = session
        self.log = log
        self._spin = spin
        self._pending = b""
        self._fds: list[int] = []

    def serve(self) -> None:
        """Serve until the peer closes the connection, or breaks it."""
        try:
            while self._receive():
                pass
        except OSError as exc:
            if exc.errno not in (errno.EPIPE, errno.ECONNRESET):
                self.log(f"connection lost: {exc.strerror}")
        finally:
            self._drop_fds()
            self.session.close()

    def _receive(self) -> bool:
        """Receive once and answer every whole frame; False at the end of the connection."""
        data, ancillary, _, _ = self._wait()
        for level, kind, payload in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                for (fd,) in _INT.iter_unpack(payload[: len(payload) & ~3]):
                    self._fds.append(fd)
        if not data or len(self._fds) > _MAX_PENDING_FDS:
            return False
        buf = self._pending + data if self._pending else data
        pos = 0
        while len(buf) - pos >= HEADER.size:
            size = HEADER.unpack_from(buf, pos)[0]
            if size < HEADER.size or size > self.session.msize:
                return False
            if len(buf) - pos < size:
                break
            self._serve_frame(buf[pos : pos + size])
            pos += size
        self._pending = buf[pos:]
        if not self._pending:
            self._drop_fds()
        return True

    def _wait(self) -> Any:
        """The next bytes.  Whoever has just asked asks again, mostly, and waking a sleeper takes longer than
        answering."""
        if self._spin:
            until = monotonic_ns() + _SPIN_NS
            while monotonic_ns() < until:
                try:
                    return self.sock.recvmsg(_RECEIVE, _ROOM, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)
                except BlockingIOError:
                    os.sched_yield()
        return self.sock.recvmsg(_RECEIVE, _ROOM, MSG_CMSG_CLOEXEC)

    def _drop_fds(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _serve_frame(self, frame: bytes) -> None:
        tag = HEADER.unpack_from(frame)[2]
        received = -1
        fds: Sequence[int] = ()
        try:
            try:
                _, message = decode_request(frame)
                if message.__class__ is Treopen and self._fds:
                    received = self._fds.pop(0)
                reply = self.session.handle(message, received)
                if not isinstance(reply, Message):
                    reply, sent = reply
                    fds = (sent,) if isinstance(sent, int) else sent
                out = reply.encode(tag)
                if len(out) > self.session.msize:
                    raise SysError(errno.EMSGSIZE)
            except (SysError, OSError, ProtocolError) as exc:
                out = Rlerror(exc.errno or errno.EIO).encode(tag)
            except Exception as exc:
                self.log(f"bug while serving {_describe(frame)}: {exc.__class__.__name__}: {exc}")
                out = Rlerror(errno.EIO).encode(tag)
            self._send(out, fds)
        finally:
            for fd in (received, *fds):
                if fd >= 0:
                    os.close(fd)

    def _send(self, out: bytes, fds: Sequence[int]) -> None:
        if fds:
            sent = self.sock.sendmsg([out], [(SOL_SOCKET, SCM_RIGHTS, pack(f"={len(fds)}i", *fds))])
            out = out[sent:]
        if out:
            self.sock.sendall(out)


def _describe(frame: bytes) -> str:
    try:
        message: Message = decode_request(frame)[1]
    except ProtocolError:
        return "a malformed message"
    return message.__class__.__name__
