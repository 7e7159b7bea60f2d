/* epoll(7): the registrations of a set, and which of them may be ready.  The twin is sentry/fs/epoll.py, which
 * also says what the ready list means.
 *
 * A registration of a file that C knows stands in the file's queue by itself; for any other file Python's
 * entry does, and calls epitem_mark.  Whether such an item is really ready only Python can tell.
 */
#include "fast.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define PRIVATE_BITS (EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET)
#define EVENT_SIZE 12 /* struct epoll_event, packed */
#define EVENTS_MAX (INT32_MAX / EVENT_SIZE)
#define REPORT_MAX (CALL_WINDOW / EVENT_SIZE)

struct epoll *epoll_new(void)
{
    return calloc(1, sizeof(struct epoll));
}

static uint32_t wanted(const struct epitem *item)
{
    return item->events & ~PRIVATE_BITS;
}

void epitem_unready(struct epitem *item)
{
    struct epoll *ep = item->epoll;
    if (!ep || !item->ready)
        return;
    if (item->prev_ready)
        item->prev_ready->next_ready = item->next_ready;
    else
        ep->first_ready = item->next_ready;
    if (item->next_ready)
        item->next_ready->prev_ready = item->prev_ready;
    else
        ep->last_ready = item->prev_ready;
    item->ready = 0;
    item->next_ready = item->prev_ready = NULL;
}

void epitem_ready(struct epitem *item)
{
    struct epoll *ep = item->epoll;
    if (!ep || item->ready)
        return;
    item->ready = 1;
    item->next_ready = NULL;
    item->prev_ready = ep->last_ready;
    if (ep->last_ready)
        ep->last_ready->next_ready = item;
    else
        ep->first_ready = item;
    ep->last_ready = item;
}

void epitem_ready_first(struct epitem *item)
{
    struct epoll *ep = item->epoll;
    if (!ep)
        return;
    epitem_unready(item);
    item->ready = 1;
    item->next_ready = ep->first_ready;
    if (ep->first_ready)
        ep->first_ready->prev_ready = item;
    else
        ep->last_ready = item;
    ep->first_ready = item;
}

/* It may be ready: epoll_wait will look.  Told again even if it is on the list already, since who waits may have
 * looked before. */
int epitem_mark(struct epitem *item)
{
    if (item->epoll) {
        epitem_ready(item);
        queue_notify(&item->epoll->queue, EPOLLIN | EPOLLRDNORM);
    }
    return queue_pending();
}

/* EPOLLEXCLUSIVE: a set for which nobody waits notes the event, but lets others have it. */
static bool on_wake(struct waiter *w, uint32_t mask)
{
    struct epitem *item = (struct epitem *)((char *)w - offsetof(struct epitem, waiter));
    const bool waits = item->epoll && (item->epoll->queue.first || item->epoll->queue.python_mask);
    (void)mask;
    epitem_mark(item);
    return waits;
}

void epitem_set(struct epitem *item, uint32_t events, uint64_t data)
{
    item->events = events;
    item->data = data;
    item->waiter.mask = wanted(item);
}

struct epitem *epitem_new(struct epoll *ep, struct vfile *f, uint32_t events, uint64_t data)
{
    struct epitem *item = calloc(1, sizeof *item);
    struct queue *q = vfile_queue(f);
    if (!item)
        return NULL;
    item->epoll = ep;
    item->file = f;
    item->next = ep->items;
    if (ep->items)
        ep->items->prev = item;
    ep->items = item;
    item->waiter.wake = on_wake;
    item->waiter.exclusive = events & EPOLLEXCLUSIVE;
    epitem_set(item, events, data);
    if (q)
        queue_add(q, &item->waiter);
    return item;
}

void epitem_leave(struct epitem *item)
{
    struct epoll *ep = item->epoll;
    queue_remove(&item->waiter);
    epitem_unready(item);
    if (!ep)
        return;
    if (item->prev)
        item->prev->next = item->next;
    else
        ep->items = item->next;
    if (item->next)
        item->next->prev = item->prev;
    item->epoll = NULL;
    item->file = NULL;
}

void epitem_free(struct epitem *item)
{
    if (!item)
        return;
    epitem_leave(item);
    free(item);
}

void epoll_free(struct epoll *ep)
{
    if (!ep)
        return;
    while (ep->items)
        epitem_leave(ep->items);
    queue_fini(&ep->queue);
    free(ep);
}

