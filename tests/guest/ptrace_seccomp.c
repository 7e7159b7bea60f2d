/* ptrace(2) and seccomp(2): SECCOMP_RET_TRACE asks the tracer, who may change or skip the call. */
#include "ptrace_common.h"
#include <linux/filter.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

static void filter(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 77),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void calls(void)
{
    filter();
    for (int i = 0; i < 4; i++) {
        errno = 0;
        long result = syscall(SYS_getppid, 1, 2, 3, 4, 5, 6);
        say("call %d: %s", i, result == getpid() ? "its pid" : result == -1 ? error_name(errno) : result == 42 ? "42" : "?");
    }
}

static void show_info(pid_t pid)
{
    struct __ptrace_syscall_info info = {0};
    long size = ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
    say("op %d, %ld bytes, call %llu(%d…%d), data %u, message %lu", info.op, size, (unsigned long long)info.seccomp.nr,
        (int)info.seccomp.args[0], (int)info.seccomp.args[5], info.seccomp.ret_data, message_of(pid));
}

int main(void)
{
    struct user_regs_struct regs;
    CASE("without the option");
    pid_t pid = traced(calls);
    go("ends", PTRACE_CONT, pid, 0);

    CASE("with it");
    pid = traced(calls);
    set_options(pid, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD);
    for (int i = 0; i < 4; i++) {
        go("asked", PTRACE_CONT, pid, 0);
        show_info(pid);
        MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
        say("call %lld, rax %s", regs.orig_rax, error_name(-regs.rax));
        if (i == 1)
            regs.orig_rax = SYS_getpid;
        else if (i == 2)
            regs.orig_rax = -1, regs.rax = 42;
        else if (i == 3)
            regs.orig_rax = SYS_getpgid; /* which the filter forbids */
        else
            regs.orig_rax = SYS_gettid;
        MUST(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    }
    go("ends", PTRACE_CONT, pid, 0);

    CASE("between calls");
    pid = traced(calls);
    set_options(pid, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD);
    go("asked", PTRACE_CONT, pid, 0);
    go("leaves", PTRACE_SYSCALL, pid, 0);
    for (int status = 0; !(status >> 16);)
        status = go("call", PTRACE_SYSCALL, pid, 0);
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);
    return 0;
}
