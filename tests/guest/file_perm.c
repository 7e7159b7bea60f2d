/*
 * Permissions: who may read, write, search; chmod, chown, the sticky bit, set-id bits.
 * USER: root
 */
#include "check.h"

#include <grp.h>
#include <sys/fsuid.h>

static void mode_of(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == -1)
        say("%s: %s", path, error_name(errno));
    else
        say("%s: %o %d:%d", path, st.st_mode, st.st_uid, st.st_gid);
}

static void as(uid_t uid, gid_t gid)
{
    MUST(setgroups(0, NULL));
    MUST(setresgid(gid, gid, gid));
    MUST(setresuid(uid, uid, uid));
}

#define AS(uid, gid, ...) reap("user " #uid, CHILD(as(uid, gid); __VA_ARGS__))

static int opened(const char *path, int flags)
{
    int fd = open(path, flags);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? -1 : 0;
}

int main(void)
{
    scratch();
    put_file("private", "p", 0600);
    put_file("group", "g", 0640);
    put_file("none", "n", 0);
    put_file("wo", "w", 0222);
    MUST(chown("group", 0, 2000));
    MUST(mkdir("closed", 0700));
    put_file("closed/inside", "i", 0644);
    MUST(mkdir("listable", 0744));
    put_file("listable/inside", "i", 0644);
    MUST(mkdir("passable", 0711));
    put_file("passable/inside", "i", 0644);
    MUST(mkdir("sticky", 0755));
    MUST(chmod("sticky", 01777));
    put_file("sticky/roots", "r", 0666);
    CASE("reading and writing");
    AS(1000, 1000, {
        SHOW(opened("private", O_RDONLY));
        SHOW(opened("group", O_RDONLY));
        SHOW(opened("none", O_RDONLY));
        SHOW(opened("wo", O_RDONLY));
        SHOW(opened("wo", O_WRONLY));
        SHOW(opened("closed/inside", O_RDONLY));
        SHOW(opened("closed", O_RDONLY));
        SHOW(opened("listable", O_RDONLY));
        SHOW(opened("listable/inside", O_RDONLY));
        SHOW(opened("passable", O_RDONLY));
        SHOW(opened("passable/inside", O_RDONLY));
        SHOW(open("new", O_RDWR | O_CREAT, 0644));
        SHOW(mkdir("newdir", 0755));
        SHOW(unlink("private"));
        SHOW(rename("private", "renamed"));
        SHOW(symlink("x", "soft"));
        SHOW(chmod("group", 0777));
        SHOW(chown("group", 1000, -1));
        SHOW(truncate("group", 0));
        SHOW(utimensat(AT_FDCWD, "group", NULL, 0));
        SHOW(chdir("closed"));
        SHOW(access("group", R_OK));
        SHOW(access("group", F_OK));
        SHOW(access("closed/inside", F_OK));
        SHOW(access("absent", F_OK));
        SHOW(access("wo", W_OK));
        SHOW(access("wo", R_OK | W_OK));
        SHOW(access("wo", X_OK));
        SHOW(access("wo", 8));
    });
    AS(1000, 2000, SHOW(opened("group", O_RDONLY)); SHOW(opened("group", O_WRONLY)));
    CASE("supplementary groups");
    reap("member", CHILD({
        gid_t groups[] = {5, 2000};
        MUST(setgroups(2, groups));
        MUST(setresgid(1000, 1000, 1000));
        MUST(setresuid(1000, 1000, 1000));
        SHOW(opened("group", O_RDONLY));
    }));
    CASE("the owner's bits are the owner's, even when others have more");
    put_file("odd", "o", 0077);
    MUST(chown("odd", 1000, 1000));
    AS(1000, 1000, SHOW(opened("odd", O_RDONLY)); SHOW(chmod("odd", 0400)); SHOW(opened("odd", O_RDONLY)));
    AS(1001, 1001, SHOW(opened("odd", O_RDONLY)));
    CASE("root");
    SHOW(opened("none", O_RDWR));
    SHOW(access("none", R_OK | W_OK));
    SHOW(access("none", X_OK));
    SHOW(access("closed", X_OK));
    CASE("sticky");
    AS(1000, 1000, {
        SHOW(unlink("sticky/roots"));
        SHOW(rename("sticky/roots", "sticky/x"));
        put_file("sticky/mine", "m", 0644);
        SHOW(rename("sticky/mine", "sticky/still-mine"));
    });
    AS(1001, 1001, SHOW(unlink("sticky/still-mine")));
    AS(1000, 1000, SHOW(unlink("sticky/still-mine")));
    CASE("chmod and chown");
    put_file("file", "f", 0644);
    SHOW(chmod("file", 06755));
    mode_of("file");
    SHOW(chown("file", 1000, 1001));
    mode_of("file");
    SHOW(chown("file", -1, 1002));
    SHOW(chown("file", 1003, -1));
    mode_of("file");
    SHOW(chmod("absent", 0644));
    MUST(symlink("file", "link"));
    SHOW(lchown("link", 7, 8));
    mode_of("link");
    mode_of("file");
    SHOW(fchownat(AT_FDCWD, "link", 9, 9, 0));
    mode_of("file");
    int fd = MUST(open("file", O_RDONLY));
    SHOW(fchmod(fd, 0604));
    SHOW(fchown(fd, 10, 10));
    SHOW(fchownat(fd, "", 11, 11, AT_EMPTY_PATH));
    mode_of("file");
    SHOW(fchmodat(AT_FDCWD, "file", 0600, 0));
    SHOW(syscall(SYS_fchmodat, AT_FDCWD, "link", 0640));
    mode_of("file");
    CASE("an owner may give the file to a group of hers only");
    MUST(chown("file", 1000, 1000));
    reap("owner", CHILD({
        gid_t groups[] = {3000};
        MUST(setgroups(1, groups));
        MUST(setresgid(1000, 1000, 1000));
        MUST(setresuid(1000, 1000, 1000));
        SHOW(chown("file", -1, 3000));
        SHOW(chown("file", -1, 3001));
        SHOW(chown("file", 1000, -1));
        SHOW(chown("file", 1001, -1));
    }));
    mode_of("file");
    CASE("writing clears set-id bits");
    MUST(chmod("file", 06777));
    AS(1001, 1001, int w = MUST(open("file", O_WRONLY)); MUST(write(w, "x", 1)));
    mode_of("file");
    CASE("set-group-id directory");
    MUST(mkdir("sgid", 0755));
    MUST(chown("sgid", 0, 4000));
    MUST(chmod("sgid", 02777));
    AS(1000, 1000, put_file("sgid/file", "x", 0644); MUST(mkdir("sgid/sub", 0755)));
    mode_of("sgid/file");
    mode_of("sgid/sub");
    CASE("effective and real ids");
    reap("access uses the real ids", CHILD({
        MUST(setresuid(1000, 0, 0));
        SHOW(opened("private", O_RDONLY));
        SHOW(access("private", R_OK));
        SHOW(faccessat(AT_FDCWD, "private", R_OK, AT_EACCESS));
    }));
    reap("fsuid", CHILD({
        setfsuid(1000);
        SHOW(opened("private", O_RDONLY));
        setfsuid(0);
        SHOW(opened("private", O_RDONLY));
    }));
    reap("seteuid back and forth", CHILD({
        MUST(seteuid(1000));
        SHOW(opened("private", O_RDONLY));
        MUST(seteuid(0));
        SHOW(opened("private", O_RDONLY));
    }));
    CASE("utimensat");
    put_file("times", "t", 0666);
    struct timespec both_now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}}, given[2] = {{1000, 5}, {2000, 7}};
    AS(1000, 1000, SHOW(utimensat(AT_FDCWD, "times", both_now, 0)); SHOW(utimensat(AT_FDCWD, "times", given, 0)));
    CASE("set-user-id programs run as their owner");
    mode_of("private");
    return 0;
}
