"""Extended attributes (xattr(7)): who may see and set which names; file systems store them."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SETFCAP, CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.fcntl import XATTR_CREATE, XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_REPLACE, XATTR_SIZE_MAX
from sentry.abi.inotify import IN_ATTRIB
from sentry.abi.stat import S_IFDIR, S_IFREG, S_ISVTX
from sentry.abi.syscall_nr import SYS
from sentry.fs import fsnotify
from sentry.fs.modify import guarded
from sentry.fs.walk import MAY_READ, MAY_WRITE, owner_or_capable, permission, walk, want_write
from sentry.kernel.credentials import owned_file_caps
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.dentry import Path as FsPath
    from sentry.fs.inode import Inode
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Flags, Path, Size


def _read_name(task: Task, addr: int) -> bytes:
    name = task.mm.read_cstring(addr, XATTR_NAME_MAX + 1)
    if not name:
        raise SysError(errno.ERANGE)
    return name


def _check_name(name: bytes) -> None:
    """SysError(EINVAL) for the bare prefix of a handled namespace."""
    if name in (b"user.", b"trusted.", b"security."):
        raise SysError(errno.EINVAL)


def _check_read(task: Task, inode: Inode, name: bytes) -> None:
    if name.startswith(b"trusted."):
        if not task.cred.capable(CAP_SYS_ADMIN):
            raise SysError(errno.ENODATA)
    elif name.startswith(b"user."):
        if inode.kind not in (S_IFREG, S_IFDIR):
            raise SysError(errno.ENODATA)
        permission(inode, task.cred, MAY_READ)


def _check_write(task: Task, place: FsPath | None, inode: Inode, name: bytes) -> None:
    if place is not None:
        want_write(place.mount)
    if guarded(inode):
        raise SysError(errno.EPERM)
    cred = task.cred
    if name.startswith(b"trusted."):
        if not cred.capable(CAP_SYS_ADMIN):
            raise SysError(errno.EPERM)
    elif name.startswith(b"user."):
        if inode.kind not in (S_IFREG, S_IFDIR):
            raise SysError(errno.EPERM)
        if inode.is_dir and inode.mode & S_ISVTX and not owner_or_capable(inode, cred):
            raise SysError(errno.EPERM)
        permission(inode, cred, MAY_WRITE)
    elif name.startswith(b"security."):
        needed = CAP_SETFCAP if name == b"security.capability" else CAP_SYS_ADMIN
        over = inode.uid, inode.gid, CAP_SETFCAP
        if not (cred.capable_over(*over) if needed == CAP_SETFCAP else cred.capable(needed)):
            raise SysError(errno.EPERM)
    else:
        raise SysError(errno.EOPNOTSUPP)


async def _get(task: Task, inode: Inode, name_addr: int, buf: int, size: int) -> int:
    name = _read_name(task, name_addr)
    _check_read(task, inode, name)
    _check_name(name)
    value = await inode.getxattr(name)
    if size:
        if len(value) > size:
            raise SysError(errno.ERANGE)
        task.mm.write(buf, value)
    return len(value)


async def _set(
    task: Task, place: FsPath | None, inode: Inode, name_addr: int, buf: int, size: int, flags: int
) -> None:
    if flags & ~(XATTR_CREATE | XATTR_REPLACE):
        raise SysError(errno.EINVAL)
    name = _read_name(task, name_addr)
    if size > XATTR_SIZE_MAX:
        raise SysError(errno.E2BIG)
    value = task.mm.read(buf, size)
    _check_write(task, place, inode, name)
    _check_name(name)
    if name == b"security.capability":
        value = owned_file_caps(value, task.cred.user_ns)
    await inode.setxattr(name, value, flags)
    if fsnotify.watching:
        fsnotify.happened(place, IN_ATTRIB)


async def _list(task: Task, inode: Inode, buf: int, size: int) -> int:
    names = await inode.listxattr()
    if not task.cred.capable(CAP_SYS_ADMIN):
        names = [name for name in names if not name.startswith(b"trusted.")]
    data = b"".join([name + b"\0" for name in names])
    if size:
        if len(data) > size:
            raise SysError(errno.E2BIG if size >= XATTR_LIST_MAX else errno.ERANGE)
        task.mm.write(buf, data)
    return len(data)


async def _remove(task: Task, place: FsPath | None, inode: Inode, name_addr: int) -> None:
    name = _read_name(task, name_addr)
    _check_write(task, place, inode, name)
    _check_name(name)
    await inode.removexattr(name)
    if fsnotify.watching:
        fsnotify.happened(place, IN_ATTRIB)


@syscall(SYS.getxattr)
async def getxattr(task: Task, path: Path, name: Addr, buf: Addr, size: Size) -> int:
    """getxattr(2)."""
    return await _get(task, (await walk(task.fs, task.cred, path)).inode, name, buf, size)


@syscall(SYS.lgetxattr)
async def lgetxattr(task: Task, path: Path, name: Addr, buf: Addr, size: Size) -> int:
    """lgetxattr(2)."""
    return await _get(task, (await walk(task.fs, task.cred, path, follow=False)).inode, name, buf, size)


@syscall(SYS.fgetxattr)
async def fgetxattr(task: Task, fd: Fd, name: Addr, buf: Addr, size: Size) -> int:
    """fgetxattr(2)."""
    return await _get(task, task.files.get(fd).inode, name, buf, size)


@syscall(SYS.setxattr)
async def setxattr(task: Task, path: Path, name: Addr, buf: Addr, size: Size, flags: Flags) -> None:
    """setxattr(2)."""
    place = await walk(task.fs, task.cred, path)
    await _set(task, place, place.inode, name, buf, size, flags)


@syscall(SYS.lsetxattr)
async def lsetxattr(task: Task, path: Path, name: Addr, buf: Addr, size: Size, flags: Flags) -> None:
    """lsetxattr(2)."""
    place = await walk(task.fs, task.cred, path, follow=False)
    await _set(task, place, place.inode, name, buf, size, flags)


@syscall(SYS.fsetxattr)
async def fsetxattr(task: Task, fd: Fd, name: Addr, buf: Addr, size: Size, flags: Flags) -> None:
    """fsetxattr(2)."""
    file = task.files.get(fd)
    await _set(task, file.path, file.inode, name, buf, size, flags)


@syscall(SYS.listxattr)
async def listxattr(task: Task, path: Path, buf: Addr, size: Size) -> int:
    """listxattr(2)."""
    return await _list(task, (await walk(task.fs, task.cred, path)).inode, buf, size)


@syscall(SYS.llistxattr)
async def llistxattr(task: Task, path: Path, buf: Addr, size: Size) -> int:
    """llistxattr(2)."""
    return await _list(task, (await walk(task.fs, task.cred, path, follow=False)).inode, buf, size)


@syscall(SYS.flistxattr)
async def flistxattr(task: Task, fd: Fd, buf: Addr, size: Size) -> int:
    """flistxattr(2)."""
    return await _list(task, task.files.get(fd).inode, buf, size)


@syscall(SYS.removexattr)
async def removexattr(task: Task, path: Path, name: Addr) -> None:
    """removexattr(2)."""
    place = await walk(task.fs, task.cred, path)
    await _remove(task, place, place.inode, name)


@syscall(SYS.lremovexattr)
async def lremovexattr(task: Task, path: Path, name: Addr) -> None:
    """lremovexattr(2)."""
    place = await walk(task.fs, task.cred, path, follow=False)
    await _remove(task, place, place.inode, name)


@syscall(SYS.fremovexattr)
async def fremovexattr(task: Task, fd: Fd, name: Addr) -> None:
    """fremovexattr(2)."""
    file = task.files.get(fd)
    await _remove(task, file.path, file.inode, name)
