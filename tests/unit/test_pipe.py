"""Pipes and FIFOs: slots, atomicity, packets, ends, and the blocking open."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from io_fakes import Kernel

from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_DIRECT
from sentry.abi.ioctl import FIONREAD
from sentry.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from sentry.fs.inode import Filesystem, Inode
from sentry.fs.pipe import Pipe, open_fifo, open_pipe
from sentry.kernel.credentials import Credentials
from sentry.kernel.wait import Interrupted, block

O_NONBLOCK = 0o4000


@pytest.fixture
def task():
    return Kernel().process()


def fails(task, coro, number):
    with pytest.raises(SysError) as info:
        task.do(coro)
    assert info.value.errno == number


def test_bytes_and_ends(task):
    reader, writer = open_pipe(0, Credentials(7, 8))
    assert (reader.inode.uid, reader.inode.gid, reader.inode.mode) == (7, 8, 0o010600)
    assert reader.inode.link_text == b"pipe:[%d]" % reader.inode.ino
    assert reader.poll() == 0 and writer.poll() == POLLOUT | POLLWRNORM
    fails(task, reader.read(1), errno.EAGAIN)
    assert task.do(writer.write(b"hello")) == 5
    assert reader.poll() == POLLIN | POLLRDNORM
    assert task.do(reader.read(2)) == b"he"
    task.do(reader.ioctl(task, FIONREAD, 4096))
    assert task.mm.read_u32(4096) == 3
    fails(task, writer.read(1), errno.EBADF)
    fails(task, reader.write(b"x"), errno.EBADF)
    writer.put()
    assert reader.poll() == POLLIN | POLLRDNORM | POLLHUP
    assert task.do(reader.read(10)) == b"llo"
    assert task.do(reader.read(10)) == b""
    assert reader.poll() == POLLHUP


def test_epipe(task):
    reader, writer = open_pipe(0, task.cred)
    reader.put()
    assert writer.poll() == POLLOUT | POLLWRNORM | POLLERR
    fails(task, writer.write(b"x"), errno.EPIPE)
    assert task.do(writer.write(b"")) == 0


def test_capacity_and_atomic_writes(task):
    reader, writer = open_pipe(0, task.cred)
    assert task.do(writer.write(bytes(100_000))) == 65536
    assert writer.poll() == 0
    fails(task, writer.write(b"x"), errno.EAGAIN)
    task.do(reader.read(4095))
    fails(task, writer.write(b"x"), errno.EAGAIN)
    task.do(reader.read(1))
    assert task.do(writer.write(bytes(4096))) == 4096


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9000)), max_size=40))
def test_like_the_host(steps):
    """The same non-blocking writes and reads give the same counts on a pipe of the host."""
    kernel = Kernel()
    task = kernel.process()
    reader, writer = open_pipe(0, task.cred)
    host_reader, host_writer = os.pipe2(os.O_NONBLOCK)
    try:
        for writes, size in steps:
            size *= 3 if writes else 2
            try:
                ours = task.do(writer.write(bytes(size))) if writes else len(task.do(reader.read(size)))
            except SysError as error:
                ours = -error.errno
            try:
                host = os.write(host_writer, bytes(size)) if writes else len(os.read(host_reader, size))
            except OSError as error:
                host = -error.errno
            assert ours == host
    finally:
        os.close(host_reader)
        os.close(host_writer)
        reader.put()
        writer.put()


def test_packets(task):
    reader, writer = open_pipe(O_DIRECT | O_NONBLOCK, task.cred)
    assert reader.flags == O_NONBLOCK and writer.flags == O_DIRECT | O_NONBLOCK | 1
    task.do(writer.write(b"first"))
    task.do(writer.write(b"second"))
    assert task.do(reader.read(3)) == b"fir"
    assert task.do(reader.read(100)) == b"second"


def test_resize():
    pipe = Pipe()
    assert pipe.resize(0, True) == 4096
    assert pipe.resize(5000, True) == 8192
    with pytest.raises(SysError) as info:
        pipe.resize(1 << 21, False)
    assert info.value.errno == errno.EPERM
    assert pipe.resize(1 << 20, False) == 1 << 20
    pipe.put(bytes(9000), False)
    with pytest.raises(SysError) as info:
        pipe.resize(4096, True)
    assert info.value.errno == errno.EBUSY
    with pytest.raises(SysError) as info:
        pipe.resize(0xFFFFFFFF, True)
    assert info.value.errno == errno.EINVAL
    pipe.free()


def test_wakes_the_reader():
    kernel = Kernel()
    one, two = kernel.process(), kernel.process()
    reader, writer = open_pipe(0, one.cred)

    async def read_when_ready():
        while not reader.poll() & POLLIN:
            await block((reader.queue, POLLIN))
        return await reader.read(10)

    one.begin(read_when_ready())
    assert one.busy
    two.do(writer.write(b"x"))
    kernel.run()
    assert one.result == b"x"


def fifo():
    return Inode(Filesystem(), 5, 0o010644)


def test_fifo_open_waits_for_the_other_end():
    kernel = Kernel()
    one, two = kernel.process(), kernel.process()
    inode = fifo()
    one.begin(open_fifo(inode, 0))
    assert one.busy
    two.begin(open_fifo(inode, 1))
    kernel.run()
    reader, writer = one.result, two.result
    two.do(writer.write(b"through"))
    assert one.do(reader.read(99)) == b"through"
    reader.put()
    writer.put()
    assert inode.attached is None


def test_fifo_nonblocking(task):
    inode = fifo()
    fails(task, open_fifo(inode, 1 | O_NONBLOCK), errno.ENXIO)
    assert inode.attached is None
    reader = task.do(open_fifo(inode, O_NONBLOCK))
    assert reader.poll() == 0
    assert task.do(reader.read(1)) == b""
    writer = task.do(open_fifo(inode, 1 | O_NONBLOCK))
    fails(task, reader.read(1), errno.EAGAIN)
    writer.put()
    assert reader.poll() == POLLHUP
    both = task.do(open_fifo(inode, 2))
    assert both.poll() == POLLOUT | POLLWRNORM
    task.do(both.write(b"z"))
    assert task.do(both.read(1)) == b"z"


def test_fifo_open_interrupted():
    kernel = Kernel()
    task = kernel.process()
    inode = fifo()
    task.begin(open_fifo(inode, 1))
    assert task.busy
    task.interrupt()
    kernel.run()
    assert isinstance(task.error, Interrupted)
    assert inode.attached is None
