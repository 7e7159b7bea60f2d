"""Open files of the Gofer's tree: read and written on the host descriptor that it donated.

A `Handle` is one such descriptor.  Several opens of a file in the same access mode share one, since
positions and status flags live in our own File; the file system keeps a few idle ones, so that the
next open of a library costs no round trip.  A plain 9P server donates nothing: then the handle is an
open fid and bytes travel in messages.
"""

from __future__ import annotations

import errno
import os

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    O_APPEND,
    SEEK_CUR,
    SEEK_DATA,
    SEEK_END,
    SEEK_HOLE,
    SEEK_SET,
)
from sentry.fs import lent
from sentry.fs.dirfile import SnapshotDirectory
from sentry.fs.file import APPEND, CLOSE_LATER, File

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from sentry.fs.dentry import Path
    from sentry.fs.inode import Inode

    class Pool(Protocol):
        """Threads that make blocking host calls."""

        async def pread(self, fd: int, size: int, offset: int) -> bytes: ...
        async def fsync(self, fd: int) -> None: ...


#: Where reads go that would wait for the disk; None: they are made in place.
pool: Pool | None = None


def host_error(error: OSError) -> SysError:
    return SysError(error.errno or errno.EIO)


class Handle:
    """An open file of the Gofer: `fd` on the host, or -1 and an open `fid`."""

    __slots__ = ("_client", "fd", "fid", "memory")

    def __init__(self, client: Any, fd: int, fid: int = -1) -> None:
        self._client = client
        self.fd = fd
        self.fid = fid
        #: What the file's struct vfile stands in, if that isn't its own.
        self.memory: Any = None

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        if self.fid >= 0:
            self._client.clunk(self.fid)

    async def pread(self, size: int, offset: int) -> bytes:
        if self.fd < 0:
            data: bytes = await self._client.read(self.fid, offset, size)
            return data
        try:
            if pool is None:
                return os.pread(self.fd, size, offset)
            buffer = memoryview(bytearray(size))
            done = 0
            try:
                # Less than was asked for may be all that the host has in memory: only nothing is the end.
                while done < size:
                    count = os.preadv(self.fd, [buffer[done:]], offset + done, os.RWF_NOWAIT)
                    if not count:
                        break
                    done += count
                return bytes(buffer[:done])
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
                    raise
            return bytes(buffer[:done]) + await pool.pread(self.fd, size - done, offset + done)
        except OSError as error:
            raise host_error(error) from None

    async def pwrite(self, data: bytes, offset: int) -> int:
        if self.fd < 0:
            count: int = await self._client.write(self.fid, offset, data)
            return count
        try:
            return os.pwrite(self.fd, data, offset)
        except OSError as error:
            raise host_error(error) from None

    async def fsync(self) -> None:
        if self.fd < 0:
            await self._client.fsync(self.fid)
            return
        try:
            if pool is not None:
                await pool.fsync(self.fd)
            else:
                os.fsync(self.fd)
        except OSError as error:
            raise host_error(error) from None


class HostFile(File):
    """An open regular file whose bytes are the host's."""

    __slots__ = ("handle",)
    fast_closing = CLOSE_LATER
    fast_start = True

    def __init__(self, inode: Inode, flags: int, path: Path | None, handle: Handle, c: Any = None) -> None:
        super().__init__(inode, flags, path, c)
        self.handle = handle
        if handle.fd >= 0:
            self.c.host_fd = handle.fd
            self.c.kind = lib.VFILE_REGULAR

    def again(self, c: Any) -> File:
        return HostFile(self.inode, c.flags, self.path, self.handle, c)

    pollable = False
    seekable = True

    async def _size(self) -> int:
        if self.handle.fd >= 0:
            return os.fstat(self.handle.fd).st_size
        await self.inode.refresh()
        return self.inode.size

    async def read(self, size: int) -> bytes:
        pos = self.pos
        data = await self.handle.pread(size, pos)
        self.pos = pos + len(data)
        return data

    async def pread(self, size: int, offset: int) -> bytes:
        return await self.handle.pread(size, offset)

    async def write(self, data: bytes) -> int:
        pos = await self._size() if self.flags & O_APPEND else self.pos
        count = await self.handle.pwrite(data, pos)
        self.pos = pos + count
        self._wrote(self.pos)
        return count

    async def pwrite(self, data: bytes, offset: int) -> int:
        if self.flags & O_APPEND or offset == APPEND:
            offset = await self._size()
        count = await self.handle.pwrite(data, offset)
        self._wrote(offset + count)
        return count

    def _wrote(self, end: int) -> None:
        """Keep the size that a cached inode shows; the other attributes come with `refresh`."""
        inode: Any = self.inode
        inode.size = max(inode.size, end)
        inode.outdated()

    async def lseek(self, offset: int, whence: int) -> int:
        if whence == SEEK_CUR:
            offset += self.pos
        elif whence == SEEK_END:
            offset += await self._size()
        elif whence in (SEEK_DATA, SEEK_HOLE):
            offset = await self._seek_data(offset, whence)
        elif whence != SEEK_SET:
            raise SysError(errno.EINVAL)
        if not 0 <= offset <= 0x7FFFFFFFFFFFFFFF:
            raise SysError(errno.EINVAL)
        self.pos = offset
        return offset

    async def _seek_data(self, offset: int, whence: int) -> int:
        size = await self._size()
        if offset < 0 or offset >= size:
            raise SysError(errno.ENXIO)
        if self.handle.fd < 0:
            return offset if whence == SEEK_DATA else size
        try:
            return os.lseek(self.handle.fd, offset, whence)
        except OSError as error:
            raise host_error(error) from None

    async def fsync(self) -> None:
        await self.handle.fsync()

    async def truncate(self, size: int) -> None:
        await self.inode.setattr({"size": size})

    async def fallocate(self, mode: int, offset: int, size: int) -> None:
        if mode or self.handle.fd < 0:
            raise SysError(errno.EOPNOTSUPP)
        try:
            os.posix_fallocate(self.handle.fd, offset, size)
        except OSError as error:
            raise host_error(error) from None
        self._wrote(offset + size)

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        if self.handle.fd < 0:
            raise SysError(errno.ENODEV)
        # One handle an access mode: it was opened exactly as the guest opened the file.
        return self.handle.fd


def _lent_file(c: Any, inode: Inode, path: Path, memory: Any) -> File:
    file = HostFile(inode, c.flags, path, Handle(None, c.host_fd), c)
    file.handle.memory = memory
    return file


lent.Hooks.make_file = _lent_file

__all__ = ["Handle", "HostFile", "SnapshotDirectory", "host_error"]
