/* Connections of Unix sockets: listen, accept, a full row, and the ends of both sides before and after accept. */
#include "check.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un addr;
static socklen_t addr_size;

static const int kinds[] = {SOCK_STREAM, SOCK_SEQPACKET};

static int server(int kind, int backlog)
{
    int s = MUST(socket(AF_UNIX, kind, 0));
    MUST(bind(s, (void *)&(sa_family_t){AF_UNIX}, 2));
    addr_size = sizeof addr;
    MUST(getsockname(s, (void *)&addr, &addr_size));
    if (backlog >= -1)
        MUST(listen(s, backlog));
    return s;
}

static int client(int kind)
{
    return MUST(socket(AF_UNIX, kind, 0));
}

static int dial(int c)
{
    return connect(c, (void *)&addr, addr_size);
}

static void show_poll(const char *what, int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP | POLLPRI};
    poll(&p, 1, 0);
    say("%s: %#x", what, p.revents);
}

static void states(int kind)
{
    char text[16];
    CASE("states");
    int s = client(kind);
    show_poll("fresh", s);
    SHOW(listen(s, 1));
    SHOW(accept(s, NULL, NULL));
    SHOW(read(s, text, 1));
    SHOW(write(s, text, 1));
    SHOW(send(s, text, 1, 0));
    SHOW(shutdown(s, SHUT_RDWR));
    show_poll("shut", s);
    close(s);
    s = server(kind, -2);
    show_poll("bound", s);
    SHOW(accept(s, NULL, NULL));
    int c = client(kind);
    SHOW(dial(c));
    SHOW(listen(s, 1));
    show_poll("listening", s);
    int value;
    socklen_t size = sizeof value;
    MUST(getsockopt(s, SOL_SOCKET, SO_ACCEPTCONN, &value, &size));
    SHOW(value);
    SHOW(listen(s, 2));
    SHOW(read(s, text, 1));
    SHOW(write(s, text, 1));
    SHOW(ioctl(s, FIONREAD, &value));
    SHOW(dial(s));
    SHOW(dial(c));
    show_poll("connected", c);
    show_poll("with one waiting", s);
    SHOW(dial(c));
    SHOW(listen(c, 1));
    SHOW(accept(c, NULL, NULL));
    int a = MUST(accept(s, NULL, NULL));
    SHOW(listen(a, 1));
    MUST(getsockopt(a, SOL_SOCKET, SO_ACCEPTCONN, &value, &size));
    SHOW(value);
    close(a);
    close(c);
    close(s);
    SHOW(listen(99, 1));
    SHOW(listen(0, 1));
    SHOW(accept(99, NULL, NULL));
    SHOW(accept(0, NULL, NULL));
}

