/* The heap's end and the stack: brk(2), sbrk(3), deep recursion, RLIMIT_STACK, and alloca of much. */
#include "check.h"

#include <alloca.h>

static long deep(long n)
{
    volatile char waste[4000];
    memset((char *)waste, (char)n, sizeof waste);
    return n == 0 ? 0 : deep(n - 1) + (waste[100] == (char)n);
}

int main(void)
{
    CASE("brk");
    char *start = sbrk(0);
    SHOW_IF(sbrk(4096 * 10) == start);
    SHOW_IF(sbrk(0) == start + 40960);
    memset(start, 5, 40960);
    SHOW_IF(brk(start + 100) == 0);
    SHOW_IF(sbrk(0) == start + 100);
    SHOW_IF(brk(start + 40960) == 0);
    say("kept %d, new page %d", start[50], start[8192]);
    SHOW_IF((char *)syscall(SYS_brk, 0) == start + 40960);
    SHOW_IF((char *)syscall(SYS_brk, 4096) == start + 40960);
    SHOW_IF((char *)syscall(SYS_brk, start + (1ul << 46)) == start + 40960);
    SHOW_IF((char *)syscall(SYS_brk, -1ul) == start + 40960);
    SHOW(brk(start + (1ul << 46)));
    SHOW_IF(brk(start) == 0);
    reap("inherited", CHILD(SHOW_IF(sbrk(0) == start); SHOW_IF(sbrk(4096) == start); *start = 1));
    SHOW_IF(sbrk(0) == start);
    CASE("RLIMIT_DATA");
    struct rlimit limit = {1 << 16, 1 << 16};
    reap("limited", CHILD(MUST(setrlimit(RLIMIT_DATA, &limit)); SHOW_IF(sbrk(1 << 20) == (void *)-1)));
    CASE("malloc");
    long sum = 0;
    for (int i = 1; i < 200; i++) {
        char *block = malloc(i * 1000);
        memset(block, i, i * 1000);
        sum += block[i * 1000 - 1];
        if (i % 3)
            free(block);
    }
    say("sum %ld", sum);
    CASE("the stack grows");
    say("%ld", deep(1500));
    volatile char *much = alloca(3 << 20);
    much[0] = 1;
    much[(3 << 20) - 1] = 2;
    say("%d %d", much[0], much[(3 << 20) - 1]);
    CASE("but not without end");
    no_core();
    reap("too deep", CHILD(deep(5000)));
    limit = (struct rlimit){1 << 20, 1 << 20};
    reap("a lower limit", CHILD(MUST(setrlimit(RLIMIT_STACK, &limit)); deep(1500)));
    reap("a higher limit", CHILD(limit = (struct rlimit){32 << 20, RLIM_INFINITY};
                                 if (setrlimit(RLIMIT_STACK, &limit) == 0) say("%ld", deep(5000))));
    CASE("a system call grows it, too");
    struct gate gate = gate_make();
    pid_t pid = CHILD({
        char *low = alloca(1 << 20);
        int fd = MUST(open("/dev/zero", O_RDONLY));
        SHOW(read(fd, low, 1 << 20));
    });
    reap("child", pid);
    gate_close(gate);
    return 0;
}
