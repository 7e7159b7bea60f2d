/* Opening the two sides: locks, flags, exclusive use, the files' attributes, what a terminal can't
 * do. */
#include "tty.h"

#include <sys/statfs.h>
#include <sys/sysmacros.h>

static void locks(void)
{
    int lock = 1;
    CASE("the lock");
    int m = MUST(posix_openpt(O_RDWR | O_NOCTTY));
    char name[64];
    MUST(ptsname_r(m, name, sizeof name));
    SHOW(ioctl(m, TIOCGPTLCK, &lock));
    say("%d", lock);
    SHOW(open(name, O_RDWR | O_NOCTTY));
    SHOW(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY));
    lock = 0;
    SHOW(ioctl(m, TIOCSPTLCK, &lock));
    int s = MUST(open(name, O_RDWR | O_NOCTTY));
    lock = 77;
    SHOW(ioctl(m, TIOCSPTLCK, &lock));
    SHOW(ioctl(m, TIOCGPTLCK, &lock));
    say("%d", lock);
    SHOW(open(name, O_RDWR | O_NOCTTY));
    SHOW(ioctl(s, TIOCSPTLCK, &lock));
    SHOW(ioctl(s, TIOCGPTLCK, &lock));
    SHOW(ioctl(s, TIOCGPTN, &lock));
    SHOW(ioctl(m, TIOCSPTLCK, BAD));
    SHOW(ioctl(m, TIOCGPTN, BAD));
    close(s);
    close(m);
    SHOW(open(name, O_RDWR | O_NOCTTY));
}

static void peers(void)
{
    CASE("TIOCGPTPEER");
    int m = MUST(posix_openpt(O_RDWR | O_NOCTTY));
    MUST(unlockpt(m));
    int s = MUST(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    SHOW(fcntl(s, F_GETFD));
    SHOW_IF((fcntl(s, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_RDWR | O_NONBLOCK));
    char expected[64], got[64] = "";
    MUST(ptsname_r(m, expected, sizeof expected));
    SHOW(ttyname_r(s, got, sizeof got));
    SHOW_IF(strcmp(got, expected) == 0);
    int r = MUST(ioctl(m, TIOCGPTPEER, O_RDONLY | O_NOCTTY));
    SHOW(write(r, "x", 1));
    SHOW(fcntl(r, F_GETFD));
    int w = MUST(ioctl(m, TIOCGPTPEER, O_WRONLY | O_NOCTTY));
    char byte;
    SHOW(read(w, &byte, 1));
    SHOW(isatty(w));
    SHOW(ioctl(s, TIOCGPTPEER, O_RDWR));
    close(s);
    close(r);
    close(w);
    close(m);
}

static void exclusive(void)
{
    int value = -1;
    CASE("exclusive use");
    SHOW(ioctl(slave, TIOCGEXCL, &value));
    say("%d", value);
    SHOW(ioctl(slave, TIOCEXCL));
    SHOW(ioctl(slave, TIOCGEXCL, &value));
    say("%d", value);
    SHOW(ioctl(master, TIOCGEXCL, &value));
    say("%d", value);
    /* Root may open it all the same, but is no user any more after this. */
    reap("other", CHILD({
             if (geteuid() == 0)
                 MUST(setresuid(1000, 1000, 1000));
             int fd = open(slave_name, O_RDWR | O_NOCTTY);
             say("%s", fd >= 0 || errno == EACCES || errno == EBUSY ? "as it should be"
                                                                    : error_name(errno));
         }));
    if (geteuid() != 0) {
        SHOW(open(slave_name, O_RDWR | O_NOCTTY));
        close(slave);
        SHOW(open(slave_name, O_RDWR | O_NOCTTY));
        SHOW(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY));
        close(master);
        open_pair();
    }
    SHOW(ioctl(slave, TIOCNXCL));
    SHOW_OK(open(slave_name, O_RDWR | O_NOCTTY));
    SHOW(ioctl(slave, TIOCGEXCL, BAD));
}

static void attributes(void)
{
    struct stat st, other;
    CASE("attributes");
    MUST(fstat(slave, &st));
    MUST(stat(slave_name, &other));
    SHOW_IF(st.st_ino == other.st_ino && st.st_rdev == other.st_rdev);
    say("%#o %ld %ld", st.st_mode & S_IFMT, (long)st.st_nlink, (long)st.st_size);
    SHOW_IF(st.st_uid == getuid());
    SHOW_IF(major(st.st_rdev) == 136);
    MUST(fstat(master, &st));
    say("%#o %u %u", st.st_mode & S_IFMT, major(st.st_rdev), minor(st.st_rdev));
    SHOW(fchmod(slave, 0600));
    MUST(stat(slave_name, &st));
    say("%#o", st.st_mode);
    SHOW(chmod(slave_name, 0620));
    if (geteuid() == 0)
        SHOW(fchown(slave, 7, 8));
    SHOW(access(slave_name, F_OK));
    struct statfs fs;
    SHOW(fstatfs(slave, &fs));
    say("%#lx %ld", (long)fs.f_type, (long)fs.f_bsize);
    SHOW(unlink(slave_name));
    SHOW(open("/dev/pts/new", O_RDWR | O_CREAT, 0600));
    SHOW(mkdir("/dev/pts/dir", 0700));
    char path[64], link[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", slave);
    ssize_t got = MUST(readlink(path, link, sizeof link - 1));
    link[got] = 0;
    SHOW_IF(strcmp(link, slave_name) == 0);
    int again = MUST(open(path, O_RDWR | O_NOCTTY));
    SHOW_IF(isatty(again));
    close(again);
}

static void unable(void)
{
    char byte;
    CASE("what a terminal can't do");
    SHOW(lseek(slave, 0, SEEK_SET));
    SHOW(lseek(master, 5, SEEK_CUR));
    SHOW(pread(slave, &byte, 1, 0));
    SHOW(pwrite(master, "x", 1, 0));
    SHOW(ftruncate(slave, 0));
    SHOW(fsync(slave));
    SHOW(fdatasync(master));
    SHOW(fallocate(slave, 0, 0, 10));
    SHOW_OK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, slave, 0));
    SHOW(posix_fadvise(slave, 0, 0, POSIX_FADV_NORMAL));
    SHOW(ioctl(slave, FIONREAD, BAD));
    SHOW(fcntl(slave, F_SETPIPE_SZ, 4096));
    SHOW(truncate(slave_name, 0));
    SHOW(open(slave_name, O_RDWR | O_NOCTTY | O_DIRECTORY));
    SHOW(open(slave_name, O_RDWR | O_NOCTTY | O_CREAT | O_EXCL, 0600));
    int fd = MUST(open(slave_name, O_RDWR | O_NOCTTY | O_TRUNC | O_APPEND));
    SHOW(write(fd, "", 0));
    SHOW(read(fd, &byte, 0));
    close(fd);
    SHOW(write(master, "", 0));
    CASE("access modes");
    fd = MUST(open(slave_name, O_RDONLY | O_NOCTTY));
    SHOW(write(fd, "x", 1));
    SHOW(tcflush(fd, TCIFLUSH));
    struct termios t;
    SHOW(tcgetattr(fd, &t));
    SHOW(tcsetattr(fd, TCSANOW, &t));
    close(fd);
    fd = MUST(open(slave_name, O_WRONLY | O_NOCTTY));
    SHOW(read(fd, &byte, 1));
    close(fd);
    fd = MUST(open(slave_name, O_PATH));
    SHOW(ioctl(fd, TCGETS, &t));
    SHOW(read(fd, &byte, 1));
    close(fd);
}

