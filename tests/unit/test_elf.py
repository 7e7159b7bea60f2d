"""The ELF loader: real programs are laid out rightly, hostile headers only ever give SysError."""

from __future__ import annotations

import errno
import os
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, os.path.dirname(__file__))

from fakespace import FakeSpace, HostFile, run

from sentry.abi.auxv import host_auxv
from sentry.abi.errors import SysError
from sentry.kernel.credentials import Credentials
from sentry.mm import Commit, MemoryManager
from sentry.mm.elf import load_program, read_image, read_interpreter
from sentry.mm.stack import check_arguments
from sentry.platform.base import GUEST_TOP

VDSO = (GUEST_TOP - 0x6000, GUEST_TOP - 0x2000, GUEST_TOP)
CRED = Credentials(1000, 1000)


def new_mm() -> MemoryManager:
    return MemoryManager(FakeSpace(), Commit(), VDSO)


def load(path_or_file, argv, envp, randomize=True):
    file = HostFile(path_or_file) if isinstance(path_or_file, str) else path_or_file
    image = run(read_image(file))
    headers = image.headers
    if headers.interp is not None:
        image.interpreter = run(read_interpreter(HostFile(os.fsdecode(headers.interp))))
    mm = new_mm()
    entry = run(load_program(mm, image, argv, envp, CRED, argv[0], bytes(range(16)), randomize=randomize))
    return mm, image, entry


def read_stack(mm, sp):
    """(argv, envp, auxv) as a program would find them at `sp`."""
    argc = mm.read_u64(sp)
    at = sp + 8

    def strings():
        nonlocal at
        result = []
        while pointer := mm.read_u64(at):
            result.append(mm.read_cstring(pointer, 1 << 20))
            at += 8
        at += 8
        return result

    argv = strings()
    assert len(argv) == argc
    envp = strings()
    auxv = {}
    while True:
        key, value = struct.unpack("<QQ", mm.read(at, 16))
        at += 16
        if key == 0:
            return argv, envp, auxv
        auxv[key] = value


@pytest.mark.parametrize("randomize", [True, False])
def test_dynamic_program(randomize):
    argv, envp = [b"/bin/sh", b"-c", b"", b"x" * 5000], [b"A=1", b"B="]
    mm, image, entry = load("/bin/sh", argv, envp, randomize)
    assert entry.rsp % 16 == 0
    got_argv, got_envp, auxv = read_stack(mm, entry.rsp)
    assert (got_argv, got_envp) == (argv, envp)
    base = mm.start_code - min(segment.vaddr for segment in image.headers.segments if segment.flags & 1)
    assert auxv[3] == base + 64 and auxv[5] == image.headers.phnum and auxv[4] == 56
    assert mm.read(auxv[3], 4) == struct.pack("<I", 6)  # PT_PHDR
    assert auxv[9] - image.headers.entry == base
    assert auxv[33] == VDSO[1]
    assert mm.read(auxv[25], 16) == bytes(range(16))
    assert mm.read_cstring(auxv[31], 100) == b"/bin/sh"
    assert mm.read_cstring(auxv[15], 100) == b"x86_64"
    assert auxv[16] == host_auxv()[16] and auxv[23] == 0 and auxv[12] == 1000
    assert auxv[7] <= entry.rip < GUEST_TOP and mm.read(auxv[7], 4) == b"\x7fELF"
    assert mm.read(mm.arg_start, mm.arg_end - mm.arg_start).split(b"\0")[:-1] == argv
    assert mm.read(mm.env_start, mm.env_end - mm.env_start).split(b"\0")[:-1] == envp
    for vma in mm.tree:
        assert vma.end <= GUEST_TOP
    assert mm.set_brk(mm.brk + 100000) == mm.brk
    stack = mm.find(entry.rsp)
    assert stack.flags & 0x100 and not stack.flags & 4
    mm.put()
    assert mm.total_vm == mm.data_vm == mm.commit.used == 0


def test_bss_is_zero():
    mm, image, _ = load("/bin/sh", [b"sh"], [])
    bias = mm.start_code - min(segment.vaddr for segment in image.headers.segments if segment.flags & 1)
    last = image.headers.segments[-1]
    if last.mem_size > last.file_size:
        addr = bias + last.vaddr + last.file_size
        assert not any(mm.read(addr, last.mem_size - last.file_size))


def test_static_pie_and_interpreter_alone():
    interp = run(read_image(HostFile("/bin/sh"))).headers.interp
    mm, image, entry = load(os.fsdecode(interp), [b"ld.so"], [])
    assert image.headers.interp is None and image.headers.dynamic
    assert mm.find(entry.rip).prot == 5
    assert mm.start_brk >= 0x555555554000 and mm.start_brk < 0x600000000000


def program(*segments, kind=2, entry=0x401000, interp=None, body=b"", machine=62, cls=2):
    """A minimal ELF file; segments are (type, flags, offset, vaddr, filesz, memsz)."""
    ident = b"\x7fELF" + bytes([cls, 1, 1]) + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, kind, machine, 1, entry, 64, 0, 0, 64, 56, len(segments), 0, 0, 0
    )
    table = b"".join(
        struct.pack("<IIQQQQQQ", t, f, off, va, va, fs, ms, 0x1000) for t, f, off, va, fs, ms in segments
    )
    return (header + table).ljust(0x1000, b"\0") + body


