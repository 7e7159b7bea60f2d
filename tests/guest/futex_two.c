/* futex_waitv(2), futex_wait, futex_wake, futex_requeue, and which kinds of futexes meet. */
#include "check.h"

#include <linux/futex.h>
#include <pthread.h>

#define NR_WAITV 449
#define NR_WAKE 454
#define NR_WAIT 455
#define NR_REQUEUE 456
#define U32 2
#define PRIVATE 128

struct waitv {
    uint64_t value, addr;
    uint32_t flags, reserved;
};

static uint32_t words[4];
static uint32_t *memory; /* shared between processes */

static long waitv(struct waitv *waiters, unsigned count, unsigned flags, const struct timespec *until, int clock)
{
    return syscall(NR_WAITV, waiters, count, flags, until, clock);
}

static long wake(void *addr, unsigned long mask, int count, unsigned flags)
{
    return syscall(NR_WAKE, addr, mask, count, flags);
}

static long wait_for(void *addr, unsigned long value, unsigned long mask, unsigned flags, const void *until, int clock)
{
    return syscall(NR_WAIT, addr, value, mask, flags, until, clock);
}

static void wake_errors(void)
{
    CASE("futex_wake: errors");
    SHOW(wake(words, 1, 1, U32));
    SHOW(wake(words, 1, 1, U32 | PRIVATE));
    SHOW(wake(words, 1, 1, 0));
    SHOW(wake(words, 1, 1, 1));
    SHOW(wake(words, 1, 1, 3));
    SHOW(wake(words, 1, 1, U32 | 256));
    SHOW(wake(words, 0, 1, U32));
    SHOW(wake(words, 1ul << 32, 1, U32));
    SHOW(wake((char *)words + 1, 1, 1, U32));
    SHOW(wake(BAD, 1, 1, U32));
    SHOW(wake(words, 1, 0, U32 | PRIVATE));
    SHOW(wake(words, 1, -1, U32 | PRIVATE));
}

static void wait_errors(void)
{
    struct timespec past = {1, 0}, bad = {0, 1000000000}, soon = time_in(CLOCK_MONOTONIC, 20);
    CASE("futex_wait: errors");
    SHOW(wait_for(words, 1, 1, U32 | PRIVATE, NULL, 0));
    SHOW(wait_for(words, 1, 1, U32, NULL, 0));
    SHOW(wait_for(words, 0, 0, U32, NULL, 0));
    SHOW(wait_for(words, 1ul << 32, 1, U32, NULL, 0));
    SHOW(wait_for(words, 0, 1, 0, NULL, 0));
    SHOW(wait_for(words, 0, 1, U32, &past, CLOCK_MONOTONIC));
    SHOW(wait_for(words, 0, 1, U32, &past, CLOCK_REALTIME));
    SHOW(wait_for(words, 0, 1, U32 | PRIVATE, &past, CLOCK_BOOTTIME));
    SHOW(wait_for(words, 0, 1, U32 | PRIVATE, &bad, CLOCK_MONOTONIC));
    SHOW(wait_for(words, 0, 1, U32 | PRIVATE, BAD, CLOCK_MONOTONIC));
    SHOW(wait_for(words, 0, 1, U32 | PRIVATE, &soon, CLOCK_MONOTONIC));
    SHOW(wait_for(BAD, 0, 1, U32 | PRIVATE, NULL, 0));
    SHOW(wait_for((char *)words + 2, 0, 1, U32 | PRIVATE, NULL, 0));
}

