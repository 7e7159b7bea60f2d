"""The same random calls on a tmpfs of ours and on the host's: same results, errors and trees."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat as stat_module
import tempfile

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from vfs_support import ROOT, FakeTask, context, outcome, run

from sentry.abi.syscall_nr import SYS
from sentry.fs import modify
from sentry.fs.overlay.inode import OverlayFilesystem
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.fs.walk import walk
from sentry.syscalls import file_io, paths
from sentry.syscalls import open as open_calls

libc = ctypes.CDLL(None, use_errno=True)
AT = -100
DEPTH = 12
HOST = "/dev/shm"

pytestmark = pytest.mark.skipif(not os.path.isdir(HOST) or os.geteuid() != 0, reason="needs a tmpfs and root")

name = st.sampled_from([b"a", b"b", b"c", b"a", b"b", b".", b"..", b"", b"x" * 256])
path = (
    st.lists(name, min_size=1, max_size=4)
    .map(b"/".join)
    .filter(lambda p: p.count(b"..") < 3 and p[:1] != b"/")
)
contents = st.sampled_from([b"a", b"b", b"b/", b"a/b", b"../a", b".", b"c/../b", b"./c/"])


def host(nr: int, *args: object) -> object:
    """A raw system call on the host: its result or the name of its errno."""
    values = [ctypes.c_char_p(arg) if isinstance(arg, bytes) else ctypes.c_long(arg) for arg in args]
    result = libc.syscall(ctypes.c_long(nr), *values)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result


class Twin(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.before = os.getcwd()
        self.umask = os.umask(0)
        self.host_root = tempfile.mkdtemp(dir=HOST)
        self.task = FakeTask(self.make_context())
        os.chdir(self.host_root)
        for _ in range(DEPTH):
            os.mkdir("r")
            os.chdir("r")
            fs = self.task.fs
            if outcome(walk(fs, self.task.cred, b"r")) == "ENOENT":
                run(modify.mkdir(fs.cwd, b"r", 0o755, 0, self.task.cred))
            run(open_calls.chdir(self.task, b"r"))
            if os.stat(".").st_mode & 0o7777 != 0o755:
                os.chmod(".", 0o755)

    def make_context(self):
        return context(Tmpfs())

    def teardown(self) -> None:
        os.chdir(self.before)
        os.umask(self.umask)
        shutil.rmtree(self.host_root)

    def both(self, nr: int, handler, *args: object) -> object:
        expected = host(nr, *args)
        assert (outcome(handler(self.task, *args)) or 0) == expected
        return expected

    @rule(path=path, mode=st.sampled_from([0o755, 0o2700, 0o7777]))
    def mkdir(self, path, mode):
        self.both(SYS.mkdir, paths.mkdir, path, mode)

    @rule(path=path)
    def rmdir(self, path):
        self.both(SYS.rmdir, paths.rmdir, path)

    @rule(path=path)
    def unlink(self, path):
        self.both(SYS.unlink, paths.unlink, path)

    @rule(old=path, new=path, flags=st.sampled_from([0, 0, 0, 1, 2]))
    def rename(self, old, new, flags):
        self.both(SYS.renameat2, paths.renameat2, AT, old, AT, new, flags)

    @rule(old=path, new=path, flags=st.sampled_from([0, 0x400]))
    def link(self, old, new, flags):
        self.both(SYS.linkat, paths.linkat, AT, old, AT, new, flags)

    @rule(contents=contents, path=path)
    def symlink(self, contents, path):
        self.both(SYS.symlink, paths.symlink, contents, path)

    @rule(path=path)
    def mkfifo(self, path):
        self.both(SYS.mknod, paths.mknod, path, 0o010644, 0)

    @rule(path=path, mode=st.sampled_from([0o600, 0o4755, 0]))
    def chmod(self, path, mode):
        self.both(SYS.chmod, paths.chmod, path, mode)

    @rule(path=path, uid=st.sampled_from([0, 7, 0xFFFFFFFF]))
    def chown(self, path, uid):
        self.both(SYS.lchown, paths.lchown, path, uid, 0xFFFFFFFF)

    @rule(path=path, size=st.sampled_from([0, 5, 5000, 100000, -1]))
    def truncate(self, path, size):
        self.both(SYS.truncate, paths.truncate, path, size)

    @rule(path=path, mode=st.sampled_from([0, 2, 4, 1]))
    def access(self, path, mode):
        self.both(SYS.access, open_calls.access, path, mode)

    @rule(path=path)
    def readlink(self, path):
        try:
            expected = os.readlink(path)
        except OSError as error:
            expected = errno.errorcode[error.errno]
        got = outcome(open_calls.readlink(self.task, path, self.task.mm.BASE, 4096))
        assert (bytes(self.task.mm.data[:got]) if isinstance(got, int) else got) == expected

    @rule(
        path=path,
        access=st.sampled_from([0, 1, 2]),
        extra=st.lists(
            st.sampled_from(
                [os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_PATH, os.O_APPEND]
            ),
            max_size=3,
        ),
        offset=st.sampled_from([0, 3, 9000, 40000]),
        data=st.sampled_from([b"", b"hello", b"z" * 20000]),
    )
    def open(self, path, access, extra, offset, data):
        flags = access | os.O_NONBLOCK
        for bit in extra:
            flags |= bit
        expected = host(SYS.open, path, flags, 0o640)
        try:
            if stat_module.S_ISFIFO(os.stat(path).st_mode) and not flags & os.O_PATH:
                return  # who opens FIFOs has tests of its own
        except OSError:
            pass
        got = outcome(open_calls.open(self.task, path, flags, 0o640))
        if not isinstance(expected, int):
            assert got == expected
            return
        assert isinstance(got, int), got
        try:
            self._use(got, expected, offset, data)
        finally:
            os.close(expected)
            self.task.files.close(got)

    def _use(self, ours: int, theirs: int, offset: int, data: bytes) -> None:
        task = self.task
        for whence in (0, 1, 2, 3, 4):
            assert outcome(file_io.lseek(task, ours, offset, whence)) == host(
                SYS.lseek, theirs, offset, whence
            )
        addr = task.mm.put(data)
        assert outcome(file_io.write(task, ours, addr, len(data))) == host(SYS.write, theirs, data, len(data))
        assert outcome(file_io.pwrite64(task, ours, addr, len(data), 3)) == host(
            SYS.pwrite64, theirs, data, len(data), 3
        )
        buffer = ctypes.create_string_buffer(60000)
        size = libc.syscall(SYS.pread64, theirs, buffer, 60000, 0)
        got = outcome(file_io.pread64(task, ours, task.mm.BASE, 60000, 0))
        if size < 0:
            assert got == errno.errorcode[ctypes.get_errno()]
        else:
            assert got == size
            assert bytes(task.mm.data[:size]) == buffer.raw[:size]

    def tree(self, directory: bytes) -> dict[bytes, tuple[object, ...]]:
        """What the host has below `directory`."""
        found = {}
        for entry in os.listdir(directory):
            full = directory + b"/" + entry
            info = os.lstat(full)
            found[full] = describe(info.st_mode, info.st_nlink, info.st_uid, info.st_size)
            if stat_module.S_ISDIR(info.st_mode):
                found |= self.tree(full)
        return found

    def our_tree(self, directory: bytes) -> dict[bytes, tuple[object, ...]]:
        found = {}
        task = self.task
        fd = run(open_calls.open(task, directory, os.O_DIRECTORY, 0))
        file = task.files.get(fd)
        while entries := run(file.readdir()):
            for ino, file.pos, kind, entry in entries:
                if entry in (b".", b".."):
                    continue
                full = directory + b"/" + entry
                inode = run(walk(task.fs, task.cred, full, follow=False)).inode
                assert (inode.ino, inode.mode >> 12) == (ino, kind)
                found[full] = describe(inode.mode, inode.nlink, inode.uid, inode.size)
                if inode.is_dir:
                    found |= self.our_tree(full)
        task.files.close(fd)
        return found

    @invariant()
    def same_tree(self):
        assert self.our_tree(b".") == self.tree(b".")


def describe(mode: int, nlink: int, uid: int, size: int) -> tuple[object, ...]:
    """What two file systems have to agree on; a directory's size and links are its own business."""
    if stat_module.S_ISDIR(mode):
        return (mode, uid)
    return (mode, nlink, uid, size)


