/* Guest memory from the Sentry's side: process_vm_readv and process_vm_writev.
 *
 * They obey the protection that the guest's own mapping has (a write to a read-only page is
 * EFAULT, as for a system call on Linux) and stop at the first page they cannot reach.
 */
#include "core.h"
#include "stub.h"

#include <errno.h>
#include <sys/uio.h>

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
