"""The ptrace platform by itself: registers, memory, traps, threads and death.

Machine code is written out as bytes; harness: platform_harness.Guest.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from platform_harness import (
    CALL_RAX,
    CODE,
    DATA,
    LOAD,
    PAGE,
    READ,
    SPIN,
    STORE,
    SYSCALL,
    WRITE,
    Guest,
    start,
)

from sentry.abi.errors import SysError
from sentry.platform import base
from sentry.platform.ptrace import MAX_PARKED

SEGV_MAPERR, SEGV_ACCERR, SI_KERNEL = 1, 2, 0x80


@pytest.fixture(scope="module")
def platform():
    result = start()
    yield result
    result.close()


@pytest.fixture
def guest(platform):
    result = Guest(platform)
    yield result
    result.space.destroy()


def raises(number):
    class Check:
        def __enter__(self):
            return self

        def __exit__(self, kind, error, _):
            assert kind is SysError, f"expected {errno.errorcode[number]}, got {error!r}"
            assert error.errno == number, str(error)
            return True

    return Check()


def host_maps(guest):
    with open(f"/proc/{guest.space._tgid}/maps") as file:
        return file.read().splitlines()


# --- boot


def test_new_space_holds_stub_and_vdso_only(platform):
    thread = platform.new_address_space()
    try:
        start, elf, end = platform.vdso()
        names = [line.split()[-1] for line in host_maps(Guest(platform, thread))]
        kernel = {"[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]"}
        (ours,) = [name for name in names if name not in kernel]
        assert os.path.basename(ours) == "stub"
        assert end == base.GUEST_TOP and start < elf < end
        assert thread.space.read(elf, 4) == b"\x7fELF"
        assert os.listdir(f"/proc/{thread.space._tgid}/fd") == []
        status = Path(f"/proc/{thread.space._tgid}/status").read_text()
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
        assert f"PPid:\t{os.getpid()}\n" in status and f"TracerPid:\t{os.getpid()}\n" in status
        assert os.getsid(thread.space._tgid) != os.getsid(0)
    finally:
        thread.space.destroy()


# --- traps


def test_syscall_reports_registers_and_takes_result(guest):
    trap = guest.run(
        SYSCALL + b"\x48\x89\xc3" + SYSCALL,  # mov %rax,%rbx
        rax=1000, rdi=1, rsi=2, rdx=3, r10=4, r8=5, r9=6,
    )  # fmt: skip
    regs = guest.regs
    assert trap.kind == base.SYSCALL and regs.orig_rax == 1000 and regs.rip == CODE + 2
    assert (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9) == (1, 2, 3, 4, 5, 6)
    regs.rax = 0x1122334455667788
    guest.thread.resume()
    assert guest.trap().kind == base.SYSCALL and regs.rbx == 0x1122334455667788


@pytest.mark.parametrize("result", [-4, -512, -513, -514, -516])
def test_host_never_restarts_a_call(guest, result):
    guest.run(SYSCALL + SYSCALL, rax=35)
    guest.regs.rax = result & 0xFFFF_FFFF_FFFF_FFFF
    interrupt(guest)  # makes the host look for work on the way out, where it would restart
    guest.thread.resume()
    trap = guest.trap()
    if trap.kind == base.KICKED:
        assert guest.regs.rip == CODE + 2
        guest.thread.resume()
        trap = guest.trap()
    assert trap.kind == base.SYSCALL and guest.regs.rip == CODE + 4


def interrupt(guest):
    """An interrupt that is pending while the Sentry owns the thread, as a late kick leaves it."""
    import ctypes

    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    assert ptrace(0x4207, guest.thread._c.pid, None, None) == 0


def test_host_does_not_see_guest_calls(guest):
    guest.run(SYSCALL, rax=231, rdi=0)  # exit_group
    assert guest.run(SYSCALL, rax=39).kind == base.SYSCALL


@pytest.mark.parametrize("number", [0xFFFF_FFFF_FFFF_FFFF, 0x4000_0001, 0x7FFF_FFFF, 1 << 40])
def test_odd_numbers_come_up_as_numbers(guest, number):
    assert guest.run(SYSCALL, rax=number).kind == base.SYSCALL
    assert guest.regs.orig_rax == number and guest.regs.rip == CODE + 2


@pytest.mark.parametrize(
    ("code", "regs", "signo", "si_code", "addr", "trapno", "error"),
    [
        (LOAD, {"rdi": 0x1234}, signal.SIGSEGV, SEGV_MAPERR, 0x1234, 14, 4),
        (LOAD, {"rdi": 1 << 63}, signal.SIGSEGV, SI_KERNEL, 0, 13, 0),
        (b"\xf4", {}, signal.SIGSEGV, SI_KERNEL, 0, 13, 0),
        (b"\x0f\x0b", {}, signal.SIGILL, 2, CODE, 6, 0),
        (b"\xf7\xf1", {"rcx": 0}, signal.SIGFPE, 1, CODE, 0, 0),
        (b"\xcc", {}, signal.SIGTRAP, SI_KERNEL, 0, 3, 0),
        (b"\xcd\x80", {"rax": 1}, signal.SIGSEGV, SI_KERNEL, 0, 13, 0x402),
        (b"\xff\xe7", {"rdi": 0x7000}, signal.SIGSEGV, SEGV_MAPERR, 0x7000, 14, 0x14),
    ],
)
def test_faults(guest, code, regs, signo, si_code, addr, trapno, error):
    trap = guest.run(code, **regs)
    assert (trap.kind, trap.signo, trap.code, trap.addr) == (base.FAULT, signo, si_code, addr)
    assert (trap.trapno, trap.error) == (trapno, error)
    if code == b"\xcd\x80":
        assert guest.regs.rip == CODE and guest.regs.rax == 1


def test_write_fault_is_resumable(guest):
    guest.space.map_anon(DATA, PAGE, READ)
    trap = guest.run(STORE + SYSCALL, rdi=DATA + 5, rax=0x41)
    assert (trap.signo, trap.code, trap.addr, trap.error) == (signal.SIGSEGV, SEGV_ACCERR, DATA + 5, 7)
    guest.space.protect(DATA, PAGE, READ | WRITE)
    guest.thread.resume()
    assert guest.trap().kind == base.SYSCALL
    assert guest.space.read(DATA, 8) == b"\0\0\0\0\0A\0\0"


def test_guest_can_single_step_itself(guest):
    # pushf; orq $0x100,(%rsp); popf; nop; nop
    trap = guest.run(bytes.fromhex("9c48810c24000100009d9090") + SYSCALL)
    assert (trap.kind, trap.signo, trap.code) == (base.FAULT, signal.SIGTRAP, 2)
    assert guest.regs.rip == CODE + 11 and guest.regs.eflags & 0x100
    guest.regs.eflags &= ~0x100
    guest.thread.resume()
    assert guest.trap().kind == base.SYSCALL


def test_wild_registers_are_harmless(guest):
    guest.code(SYSCALL)
    wild = 0xFFFF_FFFF_FFFF_FFFF
    for name in ("cs", "ss", "ds", "es", "fs", "gs", "eflags", "fs_base", "gs_base", "orig_rax"):
        setattr(guest.regs, name, wild)
    guest.regs.eflags = wild & ~0x100
    guest.regs.rax = 7
    guest.thread.resume()
    assert guest.trap().kind == base.SYSCALL
    assert (guest.regs.cs, guest.regs.ss, guest.regs.orig_rax) == (0x33, 0x2B, 7)
    guest.regs.rip = 1 << 62
    guest.thread.resume()
    trap = guest.trap()
    assert (trap.kind, trap.signo) == (base.FAULT, signal.SIGSEGV)


def test_fs_base_holds(guest):
    guest.space.write(DATA + 16, b"Z")
    # mov %fs:16,%al; movzx %al,%edi
    assert guest.call(bytes.fromhex("648a0425100000000fb6f8"), fs_base=DATA) == ord("Z")


def test_kick_stops_a_loop(guest):
    guest.code(SPIN)
    guest.thread.resume()
    guest.thread.kick()
    assert guest.trap().kind == base.KICKED and guest.regs.rip == CODE
    guest.thread.kick()  # of a stopped thread: nothing
    assert guest.platform.wait(0) == []


def test_foreign_signals_are_thrown_away(guest):
    guest.code(SPIN)
    guest.thread.resume()
    for signo in (signal.SIGTERM, signal.SIGSEGV, signal.SIGSTOP, signal.SIGUSR1, signal.SIGTRAP):
        os.kill(guest.space._tgid, signo)
        for _ in range(3):
            assert guest.platform.wait(1_000_000) == []
    guest.thread.kick()
    assert guest.trap().kind == base.KICKED
    os.kill(guest.space._tgid, signal.SIGTRAP)
    os.kill(guest.space._tgid, signal.SIGCONT)
    guest.space.map_anon(0x10000, PAGE, READ)  # with them pending
    assert guest.space.read(0x10000, 1) == b"\0"


def test_vdso_works(platform, guest):
    _, elf, end = platform.vdso()
    image = guest.space.read(elf, end - elf)
    symbol = vdso_symbol(image, b"__vdso_clock_gettime")
    guest.call(CALL_RAX, rax=elf + symbol, rdi=1, rsi=DATA)
    seconds, nanos = struct.unpack("<QQ", guest.space.read(DATA, 16))
    assert abs(seconds * 10**9 + nanos - __import__("time").monotonic_ns()) < 10 * 10**9


def vdso_symbol(image, wanted):
    """Value of a dynamic symbol, by the section headers."""
    shoff, shentsize, shnum = struct.unpack_from("<Q10xHH", image, 40)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, shoff + i * shentsize) for i in range(shnum)]
    for section in sections:
        if section[1] != 11:  # SHT_DYNSYM
            continue
        strings = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 24):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", image, at)
            if image[strings + name : image.index(b"\0", strings + name)] == wanted:
                return value
    raise LookupError(wanted)


def test_vsyscall_page_is_a_system_call(guest):
    trap = guest.run(CALL_RAX + SYSCALL, rax=0xFFFF_FFFF_FF60_0400, rdi=0)
    if trap.kind == base.FAULT:
        pytest.skip("this host has no vsyscall page")
    assert trap.kind == base.SYSCALL and guest.regs.orig_rax == 201 and guest.regs.rip == CODE + 2
    guest.regs.rax = 77
    guest.thread.resume()
    assert guest.trap().kind == base.SYSCALL and guest.regs.orig_rax == 77


# --- memory


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


@pytest.fixture
def memfd():
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(fd, b"file" * PAGE)
    yield fd
    os.close(fd)


def test_shared_file_mapping(guest, memfd):
    guest.space.map_file(0x1000_0000, PAGE, READ | WRITE, True, memfd, PAGE)
    guest.space.write(0x1000_0000, b"seen")
    assert os.pread(memfd, 8, PAGE) == b"seenfile"
    os.pwrite(memfd, b"back", PAGE)
    assert guest.space.read(0x1000_0000, 4) == b"back"
    assert os.listdir(f"/proc/{guest.space._tgid}/fd") == []
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
    assert os.listdir(f"/proc/{guest.space._tgid}/fd") == []
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


# --- FP state


def test_fpstate_roundtrip(guest):
    state = bytearray(guest.thread.get_fpstate())
    state[160:168] = struct.pack("<Q", 0x1122334455667788)  # xmm0
    state[512] |= 3  # xstate_bv: x87 and SSE are not in their initial states
    guest.thread.set_fpstate(bytes(state))
    # movq %xmm0,%rdi
    assert guest.call(bytes.fromhex("66480f7ec7")) == 0x1122334455667788
    copy = guest.space.fork(guest.thread)
    assert copy.get_fpstate()[160:168] == state[160:168]
    copy.space.destroy()
    guest.thread.reset_fpstate()
    assert guest.call(bytes.fromhex("66480f7ec7")) == 0


def test_bad_fpstate_is_refused(guest):
    good = bytearray(guest.thread.get_fpstate())
    good[512] |= 3  # MXCSR counts only where x87 or SSE state is present
    good = bytes(good)
    for at, value in ((24, b"\xff\xff\xff\xff"), (519, b"\xff"), (527, b"\xff")):
        bad = good[:at] + value + good[at + len(value) :]
        with raises(errno.EINVAL):
            guest.thread.set_fpstate(bad)
    for bad in (b"", good[:512], good + b"\0"):
        with raises(errno.EINVAL):
            guest.thread.set_fpstate(bad)


# --- fork and threads


def test_fork_is_copy_on_write(guest, memfd):
    guest.space.map_file(0x1000_0000, PAGE, READ | WRITE, True, memfd, 0)
    guest.space.write(DATA, b"old")
    guest.run(SYSCALL, rax=57, rbx=99)
    child = Guest(guest.platform, guest.space.fork(guest.thread))
    assert child.regs.rbx == 99 and child.regs.rip == guest.regs.rip
    guest.space.write(DATA, b"new")
    child.space.write(0x1000_0000, b"shared")
    assert child.space.read(DATA, 3) == b"old"
    assert guest.space.read(0x1000_0000, 6) == b"shared"
    assert child.call(b"\x48\x89\xdf") == 99
    assert guest.call(b"\x48\x89\xdf") == 99
    grandchild = Guest(guest.platform, child.space.fork(child.thread))
    child.space.destroy()
    assert grandchild.space.read(DATA, 3) == b"old"
    grandchild.space.destroy()


def test_threads_share_memory(guest):
    guest.code(SYSCALL + SPIN)
    threads = [guest.thread] + [guest.space.new_thread(guest.thread) for _ in range(7)]
    assert len({t._c.pid for t in threads}) == 8 and len({t._c.tgid for t in threads}) == 1
    for i, thread in enumerate(threads):
        thread.regs.rax = i
        thread.resume()
    seen = {}
    while len(seen) < 8:
        for trap in guest.platform.wait(-1):
            assert trap.kind == base.SYSCALL
            seen[trap.thread] = trap.thread.regs.orig_rax
    assert [seen[t] for t in threads] == list(range(8))
    for thread in threads[1:]:
        thread.exit()
    assert len(os.listdir(f"/proc/{guest.space._tgid}/task")) == 1 + MAX_PARKED
    again = guest.space.new_thread(guest.thread)
    assert again._c.pid in {t._c.pid for t in threads}


def test_leader_is_parked_not_ended(guest):
    space = guest.space
    other = Guest(guest.platform, space.new_thread(guest.thread))
    guest.thread.exit()
    assert other.call(b"\x90", rdi=5) == 5
    assert space.read(CODE, 1) == b"\x90"
    space.map_anon(0x1000_0000, PAGE, READ)
    forked = Guest(guest.platform, space.fork(other.thread))
    assert forked.call(b"\x90", rdi=6) == 6
    forked.space.destroy()
    state = bytearray(other.thread.get_fpstate())
    state[160:168] = b"parkpark"
    state[512] |= 3
    other.thread.set_fpstate(bytes(state))
    third = space.new_thread(other.thread)
    assert third._c.pid == third._c.tgid, "the leader serves again"
    assert third.get_fpstate()[160:168] == b"parkpark" and third.regs.rip == other.regs.rip
    third.exit()
    other.thread.exit()
    guest.platform.wait(0)
    with raises(errno.ESRCH):
        space.read(CODE, 1)


def test_exit_of_the_last_thread_ends_the_process(platform):
    guest = Guest(platform)
    pid = guest.space._tgid
    guest.thread.exit()
    while os.path.exists(f"/proc/{pid}"):
        assert platform.wait(1_000_000) == []
    guest.space.destroy()


# --- death


def test_killed_while_running(guest):
    others = [guest.space.new_thread(guest.thread) for _ in range(2)]
    guest.code(SPIN)
    for thread in [guest.thread, *others]:
        thread.regs.rip = CODE
        thread.resume()
    os.kill(guest.space._tgid, signal.SIGKILL)
    dead = set()
    while len(dead) < 3:
        for trap in guest.platform.wait(-1):
            assert trap.kind == base.DEAD
            dead.add(trap.thread)
    assert dead == {guest.thread, *others}
    assert_dead(guest)


def assert_dead(guest):
    space = guest.space
    for call in (
        lambda: space.map_anon(0x1000_0000, PAGE, READ),
        lambda: space.read(CODE, 1),
        lambda: space.write(CODE, b"x"),
        lambda: space.cmpxchg32(DATA, 0, 0),
        lambda: space.fork(guest.thread),
        lambda: space.new_thread(guest.thread),
        lambda: space.map_file(0x1000_0000, PAGE, READ, True, 0, 0),
        lambda: guest.thread.get_fpstate(),
    ):
        with raises(errno.ESRCH):
            call()
    guest.thread.kick()
    guest.thread.resume()
    assert guest.trap().kind == base.DEAD


@pytest.mark.parametrize("operation", ["map_anon", "map_file", "fork", "new_thread", "cmpxchg", "resume"])
def test_killed_while_stopped(guest, memfd, operation):
    extra = guest.space.new_thread(guest.thread)
    guest.code(SYSCALL)
    os.kill(guest.space._tgid, signal.SIGKILL)
    operations = {
        "map_anon": lambda: guest.space.map_anon(0x1000_0000, PAGE, READ),
        "map_file": lambda: guest.space.map_file(0x1000_0000, PAGE, READ, True, memfd, 0),
        "fork": lambda: guest.space.fork(guest.thread),
        "new_thread": lambda: guest.space.new_thread(guest.thread),
        "cmpxchg": lambda: guest.space.cmpxchg32(DATA, 0, 0),
    }
    if operation == "resume":
        guest.thread.resume()
    else:
        with raises(errno.ESRCH):
            operations[operation]()
    dead = set()
    while dead != {guest.thread, extra}:
        for trap in guest.platform.wait(-1):
            assert trap.kind == base.DEAD
            dead.add(trap.thread)
    assert_dead(guest)


@pytest.mark.parametrize("operation", ["map_file", "fork", "new_thread", "map_anon"])
def test_killed_at_any_moment(platform, memfd, operation):
    """A killer races with the operation; whatever it hits, the answer is ESRCH and nothing is left."""
    for round_ in range(40):
        guest = Guest(platform)
        pid = guest.space._tgid
        go = threading.Event()
        victim = threading.Thread(target=lambda go=go, pid=pid: (go.wait(), os.kill(pid, signal.SIGKILL)))
        victim.start()
        children = []
        try:
            for i in range(100_000):
                if i == round_ % 4:
                    go.set()
                if operation == "map_file":
                    guest.space.map_file(0x1000_0000, PAGE, READ, True, memfd, 0)
                elif operation == "map_anon":
                    guest.space.map_anon(0x1000_0000, PAGE, READ)
                elif operation == "fork":
                    children.append(guest.space.fork(guest.thread))
                    children.pop().space.destroy()
                else:
                    guest.space.new_thread(guest.thread).exit()
        except SysError as error:
            assert error.errno in (errno.ESRCH, errno.ENOMEM), str(error)
        else:
            pytest.fail("it survived")
        victim.join()
        for child in children:
            child.space.destroy()
        guest.space.destroy()
    check = Guest(platform)
    check.space.map_file(0x1000_0000, PAGE, READ, True, memfd, 0)
    check.space.destroy()
    # A child whose parent died while it cloned is nobody's: it is killed when its first stop comes.
    expected = {platform._zygote.pid} | {s._tgid for s in platform._spaces}
    for _ in range(10_000):
        assert platform.wait(1_000_000) == []
        if children_of_this_process() == expected:
            break
    assert children_of_this_process() == expected


def children_of_this_process():
    me = os.getpid()
    return {int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()}


def test_destroy_swallows_pending_traps(platform):
    guest = Guest(platform)
    guest.code(SYSCALL)
    guest.thread.resume()
    other = Guest(platform)
    guest.space.destroy()
    other.code(SYSCALL)
    other.thread.resume()
    assert other.trap().kind == base.SYSCALL
    other.space.destroy()
    assert platform.wait(0) == []


# --- descriptors and time


def test_watch(platform):
    left, right = os.pipe()
    seen = []
    platform.watch(left, select.EPOLLIN, seen.append)
    assert platform.wait(0) == [] and seen == []
    os.write(right, b"x")
    platform.wait(-1)
    platform.wait(-1)
    assert seen == [select.EPOLLIN] * 2
    other = []
    platform.watch(left, select.EPOLLIN | select.EPOLLET, other.append)
    platform.wait(-1)
    platform.wait(0)
    assert len(seen) == 2 and other == [select.EPOLLIN]
    platform.unwatch(left)
    platform.unwatch(left)
    os.write(right, b"x")
    assert platform.wait(0) == [] and len(other) == 1
    os.close(left)
    os.close(right)


def test_watch_refuses_regular_files(platform):
    fd = os.open(__file__, os.O_RDONLY)
    with pytest.raises(PermissionError):
        platform.watch(fd, select.EPOLLIN, print)
    os.close(fd)


def test_callback_that_raises_loses_no_trap(platform, guest):
    left, right = os.pipe()

    def bug(events):
        raise ZeroDivisionError

    platform.watch(left, select.EPOLLIN, bug)
    os.write(right, b"x")
    guest.code(SYSCALL)
    guest.thread.resume()
    bugs, traps = 0, []
    while not (bugs and traps):
        try:
            traps += platform.wait(-1)
        except ZeroDivisionError:
            bugs += 1
    platform.unwatch(left)
    assert [t.thread for t in traps] == [guest.thread]
    os.close(left)
    os.close(right)


def test_descriptors_do_not_starve_while_a_guest_traps(platform, guest):
    left, right = os.pipe()
    seen = []
    platform.watch(left, select.EPOLLIN, seen.append)
    os.write(right, b"x")
    guest.code(SYSCALL + b"\xeb\xfc")
    for _ in range(1000):
        guest.thread.resume()
        guest.trap()
        if seen:
            break
    platform.unwatch(left)
    assert seen
    os.close(left)
    os.close(right)


def test_computing_threads_spread_and_come_home(platform, guest):
    if not platform._pin or os.cpu_count() < 2 or len(os.sched_getaffinity(1)) < 2:
        pytest.skip("one CPU")
    home = os.sched_getaffinity(0)
    pid = guest.space._tgid
    assert os.sched_getaffinity(pid) == home
    guest.code(SPIN)
    guest.thread.resume()
    for _ in range(10_000):
        if os.sched_getaffinity(pid) != home:
            break
        assert platform.wait(30_000_000) == []
    assert len(os.sched_getaffinity(pid)) > 1
    guest.thread.kick()
    guest.trap()
    guest.code(SYSCALL + b"\xeb\xfc")
    for _ in range(10_000):
        guest.thread.resume()
        guest.trap()
        if os.sched_getaffinity(pid) == home:
            break
    assert os.sched_getaffinity(pid) == home


# --- the filter, and python-ptrace as a second opinion


@pytest.mark.parametrize(
    ("number", "args"),
    [
        (39, ()),  # getpid
        (2, (DATA, 0, 0)),  # open
        (56, (signal.SIGCHLD,)),  # clone with other flags
        (9, (0x1000_0000, PAGE, READ, 0x21, 2**64 - 1, 0)),  # shared anonymous memory
        (9, (0x1000_0000, PAGE, READ, 0x40022, 2**64 - 1, 0)),  # MAP_HUGETLB
        (9, (0x1000_0000, PAGE, READ, 0x2022, 2**64 - 1, 0)),  # MAP_LOCKED
        (0x4000_0000 | 9, (0x1000_0000, PAGE, READ, 0x22, 2**64 - 1, 0)),  # x32
    ],
)
def test_filter_kills_what_the_platform_never_asks(guest, number, args):
    with raises(errno.ESRCH):
        guest.space._call(number, *args, *[0] * (2 - len(args)))
    assert guest.trap().kind == base.DEAD


def test_a_notification_nobody_ordered_is_refused(guest):
    from sentry.platform.ptrace import _check, lib

    # Order one mapping while the thread makes another: the engine must compare.
    with raises(errno.EINVAL):
        _check(lib.ptrace_map_file(guest.space._engine, guest.thread._c, 0x1000_0001, PAGE, READ, 0x11, 0, 0))
    guest.space.map_anon(0x1000_0000, PAGE, READ)


def test_registers_agree_with_python_ptrace(guest):
    from ptrace.binding import func, linux_struct
    from sentry._engine import ffi

    theirs = linux_struct.user_regs_struct
    for name, _ in theirs._fields_:
        assert getattr(theirs, name).offset == ffi.offsetof("struct guest_regs", name)
    guest.run(SYSCALL, rax=1, rbx=0x1234, r15=15, r9=9)
    regs = func.ptrace_getregs(guest.thread._c.pid)
    for name, _ in theirs._fields_:
        assert getattr(regs, name) == getattr(guest.regs, name), name


def test_host_syscall_list_is_complete():
    """A fresh process allows itself HOST_SYSCALLS and what the interpreter needs, and must survive."""
    script = Path(__file__).parent / "platform_confined.py"
    root = Path(base.__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, env=env, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr.decode())
    assert done.stdout == b"ok\n"
