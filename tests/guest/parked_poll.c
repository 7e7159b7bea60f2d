/* poll and epoll_wait that sleep, on pipes and event counters and together with other files. */
#include "parked.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

struct job {
    pthread_t thread;
    volatile pid_t tid;
    struct pollfd fds[100];
    nfds_t count;
    int epfd;
    struct epoll_event events[8];
    int room, timeout, result, error;
};

static void *poller(void *argument)
{
    struct job *job = argument;
    job->tid = (pid_t)syscall(SYS_gettid);
    job->result = poll(job->fds, job->count, job->timeout);
    job->error = job->result < 0 ? errno : 0;
    return NULL;
}

static void *epoller(void *argument)
{
    struct job *job = argument;
    job->tid = (pid_t)syscall(SYS_gettid);
    job->result = epoll_wait(job->epfd, job->events, job->room, job->timeout);
    job->error = job->result < 0 ? errno : 0;
    return NULL;
}

static void start(struct job *job, void *(*body)(void *))
{
    job->thread = start_parked(body, job, &job->tid);
}

static void polled(const char *what, struct job *job)
{
    pthread_join(job->thread, NULL);
    say("%s: %d %s %x %x", what, job->result, error_name(job->error), job->fds[0].revents, job->fds[1].revents);
}

static void show_events(const char *what, int result, const struct epoll_event *events)
{
    say("%s: %d", what, result);
    for (int i = 0; i < result; i++)
        say("  %x %lx", events[i].events, (unsigned long)events[i].data.u64);
}

static void waited(const char *what, struct job *job)
{
    pthread_join(job->thread, NULL);
    if (job->error)
        say("%s: %s", what, error_name(job->error));
    else
        show_events(what, job->result, job->events);
}

static void polls(void)
{
    struct job job = {.count = 2, .timeout = -1};
    int one[2], two[2], event = eventfd(0, 0), timer;
    uint64_t value = 1;
    CASE("poll");
    MUST(pipe(one));
    MUST(pipe(two));
    job.fds[0] = (struct pollfd){.fd = one[0], .events = POLLIN};
    job.fds[1] = (struct pollfd){.fd = event, .events = POLLIN};
    start(&job, poller);
    MUST(write(event, &value, 8));
    polled("the second", &job);
    MUST(read(event, &value, 8));
    start(&job, poller);
    MUST(write(one[1], "x", 1));
    polled("the first", &job);
    MUST(read(one[0], &value, 1));
    job.timeout = 20;
    start(&job, poller);
    polled("neither", &job);
    job.timeout = 100000;
    start(&job, poller);
    close(one[1]);
    polled("hang up", &job);

    job.timeout = -1;
    job.fds[0].fd = two[0];
    handle(SA_RESTART);
    start(&job, poller);
    pthread_kill(job.thread, SIGUSR1);
    polled("signal", &job);
    job.fds[0].fd = -1;
    job.fds[1].fd = two[1];
    SHOW(poll(job.fds, 2, 0));
    job.fds[1].events = POLLOUT;
    SHOW(poll(job.fds, 2, -1));
    say("%x", job.fds[1].revents);
    job.fds[0].fd = 99;
    SHOW(poll(job.fds, 1, -1));
    say("%x", job.fds[0].revents);
    SHOW(poll(NULL, 0, 1));
    SHOW(poll(BAD, 1, 1));
    close(two[0]);
    SHOW(poll(job.fds + 1, 1, 0));
    say("%x", job.fds[1].revents);

    MUST(pipe(two));
    timer = timerfd_create(CLOCK_MONOTONIC, 0);
    MUST(timerfd_settime(timer, 0, &(struct itimerspec){.it_value.tv_nsec = 1000000}, NULL));
    job.fds[0] = (struct pollfd){.fd = two[0], .events = POLLIN};
    job.fds[1] = (struct pollfd){.fd = timer, .events = POLLIN};
    SHOW(poll(job.fds, 2, -1));
    say("%x %x", job.fds[0].revents, job.fds[1].revents);
    for (int i = 0; i < 100; i++)
        job.fds[i] = (struct pollfd){.fd = two[0], .events = POLLIN};
    job.count = 100;
    start(&job, poller);
    MUST(write(two[1], "x", 1));
    polled("one hundred", &job);
    close(one[0]);
    close(event);
    close(timer);
    close(two[0]);
    close(two[1]);
}

static void add(int epfd, int fd, uint32_t events, uint64_t data)
{
    MUST(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = events, .data.u64 = data}));
}

