/* Attacks on the stub's code and memory: written over, taken away, jumped into. */
#include "trap.h"

static void scribble_one(long i)
{
    static const unsigned char with[] = {0xcc, 0x90, 0xc3, 0x00, 0xf4, 0x0f};
    unsigned char *stub = (unsigned char *)STUB_BASE;
    if (host(SYS_mprotect, STUB_BASE, STUB_SIZE, 7, 0, 0, 0) != 0) {
        printf("the stub can't be written\n");
        return;
    }
    if (i < 6) {
        memset(stub, with[i], STUB_SIZE);
    } else if (i == 6) { /* jmp . */
        for (int k = 0; k < STUB_SIZE; k += 2)
            stub[k] = 0xeb, stub[k + 1] = 0xfe;
    } else if (i == 7) { /* every call's number becomes another's */
        for (int k = 0; k < STUB_SIZE; k++)
            if (stub[k] == 0xb8)
                stub[k + 1] ^= 1;
    } else {
        for (int k = 0; k < 64; k++)
            stub[rnd() % STUB_SIZE] = (unsigned char)rnd();
    }
    some_calls();
}

static void scribble(void)
{
    for (long i = 0; i < 24; i++)
        alone(scribble_one, i);
}

/* One thread's stub is overwritten while another is in the Sentry's hands. */
static void *write_over(void *fill)
{
    catch_all();
    usleep(1000);
    if (host(SYS_mprotect, STUB_BASE, STUB_SIZE, 7, 0, 0, 0) == 0)
        memset((void *)STUB_BASE, (int)(long)fill, STUB_SIZE);
    for (;;)
        ;
    return NULL;
}

static void scribble_race_one(long i)
{
    pthread_t thread;
    pthread_create(&thread, NULL, write_over, (void *)(i % 2 ? 0xccl : 0x90l));
    for (;;)
        some_calls();
}

static void scribble_race(void)
{
    for (long i = 0; i < 4; i++)
        alone(scribble_race_one, i);
}

static void unmap_one(long i)
{
    unsigned long record = record_here();
    switch (i) {
    case 0: host(SYS_munmap, STUB_BASE, STUB_SIZE, 0, 0, 0, 0); break;
    case 1: host(SYS_munmap, (long)record, RECORD_SIZE, 0, 0, 0, 0); break;
    case 2: host(SYS_munmap, SHARED_PAGE, 4096, 0, 0, 0, 0); break;
    case 3: host(SYS_munmap, STUB_BASE, STUB_TASK_END - STUB_BASE, 0, 0, 0, 0); break;
    case 4: host(SYS_munmap, 0, STUB_TASK_END, 0, 0, 0, 0); break;
    case 5: host(SYS_munmap, (long)record, 4096, 0, 0, 0, 0); break;
    case 6: host(SYS_munmap, (long)record + RECORD_SIZE / 2, RECORD_SIZE / 2, 0, 0, 0, 0); break;
    case 7: host(SYS_munmap, (long)record + 0x1000, 0xf000, 0, 0, 0, 0); break;
    case 8: host(SYS_mprotect, (long)record, RECORD_SIZE, 0, 0, 0, 0); break;
    case 9: host(SYS_mprotect, (long)record, RECORD_SIZE, 1, 0, 0, 0); break;
    case 10: host(SYS_mprotect, STUB_BASE, STUB_SIZE, 0, 0, 0, 0); break;
    case 11: host(SYS_mprotect, STUB_BASE, STUB_SIZE, 3, 0, 0, 0); break;
    case 12: /* memory of its own where the record was: nobody hears it any more */
        host(SYS_mmap, (long)record, RECORD_SIZE, 3, 0x32, -1, 0);
        break;
    case 13: host(SYS_mmap, SHARED_PAGE, 4096, 3, 0x32, -1, 0); break;
    case 14: host(SYS_mmap, STUB_BASE, STUB_SIZE, 7, 0x32, -1, 0); break;
    case 15: { /* an alternate stack of its own: the next signal's record is what it makes of it */
        static char stack[0x40000] __attribute__((aligned(0x20000)));
        stack_t alt = {.ss_sp = stack + 0x1000, .ss_size = 0xf000};
        host(SYS_sigaltstack, (long)&alt, 0, 0, 0, 0, 0);
        break;
    }
    default: { /* none: signals arrive on the guest's stack */
        stack_t alt = {.ss_flags = SS_DISABLE};
        host(SYS_sigaltstack, (long)&alt, 0, 0, 0, 0, 0);
    }
    }
    some_calls();
}

