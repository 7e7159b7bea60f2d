"""Changes to directories and attributes: who may make them, and the dentry cache kept exact.

The vfs_… functions of Linux (fs/namei.c, fs/attr.c).  Callers have walked to the directory and
checked what depends on how the path was written; here stand the permission checks, mount points,
sticky directories and the order of errors that Linux has.  Where a file system's operations may
sleep its `lock` makes them one at a time.
"""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_CHOWN, CAP_FOWNER, CAP_FSETID, CAP_MKNOD
from sentry.abi.errors import SysError
from sentry.abi.fcntl import RENAME_EXCHANGE, RENAME_NOREPLACE
from sentry.abi.fileattr import FS_APPEND_FL, FS_IMMUTABLE_FL
from sentry.abi.stat import S_IFDIR, S_IFMT, S_IFREG, S_ISGID, S_ISUID, S_ISVTX
from sentry.fs import dcache, fsnotify
from sentry.fs.dentry import Dentry, Path
from sentry.fs.walk import MAY_EXEC, MAY_READ, MAY_WRITE, Hardening, owner_or_capable, permission, want_write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from sentry.fs.inode import Inode
    from sentry.kernel.credentials import Credentials


class _NoLock:
    async def __aenter__(self) -> None:
        return

    async def __aexit__(self, *_exc: object) -> None:
        return


_NO_LOCK = _NoLock()


def _directory(dentry: Dentry) -> Inode:
    """The inode of a directory in which names are to change; SysError(ENOENT) when it was removed."""
    inode = dentry.inode
    if inode is None or dentry.deleted:
        raise SysError(errno.ENOENT)
    if inode.mode & S_IFMT != S_IFDIR:
        raise SysError(errno.ENOTDIR)
    return inode


def guarded(inode: Inode) -> bool:
    """Whether its attributes, names and old bytes have to stay (chattr(1), +i and +a)."""
    return inode.immutable or bool((inode.fsflags or 0) & (FS_IMMUTABLE_FL | FS_APPEND_FL))


def _refuse_guarded(inode: Inode) -> None:
    if guarded(inode):
        raise SysError(errno.EPERM)


def _may_create(directory: Path, cred: Credentials) -> Inode:
    inode = directory.inode
    permission(inode, cred, MAY_WRITE | MAY_EXEC)
    return _directory(directory.dentry)


def _inherit(directory: Inode, mode: int, umask: int, cred: Credentials, is_dir: bool) -> tuple[int, int]:
    """(mode, gid) of a new file in `directory`: a set-group-ID directory passes its group on.  Whether its
    own set-group-ID bit may stay is decided by the mode before the umask (mode_strip_sgid)."""
    gid = cred.fsgid
    if directory.mode & S_ISGID:
        gid = directory.gid
        if is_dir:
            mode |= S_ISGID
    set_gid = not is_dir and mode & (S_ISGID | 0o010) == S_ISGID | 0o010
    if set_gid and not cred.in_group(gid) and not cred.capable_over(directory.uid, gid, CAP_FSETID):
        mode &= ~S_ISGID
    return mode & ~umask, gid


async def _make(
    directory: Path,
    name: bytes,
    cred: Credentials,
    make: Callable[[Inode], Coroutine[Any, Any, Inode]],
) -> Dentry:
    """Check, create through `make(directory inode)`, and note the new name."""
    fs = directory.mount.fs
    async with fs.lock or _NO_LOCK:
        child = await dcache.lookup(directory.dentry, name)
        if child.inode is not None:
            raise SysError(errno.EEXIST)
        if fs.fixed_names:
            raise SysError(errno.ENOENT)
        want_write(directory.mount)
        inode = await make(_may_create(directory, cred))
        child = dcache.added(directory.dentry, name, inode)
        if fsnotify.watching:
            fsnotify.created(directory.inode, name, inode)
        return child


async def create(
    directory: Path, name: bytes, mode: int, umask: int, cred: Credentials,
    maker: Callable[[Inode, int, int], Coroutine[Any, Any, Inode]] | None = None,
) -> Dentry:  # fmt: skip
    """A new regular file, or what `maker(directory inode, mode, gid)` makes instead.

    SysError(EEXIST, EROFS, EACCES, ENOENT…)."""

    async def make(inode: Inode) -> Inode:
        bits, gid = _inherit(inode, mode & 0o7777, umask, cred, False)
        if maker is not None:
            return await maker(inode, bits, gid)
        return await inode.create(name, bits, cred.fsuid, gid)

    return await _make(directory, name, cred, make)


