/* The trap platform's hot half: what the engine sees of records, and the loop that watches them.
 *
 * A running thread traps by storing TRAPPED into its record.  While there is a CPU to spare the engine looks at the
 * records of all running threads again and again; when nothing has come for a while it sleeps in epoll, having said so
 * in the page that all stubs read (shared_page.sleeping), and the next stub rings the bell.  Both sides publish,
 * fence, then look, so a trap cannot fall between; a bell too many is harmless.
 *
 * The Sentry owns a thread from the trap until it stores RUN.  A running thread is interrupted by a signal (a kick),
 * whose handler is in the stub; one that does not react is killed, since a guest can mask the signal by a
 * forged signal frame.
 */
#include "trap.h"
#include "fast.h"
#include "patch.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPIN_LEAST_NS 50000ull /* how long the engine waits awake for the next trap, */
#define SPIN_MOST_NS 400000ull /* at most, where it has come soon after falling asleep */
#define LONG_SLEEP_NS 1000000ull
#define STUB_SPIN_NS 100000ull
#define CROWDED_NS 1000000ull
#define IN_VAIN_NS 2500ull
#define CROWDED_FOR_NS 50000000ull
#define LOOK_NS 200000ull /* between two looks at descriptors and deaths while traps keep coming */
#define KICK_AGAIN_NS 100000000ull
#define KICKS_DEADLY 20 /* counted, not timed: the whole sandbox may have been frozen meanwhile */
#define YIELDS 2 /* in vain, before it sleeps */
#define FD_BATCH 64

static uint64_t ticks(void)
{
    return __builtin_ia32_rdtsc();
}

/* The registers that a plain call doesn't need; those that were read already stay. */
void thread_whole_regs(struct thread *t)
{
    struct guest_regs *g = &t->g.regs, call = *g;
    if (!t->partial || !t->record)
        return;
    t->partial = false;
    *g = t->record->regs;
    g->orig_rax = call.orig_rax;
    g->rdi = call.rdi, g->rsi = call.rsi, g->rdx = call.rdx;
    g->r10 = call.r10, g->r8 = call.r8, g->r9 = call.r9;
}

void trap_store_state(struct thread *t, uint32_t state)
{
    struct record *r = t->record;
    __atomic_store_n(&r->state, state, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&r->sleeping, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &r->state, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Let the others on this CPU run.  Between us and a stub that is microseconds; where somebody else computes it is a
 * time slice, and a sleeper comes back sooner than who yields.  False where nobody ran: a stub that has computed for long
 * does not get the CPU before we have used it for as long; a sleeper gives it up at once. */
bool trap_yield(struct engine *e)
{
    uint64_t before = ticks(), now;
    sched_yield();
    now = ticks();
    if (now - before < IN_VAIN_NS * e->ticks_per_us / 1000)
        return false;
    if (now - before < CROWDED_NS * e->ticks_per_us / 1000 || place_check(e, now))
        return true;
    place_unsettle(e);
    e->crowded_until = now + CROWDED_FOR_NS * e->ticks_per_us / 1000;
    e->shared->crowded = 1;
    return true;
}

/* How long a tick is, and from there how long to spin. */
static void measure_ticks(struct engine *e)
{
    uint64_t start = now_ns(), first = ticks(), now;
    do
        now = now_ns();
    while (now - start < 200000);
    e->ticks_per_us = (ticks() - first) * 1000 / (now - start);
}

static int resume_served(struct engine *e, struct guest_thread *g);

int trap_init(struct engine *e)
{
    const unsigned long fsgsbase = 2; /* HWCAP2_FSGSBASE: since Linux 5.9, where the CPU has it */
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = BELL_TOKEN};
    if (!(getauxval(AT_HWCAP2) & fsgsbase))
        return -EOPNOTSUPP;
    e->one_cpu = sched_getaffinity(0, sizeof e->everywhere, &e->everywhere) < 0 || CPU_COUNT(&e->everywhere) == 1;
    e->cpus = e->one_cpu ? 1 : (uint32_t)CPU_COUNT(&e->everywhere);
    measure_ticks(e);
    if (epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, e->bell, &event) < 0)
        return -errno;
    e->resume = resume_served;
    e->spin = SPIN_LEAST_NS * e->ticks_per_us / 1000;
    e->shared->spin = STUB_SPIN_NS * e->ticks_per_us / 1000;
    return 0;
}

