/* POSIX threads: start, join, mutexes, condition variables, barriers, thread-local storage, exit. */
#include "check.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/prctl.h>

#define COUNT 8

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static int counter, turn;
static _Thread_local int local = 5;
static __thread char wide[300] = "start";

static void *add(void *arg)
{
    for (int i = 0; i < 1000; i++) {
        pthread_mutex_lock(&lock);
        counter++;
        pthread_mutex_unlock(&lock);
    }
    return arg;
}

static void *in_turn(void *arg)
{
    int me = (int)(intptr_t)arg;
    pthread_mutex_lock(&lock);
    while (turn != me)
        pthread_cond_wait(&changed, &lock);
    say("turn %d", me);
    turn++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void *over_barrier(void *arg UNUSED)
{
    __atomic_fetch_add(&counter, 1, __ATOMIC_SEQ_CST);
    int got = pthread_barrier_wait(&barrier);
    if (__atomic_load_n(&counter, __ATOMIC_SEQ_CST) < COUNT)
        say("went through the barrier too early");
    return (void *)(intptr_t)(got == PTHREAD_BARRIER_SERIAL_THREAD);
}

static void *with_local(void *arg)
{
    int before = local;
    local += (int)(intptr_t)arg;
    snprintf(wide, sizeof wide, "thread %d", (int)(intptr_t)arg);
    sched_yield();
    return (void *)(intptr_t)(before == 5 && local == 5 + (int)(intptr_t)arg && atoi(wide + 7) == (intptr_t)arg);
}

static void *identity(void *arg)
{
    pid_t *ids = arg;
    ids[0] = getpid();
    ids[1] = gettid();
    ids[2] = getppid();
    return NULL;
}

static sem_t semaphore;

static void *poster(void *arg UNUSED)
{
    for (int i = 0; i < 100; i++)
        sem_post(&semaphore);
    return NULL;
}

static void *forever(void *arg)
{
    gate_open(*(struct gate *)arg);
    for (;;)
        pause();
    return NULL;
}

static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;

static void *reader(void *arg UNUSED)
{
    pthread_rwlock_rdlock(&rwlock);
    int seen = counter;
    pthread_rwlock_unlock(&rwlock);
    return (void *)(intptr_t)seen;
}

static void run_all(const char *what, void *(*start)(void *))
{
    pthread_t threads[COUNT];
    long sum = 0;
    for (intptr_t i = 0; i < COUNT; i++)
        NEED(pthread_create(&threads[i], NULL, start, (void *)i) == 0);
    for (int i = 0; i < COUNT; i++) {
        void *result;
        NEED(pthread_join(threads[i], &result) == 0);
        sum += (intptr_t)result;
    }
    say("%s: sum of results %ld", what, sum);
}

static void cancelled(void)
{
    pthread_t thread;
    void *result;
    struct gate gate = gate_make();
    CASE("cancel a sleeper");
    pthread_create(&thread, NULL, forever, &gate);
    gate_wait(gate);
    say("%d", pthread_cancel(thread));
    pthread_join(thread, &result);
    SHOW_IF(result == PTHREAD_CANCELED);
}

static void timed(void)
{
    CASE("timed waits");
    struct timespec until = time_in(CLOCK_REALTIME, 20);
    pthread_mutex_lock(&lock);
    say("cond %s", error_name(pthread_cond_timedwait(&changed, &lock, &until)));
    pthread_mutex_unlock(&lock);
    sem_t empty;
    sem_init(&empty, 0, 0);
    SHOW(sem_trywait(&empty));
    SHOW(sem_timedwait(&empty, &until));
}

static void *exits_process(void *arg UNUSED)
{
    exit(33);
}

static void *late(void *arg)
{
    gate_wait(*(struct gate *)arg);
    say("still here after main left");
    return NULL;
}

static void *execs(void *arg UNUSED)
{
    execl("/bin/sh", "sh", "-c", "exit 44", NULL);
    return NULL;
}

static void *tid_after_exec(void *arg)
{
    char text[200];
    snprintf(text, sizeof text, "test $$ = %d && exit 21; exit 22", *(int *)arg);
    execl("/bin/sh", "sh", "-c", text, NULL);
    return NULL;
}

static void *faults(void *arg UNUSED)
{
    raise(SIGKILL);
    return NULL;
}

static void *leave_group(void *arg UNUSED)
{
    pthread_exit((void *)7);
}

static void endings(void)
{
    pthread_t thread;
    CASE("how a threaded process ends");
    reap("exit in a thread", CHILD(pthread_create(&thread, NULL, exits_process, NULL); pause()));
    reap("main leaves by pthread_exit", CHILD({
        struct gate gate = gate_make();
        pthread_create(&thread, NULL, late, &gate);
        gate_open(gate);
        pthread_exit(NULL);
    }));
    reap("exec in a thread", CHILD(pthread_create(&thread, NULL, execs, NULL); pause()));
    reap("the pid after exec in a thread", CHILD({
        int pid = getpid();
        pthread_create(&thread, NULL, tid_after_exec, &pid);
        pause();
    }));
    reap("killed by a thread", CHILD(pthread_create(&thread, NULL, faults, NULL); pause()));
    reap("fork from a thread's process", CHILD({
        pthread_create(&thread, NULL, leave_group, NULL);
        pid_t pid = CHILD(say("one thread in the child: %s", gettid() == getpid() ? "yes" : "no"));
        reap("inner", pid);
        pthread_join(thread, NULL);
    }));
}

static void *named(void *arg UNUSED)
{
    char name[32];
    pthread_setname_np(pthread_self(), "worker-7");
    pthread_getname_np(pthread_self(), name, sizeof name);
    say("thread '%s'", name);
    MUST(prctl(PR_GET_NAME, name));
    say("prctl '%s'", name);
    return NULL;
}

int main(void)
{
    CASE("mutex");
    run_all("add", add);
    say("counter %d", counter);
    CASE("condition variable");
    run_all("turns", in_turn);
    CASE("barrier");
    counter = 0;
    pthread_barrier_init(&barrier, NULL, COUNT);
    run_all("serial threads", over_barrier);
    CASE("thread-local storage");
    run_all("right values", with_local);
    say("main's own: %d %s", local, wide);
    CASE("identity");
    pid_t ids[3];
    pthread_t thread;
    pthread_create(&thread, NULL, identity, ids);
    pthread_join(thread, NULL);
    SHOW_IF(ids[0] == getpid());
    SHOW_IF(ids[1] != gettid());
    SHOW_IF(ids[2] == getppid());
    SHOW_IF(gettid() == getpid());
    CASE("semaphore");
    sem_init(&semaphore, 0, 0);
    run_all("posters", poster);
    for (int i = 0; i < COUNT * 100; i++)
        sem_wait(&semaphore);
    SHOW(sem_trywait(&semaphore));
    CASE("rwlock");
    counter = 3;
    run_all("readers", reader);
    CASE("names");
    pthread_create(&thread, NULL, named, NULL);
    pthread_join(thread, NULL);
    char name[32];
    MUST(prctl(PR_SET_NAME, "main-thread-too-long-name"));
    MUST(prctl(PR_GET_NAME, name));
    say("main '%s'", name);
    cancelled();
    timed();
    endings();
    return 0;
}
