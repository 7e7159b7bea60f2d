"""User namespaces: what user ids, group ids and capabilities mean (user_namespaces(7)).

Inside the kernel an id is always the initial namespace's (kuid_t); `UserNamespace.kuid` and `uid` translate
where a number enters or leaves.  Capabilities count in the namespace of whoever has them, and below it
(`Credentials.ns_capable`).
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError

#: What an id without a mapping shows as (/proc/sys/kernel/overflowuid).
OVERFLOW_ID = 65534
#: (uid_t) -1: not an id.
INVALID = 0xFFFFFFFF
MAX_LEVEL = 32
INITIAL_INO = 4026531837
#: How many namespaces of a kind a user may have in a user namespace (/proc/sys/user): each costs the Sentry
#: some memory.
DEFAULT_LIMIT = 4096
#: The first number for others than the initial namespaces.
FIRST_INO = 4026532200


class Namespace:
    """Base of them all (struct ns_common).  `ino` is its identity for user space."""

    __slots__ = ("charge", "ino", "user_ns")
    kind = b"none"

    def __init__(self, user_ns: UserNamespace | None, ino: int) -> None:
        #: Who owns it: capabilities over it are those in there.  The initial user namespace has itself.
        self.user_ns: UserNamespace = user_ns or self  # type: ignore[assignment]
        self.ino = ino
        #: What it costs its creator; None for the first ones.
        self.charge: Charge | None = None


class Charge:
    """A namespace of `kind` counts among those of the user `euid` in `creator`, and of the creators of what
    is around that, as long as the Charge lives (struct ucounts).  SysError(ENOSPC): one has too many."""

    __slots__ = ("_charged",)

    def __init__(self, kind: bytes, creator: UserNamespace, euid: int) -> None:
        self._charged: list[tuple[UserNamespace, tuple[int, bytes]]] = []
        space: UserNamespace | None = creator
        while space is not None:
            key = euid, kind
            used = space.counts.get(key, 0)
            if used >= space.limit(kind):
                raise SysError(errno.ENOSPC)
            space.counts[key] = used + 1
            self._charged.append((space, key))
            euid, space = space.owner, space.parent

    def __del__(self) -> None:
        for space, key in self._charged:
            space.counts[key] -= 1
            if not space.counts[key]:
                del space.counts[key]


class IdMap:
    """A map between the ids of a namespace and those of the initial one; empty at first."""

    __slots__ = ("extents",)

    def __init__(self, extents: tuple[tuple[int, int, int], ...] = ()) -> None:
        #: (first inside, first in the initial namespace, count)
        self.extents = extents

    def down(self, number: int) -> int:
        """The initial namespace's id for `number`, or INVALID."""
        for first, kernel, count in self.extents:
            if 0 <= number - first < count:
                return kernel + number - first
        return INVALID

    def down_range(self, number: int, count: int) -> int:
        """The same for a run of ids, which has to lie in one extent."""
        for first, kernel, size in self.extents:
            if first <= number and number + count <= first + size:
                return kernel + number - first
        return INVALID

    def up(self, kernel_id: int) -> int:
        """The id for an initial namespace's one, or INVALID."""
        for first, kernel, count in self.extents:
            if 0 <= kernel_id - kernel < count:
                return first + kernel_id - kernel
        return INVALID


IDENTITY = ((0, 0, INVALID),)


class UserNamespace(Namespace):
    __slots__ = ("counts", "gids", "group", "level", "limits", "may_setgroups", "owner", "parent", "projids",
                 "setfcap", "uids")  # fmt: skip
    kind = b"user"

    def __init__(self, parent: UserNamespace | None, owner: int = 0, group: int = 0, ino: int = 0) -> None:
        super().__init__(parent, ino or INITIAL_INO)
        self.parent = parent
        self.level: int = 0 if parent is None else parent.level + 1
        #: Effective ids of its creator.
        self.owner: int = owner
        self.group = group
        first = IDENTITY if parent is None else ()
        self.uids, self.gids, self.projids = IdMap(first), IdMap(first), IdMap(first)
        #: /proc/PID/setgroups.
        self.may_setgroups: bool = parent is None or parent.may_setgroups
        #: Whether the creator had CAP_SETFCAP, without which id 0 of the parent can't be mapped by itself.
        self.setfcap = True
        self.counts: dict[tuple[int, bytes], int] = {}
        self.limits: dict[bytes, int] = {}

    def limit(self, kind: bytes) -> int:
        """How many namespaces of a kind each user may have in here."""
        return self.limits.get(kind, DEFAULT_LIMIT)

    def kuid(self, uid: int) -> int:
        """The kernel's id for a user id from inside; SysError(EINVAL) if there is none."""
        number = self.uids.down(uid)
        if number == INVALID:
            raise SysError(errno.EINVAL)
        return number

    def kgid(self, gid: int) -> int:
        """The same for a group id."""
        number = self.gids.down(gid)
        if number == INVALID:
            raise SysError(errno.EINVAL)
        return number

    def uid(self, kuid: int) -> int:
        """What a user id shows as inside (from_kuid_munged)."""
        number = self.uids.up(kuid)
        return OVERFLOW_ID if number == INVALID else number

    def gid(self, kgid: int) -> int:
        """What a group id shows as inside."""
        number = self.gids.up(kgid)
        return OVERFLOW_ID if number == INVALID else number

    def maps(self, kuid: int, kgid: int) -> bool:
        """Whether a file of this owner and group has both inside."""
        return self.uids.up(kuid) != INVALID and self.gids.up(kgid) != INVALID

    def within(self, other: UserNamespace) -> bool:
        """Whether this is `other` or lies below it."""
        space: UserNamespace | None = self
        while space is not None:
            if space is other:
                return True
            space = space.parent
        return False


#: That of the Sentry itself, where ids are what they are.
INITIAL = UserNamespace(None)
