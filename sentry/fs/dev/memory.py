"""null, zero, full, random and urandom (mem(4), null(4), full(4), random(4))."""

from __future__ import annotations

import errno
import os

from sentry._engine import lib
from sentry.abi.errors import SysError
from sentry.abi.ioctl import RNDADDTOENTCNT, RNDGETENTCNT
from sentry.fs.file import CLOSE_LATER, File

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_CHUNK = 1 << 20


class NullFile(File):
    __slots__ = ()
    fast_kind = lib.VFILE_NULL
    fast_closing = CLOSE_LATER
    fast_start = True
    seekable = True

    @property
    def discards(self) -> bool:
        return True

    pollable = False

    async def read(self, size: int) -> bytes:
        return b""

    async def write(self, data: bytes) -> int:
        return len(data)

    async def pread(self, size: int, offset: int) -> bytes:
        return await self.read(size)

    async def pwrite(self, data: bytes, offset: int) -> int:
        return await self.write(data)

    async def lseek(self, offset: int, whence: int) -> int:
        self.pos = 0
        return 0


class ZeroFile(NullFile):
    __slots__ = ()
    fast_kind = lib.VFILE_ZERO

    async def read(self, size: int) -> bytes:
        return bytes(min(size, MAX_CHUNK))

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        return None


class FullFile(ZeroFile):
    __slots__ = ()
    fast_kind = lib.VFILE_PYTHON

    @property
    def discards(self) -> bool:
        return False

    async def write(self, data: bytes) -> int:
        raise SysError(errno.ENOSPC)

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        raise SysError(errno.ENODEV)


class RandomFile(File):
    """random and urandom differ only before the pool is filled, which the host's has been."""

    __slots__ = ()
    fast_kind = lib.VFILE_RANDOM
    fast_closing = CLOSE_LATER
    fast_start = True

    seekable = True

    async def read(self, size: int) -> bytes:
        return os.urandom(min(size, MAX_CHUNK))

    async def write(self, data: bytes) -> int:
        return len(data)

    async def pread(self, size: int, offset: int) -> bytes:
        return await self.read(size)

    async def pwrite(self, data: bytes, offset: int) -> int:
        return len(data)

    async def lseek(self, offset: int, whence: int) -> int:
        return 0

    @property
    def pollable(self) -> bool:
        # Only /dev/random has a poll operation.
        return self.inode.rdev & 0xFF == 8

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        if request == RNDGETENTCNT:
            task.mm.write_u32(arg, 256)
            return 0
        raise SysError(errno.EPERM if request == RNDADDTOENTCNT else errno.EINVAL)
