/* How many bytes get to the guest on `trap`: through the record's window, or by process_vm_writev.
 *
 * The window is the quicker way by far where both CPUs share their caches, being two threads of one
 * core.  Where they do not, each of its lines goes over twice, which for 64 KiB takes four times as
 * long as the host's copy.  Which of the two it is nobody tells a virtual machine, and it changes
 * when its host moves a CPU.  So both are timed, the one that is not used now and then.  The stub
 * has as much work with the window as we have.
 */
#include "fast.h"
#include "record.h"

#define TRY_EVERY 128 /* calls */
#define WEIGHT 8      /* of what was before, less one */

static uint32_t turn;
static uint64_t window_cost, direct_cost; /* ticks a KiB, times WEIGHT; 0: not known */
static uint64_t started;                  /* 0: not to be timed */

static bool by_window(const struct engine *e)
{
    return !e->shared->far;
}

bool call_is_far(const struct call *c, uint32_t size)
{
    const uint32_t odd = turn % TRY_EVERY;
    bool window;
    if (!c->t->record || size < RECORD_FAR_SIZE)
        return false;
    window = by_window(c->e);
    /* Only at the second time are the window's lines where the stub has used them. */
    if (odd == 0 || (odd == 1 && !window))
        window = !window;
    started = window && !by_window(c->e) && odd == 0 ? 0 : __builtin_ia32_rdtsc();
    turn++;
    return !window;
}

void call_came(const struct call *c, uint32_t size, bool far)
{
    uint64_t *cost = far ? &direct_cost : &window_cost, took;
    if (!started || !c->t->record || size < RECORD_FAR_SIZE)
        return;
    took = (__builtin_ia32_rdtsc() - started) * 1024 / size;
    started = 0;
    *cost = *cost ? *cost - *cost / WEIGHT + took : took * WEIGHT;
    if (direct_cost && window_cost)
        c->e->shared->far = direct_cost < 2 * window_cost;
}
