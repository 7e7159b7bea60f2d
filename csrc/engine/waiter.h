/* C's own places in a wait queue (abi/queue.h): parked system calls and epoll registrations. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "queue.h"
#include "vfs.h"

struct thread;

struct waiter {
    struct waiter *next, *prev;
    struct queue *queue; /* NULL: it is in none */
    uint32_t mask;       /* what it waits for */
    /* It happened.  May take the waiter out of the queue, but no other one. */
    void (*wake)(struct waiter *w, uint32_t mask);
    struct thread *thread; /* whose call is parked, and */
    struct vfile *file;    /* what it holds meanwhile; see parking.c */
};

/* queue.c */
void queue_init(struct queue *q);
/* Nobody may find the queue any more: its waiters are in no queue now. */
void queue_fini(struct queue *q);
void queue_add(struct queue *q, struct waiter *w);
void queue_remove(struct waiter *w);
/* C wakes the queue: everybody in it hears, Python's entries by queue_take. */
void queue_notify(struct queue *q, uint32_t mask);
/* Has Python something to take? */
bool queue_pending(void);

/* pipe.c */
bool pipe_merges(const struct pipe *p, uint32_t odd, int packet);
void pipe_untake(struct pipe *p, const uint8_t *data, uint64_t size, int packet);

/* A call that sleeps keeps its file open, as on Linux. */
static inline void vfile_hold(struct vfile *f)
{
    f->holds++;
}
void vfile_release(struct vfile *f);
