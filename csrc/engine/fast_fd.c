/* Fast paths on descriptors: dup, close, fcntl with its locks.  The twins are in sentry/syscalls/descriptors.py. */
#include "fast.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define SET_BY_US (uint32_t)(O_APPEND | O_NONBLOCK)
#define SETTABLE (uint32_t)(O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC)

int call_number(struct call *c, uint32_t from)
{
    struct fd_table *table = c->t->g.files;
    uint32_t fd;
    if (from >= table->limit || descriptor_count >= MAX_DESCRIPTORS)
        return -1;
    fd = fd_table_free(table, from);
    return fd < table->size && fd < table->limit ? (int)fd : -1;
}

static int duplicate(struct call *c, struct vfile *f, uint32_t from, bool cloexec)
{
    int fd = f ? call_number(c, from) : -1;
    if (fd < 0)
        return FAST_PASS;
    f->refs++;
    fd_table_put(c->t->g.files, (uint32_t)fd, f, cloexec);
    return call_return(c, fd);
}

int fast_dup(struct call *c)
{
    return duplicate(c, call_file(c, c->args[0]), 0, false);
}

static int duplicate_to(struct call *c, uint32_t fd, bool cloexec)
{
    struct fd_table *table = c->t->g.files;
    struct vfile *f = call_file(c, c->args[0]), *old;
    if (!f || fd >= table->size || fd >= table->limit)
        return FAST_PASS;
    old = table->files[fd];
    if (!old && descriptor_count >= MAX_DESCRIPTORS)
        return FAST_PASS;
    f->refs++;
    if (old && !vfile_close(old, table->owner, 1)) {
        f->refs--;
        return FAST_PASS;
    }
    if (old)
        fd_table_take(table, fd);
    fd_table_put(table, fd, f, cloexec);
    return call_return(c, fd);
}

int fast_dup2(struct call *c)
{
    uint32_t fd = (uint32_t)c->args[1];
    if (fd == (uint32_t)c->args[0])
        return call_file(c, fd) ? call_return(c, fd) : FAST_PASS;
    return duplicate_to(c, fd, false);
}

int fast_dup3(struct call *c)
{
    uint32_t fd = (uint32_t)c->args[1], flags = (uint32_t)c->args[2];
    if (fd == (uint32_t)c->args[0] || flags & ~(uint32_t)O_CLOEXEC)
        return FAST_PASS;
    return duplicate_to(c, fd, flags != 0);
}

int fast_close(struct call *c)
{
    struct fd_table *table = c->t->g.files;
    struct vfile *f = call_file(c, c->args[0]);
    if (!f && table)
        return call_return(c, -EBADF);
    if (!f || !vfile_close(f, table->owner, 1))
        return FAST_PASS;
    fd_table_take(table, (uint32_t)c->args[0]);
    return call_return(c, 0);
}

static int set_flags(struct call *c, struct vfile *f, uint32_t flags)
{
    if (f->kind == VFILE_PYTHON || (f->flags ^ flags) & SETTABLE & ~SET_BY_US)
        return FAST_PASS;
    if ((f->flags ^ flags) & O_APPEND && !(f->node->flags & VNODE_LIVE)) /* it may have to stay (FS_APPEND_FL) */
        return FAST_PASS;
    f->flags = (f->flags & ~SET_BY_US) | (flags & SET_BY_US);
    return call_return(c, 0);
}

/* What the guest says in struct flock, as a range: false for what Python has to look at. */
static bool lock_range(const struct vfile *f, const struct flock *flock, struct record_lock *lock)
{
    int64_t start = flock->l_start, length = flock->l_len;
    if (flock->l_whence != SEEK_SET && flock->l_whence != SEEK_CUR)
        return false;
    if (flock->l_whence == SEEK_CUR && __builtin_add_overflow(start, f->pos, &start))
        return false;
    if (start < 0 || length < 0 || (length && length - 1 > INT64_MAX - start))
        return false;
    lock->start = start;
    lock->end = length ? start + (length - 1) : INT64_MAX;
    return true;
}

static int test_lock(struct call *c, const struct vfile *f, struct flock flock, const struct record_lock *lock)
{
    const struct record_lock *found = locks_conflict(f->node, lock);
    if (lock->kind == LOCK_CLEAR && lock->owner != (uintptr_t)f)
        return FAST_PASS;
    flock.l_type = F_UNLCK;
    if (found) {
        memset(&flock, 0, sizeof flock);
        flock.l_type = (short)found->kind;
        flock.l_whence = SEEK_SET;
        flock.l_start = found->start;
        flock.l_len = found->end == INT64_MAX ? 0 : found->end - found->start + 1;
        flock.l_pid = found->pid;
    }
    memcpy(c->out, &flock, sizeof flock);
    c->out_addr = c->args[2];
    c->out_size = sizeof flock;
    return call_return(c, 0);
}

/* F_GETLK, F_SETLK, F_SETLKW, and with `ofd` their kin.  Only Python waits, and knows processes of other namespaces.
 * What it has not met (lent.py) may have another vnode later. */
static int lock_call(struct call *c, struct vfile *f, int command, bool ofd)
{
    struct record_lock lock;
    struct flock flock;
    int r;
    if (f->spare || f->node->guarded || c->t->g.task_nested)
        return FAST_PASS;
    if (call_in(c, c->args[2], &flock, sizeof flock) < 0 || !lock_range(f, &flock, &lock))
        return FAST_PASS;
    if (flock.l_type < 0 || flock.l_type > F_UNLCK || (ofd && flock.l_pid))
        return FAST_PASS;
    lock.kind = flock.l_type;
    lock.owner = ofd ? (uintptr_t)f : c->t->g.files->owner;
    lock.pid = ofd ? -1 : c->t->g.task_tgid;
    if (command == F_GETLK)
        return test_lock(c, f, flock, &lock);
    if ((lock.kind == LOCK_SHARED && !vfile_readable(f)) || (lock.kind == LOCK_EXCLUSIVE && !vfile_writable(f)))
        return call_return(c, -EBADF);
    if (lock.kind != LOCK_CLEAR && locks_conflict(f->node, &lock))
        return command == F_SETLK ? call_return(c, -EAGAIN) : FAST_PASS;
    r = locks_set(f->node, &lock);
    return r < 0 ? FAST_PASS : call_return(c, 0);
}

int fast_fcntl(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    const uint32_t fd = (uint32_t)c->args[0];
    if (!f)
        return FAST_PASS;
    switch ((int32_t)c->args[1]) {
    case F_GETFD:
        return call_return(c, c->t->g.files->cloexec[fd] ? FD_CLOEXEC : 0);
    case F_SETFD:
        c->t->g.files->cloexec[fd] = c->args[2] & FD_CLOEXEC ? 1 : 0;
        return call_return(c, 0);
    case F_GETFL:
        return call_return(c, f->flags);
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return duplicate(c, f, (uint32_t)c->args[2], (int32_t)c->args[1] == F_DUPFD_CLOEXEC);
    }
    if (f->flags & O_PATH)
        return FAST_PASS;
    switch ((int32_t)c->args[1]) {
    case F_SETFL:
        return set_flags(c, f, (uint32_t)c->args[2]);
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW:
        return lock_call(c, f, (int32_t)c->args[1], false);
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
        return lock_call(c, f, (int32_t)c->args[1] - F_OFD_GETLK + F_GETLK, true);
    }
    return FAST_PASS;
}
