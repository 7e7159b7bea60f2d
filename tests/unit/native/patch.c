/* Trampolines at work, in this process: sites and trampolines are made in a buffer and executed.
 *
 *   contract   what the stub's entry gets, and what the code behind the site finds, for many replaced instructions
 *   settle     a thread that stops anywhere in a trampoline is taken out of it with the right registers
 *   hammer     threads run through a site all the time while it is patched and put back
 *
 * "Native" below is what the unpatched code does.  Each part prints its name when all of it was right.
 */
#define _GNU_SOURCE
#include "engine.h"
#include "patch.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define MARKER 0x5a5a5a5a
#define STATUS 0x8d5ull /* OF SF ZF AF PF CF */
#define RED_ZONE 128

#define FAIL(...)                                                                                                      \
    do {                                                                                                               \
        fprintf(stderr, "line %d: ", __LINE__);                                                                        \
        fprintf(stderr, __VA_ARGS__);                                                                                  \
        fputc('\n', stderr);                                                                                           \
        exit(1);                                                                                                       \
    } while (0)

/* rax rcx rdx rbx rsp rbp rsi rdi r8…r15, then the flags. */
struct state {
    uint64_t r[17];
};
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, FLAGS };

struct state before, after, seen; /* for the assembly below */
uint64_t host_stack, target;
void run_code(void);
void fake_entry(void);

#define SAVE(to)                                                                                                       \
    "mov %rax," to "(%rip); mov %rcx," to "+8(%rip); mov %rdx," to "+16(%rip); mov %rbx," to "+24(%rip)\n"             \
    "mov %rsp," to "+32(%rip); mov %rbp," to "+40(%rip); mov %rsi," to "+48(%rip); mov %rdi," to "+56(%rip)\n"         \
    "mov %r8," to "+64(%rip); mov %r9," to "+72(%rip); mov %r10," to "+80(%rip); mov %r11," to "+88(%rip)\n"           \
    "mov %r12," to "+96(%rip); mov %r13," to "+104(%rip); mov %r14," to "+112(%rip); mov %r15," to "+120(%rip)\n"

/* run_code: load `before`, jump to `target`, whose ret comes back to store `after`.
 * fake_entry: what the stub will do, as far as the guest can tell. */
__asm__(".text\n"
        "run_code: push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "pushq before+128(%rip); mov %rsp,host_stack(%rip); popfq\n"
        "mov before(%rip),%rax; mov before+8(%rip),%rcx; mov before+16(%rip),%rdx; mov before+24(%rip),%rbx\n"
        "mov before+32(%rip),%rsp; mov before+40(%rip),%rbp; mov before+48(%rip),%rsi; mov before+56(%rip),%rdi\n"
        "mov before+64(%rip),%r8; mov before+72(%rip),%r9; mov before+80(%rip),%r10; mov before+88(%rip),%r11\n"
        "mov before+96(%rip),%r12; mov before+104(%rip),%r13; mov before+112(%rip),%r14; mov before+120(%rip),%r15\n"
        "jmp *target(%rip)\n"
        ".globl come_back\n"
        "come_back:\n" SAVE("after") "mov host_stack(%rip),%rsp; pushfq; popq after+128(%rip); add $8,%rsp\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; cld; ret\n"
        "fake_entry:\n" SAVE("seen") "add $0x7f,%al; sahf; mov $0x5a5a5a5a,%eax; jmp *%rcx\n");
extern char come_back[];

/* Code at `code`, trampolines two pages further on, which is as good as 2 GiB for all that matters here. */
static uint8_t *code, *trampolines;
static uint64_t stack[512] __attribute__((aligned(64)));

static void set_gs(uint64_t base)
{
    __asm__ volatile("wrgsbase %0" : : "r"(base));
}

#define HONEST 0x7ffffd123000ull

struct site {
    uint64_t entry; /* where the function begins that holds the site */
    struct patch_plan plan;
    uint64_t trampoline;
};

