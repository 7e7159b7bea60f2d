/* Wait queues, and what Python has to be told of them.  See abi/queue.h. */
#include "waiter.h"

#include <stdlib.h>

/* Queues with a woken_mask, and files that nobody holds any more: both wait for Python to take them. */
static struct queue *woken_first, *woken_last;
static struct vfile *dropped;

void queue_init(struct queue *q)
{
    *q = (struct queue){0};
}

static void forget_woken(struct queue *q)
{
    struct queue *before = NULL, *at;
    for (at = woken_first; at && at != q; at = at->next_woken)
        before = at;
    if (!at)
        return;
    if (before)
        before->next_woken = q->next_woken;
    else
        woken_first = q->next_woken;
    if (woken_last == q)
        woken_last = before;
}

void queue_fini(struct queue *q)
{
    while (q->first)
        queue_remove(q->first);
    if (q->woken_mask)
        forget_woken(q);
    queue_init(q);
}

struct queue *queue_new(void)
{
    return calloc(1, sizeof(struct queue));
}

void queue_free(struct queue *q)
{
    if (!q)
        return;
    queue_fini(q);
    free(q);
}

void queue_add(struct queue *q, struct waiter *w)
{
    w->queue = q;
    w->next = NULL;
    w->prev = q->last;
    if (q->last)
        q->last->next = w;
    else
        q->first = w;
    q->last = w;
}

void queue_remove(struct waiter *w)
{
    struct queue *q = w->queue;
    if (!q)
        return;
    if (w->prev)
        w->prev->next = w->next;
    else
        q->first = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        q->last = w->prev;
    w->queue = NULL;
    w->next = w->prev = NULL;
}

static void wake_own(struct queue *q, uint32_t mask)
{
    struct waiter *w, *next;
    bool taken = false;
    for (w = q->first; w; w = next) {
        const bool exclusive = w->exclusive;
        next = w->next;
        if (w->mask & mask && !(exclusive && taken) && w->wake(w, mask) && exclusive)
            taken = true;
    }
}

void queue_notify(struct queue *q, uint32_t mask)
{
    wake_own(q, mask);
    mask &= q->python_mask;
    if (!mask)
        return;
    if (!q->woken_mask) {
        q->next_woken = NULL;
        if (woken_last)
            woken_last->next_woken = q;
        else
            woken_first = q;
        woken_last = q;
    }
    q->woken_mask |= mask;
}

bool queue_pending(void)
{
    return woken_first || dropped;
}

int queue_wake(struct queue *q, uint32_t mask)
{
    wake_own(q, mask);
    return queue_pending();
}

struct queue *queue_take(uint32_t *mask)
{
    struct queue *q = woken_first;
    if (!q)
        return NULL;
    woken_first = q->next_woken;
    if (!woken_first)
        woken_last = NULL;
    *mask = q->woken_mask;
    q->woken_mask = 0;
    return q;
}

void vfile_release(struct vfile *f)
{
    if (--f->holds || !f->closed)
        return;
    f->next_dropped = dropped;
    dropped = f;
}

struct vfile *vfile_take(void)
{
    struct vfile *f = dropped;
    if (f)
        dropped = f->next_dropped;
    return f;
}
