/* Fast paths on open files: positions, status, and the bytes of files that the host holds.
 * The twins are in sentry/syscalls/file_io.py and sentry/syscalls/descriptors.py. */
#include "fast.h"

#include <errno.h>
#include <stdio.h>

int fast_lseek(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    int64_t offset = (int64_t)c->args[1];
    if (!f || f->kind != VFILE_REGULAR)
        return FAST_PASS;
    if ((int32_t)c->args[2] == SEEK_CUR) {
        if (__builtin_add_overflow(offset, f->pos, &offset))
            return FAST_PASS;
    } else if ((int32_t)c->args[2] != SEEK_SET) {
        return FAST_PASS;
    }
    if (offset < 0)
        return call_return(c, -EINVAL);
    f->pos = offset;
    return call_return(c, offset);
}
