/* What is in a directory, as long as that doesn't change: the engine lists it without Python.
 *
 * Made of what the Gofer told about a directory of a tree that never changes, and hung on its
 * dnode.  A listing itself never changes: who has begun to read one keeps it, as an open directory
 * of Python's keeps its own (sentry/fs/dirfile.py).  Once the directory differs from the lower one,
 * it has none any more (dnode_unlist).
 *
 * Those hung up longest ago go when they are too many. */
#include "dcache.h"
#include "listed.h"

#include <stdlib.h>
#include <string.h>

#define TYPE_MOST 15
#define NAME_MOST 255

static struct listing *oldest, *newest;
static uint64_t listed_size;
uint64_t listing_limit = LISTING_BYTES;

/* The entry at `pos`, the length of which goes to `*size`; 0: it is none. */
static int check_entry(const uint8_t *data, size_t left, uint32_t *size)
{
    struct listed e;
    if (left < sizeof e)
        return 0;
    memcpy(&e, data, sizeof e);
    if (!e.name_size || e.name_size > NAME_MOST || e.name_size > left - sizeof e ||
        e.type > TYPE_MOST)
        return 0;
    *size = (uint32_t)(sizeof e + e.name_size);
    return 1;
}

static struct listing *listing_new(const uint8_t *data, size_t size)
{
    uint32_t count = 0, at = 0, step;
    struct listing *l;
    if (size > LISTING_BYTES / 4)
        return NULL;
    while (at < size) {
        if (!check_entry(data + at, size - at, &step))
            return NULL;
        at += step;
        count++;
    }
    l = calloc(1, sizeof *l + count * sizeof *l->at + size);
    if (!l)
        return NULL;
    l->at = (uint32_t *)(l + 1);
    l->data = (uint8_t *)(l->at + count);
    l->count = count;
    l->size = (uint32_t)size;
    l->refs = 1;
    memcpy(l->data, data, size);
    for (at = count = 0; at < size; at += step) {
        check_entry(l->data + at, size - at, &step);
        l->at[count++] = at;
    }
    return l;
}

void listing_put(struct listing *l)
{
    if (l && --l->refs == 0)
        free(l);
}

struct listing *listing_get(struct listing *l)
{
    if (l)
        l->refs++;
    return l;
}

void dnode_unlist(struct dnode *d)
{
    struct listing *l = d ? d->listing : NULL;
    if (!l)
        return;
    d->listing = NULL;
    l->dnode = NULL;
    *(l->older ? &l->older->newer : &oldest) = l->newer;
    *(l->newer ? &l->newer->older : &newest) = l->older;
    listed_size -= l->size;
    listing_put(l);
}

static void hang(struct dnode *d, struct listing *l)
{
    l->dnode = d;
    d->listing = l;
    l->older = newest;
    l->newer = NULL;
    *(newest ? &newest->newer : &oldest) = l;
    newest = l;
    listed_size += l->size;
}

int dnode_list(struct dnode *d, const uint8_t *data, size_t size)
{
    struct listing *l;
    if (!d || !(d->flags & DNODE_PLAIN))
        return 0;
    dnode_unlist(d);
    l = listing_new(data, size);
    if (!l)
        return 0;
    hang(d, l);
    while (listed_size > listing_limit && oldest != l)
        dnode_unlist(oldest->dnode);
    return 1;
}

void dnode_move_listing(struct dnode *from, struct dnode *to)
{
    struct listing *l = listing_get(from->listing);
    if (!l)
        return;
    dnode_unlist(from);
    dnode_unlist(to);
    hang(to, l);
}