/* Notifications are looked for in the loop, too: of threads that were let go with an order. */
int trap_listen(struct engine *e)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = LISTENER_TOKEN};
    return epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, e->listener, &event) < 0 ? -errno : 0;
}

/* Does a thread ask for what its last order is lent? */
static void hear(struct engine *e)
{
    struct pollfd listener = {.fd = e->listener, .events = POLLIN};
    const struct timespec zero = {0, 0};
    if (ppoll(&listener, 1, &zero, NULL) > 0 && listener.revents & POLLIN)
        notify_serve(e, NULL);
}

static bool may_ask(const struct thread *t)
{
    return t->parting.kind && t->parting.fd >= 0;
}

/* Let the thread run on as its record says: RECORD_RUN, RECORD_ANSWER or RECORD_PARTING. */
static void go(struct engine *e, struct thread *t, uint32_t state)
{
    if (!e->pinned)
        place_away(e, t);
    t->resumed_at = ticks();
    trap_store_state(t, state);
    thread_set_running(e, t);
    e->spin_until = t->resumed_at + e->spin;
}

int trap_resume(struct engine *e, struct guest_thread *g)
{
    struct thread *t = of_guest(g);
    if (g->state == THREAD_DEAD) {
        thread_set_ready(e, t, ENGINE_DEAD);
        return 0;
    }
    if (g->state != THREAD_STOPPED || !t->record)
        return -EINVAL;
    regs_sanitize(&t->record->regs, &g->regs);
    t->record->out_size = 0;
    t->record->kick = 0; /* the kernel has looked at what it was for */
    go(e, t, RECORD_RUN);
    return 0;
}

void trap_no_longer_kicked(struct engine *e, struct thread *t)
{
    t->kicked = false;
    if (t->kicked_at) {
        t->kicked_at = 0;
        e->kicked_count--;
    }
}

/* Behind our back: its process may live on. */
static void ended_itself(struct engine *e, struct thread *t)
{
    trap_no_longer_kicked(e, t);
    thread_set_ready(e, t, ENGINE_DEAD);
}

int trap_kick(struct engine *e, struct guest_thread *g)
{
    struct thread *t = of_guest(g);
    if (g->state == THREAD_PARKED)
        parking_interrupt(e, t);
    if (g->state != THREAD_RUNNING)
        return 0;
    t->kicked = true;
    /* One that is under way does for all.  A flood of them would nest on the stack of a thread that gets no CPU but
     * for the kernel's part of each. */
    if (t->kicked_at)
        return 0;
    t->kicked_at = now_ns();
    t->kicks = 0;
    e->kicked_count++;
    if (syscall(SYS_tgkill, g->tgid, g->pid, KICK_SIGNAL) < 0 && errno == ESRCH)
        ended_itself(e, t);
    return 0;
}

/* Kicks that nobody answers. */
static void check_kicked(struct engine *e)
{
    uint64_t now = now_ns();
    struct link *l, *next;
    for (l = e->running.next; l != &e->running; l = next) {
        struct thread *t = of_link(l);
        next = l->next;
        if (!t->kicked_at || now - t->kicked_at < KICK_AGAIN_NS)
            continue;
        t->kicked_at = now;
        if (++t->kicks > KICKS_DEADLY + e->running_count / 8) /* among many it may wait long for a CPU */
            kill(t->g.tgid, SIGKILL);
        else if (syscall(SYS_tgkill, t->g.tgid, t->g.pid, KICK_SIGNAL) < 0 && errno == ESRCH)
            ended_itself(e, t);
    }
}

/* The line of a plain call.  Whoever was interrupted for it left the rest of the registers in a frame: that took long
 * anyway. */
