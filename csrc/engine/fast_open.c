/* open(2) of files that were open before: a spare file is taken out, and put back when it is closed (fdtable.c).
 *
 * Python (sentry/fs/spare.py) keeps regular files that were closed, ready to be opened for reading at the same
 * place, and devices that are nothing but their number, and hangs them on the dnode of that place.  Opening one is: walk, check, set its flags and position,
 * and give it the lowest free number.  Python learns of it when it meets that number (FDTable), and is not needed if
 * the file is closed before that.  The twin is sentry/fs/opening.py. */
#include "fast.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define OPEN_LARGEFILE 0100000u /* which libc defines as 0 */
#define OPEN_KEPT (uint32_t)(O_NONBLOCK | O_NOFOLLOW)
#define OPEN_SERVED (OPEN_KEPT | OPEN_LARGEFILE | (uint32_t)(O_CLOEXEC | O_NOCTTY))
#define OPEN_DEVICE (uint32_t)(O_ACCMODE | O_APPEND | O_CREAT | O_TRUNC) /* of devices, where they do no more */

void vfile_keep(struct vfile *f, struct vmount *mount, struct dnode *d)
{
    f->mount = mount;
    f->dnode = d;
    f->spare = SPARE_IDLE;
    f->next_spare = d->spares;
    d->spares = f;
}

void vfile_unkeep(struct vfile *f)
{
    struct vfile **at;
    if (!f->dnode)
        return;
    for (at = &f->dnode->spares; *at && *at != f; at = &(*at)->next_spare)
        ;
    if (*at)
        *at = f->next_spare;
    f->next_spare = NULL;
}

static struct vfile *find_spare(const struct path_walk *w)
{
    struct vfile *f = w->at->spares;
    while (f && !(f->spare == SPARE_IDLE && f->mount == w->mount))
        f = f->next_spare;
    return f;
}

static int install(struct call *c, struct vfile *f, uint32_t flags)
{
    int fd = call_number(c, 0);
    if (fd < 0)
        return FAST_PASS;
    f->spare = SPARE_OPEN;
    f->refs++;
    f->pos = 0;
    f->flags = (flags & (OPEN_KEPT | O_ACCMODE | O_APPEND)) | OPEN_LARGEFILE;
    fd_table_put(c->t->g.files, (uint32_t)fd, f, flags & O_CLOEXEC);
    return call_return(c, fd);
}

static bool may_use_device(const struct path_walk *w)
{
    return S_ISCHR(w->at->vnode->mode) && !(w->mount->flags & MNT_NODEV);
}

static int open_at(struct call *c, int32_t dirfd, uint64_t addr, uint32_t flags)
{
    struct path_walk w = call_walk_of(c, flags & O_NOFOLLOW ? WALK_NOFOLLOW : 0);
    const uint32_t mode = flags & O_ACCMODE;
    struct vfile *f;
    int r;
    if (flags & ~(OPEN_SERVED | OPEN_DEVICE) || mode == O_ACCMODE)
        return FAST_PASS;
    r = call_walk(c, &w, dirfd, addr);
    if (r == WALK_PASS || (r < 0 && flags & O_CREAT))
        return FAST_PASS;
    if (r < 0)
        return call_return(c, r);
    f = find_spare(&w);
    if (!f || !(S_ISREG(w.at->vnode->mode) ? !(flags & OPEN_DEVICE) : may_use_device(&w)))
        return FAST_PASS;
    if (!vnode_allowed(w.at->vnode, w.cred,
                       (mode != O_WRONLY ? MAY_READ : 0) | (mode != O_RDONLY ? MAY_WRITE : 0)))
        return call_return(c, -EACCES);
    return install(c, f, flags);
}

int fast_open(struct call *c)
{
    return open_at(c, AT_FDCWD, c->args[0], (uint32_t)c->args[1]);
}

int fast_openat(struct call *c)
{
    return open_at(c, (int32_t)c->args[0], c->args[1], (uint32_t)c->args[2]);
}
