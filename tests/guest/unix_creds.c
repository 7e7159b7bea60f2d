/* Who is at the other end: SO_PEERCRED, SO_PASSCRED, SCM_CREDENTIALS and what one may claim to be. */
#include "check.h"

#include <grp.h>
#include <sys/socket.h>
#include <sys/un.h>

static int on = 1, off = 0;

static void pair_of(int pair[2], int kind)
{
    MUST(socketpair(AF_UNIX, kind, 0, pair));
}

static const char *who(pid_t pid)
{
    return pid == getpid() ? "self" : pid == getppid() ? "parent" : pid == 0 ? "nobody" : "another";
}

static const char *whose(uid_t id, uid_t mine)
{
    static char text[2][32];
    static int turn;
    turn = !turn;
    if (id == mine && mine != 0)
        return "mine";
    snprintf(text[turn], sizeof text[turn], "%d", (int)id);
    return text[turn];
}

static void show_peer(int fd)
{
    struct ucred cred = {-7, -7, -7};
    socklen_t size = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
        say("peer: %s", error_name(errno));
    else
        say("peer: size %d %s uid %s gid %s", size, who(cred.pid), whose(cred.uid, geteuid()), whose(cred.gid, getegid()));
}

static long give(int fd, const char *text, const struct ucred *cred, size_t size)
{
    char control[64] __attribute__((aligned(8))) = "";
    struct iovec iov = {(void *)text, strlen(text)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *c = (void *)control;
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS, .cmsg_len = CMSG_LEN(size)};
    memcpy(CMSG_DATA(c), cred, size);
    return sendmsg(fd, &msg, 0);
}

static void take(int fd, size_t size, size_t room, int flags)
{
    char control[128] __attribute__((aligned(8))), text[64] = "";
    struct iovec iov = {text, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room ? control : NULL, .msg_controllen = room};
    long r = recvmsg(fd, &msg, flags | MSG_DONTWAIT);
    if (r < 0) {
        say("recvmsg: %s", error_name(errno));
        return;
    }
    say("recvmsg = %ld '%s' controllen %zu flags %#x", r, text, msg.msg_controllen, msg.msg_flags);
    if (room < CMSG_LEN(sizeof(struct ucred)))
        return;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        struct ucred cred;
        memcpy(&cred, CMSG_DATA(c), sizeof cred);
        say("  level %d type %d len %zu: %s uid %s gid %s", c->cmsg_level, c->cmsg_type, (size_t)c->cmsg_len, who(cred.pid),
            whose(cred.uid, getuid()), whose(cred.gid, getgid()));
    }
}

static void peers(void)
{
    int pair[2];
    CASE("SO_PEERCRED");
    pair_of(pair, SOCK_STREAM);
    show_peer(pair[0]);
    pair_of(pair, SOCK_DGRAM);
    show_peer(pair[0]);
    int s = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    show_peer(s);
    MUST(bind(s, (void *)&(sa_family_t){AF_UNIX}, 2));
    show_peer(s);
    MUST(listen(s, 5));
    show_peer(s);
    struct sockaddr_un addr;
    socklen_t size = sizeof addr;
    MUST(getsockname(s, (void *)&addr, &size));
    struct gate gate = gate_make(), told = gate_make();
    pid_t pid = CHILD({
        int c = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
        if (geteuid() == 0) {
            gid_t groups[] = {7, 8, 9};
            MUST(setgroups(3, groups));
            MUST(setegid(77));
            MUST(seteuid(66));
        }
        MUST(connect(c, (void *)&addr, size));
        show_peer(c);
        gate_open(told);
        gate_wait(gate);
    });
    gate_wait(told);
    int a = MUST(accept(s, NULL, NULL));
    struct ucred cred;
    size = sizeof cred;
    MUST(getsockopt(a, SOL_SOCKET, SO_PEERCRED, &cred, &size));
    SHOW_IF(cred.pid == pid);
    say("uid %s gid %s", whose(cred.uid, geteuid()), whose(cred.gid, getegid()));
    gid_t groups[16];
    if (geteuid() == 0) {
        size = sizeof groups;
        SHOW(getsockopt(a, SOL_SOCKET, SO_PEERGROUPS, groups, &size));
        say("size %d: %d %d %d", size, groups[0], groups[1], groups[2]);
        size = 8;
        SHOW(getsockopt(a, SOL_SOCKET, SO_PEERGROUPS, groups, &size));
        say("size %d", size);
    }
    gate_open(gate);
    reap("child", pid);
    SHOW(getsockopt(a, SOL_SOCKET, SO_PEERCRED, &cred, &size));
    SHOW_IF(cred.pid == pid);
    size = 4;
    SHOW(getsockopt(a, SOL_SOCKET, SO_PEERCRED, &cred, &size));
    SHOW(size);
    int u = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    size = sizeof groups;
    SHOW(getsockopt(u, SOL_SOCKET, SO_PEERGROUPS, groups, &size));
    SHOW(setsockopt(u, SOL_SOCKET, SO_PEERCRED, &cred, sizeof cred));
    size = sizeof groups;
    SHOW(getsockopt(u, SOL_SOCKET, SO_PEERSEC, groups, &size));
}

