"""poll, ppoll, select and pselect6."""

from __future__ import annotations

import errno

import pytest
from io_fakes import Interrupted, Kernel, pipe

from sentry.abi.poll import POLLERR, POLLFD, POLLHUP, POLLIN, POLLNVAL, POLLOUT
from sentry.abi.time import TIMESPEC
from sentry.syscalls import poll as calls
from sentry.syscalls.table import RestartBlock

FDS, TIME, R, W, X, MASK = 4096, 8192, 12288, 16384, 20480, 24576


@pytest.fixture
def task():
    return Kernel().process()


def store(task, *entries):
    task.mm.write(FDS, b"".join(POLLFD.pack(fd, events, 0xFFFF) for fd, events in entries))


def revents(task, count):
    return [POLLFD.unpack(task.mm.read(FDS + 8 * i, 8))[2] for i in range(count)]


def test_poll(task):
    r, w = pipe(task)
    store(task, (r, POLLIN), (w, POLLOUT), (-5, POLLIN), (77, POLLIN), (w, 0))
    assert task.call(calls.poll, FDS, 5, -1) == 2
    assert revents(task, 5) == [0, POLLOUT, 0, POLLNVAL, 0]
    task.files.close(r)
    store(task, (w, 0))
    assert task.call(calls.poll, FDS, 1, -1) == 1
    assert revents(task, 1) == [POLLERR]
    assert task.errno(calls.poll, FDS, 5000, 0) == errno.EINVAL
    assert task.errno(calls.poll, 1, 1, 0) == errno.EFAULT
    assert task.call(calls.poll, 0, 0, 0) == 0


def test_poll_sleeps_and_restarts(task):
    r, w = pipe(task)
    store(task, (r, POLLIN))
    task.begin(calls.poll(task, FDS, 1, 60000))
    assert task.busy
    task.interrupt()
    task.kernel.run()
    assert isinstance(task.error, RestartBlock)
    task.begin(task.error.continuation(task))
    assert task.busy
    other = task.kernel.process()
    other.do(task.files.get(w).write(b"x"))
    task.kernel.run()
    assert task.result == 1 and revents(task, 1) == [POLLIN]
    assert task.files.get(r).refs == 1


def test_timeouts(task):
    r, _ = pipe(task)
    store(task, (r, POLLIN))
    assert task.call(calls.poll, FDS, 1, 0) == 0
    task.mm.write(TIME, TIMESPEC.pack(0, 1))
    task.begin(calls.ppoll(task, FDS, 1, TIME, 0, 0))
    while task.busy:
        task.kernel.run()
    assert task.result == 0 and TIMESPEC.unpack(task.mm.read(TIME, 16)) == (0, 0)
    for bad in ((-1, 0), (0, -1), (0, 1_000_000_000)):
        task.mm.write(TIME, TIMESPEC.pack(*bad))
        assert task.errno(calls.ppoll, FDS, 1, TIME, 0, 0) == errno.EINVAL
    task.mm.write(TIME, TIMESPEC.pack(1 << 62, 0))
    task.begin(calls.ppoll(task, FDS, 1, TIME, 0, 0))
    assert task.busy


def test_ppoll_mask(task):
    r, _ = pipe(task)
    store(task, (r, POLLIN))
    task.mm.write_u64(MASK, 0x123)
    assert task.errno(calls.ppoll, FDS, 1, 0, MASK, 4) == errno.EINVAL
    task.begin(calls.ppoll(task, FDS, 1, 0, MASK, 8))
    assert task.busy and task.blocked == 0x123
    task.interrupt()
    task.kernel.run()
    assert isinstance(task.error, Interrupted)


def sets(task, r=0, w=0, x=0):
    for addr, bits in ((R, r), (W, w), (X, x)):
        task.mm.write_u64(addr, bits)


def result(task):
    return [task.mm.read_u64(addr) for addr in (R, W, X)]


def test_select(task):
    r, w = pipe(task)
    sets(task, 1 << r | 1 << 40, 1 << w)
    assert task.call(calls.select, w + 1, R, W, X, 0) == 1
    assert result(task) == [0, 1 << w, 0]
    sets(task, 1 << r | 1 << 40)
    assert task.errno(calls.select, 64, R, 0, 0, 0) == errno.EBADF
    assert task.errno(calls.select, -1, 0, 0, 0, 0) == errno.EINVAL
    task.files.close(w)
    sets(task, 1 << r)
    assert task.call(calls.select, 1 << 20, R, 0, 0, 0) == 1
    assert task.files.get(r).poll() == POLLHUP


def test_select_writes_back_the_time(task):
    r, _ = pipe(task)
    sets(task, 1 << r)
    task.mm.write(TIME, TIMESPEC.pack(50, 1_500_000))
    task.begin(calls.select(task, r + 1, R, 0, 0, TIME))
    task.interrupt()
    task.kernel.run()
    assert isinstance(task.error, Interrupted)
    seconds, microseconds = TIMESPEC.unpack(task.mm.read(TIME, 16))
    assert seconds in (50, 51) and 0 <= microseconds < 1_000_000
    task.mm.write(TIME, TIMESPEC.pack(0, 0))
    assert task.call(calls.select, r + 1, R, 0, 0, TIME) == 0
    assert result(task)[0] == 0
    task.mm.write(MASK, TIMESPEC.pack(X, 8))
    task.mm.write_u64(X, 0x40)
    task.begin(calls.pselect6(task, r + 1, R, 0, 0, 0, MASK))
    assert task.busy is True or task.blocked == 0x40
