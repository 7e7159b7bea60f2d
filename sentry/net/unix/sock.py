"""UnixSock: what stream, datagram and sequenced-packet sockets of AF_UNIX have in common (unix(7)).

The hot part is a struct unix_sock (csrc/abi/unix.h), which holds the messages that have arrived.  What the
engine can't hold with a message (descriptors, credentials, a time stamp) stands in `tickets`, by the number
that the message carries.
"""

from __future__ import annotations

import errno
from _collections import deque
from _operator import attrgetter
from time import time_ns

from sentry._engine import ffi, lib
from sentry.abi.capability import CAP_NET_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.poll import POLLERR, POLLOUT, POLLWRBAND, POLLWRNORM
from sentry.abi.socket import (
    AF_UNIX,
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SIOCATMARK,
    SIOCINQ,
    SIOCOUTQ,
    SIOCUNIXFILE,
    SO_INQ,
    SO_REUSEPORT,
    SOCK_DGRAM,
    SOCK_STREAM,
    SUN_PATH,
    TCP_LISTEN,
)
from sentry.kernel.wait import ALL_EVENTS, WaitQueue
from sentry.net import disposal
from sentry.net.disposal import carry_out
from sentry.net.socket import WMEM_DEFAULT, Ancillary, Sock
from sentry.net.unix import names, rights
from sentry.platform.queue import SharedQueue, drain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sentry.kernel.task import Task
    from sentry.net.socket import Creds, Message
    from sentry.net.unix.names import Names

NULL = ffi.NULL
#: So many messages that are bytes and nothing else are freed in one step.
PLAIN = 1024
UNNAMED = AF_UNIX.to_bytes(2, "little")
WRITABLE = POLLOUT | POLLWRNORM | POLLWRBAND
ODD_CREDS: int = lib.UNIX_ODD_CREDS
ODD_PEEK: int = lib.UNIX_ODD_PEEK
ODD_TIME: int = lib.UNIX_ODD_TIME
ODD_EMBRYO: int = lib.UNIX_ODD_EMBRYO
ODD_ASYNC: int = lib.UNIX_ODD_ASYNC
#: The sender of a message where nobody wrote that down: no process, no ids.
NOBODY: Creds = (None, 0xFFFFFFFF, 0xFFFFFFFF)


class Ticket:
    """What a message carries beside its bytes.  `creds` are unset unless one of the two sides has
    SO_PASSCRED: then nobody could ask for them."""

    __slots__ = ("ancillary", "timestamp")

    def __init__(self, ancillary: Ancillary, timestamp: int | None) -> None:
        self.ancillary = ancillary
        self.timestamp = timestamp


tickets: dict[int, Ticket] = {}
_last_ticket = 0


def _new_ticket(ticket: Ticket) -> int:
    global _last_ticket
    while True:
        _last_ticket = _last_ticket % 0xFFFFFFFF + 1
        if _last_ticket not in tickets:
            tickets[_last_ticket] = ticket
            return _last_ticket


def ticket_of(skb: Any) -> Ticket | None:
    return tickets[skb.ticket] if skb.ticket else None


def drop_carried(ancillary: Ancillary | None) -> None:
    """Let go of the files of a message that nobody will receive."""
    if ancillary is not None and ancillary.files:
        carry_out(rights.dropping(ancillary))


def _freeing(skb: Any) -> Iterator[None]:
    """The end of a chain of messages, for `carry_out`."""
    while skb:
        if skb.ticket:
            ancillary, skb.ticket = tickets.pop(skb.ticket).ancillary, 0
            yield from rights.dropping(ancillary)
        skb = lib.skb_free_plain(skb, PLAIN)
        drain()
        yield


def bytes_of(skb: Any, start: int, size: int) -> bytes:
    data: bytes = ffi.buffer(skb.data + start, size)[:]
    return data


def name_of(c: Any) -> bytes:
    """The address of a struct unix_sock, b"" for none."""
    name: bytes = ffi.buffer(c.name, c.name_size)[:]
    return name


def _set_sndbuf(sock: UnixSock, value: int) -> None:
    sock.c.sndbuf = value


