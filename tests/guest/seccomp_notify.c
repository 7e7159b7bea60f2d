/* seccomp_unotify(2): a supervisor answers, lets go on, and gives descriptors. */
#include "seccomp_common.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#ifndef SECCOMP_IOCTL_NOTIF_ADDFD
#error headers are too old
#endif

static int pair[2], out[2]; /* what the target prints is told when it has ended */

static void send_fd(int fd)
{
    char data = 'x', control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec vector = {&data, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    MUST(sendmsg(pair[1], &message, 0));
}

static int take_fd(void)
{
    char data, control[CMSG_SPACE(sizeof(int))];
    struct iovec vector = {&data, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int fd;
    MUST(recvmsg(pair[0], &message, 0));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static volatile int handled;

static void on_signal(int signo UNUSED)
{
    handled++;
}

/* What the supervised process does: each result is told to the supervisor in its output. */
static void target(void)
{
    MUST(dup2(out[1], 1));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    int fd = (int)MUST(install(SECCOMP_FILTER_FLAG_NEW_LISTENER, SYS_getpriority, SECCOMP_RET_USER_NOTIF));
    SHOW(fcntl(fd, F_GETFD));
    SHOW(fcntl(fd, F_GETFL) & O_ACCMODE);
    SHOW(install(SECCOMP_FILTER_FLAG_NEW_LISTENER, SYS_getpriority, SECCOMP_RET_USER_NOTIF));
    SHOW(install(SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_TSYNC, SYS_getpriority, SECCOMP_RET_ALLOW));
    send_fd(fd);
    close(fd);
    SHOW(syscall(SYS_getpriority, 1, 2, 3));
    SHOW(syscall(SYS_getpriority, 4, 5, 6));
    SHOW(syscall(SYS_getpriority, PRIO_PROCESS, 0) > 0);
    int got = (int)syscall(SYS_getpriority, 7);
    SHOW(got == 77);
    SHOW(write(77, "by a descriptor that was put\n", 29));
    got = (int)syscall(SYS_getpriority, 8);
    SHOW(got > 0 && fcntl(got, F_GETFD) == FD_CLOEXEC);
    handle_plain(SIGUSR1, on_signal);
    SHOW(syscall(SYS_getpriority, 9));
    SHOW((int)handled);
    syscall(SYS_getpriority, 10);
    say("not reached");
}

static struct seccomp_notif notif;
static struct seccomp_notif_resp resp;

static void receive(int fd)
{
    memset(&notif, 0, sizeof notif);
    memset(&resp, 0, sizeof resp);
    MUST(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &notif));
    resp.id = notif.id;
}

static void show_poll(int fd, const char *when)
{
    struct pollfd one = {fd, POLLIN | POLLOUT, 0};
    poll(&one, 1, 0);
    say("%s: %#x", when, one.revents);
}

static void show_output(void)
{
    char text[4096];
    ssize_t got = MUST(read(out[0], text, sizeof text));
    MUST(write(1, text, got));
}

int main(void)
{
    MUST(pipe(out));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    pid_t pid = CHILD(target());
    int fd = take_fd();
    struct pollfd one = {fd, POLLIN, 0};
    poll(&one, 1, -1);
    CASE("errors before it is received");
    notif.id = 1;
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &notif));
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, BAD));
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, BAD));
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &resp.id));
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, BAD));
    SHOW(ioctl(fd, TCGETS, &notif));
    SHOW(read(fd, &notif, sizeof notif));
    show_poll(fd, "new");
    receive(fd);
    show_poll(fd, "received");
    CASE("what it says");
    say("pid %s nr %s arguments %llu %llu %llu flags %u arch %#x", (pid_t)notif.pid == pid ? "of the child" : "?",
        notif.data.nr == SYS_getpriority ? "getpriority" : "?", notif.data.args[0], notif.data.args[1], notif.data.args[2],
        notif.flags, notif.data.arch);
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &notif.id));
    resp.flags = 2;
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    resp.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    resp.val = 1;
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    resp.flags = 0;
    resp.val = 4711;
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    CASE("an error");
    receive(fd);
    resp.error = -EXFULL;
    MUST(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    CASE("it goes on");
    receive(fd);
    resp.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    MUST(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    CASE("descriptors");
    receive(fd);
    struct seccomp_notif_addfd add = {.id = notif.id, .srcfd = out[1], .newfd = 77};
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add));
    add.flags = SECCOMP_ADDFD_FLAG_SETFD;
    add.srcfd = 999;
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add));
    add.srcfd = out[1];
    add.newfd_flags = 1;
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add));
    add.newfd_flags = 0;
    add.id++;
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add));
    add.id--;
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add));
    resp.val = 77;
    MUST(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    receive(fd);
    add = (struct seccomp_notif_addfd){.id = notif.id, .srcfd = out[1], .newfd_flags = O_CLOEXEC, .flags = 2};
    SHOW_IF(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add) > 0);
    CASE("a signal meanwhile");
    receive(fd);
    MUST(kill(pid, SIGUSR1));
    do
        usleep(1000);
    while (ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &notif.id) == 0);
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp));
    CASE("death meanwhile");
    receive(fd);
    MUST(kill(pid, SIGKILL));
    reap("child", pid);
    show_output();
    SHOW(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &notif.id));
    show_poll(fd, "alone");
    SHOW(install(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, SYS_getpriority, SECCOMP_RET_USER_NOTIF));
    CASE("the supervisor goes");
    close(fd);
    pid = CHILD(target());
    fd = take_fd();
    receive(fd);
    close(fd);
    int status;
    MUST(waitpid(pid, &status, 0));
    show_status("child", status);
    show_output();
    return 0;
}
