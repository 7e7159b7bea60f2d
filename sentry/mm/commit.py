"""Commit accounting: how much memory guests may come to use, promised at mmap time.

Charged, as Linux's Committed_AS: private writable mappings and shared anonymous memory, unless
MAP_NORESERVE; once more for each fork.  With a limit (`--memory`) this is strict, as with
vm.overcommit_memory=2; without one only a single request beyond all memory is refused (mode 0).
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Commit:
    """Bytes promised so far.  `limit` 0 means none; `report(who, size)` is called at the first refusal."""

    __slots__ = ("limit", "peak", "refused", "report", "total", "used")

    def __init__(
        self, limit: int = 0, total: int = 0, report: Callable[[bytes, int], None] | None = None
    ) -> None:
        self.limit = limit
        #: All memory that guests see (/proc/meminfo MemTotal); 0: not known.
        self.total = limit or total
        self.used = 0
        self.peak = 0
        self.refused = 0
        self.report = report

    def charge(self, size: int, who: bytes = b"") -> None:
        """Promise `size` bytes more; SysError(ENOMEM)."""
        used = self.used + size
        if used > self.limit if self.limit else size > self.total > 0:
            self.refused += 1
            report, self.report = self.report, None
            if report is not None:
                report(who, size)
            raise SysError(errno.ENOMEM)
        self.used = used
        if used > self.peak:
            self.peak = used

    def uncharge(self, size: int) -> None:
        self.used -= size