static void numbers(void)
{
    CASE("numbers are used again");
    int one = MUST(posix_openpt(O_RDWR | O_NOCTTY)), two = MUST(posix_openpt(O_RDWR | O_NOCTTY));
    int a = -1, b = -1, c = -1;
    MUST(ioctl(one, TIOCGPTN, &a));
    MUST(ioctl(two, TIOCGPTN, &b));
    SHOW_IF(a != b);
    char name[64];
    MUST(ptsname_r(one, name, sizeof name));
    SHOW(access(name, F_OK));
    close(one);
    SHOW(access(name, F_OK));
    one = MUST(posix_openpt(O_RDWR | O_NOCTTY));
    MUST(ioctl(one, TIOCGPTN, &c));
    SHOW_IF(a == c);
    close(one);
    close(two);
    SHOW_OK(open("/dev/ptmx", O_RDONLY | O_NOCTTY));
    SHOW(access("/dev/pts/99999", F_OK));
    SHOW(access("/dev/pts/007", F_OK));
    CASE("a copy of the master keeps it");
    one = MUST(posix_openpt(O_RDWR | O_NOCTTY));
    MUST(unlockpt(one));
    MUST(ptsname_r(one, name, sizeof name));
    two = MUST(dup(one));
    close(one);
    SHOW(access(name, F_OK));
    one = MUST(open(name, O_RDWR | O_NOCTTY));
    MUST(write(two, "x\n", 2));
    char line[8];
    SHOW(read(one, line, sizeof line));
    close(two);
    close(one);
}

int main(void)
{
    open_pair();
    locks();
    peers();
    exclusive();
    attributes();
    unable();
    numbers();
    return 0;
}
