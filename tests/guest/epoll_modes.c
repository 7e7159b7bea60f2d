/* epoll: edge-triggered, one-shot and exclusive registrations, nesting, errors; eventfd, signalfd and timerfd in it;
 * signals of files (F_SETOWN, F_SETSIG, O_ASYNC, F_NOTIFY). */
#include "check.h"
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static int ep;

static void ctl(const char *what, int op, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    errno = 0;
    show_result(what, epoll_ctl(ep, op, fd, &event));
}

static void ready(const char *what)
{
    struct epoll_event events[8];
    int count = epoll_wait(ep, events, 8, 0);
    say("%s: %d", what, count);
    for (int i = 0; i < count; i++)
        say("  %lu: %x", (unsigned long)events[i].data.u64, events[i].events);
}

static void modes(void)
{
    CASE("modes");
    int p[2], q[2];
    ep = MUST(epoll_create1(0));
    MUST(pipe2(p, O_NONBLOCK));
    MUST(pipe2(q, O_NONBLOCK));
    ctl("level", EPOLL_CTL_ADD, p[0], EPOLLIN, 1);
    ctl("edge", EPOLL_CTL_ADD, q[0], EPOLLIN | EPOLLET, 2);
    ready("empty");
    MUST(write(p[1], "ab", 2));
    MUST(write(q[1], "ab", 2));
    ready("both");
    ready("only the level");
    char byte;
    MUST(read(q[0], &byte, 1));
    ready("reading is no edge");
    MUST(write(q[1], "c", 1));
    ready("a new one");
    ctl("again", EPOLL_CTL_ADD, p[0], EPOLLIN, 1);
    ctl("one-shot", EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLONESHOT, 3);
    ready("once");
    MUST(write(p[1], "c", 1));
    ready("no more");
    ctl("armed again", EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLONESHOT, 4);
    ready("once more");
    ctl("modified edge", EPOLL_CTL_MOD, q[0], EPOLLIN | EPOLLET, 5);
    ready("counts as new");
    MUST(close(q[1]));
    ready("hung up");
    ctl("nothing wanted", EPOLL_CTL_MOD, q[0], 0, 6);
    ready("hang-ups come all the same");
    MUST(close(q[0]));
    ready("closed");
    ctl("gone", EPOLL_CTL_DEL, q[0], 0, 0);
    int twin = MUST(dup(p[0]));
    ctl("a duplicate", EPOLL_CTL_ADD, twin, EPOLLIN, 7);
    MUST(close(twin));
    ready("still there by the other descriptor");
    ctl("but not by its number", EPOLL_CTL_DEL, twin, 0, 0);
    close(ep);
}

static void errors(void)
{
    CASE("errors");
    int p[2];
    MUST(pipe(p));
    SHOW(epoll_create(0));
    SHOW(epoll_create1(1));
    ep = MUST(epoll_create1(EPOLL_CLOEXEC));
    SHOW(fcntl(ep, F_GETFD));
    ctl("itself", EPOLL_CTL_ADD, ep, EPOLLIN, 0);
    ctl("nothing open", EPOLL_CTL_ADD, 0x7000, EPOLLIN, 0);
    ctl("a bad operation", 99, p[0], EPOLLIN, 0);
    ctl("not there", EPOLL_CTL_DEL, p[0], EPOLLIN, 0);
    ctl("not there", EPOLL_CTL_MOD, p[0], EPOLLIN, 0);
    int f = MUST(open("/proc/self/exe", O_RDONLY)), d = MUST(open("/", O_RDONLY));
    ctl("a regular file", EPOLL_CTL_ADD, f, EPOLLIN, 0);
    ctl("a directory", EPOLL_CTL_ADD, d, EPOLLIN, 0);
    SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], BAD));
    SHOW(epoll_ctl(p[0], EPOLL_CTL_ADD, p[1], &(struct epoll_event){0}));
    SHOW(epoll_ctl(0x7000, EPOLL_CTL_ADD, p[1], &(struct epoll_event){0}));
    ctl("exclusive", EPOLL_CTL_ADD, p[0], EPOLLIN | EPOLLEXCLUSIVE, 1);
    ctl("can't be modified", EPOLL_CTL_MOD, p[0], EPOLLIN, 1);
    ctl("nor made exclusive", EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLEXCLUSIVE, 1);
    ctl("exclusive one-shot", EPOLL_CTL_ADD, p[1], EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 1);
    ctl("wake-up", EPOLL_CTL_ADD, p[1], EPOLLOUT | EPOLLWAKEUP, 2);
    ready("writable");
    struct epoll_event events[2];
    SHOW(epoll_wait(ep, events, 0, 0));
    SHOW(epoll_wait(ep, events, -1, 0));
    SHOW(epoll_wait(p[0], events, 1, 0));
    SHOW(epoll_wait(0x7000, events, 1, 0));
    SHOW(epoll_wait(ep, BAD, 1, 0));
    struct timespec bad = {0, -1}, zero = {0, 0};
    sigset_t mask = set_of(SIGUSR1);
    SHOW(syscall(SYS_epoll_pwait2, ep, events, 1, &bad, NULL, 8));
    SHOW(syscall(SYS_epoll_pwait2, ep, events, 1, &zero, NULL, 8));
    SHOW(syscall(SYS_epoll_pwait2, ep, events, 1, &zero, &mask, 7));
    SHOW(syscall(SYS_epoll_pwait, ep, events, 1, 0, &mask, 4));
    close(ep);
}

