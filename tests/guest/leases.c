/* Leases (F_SETLEASE, F_GETLEASE) and record locks: deadlocks, OFD locks, seals of memfds. */
#include "check.h"
#include <sys/file.h>

static volatile int told, told_fd;

static void on_break(int signo UNUSED, siginfo_t *info, void *context UNUSED)
{
    told++;
    told_fd = info->si_fd;
}

static const char *kind_name(int kind)
{
    return kind == F_RDLCK ? "RDLCK" : kind == F_WRLCK ? "WRLCK" : kind == F_UNLCK ? "UNLCK" : error_name(errno);
}

static void taking(void)
{
    CASE("taking leases");
    put_file("f", "text", 0644);
    int r = MUST(open("f", O_RDONLY)), rw = MUST(open("f", O_RDWR));
    say("none: %s", kind_name(fcntl(r, F_GETLEASE)));
    SHOW(fcntl(r, F_SETLEASE, F_RDLCK));
    SHOW(fcntl(rw, F_SETLEASE, F_RDLCK));
    SHOW(fcntl(rw, F_SETLEASE, F_WRLCK));
    SHOW(fcntl(r, F_SETLEASE, F_UNLCK));
    MUST(close(r));
    SHOW(fcntl(rw, F_SETLEASE, F_WRLCK));
    say("held: %s", kind_name(fcntl(rw, F_GETLEASE)));
    SHOW(fcntl(rw, F_SETLEASE, F_UNLCK));
    SHOW(fcntl(rw, F_SETLEASE, F_UNLCK));
    SHOW(fcntl(rw, F_SETLEASE, 77));
    MUST(close(rw));
    r = MUST(open("f", O_RDONLY));
    SHOW(fcntl(r, F_SETLEASE, F_RDLCK));
    int again = MUST(open("f", O_RDONLY));
    say("another: %s", kind_name(fcntl(again, F_GETLEASE)));
    SHOW(fcntl(again, F_SETLEASE, F_RDLCK));
    SHOW(fcntl(again, F_SETLEASE, F_WRLCK));
    MUST(close(again));
    SHOW(fcntl(r, F_SETLEASE, F_WRLCK));
    say("raised: %s", kind_name(fcntl(r, F_GETLEASE)));
    SHOW(fcntl(r, F_SETLEASE, F_RDLCK));
    MUST(close(r));
    int d = MUST(open(".", O_RDONLY)), p[2];
    MUST(pipe(p));
    SHOW(fcntl(d, F_SETLEASE, F_RDLCK) == -1);
    SHOW(fcntl(p[0], F_SETLEASE, F_RDLCK));
    SHOW(fcntl(p[0], F_GETLEASE) == F_UNLCK);
}

static void breaking(void)
{
    CASE("breaking leases");
    handle_flags(SIGIO, on_break, 0);
    handle_flags(SIGRTMIN, on_break, 0);
    int r = MUST(open("f", O_RDONLY));
    MUST(fcntl(r, F_SETLEASE, F_RDLCK));
    SHOW_OK(close(open("f", O_RDONLY | O_NONBLOCK)));
    say("told %d", told);
    SHOW(open("f", O_WRONLY | O_NONBLOCK));
    say("told %d, breaking to %s", told, kind_name(fcntl(r, F_GETLEASE)));
    SHOW(open("f", O_WRONLY | O_NONBLOCK));
    say("told %d", told);
    MUST(fcntl(r, F_SETLEASE, F_UNLCK));
    MUST(fcntl(r, F_SETSIG, SIGRTMIN));
    MUST(fcntl(r, F_SETLEASE, F_RDLCK));
    struct gate up = gate_make();
    pid_t child = CHILD(close(r); gate_open(up); _exit(open("f", O_WRONLY) >= 0 ? 0 : errno));
    gate_wait(up);
    while (told < 2)
        usleep(1000);
    say("told %d, fd %s", told, told_fd == r ? "right" : "wrong");
    MUST(fcntl(r, F_SETLEASE, F_UNLCK));
    reap("opened", child);
    MUST(fcntl(r, F_SETLEASE, F_WRLCK));
    child = CHILD(close(r); _exit(truncate("f", 2) == 0 ? 0 : errno));
    while (told < 3)
        usleep(1000);
    SHOW(fcntl(r, F_SETLEASE, F_RDLCK));
    MUST(close(r));
    reap("truncated", child);
    int w = MUST(open("g", O_WRONLY | O_CREAT, 0644));
    SHOW(fcntl(w, F_SETLEASE, F_WRLCK));
    SHOW(open("g", O_RDONLY | O_NONBLOCK));
    say("told %d, breaking to %s", told, kind_name(fcntl(w, F_GETLEASE)));
    SHOW(fcntl(w, F_SETLEASE, F_UNLCK));
    SHOW_OK(open("g", O_RDONLY | O_NONBLOCK));
}

static int lock(int fd, int command, int type, long start, long length)
{
    struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(fd, command, &fl);
}

static void locks(void)
{
    CASE("locks");
    put_file("l", "0123456789", 0644);
    int fd = MUST(open("l", O_RDWR));
    SHOW(lock(fd, F_SETLK, F_WRLCK, 0, 5));
    struct gate up = gate_make(), down = gate_make();
    pid_t child = CHILD(SHOW(lock(fd, F_SETLK, F_WRLCK, 5, 5)); SHOW(lock(fd, F_SETLK, F_WRLCK, 0, 1)); gate_open(up);
                        gate_wait(down); _exit(lock(fd, F_SETLKW, F_WRLCK, 0, 1) == 0 ? 0 : errno));
    gate_wait(up);
    gate_open(down);
    usleep(30000);
    SHOW(lock(fd, F_SETLKW, F_WRLCK, 5, 1));
    SHOW(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    reap("the other", child);
    int one = MUST(open("l", O_RDWR)), two = MUST(open("l", O_RDWR));
    SHOW(lock(one, F_OFD_SETLK, F_WRLCK, 0, 3));
    SHOW(lock(two, F_OFD_SETLK, F_WRLCK, 2, 3));
    SHOW(lock(two, F_OFD_SETLK, F_RDLCK, 3, 3));
    SHOW(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    SHOW(fcntl(fd, F_GETLK, &fl));
    say("type %s start %ld len %ld pid %d", kind_name(fl.l_type), (long)fl.l_start, (long)fl.l_len, fl.l_pid);
    fl.l_pid = 1;
    SHOW(fcntl(one, F_OFD_GETLK, &fl));
    MUST(close(one));
    SHOW(lock(two, F_OFD_SETLK, F_WRLCK, 0, 3));
}

static void seals(void)
{
    CASE("seals");
    int fd = MUST(memfd_create("sealed", MFD_ALLOW_SEALING)), plain = MUST(memfd_create("plain", 0));
    SHOW(fcntl(plain, F_GET_SEALS));
    SHOW(fcntl(plain, F_ADD_SEALS, F_SEAL_GROW));
    SHOW(fcntl(fd, F_GET_SEALS));
    SHOW(fcntl(fd, F_ADD_SEALS, 0x8000));
    MUST(ftruncate(fd, 8192));
    char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK));
    map[0] = 'x';
    SHOW(write(fd, "y", 1));
    SHOW((long)mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    SHOW(ftruncate(fd, 100));
    SHOW(ftruncate(fd, 10000));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SEAL));
    SHOW(ftruncate(fd, 20000));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    SHOW(fcntl(fd, F_GET_SEALS));
    SHOW(fcntl(1, F_GET_SEALS));
}

int main(void)
{
    scratch();
    taking();
    breaking();
    locks();
    seals();
    return 0;
}
