/* The ends of threads on the `trap` platform.
 *
 * Only processes are children of ours, and are reaped; their threads die with them.  A thread that
 * the guest ends behind our back is found out by a kick that nobody is there for (trap.c); its slot
 * and its record stay until Python has forgotten it and its process has been reaped.
 */
#include "trap.h"

#include <errno.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void trap_take_death(struct engine *e, int pid)
{
    struct thread *leader = thread_find(e, pid);
    uint32_t i;
    if (!leader || leader->leader != leader)
        return;
    for (i = 0; i < e->slot_count; i++) {
        struct thread *t = e->slots[i];
        if (t->g.state == THREAD_FREE || t->leader != leader || t == leader)
            continue;
        thread_died(e, t);
    }
    thread_died(e, leader);
}

void trap_collect_deaths(struct engine *e)
{
    int status;
    long pid;
    while ((pid = syscall(SYS_wait4, -1l, &status, (long)(WNOHANG | __WALL), NULL)) > 0)
        trap_take_death(e, (int)pid);
}

void thread_died(struct engine *e, struct thread *t)
{
    trap_no_longer_kicked(e, t);
    parking_end(t);
    thread_unlist_pid(e, t);
    t->gone = true;
    if (t->leader == t)
        record_drop_process(t);
    if (t->g.state == THREAD_DYING) {
        e->dying_count--;
        record_unmap(t);
        thread_free(e, t);
    } else if (t->g.state != THREAD_DEAD) {
        thread_set_ready(e, t, ENGINE_DEAD);
    }
}

/* Python drops the thread of a killed process; its slot is free once the process has been reaped.
 */
int trap_forget(struct engine *e, struct guest_thread *g)
{
    struct thread *t = of_guest(g);
    trap_no_longer_kicked(e, t);
    parking_end(t);
    switch (g->state) {
    case THREAD_FREE:
    case THREAD_DYING:
        return 0;
    case THREAD_DEAD:
        /* The thread may have ended alone; then its memory is still there. */
        if (t->gone) {
            record_unmap(t);
            thread_free(e, t);
            return 0;
        }
        break;
    case THREAD_RUNNING:
        e->running_count--;
    }
    list_remove(&t->link);
    g->state = THREAD_DYING;
    e->dying_count++;
    return 0;
}

int trap_reap(struct engine *e)
{
    while (e->dying_count) {
        int status;
        long pid = syscall(SYS_wait4, -1l, &status, (long)__WALL, NULL);
        if (pid > 0)
            trap_take_death(e, (int)pid);
        else if (errno != EINTR)
            return errno == ECHILD ? 0 : -errno;
    }
    return 0;
}
