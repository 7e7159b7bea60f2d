/* SCM_RIGHTS: descriptors sent through Unix sockets, how they arrive, and what happens to those that nobody receives. */
#include "check.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static const int kinds[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};

static char control_room[8192] __attribute__((aligned(8)));

/* Sends `size` bytes and `count` descriptors. */
static long give(int sock, const char *text, size_t size, const int *fds, int count, int flags)
{
    struct iovec iov = {(void *)text, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count >= 0) {
        struct cmsghdr *c = (void *)control_room;
        memset(control_room, 0, sizeof control_room);
        msg.msg_control = control_room;
        msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    return sendmsg(sock, &msg, flags);
}

/* Receives into `fds`, with room for `room` bytes of control messages. */
static long take(int sock, size_t size, int *fds, size_t room, int flags)
{
    char text[256] = "";
    struct iovec iov = {text, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room ? control_room : NULL, .msg_controllen = room};
    memset(control_room, 0, sizeof control_room);
    errno = 0;
    long r = recvmsg(sock, &msg, flags);
    int error = errno;
    say("recvmsg = %ld %s '%s' controllen %zu flags %#x", r, r < 0 ? error_name(error) : "", text, r < 0 ? 0 : msg.msg_controllen,
        msg.msg_flags);
    int got = 0;
    if (r >= 0 && room)
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
            say("  level %d type %d len %zu", c->cmsg_level, c->cmsg_type, (size_t)c->cmsg_len);
            if (c->cmsg_type == SCM_RIGHTS) {
                int n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                memcpy(fds + got, CMSG_DATA(c), n * sizeof(int));
                got += n;
            }
        }
    say("  %d descriptors", got);
    errno = error;
    return got;
}

static void pair_of(int pair[2], int kind)
{
    MUST(socketpair(AF_UNIX, kind, 0, pair));
}

static void close_all(int *fds, int count)
{
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

static void passing(int kind)
{
    int pair[2], pipes[2], got[8];
    char text[8];
    struct stat a, b;
    CASE("passing");
    pair_of(pair, kind);
    MUST(pipe(pipes));
    SHOW(give(pair[0], "x", 1, pipes, 2, 0));
    int n = take(pair[1], 10, got, sizeof control_room, MSG_CMSG_CLOEXEC);
    for (int i = 0; i < n; i++)
        say("cloexec %d", fcntl(got[i], F_GETFD));
    MUST(fstat(pipes[0], &a));
    MUST(fstat(got[0], &b));
    SHOW_IF(a.st_ino == b.st_ino);
    MUST(write(got[1], "through", 7));
    SHOW(read(pipes[0], text, 8));
    MUST(close(got[0]));
    MUST(close(got[1]));
    SHOW(give(pair[0], "y", 1, pipes, 1, 0));
    n = take(pair[1], 10, got, CMSG_SPACE(4), 0);
    say("cloexec %d", fcntl(got[0], F_GETFD));
    close(got[0]);
    /* Of a file that its sender has closed meanwhile. */
    SHOW(give(pair[0], "z", 1, pipes, 2, 0));
    close_all(pipes, 2);
    n = take(pair[1], 10, got, sizeof control_room, 0);
    SHOW(write(got[1], "late", 4));
    SHOW(read(got[0], text, 8));
    close_all(got, 2);
    /* An O_PATH descriptor. */
    int path = MUST(open("/", O_PATH));
    SHOW(give(pair[0], "p", 1, &path, 1, 0));
    take(pair[1], 10, got, sizeof control_room, 0);
    say("path: %d", !!(fcntl(got[0], F_GETFL) & O_PATH));
    close(got[0]);
    close(path);
    close_all(pair, 2);
}

static void errors(int kind)
{
    int pair[2], fds[260], got[300];
    CASE("errors");
    pair_of(pair, kind);
    for (int i = 0; i < 260; i++)
        fds[i] = 1;
    SHOW(give(pair[0], "x", 1, fds, 254, 0));
    SHOW(give(pair[0], "x", 1, fds, 253, 0));
    say("%d", (int)take(pair[1], 1, got, sizeof control_room, 0));
    for (int i = 0; i < 253; i++)
        close(got[i]);
    SHOW(give(pair[0], "x", 1, fds, 0, 0));
    take(pair[1], 1, got, sizeof control_room, 0);
    fds[1] = 999;
    SHOW(give(pair[0], "x", 1, fds, 2, 0));
    fds[1] = -1;
    SHOW(give(pair[0], "x", 1, fds, 2, 0));
    SHOW(give(pair[0], "", 0, fds, 1, 0));
    take(pair[1], 1, got, sizeof control_room, MSG_DONTWAIT);
    struct iovec iov = {"x", 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control_room};
    struct cmsghdr *c = (void *)control_room;
    memset(control_room, 0, sizeof control_room);
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(4)};
    static const size_t sizes[] = {0, 1, 15, 16, 19, 20, 24, 200};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        msg.msg_controllen = sizes[i];
        say("controllen %zu", sizes[i]);
        SHOW(sendmsg(pair[0], &msg, 0));
    }
    while (recv(pair[1], got, 100, MSG_DONTWAIT) > 0)
        ;
    msg.msg_controllen = CMSG_SPACE(4);
    for (int type = 0; type < 6; type++) {
        if (type == SCM_RIGHTS)
            continue;
        c->cmsg_type = type;
        say("type %d", type);
        SHOW(sendmsg(pair[0], &msg, 0));
    }
    c->cmsg_level = SOL_SOCKET + 1;
    SHOW(sendmsg(pair[0], &msg, 0));
    msg.msg_control = BAD;
    SHOW(sendmsg(pair[0], &msg, 0));
    msg.msg_control = control_room;
    msg.msg_controllen = 1u << 20;
    SHOW(sendmsg(pair[0], &msg, 0));
    msg.msg_controllen = (size_t)1 << 40;
    SHOW(sendmsg(pair[0], &msg, 0));
    close_all(pair, 2);
}

