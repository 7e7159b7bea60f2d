/* Attacks on the stub of the `trap` platform, from inside its own address space: the guest uses the stub's system call
 * instructions, writes over its code, forges its records, and ends its threads behind the Sentry's back.
 *
 * While an attack runs, another process counts, forks and maps files; it must never notice. */
#include "hostile.h"
#include "../../../csrc/abi/stub.h"

#include <setjmp.h>
#include <ucontext.h>

#define RECORD_STATE 0x00
#define SYS_CALL_SITE (STUB_BASE + STUB_SYSCALL_OFFSET)

static unsigned long seed = 1;
static unsigned long rnd(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}

static unsigned long record_here(void)
{
    unsigned long gs;
    __asm__ volatile("rdgsbase %0" : "=r"(gs));
    return gs;
}

static __thread sigjmp_buf back;
static __thread long result;

static void on_fault(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)info;
    result = signo == SIGTRAP ? (long)uc->uc_mcontext.gregs[REG_RAX] : -1000 - signo;
    siglongjmp(back, 1);
}

static void catch_all(void)
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
static long go(unsigned long at, const long regs[6], long rax)
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
static long host(long nr, long a, long b, long c, long d, long e, long f)
{
    long regs[6] = {a, b, c, d, e, f};
    return go(SYS_CALL_SITE, regs, nr);
}

/* A case in a process of its own, which ends somehow, or is killed after some seconds. */
static void alone(void (*run)(long), long argument)
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

static void some_calls(void)
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

/* The stub's code. */

static void scribble_one(long i)
{
    static const unsigned char with[] = {0xcc, 0x90, 0xc3, 0x00, 0xf4, 0x0f};
    unsigned char *stub = (unsigned char *)STUB_BASE;
    if (host(SYS_mprotect, STUB_BASE, STUB_SIZE, 7, 0, 0, 0) != 0) {
        printf("the stub can't be written\n");
        return;
    }
    if (i < 6) {
        memset(stub, with[i], STUB_SIZE);
    } else if (i == 6) { /* jmp . */
        for (int k = 0; k < STUB_SIZE; k += 2)
            stub[k] = 0xeb, stub[k + 1] = 0xfe;
    } else if (i == 7) { /* every call's number becomes another's */
        for (int k = 0; k < STUB_SIZE; k++)
            if (stub[k] == 0xb8)
                stub[k + 1] ^= 1;
    } else {
        for (int k = 0; k < 64; k++)
            stub[rnd() % STUB_SIZE] = (unsigned char)rnd();
    }
    some_calls();
}

static void scribble(void)
{
    for (long i = 0; i < 24; i++)
        alone(scribble_one, i);
}

/* One thread's stub is overwritten while another is in the Sentry's hands. */
static void *write_over(void *fill)
{
    catch_all();
    usleep(1000);
    if (host(SYS_mprotect, STUB_BASE, STUB_SIZE, 7, 0, 0, 0) == 0)
        memset((void *)STUB_BASE, (int)(long)fill, STUB_SIZE);
    for (;;)
        ;
    return NULL;
}

static void scribble_race_one(long i)
{
    pthread_t thread;
    pthread_create(&thread, NULL, write_over, (void *)(i % 2 ? 0xccl : 0x90l));
    for (;;)
        some_calls();
}

static void scribble_race(void)
{
    for (long i = 0; i < 4; i++)
        alone(scribble_race_one, i);
}

