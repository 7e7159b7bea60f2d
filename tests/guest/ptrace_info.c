/* ptrace(2): siginfo, queued signals, masks, PTRACE_GET_SYSCALL_INFO, what /proc and wait tell. */
#include "ptrace_common.h"
#include <linux/ptrace.h>

static void blocks(void)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int i = 0; i < 3; i++)
        sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 10 + i});
    syscall(SYS_tgkill, getpid(), getpid(), SIGRTMIN + 1);
    raise(SIGSTOP);
}

static void queued(void)
{
    CASE("PTRACE_PEEKSIGINFO");
    pid_t pid = traced(blocks);
    siginfo_t infos[8];
    go("ready", PTRACE_CONT, pid, 0);
    for (int flags = 0; flags < 2; flags++) {
        struct __ptrace_peeksiginfo_args args = {.off = 0, .flags = (unsigned)flags, .nr = 8};
        long count = ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos);
        say("%s: %ld", flags ? "the process's" : "its own", count);
        for (long i = 0; i < count; i++)
            say("%s code %d value %d", signal_name(infos[i].si_signo), infos[i].si_code,
                infos[i].si_code == SI_QUEUE ? infos[i].si_int : 0);
    }
    struct __ptrace_peeksiginfo_args args = {.off = 1, .flags = 1, .nr = 1};
    SHOW(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos));
    say("value %d", infos[0].si_int);
    args.off = 3;
    SHOW(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos));
    args.nr = -1;
    SHOW(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos));
    args = (struct __ptrace_peeksiginfo_args){.flags = 2, .nr = 1};
    SHOW(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos));
    args = (struct __ptrace_peeksiginfo_args){.flags = 1, .nr = 1};
    SHOW(ptrace(PTRACE_PEEKSIGINFO, pid, &args, BAD));
    SHOW(ptrace(PTRACE_PEEKSIGINFO, pid, BAD, infos));

    CASE("PTRACE_GETSIGMASK");
    uint64_t mask = 0;
    SHOW(ptrace(PTRACE_GETSIGMASK, pid, 8, &mask));
    say("mask %#" PRIx64, mask);
    SHOW(ptrace(PTRACE_GETSIGMASK, pid, 4, &mask));
    SHOW(ptrace(PTRACE_GETSIGMASK, pid, 8, BAD));
    mask = ~0ul;
    SHOW(ptrace(PTRACE_SETSIGMASK, pid, 8, &mask));
    SHOW(ptrace(PTRACE_SETSIGMASK, pid, 16, &mask));
    SHOW(ptrace(PTRACE_GETSIGMASK, pid, 8, &mask));
    say("mask %#" PRIx64, mask);
    mask = ~(1ul << (SIGRTMIN + 1 - 1));
    SHOW(ptrace(PTRACE_SETSIGMASK, pid, 8, &mask));
    go("unblocked", PTRACE_CONT, pid, 0);
    go("ends", PTRACE_CONT, pid, SIGKILL);
}

static void show_value(int signo, siginfo_t *info, void *context UNUSED)
{
    say("handler: %s code %d value %d", signal_name(signo), info->si_code, info->si_int);
}

static void sends(void)
{
    handle_flags(SIGUSR1, show_value, 0);
    handle_flags(SIGUSR2, show_value, 0);
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 5});
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 6});
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 7});
}

