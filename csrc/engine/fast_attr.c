/* Fast paths that set attributes: chmod, chown, utimensat and their kin, and what else an open file of ours is asked
 * that needs no file system: fsync, posix_fadvise, some ioctls.
 *
 * The twins are in sentry/syscalls/paths.py, file_space.py and descriptors.py, with the rules of sentry/fs/modify.py.
 * Only a file whose attributes are nobody else's (vnode.ours) is changed here; who may not do it, and what would touch a set-id bit, is Python's. */
#include "fast.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

#define SECOND_NS 1000000000ll
#define LATEST (1ll << 33) /* what a time stamp can be, seconds */
#define UNCHANGED 0xffffffffu
#define CAP_CHOWN 0
#define CAP_FOWNER 3

static bool capable(const struct vcred *cred, int cap)
{
    return cred->effective >> cap & 1;
}

/* The attributes to be changed, NULL where Python has to look. */
static struct vnode *writable_node(struct vnode *node, const struct vmount *mount, const struct dnode *d)
{
    if (!node || !mount || mount->flags & (MNT_READONLY | VMOUNT_FS_READONLY) || is_watched_at(node, d))
        return NULL;
    return node->ours && node->flags & VNODE_LIVE && !S_ISLNK(node->mode) ? node : NULL;
}

static struct vnode *node_of_file(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    return f && !(f->flags & O_PATH) && c->t->g.cred ? writable_node(f->node, f->mount, f->dnode) : NULL;
}

/* What a path names; *error is set where the walk is sure that there is nothing. */
static struct vnode *node_of_path(struct call *c, int32_t dirfd, uint64_t addr, uint32_t flags, int *error)
{
    struct path_walk w = call_walk_of(c, flags);
    int r = call_walk(c, &w, dirfd, addr);
    *error = r < 0 ? r : 0;
    return r ? NULL : writable_node(w.at->vnode, w.mount, w.at);
}

static int outcome(struct call *c, int error)
{
    return error ? call_return(c, error) : FAST_PASS;
}

static int change_mode(struct call *c, struct vnode *node, uint32_t mode)
{
    const struct vcred *cred = c->t->g.cred;
    if (mode & S_ISGID || (node->uid != cred->fsuid && !capable(cred, CAP_FOWNER)))
        return FAST_PASS;
    node->mode = (node->mode & ~07777u) | (mode & 07777);
    vnode_changed(node);
    return call_return(c, 0);
}

int fast_fchmod(struct call *c)
{
    struct vnode *node = node_of_file(c);
    return node ? change_mode(c, node, (uint32_t)c->args[1]) : FAST_PASS;
}

int fast_chmod(struct call *c)
{
    int error;
    struct vnode *node = node_of_path(c, AT_FDCWD, c->args[0], 0, &error);
    return node ? change_mode(c, node, (uint32_t)c->args[1]) : outcome(c, error);
}

int fast_fchmodat(struct call *c)
{
    int error;
    struct vnode *node = node_of_path(c, (int32_t)c->args[0], c->args[1], 0, &error);
    return node ? change_mode(c, node, (uint32_t)c->args[2]) : outcome(c, error);
}

static int change_owner(struct call *c, struct vnode *node, uint32_t uid, uint32_t gid)
{
    const struct vcred *cred = c->t->g.cred;
    const bool mine = node->uid == cred->fsuid;
    if (node->mode & (S_ISUID | S_ISGID) && !S_ISDIR(node->mode))
        return FAST_PASS;
    if (!capable(cred, CAP_CHOWN)) {
        if (uid != UNCHANGED && !(mine && uid == node->uid))
            return FAST_PASS;
        if (gid != UNCHANGED && !(mine && (gid == node->gid || gid == cred->fsgid)))
            return FAST_PASS;
    }
    if (uid != UNCHANGED)
        node->uid = uid;
    if (gid != UNCHANGED)
        node->gid = gid;
    vnode_changed(node);
    return call_return(c, 0);
}

int fast_fchown(struct call *c)
{
    struct vnode *node = node_of_file(c);
    return node ? change_owner(c, node, (uint32_t)c->args[1], (uint32_t)c->args[2]) : FAST_PASS;
}

