/* The init of a sandbox's PID namespace.
 *
 * It reaps what is orphaned into it and exits with the Sentry's status as soon as the Sentry (whose
 * pid, inside the namespace, is argv[1]) is gone; the kernel then kills whatever is left in the
 * namespace.  That is the only way in which all stubs are sure to die with the Sentry.
 *
 * Freestanding: no libc, no allocation, no file is opened.  The seccomp filter that it starts under
 * (sentry/runtime/filters.py) allows just the calls below.  exec has made the process dumpable again;
 * its first act is to undo that, so that the Sentry, which has the same uid, cannot ptrace it.
 */
#include <asm/unistd.h>

#define PR_SET_DUMPABLE 4
#define EINTR 4
#define DIED 128 /* plus the signal: the Sentry left no status of its own */

static long call4(long number, long a, long b, long c, long d) {
    register long r10 __asm__("r10") = d;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

static _Noreturn void leave(int status) {
    for (;;)
        call4(__NR_exit_group, status, 0, 0, 0);
}

static long number(const char *text) {
    long value = 0;

    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (*text - '0');
    return value;
}

/* The stack as execve(2) leaves it: argc, argv…, NULL.  Signals need no care: an init ignores what it
 * has no handler for, the CLI's SIGKILL excepted, which is what it should die of. */
__attribute__((used)) static void reaper_main(const long *stack) {
    long sentry = stack[0] >= 2 ? number((const char *)stack[2]) : 0;

    call4(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0);
    for (;;) {
        int status = 0;
        long pid = call4(__NR_wait4, -1, (long)&status, 0, 0);

        if (pid == sentry) {
            int signo = status & 0x7f;
            leave(signo ? DIED + signo : (status >> 8) & 0xff);
        }
        if (pid < 0 && pid != -EINTR)
            leave(DIED); /* ECHILD: there never was a Sentry */
    }
}

__asm__(".globl _start\n"
        "_start:\n"
        "\txor %ebp, %ebp\n"
        "\tmov %rsp, %rdi\n"
        "\tand $-16, %rsp\n"
        "\tcall reaper_main\n"
        "\thlt\n");
