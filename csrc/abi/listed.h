/* How a listing is laid out: the Gofer writes it, the engine reads it. */
#pragma once
#include <stdint.h>

/* An entry of a listing (gofer/messages.py, LISTED); the name stands behind it. */
struct listed {
    uint64_t path, nlink, rdev, size, blocks;
    int64_t atime, mtime, ctime;
    uint32_t mode, uid, gid, blksize;
    uint16_t name_size;
    uint8_t type, known;
} __attribute__((packed));
