"""Seccomp programs: the C machine and its Python twin do the same, and invalid programs are found."""

from __future__ import annotations

import random

import pytest
from sentry._engine import ffi, lib

from sentry.abi.errors import SysError
from sentry.abi.seccomp import AUDIT_ARCH_X86_64, RET_ALLOW, SOCK_FILTER
from sentry.kernel import bpf
from sentry.kernel.seccomp import Filter

LOADS = (bpf.LD | bpf.ABS, bpf.LD | bpf.IMM, bpf.LDX | bpf.IMM, bpf.LD | bpf.LEN, bpf.LDX | bpf.LEN)
CODES = sorted(bpf.VALID - {bpf.RET, bpf.RET | bpf.RET_A})


def assemble(program):
    return b"".join(SOCK_FILTER.pack(*instruction) for instruction in program)


def random_program(choose):
    """Often valid: jumps are short, constants small, and all of scratch memory is written first."""
    program = [(bpf.ST, 0, 0, slot) for slot in range(bpf.SCRATCH)]
    body = choose.randrange(1, 30)
    for _ in range(body):
        code = choose.choice(CODES)
        k = choose.choice((0, 1, 3, 31, 0x7FFFFFFF, 0xFFFFFFFF, choose.randrange(1 << 32)))
        if code == bpf.LD | bpf.ABS:
            k = 4 * choose.randrange(16)
        elif code & 7 in (bpf.ST, bpf.STX) or code & 0xE0 == bpf.MEM:
            k %= 16
        elif code in (bpf.ALU | bpf.LSH, bpf.ALU | bpf.RSH):
            k %= 32
        elif code == bpf.JMP | bpf.JA:
            k %= 3
        program.append((code, choose.randrange(3), choose.randrange(3), k))
    program += [(bpf.RET | bpf.RET_A, 0, 0, 0), (bpf.RET, 0, 0, RET_ALLOW), (bpf.RET, 0, 0, 0)]
    return program


@pytest.mark.parametrize("seed", range(20))
def test_both_machines(seed):
    choose = random.Random(seed)
    ran = 0
    while ran < 100:
        try:
            program = bpf.parse(assemble(random_program(choose)))
        except SysError:
            continue
        ran += 1
        code = ffi.new("struct bpf_instruction[]", program)
        data = [choose.choice((0, 1, 5, 0x80000000, choose.randrange(1 << 32))) for _ in range(16)]
        for known in (0xFFFF, 3):
            assert lib.bpf_run(code, len(program), data, known) == bpf.run(program, data, known)


def test_what_is_always_allowed():
    """The set that is computed in C is what the twin says of each call alone."""
    program = [
        (bpf.LD | bpf.ABS, 0, 0, 0),
        (bpf.JMP | bpf.JEQ, 3, 0, 7),
        (bpf.JMP | bpf.JGE, 0, 1, 300),
        (bpf.RET, 0, 0, 0x50001),
        (bpf.RET, 0, 0, RET_ALLOW),
        (bpf.LD | bpf.ABS, 0, 0, 16),
        (bpf.RET, 0, 0, RET_ALLOW),
    ]
    allowed = Filter(bpf.parse(assemble(program)), None).always
    for nr in range(512):
        alone = bpf.run(program, [nr, AUDIT_ARCH_X86_64], 3)
        assert allowed >> nr & 1 == (alone == RET_ALLOW), nr
    assert not allowed >> 7 & 1


@pytest.mark.parametrize(
    "program",
    [
        [],
        [(bpf.LD | bpf.IMM, 0, 0, 0)],
        [(bpf.JMP | bpf.JA, 0, 0, 1), (bpf.RET, 0, 0, 0)],
        [(bpf.JMP | bpf.JEQ, 0, 1, 0), (bpf.RET, 0, 0, 0)],
        [(bpf.LD | bpf.ABS, 0, 0, 64), (bpf.RET, 0, 0, 0)],
        [(bpf.LD | bpf.MEM, 0, 0, 0), (bpf.RET, 0, 0, 0)],
        [(bpf.ALU | bpf.DIV, 0, 0, 0), (bpf.RET, 0, 0, 0)],
        [(bpf.ALU | 0x90, 0, 0, 1), (bpf.RET, 0, 0, 0)],
    ],
)
def test_invalid(program):
    with pytest.raises(SysError):
        bpf.parse(assemble(program))


def test_division_by_zero_ends_it():
    program = bpf.parse(assemble([(bpf.ALU | bpf.DIV | bpf.X, 0, 0, 0), (bpf.RET, 0, 0, RET_ALLOW)]))
    assert bpf.run(program, [0] * 16) == 0
    assert lib.bpf_run(ffi.new("struct bpf_instruction[]", program), 2, [0] * 16, 0xFFFF) == 0
