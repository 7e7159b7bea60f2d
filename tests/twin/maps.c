/* Random calls on memory, for test_maps.py: maps.c SEED STEPS DIRECTORY HOST-FILE.
 *
 * Files are mapped, unmapped, protected, read and written over and over in one range of addresses.  Each line is a
 * call and its outcome; what stands behind a tab is what /proc/self/maps says, which differs between kernels in
 * what counts as one mapping.  With an even SEED there are calls whose outcome depends on that. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define PAGES 24
#define BASE 0x200000000000ul
#define SLOTS 6
#define LENGTH(array) (sizeof(array) / sizeof *(array))

static uint64_t state;
static char one[512], two[512];
static const char *host;
static int slots[SLOTS], with_remap;
static sigjmp_buf back;

static unsigned roll(unsigned sides)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 33) % sides;
}

static void fault(int signo)
{
    siglongjmp(back, signo);
}

static void say(const char *format, ...)
{
    int error = errno;
    va_list list;
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf(" %d", error);
    errno = 0;
}

/* The map of the range, in units of pages. */
static void show(void)
{
    char line[1024];
    FILE *maps = fopen("/proc/self/maps", "r");
    printf("\t");
    while (fgets(line, sizeof line, maps)) {
        unsigned long start, end, offset;
        char prot[8], *name = strrchr(line, '/');
        sscanf(line, "%lx-%lx %7s %lx", &start, &end, prot, &offset);
        if (end > BASE && start < BASE + PAGES * PAGE)
            printf("%lu-%lu %s %lx %.*s;", (start - BASE) / PAGE, (end - BASE) / PAGE, prot, offset,
                   name ? (int)strcspn(name, "\n") : 0, name);
    }
    fclose(maps);
    printf("\n");
}

static void reopen(int slot)
{
    static const int modes[] = {O_RDONLY, O_RDONLY, O_RDONLY, O_RDWR, O_RDWR, O_WRONLY};
    const char *paths[] = {host, host, one, one, two};
    unsigned which = roll(LENGTH(paths));
    int flags = which < 2 ? O_RDONLY : modes[roll(LENGTH(modes))] | (roll(3) ? O_CREAT : 0);
    if (slots[slot] >= 0)
        close(slots[slot]);
    slots[slot] = open(paths[which], flags, 0644);
    say("open %d = %d", slot, slots[slot]);
}

static int random_prot(void)
{
    static const int prots[] = {PROT_NONE, PROT_READ, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
                                PROT_READ | PROT_EXEC, PROT_WRITE, PROT_READ | PROT_WRITE | PROT_EXEC, 8, 0x10};
    return prots[roll(LENGTH(prots))];
}

static void map_one(void)
{
    static const int kinds[] = {MAP_PRIVATE, MAP_PRIVATE, MAP_PRIVATE | MAP_DENYWRITE, MAP_SHARED,
                                MAP_SHARED,  MAP_PRIVATE | MAP_NORESERVE, MAP_SHARED_VALIDATE, MAP_PRIVATE | MAP_POPULATE,
                                0, MAP_SHARED | MAP_PRIVATE | 4};
    int kind = kinds[roll(LENGTH(kinds))] | (roll(8) ? MAP_FIXED : MAP_FIXED_NOREPLACE), fd = slots[roll(SLOTS)];
    unsigned long start = BASE + roll(PAGES - 9) * PAGE + (roll(30) ? 0 : 1);
    size_t size = roll(20) ? roll(9 * PAGE) : 0;
    off_t offset = roll(20) ? roll(12) * PAGE : roll(2) ? 5 : -PAGE;
    char *at;
    if (!roll(6)) {
        kind |= MAP_ANONYMOUS;
        fd = -1;
        offset = 0;
    }
    at = mmap((void *)start, size, random_prot(), kind, fd, offset);
    say("map %d", at == MAP_FAILED ? -1 : (int)(((unsigned long)at - BASE) / PAGE));
}

/* What a dynamic linker does. */
static void map_library(void)
{
    unsigned long start = BASE + roll(PAGES - 9) * PAGE;
    int fd = slots[roll(SLOTS)], r = 0;
    unsigned i, step = 1 + roll(3);
    if (mmap((void *)start, 9 * PAGE, PROT_READ, MAP_PRIVATE | MAP_DENYWRITE | MAP_FIXED, fd, 0) == MAP_FAILED) {
        say("library");
        return;
    }
    for (i = step; i < 9; i += step + roll(2))
        r += mmap((void *)(start + i * PAGE), (1 + roll(9 - i)) * PAGE, random_prot(),
                  MAP_PRIVATE | MAP_DENYWRITE | MAP_FIXED, fd, (long)((i + !roll(10)) * PAGE)) == MAP_FAILED;
    say("library %d", r);
}

static void touch(int write)
{
    volatile unsigned char *at = (unsigned char *)BASE + roll(PAGES) * PAGE + roll(2) * roll(PAGE);
    int signo = sigsetjmp(back, 1);
    if (!signo && write)
        say("write %d", (*at = *at + 1));
    else if (!signo)
        say("read %d", *at);
    else
        say("signal %d", signo);
}

