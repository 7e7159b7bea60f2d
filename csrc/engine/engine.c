/* The engine: table of host threads, and the one place where the Sentry sleeps.
 *
 * engine_wait sleeps in epoll_pwait2 with SIGCHLD let through only there: a tracee's stop, or a stub's end, interrupts
 * it, a ready descriptor ends it, and no wake-up can fall between the look and the sleep.  On trap it goes by the loop
 * in platform/trap.c, which looks at the records before it sleeps.  An idle sandbox sleeps without a timeout.
 */
#include "core.h"
#include "mman.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FD_BATCH 64

void list_init(struct link *head)
{
    head->next = head->prev = head;
}

void list_append(struct link *head, struct link *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

void list_remove(struct link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

struct thread *thread_find(struct engine *e, int pid)
{
    if (pid <= 0 || pid >= PID_LIMIT || e->by_pid[pid] == 0)
        return NULL;
    return e->slots[e->by_pid[pid] - 1];
}

/* A slot for a host thread whose id is not known yet; NULL without memory. */
struct thread *thread_alloc(struct engine *e)
{
    struct thread *t;
    if (!list_empty(&e->free)) {
        uint32_t slot;
        t = of_link(e->free.next);
        list_remove(&t->link);
        slot = t->g.slot;
        memset(t, 0, sizeof *t);
        t->g.slot = slot;
    } else {
        if (e->slot_count == e->slot_room) {
            uint32_t room = e->slot_room ? e->slot_room * 2 : 64;
            struct thread **slots = realloc(e->slots, room * sizeof *slots);
            if (!slots)
                return NULL;
            e->slots = slots;
            e->slot_room = room;
        }
        t = calloc(1, sizeof *t);
        if (!t)
            return NULL;
        t->g.slot = e->slot_count;
        e->slots[e->slot_count++] = t;
    }
    list_init(&t->link);
    t->engine = e;
    t->g.hot = &t->own_hot;
    t->leader = t;
    t->record_fd = -1;
    t->g.state = THREAD_STOPPED;
    return t;
}

void thread_name(struct engine *e, struct thread *t, int pid)
{
    t->g.pid = t->g.tgid = pid;
    e->by_pid[pid] = t->g.slot + 1;
    e->newest_pid = pid;
}

/* A slot for the host thread `pid`, which must be stopped; NULL without memory. */
struct thread *thread_new(struct engine *e, int pid)
{
    struct thread *t;
    if (pid <= 0 || pid >= PID_LIMIT)
        return NULL;
    t = thread_alloc(e);
    if (t)
        thread_name(e, t, pid);
    return t;
}

/* The host may reuse the number: after reaping, the pid means nothing any more. */
void thread_unlist_pid(struct engine *e, struct thread *t)
{
    if (thread_find(e, t->g.pid) == t)
        e->by_pid[t->g.pid] = 0;
}

void thread_free(struct engine *e, struct thread *t)
{
    thread_unlist_pid(e, t);
    parking_free(t);
    list_remove(&t->link);
    t->g.hot = &t->own_hot;
    t->g.state = THREAD_FREE;
    t->g.pid = t->g.tgid = 0;
    list_append(&e->free, &t->link);
}

void thread_set_running(struct engine *e, struct thread *t)
{
    list_remove(&t->link);
    list_append(&e->running, &t->link);
    t->g.state = THREAD_RUNNING;
    e->running_count++;
}

/* It stopped (or died) for the reason `kind`: engine_wait will say so. */
void thread_set_ready(struct engine *e, struct thread *t, int kind)
{
    if (t->g.state == THREAD_RUNNING)
        e->running_count--;
    t->g.state = kind == ENGINE_DEAD ? THREAD_DEAD : THREAD_STOPPED;
    t->g.kind = kind;
    t->kicked = false;
    list_remove(&t->link);
    list_append(&e->ready, &t->link);
}

/* Its call sleeps in C. */
void thread_set_parked(struct engine *e, struct thread *t)
{
    if (t->g.state == THREAD_RUNNING)
        e->running_count--;
    t->g.state = THREAD_PARKED;
    list_remove(&t->link);
}

static void on_sigchld(int signo)
{
    (void)signo; /* its only purpose is to interrupt a sleep */
}

static int init_signals(struct engine *e)
{
    struct sigaction action = {.sa_handler = on_sigchld, .sa_flags = SA_RESTART};
    sigset_t chld;
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &chld, &e->old_mask) < 0 || sigaction(SIGCHLD, &action, &e->old_action) < 0)
        return -errno;
    e->has_signals = true;
    e->wait_mask = e->old_mask;
    sigdelset(&e->wait_mask, SIGCHLD);
    return 0;
}

