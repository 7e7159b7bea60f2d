"""Descriptor tables (struct files_struct): small integers to open file descriptions.

Shared by tasks that were cloned with CLONE_FILES; `users` counts them.  What stands here stands in a struct
fd_table, too, where the engine's fast paths look it up; a file leaves that one before anything of it ends.
"""

from __future__ import annotations

import errno

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_PATH
from sentry.fs import spare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.file import File

#: Of all tables of the sandbox together, where RLIMIT_NOFILE limits one: each costs the Sentry's memory.
MAX_DESCRIPTORS: int = lib.MAX_DESCRIPTORS

_new = ffi.new
_TABLE = ffi.typeof("struct fd_table *")
_FILES, _BYTES = ffi.typeof("struct vfile *[]"), ffi.typeof("uint8_t[]")
NULL = ffi.NULL
#: Numbers that the arrays of a new table have room for.
SMALL = 32


class FDTable:
    __slots__ = ("_cloexec", "_cloexec_room", "_files", "_room", "c", "users")

    def __init__(self, room: int = SMALL) -> None:
        self._files: dict[int, File] = {}
        self._cloexec: set[int] = set()
        #: struct fd_table and what it points to.
        self.c: Any = _new(_TABLE)
        self._room: Any = NULL
        self._cloexec_room: Any = NULL
        self._grow(room)
        self.c.limit = 0xFFFF_FFFF
        self.users = 1

    def _grow(self, room: int) -> None:
        """Let the C table have room for `room` numbers."""
        files, cloexec, c = _new(_FILES, room), _new(_BYTES, room), self.c
        if c.size:
            ffi.memmove(files, self._room, c.size * 8)
            ffi.memmove(cloexec, self._cloexec_room, c.size)
        self._room, self._cloexec_room = files, cloexec
        c.files, c.cloexec, c.size = files, cloexec, room

    def _show(self, fd: int, file: File, cloexec: bool) -> None:
        """`file` has come to be at `fd`."""
        if fd >= self.c.size:
            self._grow(max(2 * self.c.size, fd + 1))
        self._room[fd] = file.c
        self._cloexec_room[fd] = cloexec

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

    def _adopt(self, fd: int) -> File | None:
        """The file at `fd` if the engine has opened it and we have not seen it (fs/spare.py)."""
        c = self.c
        if not c.spares or not 0 <= fd < c.size:
            return None
        vfile = self._room[fd]
        if not vfile or not vfile.spare:
            return None
        file = self._files[fd] = spare.adopt(vfile)
        if self._cloexec_room[fd]:
            self._cloexec.add(fd)
        c.spares -= 1
        return file

    def _adopt_all(self) -> None:
        fd = 0
        while self.c.spares and (fd := lib.fd_table_next_spare(self.c, fd)) >= 0:
            self._adopt(fd)

    def get(self, fd: int) -> File:
        """The file of `fd` for input, output and the like; SysError(EBADF), also for O_PATH files."""
        file = self._files.get(fd) or self._adopt(fd)
        if file is None or file.flags & O_PATH:
            raise SysError(errno.EBADF)
        return file

    def get_any(self, fd: int) -> File:
        """The file of `fd`, O_PATH ones too; SysError(EBADF)."""
        file = self._files.get(fd) or self._adopt(fd)
        if file is None:
            raise SysError(errno.EBADF)
        return file

    def install(self, file: File, limit: int, cloexec: bool = False, minimum: int = 0) -> int:
        """Give `file` (whose reference passes to the table) the lowest free number from `minimum` on.

        `limit` is RLIMIT_NOFILE; SysError(EMFILE), and the caller keeps the reference.
        """
        c = self.c
        if c.spares:
            self._adopt_all()
        lowest: int = c.lowest
        fd = max(minimum, lowest)
        files = self._files
        while fd in files:
            fd += 1
        if fd >= limit:
            raise SysError(errno.EMFILE)
        self._count(1)
        files[fd] = file
        if fd > c.highest:
            c.highest = fd
        if cloexec:
            self._cloexec.add(fd)
        self._show(fd, file, cloexec)
        if minimum <= lowest:
            c.lowest = fd + 1
        return fd

    def replace(self, fd: int, file: File, cloexec: bool, task: Any) -> None:
        """dup2: put `file` (reference passes, also on failure) at `fd`, closing what was there.
        SysError(ENFILE)."""
        old = self._files.get(fd) or self._adopt(fd)
        if old is None:
            try:
                self._count(1)
            except SysError:
                file.put()
                raise
        self._files[fd] = file
        self.c.highest = max(self.c.highest, fd)
        self._cloexec.discard(fd)
        if cloexec:
            self._cloexec.add(fd)
        self._show(fd, file, cloexec)
        if old is not None:
            old.flush(task)
            old.put()

    def close(self, fd: int, task: Any) -> None:
        file = self._files.pop(fd, None)
        if file is None and self._adopt(fd) is not None:
            file = self._files.pop(fd)
        if file is None:
            raise SysError(errno.EBADF)
        self._room[fd] = NULL
        self._count(-1)
        self._cloexec.discard(fd)
        if fd < self.c.lowest:
            self.c.lowest = fd
        file.flush(task)
        file.put()

    @staticmethod
    def _count(number: int) -> None:
        """`number` (maybe negative) descriptors more; SysError(ENFILE)."""
        total = lib.descriptor_count + number
        if number > 0 and total > MAX_DESCRIPTORS:
            raise SysError(errno.ENFILE)
        lib.descriptor_count = total

    @property
    def size(self) -> int:
        """How many numbers Linux's table has room for, which it grows and never shrinks (select(2) looks no
        further)."""
        highest: int = self.c.highest
        return 64 if highest < 64 else 128 << (highest // 128).bit_length()

    def cloexec(self, fd: int) -> bool:
        self._adopt(fd)
        return fd in self._cloexec

    def set_cloexec(self, fd: int, on: bool) -> None:
        if fd not in self._files and self._adopt(fd) is None:
            raise SysError(errno.EBADF)
        self._cloexec_room[fd] = on
        if on:
            self._cloexec.add(fd)
        else:
            self._cloexec.discard(fd)

    def items(self) -> list[tuple[int, File]]:
        self._adopt_all()
        return sorted(self._files.items())

    def copy(self) -> FDTable:
        """fork: the same files under the same numbers.  See `check_copy`."""
        self._adopt_all()
        lib.descriptor_count += len(self._files)
        highest = max(self._files, default=0)
        room = SMALL
        while room <= highest:
            room *= 2
        new = FDTable(room)
        count = min(room, self.c.size)
        ffi.memmove(new._room, self._room, count * 8)
        ffi.memmove(new._cloexec_room, self._cloexec_room, count)
        new.c.flags = self.c.flags
        new._files = dict(self._files)
        new._cloexec = set(self._cloexec)
        new.c.lowest, new.c.highest, new.c.limit = self.c.lowest, highest, self.c.limit
        for file in new._files.values():
            file.get()
        return new

    def check_copy(self) -> None:
        """SysError(ENFILE) when the sandbox has no room for a copy."""
        if lib.descriptor_count + len(self._files) + self.c.spares > MAX_DESCRIPTORS:
            raise SysError(errno.ENFILE)

    def close_on_exec(self, task: Any) -> None:
        self._adopt_all()
        for fd in sorted(self._cloexec):
            self.close(fd, task)

    def close_all(self, task: Any) -> None:
        self._adopt_all()
        for fd in sorted(self._files):
            self.close(fd, task)
