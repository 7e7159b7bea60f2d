/* User namespaces: maps, what ids show as, capabilities, and who may do what. */
#include "check.h"

#include <grp.h>
#include <linux/nsfs.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

static long put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return -1;
    long result = write(fd, text, strlen(text));
    int saved = errno;
    close(fd);
    errno = saved;
    return result == -1 ? -1 : 0;
}

static void show_ids(const char *what)
{
    uid_t uids[3];
    gid_t gids[3];
    MUST(getresuid(uids, uids + 1, uids + 2));
    MUST(getresgid(gids, gids + 1, gids + 2));
    say("%s: uid %u %u %u gid %u %u %u", what, uids[0], uids[1], uids[2], gids[0], gids[1],
        gids[2]);
}

static void show_line(const char *file, const char *name)
{
    char line[256];
    FILE *f = fopen(file, "r");
    NEED(f != NULL);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0) {
            line[strcspn(line, "\n")] = 0;
            say("%s", line);
        }
    fclose(f);
}

static char uid_line[64], gid_line[64];

static void maps(void)
{
    CASE("before the maps");
    MUST(unshare(CLONE_NEWUSER));
    show_ids("unmapped");
    show_line("/proc/self/status", "Uid");
    show_line("/proc/self/status", "CapEff");
    show_line("/proc/self/status", "CapInh");
    SHOW(setuid(0));
    SHOW(setgroups(0, NULL));
    SHOW(prctl(PR_GET_SECUREBITS));
    show_file("/proc/self/uid_map");
    show_file("/proc/self/setgroups");
    CASE("writing them");
    SHOW(put("/proc/self/uid_map", "x"));
    SHOW(put("/proc/self/uid_map", "0 0 0\n"));
    SHOW(put("/proc/self/uid_map", "0 1\n"));
    SHOW(put("/proc/self/uid_map", "0 1 2 3\n"));
    SHOW(put("/proc/self/uid_map", "0 1 4294967295\n"));
    SHOW(put("/proc/self/gid_map", gid_line));
    SHOW(put("/proc/self/setgroups", "perhaps"));
    SHOW(put("/proc/self/setgroups", "deny"));
    SHOW(put("/proc/self/setgroups", "allow"));
    SHOW(put("/proc/self/gid_map", gid_line));
    SHOW(put("/proc/self/gid_map", gid_line));
    show_ids("group");
    SHOW(put("/proc/self/uid_map", uid_line));
    SHOW(put("/proc/self/uid_map", uid_line));
    show_ids("both");
    SHOW(put("/proc/self/setgroups", "deny"));
    SHOW(setgroups(0, NULL));
    SHOW(getgroups(0, NULL) >= 0);
}

static void ids(void)
{
    CASE("ids");
    SHOW(setuid(0));
    SHOW(setuid(1));
    SHOW(setresuid(-1, 5, -1));
    SHOW(setreuid(0, 0));
    SHOW(setfsuid(7));
    SHOW(setgid(3));
    const char *path = scratch();
    (void)path;
    put_file("mine", "x", 0644);
    struct stat st;
    MUST(stat("mine", &st));
    say("owner %u %u", st.st_uid, st.st_gid);
    SHOW(chown("mine", 0, 0));
    SHOW(chown("mine", 1, -1));
    SHOW(chown("mine", -1, 1));
    SHOW(chmod("mine", 0600));
    SHOW(access("/proc/1/root", F_OK) == 0);
    SHOW(mknod("device", S_IFCHR | 0600, 1 << 8 | 3));
}

static void rights(void)
{
    CASE("rights");
    SHOW(sethostname("x", 1));
    SHOW(chroot("/"));
    SHOW(nice(-1));
    SHOW(prctl(PR_CAPBSET_DROP, 5));
    SHOW(prctl(PR_CAPBSET_READ, 5));
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_max++;
    SHOW(setrlimit(RLIMIT_NOFILE, &limit));
    SHOW(settimeofday(&(struct timeval){1, 1}, NULL));
    pid_t pid = CHILD(SHOW(unshare(CLONE_NEWUSER)); show_ids("nested"); SHOW(unshare(CLONE_NEWUTS));
                      SHOW(sethostname("y", 1)));
    reap("nested", pid);
    int user = MUST(open("/proc/self/ns/user", O_RDONLY)),
        uts = MUST(open("/proc/self/ns/uts", O_RDONLY));
    uid_t owner = 99;
    SHOW(ioctl(user, NS_GET_OWNER_UID, &owner));
    say("owner %u", owner);
    SHOW(ioctl(uts, NS_GET_OWNER_UID, &owner));
    SHOW(ioctl(user, NS_GET_NSTYPE) == CLONE_NEWUSER);
    SHOW(ioctl(user, NS_GET_PARENT));
    SHOW(ioctl(user, NS_GET_USERNS));
    SHOW(ioctl(uts, NS_GET_USERNS));
    SHOW(ioctl(uts, NS_GET_PARENT));
    SHOW(ioctl(user, 0xb7ff));
    SHOW(setns(user, 0));
    SHOW(setns(uts, 0));
    SHOW(setns(0, 0));
    SHOW(setns(999, 0));
    SHOW(open("/proc/self/ns/user", O_RDWR));
    close(user), close(uts);
    SHOW(unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWNET |
                 CLONE_NEWTIME));
    SHOW(sethostname("z", 1));
    uts = MUST(open("/proc/self/ns/uts", O_RDONLY));
    user = (int)MUST(ioctl(uts, NS_GET_USERNS));
    struct stat one, two;
    MUST(fstat(user, &one));
    MUST(stat("/proc/self/ns/user", &two));
    SHOW_IF(one.st_ino == two.st_ino);
}

static void limits(void)
{
    CASE("limits");
    SHOW(put("/proc/sys/user/max_uts_namespaces", "1"));
    SHOW(put("/proc/sys/user/max_uts_namespaces", "x"));
    show_file("/proc/sys/user/max_uts_namespaces");
    SHOW(unshare(CLONE_NEWUTS));
    int depth = 0;
    pid_t pid = CHILD(while (unshare(CLONE_NEWUSER) == 0 && depth < 100) depth++;
                      say("%d deep: %s", depth, error_name(errno)));
    reap("depth", pid);
}

int main(void)
{
    snprintf(uid_line, sizeof uid_line, "0 %u 1\n", geteuid());
    snprintf(gid_line, sizeof gid_line, "0 %u 1\n", getegid());
    maps();
    ids();
    rights();
    limits();
    return 0;
}
