/* What a process does about signals (struct sighand_struct); Python's SigHand owns it. */
#ifndef SENTRY_SIGHAND_H
#define SENTRY_SIGHAND_H

#include <stdint.h>

/* cdef begin */
/* As rt_sigaction(2) has it. */
struct signal_action {
    uint64_t handler, flags, restorer, mask;
};

struct sighand {
    struct signal_action actions[65]; /* by signal number; 0 is not used */
};

/* execve(2): handlers become the default, ignored signals stay ignored. */
void sighand_reset(struct sighand *hand);
/* cdef end */

#endif
