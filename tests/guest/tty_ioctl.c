/* Every request that a terminal knows, on a slave, a master, and on what is no terminal. */
#include "tty.h"

#include <linux/serial.h>

/* As in asm/termbits.h, which can't be had together with termios.h. */
struct termios2 {
    tcflag_t c_iflag, c_oflag, c_cflag, c_lflag;
    cc_t c_line, c_cc[19];
    speed_t c_ispeed, c_ospeed;
};
enum { OTHER = 010000, SPEED = 010017, IN_SPEED = 16 };

struct request {
    const char *name;
    unsigned long number;
    long arg; /* used as it is, unless there is a buffer */
    bool buffer;
};

#define PLAIN(name, arg) {#name, name, arg, false}
#define BUFFER(name) {#name, name, 0, true}

static const struct request requests[] = {
    BUFFER(TCGETS),           BUFFER(TCGETS2),         BUFFER(TCGETA),
    BUFFER(TIOCGWINSZ),       BUFFER(TIOCOUTQ),        BUFFER(FIONREAD),
    BUFFER(TIOCGETD),         BUFFER(TIOCGEXCL),       BUFFER(TIOCGSOFTCAR),
    BUFFER(TIOCMGET),         BUFFER(TIOCMBIS),        BUFFER(TIOCMBIC),
    BUFFER(TIOCMSET),         BUFFER(TIOCGSERIAL),     BUFFER(TIOCSSERIAL),
    BUFFER(TIOCGICOUNT),      BUFFER(TIOCLINUX),       BUFFER(TIOCGLCKTRMIOS),
    BUFFER(TIOCGDEV),         BUFFER(TIOCGRS485),      BUFFER(TIOCGISO7816),
    BUFFER(TIOCPKT),          BUFFER(TIOCGPKT),        BUFFER(TIOCGPTN),
    BUFFER(TIOCGPTLCK),       BUFFER(TIOCGPGRP),       BUFFER(TIOCGSID),
    BUFFER(TIOCSPGRP),        PLAIN(TCXONC, TCOON),    PLAIN(TCXONC, 17),
    PLAIN(TCFLSH, TCIOFLUSH), PLAIN(TCFLSH, 3),        PLAIN(TCSBRK, 0),
    PLAIN(TCSBRK, 1),         PLAIN(TCSBRKP, 0),       PLAIN(TCSBRKP, 3),
    PLAIN(TIOCSBRK, 0),       PLAIN(TIOCCBRK, 0),      PLAIN(TIOCEXCL, 0),
    PLAIN(TIOCNXCL, 0),       PLAIN(TIOCNOTTY, 0),     PLAIN(TIOCSCTTY, 0),
    PLAIN(TIOCMIWAIT, 0),     PLAIN(TIOCSERCONFIG, 0), PLAIN(TIOCSERGETLSR, 0),
    PLAIN(FIOASYNC, 1),       PLAIN(0x5499, 0),        PLAIN(0, 0),
};

static void all(const char *what, int fd)
{
    CASE(what);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        const struct request *request = &requests[i];
        char buffer[256] = "";
        long result =
            syscall(SYS_ioctl, fd, request->number, request->buffer ? (long)buffer : request->arg);
        if (result < 0)
            say("%s %ld: %s", request->name, request->arg, error_name(errno));
        else
            say("%s %ld: ok", request->name, request->arg);
    }
    CASE("with a bad address");
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        if (requests[i].buffer) {
            long result = syscall(SYS_ioctl, fd, requests[i].number, BAD);
            say("%s: %s", requests[i].name, result < 0 ? error_name(errno) : "ok");
        }
}

static void show2(const struct termios2 *t)
{
    say("%#o %#o %#o %#o line %d speeds %u %u", t->c_iflag, t->c_oflag, t->c_cflag, t->c_lflag,
        t->c_line, t->c_ispeed, t->c_ospeed);
}

static void get_and_show(void)
{
    struct termios2 t;
    MUST(ioctl(slave, TCGETS2, &t));
    show2(&t);
}

