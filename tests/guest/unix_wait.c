/* Calls on Unix sockets that sleep: who wakes them, time limits, signals, what is closed under them, SIGIO. */
#include "parked.h"

#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static int pair[2];
static void fresh(int kind)
{
    close(pair[0]);
    close(pair[1]);
    MUST(socketpair(AF_UNIX, kind, 0, pair));
}

/* Does something in a child a little later. */
#define LATER(...)                \
    ({                            \
        pid_t later_ = fork();    \
        if (later_ == 0) {        \
            usleep(25000);        \
            __VA_ARGS__;          \
            _exit(0);             \
        }                         \
        later_;                   \
    })
#define DONE(pid) done(pid)

static void done(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0)
        NEED(errno == EINTR);
}

static void limit(int fd, int option, long ms)
{
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    MUST(setsockopt(fd, SOL_SOCKET, option, &tv, sizeof tv));
}

static void reading(int kind)
{
    char text[32] = "";
    pid_t pid;
    CASE("reading");
    fresh(kind);
    pid = LATER(write(pair[0], "late", 4));
    SHOW(read(pair[1], text, sizeof text));
    DONE(pid);
    pid = LATER(write(pair[0], "more", 4));
    SHOW(recv(pair[1], text, 2, MSG_PEEK));
    SHOW(recv(pair[1], text, 4, 0));
    DONE(pid);
    pid = LATER(shutdown(pair[0], SHUT_WR));
    SHOW(read(pair[1], text, sizeof text));
    DONE(pid);
    fresh(kind);
    close(pair[0]);
    SHOW(read(pair[1], text, sizeof text));
    fresh(kind);
    pid = LATER(shutdown(pair[1], SHUT_RD));
    SHOW(read(pair[1], text, sizeof text));
    DONE(pid);
    fresh(kind);
    limit(pair[1], SO_RCVTIMEO, 30);
    SHOW(read(pair[1], text, sizeof text));
    SHOW(recv(pair[1], text, sizeof text, 0));
    SHOW(readv(pair[1], &(struct iovec){text, 8}, 1));
    SHOW(recvmsg(pair[1], &(struct msghdr){.msg_iov = &(struct iovec){text, 8}, .msg_iovlen = 1}, 0));
    limit(pair[1], SO_RCVTIMEO, 0);
    pid = LATER(write(pair[0], "ab", 2); usleep(20000); write(pair[0], "cd", 2); usleep(20000); write(pair[0], "ef", 2));
    SHOW(recv(pair[1], text, 6, MSG_WAITALL));
    DONE(pid);
    while (recv(pair[1], text, 6, MSG_DONTWAIT) > 0)
        ;
    limit(pair[1], SO_RCVTIMEO, 100);
    MUST(write(pair[0], "ab", 2));
    SHOW(recv(pair[1], text, 6, MSG_WAITALL));
}

static void signalled(int kind)
{
    char text[32];
    pid_t pid, me = getpid();
    CASE("signals");
    fresh(kind);
    handle(0);
    pid = LATER(kill(me, SIGUSR1));
    SHOW(read(pair[1], text, sizeof text));
    SHOW(signals);
    DONE(pid);
    handle(SA_RESTART);
    pid = LATER(kill(me, SIGUSR1); usleep(20000); write(pair[0], "x", 1));
    SHOW(recv(pair[1], text, sizeof text, 0));
    SHOW(signals);
    DONE(pid);
    limit(pair[1], SO_RCVTIMEO, 2000);
    pid = LATER(kill(me, SIGUSR1));
    SHOW(recv(pair[1], text, sizeof text, 0));
    SHOW(signals);
    DONE(pid);
    limit(pair[1], SO_RCVTIMEO, 0);
    handle(0);
    MUST(write(pair[0], "ab", 2));
    pid = LATER(kill(me, SIGUSR1));
    SHOW(recv(pair[1], text, 6, MSG_WAITALL));
    DONE(pid);
}

static void writing(int kind)
{
    static char block[400000];
    char text[4096];
    pid_t pid, me = getpid();
    int n = 0;
    CASE("writing");
    fresh(kind);
    limit(pair[0], SO_SNDTIMEO, 30);
    if (kind == SOCK_STREAM)
        SHOW(write(pair[0], block, sizeof block));
    while (write(pair[0], block, sizeof text) > 0)
        n++;
    say("%d more, then %s", n, error_name(errno));
    SHOW(send(pair[0], block, 1, 0));
    limit(pair[0], SO_SNDTIMEO, 0);
    handle(0);
    pid = LATER(kill(me, SIGUSR1));
    SHOW(send(pair[0], block, 1, 0));
    DONE(pid);
    handle(SA_RESTART);
    pid = LATER(kill(me, SIGUSR1); usleep(20000); while (recv(pair[1], text, sizeof text, MSG_DONTWAIT) > 0));
    SHOW(send(pair[0], block, 1, 0));
    SHOW(signals);
    DONE(pid);
    while (recv(pair[1], text, sizeof text, MSG_DONTWAIT) >= 0)
        ;
    if (kind == SOCK_DGRAM)
        return;
    signal(SIGPIPE, SIG_IGN);
    while (send(pair[0], block, sizeof text, MSG_DONTWAIT) > 0)
        ;
    pid = LATER(shutdown(pair[1], SHUT_RD));
    SHOW(send(pair[0], block, 1, 0));
    DONE(pid);
    fresh(kind);
    if (kind != SOCK_STREAM)
        return;
    handle(0);
    pid = LATER(kill(me, SIGUSR1));
    long r = write(pair[0], block, sizeof block);
    say("interrupted in the middle: %s", r > 0 && r < (long)sizeof block ? "some" : r < 0 ? error_name(errno) : "all");
    DONE(pid);
    fresh(kind);
    pid = LATER({
        long total = 0;
        while ((r = read(pair[1], text, sizeof text)) > 0) {
            total += r;
            if (total == (long)sizeof block)
                break;
        }
        if (total != (long)sizeof block)
            say("read %ld", total);
    });
    SHOW(write(pair[0], block, sizeof block));
    DONE(pid);
}

