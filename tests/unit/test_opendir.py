"""Directories that the engine opens and lists: what Python makes of them when it meets them.

`engine_open` does what csrc/engine/fast_dir.c does; the real one is tested by tests/twin/test_tree.py.
"""

from __future__ import annotations

import pytest
import sanitized
from sentry._engine import ffi, lib
from test_overlay import names, opened
from vfs_support import ROOT, FakeTask, outcome, overlay, place, run, tmpfs_context

from gofer.messages import LISTED
from sentry.abi.fcntl import O_CREAT, O_DIRECTORY, O_RDWR
from sentry.fs import dcache, modify, spare
from sentry.fs.dentry import Dentry, Mount, Path
from sentry.fs.opening import open_file
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.fs.walk import walk


@pytest.fixture(autouse=True)
def spares():
    spare.enable(True)
    yield
    spare.enable(False)
    assert not lib.directory_next(ffi.NULL)
    lib.listing_limit = lib.LISTING_BYTES


@pytest.fixture
def fs(tmp_path):
    for top in range(3):
        (tmp_path / f"d{top}" / "below").mkdir(parents=True)
        for number in range(5):
            (tmp_path / f"d{top}" / f"f{number}").write_bytes(b"%d" % number * 10)
    with overlay(tmp_path) as context:
        yield context


def engine_open(task, mount, d, fd):
    c = lib.directory_open(mount.c, d, O_DIRECTORY)
    assert c and c.spare == spare.OPEN
    lib.fd_table_put(task.files.c, fd, c, False)
    return c


def listed(file):
    found = []
    while entries := run(file.readdir()):
        found += [entry[3] for entry in entries]
        file.pos = entries[-1][1]
    return found


def learnt(directory, name):
    return lib.dnode_learnt(directory.c, name, len(name))


def tell(fs, name):
    """What sentry/fs/gofer/coming.py does when the listing of /`name` comes: its learnt dnode."""
    names(fs, b"/")
    d = learnt(fs.root.dentry, name)
    lower = fs.root.inode.lower
    data = run(lower.fs.client.list_dirs(*lower.short_route(), [name]))[0][1].data
    assert lib.dnode_list(d, data, len(data)) and lib.dnode_learn(d, data, len(data), d.vnode.dev, 1) == 6
    return d


def test_one_that_is_closed_leaves_nothing(fs):
    task, before = FakeTask(fs), lib.descriptor_count
    c = engine_open(task, fs.root.mount, place(fs, b"/d0").dentry.c, 3)
    other = task.files.copy()
    task.files.close(3)
    assert lib.directory_next(ffi.NULL) == c and c.refs == 1
    other.close_all()
    assert not lib.directory_next(ffi.NULL) and lib.descriptor_count == before
    assert not place(fs, b"/d0").dentry.c.spares


def test_python_meets_one_at_its_descriptor(fs):
    task, directory = FakeTask(fs), place(fs, b"/d0")
    c = engine_open(task, fs.root.mount, directory.dentry.c, 3)
    file = task.files.get(3)
    assert file.c == c and (file.refs, c.spare, c.kind) == (1, 0, lib.VFILE_PYTHON)
    assert file.path == directory and file is task.files.get(3)
    assert len(listed(file)) == 8 and file.flags == O_DIRECTORY
    task.files.close(3)


def test_a_listing_that_was_begun_goes_on_as_it_was(fs):
    names(fs, b"/d0")
    directory = place(fs, b"/d0")
    assert directory.dentry.c.listing.count == 6
    task = FakeTask(fs)
    c = engine_open(task, fs.root.mount, directory.dentry.c, 3)
    c.object, c.pos = lib.listing_get(directory.dentry.c.listing), 3
    run(modify.unlink(directory, b"f1", False, ROOT))
    run(open_file(fs, ROOT, b"/d0/new", O_CREAT | O_RDWR, 0o644)).put()
    assert not directory.dentry.c.listing
    file = task.files.get(3)
    rest = listed(file)
    assert len(rest) == 5 and b"new" not in rest
    file.pos = 0
    assert b"new" in (now := listed(file)) and b"f1" not in now
    names(fs, b"/d0")
    assert not directory.dentry.c.listing
    task.files.close(3)


@pytest.mark.parametrize("what", ["removed", "replaced", "renamed", "pruned"])
def test_its_name_goes(fs, what):
    task, directory = FakeTask(fs), place(fs, b"/d0/below")
    c = engine_open(task, fs.root.mount, directory.dentry.c, 3)
    if what == "removed":
        run(modify.rmdir(place(fs, b"/d0"), b"below", ROOT))
    elif what == "replaced":
        top = place(fs, b"/d1")
        run(modify.rename(top, b"below", False, place(fs, b"/d0"), b"below", False, 0, ROOT))
    elif what == "renamed":
        run(modify.rename(place(fs, b"/d0"), b"below", False, place(fs, b"/d1"), b"other", False, 0, ROOT))
    del directory
    dcache.shrink()
    gone = what in ("removed", "replaced")
    assert (c.spare == 0) == gone
    path = task.files.get(3).path
    assert path.dentry.deleted == gone
    if what == "renamed":
        assert path == place(fs, b"/d1/other")
    task.files.close(3)


