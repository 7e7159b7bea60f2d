/* Call-site patching: what C and Python share.  docs/patching.md tells the whole story.
 *
 * A site is the address of a `syscall` instruction.  Where it can be done safely, the instruction right before it
 * is replaced by a jump to a trampoline, which runs that instruction and enters the stub without a trap.
 */
#ifndef SENTRY_PATCH_H
#define SENTRY_PATCH_H

#include <stdint.h>

/* cdef begin */
/* What patch_analyze has to see: so many bytes before the site, and so many from it on (or less, where the
 * mapping begins or ends). */
#define PATCH_BEFORE 256
#define PATCH_AFTER 144

#define PATCH_SLOT 64 /* bytes of a trampoline; slot 0 of a page holds the address of the stub's entry */
#define PATCH_INSN_MAX 15
#define PATCH_STEPS_MAX 6
#define PATCH_SITES_MAX 4096 /* sites that one address space keeps in mind */

/* Why a site is left alone (patch_analyze), negative like an errno. */
#define PATCH_NO_INSN -1     /* where the instruction before it begins is not certain */
#define PATCH_NO_MOVE -2     /* it can't be executed elsewhere */
#define PATCH_NO_NUMBER -3   /* it should have left another number in rax than the one that trapped */
#define PATCH_NO_HOLE -4     /* it is shorter than a jump, and there is no padding for one within reach */
#define PATCH_NO_SIGRETURN -5 /* a restorer, whose bytes unwinders look for */

/* patch_site.state */
#define PATCH_SEEN 0     /* trapped, but not often enough to bother */
#define PATCH_REFUSED 1  /* examined; it stays as it is */
#define PATCH_PATCHED 2

/* The instruction before a site, and how to jump away from it. */
struct patch_plan {
    uint64_t site;  /* of the syscall instruction */
    uint64_t start; /* of the instruction before it, which is replaced */
    uint64_t hole;  /* 0, or padding within reach of a short jump, for the jump to the trampoline */
    uint32_t length;      /* of the instruction */
    int32_t displacement; /* where in it a rip-relative displacement stands; 0: nowhere */
    uint8_t insn[16];     /* its bytes */
    uint32_t room;        /* bytes of the hole */
    uint8_t padding[16];  /* what they were */
};

/* Bytes to be stored by one atomic store: they lie in one aligned 8-byte word. */
struct patch_step {
    uint64_t addr;
    uint32_t size;
    uint8_t bytes[8];
};

struct patch_site {
    struct patch_plan plan; /* only plan.site counts unless it is patched */
    uint64_t trampoline;
    uint32_t state; /* PATCH_SEEN… */
    uint32_t traps;
};

struct guest_regs;

/* The sites of one address space. */
struct patch_table;
struct patch_table *patch_table_new(uint32_t threshold);
struct patch_table *patch_table_copy(const struct patch_table *table);
void patch_table_free(struct patch_table *table);
/* patch_trap never says 1 again. */
void patch_table_stop(struct patch_table *table);

/* Count a trap of `site`; 1 at the trap that makes it worth to be examined, once. */
int patch_trap(struct patch_table *table, uint64_t site);
/* The record of a site, NULL if it was never seen.  Valid until the next patch_trap or patch_forget. */
struct patch_site *patch_find(struct patch_table *table, uint64_t site);
/* PATCH_REFUSED, or PATCH_PATCHED once plan and trampoline are filled in. */
void patch_set(struct patch_table *table, struct patch_site *site, uint32_t state);
/* A patched site of which any part lies in [start, end): its code, its hole, its trampoline. */
struct patch_site *patch_touching(struct patch_table *table, uint64_t start, uint64_t end);
/* The site in whose trampoline (or hole) `addr` lies, even if it is patched no longer. */
struct patch_site *patch_inside(struct patch_table *table, uint64_t addr);
/* Take a stopped thread out of the trampolines: its registers become those that the unpatched code would have,
 * at the replaced instruction or at the syscall.  1: the signal `signo` (of the fault that stopped it; 0: it was
 * none) is only the doing of a store under way, and the thread should go on. */
int patch_settle(struct patch_table *table, struct guest_regs *regs, int signo);
/* Trampolines in [start, end) are gone: nobody can be in them. */
void patch_drop_trampolines(struct patch_table *table, uint64_t start, uint64_t end);
/* Whether anything is known of [start, end): the calls above and below would have something to do there. */
int patch_knows(const struct patch_table *table, uint64_t start, uint64_t end);
/* Forget all that is known of sites in [start, end). */
void patch_forget(struct patch_table *table, uint64_t start, uint64_t end);
uint32_t patch_count(const struct patch_table *table, uint32_t state);

/* Examine the site that trapped with `regs` (rip is behind the syscall, orig_rax the number); `code` is what stands
 * at [base, base + size).  0, or PATCH_NO_*. */
int patch_analyze(const uint8_t *code, uint32_t size, uint64_t base, const struct guest_regs *regs,
                  struct patch_plan *plan);
/* Show patch_analyze the program's own instructions: put those that sites of `table` replaced into `code`. */
void patch_overlay(const struct patch_table *table, uint8_t *code, uint32_t size, uint64_t base);
/* The trampoline of a plan, to be put at `addr`; `entry` is the address of the stub's entry's address.  Its
 * size, or 0 where something is out of reach. */
uint32_t patch_emit(const struct patch_plan *plan, uint64_t addr, uint64_t entry, uint8_t out[PATCH_SLOT]);
/* The stores, in this order, that patch a site (or, `undo`, put the code back): their count, 0 if out of reach.
 * `alone`: no other thread can execute this code now.  If one can, every processor that runs one of them has to pass
 * a serializing event (an interrupt will do) between one store and the next. */
int patch_steps(const struct patch_plan *plan, uint64_t trampoline, int alone, int undo,
                struct patch_step steps[PATCH_STEPS_MAX]);

/* engine/decode.c */
#define INSN_CONTROL 1 /* goes somewhere else: jumps, calls, returns, traps, syscalls */
#define INSN_STOP 2    /* and never to the instruction behind it */
#define INSN_MOVABLE 4 /* does the same at any address (but for a displacement from rip) */
#define INSN_NOP 8
struct insn {
    uint32_t length;
    uint32_t flags;        /* INSN_* */
    uint32_t displacement; /* offset of a displacement from rip, 0 if there is none */
    uint32_t modrm;        /* its offset, 0 if there is none */
    uint32_t opcode;       /* its offset */
    uint32_t rex;
    int64_t target; /* of a relative jump or call: bytes from the end of the instruction */
};
/* The length of the 64-bit instruction at code[0], 0 where there is none (or none that programs use). */
uint32_t insn_decode(const uint8_t *code, uint32_t size, struct insn *insn);
/* cdef end */

#endif
