/* Memory policies (numa(7)) as a machine with one node keeps them, and where pages are. */
#include "mm_common.h"

enum { DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL, PREFERRED_MANY, WEIGHTED, BEYOND };
#define STATIC (1 << 15)
#define RELATIVE (1 << 14)
#define BALANCING (1 << 13)
#define F_NODE 1
#define F_ADDR 2
#define F_MEMS 4

static unsigned long one = 1, two = 2, both = 3, none;

static long set(int mode, unsigned long *mask, unsigned long maxnode)
{
    return syscall(SYS_set_mempolicy, mode, mask, maxnode);
}

static long get(int *mode, unsigned long *mask, unsigned long maxnode, void *addr, unsigned long flags)
{
    return syscall(SYS_get_mempolicy, mode, mask, maxnode, addr, flags);
}

static long bind_to(void *at, unsigned long size, int mode, unsigned long *mask, unsigned long maxnode, unsigned flags)
{
    return syscall(SYS_mbind, at, size, mode, mask, maxnode, flags);
}

static void show_policy(const char *what, void *addr)
{
    int mode = -1;
    unsigned long mask = 77;
    if (get(&mode, &mask, 64, addr, addr ? F_ADDR : 0) < 0)
        say("%s: %s", what, error_name(errno));
    else
        say("%s: mode %#x nodes %#lx", what, mode, mask);
}

static void of_a_task(void)
{
    CASE("a task's policy");
    show_policy("at first", NULL);
    SHOW(set(BIND, &one, 64));
    show_policy("bind", NULL);
    SHOW(set(INTERLEAVE | STATIC, &both, 64));
    show_policy("interleave", NULL);
    SHOW(set(PREFERRED, NULL, 0));
    show_policy("preferred without nodes", NULL);
    SHOW(set(PREFERRED, &one, 64));
    show_policy("preferred", NULL);
    SHOW(set(LOCAL, NULL, 0));
    show_policy("local", NULL);
    SHOW(set(PREFERRED_MANY, &one, 64));
    show_policy("many", NULL);
    SHOW(set(BIND | BALANCING, &one, 64));
    reap("child", CHILD(show_policy("inherited", NULL)));
    SHOW(set(DEFAULT, NULL, 0));
    show_policy("default", NULL);
}

static void set_errors(void)
{
    CASE("set_mempolicy errors");
    unsigned long *many = calloc(1, 8192);
    SHOW(set(BEYOND, &one, 64));
    SHOW(set(-1, &one, 64));
    SHOW(set(BIND, &none, 64));
    SHOW(set(BIND, &two, 64));
    SHOW(set(BIND, NULL, 64));
    SHOW(set(BIND, &one, 0));
    SHOW(set(DEFAULT, &one, 0));
    SHOW(set(PREFERRED, &none, 0));
    SHOW(set(DEFAULT, BAD, 0));
    SHOW(set(DEFAULT, &one, 1));
    SHOW(set(PREFERRED, NULL, 1));
    SHOW(set(PREFERRED, NULL, 0));
    SHOW(set(BIND, &one, 1));
    SHOW(set(BIND, &one, 2));
    SHOW(set(DEFAULT, &one, 64));
    SHOW(set(LOCAL, &one, 64));
    SHOW(set(INTERLEAVE, &two, 64));
    SHOW(set(INTERLEAVE | BALANCING, &one, 64));
    SHOW(set(BIND | STATIC | RELATIVE, &one, 64));
    SHOW(set(PREFERRED | STATIC, NULL, 0));
    SHOW(set(PREFERRED | RELATIVE, &one, 64));
    SHOW(set(BIND, BAD, 64));
    many[0] = 1;
    SHOW(set(BIND, many, PAGE * 8 + 1));
    SHOW(set(BIND, many, PAGE * 8 + 2));
    SHOW(set(DEFAULT, NULL, 0));
    free(many);
}

static void get_errors(void)
{
    CASE("get_mempolicy errors");
    int mode;
    unsigned long mask;
    char *at = mmap(NULL, 2 * PAGE, RW, ANON, -1, 0);
    MUST(munmap(at + PAGE, PAGE));
    SHOW(get(NULL, NULL, 0, NULL, 0));
    SHOW(get(&mode, &mask, 64, NULL, 8));
    SHOW(get(&mode, &mask, 0, NULL, 0));
    SHOW(get(&mode, &mask, 64, at, 0));
    SHOW(get(&mode, &mask, 64, at + PAGE, F_ADDR));
    SHOW(get(&mode, &mask, 64, NULL, F_NODE));
    SHOW(get(&mode, &mask, 64, NULL, F_MEMS | F_NODE));
    SHOW(get(&mode, &mask, 64, NULL, F_MEMS | F_ADDR));
    SHOW(get(BAD, &mask, 64, NULL, 0));
    SHOW(get(&mode, BAD, 64, NULL, 0));
    mask = mode = 99;
    SHOW(get(&mode, &mask, 64, NULL, F_MEMS));
    say("allowed: %#x %#lx", mode, mask);
    SHOW(get(&mode, NULL, 0, at, F_ADDR | F_NODE));
    say("node %d", mode);
}

