/* Socket options of Unix sockets: what is there, what can be set, by whom, and what it shows then. */
#include "check.h"

#include <sys/socket.h>

#define SO_LAST 90

static const int kinds[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};

static bool varies(int option)
{
    return option == SO_PEERCRED || option == 57 /* SO_COOKIE */ || option == 77 /* SO_PEERPIDFD */;
}

static void reading(int kind)
{
    int pair[2];
    CASE("reading them all");
    MUST(socketpair(AF_UNIX, kind, 0, pair));
    for (int option = 0; option < SO_LAST; option++) {
        unsigned char data[256];
        char text[128] = "";
        socklen_t size = 200;
        memset(data, 0xee, sizeof data);
        if (getsockopt(pair[0], SOL_SOCKET, option, data, &size) < 0) {
            say("%d: %s", option, error_name(errno));
            continue;
        }
        for (unsigned i = 0; i < size && i < 40 && !varies(option); i++)
            snprintf(text + 3 * i, sizeof text - 3 * i, " %02x", data[i]);
        say("%d: size %d%s", option, size, text);
    }
    close(pair[0]);
    close(pair[1]);
}

static void writing(int kind)
{
    static const int values[] = {0, 1, -1, 1000, 5, 7};
    CASE("writing them all");
    for (int option = 0; option < SO_LAST; option++) {
        if (option == SO_ATTACH_FILTER || (option >= 50 && option <= 52) || option == 68)
            continue;
        for (unsigned i = 0; i < sizeof values / sizeof *values; i++) {
            int pair[2], value[4] = {values[i]};
            socklen_t size = sizeof value;
            MUST(socketpair(AF_UNIX, kind, 0, pair));
            int r = option == SO_BINDTODEVICE ? 0 : setsockopt(pair[0], SOL_SOCKET, option, value, 4);
            const char *error = r < 0 ? error_name(errno) : "ok";
            r = getsockopt(pair[0], SOL_SOCKET, option, value, &size);
            if (r < 0 || varies(option))
                say("%d to %d: %s, then %s", option, values[i], error, r < 0 ? error_name(errno) : "there");
            else
                say("%d to %d: %s, then %d of size %d", option, values[i], error, size ? value[0] : 0, size);
            close(pair[0]);
            close(pair[1]);
        }
        int pair[2];
        char data[16] = "";
        MUST(socketpair(AF_UNIX, kind, 0, pair));
        for (int size = -1; size <= 16; size++) {
            if (size > 4 && size < 15)
                continue;
            int r = setsockopt(pair[0], SOL_SOCKET, option, data, size);
            say("%d of size %d: %s", option, size, r < 0 ? error_name(errno) : "ok");
        }
        close(pair[0]);
        close(pair[1]);
    }
}

static void arguments(void)
{
    int pair[2], value = -1;
    socklen_t size;
    CASE("arguments");
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    for (int n = 0; n <= 6; n++) {
        size = n;
        value = -1;
        SHOW(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &value, &size));
        say("size %d value %#x", size, value);
    }
    size = -1;
    SHOW(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &value, &size));
    size = 4;
    SHOW(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, BAD, &size));
    SHOW(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &value, BAD));
    SHOW(setsockopt(pair[0], SOL_SOCKET, SO_REUSEADDR, BAD, 4));
    SHOW(getsockopt(pair[0], 0, 1, &value, &size));
    SHOW(getsockopt(pair[0], 6, 1, &value, &size));
    SHOW(setsockopt(pair[0], 6, 1, &value, 4));
    SHOW(setsockopt(pair[0], 6, 1, &value, -1));
    SHOW(setsockopt(pair[0], -1, 1, &value, 4));
    SHOW(getsockopt(99, SOL_SOCKET, SO_TYPE, &value, &size));
    SHOW(getsockopt(0, SOL_SOCKET, SO_TYPE, &value, &size));
    SHOW(setsockopt(99, SOL_SOCKET, SO_TYPE, &value, size));
    SHOW(setsockopt(0, SOL_SOCKET, SO_TYPE, &value, size));
    close(pair[0]);
    close(pair[1]);
    int s = MUST(socket(AF_UNIX, SOCK_STREAM, AF_UNIX));
    size = 4;
    SHOW(getsockopt(s, SOL_SOCKET, SO_PROTOCOL, &value, &size));
    SHOW(value);
    close(s);
}

static void show_time(int fd, int option)
{
    struct timeval tv = {-7, -7};
    socklen_t size = sizeof tv;
    MUST(getsockopt(fd, SOL_SOCKET, option, &tv, &size));
    say("%ld.%06ld", (long)tv.tv_sec, (long)tv.tv_usec);
}

static void times(void)
{
    static const struct timeval all[] = {{1, 0}, {0, 500000}, {0, 0}, {-1, 0}, {0, 1000000}, {0, -1}, {3, 200000}, {1l << 60, 0}};
    int pair[2];
    CASE("times");
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        SHOW(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &all[i], sizeof all[i]));
        show_time(pair[0], SO_RCVTIMEO);
        SHOW(setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &all[i], sizeof all[i]));
        show_time(pair[0], SO_SNDTIMEO);
    }
    struct linger lingers[] = {{1, 5}, {0, 9}, {7, 3}, {1, -1}}, linger;
    for (unsigned i = 0; i < sizeof lingers / sizeof *lingers; i++) {
        socklen_t size = sizeof linger;
        SHOW(setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &lingers[i], sizeof linger));
        MUST(getsockopt(pair[0], SOL_SOCKET, SO_LINGER, &linger, &size));
        say("%d", linger.l_onoff);
    }
    close(pair[0]);
    close(pair[1]);
}

