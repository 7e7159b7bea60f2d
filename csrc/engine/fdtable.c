/* Descriptor tables: which number is which file.  Python's FDTable works on them by these functions, the fast paths
 * directly; nothing of them is kept twice.
 *
 * The last close of a file is Python's.  Where nobody can tell it from a later one (CLOSE_LATER) the engine goes on
 * at once and Python hears of it before it sees the next call. */
#include "mm.h"
#include "waiter.h"
#include "watched.h"

#include <string.h>

int64_t descriptor_count;
uint32_t watch_count;
static struct vfile *first_closed, *last_closed;

uint32_t fd_table_free(struct fd_table *table, uint32_t from)
{
    uint32_t fd = from > table->lowest ? from : table->lowest;
    while (fd < table->size && table->files[fd])
        fd++;
    if (from <= table->lowest)
        table->lowest = fd;
    return fd;
}

int64_t fd_table_next(const struct fd_table *table, uint32_t from, int cloexec)
{
    uint32_t fd, end = table->highest < table->size ? table->highest + 1 : table->size;
    for (fd = from; fd < end; fd++)
        if (table->files[fd] && (!cloexec || table->cloexec[fd]))
            return fd;
    return -1;
}

int64_t fd_table_last(const struct fd_table *table)
{
    uint32_t end = table->highest < table->size ? table->highest + 1 : table->size;
    while (end && !table->files[end - 1])
        end--;
    return (int64_t)end - 1;
}

int64_t fd_table_find(const struct fd_table *table, uint32_t from, const struct vnode *node)
{
    uint32_t fd, end = table->highest < table->size ? table->highest + 1 : table->size;
    for (fd = from; fd < end; fd++)
        if (table->files[fd] && table->files[fd]->node == node)
            return fd;
    return -1;
}

void fd_table_put(struct fd_table *table, uint32_t fd, struct vfile *f, int cloexec)
{
    table->files[fd] = f;
    table->cloexec[fd] = cloexec != 0;
    if (fd == table->lowest)
        table->lowest = fd + 1;
    if (fd > table->highest)
        table->highest = fd;
    table->used++;
    descriptor_count++;
}

struct vfile *fd_table_take(struct fd_table *table, uint32_t fd)
{
    struct vfile *f = table->files[fd];
    table->files[fd] = NULL;
    table->cloexec[fd] = 0;
    if (fd < table->lowest)
        table->lowest = fd;
    table->used--;
    descriptor_count--;
    return f;
}

void fd_table_copy(struct fd_table *to, const struct fd_table *from)
{
    uint32_t fd, end = from->highest < from->size ? from->highest + 1 : from->size;
    for (fd = 0; fd < end && fd < to->size; fd++) {
        to->files[fd] = from->files[fd];
        to->cloexec[fd] = from->cloexec[fd];
        if (!to->files[fd])
            continue;
        to->files[fd]->refs++;
        to->highest = fd;
        to->used++;
    }
    to->lowest = from->lowest;
    to->flags = from->flags;
    to->limit = from->limit;
    descriptor_count += to->used;
}

void vfile_settle(struct vfile *f)
{
    f->spare = f->number && mm_object_refs(f->number) ? SPARE_MAPPED : SPARE_IDLE;
}

int vfile_close(struct vfile *f, uint64_t owner, int later)
{
    if (f->node->guarded || is_watched(f))
        return 0;
    if (f->refs == 1 && (f->holds || (f->spare != SPARE_OPEN && (f->closing != CLOSE_LATER || !later))))
        return 0;
    if (f->node->locks) {
        locks_release(f->node, owner);
        if (f->refs == 1)
            locks_release(f->node, (uintptr_t)f);
    }
    if (--f->refs)
        return 1;
    if (f->kind == VFILE_DIRECTORY) {
        directory_close(f);
        return 1;
    }
    if (f->spare == SPARE_OPEN) {
        vfile_settle(f);
        return 1;
    }
    f->next_dropped = NULL;
    if (last_closed)
        last_closed->next_dropped = f;
    else
        first_closed = f;
    last_closed = f;
    return 1;
}

int64_t fd_table_shed(struct fd_table *table, uint32_t first, uint32_t last, int cloexec, uint32_t most)
{
    int64_t fd;
    for (;;) {
        fd = fd_table_next(table, first, cloexec);
        if (fd < 0 || fd > last)
            return -1;
        if (!most-- || !vfile_close(table->files[fd], table->owner, 0))
            return fd;
        fd_table_take(table, fd);
        first = fd + 1;
    }
}

void fd_table_mark(struct fd_table *table, uint32_t first, uint32_t last)
{
    int64_t fd = fd_table_next(table, first, 0);
    for (; fd >= 0 && fd <= last; fd = fd_table_next(table, fd + 1, 0))
        table->cloexec[fd] = 1;
}

struct vfile *vfile_take_closed(void)
{
    struct vfile *f = first_closed;
    if (!f)
        return NULL;
    first_closed = f->next_dropped;
    if (!first_closed)
        last_closed = NULL;
    return f;
}

bool closed_pending(void)
{
    return first_closed != NULL;
}
