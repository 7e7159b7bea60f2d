"""Moving bytes between two files: sendfile(2), copy_file_range(2), splice(2), tee(2); and vmsplice(2).

All are loops of a read and a write of at most STEP bytes.  What was read from a pipe is always
written in full, since it can't be put back.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import IOV_MAX, MAX_RW_COUNT, O_APPEND, O_NONBLOCK
from sentry.abi.fileattr import FS_IMMUTABLE_FL
from sentry.abi.inotify import IN_ACCESS, IN_MODIFY
from sentry.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from sentry.abi.signal import SIGPIPE
from sentry.abi.stat import S_IFIFO, S_IFREG, S_IFSOCK
from sentry.abi.syscall_nr import SYS
from sentry.fs import fsnotify
from sentry.fs.anon import ANON_INODEFS
from sentry.fs.pipe import PipeFile
from sentry.kernel.wait import PARTS, Interrupted, block, yield_now
from sentry.syscalls.file_io import Waiter, allowed_size, check_area, iovecs, readv_file, write_bytes
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.file import File
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Size, UInt, ULong

STEP = 1 << 16
SPLICE_F_NONBLOCK = 2
SPLICE_F_ALL = 15


def _read_offset(task: Task, addr: int) -> int | None:
    """The offset at `addr`; None for a null pointer.  SysError(EINVAL) for a negative one."""
    if not addr:
        return None
    value: int = task.mm.read_u64(addr)
    if value >> 63:
        raise SysError(errno.EINVAL)
    return value


async def _take(task: Task, file: File, size: int, offset: int | None, nowait: bool) -> bytes:
    """Read up to `size` bytes from `file`; sleeps for a pipe unless `nowait`."""
    if offset is not None:
        return await file.pread(size, offset)
    waiter = Waiter(file, POLLIN)
    while True:
        try:
            return await file.read(size)
        except SysError as error:
            if error.errno != errno.EAGAIN or nowait:
                raise
        await waiter.wait()


async def _give(task: Task, file: File, data: bytes, offset: int | None, nowait: bool) -> int:
    """Write `data` to `file`; RLIMIT_FSIZE counts."""
    if file.seekable:
        at = offset if offset is not None else file.inode.size if file.flags & O_APPEND else file.pos
        data = data[: allowed_size(task, file, at, len(data))]
    if offset is not None:
        return await file.pwrite(data, offset)
    return await write_bytes(task, file, data, nowait)


async def _copy(
    task: Task, source: File, at: int | None, target: File, to: int | None, size: int, nowait: bool = False,
    once: bool = False, single: bool = False,
) -> int:  # fmt: skip
    """Copy up to `size` bytes from `source` (at its position, or offset `at`) to `target`; `once`: what
    stops it is not tried again, so that a limit that is met on the way sends no signal; `single`: no more
    than one read gives."""
    done = rounds = 0
    # What comes from a socket can't go back, so it is written even if that takes a while.
    give_up = nowait and (source.seekable or isinstance(source, PipeFile))
    source.get()
    target.get()
    try:
        while done < size:
            pos = source.pos
            data = await _take(
                task, source, min(size - done, STEP), None if at is None else at + done, nowait or done > 0
            )
            if not data:
                break
            try:
                count = await _give(task, target, data, None if to is None else to + done, give_up)
            except (SysError, Interrupted):
                _put_back(source, at, pos, data)
                raise
            done += count
            if fsnotify.watching:
                fsnotify.happened(source.path, IN_ACCESS)
                fsnotify.happened(target.path, IN_MODIFY)
            if count < len(data):
                _put_back(source, at, pos + count, data[count:])
                if once or not count:
                    break
            elif single:
                break
            rounds += 1
            if count >= STEP // 2 or not rounds % PARTS:
                await yield_now()
            if task.signal_pending():
                break
    except (SysError, Interrupted):
        if not done:
            raise
    finally:
        source.put()
        target.put()
    return done


def _put_back(source: File, at: int | None, pos: int, data: bytes) -> None:
    """`data`, which was read from `source` at its position `pos`, has not been written."""
    if isinstance(source, PipeFile):
        source.pipe.untake(data)
    elif at is None and source.seekable:
        source.pos = pos


@syscall(SYS.sendfile)
async def sendfile(task: Task, out_fd: Fd, in_fd: Fd, offset: Addr, count: Size) -> int:
    """sendfile(2)."""
    at = _read_offset(task, offset)
    source, target = task.files.get(in_fd), task.files.get(out_fd)
    if not source.readable or not target.writable:
        raise SysError(errno.EBADF)
    if at is not None and not source.seekable:
        raise SysError(errno.ESPIPE)
    if not source.seekable or source.inode.is_dir or target.flags & O_APPEND:
        raise SysError(errno.EINVAL)
    check_area(source, at, count)
    count = min(count, MAX_RW_COUNT)
    check_area(target, None, count)
    done = await _copy(task, source, at, target, None, count, bool(target.flags & O_NONBLOCK))
    if at is not None:
        task.mm.write_u64(offset, at + done)
    return done


@syscall(SYS.copy_file_range)
async def copy_file_range(
    task: Task, in_fd: Fd, in_offset: Addr, out_fd: Fd, out_offset: Addr, size: Size, flags: UInt
) -> int:
    """copy_file_range(2)."""
    source, target = task.files.get(in_fd), task.files.get(out_fd)
    at, to = _read_offset(task, in_offset), _read_offset(task, out_offset)
    if flags:
        raise SysError(errno.EINVAL)
    if source.inode.is_dir or target.inode.is_dir:
        raise SysError(errno.EISDIR)
    if source.inode.kind != S_IFREG or target.inode.kind != S_IFREG:
        raise SysError(errno.EINVAL)
    if not source.readable or not target.writable or target.flags & O_APPEND:
        raise SysError(errno.EBADF)
    if (target.inode.fsflags or 0) & FS_IMMUTABLE_FL:
        raise SysError(errno.EPERM)
    begin = source.pos if at is None else at
    dest = target.pos if to is None else to
    if max(begin, dest) + size >= 1 << 64:
        raise SysError(errno.EOVERFLOW)
    size = min(size, MAX_RW_COUNT)
    if source.inode is target.inode and begin < dest + size and dest < begin + size:
        raise SysError(errno.EINVAL)
    done = await _copy(task, source, at, target, to, size, once=True)
    if at is not None:
        task.mm.write_u64(in_offset, at + done)
    if to is not None:
        task.mm.write_u64(out_offset, to + done)
    return done


def _is_pipe(file: File) -> bool:
    return file.inode.kind == S_IFIFO


@syscall(SYS.splice)
async def splice(
    task: Task, in_fd: Fd, in_offset: Addr, out_fd: Fd, out_offset: Addr, size: Size, flags: UInt
) -> int:
    """splice(2)."""
    if not size:
        return 0
    if flags & ~SPLICE_F_ALL:
        raise SysError(errno.EINVAL)
    source, target = task.files.get(in_fd), task.files.get(out_fd)
    if not source.readable or not target.writable:
        raise SysError(errno.EBADF)
    if (in_offset and _is_pipe(source)) or (out_offset and _is_pipe(target)):
        raise SysError(errno.ESPIPE)
    if not _is_pipe(source) and not _is_pipe(target):
        raise SysError(errno.EINVAL)
    if ANON_INODEFS in (source.inode.fs, target.inode.fs):  # counters, timers, epoll sets
        raise SysError(errno.EINVAL)
    if source.inode is target.inode or (target.flags & O_APPEND and not _is_pipe(target)):
        raise SysError(errno.EINVAL)
    if (in_offset and not source.seekable) or (out_offset and not target.seekable):
        raise SysError(errno.EINVAL)
    at, to = _read_offset(task, in_offset), _read_offset(task, out_offset)
    if not _is_pipe(source):
        check_area(source, at, size)
    elif not _is_pipe(target):
        check_area(target, to, size)
    nowait = bool(flags & SPLICE_F_NONBLOCK or (source.flags | target.flags) & O_NONBLOCK)
    if isinstance(target, PipeFile):
        source.get()
        target.get()
        try:
            if isinstance(source, PipeFile):
                return await _between(task, source, target, min(size, MAX_RW_COUNT), nowait, keep=False)
            # Sleep for room first, so that nothing is taken from a socket or terminal in vain.
            await _room(task, target, nowait)
        finally:
            source.put()
            target.put()
    # One step: what is there now, as a pipe's read would give it.  Of a terminal that is a line, and its end
    # of file is left for the next one.
    single = not source.seekable and source.inode.kind not in (S_IFIFO, S_IFSOCK)
    done = await _copy(task, source, at, target, to, min(size, STEP), nowait, single=single)
    if at is not None:
        task.mm.write_u64(in_offset, at + done)
    if to is not None:
        task.mm.write_u64(out_offset, to + done)
    return done


@syscall(SYS.tee)
async def tee(task: Task, in_fd: Fd, out_fd: Fd, size: Size, flags: UInt) -> int:
    """tee(2)."""
    source, target = task.files.get(in_fd), task.files.get(out_fd)
    if flags & ~SPLICE_F_ALL:
        raise SysError(errno.EINVAL)
    if not size:
        return 0
    if not source.readable or not target.writable:
        raise SysError(errno.EBADF)
    if not isinstance(source, PipeFile) or not isinstance(target, PipeFile) or source.pipe is target.pipe:
        raise SysError(errno.EINVAL)
    nowait = bool(flags & SPLICE_F_NONBLOCK or (source.flags | target.flags) & O_NONBLOCK)
    source.get()
    target.get()
    try:
        return await _between(task, source, target, min(size, MAX_RW_COUNT), nowait, keep=True)
    finally:
        source.put()
        target.put()


async def _between(
    task: Task, source: PipeFile, target: PipeFile, size: int, nowait: bool, keep: bool
) -> int:
    """Wait for bytes, then for room, and copy what is there then; `keep`: the source has them still."""
    while True:
        if source.pipe.empty:
            if not source.pipe.writers:
                return 0
            if nowait:
                raise SysError(errno.EAGAIN)
            await block((source.queue, POLLIN | POLLHUP))
        elif not target.pipe.readers or target.pipe.full:
            await _room(task, target, nowait)
        else:
            break
    was_full = source.pipe.full
    done = source.pipe.copy_to(target.pipe, size)
    target.queue.wake(POLLIN | POLLRDNORM)
    if not keep:
        source.pipe.drop(done)
        if was_full and not source.pipe.full:
            source.queue.wake(POLLOUT | POLLWRNORM)
    return done


async def _room(task: Task, target: PipeFile, nowait: bool) -> None:
    """Sleep until there is room; SIGPIPE and SysError(EPIPE), SysError(EAGAIN)."""
    while True:
        if not target.pipe.readers:
            task.send_own(SIGPIPE)
            raise SysError(errno.EPIPE)
        if not target.pipe.full:
            return
        if nowait:
            raise SysError(errno.EAGAIN)
        await block((target.queue, POLLOUT | POLLERR))


@syscall(SYS.vmsplice, partial="bytes are copied: later writes to the memory do not show in the pipe")
async def vmsplice(task: Task, fd: Fd, iov: Addr, count: ULong, flags: UInt) -> int:
    """vmsplice(2)."""
    if flags & ~SPLICE_F_ALL:
        raise SysError(errno.EINVAL)
    file = task.files.get(fd)
    if not file.writable and not file.readable:
        raise SysError(errno.EBADF)
    vectors = iovecs(task, iov, count if count <= IOV_MAX else -1)
    if not vectors:
        return 0
    if not isinstance(file, PipeFile):
        raise SysError(errno.EBADF)
    nowait = bool(flags & SPLICE_F_NONBLOCK)
    if not file.writable:
        return await readv_file(task, file, vectors, None, nowait)
    file.get()
    try:
        return await _fill(task, file, vectors, nowait)
    finally:
        file.put()


async def _fill(task: Task, file: PipeFile, vectors: list[tuple[int, int]], nowait: bool) -> int:
    """Wait for room, then put in as much of the guest's memory as it takes."""
    await _room(task, file, nowait)
    done = 0
    for addr, size in vectors:
        part = 0
        while part < size and not file.pipe.full:
            try:
                data = task.mm.read(addr + part, min(size - part, STEP))
            except SysError:
                if not done:
                    raise
                return done
            count = await file.write(data)
            part += count
            done += count
            if count < len(data):
                return done
        if part < size:
            break
    return done
