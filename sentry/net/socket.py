"""Sock: one endpoint of a protocol (struct sock), and what a family has to offer (struct proto_ops).

A SocketFile (fs/socket.py) has one and passes on what the program asks for.  Unlike a File, a Sock
sleeps by itself, since how long it may do so depends on the socket (SO_RCVTIMEO, SO_SNDTIMEO):

    deadline = self.send_deadline(nonblock)
    while not room():
        await self.sleep(POLLOUT, deadline)     # SysError(EAGAIN) once the time is over

What is sent comes from a `Source`, what is received goes to a `Sink`: a program's vectors, or bytes of
the Sentry's own (sendfile(2), splice(2)).
"""

from __future__ import annotations

import errno
from time import monotonic_ns

from sentry.abi.errors import SysError
from sentry.abi.poll import POLLERR, POLLHUP
from sentry.abi.socket import MSG_DONTWAIT
from sentry.kernel.wait import Interrupted, WaitQueue, block
from sentry.net.disposal import carry_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sentry.kernel.credentials import Credentials
    from sentry.kernel.pids import Pid
    from sentry.kernel.task import Task

    #: A process, a user and a group.
    Creds = tuple[Pid | None, int, int]

#: net.core.{w,r}mem_{default,max}: the sizes of buffers, before they are doubled.
WMEM_DEFAULT = RMEM_DEFAULT = 212992
WMEM_MAX = RMEM_MAX = 4194304
SNDBUF_LEAST, RCVBUF_LEAST = 4608, 2304
SOMAXCONN = 4096


class Source:
    """The bytes of one message, taken from the front."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bytes:
        """Exactly the next `size` bytes; SysError(EFAULT)."""
        raise NotImplementedError

    def skip(self, size: int) -> None:
        """They have been taken before."""
        self.take(size)


class BytesSource(Source):
    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self._data = data

    def take(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        self.left = len(self._data)
        return data


class Sink:
    """Room for `left` more bytes."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size

    def put(self, data: bytes) -> None:
        """Take all of `data`; SysError(EFAULT), and then the room is what it was."""
        raise NotImplementedError


class BytesSink(Sink):
    __slots__ = ("pieces",)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.pieces: list[bytes] = []

    def put(self, data: bytes) -> None:
        self.pieces.append(data)
        self.left -= len(data)

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


def _putting(files: list[Any]) -> Iterator[None]:
    for file in files:
        file.put()
        yield


class Ancillary:
    """What a message carries beside its bytes (struct scm_cookie).  A family decides what it takes."""

    __slots__ = ("creds", "files", "user")

    def __init__(self) -> None:
        #: Who has sent it, in the kernel's ids; None: nobody said.
        self.creds: Creds | None = None
        #: SCM_RIGHTS; references are held.
        self.files: list[Any] = []
        #: While it is under way: against whose limit the files count.
        self.user = 0

    def drop(self) -> None:
        """Let go of the files."""
        if self.files:
            files, self.files = self.files, []
            carry_out(_putting(files))


class Message:
    """One sendmsg(2) or recvmsg(2) under way (struct msghdr)."""

    __slots__ = ("ancillary", "flags", "inq", "name", "out_flags", "stamped", "timestamp")

    def __init__(self, flags: int, name: bytes = b"") -> None:
        #: MSG_… as the program gave them; MSG_DONTWAIT also for an O_NONBLOCK file.
        self.flags = flags
        #: The address to send to, or that of the sender; b"": none.
        self.name = name
        #: MSG_… to be told to the receiver.
        self.out_flags = 0
        #: None also for a receiver who got no message, which is another thing than an empty one.
        self.ancillary: Ancillary | None = None
        #: Whether it has a time of arrival, and that time (ns since the epoch; None: nobody noted it).
        self.stamped = False
        self.timestamp: int | None = None
        #: SO_INQ: bytes that are still to be read; None: the family does not say.
        self.inq: int | None = None

    @property
    def nonblock(self) -> bool:
        return bool(self.flags & MSG_DONTWAIT)


class Options:
    """What setsockopt(2) has set that means the same to every family."""

    __slots__ = (
        "buf_lock", "inq", "linger", "oobinline", "passcred", "passpidfd", "passrights", "passsec",
        "peek_off", "rcvlowat", "rcvtimeo", "sndtimeo", "stored", "timestamp",
    )  # fmt: skip

    def __init__(self) -> None:
        #: Which of SO_SNDBUF (1) and SO_RCVBUF (2) the program has set.
        self.buf_lock = 0
        self.inq = self.oobinline = self.passcred = self.passpidfd = self.passsec = False
        self.passrights = True
        #: (whether, seconds)
        self.linger = (0, 0)
        self.peek_off = -1
        self.rcvlowat = 1
        #: Nanoseconds; None: for ever.
        self.rcvtimeo: int | None = None
        self.sndtimeo: int | None = None
        #: SO_TIMESTAMP, SO_TIMESTAMPNS or one of their _NEW forms; 0: none.
        self.timestamp = 0
        #: By number: what is only there to be read again.
        self.stored: dict[int, int] = {}


