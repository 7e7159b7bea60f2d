"""The dentry cache: which names stand below a dentry, bounded, without duplicates.

Invariants: a dentry that is not `deleted` and whose parent caches its names is the only one of its
(parent, name); a negative one (inode None) says that the name doesn't exist.  Whoever changes a
directory calls `added`, `removed` or `moved` after the file system has done it and before the
next await, so a lookup that slept meanwhile sees `version` changed and asks again.

The cache holds at most LIMIT dentries that nobody uses.  Unused means: no open file, working
directory, mount or child refers to it, which the reference count of the Python object tells.

What stands in `children` stands in the engine's table of names as well: `_hash` and `_unhash` go with every
change of it.
"""

from __future__ import annotations

import errno
from sys import getrefcount

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.fs import lent, spare
from sentry.fs.dentry import Dentry
from sentry.fs.inode import CACHE_EXACT, CACHE_NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.inode import Inode

_hash, _unhash, _busy, _unlist = lib.dnode_hash, lib.dnode_unhash, lib.dnode_busy, lib.dnode_unlist

LIMIT = 8192
BATCH = 512

#: Cached dentries, those looked up longest ago first.
_cached: dict[Dentry, None] = {}
#: How many make the next pruning worth while (more than LIMIT while many are in use).
_prune_at = LIMIT


def _pop(batch: list[Dentry]) -> tuple[Dentry, int]:
    """The last dentry of `batch` and how many references it has, this one included."""
    dentry = batch.pop()
    return dentry, getrefcount(dentry)


def _calibrate() -> int:
    """What `_pop` counts for a dentry that stands in its parent's dict and in `_cached` only."""
    parent = Dentry(None, b"", None)
    parent.children[b"x"] = Dentry(parent, b"x", None)
    cached = {parent.children[b"x"]: None}
    return _pop(list(cached))[1]


_UNUSED = _calibrate()


async def lookup(parent: Dentry, name: bytes) -> Dentry:
    """The dentry `name` below `parent` (a directory), negative when there is no such file.

    SysError as `Inode.lookup`, save ENOENT, and ENAMETOOLONG.
    """
    directory = parent.inode
    if directory is None:
        raise SysError(errno.ENOENT)
    if len(name) > 255:
        raise SysError(errno.ENAMETOOLONG)
    while True:
        child = parent.children.get(name)
        if child is not None and (directory.caching == CACHE_EXACT or child.mounted):
            return child
        version = parent.version
        inode: Inode | None
        try:
            inode = await directory.lookup(name)
        except SysError as error:
            if error.errno != errno.ENOENT:
                raise
            inode = None
        if parent.version != version:
            continue
        child = parent.children.get(name)
        if child is not None and (child.inode is inode or directory.caching == CACHE_EXACT):
            return child
        child = Dentry(parent, name, inode)
        if directory.caching != CACHE_NEVER and not parent.deleted:
            _insert(child)
        return child


def pin(dentry: Dentry) -> None:
    """`dentry` will be mounted on: walks have to find this very one, whatever the directory caches."""
    parent = dentry.parent
    while parent is not None and not dentry.deleted and parent.children.get(dentry.name) is not dentry:
        _insert(dentry)
        dentry, parent = parent, parent.parent


def _insert(dentry: Dentry) -> None:
    parent = dentry.parent
    assert parent is not None
    old = parent.children.get(dentry.name)
    if old is not None:
        _cached.pop(old, None)
        _unhash(old.c)
    if parent.c.learnt:
        lent.claim(parent, dentry)
    parent.children[dentry.name] = dentry
    _hash(dentry.c)
    _cached[dentry] = None
    if len(_cached) > _prune_at:
        _prune()