static void unmap(void)
{
    for (long i = 0; i < 17; i++)
        alone(unmap_one, i);
}

static void advise_one(long advice)
{
    unsigned long places[] = {record_here(), SHARED_PAGE, STUB_BASE, RECORDS_BASE, (unsigned long)&advice & -4096ul};
    int fd = open("/etc/passwd", O_RDONLY);
    char *file = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    char before = *file;
    for (size_t i = 0; i < 4; i++)
        host(SYS_madvise, (long)places[i], i ? 4096 : RECORD_SIZE, advice, 0, 0, 0);
    host(SYS_madvise, (long)file, 4096, advice, 0, 0, 0);
    CHECK(host(SYS_mprotect, (long)file, 4096, 3, 0, 0, 0) != 0);
    CHECK(*file == before);
    some_calls();
    if (fork() == 0)
        some_calls();
}

static void advise(void)
{
    for (long advice = 0; advice < 27; advice++)
        alone(advise_one, advice);
    for (long advice = 100; advice < 104; advice++)
        alone(advise_one, advice);
}

/* The stub calls the program's vDSO: that its beginning is as it was says little of the rest. */
static void clock_one(long i)
{
    static const unsigned char with[] = {0xcc, 0x90, 0xc3, 0x00, 0xf4};
    struct timespec now;
    unsigned long first = 0, last = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        if (strstr(line, "[vdso]"))
            sscanf(line, "%lx-%lx", &first, &last);
    CHECK(first);
    if (i == 0) {
        CHECK(munmap((void *)(first - 4 * 4096), 4 * 4096) == 0);
    } else {
        CHECK(mprotect((void *)first, last - first, 7) == 0);
        /* The dynamic linker's tables are in the first part, what the functions begin with stays. */
        unsigned char *bytes = (unsigned char *)first;
        for (unsigned long at = 0x400; at < last - first; at++)
            if (at % 16 >= 8 || i > 6)
                bytes[at] = i < 6 ? with[i - 1] : (unsigned char)rnd();
    }
    for (int k = 0; k < 200; k++)
        raw6(SYS_clock_gettime, k % 12, (long)&now, 0, 0, 0, 0);
    some_calls();
}

static void clocks(void)
{
    for (long i = 0; i < 20; i++)
        alone(clock_one, i);
}

/* Anywhere in the stub's text, with registers that mean something there. */
static long interesting(void)
{
    unsigned long record = record_here();
    unsigned long more[] = {record, record + 0x80, record + 0x8000, record + RECORD_SIZE, SYS_munmap, SYS_mremap, SYS_clone,
                            SYS_mmap, SYS_exit, SYS_rt_sigreturn, SYS_futex, 0x32, 0x22, 0x11, RECORD_SIZE};
    return (long)(rnd() % 2 ? more[rnd() % 15] : values[rnd() % (sizeof values / sizeof *values)]);
}

static void jump_one(long i)
{
    const unsigned char *stub = (const unsigned char *)STUB_BASE;
    unsigned long sites[256], count = 0, end = STUB_SIZE;
    while (end > 0 && !stub[end - 1])
        end--;
    for (unsigned long at = 0; at + 1 < end && count < 256; at++)
        if (stub[at] == 0x0f && stub[at + 1] == 0x05)
            sites[count++] = STUB_BASE + at;
    CHECK(count >= 4);
    for (int k = 0; k < 50; k++) {
        unsigned long at = rnd() % 2 ? sites[rnd() % count] : STUB_BASE + rnd() % end;
        long regs[6] = {interesting(), interesting(), interesting(), interesting(), interesting(), interesting()};
        ualarm(200000, 200000);
        go(i == 0 ? SYS_CALL_SITE : at, regs, interesting());
    }
}

static void jumps(void)
{
    const char *given = getenv("SEED"), *times = getenv("TIMES");
    long first = given ? atol(given) : 1;
    for (long i = 0; i < (times ? atol(times) : 150); i++)
        alone(jump_one, first + i);
}

static const struct attack attacks[] = {
    {"scribble", scribble}, {"scribble_race", scribble_race}, {"unmap", unmap}, {"advise", advise}, {"clocks", clocks},
    {"jumps", jumps}, {NULL, NULL}};

int main(int argc, char **argv) { return attack_stub(attacks, argc, argv); }
