"""epoll: levels, edges, one-shots, nesting, and files that go away."""

from __future__ import annotations

import errno
import os
import select
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from io_fakes import Interrupted, Kernel, pipe

from sentry.abi.epoll import (
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLL_EVENT,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLHUP,
    EPOLLIN,
    EPOLLONESHOT,
    EPOLLOUT,
)
from sentry.abi.errors import SysError
from sentry.fs.epoll import EpollFile
from sentry.fs.file import File
from sentry.fs.inode import Filesystem, Inode
from sentry.fs.pipe import open_pipe
from sentry.syscalls import poll as calls

BUF = 4096
EVENT = 65536


@pytest.fixture
def task():
    return Kernel().process()


def ctl(task, epfd, op, fd, events=0, data=None):
    task.mm.write(EVENT, EPOLL_EVENT.pack(events, fd if data is None else data))
    return task.errno(calls.epoll_ctl, epfd, op, fd, EVENT)


def unpack(task, count):
    return [EPOLL_EVENT.unpack(task.mm.read(BUF + 12 * i, 12)) for i in range(count)]


def wait(task, epfd, count=16, timeout=0):
    found = task.call(calls.epoll_wait, epfd, BUF, count, timeout)
    return [(data, events) for events, data in unpack(task, found)]


def test_level_and_edge(task):
    level, edge = (task.call(calls.epoll_create1, 0) for _ in range(2))
    r, w = pipe(task)
    assert ctl(task, level, EPOLL_CTL_ADD, r, EPOLLIN) == 0
    assert ctl(task, edge, EPOLL_CTL_ADD, r, EPOLLIN | EPOLLET) == 0
    assert wait(task, level) == [] == wait(task, edge)
    writer = task.files.get(w)
    task.do(writer.write(b"x"))
    assert wait(task, level) == wait(task, level) == [(r, EPOLLIN)]
    assert wait(task, edge) == [(r, EPOLLIN)] and wait(task, edge) == []
    task.do(writer.write(b"x"))
    assert wait(task, edge) == [(r, EPOLLIN)]
    task.do(task.files.get(r).read(9))
    assert wait(task, level) == []
    task.files.close(w)
    assert wait(task, level) == [(r, EPOLLHUP)] and wait(task, edge) == [(r, EPOLLHUP)]


def test_oneshot(task):
    epfd = task.call(calls.epoll_create1, 0)
    r, w = pipe(task)
    ctl(task, epfd, EPOLL_CTL_ADD, w, EPOLLOUT | EPOLLONESHOT, 7)
    assert wait(task, epfd) == [(7, EPOLLOUT)]
    assert wait(task, epfd) == []
    task.files.close(r)
    assert wait(task, epfd) == []
    ctl(task, epfd, EPOLL_CTL_MOD, w, EPOLLOUT | EPOLLONESHOT, 8)
    assert wait(task, epfd) == [(8, EPOLLOUT | 8)]


def test_errors(task):
    epfd = task.call(calls.epoll_create1, 0)
    r, w = pipe(task)
    assert ctl(task, epfd, EPOLL_CTL_DEL, r) == errno.ENOENT
    assert ctl(task, epfd, EPOLL_CTL_MOD, r, EPOLLIN) == errno.ENOENT
    assert ctl(task, epfd, EPOLL_CTL_ADD, r, EPOLLIN) == 0
    assert ctl(task, epfd, EPOLL_CTL_ADD, r, EPOLLIN) == errno.EEXIST
    assert ctl(task, epfd, EPOLL_CTL_ADD, 99, EPOLLIN) == errno.EBADF
    assert ctl(task, 99, EPOLL_CTL_ADD, r, EPOLLIN) == errno.EBADF
    assert ctl(task, r, EPOLL_CTL_ADD, w, EPOLLIN) == errno.EINVAL
    assert ctl(task, epfd, EPOLL_CTL_ADD, epfd, EPOLLIN) == errno.EINVAL
    assert ctl(task, epfd, 9, r) == errno.EINVAL
    assert task.errno(calls.epoll_ctl, epfd, EPOLL_CTL_ADD, w, 1) == errno.EFAULT
    assert task.errno(calls.epoll_wait, epfd, BUF, 0, 0) == errno.EINVAL
    assert task.errno(calls.epoll_wait, r, BUF, 1, 0) == errno.EINVAL
    assert task.errno(calls.epoll_create, 0) == errno.EINVAL
    assert task.errno(calls.epoll_create1, 1) == errno.EINVAL
    assert ctl(task, epfd, EPOLL_CTL_ADD, w, EPOLLOUT | EPOLLEXCLUSIVE) == 0
    assert ctl(task, epfd, EPOLL_CTL_MOD, w, EPOLLOUT) == errno.EINVAL

    class Regular(File):
        pollable = False

    fd = task.install(Regular(Inode(Filesystem(), 1, 0o100644), 0))
    assert ctl(task, epfd, EPOLL_CTL_ADD, fd, EPOLLIN) == errno.EPERM


def test_a_closed_file_leaves(task):
    epfd = task.call(calls.epoll_create1, 0)
    _, w = pipe(task)
    ctl(task, epfd, EPOLL_CTL_ADD, w, EPOLLOUT)
    other = task.install(task.files.get(w).get())
    task.files.close(w)
    assert wait(task, epfd) == [(w, EPOLLOUT)]
    task.files.close(other)
    assert wait(task, epfd) == []
    assert task.files.get(epfd).items() == []


