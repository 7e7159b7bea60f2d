/* Orders: what a stub's thread does for the Sentry while the Sentry owns it.
 *
 * The engine writes the order into the thread's record and waits for the answer; the stub is most often still
 * spinning and answers at once.  Calls that the stub's filter reports (a file to be mapped, a clone, mremap) come
 * back as a seccomp notification; it is compared with the order, by what the kernel says of the caller and never by
 * what the stub says, and only then let go on.
 *
 * A stub that does not answer is killed: its memory may have been overwritten by its own program.
 */
#include "trap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SPINS 3000
#define YIELDS 40
#define NAP_NS 20000000l
/* Far more than any honest order takes: munmap of tens of gigabytes, say.  All others wait meanwhile, so whoever
 * has once met a stub that did not answer has less patience with the next. */
#define PATIENCE_NS 10000000000ull
#define LEAST_PATIENCE_NS 500000000ull
#define SLICE_NS 8000000ull /* for each thread that may want the CPU first */
#define STRANGERS 65536

static uint32_t state_of(const struct thread *t)
{
    return __atomic_load_n(&t->record->state, __ATOMIC_ACQUIRE);
}

static bool is_gone(struct engine *e, struct thread *t)
{
    trap_collect_deaths(e);
    return t->g.state == THREAD_DEAD || t->g.state == THREAD_FREE;
}

struct patience {
    uint64_t last, spent;
};

/* The time that a sandbox was frozen does not count. */
static bool is_too_long(struct engine *e, struct patience *p)
{
    uint64_t now = now_ns(), passed = now - p->last, limit = PATIENCE_NS >> e->impatience;
    p->last = now;
    p->spent += passed < 2 * NAP_NS ? passed : 2 * NAP_NS;
    if (limit < LEAST_PATIENCE_NS)
        limit = LEAST_PATIENCE_NS;
    if (p->spent < limit + e->running_count * SLICE_NS)
        return false;
    e->impatience += e->impatience < 16;
    return true;
}

/* A thread that has an order is in one of these states, or it has been tampered with. */
static bool may_answer(uint32_t state)
{
    return state == RECORD_ORDER || state == RECORD_DONE || state == RECORD_BIRTH;
}

/* Until the thread has answered: 0, or -ESRCH. */
int trap_await_done(struct engine *e, struct thread *t)
{
    struct record *r = t->record;
    struct timespec nap = {0, NAP_NS};
    struct patience patience = {0, 0};
    int spins = 0, yields = 0;
    while (yields < YIELDS) {
        if (state_of(t) == RECORD_DONE)
            return 0;
        if (trap_is_beside(e, t) || ++spins > SPINS) {
            sched_yield();
            yields++;
        } else {
            __builtin_ia32_pause();
        }
    }
    patience.last = now_ns();
    for (;;) {
        uint32_t state;
        __atomic_store_n(&r->engine_waits, 1, __ATOMIC_SEQ_CST);
        state = state_of(t);
        if (state == RECORD_ORDER || state == RECORD_BIRTH)
            syscall(SYS_futex, &r->state, FUTEX_WAIT, state, &nap, NULL, 0);
        r->engine_waits = 0;
        if (state_of(t) == RECORD_DONE)
            return 0;
        if (is_gone(e, t))
            return -ESRCH;
        if (!may_answer(state) || is_too_long(e, &patience)) {
            kill(t->g.tgid, SIGKILL);
            return -ESRCH;
        }
    }
}

static int give(struct thread *t, uint64_t nr, const uint64_t args[6])
{
    struct record *r = t->record;
    if (t->g.state != THREAD_STOPPED || !r)
        return t->g.state == THREAD_RUNNING ? -EBUSY : -ESRCH;
    r->order_nr = nr;
    memcpy(r->order_args, args, sizeof r->order_args);
    trap_is_beside(t->engine, t);
    trap_store_state(t, RECORD_ORDER);
    return 0;
}

