"""Pipes and FIFOs (pipe(7), fifo(7); Linux fs/pipe.c).

A pipe is a row of slots of one page each.  A write goes on in the last slot when its odd bytes fit
there, else it takes new slots; so whatever fits one page is atomic, and "not full" (POLLOUT) means
that such a write will not have to wait.  A packet (O_DIRECT) has its slots for itself.

Both ends share the pipe's one wait queue and tell readers from writers by the poll bits.
"""

from __future__ import annotations

import errno
from time import time_ns

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_ACCMODE, O_DIRECT, O_NONBLOCK
from sentry.abi.ioctl import FIONREAD
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from sentry.fs.anon import PIPEFS, OwnInode
from sentry.fs.file import File
from sentry.kernel.wait import block
from sentry.platform.queue import SharedQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.inode import Inode
    from sentry.kernel.credentials import Credentials

DEFAULT_SLOTS = 16
SMALL_SLOTS = 2


class Limits:
    """/proc/sys/fs/pipe-*: the size that anybody may give a pipe; how many pages all pipes together may have
    before new ones become small, and before there are no more (0: no such limit)."""

    def __init__(self) -> None:
        self.max_size, self.soft_pages, self.hard_pages = 1 << 20, 16384, 0


limits = Limits()
#: Even for the privileged: pipes are the Sentry's own memory.
LARGEST, MOST_PAGES = 16 << 20, 65536
FIFO_FLAGS = 0o3 | O_NONBLOCK | O_DIRECT | 0o2000 | 0o20000 | 0o100000

READABLE = POLLIN | POLLRDNORM
WRITABLE = POLLOUT | POLLWRNORM

_pages = 0

#: What one `take` returns at most without a buffer of its own.
_SCRATCH_SIZE = 65536
_scratch = ffi.new("uint8_t[]", _SCRATCH_SIZE)