uint32_t epitem_events(const struct epitem *item)
{
    return item->events;
}

uint64_t epitem_data(const struct epitem *item)
{
    return item->data;
}

struct epitem *epitem_next(const struct epitem *item)
{
    return item->next_ready;
}

int epitem_is_native(const struct epitem *item)
{
    return item->waiter.queue != NULL;
}

/* What of it is ready; false if only Python knows. */
static bool item_poll(const struct epitem *item, uint32_t *events)
{
    if (!vfile_poll(item->file, events))
        return false;
    *events &= wanted(item);
    return true;
}

/* 1 if something is ready, 0 if not, -1 if Python must look.  What turns out not to be leaves the list. */
int epoll_poll(struct epoll *ep)
{
    struct epitem *item, *next;
    uint32_t events;
    for (item = ep->first_ready; item; item = next) {
        next = item->next_ready;
        if (!item_poll(item, &events))
            return -1;
        if (events)
            return 1;
        epitem_unready(item);
    }
    return 0;
}

/* What the last fast_epoll_wait has reported, should it have to be taken back. */
static struct {
    struct epitem *item;
    uint32_t events;
} reported[REPORT_MAX];

static void undo_wait(struct call *c)
{
    int64_t i;
    for (i = c->undo_value - 1; i >= 0; i--) {
        struct epitem *item = reported[i].item;
        epitem_set(item, reported[i].events, item->data);
        epitem_ready_first(item);
    }
}

/* Fill c->out with up to `count` events; their number, or -1 if Python must look. */
static int look(struct call *c, struct epoll *ep, uint32_t count)
{
    struct epitem *item, *next;
    uint32_t n = 0;
    for (item = ep->first_ready; item && n < count; item = next) {
        uint8_t *out = c->out + n * EVENT_SIZE;
        uint32_t events;
        next = item->next_ready;
        if (!item_poll(item, &events))
            return -1;
        if (!events) {
            epitem_unready(item);
            continue;
        }
        memcpy(out, &events, 4);
        memcpy(out + 4, &item->data, 8);
        reported[n].item = item;
        reported[n++].events = item->events;
    }
    return (int)n;
}

/* They have been reported: level-triggered ones go to the end of the list, the others leave it. */
static void settle(uint32_t count)
{
    uint32_t i;
    for (i = 0; i < count; i++) {
        struct epitem *item = reported[i].item;
        epitem_unready(item);
        if (item->events & EPOLLONESHOT)
            epitem_set(item, item->events & PRIVATE_BITS, item->data);
    }
    for (i = 0; i < count; i++)
        if (!(reported[i].events & (EPOLLONESHOT | EPOLLET)))
            epitem_ready(reported[i].item);
}

/* Are they all level-triggered, so that the next call finds them again? */
static bool can_repeat(uint32_t count)
{
    uint32_t i;
    for (i = 0; i < count; i++)
        if (reported[i].events & (EPOLLONESHOT | EPOLLET))
            return false;
    return true;
}

static int wait_for(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    int32_t count = (int32_t)c->args[2], timeout = (int32_t)c->args[3];
    struct epoll *ep;
    int found;
    if (!f || f->kind != VFILE_EPOLL || count <= 0 || count > EVENTS_MAX)
        return FAST_PASS;
    if (!is_user_range(c->args[1], (uint64_t)count * EVENT_SIZE))
        return FAST_PASS;
    ep = f->object;
    call_deadline(c, timeout);
    found = look(c, ep, count < REPORT_MAX ? (uint32_t)count : REPORT_MAX);
    if (found < 0)
        return FAST_PASS;
    if (found == 0) {
        if (timeout == 0 || c->expired)
            return call_return(c, 0);
        return fast_park(c, f, &ep->queue, UINT32_MAX);
    }
    settle((uint32_t)found);
    c->out_addr = c->args[1];
    c->out_size = (uint32_t)found * EVENT_SIZE;
    if (!can_repeat((uint32_t)found)) {
        c->undo = undo_wait;
        c->undo_value = found;
    }
    return call_return(c, found);
}

int fast_epoll_wait(struct call *c)
{
    return wait_for(c);
}

/* With a signal mask it is Python's. */
int fast_epoll_pwait(struct call *c)
{
    return c->args[4] ? FAST_PASS : wait_for(c);
}
