/* Fast paths on memory: mmap, munmap, mprotect, mremap, brk and madvise as allocators and dynamic linkers make them.
 * The twins are in sentry/mm/{mapping,growth,manager,remap,advise}.py.
 *
 * A file can be mapped here if it has a number (csrc/abi/mm.h): it is mapped somewhere, or spare.
 *
 * Bookkeeping comes first; the order to the stub that follows fails only where the host is out of memory or
 * mappings, and then the range is left unmapped in both.  What is an error otherwise is passed on: Python finds it
 * again, and says so where it has to be said.
 *
 * The thread of a process that has no other gets its order together with the word to go on, and nobody waits for the
 * answer: nothing of the process can happen before it.  If the host refuses, the thread traps again and says so
 * (fast_mm_refused).  What is noted down is no longer true for so long, but only for others.
 */
#include "fast.h"
#include "mman.h"
#include "patch.h"
#include "platform.h"
#include "record.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define PROT_RWX 7u
#define FILE_END ((1ull << 63) - GUEST_PAGE)
#define MAP_EITHER (MAP_NORESERVE | MAP_STACK | MAP_FIXED)
#define MAP_TAKEN (MAP_PRIVATE | MAP_ANONYMOUS | MAP_EITHER)
#define MAP_TAKEN_FILE (MAP_PRIVATE | MAP_SHARED | MAP_DENYWRITE | MAP_EXECUTABLE | MAP_EITHER)

static uint64_t page_up(uint64_t size)
{
    return (size + GUEST_PAGE - 1) & ~(GUEST_PAGE - 1);
}

static bool unaligned(uint64_t addr)
{
    return addr & (GUEST_PAGE - 1);
}

/* The caller's memory, NULL where Python has to act: on ptrace a fast path can't give orders. */
static struct mm *call_mm(struct call *c)
{
    struct mm *mm = c->t->g.mm;
    return mm && c->e->trap && !mm->state && !mm->def_flags ? mm : NULL;
}

static int64_t order5(struct call *c, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4)
{
    struct guest_thread *g = &c->t->g;
    const uint32_t state = g->state;
    int64_t r;
    g->state = THREAD_STOPPED; /* as it is */
    r = guest_syscall(c->e, g, nr, a0, a1, a2, a3, a4, 0);
    if (g->state == THREAD_STOPPED)
        g->state = state;
    return r;
}

static int64_t order(struct call *c, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
    return order5(c, nr, a0, a1, a2, a3, (uint64_t)-1);
}

/* Whether nothing else of the process can run before the thread's next call is over. */
static bool may_part(const struct thread *t)
{
    return t->record && t->leader->thread_count == 1;
}

static void part(struct thread *t, struct parting parting, uint64_t nr, const uint64_t args[6])
{
    struct record *r = t->record;
    t->parting = parting;
    r->last_nr = (uint32_t)nr;
    r->last_lends = parting.fd >= 0;
    memcpy(r->last_args, args, sizeof r->last_args);
}

/* The call's last order: it only has to succeed.  `parting`: what to take back if it doesn't, when that is not known
 * at once; the caller takes it back by himself on a negative result. */
static int64_t order_last(struct call *c, struct parting parting, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2,
                          uint64_t a3)
{
    const uint64_t args[6] = {a0, a1, a2, a3, (uint64_t)-1, 0};
    if (!may_part(c->t))
        return order(c, nr, a0, a1, a2, a3);
    parting.fd = -1;
    part(c->t, parting, nr, args);
    return 0;
}

static int64_t order_file(struct call *c, uint64_t start, uint64_t size, uint32_t flags, int fd, uint64_t offset)
{
    struct guest_thread *g = &c->t->g;
    const uint32_t state = g->state;
    const int host_flags = MAP_FIXED | (flags & VM_SHARED ? MAP_SHARED : MAP_PRIVATE);
    int64_t r;
    if (may_part(c->t)) {
        /* The descriptor stays what it is: the mapping that has been noted down holds its file. */
        part(c->t, (struct parting){.kind = PART_MAP, .start = start, .size = size, .fd = fd}, SYS_mmap,
             (uint64_t[6]){start, size, flags & PROT_RWX, (uint64_t)host_flags, LENT_FD, offset});
        return 0;
    }
    g->state = THREAD_STOPPED;
    r = guest_map_file(c->e, g, start, size, (int)(flags & PROT_RWX), host_flags, fd, offset);
    if (g->state == THREAD_STOPPED)
        g->state = state;
    return r;
}

