/* The two platforms that run guests in host processes, by the same names (platform.c chooses). */
#pragma once
#include "engine.h"

#define PLATFORM(name)                                                                                        \
    int name##_resume(struct engine *e, struct guest_thread *g);                                              \
    int name##_kick(struct engine *e, struct guest_thread *g);                                                \
    int name##_stop(struct engine *e, struct guest_thread *g);                                                \
    int name##_get_fpstate(struct guest_thread *g, void *buffer, uint32_t size);                              \
    int name##_set_fpstate(struct guest_thread *g, const void *buffer, uint32_t size);                        \
    int name##_forget(struct engine *e, struct guest_thread *g);                                              \
    int name##_reap(struct engine *e);                                                                        \
    int64_t name##_syscall(struct engine *e, struct guest_thread *g, uint64_t number, uint64_t a0, uint64_t a1, \
                           uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5);                               \
    int64_t name##_cmpxchg32(struct engine *e, struct guest_thread *g, uint64_t addr, uint32_t expected,      \
                             uint32_t wanted);                                                                \
    int name##_clone(struct engine *e, struct guest_thread *g, int thread, struct guest_thread **child);      \
    int name##_clone_with(struct engine *e, struct guest_thread *g, uint64_t addr, uint64_t size, int prot,   \
                          struct guest_thread **child);                                                       \
    int name##_exit_thread(struct engine *e, struct guest_thread *g);                                         \
    int64_t name##_map_file(struct engine *e, struct guest_thread *g, uint64_t addr, uint64_t size, int prot, \
                            int flags, int host_fd, uint64_t offset)

PLATFORM(ptrace);
PLATFORM(trap);

int trap_write_code(struct engine *e, struct guest_thread *g, uint64_t addr, const void *data, uint32_t size,
                    int prot);

/* Before any other call about FP state; `g` is traced and stopped.  -ENOSYS: a CPU without XSAVE. */
int xstate_learn(struct engine *e, const struct guest_thread *g);
