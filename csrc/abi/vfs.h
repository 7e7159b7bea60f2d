/* The hot state of the file system: what the engine's fast paths read and write.
 *
 * Every struct here has one owner, this memory: Python's Inode, File and FDTable keep a reference to
 * theirs (it lives as long as the Python object) and have properties where they had fields.  Python and the engine
 * run on one thread, never at the same time, so neither needs a lock.
 */
#ifndef SENTRY_VFS_H
#define SENTRY_VFS_H

#include <stdint.h>

/* cdef begin */
/* vnode.flags */
#define VNODE_LIVE 1 /* the attributes below are true now: nobody has to be asked (Inode.refresh does nothing) */
#define VNODE_CHANGED 2 /* of a file whose bytes are the host's: written to since it was LIVE, and so not LIVE */
#define VNODE_NOATIME 4 /* reading does not change its access time (FS_NOATIME_FL) */

/* The attributes of an inode, in the units of struct stat; times are ns since the epoch. */
struct vnode {
    uint64_t dev, ino, nlink, rdev;
    uint32_t mode, uid, gid, blksize;
    int64_t size, blocks; /* bytes; units of 512 bytes */
    int64_t atime, mtime, ctime, btime;
    uint32_t flags; /* VNODE_* */
    uint32_t guarded; /* flock(2) locks, or somebody who waits for a lock of either kind: all of it is Python's */
    uint32_t ours; /* attributes need only be written here: there is no other file system to be told */
    uint32_t watched; /* marks on it (sentry/fs/fsnotify.py): what happens to it, or right below it, is Python's */
    struct record_locks *locks; /* NULL: there are none */
};

/* vfile.kind: who serves it.  Everything that the engine does not know is VFILE_PYTHON. */
#define VFILE_PYTHON 0
#define VFILE_NULL 1    /* /dev/null */
#define VFILE_ZERO 2    /* /dev/zero */
#define VFILE_REGULAR 3 /* bytes on host_fd, which never blocks for long: see engine/fast_file.c */
#define VFILE_PIPE 4
#define VFILE_EVENTFD 5
#define VFILE_EPOLL 6
#define VFILE_TMPFS 7 /* object: struct tmpfs_data */
#define VFILE_RANDOM 8 /* /dev/random, /dev/urandom */
#define VFILE_UNIX 10 /* object: struct unix_sock (unix.h), of a stream or sequenced packets */
#define VFILE_DIRECTORY 9 /* object: the struct listing that it is in, if any; Python has not met it (fast_dir.c) */

struct vmount;
struct dnode;

/* The hot part of an open file description. */
struct vfile {
    struct vnode *node;
    int64_t pos;
    int64_t dir_end; /* of a directory: the position where its listing ends; 0: not known */
    uint32_t flags; /* O_*, as F_GETFL shows them */
    uint32_t kind;  /* VFILE_* */
    int32_t host_fd;
    uint32_t number; /* by which mappings refer to it (mm.h); 0: none do, and none can without Python */
    uint32_t refs; /* descriptors, and whoever else holds it */
    uint32_t closing; /* CLOSE_*: what its last close needs */
    void *object; /* of the kind: pipe, eventfd… */
    struct vmount *mount; /* where it was opened (dcache.h); NULL: unknown */
    struct dnode *dnode;  /* likewise; of what has one, it is where paths may begin */

    /* Parked calls hold their file: what was closed meanwhile ends with the call (engine/parking.c). */
    uint32_t holds;
    uint32_t closed; /* the last reference is gone, but `holds` was not 0 */
    struct vfile *next_dropped; /* in one of the two lists that Python takes from */

    /* A file that was closed and is kept for the next open (engine/fast_open.c). */
    uint32_t spare; /* SPARE_*, 0 for all others */
    struct vfile *next_spare; /* of the same dnode */
    uint32_t batch;           /* not 0: Python has lent it (sentry/fs/lent.py) */

    /* One that the engine has made, until Python has a File for it: */
    struct vfile *model;     /* the spare that it is another description of */
    struct vfile *next_made, *last_made; /* others; the second of directories only */
};

