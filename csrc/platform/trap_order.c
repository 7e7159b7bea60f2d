/* Orders: what a stub's thread does for the Sentry while the Sentry owns it.
 *
 * The engine writes the order into the thread's record and waits for the answer; the stub is most often still
 * spinning and answers at once.  Calls that the stub's filter reports (a clone, mremap, asking for a file to be mapped) are
 * reported on the way (notify.c).
 *
 * A stub that does not answer is killed: its memory may have been overwritten by its own program.
 */
#include "trap.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NS 100000ull
#define YIELDS 24
#define ERRNO_MOST 4095
#define VAIN 3 /* yields that nobody took */
#define NAP_NS 20000000l
/* Far more than any honest order takes: munmap of tens of gigabytes, say.  All others wait meanwhile, so whoever
 * has once met a stub that did not answer has less patience with the next. */
#define PATIENCE_NS 10000000000ull
#define LEAST_PATIENCE_NS 500000000ull
#define SLICE_NS 8000000ull /* for each thread that may want the CPU first */

static uint32_t state_of(const struct thread *t)
{
    return __atomic_load_n(&t->record->state, __ATOMIC_ACQUIRE);
}

static bool is_gone(struct engine *e, struct thread *t)
{
    trap_collect_deaths(e);
    return t->g.state == THREAD_DEAD || t->g.state == THREAD_FREE;
}

struct patience {
    uint64_t last, spent;
};

/* The time that a sandbox was frozen does not count. */
static bool is_too_long(struct engine *e, struct patience *p)
{
    uint64_t now = now_ns(), passed = now - p->last, limit = PATIENCE_NS >> e->impatience;
    p->last = now;
    p->spent += passed < 2 * NAP_NS ? passed : 2 * NAP_NS;
    if (limit < LEAST_PATIENCE_NS)
        limit = LEAST_PATIENCE_NS;
    if (p->spent < limit + e->running_count * SLICE_NS)
        return false;
    e->impatience += e->impatience < 16;
    return true;
}

/* A thread that has an order is in one of these states, or it has been tampered with. */
static bool may_answer(uint32_t state)
{
    return state == RECORD_ORDER || state == RECORD_DONE || state == RECORD_BIRTH;
}

/* Sleep a little, until `t` may have answered: 1 where nothing was heard of any stub.  `n`: a call that will be reported,
 * or has been, and is again if it was interrupted. */
static int nap(struct engine *e, struct thread *t, struct notified *n)
{
    struct pollfd listener = {.fd = e->listener, .events = POLLIN};
    const struct timespec length = {0, NAP_NS}, zero = {0, 0};
    struct record *r = t->record;
    uint32_t state;
    int ready;
    if (n) {
        ready = ppoll(&listener, 1, n->made ? &zero : &length, NULL);
        if (ready > 0)
            return listener.revents & POLLIN ? notify_serve(e, n) : -ESRCH; /* POLLHUP: all stubs are dead */
        if (!n->made)
            return 1;
    }
    __atomic_store_n(&r->engine_waits, 1, __ATOMIC_SEQ_CST);
    state = state_of(t);
    if (state == RECORD_ORDER || state == RECORD_BIRTH)
        syscall(SYS_futex, &r->state, FUTEX_WAIT, state, &length, NULL, 0);
    r->engine_waits = 0;
    return 1;
}

static bool is_done_soon(struct engine *e, struct thread *t)
{
    uint64_t end = __builtin_ia32_rdtsc() + SPIN_NS * e->ticks_per_us / 1000;
    int yields = 0, vain = 0, i;
    while (yields < YIELDS && vain < VAIN) {
        bool late = __builtin_ia32_rdtsc() >= end;
        if (late || trap_is_beside(e, t)) {
            if (e->shared->crowded)
                break;
            vain = trap_yield(e) ? 0 : vain + 1;
            yields += late;
        }
        for (i = 0; i < 16; i++) {
            if (state_of(t) == RECORD_DONE)
                return true;
            __builtin_ia32_pause();
        }
    }
    return false;
}

/* Other calls than `n`, which nobody ordered, may be reported as fast as we refuse them. */
static int await_done(struct engine *e, struct thread *t, struct notified *n)
{
    struct patience patience = {0, 0};
    uint32_t round;
    if ((!n || n->made) && is_done_soon(e, t))
        return 0;
    patience.last = now_ns();
    for (round = 1;; round++) {
        bool made = n && n->made;
        int r = nap(e, t, n);
        if (r < 0)
            return r;
        if (n && n->made && !made)
            return await_done(e, t, n);
        if (state_of(t) == RECORD_DONE)
            return 0;
        if ((r || round % 16 == 0) && is_gone(e, t))
            return -ESRCH;
        if (!may_answer(state_of(t)) || is_too_long(e, &patience)) {
            kill(t->g.tgid, SIGKILL);
            return -ESRCH;
        }
    }
}

int trap_await_done(struct engine *e, struct thread *t)
{
    return await_done(e, t, NULL);
}

static int give(struct thread *t, uint64_t nr, const uint64_t args[6], uint32_t lends)
{
    struct record *r = t->record;
    if (t->g.state != THREAD_STOPPED || !r)
        return t->g.state == THREAD_RUNNING ? -EBUSY : -ESRCH;
    if (nr > UINT16_MAX)
        return -ENOSYS; /* as the host's kernel would say */
    r->nr = (uint16_t)nr;
    r->lends = lends;
    memcpy(r->args, args, sizeof r->args);
    trap_is_beside(t->engine, t);
    trap_store_state(t, RECORD_ORDER);
    return 0;
}