/* The order's result, or -ESRCH where the thread is gone. */
int64_t trap_order(struct engine *e, struct thread *t, uint64_t nr, const uint64_t args[6])
{
    int r = give(t, nr, args);
    if (r == 0)
        r = trap_await_done(e, t);
    return r < 0 ? r : t->record->order_result;
}

static int answer(struct engine *e, uint64_t id, int error, uint32_t flags)
{
    struct seccomp_notif_resp resp = {.id = id, .error = error, .flags = flags};
    if (ioctl(e->listener, SECCOMP_IOCTL_NOTIF_SEND, &resp) < 0 && errno != ENOENT)
        return -errno;
    return 0;
}

/* The parent could have forged the id, but only to have one of its own accomplices for a child: not somebody
 * whom we know.  (A thread that has ended itself is known, too, and its id may be given again.) */
static bool is_newborn(struct engine *e, uint32_t pid, const uint32_t *child)
{
    struct thread *known;
    if (pid != __atomic_load_n(child, __ATOMIC_ACQUIRE))
        return false;
    known = thread_find(e, (int)pid);
    if (known && syscall(SYS_tgkill, known->g.tgid, known->g.pid, 0) == 0)
        return false;
    if (known)
        thread_unlist_pid(e, known);
    return true;
}

static bool is_expected(struct engine *e, const struct seccomp_notif *req, const struct notified *n)
{
    if (n->child ? !is_newborn(e, req->pid, n->child) : req->pid != (uint32_t)n->pid)
        return false;
    return req->data.nr == n->nr && req->data.arch == AUDIT_ARCH_X86_64 &&
           memcmp(req->data.args, n->args, sizeof n->args) == 0;
}

