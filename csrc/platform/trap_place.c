/* Which CPU a stub runs on, on the `trap` platform.
 *
 * Waking a sleeper on another CPU costs as much as hundreds of system calls, and programs that are started, fork, wait
 * and end make the Sentry and its stubs sleep and wake for each other all the time.  So they share one CPU to begin
 * with (home), where a hand-over is a context switch.  That is wrong for a guest that has work of its own:
 *
 *   - a thread that runs for AWAY_NS without a trap may use every CPU (it is spread), and so may one that sleeps in the
 *     host's kernel, since nobody would see it wake;
 *   - so may one whose calls are mostly answered by the engine at once: with a CPU for each, both spin; the host moves
 *     it back to us when we wake it, so this happens again and again;
 *   - a thread that forks comes home, and its child starts there.
 *
 * The Sentry stays at home.  When somebody else wants that CPU, too (trap_yield), nobody is bound to any CPU for a
 * while.  Failures of sched_setaffinity are ignored: it is only an optimisation.
 */
#include "trap.h"

#define BURST 200
#define SLOW 24

/* Home is where the Sentry first happens to run. */
void place_settle(struct engine *e)
{
    int cpu = sched_getcpu();
    if (e->pinned || e->one_cpu || cpu < 0 || cpu >= CPU_SETSIZE)
        return;
    if (CPU_COUNT(&e->home) == 0)
        CPU_SET(cpu, &e->home);
    e->pinned = sched_setaffinity(0, sizeof e->home, &e->home) == 0;
}

/* The home CPU is not ours alone. */
void place_unsettle(struct engine *e)
{
    if (e->pinned)
        e->pinned = sched_setaffinity(0, sizeof e->everywhere, &e->everywhere) != 0;
}

void place_away(struct engine *e, struct thread *t)
{
    t->burst = 0;
    if (e->one_cpu || (t->spread && !(e->pinned && trap_is_beside(e, t))))
        return;
    t->spread = true;
    if (e->pinned) { /* who is merely allowed to leave stays until the scheduler balances */
        cpu_set_t others;
        CPU_XOR(&others, &e->everywhere, &e->home);
        sched_setaffinity(t->g.pid, sizeof others, &others);
    }
    sched_setaffinity(t->g.pid, sizeof e->everywhere, &e->everywhere);
}

void place_home(struct engine *e, struct thread *t)
{
    if (e->pinned && t->spread)
        t->spread = sched_setaffinity(t->g.pid, sizeof e->home, &e->home) != 0;
}

/* It has booted beside us; all stubs come from it. */
void place_zygote(struct engine *e, struct guest_thread *zygote)
{
    struct thread *t = of_guest(zygote);
    place_settle(e);
    t->spread = true;
    place_home(e, t);
}

/* A call of its was answered at once. */
void place_served(struct engine *e, struct thread *t)
{
    if (++t->burst >= BURST)
        place_away(e, t);
}

/* A call of its goes to Python, which takes as long as many others. */
void place_slow(struct thread *t)
{
    t->burst = t->burst > SLOW ? t->burst - SLOW : 0;
}

/* Send away who has run for long; whether there was anybody. */
bool place_check(struct engine *e, uint64_t now)
{
    struct link *l;
    bool found = false;
    if (e->one_cpu)
        return false;
    for (l = e->running.next; l != &e->running; l = l->next) {
        struct thread *t = of_link(l);
        if (t->spread || now - t->resumed_at < AWAY_NS * e->ticks_per_us / 1000)
            continue;
        place_away(e, t);
        found = true;
    }
    return found;
}

/* Whether place_check has to come again. */
bool place_wants_check(const struct engine *e)
{
    struct link *l;
    if (e->one_cpu)
        return false;
    for (l = e->running.next; l != &e->running; l = l->next)
        if (!of_link(l)->spread)
            return true;
    return false;
}
