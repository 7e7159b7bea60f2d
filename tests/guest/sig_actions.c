/* Actions: what was set last holds, whoever looks: the process itself, who signals it, its children, the next program. */
#include "check.h"

#include <pthread.h>
#include <spawn.h>

static volatile sig_atomic_t caught, which;

static void first(int signo)
{
    caught++;
    which = signo;
}

static void second(int signo)
{
    caught++;
    which = -signo;
}

static void show_action(int signo)
{
    struct sigaction action;
    MUST(sigaction(signo, NULL, &action));
    say("%s: %s flags %x mask %d", signal_name(signo),
        action.sa_handler == SIG_DFL  ? "default"
        : action.sa_handler == SIG_IGN ? "ignored"
        : action.sa_handler == first   ? "first"
                                       : "second",
        action.sa_flags & ~0x04000000, sigismember(&action.sa_mask, SIGUSR2));
}

static void set_action(int signo, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags}, old;
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaddset(&action.sa_mask, SIGKILL);
    MUST(sigaction(signo, &action, &old));
    say("before: %s", old.sa_handler == SIG_DFL ? "default" : old.sa_handler == SIG_IGN ? "ignored" : "a handler");
}

static void own(void)
{
    CASE("own");
    for (int signo = 1; signo <= 64; signo++)
        if (signo != 32 && signo != 33)
            show_action(signo);
    set_action(SIGUSR1, first, SA_RESTART);
    show_action(SIGUSR1);
    raise(SIGUSR1);
    set_action(SIGUSR1, second, 0);
    kill(getpid(), SIGUSR1);
    say("caught %d, %d", caught, which == -SIGUSR1);
    set_action(SIGUSR1, first, SA_RESETHAND);
    raise(SIGUSR1);
    show_action(SIGUSR1);
    SHOW(sigaction(SIGKILL, NULL, NULL));
    SHOW(sigaction(SIGKILL, &(struct sigaction){.sa_handler = first}, NULL));
    SHOW(syscall(SYS_rt_sigaction, 65, NULL, NULL, 8));
    SHOW(syscall(SYS_rt_sigaction, 0, NULL, NULL, 8));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, BAD, NULL, 8));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, NULL, BAD, 8));
}

static void pending(void)
{
    sigset_t set, now;
    CASE("pending");
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    set_action(SIGUSR1, first, 0);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGCHLD);
    MUST(sigpending(&now));
    say("pending %d %d", sigismember(&now, SIGUSR1), sigismember(&now, SIGCHLD));
    signal(SIGUSR1, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    MUST(sigpending(&now));
    say("pending %d %d", sigismember(&now, SIGUSR1), sigismember(&now, SIGCHLD));
    kill(getpid(), SIGUSR1);
    set_action(SIGUSR1, second, 0);
    caught = 0;
    MUST(sigprocmask(SIG_UNBLOCK, &set, NULL));
    say("caught %d", caught);
}

/* The signal comes from elsewhere, while the process makes no call. */
static void from_another(void)
{
    volatile int *turn = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;
    CASE("from another");
    NEED(turn != MAP_FAILED);
    for (int round = 0; round < 3; round++) {
        *turn = 0;
        caught = 0;
        pid_t pid = CHILD({
            signal(SIGUSR1, round == 0 ? first : round == 1 ? SIG_IGN : SIG_DFL);
            *turn = 1;
            while (!caught && *turn == 1)
                ;
            _exit(caught ? 10 : 11);
        });
        while (*turn == 0)
            usleep(1000);
        MUST(kill(pid, SIGUSR1));
        if (round == 1)
            *turn = 2;
        MUST(waitpid(pid, &status, 0));
        show_status("child", status);
    }
}

static void children(void)
{
    int status;
    CASE("children");
    signal(SIGUSR1, first);
    signal(SIGUSR2, SIG_IGN);
    pid_t pid = CHILD({
        show_action(SIGUSR1);
        signal(SIGUSR1, SIG_IGN);
        signal(SIGUSR2, second);
    });
    MUST(waitpid(pid, &status, 0));
    show_action(SIGUSR1);
    show_action(SIGUSR2);
    signal(SIGCHLD, SIG_IGN);
    pid = CHILD();
    SHOW(waitpid(pid, &status, 0));
    signal(SIGCHLD, SIG_DFL);
    pid = vfork();
    if (pid == 0) {
        struct sigaction action = {.sa_handler = SIG_IGN};
        sigaction(SIGUSR1, &action, NULL);
        _exit(0);
    }
    MUST(waitpid(pid, &status, 0));
    show_action(SIGUSR1);
}

static void *change(void *argument)
{
    show_action(SIGUSR1);
    signal(SIGUSR1, second);
    return argument;
}

static void threads(void)
{
    pthread_t thread;
    CASE("threads");
    signal(SIGUSR1, first);
    NEED(pthread_create(&thread, NULL, change, NULL) == 0);
    NEED(pthread_join(thread, NULL) == 0);
    show_action(SIGUSR1);
    signal(SIGUSR1, first);
    NEED(pthread_create(&thread, NULL, change, NULL) == 0);
    NEED(pthread_join(thread, NULL) == 0);
    show_action(SIGUSR1);
}

static void next_program(const char *path)
{
    char *argv[] = {(char *)path, (char *)"again", NULL};
    int status;
    pid_t pid;
    CASE("the next program");
    signal(SIGUSR1, first);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGWINCH, SIG_IGN);
    pid = CHILD(execv(path, argv));
    MUST(waitpid(pid, &status, 0));
    show_status("exec", status);
    NEED(posix_spawn(&pid, path, NULL, NULL, argv, NULL) == 0);
    MUST(waitpid(pid, &status, 0));
    show_status("spawn", status);
}

int main(int argc, char **argv UNUSED)
{
    if (argc > 1) {
        show_action(SIGUSR1);
        show_action(SIGUSR2);
        show_action(SIGWINCH);
        return 0;
    }
    own();
    pending();
    from_another();
    children();
    next_program("/proc/self/exe");
    threads();
    return 0;
}
