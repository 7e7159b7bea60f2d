"""MemoryManager: results and errors as Linux gives them, and host memory that follows the tree."""

from __future__ import annotations

import errno
import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentry.abi import resource

sys.path.insert(0, os.path.dirname(__file__))

from fakespace import FakeSpace, FakeThread, HostFile, run

from sentry.abi import mman
from sentry.abi.errors import SysError
from sentry.abi.mman import (
    MAP_32BIT,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_LOCKED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PAGE_SIZE,
)
from sentry.mm import Commit, MemoryManager, advise, policy
from sentry.mm.layout import STACK_GUARD
from sentry.mm.remap import remap
from sentry.mm.shared import SharedAnonymous
from sentry.mm.vma import Vma
from sentry.platform.base import GUEST_TOP

ANON = MAP_PRIVATE | MAP_ANONYMOUS
RW = 3
BASE = 0x10000000


@pytest.fixture
def mm():
    return MemoryManager(FakeSpace(), Commit())


def limits(**values):
    table = {resource.RLIMIT_STACK: 8 << 20}
    table.update({getattr(resource, "RLIMIT_" + name): value for name, value in values.items()})
    return lambda number: table.get(number, resource.RLIM_INFINITY)


def fails(number, function, *args):
    with pytest.raises(SysError) as caught:
        result = function(*args)
        if hasattr(result, "send"):
            run(result)
    assert caught.value.errno == number


def consistent(mm):
    """Host pages are exactly what the tree says, with its protections; the counters agree."""
    pages = {
        page: vma
        for vma in mm.tree
        for page in range(vma.start, vma.end, PAGE_SIZE)
        if not vma.name.startswith(b"[v")
    }
    assert set(pages) == set(mm.space.pages)
    for page, vma in pages.items():
        assert mm.space.pages[page].prot == vma.prot, hex(page)
    assert mm.total_vm == sum(vma.size for vma in mm.tree)
    charged = sum(vma.size for vma in mm.tree if vma.flags & mman.VM_ACCOUNT)
    shared = {vma.file for vma in mm.tree if isinstance(vma.file, SharedAnonymous)}
    assert mm.commit.used == charged + sum(file.size for file in shared)


def test_map_errors(mm):
    fails(errno.EINVAL, mm.map, 0, 0, RW, ANON)
    fails(errno.ENOMEM, mm.map, 0, (1 << 64) - 1, RW, ANON)
    fails(errno.ENOMEM, mm.map, 0, 1 << 47, RW, ANON)
    fails(errno.EINVAL, mm.map, 0, 4096, RW, MAP_ANONYMOUS)
    fails(errno.EINVAL, mm.map, 0, 4096, RW, MAP_ANONYMOUS | 3)
    fails(errno.EINVAL, mm.map, BASE + 1, 4096, RW, ANON | MAP_FIXED)
    fails(errno.EPERM, mm.map, 0x8000, 4096, RW, ANON | MAP_FIXED)
    fails(errno.ENOMEM, mm.map, GUEST_TOP, 4096, RW, ANON | MAP_FIXED)
    fails(errno.EINVAL, mm.map, 0, 4096, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN)
    run(mm.map(BASE, 8192, RW, ANON | MAP_FIXED))
    fails(errno.EEXIST, mm.map, BASE + 4096, 8192, RW, ANON | MAP_FIXED_NOREPLACE)
    run(mm.map(BASE + 8192, 8192, RW, ANON | MAP_FIXED_NOREPLACE))
    assert len(mm.tree) == 1
    consistent(mm)


def test_hints_and_order(mm):
    first = run(mm.map(0, 4096, RW, ANON))
    second = run(mm.map(0, 4096, RW, ANON))
    assert second == first - 4096
    assert run(mm.map(BASE + 5, 4096, RW, ANON)) == BASE
    assert run(mm.map(BASE, 4096, RW, ANON)) == second - 4096
    low = run(mm.map(0, 4096, RW, ANON | MAP_32BIT))
    assert 0x40000000 <= low < 0x80000000
    consistent(mm)


def test_huge_pages_fit(mm):
    """Private memory of whole huge pages is aligned to them, side by side, where nobody says where."""
    huge = 2 << 20
    run(mm.map(0, 4096, RW, ANON))
    first = run(mm.map(0, 2 * huge, RW, ANON))
    assert first % huge == 0
    assert run(mm.map(0, huge, RW, ANON)) == first - huge
    odd = run(mm.map(0, huge + PAGE_SIZE, RW, ANON))
    assert odd % huge and run(mm.map(BASE + 1, huge, RW, ANON)) == BASE
    file = HostFile(data=b"x" * 4096)
    assert run(mm.map(0, huge, 1, MAP_PRIVATE, file)) % huge
    consistent(mm)


