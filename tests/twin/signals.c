/* Signals that a process sends to itself, at random: who gets them, when, what the handler sees, what comes back.
 *
 *   signals SEED STEPS
 *
 * Prints what is the same for each kernel that gives right answers.  The process has a second thread, which does one
 * thing at a time, when it is told. */
#include "../guest/check.h"

#include <pthread.h>
#include <ucontext.h>

#define COUNT(array) ((uint32_t)(sizeof(array) / sizeof(array)[0]))
#define MORE 6 /* nested sends a step */
#define KERNEL_SET 8

static uint64_t state;

static uint32_t pick(uint32_t limit)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % limit;
}

static const int signals[] = {SIGUSR1, SIGUSR2, SIGURG, SIGWINCH, SIGHUP, SIGTERM, SIGALRM, 40, 64};
static char altstack[2][65536];

static int any_signal(void)
{
    return signals[pick(COUNT(signals))];
}

static uint64_t any_mask(void)
{
    uint64_t mask = 0;
    for (uint32_t i = pick(4); i; i--)
        mask |= 1ull << (any_signal() - 1);
    return pick(8) ? mask : ~mask;
}

static bool second(void)
{
    return gettid() != getpid();
}

/* What the handlers have seen in this step. */
static struct {
    char text[160];
} seen[64];
static unsigned seen_count;
static int more;
static bool checked; /* send_checked is under way */

static void note(const char *format, ...)
{
    unsigned at = __atomic_fetch_add(&seen_count, 1, __ATOMIC_SEQ_CST);
    va_list args;
    if (at >= COUNT(seen))
        return;
    va_start(args, format);
    vsnprintf(seen[at].text, sizeof seen[at].text, format, args);
    va_end(args);
}

static uint64_t mask_now(void)
{
    uint64_t mask = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &mask, KERNEL_SET);
    return mask;
}

/* A signal to this thread or process; how: kill, tgkill, tkill, or a group. */
static long send(int how, int signo)
{
    switch (how) {
    case 0:
        return syscall(SYS_kill, getpid(), signo);
    case 1:
        return syscall(SYS_tgkill, getpid(), gettid(), signo);
    case 2:
        return syscall(SYS_tkill, gettid(), signo);
    case 3:
        return syscall(SYS_tgkill, getpid(), getpid(), signo);
    case 4:
        return syscall(SYS_tkill, getpid(), signo);
    default:
        return kill(-getpgrp(), signo);
    }
}

static void handler(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    int here = 0;
    bool on_alt = (char *)&here >= altstack[second()] && (char *)&here < altstack[second()] + sizeof altstack[0];
    note("%d by %d, code %d, from us %d %d, mask %lx, before %lx, %s%s, flags %d, fp %d", signo, second(), info->si_code,
         info->si_pid == getpid(), info->si_uid == getuid(), mask_now(), *(uint64_t *)&uc->uc_sigmask,
         on_alt ? "alternate" : "usual", uc->uc_stack.ss_size ? " stack" : "", uc->uc_stack.ss_flags & ~3,
         uc->uc_mcontext.fpregs != NULL);
    if (second())
        return; /* the numbers are the first thread's */
    if (pick(4) == 0) { /* leave other registers behind */
        unsigned mxcsr = 0x1f80 | 0x6000;
        __asm__ volatile("ldmxcsr %0; pxor %%xmm6, %%xmm6; pcmpeqd %%xmm15, %%xmm15; std; cld" ::"m"(mxcsr)
                         : "xmm6", "xmm15");
    }
    if (pick(8) == 0)
        *(uint64_t *)&uc->uc_sigmask ^= 1ull << (any_signal() - 1);
    if (pick(16) == 0 && checked)
        uc->uc_mcontext.gregs[REG_RAX] = 77;
    if (pick(16) == 0)
        uc->uc_mcontext.fpregs->mxcsr ^= 0x2000;
    if (pick(16) == 0 && !on_alt) {
        stack_t stack = {.ss_sp = altstack[0], .ss_size = pick(2) ? sizeof altstack[0] : 32768};
        note("  stack: %d", sigaltstack(&stack, NULL)); /* until it returns */
    }
    if (pick(4) == 0 && more-- > 0) {
        int how = (int)pick(3), other = any_signal();
        note("  nested %d %d: %ld", how, other, send(how, other));
    }
}

