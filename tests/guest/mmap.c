/* mmap(2) and munmap(2) of anonymous memory: placement, holes, flags, madvise, and the errors. */
#include "mm_common.h"

static void show_pages(const char *what, const char *at, int count)
{
    char text[64];
    for (int i = 0; i < count; i++)
        text[i] = readable(at + i * PAGE) ? 'r' : '-';
    text[count] = 0;
    say("%s: %s", what, text);
}

static bool is_zero(const char *at, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (at[i])
            return false;
    return true;
}

static void placement(void)
{
    CASE("placement");
    char *at = anon(8);
    SHOW_IF(((uintptr_t)at & (PAGE - 1)) == 0);
    SHOW_IF(is_zero(at, 8 * PAGE));
    memset(at, 7, 8 * PAGE);
    SHOW(munmap(at + 2 * PAGE, PAGE));
    SHOW(munmap(at + 4 * PAGE, 2 * PAGE));
    show_pages("holes", at, 8);
    SHOW(munmap(at + 4 * PAGE, PAGE));
    SHOW_IF(mmap(at + 2 * PAGE, PAGE, RW, ANON, -1, 0) == at + 2 * PAGE);
    SHOW_IF(is_zero(at + 2 * PAGE, PAGE));
    SHOW_IF(mmap(at, PAGE, RW, ANON, -1, 0) != at);
    SHOW_IF(mmap(at + 4 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) == at + 4 * PAGE);
    SHOW_IF(mmap(at, PAGE, RW, ANON | MAP_FIXED, -1, 0) == at);
    say("replaced %d, kept %d", at[0], at[PAGE]);
    TRY(mmap(at, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    MUST(munmap(at + 5 * PAGE, PAGE));
    SHOW_IF(mmap(at + 5 * PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == at + 5 * PAGE);
    TRY(mmap(at + 4 * PAGE, 9 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    SHOW(munmap(at, 8 * PAGE));
    show_pages("all gone", at, 8);
    SHOW(munmap(at, 8 * PAGE));
    char *low = mmap(NULL, PAGE, RW, ANON | MAP_32BIT, -1, 0);
    SHOW_IF(low != MAP_FAILED && (uintptr_t)low < 1ul << 32);
    char *unaligned = mmap((void *)0x123456789, PAGE, RW, ANON, -1, 0);
    SHOW_IF(unaligned == (char *)0x123456000 || unaligned == (char *)0x123457000);
    SHOW(munmap(unaligned, PAGE));
}

static void errors(void)
{
    char *at = anon(1);
    CASE("errors");
    TRY(mmap(NULL, 0, RW, ANON, -1, 0));
    TRY(mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0));
    TRY(mmap(NULL, PAGE, RW, MAP_PRIVATE, -1, 0));
    TRY(mmap(NULL, PAGE, RW, MAP_PRIVATE, 99, 0));
    TRY(mmap(NULL, PAGE, RW, ANON, -1, 1));
    TRY(mmap(at + 1, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    TRY(mmap(NULL, 1ul << 47, RW, ANON, -1, 0));
    TRY(mmap(NULL, -1ul, RW, ANON, -1, 0));
    TRY(mmap((void *)(1ul << 47), PAGE, RW, ANON | MAP_FIXED, -1, 0));
    TRY(mmap((void *)-PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    TRY(mmap((void *)(1ul << 62), PAGE, RW, ANON, -1, 0));
    int ends[2];
    MUST(pipe(ends));
    TRY(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, ends[0], 0));
    SHOW(munmap(at, 0));
    SHOW(munmap(at + 1, PAGE));
    SHOW(munmap((void *)-PAGE, PAGE));
    SHOW(munmap(at, -1ul));
    SHOW(msync(at, PAGE, MS_SYNC));
    SHOW(msync(at + 1, PAGE, MS_SYNC));
    SHOW(msync(at, PAGE, MS_SYNC | MS_ASYNC));
    SHOW(msync(at, PAGE, 0x40));
    MUST(munmap(at, PAGE));
    SHOW(msync(at, PAGE, MS_SYNC));
}

static void advice(void)
{
    char *at = anon(4);
    CASE("madvise");
    memset(at, 9, 4 * PAGE);
    SHOW(madvise(at + PAGE, 2 * PAGE, MADV_DONTNEED));
    say("%d %d %d %d", at[0], at[PAGE], at[3 * PAGE - 1], at[3 * PAGE]);
    SHOW(madvise(at, 4 * PAGE, MADV_NORMAL));
    SHOW(madvise(at, 4 * PAGE, MADV_WILLNEED));
    SHOW(madvise(at, 4 * PAGE, MADV_SEQUENTIAL));
    SHOW(madvise(at, 4 * PAGE, MADV_FREE));
    at[0] = 5;
    say("%d", at[0]);
    SHOW(madvise(at + 1, PAGE, MADV_DONTNEED));
    SHOW(madvise(at, 0, MADV_DONTNEED));
    SHOW(madvise(at, PAGE, 999));
    SHOW(madvise(at, -1ul, MADV_DONTNEED));
    MUST(munmap(at + 2 * PAGE, PAGE));
    memset(at, 3, PAGE);
    SHOW(madvise(at, 4 * PAGE, MADV_DONTNEED));
    say("%d %d", at[0], at[3 * PAGE]);
    CASE("not inherited by fork");
    at = anon(2);
    at[0] = at[PAGE] = 1;
    SHOW(madvise(at, PAGE, MADV_WIPEONFORK));
    SHOW(madvise(at + PAGE, PAGE, MADV_DONTFORK));
    reap("child", CHILD(say("wiped %d", at[0]); show_pages("pages", at, 2)));
    say("here %d %d", at[0], at[PAGE]);
}

static void over_fork(void)
{
    char *private = anon(1);
    char *shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CASE("fork");
    strcpy(private, "before");
    strcpy(shared, "before");
    struct gate gate = gate_make();
    pid_t pid = CHILD({
        strcpy(private, "child");
        strcpy(shared, "child");
        gate_wait(gate);
        say("child sees %s, %s", private, shared);
        munmap(shared, PAGE);
    });
    while (strcmp(shared, "child") != 0)
        sched_yield();
    say("parent sees %s, %s", private, shared);
    strcpy(private, "parent");
    strcpy(shared, "parent");
    gate_open(gate);
    reap("child", pid);
    say("parent sees %s, %s", private, shared);
    CASE("shared over two forks");
    uint32_t *count = (void *)shared;
    *count = 0;
    for (int i = 0; i < 3; i++)
        CHILD(for (int j = 0; j < 2; j++) CHILD(for (int k = 0; k < 100; k++) __atomic_fetch_add(count, 1, __ATOMIC_SEQ_CST));
              while (wait(NULL) > 0););
    while (wait(NULL) > 0)
        ;
    say("count %u", *count);
}

static void large(void)
{
    CASE("large and sparse");
    size_t size = 64ul << 30;
    char *at = mmap(NULL, size, RW, ANON | MAP_NORESERVE, -1, 0);
    SHOW_IF(at != MAP_FAILED);
    at[0] = 1;
    at[size / 2] = 2;
    at[size - 1] = 3;
    say("%d %d %d", at[0], at[size / 2], at[size - 1]);
    SHOW(munmap(at, size));
    at = mmap(NULL, 1ul << 40, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);
    SHOW_IF(at != MAP_FAILED);
    SHOW(mprotect(at + (1ul << 39), PAGE, RW));
    at[1ul << 39] = 1;
    SHOW(munmap(at, 1ul << 40));
    CASE("many mappings");
    char *all[200];
    int good = 0;
    for (int i = 0; i < 200; i++) {
        all[i] = mmap(NULL, 3 * PAGE, i % 2 ? RW : PROT_READ, ANON, -1, 0);
        if (i % 2)
            all[i][PAGE] = i;
    }
    for (int i = 1; i < 200; i += 2)
        good += (unsigned char)all[i][PAGE] == i;
    for (int i = 0; i < 200; i++)
        MUST(munmap(all[i], 3 * PAGE));
    say("good %d", good);
    CASE("populate, stack, locked");
    TRY(mmap(NULL, 16 * PAGE, RW, ANON | MAP_POPULATE, -1, 0));
    TRY(mmap(NULL, 16 * PAGE, RW, ANON | MAP_STACK, -1, 0));
    at = anon(4);
    SHOW(mlock(at, PAGE));
    SHOW(munlock(at, PAGE));
    unsigned char core[4];
    SHOW(mincore(at, 4 * PAGE, core));
    SHOW(mincore(at + 1, PAGE, core));
    SHOW(mincore(at, PAGE, BAD));
    MUST(munmap(at, 4 * PAGE));
    SHOW(mincore(at, PAGE, core));
}

int main(void)
{
    placement();
    errors();
    advice();
    over_fork();
    large();
    return 0;
}