def test_file_modes(mm):
    reader, writer = HostFile(data=b"x" * 8192), HostFile(data=b"y" * 8192, writable=True)
    fails(errno.EACCES, mm.map, 0, 4096, RW, MAP_SHARED, reader)
    addr = run(mm.map(0, 8192, 1, MAP_SHARED, reader))
    fails(errno.EACCES, mm.protect, addr, 4096, RW)
    addr = run(mm.map(0, 8192, RW, MAP_PRIVATE, reader))
    mm.write(addr, b"z")
    assert os.pread(reader.fd, 1, 0) == b"x" and mm.read(addr, 2) == b"zx"
    shared = run(mm.map(0, 4096, RW, MAP_SHARED, writer, 4096))
    mm.write(shared, b"z")
    assert os.pread(writer.fd, 1, 4096) == b"z"
    assert reader.refs == 2 and writer.refs == 2  # one for all mappings of an address space
    mm.unmap(addr + 4096, 4096)
    mm.unmap(addr, 4096)
    assert reader.refs == 2
    mm.put()
    assert reader.refs == writer.refs == 1


def test_limits(mm):
    mm.limit = limits(AS=1 << 20)
    addr = run(mm.map(0, 1 << 20, RW, ANON))
    fails(errno.ENOMEM, mm.map, 0, 4096, RW, ANON)
    run(mm.map(addr, 1 << 20, RW, ANON | MAP_FIXED))
    mm.limit = limits(DATA=mm.data_vm)
    fails(errno.ENOMEM, mm.map, 0, 4096, RW, ANON)
    readonly = run(mm.map(0, 4096, 1, ANON))
    fails(errno.ENOMEM, mm.protect, readonly, 4096, RW)
    consistent(mm)


def test_commit_limit():
    said = []
    commit = Commit(1 << 20, report=lambda who, size: said.append((who, size)))
    mm = MemoryManager(FakeSpace(), commit)
    mm.owner = b"hog"
    addr = run(mm.map(0, 1 << 19, RW, ANON))
    fails(errno.ENOMEM, mm.map, 0, 1 << 20, RW, ANON)
    fails(errno.ENOMEM, mm.map, 0, 1 << 20, RW, MAP_SHARED | MAP_ANONYMOUS)
    assert said == [(b"hog", 1 << 20)]
    fails(errno.ENOMEM, mm.map, 0, 1 << 20, RW, ANON | MAP_NORESERVE)
    run(mm.map(0, 1 << 20, 0, ANON))
    child, _ = mm.fork(FakeThread(mm.space))
    assert commit.used == 1 << 20
    fails(errno.ENOMEM, mm.fork, FakeThread(mm.space))
    child.put()
    mm.unmap(addr, 1 << 18)
    assert commit.used == 1 << 18
    mm.put()
    assert commit.used == 0


def test_host_refusal_leaves_a_hole(mm):
    addr = run(mm.map(BASE, 8192, RW, ANON | MAP_FIXED))
    mm.space.fail = errno.ENOMEM
    fails(errno.ENOMEM, mm.map, addr, 4096, RW, ANON | MAP_FIXED)
    assert mm.find(addr) is None and mm.find(addr + 4096) is not None
    consistent(mm)


def test_unmap_errors(mm):
    fails(errno.EINVAL, mm.unmap, 1, 4096)
    fails(errno.EINVAL, mm.unmap, 0, 0)
    fails(errno.EINVAL, mm.unmap, 0, 1 << 63)
    fails(errno.EINVAL, mm.unmap, GUEST_TOP, 4096)
    mm.unmap(BASE, 4096)


def test_protect(mm):
    addr = run(mm.map(BASE, 4 * 4096, RW, ANON))
    fails(errno.EINVAL, mm.protect, addr + 1, 4096, 1)
    fails(errno.EINVAL, mm.protect, addr, 4096, 0x100)
    mm.protect(addr, 0, 1)
    fails(errno.ENOMEM, mm.protect, 0x20000000, 4096, 1)
    mm.unmap(addr + 2 * 4096, 4096)
    fails(errno.ENOMEM, mm.protect, addr + 4096, 3 * 4096, 1)
    assert mm.find(addr + 4096).prot == 1 and mm.find(addr + 3 * 4096).prot == RW
    fails(errno.EFAULT, mm.write, addr + 4096, b"x")
    mm.protect(addr + 4096, 4096, RW)
    assert len(mm.tree) == 2
    consistent(mm)