static void unmap_one(long i)
{
    unsigned long record = record_here();
    switch (i) {
    case 0: host(SYS_munmap, STUB_BASE, STUB_SIZE, 0, 0, 0, 0); break;
    case 1: host(SYS_munmap, (long)record, RECORD_SIZE, 0, 0, 0, 0); break;
    case 2: host(SYS_munmap, SHARED_PAGE, 4096, 0, 0, 0, 0); break;
    case 3: host(SYS_munmap, STUB_BASE, STUB_TASK_END - STUB_BASE, 0, 0, 0, 0); break;
    case 4: host(SYS_munmap, 0, STUB_TASK_END, 0, 0, 0, 0); break;
    case 5: host(SYS_munmap, (long)record, 4096, 0, 0, 0, 0); break;
    case 6: host(SYS_munmap, (long)record + RECORD_SIZE / 2, RECORD_SIZE / 2, 0, 0, 0, 0); break;
    case 7: host(SYS_munmap, (long)record + 0x1000, 0xf000, 0, 0, 0, 0); break;
    case 8: host(SYS_mprotect, (long)record, RECORD_SIZE, 0, 0, 0, 0); break;
    case 9: host(SYS_mprotect, (long)record, RECORD_SIZE, 1, 0, 0, 0); break;
    case 10: host(SYS_mprotect, STUB_BASE, STUB_SIZE, 0, 0, 0, 0); break;
    case 11: host(SYS_mprotect, STUB_BASE, STUB_SIZE, 3, 0, 0, 0); break;
    case 12: /* memory of its own where the record was: nobody hears it any more */
        host(SYS_mmap, (long)record, RECORD_SIZE, 3, 0x32, -1, 0);
        break;
    case 13: host(SYS_mmap, SHARED_PAGE, 4096, 3, 0x32, -1, 0); break;
    case 14: host(SYS_mmap, STUB_BASE, STUB_SIZE, 7, 0x32, -1, 0); break;
    case 15: { /* an alternate stack of its own: the next signal's record is what it makes of it */
        static char stack[0x40000] __attribute__((aligned(0x20000)));
        stack_t alt = {.ss_sp = stack + 0x1000, .ss_size = 0xf000};
        host(SYS_sigaltstack, (long)&alt, 0, 0, 0, 0, 0);
        break;
    }
    default: { /* none: signals arrive on the guest's stack */
        stack_t alt = {.ss_flags = SS_DISABLE};
        host(SYS_sigaltstack, (long)&alt, 0, 0, 0, 0, 0);
    }
    }
    some_calls();
}

static void unmap(void)
{
    for (long i = 0; i < 17; i++)
        alone(unmap_one, i);
}

static void advise_one(long advice)
{
    unsigned long places[] = {record_here(), SHARED_PAGE, STUB_BASE, RECORDS_BASE, (unsigned long)&advice & -4096ul};
    int fd = open("/etc/passwd", O_RDONLY);
    char *file = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    char before = *file;
    for (size_t i = 0; i < 4; i++)
        host(SYS_madvise, (long)places[i], i ? 4096 : RECORD_SIZE, advice, 0, 0, 0);
    host(SYS_madvise, (long)file, 4096, advice, 0, 0, 0);
    CHECK(host(SYS_mprotect, (long)file, 4096, 3, 0, 0, 0) != 0);
    CHECK(*file == before);
    some_calls();
    if (fork() == 0)
        some_calls();
}

static void advise(void)
{
    for (long advice = 0; advice < 27; advice++)
        alone(advise_one, advice);
    for (long advice = 100; advice < 104; advice++)
        alone(advise_one, advice);
}

/* What the Sentry has to order first. */
static void unordered_one(long i)
{
    unsigned long record = record_here();
    switch (i) {
    case 0: host(SYS_mremap, (long)record, RECORD_SIZE, 2 * RECORD_SIZE, 1, 0, 0); break;
    case 1: host(SYS_mremap, (long)record, RECORD_SIZE, RECORD_SIZE, 3, 0x10000000, 0); break;
    case 2: host(SYS_mremap, (long)record, 0, RECORD_SIZE, 3, 0x10000000, 0); break;
    case 3: host(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0); break;
    case 4: host(SYS_clone, 0x8000 | SIGCHLD, 0, 0, 0, 0, 0); break;
    case 5: host(SYS_clone, 0x108000 | SIGCHLD, 0, (long)record + 0x74, 0, 0, 0); break;
    case 6: host(SYS_clone, 0x10000000 | SIGCHLD, 0, 0, 0, 0, 0); break;
    case 7: host(SYS_mmap, (long)record, RECORD_SIZE, 3, 0x11, 5, 0); break;
    case 8: host(SYS_mmap, RECORDS_BASE, RECORD_SIZE, 3, 0x11, 5, 0); break;
    case 9: host(SYS_mmap, 0x10000000, 4096, 3, 0x11, 0, 0); break;
    case 10: host(SYS_close, 0xfffffff0, 0, 0, 0, 0, 0); CHECK(result == -EPERM); break;
    default: host(SYS_mmap, 0x10000000, 4096, 3, 0x1, 5, 0);
    }
    CHECK(result < 0);
    some_calls();
}

static void unordered(void)
{
    for (long i = 0; i < 12; i++)
        alone(unordered_one, i);
}

static void *one_kind(void *kind)
{
    catch_all();
    for (;;)
        if (kind)
            host(SYS_mremap, (long)record_here(), RECORD_SIZE, 2 * RECORD_SIZE, 1, 0, 0);
        else
            host(SYS_close, 0xfffffff0, 0, 0, 0, 0, 0);
}

/* Refused calls in a flood, while an honest thread has to have answers. */
static void flood_one(long i)
{
    pthread_t threads[4];
    for (int k = 0; k < 4; k++)
        pthread_create(&threads[k], NULL, one_kind, (void *)(k % 2 + (i & 0)));
    for (int k = 0; k < 50; k++)
        some_calls();
}

