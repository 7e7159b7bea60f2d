/* Asynchronous I/O: io_setup, io_submit, io_getevents, io_cancel, io_destroy. */
#include "check.h"
#include <linux/aio_abi.h>
#include <sys/eventfd.h>

static long setup(unsigned count, aio_context_t *ctx)
{
    return syscall(SYS_io_setup, count, ctx);
}

static long submit(aio_context_t ctx, long count, struct iocb **list)
{
    return syscall(SYS_io_submit, ctx, count, list);
}

static long getevents(aio_context_t ctx, long least, long most, struct io_event *events, struct timespec *timeout)
{
    return syscall(SYS_io_getevents, ctx, least, most, events, timeout);
}

static struct iocb make(int opcode, int fd, void *buf, size_t size, long offset, unsigned long data)
{
    struct iocb cb = {.aio_lio_opcode = opcode, .aio_fildes = fd, .aio_buf = (uintptr_t)buf, .aio_nbytes = size,
                      .aio_offset = offset, .aio_data = data};
    return cb;
}

static struct timespec none = {0, 0}, some = {0, 20000000};

static void show_events(const char *what, aio_context_t ctx, long least)
{
    struct io_event events[8];
    long got = getevents(ctx, least, 8, events, &some);
    if (got == -1) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    say("%s: %ld events", what, got);
    for (long i = 0; i < got; i++)
        say("  data %llu res %lld res2 %lld", events[i].data, events[i].res, events[i].res2);
}

static void one(const char *what, aio_context_t ctx, struct iocb cb)
{
    struct iocb *list[] = {&cb};
    long got = submit(ctx, 1, list);
    if (got == -1)
        say("%s: submit %s", what, error_name(errno));
    else
        show_events(what, ctx, got);
}

static void contexts(void)
{
    CASE("contexts");
    aio_context_t ctx = 0, junk = 1;
    SHOW(setup(0, &ctx));
    SHOW(setup(1, &junk));
    SHOW(setup(1, BAD));
    SHOW(setup(-1, &ctx));
    SHOW(setup(1u << 31, &ctx));
    SHOW(setup(0x400000, &ctx));
    SHOW(setup(0x400001, &ctx));
    SHOW(setup(10, &ctx));
    SHOW_IF(ctx != 0);
    SHOW(submit(ctx, 0, NULL));
    SHOW(submit(ctx, -1, NULL));
    SHOW(submit(ctx, 1, BAD));
    SHOW(submit(ctx + 8, 1, BAD));
    SHOW(getevents(ctx, 0, 1, NULL, &none));
    SHOW(getevents(ctx, 2, 1, NULL, &none));
    SHOW(getevents(ctx, -1, 1, NULL, &none));
    SHOW(getevents(ctx, 0, -1, NULL, &none));
    SHOW(getevents(ctx + 8, 0, 1, NULL, &none));
    SHOW(getevents(ctx, 1, 1, NULL, BAD));
    SHOW(getevents(ctx, 1, 1, NULL, &some));
    pid_t child = CHILD(SHOW(submit(ctx, 0, NULL)));
    reap("not inherited", child);
    SHOW(syscall(SYS_io_destroy, ctx));
    SHOW(syscall(SYS_io_destroy, ctx));
    SHOW(submit(ctx, 0, NULL));
}

