/* UTS and process id namespaces, through a user namespace of our own so that anybody may have them.
 */
#include "ns_common.h"

#include <linux/nsfs.h>
#include <linux/sched.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>

/* A user namespace in which the caller is root. */
static void become_root(void)
{
    char map[64];
    uid_t uid = geteuid();
    gid_t gid = getegid();
    MUST(unshare(CLONE_NEWUSER));
    snprintf(map, sizeof map, "0 %u 1\n", uid);
    put("/proc/self/uid_map", map);
    put("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1\n", gid);
    put("/proc/self/gid_map", map);
}

static pid_t clone_with(uint64_t flags)
{
    struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
    return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static ino_t ns_of(const char *name)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/self/ns/%s", name);
    MUST(stat(path, &st));
    return st.st_ino;
}

static void uts(void)
{
    struct utsname before, after;
    CASE("UTS");
    MUST(uname(&before));
    ino_t old = ns_of("uts");
    int fd = MUST(open("/proc/self/ns/uts", O_RDONLY));
    SHOW(unshare(CLONE_NEWUTS));
    SHOW_IF(ns_of("uts") != old);
    SHOW(sethostname("inside", 6));
    SHOW(setdomainname("domain", 6));
    MUST(uname(&after));
    say("%s %s", after.nodename, after.domainname);
    pid_t pid = CHILD(uname(&after); _exit(strcmp(after.nodename, "inside")));
    reap("child", pid);
    pid = clone_with(CLONE_NEWUTS);
    if (pid == 0) {
        sethostname("deeper", 6);
        _exit(0);
    }
    reap("clone", pid);
    MUST(uname(&after));
    say("%s", after.nodename);
    SHOW(sethostname("x", -1));
    SHOW(sethostname("x", 65));
    SHOW(sethostname(BAD, 3));
    SHOW(setns(fd, CLONE_NEWIPC));
    SHOW(setns(fd, 0));
    close(fd);
}

static void show_owner(const char *what, int fd, int command)
{
    struct flock lock = {.l_type = F_WRLCK, .l_start = 4};
    MUST(fcntl(fd, command, &lock));
    say("%s: type %d, owner %s", what, lock.l_type,
        lock.l_pid == 0           ? "none"
        : lock.l_pid == -1        ? "a file"
        : lock.l_pid == getpid()  ? "self"
        : lock.l_pid == getppid() ? "parent"
        : lock.l_pid == 1         ? "1"
        : lock.l_pid == 2         ? "2"
                                  : "another");
}

/* What F_GETLK says of a lock's owner in another namespace. */
static void locks(void)
{
    CASE("locks");
    struct flock lock = {.l_type = F_WRLCK, .l_len = 10};
    struct flock next = {.l_type = F_WRLCK, .l_start = 20, .l_len = 1};
    int fd = MUST(open("/tmp", O_TMPFILE | O_RDWR, 0600));
    MUST(fcntl(fd, F_SETLK, &lock));
    reap("child", CHILD(show_owner("the parent's", fd, F_GETLK)));
    struct gate set = gate_make(), seen = gate_make();
    pid_t pid = clone_with(CLONE_NEWPID);
    if (pid == 0) {
        show_owner("from within", fd, F_GETLK);
        show_owner("from within, of files", fd, F_OFD_GETLK);
        MUST(fcntl(fd, F_SETLK, &next));
        reap("the next", CHILD({
                 lock.l_start = 20;
                 lock.l_type = F_WRLCK;
                 MUST(fcntl(fd, F_GETLK, &lock));
                 say("the init's: %d", lock.l_pid);
             }));
        gate_open(set);
        gate_wait(seen);
        _exit(0);
    }
    MUST(pid);
    gate_wait(set);
    lock.l_start = 20;
    MUST(fcntl(fd, F_GETLK, &lock));
    SHOW_IF(lock.l_type == F_WRLCK && lock.l_pid == pid);
    gate_open(seen);
    reap("init", pid);
    lock = (struct flock){.l_type = F_UNLCK};
    MUST(fcntl(fd, F_SETLK, &lock));
    lock = (struct flock){.l_type = F_WRLCK};
    MUST(fcntl(fd, F_OFD_SETLK, &lock));
    pid = clone_with(CLONE_NEWPID);
    if (pid == 0) {
        show_owner("a file's, from within", fd, F_GETLK);
        _exit(0);
    }
    reap("init", MUST(pid));
    close(fd);
}