/* One message takes as much as a kernel finds in one piece, whatever the socket's own limit is. */
static void largest(void)
{
    static const long sizes[] = {1 << 20, 4263616, 4263617, 64 << 20, 0x7ffff000};
    int huge = INT32_MAX, pair[2];
    char *bytes = mmap(NULL, 2ul << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    NEED(bytes != MAP_FAILED);
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    SHOW(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &huge, sizeof huge));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ssize_t sent = send(pair[0], bytes, (size_t)sizes[i], MSG_DONTWAIT);
        say("%ld bytes: %zd %s", sizes[i], sent, sent < 0 ? error_name(errno) : "");
        if (sent > 0)
            MUST(recv(pair[1], bytes, 1, 0));
    }
    MUST(munmap(bytes, 2ul << 30));
    close(pair[0]);
    close(pair[1]);
}

static void sizes(void)
{
    static const int all[] = {0, 1000, 2304, 4608, 10000, 100000, 212992};
    int pair[2], value;
    CASE("sizes");
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        socklen_t size = sizeof value;
        MUST(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &all[i], sizeof value));
        MUST(getsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &value, &size));
        int sent = value;
        MUST(setsockopt(pair[0], SOL_SOCKET, SO_RCVBUF, &all[i], sizeof value));
        MUST(getsockopt(pair[0], SOL_SOCKET, SO_RCVBUF, &value, &size));
        say("%d: %d %d", all[i], sent, value);
        static char block[1000];
        int count = 0;
        while (write(pair[0], block, sizeof block) > 0)
            count++;
        say("takes %d", count);
        while (read(pair[1], block, sizeof block) > 0)
            ;
        static char large[1 << 20];
        SHOW(write(pair[0], large, sizeof large));
        while (read(pair[1], large, sizeof large) > 0)
            ;
    }
    int large = 100000;
    SHOW(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &large, sizeof large));
    largest();
    close(pair[0]);
    close(pair[1]);
}

static void lowat(void)
{
    int pair[2], want = 5;
    char text[16];
    struct timeval tv = {0, 30000};
    CASE("SO_RCVLOWAT");
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    MUST(setsockopt(pair[1], SOL_SOCKET, SO_RCVLOWAT, &want, sizeof want));
    MUST(setsockopt(pair[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    MUST(write(pair[0], "abc", 3));
    SHOW(poll(&(struct pollfd){.fd = pair[1], .events = POLLIN}, 1, 0));
    SHOW(read(pair[1], text, sizeof text));
    MUST(write(pair[0], "abcde", 5));
    SHOW(read(pair[1], text, 2));
    SHOW(recv(pair[1], text, sizeof text, MSG_DONTWAIT));
    SHOW(recv(pair[1], text, sizeof text, MSG_DONTWAIT));
    int on = 1;
    MUST(setsockopt(pair[1], SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &(int){0}, 4));
    char control[CMSG_SPACE(4)] __attribute__((aligned(8))) = "";
    struct iovec iov = {"x", 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = (void *)control;
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(4)};
    SHOW(sendmsg(pair[0], &msg, 0));
    MUST(setsockopt(pair[1], SOL_SOCKET, 84 /* SO_INQ */, &on, 4));
    MUST(write(pair[0], "abcdefgh", 8));
    iov = (struct iovec){text, 5};
    msg.msg_controllen = sizeof control;
    SHOW(recvmsg(pair[1], &msg, 0));
    say("type %d len %d value %d flags %#x", c->cmsg_type, (int)c->cmsg_len, *(int *)CMSG_DATA(c), msg.msg_flags);
    close(pair[0]);
    close(pair[1]);
}

static void stamps(void)
{
    static const int options[] = {SO_TIMESTAMP, SO_TIMESTAMPNS, 63, 64};
    CASE("time stamps");
    for (int kind = 0; kind < 3; kind++)
        for (int i = 0; i < 4; i++) {
            int pair[2], on = 1, last = options[(i + 1) % 4];
            char control[64] __attribute__((aligned(8))), text[8];
            struct iovec iov = {text, 8};
            struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};
            MUST(socketpair(AF_UNIX, kinds[kind], 0, pair));
            MUST(write(pair[0], "early", 5));
            MUST(setsockopt(pair[1], SOL_SOCKET, options[i], &on, sizeof on));
            for (int k = 0; k < 2; k++) {
                struct timespec now;
                int64_t stamp[2] = {0};
                msg.msg_controllen = sizeof control;
                SHOW(recvmsg(pair[1], &msg, MSG_DONTWAIT));
                struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
                clock_gettime(CLOCK_REALTIME, &now);
                if (c) {
                    memcpy(stamp, CMSG_DATA(c), 16);
                    say("kind %d: level %d type %d len %d, %s", kinds[kind], c->cmsg_level, c->cmsg_type, (int)c->cmsg_len,
                        now.tv_sec - stamp[0] < 3 ? "now" : "not now");
                } else {
                    say("kind %d: none", kinds[kind]);
                }
                MUST(write(pair[0], "more", 4));
            }
            MUST(setsockopt(pair[1], SOL_SOCKET, last, &on, sizeof on));
            for (int k = 0; k < 4; k++) {
                socklen_t size = 4;
                MUST(getsockopt(pair[1], SOL_SOCKET, options[k], &on, &size));
                say("%d is %d", options[k], on);
            }
            close(pair[0]);
            close(pair[1]);
        }
}

int main(void)
{
    for (int i = 0; i < 3; i++) {
        say("== kind %d", kinds[i]);
        reading(kinds[i]);
        writing(kinds[i]);
    }
    arguments();
    times();
    sizes();
    lowat();
    stamps();
    return 0;
}
