"""Identifiers, keys and permissions of System V IPC objects (ipc_namespaces(7); Linux ipc/util.c).

An id is `sequence << 15 | index`: a free index of its table, and a number that grows whenever the indices
begin anew, so that an old id finds nothing (EINVAL).
"""

from __future__ import annotations

import errno
from time import time_ns

from sentry.abi.capability import CAP_IPC_OWNER, CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.ipc import IPC_CREAT, IPC_EXCL, IPC_PRIVATE, IPCID_SEQ_MAX, IPCMNI, IPCMNI_SHIFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from sentry.kernel.credentials import Credentials

    T = TypeVar("T", bound="IpcObject")

#: Of so many indices at least each is used once before any is used again (ipc_min_cycle).
MIN_CYCLE = 64


class Memory:
    """How much of the Sentry's own memory objects of one kind take, in all namespaces together."""

    __slots__ = ("most", "used")

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    def charge(self, size: int) -> None:
        """`size` (maybe negative) more; SysError(ENOMEM)."""
        if size > 0 and self.used + size > self.most:
            raise SysError(errno.ENOMEM)
        self.used += size


def now() -> int:
    """Seconds of the real-time clock, as all times of IPC objects are."""
    return time_ns() // 1_000_000_000


class IpcObject:
    """What a segment, a semaphore set and a message queue have in common (struct kern_ipc_perm)."""

    __slots__ = ("cgid", "ctime", "cuid", "deleted", "gid", "id", "key", "mode", "uid")

    def __init__(self, key: int, mode: int, cred: Credentials) -> None:
        self.id = -1
        self.key = key
        self.mode = mode & 0o777
        self.uid = self.cuid = cred.euid
        self.gid = self.cgid = cred.egid
        self.ctime = now()
        #: IPC_RMID was there: whoever slept meanwhile gets EIDRM.
        self.deleted = False

    def check(self, cred: Credentials, wanted: int) -> None:
        """SysError(EACCES) unless `cred` has the `wanted` mode bits, of any class (ipcperms)."""
        wanted = wanted >> 6 | wanted >> 3 | wanted
        granted = self.mode
        if cred.euid in (self.cuid, self.uid):
            granted >>= 6
        elif cred.in_group(self.cgid) or cred.in_group(self.gid):
            granted >>= 3
        if wanted & ~granted & 7 and not cred.own_capable(CAP_IPC_OWNER):
            raise SysError(errno.EACCES)

    def check_owner(self, cred: Credentials) -> None:
        """SysError(EPERM) unless `cred` may change or remove it."""
        if cred.euid not in (self.cuid, self.uid) and not cred.own_capable(CAP_SYS_ADMIN):
            raise SysError(errno.EPERM)

    def set_perm(self, cred: Credentials, uid: int, gid: int, mode: int) -> None:
        """IPC_SET by `cred`; SysError(EINVAL) for ids that nobody can have."""
        uid, gid = cred.user_ns.kuid(uid), cred.user_ns.kgid(gid)
        self.uid, self.gid = uid, gid
        self.mode = self.mode & ~0o777 | mode & 0o777
        self.ctime = now()

    def ids(self, cred: Credentials) -> tuple[int, int, int, int]:
        """(uid, gid, cuid, cgid) as `cred` sees them."""
        ns = cred.user_ns
        return ns.uid(self.uid), ns.gid(self.gid), ns.uid(self.cuid), ns.gid(self.cgid)

    def perm(self, cred: Credentials) -> tuple[int, ...]:
        """The fields of a struct ipc64_perm, for `cred`."""
        seq = self.id >> IPCMNI_SHIFT & 0xFFFF
        return (self.key, *self.ids(cred), self.mode, seq, 0, 0, 0, 0)


