"""Walks of several names in one message.

A path walk looks up one name after the other (sentry/fs/walk.py), and each that nobody knows would be a
round trip.  In a fixed tree the whole rest of a path is asked for at its first unknown name; what comes back
waits at the directories for the lookups that follow at once, each of which takes its own.
"""

from __future__ import annotations

import errno

from gofer.messages import MAX_WALK
from sentry.abi.stat import S_IFDIR, S_IFMT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.gofer.inode import GoferInode

#: A directory is listed when that many names have been looked up there, if it isn't larger than that
#: (st_size), and if what there is to tell fits into so many bytes.
WALKS, EARLY_SIZE, EARLY_BYTES = 2, 16384, 32768


async def foresee(inode: GoferInode, names: list[bytes]) -> None:
    """`names` will be looked up, the first one in `inode` and each of the others in the one before it."""
    fs = inode.fs
    if not fs.fixed or inode.mode & S_IFMT != S_IFDIR or inode.ino in fs.listed or inode.ino in fs.foresight:
        return
    if inode.walks + 1 == WALKS and inode.size <= EARLY_SIZE:
        return  # it will be listed
    above, path = await inode.route()
    names = names[: MAX_WALK - len(path)]
    if len(names) < 2:
        return
    fid, attrs, error = await fs.client.walkgetattr(above, [*path, *names])
    reached = attrs[len(path) :]
    for i, (name, attr) in enumerate(zip(names, reached, strict=False)):
        child = fs.adopt(fid if fid is not None and i == len(names) - 1 else -1, attr)
        if child.fid < 0 and child.place is None:
            child.place = inode, name
        inode.walks += 1
        inode.walked = name, child
        inode = child
    stopped = error == errno.ENOENT and len(attrs) >= len(path) and len(reached) < len(names)
    if stopped and inode.mode & S_IFMT == S_IFDIR:
        inode.walks += 1
        inode.walked = names[len(reached)], None
