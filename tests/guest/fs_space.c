/*
 * Space in a tmpfs that gets full: what was allocated can be written, nothing else can; holes and
 * data; and what RWF_NOWAIT is to files in memory. USER: root
 */
#include "check.h"

#include <sys/mount.h>
#include <sys/uio.h>

#define MIB (1 << 20)

static char *buffer;

static void holes(void)
{
    CASE("holes");
    int fd = MUST(open("holes", O_RDWR | O_CREAT, 0600));
    for (int at = 1; at <= 65536; at *= 4) {
        struct stat st;
        MUST(ftruncate(fd, 0));
        MUST(pwrite(fd, "a", 1, at));
        MUST(fstat(fd, &st));
        say("%d: data %ld, hole %ld, blocks %ld", at, (long)lseek(fd, 0, SEEK_DATA),
            (long)lseek(fd, at, SEEK_HOLE), (long)st.st_blocks);
    }
    MUST(ftruncate(fd, 0));
    MUST(ftruncate(fd, 100000));
    SHOW(lseek(fd, 0, SEEK_DATA));
    SHOW(lseek(fd, 0, SEEK_HOLE));
    MUST(pwrite(fd, "a", 1, 50000));
    SHOW(lseek(fd, 0, SEEK_DATA));
    SHOW(lseek(fd, 50000, SEEK_HOLE));
    SHOW(lseek(fd, 60000, SEEK_DATA));
    SHOW(lseek(fd, 100000, SEEK_HOLE));
    SHOW(lseek(fd, -1, SEEK_DATA));
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 49152, 4096));
    SHOW(lseek(fd, 0, SEEK_DATA));
    close(fd);
    MUST(unlink("holes"));
}

static void nowait(void)
{
    CASE("RWF_NOWAIT");
    int fd = MUST(open("nowait", O_RDWR | O_CREAT, 0600));
    struct iovec vector = {buffer, 10};
    SHOW(preadv2(fd, &vector, 1, 0, RWF_NOWAIT));
    SHOW(pwritev2(fd, &vector, 1, 0, RWF_NOWAIT));
    SHOW(pwritev2(fd, &vector, 1, 0, RWF_APPEND));
    int ends[2];
    MUST(pipe(ends));
    SHOW(pwritev2(ends[0], &vector, 1, 0, 0));
    SHOW(pwritev2(ends[1], &vector, 1, 0, 0));
    SHOW(pwritev(ends[0], &vector, 1, 0));
    SHOW(pwritev2(ends[0], &vector, 1, -1, 0));
    SHOW(pwritev2(ends[1], &vector, 1, -1, 0));
    close(ends[0]), close(ends[1]), close(fd);
    MUST(unlink("nowait"));
}

static void full(void)
{
    CASE("full");
    int kept = MUST(open("kept", O_RDWR | O_CREAT, 0600));
    SHOW(fallocate(kept, 0, 0, MIB));
    int fill = MUST(open("fill", O_RDWR | O_CREAT, 0600));
    int whole = 0;
    while (write(fill, buffer, MIB) == MIB)
        whole++;
    SHOW_IF(whole == 6);
    SHOW(write(fill, buffer, 4096));
    SHOW(write(fill, buffer, 1));
    SHOW(write(kept, buffer, MIB));
    SHOW(write(kept, buffer, 1));
    SHOW(fallocate(kept, 0, 0, MIB));
    SHOW(fallocate(kept, 0, MIB, 4096));
    SHOW(fallocate(kept, 0, MIB - 4096, 8192));
    SHOW(fallocate(kept, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192));
    SHOW(lseek(kept, 0, SEEK_DATA));
    SHOW(pwrite(kept, buffer, 16384, MIB - 4096));
    SHOW(pwrite(kept, buffer, 1, 4000000));
    SHOW(lseek(kept, 0, SEEK_END));
    int empty = MUST(open("empty", O_RDWR | O_CREAT, 0600));
    SHOW(write(empty, "x", 1));
    SHOW(fallocate(empty, 0, 0, 1));
    SHOW(ftruncate(empty, MIB * 100));
    SHOW(pread(empty, buffer, 10, MIB));
    SHOW(ftruncate(fill, 0));
    SHOW(fallocate(empty, 0, 0, MIB));
    SHOW(write(empty, "x", 1));
    close(kept), close(fill), close(empty);
}

static void show_large(const char *what, int fd)
{
    struct stat st;
    char mark[3] = "";
    MUST(fstat(fd, &st));
    MUST(pread(fd, mark, 1, 90 * MIB));
    MUST(pread(fd, mark + 1, 1, 200 * MIB));
    say("%s: %ld bytes, %ld blocks, marks %d %d", what, (long)st.st_size, (long)st.st_blocks, mark[0], mark[1]);
}

/* What takes the host some time to free goes in pieces, of which nobody sees anything in the end. */
static void large(void)
{
    CASE("large");
    int fd = MUST(memfd_create("large", MFD_ALLOW_SEALING));
    SHOW(fallocate(fd, 0, 0, 256 * MIB));
    MUST(pwrite(fd, "a", 1, 90 * MIB));
    MUST(pwrite(fd, "b", 1, 200 * MIB));
    show_large("allocated", fd);
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 91 * MIB + 1, 100 * MIB));
    show_large("a hole", fd);
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MIB, 1024l * MIB));
    show_large("a hole up to the end", fd);
    MUST(fallocate(fd, 0, 0, 256 * MIB));
    MUST(pwrite(fd, "a", 1, 90 * MIB));
    MUST(pwrite(fd, "b", 1, 200 * MIB));
    SHOW(ftruncate(fd, 90 * MIB + 1));
    show_large("cut", fd);
    MUST(fallocate(fd, 0, 0, 256 * MIB));
    MUST(pwrite(fd, "b", 1, 200 * MIB));
    MUST(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    SHOW(ftruncate(fd, MIB));
    show_large("sealed", fd);
    MUST(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 256 * MIB));
    show_large("sealed more", fd);
    close(fd);
}

int main(void)
{
    scratch();
    large();
    MUST(mkdir("small", 0700));
    MUST(mount("small", "small", "tmpfs", 0, "size=7m"));
    MUST(chdir("small"));
    NEED((buffer = calloc(1, MIB)) != NULL);
    holes();
    nowait();
    full();
    MUST(chdir(".."));
    MUST(umount("small"));
    return 0;
}
