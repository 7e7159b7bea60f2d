/* Orphans: whom they get as a parent, subreapers, PR_SET_PDEATHSIG. */
#include "check.h"

#include <sys/prctl.h>

static void subreaper(void)
{
    int value = 7, status;
    CASE("subreaper");
    SHOW(prctl(PR_GET_CHILD_SUBREAPER, &value));
    SHOW_IF(value == 0);
    SHOW(prctl(PR_SET_CHILD_SUBREAPER, 1));
    SHOW(prctl(PR_GET_CHILD_SUBREAPER, &value));
    SHOW_IF(value == 1);
    struct gate gate = gate_make();
    pid_t us = getpid();
    pid_t middle = CHILD({
        pid_t parent = getpid();
        SHOW(prctl(PR_GET_CHILD_SUBREAPER, &value));
        SHOW_IF(value == 0);
        CHILD({
            gate_wait(gate);
            SHOW_IF(getppid() != parent);
            say("orphan's parent is the subreaper: %s", getppid() == us ? "yes" : "no");
            _exit(42);
        });
        _exit(1);
    });
    reap("middle", middle);
    gate_open(gate);
    SHOW_IF(waitpid(-1, &status, 0) != middle);
    show_status("grandchild", status);
    SHOW(waitpid(-1, &status, 0));
    gate_close(gate);
}

static void zombie_handed_over(void)
{
    int status;
    CASE("a zombie is handed over with its parent's death");
    struct gate ready = gate_make(), gate = gate_make();
    pid_t middle = CHILD({
        siginfo_t info;
        pid_t pid = CHILD(_exit(17));
        MUST(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
        gate_open(ready);
        gate_wait(gate);
        _exit(2);
    });
    gate_wait(ready);
    SHOW(waitpid(-1, &status, WNOHANG));
    gate_open(gate);
    reap("middle", middle);
    SHOW_OK(waitpid(-1, &status, 0));
    show_status("grandchild", status);
}

static void parent_death(void)
{
    CASE("PDEATHSIG");
    int signo = 5;
    SHOW(prctl(PR_SET_PDEATHSIG, 99));
    SHOW(prctl(PR_GET_PDEATHSIG, &signo));
    SHOW_IF(signo == 0);
    struct gate ready = gate_make();
    pid_t middle = CHILD({
        CHILD({
            SHOW(prctl(PR_SET_PDEATHSIG, SIGUSR1));
            SHOW(prctl(PR_GET_PDEATHSIG, &signo));
            SHOW_IF(signo == SIGUSR1);
            gate_open(ready);
            for (;;)
                pause();
        });
        gate_wait(ready);
        _exit(0);
    });
    reap("middle", middle);
    int status;
    SHOW_OK(waitpid(-1, &status, 0));
    show_status("orphan", status);
    CASE("not inherited by a child");
    prctl(PR_SET_PDEATHSIG, SIGUSR2);
    reap("child", CHILD(prctl(PR_GET_PDEATHSIG, &signo); _exit(signo)));
    prctl(PR_SET_PDEATHSIG, 0);
}

int main(void)
{
    subreaper();
    zombie_handed_over();
    parent_death();
    return 0;
}
