/* Address spaces: their mappings in order of address, and what is counted of them (struct mm_struct).
 *
 * Owned by C, so that mmap and its kin can be answered without Python (engine/fast_mm.c); sentry/mm is the
 * specification and does everything else through the calls below.  Guest memory itself is the platform's.
 *
 * A mapping refers to Python objects (files, names) by number.  mm.c counts the mappings that refer to each;
 * numbers are Python's to make (`mm_object_new`), and where the last reference has gone, Python is told by
 * `mm_dead_object` and lets the object go.  Until then a file can be mapped again.  The engine may leave that for
 * Python to find when it has the next trap: for that long, a file is not closed.
 *
 * A spare file (vfs.h) has a number as long as it is one, mapped or not: nobody needs be told of the last mapping.
 */
#ifndef SENTRY_MM_H
#define SENTRY_MM_H

#include <stdint.h>

/* cdef begin */
/* Besides negative errnos: the commit limit has refused (Commit.refuse makes it ENOMEM). */
#define MM_REFUSED -1000

struct vma {
    uint64_t start, end;
    uint64_t offset;     /* bytes into the file at `start`, 0 without one */
    uint32_t flags;      /* VM_* of sentry/abi/mman.py */
    uint32_t file, name; /* objects, 0: none */
    uint32_t reserved;
};

/* Bytes promised to all address spaces, see sentry/mm/commit.py.  Zeroes mean: no limit, not known. */
struct commit {
    int64_t used, limit, total, peak;
    int64_t max_maps; /* mappings of one address space: vm.max_map_count, but never more than the host's default */
};

/* mm.state */
#define MM_SLOW 1 /* tasks with different limits share it: Python decides */
#define MM_POLICED 4 /* some of it has a memory policy: likewise */
#define MM_SEALED 2 /* some of it is sealed (mseal(2)): likewise */

struct mm {
    struct vma *vmas; /* [count]: page aligned, disjoint, in order, joined where they can be */
    uint32_t count, room;
    struct commit *commit;
    uint64_t limit_as, limit_data;                                /* RLIMIT_* of the process that acts */
    uint64_t mmap_base, top;                                      /* where mappings without a wish go */
    int64_t total_vm, data_vm, stack_vm, exec_vm, locked_vm;      /* bytes */
    int64_t peak_vm;                                              /* the most that total_vm ever was */
    uint64_t start_brk, brk, start_data, end_data;
    uint32_t def_flags; /* VM_* of mappings to come */
    uint32_t state;     /* MM_* */
};

struct vfile;
struct mm *mm_new(struct commit *commit);
void mm_free(struct mm *mm);

/* The number of a new object, with one reference that `mm_object_put` gives back; 0: no memory. */
uint32_t mm_object_new(void);
void mm_object_get(uint32_t object);
void mm_object_put(uint32_t object);
/* How many references there are. */
uint32_t mm_object_refs(uint32_t object);
/* From now on `object` is the open file `f`, and f->number says so.  The file outlives its number. */
void mm_object_bind(uint32_t object, struct vfile *f);
/* Free the number of a file that was spare, if it is not mapped; 1: it is, and keeps it. */
int mm_object_drop(uint32_t object);
/* An object that nothing refers to any more, 0 if there is none.  Its number is free from now on. */
uint32_t mm_dead_object(void);

/* Position of the first mapping that ends above `addr`; mm->count if none does. */
uint32_t mm_index(const struct mm *mm, uint64_t addr);
/* Where the first hole of [start, end) begins; `end`: there is none. */
uint64_t mm_hole(const struct mm *mm, uint64_t start, uint64_t end);
/* The index of the first mapping that shares a byte with [start, end) and has one of `flags`; `count`: there is none.
 */
uint32_t mm_flagged(const struct mm *mm, uint64_t start, uint64_t end, uint64_t flags);
/* memory.c: which mappings are larger than `size` bytes, the first `room` of them: their number. */
uint32_t mm_large(const struct mm *mm, uint64_t size, uint32_t *found, uint32_t room);
/* Whether [start, end) is unmapped and no stack's guard gap. */
int mm_is_free(const struct mm *mm, uint64_t start, uint64_t end);
/* A place for `size` bytes, 0 if there is none: below mmap_base, or else anywhere; or the lowest, or highest, in
 * [low, high). */
uint64_t mm_find_free(const struct mm *mm, uint64_t size);
/* As mm_find_free; private anonymous memory of whole huge pages comes to lie where the host can use huge ones. */
uint64_t mm_find_anon(const struct mm *mm, uint64_t size);
/* A place for what has grown and may well grow again: with as much room behind it, if there is some. */
uint64_t mm_find_roomy(const struct mm *mm, uint64_t size);
uint64_t mm_find_low(const struct mm *mm, uint64_t size, uint64_t low, uint64_t high);
uint64_t mm_find_high(const struct mm *mm, uint64_t size, uint64_t low, uint64_t high);
/* Whether [start, end) shows `file` from `offset` on, privately, as it would if it were mapped anew; no code. */
int mm_is_pristine(const struct mm *mm, uint64_t start, uint64_t end, uint32_t file, uint64_t offset);

/* Make a mapping where nothing is: no checks, no charge. */
int mm_insert(struct mm *mm, uint64_t start, uint64_t end, uint32_t flags, uint32_t file, uint64_t offset,
              uint32_t name);
/* Take [start, end) out of the tree; `uncharge`: and give back what was promised for it.  1: there was something. */
int mm_remove(struct mm *mm, uint64_t start, uint64_t end, int uncharge);

/* The bookkeeping of mmap(2): checks limits, charges, replaces what is there. */
int mm_map(struct mm *mm, uint64_t start, uint64_t end, uint32_t flags, uint32_t file, uint64_t offset,
           uint32_t name);
/* That of munmap(2).  1: there was something to unmap. */
int mm_unmap(struct mm *mm, uint64_t start, uint64_t end);
/* How far [start, end) can get `prot`, what was charged for that; why not further. */
int mm_check_protect(struct mm *mm, uint64_t start, uint64_t end, uint32_t prot, uint64_t *done,
                     uint64_t *charged);
void mm_set_prot(struct mm *mm, uint64_t start, uint64_t end, uint32_t prot);
/* Clear and set flags of what is mapped of [start, end). */
int mm_set_flags(struct mm *mm, uint64_t start, uint64_t end, uint32_t clear, uint32_t set);
/* Give the private anonymous part of [start, end) a name. */
int mm_set_name(struct mm *mm, uint64_t start, uint64_t end, uint32_t name);
/* Let the mapping at `old` begin at `start` instead, where nothing is (stack growth); charged by the caller. */
void mm_grow_down(struct mm *mm, uint64_t old, uint64_t start);
/* Make the empty `child` what fork(2) makes of `parent`.  1: there are mappings that fork treats specially. */
int mm_fork(struct mm *child, struct mm *parent);
void mm_clear(struct mm *mm);

/* SysError(ENOMEM) for the caller when not 0: RLIMIT_AS or RLIMIT_DATA would be passed. */
int mm_check_expand(const struct mm *mm, uint32_t flags, int64_t size);
void mm_count(struct mm *mm, uint32_t flags, int64_t size);
int commit_charge(struct commit *commit, int64_t size);
/* cdef end */

#endif
