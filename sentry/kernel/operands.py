"""Which memory an instruction touches, as its bytes and the registers before it tell (Intel SDM, volume 2).

For watchpoints on reads (sentry/kernel/debugregs.py), which a look at the memory behind the instruction does
not show.  Where it begins and how long it is comes from the engine's decoder; sizes of vector operands are
those of whole vectors but for the common scalar ones.
"""

from __future__ import annotations

from sentry._engine import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Places = list[tuple[int, int]]

INSN_MAX = 15
U64 = (1 << 64) - 1
GENERAL = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
NARROW, REPNE, REP, SEGMENT_FS, SEGMENT_GS = 0x66, 0xF2, 0xF3, 0x64, 0x65
_LEGACY = frozenset((NARROW, 0x67, 0xF0, REPNE, REP, 0x2E, 0x36, 0x3E, 0x26, SEGMENT_FS, SEGMENT_GS))
_VEX2, _VEX3, _EVEX = 0xC5, 0xC4, 0x62
_BYTE_OPS = frozenset(bytes.fromhex("80 84 86 88 8a a4 a6 aa ac ae c0 c6 d0 d2 f6 fe"))
#: lea; prefetches and no-ops: an operand, but no access.
_NO_ACCESS = frozenset(((0, 0x8D), (1, 0x0D), (1, 0x18), (1, 0x1F)))
_BYTE_OPS_0F = frozenset((0xB0, 0xB6, 0xBE, 0xC0, *range(0x90, 0xA0)))
_SCALAR = frozenset((0x10, 0x11, 0x2A, 0x2C, 0x2D, 0x51, *range(0x58, 0x60)))
_HALVES = frozenset((0x12, 0x13, 0x16, 0x17, 0xD6))
_insn = ffi.new("struct insn *")


class _Form:
    """The parts of an instruction that addresses and sizes depend on."""

    __slots__ = ("code", "length", "map", "modrm", "op", "prefixes", "rex", "vector", "wide")

    def __init__(self, code: bytes, length: int, insn: Any) -> None:
        self.code, self.length, self.modrm = code, length, insn.modrm
        at = 0
        while code[at] in _LEGACY:
            at += 1
        self.prefixes = code[:at]
        #: Bits R, X and B, whatever says them; size of a whole vector, or 0.
        self.rex = self.vector = 0
        self.wide = False
        if code[at] & 0xF0 == 0x40:
            self.rex, self.wide = code[at] & 7, bool(code[at] & 8)
            at += 1
        first = code[at]
        self.op = code[insn.opcode]
        self.map = 0 if insn.opcode == at else 1 if insn.opcode == at + 1 else 2
        if first in (_VEX3, _EVEX) and insn.opcode > at:
            self.rex = ~code[at + 1] >> 5 & 7
        if first in (_VEX2, _VEX3, _EVEX) and insn.opcode > at:
            byte = code[at + (1 if first == _VEX2 else 2)]
            self.prefixes += (b"", b"\x66", b"\xf3", b"\xf2")[byte & 3]
            self.vector = 16 << (code[at + 3] >> 5 & 3 if first == _EVEX else byte >> 2 & 1)
            self.map = 1

    @property
    def reg(self) -> int:
        byte: int = self.code[self.modrm]
        return byte >> 3 & 7

    @property
    def general(self) -> int:
        return 8 if self.wide else 2 if NARROW in self.prefixes else 4


def touched(regs: Any, code: bytes) -> Places:
    """(address, size) of the memory that the instruction at `code` reads or writes with these registers."""
    length = lib.insn_decode(ffi.from_buffer("uint8_t[]", code), min(len(code), INSN_MAX), _insn)
    if not length:
        return []
    form = _Form(code, length, _insn)
    places = _implied(form, regs) if form.map == 0 else []
    memory = form.modrm and code[form.modrm] < 0xC0
    if memory and (form.map, form.op) not in _NO_ACCESS:
        places.append((_address(form, regs), _size(form)))
    return places


def _address(form: _Form, regs: Any) -> int:
    code, at = form.code, form.modrm + 1
    mod, rm = code[form.modrm] >> 6, code[form.modrm] & 7
    addr = 0
    absolute = False
    if rm == 4:
        sib = code[at]
        at += 1
        index = sib >> 3 & 7 | (form.rex & 2) << 2
        if index != 4:
            addr = getattr(regs, GENERAL[index]) << (sib >> 6)
        absolute = mod == 0 and sib & 7 == 5
        if not absolute:
            addr += getattr(regs, GENERAL[sib & 7 | (form.rex & 1) << 3])
    elif mod == 0 and rm == 5:
        absolute = True
        addr = regs.rip + form.length
    else:
        addr = getattr(regs, GENERAL[rm | (form.rex & 1) << 3])
    size = 4 if absolute or mod == 2 else mod
    addr += int.from_bytes(code[at : at + size], "little", signed=True)
    return (addr + _segment(form, regs)) & U64


def _segment(form: _Form, regs: Any) -> int:
    base: int = 0
    if SEGMENT_FS in form.prefixes:
        base = regs.fs_base
    elif SEGMENT_GS in form.prefixes:
        base = regs.gs_base
    return base


def _size(form: _Form) -> int:
    op = form.op
    if form.map == 0:
        if (op < 0x40 and not op & 1) or op in _BYTE_OPS:
            return 1
        if op == 0x63:
            return 4
        if op == 0x8F or (op == 0xFF and form.reg in (2, 4, 6)) or 0xD8 <= op <= 0xDF:
            return 8
        return form.general
    if form.map == 1 and op in _SCALAR and (REP in form.prefixes or REPNE in form.prefixes):
        return 4 if REP in form.prefixes else 8
    if form.vector:
        return form.vector
    if form.map == 1:
        if op in _BYTE_OPS_0F:
            return 1
        if op in (0xB7, 0xBF):
            return 2
        if op in _HALVES:
            return 8
        if op in (0x6E, 0x7E):
            return 8 if form.wide or REP in form.prefixes else 4
        whole = 0x10 <= op < 0x30 or 0x50 <= op < 0x80 or op in (0xC2, 0xC6) or op >= 0xD0
        return 16 if whole else form.general
    return 16


def _implied(form: _Form, regs: Any) -> Places:
    """What stacks and strings touch besides."""
    op = form.op
    if 0x50 <= op < 0x58 or op in (0x68, 0x6A, 0x9C, 0xE8) or (op == 0xFF and form.reg in (2, 6)):
        return [(regs.rsp - 8 & U64, 8)]
    if 0x58 <= op < 0x60 or op in (0x8F, 0x9D, 0xC2, 0xC3):
        return [(regs.rsp, 8)]
    if op == 0xC9:
        return [(regs.rbp, 8)]
    size = 1 if op in _BYTE_OPS else form.general
    if 0xA0 <= op <= 0xA3:
        place = int.from_bytes(form.code[form.length - 8 : form.length], "little")
        return [(place + _segment(form, regs) & U64, 1 if not op & 1 else form.general)]
    places = []
    if op in (0xA4, 0xA5, 0xA6, 0xA7, 0xAC, 0xAD):
        places.append((regs.rsi, size))
    if op in (0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAE, 0xAF):
        places.append((regs.rdi, size))
    return places
