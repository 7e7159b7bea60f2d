/* Performs a program of system calls and tells how each of them ended.
 *
 * usage: calls PROGRAM DIR BOUND FILE SMALL
 *
 * PROGRAM has a call a line, all numbers: what to call, then its arguments (see `perform`).  Descriptors
 * are named by slots, files by their place in `paths`, addresses by a kind and an offset (see `address`).  Of
 * each call this prints the result, the errno and a hash of the bytes it gave; behind a tab what must be the
 * same on any two ways through one kernel, but need not be on another one: every byte of the buffers, how
 * times moved, blocks.  The state is asked for by calls that have no fast path.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define BASE 0x10000000ul
#define SIZE (64 * PAGE)
#define NONE (BASE + SIZE)      /* a page without access */
#define READONLY (NONE + PAGE)  /* then one that isn't there */
#define LAST (READONLY + 2 * PAGE)
#define SLOTS 12

enum {
    RESET, OPEN, CLOSE, DUP, DUP2, READ, WRITE, PREAD, PWRITE, READV, WRITEV, LSEEK, FSTAT, FCNTL, TRUNCATE,
    CHMOD, MEMFD, PIPE, MAP, UNLINK, ALLOCATE, LIMIT, SENDFILE, CHILD, TIMES,
    LOCK, DUPFD, DUP3, SYNC, ADVISE, TERMINAL, CHOWN,
};

static int slots[SLOTS];
static char paths[9][512];
static long long a[16]; /* the numbers of the line */
static int step;
static uint64_t given; /* hash of what the call under way has read */

static uint64_t hash(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    uint64_t h = 14695981039346656037ull;
    for (size_t i = 0; i < size; i++)
        h = (h ^ bytes[i]) * 1099511628211ull;
    return h;
}

static unsigned long address(long long kind, long long offset)
{
    switch (kind) {
    case 0:
        return BASE + (unsigned long)offset;
    case 1: /* across the end of what can be reached */
        return NONE - (unsigned long)offset;
    case 2:
        return READONLY + (unsigned long)offset;
    case 3:
        return 0;
    case 4:
        return NONE;
    case 5:
        return 0xffff800000000000ul;
    case 6:
        return 0x7ffffffff000ul - (unsigned long)offset;
    default:
        return LAST + PAGE - (unsigned long)offset;
    }
}

static void fill(void)
{
    uint64_t *words = (uint64_t *)BASE, x = (uint64_t)step * 2654435761u + 1;
    for (size_t i = 0; i < SIZE / 8; i++)
        words[i] = x = x * 6364136223846793005ull + 1442695040888963407ull;
    memcpy((void *)LAST, words, PAGE);
}

static int fd_of(long long slot)
{
    return slot < 0 || slot >= SLOTS ? -1 : slots[slot];
}

static void put(long long slot, long fd)
{
    if (fd < 0)
        return;
    if (slots[slot] >= 0)
        close(slots[slot]);
    slots[slot] = (int)fd;
}

/* Does not disturb the signal of a size limit: it is ignored. */
static long set_limit(long long size)
{
    struct rlimit limit = {size < 0 ? RLIM_INFINITY : (rlim_t)size, RLIM_INFINITY};
    return setrlimit(RLIMIT_FSIZE, &limit);
}

static void reset(void)
{
    set_limit(-1);
    for (int i = 0; i < SLOTS; i++) {
        if (slots[i] >= 0)
            close(slots[i]);
        slots[i] = -1;
    }
    for (int i = 0; i < 4; i++)
        unlink(paths[i]);
    memset((void *)BASE, 0, SIZE);
    memset((void *)LAST, 0, PAGE);
    errno = 0;
}

/* a[2] pairs (address kind, offset, size) from a[4] on; the array itself is somewhere bad if a[3]. */
static long vectors(long number)
{
    struct iovec v[4];
    for (int i = 0; i < 4; i++)
        v[i] = (struct iovec){(void *)address(a[4 + 3 * i], a[5 + 3 * i]), (size_t)a[6 + 3 * i]};
    return syscall(number, fd_of(a[1]), a[3] ? (void *)address(a[3], 8) : v, a[2]);
}

static long map(int fd, long long offset, int shared)
{
    volatile char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, shared ? MAP_SHARED : MAP_PRIVATE, fd, offset);
    struct stat st;
    if (page == MAP_FAILED)
        return -1;
    if (fstat(fd, &st) == 0 && st.st_size > offset)
        page[0]++;
    return munmap((void *)page, PAGE);
}

