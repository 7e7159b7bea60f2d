/* File system calls beyond open, read and write: their results and their errors. */
#include "check.h"

#include <dirent.h>
#include <linux/openat2.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>

static long open2(const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    return syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

static void shut(const char *what, long fd)
{
    say("%s: %s", what, fd < 0 ? error_name(errno) : "open");
    if (fd >= 0)
        close(fd);
}

static void opening(void)
{
    CASE("open");
    MUST(mkdir("d", 0755));
    MUST(symlink("d", "ld"));
    MUST(symlink("none", "dangling"));
    MUST(symlink("self", "self"));
    put_file("f", "text", 0644);
    shut("dir for writing", open("d", O_RDWR));
    shut("dir with O_CREAT", open("d", O_RDONLY | O_CREAT, 0644));
    shut("O_CREAT|O_DIRECTORY", open("x", O_RDONLY | O_CREAT | O_DIRECTORY, 0644));
    shut("O_DIRECTORY on a file", open("f", O_DIRECTORY));
    shut("O_NOFOLLOW on a link", open("ld", O_NOFOLLOW));
    shut("O_NOFOLLOW|O_DIRECTORY on a link", open("ld", O_NOFOLLOW | O_DIRECTORY));
    shut("O_NOFOLLOW with a slash", open("ld/", O_NOFOLLOW));
    shut("O_PATH|O_NOFOLLOW on a link", open("ld", O_PATH | O_NOFOLLOW));
    shut("O_EXCL on a dangling link", open("dangling", O_CREAT | O_EXCL | O_RDWR, 0644));
    shut("O_CREAT through a dangling link", open("dangling", O_CREAT | O_RDWR, 0644));
    SHOW(access("none", F_OK));
    shut("a loop", open("self", O_RDONLY));
    shut("file with a slash", open("f/", O_RDONLY));
    shut("new with a slash", open("new/", O_RDWR | O_CREAT, 0644));
    shut("O_TMPFILE read-only", open(".", O_TMPFILE | O_RDONLY, 0644));
    shut("a socket", (mknod("sock", S_IFSOCK | 0644, 0), open("sock", O_RDWR)));
    int fd = MUST(open("f", O_RDONLY | O_TRUNC | O_APPEND | O_CLOEXEC));
    say("flags %x, size %ld", fcntl(fd, F_GETFL), (long)lseek(fd, 0, SEEK_END));
    close(fd);
    fd = MUST(open("d", O_PATH));
    say("path flags %x", fcntl(fd, F_GETFL));
    char byte;
    SHOW(read(fd, &byte, 1));
    SHOW(fchmod(fd, 0700));
    struct stat st;
    SHOW(fstat(fd, &st));
    close(fd);
    CASE("openat2");
    shut("beneath", open2("d/../f", O_RDONLY, 0, RESOLVE_BENEATH));
    shut("not beneath", open2("../x", O_RDONLY, 0, RESOLVE_BENEATH));
    shut("absolute", open2("/", O_RDONLY, 0, RESOLVE_BENEATH));
    shut("in root", open2("/../f", O_RDONLY, 0, RESOLVE_IN_ROOT));
    shut("no symlinks", open2("ld/", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
    shut("no magic links", open2("/proc/self/exe", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS));
    shut("no xdev", open2("/proc/self", O_RDONLY, 0, RESOLVE_NO_XDEV));
    shut("unknown flag", open2("f", 1ull << 40, 0, 0));
    shut("mode without O_CREAT", open2("f", 0, 0644, 0));
    shut("both", open2("f", 0, 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT));
}

static void names(void)
{
    CASE("names");
    SHOW(mkdir("d", 0755));
    SHOW(mkdir(".", 0755));
    SHOW(mkdir("e/", 0755));
    SHOW(rmdir("e/."));
    SHOW(rmdir("e/.."));
    SHOW(rmdir("/"));
    SHOW(rmdir("f"));
    SHOW(unlink("d"));
    SHOW(unlink("f/"));
    SHOW(unlink("none5/"));
    SHOW(unlink("."));
    SHOW(link("d", "hard"));
    SHOW(link("f", "hard"));
    SHOW(link("f", "hard"));
    SHOW(link("f", "hard2/"));
    SHOW(linkat(AT_FDCWD, "ld", AT_FDCWD, "ll", 0));
    SHOW(linkat(AT_FDCWD, "f", AT_FDCWD, "x", 0x1));
    SHOW(symlink("", "empty"));
    SHOW(symlink("x", "d"));
    SHOW(mknod("node", S_IFDIR, 0));
    SHOW(mknod("node", 0130000, 0));
    SHOW(mknod("plain", 0600, 0));
    SHOW(rename("f", "hard"));
    SHOW(access("f", F_OK));
    SHOW(rename("d", "d/in"));
    SHOW(rename("d", "f"));
    SHOW(rename("f", "d"));
    SHOW(rename("d/.", "x"));
    SHOW(rename("none5", "x"));
    SHOW(rename("f", "x/"));
    SHOW(rename("e", "x/"));
    put_file("x/inner", "", 0644);
    SHOW(rename("d", "x"));
    SHOW(renameat2(AT_FDCWD, "f", AT_FDCWD, "hard", RENAME_NOREPLACE));
    SHOW(renameat2(AT_FDCWD, "f", AT_FDCWD, "x", RENAME_EXCHANGE));
    SHOW(access("f/inner", F_OK));
    SHOW(renameat2(AT_FDCWD, "f", AT_FDCWD, "none2", RENAME_EXCHANGE));
    SHOW(renameat2(AT_FDCWD, "f", AT_FDCWD, "x", RENAME_EXCHANGE | RENAME_NOREPLACE));
    char name[300];
    memset(name, 'n', 256);
    name[256] = 0;
    SHOW(mkdir(name, 0755));
    name[255] = 0;
    SHOW(mkdir(name, 0755));
    char cwd[PATH_MAX];
    SHOW(syscall(SYS_getcwd, cwd, 3));
    SHOW(chdir("x"));
    SHOW(mkdir("gone", 0755));
    SHOW(chdir("f"));
    SHOW(mkdir("../gone", 0755));
    SHOW(chdir("../gone"));
    SHOW(rmdir("../gone"));
    SHOW(syscall(SYS_getcwd, cwd, sizeof cwd));
    SHOW(mkdir("new", 0755));
    SHOW(open("new", O_CREAT | O_RDWR, 0644));
    SHOW(access(".", F_OK));
    SHOW(chdir(".."));
    SHOW(readlink("ld", cwd, 1));
    SHOW(readlink("hard", cwd, 1));
    SHOW(readlink("ld", cwd, 0));
}

static void data(void)
{
    CASE("data");
    int fd = MUST(open("data", O_RDWR | O_CREAT | O_TRUNC, 0644)), other = MUST(open("copy", O_RDWR | O_CREAT, 0644));
    SHOW(ftruncate(fd, 1 << 20));
    SHOW(pwrite(fd, "mid", 3, 1 << 19));
    SHOW(lseek(fd, 0, SEEK_HOLE));
    SHOW(lseek(fd, 1 << 20, SEEK_DATA));
    SHOW(lseek(fd, -1, SEEK_SET));
    SHOW(lseek(fd, 0, 9));
    SHOW(lseek(fd, 3, SEEK_END));
    SHOW(write(fd, "", 0));
    MUST(lseek(fd, 0, SEEK_SET));
    SHOW(read(fd, (void *)8, 5));
    SHOW(pread(fd, (void *)8, 5, 0));
    SHOW(write(fd, (void *)8, 5));
    SHOW(pread(fd, "", 0, -1));
    struct iovec iov[] = {{"ab", 2}, {(void *)8, 4}, {"cd", 2}};
    SHOW(pwritev(fd, iov, 3, 0));
    SHOW(writev(fd, iov, -1));
    SHOW(writev(fd, iov, 1025));
    SHOW(pwritev2(fd, iov, 1, 0, 0x4000));
    off_t in = 0, out = 1;
    SHOW(copy_file_range(fd, &in, other, &out, 10, 0));
    say("offsets %ld %ld", (long)in, (long)out);
    SHOW(copy_file_range(fd, &in, other, &out, 10, 1));
    in = 1 << 20;
    SHOW(copy_file_range(fd, &in, other, &out, 10, 0));
    in = 0;
    SHOW(sendfile(other, fd, &in, 7));
    SHOW(lseek(other, 0, SEEK_CUR));
    int pair[2];
    MUST(pipe(pair));
    SHOW(sendfile(other, pair[0], NULL, 1));
    in = 0;
    SHOW(splice(fd, &in, pair[1], NULL, 100, 0));
    SHOW(splice(pair[0], NULL, other, NULL, 1000, 0));
    SHOW(splice(pair[0], &in, other, NULL, 1000, 0));
    SHOW(splice(fd, NULL, other, NULL, 1000, 0));
    SHOW(tee(fd, other, 10, 0));
    SHOW(lseek(pair[0], 0, SEEK_CUR));
    SHOW(pread(pair[0], &in, 1, 0));
    SHOW(ftruncate(pair[0], 0));
    SHOW(fsync(pair[0]));
    SHOW(posix_fadvise(pair[0], 0, 0, 0));
    SHOW(fallocate(fd, 0, 0, 0));
    SHOW(fallocate(fd, 0, 0, 4096));
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096));
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    SHOW(fallocate(pair[1], 0, 0, 4096));
    SHOW(truncate("d", 0));
    SHOW(truncate("data", -1));
    SHOW(truncate("none9", 0));
    struct rlimit limit = {100, RLIM_INFINITY};
    MUST(setrlimit(RLIMIT_FSIZE, &limit));
    signal(SIGXFSZ, SIG_IGN);
    /* Standard output may be a file too: say nothing until the limit is off again. */
    long cut = pwrite(other, "0123456789", 10, 95), none = pwrite(other, "0123456789", 10, 100);
    int why = errno, grown = ftruncate(other, 1000);
    limit.rlim_cur = RLIM_INFINITY;
    MUST(setrlimit(RLIMIT_FSIZE, &limit));
    say("RLIMIT_FSIZE: %ld, %ld %s, %d", cut, none, error_name(why), grown);
}

static void attributes(void)
{
    CASE("attributes");
    struct stat st;
    put_file("attr", "12345", 0644);
    SHOW(chmod("attr", 07777));
    MUST(stat("attr", &st));
    say("mode %o size %ld links %ld", st.st_mode, (long)st.st_size, (long)st.st_nlink);
    SHOW(fchmodat(AT_FDCWD, "ld", 0700, AT_SYMLINK_NOFOLLOW));
    SHOW(chown("attr", -1, -1));
    MUST(stat("attr", &st));
    say("mode %o", st.st_mode);
    struct timespec times[2] = {{1, 2}, {3, UTIME_OMIT}};
    SHOW(utimensat(AT_FDCWD, "attr", times, 0));
    MUST(stat("attr", &st));
    say("atime %ld.%ld", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec);
    times[0].tv_nsec = 1000000000;
    SHOW(utimensat(AT_FDCWD, "attr", times, 0));
    SHOW(syscall(SYS_utimensat, AT_FDCWD, NULL, NULL, 0));
    times[0].tv_nsec = times[1].tv_nsec = UTIME_OMIT;
    SHOW(utimensat(AT_FDCWD, "none9", times, 0));
    SHOW(access("attr", 8));
    SHOW(syscall(SYS_faccessat2, AT_FDCWD, "attr", R_OK, 0x8000));
    SHOW(fstatat(AT_FDCWD, "", &st, 0));
    SHOW(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
    say("a directory: %d", S_ISDIR(st.st_mode));
    SHOW(fstatat(99, "x", &st, 0));
    SHOW(fstatat(99, "/", &st, 0));
    int file = MUST(open("attr", O_RDONLY));
    SHOW(fstatat(file, "x", &st, 0));
    SHOW(stat("attr", (void *)8));
    SHOW(getxattr("attr", "user.none", NULL, 0));
    SHOW(getxattr("attr", "none", NULL, 0));
    SHOW(setxattr("attr", "user.", "", 0, 9));
    SHOW(setxattr("attr", "", "", 0, 0));
    SHOW(setxattr("attr", "strange.x", "", 0, 0));
    SHOW(lsetxattr("ld", "user.x", "", 0, 0));
    SHOW(setxattr("attr", "user.x", "", 65537, 0));
    SHOW(fchdir(file));
    SHOW(statfs("none9", &(struct statfs){0}));
    SHOW(umask(07777));
    SHOW(umask(022));
    SHOW(fchownat(AT_FDCWD, "attr", -1, -1, 1));
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void listing(void)
{
    CASE("listing");
    MUST(mkdir("list", 0755));
    MUST(chdir("list"));
    char name[32], *seen[600];
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "n%03d", i);
        put_file(name, "", 0600);
    }
    DIR *dir = opendir(".");
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        seen[count++] = strdup(entry->d_name);
        if (entry->d_name[0] == 'n' && entry->d_type != DT_REG)
            say("type %d", entry->d_type);
    }
    qsort(seen, count, sizeof *seen, compare);
    say("%zu entries, %s %s %s", count, seen[0], seen[2], seen[count - 1]);
    rewinddir(dir);
    long removed = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        removed += unlink(entry->d_name) == 0;
    say("removed %ld", removed);
    closedir(dir);
    char buffer[8];
    int fd = MUST(open(".", O_RDONLY | O_DIRECTORY));
    SHOW(syscall(SYS_getdents64, fd, buffer, sizeof buffer));
    SHOW(read(fd, buffer, 1));
    MUST(chdir(".."));
    SHOW(rmdir("list"));
    SHOW(syscall(SYS_getdents64, fd, seen, sizeof seen));
    int file = MUST(open("attr", O_RDONLY));
    SHOW(syscall(SYS_getdents64, file, seen, sizeof seen));
}

int main(void)
{
    scratch();
    opening();
    names();
    data();
    attributes();
    listing();
    return 0;
}
