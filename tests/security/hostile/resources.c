/* Attacks on the Sentry's own memory: every table that a guest can grow, grown until it says no. */
#include "hostile.h"

#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/xattr.h>

static void vmas(void)
{
    const long count = 70000;
    char *p = mmap(NULL, count * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    long i;
    CHECK(p != MAP_FAILED);
    for (i = 0; i < count; i += 2)
        if (mprotect(p + i * 4096, 4096, PROT_READ) < 0)
            break;
    CHECK(errno == ENOMEM && i > 60000 && i < 65600);
    munmap(p + 4096 * 101, 4096 * 3);
    CHECK(munmap(p, count * 4096) == 0);
}

/* More to look through than anybody has time for, and more to tell than anybody has room for. */
static void address_spaces(void)
{
    static const char *const files[] = {"smaps", "numa_maps", "maps", "statm", "status", "stat", "smaps_rollup"};
    static char buffer[1 << 16];
    const long count = 60000;
    long i;
    CHECK(mmap(NULL, 1ul << 45, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED);
    for (i = 0; i < 7; i++) {
        char path[64];
        int fd;
        snprintf(path, sizeof path, "/proc/self/%s", files[i]);
        fd = open(path, O_RDONLY);
        CHECK(fd >= 0);
        while (read(fd, buffer, sizeof buffer) > 0)
            ;
        close(fd);
    }
    char *p = mmap(NULL, count * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(p != MAP_FAILED);
    for (i = 0; i < count; i += 2)
        CHECK(mprotect(p + i * 4096, 4096, PROT_READ) == 0);
    for (i = 0; i < 300; i++) {
        int fd = open(i % 3 ? "/proc/self/smaps" : "/proc/self/maps", O_RDONLY);
        CHECK(fd >= 0 && read(fd, buffer, 1) == 1);
    }
    /* Locked and not, in turn: what differs in nothing any more becomes one, each time. */
    for (int n = 0; n < 3; n++) {
        for (i = 0; i < count; i += 2)
            CHECK(mlock2(p + i * 4096, 4096, MLOCK_ONFAULT) == 0);
        CHECK(munlockall() == 0 && mprotect(p, count * 4096, PROT_READ) == 0);
    }
}

static void vmas_fork(void)
{
    char *p = mmap(NULL, 20000 * 4096l, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (long i = 0; i < 20000; i += 2)
        if (mprotect(p + i * 4096, 4096, PROT_READ) < 0)
            break;
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            pause();
            _exit(0);
        }
        if (pid < 0)
            break;
    }
    kill(0, SIGKILL);
}

static void timers(void)
{
    struct sigevent none = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec spec = {{0, 1}, {0, 1}};
    timer_t timer;
    long i;
    signal(SIGRTMIN, SIG_IGN);
    for (i = 0; i < 50000; i++) {
        if (timer_create(CLOCK_MONOTONIC, &none, &timer) < 0)
            break;
        if (i < 2000)
            timer_settime(timer, 0, &spec, NULL); /* every nanosecond */
    }
    printf("%ld timers, errno %d\n", i, i < 50000 ? errno : 0);
    CHECK(i == 50000 || errno == EAGAIN);
    usleep(100000);
}

static void signals(void)
{
    sigset_t all;
    union sigval value = {0};
    long i;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    raise_limit(RLIMIT_SIGPENDING);
    for (i = 0; i < 200000; i++)
        if (sigqueue(getpid(), SIGRTMIN + (int)(i % 30), value) < 0)
            break;
    CHECK(i < 200000 && errno == EAGAIN);
    for (i = 0; i < 3000; i++) {
        kill(getpid(), 1 + (int)(i % 64));
        raise(SIGRTMIN);
    }
}

/* Each child queues its own limit for the parent, and for itself. */
static void signals_many(void)
{
    sigset_t all;
    union sigval value = {0};
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int c = 0; c < 12; c++)
        if (fork() == 0) {
            for (long i = 0; i < 5000; i++)
                if (sigqueue(getpid(), SIGRTMIN, value) < 0)
                    break;
            for (long i = 0; i < 5000; i++)
                if (sigqueue(getppid(), SIGRTMIN, value) < 0)
                    break;
            pause();
        }
    usleep(1500000);
    kill(0, SIGKILL);
}

static void huge_sizes(void)
{
    size_t gib = 1ul << 30;
    char *p = mmap(NULL, 4 * gib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int zero = open("/dev/zero", O_RDWR), full = open("/dev/full", O_RDWR), null = open("/dev/null", O_RDWR);
    int file = open("/tmp/huge", O_RDWR | O_CREAT | O_TRUNC, 0600), urandom = open("/dev/urandom", O_RDONLY);
    struct iovec iov[1025];
    int two[2];
    CHECK(p != MAP_FAILED && pipe2(two, O_NONBLOCK) == 0);
    for (int i = 0; i < 1025; i++)
        iov[i] = (struct iovec){p, gib};
    CHECK(write(null, p, 3 * gib) > 0);
    CHECK(writev(null, iov, 1024) != 0);
    CHECK(writev(null, iov, 1025) == -1 && errno == EINVAL);
    CHECK(write(two[1], p, 2 * gib) > 0);
    CHECK(writev(two[1], iov, 1024) != 0);
    (void)!read(two[0], p, 3 * gib);
    (void)!pwrite(file, p, 100 << 20, 1l << 40);
    (void)!pwrite(file, p, 4096, LONG_MAX - 4096);
    (void)!pwrite(file, p, 4096, LONG_MAX);
    ftruncate(file, LONG_MAX);
    ftruncate(file, 1l << 40);
    fallocate(file, 0, 0, 1l << 40);
    (void)!pread(file, p, 256 << 20, 1l << 39);
    (void)!sendfile(null, file, NULL, 64 << 20);
    (void)!read(zero, p, 256 << 20);
    (void)!read(urandom, p, 256 << 20);
    syscall(SYS_getrandom, p, 256 << 20, 0);
    (void)!write(full, p, gib);
    (void)!write(open("/proc/self/comm", O_WRONLY), p, gib);
    (void)!write(open("/proc/self/mem", O_RDWR), p, gib);
    (void)!read(open("/proc/self/mem", O_RDWR), p, gib);
    (void)!pread(open("/proc/self/mem", O_RDWR), p + gib, 64 << 20, (long)p);
    syscall(SYS_process_vm_readv, getpid(), iov, 16, iov, 16, 0);
    (void)!readlink("/proc/self/exe", p, gib);
    (void)!getcwd(p, gib);
    syscall(SYS_getdents64, open("/etc", O_RDONLY), p, gib);
    syscall(SYS_getgroups, INT_MAX, p);
    syscall(SYS_setgroups, 65536, p);
    syscall(SYS_setgroups, INT_MAX, p);
    syscall(SYS_poll, p, 1 << 20, 0);
    syscall(SYS_poll, p, UINT_MAX, 0);
    syscall(SYS_select, 1 << 20, p, p, p, p);
    syscall(SYS_select, INT_MAX, p, p, p, p);
    syscall(SYS_futex, p, 128, -1, p, p, -1);
    syscall(SYS_mincore, p, 4 * gib, p + gib);
    syscall(SYS_madvise, p, 4 * gib, 4);
    syscall(SYS_msync, p, 4 * gib, 4);
    syscall(SYS_mlock, p, 4 * gib);
    syscall(SYS_sched_setaffinity, 0, 1 << 30, p);
    syscall(SYS_sched_getaffinity, 0, 1 << 30, p);
    syscall(SYS_rt_sigtimedwait, p, p, p, 8);
    setxattr("/tmp/huge", "user.a", p, 64 << 10, 0);
    setxattr("/tmp/huge", "user.a", p, gib, 0);
    getxattr("/tmp/huge", "user.a", p, gib);
    listxattr("/tmp/huge", p, gib);
    syscall(SYS_splice, two[0], 0, null, 0, gib, 0);
    syscall(SYS_copy_file_range, file, 0, null, 0, gib, 0);
}

static void deep_dirs(void)
{
    long i;
    chdir("/tmp");
    for (i = 0; i < 5000; i++)
        if (mkdir("d", 0777) < 0 || chdir("d") < 0)
            break;
    char path[8192];
    (void)!getcwd(path, sizeof path);
    (void)!readlink("/proc/self/cwd", path, sizeof path);
    for (int k = 0; k < 200; k++)
        rename("x", "y");
    chdir("/tmp");
    rename("/tmp/d", "/tmp/e");
    rename("/tmp/e", "/tmp/e/d/f");
    printf("%ld deep\n", i);
    for (; i > 0; i--)
        if (chdir("e") < 0 && chdir("d") < 0)
            break;
    for (; i < 5000; i++)
        if (chdir("..") < 0 || rmdir("d") < 0)
            break;
}

static void symlinks(void)
{
    char target[64], name[64], longest[4096];
    for (int i = 0; i < 300; i++) {
        snprintf(target, sizeof target, "/tmp/link%d", i + 1);
        snprintf(name, sizeof name, "/tmp/link%d", i);
        symlink(target, name);
    }
    CHECK(open("/tmp/link0", O_RDONLY) == -1 && errno == ELOOP);
    symlink("loop/loop/loop/loop", "/tmp/loop");
    CHECK(open("/tmp/loop/loop", O_RDONLY) == -1 && errno == ELOOP);
    /* Each doubles the path: exponential work if nobody counts. */
    memset(longest, 0, sizeof longest);
    for (int i = 0; i < 200; i++)
        strcat(longest, "../tmp/");
    symlink(longest, "/tmp/long0");
    for (int i = 1; i < 30; i++) {
        snprintf(name, sizeof name, "/tmp/long%d", i);
        snprintf(longest, sizeof longest, "/tmp/long%d/long%d/long%d", i - 1, i - 1, i - 1);
        symlink(longest, name);
    }
    open("/tmp/long29", O_RDONLY);
    memset(longest, 'x', 4095);
    longest[4095] = 0;
    unlink("/tmp/x"); /* the host may have one */
    CHECK(symlink(longest, "/tmp/x") == 0 || errno == ENAMETOOLONG);
}

static void many_files(void)
{
    char name[64];
    long i;
    int fd;
    mkdir("/tmp/many", 0777);
    for (i = 0; i < 30000; i++) {
        snprintf(name, sizeof name, "/tmp/many/file-number-%ld", i);
        fd = open(name, O_CREAT | O_WRONLY, 0600);
        if (fd < 0)
            break;
        if (i % 4 == 0 && write(fd, "x", 1) != 1) {
            close(fd);
            break;
        }
        close(fd);
    }
    printf("%ld files, errno %d\n", i, i < 30000 ? errno : 0);
    CHECK(i == 30000 || errno == ENOSPC || errno == ENFILE || errno == ENOMEM);
}

static void many_names(void)
{
    char name[300];
    struct stat st;
    for (long i = 0; i < 6000; i++) { /* negative dentries */
        snprintf(name, sizeof name, "/tmp/%0200ld", i);
        stat(name, &st);
        snprintf(name, sizeof name, "/usr/%0200ld", i);
        stat(name, &st);
    }
}

static void xattrs(void)
{
    char name[300], *value = calloc(1, 65536);
    long i;
    int fd = open("/tmp/attributes", O_CREAT | O_RDWR, 0600);
    for (i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "user.%0200ld", i);
        if (fsetxattr(fd, name, value, 65536, 0) < 0)
            break;
    }
    printf("%ld attributes, errno %d\n", i, i < 20000 ? errno : 0);
    CHECK(i < 20000);
    flistxattr(fd, NULL, 0);
}

static void arguments(void)
{
    enum { COUNT = 200000 };
    char **argv = calloc(COUNT + 1, sizeof *argv), *big = malloc(200 << 20);
    memset(big, 'a', 200 << 20);
    big[(200 << 20) - 1] = 0;
    argv[0] = big;
    CHECK(execv("/bin/true", argv) == -1 && errno == E2BIG);
    big[131071] = 0;
    for (int i = 0; i < COUNT; i++)
        argv[i] = big;
    CHECK(execv("/bin/true", argv) == -1 && errno == E2BIG);
    big[0] = 0;
    for (int i = 0; i < COUNT; i++)
        argv[i] = big;
    execve("/bin/true", argv, argv);
    for (long i = 0; i < 16l << 20; i += 8)
        *(char **)(big + i) = big + 4096;
    raise_limit(RLIMIT_STACK);
    CHECK(execv("/bin/true", (char **)big) == -1);
}

static void *wait_futex(void *word)
{
    syscall(SYS_futex, word, 0, 0, NULL, NULL, 0);
    return NULL;
}

static void threads(void)
{
    static int word;
    pthread_attr_t small;
    pthread_t t;
    long i;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 16384);
    for (i = 0; i < 3000; i++)
        if (pthread_create(&t, &small, wait_futex, &word))
            break;
    printf("%ld threads\n", i);
    CHECK(i > 10);
    syscall(SYS_futex, &word, 1, INT_MAX, NULL, NULL, 0);
}

