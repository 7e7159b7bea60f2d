/* The Gofer's system calls that Python cannot make: openat2, getdents64, Landlock, mount trees,
 * capabilities, seccomp.  Thin: one function a call, no state, negative errno on failure.  Policy
 * (what is called when, and with which flags) is in gofer/localfs.py and gofer/confine.py. */
#define _GNU_SOURCE
#include "native.h"
#include "listed.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Headers of the build host may be older than the kernel we run on. */
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define NR_LANDLOCK_CREATE_RULESET 444
#define NR_LANDLOCK_ADD_RULE 445
#define NR_LANDLOCK_RESTRICT_SELF 446
#define TREE_CLONE 1
#define TREE_CLOEXEC O_CLOEXEC
#define TREE_RECURSIVE 0x8000
#define MOVE_F_EMPTY 0x4
#define MOVE_T_EMPTY 0x40

static int result(long r)
{
    return r < 0 ? -errno : (int)r;
}

int gofer_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    struct open_how how = { .flags = flags, .mode = mode, .resolve = resolve };

    return result(syscall(SYS_openat2, dirfd, path, &how, sizeof how));
}

int gofer_getdents(int fd, void *buf, size_t size)
{
    return result(syscall(SYS_getdents64, fd, buf, size));
}

#define LIST_BUFFER 32768
#define MAX_SECONDS 9000000000ll /* as in gofer/codec.py */

struct linux_dirent64 {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    uint8_t type;
    char name[];
};

static int64_t nanoseconds(const struct timespec *t)
{
    int64_t s = t->tv_sec;
    if (s > MAX_SECONDS)
        s = MAX_SECONDS;
    if (s < -MAX_SECONDS)
        s = -MAX_SECONDS;
    return s * 1000000000 + t->tv_nsec;
}

/* gofer/localfs.py, qid_path. */
static uint64_t qid_path(uint64_t dev, int64_t index, uint64_t ino)
{
    uint64_t mixed = ino * 0x9E3779B97F4A7C15u + dev * 0xC2B2AE3D27D4EB4Fu;
    if (index >= 0 && ino >> 48 == 0)
        return (uint64_t)index << 48 | ino;
    return 1ull << 63 | (mixed ^ mixed >> 29);
}

/* What lies on another device, or is gone by now, has no attributes here: it has to be walked to. */
static void describe(int fd, uint64_t dev, int64_t index, const struct linux_dirent64 *d, struct listed *e)
{
    struct stat st;
    memset(e, 0, sizeof *e);
    e->type = d->type;
    e->path = qid_path(dev, index, d->ino);
    if (fstatat(fd, d->name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0 || st.st_dev != dev)
        return;
    e->known = 1;
    e->path = qid_path(dev, index, st.st_ino);
    e->nlink = st.st_nlink;
    e->rdev = st.st_rdev;
    e->size = (uint64_t)st.st_size;
    e->blocks = (uint64_t)st.st_blocks;
    e->atime = nanoseconds(&st.st_atim);
    e->mtime = nanoseconds(&st.st_mtim);
    e->ctime = nanoseconds(&st.st_ctim);
    e->mode = st.st_mode;
    e->uid = st.st_uid;
    e->gid = st.st_gid;
    e->blksize = (uint32_t)st.st_blksize;
}

int gofer_list(int fd, uint64_t dev, int64_t index, void *out, size_t room, int *complete)
{
    static char buffer[LIST_BUFFER] __attribute__((aligned(8)));
    char *at = out;
    long size, pos;

    *complete = 0;
    while ((size = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0) {
        for (pos = 0; pos < size;) {
            const struct linux_dirent64 *d = (const struct linux_dirent64 *)(buffer + pos);
            size_t name_size = strlen(d->name);
            struct listed entry;
            pos += d->reclen;
            if (!strcmp(d->name, ".") || !strcmp(d->name, ".."))
                continue;
            if (sizeof entry + name_size > room)
                return (int)(at - (char *)out);
            describe(fd, dev, index, d, &entry);
            entry.name_size = (uint16_t)name_size;
            memcpy(at, &entry, sizeof entry);
            memcpy(at + sizeof entry, d->name, name_size);
            at += sizeof entry + name_size;
            room -= sizeof entry + name_size;
        }
    }
    if (size < 0)
        return -errno;
    *complete = 1;
    return (int)(at - (char *)out);
}

int gofer_open_file(int proc_fd, int dirfd, const char *name, uint64_t dev, uint64_t resolve)
{
    struct stat st;
    char link[16];
    int fd, path_fd = gofer_openat2(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, resolve);

    if (path_fd < 0)
        return path_fd;
    if (fstat(path_fd, &st) < 0) {
        fd = -errno;
    } else if (!S_ISREG(st.st_mode) || st.st_dev != dev) {
        fd = -EXDEV;
    } else {
        snprintf(link, sizeof link, "%d", path_fd);
        fd = gofer_openat2(proc_fd, link, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0, 0);
    }
    close(path_fd);
    return fd;
}

/* As gofer_open_file, of a name that was a regular file when it was listed, just now: it is no device, the open of
 * which could do something. */
static int open_again(int dirfd, const char *name, uint64_t dev, uint64_t resolve)
{
    const int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd = gofer_openat2(dirfd, name, flags, 0, resolve);
    struct stat st;

    if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_dev != dev)) {
        close(fd);
        return -EXDEV;
    }
    return fd;
}

