/* ptrace(2): PTRACE_TRACEME, stops at calls, registers, memory, and what wait tells of it. */
#include "ptrace_common.h"

static long word = 0x1122334455667788;

static void call_twice(void)
{
    syscall(SYS_getppid);
    syscall(SYS_close, -1);
}

static void calls(void)
{
    CASE("PTRACE_SYSCALL");
    pid_t pid = traced(call_twice);
    struct user_regs_struct regs;
    MUST(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    for (int i = 0; i < 4; i++) {
        MUST(ptrace(PTRACE_SYSCALL, pid, 0, 0));
        next_stop("stop", pid);
        MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
        say("call %lld, rax %s, rdi %lld", regs.orig_rax,
            regs.rax == (unsigned long long)getpid() ? "our pid" : (long long)regs.rax < 0 ? error_name(-regs.rax) : "?",
            i < 2 ? 0 : (long long)(int)regs.rdi);
        say("cs %llx ss %llx ds %llx es %llx", regs.cs, regs.ss, regs.ds, regs.es);
        SHOW_IF(regs.rcx == regs.rip);
        SHOW_IF(ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.orig_rax), 0) == (long)regs.orig_rax);
        SHOW_IF(ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), 0) == (long)regs.rip);
    }
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    reap("ends", pid);
}

static void changed_call(void)
{
    say("getppid made getpid: %s", syscall(SYS_getppid) == getpid() ? "yes" : "no");
    say("skipped: %ld", syscall(SYS_getppid));
    say("other result: %ld", syscall(SYS_getppid));
}

static void changes(void)
{
    CASE("calls are changed");
    pid_t pid = traced(changed_call);
    struct user_regs_struct regs;
    int state = 0, status;
    MUST(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    for (int entry = 1;; entry ^= 1) {
        MUST(ptrace(PTRACE_SYSCALL, pid, 0, 0));
        NEED(waitpid(pid, &status, 0) == pid);
        if (!WIFSTOPPED(status))
            break;
        MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
        if (entry && regs.orig_rax == SYS_getppid) {
            if (state == 0)
                regs.orig_rax = SYS_getpid;
            else if (state == 1)
                regs.orig_rax = -1;
            state++;
        } else if (!entry && state == 1 && regs.orig_rax == SYS_getpid) {
            SHOW_IF((pid_t)regs.rax == pid);
        } else if (!entry && state == 3 && regs.orig_rax == SYS_getppid) {
            regs.rax = 4711;
        } else if (!entry && state == 2 && (long)regs.orig_rax == -1) {
            say("skipped: rax %s", error_name(-regs.rax));
            regs.rax = 7;
        }
        MUST(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    }
    show_status("ends", status);
}

static void show_word(void)
{
    say("word %lx", word);
}

static void memory(void)
{
    CASE("memory");
    pid_t pid = traced(show_word);
    errno = 0;
    long text = ptrace(PTRACE_PEEKTEXT, pid, show_word, 0);
    SHOW_IF(errno == 0 && text == *(long *)show_word);
    SHOW_IF(ptrace(PTRACE_PEEKDATA, pid, &word, 0) == word);
    SHOW(ptrace(PTRACE_POKEDATA, pid, &word, 0xabcdefl));
    SHOW(ptrace(PTRACE_PEEKDATA, pid, BAD, 0));
    SHOW(ptrace(PTRACE_POKEDATA, pid, BAD, 0));
    SHOW(ptrace(PTRACE_POKETEXT, pid, traced, *(long *)traced)); /* read-only, private */
    SHOW(ptrace(PTRACE_PEEKUSER, pid, 3, 0));
    SHOW(ptrace(PTRACE_PEEKUSER, pid, 1 << 20, 0));
    SHOW(ptrace(PTRACE_POKEUSER, pid, 27 * 8, 0));
    SHOW(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.cs), 1));
    SHOW(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.fs_base), -1));
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    reap("ends", pid);
}

