/* Performs random calls on Unix sockets and tells how each of them ended, and how all sockets are then.
 *
 * usage: sockets SEED COUNT
 *
 * What is printed is the same on any Linux and on any two ways through one kernel: results, errnos, a hash of the
 * bytes that were given, readiness, and how much is queued.  Nothing sleeps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define SLOTS 8
#define PAGE 4096ul
#define SIZE (128 * PAGE)

static int slots[SLOTS], set;
static unsigned char *memory; /* [SIZE], and behind it a page without access */
static uint64_t random_state;
static int signals;

static unsigned pick(unsigned below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 33) % below;
}

static uint64_t hash(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    uint64_t h = 14695981039346656037ull;
    for (size_t i = 0; i < size; i++)
        h = (h ^ bytes[i]) * 1099511628211ull;
    return h;
}

static void on_pipe(int signo)
{
    (void)signo;
    signals++;
}

static size_t some_size(void)
{
    static const size_t edges[] = {0, 1, 192, 193, 704, 4096, 36544, 36545, 65536, 65537, 100000, 213000, 400000};
    switch (pick(4)) {
    case 0:
        return edges[pick(sizeof edges / sizeof *edges)];
    case 1:
        return pick(100000);
    default:
        return pick(3000);
    }
}

/* Mostly good, sometimes across the end of what there is, sometimes nowhere. */
static void *some_address(size_t size)
{
    unsigned roll = pick(40);
    if (roll == 0)
        return (void *)8;
    if (roll == 1)
        return memory + SIZE - (size ? pick(size < SIZE ? (unsigned)size : SIZE) : 0);
    return memory + pick(PAGE);
}

static void fill(void)
{
    for (size_t i = 0; i < SIZE; i += 997)
        memory[i] = (unsigned char)pick(256);
}

static int some_flags(void)
{
    static const int all[] = {0, 0, 0, MSG_NOSIGNAL, MSG_DONTWAIT, MSG_EOR, MSG_OOB, MSG_TRUNC, MSG_PEEK, MSG_WAITALL};
    return all[pick(10)];
}

static void put(int slot, int fd)
{
    if (slots[slot] >= 0)
        close(slots[slot]);
    slots[slot] = fd;
}

static void tell(const char *what, int slot, long result, uint64_t data)
{
    int error = result < 0 ? errno : 0;
    printf("%s %d = %ld %d %llx", what, slot, result, error, (unsigned long long)data);
}

static void make_pair(void)
{
    static const int kinds[] = {SOCK_STREAM, SOCK_STREAM, SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    int pair[2], one = (int)pick(SLOTS), two = (one + 1 + (int)pick(SLOTS - 1)) % SLOTS, kind = kinds[pick(5)];
    long r = socketpair(AF_UNIX, kind | SOCK_NONBLOCK, 0, pair);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | (pick(2) ? EPOLLET : 0)};
    put(one, pair[0]);
    put(two, pair[1]);
    event.data.u32 = (unsigned)one;
    if (pick(2))
        epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &event);
    tell("pair", one, r, (uint64_t)(kind * 16 + two));
}

static void send_some(int slot)
{
    size_t size = some_size();
    void *where = some_address(size);
    int flags = some_flags();
    fill();
    errno = 0;
    switch (pick(3)) {
    case 0:
        tell("write", slot, syscall(SYS_write, slots[slot], where, size), size);
        break;
    case 1:
        tell("send", slot, syscall(SYS_sendto, slots[slot], where, size, flags, NULL, 0), size + ((uint64_t)flags << 32));
        break;
    default: {
        struct iovec v[3] = {{where, size / 3}, {some_address(size / 2), size / 2}, {memory, pick(10)}};
        tell("writev", slot, syscall(SYS_writev, slots[slot], v, 3), size);
    }
    }
}

static void receive_some(int slot)
{
    size_t size = some_size();
    unsigned char *where = some_address(size);
    int flags = some_flags();
    long r;
    errno = 0;
    switch (pick(3)) {
    case 0:
        r = syscall(SYS_read, slots[slot], where, size);
        tell("read", slot, r, r > 0 ? hash(where, (size_t)r < size ? (size_t)r : size) : 0);
        break;
    case 1:
        r = syscall(SYS_recvfrom, slots[slot], where, size, flags, NULL, NULL);
        tell("recv", slot, r, r > 0 ? hash(where, (size_t)r < size ? (size_t)r : size) : 0);
        break;
    default: {
        struct iovec v[2] = {{where, size / 3}, {memory + 64 * PAGE, size / 2}};
        r = syscall(SYS_readv, slots[slot], v, 2);
        tell("readv", slot, r, r > 0 ? hash(memory + 64 * PAGE, 100) : 0);
    }
    }
}

