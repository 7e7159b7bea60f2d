/* The table of names: (directory, name) to dnode, kept by Python (sentry/fs/dcache.py), read by walk.c.
 *
 * Chains hang in buckets by a keyed hash, as guests choose the names.  A struct lives while its Python object or
 * another struct refers to it; whoever drops the last reference frees it. */
#include "dcache.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#define FIRST_BUCKETS 1024

static struct dnode **buckets;
static uint32_t bucket_count, hashed_count; /* bucket_count is a power of two, or 0 */
static uint64_t key[2];

static uint64_t mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)(a ^ key[0]) * (b ^ key[1]);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint32_t hash_of(const struct dnode *parent, const char *name, uint32_t size)
{
    uint64_t hash = mix((uintptr_t)parent, size), word;
    for (; size >= 8; size -= 8, name += 8) {
        memcpy(&word, name, 8);
        hash = mix(hash, word);
    }
    word = 0;
    memcpy(&word, name, size);
    hash = mix(hash, word);
    return (uint32_t)(hash ^ hash >> 32);
}

/* Twice as many buckets, or the first ones.  Without memory the chains get longer. */
static void grow(void)
{
    uint32_t count = bucket_count ? bucket_count * 2 : FIRST_BUCKETS, i;
    struct dnode **bigger = calloc(count, sizeof *bigger);
    if (!bigger)
        return;
    for (i = 0; i < bucket_count; i++) {
        while (buckets[i]) {
            struct dnode *d = buckets[i];
            buckets[i] = d->next;
            d->next = bigger[d->hash & (count - 1)];
            bigger[d->hash & (count - 1)] = d;
        }
    }
    free(buckets);
    buckets = bigger;
    bucket_count = count;
}

static bool init(void)
{
    const void *random = (const void *)getauxval(AT_RANDOM);
    if (random)
        memcpy(key, random, sizeof key);
    key[1] |= 1;
    grow();
    return buckets != NULL;
}

struct dnode *dnode_find(const struct dnode *parent, const char *name, uint32_t size)
{
    uint32_t hash;
    struct dnode *d;
    if (!buckets)
        return NULL;
    hash = hash_of(parent, name, size);
    for (d = buckets[hash & (bucket_count - 1)]; d; d = d->next)
        if (d->hash == hash && d->parent == parent && d->name_size == size && !memcmp(d->name, name, size))
            return d;
    return NULL;
}

void dnode_unhash(struct dnode *d)
{
    struct dnode **at;
    if (!d || !(d->flags & DNODE_HASHED))
        return;
    for (at = &buckets[d->hash & (bucket_count - 1)]; *at != d; at = &(*at)->next)
        ;
    *at = d->next;
    d->flags &= ~(uint32_t)DNODE_HASHED;
    hashed_count--;
}

void dnode_hash(struct dnode *d)
{
    struct dnode *old, **bucket;
    if (!d || !d->parent || d->flags & DNODE_HASHED || (!buckets && !init()))
        return;
    old = dnode_find(d->parent, d->name, d->name_size);
    dnode_unhash(old);
    dnode_replace(old, d);
    if (hashed_count >= bucket_count)
        grow();
    d->hash = hash_of(d->parent, d->name, d->name_size);
    bucket = &buckets[d->hash & (bucket_count - 1)];
    d->next = *bucket;
    *bucket = d;
    d->flags |= DNODE_HASHED;
    hashed_count++;
}

static void put(struct dnode *d)
{
    while (d && --d->refs == 0) {
        struct dnode *parent = d->parent;
        if (d->name != d->brief)
            free(d->name);
        free(d->link);
        free(d);
        d = parent;
    }
}

/* False, and no name at all, without memory: then it must not be hashed. */
static bool set_name(struct dnode *d, const char *name, uint32_t size)
{
    if (d->name != d->brief)
        free(d->name);
    d->name = size <= sizeof d->brief ? d->brief : malloc(size);
    d->name_size = 0;
    if (!d->name || size > UINT16_MAX)
        return false;
    memcpy(d->name, name, size);
    d->name_size = (uint16_t)size;
    return true;
}

struct dnode *dnode_new(struct dnode *parent, const char *name, uint32_t size, struct vnode *v, uint32_t flags)
{
    struct dnode *d = calloc(1, sizeof *d);
    if (d && !dnode_init(d, parent, name, size, v, flags)) {
        free(d);
        return NULL;
    }
    return d;
}