/* Whether code in the mapping is, or may soon be, patched: see CodePatches.withdraw. */
static bool is_patched(const struct call *c, const struct vma *v, uint64_t start, uint64_t end)
{
    const struct patch_table *patches = c->t->g.patches;
    return v->flags & VM_EXEC && (v->name || (patches && patch_knows(patches, start, end)));
}

/* Whether the file can wait for Python when nothing maps it any more: nobody is to see that it isn't closed. */
static bool can_wait(uint32_t file)
{
    const struct vfile *f = mm_object_file(file);
    return f && (f->spare || (f->node && f->node->nlink));
}

/* Whether Python has no part in the end of [start, end), which shows `file` afterwards (0: none): it lets go of files
 * and names, and knows what code is patched. */
static bool is_plain(const struct call *c, const struct mm *mm, uint64_t start, uint64_t end, uint32_t file)
{
    uint32_t i, files = 0, least = UINT32_MAX;
    for (i = mm_index(mm, start); i < mm->count && mm->vmas[i].start < end; i++) {
        const struct vma *v = mm->vmas + i;
        if (v->name || is_patched(c, v, start, end))
            return false;
        if (!v->file || v->file == file || can_wait(v->file))
            continue;
        files++;
        if (mm_object_refs(v->file) < least)
            least = mm_object_refs(v->file);
    }
    return !files || least > files;
}

/* What is noted down of [start, end) could not be made: the host's -errno. */
static int64_t unmake(struct call *c, struct mm *mm, uint64_t start, uint64_t size, int64_t r)
{
    mm_remove(mm, start, start + size, 1);
    order(c, SYS_munmap, start, size, 0, 0);
    return r;
}

/* 0: the mapping is made; the host's -errno: it is not; 1: Python has to do it. */
static int64_t map_anon(struct call *c, struct mm *mm, uint64_t start, uint64_t size, uint32_t flags,
                        struct parting parting)
{
    const int host_flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | (flags & VM_NORESERVE ? MAP_NORESERVE : 0);
    int64_t r;
    if (!is_plain(c, mm, start, start + size, 0) || mm_map(mm, start, start + size, flags, 0, 0, 0) < 0)
        return 1;
    parting.start = start;
    parting.size = size;
    r = order_last(c, parting, SYS_mmap, start, size, flags & PROT_RWX, (uint64_t)host_flags);
    return r < 0 ? unmake(c, mm, start, size, r) : 0;
}

/* The host's descriptor to map `f` by (File.host_mapping), and fewer VM_MAY bits where it must not get what they say;
 * -1: Python has to look. */
static int host_descriptor(const struct vfile *f, uint32_t *flags)
{
    const uint32_t wished = *flags;
    const struct tmpfs_data *data;
    if (!f || !f->number || !f->mount || !vfile_readable(f))
        return -1;
    if (f->mount->flags & MNT_NOEXEC)
        *flags &= ~VM_MAYEXEC;
    if (wished & VM_SHARED && !vfile_writable(f))
        *flags &= ~VM_MAYWRITE;
    if (wished & ~(*flags >> 4) & PROT_RWX)
        return -1;
    if (f->kind == VFILE_REGULAR)
        return f->host_fd;
    if (f->kind != VFILE_TMPFS)
        return -1;
    data = f->object;
    if (!(data->flags & TMPFS_MAPPED) ||
        (wished & VM_SHARED && (data->flags & TMPFS_SEALABLE || !(*flags & VM_MAYWRITE))))
        return -1;
    return data->host_fd;
}