/* A function at `at`: some plain code, the instruction, syscall, ret, padding. */
static uint64_t build(uint8_t *at, const uint8_t *insn, uint32_t length, uint32_t shift)
{
    memset(code, 0x90, 4096);
    memcpy(at + shift, insn, length);
    memcpy(at + shift + length, "\x0f\x05\xc3", 3);
    return (uint64_t)(at + shift);
}

static void plan_site(struct site *s, uint64_t start, uint32_t length, const struct state *at_site, uint64_t number)
{
    struct guest_regs regs = {.rip = start + length + 2, .orig_rax = number};
    uint8_t slot[PATCH_SLOT];
    uint32_t size;
    int error;
    regs.rdx = at_site->r[RDX], regs.rbx = at_site->r[RBX], regs.rbp = at_site->r[RBP], regs.rsi = at_site->r[RSI];
    regs.rdi = at_site->r[RDI], regs.r8 = at_site->r[R8], regs.r9 = at_site->r[R9], regs.r10 = at_site->r[R10];
    error = patch_analyze(code, 4096, (uint64_t)code, &regs, &s->plan);
    if (error)
        FAIL("analysis: %d", error);
    if (s->plan.start != start || s->plan.length != length)
        FAIL("wrong instruction");
    s->entry = start;
    s->trampoline = (uint64_t)trampolines + PATCH_SLOT;
    *(uint64_t *)trampolines = (uint64_t)fake_entry;
    size = patch_emit(&s->plan, s->trampoline, (uint64_t)trampolines, slot);
    if (!size)
        FAIL("trampoline out of reach");
    memcpy(trampolines + PATCH_SLOT, slot, PATCH_SLOT);
}

/* One step, as the platform will do it: an atomic store, and no processor goes on with old bytes. */
static void store(const struct patch_step *step)
{
    uint64_t *word = (uint64_t *)(step->addr & ~7ull), value = *word;
    if (step->addr % 8 + step->size > 8)
        FAIL("a step across words");
    memcpy((uint8_t *)&value + step->addr % 8, step->bytes, step->size);
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
}

static void patch(const struct site *s, int alone, int undo)
{
    struct patch_step steps[PATCH_STEPS_MAX];
    int count = patch_steps(&s->plan, s->trampoline, alone, undo, steps);
    if (count == 0)
        FAIL("no steps");
    for (int i = 0; i < count; i++)
        store(&steps[i]);
}

static void random_state(struct state *s, const uint64_t *values, uint64_t flags)
{
    for (int i = 0; i < 16; i++)
        s->r[i] = values[i];
    s->r[FLAGS] = flags | 0x202;
    s->r[RSP] = (uint64_t)(stack + 256);
    s->r[RDI] = (uint64_t)-1; /* what read(2) is to fail with */
    for (int i = 0; i < 512; i++)
        stack[i] = 0x1111111111111111ull * (uint64_t)(i % 15 + 1);
    stack[256] = (uint64_t)come_back;
    stack[257] = stack[258] = 110;
}

struct variant {
    const char *name;
    uint32_t length;
    uint8_t insn[16];
    uint64_t number;
};

static const struct variant variants[] = {
    {"mov $110,%eax", 5, {0xb8, 110, 0, 0, 0}, 110},
    {"mov $110,%rax", 7, {0x48, 0xc7, 0xc0, 110, 0, 0, 0}, 110},
    {"xor %eax,%eax", 2, {0x31, 0xc0}, 0},
    {"mov %r8d,%eax", 3, {0x44, 0x89, 0xc0}, 110},
    {"mov %rbx,%rax", 3, {0x48, 0x89, 0xd8}, 110},
    {"mov 8(%rsp),%rax", 5, {0x48, 0x8b, 0x44, 0x24, 0x08}, 110},
    {"mov 8(%rsp),%r9", 5, {0x4c, 0x8b, 0x4c, 0x24, 0x08}, 110},
    {"lea 0x40(%rip),%rsi", 7, {0x48, 0x8d, 0x35, 0x40, 0, 0, 0}, 110},
    {"movl $7,-0x48(%rsp)", 8, {0xc7, 0x44, 0x24, 0xb8, 7, 0, 0, 0}, 110},
    {"xor $0x81,%sil", 4, {0x40, 0x80, 0xf6, 0x81}, 110},
    {"add $1,%edx", 3, {0x83, 0xc2, 0x01}, 110},
    {"pop %rdi", 2, {0x41, 0x5a}, 110},
};
#define VARIANTS (sizeof(variants) / sizeof(variants[0]))

