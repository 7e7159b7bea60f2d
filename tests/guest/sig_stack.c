/* Alternate stacks, flags of sigaction(2), and what handlers may change and how they may leave.
 *
 * FLAGS: -fno-omit-frame-pointer -rdynamic */
#include "check.h"

#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <ucontext.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif
#define KERNEL_SA_UNSUPPORTED 0x400
#define KERNEL_SA_EXPOSE_TAGBITS 0x800

static char area[64 << 10], second[64 << 10];
static sigjmp_buf back;

static void show_stack(const char *what)
{
    stack_t now;
    MUST(sigaltstack(NULL, &now));
    say("%s: flags %#x size %zu %s", what, now.ss_flags, now.ss_size,
        now.ss_sp == area ? "first" : now.ss_sp == second ? "second" : now.ss_sp ? "?" : "none");
}

static bool on(const char *stack)
{
    char here;
    return &here >= stack && &here < stack + sizeof area;
}

static void where(int signo UNUSED)
{
    say("on the first %d, on the second %d", on(area), on(second));
    show_stack("inside");
    stack_t other = {.ss_sp = second, .ss_size = sizeof second};
    SHOW(sigaltstack(&other, NULL));
}

static void nested(int signo)
{
    where(signo);
    if (signo == SIGUSR1)
        raise(SIGUSR2);
}

static void stacks(void)
{
    stack_t stack = {.ss_sp = area, .ss_size = sizeof area}, old;
    CASE("errors");
    show_stack("at first");
    SHOW(sigaltstack(BAD, NULL));
    SHOW(sigaltstack(NULL, BAD));
    stack.ss_size = 100;
    SHOW(sigaltstack(&stack, NULL));
    stack.ss_size = 2047;
    SHOW(sigaltstack(&stack, NULL));
    stack.ss_size = 2048;
    SHOW(sigaltstack(&stack, NULL));
    stack.ss_size = 0;
    SHOW(sigaltstack(&stack, NULL));
    stack.ss_size = sizeof area;
    for (unsigned flags = 0; flags < 8; flags++) {
        stack.ss_flags = flags;
        errno = 0;
        int result = sigaltstack(&stack, NULL);
        say("flags %u: %d %s", flags, result, error_name(errno));
    }
    stack.ss_flags = 1 << 30;
    SHOW(sigaltstack(&stack, NULL));
    stack.ss_flags = SS_DISABLE;
    stack.ss_size = 1;
    SHOW(sigaltstack(&stack, NULL));
    show_stack("disabled");
    CASE("use");
    stack = (stack_t){.ss_sp = area, .ss_size = sizeof area};
    SHOW(sigaltstack(&stack, &old));
    say("old flags %d", old.ss_flags);
    show_stack("set");
    struct sigaction action = {.sa_handler = nested, .sa_flags = SA_ONSTACK | SA_NODEFER};
    MUST(sigaction(SIGUSR1, &action, NULL));
    MUST(sigaction(SIGUSR2, &action, NULL));
    raise(SIGUSR1);
    show_stack("after");
    action.sa_flags = 0;
    MUST(sigaction(SIGUSR2, &action, NULL));
    raise(SIGUSR2);
    show_stack("changed without");
    CASE("SS_AUTODISARM");
    stack = (stack_t){.ss_sp = area, .ss_size = sizeof area, .ss_flags = (int)SS_AUTODISARM};
    SHOW(sigaltstack(&stack, NULL));
    show_stack("set");
    action.sa_flags = SA_ONSTACK;
    MUST(sigaction(SIGUSR2, &action, NULL));
    raise(SIGUSR2);
    show_stack("restored");
    CASE("inherited");
    reap("child", CHILD(show_stack("child")));
    stack = (stack_t){.ss_flags = SS_DISABLE};
    SHOW(sigaltstack(&stack, NULL));
}

static void *thread_stack(void *unused)
{
    show_stack("a thread");
    return unused;
}

static void left(int signo UNUSED)
{
    siglongjmp(back, 7);
}

static void leaving(void)
{
    CASE("leaving by siglongjmp");
    struct sigaction action = {.sa_handler = left, .sa_flags = SA_ONSTACK};
    stack_t stack = {.ss_sp = area, .ss_size = sizeof area};
    MUST(sigaltstack(&stack, NULL));
    MUST(sigaction(SIGUSR1, &action, NULL));
    for (int i = 0; i < 3; i++) {
        int came = sigsetjmp(back, 1);
        if (!came)
            raise(SIGUSR1);
        sigset_t now;
        sigprocmask(SIG_BLOCK, NULL, &now);
        say("came %d, blocked %d", came, sigismember(&now, SIGUSR1));
        show_stack("left");
    }
    stack.ss_flags = SS_DISABLE;
    MUST(sigaltstack(&stack, NULL));
}

