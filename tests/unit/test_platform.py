"""The platforms by themselves: boot, registers, traps, FP state.

Machine code is written out as bytes; fixtures and harness: platform_harness.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from platform_harness import (
    CALL_RAX,
    CODE,
    DATA,
    KICK_SIGNAL,
    LOAD,
    PAGE,
    READ,
    SPIN,
    STORE,
    SYSCALL,
    WRITE,
    Guest,
    descriptors,
    host_maps,
    raises,
)

from sentry.platform import base

pytest_plugins = ["platform_harness"]

SEGV_MAPERR, SEGV_ACCERR, SI_KERNEL = 1, 2, 0x80


def test_new_space_holds_stub_and_vdso_only(platform):
    thread = platform.new_address_space()
    try:
        start, elf, end = platform.vdso()
        names = [line.split()[5] for line in host_maps(Guest(platform, thread)) if len(line.split()) > 5]
        kernel = {"[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]"}
        ours = {os.path.basename(name) for name in names if name not in kernel and name != "(deleted)"}
        trap = platform.name == "trap"
        assert ours == ({"stub", "memfd:shared", "memfd:record"} if trap else {"stub"})
        assert end == base.GUEST_TOP and start < elf < end
        assert thread.space.read(elf, 4) == b"\x7fELF"
        assert descriptors(thread.space._tgid) == []
        status = Path(f"/proc/{thread.space._tgid}/status").read_text()
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
        assert f"PPid:\t{os.getpid()}\n" in status
        assert f"TracerPid:\t{0 if trap else os.getpid()}\n" in status
        assert os.getsid(thread.space._tgid) != os.getsid(0)
    finally:
        thread.space.destroy()


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
    if guest.platform.name == "trap":
        os.kill(guest.space._tgid, KICK_SIGNAL)
        return
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
    # The CPU says that the page was not there yet; `ptrace` has to guess.
    error = 6 if guest.platform.name == "trap" else 7
    assert (trap.signo, trap.code, trap.addr, trap.error) == (signal.SIGSEGV, SEGV_ACCERR, DATA + 5, error)
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
    os.kill(guest.space._tgid, signal.SIGCONT)  # where nobody traces it, it has stopped indeed
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
    assert abs(seconds * 10**9 + nanos - time.monotonic_ns()) < 10 * 10**9


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
    trap = guest.run(CALL_RAX + SYSCALL, rax=0xFFFF_FFFF_FF60_0800, rdi=0, rsi=0, rdx=0)
    if trap.kind == base.FAULT:
        pytest.skip("this host has no vsyscall page")
    assert trap.kind == base.SYSCALL and guest.regs.orig_rax == 309 and guest.regs.rip == CODE + 2
    guest.regs.rax = 77
    guest.thread.resume()
    assert guest.trap().kind == base.SYSCALL and guest.regs.orig_rax == 77


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
