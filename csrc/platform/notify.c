/* Mapping a file of the Sentry's into a stub: one seccomp notification.
 *
 * No stub keeps a descriptor.  The Sentry orders mmap(fd = LENT_FD); the stub's filter turns each
 * mmap that is not anonymous into a notification; the Sentry compares it with its order, puts the
 * descriptor into the stub (SECCOMP_IOCTL_NOTIF_ADDFD needs a pending notification), lets the call go
 * on, and orders a close.  The arguments are in registers of a thread that cannot run guest code
 * meanwhile, so what was compared is what is executed.
 *
 * While it waits for the notification the Sentry also listens for SIGCHLD: a stub that is killed in
 * the middle cannot hang it.  A notification that vanishes (interrupted by a stray signal, the call
 * restarts; or killed) shows as ENOENT and the loop goes round again.
 */
#include "core.h"
#include "trace.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define LENT_FD 5

static int answer(struct engine *e, uint64_t id, int error, uint32_t flags)
{
    struct seccomp_notif_resp resp = {.id = id, .error = error, .flags = flags};
    if (ioctl(e->listener, SECCOMP_IOCTL_NOTIF_SEND, &resp) < 0 && errno != ENOENT)
        return -errno;
    return 0;
}

static bool is_the_order(const struct seccomp_notif *req, const struct thread *t, const struct injection *in)
{
    const struct guest_regs *r = &in->regs;
    const uint64_t want[6] = {r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9};
    return req->pid == (uint32_t)t->g.pid && req->data.nr == SYS_mmap &&
           req->data.arch == AUDIT_ARCH_X86_64 && memcmp(req->data.args, want, sizeof want) == 0;
}

/* One notification is there, or was a moment ago. */
static int serve(struct engine *e, const struct thread *t, const struct injection *in, int host_fd)
{
    struct seccomp_notif req;
    struct seccomp_notif_addfd add = {
        .flags = SECCOMP_ADDFD_FLAG_SETFD, .newfd = LENT_FD, .newfd_flags = O_CLOEXEC};
    memset(&req, 0, sizeof req);
    if (ioctl(e->listener, SECCOMP_IOCTL_NOTIF_RECV, &req) < 0)
        return errno == ENOENT || errno == EINTR ? 0 : -errno;
    if (!is_the_order(&req, t, in))
        return answer(e, req.id, -EPERM, 0);
    add.id = req.id;
    add.srcfd = (uint32_t)host_fd;
    while (ioctl(e->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0) {
        if (errno == EINTR)
            continue;
        if (errno == ENOENT || errno == ESRCH || errno == EINPROGRESS)
            return 0;
        return answer(e, req.id, -errno, 0);
    }
    return answer(e, req.id, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

/* Run an injected mmap to its end, serving its notification. */
static int run_order(struct engine *e, struct thread *t, struct injection *in, int host_fd)
{
    struct pollfd listener = {.fd = e->listener, .events = POLLIN};
    struct injection order = *in;
    int r = inject_start(t, in);
    while (r == 0) {
        int n = ppoll(&listener, 1, NULL, &e->wait_mask);
        if (n < 0 && errno != EINTR)
            r = -errno;
        else if (n > 0 && (listener.revents & POLLIN))
            r = serve(e, t, &order, host_fd);
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