def test_brk(mm):
    mm.start_brk = mm.brk = 0x20000000
    assert mm.set_brk(0) == 0x20000000
    assert mm.set_brk(0x20000001) == 0x20000001
    mm.write(0x20000000, b"heap")
    assert mm.set_brk(0x20003000) == 0x20003000
    assert mm.set_brk(0x1FFFF000) == 0x20003000
    run(mm.map(0x20008000, 4096, RW, ANON | MAP_FIXED))
    assert mm.set_brk(0x20008000) == 0x20003000
    assert mm.set_brk(0x20007000) == 0x20007000
    assert mm.set_brk(0x20000000) == 0x20000000
    assert mm.find(0x20000000) is None
    mm.limit = limits(DATA=4096)
    assert mm.set_brk(0x20002000) == 0x20000000
    consistent(mm)


def test_stack_growth(mm):
    mm.limit = limits(STACK=1 << 20)
    top = 0x50000000
    run(mm.map(top - 4096, 4096, RW, ANON | MAP_FIXED | MAP_GROWSDOWN))
    assert not mm.handle_fault(top, 6)
    assert mm.handle_fault(top - 4097, 6)
    assert mm.find(top - 8192) is not None
    mm.write(top - 600000, b"written by the kernel below the stack")
    assert mm.read(top - 600000, 7) == b"written"
    assert not mm.handle_fault(top - (1 << 20) - 1, 6)
    assert mm.handle_fault(top - (1 << 20), 6)
    consistent(mm)
    other = 0x60000000
    run(mm.map(other - 4096, 4096, RW, ANON | MAP_FIXED | MAP_GROWSDOWN))
    wall = other - 4096 - STACK_GUARD - 8192
    run(mm.map(wall, 4096, RW, ANON | MAP_FIXED))
    assert mm.handle_fault(other - 4096 - 1, 6)
    assert mm.find(other - 4097).start >= wall + 4096 + STACK_GUARD
    assert not mm.handle_fault(wall + 4096, 6)
    consistent(mm)


def test_nothing_near_a_stack(mm):
    run(mm.map(BASE + 0x200000, 4096, RW, ANON | MAP_FIXED | MAP_GROWSDOWN))
    assert run(mm.map(BASE + 0x200000 - 4096, 4096, RW, ANON)) != BASE + 0x200000 - 4096


def test_shared_anonymous_survives_fork(mm):
    addr = run(mm.map(0, 8192, RW, MAP_SHARED | MAP_ANONYMOUS))
    private = run(mm.map(0, 4096, RW, ANON))
    mm.write(addr, b"before")
    child, _ = mm.fork(FakeThread(mm.space))
    child.write(addr, b"after!")
    child.write(private, b"mine")
    assert mm.read(addr, 6) == b"after!" and mm.read(private, 4) == bytes(4)
    assert mm.shared_backing(addr + 5) == child.shared_backing(addr + 5) is not None
    assert mm.shared_backing(private) is None
    mm.put()
    assert child.read(addr, 6) == b"after!"
    child.put()
    assert child.commit.used == 0


def test_fork_flags(mm):
    addr = run(mm.map(BASE, 3 * 4096, RW, ANON | MAP_LOCKED))
    mm.write(addr, b"x" * 3 * 4096)
    advise.advise(mm, addr, 4096, mman.MADV_DONTFORK)
    advise.advise(mm, addr + 4096, 4096, mman.MADV_WIPEONFORK)
    child, _ = mm.fork(FakeThread(mm.space))
    fails(errno.EFAULT, child.read, addr, 1)
    assert child.read(addr + 4096, 1) == b"\0" and child.read(addr + 8192, 1) == b"x"
    assert child.locked_vm == 0 and mm.locked_vm == 3 * 4096
    assert child.total_vm == child.data_vm == 2 * 4096
    child.put()
    consistent(mm)


