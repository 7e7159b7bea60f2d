"""tmpfs: storage, limits, holes, listings, extended attributes; and what stays when names go."""

from __future__ import annotations

import gc
import os

import pytest
from vfs_support import ROOT, outcome, run, tmpfs_context

from sentry.abi.fcntl import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_RDWR,
    O_TMPFILE,
    SEEK_DATA,
    SEEK_HOLE,
)
from sentry.fs import modify
from sentry.fs.dentry import Path
from sentry.fs.opening import open_file
from sentry.fs.tmpfs.node import storage
from sentry.fs.tmpfs.regular import INLINE_MAX
from sentry.fs.walk import walk
from sentry.mm.commit import Commit

PAGE = 4096


@pytest.fixture
def fs():
    return tmpfs_context(limit_bytes=64 * PAGE)


def opened(fs, path, flags=O_RDWR | O_CREAT):
    return run(open_file(fs, ROOT, path, flags, 0o600))


def disk(fs):
    return fs.root.mount.fs


def test_small_files_have_no_descriptor_and_large_ones_do(fs):
    file = opened(fs, b"f")
    assert run(file.pwrite(b"x" * INLINE_MAX, 0)) == INLINE_MAX
    assert file.inode._fd == -1
    assert run(file.pwrite(b"y", INLINE_MAX)) == 1
    assert file.inode._fd >= 0
    assert run(file.pread(1 << 20, 0)) == b"x" * INLINE_MAX + b"y"


def test_the_limit(fs):
    file = opened(fs, b"f")
    assert run(file.pwrite(b"x" * (60 * PAGE), 0)) == 60 * PAGE
    assert run(file.pwrite(b"y" * (60 * PAGE), 30 * PAGE)) == 34 * PAGE
    assert disk(fs).used_pages == 64
    assert outcome(file.pwrite(b"z", 64 * PAGE)) == "ENOSPC"
    assert run(file.pwrite(b"z" * PAGE, 10)) == PAGE  # what is there may be overwritten
    assert outcome(opened(fs, b"g").write(b"x")) == "ENOSPC"
    assert run(disk(fs).statfs())[:3] == (PAGE, 64, 0)
    run(file.truncate(PAGE))
    assert disk(fs).used_pages == 1
    assert run(opened(fs, b"g").write(b"x")) == 1


def test_space_comes_back_with_the_last_reference(fs):
    file = opened(fs, b"f")
    run(file.write(b"x" * (20 * PAGE)))
    fd, inodes = file.inode._fd, disk(fs).used_inodes
    run(modify.unlink(fs.root, b"f", False, ROOT))
    assert run(file.pread(3, 0)) == b"xxx"
    assert disk(fs).used_pages == 20
    del file
    gc.collect()
    assert (disk(fs).used_pages, disk(fs).used_inodes) == (0, inodes - 1)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_inodes_are_limited(fs):
    disk(fs).limit_inodes = disk(fs).used_inodes + 1
    opened(fs, b"f")
    assert outcome(modify.mkdir(fs.root, b"d", 0o755, 0, ROOT)) == "ENOSPC"
    assert outcome(walk(fs, ROOT, b"d")) == "ENOENT"


def test_holes(fs):
    file = opened(fs, b"f")
    run(file.pwrite(b"a", 10 * PAGE))
    assert run(file.lseek(0, SEEK_DATA)) == 10 * PAGE
    assert run(file.lseek(0, SEEK_HOLE)) == 0
    assert outcome(file.lseek(10 * PAGE + 1, SEEK_DATA)) == "ENXIO"
    run(file.fallocate(0, 0, 4 * PAGE))
    assert disk(fs).used_pages == 5
    run(file.fallocate(FALLOC_FL_KEEP_SIZE, 8 * PAGE, 20 * PAGE))
    assert file.inode.size == 10 * PAGE + 1
    run(file.pwrite(b"b" * 3 * PAGE, 0))
    run(file.fallocate(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 100, 2 * PAGE))
    assert run(file.pread(3 * PAGE, 0)) == b"b" * 100 + bytes(2 * PAGE) + b"b" * (PAGE - 100)
    assert outcome(file.fallocate(0, 0, 1000 * PAGE)) == "ENOSPC"


def test_a_listing_survives_changes(fs):
    for number in range(1000):
        opened(fs, b"%03d" % number)
    directory = opened(fs, b".", O_DIRECTORY)
    seen = []
    while entries := run(directory.readdir()):
        for _, directory.pos, _, name in entries[:100]:
            seen.append(name)
            if name not in (b".", b".."):
                run(modify.unlink(fs.root, name, False, ROOT))
    assert sorted(seen) == [b".", b"..", *(b"%03d" % number for number in range(1000))]
    run(directory.lseek(0, 0))
    assert len(run(directory.readdir())) == 2


