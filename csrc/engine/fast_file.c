/* Fast paths on open files: positions, status, and the bytes of files in memory or on a host descriptor.
 *
 * The twins are in sentry/syscalls/file_io.py and open.py (fstat), and below them the files' own:
 * sentry/fs/tmpfs/regular.py, fs/gofer/file.py, fs/dev/memory.py.  What is served here:
 *
 *     VFILE_NULL, VFILE_ZERO  everything
 *     VFILE_RANDOM            reads
 *     VFILE_REGULAR           reads that the host's page cache answers at once; writes but O_APPEND ones
 *     VFILE_TMPFS             reads; writes that need no more pages than are charged already (tmpfs.c)
 *
 * of up to CALL_LARGE bytes.  All that could raise a signal or change a mode bit goes to Python.
 */
#include "fast.h"
#include "tmpfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define IOV_FEW 16 /* longer vectors are Python's */
#define CALL_LARGE (1024 * 1024) /* what Python moves at a time, too */
#define DAY_NS 86400000000000ll
#define SECOND_NS 1000000000ll

static int64_t wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}

static bool is_bytes(const struct vfile *f)
{
    return f->kind == VFILE_NULL || f->kind == VFILE_ZERO || f->kind == VFILE_REGULAR || f->kind == VFILE_TMPFS ||
           f->kind == VFILE_RANDOM;
}

/* rw_verify_area: all of it has an offset.  `count` is below CALL_USER_END. */
static bool in_offsets(int64_t offset, uint64_t count)
{
    return offset >= 0 && offset <= INT64_MAX - (int64_t)count;
}

static uint8_t gathered[CALL_LARGE]; /* bytes on their way that are too many for the window */

/* Reading */

/* Inode.touch_atime: as relatime does. */
static void touch_atime(struct vfile *f)
{
    struct vnode *node = f->node;
    int64_t now;
    if (f->flags & O_NOATIME || node->flags & VNODE_NOATIME)
        return;
    now = wall_ns();
    if (node->atime <= node->mtime || node->atime <= node->ctime || now - node->atime > DAY_NS)
        node->atime = now;
}

/* As tmpfs_read, for a file of the host: without waiting for its disk. */
static int64_t read_host(const struct vfile *f, uint8_t *buffer, uint32_t size, int64_t offset)
{
    int64_t done = 0;
    while (done < size) {
        struct iovec part = {buffer + done, size - (size_t)done};
        ssize_t n = preadv2(f->host_fd, &part, 1, offset + done, RWF_NOWAIT);
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += n;
    }
    return done;
}

/* `size` bytes of `f` from `offset`: in `buffer`, or where `at` then points to.  Fewer only at the end, -1: for Python. */
static int64_t fetch(const struct vfile *f, uint8_t *buffer, uint32_t size, int64_t offset, const uint8_t **at)
{
    *at = buffer;
    switch (f->kind) {
    case VFILE_NULL:
        return 0;
    case VFILE_ZERO:
        memset(buffer, 0, size);
        return size;
    case VFILE_RANDOM:
        return getrandom(buffer, size, GRND_NONBLOCK) == (ssize_t)size ? (int64_t)size : -1;
    case VFILE_REGULAR:
        return read_host(f, buffer, size, offset);
    case VFILE_TMPFS:
        *at = tmpfs_find(f->object, size, offset);
        if (*at)
            return size;
        *at = buffer;
        return tmpfs_read(f->object, buffer, size, offset);
    }
    return -1;
}

/* The guest gets `done` bytes from `from` on; the position moves unless there is an `offset`. */
static int finish_read(struct call *c, struct vfile *f, int64_t from, int64_t done, const int64_t *offset)
{
    if (f->kind == VFILE_TMPFS)
        touch_atime(f);
    if (!offset && (f->kind == VFILE_REGULAR || f->kind == VFILE_TMPFS))
        f->pos = from + done;
    return call_return(c, done);
}

static void undo_read(struct call *c)
{
    struct vfile *f = c->undo_object;
    f->pos = c->undo_value;
}

