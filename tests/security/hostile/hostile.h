/* What the hostile programs share: named attacks, each in a child, and a look whether the sandbox still works. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct attack {
    const char *name;
    void (*run)(void);
};

#define GUEST_TOP 0x7fff00000000ul
#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            printf("%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);           \
            fflush(stdout);                                                                    \
            _exit(99);                                                                         \
        }                                                                                      \
    } while (0)

__attribute__((unused)) static long raw6(long n, long a, long b, long c, long d, long e, long f)
{
    long r;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
}

__attribute__((unused)) static void raise_limit(int which)
{
    struct rlimit limit;
    getrlimit(which, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(which, &limit);
}

/* How the child that runs the attack ends is its own matter, unless it says 99; then a process, a file, a pipe
 * and an execve must still work. */
__attribute__((unused)) static int run_attack(const struct attack *attacks, int argc, char **argv)
{
    int status = 0, code, two[2], self;
    char byte = 0;
    pid_t pid;
    if (argc == 2 && strcmp(argv[1], "again") == 0)
        return 0;
    for (; attacks->name; attacks++)
        if (argc > 1 && strcmp(attacks->name, argv[1]) == 0)
            break;
    if (!attacks->name)
        return 2;
    /* Root may take away every path: its own, and /proc. */
    self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        attacks->run();
        fflush(stdout);
        _exit(0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    kill(-pid, SIGKILL); /* what it left behind */
    if (code == 99)
        return 99;
    CHECK(pipe(two) == 0);
    pid = fork();
    if (pid == 0) {
        if (write(two[1], "x", 1) == 1)
            fexecve(self, (char *[]){argv[0], "again", NULL}, (char *[]){NULL});
        _exit(98);
    }
    CHECK(pid > 0 && read(two[0], &byte, 1) == 1 && byte == 'x');
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    printf("attack ended with %d, sandbox works\n", code);
    return 0;
}