/* Only one at a time: it takes every child's status, and kills a child that it does not know. */
static struct engine *the_engine;

struct engine *engine_new(int pin, int *error)
{
    struct timespec zero = {0, 0};
    struct epoll_event event;
    int r = -ENOMEM;
    struct engine *e = NULL;
    if (the_engine) {
        r = -EBUSY;
        goto out;
    }
    e = calloc(1, sizeof *e);
    if (!e)
        goto out;
    the_engine = e;
    list_init(&e->running);
    list_init(&e->ready);
    list_init(&e->free);
    e->listener = -1;
    e->epoll_fd = -1;
    e->bell = e->shared_fd = -1;
    e->by_pid = mmap(NULL, PID_LIMIT * sizeof *e->by_pid, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (e->by_pid == MAP_FAILED) {
        e->by_pid = NULL;
        goto out;
    }
    e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (e->epoll_fd < 0) {
        r = -errno;
        goto out;
    }
    /* Asked now: once seccomp confines the Sentry, an unknown number is deadly. */
    e->have_pwait2 = syscall(SYS_epoll_pwait2, e->epoll_fd, &event, 1, &zero, NULL, 0) >= 0;
    r = init_signals(e);
    if (r == 0 && pin)
        r = placement_init(e);
out:
    *error = -r;
    if (r < 0) {
        engine_free(e);
        return NULL;
    }
    return e;
}

/* The slots stay: Python may still hold references into them. */
void engine_free(struct engine *e)
{
    if (!e)
        return;
    if (e->epoll_fd >= 0)
        close(e->epoll_fd);
    if (e->listener >= 0)
        close(e->listener);
    if (e->bell >= 0)
        close(e->bell);
    if (e->shared_fd >= 0)
        close(e->shared_fd);
    if (e->shared)
        munmap(e->shared, 4096);
    if (e->by_pid)
        munmap(e->by_pid, PID_LIMIT * sizeof *e->by_pid);
    if (e->has_signals) {
        sigaction(SIGCHLD, &e->old_action, NULL);
        sigprocmask(SIG_SETMASK, &e->old_mask, NULL);
    }
    if (e->pinned)
        sched_setaffinity(0, sizeof e->everywhere, &e->everywhere);
    free(e->slots);
    free(e);
    the_engine = NULL;
}

struct guest_thread *engine_thread(struct engine *e, uint32_t slot)
{
    return slot < e->slot_count ? &e->slots[slot]->g : NULL;
}

int engine_watch(struct engine *e, int fd, uint32_t events, uint64_t token)
{
    struct epoll_event event = {.events = events, .data.u64 = token};
    if (epoll_ctl(e->epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0)
        return 0;
    if (errno == ENOENT && epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
        return 0;
    return -errno;
}

int engine_unwatch(struct engine *e, int fd)
{
    return epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, fd, NULL) < 0 ? -errno : 0;
}

/* epoll_pwait with a timeout in ns, -1 for none; SIGCHLD can interrupt it. */
int epoll_nap(struct engine *e, struct epoll_event *events, int max, int64_t timeout_ns)
{
    struct timespec ts;
    if (e->have_pwait2) {
        if (timeout_ns >= 0) {
            ts.tv_sec = timeout_ns / 1000000000;
            ts.tv_nsec = timeout_ns % 1000000000;
        }
        return (int)syscall(SYS_epoll_pwait2, e->epoll_fd, events, max, timeout_ns < 0 ? NULL : &ts,
                            &e->wait_mask, _NSIG / 8);
    }
    if (timeout_ns > 1000000000ll * 1000)
        timeout_ns = 1000000000ll * 1000; /* an early return is allowed */
    return epoll_pwait(e->epoll_fd, events, max, timeout_ns < 0 ? -1 : (int)((timeout_ns + 999999) / 1000000),
                       &e->wait_mask);
}

/* Something for Python: traps, and queues that were woken, of which it must hear before it looks at the traps. */
bool engine_has_report(const struct engine *e)
{
    return !list_empty(&e->ready) || queue_pending();
}

/* Or something that can wait for the next of these, but not for longer than the engine is awake. */
bool engine_has_rest(const struct engine *e)
{
    return engine_has_report(e) || closed_pending();
}

int engine_report(struct engine *e, struct engine_event *events, int max)
{
    int n = 0;
    if (n < max && (queue_pending() || closed_pending() || (!list_empty(&e->ready) && mm_has_dead())))
        events[n++] = (struct engine_event){.what = EVENT_WOKEN};
    while (n < max && !list_empty(&e->ready)) {
        struct thread *t = of_link(e->ready.next);
        list_remove(&t->link);
        events[n++] = (struct engine_event){.what = EVENT_TRAP, .slot = t->g.slot};
    }
    return n;
}

/* How long the next sleep may be: what is left, cut down where placement wants to look again. */
static int64_t nap_length(struct engine *e, uint64_t deadline, bool endless)
{
    uint64_t now;
    int64_t left;
    bool check = placement_wants_check(e);
    int64_t parked = parking_nap();
    if (engine_has_rest(e))
        return 0;
    if (endless && !check)
        return parked;
    now = now_ns();
    left = endless ? INT64_MAX : deadline > now ? (int64_t)(deadline - now) : 0;
    if (parked >= 0 && parked < left)
        left = parked;
    return check && left > (int64_t)PLACEMENT_PERIOD_NS ? (int64_t)PLACEMENT_PERIOD_NS : left;
}

/* Apart from a brisk guest's (placement.c), there is one epoll call between two reports, so that
 * neither traps nor descriptors starve. */
static int wait_for_events(struct engine *e, int64_t timeout_ns, struct engine_event *events, int max)
{
    struct epoll_event fds[FD_BATCH];
    bool endless = timeout_ns < 0;
    uint64_t deadline = timeout_ns > 0 ? now_ns() + (uint64_t)timeout_ns : 0;
    int r, n, i, room = max / 2 < FD_BATCH ? max / 2 : FD_BATCH;

    if (e->trap)
        return trap_wait(e, timeout_ns, events, max);
    if (room < 1)
        return -EINVAL;
    for (;;) {
        int64_t nap;
        uint32_t served = e->served;
        parking_run(e);
        if (timeout_ns != 0 && !engine_has_report(e)) {
            if (placement_try_yield(e))
                return engine_report(e, events, max);
            if (served != e->served)
                continue;
        }
        if (e->running_count == 0) {
            r = ptrace_collect_ready(e, true);
            if (r < 0)
                return r;
        }
        nap = nap_length(e, deadline, endless);
        n = epoll_nap(e, fds, room, nap);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n < 0 || e->running_count > 0) {
            bool interrupted = n < 0;
            r = ptrace_collect_ready(e, interrupted);
            if (r < 0)
                return r;
            parking_run(e);
            /* Not by a guest's stop: a signal that Python may want to hear of. */
            if (interrupted && served == e->served)
                break;
        }
        if (e->one_cpu) {
            e->polled_at = now_ns();
            placement_check(e, e->polled_at);
        }
        if (n > 0 || engine_has_rest(e) || (!endless && now_ns() >= deadline))
            break;
    }
    if (n < 0)
        n = 0;
    for (i = 0; i < n; i++)
        events[i] = (struct engine_event){
            .what = EVENT_FD, .token = fds[i].data.u64, .events = fds[i].events};
    return n + engine_report(e, events + n, max - n);
}

int engine_wait(struct engine *e, int64_t timeout_ns, struct engine_event *events, int max)
{
    int n;
    if (max < 2)
        return -EINVAL;
    e->waiting = true;
    n = wait_for_events(e, timeout_ns, events, max);
    e->waiting = false;
    return n;
}
