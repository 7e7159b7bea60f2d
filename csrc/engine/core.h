/* The engine's own view of its state; nothing here is known to Python.
 *
 * One thread owns all of it.  A `struct thread` is on at most one list:
 *   e->running   while its state is THREAD_RUNNING (oldest resume first),
 *   e->ready     from its stop until engine_wait has reported it,
 *   e->free      while it is THREAD_FREE,
 *   parking.c's  while it is THREAD_PARKED and its call is to be tried again.
 * On ptrace every wait4 goes through ptrace_collect, which writes down a stop for whoever
 * waits for it: there is no order in which stops of different threads have to arrive.
 */
#pragma once
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine.h"
#include "platform.h"
#include "waiter.h"

#define PID_LIMIT (4 * 1024 * 1024) /* Linux's PID_MAX_LIMIT */
#define XSTATE_MAX 16384
#define XSTATE_SOFTWARE 464 /* 48 bytes that belong to the kernel: in a frame, in a regset, not in XSAVE */

struct link {
    struct link *next, *prev;
};

struct record;
struct shared_page;

/* A place in a process's memfd of records that can be used again. */
struct free_record {
    struct free_record *next;
    uint32_t index;
};

/* A call that sleeps in C; see parking.c. */
struct parking {
    struct waiter first, *more; /* its places in queues, places 1 to room stand in `more` */
    uint32_t room;
    uint32_t used;     /* places in queues */
    uint32_t held;     /* places whose file is held, at least `used` */
    bool woken;        /* to be tried again */
    uint64_t progress; /* bytes moved so far */
    uint64_t deadline; /* CLOCK_MONOTONIC, ns; 0: none */
    uint64_t since;    /* when it was parked */
    struct link timer; /* if there is a deadline */
};

/* What is to be taken back if the host refuses the call that a thread goes on with; see fast_mm.c. */
struct parting {
    enum { PART_NONE, PART_PLAIN, PART_MAP, PART_GROW, PART_SHRINK, PART_PROTECT } kind;
    uint32_t prot;
    uint64_t start, size, value;
    int fd; /* -1, or what the thread may ask to be lent for the call, */
    bool lent; /* and has been lent: it may ask again, where a signal interrupted it */
};

struct thread {
    struct guest_thread g; /* first: a guest_thread pointer is a thread pointer */
    struct engine *engine;
    struct guest_hot own_hot; /* where the platform has no better place */
    struct link link;
    struct thread *leader; /* of its host process; itself for a leader */
    uint32_t thread_count; /* leader only: host threads not reaped yet */
    int status;            /* wait status that came while INJECTED, */
    bool has_status;       /* if there is one */
    bool spread;           /* may run on every CPU (engine/placement.c) */
    bool brisk;            /* its last trap came within BRISK_NS of the resume */
    uint8_t quick;         /* of a spread thread: traps in a row within QUICK_NS of the resume */
    uint16_t burst;        /* on `trap`: calls that the engine has answered, less those that Python had to */
    uint64_t resumed_at;   /* CLOCK_MONOTONIC, ns; on `trap` ticks */
    bool kicked;           /* while it ran, and that was not reported yet: it must not park */
    struct parking parking;

    /* `trap` only */
    struct record *record;  /* mapped here, */
    uint64_t record_at;     /* and there */
    bool partial;           /* of g.regs only a call's number and arguments are right: thread_whole_regs */
    uint32_t in_size, probed_size; /* record.in_size and probed_size of the trap */
    uint32_t record_number; /* its place in the process's memfd */
    bool gone;              /* its process is dead */
    bool delivering;        /* a fast path's result is on its way, */
    bool final;             /* and the call can't be done again */
    struct parting parting; /* until the next trap */
    uint64_t kicked_at;     /* last time, CLOCK_MONOTONIC, ns; 0: not */
    uint32_t kicks;         /* how often again */
    /* leader only */
    int record_fd;
    uint32_t record_count;
    uint64_t first_record; /* address of record 0 */
    struct free_record *free_records;
};

struct engine {
    struct link running, ready, free;
    uint32_t running_count;
    uint32_t dying_count;
    uint32_t newborn_count;
    struct thread **slots; /* [slot_count] */
    uint32_t slot_count, slot_room;
    uint32_t *by_pid; /* [PID_LIMIT], slot + 1; pages are touched as pids are used */
    bool cloning;     /* an unknown pid that stops now is the child of a clone under way */

