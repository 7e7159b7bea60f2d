/* ptrace(2): ATTACH, SEIZE, INTERRUPT, LISTEN, DETACH, and group stops. */
#include "ptrace_common.h"
#include <sys/prctl.h>

static void spins(void)
{
    static volatile unsigned long count;
    for (;;)
        count++;
}

static void reads(void)
{
    char byte;
    int ends[2];
    MUST(pipe(ends));
    for (;;)
        show_result("read", read(ends[0], &byte, 1));
}

static void settle(pid_t pid, char state)
{
    for (int i = 0; i < 5000; i++) {
        if (task_state(pid) == state)
            return;
        usleep(1000);
    }
    say("never in state %c", state);
}

static void attach(void (*body)(void), const char *what)
{
    CASE(what);
    siginfo_t info;
    pid_t pid = CHILD({ body(); });
    settle(pid, body == spins ? 'R' : 'S');
    SHOW(ptrace(PTRACE_ATTACH, pid, 0, 0));
    next_stop("attached", pid);
    show_proc(pid, "TracerPid:");
    show_proc(pid, "State:");
    MUST(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("%s code %#x pid %d", signal_name(info.si_signo), info.si_code, info.si_pid);
    SHOW(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
    SHOW(ptrace(PTRACE_CONT, pid, 0, 0));
    SHOW(ptrace(PTRACE_CONT, pid, 0, 0));
    SHOW(waitpid(pid, NULL, WNOHANG));
    MUST(kill(pid, SIGUSR1));
    next_stop("signal", pid);
    SHOW(ptrace(PTRACE_DETACH, pid, 0, 65));
    SHOW(ptrace(PTRACE_DETACH, pid, 0, 0));
    SHOW(ptrace(PTRACE_CONT, pid, 0, 0));
    show_proc(pid, "TracerPid:");
    MUST(kill(pid, SIGUSR2));
    reap("ends", pid);
}

static void detach_with_signal(void)
{
    CASE("detach with a signal");
    pid_t pid = CHILD({ sleeps(); });
    MUST(ptrace(PTRACE_ATTACH, pid, 0, 0));
    next_stop("attached", pid);
    SHOW(ptrace(PTRACE_DETACH, pid, 0, SIGTERM));
    reap("ends", pid);
}

static void seize(void (*body)(void), const char *what)
{
    CASE(what);
    siginfo_t info;
    pid_t pid = CHILD({ body(); });
    SHOW(ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD));
    SHOW(ptrace(PTRACE_SEIZE, pid, 0, 0));
    SHOW(waitpid(pid, NULL, WNOHANG));
    SHOW(ptrace(PTRACE_CONT, pid, 0, 0));
    settle(pid, body == spins ? 'R' : 'S');
    SHOW(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
    next_stop("interrupted", pid);
    MUST(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("%s code %#x own pid %s", signal_name(info.si_signo), info.si_code, info.si_pid == pid ? "yes" : "no");
    SHOW(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
    go("once more", PTRACE_CONT, pid, 0);
    SHOW(ptrace(PTRACE_DETACH, pid, 0, 0));
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);
}

static void group_stop(void)
{
    CASE("group stop, attached");
    siginfo_t info;
    pid_t pid = CHILD({ sleeps(); });
    MUST(ptrace(PTRACE_ATTACH, pid, 0, 0));
    next_stop("attached", pid);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    MUST(kill(pid, SIGTSTP));
    next_stop("signal", pid);
    go("group stop", PTRACE_CONT, pid, SIGSTOP);
    SHOW(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    show_proc(pid, "State:");
    SHOW(ptrace(PTRACE_LISTEN, pid, 0, 0));
    MUST(kill(pid, SIGCONT));
    SHOW(waitpid(pid, NULL, WNOHANG));
    go("continued", PTRACE_CONT, pid, 0);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);
}

static void seized_group_stop(void)
{
    CASE("group stop, seized");
    siginfo_t info;
    int status;
    pid_t pid = CHILD({ sleeps(); });
    settle(pid, 'S');
    MUST(ptrace(PTRACE_SEIZE, pid, 0, 0));
    MUST(kill(pid, SIGSTOP));
    next_stop("signal", pid);
    SHOW(ptrace(PTRACE_LISTEN, pid, 0, 0));
    go("group stop", PTRACE_CONT, pid, SIGSTOP);
    SHOW(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("%s code %#x", signal_name(info.si_signo), info.si_code);
    SHOW(ptrace(PTRACE_LISTEN, pid, 0, 0));
    SHOW(ptrace(PTRACE_CONT, pid, 0, 0));
    SHOW(waitpid(pid, &status, WNOHANG));
    show_proc(pid, "State:");
    MUST(kill(pid, SIGCONT));
    next_stop("told", pid);
    MUST(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("%s code %#x", signal_name(info.si_signo), info.si_code);
    go("SIGCONT", PTRACE_CONT, pid, 0);
    MUST(ptrace(PTRACE_CONT, pid, 0, SIGCONT));
    settle(pid, 'S');
    MUST(kill(pid, SIGSTOP));
    next_stop("signal", pid);
    go("group stop", PTRACE_CONT, pid, SIGSTOP);
    SHOW(ptrace(PTRACE_LISTEN, pid, 0, 0));
    SHOW(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
    next_stop("interrupted", pid);
    SHOW(ptrace(PTRACE_DETACH, pid, 0, 0));
    settle(pid, 'T');
    show_proc(pid, "State:");
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);
}

static void attach_stopped(bool seized)
{
    CASE(seized ? "seize a stopped process" : "attach to a stopped process");
    pid_t pid = CHILD({ sleeps(); });
    int status;
    MUST(kill(pid, SIGSTOP));
    MUST(waitpid(pid, &status, WUNTRACED));
    show_status("stopped", status);
    SHOW(ptrace(seized ? PTRACE_SEIZE : PTRACE_ATTACH, pid, 0, 0));
    next_stop("at once", pid);
    if (!seized)
        go("SIGSTOP", PTRACE_CONT, pid, 0);
    SHOW(ptrace(PTRACE_DETACH, pid, 0, 0));
    settle(pid, 'T');
    MUST(kill(pid, SIGCONT));
    settle(pid, 'S');
    MUST(kill(pid, SIGTERM));
    reap("ends", pid);
}

static void real_parent(void)
{
    CASE("the real parent waits");
    int status;
    struct gate go_on = gate_make(), there = gate_make();
    pid_t pid = CHILD({ sleeps(); });
    pid_t tracer = CHILD({
        MUST(ptrace(PTRACE_ATTACH, pid, 0, 0));
        next_stop("attached", pid);
        gate_open(there);
        gate_wait(go_on);
        go("ends", PTRACE_CONT, pid, SIGTERM);
    });
    gate_wait(there);
    SHOW(waitpid(pid, &status, WNOHANG | WUNTRACED));
    show_proc(pid, "TracerPid:");
    gate_open(go_on);
    reap("tracer", tracer);
    reap("then we", pid);
    gate_close(go_on);
    gate_close(there);
}

static void interrupted(void)
{
    CASE("calls are restarted");
    struct user_regs_struct regs;
    pid_t pid = CHILD({
        struct timespec long_time = {100, 0};
        show_result("nanosleep", nanosleep(&long_time, NULL));
    });
    settle(pid, 'S');
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%d/syscall", pid);
    int fd = MUST(open(path, O_RDONLY));
    ssize_t got = MUST(read(fd, text, sizeof text - 1));
    text[got] = 0;
    close(fd);
    int nr = atoi(text), fields = 0;
    for (char *p = text; *p; p++)
        fields += *p == ' ' || *p == '\n';
    say("it sleeps in %s, %d fields", nr == SYS_nanosleep || nr == SYS_clock_nanosleep ? "nanosleep" : text, fields);
    MUST(ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD));
    MUST(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
    next_stop("interrupted", pid);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    say("rax %lld orig_rax %s", regs.rax,
        regs.orig_rax == SYS_nanosleep || regs.orig_rax == SYS_clock_nanosleep ? "sleep" : "?");
    go("enters", PTRACE_SYSCALL, pid, 0);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    SHOW_IF(regs.orig_rax == SYS_restart_syscall);
    MUST(ptrace(PTRACE_SYSCALL, pid, 0, 0));
    MUST(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
    next_stop("leaves", pid);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    say("rax %lld", regs.rax);
    regs.rax = -EAGAIN;
    MUST(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    go("ends", PTRACE_CONT, pid, 0);
}

int main(void)
{
    /* Where Yama is at work only children may be traced: this one's are. */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    attach(sleeps, "attach to a sleeper");
    attach(spins, "attach to a runner");
    attach(reads, "attach to a reader");
    detach_with_signal();
    seize(sleeps, "seize a sleeper");
    seize(spins, "seize a runner");
    group_stop();
    seized_group_stop();
    attach_stopped(false);
    attach_stopped(true);
    real_parent();
    interrupted();
    return 0;
}
