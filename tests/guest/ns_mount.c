/* Mount namespaces: copies, binds, propagation, pivot_root, and what is refused. */
#include "ns_common.h"

#include <sys/mount.h>
#include <sys/vfs.h>

#define NOSYMFOLLOW 256

/* The optional fields of the mount at `where`, without their numbers. */
static void show_mount(const char *where)
{
    char line[1024], root[256], at[256], options[256], wanted[512];
    char cwd[256];
    FILE *f = fopen("/proc/self/mountinfo", "r");
    NEED(f != NULL && getcwd(cwd, sizeof cwd) != NULL);
    snprintf(wanted, sizeof wanted, "%s/%s", strcmp(cwd, "/") ? cwd : "", where);
    bool found = false;
    while (fgets(line, sizeof line, f)) {
        int used = 0;
        if (sscanf(line, "%*d %*d %*s %255s %255s %255s %n", root, at, options, &used) < 3 ||
            strcmp(at, wanted))
            continue;
        found = true;
        char *rest = line + used, shown[64] = "";
        for (char *word = strtok(rest, " "); word && strcmp(word, "-"); word = strtok(NULL, " ")) {
            strcat(shown, " ");
            strncat(shown, word, strcspn(word, ":"));
        }
        say("%s: %.2s%s%s", where, options, strstr(options, "nosuid") ? ",nosuid" : "", shown);
    }
    if (!found)
        say("%s: no mount", where);
    fclose(f);
}

static void basics(void)
{
    CASE("binds");
    MUST(mkdir("a", 0755));
    MUST(mkdir("b", 0755));
    put_file("file", "text", 0644);
    SHOW(mount("none", "a", "tmpfs", 0, "mode=755"));
    put_file("a/x", "x", 0644);
    SHOW(mount("a", "b", NULL, MS_BIND, NULL));
    show_file("b/x");
    show_mount("a");
    SHOW(mount(NULL, "b", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID, NULL));
    show_mount("b");
    SHOW(open("b/y", O_CREAT | O_WRONLY, 0600));
    SHOW(open("a/y", O_CREAT | O_RDONLY, 0600) >= 0);
    SHOW(mount("file", "b", NULL, MS_BIND, NULL));
    SHOW(mount("a", "file", NULL, MS_BIND, NULL));
    SHOW(mount("nothing", "b", NULL, MS_BIND, NULL));
    SHOW(mount("none", "b", "nosuchfs", 0, NULL));
    SHOW(mount("none", "b", "ext4", 0, NULL) == 0);
    SHOW(mount("none", "b", NULL, 0, NULL));
    SHOW(mount(NULL, "b/x", NULL, MS_REMOUNT | MS_BIND, NULL));
    SHOW(mount(NULL, "b/x", NULL, MS_PRIVATE, NULL));
    SHOW(mount(NULL, "b", NULL, MS_PRIVATE | MS_SHARED, NULL));
    SHOW(mount(NULL, "b", NULL, MS_PRIVATE | MS_NOSUID, NULL));
    SHOW(umount2("b", 1 << 10));
    SHOW(umount2("b/x", 0));
    SHOW(umount2("file", 0));
    SHOW(umount2("nothing", 0));
    int fd = open("a/x", O_RDONLY);
    SHOW(umount2("a", 0));
    SHOW(umount2("a", MNT_DETACH));
    SHOW(lseek(fd, 0, SEEK_END));
    close(fd);
    SHOW(umount2("b", 0));
    show_mount("b");
    CASE("symbolic links");
    char path[64];
    int link = MUST(open("/proc/self/fd/0", O_PATH | O_NOFOLLOW));
    snprintf(path, sizeof path, "/proc/self/fd/%d", link);
    say("over a descriptor: %s",
        mount("file", path, NULL, MS_BIND, NULL) ? error_name(errno) : "mounted");
    close(link);
    MUST(mount("none", "a", "tmpfs", NOSYMFOLLOW, "mode=755"));
    put_file("a/x", "x", 0644);
    SHOW(symlink("x", "a/link"));
    SHOW(open("a/link", O_RDONLY));
    SHOW(access("a/link", F_OK));
    char target[8];
    SHOW(readlink("a/link", target, sizeof target));
    struct statfs fs;
    SHOW(statfs("a", &fs));
    SHOW_IF((fs.f_flags & 0x2000) != 0);
    SHOW(symlink("a/x", "outside"));
    SHOW(access("outside", F_OK));
    SHOW(umount2("a", 0));
    CASE("move");
    MUST(mount("none", "a", "tmpfs", 0, NULL));
    MUST(mount(NULL, "a", NULL, MS_PRIVATE, NULL));
    MUST(mkdir("a/in", 0755));
    SHOW(mount("a", "a/in", NULL, MS_MOVE, NULL));
    SHOW(mount("a/in", "b", NULL, MS_MOVE, NULL));
    SHOW(mount("a", "b", NULL, MS_MOVE, NULL));
    SHOW(access("b/in", F_OK));
    SHOW(umount2("b", 0));
}

