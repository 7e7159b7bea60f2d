/* CPU time: its clocks, timers, limits and what getrusage(2), times(2) and wait4(2) tell of it. */
#include "check.h"

#include <pthread.h>
#include <sys/times.h>

#define CPU_CLOCK(pid, kind) ((~(clockid_t)(pid) << 3) | (kind))
#define PROF 0
#define VIRT 1
#define SCHED 2
#define PER_THREAD 4

static double on(clockid_t clock)
{
    struct timespec t;
    MUST(clock_gettime(clock, &t));
    return t.tv_sec + t.tv_nsec / 1e9;
}

static volatile unsigned sink;

/* Until so much CPU time of this thread has gone by. */
static void burn(double seconds)
{
    double end = on(CLOCK_THREAD_CPUTIME_ID) + seconds;
    while (on(CLOCK_THREAD_CPUTIME_ID) < end)
        for (int i = 0; i < 20000; i++)
            sink += i;
}

static double total(const struct rusage *u)
{
    return u->ru_utime.tv_sec + u->ru_stime.tv_sec + (u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

static double used(int who)
{
    struct rusage usage;
    MUST(getrusage(who, &usage));
    return total(&usage);
}

static void sleeping(void)
{
    CASE("who sleeps uses no time");
    double process = on(CLOCK_PROCESS_CPUTIME_ID), thread = on(CLOCK_THREAD_CPUTIME_ID), self = used(RUSAGE_SELF);
    usleep(300000);
    SHOW_IF(on(CLOCK_PROCESS_CPUTIME_ID) - process < 0.1);
    SHOW_IF(on(CLOCK_THREAD_CPUTIME_ID) - thread < 0.1);
    SHOW_IF(used(RUSAGE_SELF) - self < 0.1);
}

static void computing(void)
{
    struct tms before, after;
    CASE("who computes does");
    double process = on(CLOCK_PROCESS_CPUTIME_ID), self = used(RUSAGE_SELF), thread = used(RUSAGE_THREAD);
    double by_pid = on(CPU_CLOCK(getpid(), SCHED));
    times(&before);
    burn(0.15);
    times(&after);
    SHOW_IF(on(CLOCK_PROCESS_CPUTIME_ID) - process > 0.12);
    SHOW_IF(on(CPU_CLOCK(getpid(), SCHED)) - by_pid > 0.12);
    SHOW_IF(used(RUSAGE_SELF) - self > 0.12);
    SHOW_IF(used(RUSAGE_THREAD) - thread > 0.12);
    SHOW_IF(after.tms_utime + after.tms_stime - before.tms_utime - before.tms_stime >= 11);
    SHOW_IF(on(CLOCK_PROCESS_CPUTIME_ID) >= on(CLOCK_THREAD_CPUTIME_ID) - 0.001);
    double last = on(CLOCK_PROCESS_CPUTIME_ID);
    bool grows = true;
    for (int i = 0; i < 1000; i++) {
        double now = on(CLOCK_PROCESS_CPUTIME_ID);
        grows = grows && now >= last;
        last = now;
    }
    SHOW_IF(grows);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int done;

static void *burner(void *result)
{
    burn(0.15);
    *(double *)result = on(CLOCK_THREAD_CPUTIME_ID);
    pthread_mutex_lock(&lock);
    done = 1;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void threads(void)
{
    pthread_t thread;
    double theirs, mine = on(CLOCK_THREAD_CPUTIME_ID), all = on(CLOCK_PROCESS_CPUTIME_ID);
    CASE("threads");
    pthread_create(&thread, NULL, burner, &theirs);
    pthread_mutex_lock(&lock);
    while (!done)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    SHOW_IF(on(CLOCK_THREAD_CPUTIME_ID) - mine < 0.08);
    pthread_join(thread, NULL);
    SHOW_IF(theirs >= 0.15 && theirs < 0.25);
    SHOW_IF(on(CLOCK_PROCESS_CPUTIME_ID) - all > 0.13);
}

static void children(void)
{
    struct rusage usage;
    struct tms before, after;
    int status;
    CASE("children");
    double ours = on(CLOCK_PROCESS_CPUTIME_ID), earlier = used(RUSAGE_CHILDREN);
    times(&before);
    struct gate gate = gate_make();
    pid_t pid = CHILD(gate_wait(gate); SHOW_IF(on(CLOCK_PROCESS_CPUTIME_ID) < 0.1); burn(0.1));
    SHOW_IF(on(CPU_CLOCK(pid, SCHED)) >= 0);
    gate_open(gate);
    MUST(wait4(pid, &status, 0, &usage));
    SHOW_IF(total(&usage) >= 0.09);
    SHOW_IF(used(RUSAGE_CHILDREN) - earlier >= 0.09);
    times(&after);
    SHOW_IF(after.tms_cutime + after.tms_cstime - before.tms_cutime - before.tms_cstime >= 9);
    SHOW_IF(on(CLOCK_PROCESS_CPUTIME_ID) - ours < 0.09);
    SHOW_IF(usage.ru_maxrss > 100);
    SHOW_IF(getrusage(RUSAGE_CHILDREN, &usage) == 0 && usage.ru_maxrss > 100);
    double children = used(RUSAGE_CHILDREN);
    signal(SIGCHLD, SIG_IGN);
    pid = CHILD(burn(0.05));
    SHOW(waitpid(pid, &status, 0));
    SHOW_IF(used(RUSAGE_CHILDREN) == children);
    signal(SIGCHLD, SIG_DFL);
}

static void clock_ids(void)
{
    struct timespec t;
    pid_t gone = CHILD(_exit(0));
    reap("child", gone);
    CASE("clocks of others, and none");
    clockid_t id = 0;
    SHOW(clock_getcpuclockid(getpid(), &id));
    SHOW(id == CPU_CLOCK(getpid(), SCHED));
    SHOW(clock_getcpuclockid(gone, &id));
    SHOW(clock_gettime(CPU_CLOCK(gone, SCHED), &t));
    SHOW(clock_getres(CPU_CLOCK(gone, SCHED), &t));
    SHOW(clock_gettime(CPU_CLOCK(1, SCHED | PER_THREAD), &t));
    SHOW(clock_gettime(CPU_CLOCK(getpid(), SCHED | PER_THREAD), &t));
    SHOW(clock_gettime(CPU_CLOCK(0, SCHED | PER_THREAD), &t));
    SHOW(clock_gettime(CPU_CLOCK(0, SCHED), &t));
    SHOW(clock_gettime(CPU_CLOCK(0, PROF), &t));
    SHOW(clock_gettime(CPU_CLOCK(0, VIRT), &t));
    SHOW(clock_gettime(CPU_CLOCK(0, 3), &t));
    SHOW(clock_gettime(CPU_CLOCK(3, 3), &t));
    SHOW(clock_gettime(12, &t));
    SHOW(clock_gettime(10, &t));
    SHOW(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, BAD));
    SHOW(syscall(SYS_clock_getres, CPU_CLOCK(0, PROF), &t));
    SHOW_IF(t.tv_nsec >= 1000000);
    SHOW(syscall(SYS_clock_getres, CLOCK_PROCESS_CPUTIME_ID, &t));
    say("%ld", t.tv_nsec);
    SHOW(syscall(SYS_clock_settime, CLOCK_PROCESS_CPUTIME_ID, &t));
    SHOW(syscall(SYS_clock_settime, CLOCK_MONOTONIC, &t));
    SHOW(syscall(SYS_clock_settime, CLOCK_THREAD_CPUTIME_ID, &t));
    SHOW(syscall(SYS_clock_settime, 77, &t));
    SHOW(getrusage(7, NULL));
    SHOW(getrusage(RUSAGE_SELF, BAD));
    SHOW(syscall(SYS_times, BAD));
}

static void cpu_sleep(void)
{
    struct timespec none = {0, 0}, bad = {0, -1};
    CASE("sleeping on CPU clocks");
    SHOW(syscall(SYS_clock_nanosleep, CLOCK_PROCESS_CPUTIME_ID, 0, &none, NULL));
    SHOW(syscall(SYS_clock_nanosleep, CLOCK_PROCESS_CPUTIME_ID, TIMER_ABSTIME, &none, NULL));
    SHOW(syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &none, NULL));
    SHOW(syscall(SYS_clock_nanosleep, CPU_CLOCK(0, SCHED | PER_THREAD), 0, &none, NULL));
    SHOW(syscall(SYS_clock_nanosleep, CLOCK_PROCESS_CPUTIME_ID, 0, &bad, NULL));
    SHOW(syscall(SYS_clock_nanosleep, CPU_CLOCK(0, 3), 0, &none, NULL));
}

static volatile int signals;

static void count(int signo UNUSED)
{
    signals++;
}

static void timers(void)
{
    static const struct {
        int which, signo;
    } kinds[] = {{ITIMER_VIRTUAL, SIGVTALRM}, {ITIMER_PROF, SIGPROF}};
    CASE("interval timers on CPU time");
    for (int i = 0; i < 2; i++) {
        struct itimerval value = {{0, 20000}, {0, 50000}}, old;
        signals = 0;
        handle_plain(kinds[i].signo, count);
        SHOW(setitimer(kinds[i].which, &value, NULL));
        usleep(100000);
        SHOW_IF(signals == 0);
        SHOW(getitimer(kinds[i].which, &old));
        SHOW_IF(old.it_value.tv_usec > 20000 && old.it_interval.tv_usec == 20000);
        for (int turns = 0; turns < 200 && signals < 3; turns++)
            burn(0.01);
        SHOW_IF(signals >= 3);
        value = (struct itimerval){{0, 0}, {0, 0}};
        SHOW(setitimer(kinds[i].which, &value, &old));
        SHOW_IF(old.it_value.tv_usec > 0);
    }
    CASE("POSIX timers on CPU time");
    static const clockid_t clocks[] = {CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID};
    for (int i = 0; i < 2; i++) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
        struct itimerspec value = {{0, 0}, {0, 30000000}}, left;
        timer_t timer;
        signals = 0;
        handle_plain(SIGUSR1, count);
        SHOW(timer_create(clocks[i], &event, &timer));
        SHOW(timer_settime(timer, 0, &value, NULL));
        usleep(60000);
        SHOW_IF(signals == 0);
        SHOW(timer_gettime(timer, &left));
        SHOW_IF(left.it_value.tv_nsec > 0);
        for (int turns = 0; turns < 200 && !signals; turns++)
            burn(0.01);
        SHOW(signals);
        SHOW(timer_delete(timer));
    }
}

#define WORKERS 3
static __thread volatile int mine;
static volatile int served;

static void count_mine(int signo UNUSED)
{
    mine++;
}

static void *until_signalled(void *arg UNUSED)
{
    while (mine < 3)
        burn(0.001);
    __atomic_add_fetch(&served, 1, __ATOMIC_SEQ_CST);
    while (served < WORKERS)
        burn(0.001);
    return NULL;
}

/* The signal goes to a thread that computes, not to the first one, which sleeps: each gets its share. */
static void fair(void)
{
    CASE("timers of the process among threads");
    struct itimerval often = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
    struct itimerspec interval = {{0, 5000000}, {0, 5000000}};
    pthread_t threads[WORKERS];
    timer_t timer;
    handle_plain(SIGPROF, count_mine);
    handle_plain(SIGUSR2, count_mine);
    for (int kind = 0; kind < 2; kind++) {
        served = 0;
        if (kind == 0) {
            MUST(setitimer(ITIMER_PROF, &often, NULL));
        } else {
            MUST(timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer));
            MUST(timer_settime(timer, 0, &interval, NULL));
        }
        for (int i = 0; i < WORKERS; i++)
            pthread_create(&threads[i], NULL, until_signalled, NULL);
        for (int i = 0; i < WORKERS; i++)
            pthread_join(threads[i], NULL);
        MUST(kind ? timer_delete(timer) : setitimer(ITIMER_PROF, &never, NULL));
        SHOW(served);
    }
}

static void limits(void)
{
    CASE("RLIMIT_CPU");
    no_core();
    handle_plain(SIGXCPU, count);
    struct rlimit limit = {1, 2};
    signals = 0;
    pid_t pid = CHILD({
        MUST(setrlimit(RLIMIT_CPU, &limit));
        while (!signals)
            burn(0.02);
        double at = on(CLOCK_PROCESS_CPUTIME_ID);
        SHOW_IF(at > 0.5);
        MUST(getrlimit(RLIMIT_CPU, &limit));
        SHOW_IF(limit.rlim_cur == 2 && limit.rlim_max == 2);
        for (;;)
            burn(0.5);
    });
    reap("child", pid);
}

int main(void)
{
    sleeping();
    computing();
    threads();
    children();
    clock_ids();
    cpu_sleep();
    timers();
    fair();
    limits();
    return 0;
}
