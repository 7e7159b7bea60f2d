/* Connected Unix sockets without names: what arrives, in which pieces, and what the end looks like. */
#include "check.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

static const int kinds[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
static const char *names[] = {"stream", "dgram", "seqpacket"};

static void quiet(int signo)
{
    (void)signo;
    say("SIGPIPE");
}

static void make(int pair[2], int kind)
{
    MUST(socketpair(AF_UNIX, kind, 0, pair));
}

static void show_poll(const char *what, int fd)
{
    struct pollfd p = {.fd = fd, .events = 0x7fff & ~POLLNVAL};
    int n = poll(&p, 1, 0);
    say("%s: %d %s%s%s%s%s%s%s%s%s", what, n, p.revents & POLLIN ? " in" : "", p.revents & POLLPRI ? " pri" : "",
        p.revents & POLLOUT ? " out" : "", p.revents & POLLERR ? " err" : "", p.revents & POLLHUP ? " hup" : "",
        p.revents & POLLRDHUP ? " rdhup" : "", p.revents & POLLRDNORM ? " rdnorm" : "",
        p.revents & POLLWRNORM ? " wrnorm" : "", p.revents & POLLWRBAND ? " wrband" : "");
}

static void creation(void)
{
    int pair[2] = {-7, -7};
    CASE("creation");
    SHOW(socketpair(AF_UNIX, 77, 0, pair));
    SHOW(socketpair(AF_UNIX, SOCK_RDM, 0, pair));
    SHOW(socketpair(AF_UNIX, SOCK_STREAM | 0x10, 0, pair));
    SHOW(socketpair(AF_UNIX, SOCK_STREAM, 2, pair));
    SHOW(socketpair(99, SOCK_STREAM, 0, pair));
    SHOW(socketpair(-1, SOCK_STREAM, 0, pair));
    SHOW(socketpair(0, SOCK_STREAM, 0, pair));
    SHOW(socketpair(AF_UNIX, SOCK_STREAM, 0, BAD));
    SHOW(socket(AF_UNIX, 11, 0));
    SHOW(socket(AF_UNIX, 0, 0));
    SHOW(socket(AF_UNIX, SOCK_STREAM, 1) >= 0);
    SHOW(socket(AF_UNIX, SOCK_STREAM, 6));
    SHOW(socket(46, SOCK_STREAM, 0));
    SHOW(socket(AF_UNIX, SOCK_STREAM | 0x100, 0));
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, AF_UNIX, pair));
    for (int i = 0; i < 2; i++)
        say("fd flags %d, file flags %#o", fcntl(pair[i], F_GETFD), fcntl(pair[i], F_GETFL));
    SHOW(pair[1] - pair[0]);
    SHOW(socketpair(AF_UNIX, SOCK_RAW, 0, pair));
}