async def mkdir(directory: Path, name: bytes, mode: int, umask: int, cred: Credentials) -> Dentry:
    async def make(inode: Inode) -> Inode:
        bits, gid = _inherit(inode, mode & (0o777 | S_ISVTX), umask, cred, True)
        return await inode.mkdir(name, bits, cred.fsuid, gid)

    return await _make(directory, name, cred, make)


async def mknod(directory: Path, name: bytes, mode: int, rdev: int, umask: int, cred: Credentials) -> Dentry:
    """A FIFO, socket, device (CAP_MKNOD) or regular file; `mode` with its type, 0 for regular."""
    kind = mode & S_IFMT or S_IFREG

    async def make(inode: Inode) -> Inode:
        if kind in (0o020000, 0o060000) and not cred.capable(CAP_MKNOD):
            raise SysError(errno.EPERM)
        bits, gid = _inherit(inode, mode & 0o7777, umask, cred, False)
        if kind == S_IFREG:
            return await inode.create(name, bits, cred.fsuid, gid)
        return await inode.mknod(name, kind | bits, rdev, cred.fsuid, gid)

    return await _make(directory, name, cred, make)


async def symlink(directory: Path, name: bytes, target: bytes, cred: Credentials) -> Dentry:
    async def make(inode: Inode) -> Inode:
        _, gid = _inherit(inode, 0o777, 0, cred, False)
        return await inode.symlink(name, target, cred.fsuid, gid)

    return await _make(directory, name, cred, make)


async def tmpfile(directory: Path, mode: int, umask: int, exclusive: bool, cred: Credentials) -> Dentry:
    """O_TMPFILE: a file without a name, on a dentry that stands in no directory."""
    want_write(directory.mount)
    inode = directory.inode
    permission(inode, cred, MAY_WRITE | MAY_EXEC)
    bits, gid = _inherit(inode, mode & 0o7777, umask, cred, False)
    new = await inode.tmpfile(bits, cred.fsuid, gid)
    if exclusive and hasattr(new, "linkable"):
        new.linkable = False
    dentry = Dentry(directory.dentry, b"#%d" % new.ino, new)
    dentry.deleted = True
    return dentry


def _may_delete(directory: Inode, victim: Dentry, cred: Credentials, is_dir: bool) -> Inode:
    """The inode of `victim`, which may be taken out of `directory`; SysError(EACCES, EPERM, ENOTDIR…)."""
    inode = victim.inode
    if inode is None:
        raise SysError(errno.ENOENT)
    permission(directory, cred, MAY_WRITE | MAY_EXEC)
    if (directory.fsflags or 0) & FS_APPEND_FL or guarded(inode):
        raise SysError(errno.EPERM)
    if (
        directory.mode & S_ISVTX
        and cred.fsuid not in (inode.uid, directory.uid)
        and not cred.capable_over(inode.uid, inode.gid, CAP_FOWNER)
    ):
        raise SysError(errno.EPERM)
    if is_dir:
        if not inode.is_dir:
            raise SysError(errno.ENOTDIR)
        if victim.parent is None:
            raise SysError(errno.EBUSY)
    elif inode.is_dir:
        raise SysError(errno.EISDIR)
    return inode


async def unlink(directory: Path, name: bytes, slash: bool, cred: Credentials) -> None:
    """unlink(2) of `name`; `slash`: it was written with a slash behind."""
    fs = directory.mount.fs
    want_write(directory.mount)
    async with fs.lock or _NO_LOCK:
        victim = await dcache.lookup(directory.dentry, name)
        if victim.inode is None:
            raise SysError(errno.ENOENT)
        if slash:
            raise SysError(errno.EISDIR if victim.inode.is_dir else errno.ENOTDIR)
        parent = _directory(directory.dentry)
        _may_delete(parent, victim, cred, False)
        if victim.mounted:
            raise SysError(errno.EBUSY)
        await parent.unlink(name)
        dcache.removed(victim)
        if fsnotify.watching:
            fsnotify.deleted(parent, name, victim.inode)


async def rmdir(directory: Path, name: bytes, cred: Credentials) -> None:
    fs = directory.mount.fs
    want_write(directory.mount)
    async with fs.lock or _NO_LOCK:
        victim = await dcache.lookup(directory.dentry, name)
        if victim.inode is None:
            raise SysError(errno.ENOENT)
        parent = _directory(directory.dentry)
        _may_delete(parent, victim, cred, True)
        if victim.mounted:
            raise SysError(errno.EBUSY)
        await parent.rmdir(name)
        dcache.removed(victim)
        if fsnotify.watching:
            fsnotify.deleted(parent, name, victim.inode)


