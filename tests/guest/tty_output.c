/* The output side of the line discipline: processing, flow control, how much fits. */
#include "tty.h"

static void begin(const char *what)
{
    CASE(what);
    sane();
}

static void out(const char *text)
{
    MUST(write(slave, text, strlen(text)));
}

static void show_queue(void)
{
    int count = -1;
    SHOW(ioctl(slave, TIOCOUTQ, &count));
    say("on its way: %d", count);
    SHOW(ioctl(master, TIOCOUTQ, &count));
    say("on its way from the master: %d", count);
}

static void processing(void)
{
    begin("ONLCR");
    out("a\nb\r\n\tc\b\n");
    screen("output");
    begin("no OPOST");
    MODE(c_oflag, 0, OPOST);
    out("a\nb\r\n\tc\b\n");
    screen("output");
    begin("OCRNL and ONLRET");
    MODE(c_oflag, OCRNL, ONLCR);
    out("a\rb\n\r");
    screen("OCRNL");
    MODE(c_oflag, ONLRET | XTABS, 0);
    out("abc\rd\te\nf\tg");
    screen("and ONLRET, XTABS");
    begin("ONOCR");
    MODE(c_oflag, ONOCR, 0);
    out("\r\rab\r\rc\n\rd");
    screen("output");
    begin("tabs become blanks");
    MODE(c_oflag, XTABS, 0);
    out("a\tb\t12345678\tc\b\b\td\x1b[m\te\n\tf");
    screen("output");
    begin("tabs and UTF-8");
    MODE(c_oflag, XTABS, 0);
    MODE(c_iflag, IUTF8, 0);
    out("\xc3\xa9\xe2\x82\xac\t|");
    screen("output");
    begin("capitals");
    MODE(c_oflag, OLCUC, 0);
    out("abc ABC \xe4\xdf\xf7 xyz");
    screen("output");
    begin("delays do nothing");
    MODE(c_oflag, NLDLY | CRDLY | BSDLY | VTDLY | FFDLY, 0);
    out("a\n\r\b\v\f");
    screen("output");
}

static void flow(void)
{
    begin("^S and ^Q");
    TYPE("\x13");
    TYPE("seen?");
    screen("stopped");
    fcntl(slave, F_SETFL, O_NONBLOCK);
    SHOW(write(slave, "out", 3));
    struct pollfd request = {.fd = slave, .events = POLLOUT};
    SHOW(poll(&request, 1, 0));
    TYPE("\x11");
    SHOW(poll(&request, 1, 0));
    SHOW(write(slave, "out", 3));
    fcntl(slave, F_SETFL, 0);
    screen("started");
    begin("no IXANY: other keys don't start it");
    TYPE("\x13"
         "a");
    screen("stopped");
    TYPE("\x11");
    screen("started");
    begin("IXANY");
    MODE(c_iflag, IXANY, 0);
    TYPE("\x13"
         "a");
    screen("started by a key");
    line("nothing yet");
    TYPE("\n");
    line("line");
    begin("^C starts it again");
    TYPE("\x13");
    TYPE("\x03");
    out("out");
    screen("started");
    begin("no IXON");
    MODE(c_iflag, 0, IXON);
    TYPE("\x13\x11\n");
    line("line");
    screen("echo");
    begin("turning IXON off starts it");
    TYPE("\x13"
         "ab");
    screen("stopped");
    MODE(c_iflag, 0, IXON);
    screen("started");
    begin("other characters for it");
    set_char(VSTOP, 'x');
    set_char(VSTART, 'x');
    TYPE("ax\n");
    screen("the same one: start only");
    set_char(VSTART, 'y');
    TYPE("ax");
    TYPE("b");
    screen("stopped");
    TYPE("y\n");
    screen("started");
    line("line");
    line("line");
}

