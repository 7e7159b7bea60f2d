"""Regular files of a tmpfs: small ones in a buffer, others in a memfd of the Sentry.

What holds the data stands in a struct tmpfs_data (csrc/abi/vfs.h), with which the engine serves reads
and those writes for which nothing is to be charged (csrc/engine/fast_file.c).

A file starts without storage.  Up to INLINE_MAX bytes it is a buffer: most files are small, a
host descriptor each would run into RLIMIT_NOFILE.  Growing beyond that, a gap of more than a page,
or being mapped moves the data into a memfd for good: then the host kernel keeps it, sparse, and
guests map it.  `pages` is what the file counts for in the file system's limit: what the host has
allocated, or, once it has been mapped, all of its size, since from then on a guest can allocate
pages (even by reading holes) without us.
"""

from __future__ import annotations

import errno
import mmap
import os
from time import time_ns

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    O_APPEND,
    SEEK_CUR,
    SEEK_DATA,
    SEEK_END,
    SEEK_HOLE,
    SEEK_SET,
)
from sentry.abi.mman import PAGE_SIZE
from sentry.fs.file import APPEND, CLOSE_LATER, File
from sentry.fs.inode import LIVE
from sentry.fs.tmpfs.node import TmpfsInode
from sentry.kernel.wait import current, yield_now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.tmpfs.inode import Tmpfs
    from sentry.kernel.credentials import Credentials

INLINE_MAX: int = lib.TMPFS_INLINE
MAX_SIZE = 0x7FFFFFFFFFFFF000
_ALLOCATE_STEP = 16 << 20
#: What the host frees in one turn.
_FREE_STEP = 64 << 20
#: Nobody waits for this token of the pool's.
_NOBODY = 1 << 63
_MFD_CLOEXEC = 1
_MFD_NOEXEC_SEAL = 8
_memfd_flags = _MFD_CLOEXEC | _MFD_NOEXEC_SEAL
MAPPED: int = lib.TMPFS_MAPPED
SEALABLE: int = lib.TMPFS_SEALABLE
_new = ffi.new
_DATA = ffi.typeof("struct tmpfs_data *")


def new_memfd() -> int:
    """An empty memfd.  Linux before 6.3 doesn't know MFD_NOEXEC_SEAL; SysError(ENFILE)."""
    global _memfd_flags
    try:
        return os.memfd_create("tmpfs", _memfd_flags)
    except OSError as error:
        if error.errno != errno.EINVAL or _memfd_flags == _MFD_CLOEXEC:
            raise SysError(
                errno.ENFILE if error.errno == errno.EMFILE else error.errno or errno.EIO
            ) from None
    _memfd_flags = _MFD_CLOEXEC
    return new_memfd()


def _let_go(fd: int, pages: int) -> None:
    """Close a memfd of `pages` pages: a large one in a thread of the pool, if that has room."""
    large = pages * PAGE_SIZE > _FREE_STEP
    if not large or lib.pool_submit(lib.POOL_CLOSE, fd, ffi.NULL, 0, 0, _NOBODY):
        os.close(fd)


