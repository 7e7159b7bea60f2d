/* A system call that a stub was ordered to make and that its filter reports: what it has to look like. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct engine;

struct notified {
    int pid; /* who makes it */
    int nr;
    uint64_t args[6];
    const int *fds; /* lent to the caller as LENT_FD and so on */
    uint32_t fd_count;
    bool made; /* out: it was let go on */
};

/* There is a notification, or was a moment ago: let it go on if it is `n` (NULL: none), or of a thread that asks for what
 * its last call is to be lent, refuse it if not.  One that vanishes
 * (interrupted by a signal, or its caller was killed) is no error. */
int notify_serve(struct engine *e, struct notified *n);
