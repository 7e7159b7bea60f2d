/* ptrace(2): group stops of several threads, the end of threads and of the process, stops that nobody waits for. */
#include "ptrace_common.h"
#include <pthread.h>

#define THREADS 3
static pid_t tids[THREADS + 1];

static void *sleeper(void *arg)
{
    for (;;)
        pause();
    return arg;
}

static void many(void)
{
    pthread_t t;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&t, NULL, sleeper, NULL);
    for (;;)
        pause();
}

/* A process of several threads, all traced, running, and in pause(2) by now. */
static pid_t traced_threads(long options)
{
    int status;
    pid_t pid = traced(many);
    set_options(pid, PTRACE_O_TRACECLONE | options);
    tids[0] = pid;
    for (int i = 1; i <= THREADS; i++) {
        MUST(ptrace(PTRACE_CONT, pid, 0, 0));
        NEED(waitpid(pid, &status, __WALL) == pid && status >> 16 == PTRACE_EVENT_CLONE);
        tids[i] = (pid_t)message_of(pid);
        NEED(waitpid(tids[i], &status, __WALL) == tids[i] && WIFSTOPPED(status));
        MUST(ptrace(PTRACE_CONT, tids[i], 0, 0));
    }
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    for (int i = 0; i <= THREADS; i++)
        until_asleep(tids[i]);
    return pid;
}

static int wait_for(pid_t tid)
{
    int status = 0;
    NEED(waitpid(tid, &status, __WALL) == tid);
    return status;
}

static void stops(void)
{
    CASE("a group stop");
    pid_t pid = traced_threads(0);
    siginfo_t info;
    MUST(syscall(SYS_tgkill, pid, tids[2], SIGTSTP));
    show_stop("the one", wait_for(tids[2]));
    MUST(ptrace(PTRACE_CONT, tids[2], 0, SIGSTOP));
    for (int i = 0; i <= THREADS; i++) {
        show_stop("each", wait_for(tids[i]));
        SHOW(ptrace(PTRACE_GETSIGINFO, tids[i], 0, &info));
    }
    for (int i = 0; i <= THREADS; i++)
        MUST(ptrace(PTRACE_CONT, tids[i], 0, 0));
    MUST(syscall(SYS_tgkill, pid, tids[1], SIGTTIN));
    show_stop("another", wait_for(tids[1]));
    MUST(ptrace(PTRACE_CONT, tids[1], 0, SIGSTOP));
    for (int i = 0; i <= THREADS; i++)
        show_stop("each", wait_for(tids[i]));
    for (int i = 1; i <= THREADS; i++)
        MUST(ptrace(PTRACE_DETACH, tids[i], 0, 0));
    MUST(syscall(SYS_tgkill, pid, pid, SIGCONT));
    go("continued", PTRACE_CONT, pid, 0);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    MUST(kill(pid, SIGKILL));
    show_stop("ends", wait_for(pid));
}

static void ends(void)
{
    CASE("the end of a thread and of all");
    pid_t pid = traced_threads(PTRACE_O_TRACEEXIT);
    struct user_regs_struct regs;
    int status;
    MUST(syscall(SYS_tgkill, pid, tids[1], SIGUSR1));
    show_stop("signal", wait_for(tids[1]));
    MUST(ptrace(PTRACE_GETREGS, tids[1], 0, &regs));
    say("rax %s, call %lld", regs.rax == (unsigned long)-514 ? "ERESTARTNOHAND" : "?", regs.orig_rax);
    MUST(ptrace(PTRACE_CONT, tids[1], 0, SIGTERM));
    for (int i = 0; i <= THREADS; i++) {
        show_stop("exits", wait_for(tids[i]));
        say("message %#lx", message_of(tids[i]));
    }
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    SHOW(waitpid(pid, &status, WNOHANG)); /* not before its threads */
    for (int i = 1; i <= THREADS; i++) {
        MUST(ptrace(PTRACE_CONT, tids[i], 0, 0));
        show_stop("thread", wait_for(tids[i]));
    }
    show_stop("process", wait_for(pid));
    SHOW(waitpid(-1, &status, __WALL | WNOHANG));
}

static void unwaited(void)
{
    CASE("threads that nobody waits for");
    pid_t pid = traced_threads(0);
    int status;
    MUST(kill(pid, SIGKILL));
    int seen = 0;
    for (pid_t got; (got = waitpid(-1, &status, __WALL)) > 0; seen++)
        if (WIFSIGNALED(status) && got == pid)
            show_stop("process", status);
    say("%d ends", seen);
    pid_t tracer = CHILD({
        traced_threads(PTRACE_O_EXITKILL);
    });
    reap("tracer", tracer);
    tracer = CHILD({
        pid = traced_threads(PTRACE_O_EXITKILL);
        MUST(kill(pid, SIGKILL));
        usleep(10000); /* zombies are left behind */
    });
    reap("tracer", tracer);
}

int main(void)
{
    stops();
    ends();
    unwaited();
    return 0;
}
