"""dup, close_range, fcntl, ioctl, and the files of events: eventfd, timerfd, signalfd, memfd."""

from __future__ import annotations

import errno
import struct
import time

import pytest
from io_fakes import Kernel, pipe

from sentry.abi import fcntl as f
from sentry.abi import ioctl as io
from sentry.abi.epoll import SIGNALFD_SIGINFO
from sentry.abi.poll import POLLIN, POLLOUT
from sentry.abi.signal import SIGIO, SigInfo
from sentry.abi.time import ITIMERSPEC
from sentry.syscalls import descriptors as calls
from sentry.syscalls import events

ARG, ARG2 = 4096, 8192


@pytest.fixture
def task():
    return Kernel().process()


def test_dup(task):
    r, w = pipe(task)
    assert task.call(calls.dup, r) == 2
    assert task.call(calls.dup2, r, 9) == 9 and task.files.get(9) is task.files.get(r)
    assert task.call(calls.dup2, r, r) == r
    assert task.errno(calls.dup2, 50, 50) == errno.EBADF
    assert task.errno(calls.dup2, r, 1024) == errno.EBADF
    assert task.errno(calls.dup2, r, -1) == errno.EBADF
    assert task.errno(calls.dup3, r, r, 0) == errno.EINVAL
    assert task.errno(calls.dup3, r, 8, 1) == errno.EINVAL
    assert task.call(calls.dup3, w, 9, f.O_CLOEXEC) == 9 and task.files.cloexec(9)
    assert task.call(calls.fcntl, r, f.F_DUPFD, 9) == 10
    assert task.call(calls.fcntl, r, f.F_DUPFD_CLOEXEC, 0) == 3 and task.files.cloexec(3)
    assert task.errno(calls.fcntl, r, f.F_DUPFD, 1024) == errno.EINVAL
    assert task.errno(calls.fcntl, 99, f.F_GETFD, 0) == errno.EBADF
    assert task.files.get(r).refs == 4


def test_close_range(task):
    for _ in range(4):
        pipe(task)
    assert task.errno(calls.close_range, 5, 4, 0) == errno.EINVAL
    assert task.errno(calls.close_range, 0, 4, 8) == errno.EINVAL
    task.call(calls.close_range, 2, 3, 4)
    assert task.files.cloexec(2) and not task.files.cloexec(4)
    shared = task.files
    shared.users = 2
    task.call(calls.close_range, 3, 0xFFFFFFFF, 2)
    assert [fd for fd, _ in task.files.items()] == [0, 1, 2] and len(shared.items()) == 8


def test_flags(task):
    r, w = pipe(task)
    assert task.call(calls.fcntl, w, f.F_GETFL, 0) == 1
    task.call(calls.fcntl, w, f.F_SETFL, f.O_NONBLOCK | f.O_DIRECT | f.O_CREAT | 2)
    assert task.call(calls.fcntl, w, f.F_GETFL, 0) == 1 | f.O_NONBLOCK | f.O_DIRECT
    task.call(calls.fcntl, w, f.F_SETFD, 1)
    assert task.call(calls.fcntl, w, f.F_GETFD, 0) == 1
    task.call(calls.ioctl, w, io.FIONCLEX, 0)
    assert task.call(calls.fcntl, w, f.F_GETFD, 0) == 0
    task.mm.write_u32(ARG, 0)
    task.call(calls.ioctl, w, io.FIONBIO, ARG)
    assert not task.files.get(w).flags & f.O_NONBLOCK
    assert task.call(calls.fcntl, w, f.F_SETPIPE_SZ, 4097) == 8192
    assert task.call(calls.fcntl, r, f.F_GETPIPE_SZ, 0) == 8192
    assert task.errno(calls.fcntl, r, f.F_GET_SEALS, 0) == errno.EINVAL
    assert task.errno(calls.fcntl, r, 4711, 0) == errno.EINVAL
    assert task.errno(calls.ioctl, r, io.TCGETS, ARG) == errno.ENOTTY


