/* Attacks on the file tree: FLAGS of the test give a root of its own and a writable host directory at /data.
 *
 * /data holds what somebody might have left there: links to the host's secret, a FIFO, a socket, devices.
 * The secret's text must never be seen; argv[2] is its path on the host, argv[3] its text.
 */
#include "hostile.h"

#include <dirent.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

static const char *secret, *text;

static void must_not_show(const char *name)
{
    char buffer[256];
    int fd = open(name, O_RDONLY | O_NONBLOCK);
    ssize_t n;
    if (fd < 0)
        return;
    n = read(fd, buffer, sizeof buffer - 1);
    buffer[n > 0 ? n : 0] = 0;
    if (strstr(buffer, text)) {
        printf("seen through %s\n", name);
        fflush(stdout);
        _exit(99);
    }
    close(fd);
}

static void must_not_show_at(const char *prefix)
{
    char name[8192];
    snprintf(name, sizeof name, "%s%s", prefix, secret);
    must_not_show(name);
}

static void names(void)
{
    static const char *const prefixes[] = {
        "", "/..", "/../../..", "/data/..", "/data/../..", "/data/../../../../..", "/proc/self/root", "/proc/self/root/..",
        "/proc/1/root", "/proc/1/cwd", "/proc/1/cwd/../..", "/proc/self/cwd/../../..", "/proc/thread-self/root/../..", "/proc/2/root",
        "/data/up", "/data/root", "/data/dir/../../..", "/dev/fd/0/../..", "/dev/shm/../../..", "/data/./../data/../.."};
    static const char *const links[] = {"/data/link", "/data/relative", "/data/dir/link", "/data/proc", "/data/chain",
                                        "/data/hostproc", "/data/magic"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        must_not_show_at(prefixes[i]);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        must_not_show(links[i]);
        int fd = open(links[i], O_PATH | O_NOFOLLOW);
        char name[64];
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        must_not_show(name);
        snprintf(name, sizeof name, "%s/secret", links[i]);
        must_not_show(name);
        close(open(links[i], O_WRONLY | O_CREAT | O_TRUNC, 0600)); /* must not truncate it either */
        truncate(links[i], 0);
        chmod(links[i], 0777);
    }
    /* Links of the guest's own making, in the host's directory. */
    symlink(secret, "/data/mine");
    must_not_show("/data/mine");
    symlink("/proc/self/root", "/data/self");
    must_not_show_at("/data/self");
    symlink("../../../../../../..", "/data/deep");
    must_not_show_at("/data/deep");
    link(secret, "/data/hard");
    must_not_show("/data/hard");
    CHECK(link("/program", "/data/hard2") == -1);
    linkat(AT_FDCWD, "/data/link", AT_FDCWD, "/data/hard3", AT_SYMLINK_FOLLOW);
    must_not_show("/data/hard3");
    CHECK(rename("/data", "/moved") == -1 && rename("/data/..", "/moved") == -1 && rename("/data", "/") == -1);
    rename("/data/dir", "/dir");
    rename("/data/dir/", "/data/dir/inside");
    unlink("/data/mine"), unlink("/data/self"), unlink("/data/deep");
}

static void chroots(void)
{
    int root = open("/", O_RDONLY | O_DIRECTORY), data = open("/data", O_RDONLY | O_DIRECTORY);
    mkdir("/jail", 0700);
    mkdir("/data/jail", 0700);
    for (int i = 0; i < 2; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            chroot(i ? "/data/jail" : "/jail");
            fchdir(i ? data : root);
            for (int k = 0; k < 100; k++)
                chdir("..");
            chroot(".");
            must_not_show_at("");
            must_not_show_at("..");
            _exit(0);
        }
        int status;
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    }
    /* A directory that moves out of the way while somebody is in it. */
    mkdir("/data/a", 0700), mkdir("/data/a/b", 0700), mkdir("/data/a/b/c", 0700);
    if (chdir("/data/a/b/c") == 0) {
        rename("/data/a/b", "/data/b");
        must_not_show_at("../../..");
        must_not_show_at("../../../..");
        rmdir("/data/b/c"), rmdir("/data/b"), rmdir("/data/a");
        must_not_show_at("..");
        open("../x", O_CREAT | O_WRONLY, 0600);
    }
    chdir("/");
    rmdir("/data/jail");
}

