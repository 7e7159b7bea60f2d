/*
 * Flags of files (ioctl_iflags(2)): what immutable and append-only files and directories refuse,
 * and what the flags look like elsewhere; clones that cannot be, and who may set flags at all.
 * USER: root
 */
#include "check.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

static int file, reader, other;
static const struct timespec times[2] = {{1, 1}, {1, 1}};

static void set(int fd, int flags)
{
    MUST(ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

static void show_flags(int fd)
{
    int flags = 0x5555;
    struct fsxattr extended;
    struct statx stx;
    memset(&extended, 0xff, sizeof extended);
    SHOW(ioctl(fd, FS_IOC_GETFLAGS, &flags));
    SHOW(ioctl(fd, FS_IOC_FSGETXATTR, &extended));
    SHOW(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx));
    unsigned known = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP;
    say("%x %x %u %u, statx %x of %x", flags, extended.fsx_xflags, extended.fsx_projid,
        extended.fsx_extsize, (unsigned)stx.stx_attributes & known,
        (unsigned)stx.stx_attributes_mask & known);
}

static void close_if(int fd)
{
    say("opened: %s", fd >= 0 ? "yes" : error_name(errno));
    if (fd >= 0)
        close(fd);
}

static void each_flag(void)
{
    CASE("each flag");
    for (int bit = 0; bit < 32; bit++) {
        int flags = (int)(1u << bit);
        errno = 0;
        int result = ioctl(file, FS_IOC_SETFLAGS, &flags);
        say("%x: %s", flags, result ? error_name(errno) : "ok");
        if (!result)
            show_flags(file);
        set(file, 0);
    }
    SHOW(ioctl(file, FS_IOC_GETFLAGS, BAD));
    SHOW(ioctl(file, FS_IOC_SETFLAGS, BAD));
    struct fsxattr extended = {.fsx_xflags = FS_XFLAG_NODUMP | FS_XFLAG_APPEND};
    SHOW(ioctl(file, FS_IOC_FSSETXATTR, &extended));
    show_flags(file);
    extended.fsx_xflags = FS_XFLAG_REALTIME;
    SHOW(ioctl(file, FS_IOC_FSSETXATTR, &extended));
    set(file, 0);
    int ends[2], flags;
    MUST(pipe(ends));
    SHOW(ioctl(ends[0], FS_IOC_GETFLAGS, &flags));
    SHOW(ioctl(ends[0], FS_IOC_FSGETXATTR, &extended));
    close(ends[0]), close(ends[1]);
}

struct attributes {
    uint64_t flags;
    uint32_t extent, extents, project, cow_extent, more[2];
};

/* file_getattr(2) and file_setattr(2): since Linux 6.17. */
static void by_path(void)
{
    CASE("by path");
    struct attributes attr = {0};
    size_t size = offsetof(struct attributes, more);
    errno = 0;
    if (syscall(468, -1, "a", &attr, size, 0) == -1 && errno == ENOSYS) {
        say("not on this Linux");
        return;
    }
    SHOW(syscall(468, -1, "a", &attr, size, 0));
    SHOW(syscall(468, AT_FDCWD, "nosuch", &attr, size, 0));
    SHOW(syscall(468, AT_FDCWD, BAD, &attr, size, 0));
    SHOW(syscall(468, AT_FDCWD, "a", BAD, size, 0));
    SHOW(syscall(468, AT_FDCWD, "a", &attr, 0, 0));
    SHOW(syscall(468, AT_FDCWD, "a", &attr, size - 1, 0));
    SHOW(syscall(468, AT_FDCWD, "a", &attr, 4097, 0));
    SHOW(syscall(468, AT_FDCWD, "a", &attr, size, 1));
    SHOW(syscall(468, file, "a", &attr, size, 0));
    SHOW(syscall(468, AT_FDCWD, "a", &attr, size, 0));
    say("%llx", (unsigned long long)attr.flags);
    attr.flags = FS_XFLAG_NODUMP;
    SHOW(syscall(469, AT_FDCWD, "a", &attr, size, 0));
    show_flags(file);
    attr.flags = 0;
    SHOW(syscall(469, file, "", &attr, size, AT_EMPTY_PATH));
    show_flags(file);
    attr.more[1] = 1;
    SHOW(syscall(469, AT_FDCWD, "a", &attr, sizeof attr, 0));
    attr.more[1] = 0;
    SHOW(syscall(469, AT_FDCWD, "a", &attr, sizeof attr, 0));
    attr.project = 7;
    SHOW(syscall(469, AT_FDCWD, "a", &attr, size, 0));
    attr.project = 0;
    attr.flags = FS_XFLAG_EXTSIZE;
    SHOW(syscall(469, AT_FDCWD, "a", &attr, size, 0));
    attr.flags = 1ull << 40;
    SHOW(syscall(469, AT_FDCWD, "a", &attr, size, 0));
    SHOW(syscall(469, AT_FDCWD, "a", &attr, size, -1));
    SHOW(syscall(469, -1, "a", BAD, size, 0));
    SHOW(syscall(468, AT_FDCWD, "/proc/self/stat", &attr, size, 0));
}

/* What is tried with the file "a", whose flags have just been set. */
static void try_all(void)
{
    SHOW(write(file, "x", 1));
    close_if(open("a", O_RDWR));
    close_if(open("a", O_RDWR | O_APPEND));
    close_if(open("a", O_WRONLY | O_APPEND | O_TRUNC));
    close_if(open("a", O_RDONLY | O_TRUNC));
    close_if(open("a", O_RDONLY));
    SHOW(access("a", W_OK));
    SHOW(access("a", R_OK));
    SHOW(unlink("a"));
    SHOW(rename("a", "c"));
    SHOW(rename("b", "a"));
    SHOW(link("a", "c"));
    SHOW(chmod("a", 0644));
    SHOW(fchmod(file, 0644));
    SHOW(chown("a", 0, 0));
    SHOW(fchown(file, 1, 1));
    SHOW(utimensat(AT_FDCWD, "a", NULL, 0));
    SHOW(utimensat(AT_FDCWD, "a", times, 0));
    SHOW(futimens(file, times));
    SHOW(setxattr("a", "user.x", "y", 1, 0));
    SHOW(removexattr("a", "user.x"));
    SHOW(truncate("a", 0));
    SHOW(ftruncate(file, 3));
    SHOW(fallocate(file, 0, 0, 10));
    SHOW(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 10));
    SHOW(copy_file_range(other, &(loff_t){0}, file, &(loff_t){0}, 4, 0));
}

