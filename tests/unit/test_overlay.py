"""The overlay over a live Gofer: nothing reaches the host, and what was changed stays changed."""

from __future__ import annotations

import errno
import gc
import os

import pytest
from vfs_support import ROOT, Gofer, outcome, overlay, run

from sentry.fs import dcache, modify, setup
from sentry.fs.gofer import filesystem as gofer_filesystem
from sentry.fs.gofer.client import Client
from sentry.fs.opening import open_file
from sentry.fs.walk import walk

LARGE = os.urandom(3 << 20)


@pytest.fixture
def host(tmp_path):
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    (tmp_path / "dir" / "file").write_bytes(b"lower")
    (tmp_path / "dir" / "large").write_bytes(LARGE)
    (tmp_path / "empty").write_bytes(b"")
    os.link(tmp_path / "dir" / "file", tmp_path / "twin")
    os.symlink("dir/file", tmp_path / "link")
    return tmp_path


@pytest.fixture
def fs(host):
    with overlay(host) as context:
        yield context


@pytest.fixture
def asked(monkeypatch):
    """The requests that go to the Gofer, by type."""
    requests = []
    submit = Client._submit

    def note(self, message, *rest):
        requests.append(message.__class__.__name__)
        return submit(self, message, *rest)

    monkeypatch.setattr(Client, "_submit", note)
    return requests


def snapshot(path):
    return {
        str(p): (p.lstat().st_mode, p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else b"")
        for p in sorted(path.rglob("*"))
    }


def opened(fs, path, flags=os.O_RDONLY, mode=0o644):
    return run(open_file(fs, ROOT, path, flags, mode))


def content(fs, path):
    file = opened(fs, path)
    try:
        return run(file.pread(1 << 23, 0))
    finally:
        file.put()


def names(fs, path):
    file, found = opened(fs, path, os.O_DIRECTORY), []
    while entries := run(file.readdir()):
        found += [entry[3] for entry in entries]
        file.pos = entries[-1][1]
    return sorted(set(found) - {b".", b".."})


def forget():
    """Drop every cached name and inode that nothing holds."""
    dcache.shrink()
    gc.collect()


def test_reads_come_from_below(fs):
    assert content(fs, b"/link") == b"lower"
    assert content(fs, b"/dir/large") == LARGE
    assert names(fs, b"/") == [b"dir", b"empty", b"link", b"twin"]
    file = opened(fs, b"/dir/file")
    assert os.pread(run(file.host_mapping(True, False)), 5, 0) == b"lower"


def test_copy_up_keeps_number_names_and_open_files(fs, host):
    before = snapshot(host)
    old = opened(fs, b"/dir/file")
    inode = run(walk(fs, ROOT, b"/dir/file")).inode
    number, times = (inode.ino, inode.fs.dev, inode.nlink), (inode.mtime, inode.ctime)
    file = opened(fs, b"/dir/file", os.O_RDWR)
    assert (inode.mtime, inode.ctime) == times
    assert run(file.pwrite(b"UP", 0)) == 2
    file.put()
    del inode, file
    forget()
    inode = run(walk(fs, ROOT, b"/dir/file")).inode
    assert (inode.ino, inode.fs.dev, inode.nlink) == number
    assert content(fs, b"/dir/file") == b"UPwer"
    assert content(fs, b"/twin") == b"UPwer"  # the other name of the same file
    assert run(old.pread(10, 0)) == b"lower"  # opened before the copy: Linux keeps reading below
    assert snapshot(host) == before


def test_large_copy_up_and_truncate(fs):
    file = opened(fs, b"/dir/large", os.O_RDWR | os.O_APPEND)
    run(file.write(b"end"))
    assert content(fs, b"/dir/large") == LARGE + b"end"
    opened(fs, b"/dir/file", os.O_WRONLY | os.O_TRUNC)
    assert content(fs, b"/dir/file") == b""


def test_no_space_for_a_copy(fs):
    fs.root.mount.fs.limit_pages = 4
    assert outcome(open_file(fs, ROOT, b"/dir/large", os.O_RDWR)) == "ENOSPC"
    assert content(fs, b"/dir/large") == LARGE
    assert fs.root.mount.fs.used_pages == 0
    fs.root.mount.fs.limit_pages = 4096
    assert run(opened(fs, b"/dir/large", os.O_RDWR).pread(9, 0)) == LARGE[:9]


