/* Which platform it is, for the calls that Python makes. */
#include "core.h"
#include "trap.h"

#include <errno.h>
#include <signal.h>

void engine_use_trap(struct engine *e)
{
    e->trap = true;
}

#define CHOOSE(e, name) ((e)->trap ? trap_##name : ptrace_##name)

int guest_resume(struct engine *e, struct guest_thread *g)
{
    return CHOOSE(e, resume)(e, g);
}

/* Stored before the caller looks at the signal mask: see do_sigprocmask in csrc/stub/answer.c. */
void guest_set_pending(struct guest_thread *g, uint64_t bits)
{
    __atomic_store_n(&g->hot->pending, bits, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

int guest_kick(struct engine *e, struct guest_thread *g)
{
    return CHOOSE(e, kick)(e, g);
}

int guest_stop(struct engine *e, struct guest_thread *g)
{
    return CHOOSE(e, stop)(e, g);
}

int guest_get_fpstate(struct engine *e, struct guest_thread *g, void *buffer, uint32_t size)
{
    return CHOOSE(e, get_fpstate)(g, buffer, size);
}

int guest_set_fpstate(struct engine *e, struct guest_thread *g, const void *buffer, uint32_t size)
{
    return CHOOSE(e, set_fpstate)(g, buffer, size);
}

int guest_kill(struct engine *e, struct guest_thread *leader)
{
    (void)e;
    if (leader->state != THREAD_FREE && leader->state != THREAD_DEAD)
        kill(leader->pid, SIGKILL);
    return 0;
}

int guest_forget(struct engine *e, struct guest_thread *g)
{
    return CHOOSE(e, forget)(e, g);
}

int guest_reap(struct engine *e)
{
    return CHOOSE(e, reap)(e);
}

int64_t guest_syscall(struct engine *e, struct guest_thread *g, uint64_t number, uint64_t a0, uint64_t a1,
                      uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5)
{
    return CHOOSE(e, syscall)(e, g, number, a0, a1, a2, a3, a4, a5);
}

int guest_blocked(const struct engine *e, const struct guest_thread *g)
{
    const struct thread *t = (const struct thread *)g;
    return e->trap && t->record && t->record->blocked != 0;
}

int guest_ask(struct engine *e, struct guest_thread *g, uint64_t nr, uint64_t what, void *buffer, uint32_t size)
{
    return e->trap ? trap_ask(e, g, nr, what, buffer, size) : -ENOSYS;
}

int64_t guest_cmpxchg32(struct engine *e, struct guest_thread *g, uint64_t addr, uint32_t expected,
                        uint32_t wanted)
{
    return CHOOSE(e, cmpxchg32)(e, g, addr, expected, wanted);
}

int guest_clone(struct engine *e, struct guest_thread *g, int thread, struct guest_thread **child)
{
    return CHOOSE(e, clone)(e, g, thread, child);
}

int guest_clone_with(struct engine *e, struct guest_thread *g, uint64_t addr, uint64_t size, int prot,
                     struct guest_thread **child)
{
    return CHOOSE(e, clone_with)(e, g, addr, size, prot, child);
}

int guest_write_code(struct engine *e, struct guest_thread *g, uint64_t addr, const void *data, uint32_t size,
                     int prot)
{
    return e->trap ? trap_write_code(e, g, addr, data, size, prot) : -ENOSYS;
}

int guest_become(struct engine *e, struct guest_thread *g, struct guest_thread *like)
{
    static uint8_t state[XSTATE_MAX];
    int size = guest_get_fpstate(e, like, state, sizeof state);
    g->regs = like->regs;
    return size < 0 ? size : guest_set_fpstate(e, g, state, (uint32_t)size);
}

int guest_exit_thread(struct engine *e, struct guest_thread *g)
{
    return CHOOSE(e, exit_thread)(e, g);
}

int64_t guest_map_file(struct engine *e, struct guest_thread *g, uint64_t addr, uint64_t size, int prot,
                       int flags, int host_fd, uint64_t offset)
{
    return CHOOSE(e, map_file)(e, g, addr, size, prot, flags, host_fd, offset);
}
