"""File system calls against guest memory: partial progress, limits, signals, blocking, locks."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from vfs_support import ROOT, FakeTask, Memory, Scheduler, outcome, run, start, tmpfs_context

from sentry.abi.errors import SysError
from sentry.abi.fcntl import F_RDLCK, F_UNLCK, F_WRLCK, O_APPEND, O_CREAT, O_NONBLOCK, O_RDWR
from sentry.abi.poll import POLLIN, POLLOUT
from sentry.abi.stat import STAT, STATFS, STATX
from sentry.fs import locks
from sentry.fs.file import File
from sentry.fs.inode import Filesystem, Inode
from sentry.kernel.credentials import Credentials
from sentry.kernel.wait import Interrupted
from sentry.syscalls import file_copy, file_io, file_space, listing, mounts, paths, xattr
from sentry.syscalls import open as open_calls

BASE = Memory.BASE
AT = -100


@pytest.fixture
def task():
    return FakeTask(tmpfs_context(mode=0o755))


def opened(task, path=b"f", flags=O_RDWR | O_CREAT, mode=0o644):
    return run(open_calls.open(task, path, flags, mode))


def write(task, fd, data):
    return outcome(file_io.write(task, fd, task.mm.put(data), len(data)))


class Channel(File):
    """A pipe of at most `room` bytes."""

    __slots__ = ("data", "room")

    def __init__(self, flags=O_RDWR, room=10):
        super().__init__(Inode(Filesystem(), 1, 0o010600), flags)
        self.data, self.room = b"", room

    def poll(self):
        return (POLLIN if self.data else 0) | (POLLOUT if len(self.data) < self.room else 0)

    async def read(self, size):
        if not self.data:
            raise SysError(errno.EAGAIN)
        data, self.data = self.data[:size], self.data[size:]
        self.queue.wake(POLLOUT)
        return data

    async def write(self, data):
        count = min(len(data), self.room - len(self.data))
        if not count and data:
            raise SysError(errno.EAGAIN)
        self.data += data[:count]
        self.queue.wake(POLLIN)
        return count


def test_read_and_write_move_the_position(task):
    fd = opened(task)
    assert write(task, fd, b"hello world") == 11
    assert outcome(file_io.lseek(task, fd, 6, 0)) == 6
    assert outcome(file_io.read(task, fd, BASE, 100)) == 5
    assert task.mm.data[:5] == b"world"
    assert outcome(file_io.read(task, fd, BASE, 100)) == 0
    assert outcome(file_io.read(task, fd, 0, 0)) == 0
    assert outcome(file_io.read(task, 99, BASE, 1)) == "EBADF"


def test_a_bad_address_counts_what_was_moved(task):
    fd = opened(task)
    write(task, fd, b"x" * 1000)
    end = BASE + len(task.mm.data)
    assert outcome(file_io.lseek(task, fd, 0, 0)) == 0
    assert outcome(file_io.read(task, fd, end - 10, 1000)) == 10
    assert outcome(file_io.read(task, fd, 8, 1000)) == "EFAULT"
    assert outcome(file_io.lseek(task, fd, 0, 1)) == 10
    assert outcome(file_io.write(task, fd, end - 3, 50)) == 3
    assert outcome(file_io.write(task, fd, 8, 50)) == "EFAULT"
    vectors = task.mm.put(struct.pack("<QQQQ", BASE + 100, 4, 8, 4))
    assert outcome(file_io.writev(task, fd, vectors, 2)) == 4
    assert outcome(file_io.pread64(task, fd, BASE, 4, -1)) == "EINVAL"


def test_vectors(task):
    fd = opened(task)
    task.mm.put(b"abcdef", 100)
    vectors = task.mm.put(struct.pack("<QQQQQQ", BASE + 100, 2, 0, 0, BASE + 102, 4))
    assert outcome(file_io.writev(task, fd, vectors, 3)) == 6
    assert outcome(file_io.preadv(task, fd, vectors, 3, 1, 0)) == 5
    assert task.mm.data[100:106] == b"bcdeff"
    assert outcome(file_io.readv(task, fd, vectors, 1025)) == "EINVAL"
    assert outcome(file_io.readv(task, fd, vectors, -1)) == "EINVAL"
    assert outcome(file_io.preadv(task, fd, vectors, 1, -1, 0)) == "EINVAL"


def test_file_size_limit(task):
    fd = opened(task)
    task.group.limits[1] = 8
    assert write(task, fd, b"0123456789") == 8
    assert task.signals == []
    assert write(task, fd, b"x") == "EFBIG"
    assert task.signals == [25]
    assert outcome(paths.ftruncate(task, fd, 9)) == "EFBIG"
    assert outcome(paths.truncate(task, b"f", 9)) == "EFBIG"
    assert outcome(paths.ftruncate(task, fd, 7)) is None


def test_append_writes_at_the_end(task):
    write(task, opened(task), b"first")
    fd = opened(task, flags=O_RDWR | O_APPEND)
    assert write(task, fd, b"+") == 1
    assert outcome(file_io.pwrite64(task, fd, task.mm.put(b"-"), 1, 0)) == 1
    assert outcome(file_io.pread64(task, fd, BASE, 100, 0)) == 7
    assert task.mm.data[:7] == b"first+-"


def test_blocking_reads_and_writes(task):
    channel, scheduler = Channel(), Scheduler()
    fd = task.install(channel)
    reader = start(scheduler, file_io.read(task, fd, BASE + 1000, 100))
    assert not reader.done
    assert write(task, fd, b"hello") == 5
    scheduler.run()
    assert reader.result == 5 and task.mm.data[1000:1005] == b"hello"
    task.mm.put(b"0123456789" * 3)
    writer = start(scheduler, file_io.write(task, fd, BASE, 30))
    for _ in range(3):
        scheduler.run()
        assert len(run(channel.read(100))) == 10
    scheduler.run()
    assert writer.result == 30


def test_nonblocking(task):
    fd = task.install(Channel(O_RDWR | O_NONBLOCK))
    assert outcome(file_io.read(task, fd, BASE, 1)) == "EAGAIN"
    assert write(task, fd, b"x" * 30) == 10
    assert write(task, fd, b"x") == "EAGAIN"


def test_a_signal_leaves_what_was_written(task):
    channel, scheduler = Channel(), Scheduler()
    fd = task.install(channel)
    job = start(scheduler, file_io.write(task, fd, task.mm.put(b"x" * 30), 30))
    scheduler.run()
    job.interrupt()
    scheduler.run()
    assert job.result == 10
    job = start(scheduler, file_io.write(task, fd, BASE, 30))
    scheduler.run()
    job.interrupt()
    scheduler.run()
    assert isinstance(job.error, Interrupted)


def test_a_broken_pipe_signals(task):
    class Broken(Channel):
        __slots__ = ()

        async def write(self, data):
            raise SysError(errno.EPIPE)

    fd = task.install(Broken())
    assert write(task, fd, b"x") == "EPIPE"
    assert task.signals == [13]


def test_a_file_closed_under_a_sleeping_reader(task):
    channel, scheduler = Channel(), Scheduler()
    fd = task.install(channel)
    job = start(scheduler, file_io.read(task, fd, BASE, 10))
    task.files.close(fd)
    assert channel.refs == 1
    run(channel.write(b"late"))
    scheduler.run()
    assert (job.result, channel.refs) == (4, 0)


def test_stat_layouts(task):
    fd = opened(task, mode=0o640)
    write(task, fd, b"x" * 5000)
    assert outcome(open_calls.fstat(task, fd, BASE)) is None
    fields = STAT.unpack(task.mm.read(BASE, STAT.size))
    assert fields[2:5] == (1, 0o100640, 0) and fields[7:10] == (5000, 4096, 16)
    assert outcome(open_calls.statx(task, AT, task.mm.put(b"f\0"), 0, 0x7FF, BASE + 64)) is None
    wide = STATX.unpack(task.mm.read(BASE + 64, STATX.size))
    assert wide[6:9] == (0o100640, fields[1], 5000)
    assert outcome(open_calls.statfs(task, b"/", BASE)) is None
    assert STATFS.unpack(task.mm.read(BASE, STATFS.size))[:2] == (0x01021994, 4096)
    assert outcome(open_calls.newfstatat(task, fd, 0, BASE, 0x1000)) is None
    assert outcome(open_calls.newfstatat(task, AT, task.mm.put(b"f\0"), BASE, 0x8000)) == "EINVAL"


def test_openat2(task):
    how = task.mm.put(struct.pack("<QQQ", O_RDWR | O_CREAT, 0o600, 0))
    assert isinstance(outcome(open_calls.openat2(task, AT, b"g", how, 24)), int)
    assert outcome(open_calls.openat2(task, AT, b"g", how, 23)) == "EINVAL"
    assert outcome(open_calls.openat2(task, AT, b"g", task.mm.put(bytes(24) + b"\1" * 8), 32)) == "E2BIG"
    assert (
        outcome(open_calls.openat2(task, AT, b"g", task.mm.put(struct.pack("<QQQ", 0, 7, 0)), 24)) == "EINVAL"
    )
    assert (
        outcome(open_calls.openat2(task, AT, b"/g", task.mm.put(struct.pack("<QQQ", 0, 0, 8)), 24)) == "EXDEV"
    )


def test_directories(task):
    assert outcome(paths.mkdir(task, b"d", 0o755)) is None
    assert outcome(open_calls.chdir(task, b"d")) is None
    assert open_calls.getcwd(task, BASE, 100) == 3
    assert task.mm.data[:3] == b"/d\0"
    assert outcome(open_calls.chdir(task, b"../d/x")) == "ENOENT"
    opened(task, b"file")
    assert outcome(open_calls.chdir(task, b"file")) == "ENOTDIR"
    fd = opened(task, b".", os.O_DIRECTORY)
    size = outcome(listing.getdents64(task, fd, BASE, 1000))
    assert size == 24 + 24 + 24
    assert outcome(listing.getdents64(task, fd, BASE, 1000)) == 0
    assert outcome(file_io.lseek(task, fd, 0, 0)) == 0
    assert outcome(listing.getdents64(task, fd, BASE, 10)) == "EINVAL"
    assert outcome(listing.getdents64(task, fd, BASE, 24)) == 24
    assert outcome(listing.getdents64(task, fd, 8, 1000)) == "EFAULT"
    assert outcome(listing.getdents64(task, fd, BASE, 1000)) == 48
    assert outcome(file_io.read(task, fd, BASE, 10)) == "EISDIR"
    assert outcome(paths.unlink(task, b"file")) is None
    assert outcome(paths.rmdir(task, b"../d")) is None
    with pytest.raises(SysError):
        open_calls.getcwd(task, BASE, 100)


def test_times(task):
    opened(task)
    now, omit = 0x3FFFFFFF, 0x3FFFFFFE
    times = task.mm.put(struct.pack("<qqqq", 5, 7, 0, omit), 100)
    path = task.mm.put(b"f\0")
    assert outcome(paths.utimensat(task, AT, path, times, 0)) is None
    inode = run(paths.walk(task.fs, ROOT, b"f")).inode
    assert inode.atime == 5_000_000_007
    bad = task.mm.put(struct.pack("<qqqq", 5, 1_000_000_000, 0, omit), 200)
    assert outcome(paths.utimensat(task, AT, path, bad, 0)) == "EINVAL"
    inode.mode, user = 0o100666, FakeTask(task.fs, Credentials(1000, 1000))
    user.mm = task.mm
    assert outcome(paths.utimensat(user, AT, path, times, 0)) == "EPERM"
    both = task.mm.put(struct.pack("<qqqq", 0, now, 0, now), 300)
    assert outcome(paths.utimensat(user, AT, path, both, 0)) is None
    inode.mode = 0o100644
    assert outcome(paths.utimensat(user, AT, path, 0, 0)) == "EACCES"
    assert outcome(paths.utimensat(task, AT, 0, 0, 0)) == "EFAULT"


def test_who_may_change_attributes(task):
    opened(task, mode=0o6777)
    user = FakeTask(task.fs, Credentials(1000, 1000, (50,)))
    assert outcome(paths.chmod(user, b"f", 0o777)) == "EPERM"
    assert outcome(paths.chown(user, b"f", 1000, 0xFFFFFFFF)) == "EPERM"
    inode = run(paths.walk(task.fs, ROOT, b"f")).inode
    assert outcome(paths.chown(task, b"f", 1000, 1000)) is None
    assert inode.mode & 0o7777 == 0o777
    assert outcome(paths.chown(user, b"f", 1000, 50)) is None
    assert outcome(paths.chown(user, b"f", 1000, 51)) == "EPERM"
    assert outcome(paths.chmod(user, b"f", 0o6755)) is None
    assert inode.mode & 0o7777 == 0o6755
    fd = run(open_calls.open(user, b"f", O_RDWR, 0))
    assert outcome(file_io.write(user, fd, user.mm.put(b"x"), 1)) == 1
    assert inode.mode & 0o7777 == 0o755


def test_access_uses_the_real_ids(task):
    opened(task, mode=0o600)
    task.cred = Credentials(0, 0)
    task.cred.uid = 1000
    assert outcome(open_calls.access(task, b"f", 4)) == "EACCES"
    assert outcome(open_calls.faccessat2(task, AT, b"f", 4, 0x200)) is None
    assert outcome(open_calls.access(task, b"f", 8)) == "EINVAL"


def test_read_only_mounts(task):
    opened(task, mode=0o666)
    mount = task.fs.namespace.root
    mount.flags |= 1
    for call in (
        open_calls.open(task, b"f", O_RDWR, 0),
        open_calls.open(task, b"new", O_RDWR | O_CREAT, 0),
        open_calls.open(task, b"f", os.O_TRUNC, 0),
        paths.mkdir(task, b"d", 0),
        paths.unlink(task, b"f"),
        paths.rename(task, b"f", b"g"),
        paths.chmod(task, b"f", 0),
        paths.truncate(task, b"f", 0),
        open_calls.access(task, b"f", 2),
        xattr.setxattr(task, b"f", task.mm.put(b"user.x\0"), BASE, 1, 0),
    ):
        assert outcome(call) == "EROFS"
    assert outcome(paths.mkdir(task, b"f", 0)) == "EEXIST"
    assert isinstance(outcome(open_calls.open(task, b"f", O_CREAT, 0)), int)


def test_xattr_calls(task):
    fd = opened(task)
    name = task.mm.put(b"user.x\0", 100)
    value = task.mm.put(b"value", 200)
    assert outcome(xattr.fsetxattr(task, fd, name, value, 5, 0)) is None
    assert outcome(xattr.getxattr(task, b"f", name, BASE, 0)) == 5
    assert outcome(xattr.getxattr(task, b"f", name, BASE, 4)) == "ERANGE"
    assert outcome(xattr.listxattr(task, b"f", BASE, 100)) == 7
    assert outcome(xattr.setxattr(task, b"f", name, value, 65537, 0)) == "E2BIG"
    assert outcome(xattr.setxattr(task, b"f", task.mm.put(b"\0", 300), value, 5, 0)) == "ERANGE"
    assert outcome(paths.symlink(task, b"f", b"l")) is None
    assert outcome(xattr.lsetxattr(task, b"l", name, value, 5, 0)) == "EPERM"
    assert outcome(xattr.lgetxattr(task, b"l", name, BASE, 0)) == "ENODATA"
    user = FakeTask(task.fs, Credentials(1000, 1000))
    user.mm = task.mm
    trusted = task.mm.put(b"trusted.x\0", 400)
    assert outcome(xattr.setxattr(user, b"f", trusted, value, 5, 0)) == "EPERM"
    assert outcome(xattr.getxattr(user, b"f", trusted, BASE, 0)) == "ENODATA"


def test_copying(task):
    one, two = opened(task, b"one"), opened(task, b"two")
    write(task, one, b"0123456789")
    offset = task.mm.put(struct.pack("<Q", 2), 500)
    assert outcome(file_copy.sendfile(task, two, one, offset, 5)) == 5
    assert task.mm.read_u64(offset) == 7
    assert outcome(file_copy.copy_file_range(task, one, offset, two, 0, 100, 0)) == 3
    assert outcome(file_io.pread64(task, two, BASE, 100, 0)) == 8
    assert task.mm.data[:8] == b"23456789"
    assert outcome(file_copy.copy_file_range(task, one, offset, one, 0, 100, 0)) == "EINVAL"
    pipe = task.install(Channel(room=100))
    task.mm.write_u64(offset, 0)
    assert outcome(file_copy.splice(task, one, offset, pipe, 0, 4, 0)) == 4
    assert outcome(file_copy.splice(task, pipe, 0, two, 0, 100, 0)) == 4
    assert outcome(file_copy.splice(task, pipe, 0, two, 0, 100, 2)) == "EAGAIN"
    assert outcome(file_copy.splice(task, pipe, offset, two, 0, 100, 0)) == "ESPIPE"
    assert outcome(file_copy.splice(task, one, 0, two, 0, 100, 0)) == "EINVAL"
    assert outcome(file_copy.sendfile(task, two, pipe, 0, 5)) == "EINVAL"


def test_space(task):
    fd = opened(task)
    assert outcome(file_space.fallocate(task, fd, 0, 0, 5000)) is None
    assert run(paths.walk(task.fs, ROOT, b"f")).inode.size == 5000
    assert outcome(file_space.fallocate(task, fd, 2, 0, 5000)) == "ENOTSUP"
    assert outcome(file_space.fallocate(task, fd, 0, 0, 0)) == "EINVAL"
    assert outcome(file_space.fsync(task, fd)) is None


def test_mounting(task):
    class Kernel:
        tasks: dict[int, FakeTask] = {}

    task.kernel = Kernel()
    task.kernel.tasks[1] = task
    for name in (b"m", b"n"):
        assert outcome(paths.mkdir(task, name, 0o755)) is None
    kind, options = task.mm.put(b"tmpfs\0", 100), task.mm.put(b"size=64k,mode=700\0", 200)
    assert outcome(mounts.mount(task, kind, b"m", kind, 0, options)) is None
    fd = opened(task, b"m/inside")
    assert outcome(mounts.umount2(task, b"m", 0)) == "EBUSY"
    place = task.mm.put(b"/m\0", 300)
    assert outcome(mounts.mount(task, place, b"n", 0, 4096, 0)) is None
    assert isinstance(outcome(open_calls.open(task, b"n/inside", 0, 0)), int)
    assert outcome(paths.link(task, b"n/inside", b"m/other")) == "EXDEV"
    task.files.close(fd)
    assert outcome(mounts.umount2(task, b"m", 2)) is None
    assert outcome(open_calls.open(task, b"m/inside", 0, 0)) == "ENOENT"
    assert outcome(mounts.umount2(task, b"m", 0)) == "EINVAL"
    assert outcome(mounts.mount(task, kind, b"m", task.mm.put(b"ext9\0"), 0, 0)) == "ENODEV"
    task.cred = Credentials(1000, 1000)
    assert outcome(mounts.mount(task, kind, b"m", kind, 0, 0)) == "EPERM"


class TestLocks:
    @pytest.fixture
    def inode(self):
        return Inode(Filesystem(), 1, 0o100644)

    def lock(self, inode, owner, kind, first=0, last=locks.OFFSET_MAX, wait=False):
        return locks.posix_lock(inode, owner, kind, first, last, pid=1, wait=wait)

    def ranges(self, inode, owner):
        found = inode.c.locks
        every = [found.lock[i] for i in range(found.count)] if found else []
        return sorted((lock.start, lock.end, lock.kind) for lock in every if lock.owner == owner)

    def test_ranges_split_and_join(self, inode):
        run(self.lock(inode, 1, F_WRLCK, 0, 99))
        run(self.lock(inode, 1, F_UNLCK, 40, 49))
        assert self.ranges(inode, 1) == [(0, 39, F_WRLCK), (50, 99, F_WRLCK)]
        run(self.lock(inode, 1, F_RDLCK, 90, 120))
        assert self.ranges(inode, 1) == [(0, 39, F_WRLCK), (50, 89, F_WRLCK), (90, 120, F_RDLCK)]
        run(self.lock(inode, 1, F_WRLCK, 40, 49))
        assert self.ranges(inode, 1) == [(0, 89, F_WRLCK), (90, 120, F_RDLCK)]
        assert outcome(self.lock(inode, 2, F_RDLCK, 100, 130)) is None
        assert outcome(self.lock(inode, 2, F_WRLCK, 120, 120)) == "EAGAIN"
        assert locks.posix_test(inode, 2, F_WRLCK, 0, 0).owner == 1
        assert locks.posix_test(inode, 1, F_WRLCK, 0, 0) is None
        locks.posix_release(inode, 1)
        locks.posix_release(inode, 2)
        assert not inode.c.locks and inode.locks is None and not inode.c.guarded

    def test_waiting_and_deadlock(self, inode):
        other, scheduler = Inode(inode.fs, 2, 0o100644), Scheduler()
        run(self.lock(inode, 1, F_WRLCK))
        run(self.lock(other, 2, F_WRLCK))
        job = start(scheduler, self.lock(inode, 2, F_WRLCK, wait=True))
        assert outcome(self.lock(other, 1, F_WRLCK, wait=True)) == "EDEADLOCK"
        run(self.lock(inode, 1, F_UNLCK))
        scheduler.run()
        assert job.done and job.error is None
        assert not locks._waiting

    def test_flock(self, inode):
        scheduler = Scheduler()
        run(locks.flock(inode, "a", F_RDLCK, False))
        run(locks.flock(inode, "b", F_RDLCK, False))
        assert outcome(locks.flock(inode, "a", F_WRLCK, False)) == "EAGAIN"
        job = start(scheduler, locks.flock(inode, "c", F_WRLCK, True))
        assert not job.done
        locks.flock_release(inode, "b")
        scheduler.run()
        assert job.done
        locks.flock_release(inode, "c")
        assert inode.locks is None and not inode.c.guarded

    def test_ranges_of_struct_flock(self):
        assert locks.lock_range(0, 5, 0) == (5, locks.OFFSET_MAX)
        assert locks.lock_range(10, 5, -3) == (12, 14)
        for args in ((0, -1, 0), (0, 2, -3)):
            with pytest.raises(SysError):
                locks.lock_range(*args)