def _may_link(inode: Inode, cred: Credentials) -> None:
    """SysError(EPERM) for a file that the caller neither owns nor could use as its own
    (protected_hardlinks in proc_sys_fs(5)), or that has to stay as it is."""
    _refuse_guarded(inode)
    if not Hardening.hardlinks or owner_or_capable(inode, cred):
        return
    special = inode.mode & S_ISUID or inode.mode & (S_ISGID | 0o010) == S_ISGID | 0o010
    if inode.kind != S_IFREG or special:
        raise SysError(errno.EPERM)
    try:
        permission(inode, cred, MAY_READ | MAY_WRITE)
    except SysError:
        raise SysError(errno.EPERM) from None


async def link(source: Path, directory: Path, name: bytes, cred: Credentials) -> None:
    """A new name for the file at `source`; SysError(EEXIST, EXDEV, EPERM, ENOENT…)."""
    fs = directory.mount.fs
    async with fs.lock or _NO_LOCK:
        child = await dcache.lookup(directory.dentry, name)
        if child.inode is not None:
            raise SysError(errno.EEXIST)
        if fs.fixed_names:
            raise SysError(errno.ENOENT)
        if source.mount is not directory.mount:
            raise SysError(errno.EXDEV)
        want_write(directory.mount)
        inode = source.inode
        _may_link(inode, cred)
        parent = _may_create(directory, cred)
        if inode.is_dir:
            raise SysError(errno.EPERM)
        if inode.nlink == 0 and not getattr(inode, "linkable", False):
            raise SysError(errno.ENOENT)
        await parent.link(name, inode)
        dcache.added(directory.dentry, name, inode)
        if fsnotify.watching:
            fsnotify.linked(inode)
            fsnotify.created(parent, name, inode)


def _is_ancestor(dentry: Dentry, of: Dentry) -> bool:
    node: Dentry | None = of
    while node is not None:
        if node is dentry:
            return True
        node = node.parent
    return False


async def rename(
    old_dir: Path,
    old_name: bytes,
    old_slash: bool,
    new_dir: Path,
    new_name: bytes,
    new_slash: bool,
    flags: int,
    cred: Credentials,
) -> None:
    """renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE in `flags`."""
    want_write(old_dir.mount)
    fs = old_dir.mount.fs
    exchange = bool(flags & RENAME_EXCHANGE)
    async with fs.lock or _NO_LOCK:
        old = await dcache.lookup(old_dir.dentry, old_name)
        if old.inode is None:
            raise SysError(errno.ENOENT)
        new = await dcache.lookup(new_dir.dentry, new_name)
        if old.deleted or old.inode is None:
            raise SysError(errno.ENOENT)
        if new.inode is None and (exchange or fs.fixed_names):
            raise SysError(errno.ENOENT)
        if new.inode is not None and flags & RENAME_NOREPLACE:
            raise SysError(errno.EEXIST)
        if exchange and new_slash and new.inode is not None and not new.inode.is_dir:
            raise SysError(errno.ENOTDIR)
        if not old.inode.is_dir and (old_slash or (new_slash and not exchange)):
            raise SysError(errno.ENOTDIR)
        if _is_ancestor(old, new_dir.dentry):
            raise SysError(errno.EINVAL)
        if _is_ancestor(new, old_dir.dentry):
            raise SysError(errno.EINVAL if exchange else errno.ENOTEMPTY)
        if old.inode is new.inode:
            return
        _check_rename(old_dir, old, new_dir, new, exchange, cred)
        parent, target = _directory(old_dir.dentry), _directory(new_dir.dentry)
        await parent.rename(old_name, target, new_name, flags & (RENAME_NOREPLACE | RENAME_EXCHANGE))
        if exchange:
            dcache.exchanged(old, new)
        else:
            if new.inode is not None:
                dcache.removed(new)
            dcache.moved(old, new_dir.dentry, new_name)
        if fsnotify.watching and old.inode is not None:
            if exchange:
                assert new.inode is not None
                fsnotify.moved(parent, old_name, target, new_name, old.inode, None)
                fsnotify.moved(target, new_name, parent, old_name, new.inode, None)
            else:
                fsnotify.moved(parent, old_name, target, new_name, old.inode, new.inode)


