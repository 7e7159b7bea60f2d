/* The record: memory that one host thread of a stub shares with the engine (platform `trap`).
 *
 *      0x00000  struct record: the control page
 *      0x01000  the stack of the stub's code, which is the thread's alternate signal stack as well; at its far
 *               end FP states on their way, where the thread was left by PATH_DIRECT
 *      0x10000  the window: bytes on their way between guest memory and the engine
 *
 * `state` says who owns the thread.  The stub stores TRAPPED or DONE, the engine everything else; whoever
 * stores it has written what belongs to it before.  All of it can be forged by the guest, which harms only
 * the forger: the engine copies what it uses once, and checks the copy.
 *
 * The assembler knows the fields by the R_ offsets; stub.c checks that they agree.
 */
#pragma once
#include "stub.h"

/* record.state: a futex word */
#define RECORD_RUN 0     /* the stub (or the guest) has the thread, with the registers in `regs` */
#define RECORD_TRAPPED 1 /* stub -> engine: a trap is described in the record */
#define RECORD_ORDER 2   /* engine -> stub: do `order` */
#define RECORD_DONE 3    /* stub -> engine: the order's result is there */
#define RECORD_PARKED 4  /* engine -> stub: this will take long, sleep at once */
#define RECORD_BIRTH 5   /* the thread is not there yet; it stores DONE */
#define RECORD_ANSWER 6  /* engine -> stub: `result` is what the call returns; RUN with it in rax */
#define RECORD_PARTING 7 /* ANSWER after the host call `last_nr`, which only has to succeed: else trap as ENGINE_REFUSED */

/* record.path: how the guest was left, and how it is gone back to */
#define PATH_SIGNAL 0 /* a signal frame, at record.frame, which rt_sigreturn restores */
#define PATH_DIRECT 1 /* a jump from a patched site, or nothing yet: the registers are loaded */

/* record.nr of a call that does not fit: its number is in `regs` */
#define NR_OTHER 0xffff

/* record.nr of an order: a system call's number, or one of these */
#define ORDER_CLONE 0x1000   /* flags, record of the child, its offset in the child's memfd, address of r->child */
#define ORDER_CMPXCHG 0x1001 /* address, expected, new */
#define ORDER_XSAVE 0x1002   /* to RECORD_FP_SAVED, unless that has been done */
#define ORDER_EXIT 0x1005    /* end this thread */
#define ORDER_STORE 0x1006   /* address, 8 bytes to be put there by one store; pages of code around it, their protection */

/* Far below what the stack needs: FP states, in XSAVE's format. */
#define RECORD_FP_SAVED 0x1000 /* stub -> engine, if fp_saved */
#define RECORD_FP_LOAD 0x5000  /* engine -> stub, if fp_load */

#define RECORD_STACK_TOP 0x10000
#define RECORD_WINDOW 0x10000
#define RECORD_WINDOW_SIZE 0x10000

#define RECORD_FAR_SIZE 8192 /* less goes through the window wherever the CPUs are */

#define BELL_FD 0 /* the only descriptor that a stub has */
#define LENT_FD 5 /* the numbers of those that it is lent for mmap during an order: this and the next ones */
#define LENT_MAX 4
#define LEND_TOKEN 0xfffffff0 /* no descriptor: close() of it asks the Sentry to lend */
#define KICK_SIGNAL 12

#define R_STATE 0x00
#define R_PATH 0x07
#define R_KICK 0x44
#define R_CHILD 0x54
#define R_SELF 0x58
#define R_REGS 0x80
#define R_R15 0x80
#define R_R14 0x88
#define R_R13 0x90
#define R_R12 0x98
#define R_RBP 0xa0
#define R_RBX 0xa8
#define R_R11 0xb0
#define R_R10 0xb8
#define R_R9 0xc0
#define R_R8 0xc8
#define R_RAX 0xd0
#define R_RCX 0xd8
#define R_RDX 0xe0
#define R_RSI 0xe8
#define R_RDI 0xf0
#define R_ORIG_RAX 0xf8
#define R_RIP 0x100
#define R_CS 0x108
#define R_EFLAGS 0x110
#define R_RSP 0x118
#define R_SS 0x120
#define R_FRAME 0x160

#ifndef __ASSEMBLER__
#include "action.h"
#include "engine.h"

#include <asm/unistd_64.h>

