"""Walks of several names in one message.

A path walk looks up one name after the other (sentry/fs/walk.py), and each that nobody knows would be a
round trip.  In a fixed tree the whole rest of a path is asked for at its first unknown name; what comes back
waits at the directories for the lookups that follow at once, each of which takes its own.  Where a symbolic
link points to comes along, and the descriptor of a file that is to be opened for reading.
"""

from __future__ import annotations

import errno
import os

from gofer.messages import MAX_WALK
from sentry.abi.stat import S_IFDIR, S_IFMT
from sentry.fs.gofer.file import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.gofer.inode import GoferInode

#: A directory is listed when that many names have been looked up there, if it isn't larger than that
#: (st_size), and if what there is to tell fits into so many bytes.
WALKS, EARLY_SIZE, EARLY_BYTES = 2, 16384, 32768


async def foresee(inode: GoferInode, names: list[bytes], opening: bool) -> None:
    """`names` will be looked up, the first one in `inode` and each of the others in the one before it, and
    with `opening`, what the last one is will be opened for reading."""
    fs = inode.fs
    if not fs.fixed or inode.mode & S_IFMT != S_IFDIR or inode.ino in fs.listed or inode.ino in fs.foresight:
        return
    if inode.walks + 1 == WALKS and inode.size <= EARLY_SIZE:
        return  # it will be listed
    above, path = await inode.route()
    names = names[: MAX_WALK - len(path)]
    if len(names) < (1 if opening else 2):
        return
    fid, attrs, error, target, fd = await fs.client.look(above, [*path, *names], opening)
    reached = attrs[len(path) :]
    for i, (name, attr) in enumerate(zip(names, reached, strict=False)):
        child = fs.adopt(fid if fid is not None and i == len(names) - 1 else -1, attr)
        if child.fid < 0 and child.place is None:
            child.place = inode, name
        inode.walks += 1
        inode.walked = name, child
        inode = child
    if target and len(attrs) > len(path) and inode.is_symlink:
        inode.target = target
    if fd >= 0:
        inode.handles.setdefault(os.O_RDONLY, Handle(fs.client, fd))
        fs.keep_handle(inode, os.O_RDONLY)
    stopped = error == errno.ENOENT and len(attrs) >= len(path) and len(reached) < len(names)
    if stopped and inode.mode & S_IFMT == S_IFDIR:
        inode.walks += 1
        inode.walked = names[len(reached)], None
