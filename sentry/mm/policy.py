"""Memory policies on a machine with one node: kept and told, since there is nothing to choose.

A policy is (mode with its flags, set of nodes).  Those of mappings (mbind(2)) stand in a list of ranges
beside the tree; a process that has any gets its memory calls answered by Python (MM_POLICED), which keeps
it true.
"""

from __future__ import annotations

import errno
from _bisect import bisect_left, bisect_right

from sentry.abi.errors import SysError
from sentry.abi.numa import (
    MPOL_BIND,
    MPOL_DEFAULT,
    MPOL_F_NUMA_BALANCING,
    MPOL_F_RELATIVE_NODES,
    MPOL_F_STATIC_NODES,
    MPOL_LOCAL,
    MPOL_MAX,
    MPOL_MODE_FLAGS,
    MPOL_PREFERRED,
    MPOL_PREFERRED_MANY,
)

Policy = tuple[int, int]
DEFAULT: Policy = (MPOL_DEFAULT, 0)
#: The nodes there are, as a bit mask.
NODES = 1
#: Ranges with a policy of one address space.
MAX_RANGES = 4096


def make(mode: int, nodes: int) -> Policy:
    """What set_mempolicy(2) makes of its arguments (mpol_new, mpol_set_nodemask); SysError(EINVAL)."""
    flags = mode & MPOL_MODE_FLAGS
    mode &= ~MPOL_MODE_FLAGS
    both = MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES
    if mode >= MPOL_MAX or flags & both == both:
        raise SysError(errno.EINVAL)
    if flags & MPOL_F_NUMA_BALANCING and mode not in (MPOL_BIND, MPOL_PREFERRED_MANY):
        raise SysError(errno.EINVAL)
    if mode == MPOL_DEFAULT:
        if nodes:
            raise SysError(errno.EINVAL)
        return DEFAULT
    if mode == MPOL_PREFERRED and not nodes:
        if flags & both:
            raise SysError(errno.EINVAL)
        return MPOL_LOCAL, 0
    if mode == MPOL_LOCAL:
        if nodes or flags & both:
            raise SysError(errno.EINVAL)
        return MPOL_LOCAL, 0
    # Relative nodes are folded into those there are.
    usable = NODES if nodes and flags & MPOL_F_RELATIVE_NODES else nodes & NODES
    if not usable:
        raise SysError(errno.EINVAL)
    # A set that follows the nodes there are is told as it was given.
    return mode | flags, nodes if flags & both else usable


def _start_of(entry: tuple[int, int, Policy]) -> int:
    return entry[0]


class Ranges:
    """[start, end) → policy, disjoint and in order."""

    __slots__ = ("_ranges",)

    def __init__(self, ranges: list[tuple[int, int, Policy]] | None = None) -> None:
        self._ranges = ranges or []

    def copy(self) -> Ranges:
        return Ranges(list(self._ranges))

    def at(self, addr: int) -> Policy | None:
        i = bisect_right(self._ranges, addr, key=_start_of) - 1
        return self._ranges[i][2] if i >= 0 and addr < self._ranges[i][1] else None

    def forget(self, start: int, end: int) -> None:
        """[start, end) has no policy any more."""
        first = max(0, bisect_right(self._ranges, start, key=_start_of) - 1)
        last = bisect_left(self._ranges, end, key=_start_of)
        kept = []
        for low, high, policy in self._ranges[first:last]:
            if low < min(high, start):
                kept.append((low, min(high, start), policy))
            if max(low, end) < high:
                kept.append((max(low, end), high, policy))
        self._ranges[first:last] = kept

    def put(self, start: int, end: int, policy: Policy) -> None:
        """SysError(ENOMEM) when there would be too many."""
        if policy != DEFAULT and len(self._ranges) + 2 > MAX_RANGES:  # one may be cut in two
            raise SysError(errno.ENOMEM)
        self.forget(start, end)
        if policy == DEFAULT:
            return
        self._ranges.insert(bisect_left(self._ranges, start, key=_start_of), (start, end, policy))


_NAMES = (b"default", b"prefer", b"bind", b"interleave", b"local", b"prefer (many)", b"weighted interleave")


def text(mode: int, nodes: int) -> bytes:
    """As numa_maps(5) shows a policy."""
    name = _NAMES[mode & ~MPOL_MODE_FLAGS]
    if mode & MPOL_F_STATIC_NODES:
        name += b"=static"
    elif mode & MPOL_F_RELATIVE_NODES:
        name += b"=relative"
    return name + b":0" if nodes else name
