/* ptrace(2): debug registers: data that is watched, instructions to stop at, and what they refuse. */
#include "ptrace_common.h"

#define DR(n) offsetof(struct user, u_debugreg[n])
#define DR7(slot, kind, size) (1ul << 2 * (slot) | (unsigned long)((size) << 2 | (kind)) << (16 + 4 * (slot)))
enum { EXECUTE, WRITE, IO, ACCESS };
enum { BYTE, WORD, QUAD, LONG };

static volatile struct {
    unsigned char bytes[16];
    unsigned long quad;
} data __attribute__((aligned(16)));

static __attribute__((noinline)) void place(void)
{
    __asm__ volatile("nop");
}

static void works(void)
{
    data.bytes[3] = 1;
    data.bytes[4] = 2;
    data.quad = 5;
    data.quad = 6;
    place();
    say("done");
}

static long poke(pid_t pid, size_t offset, unsigned long value)
{
    return ptrace(PTRACE_POKEUSER, pid, offset, value);
}

static void show_hit(const char *what, pid_t pid)
{
    siginfo_t info;
    struct user_regs_struct regs;
    go(what, PTRACE_CONT, pid, 0);
    if (ptrace(PTRACE_GETSIGINFO, pid, 0, &info) < 0)
        return;
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    say("code %d, address is rip: %s, trap flag %s, status %#lx", info.si_code,
        (unsigned long)info.si_addr == regs.rip ? "yes" : "no", regs.eflags & 0x100 ? "set" : "clear",
        ptrace(PTRACE_PEEKUSER, pid, DR(6), 0) & 0xf);
    say("%d %d %lu", (int)(ptrace(PTRACE_PEEKDATA, pid, data.bytes, 0) >> 24 & 0xff),
        (int)(ptrace(PTRACE_PEEKDATA, pid, data.bytes, 0) >> 32 & 0xff), (unsigned long)ptrace(PTRACE_PEEKDATA, pid, &data.quad, 0));
}

static void watches(void)
{
    CASE("data");
    pid_t pid = traced(works);
    SHOW(ptrace(PTRACE_PEEKUSER, pid, DR(0), 0));
    SHOW(ptrace(PTRACE_PEEKUSER, pid, DR(7), 0));
    say("status %#lx", ptrace(PTRACE_PEEKUSER, pid, DR(6), 0));
    SHOW(poke(pid, DR(0), (unsigned long)&data.bytes[4]));
    SHOW(poke(pid, DR(1), (unsigned long)&data.quad));
    SHOW(poke(pid, DR(7), DR7(0, WRITE, BYTE) | DR7(1, WRITE, QUAD)));
    SHOW_IF(ptrace(PTRACE_PEEKUSER, pid, DR(0), 0) == (long)&data.bytes[4]);
    SHOW_IF(ptrace(PTRACE_PEEKUSER, pid, DR(7), 0) == (long)(DR7(0, WRITE, BYTE) | DR7(1, WRITE, QUAD)));
    show_hit("byte", pid);
    show_hit("quad", pid);
    SHOW(poke(pid, DR(6), 0));
    SHOW(poke(pid, DR(7), DR7(0, WRITE, BYTE)));
    go("ends", PTRACE_CONT, pid, 0);
}

static volatile long sink;

static void reads(void)
{
    unsigned char copy[16];
    sink = data.bytes[7];
    sink = (long)data.quad;
    sink = data.bytes[8];
    memcpy(copy, (void *)data.bytes, 16);
    sink = copy[3];
    __asm__ volatile("rep lodsb" ::"S"(data.bytes + 6), "c"(3l) : "rax", "memory");
    __asm__ volatile("lea %0, %%rax\n\tnopl %0" ::"m"(data.bytes[8]) : "rax");
    data.bytes[8] = 9;
    say("done");
}

/* Rises by one for each instruction that touches data.bytes[8]. */
static void accesses(void)
{
    CASE("reads");
    struct user_regs_struct regs;
    int status, hits = 0;
    pid_t pid = traced(reads);
    SHOW(poke(pid, DR(2), (unsigned long)&data.bytes[8]));
    SHOW(poke(pid, DR(7), DR7(2, ACCESS, BYTE)));
    for (;;) {
        MUST(ptrace(PTRACE_CONT, pid, 0, 0));
        NEED(waitpid(pid, &status, 0) == pid);
        if (!WIFSTOPPED(status))
            break;
        MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
        hits++;
        say("hit %d in reads(): %s, status %#lx", hits, regs.rip - (unsigned long)reads < 4096 ? "yes" : "no",
            ptrace(PTRACE_PEEKUSER, pid, DR(6), 0) & 0xf);
    }
    show_status("ends", status);
}

static void executes(void)
{
    CASE("instructions");
    struct user_regs_struct regs;
    pid_t pid = traced(works);
    SHOW(poke(pid, DR(3), (unsigned long)place));
    SHOW(poke(pid, DR(7), DR7(3, EXECUTE, BYTE)));
    show_hit("place", pid);
    MUST(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    SHOW_IF(regs.rip == (unsigned long)place);
    go("ends", PTRACE_CONT, pid, 0);
}

static void refuses(void)
{
    CASE("errors");
    pid_t pid = traced(works);
    SHOW(poke(pid, DR(4), 0));
    SHOW(poke(pid, DR(5), 0));
    SHOW(poke(pid, DR(0), 0xffff800000000000));
    SHOW(poke(pid, DR(0), 1));
    SHOW(poke(pid, DR(7), DR7(0, WRITE, WORD)));
    SHOW(poke(pid, DR(7), DR7(0, IO, BYTE)));
    SHOW(poke(pid, DR(7), DR7(0, EXECUTE, LONG)));
    SHOW(ptrace(PTRACE_PEEKUSER, pid, DR(7), 0));
    SHOW(poke(pid, DR(7), DR7(0, WRITE, BYTE)));
    SHOW(poke(pid, DR(0), 2));
    SHOW(poke(pid, DR(0), 0xffff800000000000));
    SHOW(ptrace(PTRACE_PEEKUSER, pid, DR(0), 0));
    SHOW(poke(pid, DR(0) + 1, 0));
    SHOW(poke(pid, DR(7) + 8, 0));
    MUST(kill(pid, SIGKILL));
    reap("ends", pid);
}

int main(void)
{
    watches();
    accesses();
    executes();
    refuses();
    return 0;
}
