"""System V shared memory (sysvipc(7), shmget(2), shmat(2), shmctl(2); Linux ipc/shm.c).

A segment's memory is a `Segment` (mm/shared.py), which mappings refer to as they do to files; so the
number of attachments is the number of mappings, and what ends one (shmdt, munmap, exec, exit) ends an
attachment.
"""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi.capability import CAP_IPC_LOCK
from sentry.abi.errors import SysError
from sentry.abi.ipc import (
    SHM_DEST,
    SHM_HUGETLB,
    SHM_LOCKED,
    SHMALL,
    SHMID_DS,
    SHMMAX,
    SHMMIN,
    SHMMNI,
)
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.resource import RLIMIT_MEMLOCK
from sentry.fs import memfd
from sentry.kernel.ipc.ids import IpcIds, IpcObject, now
from sentry.mm.shared import ReadOnlyView, Segment
from sentry.mm.vma import number_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager


class Shm(IpcObject):
    """struct shmid_kernel."""

    __slots__ = ("atime", "cpid", "creator", "dtime", "locker", "lpid", "memory", "size", "table")

    def __init__(self, table: ShmTable, key: int, flags: int, size: int, task: Task) -> None:
        super().__init__(key, flags, task.cred)
        self.table = table
        #: As asked for; the memory is whole pages.
        self.size = size
        self.atime = self.dtime = self.lpid = 0
        self.cpid = task.group.tgid
        #: Whose end may be the segment's end (shm_rmid_forced).
        self.creator: Task | None = task
        #: Who locked it, and counts for it (SHM_LOCK).
        self.locker = -1
        commit = task.kernel.commit
        name = b"/SYSV%08x (deleted)" % (key & 0xFFFFFFFF)
        memory = self.memory = Segment(
            self.pages * PAGE_SIZE, name, commit, task.name, memfd.filesystem.reopen_readonly
        )
        memory.on_last = self._detached
        memory.on_replace = self._replaced

    @property
    def pages(self) -> int:
        return -(-self.size // PAGE_SIZE)

    @property
    def nattch(self) -> int:
        return sum(
            lib.mm_object_refs(number)
            for number in (number_of(self.memory), number_of(self.memory.view))
            if number
        )

    def pack(self, cred: Credentials) -> bytes:
        """struct shmid64_ds."""
        return SHMID_DS.pack(
            *self.perm(cred), self.size, self.atime, self.dtime, self.ctime, self.cpid, self.lpid,
            self.nattch, 0, 0,
        )  # fmt: skip

    def touch(self, task: Task, attached: bool) -> None:
        """`task` has attached the segment, or detached it."""
        self.lpid = task.group.tgid
        if attached:
            self.atime = now()
        else:
            self.dtime = now()

    def _detached(self) -> None:
        self.dtime = now()
        if not self.deleted and self._doomed:
            self.table.destroy(self)

    def _replaced(self, count: int) -> bool:
        """remap_file_pages(2) detaches before it attaches again, which may be the end of the segment."""
        if self._doomed and self.nattch <= count:
            return False
        self.atime = self.dtime = now()
        return True

    @property
    def _doomed(self) -> bool:
        return bool(self.mode & SHM_DEST) or self.table.rmid_forced

    def set_locked(self, task: Task, lock: bool) -> None:
        """SHM_LOCK, SHM_UNLOCK; SysError(EPERM, ENOMEM).  Shared memory is never swapped out anyway."""
        cred = task.cred
        if not cred.capable(CAP_IPC_LOCK):
            if cred.euid not in (self.uid, self.cuid):
                raise SysError(errno.EPERM)
            if lock:
                limit = task.group.limit(RLIMIT_MEMLOCK)
                if not limit:
                    raise SysError(errno.EPERM)
                if self.pages * PAGE_SIZE + self.table.locked_by(cred.euid) > limit:
                    raise SysError(errno.ENOMEM)
        if lock:
            if not self.mode & SHM_LOCKED:
                self.locker = cred.euid
            self.mode |= SHM_LOCKED
        else:
            self.mode &= ~SHM_LOCKED
            self.locker = -1


def shm_of(file: Any) -> Segment | None:
    """The segment that a mapping of `file` shows, if it is one."""
    if isinstance(file, ReadOnlyView):
        return file.segment
    return file if isinstance(file, Segment) else None


class ShmTable(IpcIds):
    """The segments of one namespace and their limits."""

    __slots__ = ("all", "max", "mni", "rmid_forced", "total_pages")

    def __init__(self) -> None:
        super().__init__()
        self.max, self.all, self.mni = SHMMAX, SHMALL, SHMMNI
        self.rmid_forced = False
        self.total_pages = 0

    def make(self, task: Task, key: int, size: int, flags: int) -> Shm:
        """A new segment; SysError(EINVAL, ENOSPC, ENOMEM)."""
        if not SHMMIN <= size <= self.max:
            raise SysError(errno.EINVAL)
        pages = -(-size // PAGE_SIZE)
        if self.total_pages + pages > self.all:
            raise SysError(errno.ENOSPC)
        if pages * PAGE_SIZE >= 1 << 63:
            raise SysError(errno.EINVAL)
        if flags & SHM_HUGETLB:
            raise SysError(errno.ENOMEM)  # there are no huge pages
        self.check_room(self.mni)
        shm = Shm(self, key, flags, size, task)
        self.total_pages += pages
        return shm

    def get_segment(self, task: Task, key: int, size: int, flags: int) -> int:
        """shmget(2)."""

        def check(found: IpcObject) -> None:
            assert isinstance(found, Shm)
            if found.size < size:
                raise SysError(errno.EINVAL)

        number = self.get(key, flags, task.cred, lambda: self.make(task, key, size, flags), check)
        shm = self.find(number, Shm)
        shm.memory.ino = number
        return number

    def mark(self, shm: Shm) -> None:
        """IPC_RMID: gone, or as good as gone, until the last mapping has."""
        if shm.memory.refs > 1:
            shm.mode |= SHM_DEST
            self.forget_key(shm)
        else:
            self.destroy(shm)

    def destroy(self, shm: Shm) -> None:
        self.remove(shm)
        self.total_pages -= shm.pages
        shm.memory.put()

    def destroy_orphans(self) -> None:
        """shm_rmid_forced was switched on: what nobody has attached, and whose maker has gone, goes."""
        for shm in self.segments():
            if shm.creator is None and shm.memory.refs == 1:
                self.destroy(shm)

    def segments(self) -> list[Shm]:
        return [shm for shm in self if isinstance(shm, Shm)]

    def locked_by(self, uid: int) -> int:
        """Bytes that `uid` has locked by SHM_LOCK."""
        return sum(shm.pages * PAGE_SIZE for shm in self.segments() if shm.locker == uid)

    def close(self) -> None:
        """The namespace is gone: its segments live on only where they are mapped."""
        for shm in self.segments():
            self.mark(shm)

    def _mapped(self, mm: MemoryManager) -> list[Shm]:
        """The segments of this namespace that `mm` shows, once for each mapping."""
        numbers = {}
        for shm in self.segments():
            for thing in (shm.memory, shm.memory.view) if shm.memory.refs > 1 else ():
                if number := number_of(thing):
                    numbers[number] = shm
        if not numbers:
            return []
        c = mm.c
        return [numbers[vma.file] for vma in c.vmas[0 : c.count] if vma.file in numbers]

    def forked(self, task: Task) -> None:
        """A child of `task` inherited its mappings."""
        for shm in self._mapped(task.mm):
            shm.touch(task, True)

    def leaving(self, task: Task, mm: MemoryManager) -> None:
        """`task` gives `mm` up, which nobody else uses."""
        for shm in self._mapped(mm):
            shm.touch(task, False)

    def exit_task(self, task: Task) -> None:
        """The end of a maker of segments (exit_shm)."""
        for shm in self.segments():
            if shm.creator is task:
                shm.creator = None
                if self.rmid_forced and shm.memory.refs == 1:
                    self.destroy(shm)

    def listing(self, cred: Credentials) -> bytes:
        """/proc/sysvipc/shm."""
        lines = [
            b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid"
            b"      atime      dtime      ctime                   rss                  swap\n"
        ]
        for shm in self.segments():
            lines.append(
                b"%10d %10d  %4o %21u %5u %5u  %5u %5u %5u %5u %5u %10u %10u %10u %21u %21u\n" % (
                    shm.key, shm.id, shm.mode, shm.size, shm.cpid, shm.lpid, shm.nattch, *shm.ids(cred),
                    shm.atime, shm.dtime, shm.ctime, shm.memory.resident(), 0,
                )
            )  # fmt: skip
        return b"".join(lines)