def test_telldir_positions_stay(fs):
    for name in (b"a", b"b", b"c", b"d"):
        opened(fs, name)
    directory = opened(fs, b".", O_DIRECTORY)
    entries = run(directory.readdir())
    after_b = entries[3][1]
    run(modify.unlink(fs.root, b"a", False, ROOT))
    run(directory.lseek(after_b, 0))
    assert [entry[3] for entry in run(directory.readdir())] == [b"c", b"d"]


def test_tmpfile(fs):
    file = opened(fs, b".", O_TMPFILE | O_RDWR)
    assert file.inode.nlink == 0
    run(modify.link(file.path, fs.root, b"named", ROOT))
    assert run(walk(fs, ROOT, b"named")).inode is file.inode
    hidden = opened(fs, b".", O_TMPFILE | O_RDWR | O_EXCL)
    assert outcome(modify.link(hidden.path, fs.root, b"no", ROOT)) == "ENOENT"


def test_exchange(fs):
    run(modify.mkdir(fs.root, b"d", 0o755, 0, ROOT))
    file = opened(fs, b"f")
    run(modify.rename(fs.root, b"d", False, fs.root, b"f", False, 2, ROOT))
    assert run(walk(fs, ROOT, b"d")).inode is file.inode
    assert run(walk(fs, ROOT, b"f")).inode.is_dir


def test_set_group_id_directories_pass_their_group_on(fs):
    run(modify.mkdir(fs.root, b"d", 0o2755, 0, ROOT))
    place = run(walk(fs, ROOT, b"d"))
    place.inode.gid, place.inode.mode = 77, place.inode.mode | 0o2000
    inner = run(modify.mkdir(place, b"e", 0o755, 0, ROOT)).inode
    assert (inner.gid, inner.mode & 0o7777) == (77, 0o2755)
    assert opened(fs, b"d/f").inode.gid == 77


def test_xattrs(fs):
    inode = opened(fs, b"f").inode
    run(inode.setxattr(b"user.a", b"1", 0))
    assert outcome(inode.setxattr(b"user.a", b"2", 1)) == "EEXIST"
    assert outcome(inode.setxattr(b"user.b", b"2", 2)) == "ENODATA"
    assert outcome(inode.setxattr(b"other", b"2", 0)) == "ENOTSUP"
    assert run(inode.getxattr(b"user.a")) == b"1"
    for number in range(2):
        run(inode.setxattr(b"user.big%d" % number, b"x" * 60000, 0))
    assert outcome(inode.setxattr(b"user.big2", b"x" * 60000, 0)) == "ENOSPC"
    assert disk(fs).used_pages == 30
    for name in run(inode.listxattr()):
        run(inode.removexattr(name))
    assert disk(fs).used_pages == 0
    assert outcome(inode.getxattr(b"user.a")) == "ENODATA"


def test_shared_mappings_get_the_access_of_the_open():
    asked = []

    async def reopen(fd):
        asked.append(fd)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)

    fs = tmpfs_context(reopen_readonly=reopen)
    file = opened(fs, b"f")
    run(file.write(b"hello"))
    writable = run(file.host_mapping(True, True))
    twin = run(file.host_mapping(True, False))
    assert run(file.host_mapping(True, False)) == twin and asked == [writable]
    assert os.pread(twin, 5, 0) == b"hello"
    with pytest.raises(OSError):
        os.pwrite(twin, b"x", 0)
    assert outcome(opened(tmpfs_context(), b"f").host_mapping(True, False)) == "EACCES"


def test_special_files_without_a_server(fs):
    run(modify.mknod(fs.root, b"sock", 0o140600, 0, 0, ROOT))
    assert outcome(open_file(fs, ROOT, b"sock", O_RDWR)) == "ENXIO"
    assert isinstance(run(walk(fs, ROOT, b"sock")), Path)


def test_a_mapped_file_counts_whole(fs):
    """A guest fills the holes of a mapping without a call."""
    file = opened(fs, b"f")
    run(file.truncate(60 * PAGE))
    assert disk(fs).used_pages == 0
    run(file.host_mapping(True, True))
    assert disk(fs).used_pages == 60
    assert outcome(file.truncate(65 * PAGE)) == "ENOSPC"
    assert outcome(file.pwrite(b"x", 64 * PAGE)) == "ENOSPC"
    run(file.truncate(4 * PAGE))
    assert disk(fs).used_pages == 4
    sparse = opened(fs, b"g")
    run(sparse.truncate(61 * PAGE))
    assert outcome(sparse.host_mapping(True, True)) == "ENOMEM"


def test_all_file_systems_share_a_limit(fs, monkeypatch):
    gc.collect()
    monkeypatch.setattr(storage, "commit", Commit(total=16 * PAGE))
    other = tmpfs_context()
    assert run(opened(other, b"f").write(b"x" * (6 * PAGE))) == 6 * PAGE
    assert run(opened(fs, b"f").write(b"x" * (20 * PAGE))) == 2 * PAGE
    assert outcome(opened(fs, b"g").write(b"x")) == "ENOSPC"
    assert storage.commit.shared == storage.commit.used == 8 * PAGE
