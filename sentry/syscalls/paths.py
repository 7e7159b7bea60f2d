"""Calls that change what a path names: mkdir, unlink, rename, link, chmod, chown, times, truncate."""

from __future__ import annotations

import errno
from _struct import Struct
from time import time_ns

from sentry.abi.capability import CAP_DAC_READ_SEARCH
from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
    O_WRONLY,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
)
from sentry.abi.fileattr import FS_APPEND_FL
from sentry.abi.inotify import IN_MODIFY
from sentry.abi.stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK
from sentry.abi.syscall_nr import SYS
from sentry.fs import fsnotify, leases, modify
from sentry.fs.dentry import Path as FsPath
from sentry.fs.walk import MAY_WRITE, permission, start_of, walk, walk_parent, want_write
from sentry.syscalls.args import read_path
from sentry.syscalls.file_io import check_file_limit
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Flags, Long, Mode, Path, UInt

_TIMESPECS = Struct("<qqqq")
_TIMES = Struct("<qq")
UTIME_NOW = 0x3FFFFFFF
UTIME_OMIT = 0x3FFFFFFE
_SECOND = 1_000_000_000


async def _new_name(task: Task, dirfd: int, path: bytes, directory: bool = False) -> tuple[FsPath, bytes]:
    """(directory, name) to create; SysError(EEXIST) for names that can't be new, SysError(ENOENT) for a
    name with a slash behind that isn't to be a directory."""
    place, name, slash = await walk_parent(task.fs, task.cred, path, start_of(task, dirfd, path))
    if name in (b"", b".", b".."):
        raise SysError(errno.EEXIST)
    if slash and not directory:
        await walk(task.fs, task.cred, name, place, follow=False)
        raise SysError(errno.EEXIST)
    return place, name


async def _mkdir(task: Task, dirfd: int, path: bytes, mode: int) -> None:
    place, name = await _new_name(task, dirfd, path, directory=True)
    await modify.mkdir(place, name, mode, task.fs.umask, task.cred)


@syscall(SYS.mkdir)
async def mkdir(task: Task, path: Path, mode: Mode) -> None:
    """mkdir(2)."""
    await _mkdir(task, AT_FDCWD, path, mode)


@syscall(SYS.mkdirat)
async def mkdirat(task: Task, dirfd: Fd, path: Path, mode: Mode) -> None:
    """mkdirat(2)."""
    await _mkdir(task, dirfd, path, mode)


async def _mknod(task: Task, dirfd: int, path: bytes, mode: int, dev: int) -> None:
    kind = mode & S_IFMT
    if kind == S_IFDIR:
        raise SysError(errno.EPERM)
    if kind not in (0, S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK):
        raise SysError(errno.EINVAL)
    place, name = await _new_name(task, dirfd, path)
    rdev = dev if kind in (S_IFCHR, S_IFBLK) else 0
    await modify.mknod(place, name, mode, rdev, task.fs.umask, task.cred)


@syscall(SYS.mknod)
async def mknod(task: Task, path: Path, mode: Mode, dev: UInt) -> None:
    """mknod(2)."""
    await _mknod(task, AT_FDCWD, path, mode, dev)


@syscall(SYS.mknodat)
async def mknodat(task: Task, dirfd: Fd, path: Path, mode: Mode, dev: UInt) -> None:
    """mknodat(2)."""
    await _mknod(task, dirfd, path, mode, dev)


async def _symlink(task: Task, target: bytes, dirfd: int, path: bytes) -> None:
    if not target:
        raise SysError(errno.ENOENT)
    place, name = await _new_name(task, dirfd, path)
    await modify.symlink(place, name, target, task.cred)


@syscall(SYS.symlink)
async def symlink(task: Task, target: Path, path: Path) -> None:
    """symlink(2)."""
    await _symlink(task, target, AT_FDCWD, path)


@syscall(SYS.symlinkat)
async def symlinkat(task: Task, target: Path, dirfd: Fd, path: Path) -> None:
    """symlinkat(2)."""
    await _symlink(task, target, dirfd, path)