static bool read_call(struct thread *t)
{
    const volatile struct record *r = t->record; /* each field is read once */
    struct guest_regs *g = &t->g.regs;
    uint32_t nr = r->nr;
    t->in_size = r->in_size;
    t->probed_size = r->probed_size;
    if (r->path != PATH_DIRECT || nr == NR_OTHER)
        return false;
    g->orig_rax = nr;
    g->rdi = r->args[0], g->rsi = r->args[1], g->rdx = r->args[2];
    g->r10 = r->args[3], g->r8 = r->args[4], g->r9 = r->args[5];
    t->partial = true;
    return true;
}

/* The thread has trapped: copy what it says, once.  ENGINE_*. */
static int read_trap(struct thread *t)
{
    const volatile struct record *r = t->record;
    struct guest_thread *g = &t->g;
    const uint32_t kind = r->kind;
    if (kind == ENGINE_COPY_FAULT) {
        /* A fast path's result could not be delivered.  g->regs are still those of the call. */
        if (!t->delivering)
            return ENGINE_KICKED;
        return ENGINE_COPY_FAULT;
    }
    if (kind == ENGINE_SYSCALL && read_call(t))
        return ENGINE_SYSCALL;
    t->partial = false;
    g->regs = r->regs;
    if (kind == ENGINE_REFUSED)
        return t->parting.kind ? ENGINE_REFUSED : ENGINE_KICKED;
    if (kind == ENGINE_FAULT) {
        g->signo = r->signo;
        g->code = r->code;
        g->addr = r->addr;
        g->trapno = r->trapno;
        g->error = r->error;
        if (g->signo != SIGSEGV && g->signo != SIGBUS && g->signo != SIGFPE && g->signo != SIGILL &&
            g->signo != SIGTRAP)
            return ENGINE_KICKED;
        return ENGINE_FAULT;
    }
    return kind == ENGINE_SYSCALL || kind == ENGINE_SITE ? (int)kind : ENGINE_KICKED;
}

/* Whether the call site has trapped so often by now that Python should try to patch it. */
static bool is_hot(struct thread *t)
{
    return t->g.patches && t->record->path == PATH_SIGNAL && patch_trap(t->g.patches, t->g.regs.rip - 2) == 1;
}

/* A fast path has served the call, which changes rax alone. */
static int resume_served(struct engine *e, struct guest_thread *g)
{
    struct thread *t = of_guest(g);
    if (g->state == THREAD_DEAD) { /* it died of an order that the fast path gave */
        thread_set_ready(e, t, ENGINE_DEAD);
        return 0;
    }
    t->record->result = (int64_t)g->regs.rax;
    if (!t->delivering)
        t->record->out_size = 0;
    g->regs.rax = g->regs.orig_rax; /* in case that the delivery fails */
    go(e, t, t->parting.kind ? RECORD_PARTING : RECORD_ANSWER);
    return 0;
}

/* A fast path has changed all registers. */
static void jump(struct engine *e, struct thread *t)
{
    if (t->g.state == THREAD_DEAD) {
        thread_set_ready(e, t, ENGINE_DEAD);
        return;
    }
    regs_sanitize(&t->record->regs, &t->g.regs);
    if (!t->delivering)
        t->record->out_size = 0;
    t->record->kick = 0; /* no kick was under way */
    go(e, t, RECORD_RUN);
}

/* A fast path may serve it: then it is already running again.  Not after a kick, which go() would forget. */
static void take(struct engine *e, struct thread *t, bool fast)
{
    int kind = read_trap(t), verdict;
    bool kicked = t->kicked_at != 0;
    if (kind == ENGINE_REFUSED) {
        t->g.regs.rax = (uint64_t)fast_mm_refused(e, t, t->record->last_result);
        kind = ENGINE_KICKED;
    }
    t->parting.kind = PART_NONE;
    if (kind == ENGINE_SITE && !(fast && is_hot(t))) {
        e->running_count--;
        t->record->out_size = 0;
        go(e, t, RECORD_RUN);
        return;
    }
    if (kind == ENGINE_SITE || (kind == ENGINE_SYSCALL && is_hot(t))) {
        t->g.code = kind == ENGINE_SYSCALL;
        kind = ENGINE_SITE;
    }
    if (kind == ENGINE_COPY_FAULT) {
        kind = ENGINE_SYSCALL;
        if (t->final) {
            /* The stub had found the memory there: another thread has unmapped it since. */
            thread_whole_regs(t);
            t->g.regs.rax = (uint64_t)-EFAULT;
            kind = ENGINE_KICKED;
        }
        if (t->final && !kicked) {
            e->running_count--;
            resume_served(e, &t->g);
            return;
        }
    } else if (kind == ENGINE_SYSCALL && fast && !kicked) {
        verdict = fast_trap(e, t);
        if (verdict == FAST_DONE || verdict == FAST_PARK)
            place_served(e, t);
        if (verdict == FAST_DONE) {
            e->running_count--;
            resume_served(e, &t->g);
            return;
        }
        if (verdict == FAST_JUMP) {
            e->running_count--;
            jump(e, t);
            return;
        }
        if (verdict == FAST_PARK) {
            trap_store_state(t, RECORD_PARKED);
            return;
        }
    }
    t->delivering = false;
    thread_whole_regs(t);
    place_slow(t);
    trap_no_longer_kicked(e, t);
    thread_set_ready(e, t, kind);
}

