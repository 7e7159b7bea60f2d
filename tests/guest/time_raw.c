/* Telling the time by system call, beside the vDSO and without it. */
#include "check.h"

#include <sys/auxv.h>

static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE,
                                   CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI};

static int64_t nanoseconds(int r, const struct timespec *ts)
{
    return r < 0 || (uint64_t)ts->tv_nsec >= 1000000000 ? -1 : ts->tv_sec * 1000000000ll + ts->tv_nsec;
}

static int64_t by_call(clockid_t clock)
{
    struct timespec ts;
    return nanoseconds((int)syscall(SYS_clock_gettime, clock, &ts), &ts);
}

static int64_t by_vdso(clockid_t clock)
{
    struct timespec ts;
    return nanoseconds(clock_gettime(clock, &ts), &ts);
}

/* The same clocks, whichever way they are asked. */
static void compare(void)
{
    CASE("the vDSO's clocks");
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++) {
        bool order = true;
        for (int j = 0; j < 2000; j++) {
            int64_t first = by_vdso(clocks[i]), second = by_call(clocks[i]), third = by_vdso(clocks[i]);
            order &= 0 < first && first <= second && second <= third;
        }
        say("clock %d: in order %d", clocks[i], order);
    }
    bool order = true;
    for (int j = 0; j < 2000; j++) {
        struct timeval tv, later;
        time_t second, coarse;
        MUST(syscall(SYS_gettimeofday, &tv, NULL));
        MUST(gettimeofday(&later, NULL));
        order &= timercmp(&tv, &later, <=) && tv.tv_usec < 1000000;
        coarse = by_call(CLOCK_REALTIME_COARSE) / 1000000000;
        second = syscall(SYS_time, NULL);
        order &= coarse <= second && second <= by_call(CLOCK_REALTIME_COARSE) / 1000000000;
    }
    SHOW_IF(order);
}

/* What each argument may be. */
static void arguments(void)
{
    struct timespec ts;
    struct {
        struct timeval tv;
        int zone[2], behind;
    } day = {.zone = {7, 7}, .behind = 7};
    time_t seconds = 0;
    static const long ids[] = {2, 3, 8, 9, 10, 12, 15, 16, 31, 32, 33, 99, -1, -2, -6, -3, INT_MIN, INT_MAX, 1l << 32, (1l << 32) + 1};
    CASE("arguments");
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        ts.tv_nsec = -1;
        SHOW(syscall(SYS_clock_gettime, ids[i], &ts));
        say("%ld: filled in %d", ids[i], ts.tv_nsec >= 0);
    }
    SHOW(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, NULL));
    SHOW(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, BAD));
    SHOW(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, -8l));
    SHOW(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, 0x7fff00000000));
    SHOW(syscall(SYS_clock_gettime, 99, NULL));
    SHOW(syscall(SYS_gettimeofday, NULL, NULL));
    SHOW(syscall(SYS_gettimeofday, &day.tv, day.zone));
    say("zone %d %d, behind it %d", day.zone[0], day.zone[1], day.behind);
    SHOW(syscall(SYS_gettimeofday, BAD, NULL));
    day.tv.tv_sec = 0;
    SHOW(syscall(SYS_gettimeofday, &day.tv, BAD));
    SHOW_IF(day.tv.tv_sec > 0);
    SHOW_IF(syscall(SYS_time, &seconds) == seconds && seconds > 0);
    SHOW(syscall(SYS_time, BAD));
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(mprotect(pages + 4096, 4096, PROT_READ));
    SHOW(syscall(SYS_clock_gettime, CLOCK_REALTIME, pages + 4096 - 16));
    SHOW(syscall(SYS_clock_gettime, CLOCK_REALTIME, pages + 4096 - 8));
    SHOW_IF(syscall(SYS_time, pages + 4096 - 8) > 0);
    SHOW(syscall(SYS_time, pages + 4096));
}

struct range {
    unsigned long first, last;
};

static struct range range_of(const char *name)
{
    struct range found = {0, 0}, at;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, name) && sscanf(line, "%lx-%lx", &at.first, &at.last) == 2) {
            found.first = found.first ? found.first : at.first;
            found.last = at.last;
        }
    if (maps)
        fclose(maps);
    return found;
}

static void ask(const char *what)
{
    int64_t first = by_call(CLOCK_MONOTONIC), second = by_call(CLOCK_MONOTONIC);
    say("%s: in order %d", what, first > 0 && first <= second);
    for (int i = 0; i < 100; i++) /* enough for the call to have been patched */
        if (by_call(CLOCK_MONOTONIC) < second)
            say("%s: out of order", what);
}

/* The program's vDSO is the program's. */
static void without(void)
{
    CASE("without");
    reap("data", CHILD({
        struct range data = range_of("[vvar");
        ask("before");
        if (data.first)
            MUST(munmap((void *)data.first, data.last - data.first));
        ask("without data");
    }));
    reap("code", CHILD({
        struct range code = range_of("[vdso]");
        ask("before");
        MUST(munmap((void *)code.first, code.last - code.first));
        ask("without code");
        void *mine = mmap((void *)code.first, code.last - code.first, PROT_READ | PROT_WRITE | PROT_EXEC,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        memset(mine, 0xc3, code.last - code.first); /* ret */
        ask("with other code");
        MUST(mprotect(mine, code.last - code.first, PROT_NONE));
        ask("without access");
    }));
    reap("patched", CHILD({
        struct range code = range_of("[vdso]");
        MUST(mprotect((void *)code.first, code.last - code.first, PROT_READ | PROT_WRITE | PROT_EXEC));
        memset((void *)code.first, 0xcc, code.last - code.first);
        ask("overwritten");
    }));
}

int main(void)
{
    compare();
    arguments();
    without();
    return 0;
}