static void passing(int kind)
{
    int pair[2];
    say("== kind %d", kind);
    CASE("SO_PASSCRED");
    pair_of(pair, kind);
    MUST(write(pair[0], "before", 6));
    MUST(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    MUST(write(pair[0], "after", 5));
    take(pair[1], 20, 100, MSG_PEEK);
    take(pair[1], 20, 100, 0);
    take(pair[1], 20, 100, 0);
    static const size_t rooms[] = {0, 8, 16, 20, 27, 28, 32};
    for (unsigned i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        MUST(write(pair[0], "room", 4));
        say("room %zu", rooms[i]);
        take(pair[1], 20, rooms[i], 0);
    }
    pid_t pid = CHILD(MUST(write(pair[0], "child", 5)));
    reap("child", pid);
    take(pair[1], 20, 100, 0);
    if (kind == SOCK_STREAM) {
        CASE("messages of several senders");
        MUST(write(pair[0], "mine", 4));
        MUST(write(pair[0], "too", 3));
        pid = CHILD(MUST(write(pair[0], "child", 5)));
        reap("child", pid);
        MUST(write(pair[0], "again", 5));
        take(pair[1], 60, 100, MSG_PEEK);
        take(pair[1], 60, 100, 0);
        take(pair[1], 60, 100, 0);
        take(pair[1], 60, 100, 0);
    }
    MUST(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &off, sizeof off));
    MUST(write(pair[0], "off", 3));
    take(pair[1], 20, 100, 0);
    MUST(setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    MUST(write(pair[0], "sender", 6));
    MUST(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    take(pair[1], 20, 100, 0);
    CASE("SCM_CREDENTIALS");
    struct ucred me = {getpid(), getuid(), getgid()}, cred = me;
    SHOW(give(pair[0], "me", &me, sizeof me));
    take(pair[1], 20, 100, 0);
    SHOW(give(pair[0], "me", &me, sizeof me - 1));
    SHOW(give(pair[0], "me", &me, sizeof me + 4));
    cred.uid = -1;
    SHOW(give(pair[0], "me", &cred, sizeof cred));
    cred = me;
    cred.gid = -1;
    SHOW(give(pair[0], "me", &cred, sizeof cred));
    cred = me;
    cred.uid = 12345;
    SHOW(give(pair[0], "me", &cred, sizeof cred));
    cred = me;
    cred.gid = 12345;
    SHOW(give(pair[0], "me", &cred, sizeof cred));
    cred = me;
    cred.pid = getppid();
    SHOW(give(pair[0], "me", &cred, sizeof cred));
    cred.pid = 0x7ffffff0;
    SHOW(give(pair[0], "me", &cred, sizeof cred));
    cred.pid = -1;
    SHOW(give(pair[0], "me", &cred, sizeof cred));
    for (int i = 0; i < 5; i++)
        take(pair[1], 20, 100, 0);
    close(pair[0]);
    close(pair[1]);
}

static void inherited(void)
{
    int s = MUST(socket(AF_UNIX, SOCK_STREAM, 0)), value = 0;
    CASE("accepted sockets inherit SO_PASSCRED");
    MUST(bind(s, (void *)&(sa_family_t){AF_UNIX}, 2));
    MUST(listen(s, 5));
    MUST(setsockopt(s, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    struct sockaddr_un addr;
    socklen_t size = sizeof addr;
    MUST(getsockname(s, (void *)&addr, &size));
    int c = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(c, (void *)&addr, size));
    MUST(write(c, "early", 5));
    int a = MUST(accept(s, NULL, NULL));
    size = sizeof value;
    MUST(getsockopt(a, SOL_SOCKET, SO_PASSCRED, &value, &size));
    SHOW(value);
    take(a, 20, 100, 0);
    MUST(write(a, "back", 4));
    take(c, 20, 100, 0);
}

int main(void)
{
    peers();
    passing(SOCK_STREAM);
    passing(SOCK_DGRAM);
    passing(SOCK_SEQPACKET);
    inherited();
    return 0;
}
