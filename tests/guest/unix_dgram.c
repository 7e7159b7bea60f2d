/* Datagrams between Unix sockets: destinations, connected and not, queues that are full, and peers that go away. */
#include "check.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

struct place {
    struct sockaddr_un addr;
    socklen_t size;
};

static int bound(struct place *place, int kind)
{
    int s = MUST(socket(AF_UNIX, kind, 0));
    MUST(bind(s, (void *)&(sa_family_t){AF_UNIX}, 2));
    place->size = sizeof place->addr;
    MUST(getsockname(s, (void *)&place->addr, &place->size));
    return s;
}

static long give(int s, const char *text, const struct place *to)
{
    return sendto(s, text, strlen(text), MSG_DONTWAIT, to ? (void *)&to->addr : NULL, to ? to->size : 0);
}

static int dial(int s, const struct place *to)
{
    return connect(s, (void *)&to->addr, to->size);
}

static void hang_up(int s)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    SHOW(connect(s, &none, sizeof none));
}

static void show_poll(const char *what, int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP | POLLPRI};
    poll(&p, 1, 0);
    say("%s: %#x", what, p.revents);
}

static void get(int s, const struct place *from)
{
    char text[64] = "";
    struct sockaddr_un addr;
    socklen_t size = sizeof addr;
    long r = recvfrom(s, text, sizeof text - 1, MSG_DONTWAIT, (void *)&addr, &size);
    if (r < 0)
        say("recvfrom: %s", error_name(errno));
    else
        say("recvfrom = %ld '%s' name size %d%s", r, text, size,
            from && size == from->size && memcmp(&addr, &from->addr, size) == 0 ? ", as it should be" : "");
}

static void destinations(void)
{
    struct place a, b;
    CASE("destinations");
    int s = bound(&a, SOCK_DGRAM), t = bound(&b, SOCK_DGRAM), u = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    SHOW(give(s, "hello", &b));
    get(t, &a);
    SHOW(give(u, "unnamed", &b));
    get(t, NULL);
    SHOW(give(s, "nowhere", NULL));
    SHOW(write(s, "nowhere", 7));
    SHOW(give(s, "myself", &a));
    get(s, &a);
    struct place bad = b;
    bad.addr.sun_path[3] ^= 0x40;
    SHOW(give(s, "nobody", &bad));
    bad = b;
    bad.size = 2;
    SHOW(give(s, "short", &bad));
    bad.size = 1;
    SHOW(give(s, "short", &bad));
    bad.size = 120;
    SHOW(give(s, "long", &bad));
    bad.size = 200;
    SHOW(give(s, "long", &bad));
    bad = b;
    bad.addr.sun_family = AF_INET;
    SHOW(give(s, "family", &bad));
    SHOW(sendto(s, "x", 1, 0, BAD, 10));
    SHOW(sendto(s, "x", 1, 0, (void *)&b.addr, -1));
    SHOW(sendto(s, "x", 1, 0, (void *)&b.addr, 0));
    char room[4];
    socklen_t size = 4;
    MUST(give(s, "abc", &b));
    struct sockaddr_un from;
    memset(&from, 'x', sizeof from);
    SHOW(recvfrom(t, room, 2, MSG_TRUNC, (void *)&from, &size));
    say("size %d, %d", size, ((char *)&from)[4] == 'x');
    MUST(give(s, "abc", &b));
    size = -1;
    SHOW(recvfrom(t, room, 4, 0, (void *)&from, &size));
    MUST(give(s, "abc", &b));
    SHOW(recvfrom(t, room, 4, 0, (void *)&from, BAD));
    get(t, NULL);
    MUST(give(s, "abc", &b));
    size = sizeof from;
    SHOW(recvfrom(t, BAD, 4, 0, (void *)&from, &size));
    get(t, NULL);
    int stream = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    SHOW(sendto(stream, "x", 1, 0, (void *)&b.addr, b.size));
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    SHOW(sendto(pair[0], "x", 1, 0, (void *)&b.addr, b.size));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
    SHOW(sendto(pair[0], "x", 1, 0, (void *)&b.addr, b.size));
    close(s);
    close(t);
    close(u);
}

