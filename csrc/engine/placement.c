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
 * The check runs only while threads at home are running: an idle sandbox, and one whose running
 * threads are all spread, sleep without a timeout.  Failures of sched_setaffinity are ignored;
 * it is only an optimisation.
 */
#include "core.h"

#include <errno.h>

#define QUICK_NS 1000000ull
#define QUICK_TRAPS 4

/* Home is where the Sentry happens to run.  With one CPU there is nothing to decide. */
int placement_init(struct engine *e)
{
    int cpu = sched_getcpu();
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof e->everywhere, &e->everywhere) < 0 ||
        CPU_COUNT(&e->everywhere) < 2)
        return 0;
    CPU_ZERO(&e->home);
    CPU_SET(cpu, &e->home);
    e->pinned = sched_setaffinity(0, sizeof e->home, &e->home) == 0;
    return 0;
}

/* Called when `t` has stopped by itself. */
void placement_trapped(struct engine *e, struct thread *t)
{
    if (!t->spread)
        return;
    if (now_ns() - t->resumed_at > QUICK_NS) {
        t->quick = 0;
    } else if (++t->quick >= QUICK_TRAPS) {
        sched_setaffinity(t->g.pid, sizeof e->home, &e->home);
        t->spread = false;
        t->quick = 0;
    }
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
    if (now < e->next_check)
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
