/* eventfd(2) and timerfd_create(2). */
#include "check.h"

#include <sys/eventfd.h>
#include <sys/timerfd.h>

static int events_of(int fd)
{
    struct pollfd request = {.fd = fd, .events = POLLIN | POLLOUT};
    poll(&request, 1, 0);
    return request.revents;
}

static long add(int fd, uint64_t value)
{
    return write(fd, &value, sizeof value);
}

static void take(const char *what, int fd)
{
    uint64_t value = 0;
    long got = read(fd, &value, sizeof value);
    if (got < 0)
        say("%s: %s", what, error_name(errno));
    else
        say("%s: %ld bytes, %llu", what, got, (unsigned long long)value);
}

int main(void)
{
    uint64_t value = 0;
    CASE("eventfd");
    SHOW(eventfd(0, 0x40));
    int fd = MUST(eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC));
    SHOW(fcntl(fd, F_GETFD));
    take("initial", fd);
    take("empty", fd);
    say("events %#x", events_of(fd));
    SHOW(add(fd, 5));
    SHOW(add(fd, 6));
    say("events %#x", events_of(fd));
    take("sum", fd);
    SHOW(add(fd, 0));
    take("zero", fd);
    SHOW(add(fd, UINT64_MAX));
    SHOW(add(fd, UINT64_MAX - 1));
    say("events %#x", events_of(fd));
    SHOW(add(fd, 1));
    take("maximum", fd);
    SHOW(write(fd, &value, 7));
    SHOW(read(fd, &value, 7));
    SHOW(lseek(fd, 0, SEEK_CUR) == -1 ? -1 : 0);
    SHOW(pread(fd, &value, 8, 0));
    SHOW(ftruncate(fd, 0));
    CASE("semaphore");
    fd = MUST(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
    take("first", fd);
    take("second", fd);
    take("third", fd);
    CASE("blocking");
    fd = MUST(eventfd(0, 0));
    pid_t pid = CHILD(usleep(3000); MUST(add(fd, 77)));
    take("from a child", fd);
    reap("child", pid);
    MUST(add(fd, UINT64_MAX - 1));
    pid = CHILD(MUST(add(fd, 4)));
    usleep(3000);
    take("lets the child go on", fd);
    reap("child", pid);
    take("the child's", fd);

    CASE("timerfd");
    struct itimerspec timer = {{0, 0}, {0, 2000000}}, now;
    SHOW(timerfd_create(77, 0));
    SHOW(timerfd_create(CLOCK_MONOTONIC, 0x40));
    fd = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    take("not armed", fd);
    SHOW(timerfd_gettime(fd, &now));
    SHOW_IF(now.it_value.tv_sec == 0 && now.it_value.tv_nsec == 0);
    SHOW(timerfd_settime(fd, 0, &timer, NULL));
    struct pollfd request = {.fd = fd, .events = POLLIN};
    SHOW(poll(&request, 1, -1));
    take("once", fd);
    take("again", fd);
    CASE("interval");
    timer = (struct itimerspec){{0, 3000000}, {0, 1}};
    MUST(fcntl(fd, F_SETFL, 0));
    SHOW(timerfd_settime(fd, 0, &timer, NULL));
    usleep(20000);
    MUST(read(fd, &value, 8));
    SHOW_IF(value >= 3);
    MUST(read(fd, &value, 8));
    SHOW_IF(value >= 1);
    timer = (struct itimerspec){{500, 0}, {1000, 0}};
    SHOW(timerfd_settime(fd, 0, &timer, &now));
    SHOW_IF(now.it_interval.tv_nsec == 3000000);
    SHOW(timerfd_gettime(fd, &now));
    SHOW_IF(now.it_value.tv_sec >= 990 && now.it_value.tv_sec < 1000 && now.it_interval.tv_sec == 500);
    timer = (struct itimerspec){{0, 0}, {0, 0}};
    SHOW(timerfd_settime(fd, 0, &timer, NULL));
    MUST(fcntl(fd, F_SETFL, O_NONBLOCK));
    take("disarmed", fd);
    CASE("absolute");
    struct timespec clock;
    MUST(clock_gettime(CLOCK_MONOTONIC, &clock));
    timer = (struct itimerspec){{0, 0}, clock};
    SHOW(timerfd_settime(fd, TFD_TIMER_ABSTIME, &timer, NULL));
    SHOW(poll(&request, 1, -1));
    take("in the past", fd);
    int real = MUST(timerfd_create(CLOCK_REALTIME, 0));
    timer = (struct itimerspec){{0, 0}, {1, 0}};
    SHOW(timerfd_settime(real, TFD_TIMER_ABSTIME, &timer, NULL));
    take("long past", real);
    CASE("errors");
    timer = (struct itimerspec){{0, 0}, {0, 1000000000}};
    SHOW(timerfd_settime(fd, 0, &timer, NULL));
    timer = (struct itimerspec){{0, 0}, {-1, 0}};
    SHOW(timerfd_settime(fd, 0, &timer, NULL));
    SHOW(timerfd_settime(fd, 0x40, &(struct itimerspec){0}, NULL));
    SHOW(timerfd_settime(0, 0, &(struct itimerspec){0}, NULL));
    SHOW(timerfd_settime(99, 0, &(struct itimerspec){0}, NULL));
    SHOW(timerfd_gettime(0, &now));
    SHOW(timerfd_settime(fd, 0, BAD, NULL));
    SHOW(read(fd, &value, 4));
    SHOW(write(fd, &value, 8));
    return 0;
}
