/* Random system calls with random and boundary arguments: fuzz SEED CHILDREN CALLS [NUMBER...]
 *
 * Each child makes CALLS calls from a stream of its own, so `fuzz SEED 1 CALLS` replays the first one.
 * With NUMBERs only those calls are made.  A child is ended by its parent when it takes too long.
 */
#include "hostile.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#define LAST_NUMBER 470
#define PATIENCE_MS 400

static uint64_t state;
static char *pages; /* readable, read-only, none */
static int pool[24], pool_size;
static long only[64];
static int only_count;

static uint64_t random64(void)
{
    state += 0x9e3779b97f4a7c15ull;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint64_t below(uint64_t n) { return random64() % n; }

static const char *const paths[] = {
    "/", ".", "..", "", "/tmp", "/tmp/a", "/tmp/b", "/tmp/d", "/tmp/d/e", "/tmp/l", "/etc/passwd", "/proc/self/fd",
    "/proc/self/mem", "/proc/self/maps", "/proc/self", "/dev/null", "/dev/zero", "/dev/ptmx", "/dev/tty", "/dev/pts/0",
    "/bin/true", "/tmp/a/../a", "//", "/proc/self/root/tmp/a", "/proc/self/exe", "/proc/1/maps", "user.x", "tmpfs",
    "proc", "/dev/full", "/proc/self/fd/3", "a\xff\xfe", "/sys", "/dev/shm/x", "security.capability", "/proc/self/stat",
    "/proc/sys/kernel/hostname", "/proc/self/task", "/proc/self/environ", "/dev/urandom"};

static uint64_t boundary(void)
{
    static const uint64_t values[] = {
        0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 100, 127, 128, 255, 256, 511, 512, 1000, 4095, 4096, 4097, 8192, 65535, 65536, 1 << 20,
        0x7ffff000, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x3fffffff, 0x40000000, 1ull << 40, 1ull << 47,
        0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff, 0xfffffffffffffffe, 0xfffffffffffff000, 0xffffff9c,
        0x7ffefffff000, 0x7fff00000000, 0x7ffffffff000, 0x7ffffffffff8, 0x800000000000, 0xffffffffff600000, 0xffff800000000000};
    return values[below(sizeof values / sizeof *values)];
}

/* Fill a piece of the readable pages with something that a call might take for a structure. */
static void *structure(void)
{
    uint64_t *words = (uint64_t *)(pages + 64 * below(100));
    size_t i, n = 1 + below(24);
    switch (below(6)) {
    case 0: /* an iovec array, or pointers to structures */
        for (i = 0; i < n; i += 2) {
            words[i] = below(4) ? (uint64_t)pages + below(8192) : boundary();
            words[i + 1] = below(3) ? below(5000) : boundary();
        }
        break;
    case 1:
        for (i = 0; i < n; i++)
            words[i] = random64();
        break;
    case 2:
        for (i = 0; i < n; i++)
            words[i] = boundary();
        break;
    case 3:
        for (i = 0; i < n; i++)
            words[i] = below(4);
        break;
    case 4: /* descriptors and small numbers */
        for (i = 0; i < n; i++)
            words[i] = below(30) | below(30) << 32;
        break;
    default: /* two strings in a vector */
        words[0] = (uint64_t)paths[below(sizeof paths / sizeof *paths)];
        words[1] = (uint64_t)paths[below(sizeof paths / sizeof *paths)];
        words[2] = 0;
    }
    return words;
}

static uint64_t argument(void)
{
    switch (below(16)) {
    case 0:
    case 1:
    case 2:
        return (uint64_t)pool[below((uint64_t)pool_size)];
    case 3:
    case 4:
        return (uint64_t)paths[below(sizeof paths / sizeof *paths)];
    case 5:
    case 6:
    case 7:
        return (uint64_t)structure();
    case 8:
        return (uint64_t)pages + 8192 - below(64);  /* runs into the read-only page */
    case 9:
        return (uint64_t)pages + 12288 - below(64); /* runs into nothing */
    case 10:
        return random64();
    case 11:
        return 1ull << below(64);
    case 12:
        return (1ull << below(12)) | (1ull << below(20));
    case 13:
        return below(64);
    default:
        return boundary();
    }
}

static int is_forbidden(long n)
{
    switch (n) {
    case SYS_exit:
    case SYS_exit_group:
    case SYS_rt_sigreturn: /* has a program of its own */
        return 1;
    }
    return 0;
}

static void on_alarm(int signo) { (void)signo; }

static void add(int fd)
{
    if (fd >= 0 && pool_size < 24)
        pool[pool_size++] = fd;
}

static void make_pool(void)
{
    int two[2];
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    add(null);
    if (pipe2(two, O_NONBLOCK) == 0)
        add(two[0]), add(two[1]);
    if (pipe(two) == 0)
        add(two[0]), add(two[1]);
    add(eventfd(1, EFD_NONBLOCK));
    add(epoll_create1(0));
    add(timerfd_create(CLOCK_MONOTONIC, 0));
    add(memfd_create("fuzz", MFD_ALLOW_SEALING));
    add(open("/tmp", O_RDONLY | O_DIRECTORY));
    add(open("/tmp/a", O_RDWR | O_CREAT, 0666));
    add(open("/tmp/b", O_RDWR | O_CREAT | O_APPEND, 0666));
    add(open("/etc/passwd", O_RDONLY));
    add(open("/proc/self/maps", O_RDONLY));
    add(open("/proc/self/mem", O_RDWR));
    add(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    add(open("/proc/self", O_PATH));
    add(open("/dev/zero", O_RDWR));
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, two) == 0)
        add(two[0]), add(two[1]);
    add(-1);
    add(AT_FDCWD);
    mkdir("/tmp/d", 0777);
    if (symlink("/tmp/a", "/tmp/l") < 0)
        errno = 0;
}

