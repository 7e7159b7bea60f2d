"""Descriptors: dup, close, fcntl, ioctl, flock."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_LEASE, CAP_SYS_RESOURCE
from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    F_ADD_SEALS,
    F_DUPFD,
    F_DUPFD_CLOEXEC,
    F_GET_SEALS,
    F_GETFD,
    F_GETFL,
    F_GETLEASE,
    F_GETLK,
    F_GETOWN,
    F_GETOWN_EX,
    F_GETPIPE_SZ,
    F_GETSIG,
    F_NOTIFY,
    F_OFD_GETLK,
    F_OFD_SETLK,
    F_OFD_SETLKW,
    F_RDLCK,
    F_SETFD,
    F_SETFL,
    F_SETLEASE,
    F_SETLK,
    F_SETLKW,
    F_SETOWN,
    F_SETOWN_EX,
    F_SETPIPE_SZ,
    F_SETSIG,
    F_UNLCK,
    F_WRLCK,
    FD_CLOEXEC,
    LOCK_EX,
    LOCK_MAND,
    LOCK_NB,
    LOCK_SH,
    LOCK_UN,
    O_APPEND,
    O_ASYNC,
    O_CLOEXEC,
    O_DIRECT,
    O_NOATIME,
    O_NONBLOCK,
    O_PATH,
    O_SETFL,
    SEEK_CUR,
    SEEK_END,
    SEEK_SET,
)
from sentry.abi.fileattr import FS_APPEND_FL
from sentry.abi.ioctl import FIBMAP, FIGETBSZ, FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, FIONREAD, FIOQSIZE
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.socket import FIOGETOWN, FIOSETOWN, SIOCGPGRP, SIOCSPGRP
from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFREG
from sentry.abi.syscall_nr import SYS
from sentry.fs import dnotify, leases, locks
from sentry.fs.memfd import MemfdFile
from sentry.fs.owner import F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, owner_of
from sentry.fs.pipe import PipeFile
from sentry.fs.walk import owner_or_capable
from sentry.kernel.wait import each
from sentry.syscalls import file_flags
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.file import File
    from sentry.fs.owner import FileOwner
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Fd, Int, UInt, ULong

#: F_SETOWN and F_GETOWN as ioctl(2) of sockets.
_OWNER_REQUESTS = (FIOSETOWN, SIOCSPGRP, FIOGETOWN, SIOCGPGRP)
CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4
F_DUPFD_QUERY, F_CREATED_QUERY = 1027, 1028
#: What fcntl does with an O_PATH descriptor.
_PATH_COMMANDS = (F_DUPFD, F_DUPFD_CLOEXEC, F_DUPFD_QUERY, F_CREATED_QUERY, F_GETFD, F_SETFD, F_GETFL)


@syscall(SYS.close)
def close(task: Task, fd: Fd) -> None:
    """close(2)."""
    task.files.close(fd)


@syscall(SYS.close_range)
async def close_range(task: Task, first: UInt, last: UInt, flags: UInt) -> None:
    """close_range(2)."""
    if flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) or first > last:
        raise SysError(errno.EINVAL)
    if flags & CLOSE_RANGE_UNSHARE and task.files.users > 1:
        task.files.check_copy(task.kernel.knobs.nr_open)
        copy = task.files.copy()
        task.files.users -= 1
        task.set_files(copy)
    if flags & CLOSE_RANGE_CLOEXEC:
        task.files.mark_range(first, last)
    else:
        await each(task.files.closing(first, last))


@syscall(SYS.dup)
def dup(task: Task, fd: Fd) -> int:
    """dup(2)."""
    return task.install(task.files.get_any(fd).get())


@syscall(SYS.dup2)
def dup2(task: Task, old: Fd, new: Fd) -> int:
    """dup2(2)."""
    if old == new:
        task.files.get_any(old)
        return new
    return _dup_to(task, old, new, False)


@syscall(SYS.dup3)
def dup3(task: Task, old: Fd, new: Fd, flags: UInt) -> int:
    """dup3(2)."""
    if flags & ~O_CLOEXEC or old == new:
        raise SysError(errno.EINVAL)
    return _dup_to(task, old, new, bool(flags))


def _dup_to(task: Task, old: int, new: int, cloexec: bool) -> int:
    if not 0 <= new < task.group.limit(RLIMIT_NOFILE):
        raise SysError(errno.EBADF)
    task.files.replace(new, task.files.get_any(old).get(), cloexec)
    return new


@syscall(SYS.fcntl)
async def fcntl(task: Task, fd: Fd, cmd: Int, arg: ULong) -> int:
    """fcntl(2)."""
    file = task.files.get_any(fd)
    if file.flags & O_PATH and cmd not in _PATH_COMMANDS:
        raise SysError(errno.EBADF)
    if cmd == F_GETFD:
        return FD_CLOEXEC if task.files.cloexec(fd) else 0
    if cmd == F_SETFD:
        task.files.set_cloexec(fd, bool(arg & FD_CLOEXEC))
        return 0
    if cmd == F_GETFL:
        return file.flags
    if cmd in (F_DUPFD, F_DUPFD_CLOEXEC):
        return _dup_from(task, file, arg & 0xFFFFFFFF, cmd == F_DUPFD_CLOEXEC)
    if cmd == F_SETFL:
        _set_flags(task, file, arg, fd)
        return 0
    if cmd == F_SETLEASE:
        return _set_lease(task, file, arg, fd)
    if cmd == F_NOTIFY:
        return _notify(task, file, arg, fd)
    operation = _COMMANDS.get(cmd)
    if operation is not None:
        return operation(task, file, arg)
    if cmd in _LOCKS:
        file.get()
        try:
            return await _lock(task, file, cmd, arg)
        finally:
            file.put()
    if cmd == F_DUPFD_QUERY:
        return int(task.files.get_any(arg & 0x7FFFFFFF) is file)
    if cmd == F_CREATED_QUERY:
        return int(file.created)
    raise SysError(errno.EINVAL)


def _dup_from(task: Task, file: File, minimum: int, cloexec: bool) -> int:
    if minimum >= task.group.limit(RLIMIT_NOFILE):
        raise SysError(errno.EINVAL)
    return task.install(file.get(), cloexec, minimum)


def _set_flags(task: Task, file: File, arg: int, fd: int) -> None:
    changed = (file.flags ^ arg) & O_SETFL
    if changed & arg & O_NOATIME and not owner_or_capable(file.inode, task.cred):
        raise SysError(errno.EPERM)
    if changed & arg & O_DIRECT and not isinstance(file, PipeFile) and not file.seekable:
        raise SysError(errno.EINVAL)
    if changed & O_APPEND and (file.inode.fsflags or 0) & FS_APPEND_FL:
        raise SysError(errno.EPERM)
    flags = file.flags & ~O_SETFL | arg & O_SETFL
    file.check_flags(flags)
    if changed & O_ASYNC:
        owner_of(file).set_async(file, bool(arg & O_ASYNC), fd)
    file.flags = flags


# Owners (who gets SIGIO)


def _signed(arg: int) -> int:
    return (arg & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def _set_owner(task: Task, file: File, arg: int) -> int:
    who = _signed(arg)
    if who == -0x80000000:
        raise SysError(errno.EINVAL)
    _name_owner(task, file, F_OWNER_PGRP if who < 0 else F_OWNER_PID, abs(who))
    return 0


def _name_owner(task: Task, file: File, kind: int, number: int) -> None:
    if number:
        if kind == F_OWNER_PGRP:
            pgrp = task.find_pgrp(number)
            number = 0 if pgrp is None else pgrp.pgid
        else:
            named = task.find_task(number)
            number = 0 if named is None else named.tid
        if not number:
            raise SysError(errno.ESRCH)
    owner = owner_of(file)
    owner.kernel = task.kernel
    owner.kind, owner.number = kind, number


def _get_owner(task: Task, file: File, arg: int) -> int:
    owner = file.owner
    if owner is None:
        return 0
    # A process group shows as a negative number, which is no error (fcntl(2), BUGS).
    number = _shown_owner(task, owner)
    return -number if owner.kind == F_OWNER_PGRP else number


def _shown_owner(task: Task, owner: FileOwner) -> int:
    """Its number as `task` sees it; 0 for one that is gone."""
    kernel = task.kernel
    known: Any = kernel.processes_by_pgid if owner.kind == F_OWNER_PGRP else kernel.tasks
    named = known.get(owner.number)
    return 0 if named is None else named.pid.nr(task.pid.ns)


def _set_owner_ex(task: Task, file: File, arg: int) -> int:
    data = task.mm.read_u64(arg)
    kind, number = data & 0xFFFFFFFF, _signed(data >> 32)
    if kind not in (F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP):
        raise SysError(errno.EINVAL)
    if number < 0:
        raise SysError(errno.ESRCH)
    _name_owner(task, file, kind, number)
    return 0


def _get_owner_ex(task: Task, file: File, arg: int) -> int:
    owner = file.owner
    kind, number = (F_OWNER_TID, 0) if owner is None else (owner.kind, _shown_owner(task, owner))
    task.mm.write_u64(arg, kind | number << 32)
    return 0


def _set_signal(task: Task, file: File, arg: int) -> int:
    if arg > 64:
        raise SysError(errno.EINVAL)
    owner_of(file).signo = arg
    return 0


def _get_signal(task: Task, file: File, arg: int) -> int:
    return 0 if file.owner is None else int(file.owner.signo)


# Pipes, seals, leases


def _set_pipe_size(task: Task, file: File, arg: int) -> int:
    if not isinstance(file, PipeFile):
        raise SysError(errno.EBADF)
    return file.pipe.resize(arg & 0xFFFFFFFF, task.cred.capable(CAP_SYS_RESOURCE))


def _get_pipe_size(task: Task, file: File, arg: int) -> int:
    if not isinstance(file, PipeFile):
        raise SysError(errno.EBADF)
    return file.pipe.max_slots * PAGE_SIZE


def _add_seals(task: Task, file: File, arg: int) -> int:
    if not isinstance(file, MemfdFile):
        raise SysError(errno.EINVAL)
    file.add_seals(arg)
    return 0


def _get_seals(task: Task, file: File, arg: int) -> int:
    if not isinstance(file, MemfdFile):
        raise SysError(errno.EINVAL)
    return file.seals()


def _get_lease(task: Task, file: File, arg: int) -> int:
    return leases.kind_of(file)


def _set_lease(task: Task, file: File, arg: int, fd: int) -> int:
    kind = _signed(arg)
    inode = file.inode
    if task.cred.fsuid != inode.uid and not task.cred.capable(CAP_LEASE):
        raise SysError(errno.EACCES)
    if inode.kind != S_IFREG or kind not in (F_RDLCK, F_WRLCK, F_UNLCK):
        raise SysError(errno.EINVAL)
    if kind != F_UNLCK:
        for table in {other.files for other in task.kernel.tasks.values() if other.files is not None}:
            table.meet(inode)
    leases.set_lease(file, fd, kind)
    if kind != F_UNLCK:
        owner_of(file).kernel = task.kernel
        if not owner_of(file).number:
            _name_owner(task, file, F_OWNER_PID, task.group.pid.nr(task.pid.ns))
    return 0


def _notify(task: Task, file: File, arg: int, fd: int) -> int:
    if not dnotify.limits.enabled:
        raise SysError(errno.EINVAL)
    if arg & ~dnotify.DN_MULTISHOT:
        if not file.inode.is_dir:
            raise SysError(errno.ENOTDIR)
        if file.owner is None or not file.owner.number:
            _name_owner(task, file, F_OWNER_PID, task.group.pid.nr(task.pid.ns))
    dnotify.notify(file, task.files.owner, fd, arg & 0xFFFFFFFF)
    return 0


_COMMANDS: dict[int, Callable[[Task, File, int], int]] = {
    F_SETOWN: _set_owner, F_GETOWN: _get_owner, F_SETOWN_EX: _set_owner_ex, F_GETOWN_EX: _get_owner_ex,
    F_SETSIG: _set_signal, F_GETSIG: _get_signal, F_SETPIPE_SZ: _set_pipe_size, F_GETPIPE_SZ: _get_pipe_size,
    F_ADD_SEALS: _add_seals, F_GET_SEALS: _get_seals, F_GETLEASE: _get_lease,
}  # fmt: skip

# Locks

_LOCKS = (F_GETLK, F_SETLK, F_SETLKW, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW)
#: struct flock: type, whence, start, length, pid; padded to 32 bytes.
_FLOCK_SIZE = 32


async def _lock(task: Task, file: File, cmd: int, arg: int) -> int:
    data = task.mm.read(arg, _FLOCK_SIZE)
    kind, whence = int.from_bytes(data[0:2], "little"), int.from_bytes(data[2:4], "little")
    start, length = (int.from_bytes(data[i : i + 8], "little", signed=True) for i in (8, 16))
    ofd = cmd in (F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW)
    testing = cmd in (F_GETLK, F_OFD_GETLK)
    if cmd == F_GETLK and kind not in (F_RDLCK, F_WRLCK):
        raise SysError(errno.EINVAL)
    if whence == SEEK_SET:
        base = 0
    elif whence == SEEK_CUR:
        base = file.pos
    elif whence == SEEK_END:
        await file.inode.refresh()
        base = file.inode.size
    else:
        raise SysError(errno.EINVAL)
    first, last = locks.lock_range(base, start, length)
    if kind not in (F_RDLCK, F_WRLCK, F_UNLCK):
        raise SysError(errno.EINVAL)
    named = ofd and data[24:28] != bytes(4)  # l_pid has to be 0
    owner = file.lock_owner if ofd else task.files.owner
    if testing:
        if named:
            raise SysError(errno.EINVAL)
        found = locks.posix_test(file.inode, owner, kind, first, last)
        task.mm.write(arg, _pack_lock(task, found, data))
        return 0
    if (kind == F_RDLCK and not file.readable) or (kind == F_WRLCK and not file.writable):
        raise SysError(errno.EBADF)
    if named:
        raise SysError(errno.EINVAL)
    pid = -1 if ofd else task.group.tgid
    waits = cmd in (F_SETLKW, F_OFD_SETLKW)
    await locks.posix_lock(file.inode, owner, kind, first, last, pid=pid, wait=waits, ofd=ofd)
    return 0


def _shown_pid(task: Task, pid: int) -> int:
    """The owner of a lock as `task` sees it; 0: it can't (locks_translate_pid)."""
    ns = task.pid.ns
    if pid <= 0 or not ns.level:
        return pid
    group = task.kernel.groups.get(pid)
    return 0 if group is None else group.pid.nr(ns)


