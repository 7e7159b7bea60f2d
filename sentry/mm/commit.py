"""Commit accounting: how much memory guests may come to use, promised at mmap time.

Charged, as Linux's Committed_AS: private writable mappings, unless MAP_NORESERVE, once more for each
fork; and shared memory.  With a limit (`--memory`) this is strict, as with vm.overcommit_memory=2;
without one only a single request beyond all memory is refused (mode 0).

Shared memory (also the files of tmpfs) is held by memfds of the Sentry.  If there is too much of it, the
host's OOM killer wins nothing by killing guests, and goes on to the Sentry and to the host's
other processes.  So it has a limit of its own that is always strict.
"""

from __future__ import annotations

import errno

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.mman import MAX_MAP_COUNT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


class Commit:
    """Bytes promised so far.  `limit` 0 means none; `report(who, size)` is called at the first refusal."""

    __slots__ = ("c", "refused", "report", "shared", "shared_limit")

    def __init__(
        self, limit: int = 0, total: int = 0, report: Callable[[bytes, int], None] | None = None
    ) -> None:
        #: struct commit (csrc/abi/mm.h): limit, used, peak, and all memory that guests see (0: not known).
        self.c: Any = ffi.new("struct commit *")
        self.c.limit = limit
        self.c.total = limit or total
        self.c.max_maps = MAX_MAP_COUNT
        #: Half of the memory, as Linux's default for a tmpfs, where --memory does not say more.
        self.shared_limit = limit or total // 2
        #: How much of `used` is shared memory.
        self.shared = 0
        self.refused = 0
        self.report = report

    @property
    def limit(self) -> int:
        value: int = self.c.limit
        return value

    @property
    def used(self) -> int:
        value: int = self.c.used
        return value

    @used.setter
    def used(self, value: int) -> None:
        self.c.used = value

    @property
    def peak(self) -> int:
        value: int = self.c.peak
        return value

    @property
    def max_maps(self) -> int:
        """How many mappings an address space may have."""
        value: int = self.c.max_maps
        return value

    @max_maps.setter
    def max_maps(self, value: int) -> None:
        self.c.max_maps = min(value, MAX_MAP_COUNT)

    def charge(self, size: int, who: bytes = b"") -> None:
        """Promise `size` bytes more; SysError(ENOMEM)."""
        if lib.commit_charge(self.c, size):
            self.refuse(size, who)

    def refuse(self, size: int, who: bytes) -> NoReturn:
        """There is no room for `size` bytes more: SysError(ENOMEM)."""
        self.refused += 1
        report, self.report = self.report, None
        if report is not None:
            report(who, size)
        raise SysError(errno.ENOMEM)

    def uncharge(self, size: int) -> None:
        self.c.used -= size

    def shared_room(self) -> int:
        """How many bytes of shared memory may still be charged."""
        room = self.shared_limit - self.shared if self.shared_limit else 1 << 62
        return min(room, self.limit - self.used) if self.limit else room

    def charge_shared(self, size: int, who: bytes = b"") -> None:
        """`size` bytes more of shared memory; SysError(ENOMEM)."""
        if size > self.shared_room():
            self.refuse(size, who)
        self.count_shared(size)

    def count_shared(self, size: int) -> None:
        """`size` bytes (maybe negative) of shared memory have come into use already."""
        self.shared += size
        c = self.c
        c.used += size
        c.peak = max(c.peak, c.used)