static void in_child(void)
{
    int status;
    fflush(stdout);
    if (fork() == 0) {
        touch(roll(2));
        munmap((void *)(BASE + roll(PAGES) * PAGE), PAGE);
        touch(0);
        printf("\t");
        fflush(stdout);
        _exit(0);
    }
    wait(&status);
    say("child %d", status);
}

static void change_file(void)
{
    switch (roll(3)) {
    case 0:
        say("truncate %d", truncate(roll(2) ? one : two, roll(12) * 1000));
        break;
    case 1:
        say("unlink %d", unlink(roll(2) ? one : two));
        break;
    case 2:
        say("rename %d", rename(one, two));
    }
}

static void remap(void)
{
    char *at = (char *)BASE + roll(PAGES) * PAGE, *to;
    size_t old = roll(7) * PAGE, new = roll(12) * PAGE;
    to = mremap(at, old, new, roll(4) ? MREMAP_MAYMOVE : 0);
    if (to == at || to == MAP_FAILED) {
        say("remap %d", to == at ? 0 : -1);
    } else if (sigsetjmp(back, 1)) {
        say("moved, signal");
        munmap(to, new);
    } else {
        /* Again, now that there is room behind it. */
        char *again = mremap(to, new, new + PAGE, 0);
        say("moved %d %d", to[0] + to[old - 1], again == to);
        munmap(to, again == to ? new + PAGE : new);
    }
    errno = 0;
}

static void step(void)
{
    void *at = (void *)(BASE + roll(PAGES) * PAGE + (roll(40) ? 0 : 7));
    size_t size = roll(30) ? roll(10) * PAGE : roll(PAGE * PAGES);
    unsigned what = roll(37);
    if (what < 10)
        map_one();
    else if (what < 12)
        map_library();
    else if (what < 17)
        say("unmap %d", munmap(at, size));
    else if (what < 20)
        say("protect %d", mprotect(at, size, random_prot()));
    else if (what < 26)
        touch(what & 1);
    else if (what < 29)
        reopen((int)roll(SLOTS));
    else if (what == 29)
        say("advise %d", madvise(at, size, roll(2) ? MADV_DONTNEED : MADV_WILLNEED));
    else if (what == 30)
        in_child();
    else if (what == 31)
        change_file();
    else if (with_remap && what < 35)
        remap();
    else
        touch(what & 1);
}

/* A file is opened, mapped, closed, read and unmapped many times. */
static int again(int times)
{
    unsigned char *at = NULL;
    int sum = 0;
    for (; times; times--) {
        int fd = open(host, O_RDONLY);
        at = mmap(NULL, 3 * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_DENYWRITE, fd, PAGE);
        close(fd);
        if (at == MAP_FAILED)
            return 1;
        sum += at[0];
        munmap(at, 3 * PAGE);
    }
    printf("%d %d\n", sum, open(host, O_RDONLY));
    return 0;
}

/* Memory grows page by page, as by realloc(3). */
static int grow(int pages)
{
    size_t size = PAGE;
    int moves = 0, i, good = 0;
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (; size < pages * PAGE; size += PAGE) {
        char *to = mremap(at, size, size + PAGE, MREMAP_MAYMOVE);
        if (to == MAP_FAILED)
            return 1;
        moves += to != at;
        at = to;
        at[size] = (char)(size / PAGE);
    }
    for (i = 1; i < pages; i++)
        good += at[i * PAGE] == (char)i;
    printf("%d %d\n", good, moves);
    return 0;
}

/* What a file that is mapped may become where nothing may be executed. */
static int no_code(void)
{
    int fd = open(host, O_RDONLY), i;
    for (i = 0; i < 3; i++) {
        char *at = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
        say("%d", at != MAP_FAILED);
        say(" %d", mprotect(at, PAGE, PROT_READ | PROT_EXEC));
        say(" %d", mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) != MAP_FAILED);
        printf("\n");
    }
    return 0;
}

int main(int argc, char **argv)
{
    static char block[40000], stack[65536];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = fault, .sa_flags = SA_ONSTACK};
    int i, steps = atoi(argv[2]), fd;
    if (argc != 5)
        return 2;
    state = strtoul(argv[1], NULL, 10) * 0x9e3779b97f4a7c15u + 1;
    host = argv[4];
    with_remap = strtoul(argv[1], NULL, 10) % 2 == 0;
    if (state == 1)
        return steps < 0 ? grow(-steps) : steps ? again(steps) : no_code();
    snprintf(one, sizeof one, "%s/one", argv[3]);
    snprintf(two, sizeof two, "%s/two", argv[3]);
    sigaltstack(&other, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    for (i = 0; i < (int)sizeof block; i++)
        block[i] = (char)(i / 100);
    fd = open(one, O_RDWR | O_CREAT, 0644);
    if (write(fd, block, sizeof block) != sizeof block)
        return 2;
    close(fd);
    for (i = 0; i < SLOTS; i++) {
        slots[i] = -1;
        reopen(i);
        printf("\n");
    }
    for (i = 0; i < steps; i++) {
        step();
        if (roll(6))
            printf("\n");
        else
            show();
    }
    return 0;
}
