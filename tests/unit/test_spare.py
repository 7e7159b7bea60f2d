"""Spare files: kept when closed, opened and closed by the engine, met again by Python, given up in time.

`engine_open` does what csrc/engine/fast_open.c does at a hit; the real one is tested by tests/twin.
"""

from __future__ import annotations

import errno

import pytest
from fakespace import FakeSpace
from sentry._engine import lib
from vfs_support import ROOT, FakeTask, run, tmpfs_context

from sentry.abi.errors import SysError
from sentry.abi.fcntl import F_WRLCK, O_CREAT, O_RDONLY, O_RDWR
from sentry.fs import dcache, modify, spare
from sentry.fs.dentry import Dentry, Mount, Path
from sentry.fs.file import File
from sentry.fs.locks import flock
from sentry.fs.opening import open_file
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.mm import Commit, MemoryManager
from sentry.mm.vma import let_go, take_number


@pytest.fixture(autouse=True)
def spares():
    spare.enable(True)
    yield
    spare.enable(False)
    assert not spare._spares


@pytest.fixture
def fs():
    return tmpfs_context()


def make(fs, name=b"/f"):
    run(open_file(fs, ROOT, name, O_CREAT | O_RDWR, 0o644)).put()


def close_one(fs, name=b"/f", flags=O_RDONLY):
    """Open and close: the File that may be a spare now."""
    file = run(open_file(fs, ROOT, name, flags))
    file.put()
    return file


def engine_open(table, file, fd):
    file.c.spare, file.c.pos, file.c.refs = spare.OPEN, 0, 1
    lib.fd_table_put(table.c, fd, file.c, False)


def test_the_last_close_keeps_a_file_and_an_open_number_gives_it_back(fs):
    make(fs)
    file = close_one(fs)
    assert file.c.spare == spare.IDLE and file.path.dentry.c.spares == file.c
    task = FakeTask(fs)
    engine_open(task.files, file, 5)
    assert task.files.get(5) is file
    assert (file.refs, file.c.spare) == (1, 0)
    assert not file.path.dentry.c.spares
    task.files.close(5)
    assert file.c.spare == spare.IDLE


def test_tables_are_copied_and_closed_without_meeting_them(fs):
    task = FakeTask(fs)
    files = []
    for name in (b"/a", b"/b", b"/c"):
        make(fs, name)
        files.append(close_one(fs, name))
    before = lib.descriptor_count
    for fd, file in zip((0, 3, 30), files, strict=True):
        engine_open(task.files, file, fd)
    task.files._cloexec[3] = 1
    other = task.files.copy()
    assert other.numbers() == [0, 3, 30] and [file.refs for file in files] == [2, 2, 2]
    assert all(file.c.spare == spare.OPEN for file in files)
    assert task.files.cloexec(3) and other.cloexec(3) and not other.cloexec(30)
    other.close_all()
    task.files.close_all()
    assert lib.descriptor_count == before
    assert all(file.c.spare == spare.IDLE for file in files)


def test_what_cannot_be_opened_alike_is_not_kept(fs):
    make(fs)
    assert not close_one(fs, b"/f", O_RDWR).c.spare
    held = run(open_file(fs, ROOT, b"/f", O_RDONLY))
    run(modify.unlink(fs.root, b"f", False, ROOT))
    held.put()
    assert not held.c.spare
    assert not close_one(fs, b"/").c.spare
    spare.enable(False)
    make(fs)
    assert not close_one(fs).c.spare


