/* Classic BPF as seccomp(2) filters use it: loads are from the 16 words of struct seccomp_data. */
#pragma once
#include <stdint.h>

#define BPF_WORDS 16
#define BPF_SCRATCH 16

/* struct sock_filter */
struct bpf_instruction {
    uint16_t code;
    uint8_t jump_true, jump_false;
    uint32_t k;
};

/* What a program that sentry/kernel/bpf.py has found valid returns for `data`; -1 as soon as it loads a word whose bit
 * in `known` is not set. */
int64_t bpf_run(const struct bpf_instruction *code, uint32_t count, const uint32_t *data, uint32_t known);

/* Clear the bits of those of the 512 calls in `bitmap` that the program does not allow whatever their arguments are. */
void bpf_allowed(const struct bpf_instruction *code, uint32_t count, uint32_t arch, uint64_t *bitmap);
