/* Threads and processes, made by a stub on the Sentry's order.
 *
 * The clone is reported; with the answer comes the memfd that the child's record lies in, which is the first thing
 * that the child maps.  Then its record says that it is there.  A child process is a child of the Sentry's
 * (CLONE_PARENT).
 */
#include "trap.h"

#include <errno.h>
#include <linux/sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STRANGERS 65536

static bool kill_stranger(struct engine *e, int pid)
{
    int status;
    if (thread_find(e, pid) || syscall(SYS_wait4, (long)pid, &status, (long)(WNOHANG | __WALL), NULL) != 0)
        return false;
    kill(pid, SIGKILL);
    return true;
}

/* A clone went wrong, and there may be a process of which we know nothing: a child of ours that has no thread.
 * Where the parent has forged its id, too, we have to search; the host gives ids in turn. */
static void kill_lost_child(struct engine *e, uint32_t pid)
{
    int i;
    if (pid > 0 && pid < PID_LIMIT && kill_stranger(e, (int)pid))
        return;
    for (i = 1; i < STRANGERS; i++) {
        kill_stranger(e, i);
        if (e->newest_pid + i < PID_LIMIT)
            kill_stranger(e, e->newest_pid + i);
    }
}

/* Records of the child: in its own memfd for a process, in the leader's for a thread. */
static int make_child_record(struct thread *t, struct thread *child, bool thread)
{
    uint32_t index = 0;
    int r;
    if (thread) {
        r = record_index(t->leader, &index);
        if (r < 0)
            return r;
        r = record_make(t->leader, child, index, record_address(t->leader, index));
    } else {
        child->first_record = t->record_at;
        child->record_count = 1;
        child->record_fd = memfd_create("record", MFD_CLOEXEC);
        if (child->record_fd < 0)
            return -ENOMEM;
        r = ftruncate(child->record_fd, RECORD_SIZE) < 0 ? -ENOMEM : record_make(child, child, 0, t->record_at);
    }
    if (r < 0)
        return r;
    if (thread) {
        memset(child->record, 0, sizeof *child->record);
        child->record->state = RECORD_BIRTH;
        child->record->self = child->record_at;
        child->record->path = PATH_DIRECT;
    } else {
        record_copy(child->record, t->record, t->record_at);
    }
    return 0;
}

/* The id of who was just made.  The parent could have forged it, but whom could it name?  Only a child of ours, or a
 * thread of its own process, whom we do not know: there are no others. */
static int meet(struct engine *e, struct thread *t, struct thread *child, bool thread)
{
    uint32_t pid = __atomic_load_n(&t->record->child, __ATOMIC_ACQUIRE);
    struct thread *known;
    int status;
    known = pid < PID_LIMIT ? thread_find(e, (int)pid) : NULL;
    if (pid == 0 || pid >= PID_LIMIT || (known && syscall(SYS_tgkill, known->g.tgid, known->g.pid, 0) == 0)) {
        if (!thread)
            kill_lost_child(e, 0);
        return -EPERM;
    }
    if (known) /* a thread that has ended itself, and its id was given again */
        thread_unlist_pid(e, known);
    if (thread) {
        if (syscall(SYS_tgkill, t->g.tgid, (long)pid, 0) < 0)
            return -EPERM;
        child->g.tgid = t->g.tgid;
        t->leader->thread_count++;
    } else {
        long r = syscall(SYS_wait4, (long)pid, &status, (long)(WNOHANG | __WALL), NULL);
        if (r > 0)
            return -EAGAIN; /* killed before we got to know it: out of memory, maybe */
        if (r < 0) {
            kill_lost_child(e, pid);
            return -EPERM;
        }
        child->thread_count = 1;
    }
    thread_name(e, child, (int)pid);
    if (thread)
        child->g.tgid = t->g.tgid;
    return 0;
}