/* vfile.closing */
#define CLOSE_AT_ONCE 0 /* Python has to see it when it happens: it wakes, tells or ends something */
#define CLOSE_LATER 1   /* nobody notices before Python runs next (vfile_take_closed) */

/* vfile.spare */
#define SPARE_IDLE 1 /* nobody has it open */
#define SPARE_OPEN 2 /* it is open, and Python has not seen it */
#define SPARE_LAST 3 /* likewise, and it must not be kept again: Python closes it */
#define SPARE_MAPPED 4 /* it was closed, but there are mappings of it: not to be opened until they are gone */

/* How many marks the sandbox has. */
extern uint32_t watch_count;

/* Of all tables of the sandbox together, where RLIMIT_NOFILE limits one: each costs the Sentry's memory. */
#define MAX_DESCRIPTORS 524288
extern int64_t descriptor_count;

/* tmpfs_data.flags */
#define TMPFS_MAPPED 1 /* guests have mapped it, so they can bring its pages into use by themselves */
#define TMPFS_SEALABLE 2 /* may not be mapped by us: a writable mapping forbids seals */

/* Pages that a tmpfs has charged to its limits in advance, so that the engine can let files grow. */
struct tmpfs_quota {
    int64_t left;
};

#define TMPFS_INLINE 16384 /* longer files are memfds */

/* What a regular file of a tmpfs holds (sentry/fs/tmpfs/regular.py): in `bytes` while it is small. */
struct tmpfs_data {
    struct vnode *node;    /* whose size this is */
    uint8_t *bytes;        /* [room], allocated; zeroes from `length` on */
    uint32_t length, room; /* 0 with a memfd */
    int64_t pages;         /* it counts for in its file system's limit */
    int32_t host_fd;       /* the memfd, or -1 */
    uint32_t flags;        /* TMPFS_* */
    struct tmpfs_quota *quota;
    uint8_t *map;          /* the engine's own mapping of the memfd, NULL unless it is used a lot */
    int64_t map_size;
    uint32_t heat;         /* uses since it was mapped last */
    uint32_t spare;
};

/* engine/tmpfs.c: before the memfd gets shorter, or is closed. */
void tmpfs_unmap(struct tmpfs_data *data);
/* Let `bytes` be `length` <= TMPFS_INLINE long, new ones zeroes: 0 or -ENOMEM. */
int tmpfs_resize(struct tmpfs_data *data, uint32_t length);
/* Forget all that is in memory here: the file ends, or a memfd has it. */
void tmpfs_free(struct tmpfs_data *data);

/* fd_table.flags */
#define TABLE_FEW 2 /* some task that uses it has, or had, an RLIMIT_NOFILE below 64 */
#define TABLE_LIMITED 1 /* some task that uses it has, or had, a finite RLIMIT_FSIZE */

/* A descriptor table: files[fd] for fd < size, NULL where nothing is open.  cloexec[fd] is FD_CLOEXEC. */
struct fd_table {
    struct vfile **files;
    uint8_t *cloexec;
    uint32_t size;
    uint32_t flags; /* TABLE_* */
    uint32_t lowest;  /* no free number is below this one */
    uint32_t highest; /* the highest number that there ever was */
    uint32_t limit;   /* RLIMIT_NOFILE at most */
    uint32_t used;    /* how many numbers are open */
    uint64_t owner;   /* of its POSIX locks: an odd number, never used again */
};

/* engine/fdtable.c; numbers given are below `size`.  None of these touches a file but its `refs`. */
/* The lowest free number from `from` on, which may be one that the table has no room for yet. */
uint32_t fd_table_free(struct fd_table *table, uint32_t from);
/* The next open number from `from` on, with FD_CLOEXEC if `cloexec`; -1: no more. */
int64_t fd_table_next(const struct fd_table *table, uint32_t from, int cloexec);
/* The highest open number; -1: none is. */
int64_t fd_table_last(const struct fd_table *table);
/* Close the open numbers from `first` to `last`, or those with FD_CLOEXEC, as long as that is all and up to `most`.
 * The next one, which is still open; -1: no more. */