def test_whiteouts(fs, host):
    before = snapshot(host)
    place = run(walk(fs, ROOT, b"/dir"))
    run(modify.unlink(place, b"file", False, ROOT))
    forget()
    assert outcome(walk(fs, ROOT, b"/dir/file")) == "ENOENT"
    assert names(fs, b"/dir") == [b"large", b"sub"]
    assert run(walk(fs, ROOT, b"/twin")).inode.nlink == 1
    assert content(fs, b"/twin") == b"lower"
    opened(fs, b"/dir/file", os.O_CREAT | os.O_WRONLY)
    assert names(fs, b"/dir") == [b"file", b"large", b"sub"]
    assert content(fs, b"/dir/file") == b""
    run(modify.unlink(place, b"file", False, ROOT))
    forget()
    assert outcome(walk(fs, ROOT, b"/dir/file")) == "ENOENT"
    assert snapshot(host) == before


def test_removed_directories_come_back_empty(fs):
    assert outcome(modify.rmdir(fs.root, b"dir", ROOT)) == "ENOTEMPTY"
    place = run(walk(fs, ROOT, b"/dir"))
    for name in (b"file", b"large"):
        run(modify.unlink(place, name, False, ROOT))
    run(modify.rmdir(place, b"sub", ROOT))
    run(modify.rmdir(fs.root, b"dir", ROOT))
    assert outcome(walk(fs, ROOT, b"/dir")) == "ENOENT"
    run(modify.mkdir(fs.root, b"dir", 0o755, 0, ROOT))
    forget()
    assert names(fs, b"/dir") == []


def test_directories_are_renamed_with_what_is_below(fs):
    run(modify.rename(fs.root, b"dir", False, fs.root, b"new", False, 0, ROOT))
    forget()
    assert outcome(walk(fs, ROOT, b"/dir")) == "ENOENT"
    assert content(fs, b"/new/file") == b"lower"
    opened(fs, b"/new/sub/x", os.O_CREAT)
    run(modify.rename(fs.root, b"new", False, fs.root, b"dir", False, 0, ROOT))
    forget()
    assert names(fs, b"/dir") == [b"file", b"large", b"sub"]
    assert names(fs, b"/dir/sub") == [b"x"]


def test_metadata_without_data(fs):
    place = run(walk(fs, ROOT, b"/dir/large"))
    run(modify.chmod(place, 0o600, ROOT))
    run(modify.chown(place, 7, 8, ROOT))
    run(place.inode.setxattr(b"user.x", b"1", 0))
    assert fs.root.mount.fs.used_pages < 5
    del place
    forget()
    inode = run(walk(fs, ROOT, b"/dir/large")).inode
    assert (inode.mode & 0o7777, inode.uid, inode.gid) == (0o600, 7, 8)
    assert run(inode.getxattr(b"user.x")) == b"1"
    assert content(fs, b"/dir/large") == LARGE


def test_replacing_a_lower_file(fs):
    file = opened(fs, b"/tmp", os.O_CREAT | os.O_RDWR)
    run(file.write(b"new"))
    run(modify.rename(fs.root, b"tmp", False, run(walk(fs, ROOT, b"/dir")), b"file", False, 0, ROOT))
    forget()
    assert content(fs, b"/dir/file") == b"new"
    assert names(fs, b"/") == [b"dir", b"empty", b"link", b"twin"]
    run(modify.unlink(run(walk(fs, ROOT, b"/dir")), b"file", False, ROOT))
    forget()
    assert outcome(walk(fs, ROOT, b"/dir/file")) == "ENOENT"


def test_unused_inodes_are_let_go(fs, host):
    for number in range(50):
        (host / f"n{number}").write_bytes(b"")
    for name in names(fs, b"/"):
        run(walk(fs, ROOT, b"/" + name, follow=False))
    lower = fs.root.mount.fs.lower
    assert len(lower._inodes) > 50
    forget()
    assert len(lower._inodes) < 10
    assert len(fs.root.mount.fs.known) == len(lower._inodes)


