/* Mapping a file of the Sentry's into a stub on `ptrace`: an injected mmap(fd = LENT_FD), which the stub's filter
 * reports (notify.c); then the descriptor is closed.
 *
 * While it waits for the notification the Sentry also listens for SIGCHLD: a stub that is killed in
 * the middle cannot hang it.
 */
#include "core.h"
#include "notify.h"
#include "record.h"
#include "trace.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* Run an injected mmap to its end, serving its notification. */
static int run_order(struct engine *e, struct thread *t, struct injection *in, int host_fd)
{
    struct pollfd listener = {.fd = e->listener, .events = POLLIN};
    const struct guest_regs *want = &in->regs;
    struct notified order = {.pid = t->g.pid,
                             .nr = SYS_mmap,
                             .args = {want->rdi, want->rsi, want->rdx, want->r10, want->r8, want->r9},
                             .fds = &host_fd,
                             .fd_count = 1};
    int r = inject_start(t, in);
    while (r == 0) {
        int n = ppoll(&listener, 1, NULL, &e->wait_mask);
        if (n < 0 && errno != EINTR)
            r = -errno;
        else if (n > 0 && (listener.revents & POLLIN))
            r = notify_serve(e, &order);
        else if (n > 0)
            r = -ESRCH; /* POLLHUP: nobody has the filter any more, not even the zygote */
        while (r == 0 && t->g.state == THREAD_INJECTED && !t->has_status) {
            int c = ptrace_collect(e, -1, WNOHANG);
            if (c <= 0)
                break;
        }
        if (r == 0 && t->has_status) {
            t->has_status = false;
            r = inject_step(e, t, in, t->status);
        } else if (r == 0 && t->g.state != THREAD_INJECTED) {
            r = -ESRCH;
        }
    }
    return inject_end(t, r);
}

/* 0, or the host's -errno. */
int64_t ptrace_map_file(struct engine *e, struct guest_thread *g, uint64_t addr, uint64_t size, int prot,
                        int flags, int host_fd, uint64_t offset)
{
    struct injection in;
    int64_t mapped;
    int r;
    inject_syscall_regs(&in, SYS_mmap,
                        (uint64_t[6]){addr, size, (uint64_t)prot, (uint64_t)flags, LENT_FD, offset});
    r = run_order(e, of_guest(g), &in, host_fd);
    if (r < 0)
        return r;
    mapped = (int64_t)in.regs.rax;
    /* Also where mmap failed: the descriptor may have got there.  EBADF says that it had not. */
    r = (int)ptrace_syscall(e, g, SYS_close, LENT_FD, 0, 0, 0, 0, 0);
    if (mapped < 0)
        return mapped;
    return r == -ESRCH ? r : 0;
}
