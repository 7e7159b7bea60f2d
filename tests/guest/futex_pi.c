/* futex(2): locks with an owner (LOCK_PI and its kin), by hand and by pthread mutexes with PTHREAD_PRIO_INHERIT. */
#include "check.h"

#include <linux/futex.h>
#include <pthread.h>

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif

static uint32_t word, other;
static volatile int stage;

static long futex(void *uaddr, int op, uint32_t value, const void *timeout, void *uaddr2, uint32_t value3)
{
    return syscall(SYS_futex, uaddr, op, value, timeout, uaddr2, value3);
}

static uint32_t tid(void)
{
    return (uint32_t)syscall(SYS_gettid);
}

static void show_word(const char *what, uint32_t value, uint32_t owner)
{
    uint32_t id = value & FUTEX_TID_MASK;
    say("%s: %s%s%s", what, id == 0 ? "free" : id == owner ? "its owner's" : "another's",
        value & FUTEX_WAITERS ? ", waiters" : "", value & FUTEX_OWNER_DIED ? ", owner died" : "");
}

static void alone(int private)
{
    say("-- alone, %s", private ? "private" : "shared");
    word = 0;
    SHOW(futex(&word, FUTEX_LOCK_PI | private, 0, NULL, NULL, 0));
    show_word("word", word, tid());
    SHOW(futex(&word, FUTEX_LOCK_PI | private, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_TRYLOCK_PI | private, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_UNLOCK_PI | private, 0, NULL, NULL, 0));
    show_word("word", word, tid());
    SHOW(futex(&word, FUTEX_UNLOCK_PI | private, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_TRYLOCK_PI | private, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_UNLOCK_PI | private, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_LOCK_PI2 | private, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_UNLOCK_PI | private, 0, NULL, NULL, 0));
    word = FUTEX_OWNER_DIED;
    SHOW(futex(&word, FUTEX_LOCK_PI | private, 0, NULL, NULL, 0));
    show_word("after a death", word, tid());
    word = FUTEX_WAITERS | tid();
    SHOW(futex(&word, FUTEX_UNLOCK_PI | private, 0, NULL, NULL, 0));
    show_word("no waiters", word, tid());
    word = 0x3ffffff0;
    SHOW(futex(&word, FUTEX_LOCK_PI | private, 0, NULL, NULL, 0));
    word = 0x3ffffff0;
    SHOW(futex(&word, FUTEX_TRYLOCK_PI | private, 0, NULL, NULL, 0));
    word = 0;
    SHOW(futex((char *)&word + 1, FUTEX_LOCK_PI | private, 0, NULL, NULL, 0));
    SHOW(futex(BAD, FUTEX_LOCK_PI | private, 0, NULL, NULL, 0));
    SHOW(futex(BAD, FUTEX_UNLOCK_PI | private, 0, NULL, NULL, 0));
    SHOW(futex(BAD, FUTEX_TRYLOCK_PI | private, 0, NULL, NULL, 0));
    struct timespec bad = {0, -1};
    SHOW(futex(&word, FUTEX_LOCK_PI | private, 0, &bad, NULL, 0));
    SHOW(futex(&word, FUTEX_LOCK_PI | private, 0, BAD, NULL, 0));
    SHOW(futex(&word, FUTEX_LOCK_PI | private | FUTEX_CLOCK_REALTIME, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_LOCK_PI2 | private | FUTEX_CLOCK_REALTIME, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_UNLOCK_PI | private, 0, NULL, NULL, 0));
    uint32_t *readable = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SHOW(futex(readable, FUTEX_LOCK_PI | private, 0, NULL, NULL, 0));
    munmap(readable, 4096);
}