/* More than the window takes is given to the guest at once, and nothing has happened if that fails. */
static int read_large(struct call *c, struct vfile *f, const struct iovec *vectors, int count, uint64_t total,
                      const int64_t *offset)
{
    int64_t from = offset ? *offset : f->pos, done, given = 0;
    uint32_t size = total > CALL_LARGE ? CALL_LARGE : (uint32_t)total;
    const uint8_t *at;
    if (!in_offsets(from, total))
        return FAST_PASS;
    done = fetch(f, gathered, size, from, &at);
    if (done < 0 || (done == size && total > size))
        return FAST_PASS;
    for (int i = 0; i < count && given < done; i++) {
        int64_t piece = (int64_t)vectors[i].iov_len < done - given ? (int64_t)vectors[i].iov_len : done - given;
        if (memory_write(c->t->g.tgid, (uint64_t)vectors[i].iov_base, at + given, (uint64_t)piece) != piece)
            return FAST_PASS;
        given += piece;
    }
    return finish_read(c, f, from, done, offset);
}

/* How many bytes `f` may have from `offset` on. */
static int64_t left_of(const struct vfile *f, int64_t offset)
{
    if (f->kind == VFILE_TMPFS)
        return ((const struct tmpfs_data *)f->object)->node->size - offset;
    return f->kind == VFILE_REGULAR && f->node->flags & VNODE_LIVE ? f->node->size - offset : INT64_MAX;
}

/* `count` bytes of `f` from `offset`, or from its position, to the guest's `addr`. */
static int read_file(struct call *c, struct vfile *f, uint64_t addr, uint64_t count, const int64_t *offset)
{
    int64_t from = offset ? *offset : f->pos, done, before = f->pos;
    uint32_t size = count > CALL_WINDOW ? CALL_WINDOW : (uint32_t)count;
    const uint8_t *at;
    bool is_far;
    if (!is_bytes(f) || !vfile_readable(f) || !is_user_range(addr, count) || !in_offsets(from, count) || is_watched(f))
        return FAST_PASS;
    if (f->kind == VFILE_NULL || count == 0)
        return call_return(c, 0);
    if (count > size && left_of(f, from) >= size) {
        struct iovec vector = {(void *)addr, count};
        return read_large(c, f, &vector, 1, count, offset);
    }
    is_far = call_is_far(c, size);
    done = fetch(f, is_far ? gathered : c->out, size, from, &at);
    if (done < 0 || (count > size && done == size))
        return FAST_PASS;
    if (at != c->out && c->t->record && !is_far)
        memcpy(c->out, at, (size_t)done);
    else
        c->out = (uint8_t *)at; /* the host takes them from where they are */
    if (!is_far)
        call_came(c, (uint32_t)done, false);
    finish_read(c, f, from, done, offset);
    if (f->pos != before) {
        c->undo = undo_read;
        c->undo_object = f;
        c->undo_value = before;
    }
    c->out_addr = addr;
    c->out_size = (uint32_t)done;
    return FAST_DONE;
}

int fast_file_read(struct call *c, struct vfile *f)
{
    return read_file(c, f, c->args[1], c->args[2], NULL);
}

int fast_pread(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    int64_t offset = (int64_t)c->args[3];
    return f ? read_file(c, f, c->args[1], c->args[2], &offset) : FAST_PASS;
}

/* The vectors of readv and writev without the empty ones: how many, -1 when they are for Python. */
static int few_vectors(struct call *c, struct iovec *vectors, uint64_t *total)
{
    int64_t count = (int32_t)c->args[2];
    int used = 0;
    *total = 0;
    if (count < 0 || count > IOV_FEW)
        return -1;
    if (count && call_in(c, c->args[1], vectors, (uint32_t)(count * (int64_t)sizeof *vectors)) < 0)
        return -1;
    for (int i = 0; i < count; i++) {
        if (!is_user_range((uint64_t)vectors[i].iov_base, vectors[i].iov_len))
            return -1;
        *total += vectors[i].iov_len;
        if (*total > CALL_RW_MAX)
            return -1;
        if (vectors[i].iov_len)
            vectors[used++] = vectors[i];
    }
    return used;
}