static void epolls(void)
{
    struct job job = {.room = 8, .timeout = -1};
    struct epoll_event events[8];
    int one[2], two[2], event = eventfd(0, 0), timer, outer;
    uint64_t value = 1;
    char bytes[8];
    CASE("epoll");
    MUST(pipe(one));
    MUST(pipe(two));
    job.epfd = epoll_create1(0);
    add(job.epfd, one[0], EPOLLIN, 1);
    add(job.epfd, two[0], EPOLLIN | EPOLLET, 2);
    add(job.epfd, event, EPOLLIN | EPOLLONESHOT, 3);

    start(&job, epoller);
    MUST(write(one[1], "x", 1));
    waited("level", &job);
    show_events("still", epoll_wait(job.epfd, events, 8, 0), events);
    MUST(read(one[0], bytes, 1));
    show_events("read", epoll_wait(job.epfd, events, 8, 0), events);

    start(&job, epoller);
    MUST(write(two[1], "x", 1));
    waited("edge", &job);
    show_events("once", epoll_wait(job.epfd, events, 8, 0), events);
    MUST(write(two[1], "x", 1));
    show_events("again", epoll_wait(job.epfd, events, 8, 0), events);
    MUST(write(two[1], "x", 1));
    SHOW(epoll_wait(job.epfd, (void *)"read-only memory, as long as eight events are in memory: "
                                      "that is ninety-six bytes of it", 8, 0));
    show_events("not lost", epoll_wait(job.epfd, events, 8, 0), events);

    start(&job, epoller);
    MUST(write(event, &value, 8));
    waited("one-shot", &job);
    MUST(write(event, &value, 8));
    show_events("disabled", epoll_wait(job.epfd, events, 8, 10), events);
    MUST(epoll_ctl(job.epfd, EPOLL_CTL_MOD, event,
                   &(struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 33}));
    show_events("armed again", epoll_wait(job.epfd, events, 8, 0), events);

    start(&job, epoller);
    add(job.epfd, two[1], EPOLLOUT | EPOLLET, 4);
    waited("added while it sleeps", &job);

    MUST(write(one[1], "x", 1));
    MUST(write(two[1], "x", 1));
    show_events("one of two", epoll_wait(job.epfd, events, 1, 0), events);
    show_events("the other", epoll_wait(job.epfd, events, 1, 0), events);
    show_events("and the first", epoll_wait(job.epfd, events, 1, 0), events);
    MUST(read(one[0], bytes, 1));

    timer = timerfd_create(CLOCK_MONOTONIC, 0);
    add(job.epfd, timer, EPOLLIN, 5);
    start(&job, epoller);
    MUST(timerfd_settime(timer, 0, &(struct itimerspec){.it_value.tv_nsec = 1000000}, NULL));
    waited("timer", &job);
    MUST(write(one[1], "x", 1));
    SHOW(epoll_wait(job.epfd, events, 8, 0));
    MUST(read(timer, &value, 8));
    show_events("without it", epoll_wait(job.epfd, events, 8, 0), events);
    MUST(read(one[0], bytes, 1));

    job.timeout = 10;
    start(&job, epoller);
    waited("time out", &job);
    job.timeout = -1;
    handle(SA_RESTART);
    start(&job, epoller);
    pthread_kill(job.thread, SIGUSR1);
    waited("signal", &job);

    outer = epoll_create1(0);
    add(outer, job.epfd, EPOLLIN, 6);
    {
        struct job deep = {.epfd = outer, .room = 8, .timeout = -1};
        start(&deep, epoller);
        MUST(write(one[1], "x", 1));
        waited("nested", &deep);
    }
    close(one[1]);
    show_events("hang up", epoll_wait(job.epfd, events, 8, 0), events);
    MUST(read(one[0], bytes, 1));
    close(one[0]);
    show_events("gone", epoll_wait(job.epfd, events, 8, 0), events);
    show_events("outside", epoll_wait(outer, events, 8, 0), events);
    SHOW(epoll_wait(job.epfd, events, 0, 0));
    SHOW(epoll_wait(timer, events, 1, 0));
    SHOW(epoll_wait(99, events, 1, 0));
    SHOW(epoll_pwait(job.epfd, events, 8, 0, NULL));
    MUST(epoll_ctl(job.epfd, EPOLL_CTL_DEL, timer, NULL));
    MUST(epoll_ctl(job.epfd, EPOLL_CTL_DEL, two[1], NULL));
    MUST(write(two[1], "x", 1));
    show_events("at the end", epoll_wait(job.epfd, events, 8, 0), events);
    close(outer);
    close(job.epfd);
    close(two[0]);
    close(two[1]);
    close(event);
    close(timer);
}

static void two_waiters(void)
{
    struct job jobs[4] = {0};
    int fds[2], epfd = epoll_create1(0), woken = 0;
    CASE("many waiters");
    MUST(pipe(fds));
    add(epfd, fds[0], EPOLLIN, 1);
    for (int i = 0; i < 4; i++) {
        jobs[i] = (struct job){.epfd = epfd, .room = 8, .timeout = -1};
        start(&jobs[i], epoller);
    }
    MUST(write(fds[1], "x", 1));
    for (int i = 0; i < 4; i++) {
        pthread_join(jobs[i].thread, NULL);
        woken += jobs[i].result;
    }
    say("%d", woken);
    close(epfd);
    close(fds[0]);
    close(fds[1]);
}

/* A stop and a continuation in the middle must not make the timeout longer. */
static void stopped(void)
{
    struct timespec before, after;
    int status, fds[2];
    pid_t child;
    CASE("stopped");
    MUST(pipe(fds));
    MUST(clock_gettime(CLOCK_MONOTONIC, &before));
    child = CHILD({
        struct pollfd fd = {.fd = fds[0], .events = POLLIN};
        SHOW(poll(&fd, 1, 300));
    });
    for (int i = 0; i < 20; i++) {
        usleep(10000);
        kill(child, SIGSTOP);
        MUST(waitpid(child, &status, WUNTRACED));
        if (!WIFSTOPPED(status))
            break; /* on a busy machine its time may be over already */
        kill(child, SIGCONT);
    }
    if (WIFSTOPPED(status))
        MUST(waitpid(child, &status, 0));
    MUST(clock_gettime(CLOCK_MONOTONIC, &after));
    say("long enough: %d", (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 >= 299);
}

int main(void)
{
    polls();
    epolls();
    two_waiters();
    stopped();
    return 0;
}
