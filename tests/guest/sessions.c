/* Process groups and sessions, and their errors; orphaned groups. */
#include "check.h"

int main(void)
{
    struct gate ready = gate_make(), gate = gate_make();
    int status;
    CASE("ids");
    SHOW_IF(getpgrp() == getpgid(0));
    SHOW_IF(getpgid(getpid()) == getpgrp());
    SHOW_IF(getsid(0) == getsid(getpid()));
    SHOW(getpgid(1 << 21));
    SHOW(getsid(1 << 21));
    SHOW(getpgid(-1));
    CASE("setpgid");
    pid_t pid = CHILD({
        SHOW(setpgid(0, 0));
        SHOW_IF(getpgrp() == getpid());
        SHOW_IF(getsid(0) != getpid());
        SHOW(setpgid(0, 1 << 21));
        SHOW(setpgid(0, -1));
        SHOW(setpgid(-1, 0));
        SHOW(setpgid(1 << 21, 0));
        SHOW(setpgid(getppid(), 0));
        SHOW(setsid());
        gate_open(ready);
        gate_wait(gate);
    });
    gate_wait(ready);
    SHOW_IF(getpgid(pid) == pid);
    SHOW(setpgid(pid, getpgrp()));
    SHOW_IF(getpgid(pid) == getpgrp());
    gate_open(gate);
    reap("child", pid);
    SHOW(setpgid(pid, pid));
    CASE("setsid");
    pid = CHILD({
        SHOW_IF(setsid() == getpid());
        SHOW_IF(getsid(0) == getpid() && getpgrp() == getpid());
        SHOW(setsid());
        SHOW(setpgid(0, 0));
        SHOW(setpgid(0, getppid()));
        SHOW(open("/dev/tty", O_RDWR));
        gate_open(ready);
        gate_wait(gate);
    });
    gate_wait(ready);
    SHOW_IF(getsid(pid) == pid);
    SHOW(setpgid(pid, 0));
    SHOW(setpgid(0, pid));
    gate_open(gate);
    reap("child", pid);
    CASE("after exec");
    pid = CHILD(int null = open("/dev/null", O_WRONLY); dup2(null, 1); fcntl(gate.ends[0], F_SETFD, 0);
                dup2(gate.ends[0], 0); execl("/bin/cat", "cat", NULL));
    char comm[64] = "", path[64];
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    while (strcmp(comm, "cat\n") != 0) {
        int fd = MUST(open(path, O_RDONLY));
        comm[MUST(read(fd, comm, sizeof comm - 1))] = 0;
        close(fd);
    }
    SHOW(setpgid(pid, pid));
    kill(pid, SIGKILL);
    reap("cat", pid);
    CASE("wait for a group");
    pid_t first = CHILD(setpgid(0, 0); gate_open(ready); gate_wait(gate); _exit(1));
    gate_wait(ready);
    pid_t second = CHILD(_exit(2));
    SHOW(waitpid(-first, &status, WNOHANG));
    SHOW_IF(waitpid(0, &status, 0) == second);
    show_status("own group", status);
    SHOW(waitpid(0, &status, 0));
    gate_open(gate);
    SHOW_IF(waitpid(-first, &status, 0) == first);
    show_status("other group", status);
    CASE("stopping a member of an orphaned group");
    pid = CHILD({
        MUST(setsid());
        /* The leader's parent is in another session: this group is orphaned, so job control stops don't work. */
        raise(SIGTSTP);
        raise(SIGTTIN);
        raise(SIGTTOU);
        say("still running");
        _exit(8);
    });
    SHOW_IF(waitpid(pid, &status, WUNTRACED) == pid);
    show_status("orphaned", status);
    pid = CHILD(setpgid(0, 0); raise(SIGTTIN); _exit(9));
    SHOW_IF(waitpid(pid, &status, WUNTRACED) == pid);
    show_status("not orphaned", status);
    MUST(kill(pid, SIGCONT));
    reap("then", pid);
    CASE("a group that becomes orphaned with a stopped member gets HUP and CONT");
    pid_t middle = CHILD({
        pid_t inner = CHILD({
            setpgid(0, 0);
            gate_open(ready);
            raise(SIGSTOP);
            pause();
        });
        gate_wait(ready);
        waitpid(inner, &status, WUNTRACED);
        /* The write end of this pipe is closed when the inner one has died. */
        _exit(0);
    });
    close(gate.ends[1]);
    reap("middle", middle);
    char byte;
    SHOW(read(gate.ends[0], &byte, 1));
    return 0;
}