static const uint8_t *bytes_of(const struct variant *v)
{
    return v->insn;
}

static void prepare(const struct variant *v, struct state *s, uint64_t seed)
{
    uint64_t values[16];
    for (int i = 0; i < 16; i++)
        values[i] = (seed = seed * 6364136223846793005ull + 1442695040888963407ull);
    random_state(s, values, seed >> 20 & (STATUS | 0x400));
    s->r[RAX] = s->r[R8] = s->r[RBX] = 110;
    if (v->length == 2 && v->insn[0] == 0x41) { /* a pop moves the return address up */
        stack[257] = (uint64_t)come_back;
        stack[256] = 110;
    }
}

static void same(const char *what, const struct variant *v, const struct state *a, const struct state *b, uint64_t skip)
{
    for (int i = 0; i < 17; i++)
        if (!(skip >> i & 1) && (i == FLAGS ? (a->r[i] ^ b->r[i]) & STATUS : a->r[i] != b->r[i]))
            FAIL("%s, %s: register %d is %#lx, not %#lx", v->name, what, i, b->r[i], a->r[i]);
}

#define BIT(n) (1ull << (n))

static void contract_of(const struct variant *v, uint32_t shift, uint64_t seed)
{
    struct site s;
    struct state start, native;
    uint64_t red[RED_ZONE / 8], flags;
    uint64_t at = build(code + 1024, bytes_of(v), v->length, shift);
    prepare(v, &start, seed);
    before = start;
    target = at;
    set_gs(0);
    run_code();
    native = after; /* r11 has the flags at the syscall */
    memcpy(red, (uint8_t *)start.r[RSP] - RED_ZONE, RED_ZONE);

    prepare(v, &start, seed);
    before = start;
    plan_site(&s, at, v->length, &native, v->number);
    patch(&s, seed & 1, 0);
    if (!memcmp((void *)at, v->insn, v->length < 5 ? 2 : 5))
        FAIL("%s: not patched", v->name);
    run_code(); /* not ours: a real system call */
    same("slow way", v, &native, &after, 0);
    if (memcmp(red, (uint8_t *)start.r[RSP] - RED_ZONE, RED_ZONE))
        FAIL("%s: red zone, slow way", v->name);

    prepare(v, &start, seed);
    before = start;
    memset(&seen, 0, sizeof(seen));
    set_gs(HONEST);
    run_code();
    set_gs(0);
    if ((uint32_t)seen.r[R11] != v->number || seen.r[RCX] != s.plan.site + 2)
        FAIL("%s: entry got r11 %#lx rcx %#lx", v->name, seen.r[R11], seen.r[RCX]);
    flags = (seen.r[RAX] >> 8 & 0xd5) | (seen.r[RAX] & 1 ? 0x800 : 0);
    if ((flags ^ native.r[R11]) & STATUS || (seen.r[RAX] & 0xff) > 1)
        FAIL("%s: entry got flags %#lx in %#lx, not %#lx", v->name, flags, seen.r[RAX], native.r[R11]);
    /* The entry's rsp is one return address short of what comes back. */
    seen.r[RSP] += 8;
    same("entry", v, &native, &seen, BIT(RAX) | BIT(RCX) | BIT(R11) | BIT(FLAGS));
    same("fast way", v, &native, &after, BIT(RAX) | BIT(R11) | BIT(RCX));
    if (after.r[RAX] != MARKER)
        FAIL("%s: the entry was not reached", v->name);
    if (memcmp(red, (uint8_t *)start.r[RSP] - RED_ZONE, RED_ZONE))
        FAIL("%s: red zone, fast way", v->name);

    patch(&s, seed & 1, 1);
    if (memcmp((void *)at, v->insn, v->length))
        FAIL("%s: not put back", v->name);
}