static void full(int kind)
{
    CASE("a full row");
    for (int backlog = -1; backlog <= 2; backlog++) {
        int s = server(kind, backlog), c[8], n;
        if (backlog < 0) {
            close(s);
            continue;
        }
        for (n = 0; n < 8; n++) {
            c[n] = client(kind);
            fcntl(c[n], F_SETFL, O_NONBLOCK);
            if (dial(c[n]) < 0)
                break;
        }
        say("backlog %d: %d, then %s", backlog, n, error_name(errno));
        SHOW(listen(s, backlog + 1));
        SHOW(dial(c[n]));
        SHOW(close(s));
        for (int i = 0; i <= n; i++) {
            char text[4];
            show_poll("client", c[i]);
            errno = 0;
            long r = read(c[i], text, 4);
            say("read %ld %s", r, r < 0 ? error_name(errno) : "");
            close(c[i]);
        }
    }
    int s = server(kind, 0), one = client(kind), two = client(kind);
    MUST(dial(one));
    struct timeval tv = {0, 50000};
    MUST(setsockopt(two, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
    SHOW(dial(two));
    tv = (struct timeval){0, 0};
    MUST(setsockopt(two, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
    pid_t pid = CHILD({
        usleep(50000);
        close(MUST(accept(s, NULL, NULL)));
    });
    SHOW(dial(two));
    reap("child", pid);
    close(one);
    int three = client(kind);
    pid = CHILD({
        usleep(50000);
        MUST(shutdown(s, SHUT_RD));
        int v = MUST(accept4(s, NULL, NULL, 0));
        close(v);
    });
    SHOW(dial(three));
    reap("child", pid);
    close(two);
    close(three);
    close(s);
}

static void early(int kind)
{
    char text[32] = "";
    CASE("before accept");
    int s = server(kind, 5), c = client(kind);
    MUST(dial(c));
    SHOW(write(c, "early", 5));
    show_poll("client", c);
    int a = MUST(accept(s, NULL, NULL));
    show_poll("accepted", a);
    SHOW(read(a, text, sizeof text));
    say("'%s'", text);
    close(a);
    SHOW(read(c, text, 1));
    SHOW(send(c, text, 1, MSG_NOSIGNAL));
    close(c);
    c = client(kind);
    MUST(dial(c));
    MUST(write(c, "left", 4));
    close(c);
    struct sockaddr_un name;
    socklen_t size = sizeof name;
    a = MUST(accept(s, (void *)&name, &size));
    say("name size %d family %d", size, name.sun_family);
    memset(text, 0, sizeof text);
    SHOW(read(a, text, sizeof text));
    say("'%s'", text);
    SHOW(read(a, text, sizeof text));
    close(a);
    c = client(kind);
    MUST(dial(c));
    MUST(shutdown(c, SHUT_WR));
    a = MUST(accept(s, NULL, NULL));
    SHOW(read(a, text, sizeof text));
    SHOW(write(a, "ok", 2));
    SHOW(read(c, text, sizeof text));
    close(a);
    close(c);
    c = client(kind);
    MUST(dial(c));
    MUST(close(s));
    show_poll("listener closed", c);
    SHOW(read(c, text, 1));
    SHOW(read(c, text, 1));
    SHOW(send(c, text, 1, MSG_NOSIGNAL));
    close(c);
}

static void accepting(int kind)
{
    CASE("accept");
    int s = server(kind, 5), c = client(kind), a;
    struct sockaddr_un name;
    socklen_t size;
    MUST(fcntl(s, F_SETFL, O_NONBLOCK));
    SHOW(accept(s, NULL, NULL));
    MUST(dial(c));
    a = MUST(accept(s, NULL, NULL));
    say("flags %#o cloexec %d", fcntl(a, F_GETFL), fcntl(a, F_GETFD));
    close(a);
    close(c);
    c = client(kind);
    MUST(dial(c));
    a = MUST(accept4(s, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
    say("flags %#o cloexec %d", fcntl(a, F_GETFL), fcntl(a, F_GETFD));
    close(a);
    close(c);
    SHOW(accept4(s, NULL, NULL, 1));
    SHOW(accept4(0, NULL, NULL, 1));
    SHOW(accept4(99, NULL, NULL, 1));
    c = client(kind);
    MUST(dial(c));
    size = sizeof name;
    SHOW(accept(s, BAD, &size));
    SHOW(accept(s, NULL, NULL));
    close(c);
    c = client(kind);
    MUST(dial(c));
    SHOW(accept(s, (void *)&name, BAD));
    close(c);
    c = client(kind);
    MUST(dial(c));
    size = -1;
    SHOW(accept(s, (void *)&name, &size));
    close(c);
    int d = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    SHOW(listen(d, 1));
    SHOW(accept(d, NULL, NULL));
    close(d);
    MUST(fcntl(s, F_SETFL, 0));
    struct timeval tv = {0, 30000};
    MUST(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    SHOW(accept(s, NULL, NULL));
    MUST(shutdown(s, SHUT_RD));
    show_poll("shut for reading", s);
    SHOW(accept(s, NULL, NULL));
    c = client(kind);
    SHOW(dial(c));
    close(c);
    close(s);
    struct rlimit limit, small;
    MUST(getrlimit(RLIMIT_NOFILE, &limit));
    s = server(kind, 5);
    c = client(kind);
    MUST(dial(c));
    small = (struct rlimit){c + 1, limit.rlim_max};
    MUST(setrlimit(RLIMIT_NOFILE, &small));
    SHOW(accept(s, NULL, NULL));
    SHOW(socket(AF_UNIX, kind, 0));
    int pair[2];
    SHOW(socketpair(AF_UNIX, kind, 0, pair));
    MUST(setrlimit(RLIMIT_NOFILE, &limit));
    SHOW(accept(s, NULL, NULL) >= 0);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 2; i++) {
        say("== kind %d", kinds[i]);
        states(kinds[i]);
        full(kinds[i]);
        early(kinds[i]);
        accepting(kinds[i]);
    }
    return 0;
}