static void isolation(void)
{
    CASE("namespaces");
    struct gate gate = gate_make(), back = gate_make();
    MUST(mount("none", "a", "tmpfs", 0, NULL));
    MUST(mount(NULL, "a", NULL, MS_PRIVATE, NULL));
    put_file("a/outer", "1", 0644);
    pid_t pid = MUST(fork());
    if (pid == 0) {
        MUST(unshare(CLONE_NEWNS));
        SHOW(access("a/outer", F_OK));
        SHOW(mount("none", "a", "tmpfs", 0, NULL));
        SHOW(access("a/outer", F_OK));
        SHOW(mount("none", "b", "tmpfs", 0, NULL));
        put_file("b/inner", "2", 0644);
        gate_open(back);
        gate_wait(gate);
        SHOW(access("a/later", F_OK));
        _exit(0);
    }
    gate_wait(back);
    SHOW(access("a/outer", F_OK));
    SHOW(access("b/inner", F_OK));
    put_file("a/later", "3", 0644);
    char path[128];
    snprintf(path, sizeof path, "/proc/%d/root%s/b/inner", pid, scratch_path);
    int inner = open(path, O_RDONLY);
    SHOW_IF(inner >= 0);
    close(inner);
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", pid);
    int fd = MUST(open(path, O_RDONLY)), own = MUST(open("/proc/self/ns/mnt", O_RDONLY));
    gate_open(gate);
    reap("other", pid);
    SHOW(setns(fd, CLONE_NEWNS));
    MUST(chdir(scratch_path));
    SHOW(access("b/inner", F_OK));
    SHOW(setns(own, CLONE_NEWNS));
    MUST(chdir(scratch_path));
    SHOW(access("b/inner", F_OK));
    close(fd), close(own);
    SHOW(umount2("a", 0));
    gate_close(gate), gate_close(back);
}

static void propagation(void)
{
    CASE("propagation");
    MUST(mkdir("s", 0755));
    MUST(mkdir("t", 0755));
    MUST(mkdir("u", 0755));
    MUST(mount("none", "s", "tmpfs", 0, NULL));
    SHOW(mount(NULL, "s", NULL, MS_SHARED, NULL));
    MUST(mkdir("s/m", 0755));
    show_mount("s");
    SHOW(mount("s", "t", NULL, MS_BIND, NULL));
    show_mount("t");
    SHOW(mount("s", "u", NULL, MS_BIND, NULL));
    SHOW(mount(NULL, "u", NULL, MS_SLAVE, NULL));
    show_mount("u");
    SHOW(mount("none", "s/m", "tmpfs", 0, NULL));
    show_mount("t/m");
    show_mount("u/m");
    put_file("t/m/f", "f", 0644);
    SHOW(access("u/m/f", F_OK));
    SHOW(umount2("t/m", 0));
    show_mount("s/m");
    show_mount("u/m");
    SHOW(mount("none", "u/m", "tmpfs", 0, NULL));
    show_mount("s/m");
    SHOW(umount2("u/m", 0));
    SHOW(mount(NULL, "u", NULL, MS_SHARED, NULL));
    show_mount("u");
    SHOW(mount(NULL, "u", NULL, MS_UNBINDABLE, NULL));
    show_mount("u");
    SHOW(mount("u", "t", NULL, MS_BIND, NULL));
    SHOW(mount("s", "b", NULL, MS_BIND | MS_REC, NULL));
    SHOW(mount("b", "a", NULL, MS_MOVE, NULL));
    SHOW(mount(NULL, "t", NULL, MS_PRIVATE, NULL));
    show_mount("t");
    pid_t pid = CHILD(MUST(unshare(CLONE_NEWNS)); MUST(mount("none", "s/m", "tmpfs", 0, NULL)));
    reap("mounted by a child", pid);
    show_mount("s/m");
    SHOW(umount2("s/m", 0));
    pid = CHILD(MUST(unshare(CLONE_NEWUSER | CLONE_NEWNS)); show_mount("s"); SHOW(umount2("s", 0));
                SHOW(mount("none", "s/m", "tmpfs", 0, NULL)));
    reap("less privileged", pid);
    show_mount("s/m");
}

