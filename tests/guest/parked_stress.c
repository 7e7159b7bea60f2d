/* Threads and processes that pass bytes through pipes while signals, stops and closes fly about: no byte is lost or
 * doubled, and nobody sleeps for ever. */
#include "check.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define ROUNDS 400

static int pipes[3][2];
static int event;
static atomic_long written, taken, failures;
static atomic_int writers;

static void on_signal(int signo)
{
    (void)signo;
}

static unsigned next(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 16;
}

/* Writes ROUNDS pieces of random sizes, whatever interrupts it. */
static void *writer(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    static char data[20000];
    for (int i = 0; i < ROUNDS; i++) {
        int fd = pipes[next(&seed) % 3][1];
        size_t size = next(&seed) % 8 ? 1 + next(&seed) % 3000 : 1 + next(&seed) % sizeof data;
        ssize_t n = write(fd, data, size);
        if (n > 0)
            written += n;
        else if (n < 0 && errno != EINTR)
            failures++;
        if (i % 16 == 0) {
            uint64_t one = 1;
            if (write(event, &one, 8) != 8 && errno != EINTR)
                failures++;
        }
    }
    if (--writers == 0)
        for (int i = 0; i < 3; i++)
            close(pipes[i][1]);
    return NULL;
}

static long take(int fd, unsigned *seed)
{
    char data[9000];
    ssize_t n = read(fd, data, 1 + next(seed) % sizeof data);
    if (n > 0)
        taken += n;
    else if (n < 0 && errno != EINTR && errno != EAGAIN)
        failures++;
    return n;
}

/* Reads one pipe until its end. */
static void *reader(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    int fd = pipes[seed % 3][0];
    while (take(fd, &seed) != 0)
        ;
    return NULL;
}

/* Looks at all pipes with poll, and reads what is ready. */
static void *poller(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    struct pollfd fds[3];
    int open = 3;
    for (int i = 0; i < 3; i++)
        fds[i] = (struct pollfd){.fd = pipes[i][0], .events = POLLIN};
    while (open) {
        int ready = poll(fds, 3, next(&seed) % 2 ? -1 : 5);
        if (ready < 0 && errno != EINTR)
            failures++;
        for (int i = 0; ready > 0 && i < 3; i++)
            if (fds[i].fd >= 0 && fds[i].revents == POLLHUP) {
                fds[i].fd = -1;
                open--;
            }
    }
    return NULL;
}

static void *epoller(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    int epfd = epoll_create1(0), open = 3;
    struct epoll_event events[4];
    for (int i = 0; i < 3; i++)
        MUST(epoll_ctl(epfd, EPOLL_CTL_ADD, pipes[i][0],
                       &(struct epoll_event){.events = i ? EPOLLIN : EPOLLIN | EPOLLET, .data.fd = pipes[i][0]}));
    MUST(epoll_ctl(epfd, EPOLL_CTL_ADD, event, &(struct epoll_event){.events = EPOLLIN, .data.fd = event}));
    while (open) {
        int ready = epoll_wait(epfd, events, 4, next(&seed) % 2 ? -1 : 3);
        if (ready < 0 && errno != EINTR)
            failures++;
        for (int i = 0; i < ready; i++) {
            uint64_t value;
            if (events[i].data.fd == event) {
                if (read(event, &value, 8) < 0 && errno != EAGAIN && errno != EINTR)
                    failures++;
            } else if (events[i].events & EPOLLHUP) {
                MUST(epoll_ctl(epfd, EPOLL_CTL_DEL, events[i].data.fd, NULL));
                open--;
            }
        }
    }
    close(epfd);
    return NULL;
}

static void *(*const bodies[])(void *) = {writer, reader, writer, reader, poller, reader, epoller, writer};
#define THREADS (sizeof bodies / sizeof *bodies)

static void one_round(unsigned round)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = round % 2 ? SA_RESTART : 0};
    pthread_t threads[THREADS];
    unsigned seed = round + 7;
    sigaction(SIGUSR1, &action, NULL);
    written = taken = 0;
    writers = 3;
    for (int i = 0; i < 3; i++)
        MUST(pipe(pipes[i]));
    event = MUST(eventfd(0, EFD_NONBLOCK));
    /* Each pipe has a reader: 1, 3 and 5 are 1, 0 and 2 modulo 3. */
    for (unsigned i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, bodies[i], (void *)(uintptr_t)(i + 24 * (round + 1)));
    for (int i = 0; i < 300; i++) {
        pthread_kill(threads[next(&seed) % THREADS], SIGUSR1);
        if (i % 50 == 0) {
            int status;
            pid_t child = CHILD({
                uint64_t one = 1;
                if (write(event, &one, 8) != 8)
                    _exit(1);
            });
            while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                ;
            failures += status != 0;
        }
        sched_yield();
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++)
        close(pipes[i][0]);
    close(event);
    if (written != taken)
        say("%ld of %ld bytes", (long)taken, (long)written);
}

int main(void)
{
    for (unsigned round = 0; round < 4; round++)
        one_round(round);
    SHOW((long)failures);
    return 0;
}
