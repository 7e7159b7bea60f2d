/* RLIMIT_FSIZE met halfway: which calls send SIGXFSZ, and what becomes of bytes that came from a pipe. */
#include "check.h"

#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#define LIMIT 4096

static volatile sig_atomic_t signals;
static char bytes[2 * LIMIT];
static int out, in;

static void count(int signo UNUSED, siginfo_t *info UNUSED, void *context UNUSED)
{
    signals++;
}

static void tell(const char *what, long result)
{
    say("%s: %ld %s, %d signals", what, result, result < 0 ? strerrorname_np(errno) : "", (int)signals);
    signals = 0;
}

#define TELL(call) tell(#call, (call))

static void writes(void)
{
    struct iovec two[2] = {{bytes, 10}, {bytes, 10}};
    CASE("write");
    TELL(write(out, bytes, sizeof bytes));
    TELL(write(out, bytes, 1));
    TELL(pwrite(out, bytes, 10, LIMIT - 6));
    TELL(pwrite(out, bytes, 0, LIMIT + 1));
    TELL(pwritev(out, two, 2, LIMIT - 6));
    TELL(pwritev(out, two, 2, LIMIT));
}

static void sizes(void)
{
    CASE("sizes");
    TELL(ftruncate(out, 2 * LIMIT));
    TELL(truncate("out", 2 * LIMIT));
    TELL(fallocate(out, 0, 0, 2 * LIMIT));
    TELL(fallocate(out, FALLOC_FL_KEEP_SIZE, 0, 2 * LIMIT));
    TELL(posix_fallocate(out, 0, 2 * LIMIT));
    TELL(fallocate(out, 0, LIMIT, 1));
}

static void copies(void)
{
    off_t from = 0;
    loff_t a = 0, b = 0;
    CASE("sendfile and copy_file_range");
    MUST(lseek(out, 0, SEEK_SET));
    TELL(sendfile(out, in, &from, sizeof bytes));
    SHOW(from);
    TELL(sendfile(out, in, &from, 10));
    SHOW(from);
    TELL(copy_file_range(in, &a, out, &b, sizeof bytes, 0));
    b = LIMIT;
    TELL(copy_file_range(in, &a, out, &b, 10, 0));
    b = LIMIT + 1;
    TELL(copy_file_range(in, &a, out, &b, 10, 0));
}

static void splices(void)
{
    int ends[2], left;
    loff_t to = LIMIT - 6;
    CASE("splice");
    MUST(pipe(ends));
    MUST(write(ends[1], bytes, 6000));
    TELL(splice(ends[0], NULL, out, &to, 6000, 0));
    SHOW(to);
    MUST(ioctl(ends[0], FIONREAD, &left));
    SHOW(left);
    TELL(splice(ends[0], NULL, out, &to, 6000, 0));
    MUST(write(ends[1], bytes, 5));
    memset(bytes, 0, sizeof bytes);
    SHOW(read(ends[0], bytes, sizeof bytes));
    SHOW(bytes[0]);
    SHOW(bytes[6000 - 6 - 1]);
    SHOW(bytes[6000 - 6 + 4]);
}

int main(void)
{
    scratch();
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i % 101);
    handle_flags(SIGXFSZ, count, 0);
    out = MUST(open("out", O_RDWR | O_CREAT, 0600));
    in = MUST(open("in", O_RDWR | O_CREAT, 0600));
    MUST(write(in, bytes, sizeof bytes));
    struct rlimit limit = {LIMIT, RLIM_INFINITY};
    MUST(setrlimit(RLIMIT_FSIZE, &limit));
    writes();
    sizes();
    copies();
    splices();
    return 0;
}
