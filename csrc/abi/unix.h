/* Unix sockets: the state that the fast paths and Python (sentry/net/unix/) both work on.
 *
 * A message under way is a struct skb.  It is charged to its sender (`wmem`) until it is gone, and
 * holds the sender's struct meanwhile: whoever receives it learns the name from there, also when
 * that socket was closed.  Sizes that a program can see (SIOCOUTQ, how much a socket takes before
 * EAGAIN) are Linux's, overhead included: unix_truesize.
 */
#ifndef SENTRY_UNIX_H
#define SENTRY_UNIX_H

#include <stdint.h>

#include "queue.h"

/* cdef begin */
/* unix_sock.state: TCP_* as getsockopt(2) and Linux have it. */
#define UNIX_ESTABLISHED 1
#define UNIX_CLOSE 7
#define UNIX_LISTEN 10

/* unix_sock.shutdown */
#define RCV_SHUTDOWN 1
#define SEND_SHUTDOWN 2

/* unix_sock.odd: why the engine leaves its calls to Python. */
#define UNIX_ODD_CREDS 1  /* SO_PASSCRED and the like: messages say who has sent them */
#define UNIX_ODD_PEEK 2   /* SO_PEEK_OFF is set */
#define UNIX_ODD_TIME 4   /* SO_RCVTIMEO, SO_SNDTIMEO or SO_RCVLOWAT is set */
#define UNIX_ODD_EMBRYO 8 /* nobody has accepted it yet */
#define UNIX_ODD_ASYNC 16 /* O_ASYNC: who writes to it, or reads from it, sends a signal */

/* Of all messages under way in the sandbox, as they are charged. */
#define UNIX_TOTAL_MOST 268435456

struct unix_sock;

struct skb {
    struct skb *next;
    struct unix_sock *sender; /* held */
    uint8_t *data;            /* [size] */
    uint32_t size, start;     /* data[start:size] is still to be read */
    uint32_t truesize;        /* what the sender is charged */
    uint32_t ticket; /* of what Python keeps with it (descriptors, credentials); 0: nothing */
};

struct unix_sock {
    struct queue queue;
    struct skb *first, *last; /* what has arrived; of a listening socket it is in Python alone */
    struct unix_sock *peer;   /* the one that it is connected to, which Python keeps alive */
    struct skb *oob;          /* the message in its queue that is out of band */
    uint32_t count;           /* messages in the queue */
    uint32_t refs;            /* Python's, and of its messages under way */
    uint64_t size;            /* bytes in the queue */
    uint64_t wmem;            /* charged for its messages under way */
    uint32_t sndbuf;
    uint32_t type;  /* SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET */
    uint32_t state; /* UNIX_* */
    uint32_t shutdown;
    uint32_t error;     /* to be told once */
    uint32_t odd;       /* UNIX_ODD_* */
    uint32_t is_dead;   /* it was closed */
    uint32_t name_size; /* bytes of the address; 0: it has none */
    uint8_t name[112];  /* struct sockaddr_un */
};

/* engine/unix.c */
struct unix_sock *unix_new(uint32_t type, uint32_t sndbuf);
void unix_put(struct unix_sock *s);
/* Is it worth while to send (POLLOUT)?  That is long before it is full. */
int unix_writable(const struct unix_sock *s);
/* What a message of `size` bytes counts for. */
uint32_t unix_truesize(const struct unix_sock *s, uint32_t size);
/* How many bytes of a stream one message takes at most. */
uint32_t unix_chunk(const struct unix_sock *s);
/* A message of `sender`, charged, in no queue, its bytes to be written; NULL: no memory. */
struct skb *skb_alloc(struct unix_sock *sender, uint32_t size);
struct skb *skb_new(struct unix_sock *sender, const uint8_t *data, uint32_t size);
/* Put it behind the others of `to`, and wake who waits there.  1 when queue_take has something now.
 */
int skb_queue(struct unix_sock *to, struct skb *skb);
/* Take it out of the queue of `s`. */
void skb_unlink(struct unix_sock *s, struct skb *skb);
/* `size` bytes of it have been read. */
void skb_consume(struct unix_sock *s, struct skb *skb, uint32_t size);
/* It is over: its sender may have room now.  As skb_queue. */
int skb_free(struct skb *skb);
/* All messages of `s`, which has none then. */
struct skb *skb_take_all(struct unix_sock *s);
/* Free the first of a chain, up to `most` and up to one with a ticket.  The rest of the chain. */
struct skb *skb_free_plain(struct skb *first, uint32_t most);
/* Charged for all messages of the sandbox. */
uint64_t unix_total(void);
/* cdef end */

#endif
