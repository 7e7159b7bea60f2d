/* The way back from a signal handler of the guest's. */
#include "inside.h"

#define SS_DISABLE 2
#define EFLAGS_RESTORED 0x50dd5 /* by rt_sigreturn, as on Linux */
#define FP_MAGIC1 0x46505853

/* The FP state of the guest's frame goes into ours, from where the kernel restores it.  A state that the CPU might
 * refuse is looked at by the engine. */
static bool load_fpstate(struct record *r, uint64_t from)
{
    struct fpstate *to = ((struct ucontext *)r->frame)->fpstate, *s = (struct fpstate *)window_of(r);
    uint64_t size = to->size, i;
    if (to->magic1 != FP_MAGIC1 || size < sizeof *s || size > RECORD_WINDOW_SIZE || copy_in(s, from, size) ||
        s->magic1 != FP_MAGIC1 || s->size != size || s->extended_size < size || s->mxcsr & ~0xffffu)
        return false;
    s->present &= s->features;
    if (s->present & ~to->features)
        return false;
    for (i = 0; i < 7; i++)
        if (s->zero[i])
            return false;
    stub_copy(to, s, offsetof(struct fpstate, magic1));
    stub_copy(&to->present, &s->present, size - offsetof(struct fpstate, present));
    return true;
}

/* rt_sigreturn(): back from a handler that was entered without an alternate stack. */
bool do_sigreturn(struct record *r)
{
    struct guest_regs *g = &r->regs;
    struct ucontext u;
    uint64_t old = r->hot.sigmask, mask;
    if (r->path != PATH_SIGNAL || is_forced(r, NR_rt_sigreturn) || r->hot.altstack || !(r->hot.known & 1u << HOT_SIGMASK) ||
        copy_in(&u, g->rsp, sizeof u) || (uint32_t)u.stack[1] != SS_DISABLE || !is_guests(u.rip, 0) ||
        u.eflags & EFLAGS_TF)
        return false;
    mask = u.sigmask & ~UNBLOCKABLE;
    if (signals_wait(r, mask) || !load_fpstate(r, (uint64_t)u.fpstate))
        return false;
    r->hot.sigmask = mask;
    fence();
    if (signals_wait(r, mask)) {
        r->hot.sigmask = old;
        return false;
    }
    g->r8 = u.r8, g->r9 = u.r9, g->r10 = u.r10, g->r11 = u.r11, g->r12 = u.r12, g->r13 = u.r13, g->r14 = u.r14;
    g->r15 = u.r15, g->rdi = u.rdi, g->rsi = u.rsi, g->rbp = u.rbp, g->rbx = u.rbx, g->rdx = u.rdx, g->rax = u.rax;
    g->rcx = u.rcx, g->rsp = u.rsp, g->rip = u.rip;
    g->eflags = (g->eflags & ~(uint64_t)EFLAGS_RESTORED) | (u.eflags & EFLAGS_RESTORED);
    return true;
}