int64_t fd_table_shed(struct fd_table *table, uint32_t first, uint32_t last, int cloexec, uint32_t most);
/* Set FD_CLOEXEC of the open numbers from `first` to `last`. */
void fd_table_mark(struct fd_table *table, uint32_t first, uint32_t last);
/* The first open number from `from` on that refers to `node`; -1: there is none. */
int64_t fd_table_find(const struct fd_table *table, uint32_t from, const struct vnode *node);
/* Let `f`, a reference to which passes, be at the free number `fd`. */
void fd_table_put(struct fd_table *table, uint32_t fd, struct vfile *f, int cloexec);
/* Free the open number `fd`: its file, a reference to which passes. */
struct vfile *fd_table_take(struct fd_table *table, uint32_t fd);
/* Let the empty `to`, which has room, have what `from` has. */
void fd_table_copy(struct fd_table *to, const struct fd_table *from);
/* A descriptor in the table `owner` is closed: 1 when that is all, or with `later` all until Python runs next (a
 * directory of the engine's own may be gone); else the file is as before, and Python has to do it. */
int vfile_close(struct vfile *f, uint64_t owner, int later);
/* The next file whose last reference went away while nobody had to know. */
struct vfile *vfile_take_closed(void);

/* engine/fast_open.c */
void vfile_keep(struct vfile *f, struct vmount *mount, struct dnode *d);
void vfile_unkeep(struct vfile *f);
/* Nobody has the spare file open any more. */
void vfile_settle(struct vfile *f);
/* Another description of the file that the spare `model` is one of, idle; NULL: there are too many. */
struct vfile *vfile_make(struct vfile *model);
/* The next file that was made and Python has not met; NULL: it knows all.  vfile_free ends what it got so. */
struct vfile *vfile_take_made(void);
void vfile_free(struct vfile *f);
/* How many spares there are at one place, counted up to `most`. */
uint32_t vfile_count_spares(const struct dnode *d, uint32_t most);
/* engine/fast_dir.c: a directory of which Python knows nothing; NULL: it has to be opened there. */
struct vfile *directory_open(struct vmount *mount, struct dnode *d, uint32_t flags);
/* All of these: the one behind `f`, or with NULL the first. */
struct vfile *directory_next(struct vfile *f);
/* Python knows it from now on, and frees it. */
void directory_met(struct vfile *f);
/* Nobody has it open any more. */
void directory_close(struct vfile *f);

#define ALIKE_MOST 64 /* spares of one place */
#define MADE_MOST 256 /* that Python has not met */

/* engine/locks.c: POSIX locks and OFD locks (sentry/fs/locks.py).  `owner`: fd_table.owner, or the address of the
 * vfile; a range includes both ends. */
#define LOCKS_MOST 4096 /* of one file: a guest could let the list grow without end, */
#define LOCKS_ALL_MOST 262144 /* and of all files */
#define LOCK_SHARED 0  /* F_RDLCK */
#define LOCK_EXCLUSIVE 1 /* F_WRLCK */
#define LOCK_CLEAR 2  /* F_UNLCK */
struct record_lock {
    uint64_t owner;
    int64_t start, end;
    int32_t pid; /* as F_GETLK tells it */
    int32_t kind;
};
struct record_locks {
    uint32_t count, room;
    struct record_lock *lock; /* in no order; those of one owner never overlap */
};
/* The lock of somebody else that `wanted` can't be had beside, for LOCK_CLEAR one of its own there; the first one of its
 * owner.  NULL: there is none. */
const struct record_lock *locks_conflict(const struct vnode *node, const struct record_lock *wanted);
/* Put `wanted` over its owner's locks, whether it can be had or not: 0, or -ENOLCK. */
int locks_set(struct vnode *node, const struct record_lock *wanted);
/* Drop all of an owner's: how many these were. */
uint32_t locks_release(struct vnode *node, uint64_t owner);
/* cdef end */

#endif