def test_sigio(task):
    r, w = pipe(task)
    assert task.call(calls.fcntl, r, f.F_GETOWN, 0) == 0
    assert task.errno(calls.fcntl, r, f.F_SETOWN, 4242) == errno.ESRCH
    task.call(calls.fcntl, r, f.F_SETOWN, task.tid)
    assert task.call(calls.fcntl, r, f.F_GETOWN, 0) == task.tid
    task.call(calls.fcntl, r, f.F_SETOWN, -task.group.pgrp.pgid & 0xFFFFFFFF)
    assert task.call(calls.fcntl, r, f.F_GETOWN, 0) == -task.group.pgrp.pgid
    task.call(calls.fcntl, r, f.F_GETOWN_EX, ARG)
    assert task.mm.read_u64(ARG) == 2 | task.group.pgrp.pgid << 32
    task.call(calls.fcntl, r, f.F_SETFL, f.O_ASYNC)
    task.do(task.files.get(w).write(b"x"))
    assert task.group.signals == [SIGIO]
    task.call(calls.fcntl, r, f.F_SETFL, 0)
    task.do(task.files.get(w).write(b"x"))
    assert task.group.signals == [SIGIO]


def test_eventfd(task):
    fd = task.call(events.eventfd2, 3, 1)
    file = task.files.get(fd)
    assert file.poll() == POLLIN | POLLOUT
    assert [task.do(file.read(8))[0] for _ in range(3)] == [1, 1, 1]
    assert file.poll() == POLLOUT
    assert task.errno(lambda t: file.read(8)) == errno.EAGAIN
    assert task.errno(lambda t: file.read(7)) == errno.EINVAL
    assert task.errno(lambda t: file.write(b"\xff" * 8)) == errno.EINVAL
    assert task.do(file.write((2**64 - 2).to_bytes(8, "little"))) == 8
    assert task.errno(lambda t: file.write((1).to_bytes(8, "little"))) == errno.EAGAIN
    assert file.poll() == POLLIN
    assert task.errno(events.eventfd2, 0, 2) == errno.EINVAL


