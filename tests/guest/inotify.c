/* inotify: what is told of which operation, to a directory's watch and to a file's own. */
#include "check.h"
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/xattr.h>

static int in;
static const char *names_of_wd[100];

static const struct {
    uint32_t bit;
    const char *name;
} bits[] = {
    {IN_ACCESS, "ACCESS"}, {IN_MODIFY, "MODIFY"}, {IN_ATTRIB, "ATTRIB"}, {IN_CLOSE_WRITE, "CLOSE_WRITE"},
    {IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"}, {IN_OPEN, "OPEN"}, {IN_MOVED_FROM, "MOVED_FROM"}, {IN_MOVED_TO, "MOVED_TO"},
    {IN_CREATE, "CREATE"}, {IN_DELETE, "DELETE"}, {IN_DELETE_SELF, "DELETE_SELF"}, {IN_MOVE_SELF, "MOVE_SELF"},
    {IN_UNMOUNT, "UNMOUNT"}, {IN_Q_OVERFLOW, "Q_OVERFLOW"}, {IN_IGNORED, "IGNORED"}, {IN_ISDIR, "ISDIR"},
};

static void show_one(const struct inotify_event *e)
{
    static uint32_t first_cookie;
    char text[300] = "";
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
        if (e->mask & bits[i].bit)
            sprintf(text + strlen(text), "%s%s", *text ? "|" : "", bits[i].name);
    if (e->mask & IN_MOVED_FROM)
        first_cookie = e->cookie;
    const char *cookie = "";
    if (e->cookie)
        cookie = e->mask & IN_MOVED_FROM ? " cookie" : e->cookie == first_cookie ? " same cookie" : " other cookie";
    say("  %s: %s%s%s%s (%u)", e->wd > 0 && e->wd < 100 && names_of_wd[e->wd] ? names_of_wd[e->wd] : "?", text,
        e->len ? " " : "", e->len ? e->name : "", cookie, e->len);
}

static void events(const char *what)
{
    char buffer[8192] __attribute__((aligned(8)));
    say("%s", what);
    ssize_t got;
    while ((got = read(in, buffer, sizeof buffer)) > 0)
        for (char *p = buffer; p < buffer + got; p += sizeof(struct inotify_event) + ((struct inotify_event *)p)->len)
            show_one((struct inotify_event *)p);
    if (errno != EAGAIN)
        say("  read: %s", error_name(errno));
}

static int watch(const char *path, uint32_t mask)
{
    int wd = MUST(inotify_add_watch(in, path, mask));
    if (wd < 100)
        names_of_wd[wd] = path;
    return wd;
}

static void use(const char *path, int flags, const char *what)
{
    int fd = MUST(open(path, flags, 0644));
    char byte[4];
    if ((flags & O_ACCMODE) != O_WRONLY)
        MUST(read(fd, byte, sizeof byte));
    if ((flags & O_ACCMODE) != O_RDONLY)
        MUST(write(fd, "data", 4));
    MUST(close(fd));
    events(what);
}

static void in_a_directory(void)
{
    CASE("a directory");
    MUST(mkdir("d", 0755));
    MUST(mkdir("other", 0755));
    watch("d", IN_ALL_EVENTS);
    use("d/f", O_RDWR | O_CREAT, "create, read nothing, write");
    use("d/f", O_RDONLY, "read");
    use("d/f", O_RDONLY, "read again");
    use("d/f", O_WRONLY | O_TRUNC, "truncate, write");
    int fd = MUST(open("d/f", O_RDONLY));
    MUST(read(fd, (char[1]){0}, 1));
    int again = MUST(dup(fd));
    MUST(close(fd));
    events("one of two descriptors closed");
    SHOW(read(again, (char[8]){0}, 8));
    SHOW(read(again, (char[8]){0}, 8));
    MUST(close(again));
    events("the other");
    MUST(chmod("d/f", 0600));
    MUST(chown("d/f", geteuid(), -1));
    events("chmod, chown");
    MUST(utimensat(AT_FDCWD, "d/f", NULL, 0));
    events("utimensat");
    MUST(truncate("d/f", 2));
    events("truncate");
    MUST(link("d/f", "d/g"));
    MUST(symlink("f", "d/s"));
    MUST(mkdir("d/sub", 0755));
    MUST(mkfifo("d/fifo", 0600));
    events("link, symlink, mkdir, mkfifo");
    MUST(rename("d/f", "d/h"));
    events("rename inside");
    MUST(rename("d/h", "other/h"));
    events("moved away");
    MUST(rename("other/h", "d/f"));
    events("moved here");
    MUST(rename("d/f", "d/g"));
    events("the same file: nothing");
    put_file("other/new", "x", 0644);
    MUST(rename("other/new", "d/g"));
    events("over another");
    MUST(rename("d/sub", "d/sub2"));
    events("a directory renamed");
    use("d/s", O_WRONLY | O_CREAT, "through a dangling symlink");
    MUST(unlink("d/s"));
    MUST(unlink("d/f"));
    MUST(rmdir("d/sub2"));
    MUST(unlink("d/fifo"));
    events("unlink, rmdir");
    struct stat st;
    MUST(stat("d/g", &st));
    MUST(access("d/g", R_OK));
    fd = MUST(open("d/g", O_PATH));
    MUST(close(fd));
    events("stat, access, O_PATH: nothing");
    system("ls d > /dev/null");
    events("listed");
    fd = MUST(open("d/g", O_RDWR));
    struct iovec iov[2] = {{"ab", 2}, {"cd", 2}};
    MUST(writev(fd, iov, 2));
    MUST(pwrite(fd, "x", 1, 100));
    events("writev, pwrite");
    MUST(pread(fd, (char[2]){0}, 2, 0));
    MUST(ftruncate(fd, 50));
    MUST(fchmod(fd, 0640));
    int out = MUST(open("other/copy", O_RDWR | O_CREAT, 0600));
    lseek(fd, 0, SEEK_SET);
    MUST(sendfile(out, fd, NULL, 10));
    events("pread, ftruncate, fchmod, sendfile");
    MUST(close(fd));
    MUST(close(out));
    events("closed");
    MUST(unlink("d/g"));
    MUST(rmdir("d"));
    events("the directory removed");
}

static void a_file(void)
{
    CASE("a file");
    put_file("f", "some text", 0644);
    int wd = watch("f", IN_ALL_EVENTS);
    use("f", O_RDONLY, "read");
    use("f", O_WRONLY, "written");
    MUST(link("f", "f2"));
    MUST(rename("f", "f3"));
    events("link, rename");
    MUST(unlink("f2"));
    int fd = MUST(open("f3", O_RDWR));
    MUST(unlink("f3"));
    events("unlinked while open");
    MUST(write(fd, "x", 1));
    MUST(close(fd));
    events("closed");
    SHOW(inotify_rm_watch(in, wd));
    put_file("f", "x", 0644);
    wd = watch("f", IN_MODIFY | IN_ONESHOT);
    use("f", O_RDWR, "one shot");
    use("f", O_RDWR, "no more");
    wd = watch("f", IN_OPEN);
    SHOW_IF(inotify_add_watch(in, "f", IN_MODIFY | IN_MASK_ADD) == wd);
    use("f", O_RDWR, "both");
    SHOW_IF(inotify_add_watch(in, "f", IN_MODIFY) == wd);
    use("f", O_RDWR, "only modify");
    SHOW(inotify_add_watch(in, "f", IN_MODIFY | IN_MASK_CREATE));
    SHOW(inotify_rm_watch(in, wd));
    events("removed");
    watch("f", IN_ALL_EVENTS);
    put_file("over", "y", 0644);
    MUST(rename("over", "f"));
    events("renamed over");
    MUST(unlink("f"));
}

static void both(void)
{
    CASE("a directory and its file");
    MUST(mkdir("b", 0755));
    put_file("b/f", "text", 0644);
    watch("b", IN_ALL_EVENTS);
    watch("b/f", IN_ALL_EVENTS);
    use("b/f", O_RDONLY, "read");
    MUST(chmod("b/f", 0600));
    events("chmod");
    MUST(rename("b/f", "b/g"));
    events("rename");
    MUST(unlink("b/g"));
    events("unlink");
    put_file("b/x", "text", 0644);
    int wd = watch("b", IN_MODIFY | IN_DELETE | IN_EXCL_UNLINK);
    int fd = MUST(open("b/x", O_WRONLY));
    MUST(unlink("b/x"));
    MUST(write(fd, "x", 1));
    events("IN_EXCL_UNLINK");
    watch("b", IN_MODIFY | IN_CLOSE);
    MUST(write(fd, "x", 1));
    MUST(close(fd));
    events("without");
    MUST(mkdir("b/sub", 0755));
    watch("b/sub", IN_ALL_EVENTS);
    watch("b", IN_ALL_EVENTS);
    MUST(rmdir("b/sub"));
    events("rmdir");
    SHOW(inotify_rm_watch(in, wd));
    events("removed");
    MUST(rmdir("b"));
}

static void xattrs(void)
{
    CASE("extended attributes");
    put_file("x", "text", 0644);
    watch("x", IN_ALL_EVENTS);
    if (setxattr("x", "user.test", "v", 1, 0) == 0) {
        MUST(removexattr("x", "user.test"));
        events("set and removed");
    }
    MUST(unlink("x"));
    events("unlink");
}

static void errors(void)
{
    CASE("errors");
    SHOW(inotify_init1(IN_CLOEXEC | 1));
    SHOW(inotify_add_watch(in, ".", 0));
    SHOW(inotify_add_watch(in, ".", 0x00010000));
    SHOW(inotify_add_watch(in, ".", IN_MASK_ADD | IN_MASK_CREATE | IN_OPEN));
    SHOW(inotify_add_watch(in, "not there", IN_OPEN));
    SHOW(inotify_add_watch(in, BAD, IN_OPEN));
    SHOW(inotify_add_watch(0x7000, ".", IN_OPEN));
    SHOW(inotify_add_watch(1, ".", IN_OPEN));
    SHOW(inotify_rm_watch(in, 12345));
    SHOW(inotify_rm_watch(in, -1));
    SHOW(inotify_rm_watch(1, 1));
    SHOW(inotify_rm_watch(0x7000, 1));
    put_file("plain", "x", 0644);
    SHOW(inotify_add_watch(in, "plain", IN_OPEN | IN_ONLYDIR));
    SHOW(symlink("not there", "link"));
    SHOW(inotify_add_watch(in, "link", IN_OPEN));
    int wd = watch("link", IN_ATTRIB | IN_DONT_FOLLOW);
    MUST(unlink("link"));
    events("a symbolic link");
    SHOW(inotify_rm_watch(in, wd));
    put_file("secret", "x", 0);
    if (geteuid() != 0)
        SHOW(inotify_add_watch(in, "secret", IN_OPEN));
    unlink("secret");
    unlink("plain");
}

static void reading(void)
{
    CASE("reading");
    int other = MUST(inotify_init());
    SHOW(fcntl(other, F_GETFL));
    SHOW(fcntl(other, F_GETFD));
    put_file("f", "x", 0644);
    SHOW(inotify_add_watch(other, ".", IN_OPEN));
    int pending = -1;
    SHOW(ioctl(other, FIONREAD, &pending));
    say("pending %d", pending);
    struct pollfd pfd = {other, POLLIN | POLLOUT, 0};
    say("poll %d %x", poll(&pfd, 1, 0), pfd.revents);
    close(open("f", O_RDONLY));
    close(open("f", O_RDONLY));
    SHOW(ioctl(other, FIONREAD, &pending));
    say("pending %d", pending);
    say("poll %d %x", poll(&pfd, 1, 0), pfd.revents);
    char buffer[64];
    SHOW(read(other, buffer, 31));
    SHOW(read(other, buffer, 0));
    SHOW(write(other, buffer, 8));
    SHOW(lseek(other, 0, SEEK_SET));
    SHOW(read(other, buffer, sizeof buffer));
    pid_t child = CHILD(usleep(20000); close(open("f", O_RDONLY)));
    SHOW(read(other, buffer, sizeof buffer));
    reap("child", child);
    MUST(close(other));
    MUST(unlink("f"));
    char path[64];
    sprintf(path, "/proc/self/fd/%d", in);
    ssize_t size = readlink(path, buffer, sizeof buffer);
    say("%.*s", (int)size, buffer);
}

int main(void)
{
    scratch();
    in = MUST(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    in_a_directory();
    a_file();
    both();
    xattrs();
    errors();
    reading();
    return 0;
}
