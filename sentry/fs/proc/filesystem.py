"""The procfs of a kernel, to be mounted on /proc."""

from __future__ import annotations

from sentry.fs.inode import Filesystem, Inode
from sentry.fs.proc.base import StaticDirectory
from sentry.fs.proc.root import RootDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.pids import PidNamespace

PROC_MAGIC = 0x9FA0
ROOT_INO = 1
FIRST_INO = 0xF0000000


class ProcFilesystem(Filesystem):
    """The procfs of a kernel: `root` is its root directory."""

    type_name = b"proc"
    fixed_names = True
    magic = PROC_MAGIC

    def __init__(self, kernel: Kernel, pids: PidNamespace) -> None:
        super().__init__()
        self.kernel = kernel
        #: Whose processes it shows, by the numbers that they have there.
        self.pids = pids
        self.relatime_day = False
        self._last_ino = FIRST_INO
        self.root = RootDirectory(self, kernel, ROOT_INO, pids)
        self._net: StaticDirectory | None = None

    def new_ino(self) -> int:
        self._last_ino += 1
        return self._last_ino

    async def net(self) -> Inode:
        """/proc/PID/net: there is one network namespace."""
        if self._net is None:
            from sentry.fs.proc import net

            self._net = StaticDirectory(self, net.TREE, self.kernel)
        return self._net
