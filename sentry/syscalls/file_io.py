"""Reading and writing: read(2), write(2) and all their kin, lseek, getdents.

One rule for all: what was moved counts.  An error, a signal or a bad address after the first byte
ends the call with the number of bytes so far.  Guest buffers are moved in pieces of at most CHUNK,
so no call makes the Sentry hold more than that.  A file that isn't ready says EAGAIN; the call then
sleeps on the file's queue unless the file (or the call) is O_NONBLOCK.
"""

from __future__ import annotations

import errno
from _struct import Struct

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    IOV_MAX,
    MAX_RW_COUNT,
    O_APPEND,
    O_NONBLOCK,
    RWF_APPEND,
    RWF_NOAPPEND,
    RWF_NOWAIT,
    RWF_VALID,
    SEEK_HOLE,
)
from sentry.abi.inotify import IN_ACCESS, IN_MODIFY
from sentry.abi.mman import USER_END
from sentry.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT
from sentry.abi.resource import RLIM_INFINITY, RLIMIT_FSIZE
from sentry.abi.signal import SIGPIPE, SIGXFSZ
from sentry.abi.stat import S_IFREG
from sentry.abi.syscall_nr import SYS
from sentry.fs import fsnotify
from sentry.fs.file import APPEND
from sentry.fs.modify import without_set_ids
from sentry.kernel.wait import Interrupted, block, yield_now
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.file import File
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Flags, Int, Long, Size, UInt

CHUNK = 1 << 20
#: Where user space ends on Linux with four-level page tables.
_IOVEC = Struct("<QQ")
VFILE_PIPE: int = lib.VFILE_PIPE
_WRITABLE = POLLOUT | POLLERR


class Waiter:
    """Sleeps between the tries of one operation on a file that said EAGAIN."""

    __slots__ = ("_file", "_mask", "_slept")

    def __init__(self, file: File, mask: int) -> None:
        self._file = file
        self._mask = mask | POLLERR | POLLHUP
        self._slept = True

    async def wait(self) -> None:
        """Until it is worth trying again; Interrupted.  Ready by poll but EAGAIN once more (too little
        room, say) sleeps for a wake-up rather than trying at once for ever."""
        file = self._file
        if file.poll() & self._mask and self._slept:
            self._slept = False
            await yield_now()
            return
        self._slept = True
        await block((file.queue, self._mask))


def check_range(addr: int, size: int) -> None:
    """SysError(EFAULT) for a buffer that reaches out of user space, whatever of it is used (access_ok)."""
    if addr + size > USER_END:
        raise SysError(errno.EFAULT)


def check_area(file: File, offset: int | None, size: int) -> None:
    """SysError(EINVAL) for bytes beyond what a size or an offset can express (rw_verify_area)."""
    if size > 0x7FFFFFFFFFFFFFFF:
        raise SysError(errno.EINVAL)
    if file.seekable and (file.pos if offset is None else offset) + size > 0x7FFFFFFFFFFFFFFF:
        raise SysError(errno.EINVAL)


def iovecs(task: Task, addr: int, count: int) -> list[tuple[int, int]]:
    """The (address, size) pairs of an iovec array, cut to MAX_RW_COUNT; SysError(EINVAL, EFAULT)."""
    if count < 0 or count > IOV_MAX:
        raise SysError(errno.EINVAL)
    data = task.mm.read(addr, count * 16) if count else b""
    pairs = list(_IOVEC.iter_unpack(data))
    for _, size in pairs:  # all of them before any address (copy_iovec_from_user)
        if size > 0x7FFFFFFFFFFFFFFF:
            raise SysError(errno.EINVAL)
    vectors = []
    total = 0
    for base, size in pairs:
        if count == 1:  # cut before it is looked at, where several are cut behind that (import_iovec)
            size = min(size, MAX_RW_COUNT)
        check_range(base, size)
        size = min(size, MAX_RW_COUNT - total)
        total += size
        if size:
            vectors.append((base, size))
    return vectors


def _store(task: Task, addr: int, data: bytes) -> int:
    """Copy to the guest: bytes copied, SysError(EFAULT) when not even one could be."""
    try:
        task.mm.write(addr, data)
        return len(data)
    except SysError:
        return task.mm.write_upto(addr, data)


def _fetch(task: Task, addr: int, size: int) -> bytes:
    """Copy from the guest: as much of `size` as can be, SysError(EFAULT) when not even one byte can."""
    try:
        return task.mm.read(addr, size)
    except SysError:
        return task.mm.read_upto(addr, size)


