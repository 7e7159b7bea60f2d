/* VM_* and limits: the same numbers as in sentry/abi/mman.py and sentry/mm/layout.py (tests/unit/test_mm_vma.py
 * compares them). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "mm.h"

#define VM_WRITE 0x2u
#define VM_EXEC 0x4u
#define VM_SHARED 0x8u
#define VM_MAYWRITE 0x20u
#define VM_MAYEXEC 0x40u
#define VM_MAYALL 0x70u
#define VM_GROWSDOWN 0x100u
#define VM_PFNMAP 0x400u
#define VM_PRISTINE 0x800u
#define VM_LOCKED 0x2000u
#define VM_DONTCOPY 0x20000u
#define VM_DONTEXPAND 0x40000u
#define VM_LOCKONFAULT 0x80000u
#define VM_ACCOUNT 0x100000u
#define VM_NORESERVE 0x200000u
#define VM_WIPEONFORK 0x2000000u

#define GUEST_TOP 0x7fff00000000ull
#define GUEST_PAGE 4096ull
#define HUGE_PAGE (2ull << 20)
#define ROOM_BEHIND (64ull << 20)
#define MMAP_MIN_ADDR 65536ull
#define MAX_MAP_COUNT 65530u
#define STACK_GUARD (256 * GUEST_PAGE)
#define LEGACY_BASE (GUEST_TOP / 3 & ~(GUEST_PAGE - 1))

static inline uint32_t max_maps(const struct mm *mm)
{
    return mm->commit && mm->commit->max_maps ? (uint32_t)mm->commit->max_maps : MAX_MAP_COUNT;
}

/* The open file that `object` is, NULL for other things. */
struct vfile *mm_object_file(uint32_t object);
/* Whether Python has objects to let go. */
bool mm_has_dead(void);