static void errors(void)
{
    CASE("errors");
    SHOW(ptrace(PTRACE_CONT, getpid(), 0, 0));
    SHOW(ptrace(PTRACE_CONT, 4194303, 0, 0));
    SHOW(ptrace(PTRACE_ATTACH, getpid(), 0, 0));
    SHOW(ptrace(PTRACE_ATTACH, 4194303, 0, 0));
    SHOW(ptrace(PTRACE_SEIZE, getpid(), 1, 0));
    SHOW(ptrace(PTRACE_SEIZE, getppid(), 0, 1 << 8));
    SHOW(ptrace(PTRACE_SEIZE, getppid(), 0, 1 << 30));
    pid_t pid = traced(show_word);
    SHOW(ptrace(12345, pid, 0, 0));
    SHOW(ptrace(PTRACE_CONT, pid, 0, 65));
    SHOW(ptrace(PTRACE_SETOPTIONS, pid, 0, 1 << 8));
    SHOW(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
    SHOW(ptrace(PTRACE_LISTEN, pid, 0, 0));
    SHOW(ptrace(PTRACE_ATTACH, pid, 0, 0));
    SHOW(ptrace(PTRACE_GETREGS, pid, 0, BAD));
    SHOW(ptrace(PTRACE_KILL, pid, 0, 0));
    reap("killed", pid);
    SHOW(ptrace(PTRACE_CONT, pid, 0, 0));
    pid = CHILD({
        SHOW(ptrace(PTRACE_TRACEME, 0, 0, 0));
        SHOW(ptrace(PTRACE_TRACEME, 0, 0, 0));
    });
    reap("traced twice", pid);
}

static void program(void)
{
    execl("/bin/true", "true", (char *)NULL);
}

static void execs(void)
{
    CASE("exec");
    struct user_regs_struct regs;
    pid_t pid = traced(program);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    next_stop("without option", pid);
    siginfo_t info;
    MUST(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("%s, code %d, own pid %s", signal_name(info.si_signo), info.si_code, info.si_pid == pid ? "yes" : "no");
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    say("rax %lld orig_rax %lld", regs.rax, regs.orig_rax);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    reap("ends", pid);

    pid = traced(program);
    MUST(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC));
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    next_stop("with option", pid);
    unsigned long message;
    MUST(ptrace(PTRACE_GETEVENTMSG, pid, 0, &message));
    SHOW_IF(message == (unsigned long)pid);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    reap("ends", pid);
}

static void raise_usr1(void)
{
    signal(SIGUSR1, SIG_IGN);
    say("raise: %d", raise(SIGUSR1));
    signal(SIGUSR1, SIG_DFL);
    say("raise: %d", raise(SIGUSR1));
    say("raise: %d", raise(SIGUSR2));
}

static void signals(void)
{
    CASE("signals");
    pid_t pid = traced(raise_usr1);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    next_stop("ignored", pid);
    MUST(ptrace(PTRACE_CONT, pid, 0, SIGUSR1));
    next_stop("deadly", pid);
    MUST(ptrace(PTRACE_CONT, pid, 0, 0));
    next_stop("another", pid);
    siginfo_t info;
    MUST(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    say("%s, code %d, from itself %s", signal_name(info.si_signo), info.si_code, info.si_pid == pid ? "yes" : "no");
    MUST(ptrace(PTRACE_CONT, pid, 0, SIGTERM));
    reap("ends", pid);
}

static void on_child(int signo UNUSED, siginfo_t *info, void *context UNUSED)
{
    say("SIGCHLD: code %d, status %d", info->si_code, info->si_status);
}

static void waits(void)
{
    CASE("waitid and SIGCHLD");
    handle_flags(SIGCHLD, on_child, SA_RESTART);
    pid_t pid = traced(call_twice);
    siginfo_t info = {0};
    MUST(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    MUST(ptrace(PTRACE_SYSCALL, pid, 0, 0));
    MUST(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    say("code %d, status %#x, ours %s", info.si_code, info.si_status, info.si_pid == pid ? "yes" : "no");
    MUST(waitid(P_PID, pid, &info, WEXITED));
    SHOW(waitpid(pid, NULL, WNOHANG));
    signal(SIGCHLD, SIG_DFL);
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);
}

int main(void)
{
    calls();
    changes();
    memory();
    errors();
    execs();
    signals();
    waits();
    return 0;
}
