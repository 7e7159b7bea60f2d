"""File locks: POSIX record locks and OFD locks (fcntl(2)), and flock(2).

The callers are the fcntl and flock handlers and File.put / File.flush:

    await posix_lock(inode, owner, kind, start, end, pid=tgid, wait=F_SETLKW)
    posix_test(inode, owner, kind, start, end) -> RecordLock | None     (F_GETLK)
    posix_release(inode, owner)                                         (a close: flush)
    await flock(inode, file, kind, wait) ; flock_release(inode, file)   (a last put: release)

`kind` is F_RDLCK, F_WRLCK or F_UNLCK; a range is `start` to `end`, both included, OFFSET_MAX for
"to the end of the file" (see `lock_range` for l_whence/l_start/l_len).  The owner of a POSIX lock
is the process's descriptor table (task.files), as on Linux; the owner of an OFD lock is the File,
and its pid shows as -1.  POSIX and OFD locks conflict with one another; flock locks live apart.

All locks of a file hang off `Inode.locks`, None while there is none.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import F_RDLCK, F_UNLCK, F_WRLCK
from sentry.fs import spare
from sentry.kernel.wait import WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.inode import Inode

OFFSET_MAX = 0x7FFFFFFFFFFFFFFF
#: How many record locks one file may have (a guest could otherwise grow the list without end).
MAX_LOCKS = 4096


class RecordLock:
    """One locked range of an owner."""

    __slots__ = ("end", "kind", "owner", "pid", "start")

    def __init__(self, owner: object, kind: int, start: int, end: int, pid: int) -> None:
        self.owner = owner
        self.kind = kind
        self.start = start
        self.end = end
        self.pid = pid


class FileLocks:
    """The locks of one inode, and who waits for them."""

    __slots__ = ("flocks", "queue", "records")

    def __init__(self) -> None:
        #: Ordered by nothing; ranges of one owner never overlap.
        self.records: list[RecordLock] = []
        #: owner (File) → LOCK kind as F_RDLCK or F_WRLCK.
        self.flocks: dict[object, int] = {}
        self.queue = WaitQueue()


#: POSIX owners asleep in posix_lock → the owner each waits for (for EDEADLK).
_waiting: dict[object, object] = {}


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


def _conflict(locks: FileLocks, owner: object, kind: int, start: int, end: int) -> RecordLock | None:
    for lock in locks.records:
        overlaps = lock.start <= end and start <= lock.end and lock.owner is not owner
        if overlaps and F_WRLCK in (kind, lock.kind):
            return lock
    return None


def posix_test(inode: Inode, owner: object, kind: int, start: int, end: int) -> RecordLock | None:
    """The lock that stands in the way of such a lock, if any (F_GETLK, F_OFD_GETLK)."""
    if inode.locks is None or kind == F_UNLCK:
        return None
    return _conflict(inode.locks, owner, kind, start, end)


def _would_deadlock(owner: object, blocker: object) -> bool:
    """Whether `blocker` (in turn) waits for `owner`."""
    for _ in range(len(_waiting) + 1):
        if blocker is owner:
            return True
        if blocker not in _waiting:
            return False
        blocker = _waiting[blocker]
    return False


async def posix_lock(
    inode: Inode, owner: object, kind: int, start: int, end: int, *, pid: int, wait: bool, ofd: bool = False
) -> None:
    """Set, change or (F_UNLCK) clear a record lock.

    SysError(EAGAIN) when it conflicts and `wait` is false, SysError(EDEADLK) for POSIX locks that
    would wait for each other, SysError(ENOLCK) for too many; Interrupted ends the wait.
    """
    while True:
        locks = inode.locks
        if locks is None:
            if kind == F_UNLCK:
                return
            locks = inode.locks = FileLocks()
            spare.forget_inode(inode)
        blocker = None if kind == F_UNLCK else _conflict(locks, owner, kind, start, end)
        if blocker is None:
            break
        if not wait:
            raise SysError(errno.EAGAIN)
        if not ofd and _would_deadlock(owner, blocker.owner):
            raise SysError(errno.EDEADLK)
        if not ofd:
            _waiting[owner] = blocker.owner
        try:
            await block((locks.queue, 1))
        finally:
            _waiting.pop(owner, None)
    _replace(locks, RecordLock(owner, kind, start, end, pid))
    _tidy(inode, locks)


def _replace(locks: FileLocks, new: RecordLock) -> None:
    """Put `new` over its owner's locks: what it covers goes, neighbours of the same kind join it."""
    kept: list[RecordLock] = []
    for old in locks.records:
        if old.owner is not new.owner or old.end < new.start - 1 or old.start > new.end + 1:
            kept.append(old)
        elif old.kind == new.kind:
            new.start = min(new.start, old.start)
            new.end = max(new.end, old.end)
        else:
            if old.start < new.start:
                kept.append(RecordLock(old.owner, old.kind, old.start, min(old.end, new.start - 1), old.pid))
            if old.end > new.end:
                kept.append(RecordLock(old.owner, old.kind, max(old.start, new.end + 1), old.end, old.pid))
    if new.kind != F_UNLCK:
        kept.append(new)
    if len(kept) > MAX_LOCKS and len(kept) > len(locks.records):
        raise SysError(errno.ENOLCK)
    locks.records = kept


def _tidy(inode: Inode, locks: FileLocks) -> None:
    """Wake the waiters after a change; drop the record of an inode without locks."""
    if not locks.records and not locks.flocks and not locks.queue:
        inode.locks = None
    locks.queue.wake()


def _users(owner: object) -> int:
    """How many tasks use a descriptor table; 1 for any other owner."""
    users: int = getattr(owner, "users", 1)
    return users


def posix_release(inode: Inode, owner: object) -> None:
    """Drop every record lock of `owner` (any close of a file by a process does that: fcntl(2)), and of
    descriptor tables that nobody uses any more: their last user is just ending."""
    locks = inode.locks
    if locks is None:
        return
    kept = [lock for lock in locks.records if lock.owner is not owner and _users(lock.owner) > 0]
    if len(kept) != len(locks.records):
        locks.records = kept
        _tidy(inode, locks)


async def flock(inode: Inode, owner: object, kind: int, wait: bool) -> None:
    """flock(2): `kind` F_RDLCK is LOCK_SH, F_WRLCK is LOCK_EX, F_UNLCK is LOCK_UN.

    SysError(EWOULDBLOCK) when it conflicts and `wait` is false.  A conversion is not atomic: the
    old lock is given up first, as on Linux.
    """
    locks = inode.locks
    if locks is not None and owner in locks.flocks:
        if locks.flocks[owner] == kind:
            return
        del locks.flocks[owner]
        _tidy(inode, locks)
    if kind == F_UNLCK:
        return
    while True:
        locks = inode.locks
        if locks is None:
            locks = inode.locks = FileLocks()
            spare.forget_inode(inode)
        held = locks.flocks
        if all(other is owner or (kind == F_RDLCK and held[other] == F_RDLCK) for other in held):
            held[owner] = kind
            return
        if not wait:
            raise SysError(errno.EWOULDBLOCK)
        await block((locks.queue, 1))


def flock_release(inode: Inode, owner: object) -> None:
    """Drop the flock lock of `owner`."""
    locks = inode.locks
    if locks is not None and locks.flocks.pop(owner, None) is not None:
        _tidy(inode, locks)


def release_file(inode: Inode, file: object) -> None:
    """The open file description is gone: its flock and OFD locks end."""
    if inode.locks is not None:
        flock_release(inode, file)
        posix_release(inode, file)
