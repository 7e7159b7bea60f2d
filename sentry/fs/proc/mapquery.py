"""PROCMAP_QUERY, an ioctl(2) of /proc/PID/maps: one mapping as a struct (proc_pid_maps(5), linux/fs.h).

Build ids are never told: that takes reading the file behind the mapping.
"""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi import mman
from sentry.abi.errors import SysError
from sentry.fs.proc import maps
from sentry.fs.proc.sequence import SequenceFile
from sentry.mm.shared import SHMEM_DEV, SharedAnonymous

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.mm.vma import Vma

PROCMAP_QUERY = 0xC0686611
#: size, query flags, address; start, end, flags, page size, offset, inode, device (two numbers), sizes and
#: then addresses of name and build id.
QUERY = Struct("<9Q4I2Q")
#: The least that `size` may be: up to the address.
LEAST = 24
READABLE, WRITABLE, EXECUTABLE, SHARED, OR_NEXT, FILE_BACKED = 1, 2, 4, 8, 16, 32
_PERMISSIONS = (
    (READABLE, mman.VM_READ), (WRITABLE, mman.VM_WRITE), (EXECUTABLE, mman.VM_EXEC), (SHARED, mman.VM_SHARED),
)  # fmt: skip


def _flags(vma: Vma) -> int:
    return sum(shown for shown, bit in _PERMISSIONS if vma.flags & bit)


def _suits(vma: Vma, wanted: int) -> bool:
    needed = wanted & (READABLE | WRITABLE | EXECUTABLE | SHARED)
    return _flags(vma) & needed == needed and not (wanted & FILE_BACKED and vma.file is None)


def _find(mm: MemoryManager, addr: int, wanted: int) -> Vma:
    for vma in mm.tree.above(addr):
        if vma.start > addr and not wanted & OR_NEXT:
            break
        if _suits(vma, wanted):
            return vma
        if not wanted & OR_NEXT:
            break
    raise SysError(errno.ENOENT)


class MapsFile(SequenceFile):
    __slots__ = ("mm", "task")
    #: Of `task`, when the file was opened.
    mm: MemoryManager | None
    task: Task

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        if request != PROCMAP_QUERY:
            raise SysError(errno.ENOTTY)
        size = int.from_bytes(task.mm.read(arg, 8), "little")
        if size > mman.PAGE_SIZE:
            raise SysError(errno.E2BIG)
        if size < LEAST:
            raise SysError(errno.EINVAL)
        data = task.mm.read(arg, size)
        if any(data[QUERY.size :]):
            raise SysError(errno.E2BIG)
        answer = self._answer(task, QUERY.unpack(data[: QUERY.size].ljust(QUERY.size, b"\0")))
        task.mm.write(arg, answer[:size])
        return 0

    def _answer(self, caller: Any, query: tuple[int, ...]) -> bytes:
        size, wanted, addr = query[:3]
        name_room, id_room, name_addr, id_addr = query[11:]
        if wanted >= FILE_BACKED << 1 or bool(name_room) != bool(name_addr) or bool(id_room) != bool(id_addr):
            raise SysError(errno.EINVAL)
        mm = self.mm
        if mm is None or not mm.users:
            raise SysError(errno.ESRCH)
        vma = _find(mm, addr, wanted)
        device = ino = offset = 0
        file = vma.file
        if isinstance(file, SharedAnonymous):
            device, ino, offset = SHMEM_DEV, file.ino, vma.offset
        elif file is not None:
            device, ino, offset = file.inode.fs.dev, file.inode.ino, vma.offset
        name = maps.name_of(self.task, mm, vma)
        name = name + b"\0" if name and name_room else b""
        if len(name) > name_room:
            raise SysError(errno.ENAMETOOLONG)
        if name:
            caller.mm.write(name_addr, name)
        return QUERY.pack(
            size, wanted, addr, vma.start, vma.end, _flags(vma), mman.PAGE_SIZE, offset, ino,
            device >> 8 & 0xFFF, device & 0xFF, len(name), 0, name_addr, id_addr,
        )  # fmt: skip
