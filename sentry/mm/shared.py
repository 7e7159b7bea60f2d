"""Shared anonymous memory: MAP_SHARED|MAP_ANONYMOUS, and shared mappings of /dev/zero (shmem_zero_setup).

One memfd of the Sentry's each, mapped shared by every address space that inherits the mapping.
"""

from __future__ import annotations

import errno
import os

from sentry.abi.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.mm.commit import Commit

#: st_dev of what has no file system: 0:1, as Linux's internal shmem mount usually has.
SHMEM_DEV = 1
#: Each costs a host descriptor, of which the Sentry needs some for other things.
MAX_LIVE = 8192


class SharedAnonymous:
    """Looks enough like a File to stand behind a mapping; one reference for each mapping."""

    __slots__ = ("commit", "host_fd", "ino", "refs", "size")
    _next_ino = 1
    _live = 0

    #: As /proc/PID/maps shows it.
    map_name = b"/dev/zero (deleted)"
    path = None
    inode = None

    def __init__(self, size: int, commit: Commit, who: bytes = b"") -> None:
        """`size` bytes of zeroes, charged to `commit` at once, MAP_NORESERVE or not.  SysError(ENOMEM)."""
        self.commit = commit
        self.size = size
        self.refs = 1
        if SharedAnonymous._live >= MAX_LIVE:
            raise SysError(errno.ENOMEM)
        commit.charge_shared(size, who)
        try:
            self.host_fd = os.memfd_create("shm", os.MFD_CLOEXEC)
        except OSError:
            commit.count_shared(-size)
            raise SysError(errno.ENOMEM) from None
        SharedAnonymous._live += 1
        try:
            os.ftruncate(self.host_fd, size)
        except OSError:
            self.put()
            raise SysError(errno.ENOMEM) from None
        self.ino = SharedAnonymous._next_ino
        SharedAnonymous._next_ino += 1

    def get(self) -> SharedAnonymous:
        self.refs += 1
        return self

    def put(self) -> None:
        self.refs -= 1
        if self.refs == 0:
            os.close(self.host_fd)
            SharedAnonymous._live -= 1
            self.commit.count_shared(-self.size)

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        return self.host_fd

    async def fsync(self) -> None:
        """Nothing is behind it."""
