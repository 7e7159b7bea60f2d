"""Telling watchers what happens to files (Linux fs/notify): the hooks, and who listens to which inode.

Whoever changes or uses a file calls a hook below, if `watching` says that anybody watches anything at all:

    if fsnotify.watching:
        fsnotify.happened(file.path, IN_MODIFY)

The engine looks at the same number, and at `watched` of the inodes, before it answers a call by itself
(csrc/engine/watched.h).  Marks are inotify's watches (inotify.py), F_NOTIFY's
(dnotify.py) and leases (leases.py); they get `mark.event`.
"""

from __future__ import annotations

from sentry._engine import lib
from sentry.abi.fcntl import O_PATH
from sentry.abi.inotify import (
    IN_ACCESS,
    IN_ATTRIB,
    IN_CLOSE_NOWRITE,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_ISDIR,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_UNMOUNT,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from sentry.fs.dentry import Dentry, Path
    from sentry.fs.file import File
    from sentry.fs.inode import Filesystem, Inode

    class Mark(Protocol):
        """One watch of one inode."""

        inode: Inode

        def event(self, mask: int, cookie: int, name: bytes, unlinked: bool) -> None:
            """`mask` happened to the inode, or to `name` in it; `unlinked`: that name is gone."""

        def closed(self, file: File, owner: int) -> None:
            """A descriptor of `file`, which is open on the inode, was closed in the table `owner`."""

        def inode_gone(self) -> None:
            """The inode has been deleted, or its file system unmounted."""


#: A name has changed: only for F_NOTIFY (dnotify.py).
FS_RENAME = 0x10000000
#: How many marks there are.
watching = 0
#: Inode → its marks in order of age.
_marks: dict[Any, dict[Any, None]] = {}
_cookie = 0
#: struct vfile * → File, of all that are open (file.py).
installed: dict[Any, File] = {}


def add(mark: Mark) -> None:
    global watching
    _marks.setdefault(mark.inode, {})[mark] = None
    mark.inode.c.watched += 1
    watching += 1
    lib.watch_count = watching


def remove(mark: Mark) -> None:
    global watching
    marks = _marks.get(mark.inode)
    if marks is None or mark not in marks:
        return
    del marks[mark]
    if not marks:
        del _marks[mark.inode]
    mark.inode.c.watched -= 1
    watching -= 1
    lib.watch_count = watching


def marks_of(inode: Inode) -> list[Any]:
    return list(_marks.get(inode, ()))


def _to(inode: Inode | None, mask: int, cookie: int = 0, name: bytes = b"", unlinked: bool = False) -> None:
    for mark in marks_of(inode) if inode is not None else ():
        mark.event(mask, cookie, name, unlinked)


def _kind(inode: Inode) -> int:
    return IN_ISDIR if inode.is_dir else 0


def at(dentry: Dentry, mask: int, unlinked: bool = False) -> None:
    """`mask` happened to the file at `dentry`: its directory hears of it, and itself (fsnotify_dentry)."""
    inode = dentry.inode
    if inode is None:
        return
    mask |= _kind(inode)
    parent = dentry.parent
    if parent is not None:
        _to(parent.inode, mask, 0, dentry.name, unlinked or dentry.deleted)
    _to(inode, mask)


def happened(path: Path | None, mask: int) -> None:
    """To an open file (fsnotify_file)."""
    if path is not None:
        at(path.dentry, mask)


#: What ends with an open file besides (leases.py).
ended: list[Callable[[File], None]] = []


def closed(file: File) -> None:
    for end in ended:
        end(file)
    if file.flags & O_PATH:
        return
    happened(file.path, IN_CLOSE_WRITE if file.writable else IN_CLOSE_NOWRITE)
    path = file.path
    if path is not None and path.dentry.deleted and path.inode.nlink == 0:
        gone(path.inode, file)


def flushed(file: File, owner: int) -> None:
    """A descriptor of `file` was closed, which may not have been the last one."""
    for mark in marks_of(file.inode):
        mark.closed(file, owner)


def changed(dentry: Dentry, changes: dict[str, int]) -> None:
    """Attributes were set (fsnotify_change)."""
    mask = 0
    if "uid" in changes or "gid" in changes or "mode" in changes:
        mask |= IN_ATTRIB
    if "size" in changes:
        mask |= IN_MODIFY
    if "atime" in changes and "mtime" in changes:
        mask |= IN_ATTRIB
    elif "atime" in changes:
        mask |= IN_ACCESS
    elif "mtime" in changes:
        mask |= IN_MODIFY
    if mask:
        at(dentry, mask)


def linked(inode: Inode) -> None:
    """The number of names of `inode` has changed."""
    _to(inode, IN_ATTRIB | _kind(inode))


def created(directory: Inode, name: bytes, inode: Inode) -> None:
    _to(directory, IN_CREATE | _kind(inode), 0, name)


def deleted(directory: Inode, name: bytes, inode: Inode) -> None:
    """unlink(2) or rmdir(2) has happened."""
    if not inode.is_dir:
        linked(inode)
    if inode.is_dir or inode.nlink == 0:
        gone(inode)
    _to(directory, IN_DELETE | _kind(inode), 0, name)


def gone(inode: Inode, closing: File | None = None) -> None:
    """The last name of `inode` is gone: as soon as nobody has it open, apart from `closing`, it is."""
    if inode not in _marks:
        return
    if any(file.inode is inode and file is not closing and file.refs for file in installed.values()):
        return
    _to(inode, IN_DELETE_SELF)
    for mark in marks_of(inode):
        mark.inode_gone()


def moved(
    old: Inode, old_name: bytes, new: Inode, new_name: bytes, inode: Inode, target: Inode | None
) -> None:
    """rename(2) of `inode`, over `target` if there was one."""
    global _cookie
    _cookie = _cookie % 0xFFFFFFFF + 1
    kind = _kind(inode)
    _to(old, IN_MOVED_FROM | kind, _cookie, old_name)
    _to(new, IN_MOVED_TO | kind, _cookie, new_name)
    if old is new:
        _to(old, FS_RENAME | kind, 0, old_name)
    if target is not None:
        linked(target)
    _to(inode, IN_MOVE_SELF)
    if target is not None and (target.is_dir or target.nlink == 0):
        gone(target)


def unmounted(fs: Filesystem) -> None:
    """Nobody can reach the file system any more."""
    for inode in [inode for inode in _marks if inode.fs is fs]:
        _to(inode, IN_UNMOUNT | _kind(inode))
        for mark in marks_of(inode):
            mark.inode_gone()
