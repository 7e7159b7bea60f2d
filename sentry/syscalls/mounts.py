"""mount(2), umount2(2), pivot_root(2) and the sync calls."""

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
    MS_NOSYMFOLLOW,
    MS_PRIVATE,
    MS_PROPAGATION,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
    MS_SILENT,
    MS_SLAVE,
    MS_UNBINDABLE,
    UMOUNT_NOFOLLOW,
)
from sentry.abi.syscall_nr import SYS
from sentry.fs import fsnotify
from sentry.fs.dcache import pin
from sentry.fs.dentry import (
    MNT_NODEV,
    MNT_NOEXEC,
    MNT_NOSUID,
    MNT_NOSYMFOLLOW,
    MNT_READONLY,
    Dentry,
    Mount,
    MountNamespace,
    cross,
)
from sentry.fs.dentry import Path as FsPath
from sentry.fs.nsfs import NsInode
from sentry.fs.proc.links import FdLink
from sentry.fs.propagation import (
    Tree,
    below,
    copy_tree,
    graft,
    is_within,
    namespace_of,
    prune,
    set_type,
    take_tree,
    targets_of,
)
from sentry.fs.registry import MOUNTABLE
from sentry.fs.walk import Resolver, walk
from sentry.kernel.userns import INITIAL
from sentry.kernel.wait import yield_now
from sentry.syscalls.args import read_path
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.fdtable import FDTable
    from sentry.kernel.task import Task
    from sentry.kernel.userns import UserNamespace
    from sentry.syscalls.args import Addr, Fd, Flags, Path, ULong

#: So many descriptors are looked at in one turn.
PIECE = 1024
_SHOWN = (
    (MS_RDONLY, MNT_READONLY),
    (MS_NOSUID, MNT_NOSUID),
    (MS_NODEV, MNT_NODEV),
    (MS_NOEXEC, MNT_NOEXEC),
    (MS_NOSYMFOLLOW, MNT_NOSYMFOLLOW),
)
#: What may be mounted by whoever has CAP_SYS_ADMIN in his user namespace (FS_USERNS_MOUNT).
_HARMLESS = (b"devpts", b"ramfs", b"tmpfs")


def _mount_flags(flags: int) -> int:
    return sum(ours for theirs, ours in _SHOWN if flags & theirs)


def _is_root(place: FsPath) -> bool:
    return place.dentry is place.mount.root


def _may_mount(task: Task) -> None:
    if not task.cred.ns_capable(task.fs.namespace.user_ns, CAP_SYS_ADMIN):
        raise SysError(errno.EPERM)


def _is_ours(task: Task, mount: Mount) -> bool:
    """Whether `mount` is in the caller's namespace (check_mnt())."""
    return namespace_of(mount) is task.fs.namespace


def _mountpoint(task: Task, where: FsPath) -> FsPath:
    """On top of what others may have mounted at `where` by now (lock_mount()); SysError(ENOENT, EINVAL)."""
    where = cross(where)
    if where.dentry.deleted or isinstance(where.inode, FdLink):  # no place that lasts
        raise SysError(errno.ENOENT)
    if not _is_ours(task, where.mount):
        raise SysError(errno.EINVAL)
    return where


def _attach(task: Task, tree: Tree, where: FsPath) -> None:
    where = _mountpoint(task, where)
    root = tree.root.root.inode
    if root is None:
        raise SysError(errno.ENOENT)
    if root.is_dir != where.inode.is_dir:
        raise SysError(errno.ENOTDIR)
    pin(where.dentry)
    graft(task.fs.namespace, tree, where)


async def _bind(task: Task, source: bytes, where: FsPath, recursive: bool) -> None:
    place = await walk(task.fs, task.cred, source)
    is_ns = isinstance(place.inode, NsInode)
    if not is_ns and not _is_ours(task, place.mount):
        raise SysError(errno.EINVAL)
    ns = place.inode.ns if is_ns else None  # type: ignore[attr-defined]
    if isinstance(ns, MountNamespace) and ns.seq <= task.fs.namespace.seq:
        raise SysError(errno.EINVAL)  # one might come to hold itself (mnt_ns_loop())
    _attach(task, copy_tree(place, recursive), where)


