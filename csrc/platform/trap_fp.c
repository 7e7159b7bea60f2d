/* FP state: in a signal frame it is memory of the record's stack; else it is in the thread's registers, which a stub that
 * goes to sleep has saved, or in the record, to be loaded before the thread runs on. */
#include "trap.h"

#include <errno.h>
#include <string.h>

/* Where the frame's FP area lies in the record, 0 where the guest has made nonsense of the frame. */
static uint64_t fp_area(const struct engine *e, const struct thread *t)
{
    const uint64_t fpstate_in_frame = 224;
    uint64_t frame = *(const volatile uint64_t *)&t->record->frame - t->record_at, area;
    if (frame < 0x1000 || frame > RECORD_STACK_TOP - 256 || frame & 7)
        return 0;
    area = *(const volatile uint64_t *)((char *)t->record + frame + fpstate_in_frame) - t->record_at;
    if (area < 0x1000 || area > RECORD_STACK_TOP - e->fpstate_size || area & 63)
        return 0;
    return area;
}

int trap_get_fpstate(struct guest_thread *g, void *buffer, uint32_t size)
{
    struct thread *t = of_guest(g);
    struct engine *e = t->engine;
    const char *from;
    if (g->state != THREAD_STOPPED || !t->record)
        return -ESRCH;
    if (size < e->fpstate_size)
        return -EINVAL;
    if (t->record->path == PATH_SIGNAL) {
        uint64_t area = fp_area(e, t);
        if (!area)
            return -ESRCH;
        from = (char *)t->record + area;
    } else {
        from = (char *)t->record + (t->record->fp_load ? RECORD_FP_LOAD : RECORD_FP_SAVED);
        if (!t->record->fp_load && !__atomic_load_n(&t->record->fp_saved, __ATOMIC_ACQUIRE) &&
            trap_order(e, t, ORDER_XSAVE, (uint64_t[6]){0}) < 0)
            return -ESRCH;
    }
    memcpy(buffer, from, e->fpstate_size);
    memcpy((char *)buffer + XSTATE_SOFTWARE, e->fp_software, sizeof e->fp_software);
    return (int)e->fpstate_size;
}

/* What the CPU would refuse: bits of mxcsr and features that it doesn't have, a header that is not zero. */
static bool fp_is_valid(const struct engine *e, const uint8_t *state)
{
    uint32_t mxcsr;
    uint64_t features;
    int i;
    memcpy(&mxcsr, state + 24, sizeof mxcsr);
    memcpy(&features, state + 512, sizeof features);
    if (mxcsr & ~e->mxcsr_mask || features & ~e->fp_features)
        return false;
    for (i = 520; i < 576; i++)
        if (state[i])
            return false;
    return true;
}

int trap_set_fpstate(struct guest_thread *g, const void *buffer, uint32_t size)
{
    struct thread *t = of_guest(g);
    struct engine *e = t->engine;
    if (g->state != THREAD_STOPPED || !t->record)
        return -ESRCH;
    if (size != e->fpstate_size || !fp_is_valid(e, buffer))
        return -EINVAL;
    if (t->record->path == PATH_SIGNAL) {
        uint64_t area = fp_area(e, t);
        char *to = (char *)t->record + area;
        if (!area)
            return -ESRCH;
        memcpy(to, buffer, XSTATE_SOFTWARE);
        memcpy(to + 512, (const char *)buffer + 512, size - 512);
        return 0;
    }
    memcpy((char *)t->record + RECORD_FP_LOAD, buffer, size);
    t->record->fp_load = 1;
    return 0;
}
