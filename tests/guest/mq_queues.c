/* POSIX message queues: mq_open, mq_unlink, mq_send, mq_receive, mq_notify, mq_getattr, mq_setattr.
 *
 * FLAGS: -lrt
 */
#include "check.h"
#include <linux/netlink.h>
#include <mqueue.h>
#include <semaphore.h>
#include <sys/socket.h>

#define COMMA ,

static char name[64], raw_name[64];

static void show_attr(const char *what, mqd_t q)
{
    struct mq_attr a;
    if (mq_getattr(q, &a) == -1)
        say("%s: %s", what, error_name(errno));
    else
        say("%s: flags %lo maxmsg %ld msgsize %ld curmsgs %ld", what, a.mq_flags, a.mq_maxmsg, a.mq_msgsize, a.mq_curmsgs);
}

static void take(const char *what, mqd_t q, size_t size)
{
    char data[9000] = "";
    unsigned priority = 0;
    ssize_t got = mq_receive(q, data, size, &priority);
    if (got == -1)
        say("%s: %s", what, error_name(errno));
    else
        say("%s: %zd bytes, priority %u: %.20s", what, got, priority, data);
}

static void opening(void)
{
    CASE("mq_open");
    SHOW(mq_open(name, O_RDWR));
    mqd_t q = MUST(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, NULL));
    show_attr("default", q);
    SHOW(fcntl(q, F_GETFD));
    SHOW(fcntl(q, F_GETFL));
    SHOW(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, NULL));
    SHOW(mq_open(name, O_RDWR | O_WRONLY));
    mqd_t again = MUST(mq_open(name, O_RDONLY | O_NONBLOCK | O_CREAT, 0600, NULL));
    show_attr("again", again);
    SHOW(mq_send(again, "x", 1, 0));
    mqd_t writer = MUST(mq_open(name, O_WRONLY));
    take("from a writer", writer, 8192);
    struct stat st;
    MUST(fstat(q, &st));
    say("mode %o size %ld nlink %ld", st.st_mode, (long)st.st_size, (long)st.st_nlink);
    static const char *const bad[] = {"/", "no slash", "/a/b", "//x", "/.", "/.."};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mqd_t got = mq_open(bad[i], O_RDWR | O_CREAT, 0600, NULL);
        say("'%s': %s", bad[i], got == -1 ? error_name(errno) : "ok");
        if (got != -1)
            mq_unlink(bad[i]), close(got);
    }
    SHOW(syscall(SYS_mq_open, "", O_RDWR, 0, NULL));
    SHOW(syscall(SYS_mq_open, BAD, O_RDWR, 0, NULL));
    SHOW(syscall(SYS_mq_open, raw_name, O_RDWR, 0, BAD));
    char longest[300];
    memset(longest, 'a', sizeof longest);
    longest[0] = '/';
    longest[257] = 0;
    SHOW(mq_open(longest, O_RDWR | O_CREAT, 0600, NULL));
    longest[256] = 0;
    SHOW_OK(mq_open(longest, O_RDWR | O_CREAT, 0600, NULL));
    SHOW(mq_unlink(longest));
    close(again);
    close(writer);
    SHOW(mq_unlink(name));
    SHOW(mq_unlink(name));
    SHOW(mq_send(q, "still there", 11, 3));
    take("without a name", q, 8192);
    MUST(mq_close(q));
    SHOW(mq_close(q));
}

static void attributes(void)
{
    CASE("attributes");
    struct mq_attr a = {.mq_maxmsg = 3, .mq_msgsize = 20, .mq_flags = O_NONBLOCK, .mq_curmsgs = 7};
    mqd_t q = MUST(mq_open(name, O_RDWR | O_CREAT, 0640, &a));
    show_attr("small", q);
    MUST(mq_unlink(name));
    a.mq_flags = O_NONBLOCK;
    struct mq_attr old;
    SHOW(mq_setattr(q, &a, &old));
    say("old flags %lo", old.mq_flags);
    show_attr("non-blocking", q);
    SHOW(fcntl(q, F_GETFL) & O_NONBLOCK);
    a.mq_flags = O_APPEND;
    SHOW(mq_setattr(q, &a, NULL));
    SHOW(syscall(SYS_mq_getsetattr, q, BAD, NULL));
    SHOW(syscall(SYS_mq_getsetattr, q, NULL, BAD));
    SHOW(syscall(SYS_mq_getsetattr, 0x7000, NULL, NULL));
    int p[2];
    MUST(pipe(p));
    SHOW(mq_send(p[1], "x", 1, 0));
    SHOW(mq_getattr(p[0], &a));
    take("a pipe", p[0], 100);
    static const struct mq_attr wrong[] = {
        {.mq_maxmsg = 0, .mq_msgsize = 10}, {.mq_maxmsg = 10, .mq_msgsize = 0}, {.mq_maxmsg = -1, .mq_msgsize = 10},
        {.mq_maxmsg = 10, .mq_msgsize = -1}, {.mq_maxmsg = 65537, .mq_msgsize = 1}, {.mq_maxmsg = 1, .mq_msgsize = 16777217},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct mq_attr w = wrong[i];
        SHOW(mq_open(name, O_RDWR | O_CREAT, 0600, &w));
    }
    struct rlimit tight = {1000, 1000};
    pid_t child = CHILD(struct mq_attr w = {.mq_maxmsg = 10 COMMA.mq_msgsize = 100}; MUST(setrlimit(RLIMIT_MSGQUEUE, &tight));
                        SHOW(mq_open(name, O_RDWR | O_CREAT, 0600, &w)); w.mq_maxmsg = 5; SHOW_OK(mq_open(name, O_RDWR | O_CREAT, 0600, &w));
                        mq_unlink(name));
    reap("limited", child);
    mq_close(q);
}

