/* The mappings of an address space: a sorted array, searched by halving; see csrc/abi/mm.h.
 *
 * Address spaces have tens of mappings, seldom thousands, and moving array elements is a memmove.  No call here
 * fails half-way: room for the most that splitting can need is made first.
 */
#include "mm.h"
#include "mman.h"
#include "vfs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct object {
    uint32_t refs;      /* of a free number: the next free one */
    struct vfile *file; /* NULL: something else */
};

static struct {
    struct object *all; /* [room] */
    uint32_t room, first_free;
    uint32_t *dead; /* [dead_count] */
    uint32_t dead_count;
} objects;

static bool objects_grow(void)
{
    uint32_t room = objects.room ? 2 * objects.room : 64, i;
    struct object *all = realloc(objects.all, room * sizeof *all);
    uint32_t *dead;
    if (all)
        objects.all = all;
    dead = realloc(objects.dead, room * sizeof *dead);
    if (dead)
        objects.dead = dead;
    if (!all || !dead)
        return false;
    for (i = room - 1; i >= objects.room && i > 0; i--) {
        all[i] = (struct object){.refs = objects.first_free};
        objects.first_free = i;
    }
    objects.room = room;
    return true;
}

uint32_t mm_object_new(void)
{
    uint32_t object;
    if (!objects.first_free && !objects_grow())
        return 0;
    object = objects.first_free;
    objects.first_free = objects.all[object].refs;
    objects.all[object].refs = 1;
    return object;
}

void mm_object_bind(uint32_t object, struct vfile *f)
{
    objects.all[object].file = f;
    f->number = object;
}

static void free_number(uint32_t object)
{
    struct object *o = objects.all + object;
    if (o->file)
        o->file->number = 0;
    o->file = NULL;
    o->refs = objects.first_free;
    objects.first_free = object;
}

int mm_object_drop(uint32_t object)
{
    if (object && objects.all[object].refs)
        return 1;
    if (object)
        free_number(object);
    return 0;
}

static bool is_spare(const struct object *o)
{
    return o->file && o->file->spare;
}

void mm_object_get(uint32_t object)
{
    uint32_t i;
    if (!object || objects.all[object].refs++ || is_spare(objects.all + object))
        return;
    /* Dead, but Python has not been told yet: back to life. */
    for (i = 0; objects.dead[i] != object; i++)
        ;
    objects.dead[i] = objects.dead[--objects.dead_count];
}

void mm_object_put(uint32_t object)
{
    struct object *o = objects.all + object;
    if (!object || --o->refs)
        return;
    if (!is_spare(o))
        objects.dead[objects.dead_count++] = object;
    else if (o->file->spare == SPARE_MAPPED)
        o->file->spare = SPARE_IDLE;
}

uint32_t mm_dead_object(void)
{
    uint32_t object;
    if (!objects.dead_count)
        return 0;
    object = objects.dead[--objects.dead_count];
    free_number(object);
    return object;
}

bool mm_has_dead(void)
{
    return objects.dead_count != 0;
}

uint32_t mm_object_refs(uint32_t object)
{
    return objects.all[object].refs;
}

struct vfile *mm_object_file(uint32_t object)
{
    return objects.all[object].file;
}

struct mm *mm_new(struct commit *commit)
{
    struct mm *mm = calloc(1, sizeof *mm);
    if (!mm)
        return NULL;
    mm->commit = commit;
    mm->limit_as = mm->limit_data = UINT64_MAX;
    return mm;
}

void mm_free(struct mm *mm)
{
    uint32_t i;
    for (i = 0; i < mm->count; i++) {
        mm_object_put(mm->vmas[i].file);
        mm_object_put(mm->vmas[i].name);
    }
    free(mm->vmas);
    free(mm);
}

/* Room for `more` mappings: splitting twice and inserting one are the most that one call does. */
static int reserve(struct mm *mm, uint32_t more)
{
    uint32_t room = mm->room ? mm->room : 32;
    struct vma *vmas;
    if (mm->count + more <= mm->room)
        return 0;
    while (room < mm->count + more)
        room *= 2;
    vmas = realloc(mm->vmas, room * sizeof *vmas);
    if (!vmas)
        return -ENOMEM;
    mm->vmas = vmas;
    mm->room = room;
    return 0;
}