static void modes(void)
{
    struct termios2 t, first;
    CASE("termios2");
    MUST(ioctl(slave, TCGETS2, &first));
    show2(&first);
    for (int i = 0; i < 19; i++)
        say("c_cc[%d] = %d", i, first.c_cc[i]);
    t = first;
    t.c_cflag = (t.c_cflag & ~SPEED) | OTHER;
    t.c_ispeed = t.c_ospeed = 12345;
    SHOW(ioctl(slave, TCSETS2, &t));
    get_and_show();
    t.c_cflag = (t.c_cflag & ~SPEED) | B9600;
    SHOW(ioctl(slave, TCSETSW2, &t));
    get_and_show();
    t.c_cflag = (t.c_cflag & ~SPEED) | B115200 | (B2400 << IN_SPEED);
    SHOW(ioctl(slave, TCSETSF2, &t));
    get_and_show();
    t.c_cflag = (t.c_cflag & ~SPEED) | OTHER | (OTHER << IN_SPEED);
    t.c_ispeed = 111;
    t.c_ospeed = 222;
    SHOW(ioctl(slave, TCSETS2, &t));
    get_and_show();
    CASE("all bits");
    memset(&t, 0xff, sizeof t);
    t.c_cflag = (0xffffffff & ~(SPEED | (SPEED << IN_SPEED))) | B9600;
    t.c_line = 0;
    SHOW(ioctl(slave, TCSETS2, &t));
    get_and_show();
    memset(&t, 0, sizeof t);
    SHOW(ioctl(slave, TCSETS2, &t));
    get_and_show();
    CASE("termio of System V");
    struct termio {
        unsigned short iflag, oflag, cflag, lflag;
        unsigned char line, cc[8];
    } v;
    MUST(ioctl(slave, TCSETS2, &first));
    SHOW(ioctl(slave, TCGETA, &v));
    say("%#o %#o %#o %#o %d %d %d", v.iflag, v.oflag, v.cflag, v.lflag, v.line, v.cc[0], v.cc[7]);
    v.lflag &= ~ECHO;
    v.cc[0] = 'x';
    SHOW(ioctl(slave, TCSETA, &v));
    get_and_show();
    MUST(ioctl(slave, TCGETS2, &t));
    say("%d %d %d", t.c_cc[0], t.c_cc[7], t.c_cc[16]);
    SHOW(ioctl(slave, TCSETAW, &v));
    SHOW(ioctl(slave, TCSETAF, &v));
    CASE("the master sets the slave's");
    SHOW(ioctl(master, TCSETS2, &first));
    get_and_show();
    SHOW(ioctl(master, TCGETS2, &t));
    show2(&t);
    if (geteuid() == 0) {
        CASE("locked modes");
        struct termios2 lock = {.c_lflag = ECHO, .c_cc[0] = 1};
        SHOW(ioctl(slave, TIOCSLCKTRMIOS, &lock));
        t.c_lflag &= ~(ECHO | ISIG);
        t.c_cc[0] = 'y';
        SHOW(ioctl(slave, TCSETS2, &t));
        get_and_show();
        memset(&lock, 0, sizeof lock);
        SHOW(ioctl(slave, TIOCSLCKTRMIOS, &lock));
        CASE("input from nowhere");
        SHOW(ioctl(slave, TCSETS2, &first));
        char text[8] = "";
        SHOW(ioctl(slave, TIOCSTI, "x"));
        SHOW(ioctl(slave, TIOCSTI, "\n"));
        SHOW(read(slave, text, sizeof text));
        settle();
        SHOW(ioctl(master, TIOCSTI, "z"));
        SHOW(ioctl(slave, TIOCSTI, BAD));
        screen("master");
    } else {
        SHOW(ioctl(slave, TIOCSLCKTRMIOS, &first));
        SHOW(ioctl(slave, TIOCCONS, 0));
    }
    CASE("soft carrier");
    int on = 1;
    SHOW(ioctl(slave, TIOCSSOFTCAR, &on));
    get_and_show();
    on = 0;
    SHOW(ioctl(slave, TIOCGSOFTCAR, &on));
    say("%d", on);
    SHOW(ioctl(slave, TIOCSSOFTCAR, BAD));
    CASE("line disciplines");
    int number = -1;
    SHOW(ioctl(slave, TIOCGETD, &number));
    say("%d", number);
    number = 0;
    SHOW(ioctl(slave, TIOCSETD, &number));
    number = 99;
    SHOW(ioctl(slave, TIOCSETD, &number));
    number = -1;
    SHOW(ioctl(slave, TIOCSETD, &number));
    CASE("window sizes");
    struct winsize size = {1, 2, 3, 4};
    SHOW(ioctl(slave, TIOCSWINSZ, &size));
    memset(&size, 0, sizeof size);
    SHOW(ioctl(master, TIOCGWINSZ, &size));
    say("%d %d %d %d", size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel);
}

static void others(void)
{
    int ends[2];
    MUST(pipe(ends));
    int file = MUST(open("/proc/self/exe", O_RDONLY)), null = MUST(open("/dev/null", O_RDWR));
    static const struct request few[] = {
        BUFFER(TCGETS),      BUFFER(TIOCGWINSZ),  PLAIN(TCFLSH, 0), BUFFER(TIOCGPGRP),
        PLAIN(TIOCSCTTY, 0), PLAIN(TIOCNOTTY, 0), PLAIN(TCSBRK, 1), BUFFER(TIOCGPTN)};
    struct {
        const char *name;
        int fd;
    } files[] = {{"a pipe", ends[0]}, {"a file", file}, {"/dev/null", null}, {"nothing", 99}};
    for (size_t i = 0; i < 4; i++) {
        CASE(files[i].name);
        for (size_t j = 0; j < sizeof few / sizeof *few; j++) {
            char buffer[256] = "";
            long result =
                ioctl(files[i].fd, few[j].number, few[j].buffer ? (long)buffer : few[j].arg);
            say("%s: %s", few[j].name, result < 0 ? error_name(errno) : "ok");
        }
    }
}

int main(void)
{
    reap("in a session of its own", CHILD({
             MUST(setsid());
             signal(SIGHUP, SIG_IGN);
             master = MUST(posix_openpt(O_RDWR | O_NOCTTY));
             MUST(unlockpt(master));
             MUST(ptsname_r(master, slave_name, sizeof slave_name));
             slave = MUST(open(slave_name, O_RDWR | O_NOCTTY));
             modes();
             all("slave", slave);
             all("slave, our own now", slave);
             all("master", master);
             others();
         }));
    return 0;
}