/* A mount that is moved goes with everything on it, or not at all. */
static void moves(void)
{
    CASE("moves");
    MUST(mkdir("m", 0755));
    MUST(mount("none", "m", "tmpfs", 0, "mode=755"));
    MUST(mount(NULL, "m", NULL, MS_PRIVATE, NULL));
    MUST(chdir("m"));
    MUST(mkdir("first", 0755));
    MUST(mkdir("second", 0755));
    MUST(mkdir("gone", 0755));
    MUST(mount("none", "first", "tmpfs", 0, "mode=755"));
    put_file("first/file", "text", 0644);
    put_file("plain", "text", 0644);
    MUST(chdir("gone"));
    MUST(rmdir("../gone"));
    SHOW(mount("../first", ".", NULL, MS_MOVE, NULL));
    MUST(chdir(".."));
    SHOW(access("first/file", F_OK));
    SHOW(mount("first", "plain", NULL, MS_MOVE, NULL));
    SHOW(mount("first", "first", NULL, MS_MOVE, NULL));
    SHOW(access("first/file", F_OK));
    /* Copies know it, too, where what is below is younger. */
    MUST(mount("none", "second", "tmpfs", 0, "mode=755"));
    MUST(mkdir("second/below", 0755));
    SHOW(mount("first", "second/below", NULL, MS_MOVE, NULL));
    reap("copy", CHILD(MUST(unshare(CLONE_NEWNS)); SHOW(access("second/below/file", F_OK))));
    MUST(mount(NULL, "second/below", NULL, MS_UNBINDABLE, NULL));
    reap("copy", CHILD(MUST(unshare(CLONE_NEWUSER | CLONE_NEWNS)); SHOW(access("second/below/file", F_OK))));
    MUST(chdir(".."));
    MUST(umount2("m", MNT_DETACH));
}

