/* pidfd_open, pidfd_send_signal, pidfd_getfd, CLONE_PIDFD and waitid(P_PIDFD): what works and what
 * doesn't. */
#include "check.h"

#include <linux/sched.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>

#define THREAD O_EXCL
#define P_PIDFD_ 3

static int open_pid(pid_t pid, unsigned flags)
{
    return (int)syscall(SYS_pidfd_open, pid, flags);
}

static long send_to(int fd, int signo, siginfo_t *info, unsigned flags)
{
    return syscall(SYS_pidfd_send_signal, fd, signo, info, flags);
}

static long get_fd(int pidfd, int fd, unsigned flags)
{
    return syscall(SYS_pidfd_getfd, pidfd, fd, flags);
}

static void show_poll(const char *what, int fd)
{
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLPRI, 0};
    int n = poll(&p, 1, 0);
    say("%s: %d ready, %#x", what, n, p.revents);
}

static void opening(void)
{
    CASE("pidfd_open");
    SHOW_OK(open_pid(getpid(), 0));
    SHOW(open_pid(0, 0));
    SHOW(open_pid(-1, 0));
    SHOW(open_pid(INT_MAX, 0));
    SHOW(open_pid(getpid(), 1));
    SHOW(open_pid(getpid(), O_CLOEXEC));
    int fd = open_pid(getpid(), O_NONBLOCK), threaded = open_pid(getpid(), THREAD);
    SHOW(fcntl(fd, F_GETFD));
    SHOW(fcntl(fd, F_GETFL));
    SHOW(fcntl(threaded, F_GETFL));
    char link[64], path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(path, link, sizeof link - 1);
    link[size] = 0;
    say("link %s", link);
    char byte;
    SHOW(read(fd, &byte, 1));
    SHOW(write(fd, &byte, 1));
    SHOW(lseek(fd, 0, SEEK_SET));
    SHOW(ioctl(fd, TIOCGWINSZ, link));
    struct stat one, two;
    MUST(fstat(fd, &one));
    MUST(fstat(threaded, &two));
    SHOW_IF(one.st_ino == two.st_ino);
    pid_t pid = CHILD(pause());
    int child = MUST(open_pid(pid, 0));
    MUST(fstat(child, &two));
    SHOW_IF(one.st_ino == two.st_ino);
    say("mode %o", one.st_mode);
    kill(pid, SIGKILL);
    reap("child", pid);
    close(fd), close(threaded), close(child);
}

static void life(void)
{
    siginfo_t info;
    CASE("poll and waitid");
    struct gate gate = gate_make();
    pid_t pid = CHILD(gate_wait(gate); _exit(7));
    int fd = MUST(open_pid(pid, 0)), polite = MUST(open_pid(pid, O_NONBLOCK));
    show_poll("alive", fd);
    SHOW(waitid(P_PIDFD_, polite, &info, WEXITED));
    SHOW(waitid(P_PIDFD_, polite, &info, WEXITED | WNOHANG));
    SHOW_IF(info.si_pid == 0);
    gate_open(gate);
    struct pollfd p = {fd, POLLIN, 0};
    SHOW(poll(&p, 1, -1));
    show_poll("zombie", fd);
    SHOW_OK(open_pid(pid, 0));
    SHOW(send_to(fd, 0, NULL, 0));
    SHOW(get_fd(fd, 0, 0));
    SHOW(waitid(P_PIDFD_, fd, &info, WEXITED | WNOWAIT));
    SHOW_IF(info.si_pid == pid && info.si_code == CLD_EXITED && info.si_status == 7);
    SHOW(waitid(P_PIDFD_, fd, &info, WEXITED));
    show_poll("reaped", fd);
    SHOW(waitid(P_PIDFD_, fd, &info, WEXITED));
    SHOW(send_to(fd, 0, NULL, 0));
    SHOW(get_fd(fd, 0, 0));
    SHOW(open_pid(pid, 0));
    SHOW(waitid(P_PIDFD_, 0, &info, WEXITED));
    SHOW(waitid(P_PIDFD_, 999, &info, WEXITED));
    SHOW(waitid(P_PIDFD_, -1, &info, WEXITED));
    close(fd), close(polite), gate_close(gate);
}

static volatile sig_atomic_t got, got_code, got_pid;

