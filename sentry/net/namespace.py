"""NetNamespace: what sockets of one network namespace share (network_namespaces(7))."""

from __future__ import annotations

from sentry.net.unix.names import Names


class NetNamespace:
    __slots__ = ("unix",)

    def __init__(self) -> None:
        self.unix = Names()