int fast_readv(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    struct iovec vectors[IOV_FEW];
    uint64_t total;
    int count;
    if (!f || !is_bytes(f) || !vfile_readable(f) || is_watched(f))
        return FAST_PASS;
    count = few_vectors(c, vectors, &total);
    if (count < 0)
        return FAST_PASS;
    return total ? read_large(c, f, vectors, count, total, NULL) : call_return(c, 0);
}

/* Writing */

static int64_t write_tmpfs(struct tmpfs_data *data, const uint8_t *buffer, uint32_t size, int64_t offset)
{
    int64_t done = tmpfs_write(data, buffer, size, offset);
    if (done >= 0)
        data->node->mtime = data->node->ctime = wall_ns();
    return done;
}

static int64_t write_host(struct vfile *f, const uint8_t *buffer, uint32_t size, int64_t offset)
{
    struct vnode *node = f->node;
    int64_t done = pwrite(f->host_fd, buffer, size, offset);
    if (done < 0)
        return -1;
    if (offset + done > node->size)
        node->size = offset + done;
    node->flags = VNODE_CHANGED;
    return done;
}

/* Whether writes to `f` need nothing that only Python can do: limits, set-id bits, watches. */
static bool is_plain_write(const struct call *c, const struct vfile *f)
{
    if (is_watched(f))
        return false;
    if (f->kind == VFILE_NULL || f->kind == VFILE_ZERO)
        return vfile_writable(f);
    if (f->kind != VFILE_REGULAR && f->kind != VFILE_TMPFS)
        return false;
    return vfile_writable(f) && !(f->node->mode & (S_ISUID | S_ISGID)) && !(c->t->g.files->flags & TABLE_LIMITED);
}

/* `size` bytes to `offset` of a regular file, or to its position. */
static int write_file(struct call *c, struct vfile *f, const uint8_t *buffer, uint32_t size, const int64_t *offset)
{
    int64_t at = offset ? *offset : f->pos, done;
    struct tmpfs_data *data = f->object;
    if (f->flags & O_APPEND) {
        if (f->kind == VFILE_REGULAR)
            return FAST_PASS;
        at = data->node->size;
    }
    if (at < 0 || at > INT64_MAX - size)
        return FAST_PASS;
    done = f->kind == VFILE_TMPFS ? write_tmpfs(data, buffer, size, at) : write_host(f, buffer, size, at);
    if (done < 0)
        return FAST_PASS;
    if (!offset)
        f->pos = at + done;
    return call_return(c, done);
}

static int write_call(struct call *c, struct vfile *f, const int64_t *offset)
{
    uint64_t addr = c->args[1], count = c->args[2];
    const uint8_t *buffer;
    if (!is_plain_write(c, f) || !is_user_range(addr, count) || !in_offsets(offset ? *offset : f->pos, count))
        return FAST_PASS;
    if (f->kind == VFILE_NULL || f->kind == VFILE_ZERO)
        return call_return(c, count < CALL_RW_MAX ? (int64_t)count : CALL_RW_MAX);
    if (count == 0)
        return call_return(c, 0);
    if (count > CALL_LARGE)
        return FAST_PASS;
    if (count <= CALL_WINDOW)
        buffer = call_data(c, addr, (uint32_t)count);
    else
        buffer = call_in(c, addr, gathered, (uint32_t)count) == 0 ? gathered : NULL;
    return buffer ? write_file(c, f, buffer, (uint32_t)count, offset) : FAST_PASS;
}

int fast_file_write(struct call *c, struct vfile *f)
{
    return write_call(c, f, NULL);
}

int fast_pwrite(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    int64_t offset = (int64_t)c->args[3];
    return f ? write_call(c, f, &offset) : FAST_PASS;
}

