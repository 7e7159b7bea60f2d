/* The line discipline without ICANON: VMIN and VTIME in their four cases, polling, signals, pieces.
 */
#include "tty.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void modes(int vmin, int vtime)
{
    struct termios t;
    sane();
    t = modes_now();
    cfmakeraw(&t);
    t.c_cc[VMIN] = vmin;
    t.c_cc[VTIME] = vtime;
    MUST(tcsetattr(slave, TCSANOW, &t));
}

static void begin(const char *what, int vmin, int vtime)
{
    CASE(what);
    modes(vmin, vtime);
}

/* A blocking read; says whether it took at least the tenths of a second that it should. */
static void timed(const char *what, size_t size, int tenths)
{
    char text[256];
    double start = now();
    ssize_t got = read(slave, text, size);
    double took = now() - start;
    if (got < 0)
        say("%s: %s", what, error_name(errno));
    else
        show_text(what, text, got);
    say("in time: %s", took >= tenths * 0.1 - 0.02 ? "yes" : "no");
}

static void type_later(const char *text, int milliseconds)
{
    if (fork() == 0) {
        for (; *text; text++) {
            usleep(milliseconds * 1000);
            MUST(write(master, text, 1));
        }
        _exit(0);
    }
}

static void four_cases(void)
{
    begin("MIN 0, TIME 0", 0, 0);
    timed("nothing", 10, 0);
    TYPE("abc");
    timed("two of three", 2, 0);
    timed("the rest", 10, 0);
    begin("MIN 0, TIME 2", 0, 2);
    timed("nothing", 10, 2);
    type_later("x", 50);
    timed("one", 10, 0);
    wait(NULL);
    TYPE("abc");
    timed("three", 10, 0);
    begin("MIN 3, TIME 0", 3, 0);
    type_later("xyz", 20);
    timed("three", 10, 0);
    wait(NULL);
    TYPE("abcde");
    timed("four of five", 4, 0);
    TYPE("fg");
    timed("the rest", 10, 0);
    type_later("uv", 20);
    timed("a smaller request", 2, 0);
    wait(NULL);
    begin("MIN 3, TIME 2", 3, 2);
    type_later("ab", 60);
    timed("two, and then nothing", 10, 2);
    wait(NULL);
    type_later("abc", 60);
    timed("three", 10, 1);
    wait(NULL);
    TYPE("abcdef");
    timed("six", 10, 0);
    begin("MIN 255", 255, 0);
    TYPE("few");
    take_some("non-blocking", slave, 10);
}

static void polling(void)
{
    struct pollfd request = {.fd = slave, .events = POLLIN};
    begin("poll with MIN 3, TIME 0", 3, 0);
    TYPE("ab");
    SHOW(poll(&request, 1, 0));
    say("readable %d", pending(slave));
    take_some("non-blocking", slave, 10);
    TYPE("ab");
    TYPE("c");
    SHOW(poll(&request, 1, 0));
    line("bytes");
    begin("poll with MIN 3, TIME 1", 3, 1);
    TYPE("a");
    SHOW(poll(&request, 1, 0));
    take_some("non-blocking", slave, 10);
    begin("poll with MIN 0", 0, 0);
    SHOW(poll(&request, 1, 0));
    TYPE("a");
    SHOW(poll(&request, 1, 0));
    begin("more than a buffer", 1, 0);
    static char text[16384];
    memset(text, 'x', sizeof text);
    pid_t writer = CHILD(SHOW(write(master, text, sizeof text)));
    ssize_t total = 0;
    while (total < (ssize_t)sizeof text)
        total += MUST(read(slave, text, sizeof text));
    reap("writer", writer);
    begin("non-blocking writes of the master end some time", 1, 0);
    fcntl(master, F_SETFL, O_NONBLOCK);
    total = 0;
    for (;;) {
        ssize_t got = write(master, text, sizeof text);
        if (got < 0) {
            settle();
            got = write(master, text, sizeof text);
        }
        if (got < 0)
            break;
        total += got;
    }
    say("%s after at least 4 KiB: %s", error_name(errno), total >= 4096 ? "yes" : "no");
    request = (struct pollfd){.fd = master, .events = POLLOUT};
    SHOW(poll(&request, 1, 0));
    fcntl(master, F_SETFL, 0);
    ssize_t taken = 0;
    fcntl(slave, F_SETFL, O_NONBLOCK);
    for (int tries = 0; tries < 3; settle()) {
        ssize_t got = read(slave, text, sizeof text);
        taken += got > 0 ? got : 0;
        tries = got > 0 ? 0 : tries + 1;
    }
    fcntl(slave, F_SETFL, 0);
    SHOW_IF(taken == total);
    SHOW(poll(&request, 1, 1000));
}