int dnode_init(struct dnode *d, struct dnode *parent, const char *name, uint32_t size, struct vnode *v,
               uint32_t flags)
{
    d->name = d->brief;
    d->refs = 1;
    if (!set_name(d, name, size))
        return 0;
    d->parent = parent;
    if (parent)
        parent->refs++;
    dnode_bind(d, v, flags);
    return 1;
}

void dnode_free(struct dnode *d)
{
    if (!d)
        return;
    dnode_unlearn_all(d);
    dnode_unlist(d);
    dnode_unhash(d);
    d->vnode = NULL;
    d->flags = 0;
    put(d);
}

void dnode_bind(struct dnode *d, struct vnode *v, uint32_t flags)
{
    if (!d)
        return;
    d->vnode = v;
    d->flags = (d->flags & DNODE_HASHED) | (flags & (DNODE_NEGATIVE | DNODE_EXACT | DNODE_PLAIN));
}

void dnode_move(struct dnode *d, struct dnode *parent, const char *name, uint32_t size)
{
    struct dnode *old;
    if (!d)
        return;
    dnode_unhash(d);
    old = d->parent;
    if (!set_name(d, name, size))
        parent = NULL; /* nobody finds it any more, and `..` passes */
    d->parent = parent;
    if (parent)
        parent->refs++;
    put(old);
}

void dnode_set_link(struct dnode *d, const char *text, uint32_t size)
{
    char *copy;
    if (!d || d->link || size == 0 || size > DNODE_LINK_MAX)
        return;
    copy = malloc(size);
    if (!copy)
        return;
    memcpy(copy, text, size);
    d->link = copy;
    d->link_size = (uint16_t)size;
}

struct vmount *vmount_new(struct dnode *root, uint32_t flags, uint64_t id)
{
    struct vmount *m = root ? calloc(1, sizeof *m) : NULL;
    if (!m)
        return NULL;
    m->root = root;
    root->refs++;
    m->flags = flags;
    m->id = id;
    m->refs = 1;
    return m;
}

/* The mount that covers `d` where it is seen through `mount`. */
struct vmount *mount_over(const struct vmount *mount, const struct dnode *d)
{
    struct vmount *m = d->mounts;
    while (m && m->parent != mount)
        m = m->next;
    return m;
}

static void unlist(struct vmount *m)
{
    struct vmount **at;
    if (!m || !(m->flags & VMOUNT_ATTACHED))
        return;
    for (at = &m->mountpoint->mounts; *at != m; at = &(*at)->next)
        ;
    *at = m->next;
    m->flags &= ~(uint32_t)VMOUNT_ATTACHED;
}

static void put_mount(struct vmount *m)
{
    while (m && --m->refs == 0) {
        struct vmount *parent = m->parent;
        put(m->mountpoint);
        put(m->root);
        free(m);
        m = parent;
    }
}

void vmount_free(struct vmount *m)
{
    if (!m)
        return;
    unlist(m);
    put_mount(m);
}

void vmount_set_flags(struct vmount *m, uint32_t flags)
{
    if (m)
        m->flags = (m->flags & VMOUNT_ATTACHED) | (flags & ~(uint32_t)VMOUNT_ATTACHED);
}

void vmount_attach(struct vmount *m, struct vmount *parent, struct dnode *mountpoint)
{
    struct vmount *old_parent;
    struct dnode *old_point;
    if (!mountpoint)
        return;
    mountpoint->mounted++;
    if (!m || !parent) {
        mountpoint->vnode = NULL; /* nobody knows what is there: walks pass */
        return;
    }
    unlist(m);
    unlist(mount_over(parent, mountpoint)); /* hidden for good, as in Python's dictionary */
    old_parent = m->parent;
    old_point = m->mountpoint;
    m->parent = parent;
    parent->refs++;
    m->mountpoint = mountpoint;
    mountpoint->refs++;
    m->next = mountpoint->mounts;
    mountpoint->mounts = m;
    m->flags |= VMOUNT_ATTACHED;
    put_mount(old_parent);
    put(old_point);
}

/* It keeps its parent, for those who are still inside. */
void vmount_detach(struct vmount *m)
{
    if (!m || !m->mountpoint)
        return;
    m->mountpoint->mounted--;
    unlist(m);
}

void vmount_uproot(struct vmount *m)
{
    struct vmount *parent;
    struct dnode *point;
    if (!m || m->flags & VMOUNT_ATTACHED)
        return;
    parent = m->parent;
    point = m->mountpoint;
    m->parent = NULL;
    m->mountpoint = NULL;
    put_mount(parent);
    put(point);
}