/* Threads that are running, and not asleep in the host's kernel. */
struct awake {
    bool any;
    bool asks;     /* one of them will ask for a descriptor */
    bool beside;   /* one of them on our CPU */
    uint32_t away; /* how many anywhere */
};

/* Look at every running thread once. */
static struct awake scan(struct engine *e)
{
    struct link *l, *next;
    struct awake awake = {0};
    for (l = e->running.next; l != &e->running; l = next) {
        struct thread *t = of_link(l);
        next = l->next;
        if (__atomic_load_n(&t->record->state, __ATOMIC_ACQUIRE) == RECORD_TRAPPED)
            take(e, t, true);
        if (t->g.state == THREAD_RUNNING && !t->record->blocked) {
            awake.any = true;
            awake.asks = awake.asks || (may_ask(t) && !t->parting.lent);
            awake.beside = awake.beside || trap_is_beside(e, t);
            awake.away += t->spread;
        }
        /* A fast path that waited for its stub may have seen another one die: the rest is for the next scan. */
        if (next != &e->running && of_link(next)->g.state != THREAD_RUNNING)
            break;
    }
    return awake;
}

/* Stop a running thread and wait for it; its stop is reported by engine_wait as any other. */
int trap_stop(struct engine *e, struct guest_thread *g)
{
    struct thread *t = of_guest(g);
    trap_kick(e, g);
    while (g->state == THREAD_RUNNING) {
        /* A thread that traps only to be let go on again is not at rest: it is kicked as any other. */
        if (__atomic_load_n(&t->record->state, __ATOMIC_ACQUIRE) == RECORD_TRAPPED)
            take(e, t, false);
        if (g->state != THREAD_RUNNING)
            break;
        if (may_ask(t))
            hear(e);
        check_kicked(e);
        trap_collect_deaths(e);
        sched_yield();
    }
    return g->state == THREAD_STOPPED ? 0 : -ESRCH;
}

/* The loop. */

static void drain_bell(struct engine *e)
{
    uint64_t count;
    if (read(e->bell, &count, sizeof count) < 0) {
        /* rung by nobody: fine */
    }
}

/* Descriptors that are ready, without the bell. */
static int look(struct engine *e, struct engine_event *events, int room, int64_t nap)
{
    struct epoll_event fds[FD_BATCH];
    int i, n, count = 0;
    n = epoll_nap(e, fds, room < FD_BATCH ? room : FD_BATCH, nap);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    for (i = 0; i < n; i++) {
        if (fds[i].data.u64 == BELL_TOKEN)
            drain_bell(e);
        else if (fds[i].data.u64 == LISTENER_TOKEN && fds[i].events & EPOLLIN)
            notify_serve(e, NULL);
        else if (fds[i].data.u64 == LISTENER_TOKEN) /* all stubs are dead */
            epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, e->listener, NULL);
        else
            events[count++] =
                (struct engine_event){.what = EVENT_FD, .token = fds[i].data.u64, .events = fds[i].events};
    }
    return count;
}

/* To be woken costs both sides as much as hundreds of calls.  Whoever slept for a moment only had better waited awake, and
 * does so next time; as KVM does for a halted guest (Documentation/virt/kvm/halt-polling.rst). */
