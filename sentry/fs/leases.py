"""Leases of files: F_SETLEASE and F_GETLEASE of fcntl(2), and the opens that break them (Linux fs/locks.c).

A lease is a mark on its inode (fsnotify.py), so the engine leaves opens of the file to Python, which calls
`break_lease` first.  The holder gets a signal; whoever opens waits until he has given the lease up, or
lowered it, or until the time for that is over.
"""

from __future__ import annotations

import errno
from time import monotonic_ns

from sentry.abi.errors import SysError
from sentry.abi.fcntl import F_RDLCK, F_UNLCK, F_WRLCK, O_ACCMODE, O_NONBLOCK, O_RDONLY
from sentry.abi.poll import POLLMSG
from sentry.fs import fsnotify
from sentry.fs.owner import owner_of
from sentry.kernel.wait import WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.file import File
    from sentry.fs.inode import Inode

SECOND_NS = 1_000_000_000


class Limits:
    """/proc/sys/fs/lease-break-time (seconds) and leases-enable."""

    def __init__(self) -> None:
        self.break_time, self.enabled = 45, 1


limits = Limits()
#: How many leases there are.
held = 0


class Lease:
    __slots__ = ("deadline", "fd", "file", "inode", "kind", "queue", "target")

    def __init__(self, file: File, fd: int, kind: int) -> None:
        global held
        self.file = file
        #: What the signal tells.
        self.fd = fd
        self.inode: Inode = file.inode
        self.kind = kind
        #: What it is to become, while it is being broken, and until when; None: it is not.
        self.target: int | None = None
        self.deadline = 0
        #: Woken when the lease has changed.
        self.queue = WaitQueue()
        held += 1
        fsnotify.add(self)

    def become(self, kind: int) -> None:
        """The holder has set `kind`, or the time is over."""
        global held
        self.kind = kind
        self.target = None
        if kind == F_UNLCK:
            held -= 1
            fsnotify.remove(self)
        self.queue.wake()

    def event(self, mask: int, cookie: int, name: bytes, unlinked: bool) -> None:
        """Only opens matter."""

    def closed(self, file: File, owner: int) -> None:
        """Other descriptors may hold it."""

    def inode_gone(self) -> None:
        self.become(F_UNLCK)

    def conflicts(self, writes: bool) -> bool:
        return self.kind == F_WRLCK or (writes and self.kind == F_RDLCK)


def _leases(inode: Inode) -> list[Lease]:
    return [mark for mark in fsnotify.marks_of(inode) if isinstance(mark, Lease)]


def _of(file: File) -> Lease | None:
    for lease in _leases(file.inode):
        if lease.file is file:
            return lease
    return None


def kind_of(file: File) -> int:
    """F_GETLEASE: what the lease by this file is, or is to become."""
    lease = _of(file)
    if lease is None:
        return F_UNLCK
    return lease.kind if lease.target is None else lease.target


def set_lease(file: File, fd: int, kind: int) -> None:
    """F_SETLEASE of a regular file; SysError(EAGAIN).  All open files have a File by now."""
    own = _of(file)
    if kind == F_UNLCK:
        if own is None:
            raise SysError(errno.EAGAIN)
        own.become(F_UNLCK)
        return
    if not limits.enabled:
        raise SysError(errno.EINVAL)
    for other in list(fsnotify.installed.values()):
        if other.inode is not file.inode or other is file or not other.refs:
            continue
        if kind == F_WRLCK or other.writable:
            raise SysError(errno.EAGAIN)
    # Also who waits in `break_lease` counts as a writer.
    if file.inode.writers > (file.writable and kind == F_WRLCK):
        raise SysError(errno.EAGAIN)
    if any(
        lease is not own and (kind == F_WRLCK or lease.target == F_UNLCK) for lease in _leases(file.inode)
    ):
        raise SysError(errno.EAGAIN)
    if own is None:
        Lease(file, fd, kind)
    else:
        own.become(kind)


async def break_lease(inode: Inode, flags: int) -> None:
    """Somebody opens the file with `flags`: tell holders whose leases that breaks, and wait for them.

    SysError(EWOULDBLOCK) with O_NONBLOCK; Interrupted."""
    writes = flags & O_ACCMODE != O_RDONLY
    while True:
        conflicts = [lease for lease in _leases(inode) if lease.conflicts(writes)]
        if not conflicts:
            return
        for lease in conflicts:
            target = F_UNLCK if writes else F_RDLCK
            if lease.target is None:
                lease.deadline = monotonic_ns() + limits.break_time * SECOND_NS
                lease.target = target
                owner_of(lease.file).report(POLLMSG, lease.fd)
            elif lease.target != target and target == F_UNLCK:
                lease.target = target
                owner_of(lease.file).report(POLLMSG, lease.fd)
        if flags & O_NONBLOCK:
            raise SysError(errno.EWOULDBLOCK)
        lease = conflicts[0]
        inode.writers += writes
        try:
            if not await block((lease.queue, 1), deadline=lease.deadline) and lease.target is not None:
                lease.become(lease.target)
        finally:
            inode.writers -= writes


def released(file: File) -> None:
    """The last reference to `file` is gone."""
    lease = _of(file)
    if lease is not None:
        lease.become(F_UNLCK)


fsnotify.ended.append(released)