async def _read(task: Task, file: File, addr: int, size: int, offset: int | None, nowait: bool) -> int:
    """read(2) or pread(2) (with `offset`) into one buffer."""
    if file.messages:
        from sentry.syscalls.guestbytes import GuestSink

        return await file.receive(task, GuestSink(task, [(addr, size)]), nowait)
    if file.seekable:
        count = await _read_seekable(task, file, addr, size, offset)
        if fsnotify.watching and count:
            fsnotify.happened(file.path, IN_ACCESS)
        return count
    if offset is not None:
        raise SysError(errno.ESPIPE)
    waiter = Waiter(file, POLLIN)
    while True:
        try:
            return await file.read_to(min(size, CHUNK), lambda data, at=0: _store(task, addr + at, data))
        except SysError as error:
            if error.errno != errno.EAGAIN or nowait or file.flags & O_NONBLOCK:
                raise
        await waiter.wait()


async def _read_seekable(task: Task, file: File, addr: int, size: int, offset: int | None) -> int:
    """Piece by piece; the position only moves over what the guest got."""
    done = 0
    while True:
        want = min(size - done, CHUNK)
        try:
            if offset is not None:
                data = await file.pread(want, offset + done)
            else:
                before = file.pos
                data = await file.read(want)
            if not data:
                break
            try:
                stored = _store(task, addr + done, data)
            except SysError:
                if offset is None:
                    file.pos = before
                raise
            if stored < len(data) and offset is None and file.pos != before:  # some devices have no position
                file.pos = before + stored
        except SysError:
            if done:
                break
            raise
        done += stored
        if stored < want or done >= size:
            break
        await yield_now()
    return done


def _check_readable(file: File) -> None:
    if not file.readable:
        raise SysError(errno.EBADF)


def _check_writable(file: File) -> None:
    if not file.writable:
        raise SysError(errno.EBADF)


async def readv_file(
    task: Task, file: File, vectors: list[tuple[int, int]], offset: int | None, nowait: bool = False
) -> int:
    _check_readable(file)
    if offset is not None and not file.seekable:
        raise SysError(errno.ESPIPE)
    if file.messages:
        from sentry.syscalls.guestbytes import GuestSink

        return await file.receive(task, GuestSink(task, vectors), nowait)
    check_area(file, offset, sum(size for _, size in vectors))
    done = 0
    for addr, size in vectors:
        try:
            at = None if offset is None else offset + done
            count = await _read(task, file, addr, size, at, nowait or done > 0)
        except (SysError, Interrupted):
            if done:
                break
            raise
        done += count
        if count < size:
            break
    return done


async def _read_nothing(file: File) -> int:
    """A read of no bytes: EISDIR does not depend on data.  (A readv of none never gets that far.)"""
    if file.inode.is_dir:
        raise SysError(errno.EISDIR)
    return 0


@syscall(SYS.read)
async def read(task: Task, fd: Fd, buf: Addr, count: Size) -> int:
    """read(2)."""
    file = task.files.get(fd)
    _check_readable(file)
    check_range(buf, count)
    if not count and not file.counts:
        return await _read_nothing(file)
    check_area(file, None, count)
    file.get()
    try:
        return await _read(task, file, buf, min(count, MAX_RW_COUNT), None, False)
    finally:
        file.put()


@syscall(SYS.pread64)
async def pread64(task: Task, fd: Fd, buf: Addr, count: Size, offset: Long) -> int:
    """pread64(2)."""
    if offset < 0:
        raise SysError(errno.EINVAL)
    file = task.files.get(fd)
    if not file.seekable:
        raise SysError(errno.ESPIPE)
    _check_readable(file)
    check_range(buf, count)
    if not count:
        return await _read_nothing(file)
    return await _with_file(task, fd, readv_file, [(buf, min(count, MAX_RW_COUNT))], offset)


async def _with_file(task: Task, fd: int, operation, vectors, offset, nowait=False) -> int:  # type: ignore[no-untyped-def]
    """Run readv_file or writev_file with a reference held, since another thread may close the descriptor."""
    file = task.files.get(fd)
    file.get()
    try:
        count: int = await operation(task, file, vectors, offset, nowait)
        return count
    finally:
        file.put()


@syscall(SYS.readv)
async def readv(task: Task, fd: Fd, iov: Addr, count: Int) -> int:
    """readv(2)."""
    _check_readable(task.files.get(fd))
    return await _with_file(task, fd, readv_file, iovecs(task, iov, count), None)


@syscall(SYS.preadv)
async def preadv(task: Task, fd: Fd, iov: Addr, count: Int, low: Long, high: Long) -> int:
    """preadv(2)."""
    if low < 0:
        raise SysError(errno.EINVAL)
    file = task.files.get(fd)
    if not file.seekable:
        raise SysError(errno.ESPIPE)
    _check_readable(file)
    return await _with_file(task, fd, readv_file, iovecs(task, iov, count), low)