static void mounts(void)
{
    mkdir("/m", 0700);
    for (int i = 0; i < 3; i++) {
        mount("none", "/proc", "tmpfs", 0, NULL);
        mount("none", "/", "tmpfs", 0, NULL);
        mount("/", "/m", NULL, MS_BIND | MS_REC, NULL);
        mount("/data", "/m", NULL, MS_BIND, NULL);
        must_not_show_at("/m/..");
        mount("/m", "/m", NULL, MS_MOVE, NULL);
        mount("/", "/proc/self", NULL, MS_MOVE, NULL);
        mount("/data", "/data", NULL, MS_REMOUNT | MS_BIND, NULL);
        mount("/dev/sda", "/m", "ext4", 0, NULL);
        mount("none", "/m", "nfs", 0, NULL);
        mount("none", "/m", "overlay", 0, "lowerdir=/,upperdir=/data,workdir=/data");
        mount("proc", "/m", "proc", 0, NULL);
        must_not_show_at("/m/1/root");
        mount("x", "/proc/self/fd", "tmpfs", 0, NULL);
        syscall(SYS_pivot_root, "/m", "/m");
        umount2("/data", MNT_DETACH);
        umount2("/dev", MNT_DETACH);
        umount2("/proc", MNT_DETACH);
        umount2("/", MNT_DETACH);
        umount2("/m", MNT_DETACH);
        must_not_show_at("");
    }
}

static void special(void)
{
    static const char *const names[] = {"/data/fifo", "/data/socket", "/data/mem", "/data/disk", "/data/tty", "/data/unknown"};
    struct sockaddr_un address = {AF_UNIX, "/data/socket"};
    struct stat st;
    int s;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char buffer[4096];
        int fd, flags[] = {O_RDONLY | O_NONBLOCK, O_RDWR | O_NONBLOCK, O_WRONLY | O_NONBLOCK, O_PATH};
        stat(names[i], &st);
        for (int k = 0; k < 4; k++)
            if ((fd = open(names[i], flags[k])) >= 0) {
                /* Only the FIFO, which is the guest's own, opens for data. */
                CHECK(i == 0 || k == 3);
                (void)!read(fd, buffer, sizeof buffer);
                mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
                close(fd);
            }
        execl(names[i], "x", (char *)NULL);
        truncate(names[i], 0);
    }
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (s >= 0)
        CHECK(connect(s, (struct sockaddr *)&address, sizeof address) == -1);
    mknod("/data/mymem", S_IFCHR | 0666, makedev(1, 1));
    CHECK(open("/data/mymem", O_RDONLY) == -1);
    mknod("/mydisk", S_IFBLK | 0666, makedev(8, 0));
    CHECK(open("/mydisk", O_RDONLY) == -1);
    mknod("/data/myfifo", S_IFIFO | 0666, 0);
    int fifo = open("/data/myfifo", O_RDWR | O_NONBLOCK);
    if (fifo >= 0)
        (void)!write(fifo, "x", 1);
    unlink("/data/myfifo"), unlink("/data/mymem");
}

