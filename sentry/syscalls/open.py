"""open(2) and its kind, the stat family, access, and where a task is: cwd, root, umask."""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi.capability import CAP_SYS_CHROOT
from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_LARGEFILE,
    O_PATH,
    O_TMPFILE,
    O_TRUNC,
    O_VALID,
    O_WRONLY,
    PATH_MAX,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_VALID,
)
from sentry.abi.stat import (
    S_IFDIR,
    S_IFLNK,
    S_IFREG,
    ST_NODEV,
    ST_NOEXEC,
    ST_NOSUID,
    ST_NOSYMFOLLOW,
    ST_RDONLY,
    ST_RELATIME,
    ST_VALID,
    STAT,
    STATFS,
    STATX,
    STATX__RESERVED,
    STATX_ATTR_FLAGS,
    STATX_ATTR_MOUNT_ROOT,
    STATX_BASIC_STATS,
    STATX_BTIME,
    STATX_MNT_ID,
    major,
    minor,
)
from sentry.abi.syscall_nr import SYS
from sentry.fs.dcache import note_link
from sentry.fs.dentry import MNT_NODEV, MNT_NOEXEC, MNT_NOSUID, MNT_NOSYMFOLLOW
from sentry.fs.dentry import Path as FsPath
from sentry.fs.opening import check_flags, open_file
from sentry.fs.walk import (
    MAY_EXEC,
    MAY_WRITE,
    Resolver,
    at,
    is_readonly,
    locate,
    permission,
    start_of,
    walk,
)
from sentry.syscalls.args import read_extensible, read_path
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.dentry import Mount
    from sentry.fs.inode import Inode
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task
    from sentry.kernel.userns import UserNamespace
    from sentry.syscalls.args import Addr, Fd, Flags, Int, Mode, Path, Size, UInt

_OPEN_HOW = Struct("<QQQ")
_SECOND = 1_000_000_000


async def _open(task: Task, dirfd: int, path: bytes, flags: int, mode: int, resolve: int = 0) -> int:
    flags = check_flags(flags)
    if not flags & O_PATH:
        flags |= O_LARGEFILE
    start = at(task, dirfd) if resolve and dirfd != AT_FDCWD else start_of(task, dirfd, path)
    file = await open_file(task.fs, task.cred, path, flags, mode, start, resolve)
    return task.install(file, bool(flags & O_CLOEXEC))


@syscall(SYS.open)
async def open(task: Task, path: Path, flags: Flags, mode: Mode) -> int:
    """open(2)."""
    return await _open(task, AT_FDCWD, path, flags, mode)


@syscall(SYS.openat)
async def openat(task: Task, dirfd: Fd, path: Path, flags: Flags, mode: Mode) -> int:
    """openat(2)."""
    return await _open(task, dirfd, path, flags, mode)


@syscall(SYS.creat)
async def creat(task: Task, path: Path, mode: Mode) -> int:
    """creat(2)."""
    return await _open(task, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode)


@syscall(SYS.openat2)
async def openat2(task: Task, dirfd: Fd, path: Path, how: Addr, size: Size) -> int:
    """openat2(2)."""
    flags, mode, resolve = read_extensible(task, how, size, _OPEN_HOW, _OPEN_HOW.size)
    if flags & ~O_VALID or resolve & ~RESOLVE_VALID:
        raise SysError(errno.EINVAL)
    if resolve & RESOLVE_BENEATH and resolve & RESOLVE_IN_ROOT:
        raise SysError(errno.EINVAL)
    making = flags & O_CREAT or flags & O_TMPFILE & ~O_DIRECTORY
    if mode & ~0o7777 if making else mode:
        raise SysError(errno.EINVAL)
    if flags & O_PATH and flags != check_flags(flags):
        raise SysError(errno.EINVAL)
    return await _open(task, dirfd, path, flags, mode, resolve)


def stat_bytes(inode: Inode, space: UserNamespace) -> bytes:
    """struct stat of an inode whose attributes are fresh, with the ids of the user namespace `space`."""
    uid, gid = space.uid(inode.uid), space.gid(inode.gid)
    atime, mtime, ctime = inode.atime, inode.mtime, inode.ctime
    return STAT.pack(
        inode.fs.dev, inode.ino, inode.nlink, inode.mode, uid, gid, inode.rdev, inode.size,
        inode.blksize, inode.blocks, atime // _SECOND, atime % _SECOND, mtime // _SECOND, mtime % _SECOND,
        ctime // _SECOND, ctime % _SECOND,
    )  # fmt: skip


async def _stat(task: Task, inode: Inode, buf: int) -> None:
    await inode.refresh()
    task.mm.write(buf, stat_bytes(inode, task.cred.user_ns))


@syscall(SYS.stat)
async def stat(task: Task, path: Path, buf: Addr) -> None:
    """stat(2)."""
    await _stat(task, (await walk(task.fs, task.cred, path)).inode, buf)