@pytest.mark.parametrize("what", ["unlink", "replace", "flock", "umount", "shrink"])
def test_given_up(fs, what):
    mount = None
    name = b"/f"
    if what == "umount":
        run(modify.mkdir(fs.root, b"m", 0o755, 0, ROOT))
        new = Tmpfs()
        mount = Mount(new, Dentry(None, b"", new.root))
        fs.namespace.attach(mount, Path(fs.root.mount, fs.root.dentry.children[b"m"]))
        name = b"/m/f"
    make(fs, name)
    make(fs, b"/other")
    idle, opened = run(open_file(fs, ROOT, name, O_RDONLY)), run(open_file(fs, ROOT, name, O_RDONLY))
    idle.put()
    opened.put()
    task = FakeTask(fs)
    engine_open(task.files, opened, 4)
    if what == "unlink":
        run(modify.unlink(fs.root, b"f", False, ROOT))
    elif what == "replace":
        run(modify.rename(fs.root, b"other", False, fs.root, b"f", False, 0, ROOT))
    elif what == "flock":
        run(flock(idle.inode, object(), F_WRLCK, False))
    elif what == "umount":
        fs.namespace.detach(mount)
    else:
        dcache.shrink()
    assert (idle.c.spare, opened.c.spare) == (0, spare.LAST)
    assert not idle.path.dentry.c.spares
    assert task.files.get(4) is opened
    task.files.close(4)
    if what in ("unlink", "replace", "flock"):
        assert not opened.c.spare


def test_only_so_many(fs, monkeypatch):
    monkeypatch.setattr(spare, "limit", 6)
    monkeypatch.setattr(spare, "MAX_ALIKE", 4)
    make(fs)
    alike = [run(open_file(fs, ROOT, b"/f", O_RDONLY)) for _ in range(spare.MAX_ALIKE + 2)]
    for file in alike:
        file.put()
    assert sum(bool(file.c.spare) for file in alike) == spare.MAX_ALIKE
    task = FakeTask(fs)
    engine_open(task.files, alike[0], 0)
    for i in range(20):
        make(fs, b"/%d" % i)
        assert close_one(fs, b"/%d" % i).c.spare
    assert len(spare._spares) == 6
    assert alike[0].c.spare == spare.OPEN
    task.files.close(0)


def test_numbers_that_the_engine_has_given_are_taken(fs):
    make(fs)
    task = FakeTask(fs)
    engine_open(task.files, close_one(fs), 0)
    new = run(open_file(fs, ROOT, b"/f", O_RDONLY))
    assert task.files.install(new, 100) == 1
    engine_open(task.files, close_one(fs), 2)
    with pytest.raises(SysError) as info:
        task.files.install(new.get(), 3)
    assert info.value.errno == errno.EMFILE
    new.put()
    task.files.close_all()


def map_it(mm, file, size=4096):
    """What the engine does when it maps `file`."""
    start = lib.mm_find_free(mm.c, size)
    assert lib.mm_map(mm.c, start, start + size, 0x71, file.c.number, 0, 0) == 0
    return start, start + size


def test_mapped_spares_are_not_opened_and_come_back(fs):
    make(fs)
    file = close_one(fs)
    task, mm = FakeTask(fs), MemoryManager(FakeSpace(), Commit())
    engine_open(task.files, file, 5)
    where = map_it(mm, file)
    assert mm.tree.at(where[0]).file is file
    lib.mm_object_get(file.c.number)  # a child's
    file.c.spare = spare.MAPPED  # closed by the engine
    lib.fd_table_take(task.files.c, 5).refs -= 1
    assert close_one(fs) is not file
    file.get().put()
    mm.unmap(where[0], 4096)
    assert file.c.spare == spare.MAPPED
    lib.mm_object_put(file.c.number)
    assert file.c.spare == spare.IDLE and file.refs == 0


def test_python_takes_a_mapped_spare(fs):
    """One reference is its descriptor's, one its mappings'."""
    make(fs)
    file = close_one(fs)
    task, mm = FakeTask(fs), MemoryManager(FakeSpace(), Commit())
    engine_open(task.files, file, 5)
    where = map_it(mm, file)
    assert task.files.get(5) is file and file.refs == 2 and not file.c.spare
    task.files.close(5)
    assert mm.tree.at(where[0]).file is file and file.refs == 1
    mm.unmap(where[0], 4096)
    assert file.refs == 0 and file.c.spare == spare.IDLE


