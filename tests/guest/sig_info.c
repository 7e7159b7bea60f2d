/* siginfo of every source, queueing order and limits, and who may send what to whom. */
#include "check.h"

#include <pthread.h>
#include <sys/prctl.h>

static volatile sig_atomic_t count;
static siginfo_t last;
static int order[64];

static void take(int signo, siginfo_t *info, void *context UNUSED)
{
    last = *info;
    if (count < 64)
        order[count] = signo * 1000 + info->si_value.sival_int % 1000;
    count++;
}

static const char *sender(pid_t pid)
{
    return pid == getpid() ? "me" : pid == 0 ? "nobody" : "another";
}

static void show(const char *what)
{
    say("%s: %d of %s code %d errno %d from %s uid %s", what, (int)count, signal_name(last.si_signo), last.si_code,
        last.si_errno, sender(last.si_pid), last.si_uid == getuid() ? "mine" : "other");
    count = 0;
    memset(&last, 0, sizeof last);
}

static long queue_info(pid_t pid, int signo, siginfo_t *info)
{
    return syscall(SYS_rt_sigqueueinfo, pid, signo, info);
}

static long thread_info(pid_t pid, pid_t tid, int signo, siginfo_t *info)
{
    return syscall(SYS_rt_tgsigqueueinfo, pid, tid, signo, info);
}

static void sources(void)
{
    CASE("sources");
    handle_flags(SIGUSR1, take, 0);
    handle_flags(SIGRTMIN + 1, take, 0);
    handle_flags(SIGALRM, take, 0);
    handle_flags(SIGPIPE, take, 0);
    kill(getpid(), SIGUSR1);
    show("kill");
    raise(SIGUSR1);
    show("raise");
    syscall(SYS_tkill, getpid(), SIGUSR1);
    show("tkill");
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 42});
    say("value %d", last.si_value.sival_int);
    show("sigqueue");
    pthread_sigqueue(pthread_self(), SIGRTMIN + 1, (union sigval){.sival_int = 43});
    say("value %d", last.si_value.sival_int);
    show("pthread_sigqueue");
    alarm(1);
    while (!count)
        pause();
    show("alarm");
    int ends[2];
    MUST(pipe(ends));
    close(ends[0]);
    SHOW(write(ends[1], "x", 1));
    show("pipe");
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 44};
    struct itimerspec soon = {{0, 0}, {0, 1000000}};
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
    MUST(timer_settime(timer, 0, &soon, NULL));
    while (!count)
        usleep(1000);
    say("timer: code %d value %d overrun %d", last.si_code, last.si_value.sival_int, last.si_overrun);
    timer_delete(timer);
    count = 0;
    if (fork() == 0)
        _exit(kill(getppid(), SIGUSR1));
    while (!count)
        usleep(1000);
    show("from a child");
    wait(NULL);
}

static void children(void)
{
    CASE("children");
    handle_flags(SIGCHLD, take, 0);
    no_core();
    pid_t pid = fork();
    if (pid == 0)
        _exit(300);
    while (!count)
        usleep(1000);
    say("code %d status %d pid %s", last.si_code, last.si_status, last.si_pid == pid ? "the child's" : "?");
    MUST(waitpid(pid, NULL, 0));
    count = 0;
    pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    MUST(kill(pid, SIGSTOP));
    while (!count)
        usleep(1000);
    say("code %d status %d", last.si_code, last.si_status);
    count = 0;
    MUST(kill(pid, SIGCONT));
    while (!count)
        usleep(1000);
    say("code %d status %d", last.si_code, last.si_status);
    count = 0;
    MUST(kill(pid, SIGKILL));
    while (!count)
        usleep(1000);
    say("code %d status %d", last.si_code, last.si_status);
    MUST(waitpid(pid, NULL, 0));
    CASE("SA_NOCLDSTOP");
    count = 0;
    handle_flags(SIGCHLD, take, SA_NOCLDSTOP);
    pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    int status;
    MUST(kill(pid, SIGSTOP));
    MUST(waitpid(pid, &status, WUNTRACED));
    show_status("stopped", status);
    MUST(kill(pid, SIGCONT));
    MUST(waitpid(pid, &status, WCONTINUED));
    show_status("continued", status);
    SHOW((int)count);
    MUST(kill(pid, SIGTERM));
    MUST(waitpid(pid, &status, 0));
    show_status("ended", status);
    SHOW((int)count);
    CASE("SA_NOCLDWAIT and ignoring");
    handle_flags(SIGCHLD, take, SA_NOCLDWAIT);
    count = 0;
    pid = fork();
    if (pid == 0)
        _exit(1);
    SHOW(wait(NULL));
    SHOW((int)count);
    signal(SIGCHLD, SIG_IGN);
    pid = fork();
    if (pid == 0)
        _exit(1);
    SHOW(wait(NULL));
    signal(SIGCHLD, SIG_DFL);
}

