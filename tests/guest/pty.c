/* Pseudo-terminals: opening, line discipline in canonical and raw mode, echo, sizes, hang-up. */
#include "check.h"

#include <sys/ioctl.h>
#include <termios.h>

static int master, slave;

/* Everything that the master gets: natively the line discipline works in the kernel's own time, so echoes
 * come in several pieces. */
static ssize_t read_all(char *text, size_t size)
{
    ssize_t total = 0, got = -1;
    struct pollfd request = {.fd = master, .events = POLLIN};
    while (poll(&request, 1, total ? 30 : -1) == 1 && (got = read(master, text + total, size - total)) > 0)
        total += got;
    return total ? total : got;
}

static void show_bytes(const char *what, int fd)
{
    char text[512], line[2048] = "";
    bool blocking = !(fcntl(fd, F_GETFL) & O_NONBLOCK);
    ssize_t got = fd == master && blocking ? read_all(text, sizeof text) : read(fd, text, sizeof text);
    if (got < 0) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    for (ssize_t i = 0; i < got; i++)
        sprintf(line + strlen(line), text[i] < 32 || text[i] == 127 ? "<%02x>" : "%c", (unsigned char)text[i]);
    say("%s: %zd '%s'", what, got, line);
}

static void feed(const char *text)
{
    MUST(write(master, text, strlen(text)));
}

static int waiting(int fd)
{
    int count = -1;
    MUST(ioctl(fd, FIONREAD, &count));
    return count;
}

static void mode(tcflag_t local_on, tcflag_t local_off)
{
    struct termios t;
    MUST(tcgetattr(slave, &t));
    t.c_lflag = (t.c_lflag | local_on) & ~local_off;
    MUST(tcsetattr(slave, TCSANOW, &t));
}

static void pair(void)
{
    char name[64];
    int number = -1, locked = -1;
    CASE("opening");
    master = MUST(posix_openpt(O_RDWR | O_NOCTTY));
    SHOW(ioctl(master, TIOCGPTN, &number));
    SHOW(ioctl(master, TIOCGPTLCK, &locked));
    say("locked %d", locked);
    SHOW(ptsname_r(master, name, sizeof name));
    SHOW_IF(number >= 0 && atoi(name + strlen("/dev/pts/")) == number);
    SHOW(open(name, O_RDWR | O_NOCTTY));
    SHOW(grantpt(master));
    SHOW(unlockpt(master));
    slave = MUST(open(name, O_RDWR | O_NOCTTY));
    struct stat st;
    MUST(fstat(slave, &st));
    SHOW_IF(S_ISCHR(st.st_mode) && st.st_uid == getuid());
    SHOW(isatty(slave));
    SHOW(isatty(master));
    char other[64];
    SHOW(ttyname_r(slave, other, sizeof other));
    SHOW(strcmp(name, other));
}

static void defaults(void)
{
    struct termios t;
    CASE("defaults");
    SHOW(tcgetattr(slave, &t));
    say("%#o %#o %#o %#o", t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag);
    say("%d %d %d %d %d %d", t.c_cc[VINTR], t.c_cc[VQUIT], t.c_cc[VERASE], t.c_cc[VKILL], t.c_cc[VEOF], t.c_cc[VSUSP]);
    say("%d %d", t.c_cc[VMIN], t.c_cc[VTIME]);
    struct winsize size = {7, 7, 7, 7};
    SHOW(ioctl(slave, TIOCGWINSZ, &size));
    say("%d %d", size.ws_row, size.ws_col);
}