class TestBind:
    """The Gofer's tree as it is, writable and shared with the host."""

    @pytest.fixture
    def fs(self, host):
        gofer = Gofer(host, readonly=False)
        root = run(setup.attach(gofer.client, b"", exclusive=False))
        namespace = setup.MountNamespace(setup.Mount(root, setup.Dentry(None, b"", root.root)))
        yield setup.context(namespace)
        gofer.close()

    def test_the_host_changes(self, fs, host):
        assert content(fs, b"/dir/file") == b"lower"
        os.rename(host / "dir" / "file", host / "dir" / "other")
        assert outcome(walk(fs, ROOT, b"/dir/file")) == "ENOENT"
        (host / "dir" / "other").write_bytes(b"grown longer")
        inode = run(walk(fs, ROOT, b"/dir/other")).inode
        run(inode.refresh())
        assert inode.size == 12

    def test_we_change_the_host(self, fs, host):
        file = opened(fs, b"/new", os.O_CREAT | os.O_RDWR, 0o640)
        assert run(file.write(b"hello")) == 5
        assert (host / "new").read_bytes() == b"hello"
        assert (host / "new").stat().st_mode & 0o7777 == 0o640
        run(file.truncate(2))
        place = run(walk(fs, ROOT, b"/dir"))
        run(modify.mkdir(place, b"made", 0o700, 0, ROOT))
        run(modify.rename(fs.root, b"new", False, place, b"moved", False, 0, ROOT))
        assert (host / "dir" / "moved").read_bytes() == b"he"
        run(modify.symlink(place, b"s", b"target", ROOT))
        assert os.readlink(host / "dir" / "s") == "target"
        run(modify.link(run(walk(fs, ROOT, b"/dir/moved")), place, b"hard", ROOT))
        assert run(walk(fs, ROOT, b"/dir/hard")).inode is file.inode
        assert (host / "dir" / "moved").stat().st_nlink == 2
        run(modify.unlink(place, b"hard", False, ROOT))
        run(modify.rmdir(place, b"made", ROOT))
        run(modify.chmod(run(walk(fs, ROOT, b"/dir/moved")), 0o600, ROOT))
        assert (host / "dir" / "moved").stat().st_mode & 0o7777 == 0o600
        assert names(fs, b"/dir") == sorted(os.listdir(os.fsencode(host / "dir")))

    def test_opens_share_a_descriptor(self, fs):
        one, two = opened(fs, b"/dir/file"), opened(fs, b"/dir/file")
        assert one.handle is two.handle
        run(one.read(2))
        assert run(two.read(10)) == b"lower"
        assert opened(fs, b"/dir/file", os.O_RDWR).handle is not one.handle

    def test_a_dead_gofer_is_eio(self, fs):
        file = opened(fs, b"/dir/file")
        fs.root.mount.fs.client._die()
        assert run(file.pread(5, 0)) == b"lower"
        assert outcome(walk(fs, ROOT, b"/dir/large")) == errno.errorcode[errno.EIO]


def test_a_listed_directory_needs_no_more_questions(fs, host, asked):
    assert names(fs, b"/dir") == [b"file", b"large", b"sub"]
    del asked[:]
    for name in (b"file", b"large", b"sub"):
        inode = run(walk(fs, ROOT, b"/dir/" + name)).inode
        stat = (host / "dir" / name.decode()).lstat()
        assert (inode.mode, inode.ino, inode.mtime) == (stat.st_mode, stat.st_ino, stat.st_mtime_ns)
        if name != b"sub":
            assert (inode.size, inode.nlink) == (stat.st_size, stat.st_nlink)
    assert outcome(walk(fs, ROOT, b"/dir/no")) == "ENOENT"
    assert asked == []
    assert content(fs, b"/dir/file") == b"lower"
    assert names(fs, b"/dir/sub") == []
    assert [name for name in asked if name != "Tclunk"] == ["Topenfiles", "Tlistdirs"]
    assert run(walk(fs, ROOT, b"/twin")).inode is run(walk(fs, ROOT, b"/dir/file")).inode