static void ordering(void)
{
    sigset_t all, old;
    CASE("order of delivery");
    sigfillset(&all);
    for (int signo = SIGRTMIN; signo < SIGRTMIN + 4; signo++)
        handle_flags(signo, take, 0);
    handle_flags(SIGUSR2, take, 0);
    handle_flags(SIGTERM, take, 0);
    MUST(sigprocmask(SIG_BLOCK, &all, &old));
    count = 0;
    for (int i = 0; i < 3; i++)
        for (int signo = SIGRTMIN + 3; signo >= SIGRTMIN; signo--)
            MUST(sigqueue(getpid(), signo, (union sigval){.sival_int = i}));
    for (int i = 0; i < 3; i++)
        MUST(sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = i + 7}));
    kill(getpid(), SIGTERM);
    sigset_t pending;
    MUST(sigpending(&pending));
    say("pending %d %d %d", sigismember(&pending, SIGUSR2), sigismember(&pending, SIGRTMIN), sigismember(&pending, SIGHUP));
    siginfo_t info;
    sigset_t one = set_of(SIGRTMIN + 2);
    SHOW(sigwaitinfo(&one, &info) == SIGRTMIN + 2);
    say("waited: value %d code %d", info.si_value.sival_int, info.si_code);
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
    for (int i = 0; i < count; i++)
        say("%s %d", signal_name(order[i] / 1000), order[i] % 1000);
    count = 0;
}

static void limited(void)
{
    CASE("limit of the queue");
    struct rlimit limit = {4, 4};
    sigset_t set = set_of(SIGRTMIN), old;
    MUST(setrlimit(RLIMIT_SIGPENDING, &limit));
    sigaddset(&set, SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &set, &old));
    int sent = 0;
    while (sent < 20 && sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = sent}) == 0)
        sent++;
    say("stopped by %s", error_name(errno));
    SHOW_IF(sent <= 4);
    SHOW(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 5}));
    SHOW(kill(getpid(), SIGRTMIN));
    SHOW(kill(getpid(), SIGUSR1));
    count = 0;
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
    SHOW_IF(count >= 1);
    count = 0;
}

static void forged(void)
{
    siginfo_t info = {0};
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    CASE("sigqueueinfo");
    for (int code = -8; code <= 2; code++) {
        info.si_code = code;
        info.si_pid = 77;
        errno = 0;
        long other = queue_info(child, 0, &info);
        int first = errno;
        errno = 0;
        long self = queue_info(getpid(), SIGUSR1, &info);
        say("code %d: to another %ld %s, to oneself %ld %s", code, other, error_name(first), self, error_name(errno));
        if (count)
            say("pid %d code %d", last.si_pid, last.si_code);
        count = 0;
    }
    info.si_code = SI_QUEUE;
    info.si_signo = SIGHUP;
    SHOW(queue_info(getpid(), SIGUSR1, &info));
    say("signo %s", signal_name(last.si_signo));
    SHOW(queue_info(getpid(), 65, &info));
    SHOW(queue_info(getpid(), -1, &info));
    SHOW(queue_info(getpid(), SIGUSR1, BAD));
    SHOW(queue_info(0x3ffffff0, SIGUSR1, &info));
    SHOW(queue_info(0, SIGUSR1, &info));
    SHOW(queue_info(-1, SIGUSR1, &info));
    SHOW(thread_info(getpid(), getpid(), SIGUSR1, &info));
    SHOW(thread_info(getpid(), child, SIGUSR1, &info));
    SHOW(thread_info(-1, getpid(), SIGUSR1, &info));
    SHOW(thread_info(getpid(), 0, SIGUSR1, &info));
    info.si_code = SI_USER;
    SHOW(thread_info(child, child, 0, &info));
    MUST(kill(child, SIGKILL));
    wait(NULL);
}

static void permissions(void)
{
    CASE("permissions");
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    SHOW(kill(child, 0));
    SHOW(kill(child, 65));
    SHOW(kill(child, -1));
    SHOW(kill(0x3ffffff0, 0));
    SHOW(kill(-0x3ffffff0, 0));
    SHOW(kill(0x3ffffff0, 99));
    SHOW(kill(INT_MIN, 0));
    SHOW(kill(0, 0));
    SHOW(syscall(SYS_tkill, 0, SIGUSR1));
    SHOW(syscall(SYS_tkill, -1, SIGUSR1));
    SHOW(syscall(SYS_tkill, child, 65));
    SHOW(syscall(SYS_tkill, 0x3ffffff0, 0));
    SHOW(syscall(SYS_tgkill, child, getpid(), 0));
    SHOW(syscall(SYS_tgkill, 0, child, 0));
    SHOW(syscall(SYS_tgkill, child, child, 0));
    MUST(kill(child, SIGKILL));
    SHOW_IF(waitpid(child, NULL, WNOHANG | WNOWAIT) >= 0);
    siginfo_t info;
    MUST(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    SHOW(kill(child, 0));
    SHOW(kill(child, SIGTERM));
    MUST(waitpid(child, NULL, 0));
    SHOW(kill(child, 0));
    if (geteuid() == 0) {
        reap("uid 1000", CHILD(pid_t father = getppid(); MUST(setresuid(1000, 1000, 1000)); SHOW(kill(father, 0)); SHOW(kill(father, SIGCONT)); SHOW(kill(1, 0));
                               SHOW(kill(1, 99)); MUST(setsid()); SHOW(kill(father, SIGCONT))));
    } else {
        reap("uid 1000", CHILD(pid_t other = 1; (void)other; say("skipped")));
    }
}

int main(void)
{
    sources();
    children();
    ordering();
    reap("limited", CHILD(limited()));
    forged();
    permissions();
    return 0;
}
