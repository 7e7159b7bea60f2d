"""File handles: name_to_handle_at(2), open_by_handle_at(2).

As on Linux a file system has to know how to find a file by its number.  Here a tmpfs does, of the files
that it has been asked handles of (`Tmpfs.handles`); others answer as Linux's file systems do that can't be
exported (procfs, an overlay).
"""

from __future__ import annotations

import errno

from sentry.abi import handle as abi
from sentry.abi.capability import CAP_DAC_READ_SEARCH
from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_LARGEFILE,
    O_PATH,
)
from sentry.abi.syscall_nr import SYS
from sentry.fs.dentry import Path as FsPath
from sentry.fs.opening import check_flags, open_found
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.fs.walk import start_of, walk
from sentry.syscalls.args import read_path
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Flags


def _exporting(place: FsPath) -> Tmpfs | None:
    fs = place.mount.fs
    return fs if type(fs) is Tmpfs else None


async def _named(task: Task, dirfd: int, name: int, flags: int) -> FsPath:
    path = read_path(task, name)
    if path:
        follow = bool(flags & AT_SYMLINK_FOLLOW)
        return await walk(task.fs, task.cred, path, start_of(task, dirfd, path), follow)
    if not flags & AT_EMPTY_PATH:
        raise SysError(errno.ENOENT)
    return _place_of(task, dirfd)


def _place_of(task: Task, fd: int) -> FsPath:
    """Where the open file `fd`, or with AT_FDCWD the caller, is."""
    if fd == AT_FDCWD:
        return task.fs.cwd
    path = task.files.get_any(fd).path
    if path is None:
        raise SysError(errno.EOPNOTSUPP)
    return path


@syscall(SYS.name_to_handle_at, partial="of files in a tmpfs only")
async def name_to_handle_at(
    task: Task, dirfd: Fd, name: Addr, handle: Addr, mount_id: Addr, flags: Flags
) -> None:
    """name_to_handle_at(2)."""
    known = AT_SYMLINK_FOLLOW | AT_EMPTY_PATH | abi.AT_HANDLE_FID | abi.AT_HANDLE_MNT_ID_UNIQUE
    known |= abi.AT_HANDLE_CONNECTABLE
    connectable = flags & abi.AT_HANDLE_CONNECTABLE
    if flags & ~known or (connectable and flags & (abi.AT_HANDLE_FID | AT_EMPTY_PATH)):
        raise SysError(errno.EINVAL)
    place = await _named(task, dirfd, name, flags)
    fs = _exporting(place)
    if connectable:
        raise SysError(errno.EOPNOTSUPP)  # no handle of a tmpfs leads to the directory
    if fs is None and not flags & abi.AT_HANDLE_FID:
        raise SysError(errno.EOPNOTSUPP)
    room, _ = abi.HEAD.unpack(task.mm.read(handle, abi.HEAD.size))
    if room > abi.MAX_HANDLE_SZ:
        raise SysError(errno.EINVAL)
    size = abi.TMPFS_HANDLE.size
    if flags & abi.AT_HANDLE_MNT_ID_UNIQUE:
        task.mm.write_u64(mount_id, place.mount.id)
    else:
        task.mm.write_u32(mount_id, place.mount.id & 0x7FFFFFFF)
    if room < size:
        task.mm.write_u32(handle, size)
        raise SysError(errno.EOVERFLOW)
    ino = place.inode.ino
    if fs is not None:
        fs.note_handle(place.dentry)
    data = abi.TMPFS_HANDLE.pack(0, ino & 0xFFFFFFFF, ino >> 32)
    task.mm.write(handle, abi.HEAD.pack(size, abi.TMPFS_TYPE) + data)


@syscall(SYS.open_by_handle_at, partial="of files in a tmpfs only, of which the handle was asked for")
async def open_by_handle_at(task: Task, mount_fd: Fd, handle: Addr, flags: Flags) -> int:
    """open_by_handle_at(2)."""
    size, kind = abi.HEAD.unpack(task.mm.read(handle, abi.HEAD.size))
    if not 0 < size <= abi.MAX_HANDLE_SZ:
        raise SysError(errno.EINVAL)
    if kind < 0 or kind & ~(abi.FILEID_TYPES | abi.FILEID_USER_FLAGS):
        raise SysError(errno.EINVAL)
    place = _place_of(task, mount_fd)
    if not task.cred.capable(CAP_DAC_READ_SEARCH):
        raise SysError(errno.EPERM)
    data = task.mm.read(handle + abi.HEAD.size, size)
    fs = _exporting(place)
    if fs is None or size < abi.TMPFS_HANDLE.size:
        raise SysError(errno.ESTALE)
    _, low, high = abi.TMPFS_HANDLE.unpack(data[: abi.TMPFS_HANDLE.size])
    dentry = fs.by_handle(low | high << 32)
    flags = check_flags(flags)
    if flags & O_CREAT and flags & O_EXCL:
        raise SysError(errno.EEXIST)
    flags &= ~O_CREAT
    if not flags & O_PATH:
        flags |= O_LARGEFILE
    found = FsPath(place.mount, dentry)
    if flags & O_DIRECTORY and not found.inode.is_dir:
        raise SysError(errno.ENOTDIR)
    file = await open_found(task.fs, task.cred, found, flags)
    return task.install(file, bool(flags & O_CLOEXEC))
