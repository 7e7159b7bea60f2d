/* Ends in any order: the first thread before others, execve by another thread, exit codes, orphans,
 * PDEATHSIG. */
#include "check.h"

#include <pthread.h>
#include <sys/prctl.h>

static char program[PATH_MAX];
static struct gate one, two;
static volatile sig_atomic_t got, got_pid;

static void *late(void *arg)
{
    gate_wait(one);
    if (arg)
        syscall(SYS_exit, 9);
    return NULL;
}

static void leader_first(void)
{
    int status;
    CASE("the first thread ends first");
    one = gate_make();
    pid_t pid = MUST(fork());
    if (pid == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, late, (void *)1);
        syscall(SYS_exit, 5);
    }
    usleep(20000);
    SHOW(waitpid(pid, &status, WNOHANG));
    say("state %c", task_state(pid));
    SHOW(kill(pid, 0));
    gate_open(one);
    reap("process", pid);
    pid = MUST(fork());
    if (pid == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, late, NULL);
        syscall(SYS_exit, 5);
    }
    usleep(20000);
    SHOW(kill(pid, SIGTERM));
    reap("killed", pid);
    gate_close(one);
}

static void *execs(void *arg)
{
    char *argv[] = {"exe", "child", arg, NULL};
    char tid[16];
    snprintf(tid, sizeof tid, "%d", getpid());
    argv[2] = tid;
    execv(program, argv);
    return NULL;
}

static void *sleeps(void *arg)
{
    while (!got)
        pause();
    return arg;
}

static void exec_elsewhere(void)
{
    CASE("execve by another thread");
    pid_t pid = MUST(fork());
    if (pid == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, sleeps, NULL);
        pthread_create(&thread, NULL, sleeps, NULL);
        pthread_create(&thread, NULL, execs, NULL);
        pthread_join(thread, NULL);
        _exit(1);
    }
    reap("program", pid);
    pid = MUST(fork());
    if (pid == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, execs, NULL);
        syscall(SYS_exit, 3);
    }
    reap("after the first thread's end", pid);
}

static int as_child(const char *pid)
{
    say("pid kept: %d, tid is pid: %d", getpid() == atoi(pid), syscall(SYS_gettid) == getpid());
    return 44;
}

static void on_death(int signo, siginfo_t *info, void *context UNUSED)
{
    got = signo;
    got_pid = info->si_pid;
}

static void *forks(void *arg)
{
    pid_t *child = arg;
    *child = fork();
    if (*child == 0) {
        handle_flags(SIGUSR1, on_death, 0);
        prctl(PR_SET_PDEATHSIG, SIGUSR1);
        gate_open(one);
        while (!got)
            usleep(1000);
        say("parent thread gone: %s from %s", signal_name(got),
            got_pid == getppid() ? "its parent" : "somebody");
        _exit(0);
    }
    gate_wait(one);
    return NULL;
}

static void death_signal(void)
{
    CASE("PR_SET_PDEATHSIG");
    int value;
    SHOW(prctl(PR_SET_PDEATHSIG, 65));
    SHOW(prctl(PR_SET_PDEATHSIG, SIGUSR2));
    SHOW(prctl(PR_GET_PDEATHSIG, &value));
    say("%s", signal_name(value));
    pid_t pid = CHILD(prctl(PR_GET_PDEATHSIG, &value); say("in a child: %d", value));
    reap("child", pid);
    prctl(PR_SET_PDEATHSIG, 0);
    SHOW(prctl(PR_GET_PDEATHSIG, BAD));
    one = gate_make();
    pthread_t thread;
    pid_t child = 0;
    pthread_create(&thread, NULL, forks, &child);
    pthread_join(thread, NULL);
    reap("child of a thread", child);
    two = gate_make();
    struct gate three = gate_make();
    pid = CHILD(pid_t inner = fork(); if (inner == 0) {
        handle_flags(SIGUSR1, on_death, 0);
        prctl(PR_SET_PDEATHSIG, SIGUSR1);
        gate_open(two);
        while (!got)
            usleep(1000);
        usleep(20000);
        say("parent gone: %s", signal_name(got));
        gate_open(three);
        _exit(0);
    } gate_wait(two);
                _exit(0));
    reap("parent", pid);
    gate_wait(three);
}

static void subreaper(void)
{
    int value = -1, status;
    CASE("subreaper");
    SHOW(prctl(PR_GET_CHILD_SUBREAPER, &value));
    say("%d", value);
    SHOW(prctl(PR_SET_CHILD_SUBREAPER, 1));
    prctl(PR_GET_CHILD_SUBREAPER, &value);
    say("%d", value);
    pid_t self = getpid();
    pid_t pid =
        CHILD(prctl(PR_GET_CHILD_SUBREAPER, &value); say("child: %d", value); if (fork() == 0) {
            while (getppid() != self)
                usleep(1000);
            _exit(11);
        } _exit(10));
    reap("parent", pid);
    SHOW_IF(waitpid(-1, &status, 0) > 0);
    show_status("orphan", status);
    SHOW(prctl(PR_SET_CHILD_SUBREAPER, 0));
}

static void orphaned_group(void)
{
    CASE("an orphaned process group");
    struct gate told = gate_make();
    pid_t pid = MUST(fork());
    if (pid == 0) {
        setsid();
        pid_t middle = CHILD(setpgid(0, 0); pid_t inner = fork(); if (inner == 0) {
            signal(SIGHUP, SIG_IGN);
            handle_flags(SIGHUP, on_death, 0);
            raise(SIGSTOP);
            say("stopped and then %s", got ? signal_name(got) : "nothing");
            gate_open(told);
            _exit(0);
        } waitid(P_PID, (id_t)inner, &(siginfo_t){0}, WSTOPPED);
                             _exit(0));
        waitpid(middle, NULL, 0);
        gate_wait(told);
        _exit(0);
    }
    reap("session", pid);
    gate_close(told);
}

int main(int argc, char **argv)
{
    if (argc == 3)
        return as_child(argv[2]);
    NEED(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
    leader_first();
    exec_elsewhere();
    death_signal();
    subreaper();
    orphaned_group();
    return 0;
}