def _pack_lock(task: Task, found: Any, asked: bytes) -> bytes:
    if found is None:
        return F_UNLCK.to_bytes(2, "little") + asked[2:]
    length = 0 if found.end >= locks.OFFSET_MAX else found.end - found.start + 1
    packed: bytes = (
        found.kind.to_bytes(2, "little") + SEEK_SET.to_bytes(2, "little") + bytes(4)
        + found.start.to_bytes(8, "little") + length.to_bytes(8, "little")
        + _shown_pid(task, found.pid).to_bytes(4, "little", signed=True) + bytes(4)
    )  # fmt: skip
    return packed


@syscall(SYS.flock)
async def flock(task: Task, fd: Fd, operation: Int) -> None:
    """flock(2)."""
    if operation & LOCK_MAND:
        return  # Linux takes these requests and does nothing
    file = task.files.get(fd)
    kind = {LOCK_SH: F_RDLCK, LOCK_EX: F_WRLCK, LOCK_UN: F_UNLCK}.get(operation & ~LOCK_NB)
    if kind is None:
        raise SysError(errno.EINVAL)
    file.get()
    try:
        await locks.flock(file.inode, file, kind, not operation & LOCK_NB)
    finally:
        file.put()


# ioctl


@syscall(SYS.ioctl, partial="requests of terminals, pipes, sockets, loop devices, maps and the generic ones")
async def ioctl(task: Task, fd: Fd, request: UInt, arg: ULong) -> int:
    """ioctl(2)."""
    file = task.files.get(fd)
    if request == FIOCLEX:
        task.files.set_cloexec(fd, True)
        return 0
    if request == FIONCLEX:
        task.files.set_cloexec(fd, False)
        return 0
    if request == FIONBIO:
        on = task.mm.read_u32(arg)
        file.flags = file.flags | O_NONBLOCK if on else file.flags & ~O_NONBLOCK
        return 0
    if request == FIOASYNC:
        on = task.mm.read_u32(arg)
        _set_flags(task, file, file.flags | O_ASYNC if on else file.flags & ~O_ASYNC, fd)
        return 0
    if file.messages and request in _OWNER_REQUESTS:
        if request in (FIOSETOWN, SIOCSPGRP):
            return _set_owner(task, file, task.mm.read_u32(arg))
        task.mm.write_u32(arg, _get_owner(task, file, 0))
        return 0
    kind = file.inode.kind
    if request == FIOQSIZE:
        if kind not in (S_IFREG, S_IFDIR, S_IFLNK):
            raise SysError(errno.ENOTTY)
        await file.inode.refresh()
        task.mm.write_u64(arg, file.inode.size)
        return 0
    if request == FIGETBSZ:
        task.mm.write_u32(arg, file.inode.blksize)
        return 0
    if kind == S_IFREG and request == FIONREAD:
        await file.inode.refresh()
        task.mm.write_u32(arg, (file.inode.size - file.pos) & 0xFFFFFFFF)
        return 0
    if kind == S_IFREG and request == FIBMAP:
        raise SysError(errno.EINVAL)
    if request in file_flags.REQUESTS:
        file_flags.request(task, file, request, arg)
        return 0
    file.get()
    try:
        return await file.ioctl(task, request, arg)
    finally:
        file.put()
