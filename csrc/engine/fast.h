/* Fast paths: system calls that the engine answers without Python (design: the second room).
 *
 * The platform hands each trapped call to fast_trap.  A handler either serves the call whole (FAST_DONE), lets
 * the thread sleep on a queue and serves it later (FAST_PARK), or passes it on to Python (FAST_PASS) before any
 * side effect: then nothing may have changed, and Python's handler of the same call, which is the specification,
 * starts from the beginning.
 *
 * Guest memory: call_in copies from the guest, once.  A handler that has bytes for the guest writes them to
 * c->out and sets out_addr and out_size; the platform delivers them before the program goes on.  If they can't be
 * delivered (a bad address), c->undo takes the side effects back and Python gets the call.
 */
#pragma once
#include "core.h"
#include "vfs.h"

#define CALL_WINDOW (64 * 1024)

enum { FAST_PASS, FAST_DONE, FAST_PARK };

struct call {
    struct engine *e;
    struct thread *t;
    uint64_t nr, args[6];
    int64_t result; /* what the guest finds in rax */

    uint8_t *out; /* CALL_WINDOW bytes to put results into */
    uint64_t out_addr;
    uint32_t out_size; /* 0: nothing to deliver */

    void (*undo)(struct call *c); /* NULL: there is nothing to take back */
    void *undo_object;
    int64_t undo_value, undo_time;
};

typedef int fast_handler(struct call *c);

/* 0, or -EFAULT when not all of it can be read. */
int call_in(struct call *c, uint64_t addr, void *buffer, uint32_t size);

/* A copy of `size` <= CALL_WINDOW bytes of the guest, good until the call ends; NULL for EFAULT. */
const uint8_t *call_data(struct call *c, uint64_t addr, uint32_t size);

/* The file of a descriptor, NULL if nothing is open there (or the thread has no table). */
struct vfile *call_file(struct call *c, uint64_t fd);

static inline int call_return(struct call *c, int64_t result)
{
    c->result = result;
    return FAST_DONE;
}

/* fast.c: FAST_DONE when the thread may go on (regs.rax is set), FAST_PARK, or FAST_PASS. */
int fast_trap(struct engine *e, struct thread *t);

/* The handlers, one file a family; fast.c has the table. */
fast_handler fast_stat, fast_lstat, fast_newfstatat, fast_access, fast_faccessat, fast_faccessat2;
fast_handler fast_readlink, fast_readlinkat;
fast_handler fast_read, fast_pread, fast_readv, fast_write, fast_pwrite, fast_writev;
fast_handler fast_lseek, fast_fstat, fast_fcntl;

/* By the kind of the file. */
int fast_file_read(struct call *c, struct vfile *f);
int fast_file_write(struct call *c, struct vfile *f);

/* fast_file.c: what stat(2) tells of `node` to the guest's `addr`; FAST_PASS unless it is VNODE_LIVE. */
int call_stat(struct call *c, const struct vnode *node, uint64_t addr);
