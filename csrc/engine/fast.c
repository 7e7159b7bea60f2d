/* The table of fast paths, and the way from a trapped call to its handler.  See fast.h. */
#include "fast.h"
#include "record.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#define NR_LIMIT 512
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif

static fast_handler *const handlers[NR_LIMIT] = {
    [SYS_stat] = fast_stat,
    [SYS_lstat] = fast_lstat,
    [SYS_newfstatat] = fast_newfstatat,
    [SYS_getdents64] = fast_getdents, [SYS_getdents] = fast_getdents_old,
    [SYS_statx] = fast_statx,
    [SYS_access] = fast_access,
    [SYS_faccessat] = fast_faccessat,
    [SYS_faccessat2] = fast_faccessat2,
    [SYS_readlink] = fast_readlink,
    [SYS_readlinkat] = fast_readlinkat,
    [SYS_open] = fast_open,
    [SYS_openat] = fast_openat,
    [SYS_chmod] = fast_chmod,       [SYS_fchmod] = fast_fchmod, [SYS_fchmodat] = fast_fchmodat,
    [SYS_fchown] = fast_fchown,     [SYS_fchownat] = fast_fchownat, [SYS_utimensat] = fast_utimensat,
    [SYS_fsync] = fast_fsync,       [SYS_fdatasync] = fast_fsync,
    [SYS_fadvise64] = fast_fadvise, [SYS_ioctl] = fast_ioctl,
    [SYS_close] = fast_close,       [SYS_dup] = fast_dup,       [SYS_dup2] = fast_dup2, [SYS_dup3] = fast_dup3,
    [SYS_read] = fast_read,         [SYS_write] = fast_write,   [SYS_pread64] = fast_pread,
    [SYS_pwrite64] = fast_pwrite,   [SYS_readv] = fast_readv,   [SYS_writev] = fast_writev,
    [SYS_lseek] = fast_lseek,       [SYS_fstat] = fast_fstat,   [SYS_fcntl] = fast_fcntl,
    [SYS_sendto] = fast_sendto,     [SYS_recvfrom] = fast_recvfrom,
    [SYS_poll] = fast_poll,         [SYS_epoll_wait] = fast_epoll_wait, [SYS_epoll_pwait] = fast_epoll_pwait,
    [SYS_mmap] = fast_mmap,         [SYS_munmap] = fast_munmap, [SYS_mprotect] = fast_mprotect,
    [SYS_rt_sigreturn] = fast_sigreturn, [SYS_rt_sigaction] = fast_sigaction,
    [SYS_kill] = fast_kill,         [SYS_tgkill] = fast_tgkill,     [SYS_tkill] = fast_tkill,
    [SYS_brk] = fast_brk,           [SYS_madvise] = fast_madvise, [SYS_mremap] = fast_mremap,
};

/* One buffer for all: a call is delivered before the next one is looked at. */
static uint8_t window[CALL_WINDOW];
static uint8_t input[CALL_WINDOW];

_Static_assert(CALL_WINDOW == RECORD_WINDOW_SIZE, "the record's window is the call's");

static uint8_t *record_window(const struct thread *t)
{
    return (uint8_t *)t->record + RECORD_WINDOW;
}

/* How many of the bytes at `addr` the stub has put into the window. */
static uint32_t size_in(const struct call *c, uint64_t addr)
{
    const struct thread *t = c->t;
    int at = t->record ? argument_in((uint32_t)c->nr) : -1;
    return at >= 0 && c->args[at] == addr && t->in_size <= CALL_WINDOW && is_guest_range(addr, t->in_size) ? t->in_size : 0;
}

int call_in(struct call *c, uint64_t addr, void *buffer, uint32_t size)
{
    if (size && size <= size_in(c, addr)) {
        memcpy(buffer, record_window(c->t), size);
        return 0;
    }
    return memory_read(c->t->g.tgid, addr, buffer, size) == (int64_t)size ? 0 : -EFAULT;
}

int call_in_string(struct call *c, uint64_t addr, char *buffer, uint32_t limit)
{
    uint32_t size = size_in(c, addr), done = 0;
    const char *nul;
    if (size && size <= limit) {
        memcpy(buffer, record_window(c->t), size);
        nul = memchr(buffer, 0, size);
        if (nul)
            return (int)(nul - buffer);
    }
    while (done < limit) {
        size = 4096 - ((addr + done) & 4095); /* up to the end of the page: what follows may be missing */
        if (size > limit - done)
            size = limit - done;
        if (memory_read(c->t->g.tgid, addr + done, buffer + done, size) != size)
            return -EFAULT;
        nul = memchr(buffer + done, 0, size);
        if (nul)
            return (int)(nul - buffer);
        done += size;
    }
    return -ENAMETOOLONG;
}

const uint8_t *call_data(struct call *c, uint64_t addr, uint32_t size)
{
    if (size > CALL_WINDOW)
        return NULL;
    if (size && size <= size_in(c, addr))
        return record_window(c->t);
    return call_in(c, addr, input, size) == 0 ? input : NULL;
}

struct vfile *call_file(struct call *c, uint64_t fd)
{
    const struct fd_table *table = c->t->g.files;
    uint32_t number = (uint32_t)fd; /* the upper half of the register means nothing */
    if (c->held)
        return c->held;
    return table && number < table->size ? table->files[number] : NULL;
}

/* Where the memory begins that the stub has tried to write to. */
static uint64_t probed_addr(const struct call *c)
{
    return c->nr == SYS_kill || c->nr == SYS_tkill || c->nr == SYS_tgkill ? c->t->record->probed_addr : c->args[1];
}

