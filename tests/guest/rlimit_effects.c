/* What resource limits do to whom, beyond what rlimits.c asks. */
#include "check.h"

#include <pthread.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

static int set(int resource, rlim_t soft, rlim_t hard)
{
    struct rlimit limit = {soft, hard};
    return setrlimit(resource, &limit);
}

static volatile sig_atomic_t signals;
static volatile int code;

static void count(int signo UNUSED, siginfo_t *info, void *context UNUSED)
{
    signals++;
    code = info->si_code;
}

static void sizes(void)
{
    char text[64] = "0123456789";
    CASE("FSIZE: every way to write");
    scratch();
    handle_flags(SIGXFSZ, count, 0);
    int fd = MUST(open("file", O_RDWR | O_CREAT, 0600)), other = MUST(open("other", O_RDWR | O_CREAT, 0600));
    MUST(write(other, text, 10));
    MUST(set(RLIMIT_FSIZE, 8, 8));
    SHOW(write(fd, text, 10));
    SHOW((int)signals);
    SHOW(write(fd, text, 1));
    say("signals %d code %d", (int)signals, code);
    SHOW(pwrite(fd, text, 10, 4));
    SHOW(pwrite(fd, text, 1, 8));
    SHOW(pwrite(fd, text, 1, 100));
    struct iovec vector[2] = {{text, 5}, {text, 5}};
    SHOW(pwritev(fd, vector, 2, 0));
    SHOW(pwritev(fd, vector, 2, 8));
    SHOW(ftruncate(fd, 9));
    SHOW(truncate("file", 9));
    SHOW(ftruncate(fd, 8));
    SHOW(posix_fallocate(fd, 0, 8));
    off_t from = 0;
    SHOW(lseek(fd, 6, SEEK_SET));
    SHOW(sendfile(fd, other, &from, 10));
    from = 0;
    off_t to = 6;
    SHOW(copy_file_range(other, &from, fd, &to, 10, 0));
    SHOW(write(other, text, 10));
    int ends[2];
    MUST(pipe(ends));
    SHOW(write(ends[1], text, 20));
    MUST(signal(SIGXFSZ, SIG_DFL) == SIG_ERR ? -1 : 0);
    no_core();
    reap("default", CHILD(pwrite(fd, text, 1, 100)));
}

static void descriptors(void)
{
    int ends[2];
    CASE("NOFILE");
    MUST(set(RLIMIT_NOFILE, 6, 100));
    while (dup(0) >= 0)
        ;
    say("%s", error_name(errno));
    SHOW(pipe(ends));
    SHOW(open("/", O_RDONLY));
    SHOW(dup2(0, 6));
    SHOW(dup2(0, 5));
    SHOW(fcntl(0, F_DUPFD, 6));
    SHOW(fcntl(0, F_DUPFD, 5));
    MUST(set(RLIMIT_NOFILE, 0, 100));
    SHOW(open("/", O_RDONLY));
    SHOW(write(1, "", 0));
    MUST(set(RLIMIT_NOFILE, 100, 100));
    SHOW(dup2(0, 99));
    SHOW(dup2(0, 100));
    SHOW(set(RLIMIT_NOFILE, 101, 101) == 0 || errno == EPERM);
}

static void *idle(void *unused)
{
    return unused;
}

static void tasks(void)
{
    pthread_t thread;
    CASE("NPROC");
    if (geteuid() == 0)
        MUST(setresuid(54321, 54321, 54321));
    MUST(set(RLIMIT_NPROC, 1, 1));
    SHOW(fork());
    SHOW(pthread_create(&thread, NULL, idle, NULL));
    SHOW(set(RLIMIT_NPROC, 2, 2));
}