static void messages(void)
{
    CASE("messages");
    struct mq_attr a = {.mq_maxmsg = 4, .mq_msgsize = 20};
    mqd_t q = MUST(mq_open(name, O_RDWR | O_CREAT | O_NONBLOCK, 0600, &a));
    MUST(mq_unlink(name));
    take("empty", q, 20);
    SHOW(mq_send(q, "low", 3, 1));
    SHOW(mq_send(q, "high", 4, 32767));
    SHOW(mq_send(q, "high again", 10, 32767));
    SHOW(mq_send(q, "x", 1, 32768));
    SHOW(mq_send(q, "", 0, 0));
    SHOW(mq_send(q, "full", 4, 0));
    SHOW(mq_send(q, "this is far too long for it", 27, 0));
    SHOW(mq_send(q, BAD, 4, 0));
    show_attr("four", q);
    struct pollfd pfd = {q, POLLIN | POLLOUT, 0};
    say("poll %d %x", poll(&pfd, 1, 0), pfd.revents);
    char text[200] = "";
    lseek(q, 0, SEEK_SET);
    ssize_t got = read(q, text, sizeof text - 1);
    say("read %zd: %.*s", got, got > 0 ? (int)got - 1 : 0, text);
    SHOW(write(q, "x", 1));
    SHOW(lseek(q, 0, SEEK_CUR));
    take("buffer too small", q, 19);
    for (int i = 0; i < 4; i++)
        take("by priority", q, 20);
    pfd.revents = 0;
    say("poll %d %x", poll(&pfd, 1, 0), pfd.revents);
    SHOW(mq_send(q, "lost", 4, 0));
    SHOW(mq_receive(q, BAD, 20, NULL));
    take("after a bad address", q, 20);
    struct timespec past = {1, 0}, bad = {0, -1}, negative = {-1, 0};
    SHOW(mq_timedsend(q, "timed", 5, 0, &bad));
    SHOW(mq_timedsend(q, "timed", 5, 0, &negative));
    SHOW(mq_timedsend(q, "timed", 5, 0, &past));
    SHOW(mq_timedsend(q, "timed", 5, 40000, &bad));
    SHOW(mq_timedreceive(q, text, 20, NULL, BAD));
    SHOW(mq_timedreceive(q, text, 20, NULL, &past));
    a.mq_flags = 0;
    MUST(mq_setattr(q, &a, NULL));
    SHOW(mq_timedreceive(q, text, 20, NULL, &past));
    struct timespec soon = time_in(CLOCK_REALTIME, 20);
    SHOW(mq_timedreceive(q, text, 20, NULL, &soon));
    for (int i = 0; i < 4; i++)
        MUST(mq_send(q, "fill", 4, 0));
    SHOW(mq_timedsend(q, "timed", 5, 0, &soon));
    mq_close(q);
}

static void on_signal(int signo UNUSED)
{
}

static int code_of(ssize_t result)
{
    return result == -1 ? errno : 100 + (int)result;
}

static void sleeping(void)
{
    CASE("sleepers");
    struct mq_attr a = {.mq_maxmsg = 1, .mq_msgsize = 20};
    mqd_t q = MUST(mq_open(name, O_RDWR | O_CREAT, 0600, &a));
    MUST(mq_unlink(name));
    char data[20];
    pid_t child = CHILD(_exit(code_of(mq_receive(q, data, 20, NULL))));
    usleep(20000);
    SHOW(mq_send(q, "hello", 5, 0));
    reap("receiver", child);
    MUST(mq_send(q, "first", 5, 0));
    child = CHILD(_exit(code_of(mq_send(q, "second", 6, 9))));
    usleep(20000);
    take("first", q, 20);
    reap("sender", child);
    take("second", q, 20);
    for (int restart = 0; restart < 2; restart++) {
        struct gate up = gate_make();
        child = CHILD(struct sigaction sa = {.sa_handler = on_signal COMMA.sa_flags = restart ? SA_RESTART : 0};
                      sigaction(SIGUSR1, &sa, NULL); gate_open(up); _exit(code_of(mq_receive(q, data, 20, NULL))));
        gate_wait(up);
        usleep(20000);
        MUST(kill(child, SIGUSR1));
        usleep(20000);
        MUST(mq_send(q, "after", 5, 0));
        reap("interrupted", child);
        gate_close(up);
    }
    take("left by the first", q, 20);
    mq_close(q);
}

