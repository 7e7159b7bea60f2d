/* Many reads of many bytes, from files and pipes: whichever way they come, they are the right ones, and a bad address
 * takes none. */
#include "check.h"

#define SIZE 65536
static unsigned char data[SIZE], buffer[SIZE + 4096];

static void fill(void)
{
    unsigned value = 1;
    for (int i = 0; i < SIZE; i++) {
        value = value * 1103515245 + 12345;
        data[i] = (unsigned char)(value >> 16);
    }
}

static int wrong(const unsigned char *got, size_t size, size_t offset)
{
    return memcmp(got, data + offset, size) != 0;
}

static void from_file(int fd)
{
    int bad = 0;
    CASE("a file");
    MUST(pwrite(fd, data, SIZE, 0));
    for (int i = 0; i < 600; i++) {
        size_t size = (size_t)(8192 + i * 4099 % (SIZE - 8192)), offset = (size_t)(i * 977) % (SIZE - size + 1);
        memset(buffer, 0, size);
        bad += pread(fd, buffer, size, (off_t)offset) != (ssize_t)size || wrong(buffer, size, offset);
    }
    SHOW(bad);
}

static void from_pipe(void)
{
    int two[2], bad = 0;
    CASE("a pipe");
    MUST(pipe(two));
    for (int i = 0; i < 300; i++) {
        size_t size = (size_t)(8192 + i * 4099 % (SIZE - 8192));
        bad += write(two[1], data, size) != (ssize_t)size;
        bad += read(two[0], buffer, SIZE) != (ssize_t)size || wrong(buffer, size, 0);
    }
    SHOW(bad);
    close(two[0]);
    close(two[1]);
}

static void to_nowhere(int fd)
{
    unsigned char *map = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int two[2], bad = 0;
    CASE("bad addresses");
    MUST(mprotect(map + 8 * 4096, 8 * 4096, PROT_READ));
    MUST(pipe(two));
    for (int i = 0; i < 300; i++) {
        bad += pread(fd, map + 8 * 4096, 16384, 0) != -1 || errno != EFAULT;
        MUST(lseek(fd, 100, SEEK_SET));
        bad += read(fd, (void *)8, 16384) != -1 || errno != EFAULT;
        bad += lseek(fd, 0, SEEK_CUR) != 100;
    }
    SHOW(bad);
    MUST(write(two[1], data, 16384));
    for (int i = 0; i < 300; i++)
        bad += read(two[0], (void *)8, 16384) != -1 || errno != EFAULT;
    SHOW(bad);
    SHOW(read(two[0], buffer, SIZE));
    SHOW_IF(wrong(buffer, 16384, 0));
}

/* Of a pipe's slots those count that could be copied whole. */
static void to_half(void)
{
    unsigned char *map = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *edge;
    int two[2];
    edge = map + 8 * 4096;
    MUST(mprotect(edge, 8 * 4096, PROT_READ));
    CASE("pages of a pipe");
    MUST(pipe(two));
    MUST(write(two[1], data, 16384));
    SHOW(read(two[0], edge - 8192, SIZE));
    SHOW_IF(wrong(edge - 8192, 8192, 0));
    SHOW(read(two[0], edge - 1000, SIZE));
    SHOW(read(two[0], edge - 6000, SIZE));
    SHOW_IF(wrong(edge - 6000, 4096, 8192));
    SHOW(read(two[0], edge - 6000, 5000));
    SHOW_IF(wrong(edge - 6000, 4096, 12288));
    MUST(write(two[1], data, 1));
    MUST(write(two[1], data + 1, 4096));
    MUST(write(two[1], data + 4097, 100));
    SHOW(read(two[0], edge - 4096, 8192));
    SHOW(read(two[0], edge - 1, 8192));
    SHOW(read(two[0], edge - 8192, 8192));
    SHOW_IF(wrong(edge - 8192, 4196, 1));
    CASE("packets");
    MUST(pipe2(two, O_DIRECT));
    MUST(write(two[1], data, 3000));
    MUST(write(two[1], data + 3000, 3000));
    SHOW(read(two[0], edge - 1000, 3000));
    SHOW(read(two[0], edge - 1000, 1000));
    SHOW(read(two[0], buffer, SIZE));
    SHOW_IF(wrong(buffer, 3000, 3000));
}

/* Of a write those pages count that could be read whole, after the odd bytes, which go first where they fit. */
static void from_half(void)
{
    static const int before[] = {0, 100, 4000, 4096};
    unsigned char *map = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *edge;
    edge = map + 8 * 4096;
    MUST(mprotect(edge, 8 * 4096, PROT_NONE));
    CASE("writes that end too early");
    for (int i = 0; i < 4; i++)
        for (int odd = 0; odd < 3; odd++) {
            int two[2];
            MUST(pipe2(two, O_NONBLOCK));
            if (before[i])
                MUST(write(two[1], data, (size_t)before[i]));
            say("%d before, size %d", before[i], 16384 + odd * 992);
            SHOW(write(two[1], edge - 8192, (size_t)(16384 + odd * 992)));
            SHOW(write(two[1], edge - 500, (size_t)(16384 + odd * 992)));
            SHOW(write(two[1], edge - 5000, (size_t)(16384 + odd * 992)));
            SHOW(read(two[0], buffer, SIZE));
            close(two[0]);
            close(two[1]);
        }
}

int main(void)
{
    char name[] = "/tmp/read_large.XXXXXX";
    int fd = mkstemp(name);
    MUST(fd);
    unlink(name);
    fill();
    from_file(fd);
    from_pipe();
    to_nowhere(fd);
    to_half();
    from_half();
    return 0;
}
