/* eventfd(2): the counter, and read(2) and write(2) on it.  The twin is sentry/fs/eventfd.py. */
#include "fast.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

struct eventfd *eventfd_new(uint64_t count, int semaphore)
{
    struct eventfd *ev = calloc(1, sizeof *ev);
    if (!ev)
        return NULL;
    ev->count = count;
    ev->semaphore = semaphore != 0;
    return ev;
}

void eventfd_free(struct eventfd *ev)
{
    if (!ev)
        return;
    queue_fini(&ev->queue);
    free(ev);
}

static void undo_read(struct call *c)
{
    struct eventfd *ev = c->undo_object;
    ev->count += (uint64_t)c->undo_value;
}

int fast_eventfd_read(struct call *c, struct vfile *f)
{
    struct eventfd *ev = f->object;
    uint64_t value;
    if (c->args[2] < sizeof value || !is_user_range(c->args[1], c->args[2]))
        return FAST_PASS;
    if (ev->count == 0) {
        if (f->flags & O_NONBLOCK)
            return call_return(c, -EAGAIN);
        return fast_park(c, f, &ev->queue, POLLIN | POLLERR | POLLHUP);
    }
    value = ev->semaphore ? 1 : ev->count;
    ev->count -= value;
    memcpy(c->out, &value, sizeof value);
    c->out_addr = c->args[1];
    c->out_size = sizeof value;
    c->undo = undo_read;
    c->undo_object = ev;
    c->undo_value = (int64_t)value;
    queue_notify(&ev->queue, POLLOUT | POLLWRNORM);
    return call_return(c, sizeof value);
}

int fast_eventfd_write(struct call *c, struct vfile *f)
{
    struct eventfd *ev = f->object;
    uint64_t value;
    if (c->args[2] != sizeof value || call_in(c, c->args[1], &value, sizeof value) < 0)
        return FAST_PASS;
    if (value > EVENTFD_MAX || ev->count > EVENTFD_MAX)
        return FAST_PASS;
    if (value > EVENTFD_MAX - ev->count) {
        if (f->flags & O_NONBLOCK)
            return call_return(c, -EAGAIN);
        return fast_park(c, f, &ev->queue, POLLOUT | POLLERR | POLLHUP);
    }
    ev->count += value;
    queue_notify(&ev->queue, POLLIN | POLLRDNORM);
    return call_return(c, sizeof value);
}