/* Everything in /proc, read and written with nonsense. */
static void walk_proc(const char *dir, int depth)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    char buffer[65536];
    if (!d)
        return;
    while ((e = readdir(d))) {
        char name[1024];
        struct stat st;
        if (e->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", dir, e->d_name);
        (void)!readlink(name, buffer, sizeof buffer);
        if (lstat(name, &st) < 0)
            continue;
        if (S_ISDIR(st.st_mode)) {
            if (depth)
                walk_proc(name, depth - 1);
            continue;
        }
        if (strcmp(e->d_name, "kmsg") == 0 || !S_ISREG(st.st_mode))
            continue;
        int fd = open(name, O_RDWR | O_NONBLOCK);
        if (fd < 0)
            fd = open(name, O_RDONLY | O_NONBLOCK);
        if (fd < 0)
            continue;
        memset(buffer, 0, sizeof buffer);
        ssize_t n = read(fd, buffer, sizeof buffer - 1);
        char was[256];
        memcpy(was, buffer, sizeof was);
        if (n > 0 && memmem(buffer, (size_t)n, text, strlen(text))) {
            printf("secret in %s\n", name);
            if (!strstr(name, "cmdline") && !strstr(name, "mem") && !strstr(name, "environ"))
                _exit(99);
        }
        lseek(fd, -1, SEEK_SET), lseek(fd, 1l << 62, SEEK_SET), (void)!read(fd, buffer, 1);
        pread(fd, buffer, 100, 1l << 62);
        lseek(fd, 0, SEEK_SET);
        static const char *const nonsense[] = {"-1", "99999999999999999999999", "\xff\xfe", "", "0 0 0 0", "\n"};
        for (size_t i = 0; i < 6; i++)
            (void)!write(fd, nonsense[i], strlen(nonsense[i]));
        memset(buffer, 'A', sizeof buffer);
        (void)!write(fd, buffer, sizeof buffer);
        lseek(fd, 12345678, SEEK_SET);
        (void)!write(fd, buffer, 10);
        /* Root may set vm.max_map_count to 0, and nobody executes anything any more. */
        if (strncmp(name, "/proc/sys/", 10) == 0 && n > 0 && n < (ssize_t)sizeof was)
            (void)!pwrite(fd, was, (size_t)n, 0);
        close(fd);
    }
    closedir(d);
}

static void proc(void)
{
    walk_proc("/proc/sys", 4);
    walk_proc("/sys", 6);
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    char name[64];
    snprintf(name, sizeof name, "/proc/%d", pid);
    walk_proc(name, 3);
    walk_proc("/proc/1", 3);
    walk_proc("/proc", 0);
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, NULL, 0) == pid);
    pid = fork();
    if (pid == 0) {
        walk_proc("/proc/self", 3);
        _exit(0);
    }
    CHECK(waitpid(pid, NULL, 0) == pid);
}

/* What may be known of the host. */
static void view(void)
{
    DIR *d = opendir("/proc");
    struct dirent *e;
    char host[256];
    int highest = 0, fds = 0;
    CHECK(d);
    while ((e = readdir(d)))
        if (atoi(e->d_name) > highest)
            highest = atoi(e->d_name);
    CHECK(highest < 20);
    closedir(d);
    d = opendir("/proc/self/fd");
    CHECK(d);
    while ((e = readdir(d)))
        fds += e->d_name[0] != '.';
    CHECK(fds == 5); /* stdio, the program, and this one */
    gethostname(host, sizeof host);
    CHECK(strcmp(host, "sentry") == 0);
    for (int pid = 1; pid < 4000; pid++)
        if (pid != getpid() && pid != getppid())
            CHECK(kill(pid, 0) == -1 || pid <= 2);
    CHECK(getenv("SECRET_OF_THE_CALLER") == NULL);
    must_not_show("/proc/mounts");
    must_not_show("/proc/self/mountinfo");
}

static const struct attack attacks[] = {{"names", names}, {"chroots", chroots}, {"mounts", mounts}, {"special", special},
                                        {"proc", proc}, {"view", view}, {NULL, NULL}};

int main(int argc, char **argv)
{
    secret = argc > 2 ? argv[2] : "/nowhere";
    text = argc > 3 ? argv[3] : "nothing";
    return run_attack(attacks, argc, argv);
}
