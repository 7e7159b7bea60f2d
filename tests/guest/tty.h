/*
 * Helpers for the programs that test terminals: a pty, what is typed at its master, and what both
 * sides read.
 *
 * Natively the line discipline works in a thread of the kernel: what was written to the master
 * arrives some time later, and echoes come in several pieces.  So after each step `settle` waits
 * until the amounts of input and output stay the same for a while.
 */
#ifndef TTY_H
#define TTY_H

#include "check.h"

#include <sys/ioctl.h>
#include <termios.h>

static int master, slave;
static char slave_name[64];

UNUSED static int pending(int fd)
{
    int count = -1;
    MUST(ioctl(fd, FIONREAD, &count));
    return count;
}

/* Waits until what was typed has been worked on: nothing changes any more. */
UNUSED static void settle(void)
{
    struct pollfd request = {.fd = slave, .events = POLLIN};
    int before = -1, now = -2;
    for (int same = 0; same < 3; same++) {
        poll(&request, 1, 0);
        now = pending(slave) * 10000 + pending(master) * 10 + (request.revents & POLLIN);
        if (now != before)
            same = 0;
        before = now;
        usleep(4000);
    }
}

UNUSED static void type_bytes(const void *text, size_t size)
{
    MUST(write(master, text, size));
    settle();
}

/* Types a string literal, which may hold NULs. */
#define TYPE(text) type_bytes(text, sizeof text - 1)

UNUSED static void show_text(const char *what, const char *text, ssize_t got)
{
    char line[4000] = "";
    size_t at = 0;
    for (ssize_t i = 0; i < got && at < sizeof line - 8; i++) {
        unsigned char c = text[i];
        at += sprintf(line + at, c < 32 || c > 126 ? "<%02x>" : "%c", c);
    }
    say("%s: %zd '%s'", what, got, line);
}

/* One read of at most `size` bytes, which must not wait. */
UNUSED static void take_some(const char *what, int fd, size_t size)
{
    static char text[8192];
    int flags = MUST(fcntl(fd, F_GETFL));
    MUST(fcntl(fd, F_SETFL, flags | O_NONBLOCK));
    ssize_t got = read(fd, text, size);
    int saved = errno;
    MUST(fcntl(fd, F_SETFL, flags));
    if (got < 0)
        say("%s: %s", what, error_name(saved));
    else
        show_text(what, text, got);
}

UNUSED static void line(const char *what)
{
    take_some(what, slave, 8192);
}

/* All that the master gets, in as many reads as it takes. */
UNUSED static void screen(const char *what)
{
    static char text[32768];
    ssize_t total = 0, got = -1;
    settle();
    int flags = MUST(fcntl(master, F_GETFL));
    MUST(fcntl(master, F_SETFL, flags | O_NONBLOCK));
    for (;;) {
        got = read(master, text + total, sizeof text - total);
        if (got <= 0)
            break;
        total += got;
        settle();
    }
    int saved = errno;
    MUST(fcntl(master, F_SETFL, flags));
    if (!total && got < 0)
        say("%s: %s", what, error_name(saved));
    else
        show_text(what, text, total);
}

UNUSED static struct termios modes_now(void)
{
    struct termios t;
    MUST(tcgetattr(slave, &t));
    return t;
}

/* Changes one field of the modes: sets and clears bits. */
#define MODE(field, on, off)                   \
    do {                                       \
        struct termios t_ = modes_now();       \
        t_.field = (t_.field | (on)) & ~(off); \
        MUST(tcsetattr(slave, TCSANOW, &t_));  \
    } while (0)

UNUSED static void set_char(int index, int c)
{
    struct termios t = modes_now();
    t.c_cc[index] = c;
    MUST(tcsetattr(slave, TCSANOW, &t));
}

/* The modes that a new pty has, and empty buffers. */
UNUSED static void sane(void)
{
    static struct termios first;
    static bool known;
    if (!known)
        first = modes_now();
    known = true;
    MUST(tcsetattr(slave, TCSANOW, &first));
    MUST(tcflush(slave, TCIOFLUSH));
    MUST(tcflush(master, TCIOFLUSH));
}

UNUSED static void open_pair(void)
{
    master = MUST(posix_openpt(O_RDWR | O_NOCTTY));
    MUST(unlockpt(master));
    MUST(ptsname_r(master, slave_name, sizeof slave_name));
    slave = MUST(open(slave_name, O_RDWR | O_NOCTTY));
    sane();
}

/* A job's signals are what a shell starts with. */
UNUSED static void default_signals(void)
{
    for (int signo = 1; signo < 32; signo++)
        signal(signo, SIG_DFL);
}

#endif