static volatile int told_code, told_value, told_count;

static void on_notify(int signo UNUSED, siginfo_t *info, void *context UNUSED)
{
    told_code = info->si_code;
    told_value = info->si_value.sival_int;
    told_count++;
    if (info->si_pid == 0)
        told_count += 100;
}

static void notifying(void)
{
    CASE("mq_notify");
    mqd_t q = MUST(mq_open(name, O_RDWR | O_CREAT, 0600, NULL));
    MUST(mq_unlink(name));
    handle_flags(SIGUSR2, on_notify, 0);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2, .sigev_value.sival_int = 42};
    SHOW(mq_notify(q, &event));
    SHOW(mq_notify(q, &event));
    pid_t child = CHILD(SHOW(mq_notify(q, &event)); SHOW(mq_notify(q, NULL)));
    reap("somebody else", child);
    char text[200] = "";
    lseek(q, 0, SEEK_SET);
    MUST(read(q, text, 40));
    say("%.40s", text);
    SHOW(mq_send(q, "one", 3, 0));
    say("told %d times, code %d, value %d", told_count, told_code, told_value);
    SHOW(mq_send(q, "two", 3, 0));
    say("told %d times", told_count);
    SHOW(mq_notify(q, &event));
    SHOW(mq_send(q, "three", 5, 0));
    say("told %d times: the queue was not empty", told_count);
    SHOW(mq_notify(q, NULL));
    SHOW(mq_notify(q, NULL));
    for (int i = 0; i < 3; i++)
        take("drain", q, 8192);
    event.sigev_notify = SIGEV_NONE;
    SHOW(mq_notify(q, &event));
    SHOW(mq_send(q, "none", 4, 0));
    event.sigev_notify = SIGEV_SIGNAL;
    SHOW(mq_notify(q, &event));
    take("drain", q, 8192);
    mqd_t other = MUST(dup(q));
    MUST(close(other));
    SHOW(mq_send(q, "closed one", 10, 0));
    say("told %d times: closing any descriptor ends it", told_count);
    take("drain", q, 8192);
    event.sigev_signo = 65;
    SHOW(mq_notify(q, &event));
    event.sigev_signo = 0;
    SHOW(mq_notify(q, &event));
    event.sigev_notify = 77;
    SHOW(mq_notify(q, &event));
    SHOW(syscall(SYS_mq_notify, q, BAD));
    SHOW(mq_notify(0x7000, NULL));
    SHOW(mq_notify(q, NULL));
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGUSR2;
    struct gate up = gate_make();
    child = CHILD(gate_open(up); char data[8192]; _exit(code_of(mq_receive(q, data, 8192, NULL))));
    gate_wait(up);
    usleep(20000);
    SHOW(mq_notify(q, &event));
    SHOW(mq_send(q, "for the reader", 14, 0));
    reap("reader", child);
    say("told %d times: a reader was waiting", told_count);
    mq_close(q);
}

