/* Answers without the Sentry: what the caller could know anyway, and what concerns its own memory only. */
#include "inside.h"

#define EINTR 4
#define ENOSYS 38
#define RLIM_NLIMITS 16
#define ROBUST_HEAD_SIZE 24
#define GETRANDOM_MAX 256
#define ARCH_SET_FS 0x1002
#define USER_END 0x7ffffffff000
#define CLOCK_REALTIME 0
#define CLOCK_MONOTONIC 1
#define CLOCK_MONOTONIC_RAW 4
#define CLOCK_REALTIME_COARSE 5
#define CLOCK_MONOTONIC_COARSE 6
#define CLOCK_BOOTTIME 7
#define CLOCK_TAI 11
#define FUTEX_CLOCK_REALTIME 256
#define FUTEX_PRIVATE 128

/* rt_sigprocmask(how, set, old, 8); false: the kernel has to do it. */
static bool do_sigprocmask(struct record *r, int64_t *result)
{
    uint64_t mask = r->hot.sigmask, old = mask, bits;
    struct guest_regs *g = &r->regs;
    if (g->r10 != 8)
        return false;
    if (g->rsi) {
        if (copy_in(&bits, g->rsi, 8))
            return false;
        bits &= ~UNBLOCKABLE;
        switch ((int32_t)g->rdi) {
        case 0:
            mask |= bits;
            break;
        case 1:
            mask &= ~bits;
            break;
        case 2:
            mask = bits;
            break;
        default:
            return false;
        }
    }
    if (signals_wait(r, mask))
        return false;
    if (g->rdx && copy_out(g->rdx, &old, 8))
        return false;
    if (mask != old) {
        r->hot.sigmask = mask;
        fence(); /* the engine stores `pending`, fences, and reads the mask: one of us sees the other */
        if (signals_wait(r, mask)) {
            r->hot.sigmask = old;
            return false;
        }
    }
    *result = 0;
    return true;
}

/* rt_sigaction(signo, new, old, 8): the engine looks for what has changed when it wants to know.  What a signal that
 * is pending makes of it is for the kernel. */
static bool do_sigaction(struct record *r, int64_t *result)
{
    const struct guest_regs *g = &r->regs;
    int32_t signo = (int32_t)g->rdi;
    struct signal_action new;
    if (!get(&r->actions_known) || g->r10 != 8 || signo < 1 || signo > 64)
        return false;
    if (g->rsi) {
        if (SIGNALS_UNBLOCKABLE & SIGNAL_BIT(signo) || copy_in(&new, g->rsi, sizeof new))
            return false;
        new.flags &= FLAGS_KNOWN;
        new.mask &= ~SIGNALS_UNBLOCKABLE;
        if (r->hot.pending & SIGNAL_BIT(signo))
            return false;
    }
    if (g->rdx && copy_out(g->rdx, r->actions + signo, sizeof new))
        return false;
    if (g->rsi) {
        r->actions[signo] = new;
        __atomic_fetch_or(&r->actions_changed, SIGNAL_BIT(signo), __ATOMIC_SEQ_CST);
    }
    *result = 0;
    return true;
}

struct timespec {
    int64_t sec, nsec;
};

/* By the vDSO, as long as it is where it was: it lies in the guest's memory.  If it is torn away meanwhile, the
 * fault ends up in stub_abandoned; if it wants to make a system call, that fails (stub_signal). */
static bool read_clock(uint32_t clock, struct timespec *now)
{
    int64_t (*function)(uint64_t, void *) = (int64_t (*)(uint64_t, void *))shared->clock_gettime;
    return function && stub_is_code(shared->clock_gettime, shared->clock_gettime_code) == 1 &&
           function(clock, now) == 0;
}

/* Clocks that are the same for everybody. */
static bool do_clock_gettime(struct record *r, int64_t *result)
{
    const uint32_t everybodys = 1 << CLOCK_REALTIME | 1 << CLOCK_MONOTONIC | 1 << CLOCK_MONOTONIC_RAW |
                                1 << CLOCK_REALTIME_COARSE | 1 << CLOCK_MONOTONIC_COARSE | 1 << CLOCK_BOOTTIME |
                                1 << CLOCK_TAI;
    uint32_t clock = (uint32_t)r->regs.rdi;
    struct timespec now;
    if (clock >= 32 || !(everybodys & 1u << clock) || !read_clock(clock, &now) ||
        copy_out(r->regs.rsi, &now, sizeof now))
        return false;
    *result = 0;
    return true;
}

static bool do_gettimeofday(struct record *r, int64_t *result)
{
    const uint64_t utc = 0; /* struct timezone */
    struct timespec now;
    if (!read_clock(CLOCK_REALTIME, &now))
        return false;
    now.nsec = (int64_t)((uint64_t)now.nsec / 1000);
    if (r->regs.rdi && copy_out(r->regs.rdi, &now, sizeof now))
        return false;
    if (r->regs.rsi && copy_out(r->regs.rsi, &utc, sizeof utc))
        return false;
    *result = 0;
    return true;
}

/* Linux tells the second of the last tick, which may still be the one before. */
static bool do_time(struct record *r, int64_t *result)
{
    struct timespec now;
    if (!read_clock(CLOCK_REALTIME_COARSE, &now) || (r->regs.rdi && copy_out(r->regs.rdi, &now.sec, sizeof now.sec)))
        return false;
    *result = now.sec;
    return true;
}