static void canonical(void)
{
    CASE("canonical mode");
    feed("hello\n");
    show_bytes("echo", master);
    show_bytes("line", slave);
    feed("two\nlines\n");
    show_bytes("first", slave);
    show_bytes("second", slave);
    show_bytes("echo", master);
    feed("unfinished");
    say("readable %d", waiting(slave));
    feed("\n");
    struct pollfd request = {.fd = slave, .events = POLLIN};
    SHOW(poll(&request, 1, -1));
    say("readable %d", waiting(slave));
    show_bytes("finished", slave);
    show_bytes("echo", master);
    CASE("editing");
    feed("abX\x7f" "c\n");
    show_bytes("erase", slave);
    show_bytes("echo", master);
    feed("all gone\x15new\n");
    show_bytes("kill", slave);
    show_bytes("echo", master);
    feed("one two\x17three\n");
    show_bytes("word erase", slave);
    show_bytes("echo", master);
    feed("\x16\x03literal\n");
    show_bytes("literal next", slave);
    show_bytes("echo", master);
    feed("\x7f\x7f" "at start\n");
    show_bytes("erase at the start", slave);
    show_bytes("echo", master);
    feed("tab\there\x01\n");
    show_bytes("control characters", slave);
    show_bytes("echo", master);
    CASE("end of file");
    feed("\x04");
    show_bytes("EOF", slave);
    feed("part\x04");
    show_bytes("EOF behind text", slave);
    feed("\n");
    show_bytes("the rest", slave);
    show_bytes("echo", master);
    CASE("carriage return becomes newline");
    feed("cr\r");
    show_bytes("line", slave);
    show_bytes("echo", master);
    CASE("a short read leaves the rest of the line");
    feed("long line\n");
    char text[4];
    SHOW(read(slave, text, 4));
    show_bytes("rest", slave);
    show_bytes("echo", master);
    CASE("output");
    MUST(write(slave, "out\nput\n", 8));
    show_bytes("NL becomes CR NL", master);
}

static void raw(void)
{
    struct termios t;
    CASE("no echo");
    mode(0, ECHO);
    feed("secret\n");
    show_bytes("line", slave);
    say("echoed %d", waiting(master));
    CASE("raw mode");
    MUST(tcgetattr(slave, &t));
    cfmakeraw(&t);
    SHOW(tcsetattr(slave, TCSAFLUSH, &t));
    feed("ab\r\x03\x04\x7f");
    show_bytes("bytes", slave);
    MUST(write(slave, "x\ny", 3));
    show_bytes("output", master);
    CASE("VMIN and VTIME");
    t.c_cc[VMIN] = 0;
    t.c_cc[VTIME] = 0;
    MUST(tcsetattr(slave, TCSANOW, &t));
    show_bytes("nothing", slave);
    t.c_cc[VTIME] = 1;
    MUST(tcsetattr(slave, TCSANOW, &t));
    show_bytes("timed out", slave);
    t.c_cc[VMIN] = 3;
    t.c_cc[VTIME] = 0;
    MUST(tcsetattr(slave, TCSANOW, &t));
    feed("xyz");
    show_bytes("three", slave);
    CASE("flushing");
    feed("thrown away");
    SHOW(tcflush(slave, TCIFLUSH));
    say("waiting %d", waiting(slave));
    SHOW(tcflush(slave, 77));
    SHOW(tcsetattr(slave, 77, &t));
    CASE("non-blocking");
    MUST(fcntl(slave, F_SETFL, O_NONBLOCK));
    show_bytes("slave", slave);
    MUST(fcntl(slave, F_SETFL, 0));
    MUST(fcntl(master, F_SETFL, O_NONBLOCK));
    show_bytes("master", master);
    struct pollfd fds[2] = {{master, POLLIN | POLLOUT, 0}, {slave, POLLIN | POLLOUT, 0}};
    SHOW(poll(fds, 2, 0));
    say("%#x %#x", fds[0].revents, fds[1].revents);
    MUST(fcntl(master, F_SETFL, 0));
}

static volatile int winches;

static void on_winch(int signo UNUSED)
{
    winches++;
}

static void sizes(void)
{
    struct winsize size = {50, 132, 1, 2};
    CASE("window size");
    SHOW(ioctl(master, TIOCSWINSZ, &size));
    memset(&size, 0, sizeof size);
    SHOW(ioctl(slave, TIOCGWINSZ, &size));
    say("%d %d %d %d", size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel);
    SHOW(ioctl(master, TIOCSWINSZ, BAD));
    SHOW(ioctl(slave, 0x5499, &size));
}