/* What a more privileged namespace said of a mount stays. */
static void kept(void)
{
    CASE("kept");
    MUST(mkdir("k", 0755));
    MUST(mkdir("other", 0755));
    MUST(mount("none", "k", "tmpfs", MS_RDONLY | MS_NOSUID, "mode=755"));
    pid_t pid = CHILD(
        MUST(unshare(CLONE_NEWUSER | CLONE_NEWNS)); SHOW(mount(NULL, "k", NULL, MS_REMOUNT | MS_BIND, NULL));
        SHOW(mount(NULL, "k", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID, NULL));
        SHOW(mount(NULL, "k", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL));
        SHOW(umount2("k", MNT_DETACH)); SHOW(mount("k", "other", NULL, MS_BIND, NULL));
        SHOW(mount(NULL, "other", NULL, MS_REMOUNT | MS_BIND, NULL));
        SHOW(mount(NULL, "other", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
        SHOW(mount(NULL, "other", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, NULL));
        SHOW(mkdir("other/x", 0755)); SHOW(umount2("other", 0));
        SHOW(mount("none", "other", "tmpfs", MS_RDONLY, "")); SHOW(mount(NULL, "other", NULL, MS_REMOUNT, NULL)));
    reap("less privileged", pid);
    MUST(umount2("k", 0));
}

/* File systems that show other namespaces belong to the owners of these. */
static void owners(void)
{
    CASE("owners");
    MUST(mkdir("o", 0755));
    SHOW(mount("none", "o", "mqueue", 0, ""));
    SHOW(mount("none", "o", "proc", 0, ""));
    SHOW(mount("none", "o", "sysfs", 0, ""));
    pid_t pid = CHILD(MUST(unshare(CLONE_NEWIPC)); SHOW(mount("none", "o", "mqueue", 0, "")));
    reap("own queues", pid);
    umount2("o", MNT_DETACH);
    put_file("ns", "", 0644);
    int own = MUST(open("/proc/self/ns/mnt", O_RDONLY));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", own);
    SHOW(mount(path, "ns", NULL, MS_BIND, NULL));
    close(own);
}

/* Who follows a group that ends follows what that one followed. */
static void followers(void)
{
    CASE("followers");
    static const char *const names[] = {"f1", "f2", "f3"};
    MUST(mkdir("f1", 0755)), MUST(mkdir("f2", 0755)), MUST(mkdir("f3", 0755));
    MUST(mount("none", "f1", "tmpfs", 0, "mode=755"));
    MUST(mount(NULL, "f1", NULL, MS_SHARED, NULL));
    MUST(mkdir("f1/x", 0755));
    for (int i = 0; i < 2; i++) {
        MUST(mount(names[i], names[i + 1], NULL, MS_BIND, NULL));
        MUST(mount(NULL, names[i + 1], NULL, MS_SLAVE, NULL));
        MUST(mount(NULL, names[i + 1], NULL, MS_SHARED, NULL));
    }
    MUST(mount(NULL, "f2", NULL, MS_PRIVATE, NULL));
    for (int i = 0; i < 3; i++)
        show_mount(names[i]);
    MUST(mount("none", "f1/x", "tmpfs", 0, "mode=755"));
    show_mount("f2/x");
    show_mount("f3/x");
    for (int i = 0; i < 3; i++)
        MUST(umount2(names[i], MNT_DETACH));
}

static void pivot(void)
{
    CASE("pivot_root");
    SHOW(syscall(SYS_pivot_root, "a", "a"));
    SHOW(syscall(SYS_pivot_root, "nothing", "a"));
    SHOW(syscall(SYS_pivot_root, "file", "a"));
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    MUST(mount("none", "a", "tmpfs", 0, NULL));
    MUST(mkdir("a/old", 0755));
    MUST(mkdir("a/new", 0755));
    SHOW(syscall(SYS_pivot_root, "a/new", "a/old"));
    SHOW(syscall(SYS_pivot_root, "a", "b"));
    SHOW(syscall(SYS_pivot_root, "a", "/"));
    MUST(mount("none", "a/new", "tmpfs", 0, NULL));
    put_file("a/mark", "m", 0644);
    SHOW(syscall(SYS_pivot_root, "a", "a/old"));
    char cwd[256];
    SHOW(chdir("/"));
    SHOW(access("/mark", F_OK));
    SHOW(access("/old/proc/self", F_OK));
    say("cwd %s", getcwd(cwd, sizeof cwd));
    SHOW(umount2("/old", 0));
    SHOW(umount2("/old", MNT_DETACH));
    SHOW(access("/old/proc", F_OK));
    SHOW(chdir("/new"));
    SHOW(syscall(SYS_pivot_root, ".", "."));
    SHOW(umount2(".", MNT_DETACH));
    SHOW(chdir("/"));
    SHOW(access("/mark", F_OK));
    SHOW(chdir(".."));
    say("cwd %s", getcwd(cwd, sizeof cwd));
}

int main(void)
{
    enter();
    scratch();
    MUST(mount("none", ".", "tmpfs", 0, "mode=755"));
    MUST(chdir(scratch_path));
    MUST(mount(NULL, ".", NULL, MS_PRIVATE, NULL));
    basics();
    isolation();
    propagation();
    moves();
    kept();
    owners();
    followers();
    pid_t pid = CHILD(pivot());
    reap("pivot", pid);
    chdir("/");
    umount2(scratch_path, MNT_DETACH);
    return 0;
}
