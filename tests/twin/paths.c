/* Changes a small tree at random, and after each change looks at every name that there may be.
 *
 *   paths SEED STEPS DIRECTORY
 *
 * What it prints is the same for each kernel that gives right answers: no numbers of inodes but which names are
 * one file, no times but those that were set.  A change is made by this process, or by a child; looks come from
 * both, with the rights of several users where it is run by root. */
#include "../guest/check.h"

#include <grp.h>
#include <sys/fsuid.h>
#include <sys/sysmacros.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static uint64_t state;
static bool root;
static int directory_fd = -1;
static uint64_t directory_mount;

static uint32_t pick(uint32_t limit)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % limit;
}

static const char *const names[] = {
    "a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/a/b", "link", "link/a", "link/b", "name-longer-than-most-are-in-a-tree",
    "a/name-longer-than-most-are-in-a-tree",
};
static const char *const looks[] = {
    "a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/a/b", "link", "link/", "link/a", "link/a/a", "link/..", ".", "./a",
    "a/../b", "a/../link/a", "a//a", "a/a/", "../w/b", "b/../a", "name-longer-than-most-are-in-a-tree",
    "a/name-longer-than-most-are-in-a-tree", "a/link", "a/link/b", "c",
};
static const char *const targets[] = {"a", "b", "../w/a", "a/a", ".", "link", "../w", "a/", "nowhere", "../a"};

static const char *name(void)
{
    return names[pick(COUNT(names))];
}

static void print_stat(char *to, size_t size, const struct stat *st, const struct stat *all, unsigned at)
{
    unsigned same = 0;
    while (same < at && !(all[same].st_ino == st->st_ino && all[same].st_dev == st->st_dev))
        same++;
    snprintf(to, size, "%o n%d u%u g%u s%ld m%ld =%u", st->st_mode, S_ISDIR(st->st_mode) ? 0 : (int)st->st_nlink,
             S_ISCHR(st->st_mode) ? 0 : st->st_uid, S_ISCHR(st->st_mode) ? 0 : st->st_gid, S_ISDIR(st->st_mode) ? 0L : (long)st->st_size,
             st->st_mtim.tv_sec < 100000 ? (long)st->st_mtim.tv_sec : -1L, same);
}

static unsigned checksum(int fd)
{
    unsigned char bytes[8192];
    ssize_t size = read(fd, bytes, sizeof bytes), i;
    unsigned sum = (unsigned)size;
    for (i = 0; i < size; i++)
        sum = sum * 31 + bytes[i];
    return sum;
}

/* Open it as often as no spare description may be left for, and read by one. */
static void look_inside(const char *path, uint32_t salt)
{
    static const int flags[] = {O_RDONLY, O_RDONLY | O_CLOEXEC, O_RDONLY | O_NOFOLLOW, O_RDONLY | O_NONBLOCK, O_RDWR, O_RDONLY};
    int fds[6], count = 0, i, flag = flags[salt % COUNT(flags)], opens = salt % 7 == 0 ? 6 : salt % 3 + 1;
    struct stat st;
    for (i = 0; i < opens; i++) {
        int fd = i % 2 ? openat(directory_fd, path, flag) : open(path, flag);
        if (fd < 0) {
            say("  open %x: %s", flag, strerrorname_np(errno));
            break;
        }
        fds[count++] = fd;
    }
    if (count == 0)
        return;
    MUST(fstat(fds[0], &st));
    say("  open %x: %d to %d, %x %d, %u and %u", flag, fds[0], fds[count - 1], fcntl(fds[0], F_GETFL) & ~0100000,
        fcntl(fds[0], F_GETFD), S_ISREG(st.st_mode) ? checksum(fds[0]) : 0, S_ISREG(st.st_mode) ? checksum(fds[0]) : 0);
    if (salt % 5 == 0) {
        int copy = dup(fds[0]);
        say("  again %u", S_ISREG(st.st_mode) ? (unsigned)lseek(copy, 0, SEEK_CUR) : 0);
        close(copy);
    }
    while (count)
        if (close(fds[salt % 2 ? --count : (count--, opens - count - 1)]) < 0)
            break;
    for (i = 3; i < 12; i++)
        if (salt % 2 == 0 && i != directory_fd && fcntl(i, F_GETFD) < 0)
            break;
    say("  free %d", i);
}