uint32_t mm_index(const struct mm *mm, uint64_t addr)
{
    uint32_t low = 0, high = mm->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (mm->vmas[middle].end > addr)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static int64_t size_of(const struct vma *v)
{
    return (int64_t)(v->end - v->start);
}

/* Whether `right` continues `left`, so that one mapping could describe both. */
static bool joins(const struct vma *left, const struct vma *right)
{
    return left->end == right->start && !((left->flags ^ right->flags) & ~VM_PRISTINE) && left->file == right->file &&
           left->name == right->name && !(left->flags & VM_DONTEXPAND) &&
           (!left->file || left->offset + left->end - left->start == right->offset);
}

static void absorb(struct vma *v, const struct vma *right)
{
    v->end = right->end;
    v->flags &= right->flags;
    mm_object_put(right->file);
    mm_object_put(right->name);
}

/* Merge neighbours at and between the borders `start` and `end`: all that follows moves once. */
static void join(struct mm *mm, uint64_t start, uint64_t end)
{
    uint32_t last = mm_index(mm, start), next;
    if (last)
        last--;
    for (next = last + 1; next < mm->count && mm->vmas[last].end <= end; next++) {
        struct vma *v = mm->vmas + last, *right = mm->vmas + next;
        if (joins(v, right))
            absorb(v, right);
        else
            mm->vmas[++last] = *right;
    }
    if (next == last + 1)
        return;
    memmove(mm->vmas + last + 1, mm->vmas + next, (mm->count - next) * sizeof *mm->vmas);
    mm->count -= next - last - 1;
}

/* Make `addr` a border if it lies inside a mapping; there is room. */
static void split(struct mm *mm, uint64_t addr)
{
    uint32_t i = mm_index(mm, addr);
    struct vma *v = mm->vmas + i;
    if (i == mm->count || v->start >= addr)
        return;
    memmove(v + 1, v, (mm->count - i) * sizeof *v);
    mm->count++;
    v->end = v[1].start = addr;
    if (v->file)
        v[1].offset += addr - v->start;
    mm_object_get(v->file);
    mm_object_get(v->name);
}

void mm_count(struct mm *mm, uint32_t flags, int64_t size)
{
    mm->total_vm += size;
    if (mm->total_vm > mm->peak_vm)
        mm->peak_vm = mm->total_vm;
    if (flags & VM_GROWSDOWN)
        mm->stack_vm += size;
    else if ((flags & (VM_WRITE | VM_SHARED)) == VM_WRITE)
        mm->data_vm += size;
    else if ((flags & (VM_WRITE | VM_EXEC)) == VM_EXEC)
        mm->exec_vm += size;
    if (flags & VM_LOCKED)
        mm->locked_vm += size;
}

int commit_charge(struct commit *commit, int64_t size)
{
    int64_t used = commit->used + size;
    if (commit->limit ? used > commit->limit : commit->total > 0 && size > commit->total)
        return MM_REFUSED;
    commit->used = used;
    if (used > commit->peak)
        commit->peak = used;
    return 0;
}

/* RLIMIT_DATA for mappings, where 0 means none (a courtesy of Linux to valgrind). */
static uint64_t data_limit(const struct mm *mm)
{
    return mm->limit_data ? mm->limit_data : UINT64_MAX;
}

int mm_check_expand(const struct mm *mm, uint32_t flags, int64_t size)
{
    if ((uint64_t)(mm->total_vm + size) > mm->limit_as)
        return -ENOMEM;
    if ((flags & (VM_WRITE | VM_SHARED | VM_GROWSDOWN)) == VM_WRITE &&
        (uint64_t)(mm->data_vm + size) > data_limit(mm))
        return -ENOMEM;
    return 0;
}

int mm_is_pristine(const struct mm *mm, uint64_t start, uint64_t end, uint32_t file, uint64_t offset)
{
    uint32_t i;
    for (i = mm_index(mm, start); start < end; i++) {
        const struct vma *v = mm->vmas + i;
        if (i == mm->count || v->start > start || v->file != file || v->name ||
            (v->flags & (VM_PRISTINE | VM_EXEC)) != VM_PRISTINE || v->offset + start - v->start != offset)
            return 0;
        offset += v->end - start;
        start = v->end;
    }
    return 1;
}

/* Add a mapping (its references pass) where nothing is; there is room. */
static void insert(struct mm *mm, const struct vma *new)
{
    uint32_t i = mm_index(mm, new->start);
    memmove(mm->vmas + i + 1, mm->vmas + i, (mm->count - i) * sizeof *new);
    mm->vmas[i] = *new;
    mm->count++;
    mm_count(mm, new->flags, size_of(new));
    join(mm, new->start, new->end);
}

int mm_insert(struct mm *mm, uint64_t start, uint64_t end, uint32_t flags, uint32_t file, uint64_t offset,
              uint32_t name)
{
    struct vma new = {.start = start, .end = end, .offset = offset, .flags = flags, .file = file, .name = name};
    if (reserve(mm, 1) < 0)
        return -ENOMEM;
    mm_object_get(file);
    mm_object_get(name);
    insert(mm, &new);
    return 0;
}

/* By how many mappings cutting out [start, end) would raise the number of mappings, at most. */
static uint32_t splits(const struct mm *mm, uint64_t start, uint64_t end)
{
    uint32_t i = mm_index(mm, start);
    return i < mm->count && mm->vmas[i].start < start && mm->vmas[i].end > end;
}

int mm_remove(struct mm *mm, uint64_t start, uint64_t end, int uncharge)
{
    uint32_t first, last;
    if (reserve(mm, 2) < 0)
        return -ENOMEM;
    first = mm_index(mm, start);
    if (first == mm->count || mm->vmas[first].start >= end)
        return 0;
    split(mm, start);
    split(mm, end);
    first = mm_index(mm, start);
    for (last = first; last < mm->count && mm->vmas[last].start < end; last++) {
        const struct vma *v = mm->vmas + last;
        mm_count(mm, v->flags, -size_of(v));
        if (uncharge && v->flags & VM_ACCOUNT)
            mm->commit->used -= size_of(v);
        mm_object_put(v->file);
        mm_object_put(v->name);
    }
    memmove(mm->vmas + first, mm->vmas + last, (mm->count - last) * sizeof *mm->vmas);
    mm->count -= last - first;
    return 1;
}

int mm_map(struct mm *mm, uint64_t start, uint64_t end, uint32_t flags, uint32_t file, uint64_t offset,
           uint32_t name)
{
    int64_t size = (int64_t)(end - start), grown = size;
    uint32_t i;
    int r;
    for (i = mm_index(mm, start); i < mm->count && mm->vmas[i].start < end; i++) {
        const struct vma *v = mm->vmas + i;
        grown -= (int64_t)((v->end < end ? v->end : end) - (v->start > start ? v->start : start));
    }
    r = mm_check_expand(mm, flags, grown > 0 ? grown : 0);
    if (r < 0)
        return r;
    if (mm->count + 1 + splits(mm, start, end) > max_maps(mm) || reserve(mm, 3) < 0)
        return -ENOMEM;
    if (!(flags & VM_NORESERVE) && (flags & (VM_SHARED | VM_WRITE)) == VM_WRITE) {
        r = commit_charge(mm->commit, size);
        if (r < 0)
            return r;
        flags |= VM_ACCOUNT;
    }
    flags &= ~VM_PRISTINE;
    if (file && !(flags & (VM_SHARED | VM_WRITE)))
        flags |= VM_PRISTINE;
    mm_object_get(file);
    mm_object_get(name);
    mm_remove(mm, start, end, 1);
    insert(mm, &(struct vma){
                   .start = start, .end = end, .offset = offset, .flags = flags, .file = file, .name = name});
    return 0;
}

int mm_unmap(struct mm *mm, uint64_t start, uint64_t end)
{
    if (splits(mm, start, end) && mm->count + 1 > max_maps(mm))
        return -ENOMEM;
    return mm_remove(mm, start, end, 1);
}

int mm_check_protect(struct mm *mm, uint64_t start, uint64_t end, uint32_t prot, uint64_t *done,
                     uint64_t *charged)
{
    int64_t grown = 0;
    uint32_t i;
    *charged = 0;
    *done = start;
    if (reserve(mm, 2) < 0)
        return -ENOMEM;
    for (i = mm_index(mm, start); i < mm->count && mm->vmas[i].start < end; i++) {
        const struct vma *v = mm->vmas + i;
        uint64_t stop = v->end < end ? v->end : end;
        int64_t size = (int64_t)(stop - *done);
        if (v->start > *done)
            return -ENOMEM;
        if (prot & ~(v->flags >> 4) & 7)
            return -EACCES;
        if (prot & VM_WRITE && !(v->flags & (VM_WRITE | VM_SHARED))) {
            if (!(v->flags & VM_GROWSDOWN) && (uint64_t)(mm->data_vm + grown + size) > data_limit(mm))
                return -ENOMEM;
            if (!(v->flags & (VM_ACCOUNT | VM_NORESERVE))) {
                int r = commit_charge(mm->commit, size);
                if (r < 0)
                    return r;
                *charged += (uint64_t)size;
            }
            grown += size;
        }
        *done = stop;
    }
    return *done >= end ? 0 : -ENOMEM;
}

void mm_set_prot(struct mm *mm, uint64_t start, uint64_t end, uint32_t prot)
{
    uint32_t i;
    split(mm, start);
    split(mm, end);
    for (i = mm_index(mm, start); i < mm->count && mm->vmas[i].start < end; i++) {
        struct vma *v = mm->vmas + i;
        mm_count(mm, v->flags, -size_of(v));
        if (prot & VM_WRITE && !(v->flags & (VM_WRITE | VM_SHARED | VM_NORESERVE)))
            v->flags |= VM_ACCOUNT;
        v->flags = (v->flags & ~(prot & VM_WRITE ? VM_PRISTINE | 7u : 7u)) | prot;
        mm_count(mm, v->flags, size_of(v));
    }
    join(mm, start, end);
}

int mm_set_flags(struct mm *mm, uint64_t start, uint64_t end, uint32_t clear, uint32_t set)
{
    uint32_t i;
    if (reserve(mm, 2) < 0)
        return -ENOMEM;
    split(mm, start);
    split(mm, end);
    for (i = mm_index(mm, start); i < mm->count && mm->vmas[i].start < end; i++) {
        struct vma *v = mm->vmas + i;
        mm_count(mm, v->flags, -size_of(v));
        v->flags = (v->flags & ~clear) | set;
        mm_count(mm, v->flags, size_of(v));
    }
    join(mm, start, end);
    return 0;
}

int mm_set_name(struct mm *mm, uint64_t start, uint64_t end, uint32_t name)
{
    uint32_t i;
    if (reserve(mm, 2) < 0)
        return -ENOMEM;
    split(mm, start);
    split(mm, end);
    for (i = mm_index(mm, start); i < mm->count && mm->vmas[i].start < end; i++) {
        struct vma *v = mm->vmas + i;
        if (v->file || v->flags & VM_DONTEXPAND)
            continue;
        mm_object_get(name);
        mm_object_put(v->name);
        v->name = name;
    }
    join(mm, start, end);
    return 0;
}

void mm_grow_down(struct mm *mm, uint64_t old, uint64_t start)
{
    struct vma *v = mm->vmas + mm_index(mm, old);
    mm_count(mm, v->flags, (int64_t)(v->start - start));
    if (v->file)
        v->offset -= v->start - start;
    v->start = start;
}

int mm_fork(struct mm *child, struct mm *parent)
{
    struct vma *vmas = child->vmas;
    int64_t charge = 0;
    uint32_t i, count = 0;
    int special = 0, r;
    if (reserve(child, parent->count) < 0)
        return -ENOMEM;
    for (i = 0; i < parent->count; i++) {
        const struct vma *v = parent->vmas + i;
        if (v->flags & VM_ACCOUNT && !(v->flags & VM_DONTCOPY))
            charge += size_of(v);
    }
    r = commit_charge(parent->commit, charge);
    if (r < 0)
        return r;
    vmas = child->vmas;
    {
        uint32_t room = child->room;
        *child = *parent;
        child->vmas = vmas;
        child->room = room;
    }
    child->def_flags = 0;
    child->state = parent->state & (MM_SEALED | MM_POLICED);
    child->peak_vm = 0;
    child->total_vm = child->data_vm = child->stack_vm = child->exec_vm = child->locked_vm = 0;
    for (i = 0; i < parent->count; i++) {
        struct vma v = parent->vmas[i];
        special |= (v.flags & (VM_DONTCOPY | VM_WIPEONFORK)) != 0;
        if (v.flags & VM_DONTCOPY)
            continue;
        v.flags &= ~(uint32_t)(VM_LOCKED | VM_LOCKONFAULT);
        mm_count(child, v.flags, size_of(&v));
        if (count && joins(vmas + count - 1, &v)) {
            vmas[count - 1].end = v.end;
            vmas[count - 1].flags &= v.flags;
            continue;
        }
        mm_object_get(v.file);
        mm_object_get(v.name);
        vmas[count++] = v;
    }
    child->count = count;
    return special;
}

void mm_clear(struct mm *mm)
{
    mm_remove(mm, 0, UINT64_MAX, 1);
    mm->total_vm = mm->data_vm = mm->stack_vm = mm->exec_vm = mm->locked_vm = 0;
}
