"""The platforms: mapping, copying and comparing guest memory.

Machine code is written out as bytes; fixtures and harness: platform_harness.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from platform_harness import CODE, DATA, LOAD, PAGE, READ, SPIN, WRITE, descriptors, raises

from sentry.platform import base

pytest_plugins = ["platform_harness"]


def test_read_write_across_pages_and_faults(guest):
    space = guest.space
    space.map_anon(DATA, 2 * PAGE, READ | WRITE)
    data = bytes(range(256)) * 16
    space.write(DATA + PAGE // 2, data)
    assert space.read(DATA + PAGE // 2, PAGE) == data
    assert space.read_upto(DATA + PAGE, 3 * PAGE) == space.read(DATA + PAGE, PAGE)
    assert space.write_upto(DATA + 2 * PAGE - 3, bytearray(b"abcdef")) == 3
    assert space.read(DATA + 2 * PAGE - 3, 3) == b"abc"
    assert space.read(DATA, 0) == b"" and space.write(DATA, b"") is None
    for call in (
        lambda: space.read(DATA + PAGE, PAGE + 1),
        lambda: space.read_upto(0, 8),
        lambda: space.read(0xFFFF_FFFF_FFFF_F000, 8),
        lambda: space.read(base.GUEST_TOP, 8),
        lambda: space.write(base.GUEST_TOP - 4, b"12345678"),
        lambda: space.write(DATA + 2 * PAGE - 4, memoryview(b"12345678")),
        lambda: space.write_upto(0, b"x"),
    ):
        with raises(errno.EFAULT):
            call()
    space.protect(DATA, PAGE, READ)
    with raises(errno.EFAULT):
        space.write(DATA, b"x")
    space.protect(DATA, PAGE, 0)
    with raises(errno.EFAULT):
        space.read(DATA, 1)


def test_large_copies(guest):
    size = 3 * 1024 * 1024
    guest.space.map_anon(0x1000_0000, size, READ | WRITE)
    data = os.urandom(PAGE) * (size // PAGE)
    guest.space.write(0x1000_0000, data)
    assert guest.space.read(0x1000_0000, size) == data
    assert guest.space.read_upto(0x1000_0000, size * 2) == data


def test_unmap_remap_advise(guest):
    space = guest.space
    space.map_anon(0x1000_0000, 4 * PAGE, READ | WRITE)
    space.write(0x1000_0000, b"hello")
    space.remap(0x1000_0000, 4 * PAGE, 0x2000_0000, 8 * PAGE)
    assert space.read(0x2000_0000, 5) == b"hello"
    with raises(errno.EFAULT):
        space.read(0x1000_0000, 1)
    space.map_anon(0x2000_0000 + 8 * PAGE, PAGE, READ)
    space.remap(0x2000_0000, 8 * PAGE, 0x2000_0000, 9 * PAGE)
    space.write(0x2000_0000 + 8 * PAGE, b"grown")
    space.remap(0x2000_0000, 9 * PAGE, 0x2000_0000, PAGE)
    with raises(errno.EFAULT):
        space.read(0x2000_0000 + PAGE, 1)
    space.advise(0x2000_0000, PAGE, mmap.MADV_DONTNEED)
    assert space.read(0x2000_0000, 5) == bytes(5)
    space.unmap(0x2000_0000, PAGE)
    with raises(errno.EFAULT):
        space.read(0x2000_0000, 1)


@pytest.mark.parametrize(
    ("addr", "size"),
    [(base.GUEST_TOP, PAGE), (base.GUEST_TOP - PAGE, 2 * PAGE), (PAGE, 0), (PAGE + 1, PAGE), (-PAGE, PAGE)],
)
def test_ranges_are_checked(guest, addr, size):
    for call in (
        lambda: guest.space.map_anon(addr, size, READ),
        lambda: guest.space.unmap(addr, size),
        lambda: guest.space.protect(addr, size, READ),
        lambda: guest.space.remap(DATA, PAGE, addr, size),
        lambda: guest.space.map_file(addr, size, READ, True, 0, 0),
    ):
        with raises(errno.EINVAL):
            call()


def test_shared_file_mapping(guest, memfd):
    guest.space.map_file(0x1000_0000, PAGE, READ | WRITE, True, memfd, PAGE)
    guest.space.write(0x1000_0000, b"seen")
    assert os.pread(memfd, 8, PAGE) == b"seenfile"
    os.pwrite(memfd, b"back", PAGE)
    assert guest.space.read(0x1000_0000, 4) == b"back"
    assert descriptors(guest.space._tgid) == []
    # Beyond the end of the file: SIGBUS for the guest, EFAULT for us.
    guest.space.map_file(0x1000_0000, 2 * PAGE, READ, True, memfd, 4 * PAGE)
    trap = guest.run(LOAD, rdi=0x1000_0000)
    assert (trap.kind, trap.signo, trap.code, trap.addr) == (base.FAULT, signal.SIGBUS, 2, 0x1000_0000)
    with raises(errno.EFAULT):
        guest.space.read(0x1000_0000, 1)


def test_private_file_mapping(guest, memfd):
    guest.space.map_file(0x1000_0000, PAGE, READ | WRITE, False, memfd, 0)
    guest.space.write(0x1000_0000, b"mine")
    assert os.pread(memfd, 4, 0) == b"file" and guest.space.read(0x1000_0000, 8) == b"minefile"


def test_shared_mapping_has_the_descriptors_access(guest, memfd):
    reader = os.open(f"/proc/self/fd/{memfd}", os.O_RDONLY)
    try:
        guest.space.map_file(0x1000_0000, PAGE, READ, True, reader, 0)
        with raises(errno.EACCES):
            guest.space.protect(0x1000_0000, PAGE, READ | WRITE)
        with raises(errno.EACCES):
            guest.space.map_file(0x1000_0000, PAGE, READ | WRITE, True, reader, 0)
        with raises(errno.EFAULT):
            guest.space.write(0x1000_0000, b"x")
    finally:
        os.close(reader)


def test_unmappable_descriptors(guest):
    left, right = os.pipe()
    os.close(right)
    with raises(errno.ENODEV):
        guest.space.map_file(0x1000_0000, PAGE, READ, True, left, 0)
    os.close(left)
    with raises(errno.EBADF):
        guest.space.map_file(0x1000_0000, PAGE, READ, True, left, 0)
    path = os.open("/", os.O_PATH)
    with raises(errno.EBADF):
        guest.space.map_file(0x1000_0000, PAGE, READ, True, path, 0)
    os.close(path)
    assert descriptors(guest.space._tgid) == []
    guest.space.map_anon(0x1000_0000, PAGE, READ)


def test_cmpxchg(guest):
    guest.space.write(DATA, struct.pack("<I", 0xDEADBEEF))
    assert guest.space.cmpxchg32(DATA, 1, 2) == 0xDEADBEEF
    assert guest.space.cmpxchg32(DATA, 0xDEADBEEF, 0x80000001) == 0xDEADBEEF
    assert guest.space.read(DATA, 8) == struct.pack("<II", 0x80000001, 0)
    for bad in (0, base.GUEST_TOP, (1 << 64) - 4, 1 << 62):
        with raises(errno.EFAULT):
            guest.space.cmpxchg32(bad, 0, 0)
    guest.space.protect(DATA, PAGE, READ)
    with raises(errno.EFAULT):
        guest.space.cmpxchg32(DATA, 1, 2)
    assert guest.call(b"\x90") == guest.regs.rdi  # none of it disturbed the thread


def test_memory_of_a_running_space(guest):
    guest.code(SPIN)
    guest.thread.resume()
    guest.space.write(DATA, b"live")
    guest.space.map_anon(0x1000_0000, PAGE, READ | WRITE)
    assert guest.space.read(DATA, 4) == b"live"
    assert guest.trap().kind == base.KICKED and guest.regs.rip == CODE
