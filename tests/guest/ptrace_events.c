/* ptrace(2): events of fork, vfork, clone, exec and exit; new children are traced; EXITKILL. */
#include "ptrace_common.h"
#include <pthread.h>
#include <spawn.h>

static void forks(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(3);
    reap("grandchild", pid);
    _exit(4);
}

static void vforks(void)
{
    pid_t pid = vfork();
    if (pid == 0)
        _exit(5);
    reap("grandchild", pid);
    _exit(6);
}

static void *thread(void *arg)
{
    return arg;
}

static void threads(void)
{
    pthread_t t;
    pthread_create(&t, NULL, thread, NULL);
    pthread_join(t, NULL);
    say("joined");
    _exit(7);
}

static void fork_event(void)
{
    CASE("fork");
    pid_t pid = traced(forks), child;
    set_options(pid, PTRACE_O_TRACEFORK);
    go("event", PTRACE_CONT, pid, 0);
    child = (pid_t)message_of(pid);
    SHOW_IF(child > 0 && child != pid);
    next_stop("the child", child);
    show_proc(child, "TracerPid:");
    show_proc(child, "State:");
    siginfo_t info;
    SHOW(ptrace(PTRACE_GETSIGINFO, child, 0, &info));
    say("%s code %d pid %d uid %d", signal_name(info.si_signo), info.si_code, info.si_pid, (int)info.si_uid);
    go("the child ends", PTRACE_CONT, child, 0);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    int status = next_stop("parent", pid);
    while (WIFSTOPPED(status))
        status = go("parent", PTRACE_CONT, pid, WSTOPSIG(status));
}

static void vfork_event(void)
{
    CASE("vfork");
    pid_t pid = traced(vforks), child;
    set_options(pid, PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE);
    go("event", PTRACE_CONT, pid, 0);
    child = (pid_t)message_of(pid);
    next_stop("the child", child);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    go("the child ends", PTRACE_CONT, child, 0);
    next_stop("done", pid);
    SHOW_IF(message_of(pid) == (unsigned long)child);
    int status = go("parent", PTRACE_CONT, pid, 0);
    while (WIFSTOPPED(status))
        status = go("parent", PTRACE_CONT, pid, WSTOPSIG(status));
    pid = traced(vforks);
    set_options(pid, PTRACE_O_TRACEVFORKDONE);
    go("only done", PTRACE_CONT, pid, 0);
    SHOW_IF(message_of(pid) > 0);
    status = go("parent", PTRACE_CONT, pid, 0);
    while (WIFSTOPPED(status))
        status = go("parent", PTRACE_CONT, pid, WSTOPSIG(status));
}

static void clone_event(void)
{
    CASE("clone");
    pid_t pid = traced(threads), child;
    int status;
    set_options(pid, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXIT);
    go("event", PTRACE_CONT, pid, 0);
    child = (pid_t)message_of(pid);
    next_stop("the thread", child);
    SHOW_IF(waitpid(child, &status, WNOHANG) == 0);
    go("the thread exits", PTRACE_CONT, child, 0);
    say("message %lu", message_of(child));
    go("the thread has ended", PTRACE_CONT, child, 0);
    go("the process exits", PTRACE_CONT, pid, 0);
    say("message %#lx", message_of(pid));
    go("it has ended", PTRACE_CONT, pid, 0);
}

static void untraced(void)
{
    CASE("no option");
    pid_t pid = traced(forks);
    int status = go("ends", PTRACE_CONT, pid, 0);
    while (WIFSTOPPED(status))
        status = go("ends", PTRACE_CONT, pid, WSTOPSIG(status));
    pid = traced(threads);
    go("ends", PTRACE_CONT, pid, 0);
}

static void seized_fork(void)
{
    CASE("a seized parent's child");
    struct gate gate = gate_make();
    pid_t pid = CHILD({
        gate_wait(gate);
        forks();
    });
    MUST(ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACESYSGOOD));
    gate_open(gate);
    next_stop("event", pid);
    pid_t child = (pid_t)message_of(pid);
    next_stop("the child", child);
    siginfo_t info;
    SHOW(ptrace(PTRACE_GETSIGINFO, child, 0, &info));
    say("%s code %#x", signal_name(info.si_signo), info.si_code);
    go("the child ends", PTRACE_CONT, child, 0);
    int status = go("parent", PTRACE_CONT, pid, 0);
    while (WIFSTOPPED(status))
        status = go("parent", PTRACE_CONT, pid, WSTOPSIG(status));
    gate_close(gate);
}

