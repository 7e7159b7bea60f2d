/* Very many descriptors at once: closed by close_range(2), execve(2) and the end of a process, or left in messages. */
#include "check.h"

#include <sys/socket.h>
#include <sys/uio.h>

enum { MANY = 700, PER_MESSAGE = 200, MESSAGES = 5 };

/* Whether the writing end is closed by now: the last of many. */
static const char *ended(int fd)
{
    char byte;
    MUST(fcntl(fd, F_SETFL, O_NONBLOCK));
    return read(fd, &byte, 1) == 0 ? "closed" : error_name(errno);
}

/* Sockets, and behind them the only writing end of a pipe, whose reading end this is. */
static int many(int flags)
{
    int ends[2], first = -1;
    for (int i = 0; i < MANY; i++) {
        int fd = MUST(socket(AF_UNIX, SOCK_DGRAM | flags, 0));
        if (first < 0)
            first = fd;
    }
    MUST(pipe2(ends, flags & SOCK_CLOEXEC ? O_CLOEXEC : 0));
    MUST(fcntl(ends[0], F_SETFD, 0));
    return ends[0];
}

static void by_range(void)
{
    int fd = many(0);
    say("close_range = %d", close_range(fd + 2, ~0u, 0));
    say("behind: %s", ended(fd));
    say("close_range = %d", close_range(fd + 1, fd + 1, 0));
    say("the last: %s", ended(fd));
    say("marked = %d", close_range(3, ~0u, CLOSE_RANGE_CLOEXEC));
    int marked = 0, open = 0;
    for (int i = 3; i < fd + 10; i++) {
        int flags = fcntl(i, F_GETFD);
        open += flags >= 0;
        marked += flags == FD_CLOEXEC;
    }
    say("open %s, all marked %d", open >= MANY ? "many" : "few", open == marked);
    say("close_range = %d", close_range(3, ~0u, 0));
    open = 0;
    for (int i = 3; i < MANY + 10; i++)
        open += fcntl(i, F_GETFD) >= 0;
    say("left: %d", open);
}

/* Who is waited for has closed everything by then. */
static void by_exit(int how)
{
    int to[2], fd, status;
    MUST(pipe(to));
    pid_t pid = MUST(fork());
    if (pid == 0) {
        close(to[0]);
        many(0);
        MUST(dup(to[1])); /* the highest of all, and below the pipe's */
        close(to[1]);
        if (how == 1)
            raise(SIGKILL);
        if (how == 2)
            syscall(SYS_exit, 3);
        _exit(2);
    }
    close(to[1]);
    fd = to[0];
    MUST(waitpid(pid, &status, 0));
    say("status %x: %s", status, ended(fd));
    close(fd);
}

static void by_exec(char *self)
{
    char number[16];
    int status;
    pid_t pid = MUST(fork());
    if (pid == 0) {
        snprintf(number, sizeof number, "%d", many(SOCK_CLOEXEC));
        execl(self, self, number, (char *)NULL);
        _exit(9);
    }
    MUST(waitpid(pid, &status, 0));
    say("status %x", status);
}

static void send_files(int sock, const int *fds, int count)
{
    static char room[CMSG_SPACE(PER_MESSAGE * sizeof(int))] __attribute__((aligned(8)));
    struct iovec iov = {"x", 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room,
                         .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    MUST(sendmsg(sock, &msg, 0));
}

/* Nobody receives them; the pipe's end, which comes last, is closed in the end. */
static void in_messages(void)
{
    int two[2], ends[2], fds[PER_MESSAGE];
    char byte;
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, two));
    for (int i = 0; i < MESSAGES; i++) {
        for (int k = 0; k < PER_MESSAGE; k++)
            fds[k] = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
        send_files(two[0], fds, PER_MESSAGE);
        for (int k = 0; k < PER_MESSAGE; k++)
            close(fds[k]);
    }
    MUST(pipe(ends));
    send_files(two[0], ends + 1, 1);
    close(ends[1]);
    close(two[1]);
    say("read = %zd", read(ends[0], &byte, 1));
    close(two[0]);
    close(ends[0]);
}

static bool is_listed(unsigned long ino)
{
    char line[512], wanted[32];
    bool found = false;
    FILE *file = fopen("/proc/net/unix", "r");
    snprintf(wanted, sizeof wanted, " %lu", ino);
    while (fgets(line, sizeof line, file))
        found |= strstr(line, wanted) != NULL;
    fclose(file);
    return found;
}

/* Each pair is sent through itself and closed; all but one, which somebody still has, are found. */
static void in_circles(void)
{
    enum { PAIRS = 400 };
    int kept = -1;
    struct stat first, last;
    for (int i = 0; i < PAIRS; i++) {
        int two[2];
        MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, two));
        send_files(two[0], two, 2);
        if (i == 0 || i == PAIRS - 1)
            MUST(fstat(two[1], i ? &last : &first));
        if (i == PAIRS / 2)
            kept = two[1];
        else
            close(two[1]);
        close(two[0]);
    }
    for (int i = 0; i < 600 && (is_listed(first.st_ino) || is_listed(last.st_ino)); i++) {
        int two[2];
        MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, two));
        close(two[0]), close(two[1]);
        usleep(50000);
    }
    say("circles: %d %d", is_listed(first.st_ino), is_listed(last.st_ino));
    char byte, room[256] __attribute__((aligned(8)));
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    say("recvmsg = %zd", recvmsg(kept, &msg, 0));
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    say("%zu descriptors", c ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0);
    close(kept);
}

/* A long /proc/net/unix, in order or not, has each of them once; read by small pieces, and from the middle. */
static void listed(void)
{
    static char text[1 << 20];
    int fds[MANY], seen = 0, half = 0;
    size_t size = 0;
    for (int i = 0; i < MANY; i++)
        fds[i] = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    int fd = MUST(open("/proc/net/unix", O_RDONLY));
    for (long got; size < sizeof text - 1 && (got = read(fd, text + size, 500)) > 0;)
        size += got;
    for (int i = 0; i < MANY; i++) {
        struct stat st;
        char wanted[32];
        MUST(fstat(fds[i], &st));
        snprintf(wanted, sizeof wanted, " %lu\n", st.st_ino);
        char *at = strstr(text, wanted);
        seen += at != NULL;
        half += at != NULL && strstr(at + 1, wanted) == NULL;
        close(fds[i]);
    }
    say("seen %d, once %d, heading %d", seen, half, strncmp(text, "Num ", 4) == 0);
    say("pread = %d", pread(fd, text, 4, 0) == 4 && memcmp(text, "Num ", 4) == 0);
    say("at the end: %zd", pread(fd, text, 100, 1 << 30));
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        int open = 0, fd = atoi(argv[1]);
        for (int i = 3; i < fd + 10; i++)
            open += fcntl(i, F_GETFD) >= 0;
        say("left: %d, %s", open, ended(fd));
        return 7;
    }
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max;
    MUST(setrlimit(RLIMIT_NOFILE, &limit));
    by_range();
    for (int how = 0; how < 3; how++)
        by_exit(how);
    by_exec(argv[0]);
    in_messages();
    in_circles();
    listed();
    return 0;
}