int fast_writev(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    struct iovec vectors[IOV_FEW];
    uint64_t total;
    uint32_t done = 0;
    int count;
    const bool is_stream = f && (f->kind == VFILE_PIPE || f->kind == VFILE_UNIX);
    if (!f || (!is_stream && !is_plain_write(c, f)))
        return FAST_PASS;
    count = few_vectors(c, vectors, &total);
    if (count < 0)
        return FAST_PASS;
    if (!is_stream) {
        if (!in_offsets(f->pos, total))
            return FAST_PASS;
        if (f->kind == VFILE_NULL || f->kind == VFILE_ZERO || count == 0)
            return call_return(c, (int64_t)total);
    }
    if (total > (is_stream ? CALL_WINDOW : CALL_LARGE))
        return FAST_PASS;
    for (int i = 0; i < count; i++) {
        uint32_t size = (uint32_t)vectors[i].iov_len;
        if (call_in(c, (uint64_t)vectors[i].iov_base, gathered + done, size) < 0)
            return FAST_PASS;
        done += size;
    }
    if (f->kind == VFILE_PIPE)
        return fast_pipe_write_data(c, f, gathered, done);
    if (f->kind == VFILE_UNIX)
        return fast_unix_write_data(c, f, gathered, done);
    return write_file(c, f, gathered, done, NULL);
}

/* Position and status */

/* The size that SEEK_END counts from, -1 if only Python can tell. */
static int64_t end_of(const struct vfile *f)
{
    struct stat st;
    if (f->kind == VFILE_TMPFS)
        return ((const struct tmpfs_data *)f->object)->node->size;
    return fstat(f->host_fd, &st) == 0 ? st.st_size : -1;
}

int fast_lseek(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    int64_t offset = (int64_t)c->args[1], base = 0;
    uint32_t whence = (uint32_t)c->args[2];
    if (!f || f->flags & O_PATH || whence > SEEK_END)
        return FAST_PASS;
    if (f->kind == VFILE_NULL || f->kind == VFILE_ZERO) {
        f->pos = 0;
        return call_return(c, 0);
    }
    if (f->kind != VFILE_REGULAR && f->kind != VFILE_TMPFS && f->kind != VFILE_DIRECTORY)
        return FAST_PASS;
    if (f->kind == VFILE_DIRECTORY && whence == SEEK_END)
        return call_return(c, -EINVAL);
    if (whence != SEEK_SET)
        base = whence == SEEK_CUR ? f->pos : end_of(f);
    if (base < 0 || __builtin_add_overflow(offset, base, &offset))
        return FAST_PASS;
    if (offset < 0)
        return call_return(c, -EINVAL);
    f->pos = offset;
    return call_return(c, offset);
}

static struct timespec timespec_of(int64_t ns)
{
    struct timespec time = {ns / SECOND_NS, ns % SECOND_NS};
    if (time.tv_nsec < 0) {
        time.tv_sec--;
        time.tv_nsec += SECOND_NS;
    }
    return time;
}

int call_stat(struct call *c, const struct vnode *node, uint64_t addr)
{
    struct stat st;
    /* Without credentials the task may see other owners (sentry/kernel/credentials.py). */
    if (!(node->flags & VNODE_LIVE) || !c->t->g.cred)
        return FAST_PASS;
    memset(&st, 0, sizeof st);
    st.st_dev = node->dev;
    st.st_ino = node->ino;
    st.st_nlink = node->nlink;
    st.st_mode = node->mode;
    st.st_uid = node->uid;
    st.st_gid = node->gid;
    st.st_rdev = node->rdev;
    st.st_size = node->size;
    st.st_blksize = node->blksize;
    st.st_blocks = node->blocks;
    st.st_atim = timespec_of(node->atime);
    st.st_mtim = timespec_of(node->mtime);
    st.st_ctim = timespec_of(node->ctime);
    memcpy(c->out, &st, sizeof st);
    c->out_addr = addr;
    c->out_size = sizeof st;
    return call_return(c, 0);
}

int fast_fstat(struct call *c)
{
    const struct vfile *f = call_file(c, c->args[0]);
    return f ? call_stat(c, f->node, c->args[1]) : FAST_PASS;
}
