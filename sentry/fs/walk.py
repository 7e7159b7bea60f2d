"""Path walk: from the bytes of a path to a `Path` (path_resolution(7), Linux fs/namei.c).

    path = await walk(task.fs, task.cred, b"/etc/passwd")               # what is there, ENOENT
    directory, name, slash = await walk_parent(task.fs, task.cred, p)   # where to create or remove
    start = at(task, dirfd)                                             # for the *at calls

Every directory passed needs search permission; symbolic links are followed, at most 40 in one walk;
`..` stops at the task's root and crosses from a mount's root to what lies around it.  A walk sleeps
only where a file system does: names that are cached cost no suspension.
"""

from __future__ import annotations

import errno
from itertools import takewhile

from sentry.abi.capability import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    AT_FDCWD,
    O_ACCMODE,
    O_APPEND,
    O_NOATIME,
    O_PATH,
    O_TRUNC,
    PATH_MAX,
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from sentry.abi.fileattr import FS_APPEND_FL, FS_IMMUTABLE_FL
from sentry.abi.stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISVTX, S_IWOTH
from sentry.fs import dcache
from sentry.fs.dcache import lookup
from sentry.fs.dentry import (
    MNT_NODEV,
    MNT_NOSYMFOLLOW,
    MNT_READONLY,
    Dentry,
    FsContext,
    Mount,
    Path,
    cross,
)
from sentry.fs.file import File, PathFile
from sentry.fs.inode import CACHE_EXACT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.inode import Inode
    from sentry.kernel.credentials import Credentials

MAY_EXEC = 1
MAY_WRITE = 2
MAY_READ = 4
MAX_LINKS = 40
_SCOPED = RESOLVE_BENEATH | RESOLVE_IN_ROOT


def allowed(inode: Inode, cred: Credentials, mask: int) -> bool:
    """Whether mode bits and capabilities grant `mask` (MAY_…) by the file-system ids of `cred`."""
    mode = inode.mode
    if inode.uid == cred.fsuid:
        bits = mode >> 6
    elif mode & 0o070 != (mode & 0o007) << 3 and cred.in_group(inode.gid):
        bits = mode >> 3
    else:
        bits = mode
    if not mask & ~bits & 7:
        return True
    if inode.strict:
        return inode.grants(cred, mask)
    uid, gid = inode.uid, inode.gid
    if mode & S_IFMT == S_IFDIR:
        if not mask & MAY_WRITE and cred.capable_over(uid, gid, CAP_DAC_READ_SEARCH):
            return True
        return cred.capable_over(uid, gid, CAP_DAC_OVERRIDE) or inode.grants(cred, mask)
    if mask == MAY_READ and cred.capable_over(uid, gid, CAP_DAC_READ_SEARCH):
        return True
    if (not mask & MAY_EXEC or mode & 0o111) and cred.capable_over(uid, gid, CAP_DAC_OVERRIDE):
        return True
    return inode.grants(cred, mask)


class Hardening:
    """fs.protected_symlinks and fs.protected_hardlinks of /proc/sys."""

    symlinks = 1
    hardlinks = 1


def permission(inode: Inode, cred: Credentials, mask: int) -> None:
    """SysError(EACCES) unless `allowed`; EPERM where not even the owner may write."""
    if mask & MAY_WRITE and (inode.immutable or (inode.fsflags and inode.fsflags & FS_IMMUTABLE_FL)):
        raise SysError(errno.EPERM)
    if not allowed(inode, cred, mask):
        raise SysError(errno.EACCES)


def is_readonly(mount: Mount) -> bool:
    return bool(mount.flags & MNT_READONLY) or mount.fs.readonly


def want_write(mount: Mount) -> None:
    """SysError(EROFS) on a read-only mount or file system."""
    if is_readonly(mount):
        raise SysError(errno.EROFS)


def owner_or_capable(inode: Inode, cred: Credentials) -> bool:
    return inode.uid == cred.fsuid or cred.capable_over(inode.uid, None, CAP_FOWNER)


def _is_name(name: bytes) -> bool:
    return name != b"." and name != b".."