static void on_signal(int signo, siginfo_t *info, void *context UNUSED)
{
    got = signo;
    got_code = info->si_code;
    got_pid = info->si_pid;
}

static void signals(void)
{
    CASE("pidfd_send_signal");
    int fd = MUST(open_pid(getpid(), 0)), threaded = MUST(open_pid(getpid(), THREAD));
    handle_flags(SIGUSR1, on_signal, 0);
    SHOW(send_to(fd, SIGUSR1, NULL, 0));
    SHOW_IF(got == SIGUSR1 && got_code == SI_USER && got_pid == getpid());
    SHOW(send_to(threaded, SIGUSR1, NULL, 0));
    SHOW_IF(got_code == SI_TKILL);
    SHOW(send_to(fd, SIGUSR1, NULL, 1));
    SHOW_IF(got_code == SI_TKILL);
    SHOW(send_to(fd, 65, NULL, 0));
    SHOW(send_to(fd, -1, NULL, 0));
    SHOW(send_to(fd, 0, NULL, 8));
    SHOW(send_to(fd, 0, NULL, 3));
    SHOW(send_to(0, 0, NULL, 0));
    SHOW(send_to(999, 0, NULL, 0));
    siginfo_t info = {0};
    info.si_signo = SIGUSR1;
    info.si_code = SI_QUEUE;
    info.si_pid = 1234;
    SHOW(send_to(fd, SIGUSR1, &info, 0));
    SHOW_IF(got_code == SI_QUEUE && got_pid == 1234);
    SHOW(send_to(fd, SIGUSR2, &info, 0));
    SHOW(send_to(fd, SIGUSR1, BAD, 0));
    info.si_code = SI_USER;
    SHOW(send_to(fd, SIGUSR1, &info, 0));
    pid_t pid = CHILD(pause());
    int child = MUST(open_pid(pid, 0));
    SHOW(send_to(child, SIGUSR1, &info, 0));
    info.si_code = SI_TKILL;
    SHOW(send_to(child, SIGUSR1, &info, 0));
    SHOW(send_to(child, SIGTERM, NULL, 0));
    reap("child", pid);
    int proc = MUST(open("/proc/self", O_RDONLY | O_DIRECTORY));
    SHOW(send_to(proc, SIGUSR1, NULL, 0));
    int other = MUST(open("/proc/self/fd", O_RDONLY | O_DIRECTORY));
    SHOW(send_to(other, SIGUSR1, NULL, 0));
    close(fd), close(threaded), close(child), close(proc), close(other);
}

static void descriptors(void)
{
    CASE("pidfd_getfd");
    int ends[2];
    MUST(pipe(ends));
    struct gate gate = gate_make();
    pid_t pid = CHILD(dup2(ends[1], 77); gate_open(gate); pause());
    gate_wait(gate);
    int fd = MUST(open_pid(pid, 0));
    int copy = MUST(get_fd(fd, 77, 0));
    SHOW(fcntl(copy, F_GETFD));
    SHOW(write(copy, "abc", 3));
    char text[4] = "";
    SHOW(read(ends[0], text, 3));
    SHOW(get_fd(fd, 78, 0));
    SHOW(get_fd(fd, -1, 0));
    SHOW(get_fd(fd, 77, 1));
    SHOW(get_fd(0, 77, 0));
    SHOW(get_fd(999, 77, 0));
    kill(pid, SIGKILL);
    reap("child", pid);
    close(fd), close(copy), close(ends[0]), close(ends[1]), gate_close(gate);
}

static void by_clone(void)
{
    CASE("CLONE_PIDFD");
    int pidfd = -1;
    struct clone_args args = {
        .flags = CLONE_PIDFD, .pidfd = (uint64_t)&pidfd, .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(fcntl(pidfd, F_GETFD) == -1 ? 5 : 6);
    SHOW_IF(pid > 0 && pidfd > 2);
    SHOW(fcntl(pidfd, F_GETFD));
    siginfo_t info;
    SHOW(waitid(P_PIDFD_, pidfd, &info, WEXITED));
    say("status %d", info.si_status);
    close(pidfd);
    args.pidfd = (uint64_t)BAD;
    SHOW(syscall(SYS_clone3, &args, sizeof args));
    SHOW(waitpid(-1, NULL, WNOHANG));
    SHOW(syscall(SYS_clone, CLONE_PIDFD | CLONE_PARENT_SETTID | SIGCHLD, 0, &pidfd, NULL, 0));
    SHOW(syscall(SYS_clone, CLONE_PIDFD | CLONE_DETACHED | SIGCHLD, 0, &pidfd, NULL, 0));
    pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, &pidfd, NULL, 0);
    if (pid == 0)
        _exit(9);
    SHOW_IF(waitpid(pid, NULL, 0) == pid);
    show_poll("after the wait", pidfd);
    close(pidfd);
}

