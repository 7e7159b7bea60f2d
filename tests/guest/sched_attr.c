/* Scheduling policies, priorities, attributes and affinity: kept, reported, refused. */
#include "check.h"

#include <linux/sched.h>

struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
    uint32_t min, max;
};

#define SETATTR(...) syscall(SYS_sched_setattr, __VA_ARGS__)
#define GETATTR(...) syscall(SYS_sched_getattr, __VA_ARGS__)
#define DEADLINE 6
#define IDLE 5

static void show_attr(const char *what)
{
    struct attr a;
    memset(&a, 0xff, sizeof a);
    if (GETATTR(0, &a, sizeof a, 0) < 0) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    bool fair = a.policy == 0 || a.policy == 3 || a.policy == IDLE;
    say("%s: policy %u flags %llu nice %d priority %u deadline %llu %llu %llu", what, a.policy,
        (unsigned long long)a.flags, a.nice, a.priority, fair ? 0ull : (unsigned long long)a.runtime,
        (unsigned long long)a.deadline, (unsigned long long)a.period);
}

static void set(const char *what, struct attr a)
{
    errno = 0;
    long result = SETATTR(0, &a, 0);
    say("%s: %ld %s", what, result, error_name(errno));
}

#define ATTR(...) ((struct attr){.size = 48, __VA_ARGS__})

static void errors(void)
{
    struct attr a = ATTR(.policy = 0);
    char big[5000] = {0};
    CASE("errors");
    SHOW(SETATTR(0, NULL, 0));
    SHOW(SETATTR(-1, &a, 0));
    SHOW(SETATTR(0, &a, 1));
    SHOW(SETATTR(0, BAD, 0));
    SHOW(SETATTR(0x3ffffff0, &a, 0));
    SHOW(GETATTR(0, NULL, sizeof a, 0));
    SHOW(GETATTR(-1, &a, sizeof a, 0));
    SHOW(GETATTR(0, &a, 47, 0));
    SHOW(GETATTR(0, &a, 4097, 0));
    SHOW(GETATTR(0, &a, sizeof a, 1));
    SHOW(GETATTR(0, BAD, sizeof a, 0));
    SHOW(GETATTR(0x3ffffff0, &a, sizeof a, 0));
    SHOW(GETATTR(0, &a, 48, 0));
    say("size %u", a.size);
    a = ATTR(.size = 20);
    SHOW(SETATTR(0, &a, 0));
    SHOW_IF(a.size >= 56);
    a = ATTR(.size = 0);
    SHOW(SETATTR(0, &a, 0));
    *(uint32_t *)big = 4096;
    SHOW(SETATTR(0, big, 0));
    big[4000] = 1;
    SHOW(SETATTR(0, big, 0));
    *(uint32_t *)big = 4097;
    SHOW(SETATTR(0, big, 0));
    set("policy 4", ATTR(.policy = 4));
    set("policy 99", ATTR(.policy = 99));
    set("policy -1", ATTR(.policy = -1));
    set("flag 128", ATTR(.flags = 128));
    set("priority for normal", ATTR(.priority = 1));
    set("no priority for FIFO", ATTR(.policy = SCHED_FIFO));
    set("priority 100", ATTR(.policy = SCHED_FIFO, .priority = 100));
    set("clamp without room", ATTR(.flags = 0x20));
}

