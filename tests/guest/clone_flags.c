/* clone(2) and clone3(2) by hand: what each flag shares, and the errors. */
#include "check.h"

#include <linux/sched.h>

static char stack_memory[65536] __attribute__((aligned(16)));
static volatile int word;
static int file_fd;

static int child(void *arg)
{
    const char *what = arg;
    if (strcmp(what, "vm") == 0)
        word = 77;
    else if (strcmp(what, "files") == 0)
        file_fd = dup2(1, 50);
    else if (strcmp(what, "fs") == 0)
        return chdir("/proc") || (umask(077), 0);
    else if (strcmp(what, "sighand") == 0)
        signal(SIGUSR1, SIG_IGN);
    else if (strcmp(what, "parent") == 0)
        word = getppid();
    return 12;
}

#define TOP (stack_memory + sizeof stack_memory)

static void run(const char *what, int flags)
{
    pid_t pid = clone(child, TOP, flags, (void *)what);
    if (pid < 0) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    reap(what, pid);
}

static void sharing(void)
{
    char cwd[64];
    CASE("sharing");
    word = 1;
    run("vm", SIGCHLD);
    say("word %d", word);
    run("vm", CLONE_VM | SIGCHLD);
    say("word %d", word);
    run("vm", CLONE_VM | CLONE_VFORK | SIGCHLD);
    run("files", SIGCHLD);
    SHOW(fcntl(50, F_GETFD));
    run("files", CLONE_FILES | SIGCHLD);
    SHOW(fcntl(50, F_GETFD));
    close(50);
    MUST(chdir("/"));
    umask(022);
    run("fs", SIGCHLD);
    say("cwd %s umask %03o", getcwd(cwd, sizeof cwd), umask(022));
    run("fs", CLONE_FS | SIGCHLD);
    say("cwd %s umask %03o", getcwd(cwd, sizeof cwd), umask(022));
    MUST(chdir("/"));
    struct sigaction action;
    run("sighand", SIGCHLD);
    sigaction(SIGUSR1, NULL, &action);
    say("ignored %d", action.sa_handler == SIG_IGN);
    run("sighand", CLONE_VM | CLONE_SIGHAND | SIGCHLD);
    sigaction(SIGUSR1, NULL, &action);
    say("ignored %d", action.sa_handler == SIG_IGN);
    signal(SIGUSR1, SIG_DFL);
    run("parent", CLONE_VM | CLONE_PARENT * 0 | SIGCHLD);
    SHOW_IF(word == getpid());
}

static void exit_signals(void)
{
    int status;
    CASE("exit signal");
    sigset_t set = set_of(SIGUSR2), old;
    MUST(sigprocmask(SIG_BLOCK, &set, &old));
    pid_t pid = MUST(clone(child, TOP, SIGUSR2, "none"));
    SHOW(waitpid(pid, &status, 0));
    SHOW_IF(waitpid(pid, &status, __WCLONE) == pid);
    show_status("__WCLONE", status);
    siginfo_t info;
    SHOW_IF(sigwaitinfo(&set, &info) == SIGUSR2);
    SHOW_IF(info.si_code == CLD_EXITED && info.si_pid == pid && info.si_status == 12);
    pid = MUST(clone(child, TOP, 0, "none"));
    SHOW_IF(waitpid(pid, &status, __WALL) == pid);
    show_status("no signal, __WALL", status);
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
}

static void tid_words(void)
{
    pid_t parent_tid = 0, child_tid = 0;
    CASE("tid words");
    pid_t pid = MUST(clone(child, TOP, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, "none", &parent_tid, NULL,
                           &child_tid));
    SHOW_IF(parent_tid == pid);
    SHOW_IF(child_tid == 0);
    reap("child", pid);
    child_tid = 1234;
    pid = MUST(clone(child, TOP, CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, "none", NULL, NULL, &child_tid));
    reap("child", pid);
    SHOW_IF(child_tid == 0);
    SHOW_OK(syscall(SYS_set_tid_address, &child_tid));
}

static long clone3(void *args, size_t size)
{
    return syscall(SYS_clone3, args, size);
}