async def _move(task: Task, source: bytes, where: FsPath) -> None:
    place = await walk(task.fs, task.cred, source)
    where = _mountpoint(task, where)
    mount = place.mount
    if not _is_root(place) or mount.parent is None or mount.locked or not _is_ours(task, mount):
        raise SysError(errno.EINVAL)
    if mount.root.inode is None or mount.root.inode.is_dir != where.inode.is_dir:
        raise SysError(errno.EINVAL)
    if mount.parent.group is not None:
        raise SysError(errno.EINVAL)
    above: Mount | None = where.mount
    while above is not None:
        if above is mount:
            raise SysError(errno.ELOOP)
        above = above.parent
    namespace = task.fs.namespace
    # Nothing may fail once it has been taken off.
    targets_of(namespace, len(below(namespace, mount)), where, moved=True)
    _attach(task, take_tree(namespace, mount), where)


def _remount(task: Task, where: FsPath, flags: int) -> None:
    mount = where.mount
    if not _is_root(where) or not _is_ours(task, mount):
        raise SysError(errno.EINVAL)
    new = _mount_flags(flags)
    if mount.kept & ~new:
        raise SysError(errno.EPERM)
    if not flags & MS_BIND and not task.cred.ns_capable(mount.fs.user_ns or INITIAL, CAP_SYS_ADMIN):
        raise SysError(errno.EPERM)
    mount.remount(new)


def _change_type(task: Task, where: FsPath, flags: int) -> None:
    kind = flags & ~(MS_REC | MS_SILENT)
    if kind not in (MS_SHARED, MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE):
        raise SysError(errno.EINVAL)
    if not _is_root(where) or not _is_ours(task, where.mount):
        raise SysError(errno.EINVAL)
    for mount in below(task.fs.namespace, where.mount) if flags & MS_REC else (where.mount,):
        set_type(mount, kind)


def _owner(task: Task, kind: bytes) -> UserNamespace:
    """The user namespace that what it shows belongs to, in which one needs CAP_SYS_ADMIN to mount it."""
    if kind == b"mqueue":
        return task.ipc.user_ns
    if kind == b"proc":
        return task.pid.ns.user_ns
    if kind == b"sysfs":
        return task.nsproxy.net.user_ns or INITIAL
    return task.cred.user_ns if kind in _HARMLESS else INITIAL


async def _new(task: Task, source: bytes, kind: bytes, data: int, where: FsPath, flags: int) -> None:
    make = MOUNTABLE.get(kind)
    if make is None:
        raise SysError(errno.ENODEV)
    owner = _owner(task, kind)
    if not task.cred.ns_capable(owner, CAP_SYS_ADMIN):
        raise SysError(errno.EPERM)
    options = read_path(task, data) if data else b""
    fs = await make(task.kernel, source, options)
    fs.source = source or b"none"
    fs.user_ns = owner
    root = Dentry(None, b"", fs.root)  # type: ignore[attr-defined]
    _attach(task, Tree(Mount(fs, root, _mount_flags(flags))), where)


@syscall(
    SYS.mount, partial="tmpfs, proc, sysfs, devpts and what the sandbox registers; times are always relatime"
)
async def mount(task: Task, source: Addr, target: Path, fstype: Addr, flags: ULong, data: Addr) -> None:
    """mount(2)."""
    if flags & MS_MGC_MSK == MS_MGC_VAL:
        flags &= ~MS_MGC_MSK
    where = await walk(task.fs, task.cred, target)
    _may_mount(task)
    name = read_path(task, source) if source else b""
    if flags & MS_REMOUNT:
        _remount(task, where, flags)
    elif flags & MS_BIND:
        await _bind(task, name, where, bool(flags & MS_REC))
    elif flags & MS_PROPAGATION:
        _change_type(task, where, flags)
    elif flags & MS_MOVE:
        await _move(task, name, where)
    elif not fstype:
        raise SysError(errno.EINVAL)
    else:
        await _new(task, name, read_path(task, fstype), data, where, flags)