static void of_mappings(void)
{
    CASE("mbind");
    char *at = mmap(NULL, 8 * PAGE, RW, ANON, -1, 0);
    SHOW(bind_to(at + PAGE, 3 * PAGE, BIND, &one, 64, 0));
    SHOW(bind_to(at + 2 * PAGE, PAGE, INTERLEAVE, &one, 64, 0));
    for (int i = 0; i < 6; i++) {
        char name[16];
        snprintf(name, sizeof name, "page %d", i);
        show_policy(name, at + i * PAGE);
    }
    reap("child", CHILD(show_policy("inherited", at + PAGE)));
    MUST(munmap(at + PAGE, PAGE));
    NEED(mmap(at + PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) == at + PAGE);
    show_policy("mapped anew", at + PAGE);
    SHOW(bind_to(at, 8 * PAGE, DEFAULT, NULL, 0, 0));
    show_policy("default", at + 2 * PAGE);
    SHOW(bind_to(at, PAGE, LOCAL, NULL, 0, 1 | 2));
    SHOW(bind_to(at + 1, PAGE, BIND, &one, 64, 0));
    SHOW(bind_to(at, PAGE, BIND, &one, 64, 8));
    SHOW(bind_to(at, PAGE, BIND, &two, 64, 0));
    SHOW(bind_to(at, 0, BIND, &one, 64, 0));
    SHOW(bind_to(at, PAGE, BEYOND, &one, 64, 0));
    SHOW(bind_to(at, PAGE, BIND, BAD, 64, 0));
    SHOW(bind_to(at, -PAGE, BIND, &one, 64, 0));
    MUST(munmap(at + 4 * PAGE, PAGE));
    SHOW(bind_to(at, 8 * PAGE, BIND, &one, 64, 0));
    SHOW(bind_to(at + 4 * PAGE, PAGE, BIND, &one, 64, 0));
    SHOW(bind_to(at + 4 * PAGE, PAGE, DEFAULT, NULL, 0, 0));
}

static void where(void)
{
    CASE("move_pages");
    char *at = mmap(NULL, 4 * PAGE, RW, ANON, -1, 0);
    at[0] = at[2 * PAGE] = 1;
    MUST(munmap(at + 3 * PAGE, PAGE));
    void *pages[] = {at, at + PAGE, at + 2 * PAGE + 5, at + 3 * PAGE};
    int status[4] = {9, 9, 9, 9}, nodes[4] = {0};
    SHOW(syscall(SYS_move_pages, 0, 4ul, pages, NULL, status, 0));
    say("%d %d %d %d", status[0], status[1], status[2], status[3]);
    SHOW(syscall(SYS_move_pages, getpid(), 1ul, pages, NULL, status, 2));
    SHOW(syscall(SYS_move_pages, 0, 1ul, pages, nodes, status, 2));
    nodes[0] = 1;
    SHOW(syscall(SYS_move_pages, 0, 1ul, pages, nodes, status, 2));
    SHOW(syscall(SYS_move_pages, 0, 1ul, pages, NULL, status, 1));
    SHOW(syscall(SYS_move_pages, 0, 1ul, BAD, NULL, status, 0));
    SHOW(syscall(SYS_move_pages, 0, 1ul, pages, NULL, BAD, 0));
    SHOW(syscall(SYS_move_pages, 0, 0ul, NULL, NULL, NULL, 0));
    SHOW(syscall(SYS_move_pages, 0x3fffff, 1ul, pages, NULL, status, 0));
    SHOW(syscall(SYS_migrate_pages, 0, 64, &one, &one));
    SHOW(syscall(SYS_migrate_pages, 0, 64, &one, BAD));
    SHOW(syscall(SYS_migrate_pages, 0x3fffff, 64, &one, &one));
    SHOW(syscall(SYS_migrate_pages, 0, 64, &one, &none));
}

int main(void)
{
    of_a_task();
    set_errors();
    get_errors();
    of_mappings();
    where();
    return 0;
}