static void connected(void)
{
    struct place a, b, c;
    CASE("connected");
    int s = bound(&a, SOCK_DGRAM), t = bound(&b, SOCK_DGRAM), u = bound(&c, SOCK_DGRAM);
    SHOW(dial(s, &b));
    SHOW(give(s, "one", NULL));
    get(t, &a);
    SHOW(give(s, "elsewhere", &c));
    get(u, &a);
    struct sockaddr_un name;
    socklen_t size = sizeof name;
    SHOW(getpeername(s, (void *)&name, &size));
    SHOW(getpeername(t, (void *)&name, &size));
    SHOW(dial(t, &a));
    SHOW(give(u, "stranger", &b));
    SHOW(dial(u, &b));
    SHOW(dial(s, &c));
    SHOW(give(t, "gone", NULL));
    MUST(give(u, "hi", &a) < 0 ? 0 : 0);
    hang_up(t);
    SHOW(give(t, "nowhere", NULL));
    SHOW(give(u, "stranger", &b));
    get(t, &c);
    hang_up(s);
    hang_up(s);
    SHOW(connect(s, (void *)&a.addr, 1));
    close(s);
    close(t);
    close(u);
}

static void thrown_away(void)
{
    struct place a, b;
    int error;
    socklen_t size = sizeof error;
    CASE("what a disconnect throws away");
    int s = bound(&a, SOCK_DGRAM), t = bound(&b, SOCK_DGRAM);
    MUST(dial(s, &b));
    MUST(dial(t, &a));
    MUST(give(s, "lost", NULL));
    hang_up(t);
    get(t, &a);
    show_poll("peer", s);
    MUST(getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &size));
    say("error %s", error_name(error));
    MUST(getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &size));
    SHOW(error);
    MUST(dial(t, &a));
    MUST(give(s, "lost", NULL));
    hang_up(t);
    get(s, NULL);
    get(s, NULL);
    MUST(dial(t, &a));
    MUST(give(s, "lost", NULL));
    hang_up(t);
    SHOW(give(s, "x", NULL));
    SHOW(give(s, "x", NULL));
    get(t, &a);
    CASE("a peer that is closed");
    MUST(give(s, "unread", NULL));
    close(t);
    show_poll("poll", s);
    SHOW(getpeername(s, (void *)&b.addr, &size));
    SHOW(give(s, "x", NULL));
    SHOW(give(s, "x", NULL));
    SHOW(getpeername(s, (void *)&b.addr, &size));
    SHOW(give(s, "x", &b));
    close(s);
}

static void queues(void)
{
    struct place a, b;
    int n;
    CASE("full queues");
    int s = bound(&a, SOCK_DGRAM), t = bound(&b, SOCK_DGRAM), u = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    for (n = 0; give(s, "x", &b) > 0; n++)
        ;
    say("%d, then %s", n, error_name(errno));
    show_poll("not connected", s);
    SHOW(give(u, "x", &b));
    MUST(dial(u, &b));
    SHOW(give(u, "x", NULL));
    show_poll("connected", u);
    int ep = MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLOUT | EPOLLET};
    MUST(epoll_ctl(ep, EPOLL_CTL_ADD, u, &event));
    SHOW(epoll_wait(ep, &event, 1, 0));
    get(t, &a);
    SHOW(epoll_wait(ep, &event, 1, 0));
    SHOW(epoll_wait(ep, &event, 1, 0));
    show_poll("with room", u);
    SHOW(give(u, "x", NULL));
    show_poll("full again", u);
    char text[4];
    pid_t pid = CHILD({
        usleep(30000);
        MUST(read(t, text, 4));
    });
    SHOW(write(u, "waits", 5));
    reap("child", pid);
    pid = CHILD({
        usleep(30000);
        MUST(read(t, text, 4));
    });
    struct pollfd p = {.fd = u, .events = POLLOUT};
    SHOW(poll(&p, 1, -1));
    reap("child", pid);
    SHOW(give(u, "x", NULL));
    struct timeval tv = {0, 30000};
    MUST(setsockopt(u, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
    SHOW(write(u, "late", 4));
    close(t);
    show_poll("closed", u);
    SHOW(write(u, "gone", 4));
    CASE("connected to each other, only the sender's buffer counts");
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair));
    for (n = 0; send(pair[0], "x", 1, 0) > 0; n++)
        ;
    say("%d, then %s", n, error_name(errno));
    show_poll("full", pair[0]);
    int size;
    MUST(ioctl(pair[1], FIONREAD, &size));
    SHOW(size);
    close(pair[0]);
    close(pair[1]);
    int large = 4608;
    MUST(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair));
    MUST(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &large, sizeof large));
    static char block[20000];
    static const int sizes[] = {9183, 9184, 9185, 9215, 9216, 9217};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        say("%d", sizes[i]);
        SHOW(send(pair[0], block, sizes[i], 0));
        recv(pair[1], block, sizeof block, 0);
    }
    close(s);
    close(u);
    close(ep);
}

