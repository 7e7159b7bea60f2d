/* POSIX timers, interval timers, sleeps: errors, overruns, what a signal leaves of them. */
#include "check.h"

#include <pthread.h>
#include <sys/timerfd.h>
#include <sys/timex.h>

static volatile sig_atomic_t count;
static volatile int overruns, value, code, handler_tid;

static void on_signal(int signo UNUSED, siginfo_t *info, void *context UNUSED)
{
    count++;
    overruns = info->si_overrun;
    value = info->si_value.sival_int;
    code = info->si_code;
    handler_tid = (int)syscall(SYS_gettid);
}

static void nothing(int signo UNUSED) {}

static void creation(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    int id = -7;
    CASE("timer_create");
    static const int clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
                                 CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME,
                                 CLOCK_TAI, 10, 12, 99, -1};
    for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++) {
        errno = 0;
        long result = syscall(SYS_timer_create, clocks[i], &event, &id);
        say("clock %d: %ld %s", clocks[i], result, error_name(errno));
        if (result == 0)
            MUST(syscall(SYS_timer_delete, id));
    }
    SHOW(syscall(SYS_timer_create, CLOCK_MONOTONIC, BAD, &id));
    SHOW(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, BAD));
    for (int notify = 0; notify < 8; notify++) {
        event.sigev_notify = notify;
        event.sigev_signo = SIGUSR1;
        ((int *)&event)[4] = (int)syscall(SYS_gettid);
        errno = 0;
        long result = syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id);
        say("notify %d: %ld %s", notify, result, error_name(errno));
        if (result == 0)
            MUST(syscall(SYS_timer_delete, id));
    }
    event.sigev_notify = SIGEV_SIGNAL;
    static const int signals[] = {0, 1, 64, 65, -1};
    for (int i = 0; i < 5; i++) {
        event.sigev_signo = signals[i];
        errno = 0;
        long result = syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id);
        say("signal %d: %ld %s", signals[i], result, error_name(errno));
        if (result == 0)
            MUST(syscall(SYS_timer_delete, id));
    }
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGUSR1;
    ((int *)&event)[4] = 0x3ffffff0;
    SHOW(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
    ((int *)&event)[4] = getppid();
    SHOW(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
}

static void settings(void)
{
    struct itimerspec new = {{0, 0}, {100, 0}}, old;
    int id;
    CASE("timer_settime");
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    MUST(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
    SHOW(syscall(SYS_timer_gettime, id, &old));
    say("%ld %ld", (long)old.it_value.tv_sec, old.it_value.tv_nsec);
    SHOW(syscall(SYS_timer_settime, id, 0, &new, NULL));
    SHOW(syscall(SYS_timer_settime, id, 0, &new, &old));
    SHOW_IF(old.it_value.tv_sec == 99 || old.it_value.tv_sec == 100);
    SHOW(syscall(SYS_timer_settime, id, 0, NULL, &old));
    SHOW(syscall(SYS_timer_settime, id, 0, BAD, &old));
    SHOW(syscall(SYS_timer_settime, id, 0, &new, BAD));
    SHOW(syscall(SYS_timer_settime, 12345, 0, &new, NULL));
    SHOW(syscall(SYS_timer_settime, -1, 0, &new, NULL));
    new.it_value.tv_nsec = 1000000000;
    SHOW(syscall(SYS_timer_settime, id, 0, &new, NULL));
    new.it_value = (struct timespec){-1, 0};
    SHOW(syscall(SYS_timer_settime, id, 0, &new, NULL));
    new = (struct itimerspec){{-1, 0}, {1, 0}};
    SHOW(syscall(SYS_timer_settime, id, 0, &new, NULL));
    new = (struct itimerspec){{0, 0}, {0, 0}};
    SHOW(syscall(SYS_timer_settime, id, 0, &new, &old));
    SHOW(syscall(SYS_timer_gettime, id, BAD));
    SHOW(syscall(SYS_timer_gettime, 12345, &old));
    SHOW(syscall(SYS_timer_getoverrun, id));
    SHOW(syscall(SYS_timer_getoverrun, 12345));
    SHOW(syscall(SYS_timer_delete, id));
    SHOW(syscall(SYS_timer_delete, id));
    SHOW(syscall(SYS_timer_delete, -1));
    CASE("not inherited, and gone with exec");
    MUST(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
    reap("child", CHILD(SHOW(syscall(SYS_timer_gettime, id, &old))));
    MUST(syscall(SYS_timer_delete, id));
}

static void expirations(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 17};
    struct itimerspec often = {{0, 5000000}, {0, 5000000}}, past = {{0, 0}, {1, 0}}, off = {{0, 0}, {0, 0}};
    sigset_t set = set_of(SIGUSR1), old;
    timer_t timer;
    CASE("overruns");
    handle_flags(SIGUSR1, on_signal, 0);
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
    MUST(sigprocmask(SIG_BLOCK, &set, &old));
    MUST(timer_settime(timer, 0, &often, NULL));
    usleep(100000);
    count = 0;
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
    SHOW_IF(count >= 1);
    SHOW_IF(code == SI_TIMER && value == 17);
    MUST(timer_settime(timer, 0, &off, NULL));
    SHOW(timer_getoverrun(timer));
    count = 0;
    MUST(sigprocmask(SIG_BLOCK, &set, &old));
    MUST(timer_settime(timer, 0, &often, NULL));
    usleep(100000);
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
    SHOW_IF(timer_getoverrun(timer) >= 0);
    CASE("a time in the past");
    MUST(timer_settime(timer, 0, &off, NULL));
    count = 0;
    MUST(timer_settime(timer, TIMER_ABSTIME, &past, NULL));
    usleep(20000);
    SHOW((int)count);
    SHOW(timer_getoverrun(timer));
    MUST(timer_delete(timer));
    CASE("a deleted timer's signal");
    MUST(timer_create(CLOCK_REALTIME, &event, &timer));
    MUST(sigprocmask(SIG_BLOCK, &set, &old));
    MUST(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, {0, 1000000}}, NULL));
    usleep(20000);
    sigset_t pending;
    sigpending(&pending);
    SHOW(sigismember(&pending, SIGUSR1));
    MUST(timer_delete(timer));
    sigpending(&pending);
    count = 0;
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
    SHOW_IF(count <= 1);
}

