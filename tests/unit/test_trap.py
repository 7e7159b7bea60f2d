"""The `trap` platform alone: what the design says that it must do.

A guest can jump to the stub's own `syscall` instruction (at STUB, an int3 behind it), so what the filter lets
through there is in every guest's hands: `stub_call` does just that.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from platform_harness import (
    BELL_FD,
    CODE,
    DATA,
    EXEC,
    KICK_SIGNAL,
    PAGE,
    READ,
    SPIN,
    SYSCALL,
    WRITE,
    Guest,
    descriptors,
    host_maps,
    raises,
    start,
)

from sentry.abi.syscall_nr import SYS
from sentry.platform import base
from sentry.platform.ptrace import PtracePlatform

pytest_plugins = ["platform_harness"]

#: csrc/abi/stub.h
STUB = base.GUEST_TOP
PATCHED = STUB + 40
SHARED_PAGE = 0x7FFF_0001_0000
RECORDS = 0x7FFF_0100_0000
RECORD_SIZE = 0x20000
#: csrc/abi/record.h
R_CHILD = 0x54
JUMP_TO_STUB = b"\x48\xb9" + struct.pack("<Q", STUB) + b"\xff\xe1"  # mov $STUB,%rcx; jmp *%rcx
ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")


@pytest.fixture(scope="module")
def platform() -> Iterator[PtracePlatform]:
    result = start(name="trap")
    yield result
    result.close()


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def go_stub_call(guest: Guest, number: int, *args: int) -> None:
    guest.code(JUMP_TO_STUB, rax=number, **dict(zip(ARGUMENTS, args, strict=False)))
    guest.thread.resume()


def stub_call(guest: Guest, number: int, *args: int) -> int:
    """What the stub's own system call instruction answers to the guest."""
    go_stub_call(guest, number, *args)
    trap = guest.trap()
    while trap.kind == base.KICKED:
        guest.thread.resume()
        trap = guest.trap()
    assert (trap.kind, trap.signo) == (base.FAULT, signal.SIGTRAP), (trap.kind, trap.signo, hex(trap.addr))
    return signed(guest.regs.rax)


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def thread_state(guest):
    c = guest.thread._c
    return Path(f"/proc/{c.tgid}/task/{c.pid}/stat").read_text().rpartition(")")[2].split()[0]


def records(guest):
    """(first address, end, inode) of the mappings of records in the stub."""
    lines = (line.split() for line in host_maps(guest) if "memfd:record" in line)
    return [(*(int(part, 16) for part in fields[0].split("-")), int(fields[4])) for fields in lines]


def test_each_process_has_records_of_its_own(guest):
    threads = [guest.space.new_thread(guest.thread) for _ in range(3)]
    mine = records(guest)
    assert len({inode for *_, inode in mine}) == 1 and sum(end - at for at, end, _ in mine) == 4 * RECORD_SIZE
    child = Guest(guest.platform, guest.space.fork(guest.thread))
    from_thread = Guest(guest.platform, guest.space.fork(threads[1]))
    grandchild = Guest(guest.platform, child.space.fork(child.thread))
    inodes = {mine[0][2]}
    for space in (child, from_thread, grandchild):
        ((at, end, inode),) = records(space)
        assert inode not in inodes and end - at == RECORD_SIZE
        inodes.add(inode)
        space.space.destroy()
    assert records(guest) == mine


def test_stubs_hold_the_bell_only(platform, guest, memfd):
    guest.space.map_file(0x1000_0000, PAGE, READ, True, memfd, 0)
    guest.space.map_file(0x2000_0000, PAGE, READ, False, memfd, 0)
    with raises(errno.EOVERFLOW):
        guest.space.map_file(0x2000_0000, PAGE, READ, True, memfd, -PAGE & (1 << 64) - 1)
    guest.space.new_thread(guest.thread)
    child = guest.space.fork(guest.thread)
    for pid in (guest.space._tgid, child.space._tgid, platform.zygote_pid):
        assert os.listdir(f"/proc/{pid}/fd") == [str(BELL_FD)]
        assert descriptors(pid) == []
    child.space.destroy()


