/* Advisory locks: POSIX record locks, open file description locks, flock(2). */
#include "check.h"

#include <sys/file.h>

static long lock(int fd, int command, int type, long start, long size)
{
    struct flock request = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = size};
    return fcntl(fd, command, &request);
}

static void query(const char *what, int fd, int type, long start, long size, pid_t owner)
{
    struct flock request = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = size};
    if (fcntl(fd, F_GETLK, &request) == -1)
        say("%s: %s", what, error_name(errno));
    else if (request.l_type == F_UNLCK)
        say("%s: free", what);
    else
        say("%s: %s %ld+%ld by %s", what, request.l_type == F_RDLCK ? "read" : "write", (long)request.l_start,
            (long)request.l_len, request.l_pid == owner ? "the owner" : "another");
}

int main(void)
{
    scratch();
    pid_t us = getpid();
    int fd = MUST(open("file", O_RDWR | O_CREAT, 0644));
    struct gate gate = gate_make(), ready = gate_make();
    CASE("record locks");
    SHOW(lock(fd, F_SETLK, F_WRLCK, 0, 10));
    SHOW(lock(fd, F_SETLK, F_RDLCK, 20, 10));
    query("own lock", fd, F_WRLCK, 0, 10, us);
    reap("child", CHILD({
        int other = MUST(open("file", O_RDWR));
        SHOW(lock(other, F_SETLK, F_RDLCK, 5, 1));
        SHOW(lock(other, F_SETLK, F_RDLCK, 25, 1));
        SHOW(lock(other, F_SETLK, F_WRLCK, 25, 1));
        SHOW(lock(other, F_SETLK, F_WRLCK, 10, 10));
        query("0", other, F_RDLCK, 0, 1, us);
        query("whole", other, F_WRLCK, 0, 0, us);
        query("behind", other, F_WRLCK, 30, 0, us);
    }));
    CASE("splitting and merging");
    SHOW(lock(fd, F_SETLK, F_UNLCK, 4, 2));
    reap("child", CHILD(query("0", fd, F_WRLCK, 0, 0, us); query("5", fd, F_WRLCK, 5, 0, us);
                        query("4", fd, F_WRLCK, 4, 2, us)));
    SHOW(lock(fd, F_SETLK, F_RDLCK, 0, 30));
    reap("child", CHILD(query("all", fd, F_WRLCK, 0, 0, us)));
    CASE("closing any descriptor of the file drops the locks");
    int other = MUST(open("file", O_RDONLY));
    close(other);
    reap("child", CHILD(query("all", fd, F_WRLCK, 0, 0, us)));
    CASE("waiting");
    MUST(lock(fd, F_SETLK, F_WRLCK, 0, 0));
    pid_t pid = CHILD(gate_open(ready); SHOW(lock(fd, F_SETLKW, F_RDLCK, 0, 1)));
    gate_wait(ready);
    MUST(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    reap("child", pid);
    CASE("a dead owner's locks are gone");
    reap("owner", CHILD(MUST(lock(fd, F_SETLK, F_WRLCK, 0, 0))));
    SHOW(lock(fd, F_SETLK, F_WRLCK, 0, 0));
    CASE("deadlock");
    MUST(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    MUST(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    pid = CHILD(MUST(lock(fd, F_SETLK, F_WRLCK, 1, 1)); gate_open(ready);
                _exit(lock(fd, F_SETLKW, F_WRLCK, 0, 1) == 0 ? 1 : errno == EDEADLK ? 2 : 3));
    gate_wait(ready);
    long got = lock(fd, F_SETLKW, F_WRLCK, 1, 1);
    int error = errno;
    lock(fd, F_SETLK, F_UNLCK, 0, 0);
    int status;
    MUST(waitpid(pid, &status, 0));
    SHOW_IF((got == -1 && error == EDEADLK) != (WEXITSTATUS(status) == 2));
    CASE("errors");
    struct flock request = {.l_type = F_WRLCK, .l_whence = 77};
    SHOW(fcntl(fd, F_SETLK, &request));
    request = (struct flock){.l_type = 55};
    SHOW(fcntl(fd, F_SETLK, &request));
    SHOW(lock(fd, F_SETLK, F_WRLCK, -1, 1));
    SHOW(lock(fd, F_SETLK, F_WRLCK, 5, -10));
    SHOW(lock(fd, F_SETLK, F_WRLCK, 10, -5));
    SHOW(lock(99, F_SETLK, F_WRLCK, 0, 1));
    SHOW(fcntl(fd, F_SETLK, BAD));
    other = MUST(open("file", O_RDONLY));
    SHOW(lock(other, F_SETLK, F_WRLCK, 0, 1));
    close(other);
    other = MUST(open("file", O_WRONLY));
    SHOW(lock(other, F_SETLK, F_RDLCK, 0, 1));
    close(other);
    CASE("open file description locks");
    SHOW(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 1));
    other = MUST(open("file", O_RDWR));
    SHOW(lock(other, F_OFD_SETLK, F_WRLCK, 0, 1));
    SHOW(lock(other, F_SETLK, F_WRLCK, 0, 1));
    int same = MUST(dup(fd));
    SHOW(lock(same, F_OFD_SETLK, F_RDLCK, 0, 1));
    close(other);
    other = MUST(open("file", O_RDWR));
    SHOW(lock(other, F_OFD_SETLK, F_WRLCK, 0, 1));
    close(same);
    close(fd);
    SHOW(lock(other, F_OFD_SETLK, F_WRLCK, 0, 1));
    CASE("flock");
    fd = MUST(open("other", O_RDONLY | O_CREAT, 0644));
    int second = MUST(open("other", O_RDONLY));
    SHOW(flock(fd, LOCK_SH));
    SHOW(flock(second, LOCK_SH | LOCK_NB));
    SHOW(flock(second, LOCK_EX | LOCK_NB));
    SHOW(flock(fd, LOCK_UN));
    SHOW(flock(second, LOCK_EX | LOCK_NB));
    SHOW(flock(fd, LOCK_SH | LOCK_NB));
    reap("the child's copy is the same lock", CHILD(SHOW(flock(second, LOCK_EX | LOCK_NB));
                                                    SHOW(flock(fd, LOCK_EX | LOCK_NB))));
    SHOW(flock(second, 0));
    SHOW(flock(second, LOCK_MAND | LOCK_READ));
    SHOW(flock(99, LOCK_SH));
    pid = CHILD(close(second); gate_open(ready); SHOW(flock(fd, LOCK_EX)));
    gate_wait(ready);
    MUST(close(second));
    reap("waiter", pid);
    gate_close(gate);
    return 0;
}