def test_its_mount_goes():
    fs = tmpfs_context()
    run(modify.mkdir(fs.root, b"m", 0o755, 0, ROOT))
    mount = Mount(Tmpfs(), (root := Dentry(None, b"", Tmpfs().root)))
    fs.namespace.attach(mount, Path(fs.root.mount, fs.root.dentry.children[b"m"]))
    task = FakeTask(fs)
    c = engine_open(task, mount, root.c, 3)
    fs.namespace.detach(mount)
    assert not c.spare and task.files.get(3).path == Path(mount, root)
    assert not lib.directory_open(mount.c, root.c, 0)
    task.files.close(3)


def test_who_replaces_a_learnt_directory_takes_over_what_is_in_it(fs):
    d = tell(fs, b"d1")
    task, mount = FakeTask(fs), fs.root.mount
    c = engine_open(task, mount, d, 3)
    below = engine_open(task, mount, lib.dnode_learnt(d, b"below", 5), 4)
    child = lib.dnode_learnt(d, b"f2", 2)
    lib.dnode_unlearn(d)  # it is in use
    assert learnt(fs.root.dentry, b"d1") == d
    file = task.files.get(4)  # which makes the dentries of both
    directory = place(fs, b"/d1")
    assert not learnt(fs.root.dentry, b"d1") and file.path == place(fs, b"/d1/below")
    assert (c.spare, below.spare) == (0, 0) and task.files.get(3).path == directory
    assert directory.dentry.c.listing.count == 6
    assert learnt(directory.dentry, b"f2") == child and child.parent == directory.dentry.c
    assert sorted(listed(task.files.get(3))) == sorted(
        [b".", b"..", b"below", *(b"f%d" % i for i in range(5))]
    )
    assert outcome(walk(fs, ROOT, b"/d1/f2")) and not learnt(directory.dentry, b"f2")
    task.files.close_all()


def test_listings_are_bounded_and_checked(fs):
    names(fs, b"/d0")
    names(fs, b"/d1")
    one, two = place(fs, b"/d0").dentry.c, place(fs, b"/d1").dentry.c
    held = lib.listing_get(one.listing)
    lib.listing_limit = 1
    data = bytes(ffi.buffer(two.listing.data, two.listing.size))
    assert lib.dnode_list(two, data, len(data)) and two.listing and not one.listing
    assert held.count == 6 and not held.dnode
    lib.listing_put(held)
    long_name = LISTED.pack(*[0] * 12, 300, 0, 0) + b"n" * 300
    for bad in (data[:-1], data + b"x", data[:-200], long_name):
        assert not lib.dnode_list(two, bad, len(bad)) and not two.listing
    assert lib.dnode_list(two, b"", 0) and two.listing.count == 0
    lib.dnode_unlist(two)
    plain = place(fs, b"/d0/f1").dentry.c
    assert not lib.dnode_list(plain, data, len(data)) and not lib.directory_open(fs.root.mount.c, plain, 0)


def test_listings_of_damaged_bytes(tmp_path, seeded, long_form):
    good, bad = sanitized.run(
        "listing", tmp_path, seeded.randrange(1 << 32), 300_000 if long_form else 20_000
    ).split()
    assert int(good) and int(bad)


def test_a_listing_on_its_way_is_waited_for(fs, monkeypatch):
    lower = fs.root.mount.fs.lower
    listing = opened(fs, b"/")
    first, second, third = [name for name in listed(listing) if name.startswith(b"d")]
    listing.put()
    names(fs, b"/" + first)
    assert not lower.coming
    names(fs, b"/" + second)
    assert [coming.names for coming in lower.coming] == [[third]]
    monkeypatch.setattr(lower.client, "list_dirs", None)
    assert len(names(fs, b"/" + third)) == 6
    assert not lower.coming and lower.ahead_lists.start


def test_only_so_many_open_at_one_place(fs):
    d = place(fs, b"/d0").dentry.c
    task = FakeTask(fs)
    for fd in range(16):
        engine_open(task, fs.root.mount, d, fd)
    more = [lib.directory_open(fs.root.mount.c, d, 0) for _ in range(lib.ALIKE_MOST)]
    assert more[-1] == ffi.NULL and more[lib.ALIKE_MOST - 17]
    for c in more:
        if c:
            lib.directory_close(c)
    task.files.close_all()