static long in_child(int fd, long long size)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        long n = read(fd, (void *)BASE, (size_t)size);
        lseek(fd, 3, SEEK_CUR);
        _exit(n < 0 ? errno : (int)(n & 63));
    }
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

/* fcntl's locks: command, type, whence, start, length, whether a child asks, whether the struct is somewhere bad. */
static long lock(int fd)
{
    struct flock flock = {.l_type = (short)a[3], .l_whence = (short)a[4], .l_start = a[5], .l_len = a[6]};
    pid_t self = getpid(), pid;
    int status;
    long n;
    if (a[7] && (pid = fork())) {
        waitpid(pid, &status, 0);
        return WEXITSTATUS(status);
    }
    n = fcntl(fd, (int)a[2], a[8] ? (void *)address(a[8], 8) : &flock);
    if (n == 0 && flock.l_pid > 0)
        flock.l_pid = flock.l_pid == self;
    given = hash(&flock, sizeof flock);
    if (a[7])
        _exit(n < 0 ? errno : 128 + (int)(given & 127));
    return n;
}

/* May the call change the file itself?  Natively, no file or device of the host: these are read-only or no files. */
static int is_ours(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
}

static long got(long n, unsigned long where)
{
    if (n > 0)
        given = hash((void *)where, (size_t)n);
    return n;
}

static long perform(void)
{
    int pair[2], fd = fd_of(a[1]);
    unsigned long where = address(a[2], a[3]);
    struct timespec times[2] = {{a[2], 5}, {a[3], 7}};
    char copy[sizeof(struct stat)];
    long n;
    switch (a[0]) {
    case RESET:
        reset();
        return 0;
    case OPEN:
        put(a[1], n = open(paths[a[2]], (int)a[3], 0640));
        return n < 0 ? -1 : 0;
    case CLOSE:
        if (a[1] >= 0)
            slots[a[1]] = -1;
        return close(fd);
    case DUP:
        put(a[2], n = dup(fd));
        return n < 0 ? -1 : 0;
    case DUP2:
        return slots[a[2]] < 0 ? 0 : dup2(fd, slots[a[2]]) < 0 ? -1 : 0;
    case READ:
        return got(syscall(SYS_read, fd, where, a[4]), where);
    case WRITE:
        fill();
        return syscall(SYS_write, fd, where, a[4]);
    case PREAD:
        return got(syscall(SYS_pread64, fd, where, a[4], a[5]), where);
    case PWRITE:
        fill();
        return syscall(SYS_pwrite64, fd, where, a[4], a[5]);
    case READV:
        return vectors(SYS_readv);
    case WRITEV:
        fill();
        return vectors(SYS_writev);
    case LSEEK:
        return syscall(SYS_lseek, fd, a[2], a[3]);
    case FSTAT:
        n = syscall(SYS_fstat, fd, where);
        if (n == 0) { /* what it said is compared behind the tab */
            memcpy(copy, (void *)where, sizeof copy);
            memset(copy + offsetof(struct stat, st_atim), 0, 3 * sizeof(struct timespec));
            memset(copy, 0, 16); /* dev, ino */
            memcpy((void *)where, copy, sizeof copy);
        } else if (a[2] == 1 || a[2] == 7) {
            memset((void *)where, 0, (size_t)a[3]); /* some of it came, times and all */
        }
        return n;
    case FCNTL:
        if (a[2] == F_SETFL && lseek(fd, 0, SEEK_CUR) < 0)
            a[3] |= O_NONBLOCK; /* nobody is at the other end of a pipe */
        return syscall(SYS_fcntl, fd, a[2], a[3]);
    case TRUNCATE:
        return ftruncate(fd, a[2]);
    case CHMOD:
        return is_ours(fd) ? fchmod(fd, (mode_t)a[2]) : 0;
    case MEMFD:
        put(a[1], n = syscall(SYS_memfd_create, "m", a[2]));
        return n < 0 ? -1 : 0;
    case PIPE:
        if (pipe2(pair, O_NONBLOCK) < 0)
            return -1;
        put(a[1], pair[0]);
        put(a[2], pair[1]);
        return 0;
    case MAP:
        return map(fd, a[2], (int)a[3]);
    case UNLINK:
        return unlink(paths[a[1]]);
    case ALLOCATE:
        return fallocate(fd, (int)a[2], a[3], a[4]);
    case LIMIT:
        return set_limit(a[1]);
    case SENDFILE:
        return sendfile(fd_of(a[2]), fd, NULL, (size_t)a[3]);
    case CHILD:
        return in_child(fd, a[2]);
    case TIMES:
        return is_ours(fd) ? futimens(fd, times) : 0;
    case LOCK:
        return lock(fd);
    case DUPFD:
        put(a[2], n = fcntl(fd, a[4] ? F_DUPFD_CLOEXEC : F_DUPFD, a[3]));
        return n < 0 ? -1 : n >= a[3];
    case DUP3:
        return slots[a[2]] < 0 ? 0 : dup3(fd, slots[a[2]], (int)a[3]) < 0 ? -1 : fcntl(slots[a[2]], F_GETFD);
    case SYNC:
        return a[2] ? fdatasync(fd) : fsync(fd);
    case ADVISE:
        return syscall(SYS_fadvise64, fd, a[2], a[3], a[4]);
    case TERMINAL:
        return syscall(SYS_ioctl, fd, TCGETS, where);
    case CHOWN:
        return is_ours(fd) ? fchown(fd, a[2] ? getuid() : (uid_t)-1, a[3] ? getgid() : (gid_t)-1) : 0;
    }
    abort();
}