def test_remap(mm):
    addr = run(mm.map(BASE, 4 * 4096, RW, ANON))
    mm.write(addr, b"first")
    assert run(remap(mm, addr, 4 * 4096, 8 * 4096, 0, 0)) == addr
    consistent(mm)
    run(mm.map(addr + 8 * 4096, 4096, RW | 4, ANON | MAP_FIXED))
    fails(errno.ENOMEM, remap, mm, addr, 8 * 4096, 16 * 4096, 0, 0)
    moved = run(remap(mm, addr, 8 * 4096, 16 * 4096, MREMAP_MAYMOVE, 0))
    assert moved != addr and mm.read(moved, 5) == b"first" and mm.find(addr) is None
    consistent(mm)
    assert run(remap(mm, moved, 16 * 4096, 4096, 0, 0)) == moved
    assert run(remap(mm, moved, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, BASE)) == BASE
    assert mm.read(BASE, 5) == b"first"
    consistent(mm)
    kept = run(remap(mm, BASE, 4096, 4096, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0))
    assert mm.read(kept, 5) == b"first" and mm.read(BASE, 5) == bytes(5)
    consistent(mm)
    for arguments, number in (
        ((BASE + 1, 4096, 4096, 0, 0), errno.EINVAL),
        ((BASE, 4096, 0, 0, 0), errno.EINVAL),
        ((BASE, 4096, 4096, 8, 0), errno.EINVAL),
        ((BASE, 4096, 4096, MREMAP_FIXED, BASE), errno.EINVAL),
        ((BASE, 4096, 8192, MREMAP_MAYMOVE | MREMAP_FIXED, BASE - 4096), errno.EINVAL),
        ((0x70000000, 4096, 4096, 0, 0), errno.EFAULT),
        ((BASE, 8192, 16384, 0, 0), errno.EFAULT),
        ((BASE, 0, 4096, MREMAP_MAYMOVE, 0), errno.EINVAL),
        ((BASE, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, 4096), errno.EPERM),
    ):
        fails(number, remap, mm, *arguments)


def test_remap_shared(mm):
    addr = run(mm.map(0, 8192, RW, MAP_SHARED | MAP_ANONYMOUS))
    mm.write(addr, b"shared")
    copy = run(remap(mm, addr, 0, 8192, MREMAP_MAYMOVE, 0))
    mm.write(copy, b"SHARED")
    assert mm.read(addr, 6) == b"SHARED"
    mm.unmap(addr, 8192)
    mm.unmap(copy, 8192)
    assert mm.commit.used == 0


def test_advise_and_locks(mm):
    addr = run(mm.map(BASE, 4 * 4096, RW, ANON))
    mm.write(addr, b"x")
    advise.advise(mm, addr, 1, mman.MADV_DONTNEED)
    assert mm.read(addr, 1) == b"\0"
    fails(errno.EINVAL, advise.advise, mm, addr, 4096, 77)
    fails(errno.EINVAL, advise.advise, mm, addr + 1, 4096, 4)
    fails(errno.ENOMEM, advise.advise, mm, addr, 5 * 4096, mman.MADV_NORMAL)
    advise.advise(mm, addr, 0, 4)
    mm.limit = limits(MEMLOCK=2 * 4096)
    run(advise.lock(mm, addr, 8192, 0))
    run(advise.lock(mm, addr, 8192, 0))
    fails(errno.ENOMEM, advise.lock, mm, addr + 8192, 1, 0)
    fails(errno.EAGAIN, mm.map, 0, 4096, RW, ANON | MAP_LOCKED)
    fails(errno.EINVAL, advise.advise, mm, addr, 4096, mman.MADV_DONTNEED)
    fails(errno.ENOMEM, advise.lock_all, mm, 1)
    advise.unlock(mm, addr, 1)
    assert mm.locked_vm == 4096
    mm.limit = limits(MEMLOCK=0)
    fails(errno.EPERM, advise.lock, mm, addr, 1, 0)
    assert b"".join(advise.resident(mm, addr, 3 * 4096 + 1)) == b"\1" * 4
    fails(errno.ENOMEM, lambda: list(advise.resident(mm, addr, 5 * 4096)))
    fails(errno.EINVAL, advise.sync, mm, addr, 4096, 5)
    fails(errno.ENOMEM, advise.sync, mm, addr, 5 * 4096, 4)
    run(advise.sync(mm, addr, 4096, 4))
    consistent(mm)