static int peek_offset(int s)
{
    int offset;
    socklen_t size = sizeof offset;
    MUST(getsockopt(s, SOL_SOCKET, SO_PEEK_OFF, &offset, &size));
    return offset;
}

/* SO_PEEK_OFF moves on with each peek, and back with what is received. */
static void peeks(int pair[2])
{
    char text[16];
    struct iovec iov = {text, 4};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    int start = 2;
    MUST(setsockopt(pair[1], SOL_SOCKET, SO_PEEK_OFF, &start, sizeof start));
    MUST(send(pair[0], "abcdef", 6, 0));
    MUST(send(pair[0], "ghi", 3, 0));
    for (int k = 0; k < 5; k++) {
        memset(text, 0, sizeof text);
        SHOW(recvmsg(pair[1], &msg, MSG_PEEK | MSG_DONTWAIT));
        say("'%s' offset %d", text, peek_offset(pair[1]));
    }
    SHOW(recvmsg(pair[1], &msg, 0));
    SHOW(peek_offset(pair[1]));
}

static void packets(void)
{
    int pair[2];
    char text[16];
    struct iovec iov = {text, 4};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    CASE("flags of messages");
    for (int i = 0; i < 2; i++) {
        MUST(socketpair(AF_UNIX, i ? SOCK_SEQPACKET : SOCK_DGRAM, 0, pair));
        MUST(send(pair[0], "abcdefgh", 8, MSG_EOR));
        SHOW(recvmsg(pair[1], &msg, MSG_PEEK));
        say("flags %#x", msg.msg_flags);
        SHOW(recvmsg(pair[1], &msg, MSG_PEEK | MSG_TRUNC));
        say("flags %#x", msg.msg_flags);
        SHOW(recvmsg(pair[1], &msg, 0));
        say("flags %#x", msg.msg_flags);
        SHOW(write(pair[0], "ab", 2));
        SHOW(recvmsg(pair[1], &msg, MSG_WAITALL));
        say("flags %#x", msg.msg_flags);
        SHOW(write(pair[0], "", 0));
        SHOW(recvmsg(pair[1], &msg, MSG_DONTWAIT));
        say("flags %#x", msg.msg_flags);
        peeks(pair);
        close(pair[0]);
        close(pair[1]);
    }
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    peeks(pair);
}

/* However large the buffer is, a message has to be found memory for. */
static void longest(void)
{
    CASE("longest");
    static const int kinds[] = {SOCK_DGRAM, SOCK_SEQPACKET};
    size_t most = (4 << 20) - 320 + 17 * 4096;
    char *data = calloc(1, most + 1);
    for (int i = 0; i < 2; i++) {
        int two[2], size = 64 << 20;
        MUST(socketpair(AF_UNIX, kinds[i], 0, two));
        SHOW(setsockopt(two[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size));
        SHOW(send(two[0], data, most + 1, MSG_DONTWAIT));
        SHOW(send(two[0], data, most, MSG_DONTWAIT));
        SHOW(recv(two[1], data, most, MSG_DONTWAIT));
        hang_up(two[0]), hang_up(two[1]);
    }
    free(data);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    destinations();
    connected();
    thrown_away();
    queues();
    packets();
    longest();
    return 0;
}