static void changed_info(void)
{
    CASE("PTRACE_SETSIGINFO");
    siginfo_t info;
    pid_t pid = traced(sends);
    go("signal", PTRACE_CONT, pid, 0);
    SHOW(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    info.si_int = 55;
    SHOW(ptrace(PTRACE_SETSIGINFO, pid, 0, &info));
    SHOW(ptrace(PTRACE_SETSIGINFO, pid, 0, BAD));
    SHOW(ptrace(PTRACE_GETSIGINFO, pid, 0, BAD));
    go("signal", PTRACE_CONT, pid, SIGUSR1);
    go("suppressed", PTRACE_CONT, pid, 0);
    go("another", PTRACE_CONT, pid, SIGUSR2);
}

static void calls(void)
{
    syscall(SYS_close, -1, 2, 3, 4, 5, 6);
    syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
    syscall(999, 1, 1, 1, 1, 1, 1);
    raise(SIGUSR1);
}

static void show_info(pid_t pid)
{
    struct __ptrace_syscall_info info;
    struct user_regs_struct regs;
    memset(&info, 0xff, sizeof info);
    long size = ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    say("op %d, %ld bytes, arch %#x, ip %s, sp %s", info.op, size, info.arch,
        info.instruction_pointer == regs.rip ? "right" : "wrong", info.stack_pointer == regs.rsp ? "right" : "wrong");
    if (info.op == 1)
        say("call %llu(%d, %d, %d, %d, %d, %d)", (unsigned long long)info.entry.nr, (int)info.entry.args[0],
            (int)info.entry.args[1], (int)info.entry.args[2], (int)info.entry.args[3], (int)info.entry.args[4],
            (int)info.entry.args[5]);
    else if (info.op == 2)
        say("result %s, is_error %d", info.exit.rval == pid ? "its pid" : info.exit.rval < 0 ? error_name(-info.exit.rval) : "?",
            info.exit.is_error);
}

static void syscall_info(void)
{
    CASE("PTRACE_GET_SYSCALL_INFO");
    pid_t pid = traced(calls);
    char little[4];
    show_info(pid);
    set_options(pid, PTRACE_O_TRACESYSGOOD);
    for (int i = 0; i < 6; i++) {
        go("call", PTRACE_SYSCALL, pid, 0);
        show_info(pid);
        say("message %lu", message_of(pid));
    }
    SHOW(ptrace(PTRACE_GET_SYSCALL_INFO, pid, 4, little));
    SHOW(ptrace(PTRACE_GET_SYSCALL_INFO, pid, 0, BAD));
    SHOW(ptrace(PTRACE_GET_SYSCALL_INFO, pid, 4, BAD));
    siginfo_t info;
    SHOW(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("%s code %#x, own pid %s", signal_name(info.si_signo), info.si_code, info.si_pid == pid ? "yes" : "no");
    set_options(pid, 0);
    go("call without the option", PTRACE_SYSCALL, pid, 0);
    show_info(pid);
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);
}

static void injects(void)
{
    CASE("signals at calls");
    pid_t pid = traced(sends);
    set_options(pid, PTRACE_O_TRACESYSGOOD);
    siginfo_t info;
    go("enters", PTRACE_SYSCALL, pid, 0);
    go("leaves", PTRACE_SYSCALL, pid, SIGUSR1);
    go("signal", PTRACE_SYSCALL, pid, 0);
    SHOW(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("%s code %#x pid %d", signal_name(info.si_signo), info.si_code, info.si_pid);
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);
}

static void waits(void)
{
    CASE("what wait takes");
    int status;
    pid_t pid = traced(calls), other = traced(calls);
    SHOW(waitpid(pid, &status, WNOHANG));
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    SHOW_IF(waitpid(-1, &status, 0) == pid);
    show_stop("by -1", status);
    SHOW(waitpid(pid, &status, __WCLONE | WNOHANG));
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    MUST(ptrace(PTRACE_CONT, other, 0, 0));
    siginfo_t info;
    MUST(waitid(P_PID, other, &info, WSTOPPED | WNOWAIT));
    say("code %d status %d", info.si_code, info.si_status);
    SHOW_IF(waitpid(0, &status, __WALL) > 0);
    kill(pid, SIGKILL);
    kill(other, SIGKILL);
    while (waitpid(-1, &status, __WALL) > 0)
        ;
    SHOW(waitpid(-1, &status, 0));
}

int main(void)
{
    queued();
    changed_info();
    syscall_info();
    injects();
    waits();
    return 0;
}
