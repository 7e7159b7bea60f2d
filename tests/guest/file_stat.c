/* stat, statx, times, statfs, extended attributes, openat2. */
#include "check.h"

#include <linux/openat2.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

static long openat2(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags, .resolve = resolve};
    long fd = syscall(SYS_openat2, dir, path, &how, sizeof how);
    if (fd >= 0) {
        close(fd);
        return 0;
    }
    return fd;
}

static void times(void)
{
    struct stat st, later;
    CASE("times");
    put_file("file", "text", 0644);
    struct timespec given[2] = {{1000000000, 123456789}, {1100000000, 987654321}};
    SHOW(utimensat(AT_FDCWD, "file", given, 0));
    MUST(stat("file", &st));
    say("%ld.%09ld %ld.%09ld", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    given[0].tv_nsec = UTIME_OMIT;
    given[1].tv_sec = 5;
    SHOW(utimensat(AT_FDCWD, "file", given, 0));
    MUST(stat("file", &st));
    say("%ld %ld", (long)st.st_atim.tv_sec, (long)st.st_mtim.tv_sec);
    given[0].tv_nsec = 1000000000;
    SHOW(utimensat(AT_FDCWD, "file", given, 0));
    SHOW(utimensat(AT_FDCWD, "absent", NULL, 0));
    SHOW(utimensat(AT_FDCWD, "file", BAD, 0));
    SHOW(utimensat(99, "file", NULL, 0));
    SHOW(utimensat(AT_FDCWD, "file", NULL, 0x1));
    MUST(stat("file", &st));
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    SHOW(utimensat(AT_FDCWD, "file", NULL, 0));
    MUST(stat("file", &st));
    SHOW_IF(labs(st.st_mtim.tv_sec - now.tv_sec) < 60);
    CASE("a write changes mtime and ctime");
    given[0] = given[1] = (struct timespec){1000, 0};
    MUST(utimensat(AT_FDCWD, "file", given, 0));
    int fd = MUST(open("file", O_WRONLY));
    MUST(write(fd, "x", 1));
    MUST(fstat(fd, &st));
    SHOW_IF(st.st_mtim.tv_sec > 1000 && st.st_ctim.tv_sec > 1000 && st.st_atim.tv_sec == 1000);
    MUST(utimensat(AT_FDCWD, "file", given, 0));
    MUST(chmod("file", 0600));
    MUST(stat("file", &later));
    SHOW_IF(later.st_mtim.tv_sec == 1000 && later.st_ctim.tv_sec > 1000);
    MUST(mkdir("dir", 0755));
    MUST(utimensat(AT_FDCWD, "dir", given, 0));
    put_file("dir/new", "", 0644);
    MUST(stat("dir", &st));
    SHOW_IF(st.st_mtim.tv_sec > 1000);
}

static void with_statx(void)
{
    struct statx x;
    struct stat st;
    CASE("statx");
    SHOW(statx(AT_FDCWD, "file", 0, STATX_BASIC_STATS, &x));
    MUST(stat("file", &st));
    SHOW_IF((x.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    SHOW_IF(x.stx_ino == st.st_ino && x.stx_size == (uint64_t)st.st_size && x.stx_mode == st.st_mode);
    SHOW_IF(x.stx_nlink == st.st_nlink && x.stx_uid == st.st_uid && x.stx_blocks == (uint64_t)st.st_blocks);
    SHOW_IF(makedev(x.stx_dev_major, x.stx_dev_minor) == st.st_dev);
    SHOW_IF(x.stx_mtime.tv_sec == st.st_mtim.tv_sec && x.stx_mtime.tv_nsec == st.st_mtim.tv_nsec);
    MUST(symlink("file", "link"));
    SHOW(statx(AT_FDCWD, "link", AT_SYMLINK_NOFOLLOW, STATX_TYPE, &x));
    SHOW_IF(S_ISLNK(x.stx_mode));
    SHOW(statx(AT_FDCWD, "", AT_EMPTY_PATH, STATX_TYPE, &x));
    SHOW_IF(S_ISDIR(x.stx_mode));
    SHOW(statx(AT_FDCWD, "", 0, STATX_TYPE, &x));
    SHOW(statx(AT_FDCWD, "absent", 0, STATX_TYPE, &x));
    SHOW(statx(AT_FDCWD, "file", 0x1, STATX_TYPE, &x));
    SHOW(statx(AT_FDCWD, "file", AT_STATX_SYNC_TYPE, STATX_TYPE, &x));
    SHOW(statx(AT_FDCWD, "file", 0, 0x80000000, &x));
    SHOW(statx(AT_FDCWD, "file", 0, STATX_TYPE, BAD));
    SHOW(statx(0, "", AT_EMPTY_PATH, STATX_TYPE, &x));
    SHOW_IF(S_ISCHR(x.stx_mode) && x.stx_rdev_major == 1 && x.stx_rdev_minor == 3);
    CASE("stat");
    SHOW(stat("absent", &st));
    SHOW(stat("file/x", &st));
    SHOW(stat("file", BAD));
    SHOW(fstat(99, &st));
    SHOW(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
    SHOW(fstatat(99, "file", &st, 0));
    SHOW(stat("/dev/null", &st));
    say("%o %d:%d", st.st_mode & S_IFMT, major(st.st_rdev), minor(st.st_rdev));
    put_file("blocks", "", 0644);
    MUST(stat("blocks", &st));
    say("%ld %ld %ld", (long)st.st_size, (long)st.st_blocks, (long)st.st_blksize);
    struct stat other;
    MUST(stat(".", &st));
    MUST(stat("blocks", &other));
    SHOW_IF(st.st_dev == other.st_dev);
}

static void with_statfs(void)
{
    struct statfs fs;
    struct statvfs vfs;
    CASE("statfs");
    SHOW(statfs(".", &fs));
    SHOW_IF(fs.f_bsize >= 512 && fs.f_blocks >= fs.f_bfree && fs.f_namelen == 255);
    SHOW(statvfs(".", &vfs));
    SHOW(statfs("/proc", &fs));
    say("%lx", (long)fs.f_type);
    SHOW(statfs("absent", &fs));
    SHOW(statfs(".", BAD));
    SHOW(fstatfs(99, &fs));
    int ends[2];
    MUST(pipe(ends));
    SHOW(fstatfs(ends[0], &fs));
    say("%lx", (long)fs.f_type);
}

static void attributes(void)
{
    char value[64] = "", names[256];
    CASE("extended attributes");
    put_file("attr", "", 0644);
    if (setxattr("attr", "user.probe", "x", 1, 0) == -1 && errno == EOPNOTSUPP) {
        /* The host's file system has none: nothing to compare with. */
        return;
    }
    MUST(removexattr("attr", "user.probe"));
    SHOW(setxattr("attr", "user.one", "first", 5, 0));
    SHOW(setxattr("attr", "user.one", "x", 1, XATTR_CREATE));
    SHOW(setxattr("attr", "user.two", "x", 1, XATTR_REPLACE));
    SHOW(setxattr("attr", "user.two", "", 0, 0));
    SHOW(getxattr("attr", "user.one", value, sizeof value));
    say("%s", value);
    SHOW(getxattr("attr", "user.one", NULL, 0));
    SHOW(getxattr("attr", "user.one", value, 3));
    SHOW(getxattr("attr", "user.two", value, 3));
    SHOW(getxattr("attr", "user.absent", value, 3));
    SHOW(getxattr("absent", "user.one", value, 3));
    SHOW(setxattr("attr", "nonsense", "x", 1, 0));
    SHOW(setxattr("attr", "user.", "x", 1, 0));
    SHOW(setxattr("attr", "unknown.name", "x", 1, 0));
    SHOW(setxattr("attr", "user.one", "x", 1, 7));
    SHOW(setxattr("attr", "user.one", value, 70000, 0));
    long size = listxattr("attr", names, sizeof names);
    int mine = 0;
    for (char *name = names; name < names + size; name += strlen(name) + 1)
        mine += strncmp(name, "user.", 5) == 0;
    say("%d of mine", mine);
    SHOW(listxattr("attr", names, 1));
    SHOW(removexattr("attr", "user.one"));
    SHOW(removexattr("attr", "user.one"));
    int fd = MUST(open("attr", O_RDWR));
    SHOW(fsetxattr(fd, "user.three", "3", 1, 0));
    SHOW(fgetxattr(fd, "user.three", value, 10));
    SHOW(fremovexattr(fd, "user.three"));
    SHOW(lsetxattr("link", "user.x", "x", 1, 0));
}

static void resolving(void)
{
    CASE("openat2");
    MUST(mkdir("root", 0755));
    put_file("root/inside", "", 0644);
    MUST(symlink("inside", "root/link"));
    MUST(symlink("../file", "root/out"));
    MUST(symlink("/inside", "root/absolute"));
    int dir = MUST(open("root", O_RDONLY | O_DIRECTORY));
    SHOW(openat2(dir, "inside", O_RDONLY, 0));
    SHOW(openat2(dir, "../file", O_RDONLY, RESOLVE_BENEATH));
    SHOW(openat2(dir, "inside", O_RDONLY, RESOLVE_BENEATH));
    SHOW(openat2(dir, "../root/inside", O_RDONLY, RESOLVE_BENEATH));
    SHOW(openat2(dir, "/inside", O_RDONLY, RESOLVE_BENEATH));
    SHOW(openat2(dir, "out", O_RDONLY, RESOLVE_BENEATH));
    SHOW(openat2(dir, "absolute", O_RDONLY, RESOLVE_BENEATH));
    SHOW(openat2(dir, "link", O_RDONLY, RESOLVE_BENEATH));
    SHOW(openat2(dir, "link", O_RDONLY, RESOLVE_NO_SYMLINKS));
    SHOW(openat2(dir, "absolute", O_RDONLY, RESOLVE_IN_ROOT));
    SHOW(openat2(dir, "/inside", O_RDONLY, RESOLVE_IN_ROOT));
    SHOW(openat2(dir, "../../inside", O_RDONLY, RESOLVE_IN_ROOT));
    SHOW(openat2(dir, "out", O_RDONLY, RESOLVE_IN_ROOT));
    SHOW(openat2(dir, "/proc/self/exe", O_RDONLY, RESOLVE_NO_MAGICLINKS));
    SHOW(openat2(dir, "/proc/self/stat", O_RDONLY, RESOLVE_NO_XDEV));
    SHOW(openat2(dir, "inside", O_RDONLY, RESOLVE_BENEATH | RESOLVE_IN_ROOT));
    SHOW(openat2(dir, "inside", O_RDONLY, 1 << 20));
    SHOW(openat2(dir, "inside", 1ull << 40, 0));
    SHOW(openat2(dir, "inside", O_PATH | O_RDWR, 0));
    struct open_how how = {.flags = O_RDONLY, .mode = 0644};
    SHOW(syscall(SYS_openat2, dir, "inside", &how, sizeof how));
    how.mode = 0;
    SHOW(syscall(SYS_openat2, dir, "inside", &how, 8));
    SHOW(syscall(SYS_openat2, dir, "inside", BAD, sizeof how));
    struct {
        struct open_how how;
        uint64_t more;
    } longer = {how, 1};
    SHOW(syscall(SYS_openat2, dir, "inside", &longer, sizeof longer));
    longer.more = 0;
    SHOW_OK(syscall(SYS_openat2, dir, "inside", &longer, sizeof longer));
}

int main(void)
{
    scratch();
    times();
    with_statx();
    with_statfs();
    attributes();
    resolving();
    return 0;
}
