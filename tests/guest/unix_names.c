/* What Unix sockets are called: paths, abstract names, automatic ones; bind(2), connect(2) and what they refuse. */
#include "check.h"

#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un addr;

static socklen_t path(const char *name)
{
    memset(&addr, 0, sizeof addr);
    addr.sun_family = AF_UNIX;
    strncpy(addr.sun_path, name, sizeof addr.sun_path);
    return offsetof(struct sockaddr_un, sun_path) + strlen(name) + 1;
}

static socklen_t abstract(const char *name, size_t size)
{
    memset(&addr, 0, sizeof addr);
    addr.sun_family = AF_UNIX;
    memcpy(addr.sun_path + 1, name, size);
    return offsetof(struct sockaddr_un, sun_path) + 1 + size;
}

#define ADDR (struct sockaddr *)&addr

static int make(int kind)
{
    return MUST(socket(AF_UNIX, kind, 0));
}

static void show_name(const char *what, int fd, int peer)
{
    struct sockaddr_un name;
    socklen_t size = sizeof name;
    memset(&name, 'x', sizeof name);
    int r = peer ? getpeername(fd, (void *)&name, &size) : getsockname(fd, (void *)&name, &size);
    if (r < 0) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    char text[256];
    int n = 0;
    for (unsigned i = 2; i < size && i < sizeof name; i++)
        n += snprintf(text + n, sizeof text - n, name.sun_path[i - 2] ? "%c" : "\\%o", name.sun_path[i - 2]);
    text[n] = 0;
    say("%s: family %d size %d '%s'", what, name.sun_family, size, text);
}

static void binding(void)
{
    CASE("binding to a path");
    int s = make(SOCK_STREAM);
    show_name("unbound", s, 0);
    show_name("peer of an unconnected one", s, 1);
    SHOW(bind(s, ADDR, path("one")));
    show_name("bound", s, 0);
    struct stat st;
    MUST(stat("one", &st));
    say("mode %o nlink %d size %d", st.st_mode, (int)st.st_nlink, (int)st.st_size);
    SHOW_IF(st.st_uid == geteuid());
    SHOW(bind(s, ADDR, path("two")));
    SHOW(access("two", F_OK));
    SHOW(bind(s, ADDR, path("one")));
    int t = make(SOCK_STREAM);
    SHOW(bind(t, ADDR, path("one")));
    SHOW(bind(t, ADDR, path("missing/one")));
    SHOW(bind(t, ADDR, path("one/two")));
    SHOW(bind(t, ADDR, path("slash/")));
    SHOW(bind(t, ADDR, path("one/")));
    SHOW(bind(t, ADDR, path(".")));
    SHOW(bind(t, ADDR, path("..")));
    SHOW(bind(t, ADDR, path("/")));
    MUST(symlink("dangling", "link"));
    SHOW(bind(t, ADDR, path("link")));
    SHOW(bind(t, ADDR, 0));
    SHOW(bind(t, ADDR, 1));
    SHOW(bind(t, ADDR, -1));
    SHOW(bind(t, ADDR, 129));
    SHOW(bind(t, ADDR, 111));
    SHOW(bind(t, BAD, 10));
    path("family");
    addr.sun_family = AF_INET;
    SHOW(bind(t, ADDR, 10));
    SHOW(bind(t, ADDR, 2));
    SHOW(bind(99, ADDR, 10));
    SHOW(bind(0, ADDR, 10));
    memset(addr.sun_path, 'a', 108);
    addr.sun_family = AF_UNIX;
    SHOW(bind(t, ADDR, sizeof addr));
    char room[200];
    socklen_t size = sizeof room;
    SHOW(getsockname(t, (void *)room, &size));
    SHOW(size);
    size = 5;
    memset(room, 'x', sizeof room);
    SHOW(getsockname(s, (void *)room, &size));
    say("%d %c%c%c%c", size, room[2], room[3], room[4], room[5]);
    size = -1;
    SHOW(getsockname(s, (void *)room, &size));
    size = 20;
    SHOW(getsockname(s, BAD, &size));
    SHOW(getsockname(s, (void *)room, BAD));
    close(t);
    t = make(SOCK_STREAM);
    memcpy(addr.sun_path, "short\0rest", 11);
    SHOW(bind(t, ADDR, 13));
    show_name("with a NUL inside", t, 0);
    close(s);
    close(t);
    SHOW(access("one", F_OK));
    SHOW(open("one", O_RDWR));
    SHOW(open("one", O_PATH) >= 0);
    SHOW(truncate("one", 0));
    t = make(SOCK_STREAM);
    SHOW(bind(t, ADDR, path("one")));
    SHOW(connect(t, ADDR, path("one")));
    close(t);
}

