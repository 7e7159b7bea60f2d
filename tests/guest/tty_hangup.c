/* Hang-ups: of a slave whose master is closed, of a session whose leader ends, by vhangup; and the
 * master's view. */
#include "tty.h"

#include <sys/epoll.h>

static struct gate ready, go;
static volatile int hangups, continues;

static void count(int signo)
{
    *(signo == SIGHUP ? &hangups : &continues) += 1;
}

static void catch_them(void)
{
    hangups = continues = 0;
    handle_plain(SIGHUP, count);
    handle_plain(SIGCONT, count);
}

static void show_poll(const char *what, int fd)
{
    struct pollfd request = {
        .fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLRDNORM | POLLWRNORM};
    poll(&request, 1, 0);
    say("%s: events %#x", what, request.revents);
}

static void fresh(const char *what)
{
    CASE(what);
    if (master >= 0)
        close(master);
    if (slave >= 0)
        close(slave);
    open_pair();
}

static void dead_slave(void)
{
    char text[8];
    struct termios t;
    struct winsize size;
    int count;
    show_poll("poll", slave);
    SHOW(read(slave, text, sizeof text));
    SHOW(write(slave, "x", 1));
    SHOW(write(slave, "", 0));
    SHOW(ioctl(slave, TCGETS, &t));
    SHOW(ioctl(slave, TIOCGWINSZ, &size));
    SHOW(ioctl(slave, FIONREAD, &count));
    SHOW(ioctl(slave, TIOCGPGRP, &count));
    SHOW(ioctl(slave, TIOCSPGRP, &count));
    SHOW(ioctl(slave, TIOCSCTTY, 0));
    SHOW(ioctl(slave, TIOCNOTTY, 0));
    SHOW(ioctl(slave, TCFLSH, 0));
    SHOW(isatty(slave));
    SHOW(fcntl(slave, F_GETFL) & O_ACCMODE);
    SHOW(lseek(slave, 0, SEEK_CUR));
    struct stat st;
    SHOW(fstat(slave, &st));
    SHOW_IF(S_ISCHR(st.st_mode));
    SHOW_OK(open(slave_name, O_RDWR | O_NOCTTY));
}

static void master_closed(void)
{
    fresh("the master is closed");
    TYPE("unread\n");
    close(master);
    master = -1;
    dead_slave();
    fresh("a reader waits");
    int m = master;
    pid_t reader = CHILD(close(m); gate_open(ready); char byte; SHOW(read(slave, &byte, 1));
                         SHOW(read(slave, &byte, 1)));
    gate_wait(ready);
    usleep(200000);
    close(master);
    master = -1;
    reap("reader", reader);
    fresh("a writer waits");
    MODE(c_oflag, 0, OPOST);
    m = master;
    pid_t writer = CHILD({
        close(m);
        static char text[100000];
        gate_open(ready);
        ssize_t got = write(slave, text, sizeof text);
        say("%s", got < 0                                 ? error_name(errno)
                  : got > 0 && got < (ssize_t)sizeof text ? "some"
                                                          : "strange");
        SHOW(write(slave, text, 1));
    });
    gate_wait(ready);
    usleep(200000);
    close(master);
    master = -1;
    reap("writer", writer);
    fresh("somebody polls");
    m = master;
    pid_t poller = CHILD({
        close(m);
        struct pollfd request = {.fd = slave, .events = POLLIN};
        gate_open(ready);
        SHOW(poll(&request, 1, -1));
        say("%#x", request.revents);
    });
    gate_wait(ready);
    close(master);
    master = -1;
    reap("poller", poller);
    fresh("in the background");
    m = master;
    pid_t shell = CHILD({
        close(m);
        MUST(setsid());
        signal(SIGHUP, SIG_IGN);
        MUST(ioctl(slave, TIOCSCTTY, 0));
        struct gate job_go = gate_make();
        pid_t job = CHILD(setpgid(0, 0); gate_wait(job_go); char byte; SHOW(read(slave, &byte, 1));
                          SHOW(open("/dev/tty", O_RDWR)));
        gate_open(ready);
        gate_wait(go);
        gate_open(job_go);
        reap("job", job);
    });
    gate_wait(ready);
    close(master);
    master = -1;
    gate_open(go);
    reap("shell", shell);
}

static void numbers(void)
{
    int number, next;
    fresh("a number is in use as long as a slave is open");
    MUST(ioctl(master, TIOCGPTN, &number));
    close(master);
    SHOW(access(slave_name, F_OK));
    master = MUST(posix_openpt(O_RDWR | O_NOCTTY));
    MUST(ioctl(master, TIOCGPTN, &next));
    SHOW_IF(next == number);
}

