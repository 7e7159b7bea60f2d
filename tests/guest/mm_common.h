/* What the programs on memory share. */
#include "check.h"

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

/* Evaluates a call that gives an address, and prints whether it did, or the error. */
#define TRY(...)                                                                        \
    do {                                                                                \
        errno = 0;                                                                      \
        void *got_ = (__VA_ARGS__);                                                     \
        say("%s: %s", #__VA_ARGS__, got_ == MAP_FAILED ? error_name(errno) : "mapped"); \
    } while (0)

UNUSED static char *anon_with(size_t pages, int prot, int flags)
{
    char *at = mmap(NULL, pages * PAGE, prot, ANON | flags, -1, 0);
    NEED(at != MAP_FAILED);
    return at;
}

UNUSED static char *anon(size_t pages)
{
    return anon_with(pages, RW, 0);
}

/* Whether a page can be read: asked by a write of it to a pipe. */
UNUSED static bool readable(const char *page)
{
    static int ends[2];
    char byte;
    if (!ends[1])
        MUST(pipe(ends));
    if (write(ends[1], page, 1) != 1)
        return false;
    MUST(read(ends[0], &byte, 1));
    return true;
}

/* Which of the pages mincore(2) says are in memory. */
UNUSED static void show_core(const char *what, void *at, int pages)
{
    unsigned char vec[64];
    char text[65];
    if (mincore(at, pages * PAGE, vec) < 0) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    for (int i = 0; i < pages; i++)
        text[i] = vec[i] & 1 ? '1' : '0';
    text[pages] = 0;
    say("%s: %s", what, text);
}