/* One notification is there, or was a moment ago. */
static int serve(struct engine *e, struct notified *n)
{
    struct seccomp_notif req;
    struct seccomp_notif_addfd add = {
        .flags = SECCOMP_ADDFD_FLAG_SETFD, .newfd = LENT_FD, .newfd_flags = O_CLOEXEC};
    memset(&req, 0, sizeof req);
    if (ioctl(e->listener, SECCOMP_IOCTL_NOTIF_RECV, &req) < 0)
        return errno == ENOENT || errno == EINTR ? 0 : -errno;
    if (!is_expected(e, &req, n))
        return answer(e, req.id, -EPERM, 0);
    if (n->fd >= 0) {
        add.id = req.id;
        add.srcfd = (uint32_t)n->fd;
        while (ioctl(e->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0) {
            if (errno == EINTR)
                continue;
            if (errno == ENOENT || errno == ESRCH || errno == EINPROGRESS)
                return 0;
            return answer(e, req.id, -errno, 0);
        }
    }
    n->caller = (int)req.pid;
    return answer(e, req.id, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

/* A new process was killed before we got to know it: out of memory, maybe. */
static bool is_dead_child(const uint32_t *child)
{
    uint32_t pid = __atomic_load_n(child, __ATOMIC_ACQUIRE);
    return pid > 0 && pid < PID_LIMIT && kill((int)pid, 0) < 0 && errno == ESRCH;
}

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
static void kill_lost_child(struct engine *e, const uint32_t *child)
{
    uint32_t pid = __atomic_load_n(child, __ATOMIC_ACQUIRE);
    int i;
    if (pid > 0 && pid < PID_LIMIT && kill_stranger(e, (int)pid))
        return;
    for (i = 1; i < STRANGERS; i++) {
        kill_stranger(e, i);
        if (e->newest_pid + i < PID_LIMIT)
            kill_stranger(e, e->newest_pid + i);
    }
}

/* Wait for the call and let it go on.  0 also when `t` has answered its order without making it. */
static int await_notified(struct engine *e, struct thread *t, struct notified *n, bool until_done)
{
    struct pollfd listener = {.fd = e->listener, .events = POLLIN};
    const struct timespec nap = {0, NAP_NS};
    struct patience patience = {now_ns(), 0};
    uint32_t round;
    for (round = 1;; round++) {
        int ready = ppoll(&listener, 1, &nap, NULL), r = 0;
        if (ready > 0 && listener.revents & POLLIN)
            r = serve(e, n);
        else if (ready > 0) /* POLLHUP: nobody has the filter any more */
            r = -ESRCH;
        if (r < 0 || n->caller)
            return r;
        /* A clone may fail or be interrupted after we have let it go on: then nobody is born. */
        if (state_of(t) == RECORD_DONE && (until_done || t->record->order_result < 0))
            return 0;
        /* Other calls, which nobody ordered, may come as fast as we refuse them. */
        if (ready <= 0 || round % 64 == 0) {
            if (is_gone(e, t))
                return -ESRCH;
            if (n->child && is_dead_child(n->child))
                return -EAGAIN;
        }
        if (!may_answer(state_of(t)) || is_too_long(e, &patience)) {
            kill(t->g.tgid, SIGKILL);
            return -ESRCH;
        }
    }
}

/* A system call that the filter reports: its result, or -ESRCH. */
static int64_t try_notified_call(struct engine *e, struct thread *t, int nr, const uint64_t args[6], int fd)
{
    struct notified n = {.pid = t->g.pid, .nr = nr, .fd = fd};
    int r;
    memcpy(n.args, args, sizeof n.args);
    r = give(t, (uint64_t)nr, args);
    if (r == 0)
        r = await_notified(e, t, &n, true);
    if (r == 0)
        r = trap_await_done(e, t);
    return r < 0 ? r : t->record->order_result;
}

/* A kick that was sent before the thread trapped may arrive only now, and interrupt it: again. */
static int64_t notified_call(struct engine *e, struct thread *t, int nr, const uint64_t args[6], int fd)
{
    int tries = 0;
    int64_t r;
    do
        r = try_notified_call(e, t, nr, args, fd);
    while (r == -EINTR && tries++ < 8);
    return r;
}

int64_t trap_syscall(struct engine *e, struct guest_thread *g, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2,
                     uint64_t a3, uint64_t a4, uint64_t a5)
{
    const uint64_t args[6] = {a0, a1, a2, a3, a4, a5};
    if (nr == SYS_mremap)
        return notified_call(e, of_guest(g), SYS_mremap, args, -1);
    return trap_order(e, of_guest(g), nr, args);
}

int64_t trap_cmpxchg32(struct engine *e, struct guest_thread *g, uint64_t addr, uint32_t expected, uint32_t wanted)
{
    int64_t r;
    if (addr & 3 || addr >= STUB_BASE)
        return -EFAULT;
    r = trap_order(e, of_guest(g), ORDER_CMPXCHG, (uint64_t[6]){addr, expected, wanted});
    return r == -1 ? -EFAULT : r < 0 ? r : (int64_t)(uint32_t)r;
}

int64_t trap_map_file(struct engine *e, struct guest_thread *g, uint64_t addr, uint64_t size, int prot, int flags,
                      int host_fd, uint64_t offset)
{
    struct thread *t = of_guest(g);
    int64_t mapped = notified_call(
        e, t, SYS_mmap, (uint64_t[6]){addr, size, (uint64_t)prot, (uint64_t)flags, LENT_FD, offset}, host_fd);
    /* Also where mmap failed: the descriptor may have got there.  EBADF says that it had not. */
    int64_t r = trap_order(e, t, SYS_close, (uint64_t[6]){LENT_FD});
    if (mapped < 0)
        return mapped;
    return r == -ESRCH ? r : 0;
}

/* Change code under threads that may be executing it: mprotect interrupts every processor that runs the address
 * space, and never takes away the right to execute.  Code that others may execute is one aligned word, written by one
 * store of the stub's.  More than that is code that nobody executes yet, in a page where they may execute
 * something else. */
int trap_write_code(struct engine *e, struct guest_thread *g, uint64_t addr, const void *data, uint32_t size, int prot)
{
    struct thread *t = of_guest(g);
    uint64_t first = addr & ~0xfffull, length = ((addr + size + 0xfff) & ~0xfffull) - first, word;
    uint32_t skip = addr & 7;
    int64_t r;
    if (skip + size <= 8) {
        if (memory_read(g->tgid, addr - skip, &word, 8) != 8)
            return -EFAULT;
        memcpy((uint8_t *)&word + skip, data, size);
        return (int)trap_order(e, t, ORDER_STORE, (uint64_t[6]){addr - skip, word, first, length, (uint64_t)prot});
    }
    r = trap_order(e, t, SYS_mprotect, (uint64_t[6]){first, length, PROT_READ | PROT_WRITE | PROT_EXEC});
    if (r == 0) {
        if (memory_write(g->tgid, addr, data, size) != (int64_t)size)
            r = -EFAULT;
        if (trap_order(e, t, SYS_mprotect, (uint64_t[6]){first, length, (uint64_t)prot}) == -ESRCH)
            r = -ESRCH;
    }
    return (int)r;
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

/* Make one more thread of g's process (thread != 0), or a copy-on-write clone of the process. */
static int clone_once(struct engine *e, struct guest_thread *g, int thread, struct guest_thread **result)
{
    const uint64_t kind = thread ? CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM
                                 : CLONE_PARENT | SIGCHLD;
    const uint64_t flags = kind | CLONE_PARENT_SETTID;
    struct thread *t = of_guest(g), *child;
    const uint64_t id_at = t->record_at + R_CHILD;
    struct notified clone = {.pid = g->pid, .nr = SYS_clone, .args = {flags, 0, id_at}, .fd = -1};
    struct notified birth = {.nr = SYS_mmap, .fd = -1};
    int fd, r;

    if (g->state != THREAD_STOPPED || !t->record)
        return -ESRCH;
    child = thread_alloc(e);
    if (!child)
        return -ENOMEM;
    child->record_fd = -1;
    child->g.state = THREAD_STOPPED;
    if (thread)
        child->leader = t->leader;
    r = make_child_record(t, child, thread);
    if (r < 0)
        goto fail;
    fd = child->leader->record_fd;
    birth.fd = fd;
    birth.args[0] = child->record_at;
    birth.args[1] = RECORD_SIZE;
    birth.args[2] = PROT_READ | PROT_WRITE;
    birth.args[3] = MAP_SHARED | MAP_FIXED;
    birth.args[4] = LENT_FD;
    birth.args[5] = (uint64_t)child->record_number * RECORD_SIZE;
    t->record->child = 0;
    birth.child = &t->record->child;
    r = give(t, ORDER_CLONE, (uint64_t[6]){flags, child->record_at, birth.args[5], id_at});
    if (r == 0)
        r = await_notified(e, t, &clone, true);
    if (r < 0)
        goto fail;
    if (clone.caller) {
        r = await_notified(e, t, &birth, false);
        if (r < 0) {
            if (thread)
                kill(t->g.tgid, SIGKILL);
            else if (r != -EAGAIN)
                kill_lost_child(e, birth.child);
            goto fail;
        }
        if (birth.caller)
            thread_name(e, child, birth.caller);
        if (!birth.caller) {
            /* The order's result says why. */
        } else if (thread) {
            child->g.tgid = t->g.tgid;
            t->leader->thread_count++;
        } else {
            child->thread_count = 1;
        }
    }
    r = trap_await_done(e, t);
    if (r == 0 && t->record->order_result < 0)
        r = (int)t->record->order_result;
    if (r == 0 && !birth.caller)
        r = -EPERM;
    if (r == 0)
        r = trap_await_done(e, child);
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
    if (child->g.pid && !thread)
        kill(child->g.pid, SIGKILL);
    if (child->g.pid && !thread && child->g.state == THREAD_STOPPED) {
        trap_forget(e, &child->g);
        return r;
    }
    record_drop(child);
    if (!thread)
        record_drop_process(child);
    thread_free(e, child);
    return r;
}

/* A kick that was sent before the trap may interrupt a call that waits for our leave. */
int trap_clone(struct engine *e, struct guest_thread *g, int thread, struct guest_thread **result)
{
    int r, tries = 0;
    do
        r = clone_once(e, g, thread, result);
    while (r == -EINTR && tries++ < 8);
    return r;
}

/* End a thread that is not its process's leader. */
int trap_exit_thread(struct engine *e, struct guest_thread *g)
{
    struct thread *t = of_guest(g);
    if (t->leader == t)
        return -EINVAL;
    if (give(t, ORDER_EXIT, (uint64_t[6]){0}) == 0)
        trap_await_done(e, t);
    t->leader->thread_count--;
    record_drop(t);
    thread_free(e, t);
    return 0;
}

/* FP state.  In a signal frame it is memory of the record's stack; else it is in the thread's registers. */

/* Where the frame's FP area lies in the record, 0 where the guest has made nonsense of the frame. */
static uint64_t fp_area(const struct engine *e, const struct thread *t)
{
    const uint64_t fpstate_in_frame = 224;
    uint64_t frame = t->record->frame - t->record_at, area;
    if (frame < 0x1000 || frame > RECORD_STACK_TOP - 256 || frame & 7)
        return 0;
    area = *(uint64_t *)((char *)t->record + frame + fpstate_in_frame) - t->record_at;
    if (area < 0x1000 || area > RECORD_STACK_TOP - e->fpstate_size || area & 63)
        return 0;
    return area;
}

#define SOFTWARE 464 /* 48 bytes that belong to the kernel: in a frame, in a regset, not in XSAVE */

int trap_get_fpstate(struct guest_thread *g, void *buffer, uint32_t size)
{
    struct thread *t = of_guest(g);
    struct engine *e = t->engine;
    const char *from;
    if (g->state != THREAD_STOPPED || !t->record)
        return -ESRCH;
    if (size < e->fpstate_size)
        return -EINVAL;
    if (t->record->path == PATH_SIGNAL) {
        uint64_t area = fp_area(e, t);
        if (!area)
            return -ESRCH;
        from = (char *)t->record + area;
    } else {
        from = (char *)t->record + (t->record->fp_load ? RECORD_FP_LOAD : RECORD_FP_SAVED);
        if (!t->record->fp_load && !__atomic_load_n(&t->record->fp_saved, __ATOMIC_ACQUIRE) &&
            trap_order(e, t, ORDER_XSAVE, (uint64_t[6]){0}) < 0)
            return -ESRCH;
    }
    memcpy(buffer, from, e->fpstate_size);
    memcpy((char *)buffer + SOFTWARE, e->fp_software, sizeof e->fp_software);
    return (int)e->fpstate_size;
}

/* What the CPU would refuse: bits of mxcsr and features that it doesn't have, a header that is not zero. */
static bool fp_is_valid(const struct engine *e, const uint8_t *state)
{
    uint32_t mxcsr;
    uint64_t features;
    int i;
    memcpy(&mxcsr, state + 24, sizeof mxcsr);
    memcpy(&features, state + 512, sizeof features);
    if (mxcsr & ~e->mxcsr_mask || features & ~e->fp_features)
        return false;
    for (i = 520; i < 576; i++)
        if (state[i])
            return false;
    return true;
}

int trap_set_fpstate(struct guest_thread *g, const void *buffer, uint32_t size)
{
    struct thread *t = of_guest(g);
    struct engine *e = t->engine;
    if (g->state != THREAD_STOPPED || !t->record)
        return -ESRCH;
    if (size != e->fpstate_size || !fp_is_valid(e, buffer))
        return -EINVAL;
    if (t->record->path == PATH_SIGNAL) {
        uint64_t area = fp_area(e, t);
        char *to = (char *)t->record + area;
        if (!area)
            return -ESRCH;
        memcpy(to, buffer, SOFTWARE);
        memcpy(to + 512, (const char *)buffer + 512, size - 512);
        return 0;
    }
    memcpy((char *)t->record + RECORD_FP_LOAD, buffer, size);
    t->record->fp_load = 1;
    return 0;
}