static int kept[4] = {-1, -1, -1, -1};

/* Hold files open over changes. */
static void keep(void)
{
    uint32_t i = pick(COUNT(kept));
    const char *path = name();
    struct stat st;
    if (kept[i] >= 0) {
        MUST(fstat(kept[i], &st));
        say("kept %u: %o %u", i, st.st_mode, S_ISREG(st.st_mode) ? checksum(kept[i]) : 0);
        close(kept[i]);
        kept[i] = -1;
    } else {
        kept[i] = open(path, O_RDONLY);
        say("keep %u %s %d", i, path, kept[i]);
    }
}

/* A lock of ours that another process sees goes with the next close of the file, by whichever descriptor. */
static void lock(void)
{
    const char *path = name();
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR), other;
    if (fd < 0)
        return;
    say("lock %s: %d", path, fcntl(fd, F_SETLK, &range));
    for (int i = 0; i < 2; i++) {
        CHILD({
            int mine = open(path, O_RDWR);
            struct flock test = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
            fcntl(mine, F_GETLK, &test);
            say("  locked: %d", mine >= 0 && test.l_type != F_UNLCK);
        });
        MUST(wait(NULL));
        other = open(path, O_RDONLY);
        close(other);
    }
    close(fd);
}

static void look(const char *who)
{
    static struct stat all[COUNT(looks)];
    char line[256], text[64];
    unsigned i;
    memset(all, 0, sizeof all);
    for (i = 0; i < COUNT(looks); i++) {
        const char *path = looks[i];
        struct stat st, again;
        long length;
        int r = stat(path, &st), error = errno;
        if (r == 0) {
            all[i] = st;
            print_stat(line, sizeof line, &st, all, i);
        } else {
            snprintf(line, sizeof line, "%s", strerrorname_np(error));
        }
        /* The same by the other calls. */
        int other = fstatat(directory_fd, path, &again, 0);
        if (other != r || (r == 0 ? memcmp(&st, &again, sizeof st) != 0 : errno != error))
            say("%s: fstatat differs", path);
        struct statx more;
        other = statx(i % 2 ? AT_FDCWD : directory_fd, path, i % 4 < 2 ? 0 : AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_MNT_ID, &more);
        if (other == 0)
            say("  x %o %u %u %ld %d %d %d %d", more.stx_mode, more.stx_uid, more.stx_gid,
                S_ISDIR(more.stx_mode) ? 0L : (long)more.stx_size, r == 0 && more.stx_ino == st.st_ino,
                more.stx_mnt_id == directory_mount,
                r != 0 || more.stx_ino != st.st_ino ||
                    (more.stx_mtime.tv_sec == st.st_mtim.tv_sec && more.stx_mtime.tv_nsec == st.st_mtim.tv_nsec),
                r == 0 && more.stx_dev_major == major(st.st_dev) && more.stx_dev_minor == minor(st.st_dev));
        say("%s %s: %s", who, path, line);
        r = lstat(path, &st);
        if (r == 0)
            print_stat(line, sizeof line, &st, all, i);
        else
            snprintf(line, sizeof line, "%s", strerrorname_np(errno));
        length = readlinkat(directory_fd, path, text, sizeof text - 1);
        error = errno;
        text[length < 0 ? 0 : length] = 0;
        say("  l %s, link %s %s", line, length < 0 ? strerrorname_np(error) : "", text);
        snprintf(line, sizeof line, "%d%d%d%d", access(path, F_OK), access(path, R_OK), access(path, W_OK), access(path, X_OK));
        r = faccessat(AT_FDCWD, path, R_OK, AT_EACCESS);
        say("  access %s eaccess %d", line, r);
        if ((i + state) % 3 == 0)
            look_inside(path, (uint32_t)(state >> 40) + i);
    }
}

static void write_to(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND);
    if (fd >= 0) {
        say("write %ld", (long)write(fd, "12345678", 1 + pick(8)));
        close(fd);
    }
}

