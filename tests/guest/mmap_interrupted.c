/* Memory calls of a process of one thread while signals keep coming, and one that gets a second thread meanwhile. */
#include "check.h"

#include <pthread.h>

#define SIZE 0x4000

static volatile sig_atomic_t ticks;
static int fd;

static void on_tick(int signo UNUSED)
{
    ticks++;
}

/* Whether all of it is as it should be. */
static bool one_round(int i)
{
    char *file = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0), *memory, *other;
    bool good = file != MAP_FAILED && file[0] == 'a' && file[SIZE - 1] == 'a' + (SIZE - 1) % 26;
    memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    good = good && memory != MAP_FAILED && memory[0] == 0;
    memory[1] = (char)i;
    good = good && mprotect(memory, 0x1000, PROT_READ) == 0 && memory[1] == (char)i;
    other = mmap(memory + 0x1000, 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0x1000);
    good = good && other == memory + 0x1000 && other[0] == 'a' + 0x1000 % 26;
    other[0] = 'x';
    good = good && munmap(file, SIZE) == 0 && other[0] == 'x' && madvise(memory + 0x2000, 0x1000, MADV_DONTNEED) == 0;
    good = good && munmap(memory, SIZE) == 0 && sbrk(0x3000) != (void *)-1;
    return good && sbrk(-0x3000) != (void *)-1;
}

static void *rounds(void *argument)
{
    long bad = 0;
    for (int i = 0; i < 2000; i++)
        bad += !one_round(i);
    say("%s: %ld bad", (const char *)argument, bad);
    return NULL;
}

int main(void)
{
    char name[] = "/tmp/mmap-interrupted-XXXXXX";
    struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    pthread_t thread;
    int status;
    fd = MUST(mkstemp(name));
    MUST(unlink(name));
    for (int i = 0; i < SIZE; i++)
        MUST(write(fd, &(char){(char)('a' + i % 26)}, 1));
    MUST(sigaction(SIGALRM, &action, NULL));
    MUST(setitimer(ITIMER_REAL, &often, NULL));
    rounds("alone");
    MUST(waitpid(CHILD(rounds("a child")), &status, 0));
    show_status("a child", status);
    NEED(pthread_create(&thread, NULL, rounds, "a thread") == 0);
    NEED(pthread_join(thread, NULL) == 0);
    MUST(setitimer(ITIMER_REAL, &never, NULL));
    SHOW_IF(ticks > 10);
    return 0;
}