static void truncated(int kind)
{
    int pair[2], fds[4] = {0, 1, 2, 1}, got[8];
    CASE("truncated");
    pair_of(pair, kind);
    static const size_t rooms[] = {0, 8, 15, 16, 19, 20, 23, 24, 27, 28, 32, 40};
    for (unsigned i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        MUST(give(pair[0], "x", 1, fds, 4, 0));
        say("room %zu", rooms[i]);
        int n = take(pair[1], 1, got, rooms[i], 0);
        close_all(got, n);
    }
    /* A table that is nearly full. */
    struct rlimit limit, small;
    MUST(getrlimit(RLIMIT_NOFILE, &limit));
    int next = MUST(dup(0));
    close(next);
    small = (struct rlimit){next + 2, limit.rlim_max};
    MUST(give(pair[0], "x", 1, fds, 4, 0));
    MUST(setrlimit(RLIMIT_NOFILE, &small));
    int n = take(pair[1], 1, got, 100, 0);
    MUST(setrlimit(RLIMIT_NOFILE, &limit));
    close_all(got, n);
    /* Control messages that can't be written. */
    MUST(give(pair[0], "x", 1, fds, 2, 0));
    char text[4];
    struct iovec iov = {text, 4};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = BAD, .msg_controllen = 100};
    SHOW(recvmsg(pair[1], &msg, 0));
    say("flags %#x controllen %zu", msg.msg_flags, msg.msg_controllen);
    /* Nobody asks for them. */
    MUST(give(pair[0], "abc", 3, fds, 2, 0));
    SHOW(read(pair[1], text, 4));
    close_all(pair, 2);
}

static void streams(void)
{
    int pair[2], one = 1, got[8];
    CASE("bytes around descriptors in a stream");
    pair_of(pair, SOCK_STREAM);
    MUST(write(pair[0], "before", 6));
    MUST(give(pair[0], "with", 4, &one, 1, 0));
    MUST(write(pair[0], "after", 5));
    for (int i = 0; i < 3; i++)
        close_all(got, take(pair[1], 100, got, 100, MSG_DONTWAIT));
    MUST(give(pair[0], "with", 4, &one, 1, 0));
    MUST(give(pair[0], "more", 4, &one, 1, 0));
    for (int i = 0; i < 4; i++)
        close_all(got, take(pair[1], 3, got, 100, MSG_DONTWAIT));
    MUST(give(pair[0], "with", 4, &one, 1, 0));
    SHOW(recv(pair[1], control_room, 2, 0));
    close_all(got, take(pair[1], 100, got, 100, MSG_DONTWAIT));
    CASE("peeking at them");
    MUST(give(pair[0], "with", 4, &one, 1, 0));
    MUST(write(pair[0], "after", 5));
    close_all(got, take(pair[1], 100, got, 100, MSG_PEEK));
    close_all(got, take(pair[1], 100, got, 100, MSG_PEEK));
    close_all(got, take(pair[1], 100, got, 100, 0));
    close_all(got, take(pair[1], 100, got, 100, MSG_PEEK));
    close_all(pair, 2);
}

/* Whether the pipe's writers are all gone. */
static void show_end(const char *what, int fd)
{
    struct pollfd p = {.fd = fd};
    int tries = 200;
    while (poll(&p, 1, 0) == 0 && tries--)
        usleep(5000);
    say("%s: %s", what, p.revents & POLLHUP ? "closed" : "still open");
}

