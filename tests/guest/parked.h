/* What the programs on calls that sleep share: SIGUSR1 to interrupt them, and threads that sleep in one. */
#include "check.h"

#include <pthread.h>

/* How often SIGUSR1 came since `handle`. */
static volatile sig_atomic_t signals;

static void on_signal(int signo UNUSED)
{
    signals++;
}

static void handle(int flags)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
    MUST(sigaction(SIGUSR1, &action, NULL));
    signals = 0;
}

/* A thread, which sets *tid first; returns when it sleeps in a call, or has ended. */
UNUSED static pthread_t start_parked(void *(*body)(void *), void *argument, volatile pid_t *tid)
{
    pthread_t thread;
    *tid = 0;
    NEED(pthread_create(&thread, NULL, body, argument) == 0);
    while (!*tid)
        sched_yield();
    until_asleep(*tid);
    return thread;
}
