"""/proc/PID/mem: the memory of a task as a file, whatever its mappings' protections (proc_pid_mem(5))."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import SEEK_CUR, SEEK_SET
from sentry.abi.mman import PAGE_SIZE, USER_END
from sentry.abi.stat import S_IFREG
from sentry.fs.file import File
from sentry.fs.inode import Inode
from sentry.fs.proc.access import require_access
from sentry.fs.proc.base import O_NONCREATION
from sentry.mm import force, residence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.dentry import Path
    from sentry.fs.inode import Filesystem
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager

_LARGEST = 1 << 20
#: Of /proc/PID/pagemap: bytes of an entry, entries of a read, and bits 63 and 61 in its last byte.
_ENTRY, _MOST_PAGES = 8, 1 << 16
_PRESENT, _SHARED = 0x80, 0x20
_U64 = (1 << 64) - 1


def memory_of(task: Task, cred: Credentials) -> MemoryManager:
    """The address space of `task`, for who may look into it; SysError(EACCES, ESRCH)."""
    require_access(task, cred)
    if task.mm is None:
        raise SysError(errno.ESRCH)
    return task.mm


class MemInode(Inode):
    __slots__ = ("_task",)

    def __init__(self, fs: Filesystem, ino: int, task: Task, uid: int, gid: int) -> None:
        super().__init__(fs, ino, S_IFREG | 0o600, uid, gid)
        self._task = task

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return MemFile(self, flags & O_NONCREATION, path, memory_of(self._task, cred))

    async def setattr(self, changes: dict[str, int]) -> None:
        if set(changes) - {"size", "atime", "mtime"}:
            raise SysError(errno.EPERM)


class PagemapInode(MemInode):
    __slots__ = ()

    def __init__(self, fs: Filesystem, ino: int, task: Task, uid: int, gid: int) -> None:
        super().__init__(fs, ino, task, uid, gid)
        self.mode = S_IFREG | 0o400

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return PagemapFile(self, flags & O_NONCREATION, path, memory_of(self._task, cred))


class MemFile(File):
    """Keeps to the memory that the task had when it was opened, even if the task executes another program;
    once that memory is gone reads find the end of file."""

    __slots__ = ("_mm",)

    def __init__(self, inode: Inode, flags: int, path: Path | None, mm: MemoryManager) -> None:
        super().__init__(inode, flags, path)
        self._mm = mm

    pollable = False
    seekable = True

    def _move(self, offset: int) -> int:
        """Go to an address, which may be any of 64 bits; the position, which is kept signed."""
        self.pos = offset if offset < 1 << 63 else offset - (1 << 64)
        return self.pos

    async def read(self, size: int) -> bytes:
        data = await self.pread(size, self.pos & _U64)
        self._move((self.pos & _U64) + len(data) & _U64)
        return data

    async def pread(self, size: int, offset: int) -> bytes:
        mm = self._mm
        if not mm.users or not size:
            return b""
        try:
            return force.read_upto(mm, offset, min(size, _LARGEST))
        except SysError:
            raise SysError(errno.EIO) from None

    async def write(self, data: bytes) -> int:
        written = await self.pwrite(data, self.pos & _U64)
        self._move((self.pos & _U64) + written & _U64)
        return written

    async def pwrite(self, data: bytes, offset: int) -> int:
        mm = self._mm
        if not mm.users or not data:
            return 0
        try:
            return force.write_upto(mm, offset, data)
        except SysError:
            raise SysError(errno.EIO) from None

    async def lseek(self, offset: int, whence: int) -> int:
        if whence == SEEK_CUR:
            offset += self.pos & _U64
        elif whence != SEEK_SET:
            raise SysError(errno.EINVAL)
        return self._move(offset & _U64)


class PagemapFile(MemFile):
    """8 bytes a page, as Linux has them for those who may not know where memory is: whether there is a page,
    and whether it is a file's or shared."""

    __slots__ = ()

    async def pread(self, size: int, offset: int) -> bytes:
        mm = self._mm
        if not mm.users:
            return b""
        if offset % _ENTRY or size % _ENTRY:
            raise SysError(errno.EINVAL)
        first = offset // _ENTRY
        count = min(size // _ENTRY, _MOST_PAGES, USER_END // PAGE_SIZE - first)
        if count <= 0:
            return b""
        result = bytearray(count * _ENTRY)
        start, end = first * PAGE_SIZE, (first + count) * PAGE_SIZE
        for vma in mm.tree.overlapping(start, end):
            low, high = max(start, vma.start), min(end, vma.end)
            states = mm.space.page_states(low, (high - low) // PAGE_SIZE) or b""
            there = _PRESENT | (_SHARED if residence.kind_of(vma) != residence.ANON else 0)
            for i, state in enumerate(states, low // PAGE_SIZE - first):
                if state:
                    result[i * _ENTRY + 7] = there
        return bytes(result)

    async def pwrite(self, data: bytes, offset: int) -> int:
        raise SysError(errno.EINVAL)