static void nesting(void)
{
    CASE("nesting");
    int e[8], p[2];
    MUST(pipe(p));
    for (int i = 0; i < 8; i++)
        e[i] = MUST(epoll_create1(0));
    for (int i = 0; i < 7; i++) {
        ep = e[i + 1];
        ctl("one more around", EPOLL_CTL_ADD, e[i], EPOLLIN, i);
    }
    ep = e[0];
    ctl("a loop", EPOLL_CTL_ADD, e[1], EPOLLIN, 0);
    ctl("a longer loop", EPOLL_CTL_ADD, e[3], EPOLLIN, 0);
    ctl("exclusive", EPOLL_CTL_ADD, MUST(epoll_create1(0)), EPOLLIN | EPOLLEXCLUSIVE, 0);
    ctl("a pipe inside", EPOLL_CTL_ADD, p[0], EPOLLIN, 9);
    ep = e[2];
    ready("nothing");
    MUST(write(p[1], "x", 1));
    ready("through three");
    struct pollfd pfd = {e[1], POLLIN, 0};
    say("poll %d %x", poll(&pfd, 1, 0), pfd.revents);
    for (int i = 0; i < 8; i++)
        close(e[i]);
}

static void others(void)
{
    CASE("counters, timers, signals");
    ep = MUST(epoll_create1(0));
    int counter = MUST(eventfd(0, EFD_NONBLOCK)), half = MUST(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
    uint64_t value;
    ctl("counter", EPOLL_CTL_ADD, counter, EPOLLIN | EPOLLOUT | EPOLLET, 1);
    ctl("semaphore", EPOLL_CTL_ADD, half, EPOLLIN, 2);
    ready("start");
    value = 0xfffffffffffffffe;
    SHOW(write(counter, &value, 8));
    ready("full");
    value = 1;
    SHOW(write(counter, &value, 8));
    value = -1;
    SHOW(write(counter, &value, 8));
    SHOW(write(counter, &value, 4));
    SHOW(read(counter, &value, 7));
    SHOW(read(counter, &value, 8));
    say("%lx", value);
    SHOW(read(counter, &value, 8));
    for (int i = 0; i < 3; i++) {
        SHOW(read(half, &value, 8));
        say("%lu", value);
    }
    SHOW(read(half, &value, 0));
    SHOW(eventfd(0, 16));
    ready("after");
    int timer = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    ctl("timer", EPOLL_CTL_ADD, timer, EPOLLIN, 3);
    struct itimerspec soon = {{0, 0}, {0, 1}};
    SHOW(timerfd_settime(timer, 0, &soon, NULL));
    usleep(2000);
    ready("expired");
    SHOW(read(timer, &value, 8));
    SHOW(read(timer, &value, 8));
    SHOW(read(timer, &value, 7));
    SHOW(timerfd_settime(timer, 8, &soon, NULL));
    SHOW(timerfd_create(77, 0));
    int real = MUST(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
    struct itimerspec far = {{0, 0}, {4000000000, 0}};
    SHOW(timerfd_settime(real, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, NULL));
    sigset_t mask = set_of(SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &mask, NULL));
    int signals = MUST(signalfd(-1, &mask, SFD_NONBLOCK));
    ctl("signals", EPOLL_CTL_ADD, signals, EPOLLIN, 4);
    raise(SIGUSR1);
    ready("a signal");
    struct signalfd_siginfo info;
    SHOW(read(signals, &info, sizeof info - 1));
    SHOW(read(signals, &info, sizeof info));
    say("signal %s code %d", signal_name(info.ssi_signo), info.ssi_code);
    SHOW(read(signals, &info, sizeof info));
    close(ep);
}

static volatile int got_signo, got_code, got_fd, got_band, got_count;

static void on_io(int signo, siginfo_t *info, void *context UNUSED)
{
    got_signo = signo;
    got_code = info->si_code;
    got_fd = info->si_fd;
    got_band = (int)info->si_band;
    got_count++;
}

static void show_io(const char *what, int fd)
{
    say("%s: %d signals, the last %s code %d%s band %x", what, got_count, got_signo ? signal_name(got_signo) : "none",
        got_code, got_fd == fd ? " fd" : "", got_signo == SIGIO ? 0 : got_band);
    got_count = got_signo = got_code = got_band = 0;
    got_fd = -1;
}

static void signals_of_files(void)
{
    CASE("SIGIO");
    handle_flags(SIGIO, on_io, 0);
    handle_flags(SIGRTMIN, on_io, 0);
    int p[2];
    MUST(pipe2(p, O_NONBLOCK));
    SHOW(fcntl(p[0], F_GETOWN));
    SHOW(fcntl(p[0], F_SETOWN, getpid()));
    SHOW_IF(fcntl(p[0], F_GETOWN) == getpid());
    SHOW(fcntl(p[0], F_SETFL, O_ASYNC | O_NONBLOCK));
    MUST(write(p[1], "a", 1));
    show_io("written", p[0]);
    char byte;
    MUST(read(p[0], &byte, 1));
    show_io("read", p[0]);
    SHOW(fcntl(p[0], F_SETSIG, SIGRTMIN));
    SHOW_IF(fcntl(p[0], F_GETSIG) == SIGRTMIN);
    SHOW(fcntl(p[0], F_SETSIG, 65));
    MUST(write(p[1], "b", 1));
    show_io("with details", p[0]);
    SHOW(fcntl(p[0], F_SETFL, O_NONBLOCK));
    MUST(write(p[1], "c", 1));
    show_io("switched off", p[0]);
    struct f_owner_ex owner = {F_OWNER_TID, getpid()}, other = {99, 0};
    SHOW(fcntl(p[0], F_SETOWN_EX, &owner));
    SHOW(fcntl(p[0], F_GETOWN_EX, &other));
    SHOW_IF(other.type == F_OWNER_TID && other.pid == getpid());
    other.type = 99;
    SHOW(fcntl(p[0], F_SETOWN_EX, &other));
    SHOW(fcntl(p[0], F_SETOWN, 0x3fffffff));
    for (int type = 0; type < 3; type++) {
        static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
        MUST(socketpair(AF_UNIX, types[type], 0, p));
        MUST(fcntl(p[0], F_SETOWN, getpid()));
        MUST(fcntl(p[0], F_SETFL, O_ASYNC));
        close(p[0]);
        show_io("closed itself", p[0]);
        close(p[1]);
        MUST(socketpair(AF_UNIX, types[type], 0, p));
        MUST(fcntl(p[0], F_SETOWN, getpid()));
        MUST(fcntl(p[0], F_SETFL, O_ASYNC));
        close(p[1]);
        show_io("the other end closed", p[0]);
        close(p[0]);
        show_io("then itself", p[0]);
    }
    MUST(pipe(p));
    for (int end = 0; end < 2; end++) {
        MUST(fcntl(p[end], F_SETOWN, getpid()));
        MUST(fcntl(p[end], F_SETFL, O_ASYNC));
    }
    close(p[0]);
    show_io("a pipe's reader closed", p[1]);
    close(p[1]);
    show_io("and its writer", p[1]);
    CASE("F_NOTIFY");
    char enabled = '?';
    int d = MUST(open("/proc/sys/fs/dir-notify-enable", O_RDONLY));
    SHOW(read(d, &enabled, 1));
    SHOW_IF(enabled == '1');
    MUST(close(d));
    d = MUST(open(".", O_RDONLY));
    SHOW(fcntl(p[0], F_NOTIFY, DN_CREATE));
    SHOW(fcntl(d, F_SETSIG, SIGRTMIN));
    SHOW(fcntl(d, F_NOTIFY, DN_CREATE));
    put_file("x", "text", 0644);
    show_io("created", d);
    put_file("y", "text", 0644);
    show_io("only once", d);
    SHOW(fcntl(d, F_NOTIFY, DN_RENAME | DN_DELETE | DN_ATTRIB | DN_MULTISHOT));
    MUST(chmod("x", 0600));
    show_io("attributes", d);
    MUST(rename("x", "z"));
    show_io("renamed", d);
    MUST(unlink("z"));
    show_io("deleted", d);
    SHOW(fcntl(d, F_NOTIFY, 0));
    MUST(unlink("y"));
    show_io("no more", d);
    MUST(close(d));
}

int main(void)
{
    scratch();
    modes();
    errors();
    nesting();
    others();
    signals_of_files();
    return 0;
}