class IpcIds:
    """The objects of one kind in one namespace (struct ipc_ids)."""

    __slots__ = ("_last", "_next", "_seq", "by_index", "by_key", "next_id")

    def __init__(self) -> None:
        self.by_index: dict[int, IpcObject] = {}
        self.by_key: dict[int, IpcObject] = {}
        #: The id that the next object shall have (/proc/sys/kernel/*_next_id), -1: any.
        self.next_id = -1
        self._seq = 0
        #: The index that was given last, and where the search for the next one begins.
        self._last = -1
        self._next = 0

    def __len__(self) -> int:
        return len(self.by_index)

    def __iter__(self) -> Iterator[IpcObject]:
        """In order of index, as /proc/sysvipc lists them."""
        return iter([self.by_index[index] for index in sorted(self.by_index)])

    @property
    def highest(self) -> int:
        """The highest index in use, 0 if none is: what *_INFO return."""
        return max(self.by_index, default=0)

    def check_room(self, limit: int) -> None:
        """SysError(ENOSPC) when there are `limit` already."""
        if len(self.by_index) >= min(limit, IPCMNI):
            raise SysError(errno.ENOSPC)

    def add(self, thing: IpcObject) -> int:
        """Give the object an id."""
        if self.next_id < 0:
            index = self._free_index()
            if index <= self._last:
                self._seq = (self._seq + 1) % (IPCID_SEQ_MAX + 1)
            self._last = index
            seq = self._seq
        else:
            seq, index = self.next_id >> IPCMNI_SHIFT, self.next_id & IPCMNI - 1
            self.next_id = -1
            while index in self.by_index:  # one is free: `check_room`
                index = (index + 1) % IPCMNI
        thing.id = seq << IPCMNI_SHIFT | index
        self.by_index[index] = thing
        if thing.key != IPC_PRIVATE:
            self.by_key[thing.key] = thing
        return thing.id

    def _free_index(self) -> int:
        """Indices go round among half as many more as are in use, so that none comes again soon."""
        end = min(max(len(self.by_index) * 3 // 2, MIN_CYCLE), IPCMNI)
        index = self._next if self._next < end else 0
        while index in self.by_index:
            index += 1
            if index >= end:
                index = 0
        self._next = index + 1
        return index

    def forget_key(self, thing: IpcObject) -> None:
        """Nobody finds the object by its key any more."""
        if thing.key != IPC_PRIVATE:
            self.by_key.pop(thing.key, None)
            thing.key = IPC_PRIVATE

    def remove(self, thing: IpcObject) -> None:
        self.forget_key(thing)
        thing.deleted = True
        del self.by_index[thing.id & IPCMNI - 1]

    def get(
        self, key: int, flags: int, cred: Credentials, make: Callable[[], IpcObject],
        check: Callable[[IpcObject], None],
    ) -> int:  # fmt: skip
        """shmget(2) and its kin: the id of the object with `key`, which `check` sees, or what `make` made.

        SysError(ENOENT, EEXIST, EACCES), and what `make` and `check` raise.
        """
        if key != IPC_PRIVATE:
            found = self.by_key.get(key)
            if found is not None:
                if flags & IPC_CREAT and flags & IPC_EXCL:
                    raise SysError(errno.EEXIST)
                check(found)
                found.check(cred, flags)
                return found.id
            if not flags & IPC_CREAT:
                raise SysError(errno.ENOENT)
        return self.add(make())

    def find(self, number: int, kind: type[T]) -> T:
        """The object with the id `number`; SysError(EINVAL)."""
        thing = self.by_index.get(number & IPCMNI - 1) if number >= 0 else None
        if thing is None or thing.id != number:
            raise SysError(errno.EINVAL)
        assert isinstance(thing, kind)
        return thing

    def at(self, index: int, kind: type[T]) -> T:
        """The object at `index`, or at that of an id (SHM_STAT and its kin); SysError(EINVAL)."""
        thing = self.by_index.get(index & IPCMNI - 1) if index >= 0 else None
        if thing is None:
            raise SysError(errno.EINVAL)
        assert isinstance(thing, kind)
        return thing
