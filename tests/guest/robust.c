/* Robust mutexes, process-shared primitives, and the PI family's plain cases. */
#include "check.h"

#include <linux/futex.h>
#include <pthread.h>

struct shared {
    pthread_mutex_t lock;
    pthread_mutex_t plain;
    pthread_cond_t changed;
    pthread_barrier_t barrier;
    int value;
};

static void *dies_with_lock(void *arg)
{
    pthread_mutex_lock(arg);
    return NULL;
}

int main(void)
{
    struct shared *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&shared->plain, &attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&shared->lock, &attr);

    CASE("owner thread ends");
    pthread_t thread;
    pthread_create(&thread, NULL, dies_with_lock, &shared->lock);
    pthread_join(thread, NULL);
    say("%s", error_name(pthread_mutex_lock(&shared->lock)));
    say("%d", pthread_mutex_consistent(&shared->lock));
    say("%d", pthread_mutex_unlock(&shared->lock));
    say("%d", pthread_mutex_lock(&shared->lock));
    say("%d", pthread_mutex_unlock(&shared->lock));

    CASE("owner process exits");
    reap("owner", CHILD(pthread_mutex_lock(&shared->lock); _exit(3)));
    say("%s", error_name(pthread_mutex_lock(&shared->lock)));
    say("%d", pthread_mutex_consistent(&shared->lock));
    say("%d", pthread_mutex_unlock(&shared->lock));

    CASE("owner process is killed while another waits");
    struct gate locked = gate_make();
    pid_t owner = CHILD(pthread_mutex_lock(&shared->lock); gate_open(locked); pause());
    gate_wait(locked);
    pid_t waiter = CHILD(int got = pthread_mutex_lock(&shared->lock);
                         pthread_mutex_consistent(&shared->lock); pthread_mutex_unlock(&shared->lock);
                         _exit(got == EOWNERDEAD ? 5 : 6));
    MUST(kill(owner, SIGKILL));
    reap("owner", owner);
    reap("waiter", waiter);

    CASE("not made consistent");
    reap("owner", CHILD(pthread_mutex_lock(&shared->lock)));
    say("%s", error_name(pthread_mutex_lock(&shared->lock)));
    say("%d", pthread_mutex_unlock(&shared->lock));
    say("%s", error_name(pthread_mutex_lock(&shared->lock)));

    CASE("process-shared condition and barrier");
    pthread_condattr_t cond_attr;
    pthread_condattr_init(&cond_attr);
    pthread_condattr_setpshared(&cond_attr, PTHREAD_PROCESS_SHARED);
    pthread_cond_init(&shared->changed, &cond_attr);
    pthread_barrierattr_t barrier_attr;
    pthread_barrierattr_init(&barrier_attr);
    pthread_barrierattr_setpshared(&barrier_attr, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&shared->barrier, &barrier_attr, 2);
    pid_t pid = CHILD({
        pthread_mutex_lock(&shared->plain);
        while (shared->value == 0)
            pthread_cond_wait(&shared->changed, &shared->plain);
        shared->value *= 2;
        pthread_mutex_unlock(&shared->plain);
        pthread_barrier_wait(&shared->barrier);
    });
    pthread_mutex_lock(&shared->plain);
    shared->value = 21;
    pthread_cond_signal(&shared->changed);
    pthread_mutex_unlock(&shared->plain);
    pthread_barrier_wait(&shared->barrier);
    say("value %d", shared->value);
    reap("child", pid);

    CASE("the list by hand");
    struct robust_list_head head = {.list = {&head.list}}, *got = NULL;
    size_t size = 0;
    SHOW(syscall(SYS_set_robust_list, &head, sizeof head - 1));
    SHOW(syscall(SYS_set_robust_list, &head, sizeof head));
    SHOW(syscall(SYS_get_robust_list, 0, &got, &size));
    say("%d %zu", got == &head, size);
    SHOW(syscall(SYS_get_robust_list, 1 << 21, &got, &size));
    SHOW(syscall(SYS_get_robust_list, 0, BAD, &size));
    return 0;
}
