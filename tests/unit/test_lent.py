"""What listings bring along: names that only the engine knows, and files that are open before anybody asks.

`engine_open` does what csrc/engine/fast_open.c does; the real one is tested by tests/twin/test_tree.py.
"""

from __future__ import annotations

import os

import pytest
from sentry._engine import lib
from test_overlay import names, opened
from vfs_support import ROOT, FakeTask, outcome, overlay, place, run

from gofer.messages import LISTED, Listing
from sentry.fs import dcache, lent, modify, spare
from sentry.fs.gofer import ahead
from sentry.fs.gofer.client import Client
from sentry.fs.walk import walk


@pytest.fixture(autouse=True)
def spares():
    spare.enable(True)
    yield
    spare.enable(False)
    assert not lent._batches
    lib.learnt_limit = lib.LEARNT_MAX


@pytest.fixture
def host(tmp_path):
    for top in range(4):
        (tmp_path / f"d{top}").mkdir()
        for number in range(20):
            (tmp_path / f"d{top}" / f"f{number}").write_bytes(b"%d" % number * 10)
    os.link(tmp_path / "d0" / "f3", tmp_path / "d0" / "twin")
    os.symlink("f1", tmp_path / "d0" / "link")
    return tmp_path


@pytest.fixture
def fs(host):
    with overlay(host) as context:
        yield context


def learnt(fs, top, name):
    return lib.dnode_learnt(place(fs, top).dentry.c, name, len(name))


def read_first(fs, top=b"/d0", count=2):
    """Read files in the order of the listing until others have been lent: the names of those."""
    file, order = opened(fs, top, os.O_DIRECTORY), []
    while entries := run(file.readdir()):
        order += [entry[3] for entry in entries if entry[2] == 8]
        file.pos = entries[-1][1]
    for name in order[:count]:
        opened(fs, top + b"/" + name).put()
    return [name for name in order if (d := learnt(fs, top, name)) and d.spares]


def engine_open(fs, task, top, name, fd):
    c = learnt(fs, top, name).spares
    c.spare, c.pos, c.flags, c.refs = spare.OPEN, 0, 0o100000, 1
    lib.fd_table_put(task.files.c, fd, c, False)
    return c


def content(file):
    return run(file.pread(100, 0))


def test_the_engine_learns_what_python_would_say(fs):
    names(fs, b"/d0")
    numbers = ("dev", "ino", "nlink", "mode", "uid", "gid", "rdev", "blksize", "size", "blocks", "flags")
    fields = (*numbers, "atime", "mtime", "ctime", "btime")
    told = {}
    for name in (b"f1", b"f2", b"link"):
        told[name] = [getattr(learnt(fs, b"/d0", name).vnode, field) for field in fields]
    assert not learnt(fs, b"/d0", b"twin") and not learnt(fs, b"/d0", b"no")
    before = lib.learnt_count
    for name, values in told.items():
        inode = run(walk(fs, ROOT, b"/d0/" + name, follow=False)).inode
        assert [getattr(inode.c, field) for field in fields] == values
        assert not learnt(fs, b"/d0", name), "Python's takes its place"
    assert lib.learnt_count == before - 3


def test_changed_files_and_removed_names_are_not_learnt(fs):
    run(modify.chmod(place(fs, b"/d0/f1"), 0o600, ROOT))
    run(modify.unlink(place(fs, b"/d0"), b"f2", False, ROOT))
    opened(fs, b"/d0/new", os.O_CREAT | os.O_WRONLY, 0o644).put()
    for _ in range(5):
        dcache.shrink()
        names(fs, b"/d0")
        assert not any(learnt(fs, b"/d0", name) for name in (b"f1", b"f2", b"new"))
    assert learnt(fs, b"/d0", b"f4")


def test_learnt_names_go_with_their_directory_and_when_they_are_many(fs):
    dcache.shrink()
    before = lib.learnt_count
    names(fs, b"/d1")
    assert lib.learnt_count == before + 20
    lib.learnt_limit = before + 25
    names(fs, b"/d2")
    assert lib.learnt_count == before + 25 and learnt(fs, b"/d2", b"f1")
    lib.learnt_limit = lib.LEARNT_MAX
    for number in range(20):
        run(modify.unlink(place(fs, b"/d2"), b"f%d" % number, False, ROOT))
    run(modify.rmdir(place(fs, b"/"), b"d2", ROOT))
    dcache.shrink()
    assert lib.learnt_count == before
    assert outcome(walk(fs, ROOT, b"/d2")) == "ENOENT"


def test_who_reads_one_after_the_other_is_lent_the_next(fs, monkeypatch):
    asked = []
    submit = Client._submit

    def note(self, message, *rest):
        asked.append(message.__class__.__name__)
        return submit(self, message, *rest)

    monkeypatch.setattr(Client, "_submit", note)
    lent_names = read_first(fs)
    assert len(lent_names) >= 3
    task = FakeTask(fs)
    del asked[:]
    for fd, name in enumerate(lent_names, 5):
        c = engine_open(fs, task, b"/d0", name, fd)
        file = task.files.get(fd)
        assert file.c == c and file.refs == 1 and content(file) == name[1:] * 10
        assert file.inode is place(fs, b"/d0/" + name).inode and c.node == file.inode.c
        task.files.close(fd)
        assert c.spare == spare.IDLE and place(fs, b"/d0/" + name).dentry.c.spares == c
    assert asked == []
    # The next directory begins with what was right here.
    assert len(read_first(fs, b"/d1", 1)) >= 4


