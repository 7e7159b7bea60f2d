/* Packet mode, EXTPROC, and what else only a master has. */
#include "tty.h"

static void begin(const char *what, int on)
{
    CASE(what);
    sane();
    settle();
    MUST(ioctl(master, TIOCPKT, &on));
}

static void packet(const char *what)
{
    struct pollfd request = {.fd = master, .events = POLLIN | POLLPRI};
    settle();
    poll(&request, 1, 0);
    say("%s: events%s%s", what, request.revents & POLLIN ? " IN" : "",
        request.revents & POLLPRI ? " PRI" : "");
    take_some(what, master, 100);
}

static void packets(void)
{
    int on = -1;
    CASE("asking");
    SHOW(ioctl(master, TIOCGPKT, &on));
    say("%d", on);
    SHOW(ioctl(slave, TIOCGPKT, &on));
    SHOW(ioctl(slave, TIOCPKT, &on));
    SHOW(ioctl(master, TIOCPKT, BAD));
    SHOW(ioctl(master, TIOCGPKT, BAD));
    begin("data", 1);
    SHOW(ioctl(master, TIOCGPKT, &on));
    say("%d", on);
    MUST(write(slave, "hello", 5));
    settle();
    take_some("three bytes", master, 3);
    packet("the rest");
    packet("nothing");
    MUST(write(slave, "x", 1));
    settle();
    take_some("one byte", master, 1);
    packet("data");
    begin("flushing", 1);
    MUST(tcflush(slave, TCIFLUSH));
    packet("input");
    MUST(tcflush(slave, TCOFLUSH));
    packet("output");
    MUST(tcflush(slave, TCIOFLUSH));
    packet("both");
    TYPE("\x03");
    packet("an interrupt");
    packet("then");
    begin("stop and start", 1);
    TYPE("\x13");
    packet("^S");
    TYPE("\x11");
    packet("^Q");
    TYPE("\x13\x11");
    packet("both");
    MUST(tcflow(slave, TCOOFF));
    packet("TCOOFF");
    MUST(tcflow(slave, TCOON));
    packet("TCOON");
    begin("whether ^S and ^Q work", 1);
    MODE(c_iflag, 0, IXON);
    packet("no IXON");
    MODE(c_iflag, IXON, 0);
    packet("IXON");
    set_char(VSTOP, 'x');
    packet("another VSTOP");
    set_char(VSTOP, 19);
    packet("the usual VSTOP");
    MODE(c_lflag, 0, ECHO);
    packet("something else");
    begin("status and data", 1);
    MUST(write(slave, "text", 4));
    MUST(tcflush(slave, TCIFLUSH));
    packet("first");
    packet("second");
    begin("what happened before it was on is not told", 0);
    MUST(tcflush(slave, TCIFLUSH));
    on = 1;
    MUST(ioctl(master, TIOCPKT, &on));
    packet("nothing");
    MUST(tcflush(slave, TCIFLUSH));
    on = 0;
    MUST(ioctl(master, TIOCPKT, &on));
    packet("off");
    on = 5;
    SHOW(ioctl(master, TIOCPKT, &on));
    SHOW(ioctl(master, TIOCGPKT, &on));
    say("%d", on);
}

static void extproc(void)
{
    begin("EXTPROC", 1);
    MODE(c_lflag, EXTPROC, 0);
    packet("on");
    SHOW_IF(modes_now().c_lflag & EXTPROC);
    TYPE("a\x7f\x03"
         "b\r");
    line("nothing is done to the line");
    screen("nor echoed");
    MODE(c_lflag, 0, ECHO);
    packet("another change");
    MODE(c_lflag, 0, EXTPROC);
    packet("off");
    MODE(c_lflag, ECHO, 0);
    packet("a change without it");
    MODE(c_lflag, EXTPROC, 0);
    packet("on");
    MODE(c_iflag, ISTRIP, 0);
    TYPE("\xe1\x7f\xff\n");
    line("ISTRIP works");
    sane();
}

static volatile int interrupts;

static void on_interrupt(int signo UNUSED)
{
    interrupts++;
}

static void signals(void)
{
    begin("TIOCSIG", 0);
    SHOW(ioctl(master, TIOCSIG, SIGINT));
    SHOW(ioctl(master, TIOCSIG, 0));
    SHOW(ioctl(master, TIOCSIG, 64));
    SHOW(ioctl(master, TIOCSIG, 65));
    SHOW(ioctl(master, TIOCSIG, SIGKILL));
    SHOW(ioctl(slave, TIOCSIG, SIGINT));
    reap("with a session", CHILD({
             MUST(setsid());
             MUST(ioctl(slave, TIOCSCTTY, 0));
             handle_plain(SIGINT, on_interrupt);
             handle_plain(SIGUSR1, on_interrupt);
             SHOW(ioctl(master, TIOCSIG, SIGINT));
             SHOW(ioctl(master, TIOCSIG, SIGUSR1));
             say("%d", interrupts);
             MUST(ioctl(slave, TIOCNOTTY));
         }));
}

int main(void)
{
    signal(SIGHUP, SIG_IGN);
    open_pair();
    packets();
    extproc();
    signals();
    return 0;
}
