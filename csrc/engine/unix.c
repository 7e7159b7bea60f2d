/* The messages of Unix sockets.  See abi/unix.h; who may send what to whom is in sentry/net/unix/.
 */
#include "unix.h"

#include "waiter.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PAGE 4096u
/* Of Linux's struct sk_buff and struct skb_shared_info, as they are allocated. */
#define SKB_OVERHEAD 256u
#define SHARED_INFO 320u
#define HEAD_MOST (PAGE - SHARED_INFO) /* bytes of a stream that are not in pages of their own */
#define PAGES_MOST 32768u              /* and those that are */
#define DATAGRAM_HEAD_MOST (4 * PAGE - SHARED_INFO)
#define DATAGRAM_PAGES_MOST (17 * PAGE)

static uint64_t total;

struct unix_sock *unix_new(uint32_t type, uint32_t sndbuf)
{
    struct unix_sock *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->type = type;
    s->sndbuf = sndbuf;
    s->state = UNIX_CLOSE;
    s->refs = 1;
    return s;
}

void unix_put(struct unix_sock *s)
{
    if (!s || --s->refs)
        return;
    queue_fini(&s->queue);
    free(s);
}

int unix_writable(const struct unix_sock *s)
{
    return s->state != UNIX_LISTEN && (s->wmem + 1) * 4 <= s->sndbuf;
}

static uint32_t up(uint32_t size, uint32_t unit)
{
    return (size + unit - 1) / unit * unit;
}

/* The head of an skb comes from kmalloc, whose sizes are powers of two. */
static uint32_t head_size(uint32_t size)
{
    uint32_t need = up(size, 64) + SHARED_INFO, room = 512;
    while (room < need && room < 1u << 31)
        room *= 2;
    return room + SKB_OVERHEAD;
}

uint32_t unix_truesize(const struct unix_sock *s, uint32_t size)
{
    uint32_t pages = 0;
    if (s->type == SOCK_STREAM) {
        if (size > HEAD_MOST)
            pages = up(size - HEAD_MOST, PAGE);
        if (pages > size)
            return head_size(0) + up(size, PAGE);
    } else if (size > DATAGRAM_HEAD_MOST) {
        pages = size - DATAGRAM_HEAD_MOST;
        pages = up(pages < DATAGRAM_PAGES_MOST ? pages : DATAGRAM_PAGES_MOST, PAGE);
    }
    return head_size(size - pages) + pages;
}

uint32_t unix_chunk(const struct unix_sock *s)
{
    uint32_t most = s->sndbuf / 2 - 64;
    return most < HEAD_MOST + PAGES_MOST ? most : HEAD_MOST + PAGES_MOST;
}

struct skb *skb_alloc(struct unix_sock *sender, uint32_t size)
{
    uint32_t truesize = unix_truesize(sender, size);
    struct skb *skb;
    if (total + truesize > UNIX_TOTAL_MOST)
        return NULL;
    skb = malloc(sizeof *skb + size);
    if (!skb)
        return NULL;
    *skb = (struct skb){
        .sender = sender, .data = (uint8_t *)(skb + 1), .size = size, .truesize = truesize};
    sender->refs++;
    sender->wmem += truesize;
    total += truesize;
    return skb;
}

struct skb *skb_new(struct unix_sock *sender, const uint8_t *data, uint32_t size)
{
    struct skb *skb = skb_alloc(sender, size);
    if (skb)
        memcpy(skb->data, data, size);
    return skb;
}

int skb_queue(struct unix_sock *to, struct skb *skb)
{
    if (to->last)
        to->last->next = skb;
    else
        to->first = skb;
    to->last = skb;
    to->count++;
    to->size += skb->size - skb->start;
    queue_notify(&to->queue, POLLIN | POLLPRI | POLLRDNORM | POLLRDBAND);
    return queue_pending();
}

void skb_unlink(struct unix_sock *s, struct skb *skb)
{
    struct skb **at = &s->first, *before = NULL;
    while (*at && *at != skb) {
        before = *at;
        at = &before->next;
    }
    if (!*at)
        return;
    *at = skb->next;
    if (s->last == skb)
        s->last = before;
    skb->next = NULL;
    s->count--;
    s->size -= skb->size - skb->start;
}

void skb_consume(struct unix_sock *s, struct skb *skb, uint32_t size)
{
    skb->start += size;
    s->size -= size;
}

int skb_free(struct skb *skb)
{
    struct unix_sock *sender = skb->sender;
    sender->wmem -= skb->truesize;
    total -= skb->truesize;
    free(skb);
    /* As Linux counts at this moment (sock_wfree). */
    if (!sender->is_dead && sender->state != UNIX_LISTEN &&
        (sender->wmem + 2) * 4 <= sender->sndbuf)
        queue_notify(&sender->queue, POLLOUT | POLLWRNORM | POLLWRBAND);
    unix_put(sender);
    return queue_pending();
}

struct skb *skb_take_all(struct unix_sock *s)
{
    struct skb *first = s->first;
    s->first = s->last = NULL;
    s->count = 0;
    s->size = 0;
    return first;
}

struct skb *skb_free_plain(struct skb *first, uint32_t most)
{
    while (first && !first->ticket && most--) {
        struct skb *next = first->next;
        skb_free(first);
        first = next;
    }
    return first;
}

uint64_t unix_total(void)
{
    return total;
}
