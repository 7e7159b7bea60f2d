/* Whether somebody watches a file (inotify, F_NOTIFY, a lease): then Python gets the call, and tells of it
 * (sentry/fs/fsnotify.py). */
#pragma once
#include "dcache.h"
#include "vfs.h"

#include <stdbool.h>

/* `node`, which is at `d`, or the directory that it stands in; also where that can't be known. */
static inline bool is_watched_at(const struct vnode *node, const struct dnode *d)
{
    if (!watch_count)
        return false;
    return node->watched || !d || (d->parent && (!d->parent->vnode || d->parent->vnode->watched));
}

static inline bool is_watched(const struct vfile *f)
{
    return watch_count && is_watched_at(f->node, f->dnode);
}