/* As map_anon. */
static int64_t map_file(struct call *c, struct mm *mm, uint64_t start, uint64_t size, uint32_t flags, uint32_t file,
                        int fd, uint64_t offset)
{
    /* So dynamic linkers make a library's segments, after having mapped all of it. */
    const bool there = !(flags & VM_SHARED) && mm_is_pristine(mm, start, start + size, file, offset);
    int64_t r;
    if (!is_plain(c, mm, start, start + size, file) || mm_map(mm, start, start + size, flags, file, offset, 0) < 0)
        return 1;
    r = there ? order_last(c, (struct parting){.kind = PART_MAP, .start = start, .size = size}, SYS_mprotect, start,
                           size, flags & PROT_RWX, 0)
              : order_file(c, start, size, flags, fd, offset);
    return r < 0 ? unmake(c, mm, start, size, r) : 0;
}

/* Where a mapping goes, 0: Python has to say (get_unmapped_area). */
static uint64_t place(const struct mm *mm, uint64_t wish, uint64_t size, uint64_t flags)
{
    uint64_t addr = wish;
    if (flags & MAP_FIXED)
        return unaligned(addr) || addr < MMAP_MIN_ADDR || addr > GUEST_TOP - size ? 0 : addr;
    addr &= ~(GUEST_PAGE - 1);
    if (addr && addr < MMAP_MIN_ADDR)
        addr = MMAP_MIN_ADDR;
    if (addr && addr <= GUEST_TOP - size && mm_is_free(mm, addr, addr + size))
        return addr;
    return wish || !(flags & MAP_ANONYMOUS) ? mm_find_free(mm, size) : mm_find_anon(mm, size);
}

int fast_mmap(struct call *c)
{
    struct mm *mm = call_mm(c);
    const uint64_t size = page_up(c->args[1]), flags = c->args[3], offset = c->args[5];
    const bool anonymous = flags & MAP_ANONYMOUS;
    const struct vfile *f = NULL;
    uint32_t vm_flags = (c->args[2] & PROT_RWX) | VM_MAYALL;
    uint64_t start;
    int64_t r;
    int fd = -1;
    if (!mm || flags & ~(uint64_t)(anonymous ? MAP_TAKEN : MAP_TAKEN_FILE) ||
        !(flags & MAP_PRIVATE) == !(flags & MAP_SHARED))
        return FAST_PASS;
    if (!c->args[1] || !size || size > GUEST_TOP || unaligned(offset) || (!anonymous && offset > FILE_END - size))
        return FAST_PASS;
    if (flags & MAP_NORESERVE && !mm->commit->limit)
        vm_flags |= VM_NORESERVE;
    if (flags & MAP_SHARED)
        vm_flags |= VM_SHARED;
    if (!anonymous) {
        f = call_file(c, c->args[4]);
        fd = host_descriptor(f, &vm_flags);
        if (fd < 0)
            return FAST_PASS;
    }
    start = place(mm, c->args[0], size, flags);
    if (!start)
        return FAST_PASS;
    r = f ? map_file(c, mm, start, size, vm_flags, f->number, fd, offset)
          : map_anon(c, mm, start, size, vm_flags, (struct parting){.kind = PART_MAP});
    if (r > 0)
        return FAST_PASS;
    return call_return(c, r < 0 ? r : (int64_t)start);
}

#define PLAIN ((struct parting){.kind = PART_PLAIN})

int fast_munmap(struct call *c)
{
    struct mm *mm = call_mm(c);
    uint64_t addr = c->args[0], size = c->args[1];
    int r;
    if (!mm || unaligned(addr) || !size || addr > GUEST_TOP || size > GUEST_TOP - addr)
        return FAST_PASS;
    size = page_up(size);
    if (!is_plain(c, mm, addr, addr + size, 0))
        return FAST_PASS;
    r = mm_unmap(mm, addr, addr + size);
    if (r < 0)
        return FAST_PASS;
    return call_return(c, r ? order_last(c, PLAIN, SYS_munmap, addr, size, 0, 0) : 0);
}

static bool has_patches(const struct call *c, const struct mm *mm, uint64_t start, uint64_t end)
{
    uint32_t i;
    for (i = mm_index(mm, start); i < mm->count && mm->vmas[i].start < end; i++)
        if (is_patched(c, mm->vmas + i, start, end))
            return true;
    return false;
}

