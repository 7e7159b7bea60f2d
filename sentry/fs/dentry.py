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
from _weakrefset import WeakSet

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.poll import POLLERR, POLLPRI
from sentry.fs import spare
from sentry.fs.inode import CACHE_EXACT
from sentry.kernel.wait import WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.inode import Filesystem, Inode

MNT_READONLY = 1
MNT_NOSUID = 2
MNT_NODEV = 4
MNT_NOEXEC = 8
MNT_NOSYMFOLLOW = 16
#: Of all namespaces together: a copy of one costs as much as its mounts.
MAX_ALL_MOUNTS = 20000
#: The inode number of the first mount namespace.
FIRST_MNT_NS = 4026531832

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

    __slots__ = (
        "__weakref__", "c", "flags", "fs", "group", "id", "kept", "locked", "master", "mountpoint",
        "namespace", "parent", "root", "unbindable",
    )  # fmt: skip
    _next_id = 20
    _known: dict[int, ref[Mount]] = {}

    @staticmethod
    def check_room(count: int) -> None:
        """SysError(ENOSPC) when `count` more, in whatever namespace, would be too many."""
        if len(Mount._known) + count > MAX_ALL_MOUNTS:
            raise SysError(errno.ENOSPC)

    def __init__(self, fs: Filesystem, root: Dentry, flags: int = 0) -> None:
        self.fs = fs
        self.root = root
        self.flags = flags
        #: Where it is mounted: None for the root of a namespace.
        self.parent: Mount | None = None
        self.mountpoint: Dentry | None = None
        #: The namespace that it is attached in.
        self.namespace: ref[MountNamespace] | None = None
        #: Its propagation (sentry/fs/propagation.py): the peers that it shares mounts with, the peer group
        #: that it only receives from, and whether it may be bound elsewhere.
        self.group: PeerGroup | None = None
        self.master: PeerGroup | None = None
        self.unbindable = False
        #: Came from a more privileged namespace with what is around it: it can't be taken off alone.
        self.locked = False
        #: Of `flags`, those that came from there, which no remount takes off (MNT_LOCK_*).
        self.kept = 0
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

    def twin(self, root: Dentry | None = None) -> Mount:
        """A copy that isn't attached anywhere, maybe of the tree from `root` on: a peer of a shared one, else
        private (clone_mnt())."""
        new = Mount(self.fs, root or self.root, self.flags)
        new.locked, new.kept = self.locked, self.kept
        new.unbindable = self.unbindable
        if self.group is not None:
            new.group = self.group
            self.group.peers.add(new)
        if self.master is not None:
            new.master = self.master
            self.master.slaves.add(new)
        return new


def become_slave(mount: Mount) -> None:
    """MS_SLAVE: hear of what happens in the peer group, without being in it."""
    group = mount.group
    if group is None:
        return
    group.peers.discard(mount)
    mount.group = None
    if group.peers:
        if mount.master is not None:
            mount.master.slaves.discard(mount)
        mount.master = group
        group.slaves.add(mount)
        return
    for follower in list(group.slaves):  # they hear of what the last peer heard of, if of anything
        follower.master = mount.master
        if mount.master is not None:
            mount.master.slaves.add(follower)
    group.slaves.clear()


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


class PeerGroup:
    """Mounts that share what is mounted on them, and those that follow (mount_namespaces(7))."""

    __slots__ = ("id", "peers", "slaves")
    _last_id = 0

    def __init__(self) -> None:
        PeerGroup._last_id += 1
        self.id = PeerGroup._last_id
        self.peers: WeakSet[Mount] = WeakSet()
        self.slaves: WeakSet[Mount] = WeakSet()


