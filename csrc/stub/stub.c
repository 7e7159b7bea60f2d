/* The stub of the `trap` platform: what runs in a guest's process on our behalf.
 *
 * A trap is a signal (SIGSYS from the seccomp filter, a fault, a kick) or a jump from a patched call site.  The
 * guest's registers are put into the thread's record; some calls are answered here and now (answer.c, sigreturn.c); for
 * the rest the record goes to the engine (prefetch.c, handover.c), and this thread waits: spinning for a little while,
 * then asleep.  What comes back is an order (a host system call, a thread to make: order.c) or the word to go on.
 * The ways in and out of C are in entry.S; signals come to signal.c.
 *
 * The code is freestanding, has no data of its own, and uses no FPU or vector register: a guest that comes here
 * by a jump keeps its own.  It shares its address space with a hostile program, which may overwrite or call all of
 * this; nothing here is a boundary.  The seccomp filter and the engine's checks are.
 */
#include "inside.h"

#define OFFSET(field, value) _Static_assert(offsetof(struct record, field) == (value), #field)
OFFSET(state, R_STATE);
OFFSET(args, 16);
OFFSET(child, R_CHILD);
OFFSET(sleeping, 0x40);
OFFSET(kick, R_KICK);
OFFSET(path, R_PATH);
OFFSET(frame, R_FRAME);
OFFSET(self, R_SELF);
OFFSET(regs, R_REGS);
OFFSET(regs.rbx, R_RBX);
OFFSET(regs.r11, R_R11);
OFFSET(regs.orig_rax, R_ORIG_RAX);
OFFSET(regs.rip, R_RIP);
OFFSET(regs.ss, R_SS);
_Static_assert(sizeof(struct record) <= 0x1000, "the control page");

#define CODE_SELECTOR 0x33
#define DATA_SELECTOR 0x2b
#define SS_SIZE (RECORD_STACK_TOP - 0x1000)
#define SITE_PERIOD 8

/* The call in one cache line. */
static void describe(struct record *r)
{
    const struct guest_regs *g = &r->regs;
    uint32_t nr = (uint32_t)g->orig_rax;
    r->nr = nr < NR_OTHER ? (uint16_t)nr : NR_OTHER;
    r->args[0] = g->rdi;
    r->args[1] = g->rsi;
    r->args[2] = g->rdx;
    r->args[3] = g->r10;
    r->args[4] = g->r8;
    r->args[5] = g->r9;
}

/* A call: answered here, or by the engine. */
void take_call(struct record *r)
{
    int64_t result;
    uint64_t nr = r->regs.orig_rax;
    if (nr == NR_rt_sigreturn && do_sigreturn(r))
        return;
    if (answer(r, &result)) {
        if (r->path == PATH_SIGNAL && ++r->unpatched % SITE_PERIOD == 0) {
            /* Worth a jump instead of a signal?  The engine counts.  The registers are as they were. */
            trap(r, ENGINE_SITE);
            r->regs.orig_rax = nr;
        }
        r->regs.rax = (uint64_t)result;
        return;
    }
    if (answer_passed(r, &result)) {
        r->regs.rax = (uint64_t)result;
        if (r->hot.forced & ~FORCED_BY_NUMBER)
            trap(r, ENGINE_KICKED); /* who watches every call wants to see the end of this one, too */
        return;
    }
    r->fp_saved = 0;
    describe(r);
    prefetch(r);
    trap(r, ENGINE_SYSCALL);
}

EXPORT void stub_patched(struct record *r)
{
    r->busy = 1;
    r->path = PATH_DIRECT;
    r->regs.gs_base = 0;
    take_call(r);
}

EXPORT void stub_kicked(struct record *r)
{
    r->busy = 1;
    trap(r, ENGINE_KICKED);
}

/* A call that could not be answered here after all; nothing of it has happened. */
EXPORT void stub_abandoned(struct record *r)
{
    r->fp_saved = 0;
    describe(r);
    r->in_size = r->probed_size = 0;
    trap(r, ENGINE_SYSCALL);
}

/* The last C code before the guest: 0 by rt_sigreturn, 1 by loading registers, 2 by iret. */
EXPORT int stub_prepare_leave(struct record *r)
{
    struct guest_regs *g = &r->regs;
    if (get(&r->kick))
        trap(r, ENGINE_KICKED);
    r->busy = 0;
    if (r->path == PATH_SIGNAL) {
        restore(r, frame_of(r));
        return 0;
    }
    g->cs = CODE_SELECTOR;
    g->ss = DATA_SELECTOR;
    return (g->gs_base && g->gs_base != (uint64_t)r) || g->eflags & EFLAGS_TF ? 2 : 1;
}

/* A thread's first steps, and the zygote's. */
EXPORT void stub_newborn(struct record *r)
{
    uint64_t stack[3] = {(uint64_t)r + 0x1000, 0, SS_SIZE};
    const uint64_t *a = r->args;
    r->self = (uint64_t)r;
    r->busy = 1;
    __asm__ volatile("wrgsbase %0" ::"r"((uint64_t)r));
    host_call(NR_sigaltstack, (uint64_t)stack, 0, 0, 0, 0, 0);
    if (r->nr)
        r->result = host_call(r->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    tell(r, RECORD_DONE);
    serve(r);
}
