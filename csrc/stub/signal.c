/* Every signal of a stub's thread: calls that the filter traps, faults, kicks. */
#include "inside.h"

#define ENOSYS 38
#define SIGSEGV 11
#define SIGSYS 31
#define SI_KERNEL 0x80
#define AUDIT_ARCH_X86_64 0xc000003e

static void save(struct record *r, const struct ucontext *u)
{
    struct guest_regs *g = &r->regs;
    uint64_t gs = get_gs();
    g->r15 = u->r15;
    g->r14 = u->r14;
    g->r13 = u->r13;
    g->r12 = u->r12;
    g->rbp = u->rbp;
    g->rbx = u->rbx;
    g->r11 = u->r11;
    g->r10 = u->r10;
    g->r9 = u->r9;
    g->r8 = u->r8;
    g->rax = u->rax;
    g->rcx = u->rcx;
    g->rdx = u->rdx;
    g->rsi = u->rsi;
    g->rdi = u->rdi;
    g->orig_rax = u->rax;
    g->rip = u->rip;
    g->cs = u->cs;
    g->eflags = u->eflags;
    g->rsp = u->rsp;
    g->ss = u->ss;
    g->fs_base = get_fs();
    g->gs_base = gs == (uint64_t)r ? 0 : gs;
}

void restore(const struct record *r, struct ucontext *u)
{
    const struct guest_regs *g = &r->regs;
    u->r15 = g->r15;
    u->r14 = g->r14;
    u->r13 = g->r13;
    u->r12 = g->r12;
    u->rbp = g->rbp;
    u->rbx = g->rbx;
    u->r11 = g->r11;
    u->r10 = g->r10;
    u->r9 = g->r9;
    u->r8 = g->r8;
    u->rax = g->rax;
    u->rcx = g->rcx;
    u->rdx = g->rdx;
    u->rsi = g->rsi;
    u->rdi = g->rdi;
    u->rip = g->rip;
    u->eflags = g->eflags;
    u->rsp = g->rsp;
}

/* A kick came while the stub's own code was running: note it, and if the thread is past the last look at the
 * note, send it back. */
static void note_kick(struct record *r, struct ucontext *u)
{
    __atomic_store_n(&r->kick, 1, __ATOMIC_SEQ_CST);
    if (within(u->rip, window_direct_start, window_direct_end) || within(u->rip, window_iret_start, window_iret_end) ||
        within(u->rip, window_signal_start, window_signal_end)) {
        u->rbx = (uint64_t)r;
        u->rip = (uint64_t)kicked;
    } else if (within(u->rip, window_futex_start, window_futex_end)) {
        u->rip = (uint64_t)stub_futex_abort;
    }
}

/* A fault in code that touches guest memory is an answer, not an event. */
static bool fix_fault(struct ucontext *u)
{
    if (within(u->rip, copy_start, copy_end))
        u->rip = (uint64_t)copy_end;
    else if (within(u->rip, string_start, string_end) || within(u->rip, cmpxchg_start, cmpxchg_end) ||
             within(u->rip, probe_start, probe_end) || within(u->rip, store_start, store_end) ||
             within(u->rip, code_start, code_end) || within(u->rip, xrstor_start, xrstor_end))
        u->rip = (uint64_t)stub_fault;
    else
        return false;
    return true;
}

static void take_syscall(struct record *r, const struct siginfo *info)
{
    if (info->arch == AUDIT_ARCH_X86_64) {
        /* A number that looks like ERESTARTSYS and its like made the host "restart" the call. */
        if (r->regs.rip + 2 == info->addr)
            r->regs.rip = info->addr;
        if ((int32_t)r->regs.orig_rax != info->number)
            r->regs.rax = r->regs.orig_rax = (uint64_t)(int64_t)info->number;
        take_call(r);
        return;
    }
    /* int 0x80 where the kernel has no 32-bit emulation: a general protection fault on the instruction. */
    r->regs.rip -= 2;
    r->signo = SIGSEGV;
    r->code = SI_KERNEL;
    r->addr = 0;
    r->trapno = 13;
    r->error = (0x80 << 3) | 2;
    trap(r, ENGINE_FAULT);
}

/* Every signal.  0: back to where it came from; 1: the record says where to. */
EXPORT int stub_signal(int signo, const struct siginfo *info, struct ucontext *u, struct record *r)
{
    bool ours = u->rip >= STUB_BASE && u->rip < STUB_BASE + STUB_SIZE;
    if (signo == KICK_SIGNAL) {
        if (ours || r->busy) {
            note_kick(r, u);
            return 0;
        }
    } else if (info->code <= 0) {
        return 0; /* from outside: neither the CPU nor the filter raised it */
    } else if (ours && signo != SIGSYS && fix_fault(u)) {
        return 0;
    } else if (r->busy && signo == SIGSYS) {
        u->rax = (uint64_t)-ENOSYS; /* the vDSO, called by us, wants to make a real call */
        return 0;
    } else if (r->busy && !ours) {
        u->rbx = (uint64_t)r; /* the vDSO is there no more */
        u->rip = (uint64_t)abandoned;
        return 0;
    }
    r->busy = 1;
    r->path = PATH_SIGNAL;
    r->frame = (uint64_t)u;
    save(r, u);
    switch (signo) {
    case SIGSYS:
        take_syscall(r, info);
        break;
    case KICK_SIGNAL:
        trap(r, ENGINE_KICKED);
        break;
    default:
        r->signo = signo;
        r->code = info->code;
        r->addr = info->code == SI_KERNEL ? 0 : info->addr;
        r->trapno = (int32_t)u->trapno;
        r->error = (int32_t)u->err;
        trap(r, ENGINE_FAULT);
    }
    return 1;
}
