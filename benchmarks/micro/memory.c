/* Mapping, unmapping and touching memory. */
#define _GNU_SOURCE
#include "micro.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define TOUCHED 512
#define MEBIBYTE (1024 * 1024)

static int fd;

static char *map(size_t size, int protection, int flags, int descriptor)
{
    char *at = mmap(NULL, size, protection, MAP_PRIVATE | flags, descriptor, 0);
    MUST(at != MAP_FAILED);
    return at;
}

static void op_mmap_munmap(void)
{
    MUST(munmap(map(65536, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1), 65536) == 0);
}

/* Pages of 4 KiB, also where the host would give huge ones. */
static void op_anon_fault(void)
{
    volatile char *at = map(TOUCHED * PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1);
    for (int i = 0; i < TOUCHED; i++)
        at[i * PAGE] = 1;
    MUST(munmap((char *)at, TOUCHED * PAGE) == 0);
}

static void open_mebibyte(void)
{
    MUST((fd = open(temporary("mapped"), O_RDWR | O_CREAT | O_TRUNC, 0644)) >= 0);
    for (size_t done = 0; done < MEBIBYTE; done += sizeof block)
        MUST(write(fd, block, sizeof block) == sizeof block);
}

static void remove_mebibyte(void)
{
    close(fd);
    unlink(temporary("mapped"));
}

static void op_file_map_read(void)
{
    int sum = 0;
    volatile char *at = map(MEBIBYTE, PROT_READ, 0, fd);
    for (int i = 0; i < MEBIBYTE; i += PAGE)
        sum += at[i];
    MUST(sum == 0);
    MUST(munmap((char *)at, MEBIBYTE) == 0);
}

const struct operation memory_operations[] = {
    {"mmap_munmap", op_mmap_munmap, NULL, NULL},
    {"anon_fault", op_anon_fault, NULL, NULL},
    {"file_map_read_1M", op_file_map_read, open_mebibyte, remove_mebibyte},
    {NULL, NULL, NULL, NULL},
};
