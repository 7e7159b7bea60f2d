/*
 * Sizes of alternate signal stacks: what sigaltstack(2) takes, what a handler can run on, and what
 * becomes of a signal whose frame does not fit; and execveat(2) of absolute paths, which looks at
 * no descriptor.
 */
#include "check.h"

static volatile sig_atomic_t on_stack;
static char *area;

static void note(int signo UNUSED)
{
    char here;
    on_stack = &here >= area && &here < area + (1 << 20);
}

static void try_size(size_t size)
{
    stack_t stack = {.ss_sp = area, .ss_size = size}, old;
    say("size %zu", size);
    SHOW(sigaltstack(&stack, NULL));
    MUST(sigaltstack(NULL, &old));
    say("flags %d, size %zu", old.ss_flags, old.ss_size);
}

static void sizes(void)
{
    CASE("sizes");
    static const size_t all[] = {0, 1, 2047, 2048, 4096, 8192, 65536};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        try_size(all[i]);
    stack_t off = {.ss_flags = SS_DISABLE, .ss_size = 1};
    SHOW(sigaltstack(&off, NULL));
}

static void frames(void)
{
    CASE("frames");
    static const size_t all[] = {2048, 16384, 65536};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char what[32];
        snprintf(what, sizeof what, "a stack of %zu", all[i]);
        reap(what, CHILD({
                 struct sigaction action = {.sa_handler = note, .sa_flags = SA_ONSTACK};
                 stack_t stack = {.ss_sp = area, .ss_size = all[i]};
                 no_core();
                 MUST(sigaltstack(&stack, NULL));
                 MUST(sigaction(SIGUSR1, &action, NULL));
                 MUST(raise(SIGUSR1));
                 SHOW_IF(on_stack);
             }));
    }
}

static void absolute(void)
{
    CASE("execveat");
    char *argv[] = {"sh", "-c", "exit 7", NULL}, *envp[] = {NULL};
    int file = MUST(open("/dev/null", O_RDONLY | O_CLOEXEC));
    reap("no descriptor", CHILD(SHOW(syscall(SYS_execveat, -1, "/bin/sh", argv, envp, 0))));
    reap("a file", CHILD(SHOW(syscall(SYS_execveat, file, "/bin/sh", argv, envp, 0))));
    reap("relative", CHILD(SHOW(syscall(SYS_execveat, -1, "bin/sh", argv, envp, 0))));
    reap("relative to a file", CHILD(SHOW(syscall(SYS_execveat, file, "bin/sh", argv, envp, 0))));
    int root = MUST(open("/", O_RDONLY | O_DIRECTORY));
    reap("relative to a directory",
         CHILD(SHOW(syscall(SYS_execveat, root, "bin/sh", argv, envp, 0))));
}

int main(void)
{
    area = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(area != MAP_FAILED);
    sizes();
    frames();
    absolute();
    return 0;
}
