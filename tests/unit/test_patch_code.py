"""The C side of call-site patching: lengths of instructions, which sites are accepted, trampolines."""

from __future__ import annotations

import collections
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import patch_survey
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentry._engine import ffi, lib

ROOT = Path(__file__).resolve().parents[2]

NATIVE = ROOT / "tests/unit/native/patch.c"
HWCAP2_FSGSBASE = 2
AT_HWCAP2 = 26
#: Code that programs run, from several compilers and eras, as far as it is here.
PROGRAMS = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", "/bin/busybox"]
_LINE = re.compile(r"\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*(\t.*)?$")

needs_objdump = pytest.mark.skipif(not shutil.which("objdump"), reason="needs objdump")


def decode(code: bytes):
    insn = ffi.new("struct insn *")
    return lib.insn_decode(code, len(code), insn), insn


def has_fsgsbase() -> bool:
    data = Path("/proc/self/auxv").read_bytes()
    for at in range(0, len(data), 16):
        if int.from_bytes(data[at : at + 8], "little") == AT_HWCAP2:
            return bool(data[at + 8] & HWCAP2_FSGSBASE)
    return False


def present(paths: list[str]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]


@pytest.mark.skipif(not has_fsgsbase(), reason="needs rdgsbase")
def test_native(tmp_path):
    program = tmp_path / "patch"
    sources = [NATIVE, ROOT / "csrc/engine/patch.c", ROOT / "csrc/engine/decode.c"]
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-mfsgsbase", f"-I{ROOT / 'csrc/abi'}"]
    subprocess.run(["gcc", *flags, "-o", program, *sources], check=True, timeout=120)
    done = subprocess.run([program, "40"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done
    parts = [line.split()[0] for line in done.stdout.splitlines()]
    assert parts == ["contract", "settle", "hammer"], done


@needs_objdump
@pytest.mark.parametrize("path", present(["/lib/x86_64-linux-gnu/libc.so.6"]))
def test_lengths_in_a_library(path):
    """Each instruction of a C library has the length that objdump says, or is one that no rule needs."""
    out = subprocess.run(["objdump", "-d", "-w", path], capture_output=True, text=True, check=True).stdout
    checked, unknown, wrong = 0, 0, []
    for line in out.splitlines():
        if not (match := _LINE.match(line)) or not match[3] or "(bad)" in match[3]:
            continue
        code = bytes.fromhex(match[2])
        length, _ = decode(code)
        checked += 1
        if length == 0:
            unknown += 1
        elif length != len(code):
            wrong.append(line)
    assert checked > 100_000
    # bnd, notrack, xbegin, gs and rep prefixes of vectors…
    assert unknown < checked // 500
    # objdump shows data prefixes of some no-ops on lines of their own, and fwait as part of what follows.
    assert [line for line in wrong if "fwait" not in line and "data16" not in line] == []


@given(st.binary(min_size=15, max_size=15))
@settings(max_examples=3000, deadline=None)
@example(bytes.fromhex("666666662e0f1f840000000000ffff"))
@example(bytes.fromhex("62f17c48280500000000ffffffffff"))
def test_lengths_of_random_bytes(code):
    """What decodes at all has the length that another decoder finds, too."""
    capstone = pytest.importorskip("capstone")
    length, insn = decode(code)
    if length == 0:
        return
    judge = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    judged = next(judge.disasm_lite(code, 0), None)
    if insn.flags & lib.INSN_MOVABLE:
        assert judged is not None
    if judged is not None:
        assert judged[1] == length, (code.hex(), judged)


def test_movable():
    """Nothing that depends on where it stands is moved, but for rip-relative operands."""
    for text, movable, displacement in [
        ("b801000000", True, 0),
        ("31c0", True, 0),
        ("4c8b4c2408", True, 0),
        ("488d352aa91800", True, 3),
        ("eb05", False, 0),
        ("e800000000", False, 0),
        ("7405", False, 0),
        ("c3", False, 0),
        ("0f05", False, 0),
        ("0f84aabbccdd", False, 0),
        ("ff25aabbccdd", False, 2),
        ("cc", False, 0),
        ("f30f1efa", False, 0),
        ("658b0425aabbccdd", False, 0),
        ("5c", False, 0),
        ("f0480fb10f", False, 0),
        ("f7f1", False, 0),
    ]:
        code = bytes.fromhex(text)
        length, insn = decode(code.ljust(16, b"\x90"))
        assert length == len(code), text
        assert bool(insn.flags & lib.INSN_MOVABLE) == movable, text
        assert insn.displacement == displacement, text


@needs_objdump
@pytest.mark.parametrize("path", present(PROGRAMS))
def test_sites_of_programs(path):
    """objdump agrees with each accepted site, and most are accepted."""
    totals = collections.defaultdict(collections.Counter)
    counts = patch_survey.survey(path, totals, False)
    assert counts["WRONG"] == 0
    if total := sum(counts.values()):
        assert sum(counts[name] for name in patch_survey.DONE) >= total * 0.9


PROLOGUE = bytes.fromhex("554889e54883ec10897dfc488975f0") * 8


def analyze(code: bytes, at: int, base: int = 0x400000, number: int = 1, **registers: int):
    """(result, plan) for the syscall at code[at]."""
    regs = ffi.new("struct guest_regs *", {"orig_rax": number, "rip": base + at + 2, **registers})
    plan = ffi.new("struct patch_plan *")
    return lib.patch_analyze(code, len(code), base, regs, plan), plan


def site(before: str, after: str = "c3", shift: int = 0) -> tuple[bytes, int]:
    """Code with a site behind the instructions `before`, and where it is."""
    head = b"\x90" * shift + PROLOGUE + bytes.fromhex(before)
    return (head + b"\x0f\x05" + bytes.fromhex(after)).ljust(len(head) + 140, b"\x90"), len(head)


def test_rules():
    assert analyze(*site("b801000000"))[0] == 0
    assert analyze(*site("b802000000"))[0] == lib.PATCH_NO_NUMBER
    assert analyze(*site("b80f000000"), number=15)[0] == lib.PATCH_NO_SIGRETURN
    assert analyze(*site("48c7c00f000000"), number=15)[0] == lib.PATCH_NO_SIGRETURN
    assert analyze(*site("7403"))[0] == lib.PATCH_NO_MOVE
    assert analyze(*site("c9"))[0] == lib.PATCH_NO_MOVE
    assert analyze(*site("0f05"))[0] == lib.PATCH_NO_MOVE
    # Two bytes, and nothing but code around.
    assert analyze(*site("31c0", "50" * 138), number=0)[0] == lib.PATCH_NO_HOLE
    assert analyze(*site("4489c0", "50" * 138), number=1, r8=7)[0] == lib.PATCH_NO_NUMBER


def test_tail_of_a_longer_instruction():
    """b8 and four bytes may be the end of something else."""
    code, at = site("c74424b801000000")  # movl $1,-0x48(%rsp)
    result, plan = analyze(code, at)
    assert result == 0
    assert (plan.start, plan.length) == (0x400000 + at - 8, 8)
    code, at = site("41b801000000")  # mov $1,%r8d
    result, plan = analyze(code, at)
    assert (result, plan.length) == (0, 6)


@pytest.mark.parametrize("shift", range(16))
def test_padding(shift):
    """A short instruction needs padding that ends at an aligned address, behind a jump or return."""
    code, at = site("31c0", shift=shift)
    result, plan = analyze(code, at, number=0)
    behind = at + 3
    if 1 <= behind % 16 <= 11:
        assert result == 0
        assert plan.hole == 0x400000 + behind
        assert (plan.hole + plan.room) % 8 == 0
        assert bytes(plan.padding)[: plan.room] == code[behind : behind + plan.room]
    else:
        assert result == lib.PATCH_NO_HOLE
    # The same no-ops, but somebody jumps there.
    jump = bytes([0x74, behind - (at + 37) & 0xFF])
    crowded = code[: at + 35] + jump + code[at + 37 :]
    assert analyze(crowded, at, number=0)[0] == lib.PATCH_NO_HOLE
    # The same no-ops behind what is no return: 89 c3 is mov %eax,%ebx.
    code, at = site("31c0", "89c3", shift=shift)
    assert analyze(code, at, number=0)[0] == lib.PATCH_NO_HOLE


@given(st.binary(min_size=60, max_size=200), st.binary(min_size=0, max_size=140), st.integers(0, 400))
@settings(max_examples=1000, deadline=None)
def test_random_code(before, after, number):
    """Whatever is accepted is one movable instruction, as another decoder sees it, and dead padding."""
    code = before + b"\x0f\x05" + after
    result, plan = analyze(code, len(before), number=number)
    assert result <= 0
    if result < 0:
        return
    start = plan.start - 0x400000
    assert start + plan.length == len(before)
    assert 2 <= plan.length <= 15
    length, insn = decode(code[start:])
    assert length == plan.length and insn.flags & lib.INSN_MOVABLE
    if plan.hole:
        assert -128 <= plan.hole - plan.start - 2 <= 127
        assert 5 <= plan.room <= 16


@given(st.integers(0, 15), st.booleans(), st.sampled_from(["b801000000", "c74424b801000000"]))
def test_steps(shift, alone, insn):
    """Each step is one store within an aligned word; together they make the jump, and undo it."""
    code, at = site(insn, shift=shift)
    result, plan = analyze(code, at)
    assert result == 0
    steps = ffi.new("struct patch_step[]", lib.PATCH_STEPS_MAX)
    memory = bytearray(code)

    def apply(undo: bool) -> None:
        count = lib.patch_steps(plan, 0x500000, alone, undo, steps)
        assert 0 < count <= lib.PATCH_STEPS_MAX
        for step in list(steps)[:count]:
            assert step.addr % 8 + step.size <= 8
            offset = step.addr - 0x400000
            memory[offset : offset + step.size] = bytes(step.bytes)[: step.size]

    apply(False)
    start = plan.start - 0x400000
    assert memory[start] == 0xE9
    assert plan.start + 5 + int.from_bytes(memory[start + 1 : start + 5], "little", signed=True) == 0x500000
    assert memory[:start] == code[:start] and memory[start + 5 :] == code[start + 5 :]
    apply(True)
    assert memory == code
    # Out of reach of a jump.
    assert lib.patch_steps(plan, 0x400000 + (1 << 32), alone, False, steps) == 0


def test_emit_out_of_reach():
    code, at = site("488b05f0ffff7f")  # a displacement that reaches far already
    result, plan = analyze(code, at)
    assert result == 0 and plan.displacement == 3
    slot = ffi.new("uint8_t[]", lib.PATCH_SLOT)
    assert lib.patch_emit(plan, 0x500000, 0x500000, slot)
    assert not lib.patch_emit(plan, 0x300000, 0x300000, slot)
    far = 0x401000 + (1 << 31)
    assert not lib.patch_emit(plan, far, far, slot)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300)), max_size=300))
def test_table(operations):
    """The table of sites against a dictionary."""
    table = ffi.gc(lib.patch_table_new(2), lib.patch_table_free)
    model: dict[int, int] = {}
    for what, number in operations:
        addr = 0x1000 + number * 16
        if what < 2:
            model[addr] = model.get(addr, 0) + 1
            assert lib.patch_trap(table, addr) == (model[addr] == 2)
        elif what == 2:
            assert bool(lib.patch_find(table, addr)) == (addr in model)
        else:
            lib.patch_forget(table, addr, addr + 64)
            model = {site: n for site, n in model.items() if not (site < addr + 64 and site + 2 > addr)}
    copy = ffi.gc(lib.patch_table_copy(table), lib.patch_table_free)
    for addr, traps in model.items():
        assert lib.patch_find(copy, addr).traps == (traps if traps < 2 else lib.patch_find(table, addr).traps)
    assert lib.patch_count(copy, lib.PATCH_SEEN) == len(model)


def test_table_is_limited():
    table = ffi.gc(lib.patch_table_new(1), lib.patch_table_free)
    hits = sum(lib.patch_trap(table, 0x1000 + 2 * n) for n in range(lib.PATCH_SITES_MAX + 100))
    assert hits == lib.PATCH_SITES_MAX