class MountNamespace:
    """The mounts that a container sees (mount_namespaces(7))."""

    kind = b"mnt"
    _last_seq = 0

    def __init__(self, root: Mount, user_ns: Any = None, ino: int = FIRST_MNT_NS) -> None:
        self.root = root
        #: Its identity and owner, as those of sentry.kernel.userns.Namespace.
        self.ino = ino
        self.user_ns = user_ns
        #: In order of creation.
        MountNamespace._last_seq += 1
        self.seq = MountNamespace._last_seq
        self.charge: Any = None
        self.mounts: dict[tuple[int, int], Mount] = {}
        #: id of a mount → what stands directly on it.
        self._children: dict[int, dict[Mount, None]] = {}
        #: Counts changes; whoever polls /proc/PID/mounts waits in `queue`.
        self.event = 0
        self.queue = WaitQueue()
        root.namespace = ref(self)

    def __del__(self) -> None:
        for mount in self.mounts.values():
            if mount.mountpoint is not None:
                mount.mountpoint.mounted -= 1
                lib.vmount_detach(mount.c)

    def attach(self, mount: Mount, where: Path) -> None:
        """Mount `mount` over `where` (and over what is mounted there already, if anything)."""
        mount.parent, mount.mountpoint = where.mount, where.dentry
        mount.namespace = ref(self)
        where.dentry.mounted += 1
        self.mounts[id(where.mount), id(where.dentry)] = mount
        self._children.setdefault(id(where.mount), {})[mount] = None
        lib.vmount_attach(mount.c, where.mount.c, where.dentry.c)
        self._changed()

    def _changed(self) -> None:
        self.event += 1
        self.queue.wake(POLLERR | POLLPRI)

    def detach(self, mount: Mount) -> None:
        assert mount.parent is not None and mount.mountpoint is not None
        gone = self.mounts.pop((id(mount.parent), id(mount.mountpoint)))
        siblings = self._children[id(mount.parent)]
        del siblings[mount]
        if not siblings:
            del self._children[id(mount.parent)]
        mount.mountpoint.mounted -= 1
        lib.vmount_detach(gone.c)
        mount.namespace = None
        spare.forget_mount(mount)
        self._changed()

    def uproot(self, mount: Mount) -> None:
        """`mount`, which is attached, stands for itself from now on: nothing is above it."""
        self.detach(mount)
        mount.parent = mount.mountpoint = None
        lib.vmount_uproot(mount.c)

    def pivot(self, new: Mount, old: Mount, old_at: Path) -> None:
        """Put `new` in the place of `old`, which may be the root of all, and mount that one at `old_at`."""
        parent, point = old.parent, old.mountpoint
        self.uproot(new)
        if parent is None or point is None:
            self.root = new
            new.namespace = ref(self)
        else:
            self.detach(old)
        self.attach(old, old_at)
        if parent is not None and point is not None:
            self.attach(new, Path(parent, point))

    def copy(self, user_ns: Any, ino: int, fs: FsContext | None = None) -> MountNamespace:
        """A namespace with copies of all mounts, for `user_ns`; `fs` is moved over (copy_mnt_ns()).

        SysError(ENOSPC)."""
        Mount.check_room(len(self.mounts) + 1)
        less = user_ns is not self.user_ns
        twins: dict[int, Mount] = {}

        def twin(mount: Mount) -> Mount:
            new = twins[id(mount)] = mount.twin()
            if less:
                new.locked = True
                new.kept |= new.flags
                if new.group is not None:
                    become_slave(new)
            return new

        root = twin(self.root)
        root.locked = False
        new = MountNamespace(root, user_ns, ino)
        for mount in self.tree(self.root)[1:]:
            assert mount.mountpoint is not None
            new.attach(twin(mount), Path(twins[id(mount.parent)], mount.mountpoint))
        if fs is not None:
            fs.root = Path(twins.get(id(fs.root.mount), fs.root.mount), fs.root.dentry)
            fs.cwd = Path(twins.get(id(fs.cwd.mount), fs.cwd.mount), fs.cwd.dentry)
        return new

    def cross(self, path: Path) -> Path:
        """`path`, or the root of the topmost mount that covers it."""
        return cross(path)

    def children_of(self, mount: Mount) -> list[Mount]:
        """The mounts that stand directly on `mount`."""
        return list(self._children.get(id(mount), ()))

    def tree(self, mount: Mount) -> list[Mount]:
        """`mount` and all that stands on it, parents first."""
        tree = [mount]
        for one in tree:
            tree += self.children_of(one)
        return tree

    def all(self) -> list[Mount]:
        """Every mount in order of mounting."""
        return sorted([self.root, *self.mounts.values()], key=lambda mount: mount.id)


def cross(path: Path) -> Path:
    """`path`, or the root of the topmost mount that covers it in the namespace it lies in."""
    while path.dentry.mounted:
        owner = path.mount.namespace
        namespace = None if owner is None else owner()
        if namespace is None:
            break
        mount = namespace.mounts.get((id(path.mount), id(path.dentry)))
        if mount is None:
            break
        path = Path(mount, mount.root)
    return path


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

    @property
    def chrooted(self) -> bool:
        """Whether the root is not that of the namespace (current_chrooted())."""
        top = cross(Path(self.namespace.root, self.namespace.root.root))
        return self._root != top and self._root != Path(self.namespace.root, self.namespace.root.root)

    def copy(self) -> FsContext:
        return FsContext(self.namespace, self.root, self.cwd, self.umask)
