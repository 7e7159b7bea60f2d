"""Dentry, Mount and Path: names in directories, and trees put together (struct dentry, mount, path).

A dentry caches one name of a directory; `inode` None means the name is known not to exist.
Positive dentries of file systems in memory are exact; those of a shared remote tree revalidate
(`Inode.refresh`).  A mount covers the dentry it is mounted on: `MountNamespace.mounts` maps
(parent mount, dentry) to the mount on top of it.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.inode import Filesystem, Inode

MNT_READONLY = 1
MNT_NOSUID = 2
MNT_NODEV = 4
MNT_NOEXEC = 8


class Dentry:
    __slots__ = ("children", "deleted", "inode", "mounted", "name", "parent", "version")

    def __init__(self, parent: Dentry | None, name: bytes, inode: Inode | None) -> None:
        self.parent = parent
        self.name = name
        self.inode = inode
        #: Known names below, existing or not; see dcache.py.
        self.children: dict[bytes, Dentry] = {}
        #: How many mounts cover this dentry, in any namespace.
        self.mounted = 0
        #: Whether it was unlinked (an open file or a working directory may still be here).
        self.deleted = False
        #: Goes up with each change of the directory, so that a lookup that slept through one notices.
        self.version = 0


class Mount:
    """A file system's tree, or part of one, at a place of the sandbox's tree."""

    __slots__ = ("flags", "fs", "id", "mountpoint", "parent", "root")
    _next_id = 20

    def __init__(self, fs: Filesystem, root: Dentry, flags: int = 0) -> None:
        self.fs = fs
        self.root = root
        self.flags = flags
        #: Where it is mounted: None for the root of a namespace.
        self.parent: Mount | None = None
        self.mountpoint: Dentry | None = None
        self.id = Mount._next_id
        Mount._next_id += 1


class Path:
    """A place: a dentry seen through a mount."""

    __slots__ = ("dentry", "mount")

    def __init__(self, mount: Mount, dentry: Dentry) -> None:
        self.mount = mount
        self.dentry = dentry

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Path) and self.mount is other.mount and self.dentry is other.dentry

    def __hash__(self) -> int:
        return hash((id(self.mount), id(self.dentry)))

    @property
    def inode(self) -> Inode:
        """The inode here; SysError(ENOENT) for a negative dentry."""
        inode = self.dentry.inode
        if inode is None:
            raise SysError(errno.ENOENT)
        return inode


class MountNamespace:
    """The mounts that a container sees."""

    def __init__(self, root: Mount) -> None:
        self.root = root
        self.mounts: dict[tuple[int, int], Mount] = {}

    def attach(self, mount: Mount, where: Path) -> None:
        """Mount `mount` over `where` (and over what is mounted there already, if anything)."""
        mount.parent, mount.mountpoint = where.mount, where.dentry
        where.dentry.mounted += 1
        self.mounts[id(where.mount), id(where.dentry)] = mount

    def detach(self, mount: Mount) -> None:
        assert mount.parent is not None and mount.mountpoint is not None
        del self.mounts[id(mount.parent), id(mount.mountpoint)]
        mount.mountpoint.mounted -= 1

    def cross(self, path: Path) -> Path:
        """`path`, or the root of the topmost mount that covers it."""
        while path.dentry.mounted:
            mount = self.mounts.get((id(path.mount), id(path.dentry)))
            if mount is None:
                break
            path = Path(mount, mount.root)
        return path

    def children_of(self, mount: Mount) -> list[Mount]:
        """The mounts that stand directly on `mount`."""
        return [other for other in self.mounts.values() if other.parent is mount]

    def all(self) -> list[Mount]:
        """Every mount in order of mounting."""
        return sorted([self.root, *self.mounts.values()], key=lambda mount: mount.id)


class FsContext:
    """Root, working directory and umask of a task (struct fs_struct); shared by CLONE_FS."""

    __slots__ = ("cwd", "namespace", "root", "umask", "users")

    def __init__(self, namespace: MountNamespace, root: Path, cwd: Path, umask: int = 0o022) -> None:
        self.namespace = namespace
        self.root = root
        self.cwd = cwd
        self.umask = umask
        self.users = 1

    def copy(self) -> FsContext:
        return FsContext(self.namespace, self.root, self.cwd, self.umask)