int fast_fchownat(struct call *c)
{
    uint32_t flags = (uint32_t)c->args[4];
    struct vnode *node;
    int error;
    if (flags & ~(uint32_t)AT_SYMLINK_NOFOLLOW)
        return FAST_PASS;
    node = node_of_path(c, (int32_t)c->args[0], c->args[1], flags ? WALK_NOFOLLOW : 0, &error);
    return node ? change_owner(c, node, (uint32_t)c->args[2], (uint32_t)c->args[3]) : outcome(c, error);
}

/* In ns, `now` for UTIME_NOW, `old` for UTIME_OMIT; false for what can't be. */
static bool time_of(const struct timespec *time, int64_t now, int64_t old, int64_t *ns)
{
    int64_t seconds = time->tv_sec < -LATEST ? -LATEST : time->tv_sec > LATEST ? LATEST : time->tv_sec;
    if (time->tv_nsec == UTIME_NOW)
        *ns = now;
    else if (time->tv_nsec == UTIME_OMIT)
        *ns = old;
    else
        *ns = seconds * SECOND_NS + time->tv_nsec;
    return time->tv_nsec == UTIME_NOW || time->tv_nsec == UTIME_OMIT || (time->tv_nsec >= 0 && time->tv_nsec < SECOND_NS);
}

int fast_utimensat(struct call *c)
{
    struct timespec times[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}}, now;
    uint32_t flags = (uint32_t)c->args[3];
    const struct vcred *cred = c->t->g.cred;
    int64_t atime, mtime, wall;
    struct vnode *node;
    int error = 0;
    if (flags & ~(uint32_t)AT_SYMLINK_NOFOLLOW || (c->args[2] && call_in(c, c->args[2], times, sizeof times) < 0))
        return FAST_PASS;
    if (times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT)
        return FAST_PASS;
    clock_gettime(CLOCK_REALTIME, &now);
    wall = now.tv_sec * SECOND_NS + now.tv_nsec;
    if (!time_of(&times[0], wall, 0, &atime) || !time_of(&times[1], wall, 0, &mtime))
        return FAST_PASS;
    if (c->args[1])
        node = node_of_path(c, (int32_t)c->args[0], c->args[1], flags ? WALK_NOFOLLOW : 0, &error);
    else
        node = flags ? NULL : node_of_file(c);
    if (!node)
        return outcome(c, error);
    if (node->uid != cred->fsuid && !capable(cred, CAP_FOWNER))
        return FAST_PASS;
    if (times[0].tv_nsec != UTIME_OMIT)
        node->atime = atime;
    if (times[1].tv_nsec != UTIME_OMIT)
        node->mtime = mtime;
    vnode_changed(node);
    return call_return(c, 0);
}

int fast_fsync(struct call *c)
{
    const struct vfile *f = call_file(c, c->args[0]);
    return f && f->kind == VFILE_TMPFS ? call_return(c, 0) : FAST_PASS;
}

int fast_fadvise(struct call *c)
{
    const struct vfile *f = call_file(c, c->args[0]);
    if (!f || (f->kind != VFILE_TMPFS && f->kind != VFILE_REGULAR))
        return FAST_PASS;
    return c->args[3] <= POSIX_FADV_NOREUSE && c->args[2] <= INT64_MAX ? call_return(c, 0) : FAST_PASS;
}

int fast_ioctl(struct call *c)
{
    const struct vfile *f = call_file(c, c->args[0]);
    const uint32_t request = (uint32_t)c->args[1];
    if (!f || f->flags & O_PATH)
        return FAST_PASS;
    switch (request) {
    case FIOCLEX:
    case FIONCLEX:
        c->t->g.files->cloexec[(uint32_t)c->args[0]] = request == FIOCLEX;
        return call_return(c, 0);
    case TCGETS:
    case TIOCGWINSZ: /* isatty(3) */
        if (f->kind == VFILE_TMPFS || f->kind == VFILE_REGULAR || f->kind == VFILE_NULL || f->kind == VFILE_ZERO)
            return call_return(c, -ENOTTY);
    }
    return FAST_PASS;
}