/* With its registers full of something that has to be there afterwards. */
static void send_checked(int how, int signo)
{
    static const uint64_t want[2] = {0x0123456789abcdef, 0xfedcba9876543210};
    uint64_t got[4];
    unsigned mxcsr = 0x1f80, after;
    checked = true;
    uint64_t flags;
    long nr = how == 0 ? SYS_kill : how == 1 ? SYS_tgkill : SYS_tkill, a = how == 2 ? gettid() : getpid();
    long b = how == 1 ? gettid() : signo, c = signo;
    __asm__ volatile("ldmxcsr %4; movdqu %5, %%xmm6; movdqa %%xmm6, %%xmm15; stc;"
                     "mov $1, %%r10d; syscall;" /* a place that can be patched */
                     "pushfq; popq %3; movdqu %%xmm6, %1; movdqu %%xmm15, %2"
                     : "+a"(nr), "=m"(*(char(*)[16])got), "=m"(*(char(*)[16])(got + 2)), "=r"(flags)
                     : "m"(mxcsr), "m"(*(const char(*)[16])want), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r10", "r11", "memory", "xmm6", "xmm15", "cc");
    checked = false;
    __asm__ volatile("stmxcsr %0" : "=m"(after));
    say("send %d %d: %ld, registers %d %d, mxcsr %x, flags %lx", how, signo, nr, memcmp(got, want, 16) == 0,
        memcmp(got + 2, want, 16) == 0, after, flags & 0x401);
    __asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
}

static void set_action(int signo, int disposition, int flags, uint64_t mask)
{
    struct sigaction action = {.sa_flags = flags}, old;
    memcpy(&action.sa_mask, &mask, sizeof mask);
    if (disposition == 2) {
        action.sa_sigaction = handler;
        action.sa_flags |= SA_SIGINFO;
    } else {
        action.sa_handler = disposition ? SIG_IGN : SIG_DFL;
    }
    MUST(sigaction(signo, &action, &old));
    say("action of %d: %d %x %lx, was %s %x %lx", signo, disposition, action.sa_flags, mask,
        old.sa_handler == SIG_DFL ? "default" : old.sa_handler == SIG_IGN ? "ignore" : "handler", old.sa_flags,
        *(uint64_t *)&old.sa_mask);
}

static void choose_action(void)
{
    static const int flags[] = {0, 0, 0, 0, SA_NODEFER, SA_RESETHAND, SA_ONSTACK, SA_ONSTACK | SA_NODEFER, SA_RESTART};
    int signo = any_signal(), disposition = (int)pick(8);
    disposition = disposition < 6 ? 2 : disposition - 6;
    int flag = flags[pick(COUNT(flags))];
    if (disposition == 0 && signo != SIGURG && signo != SIGWINCH)
        disposition = 1;
    /* After it has run once, the next one would end the process. */
    if (flag & (int)SA_RESETHAND && signo != SIGURG && signo != SIGWINCH)
        flag = 0;
    set_action(signo, disposition, flag, pick(2) ? 0 : any_mask());
}

static void set_mask(void)
{
    uint64_t set = any_mask(), old = 0;
    int how = (int)pick(pick(8) ? 3 : 5);
    uint64_t *in = pick(8) ? &set : NULL, *out = pick(2) ? &old : NULL;
    long r = syscall(SYS_rt_sigprocmask, how, in, out, (long)KERNEL_SET);
    say("mask %d %lx: %ld %d, was %lx", how, in ? set : 0, r, r ? errno : 0, old);
}

static void set_altstack(void)
{
    uint32_t kind = pick(4);
    stack_t stack = {.ss_sp = altstack[0], .ss_size = sizeof altstack[0]}, old;
    if (kind < 2)
        stack = (stack_t){.ss_flags = SS_DISABLE};
    if (kind == 3)
        stack.ss_flags = (int)(1u << 31); /* SS_AUTODISARM */
    MUST(sigaltstack(&stack, &old));
    say("stack %u, was %x %lu", kind, old.ss_flags, old.ss_size);
}

/* One thing that the second thread does.  It takes signals only meanwhile. */
static struct {
    pthread_t thread;
    struct gate go, done;
    int how, signo;
    uint64_t mask;
    long result;
} helper;

static void *help(void *unused)
{
    const uint64_t all = ~0ull;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, KERNEL_SET);
    gate_open(helper.done);
    for (;;) {
        gate_wait(helper.go);
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &helper.mask, NULL, KERNEL_SET);
        helper.result = send(helper.how, helper.signo);
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, KERNEL_SET);
        gate_open(helper.done);
    }
    return unused;
}

