/* splice, tee, vmsplice, sendfile, copy_file_range; sizes and packets of pipes; FIFO files. */
#include "check.h"
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef F_CREATED_QUERY
#define F_CREATED_QUERY 1028
#endif

static char buf[70000];

static void drain(const char *what, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    ssize_t got = read(fd, buf, sizeof buf - 1);
    fcntl(fd, F_SETFL, flags);
    if (got < 0)
        say("%s: %s", what, error_name(errno));
    else
        say("%s: %zd '%.*s'", what, got, got > 40 ? 40 : (int)got, buf);
}

static void splicing(void)
{
    CASE("splice");
    int p[2], q[2];
    MUST(pipe(p));
    MUST(pipe(q));
    put_file("f", "0123456789", 0644);
    int f = MUST(open("f", O_RDWR)), append = MUST(open("f", O_WRONLY | O_APPEND));
    SHOW(splice(f, NULL, p[1], NULL, 4, 0));
    loff_t at = 6;
    SHOW(splice(f, &at, p[1], NULL, 100, 0));
    say("offset %ld, position %ld", (long)at, (long)lseek(f, 0, SEEK_CUR));
    SHOW(splice(p[0], NULL, q[1], NULL, 5, 0));
    drain("moved", q[0]);
    at = 8;
    int other = MUST(open("other", O_RDWR | O_CREAT, 0600));
    SHOW(splice(p[0], NULL, other, &at, 100, SPLICE_F_MOVE | SPLICE_F_MORE));
    say("offset %ld", (long)at);
    SHOW(pread(other, buf, 20, 8));
    say("%.3s", buf);
    SHOW(splice(p[0], NULL, q[1], NULL, 5, SPLICE_F_NONBLOCK));
    SHOW(splice(f, NULL, p[1], NULL, 0, 0));
    loff_t last = 0x7ffffffffffffffe;
    MUST(write(p[1], "12345", 5));
    SHOW(splice(p[0], NULL, other, &last, 3, 0));
    SHOW(splice(f, &last, p[1], NULL, 3, 0));
    SHOW(splice(p[0], NULL, other, NULL, -1, 0));
    SHOW(sendfile(other, f, &last, 3));
    SHOW(sendfile(other, f, NULL, -1));
    SHOW(read(p[0], buf, 5));
    SHOW(splice(f, NULL, p[1], NULL, 1, 16));
    SHOW(splice(f, NULL, f, NULL, 1, 0));
    SHOW(splice(p[0], NULL, p[1], NULL, 1, 0));
    SHOW(splice(p[1], NULL, q[1], NULL, 1, 0));
    SHOW(splice(p[0], NULL, q[0], NULL, 1, 0));
    SHOW(splice(p[0], &at, q[1], NULL, 1, 0));
    SHOW(splice(p[0], NULL, q[1], &at, 1, 0));
    SHOW(splice(p[0], NULL, append, NULL, 1, 0));
    SHOW(splice(-1, NULL, p[1], NULL, 1, 0));
    SHOW(splice(f, BAD, p[1], NULL, 1, 0));
    at = -1;
    SHOW(splice(f, &at, p[1], NULL, 1, 0));
    at = 1000;
    SHOW(splice(f, &at, p[1], NULL, 1, 0));
    MUST(close(q[0]));
    MUST(write(p[1], "x", 1));
    signal(SIGPIPE, SIG_IGN);
    SHOW(splice(p[0], NULL, q[1], NULL, 1, 0));
    drain("not taken", p[0]);
    MUST(close(p[1]));
    MUST(pipe(q));
    SHOW(splice(p[0], NULL, q[1], NULL, 1, 0));
}

/* What could not be moved stands in front again, and the pipe takes no less than before. */
/* What has no position gives what one read gives: a line of a terminal. */
static void one_read(void)
{
    CASE("one read");
    int p[2], master = MUST(posix_openpt(O_RDWR | O_NOCTTY));
    MUST(pipe(p));
    MUST(grantpt(master));
    MUST(unlockpt(master));
    int slave = MUST(open(ptsname(master), O_RDWR | O_NOCTTY));
    struct pollfd pfd = {slave, POLLIN, 0};
    MUST(write(master, "one\ntwo\n\4three\n", 15));
    MUST(poll(&pfd, 1, -1));
    usleep(50000);
    SHOW(splice(slave, NULL, p[1], NULL, 100, 0));
    SHOW(splice(slave, NULL, p[1], NULL, 100, 0));
    SHOW(splice(slave, NULL, p[1], NULL, 100, 0));
    SHOW(splice(slave, NULL, p[1], NULL, 100, 0));
    drain("lines", p[0]);
    int counter = MUST(eventfd(5, EFD_SEMAPHORE | EFD_NONBLOCK));
    SHOW(splice(counter, NULL, p[1], NULL, 64, 0));
    MUST(write(p[1], buf, 8));
    SHOW(splice(p[0], NULL, counter, NULL, 8, 0));
    close(slave);
    close(master);
    close(counter);
    close(p[0]);
    close(p[1]);
}

