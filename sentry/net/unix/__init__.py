"""AF_UNIX (unix(7)): streams, datagrams and sequenced packets between the programs of a sandbox."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.socket import AF_UNIX, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM
from sentry.net.unix.dgram import DgramSock, SeqpacketSock
from sentry.net.unix.stream import StreamSock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.unix.names import Names
    from sentry.net.unix.sock import UnixSock

_KINDS: dict[int, Callable[[Names], UnixSock]] = {
    SOCK_STREAM: StreamSock, SOCK_DGRAM: DgramSock, SOCK_RAW: DgramSock, SOCK_SEQPACKET: SeqpacketSock,
}  # fmt: skip


def create(names: Names, type_: int, protocol: int) -> UnixSock:
    """socket(2); SysError(EPROTONOSUPPORT, ESOCKTNOSUPPORT).  The protocol is only looked at."""
    if protocol not in (0, AF_UNIX):
        raise SysError(errno.EPROTONOSUPPORT)
    kind = _KINDS.get(type_)
    if kind is None:
        raise SysError(errno.ESOCKTNOSUPPORT)
    return kind(names)
