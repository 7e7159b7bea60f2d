/* What the runtime asks of the host kernel and Python's os module lacks.
 *
 * Each call is the system call of that name and returns its result or a negative errno; none
 * keeps state.  They are for boot and confinement only: after lock-down the seccomp filter leaves
 * none of them usable.
 */
#ifndef SENTRY_HOST_H
#define SENTRY_HOST_H

#include <stddef.h>

/* A fork with CLONE_NEW* flags: no new stack, SIGCHLD at the end.  Child's pid, or 0 in the child.
 * Only for a process with one thread; no atfork handler runs. */
long host_clone(unsigned long flags);

int host_mount(const char *source, const char *target, const char *type, unsigned long flags,
               const char *data);
int host_umount2(const char *target, int flags);
int host_pivot_root(const char *new_root, const char *put_old);

int host_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);

/* Empty the permitted, effective, inheritable, ambient and bounding sets.  What is not permitted
 * to be dropped because it is not held counts as dropped. */
int host_drop_capabilities(void);

/* Bits of the effective capability set, or 0. */
unsigned long long host_effective_capabilities(void);

/* seccomp(SECCOMP_SET_MODE_FILTER); `filter` holds `count` struct sock_filter.  no_new_privs must
 * be set. */
int host_seccomp_load(const void *filter, size_t count, unsigned flags);

int host_close_range(unsigned first, unsigned last);

/* Install the filter and execveat(fd, "", AT_EMPTY_PATH) under it, with nothing in between that the
 * filter would have to allow.  Returns only when the filter was refused; a failing exec kills. */
int host_confined_exec(const void *filter, size_t count, int fd, char *const argv[], char *const envp[]);

/* A signalfd for the signals in `mask` (bit n-1 is signal n), close-on-exec and non-blocking. */
int host_signalfd(unsigned long mask);

/* Whether the `count` files in `names` (each ends with NUL; relative to the directory `root`) are as they were:
 * `marks` holds two words a file, time of change in nanoseconds and size.  1 or 0. */
int host_files_are(const char *root, const char *names, const long long *marks, size_t count);

/* The file's bytes, mapped to be read, and how many; NULL when it can't be or is empty.  No descriptor stays. */
void *host_map_file(const char *path, size_t *size);
void host_unmap(void *bytes, size_t size);

/* Keep malloc from ever reading /sys or /proc: one arena, no second heap. */
void host_quiet_malloc(void);

/* syscall(2) itself, for tests of the filters. */
long host_syscall(long number, long a, long b, long c, long d, long e, long f);

#endif