def _prune() -> None:
    """Forget unused leaves among the oldest dentries; the others go to the end of the queue."""
    global _prune_at
    batch: list[Dentry] = []
    for _, dentry in zip(range(BATCH), _cached, strict=False):
        batch.append(dentry)
    del dentry
    batch.reverse()
    while batch:
        dentry, references = _pop(batch)
        del _cached[dentry]
        parent = dentry.parent
        if references > _UNUSED or dentry.mounted or dentry.children or _busy(dentry.c):
            _cached[dentry] = None
        elif parent is not None and parent.children.get(dentry.name) is dentry:
            del parent.children[dentry.name]
            _unhash(dentry.c)
    _prune_at = max(LIMIT, len(_cached) + BATCH // 2)


def added(parent: Dentry, name: bytes, inode: Inode) -> Dentry:
    """`name` was created: its dentry, positive from now on."""
    parent.version += 1
    _unlist(parent.c)
    child = parent.children.get(name)
    if child is not None and child.inode is None:
        child.become(inode)
        return child
    child = Dentry(parent, name, inode)
    if parent.inode is not None and parent.inode.caching != CACHE_NEVER:
        _insert(child)
    return child


def removed(dentry: Dentry) -> None:
    """The file's name is gone; who holds the dentry keeps the file."""
    parent = dentry.parent
    dentry.deleted = True
    spare.forget_dentry(dentry)
    if dentry.c.learnt:
        lent.forget(lambda directory, _: directory == dentry.c)
        lib.dnode_unlearn_all(dentry.c)
    for child in dentry.children.values():
        _cached.pop(child, None)
        _unhash(child.c)
    dentry.children.clear()
    dentry.version += 1
    _cached.pop(dentry, None)
    if parent is not None:
        parent.version += 1
        _unlist(parent.c)
        if parent.children.get(dentry.name) is dentry:
            del parent.children[dentry.name]
            _unhash(dentry.c)
            if parent.inode is not None and parent.inode.caching == CACHE_EXACT:
                _insert(Dentry(parent, dentry.name, None))


def moved(dentry: Dentry, parent: Dentry, name: bytes) -> None:
    """`dentry` was renamed to `name` in `parent`; what had that name was taken away by `removed`."""
    old = dentry.parent
    assert old is not None
    old.version += 1
    parent.version += 1
    _unlist(old.c)
    _unlist(parent.c)
    if old.children.get(dentry.name) is dentry:
        del old.children[dentry.name]
        _unhash(dentry.c)
        _cached.pop(dentry, None)
        if old.inode is not None and old.inode.caching == CACHE_EXACT:
            _insert(Dentry(old, dentry.name, None))
    dentry.parent, dentry.name = parent, name
    lib.dnode_move(dentry.c, parent.c, name, len(name))
    _insert(dentry)


def exchanged(one: Dentry, two: Dentry) -> None:
    """RENAME_EXCHANGE swapped the two."""
    assert one.parent is not None and two.parent is not None
    one.parent.version += 1
    two.parent.version += 1
    _unlist(one.parent.c)
    _unlist(two.parent.c)
    one.parent, two.parent = two.parent, one.parent
    one.name, two.name = two.name, one.name
    for dentry in (one, two):
        parent = dentry.parent
        assert parent is not None
        lib.dnode_move(dentry.c, parent.c, dentry.name, len(dentry.name))
    for dentry in (one, two):
        parent = dentry.parent
        assert parent is not None
        parent.children[dentry.name] = dentry
        _hash(dentry.c)
        _cached[dentry] = None


def forget(parent: Dentry) -> None:
    """Drop what is cached below `parent` and unused (its names are about to mean something else)."""
    for name, child in list(parent.children.items()):
        if child.inode is None:
            del parent.children[name]
            _unhash(child.c)
            _cached.pop(child, None)


def note_link(dentry: Dentry, target: bytes) -> None:
    """The symbolic link at `dentry` says `target`: tell the engine if that never changes."""
    inode = dentry.inode
    if inode is not None and inode.fixed_link:
        lib.dnode_set_link(dentry.c, target, len(target))


def dentry_of(c: Any, other: Dentry) -> Dentry:
    """The dentry of the struct dnode `c`, which stands in the engine's table; a learnt one gets it now.

    `other` is any dentry of the same file system.
    """
    names = []
    while c.parent:
        names.append(ffi.buffer(c.name, c.name_size)[:])
        c = c.parent
    dentry = other
    while dentry.parent is not None:
        dentry = dentry.parent
    for name in reversed(names):
        child = dentry.children.get(name)
        if child is None:
            inode, d = dentry.inode, lib.dnode_learnt(dentry.c, name, len(name))
            assert inode is not None
            child = Dentry(dentry, name, inode.learnt(name, d.vnode))
            _insert(child)
        dentry = child
    return dentry


lent.Hooks.dentry_of = dentry_of


def shrink() -> None:
    """Forget every dentry that nobody uses (something that each of them holds has run out)."""
    spare.forget_all()
    for _ in range(len(_cached) // BATCH + 1):
        if _cached:
            _prune()
