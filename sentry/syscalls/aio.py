"""Asynchronous I/O: io_setup, io_destroy, io_submit, io_cancel, io_getevents, io_pgetevents."""

from __future__ import annotations

import errno
from time import monotonic_ns

from sentry.abi.errors import SysError
from sentry.abi.fcntl import RWF_APPEND, RWF_NOWAIT, RWF_VALID
from sentry.abi.mman import MAP_SHARED, PROT_READ, PROT_WRITE, VM_DONTEXPAND
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import TIMESPEC, unpack_timespec
from sentry.fs.aio import IO_EVENT, IOCB, AioContext, AioTable, Poll
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
#: So many events are copied before others have their turn.
_PIECE = 4096


def _table(task: Task) -> AioTable:
    mm = task.mm
    if mm.aio is None:
        mm.aio = AioTable()
    table: AioTable = mm.aio
    return table


def _find(task: Task, addr: int) -> AioContext:
    return _table(task).find(task.mm, addr)[1]


@syscall(SYS.io_setup)
async def io_setup(task: Task, count: UInt, place: Addr) -> None:
    """io_setup(2)."""
    if task.mm.read_u64(place) or not count:
        raise SysError(errno.EINVAL)
    mm = acting(task)
    context = AioContext(mm, count, task.kernel.host.cpus)
    ring = context.ring
    try:
        addr = await mm.map(0, ring.size, PROT_READ | PROT_WRITE, MAP_SHARED, ring)
    except SysError:
        context.destroy()
        raise SysError(errno.ENOMEM) from None
    ring.addr = addr
    try:
        mm.set_flags(addr, addr + ring.size, 0, VM_DONTEXPAND)
        mm.write_u64(place, addr)
    except SysError:
        context.destroy()
        mm.unmap(addr, ring.size)
        raise
    _table(task).enter(context)


@syscall(SYS.io_destroy)
def io_destroy(task: Task, addr: ULong) -> None:
    """io_destroy(2)."""
    table = _table(task)
    number, context = table.find(task.mm, addr)
    del table[number]
    size = context.ring.size
    context.destroy()
    try:
        acting(task).unmap(addr, size)
    except SysError:  # sealed: it stays
        pass


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
    if fields[9] or fields[7] >= 1 << 63:
        raise SysError(errno.EINVAL)
    context.take_slot()
    try:
        await _perform(task, context, addr, fields)
    except BaseException:
        context.give_back()
        raise


async def _perform(task: Task, context: AioContext, addr: int, fields: tuple[int, ...]) -> None:
    """What an iocb asks for.  SysError: it was not submitted."""
    data, _, rw_flags, opcode, _, fd, buf, size, offset, _, flags, resfd = fields
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
async def io_submit(task: Task, addr: ULong, count: Long, iocbs: Addr) -> int:
    """io_submit(2): what is submitted is done before the call returns, as with files that are cached."""
    if count < 0:
        raise SysError(errno.EINVAL)
    context = _find(task, addr)
    count = min(count, context.slots)
    done = 0
    while done < count:
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
def io_cancel(task: Task, addr: ULong, iocb: Addr, result: Addr) -> None:
    """io_cancel(2): only polls can be; the event comes by io_getevents(2)."""
    if task.mm.read_u32(iocb + 8):
        raise SysError(errno.EINVAL)
    context = _find(task, addr)
    context.poll_of(iocb).cancel()
    raise SysError(errno.EINPROGRESS)


async def _fetch(task: Task, context: AioContext, most: int, events: int) -> int:
    """Move at most `most` events to the program: how many.  SysError(EFAULT)."""
    done = 0
    while done < most:
        found, head = context.fetch(min(most - done, _PIECE))
        if found:
            try:
                task.mm.write(events + done * IO_EVENT.size, found)
            except SysError:
                if done:
                    break
                raise
            context.advance(head)
        count = len(found) // IO_EVENT.size
        done += count
        if count < _PIECE:
            break
        await breathe(done)
    return done


async def _events(task: Task, addr: int, least: int, most: int, events: int, deadline: int | None) -> int:
    context = _find(task, addr)
    if not 0 <= least <= most:
        raise SysError(errno.EINVAL)
    done, in_time = 0, True
    while True:
        try:
            done += await _fetch(task, context, most - done, events + done * IO_EVENT.size)
            if done >= least or not in_time:
                return done
            if context.dead:
                raise SysError(errno.EINVAL)
            in_time = await block((context.queue, 1), deadline=deadline)
        except (SysError, Interrupted):
            if not done:
                raise
            return done


def _deadline(task: Task, timeout: int) -> int | None:
    if not timeout:
        return None
    return monotonic_ns() + unpack_timespec(task.mm.read(timeout, TIMESPEC.size))


@syscall(SYS.io_getevents, on_signal=EINTR)
async def io_getevents(task: Task, addr: ULong, least: Long, most: Long, events: Addr, timeout: Addr) -> int:
    """io_getevents(2)."""
    return await _events(task, addr, least, most, events, _deadline(task, timeout))


@syscall(SYS.io_pgetevents, on_signal=EINTR)
async def io_pgetevents(
    task: Task, addr: ULong, least: Long, most: Long, events: Addr, timeout: Addr, sigmask: Addr
) -> int:
    """io_pgetevents(2)."""
    deadline = _deadline(task, timeout)
    if sigmask:
        mask, size = task.mm.read_u64(sigmask), task.mm.read_u64(sigmask + 8)
        if mask:
            if size != 8:
                raise SysError(errno.EINVAL)
            task.set_temporary_mask(task.mm.read_u64(mask))
    return await _events(task, addr, least, most, events, deadline)