static void show_cookie(const char *what, int sock)
{
    unsigned char data[40] = {0};
    struct sockaddr_nl from = {0};
    socklen_t size = sizeof from;
    ssize_t got = recvfrom(sock, data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
    if (got == -1)
        say("%s: %s", what, error_name(errno));
    else
        say("%s: %zd bytes, %.20s, code %d, from family %d, port %u", what, got, (char *)data, data[31], from.nl_family,
            from.nl_pid);
}

/* What the C library makes SIGEV_THREAD of: the kernel sends a cookie to a netlink socket. */
static void cookies(void)
{
    CASE("mq_notify, SIGEV_THREAD");
    mqd_t q = MUST(mq_open(name, O_RDWR | O_CREAT, 0600, NULL));
    MUST(mq_unlink(name));
    int sock = (int)MUST(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0)), pair[2], file = (int)MUST(open("/dev/null", O_RDWR));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    char cookie[32] = "a cookie";
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_signo = sock, .sigev_value.sival_ptr = cookie};
    SHOW(syscall(SYS_mq_notify, q, &event));
    SHOW(syscall(SYS_mq_notify, q, &event));
    struct pollfd p = {sock, POLLIN | POLLOUT, 0};
    say("poll %d, %#x", poll(&p, 1, 0), p.revents);
    show_cookie("nothing yet", sock);
    char text[200] = "";
    lseek(q, 0, SEEK_SET);
    MUST(read(q, text, 40));
    say("%.40s", text);
    SHOW(mq_send(q, "one", 3, 0));
    say("poll %d, %#x", poll(&p, 1, 0), p.revents);
    show_cookie("a message", sock);
    show_cookie("once", sock);
    take("drain", q, 8192);
    SHOW(syscall(SYS_mq_notify, q, &event));
    SHOW(syscall(SYS_mq_notify, q, NULL));
    show_cookie("removed", sock);
    SHOW(syscall(SYS_mq_notify, q, &event));
    mqd_t other = MUST(dup(q));
    MUST(close(other));
    show_cookie("a descriptor closed", sock);
    reap("child", CHILD(MUST(syscall(SYS_mq_notify, q, &event))));
    show_cookie("registrant gone", sock);
    event.sigev_value.sival_ptr = BAD;
    SHOW(syscall(SYS_mq_notify, q, &event));
    event.sigev_value.sival_ptr = cookie;
    event.sigev_signo = -1;
    SHOW(syscall(SYS_mq_notify, q, &event));
    event.sigev_signo = file;
    SHOW(syscall(SYS_mq_notify, q, &event));
    event.sigev_signo = pair[0];
    SHOW(syscall(SYS_mq_notify, q, &event));
    event.sigev_signo = sock;
    SHOW(syscall(SYS_mq_notify, file, &event));
    show_cookie("nothing", sock);
    SHOW(syscall(SYS_mq_notify, q, &event));
    MUST(close(sock));
    SHOW(mq_send(q, "to nobody", 9, 0));
    close(file), close(pair[0]), close(pair[1]);
    mq_close(q);
}

static sem_t called;
static int called_with;

static void on_thread(union sigval value)
{
    called_with = value.sival_int;
    sem_post(&called);
}

static void threads(void)
{
    CASE("mq_notify by a thread");
    mqd_t q = MUST(mq_open(name, O_RDWR | O_CREAT, 0600, NULL));
    MUST(mq_unlink(name));
    MUST(sem_init(&called, 0, 0));
    struct sigevent event = {
        .sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_thread, .sigev_value.sival_int = 7};
    SHOW(mq_notify(q, &event));
    SHOW(mq_notify(q, &event));
    SHOW(mq_notify(q, NULL));
    for (int i = 0; i < 3; i++) {
        event.sigev_value.sival_int = i;
        SHOW(mq_notify(q, &event));
        SHOW(mq_send(q, "thread", 6, 0));
        MUST(sem_wait(&called));
        say("called with %d", called_with);
        take("drain", q, 8192);
    }
    mq_close(q);
}

static void show_name(const char *what, int sock)
{
    struct sockaddr_nl a = {0};
    socklen_t size = sizeof a;
    MUST(getsockname(sock, (struct sockaddr *)&a, &size));
    say("%s: family %d, %d bytes, port %s", what, a.nl_family, (int)size,
        !a.nl_pid ? "none" : a.nl_pid == (unsigned)getpid() ? "mine" : a.nl_pid >> 31 ? "negative" : "other");
}

static void netlink(void)
{
    CASE("netlink sockets");
    SHOW(socket(AF_NETLINK, SOCK_STREAM, 0));
    SHOW(socket(AF_NETLINK, SOCK_RAW, 99));
    int a = (int)MUST(socket(AF_NETLINK, SOCK_RAW, 0)), b = (int)MUST(socket(AF_NETLINK, SOCK_DGRAM, 0));
    show_name("unbound", a);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    struct sockaddr *at = (struct sockaddr *)&address;
    SHOW(bind(a, at, 11));
    SHOW(bind(a, at, sizeof address));
    show_name("bound", a);
    SHOW(bind(a, at, sizeof address));
    address.nl_pid = (unsigned)getpid();
    SHOW(bind(a, at, sizeof address));
    SHOW(bind(b, at, sizeof address));
    address.nl_pid = 0;
    SHOW(bind(b, at, sizeof address));
    show_name("the second", b);
    address.nl_family = AF_UNIX;
    SHOW(bind(b, at, sizeof address));
    SHOW(listen(a, 1));
    SHOW(accept(a, NULL, NULL));
    SHOW(shutdown(a, SHUT_RDWR));
    SHOW(recv(a, &address, 1, MSG_OOB));
    SHOW(recv(a, &address, 1, MSG_DONTWAIT));
    int pair[2];
    SHOW(socketpair(AF_NETLINK, SOCK_RAW, 0, pair));
    close(a), close(b);
}

int main(void)
{
    sprintf(name, "/guest-%d", getpid());
    strcpy(raw_name, name + 1);
    umask(022);
    opening();
    attributes();
    messages();
    sleeping();
    notifying();
    cookies();
    threads();
    netlink();
    return 0;
}