static void ordinary(void)
{
    CASE("ordinary policies");
    show_attr("at first");
    set("batch", ATTR(.policy = SCHED_BATCH, .nice = 5));
    show_attr("batch");
    set("nicer than nice", ATTR(.policy = SCHED_BATCH, .nice = 100));
    show_attr("batch");
    SHOW(getpriority(PRIO_PROCESS, 0));
    set("keep policy", ATTR(.policy = 1, .flags = 8, .nice = 19));
    show_attr("kept");
    set("keep params", ATTR(.policy = SCHED_NORMAL, .flags = 16, .nice = 3));
    show_attr("kept");
    set("reset on fork", ATTR(.flags = 1 | 16));
    show_attr("reset");
    SHOW(sched_getscheduler(0));
    reap("child", CHILD(show_attr("child"); SHOW(sched_getscheduler(0))));
    struct sched_param none = {0}, one = {1};
    SHOW(sched_setscheduler(0, SCHED_NORMAL | 0x40000000, &none));
    SHOW(sched_setscheduler(0, SCHED_NORMAL, &one));
    SHOW(sched_setscheduler(0, 77, &none));
    SHOW(sched_setscheduler(0, -1, &none));
    SHOW(sched_setscheduler(-1, SCHED_NORMAL, &none));
    SHOW(sched_setscheduler(0, SCHED_NORMAL, NULL));
    SHOW(sched_setscheduler(0, SCHED_NORMAL, BAD));
    SHOW(sched_setscheduler(0x3ffffff0, SCHED_NORMAL, &none));
    SHOW(sched_setscheduler(0, DEADLINE, &none));
    SHOW(sched_setparam(0, &none));
    SHOW(sched_setparam(0, &one));
    SHOW(sched_getparam(0, &one));
    say("priority %d", one.sched_priority);
    SHOW(sched_getparam(-1, &one));
    SHOW(sched_getparam(0, NULL));
    SHOW(sched_getscheduler(-1));
    SHOW(sched_getscheduler(0x3ffffff0));
    for (int policy = -1; policy < 9; policy++)
        say("%d: %d..%d", policy, sched_get_priority_min(policy), sched_get_priority_max(policy));
}

static void idle(void)
{
    CASE("idle");
    set("idle", ATTR(.policy = IDLE, .nice = 19));
    show_attr("idle");
    reap("child", CHILD(show_attr("child")));
}

static void privileges(void)
{
    struct sched_param one = {1};
    struct rlimit limit = {5, 5};
    CASE("without privileges");
    if (geteuid() == 0) {
        setrlimit(RLIMIT_RTPRIO, &(struct rlimit){0, 0});
        setrlimit(RLIMIT_NICE, &(struct rlimit){0, 0});
        MUST(setresuid(1000, 1000, 1000));
    }
    SHOW(sched_setscheduler(0, SCHED_FIFO, &one));
    SHOW(sched_setscheduler(0, SCHED_RR, &one));
    set("deadline", ATTR(.policy = DEADLINE, .runtime = 1000000, .deadline = 10000000, .period = 10000000));
    set("nice -1", ATTR(.nice = -1));
    set("nice 3", ATTR(.nice = 3));
    set("nice 2", ATTR(.nice = 2));
    SHOW(setpriority(PRIO_PROCESS, 0, 2));
    SHOW(setpriority(PRIO_PROCESS, 0, 3));
    set("idle", ATTR(.policy = IDLE, .nice = 3));
    set("normal again", ATTR(.nice = 3));
    SHOW(setrlimit(RLIMIT_RTPRIO, &limit));
    SHOW(setrlimit(RLIMIT_NICE, &limit));
    SHOW(sched_setscheduler(getppid(), SCHED_BATCH, &(struct sched_param){0}));
    SHOW(sched_setscheduler(1, SCHED_BATCH, &(struct sched_param){0}));
    SHOW(setpriority(PRIO_PROCESS, 1, 10));
    cpu_set_t cpus;
    MUST(sched_getaffinity(0, sizeof cpus, &cpus));
    SHOW(sched_setaffinity(1, sizeof cpus, &cpus));
    set("reset on fork", ATTR(.flags = 1, .policy = IDLE, .nice = 19));
    set("and back", ATTR(.policy = IDLE, .nice = 19));
}

