/* read(2) and write(2) on pipes and FIFOs.  The twins are PipeFile in sentry/fs/pipe.py and the loops in
 * sentry/syscalls/file_io.py. */
#include "fast.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#define PAGE 4096u
#define READABLE (POLLIN | POLLRDNORM)
#define WRITABLE (POLLOUT | POLLWRNORM)

static bool is_full(const struct pipe *p)
{
    return p->count >= p->max_slots;
}

/* The bytes are the reader's now.  (Where they can't be delivered, Python's handler finds them as they were.) */
static void commit_read(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    struct pipe *p = f->object;
    bool was_full = is_full(p);
    pipe_drop(p, c->out_size, c->args[2]);
    vnode_accessed(f->node);
    if (was_full && !is_full(p))
        queue_notify(&p->queue, WRITABLE);
}

static uint8_t taken[CALL_WINDOW]; /* instead of the record's window */

/* Somebody gets a signal for what happens here (sentry/fs/owner.py), and before the call returns. */
static bool is_signalled(const struct pipe *p)
{
    return p->queue.python_mask & QUEUE_SIGNALLED;
}

int fast_pipe_read(struct call *c, struct vfile *f)
{
    struct pipe *p = f->object;
    uint64_t size = c->args[2];
    bool is_far;

    if (is_signalled(p))
        return FAST_PASS;
    if (!vfile_readable(f) || size == 0 || !is_user_range(c->args[1], size))
        return FAST_PASS;
    if (p->count == 0) {
        if (p->writers == 0)
            return call_return(c, 0);
        if (f->flags & O_NONBLOCK)
            return call_return(c, -EAGAIN);
        return fast_park(c, f, &p->queue, POLLIN | POLLERR | POLLHUP);
    }
    if (size > CALL_WINDOW) {
        if (p->size > CALL_WINDOW)
            return FAST_PASS;
        size = CALL_WINDOW;
    }
    is_far = call_is_far(c, size < p->size ? (uint32_t)size : (uint32_t)p->size);
    if (is_far)
        c->out = taken;
    c->commit = commit_read;
    c->out_addr = c->args[1];
    c->out_size = (uint32_t)pipe_peek(p, c->out, size);
    if (!is_far)
        call_came(c, c->out_size, false);
    return call_return(c, c->out_size);
}

/* How many of `size` bytes to fetch for the next pipe_put: not more than there is room for, and so that the
 * pieces of a long write fill the same slots as the whole would. */
static uint32_t next_piece(const struct pipe *p, uint64_t size, int packet)
{
    uint32_t odd = size & (PAGE - 1);
    uint64_t room = is_full(p) ? 0 : (uint64_t)(p->max_slots - p->count) * PAGE;
    if (pipe_merges(p, odd, packet))
        room += odd;
    if (room > size)
        room = size;
    if (room > CALL_WINDOW)
        room = pipe_merges(p, odd, packet) ? CALL_WINDOW - PAGE + odd : CALL_WINDOW;
    return (uint32_t)room;
}

/* Write `data`, or where that is NULL, the bytes at the guest's `addr`.  A write that does not fit sleeps with what
 * it has written so far in c->progress. */
static int write_pipe(struct call *c, struct vfile *f, const uint8_t *data, uint64_t addr, uint64_t size)
{
    struct pipe *p = f->object;
    int packet = (f->flags & O_DIRECT) != 0;

    if (is_signalled(p) && c->progress == 0)
        return FAST_PASS;
    while (c->progress < size) {
        uint32_t piece;
        uint64_t taken;
        if (p->readers == 0)
            return FAST_PASS; /* SIGPIPE */
        piece = next_piece(p, size - c->progress, packet);
        if (piece == 0) {
            if (!(f->flags & O_NONBLOCK))
                return fast_park(c, f, &p->queue, POLLOUT | POLLERR | POLLHUP);
            if (c->progress == 0)
                return call_return(c, -EAGAIN);
            break;
        }
        if (!data && call_in(c, addr + c->progress, c->out, piece) < 0)
            return FAST_PASS;
        taken = pipe_put(p, data ? data + c->progress : c->out, piece, packet);
        if (taken == 0)
            return FAST_PASS; /* no memory */
        c->progress += taken;
        vnode_modified(f->node);
        queue_notify(&p->queue, READABLE);
    }
    return call_return(c, (int64_t)c->progress);
}

int fast_pipe_write(struct call *c, struct vfile *f)
{
    uint64_t addr = c->args[1], size = c->args[2];
    if (!vfile_writable(f) || size == 0 || size > CALL_RW_MAX || !is_user_range(addr, size))
        return FAST_PASS;
    return write_pipe(c, f, NULL, addr, size);
}

int fast_pipe_write_data(struct call *c, struct vfile *f, const uint8_t *data, uint32_t size)
{
    return vfile_writable(f) && size ? write_pipe(c, f, data, 0, size) : FAST_PASS;
}
