"""Host descriptors as files: kinds, readiness, no O_NONBLOCK on what was inherited, no idle wake-ups."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest
from io_fakes import Kernel, Poller

from sentry.abi.errors import SysError
from sentry.abi.ioctl import (
    FIONREAD,
    TCGETA,
    TCGETS,
    TCGETS2,
    TCSETAW,
    TCSETS,
    TCSETSF2,
    TCXONC,
    TIOCGPGRP,
    TIOCGWINSZ,
    TIOCSTI,
    TIOCSWINSZ,
)
from sentry.abi.poll import POLLHUP, POLLIN, POLLOUT
from sentry.fs.hostfile import CHAR, PIPE, REGULAR, SOCKET, TTY, HostFile, host_kind
from sentry.kernel.wait import block

ARG = 4096


@pytest.fixture
def task():
    return Kernel().process()


@pytest.fixture
def poller():
    return Poller()


def fails(number, function, *args):
    with pytest.raises(SysError) as info:
        function(*args)
    assert info.value.errno == number


async def read_waiting(file, size):
    while True:
        try:
            return await file.read(size)
        except SysError as error:
            assert error.errno == errno.EAGAIN
        await block((file.queue, POLLIN | POLLHUP))


@pytest.mark.parametrize("own", [False, True])
def test_pipe(task, poller, own):
    r, w = os.pipe()
    os.set_blocking(r, not own)
    file = HostFile(r, 0, poller, own=own)
    assert file.kind == PIPE and file.inode.mode & 0o170000 == 0o010000
    assert file.inode.link_text.startswith(b"pipe:[")
    fails(errno.EAGAIN, task.do, file.read(9))
    task.begin(read_waiting(file, 9))
    assert list(poller.callbacks) == [r]
    os.write(w, b"now")
    task.kernel.run(poller, lambda: not task.busy)
    assert task.result == b"now"
    assert not poller.callbacks
    assert os.get_blocking(r) != own
    os.write(w, b"abc")
    task.do(file.ioctl(task, FIONREAD, ARG))
    assert task.mm.read_u32(ARG) == 3
    os.close(w)
    assert file.poll() & (POLLIN | POLLHUP) == POLLIN | POLLHUP
    assert task.do(file.read(9)) == b"abc" and task.do(file.read(9)) == b""
    fails(errno.ESPIPE, task.do, file.lseek(0, 0))
    file.put()
    with pytest.raises(OSError):
        os.fstat(r)


def test_writing_to_an_inherited_pipe_never_blocks(task, poller):
    r, w = os.pipe()
    file = HostFile(w, 1, poller)
    total = 0
    with pytest.raises(SysError) as info:
        while True:
            count = task.do(file.write(bytes(100_000)))
            assert count <= 4096
            total += count
    assert info.value.errno == errno.EAGAIN and total == 65536
    assert not file.poll() & POLLOUT
    os.close(r)
    fails(errno.EPIPE, task.do, file.write(b"x"))


def test_a_ready_descriptor_does_not_spin(task, poller):
    """A permanent entry (epoll's) on a pipe with unread data wakes once a write, not all the time."""
    from sentry.kernel.wait import Entry

    r, w = os.pipe()
    file = HostFile(r, 0, poller)
    wakes = []
    entry = Entry(wakes.append, POLLIN)
    file.queue.add(entry)
    for count in (1, 2):
        os.write(w, b"x")
        for _ in range(5):
            poller.wait(0)
        assert len(wakes) == count
    file.queue.remove(entry)
    assert not poller.callbacks


def test_regular_file_shares_its_position(task, poller, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_RDWR)
    ours = os.dup(fd)
    file = HostFile(ours, 2, poller)
    assert file.kind == REGULAR and file.seekable and not file.pollable
    assert task.do(file.read(4)) == b"0123"
    assert os.read(fd, 2) == b"45"
    task.do(file.write(b"AB"))
    assert task.do(file.pread(99, 0)) == b"012345AB89"
    assert task.do(file.lseek(-1, 2)) == 9
    task.do(file.inode.refresh())
    assert file.inode.size == 10
    task.do(file.inode.setattr({"size": 3}))
    assert path.read_bytes() == b"012"
    fails(errno.EPERM, task.do, file.inode.setattr({"mode": 0o777}))
    assert task.do(file.host_mapping(True, True)) == ours
    again = task.do(file.inode.open(None, 0, task.cred))
    assert again.inode is file.inode and again.host_fd != ours
    assert task.do(again.read(2)) == b"01" and task.do(again.read(2)) == b"2"
    assert task.do(again.lseek(-1, 2)) == 2 and task.do(file.lseek(0, 1)) == 9
    file.put()
    assert task.do(again.pread(9, 0)) == b"012"
    again.put()
    os.close(fd)


def test_same_host_file_same_inode_number(task, poller, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    one, two = (HostFile(os.open(path, os.O_RDONLY), 0, poller) for _ in range(2))
    other = HostFile(os.open("/dev/null", os.O_RDWR), 2, poller)
    assert one.inode.ino == two.inode.ino != other.inode.ino
    assert other.kind == CHAR and other.inode.link_text == b"/dev/null"
    assert task.do(other.read(5)) == b"" and task.do(other.write(b"xx")) == 2
    fails(errno.EACCES, task.do, one.inode.open(None, 1, task.cred))


def test_socket(task, poller):
    near, far = socket.socketpair()
    fd = near.detach()
    file = HostFile(fd, 2, poller)
    assert file.kind == SOCKET
    fails(errno.EAGAIN, task.do, file.read(9))
    far.send(b"hello")
    assert task.do(file.read(9)) == b"hello"
    with pytest.raises(SysError) as info:
        while True:
            task.do(file.write(bytes(65536)))
    assert info.value.errno == errno.EAGAIN
    far.close()
    fails(errno.EPIPE, task.do, file.write(b"x"))
    assert os.get_blocking(fd)
    file.put()


def test_tty(task, poller):
    outer, inner = os.openpty()
    file = HostFile(inner, 2, poller)
    assert file.kind == TTY and host_kind(inner) == TTY
    assert file.inode.link_text == b"/dev/console"
    task.do(file.ioctl(task, TCGETS, ARG))
    modes = task.mm.read(ARG, 36)
    assert modes != bytes(36)
    task.do(file.ioctl(task, TCSETS, ARG))
    task.do(file.ioctl(task, TIOCGWINSZ, ARG))
    fails(errno.ENOTTY, task.do, file.ioctl(task, TIOCGPGRP, ARG))
    fails(errno.EIO, task.do, file.ioctl(task, TIOCSTI, ARG))
    fails(errno.EFAULT, task.do, file.ioctl(task, TCGETS, 1))
    file.tty.acquire(task.group)
    task.do(file.ioctl(task, TIOCGPGRP, ARG))
    assert task.mm.read_u32(ARG) == task.group.pgrp.pgid
    assert task.do(file.write(b"y" * 1000)) == 256
    assert os.read(outer, 1000) == b"y" * 256
    task.begin(read_waiting(file, 99))
    os.write(outer, b"line\n")
    task.kernel.run(poller, lambda: not task.busy)
    assert task.result == b"line\n"
    again = file.tty.open(2)
    assert again.tty is file.tty
    again.put()
    file.put()
    os.close(outer)


def test_the_forms_of_termios_reach_a_host_tty(task, poller):
    """TCGETS2 and TCSETA are made of TCGETS and TCSETS, the only ones that the Sentry may use."""
    import termios

    outer, inner = os.openpty()
    file = HostFile(inner, 2, poller)
    task.do(file.ioctl(task, TCGETS2, ARG))
    assert struct.unpack_from("<II", task.mm.read(ARG + 36, 8)) == (38400, 38400)
    task.do(file.ioctl(task, TCSETSF2, ARG))
    task.do(file.ioctl(task, TCGETA, ARG))
    data = bytearray(task.mm.read(ARG, 18))
    data[6] &= ~termios.ECHO
    task.mm.write(ARG, bytes(data))
    task.do(file.ioctl(task, TCSETAW, ARG))
    assert not termios.tcgetattr(outer)[3] & termios.ECHO
    task.do(file.ioctl(task, TCXONC, 1))
    fails(errno.EINVAL, task.do, file.ioctl(task, TCXONC, 4))
    fails(errno.EPERM, task.do, file.ioctl(task, TIOCSWINSZ, ARG))
    file.put()
    os.close(outer)