def test_timerfd(task):
    fd = task.call(events.timerfd_create, 1, 0)
    file = task.files.get(fd)
    task.mm.write(ARG, ITIMERSPEC.pack(0, 1000, 0, 1))
    task.call(events.timerfd_settime, fd, 0, ARG, ARG2)
    assert ITIMERSPEC.unpack(task.mm.read(ARG2, 32)) == (0, 0, 0, 0)
    while not file.poll():
        task.kernel.run()
    assert int.from_bytes(task.do(file.read(8)), "little") >= 1
    task.call(events.timerfd_gettime, fd, ARG2)
    assert ITIMERSPEC.unpack(task.mm.read(ARG2, 32))[1] == 1000
    task.mm.write(ARG, ITIMERSPEC.pack(0, 0, time.time_ns() // 10**9 + 100, 0))
    absolute = task.call(events.timerfd_create, 0, f.O_NONBLOCK | f.O_CLOEXEC)
    task.call(events.timerfd_settime, absolute, 1 | 2, ARG, 0)
    task.call(events.timerfd_gettime, absolute, ARG2)
    assert 98 <= ITIMERSPEC.unpack(task.mm.read(ARG2, 32))[2] <= 100
    assert task.errno(lambda t: task.files.get(absolute).read(8)) == errno.EAGAIN
    task.mm.write(ARG, ITIMERSPEC.pack(0, 10**9, 0, 0))
    assert task.errno(events.timerfd_settime, fd, 0, ARG, 0) == errno.EINVAL
    assert task.errno(events.timerfd_create, 2, 0) == errno.EINVAL
    assert task.errno(events.timerfd_gettime, pipe(task)[0], ARG) == errno.EINVAL


def test_signalfd(task):
    task.mm.write_u64(ARG, 1 << 9 | 1 << 8)
    fd = task.call(events.signalfd4, -1, ARG, 8, 0)
    file = task.files.get(fd)
    assert file.mask == 1 << 9
    other = task.kernel.process()

    async def waiting():
        from sentry.kernel.wait import block

        while not file.poll():
            await block((file.queue, POLLIN))
        return await file.read(1000)

    task.begin(waiting())
    assert task.busy
    task.pending.add(SigInfo(10, 0, 55, 66))
    other.do(other_wakes(task))
    task.kernel.run()
    assert len(task.result) == SIGNALFD_SIGINFO.size == 128
    signo, _, code, pid, uid = struct.unpack_from("<IiiII", task.result)
    assert (signo, code, pid, uid) == (10, 0, 55, 66)
    assert task.errno(events.signalfd4, -1, ARG, 4, 0) == errno.EINVAL
    assert task.errno(lambda t: file.read(127)) == errno.EINVAL
    assert task.errno(lambda t: file.read(128)) == errno.EAGAIN
    task.mm.write_u64(ARG, 1)
    assert task.call(events.signalfd4, fd, ARG, 8, 0) == fd and file.mask == 1


async def other_wakes(task):
    task.group.signal_queue.wake()


def test_memfd(task):
    task.mm.write(ARG, b"name\0")
    fd = task.call(events.memfd_create, ARG, 2)
    file = task.files.get(fd)
    assert file.inode.link_text == b"/memfd:name (deleted)" and file.inode.mode == 0o100777
    assert task.do(file.write(b"data")) == 4
    assert task.do(file.pread(9, 0)) == b"data"
    assert task.call(calls.fcntl, fd, f.F_GET_SEALS, 0) == 0
    task.call(calls.fcntl, fd, f.F_ADD_SEALS, f.F_SEAL_SHRINK | f.F_SEAL_GROW)
    assert task.errno(lambda t: file.truncate(1)) == errno.EPERM
    assert task.errno(lambda t: file.truncate(9)) == errno.EPERM
    assert not file.write_sealed
    task.call(calls.fcntl, fd, f.F_ADD_SEALS, f.F_SEAL_WRITE | f.F_SEAL_SEAL)
    assert task.errno(lambda t: file.pwrite(b"x", 0)) == errno.EPERM
    assert file.write_sealed
    assert task.errno(calls.fcntl, fd, f.F_ADD_SEALS, 0) == errno.EPERM
    plain = task.call(events.memfd_create, ARG, 0)
    assert task.call(calls.fcntl, plain, f.F_GET_SEALS, 0) == f.F_SEAL_SEAL
    assert task.errno(events.memfd_create, ARG, 0x100) == errno.EINVAL
    task.mm.write(ARG, b"a" * 250 + b"\0")
    assert task.errno(events.memfd_create, ARG, 0) == errno.EINVAL


def test_record_locks(task):
    task.mm.write(ARG, b"n\0")
    fd = task.call(events.memfd_create, ARG, 0)
    other = task.kernel.process()
    theirs = other.install(task.files.get(fd).get())
    lock = struct.Struct("<hhxxxxqqixxxx")
    task.mm.write(ARG, lock.pack(f.F_WRLCK, 0, 10, 5, 0))
    task.call(calls.fcntl, fd, f.F_SETLK, ARG)
    other.mm.write(ARG, lock.pack(f.F_RDLCK, 0, 0, 0, 0))
    assert other.errno(calls.fcntl, theirs, f.F_SETLK, ARG) == errno.EAGAIN
    other.call(calls.fcntl, theirs, f.F_GETLK, ARG)
    assert lock.unpack(other.mm.read(ARG, 32)) == (f.F_WRLCK, 0, 10, 5, task.group.tgid)
    other.mm.write(ARG, lock.pack(f.F_RDLCK, 0, 0, 0, 0))
    other.begin(calls.fcntl(other, theirs, f.F_SETLKW, ARG))
    assert other.busy
    task.mm.write(ARG, lock.pack(f.F_UNLCK, 0, 0, 0, 0))
    task.call(calls.fcntl, fd, f.F_SETLK, ARG)
    task.kernel.run()
    assert other.result == 0
    assert task.errno(calls.flock, fd, 16) == errno.EINVAL
    task.call(calls.flock, fd, f.LOCK_EX)
