"""What Unix sockets are called (unix(7), "Address format"): paths, abstract names, and how they are found.

An address is kept as the bytes of its struct sockaddr_un: the family, then a path with its NUL, or a NUL
and an abstract name of any bytes.  Paths lead to an inode of type socket; whoever is bound to it stands
there, and how to get at inodes is `paths`, which sentry/fs/socket.py sets.
"""

from __future__ import annotations

import errno
from _bisect import bisect_right
from os import urandom

from sentry.abi.errors import SysError
from sentry.abi.socket import AF_UNIX, SUN_PATH, SUN_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from sentry.kernel.task import Task
    from sentry.net.unix.sock import UnixSock

    class Paths(Protocol):
        """The file system, as far as sockets need it.  A place is whatever `make` has returned."""

        async def make(self, task: Task, path: bytes, sock: UnixSock) -> Any:
            """A new name for `sock`; SysError(EADDRINUSE, and those of mknod(2))."""

        async def remove(self, task: Task, place: Any) -> None:
            """Take back what `make` has done."""

        async def find(self, task: Task, path: bytes) -> tuple[UnixSock, Any]:
            """Who is bound there, and the place; SysError(ECONNREFUSED, and those of a path walk)."""

        def touch(self, place: Any) -> None:
            """Somebody has connected there."""

        def open(self, place: Any) -> Any:
            """A File that only names the place (O_PATH)."""

        def leave(self, place: Any, sock: UnixSock) -> None:
            """`sock` is not bound there any more."""


paths: Paths | None = None
FAMILY = AF_UNIX.to_bytes(2, "little")
AUTOBIND_MOST = 1 << 20
#: Sockets of the whole sandbox, those that nobody has accepted yet among them.
MOST_SOCKETS = 1 << 18


class Names:
    """The abstract names of a network namespace, and all of its sockets in order of creation."""

    __slots__ = ("abstract", "max_dgram_qlen", "sockets")
    total = 0
    #: Of the last one that there was.
    number = 0

    def __init__(self) -> None:
        #: By address and type: sockets of different types may have the same name.
        self.abstract: dict[tuple[bytes, int], UnixSock] = {}
        #: By their numbers, which grow.
        self.sockets: dict[int, UnixSock] = {}
        #: net.unix.max_dgram_qlen: how many messages may wait for one that has no peer.
        self.max_dgram_qlen = 10

    def enter(self, sock: UnixSock) -> None:
        """A new socket; SysError(ENFILE)."""
        if Names.total >= MOST_SOCKETS:
            raise SysError(errno.ENFILE)
        Names.total += 1
        Names.number += 1
        sock.number = Names.number
        self.sockets[sock.number] = sock

    def after(self, number: int, count: int) -> list[UnixSock]:
        """The first `count` whose numbers are greater than `number`."""
        numbers = list(self.sockets)
        first = bisect_right(numbers, number)
        return [self.sockets[found] for found in numbers[first : first + count]]

    def autobind(self, sock: UnixSock) -> bytes:
        """A free abstract name of five hexadecimal digits; SysError(ENOSPC)."""
        number = int.from_bytes(urandom(3), "little")
        for _ in range(AUTOBIND_MOST):
            number = (number + 1) % AUTOBIND_MOST
            address = FAMILY + b"\0%05x" % number
            if (address, sock.type) not in self.abstract:
                self.abstract[address, sock.type] = sock
                return address
        raise SysError(errno.ENOSPC)

    def bind(self, sock: UnixSock, address: bytes) -> None:
        if (address, sock.type) in self.abstract:
            raise SysError(errno.EADDRINUSE)
        self.abstract[address, sock.type] = sock

    def forget(self, sock: UnixSock, address: bytes) -> None:
        """`sock` was closed."""
        if self.sockets.pop(sock.number, None) is not None:
            Names.total -= 1
        if self.abstract.get((address, sock.type)) is sock:
            del self.abstract[address, sock.type]


def check(address: bytes) -> None:
    """SysError(EINVAL) for what is no address, or none to send or connect to."""
    if not SUN_PATH < len(address) <= SUN_SIZE or address[:SUN_PATH] != FAMILY:
        raise SysError(errno.EINVAL)


def path_of(address: bytes) -> bytes:
    """The path of an address, b"" of an abstract one."""
    return address[SUN_PATH:].split(b"\0", 1)[0]


async def find(task: Task, names: Names, address: bytes, type_: int) -> UnixSock:
    """Who is called so; SysError(ECONNREFUSED, EPROTOTYPE, ENOENT, EACCES…)."""
    path = path_of(address)
    if not path:
        sock = names.abstract.get((address, type_))
        if sock is None:
            raise SysError(errno.ECONNREFUSED)
        return sock
    assert paths is not None
    sock, place = await paths.find(task, path)
    if sock.type != type_:
        raise SysError(errno.EPROTOTYPE)
    paths.touch(place)
    return sock
