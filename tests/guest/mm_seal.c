/* mseal(2), remap_file_pages(2), and protection keys as far as every CPU has them. */
#include "mm_common.h"

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

static int seal(void *at, size_t size, unsigned long flags)
{
    return syscall(SYS_mseal, at, size, flags);
}

static void errors(void)
{
    CASE("mseal errors");
    char *at = anon(4);
    SHOW(seal(at + 1, PAGE, 0));
    SHOW(seal(at, PAGE, 1));
    SHOW(seal(at, PAGE, 1ul << 63));
    SHOW(seal(at, 0, 0));
    SHOW(seal(at, -1ul, 0));
    SHOW(seal(at, -2 * PAGE, 0));
    MUST(munmap(at + PAGE, PAGE));
    SHOW(seal(at, 4 * PAGE, 0));
    SHOW(munmap(at, PAGE));
}

static void sealed(void)
{
    CASE("sealed memory stays what it is");
    char *at = anon(4);
    SHOW(seal(at + PAGE, 2 * PAGE - 7, 0));
    SHOW(seal(at + PAGE, PAGE, 0));
    SHOW(munmap(at, 4 * PAGE));
    SHOW(munmap(at + PAGE, PAGE));
    SHOW(mprotect(at + PAGE, PAGE, PROT_READ));
    SHOW(mprotect(at + PAGE, PAGE, RW));
    SHOW_OK(mmap(at, 2 * PAGE, RW, ANON | MAP_FIXED, -1, 0));
    SHOW_OK(mremap(at + PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    SHOW_OK(mremap(at + PAGE, PAGE, PAGE, 0));
    SHOW_OK(mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at + 2 * PAGE));
    at[PAGE] = 5;
    say("writable: %d", at[PAGE]);
    SHOW(madvise(at + PAGE, PAGE, MADV_DONTNEED));
    say("and to be emptied: %d", at[PAGE]);
    SHOW(madvise(at + PAGE, PAGE, MADV_DONTFORK));
    SHOW(madvise(at + PAGE, PAGE, MADV_DOFORK));
    SHOW(mlock(at + PAGE, PAGE));
    SHOW(munlock(at + PAGE, PAGE));
    SHOW(munmap(at, PAGE));
    SHOW(munmap(at + 3 * PAGE, PAGE));
}

static void partly(void)
{
    CASE("mprotect up to the seal");
    char *at = anon(4);
    MUST(seal(at + 2 * PAGE, PAGE, 0));
    SHOW(mprotect(at, 4 * PAGE, PROT_NONE));
    char byte = 1;
    int ends[2];
    MUST(pipe(ends));
    for (int i = 0; i < 4; i++)
        say("page %d: %s", i, write(ends[1], at + i * PAGE, 1) == 1 ? "readable" : error_name(errno));
    (void)byte;
}

static void read_only(void)
{
    CASE("what is read-only can't be discarded");
    char *at = anon_with(2, PROT_READ, 0);
    MUST(seal(at, 2 * PAGE, 0));
    SHOW(madvise(at, PAGE, MADV_DONTNEED));
    SHOW(madvise(at, PAGE, MADV_FREE));
    SHOW(madvise(at, PAGE, MADV_DONTFORK));
    SHOW(madvise(at, PAGE, MADV_WIPEONFORK));
    SHOW(madvise(at, PAGE, MADV_RANDOM));
    SHOW(madvise(at, PAGE, MADV_WILLNEED));
    int fd = MUST(memfd_create("sealed", 0));
    MUST(ftruncate(fd, 2 * PAGE));
    char *shared = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    MUST(seal(shared, PAGE, 0));
    MUST(seal(private, PAGE, 0));
    SHOW(madvise(shared, PAGE, MADV_DONTNEED));
    SHOW(madvise(private, PAGE, MADV_DONTNEED));
}

static void inherited(void)
{
    CASE("children inherit seals");
    char *at = anon(1);
    MUST(seal(at, PAGE, 0));
    reap("child", CHILD(SHOW(munmap(at, PAGE))));
}

static void heap(void)
{
    CASE("a sealed heap doesn't shrink");
    char *start = sbrk(0);
    start = (char *)(((uintptr_t)start + PAGE - 1) & -PAGE);
    MUST(brk(start + 2 * PAGE));
    MUST(seal(start, 2 * PAGE, 0));
    SHOW_IF((char *)syscall(SYS_brk, start) == start + 2 * PAGE);
    SHOW_IF((char *)syscall(SYS_brk, start + 3 * PAGE) == start + 3 * PAGE);
}

static void nonlinear(void)
{
    CASE("remap_file_pages");
    int fd = MUST(memfd_create("pages", 0));
    MUST(ftruncate(fd, 8 * PAGE));
    for (int i = 0; i < 8; i++)
        MUST(pwrite(fd, &(char){'a' + i}, 1, i * PAGE));
    char *at = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
    SHOW(remap_file_pages(at, PAGE, 0, 7, 0));
    SHOW(remap_file_pages(at + PAGE, 2 * PAGE, 0, 4, MAP_NONBLOCK));
    say("%c%c%c%c", at[0], at[PAGE], at[2 * PAGE], at[3 * PAGE]);
    at[0] = 'H';
    char byte;
    MUST(pread(fd, &byte, 1, 7 * PAGE));
    say("written through: %c", byte);
    SHOW(remap_file_pages(at + 123, PAGE + 55, 0, 0, 0));
    say("rounded down: %c", at[0]);
    SHOW(remap_file_pages(at, PAGE, PROT_READ, 0, 0));
    SHOW(remap_file_pages(at, 0, 0, 0, 0));
    SHOW(remap_file_pages(at, PAGE, 0, -1ul, 0));
    SHOW(remap_file_pages(at, 5 * PAGE, 0, 0, 0));
    SHOW(remap_file_pages(at, 4 * PAGE, 0, 0, 0));
    SHOW(remap_file_pages(at, -PAGE, 0, 0, 0));
    SHOW(remap_file_pages(anon(1), PAGE, 0, 0, 0));
    SHOW(remap_file_pages(mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0), PAGE, 0, 0, 0));
    SHOW(remap_file_pages(BAD, PAGE, 0, 0, 0));
    char *shared = mmap(NULL, 4 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared[0] = 1;
    shared[3 * PAGE] = 4;
    SHOW(remap_file_pages(shared, PAGE, 0, 3, 0));
    say("anonymous: %d", shared[0]);
}

static void keys(void)
{
    CASE("protection keys");
    char *at = anon(2);
    SHOW(syscall(SYS_pkey_alloc, 1, 0));
    SHOW(syscall(SYS_pkey_alloc, 0, 4));
    SHOW(syscall(SYS_pkey_free, 15));
    SHOW(syscall(SYS_pkey_free, -1));
    SHOW(syscall(SYS_pkey_free, 100));
    SHOW(syscall(SYS_pkey_mprotect, at, PAGE, PROT_READ, -1));
    SHOW(syscall(SYS_pkey_mprotect, at, PAGE, PROT_READ, 15));
    SHOW(syscall(SYS_pkey_mprotect, at, PAGE, PROT_READ, 16));
    SHOW(syscall(SYS_pkey_mprotect, at + 1, PAGE, PROT_READ, 15));
    SHOW(syscall(SYS_pkey_mprotect, at, 0, PROT_READ, 15));
    SHOW(syscall(SYS_pkey_mprotect, at, PAGE, 0x100, -1));
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    errors();
    sealed();
    partly();
    read_only();
    inherited();
    nonlinear();
    keys();
    heap();
    return 0;
}
