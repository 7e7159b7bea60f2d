"""Devices and what stands in /dev."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from io_fakes import Kernel

from sentry.abi.errors import SysError
from sentry.fs.dev.populate import populate_dev
from sentry.fs.dev.table import DeviceTable, major_minor, makedev
from sentry.fs.inode import Filesystem, Inode
from sentry.fs.tmpfs.inode import Tmpfs


@pytest.fixture
def task():
    return Kernel().process()


def device(task, major, minor, mode=0o020666):
    node = Inode(Filesystem(), 9, mode)
    node.rdev = makedev(major, minor)
    return task.do(DeviceTable().open(node, None, 2, task.cred))


def fails(number, function, *args):
    with pytest.raises(SysError) as info:
        function(*args)
    assert info.value.errno == number


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_numbers(major, minor):
    assert major_minor(makedev(major, minor)) == (major, minor)


def test_memory_devices(task):
    null, zero, full, random = (device(task, 1, minor) for minor in (3, 5, 7, 8))
    assert task.do(null.read(9)) == b"" and task.do(null.write(b"abc")) == 3
    assert task.do(zero.read(9)) == bytes(9) == task.do(full.read(9))
    assert task.do(zero.host_mapping(False, True)) is None
    fails(errno.ENODEV, task.do, null.host_mapping(False, False))
    fails(errno.ENOSPC, task.do, full.write(b"x"))
    assert task.do(random.read(32)) != task.do(random.read(32))
    assert len(task.do(zero.read(1 << 40))) <= 1 << 20
    assert task.do(null.lseek(77, 0)) == 0
    assert not null.pollable


def test_unknown_devices(task):
    fails(errno.ENXIO, device, task, 4, 64)
    fails(errno.ENXIO, device, task, 1, 3, 0o060666)
    fails(errno.EIO, device, task, 136, 5)
    fails(errno.ENXIO, device, task, 5, 0)


def test_populate(task):
    fs = Tmpfs()
    task.do(populate_dev(fs.root))
    null = task.do(fs.root.lookup(b"null"))
    assert (null.mode, null.rdev) == (0o020666, makedev(1, 3))
    assert task.do(task.do(fs.root.lookup(b"stdin")).readlink()) == b"/proc/self/fd/0"
    for name in (b"zero", b"full", b"random", b"urandom", b"tty", b"console", b"ptmx", b"fd", b"pts", b"shm"):
        task.do(fs.root.lookup(name))
