/* /proc/PID/io and /proc/PID/task/TID/io: which calls count, for whom, and what is left of who has ended. */
#include "check.h"

#include <pthread.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct io {
    long bytes[2], calls[2];
};

static int file;

static struct io now(const char *path)
{
    static char text[512];
    struct io io;
    int fd = MUST(open(path, O_RDONLY));
    ssize_t got = MUST(pread(fd, text, sizeof text - 1, 0));
    close(fd);
    text[got] = 0;
    NEED(sscanf(text, "rchar: %ld wchar: %ld syscr: %ld syscw: %ld", io.bytes, io.bytes + 1, io.calls,
                io.calls + 1) == 4);
    return io;
}

/* Looking is a read, too. */
static void compare(const char *what, const char *path, struct io before)
{
    struct io after = now(path);
    say("%s: %ld reads, %ld bytes in %ld writes", what, after.calls[0] - before.calls[0] - 1,
        after.bytes[1] - before.bytes[1], after.calls[1] - before.calls[1]);
}

static const char own[] = "/proc/self/io";

#define COUNTED(...)                                                  \
    do {                                                              \
        struct io before_ = now(own);                                 \
        const char *error_ = (__VA_ARGS__) == -1 ? error_name(errno) : "ok"; \
        compare(error_, own, before_);                                \
        say("  that was %s", #__VA_ARGS__);                           \
    } while (0)

static void *reads(void *arg)
{
    char path[64], data[10];
    snprintf(path, sizeof path, "/proc/self/task/%d/io", gettid());
    struct io before = now(path);
    for (int i = 0; i < 7; i++)
        MUST(pread(file, data, sizeof data, 0));
    MUST(pwrite(file, data, 9, 0));
    compare(arg, path, before);
    return NULL;
}

int main(void)
{
    char data[100] = "";
    int p[2], s[2];
    struct iovec parts[2] = {{data, 3}, {data + 3, 4}};
    scratch();
    signal(SIGPIPE, SIG_IGN);
    file = MUST(open("file", O_RDWR | O_CREAT, 0600));
    int reader = MUST(open("file", O_RDONLY)), directory = MUST(open(".", O_RDONLY));
    int copy = MUST(open("copy", O_RDWR | O_CREAT, 0600));
    MUST(pipe2(p, O_NONBLOCK));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    CASE("calls");
    COUNTED(write(file, data, 100));
    COUNTED(pwrite(file, data, 30, 10));
    COUNTED(read(file, data, 10));
    COUNTED(pread(file, data, 10, 0));
    COUNTED(pread(file, data, 10, 1000));
    COUNTED(readv(file, parts, 2));
    COUNTED(writev(file, parts, 2));
    COUNTED(preadv(file, parts, 2, 0));
    COUNTED(pwritev(file, parts, 2, 0));
    COUNTED(preadv2(file, parts, 2, 0, 0));
    COUNTED(pwritev2(file, parts, 2, 0, 0));
    COUNTED(write(p[1], data, 5));
    COUNTED(read(p[0], data, 5));
    COUNTED(read(p[0], data, 5));
    COUNTED(write(s[0], data, 6));
    COUNTED(read(s[1], data, 6));
    COUNTED(send(s[0], data, 6, 0));
    COUNTED(recv(s[1], data, 6, 0));
    COUNTED(sendfile(copy, file, &(off_t){0}, 20));
    COUNTED(copy_file_range(reader, &(off_t){0}, copy, &(off_t){50}, 20, 0));
    COUNTED(lseek(file, 0, SEEK_SET));
    CASE("failures");
    COUNTED(read(-1, data, 1));
    COUNTED(readv(-1, parts, 2));
    COUNTED(write(reader, data, 1));
    COUNTED(writev(reader, parts, 2));
    COUNTED(read(directory, data, 1));
    COUNTED(read(file, BAD, 1));
    COUNTED(pread(file, data, 1, -1));
    COUNTED(write(file, BAD, 1));
    COUNTED(write(file, data, 0));
    COUNTED(read(file, data, 0));
    close(p[0]);
    COUNTED(write(p[1], data, 1));
    close(s[1]);
    COUNTED(write(s[0], data, 1));
    CASE("threads and children");
    struct io before = now(own);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        NEED(pthread_create(threads + i, NULL, reads, "thread") == 0);
        NEED(pthread_join(threads[i], NULL) == 0);
    }
    struct io after = now(own);
    SHOW_IF(after.calls[0] - before.calls[0] >= 14);
    before = now(own);
    pid_t pid = CHILD(for (int i = 0; i < 50; i++) MUST(pwrite(file, data, 20, 0)));
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
    compare("before it is waited for", own, before);
    reap("child", pid);
    compare("then", own, before);
    pid = CHILD({
        struct io mine = now(own);
        say("a new process: %ld reads, %ld writes", mine.calls[0], mine.calls[1]);
    });
    reap("child", pid);
    return 0;
}