static void *thread_timer(void *unused)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR2};
    int id, tid = (int)syscall(SYS_gettid);
    ((int *)&event)[4] = tid;
    MUST(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
    MUST(syscall(SYS_timer_settime, id, 0, &(struct itimerspec){{0, 0}, {0, 10000000}}, NULL));
    while (!count)
        usleep(1000);
    SHOW_IF(handler_tid == tid);
    MUST(syscall(SYS_timer_delete, id));
    return unused;
}

static void to_a_thread(void)
{
    pthread_t thread;
    CASE("SIGEV_THREAD_ID");
    count = 0;
    handle_flags(SIGUSR2, on_signal, 0);
    pthread_create(&thread, NULL, thread_timer, NULL);
    pthread_join(thread, NULL);
}

static double since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec - start->tv_sec + (now.tv_nsec - start->tv_nsec) / 1e9;
}

static void sleeps(void)
{
    struct timespec request = {10, 0}, rest = {-1, -1}, start;
    struct itimerval once = {{0, 0}, {0, 50000}};
    CASE("sleeps that a handler ends");
    handle_plain(SIGALRM, nothing);
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    SHOW(nanosleep(&request, &rest));
    SHOW_IF(rest.tv_sec == 9 && rest.tv_nsec > 500000000);
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    SHOW(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &request, &rest));
    SHOW_IF(rest.tv_sec == 9);
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    SHOW(syscall(SYS_clock_nanosleep, CLOCK_REALTIME, 0, &request, BAD));
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    clock_gettime(CLOCK_MONOTONIC, &start);
    request = start;
    request.tv_sec += 10;
    rest = (struct timespec){-1, -1};
    SHOW(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &request, &rest));
    say("%ld %ld", (long)rest.tv_sec, rest.tv_nsec);
    struct sigaction restart = {.sa_handler = nothing, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &restart, NULL);
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    SHOW(nanosleep(&(struct timespec){5, 0}, NULL));
    SHOW_IF(since(&start) < 2);
    CASE("ignored signals don't end them");
    signal(SIGALRM, SIG_IGN);
    struct itimerval often = {{0, 10000}, {0, 10000}};
    MUST(setitimer(ITIMER_REAL, &often, NULL));
    clock_gettime(CLOCK_MONOTONIC, &start);
    SHOW(nanosleep(&(struct timespec){0, 60000000}, NULL));
    SHOW_IF(since(&start) >= 0.06);
    MUST(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL));
    CASE("errors");
    SHOW(nanosleep(&(struct timespec){0, 1000000000}, NULL));
    SHOW(nanosleep(&(struct timespec){-1, 0}, NULL));
    SHOW(nanosleep(&(struct timespec){0, -1}, NULL));
    SHOW(nanosleep(BAD, NULL));
    SHOW(nanosleep(&(struct timespec){0, 0}, BAD));
    for (int clock = -3; clock < 13; clock++) {
        if (clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM || clock == CLOCK_PROCESS_CPUTIME_ID)
            continue;
        errno = 0;
        long result = syscall(SYS_clock_nanosleep, clock, TIMER_ABSTIME, &(struct timespec){1, 0}, NULL);
        say("clock %d: %ld %s", clock, result, error_name(errno));
    }
    SHOW(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 99 & ~1, &(struct timespec){0, 1}, NULL));
}

