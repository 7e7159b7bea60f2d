/* Faults: signal, code and address of each; what happens when their signal is blocked, ignored, or has a bad handler. */
#include "check.h"

#include <setjmp.h>
#include <ucontext.h>

static sigjmp_buf back;
static volatile int skip; /* bytes to jump over, or 0: jump out */
static char *page;

static void fault(int signo, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    char *addr = info->si_addr;
    const char *where = addr == NULL ? "null" : addr >= page && addr < page + 4096 ? "the page"
                        : (greg_t)addr == regs[REG_RIP] ? "rip" : (greg_t)addr == regs[REG_RIP] - 1 ? "before rip" : "?";
    say("%s code %d at %s, trap %lld", signal_name(signo), info->si_code, where, (long long)regs[REG_TRAPNO]);
    if (!skip)
        siglongjmp(back, 1);
    regs[REG_RIP] += skip;
}

#define TRY(what, ...)                 \
    do {                               \
        say("-- %s", what);            \
        skip = 0;                      \
        if (sigsetjmp(back, 1) == 0) { \
            __VA_ARGS__;               \
            say("no fault");           \
        }                              \
    } while (0)

static void memory(void)
{
    TRY("read of nothing", (void)*(volatile char *)bad_address);
    TRY("null", *(volatile char *)(bad_address - 8) = 1);
    page = MUST(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) + (char *)0;
    TRY("write to read-only memory", *(volatile char *)(page + 5) = 1);
    mprotect(page, 4096, PROT_NONE);
    TRY("read of PROT_NONE", (void)*(volatile char *)(page + 7));
    TRY("write to PROT_NONE", *(volatile char *)(page + 7) = 1);
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
    page[9] = (char)0xc3;
    TRY("execution of data", ((void (*)(void))(page + 9))());
    munmap(page, 4096);
    TRY("read of what was unmapped", (void)*(volatile char *)(page + 7));
    TRY("a non-canonical address", (void)*(volatile char *)(bad_address | 1ull << 60));
    TRY("a kernel address", (void)*(volatile char *)(bad_address | 0xffff800000000000ull));
    scratch();
    put_file("short", "text", 0600);
    int fd = MUST(open("short", O_RDWR));
    page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    page += 4096;
    TRY("behind the end of a file", (void)*(volatile char *)(page + 3));
    page -= 4096;
    munmap(page, 8192);
    close(fd);
}

static void instructions(void)
{
    page = NULL;
    TRY("ud2", __asm__ volatile("ud2"));
    TRY("hlt", __asm__ volatile("hlt"));
    TRY("int3", __asm__ volatile("int3"));
    TRY("int 0x42", __asm__ volatile("int $0x42"));
    TRY("division by zero", __asm__ volatile("xor %%edx, %%edx; xor %%ecx, %%ecx; mov $1, %%eax; div %%ecx" ::: "eax", "ecx", "edx"));
    TRY("division overflow", __asm__ volatile("mov $0x80000000, %%eax; cltd; mov $-1, %%ecx; idiv %%ecx" ::: "eax", "ecx", "edx"));
    unsigned mxcsr = 0x1f80 & ~0x200u, usual = 0x1f80;
    TRY("SSE division by zero", __asm__ volatile("ldmxcsr %0; pxor %%xmm0, %%xmm0; mov $1, %%eax; cvtsi2sd %%eax, %%xmm1; divsd %%xmm0, %%xmm1" ::"m"(mxcsr) : "eax", "xmm0", "xmm1"));
    __asm__ volatile("ldmxcsr %0" ::"m"(usual));
    mxcsr = 0x1f80 & ~0x80u;
    TRY("SSE invalid", __asm__ volatile("ldmxcsr %0; pxor %%xmm0, %%xmm0; divsd %%xmm0, %%xmm0" ::"m"(mxcsr) : "xmm0"));
    __asm__ volatile("ldmxcsr %0" ::"m"(usual));
    TRY("an unaligned access with AC", __asm__ volatile("pushfq; orl $0x40000, (%%rsp); popfq; mov 1(%%rsp), %%eax" ::: "eax", "memory"));
    __asm__ volatile("pushfq; andl $0xfffbffff, (%%rsp); popfq" ::: "memory", "cc");
    say("-- a step");
    skip = 0;
    if (sigsetjmp(back, 1) == 0)
        __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; nop" ::: "memory", "cc");
}

