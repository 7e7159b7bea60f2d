/* What the fast paths ask of a tmpfs: see tmpfs.c.  -1 always means that it is for Python. */
#pragma once
#include "core.h"
#include "vfs.h"

/* Bytes put into `buffer`: fewer than `size` only at the end of the file. */
int64_t tmpfs_read(struct tmpfs_data *data, uint8_t *buffer, uint32_t size, int64_t offset);

/* Bytes taken of `buffer`; the times are the caller's. */
int64_t tmpfs_write(struct tmpfs_data *data, const uint8_t *buffer, uint32_t size, int64_t offset);

/* Where `size` bytes of the file are in the engine's memory until the next call, NULL if they aren't all. */
const uint8_t *tmpfs_find(struct tmpfs_data *data, uint32_t size, int64_t offset);
