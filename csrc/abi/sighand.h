/* What a process does about signals (struct sighand_struct); Python's SigHand owns it. */
#ifndef SENTRY_SIGHAND_H
#define SENTRY_SIGHAND_H

#include <stdint.h>

/* cdef begin */
/* As rt_sigaction(2) has it. */
struct signal_action {
    uint64_t handler, flags, restorer, mask;
};

struct guest_thread;
struct sighand {
    struct signal_action actions[65]; /* by signal number; 0 is not used */
    struct guest_thread *teller;      /* who may have changed some since, and tells by his record; or NULL */
};

/* platform/trap_actions.c.  Whoever looks at actions while there is a teller has what he changed written here first;
 * who has changed signal `signo` here says so; who lets others share the actions lets nobody tell any more. */
void sighand_sync(struct sighand *hand);
void sighand_put(struct sighand *hand, int signo);
void sighand_keep(struct sighand *hand);
/* The thread, which is stopped, is the only one of its process, and nobody else shares `hand`; NULL: it is none. */
void guest_tell_actions(struct guest_thread *g, struct sighand *hand);

/* execve(2): handlers become the default, ignored signals stay ignored. */
void sighand_reset(struct sighand *hand);
/* cdef end */

#endif