async def _link(task: Task, old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int) -> None:
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
        raise SysError(errno.EINVAL)
    if not old and flags & AT_EMPTY_PATH:
        if not task.cred.capable(CAP_DAC_READ_SEARCH):
            raise SysError(errno.ENOENT)
        source = task.fs.cwd if old_fd == AT_FDCWD else _file_path(task, old_fd)
    else:
        start = start_of(task, old_fd, old)
        source = await walk(task.fs, task.cred, old, start, bool(flags & AT_SYMLINK_FOLLOW))
    place, name = await _new_name(task, new_fd, new)
    await modify.link(source, place, name, task.cred)


@syscall(SYS.link)
async def link(task: Task, old: Path, new: Path) -> None:
    """link(2)."""
    await _link(task, AT_FDCWD, old, AT_FDCWD, new, 0)


@syscall(SYS.linkat)
async def linkat(task: Task, old_fd: Fd, old: Path, new_fd: Fd, new: Path, flags: Flags) -> None:
    """linkat(2)."""
    await _link(task, old_fd, old, new_fd, new, flags)


async def _unlink(task: Task, dirfd: int, path: bytes) -> None:
    place, name, slash = await walk_parent(task.fs, task.cred, path, start_of(task, dirfd, path))
    if name in (b"", b".", b".."):
        raise SysError(errno.EISDIR)
    await modify.unlink(place, name, slash, task.cred)


async def _rmdir(task: Task, dirfd: int, path: bytes) -> None:
    place, name, _ = await walk_parent(task.fs, task.cred, path, start_of(task, dirfd, path))
    if name in (b"", b".", b".."):
        raise SysError({b"": errno.EBUSY, b".": errno.EINVAL, b"..": errno.ENOTEMPTY}[name])
    await modify.rmdir(place, name, task.cred)


@syscall(SYS.unlink)
async def unlink(task: Task, path: Path) -> None:
    """unlink(2)."""
    await _unlink(task, AT_FDCWD, path)


@syscall(SYS.unlinkat)
async def unlinkat(task: Task, dirfd: Fd, path: Path, flags: Flags) -> None:
    """unlinkat(2)."""
    if flags & ~AT_REMOVEDIR:
        raise SysError(errno.EINVAL)
    await (_rmdir if flags else _unlink)(task, dirfd, path)


@syscall(SYS.rmdir)
async def rmdir(task: Task, path: Path) -> None:
    """rmdir(2)."""
    await _rmdir(task, AT_FDCWD, path)


async def _rename(task: Task, old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int) -> None:
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
        raise SysError(errno.EINVAL)
    if flags & RENAME_EXCHANGE and flags & (RENAME_NOREPLACE | RENAME_WHITEOUT):
        raise SysError(errno.EINVAL)
    old_dir, old_name, old_slash = await walk_parent(task.fs, task.cred, old, start_of(task, old_fd, old))
    new_dir, new_name, new_slash = await walk_parent(task.fs, task.cred, new, start_of(task, new_fd, new))
    if old_dir.mount is not new_dir.mount:
        raise SysError(errno.EXDEV)
    dots = (b"", b".", b"..")
    if old_name in dots:
        raise SysError(errno.EBUSY)
    if new_name in dots:
        raise SysError(errno.EEXIST if flags & RENAME_NOREPLACE else errno.EBUSY)
    if flags & RENAME_WHITEOUT:
        raise SysError(errno.EINVAL)
    await modify.rename(old_dir, old_name, old_slash, new_dir, new_name, new_slash, flags, task.cred)


@syscall(SYS.rename)
async def rename(task: Task, old: Path, new: Path) -> None:
    """rename(2)."""
    await _rename(task, AT_FDCWD, old, AT_FDCWD, new, 0)


@syscall(SYS.renameat)
async def renameat(task: Task, old_fd: Fd, old: Path, new_fd: Fd, new: Path) -> None:
    """renameat(2)."""
    await _rename(task, old_fd, old, new_fd, new, 0)


