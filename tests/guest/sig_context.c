/* What a handler finds and leaves: alternate stacks, jumps out, and every register kept over it. */
#include "check.h"

#include <cpuid.h>
#include <pthread.h>
#include <setjmp.h>
#include <ucontext.h>

static char alt[65536] __attribute__((aligned(16)));
static sigjmp_buf back;
static volatile int on_alt, calls;

static bool here_is(const char *base, size_t size)
{
    volatile char local;
    return (const char *)&local >= base && (const char *)&local < base + size;
}

static void where(int signo UNUSED, siginfo_t *info UNUSED, void *context)
{
    ucontext_t *uc = context;
    stack_t now;
    on_alt = here_is(alt, sizeof alt);
    MUST(sigaltstack(NULL, &now));
    say("on the alternate stack %d, flags %d, in context %d", on_alt, now.ss_flags, uc->uc_stack.ss_flags);
    stack_t other = {.ss_sp = alt, .ss_size = sizeof alt};
    SHOW(sigaltstack(&other, NULL));
}

static void alternate(void)
{
    stack_t stack = {.ss_sp = alt, .ss_size = sizeof alt}, old;
    CASE("alternate stack");
    SHOW(sigaltstack(NULL, &old));
    say("flags %d", old.ss_flags);
    SHOW(sigaltstack(&stack, &old));
    SHOW(sigaltstack(NULL, &old));
    SHOW_IF(old.ss_sp == alt && old.ss_size == sizeof alt && old.ss_flags == 0);
    handle_flags(SIGUSR1, where, SA_ONSTACK);
    raise(SIGUSR1);
    handle_flags(SIGUSR1, where, 0);
    raise(SIGUSR1);
    CASE("errors");
    stack.ss_size = 100;
    SHOW(sigaltstack(&stack, NULL));
    stack.ss_flags = 77;
    stack.ss_size = sizeof alt;
    SHOW(sigaltstack(&stack, NULL));
    SHOW(sigaltstack(BAD, NULL));
    SHOW(sigaltstack(NULL, BAD));
    stack.ss_flags = SS_DISABLE;
    SHOW(sigaltstack(&stack, NULL));
    SHOW(sigaltstack(NULL, &old));
    say("flags %d", old.ss_flags);
    CASE("SS_AUTODISARM");
    stack = (stack_t){.ss_sp = alt, .ss_size = sizeof alt, .ss_flags = 1u << 31};
    SHOW(sigaltstack(&stack, NULL));
    handle_flags(SIGUSR1, where, SA_ONSTACK);
    raise(SIGUSR1);
    stack.ss_flags = SS_DISABLE;
    SHOW(sigaltstack(&stack, NULL));
}

static void overflowed(int signo, siginfo_t *info UNUSED, void *context UNUSED)
{
    on_alt = here_is(alt, sizeof alt);
    calls = signo;
    siglongjmp(back, 1);
}

static int deep(int n)
{
    volatile char waste[1024];
    waste[0] = n;
    return n < INT_MAX ? deep(n + 1) + waste[0] : 0;
}

static void overflow(void)
{
    CASE("stack overflow is handled on the alternate stack");
    stack_t stack = {.ss_sp = alt, .ss_size = sizeof alt};
    MUST(sigaltstack(&stack, NULL));
    struct rlimit limit = {1 << 20, 8 << 20};
    MUST(setrlimit(RLIMIT_STACK, &limit));
    handle_flags(SIGSEGV, overflowed, SA_ONSTACK);
    if (sigsetjmp(back, 1) == 0)
        deep(0);
    say("%s on alternate %d", signal_name(calls), on_alt);
    if (sigsetjmp(back, 1) == 0)
        deep(0);
    say("again %s on alternate %d", signal_name(calls), on_alt);
    signal(SIGSEGV, SIG_DFL);
    no_core();
    reap("without a handler", CHILD(deep(0)));
}

static void jump(int signo UNUSED)
{
    calls++;
    siglongjmp(back, calls);
}

static void jumps(void)
{
    CASE("longjmp out of a handler");
    handle_plain(SIGUSR1, jump);
    calls = 0;
    int got = sigsetjmp(back, 1);
    if (got < 3)
        raise(SIGUSR1);
    say("jumped %d times", got);
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    SHOW(sigismember(&mask, SIGUSR1));
}

static void scribble(int signo UNUSED)
{
    /* Overwrite what the interrupted code holds in vector registers. */
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm7, %%xmm7; pcmpeqd %%xmm15, %%xmm15" ::: "xmm0", "xmm7",
                     "xmm15");
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroall" ::: "memory");
    __asm__ volatile("fninit; fld1; fldpi" ::: "st");
    unsigned control = 0x1f80 | 0x6000;
    __asm__ volatile("ldmxcsr %0" ::"m"(control));
    calls++;
}

