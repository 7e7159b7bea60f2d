"""NetNamespace: what sockets of one network namespace share (network_namespaces(7))."""

from __future__ import annotations

from sentry.net.unix.names import Names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NetNamespace:
    """Also a sentry.kernel.userns.Namespace to those who look."""

    __slots__ = ("charge", "ino", "netlink_ports", "unix", "user_ns")
    kind = b"net"

    def __init__(self) -> None:
        self.ino = 0
        self.user_ns: Any = None
        self.charge: Any = None
        self.unix = Names()
        #: Port ids of NETLINK_ROUTE that are in use.
        self.netlink_ports: set[int] = set()