static void try3(const char *what, uint64_t flags, uint64_t signal, uint64_t stack, uint64_t size)
{
    struct clone_args args = {.flags = flags, .exit_signal = signal, .stack = stack, .stack_size = size};
    long pid = clone3(&args, sizeof args);
    if (pid == 0)
        _exit(3);
    if (pid < 0)
        say("%s: %s", what, error_name(errno));
    else
        reap(what, pid);
}

static void with_clone3(void)
{
    struct clone_args args = {.exit_signal = SIGCHLD};
    CASE("clone3");
    try3("plain", 0, SIGCHLD, 0, 0);
    try3("VFORK", CLONE_VFORK, SIGCHLD, 0, 0);
    try3("signal too large", 0, 65, 0, 0);
    try3("signal in flags", SIGCHLD, SIGCHLD, 0, 0);
    try3("SIGHAND without VM", CLONE_SIGHAND, SIGCHLD, 0, 0);
    try3("THREAD without SIGHAND", CLONE_THREAD, 0, 0, 0);
    try3("THREAD with a signal", CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, SIGCHLD, 0, 0);
    try3("stack without size", 0, SIGCHLD, (uint64_t)stack_memory, 0);
    try3("size without stack", 0, SIGCHLD, 0, 4096);
    try3("NEWNS and FS", CLONE_NEWNS | CLONE_FS, SIGCHLD, 0, 0);
    try3("DETACHED", CLONE_DETACHED, SIGCHLD, 0, 0);
    try3("unknown flag", 1ull << 40, SIGCHLD, 0, 0);
    try3("SIGHAND and CLEAR_SIGHAND", CLONE_SIGHAND | CLONE_VM | CLONE_CLEAR_SIGHAND, SIGCHLD, 0, 0);
    SHOW(clone3(&args, 0));
    SHOW(clone3(&args, 63));
    SHOW(clone3(BAD, sizeof args));
    SHOW(clone3(&args, 5000));
    char large[128] = {0};
    memcpy(large, &args, sizeof args);
    large[120] = 1;
    SHOW(clone3(large, sizeof large));
    args.set_tid = (uint64_t)&args;
    SHOW(clone3(&args, sizeof args));
    CASE("clone3 of 64 bytes and CLEAR_SIGHAND");
    signal(SIGUSR1, SIG_IGN);
    handle_plain(SIGUSR2, (void (*)(int))child);
    struct clone_args old = {.exit_signal = SIGCHLD, .flags = CLONE_CLEAR_SIGHAND};
    long pid = MUST(clone3(&old, 64));
    if (pid == 0) {
        struct sigaction first, second;
        sigaction(SIGUSR1, NULL, &first);
        sigaction(SIGUSR2, NULL, &second);
        _exit((first.sa_handler == SIG_IGN) * 2 + (second.sa_handler == SIG_DFL));
    }
    reap("child", pid);
}

static void errors(void)
{
    CASE("errors of clone");
    SHOW(syscall(SYS_clone, CLONE_SIGHAND | SIGCHLD, 0, 0, 0, 0));
    SHOW(syscall(SYS_clone, CLONE_THREAD | CLONE_VM | SIGCHLD, 0, 0, 0, 0));
    SHOW(syscall(SYS_clone, CLONE_NEWNS | CLONE_FS | SIGCHLD, 0, 0, 0, 0));
    SHOW(syscall(SYS_clone, CLONE_FS | CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    SHOW(clone(NULL, TOP, SIGCHLD, NULL));
    SHOW(clone(child, NULL, SIGCHLD, NULL));
    int pidfd = -1;
    CASE("fork by clone");
    long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(19);
    reap("fork", pid);
    (void)pidfd;
    CASE("unshare");
    SHOW(unshare(0));
    SHOW(unshare(CLONE_FILES | CLONE_FS));
    SHOW(unshare(1));
    SHOW(unshare(SIGCHLD));
}

int main(void)
{
    sharing();
    exit_signals();
    tid_words();
    with_clone3();
    errors();
    return 0;
}
