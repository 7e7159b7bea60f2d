"""IpcNamespace: all System V objects and message queues that its tasks see (ipc_namespaces(7))."""

from __future__ import annotations

from sentry.fs.mqueue import Mqueue
from sentry.kernel.userns import INITIAL, Namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.ipc.msg import MsgTable
    from sentry.kernel.ipc.sem import SemTable
    from sentry.kernel.ipc.shm import ShmTable


class IpcNamespace(Namespace):
    """struct ipc_namespace.  Holders count themselves by `get` and `put`.  Tables are made when asked for."""

    __slots__ = ("_msg", "_sem", "_shm", "mqueue", "users")
    kind = b"ipc"

    def __init__(self) -> None:
        super().__init__(INITIAL, 0)
        self.users = 1
        self._shm: ShmTable | None = None
        self._sem: SemTable | None = None
        self._msg: MsgTable | None = None
        #: The file system of its POSIX message queues.
        self.mqueue = Mqueue()

    @property
    def shm(self) -> ShmTable:
        if self._shm is None:
            from sentry.kernel.ipc.shm import ShmTable

            self._shm = ShmTable()
        return self._shm

    @property
    def sem(self) -> SemTable:
        if self._sem is None:
            from sentry.kernel.ipc.sem import SemTable

            self._sem = SemTable()
        return self._sem

    @property
    def msg(self) -> MsgTable:
        if self._msg is None:
            from sentry.kernel.ipc.msg import MsgTable

            self._msg = MsgTable()
        return self._msg

    @property
    def has_segments(self) -> bool:
        return self._shm is not None and bool(self._shm.by_index)

    def get(self) -> IpcNamespace:
        self.users += 1
        return self

    def put(self) -> None:
        """One holder less; with the last one everything goes that has no other holder."""
        self.users -= 1
        if not self.users:
            for table in (self._shm, self._sem, self._msg):
                if table is not None:
                    table.close()