static void put_back(void)
{
    CASE("put back");
    static char page[4096];
    int p[2], s[2], sum = 0;
    MUST(pipe(p));
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s));
    while (write(s[0], page, sizeof page) > 0)
        ;
    MUST(write(p[1], "front", 5));
    SHOW(splice(p[0], NULL, s[0], NULL, 5, SPLICE_F_NONBLOCK));
    MUST(fcntl(p[1], F_SETFL, O_NONBLOCK));
    for (int i = 1; i < 40; i++) {
        memset(page, i, sizeof page);
        if (write(p[1], page, sizeof page) < 0)
            break;
        sum += i;
    }
    say("filled: %s", error_name(errno));
    ssize_t got = read(p[0], buf, sizeof buf);
    say("%zd '%.5s', %s", got, buf, got > 5 && buf[5] == 1 && buf[got - 1] == 15 && sum == 120 ? "in order" : "mixed");
}

static void teeing(void)
{
    CASE("tee");
    int p[2], q[2];
    MUST(pipe(p));
    MUST(pipe(q));
    SHOW(tee(p[0], q[1], 10, SPLICE_F_NONBLOCK));
    MUST(write(p[1], "hello", 5));
    SHOW(tee(p[0], q[1], 3, 0));
    SHOW(tee(p[0], q[1], 100, 0));
    drain("copies", q[0]);
    drain("still there", p[0]);
    SHOW(tee(p[0], p[1], 1, 0));
    int f = MUST(open("f", O_RDWR));
    SHOW(tee(p[0], f, 1, 0));
    MUST(close(f));
    SHOW(tee(p[1], q[1], 1, 0));
    SHOW(tee(p[0], q[1], 1, 32));
    SHOW(tee(p[0], q[1], 0, 0));
    MUST(close(p[1]));
    SHOW(tee(p[0], q[1], 1, 0));
}

static void vmsplicing(void)
{
    CASE("vmsplice");
    int p[2], f = MUST(open("f", O_RDWR | O_CREAT, 0644));
    MUST(pipe(p));
    struct iovec iov[3] = {{"abc", 3}, {"", 0}, {"defgh", 5}};
    SHOW(vmsplice(p[1], iov, 3, 0));
    SHOW(vmsplice(p[1], iov, 0, 0));
    drain("both", p[0]);
    SHOW(vmsplice(p[1], iov, 1, SPLICE_F_GIFT));
    iov[0] = (struct iovec){buf, 2};
    iov[1] = (struct iovec){buf + 10, 5};
    SHOW(vmsplice(p[0], iov, 2, 0));
    say("%.2s %.1s", buf, buf + 10);
    SHOW(vmsplice(p[0], iov, 2, SPLICE_F_NONBLOCK));
    SHOW(vmsplice(f, iov, 1, 0));
    SHOW(vmsplice(-1, iov, 1, 0));
    SHOW(vmsplice(p[1], iov, 1, 16));
    SHOW(vmsplice(p[1], iov, 1025, 0));
    SHOW(vmsplice(p[1], BAD, 1, 0));
    iov[0] = (struct iovec){BAD, 5};
    SHOW(vmsplice(p[1], iov, 1, 0));
    iov[0] = (struct iovec){"x", 1};
    MUST(close(p[0]));
    SHOW(vmsplice(p[1], iov, 1, 0));
}

static void sending(void)
{
    CASE("sendfile, copy_file_range");
    int p[2];
    MUST(pipe(p));
    put_file("f", "0123456789", 0644);
    put_file("g", "", 0644);
    int f = MUST(open("f", O_RDWR)), g = MUST(open("g", O_RDWR)), ro = MUST(open("g", O_RDONLY));
    off_t at = 3;
    SHOW(sendfile(p[1], f, &at, 4));
    say("offset %ld position %ld", (long)at, (long)lseek(f, 0, SEEK_CUR));
    drain("sent", p[0]);
    SHOW(sendfile(g, f, NULL, 6));
    SHOW(sendfile(g, f, NULL, 100));
    SHOW(sendfile(g, f, NULL, 100));
    show_file("g");
    SHOW(sendfile(p[1], p[0], NULL, 1));
    SHOW(sendfile(ro, f, NULL, 1));
    SHOW(sendfile(-1, f, NULL, 1));
    SHOW(sendfile(g, f, BAD, 1));
    at = -1;
    SHOW(sendfile(g, f, &at, 1));
    loff_t in = 2, to = 20;
    SHOW(copy_file_range(f, &in, g, &to, 5, 0));
    say("%ld %ld", (long)in, (long)to);
    SHOW(copy_file_range(f, &in, f, &to, 0, 0));
    in = 0, to = 2;
    SHOW(copy_file_range(f, &in, f, &to, 5, 0));
    to = 5;
    SHOW(copy_file_range(f, &in, f, &to, 5, 0));
    show_file("f");
    SHOW(copy_file_range(f, NULL, g, NULL, 5, 1));
    SHOW(copy_file_range(f, NULL, ro, NULL, 5, 0));
    SHOW(copy_file_range(p[0], NULL, g, NULL, 5, 0));
    int dir = MUST(open(".", O_RDONLY));
    SHOW(copy_file_range(dir, NULL, g, NULL, 5, 0));
    in = 1000;
    SHOW(copy_file_range(f, &in, g, NULL, 5, 0));
}

