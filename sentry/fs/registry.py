"""The file systems that mount(2) knows (/proc/filesystems): type name → how to make one.

A maker is called as `await make(kernel, source, data)` and returns a Filesystem that has a `root`.
Who implements a type registers it when the sandbox is set up.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.fs.proc.base import current_task
from sentry.fs.tmpfs.inode import Tmpfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from sentry.fs.inode import Filesystem

    Maker = Callable[[Any, bytes, bytes], Awaitable[Filesystem]]

MOUNTABLE: dict[bytes, Maker] = {}
#: What a tmpfs that a guest mounts takes its read-only descriptors from; set with the sandbox's own.
TMPFS_DEFAULTS: dict[str, Any] = {"limit_bytes": 0, "reopen_readonly": None}
_UNITS = {b"k": 10, b"m": 20, b"g": 30}


def _size(text: bytes) -> int:
    shift = _UNITS.get(text[-1:].lower(), 0)
    digits = text[:-1] if shift else text
    if not digits.isdigit() or len(digits) > 18:
        raise SysError(errno.EINVAL)
    return int(digits) << shift


async def make_tmpfs(kernel: Any, source: bytes, data: bytes) -> Filesystem:
    """tmpfs with its options size, nr_blocks, mode, uid and gid (tmpfs(5))."""
    task = current_task()
    mode, uid, gid = 0o1777, 0, 0
    if task is not None:
        uid, gid = task.cred.fsuid, task.cred.fsgid
    most: int = TMPFS_DEFAULTS["limit_bytes"]
    limit = most
    for option in data.split(b","):
        key, _, value = option.partition(b"=")
        if key == b"size" and not value.endswith(b"%"):
            limit = _size(value)
        elif key == b"nr_blocks":
            limit = _size(value) * 4096
        elif key == b"mode":
            try:
                mode = int(value, 8) & 0o7777
            except ValueError:
                raise SysError(errno.EINVAL) from None
        elif key in (b"uid", b"gid"):
            if not value.isdigit() or len(value) > 10:
                raise SysError(errno.EINVAL)
            number = int(value)
            if task is not None:
                space = task.cred.user_ns
                number = space.kuid(number) if key == b"uid" else space.kgid(number)
            uid, gid = (number, gid) if key == b"uid" else (uid, number)
        elif key not in (b"", b"size", b"nr_inodes", b"huge", b"inode32", b"inode64", b"noswap"):
            raise SysError(errno.EINVAL)
    if most:
        limit = min(limit or most, most)
    return Tmpfs(limit, TMPFS_DEFAULTS["reopen_readonly"], mode, uid, gid)


MOUNTABLE[b"tmpfs"] = make_tmpfs
