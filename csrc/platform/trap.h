/* What the files of the `trap` platform know of each other. */
#pragma once
#include "core.h"
#include "record.h"

/* A system call that a stub was ordered to make and that its filter reports: what it has to look like. */
struct notified {
    int pid; /* who makes it; 0: */
    const uint32_t *child; /* whose id the host's kernel has put here */
    int nr;
    uint64_t args[6];
    int fd;        /* lent to the caller as LENT_FD, -1 for none */
    int caller;    /* out: who made it, 0 as long as nobody has */
};

/* trap.c */
void trap_store_state(struct thread *t, uint32_t state);
/* Whether the thread was last seen on this CPU: then waiting for it means letting it run.  Says where we are. */
static inline bool trap_is_beside(struct engine *e, const struct thread *t)
{
    uint32_t cpu = current_cpu();
    if (e->shared->engine_cpu != cpu)
        __atomic_store_n(&e->shared->engine_cpu, cpu, __ATOMIC_RELEASE);
    return t->record && __atomic_load_n(&t->record->cpu, __ATOMIC_RELAXED) == cpu;
}
void trap_take_death(struct engine *e, int pid);
void trap_collect_deaths(struct engine *e);

/* trap_order.c */
int64_t trap_order(struct engine *e, struct thread *t, uint64_t nr, const uint64_t args[6]);
int trap_await_done(struct engine *e, struct thread *t);

/* trap_record.c: records, and the memfd of a process that they lie in. */
int record_make(struct thread *leader, struct thread *t, uint32_t index, uint64_t address);
uint64_t record_address(const struct thread *leader, uint32_t index);
int record_index(struct thread *leader, uint32_t *index);
void record_unmap(struct thread *t);
void record_drop(struct thread *t);
void record_drop_process(struct thread *leader);
void record_copy(struct record *to, const struct record *from, uint64_t address);
