"""Asynchronous I/O: io_setup, io_destroy, io_submit, io_cancel, io_getevents, io_pgetevents."""

from __future__ import annotations

import errno
from time import monotonic_ns

from sentry.abi.errors import SysError
from sentry.abi.fcntl import RWF_APPEND, RWF_NOWAIT, RWF_VALID
from sentry.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE, PAGE_SIZE, PROT_READ, PROT_WRITE
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import TIMESPEC, unpack_timespec
from sentry.fs.aio import IO_EVENT, IOCB, AioContext, AioTable, Poll, limits
from sentry.fs.eventfd import EventFile
from sentry.fs.file import APPEND
from sentry.kernel.wait import Interrupted, block, breathe
from sentry.syscalls import file_io
from sentry.syscalls.memory import acting
from sentry.syscalls.table import EINTR, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.file import File
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Long, UInt, ULong

PREAD, PWRITE, FSYNC, FDSYNC, POLL, PREADV, PWRITEV = 0, 1, 2, 3, 5, 7, 8
IOCB_FLAG_RESFD, IOCB_FLAG_IOPRIO = 1, 2
_MOST = 0x10000000 // IO_EVENT.size


def _table(task: Task) -> AioTable:
    mm = task.mm
    if mm.aio is None:
        mm.aio = AioTable()
    table: AioTable = mm.aio
    return table


@syscall(SYS.io_setup)
async def io_setup(task: Task, count: UInt, place: Addr) -> None:
    """io_setup(2)."""
    if task.mm.read_u64(place) or not count or count > _MOST:
        raise SysError(errno.EINVAL)
    limits.check(count)
    mm = acting(task)
    addr = await mm.map(0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
    try:
        limits.check(count)  # once more: others may have come meanwhile
    except SysError:
        mm.unmap(addr, PAGE_SIZE)
        raise
    context = AioContext(addr, count)
    try:
        mm.write_u64(place, addr)
    except SysError:
        context.destroy()
        mm.unmap(addr, PAGE_SIZE)
        raise
    _table(task)[addr] = context


@syscall(SYS.io_destroy)
def io_destroy(task: Task, number: ULong) -> None:
    """io_destroy(2)."""
    table = _table(task)
    table.find(number).destroy()
    del table[number]
    acting(task).unmap(number, PAGE_SIZE)


async def _transfer(task: Task, file: File, opcode: int, buf: int, size: int, offset: int, flags: int) -> int:
    """A read or write: bytes moved.  SysError as submitting it fails."""
    reads = opcode in (PREAD, PREADV)
    if not (file.readable if reads else file.writable):
        raise SysError(errno.EBADF)
    if opcode in (PREADV, PWRITEV):
        vectors = file_io.iovecs(task, buf, size)
    else:
        file_io.check_range(buf, size)
        vectors = [(buf, size)]
    if file.seekable and offset < 0:
        raise SysError(errno.EINVAL)
    at = offset if file.seekable else None
    if flags & RWF_APPEND and not reads:
        at = APPEND
    move = file_io.readv_file if reads else file_io.writev_file
    try:
        return await move(task, file, vectors, at, bool(flags & RWF_NOWAIT))
    except SysError as error:
        return -error.errno


async def _submit(task: Task, context: AioContext, addr: int) -> None:
    fields = IOCB.unpack(task.mm.read(addr, IOCB.size))
    data, _, rw_flags, opcode, _, fd, buf, size, offset, reserved, flags, resfd = fields
    if reserved or size >= 1 << 63:
        raise SysError(errno.EINVAL)
    if context.full:
        raise SysError(errno.EAGAIN)
    file = task.files.get(fd & 0x7FFFFFFF if fd < 1 << 31 else -1)
    eventfd = None
    if flags & IOCB_FLAG_RESFD:
        notified = task.files.get(resfd)
        if not isinstance(notified, EventFile):
            raise SysError(errno.EINVAL)
        eventfd = notified
    task.mm.write_u32(addr + 8, 0)
    if opcode not in (PREAD, PWRITE, FSYNC, FDSYNC, POLL, PREADV, PWRITEV):
        raise SysError(errno.EINVAL)
    if opcode == POLL:
        if buf > 0xFFFF or offset or size or rw_flags:
            raise SysError(errno.EINVAL)
        Poll(context, file, buf, data, addr, eventfd)
        return
    file.get()
    try:
        if opcode in (FSYNC, FDSYNC):
            if buf or offset or size or rw_flags:
                raise SysError(errno.EINVAL)
            await file.fsync()
            result = 0
        else:
            if rw_flags & ~RWF_VALID:
                raise SysError(errno.EOPNOTSUPP)
            result = await _transfer(task, file, opcode, buf, size, offset, rw_flags)
    finally:
        file.put()
    context.complete(data, addr, result, eventfd)


@syscall(SYS.io_submit, on_signal=EINTR)
async def io_submit(task: Task, number: ULong, count: Long, iocbs: Addr) -> int:
    """io_submit(2): what is submitted is done before the call returns, as with files that are cached."""
    if count < 0:
        raise SysError(errno.EINVAL)
    context = _table(task).find(number)
    done = 0
    while done < min(count, context.room):
        try:
            if done:
                await breathe(done)
            await _submit(task, context, task.mm.read_u64(iocbs + 8 * done))
        except (SysError, Interrupted):
            if not done:
                raise
            break
        done += 1
    return done


@syscall(SYS.io_cancel)
def io_cancel(task: Task, number: ULong, iocb: Addr, result: Addr) -> None:
    """io_cancel(2): only polls can be; the event comes by io_getevents(2)."""
    if task.mm.read_u32(iocb + 8):
        raise SysError(errno.EINVAL)
    context = _table(task).find(number)
    context.poll_of(iocb).cancel()
    raise SysError(errno.EINPROGRESS)


async def _events(task: Task, number: int, least: int, most: int, events: int, deadline: int | None) -> int:
    context = _table(task).find(number)
    if not 0 <= least <= most:
        raise SysError(errno.EINVAL)
    done = 0
    while True:
        while context.events and done < most:
            task.mm.write(events + done * IO_EVENT.size, context.events[0])
            context.events.popleft()
            done += 1
        if done >= least:
            return done
        if context.dead:
            raise SysError(errno.EINVAL)
        try:
            if not await block((context.queue, 1), deadline=deadline) and not context.events:
                return done
        except Interrupted:
            if not done:
                raise
            return done


def _deadline(task: Task, timeout: int) -> int | None:
    if not timeout:
        return None
    return monotonic_ns() + unpack_timespec(task.mm.read(timeout, TIMESPEC.size))


@syscall(SYS.io_getevents, on_signal=EINTR)
async def io_getevents(
    task: Task, number: ULong, least: Long, most: Long, events: Addr, timeout: Addr
) -> int:
    """io_getevents(2)."""
    return await _events(task, number, least, most, events, _deadline(task, timeout))


@syscall(SYS.io_pgetevents, on_signal=EINTR)
async def io_pgetevents(
    task: Task, number: ULong, least: Long, most: Long, events: Addr, timeout: Addr, sigmask: Addr
) -> int:
    """io_pgetevents(2)."""
    deadline = _deadline(task, timeout)
    if sigmask:
        addr, size = task.mm.read_u64(sigmask), task.mm.read_u64(sigmask + 8)
        if addr:
            if size != 8:
                raise SysError(errno.EINVAL)
            task.set_temporary_mask(task.mm.read_u64(addr))
    return await _events(task, number, least, most, events, deadline)
