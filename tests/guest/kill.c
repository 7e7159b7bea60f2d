/* kill(2) and its relatives: whom they reach, permissions, errors. */
#include "check.h"

#include <pthread.h>
#include <sys/prctl.h>

static volatile int calls, in_thread;
static pthread_t other;

static void count(int signo UNUSED)
{
    in_thread = pthread_equal(pthread_self(), other) != 0;
    calls++;
}

static void *sleeper(void *arg)
{
    struct gate *gates = arg;
    gate_open(gates[0]);
    gate_wait(gates[1]);
    return NULL;
}

static void *killer(void *arg UNUSED)
{
    usleep(100000);
    MUST(kill(getpid(), SIGUSR1));
    return NULL;
}

static void *stranger(void *arg UNUSED)
{
    MUST(syscall(SYS_setresuid, 12345, 12345, 12345)); /* of this thread alone */
    SHOW(kill(getpid(), 0));
    SHOW(kill(getpid(), SIGUSR1));
    SHOW(syscall(SYS_tkill, gettid(), 0));
    SHOW(syscall(SYS_tkill, gettid(), SIGUSR1));
    SHOW(syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1));
    return NULL;
}

int main(void)
{
    CASE("errors");
    SHOW(kill(getpid(), 0));
    SHOW(kill(getpid(), 65));
    SHOW(kill(getpid(), -1));
    SHOW(kill(1 << 21, 0));
    SHOW(kill(1 << 21, 99));
    SHOW(kill(-(1 << 21), SIGTERM));
    SHOW(kill(INT_MIN, SIGTERM));
    SHOW(syscall(SYS_tkill, 0, SIGTERM));
    SHOW(syscall(SYS_tkill, -1, SIGTERM));
    SHOW(syscall(SYS_tkill, 1 << 21, SIGTERM));
    SHOW(syscall(SYS_tgkill, getpid(), 1 << 21, SIGTERM));
    SHOW(syscall(SYS_tgkill, 1 << 21, gettid(), SIGTERM));
    SHOW(syscall(SYS_tgkill, -1, gettid(), SIGTERM));
    SHOW(syscall(SYS_tgkill, getpid(), gettid(), 65));
    SHOW(syscall(SYS_tgkill, getpid(), gettid(), 0));
    CASE("a process group");
    handle_plain(SIGUSR1, count);
    struct gate gate = gate_make(), ready = gate_make();
    pid_t leader = CHILD(signal(SIGUSR1, SIG_DFL); setpgid(0, 0); gate_open(ready); gate_wait(gate));
    gate_wait(ready);
    pid_t member = CHILD(signal(SIGUSR1, SIG_DFL); setpgid(0, leader); gate_open(ready); gate_wait(gate));
    gate_wait(ready);
    SHOW_IF(getpgid(member) == leader);
    SHOW(kill(-leader, 0));
    SHOW(kill(-leader, SIGUSR1));
    reap("leader", leader);
    SHOW(kill(-leader, 0));
    reap("member", member);
    SHOW(kill(-leader, 0));
    say("calls here %d", calls);
    CASE("group 0");
    reap("own group", CHILD({
        setpgid(0, 0);
        pid_t inner = CHILD(signal(SIGUSR1, SIG_DFL); gate_open(ready); pause());
        gate_wait(ready);
        SHOW(kill(0, SIGUSR1));
        say("calls %d", calls);
        reap("inner", inner);
    }));
    CASE("to a thread and to a process");
    struct gate gates[2] = {gate_make(), gate_make()};
    pthread_create(&other, NULL, sleeper, gates);
    gate_wait(gates[0]);
    calls = 0;
    say("%d", pthread_kill(other, SIGUSR1));
    while (calls == 0)
        sched_yield();
    say("in the thread %d", in_thread);
    sigset_t set = set_of(SIGUSR1);
    calls = 0;
    MUST(pthread_sigmask(SIG_BLOCK, &set, NULL));
    MUST(kill(getpid(), SIGUSR1));
    while (calls == 0)
        sched_yield();
    say("the one that doesn't block it %d", in_thread);
    MUST(pthread_sigmask(SIG_UNBLOCK, &set, NULL));
    gate_open(gates[1]);
    pthread_join(other, NULL);
    CASE("a thread's own pending signal");
    MUST(pthread_sigmask(SIG_BLOCK, &set, NULL));
    calls = 0;
    raise(SIGUSR1);
    kill(getpid(), SIGUSR1);
    MUST(pthread_sigmask(SIG_UNBLOCK, &set, NULL));
    say("calls %d", calls);
    CASE("the first thread is disturbed, if it doesn't block it");
    calls = 0;
    pthread_create(&other, NULL, killer, NULL);
    SHOW(nanosleep(&(struct timespec){.tv_sec = 20}, NULL));
    pthread_join(other, NULL);
    say("calls %d, in the thread %d", calls, in_thread);
    if (geteuid() == 0) {
        CASE("threads of other users, in one process");
        calls = 0;
        pthread_create(&other, NULL, stranger, NULL);
        pthread_join(other, NULL);
        say("calls %d", calls);
        CASE("other users");
        pid_t victim = CHILD(gate_wait(gate));
        reap("stranger", CHILD({
            MUST(setresuid(12345, 12345, 12345));
            SHOW(kill(victim, 0));
            SHOW(kill(victim, SIGKILL));
            SHOW(syscall(SYS_tkill, victim, SIGKILL));
            SHOW(sigqueue(victim, SIGKILL, (union sigval){0}));
        }));
        gate_open(gate);
        reap("victim", victim);
        CASE("the same real user suffices");
        victim = CHILD(MUST(setresuid(12345, 0, 0)); gate_open(ready); pause());
        gate_wait(ready);
        reap("real", CHILD(MUST(setresuid(12345, 12345, 12345)); SHOW(kill(victim, SIGTERM))));
        reap("victim", victim);
    }
    return 0;
}