static void waitv_errors(void)
{
    struct waitv w[129] = {0};
    struct timespec past = {1, 0}, bad = {-1, 0}, soon = time_in(CLOCK_REALTIME, 20);
    CASE("futex_waitv: errors");
    for (int i = 0; i < 129; i++)
        w[i] = (struct waitv){.addr = (uintptr_t)&words[0], .flags = U32 | PRIVATE};
    SHOW(waitv(w, 0, 0, NULL, 0));
    SHOW(waitv(w, 129, 0, NULL, 0));
    SHOW(waitv(NULL, 1, 0, NULL, 0));
    SHOW(waitv(BAD, 1, 0, NULL, 0));
    SHOW(waitv(w, 1, 1, NULL, 0));
    SHOW(waitv(w, 1, 0, &past, CLOCK_MONOTONIC));
    SHOW(waitv(w, 128, 0, &past, CLOCK_REALTIME));
    SHOW(waitv(w, 1, 0, &past, CLOCK_TAI));
    SHOW(waitv(w, 1, 0, &bad, CLOCK_MONOTONIC));
    SHOW(waitv(w, 1, 0, BAD, CLOCK_MONOTONIC));
    SHOW(waitv(w, 2, 0, &soon, CLOCK_REALTIME));
    w[1].value = 1;
    SHOW(waitv(w, 2, 0, NULL, 0));
    w[1].value = 1ul << 32;
    SHOW(waitv(w, 2, 0, NULL, 0));
    w[1].value = 0;
    w[1].reserved = 1;
    SHOW(waitv(w, 2, 0, NULL, 0));
    w[1].reserved = 0;
    w[1].flags = 3 | PRIVATE;
    SHOW(waitv(w, 2, 0, NULL, 0));
    w[1].flags = U32 | PRIVATE;
    w[1].addr = bad_address;
    SHOW(waitv(w, 2, 0, NULL, 0));
    w[1].addr = (uintptr_t)words + 1;
    SHOW(waitv(w, 2, 0, NULL, 0));
}

static unsigned kind; /* of futexes */

static void *waits_for_three(void *unused)
{
    struct waitv w[3];
    for (int i = 0; i < 3; i++)
        w[i] = (struct waitv){.addr = (uintptr_t)&words[i], .flags = U32 | kind};
    (void)unused;
    return (void *)waitv(w, 3, 0, NULL, 0);
}

static void *waits_by_mask(void *mask)
{
    return (void *)wait_for(&words[0], 0, (unsigned long)mask, U32 | kind, NULL, 0);
}

static void *waits_as_ever(void *unused)
{
    (void)unused;
    return (void *)syscall(SYS_futex, &words[0], FUTEX_WAIT | (kind ? FUTEX_PRIVATE_FLAG : 0), 0, NULL, NULL, 0);
}

/* Wakes once the others are asleep: by either call, from the same and from another thread. */
static long until_woken(int old, void *addr, unsigned mask)
{
    for (int i = 0; i < 5000; i++) {
        int op = FUTEX_WAKE_BITSET | (kind ? FUTEX_PRIVATE_FLAG : 0);
        long woken = old ? syscall(SYS_futex, addr, op, 1, NULL, NULL, mask) : wake(addr, mask, 1, U32 | kind);
        if (woken)
            return woken;
        usleep(1000);
    }
    return 0;
}

static void join(pthread_t thread)
{
    void *result;
    pthread_join(thread, &result);
    say("thread: %ld", (long)result);
}

static void meetings(void)
{
    pthread_t thread;
    for (kind = 0; kind <= PRIVATE; kind += PRIVATE) {
        say("-- who waits and who wakes, %s", kind ? "private" : "shared");
        for (int old = 0; old < 2; old++) {
            pthread_create(&thread, NULL, waits_for_three, NULL);
            SHOW(until_woken(old, &words[1], 0xffffffff));
            join(thread);
            pthread_create(&thread, NULL, waits_by_mask, (void *)4);
            usleep(20000);
            SHOW(wake(&words[0], 3, 1, U32 | kind));
            SHOW(until_woken(old, &words[0], 6));
            join(thread);
            pthread_create(&thread, NULL, waits_as_ever, NULL);
            SHOW(until_woken(old, &words[0], 0xffffffff));
            join(thread);
        }
    }
}

static void requeues(void)
{
    struct waitv pair[2];
    pthread_t thread;
    CASE("futex_requeue");
    kind = PRIVATE;
    for (int i = 0; i < 2; i++)
        pair[i] = (struct waitv){.addr = (uintptr_t)&words[i], .flags = U32 | PRIVATE};
    SHOW(syscall(NR_REQUEUE, pair, 1, 1, 1));
    SHOW(syscall(NR_REQUEUE, NULL, 0, 1, 1));
    SHOW(syscall(NR_REQUEUE, pair, 0, -1, 1));
    SHOW(syscall(NR_REQUEUE, pair, 0, 1, -1));
    SHOW(syscall(NR_REQUEUE, pair, 0, 1, 1));
    pair[0].value = 9;
    SHOW(syscall(NR_REQUEUE, pair, 0, 1, 1));
    pair[0].value = 0;
    for (int old = 0; old < 2; old++) {
        pthread_create(&thread, NULL, old ? waits_as_ever : waits_by_mask, (void *)1);
        usleep(50000);
        SHOW(syscall(NR_REQUEUE, pair, 0, 0, 10));
        SHOW(wake(&words[0], 1, 10, U32 | PRIVATE));
        SHOW(wake(&words[1], 1, 10, U32 | PRIVATE));
        join(thread);
    }
}