class Pipe:
    """The bytes under way, and how many ends are open: a struct pipe, which the fast paths use too."""

    __slots__ = ("c", "queue")

    def __init__(self) -> None:
        global _pages
        slots = DEFAULT_SLOTS
        if limits.soft_pages and _pages + slots > limits.soft_pages:
            slots = SMALL_SLOTS
        if limits.hard_pages and _pages + slots > limits.hard_pages:
            raise SysError(errno.ENFILE)
        c = lib.pipe_new(slots)
        if not c:
            raise SysError(errno.ENOMEM)
        _pages += slots
        self.c = ffi.gc(c, lib.pipe_free)
        self.queue = SharedQueue(ffi.addressof(c, "queue"), self.c)

    def free(self) -> None:
        """Both ends are closed."""
        global _pages
        _pages -= self.c.max_slots
        lib.pipe_clear(self.c)
        lib.pipe_resize(self.c, 0)

    @property
    def full(self) -> bool:
        return bool(self.c.count >= self.c.max_slots)

    @property
    def empty(self) -> bool:
        return not self.c.count

    @property
    def size(self) -> int:
        """Bytes to be read."""
        size: int = self.c.size
        return size

    @property
    def max_slots(self) -> int:
        slots: int = self.c.max_slots
        return slots

    @property
    def readers(self) -> int:
        readers: int = self.c.readers
        return readers

    @property
    def writers(self) -> int:
        writers: int = self.c.writers
        return writers

    def put(self, data: bytes, packet: bool) -> int:
        """Take as many bytes of `data` as there is room for; 0 when there is none."""
        taken: int = lib.pipe_put(self.c, ffi.from_buffer(data), len(data), packet)
        return taken

    def take(self, size: int) -> bytes:
        """Up to `size` bytes; of packets the first one, the rest of which is lost."""
        size = min(size, self.c.size)
        buffer = _scratch if size <= _SCRATCH_SIZE else ffi.new("uint8_t[]", size)
        data: bytes = ffi.buffer(buffer, lib.pipe_take(self.c, buffer, size))[:]
        return data

    def give(self, size: int, store: Callable[[bytes], int]) -> int:
        """As `take`, but of what is handed to `store` only goes what it says it has taken, slot by slot."""
        size = min(size, self.c.size)
        buffer = _scratch if size <= _SCRATCH_SIZE else ffi.new("uint8_t[]", size)
        stored = store(ffi.buffer(buffer, lib.pipe_peek(self.c, buffer, size))[:])
        given: int = lib.pipe_drop(self.c, stored, size)
        if not given:
            raise SysError(errno.EFAULT)
        return given

    def untake(self, data: bytes) -> None:
        """Put back what `take` gave, and nobody else wanted.  SysError(ENOMEM)."""
        if lib.pipe_untake(self.c, ffi.from_buffer(data), len(data)) < 0:
            raise SysError(errno.ENOMEM)
        self.queue.wake(READABLE)

    def drop(self, size: int) -> None:
        """The first `size` bytes have gone elsewhere."""
        lib.pipe_drop(self.c, size, size)

    def copy_to(self, target: Pipe, size: int) -> int:
        """tee(2): up to `size` bytes into `target` without taking them; how many there was room for."""
        copied: int = lib.pipe_copy(self.c, target.c, size)
        return copied

    def resize(self, size: int, privileged: bool) -> int:
        """F_SETPIPE_SZ (`size` is unsigned): what it really gets.  SysError(EINVAL, EPERM, EBUSY, ENOMEM)."""
        global _pages
        if size > 1 << 31:
            raise SysError(errno.EINVAL)
        pages = max(1, (size + PAGE_SIZE - 1) // PAGE_SIZE)
        pages = 1 << (pages - 1).bit_length()
        had = self.max_slots
        if pages > had:
            total = _pages + pages - had
            too_many = any(most and total > most for most in (limits.soft_pages, limits.hard_pages))
            if (pages * PAGE_SIZE > limits.max_size or too_many) and not privileged:
                raise SysError(errno.EPERM)
            if pages * PAGE_SIZE > LARGEST or total > MOST_PAGES:
                raise SysError(errno.EPERM)
        if pages < self.c.count:
            raise SysError(errno.EBUSY)
        was_full = self.full
        if lib.pipe_resize(self.c, pages) < 0:
            raise SysError(errno.ENOMEM)
        _pages += pages - had
        if was_full and not self.full:
            self.queue.wake(WRITABLE)
        return pages * PAGE_SIZE


class PipeFile(File):
    """An end of a pipe, or both (a FIFO opened O_RDWR)."""

    __slots__ = ("opens_seen", "pipe")

    def __init__(self, pipe: Pipe, inode: Inode, flags: int, path: Path | None) -> None:
        super().__init__(inode, flags, path)
        self.pipe = pipe
        self.queue = pipe.queue
        self.c.object = pipe.c
        self.c.kind = lib.VFILE_PIPE
        #: `writer_opens` when a FIFO was opened without waiting for a writer: no POLLHUP before one came.
        self.opens_seen = -1
        if self.readable:
            pipe.c.readers += 1
            pipe.c.reader_opens += 1
        if self.writable:
            pipe.c.writers += 1
            pipe.c.writer_opens += 1

    def release(self) -> None:
        pipe = self.pipe
        if self.readable:
            pipe.c.readers -= 1
        if self.writable:
            pipe.c.writers -= 1
        if not pipe.readers and not pipe.writers:
            pipe.free()
            if self.inode.attached is pipe:
                self.inode.attached = None
        elif not pipe.readers or not pipe.writers:
            pipe.queue.wake(READABLE | WRITABLE | POLLERR | POLLHUP)

    def poll(self) -> int:
        pipe = self.pipe
        mask = 0
        if self.readable:
            if not pipe.empty:
                mask |= READABLE
            if not pipe.writers and self.opens_seen != pipe.c.writer_opens:
                mask |= POLLHUP
        if self.writable:
            if not pipe.full:
                mask |= WRITABLE
            if not pipe.readers:
                mask |= POLLERR
        return mask

    async def read(self, size: int) -> bytes:
        if not self._may_read(size):
            return b""
        was_full = self.pipe.full
        data = self.pipe.take(size)
        self._was_read(was_full)
        return data

    async def read_to(self, size: int, store: Callable[..., int]) -> int:
        if not self._may_read(size):
            return 0
        was_full = self.pipe.full
        given = self.pipe.give(size, store)
        self._was_read(was_full)
        return given

    def _may_read(self, size: int) -> bool:
        """False at the end; SysError(EBADF, EAGAIN)."""
        pipe = self.pipe
        if not self.readable:
            raise SysError(errno.EBADF)
        if size and pipe.empty and pipe.writers:
            raise SysError(errno.EAGAIN)
        return bool(size) and not pipe.empty

    def _was_read(self, was_full: bool) -> None:
        self.inode.atime = time_ns()
        if was_full and not self.pipe.full:
            self.pipe.queue.wake(WRITABLE)

    def merges(self, odd: int) -> bool:
        return bool(lib.pipe_merges(self.pipe.c, odd, bool(self.flags & O_DIRECT)))

    async def write(self, data: bytes) -> int:
        pipe = self.pipe
        if not self.writable:
            raise SysError(errno.EBADF)
        if not data:
            return 0
        if not pipe.readers:
            raise SysError(errno.EPIPE)
        taken = pipe.put(data, bool(self.flags & O_DIRECT))
        if not taken:
            raise SysError(errno.EAGAIN)
        self.inode.mtime = self.inode.ctime = time_ns()
        pipe.queue.wake(READABLE)
        return taken

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        if request == FIONREAD:
            task.mm.write_u32(arg, self.pipe.size)
            return 0
        raise SysError(errno.ENOTTY)


class PipeInode(OwnInode):
    """The inode of a pipe(2); opened again through /proc/PID/fd it behaves as a FIFO."""

    __slots__ = ()

    def __init__(self, uid: int, gid: int) -> None:
        ino = PIPEFS.new_ino()
        super().__init__(PIPEFS, ino, 0o010600, b"pipe:[%d]" % ino, uid, gid)

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return await open_fifo(self, flags, path)


def open_pipe(flags: int, cred: Credentials) -> tuple[PipeFile, PipeFile]:
    """pipe2(2): the read end and the write end; `flags` are O_NONBLOCK and O_DIRECT."""
    inode = PipeInode(cred.fsuid, cred.fsgid)
    path = PIPEFS.path(inode)
    pipe = inode.attached = Pipe()
    flags &= O_NONBLOCK | O_DIRECT
    # Linux keeps O_DIRECT on the write end only; F_GETFL of the read end doesn't show it.
    reader = PipeFile(pipe, inode, flags & O_NONBLOCK, path)
    return reader, PipeFile(pipe, inode, flags | 1, path)


async def open_fifo(inode: Inode, flags: int, path: Path | None = None) -> File:
    """Open a FIFO (fifo(7)): one end waits for the other, unless O_NONBLOCK or O_RDWR.

    SysError(ENXIO): a writer with O_NONBLOCK found no reader.  Interrupted ends the wait.  A pipe opened
    anew by its /proc/PID/fd link waits for nobody.
    """
    waits = not isinstance(inode, PipeInode)
    pipe: Pipe | None = inode.attached
    if pipe is None:
        pipe = inode.attached = Pipe()
    mode = flags & O_ACCMODE
    if mode == 3:
        raise SysError(errno.EINVAL)
    if waits and mode == 1 and flags & O_NONBLOCK and not pipe.readers:
        if not pipe.writers:
            pipe.free()
            inode.attached = None
        raise SysError(errno.ENXIO)
    file = PipeFile(pipe, inode, flags & FIFO_FLAGS, path)
    pipe.queue.wake(READABLE | WRITABLE)
    try:
        if not waits:
            pass
        elif mode == 0 and not pipe.writers:
            seen = pipe.c.writer_opens
            if flags & O_NONBLOCK:
                file.opens_seen = seen
                file.c.kind = lib.VFILE_PYTHON  # the engine knows nothing of `opens_seen`
            while not flags & O_NONBLOCK and pipe.c.writer_opens == seen:
                await block((pipe.queue, READABLE | POLLHUP))
        elif mode == 1 and not pipe.readers:
            seen = pipe.c.reader_opens
            while pipe.c.reader_opens == seen:
                await block((pipe.queue, WRITABLE | POLLERR))
    except BaseException:
        file.put()
        raise
    return file
