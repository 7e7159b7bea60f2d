/*
 * poll(2) and epoll(7) of /proc/self/mounts: ready once after each change of the mounts.
 * USER: root
 */
#include "check.h"

#include <sys/epoll.h>
#include <sys/mount.h>

static void show(const char *what, int fd)
{
    struct pollfd entry = {fd, POLLIN | POLLPRI, 0};
    int count = poll(&entry, 1, 0);
    say("%s: %d, %s%s%s", what, count, entry.revents & POLLIN ? "in " : "",
        entry.revents & POLLPRI ? "pri " : "", entry.revents & POLLERR ? "err" : "");
}

int main(void)
{
    scratch();
    MUST(unshare(CLONE_NEWNS));
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    MUST(mkdir("room", 0700));
    int fd = MUST(open("/proc/self/mounts", O_RDONLY)),
        info = MUST(open("/proc/self/mountinfo", O_RDONLY));
    show("at first", fd);
    MUST(mount("x", "room", "tmpfs", 0, NULL));
    show("mounted", fd);
    show("again", fd);
    show("the other file", info);
    int late = MUST(open("/proc/self/mounts", O_RDONLY));
    show("opened later", late);

    int set = MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLPRI, .data.fd = fd};
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
    SHOW(epoll_wait(set, &event, 1, 0));
    pid_t pid = CHILD({
        usleep(50000);
        MUST(umount("room"));
    });
    SHOW(epoll_wait(set, &event, 1, 5000));
    say("events %x", event.events);
    SHOW(epoll_wait(set, &event, 1, 0));
    reap("child", pid);
    show("unmounted", late);
    MUST(mount("room", "room", NULL, MS_BIND, NULL));
    show("bound", late);
    MUST(umount2("room", MNT_DETACH));
    show("detached", late);
    SHOW(epoll_wait(set, &event, 1, 0));
    int other = MUST(open("/proc/self/mountstats", O_RDONLY));
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, other, &event));
    int plain = MUST(open("/proc/self/status", O_RDONLY));
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, plain, &event));
    return 0;
}