def test_static_program_with_partial_bss():
    data = program(
        (1, 5, 0, 0x400000, 0x1800, 0x1800), (1, 6, 0x1800, 0x402800, 0x10, 0x3000), body=b"\xaa" * 0x2000
    )
    mm, _, entry = load(HostFile(data=data), [b"a"], [])
    assert entry.rip == 0x401000
    assert mm.read(0x402800, 0x10) == b"\xaa" * 16
    assert not any(mm.read(0x402810, 0x3000 - 0x10))
    assert mm.start_brk >= 0x406000 and mm.start_brk & 0xFFF == 0


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (b"#!/bin/sh\n", errno.ENOEXEC),
        (b"", errno.ENOEXEC),
        (program(), errno.ENOEXEC),
        (program((1, 5, 0, 0x400000, 10, 10), machine=3), errno.ENOEXEC),
        (program((1, 5, 0, 0x400000, 10, 10), cls=1), errno.ENOEXEC),
        (program((1, 5, 0, 0x400000, 10, 10), kind=1), errno.ENOEXEC),
        (program((2, 5, 0, 0x400000, 10, 10)), errno.EINVAL),
        (program((1, 5, 0, 0x400000, 20, 10)), errno.EINVAL),
        (program((1, 5, 8, 0x400000, 10, 10)), errno.EINVAL),
        (program((1, 5, 0, 1 << 63, 10, 10)), errno.EINVAL),
        (program((1, 5, 0, 0x400000, 10, 1 << 62)), errno.EINVAL),
        (program((1, 5, 0, 0x1000, 10, 10)), errno.EPERM),
        (program((3, 4, 0x1000, 0, 5, 5), (1, 5, 0, 0x400000, 10, 10), body=b"/lib/"), errno.ENOEXEC),
        (program((3, 4, 0x1000, 0, 5000, 5), (1, 5, 0, 0x400000, 10, 10)), errno.ENOEXEC),
    ],
)
def test_refused(data, number):
    with pytest.raises(SysError) as caught:
        load(HostFile(data=data), [b"a"], [])
    assert caught.value.errno == number


def test_argument_limits():
    stack = 8 << 20
    check_arguments([b"x" * 131071], [], b"x", stack)
    with pytest.raises(SysError) as caught:
        check_arguments([b"x" * 131072], [], b"x", stack)
    assert caught.value.errno == errno.E2BIG
    with pytest.raises(SysError):
        check_arguments([b"x" * 100000] * 21, [], b"x", stack)
    check_arguments([b"x" * 100000] * 20, [], b"x", stack)
    check_arguments([b"x" * 100000], [], b"x", 4096)


NUMBERS = st.one_of(
    st.integers(0, 0x10000),
    st.sampled_from(
        [0x400000, 0x400FFF, 1 << 31, 1 << 47, GUEST_TOP, GUEST_TOP - 0x1000, (1 << 63) - 1, (1 << 64) - 1]
    ),
    st.integers(0, (1 << 64) - 1),
)
SEGMENT = st.tuples(
    st.sampled_from([1, 1, 1, 3, 0x6474E551]),
    st.integers(0, 7),
    NUMBERS,
    NUMBERS,
    st.integers(0, 0x4000) | NUMBERS,
    st.integers(0, 0x4000) | NUMBERS,
)


class SmallSpace(FakeSpace):
    """Maps no more than a few pages for real: the hostile sizes below would fill memory."""

    def _range(self, addr, size):
        super()._range(addr, 4096)
        return range(addr, addr + min(size, 0x200000), 4096)

    def protect(self, addr, size, prot): ...


@settings(max_examples=400, deadline=None)
@given(
    st.lists(SEGMENT, min_size=1, max_size=5), st.sampled_from([2, 3]), NUMBERS, st.binary(max_size=0x1000)
)
def test_hostile_headers(segments, kind, entry, body):
    file = HostFile(data=program(*segments, kind=kind, entry=entry, body=body))
    mm = MemoryManager(SmallSpace(), Commit(), VDSO)
    try:
        image = run(read_image(file))
        image.interpreter = image if image.headers.interp else None
        run(load_program(mm, image, [b"a"], [], CRED, b"a", bytes(16)))
    except SysError:
        pass
    mm.put()
    assert mm.commit.used == 0 and mm.total_vm == 0
    assert file.refs == 1
    file.put()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0x3FF), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_real_program(changes):
    with open("/bin/true", "rb") as real:
        data = bytearray(real.read())
    for at, value in changes:
        data[at] = value
    file = HostFile(data=bytes(data))
    mm = MemoryManager(SmallSpace(), Commit(), VDSO)
    try:
        image = run(read_image(file))
        run(load_program(mm, image, [b"a"], [], CRED, b"a", bytes(16)))
    except SysError:
        pass
    mm.put()
    assert file.refs == 1
    file.put()
