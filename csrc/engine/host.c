/* The runtime's thin layer over system calls that Python's os module does not offer.
 *
 * Everything here is raw syscall(2): what the C library adds (caches, locks, path lookups) is what
 * a process that is about to lose its privileges does not want.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#define PR_CAP_AMBIENT_CLEAR_ALL 4
#endif

#define LAST_POSSIBLE_CAP 63
#define HOST_AT_EMPTY_PATH 0x1000

static long checked(long result) {
    return result == -1 ? -errno : result;
}

long host_clone(unsigned long flags) {
    return checked(syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0));
}

int host_mount(const char *source, const char *target, const char *type, unsigned long flags,
               const char *data) {
    return (int)checked(syscall(SYS_mount, source, target, type, flags, data));
}

int host_umount2(const char *target, int flags) {
    return (int)checked(syscall(SYS_umount2, target, flags));
}

int host_pivot_root(const char *new_root, const char *put_old) {
    return (int)checked(syscall(SYS_pivot_root, new_root, put_old));
}

int host_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
    return (int)checked(syscall(SYS_prctl, option, a, b, c, d));
}

int host_drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};

    /* EINVAL: beyond the last capability.  EPERM: without CAP_SETPCAP the bounding set stays, and
     * grants nothing, since no_new_privs stops exec from raising anything. */
    for (unsigned long cap = 0; cap <= LAST_POSSIBLE_CAP; cap++) {
        if (syscall(SYS_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0) == -1) {
            if (errno == EINVAL || errno == EPERM)
                break;
            return -errno;
        }
    }
    if (syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == -1 && errno != EINVAL)
        return -errno;
    return (int)checked(syscall(SYS_capset, &header, none));
}

unsigned long long host_effective_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};

    if (syscall(SYS_capget, &header, data) == -1)
        return 0;
    return data[0].effective | (unsigned long long)data[1].effective << 32;
}

int host_seccomp_load(const void *filter, size_t count, unsigned flags) {
    /* struct sock_fprog, spelled out: <linux/filter.h> and libc headers dislike each other. */
    struct {
        unsigned short len;
        const void *filter;
    } program = {(unsigned short)count, filter};

    if (count == 0 || count > 4096)
        return -EINVAL;
    return (int)checked(syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, flags, &program));
}

int host_close_range(unsigned first, unsigned last) {
    return (int)checked(syscall(SYS_close_range, first, last, 0));
}

int host_confined_exec(const void *filter, size_t count, int fd, char *const argv[], char *const envp[]) {
    int error = host_seccomp_load(filter, count, 0);

    if (error < 0)
        return error;
    syscall(SYS_execveat, fd, "", argv, envp, HOST_AT_EMPTY_PATH);
    for (;;)
        syscall(SYS_exit_group, 127);
}

int host_signalfd(unsigned long mask) {
    uint64_t set = mask;
    /* SFD_CLOEXEC | SFD_NONBLOCK are O_CLOEXEC | O_NONBLOCK. */
    return (int)checked(syscall(SYS_signalfd4, -1, &set, sizeof set, 02000000 | 04000));
}

int host_files_are(const char *root, const char *names, const long long *marks, size_t count) {
    int directory = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    size_t i;

    for (i = 0; directory >= 0 && i < count; i++, names += strlen(names) + 1) {
        struct stat st;

        if (fstatat(directory, names, &st, 0) < 0 || st.st_size != marks[2 * i + 1] ||
            st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec != marks[2 * i])
            break;
    }
    if (directory >= 0)
        close(directory);
    return directory >= 0 && i == count;
}

void *host_map_file(const char *path, size_t *size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *bytes = MAP_FAILED;
    struct stat st;

    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) == 0 && st.st_size > 0) {
        *size = (size_t)st.st_size;
        bytes = mmap(NULL, *size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    }
    close(fd);
    return bytes == MAP_FAILED ? NULL : bytes;
}

void host_unmap(void *bytes, size_t size) {
    munmap(bytes, size);
}

void host_quiet_malloc(void) {
    mallopt(M_ARENA_MAX, 1);
}

long host_syscall(long number, long a, long b, long c, long d, long e, long f) {
    return checked(syscall(number, a, b, c, d, e, f));
}
