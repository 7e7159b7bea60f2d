"""Trees of mounts: copies, and what goes from one mount to those that share with it (mount_namespaces(7),
"Shared subtrees", Linux fs/pnode.c).

What is mounted on a mount of a peer group is mounted on all its peers, and on those that follow it (slaves);
what is unmounted there goes from all of them.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.mount import MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE
from sentry.fs.dentry import Mount, Path, PeerGroup, become_slave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.fs.dentry import Dentry, MountNamespace

#: Mounts in one namespace (fs.mount-max of Linux is 100,000).
MAX_MOUNTS = 1000


def namespace_of(mount: Mount) -> MountNamespace | None:
    return None if mount.namespace is None else mount.namespace()


def below(namespace: MountNamespace, mount: Mount) -> list[Mount]:
    """`mount` and all that stands on it, parents first."""
    return namespace.tree(mount)


def is_within(dentry: Dentry | None, top: Dentry) -> bool:
    """Whether `dentry` is `top`, or below it in its file system."""
    while dentry is not None:
        if dentry is top:
            return True
        dentry = dentry.parent
    return False


class Tree:
    """A mount and what is to stand on it, not attached anywhere: (mount, index of its parent, mountpoint)."""

    __slots__ = ("entries",)

    def __init__(self, root: Mount) -> None:
        self.entries: list[tuple[Mount, int, Dentry | None]] = [(root, -1, None)]

    @property
    def root(self) -> Mount:
        return self.entries[0][0]

    def twin(self, slave: bool, shared: bool) -> Tree:
        """A copy for a receiver: a peer of ours, or a slave that may share with its own peers."""
        new = Tree(self._copy(self.root, slave, shared))
        for mount, parent, point in self.entries[1:]:
            new.entries.append((self._copy(mount, slave, shared), parent, point))
        return new

    @staticmethod
    def _copy(mount: Mount, slave: bool, shared: bool) -> Mount:
        new = mount.twin()
        if slave:
            become_slave(new)
            if shared:
                share(new)
        return new

    def attach(self, namespace: MountNamespace, where: Path) -> None:
        namespace.attach(self.root, where)
        for mount, parent, point in self.entries[1:]:
            assert point is not None
            namespace.attach(mount, Path(self.entries[parent][0], point))


def copy_tree(source: Path, recursive: bool) -> Tree:
    """What a bind mount of `source` shows; SysError(EINVAL) for one that may not be bound."""
    mount = source.mount
    if mount.unbindable:
        raise SysError(errno.EINVAL)
    namespace = namespace_of(mount)
    Mount.check_room(1 if namespace is None else len(namespace.mounts) + 1)
    root = mount.twin(source.dentry)
    root.locked = False
    tree = Tree(root)
    if namespace is None:
        return tree
    index = {id(mount): 0}
    for child in below(namespace, mount)[1:]:
        parent = index.get(id(child.parent))
        if parent is None or child.unbindable:
            continue
        if child.parent is mount and not is_within(child.mountpoint, source.dentry):
            continue
        if not recursive:
            if child.locked:
                raise SysError(errno.EINVAL)
            continue
        index[id(child)] = len(tree.entries)
        tree.entries.append((child.twin(), parent, child.mountpoint))
    return tree


def take_tree(namespace: MountNamespace, mount: Mount) -> Tree:
    """Detach `mount` with all that stands on it, to be attached elsewhere."""
    tree = Tree(mount)
    index = {id(mount): 0}
    for child in below(namespace, mount)[1:]:
        index[id(child)] = len(tree.entries)
        tree.entries.append((child, index[id(child.parent)], child.mountpoint))
    for one, _, _ in reversed(tree.entries):
        namespace.detach(one)
    return tree


def receivers(mount: Mount) -> Iterator[tuple[Mount, bool]]:
    """(mount, whether as a slave) of all that hear of a mount on `mount`."""
    seen = {id(mount)}
    groups = [(mount.group, False)]
    while groups:
        group, slave = groups.pop()
        if group is None:
            continue
        for peer in list(group.peers):
            if id(peer) not in seen:
                seen.add(id(peer))
                yield peer, slave
        for follower in list(group.slaves):
            if id(follower) not in seen:
                seen.add(id(follower))
                yield follower, True
                groups.append((follower.group, True))


def targets_of(
    namespace: MountNamespace, count: int, where: Path, moved: bool = False
) -> list[tuple[Mount, MountNamespace, bool]]:
    """(mount, its namespace, whether as a slave) of all that share with the mount at `where`, each of which
    gets copies of the `count` mounts that come there; SysError(ENOSPC).  `moved`: from within `namespace`."""
    targets = []
    more = {namespace: 0 if moved else count}
    for mount, slave in receivers(where.mount):
        space = namespace_of(mount)
        if space is not None and is_within(where.dentry, mount.root):
            targets.append((mount, space, slave))
            more[space] = more.get(space, 0) + count
    if any(len(space.mounts) + added > MAX_MOUNTS for space, added in more.items()):
        raise SysError(errno.ENOSPC)
    Mount.check_room(len(targets) * count)
    return targets


def graft(namespace: MountNamespace, tree: Tree, where: Path) -> None:
    """Attach `tree` at `where` and on all that share with the mount there; SysError(ENOSPC)."""
    targets = targets_of(namespace, len(tree.entries), where)
    if where.mount.group is not None:
        for mount, _, _ in tree.entries:
            share(mount)
    for mount, space, slave in targets:
        twin = tree.twin(slave, mount.group is not None)
        if space.user_ns is not namespace.user_ns:
            for one, _, _ in twin.entries:
                one.kept |= one.flags
                one.locked = one is not twin.root
        twin.attach(space, space.cross(Path(mount, where.dentry)))
    tree.attach(namespace, where)


def prune(namespace: MountNamespace, mount: Mount) -> None:
    """Detach `mount` with all that stands on it, and its copies where its parent shares."""
    parent, point = mount.parent, mount.mountpoint
    assert parent is not None and point is not None
    copies = []
    for other, _ in receivers(parent):
        space = namespace_of(other)
        if space is not None:
            copy = space.mounts.get((id(other), id(point)))
            if copy is not None and copy.root is mount.root:
                copies.append((space, copy))
    _detach_all(namespace, mount)
    for space, copy in copies:
        if not space.children_of(copy):
            _detach_all(space, copy)


def _detach_all(namespace: MountNamespace, mount: Mount) -> None:
    for one in reversed(below(namespace, mount)):
        set_type(one, MS_PRIVATE)
        namespace.detach(one)


def share(mount: Mount) -> None:
    """Begin a peer group, unless it is in one."""
    if mount.group is None:
        mount.group = PeerGroup()
        mount.group.peers.add(mount)


def set_type(mount: Mount, kind: int) -> None:
    """MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE (change_mnt_propagation())."""
    mount.unbindable = kind == MS_UNBINDABLE
    if kind == MS_SHARED:
        share(mount)
        return
    become_slave(mount)
    if kind != MS_SLAVE and mount.master is not None:
        mount.master.slaves.discard(mount)
        mount.master = None


def fields(mount: Mount) -> bytes:
    """The optional fields of mountinfo."""
    text = b""
    if mount.group is not None:
        text += b" shared:%d" % mount.group.id
    if mount.master is not None:
        text += b" master:%d" % mount.master.id
    return text + (b" unbindable" if mount.unbindable else b"")
