/* madvise(2), one advice after the other: what it does, over fork, in /proc/self/smaps, and its errors. */
#include "mm_common.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

static int file_of(int pages)
{
    int fd = MUST(memfd_create("advice", 0));
    MUST(ftruncate(fd, pages * PAGE));
    for (int i = 0; i < pages; i++)
        MUST(pwrite(fd, &(char){'a' + i}, 1, i * PAGE));
    return fd;
}

/* Of the VmFlags of the mapping at `at`, those that stand in `wanted`. */
static void show_flags(const char *what, const void *at, const char *wanted)
{
    char line[512], start[32], found[128] = "";
    bool here = false;
    snprintf(start, sizeof start, "%08lx-", (unsigned long)at);
    FILE *file = fopen("/proc/self/smaps", "r");
    NEED(file != NULL);
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, start, strlen(start)) == 0)
            here = true;
        if (!here || strncmp(line, "VmFlags:", 8) != 0)
            continue;
        for (char *flag = strtok(line + 8, " \n"); flag; flag = strtok(NULL, " \n"))
            if (strstr(wanted, flag))
                strcat(strcat(found, " "), flag);
        break;
    }
    fclose(file);
    say("%s:%s", what, found);
}

static void hints(void)
{
    CASE("hints");
    char *at = anon(4);
    SHOW(madvise(at, 4 * PAGE, MADV_RANDOM));
    show_flags("random", at, "sr rr");
    SHOW(madvise(at, 4 * PAGE, MADV_SEQUENTIAL));
    show_flags("sequential", at, "sr rr");
    SHOW(madvise(at, 4 * PAGE, MADV_NORMAL));
    show_flags("normal", at, "sr rr");
    SHOW(madvise(at, 4 * PAGE, MADV_DONTDUMP));
    show_flags("dontdump", at, "dd");
    SHOW(madvise(at, 4 * PAGE, MADV_DODUMP));
    show_flags("dodump", at, "dd");
    SHOW(madvise(at, 4 * PAGE, MADV_HUGEPAGE));
    show_flags("huge", at, "hg nh");
    SHOW(madvise(at, 4 * PAGE, MADV_NOHUGEPAGE));
    show_flags("not huge", at, "hg nh");
    memset(at, 3, 4 * PAGE);
    SHOW(madvise(at, 4 * PAGE, MADV_WILLNEED));
    SHOW(madvise(at, 4 * PAGE, MADV_COLD));
    SHOW(madvise(at, 4 * PAGE, MADV_PAGEOUT));
    SHOW(madvise(at, 4 * PAGE, MADV_FREE));
    at[0] = 4;
    say("kept: %d", at[0]);
}

static void lost(void)
{
    CASE("what is given back");
    char *at = anon(4);
    memset(at, 3, 4 * PAGE);
    SHOW(madvise(at + PAGE, PAGE + 1, MADV_DONTNEED));
    say("%d %d %d %d", at[0], at[PAGE], at[2 * PAGE], at[3 * PAGE]);
    int fd = file_of(4);
    char *private = mmap(NULL, 4 * PAGE, RW, MAP_PRIVATE, fd, 0);
    char *shared = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
    private[0] = shared[PAGE] = 'X';
    SHOW(madvise(private, 4 * PAGE, MADV_DONTNEED));
    SHOW(madvise(shared, 4 * PAGE, MADV_DONTNEED));
    say("%c%c %c%c", private[0], private[PAGE], shared[0], shared[PAGE]);
    SHOW(madvise(shared + 2 * PAGE, PAGE, MADV_REMOVE));
    char byte = 1;
    MUST(pread(fd, &byte, 1, 2 * PAGE));
    say("removed: %d %d, left %c", byte, private[2 * PAGE], shared[3 * PAGE]);
    SHOW(madvise(private, PAGE, MADV_REMOVE));
    SHOW(madvise(at, PAGE, MADV_REMOVE));
    SHOW(madvise(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0), PAGE, MADV_REMOVE));
    char *pages = mmap(NULL, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pages[0] = pages[PAGE] = 1;
    SHOW(madvise(pages, PAGE, MADV_REMOVE));
    say("anonymous: %d %d", pages[0], pages[PAGE]);
    SHOW(madvise(shared, PAGE, MADV_FREE));
    SHOW(madvise(private, PAGE, MADV_FREE));
}

static void over_fork(void)
{
    CASE("over fork");
    char *at = anon(4);
    memset(at, 7, 4 * PAGE);
    SHOW(madvise(at, PAGE, MADV_WIPEONFORK));
    SHOW(madvise(at + 2 * PAGE, PAGE, MADV_DONTFORK));
    show_flags("wiped", at, "wf dc");
    show_flags("not copied", at + 2 * PAGE, "wf dc");
    reap("child", CHILD({
             say("%d %d %s %d", at[0], at[PAGE], readable(at + 2 * PAGE) ? "there" : "gone", at[3 * PAGE]);
             at[0] = 1;
             reap("grandchild", CHILD(say("%d", at[0])));
         }));
    say("parent: %d", at[0]);
    SHOW(madvise(at, PAGE, MADV_KEEPONFORK));
    SHOW(madvise(at + 2 * PAGE, PAGE, MADV_DOFORK));
    reap("child", CHILD(say("%d %d %d", at[0], at[PAGE], at[2 * PAGE])));
    int fd = file_of(1);
    SHOW(madvise(mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0), PAGE, MADV_WIPEONFORK));
    SHOW(madvise(mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0), PAGE, MADV_WIPEONFORK));
    SHOW(madvise(mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0), PAGE, MADV_DONTFORK));
}

