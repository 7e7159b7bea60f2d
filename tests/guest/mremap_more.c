/* mremap(2) beyond what mremap.c has: several mappings at once, kinds of memory, flags that go along, limits. */
#include "mm_common.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static char *reserve(size_t pages)
{
    char *at = mmap(NULL, pages * PAGE, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);
    NEED(at != MAP_FAILED);
    return at;
}

static char *put(char *at, size_t pages, int prot, int flags, int fd, off_t offset)
{
    char *got = mmap(at, pages * PAGE, prot, flags | MAP_FIXED, fd, offset);
    NEED(got == at);
    return got;
}

static char mapped(const char *page)
{
    unsigned char byte;
    return mincore((void *)page, PAGE, &byte) == 0 ? 'm' : '-';
}

static void show_map(const char *what, const char *at, int pages)
{
    char text[64];
    for (int i = 0; i < pages; i++)
        text[i] = mapped(at + i * PAGE);
    text[pages] = 0;
    say("%s: %s", what, text);
}

static void several(void)
{
    CASE("several mappings");
    char *room = reserve(40);
    MUST(munmap(room, 40 * PAGE));
    char *at = put(room + PAGE, 2, RW, ANON, -1, 0);
    put(room + 3 * PAGE, 2, PROT_READ, ANON, -1, 0);
    put(room + 5 * PAGE, 2, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    at[0] = 1;
    at[4 * PAGE] = 5;
    SHOW_OK(mremap(at, 6 * PAGE, 8 * PAGE, MREMAP_MAYMOVE));
    SHOW_OK(mremap(at, 6 * PAGE, 7 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + 20 * PAGE));
    show_map("source", room, 10);
    SHOW_OK(mremap(at, 6 * PAGE, 5 * PAGE, MREMAP_MAYMOVE));
    show_map("shrunk", room, 10);
    SHOW_OK(mremap(at, 5 * PAGE, 5 * PAGE, 0));
    SHOW_OK(mremap(at, 5 * PAGE, 5 * PAGE, MREMAP_MAYMOVE));
}

static void holes(void)
{
    CASE("over a hole");
    char *room = reserve(40);
    MUST(munmap(room, 40 * PAGE));
    char *at = put(room + PAGE, 5, RW, ANON, -1, 0);
    at[0] = 7;
    MUST(munmap(at + 2 * PAGE, PAGE));
    SHOW_OK(mremap(at, 5 * PAGE, 6 * PAGE, MREMAP_MAYMOVE));
    SHOW_OK(mremap(at, 5 * PAGE, 4 * PAGE, 0));
    show_map("shrunk", room, 8);
    SHOW_OK(mremap(at + 2 * PAGE, PAGE, PAGE, 0));
    SHOW_OK(mremap(at + 2 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
}

static void duplicates(void)
{
    CASE("old size 0");
    char *room = reserve(20);
    int fd = MUST(memfd_create("twice", 0));
    MUST(ftruncate(fd, 4 * PAGE));
    char *at = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
    strcpy(at + PAGE, "here");
    char *twin = mremap(at + PAGE, 0, 2 * PAGE, MREMAP_MAYMOVE);
    NEED(twin != MAP_FAILED);
    say("'%s'", twin);
    strcpy(twin, "there");
    say("'%s'", at + PAGE);
    SHOW_OK(mremap(at, 0, PAGE, 0));
    SHOW_OK(mremap(at, 0, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room));
    say("%d", room[0] == at[0]);
    char *private = mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0);
    SHOW_OK(mremap(private, 0, PAGE, MREMAP_MAYMOVE));
    SHOW_OK(mremap(mmap(NULL, PAGE, RW, ANON, -1, 0), 0, PAGE, MREMAP_MAYMOVE));
    char *anonymous = mmap(NULL, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *other = mremap(anonymous, 0, 2 * PAGE, MREMAP_MAYMOVE);
    anonymous[PAGE] = 9;
    say("%d", other[PAGE]);
    MUST(munmap(anonymous, 2 * PAGE));
    say("%d", other[PAGE]);
}

static void left_behind(void)
{
    CASE("MREMAP_DONTUNMAP");
    char *at = mmap(NULL, 4 * PAGE, RW, ANON, -1, 0);
    at[0] = 1;
    at[2 * PAGE] = 3;
    char *new = mremap(at, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    NEED(new != MAP_FAILED);
    say("moved %d %d, left %d %d", new[0], new[2 * PAGE], at[0], at[2 * PAGE]);
    int fd = MUST(memfd_create("kept", 0));
    MUST(ftruncate(fd, 2 * PAGE));
    char *shared = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);
    shared[0] = 4;
    char *twin = mremap(shared, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    NEED(twin != MAP_FAILED);
    say("%d %d", shared[0], twin[0]);
    SHOW_OK(mremap(at, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, (char *)NULL + 1));
    SHOW_OK(mremap(at, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, at + PAGE));
    SHOW_OK(mremap(at, 4 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
    SHOW_OK(mremap(at, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
    SHOW_OK(mremap(at, 4 * PAGE, 4 * PAGE, MREMAP_DONTUNMAP, NULL));
    SHOW_OK(mremap(at, 0, 0, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
    SHOW_OK(mremap(at, 5 * PAGE, 5 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
}

static void flags_go_along(void)
{
    CASE("advice goes along");
    char *at = mmap(NULL, 2 * PAGE, RW, ANON, -1, 0);
    memset(at, 5, 2 * PAGE);
    MUST(madvise(at, 2 * PAGE, MADV_WIPEONFORK));
    char *room = reserve(8);
    char *new = mremap(at, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    NEED(new == room);
    say("%d %d", new[0], new[2 * PAGE]);
    new[2 * PAGE] = 6;
    reap("child", CHILD(say("%d %d", new[0], new[2 * PAGE])));
    MUST(mprotect(new, 4 * PAGE, PROT_READ));
    SHOW_OK(mremap(new, 4 * PAGE, 6 * PAGE, MREMAP_MAYMOVE));
}

static void of_files(void)
{
    CASE("files");
    int fd = MUST(open("file", O_RDWR | O_CREAT, 0600));
    MUST(ftruncate(fd, 4 * PAGE));
    for (int i = 0; i < 4; i++)
        MUST(pwrite(fd, &(char){'a' + i}, 1, i * PAGE));
    char *private = mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0);
    private[0] = 'X';
    private = mremap(private, PAGE, 3 * PAGE, MREMAP_MAYMOVE);
    NEED(private != MAP_FAILED);
    say("%c%c%c", private[0], private[PAGE], private[2 * PAGE]);
    char *shared = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, PAGE);
    shared = mremap(shared, 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE);
    NEED(shared != MAP_FAILED);
    shared[2 * PAGE] = 'Z';
    char byte;
    MUST(pread(fd, &byte, 1, 3 * PAGE));
    say("%c%c %c", shared[0], shared[PAGE], byte);
    int reader = MUST(open("file", O_RDONLY));
    char *look = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 0);
    look = mremap(look, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    NEED(look != MAP_FAILED);
    SHOW(mprotect(look, 2 * PAGE, RW));
}

static void bad(void)
{
    CASE("errors");
    char *at = mmap(NULL, 4 * PAGE, RW, ANON, -1, 0);
    SHOW_OK(mremap(at + 1, PAGE, PAGE, 0));
    SHOW_OK(mremap(at, PAGE, 0, 0));
    SHOW_OK(mremap(at, PAGE, -1ul, MREMAP_MAYMOVE));
    SHOW_OK(mremap(at, -1ul, PAGE, MREMAP_MAYMOVE));
    SHOW_OK(mremap(at, PAGE, 2 * PAGE, 8));
    SHOW_OK(mremap(at, PAGE, PAGE, MREMAP_FIXED, at + 2 * PAGE));
    SHOW_OK(mremap(at, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at + PAGE));
    SHOW_OK(mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at));
    SHOW_OK(mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at + 2 * PAGE + 1));
    SHOW_OK(mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)(1ul << 47)));
    SHOW_OK(mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)-PAGE));
    SHOW_OK(mremap(at, 1ul << 40, 1ul << 41, MREMAP_MAYMOVE));
    SHOW_OK(mremap(at, PAGE, 1ul << 47, MREMAP_MAYMOVE));
    SHOW_OK(mremap((void *)(1ul << 47), PAGE, PAGE, 0));
    SHOW_OK(mremap(BAD - 8, PAGE, PAGE, 0));
}

int main(void)
{
    scratch();
    several();
    holes();
    duplicates();
    left_behind();
    flags_go_along();
    of_files();
    bad();
    return 0;
}