@syscall(SYS.renameat2, partial="no RENAME_WHITEOUT")
async def renameat2(task: Task, old_fd: Fd, old: Path, new_fd: Fd, new: Path, flags: Flags) -> None:
    """renameat2(2)."""
    await _rename(task, old_fd, old, new_fd, new, flags)


def _file_path(task: Task, fd: int, any_file: bool = True) -> FsPath:
    """The place of an open file; SysError(EBADF), and EOPNOTSUPP for one that has none."""
    file = task.files.get_any(fd) if any_file else task.files.get(fd)
    if file.path is None:
        raise SysError(errno.EOPNOTSUPP)
    return file.path


async def _place(task: Task, dirfd: int, path: bytes, flags: int) -> FsPath:
    """What (dirfd, path, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) mean."""
    if not path and flags & AT_EMPTY_PATH:
        return task.fs.cwd if dirfd == AT_FDCWD else _file_path(task, dirfd)
    start = start_of(task, dirfd, path)
    return await walk(task.fs, task.cred, path, start, not flags & AT_SYMLINK_NOFOLLOW)


async def _chmod(task: Task, place: FsPath, mode: int) -> None:
    if place.inode.is_symlink:
        raise SysError(errno.EOPNOTSUPP)
    await modify.chmod(place, mode, task.cred)


@syscall(SYS.chmod)
async def chmod(task: Task, path: Path, mode: Mode) -> None:
    """chmod(2)."""
    await _chmod(task, await walk(task.fs, task.cred, path), mode)


@syscall(SYS.fchmod)
async def fchmod(task: Task, fd: Fd, mode: Mode) -> None:
    """fchmod(2)."""
    await _chmod(task, _file_path(task, fd, any_file=False), mode)


@syscall(SYS.fchmodat)
async def fchmodat(task: Task, dirfd: Fd, path: Path, mode: Mode) -> None:
    """fchmodat(2), the call without flags."""
    await _chmod(task, await _place(task, dirfd, path, 0), mode)


@syscall(SYS.fchmodat2)
async def fchmodat2(task: Task, dirfd: Fd, path: Path, mode: Mode, flags: Flags) -> None:
    """fchmodat2(2)."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise SysError(errno.EINVAL)
    await _chmod(task, await _place(task, dirfd, path, flags), mode)


@syscall(SYS.chown)
async def chown(task: Task, path: Path, uid: UInt, gid: UInt) -> None:
    """chown(2)."""
    await modify.chown(await walk(task.fs, task.cred, path), uid, gid, task.cred)


@syscall(SYS.lchown)
async def lchown(task: Task, path: Path, uid: UInt, gid: UInt) -> None:
    """lchown(2)."""
    await modify.chown(await walk(task.fs, task.cred, path, follow=False), uid, gid, task.cred)


@syscall(SYS.fchown)
async def fchown(task: Task, fd: Fd, uid: UInt, gid: UInt) -> None:
    """fchown(2)."""
    await modify.chown(_file_path(task, fd, any_file=False), uid, gid, task.cred)


@syscall(SYS.fchownat)
async def fchownat(task: Task, dirfd: Fd, path: Path, uid: UInt, gid: UInt, flags: Flags) -> None:
    """fchownat(2)."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise SysError(errno.EINVAL)
    await modify.chown(await _place(task, dirfd, path, flags), uid, gid, task.cred)


async def _utimes(
    task: Task, dirfd: int, path: bytes | None, times: tuple[int, ...] | None, flags: int
) -> None:
    """`times`: (atime seconds, nanoseconds, mtime seconds, nanoseconds), UTIME_NOW and UTIME_OMIT among
    them; None: now.  `path` None: the open file `dirfd` itself."""
    values: list[int | None] = []
    now = time_ns()
    if times is None:
        times = (0, UTIME_NOW, 0, UTIME_NOW)
    for seconds, nanoseconds in (times[:2], times[2:]):
        if nanoseconds == UTIME_NOW:
            values.append(now)
        elif nanoseconds == UTIME_OMIT:
            values.append(None)
        elif not 0 <= nanoseconds < _SECOND:
            raise SysError(errno.EINVAL)
        else:
            seconds = max(-(1 << 33), min(seconds, 1 << 33))
            values.append(seconds * _SECOND + nanoseconds)
    if values == [None, None]:
        return
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise SysError(errno.EINVAL)
    if path is None:
        if flags:
            raise SysError(errno.EINVAL)
        place = _file_path(task, dirfd, any_file=False)
    else:
        place = await _place(task, dirfd, path, flags)
    both_now = times[1] == UTIME_NOW == times[3]
    await modify.utimes(place, values[0], values[1], both_now, task.cred)