static void vectors(void)
{
    CASE("vector registers");
    handle_plain(SIGUSR1, scribble);
    calls = 0;
    uint64_t in[4] __attribute__((aligned(32))) = {1, 2, 3, 4}, out[4] __attribute__((aligned(32))) = {0};
    long pid = getpid(), tid = gettid();
    __asm__ volatile("movdqa %1, %%xmm7\n\tmov %2, %%eax\n\tmov %3, %%rdi\n\tmov %4, %%rsi\n\tmov %5, %%edx\n\tsyscall\n\t"
                     "movdqa %%xmm7, %0"
                     : "=m"(*(char(*)[16])out)
                     : "m"(*(char(*)[16])in), "i"(SYS_tgkill), "r"(pid), "r"(tid), "i"(SIGUSR1)
                     : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "xmm7", "memory");
    say("xmm %lu %lu, calls %d", out[0], out[1], calls);
    if (__builtin_cpu_supports("avx")) {
        __asm__ volatile(
            "vmovdqa %1, %%ymm9\n\tmov %2, %%eax\n\tmov %3, %%rdi\n\tmov %4, %%rsi\n\tmov %5, %%edx\n\tsyscall\n\t"
            "vmovdqa %%ymm9, %0"
            : "=m"(out)
            : "m"(in), "i"(SYS_tgkill), "r"(pid), "r"(tid), "i"(SIGUSR1)
            : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "xmm9", "memory");
        say("ymm %lu %lu %lu %lu", out[0], out[1], out[2], out[3]);
    }
    long double x87 = 1.25L, result = 0;
    __asm__ volatile("fldt %1\n\tmov %2, %%eax\n\tmov %3, %%rdi\n\tmov %4, %%rsi\n\tmov %5, %%edx\n\tsyscall\n\tfstpt %0"
                     : "=m"(result)
                     : "m"(x87), "i"(SYS_tgkill), "r"(pid), "r"(tid), "i"(SIGUSR1)
                     : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "memory", "st");
    say("x87 %d", result == 1.25L);
    unsigned control;
    __asm__ volatile("stmxcsr %0" : "=m"(control));
    say("mxcsr %#x", control & 0x6000);
}

static volatile int came;
static struct {
    uint64_t xmm[2], ymm[4];
    unsigned mxcsr;
    uint16_t control, status;
} begun;

/* What a handler begins with. */
static void look(int signo, siginfo_t *info UNUSED, void *context)
{
    __asm__ volatile("movdqu %%xmm3, %0\n\tstmxcsr %1\n\tfnstcw %2\n\tfxam\n\tfnstsw %3"
                     : "=m"(begun.xmm), "=m"(begun.mxcsr), "=m"(begun.control), "=m"(begun.status));
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vmovdqu %%ymm3, %0" : "=m"(begun.ymm));
    if (signo == SIGILL)
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
    scribble(signo);
    came = 1;
}

#define BY_FAULT -1l
#define BY_OTHERS -2l

/* Runs into a signal with a state of its own, which has to be the same behind it. */
static void run_into(const char *what, long call, long arg, long signo)
{
    const unsigned mxcsr = 0x5fa0;
    const uint16_t control = 0x27f;
    unsigned mxcsr_after;
    uint16_t control_after;
    uint64_t xmm[2];
    long double top = 0;
    __asm__ volatile("ldmxcsr %[mxcsr]\n\tfninit\n\tfldcw %[control]\n\tfldpi\n\tpcmpeqd %%xmm3, %%xmm3\n\t"
                     "cmp $-1, %%rax\n\tje 1f\n\tcmp $-2, %%rax\n\tje 2f\n\tsyscall\n\tjmp 3f\n"
                     "1:\tud2\n\tjmp 3f\n"
                     "2:\tcmpl $0, %[came]\n\tje 2b\n"
                     "3:\tmovdqu %%xmm3, %[xmm]\n\tstmxcsr %[mxcsr_after]\n\tfnstcw %[control_after]\n\tfstpt %[top]\n\t"
                     "fninit"
                     : "+a"(call), [xmm] "=m"(xmm), [mxcsr_after] "=m"(mxcsr_after), [control_after] "=m"(control_after),
                       [top] "=m"(top)
                     : "D"(arg), "S"(signo), [mxcsr] "m"(mxcsr), [control] "m"(control), [came] "m"(came)
                     : "rcx", "rdx", "r11", "xmm3", "st", "memory");
    const unsigned usual = 0x1f80;
    __asm__ volatile("ldmxcsr %0" ::"m"(usual));
    say("%s: xmm %lx %lx, ymm %lx, mxcsr %#x, x87 control %#x, top %s", what, begun.xmm[0], begun.xmm[1], begun.ymm[3],
        begun.mxcsr, begun.control, (begun.status & 0x4500) == 0x4100 ? "empty" : "full");
    say("behind it: xmm %lx %lx, mxcsr %#x, x87 control %#x, pi %d", xmm[0], xmm[1], mxcsr_after, control_after,
        top > 3.14L && top < 3.15L);
}

