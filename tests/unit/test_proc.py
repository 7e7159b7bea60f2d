"""procfs over a kernel with real tasks and twins of everything below them."""

from __future__ import annotations

import errno
import gzip
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from fakespace import FakeSpace, HostFile
from vfs_support import context, run

from sentry.abi.errors import SysError
from sentry.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE, PAGE_SIZE, VM_NORESERVE, VM_READ, VM_WRITE
from sentry.abi.syscall_nr import SYS
from sentry.fs import opening, setup, walk
from sentry.fs.proc import base, kconfig, sequence
from sentry.fs.proc.filesystem import ProcFilesystem
from sentry.fs.sys import SysFilesystem
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.kernel import wait
from sentry.kernel.credentials import Credentials
from sentry.kernel.fdtable import FDTable
from sentry.kernel.group import ProcessGroup, Session, ThreadGroup
from sentry.kernel.kernel import Kernel
from sentry.kernel.signals import SigHand
from sentry.kernel.task import Task
from sentry.mm import Commit, MemoryManager, residence
from sentry.mm.elf import load_program, read_image
from sentry.mm.vma import Vma
from sentry.platform.base import GUEST_TOP


class Config:
    hostname = "box"
    kernel_release = "6.12.0-test"
    memory = 1 << 30
    pids = 0
    debug = False
    strace = False


class Host:
    cpus = 2
    memory_total = 4 << 30
    cpuinfo = b"".join(b"processor\t: %d\nmodel name\t: Twin\ncpu cores\t: 64\n\n" % i for i in (5, 6, 7))


class World:
    """A kernel with one root file system, /proc and /sys, and processes made by hand."""

    def __init__(self) -> None:
        self.kernel = Kernel(Config(), None, Host(), {}, {}, {}, None, RuntimeError)
        self.kernel.commit = Commit(Config.memory)
        self.fs = context(Tmpfs(limit_bytes=1 << 20))
        namespace = self.kernel.mounts = self.fs.namespace
        for name, filesystem in (
            (b"/proc", ProcFilesystem(self.kernel, self.kernel.pid_ns)),
            (b"/sys", SysFilesystem(self.kernel)),
        ):
            setup.mount_at(
                namespace, run(setup.ensure_dir(namespace, Credentials(0, 0), name)), filesystem, 14
            )
        self.task = self.process(b"first", Credentials(1000, 1000, (4, 24)))

    def process(self, name, cred, argv=(b"prog", b"arg"), envp=(b"HOME=/", b"X=1")):
        kernel = self.kernel
        group = ThreadGroup(kernel, kernel.new_pid(), kernel.init, SigHand())
        group.limits = dict(kernel.init.limits)
        task = Task(kernel, group.tgid, group, cred)
        task.name = name
        group.leader = task
        pgrp = ProcessGroup(group.tgid, Session(group.tgid, group))
        group.enter(pgrp)
        kernel.groups[group.tgid] = group
        kernel.init.children.add(group)
        task.files = FDTable()
        task.fs = self.fs.copy()
        task.mm = MemoryManager(
            FakeSpace(), kernel.commit, (GUEST_TOP - 0x6000, GUEST_TOP - 0x2000, GUEST_TOP)
        )
        file = HostFile("/bin/true")
        file.inode = self.fs.root.inode
        image = run(read_image(file))
        run(load_program(task.mm, image, list(argv), list(envp), cred, b"/bin/true", bytes(16)))
        kernel.add_task(task)
        return task

    def thread(self, leader):
        task = Task(self.kernel, self.kernel.new_pid(), leader.group, leader.cred)
        task.mm, task.files, task.fs, task.name = leader.mm.get(), leader.files, leader.fs, b"worker"
        self.kernel.add_task(task)
        return task

    def as_task(self, coro, task=None):
        """Run a coroutine on behalf of `task`."""
        task = task or self.task
        result = []

        async def main():
            result.append(await coro)

        finished, type(task).finished = type(task).finished, lambda self, value, error: result.append(error)
        try:
            task.start(main())
        finally:
            type(task).finished = finished
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    def open(self, name, flags=0, task=None):
        task = task or self.task
        return self.as_task(opening.open_file(task.fs, task.cred, name, flags), task)

    def read(self, name, task=None):
        file = self.open(name, 0, task)
        data = b""
        while piece := self.as_task(file.read(100), task):
            data += piece
        file.put()
        return data

    def list(self, name, task=None):
        file = self.open(name, os.O_DIRECTORY, task)
        names = []
        while entries := self.as_task(file.readdir(), task):
            names += [entry[3] for entry in entries]
            file.pos = entries[-1][1]
        return names

    def readlink(self, name, task=None):
        task = task or self.task
        path = self.as_task(walk.walk(task.fs, task.cred, name, follow=False), task)
        return self.as_task(path.inode.readlink(), task)