static pid_t worker_tid;
static struct gate worker_there, worker_go;

static void *worker(void *arg UNUSED)
{
    worker_tid = (pid_t)syscall(SYS_gettid);
    gate_open(worker_there);
    gate_wait(worker_go);
    return NULL;
}

static void threads(void)
{
    pthread_t thread;
    CASE("threads");
    worker_there = gate_make(), worker_go = gate_make();
    NEED(pthread_create(&thread, NULL, worker, NULL) == 0);
    gate_wait(worker_there);
    SHOW(open_pid(worker_tid, 0));
    int fd = MUST(open_pid(worker_tid, THREAD));
    show_poll("thread", fd);
    SHOW(send_to(fd, 0, NULL, 0));
    gate_open(worker_go);
    struct pollfd p = {fd, POLLIN, 0};
    SHOW(poll(&p, 1, -1));
    pthread_join(thread, NULL);
    show_poll("thread gone", fd);
    SHOW(send_to(fd, 0, NULL, 0));
    close(fd), gate_close(worker_there), gate_close(worker_go);
}

static void *last_worker(void *arg)
{
    gate_wait(*(struct gate *)arg);
    _exit(4);
}

static void until_zombie(pid_t id)
{
    while (task_state(id) != 'Z')
        sched_yield();
}

/* A thread that leads its process and ends before the others: both kinds of file wait for the process. */
static void leader_first(void)
{
    CASE("the leader ends first");
    for (int traced = 0; traced < 2; traced++) {
        struct gate there = gate_make(), go = gate_make(), worker = gate_make();
        pid_t pid = CHILD({
            pthread_t thread;
            NEED(pthread_create(&thread, NULL, last_worker, &worker) == 0);
            gate_open(there);
            gate_wait(go);
            syscall(SYS_exit, 0);
        });
        gate_wait(there);
        int fd = MUST(open_pid(pid, 0)), threaded = MUST(open_pid(pid, THREAD)), status;
        if (traced)
            MUST(ptrace(PTRACE_SEIZE, pid, NULL, NULL));
        gate_open(go);
        until_zombie(pid);
        say(traced ? "traced" : "not traced");
        show_poll("process", fd);
        show_poll("leader", threaded);
        SHOW(waitpid(pid, NULL, WNOHANG));
        gate_open(worker);
        struct pollfd p[] = {{threaded, POLLIN, 0}, {fd, POLLIN, 0}};
        SHOW(poll(p, 1, -1));
        SHOW(poll(p + 1, 1, -1));
        show_poll("process", fd);
        show_poll("leader", threaded);
        MUST(waitpid(pid, &status, 0));
        show_status("status", status);
        show_poll("process gone", fd);
        show_poll("leader gone", threaded);
        close(fd), close(threaded), gate_close(there), gate_close(go), gate_close(worker);
    }
}

static void *reports(void *arg)
{
    struct gate *gates = arg;
    pid_t tid = gettid();
    MUST(write(gates[0].ends[1], &tid, sizeof tid));
    gate_wait(gates[1]);
    return NULL;
}

