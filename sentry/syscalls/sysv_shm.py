"""System V shared memory: shmget, shmat, shmdt, shmctl."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.ipc import (
    IPC_INFO,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    S_IRUGO,
    S_IWUGO,
    S_IXUGO,
    SHM_EXEC,
    SHM_INFO,
    SHM_INFO_DS,
    SHM_LOCK,
    SHM_RDONLY,
    SHM_REMAP,
    SHM_RND,
    SHM_STAT,
    SHM_STAT_ANY,
    SHM_UNLOCK,
    SHMID_DS,
    SHMINFO,
    SHMMIN,
)
from sentry.abi.mman import MAP_FIXED, MAP_SHARED, PAGE_MASK, PAGE_SIZE, PROT_EXEC, PROT_READ, PROT_WRITE
from sentry.abi.syscall_nr import SYS
from sentry.kernel.ipc.shm import Shm, shm_of
from sentry.syscalls.memory import acting
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.mm.shared import Segment
    from sentry.syscalls.args import Addr, Flags, Int, Size

_TOP = 1 << 64


@syscall(SYS.shmget, partial="SHM_HUGETLB finds no huge pages (ENOMEM); SHM_NORESERVE changes nothing")
def shmget(task: Task, key: Int, size: Size, flags: Flags) -> int:
    """shmget(2)."""
    return task.ipc.shm.get_segment(task, key, size, flags)


@syscall(SYS.shmat)
async def shmat(task: Task, shmid: Int, addr: Addr, flags: Flags) -> int:
    """shmat(2)."""
    if shmid < 0:
        raise SysError(errno.EINVAL)
    map_flags = MAP_SHARED
    if addr:
        if addr & PAGE_MASK:
            if not flags & SHM_RND:
                raise SysError(errno.EINVAL)
            addr &= ~PAGE_MASK
            if not addr and flags & SHM_REMAP:
                raise SysError(errno.EINVAL)
        map_flags |= MAP_FIXED
    elif flags & SHM_REMAP:
        raise SysError(errno.EINVAL)
    prot, wanted = PROT_READ, S_IRUGO
    if not flags & SHM_RDONLY:
        prot, wanted = prot | PROT_WRITE, wanted | S_IWUGO
    if flags & SHM_EXEC:
        prot, wanted = prot | PROT_EXEC, wanted | S_IXUGO
    shm = task.ipc.shm.find(shmid, Shm)
    shm.check(task.cred, wanted)
    mm = acting(task)
    memory = shm.memory
    covered = mm.tree.overlapping(addr, addr + memory.size) if addr else []
    if addr and not flags & SHM_REMAP and (covered or addr + memory.size >= _TOP):
        raise SysError(errno.EINVAL)
    file = memory.view if flags & SHM_RDONLY else memory
    memory.get()
    try:
        start = await mm.map(addr, memory.size, prot, map_flags, file, 0)
        shm.touch(task, True)
        _detached(task, [shm_of(vma.file) for vma in covered])
    finally:
        memory.put()
    return start


def _detached(task: Task, memories: list[Segment | None]) -> None:
    """`task` has taken mappings of these away."""
    if any(memories):
        for shm in task.ipc.shm.segments():
            if shm.memory in memories:
                shm.touch(task, False)


@syscall(SYS.shmdt)
def shmdt(task: Task, addr: Addr) -> None:
    """shmdt(2): the attachment that begins at `addr`, even if its beginning is not there any more."""
    if addr & PAGE_MASK:
        raise SysError(errno.EINVAL)
    mm = acting(task)
    found = None
    for vma in mm.tree:
        segment = shm_of(vma.file)
        if segment is None or vma.start - vma.offset != addr or (found is not None and vma.file is not found):
            continue
        if found is None:
            found = vma.file
        if vma.end - addr <= segment.size:
            mm.unmap(vma.start, vma.size)
    if found is None:
        raise SysError(errno.EINVAL)
    _detached(task, [shm_of(found)])


@syscall(SYS.shmctl)
def shmctl(task: Task, shmid: Int, command: Int, buf: Addr) -> int:
    """shmctl(2)."""
    if command < 0 or shmid < 0:
        raise SysError(errno.EINVAL)
    table = task.ipc.shm
    if command == IPC_INFO:
        task.mm.write(buf, SHMINFO.pack(table.max, SHMMIN, table.mni, table.mni, table.all, 0, 0, 0, 0))
        return table.highest
    if command == SHM_INFO:
        resident = sum(shm.memory.resident() for shm in table.segments()) // PAGE_SIZE
        task.mm.write(buf, SHM_INFO_DS.pack(len(table), table.total_pages, resident, 0, 0, 0))
        return table.highest
    if command in (IPC_STAT, SHM_STAT, SHM_STAT_ANY):
        shm = table.find(shmid, Shm) if command == IPC_STAT else table.at(shmid, Shm)
        if command != SHM_STAT_ANY:
            shm.check(task.cred, S_IRUGO)
        task.mm.write(buf, shm.pack(task.cred))
        return 0 if command == IPC_STAT else shm.id
    if command == IPC_SET:
        _, uid, gid, _, _, mode, *_ = SHMID_DS.unpack(task.mm.read(buf, SHMID_DS.size))
        shm = table.find(shmid, Shm)
        shm.check_owner(task.cred)
        shm.set_perm(task.cred, uid, gid, mode)
    elif command == IPC_RMID:
        shm = table.find(shmid, Shm)
        shm.check_owner(task.cred)
        table.mark(shm)
    elif command in (SHM_LOCK, SHM_UNLOCK):
        table.find(shmid, Shm).set_locked(task, command == SHM_LOCK)
    else:
        raise SysError(errno.EINVAL)
    return 0
