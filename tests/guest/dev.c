/* The devices of /dev: null zero full random urandom tty, and /dev/fd. */
#include "check.h"

#include <sys/ioctl.h>
#include <sys/sysmacros.h>

static void identity(const char *path)
{
    struct stat st;
    if (stat(path, &st) == -1)
        say("%s: %s", path, error_name(errno));
    else
        say("%s: %o %d:%d", path, st.st_mode, major(st.st_rdev), minor(st.st_rdev));
}

int main(void)
{
    char text[64], other[64];
    memset(text, 'x', sizeof text);
    CASE("identities");
    identity("/dev/null");
    identity("/dev/zero");
    identity("/dev/full");
    identity("/dev/random");
    identity("/dev/urandom");
    identity("/dev/tty");
    CASE("null");
    int fd = MUST(open("/dev/null", O_RDWR));
    SHOW(read(fd, text, 10));
    SHOW(write(fd, text, 10));
    SHOW(write(fd, BAD, 10));
    SHOW(lseek(fd, 100, SEEK_SET));
    SHOW(lseek(fd, 0, SEEK_CUR));
    SHOW(pread(fd, text, 10, 5));
    SHOW(ftruncate(fd, 0));
    SHOW(fsync(fd));
    SHOW(ioctl(fd, TCGETS, other));
    SHOW(open("/dev/null", O_WRONLY | O_TRUNC | O_CREAT, 0644));
    SHOW(open("/dev/null", O_RDONLY | O_DIRECTORY));
    CASE("zero");
    fd = MUST(open("/dev/zero", O_RDWR));
    SHOW(read(fd, text, 10));
    say("%d %d %c", text[0], text[9], text[10]);
    SHOW(write(fd, text, 10));
    SHOW(read(fd, BAD, 10));
    SHOW(pread(fd, text, 64, 1000));
    CASE("full");
    fd = MUST(open("/dev/full", O_RDWR));
    SHOW(write(fd, text, 10));
    SHOW(write(fd, text, 0));
    SHOW(read(fd, text, 10));
    CASE("random");
    fd = MUST(open("/dev/urandom", O_RDONLY));
    SHOW(read(fd, text, 32));
    SHOW(read(fd, other, 32));
    SHOW_IF(memcmp(text, other, 32) != 0);
    static char large[100000];
    SHOW(read(fd, large, sizeof large));
    fd = MUST(open("/dev/random", O_RDONLY));
    SHOW(read(fd, text, 16));
    SHOW(read(fd, BAD, 16));
    SHOW(syscall(SYS_getrandom, text, 64, 0));
    SHOW(syscall(SYS_getrandom, text, 64, 1));
    SHOW(syscall(SYS_getrandom, text, 64, 8));
    SHOW(syscall(SYS_getrandom, BAD, 64, 0));
    SHOW(syscall(SYS_getrandom, text, 0, 0));
    CASE("tty without a terminal");
    reap("session", CHILD(setsid(); SHOW(open("/dev/tty", O_RDWR))));
    CASE("/dev/fd and friends");
    scratch();
    put_file("file", "by number", 0644);
    fd = MUST(open("file", O_RDONLY));
    snprintf(text, sizeof text, "/dev/fd/%d", fd);
    show_file(text);
    snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
    show_file(text);
    SHOW(open("/dev/fd/99", O_RDONLY));
    CASE("/dev/shm");
    fd = open("/dev/shm/guest-test", O_RDWR | O_CREAT, 0600);
    SHOW_IF(fd >= 0);
    SHOW(unlink("/dev/shm/guest-test"));
    return 0;
}
