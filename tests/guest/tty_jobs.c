/* Job control: what a background group may do with its terminal, and who is stopped for it. */
#include "tty.h"

static struct gate ready;

static volatile int caught;

static void note(int signo)
{
    caught = signo;
}

/* What the background job does; `what` selects. */
enum action {
    READ,
    WRITE,
    WRITE_TOSTOP,
    SET_MODES,
    FLUSH,
    FLOW,
    BREAK,
    DRAIN,
    SET_PGRP,
    SET_SIZE,
    GET_MODES,
    LAST
};
static const char *const names[] = {"read",      "write",      "write with TOSTOP", "tcsetattr",
                                    "tcflush",   "tcflow",     "tcsendbreak",       "tcdrain",
                                    "tcsetpgrp", "TIOCSWINSZ", "tcgetattr"};

static long act(enum action what)
{
    struct termios t;
    struct winsize size = {3, 4, 0, 0};
    char byte;
    errno = 0;
    switch (what) {
    case READ:
        return read(slave, &byte, 1);
    case WRITE:
    case WRITE_TOSTOP:
        return write(slave, "x", 1);
    case SET_MODES:
        t = modes_now();
        return tcsetattr(slave, TCSANOW, &t);
    case FLUSH:
        return tcflush(slave, TCIFLUSH);
    case FLOW:
        return tcflow(slave, TCOON);
    case BREAK:
        return tcsendbreak(slave, 0);
    case DRAIN:
        return tcdrain(slave);
    case SET_PGRP:
        return tcsetpgrp(slave, getpgrp());
    case SET_SIZE:
        return ioctl(slave, TIOCSWINSZ, &size);
    case GET_MODES:
        return tcgetattr(slave, &t);
    default:
        return -1;
    }
}

static void show_act(enum action what)
{
    long result = act(what);
    say("%s: %ld %s", names[what], result, result < 0 ? error_name(errno) : "");
}

/* A job in a background group, watched by its shell until it ends or stops; then it is killed. */
static void job(enum action what, void (*prepare)(void))
{
    int status;
    if (what == WRITE_TOSTOP)
        MODE(c_lflag, TOSTOP, 0);
    pid_t pid = CHILD({
        setpgid(0, 0);
        if (prepare)
            prepare();
        show_act(what);
    });
    MUST(waitpid(pid, &status, WUNTRACED));
    show_status(names[what], status);
    if (WIFSTOPPED(status)) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    MUST(tcsetpgrp(slave, getpid()));
    MODE(c_lflag, 0, TOSTOP);
}

static void ignore(void)
{
    signal(SIGTTIN, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
}

static void block_them(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTTIN);
    sigaddset(&set, SIGTTOU);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
}

static void catch_them(void)
{
    handle_plain(SIGTTIN, note);
    handle_plain(SIGTTOU, note);
}

static void shell(void (*body)(void))
{
    reap("shell", CHILD({
             MUST(setsid());
             signal(SIGTTOU, SIG_IGN);
             MUST(ioctl(slave, TIOCSCTTY, 0));
             /* The jobs start with the default actions. */
             body();
         }));
}

static void default_actions(void)
{
    signal(SIGTTOU, SIG_DFL);
}

static void all_actions(void)
{
    CASE("the default: the job is stopped");
    for (int what = READ; what < LAST; what++)
        job(what, default_actions);
    CASE("ignored");
    for (int what = READ; what < LAST; what++)
        job(what, ignore);
    CASE("blocked");
    for (int what = READ; what < LAST; what++)
        job(what, block_them);
    CASE("caught");
    for (int what = READ; what < LAST; what++)
        job(what, catch_them);
}

static void a_group(void)
{
    CASE("the whole group is stopped, not just the one who reads");
    int status;
    pid_t first = CHILD(setpgid(0, 0); gate_open(ready); pause());
    gate_wait(ready);
    pid_t second = CHILD(setpgid(0, first); char byte; SHOW(read(slave, &byte, 1)));
    MUST(waitpid(second, &status, WUNTRACED));
    show_status("reader", status);
    MUST(waitpid(first, &status, WUNTRACED));
    show_status("the other", status);
    CASE("continued in the foreground, the read goes on");
    MUST(tcsetpgrp(slave, first));
    MUST(kill(-first, SIGCONT));
    MUST(waitpid(second, &status, WCONTINUED));
    show_status("reader", status);
    TYPE("y\n");
    reap("reader", second);
    CASE("a signal character reaches all of the foreground group");
    TYPE("\x03");
    reap("the other", first);
    MUST(tcsetpgrp(slave, getpid()));
    CASE("^Z, and SIGCONT while still in the background");
    first = CHILD(setpgid(0, 0); gate_open(ready); pause());
    gate_wait(ready);
    MUST(tcsetpgrp(slave, first));
    TYPE("\x1a");
    MUST(waitpid(first, &status, WUNTRACED));
    show_status("stopped", status);
    MUST(tcsetpgrp(slave, getpid()));
    kill(first, SIGCONT);
    MUST(waitpid(first, &status, WCONTINUED));
    show_status("again", status);
    kill(first, SIGKILL);
    reap("killed", first);
    CASE("SIGWINCH goes to the foreground only");
    handle_plain(SIGWINCH, note);
    caught = 0;
    first = CHILD(setpgid(0, 0); gate_open(ready); while (!caught) usleep(1000);
                  say("winch in the job"));
    gate_wait(ready);
    MUST(tcsetpgrp(slave, first));
    struct winsize size = {9, 9, 9, 9};
    MUST(ioctl(master, TIOCSWINSZ, &size));
    reap("job", first);
    say("shell: %d", caught);
    MUST(tcsetpgrp(slave, getpid()));
}

static void orphans(void)
{
    CASE("an orphaned group in the background");
    int out[2];
    MUST(pipe(out));
    pid_t middle = CHILD({
        setpgid(0, 0);
        pid_t parent = getpid();
        CHILD({
            setpgid(0, 0);
            gate_open(ready);
            while (getppid() == parent)
                usleep(1000);
            MUST(dup2(out[1], 1));
            default_actions();
            for (int what = READ; what < LAST; what++)
                if (what != WRITE_TOSTOP)
                    show_act(what);
            catch_them();
            show_act(READ);
            show_act(SET_MODES);
            ignore();
            show_act(READ);
            show_act(SET_MODES);
            say("caught %d", caught);
        });
        gate_wait(ready);
    });
    reap("middle", middle);
    close(out[1]);
    char text[4096];
    ssize_t got, total = 0;
    while ((got = read(out[0], text + total, sizeof text - 1 - total)) > 0)
        total += got;
    text[total] = 0;
    say("%s", text);
    MUST(tcsetpgrp(slave, getpid()));
}

int main(void)
{
    default_signals();
    ready = gate_make();
    reap("all", CHILD({
             MUST(setsid());
             open_pair();
             shell(all_actions);
             shell(a_group);
             shell(orphans);
         }));
    return 0;
}
