/* How long an x86-64 instruction is, and whether it can be executed somewhere else.
 *
 * An instruction is: prefixes, opcode (of one of four maps, or behind VEX or EVEX), ModRM with SIB and
 * displacement, immediate.  The tables say for each opcode which of them follow.  What 64-bit mode has not, and
 * what only kernels use in odd encodings, decodes as nothing: whoever asks then does without.
 */
#include "patch.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum {
    NONE = 0,
    MODRM = 1,
    IMM8 = 2,
    IMM32 = 4,  /* 16 bits with the operand size prefix */
    IMM16 = 8,
    IMM64 = 16, /* mov r, imm: as wide as the register */
    MOFFS = 32,
    BAD = 64,
    GROUP3 = 128, /* test has an immediate, its six siblings have none */
};

#define X2(v) v, v
#define X4(v) v, v, v, v
#define X8(v) X4(v), X4(v)
#define ALU X4(MODRM), IMM8, IMM32, BAD, BAD

static const uint8_t one_byte[256] = {
    /* 00 */ ALU, X4(MODRM), IMM8, IMM32, BAD, BAD, /* 0f is an escape */
    /* 10 */ ALU, ALU,
    /* 20: 26, 2e, 36 and 3e are prefixes */ ALU, ALU,
    /* 30 */ ALU, ALU,
    /* 40: REX */ X8(BAD), X8(BAD),
    /* 50: push, pop */ X8(NONE), X8(NONE),
    /* 60 */ BAD, BAD, BAD, MODRM, X4(BAD), IMM32, MODRM | IMM32, IMM8, MODRM | IMM8, X4(NONE),
    /* 70: jcc */ X8(IMM8), X8(IMM8),
    /* 80 */ MODRM | IMM8, MODRM | IMM32, BAD, MODRM | IMM8, X4(MODRM), X8(MODRM),
    /* 90 */ X8(NONE), NONE, NONE, BAD, X4(NONE), NONE,
    /* a0 */ X4(MOFFS), X4(NONE), IMM8, IMM32, X2(NONE), X4(NONE),
    /* b0 */ X8(IMM8), X8(IMM64),
    /* c0 */ MODRM | IMM8, MODRM | IMM8, IMM16, NONE, BAD, BAD, MODRM | IMM8, MODRM | IMM32,
    /* c8 */ IMM16 | IMM8, NONE, IMM16, NONE, NONE, IMM8, BAD, NONE,
    /* d0 */ X4(MODRM), BAD, BAD, BAD, NONE, X8(MODRM),
    /* e0 */ X4(IMM8), X4(IMM8), IMM32, IMM32, BAD, IMM8, X4(NONE),
    /* f0 */ BAD, NONE, BAD, BAD, NONE, NONE, MODRM | GROUP3, MODRM | GROUP3, X4(NONE), NONE, NONE, MODRM, MODRM,
};

static const uint8_t two_byte[256] = {
    /* 00 */ X4(MODRM), BAD, NONE, NONE, NONE, NONE, NONE, BAD, NONE, BAD, MODRM, BAD, BAD,
    /* 10 */ X8(MODRM), X8(MODRM),
    /* 20 */ X4(MODRM), X4(BAD), X8(MODRM),
    /* 30 */ X4(NONE), NONE, NONE, BAD, NONE, X8(BAD), /* 38 and 3a are escapes */
    /* 40: cmov */ X8(MODRM), X8(MODRM),
    /* 50 */ X8(MODRM), X8(MODRM),
    /* 60 */ X8(MODRM), X8(MODRM),
    /* 70 */ X4(MODRM | IMM8), X2(MODRM), MODRM, NONE, BAD, BAD, BAD, BAD, X4(MODRM),
    /* 80: jcc */ X8(IMM32), X8(IMM32),
    /* 90: setcc */ X8(MODRM), X8(MODRM),
    /* a0 */ NONE, NONE, NONE, MODRM, MODRM | IMM8, MODRM, BAD, BAD, NONE, NONE, BAD, MODRM, MODRM | IMM8, MODRM,
    MODRM, MODRM,
    /* b0 */ X8(MODRM), MODRM, BAD, MODRM | IMM8, MODRM, X4(MODRM),
    /* c0 */ MODRM, MODRM, MODRM | IMM8, MODRM, MODRM | IMM8, MODRM | IMM8, MODRM | IMM8, MODRM, X8(NONE),
    /* d0 */ X8(MODRM), X8(MODRM),
    /* e0 */ X8(MODRM), X8(MODRM),
    /* f0 */ X8(MODRM), X4(MODRM), X2(MODRM), MODRM, BAD,
};

enum { MAP_ONE, MAP_0F, MAP_0F38, MAP_0F3A };