static void alarms(void)
{
    struct itimerval value;
    CASE("alarm and setitimer are one");
    handle_plain(SIGALRM, nothing);
    SHOW(alarm(100));
    MUST(getitimer(ITIMER_REAL, &value));
    SHOW_IF(value.it_value.tv_sec >= 99 && value.it_interval.tv_sec == 0);
    MUST(setitimer(ITIMER_REAL, &(struct itimerval){{7, 0}, {200, 0}}, &value));
    SHOW_IF(value.it_value.tv_sec >= 99);
    SHOW(alarm(0) >= 199);
    MUST(getitimer(ITIMER_REAL, &value));
    say("%ld %ld", (long)value.it_value.tv_sec, (long)value.it_interval.tv_sec);
    SHOW(alarm(0));
    SHOW(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 1000000}}, NULL));
    SHOW(setitimer(ITIMER_REAL, &(struct itimerval){{0, -1}, {1, 0}}, NULL));
    SHOW(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {-1, 0}}, NULL));
    SHOW(setitimer(3, &value, NULL));
    SHOW(setitimer(-1, &value, NULL));
    SHOW(setitimer(ITIMER_REAL, BAD, NULL));
    SHOW(setitimer(ITIMER_REAL, &value, BAD));
    SHOW(getitimer(3, &value));
    SHOW(getitimer(ITIMER_REAL, BAD));
    MUST(alarm(100));
    reap("child", CHILD(SHOW(alarm(0))));
    SHOW(alarm(0) > 90);
}

