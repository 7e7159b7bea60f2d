"""Requests of ioctl(2) that every file system may answer: flags (ioctl_iflags(2)), clones, extents."""

from __future__ import annotations

import errno

from sentry.abi import fileattr as abi
from sentry.abi.capability import CAP_LINUX_IMMUTABLE
from sentry.abi.errors import SysError
from sentry.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_APPEND
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.stat import S_IFREG
from sentry.abi.syscall_nr import SYS
from sentry.fs import spare
from sentry.fs.walk import owner_or_capable, start_of, walk, want_write
from sentry.syscalls.args import read_extensible, read_path
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.dentry import Path as FsPath
    from sentry.fs.file import File
    from sentry.fs.inode import Inode
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Flags, Size

_GUARDED = abi.FS_IMMUTABLE_FL | abi.FS_APPEND_FL


def _signed(fd: int) -> int:
    return (fd & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def get_flags(inode: Inode) -> int:
    flags = inode.fsflags
    if flags is None:
        raise SysError(errno.ENOTTY)
    return flags


def set_flags(task: Task, path: FsPath | None, inode: Inode, flags: int) -> None:
    """FS_IOC_SETFLAGS; SysError(ENOTTY, EPERM, EROFS, EOPNOTSUPP)."""
    old = get_flags(inode)
    if path is not None:
        want_write(path.mount)
    if not owner_or_capable(inode, task.cred):
        raise SysError(errno.EPERM)
    if (old ^ flags) & _GUARDED and not task.cred.capable(CAP_LINUX_IMMUTABLE):
        raise SysError(errno.EPERM)
    if flags & ~abi.FS_SETTABLE:
        raise SysError(errno.EOPNOTSUPP)
    spare.forget_inode(inode)
    inode.set_fsflags(flags)


def _extended(inode: Inode) -> int:
    flags = get_flags(inode)
    return sum(ours for ours, flag in abi.XFLAGS.items() if flags & flag)


def _get_extended(task: Task, inode: Inode, arg: int) -> None:
    task.mm.write(arg, abi.FSXATTR.pack(_extended(inode), 0, 0, 0, 0))


def _from_extended(xflags: int, extent: int, project: int, cow_extent: int) -> int:
    """FS_…_FL of the fields of struct fsxattr; SysError(EOPNOTSUPP) for what only other file systems have."""
    # Flags that go with a size mean nothing without one (fileattr_set_prepare).
    xflags &= ~((0 if extent else abi.FS_XFLAGS_EXTENT) | (0 if cow_extent else abi.FS_XFLAG_COWEXTSIZE))
    if xflags & ~sum(abi.XFLAGS) or extent or project or cow_extent:
        raise SysError(errno.EOPNOTSUPP)
    return sum(flag for ours, flag in abi.XFLAGS.items() if xflags & ours)


def _set_extended(task: Task, file: File, arg: int) -> None:
    get_flags(file.inode)
    xflags, extent, _, project, cow_extent = abi.FSXATTR.unpack(task.mm.read(arg, abi.FSXATTR.size))
    set_flags(task, file.path, file.inode, _from_extended(xflags, extent, project, cow_extent))


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
        set_flags(task, file.path, file.inode, task.mm.read_u32(arg))
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


async def _target(task: Task, dirfd: int, name: int, flags: int) -> tuple[Inode, FsPath | None]:
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise SysError(errno.EINVAL)
    path = read_path(task, name) if name or not flags & AT_EMPTY_PATH else b""
    if not path and flags & AT_EMPTY_PATH and dirfd != AT_FDCWD:
        file = task.files.get_any(dirfd)
        return file.inode, file.path
    if not path and not flags & AT_EMPTY_PATH:
        raise SysError(errno.ENOENT)
    start = start_of(task, dirfd, path)
    place = await walk(task.fs, task.cred, path or b".", start, not flags & AT_SYMLINK_NOFOLLOW)
    return place.inode, place


@syscall(SYS.file_getattr)
async def file_getattr(task: Task, dirfd: Fd, name: Addr, buf: Addr, size: Size, flags: Flags) -> None:
    """file_getattr(2): FS_IOC_FSGETXATTR of a path."""
    if size > PAGE_SIZE:
        raise SysError(errno.E2BIG)
    if size < abi.FILE_ATTR.size or flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise SysError(errno.EINVAL)
    inode, _ = await _target(task, dirfd, name, flags)
    if inode.fsflags is None:
        raise SysError(errno.EOPNOTSUPP)
    task.mm.write(buf, abi.FILE_ATTR.pack(_extended(inode), 0, 0, 0, 0).ljust(size, b"\0"))


@syscall(SYS.file_setattr)
async def file_setattr(task: Task, dirfd: Fd, name: Addr, buf: Addr, size: Size, flags: Flags) -> None:
    """file_setattr(2): FS_IOC_FSSETXATTR of a path."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise SysError(errno.EINVAL)
    xflags, extent, _, project, cow = read_extensible(task, buf, size, abi.FILE_ATTR, abi.FILE_ATTR.size)
    if xflags & ~abi.FS_XFLAGS_MASK:
        raise SysError(errno.EINVAL)
    inode, place = await _target(task, dirfd, name, flags)
    if inode.fsflags is None:
        raise SysError(errno.EOPNOTSUPP)
    set_flags(task, place, inode, _from_extended(xflags, extent, project, cow))


REQUESTS = frozenset((
    abi.FS_IOC_GETFLAGS, abi.FS_IOC_SETFLAGS, abi.FS_IOC_FSGETXATTR, abi.FS_IOC_FSSETXATTR, abi.FICLONE,
    abi.FICLONERANGE, abi.FS_IOC_FIEMAP,
))  # fmt: skip