def test_several_mappings_move_at_once(mm):
    addr = run(mm.map(BASE, 2 * 4096, RW, ANON))
    run(mm.map(BASE + 3 * 4096, 4096, mman.PROT_READ, ANON | mman.MAP_FIXED))
    mm.write(addr, b"first")
    target = BASE + 64 * 4096
    run(mm.map(target + 2 * 4096, 4096, RW, ANON | mman.MAP_FIXED))
    moving = mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED
    assert run(remap(mm, addr, 4 * 4096, 4 * 4096, moving, target)) == target
    assert mm.read(target, 5) == b"first"
    assert [(vma.start - target) // 4096 for vma in mm.tree] == [0, 3]
    fails(errno.EFAULT, remap, mm, addr, 4096, 4096, moving, target)
    consistent(mm)


def test_seals(mm):
    addr = run(mm.map(BASE, 4 * 4096, RW, ANON))
    advise.seal(mm, addr + 4096, 4096, 0)
    fails(errno.EPERM, mm.unmap, addr, 4 * 4096)
    fails(errno.EPERM, mm.map, addr, 8192, RW, ANON | mman.MAP_FIXED)
    fails(errno.EPERM, mm.protect, addr, 4 * 4096, mman.PROT_READ)
    assert [vma.prot for vma in mm.tree] == [mman.PROT_READ, RW, RW]
    child, _ = mm.fork(FakeThread(mm.space))
    fails(errno.EPERM, child.unmap, addr + 4096, 4096)
    child.put()
    consistent(mm)


def test_policies_follow_the_mappings():
    ranges = policy.Ranges()
    ranges.put(0, 10, (policy.MPOL_BIND, 1))
    ranges.put(4, 6, (policy.MPOL_LOCAL, 0))
    ranges.forget(8, 20)
    assert [ranges.at(i) for i in (0, 4, 7, 8)] == [(2, 1), (4, 0), (2, 1), None]
    monkey = policy.Ranges([(i, i + 1, (2, 1)) for i in range(policy.MAX_RANGES)])
    fails(errno.ENOMEM, monkey.put, 1 << 20, 1 << 21, (2, 1))


def test_shared_anonymous_is_limited(mm, monkeypatch):
    monkeypatch.setattr("sentry.mm.shared.MAX_LIVE", SharedAnonymous._live + 1)
    addr = run(mm.map(0, 4096, RW, MAP_SHARED | MAP_ANONYMOUS))
    fails(errno.ENOMEM, mm.map, 0, 4096, RW, MAP_SHARED | MAP_ANONYMOUS)
    mm.unmap(addr, 4096)
    run(mm.map(0, 4096, RW, MAP_SHARED | MAP_ANONYMOUS))
    consistent(mm)


def test_strings(mm):
    addr = run(mm.map(BASE, 8192, RW, ANON))
    mm.write(addr, b"hello\0")
    mm.write(addr + 4096, b"a" * 4096)
    mm.write(addr + 4090, b"abcdef")
    assert mm.read_cstring(addr, 4096) == b"hello"
    assert mm.read_cstring(addr, 5) is None
    assert mm.read_cstring(addr + 4090, 100) is None
    fails(errno.EFAULT, mm.read_cstring, addr + 4090, 8192)
    fails(errno.EFAULT, mm.read, GUEST_TOP - 1, 2)
    fails(errno.EFAULT, mm.read_upto, GUEST_TOP, 1)
    assert mm.read_upto(addr + 8190, 10) == b"aa"
    assert mm.write_upto(addr + 8190, b"12345") == 2
    mm.write_u64(addr, 1 << 40)
    assert mm.read_u64(addr) == 1 << 40 and mm.read_u32(addr + 4) == 1 << 8


PAGE_NUMBER = st.integers(0, 15)
STEP = st.one_of(
    st.tuples(st.just("map"), PAGE_NUMBER, st.integers(1, 6), st.sampled_from([0, 1, 3, 5]),
              st.sampled_from([ANON, ANON | MAP_NORESERVE, MAP_SHARED | MAP_ANONYMOUS])),
    st.tuples(st.just("unmap"), PAGE_NUMBER, st.integers(1, 6)),
    st.tuples(st.just("protect"), PAGE_NUMBER, st.integers(1, 6), st.sampled_from([0, 1, 3, 7])),
    st.tuples(st.just("remap"), PAGE_NUMBER, st.integers(0, 4), st.integers(1, 6),
              st.sampled_from([0, 1, 3, 5, 7]), PAGE_NUMBER),
    st.tuples(st.just("advise"), PAGE_NUMBER, st.integers(1, 6), st.sampled_from([4, 10, 11, 12, 18, 19])),
    st.tuples(st.just("lock"), PAGE_NUMBER, st.integers(1, 6)),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=20))