def test_the_shared_page_is_for_reading(guest):
    (line,) = [line for line in host_maps(guest) if "memfd:shared" in line]
    assert line.split()[0] == f"{SHARED_PAGE:x}-{SHARED_PAGE + PAGE:x}" and line.split()[1] == "r--s"
    assert stub_call(guest, SYS.mprotect, SHARED_PAGE, PAGE, READ | WRITE) == -errno.EACCES
    assert stub_call(guest, SYS.madvise, SHARED_PAGE, PAGE, 9) < 0  # MADV_REMOVE
    assert stub_call(guest, SYS.madvise, SHARED_PAGE, PAGE, 23) < 0  # MADV_POPULATE_WRITE
    trap = guest.run(b"\x88\x07", rdi=SHARED_PAGE)  # mov %al,(%rdi)
    assert (trap.kind, trap.signo) == (base.FAULT, signal.SIGSEGV)


def test_a_read_only_file_stays_read_only(guest, memfd):
    reader = os.open(f"/proc/self/fd/{memfd}", os.O_RDONLY)
    guest.space.map_file(0x1000_0000, PAGE, READ, True, reader, 0)
    os.close(reader)
    assert stub_call(guest, SYS.mprotect, 0x1000_0000, PAGE, READ | WRITE) == -errno.EACCES
    assert stub_call(guest, SYS.madvise, 0x1000_0000, PAGE, 9) < 0
    assert os.pread(memfd, 4, 0) == b"file"


#: What a guest that jumps into the stub's text may not have: (number, arguments).  On the way to the host's
#: kernel it traps, and the stub's handler takes it for a call of the guest's own.
TRAPPED = [
    (SYS.getpid, ()),
    (SYS.open, (DATA, 0, 0)),
    (SYS.read, (0, DATA, 8)),
    (SYS.write, (1, DATA, 8)),
    (SYS.write, (5, DATA, 8)),
    (SYS.ptrace, (0, 0, 0, 0)),
    (SYS.rt_sigaction, (KICK_SIGNAL, DATA, 0, 8)),
    (SYS.rt_sigprocmask, (0, DATA, 0, 8)),
    (SYS.clone3, (DATA, 88)),
    (SYS.fork, ()),
    (SYS.vfork, ()),
    (SYS.execve, (DATA, 0, 0)),
    (SYS.kill, (1, 9)),
    (SYS.tgkill, (1, 1, 9)),
    (SYS.dup2, (0, 1)),
    (SYS.prctl, (0x53564D41, 0, 0, 0, 0)),
    (SYS.arch_prctl, (0x1023, 18)),  # ARCH_REQ_XCOMP_PERM
    (SYS.io_uring_setup, (8, DATA)),
    (SYS.futex, (DATA, 6, 0, 0, 0, 0)),  # FUTEX_LOCK_PI
    (SYS.futex, (DATA, 11, 0, 0, DATA, 0)),  # FUTEX_WAIT_REQUEUE_PI
    (SYS.mmap, (0x1000_0000, PAGE, READ, 0x21, 2**64 - 1, 0)),  # shared anonymous memory
    (SYS.mmap, (0x1000_0000, PAGE, READ, 0x40022, 2**64 - 1, 0)),  # MAP_HUGETLB
    (SYS.mmap, (0x1000_0000, PAGE, READ, 0x2022, 2**64 - 1, 0)),  # MAP_LOCKED
    (SYS.mmap, (0x1000_0000, PAGE, READ, 0x8022, 2**64 - 1, 0)),  # MAP_POPULATE
    (SYS.mmap, (0x1000_0000, PAGE, READ, 0x1_0000_0022, 2**64 - 1, 0)),
    (SYS.mmap, (0x1000_0000, PAGE, READ, 0x11, 0, 0)),  # the bell
    (SYS.mmap, (0x1000_0000, PAGE, READ, 0x8011, 5, 0)),  # MAP_POPULATE
    (0x4000_0000 | SYS.munmap, (DATA, PAGE)),  # x32
    (512 + 0x4000_0000, ()),
]


