/* Host system calls made by a stopped stub thread on the Sentry's order.
 *
 * The thread's registers are replaced, it runs from an entry of the stub to the int3 behind
 * it, and its registers are read back.  The guest's own registers are in guest_thread.regs and come
 * back with the next resume, so nothing is restored here.  This is the only time at which a stub
 * makes host calls, and its seccomp filter sees each of them.
 *
 * On the way the thread may stop for other reasons (a kick that came late, a stray signal, a clone
 * event): it is continued.  It may also be killed: -ESRCH, and engine_wait reports it dead.
 */
#include "core.h"
#include "stub.h"
#include "trace.h"

#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

static uint64_t end_of(uint64_t entry)
{
    return STUB_BASE + entry + (entry == STUB_SYSCALL_OFFSET ? 3 : 5);
}

void inject_syscall_regs(struct injection *in, uint64_t number, const uint64_t args[6])
{
    memset(in, 0, sizeof *in);
    in->entry = STUB_SYSCALL_OFFSET;
    in->regs.rax = number;
    in->regs.rdi = args[0];
    in->regs.rsi = args[1];
    in->regs.rdx = args[2];
    in->regs.r10 = args[3];
    in->regs.r8 = args[4];
    in->regs.r9 = args[5];
}

int inject_start(struct thread *t, struct injection *in)
{
    struct guest_regs regs;
    int r;
    if (t->g.state != THREAD_STOPPED)
        return t->g.state == THREAD_RUNNING ? -EBUSY : -ESRCH;
    in->regs.rip = STUB_BASE + in->entry;
    regs_sanitize(&regs, &in->regs);
    r = trace(PTRACE_SETREGS, t->g.pid, 0, &regs);
    if (r < 0)
        return r;
    r = trace(PTRACE_CONT, t->g.pid, 0, NULL);
    if (r < 0)
        return r;
    t->has_status = false;
    t->g.state = THREAD_INJECTED;
    return 0;
}

/* Sleep until the injected thread has stopped; others' stops are filed on the way. */
int inject_wait(struct engine *e, struct thread *t, int *status)
{
    while (!t->has_status) {
        bool alone = t->leader->thread_count == 1 && !e->cloning;
        int r;
        if (t->g.state != THREAD_INJECTED)
            return -ESRCH;
        r = ptrace_collect(e, alone ? t->g.pid : -1, 0);
        if (r == -ECHILD)
            thread_set_ready(e, t, ENGINE_DEAD);
        else if (r < 0 && r != -EINTR)
            return r;
    }
    t->has_status = false;
    *status = t->status;
    return 0;
}

/* The clone of `t` has made `pid`, whose first stop has come already or is still to come. */
static void adopt(struct engine *e, struct thread *t, int pid, bool same_process)
{
    struct thread *child = thread_find(e, pid);
    if (child) {
        child->g.state = THREAD_STOPPED;
        e->newborn_count--;
    } else {
        child = thread_new(e, pid);
        if (!child) {
            kill(pid, SIGKILL);
            return;
        }
        child->g.state = THREAD_INJECTED;
    }
    child->thread_count = 1;
    child->spread = t->spread;
    if (same_process) {
        child->leader = t->leader;
        child->g.tgid = t->g.tgid;
        t->leader->thread_count++;
    }
}

/* One stop of an injected thread: 1 finished (in->regs holds the outcome), 0 continued, or -errno. */
int inject_step(struct engine *e, struct thread *t, struct injection *in, int status)
{
    int event = status >> 16, signo = WSTOPSIG(status), r;
    siginfo_t info;

    if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK) {
        unsigned long pid = 0;
        if (e->cloning && trace(PTRACE_GETEVENTMSG, t->g.pid, 0, &pid) == 0) {
            in->child = (int)pid;
            adopt(e, t, (int)pid, in->regs.rdi & CLONE_THREAD);
        }
    } else if (event == 0 && signo != (SIGTRAP | 0x80)) {
        struct guest_regs now;
        r = trace(PTRACE_GETREGS, t->g.pid, 0, &now);
        if (r < 0)
            goto gone;
        if (signo == SIGTRAP && now.rip == end_of(in->entry)) {
            in->regs = now;
            t->g.state = THREAD_STOPPED;
            return 1;
        }
        if ((signo == SIGSEGV || signo == SIGBUS) && in->entry == STUB_CMPXCHG_OFFSET) {
            r = trace(PTRACE_GETSIGINFO, t->g.pid, 0, &info);
            if (r < 0)
                goto gone;
            if (info.si_code > 0) {
                t->g.state = THREAD_STOPPED;
                return -EFAULT;
            }
        }
    }
    r = trace(PTRACE_CONT, t->g.pid, 0, NULL);
gone:
    /* ESRCH here means "killed just now": go on waiting, for its exit status. */
    return r < 0 && r != -ESRCH ? r : 0;
}

