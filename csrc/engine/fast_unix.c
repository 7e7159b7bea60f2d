/* Plain reads and writes of connected stream sockets: read(2), write(2), writev(2), and send(2) and
 * recv(2) without an address.  The twin is sentry/net/unix/stream.py.
 *
 * What carries anything but bytes is Python's: messages with a ticket (descriptors, credentials),
 * sockets that are odd (unix.h), bytes out of band, errors to be told, and whatever raises SIGPIPE.
 */
#include "fast.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)
#define RECEIVE_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)

uint32_t unix_poll(const struct unix_sock *s)
{
    uint32_t mask = 0;
    if (s->error)
        mask |= POLLERR;
    if (s->shutdown == (RCV_SHUTDOWN | SEND_SHUTDOWN) || s->state == UNIX_CLOSE)
        mask |= POLLHUP;
    if (s->shutdown & RCV_SHUTDOWN)
        mask |= POLLRDHUP | POLLIN | POLLRDNORM;
    if (s->count)
        mask |= POLLIN | POLLRDNORM;
    if (s->oob)
        mask |= POLLPRI;
    if (unix_writable(s))
        mask |= POLLOUT | POLLWRNORM | POLLWRBAND;
    return mask;
}

static bool is_plain(const struct unix_sock *s)
{
    return s->type == SOCK_STREAM && s->state == UNIX_ESTABLISHED && !s->odd;
}

/* Receiving */

/* May it be read without a look at what came along, and without telling more than that there is
 * room now? */
static bool is_bare(const struct skb *skb)
{
    return !skb->ticket && skb->start < skb->size && !(skb->sender->odd & UNIX_ODD_ASYNC);
}

/* `size` bytes have been copied from the front of the queue. */
static void consume(struct unix_sock *s, uint64_t size)
{
    while (size) {
        struct skb *skb = s->first;
        uint32_t left = skb->size - skb->start;
        if (size < left) {
            skb_consume(s, skb, (uint32_t)size);
            return;
        }
        size -= left;
        skb_consume(s, skb, left);
        skb_unlink(s, skb);
        skb_free(skb);
    }
}

static void commit_receive(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    consume(f->object, c->out_size);
}

/* How many bytes a read of `size` gets; 0 if only Python can tell. */
static uint64_t available(const struct unix_sock *s, uint64_t size)
{
    uint64_t there = 0;
    for (const struct skb *skb = s->first; skb && there < size; skb = skb->next) {
        if (!is_bare(skb))
            return 0;
        there += skb->size - skb->start;
    }
    return there < size ? there : size;
}

static void copy_out(const struct unix_sock *s, uint8_t *to, uint64_t size)
{
    for (const struct skb *skb = s->first; size; skb = skb->next) {
        uint64_t piece = skb->size - skb->start;
        if (piece > size)
            piece = size;
        memcpy(to, skb->data + skb->start, piece);
        to += piece;
        size -= piece;
    }
}

/* Past the record's window: each message is copied to the guest as it stands, whole or not at all.
 */
static int receive_far(struct call *c, struct unix_sock *s, uint64_t addr, uint64_t size)
{
    uint64_t done = 0;
    while (done < size) {
        const struct skb *skb = s->first;
        uint64_t piece = skb->size - skb->start;
        if (piece > size - done)
            piece = size - done;
        if (memory_write(c->t->g.tgid, addr + done, skb->data + skb->start, piece) !=
            (int64_t)piece)
            break;
        consume(s, piece);
        done += piece;
    }
    if (done == 0)
        return FAST_PASS; /* EFAULT */
    call_came(c, (uint32_t)done, true);
    return call_return(c, (int64_t)done);
}

