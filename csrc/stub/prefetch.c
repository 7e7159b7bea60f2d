/* Before a call goes to the engine: what it will want to see is put where it finds it, so that it need not ask. */
#include "inside.h"

#define RED_ZONE 128

/* Is there memory to write to?  For calls that could not be undone if there were none. */
static void probe(struct record *r, uint64_t addr, uint64_t size)
{
    uint64_t at;
    if (size == 0 || addr >= STUB_BASE)
        return;
    if (size > RECORD_WINDOW_SIZE)
        size = RECORD_WINDOW_SIZE; /* more is never delivered at once */
    for (at = addr; at < addr + size; at = (at | 0xfff) + 1)
        if (stub_probe(at))
            return;
    r->probed_size = (uint32_t)size;
}

/* The guest's FP state, which nothing here changes. */
void save_fp(struct record *r)
{
    if (r->fp_saved)
        return;
    __asm__ volatile("xsave64 (%0)" ::"r"((uint8_t *)r + RECORD_FP_SAVED), "a"((uint32_t)shared->fp_features),
                     "d"((uint32_t)(shared->fp_features >> 32))
                     : "memory");
    set(&r->fp_saved, 1);
}

/* For a signal to oneself: the state that goes into its frame, and room for the frame. */
static void prepare_frame(struct record *r)
{
    if (r->path == PATH_DIRECT)
        save_fp(r);
    r->probed_addr = r->regs.rsp - RED_ZONE - shared->frame_size;
    probe(r, r->probed_addr, shared->frame_size);
}

/* Put into the window what the engine will want to see. */
void prefetch(struct record *r)
{
    const struct guest_regs *g = &r->regs;
    uint64_t size;
    int64_t length;
    int at;
    r->in_size = 0;
    r->probed_size = 0;
    switch (r->nr) {
    case NR_read:
    case NR_getdents64:
    case NR_recvfrom:
        probe(r, g->rsi, g->rdx);
        return;
    case NR_epoll_wait:
    case NR_epoll_pwait:
        if ((uint32_t)g->rdx < 1024)
            probe(r, g->rsi, 12 * (uint32_t)g->rdx);
        return;
    case NR_kill:
    case NR_tkill:
    case NR_tgkill:
        prepare_frame(r);
        return;
    case NR_write:
    case NR_pwrite64:
    case NR_sendto:
        size = g->rdx;
        if (size > RECORD_WINDOW_SIZE || (size >= RECORD_FAR_SIZE && get(&shared->far)))
            return;
        break;
    case NR_rt_sigaction:
        size = g->rsi ? 32 : 0; /* the kernel's struct sigaction */
        break;
    case NR_fcntl:
        size = 32; /* struct flock, of the six lock commands */
        if ((g->rsi & ~32ull) - (g->rsi & 32 ? 4 : 5) > 2)
            return;
        break;
    default:
        at = argument_in(r->nr);
        if (at < 0)
            return;
        length = is_guests(r->args[at], 4096) ? stub_copy_string(window_of(r), (void *)r->args[at], 4096) : -1;
        if (length >= 0)
            r->in_size = (uint32_t)length;
        return;
    }
    r->in_size = (uint32_t)(size - copy_in(window_of(r), r->args[argument_in(r->nr)], size));
}