class OverlayTwin(Twin):
    """The same over a lower tree that has some files, which the host's copy begins with."""

    def make_context(self):
        lower = FakeTask(context(Tmpfs()))
        for _ in range(DEPTH):
            run(paths.mkdir(lower, b"r", 0o755))
            run(open_calls.chdir(lower, b"r"))
        return context(OverlayFilesystem(lower.fs.namespace.root.root.inode, ROOT))

    def __init__(self) -> None:
        super().__init__()
        cwd = self.task.fs.cwd.inode
        lower = FakeTask(context(cwd.lower.fs))
        for _ in range(DEPTH):
            run(open_calls.chdir(lower, b"r"))
        for task_call, nr, args in (
            (paths.mkdir, SYS.mkdir, (b"a", 0o755)),
            (paths.mkdir, SYS.mkdir, (b"a/b", 0o755)),
            (paths.symlink, SYS.symlink, (b"a/b", b"c")),
        ):
            assert outcome(task_call(lower, *args)) is None
            assert host(nr, *args) == 0
        for file, data in ((b"b", b"lower"), (b"a/c", b"y" * 30000), (b"a/b/a", b"")):
            fd = run(open_calls.open(lower, file, os.O_CREAT | os.O_WRONLY, 0o644))
            run(file_io.write(lower, fd, lower.mm.put(data), len(data)))
            with open(file, "wb") as twin:
                twin.write(data)
            os.chmod(file, 0o644)
        assert run(paths.link(lower, b"b", b"a/a")) is None
        os.link("b", "a/a")


CONFIG = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTmpfs = Twin.TestCase
TestTmpfs.settings = CONFIG
TestOverlay = OverlayTwin.TestCase
TestOverlay.settings = CONFIG