/* Futexes are the host's: shared memory is shared there, too, so its waiters and wakers meet by the same page. */
static bool do_futex(struct record *r, int64_t *result)
{
    struct guest_regs *g = &r->regs;
    uint32_t op = (uint32_t)g->rsi, command = op & ~(uint32_t)(FUTEX_PRIVATE | FUTEX_CLOCK_REALTIME);
    bool waits = command == 0 || command == 9;
    if (r->hot.known & 1u << HOT_OWN_FUTEXES || command > 10 || command == 2 || (command >= 6 && command <= 8))
        return false;
    if (waits)
        r->blocked = 1;
    /* A waker does not sleep: no kick may keep it from what it does, since nothing would do it again. */
    *result = waits ? stub_futex(r, g->rdi, g->rsi, g->rdx, g->r10, g->r8, g->r9)
                    : host_call(NR_futex, g->rdi, g->rsi, g->rdx, g->r10, g->r8, g->r9);
    r->blocked = 0;
    if (waits && *result == -EINTR) {
        r->hot.passes = PASS_BEGUN;
        return false;
    }
    return true;
}

static bool answer_id(struct record *r, int which, int64_t *result)
{
    if (!(r->hot.known & 1u << which))
        return false;
    *result = r->hot.ids[which];
    return true;
}

static bool do_tell(struct record *r, uint64_t *where, int64_t *result, int64_t value)
{
    if (!(r->hot.known & 1u << HOT_TELL))
        return false;
    *where = r->regs.rdi;
    *result = value;
    return true;
}

/* getrlimit(resource, old) and prlimit64(0, resource, NULL, old). */
static bool do_limit(struct record *r, uint64_t resource, uint64_t to, int64_t *result)
{
    resource = (uint32_t)resource;
    if (!(r->hot.known & 1u << HOT_LIMITS) || resource >= RLIM_NLIMITS || !to ||
        copy_out(to, r->hot.limits + 2 * resource, 16))
        return false;
    *result = 0;
    return true;
}

/* A few bytes: more could be interrupted. */
static bool do_getrandom(const struct record *r, int64_t *result)
{
    const struct guest_regs *g = &r->regs;
    if (g->rsi > GETRANDOM_MAX || !is_guests(g->rdi, g->rsi))
        return false;
    *result = host_call(NR_getrandom, g->rdi, g->rsi, g->rdx, 0, 0, 0);
    return *result != -EINTR;
}

static bool do_arch_prctl(const struct record *r, int64_t *result)
{
    if ((uint32_t)r->regs.rdi != ARCH_SET_FS || r->regs.rsi >= USER_END)
        return false;
    __asm__ volatile("wrfsbase %0" ::"r"(r->regs.rsi));
    *result = 0;
    return true;
}

bool answer(struct record *r, int64_t *result)
{
    const struct guest_regs *g = &r->regs;
    if (g->orig_rax == NR_futex)
        fence(); /* who waits in the Sentry has said so before it looked at the word that we have changed */
    if (is_forced(r, g->orig_rax))
        return false;
    switch (r->regs.orig_rax) {
    case NR_getpid:
        return answer_id(r, HOT_PID, result);
    case NR_gettid:
        return answer_id(r, HOT_TID, result);
    case NR_getppid:
        return answer_id(r, HOT_PPID, result);
    case NR_getuid:
        return answer_id(r, HOT_UID, result);
    case NR_geteuid:
        return answer_id(r, HOT_EUID, result);
    case NR_getgid:
        return answer_id(r, HOT_GID, result);
    case NR_getegid:
        return answer_id(r, HOT_EGID, result);
    case NR_rt_sigprocmask:
        return r->hot.known & 1u << HOT_SIGMASK && do_sigprocmask(r, result);
    case NR_rt_sigaction:
        return do_sigaction(r, result);
    case NR_sched_yield:
        *result = host_call(NR_sched_yield, 0, 0, 0, 0, 0, 0);
        return true;
    case NR_clock_gettime:
        return do_clock_gettime(r, result);
    case NR_gettimeofday:
        return do_gettimeofday(r, result);
    case NR_time:
        return do_time(r, result);
    case NR_futex:
        r->hot.passes = 0; /* whoever let a call pass believed it to be forced */
        return do_futex(r, result);
    case NR_set_tid_address:
        return do_tell(r, &r->hot.clear_tid, result, r->hot.ids[HOT_TID]);
    case NR_set_robust_list:
        return g->rsi == ROBUST_HEAD_SIZE && do_tell(r, &r->hot.robust_list, result, 0);
    case NR_getrlimit:
        return do_limit(r, g->rdi, g->rsi, result);
    case NR_prlimit64:
        return !(uint32_t)g->rdi && !g->rdx && do_limit(r, g->rsi, g->r10, result);
    case NR_getrandom:
        return do_getrandom(r, result);
    case NR_arch_prctl:
        return do_arch_prctl(r, result);
    case NR_rseq:
        *result = -ENOSYS;
        return true;
    }
    return false;
}

bool answer_passed(struct record *r, int64_t *result)
{
    if (r->regs.orig_rax != NR_futex || r->hot.passes != PASS_ONCE)
        return false;
    r->hot.passes = PASS_BEGUN;
    if (!do_futex(r, result))
        return false;
    r->hot.passes = 0;
    return true;
}