static void pids(void)
{
    int status;
    char text[256];
    CASE("pid namespace");
    SHOW(ioctl(MUST(open("/proc/self/ns/pid", O_RDONLY)), NS_GET_NSTYPE));
    SHOW(unshare(CLONE_NEWPID));
    SHOW_IF(ns_of("pid") > 0);
    struct stat st;
    SHOW(stat("/proc/self/ns/pid_for_children", &st));
    struct clone_args thread = {.flags = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM};
    SHOW(syscall(SYS_clone3, &thread, sizeof thread));
    SHOW(unshare(CLONE_NEWPID));
    pid_t pid = MUST(fork());
    if (pid == 0) {
        say("pid %d ppid %d tid %ld pgrp %d sid %d", getpid(), getppid(), syscall(SYS_gettid),
            getpgrp(), getsid(0));
        SHOW(kill(1, SIGKILL));
        SHOW(kill(1, SIGTERM));
        SHOW(kill(2, 0));
        SHOW(kill(-1, 0));
        SHOW(setsid());
        SHOW(getpgrp());
        pid_t two = CHILD(usleep(20000); say("child %d of %d", getpid(), getppid()); _exit(4));
        SHOW(two);
        SHOW(waitpid(two, &status, 0));
        show_status("second", status);
        two = fork();
        if (two == 0) {
            if (fork() == 0) {
                usleep(50000);
                say("orphan's parent is %d", getppid());
                _exit(6);
            }
            _exit(5);
        }
        SHOW(waitpid(-1, &status, 0));
        show_status("parent", status);
        SHOW(waitpid(-1, &status, 0));
        show_status("orphan", status);
        pid_t three = clone_with(CLONE_NEWPID);
        if (three == 0) {
            usleep(20000);
            say("deeper %d of %d", getpid(), getppid());
            _exit(0);
        }
        SHOW(three);
        reap("deeper", three);
        CHILD(pause());
        _exit(7);
    }
    reap("init", pid);
    SHOW(fork());
    (void)text;
}

static void on_signal(int signo UNUSED, siginfo_t *info, void *context UNUSED)
{
    say("handler: from %d", info->si_pid);
}

static void signals(void)
{
    CASE("an init and signals");
    struct gate gate = gate_make(), back = gate_make();
    pid_t pid = clone_with(CLONE_NEWPID);
    if (pid == 0) {
        handle_flags(SIGUSR1, on_signal, 0);
        sigset_t usr1 = set_of(SIGUSR1);
        sigprocmask(SIG_BLOCK, &usr1, NULL);
        gate_open(back);
        gate_wait(gate);
        sigprocmask(SIG_UNBLOCK, &usr1, NULL);
        SHOW(kill(getpid(), SIGUSR2));
        SHOW(raise(SIGSTOP));
        sigset_t set = set_of(SIGTERM), pending;
        sigprocmask(SIG_BLOCK, &set, NULL);
        kill(getpid(), SIGTERM);
        sigpending(&pending);
        SHOW(sigismember(&pending, SIGTERM));
        sigprocmask(SIG_UNBLOCK, &set, NULL);
        say("still here");
        gate_open(back);
        for (;;)
            pause();
    }
    gate_wait(back);
    SHOW(kill(pid, SIGTERM));
    SHOW(kill(pid, SIGUSR1));
    gate_open(gate);
    gate_wait(back);
    int status;
    SHOW(kill(pid, SIGSTOP));
    SHOW_IF(waitpid(pid, &status, WUNTRACED) == pid);
    show_status("stopped", status);
    SHOW(kill(pid, SIGCONT));
    SHOW(kill(pid, SIGKILL));
    reap("init", pid);
    pid = clone_with(CLONE_NEWPID);
    if (pid == 0) {
        no_core();
        *(volatile int *)BAD = 1;
    }
    reap("a fault", pid);
    gate_close(gate), gate_close(back);
}

static void set_tid(void)
{
    CASE("set_tid");
    pid_t tid[3] = {1, 0, 0};
    struct clone_args args = {
        .flags = CLONE_NEWPID, .exit_signal = SIGCHLD, .set_tid = (uint64_t)tid, .set_tid_size = 1};
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
        struct clone_args inner = {
            .exit_signal = SIGCHLD, .set_tid = (uint64_t)tid, .set_tid_size = 1};
        tid[0] = 77;
        pid_t child = (pid_t)syscall(SYS_clone3, &inner, sizeof inner);
        if (child == 0)
            _exit(getpid() == 77 ? 3 : 4);
        SHOW(child);
        SHOW(syscall(SYS_clone3, &inner, sizeof inner));
        reap("77", child);
        tid[0] = 0;
        SHOW(syscall(SYS_clone3, &inner, sizeof inner));
        tid[0] = -1;
        SHOW(syscall(SYS_clone3, &inner, sizeof inner));
        tid[0] = 1 << 30;
        SHOW(syscall(SYS_clone3, &inner, sizeof inner));
        tid[0] = 5;
        inner.set_tid_size = 33;
        SHOW(syscall(SYS_clone3, &inner, sizeof inner));
        inner.set_tid_size = 0;
        SHOW(syscall(SYS_clone3, &inner, sizeof inner));
        inner.set_tid_size = 1, inner.set_tid = 0;
        SHOW(syscall(SYS_clone3, &inner, sizeof inner));
        inner.set_tid = (uint64_t)BAD;
        SHOW(syscall(SYS_clone3, &inner, sizeof inner));
        _exit(0);
    }
    reap("init", pid);
    tid[0] = 2;
    SHOW(syscall(SYS_clone3, &args, sizeof args));
}

int main(void)
{
    become_root();
    signals();
    set_tid();
    uts();
    locks();
    pids();
    return 0;
}