static void data(void)
{
    char text[256];
    begin("every byte comes through", 1, 0);
    for (int c = 0; c < 256; c++)
        text[c] = c;
    type_bytes(text, 256);
    line("bytes");
    screen("no echo");
    begin("echo without ICANON", 1, 0);
    MODE(c_lflag, ECHO | ECHOCTL | ECHOE | ECHONL, 0);
    TYPE("ab\x7f\x15\x04\r\n\x16");
    line("bytes");
    screen("echo");
    begin("ICRNL and friends without ICANON", 1, 0);
    MODE(c_iflag, ICRNL | ISTRIP, 0);
    TYPE("a\r\xe1\n");
    line("bytes");
    MODE(c_iflag, INLCR, ICRNL);
    TYPE("a\r\n");
    line("bytes");
    begin("PARMRK without ICANON", 1, 0);
    MODE(c_iflag, PARMRK, 0);
    TYPE("\xff"
         "a\0\xff\xff");
    line("bytes");
    begin("IXON without ICANON", 1, 0);
    MODE(c_iflag, IXON, 0);
    TYPE("a\x13"
         "b\x11"
         "c");
    line("bytes");
    begin("TCIFLUSH", 1, 0);
    TYPE("gone");
    SHOW(tcflush(slave, TCIFLUSH));
    TYPE("here");
    line("bytes");
    begin("a writer that waits for room goes on when the input is dropped", 1, 0);
    static char much[8192];
    fcntl(master, F_SETFL, O_NONBLOCK);
    while (write(master, much, sizeof much) > 0 || (settle(), write(master, much, sizeof much) > 0))
        ;
    fcntl(master, F_SETFL, 0);
    pid_t writer = CHILD(SHOW(write(master, "x", 1)));
    until_asleep(writer);
    MUST(tcflush(slave, TCIFLUSH));
    reap("writer", writer);
    fcntl(slave, F_SETFL, O_NONBLOCK);
    while (read(slave, much, sizeof much) > 0 || (settle(), read(slave, much, sizeof much) > 0))
        ;
    fcntl(slave, F_SETFL, 0);
    begin("pieces", 1, 0);
    TYPE("abcdef");
    take_some("1", slave, 1);
    take_some("2", slave, 2);
    take_some("0", slave, 0);
    say("readable %d", pending(slave));
    SHOW(read(slave, BAD, 2));
    say("readable %d", pending(slave));
}

static void nothing(int signo UNUSED)
{
}

static void signals(void)
{
    begin("a signal ends a read that has nothing", 3, 0);
    handle_plain(SIGALRM, nothing);
    char text[8];
    ualarm(100000, 0);
    SHOW(read(slave, text, sizeof text));
    begin("a signal ends a read with what it has", 3, 0);
    TYPE("a");
    ualarm(100000, 0);
    SHOW(read(slave, text, sizeof text));
    begin("SA_RESTART", 1, 0);
    handle_flags(SIGALRM, (void *)nothing, SA_RESTART);
    ualarm(100000, 0);
    type_later("x", 300);
    SHOW(read(slave, text, sizeof text));
    wait(NULL);
    begin("two readers get a byte each", 1, 0);
    pid_t one = CHILD(SHOW(read(slave, text, 1)));
    pid_t two = CHILD(SHOW(read(slave, text, 1)));
    usleep(20000);
    MUST(write(master, "ab", 2));
    waitpid(one, NULL, 0);
    waitpid(two, NULL, 0);
    begin("readv and iovecs", 1, 0);
    TYPE("abcdef");
    char first[3];
    struct iovec {
        void *base;
        size_t size;
    } parts[2] = {{first, 2}, {text, 8}};
    SHOW(syscall(SYS_readv, slave, parts, 2));
    say("%.2s %.2s", first, text);
}

int main(void)
{
    open_pair();
    four_cases();
    polling();
    data();
    signals();
    return 0;
}