static void populate(void)
{
    CASE("populate");
    char *at = anon(6);
    SHOW(madvise(at, 2 * PAGE, MADV_POPULATE_WRITE));
    show_core("written", at, 6);
    SHOW(madvise(at + 3 * PAGE, PAGE, MADV_POPULATE_READ));
    show_core("read", at, 6);
    MUST(mprotect(at + 4 * PAGE, PAGE, PROT_READ));
    MUST(mprotect(at + 5 * PAGE, PAGE, PROT_NONE));
    SHOW(madvise(at, 5 * PAGE, MADV_POPULATE_WRITE));
    SHOW(madvise(at + 4 * PAGE, PAGE, MADV_POPULATE_READ));
    SHOW(madvise(at + 5 * PAGE, PAGE, MADV_POPULATE_READ));
    MUST(munmap(at + 5 * PAGE, PAGE));
    SHOW(madvise(at + 3 * PAGE, 3 * PAGE, MADV_POPULATE_READ));
    int fd = file_of(1);
    char *file = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);
    SHOW(madvise(file, PAGE, MADV_POPULATE_WRITE));
    SHOW(madvise(file, 2 * PAGE, MADV_POPULATE_READ));
}

static void on_segv(int signo, siginfo_t *info, void *context UNUSED)
{
    say("%s code %d", signal_name(signo), info->si_code);
    _exit(3);
}

static void guards(void)
{
    CASE("guard pages");
    char *at = anon(4);
    memset(at, 5, 4 * PAGE);
    SHOW(madvise(at + PAGE, 2 * PAGE, MADV_GUARD_INSTALL));
    say("%d %d %d %d", readable(at), readable(at + PAGE), readable(at + 2 * PAGE), readable(at + 3 * PAGE));
    handle_flags(SIGSEGV, on_segv, 0);
    reap("child that touches one", CHILD(*(volatile char *)(at + PAGE) = 1));
    SHOW(madvise(at, 4 * PAGE, MADV_POPULATE_READ));
    SHOW(madvise(at + PAGE, PAGE, MADV_DONTNEED));
    say("after DONTNEED: %d", readable(at + PAGE));
    SHOW(madvise(at + PAGE, PAGE, MADV_GUARD_REMOVE));
    say("%d %d", readable(at + PAGE), at[PAGE]);
    MUST(mlock(at, PAGE));
    SHOW(madvise(at, PAGE, MADV_GUARD_INSTALL));
    SHOW(madvise(at, PAGE, MADV_GUARD_REMOVE));
    char *stack = mmap(NULL, 4 * PAGE, RW, ANON | MAP_GROWSDOWN, -1, 0);
    stack[3 * PAGE] = 1;
    SHOW(madvise(stack + 2 * PAGE, PAGE, MADV_GUARD_INSTALL));
    reap("child that touches a stack's", CHILD(*(volatile char *)(stack + 2 * PAGE) = 1));
    handle_plain(SIGSEGV, SIG_DFL);
}

static void locked(void)
{
    CASE("locked memory");
    char *at = anon(2);
    at[0] = 1;
    MUST(mlock(at, PAGE));
    SHOW(madvise(at, PAGE, MADV_DONTNEED));
    SHOW(madvise(at, PAGE, MADV_FREE));
    SHOW(madvise(at, PAGE, MADV_COLD));
    SHOW(madvise(at, PAGE, MADV_PAGEOUT));
    SHOW(madvise(at, PAGE, MADV_DONTNEED_LOCKED));
    say("%d", at[0]);
}

static void errors(void)
{
    CASE("errors");
    char *at = anon(4);
    SHOW(madvise(at + 1, PAGE, MADV_NORMAL));
    SHOW(madvise(at, PAGE, 5));
    SHOW(madvise(at, PAGE, 104));
    SHOW(madvise(at, PAGE, -1));
    SHOW(madvise(at, 0, MADV_DONTNEED));
    SHOW(madvise(at, -1ul, MADV_DONTNEED));
    SHOW(madvise(at, -PAGE, MADV_DONTNEED));
    at[0] = at[3 * PAGE] = 9;
    MUST(munmap(at + PAGE, PAGE));
    SHOW(madvise(at, 4 * PAGE, MADV_DONTNEED));
    say("both sides of the hole: %d %d", at[0], at[3 * PAGE]);
    SHOW(madvise(at, 4 * PAGE, MADV_DONTFORK));
    SHOW(madvise(at + PAGE, PAGE, MADV_WILLNEED));
    SHOW(madvise(at, PAGE, MADV_COLLAPSE));
    SHOW(madvise(BAD, PAGE, MADV_NORMAL));
}

int main(void)
{
    hints();
    lost();
    over_fork();
    populate();
    guards();
    locked();
    errors();
    return 0;
}
