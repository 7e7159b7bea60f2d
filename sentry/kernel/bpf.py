"""Classic BPF as seccomp(2) takes it: validation, and the Python twin of csrc/engine/bpf.c.

The rules are those of Linux's bpf_check_classic() and seccomp_check_filter(): jumps go forward and stay
inside, the last instruction returns, scratch memory is written before it is read, loads are aligned words of
struct seccomp_data.  So a program ends after as many steps as it has instructions, at most.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.seccomp import SOCK_FILTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: code, jump if true, jump if false, k
Instruction = tuple[int, int, int, int]

LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
IMM, ABS, MEM, LEN = 0x00, 0x20, 0x60, 0x80
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG = range(0, 0x90, 0x10)
XOR = 0xA0
JA, JEQ, JGT, JGE, JSET = range(0, 0x50, 0x10)
X = 0x08
RET_A = 0x10
TAX, TXA = 0x00, 0x80
SCRATCH = 16
DATA_SIZE = 64
U32 = 0xFFFF_FFFF

_ARITHMETIC = (ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, XOR)
VALID = frozenset(
    [LD | ABS, LD | LEN, LD | IMM, LD | MEM, LDX | LEN, LDX | IMM, LDX | MEM, ST, STX, RET, RET | RET_A]
    + [ALU | op | source for op in _ARITHMETIC for source in (0, X)]
    + [JMP | op | source for op in (JEQ, JGT, JGE, JSET) for source in (0, X)]
    + [ALU | NEG, JMP | JA, MISC | TAX, MISC | TXA]
)


def parse(data: bytes) -> list[Instruction]:
    """The instructions of an array of struct sock_filter; SysError(EINVAL) unless they are a valid filter."""
    program: list[Instruction] = list(SOCK_FILTER.iter_unpack(data))
    count = len(program)
    for at, (code, yes, no, k) in enumerate(program):
        left = count - at - 1
        kind = code & 7
        valid = code in VALID
        if code == LD | ABS:
            valid = k < DATA_SIZE and k % 4 == 0
        elif kind in (ST, STX) or (kind in (LD, LDX) and code & 0xE0 == MEM):
            valid = valid and k < SCRATCH
        elif code == ALU | DIV:
            valid = k != 0
        elif code in (ALU | LSH, ALU | RSH):
            valid = k < 32
        elif code == JMP | JA:
            valid = k < left
        elif kind == JMP:
            valid = valid and yes < left and no < left
        if not valid:
            raise SysError(errno.EINVAL)
    if not program or program[-1][0] & 7 != RET:
        raise SysError(errno.EINVAL)
    _check_scratch(program)
    return program


def _check_scratch(program: Sequence[Instruction]) -> None:
    """On every way to a load from scratch memory there is a store (check_load_and_stores())."""
    everything = (1 << SCRATCH) - 1
    written_at = [everything] * len(program)
    written = 0
    for at, (code, yes, no, k) in enumerate(program):
        written &= written_at[at]
        kind = code & 7
        if kind in (ST, STX):
            written |= 1 << k
        elif kind in (LD, LDX) and code & 0xE0 == MEM:
            if not written >> k & 1:
                raise SysError(errno.EINVAL)
        elif kind == JMP:
            for target in (at + 1 + k,) if code == JMP | JA else (at + 1 + yes, at + 1 + no):
                written_at[target] &= written
            written = everything


def converted_length(program: Sequence[Instruction]) -> int:
    """How many instructions Linux's own machine has for it (bpf_convert_filter()): these are limited."""
    count = 3
    for code, yes, no, k in program:
        count += 1
        if code == ALU | DIV | X:
            count += 4
        elif code == RET:
            count += 1
        elif code & 7 == JMP and code != JMP | JA:
            count += not code & X and k >> 31
            count += no != 0 and (yes != 0 or code & 0xF0 == JSET)
    return count


def _compute(op: int, a: int, b: int) -> int:
    if op == DIV:
        return a // b
    if op == LSH:
        return a << (b & 31)
    if op == RSH:
        return a >> (b & 31)
    return {ADD: a + b, SUB: a - b, MUL: a * b, OR: a | b, AND: a & b, XOR: a ^ b, NEG: -a}[op]


def _holds(op: int, a: int, b: int) -> bool:
    return {JEQ: a == b, JGT: a > b, JGE: a >= b, JSET: a & b != 0}[op]


def run(program: Sequence[Instruction], data: Sequence[int], known: int = 0xFFFF) -> int:
    """What a valid program returns for the 16 words of struct seccomp_data; -1 as soon as it loads a word
    whose bit in `known` is not set."""
    a = x = at = 0
    memory = [0] * SCRATCH
    while True:
        code, yes, no, k = program[at]
        at += 1
        kind, mode = code & 7, code & 0xE0
        operand = x if code & X else k
        if kind in (LD, LDX):
            if mode == ABS:
                if not known >> k // 4 & 1:
                    return -1
                value = data[k // 4]
            else:
                value = {MEM: memory[k % SCRATCH], LEN: DATA_SIZE, IMM: k}[mode]
            if kind == LD:
                a = value
            else:
                x = value
        elif kind == ST:
            memory[k] = a
        elif kind == STX:
            memory[k] = x
        elif kind == ALU:
            if code & 0xF0 == DIV and not operand:
                return 0
            a = _compute(code & 0xF0, a, operand) & U32
        elif kind == JMP:
            if code & 0xF0 == JA:
                at += k
            else:
                at += yes if _holds(code & 0xF0, a, operand) else no
        elif kind == RET:
            return a if code & 0x18 == RET_A else k
        elif code & 0xF8 == TAX:
            x = a
        else:
            a = x