def _set_state(sock: UnixSock, value: int) -> None:
    sock.c.state = value


class UnixSock(Sock):
    __slots__ = ("backlog", "c", "names", "number", "peer", "peer_queue", "place", "rcvbuf", "relays", "row")
    family = AF_UNIX
    proto_name = b"UNIX"
    sndbuf = property(attrgetter("c.sndbuf"), _set_sndbuf)
    state = property(attrgetter("c.state"), _set_state)

    def __init__(self, type_: int, namespace: Names) -> None:
        c = lib.unix_new(type_, WMEM_DEFAULT)
        if not c:
            raise SysError(errno.ENOMEM)
        self.c = ffi.gc(c, lib.unix_put)
        super().__init__(type_, 0, SharedQueue(ffi.addressof(c, "queue"), self.c))
        self.rcvbuf = WMEM_DEFAULT
        #: The socket that it is connected to.
        self.peer: UnixSock | None = None
        self.names = namespace
        #: Among all sockets, in order of creation (Names.enter).
        self.number = 0
        #: Where it is bound in the file system, or what it was accepted from is (names.Paths).
        self.place: Any = None
        #: How many messages, or connections, wait here at most (one more, in fact).
        self.backlog = namespace.max_dgram_qlen
        #: Of a listening socket: who has connected and was not accepted yet.
        self.row: deque[UnixSock] = deque()
        #: Where those sleep who want to send or connect to this one, and there are too many waiting already.
        self.peer_queue = WaitQueue()
        #: Those of them that sleep for POLLOUT in their own queues (unix_dgram_peer_wake_me).
        self.relays: dict[UnixSock, None] = {}
        namespace.enter(self)

    # State

    def set_peer(self, peer: UnixSock | None) -> None:
        self.peer = peer
        self.c.peer = NULL if peer is None else peer.c

    @property
    def dead(self) -> bool:
        return bool(self.c.is_dead)

    def take_error(self) -> int:
        error: int = self.c.error
        if error:
            self.c.error = 0
        return error

    def keep_error(self, error: int) -> None:
        self.c.error = error

    def set_async(self, on: bool) -> None:
        c = self.c
        c.odd = c.odd | ODD_ASYNC if on else c.odd & ~ODD_ASYNC

    def options_changed(self) -> None:
        options = self.options
        odd = self.c.odd & (ODD_EMBRYO | ODD_ASYNC)
        if options.passcred or options.passpidfd or options.passsec:
            odd |= ODD_CREDS
        if options.peek_off >= 0:
            odd |= ODD_PEEK
        if options.rcvtimeo is not None or options.sndtimeo is not None or options.rcvlowat > 1:
            odd |= ODD_TIME
        self.c.odd = odd

    def set_peek_off(self, offset: int) -> None:
        self.options.peek_off = offset

    def supports(self, option: int) -> bool:
        return self.type == SOCK_STREAM if option == SO_INQ else option != SO_REUSEPORT

    def memory(self) -> tuple[int, int]:
        wmem: int = self.c.wmem
        return 0, wmem

    @property
    def is_full(self) -> bool:
        """Whether those who are not connected to it have to wait."""
        full: bool = self.c.count > self.backlog
        return full

    @property
    def passes_creds(self) -> bool:
        return self.options.passcred or self.options.passpidfd

    def note_peer(self, task: Task) -> None:
        """Who is at the other end from now on: the caller."""
        self.peer_cred = (task.group.pid, task.cred)

    def pair(self, other: Sock, task: Task) -> None:
        assert isinstance(other, UnixSock)
        for one, two in ((self, other), (other, self)):
            one.set_peer(two)
            one.note_peer(task)
            one.state = lib.UNIX_ESTABLISHED

    # Names

    def set_name(self, address: bytes) -> None:
        ffi.memmove(self.c.name, address, len(address))
        self.c.name_size = len(address)

    def autobind(self) -> None:
        if not self.c.name_size:
            self.set_name(self.names.autobind(self))

    def autobind_for_creds(self) -> None:
        """Who wants to be told credentials gets a name to be answered at (unix(7), SO_PASSCRED)."""
        if self.passes_creds:
            self.autobind()

    async def bind(self, task: Task, address: bytes) -> None:
        if address == UNNAMED:
            self.autobind()
            return
        names.check(address)
        path = names.path_of(address)
        if path:
            await self._bind_path(task, path)
            return
        if self.c.name_size:
            raise SysError(errno.EINVAL)
        self.names.bind(self, address)
        self.set_name(address)

    async def _bind_path(self, task: Task, path: bytes) -> None:
        paths = names.paths
        assert paths is not None
        place = await paths.make(task, path, self)
        if self.c.name_size or self.dead:
            await paths.remove(task, place)
            raise SysError(errno.EINVAL)
        self.place = place
        self.set_name(UNNAMED + path + b"\0")

    def name(self) -> bytes:
        return name_of(self.c) or UNNAMED

    def peer_name(self) -> bytes:
        if self.peer is None:
            raise SysError(errno.ENOTCONN)
        return self.peer.name()

    # Messages

    def check_room(self) -> bool:
        """Whether one more message may be sent; SysError(EPIPE, and the pending error)."""
        self.check_error()
        c = self.c
        if c.shutdown & SEND_SHUTDOWN:
            raise SysError(errno.EPIPE)
        full: bool = c.wmem >= c.sndbuf
        return not full

    async def wait_for_room(self, nonblock: bool) -> None:
        """sock_alloc_send_pskb: until one more message may be sent."""
        if self.check_room():
            return
        deadline = self.send_deadline(nonblock)
        while True:
            await self.sleep(POLLOUT, deadline)
            if self.check_room():
                return

    def new_message(self, data: bytes) -> Any:
        """A struct skb that counts for us from now on, for `seal` or `free_message`; SysError(ENOBUFS)."""
        skb = lib.skb_new(self.c, ffi.from_buffer(data), len(data))
        if not skb:
            raise SysError(errno.ENOBUFS)
        return skb

    def seal(self, task: Task, skb: Any, ancillary: Ancillary | None, to: UnixSock) -> None:
        """Let `ancillary` go with the message, which will be queued at `to`: it passes to it, unless
        SysError(EPERM, ETOOMANYREFS)."""
        if ancillary is not None and ancillary.files:
            if not to.options.passrights:
                raise SysError(errno.EPERM)
            rights.attach(task, ancillary)
        stamp = time_ns() if to.options.timestamp else None
        adds = self.passes_creds or to.passes_creds or to.c.odd & ODD_EMBRYO
        if adds and (ancillary is None or ancillary.creds is None):
            ancillary = ancillary or Ancillary()
            ancillary.creds = (task.group.pid, task.cred.uid, task.cred.gid)
        if ancillary is not None or stamp is not None:
            disposal.scheduler = task.scheduler
            skb.ticket = _new_ticket(Ticket(ancillary or Ancillary(), stamp))

    def write_space(self) -> None:
        """Also when a message was not sent after all, as on Linux."""
        if lib.unix_writable(self.c):
            self.queue.wake(WRITABLE)

    def queue_message(self, skb: Any) -> None:
        """It has arrived here."""
        if lib.skb_queue(self.c, skb):
            drain()

    def free_message(self, skb: Any) -> None:
        """A message is over, which is in no queue."""
        if skb.ticket:
            drop_carried(tickets.pop(skb.ticket).ancillary)
        if lib.skb_free(skb):
            drain()

    def has_room(self) -> None:
        """Something was taken out of the queue."""
        self.peer_queue.wake(WRITABLE, 1)
        if self.relays:
            waiting, self.relays = self.relays, {}
            for sock in waiting:
                sock.queue.wake(WRITABLE)

    def carried(self) -> Iterator[Any]:
        """The files in the messages that can be received here, or by accepting here."""
        skb = self.c.first
        while skb:
            ticket = ticket_of(skb)
            if ticket is not None:
                yield from ticket.ancillary.files
            skb = skb.next
        for embryo in self.row:
            yield from embryo.carried()

    def carrying(self) -> list[Ancillary]:
        """What the same files came with."""
        found: list[Ancillary] = []
        skb = self.c.first
        while skb:
            ticket = ticket_of(skb)
            if ticket is not None and ticket.ancillary.files:
                found.append(ticket.ancillary)
            skb = skb.next
        for embryo in self.row:
            found += embryo.carrying()
        return found

    def purge(self) -> None:
        """Throw away what has arrived; of very much, the rest when others have had their turn."""
        if self.c.first:
            carry_out(_freeing(lib.skb_take_all(self.c)))

    def tell(self, message: Message, skb: Any) -> None:
        """Note for the receiver what came along with `skb`, but for files."""
        ticket = ticket_of(skb)
        message.name = name_of(skb.sender)
        if ticket is not None:
            message.timestamp = ticket.timestamp

    def creds_of(self, skb: Any) -> Creds:
        ticket = ticket_of(skb)
        return NOBODY if ticket is None or ticket.ancillary.creds is None else ticket.ancillary.creds

    # Its end

    def shutdown(self, mask: int) -> None:
        self.c.shutdown |= mask
        self.queue.wake(ALL_EVENTS)
        peer = self.peer
        if peer is not None and self.type != SOCK_DGRAM:
            other = 0
            if mask & RCV_SHUTDOWN:
                other |= SEND_SHUTDOWN
            if mask & SEND_SHUTDOWN:
                other |= RCV_SHUTDOWN
            peer.c.shutdown |= other
            peer.queue.wake(ALL_EVENTS)

    def fail(self, error: int) -> None:
        """Something went wrong that the program will be told (sk_error_report)."""
        self.c.error = error
        self.queue.wake(POLLERR)

    def _has_unread(self) -> bool:
        """Whether somebody's message gets lost: not for a first one that is empty, or only a mark."""
        first = self.c.first
        if first and first.start == first.size:
            first = first.next
        return bool(first)

    def release(self, embryo: bool = False) -> None:
        c = self.c
        c.is_dead = 1
        c.shutdown = RCV_SHUTDOWN | SEND_SHUTDOWN
        c.state = lib.UNIX_CLOSE
        peer = self.peer
        self.set_peer(None)
        if peer is not None and self.type != SOCK_DGRAM:
            peer.c.shutdown = RCV_SHUTDOWN | SEND_SHUTDOWN
            if self._has_unread() or embryo:
                peer.c.error = errno.ECONNRESET
            peer.queue.wake(ALL_EVENTS)
        c.oob = NULL
        self.names.forget(self, name_of(c))
        if self.place is not None and names.paths is not None:
            names.paths.leave(self.place, self)
            self.place = None
        if peer is not None:
            peer.relays.pop(self, None)
        self.peer_queue.wake(ALL_EVENTS)
        self.has_room()
        self.purge()
        rights.closed()

    # ioctl

    def pending(self) -> int:
        """SIOCINQ: bytes to be read; of a datagram socket those of the next one."""
        c = self.c
        if self.state == TCP_LISTEN:
            raise SysError(errno.EINVAL)
        if self.type == SOCK_DGRAM:
            first: int = c.first.size if c.first else 0
            return first
        size: int = c.size
        return size

    def fdinfo(self) -> bytes:
        return b"scm_fds: %u\n" % sum(1 for _ in self.carried())

    def _open_place(self, task: Task) -> int:
        """SIOCUNIXFILE: an O_PATH descriptor of the inode that it is bound to."""
        if not task.cred.ns_capable(task.nsproxy.net.user_ns, CAP_NET_ADMIN):
            raise SysError(errno.EPERM)
        if self.place is None or names.paths is None:
            raise SysError(errno.ENOENT)
        return task.install(names.paths.open(self.place), True)

    async def ioctl(self, task: Task, request: int, arg: int) -> int:
        if request == SIOCINQ:
            task.mm.write_u32(arg, self.pending())
        elif request == SIOCOUTQ:
            task.mm.write_u32(arg, self.c.wmem)
        elif request == SIOCUNIXFILE:
            return self._open_place(task)
        elif request == SIOCATMARK:
            raise SysError(errno.EOPNOTSUPP)
        else:
            raise SysError(errno.ENOTTY)
        return 0


assert len(UNNAMED) == SUN_PATH
