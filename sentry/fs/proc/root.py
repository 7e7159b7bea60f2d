"""/proc itself.  What stands in it is imported when somebody looks."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.stat import DT_DIR
from sentry.fs.inode import CACHE_NEVER, Inode
from sentry.fs.proc.base import TASK_SHIFT, StaticDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.kernel import Kernel
    from sentry.kernel.pids import PidNamespace

#: Cursors of processes begin here, behind those of the fixed entries (FIRST_PROCESS_ENTRY).
FIRST_PROCESS = 512


class RootDirectory(StaticDirectory):
    __slots__ = ("_pids",)
    caching = CACHE_NEVER

    def __init__(self, fs: Any, kernel: Kernel, ino: int, pids: PidNamespace) -> None:
        def make_tree(kernel: Kernel) -> dict[bytes, Any]:
            from sentry.fs.proc.fixed import make_tree

            return make_tree(kernel, pids)

        super().__init__(fs, make_tree, kernel, ino)
        self._pids = pids

    async def lookup(self, name: bytes) -> Inode:
        if not name[:1].isdigit():
            return self.child(name)
        from sentry.fs.proc.task import TaskDirectory, parse_pid

        task = self._pids.tasks.get(parse_pid(name))
        if task is None:
            raise SysError(errno.ENOENT)
        return TaskDirectory(self.fs, task, False)

    async def refresh(self) -> None:
        self.look()
        self.nlink = 9 + len(self._pids.groups)

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        result = await super().entries(cursor, count) if cursor < FIRST_PROCESS else []
        tgids = sorted(tgid for tgid in self._pids.groups if tgid + FIRST_PROCESS >= cursor)
        for tgid in tgids[: count - len(result)]:
            ino = self._pids.groups[tgid].pid.serial << TASK_SHIFT | 1
            result.append((ino, tgid + FIRST_PROCESS + 1, DT_DIR, b"%d" % tgid))
        return result
