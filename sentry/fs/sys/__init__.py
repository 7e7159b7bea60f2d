"""sysfs, the little of it that programs look for: processors, memory nodes, loop devices, an empty cgroup
mount point.

Made of the same generated files as procfs (sentry/fs/proc/base.py).
"""

from __future__ import annotations

from sentry.fs.inode import Filesystem
from sentry.fs.proc.base import StaticDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.kernel import Kernel

SYSFS_MAGIC = 0x62656572


def _make_tree(kernel: Kernel) -> dict[bytes, Any]:
    from sentry.fs.sys.fixed import make_tree

    return make_tree(kernel)


class SysFilesystem(Filesystem):
    """The sysfs of a kernel."""

    type_name = b"sysfs"
    magic = SYSFS_MAGIC

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.readonly = False
        self._last_ino = 0
        self.root = StaticDirectory(self, _make_tree, kernel)

    def new_ino(self) -> int:
        self._last_ino += 1
        return self._last_ino
