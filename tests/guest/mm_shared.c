/* MAP_SHARED between processes, related and not, of files and of nothing; files that shrink under their mappings. */
#include "mm_common.h"
#include <setjmp.h>

static sigjmp_buf jump;
static int caught_code;
static char *caught_at;

static void on_bus(int signo, siginfo_t *info, void *context UNUSED)
{
    caught_code = info->si_code;
    caught_at = info->si_addr;
    siglongjmp(jump, signo);
}

static void show_touch(const char *what, char *at, bool write)
{
    int signo = sigsetjmp(jump, 1);
    if (signo) {
        say("%s: %s code %d %s", what, signal_name(signo), caught_code, caught_at == at ? "there" : "elsewhere");
        return;
    }
    if (write)
        *(volatile char *)at = 'w';
    char byte = *(volatile char *)at;
    say("%s: %d", what, byte);
}

static void catch_faults(void)
{
    handle_flags(SIGBUS, on_bus, 0);
    handle_flags(SIGSEGV, on_bus, 0);
}

static void anonymous(void)
{
    CASE("anonymous, over fork");
    int *at = mmap(NULL, 4 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    reap("child", CHILD({
             at[0] = 1;
             reap("grandchild", CHILD(at[1] = 2));
             MUST(munmap(at, PAGE));
             at[1024] = 3;
         }));
    say("%d %d %d", at[0], at[1], at[1024]);
    int *place = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int *moved = mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    NEED(moved == place);
    reap("child", CHILD(moved[0] = 5));
    say("moved: %d", moved[0]);
    SHOW(mprotect(at + 1024, PAGE, PROT_READ));
    reap("child", CHILD({
             SHOW(mprotect(at + 1024, PAGE, RW));
             at[1024] = 7;
         }));
    say("%d", at[1024]);
}

static void counted(void)
{
    CASE("many children at once");
    int *at = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[8];
    for (int i = 0; i < 8; i++)
        children[i] = CHILD(for (int j = 0; j < 1000; j++) __atomic_add_fetch(at, 1, __ATOMIC_SEQ_CST));
    for (int i = 0; i < 8; i++)
        MUST(waitpid(children[i], NULL, 0));
    say("%d", at[0]);
}

static void by_name(void)
{
    CASE("unrelated processes, one file");
    int fd = MUST(open("shared", O_RDWR | O_CREAT, 0600));
    MUST(ftruncate(fd, 2 * PAGE));
    char *at = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);
    strcpy(at, "from the first");
    struct gate there = gate_make(), back = gate_make();
    pid_t child = CHILD({
        MUST(munmap(at, 2 * PAGE));
        int mine = MUST(open("shared", O_RDWR));
        char *view = mmap(NULL, PAGE, RW, MAP_SHARED, mine, 0);
        say("child sees '%s'", view);
        strcpy(view + 100, "from the second");
        gate_open(there);
        gate_wait(back);
        say("child sees '%s'", view + 200);
        char text[32];
        MUST(pread(mine, text, sizeof text, 200));
        say("child reads '%s'", text);
    });
    gate_wait(there);
    say("parent sees '%s'", at + 100);
    MUST(pwrite(fd, "written", 8, 200));
    gate_open(back);
    reap("child", child);
    SHOW(msync(at, 2 * PAGE, MS_SYNC));
    MUST(close(fd));
    char *private = mmap(NULL, PAGE, RW, MAP_PRIVATE, MUST(open("shared", O_RDONLY)), 0);
    strcpy(private, "nobody else's");
    say("shared '%s'", at);
}

static void read_only(void)
{
    CASE("opened for reading");
    int fd = MUST(open("shared", O_RDONLY));
    char *at = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    SHOW_OK(mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0));
    SHOW(mprotect(at, PAGE, RW));
    SHOW(mprotect(at, PAGE, PROT_NONE));
    SHOW(mprotect(at, PAGE, PROT_READ | PROT_EXEC));
    show_touch("write", at, true);
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, MUST(open("shared", O_WRONLY)), 0));
    SHOW_OK(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, MUST(open("shared", O_WRONLY)), 0));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, MUST(open(".", O_RDONLY)), 0));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, MUST(open("shared", O_PATH)), 0));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, 999, 0));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 100));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 1ul << 62));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, -PAGE));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE, fd, 0));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | 0x200000, fd, 0));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, 0, fd, 0));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, 4, fd, 0));
    SHOW_OK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_GROWSDOWN, fd, 0));
}

static void shrinking(int (*make)(void))
{
    int fd = make();
    MUST(ftruncate(fd, 4 * PAGE));
    char *at = mmap(NULL, 8 * PAGE, RW, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, 4 * PAGE, RW, MAP_PRIVATE, fd, 0);
    NEED(at != MAP_FAILED && private != MAP_FAILED);
    memset(at, 1, 4 * PAGE);
    private[3 * PAGE] = 2;
    show_touch("before the end", at + 3 * PAGE, true);
    show_touch("behind it", at + 4 * PAGE, false);
    MUST(ftruncate(fd, PAGE + 100));
    show_touch("the last page", at + PAGE, false);
    show_touch("its rest", at + PAGE + 200, false);
    show_touch("what is cut off", at + 2 * PAGE, false);
    show_touch("and written to", at + 3 * PAGE, true);
    show_touch("privately", private + 2 * PAGE, false);
    show_touch("what was written to privately", private + 3 * PAGE, false);
    int ends[2];
    MUST(pipe(ends));
    SHOW(write(ends[1], at + 2 * PAGE, 1));
    SHOW(write(ends[1], at + 2 * PAGE - 1, 2));
    MUST(ftruncate(fd, 8 * PAGE));
    show_touch("grown again", at + 2 * PAGE, false);
    show_touch("further than before", at + 7 * PAGE, true);
    MUST(munmap(at, 8 * PAGE));
    MUST(munmap(private, 4 * PAGE));
}

static int named(void)
{
    return MUST(open("shrinks", O_RDWR | O_CREAT | O_TRUNC, 0600));
}

static int unnamed(void)
{
    return MUST(memfd_create("shrinks", 0));
}

static void sync_errors(void)
{
    CASE("msync");
    char *at = mmap(NULL, 4 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    SHOW(msync(at, PAGE, MS_ASYNC));
    SHOW(msync(at, PAGE, MS_SYNC | MS_INVALIDATE));
    SHOW(msync(at, PAGE, 0));
    SHOW(msync(at, 0, MS_SYNC));
    SHOW(msync(at + 1, PAGE, MS_SYNC));
    SHOW(msync(at, PAGE, MS_SYNC | MS_ASYNC));
    SHOW(msync(at, PAGE, 8));
    SHOW(msync(at, -PAGE, MS_SYNC));
    MUST(mlock(at, PAGE));
    SHOW(msync(at, PAGE, MS_INVALIDATE));
    SHOW(msync(at, PAGE, MS_SYNC));
    MUST(munmap(at + PAGE, PAGE));
    SHOW(msync(at, 4 * PAGE, MS_SYNC));
    SHOW(msync(at + PAGE, PAGE, MS_SYNC));
    SHOW(msync(at + PAGE, PAGE, MS_ASYNC));
}

int main(void)
{
    scratch();
    catch_faults();
    anonymous();
    counted();
    by_name();
    read_only();
    CASE("a file that shrinks");
    shrinking(named);
    CASE("a memfd that shrinks");
    shrinking(unnamed);
    sync_errors();
    return 0;
}