@pytest.mark.parametrize(("number", "args"), TRAPPED)
def test_the_stubs_text_gives_no_rights(guest, number, args):
    go_stub_call(guest, number, *args)
    trap = guest.trap()
    assert trap.kind == base.SYSCALL and guest.regs.orig_rax == number
    assert guest.regs.rip == STUB + 2


def test_notified_calls_are_refused(platform, guest, memfd):
    """clone, mremap and asking for a descriptor, by a guest: they wait for an order, which isn't theirs."""
    record = RECORDS
    attempts = [
        (SYS.clone, signal.SIGCHLD, 0, 0, 0, 0),
        (SYS.clone, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0),
        (SYS.clone, 0x50F00, 0, 0, 0, 0),
        (SYS.mremap, record, RECORD_SIZE, 2 * RECORD_SIZE, 1, 0),
        (SYS.mremap, DATA, PAGE, PAGE, 3, record),
        (SYS.close, 0xFFFF_FFF0, 0, 0, 0, 0),
    ]
    before = records(guest)
    bystander = Guest(platform)
    for attempt in attempts:
        go_stub_call(guest, *attempt)
        wait_until(lambda: thread_state(guest) == "S")
        bystander.space.map_file(0x1000_0000, PAGE, READ, True, memfd, 0)
        child = bystander.space.fork(bystander.thread)
        traps = platform.wait(1_000_000)
        for _ in range(1000):
            if traps:
                break
            bystander.space.map_file(0x1000_0000, PAGE, READ, True, memfd, 0)
            traps = platform.wait(1_000_000)
        (trap,) = traps
        assert trap.thread is guest.thread and trap.signo == signal.SIGTRAP
        assert signed(guest.regs.rax) == -errno.EPERM, attempt
        child.space.destroy()
    assert records(guest) == before
    bystander.space.destroy()


def test_a_refused_call_can_be_kicked(guest):
    go_stub_call(guest, SYS.mremap, RECORDS, RECORD_SIZE, 2 * RECORD_SIZE, 1, 0)
    wait_until(lambda: thread_state(guest) == "S")
    guest.thread.kick()
    assert guest.trap().kind in (base.KICKED, base.FAULT)


def test_notifications_in_a_flood_do_not_stop_the_others(platform, guest, memfd):
    """One thread makes calls that nobody ordered, again and again, while other processes have orders."""
    loop = b"\x48\xbb" + struct.pack("<Q", STUB)  # mov $STUB,%rbx
    guest.code(loop + b"\xff\xe3")
    # int3 behind the stub's instruction: the trap comes up and we send it back.
    guest.regs.rax, guest.regs.rdi = SYS.mremap, DATA
    guest.thread.resume()
    other = Guest(platform)
    for _ in range(200):
        other.space.map_file(0x1000_0000, PAGE, READ, True, memfd, 0)
        for trap in platform.wait(0):
            assert trap.thread is guest.thread
            guest.regs.rip, guest.regs.rax = CODE, SYS.mremap
            guest.thread.resume()
    other.space.destroy()


FUTEX_WAIT = bytes.fromhex("b8ca000000") + SYSCALL  # mov $202,%eax; syscall


def futex_wait(guest):
    guest.space.write(DATA, bytes(8))
    guest.code(FUTEX_WAIT + SYSCALL, rdi=DATA, rsi=128, rdx=0, r10=0)
    guest.thread.resume()
    wait_until(lambda: thread_state(guest) == "S")


