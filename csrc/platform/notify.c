/* Seccomp notifications: calls of a stub's that its filter reports, because the Sentry has to see them first.
 *
 * No stub keeps a descriptor.  When one is to map a file, the Sentry's order makes it ask (a certain call, which its
 * filter reports), and the answer puts the descriptors into the stub (SECCOMP_IOCTL_NOTIF_ADDFD needs a pending
 * notification); they are closed before the order is done.  clone and mremap are reported, too, since a stub that made
 * them unasked would get what nobody counts, or reach a neighbour's record.
 *
 * What is compared with the order is what the host's kernel says of the caller and its arguments, which are in
 * registers: no other thread can change them.
 */
#include "notify.h"
#include "core.h"
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

static int answer(struct engine *e, uint64_t id, int error, uint32_t flags)
{
    struct seccomp_notif_resp resp = {.id = id, .error = error, .flags = flags};
    if (ioctl(e->listener, SECCOMP_IOCTL_NOTIF_SEND, &resp) < 0 && errno != ENOENT)
        return -errno;
    return 0;
}

static bool is_expected(const struct seccomp_notif *req, const struct notified *n)
{
    return n && req->pid == (uint32_t)n->pid && req->data.nr == n->nr && req->data.arch == AUDIT_ARCH_X86_64 &&
           memcmp(req->data.args, n->args, sizeof n->args) == 0;
}

/* Give the caller a descriptor.  -ENOENT: it is gone. */
static int lend(struct engine *e, uint64_t id, int fd, uint32_t as)
{
    struct seccomp_notif_addfd add = {.id = id,
                                      .flags = SECCOMP_ADDFD_FLAG_SETFD,
                                      .srcfd = (uint32_t)fd,
                                      .newfd = as,
                                      .newfd_flags = O_CLOEXEC};
    while (ioctl(e->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0)
        if (errno != EINTR)
            return errno == ESRCH || errno == EINPROGRESS ? -ENOENT : -errno;
    return 0;
}

/* A thread that was let go with a call for which it is lent a descriptor (fast_mm.c). */
static int lend_last(struct engine *e, const struct seccomp_notif *req)
{
    struct thread *t = thread_find(e, (int)req->pid);
    const struct notified ask = {.pid = (int)req->pid, .nr = SYS_close, .args = {LEND_TOKEN}};
    int r;
    if (!t || t->g.state != THREAD_RUNNING || !t->parting.kind || t->parting.fd < 0 || !is_expected(req, &ask))
        return answer(e, req->id, -EPERM, 0);
    r = lend(e, req->id, t->parting.fd, LENT_FD);
    if (r == -ENOENT)
        return 0;
    t->parting.lent = true;
    return answer(e, req->id, r, r ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

/* One notification is there, or was a moment ago. */
int notify_serve(struct engine *e, struct notified *n)
{
    struct seccomp_notif req;
    uint32_t i;
    memset(&req, 0, sizeof req);
    if (ioctl(e->listener, SECCOMP_IOCTL_NOTIF_RECV, &req) < 0)
        return errno == ENOENT || errno == EINTR ? 0 : -errno;
    if (!is_expected(&req, n))
        return lend_last(e, &req);
    for (i = 0; i < n->fd_count; i++) {
        int r = lend(e, req.id, n->fds[i], LENT_FD + i);
        if (r < 0)
            return r == -ENOENT ? 0 : answer(e, req.id, r, 0);
    }
    n->made = true;
    return answer(e, req.id, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