static void child(uint64_t seed, long calls)
{
    struct itimerval every = {{0, 20000}, {0, 20000}};
    struct sigaction action = {.sa_handler = on_alarm};
    int self, tid;
    state = seed;
    setpgid(0, 0);
    make_pool();
    self = getpid();
    tid = (int)syscall(SYS_gettid);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    for (long i = 0; i < calls; i++) {
        long n = only_count ? only[below((uint64_t)only_count)] : (long)below(LAST_NUMBER + 1);
        uint64_t a[6];
        for (int k = 0; k < 6; k++)
            a[k] = argument();
        if (is_forbidden(n))
            continue;
        if (n == SYS_kill || n == SYS_tkill || n == SYS_tgkill || n == SYS_rt_sigqueueinfo || n == SYS_rt_tgsigqueueinfo)
            a[0] = (uint64_t)self; /* never the parent or everybody */
        if (n == SYS_setpgid || n == SYS_prlimit64)
            a[0] = 0;
        if (n == SYS_fork || n == SYS_vfork || n == SYS_clone || n == SYS_clone3) {
            if (n == SYS_clone)
                a[0] &= ~(uint64_t)(CLONE_VM | CLONE_THREAD); /* it would run on a stack of garbage */
            if (n == SYS_clone3 && below(2))
                a[1] = 88;
        }
        raw6(n, (long)a[0], (long)a[1], (long)a[2], (long)a[3], (long)a[4], (long)a[5]);
        if (raw6(SYS_gettid, 0, 0, 0, 0, 0, 0) != tid)
            raw6(SYS_exit, 0, 0, 0, 0, 0, 0);
    }
    raw6(SYS_exit_group, 0, 0, 0, 0, 0, 0);
}

static long now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    long children = argc > 2 ? atol(argv[2]) : 10, calls = argc > 3 ? atol(argv[3]) : 500;
    int killed = 0, ended = 0;
    for (int i = 4; i < argc && only_count < 64; i++)
        only[only_count++] = atol(argv[i]);
    pages = mmap(NULL, 5 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages, 8192, PROT_READ | PROT_WRITE);
    mprotect(pages + 8192, 4096, PROT_READ);
    for (long i = 0; i < children; i++) {
        int status;
        long deadline = now_ms() + PATIENCE_MS;
        pid_t pid = fork();
        if (pid == 0)
            child(seed * 1000003 + (uint64_t)i, calls);
        while (waitpid(pid, &status, WNOHANG | __WALL) == 0) {
            if (now_ms() > deadline) {
                kill(pid, SIGKILL);
                kill(-pid, SIGKILL);
                killed++;
                waitpid(pid, &status, __WALL);
                break;
            }
            usleep(2000);
        }
        if (WIFEXITED(status))
            ended++;
        while (waitpid(-1, &status, WNOHANG) > 0)
            ;
    }
    printf("done %ld ended %d killed %d\n", children, ended, killed);
    return 0;
}
