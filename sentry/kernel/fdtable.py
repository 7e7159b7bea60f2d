"""Descriptor tables (struct files_struct): small integers to open file descriptions.

Shared by tasks that were cloned with CLONE_FILES; `users` counts them.  The numbers stand in a struct
fd_table (csrc/abi/vfs.h), which the engine's fast paths change as well; a number holds a reference to its
file's struct vfile, and fs/file.py knows which File that is.
"""

from __future__ import annotations

import errno

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_PATH
from sentry.fs.file import file_of, installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sentry.fs.file import File
    from sentry.fs.inode import Inode

#: Of all tables of the sandbox together, where RLIMIT_NOFILE limits one: each costs the Sentry's memory.
MAX_DESCRIPTORS: int = lib.MAX_DESCRIPTORS

_new = ffi.new
_TABLE = ffi.typeof("struct fd_table *")
_FILES, _BYTES = ffi.typeof("struct vfile *[]"), ffi.typeof("uint8_t[]")
NULL = ffi.NULL
#: More descriptors than this are not closed in one turn; in one step, so many whose files have others.
MANY, CHEAP = 128, 4096
#: Numbers that the arrays of a new table have room for.
SMALL = 32


class FDTable:
    __slots__ = ("_cloexec", "_files", "c", "users")
    _next_owner = 1

    def __init__(self, room: int = SMALL) -> None:
        #: struct fd_table and what it points to.
        self.c: Any = _new(_TABLE)
        self._files: Any = NULL
        self._cloexec: Any = NULL
        self._grow(room)
        self.c.limit = 0xFFFF_FFFF
        self.c.owner = FDTable._next_owner
        FDTable._next_owner += 2
        self.users = 1

    def _grow(self, room: int) -> None:
        """Have room for `room` numbers."""
        files, cloexec, c = _new(_FILES, room), _new(_BYTES, room), self.c
        if c.size:
            ffi.memmove(files, self._files, c.size * 8)
            ffi.memmove(cloexec, self._cloexec, c.size)
        self._files, self._cloexec = files, cloexec
        c.files, c.cloexec, c.size = files, cloexec, room

    def _put(self, fd: int, file: File, cloexec: bool) -> None:
        """`file`, whose reference passes, has come to be at the free number `fd`; SysError(ENFILE)."""
        if lib.descriptor_count >= MAX_DESCRIPTORS:
            raise SysError(errno.ENFILE)
        c = self.c
        if fd >= c.size:
            self._grow(max(2 * c.size, fd + 1))
        installed[file.c] = file
        lib.fd_table_put(c, fd, file.c, cloexec)

    @property
    def owner(self) -> int:
        """The owner of the POSIX locks of the tasks that use this table (fs/locks.py)."""
        owner: int = self.c.owner
        return owner

    def limit_sizes(self) -> None:
        """A task that uses this table has a finite RLIMIT_FSIZE: the engine leaves writes to us."""
        self.c.flags |= lib.TABLE_LIMITED

    def set_limit(self, limit: int, tasks: int = 1) -> None:
        """RLIMIT_NOFILE of `tasks` tasks that use this table: numbers beyond it are ours to give, and with
        few descriptors the engine leaves poll(2) to us."""
        limit = min(limit, 0xFFFF_FFFF)
        self.c.limit = limit if self.users <= tasks else min(limit, self.c.limit)
        if limit < 64:
            self.c.flags |= lib.TABLE_FEW

    def get(self, fd: int) -> File:
        """The file of `fd` for input, output and the like; SysError(EBADF), also for O_PATH files."""
        file = self.get_any(fd)
        if file.flags & O_PATH:
            raise SysError(errno.EBADF)
        return file

    def get_any(self, fd: int) -> File:
        """The file of `fd`, O_PATH ones too; SysError(EBADF)."""
        try:
            vfile = self._files[fd]
        except IndexError:
            raise SysError(errno.EBADF) from None
        if not vfile:
            raise SysError(errno.EBADF)
        return installed.get(vfile) or file_of(vfile)

    def install(self, file: File, limit: int, cloexec: bool = False, minimum: int = 0) -> int:
        """Give `file` (whose reference passes to the table) the lowest free number from `minimum` on.

        `limit` is RLIMIT_NOFILE; SysError(EMFILE, ENFILE), and the caller keeps the reference.
        """
        fd: int = lib.fd_table_free(self.c, min(minimum, limit))
        if fd >= limit:
            raise SysError(errno.EMFILE)
        self._put(fd, file, cloexec)
        return fd

    def free(self, minimum: int) -> int:
        """The lowest free number from `minimum` on."""
        fd: int = lib.fd_table_free(self.c, minimum)
        return fd

    def replace(self, fd: int, file: File, cloexec: bool) -> None:
        """dup2: put `file` (reference passes, also on failure) at `fd`, closing what was there.
        SysError(ENFILE)."""
        c = self.c
        old = lib.fd_table_take(c, fd) if fd < c.size and self._files[fd] else None
        try:
            self._put(fd, file, cloexec)
        except SysError:
            file.put()
            raise
        if old is not None:
            self._drop(old)

    def close(self, fd: int) -> None:
        if not self.is_open(fd):
            raise SysError(errno.EBADF)
        self._drop(lib.fd_table_take(self.c, fd))

    def _drop(self, vfile: Any) -> None:
        """A number is gone that had a reference to `vfile`."""
        if not lib.vfile_close(vfile, self.c.owner, False):
            file = file_of(vfile)
            file.flush(self.owner)
            file.put()

    def is_open(self, fd: int) -> bool:
        return 0 <= fd < self.c.size and bool(self._files[fd])

    @property
    def size(self) -> int:
        """How many numbers Linux's table has room for, which it grows and never shrinks (select(2) looks no
        further)."""
        highest: int = self.c.highest
        return 64 if highest < 64 else 128 << (highest // 128).bit_length()

    def cloexec(self, fd: int) -> bool:
        return self.is_open(fd) and bool(self._cloexec[fd])

    def set_cloexec(self, fd: int, on: bool) -> None:
        if not self.is_open(fd):
            raise SysError(errno.EBADF)
        self._cloexec[fd] = on

    def numbers(self, first: int = 0, count: int = -1) -> list[int]:
        """The open numbers from `first` on, at most `count`, in order."""
        found: list[int] = []
        fd: int = lib.fd_table_next(self.c, first, False)
        while fd >= 0 and len(found) != count:
            found.append(fd)
            fd = lib.fd_table_next(self.c, fd + 1, False)
        return found

    @property
    def last(self) -> int:
        """The highest open number, -1 when none is."""
        last: int = lib.fd_table_last(self.c)
        return last

    def meet(self, inode: Inode) -> None:
        """Let the files of `inode` that only the engine knows be known."""
        fd: int = lib.fd_table_find(self.c, 0, inode.c)
        while fd >= 0:
            self.get_any(fd)
            fd = lib.fd_table_find(self.c, fd + 1, inode.c)

    def items(self) -> list[tuple[int, File]]:
        return [(fd, self.get_any(fd)) for fd in self.numbers()]

    def copy(self) -> FDTable:
        """fork: the same files under the same numbers.  See `check_copy`."""
        room = SMALL
        while room <= self.c.highest and room < self.c.size:
            room *= 2
        new = FDTable(room)
        lib.fd_table_copy(new.c, self.c)
        return new

    def check_copy(self, limit: int) -> None:
        """SysError(ENFILE) when the sandbox has no room for a copy, SysError(EMFILE) when there are numbers
        that fs.nr_open, which is `limit`, forbids now."""
        room = (limit + 63) & ~63
        if self.c.used and self.c.highest >= room and self.last >= room:
            raise SysError(errno.EMFILE)
        if lib.descriptor_count + self.c.used > MAX_DESCRIPTORS:
            raise SysError(errno.ENFILE)

    def closing(self, first: int = 0, last: int = 0xFFFF_FFFF, cloexec: bool = False) -> Iterator[None]:
        """Close the open numbers from `first` to `last`, or those with FD_CLOEXEC; a step is little work."""
        while True:
            fd: int = lib.fd_table_shed(self.c, first, last, cloexec, CHEAP)
            if fd < 0:
                return
            self.close(fd)
            yield
            first = fd + 1

    def mark_range(self, first: int, last: int) -> None:
        """Set FD_CLOEXEC of the open numbers from `first` to `last`."""
        lib.fd_table_mark(self.c, first, last)

    def close_all(self) -> None:
        for _ in self.closing():
            pass

    @property
    def many(self) -> bool:
        """Whether closing them all is more than little work."""
        used: int = self.c.used
        return used > MANY
