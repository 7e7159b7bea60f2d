/* Attacks on records, and with signal frames that the kernel did not make. */
#include "trap.h"

static void forge_somewhere(unsigned long record)
{
    unsigned long at = rnd() % 2   ? rnd() % (offsetof(struct record, regs) / 4) * 4
                       : rnd() % 2 ? offsetof(struct record, regs) + rnd() % (sizeof(struct guest_regs) / 4) * 4
                                   : offsetof(struct record, fp_saved) + rnd() % 0x80 * 4;
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
            fields(victim->record)->state = (unsigned int)(rnd() % (RECORD_PARTING + 2));
        else if (victim->kind == 2) /* always trapped */
            fields(victim->record)->state = RECORD_TRAPPED;
        else if (victim->kind == 3) /* always done */
            fields(victim->record)->state = RECORD_DONE;
        else if (victim->kind == 4) { /* the kinds of traps, with calls and faults of all numbers */
            fields(victim->record)->nr = rnd() & 0x1ff;
            fields(victim->record)->kind = rnd() & 7;
            for (unsigned long at = offsetof(struct record, signo); at < offsetof(struct record, addr); at += 4)
                *(volatile unsigned int *)(victim->record + at) = (unsigned int)(rnd() % 70) - 3;
            for (unsigned long at = offsetof(struct record, in_size); at < offsetof(struct record, sleeping); at += 4)
                *(volatile unsigned int *)(victim->record + at) =
                    (unsigned int)(rnd() % 2 ? rnd() % 70 - 3 : values[rnd() % (sizeof values / sizeof *values)]);
        }
        else /* frames that lie */
            fields(victim->record)->frame = victim->record + rnd() % RECORD_SIZE;
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

/* Results of orders that no host gives: an int that is cut off them is 0, or no errno. */
static void *misreporter(void *argument)
{
    static const long results[] = {(long)0xffffffff00000000, 0x100000000, (long)0x8000000000000000, -4096, (long)0xffffffff80000001,
        0x80000001, 0x7fffffffffffffff, -1};
    struct victim *victim = argument;
    for (unsigned long n = 0;; n++)
        *(volatile long *)(victim->record + offsetof(struct record, result)) = results[victim->kind];
    return NULL;
}

static void results_one(long i)
{
    struct victim victim = {record_here(), (int)(i % 8)};
    struct rusage usage;
    pthread_t thread;
    pthread_create(&thread, NULL, misreporter, &victim);
    for (;;) {
        some_calls();
        getrusage(RUSAGE_THREAD, &usage);
        pthread_create(&thread, NULL, (void *(*)(void *))getpid, NULL);
    }
}

static void results(void)
{
    for (long i = 0; i < 16; i++)
        alone(results_one, i);
}

/* Its own record, and then a call. */
static void forge_own_one(long i)
{
    unsigned long record = record_here();
    for (int k = 0; k < 2000; k++) {
        unsigned long before = fields(record)->self;
        for (unsigned long n = 1 + rnd() % 4; n; n--)
            forge_somewhere(record);
        if (k % 2)
            fields(record)->self = before;
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

/* It says that the host has refused what it was let go with, or changes what that was, and tells of signal actions that
 * nobody would take. */
static void refused_one(long i)
{
    unsigned long record = record_here();
    for (int k = 0; k < 50; k++) {
        long at = raw6(SYS_mmap, 0, 0x4000, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        raw6(SYS_mprotect, at, 0x2000, (long)(rnd() % 4), 0, 0, 0);
        raw6(SYS_brk, raw6(SYS_brk, 0, 0, 0, 0, 0, 0) + 0x3000, 0, 0, 0, 0, 0);
        for (unsigned long word = offsetof(struct record, actions_known); word < sizeof(struct record); word += 8)
            *(volatile unsigned long *)(record + word) = rnd();
        raw6(SYS_kill, raw6(SYS_getpid, 0, 0, 0, 0, 0, 0), SIGWINCH, 0, 0, 0, 0);
        raw6(SYS_munmap, at, 0x1000, 0, 0, 0, 0);
        if (i % 2) {
            fields(record)->last_lends = (unsigned int)rnd() % 3;
            fields(record)->state = RECORD_PARTING;
            raw6(SYS_close, 77, 0, 0, 0, 0, 0);
        }
    }
    fields(record)->last_result = -12;
    fields(record)->kind = ENGINE_REFUSED;
    raw6(SYS_mmap, 0, 0x4000, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fields(record)->kind = ENGINE_REFUSED;
    fields(record)->state = RECORD_TRAPPED;
    for (;;)
        some_calls();
}

static void refused(void)
{
    for (long i = 0; i < 4; i++)
        alone(refused_one, i);
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

/* The program's own rt_sigreturn, which the stub answers: frames with every part wrong in turn. */
static void return_one(long i)
{
    static char area[65536] __attribute__((aligned(4096)));
    unsigned long record = record_here();
    ucontext_t *volatile uc = (ucontext_t *)(area + 32768);
    volatile int times = 0;
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL); /* with one, it would be the Sentry who answers */
    for (int k = 0; k < 400; k++) {
        unsigned *fp = (unsigned *)(area + 40960);
        times = 0;
        getcontext(uc);
        if (times++) {
            some_calls();
            continue;
        }
        uc->uc_flags = 7;
        uc->uc_stack.ss_flags = SS_DISABLE;
        memset(fp, 0, 4096);
        fp[6] = 0x1f80, fp[116] = 0x46505853, fp[117] = 4096, fp[118] = 7, fp[120] = (unsigned)(i % 2 ? 832 : 2696);
        fp[128] = 7;
        for (unsigned long n = rnd() % 4; n; n--)
            fp[(unsigned long[]){6, 116, 117, 118, 120, 128, 129, 130, 131, 133, 140}[rnd() % 11]] = (unsigned)rnd();
        uc->uc_mcontext.fpregs = (void *)fp;
        if (rnd() % 8 == 0)
            uc->uc_mcontext.fpregs = (void *)values[rnd() % (sizeof values / sizeof *values)];
        if (rnd() % 8 == 0)
            uc->uc_mcontext.gregs[REG_EFL] = (greg_t)rnd();
        if (rnd() % 16 == 0)
            uc->uc_mcontext.gregs[rnd() % 17] = (greg_t)values[rnd() % (sizeof values / sizeof *values)];
        if (rnd() % 16 == 0)
            fields(record)->frame = record + rnd() % RECORD_SIZE;
        if (rnd() % 4 == 0)
            memset(&uc->uc_sigmask, (int)rnd(), 8);
        __asm__ volatile("mov %0, %%rsp; mov $15, %%eax; syscall" ::"r"(uc) : "memory");
    }
}

static void returns(void)
{
    for (long i = 0; i < 60; i++)
        alone(return_one, i);
}

static const struct attack attacks[] = {
    {"forge", forge}, {"forge_own", forge_own}, {"results", results}, {"futexes", futexes}, {"frames", frames},
    {"returns", returns}, {"refused", refused}, {NULL, NULL}};

int main(int argc, char **argv) { return attack_stub(attacks, argc, argv); }
