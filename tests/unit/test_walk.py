"""Path walk: mounts, `..`, symbolic links, permissions, RESOLVE_ flags, the dentry cache."""

from __future__ import annotations

import errno

import pytest
from vfs_support import ROOT, Scheduler, context, outcome, run, start, tmpfs_context

from sentry.abi.capability import CAP_DAC_READ_SEARCH
from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    O_CREAT,
    O_RDWR,
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFREG
from sentry.fs import dcache, modify, setup
from sentry.fs.dentry import Dentry, FsContext, Path
from sentry.fs.inode import Filesystem, Inode
from sentry.fs.opening import open_file
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.fs.walk import locate, path_bytes, permission, walk, walk_parent
from sentry.kernel.credentials import Credentials
from sentry.kernel.wait import WaitQueue, block

USER = Credentials(1000, 1000, (50,))


@pytest.fixture
def fs():
    """/dir/sub/file, /link → dir/sub, /abs → /dir, /loop → loop, and a second tmpfs on /mnt with /mnt/in."""
    fs = tmpfs_context(mode=0o755)
    root = fs.root
    for name in (b"dir", b"dir/sub", b"mnt"):
        where, last, _ = run(walk_parent(fs, ROOT, name))
        run(modify.mkdir(where, last, 0o755, 0, ROOT))
    run(open_file(fs, ROOT, b"/dir/sub/file", O_CREAT, 0o644))
    for name, target in ((b"link", b"dir/sub"), (b"abs", b"/dir"), (b"loop", b"loop"), (b"up", b"../..")):
        run(modify.symlink(root, name, target, ROOT))
    mounted = Tmpfs(mode=0o755)
    setup.mount_at(fs.namespace, run(walk(fs, ROOT, b"/mnt")), mounted)
    run(modify.mkdir(run(walk(fs, ROOT, b"/mnt")), b"in", 0o755, 0, ROOT))
    return fs


def look(fs, path, **options):
    cred = options.pop("cred", ROOT)
    got = outcome(walk(fs, cred, path, **options))
    return path_bytes(fs, got) if isinstance(got, Path) else got


@pytest.mark.parametrize(
    ("path", "result"),
    [
        (b"/", b"/"),
        (b"//", b"/"),
        (b"/../..", b"/"),
        (b"dir/./sub//file", b"/dir/sub/file"),
        (b"dir/sub/../sub/", b"/dir/sub"),
        (b"link/file", b"/dir/sub/file"),
        (b"abs/sub", b"/dir/sub"),
        (b"up/dir", b"/dir"),
        (b"/mnt/in/../..", b"/"),
        (b"/mnt/in", b"/mnt/in"),
        (b"/mnt/../dir", b"/dir"),
        (b"", "ENOENT"),
        (b"dir/none", "ENOENT"),
        (b"dir/none/x", "ENOENT"),
        (b"dir/sub/file/", "ENOTDIR"),
        (b"dir/sub/file/x", "ENOTDIR"),
        (b"dir/sub/file/..", "ENOTDIR"),
        (b"loop", "ELOOP"),
        (b"x" * 255, "ENOENT"),
        (b"x" * 256, "ENAMETOOLONG"),
        (b"a/" * 2047 + b"a", "ENOENT"),
        (b"a/" * 2048, "ENAMETOOLONG"),
    ],
)
def test_paths(fs, path, result):
    assert look(fs, path) == result


def test_links_at_the_end(fs):
    assert look(fs, b"link", follow=False) == b"/link"
    assert look(fs, b"link/", follow=False) == b"/dir/sub"
    assert look(fs, b"loop", follow=False) == b"/loop"


def test_forty_links_and_no_more(fs):
    run(modify.symlink(fs.root, b"l0", b"dir", ROOT))
    for number in range(1, 42):
        run(modify.symlink(fs.root, b"l%d" % number, b"l%d" % (number - 1), ROOT))
    assert look(fs, b"l39") == b"/dir"
    assert look(fs, b"l40") == "ELOOP"


def test_root_of_the_task_is_the_top(fs):
    jail = FsContext(fs.namespace, run(walk(fs, ROOT, b"/dir")), run(walk(fs, ROOT, b"/dir/sub")))
    assert look(jail, b"../../..") == b"/"
    assert look(jail, b"/sub/file") == b"/sub/file"
    assert look(jail, b"file") == b"/sub/file"
    outside = FsContext(fs.namespace, run(walk(fs, ROOT, b"/dir/sub")), fs.root)
    assert locate(outside, fs.root) == (b"/", False)


