"""A file's storage: fsync(2) and its kin, fallocate(2), and advice about reading ahead."""

from __future__ import annotations

import errno
from _struct import pack, unpack

from sentry.abi.capability import CAP_FOWNER
from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    FALLOC_FL_COLLAPSE_RANGE,
    FALLOC_FL_INSERT_RANGE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_UNSHARE_RANGE,
    FALLOC_FL_ZERO_RANGE,
    O_APPEND,
)
from sentry.abi.fileattr import FS_APPEND_FL, FS_IMMUTABLE_FL
from sentry.abi.inotify import IN_MODIFY
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.stat import S_IFBLK, S_IFDIR, S_IFIFO, S_IFREG
from sentry.abi.syscall_nr import SYS
from sentry.fs import fsnotify
from sentry.syscalls.file_io import check_file_limit
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Int, Long, Size, UInt

_KNOWN_MODES = (
    FALLOC_FL_KEEP_SIZE
    | FALLOC_FL_PUNCH_HOLE
    | FALLOC_FL_COLLAPSE_RANGE
    | FALLOC_FL_ZERO_RANGE
    | FALLOC_FL_INSERT_RANGE
    | FALLOC_FL_UNSHARE_RANGE
)
SYNC_FILE_RANGE_VALID = 7
OFFSET_MAX = 0x7FFFFFFFFFFFFFFF


@syscall(SYS.fsync)
async def fsync(task: Task, fd: Fd) -> None:
    """fsync(2)."""
    await task.files.get(fd).fsync()


@syscall(SYS.fdatasync)
async def fdatasync(task: Task, fd: Fd) -> None:
    """fdatasync(2)."""
    await task.files.get(fd).fsync()


@syscall(SYS.sync_file_range)
async def sync_file_range(task: Task, fd: Fd, offset: Long, size: Long, flags: UInt) -> None:
    """sync_file_range(2)."""
    file = task.files.get(fd)
    if flags & ~SYNC_FILE_RANGE_VALID or offset < 0 or size < 0 or offset + size > OFFSET_MAX:
        raise SysError(errno.EINVAL)
    if file.inode.kind not in (S_IFREG, S_IFBLK, S_IFDIR):
        raise SysError(errno.ESPIPE)
    if flags:
        await file.fsync()


@syscall(SYS.fallocate, partial="the modes that the file system has; tmpfs: none, KEEP_SIZE, PUNCH_HOLE")
async def fallocate(task: Task, fd: Fd, mode: Int, offset: Long, size: Long) -> None:
    """fallocate(2)."""
    file = task.files.get(fd)
    if offset < 0 or size <= 0:
        raise SysError(errno.EINVAL)
    if mode & ~_KNOWN_MODES:
        raise SysError(errno.EOPNOTSUPP)
    if mode & FALLOC_FL_PUNCH_HOLE and not mode & FALLOC_FL_KEEP_SIZE:
        raise SysError(errno.EOPNOTSUPP)
    if not file.writable:
        raise SysError(errno.EBADF)
    if file.flags & O_APPEND and mode & ~FALLOC_FL_KEEP_SIZE:
        raise SysError(errno.EPERM)
    flags = file.inode.fsflags or 0
    if flags & FS_IMMUTABLE_FL or (flags & FS_APPEND_FL and mode & ~FALLOC_FL_KEEP_SIZE):
        raise SysError(errno.EPERM)
    kind = file.inode.kind
    if kind == S_IFIFO:
        raise SysError(errno.ESPIPE)
    if kind == S_IFDIR:
        raise SysError(errno.EISDIR)
    if kind not in (S_IFREG, S_IFBLK):
        raise SysError(errno.ENODEV)
    if offset + size > OFFSET_MAX:
        raise SysError(errno.EFBIG)
    if kind == S_IFREG and not mode & (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE):
        check_file_limit(task, file.inode.size, offset + size)
    await file.fallocate(mode, offset, size)
    if fsnotify.watching:
        fsnotify.happened(file.path, IN_MODIFY)


@syscall(SYS.fadvise64)
def fadvise64(task: Task, fd: Fd, offset: Long, size: Size, advice: Int) -> None:
    """posix_fadvise(2): nothing is done with the advice."""
    file = task.files.get(fd)
    if file.inode.kind == S_IFIFO:
        raise SysError(errno.ESPIPE)
    if not 0 <= advice <= 5 or size > OFFSET_MAX:
        raise SysError(errno.EINVAL)


@syscall(SYS.readahead)
def readahead(task: Task, fd: Fd, offset: Long, count: Size) -> None:
    """readahead(2): the host reads ahead by itself."""
    file = task.files.get(fd)
    if not file.readable:
        raise SysError(errno.EBADF)
    if file.inode.kind not in (S_IFREG, S_IFBLK):
        raise SysError(errno.EINVAL)


@syscall(SYS.cachestat, partial="all of a file of the host's counts as cached and clean")
def cachestat(task: Task, fd: Fd, range_at: Addr, stat_at: Addr, flags: UInt) -> None:
    """cachestat(2).  Nothing is ever waiting to be written: memory has nowhere to go to."""
    file = task.files.get(fd)
    offset, size = unpack("<QQ", task.mm.read(range_at, 16))
    if flags:
        raise SysError(errno.EINVAL)
    inode = file.inode
    if not file.writable and inode.uid != task.cred.fsuid and not task.cred.capable(CAP_FOWNER):
        raise SysError(errno.EPERM)
    end = -(-inode.size // PAGE_SIZE)
    first = offset // PAGE_SIZE
    last = min(end, (offset + size - 1) // PAGE_SIZE + 1) if size else end
    count = max(0, last - first) if inode.kind == S_IFREG else 0
    if file.in_memory and count:
        count = file.node.data_pages(first, last)  # type: ignore[attr-defined]
    task.mm.write(stat_at, pack("<5Q", count, 0, 0, 0, 0))
