/* Directories opened and listed without Python.
 *
 * An open of a directory that is DNODE_PLAIN makes nothing but a description.  The engine makes it
 * itself, and where it knows what is in the directory (listing.c) it lists it, too.  Python learns
 * of such a directory when it meets its descriptor, or when its name or its mount goes
 * (sentry/fs/dirfile.py); one that is closed before that is gone without a trace.  Until then it
 * hangs among the spares of its dnode, which therefore stays, and Python with it.
 *
 * The twins are sentry/fs/dirfile.py and sentry/syscalls/listing.py. */
#include "fast.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "listed.h"

#define OPEN_KEPT_OF_DIRECTORY (uint32_t)(O_NONBLOCK | O_NOFOLLOW | O_DIRECTORY)

struct dirent64_head {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    uint8_t type;
} __attribute__((packed));

static struct vfile *first; /* all that Python has not met */

/* Whether Python finds this place again by its names. */
static bool is_there(const struct vmount *mount, const struct dnode *d)
{
    return (!d->parent || d == mount->root || d->flags & DNODE_HASHED) &&
           (!mount->parent || mount->flags & VMOUNT_ATTACHED);
}

struct vfile *directory_open(struct vmount *mount, struct dnode *d, uint32_t flags)
{
    struct vfile *f;
    if (!(d->flags & DNODE_PLAIN) || !d->vnode || !is_there(mount, d))
        return NULL;
    if (vfile_count_spares(d, ALIKE_MOST) >= ALIKE_MOST || !(f = calloc(1, sizeof *f)))
        return NULL;
    f->node = d->vnode;
    f->kind = VFILE_DIRECTORY;
    f->host_fd = -1;
    f->closing = CLOSE_LATER;
    f->flags = flags;
    f->refs = 1;
    vfile_keep(f, mount, d);
    f->spare = SPARE_OPEN;
    f->next_made = first;
    if (first)
        first->last_made = f;
    first = f;
    return f;
}

struct vfile *directory_next(struct vfile *f)
{
    return f ? f->next_made : first;
}

void directory_met(struct vfile *f)
{
    vfile_unkeep(f);
    if (f->next_made)
        f->next_made->last_made = f->last_made;
    *(f->last_made ? &f->last_made->next_made : &first) = f->next_made;
    f->next_made = f->last_made = NULL;
    listing_put(f->object);
    f->object = NULL;
    f->spare = 0;
}

void directory_close(struct vfile *f)
{
    directory_met(f);
    free(f);
}

int fast_open_directory(struct call *c, const struct path_walk *w, uint32_t flags)
{
    int fd = call_number(c, 0);
    struct vfile *f;
    if (fd < 0)
        return FAST_PASS;
    if (!vnode_allowed(w->at->vnode, w->cred, MAY_READ))
        return call_return(c, -EACCES);
    f = directory_open(w->mount, w->at, (flags & OPEN_KEPT_OF_DIRECTORY) | OPEN_LARGEFILE);
    if (!f)
        return FAST_PASS;
    fd_table_put(c->t->g.files, (uint32_t)fd, f, flags & O_CLOEXEC);
    return call_return(c, fd);
}

/* As parent_ino of dirfile.py. */
static uint64_t parent_ino(const struct vfile *f)
{
    const struct vmount *mount = f->mount;
    const struct dnode *d = f->dnode;
    while (d == mount->root && mount->parent && mount->mountpoint) {
        d = mount->mountpoint;
        mount = mount->parent;
    }
    if (d->parent)
        d = d->parent;
    return d->vnode ? d->vnode->ino : 0;
}

/* Entry `pos` of the directory: its name, of *size bytes; the rest goes to `head`. */
static const char *entry(const struct vfile *f, const struct listing *l, int64_t pos,
                         struct dirent64_head *head, uint32_t *size)
{
    struct listed e;
    head->off = pos + 1;
    if (pos < 2) {
        head->ino = pos ? parent_ino(f) : f->node->ino;
        head->type = DT_DIR;
        *size = (uint32_t)pos + 1;
        return "..";
    }
    memcpy(&e, l->data + l->at[pos - 2], sizeof e);
    head->ino = e.path;
    head->type = e.type;
    *size = e.name_size;
    return (const char *)l->data + l->at[pos - 2] + sizeof e;
}

static void undo_getdents(struct call *c)
{
    struct vfile *f = c->undo_object;
    f->pos = c->undo_value;
}

static int list(struct call *c, struct vfile *f)
{
    struct listing *l = f->pos && f->object ? f->object : f->dnode->listing;
    const uint32_t wanted = (uint32_t)c->args[2],
                   room = wanted < CALL_WINDOW ? wanted : CALL_WINDOW;
    const int64_t before = f->pos;
    int64_t pos = before, end;
    uint32_t done = 0;
    if (!l || is_watched(f))
        return FAST_PASS;
    end = (int64_t)l->count + 2;
    for (; pos < end; pos++) {
        struct dirent64_head head;
        uint32_t size, length;
        const char *name = entry(f, l, pos, &head, &size);
        length = ((uint32_t)sizeof head + size + 1 + 7) & ~7u;
        if (length > room - done)
            break;
        head.reclen = (uint16_t)length;
        memset(c->out + done, 0, length);
        memcpy(c->out + done, &head, sizeof head);
        memcpy(c->out + done + sizeof head, name, size);
        done += length;
    }
    if (pos < end && (room < wanted || !done))
        return room < wanted ? FAST_PASS : call_return(c, -EINVAL);
    if (f->object != l) {
        listing_put(f->object);
        f->object = listing_get(l);
    }
    l->used = 1;
    if (!done)
        return call_return(c, 0);
    f->pos = pos;
    c->undo = undo_getdents;
    c->undo_object = f;
    c->undo_value = before;
    c->out_addr = c->args[1];
    c->out_size = done;
    return call_return(c, done);
}

/* The old record: only the last call, which tells that there is no more (dirfile.py,
 * SnapshotDirectory). */
int fast_getdents_old(struct call *c)
{
    const struct vfile *f = call_file(c, (uint32_t)c->args[0]);
    if (!f || !f->dir_end || f->pos != f->dir_end || !f->dnode || is_watched(f))
        return FAST_PASS;
    if (f->dnode->parent && !(f->dnode->flags & DNODE_HASHED))
        return FAST_PASS; /* removed, maybe */
    return call_return(c, 0);
}

int fast_getdents(struct call *c)
{
    struct vfile *f = call_file(c, (uint32_t)c->args[0]);
    return f && f->kind == VFILE_DIRECTORY ? list(c, f) : fast_getdents_old(c);
}