/* A traced thread stays until its tracer has waited for it, and keeps its process from ending. */
static void traced_thread(void)
{
    CASE("a traced thread");
    struct gate gates[2] = {gate_make(), gate_make()}, end = gate_make();
    pid_t tid, pid = CHILD({
        pthread_t thread;
        NEED(pthread_create(&thread, NULL, reports, gates) == 0);
        gate_wait(end);
        syscall(SYS_exit, 0);
    });
    NEED(read(gates[0].ends[0], &tid, sizeof tid) == sizeof tid);
    MUST(ptrace(PTRACE_SEIZE, tid, NULL, NULL));
    int fd = MUST(open_pid(pid, 0)), leader = MUST(open_pid(pid, THREAD)), thread = MUST(open_pid(tid, THREAD));
    gate_open(gates[1]);
    struct pollfd p[] = {{thread, POLLIN, 0}, {fd, POLLIN, 0}};
    SHOW(poll(p, 1, -1));
    show_poll("thread", thread);
    gate_open(end);
    until_zombie(pid);
    show_poll("process", fd);
    show_poll("leader", leader);
    SHOW(waitpid(pid, NULL, WNOHANG));
    SHOW_IF(waitpid(tid, NULL, __WALL) == tid);
    show_poll("thread gone", thread);
    SHOW(poll(p + 1, 1, -1));
    show_poll("process", fd);
    show_poll("leader", leader);
    reap("process", pid);
    close(fd), close(leader), close(thread), gate_close(gates[0]), gate_close(gates[1]), gate_close(end);
}

static void info_lines(void)
{
    CASE("fdinfo");
    pid_t pid = CHILD(pause());
    int fd = MUST(open_pid(pid, 0));
    char path[64], text[512] = "", want[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    int info = MUST(open(path, O_RDONLY));
    NEED(read(info, text, sizeof text - 1) > 0);
    snprintf(want, sizeof want, "\nPid:\t%d\nNSpid:\t%d", pid, pid);
    SHOW_IF(strstr(text, want) != NULL);
    kill(pid, SIGKILL);
    reap("child", pid);
    memset(text, 0, sizeof text);
    NEED(pread(info, text, sizeof text - 1, 0) > 0);
    SHOW_IF(strstr(text, "\nPid:\t-1\nNSpid:\t-1\n") != NULL);
    close(fd), close(info);
    struct {
        uint64_t mask, cgroup;
        uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
        int32_t code;
    } all = {.mask = 3};
    fd = MUST(open_pid(getpid(), 0));
    SHOW(ioctl(fd, _IOWR(0xff, 11, typeof(all)), &all));
    SHOW_IF((all.mask & 3) == 3 && all.pid == (uint32_t)getpid() && all.tgid == all.pid &&
            all.ppid == (uint32_t)getppid());
    SHOW_IF(all.ruid == getuid() && all.egid == getegid());
    SHOW(ioctl(fd, _IOWR(0xff, 11, char[60]), &all));
    SHOW(ioctl(fd, _IOWR(0xff, 11, typeof(all)), NULL));
    int ns = (int)MUST(ioctl(fd, _IO(0xff, 10), 0));
    struct stat one, two;
    MUST(fstat(ns, &one));
    MUST(stat("/proc/self/ns/uts", &two));
    SHOW_IF(one.st_ino == two.st_ino && one.st_dev == two.st_dev);
    close(fd), close(ns);
}

/* PIDFD_GET_INFO of this process and of one that is gone, by a child that has left their namespace (EREMOTE since
 * Linux 7.0, 6.19.10 and 6.18.14). */
static void info_elsewhere(void)
{
    CASE("PIDFD_GET_INFO, in another namespace");
    struct {
        uint64_t mask, cgroup;
        uint32_t ids[11];
        int32_t code;
    } all = {.mask = 9};
    pid_t gone = CHILD(_exit(3));
    int fds[2] = {(int)MUST(open_pid(getpid(), 0)), (int)MUST(open_pid(gone, 0))};
    reap("gone", gone);
    struct clone_args args = {.flags = CLONE_NEWUSER | CLONE_NEWPID, .exit_signal = SIGCHLD};
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
        SHOW(ioctl(fds[0], _IOWR(0xff, 11, typeof(all)), &all));
        SHOW(ioctl(fds[1], _IOWR(0xff, 11, typeof(all)), &all));
        SHOW(ioctl(fds[0], _IOWR(0xff, 11, typeof(all)), NULL));
        SHOW(ioctl(fds[0], _IOWR(0xff, 11, typeof(all)), BAD));
        _exit(0);
    }
    MUST(pid);
    reap("elsewhere", pid);
    close(fds[0]), close(fds[1]);
}

int main(void)
{
    opening();
    life();
    signals();
    descriptors();
    by_clone();
    threads();
    leader_first();
    traced_thread();
    info_lines();
    info_elsewhere();
    return 0;
}
