/* epoll: level and edge triggered, one-shot, nesting, closing, what can be watched, and the errors. */
#include "check.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static int epoll;

static long control(int op, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll, op, fd, &event);
}

static void await(const char *what, int timeout)
{
    struct epoll_event events[8];
    char text[256] = "";
    int got = epoll_wait(epoll, events, 8, timeout);
    for (int i = 0; i < got; i++)
        sprintf(text + strlen(text), " %lu:%#x", (unsigned long)events[i].data.u64, events[i].events);
    say("%s: %d%s", what, got, text);
}

int main(void)
{
    int ends[2];
    char byte;
    struct epoll_event event = {.events = EPOLLIN};
    MUST(pipe(ends));
    CASE("create");
    SHOW(epoll_create(0));
    SHOW(epoll_create(-1));
    SHOW(epoll_create1(0x40));
    epoll = MUST(epoll_create1(EPOLL_CLOEXEC));
    SHOW(fcntl(epoll, F_GETFD));
    CASE("errors");
    SHOW(control(EPOLL_CTL_ADD, ends[0], EPOLLIN, 1));
    SHOW(control(EPOLL_CTL_ADD, ends[0], EPOLLIN, 1));
    SHOW(control(EPOLL_CTL_MOD, ends[1], EPOLLIN, 1));
    SHOW(control(EPOLL_CTL_DEL, ends[1], EPOLLIN, 1));
    SHOW(control(EPOLL_CTL_ADD, 99, EPOLLIN, 1));
    SHOW(control(EPOLL_CTL_ADD, epoll, EPOLLIN, 1));
    SHOW(control(77, ends[1], EPOLLIN, 1));
    SHOW(epoll_ctl(99, EPOLL_CTL_ADD, ends[1], &event));
    SHOW(epoll_ctl(ends[0], EPOLL_CTL_ADD, ends[1], &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[1], BAD));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_DEL, ends[0], NULL));
    SHOW(epoll_wait(epoll, &event, 0, 0));
    SHOW(epoll_wait(epoll, &event, -1, 0));
    SHOW(epoll_wait(ends[0], &event, 1, 0));
    SHOW(epoll_wait(99, &event, 1, 0));
    scratch();
    int file = MUST(open("file", O_RDWR | O_CREAT, 0644)), dir = MUST(open(".", O_RDONLY));
    int null = MUST(open("/dev/null", O_RDWR));
    SHOW(control(EPOLL_CTL_ADD, file, EPOLLIN, 1));
    SHOW(control(EPOLL_CTL_ADD, dir, EPOLLIN, 1));
    SHOW(control(EPOLL_CTL_ADD, null, EPOLLIN, 1));
    CASE("level triggered");
    MUST(control(EPOLL_CTL_ADD, ends[0], EPOLLIN, 10));
    MUST(control(EPOLL_CTL_ADD, ends[1], EPOLLOUT, 11));
    await("writable", 0);
    MUST(write(ends[1], "ab", 2));
    MUST(control(EPOLL_CTL_MOD, ends[1], 0, 11));
    await("readable", -1);
    await("still", -1);
    MUST(read(ends[0], &byte, 1));
    await("still", -1);
    MUST(read(ends[0], &byte, 1));
    await("no more", 0);
    SHOW(epoll_wait(epoll, BAD, 1, 0));
    MUST(write(ends[1], "a", 1));
    SHOW(epoll_wait(epoll, BAD, 1, 0));
    MUST(read(ends[0], &byte, 1));
    CASE("edge triggered");
    MUST(control(EPOLL_CTL_MOD, ends[0], EPOLLIN | EPOLLET, 12));
    MUST(write(ends[1], "a", 1));
    await("first", -1);
    await("no new edge", 0);
    MUST(write(ends[1], "b", 1));
    await("second write", -1);
    MUST(read(ends[0], &byte, 1));
    await("after a partial read", 0);
    MUST(control(EPOLL_CTL_MOD, ends[0], EPOLLIN | EPOLLET, 13));
    await("re-armed by MOD", 0);
    MUST(read(ends[0], &byte, 1));
    CASE("one-shot");
    MUST(control(EPOLL_CTL_MOD, ends[0], EPOLLIN | EPOLLONESHOT, 14));
    MUST(write(ends[1], "a", 1));
    await("once", -1);
    await("disabled", 0);
    MUST(write(ends[1], "b", 1));
    await("disabled", 0);
    MUST(control(EPOLL_CTL_MOD, ends[0], EPOLLIN | EPOLLONESHOT, 15));
    await("enabled", -1);
    CASE("closing");
    int copy = MUST(dup(ends[0]));
    MUST(control(EPOLL_CTL_MOD, ends[0], EPOLLIN, 16));
    close(ends[0]);
    await("a duplicate keeps it", 0);
    SHOW(control(EPOLL_CTL_DEL, ends[0], 0, 0));
    close(copy);
    await("gone with the last one", 0);
    await("hang-up of the write end", 0);
    MUST(control(EPOLL_CTL_DEL, ends[1], 0, 0));
    CASE("hang-up");
    MUST(pipe(ends));
    MUST(control(EPOLL_CTL_ADD, ends[0], 0, 17));
    await("nothing", 0);
    close(ends[1]);
    await("HUP can't be masked", -1);
    close(ends[0]);
    CASE("nested");
    int outer = MUST(epoll_create1(0)), inner = epoll;
    int counter = MUST(eventfd(0, EFD_NONBLOCK));
    MUST(control(EPOLL_CTL_ADD, counter, EPOLLIN, 20));
    epoll = outer;
    SHOW(control(EPOLL_CTL_ADD, inner, EPOLLIN, 21));
    await("outer, nothing", 0);
    struct pollfd poll_fd = {.fd = outer, .events = POLLIN};
    SHOW(poll(&poll_fd, 1, 0));
    uint64_t one = 1;
    MUST(write(counter, &one, 8));
    await("outer", -1);
    SHOW(poll(&poll_fd, 1, 0));
    epoll = inner;
    await("inner", -1);
    SHOW(control(EPOLL_CTL_ADD, outer, EPOLLIN, 22));
    MUST(read(counter, &one, 8));
    epoll = outer;
    await("outer, nothing", 0);
    epoll = inner;
    CASE("woken by another process");
    MUST(pipe(ends));
    MUST(control(EPOLL_CTL_ADD, ends[0], EPOLLIN, 30));
    pid_t pid = CHILD(usleep(3000); MUST(write(ends[1], "x", 1)));
    await("woken", -1);
    reap("child", pid);
    reap("shared over fork", CHILD(MUST(control(EPOLL_CTL_MOD, ends[0], EPOLLIN, 31))));
    await("changed by the child", -1);
    await("with a time-out", 5);
    MUST(read(ends[0], &byte, 1));
    await("timed out", 5);
    CASE("fairness: maxevents");
    int counters[6];
    for (int i = 0; i < 6; i++) {
        one = 1;
        counters[i] = MUST(eventfd(1, 0));
        MUST(control(EPOLL_CTL_ADD, counters[i], EPOLLIN, 100 + i));
    }
    int seen[6] = {0};
    for (int round = 0; round < 6; round++) {
        struct epoll_event some[2];
        int got = epoll_wait(epoll, some, 2, 0);
        for (int i = 0; i < got; i++)
            if (some[i].data.u64 >= 100)
                seen[some[i].data.u64 - 100]++;
    }
    say("seen %d %d %d %d %d %d", seen[0], seen[1], seen[2], seen[3], seen[4], seen[5]);
    CASE("exclusive, pwait2");
    SHOW(control(EPOLL_CTL_ADD, ends[1], EPOLLOUT | EPOLLEXCLUSIVE, 40));
    SHOW(control(EPOLL_CTL_MOD, ends[1], EPOLLOUT | EPOLLEXCLUSIVE, 40));
    struct timespec zero = {0, 0}, bad = {0, -1};
    SHOW_IF(epoll_pwait2(epoll, &event, 1, &zero, NULL) == 1);
    SHOW(epoll_pwait2(epoll, &event, 1, &bad, NULL));
    SHOW(epoll_pwait2(epoll, &event, 1, BAD, NULL));
    return 0;
}
