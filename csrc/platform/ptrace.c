/* The ptrace platform's hot half: resume a thread, collect what stopped, say why.
 *
 * A guest thread runs under PTRACE_SYSEMU: its `syscall` instruction stops it before anything of the
 * host's call happens, and the host's call never happens.  A CPU exception stops it as a signal
 * about to be delivered; the signal is never delivered, the Sentry decides what the guest sees.
 * Signals that anybody else sends to a stub are thrown away.  The stub's seccomp filter is not in
 * this path, it guards the calls that inject.c makes.
 *
 * Stops of a process arrive in any order and its leader's death arrives last, after every other
 * thread has been reaped: a blocking wait for one pid would hang there.  So each status goes
 * through take_status(), which files it under its thread.
 */
#include "core.h"
#include "fast.h"
#include "stub.h"
#include "trace.h"

#include <linux/audit.h>
#include <signal.h>
#include <string.h>
#include <sys/user.h>
#include <sys/wait.h>

_Static_assert(sizeof(struct guest_regs) == sizeof(struct user_regs_struct), "guest_regs");
_Static_assert(offsetof(struct guest_regs, gs) == offsetof(struct user_regs_struct, gs), "guest_regs");

/* CF PF AF ZF SF TF DF OF RF AC: what a program may set. */
#define EFLAGS_USER 0x50dd5ull
#define EFLAGS_TF 0x100ull
#define EFLAGS_RF 0x10000ull

/* What the kernel would refuse (EIO) or what must not be the guest's choice is replaced.
 * orig_rax = -1: no system call restart of the host's (its own idea of rax and rip) on the way out. */
void regs_sanitize(struct guest_regs *out, const struct guest_regs *in)
{
    *out = *in;
    out->orig_rax = (uint64_t)-1;
    out->cs = CODE_SELECTOR;
    out->ss = DATA_SELECTOR;
    out->ds = out->es = out->fs = out->gs = 0;
    out->eflags = (in->eflags & EFLAGS_USER) | EFLAGS_FIXED;
    if (out->fs_base >= STUB_TASK_END)
        out->fs_base = 0;
    if (out->gs_base >= STUB_TASK_END)
        out->gs_base = 0;
}

int ptrace_resume(struct engine *e, struct guest_thread *g)
{
    struct thread *t = of_guest(g);
    struct guest_regs regs;
    int r;

    if (g->state == THREAD_DEAD) {
        thread_set_ready(e, t, ENGINE_DEAD);
        return 0;
    }
    if (g->state != THREAD_STOPPED)
        return -EINVAL;
    regs_sanitize(&regs, &g->regs);
    r = trace(PTRACE_SETREGS, g->pid, 0, &regs);
    if (r == 0)
        r = trace(PTRACE_SYSEMU, g->pid, 0, NULL);
    if (r < 0 && r != -ESRCH)
        return r;
    /* ESRCH: killed a moment ago; its exit status is on the way and will be reported. */
    t->resumed_at = now_ns();
    thread_set_running(e, t);
    return 0;
}

int ptrace_kick(struct engine *e, struct guest_thread *g)
{
    if (g->state == THREAD_RUNNING) {
        of_guest(g)->kicked = true;
        trace(PTRACE_INTERRUPT, g->pid, 0, NULL);
    } else if (g->state == THREAD_PARKED) {
        parking_interrupt(e, of_guest(g));
    }
    return 0;
}

/* Stop a running thread and wait for it; its stop is reported by engine_wait as any other. */
int ptrace_stop(struct engine *e, struct guest_thread *g)
{
    struct thread *t = of_guest(g);
    ptrace_kick(e, g);
    while (g->state == THREAD_RUNNING) {
        int r = ptrace_collect(e, t->leader->thread_count == 1 ? g->pid : -1, 0);
        if (r < 0 && r != -EINTR)
            return r;
    }
    return g->state == THREAD_STOPPED ? 0 : -ESRCH;
}

/* Did the stop come from a 64-bit `syscall`?  That instruction leaves rip in rcx; whoever fakes it for
 * an int 0x80 only fools itself.  Anything else is asked of the kernel. */
