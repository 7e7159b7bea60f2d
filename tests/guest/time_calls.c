/* Clocks and sleeping: order, resolution, errors; interval and POSIX timers. */
#include "check.h"

#include <sys/times.h>

static volatile int calls, value_seen, code_seen;

static void on_timer(int signo UNUSED, siginfo_t *info, void *context UNUSED)
{
    calls++;
    value_seen = info->si_value.sival_int;
    code_seen = info->si_code;
}

static double seconds(clockid_t clock)
{
    struct timespec time;
    MUST(clock_gettime(clock, &time));
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void clocks(void)
{
    static const clockid_t all[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
                                    CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE,
                                    CLOCK_BOOTTIME};
    struct timespec first, second, resolution;
    CASE("clocks");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bool order = true;
        MUST(clock_gettime(all[i], &first));
        for (int j = 0; j < 100; j++) {
            MUST(syscall(j % 2 ? SYS_clock_gettime : SYS_clock_gettime, all[i], &second));
            order &= second.tv_sec > first.tv_sec || (second.tv_sec == first.tv_sec && second.tv_nsec >= first.tv_nsec);
            first = second;
        }
        MUST(clock_getres(all[i], &resolution));
        say("clock %d: in order %d, resolution %s", all[i], order,
            resolution.tv_sec == 0 && resolution.tv_nsec == 1 ? "1 ns" : "coarse");
    }
    SHOW(clock_gettime(99, &first));
    SHOW(syscall(SYS_clock_gettime, CLOCK_REALTIME, BAD));
    SHOW(clock_getres(99, &first));
    SHOW(clock_getres(CLOCK_REALTIME, NULL));
    SHOW_IF(labs(time(NULL) - (long)seconds(CLOCK_REALTIME)) <= 1);
    struct timeval day;
    SHOW(gettimeofday(&day, NULL));
    SHOW_IF(labs(day.tv_sec - time(NULL)) <= 1);
    SHOW_IF(syscall(SYS_time, NULL) > 1000000000);
    struct tms spent;
    SHOW_IF(times(&spent) > 0);
    CASE("CPU time grows with work");
    double before = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (volatile int i = 0; i < 20000000; i++)
        ;
    SHOW_IF(seconds(CLOCK_PROCESS_CPUTIME_ID) > before);
    struct rusage usage;
    SHOW(getrusage(RUSAGE_SELF, &usage));
    SHOW(getrusage(RUSAGE_CHILDREN, &usage));
    SHOW(getrusage(RUSAGE_THREAD, &usage));
    SHOW(getrusage(77, &usage));
    SHOW(getrusage(RUSAGE_SELF, BAD));
}

static void sleeping(void)
{
    struct timespec request = {0, 20000000}, rest = {7, 7};
    CASE("sleeping");
    double before = seconds(CLOCK_MONOTONIC);
    SHOW(nanosleep(&request, &rest));
    SHOW_IF(seconds(CLOCK_MONOTONIC) - before >= 0.02);
    say("%ld %ld", (long)rest.tv_sec, rest.tv_nsec);
    request = time_in(CLOCK_MONOTONIC, 10);
    SHOW(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &request, NULL));
    SHOW(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &request, NULL));
    request = (struct timespec){1, 0};
    SHOW(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &request, NULL));
    request = (struct timespec){0, 1000000000};
    SHOW(nanosleep(&request, NULL));
    request = (struct timespec){-1, 0};
    SHOW(nanosleep(&request, NULL));
    SHOW(syscall(SYS_nanosleep, BAD, NULL));
    request = (struct timespec){0, 1};
    say("%s", error_name(clock_nanosleep(99, 0, &request, NULL)));
    say("%s", error_name(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &request, NULL)));
    SHOW(nanosleep(&(struct timespec){0, 0}, NULL));
}

