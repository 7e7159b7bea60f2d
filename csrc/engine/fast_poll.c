/* What is ready, and poll(2).  The twins are the poll methods of sentry/fs and sentry/syscalls/poll.py. */
#include "fast.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#define POLL_FEW 64 /* descriptors; more are Python's */
#define POLL_ALWAYS (POLLERR | POLLHUP)
#define POLL_READY (POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM)

struct queue *vfile_queue(const struct vfile *f)
{
    switch (f->kind) {
    case VFILE_PIPE:
        return &((struct pipe *)f->object)->queue;
    case VFILE_UNIX:
        return &((struct unix_sock *)f->object)->queue;
    case VFILE_EVENTFD:
        return &((struct eventfd *)f->object)->queue;
    case VFILE_EPOLL:
        return &((struct epoll *)f->object)->queue;
    }
    return NULL;
}

static uint32_t pipe_poll(const struct pipe *p, const struct vfile *f)
{
    uint32_t mask = 0;
    if (vfile_readable(f)) {
        if (p->count)
            mask |= POLLIN | POLLRDNORM;
        if (p->writers == 0)
            mask |= POLLHUP;
    }
    if (vfile_writable(f)) {
        if (p->count < p->max_slots)
            mask |= POLLOUT | POLLWRNORM;
        if (p->readers == 0)
            mask |= POLLERR;
    }
    return mask;
}

static uint32_t eventfd_poll(const struct eventfd *ev)
{
    return (ev->count ? POLLIN : 0) | (ev->count < EVENTFD_MAX ? POLLOUT : 0) |
           (ev->count > EVENTFD_MAX ? POLLERR : 0);
}

bool vfile_poll(const struct vfile *f, uint32_t *events)
{
    int r;
    switch (f->kind) {
    case VFILE_NULL:
    case VFILE_ZERO:
    case VFILE_REGULAR:
    case VFILE_TMPFS:
        *events = POLL_READY;
        return true;
    case VFILE_PIPE:
        *events = pipe_poll(f->object, f);
        return true;
    case VFILE_UNIX:
        *events = unix_poll(f->object);
        return true;
    case VFILE_EVENTFD:
        *events = eventfd_poll(f->object);
        return true;
    case VFILE_EPOLL:
        r = epoll_poll(f->object);
        *events = r > 0 ? POLLIN | POLLRDNORM : 0;
        return r >= 0;
    }
    return false;
}

void call_deadline(struct call *c, int64_t milliseconds)
{
    if (milliseconds > 0 && !c->retry)
        c->deadline = now_ns() + (uint64_t)milliseconds * 1000000;
}

/* The number of ready ones, with their revents in fds; -1 if Python must look. */
static int look(const struct fd_table *table, struct pollfd *fds, uint32_t count)
{
    int ready = 0;
    uint32_t i;
    for (i = 0; i < count; i++) {
        struct pollfd *p = &fds[i];
        const struct vfile *f;
        uint32_t events;
        p->revents = 0;
        if (p->fd < 0)
            continue;
        f = (uint32_t)p->fd < table->size ? table->files[p->fd] : NULL;
        if (!f || f->flags & O_PATH) {
            p->revents = POLLNVAL;
        } else {
            if (!vfile_poll(f, &events))
                return -1;
            p->revents = (short)(events & ((uint16_t)p->events | POLL_ALWAYS));
        }
        ready += p->revents != 0;
    }
    return ready;
}

static int sleep_on(struct call *c, const struct fd_table *table, const struct pollfd *fds, uint32_t count)
{
    uint32_t i;
    if (!fast_park_room(c, count))
        return FAST_PASS;
    for (i = 0; i < count; i++) {
        struct vfile *f = fds[i].fd < 0 ? NULL : table->files[fds[i].fd];
        struct queue *q = f ? vfile_queue(f) : NULL;
        if (q)
            fast_park(c, f, q, (uint16_t)fds[i].events | POLL_ALWAYS);
    }
    return FAST_PARK;
}

int fast_poll(struct call *c)
{
    const struct fd_table *table = c->t->g.files;
    uint32_t count = (uint32_t)c->args[1], size = count * (uint32_t)sizeof(struct pollfd);
    int32_t timeout = (int32_t)c->args[2];
    struct pollfd fds[POLL_FEW];
    int ready;
    if (!table || count > POLL_FEW || table->flags & TABLE_FEW)
        return FAST_PASS;
    if (count && call_in(c, c->args[0], fds, size) < 0)
        return FAST_PASS;
    call_deadline(c, timeout);
    ready = look(table, fds, count);
    if (ready < 0)
        return FAST_PASS;
    if (ready == 0 && timeout != 0 && !c->expired)
        return sleep_on(c, table, fds, count);
    if (count) {
        memcpy(c->out, fds, size);
        c->out_addr = c->args[0];
        c->out_size = size;
    }
    return call_return(c, ready);
}
