/* Names that the engine knows from a listing, without a Python object: a dnode with attributes of its own.
 *
 * A directory of a tree that never changes was listed together with the attributes of what is in it
 * (sentry/fs/overlay/inode.py, learn); here they become names that stat(2) and its kin find.  Whoever looks one up
 * in Python puts its own dnode in place of it (dnode_hash), and from then on Python says what it is: what is
 * learnt is only ever replaced, never changed.  A directory among them may have a listing that came ahead, and
 * learnt names below it: a walk goes into it, and who replaces it takes all of that over.  Without, a walk into one
 * passes.
 *
 * They go with their directory, and the oldest ones when there are too many; one that has files lent to it, or open
 * (vfile_keep), stays as long as these. */
#include "dcache.h"
#include "listed.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct learnt {
    struct dnode d;
    struct vnode v;
    struct learnt *sibling, **back;  /* in the list of its directory */
    struct learnt *older, *newer;
};

static struct learnt *oldest, *newest;
uint32_t learnt_count, learnt_limit = LEARNT_MAX;

static void append(struct learnt *l)
{
    l->older = newest;
    l->newer = NULL;
    *(newest ? &newest->newer : &oldest) = l;
    newest = l;
}

static void unlink_age(struct learnt *l)
{
    *(l->older ? &l->older->newer : &oldest) = l->newer;
    *(l->newer ? &l->newer->older : &newest) = l->older;
}

static void forget(struct learnt *l)
{
    unlink_age(l);
    *l->back = l->sibling;
    if (l->sibling)
        l->sibling->back = l->back;
    learnt_count--;
    l->d.flags &= ~(uint32_t)DNODE_LEARNT;
    dnode_free(&l->d);
}

/* Make room for one more; false: each of those looked at has files. */
static int make_room(void)
{
    int tries;
    for (tries = 0; learnt_count >= learnt_limit && tries < 64; tries++) {
        struct learnt *l = oldest;
        if (!l)
            return 0;
        if (!l->d.spares && !l->d.learnt) {
            forget(l);
        } else {
            unlink_age(l);
            append(l);
        }
    }
    return learnt_count < learnt_limit;
}

static void fill(struct vnode *v, const struct listed *e, uint64_t dev, uint32_t dir_nlink)
{
    v->dev = dev;
    v->ino = e->path;
    v->nlink = S_ISDIR(e->mode) && dir_nlink ? dir_nlink : e->nlink;
    v->rdev = e->rdev;
    v->mode = e->mode;
    v->uid = e->uid;
    v->gid = e->gid;
    v->blksize = e->blksize;
    v->size = (int64_t)e->size;
    v->blocks = (int64_t)e->blocks;
    v->atime = e->atime;
    v->mtime = e->mtime;
    v->ctime = e->ctime;
    v->btime = e->mtime < e->ctime ? e->mtime : e->ctime;
    v->flags = VNODE_LIVE;
}

static int learn(struct dnode *dir, const struct listed *e, const char *name, uint64_t dev, uint32_t dir_nlink)
{
    struct learnt *l;
    struct dnode *d;
    if (dnode_find(dir, name, e->name_size) || !make_room())
        return 0;
    l = calloc(1, sizeof *l);
    if (!l)
        return 0;
    d = &l->d;
    fill(&l->v, e, dev, dir_nlink);
    if (!dnode_init(d, dir, name, e->name_size, &l->v, S_ISDIR(e->mode) ? DNODE_PLAIN : 0)) {
        free(l);
        return 0;
    }
    dnode_hash(d);
    if (!(d->flags & DNODE_HASHED)) {
        dnode_free(d);
        return 0;
    }
    d->flags |= DNODE_LEARNT;
    l->sibling = (struct learnt *)dir->learnt;
    l->back = (struct learnt **)&dir->learnt;
    if (l->sibling)
        l->sibling->back = &l->sibling;
    dir->learnt = d;
    append(l);
    learnt_count++;
    return 1;
}

/* As make_attr of gofer/codec.py. */
static int sane(const struct listed *e)
{
    return e->mode <= 0xFFFF && (e->nlink | e->rdev | e->size | e->blocks) >> 63 == 0;
}

uint32_t dnode_learn(struct dnode *dir, const uint8_t *listing, size_t size, uint64_t dev, uint32_t dir_nlink)
{
    uint32_t count = 0;
    while (dir && size >= sizeof(struct listed)) {
        struct listed e;
        const char *name = (const char *)listing + sizeof e;
        memcpy(&e, listing, sizeof e);
        if (size - sizeof e < e.name_size)
            break;
        listing += sizeof e + e.name_size;
        size -= sizeof e + e.name_size;
        /* A file with several names may have changed by way of another one. */
        if (e.known && e.name_size && sane(&e) && (S_ISDIR(e.mode) || e.nlink == 1))
            count += (uint32_t)learn(dir, &e, name, dev, dir_nlink);
    }
    if (dir && dir->flags & DNODE_LEARNT)
        dir->flags |= DNODE_EXACT;
    return count;
}

struct dnode *dnode_learnt(const struct dnode *dir, const char *name, uint32_t size)
{
    struct dnode *d = dir && dir->learnt ? dnode_find(dir, name, size) : NULL;
    return d && d->flags & DNODE_LEARNT ? d : NULL;
}

void dnode_unlearn(struct dnode *d)
{
    if (d && d->flags & DNODE_LEARNT && !dnode_busy(d))
        forget((struct learnt *)d);
}

int dnode_busy(const struct dnode *d)
{
    const struct learnt *l;
    if (!d || d->spares)
        return d != NULL;
    for (l = (const struct learnt *)d->learnt; l; l = l->sibling)
        if (l->d.spares || (l->d.learnt && dnode_busy(&l->d)))
            return 1;
    return 0;
}

/* The names below `from` are below `to` from now on. */
static void move_names(struct dnode *from, struct dnode *to)
{
    while (from->learnt) {
        struct learnt *l = (struct learnt *)from->learnt;
        if (dnode_find(to, l->d.name, l->d.name_size)) {
            forget(l);
            continue;
        }
        dnode_unhash(&l->d);
        from->learnt = (struct dnode *)l->sibling;
        if (l->sibling)
            l->sibling->back = (struct learnt **)&from->learnt;
        l->d.parent = to;
        to->refs++;
        from->refs--; /* somebody has replaced it, and has one more */
        l->sibling = (struct learnt *)to->learnt;
        l->back = (struct learnt **)&to->learnt;
        if (l->sibling)
            l->sibling->back = &l->sibling;
        to->learnt = &l->d;
        dnode_hash(&l->d);
    }
}

void dnode_replace(struct dnode *old, struct dnode *d)
{
    if (!old || !(old->flags & DNODE_LEARNT))
        return;
    if (d->vnode && S_ISDIR(d->vnode->mode) && d->vnode->ino == old->vnode->ino) {
        move_names(old, d);
        dnode_move_listing(old, d);
    }
    forget((struct learnt *)old);
}

void dnode_unlearn_all(struct dnode *dir)
{
    while (dir && dir->learnt)
        forget((struct learnt *)dir->learnt);
}
