/* Handlers: what they are told, masks while they run, nesting, the flags of sigaction(2), and its errors. */
#include "check.h"

static volatile int calls, started, depth, deepest, mask_seen;
static siginfo_t last;

static void record(int signo, siginfo_t *info, void *context UNUSED)
{
    calls++;
    last = *info;
    (void)signo;
}

static const char *code_name(int code)
{
    switch (code) {
    case SI_USER:
        return "USER";
    case SI_TKILL:
        return "TKILL";
    case SI_QUEUE:
        return "QUEUE";
    case SI_KERNEL:
        return "KERNEL";
    case SI_TIMER:
        return "TIMER";
    }
    return "other";
}

static void show_last(const char *what)
{
    say("%s: calls %d signo %s code %s pid %d uid %d", what, calls, signal_name(last.si_signo),
        code_name(last.si_code), last.si_pid == getpid(), last.si_uid == getuid());
    calls = 0;
}

static void information(void)
{
    CASE("siginfo");
    handle_flags(SIGUSR1, record, 0);
    raise(SIGUSR1);
    show_last("raise");
    kill(getpid(), SIGUSR1);
    show_last("kill");
    syscall(SYS_tkill, gettid(), SIGUSR1);
    show_last("tkill");
    syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1);
    show_last("tgkill");
    kill(0 * getpid() + getpid(), SIGUSR1);
    show_last("own process");
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 1234});
    say("value %d", last.si_value.sival_int);
    show_last("sigqueue");
}

static void nested(int signo UNUSED)
{
    sigset_t mask;
    depth++;
    if (depth > deepest)
        deepest = depth;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    mask_seen = sigismember(&mask, SIGUSR1) * 4 + sigismember(&mask, SIGUSR2) * 2 + sigismember(&mask, SIGTERM);
    if (!started) {
        started = 1;
        raise(SIGUSR1);
        raise(SIGUSR2);
    }
    calls++;
    depth--;
}

static void with(int flags, int also)
{
    struct sigaction action = {.sa_handler = nested, .sa_flags = flags};
    action.sa_mask = set_of(also);
    MUST(sigaction(SIGUSR1, &action, NULL));
    action.sa_mask = set_of(0);
    MUST(sigaction(SIGUSR2, &action, NULL));
    calls = deepest = started = 0;
    raise(SIGUSR1);
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    say("flags %#x mask %d: calls %d deepest %d seen %d after %d%d", flags, also, calls, deepest, mask_seen,
        sigismember(&mask, SIGUSR1), sigismember(&mask, SIGUSR2));
}

static void masks(void)
{
    CASE("masks and nesting");
    with(0, 0);
    with(0, SIGUSR2);
    with(0, SIGTERM);
    with(SA_NODEFER, 0);
    with(SA_NODEFER, SIGUSR2);
    CASE("SA_RESETHAND");
    struct sigaction action = {.sa_handler = nested, .sa_flags = SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    MUST(sigaction(SIGTERM, &action, NULL));
    raise(SIGTERM);
    MUST(sigaction(SIGTERM, NULL, &action));
    SHOW_IF(action.sa_handler == SIG_DFL);
    CASE("read back");
    action.sa_handler = nested;
    action.sa_mask = set_of(SIGHUP);
    action.sa_flags = SA_RESTART | SA_NODEFER;
    MUST(sigaction(SIGUSR1, &action, NULL));
    struct sigaction back;
    MUST(sigaction(SIGUSR1, NULL, &back));
    SHOW_IF(back.sa_handler == nested);
    say("flags %#x", back.sa_flags & ~0x04000000);
    say("mask %d %d", sigismember(&back.sa_mask, SIGHUP), sigismember(&back.sa_mask, SIGUSR1));
}

static int order[8], order_count;

static void in_order(int signo, siginfo_t *info, void *context UNUSED)
{
    order[order_count++ & 7] = signo * 10 + (signo >= SIGRTMIN ? info->si_value.sival_int : 0);
}

static void show_order(const char *what)
{
    char text[128] = "";
    for (int i = 0; i < order_count; i++)
        sprintf(text + strlen(text), " %d", order[i]);
    say("%s:%s", what, text);
    order_count = 0;
}

static void pending(void)
{
    sigset_t all, old, set;
    CASE("pending");
    sigfillset(&all);
    handle_flags(SIGUSR1, in_order, 0);
    handle_flags(SIGUSR2, in_order, 0);
    handle_flags(SIGRTMIN, in_order, 0);
    handle_flags(SIGRTMIN + 1, in_order, 0);
    MUST(sigprocmask(SIG_SETMASK, &all, &old));
    for (int i = 0; i < 3; i++) {
        raise(SIGUSR2);
        raise(SIGUSR1);
        sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i});
        if (i < 2)
            sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i});
    }
    MUST(sigpending(&set));
    say("%d%d%d", sigismember(&set, SIGUSR1), sigismember(&set, SIGRTMIN), sigismember(&set, SIGHUP));
    show_order("blocked");
    /* The last one set up runs first, so the handlers run from the highest number down. */
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
    show_order("delivered");
    CASE("ignoring throws pending ones away");
    MUST(sigprocmask(SIG_SETMASK, &all, &old));
    raise(SIGUSR1);
    signal(SIGUSR1, SIG_IGN);
    MUST(sigpending(&set));
    say("%d", sigismember(&set, SIGUSR1));
    handle_flags(SIGUSR1, in_order, 0);
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
    show_order("delivered");
    CASE("fork: the mask is inherited, pending is not");
    set = set_of(SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &set, &old));
    raise(SIGUSR1);
    reap("child", CHILD(sigset_t mine; sigpending(&mine); sigprocmask(SIG_BLOCK, NULL, &set);
                        _exit(sigismember(&set, SIGUSR1) * 2 + sigismember(&mine, SIGUSR1))));
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
    show_order("parent");
}

static void errors(void)
{
    struct sigaction action = {.sa_handler = SIG_IGN};
    CASE("errors");
    SHOW(sigaction(SIGKILL, &action, NULL));
    SHOW(sigaction(SIGSTOP, &action, NULL));
    SHOW(sigaction(SIGKILL, NULL, &action));
    SHOW(sigaction(0, NULL, NULL));
    SHOW(sigaction(65, NULL, NULL));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, BAD, NULL, 8));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, NULL, BAD, 8));
    SHOW(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, NULL, 16));
    SHOW(syscall(SYS_rt_sigprocmask, 77, &action, NULL, 8));
    SHOW(syscall(SYS_rt_sigprocmask, 77, NULL, NULL, 8));
    SHOW(syscall(SYS_rt_sigprocmask, SIG_BLOCK, BAD, NULL, 8));
    SHOW(syscall(SYS_rt_sigpending, BAD, 8));
    SHOW(syscall(SYS_rt_sigpending, &action, 16));
    CASE("KILL and STOP can't be blocked");
    sigset_t set, old;
    sigfillset(&set);
    MUST(sigprocmask(SIG_SETMASK, &set, &old));
    MUST(sigprocmask(SIG_SETMASK, &old, &set));
    say("%d%d%d", sigismember(&set, SIGKILL), sigismember(&set, SIGSTOP), sigismember(&set, SIGTERM));
}

int main(void)
{
    information();
    masks();
    pending();
    errors();
    return 0;
}
