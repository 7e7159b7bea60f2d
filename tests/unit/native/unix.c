/* Messages of Unix sockets by random calls, against what must be true of them: built with the sanitizers.  Sockets go while
 * their messages are under way, and messages while their receivers are.
 *
 * usage: unix SEED TIMES */
#include "../../../csrc/engine/queue.c"
#include "../../../csrc/engine/unix.c"

#include <stdio.h>

#define SOCKETS 8
#define LARGEST 70000

static uint64_t state;
static struct unix_sock *socks[SOCKETS];

static uint64_t rnd(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

static void need(int truth, const char *what)
{
    if (truth)
        return;
    fprintf(stderr, "not so: %s\n", what);
    abort();
}

/* Each message says by its bytes how large it is and where it begins. */
static void look(const struct unix_sock *s)
{
    uint64_t size = 0;
    uint32_t count = 0;
    const struct skb *skb, *last = NULL;
    for (skb = s->first; skb; last = skb, skb = skb->next) {
        count++;
        size += skb->size - skb->start;
        need(skb->start <= skb->size && skb->truesize > skb->size, "a message counts for more than its bytes");
        for (uint32_t i = skb->start; i < skb->size; i += 1 + skb->size / 7)
            need(skb->data[i] == (uint8_t)(skb->size + i), "bytes are whose they were");
    }
    need(count == s->count && size == s->size && last == s->last, "what the socket counts");
}

static void look_at_all(void)
{
    uint64_t charged = 0;
    for (int i = 0; i < SOCKETS; i++) {
        if (!socks[i])
            continue;
        look(socks[i]);
        for (const struct skb *skb = socks[i]->first; skb; skb = skb->next)
            charged += skb->truesize;
    }
    need(charged == unix_total(), "what all of them count");
}

static void take_first(struct unix_sock *s, uint32_t size)
{
    struct skb *skb = s->first;
    if (!skb)
        return;
    if (size < skb->size - skb->start) {
        skb_consume(s, skb, size);
        return;
    }
    skb_consume(s, skb, skb->size - skb->start);
    skb_unlink(s, skb);
    skb_free(skb);
}

static void end(int i)
{
    struct unix_sock *s = socks[i];
    s->is_dead = 1;
    while (s->first) {
        struct skb *skb = s->first;
        skb_unlink(s, skb);
        skb_free(skb);
    }
    socks[i] = NULL;
    unix_put(s);
}

static void step(void)
{
    static const uint32_t types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    int i = (int)(rnd() % SOCKETS), k = (int)(rnd() % SOCKETS);
    if (!socks[i])
        socks[i] = unix_new(types[rnd() % 3], 4608 + (uint32_t)(rnd() % 212992));
    switch (rnd() % 8) {
    case 0:
        if (rnd() % 4 == 0)
            end(i);
        return;
    case 1: { /* from the middle */
        struct skb *skb = socks[i]->first;
        for (uint64_t n = rnd() % 4; skb && skb->next && n; n--)
            skb = skb->next;
        if (skb) {
            skb_unlink(socks[i], skb);
            skb_free(skb);
        }
        return;
    }
    case 2:
    case 3:
        take_first(socks[i], (uint32_t)(rnd() % 5000));
        return;
    }
    if (socks[k]) {
        uint32_t size = (uint32_t)(rnd() % (rnd() % 4 ? 600 : LARGEST));
        struct skb *skb = skb_alloc(socks[i], size);
        if (!skb)
            return;
        for (uint32_t n = 0; n < size; n++)
            skb->data[n] = (uint8_t)(size + n);
        need(unix_chunk(socks[i]) < LARGEST && unix_chunk(socks[i]) > 0, "how much goes into one message");
        skb_queue(socks[k], skb);
    }
}

int main(int argc, char **argv)
{
    uint64_t i;
    if (argc < 3)
        return 2;
    state = strtoull(argv[1], NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
    for (i = strtoull(argv[2], NULL, 0); i; i--) {
        step();
        if (i % 8 == 0)
            look_at_all();
    }
    for (i = 0; i < SOCKETS; i++)
        if (socks[i])
            end((int)i);
    need(unix_total() == 0, "all gone");
    /* Sizes around the borders of heads and pages, up to the most that a datagram may have. */
    for (uint32_t type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
        struct unix_sock *s = unix_new(type, 212992);
        for (uint32_t size = 0; size < 8 << 20; size += size < 200000 ? 1 : 4099)
            need(unix_truesize(s, size) > size, "no message counts for less than its bytes");
        unix_put(s);
    }
    puts("ok");
    return 0;
}
