/* How many bytes go between the guest and the engine on `trap`: through the record's window, or by process_vm_*.
 *
 * The window is the quicker way by far where both CPUs share their caches, being two threads of one core.  Where they
 * do not, each of its lines goes over twice, which for 64 KiB takes four times as long as the host's copy.  Which of
 * the two it is nobody tells a virtual machine, and it changes when the host moves one.  So it is measured, now and then:
 * what it costs to get some lines that the stub has used last.
 */
#include "fast.h"
#include "record.h"

#define LINE 64
#define LINES 8
#define FAR_NS 40 /* for a line; in one core it is 10, between two 100 and more */
#define PERIOD_NS 5000000ull

static enum { NEAR, FAR, TRIAL } verdict;
static uint64_t next_measure; /* ticks */

static void decide(struct engine *e, int what)
{
    verdict = what;
    __atomic_store_n(&e->shared->far, what == FAR, __ATOMIC_RELAXED);
}

static bool costs_much(const struct engine *e, uint8_t *window)
{
    uint64_t start = __builtin_ia32_rdtsc();
    for (int i = 0; i < LINES; i++)
        __atomic_fetch_or(window + i * LINE, 0, __ATOMIC_SEQ_CST);
    return __builtin_ia32_rdtsc() - start > LINES * FAR_NS * e->ticks_per_us / 1000;
}

bool call_is_far(const struct call *c, uint32_t size)
{
    struct engine *e = c->e;
    uint64_t now;
    if (!c->t->record || size < RECORD_FAR_SIZE)
        return false;
    now = __builtin_ia32_rdtsc();
    if (now >= next_measure) {
        if (verdict == FAR) {
            decide(e, TRIAL); /* the next one finds lines that the stub has used */
        } else {
            decide(e, costs_much(e, (uint8_t *)c->t->record + RECORD_WINDOW) ? FAR : NEAR);
            next_measure = now + PERIOD_NS * e->ticks_per_us / 1000;
        }
    }
    return verdict == FAR;
}