struct cursor {
    const uint8_t *code;
    uint32_t size, at;
    uint32_t map, op;
    bool wide, narrow, short_addr, odd; /* REX.W; prefix 66; 67; gs, lock or rep */
    bool vector;                        /* VEX or EVEX */
};

static bool take(struct cursor *c, uint32_t *byte)
{
    if (c->at >= c->size || c->at >= PATCH_INSN_MAX)
        return false;
    *byte = c->code[c->at++];
    return true;
}

/* Prefixes, then the opcode's first byte in c->op. */
static bool prefixes(struct cursor *c, struct insn *insn)
{
    uint32_t b;
    for (;;) {
        if (!take(c, &b))
            return false;
        if (b == 0x66)
            c->narrow = true;
        else if (b == 0x67)
            c->short_addr = true;
        else if (b == 0xf0 || b == 0xf2 || b == 0xf3 || b == 0x65)
            c->odd = true;
        else if (b != 0x26 && b != 0x2e && b != 0x36 && b != 0x3e && b != 0x64)
            break;
    }
    if ((b & 0xf0) == 0x40) {
        insn->rex = b;
        c->wide = b & 8;
        if (!take(c, &b))
            return false;
    }
    c->op = b;
    return true;
}

/* The opcode map, and the opcode itself; c->op is the first byte. */
static bool opcode(struct cursor *c, struct insn *insn)
{
    uint32_t b, p0;
    c->map = MAP_ONE;
    if (c->op == 0xc5 || c->op == 0xc4 || c->op == 0x62) {
        if (insn->rex || c->narrow || c->odd)
            return false;
        c->vector = true;
        if (!take(c, &p0))
            return false;
        if (c->op == 0xc5)
            c->map = MAP_0F;
        else {
            c->map = p0 & (c->op == 0x62 ? 0x07 : 0x1f);
            if (!take(c, &b) || (c->op == 0x62 && (!(b & 4) || (p0 & 8) || !take(c, &b))))
                return false;
            if (c->map < MAP_0F || c->map > MAP_0F3A)
                return false;
        }
        insn->opcode = c->at;
        return take(c, &c->op);
    }
    insn->opcode = c->at - 1;
    if (c->op != 0x0f)
        return true;
    c->map = MAP_0F;
    insn->opcode = c->at;
    if (!take(c, &c->op))
        return false;
    if (c->op == 0x38 || c->op == 0x3a) {
        c->map = c->op == 0x38 ? MAP_0F38 : MAP_0F3A;
        insn->opcode = c->at;
        return take(c, &c->op);
    }
    return true;
}

static uint32_t operands(const struct cursor *c)
{
    if (c->map == MAP_0F38)
        return MODRM;
    if (c->map == MAP_0F3A)
        return MODRM | IMM8;
    if (c->map == MAP_0F) {
        uint32_t form = two_byte[c->op];
        /* vzeroupper is the only one of the vector instructions without operands. */
        if (c->vector && form != MODRM && form != (MODRM | IMM8) && c->op != 0x77)
            return BAD;
        return form;
    }
    return one_byte[c->op];
}

static bool modrm(struct cursor *c, struct insn *insn, uint32_t *byte)
{
    uint32_t sib = 0, mod, rm;
    insn->modrm = c->at;
    if (!take(c, byte))
        return false;
    mod = *byte >> 6;
    rm = *byte & 7;
    if (mod == 3)
        return true;
    if (rm == 4 && !take(c, &sib))
        return false;
    if (mod == 1)
        c->at += 1;
    else if (mod == 2 || (rm == 4 && (sib & 7) == 5))
        c->at += 4;
    else if (rm == 5) {
        insn->displacement = c->at;
        c->at += 4;
    }
    return true;
}

static int64_t signed_bytes(const uint8_t *p, uint32_t size)
{
    int32_t wide;
    if (size == 1)
        return (int8_t)*p;
    memcpy(&wide, p, 4);
    return wide;
}

/* Jumps and their kin. */
static uint32_t control(const struct cursor *c, uint32_t reg)
{
    uint32_t op = c->op;
    if (c->map == MAP_0F && !c->vector) {
        if (op == 0x0b)
            return INSN_CONTROL | INSN_STOP;
        return op == 0x05 || op == 0x07 || op == 0x34 || op == 0x35 || (op & 0xf0) == 0x80 ? INSN_CONTROL : 0;
    }
    if (c->map != MAP_ONE)
        return 0;
    if (op == 0xc2 || op == 0xc3 || op == 0xe9 || op == 0xeb || op == 0xf4 || (op == 0xff && (reg == 4 || reg == 5)))
        return INSN_CONTROL | INSN_STOP;
    if ((op & 0xf0) == 0x70 || (op >= 0xca && op <= 0xcf) || op == 0xf1 || (op >= 0xe0 && op <= 0xe3) ||
        op == 0xe8 || (op == 0xff && (reg == 2 || reg == 3)))
        return INSN_CONTROL;
    return 0;
}

