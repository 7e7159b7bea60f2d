/* mremap(2): growing in place, moving, shrinking, MREMAP_FIXED and DONTUNMAP, and its errors. */
#include "mm_common.h"

/* Pages that hold 'a', 'b' and so on. */
static char *lettered(size_t pages)
{
    char *at = anon(pages);
    for (size_t i = 0; i < pages; i++)
        at[i * PAGE] = 'a' + i;
    return at;
}

static bool mapped(char *at)
{
    unsigned char core;
    return mincore(at, PAGE, &core) == 0;
}

int main(void)
{
    CASE("shrink");
    char *at = lettered(8);
    SHOW_IF(mremap(at, 8 * PAGE, 3 * PAGE, 0) == at);
    say("%c %c %d", at[0], at[2 * PAGE], mapped(at + 3 * PAGE));
    CASE("grow in place");
    SHOW_IF(mremap(at, 3 * PAGE, 6 * PAGE, 0) == at);
    say("%c %d", at[2 * PAGE], at[5 * PAGE]);
    at[5 * PAGE] = 'n';
    CASE("no room");
    NEED(mmap(at + 6 * PAGE, PAGE, PROT_NONE, ANON | MAP_FIXED, -1, 0) != MAP_FAILED);
    TRY(mremap(at, 6 * PAGE, 9 * PAGE, 0));
    char *moved = mremap(at, 6 * PAGE, 9 * PAGE, MREMAP_MAYMOVE);
    SHOW_IF(moved != MAP_FAILED && moved != at);
    say("%c %c %c %d", moved[0], moved[2 * PAGE], moved[5 * PAGE], moved[8 * PAGE]);
    SHOW_IF(!mapped(at));
    SHOW_IF(mremap(moved, 9 * PAGE, 9 * PAGE, 0) == moved);
    CASE("a part of a mapping");
    at = lettered(8);
    NEED((moved = mremap(at + 2 * PAGE, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE)) != MAP_FAILED);
    say("%c %c %d, left %c, hole %d, right %c", moved[0], moved[PAGE], moved[2 * PAGE], at[PAGE],
        mapped(at + 2 * PAGE), at[4 * PAGE]);
    CASE("fixed");
    at = lettered(2);
    char *target = lettered(4);
    SHOW_IF(mremap(at, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target + PAGE) == target + PAGE);
    say("%c %c %c %c", target[0], target[PAGE], target[2 * PAGE], target[3 * PAGE]);
    SHOW_IF(!mapped(at));
    CASE("dontunmap");
    at = lettered(2);
    moved = (char *)syscall(SYS_mremap, at, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
    NEED(moved != MAP_FAILED);
    say("%c %d", moved[PAGE], at[PAGE]);
    CASE("protection goes along");
    at = lettered(2);
    MUST(mprotect(at, 2 * PAGE, PROT_READ));
    NEED((moved = mremap(at, 2 * PAGE, 64 * PAGE, MREMAP_MAYMOVE)) != MAP_FAILED);
    int ends[2];
    MUST(pipe(ends));
    MUST(write(ends[1], "x", 1));
    SHOW(read(ends[0], moved, 1));
    CASE("shared memory: old size 0 makes a second mapping");
    char *shared = mmap(NULL, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    NEED((moved = mremap(shared, 0, 2 * PAGE, MREMAP_MAYMOVE)) != MAP_FAILED);
    moved[5] = 'S';
    say("%c", shared[5]);
    CASE("a file");
    scratch();
    int fd = MUST(open("file", O_RDWR | O_CREAT, 0644));
    MUST(ftruncate(fd, 4 * PAGE));
    MUST(pwrite(fd, "third", 5, 2 * PAGE));
    at = mmap(NULL, PAGE, RW, MAP_SHARED, fd, PAGE);
    NEED((moved = mremap(at, PAGE, 3 * PAGE, MREMAP_MAYMOVE)) != MAP_FAILED);
    say("%s", moved + PAGE);
    CASE("errors");
    at = lettered(4);
    TRY(mremap(at + 1, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    TRY(mremap(at, PAGE, 0, MREMAP_MAYMOVE));
    TRY(mremap(at, 0, PAGE, MREMAP_MAYMOVE));
    TRY(mremap(at, PAGE, PAGE, 0x40));
    TRY(mremap(at, PAGE, PAGE, MREMAP_FIXED, target));
    TRY(mremap(at, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at + PAGE));
    TRY(mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target + 1));
    TRY(mremap(at, 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
    MUST(munmap(at + 2 * PAGE, PAGE));
    TRY(mremap(at, 4 * PAGE, 5 * PAGE, MREMAP_MAYMOVE));
    TRY(mremap(at + 2 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    MUST(munmap(at, 4 * PAGE));
    TRY(mremap(at, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    return 0;
}