static void clocks(void)
{
    struct timespec t, last = {0, 0};
    CASE("clocks and their errors");
    for (int clock = -2; clock < 14; clock++) {
        if (clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM)
            continue;
        errno = 0;
        long result = syscall(SYS_clock_gettime, clock, &t), error = errno;
        errno = 0;
        long resolution = syscall(SYS_clock_getres, clock, &last);
        say("clock %d: %ld %s, resolution %ld %s %d", clock, result, error_name(error), resolution, error_name(errno),
            resolution == 0 ? last.tv_nsec == 1 : -1);
    }
    SHOW(syscall(SYS_clock_getres, CLOCK_MONOTONIC, NULL));
    SHOW(syscall(SYS_clock_getres, CLOCK_MONOTONIC, BAD));
    SHOW(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, BAD));
    SHOW(syscall(SYS_clock_settime, CLOCK_MONOTONIC, &t));
    SHOW(syscall(SYS_clock_settime, CLOCK_BOOTTIME, &t));
    SHOW(syscall(SYS_clock_settime, 99, &t));
    SHOW(syscall(SYS_clock_settime, CLOCK_REALTIME, BAD));
    SHOW(syscall(SYS_clock_settime, CLOCK_REALTIME, &(struct timespec){0, -1}));
    SHOW(syscall(SYS_clock_settime, CLOCK_REALTIME, &(struct timespec){0, 1000000000}));
    SHOW(syscall(SYS_settimeofday, &(struct timeval){0, 1000000}, NULL));
    SHOW(syscall(SYS_settimeofday, BAD, NULL));
    SHOW(syscall(SYS_adjtimex, BAD));
    struct timex adjust = {.modes = 0};
    SHOW(syscall(SYS_adjtimex, &adjust) >= 0);
    SHOW(syscall(SYS_clock_adjtime, CLOCK_MONOTONIC, &adjust));
    SHOW(syscall(SYS_clock_adjtime, 99, &adjust));
    if (geteuid() == 0)
        MUST(setresuid(1000, 1000, 1000));
    clock_gettime(CLOCK_REALTIME, &t);
    SHOW(syscall(SYS_clock_settime, CLOCK_REALTIME, &t));
    SHOW(syscall(SYS_settimeofday, &(struct timeval){1, 0}, NULL));
    adjust.modes = ADJ_OFFSET;
    SHOW(syscall(SYS_adjtimex, &adjust));
    SHOW(syscall(SYS_clock_adjtime, CLOCK_REALTIME, &adjust));
}

static volatile int handled;

static void count_signal(int signo)
{
    (void)signo;
    handled++;
}

/* Processes with timers whose interval is short are kept busy, but not from going on behind the handler. */
static void short_intervals(void)
{
    CASE("short intervals");
    enum { COUNT = 12 };
    pid_t children[COUNT];
    for (int i = 0; i < COUNT; i++) {
        children[i] = MUST(fork());
        if (children[i] == 0) {
            timer_t timer;
            struct sigaction action = {.sa_handler = count_signal};
            struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
            struct itimerspec often = {{0, 60000}, {0, 60000}};
            MUST(sigaction(SIGRTMIN, &action, NULL));
            MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
            MUST(timer_settime(timer, 0, &often, NULL));
            for (int turn = 0; turn < 20; turn++) {
                int before = handled;
                while (handled == before)
                    usleep(1000);
            }
            MUST(timer_delete(timer));
            _exit(0);
        }
    }
    for (int i = 0; i < COUNT; i++) {
        int status;
        MUST(waitpid(children[i], &status, 0));
        say("%d: %d", i, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    }
}

/* The signal of a timer has a place of its own behind one of its number that waits. */
static void behind_another(void)
{
    CASE("a signal of its number is pending");
    sigset_t set = set_of(SIGUSR1);
    struct timespec zero = {0, 0}, pause = {0, 60000000};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec often = {{0, 10000000}, {0, 10000000}};
    timer_t timer;
    siginfo_t info;
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    raise(SIGUSR1);
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
    MUST(timer_settime(timer, 0, &often, NULL));
    nanosleep(&pause, NULL);
    SHOW_IF(sigtimedwait(&set, &info, &zero) == SIGUSR1);
    SHOW(info.si_code);
    nanosleep(&pause, NULL);
    SHOW_IF(sigtimedwait(&set, &info, &zero) == SIGUSR1);
    SHOW(info.si_code);
    SHOW_IF(info.si_overrun >= 4);
    MUST(timer_delete(timer));
    sigtimedwait(&set, &info, &zero);
    MUST(sigprocmask(SIG_UNBLOCK, &set, NULL));
}

int main(void)
{
    behind_another();
    short_intervals();
    creation();
    settings();
    expirations();
    to_a_thread();
    sleeps();
    alarms();
    reap("clocks", CHILD(clocks()));
    return 0;
}