static void modes(void)
{
    struct stat st;
    CASE("mode and owner of the name");
    int s = make(SOCK_STREAM);
    umask(027);
    MUST(bind(s, ADDR, path("masked")));
    MUST(stat("masked", &st));
    say("%o", st.st_mode);
    umask(0);
    close(s);
    s = make(SOCK_STREAM);
    MUST(fchmod(s, 0640));
    MUST(bind(s, ADDR, path("moded")));
    MUST(stat("moded", &st));
    say("%o", st.st_mode);
    MUST(fstat(s, &st));
    say("the socket: %o", st.st_mode);
    umask(022);
    close(s);
}

static void connecting(void)
{
    CASE("connecting to a path");
    int s = make(SOCK_STREAM), c = make(SOCK_STREAM), d = make(SOCK_DGRAM);
    MUST(bind(s, ADDR, path("srv")));
    SHOW(connect(c, ADDR, path("srv")));
    SHOW(listen(s, 3));
    SHOW(connect(d, ADDR, path("srv")));
    SHOW(connect(c, ADDR, path("nothing")));
    put_file("file", "x", 0644);
    SHOW(connect(c, ADDR, path("file")));
    SHOW(connect(c, ADDR, path(".")));
    SHOW(connect(c, ADDR, path("srv/x")));
    SHOW(connect(c, ADDR, 2));
    SHOW(connect(c, ADDR, 0));
    SHOW(connect(c, BAD, 10));
    SHOW(connect(s, ADDR, path("srv")));
    MUST(symlink("srv", "srvlink"));
    SHOW(connect(c, ADDR, path("srvlink")));
    show_name("client", c, 0);
    show_name("its peer", c, 1);
    SHOW(connect(c, ADDR, path("srv")));
    int a = MUST(accept(s, NULL, NULL));
    show_name("accepted", a, 0);
    show_name("its peer", a, 1);
    MUST(rename("srv", "moved"));
    int e = make(SOCK_STREAM);
    SHOW(connect(e, ADDR, path("srv")));
    SHOW(connect(e, ADDR, path("moved")));
    show_name("through its new name", e, 1);
    MUST(link("moved", "hard"));
    int f = make(SOCK_STREAM);
    SHOW(connect(f, ADDR, path("hard")));
    MUST(unlink("moved"));
    MUST(unlink("hard"));
    int g = make(SOCK_STREAM);
    SHOW(connect(g, ADDR, path("hard")));
    close(s);
    int all[] = {a, c, d, e, f, g};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        close(all[i]);
    MUST(mknod("node", S_IFSOCK | 0666, 0));
    c = make(SOCK_STREAM);
    SHOW(connect(c, ADDR, path("node")));
    close(c);
}

static void permissions(void)
{
    CASE("permissions");
    int s = make(SOCK_STREAM);
    MUST(mkdir("closed", 0755));
    MUST(bind(s, ADDR, path("closed/srv")));
    MUST(listen(s, 5));
    MUST(chmod("closed/srv", 0555));
    pid_t pid = CHILD({
        if (geteuid() == 0) {
            MUST(setgid(4321));
            MUST(setuid(4321));
        }
        int c = make(SOCK_STREAM);
        SHOW(connect(c, ADDR, path("closed/srv")));
        if (geteuid() == 4321)
            say("%d", bind(c, ADDR, path("closed/mine")));
        else
            say("-1");
    });
    reap("child", pid);
    MUST(chmod("closed/srv", 0777));
    MUST(chmod("closed", 0));
    pid = CHILD({
        if (geteuid() == 0) {
            MUST(setgid(4321));
            MUST(setuid(4321));
        }
        int c = make(SOCK_STREAM);
        SHOW(connect(c, ADDR, path("closed/srv")));
    });
    reap("child", pid);
    MUST(chmod("closed", 0755));
    close(s);
}

