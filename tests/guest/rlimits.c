/* Resource limits: reading, setting, and what happens at the limit. */
#include "check.h"

static void show_limit(const char *what, int resource)
{
    struct rlimit limit;
    MUST(getrlimit(resource, &limit));
    char soft[32], hard[32];
    snprintf(soft, sizeof soft, limit.rlim_cur == RLIM_INFINITY ? "infinity" : "%lu", limit.rlim_cur);
    snprintf(hard, sizeof hard, limit.rlim_max == RLIM_INFINITY ? "infinity" : "%lu", limit.rlim_max);
    say("%s: %s %s", what, soft, hard);
}

static long set(int resource, rlim_t soft, rlim_t hard)
{
    struct rlimit limit = {soft, hard};
    return setrlimit(resource, &limit);
}

int main(void)
{
    struct rlimit limit, old;
    CASE("set and get");
    reap("nofile", CHILD({
        SHOW(set(RLIMIT_NOFILE, 10, 20));
        show_limit("nofile", RLIMIT_NOFILE);
        SHOW(set(RLIMIT_NOFILE, 21, 20));
        SHOW(set(RLIMIT_NOFILE, 20, 20));
        int highest = 0, fd;
        while ((fd = open("/dev/null", O_RDONLY)) >= 0)
            highest = fd;
        say("highest %d then %s", highest, error_name(errno));
        int ends[2];
        SHOW(pipe(ends));
        SHOW(dup(0));
        SHOW(dup2(0, 20));
        SHOW(dup2(0, 19));
        SHOW(fcntl(0, F_DUPFD, 20));
        close(19);
        SHOW(pipe(ends));
        SHOW(open("/dev/null", O_RDONLY));
        SHOW(set(RLIMIT_NOFILE, 5, 20));
        SHOW(fcntl(10, F_GETFD));
        close(10);
        SHOW(open("/dev/null", O_RDONLY));
        reap("inherited", CHILD(show_limit("nofile", RLIMIT_NOFILE)));
    }));
    CASE("prlimit");
    reap("prlimit", CHILD({
        limit = (struct rlimit){100, 200};
        SHOW(prlimit(0, RLIMIT_NOFILE, &limit, NULL));
        SHOW(prlimit(getpid(), RLIMIT_NOFILE, NULL, &old));
        say("%lu %lu", old.rlim_cur, old.rlim_max);
        SHOW(prlimit(1 << 21, RLIMIT_NOFILE, NULL, &old));
        SHOW(prlimit(0, 99, NULL, &old));
        SHOW(prlimit(0, RLIMIT_NOFILE, BAD, NULL));
        SHOW(prlimit(0, RLIMIT_NOFILE, NULL, BAD));
    }));
    SHOW(getrlimit(99, &limit));
    SHOW(getrlimit(RLIMIT_NOFILE, BAD));
    SHOW(setrlimit(-1, &limit));
    CASE("raising a hard limit");
    reap("user", CHILD({
        MUST(set(RLIMIT_CORE, 0, 0));
        if (geteuid() == 0)
            MUST(setresuid(1000, 1000, 1000));
        SHOW(set(RLIMIT_CORE, 0, 1));
        SHOW(set(RLIMIT_CORE, 0, 0));
    }));
    CASE("FSIZE");
    scratch();
    int fd = MUST(open("file", O_RDWR | O_CREAT, 0644));
    reap("ignored", CHILD({
        signal(SIGXFSZ, SIG_IGN);
        MUST(set(RLIMIT_FSIZE, 10, 10));
        SHOW(write(fd, "0123456", 7));
        SHOW(write(fd, "789abc", 6));
        SHOW(write(fd, "x", 1));
        SHOW(ftruncate(fd, 11));
        SHOW(ftruncate(fd, 10));
        SHOW(write(1, "", 0));
    }));
    no_core();
    reap("signal", CHILD(MUST(set(RLIMIT_FSIZE, 10, 10)); MUST(pwrite(fd, "x", 1, 50))));
    CASE("AS");
    reap("as", CHILD({
        MUST(set(RLIMIT_AS, 256 << 20, 256 << 20));
        SHOW_IF(mmap(NULL, 512 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
        say("%s", error_name(errno));
        SHOW_IF(mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
    }));
    CASE("CPU");
    reap("cpu", CHILD(MUST(set(RLIMIT_CPU, 1, 2)); for (;;)));
    CASE("NPROC");
    if (geteuid() == 0)
        reap("nproc", CHILD({
            MUST(setresuid(54321, 54321, 54321));
            MUST(set(RLIMIT_NPROC, 1, 1));
            SHOW_OK(fork());
        }));
    CASE("SIGPENDING");
    reap("sigpending", CHILD({
        if (geteuid() == 0)
            MUST(setresuid(54322, 54322, 54322));
        sigset_t set_rt = set_of(SIGRTMIN);
        MUST(sigprocmask(SIG_BLOCK, &set_rt, NULL));
        MUST(set(RLIMIT_SIGPENDING, 3, 3));
        int queued = 0;
        while (sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = queued}) == 0 && queued < 10)
            queued++;
        say("queued %d then %s", queued, error_name(errno));
    }));
    CASE("priorities");
    SHOW(getpriority(PRIO_PROCESS, 0));
    SHOW(setpriority(PRIO_PROCESS, 0, 7));
    SHOW(getpriority(PRIO_PROCESS, 0));
    SHOW(getpriority(77, 0));
    SHOW(getpriority(PRIO_PROCESS, 1 << 21));
    return 0;
}
