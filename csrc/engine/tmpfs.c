/* Files of a tmpfs: their bytes, in a buffer or a memfd (csrc/abi/vfs.h, struct tmpfs_data).
 *
 * A memfd that is used often is mapped: a copy from the mapping costs a tenth of a pread.  It is mapped only while
 * it is dense, every page below its size in use: to touch a hole would bring a page into use that nobody has been
 * charged for.  Nothing but the Sentry changes the size of a memfd, and it unmaps it before making it shorter, so
 * there is no SIGBUS to be had.
 */
#include "tmpfs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_SIZE 4096
#define MAX_SIZE 0x7ffffffffffff000ll
#define SMALLEST_ROOM 64
#define HOT 16                  /* uses before it is mapped */
#define MAP_MOST (256ll << 20)  /* of one file, bytes */
#define MAPS_MOST 1024          /* files */
#define TOTAL_MOST (1ll << 30)  /* bytes */

static int64_t mapped_bytes;
static int mapped_files;

static int64_t pages_of(int64_t size)
{
    return size / PAGE_SIZE + (size % PAGE_SIZE != 0);
}

/* Every page below its size is in use, and counted (or a guest has it mapped, and then all are counted). */
static bool is_dense(const struct tmpfs_data *data)
{
    return data->pages == pages_of(data->node->size);
}

void tmpfs_unmap(struct tmpfs_data *data)
{
    if (!data->map)
        return;
    munmap(data->map, (size_t)data->map_size);
    mapped_bytes -= data->map_size;
    mapped_files--;
    data->map = NULL;
    data->map_size = 0;
    data->heat = 0;
}

static void map(struct tmpfs_data *data)
{
    int64_t size = pages_of(data->node->size) * PAGE_SIZE;
    void *at;
    tmpfs_unmap(data);
    if (size == 0 || size > MAP_MOST || mapped_bytes + size > TOTAL_MOST || mapped_files >= MAPS_MOST)
        return;
    at = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, data->host_fd, 0);
    if (at == MAP_FAILED)
        return;
    data->map = at;
    data->map_size = size;
    mapped_bytes += size;
    mapped_files++;
}

/* Where the bytes from `offset` to `end` are in memory, NULL if they are not. */
static uint8_t *find(struct tmpfs_data *data, int64_t offset, int64_t end)
{
    if (data->host_fd < 0)
        return end <= data->length ? data->bytes + offset : NULL;
    if (data->flags & TMPFS_SEALABLE || !is_dense(data))
        return NULL;
    if (end > data->map_size) {
        if (++data->heat < HOT)
            return NULL;
        data->heat = 0;
        map(data);
    }
    return end <= data->map_size ? data->map + offset : NULL;
}

const uint8_t *tmpfs_find(struct tmpfs_data *data, uint32_t size, int64_t offset)
{
    return offset + size <= data->node->size ? find(data, offset, offset + size) : NULL;
}

int64_t tmpfs_read(struct tmpfs_data *data, uint8_t *buffer, uint32_t size, int64_t offset)
{
    int64_t left = data->node->size - offset, done = 0;
    const uint8_t *from;
    if (left <= 0)
        return 0;
    if (size > left)
        size = (uint32_t)left;
    from = find(data, offset, offset + size);
    if (from) {
        memcpy(buffer, from, size);
        return size;
    }
    if (data->host_fd < 0)
        return -1;
    while (done < size) {
        ssize_t n = pread(data->host_fd, buffer + done, size - (size_t)done, offset + done);
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += n;
    }
    return done;
}

int tmpfs_resize(struct tmpfs_data *data, uint32_t length)
{
    uint32_t room = data->room ? data->room : SMALLEST_ROOM;
    uint8_t *more;
    if (length > TMPFS_INLINE)
        return -ENOMEM;
    while (room < length)
        room *= 2;
    if (room > data->room) {
        more = realloc(data->bytes, room);
        if (!more)
            return -ENOMEM;
        memset(more + data->room, 0, room - data->room);
        data->bytes = more;
        data->room = room;
    }
    if (length < data->length)
        memset(data->bytes + length, 0, data->length - length);
    data->length = length;
    return 0;
}

void tmpfs_free(struct tmpfs_data *data)
{
    tmpfs_unmap(data);
    free(data->bytes);
    data->bytes = NULL;
    data->length = data->room = 0;
}

/* May the file get bytes from `offset` to `end`, with what has been charged for so far or in advance?  Unless guests
 * have mapped it, it must be dense before and afterwards, or else nobody knows how many pages are new. */
static bool may_grow(const struct tmpfs_data *data, int64_t offset, int64_t end)
{
    int64_t more = pages_of(end) - data->pages;
    if (!(data->flags & TMPFS_MAPPED) && (!is_dense(data) || offset > data->pages * PAGE_SIZE))
        return false;
    return more <= 0 || (data->quota && more <= data->quota->left);
}

static void grow(struct tmpfs_data *data, int64_t end)
{
    int64_t more = pages_of(end) - data->pages;
    if (end > data->node->size)
        data->node->size = end;
    if (more <= 0)
        return;
    data->quota->left -= more;
    data->pages += more;
    data->node->blocks = data->pages * (PAGE_SIZE / 512);
}

int64_t tmpfs_write(struct tmpfs_data *data, const uint8_t *buffer, uint32_t size, int64_t offset)
{
    int64_t end = offset + size, done = size;
    uint8_t *to;
    if (end > MAX_SIZE || !may_grow(data, offset, end))
        return -1;
    if (data->host_fd < 0) {
        if (end > TMPFS_INLINE || data->node->size != data->length)
            return -1;
        if (offset / PAGE_SIZE > pages_of(data->length)) /* it leaves a hole, which only a memfd has */
            return -1;
        if (end > data->length && tmpfs_resize(data, (uint32_t)end) < 0)
            return -1;
        memcpy(data->bytes + offset, buffer, size);
    } else if (end <= data->node->size && (to = find(data, offset, end))) {
        memcpy(to, buffer, size);
    } else {
        done = pwrite(data->host_fd, buffer, size, offset);
        if (done < 0)
            return -1;
    }
    grow(data, offset + done);
    return done;
}
