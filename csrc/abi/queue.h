/* Wait queues, pipes and event counters: what the fast paths and Python's twins both work on.
 *
 * A wait queue has two kinds of sleepers.  Parked system calls and epoll registrations are C's own: a wake-up calls
 * them (engine/queue.c).  Python's entries stay in Python's queue object, which keeps in python_mask what any
 * of them waits for.  So whoever wakes, both kinds hear of it: Python calls queue_wake and then its own
 * entries; C calls its own and writes down for Python that the queue was woken, which Python learns by
 * queue_take, at the latest at the end of the engine_wait under way (EVENT_WOKEN).
 */
#ifndef SENTRY_QUEUE_H
#define SENTRY_QUEUE_H

#include <stdint.h>

/* cdef begin */
struct vfile;
struct waiter;

/* In python_mask, above all poll bits: an entry that wants to hear at once. */
#define QUEUE_SIGNALLED 0x40000000

struct queue {
    struct waiter *first, *last; /* C's own, in order of arrival */
    uint32_t python_mask;        /* what Python's entries wait for; 0: there are none */
    uint32_t woken_mask;         /* wake-ups that Python has not heard of */
    struct queue *next_woken;
};

/* engine/queue.c */
struct queue *queue_new(void);
void queue_free(struct queue *q);
/* Python wakes the queue: C's waiters hear of it.  1 when queue_take has something now. */
int queue_wake(struct queue *q, uint32_t mask);
/* The next queue that C has woken while it had entries of Python's, with its events; NULL: no more. */
struct queue *queue_take(uint32_t *mask);
/* The next file whose last reference went away while a parked call held it, and which is free now. */
struct vfile *vfile_take(void);

/* engine/pipe.c: a row of slots of one page each; see sentry/fs/pipe.py. */
struct pipe_slot {
    uint8_t *page;
    uint16_t start, end; /* page[start:end] is still to be read */
    uint16_t packet;     /* O_DIRECT: it stands for itself */
};

struct pipe {
    struct queue queue;      /* both ends' */
    struct pipe_slot *slots; /* [room], a power of two; the first one is slots[head] */
    uint32_t room, head;
    uint32_t count;          /* slots in use */
    uint32_t max_slots;      /* may be used */
    uint64_t size;           /* bytes to be read */
    uint32_t readers, writers;
    uint64_t reader_opens, writer_opens; /* how often each end was opened: what a FIFO's open waits for */
};

struct pipe *pipe_new(uint32_t max_slots);
void pipe_free(struct pipe *p);
/* Forget the bytes. */
void pipe_clear(struct pipe *p);
/* As many bytes as there is room for: their number. */
uint64_t pipe_put(struct pipe *p, const uint8_t *data, uint64_t size, int packet);
/* Whether the odd bytes of a write (its size modulo a page) go into the last slot. */
int pipe_merges(const struct pipe *p, uint32_t odd, int packet);
/* Up to `size` bytes, which stay; of packets the first one. */
uint64_t pipe_peek(const struct pipe *p, uint8_t *buffer, uint64_t size);
/* Of the `size` bytes that pipe_peek was asked for, `copied` have arrived: those that are read then go, and are returned.
 * A slot is read whole or not at all, of a packet the rest is lost. */
uint64_t pipe_drop(struct pipe *p, uint64_t copied, uint64_t size);
/* Both at once. */
uint64_t pipe_take(struct pipe *p, uint8_t *buffer, uint64_t size);
/* Bytes that were taken go back to the front, also where that makes more slots than may be used.  0 or -ENOMEM. */
int pipe_untake(struct pipe *p, const uint8_t *data, uint64_t size);
/* tee(2): up to `size` bytes into `target` without taking them: their number. */
uint64_t pipe_copy(struct pipe *p, struct pipe *target, uint64_t size);
/* Use up to `slots` slots (at least `count`).  0 or -ENOMEM. */
int pipe_resize(struct pipe *p, uint32_t slots);

/* engine/fast_event.c: eventfd(2) */
struct eventfd {
    struct queue queue;
    uint64_t count;
    uint32_t semaphore;
};

struct eventfd *eventfd_new(uint64_t count, int semaphore);
void eventfd_free(struct eventfd *ev);

/* engine/epoll.c: a set of files, and those of them that may be ready; see sentry/fs/epoll.py.  Only Python takes
 * items out of the set, so it knows each of them. */
struct epitem;
struct epoll {
    struct queue queue;
    struct epitem *items;                     /* all */
    struct epitem *first_ready, *last_ready;  /* to be looked at, in order */
};

struct epoll *epoll_new(void);
void epoll_free(struct epoll *ep);
int epoll_poll(struct epoll *ep);

/* A registration; in the queue of `f` if C knows one, else Python has to call epitem_mark. */
struct epitem *epitem_new(struct epoll *ep, struct vfile *f, uint32_t events, uint64_t data);
void epitem_free(struct epitem *item);
void epitem_leave(struct epitem *item);
void epitem_set(struct epitem *item, uint32_t events, uint64_t data);
uint32_t epitem_events(const struct epitem *item);
uint64_t epitem_data(const struct epitem *item);
/* Put it at the end of the ready list (if it is not on it) or, wherever it was, at the beginning; or take it off. */
void epitem_ready(struct epitem *item);
void epitem_ready_first(struct epitem *item);
void epitem_unready(struct epitem *item);
/* epitem_ready, and wake who waits.  1 when queue_take has something now. */
int epitem_mark(struct epitem *item);
/* The next one on the ready list. */
struct epitem *epitem_next(const struct epitem *item);
int epitem_is_native(const struct epitem *item);
/* cdef end */

#endif
