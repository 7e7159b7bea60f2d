/* Signals and threads: who gets a signal of the process, masks of threads, waiting threads, timers of threads. */
#include "check.h"

#include <pthread.h>
#include <sys/signalfd.h>

static volatile sig_atomic_t count;
static volatile pthread_t taker;
static pthread_barrier_t barrier;

static void take(int signo UNUSED)
{
    taker = pthread_self();
    count++;
}

static void mask(int how, int signo)
{
    sigset_t set = set_of(signo);
    MUST(pthread_sigmask(how, &set, NULL));
}

static volatile int stop;

static void *spins(void *blocks)
{
    mask(blocks ? SIG_BLOCK : SIG_UNBLOCK, SIGUSR1);
    pthread_barrier_wait(&barrier);
    while (!stop)
        usleep(1000);
    return NULL;
}

static void until(int wanted)
{
    for (int i = 0; i < 5000 && count < wanted; i++)
        usleep(1000);
}

static void chosen(void)
{
    pthread_t threads[2];
    CASE("a thread that does not block it takes a signal of the process");
    handle_plain(SIGUSR1, take);
    mask(SIG_BLOCK, SIGUSR1);
    pthread_barrier_init(&barrier, NULL, 3);
    pthread_create(&threads[0], NULL, spins, (void *)1);
    pthread_create(&threads[1], NULL, spins, NULL);
    pthread_barrier_wait(&barrier);
    count = 0;
    MUST(kill(getpid(), SIGUSR1));
    until(1);
    say("%d, by the second %d", (int)count, pthread_equal(taker, threads[1]));
    MUST(sigqueue(getpid(), SIGUSR1, (union sigval){0}));
    until(2);
    say("%d, by the second %d", (int)count, pthread_equal(taker, threads[1]));
    CASE("the first thread is preferred when it can");
    mask(SIG_UNBLOCK, SIGUSR1);
    MUST(kill(getpid(), SIGUSR1));
    until(3);
    say("%d, by the first %d", (int)count, pthread_equal(taker, pthread_self()));
    CASE("a signal to a thread stays there");
    mask(SIG_BLOCK, SIGUSR1);
    SHOW(pthread_kill(threads[0], SIGUSR1));
    usleep(20000);
    SHOW((int)count);
    sigset_t pending;
    sigpending(&pending);
    SHOW(sigismember(&pending, SIGUSR1));
    SHOW(pthread_kill(pthread_self(), SIGUSR1));
    sigpending(&pending);
    SHOW(sigismember(&pending, SIGUSR1));
    stop = 1;
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    mask(SIG_UNBLOCK, SIGUSR1);
    SHOW((int)count);
}

static void *waits(void *seconds)
{
    sigset_t set = set_of(SIGUSR2);
    siginfo_t info;
    struct timespec limit = {(long)seconds, 0};
    pthread_barrier_wait(&barrier);
    long got = sigtimedwait(&set, &info, &limit);
    return (void *)(got < 0 ? -errno : got);
}

static void waiting(void)
{
    pthread_t threads[3];
    void *result;
    CASE("sigwait in several threads: each signal once");
    mask(SIG_BLOCK, SIGUSR2);
    pthread_barrier_init(&barrier, NULL, 4);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, waits, (void *)20);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 3; i++) {
        usleep(30000);
        MUST(pthread_kill(threads[i], SIGUSR2));
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &result);
        say("%s", (long)result == SIGUSR2 ? "USR2" : error_name(-(int)(long)result));
    }
    CASE("and a time-out");
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&threads[0], NULL, waits, (void *)0);
    pthread_barrier_wait(&barrier);
    pthread_join(threads[0], &result);
    say("%s", error_name(-(int)(long)result));
    CASE("an ignored signal that is waited for");
    signal(SIGUSR2, SIG_IGN);
    pthread_create(&threads[0], NULL, waits, (void *)20);
    pthread_barrier_wait(&barrier);
    usleep(30000);
    MUST(kill(getpid(), SIGUSR2));
    pthread_join(threads[0], &result);
    say("%s", (long)result == SIGUSR2 ? "USR2" : error_name(-(int)(long)result));
    signal(SIGUSR2, SIG_DFL);
    CASE("another signal ends the wait");
    handle_plain(SIGUSR1, take);
    pthread_create(&threads[0], NULL, waits, (void *)20);
    pthread_barrier_wait(&barrier);
    usleep(30000);
    MUST(pthread_kill(threads[0], SIGUSR1));
    pthread_join(threads[0], &result);
    say("%s", error_name(-(int)(long)result));
}

static void *fatal(void *unused)
{
    pthread_barrier_wait(&barrier);
    for (;;)
        pause();
    return unused;
}

static void death(void)
{
    CASE("a fatal signal to one thread ends all");
    no_core();
    reap("thread", CHILD({
        pthread_t thread;
        pthread_barrier_init(&barrier, NULL, 2);
        pthread_create(&thread, NULL, fatal, NULL);
        pthread_barrier_wait(&barrier);
        pthread_kill(thread, SIGTERM);
        for (;;)
            pause();
    }));
    reap("cancelled", CHILD({
        pthread_t thread;
        void *result;
        pthread_barrier_init(&barrier, NULL, 2);
        pthread_create(&thread, NULL, fatal, NULL);
        pthread_barrier_wait(&barrier);
        SHOW(pthread_cancel(thread));
        SHOW(pthread_join(thread, &result));
        SHOW(result == PTHREAD_CANCELED);
    }));
    reap("the leader leaves", CHILD({
        pthread_t thread;
        pthread_barrier_init(&barrier, NULL, 2);
        pthread_create(&thread, NULL, fatal, NULL);
        pthread_barrier_wait(&barrier);
        if (fork() == 0) {
            usleep(50000);
            kill(getppid(), SIGUSR2);
            _exit(0);
        }
        pthread_exit(NULL);
    }));
}