static void *holder(void *unused)
{
    MUST(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    stage = 1;
    while (stage != 2)
        usleep(1000);
    MUST(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    return unused;
}

static void until_waited_for(uint32_t *futex_word)
{
    while (!(__atomic_load_n(futex_word, __ATOMIC_SEQ_CST) & FUTEX_WAITERS))
        usleep(1000);
    usleep(20000);
}

static void *let_go(void *unused)
{
    until_waited_for(&word);
    stage = 2;
    return unused;
}

static void contended(void)
{
    pthread_t first, second;
    CASE("held by another");
    word = stage = 0;
    pthread_create(&first, NULL, holder, NULL);
    while (stage != 1)
        usleep(1000);
    SHOW(futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    struct timespec soon = time_in(CLOCK_REALTIME, 20), late = time_in(CLOCK_MONOTONIC, 20), now = time_in(CLOCK_REALTIME, 20);
    SHOW(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, &soon, NULL, 0));
    SHOW(futex(&word, FUTEX_LOCK_PI2 | FUTEX_PRIVATE_FLAG, 0, &late, NULL, 0));
    SHOW(futex(&word, FUTEX_LOCK_PI2 | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME, 0, &now, NULL, 0));
    SHOW(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    word &= ~FUTEX_WAITERS;
    pthread_create(&second, NULL, let_go, NULL);
    SHOW(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    show_word("handed over", word, tid());
    SHOW(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    show_word("unlocked", word, tid());
    pthread_join(first, NULL);
    pthread_join(second, NULL);
}

static volatile int order[3], served;

static void *queued(void *number)
{
    MUST(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    order[served++] = (int)(long)number;
    MUST(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    return NULL;
}

static void in_order(void)
{
    pthread_t threads[3];
    CASE("first come, first served");
    word = 0;
    MUST(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    for (long i = 0; i < 3; i++) {
        pthread_create(&threads[i], NULL, queued, (void *)i);
        until_waited_for(&word);
    }
    MUST(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    say("%d %d %d", order[0], order[1], order[2]);
}

static void *crossing(void *unused)
{
    MUST(futex(&other, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    stage = 1;
    MUST(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    MUST(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    MUST(futex(&other, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    return unused;
}

static void deadlock(void)
{
    pthread_t thread;
    CASE("each waits for the other");
    word = other = stage = 0;
    MUST(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    pthread_create(&thread, NULL, crossing, NULL);
    until_waited_for(&word);
    SHOW(futex(&other, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    MUST(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    pthread_join(thread, NULL);
}

static void *sleeper(void *unused)
{
    MUST(futex(&word, FUTEX_WAIT, 0, NULL, NULL, 0));
    return unused;
}

static void mixed(void)
{
    pthread_t thread;
    CASE("a plain waiter where a lock is wanted");
    word = 0;
    pthread_create(&thread, NULL, sleeper, NULL);
    usleep(50000);
    SHOW(futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
    word = tid();
    SHOW(futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0));
    pthread_join(thread, NULL);
}

static void *dies(void *unused)
{
    MUST(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    stage = 1;
    until_waited_for(&word);
    return unused;
}

static void owner_dies(void)
{
    pthread_t thread;
    CASE("the owner ends while another waits");
    word = stage = 0;
    pthread_create(&thread, NULL, dies, NULL);
    while (stage != 1)
        usleep(1000);
    SHOW(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    show_word("inherited", word, tid());
    pthread_join(thread, NULL);
    SHOW(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    CASE("the owner has ended");
    word = 0;
    pid_t pid = CHILD(_exit(0));
    word = pid;
    reap("child", pid);
    SHOW(futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
    show_word("word", word, pid);
}

static volatile int signals;

static void count(int signo UNUSED)
{
    signals++;
}

static void interrupted(void)
{
    pthread_t first, second;
    CASE("signals don't end it");
    handle_plain(SIGALRM, count);
    word = stage = 0;
    pthread_create(&first, NULL, holder, NULL);
    while (stage != 1)
        usleep(1000);
    struct itimerval once = {{0, 0}, {0, 10000}};
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    pthread_create(&second, NULL, let_go, NULL);
    SHOW(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    SHOW(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    pthread_join(first, NULL);
    pthread_join(second, NULL);
}

static volatile uint32_t owner, seen;

static void *waits_for_requeue(void *unused)
{
    MUST(futex(&word, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, NULL, &other, 0));
    owner = tid();
    seen = other;
    MUST(futex(&other, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    return unused;
}

static void requeued(void)
{
    pthread_t threads[2];
    CASE("requeued to a lock");
    word = other = 0;
    struct timespec soon = time_in(CLOCK_MONOTONIC, 20);
    SHOW(futex(&word, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 1, NULL, &other, 0));
    SHOW(futex(&word, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, &soon, &other, 0));
    SHOW(futex(&word, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, &soon, &word, 0));
    SHOW(futex(&word, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)1, &word, 0));
    SHOW(futex(&word, FUTEX_CMP_REQUEUE_PI_PRIVATE, 2, (void *)1, &other, 0));
    SHOW(futex(&word, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)-1, &other, 0));
    SHOW(futex(&word, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)1, &other, 7));
    SHOW(futex(&word, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)1, &other, 0));
    pthread_create(&threads[0], NULL, waits_for_requeue, NULL);
    usleep(50000);
    SHOW(futex(&word, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)1, &other, 0));
    pthread_join(threads[0], NULL);
    show_word("thread", seen, owner);
    CASE("requeued to a lock that is held");
    other = 0;
    MUST(futex(&other, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    pthread_create(&threads[0], NULL, waits_for_requeue, NULL);
    usleep(50000);
    SHOW(futex(&word, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)1, &other, 0));
    show_word("held", other, tid());
    SHOW(futex(&other, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    pthread_join(threads[0], NULL);
    show_word("thread", seen, owner);
}

struct shared {
    pthread_mutex_t lock;
    pthread_mutex_t robust;
    int count;
};

static void *increments(void *arg)
{
    struct shared *shared = arg;
    for (int i = 0; i < 200; i++) {
        pthread_mutex_lock(&shared->lock);
        shared->count++;
        pthread_mutex_unlock(&shared->lock);
    }
    return NULL;
}

static void mutexes(void)
{
    struct shared *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t attr;
    pthread_t threads[4];
    CASE("mutexes that inherit");
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    SHOW(pthread_mutex_init(&shared->lock, &attr));
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    SHOW(pthread_mutex_init(&shared->robust, &attr));
    pid_t pid = CHILD(increments(shared));
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, increments, shared);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    reap("child", pid);
    say("count %d", shared->count);
    CASE("robust ones");
    reap("owner", CHILD(pthread_mutex_lock(&shared->robust)));
    say("%s", error_name(pthread_mutex_lock(&shared->robust)));
    say("%d", pthread_mutex_consistent(&shared->robust));
    say("%d", pthread_mutex_unlock(&shared->robust));
    struct gate gate = gate_make();
    pid = CHILD(pthread_mutex_lock(&shared->robust); gate_open(gate); pause());
    gate_wait(gate);
    pid_t waiter = CHILD(_exit(pthread_mutex_lock(&shared->robust) == EOWNERDEAD ? 7 : 8));
    usleep(50000);
    MUST(kill(pid, SIGKILL));
    reap("owner", pid);
    reap("waiter", waiter);
    say("%s", error_name(pthread_mutex_lock(&shared->robust)));
}

int main(void)
{
    alone(0);
    alone(FUTEX_PRIVATE_FLAG);
    contended();
    in_order();
    deadlock();
    mixed();
    owner_dies();
    interrupted();
    requeued();
    mutexes();
    return 0;
}
