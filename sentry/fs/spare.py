"""Spare files: files that were closed, kept to be opened again at the same place without Python.

The last `put` of a File hands it to `keep`.  From then on the engine may open and close it
(csrc/engine/fast_open.c): SPARE_OPEN is a file at descriptors that Python has not seen yet.  When
a table meets such a descriptor it calls `adopt`, and the File is an ordinary one again.  The engine may
map it, too (fast_mm.c), and then it can't be opened again before all mappings are gone: SPARE_MAPPED is one
that is mapped and not open.  `refs` of a spare File is 0, but for what Python does at the moment, and the
descriptors of an open one.  While all files of a place are in use the engine makes further ones, and `_meet`
their Files: whatever looks at spares calls it first.

Whatever takes the right away to open the very same description once more calls a `forget`: the name
goes or means something else, the data moves, flock(2) locks appear (whose end a close has to see), the
mount goes.  What is open then stays open, and is Python's to close.
"""

from __future__ import annotations

from sentry._engine import ffi, lib
from sentry.abi.fcntl import O_ACCMODE, O_PATH
from sentry.fs.inode import CACHE_EXACT
from sentry.mm.vma import Objects, end_loan, lend_number, note_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.dentry import Dentry, Mount
    from sentry.fs.file import File
    from sentry.fs.inode import Inode

IDLE: int = lib.SPARE_IDLE
OPEN: int = lib.SPARE_OPEN
LAST: int = lib.SPARE_LAST
MAPPED: int = lib.SPARE_MAPPED
_KINDS = (lib.VFILE_REGULAR, lib.VFILE_TMPFS)
#: What can be opened again in any access mode: there is nothing behind it.
_DEVICES = (lib.VFILE_NULL, lib.VFILE_ZERO, lib.VFILE_RANDOM)
_HASHED: int = lib.DNODE_HASHED
NULL = ffi.NULL
#: How many of one place: as many opens of it at the same time need no Python.
MAX_ALIKE = 16
#: How many are kept when fast paths are on.
MAX_SPARES = 512
#: 0: none are, as while nobody would open them.
limit = 0
#: struct vfile * → its File, the one closed longest ago first; those that are open, too.
_spares: dict[Any, File] = {}


class Lent:
    """What lent.py does: make a spare of the file `c`; take files back, with their names or without."""

    adopt: Callable[[Any], None]
    forget: Callable[[Callable[[Any, Mount], bool] | None], None]


class Directories:
    """What dirfile.py does: make the File of a directory that is open; of all in a mount."""

    meet: Callable[[Any, Dentry | None], File]
    forget_mount: Callable[[Mount], None]


def enable(on: bool) -> None:
    global limit
    limit = MAX_SPARES if on else 0
    if not on:
        forget_all()


def _meet() -> None:
    """Make the Files of what the engine has made since the last time."""
    while c := lib.vfile_take_made():
        model, c.model = c.model, NULL
        file = _spares[model].again(ffi.gc(c, lib.vfile_free))
        _spares[file.c] = file
        note_number(file)


Objects.meet = _meet


def keep(file: File) -> bool:
    """Take `file`, which nobody refers to any more, if the engine may open it again."""
    _meet()
    c = file.c
    path = file.path
    if path is None or c.holds or c.flags & O_PATH or file.inode.fsflags:
        return False
    if c.kind not in _DEVICES and (c.kind not in _KINDS or c.flags & O_ACCMODE):
        return False
    inode, dentry = file.inode, path.dentry
    if dentry.inode is not inode or not dentry.c or not dentry.c.flags & _HASHED:
        return False
    if inode.caching != CACHE_EXACT or inode.c.guarded or file.owner is not None:
        return False
    if not inode.may_reopen(file):
        return False
    if lib.vfile_count_spares(dentry.c, MAX_ALIKE) >= MAX_ALIKE:
        return False
    while len(_spares) >= limit:
        oldest = next((other for other in _spares if other.spare == IDLE), None)
        if oldest is None:
            return False
        _end(oldest)
    _spares[c] = file
    lib.vfile_keep(c, path.mount.c, dentry.c)
    lend_number(file)
    return True


def adopt(c: Any) -> File:
    """The File of a descriptor that the engine made (and which has a reference by that)."""
    if c.kind == lib.VFILE_DIRECTORY:
        return Directories.meet(c, None)
    _meet()
    if c not in _spares:
        Lent.adopt(c)
    file = _spares.pop(c)
    lib.vfile_unkeep(c)
    c.spare = 0
    if end_loan(file):
        c.refs += 1
    return file


def give(file: File, state: int) -> None:
    """`file` was lent (lent.py) and is a spare from now on: `state`, where LAST is open and not kept."""
    c, path = file.c, file.path
    _spares[c] = file
    if state != LAST and path is not None:
        lib.vfile_keep(c, path.mount.c, path.dentry.c)
    c.spare = state


def _end(c: Any) -> None:
    """Give up the spare `c`, now or when it is closed."""
    lib.vfile_unkeep(c)
    if c.spare not in (IDLE, MAPPED):
        c.spare = LAST
        return
    c.spare = 0
    file = _spares.pop(c)
    if end_loan(file):
        c.refs += 1
    else:
        file.release()


def forget_dentry(dentry: Dentry) -> None:
    """The name of `dentry` goes."""
    _meet()
    while dentry.c and (c := dentry.c.spares):
        if c.kind == lib.VFILE_DIRECTORY:
            Directories.meet(c, dentry)
        else:
            _end(c)


def forget_inode(inode: Inode) -> None:
    _meet()
    for c, file in list(_spares.items()):
        if file.inode is inode:
            _end(c)


def forget_mount(mount: Mount) -> None:
    _meet()
    for c, file in list(_spares.items()):
        if file.path is not None and file.path.mount is mount:
            _end(c)
    Lent.forget(lambda _, other: other is mount)
    Directories.forget_mount(mount)


def forget_all() -> None:
    _meet()
    Lent.forget(None)
    for c in list(_spares):
        _end(c)
