"""File locks: POSIX record locks and OFD locks (fcntl(2)), and flock(2).

The callers are the fcntl and flock handlers and File.closed / File.flush:

    await posix_lock(inode, owner, kind, start, end, pid=tgid, wait=F_SETLKW)
    posix_test(inode, owner, kind, start, end) -> the lock in the way, or None (F_GETLK)
    posix_release(inode, owner)                                         (a close: flush)
    await flock(inode, file, kind, wait) ; flock_release(inode, file)   (a last put: release)

`kind` is F_RDLCK, F_WRLCK or F_UNLCK; a range is `start` to `end`, both included, OFFSET_MAX for
"to the end of the file" (see `lock_range` for l_whence/l_start/l_len).  The owner of a POSIX lock
is the process's descriptor table (FDTable.owner), as on Linux; the owner of an OFD lock is the File
(File.lock_owner), and its pid shows as -1.  POSIX and OFD locks conflict with one another; flock locks
live apart, and belong to the File itself.

Record locks stand in the inode's struct vnode (csrc/engine/locks.c), where the engine sets and tests them by
itself; flock locks, and the queue of those who wait for either, in `Inode.locks`, None while there are none.
"""

from __future__ import annotations

import errno

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import F_RDLCK, F_UNLCK
from sentry.fs import spare
from sentry.kernel.wait import WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.file import File
    from sentry.fs.inode import Inode

OFFSET_MAX = 0x7FFFFFFFFFFFFFFF


class FileLocks:
    """The flock locks of one inode, and who waits for a lock of either kind.  While there is one the
    engine leaves all locks of the inode to us (`guarded`)."""

    __slots__ = ("flocks", "queue")

    def __init__(self, inode: Inode) -> None:
        #: owner (File) → LOCK kind as F_RDLCK or F_WRLCK.
        self.flocks: dict[object, int] = {}
        self.queue = WaitQueue()
        inode.c.guarded = 1


#: POSIX owners asleep in posix_lock → the owner each waits for (for EDEADLK).
_waiting: dict[int, int] = {}


def lock_range(whence_base: int, start: int, length: int) -> tuple[int, int]:
    """(start, end) of a struct flock whose l_whence means the offset `whence_base`.

    SysError(EINVAL) for what begins before 0, SysError(EOVERFLOW) past the largest offset.
    """
    start += whence_base
    if start > OFFSET_MAX:
        raise SysError(errno.EOVERFLOW)
    if start < 0:
        raise SysError(errno.EINVAL)
    if length == 0:
        return start, OFFSET_MAX
    if length > 0:
        if start + length - 1 > OFFSET_MAX:
            raise SysError(errno.EOVERFLOW)
        return start, start + length - 1
    if start + length < 0:
        raise SysError(errno.EINVAL)
    return start + length, start - 1


def posix_test(inode: Inode, owner: int, kind: int, start: int, end: int) -> Any:
    """The lock (struct record_lock) that stands in the way of such a lock, None if none does (F_GETLK)."""
    return lib.locks_conflict(inode.c, _lock(owner, start, end, 0, kind)) or None


def _lock(owner: int, start: int, end: int, pid: int, kind: int) -> Any:
    return ffi.new("struct record_lock *", (owner, start, end, pid, kind))


def _would_deadlock(owner: int, blocker: int) -> bool:
    """Whether `blocker` (in turn) waits for `owner`."""
    for _ in range(len(_waiting) + 1):
        if blocker == owner:
            return True
        if blocker not in _waiting:
            return False
        blocker = _waiting[blocker]
    return False


async def posix_lock(
    inode: Inode, owner: int, kind: int, start: int, end: int, *, pid: int, wait: bool, ofd: bool = False
) -> None:
    """Set, change or (F_UNLCK) clear a record lock.

    SysError(EAGAIN) when it conflicts and `wait` is false, SysError(EDEADLK) for POSIX locks that
    would wait for each other, SysError(ENOLCK) for too many; Interrupted ends the wait.
    """
    lock = _lock(owner, start, end, pid, kind)
    while kind != F_UNLCK and (blocker := lib.locks_conflict(inode.c, lock)):
        if not wait:
            raise SysError(errno.EAGAIN)
        other: int = blocker.owner
        if not ofd and _would_deadlock(owner, other):
            raise SysError(errno.EDEADLK)
        if inode.locks is None:
            inode.locks = FileLocks(inode)
        if not ofd:
            _waiting[owner] = other
        try:
            await block((inode.locks.queue, 1))
        finally:
            _waiting.pop(owner, None)
            _tidy(inode)
    error = lib.locks_set(inode.c, lock)
    if error:
        raise SysError(-error)
    _wake(inode)


def _wake(inode: Inode) -> None:
    """Locks have changed."""
    if inode.locks is not None:
        inode.locks.queue.wake()


def _tidy(inode: Inode) -> None:
    """Drop the record of an inode that has no flock locks and nobody who waits."""
    locks = inode.locks
    if locks is not None and not locks.flocks and not locks.queue:
        inode.locks = None
        inode.c.guarded = 0


def posix_release(inode: Inode, owner: int) -> None:
    """Drop every record lock of `owner` (any close of a file by a process does that: fcntl(2))."""
    if lib.locks_release(inode.c, owner):
        _wake(inode)


async def flock(inode: Inode, owner: object, kind: int, wait: bool) -> None:
    """flock(2): `kind` F_RDLCK is LOCK_SH, F_WRLCK is LOCK_EX, F_UNLCK is LOCK_UN.

    SysError(EWOULDBLOCK) when it conflicts and `wait` is false.  A conversion is not atomic: the
    old lock is given up first, as on Linux.
    """
    locks = inode.locks
    if locks is not None and owner in locks.flocks:
        if locks.flocks[owner] == kind:
            return
        flock_release(inode, owner)
    if kind == F_UNLCK:
        return
    while True:
        locks = inode.locks
        if locks is None:
            locks = inode.locks = FileLocks(inode)
            spare.forget_inode(inode)
        held = locks.flocks
        if all(other is owner or (kind == F_RDLCK and held[other] == F_RDLCK) for other in held):
            held[owner] = kind
            return
        if not wait:
            raise SysError(errno.EWOULDBLOCK)
        try:
            await block((locks.queue, 1))
        finally:
            _tidy(inode)


def flock_release(inode: Inode, owner: object) -> None:
    """Drop the flock lock of `owner`."""
    locks = inode.locks
    if locks is not None and locks.flocks.pop(owner, None) is not None:
        locks.queue.wake()
        _tidy(inode)


def release_file(inode: Inode, file: File) -> None:
    """The open file description is gone: its flock and OFD locks end."""
    flock_release(inode, file)
    posix_release(inode, file.lock_owner)
