/* What is in memory: mincore(2), mlock(2) and its kin, and the numbers that /proc gives. */
#include "mm_common.h"

/* A field of a file of "Name: value kB" lines; behind the line that begins with `from`, if there is one. */
static long field(const char *path, const char *from, const char *name)
{
    char line[512];
    long value = -1;
    FILE *file = fopen(path, "r");
    NEED(file != NULL);
    while (fgets(line, sizeof line, file)) {
        if (from && strncmp(line, from, strlen(from)) == 0)
            from = NULL;
        if (!from && strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
            value = atol(line + strlen(name) + 1);
            break;
        }
    }
    fclose(file);
    return value;
}

static long status(const char *name)
{
    return field("/proc/self/status", NULL, name);
}

static long of_mapping(const void *at, const char *name)
{
    char start[32];
    snprintf(start, sizeof start, "%08lx-", (unsigned long)at);
    return field("/proc/self/smaps", start, name);
}

static void core(void)
{
    CASE("mincore");
    char *at = anon(8);
    show_core("untouched", at, 8);
    at[0] = at[3 * PAGE] = 1;
    show_core("two written", at, 8);
    volatile char byte = at[5 * PAGE];
    (void)byte;
    show_core("one read", at, 8);
    MUST(madvise(at, PAGE, MADV_DONTNEED));
    show_core("one given back", at, 8);
    char *shared = mmap(NULL, 4 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    show_core("shared", shared, 4);
    reap("child", CHILD(shared[2 * PAGE] = 1));
    show_core("written by a child", shared, 4);
    int fd = MUST(memfd_create("core", 0));
    MUST(ftruncate(fd, 4 * PAGE));
    MUST(pwrite(fd, "x", 1, PAGE));
    char *private = mmap(NULL, 4 * PAGE, RW, MAP_PRIVATE, fd, 0);
    private[3 * PAGE] = 1;
    show_core("of a file", private, 4);
    show_core("no access", mmap(NULL, 2 * PAGE, PROT_NONE, ANON, -1, 0), 2);
}

static void core_errors(void)
{
    CASE("mincore errors");
    unsigned char vec[8];
    char *at = anon(4);
    MUST(munmap(at + 2 * PAGE, PAGE));
    SHOW(mincore(at + 1, PAGE, vec));
    SHOW(mincore(at, 4 * PAGE, vec));
    SHOW(mincore(at, 0, vec));
    SHOW(mincore(at, PAGE, BAD));
    SHOW(mincore(at, PAGE + 1, vec));
    SHOW(mincore(at, -1ul, vec));
    SHOW(mincore((void *)-PAGE, PAGE, vec));
}

static void locking(void)
{
    CASE("mlock faults pages in");
    char *at = anon(8);
    SHOW(mlock(at + PAGE, 2 * PAGE - 1));
    show_core("locked", at, 8);
    say("VmLck %ld", status("VmLck"));
    SHOW(syscall(SYS_mlock2, at + 5 * PAGE, 2 * PAGE, 1));
    show_core("locked on fault", at, 8);
    say("VmLck %ld", status("VmLck"));
    SHOW(mlock(at + 5 * PAGE, PAGE));
    show_core("locked after all", at, 8);
    reap("child", CHILD(say("in a child: VmLck %ld", status("VmLck"))));
    SHOW(munlock(at, 8 * PAGE));
    SHOW(munlock((void *)-PAGE, 1));
    SHOW(munlock((void *)-PAGE, 1000));
    SHOW(mlock((void *)-PAGE, 1));
    say("VmLck %ld", status("VmLck"));
    show_core("MAP_LOCKED", anon_with(4, RW, MAP_LOCKED), 4);
    show_core("MAP_POPULATE", anon_with(4, RW, MAP_POPULATE), 4);
    show_core("MAP_POPULATE|MAP_NONBLOCK", anon_with(4, RW, MAP_POPULATE | MAP_NONBLOCK), 4);
    SHOW(munlockall());
    say("VmLck %ld", status("VmLck"));
}

static void lock_errors(void)
{
    CASE("mlock errors");
    char *at = anon(4);
    MUST(munmap(at + 2 * PAGE, PAGE));
    SHOW(mlock(at, 4 * PAGE));
    say("VmLck %ld", status("VmLck"));
    SHOW(munlock(at, 4 * PAGE));
    say("VmLck %ld", status("VmLck"));
    SHOW(mlock(mmap(NULL, PAGE, PROT_NONE, ANON, -1, 0), PAGE));
    SHOW(syscall(SYS_mlock2, at, PAGE, 2));
    SHOW(mlock(at, 0));
    SHOW(mlockall(0));
    SHOW(mlockall(8));
    SHOW(mlockall(MCL_ONFAULT));
    SHOW(munlockall());
}

static void lock_future(void)
{
    CASE("mlockall");
    SHOW(mlockall(MCL_FUTURE));
    char *at = anon(4);
    show_core("to come", at, 4);
    say("Locked: %ld", of_mapping(at, "Locked"));
    char *start = sbrk(0);
    start = (char *)(((uintptr_t)start + PAGE - 1) & -PAGE);
    MUST(brk(start + 4 * PAGE));
    show_core("heap", start, 4);
    char *moved = mremap(at, 4 * PAGE, 6 * PAGE, MREMAP_MAYMOVE);
    show_core("grown", moved, 6);
    SHOW(mlockall(MCL_FUTURE | MCL_ONFAULT));
    show_core("on fault", anon(4), 4);
    SHOW(munlockall());
    show_core("no more", anon(4), 4);
    at = anon(4);
    SHOW(mlockall(MCL_CURRENT));
    show_core("all there is", at, 4);
    SHOW_IF(status("VmLck") > 100);
    SHOW(munlockall());
}

static void limited(void)
{
    CASE("RLIMIT_MEMLOCK");
    struct rlimit limit = {8 * PAGE, 8 * PAGE};
    MUST(setrlimit(RLIMIT_MEMLOCK, &limit));
    if (geteuid() == 0)
        MUST(setresuid(65534, 65534, 65534));
    char *at = anon(16);
    SHOW(mlock(at, 8 * PAGE));
    SHOW(mlock(at, 8 * PAGE));
    SHOW(mlock(at + 8 * PAGE, 1));
    SHOW(munlock(at + 7 * PAGE, 1));
    SHOW(mlock(at + 15 * PAGE, 1));
    SHOW_OK(mmap(NULL, PAGE, RW, ANON | MAP_LOCKED, -1, 0));
    SHOW(mlockall(MCL_CURRENT));
    SHOW(mlockall(MCL_FUTURE));
    SHOW_OK(mmap(NULL, PAGE, RW, ANON, -1, 0));
    SHOW(munlockall());
    limit.rlim_cur = 0;
    MUST(setrlimit(RLIMIT_MEMLOCK, &limit));
    SHOW(mlock(at, PAGE));
    SHOW(mlockall(MCL_CURRENT));
    SHOW(mlockall(MCL_FUTURE));
    SHOW_OK(mmap(NULL, PAGE, RW, ANON | MAP_LOCKED, -1, 0));
}

static void sizes(void)
{
    CASE("sizes in /proc");
    long before = status("RssAnon"), size = status("VmSize"), data = status("VmData");
    char *at = anon(1024);
    say("VmSize +%ld VmData +%ld", status("VmSize") - size, status("VmData") - data);
    SHOW_IF(status("RssAnon") - before < 256);
    memset(at, 1, 1024 * PAGE);
    SHOW_IF(status("RssAnon") - before >= 4096);
    SHOW_IF(status("RssAnon") - before < 4096 + 512);
    SHOW_IF(status("VmRSS") == status("RssAnon") + status("RssFile") + status("RssShmem"));
    say("Size %ld Rss %ld Pss %ld Private_Dirty %ld Anonymous %ld", of_mapping(at, "Size"), of_mapping(at, "Rss"),
        of_mapping(at, "Pss"), of_mapping(at, "Private_Dirty"), of_mapping(at, "Anonymous"));
    long peak = status("VmPeak");
    MUST(munmap(at, 1024 * PAGE));
    SHOW_IF(status("RssAnon") - before < 512);
    SHOW_IF(status("VmPeak") == peak);
    SHOW_IF(status("VmSize") <= peak - 4096);
    char *shared = mmap(NULL, 64 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long shmem = status("RssShmem");
    memset(shared, 1, 64 * PAGE);
    say("RssShmem +%ld", status("RssShmem") - shmem);
    say("Rss %ld Locked %ld", of_mapping(shared, "Rss"), of_mapping(shared, "Locked"));
    MUST(mlock(shared, 64 * PAGE));
    SHOW_IF(of_mapping(shared, "Locked") > 0);
    SHOW_IF(field("/proc/self/smaps_rollup", NULL, "Rss") >= 256);
    SHOW_IF(field("/proc/self/smaps_rollup", NULL, "Pss_Shmem") >= 256);
}

int main(void)
{
    core();
    core_errors();
    locking();
    lock_errors();
    lock_future();
    sizes();
    limited();
    return 0;
}