static void killed_exit(void)
{
    CASE("SIGKILL");
    pid_t pid = traced(sleeps);
    set_options(pid, PTRACE_O_TRACEEXIT);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    MUST(kill(pid, SIGTERM));
    next_stop("signal", pid);
    go("exits", PTRACE_CONT, pid, SIGTERM);
    say("message %#lx", message_of(pid));
    go("ends", PTRACE_CONT, pid, 0);
    pid = traced(sleeps);
    set_options(pid, PTRACE_O_TRACEEXIT);
    MUST(kill(pid, SIGKILL)); /* in a stop */
    if (WIFSTOPPED(next_stop("killed", pid)))
        go("ends", PTRACE_CONT, pid, 0);
    pid = traced(sleeps);
    set_options(pid, PTRACE_O_TRACEEXIT);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    MUST(kill(pid, SIGKILL));
    if (WIFSTOPPED(next_stop("killed", pid)))
        go("ends", PTRACE_CONT, pid, 0);
}

static void tracer_ends(void)
{
    CASE("the tracer ends");
    int pair[2], status;
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        MUST(pipe(pair));
        pid_t tracer = CHILD({
            pid_t pid = traced(sleeps);
            NEED(write(pair[1], &pid, sizeof pid) == sizeof pid);
            if (kill_it)
                set_options(pid, PTRACE_O_EXITKILL);
            MUST(ptrace(PTRACE_CONT, pid, 0, 0));
        });
        pid_t pid;
        NEED(read(pair[0], &pid, sizeof pid) == sizeof pid);
        MUST(waitpid(tracer, &status, 0));
        show_status("tracer", status);
        for (int i = 0; kill_it && i < 2000 && kill(pid, 0) == 0; i++)
            usleep(1000);
        say("the tracee %s", kill(pid, 0) == 0 ? "lives" : "is gone");
        if (!kill_it)
            show_proc(pid, "TracerPid:");
        kill(pid, SIGKILL);
        close(pair[0]);
        close(pair[1]);
    }
}

static void program(void)
{
    execl("/bin/true", "true", (char *)NULL);
}

static void *exec_thread(void *arg UNUSED)
{
    program();
    return NULL;
}

static void exec_from_thread(void)
{
    pthread_t t;
    pthread_create(&t, NULL, exec_thread, NULL);
    sleeps();
}

static void exec_event(void)
{
    CASE("exec from a thread");
    pid_t pid = traced(exec_from_thread), child;
    set_options(pid, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC);
    go("event", PTRACE_CONT, pid, 0);
    child = (pid_t)message_of(pid);
    next_stop("the thread", child);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    MUST(ptrace(PTRACE_CONT, child, 0, 0));
    next_stop("exec", pid);
    SHOW_IF(message_of(pid) == (unsigned long)child);
    SHOW(ptrace(PTRACE_CONT, child, 0, 0));
    go("ends", PTRACE_CONT, pid, 0);
}

static void exec_calls(void)
{
    CASE("exec between calls");
    struct user_regs_struct regs;
    pid_t pid = traced(program);
    set_options(pid, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC);
    do {
        go("call", PTRACE_SYSCALL, pid, 0);
        MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    } while (regs.orig_rax != SYS_execve);
    go("event", PTRACE_SYSCALL, pid, 0);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    say("rax %lld, orig_rax %lld, rdi %lld", regs.rax, regs.orig_rax, regs.rdi);
    go("leaves", PTRACE_SYSCALL, pid, 0);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    say("rax %lld, orig_rax %lld", regs.rax, regs.orig_rax);
    go("ends", PTRACE_CONT, pid, 0);
}

static void cloned_traced(void)
{
    CASE("CLONE_PTRACE and CLONE_UNTRACED");
    pid_t pid = CHILD({
        MUST(ptrace(PTRACE_TRACEME, 0, 0, 0));
        raise(SIGSTOP);
        pid_t child = (pid_t)syscall(SYS_clone, CLONE_PTRACE | SIGCHLD, 0, 0, 0, 0);
        if (child == 0)
            _exit(1);
        reap("traced by its grandparent", child);
        child = (pid_t)syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, 0, 0, 0, 0);
        if (child == 0)
            _exit(2);
        reap("untraced", child);
    });
    next_stop("begins", pid);
    MUST(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEFORK));
    int status = go("event", PTRACE_CONT, pid, 0);
    pid_t child = (pid_t)message_of(pid);
    next_stop("the child", child);
    go("ends", PTRACE_CONT, child, 0);
    status = go("parent", PTRACE_CONT, pid, 0);
    while (WIFSTOPPED(status))
        status = go("parent", PTRACE_CONT, pid, WSTOPSIG(status));
}

int main(void)
{
    fork_event();
    vfork_event();
    clone_event();
    untraced();
    seized_fork();
    killed_exit();
    tracer_ends();
    exec_event();
    exec_calls();
    cloned_traced();
    return 0;
}
