/* sendmsg, recvmsg and their forms for many messages: headers, vectors, and where they stop. */
#include "check.h"

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

static void headers(void)
{
    char text[32] = "", other[4] = "", name[200];
    struct iovec iov[3] = {{"abc", 3}, {"", 0}, {"defg", 4}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 3};
    CASE("headers");
    fresh(SOCK_STREAM);
    SHOW(sendmsg(pair[0], &msg, 0));
    struct iovec in[3] = {{other, 2}, {text, 10}, {NULL, 0}};
    struct msghdr got = {.msg_iov = in, .msg_iovlen = 3, .msg_flags = -1, .msg_controllen = 77};
    SHOW(recvmsg(pair[1], &got, 0));
    say("'%s' '%s' flags %#x controllen %zu", other, text, got.msg_flags, got.msg_controllen);
    SHOW(sendmsg(pair[0], BAD, 0));
    SHOW(recvmsg(pair[1], BAD, MSG_DONTWAIT));
    SHOW(sendmsg(99, &msg, 0));
    SHOW(sendmsg(0, &msg, 0));
    SHOW(recvmsg(0, BAD, 0));
    SHOW(sendmsg(pair[0], &msg, 0x80000000));
    SHOW(recvmsg(pair[1], &msg, 0x80000000));
    msg.msg_iovlen = 1025;
    SHOW(sendmsg(pair[0], &msg, 0));
    SHOW(recvmsg(pair[1], &msg, MSG_DONTWAIT));
    msg.msg_iovlen = 2;
    msg.msg_iov = BAD;
    SHOW(sendmsg(pair[0], &msg, 0));
    msg.msg_iov = iov;
    iov[1] = (struct iovec){"x", -1};
    SHOW(sendmsg(pair[0], &msg, 0));
    iov[1] = (struct iovec){BAD, 3};
    SHOW(sendmsg(pair[0], &msg, 0));
    SHOW(recv(pair[1], text, sizeof text, MSG_DONTWAIT));
    iov[1] = (struct iovec){"x", 1};
    SHOW(sendmsg(pair[0], &msg, 0));
    in[1].iov_base = BAD;
    SHOW(recvmsg(pair[1], &got, 0));
    SHOW(recv(pair[1], text, sizeof text, MSG_DONTWAIT));
    msg.msg_iovlen = 0;
    SHOW(sendmsg(pair[0], &msg, 0));
    msg.msg_iovlen = 1;
    msg.msg_name = name;
    msg.msg_namelen = 0;
    SHOW(sendmsg(pair[0], &msg, 0));
    msg.msg_namelen = 10;
    SHOW(sendmsg(pair[0], &msg, 0));
    msg.msg_namelen = -1;
    SHOW(sendmsg(pair[0], &msg, 0));
    msg.msg_namelen = 200;
    SHOW(sendmsg(pair[0], &msg, 0));
    msg.msg_name = BAD;
    msg.msg_namelen = 10;
    SHOW(sendmsg(pair[0], &msg, 0));
    SHOW(recv(pair[1], text, sizeof text, MSG_DONTWAIT));
    CASE("names of senders");
    MUST(bind(pair[0], (void *)&(sa_family_t){AF_UNIX}, 2));
    MUST(write(pair[0], "named", 5));
    in[1].iov_base = text;
    got = (struct msghdr){.msg_iov = in, .msg_iovlen = 2, .msg_name = name, .msg_namelen = sizeof name};
    SHOW(recvmsg(pair[1], &got, 0));
    SHOW(got.msg_namelen);
    MUST(write(pair[0], "named", 5));
    got.msg_namelen = 3;
    SHOW(recvmsg(pair[1], &got, 0));
    SHOW(got.msg_namelen);
    MUST(write(pair[0], "named", 5));
    got.msg_namelen = -1;
    SHOW(recvmsg(pair[1], &got, MSG_DONTWAIT));
    got.msg_namelen = 10;
    got.msg_name = BAD;
    SHOW(recvmsg(pair[1], &got, MSG_DONTWAIT));
    MUST(write(pair[1], "unnamed", 7));
    got.msg_name = name;
    got.msg_namelen = 100;
    SHOW(recvmsg(pair[0], &got, 0));
    SHOW(got.msg_namelen);
}