static void locks(void)
{
    int fd = open("/tmp/locked", O_CREAT | O_RDWR, 0600);
    long i;
    for (i = 0; i < 30000; i++) {
        struct flock lock = {.l_type = F_WRLCK, .l_start = i * 2, .l_len = 1};
        if (fcntl(fd, F_SETLK, &lock) < 0)
            break;
    }
    printf("%ld locks, errno %d\n", i, i < 30000 ? errno : 0);
    CHECK(i == 30000 || errno == ENOLCK);
    struct flock odd = {.l_type = F_WRLCK, .l_start = LONG_MAX, .l_len = LONG_MAX};
    fcntl(fd, F_SETLK, &odd);
    odd.l_start = LONG_MIN, odd.l_len = LONG_MIN;
    fcntl(fd, F_SETLK, &odd);
}

/* Many of one file after the other. */
static void locks_in_all(void)
{
    long total = 0;
    int files, got = 0;
    char path[32];
    raise_limit(RLIMIT_NOFILE);
    for (files = 0; files < 400 && got == 0; files++) {
        snprintf(path, sizeof path, "/tmp/locked%d", files);
        int fd = open(path, O_CREAT | O_RDWR, 0600);
        CHECK(fd >= 0);
        for (long i = 0; i < 1000 && got == 0; i++) {
            struct flock lock = {.l_type = F_WRLCK, .l_start = i * 2, .l_len = 1};
            got = fcntl(fd, F_SETLK, &lock);
            total += got == 0;
        }
    }
    printf("%ld locks of %d files, errno %d\n", total, files, got ? errno : 0);
    CHECK(got == -1 && errno == ENOLCK);
    close_range(3, ~0u, 0);
    int fd = open("/tmp/locked0", O_RDWR);
    struct flock again = {.l_type = F_WRLCK, .l_len = 1};
    CHECK(fcntl(fd, F_SETLK, &again) == 0);
}

