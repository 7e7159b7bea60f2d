/* Fast paths: system calls that the engine answers without Python (design: the second room).
 *
 * The platform hands each trapped call to fast_trap.  A handler either serves the call whole (FAST_DONE), lets
 * the thread sleep on a queue and serves it later (FAST_PARK), or passes it on to Python (FAST_PASS) before any
 * side effect: then nothing may have changed, and Python's handler of the same call, which is the specification,
 * starts from the beginning.
 *
 * Guest memory: call_in copies from the guest, once.  A handler that has bytes for the guest writes them to
 * c->out, or sets that to where they are, and out_addr and out_size; they are delivered before the program goes on.  If they can't be
 * delivered (a bad address), c->undo takes the side effects back and Python gets the call.
 */
#pragma once
#include "core.h"
#include "dcache.h"
#include "stub.h"
#include "vfs.h"
#include "watched.h"

#include <fcntl.h>

#define CALL_WINDOW (64 * 1024)
#define CALL_RW_MAX 0x7ffff000u          /* Linux's MAX_RW_COUNT: longer ones are cut */
#define CALL_USER_END 0x7ffffffff000ull /* TASK_SIZE with four-level page tables */

enum { FAST_PASS, FAST_DONE, FAST_PARK, FAST_JUMP };

struct call {
    struct engine *e;
    struct thread *t;
    uint64_t nr, args[6];
    int64_t result; /* what the guest finds in rax */

    uint8_t *out; /* CALL_WINDOW bytes to put results into */
    uint64_t out_addr;
    uint32_t out_size; /* 0: nothing to deliver */

    void (*undo)(struct call *c);   /* NULL: there is nothing to take back */
    void (*commit)(struct call *c); /* what is done once the bytes are sure to arrive, NULL: nothing */
    void *undo_object;
    int64_t undo_value;

    /* Of a call that may sleep (parking.c). */
    bool retry;         /* it has slept */
    bool expired;       /* its deadline has passed */
    struct vfile *held; /* the file of args[0] when it first ran, whatever its descriptor means now */
    uint64_t progress;  /* bytes moved before it slept */
    uint64_t deadline;  /* absolute, CLOCK_MONOTONIC, ns; 0: none */
};

typedef int fast_handler(struct call *c);

/* 0, or -EFAULT when not all of it can be read. */
int call_in(struct call *c, uint64_t addr, void *buffer, uint32_t size);
/* The length of the string at `addr`, copied with its NUL; -EFAULT, or -ENAMETOOLONG beyond `limit`. */
int call_in_string(struct call *c, uint64_t addr, char *buffer, uint32_t limit);

/* `size` <= CALL_WINDOW bytes of the guest, good until the call ends or c->out is written to; NULL for EFAULT.  The
 * guest may change them meanwhile: for what is only passed on, and looked at by nobody. */
const uint8_t *call_data(struct call *c, uint64_t addr, uint32_t size);

/* distance.c: `size` bytes had better not go through the record's window; put them anywhere and c->out there.  When they
 * are in the window, or at the guest's: call_came. */
bool call_is_far(const struct call *c, uint32_t size);
void call_came(const struct call *c, uint32_t size, bool far);

/* The file of a descriptor, NULL if nothing is open there (or the thread has no table). */
struct vfile *call_file(struct call *c, uint64_t fd);

/* Linux's access_ok: what reaches out of user space is EFAULT, whatever of it is used. */
static inline bool is_user_range(uint64_t addr, uint64_t size)
{
    return size <= CALL_USER_END && addr <= CALL_USER_END - size;
}

/* The stub could read and write its own memory for the guest, but it is none of the guest's. */
static inline bool is_guest_range(uint64_t addr, uint64_t size)
{
    return size <= STUB_BASE && addr <= STUB_BASE - size;
}

static inline bool vfile_readable(const struct vfile *f)
{
    return (f->flags & O_ACCMODE) != O_WRONLY && (f->flags & O_ACCMODE) != O_ACCMODE && !(f->flags & O_PATH);
}

static inline bool vfile_writable(const struct vfile *f)
{
    return (f->flags & O_ACCMODE) != O_RDONLY && (f->flags & O_ACCMODE) != O_ACCMODE && !(f->flags & O_PATH);
}

static inline int call_return(struct call *c, int64_t result)
{
    c->result = result;
    return FAST_DONE;
}

