"""/proc/PID/map_files: a link for each mapping of a file, named by its addresses (proc_pid_map_files(5))."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.stat import DT_LNK, S_IFLNK
from sentry.fs.inode import Inode
from sentry.fs.proc.access import require_access
from sentry.fs.proc.base import GeneratedDirectory, current_task, require_alive
from sentry.fs.proc.links import of_own_process, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.dentry import Path
    from sentry.fs.inode import Filesystem
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task
    from sentry.mm.vma import Vma

#: Inode numbers: with the page number of the mapping's first address.
MAP_INODES = 1 << 61
_PAGE_SHIFT = 12


def _name(vma: Vma) -> bytes:
    return b"%x-%x" % (vma.start, vma.end)


class MapLink(Inode):
    """What is mapped at one place now: gone when the mapping has changed."""

    __slots__ = ("_name", "_task")

    def __init__(self, fs: Filesystem, task: Task, vma: Vma, uid: int, gid: int) -> None:
        readable, writable = getattr(vma.file, "readable", True), getattr(vma.file, "writable", True)
        mode = S_IFLNK | (0o400 if readable else 0) | (0o200 if writable else 0)
        super().__init__(fs, MAP_INODES | vma.start >> _PAGE_SHIFT, mode, uid, gid)
        self.size = 64
        self._task = task
        self._name = _name(vma)

    def _vma(self) -> Vma:
        require_access(self._task)
        return find(self._task, self._name)

    async def readlink(self) -> bytes:
        file = self._vma().file
        if file.path is None:
            text: bytes = getattr(file, "map_name", b"")
            return text
        return text_of(file.path, self._task)

    async def follow(self) -> Path | None:
        """Only for those who may see all of the system: the link leads past all directories."""
        task = current_task()
        if task is not None and not (
            task.cred.capable(CAP_SYS_ADMIN) or task.cred.capable(CAP_CHECKPOINT_RESTORE)
        ):
            raise SysError(errno.EPERM)
        path: Path | None = self._vma().file.path
        if path is None:
            raise SysError(errno.ENXIO)
        return path


def find(task: Task, name: bytes) -> Vma:
    """The mapping of a file that `name` spells exactly; SysError(ENOENT)."""
    try:
        start = int(name.partition(b"-")[0], 16)
    except ValueError:
        raise SysError(errno.ENOENT) from None
    vma = task.mm.find(start) if task.mm is not None else None
    if vma is None or vma.file is None or _name(vma) != name:
        raise SysError(errno.ENOENT)
    return vma


class MapDirectory(GeneratedDirectory):
    """Cursors count the mappings of files."""

    __slots__ = ("_task",)

    def __init__(self, fs: Filesystem, ino: int, task: Task, uid: int, gid: int) -> None:
        super().__init__(fs, ino, 0o500, uid, gid)
        self._task = task

    def grants(self, cred: Credentials, mask: int) -> bool:
        return of_own_process(self._task)

    async def lookup(self, name: bytes) -> Inode:
        require_access(self._task)
        return MapLink(self.fs, self._task, find(self._task, name), self.uid, self.gid)

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        require_alive(self._task)
        require_access(self._task)
        mm = self._task.mm
        vmas = [] if mm is None else [vma for vma in mm.tree if vma.file is not None]
        first = cursor - 2
        return [
            (MAP_INODES | vma.start >> _PAGE_SHIFT, cursor + i + 1, DT_LNK, _name(vma))
            for i, vma in enumerate(vmas[first : first + count])
        ]