/* The one protection that all of [start, end) has, which is mapped, or -1. */
static int uniform_prot(const struct mm *mm, uint64_t start, uint64_t end)
{
    uint32_t i = mm_index(mm, start);
    const uint32_t prot = mm->vmas[i].flags & PROT_RWX;
    for (; i < mm->count && mm->vmas[i].start < end; i++)
        if ((mm->vmas[i].flags & PROT_RWX) != prot)
            return -1;
    return (int)prot;
}

int fast_mprotect(struct call *c)
{
    struct mm *mm = call_mm(c);
    uint64_t addr = c->args[0], end = addr + page_up(c->args[1]), prot = c->args[2], done, charged;
    int64_t r;
    int old;
    if (!mm || unaligned(addr) || prot & ~(uint64_t)PROT_RWX || end <= addr || end > GUEST_TOP)
        return FAST_PASS;
    if (has_patches(c, mm, addr, end))
        return FAST_PASS;
    if (mm_check_protect(mm, addr, end, (uint32_t)prot, &done, &charged) < 0) {
        mm->commit->used -= (int64_t)charged;
        return FAST_PASS;
    }
    old = uniform_prot(mm, addr, end);
    if (old >= 0) {
        const struct parting parting = {
            .kind = PART_PROTECT, .prot = (uint32_t)old, .start = addr, .size = end - addr, .value = charged};
        r = order_last(c, parting, SYS_mprotect, addr, end - addr, prot, 0);
    } else {
        r = order(c, SYS_mprotect, addr, end - addr, prot, 0);
    }
    if (r < 0)
        mm->commit->used -= (int64_t)charged;
    else
        mm_set_prot(mm, addr, end, (uint32_t)prot);
    return call_return(c, r);
}

/* Move what is at `addr` to where it can grow: 0, -ESRCH, or 1: Python has to do it. */
static int64_t move(struct call *c, struct mm *mm, uint64_t addr, uint64_t old_size, uint64_t new_size, uint64_t *to)
{
    const uint32_t flags = mm->vmas[mm_index(mm, addr)].flags;
    const int64_t charge = flags & VM_ACCOUNT ? (int64_t)(new_size - old_size) : 0;
    int64_t r;
    *to = mm_find_roomy(mm, new_size);
    if (!*to || mm->count + 2 > max_maps(mm) || commit_charge(mm->commit, charge) < 0)
        return 1;
    r = mm_insert(mm, *to, *to + new_size, flags, 0, 0, 0);
    if (r == 0) {
        r = order5(c, SYS_mremap, addr, old_size, new_size, MREMAP_MAYMOVE | MREMAP_FIXED, *to);
        if (r >= 0) {
            mm_remove(mm, addr, addr + old_size, 0);
            return 0;
        }
        mm_remove(mm, *to, *to + new_size, 0);
    }
    mm->commit->used -= charge;
    return r == -ESRCH ? r : 1;
}

/* Of private anonymous memory, to where it likes, as realloc(3) does it. */
int fast_mremap(struct call *c)
{
    struct mm *mm = call_mm(c);
    uint64_t addr = c->args[0], old_size = page_up(c->args[1]), new_size = page_up(c->args[2]), to = addr;
    const struct vma *v;
    uint32_t i;
    int64_t r;
    if (!mm || unaligned(addr) || c->args[3] & ~(uint64_t)MREMAP_MAYMOVE || !old_size || !new_size ||
        new_size > GUEST_TOP)
        return FAST_PASS;
    i = mm_index(mm, addr);
    v = mm->vmas + i;
    if (i == mm->count || v->start > addr || old_size > v->end - addr || v->file || v->name ||
        v->flags & (VM_EXEC | VM_SHARED | VM_GROWSDOWN | VM_DONTEXPAND | VM_PFNMAP | VM_LOCKED | VM_LOCKONFAULT))
        return FAST_PASS;
    if (new_size <= old_size) {
        if (new_size < old_size && mm_unmap(mm, addr + new_size, addr + old_size) < 0)
            return FAST_PASS;
        r = new_size < old_size ? order_last(c, PLAIN, SYS_munmap, addr + new_size, old_size - new_size, 0, 0) : 0;
        return call_return(c, r < 0 ? r : (int64_t)addr);
    }
    if (mm_check_expand(mm, v->flags, (int64_t)(new_size - old_size)) < 0)
        return FAST_PASS;
    if (addr + old_size == v->end && v->end + new_size - old_size <= GUEST_TOP &&
        mm_is_free(mm, v->end, addr + new_size))
        r = map_anon(c, mm, v->end, new_size - old_size, v->flags & ~VM_ACCOUNT,
                     (struct parting){.kind = PART_MAP});
    else if (c->args[3])
        r = move(c, mm, addr, old_size, new_size, &to);
    else
        return FAST_PASS;
    return r > 0 ? FAST_PASS : call_return(c, r < 0 ? r : (int64_t)to);
}

