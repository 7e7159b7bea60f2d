/* ptrace(2): register sets, FP state, single steps, breakpoints. */
#include "ptrace_common.h"
#include <asm/prctl.h>
#include <cpuid.h>

#define XSTATE_MAX 16384

static void nothing(void)
{
}

static void again(void)
{
    raise(SIGSTOP);
}

static void regset_sizes(void)
{
    CASE("register sets");
    pid_t pid = traced(nothing);
    struct user_regs_struct regs, set;
    struct iovec iov = {&set, sizeof set};
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    SHOW(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov));
    say("%zu bytes, the same as GETREGS: %s", iov.iov_len, memcmp(&regs, &set, sizeof set) ? "no" : "yes");
    iov.iov_len = 16;
    SHOW(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov));
    say("%zu bytes", iov.iov_len);
    iov.iov_len = 15;
    SHOW(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov));
    iov.iov_len = 0;
    SHOW(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov));
    iov.iov_len = 8;
    SHOW(ptrace(PTRACE_GETREGSET, pid, 77, &iov));
    SHOW(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, BAD));
    iov = (struct iovec){BAD, 8};
    SHOW(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov));
    static char huge[2 * XSTATE_MAX];
    iov = (struct iovec){huge, sizeof huge};
    SHOW(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov));
    say("%zu bytes", iov.iov_len);
    iov.iov_len = sizeof huge;
    SHOW(ptrace(PTRACE_GETREGSET, pid, NT_PRFPREG, &iov));
    SHOW(ptrace(PTRACE_SETREGSET, pid, NT_PRFPREG, &iov));
    iov.iov_len -= 8;
    SHOW(ptrace(PTRACE_SETREGSET, pid, NT_PRFPREG, &iov));
    long word = 1;
    SHOW(syscall(SYS_ptrace, PTRACE_PEEKUSER, pid, 920, &word));
    SHOW(syscall(SYS_ptrace, PTRACE_PEEKUSER, pid, 928, &word));
    SHOW(ptrace(PTRACE_POKEUSER, pid, 920, 0));
    say("%zu bytes", iov.iov_len);
    regs.r12 = 0x123456789abcdef0;
    iov = (struct iovec){&regs, sizeof regs};
    SHOW(ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &iov));
    SHOW_IF(ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.r12), 0) == (long)regs.r12);
    regs.cs = 0x10;
    SHOW(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    regs.cs = 0x33;
    regs.gs_base = 1ul << 63;
    SHOW(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);
}

static double number = 1.5;

static void computes(void)
{
    double x = number;
    __asm__ volatile("movsd %0, %%xmm7\n\tmov %1, %%eax\n\tmov %2, %%edi\n\tmov %3, %%esi\n\tsyscall\n\tmovsd %%xmm7, %0"
                     : "+m"(x)
                     : "i"(SYS_tkill), "r"(getpid()), "i"(SIGSTOP)
                     : "rax", "rcx", "r11", "rdi", "rsi", "xmm7", "memory");
    say("xmm7 is %.2f now", x);
}

static void fpregs(void)
{
    CASE("FP registers");
    pid_t pid = traced(computes);
    struct user_fpregs_struct fp;
    double value;
    go("computes", PTRACE_CONT, pid, 0);
    SHOW(ptrace(PTRACE_GETFPREGS, pid, 0, &fp));
    memcpy(&value, (char *)fp.xmm_space + 7 * 16, 8);
    say("xmm7 %.2f, mxcsr %#x, control word %#x", value, fp.mxcsr, fp.cwd);
    value = 2.25;
    memcpy((char *)fp.xmm_space + 7 * 16, &value, 8);
    SHOW(ptrace(PTRACE_SETFPREGS, pid, 0, &fp));
    memset(&fp, 0, sizeof fp);
    SHOW(ptrace(PTRACE_GETFPREGS, pid, 0, &fp));
    memcpy(&value, (char *)fp.xmm_space + 7 * 16, 8);
    say("xmm7 %.2f", value);
    SHOW(ptrace(PTRACE_GETFPREGS, pid, 0, BAD));
    fp.mxcsr = 0xffffffff;
    SHOW(ptrace(PTRACE_SETFPREGS, pid, 0, &fp));
    go("goes on", PTRACE_CONT, pid, 0);
}

