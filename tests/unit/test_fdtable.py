"""What the engine does with descriptors by itself, and what it leaves to Python (csrc/engine/fdtable.c)."""

from __future__ import annotations

import pytest
from sentry._engine import ffi, lib
from vfs_support import ROOT, FakeTask, run, tmpfs_context

from sentry.abi.fcntl import F_RDLCK, F_WRLCK, O_CREAT, O_RDWR
from sentry.fs import file as files
from sentry.fs.file import drain_closed
from sentry.fs.locks import flock, posix_lock
from sentry.fs.opening import open_file
from sentry.fs.pipe import open_pipe
from sentry.kernel.fdtable import FDTable


@pytest.fixture
def task():
    return FakeTask(tmpfs_context())


def opened(task, name=b"/f"):
    return run(open_file(task.fs, ROOT, name, O_CREAT | O_RDWR, 0o644))


def engine_close(table: FDTable, fd: int) -> bool:
    """As csrc/engine/fast_fd.c does it."""
    if not lib.vfile_close(table.c.files[fd], table.owner, True):
        return False
    lib.fd_table_take(table.c, fd)
    return True


def test_a_file_closed_by_the_engine_ends_when_python_comes(task):
    table, file = task.files, opened(task)
    fd = task.install(file)
    assert file.inode.writers == 1 and files.installed[file.c] is file
    assert engine_close(table, fd)
    assert (file.refs, file.inode.writers) == (0, 1)
    drain_closed()
    assert file.inode.writers == 0 and file.c not in files.installed
    assert lib.vfile_take_closed() == ffi.NULL


def test_all_but_the_last_close_need_nobody(task):
    reader, writer = open_pipe(0, task.cred)
    first, second = task.install(reader), task.install(reader.get())
    assert engine_close(task.files, first)
    assert not engine_close(task.files, second)  # a writer would have to hear of it
    assert task.files.numbers() == [second]
    writer.put()
    task.files.close_all()


def test_a_parked_call_keeps_the_file_for_python(task):
    file = opened(task)
    fd = task.install(file)
    file.c.holds = 1
    assert not engine_close(task.files, fd)
    file.c.holds = 0
    assert engine_close(task.files, fd)
    drain_closed()


def test_record_locks_end_with_any_close_and_waiters_are_pythons(task):
    file = opened(task)
    fd, same = task.install(file), task.install(file.get())
    inode, table = file.inode, task.files
    run(posix_lock(inode, table.owner, F_WRLCK, 0, 9, pid=1, wait=False))
    run(posix_lock(inode, file.lock_owner, F_RDLCK, 20, 29, pid=-1, wait=False, ofd=True))
    assert engine_close(table, same)
    assert inode.c.locks.count == 1
    run(flock(inode, file, F_RDLCK, False))
    assert not engine_close(table, fd)
    run(flock(inode, file, 2, False))
    assert engine_close(table, fd)
    assert not inode.c.locks
    drain_closed()


def test_numbers(task):
    table, file = FDTable(), opened(task)
    assert [table.install(file.get(), 1000, minimum=minimum) for minimum in (0, 5, 0, 5, 40)] == [
        0,
        5,
        1,
        6,
        40,
    ]
    table.close(0)
    assert table.install(file.get(), 1000) == 0 and table.install(file.get(), 1000) == 2
    assert table.numbers() == [0, 1, 2, 5, 6, 40] and table.c.used == 6
    table.replace(6, file.get(), True)
    assert file.refs == 7 and [fd for fd in table.numbers() if table.cloexec(fd)] == [6]
    assert table.numbers(5) == [5, 6, 40] and table.numbers(1, 2) == [1, 2] and table.last == 40
    copy = table.copy()
    assert copy.numbers() == table.numbers() and copy.cloexec(6) and file.refs == 13
    assert copy.install(file.get(), 1000) == 3
    table.mark_range(1, 5)
    for _ in table.closing(cloexec=True):
        pass
    assert table.numbers() == [0, 40]
    for _ in table.closing(1, 39):
        pass
    assert table.numbers() == [0, 40]
    table.close_all()
    assert table.last == -1
    copy.close_all()
    assert file.refs == 1
    file.put()