static void abstracts(void)
{
    CASE("abstract names");
    char unique[32];
    snprintf(unique, sizeof unique, "guest.%d", getpid());
    size_t n = strlen(unique);
    int s = make(SOCK_STREAM), t = make(SOCK_STREAM), d = make(SOCK_DGRAM), q = make(SOCK_SEQPACKET);
    SHOW(bind(s, ADDR, abstract(unique, n)));
    SHOW(bind(t, ADDR, abstract(unique, n)));
    SHOW(bind(t, ADDR, abstract(unique, n + 1)));
    SHOW(bind(t, ADDR, abstract(unique, n + 2)));
    SHOW(bind(d, ADDR, abstract(unique, n)));
    SHOW(bind(q, ADDR, abstract(unique, n)));
    struct sockaddr_un name;
    socklen_t size = sizeof name;
    MUST(getsockname(s, (void *)&name, &size));
    SHOW_IF(size == 2 + 1 + n && name.sun_path[0] == 0 && memcmp(name.sun_path + 1, unique, n) == 0);
    SHOW(listen(s, 1));
    int c = make(SOCK_STREAM);
    SHOW(connect(c, ADDR, abstract(unique, n - 1)));
    SHOW(connect(c, ADDR, abstract(unique, n + 1)));
    SHOW(connect(c, ADDR, abstract(unique, n)));
    close(c);
    close(s);
    c = make(SOCK_STREAM);
    SHOW(connect(c, ADDR, abstract(unique, n)));
    SHOW(bind(c, ADDR, abstract(unique, n)));
    close(c);
    close(t);
    close(d);
    close(q);
    CASE("automatic names");
    s = make(SOCK_DGRAM);
    addr.sun_family = AF_UNIX;
    SHOW(bind(s, ADDR, 2));
    size = sizeof name;
    MUST(getsockname(s, (void *)&name, &size));
    say("size %d first %d digits %zu", size, name.sun_path[0], strspn(name.sun_path + 1, "0123456789abcdef"));
    SHOW(bind(s, ADDR, 2));
    SHOW(bind(s, ADDR, abstract(unique, n)));
    close(s);
    int on = 1;
    s = make(SOCK_DGRAM);
    MUST(setsockopt(s, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    t = make(SOCK_DGRAM);
    MUST(bind(t, ADDR, abstract(unique, n)));
    MUST(connect(s, ADDR, abstract(unique, n)));
    size = sizeof name;
    MUST(getsockname(s, (void *)&name, &size));
    say("with SO_PASSCRED: size %d", size);
    close(s);
    close(t);
}

static void proc(void)
{
    CASE("/proc/net/unix");
    int s = make(SOCK_STREAM), found = 0;
    char line[512], text[256];
    struct stat st;
    MUST(bind(s, ADDR, path("listed")));
    MUST(listen(s, 1));
    MUST(fstat(s, &st));
    FILE *file = fopen("/proc/net/unix", "r");
    NEED(file && fgets(line, sizeof line, file));
    say("%s", line);
    while (fgets(line, sizeof line, file)) {
        unsigned refs, protocol, flags, type, state;
        unsigned long ino;
        text[0] = 0;
        if (sscanf(line, "%*x: %X %X %X %X %X %lu %s", &refs, &protocol, &flags, &type, &state, &ino, text) < 6 ||
            ino != st.st_ino)
            continue;
        found = 1;
        say("%u %u %x %x %x %s", refs, protocol, flags, type, state, text);
    }
    fclose(file);
    SHOW(found);
    close(s);
}

int main(void)
{
    scratch();
    binding();
    modes();
    connecting();
    permissions();
    abstracts();
    proc();
    return 0;
}
