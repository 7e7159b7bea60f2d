"""IpcNamespace: all System V objects and message queues that its tasks see (ipc_namespaces(7))."""

from __future__ import annotations

from sentry.fs.mqueue import Mqueue
from sentry.kernel.ipc.msg import MsgTable
from sentry.kernel.ipc.sem import SemTable
from sentry.kernel.ipc.shm import ShmTable
from sentry.kernel.userns import INITIAL, Namespace


class IpcNamespace(Namespace):
    """struct ipc_namespace.  Holders count themselves by `get` and `put`."""

    __slots__ = ("mqueue", "msg", "sem", "shm", "users")
    kind = b"ipc"

    def __init__(self) -> None:
        super().__init__(INITIAL, 0)
        self.users = 1
        self.shm = ShmTable()
        self.sem = SemTable()
        self.msg = MsgTable()
        #: The file system of its POSIX message queues.
        self.mqueue = Mqueue()

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