/* What every stub may read of the engine. */
struct shared_page {
    uint32_t sleeping; /* the engine sleeps, or is about to look once more before it does: ring the bell */
    uint32_t overloaded; /* there are more threads than CPUs: don't spin */
    uint64_t spin;     /* how long to spin for an answer, in ticks of the time stamp counter */
    uint64_t one;      /* 1: what is written to the bell */
    uint32_t engine_cpu; /* where the engine runs, or ran a moment ago */
    uint32_t crowded;    /* others want the CPUs, too: who yields waits for a time slice; sleep instead */
    uint32_t frame_size; /* what a signal frame takes of a stack, at most */
    uint32_t far;        /* don't put RECORD_FAR_SIZE bytes or more into the window */
    uint64_t fp_features;  /* what XSAVE saves and XRSTOR loads */
    uint64_t clock_gettime;      /* address of the vDSO's function, 0 for none, */
    uint64_t clock_gettime_code; /* and its first 8 bytes: a guest may have put something else there */
};

/* Each cache line that goes from one CPU to the other costs as much as a system call, and one after the other costs twice that.
 * So what a plain call needs is one line, both ways; what both sides look at, but seldom write, another; and
 * the rest is the stub's until the engine has to see all of it. */
struct record {
    uint32_t state;
    uint16_t nr;  /* of a call, or of an order */
    uint8_t kind; /* of the trap: ENGINE_* */
    uint8_t path; /* PATH_* */
    union {
        uint32_t in_size;  /* bytes in the window, from where argument_in says */
        uint32_t out_size; /* bytes of the window that go to the guest before it runs on, to `out_addr` */
        uint32_t lends;    /* of an order: so many descriptors */
    };
    uint32_t probed_size; /* memory that the guest can write, from args[1], or from probed_addr for a signal to oneself */
    union {
        uint64_t args[6];
        struct {
            int64_t result; /* of a call, or of an order */
            uint64_t out_addr;
        };
    };

    uint32_t sleeping;     /* the stub sleeps on `state`, or is about to look once more before it does */
    uint32_t kick;         /* it was kicked since the engine cleared this */
    uint32_t engine_waits; /* the engine sleeps on `state` */
    uint32_t blocked;      /* it sleeps in a futex of the host's: not a reason for the engine to spin */
    uint32_t cpu;          /* where the stub runs, or ran a moment ago */
    uint32_t child;        /* who the last ORDER_CLONE has made, by the host's kernel */
    uint64_t self;         /* address of this record in the stub */
    uint64_t reserved[4];

    struct guest_regs regs;
    uint32_t fp_saved; /* PATH_DIRECT: the FP state of this trap stands at RECORD_FP_SAVED */
    uint32_t fp_load;  /* PATH_DIRECT: the one at RECORD_FP_LOAD is loaded before the thread runs on */
    uint64_t frame;    /* of PATH_SIGNAL: address of the ucontext */
    uint32_t busy;     /* the stub's own C code runs */
    uint32_t unpatched;   /* calls that the stub has answered after a signal */
    int32_t signo, code, trapno, error;
    uint64_t addr;        /* of a fault: si_addr */
    uint64_t probed_addr; /* of a signal to oneself */
    struct guest_hot hot; /* what the stub answers by itself */

    uint32_t last_nr __attribute__((aligned(64))); /* of RECORD_PARTING */
    uint32_t last_lends;                           /* so many descriptors */
    uint64_t last_args[6];
    int64_t last_result;

    uint32_t actions_known; /* and so it does rt_sigaction: the actions below are those of the process, */
    uint32_t pad;
    uint64_t actions_changed; /* and these the engine has not heard of; bits as in a signal mask */
    struct signal_action actions[65]; /* by signal number */
};

/* The CPU that this thread runs on: a limit that Linux leaves in the GDT for getcpu(3). */
static inline uint32_t current_cpu(void)
{
    uint32_t value;
    __asm__ volatile("lsl %1, %0" : "=r"(value) : "r"(0x7b));
    return value & 0xfff;
}

/* Which argument's memory the stub has put into the window (record.in_size), or -1. */
static inline int argument_in(uint32_t nr)
{
    switch (nr) {
    case __NR_open:
    case __NR_stat:
    case __NR_lstat:
    case __NR_access:
    case __NR_readlink:
        return 0;
    case __NR_write:
    case __NR_rt_sigaction:
    case __NR_pwrite64:
    case __NR_sendto:
    case __NR_openat:
    case __NR_newfstatat:
    case __NR_readlinkat:
    case __NR_faccessat:
    case __NR_statx:
    case __NR_faccessat2:
        return 1;
    case __NR_fcntl:
        return 2;
    }
    return -1;
}

#define ENGINE_COPY_FAULT 5 /* record.kind: the bytes for the guest could not be delivered */
#define ENGINE_REFUSED 7    /* record.kind: the last host call has failed, last_result says why */
#endif
