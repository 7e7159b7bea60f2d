"""NetNamespace: what sockets of one network namespace share (network_namespaces(7))."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.net.unix.names import Names


class NetNamespace:
    """Also a sentry.kernel.userns.Namespace to those who look."""

    __slots__ = ("_unix", "charge", "ino", "netlink_ports", "user_ns")
    kind = b"net"

    def __init__(self) -> None:
        self.ino = 0
        self.user_ns: Any = None
        self.charge: Any = None
        self._unix: Names | None = None
        #: Port ids of NETLINK_ROUTE that are in use.
        self.netlink_ports: set[int] = set()

    @property
    def unix(self) -> Names:
        """The Unix sockets, by their names."""
        if self._unix is None:
            from sentry.net.unix.names import Names

            self._unix = Names()
        return self._unix
