"""Directories: getdents64 and its elder."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.inotify import IN_ACCESS
from sentry.abi.stat import DIRENT, DIRENT64
from sentry.abi.syscall_nr import SYS
from sentry.fs import fsnotify
from sentry.syscalls.file_io import CHUNK
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, UInt


async def _getdents(task: Task, fd: int, buf: int, size: int, legacy: bool) -> int:
    file = task.files.get(fd)
    if not file.inode.is_dir:
        raise SysError(errno.ENOTDIR)
    if file.path is not None and file.path.dentry.deleted:
        raise SysError(errno.ENOENT)
    if fsnotify.watching:
        fsnotify.happened(file.path, IN_ACCESS)
    size = min(size, CHUNK)
    out = bytearray()
    pos = file.pos
    while True:
        entries = await file.readdir()
        for ino, after, kind, name in entries:
            if legacy:
                length = DIRENT.size + len(name) + 2 + 7 & ~7
            else:
                length = DIRENT64.size + len(name) + 1 + 7 & ~7
            if len(out) + length > size:
                entries = []
                break
            if legacy:
                record = DIRENT.pack(ino, after, length) + name
                out += record.ljust(length - 1, b"\0") + bytes((kind,))
            else:
                out += (DIRENT64.pack(ino, after, length, kind) + name).ljust(length, b"\0")
            file.pos = after
        if not entries:
            break
    if not out:
        if file.pos == pos and await file.readdir():
            raise SysError(errno.EINVAL)  # the buffer is too small for the next entry
        return 0
    try:
        task.mm.write(buf, out)
        return len(out)
    except SysError:
        file.pos = pos
    # The entries that fitted, up to where their names end; SysError(EFAULT): not even one byte did.
    stored, done = task.mm.write_upto(buf, out), 0
    while done < stored:
        _, after, length = DIRENT.unpack_from(out, done)
        name_end = out.index(0, done + DIRENT64.size) + 1
        if stored < (done + length if legacy else name_end):
            break
        file.pos = after
        done += length
    if not done:
        raise SysError(errno.EFAULT)
    return done


@syscall(SYS.getdents64)
async def getdents64(task: Task, fd: Fd, buf: Addr, size: UInt) -> int:
    """getdents64(2)."""
    return await _getdents(task, fd, buf, size, False)


@syscall(SYS.getdents)
async def getdents(task: Task, fd: Fd, buf: Addr, size: UInt) -> int:
    """getdents(2), the old record."""
    return await _getdents(task, fd, buf, size, True)