    int epoll_fd;
    int listener; /* seccomp notifications of every stub, -1 before boot */
    bool have_pwait2;
    bool fast;    /* fast paths are taken, */
    bool waiting; /* but only within engine_wait: nothing changes under a Python handler's hands */
    uint32_t served; /* calls that Python did not see, counted for engine_wait */
    int (*resume)(struct engine *e, struct guest_thread *g); /* the platform's */
    uint64_t fast_count; /* calls that they have answered */
    sigset_t wait_mask; /* while it sleeps: the caller's mask without SIGCHLD */
    sigset_t old_mask;  /* both put back by engine_free */
    struct sigaction old_action;
    bool has_signals;

    bool one_cpu; /* Sentry and stubs share a CPU: pinned, or there is no other */
    bool pinned;  /* else placement moves nobody */
    uint64_t polled_at; /* last look at the descriptors, CLOCK_MONOTONIC, ns */
    cpu_set_t home, everywhere;
    uint64_t next_check; /* CLOCK_MONOTONIC, ns */

    /* what xstate.c has learnt */
    uint32_t fpstate_size, mxcsr_mask;
    uint64_t fp_features;
    uint8_t fp_software[48];

    /* `trap` only */
    bool trap;       /* which platform this is */
    uint32_t impatience; /* how many stubs did not answer */
    int newest_pid;  /* the last that was given a slot */
    bool sync_wake;  /* notifications switch on one CPU */
    int bell;        /* eventfd, -1 before boot */
    int shared_fd;
    int zygote_record_fd; /* while it boots */
    struct shared_page *shared;
    uint32_t cpus, kicked_count;
    uint64_t ticks_per_us;          /* of the time stamp counter */
    uint64_t spin; /* how long to wait awake, ticks */
    uint64_t spin_until, next_look, crowded_until; /* ticks */
};

static inline struct thread *of_link(struct link *link)
{
    return (struct thread *)((char *)link - offsetof(struct thread, link));
}

static inline struct thread *of_guest(struct guest_thread *g)
{
    return (struct thread *)g;
}

static inline bool list_empty(const struct link *head)
{
    return head->next == head;
}

void list_init(struct link *head);
void list_append(struct link *head, struct link *link);
void list_remove(struct link *link);

#define BELL_TOKEN (~0ull)
#define LISTENER_TOKEN (~0ull - 1)

/* engine.c */
struct thread *thread_alloc(struct engine *e);
void thread_name(struct engine *e, struct thread *t, int pid);
struct epoll_event;
int epoll_nap(struct engine *e, struct epoll_event *events, int max, int64_t timeout_ns);
bool engine_has_report(const struct engine *e);
bool engine_has_rest(const struct engine *e);
int engine_report(struct engine *e, struct engine_event *events, int max);
struct thread *thread_new(struct engine *e, int pid);
struct thread *thread_find(struct engine *e, int pid);
void thread_unlist_pid(struct engine *e, struct thread *t);
void thread_free(struct engine *e, struct thread *t);
void thread_set_running(struct engine *e, struct thread *t);
void thread_set_ready(struct engine *e, struct thread *t, int kind);
void thread_set_parked(struct engine *e, struct thread *t);
uint64_t now_ns(void);

/* parking.c */
void parking_end(struct thread *t);
void parking_report(struct engine *e, struct thread *t);
void parking_interrupt(struct engine *e, struct thread *t);
void parking_free(struct thread *t);
int64_t parking_nap(void);
void parking_run(struct engine *e);

/* placement.c */
int placement_init(struct engine *e);
void placement_trapped(struct engine *e, struct thread *t);
void placement_check(struct engine *e, uint64_t now);
bool placement_wants_check(const struct engine *e);
bool placement_try_yield(struct engine *e);
#define PLACEMENT_PERIOD_NS 20000000ull

/* platform/trap.c, trap_death.c */
void thread_whole_regs(struct thread *t);
int trap_init(struct engine *e);
int trap_listen(struct engine *e);
int trap_wait(struct engine *e, int64_t timeout_ns, struct engine_event *events, int max);
void thread_died(struct engine *e, struct thread *t);

/* platform/ptrace.c */
int ptrace_collect(struct engine *e, int pid, int options);
int ptrace_collect_ready(struct engine *e, bool thorough);
void regs_sanitize(struct guest_regs *out, const struct guest_regs *in);

/* platform/inject.c */
struct injection {
    struct guest_regs regs; /* loaded before, read back after the int3 */
    uint64_t entry;         /* offset in the stub */
    int child;              /* pid that a clone reported, 0 if none */
};
void inject_syscall_regs(struct injection *in, uint64_t number, const uint64_t args[6]);
int inject_start(struct thread *t, struct injection *in);
int inject_wait(struct engine *e, struct thread *t, int *status);
int inject_step(struct engine *e, struct thread *t, struct injection *in, int status);
int inject_end(struct thread *t, int r);
int inject_run(struct engine *e, struct thread *t, struct injection *in);
