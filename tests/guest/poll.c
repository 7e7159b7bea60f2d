/* poll, ppoll, select, pselect: what is ready, time-outs, signals masks, errors. */
#include "check.h"

#include <sys/select.h>
#include <sys/syscall.h>

static void show_events(const char *what, int events)
{
    static const struct {
        int bit;
        const char *name;
    } names[] = {{POLLIN, "IN"},         {POLLPRI, "PRI"},       {POLLOUT, "OUT"},       {POLLERR, "ERR"},
                 {POLLHUP, "HUP"},       {POLLNVAL, "NVAL"},     {POLLRDNORM, "RDNORM"}, {POLLRDBAND, "RDBAND"},
                 {POLLWRNORM, "WRNORM"}, {POLLWRBAND, "WRBAND"}, {POLLRDHUP, "RDHUP"}};
    char text[128] = "";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (events & names[i].bit)
            sprintf(text + strlen(text), " %s", names[i].name);
    say("%s:%s", what, text);
}

static void ask(const char *what, int fd, int events)
{
    struct pollfd request = {.fd = fd, .events = events, .revents = 0x7f};
    int got = poll(&request, 1, 0);
    char line[64];
    snprintf(line, sizeof line, "%s (%d)", what, got);
    show_events(line, request.revents);
}

#define ALL (POLLIN | POLLOUT | POLLPRI | POLLRDNORM | POLLWRNORM | POLLRDHUP)

static volatile int calls;

static void count(int signo UNUSED)
{
    calls++;
}

int main(void)
{
    int ends[2];
    static char block[65536];
    CASE("pipe");
    MUST(pipe(ends));
    ask("empty, read end", ends[0], ALL);
    ask("empty, write end", ends[1], ALL);
    MUST(write(ends[1], "x", 1));
    ask("filled, read end", ends[0], ALL);
    ask("only asked for OUT", ends[0], POLLOUT);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    while (write(ends[1], block, sizeof block) > 0)
        ;
    ask("full, write end", ends[1], ALL);
    close(ends[1]);
    ask("no writer, data", ends[0], ALL);
    while (read(ends[0], block, sizeof block) > 0)
        ;
    ask("no writer", ends[0], ALL);
    ask("no writer, nothing asked", ends[0], 0);
    MUST(pipe(ends));
    close(ends[0]);
    ask("no reader", ends[1], ALL);
    CASE("others");
    ask("closed", 99, ALL);
    ask("negative", -1, ALL);
    scratch();
    int file = MUST(open("file", O_RDWR | O_CREAT, 0644));
    ask("regular file", file, ALL);
    int dir = MUST(open(".", O_RDONLY));
    ask("directory", dir, ALL);
    int null = MUST(open("/dev/null", O_RDWR));
    ask("/dev/null", null, ALL);
    int zero = MUST(open("/dev/zero", O_RDWR));
    ask("/dev/zero", zero, ALL);
    CASE("several");
    MUST(pipe(ends));
    struct pollfd several[4] = {{null, POLLIN, 0}, {ends[0], POLLIN, 0}, {99, POLLIN, 0}, {-5, POLLIN, 7}};
    SHOW(poll(several, 4, -1));
    say("%#x %#x %#x %#x", several[0].revents, several[1].revents, several[2].revents, several[3].revents);
    SHOW(poll(NULL, 0, 1));
    SHOW(poll(BAD, 1, 0));
    SHOW(poll(several, 1 << 30, 0));
    CASE("sleeping and waking");
    several[0] = (struct pollfd){ends[0], POLLIN, 0};
    SHOW(poll(several, 1, 10));
    pid_t pid = CHILD(usleep(5000); MUST(write(ends[1], "x", 1)));
    SHOW(poll(several, 1, -1));
    show_events("woken", several[0].revents);
    reap("child", pid);
    pid = CHILD(usleep(5000); char byte; MUST(read(ends[0], &byte, 1)));
    reap("child", pid);
    pid = CHILD(close(ends[1]); usleep(5000));
    close(ends[1]);
    SHOW(poll(several, 1, -1));
    show_events("hang-up", several[0].revents);
    reap("child", pid);
    CASE("ppoll");
    sigset_t set = set_of(SIGUSR1), none = set_of(0);
    struct timespec zero_time = {0, 0}, bad = {0, 1000000000}, negative = {-1, 0}, longer = {50, 0};
    handle_plain(SIGUSR1, count);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    raise(SIGUSR1);
    SHOW(ppoll(NULL, 0, &zero_time, &none));
    say("calls %d", calls);
    SHOW(ppoll(NULL, 0, &zero_time, &none));
    raise(SIGUSR1);
    SHOW(ppoll(NULL, 0, &longer, &none));
    several[0] = (struct pollfd){null, POLLIN, 0};
    raise(SIGUSR1);
    SHOW(ppoll(several, 1, &longer, &none));
    say("calls %d", calls);
    SHOW(ppoll(NULL, 0, &bad, NULL));
    SHOW(ppoll(NULL, 0, &negative, NULL));
    SHOW(syscall(SYS_ppoll, NULL, 0, NULL, &none, 4));
    CASE("select");
    MUST(pipe(ends));
    fd_set in, out, except;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_ZERO(&except);
    FD_SET(ends[0], &in);
    FD_SET(ends[1], &out);
    FD_SET(ends[0], &except);
    struct timeval soon = {0, 5000}, bad_time = {-1, 0}, over = {0, 1500000};
    SHOW(select(ends[1] + 1, &in, &out, &except, &soon));
    say("%d %d %d", FD_ISSET(ends[0], &in), FD_ISSET(ends[1], &out), FD_ISSET(ends[0], &except));
    MUST(write(ends[1], "x", 1));
    FD_SET(ends[0], &in);
    SHOW(select(ends[1] + 1, &in, &out, NULL, NULL));
    FD_ZERO(&out);
    MUST(read(ends[0], block, 1));
    soon = (struct timeval){0, 5000};
    SHOW(select(ends[0] + 1, &in, NULL, NULL, &soon));
    say("rest %ld.%06ld, bit %d", (long)soon.tv_sec, (long)soon.tv_usec, FD_ISSET(ends[0], &in));
    SHOW(select(0, NULL, NULL, NULL, &bad_time));
    SHOW(select(-1, NULL, NULL, NULL, &over));
    FD_ZERO(&in);
    FD_SET(99, &in);
    /* Linux looks no further than its table of descriptors has grown. */
    MUST(dup2(0, 200));
    MUST(close(200));
    SHOW(select(100, &in, NULL, NULL, &over));
    SHOW(select(50, &in, NULL, NULL, &(struct timeval){0, 0}));
    SHOW(syscall(SYS_select, 10, BAD, NULL, NULL, NULL));
    CASE("pselect");
    raise(SIGUSR1);
    SHOW(pselect(0, NULL, NULL, NULL, &longer, &none));
    SHOW(pselect(0, NULL, NULL, NULL, &zero_time, NULL));
    SHOW(pselect(0, NULL, NULL, NULL, &bad, NULL));
    struct rlimit limit = {64, 4096};
    MUST(setrlimit(RLIMIT_NOFILE, &limit));
    static struct pollfd many[65];
    SHOW(poll(many, 65, 0));
    for (int i = 0; i < 64; i++)
        many[i].fd = -1;
    SHOW(poll(many, 64, 0));
    return 0;
}