static void lost(int kind)
{
    int pair[2], pipes[2], other[2];
    CASE("never received");
    pair_of(pair, kind);
    MUST(pipe(pipes));
    MUST(give(pair[0], "x", 1, &pipes[1], 1, 0));
    close(pipes[1]);
    SHOW(poll(&(struct pollfd){.fd = pipes[0]}, 1, 0));
    close(pair[1]);
    show_end("receiver closed", pipes[0]);
    close(pair[0]);
    close(pipes[0]);

    pair_of(pair, kind);
    MUST(pipe(pipes));
    MUST(give(pair[0], "x", 1, &pipes[1], 1, 0));
    MUST(give(pair[0], "x", 1, &pair[1], 1, 0));
    close(pipes[1]);
    close(pair[1]);
    SHOW(poll(&(struct pollfd){.fd = pipes[0]}, 1, 0));
    close(pair[0]);
    show_end("sent through itself", pipes[0]);
    close(pipes[0]);

    pair_of(pair, kind);
    pair_of(other, kind);
    MUST(pipe(pipes));
    MUST(give(pair[0], "x", 1, &pipes[1], 1, 0));
    MUST(give(pair[0], "x", 1, &other[1], 1, 0));
    MUST(give(other[0], "x", 1, &pair[1], 1, 0));
    MUST(give(other[0], "x", 1, &pair[0], 1, 0));
    close(pipes[1]);
    close_all(pair, 2);
    close(other[1]);
    SHOW(poll(&(struct pollfd){.fd = pipes[0]}, 1, 0));
    close(other[0]);
    show_end("two through each other", pipes[0]);
    close(pipes[0]);
}

static void saved(void)
{
    int pair[2], other[2], pipes[2], got[4];
    CASE("a loop that somebody can still undo");
    pair_of(pair, SOCK_STREAM);
    pair_of(other, SOCK_STREAM);
    MUST(pipe(pipes));
    MUST(give(pair[0], "p", 1, &pipes[1], 1, 0));
    MUST(give(other[0], "s", 1, &pair[1], 1, 0));
    MUST(give(pair[0], "t", 1, &pair[1], 1, 0));
    close(pipes[1]);
    close(pair[1]);
    int extra[2];
    pair_of(extra, SOCK_STREAM);
    close_all(extra, 2);
    SHOW(poll(&(struct pollfd){.fd = pipes[0]}, 1, 0));
    int n = take(other[1], 1, got, 100, 0);
    SHOW(n);
    int deep[4];
    take(got[0], 1, deep, 100, 0);
    close(deep[0]);
    show_end("received after all", pipes[0]);
    close(got[0]);
    close_all(other, 2);
    close(pair[0]);
}

static void listener(void)
{
    int sock = MUST(socket(AF_UNIX, SOCK_STREAM, 0)), pipes[2];
    struct sockaddr_un addr;
    socklen_t size = sizeof addr;
    CASE("never accepted");
    MUST(bind(sock, (void *)&(sa_family_t){AF_UNIX}, sizeof(sa_family_t)));
    MUST(listen(sock, 5));
    MUST(getsockname(sock, (void *)&addr, &size));
    int client = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(client, (void *)&addr, size));
    MUST(pipe(pipes));
    MUST(give(client, "x", 1, &pipes[1], 1, 0));
    MUST(give(client, "x", 1, &sock, 1, 0));
    close(pipes[1]);
    close(sock);
    SHOW(poll(&(struct pollfd){.fd = pipes[0]}, 1, 0));
    close(client);
    show_end("a listening socket sent to itself", pipes[0]);
    close(pipes[0]);
}

static void limit(void)
{
    int pair[2], fds[100];
    struct rlimit small = {20, 20};
    CASE("how many");
    pair_of(pair, SOCK_DGRAM);
    for (int i = 0; i < 100; i++)
        fds[i] = 1;
    pid_t pid = CHILD({
        if (geteuid() == 0) {
            MUST(setgid(1234));
            MUST(setuid(1234));
        }
        MUST(setrlimit(RLIMIT_NOFILE, &small));
        SHOW(give(pair[0], "x", 1, fds, 15, 0));
        SHOW(give(pair[0], "x", 1, fds, 6, 0));
        SHOW(give(pair[0], "x", 1, fds, 1, 0));
        char text[4];
        SHOW(recv(pair[1], text, 4, 0));
        SHOW(give(pair[0], "x", 1, fds, 1, 0));
    });
    reap("child", pid);
    close_all(pair, 2);
}

int main(void)
{
    for (int i = 0; i < 3; i++) {
        say("== kind %d", kinds[i]);
        passing(kinds[i]);
        errors(kinds[i]);
        truncated(kinds[i]);
        lost(kinds[i]);
    }
    streams();
    saved();
    listener();
    limit();
    return 0;
}