static void files(void)
{
    CASE("files");
    aio_context_t ctx = 0;
    MUST(setup(8, &ctx));
    int fd = MUST(open("f", O_RDWR | O_CREAT, 0600)), reader = MUST(open("f", O_RDONLY));
    char buf[32] = "hello world";
    one("write", ctx, make(IOCB_CMD_PWRITE, fd, buf, 11, 0, 1));
    memset(buf, 0, sizeof buf);
    one("read", ctx, make(IOCB_CMD_PREAD, fd, buf, 32, 6, 2));
    say("%.5s", buf);
    one("read at the end", ctx, make(IOCB_CMD_PREAD, fd, buf, 32, 100, 3));
    struct iovec iov[2] = {{buf, 3}, {buf + 10, 4}};
    one("readv", ctx, make(IOCB_CMD_PREADV, fd, iov, 2, 0, 4));
    one("writev", ctx, make(IOCB_CMD_PWRITEV, fd, iov, 2, 20, 5));
    one("fsync", ctx, make(IOCB_CMD_FSYNC, fd, NULL, 0, 0, 6));
    one("fdsync", ctx, make(IOCB_CMD_FDSYNC, fd, NULL, 0, 0, 7));
    one("fsync with a size", ctx, make(IOCB_CMD_FSYNC, fd, NULL, 1, 0, 8));
    one("bad descriptor", ctx, make(IOCB_CMD_PREAD, -1, buf, 1, 0, 9));
    one("not writable", ctx, make(IOCB_CMD_PWRITE, reader, buf, 1, 0, 10));
    one("bad operation", ctx, make(99, fd, buf, 1, 0, 11));
    one("noop", ctx, make(IOCB_CMD_NOOP, fd, buf, 1, 0, 12));
    one("bad buffer", ctx, make(IOCB_CMD_PREAD, fd, BAD, 5, 0, 13));
    one("negative size", ctx, make(IOCB_CMD_PREAD, fd, buf, -1, 0, 14));
    one("negative offset", ctx, make(IOCB_CMD_PREAD, fd, buf, 1, -1, 15));
    struct iocb reserved = make(IOCB_CMD_PREAD, fd, buf, 1, 0, 16);
    reserved.aio_reserved2 = 1;
    one("reserved", ctx, reserved);
    int counter = MUST(eventfd(0, EFD_NONBLOCK));
    struct iocb notify = make(IOCB_CMD_PREAD, fd, buf, 1, 0, 17);
    notify.aio_flags = IOCB_FLAG_RESFD;
    notify.aio_resfd = counter;
    one("eventfd", ctx, notify);
    uint64_t count = 0;
    SHOW(read(counter, &count, 8));
    say("count %lu", count);
    notify.aio_resfd = fd;
    one("not an eventfd", ctx, notify);
    struct iocb cbs[3] = {make(IOCB_CMD_PREAD, fd, buf, 1, 0, 21), make(IOCB_CMD_PREAD, fd, buf, 2, 0, 22),
                          make(99, fd, buf, 1, 0, 23)};
    struct iocb *list[] = {cbs, cbs + 1, cbs + 2};
    SHOW(submit(ctx, 3, list));
    show_events("two of three", ctx, 2);
    SHOW(syscall(SYS_io_cancel, ctx, cbs, NULL));
    SHOW(syscall(SYS_io_cancel, ctx, BAD, NULL));
    SHOW(submit(ctx, 2, list));
    SHOW(getevents(ctx, 1, 1, BAD, &none));
    SHOW(syscall(SYS_io_destroy, ctx));
}

static void pipes(void)
{
    CASE("pipes");
    aio_context_t ctx = 0;
    MUST(setup(8, &ctx));
    int p[2];
    MUST(pipe(p));
    char buf[8] = "abc";
    one("write", ctx, make(IOCB_CMD_PWRITE, p[1], buf, 3, 0, 1));
    one("read", ctx, make(IOCB_CMD_PREAD, p[0], buf, 8, 0, 2));
    struct iocb cb = make(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0, 3), *list[] = {&cb};
    SHOW(submit(ctx, 1, list));
    show_events("nothing yet", ctx, 1);
    MUST(write(p[1], "x", 1));
    show_events("ready", ctx, 1);
    MUST(read(p[0], buf, 8));
    SHOW(submit(ctx, 1, list));
    SHOW(syscall(SYS_io_cancel, ctx, &cb, NULL));
    show_events("cancelled", ctx, 1);
    SHOW(syscall(SYS_io_cancel, ctx, &cb, NULL));
    /* The same iocb twice is two polls. */
    int q[2];
    MUST(pipe(q));
    SHOW(submit(ctx, 1, list));
    cb.aio_fildes = q[0], cb.aio_data = 4;
    SHOW(submit(ctx, 1, list));
    MUST(write(p[1], "x", 1));
    show_events("first", ctx, 1);
    MUST(read(p[0], buf, 8));
    MUST(write(q[1], "x", 1));
    show_events("second", ctx, 1);
    MUST(close(q[0]));
    show_events("no more", ctx, 1);
    SHOW(write(q[1], "x", 1));
    MUST(close(q[1]));
    MUST(close(p[1]));
    one("end", ctx, make(IOCB_CMD_PREAD, p[0], buf, 8, 0, 4));
    one("hung up", ctx, make(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0, 5));
}

struct ring {
    unsigned id, nr, head, tail, magic, compat, incompat, size;
    struct io_event events[];
};

