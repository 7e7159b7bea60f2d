/* Faults: which signal, which si_code, which address; and what happens when they can't be handled. */
#include "check.h"

#include <setjmp.h>
#include <ucontext.h>

static sigjmp_buf back;
static volatile sig_atomic_t seen_signo, seen_code;
static void *volatile seen_addr;
static volatile long seen_trapno;
static void *volatile seen_rip;

static void fault(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    seen_signo = signo;
    seen_code = info->si_code;
    seen_addr = info->si_addr;
    seen_trapno = uc->uc_mcontext.gregs[REG_TRAPNO];
    seen_rip = (void *)uc->uc_mcontext.gregs[REG_RIP];
    siglongjmp(back, 1);
}

#define FAULT(what, base, ...)                                                                             \
    do {                                                                                                   \
        seen_signo = 0;                                                                                    \
        if (sigsetjmp(back, 1) == 0) {                                                                     \
            __VA_ARGS__;                                                                                   \
            say("%s: no fault", what);                                                                     \
        } else                                                                                             \
            say("%s: %s code %d addr base%+ld trap %ld", what, signal_name(seen_signo), seen_code,         \
                (long)((char *)seen_addr - (char *)(base)), seen_trapno);                                  \
    } while (0)

static volatile int zero, sink;

static void divide(void)
{
    int quotient = 1, rest = 0;
    __asm__ volatile("idivl %2" : "+a"(quotient), "+d"(rest) : "m"(zero));
}

int main(void)
{
    no_core();
    for (int signo = 1; signo < 32; signo++)
        if (signo == SIGSEGV || signo == SIGBUS || signo == SIGFPE || signo == SIGILL || signo == SIGTRAP)
            handle_flags(signo, fault, 0);
    char *page = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(mprotect(page + 4096, 4096, PROT_READ));
    MUST(mprotect(page + 8192, 4096, PROT_NONE));
    MUST(munmap(page + 12288, 4096));
    CASE("memory");
    FAULT("read of NULL", 0, sink = *(volatile int *)0);
    FAULT("write of NULL", 0, *(volatile int *)16 = 1);
    FAULT("write, read only", page + 4096, *(volatile char *)(page + 4096 + 5) = 1);
    FAULT("read, PROT_NONE", page + 8192, sink = *(volatile char *)(page + 8192 + 7));
    FAULT("read, unmapped", page + 12288, sink = *(volatile char *)(page + 12288));
    FAULT("jump to data", page, ((void (*)(void))page)());
    FAULT("jump to NULL", 0, ((void (*)(void))(uintptr_t)zero)());
    FAULT("not canonical", 0, sink = *(volatile char *)0x8000000000000000);
    FAULT("kernel address", 0xffffffff81000000, sink = *(volatile char *)0xffffffff81000000);
    CASE("arithmetic and instructions");
    FAULT("divide by zero", seen_rip, divide());
    FAULT("ud2", seen_rip, __asm__ volatile("ud2"));
    FAULT("hlt", 0, __asm__ volatile("hlt"));
    FAULT("cli", 0, __asm__ volatile("cli"));
    FAULT("in", 0, __asm__ volatile("inb $0x80, %%al" ::: "rax"));
    FAULT("int3", 0, __asm__ volatile("int3"));
    FAULT("int 0x20", 0, __asm__ volatile("int $0x20"));
    FAULT("overflow of division", seen_rip,
          __asm__ volatile("idivl %2" ::"a"(0x80000000), "d"(0xffffffff), "r"(-1)));
    CASE("single step");
    FAULT("trap flag", seen_rip, __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; nop" ::: "cc", "memory"));
    CASE("file mapping behind the end");
    scratch();
    put_file("short", "abc", 0644);
    int fd = MUST(open("short", O_RDWR));
    char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    say("in the page: %d %d", map[2], map[100]);
    FAULT("behind it", map, sink = map[4096 + 9]);
    FAULT("write behind it", map, map[4096] = 1);
    CASE("system calls give EFAULT instead");
    SHOW(write(1, page + 8192, 1));
    SHOW(write(1, BAD, 1));
    SHOW(read(fd, page + 4096, 1));
    CASE("handled, fixed, repeated");
    seen_signo = 0;
    if (sigsetjmp(back, 1) == 0)
        page[4096] = 1;
    else
        MUST(mprotect(page + 4096, 4096, PROT_READ | PROT_WRITE));
    page[4096] = 1;
    say("written");
    CASE("not handled");
    signal(SIGSEGV, SIG_DFL);
    signal(SIGFPE, SIG_DFL);
    signal(SIGILL, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    signal(SIGTRAP, SIG_DFL);
    reap("SEGV", CHILD(*(volatile int *)0 = 1));
    reap("FPE", CHILD(divide()));
    reap("ILL", CHILD(__asm__ volatile("ud2")));
    reap("BUS", CHILD(map[4096] = 1));
    reap("TRAP", CHILD(__asm__ volatile("int3")));
    CASE("ignored or blocked: killed all the same");
    reap("ignored", CHILD(signal(SIGSEGV, SIG_IGN); *(volatile int *)0 = 1));
    reap("blocked", CHILD(sigset_t all; sigfillset(&all); sigprocmask(SIG_SETMASK, &all, NULL);
                          *(volatile int *)0 = 1));
    reap("in its own handler", CHILD({
        handle_plain(SIGSEGV, (void (*)(int))8);
        *(volatile int *)0 = 1;
    }));
    reap("no stack", CHILD({
        handle_flags(SIGUSR1, fault, 0);
        __asm__ volatile("mov $8, %%rsp; mov %0, %%eax; mov %1, %%edi; mov %2, %%esi; syscall" ::"i"(SYS_tkill),
                         "r"(gettid()), "i"(SIGUSR1)
                         : "rax", "rdi", "rsi");
    }));
    CASE("sent by a process, not by a fault");
    handle_flags(SIGSEGV, fault, 0);
    if (sigsetjmp(back, 1) == 0)
        kill(getpid(), SIGSEGV);
    say("%s code %d", signal_name(seen_signo), seen_code);
    return 0;
}
