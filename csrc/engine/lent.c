/* Files lent to the engine before anybody opened them: sentry/fs/lent.py, which has the batches that they come in.
 *
 * Each is a spare (fast_open.c) of a learnt name (learnt.c), in an array of Python's. */
#define _GNU_SOURCE
#include "dcache.h"
#include "listed.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void lent_check(int32_t *fds, uint32_t count)
{
    uint32_t i;
    for (i = 0; i < count; i++) {
        struct stat st;
        int flags;
        if (fds[i] < 0)
            continue;
        flags = fcntl(fds[i], F_GETFL);
        if (flags < 0 || flags & (O_ACCMODE | O_PATH) || fstat(fds[i], &st) < 0 || !S_ISREG(st.st_mode)) {
            close(fds[i]);
            fds[i] = -EIO;
        }
    }
}

uint32_t lent_add(struct vfile *files, uint32_t batch, struct dnode *dir, struct vmount *mount, const uint8_t *listing,
                  size_t size, const uint32_t *at, const int32_t *fds, uint32_t count)
{
    uint32_t i, lent = 0;
    for (i = 0; i < count; i++) {
        struct vfile *f = files + lent;
        struct dnode *d = NULL;
        struct listed e;
        if (fds[i] < 0)
            continue;
        if (at[i] < size && size - at[i] >= sizeof e) {
            memcpy(&e, listing + at[i], sizeof e);
            if (e.name_size <= size - at[i] - sizeof e)
                d = dnode_learnt(dir, (const char *)listing + at[i] + sizeof e, e.name_size);
        }
        if (!d || d->spares || d->vnode->ino != e.path || !S_ISREG(d->vnode->mode)) {
            close(fds[i]);
            continue;
        }
        f->node = d->vnode;
        f->kind = VFILE_REGULAR;
        f->host_fd = fds[i];
        f->batch = batch;
        vfile_keep(f, mount, d);
        lent++;
    }
    return lent;
}

uint32_t lent_end(struct vfile *files, uint32_t count)
{
    uint32_t i, left = 0;
    for (i = 0; i < count; i++) {
        struct vfile *f = files + i;
        if (!f->batch)
            continue;
        if (f->spare != SPARE_IDLE || f->holds) {
            left++;
            continue;
        }
        vfile_unkeep(f);
        close(f->host_fd);
        f->host_fd = -1;
        f->spare = 0;
        f->batch = 0;
    }
    return left;
}

uint32_t lent_used(const struct vfile *files, uint32_t count)
{
    uint32_t i, used = 0;
    for (i = 0; i < count; i++)
        used += files[i].flags != 0; /* an open sets some */
    return used;
}
