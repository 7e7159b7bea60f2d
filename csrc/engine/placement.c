/* Which CPU a stub runs on.
 *
 * A ptrace stop is a hand-over between two processes: on one CPU it is a context switch, across
 * CPUs it is two wake-ups of a sleeping processor and costs ten times as much.  So the Sentry and
 * its stubs share one CPU (home) to begin with.  That is wrong for a guest that computes:
 *
 *   - a thread that has run for PLACEMENT_PERIOD_NS without a trap may use every CPU (spread);
 *   - a spread thread that traps QUICK_TRAPS times in a row within QUICK_NS of its resume comes
 *     home again.
 *
 * A guest that makes one system call after the other gets something better than a sleep in epoll:
 * the Sentry yields the CPU to it and looks for its stop afterwards, which saves a signal and its
 * handler per trap.  It does so only after a trap that came quickly (the guess is that the next will,
 * too; where it is wrong, a descriptor may wait for one time slice), and never for longer than
 * POLL_NS without a look at the descriptors.
 *
 * The check runs only while threads at home are running: an idle sandbox, and one whose running
 * threads are all spread, sleep without a timeout.  Failures of sched_setaffinity are ignored;
 * it is only an optimisation.
 */
#include "core.h"

#include <errno.h>
#include <sys/wait.h>

#define QUICK_NS 1000000ull
#define QUICK_TRAPS 4
#define BRISK_NS 100000ull
#define POLL_NS 200000ull

/* Home is where the Sentry happens to run.  With one CPU there is nothing to decide. */
int placement_init(struct engine *e)
{
    int cpu = sched_getcpu();
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof e->everywhere, &e->everywhere) < 0)
        return 0;
    if (CPU_COUNT(&e->everywhere) > 1) {
        CPU_ZERO(&e->home);
        CPU_SET(cpu, &e->home);
        e->pinned = sched_setaffinity(0, sizeof e->home, &e->home) == 0;
    }
    e->one_cpu = e->pinned || CPU_COUNT(&e->everywhere) == 1;
    return 0;
}

/* Called when `t` has stopped by itself. */
void placement_trapped(struct engine *e, struct thread *t)
{
    uint64_t ran = now_ns() - t->resumed_at;
    t->brisk = ran < BRISK_NS;
    if (!t->spread)
        return;
    if (ran > QUICK_NS) {
        t->quick = 0;
    } else if (++t->quick >= QUICK_TRAPS) {
        sched_setaffinity(t->g.pid, sizeof e->home, &e->home);
        t->spread = false;
        t->quick = 0;
    }
}

/* Let the only running thread run; true if there is a trap to report now. */
bool placement_try_yield(struct engine *e)
{
    struct thread *t;
    if (!e->one_cpu || e->running_count != 1 || !list_empty(&e->ready))
        return false;
    t = of_link(e->running.next);
    if (!t->brisk || t->spread || t->resumed_at - e->polled_at > POLL_NS)
        return false;
    t->brisk = false;
    sched_yield();
    ptrace_collect(e, t->g.pid, WNOHANG);
    return !list_empty(&e->ready);
}

bool placement_wants_check(const struct engine *e)
{
    struct link *l;
    if (!e->pinned)
        return false;
    for (l = e->running.next; l != &e->running; l = l->next)
        if (!of_link(l)->spread)
            return true;
    return false;
}

void placement_check(struct engine *e, uint64_t now)
{
    struct link *l;
    if (!e->pinned || now < e->next_check)
        return;
    e->next_check = now + PLACEMENT_PERIOD_NS / 2;
    for (l = e->running.next; l != &e->running; l = l->next) {
        struct thread *t = of_link(l);
        if (t->resumed_at + PLACEMENT_PERIOD_NS > now)
            break; /* the list is in order of resume */
        if (!t->spread && sched_setaffinity(t->g.pid, sizeof e->everywhere, &e->everywhere) == 0) {
            t->spread = true;
            t->quick = 0;
        }
    }
}