def test_any_sequence_keeps_both_sides_equal(steps):
    mm = MemoryManager(FakeSpace(), Commit(64 * PAGE_SIZE))
    mm.limit = limits(MEMLOCK=8 * PAGE_SIZE)
    for step in steps:
        addr, size = BASE + step[1] * PAGE_SIZE, step[2] * PAGE_SIZE
        try:
            if step[0] == "map":
                run(mm.map(addr, size, step[3], step[4] | MAP_FIXED))
            elif step[0] == "unmap":
                mm.unmap(addr, size)
            elif step[0] == "protect":
                mm.protect(addr, size, step[3])
            elif step[0] == "advise":
                advise.advise(mm, addr, size, step[3])
            elif step[0] == "lock":
                run(advise.lock(mm, addr, size, 0))
            else:
                run(remap(mm, addr, size, step[3] * PAGE_SIZE, step[4], BASE + step[5] * PAGE_SIZE))
        except SysError:
            pass
        consistent(mm)
    child, _ = mm.fork(FakeThread(mm.space)) if mm.commit.used <= 32 * PAGE_SIZE else (None, None)
    if child is not None:
        child.put()
    mm.put()
    assert mm.commit.used == mm.total_vm == mm.locked_vm == 0


def test_a_library_is_mapped_once(mm):
    """What shows the same bytes already only gets its protection; not what could have been written to."""
    file = HostFile(data=bytes(range(1, 9)) * 4096)
    made = []
    mm.space.map_file = lambda *args, real=mm.space.map_file: (made.append(args), real(*args))[1]
    base = run(mm.map(0, 8 * PAGE_SIZE, 1, MAP_PRIVATE, file))
    fixed = MAP_PRIVATE | MAP_FIXED
    run(mm.map(base + PAGE_SIZE, 2 * PAGE_SIZE, 5, fixed, file, PAGE_SIZE))
    run(mm.map(base + 4 * PAGE_SIZE, 2 * PAGE_SIZE, RW, fixed, file, 4 * PAGE_SIZE))
    assert len(made) == 1 and len(mm.tree) == 5
    mm.write(base + 4 * PAGE_SIZE, b"written")
    mm.protect(base + 4 * PAGE_SIZE, PAGE_SIZE, 1)
    run(mm.map(base + 4 * PAGE_SIZE, PAGE_SIZE, 1, fixed, file, 4 * PAGE_SIZE))
    assert len(made) == 2 and mm.read(base + 4 * PAGE_SIZE, 8) == bytes(range(1, 9))
    for offset in (PAGE_SIZE, 0):  # another part of the file; code, which may be patched
        run(mm.map(base + PAGE_SIZE - offset, PAGE_SIZE, 1, fixed, file, PAGE_SIZE))
    assert len(made) == 4
    other = HostFile(data=b"x" * 32768)
    run(mm.map(base + 6 * PAGE_SIZE, PAGE_SIZE, 1, fixed, other, 6 * PAGE_SIZE))
    assert len(made) == 5
    consistent(mm)


def test_moves_end(mm):
    """What the host says to a move comes by way of the guest: it may say "several mappings" for ever."""
    asked = []

    def liar(old, size, new, new_size):
        asked.append(size)
        if size > PAGE_SIZE:
            raise SysError(errno.EFAULT)

    mm.tree.insert(Vma(1 << 45, (1 << 45) + (1 << 36), mman.VM_READ | mman.VM_MAYALL))
    mm.space.remap = liar
    wish = MREMAP_MAYMOVE | MREMAP_FIXED
    with pytest.raises(SysError):
        run(remap(mm, 1 << 45, 1 << 36, 1 << 36, wish, 1 << 44))
    assert len(asked) < 10000


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(1, 6), st.integers(0, 3)), max_size=30))
def test_policy_ranges(steps):
    ranges, model = policy.Ranges(), {}
    for start, size, mode in steps:
        wanted = (mode, 1) if mode else policy.DEFAULT
        ranges.put(start, start + size, wanted)
        for page in range(start, start + size):
            model[page] = wanted if mode else None
        assert [ranges.at(page) for page in range(24)] == [model.get(page) for page in range(24)]