@pytest.mark.parametrize(
    ("path", "flags", "result"),
    [
        (b"file", RESOLVE_BENEATH, b"/dir/sub/file"),
        (b"../sub", RESOLVE_BENEATH, "EXDEV"),
        (b"/dir", RESOLVE_BENEATH, "EXDEV"),
        (b"../../..", RESOLVE_IN_ROOT, b"/dir/sub"),
        (b"/file", RESOLVE_IN_ROOT, b"/dir/sub/file"),
        (b"../../link", RESOLVE_NO_SYMLINKS, "ELOOP"),
        (b"../../mnt/in", RESOLVE_NO_XDEV, "EXDEV"),
        (b"../../dir", RESOLVE_NO_XDEV, b"/dir"),
        (b"never-seen", RESOLVE_CACHED, "EAGAIN"),
        (b"file", RESOLVE_CACHED, b"/dir/sub/file"),
    ],
)
def test_resolve_flags(fs, path, flags, result):
    begin = run(walk(fs, ROOT, b"/dir/sub"))
    assert look(fs, path, start=begin, flags=flags) == result


def test_no_xdev_upwards(fs):
    begin = run(walk(fs, ROOT, b"/mnt/in"))
    assert look(fs, b"../..", start=begin, flags=RESOLVE_NO_XDEV) == "EXDEV"
    assert look(fs, b"..", start=begin, flags=RESOLVE_NO_XDEV) == b"/mnt"


class Magic(Inode):
    """A magic link to a place."""

    def __init__(self, fs, place):
        super().__init__(fs, 99, S_IFLNK | 0o777)
        self.place = place

    async def follow(self):
        return self.place


def test_magic_links(fs):
    place = run(walk(fs, ROOT, b"/mnt/in"))
    root = fs.root.dentry
    root.children[b"magic"] = Dentry(root, b"magic", Magic(fs.root.mount.fs, place))
    assert look(fs, b"magic") == b"/mnt/in"
    assert look(fs, b"magic", follow=False) == b"/magic"
    assert look(fs, b"magic/..") == b"/mnt"
    assert look(fs, b"magic", flags=RESOLVE_NO_MAGICLINKS) == "ELOOP"
    assert look(fs, b"magic", flags=RESOLVE_NO_XDEV) == "EXDEV"
    assert look(fs, b"magic", flags=RESOLVE_BENEATH) == "EXDEV"


def test_search_permission(fs):
    run(walk(fs, ROOT, b"/dir")).inode.mode = S_IFDIR | 0o600
    assert look(fs, b"/dir/sub", cred=USER) == "EACCES"
    assert look(fs, b"/dir/.", cred=USER) == "EACCES"
    assert look(fs, b"/dir", cred=USER) == b"/dir"
    capable = USER.copy()
    capable.effective = 1 << CAP_DAC_READ_SEARCH
    assert look(fs, b"/dir/sub", cred=capable) == b"/dir/sub"


def test_permission_bits():
    inode = Inode(Filesystem(), 1, S_IFREG | 0o640, 1, 50)
    permission(inode, USER, 4)  # by its group
    for mask in (2, 1):
        with pytest.raises(SysError):
            permission(inode, USER, mask)
    inode.uid = 1000
    permission(inode, USER, 6)
    inode.mode = S_IFREG | 0o077
    with pytest.raises(SysError):
        permission(inode, USER, 4)  # an owner has the owner's bits only
    inode.mode = S_IFREG | 0o666
    with pytest.raises(SysError):
        permission(inode, ROOT, 1)  # root executes only what somebody may


def test_sticky_directory(fs):
    run(modify.mkdir(fs.root, b"tmp", 0o1777, 0, ROOT))
    run(walk(fs, ROOT, b"/tmp")).inode.mode = S_IFDIR | 0o1777
    place = run(walk(fs, USER, b"/tmp"))
    run(modify.create(place, b"theirs", 0o666, 0, ROOT))
    run(modify.create(place, b"mine", 0o666, 0, USER))
    assert outcome(modify.unlink(place, b"theirs", False, USER)) == "EPERM"
    assert outcome(modify.rename(place, b"mine", False, place, b"theirs", False, 0, USER)) == "EPERM"
    assert outcome(modify.unlink(place, b"mine", False, USER)) is None