static bool is_nop(const struct cursor *c, uint32_t reg)
{
    if (c->vector)
        return false;
    return (c->map == MAP_ONE && c->op == 0x90) || (c->map == MAP_0F && c->op == 0x1f && reg == 0);
}

/* Plain arithmetic and moves: what compilers put before a syscall. */
static bool movable(const struct cursor *c, uint32_t reg, bool memory)
{
    uint32_t op = c->op;
    if (c->vector || c->short_addr || c->odd)
        return false;
    if (c->map == MAP_0F)
        return (op >= 0x40 && op <= 0x4f) || (op >= 0x90 && op <= 0x9f) || op == 0xb6 || op == 0xb7 || op == 0xbe ||
               op == 0xbf || op == 0xaf || op == 0x11 || op == 0x29 || op == 0x7f || (op == 0xd6 && c->narrow) || op == 0x1f ||
               (op >= 0xc8 && op <= 0xcf);
    if (c->map != MAP_ONE)
        return false;
    if (op < 0x40)
        return (op & 7) < 6;
    switch (op) {
    case 0x63:
    case 0x69:
    case 0x6b:
    case 0x80:
    case 0x81:
    case 0x83 ... 0x8b:
    case 0x90:
    case 0x91 ... 0x99: /* xchg, cltq, cqto */
    case 0xa8:
    case 0xa9:
    case 0xb0 ... 0xbf:
    case 0xc0:
    case 0xc1:
    case 0xd0 ... 0xd3:
        return true;
    case 0x50 ... 0x5f: /* but push %rsp and pop %rsp are not worth a thought */
        return (op & 7) != 4;
    case 0x8d:
        return memory;
    case 0xc6:
    case 0xc7:
        return reg == 0;
    case 0xf6:
    case 0xf7: /* not the divisions, which fault */
        return reg < 6;
    case 0xfe:
    case 0xff:
        return reg < 2;
    }
    return false;
}

static uint32_t immediate_size(const struct cursor *c, uint32_t form, uint32_t reg)
{
    uint32_t size = 0;
    if (form & IMM8)
        size += 1;
    if (form & IMM16)
        size += 2;
    if (form & IMM32)
        size += c->narrow && !c->wide ? 2 : 4;
    if (form & IMM64)
        size += c->wide ? 8 : c->narrow ? 2 : 4;
    if (form & MOFFS)
        size += c->short_addr ? 4 : 8;
    if (form & GROUP3 && reg < 2)
        size += c->op == 0xf6 ? 1 : c->narrow && !c->wide ? 2 : 4;
    return size;
}

/* Encodings that the processor refuses, or that no program has. */
static bool refused(const struct cursor *c, uint32_t reg, bool memory)
{
    if (c->vector)
        return false;
    if (c->map == MAP_ONE)
        return (c->op == 0x8d && !memory) || (c->op == 0xfe && reg > 1) || (c->op == 0xff && reg == 7) ||
               (c->op == 0xff && !memory && (reg == 3 || reg == 5)) || (c->op == 0x8f && reg) ||
               ((c->op == 0xc6 || c->op == 0xc7) && reg && !(reg == 7 && !memory)) || (c->op == 0x8c && reg > 5) ||
               (c->op == 0x8e && (reg > 5 || reg == 1));
    if (c->map == MAP_0F)
        return (c->op == 0xba && reg < 4) || (c->op >= 0x20 && c->op < 0x24 && memory);
    return false;
}

uint32_t insn_decode(const uint8_t *code, uint32_t size, struct insn *insn)
{
    struct cursor c = {.code = code, .size = size};
    uint32_t form, byte = 0xc0, reg, immediate;
    bool memory;
    memset(insn, 0, sizeof(*insn));
    if (!prefixes(&c, insn) || !opcode(&c, insn))
        return 0;
    form = operands(&c);
    if (form & BAD || (form & MODRM && !modrm(&c, insn, &byte)))
        return 0;
    reg = byte >> 3 & 7;
    memory = form & MODRM && byte < 0xc0;
    if (refused(&c, reg, memory))
        return 0;
    immediate = immediate_size(&c, form, reg);
    if (c.at + immediate > size || c.at + immediate > PATCH_INSN_MAX)
        return 0;
    insn->flags = control(&c, reg);
    if (insn->flags && immediate && !(form & MODRM)) {
        if (c.narrow) /* the two makers of processors disagree on its length */
            return 0;
        if (c.op != 0xcd && !(form & IMM16))
            insn->target = signed_bytes(code + c.at, immediate);
    } else if (!insn->flags) {
        if (is_nop(&c, reg))
            insn->flags |= INSN_NOP;
        if (movable(&c, reg, memory))
            insn->flags |= INSN_MOVABLE;
    }
    insn->length = c.at + immediate;
    return insn->length;
}