static void job_control(void)
{
    CASE("a controlling terminal");
    char name[64];
    MUST(ptsname_r(master, name, sizeof name));
    mode(ICANON | ISIG, ECHO);
    struct termios t;
    MUST(tcgetattr(slave, &t));
    t.c_iflag |= ICRNL;
    MUST(tcsetattr(slave, TCSANOW, &t));
    struct gate ready = gate_make(), gate = gate_make();
    pid_t leader = CHILD({
        MUST(setsid());
        SHOW(ioctl(slave, TIOCSCTTY, 0));
        SHOW_IF(tcgetsid(slave) == getpid());
        SHOW_IF(tcgetpgrp(slave) == getpid());
        int tty = MUST(open("/dev/tty", O_RDWR));
        SHOW_IF(tcgetpgrp(tty) == getpid());
        handle_plain(SIGWINCH, on_winch);
        signal(SIGINT, SIG_IGN);
        signal(SIGTTOU, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        CASE("^C reaches the foreground group");
        pid_t job = CHILD(signal(SIGINT, SIG_DFL); setpgid(0, 0); gate_open(ready); pause());
        gate_wait(ready);
        SHOW(tcsetpgrp(tty, job));
        feed("\x03");
        reap("job", job);
        CASE("a background reader is stopped");
        SHOW(tcsetpgrp(tty, getpid()));
        int status;
        job = CHILD({
            signal(SIGTTIN, SIG_DFL);
            setpgid(0, 0);
            char byte;
            SHOW(read(tty, &byte, 1));
        });
        MUST(waitpid(job, &status, WUNTRACED));
        show_status("job", status);
        MUST(tcsetpgrp(tty, job));
        MUST(kill(job, SIGCONT));
        feed("y\n");
        reap("job", job);
        MUST(tcsetpgrp(tty, getpid()));
        CASE("a background reader that ignores it gets EIO");
        reap("job", CHILD(signal(SIGTTIN, SIG_IGN); setpgid(0, 0); char byte; SHOW(read(tty, &byte, 1))));
        CASE("^Z and ^\\");
        job = CHILD(setpgid(0, 0); gate_open(ready); pause());
        gate_wait(ready);
        MUST(tcsetpgrp(tty, job));
        feed("\x1a");
        MUST(waitpid(job, &status, WUNTRACED));
        show_status("job", status);
        MUST(kill(job, SIGCONT));
        MUST(waitpid(job, &status, WCONTINUED));
        feed("\x1c");
        reap("job", job);
        MUST(tcsetpgrp(tty, getpid()));
        CASE("SIGWINCH");
        struct winsize size = {10, 20, 0, 0};
        SHOW(ioctl(master, TIOCSWINSZ, &size));
        say("%d", winches);
        SHOW(ioctl(master, TIOCSWINSZ, &size));
        say("%d", winches);
        CASE("errors");
        SHOW(tcsetpgrp(tty, 1 << 21));
        SHOW(tcsetpgrp(0, getpid()));
        SHOW(tcgetpgrp(0));
        SHOW(ioctl(slave, TIOCSCTTY, 0));
        CASE("giving it up");
        SHOW(ioctl(tty, TIOCNOTTY));
        SHOW(open("/dev/tty", O_RDWR));
        SHOW(tcgetpgrp(slave));
    });
    reap("leader", leader);
    gate_close(gate);
}

static void hang_up(void)
{
    CASE("hang-up");
    char byte;
    close(slave);
    show_bytes("master without a slave", master);
    struct pollfd fd = {master, POLLIN, 0};
    SHOW(poll(&fd, 1, 0));
    say("%#x", fd.revents);
    char name[64];
    MUST(ptsname_r(master, name, sizeof name));
    slave = MUST(open(name, O_RDWR | O_NOCTTY));
    struct gate ready = gate_make();
    pid_t leader = CHILD({
        MUST(setsid());
        MUST(ioctl(slave, TIOCSCTTY, 0));
        close(master);
        gate_open(ready);
        for (;;)
            pause();
    });
    gate_wait(ready);
    close(master);
    reap("session leader", leader);
    SHOW(read(slave, &byte, 1));
    SHOW(write(slave, "x", 1));
    fd = (struct pollfd){slave, POLLIN | POLLOUT, 0};
    SHOW(poll(&fd, 1, 0));
    say("%#x", fd.revents);
    SHOW(open(name, O_RDWR | O_NOCTTY) == -1);
}

int main(void)
{
    /* A background job of a shell starts with these ignored. */
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    pair();
    defaults();
    canonical();
    raw();
    sizes();
    job_control();
    hang_up();
    return 0;
}
