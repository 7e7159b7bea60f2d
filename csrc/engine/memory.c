/* Guest memory from the Sentry's side: process_vm_readv, process_vm_writev, and move_pages, which tells what is there.
 *
 * The first two obey the protection that the guest's own mapping has (a write to a read-only page is
 * EFAULT, as for a system call on Linux) and stop at the first page they cannot reach.
 */
#include "core.h"
#include "mm.h"
#include "stub.h"

#include <errno.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHUNK 512

static int64_t copy(int pid, uint64_t addr, void *buffer, uint64_t size, bool write)
{
    uint64_t done = 0;
    if (pid <= 0)
        return -ESRCH;
    if (addr >= STUB_BASE)
        return -EFAULT;
    if (size > STUB_BASE - addr)
        size = STUB_BASE - addr;
    while (done < size) {
        struct iovec local = {(char *)buffer + done, size - done};
        struct iovec remote = {(void *)(addr + done), size - done};
        ssize_t n = write ? process_vm_writev(pid, &local, 1, &remote, 1, 0)
                          : process_vm_readv(pid, &local, 1, &remote, 1, 0);
        if (n <= 0)
            return done ? (int64_t)done : n < 0 ? -errno : -EFAULT;
        done += (uint64_t)n;
    }
    return (int64_t)done;
}

int64_t memory_read(int pid, uint64_t addr, void *buffer, uint64_t size)
{
    return copy(pid, addr, buffer, size, false);
}

int64_t memory_write(int pid, uint64_t addr, const void *buffer, uint64_t size)
{
    return copy(pid, addr, (void *)buffer, size, true);
}

static uint8_t what_is_there(int status)
{
    if (status == -ENOENT)
        return PAGE_ABSENT;
    return status == -EFAULT ? PAGE_ZERO : PAGE_RESIDENT;
}

/* move_pages(2) without nodes moves nothing: it says where pages are, and so whether. */
int64_t memory_resident(int pid, uint64_t addr, uint64_t stride, uint64_t count, uint8_t *pages)
{
    const void *at[CHUNK];
    int status[CHUNK];
    uint64_t done, i;
    int64_t found = 0;
    if (pid <= 0)
        return -ESRCH;
    for (done = 0; done < count; done += i) {
        const uint64_t n = count - done < CHUNK ? count - done : CHUNK;
        for (i = 0; i < n; i++)
            at[i] = (void *)(addr + (done + i) * stride);
        if (syscall(SYS_move_pages, (long)pid, n, at, NULL, status, 0L) < 0)
            return -errno;
        for (i = 0; i < n; i++) {
            const uint8_t what = what_is_there(status[i]);
            found += what == PAGE_RESIDENT;
            if (pages)
                pages[done + i] = what;
        }
    }
    return found;
}

uint32_t mm_large(const struct mm *mm, uint64_t size, uint32_t *found, uint32_t room)
{
    uint32_t i, count = 0;
    for (i = 0; i < mm->count && count < room; i++)
        if (mm->vmas[i].end - mm->vmas[i].start > size)
            found[count++] = i;
    return count;
}