static void tcflow_cases(void)
{
    begin("TCOOFF and TCOON");
    SHOW(tcflow(slave, TCOOFF));
    fcntl(slave, F_SETFL, O_NONBLOCK);
    SHOW(write(slave, "a", 1));
    SHOW(tcflow(slave, TCOOFF));
    TYPE("\x11");
    SHOW(write(slave, "b", 1));
    SHOW(tcflow(slave, TCOON));
    SHOW(write(slave, "c", 1));
    fcntl(slave, F_SETFL, 0);
    screen("output");
    begin("TCOON doesn't end a ^S");
    TYPE("\x13");
    SHOW(tcflow(slave, TCOON));
    TYPE("a");
    screen("stopped");
    TYPE("\x11");
    screen("started");
    begin("TCIOFF and TCION send the characters");
    SHOW(tcflow(slave, TCIOFF));
    screen("output");
    SHOW(tcflow(slave, TCION));
    screen("output");
    set_char(VSTOP, 0);
    SHOW(tcflow(slave, TCIOFF));
    screen("disabled");
    SHOW(tcflow(slave, 4));
    SHOW(tcflow(slave, -1));
    begin("TCIOFF that nobody reads");
    int calls = 0;
    for (int i = 0; i < 20000; i++)
        calls += tcflow(slave, TCIOFF) == 0;
    SHOW(calls);
    SHOW_IF(pending(master) < 20000);
    begin("on the master");
    SHOW(tcflow(master, TCIOFF));
    SHOW(tcflow(master, TCION));
    SHOW(tcflow(master, TCOOFF));
    settle();
    line("input");
    SHOW(tcflow(master, TCOON));
    SHOW(tcflow(master, 9));
}

static void amounts(void)
{
    static char text[65536];
    memset(text, 'x', sizeof text);
    begin("queues");
    show_queue();
    out("12345\n");
    settle();
    show_queue();
    say("master readable %d", pending(master));
    screen("output");
    TYPE("abc\nde");
    say("slave readable %d", pending(slave));
    show_queue();
    begin("how much fits, without OPOST");
    MODE(c_oflag, 0, OPOST);
    fcntl(slave, F_SETFL, O_NONBLOCK);
    ssize_t total = 0, got;
    /* The kernel's thread takes some of it away meanwhile: full is what stays full. */
    while ((got = write(slave, text, sizeof text)) > 0 ||
           (settle(), (got = write(slave, text, sizeof text)) > 0))
        total += got;
    say("%s after at least 8 KiB: %s", error_name(errno), total >= 8192 ? "yes" : "no");
    struct pollfd request = {.fd = slave, .events = POLLOUT};
    SHOW(poll(&request, 1, 0));
    ssize_t taken = 0;
    fcntl(master, F_SETFL, O_NONBLOCK);
    while ((got = read(master, text, sizeof text)) > 0 ||
           (settle(), (got = read(master, text, sizeof text)) > 0))
        taken += got;
    SHOW_IF(taken == total);
    SHOW(poll(&request, 1, 0));
    fcntl(master, F_SETFL, 0);
    begin("a reader lets a blocked writer go on");
    MODE(c_oflag, 0, OPOST);
    fcntl(slave, F_SETFL, 0);
    pid_t writer = CHILD(close(master); SHOW(write(slave, text, 50000)); out("end"));
    taken = 0;
    while (taken < 50003)
        taken += MUST(read(master, text, sizeof text));
    reap("writer", writer);
    begin("flushing output");
    out("stays");
    settle();
    SHOW(tcflush(slave, TCOFLUSH));
    out("after");
    screen("output");
    TYPE("\x13");
    TYPE("echo");
    SHOW(tcflush(slave, TCOFLUSH));
    TYPE("\x11");
    screen("echoes");
    begin("flushing by the master");
    out("stays");
    TYPE("abc\n");
    SHOW(tcflush(master, TCIFLUSH));
    screen("output");
    SHOW(tcflush(master, TCOFLUSH));
    line("line");
}

int main(void)
{
    open_pair();
    signal(SIGINT, SIG_IGN);
    processing();
    flow();
    tcflow_cases();
    amounts();
    return 0;
}
