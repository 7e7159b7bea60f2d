/* Descriptors and what they refer to: as many of each kind as there can be, pipes that are full, epoll sets of all
 * shapes. */
#include "hostile.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static void fds_dup(void)
{
    int fd;
    raise_limit(RLIMIT_NOFILE);
    for (long i = 0; i < 100000; i++)
        if (dup(0) < 0)
            break;
    fd = dup2(0, 1048575);
    CHECK(fd == 1048575 || errno == EBADF || errno == EMFILE);
    for (int i = 0; i < 10; i++)
        if (fork() == 0)
            _exit(0);
    close_range(3, ~0u, 0);
}

/* open() of one kind of object until it fails; then the descriptors are closed. */
static void many(int (*make)(void), long most)
{
    long i;
    raise_limit(RLIMIT_NOFILE);
    for (i = 0; i < most; i++)
        if (make() < 0)
            break;
    printf("%ld made, errno %d\n", i, i < most ? errno : 0);
    CHECK(i == most || errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOSPC);
    close_range(3, ~0u, 0);
}

static int make_event(void) { return eventfd(0, 0); }
static int make_timer(void)
{
    struct itimerspec spec = {{0, 1000000}, {0, 1000000}};
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    if (fd >= 0)
        timerfd_settime(fd, 0, &spec, NULL);
    return fd;
}
static int make_pipe(void)
{
    int two[2];
    return pipe(two) < 0 ? -1 : two[0];
}
static int make_memfd(void)
{
    int fd = memfd_create("x", 0);
    if (fd >= 0 && write(fd, "x", 1) != 1)
        return -1;
    return fd;
}
static int make_epoll(void) { return epoll_create1(0); }
static int make_host_file(void) { return open("/etc/passwd", O_RDONLY); }
static int make_pty(void) { return open("/dev/ptmx", O_RDWR | O_NOCTTY); }
static int make_socket(void)
{
    int two[2];
    return socketpair(AF_UNIX, SOCK_STREAM, 0, two) < 0 ? -1 : two[0];
}
static void events(void) { many(make_event, 200000); }
static void timerfds(void) { many(make_timer, 3000); }
static void pipes(void) { many(make_pipe, 100000); }
static void memfds(void) { many(make_memfd, 20000); }
static void epolls(void) { many(make_epoll, 20000); }
static void host_files(void) { many(make_host_file, 20000); }
static void ptys(void) { many(make_pty, 6000); }
static void sockets(void)
{
    if (make_socket() >= 0)
        many(make_socket, 50000);
}

/* Pipes that are full, each as large as it may be. */
static void pipe_memory(void)
{
    char *buffer = calloc(1, 1 << 20);
    long total = 0;
    raise_limit(RLIMIT_NOFILE);
    for (int i = 0; i < 2000; i++) {
        int two[2];
        ssize_t n;
        if (pipe2(two, O_NONBLOCK) < 0)
            break;
        fcntl(two[1], F_SETPIPE_SZ, 1 << 30);
        fcntl(two[1], F_SETPIPE_SZ, 1 << 20);
        n = write(two[1], buffer, 1 << 20);
        total += n > 0 ? n : 0;
    }
    printf("%ld MiB in pipes\n", total >> 20);
}

static void epoll_entries(void)
{
    int ep = epoll_create1(0), event = eventfd(1, 0), chain[8];
    struct epoll_event e = {EPOLLIN, {0}};
    raise_limit(RLIMIT_NOFILE);
    for (int i = 0; i < 20000; i++) {
        int fd = dup(event);
        if (fd < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) < 0)
            break;
    }
    struct epoll_event *out = calloc(20000, sizeof *out);
    for (int i = 0; i < 5; i++)
        epoll_wait(ep, out, 20000, 0);
    epoll_wait(ep, out, INT_MAX / (int)sizeof *out, 0);
    epoll_wait(ep, out, INT_MAX, 0);
    /* Nested and in a ring. */
    for (int i = 0; i < 8; i++)
        chain[i] = epoll_create1(0);
    for (int i = 0; i < 8; i++)
        epoll_ctl(chain[i], EPOLL_CTL_ADD, chain[(i + 1) % 8], &e);
    epoll_ctl(chain[0], EPOLL_CTL_ADD, chain[0], &e);
    epoll_wait(chain[0], out, 10, 0);
    /* Everybody watches everybody: paths multiply. */
    for (int i = 0; i < 200; i++) {
        int inner = epoll_create1(0);
        for (int k = 0; k < 100; k++)
            epoll_ctl(inner, EPOLL_CTL_ADD, dup(event), &e);
        epoll_ctl(ep, EPOLL_CTL_ADD, inner, &e);
    }
    uint64_t one = 1;
    for (int i = 0; i < 10; i++)
        if (write(event, &one, 8) < 0)
            break;
}

static void epoll_deep(void)
{
    enum { DEPTH = 3000 };
    struct epoll_event e = {EPOLLIN, {0}}, out;
    int last = eventfd(0, 0), event = last;
    uint64_t one = 1;
    raise_limit(RLIMIT_NOFILE);
    for (int i = 0; i < DEPTH; i++) {
        int ep = epoll_create1(0);
        if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, last, &e) < 0)
            break;
        last = ep;
    }
    epoll_wait(last, &out, 1, 0);
    if (write(event, &one, 8) < 0)
        perror("write");
    epoll_wait(last, &out, 1, 0);
    close(event);
    close(last);
}

/* Every epoll file watches every other file: more registrations than anybody needs. */
static void epoll_in_all(void)
{
    enum { SETS = 400, FILES = 1000 };
    static int sets[SETS], files[FILES];
    struct epoll_event e = {EPOLLIN, {0}};
    long total = 0;
    int got = 0;
    raise_limit(RLIMIT_NOFILE);
    for (int i = 0; i < FILES; i++)
        CHECK((files[i] = eventfd(0, 0)) >= 0);
    for (int i = 0; i < SETS && got == 0; i++) {
        CHECK((sets[i] = epoll_create1(0)) >= 0);
        for (int k = 0; k < FILES && got == 0; k++) {
            got = epoll_ctl(sets[i], EPOLL_CTL_ADD, files[k], &e);
            total += got == 0;
        }
    }
    printf("%ld registrations, errno %d\n", total, got ? errno : 0);
    CHECK(got == -1 && errno == ENOSPC);
    CHECK(epoll_ctl(sets[0], EPOLL_CTL_DEL, files[0], NULL) == 0);
    CHECK(epoll_ctl(sets[0], EPOLL_CTL_ADD, files[0], &e) == 0);
    CHECK(epoll_ctl(sets[0], EPOLL_CTL_ADD, dup(files[0]), &e) == -1 && errno == ENOSPC);
    close(sets[1]);
    CHECK(epoll_ctl(sets[0], EPOLL_CTL_ADD, dup(files[1]), &e) == 0);
}

static const struct attack attacks[] = {
    {"fds_dup", fds_dup}, {"events", events}, {"timerfds", timerfds}, {"pipes", pipes}, {"memfds", memfds}, {"epolls", epolls},
    {"host_files", host_files}, {"ptys", ptys}, {"sockets", sockets}, {"pipe_memory", pipe_memory},
    {"epoll_entries", epoll_entries}, {"epoll_deep", epoll_deep}, {"epoll_in_all", epoll_in_all},
    {NULL, NULL}};

int main(int argc, char **argv) { return run_attack(attacks, argc, argv); }
