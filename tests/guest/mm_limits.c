/* Where mappings go and when they may not: MAP_32BIT, MAP_GROWSDOWN, hints, RLIMIT_AS, RLIMIT_DATA, overcommit;
 * droppable memory and huge pages; advice for and of other processes. */
#include "mm_common.h"
#include <sys/uio.h>

#define DROPPABLE 0x08
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif

static void places(void)
{
    CASE("places");
    char *low = mmap(NULL, 4 * PAGE, RW, ANON | MAP_32BIT, -1, 0);
    SHOW_IF((uintptr_t)low < 1ul << 31);
    SHOW_IF(mmap(low, PAGE, RW, ANON | MAP_32BIT, -1, 0) != low);
    TRY(mmap(NULL, 3ul << 30, RW, ANON | MAP_32BIT | MAP_NORESERVE, -1, 0));
    char *at = mmap(NULL, 16 * PAGE, RW, ANON, -1, 0);
    MUST(munmap(at, 16 * PAGE));
    SHOW_IF(mmap(at + 4 * PAGE, PAGE, RW, ANON, -1, 0) == at + 4 * PAGE);
    SHOW_IF(mmap(at + 8 * PAGE + 123, PAGE, RW, ANON, -1, 0) == at + 8 * PAGE);
    SHOW_IF(mmap(at + 4 * PAGE, PAGE, RW, ANON, -1, 0) != at + 4 * PAGE);
    SHOW_IF(mmap(at + 6 * PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == at + 6 * PAGE);
    TRY(mmap(at + 4 * PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    TRY(mmap(at, 8 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    TRY(mmap(at + 1, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    TRY(mmap((void *)(1ul << 47), PAGE, RW, ANON | MAP_FIXED, -1, 0));
    TRY(mmap((void *)-PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    SHOW_IF((uintptr_t)mmap((void *)(1ul << 47), PAGE, RW, ANON, -1, 0) < 1ul << 47);
    SHOW_IF((uintptr_t)mmap((void *)PAGE, PAGE, RW, ANON, -1, 0) >= 65536);
    TRY(mmap(NULL, 0, RW, ANON, -1, 0));
    TRY(mmap(NULL, -PAGE, RW, ANON, -1, 0));
    TRY(mmap(NULL, -1ul, RW, ANON, -1, 0));
    TRY(mmap(NULL, 1ul << 47, RW, ANON | MAP_NORESERVE, -1, 0));
    TRY(mmap(NULL, PAGE, RW | 0x80, ANON, -1, 0));
    SHOW(munmap(at + 1, PAGE));
    SHOW(munmap(at, 0));
    SHOW(munmap(at, -PAGE));
    SHOW(munmap((void *)(1ul << 47), PAGE));
}

static void kinds(void)
{
    CASE("kinds");
    TRY(mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0));
    TRY(mmap(NULL, PAGE, RW, MAP_ANONYMOUS | MAP_SHARED | MAP_PRIVATE, -1, 0));
    TRY(mmap(NULL, PAGE, RW, MAP_ANONYMOUS | 4, -1, 0));
    TRY(mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0));
    TRY(mmap(NULL, PAGE, RW, ANON | MAP_STACK | MAP_NORESERVE | MAP_DENYWRITE | MAP_EXECUTABLE, -1, 0));
    TRY(mmap(NULL, PAGE, RW, ANON, 77, 0));
    TRY(mmap(NULL, PAGE, RW, ANON, -1, 123));
    TRY(mmap(NULL, PAGE, RW, ANON, -1, PAGE));
    TRY(mmap(NULL, PAGE, RW, MAP_PRIVATE, 77, 0));
    TRY(mmap(NULL, 2ul << 20, RW, ANON | MAP_HUGETLB | 22 << 26, -1, 0));
    TRY(mmap(NULL, PAGE, RW, MAP_ANONYMOUS | DROPPABLE | MAP_LOCKED, -1, 0));
    TRY(mmap(NULL, PAGE, RW, MAP_ANONYMOUS | DROPPABLE | MAP_GROWSDOWN, -1, 0));
    char *at = mmap(NULL, PAGE, RW, MAP_ANONYMOUS | DROPPABLE, -1, 0);
    if (at == MAP_FAILED)
        return;
    at[0] = 5;
    reap("child", CHILD(say("droppable memory in a child: %d", at[0])));
}

static void growing(void)
{
    CASE("MAP_GROWSDOWN");
    char *room = mmap(NULL, 600 * PAGE, PROT_NONE, ANON, -1, 0);
    MUST(munmap(room, 600 * PAGE));
    char *at = mmap(room + 596 * PAGE, 4 * PAGE, RW, ANON | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    NEED(at != MAP_FAILED);
    at[-1] = 1;
    at[-20 * (long)PAGE] = 2;
    say("grown: %d %d", at[-1], at[-20 * (long)PAGE]);
    SHOW(mprotect(at + PAGE, PAGE, PROT_READ | PROT_GROWSDOWN));
    SHOW(mprotect(at, PAGE, RW | PROT_GROWSUP));
    SHOW(mprotect(at, PAGE, RW | PROT_GROWSUP | PROT_GROWSDOWN));
    reap("child", CHILD(*(volatile char *)(at - 10 * PAGE) = 1));
}

static void limits(void)
{
    CASE("RLIMIT_AS and RLIMIT_DATA");
    struct rlimit old, tight;
    MUST(getrlimit(RLIMIT_DATA, &old));
    tight = (struct rlimit){64 << 20, old.rlim_max};
    MUST(setrlimit(RLIMIT_DATA, &tight));
    TRY(mmap(NULL, 128 << 20, RW, ANON, -1, 0));
    TRY(mmap(NULL, 128 << 20, PROT_READ, ANON, -1, 0));
    TRY(mmap(NULL, 128 << 20, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    char *at = mmap(NULL, 128 << 20, PROT_NONE, ANON, -1, 0);
    SHOW(mprotect(at, 128 << 20, RW));
    SHOW(mprotect(at, 16 << 20, RW));
    SHOW_IF(mremap(at, 16 << 20, 100 << 20, MREMAP_MAYMOVE) == MAP_FAILED && errno == ENOMEM);
    void *end = sbrk(0);
    SHOW_IF(sbrk(128 << 20) == (void *)-1 && errno == ENOMEM && sbrk(0) == end);
    MUST(setrlimit(RLIMIT_DATA, &old));
    MUST(getrlimit(RLIMIT_AS, &old));
    tight = (struct rlimit){1ul << 30, old.rlim_max};
    MUST(setrlimit(RLIMIT_AS, &tight));
    TRY(mmap(NULL, 1ul << 30, PROT_NONE, ANON | MAP_NORESERVE, -1, 0));
    TRY(mmap(NULL, 16 << 20, PROT_NONE, ANON, -1, 0));
    SHOW_IF(mremap(at, 16 << 20, 1ul << 30, MREMAP_MAYMOVE) == MAP_FAILED && errno == ENOMEM);
    MUST(setrlimit(RLIMIT_AS, &old));
}

static void overcommit(void)
{
    CASE("overcommit");
    char mode = 0;
    int fd = MUST(open("/proc/sys/vm/overcommit_memory", O_RDONLY));
    MUST(read(fd, &mode, 1));
    MUST(close(fd));
    if (mode != '0') {
        say("not heuristic");
        return;
    }
    TRY(mmap(NULL, 1ul << 46, RW, ANON, -1, 0));
    TRY(mmap(NULL, 1ul << 40, RW, ANON | MAP_NORESERVE, -1, 0));
    TRY(mmap(NULL, 1ul << 40, PROT_READ, ANON, -1, 0));
    char *at = mmap(NULL, 1ul << 46, PROT_NONE, ANON, -1, 0);
    SHOW(mprotect(at, 1ul << 45, RW));
    SHOW(munmap(at, 1ul << 46));
}

static void advice_for_others(void)
{
    CASE("process_madvise");
    char *at = mmap(NULL, 4 * PAGE, RW, ANON, -1, 0);
    at[0] = at[PAGE] = at[3 * PAGE] = 1;
    int self = MUST(syscall(SYS_pidfd_open, getpid(), 0));
    struct iovec pieces[] = {{at, PAGE}, {at + PAGE, PAGE}, {BAD, PAGE}};
    SHOW(syscall(SYS_process_madvise, self, pieces, 2ul, MADV_WILLNEED, 0));
    SHOW(syscall(SYS_process_madvise, self, pieces, 2ul, MADV_COLD, 0));
    SHOW(syscall(SYS_process_madvise, self, pieces, 3ul, MADV_PAGEOUT, 0));
    SHOW(syscall(SYS_process_madvise, self, pieces + 2, 1ul, MADV_COLD, 0));
    SHOW(syscall(SYS_process_madvise, self, pieces, 1ul, MADV_COLD, 1));
    SHOW(syscall(SYS_process_madvise, self, pieces, 1ul, 77, 0));
    SHOW(syscall(SYS_process_madvise, self, pieces, 0ul, MADV_COLD, 0));
    SHOW(syscall(SYS_process_madvise, self, pieces, 2000ul, MADV_COLD, 0));
    SHOW(syscall(SYS_process_madvise, self, BAD, 1ul, MADV_COLD, 0));
    SHOW(syscall(SYS_process_madvise, 1, pieces, 1ul, MADV_COLD, 0));
    SHOW(syscall(SYS_process_madvise, 999, pieces, 1ul, MADV_COLD, 0));
    struct gate gate = gate_make();
    pid_t child = CHILD(gate_wait(gate));
    int other = MUST(syscall(SYS_pidfd_open, child, 0));
    SHOW(syscall(SYS_process_madvise, other, pieces, 1ul, MADV_COLD, 0));
    SHOW(syscall(SYS_process_madvise, other, pieces, 1ul, MADV_DONTNEED, 0));
    SHOW(syscall(SYS_process_mrelease, other, 1));
    SHOW(syscall(SYS_process_mrelease, other, 0));
    gate_open(gate);
    siginfo_t info;
    MUST(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    SHOW(syscall(SYS_process_madvise, other, pieces, 1ul, MADV_COLD, 0));
    SHOW(syscall(SYS_process_mrelease, other, 0));
    reap("child", child);
    SHOW(syscall(SYS_process_madvise, other, pieces, 1ul, MADV_COLD, 0));
}

static void cache(void)
{
    CASE("cachestat");
    struct { uint64_t offset, size; } range = {0, 8 * PAGE};
    struct { uint64_t cached, dirty, writeback, evicted, recently; } stat = {9, 9, 9, 9, 9};
    int fd = MUST(memfd_create("cache", 0));
    MUST(ftruncate(fd, 8 * PAGE));
    MUST(pwrite(fd, "x", 1, 2 * PAGE));
    MUST(pwrite(fd, "x", 1, 5 * PAGE));
    SHOW(syscall(SYS_cachestat, fd, &range, &stat, 0));
    say("%d cached %d dirty %d written", (int)stat.cached, (int)stat.dirty, (int)stat.writeback);
    range.offset = 3 * PAGE;
    range.size = 0;
    SHOW(syscall(SYS_cachestat, fd, &range, &stat, 0));
    say("%d cached", (int)stat.cached);
    SHOW(syscall(SYS_cachestat, fd, &range, &stat, 1));
    SHOW(syscall(SYS_cachestat, 999, &range, &stat, 0));
    SHOW(syscall(SYS_cachestat, fd, BAD, &stat, 0));
    SHOW(syscall(SYS_cachestat, fd, &range, BAD, 0));
}

int main(void)
{
    no_core();
    places();
    kinds();
    growing();
    limits();
    overcommit();
    advice_for_others();
    cache();
    return 0;
}
