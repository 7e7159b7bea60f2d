"""Dentry, Mount and Path: names in directories, and trees put together (struct dentry, mount, path).

A dentry caches one name of a directory; `inode` None means the name is known not to exist.
Positive dentries of file systems in memory are exact; those of a shared remote tree revalidate
(`Inode.refresh`).  A mount covers the dentry it is mounted on: `MountNamespace.mounts` maps
(parent mount, dentry) to the mount on top of it.

Each of them has a twin in C (csrc/abi/dcache.h, `c`) that says the same, for the engine's walk; it is only
written here and in dcache.py.
"""

from __future__ import annotations

import errno
from _weakref import ref

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.fs import spare
from sentry.fs.inode import CACHE_EXACT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.inode import Filesystem, Inode

MNT_READONLY = 1
MNT_NOSUID = 2
MNT_NODEV = 4
MNT_NOEXEC = 8

NULL = ffi.NULL
_new_dnode, _free_dnode, _free_mount = lib.dnode_new, lib.dnode_free, lib.vmount_free
_NEGATIVE: int = lib.DNODE_NEGATIVE
_EXACT: int = lib.DNODE_EXACT
_PLAIN: int = lib.DNODE_PLAIN
_FS_READONLY: int = lib.VMOUNT_FS_READONLY


def _flags_of(inode: Inode) -> int:
    flags = _EXACT if inode.caching == CACHE_EXACT else 0
    return flags | _PLAIN if inode.plain else flags


class Dentry:
    __slots__ = ("c", "children", "deleted", "inode", "mounted", "name", "parent", "version")

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
        above = NULL if parent is None else parent.c
        if inode is None:
            self.c: Any = _new_dnode(above, name, len(name), NULL, _NEGATIVE)
        else:
            self.c = _new_dnode(above, name, len(name), inode.c, _flags_of(inode))

    def __del__(self, free: Any = _free_dnode) -> None:
        c, self.c = self.c, NULL
        free(c)

    def become(self, inode: Inode) -> None:
        """The file exists now."""
        self.inode = inode
        lib.dnode_bind(self.c, inode.c, _flags_of(inode))


class Mount:
    """A file system's tree, or part of one, at a place of the sandbox's tree."""

    __slots__ = ("__weakref__", "c", "flags", "fs", "id", "mountpoint", "parent", "root")
    _next_id = 20
    _known: dict[int, ref[Mount]] = {}

    def __init__(self, fs: Filesystem, root: Dentry, flags: int = 0) -> None:
        self.fs = fs
        self.root = root
        self.flags = flags
        #: Where it is mounted: None for the root of a namespace.
        self.parent: Mount | None = None
        self.mountpoint: Dentry | None = None
        self.id = Mount._next_id
        Mount._next_id += 1
        self.c: Any = lib.vmount_new(root.c, self._c_flags(flags), self.id)
        Mount._known[self.id] = ref(self)

    def __del__(self, free: Any = _free_mount) -> None:
        c, self.c = self.c, NULL
        free(c)
        Mount._known.pop(self.id, None)

    @staticmethod
    def of(number: int) -> Mount:
        """The mount whose `id` is `number`; KeyError."""
        mount = Mount._known[number]()
        if mount is None:
            raise KeyError(number)
        return mount

    def _c_flags(self, flags: int) -> int:
        return flags | _FS_READONLY if self.fs.readonly else flags

    def remount(self, flags: int) -> None:
        """Change the flags (MNT_…)."""
        self.flags = flags
        lib.vmount_set_flags(self.c, self._c_flags(flags))


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
        lib.vmount_attach(mount.c, where.mount.c, where.dentry.c)

    def detach(self, mount: Mount) -> None:
        assert mount.parent is not None and mount.mountpoint is not None
        gone = self.mounts.pop((id(mount.parent), id(mount.mountpoint)))
        mount.mountpoint.mounted -= 1
        lib.vmount_detach(gone.c)
        spare.forget_mount(mount)

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

    __slots__ = ("_cwd", "_root", "c", "namespace", "umask", "users")

    def __init__(self, namespace: MountNamespace, root: Path, cwd: Path, umask: int = 0o022) -> None:
        self.namespace = namespace
        self.c: Any = ffi.new("struct fs_context *")
        self.root = root
        self.cwd = cwd
        self.umask = umask
        self.users = 1

    @property
    def root(self) -> Path:
        return self._root

    @root.setter
    def root(self, path: Path) -> None:
        self._root = path
        self.c.root_mount, self.c.root = path.mount.c, path.dentry.c

    @property
    def cwd(self) -> Path:
        return self._cwd

    @cwd.setter
    def cwd(self, path: Path) -> None:
        self._cwd = path
        self.c.cwd_mount, self.c.cwd = path.mount.c, path.dentry.c

    def copy(self) -> FsContext:
        return FsContext(self.namespace, self.root, self.cwd, self.umask)