static void change(void)
{
    const char *one = name(), *two = name();
    static const mode_t modes[] = {0777, 0755, 0700, 0644, 0600, 0711, 0, 0070, 0007, 0555};
    mode_t mode = modes[pick(COUNT(modes))];
    struct timespec times[2] = {{pick(9999), 5}, {pick(9999), 7}};
    uint32_t what = pick(20), uid = pick(3) * 1000, gid = pick(3) * 1000, size = pick(5000);
    const char *target = targets[pick(COUNT(targets))];
    say("change %u %s %s %o", what, one, two, mode);
    switch (what) {
    case 0:
    case 1: {
        int fd = open(one, O_CREAT | O_EXCL | O_WRONLY, mode);
        SHOW_IF(fd >= 0);
        if (fd >= 0)
            close(fd);
        break;
    }
    case 2:
    case 3:
        SHOW(mkdir(one, mode | 0700));
        break;
    case 4:
        SHOW(unlink(one));
        break;
    case 5:
        SHOW(rmdir(one));
        break;
    case 6:
    case 7:
        SHOW(rename(one, two));
        break;
    case 8:
        SHOW(syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, two, 2 /* RENAME_EXCHANGE */));
        break;
    case 9:
        SHOW(syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, two, 1 /* RENAME_NOREPLACE */));
        break;
    case 10:
        SHOW(chmod(one, mode));
        break;
    case 11:
        if (root)
            SHOW(lchown(one, uid, gid));
        break;
    case 12:
        SHOW(link(one, two));
        break;
    case 13:
    case 14:
        SHOW(symlink(target, one));
        break;
    case 15:
        SHOW(truncate(one, size));
        break;
    case 16:
        write_to(one);
        break;
    case 17:
        SHOW(utimensat(AT_FDCWD, one, times, AT_SYMLINK_NOFOLLOW));
        break;
    case 18:
        SHOW(symlink(target, "link"));
        break;
    case 19: { /* a file without its name */
        int fd = open(one, O_RDONLY);
        if (fd < 0)
            break;
        struct stat st;
        SHOW(unlink(one));
        SHOW(fstat(fd, &st));
        say("%o %ld", st.st_mode, S_ISREG(st.st_mode) ? (long)st.st_nlink : -1L);
        close(fd);
        break;
    }
    }
}

/* Look as another user: by the ids of files, which access(2) doesn't use, and by all ids. */
static void look_as(uid_t uid, gid_t gid, bool real)
{
    CHILD({
        MUST(setgroups(0, NULL));
        if (real) {
            MUST(setresgid(gid, gid, gid));
            MUST(setresuid(uid, uid, uid));
        } else {
            setfsgid(gid);
            setfsuid(uid);
        }
        look(real ? "user" : "fsuid");
    });
    MUST(wait(NULL));
}

int main(int argc, char **argv)
{
    uint32_t steps, i;
    NEED(argc == 4);
    state = strtoull(argv[1], NULL, 10) * 2654435761u + 1;
    steps = (uint32_t)atoi(argv[2]);
    root = geteuid() == 0;
    umask(0);
    MUST(syscall(SYS_close_range, 3, ~0u, 0));
    MUST(chdir(argv[3]));
    MUST(mkdir("w", 0755));
    MUST(chdir("w"));
    directory_fd = MUST(open(".", O_RDONLY | O_DIRECTORY));
    struct statx more;
    MUST(statx(directory_fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &more));
    directory_mount = more.stx_mnt_id;
    for (i = 0; i < steps; i++) {
        if (pick(4) == 0) {
            uint64_t seed = state;
            CHILD(change());
            MUST(wait(NULL));
            state = seed * 3 + 1;
        } else {
            change();
        }
        if (pick(3) == 0)
            keep();
        if (pick(6) == 0)
            lock();
        look("self");
        if (pick(5) == 0) {
            CHILD(look("child"));
            MUST(wait(NULL));
        }
        if (root && pick(3) == 0)
            look_as(1000, 1000 * pick(3), pick(2));
        if (root && pick(12) == 0) {
            CHILD({
                MUST(chroot(".."));
                MUST(chdir("/w"));
                look("chroot");
            });
            MUST(wait(NULL));
        }
    }
    return 0;
}
