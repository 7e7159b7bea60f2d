/* Bytes out of band on Unix streams: the mark, what reads stop at, what they skip, SIGURG. */
#include "check.h"

#include <sys/ioctl.h>
#include <sys/socket.h>

#ifndef SIOCATMARK
#define SIOCATMARK 0x8905
#endif

static int pair[2];

static void fresh(const char *name)
{
    CASE(name);
    close(pair[0]);
    close(pair[1]);
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
}

static void put(const char *text, int flags)
{
    long r = send(pair[0], text, strlen(text), flags);
    say("send '%s'%s = %ld %s", text, flags & MSG_OOB ? " oob" : "", r, r < 0 ? error_name(errno) : "");
}

static void state(void)
{
    int mark = -1, size = -1;
    struct pollfd p = {.fd = pair[1], .events = POLLIN | POLLPRI | POLLRDHUP};
    poll(&p, 1, 0);
    ioctl(pair[1], SIOCATMARK, &mark);
    ioctl(pair[1], FIONREAD, &size);
    say("  mark %d size %d poll %#x", mark, size, p.revents);
}

static void get(size_t size, int flags)
{
    char text[64] = "";
    long r = recv(pair[1], text, size, flags);
    say("recv %zu %#x = %ld %s '%s'", size, flags, r, r < 0 ? error_name(errno) : "", text);
    state();
}

static void on_urgent(int signo)
{
    (void)signo;
    say("SIGURG");
}

int main(void)
{
    int on = 1;
    struct iovec iov;
    char text[16];
    pair[0] = pair[1] = -1;
    fresh("one byte");
    state();
    put("x", MSG_OOB);
    state();
    get(1, MSG_OOB | MSG_PEEK);
    get(1, MSG_OOB);
    get(1, MSG_OOB);
    get(1, 0);
    get(10, 0);
    fresh("nobody asks");
    put("x", MSG_OOB);
    get(10, 0);
    get(1, MSG_OOB);
    fresh("within text");
    put("hello", MSG_OOB);
    put("world", 0);
    state();
    get(10, MSG_PEEK);
    get(2, 0);
    get(10, 0);
    get(10, 0);
    get(10, 0);
    fresh("taken before the text");
    put("hello", MSG_OOB);
    put("world", 0);
    get(1, MSG_OOB);
    get(10, 0);
    get(10, 0);
    get(10, 0);
    fresh("two of them");
    put("ab", MSG_OOB);
    put("cd", MSG_OOB);
    put("ef", 0);
    state();
    get(1, MSG_OOB);
    get(10, 0);
    get(10, 0);
    get(10, 0);
    fresh("two, none taken");
    put("ab", MSG_OOB);
    put("cd", MSG_OOB);
    put("ef", 0);
    get(10, 0);
    get(10, 0);
    get(10, 0);
    fresh("inline");
    MUST(setsockopt(pair[1], SOL_SOCKET, SO_OOBINLINE, &on, sizeof on));
    put("hello", MSG_OOB);
    put("world", 0);
    get(1, MSG_OOB);
    get(10, MSG_PEEK);
    get(10, 0);
    get(10, MSG_PEEK);
    get(10, 0);
    get(10, 0);
    fresh("peeking around it");
    put("a", MSG_OOB);
    get(10, MSG_PEEK);
    put("bc", 0);
    get(10, MSG_PEEK);
    get(10, MSG_PEEK);
    get(10, 0);
    fresh("only the mark is left");
    put("abc", MSG_OOB);
    get(1, MSG_OOB);
    get(2, 0);
    get(10, MSG_PEEK);
    put("d", 0);
    get(10, MSG_PEEK);
    get(10, 0);
    fresh("errors");
    put("", MSG_OOB);
    errno = 0;
    SHOW(recv(pair[1], text, 0, MSG_OOB));
    put("x", MSG_OOB);
    SHOW(recv(pair[1], text, 0, MSG_OOB));
    state();
    put("y", MSG_OOB);
    SHOW(recv(pair[1], BAD, 1, MSG_OOB));
    state();
    MUST(shutdown(pair[0], SHUT_WR));
    get(1, MSG_OOB);
    get(1, 0);
    fresh("flags of recvmsg");
    put("xy", MSG_OOB);
    iov = (struct iovec){text, sizeof text};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    SHOW(recvmsg(pair[1], &msg, MSG_OOB));
    say("flags %#x", msg.msg_flags);
    SHOW(recvmsg(pair[1], &msg, 0));
    say("flags %#x", msg.msg_flags);
    fresh("SIGURG");
    handle_plain(SIGURG, on_urgent);
    put("x", MSG_OOB);
    MUST(fcntl(pair[1], F_SETOWN, getpid()));
    put("y", MSG_OOB);
    put("z", 0);
    fresh("FIOSETOWN");
    int owner = getpid(), was = 0;
    SHOW(ioctl(pair[1], 0x8901, &owner));
    SHOW(ioctl(pair[1], 0x8903, &was));
    SHOW_IF(was == owner);
    SHOW(ioctl(pair[1], 0x8904, &was));
    SHOW_IF(fcntl(pair[1], F_GETOWN) == owner);
    put("x", MSG_OOB);
    owner = 0x7ffffff0;
    SHOW(ioctl(pair[1], 0x8902, &owner));
    SHOW(ioctl(pair[1], 0x8901, BAD));
    CASE("other kinds");
    static const int kinds[] = {SOCK_DGRAM, SOCK_SEQPACKET};
    for (int i = 0; i < 2; i++) {
        int p[2];
        MUST(socketpair(AF_UNIX, kinds[i], 0, p));
        SHOW(send(p[0], "x", 1, MSG_OOB));
        SHOW(recv(p[1], text, 1, MSG_OOB));
        SHOW(ioctl(p[1], SIOCATMARK, &was));
        SHOW(sockatmark(p[1]));
    }
    return 0;
}