static void sessions(void)
{
    /* Between the shell and its jobs. */
    struct gate inner = gate_make();
    fresh("a session whose master is closed");
    int m = master;
    pid_t shell = CHILD({
        close(m);
        MUST(setsid());
        catch_them();
        signal(SIGTTOU, SIG_IGN);
        MUST(ioctl(slave, TIOCSCTTY, 0));
        pid_t job =
            CHILD(setpgid(0, 0); catch_them(); gate_open(inner); while (!hangups) usleep(1000);
                  say("foreground: hung up"); gate_open(ready));
        gate_wait(inner);
        pid_t back = CHILD(setpgid(0, 0); signal(SIGHUP, SIG_DFL); gate_open(inner); pause());
        gate_wait(inner);
        MUST(tcsetpgrp(slave, job));
        gate_open(ready);
        gate_wait(go);
        while (!hangups || !continues)
            usleep(1000);
        say("leader: %d %d", hangups, continues);
        SHOW(open("/dev/tty", O_RDWR));
        SHOW(tcgetpgrp(slave));
        kill(back, SIGTERM);
        reap("background", back);
    });
    gate_wait(ready);
    close(master);
    master = -1;
    gate_open(go);
    gate_wait(ready);
    reap("shell", shell);
    fresh("a session whose leader ends");
    int out[2];
    MUST(pipe(out));
    shell = CHILD({
        MUST(setsid());
        signal(SIGTTOU, SIG_IGN);
        MUST(ioctl(slave, TIOCSCTTY, 0));
        pid_t job = CHILD({
            dup2(out[1], 1);
            setpgid(0, 0);
            catch_them();
            gate_open(inner);
            while (!hangups)
                usleep(1000);
            usleep(50000);
            say("foreground: %d hang-ups, %d continues", hangups, continues);
            gate_open(go);
        });
        gate_wait(inner);
        CHILD({
            dup2(out[1], 1);
            setpgid(0, 0);
            catch_them();
            gate_open(inner);
            gate_wait(go);
            say("background: %d hang-ups, %d continues", hangups, continues);
            SHOW(write(slave, "x", 1));
            SHOW(tcgetpgrp(slave));
        });
        gate_wait(inner);
        MUST(tcsetpgrp(slave, job));
    });
    reap("leader", shell);
    close(out[1]);
    char text[2000];
    ssize_t got, total = 0;
    while ((got = read(out[0], text + total, sizeof text - 1 - total)) > 0)
        total += got;
    text[total] = 0;
    say("%s", text);
    SHOW(tcgetsid(slave));
}

static void masters_view(void)
{
    fresh("the last slave is closed");
    MUST(write(slave, "last words", 10));
    settle();
    close(slave);
    show_poll("poll", master);
    take_some("first", master, 4);
    take_some("then", master, 100);
    take_some("and then", master, 100);
    show_poll("poll", master);
    struct winsize size = {5, 6, 7, 8};
    SHOW(ioctl(master, TIOCSWINSZ, &size));
    SHOW(tcflush(master, TCIOFLUSH));
    CASE("and opened again");
    slave = MUST(open(slave_name, O_RDWR | O_NOCTTY));
    show_poll("poll", master);
    take_some("nothing", master, 100);
    memset(&size, 0, sizeof size);
    MUST(ioctl(slave, TIOCGWINSZ, &size));
    say("%d %d", size.ws_row, size.ws_col);
    MODE(c_lflag, 0, ECHO);
    close(slave);
    slave = MUST(open(slave_name, O_RDWR | O_NOCTTY));
    say("modes are kept: %s", modes_now().c_lflag & ECHO ? "no" : "yes");
    CASE("a master before any slave");
    int m = MUST(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK));
    char byte;
    show_poll("poll", m);
    SHOW(read(m, &byte, 1));
    SHOW(write(m, "x\n", 2));
    MUST(unlockpt(m));
    int s = MUST(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK));
    usleep(100000);
    SHOW(read(s, &byte, 1));
    close(s);
    close(m);
    fresh("a reader of the master");
    pid_t reader = CHILD(close(slave); gate_open(ready); SHOW(read(master, &byte, 1)));
    gate_wait(ready);
    usleep(100000);
    close(slave);
    slave = -1;
    reap("reader", reader);
    fresh("epoll");
    int set = MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, master, &event));
    SHOW(epoll_wait(set, &event, 1, 0));
    close(slave);
    slave = -1;
    SHOW(epoll_wait(set, &event, 1, 1000));
    say("%#x", event.events);
    close(set);
}

static void by_force(void)
{
    fresh("vhangup");
    if (geteuid() != 0) {
        reap("user", CHILD(MUST(setsid()); MUST(ioctl(slave, TIOCSCTTY, 0));
                           SHOW(syscall(SYS_vhangup)); SHOW(ioctl(slave, 0x5437))));
        return;
    }
    reap("without a terminal", CHILD(MUST(setsid()); SHOW(syscall(SYS_vhangup))));
    reap("leader", CHILD({
             MUST(setsid());
             catch_them();
             MUST(ioctl(slave, TIOCSCTTY, 0));
             SHOW(syscall(SYS_vhangup));
             say("%d %d", hangups, continues);
             SHOW(open("/dev/tty", O_RDWR));
             dead_slave();
         }));
    show_poll("master", master);
    take_some("master", master, 10);
    close(slave);
    show_poll("master", master);
    take_some("master", master, 10);
    slave = open(slave_name, O_RDWR | O_NOCTTY);
    say("opened again: %s", slave >= 0 ? "yes" : error_name(errno));
    show_poll("master", master);
    if (slave >= 0)
        SHOW(write(slave, "hello", 5));
    screen("master");
    fresh("TIOCVHANGUP");
    SHOW(ioctl(slave, 0x5437));
    show_poll("slave", slave);
    show_poll("master", master);
}

int main(void)
{
    default_signals();
    master = slave = -1;
    ready = gate_make();
    go = gate_make();
    reap("all", CHILD({
             MUST(setsid());
             master_closed();
             numbers();
             sessions();
             masters_view();
             by_force();
         }));
    return 0;
}