def test_mount_points_stay(fs):
    assert outcome(modify.rmdir(fs.root, b"mnt", ROOT)) == "EBUSY"
    assert outcome(modify.rename(fs.root, b"mnt", False, fs.root, b"m", False, 0, ROOT)) == "EBUSY"


def test_deleted_names(fs):
    place = run(walk(fs, ROOT, b"/dir/sub/file"))
    run(modify.unlink(run(walk(fs, ROOT, b"/dir/sub")), b"file", False, ROOT))
    assert path_bytes(fs, place) == b"/dir/sub/file (deleted)"
    gone = run(walk(fs, ROOT, b"/dir/sub"))
    run(modify.rmdir(run(walk(fs, ROOT, b"/dir")), b"sub", ROOT))
    assert outcome(modify.mkdir(gone, b"x", 0o755, 0, ROOT)) == "ENOENT"
    assert look(fs, b"x", start=gone) == "ENOENT"
    assert look(fs, b"..", start=gone) == b"/dir"


def test_rename_takes_open_paths_along(fs):
    file = run(open_file(fs, ROOT, b"/dir/sub/file", O_RDWR))
    run(modify.rename(fs.root, b"dir", False, fs.root, b"new", False, 0, ROOT))
    assert path_bytes(fs, file.path) == b"/new/sub/file"


class Slow(Inode):
    """A directory whose lookups sleep until `go` is woken."""

    def __init__(self, fs):
        super().__init__(fs, 1, S_IFDIR | 0o755)
        self.go = WaitQueue()
        self.names = {}
        self.lookups = 0

    async def lookup(self, name):
        self.lookups += 1
        found = self.names.get(name)
        await block((self.go, 1))
        if found is None:
            raise SysError(errno.ENOENT)
        return found


class SlowFilesystem(Filesystem):
    def __init__(self):
        super().__init__()
        self.root = Slow(self)


def test_two_lookups_make_one_dentry():
    fs = SlowFilesystem()
    fs.root.names[b"x"] = Inode(fs, 2, S_IFREG)
    place, scheduler = context(fs), Scheduler()
    jobs = [start(scheduler, walk(place, ROOT, b"/x")) for _ in range(2)]
    fs.root.go.wake()
    scheduler.run()
    one, two = (job.result for job in jobs)
    assert one.dentry is two.dentry


def test_lookup_that_slept_through_a_change_asks_again():
    fs = SlowFilesystem()
    place, scheduler = context(fs), Scheduler()
    job = start(scheduler, walk(place, ROOT, b"/x"))
    inode = fs.root.names[b"x"] = Inode(fs, 2, S_IFREG)
    dcache.added(place.root.dentry, b"x", inode)
    dcache.removed(place.root.dentry.children[b"x"])
    del fs.root.names[b"x"]
    fs.root.go.wake()
    scheduler.run()
    while not job.done:
        fs.root.go.wake()
        scheduler.run()
    assert isinstance(job.error, SysError) and job.error.errno == errno.ENOENT


def test_the_cache_is_bounded_and_keeps_what_is_used(fs):
    kept = run(open_file(fs, ROOT, b"/dir/kept", O_CREAT | O_RDWR, 0o644))
    others = len(dcache._cached)  # of other tests, whose files may still be open
    for number in range(dcache.LIMIT + 2000):
        assert look(fs, b"/dir/no%d" % number) == "ENOENT"
    assert len(dcache._cached) <= dcache.LIMIT + dcache.BATCH + others
    assert run(walk(fs, ROOT, b"/dir/kept")).dentry is kept.path.dentry
    assert look(fs, b"/dir/sub/file") == b"/dir/sub/file"


def test_setup_makes_directories_and_files(fs):
    place = run(setup.ensure_dir(fs.namespace, ROOT, b"/a/b/c"))
    assert path_bytes(fs, place) == b"/a/b/c"
    assert path_bytes(fs, run(setup.ensure_file(fs.namespace, ROOT, b"/a/b/f"))) == b"/a/b/f"
    assert path_bytes(fs, run(setup.ensure_dir(fs.namespace, ROOT, b"/link"))) == b"/dir/sub"
    assert outcome(setup.ensure_dir(fs.namespace, ROOT, b"/a/b/f")) == "ENOTDIR"