/* What /proc/self/maps says of the ring behind its address: its rights and name. */
static void show_map(const struct ring *ring)
{
    char want[32], line[256], *got = NULL;
    snprintf(want, sizeof want, "%lx-", (unsigned long)ring);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        if (strncmp(line, want, strlen(want)) == 0) {
            got = line;
            break;
        }
    fclose(maps);
    char *name = got ? strchr(got, '/') : NULL;
    say("mapping: %.4s %s", got ? strchr(got, ' ') + 1 : "none", name ? strtok(name, "\n") : "");
}

static void ring_ends(const char *what, const struct ring *ring)
{
    say("%s: head %u tail %u", what, ring->head, ring->tail);
}

static void rings(void)
{
    CASE("the ring");
    aio_context_t ctx = 0, second = 0;
    MUST(setup(100, &ctx));
    struct ring *ring = (void *)ctx;
    say("id %u magic %x features %u %u size %u", ring->id, ring->magic, ring->compat, ring->incompat, ring->size);
    SHOW_IF(ring->nr > 100);
    show_map(ring);
    MUST(setup(1, &second));
    say("second: id %u", ((struct ring *)second)->id);
    MUST(syscall(SYS_io_destroy, second));
    ring_ends("empty", ring);
    int fd = MUST(open("r", O_RDWR | O_CREAT, 0600));
    char buf[8] = "abcdefg";
    struct iocb cbs[4];
    struct iocb *list[4];
    for (int i = 0; i < 4; i++)
        cbs[i] = make(IOCB_CMD_PWRITE, fd, buf, i + 1, 0, 10 + i), list[i] = cbs + i;
    SHOW(submit(ctx, 4, list));
    ring_ends("four", ring);
    for (int i = 0; i < 4; i++)
        say("data %llu res %lld, own iocb: %d", ring->events[i].data, ring->events[i].res,
            ring->events[i].obj == (uintptr_t)list[i]);
    struct io_event *events = (void *)MUST(mmap(NULL, 8192, PROT_READ | PROT_WRITE,
                                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    MUST(munmap((char *)events + 4096, 4096));
    SHOW(getevents(ctx, 1, 4, (void *)((char *)events + 4096 - 2 * sizeof *events), NULL));
    ring_ends("a bad buffer takes nothing", ring);
    ring->head = 1;
    show_events("behind the one that the program took", ctx, 1);
    ring_ends("all taken", ring);
    ring->head = ring->nr + 3;
    SHOW(getevents(ctx, 0, 4, events, &none));
    ring_ends("head beyond the end", ring);
    ring->head = ring->tail = 0;
    SHOW(submit(ctx, 1, list));
    ring_ends("the kernel has its own tail", ring);
    ring->head = 4;
    show_events("the fifth", ctx, 1);
    /* More than there is room for, and then the program takes all. */
    unsigned long fit = 0;
    while (submit(ctx, 1, list) == 1)
        fit++;
    say("%s", error_name(errno));
    SHOW_IF(fit >= 100 && fit < ring->nr);
    SHOW_IF((ring->tail + ring->nr - ring->head) % ring->nr == fit);
    ring->head = ring->tail;
    SHOW(submit(ctx, 4, list));
    show_events("four again", ctx, 4);
    unsigned id = ring->id;
    ring->id = 77;
    SHOW(submit(ctx, 1, list));
    ring->id = -1;
    SHOW(syscall(SYS_io_destroy, ctx));
    ring->id = id;
    SHOW(submit(ctx, 1, list));
    SHOW(syscall(SYS_io_destroy, ctx));
    show_map(ring);
    close(fd);
}

static void moved(void)
{
    CASE("a ring that is moved");
    aio_context_t ctx = 0;
    MUST(setup(8, &ctx));
    struct ring *ring = (void *)ctx;
    int fd = MUST(open("r", O_RDWR | O_CREAT, 0600));
    char *place = (char *)MUST(mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char buf[8] = "abc";
    struct iocb cb = make(IOCB_CMD_PWRITE, fd, buf, 3, 0, 1), *list[] = {&cb};
    SHOW(mremap(ring, 4096, 8192, MREMAP_MAYMOVE));
    SHOW(mremap(ring, 4096, 4096, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0));
    SHOW(mremap(ring, 0, 4096, MREMAP_MAYMOVE));
    pid_t child = CHILD({
        SHOW(mremap(ring, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, place + 8192));
        SHOW(submit(ctx, 1, list));
        ring->compat = 5;
    });
    reap("a child", child);
    say("what it wrote: %u", ring->compat);
    SHOW(submit(ctx, 1, list));
    SHOW_IF(mremap(ring, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
    SHOW(submit(ctx, 1, list));
    ctx = (uintptr_t)place, ring = (void *)place;
    SHOW(submit(ctx, 1, list));
    ring_ends("moved", ring);
    show_map(ring);
    SHOW_IF(mremap(ring, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, place + 4096) == place + 4096);
    ctx = (uintptr_t)(place + 4096), ring = (void *)ctx;
    show_events("moved again", ctx, 2);
    MUST(mprotect(ring, 4096, PROT_NONE));
    SHOW(submit(ctx, 1, list));
    SHOW(getevents(ctx, 0, 1, NULL, &none));
    SHOW(syscall(SYS_io_cancel, ctx, &cb, NULL));
    SHOW(syscall(SYS_io_destroy, ctx));
    MUST(mprotect(ring, 4096, PROT_READ));
    SHOW(submit(ctx, 1, list));
    show_events("read-only", ctx, 1);
    /* A poll that ends while the ring is out of reach. */
    int p[2];
    MUST(pipe(p));
    struct iocb wait = make(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0, 3), *waits[] = {&wait};
    SHOW(submit(ctx, 1, waits));
    MUST(mprotect(ring, 4096, PROT_NONE));
    MUST(write(p[1], "x", 1));
    MUST(mprotect(ring, 4096, PROT_READ | PROT_WRITE));
    show_events("out of reach", ctx, 1);
    SHOW(syscall(SYS_io_destroy, ctx));
    show_map(ring);
    ctx = 0;
    MUST(setup(8, &ctx));
    MUST(munmap((void *)ctx, 4096));
    SHOW(submit(ctx, 0, list));
    SHOW(syscall(SYS_io_destroy, ctx));
    close(p[0]), close(p[1]), close(fd);
}

static volatile int interrupted;

static void interrupt(int signo UNUSED)
{
    interrupted++;
}

/* io_pgetevents: the mask counts while it waits. */
static void masked(void)
{
    CASE("io_pgetevents");
    aio_context_t ctx = 0;
    struct io_event events[2];
    struct timespec zero = {0, 0}, soon = {0, 1000000};
    sigset_t none, all = set_of(SIGUSR1);
    sigemptyset(&none);
    struct {
        const sigset_t *mask;
        size_t size;
    } wanted = {&none, 8}, wrong = {&none, 16}, bad = {BAD, 8}, nobody = {NULL, 99};
    struct iocb one = {.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_buf = (uint64_t)"written", .aio_nbytes = 7, .aio_data = 5};
    struct iocb *list[] = {&one};
    one.aio_fildes = (uint32_t)MUST(open("masked", O_RDWR | O_CREAT, 0600));
    MUST(setup(4, &ctx));
    for (int i = 0; i < 2; i++) {
        MUST(submit(ctx, 1, list));
        SHOW(syscall(SYS_io_pgetevents, ctx, 1, 2, events, NULL, i ? &wanted : NULL));
        say("data %lu, %ld", (unsigned long)events[0].data, (long)events[0].res);
    }
    SHOW(syscall(SYS_io_pgetevents, ctx, 1, 2, events, &soon, &nobody));
    SHOW(syscall(SYS_io_pgetevents, ctx, 1, 2, events, &zero, &wrong));
    SHOW(syscall(SYS_io_pgetevents, ctx, 1, 2, events, &zero, &bad));
    SHOW(syscall(SYS_io_pgetevents, ctx, 1, 2, events, &zero, BAD));
    handle_plain(SIGUSR1, interrupt);
    MUST(sigprocmask(SIG_BLOCK, &all, NULL));
    raise(SIGUSR1);
    SHOW(syscall(SYS_io_pgetevents, ctx, 1, 2, events, &soon, NULL));
    say("interrupted %d", interrupted);
    SHOW(syscall(SYS_io_pgetevents, ctx, 1, 2, events, NULL, &wanted));
    say("interrupted %d", interrupted);
    MUST(sigprocmask(SIG_UNBLOCK, &all, NULL));
    MUST(syscall(SYS_io_destroy, ctx));
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    scratch();
    contexts();
    files();
    pipes();
    rings();
    moved();
    masked();
    return 0;
}
