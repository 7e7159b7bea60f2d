/* Attacks by the calls that the filter leaves to a stub: unordered ones, its descriptors, the ends of threads, memory. */
#include "trap.h"
#include <poll.h>

/* What the Sentry has to order first. */
static void unordered_one(long i)
{
    unsigned long record = record_here();
    switch (i) {
    case 0: host(SYS_mremap, (long)record, RECORD_SIZE, 2 * RECORD_SIZE, 1, 0, 0); break;
    case 1: host(SYS_mremap, (long)record, RECORD_SIZE, RECORD_SIZE, 3, 0x10000000, 0); break;
    case 2: host(SYS_mremap, (long)record, 0, RECORD_SIZE, 3, 0x10000000, 0); break;
    case 3: host(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0); break;
    case 4: host(SYS_clone, 0x8000 | SIGCHLD, 0, 0, 0, 0, 0); break;
    case 5: host(SYS_clone, 0x108000 | SIGCHLD, 0, (long)record + 0x74, 0, 0, 0); break;
    case 6: host(SYS_clone, 0x10000000 | SIGCHLD, 0, 0, 0, 0, 0); break;
    case 7: host(SYS_mmap, (long)record, RECORD_SIZE, 3, 0x11, 5, 0); break;
    case 8: host(SYS_mmap, RECORDS_BASE, RECORD_SIZE, 3, 0x11, 5, 0); break;
    case 9: host(SYS_mmap, 0x10000000, 4096, 3, 0x11, 0, 0); break;
    case 10: host(SYS_close, 0xfffffff0, 0, 0, 0, 0, 0); CHECK(result == -EPERM); break;
    default: host(SYS_mmap, 0x10000000, 4096, 3, 0x1, 5, 0);
    }
    CHECK(result < 0);
    some_calls();
}

static void unordered(void)
{
    for (long i = 0; i < 12; i++)
        alone(unordered_one, i);
}

static void *one_kind(void *kind)
{
    catch_all();
    for (;;)
        if (kind)
            host(SYS_mremap, (long)record_here(), RECORD_SIZE, 2 * RECORD_SIZE, 1, 0, 0);
        else
            host(SYS_close, 0xfffffff0, 0, 0, 0, 0, 0);
}

/* Refused calls in a flood, while an honest thread has to have answers. */
static void flood_one(long i)
{
    pthread_t threads[4];
    for (int k = 0; k < 4; k++)
        pthread_create(&threads[k], NULL, one_kind, (void *)(k % 2 + (i & 0)));
    for (int k = 0; k < 50; k++)
        some_calls();
}

static void flood(void)
{
    for (long i = 0; i < 2; i++)
        alone(flood_one, i);
}

/* Descriptors: the bell, and one that is lent. */