static void processes(void)
{
    CASE("between processes");
    struct waitv w[2] = {{.addr = (uintptr_t)&memory[0], .flags = U32}, {.addr = (uintptr_t)&memory[1], .flags = U32}};
    pid_t pid = CHILD(SHOW(waitv(w, 2, 0, NULL, 0)));
    while (wake(&memory[1], 1, 1, U32) == 0)
        usleep(1000);
    reap("child", pid);
}

static void kinds(void)
{
    pthread_t thread;
    CASE("a private waiter and a shared waker don't meet");
    kind = PRIVATE;
    pthread_create(&thread, NULL, waits_as_ever, NULL);
    usleep(50000);
    SHOW(wake(&words[0], 1, 1, U32));
    SHOW(syscall(SYS_futex, &words[0], FUTEX_WAKE, 1, NULL, NULL, 0));
    SHOW(until_woken(1, &words[0], 1));
    join(thread);
    kind = 0;
    pthread_create(&thread, NULL, waits_as_ever, NULL);
    usleep(50000);
    SHOW(wake(&words[0], 1, 1, U32 | PRIVATE));
    SHOW(syscall(SYS_futex, &words[0], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    SHOW(until_woken(1, &words[0], 1));
    join(thread);
    CASE("clocks");
    struct timespec past = {1, 0};
    SHOW(syscall(SYS_futex, words, FUTEX_WAIT | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0));
    SHOW(syscall(SYS_futex, words, FUTEX_WAIT_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &past, NULL, 0));
    SHOW(syscall(SYS_futex, words, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0));
    SHOW(syscall(SYS_futex, words, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &past, NULL, 1));
    SHOW(syscall(SYS_futex, words, FUTEX_WAIT_BITSET, 0, BAD, NULL, 1));
    CASE("wake-op: all operations and comparisons");
    for (int op = 0; op < 6; op++) {
        memory[2] = 12;
        errno = 0;
        long result = syscall(SYS_futex, &memory[3], FUTEX_WAKE_OP, 1, 1, &memory[2], op << 28 | 6 << 12 | 12);
        say("op %d: %ld %s, %d", op, result, error_name(errno), (int)memory[2]);
    }
    for (int cmp = 0; cmp < 7; cmp++) {
        memory[2] = 12;
        errno = 0;
        long result = syscall(SYS_futex, &memory[3], FUTEX_WAKE_OP, 1, 1, &memory[2], cmp << 24 | 1 << 12 | 0xfff);
        say("cmp %d: %ld %s, %d", cmp, result, error_name(errno), (int)memory[2]);
    }
    memory[2] = 1;
    SHOW(syscall(SYS_futex, &memory[3], FUTEX_WAKE_OP, 1, 1, &memory[2], 0x80000000u | 1u << 28 | 4u << 12));
    say("%u", memory[2]);
}

static void signalled(int signo UNUSED) {}

static void interrupted(void)
{
    CASE("interrupted");
    handle_plain(SIGALRM, signalled);
    struct itimerval once = {{0, 0}, {0, 30000}};
    struct waitv w = {.addr = (uintptr_t)words, .flags = U32 | PRIVATE};
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    SHOW(waitv(&w, 1, 0, NULL, 0));
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    SHOW(wait_for(words, 0, 1, U32 | PRIVATE, NULL, 0));
    struct sigaction action = {.sa_handler = signalled, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct timespec later = time_in(CLOCK_MONOTONIC, 100);
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    SHOW(waitv(&w, 1, 0, &later, CLOCK_MONOTONIC));
    later = time_in(CLOCK_MONOTONIC, 100);
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    SHOW(wait_for(words, 0, 1, U32, &later, CLOCK_MONOTONIC));
}

int main(void)
{
    memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    wake_errors();
    wait_errors();
    waitv_errors();
    meetings();
    requeues();
    processes();
    kinds();
    interrupted();
    return 0;
}
