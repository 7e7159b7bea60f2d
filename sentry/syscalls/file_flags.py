"""Requests of ioctl(2) that every file system may answer: flags (ioctl_iflags(2)), clones, extents."""

from __future__ import annotations

import errno

from sentry.abi import fileattr as abi
from sentry.abi.capability import CAP_LINUX_IMMUTABLE
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_APPEND
from sentry.abi.stat import S_IFREG
from sentry.fs import spare
from sentry.fs.walk import owner_or_capable, want_write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.file import File
    from sentry.fs.inode import Inode
    from sentry.kernel.task import Task

_GUARDED = abi.FS_IMMUTABLE_FL | abi.FS_APPEND_FL


def _signed(fd: int) -> int:
    return (fd & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def get_flags(inode: Inode) -> int:
    flags = inode.fsflags
    if flags is None:
        raise SysError(errno.ENOTTY)
    return flags


def set_flags(task: Task, file: File, flags: int) -> None:
    """FS_IOC_SETFLAGS; SysError(ENOTTY, EPERM, EROFS, EOPNOTSUPP)."""
    inode = file.inode
    old = get_flags(inode)
    if file.path is not None:
        want_write(file.path.mount)
    if not owner_or_capable(inode, task.cred):
        raise SysError(errno.EPERM)
    if (old ^ flags) & _GUARDED and not task.cred.capable(CAP_LINUX_IMMUTABLE):
        raise SysError(errno.EPERM)
    if flags & ~abi.FS_SETTABLE:
        raise SysError(errno.EOPNOTSUPP)
    spare.forget_inode(inode)
    inode.set_fsflags(flags)


def _get_extended(task: Task, inode: Inode, arg: int) -> None:
    flags = get_flags(inode)
    xflags = sum(ours for ours, flag in abi.XFLAGS.items() if flags & flag)
    task.mm.write(arg, abi.FSXATTR.pack(xflags, 0, 0, 0, 0))


def _set_extended(task: Task, file: File, arg: int) -> None:
    get_flags(file.inode)
    xflags, extent, _, project, cow_extent = abi.FSXATTR.unpack(task.mm.read(arg, abi.FSXATTR.size))
    if xflags & ~sum(abi.XFLAGS) or extent or project or cow_extent:
        raise SysError(errno.EOPNOTSUPP)
    set_flags(task, file, sum(flag for ours, flag in abi.XFLAGS.items() if xflags & ours))


def _clone(task: Task, file: File, fd: int) -> None:
    """FICLONE: no file system here shares extents, so what is left are the checks (vfs_clone_file_range)."""
    source = task.files.get(fd)
    if source.inode.fs is not file.inode.fs:
        raise SysError(errno.EXDEV)
    if source.inode.is_dir or file.inode.is_dir:
        raise SysError(errno.EISDIR)
    if source.inode.kind != S_IFREG or file.inode.kind != S_IFREG:
        raise SysError(errno.EINVAL)
    if not source.readable or not file.writable or file.flags & O_APPEND:
        raise SysError(errno.EBADF)
    raise SysError(errno.EOPNOTSUPP)


def request(task: Task, file: File, number: int, arg: int) -> None:
    """Answer one of REQUESTS; SysError."""
    if number == abi.FS_IOC_GETFLAGS:
        task.mm.write_u32(arg, get_flags(file.inode))
    elif number == abi.FS_IOC_SETFLAGS:
        get_flags(file.inode)
        set_flags(task, file, task.mm.read_u32(arg))
    elif number == abi.FS_IOC_FSGETXATTR:
        _get_extended(task, file.inode, arg)
    elif number == abi.FS_IOC_FSSETXATTR:
        _set_extended(task, file, arg)
    elif number == abi.FICLONE:
        _clone(task, file, _signed(arg))
    elif number == abi.FICLONERANGE:
        _clone(task, file, _signed(abi.CLONE_RANGE.unpack(task.mm.read(arg, abi.CLONE_RANGE.size))[0]))
    else:
        raise SysError(errno.EOPNOTSUPP)  # FS_IOC_FIEMAP


REQUESTS = frozenset((
    abi.FS_IOC_GETFLAGS, abi.FS_IOC_SETFLAGS, abi.FS_IOC_FSGETXATTR, abi.FS_IOC_FSSETXATTR, abi.FICLONE,
    abi.FICLONERANGE, abi.FS_IOC_FIEMAP,
))  # fmt: skip