static void affinity(void)
{
    cpu_set_t all, one, none;
    CASE("affinity");
    CPU_ZERO(&none);
    SHOW_OK(sched_getaffinity(0, sizeof all, &all));
    SHOW_IF(syscall(SYS_sched_getaffinity, 0, sizeof all, &all) > 0);
    SHOW(syscall(SYS_sched_getaffinity, 0, 0, &all));
    SHOW(syscall(SYS_sched_getaffinity, 0, 7, &all));
    SHOW(syscall(SYS_sched_getaffinity, 0, 9, &all));
    SHOW(syscall(SYS_sched_getaffinity, 0, sizeof all, BAD));
    SHOW(syscall(SYS_sched_getaffinity, 0x3ffffff0, sizeof all, &all));
    int first = 0;
    while (!CPU_ISSET(first, &all))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    CPU_SET(1000, &one);
    SHOW(sched_setaffinity(0, sizeof one, &one));
    MUST(sched_getaffinity(0, sizeof none, &none));
    SHOW(CPU_COUNT(&none));
    reap("child", CHILD(MUST(sched_getaffinity(0, sizeof none, &none)); SHOW(CPU_COUNT(&none))));
    SHOW(sched_setaffinity(0, 1, &all));
    CPU_ZERO(&none);
    SHOW(sched_setaffinity(0, sizeof none, &none));
    SHOW(sched_setaffinity(0, 0, &all));
    SHOW(sched_setaffinity(0, sizeof all, BAD));
    SHOW(sched_setaffinity(0x3ffffff0, sizeof all, &all));
    CPU_SET(1000, &none);
    SHOW(sched_setaffinity(0, sizeof none, &none));
    SHOW(sched_setaffinity(0, sizeof all, &all));
}

static void priorities(void)
{
    CASE("nice");
    SHOW(nice(3));
    SHOW(getpriority(PRIO_PROCESS, 0));
    SHOW(getpriority(PRIO_PGRP, 0) <= 3);
    SHOW(getpriority(3, 0));
    SHOW(getpriority(-1, 0));
    SHOW(getpriority(PRIO_PROCESS, 0x3ffffff0));
    SHOW(getpriority(PRIO_PGRP, 0x3ffffff0));
    SHOW(getpriority(PRIO_USER, 987654));
    SHOW(setpriority(3, 0, 0));
    SHOW(setpriority(PRIO_PROCESS, 0x3ffffff0, 0));
    SHOW(setpriority(PRIO_USER, 987654, 0));
    SHOW(setpriority(PRIO_PROCESS, 0, 1000));
    SHOW(getpriority(PRIO_PROCESS, 0));
    SHOW(syscall(SYS_getpriority, PRIO_PROCESS, 0));
    CASE("I/O priorities");
    SHOW(syscall(SYS_ioprio_get, 1, 0));
    SHOW(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 3));
    SHOW(syscall(SYS_ioprio_get, 1, 0));
    SHOW(syscall(SYS_ioprio_set, 1, 0, 3 << 13));
    SHOW(syscall(SYS_ioprio_get, 1, 0));
    SHOW(syscall(SYS_ioprio_set, 1, 0, 0 << 13 | 1));
    SHOW(syscall(SYS_ioprio_set, 1, 0, 4 << 13));
    SHOW(syscall(SYS_ioprio_set, 1, 0x3ffffff0, 2 << 13));
    SHOW(syscall(SYS_ioprio_set, 4, 0, 2 << 13));
    SHOW(syscall(SYS_ioprio_get, 4, 0));
    SHOW(syscall(SYS_ioprio_get, 1, 0x3ffffff0));
    SHOW(syscall(SYS_ioprio_set, 1, 0, 0));
}

#define MEMBARRIER(...) syscall(324, __VA_ARGS__)

static void barriers(void)
{
    CASE("membarrier");
    long commands = MUST(MEMBARRIER(0, 0, 0));
    say("%ld", commands & ~0x180l);
    for (int command = 1; command < 2048; command *= 2)
        if (command != 128 && command != 256) {
            errno = 0;
            long result = MEMBARRIER(command, 0, 0);
            say("%d: %ld %s", command, result, error_name(errno));
        }
    for (int command = 8; command < 64; command *= 2)
        SHOW(MEMBARRIER(command, 0, 0));
    SHOW(MEMBARRIER(512, 0, 0));
    SHOW(MEMBARRIER(0, 1, 0));
    SHOW(MEMBARRIER(8, 1, 0));
    SHOW(MEMBARRIER(3, 0, 0));
    SHOW(MEMBARRIER(-1, 0, 0));
    reap("child", CHILD(SHOW(MEMBARRIER(8, 0, 0)); SHOW(MEMBARRIER(512, 0, 0))));
}

int main(void)
{
    errors();
    reap("ordinary", CHILD(ordinary()));
    reap("idle", CHILD(idle()));
    reap("privileges", CHILD(privileges()));
    affinity();
    reap("priorities", CHILD(priorities()));
    barriers();
    return 0;
}