static int64_t clone_order(struct engine *e, struct thread *t, struct thread *child, bool thread)
{
    const uint64_t kind = thread ? CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM
                                 : CLONE_PARENT | SIGCHLD;
    const uint64_t flags = kind | CLONE_PARENT_SETTID, id_at = t->record_at + R_CHILD;
    const uint64_t args[6] = {flags, child->record_at, (uint64_t)child->record_number * RECORD_SIZE, id_at};
    struct notified clone = {.pid = t->g.pid,
                             .nr = SYS_clone,
                             .args = {flags, 0, id_at},
                             .fds = &child->leader->record_fd,
                             .fd_count = 1};
    int64_t r;
    t->record->child = 0;
    r = trap_notified_order(e, t, ORDER_CLONE, args, &clone);
    if (r >= 0)
        r = clone.made ? meet(e, t, child, thread) : -EPERM;
    else if (clone.made && !thread)
        kill_lost_child(e, 0); /* it may say that there is no child when there is one */
    if (r >= 0)
        r = trap_await_done(e, child);
    else if (clone.made && thread && r == -EPERM) {
        kill(t->g.tgid, SIGKILL);
        r = -ESRCH;
    }
    return r;
}

/* Make one more thread of g's process (thread != 0), or a copy-on-write clone of the process.  `first`: arguments of an
 * mmap that the child makes before it says that it is there. */
static int clone_once(struct engine *e, struct guest_thread *g, int thread, const uint64_t *first,
                      struct guest_thread **result)
{
    struct thread *t = of_guest(g), *child;
    int64_t r;

    if (g->state != THREAD_STOPPED || !t->record)
        return -ESRCH;
    child = thread_alloc(e);
    if (!child)
        return -ENOMEM;
    child->record_fd = -1;
    child->g.state = THREAD_STOPPED;
    if (thread)
        child->leader = t->leader;
    else
        place_home(e, t);
    child->spread = t->spread;
    r = make_child_record(t, child, thread);
    if (r == 0) {
        child->record->nr = first ? SYS_mmap : 0;
        if (first)
            memcpy(child->record->args, first, sizeof child->record->args);
    }
    if (r == 0)
        r = clone_order(e, t, child, thread);
    if (r >= 0 && first)
        r = trap_result(child);
    if (r < 0)
        goto fail;
    child->g.regs = g->regs;
    if (thread) {
        static uint8_t state[XSTATE_MAX];
        int size = trap_get_fpstate(g, state, sizeof state);
        if (size > 0)
            trap_set_fpstate(&child->g, state, (uint32_t)size);
    }
    *result = &child->g;
    return 0;
fail:
    if (child->g.pid && !thread && child->g.state == THREAD_STOPPED) {
        kill(child->g.pid, SIGKILL);
        trap_forget(e, &child->g);
        return (int)r;
    }
    record_drop(child);
    if (!thread)
        record_drop_process(child);
    thread_free(e, child);
    return (int)r;
}

/* A kick that was sent before the trap may interrupt a call that waits for our leave. */
static int clone_tried(struct engine *e, struct guest_thread *g, int thread, const uint64_t *first,
                       struct guest_thread **result)
{
    int r, tries = 0;
    do
        r = clone_once(e, g, thread, first, result);
    while (r == -EINTR && tries++ < 8);
    return r;
}

int trap_clone(struct engine *e, struct guest_thread *g, int thread, struct guest_thread **result)
{
    return clone_tried(e, g, thread, NULL, result);
}

int trap_clone_with(struct engine *e, struct guest_thread *g, uint64_t addr, uint64_t size, int prot,
                    struct guest_thread **result)
{
    const uint64_t first[6] = {addr, size, (uint64_t)prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, ~0ull, 0};
    return clone_tried(e, g, 0, first, result);
}

/* End a thread that is not its process's leader. */
int trap_exit_thread(struct engine *e, struct guest_thread *g)
{
    struct thread *t = of_guest(g);
    if (t->leader == t)
        return -EINVAL;
    trap_order(e, t, ORDER_EXIT, (uint64_t[6]){0});
    t->leader->thread_count--;
    record_drop(t);
    thread_free(e, t);
    return 0;
}