static bool is_native_syscall(const struct guest_thread *g)
{
    struct ptrace_syscall_info info;
    long n;
    if (g->regs.rcx == g->regs.rip && g->regs.cs == CODE_SELECTOR)
        return true;
    n = syscall(SYS_ptrace, PTRACE_GET_SYSCALL_INFO, (long)g->pid, sizeof info, &info);
    return n > 0 && info.arch == AUDIT_ARCH_X86_64;
}

/* int 0x80 where the kernel has no 32-bit emulation: a general protection fault on the instruction. */
static void make_int80_fault(struct guest_thread *g)
{
    g->regs.rip -= 2;
    g->regs.rax = g->regs.orig_rax;
    g->regs.orig_rax = (uint64_t)-1;
    g->signo = SIGSEGV;
    g->code = SI_KERNEL;
    g->addr = 0;
    g->trapno = 13;
    g->error = (0x80 << 3) | 2;
}

/* sigcontext's trapno and err, which ptrace does not show, from what it does show.  Whether a page
 * fault was a write is known only where the page can be read. */
static void guess_trap(struct guest_thread *g)
{
    char byte;
    g->error = 0;
    switch (g->signo) {
    case SIGSEGV:
        if (g->code != SEGV_MAPERR && g->code != SEGV_ACCERR) {
            g->trapno = 13;
            break;
        }
        g->trapno = 14;
        g->error = 4;
        if (g->addr == g->regs.rip)
            g->error |= 0x10;
        if (g->code == SEGV_ACCERR) {
            g->error |= 1;
            if (g->addr != g->regs.rip && memory_read(g->tgid, g->addr, &byte, 1) == 1)
                g->error |= 2;
        }
        break;
    case SIGBUS:
        g->trapno = g->code == BUS_ADRALN ? 17 : 14;
        g->error = g->code == BUS_ADRALN ? 0 : 4;
        break;
    case SIGFPE:
        g->trapno = g->code == FPE_INTDIV || g->code == FPE_INTOVF ? 0 : g->regs.rip == g->addr ? 19 : 16;
        break;
    case SIGILL:
        g->trapno = 6;
        break;
    default:
        g->trapno = g->code == SI_KERNEL ? 3 : 1;
    }
}

/* A signal is about to be delivered: ENGINE_FAULT if the CPU raised it, 0 to throw it away. */
static int classify_signal(struct guest_thread *g, int signo)
{
    siginfo_t info;
    int r = trace(PTRACE_GETSIGINFO, g->pid, 0, &info);
    if (r < 0)
        return r;
    if (info.si_code <= 0)
        return 0;
    switch (signo) {
    case SIGSYS:
        /* A call into the vsyscall page: the kernel emulates it without a syscall stop and asks the
         * stub's filter, which answers TRAP.  The return to the caller has been made already. */
        g->regs.orig_rax = (uint64_t)info.si_syscall;
        return ENGINE_SYSCALL;
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
        g->signo = signo;
        g->code = info.si_code;
        g->addr = info.si_code == SI_KERNEL ? 0 : (uint64_t)info.si_addr;
        guess_trap(g);
        return ENGINE_FAULT;
    }
    return 0;
}

/* Why a guest thread stopped: ENGINE_*, 0 for no reason of interest, -ESRCH if it is being killed. */
static int classify(struct guest_thread *g, int status)
{
    int event = status >> 16, signo = WSTOPSIG(status), r;
    if (event && event != PTRACE_EVENT_STOP)
        return 0;
    r = trace(PTRACE_GETREGS, g->pid, 0, &g->regs);
    if (r < 0)
        return r;
    if (event)
        return ENGINE_KICKED;
    if (signo == (SIGTRAP | 0x80)) {
        if (is_native_syscall(g))
            return ENGINE_SYSCALL;
        make_int80_fault(g);
        return ENGINE_FAULT;
    }
    return classify_signal(g, signo);
}