static void adapt_spin(struct engine *e, uint64_t slept)
{
    const uint64_t us = e->ticks_per_us;
    if (slept < SPIN_MOST_NS * us / 1000)
        e->spin = e->spin * 2 < SPIN_MOST_NS * us / 1000 ? e->spin * 2 : SPIN_MOST_NS * us / 1000;
    else if (slept > LONG_SLEEP_NS * us / 1000)
        e->spin = e->spin / 2 > SPIN_LEAST_NS * us / 1000 ? e->spin / 2 : SPIN_LEAST_NS * us / 1000;
}

static int sleep_until(struct engine *e, struct engine_event *events, int room, uint64_t deadline, bool endless)
{
    int64_t nap = -1, parked;
    int n;
    uint64_t now, start;
    __atomic_store_n(&e->shared->sleeping, 1, __ATOMIC_SEQ_CST);
    scan(e);
    if (engine_has_rest(e) || parking_nap() == 0) {
        __atomic_store_n(&e->shared->sleeping, 0, __ATOMIC_RELEASE);
        return 0;
    }
    parked = parking_nap();
    if (!endless || e->kicked_count || parked >= 0 || place_wants_check(e)) {
        now = now_ns();
        nap = endless ? INT64_MAX : deadline > now ? (int64_t)(deadline - now) : 0;
        if (parked >= 0 && nap > parked)
            nap = parked;
        if (e->kicked_count && nap > (int64_t)KICK_AGAIN_NS)
            nap = (int64_t)KICK_AGAIN_NS;
        if (nap > (int64_t)AWAY_NS && place_wants_check(e))
            nap = (int64_t)AWAY_NS;
    }
    start = ticks();
    n = look(e, events, room, nap);
    __atomic_store_n(&e->shared->sleeping, 0, __ATOMIC_RELEASE);
    adapt_spin(e, ticks() - start);
    if (e->kicked_count)
        check_kicked(e);
    place_check(e, ticks());
    return n;
}

int trap_wait(struct engine *e, int64_t timeout_ns, struct engine_event *events, int max)
{
    bool endless = timeout_ns < 0;
    uint64_t deadline = timeout_ns > 0 ? now_ns() + (uint64_t)timeout_ns : 0;
    uint64_t next_look = e->next_look;
    int room = max / 2, n = 0, vain = 0;
    if (room < 1)
        return -EINVAL;
    for (;;) {
        struct awake awake = scan(e);
        uint32_t served = e->served;
        uint64_t now = ticks();
        parking_run(e);
        if (awake.asks)
            hear(e);
        bool due = now >= next_look;
        if (e->shared->overloaded != (awake.away >= e->cpus))
            e->shared->overloaded = awake.away >= e->cpus;
        if (due || timeout_ns == 0) {
            n = look(e, events, room, 0);
            trap_collect_deaths(e);
            if (e->kicked_count)
                check_kicked(e);
            place_check(e, now);
            e->next_look = next_look = now + LOOK_NS * e->ticks_per_us / 1000;
        }
        if (n < 0)
            return n;
        if (n > 0 || engine_has_report(e) || timeout_ns == 0)
            break;
        if (due && !endless && now_ns() >= deadline)
            break;
        if (served != e->served)
            continue; /* by parking_run: what it let go is running */
        if (e->shared->crowded && now >= e->crowded_until) {
            e->shared->crowded = 0;
            place_settle(e);
        }
        if (!awake.any || awake.away >= e->cpus || now >= e->spin_until ||
            (awake.beside && (e->shared->crowded || vain == YIELDS))) {
            vain = 0;
            n = sleep_until(e, events, room, deadline, endless);
            if (n < 0)
                return n;
            trap_collect_deaths(e);
            if (n > 0 || engine_has_rest(e) || (!endless && now_ns() >= deadline))
                break;
            /* The bell: whoever rang is likely to ring again soon. */
            e->spin_until = ticks() + e->spin;
        } else if (awake.beside) {
            vain = trap_yield(e) ? 0 : vain + 1;
        } else {
            __builtin_ia32_pause();
        }
    }
    return n + engine_report(e, events + n, max - n);
}