static void flood(void)
{
    for (long i = 0; i < 2; i++)
        alone(flood_one, i);
}

/* Descriptors: the bell, and one that is lent. */

static void bell_one(long i)
{
    static unsigned long counts[] = {1, 0xfffffffffffffffeul, 0xfffffffffffffffful, 0};
    unsigned long end = 0;
    struct timespec now;
    if (i < 4) {
        do {
            for (int k = 0; k < 100; k++)
                host(SYS_write, 0, (long)&counts[i], 8, 0, 0, 0);
            clock_gettime(CLOCK_MONOTONIC, &now);
            if (!end)
                end = (unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000 + 200;
        } while ((unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000 < end);
        some_calls();
        return;
    }
    host(SYS_write, 0, 0, 8, 0, 0, 0);
    host(SYS_write, 0, (long)counts, 1 << 30, 0, 0, 0);
    for (long fd = 1; fd < 64; fd++)
        CHECK(host(SYS_close, fd, 0, 0, 0, 0, 0) == -EBADF);
    host(SYS_close, 0, 0, 0, 0, 0, 0); /* from now on nobody hears it, unless they are awake */
    some_calls();
}

static void bell(void)
{
    for (long i = 0; i < 6; i++)
        alone(bell_one, i);
}

static void *close_all(void *unused)
{
    (void)unused;
    catch_all();
    for (;;)
        host(SYS_close, 5, 0, 0, 0, 0, 0);
}

/* The descriptor that is lent for an mmap is closed before the call is made. */
static void lent_one(long i)
{
    pthread_t thread;
    int fd = open("/etc/passwd", O_RDONLY);
    (void)i;
    pthread_create(&thread, NULL, close_all, NULL);
    for (int k = 0; k < 300; k++) {
        mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
        if (k % 30 == 0 && fork() == 0)
            _exit(0);
    }
}

static long lent_maps;

/* While a file that may only be read is lent, nobody gets it writable. */
static void *map_lent(void *kind)
{
    catch_all();
    for (;;) {
        char *at = (char *)0x10000000;
        if (host(SYS_mmap, (long)at, 4096, 3, 0x11, 5, 0) == (long)at) {
            CHECK(kind); /* a record of a child's */
            memset(at, 0xff, 4096);
            lent_maps++;
        }
        if (!kind && host(SYS_mmap, (long)at, 4096, 1, 0x11, 5, 0) == (long)at) {
            CHECK(host(SYS_mprotect, (long)at, 4096, 3, 0, 0, 0) == -EACCES);
            lent_maps++;
        }
    }
    return NULL;
}

static void lent_map_one(long kind)
{
    pthread_t thread;
    int fd = open("/etc/passwd", O_RDONLY);
    pthread_create(&thread, NULL, map_lent, (void *)kind);
    for (int k = 0; k < 100000 && lent_maps < 20; k++) {
        if (!kind)
            mmap((void *)0x20000000, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
        else if (fork() == 0)
            _exit(0);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}

static void lent(void)
{
    alone(lent_one, 0);
    alone(lent_map_one, 0);
    alone(lent_map_one, 1);
}

/* Records. */

static const unsigned long values[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 0x1000, 0x1001, 0x1002, 0x1005, 0x7fffffff, 0x80000000,
    0xffffffff, ~0ul, 1ul << 63, STUB_BASE, SHARED_PAGE, RECORDS_BASE, RECORDS_BASE + 0x1000, RECORDS_BASE + RECORD_SIZE,
    0x7fffffffe000, 0x800000000000};

static void forge_somewhere(unsigned long record)
{
    unsigned long at = rnd() % 4 ? (rnd() % 0x28) * 4 : 0x160 + (rnd() % 0x40) * 4;
    unsigned long value = rnd() % 3 ? values[rnd() % (sizeof values / sizeof *values)] : rnd();
    if (rnd() % 16 == 0)
        at = 0x1000 + rnd() % (RECORD_SIZE - 0x1000) / 8 * 8;
    *(volatile unsigned int *)(record + at) = (unsigned int)value;
}

struct victim {
    unsigned long record;
    int kind;
};

static void *forger(void *argument)
{
    struct victim *victim = argument;
    for (;;) {
        if (victim->kind == 0)
            forge_somewhere(victim->record);
        else if (victim->kind == 1) /* the state alone */
            *(volatile unsigned int *)(victim->record + RECORD_STATE) = (unsigned int)(rnd() % 6);
        else if (victim->kind == 2) /* always trapped */
            *(volatile unsigned int *)(victim->record + RECORD_STATE) = 1;
        else if (victim->kind == 3) /* always done */
            *(volatile unsigned int *)(victim->record + RECORD_STATE) = 3;
        else if (victim->kind == 4) /* the kinds of traps, with faults of all numbers */
            for (unsigned long at = 0x10; at < 0x40; at += 4)
                *(volatile unsigned int *)(victim->record + at) = (unsigned int)(rnd() % 70) - 3;
        else /* frames that lie */
            *(volatile unsigned long *)(victim->record + 0x18) = victim->record + rnd() % RECORD_SIZE;
        for (unsigned long i = rnd() % 2000; i; i--)
            __asm__ volatile("");
    }
}

static void forge_one(long i)
{
    struct victim victim = {record_here(), (int)(i % 6)};
    pthread_t thread;
    pthread_create(&thread, NULL, forger, &victim);
    for (;;)
        some_calls();
}

static void forge(void)
{
    for (long i = 0; i < 18; i++)
        alone(forge_one, i);
}

/* Its own record, and then a call. */
static void forge_own_one(long i)
{
    unsigned long record = record_here();
    for (int k = 0; k < 2000; k++) {
        unsigned long before = *(unsigned long *)(record + 0x20);
        for (unsigned long n = 1 + rnd() % 4; n; n--)
            forge_somewhere(record);
        if (k % 2)
            *(unsigned long *)(record + 0x20) = before;
        raw6((long[]){SYS_getpid, SYS_close, SYS_lseek, SYS_rt_sigprocmask}[rnd() % 4], 77, 0, 0, 8, 0, 0);
        if (i % 4 == 0 && rnd() % 16 == 0 && raw6(SYS_fork, 0, 0, 0, 0, 0, 0) == 0)
            raw6(SYS_exit_group, 0, 0, 0, 0, 0, 0);
    }
}

static void forge_own(void)
{
    for (long i = 0; i < 24; i++)
        alone(forge_own_one, i);
}

static void futex_one(long i)
{
    unsigned long record = record_here();
    static struct timespec soon = {0, 1000000};
    pid_t pid;
    for (int k = 0; k < 200; k++)
        for (long at = 0; at < 0x80; at += 4) {
            static const long operations[] = {0, 1, 3, 4, 5, 9, 10};
            long operation = operations[rnd() % 7] | (rnd() % 2 ? 128 : 0);
            long command = operation & 127;
            long value = command == 0 || command == 9 ? *(int *)(record + (unsigned long)at) : (long)(rnd() % 3);
            host(SYS_futex, (long)record + at, operation, value, command == 0 || command == 9 ? (long)&soon : 1,
                 (long)record + 4 * (long)(rnd() % 16), -1);
            if (rnd() % 64 == 0)
                raw6(SYS_getpid, 0, 0, 0, 0, 0, 0);
        }
    pid = i ? fork() : -1;
    if (pid == 0)
        some_calls();
}

static void *futex_waker(void *argument)
{
    catch_all();
    for (;;) {
        host(SYS_futex, (long)argument, 1, 100, 0, 0, 0);
        host(SYS_futex, (long)argument, 3, 0, 100, (long)argument + 0x40, 0);
    }
}

static void futex_race_one(long i)
{
    pthread_t thread;
    (void)i;
    pthread_create(&thread, NULL, futex_waker, (void *)record_here());
    for (;;)
        some_calls();
}

static void futexes(void)
{
    for (long i = 0; i < 3; i++)
        alone(futex_one, i);
    alone(futex_race_one, 0);
}

/* Frames that the kernel did not make, through the stub's own rt_sigreturn. */
static void frame_one(long i)
{
    static char area[65536] __attribute__((aligned(4096)));
    ucontext_t *uc = (ucontext_t *)(area + 32768);
    greg_t *g = uc->uc_mcontext.gregs;
    unsigned long record = record_here();
    unsigned long rips[] = {(unsigned long)&&spin, STUB_BASE, STUB_BASE + 32, STUB_BASE + 40, STUB_BASE + 48,
                            STUB_BASE + 0x100 + rnd() % 0xf00, 0, record, 1ul << 63, (unsigned long)&&calls};
    g[REG_RIP] = (greg_t)rips[i % 10];
    g[REG_RSP] = (greg_t)(i % 3 == 0 ? record + 0x8000 : i % 3 == 1 ? (unsigned long)area + 16384 : record + RECORD_SIZE);
    g[REG_EFL] = i % 4 == 3 ? (greg_t)rnd() : 0x202;
    g[REG_RBX] = (greg_t)record;
    g[REG_CSGSFS] = i % 7 == 6 ? 0x2b000000000023l : 0x2b000000000033l;
    memset(&uc->uc_sigmask, i % 2 ? 0xff : 0, 8); /* the kick is masked */
    __asm__ volatile("mov %0, %%rsp; mov $15, %%eax; jmp *%1" ::"r"(uc), "r"(SYS_CALL_SITE) : "memory");
calls:
    some_calls();
spin:
    for (;;)
        ;
}

static void frames(void)
{
    for (long i = 0; i < 20; i++)
        alone(frame_one, i);
}

/* Threads that end themselves. */
static void *end_alone(void *unused)
{
    (void)unused;
    host(SYS_exit, 0, 0, 0, 0, 0, 0);
    return NULL;
}

static void *spin_forever(void *unused)
{
    (void)unused;
    for (;;)
        some_calls();
    return NULL;
}

static void ends_one(long i)
{
    pthread_t threads[8];
    for (int k = 0; k < 8; k++)
        pthread_create(&threads[k], NULL, k % 2 ? end_alone : spin_forever, NULL);
    some_calls();
    usleep(20000);
    if (i == 0)
        host(SYS_exit, 0, 0, 0, 0, 0, 0); /* the leader alone */
    if (i == 1)
        host(SYS_exit_group, 7, 0, 0, 0, 0, 0);
    for (int k = 0; k < 8; k += 1)
        pthread_kill(threads[k], SIGUSR2 + 30);
    if (i == 2)
        kill(getpid(), SIGKILL);
    if (i == 3)
        execl("/proc/self/exe", "trap", "again", (char *)NULL);
    for (int k = 0; k < 40; k++) {
        pthread_t more;
        pthread_create(&more, NULL, end_alone, NULL);
    }
    some_calls();
}

static void ends(void)
{
    for (long i = 0; i < 5; i++)
        alone(ends_one, i);
}

/* Anywhere in the stub's text, with registers that mean something there. */
static long interesting(void)
{
    unsigned long record = record_here();
    unsigned long more[] = {record, record + 0x80, record + 0x8000, record + RECORD_SIZE, SYS_munmap, SYS_mremap, SYS_clone,
                            SYS_mmap, SYS_exit, SYS_rt_sigreturn, SYS_futex, 0x32, 0x22, 0x11, RECORD_SIZE};
    return (long)(rnd() % 2 ? more[rnd() % 15] : values[rnd() % (sizeof values / sizeof *values)]);
}

static void jump_one(long i)
{
    const unsigned char *stub = (const unsigned char *)STUB_BASE;
    unsigned long sites[256], count = 0, end = STUB_SIZE;
    while (end > 0 && !stub[end - 1])
        end--;
    for (unsigned long at = 0; at + 1 < end && count < 256; at++)
        if (stub[at] == 0x0f && stub[at + 1] == 0x05)
            sites[count++] = STUB_BASE + at;
    CHECK(count >= 4);
    for (int k = 0; k < 50; k++) {
        unsigned long at = rnd() % 2 ? sites[rnd() % count] : STUB_BASE + rnd() % end;
        long regs[6] = {interesting(), interesting(), interesting(), interesting(), interesting(), interesting()};
        ualarm(200000, 200000);
        go(i == 0 ? SYS_CALL_SITE : at, regs, interesting());
    }
}

static void jumps(void)
{
    const char *given = getenv("SEED"), *times = getenv("TIMES");
    long first = given ? atol(given) : 1;
    for (long i = 0; i < (times ? atol(times) : 150); i++)
        alone(jump_one, first + i);
}

/* Memory that the Sentry does not know of: killed for it, or refused (RLIMIT_DATA). */
static void unknown_memory(void)
{
    const long size = 16l << 20;
    char *at = (char *)0x100000000000;
    catch_all();
    for (int i = 0; i < 64; i++, at += size) {
        long got = host(SYS_mmap, (long)at, size, 3, 0x32, -1, 0);
        if (got == -ENOMEM)
            return;
        CHECK(got == (long)at);
        for (long k = 0; k < size; k += 4096)
            at[k] = 1;
    }
    _exit(99);
}

static const struct attack attacks[] = {
    {"unknown_memory", unknown_memory},
    {"scribble", scribble}, {"scribble_race", scribble_race}, {"unmap", unmap}, {"advise", advise},
    {"unordered", unordered}, {"flood", flood}, {"bell", bell}, {"lent", lent}, {"forge", forge},
    {"forge_own", forge_own}, {"futexes", futexes}, {"frames", frames}, {"ends", ends}, {"jumps", jumps}, {NULL, NULL}};

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

int main(int argc, char **argv)
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