/* Sleep on `q`, which belongs to `f`, for any event of `mask`: FAST_PARK.  More than one queue: fast_park_room first. */
int fast_park(struct call *c, struct vfile *f, struct queue *q, uint32_t mask);
bool fast_park_room(struct call *c, uint32_t count);
void parking_begin(struct engine *e, struct call *c);

/* Try the call of a parked thread again. */
void fast_retry(struct engine *e, struct thread *t);

/* Write to `node` that it was read (or written, or its attributes were set) now. */
void vnode_accessed(struct vnode *node);
void vnode_modified(struct vnode *node);
void vnode_changed(struct vnode *node);

/* fast.c: FAST_DONE when the thread may go on (regs.rax is set), FAST_PARK, or FAST_PASS. */
int fast_trap(struct engine *e, struct thread *t);

/* fast_mm.c: the host has refused what the thread was to go on with; what its call returns instead. */
int64_t fast_mm_refused(struct engine *e, struct thread *t, int64_t error);

/* The handlers, one file a family; fast.c has the table. */
fast_handler fast_statx, fast_stat, fast_lstat, fast_newfstatat, fast_access, fast_faccessat, fast_faccessat2;
fast_handler fast_readlink, fast_readlinkat;
fast_handler fast_open, fast_openat;
fast_handler fast_close, fast_dup, fast_dup2, fast_dup3, fast_fcntl;

fast_handler fast_chmod, fast_fchmod, fast_fchmodat, fast_fchown, fast_fchownat, fast_utimensat;
fast_handler fast_fsync, fast_fadvise, fast_ioctl;

/* fast_fd.c: a free number from `from` on that the engine may give, -1: ask Python. */
int call_number(struct call *c, uint32_t from);

/* fast_dir.c: open(2) for reading of the directory that the walk has come to. */
int fast_open_directory(struct call *c, const struct path_walk *w, uint32_t flags);
#define OPEN_LARGEFILE 0100000u /* which libc defines as 0 */

/* fast_path.c: a walk with the rights of the caller, and to go with it from (dirfd, path at addr): 0, -errno, or
 * WALK_PASS, also for an empty path. */
struct path_walk call_walk_of(const struct call *c, uint32_t flags);
int call_walk(struct call *c, struct path_walk *w, int32_t dirfd, uint64_t addr);
fast_handler fast_read, fast_pread, fast_readv, fast_write, fast_pwrite, fast_writev;
fast_handler fast_lseek, fast_fstat, fast_getdents, fast_getdents_old;
fast_handler fast_sigreturn, fast_sigaction, fast_kill, fast_tgkill, fast_tkill;
fast_handler fast_mmap, fast_munmap, fast_mprotect, fast_brk, fast_madvise, fast_mremap;

/* frames.c: the frame goes to c->out, the registers to the handler: 0, or -EAGAIN and nothing has happened.  When the
 * handler returns, the call has returned 0. */
struct signal_frame;
int call_push_frame(struct call *c, const struct signal_frame *s);

/* By the kind of the file. */
int fast_file_read(struct call *c, struct vfile *f);
int fast_file_write(struct call *c, struct vfile *f);

/* fast_file.c: what stat(2) tells of `node` to the guest's `addr`; FAST_PASS unless it is VNODE_LIVE. */
int call_stat(struct call *c, const struct vnode *node, uint64_t addr);

fast_handler fast_sendto, fast_recvfrom;
fast_handler fast_poll, fast_epoll_wait, fast_epoll_pwait;

#define EVENTFD_MAX 0xfffffffffffffffeull

/* A timeout of the guest's, unless the call has its deadline already; <= 0: it has none. */
void call_deadline(struct call *c, int64_t milliseconds);

/* read(2) and write(2) of one kind of file. */
int fast_pipe_read(struct call *c, struct vfile *f);
int fast_pipe_write(struct call *c, struct vfile *f);
int fast_pipe_write_data(struct call *c, struct vfile *f, const uint8_t *data, uint32_t size);
int fast_unix_read(struct call *c, struct vfile *f);
int fast_unix_write(struct call *c, struct vfile *f);
int fast_unix_write_data(struct call *c, struct vfile *f, const uint8_t *data, uint32_t size);
int fast_eventfd_read(struct call *c, struct vfile *f);
int fast_eventfd_write(struct call *c, struct vfile *f);
