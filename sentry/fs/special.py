"""Opening FIFOs, device nodes and sockets: the same for the nodes of every file system.

Who owns pipes and devices registers an opener here when it is set up; file systems only store
the nodes.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.file import File
    from sentry.fs.inode import Inode
    from sentry.kernel.credentials import Credentials

#: open_fifo(inode, flags): a coroutine function, or a plain one, that returns the File of a FIFO's end.
fifo_opener: Callable[[Inode, int], Any] | None = None
#: open_device(inode, path, flags, cred): the File of the device `inode.rdev`, SysError(ENXIO).
device_opener: Callable[[Inode, Path, int, Credentials], Awaitable[File]] | None = None


async def open_special(inode: Inode, path: Path, flags: int, cred: Credentials) -> File:
    """The File of a FIFO or device node; SysError(ENXIO) for sockets and what nobody serves."""
    kind = inode.mode & 0o170000
    if kind == 0o010000 and fifo_opener is not None:
        file = fifo_opener(inode, flags)
        if hasattr(file, "__await__"):
            file = await file
        if file.path is None:
            file.path = path
        result: File = file
        return result
    if kind in (0o020000, 0o060000) and device_opener is not None:
        return await device_opener(inode, path, flags, cred)
    raise SysError(errno.ENXIO)