static int receive(struct call *c, struct vfile *f, uint32_t flags)
{
    struct unix_sock *s = f->object;
    uint64_t addr = c->args[1], size = c->args[2];
    if (!is_plain(s) || s->oob || size == 0 || size > CALL_RW_MAX || !is_user_range(addr, size))
        return FAST_PASS;
    if (!s->first) {
        if (s->error)
            return FAST_PASS;
        if (s->shutdown & RCV_SHUTDOWN)
            return call_return(c, 0);
        if (f->flags & O_NONBLOCK || flags & MSG_DONTWAIT)
            return call_return(c, -EAGAIN);
        return fast_park(c, f, &s->queue, POLLIN | POLLERR | POLLHUP);
    }
    size = available(s, size);
    if (size == 0)
        return FAST_PASS;
    if (size > CALL_WINDOW || call_is_far(c, (uint32_t)size))
        return receive_far(c, s, addr, size);
    copy_out(s, c->out, size);
    call_came(c, (uint32_t)size, false);
    c->commit = commit_receive;
    c->out_addr = addr;
    c->out_size = (uint32_t)size;
    return call_return(c, (int64_t)size);
}

int fast_unix_read(struct call *c, struct vfile *f)
{
    return receive(c, f, 0);
}

int fast_recvfrom(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    uint32_t flags = (uint32_t)c->args[3];
    if (!f || f->kind != VFILE_UNIX || c->args[4] || flags & ~RECEIVE_FLAGS)
        return FAST_PASS;
    return receive(c, f, flags);
}

/* Sending */

/* What there is to say when no more can be sent: nothing of it if something was. */
static int stop(struct call *c, struct unix_sock *s)
{
    if (c->progress == 0)
        return FAST_PASS;
    s->error = 0;
    return call_return(c, (int64_t)c->progress);
}

/* Queue `size` bytes as one message: `data`, or where that is NULL those at the guest's `addr`.  0
 * or -1. */
static int send_piece(struct call *c, struct unix_sock *s, const uint8_t *data, uint64_t addr,
                      uint32_t size)
{
    struct skb *skb = skb_alloc(s, size);
    if (!skb)
        return -1;
    if (data) {
        memcpy(skb->data, data, size);
    } else if (call_in(c, addr, skb->data, size) < 0) {
        skb_free(skb);
        return -1;
    }
    skb_queue(s->peer, skb);
    return 0;
}

static int send_bytes(struct call *c, struct vfile *f, const uint8_t *data, uint64_t addr,
                      uint64_t size, uint32_t flags)
{
    struct unix_sock *s = f->object, *to = s->peer;
    if (!is_plain(s) || !to || to->odd)
        return c->progress ? call_return(c, (int64_t)c->progress) : FAST_PASS;
    while (c->progress < size) {
        uint32_t piece = unix_chunk(s);
        if (s->error || s->shutdown & SEND_SHUTDOWN || to->is_dead || to->shutdown & RCV_SHUTDOWN)
            return stop(c, s);
        if (s->wmem >= s->sndbuf) {
            if (!(f->flags & O_NONBLOCK || flags & MSG_DONTWAIT))
                return fast_park(c, f, &s->queue, POLLOUT | POLLERR | POLLHUP);
            return call_return(c, c->progress ? (int64_t)c->progress : -EAGAIN);
        }
        if (piece > size - c->progress)
            piece = (uint32_t)(size - c->progress);
        if (send_piece(c, s, data ? data + c->progress : NULL, addr + c->progress, piece) < 0)
            return c->progress ? call_return(c, (int64_t)c->progress) : FAST_PASS;
        c->progress += piece;
    }
    return call_return(c, (int64_t)c->progress);
}

int fast_unix_write(struct call *c, struct vfile *f)
{
    uint64_t addr = c->args[1], size = c->args[2];
    if (size == 0 || size > CALL_RW_MAX || !is_user_range(addr, size))
        return FAST_PASS;
    return send_bytes(c, f, NULL, addr, size, 0);
}

int fast_unix_write_data(struct call *c, struct vfile *f, const uint8_t *data, uint32_t size)
{
    return size ? send_bytes(c, f, data, 0, size, 0) : FAST_PASS;
}

int fast_sendto(struct call *c)
{
    struct vfile *f = call_file(c, c->args[0]);
    uint64_t addr = c->args[1], size = c->args[2];
    uint32_t flags = (uint32_t)c->args[3];
    if (!f || f->kind != VFILE_UNIX || c->args[4] || flags & ~SEND_FLAGS)
        return FAST_PASS;
    if (size == 0 || size > CALL_RW_MAX || !is_user_range(addr, size))
        return FAST_PASS;
    return send_bytes(c, f, NULL, addr, size, flags);
}
