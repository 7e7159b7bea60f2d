/* Real-time and deadline policies, as root.
 *
 * USER: root */
#include "check.h"

#define SCHED_NORMAL 0

struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

#define MS 1000000ull
#define DEADLINE 6

static void show_attr(const char *what)
{
    struct attr a = {0};
    MUST(syscall(SYS_sched_getattr, 0, &a, sizeof a, 0));
    bool fair = a.policy == 0 || a.policy == 3 || a.policy == 5;
    say("%s: policy %u flags %llu nice %d priority %u deadline %llu %llu %llu", what, a.policy,
        (unsigned long long)a.flags, a.nice, a.priority, fair ? 0ull : (unsigned long long)a.runtime,
        (unsigned long long)a.deadline, (unsigned long long)a.period);
}

static void set(const char *what, struct attr a)
{
    a.size = 48;
    errno = 0;
    long result = syscall(SYS_sched_setattr, 0, &a, 0);
    say("%s: %ld %s", what, result, error_name(errno));
}

#define TRY(what, ...) set(what, (struct attr){__VA_ARGS__})

static void deadlines(void)
{
    CASE("deadlines");
    TRY("nothing", .policy = DEADLINE);
    TRY("no runtime", .policy = DEADLINE, .deadline = 10 * MS);
    TRY("short runtime", .policy = DEADLINE, .runtime = 1023, .deadline = 10 * MS);
    TRY("runtime > deadline", .policy = DEADLINE, .runtime = 11 * MS, .deadline = 10 * MS);
    TRY("deadline > period", .policy = DEADLINE, .runtime = 1 * MS, .deadline = 10 * MS, .period = 9 * MS);
    TRY("short period", .policy = DEADLINE, .runtime = 2000, .deadline = 50000);
    TRY("long period", .policy = DEADLINE, .runtime = 1 * MS, .deadline = 5000 * MS);
    TRY("huge", .policy = DEADLINE, .runtime = 1 * MS, .deadline = 1ull << 63);
    TRY("priority", .policy = DEADLINE, .runtime = 1 * MS, .deadline = 10 * MS, .priority = 1);
    TRY("good", .policy = DEADLINE, .runtime = 1 * MS, .deadline = 10 * MS, .period = 20 * MS);
    show_attr("good");
    TRY("flags", .policy = DEADLINE, .flags = 6, .runtime = 1 * MS, .deadline = 10 * MS);
    show_attr("flags");
    SHOW(sched_getscheduler(0));
    struct timespec slice = {-1, -1};
    SHOW(sched_rr_get_interval(0, &slice));
    say("%ld %ld", (long)slice.tv_sec, slice.tv_nsec);
    errno = 0;
    SHOW(fork());
    TRY("reset on fork", .policy = DEADLINE, .flags = 1, .runtime = 1 * MS, .deadline = 10 * MS);
    reap("child", CHILD(show_attr("child")));
    TRY("normal", .policy = 0);
    show_attr("normal");
}

static void real_time(void)
{
    struct sched_param ten = {10}, none = {0};
    struct timespec slice;
    CASE("real time");
    SHOW(sched_setscheduler(0, SCHED_FIFO, &ten));
    show_attr("FIFO");
    SHOW(sched_rr_get_interval(0, &slice));
    say("%ld %ld", (long)slice.tv_sec, slice.tv_nsec);
    SHOW(sched_setparam(0, &(struct sched_param){99}));
    show_attr("FIFO");
    SHOW(sched_setparam(0, &(struct sched_param){100}));
    SHOW(sched_setparam(0, &none));
    SHOW(sched_setscheduler(0, SCHED_RR, &ten));
    SHOW(sched_rr_get_interval(0, &slice));
    SHOW_IF(slice.tv_sec == 0 && slice.tv_nsec > 0);
    reap("child inherits", CHILD(show_attr("child")));
    SHOW(sched_setscheduler(0, SCHED_RR | 0x40000000, &ten));
    reap("child is reset", CHILD(show_attr("child")));
    SHOW(sched_getscheduler(0));
    SHOW(syscall(SYS_ioprio_set, 1, 0, 1 << 13 | 3));
    SHOW(syscall(SYS_ioprio_get, 1, 0));
    SHOW(syscall(SYS_ioprio_set, 1, 0, 0));
    SHOW(setpriority(PRIO_PROCESS, 0, -5));
    SHOW(getpriority(PRIO_PROCESS, 0));
    SHOW(sched_setscheduler(0, SCHED_NORMAL, &none));
    show_attr("normal");
}

int main(void)
{
    reap("deadlines", CHILD(deadlines()));
    reap("real time", CHILD(real_time()));
    return 0;
}