static void *stopped(void *counter)
{
    for (;;) {
        ++*(volatile int *)counter;
        usleep(1000);
    }
    return NULL;
}

static void stops(void)
{
    CASE("a stop stops all threads");
    int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), status;
    pid_t pid = CHILD({
        pthread_t thread;
        pthread_create(&thread, NULL, stopped, shared);
        stopped(shared + 1);
    });
    while (!*(volatile int *)shared || !((volatile int *)shared)[1])
        usleep(1000);
    MUST(kill(pid, SIGSTOP));
    MUST(waitpid(pid, &status, WUNTRACED));
    usleep(20000);
    int first = shared[0], second = shared[1];
    usleep(50000);
    SHOW_IF(shared[0] == first && shared[1] == second);
    MUST(kill(pid, SIGCONT));
    MUST(waitpid(pid, &status, WCONTINUED));
    for (int i = 0; i < 2000 && (shared[0] == first || shared[1] == second); i++)
        usleep(1000);
    SHOW_IF(shared[0] != first && shared[1] != second);
    MUST(kill(pid, SIGKILL));
    reap("end", pid);
}

static void *reads(void *fd)
{
    struct signalfd_siginfo info;
    long got = read((int)(long)fd, &info, sizeof info);
    return (void *)(got == sizeof info ? (long)info.ssi_signo : -errno);
}

static void by_descriptor(void)
{
    pthread_t thread;
    void *result;
    sigset_t set = set_of(SIGUSR2);
    CASE("signalfd sees the signals of who reads");
    mask(SIG_BLOCK, SIGUSR2);
    int fd = MUST(signalfd(-1, &set, 0));
    MUST(pthread_kill(pthread_self(), SIGUSR2));
    pthread_create(&thread, NULL, reads, (void *)(long)fd);
    usleep(50000);
    MUST(kill(getpid(), SIGUSR2));
    pthread_join(thread, &result);
    say("%s", (long)result == SIGUSR2 ? "USR2" : error_name(-(int)(long)result));
    SHOW((long)reads((void *)(long)fd) == SIGUSR2);
}

static volatile int leave, heard;

static void hear(int signo UNUSED)
{
    heard = 1;
}

static void *leaves(void *arg UNUSED)
{
    while (!leave)
        ;
    syscall(SYS_exit, 0); /* libc would block all signals first */
    return NULL;
}

static void *listens(void *tid)
{
    sigset_t none;
    sigemptyset(&none);
    *(volatile int *)tid = (int)syscall(SYS_gettid);
    sigsuspend(&none);
    return NULL;
}

/* Whoever was chosen for a signal and ends at that moment leaves it to another thread. */
static void heirs(void)
{
    CASE("the end of the thread that was chosen");
    handle_plain(SIGUSR1, hear);
    mask(SIG_BLOCK, SIGUSR1);
    for (int round = 0; round < 200; round++) {
        pthread_t first, second;
        volatile int tid = 0;
        leave = heard = 0;
        mask(SIG_UNBLOCK, SIGUSR1);
        pthread_create(&first, NULL, leaves, NULL);
        mask(SIG_BLOCK, SIGUSR1);
        pthread_create(&second, NULL, listens, (void *)&tid);
        while (!tid)
            ;
        until_asleep(tid);
        leave = 1;
        kill(getpid(), SIGUSR1);
        while (!heard)
            sched_yield();
        pthread_join(first, NULL);
        pthread_kill(second, SIGUSR1);
        pthread_join(second, NULL);
        mask(SIG_UNBLOCK, SIGUSR1);
        mask(SIG_BLOCK, SIGUSR1);
    }
    say("all were heard");
}

static uint32_t word;

static void *sleeps_on_futex(void *tid)
{
    *(volatile int *)tid = (int)syscall(SYS_gettid);
    syscall(SYS_futex, &word, 128, 0, NULL, NULL, 0);
    return NULL;
}

static void states(void)
{
    pthread_t thread;
    volatile int tid = 0;
    int sleeping = 0;
    CASE("who waits for a private futex sleeps");
    pthread_create(&thread, NULL, sleeps_on_futex, (void *)&tid);
    for (int i = 0; i < 2000 && !sleeping; i++) {
        usleep(1000);
        sleeping = tid && task_state(tid) == 'S';
    }
    SHOW(sleeping);
    while (syscall(SYS_futex, &word, 129, 1, NULL, NULL, 0) == 0)
        usleep(1000);
    pthread_join(thread, NULL);
}

int main(void)
{
    states();
    reap("chosen", CHILD(chosen()));
    reap("waiting", CHILD(waiting()));
    death();
    stops();
    reap("by descriptor", CHILD(by_descriptor()));
    reap("heirs", CHILD(heirs()));
    return 0;
}