@syscall(SYS.lstat)
async def lstat(task: Task, path: Path, buf: Addr) -> None:
    """lstat(2)."""
    await _stat(task, (await walk(task.fs, task.cred, path, follow=False)).inode, buf)


@syscall(SYS.fstat)
async def fstat(task: Task, fd: Fd, buf: Addr) -> None:
    """fstat(2)."""
    await _stat(task, task.files.get_any(fd).inode, buf)


def _read_path(task: Task, addr: int, flags: int) -> bytes:
    """The path at `addr`; with AT_EMPTY_PATH a null pointer counts as empty (Linux 6.11)."""
    if addr == 0 and flags & AT_EMPTY_PATH:
        return b""
    return read_path(task, addr)


async def _target(task: Task, dirfd: int, path: bytes, flags: int) -> tuple[Inode, FsPath | None]:
    """What (dirfd, path, AT_ flags) mean: the inode and, where there is one, the place."""
    if not path and flags & AT_EMPTY_PATH:
        if dirfd == AT_FDCWD:
            cwd = task.fs.cwd
            return cwd.inode, cwd
        file = task.files.get_any(dirfd)
        return file.inode, file.path
    start = start_of(task, dirfd, path)
    place = await walk(task.fs, task.cred, path, start, not flags & AT_SYMLINK_NOFOLLOW)
    return place.inode, place


@syscall(SYS.newfstatat)
async def newfstatat(task: Task, dirfd: Fd, path: Addr, buf: Addr, flags: Flags) -> None:
    """newfstatat(2) (fstatat)."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH):
        raise SysError(errno.EINVAL)
    inode, _ = await _target(task, dirfd, _read_path(task, path, flags), flags)
    await _stat(task, inode, buf)


@syscall(SYS.statx)
async def statx(task: Task, dirfd: Fd, path: Addr, flags: Flags, mask: UInt, buf: Addr) -> None:
    """statx(2)."""
    if mask & STATX__RESERVED or flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE:
        raise SysError(errno.EINVAL)
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE):
        raise SysError(errno.EINVAL)
    inode, place = await _target(task, dirfd, _read_path(task, path, flags), flags)
    await inode.refresh()
    attributes = STATX_ATTR_MOUNT_ROOT if place is not None and place.dentry is place.mount.root else 0
    space = task.cred.user_ns
    known = STATX_ATTR_MOUNT_ROOT
    if inode.fsflags is not None:
        # FS_…_FL and STATX_ATTR_… are the same bits.
        known |= STATX_ATTR_FLAGS
        attributes |= inode.fsflags & STATX_ATTR_FLAGS
    times: list[int] = []
    for time in (inode.atime, inode.btime, inode.ctime, inode.mtime):
        times += divmod(time, _SECOND)
    data = STATX.pack(
        STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, inode.blksize, attributes, inode.nlink,
        space.uid(inode.uid), space.gid(inode.gid), inode.mode, inode.ino, inode.size, inode.blocks,
        known, *times,
        major(inode.rdev), minor(inode.rdev), major(inode.fs.dev), minor(inode.fs.dev),
        place.mount.id if place is not None else 0, 0, 0,
    )  # fmt: skip
    task.mm.write(buf, data)


async def _access(task: Task, dirfd: int, path: bytes, mode: int, flags: int = 0) -> None:
    if mode & ~7 or flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise SysError(errno.EINVAL)
    cred = task.cred
    if not flags & AT_EACCESS:
        cred = _real(cred)
    if not path and flags & AT_EMPTY_PATH:
        inode, place = await _target(task, dirfd, path, flags)
    else:
        start = start_of(task, dirfd, path)
        place = await walk(task.fs, cred, path, start, not flags & AT_SYMLINK_NOFOLLOW)
        inode = place.inode
    await inode.refresh()
    if mode & MAY_EXEC and place is not None and not inode.is_dir and place.mount.flags & MNT_NOEXEC:
        raise SysError(errno.EACCES)
    permission(inode, cred, mode)
    frozen_kind = inode.kind in (S_IFREG, S_IFDIR, S_IFLNK)
    if mode & MAY_WRITE and frozen_kind and place is not None and is_readonly(place.mount):
        raise SysError(errno.EROFS)


def _real(cred: Credentials) -> Credentials:
    """Credentials that access(2) checks by: the real ids, and root's capabilities only for root."""
    effective = cred.of_real
    if cred.fsuid == cred.uid and cred.fsgid == cred.gid and cred.effective == effective:
        return cred
    new = cred.copy()
    new.fsuid, new.fsgid, new.effective = cred.uid, cred.gid, effective
    return new


@syscall(SYS.access)
async def access(task: Task, path: Path, mode: Int) -> None:
    """access(2)."""
    await _access(task, AT_FDCWD, path, mode)


@syscall(SYS.faccessat)
async def faccessat(task: Task, dirfd: Fd, path: Path, mode: Int) -> None:
    """faccessat(2), the call without flags."""
    await _access(task, dirfd, path, mode)


