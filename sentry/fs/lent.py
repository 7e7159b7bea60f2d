"""Files that were opened before anybody asked: descriptors of a listed directory's files, lent to the engine.

Who reads one file after the other below a directory (grep -r, git add) gets the next ones' descriptors in
the same message (sentry/fs/gofer/ahead.py).  They hang as spares (spare.py) on names that only the engine
knows (csrc/engine/learnt.c), so open, read and close of such a file need no Python.  Python makes the File
when it meets one: at a descriptor (`adopt`), or when it looks up the name itself (`claim`).

At most LIMIT are kept; the oldest that nobody has open make room.
"""

from __future__ import annotations

import os

from sentry._engine import ffi, lib
from sentry.fs import spare
from sentry.fs.dentry import Dentry, Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.file import File
    from sentry.fs.inode import Inode

LIMIT = 192
O_LARGEFILE = 0o100000
_new, _learnt, _keep, _unkeep = ffi.new, lib.dnode_learnt, lib.vfile_keep, lib.vfile_unkeep
_VFILE = ffi.typeof("struct vfile *")
_REGULAR: int = lib.VFILE_REGULAR
#: struct vfile * → the loan, the oldest first.
_loans: dict[Any, Loan] = {}


class Hooks:
    """What higher modules do for this one."""

    #: dcache.py: put an inode at a name.
    insert: Callable[[Dentry, bytes, Inode], None]
    #: gofer/file.py: the File of a struct vfile.
    make_file: Callable[[Any, Inode, Path, Loan], File]


class Loan:
    """What a lent file is: `fd` is closed with it."""

    __slots__ = ("c", "fd", "find", "name", "node", "path")

    def __init__(self, c: Any, fd: int, path: Path, name: bytes, find: Callable[[bytes], Inode]) -> None:
        self.c = c
        self.fd = fd
        #: The directory, and which name there.
        self.path = path
        self.name = name
        #: Gives the inode for the name.
        self.find = find
        #: A struct vnode of its own, when the name has gone.
        self.node: Any = None

    def take_fd(self) -> int:
        """The descriptor, which is the caller's now."""
        fd, self.fd = self.fd, -1
        return fd

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def free(directory: Dentry, name: bytes) -> bool:
    """Whether a file could be lent at `name`: the engine alone knows it, and has none yet."""
    d = _learnt(directory.c, name, len(name))
    return bool(spare.limit and d and not d.spares)


def lend(path: Path, name: bytes, ino: int, fd: int, find: Callable[[bytes], Inode]) -> Any:
    """`fd`, open for reading, is of the file `name` (number `ino`) in the directory at `path`: its struct
    vfile, or None."""
    directory = path.dentry
    d = _learnt(directory.c, name, len(name))
    if not d or d.spares or d.vnode.ino != ino or not spare.limit or not _make_room():
        os.close(fd)
        return None
    c = _new(_VFILE)
    c.node = d.vnode
    c.kind = _REGULAR
    c.host_fd = fd
    _loans[c] = Loan(c, fd, path, name, find)
    _keep(c, path.mount.c, d)
    return c


def _make_room() -> bool:
    if len(_loans) < LIMIT:
        return True
    for c in _loans:
        if c.spare == spare.IDLE:
            _end(c)
            return True
    return False


def _end(c: Any) -> None:
    """Take back the file `c`: now, or, when it is open, when it is met."""
    _unkeep(c)
    if c.spare == spare.IDLE:
        del _loans[c]
        return
    loan = _loans[c]
    loan.node = ffi.new("struct vnode *", c.node[0])
    c.node = loan.node
    c.spare = spare.LAST
    c.dnode = ffi.NULL


def claim(directory: Dentry, dentry: Dentry) -> None:
    """`dentry` takes the place of the learnt name that it has: it gets the files lent there, too."""
    d = _learnt(directory.c, dentry.name, len(dentry.name))
    while d and d.spares:
        c = d.spares
        inode = dentry.inode
        if inode is None or (inode.ino, inode.mode) != (c.node.ino, c.node.mode):
            _end(c)
            continue
        loan = _loans.pop(c)
        state, mount = c.spare, loan.path.mount
        _unkeep(c)
        spare.give(Hooks.make_file(loan.c, inode, Path(mount, dentry), loan), state)


def adopt(c: Any) -> None:
    """Python meets the descriptor of `c`, which is not among the spares: it is one of those, then."""
    loan = _loans[c]
    if c.dnode:
        Hooks.insert(loan.path.dentry, loan.name, loan.find(loan.name))
    if c in _loans:
        # The name means something else by now.
        del _loans[c]
        inode = loan.find(loan.name)
        dentry = Dentry(loan.path.dentry, loan.name, inode)
        dentry.deleted = True
        spare.give(Hooks.make_file(loan.c, inode, Path(loan.path.mount, dentry), loan), spare.LAST)


def forget(which: Callable[[Loan], bool]) -> None:
    for c, loan in list(_loans.items()):
        if which(loan):
            _end(c)


spare.Lent.adopt, spare.Lent.forget = adopt, forget
