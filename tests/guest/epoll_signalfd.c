/* A signalfd in an epoll set: signals that are there, that come, from oneself and from another. */
#include "check.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>

int main(void)
{
    const int signals[] = {SIGURG, SIGUSR1, SIGCHLD, SIGRTMIN};
    sigset_t set;
    struct epoll_event event = {.events = EPOLLIN};
    struct signalfd_siginfo info;
    sigemptyset(&set);
    for (int i = 0; i < 4; i++)
        sigaddset(&set, signals[i]);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    int fd = MUST(signalfd(-1, &set, SFD_NONBLOCK)), ep = MUST(epoll_create1(0));
    MUST(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event));
    for (int i = 0; i < 4; i++) {
        say("%s", signal_name(signals[i]));
        SHOW(epoll_wait(ep, &event, 1, 0));
        MUST(kill(getpid(), signals[i]));
        SHOW(epoll_wait(ep, &event, 1, 0));
        SHOW(read(fd, &info, sizeof info));
        SHOW(epoll_wait(ep, &event, 1, 0));
        if (signals[i] == SIGCHLD)
            continue;
        pid_t pid = CHILD({
            usleep(20000);
            MUST(kill(getppid(), signals[i]));
        });
        SHOW(epoll_wait(ep, &event, 1, 5000));
        MUST(waitpid(pid, NULL, 0));
        while (read(fd, &info, sizeof info) > 0)
            ;
    }
    MUST(kill(getpid(), SIGUSR1));
    int late = MUST(epoll_create1(0));
    MUST(epoll_ctl(late, EPOLL_CTL_ADD, fd, &event));
    SHOW(epoll_wait(late, &event, 1, 0));
    return 0;
}