/* The guest can write there: what is negative and no errno would turn into anything where an int is made of it. */
int64_t trap_result(const struct thread *t)
{
    int64_t r = *(const volatile int64_t *)&t->record->result;
    return r < -ERRNO_MOST ? -EPERM : r;
}

int64_t trap_order(struct engine *e, struct thread *t, uint64_t nr, const uint64_t args[6])
{
    int r = give(t, nr, args, 0);
    if (r == 0)
        r = trap_await_done(e, t);
    return r < 0 ? r : trap_result(t);
}

/* A kick that was sent before the thread trapped may arrive only now, and interrupt it: again. */
int64_t trap_notified_order(struct engine *e, struct thread *t, uint64_t nr, const uint64_t args[6],
                            struct notified *n)
{
    int tries = 0;
    int64_t r;
    do {
        n->made = false;
        r = give(t, nr, args, n->fd_count);
        if (r == 0)
            r = await_done(e, t, n);
        if (r == 0)
            r = trap_result(t);
    } while (r == -EINTR && tries++ < 8);
    return r;
}

/* An order that may mmap `fds` as LENT_FD and so on. */
static int64_t lent_order(struct engine *e, struct thread *t, uint64_t nr, const uint64_t args[6], const int *fds,
                          uint32_t count)
{
    struct notified lend = {
        .pid = t->g.pid, .nr = SYS_close, .args = {LEND_TOKEN}, .fds = fds, .fd_count = count};
    return trap_notified_order(e, t, nr, args, &lend);
}

int64_t trap_syscall(struct engine *e, struct guest_thread *g, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2,
                     uint64_t a3, uint64_t a4, uint64_t a5)
{
    const uint64_t args[6] = {a0, a1, a2, a3, a4, a5};
    if (nr == SYS_mremap) {
        struct notified n = {.pid = g->pid, .nr = SYS_mremap};
        memcpy(n.args, args, sizeof n.args);
        return trap_notified_order(e, of_guest(g), SYS_mremap, args, &n);
    }
    return trap_order(e, of_guest(g), nr, args);
}

/* The answer comes by way of the window.  Where that is, the thread says: at worst it writes to its own memory. */
int trap_ask(struct engine *e, struct guest_thread *g, uint64_t nr, uint64_t what, void *buffer, uint32_t size)
{
    struct thread *t = of_guest(g);
    int64_t r;
    if (g->state != THREAD_STOPPED || !t->record || size > RECORD_WINDOW_SIZE)
        return -EINVAL;
    r = trap_order(e, t, nr, (uint64_t[6]){what, t->record->self + RECORD_WINDOW});
    if (r)
        return r < 0 ? (int)r : -EPERM;
    memcpy(buffer, (const uint8_t *)t->record + RECORD_WINDOW, size);
    return 0;
}

int64_t trap_cmpxchg32(struct engine *e, struct guest_thread *g, uint64_t addr, uint32_t expected, uint32_t wanted)
{
    int64_t r;
    if (addr & 3 || addr >= STUB_BASE)
        return -EFAULT;
    r = trap_order(e, of_guest(g), ORDER_CMPXCHG, (uint64_t[6]){addr, expected, wanted});
    return r == -1 ? -EFAULT : r < 0 ? r : (int64_t)(uint32_t)r;
}

int64_t trap_map_file(struct engine *e, struct guest_thread *g, uint64_t addr, uint64_t size, int prot, int flags,
                      int host_fd, uint64_t offset)
{
    int64_t r = lent_order(e, of_guest(g), SYS_mmap,
                           (uint64_t[6]){addr, size, (uint64_t)prot, (uint64_t)flags, LENT_FD, offset}, &host_fd, 1);
    return r < 0 ? r : 0;
}

/* Change code under threads that may be executing it: mprotect interrupts every processor that runs the address
 * space, and never takes away the right to execute.  Code that others may execute is one aligned word, written by one
 * store of the stub's.  More than that is code that nobody executes yet, in a page where they may execute
 * something else. */
int trap_write_code(struct engine *e, struct guest_thread *g, uint64_t addr, const void *data, uint32_t size, int prot)
{
    struct thread *t = of_guest(g);
    uint64_t first = addr & ~0xfffull, length = ((addr + size + 0xfff) & ~0xfffull) - first, word;
    uint32_t skip = addr & 7;
    int64_t r;
    if (skip + size <= 8) {
        if (memory_read(g->tgid, addr - skip, &word, 8) != 8)
            return -EFAULT;
        memcpy((uint8_t *)&word + skip, data, size);
        r = trap_order(e, t, ORDER_STORE, (uint64_t[6]){addr - skip, word, first, length, (uint64_t)prot});
        return r < 0 ? (int)r : 0;
    }
    r = trap_order(e, t, SYS_mprotect, (uint64_t[6]){first, length, PROT_READ | PROT_WRITE | PROT_EXEC});
    if (r == 0) {
        if (memory_write(g->tgid, addr, data, size) != (int64_t)size)
            r = -EFAULT;
        if (trap_order(e, t, SYS_mprotect, (uint64_t[6]){first, length, (uint64_t)prot}) == -ESRCH)
            r = -ESRCH;
    }
    return r < 0 ? (int)r : 0;
}
