/* More shared memory than the host has, without touching it: what is refused when is the question. */
#include "hostile.h"

static void files(void)
{
    unsigned long total = 0;
    FILE *info = fopen("/proc/meminfo", "r");
    CHECK(info && fscanf(info, "MemTotal: %lu", &total) == 1 && total);
    total *= 1024;
    /* A sparse file may be as long as it likes, until it is mapped. */
    int fd = open("/dev/shm/sparse", O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)total * 4) == 0);
    CHECK(pwrite(fd, "x", 1, (off_t)total * 4 - 1) == 1);
    CHECK(mmap(NULL, total * 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == ENOMEM);
    CHECK(ftruncate(fd, 1 << 20) == 0);
    char *p = mmap(NULL, total * 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    p[0] = 1;
    CHECK(ftruncate(fd, (off_t)total * 4) == -1 && errno == ENOSPC);
    CHECK(fallocate(fd, 0, 0, (off_t)total * 2) == -1 && errno == ENOSPC);
    /* memfds and anonymous memory share the limit. */
    int parts = 0;
    for (; parts < 64; parts++) {
        int memfd = memfd_create("x", 0);
        CHECK(ftruncate(memfd, (off_t)(total / 8)) == 0);
        if (mmap(NULL, total / 8, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0) == MAP_FAILED)
            break;
        if (mmap(NULL, total / 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
            break;
    }
    CHECK(errno == ENOMEM && parts < 4);
}

static const struct attack attacks[] = {{"files", files}, {NULL, NULL}};

int main(int argc, char **argv) { return run_attack(attacks, argc, argv); }