static void memory(void)
{
    long page = 4096;
    CASE("AS, DATA, STACK, MEMLOCK");
    if (geteuid() == 0)
        MUST(setresuid(54321, 54321, 54321));
    reap("AS", CHILD({
        MUST(set(RLIMIT_AS, 64 << 20, RLIM_INFINITY));
        SHOW_IF(mmap(NULL, 128 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
        SHOW_IF(sbrk(128 << 20) == (void *)-1);
        char *small = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        SHOW_IF(small != MAP_FAILED);
        SHOW_IF(mremap(small, page, 128 << 20, MREMAP_MAYMOVE) == MAP_FAILED);
    }));
    reap("DATA", CHILD({
        MUST(set(RLIMIT_DATA, 16 << 20, RLIM_INFINITY));
        SHOW_IF(mmap(NULL, 32 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
        SHOW_IF(mmap(NULL, 32 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
        SHOW_IF(mmap(NULL, 32 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
        SHOW_IF(sbrk(32 << 20) == (void *)-1);
    }));
    reap("MEMLOCK", CHILD({
        char *area = mmap(NULL, 64 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        MUST(set(RLIMIT_MEMLOCK, 8 * page, 8 * page));
        SHOW(mlock(area, 8 * page));
        SHOW(mlock(area + 8 * page, page));
        SHOW(munlock(area, 4 * page));
        SHOW(mlock(area + 8 * page, 4 * page));
        SHOW(mlockall(MCL_CURRENT));
        SHOW_IF(mmap(NULL, 16 * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) == MAP_FAILED && errno == EAGAIN);
        MUST(munlockall());
        MUST(set(RLIMIT_MEMLOCK, 0, 0));
        SHOW(mlock(area, page));
        SHOW(mlockall(MCL_FUTURE));
    }));
}

static void others(void)
{
    struct rlimit limit = {7, 9}, old;
    CASE("prlimit on others");
    pid_t pid = CHILD(for (;;) pause());
    SHOW(prlimit(pid, RLIMIT_NOFILE, &limit, &old));
    SHOW(prlimit(pid, RLIMIT_NOFILE, NULL, &old));
    say("%d %d", (int)old.rlim_cur, (int)old.rlim_max);
    limit = (struct rlimit){9, 7};
    SHOW(prlimit(pid, RLIMIT_NOFILE, &limit, NULL));
    SHOW(prlimit(pid, 16, NULL, &old));
    SHOW(prlimit(pid, RLIMIT_NOFILE, BAD, NULL));
    SHOW(prlimit(0x3ffffff0, RLIMIT_NOFILE, NULL, &old));
    SHOW(prlimit(-1, RLIMIT_NOFILE, NULL, &old));
    MUST(kill(pid, SIGKILL));
    reap("the other", pid);
    if (geteuid() == 0)
        MUST(setresuid(54321, 54321, 54321));
    SHOW(prlimit(1, RLIMIT_NOFILE, NULL, &old));
    CASE("inherited and kept");
    MUST(set(RLIMIT_NOFILE, 20, 30));
    reap("child", CHILD(getrlimit(RLIMIT_NOFILE, &old); say("%d %d", (int)old.rlim_cur, (int)old.rlim_max)));
    SHOW(set(RLIMIT_NOFILE, 31, 31));
    SHOW(set(RLIMIT_NOFILE, 30, 30));
    SHOW(set(RLIMIT_NOFILE, 10, 20));
    SHOW(set(RLIMIT_NOFILE, 10, 21));
    MUST(getrlimit(RLIMIT_NOFILE, &old));
    say("%d %d", (int)old.rlim_cur, (int)old.rlim_max);
    for (int resource = 0; resource < 16; resource++) {
        MUST(getrlimit(resource, &old));
        struct rlimit same = old;
        errno = 0;
        int result = setrlimit(resource, &same);
        say("%d: %d %s", resource, result, error_name(errno));
    }
}

int main(void)
{
    reap("sizes", CHILD(sizes()));
    reap("descriptors", CHILD(descriptors()));
    reap("tasks", CHILD(tasks()));
    reap("memory", CHILD(memory()));
    pid_t pid = CHILD(others());
    int status;
    MUST(waitpid(pid, &status, 0));
    show_status("others", status);
    return 0;
}
