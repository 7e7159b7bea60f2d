/* Calls that hand out several records, into a buffer whose end is not there: which records the program gets, and
 * which are there for the next call. */
#include "check.h"
#include <grp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static char *page;

/* The last `size` bytes before memory ends. */
static void *last(size_t size)
{
    memset(page, 0, 4096);
    return page + 4096 - size;
}

struct entry {
    uint64_t ino;
    int64_t after;
    unsigned short length;
    unsigned char type;
    char name[];
};

static void show_names(const char *what, const char *data, long size)
{
    if (size < 0) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    int count = 0;
    for (long at = 0; at < size; at += ((const struct entry *)(data + at))->length)
        count++;
    say("%s: %d entries", what, count);
}

static void listings(void)
{
    CASE("getdents64");
    MUST(mkdir("d", 0700));
    for (int i = 0; i < 6; i++) {
        char name[32];
        snprintf(name, sizeof name, "d/%c%.*s", 'a' + i, i, "123456");
        close(MUST(open(name, O_CREAT | O_RDWR, 0600)));
    }
    static const char *dirs[] = {"/proc/self", "/proc/self/fd", "/dev"};
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        say("%s", dirs[i]);
        int fd = MUST(open(dirs[i], O_RDONLY | O_DIRECTORY));
        /* "." and ".." come first, 24 bytes each, of which the last ones are no part of the name. */
        static const int sizes[] = {4, 20, 21, 24, 30, 44, 45, 47, 48};
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            MUST(lseek(fd, 0, SEEK_SET));
            char *buf = last(sizes[j]), what[32];
            snprintf(what, sizeof what, "room for %d", sizes[j]);
            show_names(what, buf, syscall(SYS_getdents64, fd, buf, 4096));
        }
        MUST(lseek(fd, 0, SEEK_SET));
        SHOW(syscall(SYS_getdents, fd, last(23), 4096));
        SHOW(syscall(SYS_getdents, fd, last(24), 4096));
        close(fd);
    }
    /* What did not fit comes with the next call. */
    int fd = MUST(open("d", O_RDONLY | O_DIRECTORY)), total = 0, rounds = 0;
    long got;
    while (rounds++ < 100) {
        char *buf = last(60);
        if ((got = syscall(SYS_getdents64, fd, buf, 4096)) <= 0)
            break;
        for (long at = 0; at < got; at += ((struct entry *)(buf + at))->length)
            total++;
    }
    show_result("the end", got);
    say("%d entries", total);
    close(fd);
}

static void watches(void)
{
    CASE("inotify");
    int fd = MUST(inotify_init1(IN_NONBLOCK));
    MUST(inotify_add_watch(fd, "d", IN_CREATE));
    for (int room = 0; room < 80; room += 24) {
        for (int i = 0; i < 4; i++) {
            char name[16];
            snprintf(name, sizeof name, "d/n%d%d", room, i);
            close(MUST(open(name, O_CREAT | O_RDWR, 0600)));
        }
        say("room for %d", room);
        SHOW(read(fd, last(room), 4096));
        SHOW(read(fd, page, 4096));
        SHOW(read(fd, page, 4096));
    }
    close(fd);
}

static void signals(void)
{
    CASE("signalfd");
    sigset_t set = set_of(SIGRTMIN);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    int fd = MUST(signalfd(-1, &set, SFD_NONBLOCK));
    for (int room = 0; room <= 256; room += 64) {
        for (int i = 0; i < 4; i++)
            MUST(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i}));
        say("room for %d", room);
        struct signalfd_siginfo *info = last(room);
        SHOW(read(fd, info, 4 * sizeof *info));
        info = (void *)page;
        SHOW(read(fd, info, 8 * sizeof *info));
        say("next: %d", info->ssi_int);
    }
    close(fd);
}

static void readiness(void)
{
    CASE("epoll_wait");
    int set = MUST(epoll_create1(0)), counters[4];
    for (int i = 0; i < 4; i++) {
        struct epoll_event event = {EPOLLIN | (i == 1 ? EPOLLET : 0), {.u32 = i}};
        counters[i] = MUST(eventfd(1, EFD_NONBLOCK));
        MUST(epoll_ctl(set, EPOLL_CTL_ADD, counters[i], &event));
    }
    struct epoll_event *events;
    for (int room = 0; room <= 36; room += 9) {
        say("room for %d", room);
        events = last(room);
        long got = epoll_wait(set, events, 4, 0);
        show_result("epoll_wait", got);
        for (int i = 0; i < got; i++)
            say("  %u", events[i].data.u32);
    }
    events = (void *)page;
    SHOW(epoll_wait(set, events, 4, 0));
    for (int i = 0; i < 4; i++)
        close(counters[i]);
    close(set);
}

static void messages(void)
{
    CASE("recvmmsg and sendmmsg");
    int ends[2];
    MUST(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends));
    char byte;
    struct iovec vec = {&byte, 1};
    struct mmsghdr *all = last(3 * sizeof *all);
    for (int i = 0; i < 3; i++)
        all[i].msg_hdr.msg_iov = &vec, all[i].msg_hdr.msg_iovlen = 1;
    SHOW(sendmmsg(ends[0], all + 1, 3, 0));
    SHOW(recvmmsg(ends[1], all + 2, 3, 0, NULL));
    SHOW(recvmmsg(ends[1], all + 2, 3, 0, NULL));
    SHOW(recvmmsg(ends[1], all + 2, 3, 0, NULL));
    SHOW(recvmmsg(ends[1], all + 3, 3, 0, NULL));
    /* The one whose buffer is bad. */
    struct iovec bad = {BAD, 1};
    for (int i = 0; i < 3; i++)
        MUST(send(ends[0], &"xyz"[i], 1, 0));
    all[1].msg_hdr.msg_iov = &bad;
    SHOW(recvmmsg(ends[1], all, 3, 0, NULL));
    SHOW(recvmmsg(ends[1], all + 1, 2, 0, NULL));
    SHOW(recvmmsg(ends[1], all, 1, 0, NULL));
    say("%c", byte);
    close(ends[0]), close(ends[1]);
}

static void others(void)
{
    CASE("whole or not at all");
    MUST(symlink("a-rather-long-target", "link"));
    SHOW(readlink("link", last(8), 64));
    SHOW(syscall(SYS_getcwd, last(4), 4096));
    SHOW(getrandom(last(100), 300, 0));
    SHOW(getrandom(last(0), 300, 0));
    gid_t groups[4] = {1, 2, 3, 4};
    if (geteuid() == 0) {
        MUST(setgroups(4, groups));
        SHOW(getgroups(4, last(8)));
        MUST(setgroups(0, groups));
    }
    int fd = MUST(open("x", O_CREAT | O_RDWR, 0600));
    struct pollfd *polls = last(sizeof *polls);
    *polls = (struct pollfd){fd, POLLIN, 0};
    SHOW(poll(polls, 2, 0));
    say("revents %#x", polls->revents);
    close(fd);
}

int main(void)
{
    page = (char *)MUST(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    MUST(munmap(page + 4096, 4096));
    scratch();
    listings();
    watches();
    signals();
    readiness();
    messages();
    others();
    return 0;
}
