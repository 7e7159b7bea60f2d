/* open(2): every flag that decides whether it works, and what the file is afterwards. */
#include "check.h"

static void try_open(const char *what, const char *path, int flags, mode_t mode)
{
    errno = 0;
    int fd = open(path, flags, mode);
    if (fd < 0) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    struct stat st;
    MUST(fstat(fd, &st));
    say("%s: ok, mode %o size %ld", what, st.st_mode, S_ISDIR(st.st_mode) ? 0 : (long)st.st_size);
    close(fd);
}

int main(void)
{
    char text[64];
    scratch();
    put_file("file", "content", 0644);
    MUST(mkdir("dir", 0755));
    MUST(symlink("file", "link"));
    MUST(symlink("dir", "dirlink"));
    MUST(symlink("nowhere", "dangling"));
    MUST(symlink("loop", "loop"));
    CASE("creation");
    try_open("plain", "file", O_RDONLY, 0);
    try_open("absent", "absent", O_RDONLY, 0);
    try_open("CREAT", "new", O_RDWR | O_CREAT, 0600);
    try_open("CREAT again, another mode", "new", O_RDWR | O_CREAT, 0777);
    try_open("CREAT|EXCL", "new2", O_RDWR | O_CREAT | O_EXCL, 0640);
    try_open("CREAT|EXCL again", "new2", O_RDWR | O_CREAT | O_EXCL, 0640);
    try_open("CREAT|EXCL of a link", "link", O_RDWR | O_CREAT | O_EXCL, 0640);
    try_open("CREAT|EXCL of a dangling link", "dangling", O_RDWR | O_CREAT | O_EXCL, 0640);
    try_open("CREAT of a dangling link", "dangling", O_RDWR | O_CREAT, 0640);
    try_open("what it pointed to", "nowhere", O_RDONLY, 0);
    try_open("CREAT of a directory", "dir", O_RDONLY | O_CREAT, 0640);
    try_open("CREAT with a slash", "newdir/", O_RDONLY | O_CREAT, 0640);
    try_open("CREAT in an absent directory", "absent/x", O_RDWR | O_CREAT, 0640);
    try_open("mode bits", "bits", O_RDWR | O_CREAT, 07777);
    umask(077);
    try_open("umask", "masked", O_RDWR | O_CREAT, 0666);
    umask(022);
    CASE("a new file without permissions can be written by its creator");
    int fd = MUST(open("closed", O_RDWR | O_CREAT, 0));
    SHOW(write(fd, "x", 1));
    close(fd);
    CASE("TRUNC");
    put_file("trunc", "long content", 0644);
    try_open("RDWR|TRUNC", "trunc", O_RDWR | O_TRUNC, 0);
    put_file("trunc", "long content", 0644);
    try_open("TRUNC of a link", "link", O_WRONLY | O_TRUNC, 0);
    CASE("directories");
    try_open("RDONLY", "dir", O_RDONLY, 0);
    try_open("WRONLY", "dir", O_WRONLY, 0);
    try_open("RDWR", "dir", O_RDWR, 0);
    try_open("DIRECTORY", "dir", O_RDONLY | O_DIRECTORY, 0);
    try_open("DIRECTORY of a file", "file", O_RDONLY | O_DIRECTORY, 0);
    try_open("DIRECTORY of a link", "dirlink", O_RDONLY | O_DIRECTORY, 0);
    try_open("DIRECTORY|NOFOLLOW of a link", "dirlink", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    try_open("a file with a slash", "file/", O_RDONLY, 0);
    try_open("a directory with a slash", "dir/", O_RDONLY, 0);
    try_open("below a file", "file/x", O_RDONLY, 0);
    fd = MUST(open("dir", O_RDONLY));
    SHOW(read(fd, text, 1));
    SHOW(write(fd, text, 1));
    SHOW(ftruncate(fd, 0));
    close(fd);
    CASE("links");
    try_open("NOFOLLOW", "link", O_RDONLY | O_NOFOLLOW, 0);
    try_open("NOFOLLOW of a file", "file", O_RDONLY | O_NOFOLLOW, 0);
    try_open("loop", "loop", O_RDONLY, 0);
    try_open("through a link", "dirlink/../file", O_RDONLY, 0);
    CASE("O_PATH");
    fd = MUST(open("link", O_PATH | O_NOFOLLOW));
    struct stat st;
    SHOW(fstat(fd, &st));
    SHOW_IF(S_ISLNK(st.st_mode));
    SHOW(readlinkat(fd, "", text, sizeof text));
    SHOW(fchdir(fd));
    close(fd);
    fd = MUST(open("dir", O_PATH));
    SHOW(openat(fd, "absent", O_RDONLY));
    SHOW(fchdir(fd));
    MUST(chdir(".."));
    close(fd);
    try_open("PATH with other flags", "file", O_PATH | O_TRUNC | O_CREAT | O_EXCL, 0);
    CASE("O_TMPFILE");
    fd = open(".", O_TMPFILE | O_RDWR, 0640);
    if (fd < 0 && errno != EOPNOTSUPP)
        say("%s", error_name(errno));
    if (fd >= 0) {
        MUST(write(fd, "tmp", 3));
        MUST(fstat(fd, &st));
        NEED(st.st_mode == (S_IFREG | 0640) && st.st_nlink == 0);
        char name[64];
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        MUST(linkat(AT_FDCWD, name, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW));
        close(fd);
    } else
        put_file("linked", "tmp", 0640);
    show_file("linked");
    try_open("TMPFILE|RDONLY", ".", O_TMPFILE | O_RDONLY, 0640);
    CASE("openat");
    int dir = MUST(open("dir", O_RDONLY | O_DIRECTORY));
    fd = MUST(openat(dir, "inside", O_RDWR | O_CREAT, 0644));
    close(fd);
    try_open("made inside", "dir/inside", O_RDONLY, 0);
    SHOW(openat(99, "x", O_RDONLY));
    SHOW(openat(0, "x", O_RDONLY));
    fd = MUST(openat(99, "/dev/null", O_RDONLY));
    close(fd);
    SHOW(openat(dir, "", O_RDONLY));
    SHOW(open(BAD, O_RDONLY));
    SHOW(creat("created", 0604));
    CASE("odd access mode");
    fd = open("file", 3);
    SHOW_IF(fd >= 0);
    SHOW(read(fd, text, 1));
    SHOW(write(fd, text, 1));
    close(fd);
    CASE("unlinked while open");
    fd = MUST(open("created", O_RDWR | O_CREAT, 0644));
    MUST(write(fd, "still here", 10));
    SHOW(unlink("created"));
    SHOW(pread(fd, text, 10, 0));
    MUST(fstat(fd, &st));
    say("nlink %d size %ld", (int)st.st_nlink, (long)st.st_size);
    char target[128];
    snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
    ssize_t size = MUST(readlink(text, target, sizeof target - 1));
    target[size] = 0;
    say("%s", target + strlen(scratch_path));
    int again = open(text, O_RDONLY);
    SHOW_IF(again >= 0);
    SHOW(read(again, text, 5));
    CASE("names");
    char name[300];
    memset(name, 'n', sizeof name);
    name[255] = 0;
    try_open("255 bytes", name, O_RDWR | O_CREAT, 0644);
    name[255] = 'n';
    name[256] = 0;
    try_open("256 bytes", name, O_RDWR | O_CREAT, 0644);
    static char longer[5000];
    for (int i = 0; i < 4998; i += 2)
        memcpy(longer + i, "./", 2);
    strcpy(longer + 4086, "./file");
    try_open("a path of 4092", longer, O_RDONLY, 0);
    memset(longer, '/', 4200);
    strcpy(longer + 4200, "tmp");
    try_open("a path of 4200", longer, O_RDONLY, 0);
    try_open("bytes", "\xff\x80 \n", O_RDWR | O_CREAT, 0644);
    try_open("empty", "", O_RDONLY, 0);
    return 0;
}