def test_kick_of_a_private_futex_wait(guest):
    for _ in range(200):
        futex_wait(guest)
        guest.thread.kick()
        trap = guest.trap()
        assert trap.kind in (base.SYSCALL, base.KICKED)
        assert guest.regs.rip == CODE + len(FUTEX_WAIT)


def test_kick_before_the_wait(guest):
    """A kick that comes on the way into the host's futex must not be slept over."""
    for i in range(2000):
        guest.code(FUTEX_WAIT + SYSCALL, rdi=DATA, rsi=128, rdx=0, r10=0)
        guest.thread.resume()
        for _ in range(i % 100 * 5):
            pass
        guest.thread.kick()
        assert guest.trap().kind in (base.SYSCALL, base.KICKED)


# The kick test's program: calls of all three ways in with a pattern in every register; rbx counts.
PATTERN = 0x0123_4567_89AB_CDEF


def kick_program(ways):
    """A loop over calls; a register that doesn't hold its pattern, or a wrong result, ends in ud2."""
    code = bytearray()
    saved = (5, 12, 13, 14, 15, 6, 7, 2, 10, 8, 9)  # rbp r12-r15 rsi rdi rdx r10 r8 r9

    def bad():
        code.extend(b"\x74\x02\x0f\x0b")  # je +2; ud2

    top = len(code)
    for way in ways:
        if way == "yield":  # answered in the stub
            code.extend(b"\xb8" + struct.pack("<I", SYS.sched_yield) + SYSCALL)
            code.extend(b"\x48\x85\xc0")  # test %rax,%rax
            bad()
        elif way == "call":  # answered by us: number + 1
            code.extend(b"\xb8" + struct.pack("<I", 400) + SYSCALL)
            code.extend(b"\x48\x3d" + struct.pack("<I", 401))  # cmp $401,%rax
            bad()
        elif way in ("patched", "clock"):
            # a trampoline: flags in eax, the number in r11, where to go on in rcx
            if way == "clock":  # answered by the vDSO
                code.extend(b"\x31\xff")  # xor %edi,%edi
            code.extend(b"\x9f\x0f\x90\xc0")  # lahf; seto %al
            code.extend(b"\x41\xbb" + struct.pack("<I", SYS.time if way == "clock" else 402))  # mov $…,%r11d
            code.extend(b"\x48\x8d\x0d" + struct.pack("<I", 10 + 3))  # lea after(%rip),%rcx
            code.extend(b"\x49\xbd" + struct.pack("<Q", PATCHED))  # mov $PATCHED,%r13
            code.extend(b"\x41\xff\xe5")  # jmp *%r13
            if way == "clock":
                code.extend(b"\x48\xbf" + struct.pack("<Q", PATTERN + 7))
                code.extend(b"\x48\x3d" + struct.pack("<I", 1_700_000_000) + b"\x0f\x9f\xc0\x84\xc0")
                code.extend(b"\x75\x02\x0f\x0b")  # cmp $1700000000,%rax; setg %al; test %al,%al; jne +2; ud2
            else:
                code.extend(b"\x48\x3d" + struct.pack("<I", 403))
                bad()
            code.extend(b"\x49\xbd" + struct.pack("<Q", PATTERN + 13))
        else:  # computing
            code.extend(b"\xb9\x64\x00\x00\x00\xff\xc9\x75\xfc")  # mov $100,%ecx; dec %ecx; jnz
        for number in saved:
            # mov $pattern,%rax; cmp %rax,%reg
            code.extend(b"\x48\xb8" + struct.pack("<Q", PATTERN + number))
            code.extend(bytes([0x49 if number >= 8 else 0x48, 0x39, 0xC0 | number & 7]))
            bad()
        code.extend(b"\x48\xff\xc3")  # inc %rbx
    # mov %rbx,(DATA); jmp top
    code.extend(b"\x48\x89\x1c\x25" + struct.pack("<I", DATA))
    code.extend(b"\xe9" + struct.pack("<i", top - len(code) - 5))
    return bytes(code)


