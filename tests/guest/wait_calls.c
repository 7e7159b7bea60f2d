/* wait4(2) and waitid(2): options, what is reported how often, whose children, and the errors. */
#include "check.h"

#include <linux/sched.h>
#include <pthread.h>
#include <sys/prctl.h>

#define UNTOUCHED 0x5a

static siginfo_t fresh(void)
{
    siginfo_t info;
    memset(&info, UNTOUCHED, sizeof info);
    return info;
}

static void show_info(const char *what, long result, const siginfo_t *info, pid_t pid)
{
    if (result == -1)
        say("%s: %s, signo %d pid %d", what, error_name(errno), info->si_signo, info->si_pid);
    else if (info->si_pid == 0)
        say("%s: nothing, signo %d code %d", what, info->si_signo, info->si_code);
    else
        say("%s: signo %d errno %d code %d status %d, %s pid, uid %s", what, info->si_signo,
            info->si_errno, info->si_code, info->si_status, info->si_pid == pid ? "right" : "wrong",
            info->si_uid == getuid() ? "mine" : "not mine");
}

#define WAITID(kind, id, options, pid)                            \
    do {                                                          \
        siginfo_t info_ = fresh();                                \
        long result_ = waitid(kind, (id_t)(id), &info_, options); \
        show_info(#kind " " #options, result_, &info_, pid);      \
    } while (0)

static void errors(void)
{
    int status;
    CASE("errors");
    SHOW(wait4(-1, NULL, 0, NULL));
    SHOW(wait4(-1, NULL, WNOHANG, NULL));
    SHOW(wait4(INT_MIN, NULL, 0, NULL));
    SHOW(wait4(getpid(), NULL, 0, NULL));
    SHOW(wait4(1, NULL, 0, NULL));
    SHOW(wait4(-1, NULL, 0x10, NULL));
    SHOW(wait4(-1, NULL, WEXITED, NULL));
    SHOW(wait4(-1, NULL, WNOWAIT, NULL));
    SHOW(wait4(0, NULL, 0, NULL));
    SHOW(wait4(-getpgrp(), NULL, 0, NULL));
    WAITID(P_ALL, 0, WEXITED, 0);
    WAITID(P_ALL, 0, 0, 0);
    WAITID(P_ALL, 0, WNOHANG, 0);
    WAITID(P_ALL, 0, WEXITED | 0x10, 0);
    WAITID(P_PID, 0, WEXITED, 0);
    WAITID(P_PID, -1, WEXITED, 0);
    WAITID(P_PGID, -1, WEXITED, 0);
    WAITID(P_PGID, 0, WEXITED, 0);
    WAITID(7, 0, WEXITED, 0);
    SHOW(waitid(P_ALL, 0, NULL, WEXITED));
    SHOW(syscall(SYS_waitid, P_ALL, 0, BAD, WEXITED, NULL));
    pid_t pid = CHILD(_exit(3));
    SHOW(wait4(pid, BAD, 0, NULL));
    SHOW(wait4(pid, &status, 0, NULL));
    pid = CHILD(_exit(3));
    SHOW(wait4(pid, &status, 0, BAD));
    SHOW(wait4(pid, &status, 0, NULL));
    pid = CHILD(_exit(3));
    SHOW(syscall(SYS_waitid, P_PID, pid, BAD, WEXITED, NULL));
    SHOW(wait4(pid, &status, 0, NULL));
    pid = CHILD(_exit(3));
    SHOW(waitid(P_PID, pid, NULL, WEXITED));
    SHOW(wait4(pid, &status, 0, NULL));
}

static void ends(void)
{
    int status;
    CASE("ends");
    pid_t pid = CHILD(_exit(300));
    WAITID(P_PID, pid, WEXITED | WNOWAIT, pid);
    WAITID(P_ALL, 0, WEXITED | WNOWAIT, pid);
    WAITID(P_PGID, 0, WEXITED | WNOWAIT | WNOHANG, pid);
    WAITID(P_PGID, getpgrp(), WEXITED | WNOWAIT, pid);
    WAITID(P_PID, pid, WSTOPPED, pid);
    WAITID(P_PID, pid, WCONTINUED | WNOHANG, pid);
    SHOW_IF(wait4(pid, &status, __WALL, NULL) == pid);
    show_status("wait4", status);
    WAITID(P_PID, pid, WEXITED, pid);
    pid = CHILD(no_core(); kill(getpid(), SIGKILL));
    WAITID(P_PID, pid, WEXITED, pid);
    pid = CHILD(no_core(); abort());
    WAITID(P_PID, pid, WEXITED | WNOWAIT, pid);
    SHOW_IF(wait4(pid, &status, 0, NULL) == pid);
    say("status %#x", status);
    struct rusage usage;
    memset(&usage, UNTOUCHED, sizeof usage);
    pid = CHILD(_exit(0));
    SHOW_IF(wait4(pid, NULL, 0, &usage) == pid);
    SHOW_IF(usage.ru_utime.tv_sec == 0 && usage.ru_stime.tv_sec == 0 && usage.ru_nswap == 0);
    memset(&usage, UNTOUCHED, sizeof usage);
    pid = CHILD(_exit(0));
    SHOW(syscall(SYS_waitid, P_PID, pid, NULL, WEXITED, &usage));
    SHOW_IF(usage.ru_utime.tv_sec == 0 && usage.ru_nswap == 0);
}

static void stops(void)
{
    int status;
    CASE("stops");
    pid_t pid = CHILD(for (;;) pause());
    WAITID(P_PID, pid, WEXITED | WSTOPPED | WCONTINUED | WNOHANG, pid);
    kill(pid, SIGSTOP);
    WAITID(P_PID, pid, WSTOPPED | WNOWAIT, pid);
    SHOW(wait4(pid, &status, WNOHANG, NULL));
    WAITID(P_PID, pid, WSTOPPED, pid);
    WAITID(P_PID, pid, WSTOPPED | WNOHANG, pid);
    SHOW(wait4(pid, &status, WUNTRACED | WNOHANG, NULL));
    kill(pid, SIGCONT);
    WAITID(P_PID, pid, WCONTINUED | WNOWAIT, pid);
    SHOW_IF(wait4(pid, &status, WCONTINUED, NULL) == pid);
    show_status("continued", status);
    SHOW(wait4(pid, &status, WCONTINUED | WNOHANG, NULL));
    kill(pid, SIGCONT);
    kill(pid, SIGKILL);
    WAITID(P_PID, pid, WEXITED | WSTOPPED | WCONTINUED, pid);
}

static volatile sig_atomic_t seen_code, seen_status, seen;

static void on_child(int signo UNUSED, siginfo_t *info, void *context UNUSED)
{
    seen++;
    seen_code = info->si_code;
    seen_status = info->si_status;
}

static void notices(void)
{
    int status;
    CASE("SIGCHLD");
    handle_flags(SIGCHLD, on_child, 0);
    pid_t pid = CHILD(for (;;) pause());
    kill(pid, SIGSTOP);
    waitid(P_PID, pid, &(siginfo_t){0}, WSTOPPED);
    say("%d: code %d status %d", seen, seen_code, seen_status);
    kill(pid, SIGCONT);
    waitid(P_PID, pid, &(siginfo_t){0}, WCONTINUED);
    usleep(50000);
    say("%d: code %d status %d", seen, seen_code, seen_status);
    kill(pid, SIGTERM);
    while (wait4(pid, &status, 0, NULL) == -1)
        ;
    say("%d: code %d status %d", seen, seen_code, seen_status);
    handle_flags(SIGCHLD, on_child, SA_NOCLDSTOP);
    seen = 0;
    pid = CHILD(for (;;) pause());
    kill(pid, SIGSTOP);
    waitid(P_PID, pid, &(siginfo_t){0}, WSTOPPED);
    kill(pid, SIGCONT);
    waitid(P_PID, pid, &(siginfo_t){0}, WCONTINUED);
    usleep(50000);
    say("NOCLDSTOP: %d", seen);
    kill(pid, SIGKILL);
    while (wait4(pid, &status, 0, NULL) == -1)
        ;
    say("killed: %d code %d", seen, seen_code);
    CASE("unwanted children");
    handle_flags(SIGCHLD, on_child, SA_NOCLDWAIT);
    seen = 0;
    pid = CHILD(_exit(1));
    long result;
    while ((result = wait4(pid, &status, 0, NULL)) == -1 && errno == EINTR)
        ;
    show_result("wait4 with NOCLDWAIT", result);
    say("told %d times", seen);
    signal(SIGCHLD, SIG_IGN);
    pid = CHILD(usleep(1000); _exit(1));
    SHOW(wait4(pid, &status, 0, NULL));
    pid = CHILD(usleep(1000));
    pid_t second = CHILD(usleep(30000));
    SHOW(wait4(-1, &status, 0, NULL));
    SHOW(kill(second, 0));
    struct clone_args args = {.exit_signal = SIGUSR1};
    signal(SIGUSR1, SIG_IGN);
    pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(9);
    SHOW_IF(wait4(pid, &status, __WALL, NULL) == pid);
    show_status("another exit signal", status);
    signal(SIGCHLD, SIG_DFL);
}

static void which(void)
{
    int status;
    CASE("which children");
    pid_t leader = CHILD(setpgid(0, 0); for (;;) pause());
    setpgid(leader, leader);
    pid_t member = CHILD(setpgid(0, leader); _exit(5));
    setpgid(member, leader);
    SHOW(wait4(0, &status, WNOHANG, NULL));
    SHOW_IF(wait4(-leader, &status, 0, NULL) == member);
    show_status("member", status);
    WAITID(P_PGID, leader, WEXITED | WNOHANG, leader);
    kill(leader, SIGKILL);
    SHOW_IF(wait4(-leader, &status, 0, NULL) == leader);
    SHOW(wait4(-leader, &status, 0, NULL));
    pid_t odd = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
    if (odd == 0)
        _exit(2);
    SHOW(wait4(odd, &status, 0, NULL));
    SHOW(wait4(-1, &status, WNOHANG, NULL));
    SHOW_IF(wait4(odd, &status, __WCLONE, NULL) == odd);
    pid_t plain = CHILD(_exit(2));
    SHOW(wait4(plain, &status, __WCLONE, NULL));
    SHOW_IF(wait4(plain, &status, __WCLONE | __WALL, NULL) == plain);
}

static pid_t thread_child;
static struct gate go, done;

static void *parent_thread(void *arg UNUSED)
{
    thread_child = fork();
    if (thread_child == 0) {
        gate_wait(go);
        _exit(6);
    }
    gate_open(done);
    gate_wait(go);
    return NULL;
}

static void threads(void)
{
    int status;
    pthread_t thread;
    CASE("children of other threads");
    go = gate_make(), done = gate_make();
    NEED(pthread_create(&thread, NULL, parent_thread, NULL) == 0);
    gate_wait(done);
    SHOW(wait4(thread_child, &status, WNOHANG | __WNOTHREAD, NULL));
    SHOW(wait4(thread_child, &status, WNOHANG, NULL));
    gate_open(go);
    gate_open(go);
    pthread_join(thread, NULL);
    SHOW_IF(wait4(thread_child, &status, __WNOTHREAD, NULL) == thread_child);
    show_status("after its parent thread", status);
    gate_close(go), gate_close(done);
}

int main(void)
{
    errors();
    ends();
    stops();
    notices();
    which();
    threads();
    return 0;
}
