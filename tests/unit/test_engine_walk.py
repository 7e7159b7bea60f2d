"""The engine's walk against Python's: the same place or the same error, whatever happened to the tree.

A walk of Python's fills the cache; the engine, asked next, must then know, and must never say
anything else, also when it is asked first.
"""

from __future__ import annotations

import errno
import gc
from itertools import product

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sentry._engine import ffi, lib
from vfs_support import ROOT, context, outcome, run

from sentry.abi.errors import SysError
from sentry.abi.fcntl import RENAME_EXCHANGE, RENAME_NOREPLACE
from sentry.fs import dcache, modify
from sentry.fs.dentry import MNT_READONLY, Dentry, FsContext, Mount, Path
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.fs.walk import allowed, walk, walk_parent
from sentry.kernel.credentials import Credentials

NAMES = [b"a", b"b", b"a-name-that-is-longer-than-the-space-inside"]
USER = Credentials(1000, 1000, (1000, 2000))
OTHER = Credentials(1001, 1001, (2000,))
READER = Credentials(1002, 1002)
READER.effective = READER.permitted = 1 << 2  # CAP_DAC_READ_SEARCH

names = st.sampled_from(NAMES)
components = st.sampled_from([*NAMES, *NAMES, b"..", b".", b"link", b"loop"])
paths = st.builds(
    lambda slash, parts, end: (slash + b"/".join(parts) + end) or b".",
    st.sampled_from([b"/", b"/", b"", b"//"]),
    st.lists(components, min_size=1, max_size=3),
    st.sampled_from([b"", b"", b"", b"/", b"//"]),
)
#: Asked after every change.
EVERYWHERE = [
    b"/".join(parts) for length in (1, 2, 3) for parts in product([*NAMES, b"link"], repeat=length)
] + [b"/a/..", b"/a/../b", b"a/b/../../a", b"loop", b"loop/", b"..", b"/link/"]
creds = st.sampled_from([ROOT, USER, OTHER, READER])
modes = st.sampled_from([0o777, 0o755, 0o700, 0o070, 0o007, 0o711, 0o000, 0o770, 0o705])


def engine_walk(fs: FsContext, cred: Credentials, path: bytes, start: Path | None, follow: bool) -> object:
    """(dnode, vmount), the name of an errno, or None: passed."""
    start = start or fs.cwd
    w = ffi.new("struct path_walk *")
    w.fs, w.cred, w.mount, w.at = fs.c, cred.c, start.mount.c, start.dentry.c
    w.flags = 0 if follow else lib.WALK_NOFOLLOW
    result = lib.path_walk(w, path, len(path))
    if result == lib.WALK_PASS:
        return None
    return (w.at, w.mount) if result == 0 else errno.errorcode[-result]


def python_walk(fs: FsContext, cred: Credentials, path: bytes, start: Path | None, follow: bool) -> object:
    place = outcome(walk(fs, cred, path, start, follow))
    return (place.dentry.c, place.mount.c) if isinstance(place, Path) else place


#: What the engine may leave to Python for good: loops, and links that fs.protected_symlinks forbids.
UNKNOWN = ("ELOOP", "EACCES")


