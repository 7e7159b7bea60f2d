/* How a process ends and what wait4(2), waitid(2) tell of it. */
#include "check.h"

static void exit_codes(void)
{
    CASE("exit codes");
    for (int code = 0; code < 4; code++)
        reap("child", CHILD(_exit(code)));
    reap("256", CHILD(_exit(256)));
    reap("-1", CHILD(_exit(-1)));
    reap("raw exit", CHILD(syscall(SYS_exit, 9)));
    reap("exit_group", CHILD(syscall(SYS_exit_group, 11)));
}

static void by_signal(void)
{
    static const int signals[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGILL,  SIGABRT, SIGFPE, SIGKILL,
                                  SIGSEGV, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2, SIGBUS,
                                  SIGSYS,  SIGTRAP, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO,
                                  SIGPWR,  SIGSTKFLT, 34, 64};
    CASE("death by signal");
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        reap("raise", CHILD(kill(getpid(), signals[i])));
    CASE("ignored by default");
    reap("CHLD", CHILD(raise(SIGCHLD); _exit(1)));
    reap("URG", CHILD(raise(SIGURG); _exit(2)));
    reap("WINCH", CHILD(raise(SIGWINCH); _exit(3)));
    reap("CONT", CHILD(raise(SIGCONT); _exit(4)));
    CASE("abort");
    reap("abort", CHILD(abort()));
    reap("blocked abort", CHILD(sigset_t all; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, 0); abort()));
}

static void wait_errors(void)
{
    int status;
    siginfo_t info;
    CASE("errors");
    SHOW(waitpid(-1, &status, 0));
    SHOW(waitpid(-1, &status, WNOHANG));
    SHOW(waitpid(getpid(), &status, 0));
    SHOW(waitpid(1 << 21, &status, 0));
    SHOW(wait4(-1, &status, 0x40, NULL));
    SHOW(waitid(P_ALL, 0, &info, 0));
    SHOW(waitid(P_ALL, 0, &info, WEXITED));
    SHOW(waitid(77, 0, &info, WEXITED));
    SHOW(waitid(P_PID, 0, &info, WEXITED));
    SHOW(waitid(P_PID, -1, &info, WEXITED));
    SHOW(syscall(SYS_wait4, INT_MIN, &status, 0, NULL));
    pid_t pid = CHILD(_exit(5));
    SHOW(syscall(SYS_wait4, pid, BAD, 0, NULL));
    SHOW(waitpid(pid, &status, 0));
}

static void no_hang(void)
{
    int status = 0x7777;
    struct gate gate = gate_make();
    CASE("WNOHANG");
    pid_t pid = CHILD(gate_wait(gate); _exit(6));
    SHOW(waitpid(pid, &status, WNOHANG));
    SHOW_IF(status == 0x7777);
    siginfo_t info;
    memset(&info, 0x55, sizeof info);
    SHOW(waitid(P_PID, pid, &info, WEXITED | WNOHANG));
    SHOW_IF(info.si_pid == 0 && info.si_signo == 0);
    gate_open(gate);
    reap("then", pid);
    SHOW(waitpid(pid, &status, WNOHANG));
    gate_close(gate);
}

static void show_info(const char *what, siginfo_t *info, pid_t pid)
{
    const char *codes[] = {"?", "EXITED", "KILLED", "DUMPED", "TRAPPED", "STOPPED", "CONTINUED"};
    say("%s: signo %s code %s status %d pid %s uid %s errno %d", what, signal_name(info->si_signo),
        info->si_code >= 0 && info->si_code <= 6 ? codes[info->si_code] : "strange", info->si_status,
        info->si_pid == pid ? "right" : "wrong", info->si_uid == getuid() ? "right" : "wrong",
        info->si_errno);
}