int gofer_open_listed(int dirfd, const void *listing, size_t size, uint64_t dev, uint64_t resolve, int most, int *fds,
                      uint16_t *at)
{
    const char *pos = listing, *end = pos + size;
    int count = 0, index;

    for (index = 0; pos < end && count < most && index <= UINT16_MAX; index++) {
        struct listed entry;
        char name[256];
        memcpy(&entry, pos, sizeof entry);
        if (entry.known && S_ISREG(entry.mode) && entry.name_size < sizeof name) {
            int fd;
            memcpy(name, pos + sizeof entry, entry.name_size);
            name[entry.name_size] = 0;
            fd = open_again(dirfd, name, dev, resolve);
            if (fd == -EMFILE || fd == -ENFILE)
                break;
            if (fd >= 0) {
                at[count] = (uint16_t)index;
                fds[count++] = fd;
            }
        }
        pos += sizeof entry + entry.name_size;
    }
    return count;
}

int64_t gofer_fs_type(int fd)
{
    struct statfs st;

    if (fstatfs(fd, &st) < 0)
        return -errno;
    /* The magic numbers are 32 bits wide; some have the top bit set. */
    return (int64_t)(uint32_t)st.f_type;
}

int gofer_chown(int fd, uint32_t uid, uint32_t gid)
{
    return result(fchownat(fd, "", uid, gid, AT_EMPTY_PATH));
}

int gofer_utimens(int fd, int64_t asec, int64_t ansec, int64_t msec, int64_t mnsec)
{
    struct timespec times[2] = { { asec, ansec }, { msec, mnsec } };

    /* The raw call: glibc refuses AT_EMPTY_PATH here in some versions. */
    return result(syscall(SYS_utimensat, fd, "", times, AT_EMPTY_PATH));
}

int gofer_landlock_abi(void)
{
    return result(syscall(NR_LANDLOCK_CREATE_RULESET, NULL, 0, 1));
}

int gofer_landlock_create(uint64_t fs, uint64_t net, uint64_t scoped, size_t size)
{
    uint64_t attr[3] = { fs, net, scoped };

    if (size > sizeof attr)
        return -EINVAL;
    return result(syscall(NR_LANDLOCK_CREATE_RULESET, attr, size, 0));
}

int gofer_landlock_beneath(int ruleset, int fd, uint64_t access)
{
    struct {
        uint64_t access;
        int32_t fd;
    } __attribute__((packed)) rule = { access, fd };

    return result(syscall(NR_LANDLOCK_ADD_RULE, ruleset, 1, &rule, 0));
}

int gofer_landlock_restrict(int ruleset)
{
    return result(syscall(NR_LANDLOCK_RESTRICT_SELF, ruleset, 0));
}

int gofer_close_range(unsigned first, unsigned last)
{
    return result(syscall(SYS_close_range, first, last, 0));
}

int gofer_prctl(int op, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
    return result(prctl(op, a, b, c, d));
}

int gofer_capset(uint64_t keep)
{
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2] = {
        { (uint32_t)keep, (uint32_t)keep, 0 },
        { (uint32_t)(keep >> 32), (uint32_t)(keep >> 32), 0 },
    };

    return result(syscall(SYS_capset, &head, data));
}

int gofer_seccomp_load(const void *filter, size_t size)
{
    struct sock_fprog prog = {
        .len = (unsigned short)(size / sizeof(struct sock_filter)),
        .filter = (struct sock_filter *)filter,
    };

    if (size == 0 || size % sizeof(struct sock_filter) || size / sizeof(struct sock_filter) > 4096)
        return -EINVAL;
    return result(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
}

int gofer_unshare(int flags)
{
    return result(unshare(flags));
}

int gofer_make_private(void)
{
    return result(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

/* A detached recursive copy of the mounts at `path` (empty: at fd itself).  Its root has no parent:
 * `..` does not lead out of it. */
int gofer_open_tree(int fd, const char *path)
{
    int flags = TREE_CLONE | TREE_CLOEXEC | TREE_RECURSIVE | (*path ? 0 : AT_EMPTY_PATH);

    return result(syscall(SYS_open_tree, fd, path, flags));
}

/* mount_setattr(2) on a whole tree; MOUNT_ATTR_* to set, MS_PRIVATE or 0. */
int gofer_mount_setattr(int fd, uint64_t set, uint64_t propagation)
{
    struct {
        uint64_t set, clear, propagation, userns;
    } attr = { set, 0, propagation, 0 };

    return result(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | TREE_RECURSIVE, &attr, sizeof attr));
}

int gofer_mount_over(int tree, int target)
{
    return result(syscall(SYS_move_mount, tree, "", target, "", MOVE_F_EMPTY | MOVE_T_EMPTY));
}

/* Make the current directory (a mount's root) the root; the old root ends up beneath it, to be detached. */
int gofer_pivot_here(void)
{
    return result(syscall(SYS_pivot_root, ".", "."));
}

int gofer_detach(const char *path)
{
    return result(umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW));
}
