/* Attacks on limits that the user has set: processes and memory, as much as there is. */
#include "hostile.h"

static void fork_bomb(void)
{
    alarm(3);
    for (;;)
        if (fork() < 0)
            sched_yield();
}

static void memory_bomb(void)
{
    size_t step = 64 << 20;
    for (;;) {
        char *p = mmap(NULL, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            break;
        memset(p, 1, step);
    }
    CHECK(errno == ENOMEM);
}

static void file_bomb(void)
{
    static char block[1 << 20];
    int fd = open("/tmp/bomb", O_CREAT | O_WRONLY, 0600);
    long n = 0;
    memset(block, 1, sizeof block);
    while (write(fd, block, sizeof block) > 0)
        n++;
    printf("%ld MiB, errno %d\n", n, errno);
    CHECK(errno == ENOSPC || errno == ENOMEM);
}

static void shared_bomb(void)
{
    size_t step = 64 << 20;
    for (;;) {
        char *p = mmap(NULL, step, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            break;
        memset(p, 1, step);
    }
    CHECK(errno == ENOMEM);
}

/* Reads a byte of each two megabytes: nothing of it is charged, and all that it takes is page tables. */
static void table_bomb(void)
{
    const size_t reach = 1ull << 30, steps = 1200;
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        volatile char sum = 0;
        size_t i, at;
        for (i = 0; i < steps; i++) {
            char *p = mmap(NULL, reach, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (p == MAP_FAILED)
                _exit(1);
            madvise(p, reach, MADV_NOHUGEPAGE);
            for (at = 0; at < reach; at += 2 << 20)
                sum += p[at];
            usleep(500);
        }
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Many processes, each with little: private, shared, and in files. */
static void crowd_bomb(void)
{
    const size_t size = 4 << 20;
    int i, refused = 0;
    for (i = 0; i < 40; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            char name[64], *p;
            int fd;
            p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (p != MAP_FAILED)
                memset(p, 1, size);
            p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            if (p != MAP_FAILED)
                memset(p, 1, size);
            snprintf(name, sizeof name, "/tmp/crowd.%d", i);
            fd = open(name, O_CREAT | O_RDWR, 0600);
            if (fd >= 0 && p != MAP_FAILED && write(fd, p, size) != (ssize_t)size)
                p = MAP_FAILED;
            if (fork() == 0) { /* keeps all of it */
                pause();
                _exit(0);
            }
            _exit(p == MAP_FAILED);
        }
        if (child < 0 || (waitpid(child, &status, 0) == child && status != 0))
            refused++;
    }
    printf("%s\n", refused ? "refused" : "all of it");
    CHECK(refused > 0);
}

static const struct attack attacks[] = {
    {"fork_bomb", fork_bomb}, {"memory_bomb", memory_bomb}, {"file_bomb", file_bomb}, {"shared_bomb", shared_bomb},
    {"table_bomb", table_bomb}, {"crowd_bomb", crowd_bomb}, {NULL, NULL}};

int main(int argc, char **argv) { return run_attack(attacks, argc, argv); }