async def _busy(task: Task, mount: Mount, namespace: MountNamespace) -> bool:
    """Whether a mount on it, an open file or a working directory keeps `mount` in use."""
    if namespace.children_of(mount):
        return True
    tables: dict[FDTable, None] = {}
    for other in task.kernel.tasks.values():
        fs, files = other.fs, other.files
        if fs is not None and mount in (fs.cwd.mount, fs.root.mount):
            return True
        if files is not None:
            tables[files] = None
    for table in tables:
        first = 0
        while numbers := table.numbers(first, PIECE):
            if first:
                await yield_now()
            for fd in numbers:
                path = table.get_any(fd).path
                if path is not None and path.mount is mount:
                    return True
            first = numbers[-1] + 1
    return False


@syscall(SYS.umount2, partial="MNT_EXPIRE acts as if it was the second time")
async def umount2(task: Task, target: Path, flags: Flags) -> None:
    """umount2(2)."""
    if flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW):
        raise SysError(errno.EINVAL)
    # What is on top, even of the working directory itself (LOOKUP_MOUNTPOINT).
    place = cross(await walk(task.fs, task.cred, target, follow=not flags & UMOUNT_NOFOLLOW))
    _may_mount(task)
    namespace = task.fs.namespace
    mount = place.mount
    if not _is_root(place) or mount.parent is None or not _is_ours(task, mount) or mount.locked:
        raise SysError(errno.EINVAL)
    if flags & MNT_EXPIRE and flags & (MNT_FORCE | MNT_DETACH):
        raise SysError(errno.EINVAL)
    if not flags & MNT_DETACH:
        if await _busy(task, mount, namespace):
            raise SysError(errno.EBUSY)
        if not _is_ours(task, mount):  # somebody was faster
            raise SysError(errno.EINVAL)
    prune(namespace, mount)
    if fsnotify.watching and not any(other.fs is mount.fs for other in namespace.all()):
        fsnotify.unmounted(mount.fs)


@syscall(SYS.pivot_root)
async def pivot_root(task: Task, new_root: Path, put_old: Path) -> None:
    """pivot_root(2)."""
    _may_mount(task)
    fs, namespace = task.fs, task.fs.namespace
    new = await Resolver(fs, task.cred, new_root).finish(directory=True)
    old = await Resolver(fs, task.cred, put_old).finish(directory=True)
    root = fs.root
    for mount in (new.mount, root.mount, old.mount):
        if not _is_ours(task, mount):
            raise SysError(errno.EINVAL)
    if new.mount.locked or new.dentry.deleted or old.dentry.deleted:
        raise SysError(errno.EINVAL if new.mount.locked else errno.ENOENT)
    if root.mount in (new.mount, old.mount):
        raise SysError(errno.EBUSY)
    parent = new.mount.parent
    shared = (old.mount, parent, root.mount.parent)
    if any(mount is not None and mount.group is not None for mount in shared):
        raise SysError(errno.EINVAL)
    if not _is_root(new) or not _is_root(root) or parent is None:
        raise SysError(errno.EINVAL)
    if not _reaches(old, new) or not _reaches(new, root):
        raise SysError(errno.EINVAL)
    namespace.pivot(new.mount, root.mount, old)
    for other in task.kernel.tasks.values():
        context = other.fs
        if context is not None and context.namespace is namespace:
            context.root = new if context.root == root else context.root
            context.cwd = new if context.cwd == root else context.cwd


def _reaches(place: FsPath, top: FsPath) -> bool:
    """Whether `place` is `top`, or below it (is_path_reachable())."""
    mount: Mount = place.mount
    dentry: Dentry = place.dentry
    while mount is not top.mount:
        parent, point = mount.parent, mount.mountpoint
        if parent is None or point is None:
            return False
        mount, dentry = parent, point
    return is_within(dentry, top.dentry)


@syscall(SYS.sync)
async def sync(task: Task) -> None:
    """sync(2)."""
    for fs in {mount.fs for mount in task.fs.namespace.all()}:
        await fs.sync()


@syscall(SYS.syncfs)
async def syncfs(task: Task, fd: Fd) -> None:
    """syncfs(2)."""
    await task.files.get(fd).inode.fs.sync()
