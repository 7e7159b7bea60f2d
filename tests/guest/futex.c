/* futex(2): wait, wake, bitsets, requeue, time-outs, and the errors; private and shared. */
#include "check.h"

#include <linux/futex.h>
#include <pthread.h>

static uint32_t word, other;
static struct gate ready;
static volatile int woken;

static long futex(void *uaddr, int op, uint32_t value, const void *timeout, void *uaddr2, uint32_t value3)
{
    return syscall(SYS_futex, uaddr, op, value, timeout, uaddr2, value3);
}

/* Until so many sleep there: asked by a requeue to the same place, which moves nobody's wait to an end. */
static void until_queued(uint32_t *uaddr, int count)
{
    uint32_t hidden = 0;
    for (;;) {
        long moved = futex(uaddr, FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)(long)1000, &hidden, *uaddr);
        long back = futex(&hidden, FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)(long)1000, uaddr, 0);
        if (moved == count && back == count)
            return;
        sched_yield();
    }
}

static void *sleeper(void *arg)
{
    long result = futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    __atomic_fetch_add(&woken, 1, __ATOMIC_SEQ_CST);
    (void)arg;
    return (void *)result;
}

static void *bit_sleeper(void *arg)
{
    return (void *)futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, (uint32_t)(uintptr_t)arg);
}

static void wake(void)
{
    pthread_t threads[5];
    CASE("wake some of many");
    for (int i = 0; i < 5; i++)
        pthread_create(&threads[i], NULL, sleeper, NULL);
    until_queued(&word, 5);
    SHOW(futex(&word, FUTEX_WAKE_PRIVATE, 2, NULL, NULL, 0));
    until_queued(&word, 3);
    SHOW(futex(&word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    until_queued(&word, 2);
    SHOW(futex(&word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    long sum = 0;
    for (int i = 0; i < 5; i++) {
        void *result;
        pthread_join(threads[i], &result);
        sum += (long)result;
    }
    say("woken %d, results %ld", woken, sum);
}

static void bitset(void)
{
    pthread_t first, second;
    CASE("bitset");
    pthread_create(&first, NULL, bit_sleeper, (void *)1);
    pthread_create(&second, NULL, bit_sleeper, (void *)6);
    until_queued(&word, 2);
    SHOW(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 8));
    SHOW(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 2));
    pthread_join(second, NULL);
    SHOW(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 0xffffffff));
    pthread_join(first, NULL);
    SHOW(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, 0));
}

static void requeue(void)
{
    pthread_t threads[4];
    CASE("requeue");
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, sleeper, NULL);
    until_queued(&word, 4);
    SHOW(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)2, &other, 1));
    SHOW(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)2, &other, 0));
    SHOW(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    SHOW(futex(&other, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    SHOW(futex(&word, FUTEX_REQUEUE_PRIVATE, 1, (void *)2, &other, 0));
    SHOW(futex(&word, FUTEX_REQUEUE_PRIVATE, -1, (void *)2, &other, 0));
    CASE("wake-op");
    other = 5;
    SHOW(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &other, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 5)));
    say("other %u", other);
    SHOW(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &other, FUTEX_OP(FUTEX_OP_OR, 3, FUTEX_OP_CMP_GT, 5)));
    say("other %u", other);
    SHOW(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &other, FUTEX_OP(FUTEX_OP_SET, 0, FUTEX_OP_CMP_NE, 5)));
    say("other %u", other);
}

static void errors(void)
{
    struct timespec soon = {0, 1000000}, bad = {0, 1000000000}, negative = {-1, 0};
    CASE("errors");
    SHOW(futex(&word, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_WAIT, 1, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_WAIT_PRIVATE, 0, &soon, NULL, 0));
    SHOW(futex(&word, FUTEX_WAIT, 0, &soon, NULL, 0));
    SHOW(futex(&word, FUTEX_WAIT_PRIVATE, 0, &bad, NULL, 0));
    SHOW(futex(&word, FUTEX_WAIT_PRIVATE, 0, &negative, NULL, 0));
    SHOW(futex(&word, FUTEX_WAIT_PRIVATE, 0, BAD, NULL, 0));
    SHOW(futex((char *)&word + 1, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
    SHOW(futex((char *)&word + 1, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    SHOW(futex(BAD, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
    SHOW(futex(BAD, FUTEX_WAIT, 0, NULL, NULL, 0));
    SHOW(futex(BAD, FUTEX_WAKE, 1, NULL, NULL, 0));
    SHOW(futex((void *)(1ul << 63), FUTEX_WAKE, 1, NULL, NULL, 0));
    SHOW(futex(&word, 99, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_FD, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_WAKE_PRIVATE, 0, NULL, NULL, 0));
    CASE("absolute times");
    struct timespec past = {1, 0};
    SHOW(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &past, NULL, 1));
    SHOW(futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &past, NULL, 1));
    SHOW(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 1, &past, NULL, 1));
    SHOW(futex(&word, FUTEX_WAKE_PRIVATE | FUTEX_CLOCK_REALTIME, 0, NULL, NULL, 0));
}

static void nothing(int signo UNUSED) {}

static void interrupted(void)
{
    CASE("interrupted");
    handle_plain(SIGALRM, nothing);
    struct itimerval often = {{0, 10000}, {0, 10000}}, off = {{0, 0}, {0, 0}};
    MUST(setitimer(ITIMER_REAL, &often, NULL));
    SHOW(futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
    struct timespec later = {100, 0};
    SHOW(futex(&word, FUTEX_WAIT_PRIVATE, 0, &later, NULL, 0));
    MUST(setitimer(ITIMER_REAL, &off, NULL));
}

static void shared(void)
{
    CASE("between processes");
    uint32_t *cell = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = CHILD({
        while (__atomic_load_n(&cell[0], __ATOMIC_SEQ_CST) == 0)
            futex(&cell[0], FUTEX_WAIT, 0, NULL, NULL, 0);
        __atomic_store_n(&cell[1], 7, __ATOMIC_SEQ_CST);
        futex(&cell[1], FUTEX_WAKE, 1, NULL, NULL, 0);
    });
    __atomic_store_n(&cell[0], 1, __ATOMIC_SEQ_CST);
    futex(&cell[0], FUTEX_WAKE, 1, NULL, NULL, 0);
    while (__atomic_load_n(&cell[1], __ATOMIC_SEQ_CST) == 0)
        futex(&cell[1], FUTEX_WAIT, 0, NULL, NULL, 0);
    say("cell %u", cell[1]);
    reap("child", pid);
    CASE("a private word is not another process's");
    pid = CHILD(SHOW(futex(&word, FUTEX_WAKE, 10, NULL, NULL, 0)));
    reap("child", pid);
}

int main(void)
{
    ready = gate_make();
    wake();
    bitset();
    requeue();
    errors();
    interrupted();
    shared();
    return 0;
}