class RegularInode(TmpfsInode):
    __slots__ = ("_allocated", "_twin", "data")

    def __init__(self, fs: Tmpfs, ino: int, mode: int, uid: int, gid: int) -> None:
        super().__init__(fs, ino, mode, uid, gid)
        #: struct tmpfs_data.
        self.data: Any = _new(_DATA)
        self.data.node = self.c
        self.data.host_fd = -1
        self.data.quota = fs.quota
        #: A descriptor of the memfd that is open for reading only; -1: none.
        self._twin = -1
        #: There may be pages that the host calls holes, and that are counted already (fallocate(2)).
        self._allocated = False
        self.c.flags = LIVE

    def __del__(self) -> None:
        lib.tmpfs_free(self.data)
        if self._twin >= 0:
            os.close(self._twin)
        if self.data.host_fd >= 0:
            _let_go(self.data.host_fd, self.data.pages)
        super().__del__()

    @property
    def pages(self) -> int:
        """What the file counts for in the file system's limit."""
        pages: int = self.data.pages
        return pages

    @property
    def _fd(self) -> int:
        """The memfd, -1 while there is none."""
        fd: int = self.data.host_fd
        return fd

    def _set_pages(self, pages: int) -> None:
        self.data.pages = pages
        self.c.blocks = pages * 8

    def _resize(self, size: int) -> None:
        """Let the buffer have `size` bytes of data; new ones are zeroes."""
        error = lib.tmpfs_resize(self.data, size)
        if error:
            raise SysError(-error)

    def held_pages(self) -> int:
        return super().held_pages() + self.pages

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes; b"" from the end on."""
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        data = self.data
        if data.host_fd < 0:
            end = min(offset + size, data.length)
            inline: bytes = ffi.buffer(data.bytes + offset, end - offset)[:] if offset < end else b""
            return inline
        try:
            return os.pread(data.host_fd, size, offset)
        except OSError as error:
            raise SysError(error.errno or errno.EIO) from None

    def write_at(self, data: bytes, offset: int) -> int:
        """Bytes written (fewer when the file system gets full); SysError(ENOSPC, EFBIG)."""
        if not data:
            return 0
        end = offset + len(data)
        if end > MAX_SIZE:
            if offset >= MAX_SIZE:
                raise SysError(errno.EFBIG)
            return self.write_at(data[: MAX_SIZE - offset], offset)
        # Only a memfd has holes.
        if self._fd < 0 and (end > INLINE_MAX or offset // PAGE_SIZE > -(-self.data.length // PAGE_SIZE)):
            self._to_memfd()
        if self._fd < 0:
            count = self._write_inline(data, offset)
        else:
            count = self._write_memfd(data, offset)
        self.size = max(self.size, offset + count)
        self.mtime = self.ctime = time_ns()
        self.fs.charge_ahead()
        return count

    def _write_inline(self, data: bytes, offset: int) -> int:
        size = max(self.data.length, offset + len(data))
        self._charge(-(-size // PAGE_SIZE))
        if size > self.data.length:
            self._resize(size)
        ffi.memmove(self.data.bytes + offset, data, len(data))
        return len(data)

    def _write_memfd(self, data: bytes, offset: int) -> int:
        room = self.fs.room()
        if self.data.flags & MAPPED:
            self._charge_size(max(self.size, offset + len(data)))
        elif (offset + len(data) - 1) // PAGE_SIZE - offset // PAGE_SIZE >= room:
            fitting = self._fitting(offset, len(data), room)
            if fitting < len(data) and self._allocated:
                return self._write_pages(data, offset)
            data = data[:fitting]
            if not data:
                raise SysError(errno.ENOSPC)
        try:
            count = os.pwrite(self._fd, data, offset)
        except OSError as error:
            raise SysError(error.errno or errno.EIO) from None
        finally:
            self._recount()
        return count

    def _write_pages(self, data: bytes, offset: int) -> int:
        """`_write_memfd` when only the host knows which pages are new: one by one, while there is room."""
        done = 0
        while done < len(data):
            at = offset + done
            piece = data[done : done + PAGE_SIZE - at % PAGE_SIZE]
            room, before = self.fs.room(), self.pages
            size = os.fstat(self._fd).st_size
            os.pwrite(self._fd, piece, at)
            self._recount()
            if self.pages - before > room:
                self._undo_page(at, size)
                break
            done += len(piece)
        if not done:
            raise SysError(errno.ENOSPC)
        return done

    def _fitting(self, offset: int, size: int, room: int) -> int:
        """How many of `size` bytes at `offset` can be written with `room` new pages."""
        page, last = offset // PAGE_SIZE, (offset + size - 1) // PAGE_SIZE
        while page <= last:
            try:
                data = os.lseek(self._fd, page * PAGE_SIZE, SEEK_DATA) // PAGE_SIZE
            except OSError:
                data = last + 1
            if data > page:
                free = min(data, last + 1) - page
                if free > room:
                    page += room
                    break
                room -= free
                page += free
            else:
                page = os.lseek(self._fd, page * PAGE_SIZE, SEEK_HOLE) // PAGE_SIZE
        return max(0, min(size, page * PAGE_SIZE - offset))

    def _charge(self, pages: int) -> None:
        """Count for `pages` from now on; SysError(ENOSPC) when these are too many more."""
        if pages != self.pages:
            self.fs.charge(pages - self.pages)
            self._set_pages(pages)

    def _recount(self) -> None:
        """Count what the host has really allocated (which can't fail any more)."""
        stat = os.fstat(self._fd)
        pages = stat.st_blocks // 8
        if self.data.flags & MAPPED:
            pages = max(pages, -(-stat.st_size // PAGE_SIZE))
        if pages != self.pages:
            self.fs.count(pages - self.pages)
            self._set_pages(pages)

    def _charge_size(self, size: int) -> None:
        """A mapped file will have `size` bytes; SysError(ENOSPC) when the limit has no room for them."""
        self._charge(max(self.pages, -(-size // PAGE_SIZE)))

    def _to_memfd(self) -> None:
        fd = new_memfd()
        data = self.data
        try:
            if data.length:
                os.pwrite(fd, ffi.buffer(data.bytes, data.length), 0)
            if self.size > data.length:
                os.ftruncate(fd, self.size)
        except OSError as error:
            os.close(fd)
            raise SysError(error.errno or errno.EIO) from None
        self._hold(fd)
        self._recount()

    def _hold(self, fd: int) -> None:
        """The memfd `fd` has the data from now on."""
        lib.tmpfs_free(self.data)
        self.data.host_fd = fd

    def truncate(self, size: int) -> None:
        """Set the size; SysError(EFBIG, ENOSPC)."""
        if size > MAX_SIZE:
            raise SysError(errno.EFBIG)
        if self._fd < 0 and size > INLINE_MAX:
            self._to_memfd()
        if self._fd < 0:
            self._charge(-(-size // PAGE_SIZE))
            self._resize(size)
        else:
            if self.data.flags & MAPPED:
                self._charge_size(size)
            if size < self.size:
                lib.tmpfs_unmap(self.data)
            try:
                os.ftruncate(self._fd, size)
            except OSError as error:
                raise SysError(error.errno or errno.EIO) from None
            finally:
                self._recount()
        self.size = size
        self.mtime = self.ctime = time_ns()

    def seek_data(self, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE; SysError(ENXIO) from the end on."""
        if offset < 0 or offset >= self.size:
            raise SysError(errno.ENXIO)
        if self._fd < 0:
            return offset if whence == SEEK_DATA else self.size
        try:
            return os.lseek(self._fd, offset, whence)
        except OSError as error:
            raise SysError(error.errno or errno.ENXIO) from None

    def data_pages(self, first: int, last: int) -> int:
        """How many of the pages [first, last) of the file hold data."""
        found = 0
        try:
            while first < last:
                start = self.seek_data(first * PAGE_SIZE, SEEK_DATA) // PAGE_SIZE
                first = -(-self.seek_data(start * PAGE_SIZE, SEEK_HOLE) // PAGE_SIZE)
                found += max(0, min(first, last) - start)
        except SysError:
            pass  # ENXIO: nothing more
        return found

    async def allocate(self, mode: int, offset: int, size: int) -> None:
        """fallocate(2): `mode` 0, FALLOC_FL_KEEP_SIZE, or with it FALLOC_FL_PUNCH_HOLE, as Linux's tmpfs."""
        if mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE):
            raise SysError(errno.EOPNOTSUPP)
        if mode & FALLOC_FL_PUNCH_HOLE:
            await self._free(offset, min(offset + size, self.size))
            self._punch(offset, size)
            return
        end = offset + size
        if end > MAX_SIZE:
            raise SysError(errno.EFBIG)
        old = self.size
        self._allocated = True
        if mode & FALLOC_FL_KEEP_SIZE:
            # Pages behind the end of a memfd can't be had through posix_fallocate: only inside.
            end = min(end, old)
        if (end - offset) // PAGE_SIZE > self.fs.room() + self.pages:
            raise SysError(errno.ENOSPC)  # before the memory that there is has been filled in vain
        if self._fd < 0:
            self._to_memfd()
        try:
            while offset < end:
                room, before = self.fs.room(), self.pages
                # At most what there is room for, up to the end of a page; else see if one page is new.
                step = min(end - offset, _ALLOCATE_STEP, max(room, 1) * PAGE_SIZE - offset % PAGE_SIZE)
                os.posix_fallocate(self._fd, offset, step)
                self._recount()
                if self.pages - before > room:
                    self._undo_page(offset, old)
                    raise SysError(errno.ENOSPC)
                offset += step
                if offset < end:
                    await yield_now()
                    if current().signal_pending():
                        raise SysError(errno.EINTR)
        except OSError as error:
            raise SysError(error.errno or errno.EIO) from None
        finally:
            self.size = max(self.size, os.fstat(self._fd).st_size)
            self._recount()
        self.mtime = self.ctime = time_ns()

    def _undo_page(self, offset: int, size: int) -> None:
        """The page around `offset`, which had no data, has none again, and the file `size` bytes."""
        first = offset // PAGE_SIZE * PAGE_SIZE
        if first + PAGE_SIZE > size:
            os.ftruncate(self._fd, first)
            os.ftruncate(self._fd, size)
        else:
            self._drop_pages(first, PAGE_SIZE)
        self._recount()

    def sealed(self) -> bool:
        """Whether there is anything that may not be done to the data any more."""
        return False

    async def _free(self, offset: int, end: int) -> None:
        """Make a hole of most of [offset, end), if there is much, and let others run meanwhile."""
        offset = -(-offset // PAGE_SIZE) * PAGE_SIZE
        linear = self._allocated and end - offset < _FREE_STEP * 10_000
        try:
            while self._fd >= 0 and self.pages * PAGE_SIZE > _FREE_STEP and not self.sealed():
                if not linear:  # what was allocated and never written to is no data
                    offset = max(offset, self.seek_data(offset, SEEK_DATA))
                if end - offset <= _FREE_STEP:
                    break
                self._drop_pages(offset, _FREE_STEP)
                self._recount()
                offset += _FREE_STEP
                await yield_now()
        except SysError:
            pass  # ENXIO: there is nothing more

    def _drop_pages(self, first: int, size: int) -> None:
        """Make a hole of whole pages."""
        # Python has no fallocate(2); MADV_REMOVE on a shared mapping frees the same pages.
        try:
            with mmap.mmap(self._fd, size, mmap.MAP_SHARED, offset=first) as area:
                area.madvise(mmap.MADV_REMOVE)
        except OSError as error:  # EPERM: what is sealed
            raise SysError(error.errno or errno.EIO) from None

    def _punch(self, offset: int, size: int) -> None:
        size = min(size, self.size - offset)
        if size <= 0:
            return
        if self._fd < 0:
            ffi.memmove(self.data.bytes + offset, bytes(size), size)
        else:
            first, last = -(-offset // PAGE_SIZE) * PAGE_SIZE, (offset + size) // PAGE_SIZE * PAGE_SIZE
            if first < last:
                self._drop_pages(first, last - first)
                os.pwrite(self._fd, bytes(first - offset), offset)
                os.pwrite(self._fd, bytes(offset + size - last), last)
            else:
                os.pwrite(self._fd, bytes(size), offset)
            self._recount()
        self.mtime = self.ctime = time_ns()

    async def host_mapping(self, shared: bool, writable: bool) -> int:
        """The descriptor to map: only one that is open for reading may back a shared read-only mapping,
        or mprotect could make it writable.  SysError(EACCES) where no such one can be had."""
        if self._fd < 0:
            self._to_memfd()
        if not self.data.flags & MAPPED:
            try:
                self._charge_size(self.size)
            except SysError:
                raise SysError(errno.ENOMEM) from None
            self.data.flags |= MAPPED
            self.c.flags &= ~LIVE
        if not shared or writable:
            return self._fd
        if self._twin < 0:
            reopen = self.fs.reopen_readonly
            if reopen is None:
                raise SysError(errno.EACCES)
            twin = await reopen(self._fd)
            if self._twin < 0:
                self._twin = twin
            else:
                os.close(twin)
        return self._twin

    async def refresh(self) -> None:
        if self.data.flags & MAPPED:
            # Guests may have allocated pages since.
            self._recount()

    async def setattr(self, changes: dict[str, int]) -> None:
        size = changes.get("size")
        if size is not None:
            await self._free(size, self.size)
            self.truncate(size)
        await super().setattr(changes)

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return RegularFile(self, flags, path)


class RegularFile(File):
    """An open regular file of a tmpfs.  `node` has the data; an overlay puts its own inode before it."""

    __slots__ = ("node",)
    fast_kind = lib.VFILE_TMPFS
    fast_closing = CLOSE_LATER
    fast_start = True
    in_memory = True

    def __init__(self, inode: RegularInode, flags: int, path: Path | None = None, c: Any = None) -> None:
        super().__init__(inode, flags, path, c)
        self.node = inode
        self.c.object = inode.data

    def again(self, c: Any) -> File:
        file = RegularFile(self.node, c.flags, self.path, c)
        file.set_inode(self.inode)
        return file

    pollable = False
    seekable = True

    @property
    def nowait(self) -> bool:
        return self.inode is not self.node  # an overlay's is, as if there were a disk

    async def read(self, size: int) -> bytes:
        data = self.node.read_at(size, self.pos)
        self.pos += len(data)
        self.inode.touch_atime(self.flags)
        return data

    async def pread(self, size: int, offset: int) -> bytes:
        self.inode.touch_atime(self.flags)
        return self.node.read_at(size, offset)

    async def write(self, data: bytes) -> int:
        if self.flags & O_APPEND:
            self.pos = self.node.size
        count = self.node.write_at(data, self.pos)
        self.pos += count
        return count

    async def pwrite(self, data: bytes, offset: int) -> int:
        if self.flags & O_APPEND or offset == APPEND:  # pwrite(2), BUGS: Linux appends whatever the offset
            offset = self.node.size
        return self.node.write_at(data, offset)

    async def lseek(self, offset: int, whence: int) -> int:
        inode = self.node
        if whence == SEEK_CUR:
            offset += self.pos
        elif whence == SEEK_END:
            offset += inode.size
        elif whence in (SEEK_DATA, SEEK_HOLE):
            offset = inode.seek_data(offset, whence)
        elif whence != SEEK_SET:
            raise SysError(errno.EINVAL)
        if not 0 <= offset <= 0x7FFFFFFFFFFFFFFF:
            raise SysError(errno.EINVAL)
        self.pos = offset
        return offset

    async def fsync(self) -> None:
        return

    async def truncate(self, size: int) -> None:
        await self.inode.setattr({"size": size})

    async def fallocate(self, mode: int, offset: int, size: int) -> None:
        await self.node.allocate(mode, offset, size)

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        return await self.node.host_mapping(shared, writable)
