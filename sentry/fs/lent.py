"""Files that were opened before anybody asked: descriptors of a listed directory's files, lent to the engine.

Who reads one file after the other below a directory (grep -r, git add) gets the next ones' descriptors in
the same message (sentry/fs/gofer/ahead.py).  They hang as spares (spare.py) on names that only the engine
knows (csrc/engine/learnt.c), so open, read and close of such a file need no Python.  Python makes the File
when it meets one: at a descriptor (`adopt`), or when it looks up the name itself (`claim`).

At most LIMIT are kept; the oldest batches, as far as nobody has them open, make room.
"""

from __future__ import annotations

from sentry._engine import ffi, lib
from sentry.fs import spare
from sentry.fs.dentry import Dentry, Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sentry.fs.file import File
    from sentry.fs.inode import Inode

LIMIT = 384
_new, _learnt, _unkeep = ffi.new, lib.dnode_learnt, lib.vfile_unkeep
NULL = ffi.NULL


class Hooks:
    """What higher modules do for this one."""

    #: dcache.py: put an inode at a name.
    insert: Callable[[Dentry, bytes, Inode], None]
    #: gofer/file.py: the File of a struct vfile, which lives as long as the last argument.
    make_file: Callable[[Any, Inode, Path, Any], File]


class Batch:
    """Files of one directory that came together."""

    __slots__ = ("count", "files", "find", "path")

    def __init__(self, files: Any, path: Path, find: Callable[[bytes], Inode]) -> None:
        #: struct vfile[count]
        self.files = files
        self.count = 0
        self.path = path
        #: Gives the inode for a name, without asking.
        self.find = find

    def tally(self) -> tuple[int, int]:
        """How many were used at some time, and of how many."""
        return lib.lent_used(self.files, self.count), self.count


#: By vfile.batch, the oldest first.
_batches: dict[int, Batch] = {}
_next = 1
#: struct vfile * of files that are open, and whose name has gone: batch, name, and its attributes.
_orphans: dict[Any, tuple[Batch, bytes, Any]] = {}


def free(directory: Dentry, name: bytes) -> bool:
    """Whether a file could be lent at `name`: the engine alone knows it, and has none yet."""
    d = _learnt(directory.c, name, len(name))
    return bool(spare.limit and d and not d.spares)


def lend(
    path: Path, listing: bytes, at: Sequence[int], fds: Sequence[int], find: Callable[[bytes], Inode]
) -> Batch | None:
    """Lend `fds`, open for reading, of files in the directory at `path`.

    fds[i] (unless it is negative) is of the entry at[i] of `listing`, an Rlistdirs' data.
    """
    global _next
    most = _make_room(len(fds)) if spare.limit else 0
    batch = Batch(_new("struct vfile[]", max(1, len(fds))), path, find)
    directory = path.dentry.c if most else NULL
    batch.count = lib.lent_add(
        batch.files, _next, directory, path.mount.c, listing, len(listing), at, fds, len(fds)
    )
    if not batch.count:
        return None
    _batches[_next] = batch
    _next = _next % 0x7FFF_FFFF + 1
    return batch


def _make_room(count: int) -> bool:
    """Whether `count` more may be lent."""
    kept = sum([batch.count for batch in _batches.values()])
    for number, batch in list(_batches.items()):
        if kept + count <= LIMIT:
            break
        kept -= batch.count
        if _end(number, batch):
            kept += batch.count
    return kept + count <= LIMIT


def _end(number: int, batch: Batch) -> bool:
    """Close what nobody has open; whether something is left."""
    if lib.lent_end(batch.files, batch.count):
        return True
    del _batches[number]
    return False


def _orphan(c: Any) -> None:
    """The name of the file `c`, which is open, goes."""
    batch = _batches[c.batch]
    name = ffi.buffer(c.dnode.name, c.dnode.name_size)[:]
    node = _new("struct vnode *", c.node[0])
    _unkeep(c)
    c.node, c.dnode, c.spare = node, NULL, spare.LAST
    _orphans[c] = batch, name, node


def forget(which: Callable[[Batch], bool] | None = None) -> None:
    """Close what nobody has open.  `which`: of these batches, whose names go; what is open stays so."""
    for number, batch in list(_batches.items()):
        if which is not None and not which(batch):
            continue
        if _end(number, batch) and which is not None:
            for i in range(batch.count):
                c = batch.files + i
                if c.batch and c.dnode:
                    _orphan(c)


def claim(directory: Dentry, dentry: Dentry) -> None:
    """`dentry` takes the place of the learnt name that it has: it gets the file lent there, too."""
    d = _learnt(directory.c, dentry.name, len(dentry.name))
    while d and d.spares:
        c = d.spares
        inode = dentry.inode
        batch = _batches[c.batch]
        if inode is None or (inode.ino, inode.mode) != (c.node.ino, c.node.mode):
            _orphan(c)
            continue
        state = c.spare
        _unkeep(c)
        c.batch = 0
        spare.give(Hooks.make_file(c, inode, Path(batch.path.mount, dentry), batch.files), state)


def adopt(c: Any) -> None:
    """Python meets the descriptor of `c`, which is not among the spares: it is one of those, then."""
    if c not in _orphans:
        batch = _batches[c.batch]
        name = ffi.buffer(c.dnode.name, c.dnode.name_size)[:]
        Hooks.insert(batch.path.dentry, name, batch.find(name))
    if c in _orphans:
        batch, name, _ = _orphans.pop(c)
        inode = batch.find(name)
        dentry = Dentry(batch.path.dentry, name, inode)
        dentry.deleted = True
        c.batch = 0
        spare.give(Hooks.make_file(c, inode, Path(batch.path.mount, dentry), batch.files), spare.LAST)


spare.Lent.adopt, spare.Lent.forget = adopt, forget