static void immutable(void)
{
    CASE("immutable");
    set(reader, FS_IMMUTABLE_FL);
    try_all();
    set(file, 0);
    SHOW(chmod("a", 0600));
    close_if(open("a", O_RDWR));
}

static void append_only(void)
{
    CASE("append only");
    set(file, FS_APPEND_FL);
    try_all();
    set(file, FS_APPEND_FL | FS_IMMUTABLE_FL);
    SHOW(utimensat(AT_FDCWD, "a", NULL, 0));
    SHOW(ftruncate(file, 3));
    set(file, FS_APPEND_FL);
    int fd = MUST(open("a", O_WRONLY | O_APPEND));
    SHOW(fcntl(fd, F_SETFL, 0));
    SHOW(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK));
    SHOW(write(fd, "more", 4));
    close(fd);
    set(file, 0);
}

static void directories(void)
{
    CASE("an immutable directory");
    MUST(mkdir("d", 0755));
    put_file("d/f", "text", 0644);
    int dir = MUST(open("d", O_RDONLY | O_DIRECTORY));
    set(dir, FS_IMMUTABLE_FL);
    close_if(open("d/g", O_CREAT | O_RDWR, 0600));
    close_if(open("d/f", O_RDWR));
    SHOW(access("d", W_OK));
    SHOW(unlink("d/f"));
    SHOW(mkdir("d/h", 0700));
    SHOW(mknod("d/h", S_IFIFO | 0600, 0));
    SHOW(symlink("b", "d/h"));
    SHOW(link("b", "d/h"));
    SHOW(rename("d/f", "d/h"));
    SHOW(rename("d/f", "h"));
    SHOW(rename("b", "d/h"));
    SHOW(rmdir("d"));
    SHOW(rename("d", "e"));
    SHOW(chmod("d", 0700));

    CASE("an append-only directory");
    set(dir, FS_APPEND_FL);
    close_if(open("d/g", O_CREAT | O_RDWR, 0600));
    SHOW(mkdir("d/h", 0700));
    SHOW(symlink("b", "d/i"));
    SHOW(unlink("d/f"));
    SHOW(rmdir("d/h"));
    SHOW(rename("d/f", "d/k"));
    SHOW(rename("d/f", "k"));
    SHOW(rename("b", "d/m"));
    SHOW(rename("d/m", "b"));
    SHOW(rmdir("d"));
    set(dir, 0);
    SHOW(rename("d/m", "b"));
    close(dir);
}