/* With descriptors, but none of a socket: when Linux looks for those that nobody can receive is up to it. */
static void message(int slot)
{
    char control[CMSG_SPACE(2 * sizeof(int))] __attribute__((aligned(8)));
    struct iovec v = {memory, pick(5000)};
    struct msghdr msg = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = (void *)control;
    int fds[2] = {1, pick(20) ? set : -1}, count = 0;
    long r;
    memset(control, 0, sizeof control);
    errno = 0;
    if (pick(2)) {
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fds)};
        memcpy(CMSG_DATA(c), fds, sizeof fds);
        fill();
        tell("sendmsg", slot, sendmsg(slots[slot], &msg, 0), v.iov_len);
        return;
    }
    r = recvmsg(slots[slot], &msg, pick(4) ? 0 : MSG_PEEK);
    if (r >= 0)
        for (c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
            if (c->cmsg_type == SCM_RIGHTS) {
                int got[2], n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
                memcpy(got, CMSG_DATA(c), (size_t)n * sizeof(int));
                for (int i = 0; i < n; i++)
                    close(got[i]);
                count += n;
            }
    tell("recvmsg", slot, r, (uint64_t)count * 1000 + (unsigned)msg.msg_flags);
}

static void set_option(int slot)
{
    static const struct {
        int option, value;
    } all[] = {{SO_SNDBUF, 0}, {SO_SNDBUF, 30000}, {SO_SNDBUF, 106496}, {SO_PASSCRED, 1}, {SO_PASSCRED, 0},
               {SO_OOBINLINE, 1}, {SO_PEEK_OFF, 0}, {SO_PEEK_OFF, -1}, {SO_RCVLOWAT, 1}};
    unsigned which = pick(sizeof all / sizeof *all);
    tell("option", slot, setsockopt(slots[slot], SOL_SOCKET, all[which].option, &all[which].value, 4), which);
}

static void ready(void)
{
    struct epoll_event events[SLOTS];
    uint64_t seen = 0;
    int n = epoll_wait(set, events, SLOTS, 0);
    for (int i = 0; i < n; i++)
        seen += ((uint64_t)events[i].events + 1) << (events[i].data.u32 * 7);
    tell("epoll", 0, n, seen);
}

/* An address that only this run has, made to look the same in each. */
static void dial(int slot)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    static unsigned serial;
    int kind = pick(2) ? SOCK_STREAM : SOCK_SEQPACKET, other = (slot + 1) % SLOTS;
    int listener = socket(AF_UNIX, kind | SOCK_NONBLOCK, 0), client = socket(AF_UNIX, kind | SOCK_NONBLOCK, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                                 sprintf(name.sun_path + 1, "twin.%d.%u", getpid(), serial++));
    long r = bind(listener, (void *)&name, size);
    if (r == 0)
        r = listen(listener, 1);
    if (r == 0)
        r = connect(client, (void *)&name, size);
    if (r == 0 && pick(2))
        r = write(client, "early", 5);
    put(slot, client);
    put(other, pick(8) ? accept4(listener, NULL, NULL, SOCK_NONBLOCK) : -1);
    close(listener);
    tell("dial", slot, r, (uint64_t)kind);
}

static void state(void)
{
    for (int i = 0; i < SLOTS; i++) {
        struct pollfd p = {.fd = slots[i], .events = 0x7fff & ~POLLNVAL};
        int in = -1, out = -1;
        if (slots[i] < 0)
            continue;
        poll(&p, 1, 0);
        ioctl(slots[i], FIONREAD, &in);
        ioctl(slots[i], TIOCOUTQ, &out);
        printf(" %d:%x,%d,%d", i, (unsigned)p.revents, in, out);
    }
    printf(" s%d\n", signals);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    random_state = strtoull(argv[1], NULL, 0) * 2654435761u + 88172645463325252ull;
    memory = mmap(NULL, SIZE + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory + SIZE, PAGE, PROT_NONE);
    signal(SIGPIPE, on_pipe);
    memset(slots, -1, sizeof slots);
    set = epoll_create1(0);
    setvbuf(stdout, NULL, _IOFBF, 65536);
    for (long count = atol(argv[2]); count > 0; count--) {
        int slot = (int)pick(SLOTS);
        unsigned roll = pick(100);
        if (roll < 6)
            make_pair();
        else if (roll < 45)
            send_some(slot);
        else if (roll < 82)
            receive_some(slot);
        else if (roll < 88)
            message(slot);
        else if (roll < 90)
            tell("shutdown", slot, shutdown(slots[slot], (int)pick(3)), 0);
        else if (roll < 92)
            tell("close", slot, 0, 0), put(slot, -1);
        else if (roll < 94)
            set_option(slot);
        else if (roll < 96)
            dial(slot);
        else
            ready();
        state();
    }
    return 0;
}
