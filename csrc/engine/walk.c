/* Path walk over the names that the engine knows (path_resolution(7)).
 *
 * The twin is sentry/fs/walk.py (Resolver.finish), which this follows step by step.  A walk changes nothing, so it
 * may give up anywhere: whatever is not cached, or may not be cached, is WALK_PASS. */
#include "dcache.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_LINKS 40
#define NAME_LIMIT 255
#define CAP_DAC_OVERRIDE 1
#define CAP_DAC_READ_SEARCH 2

/* The names that are still to go: of the path, and before them of each symbolic link that was followed. */
struct names {
    struct {
        const char *at, *end;
    } piece[MAX_LINKS + 1];
    int depth;
};

static bool capable(const struct vcred *cred, int cap)
{
    return cred->effective >> cap & 1;
}

static bool in_group(const struct vcred *cred, uint32_t gid)
{
    uint32_t i;
    if (gid == cred->fsgid)
        return true;
    for (i = 0; i < cred->group_count; i++)
        if (cred->groups[i] == gid)
            return true;
    return false;
}

int vnode_allowed(const struct vnode *v, const struct vcred *cred, uint32_t mask)
{
    uint32_t mode = v->mode, bits = mode;
    if (v->uid == cred->fsuid)
        bits = mode >> 6;
    else if ((mode & 070) != (mode & 007) << 3 && in_group(cred, v->gid))
        bits = mode >> 3;
    if (!(mask & ~bits & 7))
        return true;
    if (S_ISDIR(mode)) {
        if (!(mask & MAY_WRITE) && capable(cred, CAP_DAC_READ_SEARCH))
            return true;
        return capable(cred, CAP_DAC_OVERRIDE);
    }
    if (mask == MAY_READ && capable(cred, CAP_DAC_READ_SEARCH))
        return true;
    return (!(mask & MAY_EXEC) || mode & 0111) && capable(cred, CAP_DAC_OVERRIDE);
}

/* Whether a name is left. */
static bool more(struct names *n)
{
    while (n->depth) {
        const char *at = n->piece[n->depth - 1].at, *end = n->piece[n->depth - 1].end;
        while (at < end && *at == '/')
            at++;
        n->piece[n->depth - 1].at = at;
        if (at < end)
            return true;
        n->depth--;
    }
    return false;
}

/* The next name, when there is one. */
static const char *next_name(struct names *n, uint32_t *size)
{
    const char *start = n->piece[n->depth - 1].at, *end = n->piece[n->depth - 1].end;
    const char *slash = memchr(start, '/', (size_t)(end - start));
    const char *stop = slash ? slash : end;
    *size = (uint32_t)(stop - start);
    n->piece[n->depth - 1].at = stop;
    return start;
}

static void push(struct path_walk *w, struct names *n, const char *path, uint32_t size, bool *must_dir)
{
    if (path[0] == '/') {
        w->mount = w->fs->root_mount;
        w->at = w->fs->root;
    }
    if (!more(n) && path[size - 1] == '/')
        *must_dir = true;
    n->piece[n->depth].at = path;
    n->piece[n->depth++].end = path + size;
}

/* Step to `d`, and into what is mounted there. */
static void arrive(struct path_walk *w, struct vmount *mount, struct dnode *d)
{
    while (d->mounted) {
        struct vmount *m = mount_over(mount, d);
        if (!m)
            break;
        mount = m;
        d = m->root;
    }
    w->mount = mount;
    w->at = d;
}

static void dotdot(struct path_walk *w)
{
    struct vmount *mount = w->mount;
    struct dnode *d = w->at;
    for (;;) {
        if (d == w->fs->root && mount == w->fs->root_mount)
            return;
        if (d != mount->root)
            break;
        if (!mount->parent)
            return;
        d = mount->mountpoint;
        mount = mount->parent;
    }
    if (d->parent)
        arrive(w, mount, d->parent);
}

/* Whether fs.protected_symlinks may forbid to follow the link `v`, which stands where the walk is. */
static bool in_shared_directory(const struct path_walk *w, const struct vnode *v)
{
    const struct vnode *directory = w->at->vnode;
    const uint32_t shared = S_ISVTX | S_IWOTH;
    return (directory->mode & shared) == shared && v->uid != w->cred->fsuid && v->uid != directory->uid;
}

int path_walk(struct path_walk *w, const char *path, uint32_t size)
{
    struct names names = {.depth = 0};
    bool must_dir = false, last = false;
    int links = 0;
    if (!w->fs || !w->cred || !w->fs->root || !w->fs->root_mount || size == 0)
        return WALK_PASS;
    push(w, &names, path, size, &must_dir);
    if (!w->at || !w->mount)
        return WALK_PASS;
    while (!last && more(&names)) {
        const struct vnode *v = w->at->vnode;
        struct dnode *child;
        const char *name;
        if (!v)
            return WALK_PASS;
        if (!S_ISDIR(v->mode))
            return -ENOTDIR;
        if (!vnode_allowed(v, w->cred, MAY_EXEC))
            return -EACCES;
        name = next_name(&names, &size);
        last = !more(&names);
        if (size == 1 && name[0] == '.')
            continue;
        if (size == 2 && name[0] == '.' && name[1] == '.') {
            dotdot(w);
            continue;
        }
        if (size > NAME_LIMIT || !(w->at->flags & DNODE_EXACT))
            return WALK_PASS;
        child = dnode_find(w->at, name, size);
        if (!child)
            return WALK_PASS;
        if (child->flags & DNODE_NEGATIVE)
            return -ENOENT;
        v = child->vnode;
        if (!v)
            return WALK_PASS;
        if (S_ISLNK(v->mode) && !child->mounted && (!last || must_dir || !(w->flags & WALK_NOFOLLOW))) {
            if (++links > MAX_LINKS || w->mount->flags & MNT_NOSYMFOLLOW)
                return -ELOOP;
            if (!child->link || (last && in_shared_directory(w, v)))
                return WALK_PASS;
            push(w, &names, child->link, child->link_size, &must_dir);
            last = false;
        } else {
            arrive(w, w->mount, child);
        }
    }
    if (!w->at->vnode)
        return WALK_PASS;
    if ((must_dir || w->flags & WALK_DIRECTORY) && !S_ISDIR(w->at->vnode->mode))
        return -ENOTDIR;
    return 0;
}
