/* Signal actions that a stub may change by itself.
 *
 * Nobody needs to hear of a new action before a signal comes.  So a process of one thread that
 * shares its actions with nobody has a copy of them in the thread's record, and its stub answers
 * rt_sigaction there (csrc/stub/answer.c): that thread is the struct sighand's teller.  It marks
 * what it has changed, and whoever looks at the struct fetches that first (sighand_sync).  So an
 * action holds from the moment on that its mark is there, as if the call had come here.
 *
 * The record is the guest's to forge; what comes from there are actions that it might have set as
 * well, and they are cut to what rt_sigaction would have kept.
 */
#include "trap.h"

#include <string.h>

/* The teller's record, where there is one yet: a slot may have been given to somebody else since.
 */
static struct record *told(struct sighand *hand)
{
    struct thread *t;
    if (!hand->teller)
        return NULL;
    t = of_guest(hand->teller);
    if (t->record && t->g.sighand == hand)
        return t->record;
    hand->teller = NULL;
    return NULL;
}

void sighand_sync(struct sighand *hand)
{
    struct record *r = told(hand);
    uint64_t changed;
    if (!r || !__atomic_load_n(&r->actions_changed, __ATOMIC_ACQUIRE))
        return;
    changed = __atomic_exchange_n(&r->actions_changed, 0, __ATOMIC_SEQ_CST) & ~SIGNALS_UNBLOCKABLE;
    while (changed) {
        int signo = __builtin_ctzll(changed) + 1;
        struct signal_action new = *(volatile struct signal_action *)&r->actions[signo];
        new.flags &= FLAGS_KNOWN;
        new.mask &= ~SIGNALS_UNBLOCKABLE;
        hand->actions[signo] = new;
        changed &= changed - 1;
    }
}

void sighand_put(struct sighand *hand, int signo)
{
    struct record *r = told(hand);
    if (r && signo >= 1 && signo <= 64)
        r->actions[signo] = hand->actions[signo];
}

void sighand_keep(struct sighand *hand)
{
    struct record *r = told(hand);
    if (!r)
        return;
    sighand_sync(hand);
    __atomic_store_n(&r->actions_known, 0, __ATOMIC_SEQ_CST);
    hand->teller = NULL;
}

void guest_tell_actions(struct guest_thread *g, struct sighand *hand)
{
    struct record *r = of_guest(g)->record;
    if (!r)
        return;
    r->actions_known = 0;
    if (!hand || g->sighand != hand)
        return;
    sighand_keep(hand);
    memcpy(r->actions, hand->actions, sizeof r->actions);
    r->actions_changed = 0;
    r->actions_known = 1;
    hand->teller = g;
}