static void xstate(void)
{
    CASE("XSAVE area");
    static uint64_t area[XSTATE_MAX / 8];
    unsigned a, b, c, d;
    __cpuid_count(13, 0, a, b, c, d);
    pid_t pid = traced(computes);
    double value;
    go("computes", PTRACE_CONT, pid, 0);
    struct iovec iov = {area, sizeof area};
    SHOW(ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &iov));
    SHOW_IF(iov.iov_len >= 576 && iov.iov_len % 8 == 0);
    memcpy(&value, (char *)area + 160 + 7 * 16, 8);
    say("xmm7 %.2f", value);
    SHOW_IF((area[464 / 8] & 7) == (((uint64_t)d << 32 | a) & 7));
    SHOW_IF((area[512 / 8] & ~area[464 / 8]) == 0);
    value = 3.75;
    memcpy((char *)area + 160 + 7 * 16, &value, 8);
    area[512 / 8] |= 2;
    SHOW(ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &iov));
    iov.iov_len -= 8;
    SHOW(ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &iov));
    iov.iov_len += 8;
    area[512 / 8 + 3] = 1;
    SHOW(ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &iov));
    go("goes on", PTRACE_CONT, pid, 0);
}

extern char steps_begin[], steps_call[], steps_end[], steps_popf[];

static void stepped(void)
{
    raise(SIGSTOP);
    __asm__ volatile(".globl steps_begin, steps_call, steps_end, steps_popf\n"
                     "steps_begin:\n\t"
                     "mov $0, %%ebx\n\t"
                     "inc %%ebx\n\t"
                     "pushfq\n\t"
                     "pop %%r12\n\t"
                     "mov %0, %%eax\n"
                     "steps_call:\n\t"
                     "syscall\n\t"
                     "inc %%ebx\n\t"
                     "pushfq\n"
                     "steps_popf:\n\t"
                     "popfq\n\t"
                     "inc %%ebx\n"
                     "steps_end:\n\t"
                     "nop\n\t"
                     "nop\n\t" ::"i"(SYS_getppid)
                     : "rax", "rbx", "rcx", "r11", "r12", "memory");
    say("stepped");
}

/* Puts a breakpoint there; the word that was. */
static long put_breakpoint(pid_t pid, void *addr)
{
    errno = 0;
    long old = ptrace(PTRACE_PEEKTEXT, pid, addr, 0);
    NEED(errno == 0);
    MUST(ptrace(PTRACE_POKETEXT, pid, addr, (old & ~0xffl) | 0xcc));
    return old;
}