int fast_brk(struct call *c)
{
    struct mm *mm = call_mm(c);
    uint64_t addr = c->args[0], end, old_end;
    int64_t r;
    if (!mm)
        return FAST_PASS;
    if (addr < mm->start_brk || addr >= GUEST_TOP ||
        addr - mm->start_brk + mm->end_data - mm->start_data > mm->limit_data)
        return call_return(c, (int64_t)mm->brk);
    old_end = page_up(mm->brk);
    end = page_up(addr);
    if (end < old_end) {
        if (!is_plain(c, mm, end, old_end, 0))
            return FAST_PASS;
        if (mm_unmap(mm, end, old_end) < 0)
            return FAST_PASS;
        order_last(c, (struct parting){.kind = PART_SHRINK}, SYS_munmap, end, old_end - end, 0, 0);
    } else if (end > old_end) {
        if (!mm_is_free(mm, old_end, end + GUEST_PAGE))
            return call_return(c, (int64_t)mm->brk);
        r = map_anon(c, mm, old_end, end - old_end, PROT_READ | PROT_WRITE | VM_MAYALL,
                     (struct parting){.kind = PART_GROW, .value = mm->brk});
        if (r > 0)
            return FAST_PASS;
        if (r < 0)
            return call_return(c, (int64_t)mm->brk);
    }
    mm->brk = addr;
    return call_return(c, (int64_t)addr);
}

int fast_madvise(struct call *c)
{
    struct mm *mm = call_mm(c);
    uint64_t addr = c->args[0], end = addr + page_up(c->args[1]), position = addr;
    int32_t advice = (int32_t)c->args[2];
    uint32_t i;
    if (!mm || unaligned(addr) || end <= addr || end > GUEST_TOP || (advice != MADV_DONTNEED && advice != MADV_FREE))
        return FAST_PASS;
    for (i = mm_index(mm, addr); position < end; i++) {
        const struct vma *v = mm->vmas + i;
        if (i == mm->count || v->start > position || v->flags & (VM_LOCKED | VM_PFNMAP | VM_EXEC) ||
            (v->file && advice == MADV_FREE))
            return FAST_PASS;
        position = v->end;
    }
    return call_return(c, order_last(c, PLAIN, SYS_madvise, addr, end - addr, (uint64_t)advice, 0));
}

int64_t fast_mm_refused(struct engine *e, struct thread *t, int64_t error)
{
    struct call c = {.e = e, .t = t};
    struct mm *mm = t->g.mm;
    const struct parting p = t->parting;
    t->parting.kind = PART_NONE;
    if (error >= 0 || error < -4095) /* the guest's word */
        error = -ENOMEM;
    if (!mm)
        return error;
    if (p.kind == PART_MAP || p.kind == PART_GROW)
        unmake(&c, mm, p.start, p.size, error);
    if (p.kind == PART_GROW)
        mm->brk = p.value;
    if (p.kind == PART_GROW || p.kind == PART_SHRINK)
        return (int64_t)mm->brk;
    if (p.kind == PART_PROTECT) {
        mm_set_prot(mm, p.start, p.start + p.size, p.prot);
        mm->commit->used -= (int64_t)p.value;
    }
    return error;
}
