/* Fast paths on paths: what stands in the dentry cache is answered here.
 *
 * The twins are in sentry/syscalls/open.py.  Attributes are told only while the vnode is VNODE_LIVE; an error is
 * returned only where the walk is sure of it. */
#include "fast.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define PATH_LIMIT 4096
#define NANO 1000000000
#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000
#endif

/* Where a path that begins at `dirfd` starts; false: ask Python. */
static bool start_at(struct call *c, struct path_walk *w, int32_t dirfd)
{
    const struct vfile *f;
    if (dirfd == AT_FDCWD) {
        w->mount = w->fs->cwd_mount;
        w->at = w->fs->cwd;
        return true;
    }
    f = call_file(c, (uint32_t)dirfd);
    if (!f || !f->dnode)
        return false;
    w->mount = f->mount;
    w->at = f->dnode;
    return true;
}

int call_walk(struct call *c, struct path_walk *w, int32_t dirfd, uint64_t addr)
{
    char path[PATH_LIMIT];
    int size;
    if (!w->fs || !w->cred)
        return WALK_PASS;
    size = call_in_string(c, addr, path, sizeof path);
    if (size <= 0)
        return WALK_PASS;
    if (path[0] != '/' && !start_at(c, w, dirfd))
        return WALK_PASS;
    return path_walk(w, path, (uint32_t)size);
}

struct path_walk call_walk_of(const struct call *c, uint32_t flags)
{
    return (struct path_walk){.fs = c->t->g.fs, .cred = c->t->g.cred, .flags = flags};
}

static int stat_at(struct call *c, int32_t dirfd, uint64_t addr, uint64_t to, uint32_t flags)
{
    struct path_walk w = call_walk_of(c, flags);
    int r = call_walk(c, &w, dirfd, addr);
    if (r == WALK_PASS)
        return FAST_PASS;
    return r < 0 ? call_return(c, r) : call_stat(c, w.at->vnode, to);
}

int fast_stat(struct call *c)
{
    return stat_at(c, AT_FDCWD, c->args[0], c->args[1], 0);
}

int fast_lstat(struct call *c)
{
    return stat_at(c, AT_FDCWD, c->args[0], c->args[1], WALK_NOFOLLOW);
}

/* With AT_EMPTY_PATH a null pointer counts as empty. */
static bool is_empty(struct call *c, uint64_t addr)
{
    char first;
    return addr == 0 || (call_in(c, addr, &first, 1) == 0 && first == 0);
}

/* fstat(2) as glibc makes it: newfstatat(fd, "", …, AT_EMPTY_PATH). */
static int stat_empty(struct call *c)
{
    const struct vfile *f = call_file(c, c->args[0]);
    return f && f->node && is_empty(c, c->args[1]) ? call_stat(c, f->node, c->args[2]) : FAST_PASS;
}

int fast_newfstatat(struct call *c)
{
    uint32_t flags = (uint32_t)c->args[3];
    if (flags & ~(uint32_t)(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH))
        return FAST_PASS;
    if (flags & AT_EMPTY_PATH && stat_empty(c) == FAST_DONE)
        return FAST_DONE;
    return stat_at(c, (int32_t)c->args[0], c->args[1], c->args[2],
                   flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0);
}

static struct statx_timestamp statx_time(int64_t ns)
{
    struct statx_timestamp time = {.tv_sec = ns / NANO, .tv_nsec = (uint32_t)(ns % NANO)};
    if (ns % NANO < 0) {
        time.tv_sec--;
        time.tv_nsec += NANO;
    }
    return time;
}

static int answer_statx(struct call *c, const struct vmount *mount, const struct dnode *d, uint64_t addr)
{
    const struct vnode *v = d->vnode;
    struct statx st = {
        .stx_mask = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID,
        .stx_attributes = d == mount->root ? STATX_ATTR_MOUNT_ROOT : 0,
        .stx_attributes_mask = STATX_ATTR_MOUNT_ROOT,
    };
    if (!v || !(v->flags & VNODE_LIVE) || !c->t->g.cred)
        return FAST_PASS;
    if (v->ours && (S_ISREG(v->mode) || S_ISDIR(v->mode) || S_ISLNK(v->mode)))
        st.stx_attributes_mask |= STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP;
    st.stx_blksize = v->blksize;
    st.stx_nlink = (uint32_t)v->nlink;
    st.stx_uid = v->uid;
    st.stx_gid = v->gid;
    st.stx_mode = (uint16_t)v->mode;
    st.stx_ino = v->ino;
    st.stx_size = (uint64_t)v->size;
    st.stx_blocks = (uint64_t)v->blocks;
    st.stx_atime = statx_time(v->atime);
    st.stx_btime = statx_time(v->btime);
    st.stx_ctime = statx_time(v->ctime);
    st.stx_mtime = statx_time(v->mtime);
    st.stx_rdev_major = major(v->rdev);
    st.stx_rdev_minor = minor(v->rdev);
    st.stx_dev_major = major(v->dev);
    st.stx_dev_minor = minor(v->dev);
    st.stx_mnt_id = mount->id;
    memcpy(c->out, &st, sizeof st);
    c->out_addr = addr;
    c->out_size = sizeof st;
    return call_return(c, 0);
}