@pytest.fixture
def world():
    return World()


def fails(number, function, *args, **kwargs):
    with pytest.raises(SysError) as caught:
        function(*args, **kwargs)
    assert caught.value.errno == number


def test_every_file_reads(world):
    """Walk the whole tree: nothing raises anything but an errno, nothing leads in circles."""
    root = Credentials(0, 0)
    world.task.cred = root
    todo, seen = [b"/proc", b"/sys"], 0
    while todo:
        name = todo.pop()
        for entry in world.list(name):
            if entry in (b".", b".."):
                continue
            path = name + b"/" + entry
            inode = world.as_task(walk.walk(world.task.fs, root, path, follow=False)).inode
            seen += 1
            if inode.is_dir:
                todo.append(path)
            elif inode.is_symlink:
                try:
                    world.readlink(path)
                except SysError as error:
                    assert error.errno == errno.ENOENT, path
            else:
                try:
                    data = world.read(path)
                    assert data == b"" or data[-1:] in b"\n\0" or len(data) < 4000, path
                except SysError as error:
                    # Process 1 has no memory to tell of.
                    gone = (errno.ESRCH,) if path.startswith(b"/proc/1/") else ()
                    unreadable = (errno.EACCES,) if path == b"/proc/sys/vm/drop_caches" else ()
                    assert error.errno in (errno.EIO, errno.EINVAL, *gone, *unreadable), path
    assert seen > 300


def test_listing_matches_lookup(world):
    names = world.list(b"/proc")
    assert b"1" in names and b"%d" % world.task.tid in names and b"self" in names
    assert len(names) == len(set(names))
    for bad in (b"0", b"01", b"99999", b"-1", b"x", b"123456789012345678901234567890"):
        fails(errno.ENOENT, world.read, b"/proc/" + bad + b"/stat")


def test_config_gz(world):
    text = gzip.decompress(world.read(b"/proc/config.gz")).decode()
    assert "CONFIG_EVENTFD=y\n" in text and "# CONFIG_SYSVIPC is not set\n" in text
    world.kernel.table[SYS.shmget] = None
    assert "CONFIG_SYSVIPC=y\n" in gzip.decompress(world.read(b"/proc/config.gz")).decode()
    for size in (0, 1, 65535, 65536, 200000):
        data = os.urandom(size)
        assert gzip.decompress(kconfig.gzip_stored(data)) == data
    names = [*kconfig.HAVE.split(), *kconfig.HAVE_NOT.split(), *kconfig.BY_CALL]
    assert len(names) == len(set(names))


def test_self(world):
    other = world.process(b"other", Credentials(0, 0))
    assert world.readlink(b"/proc/self") == b"%d" % world.task.tid
    assert world.read(b"/proc/self/comm") == b"first\n"
    assert world.read(b"/proc/self/comm", other) == b"other\n"
    thread = world.thread(world.task)
    assert world.readlink(b"/proc/thread-self", thread) == b"%d/task/%d" % (world.task.tid, thread.tid)
    assert sorted(world.list(b"/proc/self/task")[2:]) == sorted([b"%d" % world.task.tid, b"%d" % thread.tid])
    assert world.read(b"/proc/thread-self/comm", thread) == b"worker\n"
    # A thread's own directory can be opened, but is not listed.
    assert world.read(b"/proc/%d/comm" % thread.tid) == b"worker\n"
    assert b"%d" % thread.tid not in world.list(b"/proc")


