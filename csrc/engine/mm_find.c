/* Where in an address space something is, or there is room for it; see csrc/abi/mm.h. */
#include "mm.h"
#include "mman.h"

uint64_t mm_hole(const struct mm *mm, uint64_t start, uint64_t end)
{
    uint32_t i = mm_index(mm, start);
    for (; start < end && i < mm->count && mm->vmas[i].start <= start; i++)
        start = mm->vmas[i].end;
    return start < end ? start : end;
}

uint32_t mm_flagged(const struct mm *mm, uint64_t start, uint64_t end, uint64_t flags)
{
    uint32_t i = mm_index(mm, start);
    for (; i < mm->count && mm->vmas[i].start < end; i++)
        if (mm->vmas[i].flags & flags)
            return i;
    return mm->count;
}

/* Where a mapping begins for its neighbour below (vm_start_gap). */
static uint64_t guarded_start(const struct vma *v)
{
    if (!(v->flags & VM_GROWSDOWN))
        return v->start;
    return v->start > STACK_GUARD ? v->start - STACK_GUARD : 0;
}

int mm_is_free(const struct mm *mm, uint64_t start, uint64_t end)
{
    uint32_t i = mm_index(mm, start);
    return i == mm->count || end <= guarded_start(mm->vmas + i);
}

uint64_t mm_find_high(const struct mm *mm, uint64_t size, uint64_t low, uint64_t high)
{
    uint32_t i = mm_index(mm, high - 1);
    if (i < mm->count && guarded_start(mm->vmas + i) < high)
        high = guarded_start(mm->vmas + i);
    for (;; i--) {
        uint64_t floor = i ? mm->vmas[i - 1].end : 0;
        if (high >= floor && high - floor >= size)
            return high - size >= low ? high - size : 0;
        if (!i || floor <= low)
            return 0;
        if (guarded_start(mm->vmas + i - 1) < high)
            high = guarded_start(mm->vmas + i - 1);
    }
}

uint64_t mm_find_low(const struct mm *mm, uint64_t size, uint64_t low, uint64_t high)
{
    uint32_t i = mm_index(mm, low);
    for (; low + size <= high; i++) {
        if (i == mm->count || low + size <= guarded_start(mm->vmas + i))
            return low;
        if (mm->vmas[i].end > low)
            low = mm->vmas[i].end;
    }
    return 0;
}

uint64_t mm_find_free(const struct mm *mm, uint64_t size)
{
    uint64_t addr = mm_find_high(mm, size, MMAP_MIN_ADDR, mm->mmap_base);
    return addr ? addr : mm_find_low(mm, size, LEGACY_BASE, mm->top);
}

/* __thp_get_unmapped_area, also in what it does with a place that is aligned by itself. */
uint64_t mm_find_anon(const struct mm *mm, uint64_t size)
{
    uint64_t addr = size & (HUGE_PAGE - 1) ? 0 : mm_find_free(mm, size + HUGE_PAGE);
    return addr ? (addr + HUGE_PAGE) & ~(HUGE_PAGE - 1) : mm_find_free(mm, size);
}

uint64_t mm_find_roomy(const struct mm *mm, uint64_t size)
{
    uint64_t addr = mm_find_free(mm, size + (size < ROOM_BEHIND ? size : ROOM_BEHIND));
    if (!addr)
        return mm_find_free(mm, size);
    return size < HUGE_PAGE ? addr : (addr + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
}
