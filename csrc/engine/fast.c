/* The table of fast paths, and the way from a trapped call to its handler.  See fast.h. */
#include "fast.h"

#include <errno.h>
#include <sys/syscall.h>

#define NR_LIMIT 512
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif

static fast_handler *const handlers[NR_LIMIT] = {
    [SYS_stat] = fast_stat,
    [SYS_lstat] = fast_lstat,
    [SYS_newfstatat] = fast_newfstatat,
    [SYS_access] = fast_access,
    [SYS_faccessat] = fast_faccessat,
    [SYS_faccessat2] = fast_faccessat2,
    [SYS_readlink] = fast_readlink,
    [SYS_readlinkat] = fast_readlinkat,
    [SYS_read] = fast_read,         [SYS_write] = fast_write,   [SYS_pread64] = fast_pread,
    [SYS_pwrite64] = fast_pwrite,   [SYS_readv] = fast_readv,   [SYS_writev] = fast_writev,
    [SYS_lseek] = fast_lseek,       [SYS_fstat] = fast_fstat,   [SYS_fcntl] = fast_fcntl,
};

/* One buffer for all: a call is delivered before the next one is looked at. */
static uint8_t window[CALL_WINDOW];
static uint8_t input[CALL_WINDOW];

int call_in(struct call *c, uint64_t addr, void *buffer, uint32_t size)
{
    return memory_read(c->t->g.tgid, addr, buffer, size) == (int64_t)size ? 0 : -EFAULT;
}

const uint8_t *call_data(struct call *c, uint64_t addr, uint32_t size)
{
    return size <= sizeof input && call_in(c, addr, input, size) == 0 ? input : NULL;
}

struct vfile *call_file(struct call *c, uint64_t fd)
{
    const struct fd_table *table = c->t->g.files;
    uint32_t number = (uint32_t)fd; /* the upper half of the register means nothing */
    return table && number < table->size ? table->files[number] : NULL;
}

int fast_read(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    return f ? fast_file_read(c, f) : FAST_PASS;
}

int fast_write(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    return f ? fast_file_write(c, f) : FAST_PASS;
}

/* True once the guest has what the handler left in c->out. */
static bool deliver(struct call *c)
{
    if (c->out_size == 0)
        return true;
    return memory_write(c->t->g.tgid, c->out_addr, c->out, c->out_size) == (int64_t)c->out_size;
}

int fast_trap(struct engine *e, struct thread *t)
{
    const struct guest_regs *r = &t->g.regs;
    uint64_t nr = r->orig_rax & 0xffffffff;
    struct call c = {.e = e, .t = t, .nr = nr, .args = {r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9}, .out = window};
    int verdict;
    if (!e->fast || !t->g.files || nr >= NR_LIMIT || !handlers[nr])
        return FAST_PASS;
    verdict = handlers[nr](&c);
    if (verdict != FAST_DONE)
        return verdict;
    if (!deliver(&c)) {
        if (c.undo)
            c.undo(&c);
        return FAST_PASS;
    }
    t->g.regs.rax = (uint64_t)c.result;
    e->fast_count++;
    return FAST_DONE;
}

void engine_set_fast(struct engine *e, int on)
{
    e->fast = on != 0;
}

uint64_t engine_fast_count(const struct engine *e)
{
    return e->fast_count;
}