static void no_access_time(void)
{
    CASE("no access time");
    struct stat st;
    char byte;
    MUST(utimensat(AT_FDCWD, "b", times, 0));
    int fd = MUST(open("b", O_RDONLY));
    set(fd, FS_NOATIME_FL);
    SHOW(read(fd, &byte, 1));
    MUST(fstat(fd, &st));
    SHOW_IF(st.st_atim.tv_sec == 1);
    set(fd, 0);
    SHOW(pread(fd, &byte, 1, 0));
    MUST(stat("b", &st));
    SHOW_IF(st.st_atim.tv_sec == 1);
    close(fd);
}

static void strangers(void)
{
    CASE("who may");
    int flags = FS_NODUMP_FL;
    MUST(chown("b", 65534, 65534));
    int fd = MUST(open("b", O_RDONLY));
    reap("stranger", CHILD({
             MUST(setgid(65534));
             MUST(setuid(65534));
             SHOW(ioctl(file, FS_IOC_SETFLAGS, &flags));
             SHOW(ioctl(file, FS_IOC_GETFLAGS, &flags));
             flags = FS_NODUMP_FL;
             SHOW(ioctl(fd, FS_IOC_SETFLAGS, &flags));
             flags = FS_IMMUTABLE_FL;
             SHOW(ioctl(fd, FS_IOC_SETFLAGS, &flags));
             flags = 0;
             SHOW(ioctl(fd, FS_IOC_SETFLAGS, &flags));
         }));
    close(fd);
}

static void clones(void)
{
    CASE("clones");
    int dir = MUST(open(".", O_RDONLY)), append = MUST(open("a", O_RDWR | O_APPEND));
    int writer = MUST(open("b", O_WRONLY)), null = MUST(open("/dev/null", O_RDWR));
    struct file_clone_range range = {.src_fd = other};
    SHOW(ioctl(file, FICLONE, other));
    SHOW(ioctl(file, FICLONE, -1));
    SHOW(ioctl(file, FICLONE, dir));
    SHOW(ioctl(dir, FICLONE, file));
    SHOW(ioctl(reader, FICLONE, other));
    SHOW(ioctl(file, FICLONE, writer));
    SHOW(ioctl(append, FICLONE, other));
    SHOW(ioctl(file, FICLONE, null));
    SHOW(ioctl(null, FICLONE, null));
    SHOW(ioctl(file, FICLONERANGE, &range));
    SHOW(ioctl(file, FICLONERANGE, BAD));
    SHOW(ioctl(null, FICLONERANGE, BAD));
    struct fiemap map = {0};
    SHOW(ioctl(file, FS_IOC_FIEMAP, &map));
    SHOW(ioctl(null, FS_IOC_FIEMAP, &map));
    close(dir), close(append), close(writer), close(null);
}

int main(void)
{
    /* Only a tmpfs is the same everywhere. */
    char room[] = "/dev/shm/guest.XXXXXX";
    NEED(mkdtemp(room) != NULL);
    MUST(chdir(room));
    MUST(chmod(".", 0755));
    umask(022);
    put_file("a", "contents", 0644);
    put_file("b", "contents", 0644);
    file = MUST(open("a", O_RDWR));
    reader = MUST(open("a", O_RDONLY));
    other = MUST(open("b", O_RDWR));
    each_flag();
    immutable();
    append_only();
    directories();
    no_access_time();
    strangers();
    clones();
    by_path();
    MUST(chdir("/"));
    nftw(room, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    SHOW_IF(access(room, F_OK) == -1);
    return 0;
}