/* The end of an injection, r as inject_step gave it.  A thread that we have lost control of for a
 * reason of our own (no memory, say) must not come back to life in the middle of a host call. */
int inject_end(struct thread *t, int r)
{
    if (r >= 0)
        return 0;
    if (t->g.state == THREAD_INJECTED)
        kill(t->g.tgid, SIGKILL);
    return r;
}

int inject_run(struct engine *e, struct thread *t, struct injection *in)
{
    int status = 0;
    int r = inject_start(t, in);
    while (r == 0) {
        r = inject_wait(e, t, &status);
        if (r == 0)
            r = inject_step(e, t, in, status);
    }
    return inject_end(t, r);
}

/* The host's result, which may be -errno itself; -ESRCH also when the thread is gone. */
int64_t ptrace_syscall(struct engine *e, struct guest_thread *g, uint64_t number, uint64_t a0, uint64_t a1,
                       uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5)
{
    struct injection in;
    int r;
    inject_syscall_regs(&in, number, (uint64_t[6]){a0, a1, a2, a3, a4, a5});
    r = inject_run(e, of_guest(g), &in);
    return r < 0 ? r : (int64_t)in.regs.rax;
}

/* The word's old value, or -errno. */
int64_t ptrace_cmpxchg32(struct engine *e, struct guest_thread *g, uint64_t addr, uint32_t expected,
                         uint32_t wanted)
{
    struct injection in = {.entry = STUB_CMPXCHG_OFFSET};
    int r;
    if (addr & 3)
        return -EINVAL;
    if (addr >= STUB_BASE)
        return -EFAULT;
    in.regs.rax = expected;
    in.regs.rcx = wanted;
    in.regs.rdi = addr;
    r = inject_run(e, of_guest(g), &in);
    return r < 0 ? r : (int64_t)(uint32_t)in.regs.rax;
}

/* What has stopped while a clone was under way but was not its child: left over from an earlier
 * clone whose caller was killed in the middle. */
static void kill_newborns(struct engine *e)
{
    uint32_t i;
    for (i = 0; e->newborn_count && i < e->slot_count; i++) {
        struct guest_thread *g = &e->slots[i]->g;
        if (g->state == THREAD_NEWBORN) {
            kill(g->pid, SIGKILL);
            ptrace_forget(e, g);
            e->newborn_count--;
        }
    }
}

/* Make one more thread of g's process (thread != 0), or a copy-on-write clone of the process, with g's
 * FP state.  Every stub is a child of the Sentry itself (CLONE_PARENT).  The flag values are the ones
 * that the stub's filter allows (sentry/platform/stub_filter.py). */
int ptrace_clone(struct engine *e, struct guest_thread *g, int thread, struct guest_thread **child)
{
    const uint64_t flags = thread ? CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM
                                  : CLONE_PARENT | SIGCHLD;
    struct injection in;
    struct thread *born = NULL;
    int r, status;

    inject_syscall_regs(&in, SYS_clone, (uint64_t[6]){flags});
    e->cloning = true;
    r = inject_run(e, of_guest(g), &in);
    if (in.child)
        born = thread_find(e, in.child);
    if (r == 0 && (int64_t)in.regs.rax < 0)
        r = (int)in.regs.rax;
    if (r == 0 && born && born->g.state == THREAD_INJECTED)
        r = inject_wait(e, born, &status);
    e->cloning = false;
    kill_newborns(e);
    if (r == 0 && (!born || born->g.state == THREAD_DEAD))
        r = -ENOMEM;
    if (r < 0) {
        if (born) {
            if (!thread)
                guest_kill(e, &born->g);
            ptrace_forget(e, &born->g);
        }
        return r;
    }
    born->g.state = THREAD_STOPPED;
    born->g.regs = g->regs;
    *child = &born->g;
    return 0;
}

int ptrace_clone_with(struct engine *e, struct guest_thread *g, uint64_t addr, uint64_t size, int prot,
                      struct guest_thread **child)
{
    int64_t r = ptrace_clone(e, g, 0, child);
    if (r < 0)
        return (int)r;
    r = ptrace_syscall(e, *child, SYS_mmap, addr, size, (uint64_t)prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                       ~0ull, 0);
    if (r >= 0)
        return 0;
    guest_kill(e, *child);
    ptrace_forget(e, *child);
    return (int)r;
}

/* End a thread that is not its process's leader (a leader is parked instead: process_vm_* on a dead
 * leader's pid fails, and its exit would not be reported before the others'). */
int ptrace_exit_thread(struct engine *e, struct guest_thread *g)
{
    struct thread *t = of_guest(g);
    struct injection in;
    if (t->leader == t)
        return -EINVAL;
    if (g->state == THREAD_PARKED)
        parking_report(e, t);
    inject_syscall_regs(&in, SYS_exit, (uint64_t[6]){0});
    inject_run(e, t, &in); /* ends in -ESRCH, as it should */
    return ptrace_forget(e, g);
}
