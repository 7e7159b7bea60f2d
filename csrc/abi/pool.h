/* A few C threads for calls that wait for the host's disk, so that the engine's loop never does.
 *
 * They never run Python, allocate nothing, and take no signals.  A job's buffer belongs to the pool
 * from pool_submit until pool_take has returned its token.
 */
#ifndef SENTRY_POOL_H
#define SENTRY_POOL_H

#include <stddef.h>
#include <stdint.h>

#define POOL_PREAD 0
#define POOL_FSYNC 1
#define POOL_CLOSE 2 /* of a file nobody else has: freeing gigabytes takes time, too */

/* cdef begin */
/* Start `threads` threads (at most 8; once).  An eventfd that is readable while a result waits for
 * pool_take, or a negative errno. */
int pool_start(unsigned threads);

/* Queue a job: `token` (never 0) names it.  0, or -EAGAIN when too many are queued. */
int pool_submit(unsigned kind, int fd, char *buffer, size_t size, int64_t offset, uint64_t token);

/* A finished job's token, with its result (bytes, or a negative errno) in *result; 0: none. */
uint64_t pool_take(int64_t *result);
/* cdef end */

#endif