@syscall(SYS.preadv2)
async def preadv2(task: Task, fd: Fd, iov: Addr, count: Int, low: Long, high: Long, flags: Flags) -> int:
    """preadv2(2)."""
    if flags & ~RWF_VALID:
        raise SysError(errno.EOPNOTSUPP)
    if low < -1:
        raise SysError(errno.EINVAL)
    file = task.files.get(fd)
    if low != -1 and not file.seekable:
        raise SysError(errno.ESPIPE)
    _check_readable(file)
    if flags & RWF_NOWAIT and not file.nowait:
        raise SysError(errno.EOPNOTSUPP)
    offset = None if low == -1 else low
    return await _with_file(task, fd, readv_file, iovecs(task, iov, count), offset, bool(flags & RWF_NOWAIT))


def allowed_size(task: Task, file: File, offset: int, size: int) -> int:
    """How many of `size` bytes at `offset` RLIMIT_FSIZE allows; SIGXFSZ and SysError(EFBIG) for none."""
    limit = task.group.limit(RLIMIT_FSIZE)
    if limit == RLIM_INFINITY or file.inode.kind != S_IFREG or offset + size <= limit:
        return size
    if offset >= limit:
        task.send_own(SIGXFSZ)
        raise SysError(errno.EFBIG)
    return limit - offset


def check_file_limit(task: Task, old: int, size: int) -> None:
    """RLIMIT_FSIZE for a file that is to grow from `old` to `size`: SIGXFSZ and SysError(EFBIG)."""
    if size > old and size > task.group.limit(RLIMIT_FSIZE):
        task.send_own(SIGXFSZ)
        raise SysError(errno.EFBIG)


async def _write(task: Task, file: File, addr: int, size: int, offset: int | None, nowait: bool) -> int:
    """write(2) or pwrite(2) (with `offset`) from one buffer.  SIGPIPE comes with EPIPE."""
    seekable = file.seekable
    if offset is not None and not seekable:
        raise SysError(errno.ESPIPE)
    if file.discards:
        return size
    done = 0 if seekable else task.thread.take_progress()
    waiter = Waiter(file, POLLOUT)
    data = b""
    short = False
    while done < size or not size:
        want = min(size - done, CHUNK)
        try:
            if seekable:
                at = file.pos if offset is None else offset + done
                if file.flags & O_APPEND or offset == APPEND:
                    at = file.inode.size
                allowed = allowed_size(task, file, at, want)
                short = allowed < want
                want = allowed
            if not data:
                data = _fetch(task, addr + done, want) if want else b""
                if len(data) < want:
                    short = True
                    if not seekable:
                        data = _whole_pages(file, data, size - done)
            if offset is None:
                count = await file.write(data)
            else:
                count = await file.pwrite(data, offset if offset == APPEND else offset + done)
        except SysError as error:
            if error.errno == errno.EFAULT and file.c.kind == VFILE_PIPE and not file.poll() & _WRITABLE:
                error = SysError(errno.EAGAIN)  # a full pipe looks at no bytes
            if error.errno == errno.EAGAIN and not nowait and not file.flags & O_NONBLOCK:
                try:
                    await waiter.wait()
                except Interrupted:
                    if done:
                        break
                    raise
                continue
            if error.errno == errno.EPIPE:
                task.send_own(SIGPIPE)
            if done:
                break
            raise error from None
        done += count
        data = data[count:]
        if not size or (seekable and (data or short)) or (short and not data):
            break
        if seekable and done < size:
            await yield_now()
    if fsnotify.watching and done:
        fsnotify.happened(file.path, IN_MODIFY)
    return done


async def writev_file(
    task: Task, file: File, vectors: list[tuple[int, int]], offset: int | None, nowait: bool = False
) -> int:
    _check_writable(file)
    if file.messages:
        if offset not in (None, APPEND):
            raise SysError(errno.ESPIPE)
        from sentry.syscalls.guestbytes import GuestSource

        return await file.send(task, GuestSource(task, vectors), nowait) if vectors else 0
    check_area(file, offset, sum(size for _, size in vectors))
    if file.seekable:
        mode = without_set_ids(file.inode, task.cred)
        if mode is not None and vectors:
            await file.inode.setattr({"mode": mode})
    if len(vectors) > 1 and not file.seekable:
        vectors, gathered = _gather(task, file, vectors)
        if gathered is not None:
            return await write_bytes(task, file, gathered, nowait)
    done = 0
    for addr, size in vectors:
        try:
            at = offset if offset is None or offset == APPEND else offset + done
            count = await _write(task, file, addr, size, at, nowait)
        except (SysError, Interrupted):
            if done:
                break
            raise
        done += count
        if count < size:
            break
    return done