def test_given_up_while_mapped(fs):
    make(fs)
    file = close_one(fs)
    mm = MemoryManager(FakeSpace(), Commit())
    where = map_it(mm, file)
    file.c.spare = spare.MAPPED
    ended = []
    run(modify.unlink(fs.root, b"f", False, ROOT))
    assert (file.c.spare, file.refs) == (0, 1) and mm.tree.at(where[0]).file is file
    File.release, release = lambda file: ended.append(file), File.release
    mm.unmap(where[0], 4096)
    File.release = release
    assert ended == [file] and file.c.number == 0


def test_a_file_that_only_waits_for_python_can_be_mapped_again(fs):
    make(fs)
    file, mm = run(open_file(fs, ROOT, b"/f", O_RDWR)), MemoryManager(FakeSpace(), Commit())
    number = take_number(file)
    where = map_it(mm, file)
    lib.mm_object_put(number)
    lib.mm_remove(mm.c, *where, 1)  # by the engine, which does not tell
    assert (file.c.number, file.refs) == (number, 2)
    where = map_it(mm, file)
    let_go()
    assert (file.c.number, file.refs) == (number, 2)
    lib.mm_remove(mm.c, *where, 1)
    let_go()
    assert (file.c.number, file.refs) == (0, 1)
    file.put()


def make_again(file, table, fd):
    """What the engine does when `file` is in use and its place is opened."""
    c = lib.vfile_make(file.c)
    c.spare, c.refs, c.flags = spare.OPEN, 1, 0o100000
    lib.fd_table_put(table.c, fd, c, False)
    return c


def test_the_engine_makes_another_description(fs):
    make(fs)
    writer = run(open_file(fs, ROOT, b"/f", O_RDWR))
    run(writer.write(b"abcdef"))
    file = close_one(fs)
    task, mm = FakeTask(fs), MemoryManager(FakeSpace(), Commit())
    engine_open(task.files, file, 5)
    first = make_again(file, task.files, 6)
    second = make_again(file, task.files, 7)
    assert len(spare._spares) == 1 and first.number and first.number != file.c.number
    start = lib.mm_find_free(mm.c, 4096)
    assert lib.mm_map(mm.c, start, start + 4096, 0x71, first.number, 0, 0) == 0
    mapped = mm.tree.at(start).file  # Python meets it by its number
    assert mapped is not file and mapped.c == first and first.spare == spare.OPEN
    other = task.files.get(7)
    assert other.c == second and (other.refs, second.spare) == (1, 0)
    assert run(other.read(3)) == b"abc" and (file.pos, mapped.pos, other.pos) == (0, 0, 3)
    task.files.close(6)
    assert first.spare == spare.MAPPED
    mm.unmap(start, 4096)
    assert first.spare == spare.IDLE
    task.files.close_all()
    writer.put()
    assert second.spare == spare.IDLE and lib.vfile_count_spares(file.path.dentry.c, 9) == 3


@pytest.mark.parametrize("what", ["unlink", "flock", "shrink"])
def test_another_description_is_given_up(fs, what):
    make(fs)
    file = close_one(fs)
    task = FakeTask(fs)
    engine_open(task.files, file, 5)
    c = make_again(file, task.files, 6)
    if what == "unlink":
        run(modify.unlink(fs.root, b"f", False, ROOT))
    elif what == "flock":
        run(flock(file.inode, object(), F_WRLCK, False))
    else:
        dcache.shrink()
    assert (file.c.spare, c.spare) == (spare.LAST, spare.LAST)
    other = task.files.get(6)
    assert other.inode is file.inode and other is not file and other.refs == 1
    task.files.close_all()


def test_the_engine_makes_only_so_many(fs):
    make(fs)
    file = close_one(fs)
    made = [lib.vfile_make(file.c) for _ in range(lib.MADE_MOST + 1)]
    assert not made[-1] and made[-2]
    spare.forget_all()
    assert not spare._spares and not file.c.spare