@syscall(SYS.utimensat)
async def utimensat(task: Task, dirfd: Fd, path: Addr, times: Addr, flags: Flags) -> None:
    """utimensat(2)."""
    values = _TIMESPECS.unpack(task.mm.read(times, _TIMESPECS.size)) if times else None
    if values is not None and values[1] == UTIME_OMIT == values[3]:
        return
    if not path and dirfd == AT_FDCWD:
        raise SysError(errno.EFAULT)
    await _utimes(task, dirfd, read_path(task, path) if path else None, values, flags)


async def _utimes_micro(task: Task, dirfd: int, path: bytes | None, times: int) -> None:
    """The calls that take struct timeval."""
    values = None
    if times:
        asec, ausec, msec, musec = _TIMESPECS.unpack(task.mm.read(times, _TIMESPECS.size))
        if not 0 <= ausec < 1_000_000 or not 0 <= musec < 1_000_000:
            raise SysError(errno.EINVAL)
        values = (asec, ausec * 1000, msec, musec * 1000)
    await _utimes(task, dirfd, path, values, 0)


@syscall(SYS.utimes)
async def utimes(task: Task, path: Path, times: Addr) -> None:
    """utimes(2)."""
    await _utimes_micro(task, AT_FDCWD, path, times)


@syscall(SYS.futimesat)
async def futimesat(task: Task, dirfd: Fd, path: Addr, times: Addr) -> None:
    """futimesat(2)."""
    await _utimes_micro(task, dirfd, read_path(task, path) if path else None, times)


@syscall(SYS.utime)
async def utime(task: Task, path: Path, times: Addr) -> None:
    """utime(2)."""
    values = None
    if times:
        atime, mtime = _TIMES.unpack(task.mm.read(times, _TIMES.size))
        values = (atime, 0, mtime, 0)
    await _utimes(task, AT_FDCWD, path, values, 0)


@syscall(SYS.truncate)
async def truncate(task: Task, path: Path, size: Long) -> None:
    """truncate(2)."""
    if size < 0:
        raise SysError(errno.EINVAL)
    place = await walk(task.fs, task.cred, path)
    inode = place.inode
    if inode.is_dir:
        raise SysError(errno.EISDIR)
    if inode.kind != S_IFREG:
        raise SysError(errno.EINVAL)
    want_write(place.mount)
    permission(inode, task.cred, MAY_WRITE)
    if modify.guarded(inode):
        raise SysError(errno.EPERM)
    if inode.texts:
        raise SysError(errno.ETXTBSY)
    check_file_limit(task, inode.size, size)
    if leases.held:
        await leases.break_lease(inode, O_WRONLY)
    await modify.truncate(inode, size, task.cred)
    if fsnotify.watching:
        fsnotify.happened(place, IN_MODIFY)


@syscall(SYS.ftruncate)
async def ftruncate(task: Task, fd: Fd, size: Long) -> None:
    """ftruncate(2)."""
    if size < 0:
        raise SysError(errno.EINVAL)
    file = task.files.get(fd)
    inode = file.inode
    if not file.writable or inode.kind != S_IFREG:
        raise SysError(errno.EINVAL)
    if (inode.fsflags or 0) & FS_APPEND_FL:
        raise SysError(errno.EPERM)
    check_file_limit(task, inode.size, size)
    mode = modify.without_set_ids(inode, task.cred)
    if mode is not None:
        await inode.setattr({"mode": mode})
    await file.truncate(size)
    if fsnotify.watching:
        fsnotify.happened(file.path, IN_MODIFY)
