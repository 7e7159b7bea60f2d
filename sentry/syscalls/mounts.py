"""mount(2), umount2(2) and the sync calls."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.mount import (
    MNT_DETACH,
    MNT_EXPIRE,
    MNT_FORCE,
    MS_BIND,
    MS_MGC_MSK,
    MS_MGC_VAL,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PROPAGATION,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    UMOUNT_NOFOLLOW,
)
from sentry.abi.syscall_nr import SYS
from sentry.fs.dentry import MNT_NODEV, MNT_NOEXEC, MNT_NOSUID, MNT_READONLY, Dentry, Mount, MountNamespace
from sentry.fs.dentry import Path as FsPath
from sentry.fs.registry import MOUNTABLE
from sentry.fs.walk import walk
from sentry.syscalls.args import read_path
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Flags, Path, ULong

_SHOWN = (
    (MS_RDONLY, MNT_READONLY),
    (MS_NOSUID, MNT_NOSUID),
    (MS_NODEV, MNT_NODEV),
    (MS_NOEXEC, MNT_NOEXEC),
)
#: Mounts in one namespace (fs.mount-max of Linux is 100,000).
MAX_MOUNTS = 1000


def _mount_flags(flags: int) -> int:
    return sum(ours for theirs, ours in _SHOWN if flags & theirs)


def _is_root(place: FsPath) -> bool:
    return place.dentry is place.mount.root


def _attach(task: Task, mount: Mount, where: FsPath) -> None:
    namespace = task.fs.namespace
    if len(namespace.mounts) >= MAX_MOUNTS:
        raise SysError(errno.ENOSPC)
    root = mount.root.inode
    if where.dentry.deleted or root is None:
        raise SysError(errno.ENOENT)
    if root.is_dir != where.inode.is_dir:
        raise SysError(errno.ENOTDIR)
    namespace.attach(mount, where)


async def _bind(task: Task, source: bytes, where: FsPath, recursive: bool) -> None:
    place = await walk(task.fs, task.cred, source)
    mount = Mount(place.mount.fs, place.dentry, place.mount.flags)
    namespace = task.fs.namespace
    below = namespace.children_of(place.mount) if recursive else []
    _attach(task, mount, where)
    for child in below:
        if child is not mount and child.mountpoint is not None and _within(child, place):
            copy = Mount(child.fs, child.root, child.flags)
            _attach(task, copy, FsPath(mount, child.mountpoint))


def _within(mount: Mount, place: FsPath) -> bool:
    """Whether `mount` stands below the dentry of `place`."""
    dentry = mount.mountpoint
    while dentry is not None:
        if dentry is place.dentry:
            return True
        dentry = dentry.parent
    return False


async def _move(task: Task, source: bytes, where: FsPath) -> None:
    place = await walk(task.fs, task.cred, source)
    mount = place.mount
    if not _is_root(place) or mount.parent is None:
        raise SysError(errno.EINVAL)
    above: Mount | None = where.mount
    while above is not None:
        if above is mount:
            raise SysError(errno.ELOOP)
        above = above.parent
    task.fs.namespace.detach(mount)
    _attach(task, mount, where)


@syscall(SYS.mount, partial="bind, move, remount, tmpfs and what the sandbox registers; no propagation")
async def mount(task: Task, source: Addr, target: Path, fstype: Addr, flags: ULong, data: Addr) -> None:
    """mount(2)."""
    if flags & MS_MGC_MSK == MS_MGC_VAL:
        flags &= ~MS_MGC_MSK
    where = await walk(task.fs, task.cred, target)
    if not task.cred.capable(CAP_SYS_ADMIN):
        raise SysError(errno.EPERM)
    name = read_path(task, source) if source else b""
    if flags & MS_REMOUNT:
        if not _is_root(where):
            raise SysError(errno.EINVAL)
        where.mount.remount(_mount_flags(flags))
    elif flags & MS_BIND:
        await _bind(task, name, where, bool(flags & MS_REC))
    elif flags & MS_PROPAGATION:
        if not _is_root(where):
            raise SysError(errno.EINVAL)
    elif flags & MS_MOVE:
        await _move(task, name, where)
    else:
        if not fstype:
            raise SysError(errno.EINVAL)
        make = MOUNTABLE.get(read_path(task, fstype))
        if make is None:
            raise SysError(errno.ENODEV)
        options = read_path(task, data) if data else b""
        fs = await make(task.kernel, name, options)
        fs.source = name or b"none"
        root = Dentry(None, b"", fs.root)  # type: ignore[attr-defined]
        _attach(task, Mount(fs, root, _mount_flags(flags)), where)


def _busy(task: Task, mount: Mount, namespace: MountNamespace) -> bool:
    """Whether a mount on it, an open file or a working directory keeps `mount` in use."""
    if namespace.children_of(mount):
        return True
    for other in task.kernel.tasks.values():
        fs, files = other.fs, other.files
        if fs is not None and mount in (fs.cwd.mount, fs.root.mount):
            return True
        if files is not None:
            for _, file in files.items():
                if file.path is not None and file.path.mount is mount:
                    return True
    return False


@syscall(SYS.umount2)
async def umount2(task: Task, target: Path, flags: Flags) -> None:
    """umount2(2)."""
    if flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW):
        raise SysError(errno.EINVAL)
    if not task.cred.capable(CAP_SYS_ADMIN):
        raise SysError(errno.EPERM)
    place = await walk(task.fs, task.cred, target, follow=not flags & UMOUNT_NOFOLLOW)
    namespace = task.fs.namespace
    mount = place.mount
    if not _is_root(place) or mount.parent is None:
        raise SysError(errno.EINVAL)
    if flags & MNT_DETACH:
        _detach_all(namespace, mount)
        return
    if _busy(task, mount, namespace):
        raise SysError(errno.EBUSY)
    namespace.detach(mount)


def _detach_all(namespace: MountNamespace, mount: Mount) -> None:
    for child in namespace.children_of(mount):
        _detach_all(namespace, child)
    namespace.detach(mount)


@syscall(SYS.sync)
async def sync(task: Task) -> None:
    """sync(2)."""
    for fs in {mount.fs for mount in task.fs.namespace.all()}:
        await fs.sync()


@syscall(SYS.syncfs)
async def syncfs(task: Task, fd: Fd) -> None:
    """syncfs(2)."""
    await task.files.get(fd).inode.fs.sync()