int fast_statx(struct call *c)
{
    uint32_t flags = (uint32_t)c->args[2];
    struct path_walk w = call_walk_of(c, flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0);
    int r;
    if (flags & ~(uint32_t)(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE))
        return FAST_PASS;
    if ((uint32_t)c->args[3] & STATX__RESERVED || (flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE)
        return FAST_PASS;
    if (flags & AT_EMPTY_PATH && is_empty(c, c->args[1])) {
        if (!w.fs || !start_at(c, &w, (int32_t)c->args[0]) || !w.mount || !w.at)
            return FAST_PASS;
        return answer_statx(c, w.mount, w.at, c->args[4]);
    }
    r = call_walk(c, &w, (int32_t)c->args[0], c->args[1]);
    if (r == WALK_PASS)
        return FAST_PASS;
    return r < 0 ? call_return(c, r) : answer_statx(c, w.mount, w.at, c->args[4]);
}

/* access(2) checks by the real ids, and by root's capabilities only for root. */
static struct vcred real_cred(const struct vcred *cred)
{
    struct vcred real = *cred;
    real.fsuid = cred->uid;
    real.fsgid = cred->gid;
    real.effective = cred->of_real;
    return real;
}

static int access_at(struct call *c, int32_t dirfd, uint64_t addr, uint32_t mode, uint32_t flags)
{
    struct path_walk w = call_walk_of(c, flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0);
    const struct vnode *v;
    struct vcred cred;
    int r;
    if (mode & ~7u || flags & ~(uint32_t)(AT_EACCESS | AT_SYMLINK_NOFOLLOW) || !w.cred)
        return FAST_PASS;
    if (!(flags & AT_EACCESS)) {
        cred = real_cred(w.cred);
        w.cred = &cred;
    }
    r = call_walk(c, &w, dirfd, addr);
    if (r == WALK_PASS)
        return FAST_PASS;
    if (r < 0)
        return call_return(c, r);
    v = w.at->vnode;
    if (!(v->flags & VNODE_LIVE))
        return FAST_PASS;
    if (mode & MAY_EXEC && !S_ISDIR(v->mode) && w.mount->flags & MNT_NOEXEC)
        return call_return(c, -EACCES);
    if (!vnode_allowed(v, w.cred, mode))
        return call_return(c, -EACCES);
    if (mode & MAY_WRITE && w.mount->flags & (MNT_READONLY | VMOUNT_FS_READONLY) &&
        (S_ISREG(v->mode) || S_ISDIR(v->mode) || S_ISLNK(v->mode)))
        return call_return(c, -EROFS);
    return call_return(c, 0);
}

int fast_access(struct call *c)
{
    return access_at(c, AT_FDCWD, c->args[0], (uint32_t)c->args[1], 0);
}

int fast_faccessat(struct call *c)
{
    return access_at(c, (int32_t)c->args[0], c->args[1], (uint32_t)c->args[2], 0);
}

int fast_faccessat2(struct call *c)
{
    return access_at(c, (int32_t)c->args[0], c->args[1], (uint32_t)c->args[2], (uint32_t)c->args[3]);
}

static int readlink_at(struct call *c, int32_t dirfd, uint64_t addr, uint64_t to, int32_t size)
{
    struct path_walk w = call_walk_of(c, WALK_NOFOLLOW);
    int r;
    if (size <= 0)
        return FAST_PASS;
    r = call_walk(c, &w, dirfd, addr);
    if (r == WALK_PASS)
        return FAST_PASS;
    if (r < 0)
        return call_return(c, r);
    if (!S_ISLNK(w.at->vnode->mode))
        return call_return(c, -EINVAL);
    if (!w.at->link)
        return FAST_PASS;
    c->out_size = w.at->link_size < size ? w.at->link_size : (uint32_t)size;
    c->out_addr = to;
    memcpy(c->out, w.at->link, c->out_size);
    return call_return(c, c->out_size);
}

int fast_readlink(struct call *c)
{
    return readlink_at(c, AT_FDCWD, c->args[0], c->args[1], (int32_t)c->args[2]);
}

int fast_readlinkat(struct call *c)
{
    return readlink_at(c, (int32_t)c->args[0], c->args[1], c->args[2], (int32_t)c->args[3]);
}