class Walks(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.fs = context(Tmpfs())
        self.kept: list[Path] = []
        self.mounts: list[Mount] = []
        for path in (b"/a", b"/a/b", b"/b"):
            self.change(path, lambda place, name, _: modify.mkdir(place, name, 0o755, 0, ROOT))
        self.change(b"/a/b/a", lambda place, name, _: modify.create(place, name, 0o644, 0, ROOT))
        self.change(b"/link", lambda place, name, _: modify.symlink(place, name, b"a", ROOT))

    def change(self, path: bytes, make) -> None:
        """make(directory, name) as root; errors are part of the game."""

        async def go():
            place, name, slash = await walk_parent(self.fs, ROOT, path)
            if name in (b"", b".", b".."):
                raise SysError(errno.EBUSY)
            return await make(place, name, slash)

        outcome(go())

    @rule(path=paths, mode=modes)
    def mkdir(self, path, mode):
        self.change(path, lambda place, name, _: modify.mkdir(place, name, mode, 0, ROOT))

    @rule(path=paths, mode=modes)
    def create(self, path, mode):
        self.change(path, lambda place, name, _: modify.create(place, name, mode, 0, ROOT))

    @rule(path=paths, says=paths)
    def symlink(self, path, says):
        self.change(path, lambda place, name, _: modify.symlink(place, name, says, ROOT))

    @rule(name=st.sampled_from([b"link", b"loop"]), says=paths)
    def link_at_root(self, name, says):
        self.change(b"/" + name, lambda place, last, _: modify.symlink(place, last, says, ROOT))

    @rule(path=paths)
    def unlink(self, path):
        self.change(path, lambda place, name, slash: modify.unlink(place, name, slash, ROOT))

    @rule(path=paths)
    def rmdir(self, path):
        self.change(path, lambda place, name, _: modify.rmdir(place, name, ROOT))

    @rule(old=paths, new=paths, flags=st.sampled_from([0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE]))
    def rename(self, old, new, flags):
        async def go():
            old_dir, old_name, old_slash = await walk_parent(self.fs, ROOT, old)
            new_dir, new_name, new_slash = await walk_parent(self.fs, ROOT, new)
            if {old_name, new_name} & {b"", b".", b".."} or old_dir.mount is not new_dir.mount:
                raise SysError(errno.EBUSY)
            await modify.rename(old_dir, old_name, old_slash, new_dir, new_name, new_slash, flags, ROOT)

        outcome(go())

    @rule(old=paths, new=paths)
    def link(self, old, new):
        async def go():
            source = await walk(self.fs, ROOT, old, follow=False)
            place, name, _ = await walk_parent(self.fs, ROOT, new)
            if name in (b"", b".", b".."):
                raise SysError(errno.EBUSY)
            await modify.link(source, place, name, ROOT)

        outcome(go())

    @rule(path=paths, mode=modes)
    def chmod(self, path, mode):
        async def go():
            await modify.chmod(await walk(self.fs, ROOT, path), mode, ROOT)

        outcome(go())

    @rule(path=paths, uid=st.sampled_from([0, 1000, 1001]), gid=st.sampled_from([0, 1000, 2000]))
    def chown(self, path, uid, gid):
        async def go():
            await modify.chown(await walk(self.fs, ROOT, path, follow=False), uid, gid, ROOT)

        outcome(go())

    @rule(path=paths, source=st.none() | paths)
    def mount(self, path, source):
        """A new tmpfs, or a bind of what is at `source`."""
        if len(self.mounts) >= 6:
            return
        where = outcome(walk(self.fs, ROOT, path))
        place = outcome(walk(self.fs, ROOT, source)) if source is not None else None
        if not isinstance(where, Path) or where.dentry.deleted or isinstance(place, str):
            return
        if place is None:
            new = Tmpfs(mode=0o755)
            mount = Mount(new, Dentry(None, b"", new.root))
        else:
            mount = Mount(place.mount.fs, place.dentry, MNT_READONLY)
        if mount.root.inode is None or mount.root.inode.is_dir != where.inode.is_dir:
            return
        self.fs.namespace.attach(mount, where)
        self.mounts.append(mount)

    @rule(index=st.integers(0, 5))
    def umount(self, index):
        if self.mounts:
            index %= len(self.mounts)
            mount = self.mounts[index]
            key = id(mount.parent), id(mount.mountpoint)
            if self.fs.namespace.mounts.get(key) is mount:
                self.fs.namespace.detach(mount)
                del self.mounts[index]

    @rule(path=paths)
    def chdir(self, path):
        place = outcome(walk(self.fs, ROOT, path))
        if isinstance(place, Path) and place.inode.is_dir:
            self.fs.cwd = place

    @rule(path=paths)
    def chroot(self, path):
        place = outcome(walk(self.fs, ROOT, path))
        if isinstance(place, Path) and place.inode.is_dir:
            self.fs.root = place

    @rule()
    def leave_chroot(self):
        root = self.fs.namespace.root
        self.fs.root = Path(root, root.root)

    @rule(path=paths)
    def keep(self, path):
        """Somebody holds the place, whatever becomes of it, and walks from it later."""
        place = outcome(walk(self.fs, ROOT, path))
        if isinstance(place, Path):
            self.kept = [*self.kept[-3:], place]

    @rule()
    def forget(self):
        self.kept.clear()
        dcache.shrink()
        gc.collect(0)

    @rule(cred=creds, path=paths, start=st.integers(-1, 3), follow=st.booleans())
    def ask(self, cred, path, start, follow):
        begin = self.kept[start] if 0 <= start < len(self.kept) else None
        first = engine_walk(self.fs, cred, path, begin, follow)
        told = python_walk(self.fs, cred, path, begin, follow)
        assert first in (None, told)
        then = engine_walk(self.fs, cred, path, begin, follow)
        assert then in (None, told)
        if begin is None and not self.fs.cwd.dentry.deleted and told not in UNKNOWN:
            assert then == told, "the engine should know by now"

    @invariant()
    def nothing_stale(self):
        whole = not self.fs.cwd.dentry.deleted
        for path in EVERYWHERE:
            for cred in (ROOT, USER):
                before = engine_walk(self.fs, cred, path, None, False)
                told = python_walk(self.fs, cred, path, None, False)
                assert before in (None, told), path
                if whole and told not in UNKNOWN:
                    assert engine_walk(self.fs, cred, path, None, False) == told, path


TestWalks = Walks.TestCase
TestWalks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, phases=[Phase.generate])


def test_permission_bits_are_judged_alike():
    inode = run(modify_file(context(Tmpfs())))
    for cred in (ROOT, USER, OTHER, READER):
        for kind in (0o100000, 0o040000):
            for uid, gid in ((0, 0), (1000, 1000), (1001, 2000), (5, 1000)):
                inode.uid, inode.gid = uid, gid
                for bits in range(0o1000):
                    inode.mode = kind | bits
                    for mask in range(8):
                        assert bool(lib.vnode_allowed(inode.c, cred.c, mask)) == allowed(inode, cred, mask)


async def modify_file(fs: FsContext):
    return (await modify.create(fs.root, b"f", 0o644, 0, ROOT)).inode


def test_a_freed_tree_leaves_nothing_behind():
    """A file system's dentries are a cycle that the collector frees in any order."""
    for _ in range(20):
        fs = context(Tmpfs())
        path = b""
        for name in (b"x", b"y", b"z"):
            path += b"/" + name
            place, last, _ = run(walk_parent(fs, ROOT, path))
            run(modify.mkdir(place, last, 0o755, 0, ROOT))
        assert engine_walk(fs, ROOT, path, None, True) is not None
        assert engine_walk(fs, ROOT, path + b"/nothing", None, True) is None
        del fs, place
        dcache.shrink()
        gc.collect()


def test_many_names_are_found_again():
    fs = context(Tmpfs())
    for i in range(5000):
        run(modify.create(fs.root, b"file-%d" % i, 0o644, 0, ROOT))
    found = [engine_walk(fs, ROOT, b"/file-%d" % i, None, True) for i in range(5000)]
    assert all(isinstance(place, tuple) for place in found)
    assert len({place[0] for place in found}) == 5000
