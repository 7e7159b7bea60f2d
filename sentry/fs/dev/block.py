"""What all block devices have in common: a size, positions within it, and the requests of the block layer.

A device is `BlockFile.device`, whose `size` is in bytes; `read_at`, `write_at` and `punch` are its transfers.
There is no page cache of our own: each transfer goes to what is behind the device.
"""

from __future__ import annotations

import errno

from sentry.abi import loop as abi
from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.fcntl import SEEK_CUR, SEEK_END, SEEK_SET
from sentry.abi.mman import PAGE_SIZE
from sentry.fs.file import File

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.inode import Inode

SECTOR = 512
READ_AHEAD = 256
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16
#: The transfer of one request, in sectors (BLKSECTGET).
MAX_SECTORS = 2560


class BlockDevice:
    """The device behind any number of open files."""

    def __init__(self) -> None:
        self.size = 0
        self.sector_size = SECTOR
        #: BLKROSET.
        self.protected = False
        self.read_ahead = READ_AHEAD

    @property
    def readonly(self) -> bool:
        return self.protected

    async def read_at(self, size: int, offset: int) -> bytes:
        raise SysError(errno.EIO)

    async def write_at(self, data: bytes, offset: int) -> int:
        raise SysError(errno.EIO)

    async def punch(self, offset: int, size: int) -> None:
        """Make zeroes of whole sectors; SysError(EOPNOTSUPP)."""
        raise SysError(errno.EOPNOTSUPP)

    async def sync(self) -> None:
        return

    async def request(self, file: BlockFile, task: Any, request: int, arg: int) -> int:
        """An ioctl that the block layer does not know."""
        raise SysError(errno.EINVAL)


class BlockFile(File):
    __slots__ = ("device",)
    pollable = False
    seekable = True

    def __init__(self, device: BlockDevice, inode: Inode, flags: int, path: Path) -> None:
        super().__init__(inode, flags, path)
        self.device = device

    async def read(self, size: int) -> bytes:
        data = await self.pread(size, self.pos)
        self.pos += len(data)
        return data

    async def write(self, data: bytes) -> int:
        count = await self.pwrite(data, self.pos)
        self.pos += count
        return count

    async def pread(self, size: int, offset: int) -> bytes:
        device = self.device
        size = min(size, device.size - offset)
        return await device.read_at(size, offset) if size > 0 else b""

    async def pwrite(self, data: bytes, offset: int) -> int:
        device = self.device
        if device.readonly:
            raise SysError(errno.EPERM)
        room = device.size - offset
        if offset < 0 or room <= 0:
            raise SysError(errno.ENOSPC)
        return await device.write_at(data[:room], offset)

    async def lseek(self, offset: int, whence: int) -> int:
        if whence == SEEK_CUR:
            offset += self.pos
        elif whence == SEEK_END:
            offset += self.device.size
        elif whence != SEEK_SET:
            raise SysError(errno.EINVAL)
        if not 0 <= offset <= self.device.size:
            raise SysError(errno.EINVAL)
        self.pos = offset
        return offset

    async def fsync(self) -> None:
        await self.device.sync()

    async def fallocate(self, mode: int, offset: int, size: int) -> None:
        """fallocate(2) of a block device: zeroes only, and whole sectors (blkdev_fallocate)."""
        device = self.device
        if offset >= device.size:
            raise SysError(errno.EINVAL)
        if offset + size > device.size:
            if not mode & FALLOC_KEEP_SIZE:
                raise SysError(errno.EINVAL)
            size = device.size - offset
        if (offset | size) % device.sector_size:
            raise SysError(errno.EINVAL)
        if mode & ~FALLOC_KEEP_SIZE not in (FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE):
            raise SysError(errno.EOPNOTSUPP)
        await self._punch(offset, size)

    async def _punch(self, offset: int, size: int) -> None:
        if self.device.readonly or not self.writable:
            raise SysError(errno.EPERM if self.writable else errno.EBADF)
        await self.device.punch(offset, size)

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        device = self.device
        mm = task.mm
        sector = device.sector_size
        if request in _INTS:
            mm.write_u32(arg, _INTS[request](device))
        elif request in (abi.BLKROTATIONAL, abi.BLKSECTGET):
            mm.write(arg, (MAX_SECTORS if request == abi.BLKSECTGET else 0).to_bytes(2, "little"))
        elif request == abi.BLKGETSIZE64:
            mm.write_u64(arg, device.size)
        elif request == abi.BLKGETSIZE:
            mm.write_u64(arg, device.size // SECTOR)
        elif request in (abi.BLKRAGET, abi.BLKFRAGET):
            mm.write_u64(arg, device.read_ahead)
        elif request in (abi.BLKRASET, abi.BLKFRASET):
            _privileged(task)
            device.read_ahead = (arg & 0xFFFFFFFF) * SECTOR // PAGE_SIZE * (PAGE_SIZE // SECTOR)
        elif request == abi.BLKROSET:
            _privileged(task)
            device.protected = mm.read_u32(arg) != 0
        elif request == abi.BLKBSZSET:
            _privileged(task)
            size = mm.read_u32(arg)
            if not sector <= size <= PAGE_SIZE or size & size - 1:
                raise SysError(errno.EINVAL)
        elif request == abi.BLKFLSBUF:
            _privileged(task)
            await device.sync()
        elif request in (abi.BLKDISCARD, abi.BLKZEROOUT):
            if not self.writable:
                raise SysError(errno.EBADF)
            start, size = (int.from_bytes(mm.read(arg + at, 8), "little") for at in (0, 8))
            if (start | size) % sector or not size or start + size > device.size:
                raise SysError(errno.EINVAL)
            await self._punch(start, size)
        else:
            return await device.request(self, task, request, arg)
        return 0


def _privileged(task: Any) -> None:
    if not task.cred.capable(CAP_SYS_ADMIN):
        raise SysError(errno.EACCES)


_INTS: dict[int, Callable[[BlockDevice], int]] = {
    abi.BLKROGET: lambda device: int(device.readonly),
    abi.BLKSSZGET: lambda device: device.sector_size,
    abi.BLKPBSZGET: lambda device: device.sector_size,
    abi.BLKIOMIN: lambda device: device.sector_size,
    abi.BLKBSZGET: lambda device: PAGE_SIZE,
    abi.BLKIOOPT: lambda device: 0,
    abi.BLKALIGNOFF: lambda device: 0,
    abi.BLKDISCARDZEROES: lambda device: 0,
}
