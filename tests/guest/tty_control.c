/* The controlling terminal: who may take it, who has it, who loses it, and the foreground group. */
#include "tty.h"

static struct gate ready, go;

/* A child that leads a session of its own. */
#define LEADER(...) CHILD(MUST(setsid()); __VA_ARGS__)

static bool has_terminal(void)
{
    int fd = open("/dev/tty", O_RDWR);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void taking(void)
{
    CASE("by opening");
    reap("O_NOCTTY", LEADER(MUST(open(slave_name, O_RDWR | O_NOCTTY)); SHOW_IF(has_terminal())));
    reap("read and write", LEADER(MUST(open(slave_name, O_RDWR)); SHOW_IF(has_terminal())));
    reap("read only", LEADER(MUST(open(slave_name, O_RDONLY)); SHOW_IF(has_terminal())));
    reap("write only", LEADER(MUST(open(slave_name, O_WRONLY)); SHOW_IF(has_terminal())));
    reap("no leader",
         LEADER(reap("child", CHILD(MUST(open(slave_name, O_RDWR)); SHOW_IF(has_terminal())))));
    reap("a master is none", LEADER(MUST(open("/dev/ptmx", O_RDWR)); SHOW_IF(has_terminal())));
    reap("TIOCGPTPEER", LEADER(MUST(ioctl(master, TIOCGPTPEER, O_RDWR)); SHOW_IF(has_terminal())));
    reap("O_PATH", LEADER(MUST(open(slave_name, O_PATH)); SHOW_IF(has_terminal())));
    CASE("by TIOCSCTTY");
    reap("leader", LEADER({
             SHOW(ioctl(slave, TIOCSCTTY, 0));
             SHOW(ioctl(slave, TIOCSCTTY, 0));
             SHOW(ioctl(slave, TIOCSCTTY, 1));
             SHOW_IF(has_terminal());
             SHOW_IF(tcgetsid(slave) == getpid());
             SHOW_IF(tcgetpgrp(slave) == getpid());
             SHOW_IF(tcgetsid(master) == getpid());
             SHOW_IF(tcgetpgrp(master) == getpid());
         }));
    reap("no leader", LEADER(reap("child", CHILD(SHOW(ioctl(slave, TIOCSCTTY, 0))))));
    reap("another one already", LEADER({
             MUST(ioctl(slave, TIOCSCTTY, 0));
             int m = MUST(posix_openpt(O_RDWR | O_NOCTTY));
             MUST(unlockpt(m));
             int s = MUST(ioctl(m, TIOCGPTPEER, O_RDWR));
             SHOW(ioctl(s, TIOCSCTTY, 0));
             SHOW(tcgetsid(s));
             SHOW(tcgetpgrp(s));
             SHOW_IF(tcgetsid(slave) == getpid());
         }));
    reap("read only", LEADER(int fd = MUST(open(slave_name, O_RDONLY | O_NOCTTY));
                             SHOW(ioctl(fd, TIOCSCTTY, 0))));
    if (geteuid() != 0)
        reap("write only", LEADER(int fd = MUST(open(slave_name, O_WRONLY | O_NOCTTY));
                                  SHOW(ioctl(fd, TIOCSCTTY, 0))));
}

static void stealing(void)
{
    CASE("a terminal that has a session");
    pid_t owner = LEADER({
        MUST(ioctl(slave, TIOCSCTTY, 0));
        gate_open(ready);
        gate_wait(go);
        SHOW_IF(has_terminal());
        gate_open(ready);
        gate_wait(go);
        SHOW_IF(has_terminal());
        SHOW_IF(tcgetsid(slave) == -1 && errno == ENOTTY);
    });
    gate_wait(ready);
    reap("another leader opens it",
         LEADER(MUST(open(slave_name, O_RDWR)); SHOW_IF(has_terminal())));
    reap("another leader asks", LEADER(SHOW(ioctl(slave, TIOCSCTTY, 0)); SHOW_IF(has_terminal())));
    SHOW_IF(tcgetsid(slave) == -1 && errno == ENOTTY);
    SHOW(tcgetpgrp(slave));
    SHOW_IF(tcgetsid(master) == owner);
    SHOW_IF(tcgetpgrp(master) == owner);
    gate_open(go);
    gate_wait(ready);
    if (geteuid() == 0) {
        reap("root takes it", LEADER(SHOW(ioctl(slave, TIOCSCTTY, 1)); SHOW_IF(has_terminal())));
    } else {
        reap("a user can't", LEADER(SHOW(ioctl(slave, TIOCSCTTY, 1)); SHOW_IF(has_terminal())));
        kill(owner, SIGKILL);
    }
    if (geteuid() == 0)
        gate_open(go);
    reap("owner", owner);
}

static volatile int hangups, continues;

static void on_hangup(int signo)
{
    *(signo == SIGHUP ? &hangups : &continues) += 1;
}

static void inheriting(void)
{
    CASE("children");
    reap("leader", LEADER({
             struct gate before = gate_make();
             pid_t early = CHILD(gate_wait(before);
                                 say("forked before: %s", has_terminal() ? "has it" : "has not"));
             MUST(ioctl(slave, TIOCSCTTY, 0));
             gate_open(before);
             reap("early", early);
             reap("late", CHILD(SHOW_IF(has_terminal())));
             reap("new session", CHILD({
                      MUST(setsid());
                      SHOW_IF(has_terminal());
                      SHOW(tcgetpgrp(slave));
                      SHOW(ioctl(slave, TIOCNOTTY));
                  }));
             reap("a child gives it up", CHILD({
                      SHOW(ioctl(slave, TIOCNOTTY));
                      SHOW_IF(has_terminal());
                      SHOW(ioctl(slave, TIOCNOTTY));
                      reap("grandchild", CHILD(SHOW_IF(has_terminal())));
                  }));
             SHOW_IF(has_terminal());
         }));
    CASE("TIOCNOTTY by the leader");
    reap("leader", LEADER({
             MUST(ioctl(slave, TIOCSCTTY, 0));
             handle_plain(SIGHUP, on_hangup);
             handle_plain(SIGCONT, on_hangup);
             struct gate before = gate_make();
             pid_t child = CHILD({
                 handle_plain(SIGHUP, on_hangup);
                 gate_open(ready);
                 gate_wait(before);
                 say("child: %d hang-ups, terminal: %s", hangups, has_terminal() ? "yes" : "no");
             });
             gate_wait(ready);
             SHOW(ioctl(slave, TIOCNOTTY));
             say("leader: %d hang-ups, %d continues", hangups, continues);
             gate_open(before);
             reap("child", child);
             SHOW_IF(has_terminal());
             SHOW(write(slave, "x", 1));
             SHOW(ioctl(slave, TIOCSCTTY, 0));
             SHOW_IF(has_terminal());
         }));
    CASE("the end of the leader");
    int out[2];
    MUST(pipe(out));
    reap("leader", LEADER({
             MUST(ioctl(slave, TIOCSCTTY, 0));
             CHILD({
                 dup2(out[1], 1);
                 handle_plain(SIGHUP, on_hangup);
                 gate_open(ready);
                 while (!hangups)
                     usleep(1000);
                 say("child: %d hang-ups, terminal: %s", hangups, has_terminal() ? "yes" : "no");
                 SHOW(tcgetpgrp(slave));
                 SHOW(write(slave, "x", 1));
                 gate_open(go);
             });
             gate_wait(ready);
         }));
    gate_wait(go);
    char text[500] = "";
    MUST(read(out[0], text, sizeof text - 1));
    say("%s", text);
    reap("another leader can have it now",
         LEADER(SHOW(ioctl(slave, TIOCSCTTY, 0)); SHOW_IF(has_terminal())));
    CASE("all files closed");
    reap("leader", LEADER({
             MUST(ioctl(slave, TIOCSCTTY, 0));
             close(slave);
             SHOW_IF(has_terminal());
             SHOW_IF(tcgetsid(master) == getpid());
             slave = MUST(open(slave_name, O_RDWR | O_NOCTTY));
             SHOW_IF(tcgetpgrp(slave) == getpid());
         }));
}

static void foreground(void)
{
    CASE("the foreground group");
    reap("leader", LEADER({
             signal(SIGTTOU, SIG_IGN);
             MUST(ioctl(slave, TIOCSCTTY, 0));
             pid_t job = CHILD(setpgid(0, 0); gate_open(ready); pause());
             gate_wait(ready);
             SHOW(tcsetpgrp(slave, job));
             SHOW_IF(tcgetpgrp(slave) == job);
             SHOW(tcsetpgrp(slave, 1 << 21));
             SHOW(tcsetpgrp(slave, -5));
             SHOW(tcsetpgrp(slave, 0));
             SHOW(tcsetpgrp(slave, 1));
             SHOW(tcsetpgrp(master, getpid()));
             pid_t other = CHILD(setsid(); gate_open(ready); pause());
             gate_wait(ready);
             SHOW(tcsetpgrp(slave, other));
             pid_t member = CHILD(setpgid(0, job); gate_open(ready); pause());
             gate_wait(ready);
             SHOW(tcsetpgrp(slave, member));
             kill(member, SIGKILL);
             kill(other, SIGKILL);
             kill(job, SIGKILL);
             waitpid(member, NULL, 0);
             waitpid(other, NULL, 0);
             waitpid(job, NULL, 0);
             SHOW_IF(tcgetpgrp(slave) == job);
             SHOW(tcsetpgrp(slave, job));
             SHOW(tcsetpgrp(slave, getpid()));
             SHOW(ioctl(slave, TIOCSPGRP, BAD));
             reap("a child of another session",
                  CHILD(setsid(); SHOW(tcsetpgrp(slave, getpid())); SHOW(tcgetpgrp(slave));
                        SHOW(tcgetsid(slave))));
         }));
    CASE("/dev/tty");
    reap("leader", LEADER({
             SHOW(open("/dev/tty", O_RDWR));
             MUST(ioctl(slave, TIOCSCTTY, 0));
             int tty = MUST(open("/dev/tty", O_RDWR));
             char name[64] = "";
             SHOW(ttyname_r(tty, name, sizeof name));
             say("%s", name);
             struct stat st;
             MUST(fstat(tty, &st));
             SHOW_IF(st.st_rdev == 0x500);
             SHOW_IF(isatty(tty));
             FILE *stat_file = fopen("/proc/self/stat", "r");
             int number = 0, group = 0;
             NEED(fscanf(stat_file, "%*d %*s %*c %*d %*d %*d %d %d", &number, &group) == 2);
             MUST(fstat(slave, &st));
             SHOW_IF((dev_t)number == st.st_rdev && group == getpid());
             SHOW(write(tty, "text\n", 5));
             screen("master");
             SHOW(ioctl(tty, TIOCSCTTY, 0));
             SHOW(ioctl(tty, TIOCNOTTY));
             SHOW(open("/dev/tty", O_RDWR));
             SHOW(write(tty, "more\n", 5));
             screen("master");
         }));
}

int main(void)
{
    default_signals();
    signal(SIGHUP, SIG_IGN);
    ready = gate_make();
    go = gate_make();
    reap("a session without a terminal", LEADER({
             open_pair();
             taking();
             stealing();
             inheriting();
             foreground();
         }));
    return 0;
}