static void many(int kind)
{
    char texts[5][8], big[4096];
    struct iovec iov[5];
    struct mmsghdr all[5];
    say("== kind %d", kind);
    fresh(kind);
    for (int i = 0; i < 5; i++) {
        iov[i] = (struct iovec){"message" + i, 7 - i};
        all[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}, .msg_len = 99};
    }
    SHOW(sendmmsg(pair[0], all, 5, 0));
    for (int i = 0; i < 5; i++)
        say("%u", all[i].msg_len);
    for (int i = 0; i < 5; i++) {
        memset(texts[i], 0, sizeof texts[i]);
        iov[i] = (struct iovec){texts[i], 7};
    }
    SHOW(recvmmsg(pair[1], all, 5, MSG_DONTWAIT, NULL));
    for (int i = 0; i < 5; i++)
        say("%u '%s'", all[i].msg_len, texts[i]);
    SHOW(recvmmsg(pair[1], all, 5, MSG_DONTWAIT, NULL));
    SHOW(sendmmsg(pair[0], all, 0, 0));
    SHOW(recvmmsg(pair[1], all, 0, 0, NULL));
    MUST(write(pair[0], "one", 3));
    SHOW(recvmmsg(pair[1], all, 5, MSG_WAITFORONE, NULL));
    struct timespec soon = {0, 20000000}, bad = {0, 1000000000}, negative = {-1, 0};
    SHOW(recvmmsg(pair[1], all, 5, MSG_DONTWAIT, &bad));
    SHOW(recvmmsg(pair[1], all, 5, MSG_DONTWAIT, &negative));
    SHOW(recvmmsg(pair[1], all, 5, MSG_DONTWAIT, BAD));
    MUST(write(pair[0], "one", 3));
    SHOW(recvmmsg(pair[1], all, 2, MSG_DONTWAIT, &soon));
    SHOW_IF(soon.tv_sec == 0 && soon.tv_nsec < 20000000);
    soon = (struct timespec){0, 0};
    MUST(write(pair[0], "one", 3));
    MUST(write(pair[0], "two", 3));
    SHOW(recvmmsg(pair[1], all, 2, 0, &soon));
    say("errors in the middle");
    iov[2].iov_base = BAD;
    SHOW(sendmmsg(pair[0], all, 5, 0));
    SHOW(recvmmsg(pair[1], all, 5, MSG_DONTWAIT, NULL));
    SHOW(recvmmsg(pair[1], all, 5, MSG_DONTWAIT, NULL));
    SHOW(recv(pair[1], big, sizeof big, MSG_DONTWAIT));
    SHOW(recv(pair[1], big, sizeof big, MSG_DONTWAIT));
    SHOW(sendmmsg(pair[0], BAD, 2, 0));
    SHOW(recvmmsg(pair[1], BAD, 2, MSG_DONTWAIT, NULL));
    SHOW(sendmmsg(0, all, 2, 0));
    SHOW(recvmmsg(0, all, 2, 0, NULL));
    SHOW(sendmmsg(pair[0], all, 2, 0x80000000));
    MUST(fcntl(pair[0], F_SETFL, O_NONBLOCK));
    memset(big, 'b', sizeof big);
    for (int i = 0; i < 5; i++)
        iov[i] = (struct iovec){big, sizeof big};
    int total = 0, n;
    while ((n = sendmmsg(pair[0], all, 5, 0)) > 0)
        total += n;
    say("%d, then %s", total, error_name(errno));
}

int main(void)
{
    pair[0] = pair[1] = -1;
    signal(SIGPIPE, SIG_IGN);
    headers();
    many(SOCK_STREAM);
    many(SOCK_DGRAM);
    many(SOCK_SEQPACKET);
    return 0;
}