static void flags(void)
{
    struct kernel_action {
        void *handler;
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } action = {.handler = SIG_IGN}, old;
    CASE("flags that the kernel knows");
    for (int bit = 0; bit < 40; bit++) {
        action.flags = 1ul << bit;
        MUST(syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, 8));
        MUST(syscall(SYS_rt_sigaction, SIGUSR1, NULL, &old, 8));
        if (old.flags)
            say("bit %d: %#lx", bit, old.flags);
    }
    action.flags = KERNEL_SA_UNSUPPORTED | KERNEL_SA_EXPOSE_TAGBITS;
    MUST(syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, 8));
    MUST(syscall(SYS_rt_sigaction, SIGUSR1, NULL, &old, 8));
    say("%#lx", old.flags);
    action = (struct kernel_action){.handler = SIG_DFL, .mask = ~0ull};
    MUST(syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, 8));
    MUST(syscall(SYS_rt_sigaction, SIGUSR1, NULL, &old, 8));
    say("mask %#llx", (unsigned long long)old.mask);
    SHOW(syscall(SYS_rt_sigaction, SIGKILL, &action, NULL, 8));
    SHOW(syscall(SYS_rt_sigaction, SIGKILL, NULL, &old, 8));
    SHOW(syscall(SYS_rt_sigaction, SIGSTOP, &action, NULL, 8));
    SHOW(syscall(SYS_rt_sigaction, 0, NULL, &old, 8));
    SHOW(syscall(SYS_rt_sigaction, 65, NULL, &old, 8));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, NULL, &old, 4));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, BAD, NULL, 8));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, NULL, BAD, 8));
    SHOW(syscall(SYS_rt_sigprocmask, 7, &action.mask, NULL, 8));
    SHOW(syscall(SYS_rt_sigprocmask, 7, NULL, NULL, 8));
    SHOW(syscall(SYS_rt_sigprocmask, 0, BAD, NULL, 8));
    SHOW(syscall(SYS_rt_sigprocmask, 0, NULL, BAD, 8));
    SHOW(syscall(SYS_rt_sigprocmask, 0, NULL, NULL, 16));
    SHOW(syscall(SYS_rt_sigpending, &old, 9));
    SHOW(syscall(SYS_rt_sigpending, &old, 4));
    SHOW(syscall(SYS_rt_sigpending, BAD, 8));
    SHOW(syscall(SYS_rt_sigsuspend, BAD, 8));
    SHOW(syscall(SYS_rt_sigsuspend, &old, 4));
    SHOW(syscall(SYS_rt_sigtimedwait, BAD, NULL, NULL, 8));
    SHOW(syscall(SYS_rt_sigtimedwait, &old, NULL, BAD, 8));
    SHOW(syscall(SYS_rt_sigtimedwait, &old, NULL, NULL, 7));
    struct timespec bad = {0, -1}, none = {0, 0};
    uint64_t set = 1;
    SHOW(syscall(SYS_rt_sigtimedwait, &set, NULL, &bad, 8));
    SHOW(syscall(SYS_rt_sigtimedwait, &set, NULL, &none, 8));
}

static void set_rax(int signo UNUSED, siginfo_t *info UNUSED, void *context)
{
    ucontext_t *u = context;
    u->uc_mcontext.gregs[REG_RBX] = 1234;
    u->uc_mcontext.gregs[REG_R12] += 5;
    u->uc_mcontext.gregs[REG_EFL] |= 1; /* carry */
    u->uc_mcontext.fpregs->_xmm[3].element[0] = 77;
    sigaddset(&u->uc_sigmask, SIGHUP);
}

static void changes(void)
{
    long rbx, r12, carry, xmm;
    CASE("registers and mask that a handler changes");
    handle_flags(SIGUSR1, set_rax, 0);
    __asm__ volatile("mov $1, %%rbx; mov $2, %%r12; pxor %%xmm3, %%xmm3; clc\n\t"
                     "mov %4, %%edi; mov $10, %%esi; mov $62, %%eax; syscall\n\t"
                     "setc %%al; movzbl %%al, %%eax; mov %%rax, %2; movq %%xmm3, %3; mov %%rbx, %0; mov %%r12, %1"
                     : "=m"(rbx), "=m"(r12), "=m"(carry), "=m"(xmm)
                     : "r"(getpid())
                     : "rax", "rbx", "rcx", "r11", "r12", "rdi", "rsi", "xmm3", "memory", "cc");
    say("rbx %ld r12 %ld carry %ld xmm3 %ld", rbx, r12, carry, xmm);
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    say("SIGHUP blocked %d", sigismember(&now, SIGHUP));
}

static volatile int found;

static void unwind(int signo UNUSED)
{
    void *frames[64];
    int count = backtrace(frames, 64);
    char **names = backtrace_symbols(frames, count);
    for (int i = 0; i < count; i++)
        if (strstr(names[i], "(main+") || strstr(names[i], "(inner_function+"))
            found++;
    free(names);
}

__attribute__((noinline)) void inner_function(void)
{
    raise(SIGUSR1);
    __asm__ volatile("");
}

static void unwinding(void)
{
    CASE("unwinding through the frame");
    handle_plain(SIGUSR1, unwind);
    inner_function();
    SHOW((int)found);
    found = 0;
    handle_plain(SIGILL, unwind);
}

static volatile sig_atomic_t switched;
static ucontext_t main_context, handler_context;

static void other_context(void)
{
    switched++;
    setcontext(&main_context);
}

static void switching(void)
{
    CASE("contexts");
    getcontext(&handler_context);
    handler_context.uc_stack.ss_sp = second;
    handler_context.uc_stack.ss_size = sizeof second;
    makecontext(&handler_context, other_context, 0);
    swapcontext(&main_context, &handler_context);
    SHOW((int)switched);
}

int main(void)
{
    stacks();
    pthread_t thread;
    pthread_create(&thread, NULL, thread_stack, NULL);
    pthread_join(thread, NULL);
    leaving();
    flags();
    changes();
    unwinding();
    switching();
    return 0;
}