static void attributes(void)
{
    int pair[2];
    struct stat st, other;
    char link[64], path[64];
    CASE("attributes");
    make(pair, SOCK_STREAM);
    MUST(fstat(pair[0], &st));
    MUST(fstat(pair[1], &other));
    say("mode %o nlink %d size %d blksize %d", st.st_mode, (int)st.st_nlink, (int)st.st_size, (int)st.st_blksize);
    SHOW_IF(st.st_uid == geteuid() && st.st_gid == getegid());
    SHOW_IF(st.st_ino != other.st_ino && st.st_dev == other.st_dev);
    snprintf(path, sizeof path, "/proc/self/fd/%d", pair[0]);
    ssize_t n = MUST(readlink(path, link, sizeof link - 1));
    link[n] = 0;
    snprintf(path, sizeof path, "socket:[%lu]", (unsigned long)st.st_ino);
    SHOW_IF(strcmp(link, path) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", pair[0]);
    SHOW(open(path, O_RDWR));
    SHOW(lseek(pair[0], 0, SEEK_CUR));
    SHOW(pread(pair[0], link, 1, 0));
    SHOW(pwrite(pair[0], link, 1, 0));
    SHOW(ftruncate(pair[0], 0));
    SHOW(fsync(pair[0]));
    SHOW(fchmod(pair[0], 0600));
    MUST(fstat(pair[0], &st));
    say("mode %o", st.st_mode);
    SHOW(mmap(NULL, 4096, PROT_READ, MAP_SHARED, pair[0], 0) == MAP_FAILED ? -1 : 0);
    SHOW(ioctl(pair[0], 0x5401, link));
}

static void bytes(int kind)
{
    int pair[2];
    char text[64];
    make(pair, kinds[kind]);
    SHOW(write(pair[0], "hello", 5));
    SHOW(send(pair[0], "world", 5, 0));
    SHOW(writev(pair[0], (struct iovec[]){{"a", 1}, {"bc", 2}, {"", 0}, {"def", 3}}, 4));
    memset(text, 0, sizeof text);
    SHOW(read(pair[1], text, 7));
    say("'%s'", text);
    memset(text, 0, sizeof text);
    SHOW(recv(pair[1], text, sizeof text, 0));
    say("'%s'", text);
    memset(text, 0, sizeof text);
    SHOW(recv(pair[1], text, sizeof text, MSG_DONTWAIT));
    say("'%s'", text);
    SHOW(write(pair[1], "back", 4));
    memset(text, 0, sizeof text);
    char first[3] = "", rest[8] = "";
    SHOW(readv(pair[0], (struct iovec[]){{first, 2}, {rest, 5}}, 2));
    say("'%s' '%s'", first, rest);
    SHOW(recv(pair[0], text, 1, MSG_DONTWAIT));
    SHOW(read(pair[0], text, 0));
    SHOW(write(pair[0], text, 0));
    SHOW(send(pair[0], text, 0, 0));
    show_poll("after empty ones", pair[1]);
    SHOW(recv(pair[1], text, sizeof text, MSG_DONTWAIT));
    SHOW(recv(pair[1], text, sizeof text, MSG_DONTWAIT));
    SHOW(recv(pair[1], text, 0, MSG_DONTWAIT));
    close(pair[0]);
    close(pair[1]);
}

static void peeking(int kind)
{
    int pair[2];
    char text[64];
    make(pair, kinds[kind]);
    MUST(send(pair[0], "one", 3, 0));
    MUST(send(pair[0], "three", 5, 0));
    for (int i = 0; i < 2; i++) {
        memset(text, 0, sizeof text);
        SHOW(recv(pair[1], text, sizeof text, MSG_PEEK));
        say("'%s'", text);
    }
    SHOW(recv(pair[1], text, 2, MSG_PEEK));
    SHOW(recv(pair[1], text, 2, MSG_PEEK | MSG_TRUNC));
    SHOW(recv(pair[1], text, 2, MSG_TRUNC));
    memset(text, 0, sizeof text);
    SHOW(recv(pair[1], text, sizeof text, MSG_TRUNC));
    say("'%s'", text);
    SHOW(recv(pair[1], text, sizeof text, MSG_PEEK | MSG_DONTWAIT));
    SHOW(recv(pair[1], text, sizeof text, MSG_ERRQUEUE | MSG_DONTWAIT));
    close(pair[0]);
    close(pair[1]);
}

static void readiness(int kind)
{
    int pair[2];
    make(pair, kinds[kind]);
    show_poll("fresh", pair[0]);
    MUST(write(pair[0], "x", 1));
    show_poll("sender", pair[0]);
    show_poll("receiver", pair[1]);
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    char block[4096];
    int count = 0;
    memset(block, 'b', sizeof block);
    while (write(pair[0], block, sizeof block) > 0)
        count++;
    say("%d more, then %s", count, error_name(errno));
    show_poll("full", pair[0]);
    int queued = 0;
    SHOW(ioctl(pair[0], TIOCOUTQ, &queued));
    say("out %d", queued);
    SHOW(ioctl(pair[1], FIONREAD, &queued));
    say("in %d", queued);
    count = 0;
    while (poll(&(struct pollfd){.fd = pair[0], .events = POLLOUT}, 1, 0) == 0) {
        MUST(read(pair[1], block, sizeof block));
        count++;
    }
    say("writable after %d reads", count);
    SHOW(shutdown(pair[0], SHUT_WR));
    show_poll("shut for writing", pair[0]);
    show_poll("its peer", pair[1]);
    SHOW(shutdown(pair[0], SHUT_RD));
    show_poll("shut", pair[0]);
    show_poll("its peer", pair[1]);
    close(pair[0]);
    show_poll("closed peer", pair[1]);
    SHOW(shutdown(pair[1], 3));
    SHOW(shutdown(pair[1], -1));
    close(pair[1]);
}

static void endings(int kind)
{
    int pair[2];
    char text[16];
    make(pair, kinds[kind]);
    MUST(write(pair[0], "last", 4));
    MUST(close(pair[0]));
    SHOW(recv(pair[1], text, 16, MSG_DONTWAIT));
    SHOW(recv(pair[1], text, 16, MSG_DONTWAIT));
    SHOW(write(pair[1], "x", 1));
    SHOW(send(pair[1], "x", 1, MSG_NOSIGNAL));
    SHOW(send(pair[1], "x", 0, MSG_NOSIGNAL));
    close(pair[1]);
    say("with unread bytes");
    make(pair, kinds[kind]);
    MUST(write(pair[0], "last", 4));
    MUST(close(pair[1]));
    show_poll("poll", pair[0]);
    SHOW(recv(pair[0], text, 16, MSG_DONTWAIT));
    SHOW(recv(pair[0], text, 16, MSG_DONTWAIT));
    SHOW(write(pair[0], "x", 1));
    close(pair[0]);
    say("shut down");
    make(pair, kinds[kind]);
    MUST(write(pair[0], "last", 4));
    MUST(shutdown(pair[0], SHUT_WR));
    SHOW(write(pair[0], "x", 1));
    SHOW(recv(pair[1], text, 16, 0));
    SHOW(recv(pair[1], text, 16, MSG_DONTWAIT));
    SHOW(recv(pair[1], text, 16, MSG_DONTWAIT));
    SHOW(write(pair[1], "ok", 2));
    SHOW(recv(pair[0], text, 16, 0));
    MUST(shutdown(pair[1], SHUT_RD));
    SHOW(write(pair[0], "x", 1));
    close(pair[0]);
    close(pair[1]);
    make(pair, kinds[kind]);
    MUST(shutdown(pair[1], SHUT_RD));
    SHOW(write(pair[0], "x", 1));
    SHOW(recv(pair[1], text, 16, MSG_DONTWAIT));
    close(pair[0]);
    close(pair[1]);
}

static void addresses(int kind)
{
    int pair[2];
    char text[64];
    make(pair, kinds[kind]);
    MUST(write(pair[0], "0123456789", 10));
    MUST(write(pair[0], "abcdefghij", 10));
    SHOW(write(pair[0], BAD, 10));
    SHOW(send(pair[0], BAD, 10, 0));
    SHOW(read(pair[1], BAD, 5));
    SHOW(recv(pair[1], BAD, 5, MSG_DONTWAIT));
    SHOW(read(pair[1], (char *)-1, 5));
    memset(text, 0, sizeof text);
    SHOW(recv(pair[1], text, sizeof text, MSG_DONTWAIT));
    say("'%s'", text);
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(munmap(page + 4096, 4096));
    SHOW(send(pair[0], page + 4090, 10, 0));
    SHOW(send(pair[0], page + 4090, 6, 0));
    SHOW(recv(pair[1], page + 4093, 6, MSG_DONTWAIT));
    SHOW(recv(pair[1], text, sizeof text, MSG_DONTWAIT));
    SHOW(recv(99, text, 1, 0));
    SHOW(recv(0, text, 1, 0));
    SHOW(send(99, text, 1, 0));
    close(pair[0]);
    close(pair[1]);
}

static void sizes(int kind)
{
    static char block[300000];
    int pair[2], queued;
    static const int all[] = {1, 192, 193, 704, 705, 1728, 1729, 3776, 3777, 4096, 4288, 4289, 7872, 7873, 8192,
                              16064, 16384, 20000, 36544, 36545, 65536, 100000, 150000, 212959, 212960, 212961, 250000};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        make(pair, kinds[kind] | SOCK_NONBLOCK);
        long r = send(pair[0], block, all[i], 0);
        int error = errno;
        MUST(ioctl(pair[0], TIOCOUTQ, &queued));
        say("%d: %ld %s charged %d", all[i], r, r < 0 ? error_name(error) : "", queued);
        close(pair[0]);
        close(pair[1]);
    }
}

int main(void)
{
    handle_plain(SIGPIPE, quiet);
    creation();
    attributes();
    for (int kind = 0; kind < 3; kind++) {
        say("== %s", names[kind]);
        CASE("bytes");
        bytes(kind);
        CASE("peeking");
        peeking(kind);
        CASE("readiness");
        readiness(kind);
        CASE("endings");
        endings(kind);
        CASE("addresses");
        addresses(kind);
        CASE("sizes");
        sizes(kind);
    }
    return 0;
}
