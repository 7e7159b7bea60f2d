/* What the files of the `trap` platform know of each other. */
#pragma once
#include "core.h"
#include "notify.h"
#include "record.h"

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
void trap_no_longer_kicked(struct engine *e, struct thread *t);

bool trap_yield(struct engine *e);

/* trap_death.c */
void trap_take_death(struct engine *e, int pid);
void trap_collect_deaths(struct engine *e);

/* trap_place.c */
#define AWAY_NS 1000000ull
void place_zygote(struct engine *e, struct guest_thread *zygote);
void place_settle(struct engine *e);
void place_unsettle(struct engine *e);
void place_away(struct engine *e, struct thread *t);
void place_home(struct engine *e, struct thread *t);
void place_served(struct engine *e, struct thread *t);
void place_slow(struct thread *t);
bool place_check(struct engine *e, uint64_t now);
bool place_wants_check(const struct engine *e);

/* trap_order.c: each gives the order's result, or -ESRCH where the thread is gone. */
/* Of the order that is done: what its thread says, or -errno. */
int64_t trap_result(const struct thread *t);
int64_t trap_order(struct engine *e, struct thread *t, uint64_t nr, const uint64_t args[6]);
int trap_ask(struct engine *e, struct guest_thread *g, uint64_t nr, uint64_t what, void *buffer, uint32_t size);
/* One in whose course the filter reports the call `n`. */
int64_t trap_notified_order(struct engine *e, struct thread *t, uint64_t nr, const uint64_t args[6],
                            struct notified *n);
/* Until the thread has answered: 0, or -ESRCH. */
int trap_await_done(struct engine *e, struct thread *t);

/* trap_record.c: records, and the memfd of a process that they lie in. */
int record_make(struct thread *leader, struct thread *t, uint32_t index, uint64_t address);
uint64_t record_address(const struct thread *leader, uint32_t index);
int record_index(struct thread *leader, uint32_t *index);
void record_unmap(struct thread *t);
void record_drop(struct thread *t);
void record_drop_process(struct thread *leader);
void record_copy(struct record *to, const struct record *from, uint64_t address);