def _gather(
    task: Task, file: File, vectors: list[tuple[int, int]]
) -> tuple[list[tuple[int, int]], bytes | None]:
    """A small writev to a pipe, socket or terminal is one write: its bytes, as far as they can be read."""
    total = sum(size for _, size in vectors)
    if total > CHUNK:
        return vectors, None
    pieces = []
    for addr, size in vectors:
        try:
            piece = _fetch(task, addr, size)
        except SysError:
            piece = b""
        pieces.append(piece)
        if len(piece) < size:
            return vectors, _whole_pages(file, b"".join(pieces), total)
    return vectors, b"".join(pieces)


def _whole_pages(file: File, data: bytes, size: int) -> bytes:
    """What a pipe, which copies page by page, takes of `data`, all that could be read of `size` bytes;
    SysError(EFAULT)."""
    odd = size & 4095
    if not file.merges(odd):
        odd = 0
    data = data[: odd + (len(data) - odd & -4096)] if len(data) >= odd else b""
    if not data:
        raise SysError(errno.EFAULT)
    return data


async def write_bytes(task: Task, file: File, data: bytes, nowait: bool = False) -> int:
    """Write bytes that the Sentry holds at the file's position: how many, as `write` would say."""
    total = len(data)
    data = data[task.thread.take_progress() :]
    waiter = Waiter(file, POLLOUT)
    while True:
        try:
            data = data[await file.write(data) :]
            if not data:
                return total
        except SysError as error:
            if error.errno != errno.EAGAIN or nowait or file.flags & O_NONBLOCK:
                if error.errno == errno.EPIPE:
                    task.send_own(SIGPIPE)
                if len(data) < total:
                    return total - len(data)
                raise
            try:
                await waiter.wait()
            except Interrupted:
                if len(data) < total:
                    return total - len(data)
                raise


@syscall(SYS.write)
async def write(task: Task, fd: Fd, buf: Addr, count: Size) -> int:
    """write(2)."""
    file = task.files.get(fd)
    _check_writable(file)
    check_range(buf, count)
    if not count and file.inode.kind == S_IFREG:
        return 0
    return await _with_file(task, fd, writev_file, [(buf, min(count, MAX_RW_COUNT))], None)


@syscall(SYS.pwrite64)
async def pwrite64(task: Task, fd: Fd, buf: Addr, count: Size, offset: Long) -> int:
    """pwrite64(2)."""
    if offset < 0:
        raise SysError(errno.EINVAL)
    file = task.files.get(fd)
    if not file.seekable:
        raise SysError(errno.ESPIPE)
    _check_writable(file)
    check_range(buf, count)
    return await _with_file(task, fd, writev_file, [(buf, min(count, MAX_RW_COUNT))] if count else [], offset)


@syscall(SYS.writev)
async def writev(task: Task, fd: Fd, iov: Addr, count: Int) -> int:
    """writev(2)."""
    _check_writable(task.files.get(fd))
    return await _with_file(task, fd, writev_file, iovecs(task, iov, count), None)


@syscall(SYS.pwritev)
async def pwritev(task: Task, fd: Fd, iov: Addr, count: Int, low: Long, high: Long) -> int:
    """pwritev(2)."""
    if low < 0:
        raise SysError(errno.EINVAL)
    file = task.files.get(fd)
    if not file.seekable:
        raise SysError(errno.ESPIPE)
    _check_writable(file)
    return await _with_file(task, fd, writev_file, iovecs(task, iov, count), low)


@syscall(SYS.pwritev2, partial="RWF_NOAPPEND is refused (EOPNOTSUPP)")
async def pwritev2(task: Task, fd: Fd, iov: Addr, count: Int, low: Long, high: Long, flags: Flags) -> int:
    """pwritev2(2)."""
    if flags & ~RWF_VALID or flags & RWF_NOAPPEND:
        raise SysError(errno.EOPNOTSUPP)
    if low < -1:
        raise SysError(errno.EINVAL)
    file = task.files.get(fd)
    if low != -1 and not file.seekable:
        raise SysError(errno.ESPIPE)
    _check_writable(file)
    offset = None if low == -1 else low
    vectors, nowait = iovecs(task, iov, count), bool(flags & RWF_NOWAIT)
    if nowait and not file.nowait:
        raise SysError(errno.EOPNOTSUPP)
    if not flags & RWF_APPEND or not file.seekable:
        return await _with_file(task, fd, writev_file, vectors, offset, nowait)
    done = await _with_file(task, fd, writev_file, vectors, APPEND, nowait)
    if offset is None and done:
        await file.inode.refresh()
        file.pos = file.inode.size
    return done


@syscall(SYS.lseek)
async def lseek(task: Task, fd: Fd, offset: Long, whence: UInt) -> int:
    """lseek(2)."""
    file = task.files.get(fd)
    if whence > SEEK_HOLE:
        raise SysError(errno.EINVAL)
    return await file.lseek(offset, whence)
