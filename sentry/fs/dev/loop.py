"""Loop devices (loop(4)): block devices made of regular files.

There are as many as Linux makes at first (CONFIG_BLK_DEV_LOOP_MIN_COUNT).  A device is unbound, bound to a
file, or on its way out (`rundown`): LOOP_CLR_FD lets the file go with the last close.  Partitions are not
looked for, and no file system here mounts block devices: they are there for what reads and writes them.
"""

from __future__ import annotations

import errno

from sentry.abi import loop as abi
from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.stat import S_IFBLK, S_IFREG
from sentry.fs.dev.block import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    SECTOR,
    BlockDevice,
    BlockFile,
)
from sentry.fs.file import File

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.inode import Inode
    from sentry.kernel.credentials import Credentials

OFFSET_MAX = (1 << 63) - 1
_SETTABLE = abi.LO_FLAGS_AUTOCLEAR | abi.LO_FLAGS_PARTSCAN
_CONFIGURABLE = _SETTABLE | abi.LO_FLAGS_READ_ONLY | abi.LO_FLAGS_DIRECT_IO


class Loop(BlockDevice):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.openers = 0
        self._unbind()

    def _unbind(self) -> None:
        """As it is before the first LOOP_SET_FD."""
        self.file: File | None = None
        self.rundown = False
        self.flags = self.offset = self.sizelimit = self.size = 0
        self.name = self.cipher = bytes(64)
        self.init = (0, 0)
        self.sector_size = SECTOR
        self.protected = False

    @property
    def readonly(self) -> bool:
        """Also where BLKROSET says otherwise (bdev_read_only): the file was not opened for writing."""
        return self.protected or bool(self.flags & abi.LO_FLAGS_READ_ONLY)

    def open(self, inode: Inode, path: Path, flags: int) -> File:
        if self.rundown:
            raise SysError(errno.ENXIO)
        self.openers += 1
        return LoopFile(self, inode, flags, path)

    def closed(self) -> None:
        self.openers -= 1
        if not self.openers and self.file is not None and self.flags & abi.LO_FLAGS_AUTOCLEAR:
            self.clear()

    def clear(self) -> None:
        file = self.file
        self._unbind()
        if file is not None:
            file.put()

    @property
    def bound(self) -> File:
        """The file behind it; SysError(ENXIO)."""
        if self.file is None or self.rundown:
            raise SysError(errno.ENXIO)
        return self.file

    async def read_at(self, size: int, offset: int) -> bytes:
        file = self.file
        if file is None or self.rundown:
            raise SysError(errno.EIO)
        file.get()
        try:
            return (await file.pread(size, self.offset + offset)).ljust(size, b"\0")
        finally:
            file.put()

    async def write_at(self, data: bytes, offset: int) -> int:
        file = self.file
        if file is None or self.rundown:
            raise SysError(errno.EIO)
        file.get()
        try:
            return await file.pwrite(data, self.offset + offset)
        finally:
            file.put()

    async def punch(self, offset: int, size: int) -> None:
        file = self.file
        if file is None or self.rundown:
            raise SysError(errno.EIO)
        file.get()
        try:
            await file.fallocate(FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, self.offset + offset, size)
        except SysError as error:
            raise SysError(errno.EOPNOTSUPP if error.errno == errno.ENODEV else error.errno) from None
        finally:
            file.put()

    async def sync(self) -> None:
        if self.file is not None and not self.rundown:
            await self.file.fsync()

    async def measure(self, file: File) -> int:
        """The bytes of the device that `file` makes with this offset and limit: whole sectors."""
        if isinstance(file, BlockFile):
            size = file.device.size
        else:
            await file.inode.refresh()
            size = file.inode.size
        size = max(0, size - self.offset)
        return min(size, self.sizelimit or size) // SECTOR * SECTOR

    # Requests

    async def request(self, file: BlockFile, task: Any, request: int, arg: int) -> int:
        if request == abi.LOOP_SET_FD:
            await self._bind(file, task, _signed(arg), None, 0)
        elif request == abi.LOOP_CONFIGURE:
            data = task.mm.read(arg, abi.LOOP_CONFIG.size)
            fd, sector, info, _ = abi.LOOP_CONFIG.unpack(data)
            await self._bind(file, task, _signed(fd), abi.LOOP_INFO64.unpack(info), sector)
        elif request == abi.LOOP_CHANGE_FD:
            await self._change(task, _signed(arg))
        elif request == abi.LOOP_CLR_FD:
            self.bound  # noqa: B018
            self.flags |= abi.LO_FLAGS_AUTOCLEAR
            self.rundown = self.openers == 1
        elif request in (abi.LOOP_GET_STATUS, abi.LOOP_GET_STATUS64):
            self._get_status(task, request == abi.LOOP_GET_STATUS64, arg)
        elif request in _NEED_WRITE and not (file.writable or task.cred.capable(CAP_SYS_ADMIN)):
            raise SysError(errno.EPERM)
        elif request in (abi.LOOP_SET_STATUS, abi.LOOP_SET_STATUS64):
            await self._set_status(_read_info(task, request == abi.LOOP_SET_STATUS64, arg))
        elif request == abi.LOOP_SET_CAPACITY:
            self.size = await self.measure(self.bound)
        elif request == abi.LOOP_SET_DIRECT_IO:
            self.bound  # noqa: B018
            if arg:
                raise SysError(errno.EINVAL)  # what is behind it is not opened for that
        elif request == abi.LOOP_SET_BLOCK_SIZE:
            self.bound  # noqa: B018
            self.sector_size = _checked_sector(arg)
        else:
            raise SysError(errno.EINVAL)
        return 0

    def _backing(self, task: Any, fd: int) -> File:
        """The open file `fd`, if a device can be made of it; SysError(EBADF, EINVAL)."""
        file: File = task.files.get(fd)
        below: File | None = file
        while isinstance(below, LoopFile):
            if below.device is self:
                raise SysError(errno.EBADF)
            below = below.loop.bound if below.loop.file is not None else None
        if below is None or file.inode.kind not in (S_IFREG, S_IFBLK):
            raise SysError(errno.EINVAL)
        return file

    async def _bind(
        self, file: BlockFile, task: Any, fd: int, info: tuple[Any, ...] | None, sector: int
    ) -> None:
        task.files.get(fd)
        if self.file is not None:
            raise SysError(errno.EBUSY)
        backing = self._backing(task, fd)
        flags = info[8] if info is not None else 0
        if flags & ~_CONFIGURABLE:
            raise SysError(errno.EINVAL)
        sector = _checked_sector(sector) if sector else SECTOR
        if info is not None:
            self._take_info(info)
        self.flags = flags & _SETTABLE
        if flags & abi.LO_FLAGS_READ_ONLY or not (file.writable and backing.writable):
            self.flags |= abi.LO_FLAGS_READ_ONLY
        self.sector_size = sector
        self.file = backing.get()
        self.size = await self.measure(backing)

    async def _change(self, task: Any, fd: int) -> None:
        task.files.get(fd)
        old = self.bound
        if not self.flags & abi.LO_FLAGS_READ_ONLY:
            raise SysError(errno.EINVAL)
        new = self._backing(task, fd).get()
        try:
            if await self.measure(new) != await self.measure(old) or self.file is not old:
                raise SysError(errno.EINVAL)
            self.file, new = new, old
        finally:
            new.put()

    def _take_info(self, info: tuple[Any, ...]) -> None:
        offset, sizelimit, encrypt, key_size = info[3], info[4], info[6], info[7]
        if key_size > abi.LO_KEY_SIZE or encrypt:
            raise SysError(errno.EINVAL)
        if offset > OFFSET_MAX or sizelimit > OFFSET_MAX:
            raise SysError(errno.EOVERFLOW)
        self.offset, self.sizelimit = offset, sizelimit
        self.name, self.cipher = (text[:63].ljust(64, b"\0") for text in info[9:11])
        self.init = info[12:14]

    async def _set_status(self, info: tuple[Any, ...]) -> None:
        file = self.bound
        self._take_info(info)
        self.flags = self.flags & ~abi.LO_FLAGS_AUTOCLEAR | info[8] & _SETTABLE
        self.size = await self.measure(file)

    def _get_status(self, task: Any, wide: bool, arg: int) -> None:
        if not arg:
            raise SysError(errno.EINVAL)
        inode = self.bound.inode
        device, ino, rdev = inode.fs.dev, inode.ino, inode.rdev
        if wide:
            data = abi.LOOP_INFO64.pack(
                device, ino, rdev, self.offset, self.sizelimit, self.number, 0, 0, self.flags, self.name,
                self.cipher, bytes(32), *self.init,
            )  # fmt: skip
        elif self.offset > 0x7FFFFFFF:
            raise SysError(errno.EOVERFLOW)
        else:
            data = abi.LOOP_INFO.pack(
                self.number, device, ino, rdev, self.offset, 0, 0, self.flags, self.name, bytes(32),
                *self.init, bytes(4),
            )  # fmt: skip
        task.mm.write(arg, data)


