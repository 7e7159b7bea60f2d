/* Signals, processes and threads. */
#define _GNU_SOURCE
#include "micro.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t caught;

static void on_signal(int signo)
{
    (void)signo;
    caught = 1;
}

static void catch_signal(void)
{
    MUST(signal(SIGUSR1, on_signal) != SIG_ERR);
}

static void op_signal_self(void)
{
    caught = 0;
    kill(getpid(), SIGUSR1);
    MUST(caught);
}

static void reap(pid_t pid)
{
    int status;
    MUST(waitpid(pid, &status, 0) == pid);
    MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void op_fork_exit_wait(void)
{
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0)
        _exit(0);
    reap(pid);
}

/* This very program: static, so that no time goes to a dynamic linker. */
static void op_spawn_exec_wait(void)
{
    char *const argv[] = {(char *)own_path, (char *)"exit", NULL};
    char *const envp[] = {NULL};
    pid_t pid;
    MUST((errno = posix_spawn(&pid, own_path, NULL, NULL, argv, envp)) == 0);
    reap(pid);
}

static void *nothing(void *arg)
{
    return arg;
}

static void op_thread_create_join(void)
{
    pthread_t thread;
    MUST((errno = pthread_create(&thread, NULL, nothing, NULL)) == 0);
    MUST((errno = pthread_join(thread, NULL)) == 0);
}

const struct operation process_operations[] = {
    {"signal_self", op_signal_self, catch_signal, NULL},
    {"fork_exit_wait", op_fork_exit_wait, NULL, NULL},
    {"spawn_exec_wait", op_spawn_exec_wait, NULL, NULL},
    {"thread_create_join", op_thread_create_join, NULL, NULL},
    {NULL, NULL, NULL, NULL},
};
