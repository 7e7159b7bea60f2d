/* Attacks by and on processes: what a guest can make the Sentry do for a dying one, remember of its signals and
 * groups, and what it says of those that are not like others. */
#include "hostile.h"
#include <grp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A core dump of that is under way: nobody else may be kept waiting, and SIGKILL ends it. */
static void dump(void (*fill)(void), double patience)
{
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    int status, ready[2];
    char byte;
    CHECK(setrlimit(RLIMIT_CORE, &all) == 0 && chdir("/tmp") == 0 && pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        fill();
        CHECK(write(ready[1], "x", 1) == 1);
        abort();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    double start = now(), longest = 0;
    pid_t ended = 0;
    while (!ended && now() - start < patience) {
        double before = now();
        CHECK((ended = waitpid(pid, &status, WNOHANG)) >= 0);
        if (now() - before > longest)
            longest = now() - before;
        usleep(1000);
    }
    if (!ended) {
        CHECK(kill(pid, SIGKILL) == 0);
        CHECK(waitpid(pid, &status, 0) == pid && WTERMSIG(status) == SIGKILL);
    }
    unlink("core");
    printf("longest pause: %.3f s\n", longest);
    CHECK(longest < 5);
}

static void map_much(void)
{
    char *room = mmap(NULL, 1ul << 46, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(room != MAP_FAILED);
}

static void core_empty(void)
{
    dump(map_much, 2);
}

static void map_many(void)
{
    int fd = open("/tmp/mapped", O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
    for (int i = 0; i < 30000; i++)
        CHECK(mmap(NULL, 4096, i & 1 ? PROT_READ : PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0) != MAP_FAILED);
}

static void core_mappings(void)
{
    dump(map_many, 30);
    unlink("/tmp/mapped");
}

/* Root raises its own limits. */
static void queued(void)
{
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    union sigval value = {0};
    sigset_t set;
    long count = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    CHECK(setrlimit(RLIMIT_SIGPENDING, &all) == 0 && sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    while (count < 1000000 && sigqueue(getpid(), SIGRTMIN, value) == 0)
        count++;
    CHECK(count < 1000000 && errno == EAGAIN);
    for (long i = 0; i < count; i++)
        CHECK(sigwaitinfo(&set, NULL) == SIGRTMIN);
    CHECK(sigqueue(getpid(), SIGRTMIN, value) == 0);
}

static void group_lists(void)
{
    static gid_t groups[65536];
    int kept = 0, pair[2];
    raise_limit(RLIMIT_NOFILE);
    for (gid_t first = 1000; kept < 1000; first += 65536, kept++) {
        for (gid_t i = 0; i < 65536; i++)
            groups[i] = first + i;
        if (setgroups(65536, groups) == -1)
            break;
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0); /* keeps the credentials (SO_PEERCRED) */
    }
    CHECK(kept < 1000 && errno == ENOMEM);
    /* The same list in many credentials. */
    for (int i = 0; i < 20000; i++) {
        CHECK(setresgid((gid_t)-1, (gid_t)(i & 1), (gid_t)-1) == 0);
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    }
}

/* Process 1 is the Sentry's own: it has no memory, no descriptors, no directories. */
static void first_process(void)
{
    struct rlimit limit;
    struct iovec here = {&limit, sizeof limit};
    int fd = (int)syscall(SYS_pidfd_open, 1, 0);
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        CHECK(prlimit(1, i, NULL, &limit) == 0);
        CHECK(prlimit(1, i, &limit, NULL) == 0);
    }
    CHECK(fd >= 0);
    for (int bit = 7; bit < 31; bit++)
        if (fork() == 0) {
            setns(fd, 1 << bit);
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    for (int i = 0; i < 12; i++)
        close((int)ioctl(fd, 0xff00 + i, 0));
    for (int i = 0; i < 8; i++)
        syscall(SYS_kcmp, 1, getpid(), i, 0, &limit);
    CHECK(syscall(SYS_pidfd_getfd, fd, 0, 0) == -1);
    CHECK(process_vm_readv(1, &here, 1, &here, 1, 0) == -1);
    CHECK(ptrace(PTRACE_SEIZE, 1, 0, 0) == -1);
    CHECK(kill(1, SIGKILL) == 0 && kill(1, 0) == 0);
}

/* Those that have lost their parent ask to be traced by process 1, and end: nothing is left of them. */
static void orphans(void)
{
    for (int i = 0; i < 300; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (fork() == 0) {
                while (getppid() != 1)
                    usleep(200);
                ptrace(PTRACE_TRACEME, 0, 0, 0);
                _exit(0);
            }
            _exit(0);
        }
        CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
    }
    usleep(500000);
    int left = 0;
    for (pid_t pid = getpid() + 1; pid < getpid() + 700; pid++)
        left += kill(pid, 0) == 0;
    CHECK(left == 0);
}

/* While one process copies much, others get on. */
static void copies(void)
{
    enum { PIECES = 256, PIECE = 1 << 20 };
    static struct iovec here[PIECES], there[PIECES];
    char *from = mmap(NULL, (size_t)PIECES * PIECE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *to = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile int *phase = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < PIECES; i++) {
        here[i] = (struct iovec){to, PIECE};
        there[i] = (struct iovec){from + (size_t)i * PIECE, PIECE};
    }
    pid_t pid = fork();
    if (pid == 0) {
        *phase = 1;
        CHECK(process_vm_readv(getppid(), here, PIECES, there, PIECES, 0) == (ssize_t)PIECES * PIECE);
        *phase = 2;
        _exit(0);
    }
    int count = 0, status;
    while (*phase == 0)
        sched_yield();
    while (*phase == 1) {
        CHECK(getsid(getpid()) >= 0); /* the kernel's to answer */
        count++;
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(count >= 5);
}

/* A user traces a set-id program of root's at the moment at which it is executed. */
static void set_id_race(const char *program, long delay)
{
    volatile int *phase = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;
    pid_t target = fork();
    if (target == 0) {
        CHECK(setresgid(4242, 4242, 4242) == 0 && setresuid(4242, 4242, 4242) == 0);
        CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
        *phase = 1;
        while (*phase != 2)
            sched_yield();
        close(0), close(1), close(2);
        *phase = 3;
        execl(program, program, "--help", NULL);
        _exit(0);
    }
    pid_t tracer = fork();
    if (tracer == 0) {
        char path[40], text[4096] = "", *ids;
        unsigned real = 0, effective = 0;
        CHECK(setresgid(4242, 4242, 4242) == 0 && setresuid(4242, 4242, 4242) == 0);
        while (*phase != 1)
            sched_yield();
        *phase = 2;
        while (*phase != 3)
            ;
        for (double start = now(); now() - start < (double)delay / 1e6;)
            ;
        if (ptrace(PTRACE_SEIZE, target, 0, PTRACE_O_TRACEEXEC) == -1)
            _exit(0);
        CHECK(waitpid(target, &status, __WALL) == target);
        sprintf(path, "/proc/%d/status", target);
        int fd = open(path, O_RDONLY);
        if (WIFSTOPPED(status) && fd >= 0 && read(fd, text, sizeof text - 1) > 0) {
            CHECK((ids = strstr(text, "\nUid:")) && sscanf(ids, "\nUid: %u %u", &real, &effective) == 2);
            CHECK(real == 4242 && effective == 4242);
        }
        _exit(0);
    }
    CHECK(waitpid(tracer, &status, 0) == tracer);
    kill(target, SIGKILL);
    CHECK(waitpid(target, NULL, 0) == target);
    CHECK(status == 0);
}

static void set_id(void)
{
    static const char *const programs[] = {
        "/usr/bin/su",     "/usr/bin/mount",  "/usr/bin/umount", "/usr/bin/passwd",
        "/usr/bin/newgrp", "/usr/bin/chfn",   "/usr/bin/chsh",   "/usr/bin/gpasswd"};
    srand((unsigned)getpid() ^ (unsigned)time(NULL));
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        for (int times = 0; times < 6; times++)
            set_id_race(programs[i], rand() % 3000);
}

static const struct attack attacks[] = {
    {"core_empty", core_empty}, {"core_mappings", core_mappings}, {"queued", queued}, {"group_lists", group_lists},
    {"first_process", first_process}, {"orphans", orphans}, {"set_id", set_id},
    {"copies", copies}, {NULL, NULL}};

int main(int argc, char **argv)
{
    return run_attack(attacks, argc, argv);
}