class LoopFile(BlockFile):
    __slots__ = ()

    @property
    def loop(self) -> Loop:
        device = self.device
        assert isinstance(device, Loop)
        return device

    def release(self) -> None:
        self.loop.closed()


class ControlFile(File):
    """/dev/loop-control."""

    __slots__ = ("loops",)

    def __init__(self, loops: list[Loop], inode: Inode, flags: int, path: Path) -> None:
        super().__init__(inode, flags, path)
        self.loops = loops

    pollable = False

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        if request == abi.LOOP_CTL_GET_FREE:
            for loop in self.loops:
                if loop.file is None:
                    return loop.number
            raise SysError(errno.ENOSPC)
        if request == abi.LOOP_CTL_ADD:
            raise SysError(errno.EEXIST if arg < abi.COUNT else errno.ENOSPC)
        if request == abi.LOOP_CTL_REMOVE:
            raise SysError(errno.EBUSY if arg < abi.COUNT else errno.ENODEV)
        raise SysError(errno.ENOSYS)


class LoopDevices:
    def __init__(self) -> None:
        self.loops = [Loop(number) for number in range(abi.COUNT)]

    def open(self, number: int, inode: Inode, path: Path, flags: int) -> File:
        if number >= abi.COUNT:
            raise SysError(errno.ENXIO)
        return self.loops[number].open(inode, path, flags)

    def open_control(self, inode: Inode, path: Path, flags: int, cred: Credentials) -> File:
        return ControlFile(self.loops, inode, flags, path)


_NEED_WRITE = (
    abi.LOOP_SET_STATUS, abi.LOOP_SET_STATUS64, abi.LOOP_SET_CAPACITY, abi.LOOP_SET_DIRECT_IO,
    abi.LOOP_SET_BLOCK_SIZE,
)  # fmt: skip


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _checked_sector(size: int) -> int:
    if not SECTOR <= size <= PAGE_SIZE or size & size - 1:
        raise SysError(errno.EINVAL)
    return size


def _read_info(task: Any, wide: bool, arg: int) -> tuple[Any, ...]:
    """A loop_info64 from the guest, or one made of an old loop_info."""
    if wide:
        info: tuple[Any, ...] = abi.LOOP_INFO64.unpack(task.mm.read(arg, abi.LOOP_INFO64.size))
        return info
    old = abi.LOOP_INFO.unpack(task.mm.read(arg, abi.LOOP_INFO.size))
    number, device, ino, rdev, offset, encrypt, key_size, flags, name, key, *rest = old
    mask = 0xFFFFFFFF
    return (
        device, ino, rdev, offset & (1 << 64) - 1, 0, number & mask, encrypt & mask, key_size & mask,
        flags & mask, name, bytes(64), key, *rest[:2],
    )  # fmt: skip
