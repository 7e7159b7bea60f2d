"""/sys/block: the loop devices (Documentation/ABI/stable/sysfs-block)."""

from __future__ import annotations

import errno

from sentry.abi import loop as abi
from sentry.abi.errors import SysError
from sentry.fs import walk
from sentry.fs.dev.block import SECTOR
from sentry.fs.inode import CACHE_NEVER, Inode
from sentry.fs.proc.base import Room, StaticDirectory, current_task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.dev.loop import Loop
    from sentry.kernel.kernel import Kernel


def _flag(loop: Loop, flag: int) -> Any:
    return lambda kernel: b"1\n" if loop.flags & flag else b"0\n"


def _backing_file(loop: Loop) -> bytes:
    task, file = current_task(), loop.file
    if task is None or file is None or file.path is None:
        return b"\n"
    return walk.path_bytes(task.fs, file.path) + b"\n"


def _tree(loop: Loop) -> dict[bytes, Any]:
    return {
        b"dev": b"%d:%d\n" % (abi.LOOP_MAJOR, loop.number),
        b"range": b"1\n",
        b"removable": b"0\n",
        b"ro": lambda kernel: b"%d\n" % loop.readonly,
        b"size": lambda kernel: b"%d\n" % (loop.size // SECTOR),
        b"queue": {
            b"hw_sector_size": lambda kernel: b"%d\n" % loop.sector_size,
            b"logical_block_size": lambda kernel: b"%d\n" % loop.sector_size,
            b"physical_block_size": lambda kernel: b"%d\n" % loop.sector_size,
            b"rotational": b"0\n",
        },
        b"loop": {
            b"autoclear": _flag(loop, abi.LO_FLAGS_AUTOCLEAR),
            b"backing_file": lambda kernel: _backing_file(loop),
            b"dio": _flag(loop, abi.LO_FLAGS_DIRECT_IO),
            b"offset": lambda kernel: b"%d\n" % loop.offset,
            b"partscan": _flag(loop, abi.LO_FLAGS_PARTSCAN),
            b"sizelimit": lambda kernel: b"%d\n" % loop.sizelimit,
        },
    }


class LoopDirectory(StaticDirectory):
    """/sys/block/loopN: has `loop` as long as the device is bound."""

    __slots__ = ("_loop",)
    caching = CACHE_NEVER

    def __init__(self, fs: Any, loop: Loop, kernel: Kernel) -> None:
        super().__init__(fs, _tree(loop), kernel)
        self._loop = loop

    def child(self, name: bytes) -> Inode:
        if name == b"loop" and self._loop.file is None:
            raise SysError(errno.ENOENT)
        return super().child(name)

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        if self._loop.file is None:  # `loop` is the last of the names
            count = min(count, len(self._names) - 1 - (cursor - 2))
        return await super().entries(cursor, count) if count > 0 else []


def _room(loop: Loop) -> Room:
    return Room(lambda fs, kernel: LoopDirectory(fs, loop, kernel))


def make_tree(kernel: Kernel) -> dict[bytes, Any]:
    devices: Any = kernel.dev
    return {} if devices is None else {b"loop%d" % loop.number: _room(loop) for loop in devices.loops.loops}
