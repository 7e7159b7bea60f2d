"""Files that were opened before anybody asked: descriptors of a listed directory's files, lent to the engine.

Who reads one file after the other below a directory (grep -r, git add) gets the next ones' descriptors in
the same message (sentry/fs/gofer/ahead.py).  They hang as spares (spare.py) on names that only the engine
knows (csrc/engine/learnt.c), so open, read and close of such a file need no Python.  Python makes the File
when it meets one: at a descriptor (`adopt`), when it looks up the name (`claim`), or when the name goes.

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

    from sentry.fs.dentry import Mount
    from sentry.fs.file import File
    from sentry.fs.inode import Inode

LIMIT = 384
_new, _learnt, _unkeep = ffi.new, lib.dnode_learnt, lib.vfile_unkeep
NULL = ffi.NULL


class Hooks:
    """What higher modules do for this one."""

    #: dcache.py: the dentry of a dnode, made if need be; the other one is any of the same file system.
    dentry_of: Callable[[Any, Dentry], Dentry]
    #: dirfile.py: the File of a directory that the engine has opened at the dentry.
    meet_directory: Callable[[Any, Dentry | None], File]
    #: gofer/file.py: the File of a struct vfile, which lives as long as the last argument.
    make_file: Callable[[Any, Inode, Path, Any], File]


class Batch:
    """Files of one directory that came together."""

    __slots__ = ("count", "files", "mount")

    def __init__(self, files: Any, mount: Mount) -> None:
        #: struct vfile[count]
        self.files = files
        self.count = 0
        self.mount = mount

    def live(self) -> list[Any]:
        """The files that are still lent, as struct vfile *."""
        files = self.files
        return [files + i for i in range(self.count) if files[i].batch]

    def tally(self) -> tuple[int, int]:
        """How many were used at some time, and of how many."""
        return lib.lent_used(self.files, self.count), self.count


#: By vfile.batch, the oldest first.
_batches: dict[int, Batch] = {}
_next = 1


def free(directory: Dentry, name: bytes) -> bool:
    """Whether a file could be lent at `name`: the engine alone knows it, and has none yet."""
    d = _learnt(directory.c, name, len(name))
    return bool(spare.limit and d and not d.spares)


def lend(directory: Any, mount: Mount, listing: bytes, at: Sequence[int], fds: Sequence[int]) -> Batch | None:
    """Lend `fds`, open for reading, of files in the directory at the struct dnode `directory`.

    fds[i] (unless it is negative) is of the entry at[i] of `listing`, an Rlistdirs' data.
    """
    global _next
    most = _make_room(len(fds)) if spare.limit else 0
    batch = Batch(_new("struct vfile[]", max(1, len(fds))), mount)
    batch.count = lib.lent_add(
        batch.files, _next, directory if most else NULL, mount.c, listing, len(listing), at, fds, len(fds)
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


def _give(c: Any, batch: Batch, dentry: Dentry, inode: Inode) -> None:
    """The file `c`, of `inode` at `dentry`, is one of Python's spares from now on."""
    state = spare.LAST if dentry.deleted else c.spare
    _unkeep(c)
    c.batch = 0
    spare.give(Hooks.make_file(c, inode, Path(batch.mount, dentry), batch.files), state)


def _name(c: Any) -> bytes:
    name: bytes = ffi.buffer(c.name, c.name_size)[:]
    return name


def _orphan(directory: Dentry, d: Any) -> Dentry:
    """The learnt name `d` in the directory goes: a dentry for those who have the file open."""
    assert directory.inode is not None
    name = _name(d)
    dentry = Dentry(directory, name, directory.inode.learnt(name, d.vnode))
    dentry.deleted = True
    return dentry


def _take(c: Any, dentry: Dentry) -> None:
    """The File of what is open, or lent, at a learnt name: `dentry` is its dentry."""
    if c.kind == lib.VFILE_DIRECTORY:
        Hooks.meet_directory(c, dentry)
    else:
        assert dentry.inode is not None
        _give(c, _batches[c.batch], dentry, dentry.inode)


def forget(which: Callable[[Any, Mount], bool] | None = None) -> None:
    """Close what nobody has open.  `which`: of the batches in this directory (a struct dnode *) and mount,
    whose names go; what is open stays so."""
    for number, batch in list(_batches.items()):
        files = batch.live() if which is not None else []
        if which is not None and not (files and which(files[0].dnode.parent, batch.mount)):
            continue
        if _end(number, batch) and which is not None:
            directory = Hooks.dentry_of(files[0].dnode.parent, batch.mount.root)
            for c in batch.live():
                _take(c, _orphan(directory, c.dnode))


def claim(directory: Dentry, dentry: Dentry) -> None:
    """`dentry` takes the place of the learnt name that it has: it gets what is lent or open there, too."""
    d = _learnt(directory.c, dentry.name, len(dentry.name))
    while d and d.spares:
        inode = dentry.inode
        same = inode is not None and (inode.ino, inode.mode) == (d.vnode.ino, d.vnode.mode)
        _take(d.spares, dentry if same else _orphan(directory, d))


def adopt(c: Any) -> None:
    """Python meets the descriptor of `c`, which is not among the spares: it is one of those, then."""
    Hooks.dentry_of(c.dnode, _batches[c.batch].mount.root)


spare.Lent.adopt, spare.Lent.forget = adopt, forget