static void contract(void)
{
    uint64_t seed = 1;
    for (uint32_t i = 0; i < VARIANTS; i++)
        for (uint32_t shift = 0; shift < 16; shift++) {
            /* Short ones need padding behind the ret: it ends at a multiple of 16. */
            uint32_t behind = (shift + variants[i].length + 3) % 16;
            if (variants[i].length < 5 && (behind == 0 || behind > 11))
                continue;
            for (uint32_t n = 0; n < 50; n++)
                contract_of(&variants[i], shift, seed++);
        }
    puts("contract");
}

/* ---- settle ---- */

static void child(const struct site *s, uint64_t gs)
{
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    set_gs(gs);
    target = s->entry;
    raise(SIGSTOP);
    run_code();
    _exit(0);
}

static struct guest_regs get_regs(pid_t pid)
{
    struct guest_regs regs;
    _Static_assert(sizeof(regs) == sizeof(struct user_regs_struct), "layout");
    if (ptrace(PTRACE_GETREGS, pid, 0, &regs))
        FAIL("getregs: %s", strerror(errno));
    return regs;
}

static void step(pid_t pid)
{
    int status;
    ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
        FAIL("step: status %#x", status);
}

/* The registers when the site's code is at `start` and at the syscall. */
static void reference(const struct site *s, struct guest_regs *at_start, struct guest_regs *at_site)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        child(s, 0);
    waitpid(pid, &status, 0);
    for (*at_site = get_regs(pid); at_site->rip != s->plan.site; *at_site = get_regs(pid)) {
        if (at_site->rip == s->plan.start)
            *at_start = *at_site;
        step(pid);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
}

static void equal(const struct variant *v, const struct guest_regs *a, const struct guest_regs *b, uint64_t rip)
{
    const uint64_t *x = (const uint64_t *)a, *y = (const uint64_t *)b;
    for (size_t i = 0; i < 21; i++) {
        size_t at = i * 8;
        if (at == offsetof(struct guest_regs, rcx) || at == offsetof(struct guest_regs, r11) ||
            at == offsetof(struct guest_regs, orig_rax) || at == offsetof(struct guest_regs, cs))
            continue;
        if (at == offsetof(struct guest_regs, eflags) ? (x[i] ^ y[i]) & (STATUS | 0x400) : x[i] != y[i])
            FAIL("%s: settled from %#lx: register %zu is %#lx, not %#lx", v->name, rip, i, y[i], x[i]);
    }
}

