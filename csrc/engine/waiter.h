/* C's own places in a wait queue (abi/queue.h): parked system calls and epoll registrations. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "queue.h"
#include "unix.h"
#include "vfs.h"

struct thread;

struct waiter {
    struct waiter *next, *prev;
    struct queue *queue; /* NULL: it is in none */
    uint32_t mask;       /* what it waits for */
    bool exclusive;      /* once one such waiter has taken a wake-up, the others need not hear of it */
    /* It happened.  May take the waiter out of the queue, but no other one.  Whether somebody takes it. */
    bool (*wake)(struct waiter *w, uint32_t mask);
    struct thread *thread; /* whose call is parked, and */
    struct vfile *file;    /* what it holds meanwhile; see parking.c */
};

/* One registration in an epoll set. */
struct epitem {
    struct waiter waiter; /* in the file's queue, if C knows the file's kind */
    struct epoll *epoll;  /* NULL once it has left the set */
    struct vfile *file;
    struct epitem *next, *prev;
    struct epitem *next_ready, *prev_ready;
    uint32_t events; /* as given to epoll_ctl, with EPOLLERR and EPOLLHUP */
    uint32_t ready;  /* it is on the ready list */
    uint64_t data;
};

/* fast_poll.c: the queue of a file whose kind C knows, or NULL. */
struct queue *vfile_queue(const struct vfile *f);
/* The poll bits that hold now; false if only Python can tell. */
bool vfile_poll(const struct vfile *f, uint32_t *events);

/* fast_unix.c: of a stream or sequenced-packet socket. */
uint32_t unix_poll(const struct unix_sock *s);

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
/* fdtable.c: has vfile_take_closed something? */
bool closed_pending(void);

/* pipe.c */

/* A call that sleeps keeps its file open, as on Linux. */
static inline void vfile_hold(struct vfile *f)
{
    f->holds++;
}
void vfile_release(struct vfile *f);
