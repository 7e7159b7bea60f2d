/* PROCMAP_QUERY of /proc/PID/maps: which mapping is found, what is said of it, and what a caller
 * can get wrong. */
#include "check.h"

#include <sys/ioctl.h>

/* struct procmap_query, which headers before Linux 6.11 lack. */
struct query {
    uint64_t size, wanted, addr, start, end, flags, page, offset, inode;
    uint32_t major, minor, name_size, id_size;
    uint64_t name, id;
};
#define QUERY _IOWR('f', 17, struct query)
enum { READABLE = 1, WRITABLE = 2, EXECUTABLE = 4, SHARED = 8, OR_NEXT = 16, FILE_BACKED = 32 };

static int maps;
static char *base, name[256];

static void ask(const char *what, struct query query)
{
    query.size = sizeof query;
    errno = 0;
    if (ioctl(maps, QUERY, &query)) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    say("%s: %ld to %ld, flags %llx, page %llu, offset %llx, file %d, name %u, id %u", what,
        (long)(query.start - (uintptr_t)base), (long)(query.end - (uintptr_t)base),
        (unsigned long long)query.flags, (unsigned long long)query.page,
        (unsigned long long)query.offset, query.inode != 0, query.name_size, query.id_size);
}

#define ASK(...) ask(#__VA_ARGS__, (struct query){__VA_ARGS__})
#define AT(offset) .addr = (uintptr_t)base + (offset)
#define NAMED .name_size = sizeof name, .name = (uintptr_t)name

int main(void)
{
    scratch();
    put_file("file", "text", 0644);
    int file = MUST(open("file", O_RDONLY));
    base = mmap(NULL, 0x20000, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(mprotect(base + 0x2000, 0x1000, PROT_READ | PROT_WRITE));
    MUST(mprotect(base + 0x5000, 0x1000, PROT_READ | PROT_EXEC));
    MUST(munmap(base + 0x8000, 0x1000));
    NEED(mmap(base + 0xa000, 0x1000, PROT_READ, MAP_FIXED | MAP_SHARED, file, 0) != MAP_FAILED);
    maps = MUST(open("/proc/self/maps", O_RDONLY));

    CASE("found");
    ASK(AT(0));
    ASK(AT(0x2100));
    ASK(AT(0x5fff));
    ASK(AT(0xa000));
    ASK(AT(0x8000));
    ASK(AT(0x8000), .wanted = OR_NEXT);
    ASK(AT(0x8000), .wanted = OR_NEXT | FILE_BACKED);
    ASK(AT(0), .wanted = WRITABLE);
    ASK(AT(0), .wanted = WRITABLE | OR_NEXT);
    ASK(AT(0), .wanted = EXECUTABLE | READABLE | OR_NEXT);
    ASK(AT(0), .wanted = SHARED | OR_NEXT);
    ASK(AT(0xa000), .wanted = SHARED | FILE_BACKED | READABLE);
    ASK(AT(0xa000), .wanted = SHARED | WRITABLE);
    ASK(.addr = UINT64_MAX);
    ASK(.addr = UINT64_MAX, .wanted = OR_NEXT);

    CASE("names");
    ASK(AT(0xa000), NAMED);
    say("%s", strrchr(name, '/'));
    ASK(AT(0), NAMED);
    ASK(.addr = (uintptr_t)base, .name_size = 1, .name = (uintptr_t)name);
    ASK(AT(0xa000), .name_size = 3, .name = (uintptr_t)name);
    ASK(AT(0xa000), .name_size = 100);
    ASK(AT(0xa000), .name = (uintptr_t)name);
    ASK(AT(0xa000), .name_size = 100, .name = (uintptr_t)BAD);
    ASK(AT(0xa000), .id_size = 20);
    ASK(AT(0xa000), .id_size = 20, .id = (uintptr_t)name);
    struct query stack = {.size = sizeof stack, .addr = (uintptr_t)&stack, NAMED};
    SHOW(ioctl(maps, QUERY, &stack));
    say("%s", name);

    CASE("mistakes");
    struct query query = {.addr = (uintptr_t)base};
    ASK(AT(0), .wanted = 64);
    for (unsigned size = 0; size <= 112; size += 8) {
        char area[128] = "";
        query.size = size;
        memcpy(area, &query, sizeof query);
        errno = 0;
        say("size %u: %s", size, ioctl(maps, QUERY, area) ? error_name(errno) : "ok");
        memset(area + sizeof query, 1, sizeof area - sizeof query);
        memcpy(area, &query, sizeof query);
        errno = 0;
        say("size %u, more: %s", size, ioctl(maps, QUERY, area) ? error_name(errno) : "ok");
    }
    query.size = 5000;
    SHOW(ioctl(maps, QUERY, &query));
    SHOW(ioctl(maps, QUERY, BAD));
    SHOW(ioctl(maps, QUERY ^ 1, &query));
    int other = MUST(open("/proc/self/smaps", O_RDONLY));
    SHOW(ioctl(other, QUERY, &query));
    return 0;
}
