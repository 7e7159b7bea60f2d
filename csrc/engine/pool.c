/* The pool of csrc/abi/pool.h: two rings under one lock, an eventfd for the engine's epoll.
 *
 * A job moves from `queued` to a worker's stack to `done`.  Every job holds a place in `room` all the
 * way, so neither ring can overflow.  Lock order: `lock` is the only lock and is never held over a
 * call that may wait.
 */
#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RING 256 /* a power of two */
#define MAX_THREADS 8
#define STACK_SIZE (64 * 1024)

struct job {
    unsigned kind;
    int fd;
    char *buffer;
    size_t size;
    int64_t offset;
    uint64_t token;
    int64_t result;
};

struct ring {
    struct job jobs[RING];
    unsigned head, tail;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;
static pthread_cond_t started = PTHREAD_COND_INITIALIZER;
static unsigned alive;           /* threads that wait for jobs; under lock */
static struct ring queued, done; /* under lock */
static unsigned room = RING;     /* under lock */
static int bell = -1;            /* set once, before any thread starts */

static void push(struct ring *ring, const struct job *job)
{
    ring->jobs[ring->tail++ % RING] = *job;
}

static struct job pop(struct ring *ring)
{
    return ring->jobs[ring->head++ % RING];
}

static int64_t perform(const struct job *job)
{
    int64_t result;
    switch (job->kind) {
    case POOL_PREAD:
        result = pread(job->fd, job->buffer, job->size, job->offset);
        break;
    case POOL_FSYNC:
        result = fsync(job->fd);
        break;
    default: /* POOL_CLOSE */
        result = close(job->fd);
        break;
    }
    return result < 0 ? -errno : result;
}

static void *work(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    alive++;
    pthread_cond_signal(&started);
    for (;;) {
        while (queued.head == queued.tail)
            pthread_cond_wait(&arrived, &lock);
        struct job job = pop(&queued);
        pthread_mutex_unlock(&lock);
        job.result = perform(&job);
        pthread_mutex_lock(&lock);
        push(&done, &job);
        uint64_t one = 1;
        /* Can't fail: the counter is taken back to 0 long before it could overflow. */
        ssize_t written = write(bell, &one, sizeof one);
        (void)written;
    }
    return NULL;
}

int pool_start(unsigned threads)
{
    pthread_attr_t attributes;
    sigset_t all, old;
    int error = 0;
    if (bell >= 0 || threads == 0 || threads > MAX_THREADS)
        return -EINVAL;
    bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell < 0)
        return -errno;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (unsigned i = 0; i < threads && !error; i++) {
        pthread_t thread;
        error = pthread_create(&thread, &attributes, work, NULL);
    }
    /* A thread that is still on its way makes calls that a seccomp filter would not allow. */
    pthread_mutex_lock(&lock);
    while (!error && alive < threads)
        pthread_cond_wait(&started, &lock);
    pthread_mutex_unlock(&lock);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return error ? -error : bell;
}

int pool_submit(unsigned kind, int fd, char *buffer, size_t size, int64_t offset, uint64_t token)
{
    struct job job = {kind, fd, buffer, size, offset, token, 0};
    int result = -EAGAIN;
    if (bell < 0 || kind > POOL_CLOSE || !token)
        return -EINVAL;
    pthread_mutex_lock(&lock);
    if (room) {
        room--;
        push(&queued, &job);
        pthread_cond_signal(&arrived);
        result = 0;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

uint64_t pool_take(int64_t *result)
{
    uint64_t count, token = 0;
    /* Emptied first: what is finished from here on rings anew. */
    ssize_t size = read(bell, &count, sizeof count);
    (void)size;
    pthread_mutex_lock(&lock);
    if (done.head != done.tail) {
        struct job job = pop(&done);
        room++;
        token = job.token;
        *result = job.result;
    }
    pthread_mutex_unlock(&lock);
    return token;
}