def test_nesting(task):
    chain = [task.call(calls.epoll_create1, 0) for _ in range(7)]
    for above, below in pairwise(chain[:5]):
        assert ctl(task, above, EPOLL_CTL_ADD, below, EPOLLIN) == 0
    assert ctl(task, chain[4], EPOLL_CTL_ADD, chain[5], EPOLLIN) == errno.ELOOP
    assert ctl(task, chain[4], EPOLL_CTL_ADD, chain[0], EPOLLIN) == errno.ELOOP
    r, w = pipe(task)
    assert ctl(task, chain[4], EPOLL_CTL_ADD, r, EPOLLIN) == 0
    assert wait(task, chain[0]) == []
    task.do(task.files.get(w).write(b"x"))
    assert wait(task, chain[0]) == [(chain[1], EPOLLIN)]
    task.do(task.files.get(r).read(1))
    assert wait(task, chain[0]) == []


def test_sleeping(task):
    epfd = task.call(calls.epoll_create1, 0)
    r, w = pipe(task)
    other = task.kernel.process()
    task.begin(calls.epoll_wait(task, epfd, BUF, 4, -1))
    task.mm.write(EVENT, EPOLL_EVENT.pack(EPOLLIN, 5))
    other.do(calls.epoll_ctl(task, epfd, EPOLL_CTL_ADD, r, EVENT))
    assert task.busy
    other.do(task.files.get(w).write(b"x"))
    task.kernel.run()
    assert task.result == 1 and unpack(task, 1) == [(EPOLLIN, 5)]
    other.do(task.files.get(r).read(1))
    task.begin(calls.epoll_pwait(task, epfd, BUF, 4, -1, 0, 0))
    task.interrupt()
    task.kernel.run()
    assert isinstance(task.error, Interrupted)
    assert task.call(calls.epoll_wait, epfd, BUF, 4, 0) == 0


def test_a_bad_buffer_loses_nothing(task):
    epfd = task.call(calls.epoll_create1, 0)
    _, w = pipe(task)
    ctl(task, epfd, EPOLL_CTL_ADD, w, EPOLLOUT | EPOLLET | EPOLLONESHOT)
    assert task.errno(calls.epoll_wait, epfd, 64, 4, 0) == errno.EFAULT
    assert wait(task, epfd) == [(w, EPOLLOUT)]


def test_fair_order(task):
    epfd = task.call(calls.epoll_create1, 0)
    writers = [pipe(task)[1] for _ in range(3)]
    for w in writers:
        ctl(task, epfd, EPOLL_CTL_ADD, w, EPOLLOUT)
    seen = [wait(task, epfd, 1)[0][0] for _ in range(6)]
    assert seen == writers * 2


OPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "read", "wait", "mod", "add", "del"]),
        st.integers(0, 2),
        st.sampled_from([0, EPOLLET, EPOLLONESHOT, EPOLLET | EPOLLONESHOT]),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(OPS)
def test_like_the_host(ops):
    """The same operations on three pipes report the same as the host's epoll."""
    task = Kernel().process()
    host = select.epoll()
    epfd = task.call(calls.epoll_create1, 0)
    ours = [pipe(task) for _ in range(3)]
    theirs = [os.pipe2(os.O_NONBLOCK) for _ in range(3)]
    by_fd = {fds[0]: number for number, fds in enumerate(theirs)}
    numbers = {"add": (EPOLL_CTL_ADD, host.register), "mod": (EPOLL_CTL_MOD, host.modify)}
    try:
        for op, number, extra in ops:
            (r, w), (host_r, host_w) = ours[number], theirs[number]
            if op == "write":
                task.do(task.files.get(w).write(b"x"))
                os.write(host_w, b"x")
            elif op == "read" and task.files.get(r).poll() & EPOLLIN:
                task.do(task.files.get(r).read(100))
                os.read(host_r, 100)
            elif op in numbers:
                code, function = numbers[op]
                result = ctl(task, epfd, code, r, EPOLLIN | extra, number)
                assert result == host_errno(function, host_r, EPOLLIN | extra)
            elif op == "del":
                assert ctl(task, epfd, EPOLL_CTL_DEL, r) == host_errno(host.unregister, host_r)
            elif op == "wait":
                assert wait(task, epfd) == [(by_fd[fd], events) for fd, events in host.poll(0)]
    finally:
        host.close()
        for fds in theirs:
            os.close(fds[0])
            os.close(fds[1])


def host_errno(function, *args):
    try:
        function(*args)
    except OSError as error:
        return error.errno
    return 0


def test_number_of_ways_up():
    """Linux limits how many ways of each length a wake-up may go; the host does the same."""
    kernel = Kernel()
    task = kernel.process()
    reader, _ = open_pipe(0, task.cred)
    top = EpollFile()
    host_reader, host_writer = os.pipe()
    host_top = select.epoll()
    host = []
    try:
        for number in range(510):
            middle = EpollFile()
            middle.insert(3, reader, 1, 0)
            host.append(select.epoll())
            host[-1].register(host_reader, 1)
            outcomes = []
            for add in (
                lambda m=middle, n=number: top.insert(10 + n, m, 1, 0),
                lambda: host_top.register(host[-1], 1),
            ):
                try:
                    add()
                    outcomes.append(0)
                except (SysError, OSError) as error:
                    outcomes.append(error.errno)
            assert outcomes[0] == outcomes[1], number
    finally:
        for each in (*host, host_top):
            each.close()
        os.close(host_reader)
        os.close(host_writer)
