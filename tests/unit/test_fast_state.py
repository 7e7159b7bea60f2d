"""What the engine's fast paths see: descriptor tables, pages in advance, and the flag that turns them off."""

from __future__ import annotations

from sentry._engine import ffi, lib

from sentry.fs.file import File
from sentry.fs.tmpfs.inode import QUOTA, Tmpfs
from sentry.fs.tmpfs.regular import INLINE_MAX
from sentry.kernel.fdtable import SMALL, FDTable
from sentry.runtime.commands.run import configure, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def seen(table: FDTable, fd: int) -> Any:
    return table.c.files[fd] if fd < table.c.size else ffi.NULL


def test_tables_are_mirrored() -> None:
    inode = Tmpfs().new_regular(0o644, 0, 0)
    table = FDTable()
    file = File(inode, 2)
    fd = table.install(file, 1024, cloexec=True)
    assert seen(table, fd) == file.c and table.c.cloexec[fd] == 1
    table.set_cloexec(fd, False)
    assert table.c.cloexec[fd] == 0
    high = table.install(file.get(), 1024, minimum=3 * SMALL)
    assert table.c.size > high and seen(table, high) == seen(table, fd) == file.c
    copy = table.copy()
    assert seen(copy, high) == file.c and seen(copy, 1) == ffi.NULL
    other = File(inode, 0)
    table.replace(fd, other, False)
    assert seen(table, fd) == other.c and seen(copy, fd) == file.c
    table.close_all()
    assert all(seen(table, number) == ffi.NULL for number in range(table.c.size))
    copy.close_all()


def test_a_limit_of_sizes_stays_with_the_copies() -> None:
    table = FDTable()
    table.limit_sizes()
    assert table.copy().c.flags & lib.TABLE_LIMITED


def test_pages_in_advance_are_in_no_file() -> None:
    fs = Tmpfs()
    inode = fs.new_regular(0o644, 0, 0)
    inode.write_at(b"x" * (INLINE_MAX + 1), 0)
    assert fs.quota.left == QUOTA
    assert fs.used_pages == inode.pages == 5
    assert inode.c.blocks == 40


def test_little_room_is_not_given_away() -> None:
    fs = Tmpfs(limit_bytes=1 << 20)
    fs.new_regular(0o644, 0, 0).write_at(b"x" * 100000, 0)
    assert fs.quota.left == 0


def test_the_flag() -> None:
    assert configure(*split(["--", "true"])).fastpath
    assert not configure(*split(["--no-fastpath", "--", "true"])).fastpath
