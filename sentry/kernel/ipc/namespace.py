"""IpcNamespace: all System V objects and message queues that its tasks see (ipc_namespaces(7))."""

from __future__ import annotations

from sentry.kernel.ipc.msg import MsgTable
from sentry.kernel.ipc.sem import SemTable
from sentry.kernel.ipc.shm import ShmTable


class IpcNamespace:
    """struct ipc_namespace.  Holders count themselves by `get` and `put`."""

    __slots__ = ("msg", "sem", "shm", "users")

    def __init__(self) -> None:
        self.users = 1
        self.shm = ShmTable()
        self.sem = SemTable()
        self.msg = MsgTable()

    def get(self) -> IpcNamespace:
        self.users += 1
        return self

    def put(self) -> None:
        """One holder less; with the last one everything goes that has no other holder."""
        self.users -= 1
        if not self.users:
            self.shm.close()
            self.sem.close()
            self.msg.close()