def test_arguments_and_environment(world):
    assert world.read(b"/proc/self/cmdline") == b"prog\0arg\0"
    assert world.read(b"/proc/self/environ") == b"HOME=/\0X=1\0"
    mm = world.task.mm
    mm.write(mm.arg_start, b"a longer title\0")
    assert world.read(b"/proc/self/cmdline") == b"a longer title\0"
    assert len(world.read(b"/proc/self/auxv")) % 16 == 0


def test_stat_fields(world):
    task = world.task
    task.name = b"a) b (c"
    line = world.read(b"/proc/self/stat")
    head, _, rest = line.rpartition(b") ")
    assert head == b"%d (a) b (c" % task.tid
    fields = rest.split()
    assert len(fields) == 50
    assert fields[:4] == [b"S", b"1", b"%d" % task.tid, b"%d" % task.tid]
    assert int(fields[20]) == task.mm.total_vm
    assert len(world.read(b"/proc/self/statm").split()) == 7


def test_status(world):
    text = world.read(b"/proc/self/status")
    values = dict(line.split(b":\t", 1) for line in text.splitlines())
    assert values[b"Uid"] == b"1000\t1000\t1000\t1000"
    assert values[b"Groups"] == b"4 24 "
    assert values[b"Threads"] == b"1" and values[b"PPid"] == b"1"
    assert values[b"VmSize"].split()[0] == b"%d" % (world.task.mm.total_vm // 1024)


def test_maps(world):
    lines = world.read(b"/proc/self/maps").splitlines()
    assert lines[-1].endswith(b"[vdso]") and lines[-2].endswith(b"[vvar]") and lines[-3].endswith(b"[stack]")
    assert lines[-3].index(b"[stack]") == 73
    assert len(lines) == len(world.task.mm.tree)
    assert world.read(b"/proc/self/smaps").count(b"VmFlags") == len(lines)


def test_long_files_come_in_pieces(world, monkeypatch):
    """However many mappings there are, one read is little work, and what is read is all there is."""
    mm = world.task.mm
    # Small pages of every other protection, and more memory than anybody could look through.
    addr = run(mm.map(0, 5000 * PAGE_SIZE, 0, MAP_PRIVATE | MAP_ANONYMOUS))
    for page in range(0, 5000, 2):
        mm.protect(addr + page * PAGE_SIZE, PAGE_SIZE, 1)
    mm.tree.insert(Vma(1 << 45, 1 << 46, VM_READ | VM_WRITE | VM_NORESERVE))
    looked = []
    monkeypatch.setattr(FakeSpace, "resident", lambda self, addr, count, stride: looked.append(count) or 0)
    turns = []

    async def next_turn():
        turns.append(1)

    monkeypatch.setattr(sequence, "yield_now", next_turn)
    for name in (b"maps", b"smaps", b"numa_maps"):
        file = world.open(b"/proc/self/" + name)
        pieces = []
        while True:
            looked.clear()
            piece = world.as_task(file.read(1 << 20))
            assert sum(looked) <= 2 * residence.BUDGET and len(looked) < 3000
            if not piece:
                break
            pieces.append(piece)
        whole = b"".join(pieces)
        assert whole.count(b"\n") >= len(mm.tree) and max(map(len, pieces)) < 1 << 18
        for offset in (0, 1, len(pieces[0]) - 1, len(pieces[0]), len(whole) // 2, len(whole) - 1, len(whole)):
            piece = world.as_task(file.pread(50, offset))
            assert whole[offset:].startswith(piece) and bool(piece) == (offset < len(whole))
        turns.clear()
        assert world.as_task(file.pread(50, 1 << 62)) == b"" and len(turns) >= len(pieces)
        file.put()
    for name in (b"statm", b"stat", b"status", b"smaps_rollup", b"../meminfo"):
        looked.clear()
        assert world.read(b"/proc/self/" + name)
        assert sum(looked) <= 4 * residence.BUDGET and len(looked) <= 4 * residence.MOST, name


def test_what_open_files_keep(world, monkeypatch):
    """Not each what it has to tell, once that is much; who reads on gets it all the same."""
    monkeypatch.setattr(base, "MOST_KEPT", 1000)
    files = [world.open(b"/proc/self/maps") for _ in range(10)]
    whole = world.read(b"/proc/self/maps")
    assert [world.as_task(file.read(100)) for file in files] == [whole[:100]] * 10
    assert base._kept_size <= 1000 and sum(file._data is None for file in files) >= 5
    assert [world.as_task(file.read(100)) for file in files] == [whole[100:200]] * 10
    for file in files:
        file.put()
    assert base._kept_size == 0 and not base._kept


def test_numbers_without_end(world):
    root = world.process(b"root", Credentials(0, 0))
    for name in (
        b"vm/max_map_count", b"net/unix/max_dgram_qlen", b"kernel/ns_last_pid", b"kernel/pid_max",
        b"user/max_user_namespaces", b"kernel/sem", b"kernel/printk", b"fs/pipe-max-size",
    ):  # fmt: skip
        file = world.open(b"/proc/sys/" + name, os.O_WRONLY, root)
        fails(errno.EINVAL, world.as_task, file.write(b"1" * 5000), root)
        file.put()


def test_who_may_look(world):
    root = world.process(b"root", Credentials(0, 0))
    same = world.process(b"same", Credentials(1000, 1000))
    for name in (b"environ", b"maps", b"mem", b"auxv"):
        fails(errno.EACCES, world.read, b"/proc/%d/%s" % (root.tid, name))
        world.open(b"/proc/%d/%s" % (same.tid, name))
    fails(errno.EACCES, world.list, b"/proc/%d/fd" % root.tid)
    fails(errno.EACCES, world.readlink, b"/proc/%d/cwd" % root.tid)
    assert world.readlink(b"/proc/%d/cwd" % same.tid) == b"/"
    assert world.read(b"/proc/%d/cmdline" % root.tid) == b"prog\0arg\0"
    assert world.read(b"/proc/%d/maps" % world.task.tid, root)
    same.group.dumpable = 0
    fails(errno.EACCES, world.read, b"/proc/%d/maps" % same.tid)


def test_descriptors(world):
    task = world.task
    file = world.open(b"/notes", os.O_CREAT | os.O_RDWR, world.process(b"root", Credentials(0, 0)))
    fd = task.files.install(file, 100)
    assert world.list(b"/proc/self/fd")[2:] == [b"%d" % fd]
    assert world.readlink(b"/proc/self/fd/0") == b"/notes"
    inode = world.as_task(walk.walk(task.fs, task.cred, b"/proc/self/fd/0", follow=False)).inode
    assert inode.mode & 0o777 == 0o700
    path = world.as_task(walk.walk(task.fs, task.cred, b"/proc/self/fd/0"))
    assert path == file.path
    assert b"pos:\t0\nflags:\t0100002\n" in world.read(b"/proc/self/fdinfo/0")
    fails(errno.ENOENT, world.readlink, b"/proc/self/fd/1")
    fails(errno.ENOENT, world.readlink, b"/proc/self/fd/00")


def test_namespaces(world):
    other = world.process(b"other", Credentials(1000, 1000))
    names = [b"/proc/self/ns/pid", b"/proc/%d/ns/pid" % other.tid, b"/proc/self/ns/pid_for_children"]
    inodes = [world.as_task(walk.walk(world.task.fs, world.task.cred, name)).inode for name in names]
    assert inodes[0].ns is inodes[1].ns is inodes[2].ns
    assert world.readlink(names[2]) == b"pid:[%d]" % inodes[0].ino
    world.open(names[0]).put()


def test_memory_file(world):
    task = world.task
    file = world.open(b"/proc/self/mem", os.O_RDWR)
    at = task.mm.arg_start
    assert world.as_task(file.pread(4, at)) == b"prog"
    assert world.as_task(file.pwrite(b"PROG", at)) == 4
    assert task.mm.read(at, 4) == b"PROG"
    with pytest.raises(SysError) as caught:
        world.as_task(file.pread(4, 0))
    assert caught.value.errno == errno.EIO
    # Private text is written, whatever its protection.
    assert world.as_task(file.pwrite(b"x", task.mm.start_code)) == 1
    assert task.mm.read(task.mm.start_code, 1) == b"x"


def test_writable_files(world):
    file = world.open(b"/proc/self/comm", os.O_WRONLY | os.O_TRUNC)
    world.as_task(file.write(b"renamed program with a long name"))
    assert world.task.name == b"renamed program"
    score = world.open(b"/proc/self/oom_score_adj", os.O_RDWR)
    world.as_task(score.write(b"500\n"))
    assert world.read(b"/proc/self/oom_score_adj") == b"500\n"
    for bad, number in ((b"x", errno.EINVAL), (b"1001", errno.EINVAL), (b"-5", errno.EACCES)):
        with pytest.raises(SysError) as caught:
            world.as_task(score.write(bad))
        assert caught.value.errno == number
    fails(errno.EACCES, world.open, b"/proc/sys/kernel/hostname", os.O_WRONLY)
    root = world.process(b"root", Credentials(0, 0))
    name = world.open(b"/proc/sys/kernel/hostname", os.O_WRONLY | os.O_TRUNC, root)
    world.as_task(name.write(b"other\n"), root)
    assert world.kernel.uts.nodename == b"other"
    fails(errno.EACCES, world.open, b"/proc/version", os.O_WRONLY)
    assert world.read(b"/proc/sys/kernel/hostname") == b"other\n"


def test_rereading_from_the_start_is_fresh(world):
    file = world.open(b"/proc/uptime")
    first = world.as_task(file.read(100))
    world.kernel.boot_ns -= 100 * 10**9
    assert world.as_task(file.read(100)) == b""
    assert world.as_task(file.lseek(0, 0)) == 0
    assert world.as_task(file.read(100)) != first


def test_a_process_that_ends(world):
    task = world.process(b"gone", Credentials(1000, 1000))
    file = world.open(b"/proc/%d/stat" % task.tid)
    directory = world.as_task(walk.walk(world.task.fs, world.task.cred, b"/proc/%d" % task.tid))
    task.exited, task.mm, task.files = True, None, None
    task.group.tasks.clear()
    task.group.zombie = True
    assert b") Z 1 " in world.read(b"/proc/%d/stat" % task.tid)
    assert b"State:\tZ (zombie)" in world.read(b"/proc/%d/status" % task.tid)
    assert world.read(b"/proc/%d/cmdline" % task.tid) == world.read(b"/proc/%d/maps" % task.tid) == b""
    fails(errno.ENOENT, world.readlink, b"/proc/%d/exe" % task.tid)
    assert world.list(b"/proc/%d/fd" % task.tid)[2:] == []
    world.kernel.reap(task.group)
    with pytest.raises(SysError) as caught:
        world.as_task(file.read(100))
    assert caught.value.errno == errno.ESRCH
    fails(errno.ENOENT, world.read, b"/proc/%d/stat" % task.tid)
    fails(errno.ESRCH, world.as_task, directory.inode.lookup(b"stat"))


def test_system_files(world):
    assert world.read(b"/proc/cpuinfo").count(b"processor") == 2
    meminfo = dict(line.split(b":") for line in world.read(b"/proc/meminfo").splitlines())
    assert meminfo[b"MemTotal"].split()[0] == b"1048576"
    assert world.read(b"/proc/stat").splitlines()[0].startswith(b"cpu  ")
    assert world.read(b"/proc/version").startswith(b"Linux version 6.12.0-test ")
    assert world.read(b"/proc/sys/kernel/osrelease") == b"6.12.0-test\n"
    assert world.read(b"/proc/sys/kernel/random/boot_id") == world.read(b"/proc/sys/kernel/random/boot_id")
    uuid = world.read(b"/proc/sys/kernel/random/uuid")
    assert uuid != world.read(b"/proc/sys/kernel/random/uuid") and len(uuid) == 37 and uuid[14:15] == b"4"
    assert world.read(b"/sys/devices/system/cpu/online") == b"0-1\n"
    assert world.list(b"/sys/fs/cgroup") == [b".", b".."]
    lines = world.read(b"/proc/mounts").splitlines()
    assert [line.split()[1] for line in lines] == [b"/", b"/proc", b"/sys"]
    assert lines[1] == b"proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0"
    assert len(world.read(b"/proc/self/mountinfo").splitlines()) == 3


def test_no_current_task():
    """In a kernel job /proc/self leads nowhere."""
    assert wait._current is None
    world = World()
    with pytest.raises(SysError) as caught:
        run(walk.walk(world.fs, Credentials(0, 0), b"/proc/self/stat"))
    assert caught.value.errno == errno.ENOENT