/* True once the guest has what the handler left in c->out; on `trap`, once it is on its way. */
static bool deliver(struct call *c)
{
    struct thread *t = c->t;
    if (c->out_size == 0)
        return true;
    if (t->record && c->out == record_window(t)) {
        uint64_t before = c->out_addr - probed_addr(c);
        if (!is_guest_range(c->out_addr, c->out_size))
            return false;
        /* What can't be taken back is only done where the stub has found that the memory is there. */
        if ((c->undo || c->commit) && (before > RECORD_WINDOW_SIZE || before + c->out_size > t->probed_size))
            return false;
        t->record->out_addr = c->out_addr;
        t->record->out_size = c->out_size;
        t->delivering = true;
        t->final = c->undo || c->commit;
        return true;
    }
    if (memory_write(t->g.tgid, c->out_addr, c->out, c->out_size) != (int64_t)c->out_size)
        return false;
    call_came(c, c->out_size, true);
    return true;
}

int fast_read(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    if (!f)
        return FAST_PASS;
    switch (f->kind) {
    case VFILE_PIPE:
        return fast_pipe_read(c, f);
    case VFILE_UNIX:
        return fast_unix_read(c, f);
    case VFILE_EVENTFD:
        return fast_eventfd_read(c, f);
    }
    return fast_file_read(c, f);
}

int fast_write(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    if (!f)
        return FAST_PASS;
    switch (f->kind) {
    case VFILE_PIPE:
        return fast_pipe_write(c, f);
    case VFILE_UNIX:
        return fast_unix_write(c, f);
    case VFILE_EVENTFD:
        return fast_eventfd_write(c, f);
    }
    return fast_file_write(c, f);
}

static struct call call_of(struct engine *e, struct thread *t)
{
    const struct guest_regs *r = &t->g.regs;
    return (struct call){.e = e, .t = t, .nr = r->orig_rax & 0xffffffff,
                         .args = {r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9},
                         .out = t->record ? record_window(t) : window};
}

/* Calls that read or write, as IO_CALLS of Python's tells them. */
static const uint8_t io_calls[NR_LIMIT] = {
    [SYS_read] = 1,  [SYS_pread64] = 1,  [SYS_readv] = 1,  [SYS_preadv] = 1,  [SYS_preadv2] = 1,
    [SYS_write] = 2, [SYS_pwrite64] = 2, [SYS_writev] = 2, [SYS_pwritev] = 2, [SYS_pwritev2] = 2,
};

static void count_io(const struct call *c)
{
    const uint8_t kind = io_calls[c->nr];
    struct io_counts *io = c->t->g.io;
    if (!kind || !io)
        return;
    io->calls[kind - 1]++;
    if (c->result > 0)
        io->bytes[kind - 1] += (uint64_t)c->result;
}

/* Run the handler, and hand over what it has for the guest. */
static int serve(struct call *c)
{
    int verdict = handlers[c->nr](c);
    if (verdict != FAST_DONE && verdict != FAST_JUMP)
        return verdict;
    if (!deliver(c)) {
        if (c->undo)
            c->undo(c);
        return FAST_PASS;
    }
    if (c->commit)
        c->commit(c);
    if (verdict == FAST_DONE)
        c->t->g.regs.rax = (uint64_t)c->result;
    count_io(c);
    c->e->fast_count++;
    return verdict;
}

/* Whether Python has to see the call. */
static bool is_forced(const struct guest_thread *g, uint64_t nr)
{
    return g->forced && (g->forced & ~FORCED_BY_NUMBER || !(g->allowed[nr / 64] >> nr % 64 & 1));
}

int fast_trap(struct engine *e, struct thread *t)
{
    struct call c = call_of(e, t);
    int verdict;
    t->g.progress = t->g.deadline = 0;
    t->delivering = false;
    if (!e->fast || !e->waiting || !t->g.files || c.nr >= NR_LIMIT || !handlers[c.nr] || is_forced(&t->g, c.nr))
        return FAST_PASS;
    verdict = serve(&c);
    if (verdict == FAST_PARK && t->kicked)
        verdict = FAST_PASS;
    if (verdict == FAST_PARK) {
        parking_begin(e, &c);
    } else if (verdict == FAST_PASS) {
        t->g.progress = c.progress;
        t->g.deadline = c.deadline;
    }
    if (verdict != FAST_PARK)
        parking_end(t);
    if (verdict != FAST_PASS)
        e->served++;
    return verdict;
}

void fast_retry(struct engine *e, struct thread *t)
{
    struct parking *p = &t->parking;
    struct call c = call_of(e, t);
    c.retry = true;
    c.held = p->held ? p->first.file : NULL;
    c.progress = p->progress;
    c.deadline = p->deadline;
    c.expired = c.deadline && now_ns() >= c.deadline;
    switch (serve(&c)) {
    case FAST_PARK:
        parking_begin(e, &c);
        break;
    case FAST_DONE:
        parking_end(t);
        t->g.state = THREAD_STOPPED;
        e->served++;
        if (e->resume(e, &t->g) < 0)
            thread_set_ready(e, t, ENGINE_KICKED);
        break;
    default:
        p->progress = c.progress;
        parking_report(e, t);
    }
}

void vnode_accessed(struct vnode *node)
{
    struct timespec ts;
    if (!node)
        return;
    clock_gettime(CLOCK_REALTIME, &ts);
    node->atime = ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

void vnode_modified(struct vnode *node)
{
    struct timespec ts;
    if (!node)
        return;
    clock_gettime(CLOCK_REALTIME, &ts);
    node->mtime = node->ctime = ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

void vnode_changed(struct vnode *node)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    node->ctime = ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

void engine_set_fast(struct engine *e, int on)
{
    e->fast = on != 0;
}

uint64_t engine_fast_count(const struct engine *e)
{
    return e->fast_count;
}
