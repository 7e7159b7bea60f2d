/* Fast paths on signals: actions, and a signal to oneself: one whose handler runs at once (raise(3)), or that is ignored.
 * The twins are in sentry/syscalls/signals.py and sentry/kernel/{signals,task}.py. */
#include "fast.h"
#include "action.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define SIGSET_SIZE 8
#define BIT SIGNAL_BIT
#define UNBLOCKABLE SIGNALS_UNBLOCKABLE
#define STOPS_OR_CONTINUES (UNBLOCKABLE | BIT(SIGTSTP) | BIT(SIGTTIN) | BIT(SIGTTOU) | BIT(SIGCONT))

void sighand_reset(struct sighand *hand)
{
    int i;
    sighand_keep(hand);
    for (i = 1; i <= 64; i++)
        hand->actions[i] = (struct signal_action){
            .handler = hand->actions[i].handler == HANDLER_IGNORE ? HANDLER_IGNORE : HANDLER_DEFAULT};
}

/* May be made twice, as it is where the old action can't be delivered. */
int fast_sigaction(struct call *c)
{
    struct sighand *hand = c->t->g.sighand;
    int32_t signo = (int32_t)c->args[0];
    struct signal_action new, *a;
    if (!hand || c->args[3] != SIGSET_SIZE || signo < 1 || signo > 64)
        return FAST_PASS;
    sighand_sync(hand);
    a = hand->actions + signo;
    if (c->args[1]) {
        if (BIT(signo) & UNBLOCKABLE || call_in(c, c->args[1], &new, sizeof new) < 0)
            return FAST_PASS;
        new.flags &= FLAGS_KNOWN;
        new.mask &= ~UNBLOCKABLE;
        if (action_ignores(&new, signo)) /* what is pending, as it may be even if it was ignored before, has to be thrown away */
            return FAST_PASS;
    }
    if (c->args[2]) { /* in the memory that the new one came in */
        memcpy(c->out, a, sizeof *a);
        c->out_addr = c->args[2];
        c->out_size = sizeof *a;
    }
    if (c->args[1]) {
        *a = new;
        sighand_put(hand, signo);
    }
    return call_return(c, 0);
}

/* The signal goes to the caller, nothing else is pending, and a handler takes it. */
static int run_handler(struct call *c, int32_t signo, int32_t code)
{
    struct guest_thread *g = &c->t->g;
    const struct signal_action *a = g->sighand->actions + signo;
    struct signal_frame s = {0};
    uint64_t mask = g->hot->sigmask & ~UNBLOCKABLE;
    const int32_t head[6] = {signo, 0, code, 0, g->task_tgid, (int32_t)g->task_uid};
    if (!(a->flags & RESTORER) || a->flags & SA_RESETHAND || g->hot->altstack)
        return FAST_PASS;
    memcpy(s.info, head, sizeof head);
    s.handler = a->handler;
    s.restorer = a->restorer;
    s.mask = mask;
    thread_whole_regs(c->t);
    s.stack = g->regs.rsp - 128; /* the red zone */
    s.alt_flags = SS_DISABLE;
    if (call_push_frame(c, &s) < 0)
        return FAST_PASS;
    mask |= a->mask;
    if (!(a->flags & SA_NODEFER))
        mask |= BIT(signo);
    g->hot->sigmask = mask & ~UNBLOCKABLE;
    return FAST_JUMP;
}

/* A signal to the calling thread, which may send it (who may not signal himself?).  Those that stop or end a process,
 * that have to wait, or that wait already, are Python's. */
static int signal_self(struct call *c, int32_t signo, int32_t code)
{
    struct guest_thread *g = &c->t->g;
    const struct signal_action *a;
    if (signo == 0)
        return call_return(c, 0);
    if (!g->sighand || signo < 1 || signo > 31 || g->task_tgid == 1 || g->hot->pending ||
        BIT(signo) & (g->hot->sigmask | STOPS_OR_CONTINUES))
        return FAST_PASS;
    sighand_sync(g->sighand);
    a = g->sighand->actions + signo;
    if (action_ignores(a, signo))
        return code == SI_TKILL ? call_return(c, 0) : FAST_PASS; /* another thread may block it, and keep it */
    return a->handler == HANDLER_DEFAULT ? FAST_PASS : run_handler(c, signo, code);
}

/* The process's first thread gets what it doesn't block, whoever else there is. */
int fast_kill(struct call *c)
{
    const struct guest_thread *g = &c->t->g;
    if (!g->task_tid || g->task_tid != g->task_tgid || (int32_t)c->args[0] != g->task_tgid)
        return FAST_PASS;
    return signal_self(c, (int32_t)c->args[1], SI_USER);
}

int fast_tgkill(struct call *c)
{
    const struct guest_thread *g = &c->t->g;
    if (!g->task_tid || (int32_t)c->args[0] != g->task_tgid || (int32_t)c->args[1] != g->task_tid)
        return FAST_PASS;
    return signal_self(c, (int32_t)c->args[2], SI_TKILL);
}

int fast_tkill(struct call *c)
{
    const struct guest_thread *g = &c->t->g;
    if (!g->task_tid || (int32_t)c->args[0] != g->task_tid)
        return FAST_PASS;
    return signal_self(c, (int32_t)c->args[1], SI_TKILL);
}
