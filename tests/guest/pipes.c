/* Pipes: end of file, EPIPE, O_NONBLOCK, atomic writes, capacity, FIFOs, splice and tee. */
#include "check.h"

#include <sys/ioctl.h>
#include <sys/uio.h>

static volatile int broken;

static void on_pipe(int signo UNUSED)
{
    broken++;
}

static char block[1 << 17];

static long fill(int fd)
{
    long total = 0, got;
    while ((got = write(fd, block, 4096)) > 0)
        total += got;
    return total;
}

int main(void)
{
    int ends[2], count = -1;
    struct stat st;
    char text[32] = "";
    memset(block, 'b', sizeof block);
    CASE("plain");
    SHOW(pipe(ends));
    say("fds %d %d", ends[0], ends[1]);
    SHOW(write(ends[1], "hello", 5));
    SHOW(ioctl(ends[0], FIONREAD, &count));
    say("count %d", count);
    SHOW(ioctl(ends[1], FIONREAD, &count));
    SHOW(read(ends[0], text, 3));
    SHOW(read(ends[0], text + 3, 10));
    say("%s", text);
    SHOW(write(ends[1], "", 0));
    SHOW(read(ends[0], text, 0));
    SHOW(read(ends[1], text, 1));
    SHOW(write(ends[0], text, 1));
    SHOW(lseek(ends[0], 0, SEEK_SET));
    SHOW(pread(ends[0], text, 1, 0));
    SHOW(pwrite(ends[1], text, 1, 0));
    SHOW(ftruncate(ends[1], 0));
    SHOW(fsync(ends[1]));
    SHOW(fstat(ends[0], &st));
    say("mode %o nlink %d size %ld", st.st_mode, (int)st.st_nlink, (long)st.st_size);
    SHOW_IF(st.st_uid == geteuid());
    SHOW_IF(fcntl(ends[0], F_GETFL) == O_RDONLY);
    SHOW_IF(fcntl(ends[1], F_GETFL) == O_WRONLY);
    CASE("end of file");
    SHOW(write(ends[1], "rest", 4));
    close(ends[1]);
    SHOW(read(ends[0], text, 10));
    SHOW(read(ends[0], text, 10));
    close(ends[0]);
    CASE("EPIPE");
    MUST(pipe(ends));
    close(ends[0]);
    handle_plain(SIGPIPE, on_pipe);
    SHOW(write(ends[1], "x", 1));
    say("signals %d", broken);
    signal(SIGPIPE, SIG_IGN);
    SHOW(write(ends[1], "x", 1));
    SHOW(write(ends[1], "", 0));
    signal(SIGPIPE, SIG_DFL);
    reap("default", CHILD(_exit(write(ends[1], "x", 1) == 1)));
    close(ends[1]);
    CASE("offsets");
    struct iovec vector = {text, 1};
    MUST(pipe(ends));
    for (int i = 0; i < 2; i++) {
        SHOW(pread(ends[i], text, 1, 0));
        SHOW(pwrite(ends[i], text, 1, 0));
        SHOW(preadv(ends[i], &vector, 1, 0));
        SHOW(pwritev(ends[i], &vector, 1, 0));
        SHOW(preadv2(ends[i], &vector, 1, 0, 0));
        SHOW(pwritev2(ends[i], &vector, 1, 0, 0));
        close(ends[i]);
    }
    SHOW(preadv2(-1, &vector, 1, 0, 0));
    CASE("flags");
    SHOW(pipe2(ends, 0xdead));
    SHOW(pipe2(ends, O_EXCL | O_APPEND));
    CASE("O_NONBLOCK");
    SHOW(pipe2(ends, O_NONBLOCK | O_CLOEXEC));
    say("%d %#x %#x", fcntl(ends[0], F_GETFD), fcntl(ends[0], F_GETFL), fcntl(ends[1], F_GETFL));
    SHOW(read(ends[0], text, 1));
    SHOW(fill(ends[1]));
    SHOW(write(ends[1], "x", 1));
    SHOW(read(ends[0], block, 4096));
    SHOW(write(ends[1], block, 4096));
    SHOW(read(ends[0], block, 100));
    SHOW(write(ends[1], block, 4096));
    SHOW(read(ends[0], block, sizeof block));
    SHOW(write(ends[1], block, sizeof block));
    close(ends[0]);
    close(ends[1]);
    CASE("capacity");
    MUST(pipe2(ends, O_NONBLOCK));
    SHOW(fcntl(ends[0], F_GETPIPE_SZ));
    SHOW(fcntl(ends[0], F_SETPIPE_SZ, 8192));
    SHOW(fill(ends[1]));
    SHOW(fcntl(ends[0], F_SETPIPE_SZ, 4096));
    SHOW(fcntl(ends[1], F_SETPIPE_SZ, 100000));
    SHOW(fill(ends[1]));
    SHOW(fcntl(0, F_GETPIPE_SZ) == -1);
    SHOW(fcntl(ends[1], F_SETPIPE_SZ, -1));
    close(ends[0]);
    close(ends[1]);
    CASE("errors of pipe2");
    SHOW(pipe2(ends, 0x1));
    SHOW(pipe2(BAD, 0));
    CASE("a large write is taken in parts");
    MUST(pipe(ends));
    pid_t pid = CHILD(close(ends[0]); SHOW(write(ends[1], block, sizeof block)));
    close(ends[1]);
    long total = 0, got, reads = 0;
    while ((got = read(ends[0], block, 1000)) > 0) {
        total += got;
        reads++;
    }
    say("total %ld in %s reads", total, reads >= 131 ? "many" : "few");
    reap("writer", pid);
    CASE("writes of up to PIPE_BUF stay whole");
    MUST(pipe(ends));
    for (int i = 0; i < 4; i++)
        CHILD(char mine[512]; memset(mine, 'A' + i, sizeof mine); for (int j = 0; j < 50; j++)
              MUST(write(ends[1], mine, sizeof mine)));
    close(ends[1]);
    int torn = 0, records = 0;
    char record[512];
    size_t have = 0;
    while ((got = read(ends[0], record + have, sizeof record - have)) > 0) {
        have += got;
        if (have < sizeof record)
            continue;
        for (size_t i = 1; i < sizeof record; i++)
            torn += record[i] != record[0];
        records++;
        have = 0;
    }
    while (wait(NULL) > 0)
        ;
    say("records %d torn %d", records, torn);
    CASE("vectors");
    MUST(pipe(ends));
    struct iovec out[3] = {{"one ", 4}, {"", 0}, {"two", 3}}, in[2] = {{text, 2}, {text + 10, 20}};
    SHOW(writev(ends[1], out, 3));
    SHOW(readv(ends[0], in, 2));
    say("%.2s %.5s", text, text + 10);
    SHOW(writev(ends[1], out, 0));
    SHOW(writev(ends[1], out, 1025));
    SHOW(writev(ends[1], BAD, 1));
    out[2].iov_base = BAD;
    SHOW(writev(ends[1], out, 3));
    struct iovec pages[2] = {{block, 5000}, {BAD, 10}};
    SHOW(writev(ends[1], pages, 2));
    SHOW(read(ends[0], block, sizeof block));
    out[0].iov_len = -1;
    SHOW(writev(ends[1], out, 1));
    CASE("splice and tee");
    int other[2];
    MUST(pipe2(other, O_NONBLOCK));
    MUST(write(ends[1], "spliced text", 12));
    SHOW(tee(ends[0], other[1], 100, 0));
    SHOW(read(other[0], text, 32));
    SHOW(splice(ends[0], NULL, other[1], NULL, 7, 0));
    SHOW(read(other[0], text, 32));
    SHOW(read(ends[0], text, 32));
    SHOW(splice(ends[0], NULL, ends[1], NULL, 1, 0));
    SHOW(tee(0, other[1], 1, 0));
    SHOW(tee(ends[0], ends[1], 1, 0));
    SHOW(tee(ends[0], other[1], 1, SPLICE_F_NONBLOCK));
    fill(other[1]);
    MUST(write(ends[1], "more", 4));
    SHOW(tee(ends[0], other[1], 4, SPLICE_F_NONBLOCK));
    MUST(read(ends[0], text, 4));
    SHOW_IF(read(other[0], block, sizeof block) > 4096);
    SHOW(splice(ends[0], NULL, other[1], NULL, 1, SPLICE_F_NONBLOCK));
    CASE("FIFO");
    scratch();
    SHOW(mkfifo("fifo", 0640));
    SHOW(mkfifo("fifo", 0640));
    MUST(stat("fifo", &st));
    say("mode %o", st.st_mode);
    SHOW(open("fifo", O_WRONLY | O_NONBLOCK));
    int reader = MUST(open("fifo", O_RDONLY | O_NONBLOCK));
    SHOW(read(reader, text, 1));
    int writer = MUST(open("fifo", O_WRONLY));
    SHOW(read(reader, text, 1));
    SHOW(write(writer, "through a fifo", 14));
    SHOW(read(reader, text, 32));
    close(writer);
    SHOW(read(reader, text, 1));
    close(reader);
    pid = CHILD(int fd = MUST(open("fifo", O_WRONLY)); MUST(write(fd, "meet", 4)));
    reader = MUST(open("fifo", O_RDONLY));
    SHOW(read(reader, text, 32));
    reap("writer", pid);
    close(reader);
    int both = MUST(open("fifo", O_RDWR));
    SHOW(write(both, "self", 4));
    SHOW(read(both, text, 32));
    SHOW(lseek(both, 0, SEEK_SET));
    return 0;
}