static void zombies(void)
{
    long i;
    for (i = 0; i < 1500; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        if (pid < 0)
            break;
    }
    printf("%ld zombies\n", i);
}

static void sessions(void)
{
    for (int i = 0; i < 300; i++)
        if (fork() == 0) {
            int m, s;
            setsid();
            m = open("/dev/ptmx", O_RDWR);
            s = open("/dev/pts/0", O_RDWR);
            if (m >= 0 && s >= 0)
                close(m);
            _exit(0);
        }
}

/* Each process dies with its parent: one death may not recurse through all of them. */
static void death_chain(void)
{
    int two[2], i;
    char byte;
    CHECK(pipe(two) == 0);
    for (i = 0; i < 600; i++) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (pid > 0 && i == 0) {
            close(two[1]);
            CHECK(read(two[0], &byte, 1) == 1);
            usleep(100000);
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            CHECK(read(two[0], &byte, 1) == 0);
            return;
        }
        if (pid > 0) {
            raise(SIGSTOP);
            pause();
        }
        raw6(SYS_prctl, 1, SIGKILL, 0, 0, 0, 0);
    }
    (void)!write(two[1], "x", 1);
    pause();
}

static void names(void)
{
    char *big = calloc(1, 1 << 20);
    memset(big, 'n', (1 << 20) - 1);
    sethostname(big, 64);
    sethostname(big, 1 << 20);
    setdomainname(big, 1 << 20);
    syscall(SYS_prctl, 15, big);
    memfd_create(big, 0);
    big[249] = 0;
    memfd_create(big, 0);
    syscall(SYS_add_key, "user", big, big, 1 << 20, -1);
    (void)!inotify_init();
    for (int i = 0; i < 2000; i++) {
        char dir[64];
        snprintf(dir, sizeof dir, "/tmp/mount%d", i);
        mkdir(dir, 0777);
        if (syscall(SYS_mount, "none", dir, "tmpfs", 0, NULL) < 0)
            break;
    }
}

static const struct attack attacks[] = {
    {"vmas", vmas}, {"address_spaces", address_spaces}, {"vmas_fork", vmas_fork}, {"timers", timers}, {"signals", signals},
    {"signals_many", signals_many}, {"huge_sizes", huge_sizes}, {"deep_dirs", deep_dirs}, {"symlinks", symlinks},
    {"many_files", many_files}, {"many_names", many_names}, {"xattrs", xattrs}, {"arguments", arguments},
    {"threads", threads}, {"locks", locks}, {"locks_in_all", locks_in_all}, {"zombies", zombies}, {"sessions", sessions},
    {"death_chain", death_chain}, {"names", names},
    {NULL, NULL}};

int main(int argc, char **argv) { return run_attack(attacks, argc, argv); }