class Sock:
    """`family`, `type` and `protocol` as socket(2) got them; `queue` is woken with poll bits."""

    __slots__ = ("cookie", "file", "options", "peer_cred", "protocol", "queue", "type")
    _last_cookie = 0
    family = 0
    #: How /proc/net/protocols calls it.
    proto_name = b""
    #: What getsockopt(2) tells; a family that shares them with the engine has properties instead.
    sndbuf: Any
    rcvbuf: Any
    state: Any

    def __init__(self, type_: int, protocol: int, queue: WaitQueue) -> None:
        self.type = type_
        self.protocol = protocol
        self.queue = queue
        self.options = Options()
        #: SO_COOKIE; 0: nobody has asked yet.
        self.cookie = 0
        #: The SocketFile, while there is one.
        self.file: Any = None
        #: SO_PEERCRED; None: nobody is connected.
        self.peer_cred: tuple[Pid, Credentials] | None = None

    @property
    def hot(self) -> Any:
        """What the engine serves reads and writes by: a struct unix_sock, or None."""
        return None

    def set_async(self, on: bool) -> None:
        """Somebody is to be told by a signal of what happens here, or not any more."""

    # Sleeping

    def send_deadline(self, nonblock: bool) -> int | None:
        """When sending gives up: ns, CLOCK_MONOTONIC; 0: at once, None: never."""
        limit = 0 if nonblock else self.options.sndtimeo
        return monotonic_ns() + limit if limit else limit

    def receive_deadline(self, nonblock: bool) -> int | None:
        limit = 0 if nonblock else self.options.rcvtimeo
        return monotonic_ns() + limit if limit else limit

    async def sleep(self, mask: int, deadline: int | None, queue: WaitQueue | None = None) -> None:
        """Until `queue` (the socket's own) is woken for `mask`: SysError(EAGAIN) when it is too late, also
        SysError(EINTR) or Interrupted: a call with a time limit is not restarted (socket(7))."""
        if deadline == 0:
            raise SysError(errno.EAGAIN)
        try:
            where = self.queue if queue is None else queue
            woken = await block((where, mask | POLLERR | POLLHUP), deadline=deadline)
        except Interrupted:
            if deadline is None:
                raise
            raise SysError(errno.EINTR) from None
        if not woken:
            raise SysError(errno.EAGAIN)

    # What a family does

    def take_error(self) -> int:
        """SO_ERROR: the pending error, which is told once; 0: none."""
        return 0

    def check_error(self) -> None:
        error = self.take_error()
        if error:
            raise SysError(error)

    def keep_error(self, error: int) -> None:
        """The program will be told at its next call, since this one has already done something."""

    def options_changed(self) -> None:
        """`options` has got a new value."""

    def write_space(self) -> None:
        """There may be room to send: tell who waits for that."""

    def set_peek_off(self, offset: int) -> None:
        """SO_PEEK_OFF; SysError(EOPNOTSUPP)."""
        raise SysError(errno.EOPNOTSUPP)

    def supports(self, option: int) -> bool:
        """Whether one of the options that not all families have makes sense here."""
        return False

    def memory(self) -> tuple[int, int]:
        """SO_MEMINFO: bytes that have arrived, bytes under way."""
        return 0, 0

    def set_own_option(self, task: Task, level: int, option: int, value: int, size: int) -> None:
        """setsockopt(2) of a level other than SOL_SOCKET."""
        raise SysError(errno.EOPNOTSUPP)

    def get_own_option(self, task: Task, level: int, option: int, value: int, length: int) -> None:
        raise SysError(errno.EOPNOTSUPP)

    def give_cookie(self) -> int:
        if not self.cookie:
            Sock._last_cookie += 1
            self.cookie = Sock._last_cookie
        return self.cookie

    def pair(self, other: Sock, task: Task) -> None:
        """socketpair(2)."""
        raise SysError(errno.EOPNOTSUPP)

    async def bind(self, task: Task, address: bytes) -> None:
        raise SysError(errno.EOPNOTSUPP)

    async def connect(self, task: Task, address: bytes, nonblock: bool) -> None:
        raise SysError(errno.EOPNOTSUPP)

    def listen(self, task: Task, backlog: int) -> None:
        raise SysError(errno.EOPNOTSUPP)

    async def accept(self, task: Task, nonblock: bool) -> Sock:
        """The next connection; SysError(EAGAIN, EINVAL…)."""
        raise SysError(errno.EOPNOTSUPP)

    def name(self) -> bytes:
        """getsockname(2): struct sockaddr."""
        raise SysError(errno.EOPNOTSUPP)

    def peer_name(self) -> bytes:
        """getpeername(2); SysError(ENOTCONN)."""
        raise SysError(errno.EOPNOTSUPP)

    def accepted_name(self) -> bytes:
        """What accept(2) tells of the other end; SysError(ECONNABORTED) when there is none any more."""
        try:
            return self.peer_name()
        except SysError:
            raise SysError(errno.ECONNABORTED) from None

    def poll(self) -> int:
        return 0

    def check_connected(self) -> None:
        """What sendmsg(2) refuses before it looks at control messages."""

    async def send(self, task: Task, source: Source, message: Message) -> int:
        """sendmsg(2): bytes taken.  SIGPIPE is sent from here.  `message.ancillary` passes to it."""
        raise SysError(errno.EOPNOTSUPP)

    async def receive(self, task: Task, sink: Sink, message: Message) -> int:
        """recvmsg(2): bytes given, or with MSG_TRUNC how long the message was."""
        raise SysError(errno.EOPNOTSUPP)

    def shutdown(self, mask: int) -> None:
        """shutdown(2): no more of RCV_SHUTDOWN, SEND_SHUTDOWN."""
        raise SysError(errno.EOPNOTSUPP)

    async def ioctl(self, task: Task, request: int, arg: int) -> int:
        raise SysError(errno.ENOTTY)

    def fdinfo(self) -> bytes:
        """Lines of /proc/PID/fdinfo."""
        return b""

    def release(self) -> None:
        """The file is closed."""