def _check_rename(
    old_dir: Path, old: Dentry, new_dir: Path, new: Dentry, exchange: bool, cred: Credentials
) -> None:
    """The permission checks of vfs_rename, in its order."""
    assert old.inode is not None
    is_dir = old.inode.is_dir
    _may_delete(old_dir.inode, old, cred, is_dir)
    if new.inode is None:
        _may_create(new_dir, cred)
    else:
        _may_delete(new_dir.inode, new, cred, new.inode.is_dir if exchange else is_dir)
    if old_dir.dentry is not new_dir.dentry:
        # `..` changes, so the directory itself is written to.
        if is_dir:
            permission(old.inode, cred, MAY_WRITE)
        if exchange and new.inode is not None and new.inode.is_dir:
            permission(new.inode, cred, MAY_WRITE)
    if old.mounted or new.mounted:
        raise SysError(errno.EBUSY)


def _keeps_group(inode: Inode, cred: Credentials) -> bool:
    """Whether `cred` may have a set-group-ID file of this group."""
    return cred.in_group(inode.gid) or cred.capable_over(inode.uid, inode.gid, CAP_FSETID)


async def _set(path: Path, changes: dict[str, int]) -> None:
    await path.inode.setattr(changes)
    if fsnotify.watching:
        fsnotify.changed(path.dentry, changes)


async def chmod(path: Path, mode: int, cred: Credentials) -> None:
    inode = path.inode
    want_write(path.mount)
    await inode.refresh()
    _refuse_guarded(inode)
    if not owner_or_capable(inode, cred):
        raise SysError(errno.EPERM)
    mode &= 0o7777
    if mode & S_ISGID and not _keeps_group(inode, cred):
        mode &= ~S_ISGID
    await _set(path, {"mode": mode})


async def chown(path: Path, uid: int, gid: int, cred: Credentials) -> None:
    """`uid` or `gid` -1 (0xFFFFFFFF) leaves that one as it is; SysError(EINVAL) for one that is no id in the
    user namespace of `cred`."""
    inode = path.inode
    space = cred.user_ns
    uid = uid if uid == 0xFFFFFFFF else space.kuid(uid)
    gid = gid if gid == 0xFFFFFFFF else space.kgid(gid)
    want_write(path.mount)
    await inode.refresh()
    if uid != 0xFFFFFFFF or gid != 0xFFFFFFFF:
        _refuse_guarded(inode)
    changes: dict[str, int] = {}
    mine = inode.uid == cred.fsuid
    capable = cred.capable_over(inode.uid, inode.gid, CAP_CHOWN)
    if uid != 0xFFFFFFFF:
        if not capable and not (mine and uid == inode.uid):
            raise SysError(errno.EPERM)
        changes["uid"] = uid
    if gid != 0xFFFFFFFF:
        if not capable and not (mine and (gid == inode.gid or cred.in_group(gid))):
            raise SysError(errno.EPERM)
        changes["gid"] = gid
    if not inode.is_dir:
        mode = inode.mode & 0o7777 & ~S_ISUID
        if mode & S_ISGID and (mode & 0o010 or not _keeps_group(inode, cred)):
            mode &= ~S_ISGID
        if mode != inode.mode & 0o7777:
            changes["mode"] = mode
    await _set(path, changes)


async def utimes(path: Path, atime: int | None, mtime: int | None, now: bool, cred: Credentials) -> None:
    """Set times (nanoseconds; None: leave).  `now`: both are the current time, for which write
    permission is enough (utimensat(2))."""
    inode = path.inode
    if atime is None and mtime is None:
        return
    want_write(path.mount)
    await inode.refresh()
    if guarded(inode) and (not now or inode.immutable or (inode.fsflags or 0) & FS_IMMUTABLE_FL):
        raise SysError(errno.EPERM)
    if not owner_or_capable(inode, cred):
        if not now:
            raise SysError(errno.EPERM)
        permission(inode, cred, MAY_WRITE)
    changes: dict[str, int] = {}
    if atime is not None:
        changes["atime"] = atime
    if mtime is not None:
        changes["mtime"] = mtime
    await _set(path, changes)


async def truncate(inode: Inode, size: int, cred: Credentials) -> None:
    """Set the size of a regular file that the caller may write to; set-ID bits go (file_remove_privs)."""
    changes = {"size": size}
    mode = without_set_ids(inode, cred)
    if mode is not None:
        changes["mode"] = mode
    await inode.setattr(changes)


def without_set_ids(inode: Inode, cred: Credentials) -> int | None:
    """The permission bits that a write by `cred` leaves, None when it changes nothing."""
    mode = inode.mode
    if not mode & (S_ISUID | S_ISGID) or mode & S_IFMT != S_IFREG:
        return None
    if cred.capable_over(inode.uid, inode.gid, CAP_FSETID):
        return None
    new = mode & 0o7777 & ~S_ISUID
    if mode & 0o010 or not cred.in_group(inode.gid):
        new &= ~S_ISGID
    return new if new != mode & 0o7777 else None