/* A handler begins with a fresh FP state, by whatever way the signal has come. */
static void fresh(void)
{
    CASE("the FP state in a handler");
    for (int flags = 0; flags <= SA_ONSTACK; flags += SA_ONSTACK) {
        static char stack[65536];
        stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack, .ss_flags = flags ? 0 : SS_DISABLE};
        MUST(sigaltstack(&alt, NULL));
        struct sigaction action = {.sa_sigaction = look, .sa_flags = SA_SIGINFO | flags};
        MUST(sigaction(SIGUSR1, &action, NULL));
        MUST(sigaction(SIGILL, &action, NULL));
        run_into("tkill", SYS_tkill, syscall(SYS_gettid), SIGUSR1);
        run_into("kill", SYS_kill, getpid(), SIGUSR1);
        run_into("fault", BY_FAULT, 0, 0);
        came = 0;
        pid_t us = getpid(), pid = MUST(fork());
        if (pid == 0) {
            usleep(20000); /* in its loop, most likely; what a handler begins with is the same everywhere */
            kill(us, SIGUSR1);
            _exit(0);
        }
        run_into("another process", BY_OTHERS, 0, 0);
        reap("it", pid);
    }
    MUST(sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL));
}

static void set_registers(int signo UNUSED, siginfo_t *info UNUSED, void *context)
{
    ucontext_t *uc = context;
    uc->uc_mcontext.gregs[REG_R12] = 4242;
    uc->uc_mcontext.gregs[REG_RAX] = 17;
    sigaddset(&uc->uc_sigmask, SIGUSR2);
}

static void registers(void)
{
    CASE("registers changed in the context");
    handle_flags(SIGUSR1, set_registers, 0);
    long r12, rax, kept = 0;
    long pid = getpid(), tid = gettid();
    __asm__ volatile("mov $1, %%r12d\n\tmov $99, %%r13d\n\tmov %3, %%eax\n\tmov %4, %%rdi\n\tmov %5, %%rsi\n\tmov %6, %%edx\n\t"
                     "syscall\n\tmov %%r12, %0\n\tmov %%rax, %1\n\tmov %%r13, %2"
                     : "=&r"(r12), "=&r"(rax), "=&r"(kept)
                     : "i"(SYS_tgkill), "r"(pid), "r"(tid), "i"(SIGUSR1)
                     : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "r12", "r13", "memory");
    say("r12 %ld rax %ld r13 %ld", r12, rax, kept);
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    say("mask from the context %d", sigismember(&mask, SIGUSR2));
    CASE("flags and red zone");
    handle_plain(SIGALRM, scribble);
    struct itimerval often = {{0, 5000}, {0, 5000}}, off = {{0, 0}, {0, 0}};
    calls = 0;
    MUST(setitimer(ITIMER_REAL, &often, NULL));
    long wrong = 0;
    while (calls < 20) {
        long sum;
        __asm__ volatile("movq $5, -64(%%rsp)\n\tmov $1000, %%ecx\n\t1: dec %%ecx\n\tjnz 1b\n\tmov -64(%%rsp), %0"
                         : "=r"(sum)::"rcx", "cc", "memory");
        wrong += sum != 5;
    }
    MUST(setitimer(ITIMER_REAL, &off, NULL));
    say("wrong %ld", wrong);
}

static volatile double shared_sum;

static void *compute(void *arg)
{
    double sum = (long)arg;
    for (int i = 0; i < 200000; i++)
        sum = sum * 1.0000001 + 0.5;
    return (void *)(long)(sum * 1000);
}

static void threads_compute(void)
{
    CASE("floating point in threads under signals");
    struct itimerval often = {{0, 5000}, {0, 5000}}, off = {{0, 0}, {0, 0}};
    long alone = (long)compute((void *)3), both[2];
    MUST(setitimer(ITIMER_REAL, &often, NULL));
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, compute, (void *)3);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], (void **)&both[i]);
    MUST(setitimer(ITIMER_REAL, &off, NULL));
    SHOW_IF(both[0] == alone && both[1] == alone);
}

/* The FP area as a program reads it: a CPU with AMX has more features than a frame. */
static void fp_area(int signo UNUSED, siginfo_t *info UNUSED, void *context)
{
    const char *area = (const char *)((ucontext_t *)context)->uc_mcontext.fpregs;
    struct {
        uint32_t magic1, extended_size;
        uint64_t features;
        uint32_t size;
    } __attribute__((packed)) software;
    uint64_t present;
    uint32_t magic2;
    memcpy(&software, area + 464, sizeof software);
    memcpy(&present, area + 512, sizeof present);
    memcpy(&magic2, area + software.size, sizeof magic2);
    say("FP area: %x, %u of %u bytes, features %" PRIx64 ", then %x", software.magic1, software.size,
        software.extended_size, software.features, magic2);
    SHOW_IF(present & ~software.features);
}

static void sizes(void)
{
    CASE("the FP area");
    handle_flags(SIGUSR1, fp_area, 0);
    raise(SIGUSR1);
    raise(SIGUSR1);
    kill(getpid(), SIGUSR1);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR1);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int main(void)
{
    alternate();
    sizes();
    jumps();
    vectors();
    fresh();
    registers();
    threads_compute();
    overflow();
    return 0;
}