class Resolver:
    """One walk under way: where it is, and the names that are still to go.

    `parent` goes on until one name is left; `finish` all the way.  open(2) needs the steps apart, since
    it creates what isn't there at the end of a chain of symbolic links.
    """

    __slots__ = (
        "cred",
        "dentry",
        "flags",
        "links",
        "mount",
        "must_dir",
        "opening",
        "root",
        "todo",
    )

    def __init__(
        self, fs: FsContext, cred: Credentials, path: bytes, start: Path | None = None, flags: int = 0
    ) -> None:
        """`start`: where a relative path begins (None: the working directory); `flags`: RESOLVE_…"""
        if not path:
            raise SysError(errno.ENOENT)
        if len(path) >= PATH_MAX:
            raise SysError(errno.ENAMETOOLONG)
        begin = start or fs.cwd
        self.cred = cred
        self.flags = flags
        self.links = 0
        self.root = begin if flags & _SCOPED else fs.root
        self.mount, self.dentry = begin.mount, begin.dentry
        #: Names still to go, the next one last.
        self.todo: list[bytes] = []
        #: The path ends in a slash: the result has to be a directory, and a symbolic link is followed.
        self.must_dir = False
        #: What is there is opened for reading then.
        self.opening = False
        self._push(path)

    def _push(self, path: bytes) -> None:
        """Put the names of `path` before what is still to go; an absolute one starts over at the root."""
        if path[0] == 0x2F:
            self._to_root()
        names = [name for name in path.split(b"/") if name]
        if not self.todo and path[-1] == 0x2F:
            self.must_dir = True
        names.reverse()
        self.todo += names

    def _to_root(self) -> None:
        if self.flags & RESOLVE_BENEATH:
            raise SysError(errno.EXDEV)
        root = self.root
        if self.flags & RESOLVE_NO_XDEV and root.mount is not self.mount:
            raise SysError(errno.EXDEV)
        self.mount, self.dentry = root.mount, root.dentry

    @property
    def path(self) -> Path:
        return Path(self.mount, self.dentry)

    async def parent(self) -> bytes:
        """Walk to the directory of the last name and return that name, not looked up; it may be b"."
        or b".."; b"" when nothing is left (the path "/", or a magic link went straight to its end)."""
        todo, cred = self.todo, self.cred
        while todo:
            dentry = self.dentry
            inode = dentry.inode
            if inode is None:
                raise SysError(errno.ENOENT)
            if inode.mode & S_IFMT != S_IFDIR:
                raise SysError(errno.ENOTDIR)
            if not allowed(inode, cred, MAY_EXEC):
                raise SysError(errno.EACCES)
            name = todo.pop()
            if not todo:
                return name
            if name == b".":
                continue
            if name == b"..":
                self.dotdot()
                continue
            child = dentry.children.get(name)
            if child is None or inode.caching != CACHE_EXACT:
                child = await self._lookup(name)
            target = child.inode
            if target is None:
                raise SysError(errno.ENOENT)
            if target.mode & S_IFMT == S_IFLNK and not child.mounted:
                await self.follow(Path(self.mount, child), False)
            elif child.mounted:
                self.enter(child)
            else:
                self.dentry = child
        return b""

    async def _lookup(self, name: bytes) -> Dentry:
        if self.flags & RESOLVE_CACHED:
            raise SysError(errno.EAGAIN)
        dentry = self.dentry
        if (self.todo or self.opening) and dentry.inode is not None and name not in dentry.children:
            names = [name, *takewhile(_is_name, reversed(self.todo))]
            await dentry.inode.foresee(names, self.opening and len(names) > len(self.todo))
        return await lookup(dentry, name)

    async def child(self, name: bytes) -> Dentry:
        """The entry `name` of the directory reached, maybe negative; mounts on it are not crossed."""
        inode = self.dentry.inode
        child = self.dentry.children.get(name)
        if child is None or inode is None or inode.caching != CACHE_EXACT:
            child = await self._lookup(name)
        return child

    def enter(self, child: Dentry) -> None:
        """Step down to `child`, and into what is mounted there."""
        self._arrive(Path(self.mount, child))

    def _arrive(self, path: Path) -> None:
        if path.dentry.mounted:
            crossed = cross(path)
            if self.flags & RESOLVE_NO_XDEV and crossed.mount is not path.mount:
                raise SysError(errno.EXDEV)
            path = crossed
        self.mount, self.dentry = path.mount, path.dentry

    def dotdot(self) -> None:
        """Step up, but not above the root."""
        root, mount, dentry = self.root, self.mount, self.dentry
        while True:
            if dentry is root.dentry and mount is root.mount:
                if self.flags & RESOLVE_BENEATH:
                    raise SysError(errno.EXDEV)
                return
            if dentry is not mount.root:
                break
            if mount.parent is None or mount.mountpoint is None:
                return
            if self.flags & RESOLVE_NO_XDEV:
                raise SysError(errno.EXDEV)
            dentry, mount = mount.mountpoint, mount.parent
        if dentry.parent is not None:
            self._arrive(Path(mount, dentry.parent))

    def _may_follow(self, link: Inode) -> None:
        """SysError(EACCES) for somebody else's link where anybody may put one (protected_symlinks in
        proc_sys_fs(5))."""
        directory = self.dentry.inode
        shared = S_ISVTX | S_IWOTH
        if directory is None or directory.mode & shared != shared or not Hardening.symlinks:
            return
        if link.uid not in (self.cred.fsuid, directory.uid):
            raise SysError(errno.EACCES)

    async def follow(self, link: Path, last: bool = True) -> None:
        """Follow the symbolic link at `link`, an entry of the directory reached; `last` of the path."""
        if last:
            self._may_follow(link.inode)
        self.links += 1
        flags = self.flags
        if self.links > MAX_LINKS or flags & RESOLVE_NO_SYMLINKS or link.mount.flags & MNT_NOSYMFOLLOW:
            raise SysError(errno.ELOOP)
        inode = link.inode
        place = await inode.follow()
        if place is None:
            target = await inode.readlink()
            if not target:
                raise SysError(errno.ENOENT)
            dcache.note_link(link.dentry, target)
            self._push(target)
            return
        if flags & RESOLVE_NO_MAGICLINKS:
            raise SysError(errno.ELOOP)
        if flags & _SCOPED or (flags & RESOLVE_NO_XDEV and place.mount is not self.mount):
            raise SysError(errno.EXDEV)
        self.mount, self.dentry = place.mount, place.dentry

    async def finish(self, follow: bool = True, directory: bool = False) -> Path:
        """Walk to the end: what is there.  `follow`: a symbolic link at the end too; `directory`:
        SysError(ENOTDIR) for anything else."""
        while True:
            name = await self.parent()
            if name == b"..":
                self.dotdot()
            elif name and name != b".":
                child = await self.child(name)
                inode = child.inode
                if inode is None:
                    raise SysError(errno.ENOENT)
                if inode.mode & S_IFMT == S_IFLNK and (follow or self.must_dir) and not child.mounted:
                    await self.follow(Path(self.mount, child))
                    continue
                self.enter(child)
            inode = self.dentry.inode
            if inode is None:
                raise SysError(errno.ENOENT)
            if (directory or self.must_dir) and inode.mode & S_IFMT != S_IFDIR:
                raise SysError(errno.ENOTDIR)
            return Path(self.mount, self.dentry)


