/* The machine of a guest's seccomp filters.  Its twin is `run` in sentry/kernel/bpf.py.
 *
 * Programs have been validated: jumps go forward and stay inside, the last instruction returns, scratch memory is
 * written before it is read.  Nothing here relies on that for the Sentry's own safety: every index is cut or checked. */
#include "bpf.h"

#include <linux/filter.h>
#include <linux/seccomp.h>

static uint32_t compute(uint16_t op, uint32_t a, uint32_t b)
{
    switch (op) {
    case BPF_ADD:
        return a + b;
    case BPF_SUB:
        return a - b;
    case BPF_MUL:
        return a * b;
    case BPF_DIV:
        return b ? a / b : 0;
    case BPF_AND:
        return a & b;
    case BPF_OR:
        return a | b;
    case BPF_XOR:
        return a ^ b;
    case BPF_LSH:
        return a << (b & 31);
    case BPF_RSH:
        return a >> (b & 31);
    }
    return -a;
}

static int holds(uint16_t op, uint32_t a, uint32_t b)
{
    switch (op) {
    case BPF_JEQ:
        return a == b;
    case BPF_JGT:
        return a > b;
    case BPF_JGE:
        return a >= b;
    }
    return (a & b) != 0;
}

int64_t bpf_run(const struct bpf_instruction *code, uint32_t count, const uint32_t *data, uint32_t known)
{
    uint32_t a = 0, x = 0, memory[BPF_SCRATCH] = {0}, at = 0;
    while (at < count) {
        const struct bpf_instruction *i = code + at++;
        uint32_t operand = BPF_SRC(i->code) == BPF_X ? x : i->k;
        switch (BPF_CLASS(i->code)) {
        case BPF_LD:
            if (BPF_MODE(i->code) == BPF_ABS) {
                uint32_t word = i->k / 4 % BPF_WORDS;
                if (!(known >> word & 1))
                    return -1;
                a = data[word];
            } else if (BPF_MODE(i->code) == BPF_MEM) {
                a = memory[i->k % BPF_SCRATCH];
            } else {
                a = BPF_MODE(i->code) == BPF_LEN ? BPF_WORDS * 4 : i->k;
            }
            break;
        case BPF_LDX:
            if (BPF_MODE(i->code) == BPF_MEM)
                x = memory[i->k % BPF_SCRATCH];
            else
                x = BPF_MODE(i->code) == BPF_LEN ? BPF_WORDS * 4 : i->k;
            break;
        case BPF_ST:
            memory[i->k % BPF_SCRATCH] = a;
            break;
        case BPF_STX:
            memory[i->k % BPF_SCRATCH] = x;
            break;
        case BPF_ALU:
            if (BPF_OP(i->code) == BPF_DIV && !operand)
                return 0; /* as Linux: the program ends, and its answer is KILL_THREAD */
            a = compute(BPF_OP(i->code), a, operand);
            break;
        case BPF_JMP:
            if (BPF_OP(i->code) == BPF_JA)
                at = i->k < count - at ? at + i->k : count;
            else
                at += holds(BPF_OP(i->code), a, operand) ? i->jump_true : i->jump_false;
            break;
        case BPF_RET:
            return BPF_RVAL(i->code) == BPF_A ? a : i->k;
        default:
            if (BPF_MISCOP(i->code) == BPF_TAX)
                x = a;
            else
                a = x;
        }
    }
    return 0;
}

void bpf_allowed(const struct bpf_instruction *code, uint32_t count, uint32_t arch, uint64_t *bitmap)
{
    uint32_t nr;
    for (nr = 0; nr < 512; nr++) {
        uint32_t data[BPF_WORDS] = {nr, arch};
        if (bitmap[nr / 64] >> nr % 64 & 1 && bpf_run(code, count, data, 3) != SECCOMP_RET_ALLOW)
            bitmap[nr / 64] &= ~(1ull << nr % 64);
    }
}
