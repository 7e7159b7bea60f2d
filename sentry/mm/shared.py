"""Shared anonymous memory: MAP_SHARED|MAP_ANONYMOUS, shared mappings of /dev/zero (shmem_zero_setup), the
segments of System V (kernel/ipc/shm.py) and the rings of asynchronous I/O.

One memfd of the Sentry's each, mapped shared by every address space that inherits the mapping.
"""

from __future__ import annotations

import errno
import os

from sentry.abi.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sentry.mm.commit import Commit
    from sentry.mm.manager import MemoryManager

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
    inode: object = None
    in_memory = True
    write_sealed = False

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

    def resident(self) -> int:
        """Bytes that the host has allocated."""
        return os.fstat(self.host_fd).st_blocks * 512

    def seek_data(self, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE; OSError(ENXIO) behind the last data."""
        return os.lseek(self.host_fd, offset, whence)

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        return self.host_fd

    async def fsync(self) -> None:
        """Nothing is behind it."""


class Ring(SharedAnonymous):
    """The events of an asynchronous I/O context (fs/aio.py), which goes where the mapping is moved to."""

    __slots__ = ("addr", "mm")
    map_name = b"/[aio] (deleted)"
    readable = writable = True

    def __init__(self, size: int, mm: MemoryManager) -> None:
        """`size` bytes.  SysError(ENOMEM)."""
        super().__init__(size, mm.commit, mm.owner)
        #: Whose context it is: not that of a process that has inherited the mapping.  None: it was destroyed.
        self.mm: MemoryManager | None = mm
        #: Where it is, and the context's id.
        self.addr = 0


class Segment(SharedAnonymous):
    """The memory of a System V segment, as those mappings show it that may write (shmat(2)).

    Its owner has one reference; when it is the only one again, `on_last` is called.
    """

    __slots__ = ("_reopen", "_twin", "inode", "map_name", "on_last", "on_replace", "view")
    readable = writable = True

    def __init__(
        self, size: int, name: bytes, commit: Commit, who: bytes,
        reopen: Callable[[int], Awaitable[int]] | None,
    ) -> None:  # fmt: skip
        """`reopen(fd)`: a descriptor of the same memfd that is open for reading only.  SysError(ENOMEM)."""
        self._twin = -1
        self._reopen = reopen
        self.map_name = name
        #: What identifies a byte to futexes, whichever way it is mapped.
        self.inode: object = object()
        self.on_last: Callable[[], None] | None = None
        #: Asked before so many mappings are replaced by one: False if the segment ends with them.
        self.on_replace: Callable[[int], bool] | None = None
        self.view: ReadOnlyView | None = None
        super().__init__(size, commit, who)
        self.view = ReadOnlyView(self)

    def put(self) -> None:
        super().put()
        if not self.refs:
            self.view = self.on_last = self.on_replace = None
            if self._twin >= 0:
                os.close(self._twin)
        elif self.refs == 1 and self.on_last is not None:
            self.on_last()

    def replace(self, count: int) -> bool:
        """`count` mappings are about to be replaced by a new one; False: nothing will be left to map."""
        return self.on_replace is None or self.on_replace(count)

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        """As for files in memory: what the guest may never write is mapped by a descriptor that can't."""
        if writable or not shared:
            return self.host_fd
        if self._twin < 0:
            if self._reopen is None:
                raise SysError(errno.EACCES)
            twin = await self._reopen(self.host_fd)
            if self._twin < 0:
                self._twin = twin
            else:
                os.close(twin)
        return self._twin


class ReadOnlyView(SharedAnonymous):
    """The segment as mappings made with SHM_RDONLY show it; its references are the segment's."""

    __slots__ = ("inode", "map_name", "segment")
    readable, writable = True, False

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.map_name = segment.map_name
        self.inode = segment.inode

    @property
    def ino(self) -> int:  # type: ignore[override]
        return self.segment.ino

    def get(self) -> SharedAnonymous:
        self.segment.get()
        return self

    def put(self) -> None:
        self.segment.put()

    def seek_data(self, offset: int, whence: int) -> int:
        return self.segment.seek_data(offset, whence)

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        return await self.segment.host_mapping(shared, writable)