async def walk(
    fs: FsContext,
    cred: Credentials,
    path: bytes,
    start: Path | None = None,
    follow: bool = True,
    flags: int = 0,
    opening: bool = False,
) -> Path:
    """What `path` names.  `start`: where a relative path begins (None: the working directory);
    `follow`: whether a symbolic link at the end is followed; `flags`: RESOLVE_… of openat2(2);
    `opening`: the caller will open it for reading.

    SysError(ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG, EXDEV…).
    """
    resolver = Resolver(fs, cred, path, start, flags)
    resolver.opening = opening
    return await resolver.finish(follow)


async def walk_parent(
    fs: FsContext, cred: Credentials, path: bytes, start: Path | None = None
) -> tuple[Path, bytes, bool]:
    """(directory, last name, whether a slash follows it).  The name is not looked up and may be b"." or
    b".."; it is b"" for the root directory itself."""
    resolver = Resolver(fs, cred, path, start)
    name = await resolver.parent()
    return resolver.path, name, resolver.must_dir


def at(task: Any, dirfd: int) -> Path:
    """Where a relative path of an *at call begins; SysError(EBADF).

    That it is a directory is checked by the walk (ENOTDIR), not for an empty or absolute path.
    """
    if dirfd == AT_FDCWD:
        cwd: Path = task.fs.cwd
        return cwd
    file = task.files.get_any(dirfd)
    path: Path | None = file.path
    if path is None:
        raise SysError(errno.ENOTDIR)
    return path