static int settle_one(const struct variant *v, uint64_t seed, uint64_t gs)
{
    struct site s;
    struct state start;
    struct guest_regs at_start = {0}, at_site, regs, settled;
    struct patch_table *table = patch_table_new(1);
    struct patch_site *record;
    int status, inside = 0;
    pid_t pid;
    uint64_t at = build(code + 1024, bytes_of(v), v->length, 0);
    prepare(v, &start, seed);
    before = start;
    plan_site(&s, at, v->length, &start, v->number);
    reference(&s, &at_start, &at_site);
    patch(&s, 1, 0);
    patch_trap(table, s.plan.site);
    record = patch_find(table, s.plan.site);
    record->plan = s.plan;
    record->trampoline = s.trampoline;
    patch_set(table, record, PATCH_PATCHED);
    pid = fork();
    if (pid == 0)
        child(&s, gs);
    waitpid(pid, &status, 0);
    for (regs = get_regs(pid); regs.rip != (uint64_t)fake_entry && regs.rip != s.plan.site; regs = get_regs(pid)) {
        settled = regs;
        if (patch_settle(table, &settled, 0))
            FAIL("%s: stalled", v->name);
        if (settled.rip != regs.rip) {
            inside++;
            equal(v, settled.rip == s.plan.start ? &at_start : &at_site, &settled, regs.rip);
        }
        step(pid);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    patch_table_free(table);
    return inside;
}

static void settle(void)
{
    for (uint32_t i = 0; i < VARIANTS; i++) {
        uint32_t behind = (variants[i].length + 3) % 16;
        if (variants[i].length < 5 && (behind == 0 || behind > 11))
            continue;
        for (uint64_t n = 0; n < 4; n++) {
            int holes = variants[i].length < 5;
            int fast = settle_one(&variants[i], n * 77 + i, HONEST), slow = settle_one(&variants[i], n * 77 + i, 0);
            if (fast != 10 + holes || slow != 12 + holes)
                FAIL("%s: %d and %d stops inside", variants[i].name, fast, slow);
        }
    }
    puts("settle");
}

/* ---- hammer ---- */

static volatile int stop_all;
static volatile uint64_t calls[8], marked;
static struct site hammered;

static void on_sigill(int signo, siginfo_t *info, void *context)
{
    ucontext_t *u = context;
    (void)signo;
    (void)info;
    if ((uint64_t)u->uc_mcontext.gregs[REG_RIP] != hammered.plan.start || hammered.plan.start % 8 != 7)
        _exit(3);
}

/* Counts what comes back in r12, r13; fake_entry can't be used, as it writes to memory that all share. */
__asm__(".text\n"
        "thread_entry: add $0x7f,%al; sahf; mov $0x5a5a5a5a,%eax; jmp *%rcx\n");
void thread_entry(void);

static void *hammer_thread(void *argument)
{
    volatile uint64_t *count = argument;
    uint64_t parent = (uint64_t)getppid();
    set_gs(HONEST);
    while (!stop_all) {
        uint64_t result = 0, guard = 0x1234567890abcdefull;
        uint8_t carry;
        __asm__ volatile("sub $256,%%rsp; stc; call *%[f]; setc %[c]; add $256,%%rsp"
                         : "=&a"(result), [c] "=&r"(carry), "+r"(guard)
                         : [f] "r"(hammered.entry), "D"(-1L), "S"(0L), "d"(0L)
                         : "rcx", "r11", "memory", "cc");
        if (result == MARKER)
            marked++;
        else if (result != parent && result != (uint64_t)-EBADF)
            _exit(4);
        if (guard != 0x1234567890abcdefull || (carry != 1 && hammered.plan.length == 5))
            _exit(5);
        ++*count;
    }
    return NULL;
}

static void hammer_one(const struct variant *v, uint32_t shift, int flips)
{
    pthread_t threads[3];
    struct state start;
    uint64_t at = build(code + 1024, v->insn, v->length, shift), was, total = 0;
    prepare(v, &start, 1);
    plan_site(&hammered, at, v->length, &start, v->number);
    *(uint64_t *)trampolines = (uint64_t)thread_entry;
    stop_all = 0;
    marked = 0;
    for (int i = 0; i < 3; i++) {
        calls[i] = 0;
        if (pthread_create(&threads[i], NULL, hammer_thread, (void *)&calls[i]))
            FAIL("pthread_create");
    }
    for (int i = 0; i < flips; i++) {
        /* Both states must be met by somebody. */
        for (int undo = 0; undo < 2; undo++) {
            patch(&hammered, 0, undo);
            for (was = calls[0] + calls[1] + calls[2]; calls[0] + calls[1] + calls[2] == was;)
                syscall(SYS_sched_yield);
        }
    }
    stop_all = 1;
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        total += calls[i];
    }
    if (!marked || marked >= total)
        FAIL("%s+%u: %lu of %lu calls were fast", v->name, shift, marked, total);
}

static void hammer(int flips)
{
    struct sigaction action = {.sa_sigaction = on_sigill, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &action, NULL);
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0)) {
        puts("hammer (not here: no membarrier)");
        return;
    }
    for (uint32_t shift = 0; shift < 8; shift++)
        hammer_one(&variants[0], shift, flips);
    /* `xor` with padding behind the ret, at each place of its word. */
    for (uint32_t shift = 0; shift < 8; shift++)
        hammer_one(&variants[2], (shift + 2 + 3) % 16 > 11 ? shift + 8 : shift, flips);
    puts("hammer");
}

int main(int argc, char **argv)
{
    code = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        FAIL("mmap: %s", strerror(errno));
    trampolines = code + 2 * 4096;
    setvbuf(stdout, NULL, _IONBF, 0);
    contract();
    settle();
    hammer(argc > 1 ? atoi(argv[1]) : 200);
    return 0;
}
