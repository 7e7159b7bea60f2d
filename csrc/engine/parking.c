/* Calls that sleep in C: a parked thread stands in the queues that its call waits for, and the call is tried
 * again when one of them is woken or its deadline has passed (fast_retry).
 *
 * A handler that must sleep calls fast_park for each queue and returns FAST_PARK.  When it is tried again it runs
 * from the start; what it has done already stands in c->progress, and its deadline, which is absolute, in
 * c->deadline.  The files that it sleeps on are held meanwhile: a descriptor may be closed under it.
 *
 * For Python a parked thread runs.  A kick ends the parking: the call is reported as an ordinary trap with
 * the registers as they were, and Python's handler takes it from there (guest_thread.progress, .deadline).
 */
#include "fast.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>

#define NEVER UINT64_MAX
#define PARK_MAX 1024 /* queues of one call */

/* Threads whose call is to be tried again, and those parked with a deadline. */
static struct link woken = {&woken, &woken};
static struct link timed = {&timed, &timed};
/* No deadline is before this one. */
static uint64_t next_deadline = NEVER;

static struct waiter *place(struct parking *p, uint32_t index)
{
    return index ? &p->more[index - 1] : &p->first;
}

static void wake(struct thread *t)
{
    if (t->parking.woken)
        return;
    t->parking.woken = true;
    list_remove(&t->link);
    list_append(&woken, &t->link);
}

static bool on_wake(struct waiter *w, uint32_t mask)
{
    (void)mask;
    wake(w->thread);
    return true;
}

/* Room for `count` queues, before the first fast_park of this try.  False: pass the call on. */
bool fast_park_room(struct call *c, uint32_t count)
{
    struct parking *p = &c->t->parking;
    struct waiter *more;
    uint32_t i;
    if (count <= p->room + 1)
        return true;
    if (count > PARK_MAX)
        return false;
    more = realloc(p->more, (count - 1) * sizeof *more);
    if (!more)
        return false;
    for (i = p->room; i < count - 1; i++)
        more[i] = (struct waiter){.wake = on_wake, .thread = c->t};
    p->more = more;
    p->room = count - 1;
    return true;
}

/* The next place: its file is held from now on, whether it was before or not. */
static struct waiter *take_place(struct call *c, struct vfile *f)
{
    struct parking *p = &c->t->parking;
    struct waiter *w = place(p, p->used);
    if (p->used++ < p->held) {
        if (w->file == f)
            return w;
        vfile_release(w->file);
    } else {
        p->held = p->used;
    }
    vfile_hold(f);
    w->file = f;
    return w;
}

int fast_park(struct call *c, struct vfile *f, struct queue *q, uint32_t mask)
{
    struct waiter *w;
    c->t->parking.first.wake = on_wake;
    c->t->parking.first.thread = c->t;
    w = take_place(c, f);
    w->mask = mask;
    queue_add(q, w);
    return FAST_PARK;
}

static void unlink_all(struct parking *p)
{
    uint32_t i;
    for (i = 0; i < p->used; i++)
        queue_remove(place(p, i));
    p->used = 0;
}

static void release_from(struct parking *p, uint32_t first)
{
    while (p->held > first)
        vfile_release(place(p, --p->held)->file);
}

/* FAST_PARK has become true: the thread sleeps until a queue is woken, c->deadline, or a kick. */
void parking_begin(struct engine *e, struct call *c)
{
    struct thread *t = c->t;
    struct parking *p = &t->parking;
    release_from(p, p->used);
    p->progress = c->progress;
    p->deadline = c->deadline;
    p->woken = false;
    if (c->retry)
        return;
    p->since = now_ns();
    thread_set_parked(e, t);
    if (p->deadline) {
        list_append(&timed, &p->timer);
        if (p->deadline < next_deadline)
            next_deadline = p->deadline;
    }
}

/* The call leaves its queues and files; it is over, or somebody else's. */
void parking_end(struct thread *t)
{
    struct parking *p = &t->parking;
    unlink_all(p);
    release_from(p, 0);
    if (t->g.state != THREAD_PARKED)
        return;
    if (p->deadline)
        list_remove(&p->timer);
    if (p->woken)
        list_remove(&t->link);
    p->woken = false;
    t->g.idle_ns += now_ns() - p->since;
}

/* Does the call's descriptor mean another file now?  (poll's first argument is none.) */
static bool has_lost_its_file(const struct thread *t)
{
    const struct fd_table *table = t->g.files;
    uint32_t fd = (uint32_t)t->g.regs.rdi;
    if (!t->parking.held || (uint32_t)t->g.regs.orig_rax == SYS_poll)
        return false;
    return !table || fd >= table->size || table->files[fd] != t->parking.first.file;
}

/* A kick.  Where Python could not find the call's file any more, the call has been interrupted, and that is all. */
void parking_interrupt(struct engine *e, struct thread *t)
{
    if (!has_lost_its_file(t)) {
        parking_report(e, t);
        return;
    }
    thread_whole_regs(t);
    t->g.regs.rax = t->parking.progress ? t->parking.progress : (uint64_t)-EINTR;
    parking_end(t);
    thread_set_ready(e, t, ENGINE_KICKED);
}

/* The call becomes Python's: a trap like any other, with what has been done of it. */
void parking_report(struct engine *e, struct thread *t)
{
    thread_whole_regs(t);
    t->g.progress = t->parking.progress;
    t->g.deadline = t->parking.deadline;
    parking_end(t);
    thread_set_ready(e, t, ENGINE_SYSCALL);
}

/* The thread is gone, or its slot is to be used again. */
void parking_free(struct thread *t)
{
    parking_end(t);
    free(t->parking.more);
    t->parking = (struct parking){0};
}

/* Time spent parked since the last call of this, ns. */
uint64_t thread_take_idle(struct guest_thread *g)
{
    uint64_t now, idle = g->idle_ns;
    if (g->state == THREAD_PARKED) {
        now = now_ns();
        idle += now - of_guest(g)->parking.since;
        of_guest(g)->parking.since = now;
    }
    g->idle_ns = 0;
    return idle;
}

static void expire(uint64_t now)
{
    struct link *l, *next;
    next_deadline = NEVER;
    for (l = timed.next; l != &timed; l = next) {
        struct thread *t = (struct thread *)((char *)l - offsetof(struct thread, parking.timer));
        next = l->next;
        if (t->parking.deadline <= now)
            wake(t);
        else if (t->parking.deadline < next_deadline)
            next_deadline = t->parking.deadline;
    }
}

/* How long the engine may sleep for the sake of parked calls: ns, or -1. */
int64_t parking_nap(void)
{
    uint64_t now;
    if (!list_empty(&woken))
        return 0;
    if (next_deadline == NEVER)
        return -1;
    now = now_ns();
    return next_deadline > now ? (int64_t)(next_deadline - now) : 0;
}

/* Try the calls of threads that were woken, or whose time is over. */
void parking_run(struct engine *e)
{
    uint32_t turns = 1000;
    if (next_deadline != NEVER) {
        uint64_t now = now_ns();
        if (now >= next_deadline)
            expire(now);
    }
    while (!list_empty(&woken) && turns--) {
        struct thread *t = of_link(woken.next);
        struct parking *p = &t->parking;
        list_remove(&t->link);
        p->woken = false;
        unlink_all(p);
        fast_retry(e, t);
    }
}