NAMES = {5: "rbp", 6: "rsi", 7: "rdi", 2: "rdx", 10: "r10", 8: "r8", 9: "r9", 12: "r12", 13: "r13", 14: "r14",
         15: "r15"}  # fmt: skip


@pytest.mark.parametrize(
    "ways",
    [
        ("yield",), ("call",), ("patched",), ("clock",),
        ("yield", "call", "clock", "patched", "compute", "yield", "clock", "patched"),
    ],
)  # fmt: skip
def test_kicks_lose_nothing(guest, seeded, long_form, ways):
    """Kicks at random moments: every call is reported once, and no register changes."""
    kicks = 100_000 if long_form else 10_000
    guest.space.map_anon(CODE, 2 * PAGE, READ | WRITE | EXEC)
    guest.code(kick_program(ways), rbx=0)
    guest.space.write(CODE, kick_program(ways))
    for number, name in NAMES.items():
        setattr(guest.regs, name, PATTERN + number)
    calls, kicked = 0, 0
    wanted = sum(way in ("call", "patched") for way in ways)
    guest.thread.resume()
    while kicked < kicks:
        for _ in range(seeded.randrange(200)):
            pass
        guest.thread.kick()
        for _ in range(seeded.randrange(3)):
            guest.thread.kick()
        seen_kick = False
        while not seen_kick:
            for trap in guest.platform.wait(5_000_000_000):
                if trap.kind == base.SYSCALL:
                    calls += 1
                    guest.regs.rax = guest.regs.orig_rax + 1
                    seen_kick = True  # the kick may have been noticed on the way: see below
                else:
                    assert trap.kind == base.KICKED, (trap.kind, trap.signo, hex(guest.regs.rip))
                    seen_kick = True
                guest.thread.resume()
        kicked += 1
    guest.thread.kick()
    while (trap := guest.trap()).kind != base.KICKED:
        assert trap.kind == base.SYSCALL, (trap.kind, trap.signo)
        calls += 1
        guest.regs.rax = guest.regs.orig_rax + 1
        guest.thread.resume()
        guest.thread.kick()
    if wanted:
        steps = guest.regs.rbx
        counted = sum(way in ("call", "patched") for way in (ways * (steps // len(ways) + 1))[:steps])
        assert calls - counted in (0, 1), (calls, counted, steps)


def frame(rip, mask, rsp=0):
    """What rt_sigreturn reads at the stack pointer: a ucontext without FP state."""
    words = [0] * 40
    words[5 + 15] = rsp
    words[5 + 16] = rip
    words[5 + 17] = 0x202
    words[5 + 18] = 0x002B_0000_0000_0033
    words[37] = mask
    return struct.pack("<40Q", *words)


def test_a_thread_that_masks_the_kick_is_killed(platform, guest):
    other = Guest(platform)
    guest.space.write(DATA + 1024, frame(CODE + 64, 2**64 - 1))
    guest.space.write(CODE + 64, SPIN)
    guest.code(JUMP_TO_STUB, rax=SYS.rt_sigreturn)
    guest.regs.rsp = DATA + 1024
    guest.thread.resume()
    assert platform.wait(20_000_000) == []
    status = Path(f"/proc/{guest.space._tgid}/status").read_text()
    (blocked,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")]
    assert int(blocked, 16) >> (KICK_SIGNAL - 1) & 1
    guest.thread.kick()
    assert guest.trap().kind == base.DEAD
    assert other.run(SYSCALL).kind == base.SYSCALL
    other.space.destroy()


def test_a_thread_that_ends_itself_is_noticed(guest):
    other = Guest(guest.platform, guest.space.new_thread(guest.thread))
    go_stub_call(other, SYS.exit, 0)
    task = f"/proc/{guest.space._tgid}/task"
    wait_until(lambda: len(os.listdir(task)) == 1)
    other.thread.kick()
    trap = other.trap()
    assert trap.kind == base.DEAD
    other.thread.exit()
    again = Guest(guest.platform, guest.space.new_thread(guest.thread))
    assert again.run(SYSCALL).kind == base.SYSCALL
    assert guest.run(SYSCALL).kind == base.SYSCALL


@pytest.mark.parametrize("number", [SYS.exit, SYS.exit_group])
def test_a_process_that_ends_itself_is_reported(platform, number):
    guest = Guest(platform)
    go_stub_call(guest, number, 3)
    assert guest.trap().kind == base.DEAD
    guest.space.destroy()


def test_fs_base_by_instruction_and_by_us(guest):
    # wrfsbase %rdi; syscall; rdfsbase %rdi; syscall
    code = bytes.fromhex("f3480faed7") + SYSCALL + bytes.fromhex("f3480faec7") + SYSCALL
    guest.run(code, rdi=DATA)
    assert guest.regs.fs_base == DATA
    guest.thread.resume()
    guest.trap()
    assert guest.regs.rdi == DATA
    guest.code(code[7:])
    guest.regs.fs_base = DATA + 64
    guest.thread.resume()
    guest.trap()
    assert guest.regs.rdi == DATA + 64
    child = Guest(guest.platform, guest.space.fork(guest.thread))
    child.regs.rip = CODE
    child.thread.resume()
    child.trap()
    assert child.regs.rdi == DATA + 64
    child.space.destroy()


def has_avx():
    return " avx " in Path("/proc/cpuinfo").read_text()


LOAD_YMM = bytes.fromhex("c5fe6f07")  # vmovdqu (%rdi),%ymm0
STORE_YMM = bytes.fromhex("c5fe7f4740")  # vmovdqu %ymm0,64(%rdi)


@pytest.mark.skipif(not has_avx(), reason="no AVX")
def test_vector_registers_survive(guest):
    value = bytes(range(1, 33))
    guest.space.write(DATA, value)
    guest.run(LOAD_YMM + SYSCALL + SPIN + STORE_YMM + SYSCALL, rdi=DATA)
    child = Guest(guest.platform, guest.space.fork(guest.thread))
    thread = Guest(guest.platform, guest.space.new_thread(guest.thread))
    store = CODE + len(LOAD_YMM + SYSCALL + SPIN)
    for one in (guest, child, thread):
        one.space.write(DATA + 64, bytes(32))
        one.thread.resume()
        one.thread.kick()
        assert one.trap().kind == base.KICKED
        one.thread.set_fpstate(one.thread.get_fpstate())
        one.regs.rip = store
        one.thread.resume()
        assert one.trap().kind == base.SYSCALL
        assert one.space.read(DATA + 64, 32) == value
    child.space.destroy()


def test_odd_entries(guest):
    """int 0x80 is a fault, as where the kernel has no 32-bit calls; so is one made in 32-bit code."""
    trap = guest.run(b"\xcd\x80", rax=1)
    assert (trap.kind, trap.signo, trap.code, trap.trapno, trap.error) == (base.FAULT, 11, 0x80, 13, 0x402)
    assert guest.regs.rip == CODE
    # push $0x23; push $CODE+32; lretq: into 32-bit code, where there is another int 0x80
    guest.space.write(CODE + 32, b"\xcd\x80")
    trap = guest.run(b"\x6a\x23\x68" + struct.pack("<I", CODE + 32) + b"\x48\xcb", rax=1)
    assert trap.kind == base.FAULT and guest.regs.rip in (CODE + 32, CODE + 8)
    # An x32 number is a number like any other.
    guest.run(SYSCALL, rax=0x4000_0000 | SYS.getpid)
    assert guest.regs.orig_rax == 0x4000_0000 | SYS.getpid


@pytest.mark.parametrize("number", range(-530, 0, 1))
def test_negative_numbers_are_not_restarted(guest, number):
    wide = number & (1 << 64) - 1
    assert guest.run(SYSCALL, rax=wide).kind == base.SYSCALL
    assert guest.regs.orig_rax == wide and guest.regs.rip == CODE + 2


def test_the_clone_order_is_checked(platform, memfd):
    """A process whose stub was told to lie about its child does not harm the next clone."""
    guest = Guest(platform)
    thread = Guest(platform, guest.space.new_thread(guest.thread))
    # mov %eax,(%rdi); jmp: another thread forges the id of the child all the time
    child_word = RECORDS + R_CHILD
    assert records(guest)[0][0] == RECORDS
    thread.code(b"\x89\x07\xeb\xfc", rdi=child_word, rax=1)
    thread.thread.resume()
    refused = 0
    for _ in range(3):
        try:
            child = guest.space.fork(guest.thread)
        except Exception as error:
            assert getattr(error, "errno", 0) in (errno.EAGAIN, errno.ESRCH, errno.EPERM), error
            refused += 1
            break
        child.space.destroy()
    guest.space.destroy()
    platform.wait(0)
    check = Guest(platform)
    again = check.space.fork(check.thread)
    again.space.destroy()
    check.space.destroy()
    me = os.getpid()

    def children():
        return {int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()}

    expected = {platform._zygote.pid} | {s._tgid for s in platform._spaces}
    for _ in range(10_000):
        platform.wait(1_000_000)
        if children() == expected:
            break
    assert children() == expected


HOSTILE_NUMBERS = [
    SYS.rt_sigreturn, SYS.restart_syscall, SYS.sigaltstack, SYS.sched_yield, SYS.exit, SYS.exit_group,
    SYS.munmap, SYS.mprotect, SYS.madvise, SYS.close, SYS.mmap, SYS.futex, SYS.write, SYS.clone, SYS.mremap,
    SYS.getrandom, SYS.getrusage, SYS.clock_gettime,
]  # fmt: skip
HOSTILE_ADDRESSES = [
    0, CODE, DATA, STUB, STUB + PAGE, SHARED_PAGE, RECORDS, RECORDS + PAGE, RECORDS + RECORD_SIZE,
    RECORDS - RECORD_SIZE, (1 << 47) - PAGE,
]  # fmt: skip
HOSTILE_VALUES = [
    0, 1, 2, 3, 4, 5, 7, 9, 11, 18, 0x10, 0x22, 0x32, 128, 256, 384, PAGE, 2 * PAGE, RECORD_SIZE, 1 << 30,
    0xFFFF_FFF0, (1 << 64) - 1,
]  # fmt: skip
hostile_argument = (
    st.sampled_from(HOSTILE_ADDRESSES) | st.sampled_from(HOSTILE_VALUES) | st.integers(0, (1 << 64) - 1)
)


def test_any_call_from_the_stubs_text(platform, long_form):
    """The stub's own instruction with any arguments, likely ones mostly: only the guest is harmed."""
    bystander = Guest(platform)

    @settings(max_examples=3000 if long_form else 300, deadline=None)
    @given(st.sampled_from(HOSTILE_NUMBERS), st.tuples(*[hostile_argument] * 6))
    def attack(number, arguments):
        guest = Guest(platform)
        args = list(arguments)
        if number == SYS.futex and args[1] & 127 in (0, 9):
            args[3] = DATA + 128  # a timeout of nothing, or it would sleep
        go_stub_call(guest, number, *args)
        bystander.code(SYSCALL)
        bystander.thread.resume()
        seen = set()
        while bystander.thread not in seen:
            seen |= {trap.thread for trap in platform.wait(10_000_000_000)}
        assert seen <= {guest.thread, bystander.thread}
        guest.space.destroy()

    attack()
    child = bystander.space.fork(bystander.thread)
    child.space.destroy()
    bystander.space.destroy()
    assert platform.wait(0) == []