static int before(struct statx_timestamp x, struct statx_timestamp y)
{
    return x.tv_sec != y.tv_sec ? x.tv_sec < y.tv_sec : x.tv_nsec < y.tv_nsec;
}

static long long position(int fd)
{
    char name[64], text[512];
    long long pos = -1;
    int info;
    ssize_t n;
    snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
    info = open(name, O_RDONLY);
    n = info < 0 ? -1 : read(info, text, sizeof text - 1);
    if (n > 0) {
        text[n] = 0;
        sscanf(text, "pos: %lld", &pos);
    }
    close(info);
    return pos;
}

/* Times and blocks are looked at only in DIR: others come from the host, which counts in ticks. */
static void state(int fd)
{
    static struct statx last;
    struct statx s, home;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &s) < 0) {
        printf(" -\t");
    } else {
        printf(" %lld %lld %o\t", position(fd), S_ISREG(s.stx_mode) ? (long long)s.stx_size : 0,
               S_ISREG(s.stx_mode) ? s.stx_mode : s.stx_mode & S_IFMT);
        if (statx(AT_FDCWD, paths[8], 0, STATX_BASIC_STATS, &home) == 0 && s.stx_dev_minor == home.stx_dev_minor)
            printf("%d%d %lld", before(s.stx_atime, s.stx_mtime), before(s.stx_mtime, s.stx_ctime),
                   (long long)s.stx_blocks);
        if (s.stx_dev_minor == home.stx_dev_minor && s.stx_ino == last.stx_ino)
            printf(" %d%d%d", before(last.stx_atime, s.stx_atime), before(last.stx_mtime, s.stx_mtime),
                   before(last.stx_ctime, s.stx_ctime));
        last = s;
    }
    printf(" %llx %llx\n", (long long)hash((void *)BASE, SIZE), (long long)hash((void *)LAST, PAGE));
}

static void must_map(unsigned long where, size_t size, int prot)
{
    if (mmap((void *)where, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (void *)where)
        abort();
}

int main(int argc, char **argv)
{
    char line[1024];
    FILE *program;
    if (argc != 6 || !(program = fopen(argv[1], "re")))
        return 2;
    for (int i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/a%d", argv[2], i);
        snprintf(paths[2 + i], sizeof paths[i], "%s/b%d", argv[3], i);
    }
    strcpy(paths[4], "/dev/null");
    strcpy(paths[5], "/dev/zero");
    snprintf(paths[6], sizeof paths[6], "%s", argv[4]);
    snprintf(paths[7], sizeof paths[7], "%s", argv[5]);
    snprintf(paths[8], sizeof paths[8], "%s", argv[2]);
    must_map(BASE, SIZE, PROT_READ | PROT_WRITE);
    must_map(NONE, PAGE, PROT_NONE);
    must_map(READONLY, PAGE, PROT_READ);
    must_map(LAST, PAGE, PROT_READ | PROT_WRITE);
    setvbuf(stdout, NULL, _IOLBF, 4096);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    memset(slots, -1, sizeof slots);
    for (step = 1; fgets(line, sizeof line, program); step++) {
        char *rest = line;
        long result;
        int error;
        memset(a, 0, sizeof a);
        for (int i = 0; i < 16; i++)
            a[i] = strtoll(rest, &rest, 0);
        given = 0;
        errno = 0;
        result = perform();
        error = result < 0 ? errno : 0;
        printf("%d: %lld %ld %d %llx", step, a[0], result, error, (long long)given);
        state(a[0] == RESET || a[0] == UNLINK || a[0] == LIMIT ? -1 : fd_of(a[1]));
    }
    fclose(program);
    return 0;
}
