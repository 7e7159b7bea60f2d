/* File mappings: private and shared, their access modes, msync, truncation, memfd. */
#include "check.h"

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)

#define TRY(...)                                                                        \
    do {                                                                                \
        errno = 0;                                                                      \
        void *got_ = (__VA_ARGS__);                                                     \
        say("%s: %s", #__VA_ARGS__, got_ == MAP_FAILED ? error_name(errno) : "mapped"); \
    } while (0)

static char *map(int prot, int flags, int fd, off_t offset)
{
    char *at = mmap(NULL, 2 * PAGE, prot, flags, fd, offset);
    NEED(at != MAP_FAILED);
    return at;
}

int main(void)
{
    char text[16] = "";
    scratch();
    int fd = MUST(open("file", O_RDWR | O_CREAT, 0644));
    MUST(ftruncate(fd, 3 * PAGE));
    MUST(pwrite(fd, "zero", 4, 0));
    MUST(pwrite(fd, "one", 3, PAGE));
    MUST(pwrite(fd, "two", 3, 2 * PAGE));
    CASE("private");
    char *private = map(RW, MAP_PRIVATE, fd, PAGE);
    say("%s %s", private, private + PAGE);
    strcpy(private, "mine");
    MUST(pread(fd, text, 4, PAGE));
    say("mapping %s, file %.3s", private, text);
    MUST(pwrite(fd, "TWO", 3, 2 * PAGE));
    say("an untouched page follows the file: %s", private + PAGE);
    CASE("shared");
    char *shared = map(RW, MAP_SHARED, fd, 0), *second = map(PROT_READ, MAP_SHARED, fd, 0);
    strcpy(shared, "from mapping");
    MUST(pread(fd, text, 12, 0));
    say("file '%.12s', second mapping '%s'", text, second);
    MUST(pwrite(fd, "from file", 10, 0));
    say("mapping '%s', second mapping '%s'", shared, second);
    SHOW(msync(shared, PAGE, MS_SYNC));
    SHOW(msync(shared, PAGE, MS_ASYNC));
    reap("child", CHILD(strcpy(shared, "from child")));
    MUST(pread(fd, text, 11, 0));
    say("file '%s'", text);
    CASE("the descriptor may be closed, the name removed");
    MUST(close(fd));
    MUST(unlink("file"));
    strcpy(shared + 100, "still");
    say("%s", second + 100);
    MUST(munmap(shared, 2 * PAGE));
    MUST(munmap(second, 2 * PAGE));
    CASE("access modes");
    put_file("ro", "read only", 0644);
    fd = MUST(open("ro", O_RDONLY));
    TRY(mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0));
    TRY(mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0));
    char *at = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    SHOW(mprotect(at, PAGE, RW));
    at = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    SHOW(mprotect(at, PAGE, RW));
    at[0] = 'R';
    say("'%s'", at);
    close(fd);
    show_file("ro");
    fd = MUST(open("ro", O_WRONLY));
    TRY(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, fd, 0));
    TRY(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
    close(fd);
    fd = MUST(open("ro", O_PATH));
    TRY(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
    close(fd);
    fd = MUST(open(".", O_RDONLY | O_DIRECTORY));
    TRY(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
    close(fd);
    fd = MUST(open("ro", O_RDWR));
    TRY(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 5));
    TRY(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 100 * PAGE));
    TRY(mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE, fd, 0));
    TRY(mmap(NULL, PAGE, PROT_READ, 0, fd, 0));
    CASE("the tail of the last page");
    at = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
    say("%d %d", at[9], at[PAGE - 1]);
    strcpy(at + 9, " and a tail");
    close(fd);
    show_file("ro");
    CASE("a growing file");
    fd = MUST(open("grow", O_RDWR | O_CREAT, 0644));
    MUST(write(fd, "a", 1));
    at = map(PROT_READ, MAP_SHARED, fd, 0);
    MUST(ftruncate(fd, 2 * PAGE));
    MUST(pwrite(fd, "grown", 5, PAGE));
    say("%s", at + PAGE);
    MUST(ftruncate(fd, 2));
    MUST(ftruncate(fd, PAGE));
    say("%d", at[2]);
    CASE("read into a mapping of the same file");
    MUST(pwrite(fd, "source", 6, 0));
    char *rw = map(RW, MAP_SHARED, fd, 0);
    SHOW(pread(fd, rw + 100, 6, 0));
    SHOW(pwrite(fd, rw + 100, 6, 200));
    say("%.6s", rw + 200);
    CASE("devices");
    int zero = MUST(open("/dev/zero", O_RDWR));
    at = map(RW, MAP_PRIVATE, zero, 0);
    say("%d", at[0]);
    at[0] = 1;
    at = map(RW, MAP_SHARED, zero, 0);
    reap("child", CHILD(at[0] = 44));
    say("%d", at[0]);
    CASE("memfd");
    int memory = MUST(memfd_create("name", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    MUST(ftruncate(memory, PAGE));
    at = mmap(NULL, PAGE, RW, MAP_SHARED, memory, 0);
    strcpy(at, "in memory");
    SHOW(pread(memory, text, 10, 0));
    say("%s", text);
    SHOW(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE));
    MUST(munmap(at, PAGE));
    SHOW(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK));
    SHOW(fcntl(memory, F_GET_SEALS));
    SHOW(write(memory, "x", 1));
    SHOW(ftruncate(memory, 0));
    SHOW(ftruncate(memory, 2 * PAGE));
    TRY(mmap(NULL, PAGE, RW, MAP_SHARED, memory, 0));
    SHOW(fcntl(memory, F_ADD_SEALS, F_SEAL_SEAL));
    SHOW(fcntl(memory, F_ADD_SEALS, F_SEAL_GROW));
    SHOW(memfd_create("name", 0x8000));
    int plain = MUST(memfd_create("plain", 0));
    SHOW(fcntl(plain, F_ADD_SEALS, F_SEAL_GROW));
    SHOW(fcntl(plain, F_GET_SEALS));
    return 0;
}