static void by_helper(void)
{
    helper.how = (int)pick(5);
    helper.signo = any_signal();
    helper.mask = any_mask();
    more = 0;
    /* The first thread takes what it takes while it waits here. */
    gate_open(helper.go);
    gate_wait(helper.done);
    say("helper %d %d %lx: %ld", helper.how, helper.signo, helper.mask, helper.result);
}

/* In a child: what a signal does where a frame can't be, or where nobody handles it. */
static void child(void)
{
    uint32_t kind = pick(5), signo = SIGUSR1;
    uint64_t none = 0;
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(mprotect(page, 4096, kind % 2 ? PROT_NONE : PROT_READ));
    char *stacks[] = {page + 4096 + 64, page + 4096, (char *)64, (char *)0x7fff00000000, page + 8192};
    pid_t pid = fork();
    if (pid == 0) {
        struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, KERNEL_SET);
        sigaction(SIGUSR1, &action, NULL);
        long nr = SYS_kill, a = getpid(), b = SIGUSR1;
        __asm__ volatile("mov %%rsp, %%r12; mov %3, %%rsp; syscall; mov %%r12, %%rsp"
                         : "+a"(nr)
                         : "D"(a), "S"(b), "r"(stacks[kind])
                         : "rcx", "r11", "r12", "memory", "cc");
        _exit(3);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    say("child %u %u: %x", kind, signo, status & ~0x80);
    munmap(page, 8192);
}

static void errors(void)
{
    static const int wrong[] = {0, 65, -1, 1 << 30};
    int signo = wrong[pick(COUNT(wrong))], how = (int)pick(6);
    errno = 0;
    long r = send(how, signo);
    say("send %d %d: %ld %d", how, signo, r, errno);
}

static void report(void)
{
    uint64_t pending = 0, all = ~0ull, mask;
    stack_t stack;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, KERNEL_SET); /* nothing comes between */
    for (unsigned i = 0; i < seen_count && i < COUNT(seen); i++)
        say("  %s", seen[i].text);
    syscall(SYS_rt_sigpending, &pending, (long)KERNEL_SET);
    MUST(sigaltstack(NULL, &stack));
    say("  mask %lx, pending %lx, stack %x %lu", mask, pending, stack.ss_flags & ~2, stack.ss_size);
    seen_count = 0;
    more = MORE;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, KERNEL_SET);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    state = strtoull(argv[1], NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
    setpgid(0, 0);
    /* Linux remembers whether there has never been one, or none any more. */
    MUST(sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL));
    helper.go = gate_make();
    helper.done = gate_make();
    for (uint32_t i = 0; i < COUNT(signals); i++)
        set_action(signals[i], 2, 0, 0);
    MUST(pthread_create(&helper.thread, NULL, help, NULL));
    gate_wait(helper.done);
    for (long step = strtol(argv[2], NULL, 0); step; step--) {
        uint32_t kind = pick(100);
        if (kind < 45)
            send_checked((int)pick(3), any_signal());
        else if (kind < 60)
            choose_action();
        else if (kind < 75)
            set_mask();
        else if (kind < 80)
            set_altstack();
        else if (kind < 90)
            by_helper();
        else if (kind < 94)
            errors();
        else if (kind < 96)
            child();
        else
            say("group %d", (int)send(5, any_signal()));
        report();
    }
    return 0;
}