static void *reader(void *result)
{
    char text[8];
    *(long *)result = read(pair[1], text, sizeof text);
    return NULL;
}

static void closing(int kind)
{
    pthread_t thread;
    long result = -7;
    CASE("closed under a reader");
    fresh(kind);
    MUST(pthread_create(&thread, NULL, reader, &result));
    usleep(25000);
    int was = pair[1];
    MUST(close(pair[1]));
    pair[1] = -1;
    SHOW(write(pair[0], "still", 5));
    pthread_join(thread, NULL);
    SHOW(result);
    SHOW(fcntl(was, F_GETFD));
    SHOW(send(pair[0], "x", 1, MSG_NOSIGNAL));
}

static void polling(int kind)
{
    pid_t pid;
    char text[8];
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    CASE("poll, select, epoll");
    fresh(kind);
    pid = LATER(write(pair[0], "x", 1));
    struct pollfd p = {.fd = pair[1], .events = POLLIN};
    SHOW(poll(&p, 1, -1));
    DONE(pid);
    MUST(read(pair[1], text, 1));
    pid = LATER(write(pair[0], "x", 1));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pair[1], &set);
    SHOW(select(pair[1] + 1, &set, NULL, NULL, NULL));
    DONE(pid);
    MUST(read(pair[1], text, 1));
    int ep = MUST(epoll_create1(0));
    MUST(epoll_ctl(ep, EPOLL_CTL_ADD, pair[1], &event));
    for (int i = 0; i < 3; i++) {
        SHOW(epoll_wait(ep, &event, 1, 0));
        say("%#x", event.events);
        MUST(write(pair[0], "x", 1));
    }
    SHOW(epoll_wait(ep, &event, 1, 0));
    SHOW(epoll_wait(ep, &event, 1, 0));
    MUST(read(pair[1], text, 1));
    SHOW(epoll_wait(ep, &event, 1, 0));
    pid = LATER(shutdown(pair[0], SHUT_WR));
    SHOW(epoll_wait(ep, &event, 1, kind == SOCK_DGRAM ? 100 : -1));
    say("%#x", event.events);
    DONE(pid);
    MUST(close(pair[0]));
    pair[0] = -1;
    SHOW(epoll_wait(ep, &event, 1, 0));
    say("%#x", event.events);
    close(ep);
}

static void moving(void)
{
    char text[32] = "";
    int pipes[2], file;
    CASE("splice and sendfile");
    fresh(SOCK_STREAM);
    MUST(pipe(pipes));
    MUST(write(pipes[1], "through", 7));
    SHOW(splice(pipes[0], NULL, pair[0], NULL, 100, 0));
    SHOW(splice(pair[1], NULL, pipes[1], NULL, 100, 0));
    SHOW(read(pipes[0], text, sizeof text));
    say("'%s'", text);
    SHOW(splice(pair[1], NULL, pipes[1], NULL, 100, SPLICE_F_NONBLOCK));
    file = MUST(open("/proc/self/exe", O_RDONLY));
    SHOW(sendfile(pair[0], file, NULL, 1000));
    SHOW(recv(pair[1], text, sizeof text, 0));
    SHOW(sendfile(file, pair[1], NULL, 10));
    SHOW(splice(pair[0], NULL, pair[1], NULL, 10, 0));
    close(file);
    close(pipes[0]);
    close(pipes[1]);
}

static void owner(void)
{
    CASE("SIGIO");
    fresh(SOCK_STREAM);
    struct sigaction action = {.sa_handler = on_signal};
    MUST(sigaction(SIGIO, &action, NULL));
    signals = 0;
    MUST(fcntl(pair[1], F_SETOWN, getpid()));
    MUST(write(pair[0], "x", 1));
    SHOW(signals);
    MUST(fcntl(pair[1], F_SETFL, O_ASYNC));
    MUST(write(pair[0], "x", 1));
    SHOW(signals > 0);
    signals = 0;
    MUST(close(pair[0]));
    pair[0] = -1;
    SHOW(signals > 0);
}

int main(void)
{
    static const int kinds[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    pair[0] = pair[1] = -1;
    for (int i = 0; i < 3; i++) {
        say("== kind %d", kinds[i]);
        if (kinds[i] != SOCK_DGRAM)
            reading(kinds[i]);
        signalled(kinds[i]);
        writing(kinds[i]);
        closing(kinds[i]);
        polling(kinds[i]);
    }
    moving();
    owner();
    return 0;
}