static void with_waitid(void)
{
    siginfo_t info;
    CASE("waitid");
    pid_t pid = CHILD(_exit(300));
    SHOW(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    show_info("WNOWAIT", &info, pid);
    SHOW(waitid(P_PID, pid, &info, WEXITED));
    show_info("taken", &info, pid);
    SHOW(waitid(P_PID, pid, &info, WEXITED));
    no_core();
    pid = CHILD(raise(SIGTERM));
    SHOW(waitid(P_PGID, 0, &info, WEXITED));
    show_info("killed", &info, pid);
    pid = CHILD(raise(SIGSEGV));
    SHOW(waitid(P_ALL, 0, &info, WEXITED));
    show_info("segv", &info, pid);
}

static void stop_and_continue(void)
{
    int status;
    siginfo_t info;
    CASE("stopped and continued");
    /* The gate: a second stop would wipe out the unseen report of the continuation. The process group:
     * SIGTSTP does not stop an orphaned one. */
    struct gate gate = gate_make();
    pid_t pid = CHILD(setpgid(0, 0); raise(SIGSTOP); gate_wait(gate); raise(SIGTSTP); _exit(3));
    SHOW_IF(waitpid(pid, &status, WUNTRACED) == pid);
    show_status("first", status);
    SHOW(waitpid(pid, &status, WUNTRACED | WNOHANG));
    MUST(kill(pid, SIGCONT));
    SHOW(waitid(P_PID, pid, &info, WCONTINUED));
    show_info("continued", &info, pid);
    gate_open(gate);
    SHOW(waitid(P_PID, pid, &info, WSTOPPED));
    show_info("second", &info, pid);
    MUST(kill(pid, SIGTERM));
    SHOW(waitpid(pid, &status, WNOHANG));
    MUST(kill(pid, SIGCONT));
    SHOW_IF(waitpid(pid, &status, 0) == pid);
    show_status("last", status);
    pid = CHILD(raise(SIGSTOP));
    SHOW_IF(waitpid(pid, &status, WSTOPPED) == pid);
    MUST(kill(pid, SIGKILL));
    reap("stopped, then KILL", pid);
}

static void zombies(void)
{
    siginfo_t info;
    CASE("zombie");
    pid_t pid = CHILD(_exit(0));
    MUST(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    SHOW(kill(pid, 0));
    SHOW(kill(pid, SIGKILL));
    SHOW_IF(getpgid(pid) == getpgid(0));
    reap("zombie", pid);
    SHOW(kill(pid, 0));
    SHOW(getpgid(pid));
    CASE("SIGCHLD ignored: no zombie");
    signal(SIGCHLD, SIG_IGN);
    struct gate gate = gate_make();
    CHILD(gate_open(gate));
    gate_wait(gate);
    SHOW(waitpid(-1, NULL, 0));
    signal(SIGCHLD, SIG_DFL);
    CASE("SA_NOCLDWAIT");
    struct sigaction action = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    MUST(sigaction(SIGCHLD, &action, NULL));
    CHILD(_exit(1));
    SHOW(waitpid(-1, NULL, 0));
    signal(SIGCHLD, SIG_DFL);
    gate_close(gate);
}

static void many(void)
{
    int status, sum = 0, seen = 0;
    CASE("many children in any order");
    for (int i = 0; i < 20; i++)
        CHILD(_exit(i));
    while (wait(&status) > 0) {
        seen++;
        sum += WEXITSTATUS(status);
    }
    say("seen %d sum %d then %s", seen, sum, error_name(errno));
    CASE("rusage");
    struct rusage usage;
    memset(&usage, 0x55, sizeof usage);
    pid_t pid = CHILD(for (volatile int i = 0; i < 1000; i++));
    SHOW_IF(wait4(pid, &status, 0, &usage) == pid);
    SHOW_IF(usage.ru_utime.tv_sec == 0 && usage.ru_stime.tv_sec == 0);
    SHOW_IF(usage.ru_maxrss > 0);
}

int main(void)
{
    exit_codes();
    no_core();
    by_signal();
    wait_errors();
    no_hang();
    with_waitid();
    stop_and_continue();
    zombies();
    many();
    return 0;
}
