/* System calls the Gofer needs and Python's os module lacks.  Every function returns the call's
 * result, or a negative errno. */
#include <stddef.h>
#include <stdint.h>

int gofer_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
int gofer_getdents(int fd, void *buf, size_t size);
int64_t gofer_fs_type(int fd);
/* Entries as in gofer/messages.py (LISTED): bytes written to `out`; *complete: whether all of them fitted. */
int gofer_list(int fd, uint64_t dev, int64_t index, void *out, size_t room, int *complete);
/* The first `most` regular files of such entries of directory `dirfd`, opened; fds[i] is that of entry at[i]. */
int gofer_open_listed(int dirfd, const void *listing, size_t size, uint64_t dev, uint64_t resolve, int most, int *fds,
                      uint16_t *at);
/* A regular file below `dirfd` on device `dev`, opened for reading; -EXDEV for any other kind, or device. */
int gofer_open_file(int proc_fd, int dirfd, const char *name, uint64_t dev, uint64_t resolve);
int gofer_chown(int fd, uint32_t uid, uint32_t gid);
int gofer_utimens(int fd, int64_t asec, int64_t ansec, int64_t msec, int64_t mnsec);

int gofer_landlock_abi(void);
int gofer_landlock_create(uint64_t fs, uint64_t net, uint64_t scoped, size_t size);
int gofer_landlock_beneath(int ruleset, int fd, uint64_t access);
int gofer_landlock_restrict(int ruleset);

int gofer_close_range(unsigned first, unsigned last);
int gofer_prctl(int op, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int gofer_capset(uint64_t keep);
int gofer_seccomp_load(const void *filter, size_t size);
int gofer_unshare(int flags);
int gofer_make_private(void);
int gofer_open_tree(int fd, const char *path);
int gofer_mount_setattr(int fd, uint64_t set, uint64_t propagation);
int gofer_mount_over(int tree, int target);
int gofer_pivot_here(void);
int gofer_detach(const char *path);
