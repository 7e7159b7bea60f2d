/* The Gofer's system calls that Python cannot make: openat2, getdents64, Landlock, mount trees,
 * capabilities, seccomp.  Thin: one function a call, no state, negative errno on failure.  Policy
 * (what is called when, and with which flags) is in gofer/localfs.py and gofer/confine.py. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sched.h>
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
