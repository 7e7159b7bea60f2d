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

from sentry.abi.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


class Commit:
    """Bytes promised so far.  `limit` 0 means none; `report(who, size)` is called at the first refusal."""

    __slots__ = ("limit", "peak", "refused", "report", "shared", "shared_limit", "total", "used")

    def __init__(
        self, limit: int = 0, total: int = 0, report: Callable[[bytes, int], None] | None = None
    ) -> None:
        self.limit = limit
        #: All memory that guests see (/proc/meminfo MemTotal); 0: not known.
        self.total = limit or total
        #: Half of the memory, as Linux's default for a tmpfs, where --memory does not say more.
        self.shared_limit = limit or total // 2
        #: How much of `used` is shared memory.
        self.shared = 0
        self.used = 0
        self.peak = 0
        self.refused = 0
        self.report = report

    def charge(self, size: int, who: bytes = b"") -> None:
        """Promise `size` bytes more; SysError(ENOMEM)."""
        used = self.used + size
        if used > self.limit if self.limit else size > self.total > 0:
            self._refuse(size, who)
        self.used = used
        if used > self.peak:
            self.peak = used

    def _refuse(self, size: int, who: bytes) -> NoReturn:
        self.refused += 1
        report, self.report = self.report, None
        if report is not None:
            report(who, size)
        raise SysError(errno.ENOMEM)

    def uncharge(self, size: int) -> None:
        self.used -= size

    def shared_room(self) -> int:
        """How many bytes of shared memory may still be charged."""
        room = self.shared_limit - self.shared if self.shared_limit else 1 << 62
        return min(room, self.limit - self.used) if self.limit else room

    def charge_shared(self, size: int, who: bytes = b"") -> None:
        """`size` bytes more of shared memory; SysError(ENOMEM)."""
        if size > self.shared_room():
            self._refuse(size, who)
        self.count_shared(size)

    def count_shared(self, size: int) -> None:
        """`size` bytes (maybe negative) of shared memory have come into use already."""
        self.shared += size
        self.used += size
        self.peak = max(self.peak, self.used)