def test_who_jumps_about_is_lent_nothing(fs):
    names(fs, b"/d0")
    listed = [name for _, kind, name in place(fs, b"/d0").inode.lower.listing.brief if kind == 8]
    left, last = sorted(listed), listed[0]
    while left:
        left.remove(last)
        opened(fs, b"/d0/" + last).put()
        far = [
            name
            for name in left
            if not 0 < listed.index(name) - listed.index(last) <= ahead.MAY_SKIP + 1
            and not 0 < sorted(listed).index(name) - sorted(listed).index(last) <= ahead.MAY_SKIP + 1
        ]
        if not far:
            break
        last = far[0]
    assert not lent._batches


def test_a_name_that_python_looks_up_keeps_its_open_file(fs):
    name, other = read_first(fs)[:2]
    task = FakeTask(fs)
    c = engine_open(fs, task, b"/d0", name, 5)
    run(modify.chmod(place(fs, b"/d0/" + name), 0o604, ROOT))
    assert c.node.mode & 0o777 == 0o604 and c.spare == spare.OPEN
    run(modify.unlink(place(fs, b"/d0"), name, False, ROOT))
    assert c.node.nlink == 0 and c.spare == spare.LAST
    file = task.files.get(5)
    assert content(file) == name[1:] * 10 and file.path.dentry.deleted
    task.files.close(5)
    run(modify.rename(place(fs, b"/d0"), other, False, place(fs, b"/d1"), b"moved", False, 0, ROOT))
    moved = opened(fs, b"/d1/moved")
    assert content(moved) == other[1:] * 10
    moved.put()


def test_an_open_file_outlives_all_its_names(fs, host):
    name = read_first(fs)[0]
    task = FakeTask(fs)
    c = engine_open(fs, task, b"/d0", name, 5)
    directory = place(fs, b"/d0").dentry
    lent.forget(lambda d, _: d == directory.c)
    lib.dnode_unlearn_all(directory.c)
    assert c.spare == spare.LAST and c.node.size == len(name[1:] * 10)
    assert content(task.files.get(5)) == name[1:] * 10
    task.files.close(5)


def test_a_lookup_that_finds_another_file_leaves_the_open_one_alone(fs):
    name = read_first(fs)[0]
    task = FakeTask(fs)
    c = engine_open(fs, task, b"/d0", name, 5)
    other = place(fs, b"/d1/f1").inode
    dcache._insert(dcache.Dentry(place(fs, b"/d0").dentry, name, other))
    assert c.spare == spare.LAST
    file = task.files.get(5)
    assert file.inode is not other and content(file) == name[1:] * 10
    task.files.close(5)


def test_only_so_many_are_lent(fs, monkeypatch):
    monkeypatch.setattr(lent, "LIMIT", 30)
    before = len(os.listdir("/proc/self/fd"))
    task = FakeTask(fs)
    held = engine_open(fs, task, b"/d0", read_first(fs)[0], 5)
    for top in (b"/d1", b"/d2", b"/d3"):
        read_first(fs, top)
        assert sum(batch.count for batch in lent._batches.values()) <= 30
    assert held.spare == spare.OPEN and content(task.files.get(5))
    task.files.close(5)
    spare.forget_all()
    dcache.shrink()
    fs.root.mount.fs.lower.foresight._seen.clear()
    for key in list(fs.root.mount.fs.lower.recent):
        fs.root.mount.fs.lower.drop_handles(key[0])
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_came_ahead_is_bounded(monkeypatch):
    monkeypatch.setattr(ahead, "MAX_FORESEEN", 3)
    monkeypatch.setattr(ahead, "MAX_FORESEEN_NAMES", 6)
    monkeypatch.setattr(ahead, "MAX_FORESEEN_FILES", 4)
    before = len(os.listdir("/proc/self/fd"))
    seen = ahead.Foresight()

    def foreseen(names, files):
        entries = [LISTED.pack(*[0] * 12, 1, 8, 1) + b"%d" % n for n in range(names)]
        fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(files)]
        return ahead.Foreseen(Listing(b"".join(entries)), list(range(files)), fds)

    for ino in range(5):
        seen.add(ino, foreseen(1, 1))
    assert [ino in seen for ino in range(5)] == [False, False, True, True, True]
    seen.add(5, foreseen(5, 0))
    assert [ino in seen for ino in range(6)] == [False] * 4 + [True, True]
    seen.add(6, foreseen(0, 4))
    assert 4 not in seen and 6 in seen
    assert len(os.listdir("/proc/self/fd")) == before + 4
    seen.add(6, foreseen(0, 0))
    assert len(os.listdir("/proc/self/fd")) == before
    assert seen.take(6) and not seen.take(6)


@pytest.mark.parametrize("order", ["listed", "sorted"])
def test_the_window_follows_either_order_and_forgets_what_was_for_nothing(order):
    names = [b"%d" % (n * 7 % 40) for n in range(40)]
    listing = Listing(b"".join(LISTED.pack(*[0] * 12, len(name), 8, 1) + name for name in names))
    memory, readers = ahead.Ahead(), ahead.Order(listing, 8)
    assert readers.after(b"none", memory) == []
    todo, opened, windows = names if order == "listed" else sorted(names), set(), []
    for at, name in enumerate(todo):
        if name not in opened:
            came = readers.after(name, memory)
            assert came == todo[at + 1 : at + 1 + len(came)]
            opened.update(came)
            windows.append(len(came))
    assert windows == [0, 4, 8, 16, 7] and memory.start >= 16
    memory.came([ahead.Foreseen(listing, [], []) for _ in range(8)])  # of which none was used
    assert len(ahead.Order(listing, 8).after(todo[0], memory)) < 16
