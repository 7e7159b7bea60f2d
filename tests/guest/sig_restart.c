/* Which sleeping calls a signal ends, which are restarted, and what partial progress does. */
#include "check.h"

#include <sys/epoll.h>

static volatile int calls;
static int wake_pipe[2] = {-1, -1};
static pid_t parent;

static void count(int signo UNUSED)
{
    int saved = errno;
    /* On the third signal whatever waits for the pipe gets its byte, so that a restarted call ends. */
    if (++calls == 3 && wake_pipe[1] >= 0)
        MUST(write(wake_pipe[1], "w", 1));
    errno = saved;
}

static void alarms(bool restart, bool on)
{
    struct sigaction action = {.sa_handler = count, .sa_flags = restart ? SA_RESTART : 0};
    sigemptyset(&action.sa_mask);
    MUST(sigaction(SIGALRM, &action, NULL));
    struct itimerval timer = {{0, on ? 15000 : 0}, {0, on ? 15000 : 0}};
    calls = 0;
    MUST(setitimer(ITIMER_REAL, &timer, NULL));
}

#define TRY(restart, ...)                                                                    \
    do {                                                                                     \
        MUST(pipe(wake_pipe));                                                               \
        alarms(restart, true);                                                               \
        errno = 0;                                                                           \
        long result_ = (long)(__VA_ARGS__);                                                  \
        int error_ = errno;                                                                  \
        alarms(restart, false);                                                              \
        say("%s %s: %ld %s", #restart, #__VA_ARGS__, result_, result_ < 0 ? error_name(error_) : ""); \
        close(wake_pipe[0]);                                                                 \
        close(wake_pipe[1]);                                                                 \
        wake_pipe[1] = -1;                                                                   \
    } while (0)

int main(void)
{
    char byte, text[16];
    int status;
    struct timespec long_time = {100, 0}, rest;
    struct pollfd fds[1];
    parent = getpid();
    CASE("read of a pipe");
    TRY(false, read(wake_pipe[0], &byte, 1));
    TRY(true, read(wake_pipe[0], &byte, 1));
    CASE("never restarted");
    TRY(true, pause());
    TRY(true, nanosleep(&long_time, &rest));
    SHOW_IF(rest.tv_sec >= 95 && rest.tv_sec < 100);
    TRY(true, clock_nanosleep(CLOCK_MONOTONIC, 0, &long_time, &rest) == EINTR ? 77 : 78);
    TRY(true, poll(fds, 0, -1));
    TRY(true, poll(fds, 0, 100000));
    TRY(true, select(0, NULL, NULL, NULL, NULL));
    int epoll = epoll_create1(0);
    struct epoll_event event;
    TRY(true, epoll_wait(epoll, &event, 1, -1));
    sigset_t set = set_of(SIGUSR1), none = set_of(0);
    TRY(true, sigsuspend(&none));
    TRY(true, sigtimedwait(&set, NULL, &long_time));
    TRY(true, sigwaitinfo(&set, NULL));
    TRY(true, ppoll(fds, 0, NULL, &none));
    CASE("wait4");
    struct gate gate = gate_make();
    pid_t pid = CHILD(gate_wait(gate); _exit(9));
    TRY(false, waitpid(pid, &status, 0));
    alarms(true, true);
    while (calls < 2)
        ;
    gate_open(gate);
    SHOW_IF(waitpid(pid, &status, 0) == pid);
    alarms(true, false);
    CASE("wait4, and the SIGCHLD of the child that it waits for");
    for (int i = 0; i < 2; i++) {
        struct sigaction action = {.sa_handler = count, .sa_flags = i ? SA_RESTART : 0};
        siginfo_t info;
        MUST(sigaction(SIGCHLD, &action, NULL));
        calls = 0;
        pid = CHILD(usleep(30000); _exit(3));
        SHOW_IF(waitpid(pid, &status, 0) == pid);
        say("handler %d", calls);
        pid = CHILD(usleep(30000); _exit(3));
        SHOW(waitid(P_PID, (id_t)pid, &info, WEXITED));
        say("handler %d", calls);
        pid = CHILD(usleep(30000); kill(getpid(), SIGSTOP); _exit(3));
        SHOW_IF(waitpid(pid, &status, WUNTRACED) == pid);
        say("handler %d", calls);
        MUST(kill(pid, SIGKILL));
        SHOW_IF(waitpid(pid, &status, 0) == pid);
    }
    MUST(signal(SIGCHLD, SIG_DFL) == SIG_ERR ? -1 : 0);
    CASE("write to a full pipe");
    MUST(pipe(wake_pipe));
    MUST(fcntl(wake_pipe[1], F_SETFL, O_NONBLOCK));
    static char block[65536];
    long filled = 0, got;
    while ((got = write(wake_pipe[1], block, sizeof block)) > 0)
        filled += got;
    MUST(fcntl(wake_pipe[1], F_SETFL, 0));
    int full[2] = {wake_pipe[0], wake_pipe[1]};
    wake_pipe[1] = -1;
    TRY(false, write(full[1], "x", 1));
    wake_pipe[1] = -1;
    CASE("partial progress");
    MUST(read(full[0], block, 4096) == 4096 ? 0 : -1);
    MUST(pipe(wake_pipe));
    alarms(false, true);
    got = write(full[1], block, 8192);
    alarms(false, false);
    say("wrote %ld of 8192", got);
    CASE("SA_RESTART sleeping read sees EOF");
    int ends[2];
    MUST(pipe(ends));
    pid = CHILD(close(ends[0]); gate_wait(gate));
    close(ends[1]);
    alarms(true, true);
    while (calls < 1)
        ;
    gate_open(gate);
    SHOW(read(ends[0], text, sizeof text));
    alarms(true, false);
    reap("child", pid);
    CASE("an ignored signal interrupts nothing");
    signal(SIGWINCH, SIG_DFL);
    MUST(pipe(ends));
    pid = CHILD(for (int i = 0; i < 5; i++) {
        kill(parent, SIGWINCH);
        usleep(2000);
    } MUST(write(ends[1], "y", 1)));
    SHOW(read(ends[0], &byte, 1));
    reap("child", pid);
    CASE("stop and continue are not seen by read");
    pid = CHILD(SHOW(read(ends[0], &byte, 1)));
    usleep(5000);
    MUST(kill(pid, SIGSTOP));
    MUST(waitpid(pid, &status, WUNTRACED));
    show_status("child", status);
    MUST(kill(pid, SIGCONT));
    MUST(waitpid(pid, &status, WCONTINUED));
    show_status("child", status);
    MUST(write(ends[1], "z", 1));
    reap("child", pid);
    return 0;
}
