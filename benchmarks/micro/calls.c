/* Calls that the caller could nearly answer itself: ids, clocks, masks, an idle futex; and plain computation. */
#define _GNU_SOURCE
#include "micro.h"

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void cpu_loop(void)
{
    for (long i = 0; i < 1000000; i++)
        __asm__ volatile("" : "+r"(i));
}

/* libc's own wrappers load a constant number right before the instruction, the generic one a variable. */
static void op_getppid(void)
{
    getppid();
}

static void op_getppid_generic(void)
{
    syscall(SYS_getppid);
}

static void op_getpid(void)
{
    getpid();
}

static void op_getuid(void)
{
    getuid();
}

static void op_gettid(void)
{
    gettid();
}

static void op_sched_yield(void)
{
    sched_yield();
}

static void op_clock_gettime(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
}

static void op_clock_gettime_sys(void)
{
    struct timespec time;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time);
}

static void op_sigprocmask(void)
{
    sigset_t set;
    sigprocmask(SIG_BLOCK, NULL, &set);
}

static void op_futex_wake_none(void)
{
    static int word;
    syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

const struct operation call_operations[] = {
    {"cpu_loop_1M", cpu_loop, NULL, NULL},
    {"getppid", op_getppid, NULL, NULL},
    {"getppid_generic", op_getppid_generic, NULL, NULL},
    {"getpid", op_getpid, NULL, NULL},
    {"getuid", op_getuid, NULL, NULL},
    {"gettid", op_gettid, NULL, NULL},
    {"sched_yield", op_sched_yield, NULL, NULL},
    {"clock_gettime", op_clock_gettime, NULL, NULL},
    {"clock_gettime_sys", op_clock_gettime_sys, NULL, NULL},
    {"sigprocmask", op_sigprocmask, NULL, NULL},
    {"futex_wake_none", op_futex_wake_none, NULL, NULL},
    {NULL, NULL, NULL, NULL},
};
