/* Job control: stops, continuations, what cancels what, and what a stopped process does not do. */
#include "check.h"

#include <sys/prctl.h>

static volatile sig_atomic_t handled;

static void handle(int signo UNUSED)
{
    handled++;
}

static int *shared; /* counters of the child */

static pid_t counter(void)
{
    shared[0] = shared[1] = 0;
    return CHILD({
        handle_plain(SIGCONT, handle);
        handle_plain(SIGUSR1, handle);
        shared[1] = 1;
        for (;;) {
            shared[0]++;
            if (handled)
                shared[2] = handled;
            usleep(1000);
        }
    });
}

static void until_ready(void)
{
    while (!__atomic_load_n(&shared[1], __ATOMIC_SEQ_CST))
        usleep(1000);
}

static bool advances(void)
{
    int before = __atomic_load_n(&shared[0], __ATOMIC_SEQ_CST);
    for (int i = 0; i < 20; i++) {
        usleep(10000);
        if (__atomic_load_n(&shared[0], __ATOMIC_SEQ_CST) != before)
            return true;
    }
    return false;
}

static void wait_for(pid_t pid, const char *what, int options)
{
    int status = 0;
    pid_t got = waitpid(pid, &status, options);
    if (got == pid)
        show_status(what, status);
    else
        say("%s: %d", what, (int)got);
}

static void stops(void)
{
    static const int signals[] = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    CASE("each of the four stops it, SIGCONT continues it");
    for (int i = 0; i < 4; i++) {
        shared[2] = 0;
        pid_t pid = counter();
        until_ready();
        MUST(setpgid(pid, pid));
        MUST(kill(pid, signals[i]));
        wait_for(pid, "stop", WUNTRACED);
        SHOW(advances());
        wait_for(pid, "again", WUNTRACED | WNOHANG);
        MUST(kill(pid, signals[i]));
        usleep(20000);
        wait_for(pid, "twice", WUNTRACED | WNOHANG);
        MUST(kill(pid, SIGUSR1));
        usleep(20000);
        SHOW(shared[2]);
        MUST(kill(pid, SIGCONT));
        wait_for(pid, "continued", WCONTINUED);
        wait_for(pid, "again", WCONTINUED | WNOHANG);
        SHOW(advances());
        SHOW(shared[2]);
        MUST(kill(pid, SIGKILL));
        wait_for(pid, "end", 0);
    }
}

static void killed(void)
{
    CASE("SIGKILL ends a stopped process, SIGTERM waits");
    pid_t pid = counter();
    until_ready();
    MUST(kill(pid, SIGSTOP));
    wait_for(pid, "stop", WUNTRACED);
    MUST(kill(pid, SIGTERM));
    usleep(20000);
    wait_for(pid, "yet", WNOHANG);
    MUST(kill(pid, SIGCONT));
    wait_for(pid, "end", 0);
    pid = counter();
    until_ready();
    MUST(kill(pid, SIGSTOP));
    wait_for(pid, "stop", WUNTRACED);
    MUST(kill(pid, SIGKILL));
    wait_for(pid, "end", 0);
}

static void blocked(void)
{
    sigset_t set = set_of(SIGTSTP), pending;
    CASE("stop signals and SIGCONT cancel each other");
    sigaddset(&set, SIGCONT);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    handle_plain(SIGCONT, handle);
    kill(getpid(), SIGTSTP);
    sigpending(&pending);
    say("%d %d", sigismember(&pending, SIGTSTP), sigismember(&pending, SIGCONT));
    kill(getpid(), SIGCONT);
    sigpending(&pending);
    say("%d %d", sigismember(&pending, SIGTSTP), sigismember(&pending, SIGCONT));
    kill(getpid(), SIGTSTP);
    sigpending(&pending);
    say("%d %d", sigismember(&pending, SIGTSTP), sigismember(&pending, SIGCONT));
    kill(getpid(), SIGCONT);
    MUST(sigprocmask(SIG_UNBLOCK, &set, NULL));
    SHOW((int)handled);
    CASE("a handler for SIGTSTP, and ignoring it");
    handle_plain(SIGTSTP, handle);
    kill(getpid(), SIGTSTP);
    SHOW((int)handled);
    signal(SIGTSTP, SIG_IGN);
    kill(getpid(), SIGTSTP);
    say("goes on");
    signal(SIGTSTP, SIG_DFL);
}

static void orphans(void)
{
    CASE("an orphaned process group does not stop at the terminal's signals");
    pid_t pid = CHILD({
        MUST(setsid());
        kill(getpid(), SIGTSTP);
        kill(getpid(), SIGTTIN);
        kill(getpid(), SIGTTOU);
        say("goes on");
    });
    wait_for(pid, "end", WUNTRACED);
    CASE("but at SIGSTOP");
    pid = CHILD(MUST(setsid()); kill(getpid(), SIGSTOP); say("goes on"));
    wait_for(pid, "stop", WUNTRACED);
    kill(pid, SIGCONT);
    wait_for(pid, "end", 0);
}

static void sleeping(void)
{
    CASE("a sleep goes on after a stop");
    pid_t pid = CHILD({
        struct timespec long_time = {0, 200000000}, start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        shared[1] = 7;
        SHOW(nanosleep(&long_time, NULL));
        clock_gettime(CLOCK_MONOTONIC, &end);
        double took = end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) / 1e9;
        SHOW_IF(took >= 0.2);
    });
    while (__atomic_load_n(&shared[1], __ATOMIC_SEQ_CST) != 7)
        usleep(1000);
    usleep(20000);
    MUST(kill(pid, SIGSTOP));
    wait_for(pid, "stop", WUNTRACED);
    MUST(kill(pid, SIGCONT));
    wait_for(pid, "end", 0);
    CASE("a read and a wait, too");
    struct gate gate = gate_make();
    pid = CHILD(char byte; SHOW(read(gate.ends[0], &byte, 1)));
    usleep(50000);
    MUST(kill(pid, SIGSTOP));
    wait_for(pid, "stop", WUNTRACED);
    MUST(kill(pid, SIGCONT));
    usleep(20000);
    gate_open(gate);
    wait_for(pid, "end", 0);
}

static void groups(void)
{
    CASE("signals to process groups");
    pid_t first = CHILD(for (;;) pause());
    MUST(setpgid(first, first));
    pid_t second = CHILD(for (;;) pause());
    MUST(setpgid(second, first));
    SHOW(kill(-first, 0));
    MUST(kill(-first, SIGSTOP));
    int status;
    for (int i = 0; i < 2; i++) {
        MUST(waitpid(-first, &status, WUNTRACED));
        show_status("stop", status);
    }
    MUST(killpg(first, SIGCONT));
    MUST(kill(-first, SIGTERM));
    for (int i = 0; i < 2; i++) {
        MUST(waitpid(-first, &status, 0));
        show_status("end", status);
    }
    SHOW(kill(-first, 0));
    SHOW(waitpid(-first, &status, 0));
}

int main(void)
{
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    stops();
    killed();
    reap("blocked", CHILD(blocked()));
    orphans();
    sleeping();
    groups();
    return 0;
}