static void take_exit(struct engine *e, struct thread *t)
{
    thread_unlist_pid(e, t);
    t->leader->thread_count--;
    parking_end(t);
    switch (t->g.state) {
    case THREAD_DYING:
        e->dying_count--;
        thread_free(e, t);
        break;
    case THREAD_NEWBORN:
        e->newborn_count--;
        thread_free(e, t);
        break;
    default:
        thread_set_ready(e, t, ENGINE_DEAD);
    }
}

static void take_unknown(struct engine *e, int pid, int status)
{
    struct thread *t;
    if (!WIFSTOPPED(status))
        return;
    t = e->cloning ? thread_new(e, pid) : NULL;
    if (t) {
        t->g.state = THREAD_NEWBORN;
        t->thread_count = 1;
        e->newborn_count++;
    } else {
        kill(pid, SIGKILL); /* nobody asked for it: its parent died while cloning */
    }
}

/* A fast path has served the call: on with the program. */
static void resume_served(struct engine *e, struct thread *t)
{
    if (e->running_count)
        e->running_count--;
    list_remove(&t->link);
    t->g.state = THREAD_STOPPED;
    ptrace_resume(e, &t->g);
    if (e->one_cpu)
        placement_trapped(e, t);
}

static void take_status(struct engine *e, int pid, int status)
{
    struct thread *t = thread_find(e, pid);
    int kind, verdict;
    if (!t) {
        take_unknown(e, pid, status);
        return;
    }
    if (!WIFSTOPPED(status)) {
        take_exit(e, t);
        return;
    }
    switch (t->g.state) {
    case THREAD_INJECTED:
        t->status = status;
        t->has_status = true;
        break;
    case THREAD_RUNNING:
        kind = classify(&t->g, status);
        verdict = kind == ENGINE_SYSCALL ? fast_trap(e, t) : FAST_PASS;
        if (verdict == FAST_DONE || verdict == FAST_JUMP) {
            resume_served(e, t);
        } else if (verdict == FAST_PARK) {
            break;
        } else if (kind > 0) {
            thread_set_ready(e, t, kind);
            if (e->one_cpu)
                placement_trapped(e, t);
        } else if (kind == 0) {
            trace(PTRACE_SYSEMU, pid, 0, NULL);
        }
        break;
    }
}

/* One wait4 (options: 0 or WNOHANG).  1 if something was there, 0 if nothing, or -errno. */
int ptrace_collect(struct engine *e, int pid, int options)
{
    int status;
    long got = syscall(SYS_wait4, (long)pid, &status, (long)(options | __WALL), NULL);
    if (got < 0)
        return -errno;
    if (got == 0)
        return 0;
    take_status(e, (int)got, status);
    return 1;
}

/* Collect without sleeping.  While only one thread runs, ask for it by its pid first: a wait for
 * any child walks over every one of them. */
int ptrace_collect_ready(struct engine *e, bool all)
{
    int r;
    if (e->running_count == 1 && !all) {
        r = ptrace_collect(e, of_link(e->running.next)->g.pid, WNOHANG);
        if (r > 0 && e->running_count == 0 && e->dying_count == 0)
            return 0;
    }
    do
        r = ptrace_collect(e, -1, WNOHANG);
    while (r > 0 && (all || e->running_count || e->dying_count));
    return r == -ECHILD || r > 0 ? 0 : r;
}

/* Python drops the thread of a killed process; its slot is free once it has been reaped. */
int ptrace_forget(struct engine *e, struct guest_thread *g)
{
    struct thread *t = of_guest(g);
    switch (g->state) {
    case THREAD_FREE:
    case THREAD_DYING:
        return 0;
    case THREAD_DEAD:
        thread_free(e, t);
        return 0;
    case THREAD_RUNNING:
        e->running_count--;
        break;
    case THREAD_PARKED:
        parking_end(t);
        break;
    }
    list_remove(&t->link);
    g->state = THREAD_DYING;
    e->dying_count++;
    return 0;
}

/* Wait until everything that was killed is gone. */
int ptrace_reap(struct engine *e)
{
    while (e->dying_count) {
        int r = ptrace_collect(e, -1, 0);
        if (r < 0 && r != -EINTR)
            return r;
    }
    return 0;
}

/* Bytes of the XSAVE area (standard format) put into buffer. */