static void interval_timers(void)
{
    struct itimerval timer = {{0, 5000}, {0, 5000}}, old;
    CASE("setitimer");
    handle_flags(SIGALRM, on_timer, 0);
    handle_flags(SIGVTALRM, on_timer, 0);
    handle_flags(SIGPROF, on_timer, 0);
    SHOW(setitimer(ITIMER_REAL, &timer, NULL));
    while (calls < 3)
        pause();
    SHOW(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, &old));
    say("interval %ld", (long)old.it_interval.tv_usec);
    SHOW_IF(old.it_value.tv_usec <= 5000);
    SHOW(getitimer(ITIMER_REAL, &old));
    say("%ld %ld", (long)old.it_value.tv_sec, (long)old.it_value.tv_usec);
    SHOW(setitimer(77, &timer, NULL));
    timer.it_value.tv_usec = 1000000;
    SHOW(setitimer(ITIMER_REAL, &timer, NULL));
    SHOW(setitimer(ITIMER_REAL, BAD, NULL));
    CASE("alarm");
    say("%u", alarm(100));
    unsigned left = alarm(0);
    SHOW_IF(left >= 99 && left <= 100);
    say("%u", alarm(0));
    calls = 0;
    timer = (struct itimerval){{0, 0}, {0, 1}};
    MUST(setitimer(ITIMER_REAL, &timer, NULL));
    while (calls == 0)
        ;
    SHOW_IF(code_seen == SI_KERNEL);
    CASE("CPU timers");
    calls = 0;
    timer = (struct itimerval){{0, 0}, {0, 10000}};
    SHOW(setitimer(ITIMER_VIRTUAL, &timer, NULL));
    while (calls == 0)
        ;
    say("virtual");
    calls = 0;
    SHOW(setitimer(ITIMER_PROF, &timer, NULL));
    while (calls == 0)
        ;
    say("prof");
}

static void posix_timers(void)
{
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 4321};
    struct itimerspec spec = {{0, 0}, {0, 5000000}}, old;
    CASE("timer_create");
    handle_flags(SIGUSR1, on_timer, 0);
    SHOW(timer_create(CLOCK_MONOTONIC, &event, &timer));
    SHOW(timer_gettime(timer, &old));
    say("%ld %ld", (long)old.it_value.tv_sec, old.it_value.tv_nsec);
    sigset_t set = set_of(SIGUSR1), before;
    MUST(sigprocmask(SIG_BLOCK, &set, &before));
    calls = 0;
    SHOW(timer_settime(timer, 0, &spec, NULL));
    while (calls == 0)
        sigsuspend(&before);
    say("value %d, timer %d", value_seen, code_seen == SI_TIMER);
    MUST(sigprocmask(SIG_SETMASK, &before, NULL));
    SHOW(timer_getoverrun(timer));
    spec = (struct itimerspec){{100, 0}, {200, 0}};
    SHOW(timer_settime(timer, 0, &spec, NULL));
    SHOW(timer_settime(timer, 0, &spec, &old));
    SHOW_IF(old.it_value.tv_sec >= 199 - 1 && old.it_interval.tv_sec == 100);
    SHOW(timer_delete(timer));
    SHOW(timer_delete(timer));
    CASE("to a thread");
    event.sigev_notify = SIGEV_THREAD_ID;
    event._sigev_un._tid = gettid();
    SHOW(timer_create(CLOCK_REALTIME, &event, &timer));
    spec = (struct itimerspec){{0, 2000000}, {0, 1}};
    calls = 0;
    SHOW(timer_settime(timer, 0, &spec, NULL));
    while (calls < 3)
        ;
    SHOW(timer_delete(timer));
    CASE("no signal");
    event.sigev_notify = SIGEV_NONE;
    SHOW(timer_create(CLOCK_MONOTONIC, &event, &timer));
    SHOW(timer_settime(timer, TIMER_ABSTIME, &(struct itimerspec){{0, 0}, {1, 0}}, NULL));
    SHOW(timer_delete(timer));
    CASE("errors");
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = 99;
    SHOW(timer_create(CLOCK_MONOTONIC, &event, &timer));
    event.sigev_signo = SIGUSR1;
    SHOW(timer_create(99, &event, &timer));
    event.sigev_notify = 77;
    SHOW(timer_create(CLOCK_MONOTONIC, &event, &timer));
    SHOW(syscall(SYS_timer_settime, 12345, 0, &spec, NULL));
    SHOW(syscall(SYS_timer_gettime, 12345, &old));
    MUST(timer_create(CLOCK_MONOTONIC, NULL, &timer));
    spec.it_value.tv_nsec = -1;
    SHOW(timer_settime(timer, 0, &spec, NULL));
    reap("not inherited", CHILD(SHOW(timer_gettime(timer, &old))));
}

int main(void)
{
    clocks();
    sleeping();
    interval_timers();
    posix_timers();
    return 0;
}