static void run_to(pid_t pid, void *addr)
{
    struct user_regs_struct regs;
    long old = put_breakpoint(pid, addr);
    go("breakpoint", PTRACE_CONT, pid, 0);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    SHOW_IF(regs.rip == (unsigned long)addr + 1);
    regs.rip--;
    MUST(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    MUST(ptrace(PTRACE_POKETEXT, pid, addr, old));
}

static void show_step(pid_t pid)
{
    struct user_regs_struct regs;
    siginfo_t info;
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    MUST(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("at +%lld, ebx %d, trap flag %s, code %d, address %s, orig_rax %lld", (long long)(regs.rip - (unsigned long)steps_begin),
        (int)regs.rbx, regs.eflags & 0x100 ? "set" : "clear", info.si_code,
        (unsigned long)info.si_addr == regs.rip ? "rip" : info.si_addr ? "?" : "0", regs.orig_rax);
}

static void steps(void)
{
    CASE("PTRACE_SINGLESTEP");
    struct user_regs_struct regs;
    siginfo_t info;
    pid_t pid = traced(stepped);
    go("ready", PTRACE_CONT, pid, 0);
    run_to(pid, steps_begin);
    MUST(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("%s code %#x", signal_name(info.si_signo), info.si_code);
    do {
        go("step", PTRACE_SINGLESTEP, pid, 0);
        show_step(pid);
        MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    } while (regs.rip != (unsigned long)steps_end);
    say("pushf saw the trap flag: %s", regs.r12 & 0x100 ? "yes" : "no");
    go("goes on", PTRACE_CONT, pid, 0);
    regs.eflags &= ~0x100ul;
    MUST(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    go("goes on", PTRACE_CONT, pid, 0);
}

static void emulates(void)
{
    CASE("PTRACE_SYSEMU");
    struct user_regs_struct regs;
    pid_t pid = traced(stepped);
    go("ready", PTRACE_CONT, pid, 0);
    set_options(pid, PTRACE_O_TRACESYSGOOD);
    run_to(pid, steps_begin);
    go("call", PTRACE_SYSEMU, pid, 0);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    say("call %lld rax %lld at +%ld", regs.orig_rax, regs.rax, (long)(regs.rip - (unsigned long)steps_begin));
    go("step", PTRACE_SINGLESTEP, pid, 0);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    say("rax %lld at +%ld", regs.rax, (long)(regs.rip - (unsigned long)steps_begin));
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);

    pid = traced(stepped);
    go("ready", PTRACE_CONT, pid, 0);
    set_options(pid, PTRACE_O_TRACESYSGOOD);
    run_to(pid, steps_call);
    for (int i = 0; i < 3; i++) {
        go("step", PTRACE_SYSEMU_SINGLESTEP, pid, 0);
        MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
        say("rax %lld at +%ld", regs.rax, (long)(regs.rip - (unsigned long)steps_begin));
    }
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);
}

static void handler(int signo UNUSED)
{
    say("handler");
}

static void handles(void)
{
    signal(SIGUSR1, handler);
    again();
    say("behind");
}

static void step_into_handler(void)
{
    CASE("a step into a handler");
    struct user_regs_struct regs;
    siginfo_t info;
    pid_t pid = traced(handles);
    go("ready", PTRACE_CONT, pid, 0);
    go("step with a signal", PTRACE_SINGLESTEP, pid, SIGUSR1);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    SHOW_IF(regs.rip == (unsigned long)handler);
    say("trap flag %s", regs.eflags & 0x100 ? "set" : "clear");
    SHOW(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("%s code %d", signal_name(info.si_signo), info.si_code);
    go("ends", PTRACE_CONT, pid, 0);
}

static void arch(void)
{
    CASE("PTRACE_ARCH_PRCTL");
    pid_t pid = traced(nothing);
    unsigned long base = 1;
    struct user_regs_struct regs;
    SHOW(syscall(SYS_ptrace, 30, pid, &base, ARCH_GET_FS));
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    SHOW_IF(base == regs.fs_base);
    SHOW(syscall(SYS_ptrace, 30, pid, 0x1000, ARCH_SET_GS));
    SHOW(syscall(SYS_ptrace, 30, pid, &base, ARCH_GET_GS));
    say("gs base %#lx", base);
    SHOW(syscall(SYS_ptrace, 30, pid, -1l, ARCH_SET_GS));
    SHOW(syscall(SYS_ptrace, 30, pid, 0, 77));
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);
}

static void own_trap(void)
{
    CASE("breakpoints of its own");
    pid_t pid = CHILD({
        MUST(ptrace(PTRACE_TRACEME, 0, 0, 0));
        __asm__ volatile("int3");
        say("behind int3");
        __asm__ volatile(".byte 0xf1"); /* int1 */
        say("behind int1");
    });
    siginfo_t info;
    next_stop("int3", pid);
    MUST(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("code %#x", info.si_code);
    go("int1", PTRACE_CONT, pid, 0);
    MUST(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("code %#x", info.si_code);
    go("ends", PTRACE_CONT, pid, 0);
}

int main(void)
{
    regset_sizes();
    fpregs();
    xstate();
    steps();
    emulates();
    step_into_handler();
    arch();
    own_trap();
    return 0;
}