static void sizes(void)
{
    CASE("sizes of pipes");
    int p[2];
    MUST(pipe2(p, O_NONBLOCK));
    SHOW(fcntl(p[0], F_GETPIPE_SZ));
    SHOW(fcntl(p[1], F_SETPIPE_SZ, 5000));
    SHOW(fcntl(p[0], F_SETPIPE_SZ, 1));
    SHOW(write(p[1], buf, 5000));
    SHOW(write(p[1], buf, 1));
    SHOW(fcntl(p[0], F_SETPIPE_SZ, 65536));
    SHOW(write(p[1], buf, 60000));
    SHOW(fcntl(p[0], F_SETPIPE_SZ, 4096));
    SHOW(fcntl(p[0], F_SETPIPE_SZ, 0x80000001));
    int f = MUST(open("f", O_RDONLY)), n = -1;
    SHOW(fcntl(f, F_GETPIPE_SZ));
    SHOW(ioctl(p[0], FIONREAD, &n));
    say("%d bytes", n);
    CASE("packets");
    int q[2];
    MUST(pipe2(q, O_DIRECT | O_NONBLOCK));
    SHOW(write(q[1], "first", 5));
    SHOW(write(q[1], "second", 6));
    SHOW(read(q[0], buf, 2));
    drain("the next packet", q[0]);
    SHOW(fcntl(q[1], F_GETFL) & O_DIRECT ? 1 : 0);
    SHOW(pipe2(q, O_APPEND));
    SHOW(pipe2(BAD, 0));
}

static void on_alarm(int signo UNUSED, siginfo_t *info UNUSED, void *context UNUSED)
{
}

/* A file that is sent to its own end gets longer, a byte at a time: a signal ends that. */
static void sending_to_itself(void)
{
    CASE("sendfile to itself");
    int fd = MUST(memfd_create("itself", 0));
    MUST(write(fd, "x", 1));
    off_t at = 0;
    handle_flags(SIGALRM, on_alarm, SA_RESTART);
    struct itimerval soon = {{0, 0}, {0, 50000}};
    MUST(setitimer(ITIMER_REAL, &soon, NULL));
    long sent = sendfile(fd, fd, &at, 1 << 30);
    SHOW_IF(sent > 0 && sent < 1 << 30 && at == sent && lseek(fd, 0, SEEK_END) == sent + 1);
    MUST(ftruncate(fd, 1));
    MUST(lseek(fd, 1, SEEK_SET));
    struct gate there = gate_make();
    pid_t pid = CHILD({
        gate_open(there);
        at = 0;
        sendfile(fd, fd, &at, 1 << 30);
    });
    gate_wait(there);
    MUST(kill(pid, SIGKILL));
    reap("killed", pid);
    close(fd), gate_close(there);
}

static void *open_reader(void *path)
{
    int fd = open(path, O_RDONLY);
    return (void *)(intptr_t)fd;
}

static void fifos(void)
{
    CASE("FIFO files");
    MUST(mkfifo("fifo", 0600));
    SHOW(open("fifo", O_WRONLY | O_NONBLOCK));
    int r = MUST(open("fifo", O_RDONLY | O_NONBLOCK));
    SHOW(read(r, buf, 1));
    struct pollfd pfd = {r, POLLIN, 0};
    say("poll %d %x", poll(&pfd, 1, 0), pfd.revents);
    int w = MUST(open("fifo", O_WRONLY | O_NONBLOCK));
    SHOW(read(r, buf, 1));
    MUST(write(w, "hi", 2));
    say("poll %d %x", poll(&pfd, 1, 0), pfd.revents);
    MUST(close(w));
    drain("left", r);
    say("poll %d %x", poll(&pfd, 1, 0), pfd.revents);
    MUST(close(r));
    int both = MUST(open("fifo", O_RDWR));
    MUST(write(both, "self", 4));
    drain("own", both);
    MUST(close(both));
    pthread_t thread;
    MUST(pthread_create(&thread, NULL, open_reader, "fifo") ? -1 : 0);
    w = MUST(open("fifo", O_WRONLY));
    void *result;
    pthread_join(thread, &result);
    MUST(write(w, "met", 3));
    drain("met", (int)(intptr_t)result);
    SHOW(lseek(w, 0, SEEK_SET));
    SHOW(fcntl(w, F_CREATED_QUERY, 0) == 0 || errno == EINVAL);
    int made = MUST(open("made", O_WRONLY | O_CREAT, 0600)), old = MUST(open("made", O_WRONLY | O_CREAT, 0600));
    SHOW(fcntl(made, F_CREATED_QUERY, 0) > fcntl(old, F_CREATED_QUERY, 0) || errno == EINVAL);
}

int main(void)
{
    scratch();
    splicing();
    one_read();
    put_back();
    teeing();
    vmsplicing();
    sending();
    sending_to_itself();
    sizes();
    fifos();
    return 0;
}