@syscall(SYS.faccessat2)
async def faccessat2(task: Task, dirfd: Fd, path: Path, mode: Int, flags: Flags) -> None:
    """faccessat2(2)."""
    await _access(task, dirfd, path, mode, flags)


async def _readlink(task: Task, dirfd: int, path: bytes, buf: int, size: int) -> int:
    if size <= 0:
        raise SysError(errno.EINVAL)
    place = None
    if path:
        place = await walk(task.fs, task.cred, path, start_of(task, dirfd, path), follow=False)
        inode = place.inode
        missing = errno.EINVAL
    else:
        # readlink(2): an empty path means the symbolic link that an O_PATH descriptor is of.
        inode = task.fs.cwd.inode if dirfd == AT_FDCWD else task.files.get_any(dirfd).inode
        missing = errno.ENOENT
    if not inode.is_symlink:
        raise SysError(missing)
    target = await inode.readlink()
    if place is not None:
        note_link(place.dentry, target)
    target = target[:size]
    task.mm.write(buf, target)
    return len(target)


@syscall(SYS.readlink)
async def readlink(task: Task, path: Path, buf: Addr, size: Int) -> int:
    """readlink(2)."""
    return await _readlink(task, AT_FDCWD, path, buf, size)


@syscall(SYS.readlinkat)
async def readlinkat(task: Task, dirfd: Fd, path: Path, buf: Addr, size: Int) -> int:
    """readlinkat(2)."""
    return await _readlink(task, dirfd, path, buf, size)


@syscall(SYS.getcwd)
def getcwd(task: Task, buf: Addr, size: Size) -> int:
    """getcwd(2), the raw call: the length with the final NUL."""
    cwd = task.fs.cwd
    if cwd.dentry.deleted:
        raise SysError(errno.ENOENT)
    name, reachable = locate(task.fs, cwd)
    if not reachable:
        name = b"(unreachable)" + name
    if len(name) >= PATH_MAX:
        raise SysError(errno.ENAMETOOLONG)
    if len(name) + 1 > size:
        raise SysError(errno.ERANGE)
    task.mm.write(buf, name + b"\0")
    return len(name) + 1


@syscall(SYS.chdir)
async def chdir(task: Task, path: Path) -> None:
    """chdir(2)."""
    place = await Resolver(task.fs, task.cred, path).finish(directory=True)
    permission(place.inode, task.cred, MAY_EXEC)
    task.fs.cwd = place


@syscall(SYS.fchdir)
async def fchdir(task: Task, fd: Fd) -> None:
    """fchdir(2)."""
    file = task.files.get_any(fd)
    if not file.inode.is_dir or file.path is None:
        raise SysError(errno.ENOTDIR)
    permission(file.inode, task.cred, MAY_EXEC)
    task.fs.cwd = file.path


@syscall(SYS.chroot)
async def chroot(task: Task, path: Path) -> None:
    """chroot(2)."""
    place = await Resolver(task.fs, task.cred, path).finish(directory=True)
    permission(place.inode, task.cred, MAY_EXEC)
    if not task.cred.own_capable(CAP_SYS_CHROOT):
        raise SysError(errno.EPERM)
    task.fs.root = place


@syscall(SYS.umask)
def umask(task: Task, mask: Mode) -> int:
    """umask(2)."""
    old, task.fs.umask = task.fs.umask, mask & 0o777
    return old


_SHOWN_FLAGS = (
    (MNT_NOSUID, ST_NOSUID),
    (MNT_NODEV, ST_NODEV),
    (MNT_NOEXEC, ST_NOEXEC),
    (MNT_NOSYMFOLLOW, ST_NOSYMFOLLOW),
)


def mount_flags(mount: Mount) -> int:
    """f_flags of statfs(2)."""
    flags = ST_VALID | ST_RELATIME
    if is_readonly(mount):
        flags |= ST_RDONLY
    for bit, shown in _SHOWN_FLAGS:
        if mount.flags & bit:
            flags |= shown
    return flags


async def _statfs(task: Task, inode: Inode, place: FsPath | None, buf: int) -> None:
    fs = inode.fs
    bsize, blocks, bfree, bavail, files, ffree = await fs.statfs()
    flags = mount_flags(place.mount) if place is not None else ST_VALID
    task.mm.write(
        buf, STATFS.pack(fs.magic, bsize, blocks, bfree, bavail, files, ffree, fs.dev, 255, bsize, flags)
    )


@syscall(SYS.statfs)
async def statfs(task: Task, path: Path, buf: Addr) -> None:
    """statfs(2)."""
    place = await walk(task.fs, task.cred, path)
    await _statfs(task, place.inode, place, buf)


@syscall(SYS.fstatfs)
async def fstatfs(task: Task, fd: Fd, buf: Addr) -> None:
    """fstatfs(2)."""
    file = task.files.get_any(fd)
    await _statfs(task, file.inode, file.path, buf)
