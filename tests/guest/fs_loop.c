/*
 * Loop devices: binding, status, sizes, positions, read-only ones, and how they are let go.
 * USER: root
 * NEEDS: /dev/loop-control
 */
#include "check.h"

#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

static int control, device, number;
static char node[64];
static unsigned char block[16384];

static int backing(const char *name, off_t size, int flags)
{
    int fd = MUST(open(name, O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(ftruncate(fd, size));
    close(fd);
    return MUST(open(name, flags));
}

static void take_free(int flags)
{
    number = MUST(ioctl(control, LOOP_CTL_GET_FREE));
    snprintf(node, sizeof node, "/dev/loop%d", number);
    device = MUST(open(node, flags));
}

static void show_size(void)
{
    uint64_t bytes = 7;
    unsigned long sectors = 7;
    SHOW(ioctl(device, BLKGETSIZE64, &bytes));
    SHOW(ioctl(device, BLKGETSIZE, &sectors));
    say("%llu bytes, %lu sectors", (unsigned long long)bytes, sectors);
}

static void show_info(void)
{
    struct loop_info64 info = {0};
    SHOW(ioctl(device, LOOP_GET_STATUS64, &info));
    say("offset %llu limit %llu flags %u name '%s' number right: %d",
        (unsigned long long)info.lo_offset, (unsigned long long)info.lo_sizelimit, info.lo_flags,
        info.lo_file_name, (int)info.lo_number == number);
}

static void show_attribute(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/block/loop%d/%s", number, name);
    char text[256] = "";
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    close(fd);
    char *file = strrchr(text, '/');
    say("%s: %s", name, got < 0 ? "no" : file ? file : text);
}

static void unbound(void)
{
    CASE("unbound");
    struct loop_info64 info = {0};
    struct loop_info old;
    SHOW(ioctl(control, 0x4C83));
    SHOW(ioctl(control, LOOP_CTL_ADD, number));
    SHOW(read(control, block, 1));
    SHOW(ioctl(device, LOOP_GET_STATUS64, &info));
    SHOW(ioctl(device, LOOP_GET_STATUS64, NULL));
    SHOW(ioctl(device, LOOP_GET_STATUS, &old));
    SHOW(ioctl(device, LOOP_SET_STATUS64, NULL));
    SHOW(ioctl(device, LOOP_SET_STATUS64, &info));
    SHOW(ioctl(device, LOOP_CLR_FD));
    SHOW(ioctl(device, LOOP_SET_CAPACITY));
    SHOW(ioctl(device, LOOP_CHANGE_FD, -1));
    SHOW(ioctl(device, LOOP_SET_FD, -1));
    SHOW(ioctl(device, LOOP_SET_FD, control));
    SHOW(ioctl(device, LOOP_SET_FD, device));
    SHOW(ioctl(device, LOOP_SET_BLOCK_SIZE, 512));
    SHOW(ioctl(device, 0x4C77));
    show_size();
    SHOW(lseek(device, 0, SEEK_END));
    SHOW(read(device, block, 9));
    SHOW(write(device, block, 9));
    show_attribute("size");
    show_attribute("loop/offset");
}

static void properties(void)
{
    CASE("properties");
    int value = 7;
    SHOW(ioctl(device, BLKROGET, &value));
    say("read-only %d", value);
    SHOW(ioctl(device, BLKSSZGET, &value));
    say("sector %d", value);
    SHOW(ioctl(device, BLKPBSZGET, &value));
    say("physical sector %d", value);
    SHOW(ioctl(device, BLKBSZGET, &value));
    say("block %d", value);
    unsigned long pages = 7;
    SHOW(ioctl(device, BLKRASET, 300));
    SHOW(ioctl(device, BLKRAGET, &pages));
    say("read ahead %lu", pages);
    SHOW(ioctl(device, BLKRASET, 256));
    SHOW(ioctl(device, BLKRRPART));
    SHOW(ioctl(device, BLKFLSBUF));
    SHOW(ioctl(device, BLKROGET, BAD));
    value = 3;
    SHOW(ioctl(device, BLKBSZSET, &value));
}

static void bytes(void)
{
    CASE("bytes");
    memset(block, 'x', sizeof block);
    SHOW(pwrite(device, block, sizeof block, 0));
    SHOW(pwrite(device, block, 20, 9728));
    SHOW(pwrite(device, block, 20, 9720));
    SHOW(pwrite(device, "hello", 5, 9000));
    memset(block, 0, sizeof block);
    SHOW(pread(device, block, sizeof block, 8999));
    say("%.7s", block);
    SHOW(pread(device, block, 1, 9728));
    SHOW(pread(device, block, 1, 99999));
    SHOW(lseek(device, 9728, SEEK_SET));
    SHOW(lseek(device, 9729, SEEK_SET));
    SHOW(lseek(device, -1, SEEK_SET));
    SHOW(lseek(device, -28, SEEK_END));
    SHOW(read(device, block, 100));
    SHOW(lseek(device, 0, SEEK_DATA));
    SHOW(ftruncate(device, 0));
    SHOW(fsync(device));
    SHOW(fallocate(device, 0, 0, 4096));
    SHOW(fallocate(device, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1, 4096));
    SHOW(fallocate(device, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8704, 512));
    SHOW(pread(device, block, 5, 9000));
    say("%d", block[0]);
    uint64_t range[2] = {0, 100};
    SHOW(ioctl(device, BLKDISCARD, range));
    range[1] = 512;
    SHOW(ioctl(device, BLKDISCARD, range));
    SHOW(pread(device, block, 5, 0));
    say("%d", block[0]);
    range[0] = 9728;
    SHOW(ioctl(device, BLKZEROOUT, range));
}

static void status(void)
{
    CASE("status");
    show_info();
    struct loop_info64 info = {.lo_encrypt_type = 1};
    SHOW(ioctl(device, LOOP_SET_STATUS64, &info));
    info.lo_encrypt_type = 0;
    info.lo_encrypt_key_size = 33;
    SHOW(ioctl(device, LOOP_SET_STATUS64, &info));
    info.lo_encrypt_key_size = 0;
    info.lo_offset = 1024;
    info.lo_sizelimit = 2000;
    info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_READ_ONLY;
    strcpy((char *)info.lo_file_name, "a name");
    SHOW(ioctl(device, LOOP_SET_STATUS64, &info));
    show_info();
    show_size();
    show_attribute("loop/offset");
    show_attribute("loop/autoclear");
    info.lo_offset = -5;
    SHOW(ioctl(device, LOOP_SET_STATUS64, &info));
    struct loop_info old = {.lo_flags = 0, .lo_name = "old"};
    SHOW(ioctl(device, LOOP_SET_STATUS, &old));
    show_info();
    SHOW(ioctl(device, LOOP_SET_BLOCK_SIZE, 100));
    SHOW(ioctl(device, LOOP_SET_BLOCK_SIZE, 3000));
    SHOW(ioctl(device, LOOP_SET_BLOCK_SIZE, 1024));
    int value = 0;
    SHOW(ioctl(device, BLKSSZGET, &value));
    say("sector %d", value);
    SHOW(ioctl(device, LOOP_SET_BLOCK_SIZE, 512));
    SHOW(truncate("image", 5120));
    SHOW(ioctl(device, LOOP_SET_CAPACITY));
    show_size();
}

static void readonly(void)
{
    CASE("read-only");
    int one = 1, zero = 0;
    SHOW(ioctl(device, BLKROSET, &one));
    SHOW(write(device, block, 1));
    show_attribute("ro");
    SHOW(ioctl(device, BLKROSET, &zero));
    SHOW(ioctl(device, LOOP_CHANGE_FD, device));
    SHOW(ioctl(device, LOOP_CLR_FD));
    SHOW(ioctl(device, LOOP_CLR_FD));
    close(device);
    take_free(O_RDWR);
    int fd = backing("readonly", 4096, O_RDONLY), same = backing("same", 4096, O_RDWR);
    int other = backing("other", 8192, O_RDWR);
    SHOW(ioctl(device, LOOP_SET_FD, fd));
    show_info();
    show_attribute("ro");
    show_attribute("loop/backing_file");
    SHOW(pwrite(device, block, 1, 0));
    SHOW(ioctl(device, BLKROSET, &zero));
    SHOW(ioctl(device, BLKROGET, &one));
    say("read-only %d", one);
    SHOW(pwrite(device, block, 1, 0));
    SHOW(ioctl(device, LOOP_CHANGE_FD, other));
    SHOW(ioctl(device, LOOP_CHANGE_FD, same));
    show_attribute("loop/backing_file");
    close(fd), close(same), close(other);
}

static void release(void)
{
    CASE("release");
    int second = MUST(open(node, O_RDONLY));
    SHOW(ioctl(device, LOOP_CLR_FD));
    SHOW(ioctl(device, LOOP_CLR_FD));
    show_info();
    close(second);
    SHOW(ioctl(device, LOOP_CLR_FD));
    SHOW(ioctl(device, LOOP_CLR_FD));
    SHOW(ioctl(device, LOOP_CLR_FD));
    SHOW(open(node, O_RDONLY));
    close(device);
    device = MUST(open(node, O_RDWR));
    struct loop_info64 info;
    SHOW(ioctl(device, LOOP_GET_STATUS64, &info));
    int fd = backing("configured", 8192, O_RDWR);
    struct loop_config config = {.fd = -1u};
    SHOW(ioctl(device, LOOP_CONFIGURE, &config));
    config.fd = fd;
    config.info.lo_flags = 1 << 30;
    SHOW(ioctl(device, LOOP_CONFIGURE, &config));
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    config.info.lo_sizelimit = 1024;
    config.block_size = 33;
    SHOW(ioctl(device, LOOP_CONFIGURE, &config));
    config.block_size = 512;
    SHOW(ioctl(device, LOOP_CONFIGURE, &config));
    SHOW(ioctl(device, LOOP_CONFIGURE, &config));
    show_info();
    show_size();
    close(device);
    device = MUST(open(node, O_RDWR));
    SHOW(ioctl(device, LOOP_GET_STATUS64, &info));
    close(device);
}

int main(void)
{
    scratch();
    control = MUST(open("/dev/loop-control", O_RDWR));
    take_free(O_RDWR);
    unbound();
    properties();
    int fd = backing("image", 10000, O_RDWR);
    SHOW(ioctl(device, LOOP_SET_FD, fd));
    SHOW(ioctl(device, LOOP_SET_FD, fd));
    close(fd);
    show_size();
    bytes();
    status();
    readonly();
    release();
    return 0;
}
