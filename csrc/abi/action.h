/* Signals and their actions, for C alone. */
#pragma once
#include "sighand.h"

#define SIGNAL_BIT(signo) (1ull << ((signo) - 1))
#define SIGNALS_UNBLOCKABLE (1ull << 8 | 1ull << 18) /* SIGKILL, SIGSTOP */
#define SIGNALS_IGNORED \
    (1ull << 16 | 1ull << 17 | 1ull << 22 | 1ull << 27) /* by default: CHLD, CONT, URG, WINCH */
#define HANDLER_DEFAULT 0
#define HANDLER_IGNORE 1
#define RESTORER 0x04000000u /* SA_RESTORER, which libc hides */
/* SA_*: what is kept of a new action's flags. */
#define FLAGS_KNOWN                                                                         \
    ((uint64_t)(0x1 | 0x2 | 0x4 | 0x800 | RESTORER | 0x08000000 | 0x10000000 | 0x40000000 | \
                0x80000000u))

static inline int action_ignores(const struct signal_action *a, int signo)
{
    return a->handler == HANDLER_IGNORE ||
           (a->handler == HANDLER_DEFAULT && SIGNALS_IGNORED & SIGNAL_BIT(signo));
}