static void skipped(void)
{
    CASE("handlers that go on behind the instruction");
    skip = 2;
    __asm__ volatile("ud2");
    say("behind");
    skip = 0;
    handle_flags(SIGTRAP, fault, 0);
    if (sigsetjmp(back, 1) == 0)
        __asm__ volatile("int3");
    say("behind");
}

static void crash(void)
{
    *(volatile char *)bad_address = 1;
}

static volatile int depth;

static void faults_again(int signo UNUSED)
{
    say("depth %d", ++depth);
    if (depth < 3)
        crash();
    _exit(9);
}

static void with_nodefer(void)
{
    handle_flags(SIGSEGV, (void (*)(int, siginfo_t *, void *))faults_again, SA_NODEFER);
    crash();
}

static volatile int endless = -1;

static int recurse(int n)
{
    volatile char room[4096];
    room[0] = (char)n;
    if (n == endless)
        return 0;
    return recurse(n + 1) + room[0];
}

static char other_stack[64 << 10];

static void overflowed(int signo, siginfo_t *info, void *context UNUSED)
{
    say("%s code %d", signal_name(signo), info->si_code);
    _exit(3);
}

static void overflow(void)
{
    stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
    MUST(sigaltstack(&stack, NULL));
    handle_flags(SIGSEGV, overflowed, SA_ONSTACK);
    recurse(0);
}

static void fatal(void)
{
    CASE("fatal");
    no_core();
    struct rlimit small = {256 << 10, RLIM_INFINITY};
    reap("default", CHILD(signal(SIGSEGV, SIG_DFL); crash()));
    reap("ignored", CHILD(signal(SIGSEGV, SIG_IGN); crash()));
    reap("blocked", CHILD(sigset_t set = set_of(SIGSEGV); sigprocmask(SIG_BLOCK, &set, NULL); crash()));
    reap("blocked with handler", CHILD(handle_plain(SIGSEGV, faults_again); sigset_t set = set_of(SIGSEGV); sigprocmask(SIG_BLOCK, &set, NULL); crash()));
    reap("fault in the handler", CHILD(handle_plain(SIGSEGV, faults_again); crash()));
    reap("with SA_NODEFER", CHILD(with_nodefer()));
    reap("SA_RESETHAND", CHILD(handle_flags(SIGSEGV, (void (*)(int, siginfo_t *, void *))faults_again, SA_RESETHAND | SA_NODEFER); crash()));
    reap("handler is nowhere", CHILD(handle_plain(SIGUSR1, (void (*)(int))BAD); raise(SIGUSR1)));
    reap("stack overflow", CHILD(setrlimit(RLIMIT_STACK, &small); signal(SIGSEGV, SIG_DFL); recurse(0)));
    reap("stack overflow, handler on the same stack", CHILD(setrlimit(RLIMIT_STACK, &small); handle_plain(SIGSEGV, faults_again); recurse(0)));
    reap("stack overflow, alternate stack", CHILD(setrlimit(RLIMIT_STACK, &small); overflow()));
    reap("no stack at all", CHILD(handle_plain(SIGUSR1, faults_again); signal(SIGSEGV, SIG_DFL);
                                  __asm__ volatile("mov %0, %%edi; mov %1, %%eax; mov $4096, %%esp; mov $10, %%esi; syscall" ::"r"(getpid()), "i"(SYS_kill) : "eax", "edi", "esi", "memory")));
    reap("abort", CHILD(abort()));
    reap("abort, ignored", CHILD(signal(SIGABRT, SIG_IGN); abort()));
    reap("ud2", CHILD(signal(SIGILL, SIG_DFL); __asm__ volatile("ud2")));
    reap("sigreturn of nonsense", CHILD(signal(SIGSEGV, SIG_DFL); memset(other_stack, 0xee, sizeof other_stack);
                                        __asm__ volatile("mov %0, %%rsp; mov $15, %%eax; syscall" ::"r"(other_stack + 1024))));
    reap("sigreturn of nowhere", CHILD(signal(SIGSEGV, SIG_DFL); __asm__ volatile("mov $16, %%esp; mov $15, %%eax; syscall" ::: "memory")));
}

int main(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (int i = 0; i < 5; i++)
        handle_flags(signals[i], fault, SA_NODEFER);
    memory();
    instructions();
    skipped();
    fatal();
    return 0;
}
