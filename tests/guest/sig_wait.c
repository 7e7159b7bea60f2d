/* Signals taken without a handler: sigwait, sigtimedwait, sigsuspend, sigqueue, signalfd. */
#include "check.h"

#include <pthread.h>
#include <sys/signalfd.h>

static volatile int calls;

static void count(int signo UNUSED)
{
    calls++;
}

static void *wait_here(void *arg)
{
    int signo = 0;
    sigwait(arg, &signo);
    return (void *)(long)signo;
}

static pid_t leader;

static void *send_to_leader(void *arg UNUSED)
{
    until_asleep(leader);
    MUST(syscall(SYS_tgkill, leader, leader, SIGUSR2));
    return NULL;
}

static void *wait_for_ignored(void *arg UNUSED)
{
    sigset_t set = set_of(SIGUSR2);
    struct timespec while_ = {0, 200000000};
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    MUST(kill(leader, SIGUSR2));
    SHOW(sigtimedwait(&set, NULL, &while_));
    return NULL;
}

/* Only who blocks an ignored signal gets it: among threads the first decides for the process. */
static void ignored(void)
{
    sigset_t set = set_of(SIGUSR2);
    struct timespec while_ = {0, 200000000}, long_ = {20, 0};
    pthread_t thread;
    leader = getpid();
    signal(SIGUSR2, SIG_IGN);
    CASE("what is ignored");
    pthread_create(&thread, NULL, send_to_leader, NULL);
    SHOW(sigtimedwait(&set, NULL, &while_));
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, wait_for_ignored, NULL);
    pthread_join(thread, NULL);
    CASE("what is ignored, and blocked");
    sigprocmask(SIG_BLOCK, &set, NULL);
    pthread_create(&thread, NULL, send_to_leader, NULL);
    SHOW_IF(sigtimedwait(&set, NULL, &long_) == SIGUSR2);
    pthread_join(thread, NULL);
    signal(SIGUSR2, SIG_DFL);
}

int main(void)
{
    sigset_t set = set_of(SIGUSR1), old, both;
    siginfo_t info;
    struct timespec zero = {0, 0}, soon = {0, 5000000}, bad = {0, -1};
    sigaddset(&set, SIGRTMIN);
    sigaddset(&set, SIGCHLD);
    MUST(sigprocmask(SIG_BLOCK, &set, &old));
    CASE("sigtimedwait");
    SHOW(sigtimedwait(&set, &info, &zero));
    SHOW(sigtimedwait(&set, &info, &soon));
    SHOW(sigtimedwait(&set, &info, &bad));
    SHOW(syscall(SYS_rt_sigtimedwait, &set, &info, &zero, 4));
    SHOW(syscall(SYS_rt_sigtimedwait, BAD, &info, &zero, 8));
    raise(SIGUSR1);
    SHOW_IF(sigtimedwait(&set, &info, &zero) == SIGUSR1);
    SHOW_IF(info.si_signo == SIGUSR1 && info.si_pid == getpid() && info.si_code == SI_TKILL);
    SHOW(sigtimedwait(&set, NULL, &zero));
    for (int i = 0; i < 3; i++)
        MUST(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i * 11}));
    while (sigtimedwait(&set, &info, &zero) > 0)
        say("value %d code %d", info.si_value.sival_int, info.si_code);
    raise(SIGUSR1);
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 5});
    SHOW_IF(sigwaitinfo(&set, NULL) == SIGUSR1);
    SHOW_IF(sigwaitinfo(&set, NULL) == SIGRTMIN);
    CASE("woken by another process");
    pid_t us = getpid();
    pid_t pid = CHILD(kill(us, SIGUSR1));
    sigset_t one = set_of(SIGUSR1);
    SHOW_IF(sigwaitinfo(&one, &info) == SIGUSR1);
    SHOW_IF(info.si_pid == pid && info.si_code == SI_USER);
    reap("child", pid);
    one = set_of(SIGCHLD);
    SHOW_IF(sigwaitinfo(&one, &info) == SIGCHLD);
    SHOW_IF(info.si_pid == pid && info.si_code == CLD_EXITED);
    CASE("sigwait in a thread");
    pthread_t thread;
    one = set_of(SIGUSR1);
    pthread_create(&thread, NULL, wait_here, &one);
    kill(getpid(), SIGUSR1);
    void *result;
    pthread_join(thread, &result);
    SHOW_IF((long)result == SIGUSR1);
    CASE("sigsuspend");
    handle_plain(SIGUSR1, count);
    raise(SIGUSR1);
    say("calls %d", calls);
    both = old;
    sigdelset(&both, SIGUSR1);
    SHOW(sigsuspend(&both));
    say("calls %d", calls);
    sigprocmask(SIG_BLOCK, NULL, &both);
    SHOW(sigismember(&both, SIGUSR1));
    SHOW(syscall(SYS_rt_sigsuspend, &both, 16));
    SHOW(syscall(SYS_rt_sigsuspend, BAD, 8));
    CASE("sigqueue");
    SHOW(sigqueue(getpid(), 0, (union sigval){.sival_int = 1}));
    SHOW(sigqueue(getpid(), 65, (union sigval){.sival_int = 1}));
    SHOW(sigqueue(1 << 21, SIGUSR1, (union sigval){.sival_int = 1}));
    info = (siginfo_t){.si_signo = SIGUSR1, .si_code = SI_USER};
    SHOW(syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, &info));
    CASE("signalfd");
    struct signalfd_siginfo record[4];
    SHOW(signalfd(-1, &set, 0x40));
    SHOW(signalfd(0, &set, 0));
    SHOW(signalfd(99, &set, 0));
    int fd = MUST(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    SHOW(fcntl(fd, F_GETFD));
    SHOW_IF(fcntl(fd, F_GETFL) == (O_RDWR | O_NONBLOCK));
    SHOW(read(fd, record, sizeof record));
    SHOW(read(fd, record, sizeof *record - 1));
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    SHOW(poll(&poll_fd, 1, 0));
    raise(SIGUSR1);
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 42});
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 43});
    SHOW(poll(&poll_fd, 1, 0));
    SHOW(read(fd, record, sizeof record));
    for (int i = 0; i < 3; i++)
        say("signo %s code %d int %d pid %d", signal_name(record[i].ssi_signo), record[i].ssi_code, record[i].ssi_int,
            record[i].ssi_pid == (uint32_t)getpid());
    SHOW(write(fd, record, sizeof *record));
    sigset_t less = set_of(SIGRTMIN);
    SHOW_IF(signalfd(fd, &less, 0) == fd);
    raise(SIGUSR1);
    SHOW(poll(&poll_fd, 1, 0));
    SHOW_IF(sigtimedwait(&set, NULL, &zero) == SIGUSR1);
    CASE("signalfd tells of a child");
    fd = MUST(signalfd(-1, &set, 0));
    pid = CHILD(_exit(77));
    SHOW(read(fd, record, sizeof *record));
    say("signo %s status %d code %d pid %d", signal_name(record->ssi_signo), record->ssi_status, record->ssi_code,
        record->ssi_pid == (uint32_t)pid);
    reap("child", pid);
    ignored();
    return 0;
}
