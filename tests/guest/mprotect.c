/* mprotect(2): what each protection allows, splitting and merging, executing written code. */
#include "mm_common.h"

#include <setjmp.h>

static sigjmp_buf back;

static void fault(int signo UNUSED)
{
    siglongjmp(back, 1);
}

static bool can_read(volatile char *at)
{
    if (sigsetjmp(back, 1))
        return false;
    (void)*at;
    return true;
}

static bool can_write(volatile char *at)
{
    if (sigsetjmp(back, 1))
        return false;
    *at = (char)0xc3;
    return true;
}

static bool can_execute(char *at)
{
    if (sigsetjmp(back, 1))
        return false;
    ((void (*)(void))at)();
    return true;
}

static void show(const char *what, char *at, int pages)
{
    char text[128] = "";
    for (int i = 0; i < pages; i++)
        sprintf(text + strlen(text), " %c%c%c", can_read(at + i * PAGE) ? 'r' : '-',
                can_write(at + i * PAGE) ? 'w' : '-', can_execute(at + i * PAGE) ? 'x' : '-');
    say("%s:%s", what, text);
}

int main(void)
{
    handle_flags(SIGSEGV, (void (*)(int, siginfo_t *, void *))fault, 0);
    char *at = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, ANON, -1, 0);
    for (int i = 0; i < 8; i++)
        at[i * PAGE] = (char)0xc3;
    CASE("protections");
    static const int prots[] = {PROT_NONE, PROT_READ, PROT_WRITE, PROT_READ | PROT_WRITE, PROT_EXEC,
                                PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE | PROT_EXEC};
    for (size_t i = 0; i < sizeof prots / sizeof *prots; i++)
        SHOW(mprotect(at + i * PAGE, PAGE, prots[i]));
    show("pages", at, 8);
    CASE("splitting and merging");
    SHOW(mprotect(at, 8 * PAGE, PROT_READ));
    SHOW(mprotect(at + 2 * PAGE, 3 * PAGE, PROT_READ | PROT_WRITE));
    SHOW(mprotect(at + 3 * PAGE, PAGE, PROT_NONE));
    show("pages", at, 8);
    SHOW(mprotect(at, 8 * PAGE, PROT_READ | PROT_WRITE));
    show("pages", at, 8);
    CASE("what was written stays");
    strcpy(at, "kept");
    MUST(mprotect(at, PAGE, PROT_NONE));
    MUST(mprotect(at, PAGE, PROT_READ));
    say("%s", at);
    CASE("code written at run time");
    static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
    MUST(mprotect(at, PAGE, PROT_READ | PROT_WRITE));
    memcpy(at, code, sizeof code);
    MUST(mprotect(at, PAGE, PROT_READ | PROT_EXEC));
    say("%d", ((int (*)(void))at)());
    static const unsigned char call[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3};
    MUST(mprotect(at, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
    memcpy(at, call, sizeof call);
    SHOW_IF(((int (*)(void))at)() == getpid());
    CASE("errors");
    SHOW(mprotect(at + 1, PAGE, PROT_READ));
    SHOW(mprotect(at, 0, PROT_READ));
    SHOW(mprotect(at, PAGE, 0x40));
    SHOW(mprotect(at, -1ul, PROT_READ));
    SHOW(mprotect(at, PAGE, PROT_READ | PROT_GROWSDOWN));
    MUST(munmap(at + 4 * PAGE, PAGE));
    SHOW(mprotect(at + 2 * PAGE, 4 * PAGE, PROT_NONE));
    show("before the hole", at + 2 * PAGE, 2);
    show("behind the hole", at + 5 * PAGE, 1);
    SHOW(mprotect((void *)-PAGE, PAGE, PROT_READ));
    CASE("over fork");
    MUST(mprotect(at, PAGE, PROT_NONE));
    reap("child", CHILD(show("page", at, 1); mprotect(at, PAGE, PROT_READ); show("page", at, 1)));
    show("page", at, 1);
    return 0;
}