def test_changes_win_over_a_listing(fs, host):
    assert names(fs, b"/dir") == [b"file", b"large", b"sub"]
    run(modify.chmod(run(walk(fs, ROOT, b"/dir/file")), 0o600, ROOT))
    run(modify.unlink(run(walk(fs, ROOT, b"/dir")), b"large", False, ROOT))
    opened(fs, b"/dir/new", os.O_CREAT | os.O_WRONLY).put()
    forget()
    assert names(fs, b"/dir") == [b"file", b"new", b"sub"]
    assert run(walk(fs, ROOT, b"/dir/file")).inode.mode & 0o777 == 0o600
    assert run(walk(fs, ROOT, b"/twin")).inode.mode & 0o777 == 0o600
    assert outcome(walk(fs, ROOT, b"/dir/large")) == "ENOENT"


def test_listings_are_bounded(fs, host, asked, monkeypatch):
    monkeypatch.setattr(gofer_filesystem, "LISTED_NAMES", 4)
    assert names(fs, b"/dir") == [b"file", b"large", b"sub"]
    assert names(fs, b"/") == [b"dir", b"empty", b"link", b"twin"]
    del asked[:]
    assert run(walk(fs, ROOT, b"/dir/file")).inode.size == 5
    assert asked  # forgotten
    del asked[:]
    assert outcome(walk(fs, ROOT, b"/no")) == "ENOENT" and asked == []


def test_a_small_directory_is_listed_when_names_are_looked_up_there_again(fs, host, asked):
    for name in (b"file", b"large"):
        run(walk(fs, ROOT, b"/dir/" + name))
    assert asked.count("Tlistdirs") == 1
    del asked[:]
    assert outcome(walk(fs, ROOT, b"/dir/no")) == "ENOENT"
    assert run(walk(fs, ROOT, b"/dir/sub")).inode.is_dir
    assert asked == []
    # What came from a listing has no fid, and needs none to look further.
    (host / "dir" / "sub" / "deep").write_bytes(b"x")
    assert content(fs, b"/dir/sub/deep") == b"x"
    assert [name for name in asked if name != "Tclunk"] == ["Tlook"]


def test_the_end_of_a_listing_is_known_to_the_engine(fs):
    file = opened(fs, b"/dir", os.O_DIRECTORY)
    assert file.c.dir_end == 0
    entries = run(file.readdir())
    assert file.c.dir_end == entries[-1][1] == len(entries)
    file.pos = 0
    opened(fs, b"/dir/more", os.O_CREAT | os.O_WRONLY).put()
    assert len(run(file.readdir())) == len(entries) + 1 == file.c.dir_end
    file.put()


def test_a_path_that_nobody_knows_is_one_message(fs, host, asked):
    below = host / "dir" / "sub" / "one" / "two"
    below.mkdir(parents=True)
    (below / "three").write_bytes(b"xyz")
    (host / "way").symlink_to("dir/sub")
    assert run(walk(fs, ROOT, b"/dir/sub/./one/../one/two/three")).inode.size == 3
    assert (
        asked.count("Tlook") + asked.count("Twalkgetattr") == 3
    )  # up to the dots, between them, and from there
    del asked[:]
    assert outcome(walk(fs, ROOT, b"/dir/sub/one/two/three/no")) == "ENOTDIR"
    assert run(walk(fs, ROOT, b"/way/one/two/three")).inode.size == 3
    assert content(fs, b"/way/one/two/three") == b"xyz"


def test_what_came_with_a_longer_walk_is_not_believed_when_it_has_changed(fs, host, asked):
    (host / "dir" / "sub" / "one").mkdir(parents=True)
    assert outcome(walk(fs, ROOT, b"/dir/sub/none/two")) == "ENOENT"
    assert asked.count("Tlook") == 1
    sub = run(walk(fs, ROOT, b"/dir/sub"))
    run(modify.mkdir(sub, b"none", 0o755, 0, ROOT))
    opened(fs, b"/dir/sub/none/two", os.O_CREAT | os.O_WRONLY).put()
    assert run(walk(fs, ROOT, b"/dir/sub/none/two")).inode.size == 0
    run(modify.rmdir(sub, b"one", ROOT))
    assert outcome(walk(fs, ROOT, b"/dir/sub/one/two")) == "ENOENT"