static void bell_one(long i)
{
    static unsigned long counts[] = {1, 0xfffffffffffffffeul, 0xfffffffffffffffful, 0};
    unsigned long end = 0;
    struct timespec now;
    if (i < 4) {
        do {
            for (int k = 0; k < 100; k++)
                host(SYS_write, 0, (long)&counts[i], 8, 0, 0, 0);
            clock_gettime(CLOCK_MONOTONIC, &now);
            if (!end)
                end = (unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000 + 200;
        } while ((unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000 < end);
        some_calls();
        return;
    }
    host(SYS_write, 0, 0, 8, 0, 0, 0);
    host(SYS_write, 0, (long)counts, 1 << 30, 0, 0, 0);
    for (long fd = 1; fd < 64; fd++)
        CHECK(host(SYS_close, fd, 0, 0, 0, 0, 0) == -EBADF);
    host(SYS_close, 0, 0, 0, 0, 0, 0); /* from now on nobody hears it, unless they are awake */
    some_calls();
}

static void bell(void)
{
    for (long i = 0; i < 6; i++)
        alone(bell_one, i);
}

static void *close_all(void *unused)
{
    (void)unused;
    catch_all();
    for (;;)
        host(SYS_close, 5, 0, 0, 0, 0, 0);
}

/* The descriptor that is lent for an mmap is closed before the call is made. */
static void lent_one(long i)
{
    pthread_t thread;
    int fd = open("/etc/passwd", O_RDONLY);
    (void)i;
    pthread_create(&thread, NULL, close_all, NULL);
    for (int k = 0; k < 300; k++) {
        mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
        if (k % 30 == 0 && fork() == 0)
            _exit(0);
    }
}

static long lent_maps;

/* While a file that may only be read is lent, nobody gets it writable. */
static void *map_lent(void *kind)
{
    catch_all();
    for (;;) {
        char *at = (char *)0x10000000;
        if (host(SYS_mmap, (long)at, 4096, 3, 0x11, 5, 0) == (long)at) {
            CHECK(kind); /* a record of a child's */
            memset(at, 0xff, 4096);
            lent_maps++;
        }
        if (!kind && host(SYS_mmap, (long)at, 4096, 1, 0x11, 5, 0) == (long)at) {
            CHECK(host(SYS_mprotect, (long)at, 4096, 3, 0, 0, 0) == -EACCES);
            lent_maps++;
        }
    }
    return NULL;
}

static void lent_map_one(long kind)
{
    pthread_t thread;
    int fd = open("/etc/passwd", O_RDONLY);
    pthread_create(&thread, NULL, map_lent, (void *)kind);
    for (int k = 0; k < 100000 && lent_maps < 20; k++) {
        if (!kind)
            mmap((void *)0x20000000, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
        else if (fork() == 0)
            _exit(0);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}

static void lent(void)
{
    alone(lent_one, 0);
    alone(lent_map_one, 0);
    alone(lent_map_one, 1);
}

/* Threads that end themselves. */
static void *end_alone(void *unused)
{
    (void)unused;
    host(SYS_exit, 0, 0, 0, 0, 0, 0);
    return NULL;
}

static void *spin_forever(void *unused)
{
    (void)unused;
    for (;;)
        some_calls();
    return NULL;
}

static void ends_one(long i)
{
    pthread_t threads[8];
    for (int k = 0; k < 8; k++)
        pthread_create(&threads[k], NULL, k % 2 ? end_alone : spin_forever, NULL);
    some_calls();
    usleep(20000);
    if (i == 0)
        host(SYS_exit, 0, 0, 0, 0, 0, 0); /* the leader alone */
    if (i == 1)
        host(SYS_exit_group, 7, 0, 0, 0, 0, 0);
    for (int k = 0; k < 8; k += 1)
        pthread_kill(threads[k], SIGUSR2 + 30);
    if (i == 2)
        kill(getpid(), SIGKILL);
    if (i == 3)
        execl("/proc/self/exe", "trap", "again", (char *)NULL);
    for (int k = 0; k < 40; k++) {
        pthread_t more;
        pthread_create(&more, NULL, end_alone, NULL);
    }
    some_calls();
}

static void ends(void)
{
    for (long i = 0; i < 5; i++)
        alone(ends_one, i);
}

static void *read_tty(void *fd)
{
    char text[64];
    return (void *)read((int)(long)fd, text, sizeof text);
}

/* A process ends behind the Sentry's back while a thread of it is asleep in a call: what that waited for is not
 * taken by the dead one, and its descriptors are closed. */
static void ends_asleep(void)
{
    char text[64], *name;
    int master = posix_openpt(O_RDWR | O_NOCTTY), pair[2];
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 && (name = ptsname(master)));
    int slave = open(name, O_RDWR | O_NOCTTY);
    CHECK(slave >= 0 && pipe(pair) == 0);
    for (int times = 0; times < 5; times++) {
        pid_t pid = fork();
        if (pid == 0) {
            pthread_t thread;
            close(pair[0]);
            pthread_create(&thread, NULL, read_tty, (void *)(long)slave);
            usleep(50000);
            host(SYS_exit_group, 7, 0, 0, 0, 0, 0);
            _exit(0);
        }
        CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
        CHECK(write(master, "line\n", 5) == 5);
        struct pollfd ready = {slave, POLLIN, 0};
        CHECK(poll(&ready, 1, 3000) == 1 && read(slave, text, sizeof text) == 5);
    }
    close(pair[1]);
    CHECK(read(pair[0], text, 1) == 0);
}

/* Memory that the Sentry does not know of: killed for it, or refused (RLIMIT_DATA). */
static void unknown_memory(void)
{
    const long size = 16l << 20;
    char *at = (char *)0x100000000000;
    catch_all();
    for (int i = 0; i < 64; i++, at += size) {
        long got = host(SYS_mmap, (long)at, size, 3, 0x32, -1, 0);
        if (got == -ENOMEM)
            return;
        CHECK(got == (long)at);
        for (long k = 0; k < size; k += 4096)
            at[k] = 1;
    }
    _exit(99);
}

static size_t maps(char *text, size_t size)
{
    int fd = open("/proc/self/maps", O_RDONLY);
    size_t have = 0;
    ssize_t n;
    CHECK(fd >= 0);
    while ((n = read(fd, text + have, size - 1 - have)) > 0)
        have += (size_t)n;
    close(fd);
    text[have] = 0;
    return have;
}

/* Behind the Sentry's back, all that the host lets the process have (RLIMIT_DATA) is taken.  So the host refuses what the
 * Sentry has allowed, and told the thread to go on with; that has to be as if it had never been. */
static void refused_memory(void)
{
    static char before[1 << 16], after[1 << 16];
    const long size = 1l << 20, base = 0x100000000000;
    long count = 0, page = 4096;
    char *reading, *growing, *end = sbrk(0), *fresh;
    catch_all();
    reading = mmap(NULL, 16 * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    growing = mmap(NULL, 64 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(reading != MAP_FAILED && growing != MAP_FAILED && munmap(growing + page, 63 * page) == 0);
    while (count < 1024 && host(SYS_mmap, base + count * size, size, 3, 0x32, -1, 0) == base + count * size)
        count++;
    CHECK(count < 1024);
    for (count = 2048 * size / page; host(SYS_mmap, base + count * page, page, 3, 0x32, -1, 0) > 0; count++)
        CHECK(count < 2049 * size / page); /* the last pages */
    maps(before, sizeof before);
    for (int i = 0; i < 50; i++) {
        CHECK(mmap(NULL, (size_t)size, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
        CHECK(raw6(SYS_brk, (long)end + size, 0, 0, 0, 0, 0) == (long)end);
        CHECK(mprotect(reading, (size_t)(16 * page), PROT_READ | PROT_WRITE) == -1 && errno == ENOMEM);
        CHECK(mremap(growing, (size_t)page, (size_t)(16 * page), 0) == MAP_FAILED && errno == ENOMEM);
    }
    maps(after, sizeof after);
    CHECK(strcmp(before, after) == 0);
    CHECK(reading[0] == 0 && growing[0] == 0);
    CHECK(host(SYS_munmap, base, 4096 * size, 0, 0, 0, 0) == 0);
    fresh = mmap(NULL, (size_t)size, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(fresh != MAP_FAILED && mprotect(reading, (size_t)(16 * page), PROT_READ | PROT_WRITE) == 0);
    CHECK(mremap(growing, (size_t)page, (size_t)(16 * page), 0) == growing && brk(end + size) == 0);
    for (long k = 0; k < 16 * page; k += page)
        fresh[k] = reading[k] = growing[k] = end[k] = 1;
}

static const struct attack attacks[] = {
    {"unordered", unordered}, {"flood", flood}, {"bell", bell}, {"lent", lent}, {"ends", ends},
    {"ends_asleep", ends_asleep},
    {"unknown_memory", unknown_memory}, {"refused_memory", refused_memory}, {NULL, NULL}};

int main(int argc, char **argv) { return attack_stub(attacks, argc, argv); }