def start_of(task: Any, dirfd: int, path: bytes) -> Path | None:
    """`at`, but an absolute `path` ignores `dirfd` altogether (EBADF included)."""
    if dirfd == AT_FDCWD or path[:1] == b"/":
        return None
    return at(task, dirfd)


def locate(fs: FsContext, path: Path) -> tuple[bytes, bool]:
    """(path from the root of `fs`, whether that root was met); an unlinked file's name is its last one."""
    root = fs.root
    mount, dentry = path.mount, path.dentry
    names: list[bytes] = []
    while not (dentry is root.dentry and mount is root.mount):
        if dentry is mount.root:
            if mount.parent is None or mount.mountpoint is None:
                if dentry.name and not names:
                    return dentry.name, True  # pipe:[7] and the like
                return b"/" + b"/".join(reversed(names)), False
            dentry, mount = mount.mountpoint, mount.parent
            continue
        if dentry.parent is None:
            if dentry.name and not names:
                return dentry.name, True
            return b"/" + b"/".join(reversed(names)), False
        names.append(dentry.name)
        dentry = dentry.parent
    return b"/" + b"/".join(reversed(names)), True


def path_bytes(fs: FsContext, path: Path) -> bytes:
    """The path as /proc shows it (d_path): " (deleted)" behind what was unlinked."""
    name, _ = locate(fs, path)
    return name + b" (deleted)" if path.dentry.deleted else name


def may_open(path: Path, cred: Credentials, flags: int) -> None:
    """Whether open(2) with `flags` may open what is there; SysError(ELOOP, EISDIR, EACCES, EPERM, EROFS)."""
    inode = path.inode
    kind = inode.mode & S_IFMT
    mask = (MAY_READ, MAY_WRITE, MAY_READ | MAY_WRITE, MAY_READ | MAY_WRITE)[flags & O_ACCMODE]
    if flags & O_TRUNC:
        mask |= MAY_WRITE
    if kind == S_IFLNK:
        raise SysError(errno.ELOOP)
    if kind == S_IFDIR and mask & MAY_WRITE:
        raise SysError(errno.EISDIR)
    if kind in (S_IFBLK, S_IFCHR) and path.mount.flags & MNT_NODEV:
        raise SysError(errno.EACCES)
    frozen = mask & MAY_WRITE and kind in (S_IFREG, S_IFDIR) and is_readonly(path.mount)
    if frozen and (path.mount.fs.readonly or allowed(inode, cred, mask)):
        raise SysError(errno.EROFS)
    permission(inode, cred, mask)
    if (inode.fsflags or 0) & FS_APPEND_FL and (
        (mask & MAY_WRITE and not flags & O_APPEND) or flags & O_TRUNC
    ):
        raise SysError(errno.EPERM)
    if flags & O_NOATIME and not owner_or_capable(inode, cred):
        raise SysError(errno.EPERM)


async def open_path(fs: FsContext, cred: Credentials, path: Path, flags: int) -> File:
    """Open what is at `path`; permissions have been checked (`may_open`), O_TRUNC done."""
    if flags & O_PATH:
        return PathFile(path.inode, flags, path)
    return await path.inode.open(path, flags, cred)
