/* open(2) of files that were open before: a spare file is taken out, and put back when it is closed (fdtable.c).
 *
 * Python (sentry/fs/spare.py) keeps regular files that were closed, ready to be opened for reading at the same
 * place, and devices that are nothing but their number, and hangs them on the dnode of that place.  Opening one is: walk, check, set its flags and position,
 * and give it the lowest free number.  Python learns of it when it meets that number (FDTable), and is not needed if
 * the file is closed before that.  The twin is sentry/fs/opening.py.
 *
 * While all spares of a place are open or mapped, as a library's are in a pipeline, the engine makes another one: a
 * description of its own on the same bytes, with a position, flags, locks and a number of its own.  Python makes
 * the File of it before it changes anything about spares, so it never sees a spare that has none. */
#include "fast.h"
#include "mm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#define OPEN_KEPT (uint32_t)(O_NONBLOCK | O_NOFOLLOW)
#define OPEN_SERVED (OPEN_KEPT | OPEN_LARGEFILE | (uint32_t)(O_CLOEXEC | O_NOCTTY | O_DIRECTORY))
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

static struct vfile *first_made, *last_made;
static uint32_t made_count;

struct vfile *vfile_make(struct vfile *model)
{
    struct vfile *f;
    uint32_t number;
    if (made_count >= MADE_MOST || !(f = calloc(1, sizeof *f)))
        return NULL;
    number = mm_object_new();
    if (!number) {
        free(f);
        return NULL;
    }
    f->node = model->node;
    f->kind = model->kind;
    f->host_fd = model->host_fd;
    f->closing = model->closing;
    f->object = model->object;
    f->model = model;
    vfile_keep(f, model->mount, model->dnode);
    mm_object_bind(number, f);
    mm_object_put(number);
    if (last_made)
        last_made->next_made = f;
    else
        first_made = f;
    last_made = f;
    made_count++;
    return f;
}

struct vfile *vfile_take_made(void)
{
    struct vfile *f = first_made;
    if (!f)
        return NULL;
    first_made = f->next_made;
    if (!first_made)
        last_made = NULL;
    made_count--;
    return f;
}

void vfile_free(struct vfile *f)
{
    free(f);
}

uint32_t vfile_count_spares(const struct dnode *d, uint32_t most)
{
    const struct vfile *f;
    uint32_t count = 0;
    for (f = d ? d->spares : NULL; f && count < most; f = f->next_spare)
        count++;
    return count;
}

/* An idle spare of the place, made if need be.  What Python has lent has a descriptor of its own: no other one. */
static struct vfile *find_spare(const struct path_walk *w)
{
    struct vfile *f, *model = NULL;
    uint32_t count = 0;
    for (f = w->at->spares; f; f = f->next_spare) {
        if (f->mount == w->mount) {
            if (f->spare == SPARE_IDLE)
                return f;
            if (!f->batch && (f->kind == VFILE_REGULAR || f->kind == VFILE_TMPFS))
                model = f;
        }
        if (++count >= ALIKE_MOST)
            return NULL;
    }
    return model ? vfile_make(model) : NULL;
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
    struct path_walk w = call_walk_of(c, (flags & O_NOFOLLOW ? WALK_NOFOLLOW : 0) |
                                             (flags & O_DIRECTORY ? WALK_DIRECTORY : 0));
    const uint32_t mode = flags & O_ACCMODE;
    struct vfile *f;
    int r;
    if (flags & ~(OPEN_SERVED | OPEN_DEVICE) || mode == O_ACCMODE || (flags & O_DIRECTORY && flags & OPEN_DEVICE))
        return FAST_PASS;
    r = call_walk(c, &w, dirfd, addr);
    if (r == WALK_PASS || (r < 0 && flags & O_CREAT))
        return FAST_PASS;
    if (r < 0)
        return call_return(c, r);
    if (is_watched_at(w.at->vnode, w.at))
        return FAST_PASS;
    if (S_ISDIR(w.at->vnode->mode))
        return flags & OPEN_DEVICE ? FAST_PASS : fast_open_directory(c, &w, flags);
    if (!w.at->spares || !(S_ISREG(w.at->vnode->mode) ? !(flags & OPEN_DEVICE) : may_use_device(&w)))
        return FAST_PASS;
    if (!vnode_allowed(w.at->vnode, w.cred,
                       (mode != O_WRONLY ? MAY_READ : 0) | (mode != O_RDONLY ? MAY_WRITE : 0)))
        return call_return(c, -EACCES);
    f = find_spare(&w);
    return f ? install(c, f, flags) : FAST_PASS;
}

int fast_open(struct call *c)
{
    return open_at(c, AT_FDCWD, c->args[0], (uint32_t)c->args[1]);
}

int fast_openat(struct call *c)
{
    return open_at(c, (int32_t)c->args[0], c->args[1], (uint32_t)c->args[2]);
}
