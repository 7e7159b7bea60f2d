/* Attacks on the stub of the `trap` platform, from inside its own address space: the guest uses the stub's system call
 * instructions, writes over its code, forges its records, and ends its threads behind the Sentry's back.
 *
 * While an attack runs, another process counts, forks and maps files; it must never notice. */
#include "hostile.h"
#include "../../../csrc/abi/record.h"

#include <setjmp.h>
#include <stddef.h>
#include <ucontext.h>

#define SYS_CALL_SITE (STUB_BASE + STUB_SYSCALL_OFFSET)

static unsigned long seed = 1;
__attribute__((unused)) static unsigned long rnd(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}

__attribute__((unused)) static unsigned long record_here(void)
{
    unsigned long gs;
    __asm__ volatile("rdgsbase %0" : "=r"(gs));
    return gs;
}

__attribute__((unused)) static volatile struct record *fields(unsigned long record)
{
    return (volatile struct record *)record;
}

static __thread sigjmp_buf back;
static __thread long result;

__attribute__((unused)) static void on_fault(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)info;
    result = signo == SIGTRAP ? (long)uc->uc_mcontext.gregs[REG_RAX] : -1000 - signo;
    siglongjmp(back, 1);
}

__attribute__((unused)) static void catch_all(void)
{
    static char stack[65536];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
    int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigaltstack(&alt, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
}

/* Go to `at` with these registers; what stands in rax when it traps. */
__attribute__((unused)) static long go(unsigned long at, const long regs[6], long rax)
{
    result = 0;
    long rbx_value = (long)rnd();
    if (sigsetjmp(back, 1) == 0) {
        register long r10 __asm__("r10") = regs[3]; /* no call between here and the instruction */
        register long r8 __asm__("r8") = regs[4];
        register long r9 __asm__("r9") = regs[5];
        __asm__ volatile("sub $256, %%rsp; call *%1; add $256, %%rsp"
                         : "+a"(rax)
                         : "c"(at), "D"(regs[0]), "S"(regs[1]), "d"(regs[2]), "r"(r10), "r"(r8), "r"(r9), "b"(rbx_value)
                         : "r11", "memory", "cc");
        result = rax;
    }
    return result;
}

/* A system call by the stub's own instruction. */
__attribute__((unused)) static long host(long nr, long a, long b, long c, long d, long e, long f)
{
    long regs[6] = {a, b, c, d, e, f};
    return go(SYS_CALL_SITE, regs, nr);
}

/* A case in a process of its own, which ends somehow, or is killed after some seconds. */
__attribute__((unused)) static void alone(void (*run)(long), long argument)
{
    int status, i;
    pid_t pid = fork();
    if (pid == 0) {
        seed = (unsigned long)argument * 0x9e3779b97f4a7c15ul + 88172645463325252ul;
        ualarm(200000, 200000);
        catch_all();
        run(argument);
        _exit(0);
    }
    CHECK(pid > 0);
    for (i = 0; i < 3000; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return;
        usleep(1000);
    }
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, &status, 0) == pid);
}

__attribute__((unused)) static void some_calls(void)
{
    int fd = open("/etc/passwd", O_RDONLY), two[2];
    char buffer[64];
    pid_t pid;
    raw6(SYS_getpid, 0, 0, 0, 0, 0, 0);
    mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)!read(fd, buffer, sizeof buffer);
    if (pipe(two) == 0)
        (void)!write(two[1], buffer, 8);
    pid = fork();
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

/* Numbers that mean something to a stub. */
__attribute__((unused)) static const unsigned long values[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 0x1000, 0x1001, 0x1002, 0x1005, 0x7fffffff, 0x80000000,
    0xffffffff, ~0ul, 1ul << 63, STUB_BASE, SHARED_PAGE, RECORDS_BASE, RECORDS_BASE + 0x1000, RECORDS_BASE + RECORD_SIZE,
    0x7fffffffe000, 0x800000000000};

/* The bystander: it counts, and does a little of everything. */
static unsigned long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000;
}

static void bystander(volatile unsigned long *counter)
{
    unsigned long last = now_ms();
    int fd = open("/etc/passwd", O_RDONLY);
    CHECK(fd >= 0);
    for (;;) {
        char buffer[16];
        unsigned long now = now_ms();
        void *map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
        counter[1] = now - last > counter[1] ? now - last : counter[1];
        last = now;
        CHECK(map != MAP_FAILED && *(char *)map);
        CHECK(munmap(map, 4096) == 0);
        CHECK(pread(fd, buffer, 4, 0) == 4);
        if (++*counter % 64 == 0) {
            int status;
            pid_t pid = fork();
            if (pid == 0)
                _exit(3);
            CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 3);
        }
        usleep(1000);
    }
}

static int attack_stub(const struct attack *attacks, int argc, char **argv)
{
    volatile unsigned long *counter;
    unsigned long before;
    int status, code, i;
    pid_t pid;
    if (argc == 2 && strcmp(argv[1], "again") == 0)
        return 0;
    counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid = fork();
    if (pid == 0)
        bystander(counter);
    CHECK(pid > 0);
    code = run_attack(attacks, argc, argv);
    before = *counter;
    for (i = 0; i < 30000 && *counter < before + 100; i++)
        usleep(1000);
    CHECK(before > 0 && *counter >= before + 100);
    printf("longest pause: %lu ms\n", counter[1]);
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return code;
}
