/* Attacks by instructions: the stub's page, the vDSO, flags, frames, segments, other doors into the host. */
#include "hostile.h"

#include <asm/prctl.h>
#include <setjmp.h>
#include <sys/auxv.h>
#include <ucontext.h>

#define STUB GUEST_TOP

static sigjmp_buf back;
static volatile int faults;

static void on_fault(int signo)
{
    (void)signo;
    faults++;
    siglongjmp(back, 1);
}

static void catch_all(void)
{
    static char stack[65536];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
    int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK | SA_NODEFER};
    sigaltstack(&alt, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
}

#define TRY(statement)                 \
    do {                               \
        if (sigsetjmp(back, 1) == 0) { \
            statement;                 \
        }                              \
    } while (0)

/* Nothing may be mapped, changed or taken away at the top: the stub's page and beyond. */
static void top(void)
{
    char *addresses[] = {(char *)STUB, (char *)STUB - 4096, (char *)STUB + 4096, (char *)0x7ffffffff000 - 4096,
                         (char *)0x7ffffffff000, (char *)0x800000000000, (char *)0xffff800000000000,
                         (char *)0xffffffffff600000, (char *)-4096l};
    int zero = open("/dev/zero", O_RDWR), two[2], mem = open("/proc/self/mem", O_RDWR);
    char word[64];
    CHECK(pipe(two) == 0);
    catch_all();
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        char *a = addresses[i];
        if (i != 1) {
            CHECK(mmap(a, 4096, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
            CHECK(mmap(a, 1ul << 40, PROT_READ, MAP_FIXED | MAP_SHARED, zero, 0) == MAP_FAILED);
            CHECK(mprotect(a, 4096, PROT_READ | PROT_WRITE | PROT_EXEC) == -1);
            CHECK(mremap(word, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, a) == MAP_FAILED);
            CHECK(write(two[1], a, 64) == -1);
            CHECK(pread(mem, word, 8, (long)a) <= 0 && pwrite(mem, word, 8, (long)a) <= 0);
            CHECK(syscall(SYS_getrandom, a, 8, 0) == -1);
            TRY(*(volatile char *)a = 1; CHECK(!"written"));
            syscall(SYS_madvise, a, 4096, MADV_DONTNEED);
            syscall(SYS_futex, a, 1, 1, NULL, NULL, 0);
            syscall(SYS_process_vm_readv, getpid(), &(struct iovec){word, 8}, 1, &(struct iovec){a, 8}, 1, 0);
            munmap(a, 4096);
        }
    }
    CHECK(munmap((char *)STUB - 4096, 8192) == -1);
    munmap((char *)STUB - 0x10000, 0x20000);
    munmap((char *)STUB - 4096, 1ul << 40);
    mprotect((char *)STUB - 4096, 8192, PROT_NONE);
    CHECK(mmap((char *)STUB - 4096, 8192, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
    for (unsigned long size = 4096; size; size <<= 1) {
        mmap((char *)STUB - size, size * 2, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mmap((char *)STUB - 4096, size, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
}

static void vdso(void)
{
    char *elf = (char *)getauxval(AT_SYSINFO_EHDR);
    CHECK(elf);
    catch_all();
    TRY(memset(elf, 0xcc, 64));
    mprotect(elf, 8192, PROT_READ | PROT_WRITE);
    TRY(memset(elf, 0xcc, 64));
    for (long i = -4; i < 2; i++) {
        mremap(elf + i * 4096, 4096, 4096, MREMAP_MAYMOVE);
        mremap(elf + i * 4096, 4096, 8192, MREMAP_MAYMOVE);
        mprotect(elf + i * 4096, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
        madvise(elf + i * 4096, 4096, MADV_DONTNEED);
    }
    for (long i = -4; i < 2; i++)
        mmap(elf + i * 4096, 4096, PROT_READ | PROT_EXEC, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long i = -16; i < 2; i++)
        munmap(elf + i * 4096, 4096);
    if (fork() == 0)
        _exit(0);
    raw6(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

/* Jump to every byte of the stub with registers that would harm the host if its calls were made. */
static void stub_jump(void)
{
    static const long numbers[] = {SYS_getpid, SYS_execve, SYS_munmap, SYS_exit_group, SYS_clone, SYS_mmap, SYS_kill,
                                   SYS_open, SYS_close, SYS_ptrace, SYS_exit, SYS_rt_sigreturn, 0x40000027, -1};
    catch_all();
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        for (long offset = 0; offset < 96; offset++) {
            int status;
            pid_t pid = fork();
            if (pid == 0) {
                alarm(2);
                TRY({
                    register long r10 __asm__("r10") = 0x22;
                    long a = numbers[i];
                    __asm__ volatile("call *%1"
                                     : "+a"(a)
                                     : "r"(STUB + (unsigned long)offset), "D"(0L), "S"(1ul << 46), "d"(7L), "r"(r10)
                                     : "rcx", "r11", "memory");
                });
                raw6(SYS_exit_group, 0, 0, 0, 0, 0, 0);
            }
            CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
            if (offset > 8 && offset != 32)
                offset += 7;
        }
}

/* Trap flag on: through calls, the vDSO, the stub, and signal frames. */
static volatile long steps;
static void on_step(int signo, siginfo_t *info, void *context)
{
    (void)signo, (void)info;
    if (++steps > 3000)
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x100l;
}

static void step(void)
{
    struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    struct timespec ts;
    sigaction(SIGTRAP, &action, NULL);
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
    for (int i = 0; i < 20; i++) {
        raw6(SYS_getpid, 0, 0, 0, 0, 0, 0);
        mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        clock_gettime(CLOCK_MONOTONIC, &ts);
        sched_yield();
        if (i == 10 && fork() == 0)
            _exit(0);
    }
    __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc");
    CHECK(steps > 100);
    signal(SIGTRAP, SIG_DFL);
    if (fork() == 0) {
        __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; syscall" ::"a"(SYS_getpid) : "rcx", "r11", "memory", "cc");
        _exit(0);
    }
    if (fork() == 0) {
        sigset_t set;
        sigfillset(&set);
        sigprocmask(SIG_BLOCK, &set, NULL);
        __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; nop" ::: "memory", "cc");
        _exit(0);
    }
    while (wait(NULL) > 0)
        ;
}

/* rt_sigreturn from frames that no kernel made. */
static uint64_t seed = 88172645463325252ull;
static uint64_t rnd(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}

static void forge(int kind)
{
    static char area[1 << 20] __attribute__((aligned(4096)));
    char *frame = area + (1 << 19);
    ucontext_t *uc = (ucontext_t *)frame;
    greg_t *g = uc->uc_mcontext.gregs;
    for (size_t i = 0; i < sizeof area; i += 8)
        *(uint64_t *)(area + i) = kind & 1 ? rnd() : 0;
    memset(uc, 0, sizeof *uc);
    g[REG_RIP] = kind == 2 ? 0 : (greg_t)&&landed;
    g[REG_RSP] = (greg_t)(area + (1 << 18));
    g[REG_EFL] = kind & 2 ? (greg_t)rnd() : 0x202;
    g[REG_CSGSFS] = (greg_t)(kind % 5 == 0 ? rnd() : kind % 5 == 1 ? 0x2b0000000000000bl : kind % 5 == 2 ? 0x23 : 0x2b000000000033l);
    switch (kind % 11) {
    case 0: uc->uc_mcontext.fpregs = NULL; break;
    case 1: uc->uc_mcontext.fpregs = (void *)(area + 4096); break;
    case 2: uc->uc_mcontext.fpregs = (void *)(area + 4097); break;
    case 3: uc->uc_mcontext.fpregs = (void *)rnd(); break;
    case 4: uc->uc_mcontext.fpregs = (void *)(area + sizeof area - 512); break;
    case 5: uc->uc_mcontext.fpregs = (void *)STUB; break;
    case 6: g[REG_RIP] = (greg_t)STUB; uc->uc_mcontext.fpregs = NULL; break;
    case 7: g[REG_RIP] = (greg_t)0x8000000000000000ul; break;
    case 8: g[REG_RSP] = (greg_t)rnd(); break;
    case 9: g[REG_RIP] = (greg_t)0xffffffffff600000ul; break;
    default: /* software bytes that lie about a huge state */
        uc->uc_mcontext.fpregs = (void *)(area + 4096);
        *(uint32_t *)(area + 4096 + 464) = 0x46505853;
        *(uint32_t *)(area + 4096 + 468) = 0xffffffff;
        *(uint64_t *)(area + 4096 + 472) = (uint64_t)-1;
        *(uint32_t *)(area + 4096 + 480) = kind & 4 ? 0xffffffff : 2000 + (uint32_t)(rnd() % 2000);
        *(uint32_t *)(area + 4096 + 24) = 0xffffffff; /* mxcsr */
        memset(area + 4096 + 512, kind & 8 ? 0xff : 0, 64);
    }
    uc->uc_flags = rnd();
    uc->uc_stack.ss_sp = (void *)rnd();
    uc->uc_stack.ss_flags = (int)rnd();
    uc->uc_stack.ss_size = rnd();
    __asm__ volatile("mov %0, %%rsp; mov $15, %%eax; syscall; ud2" ::"r"(frame) : "memory");
landed:
    _exit(0);
}

static void forged_frames(void)
{
    for (int kind = 0; kind < 220; kind++) {
        int status;
        pid_t pid = fork();
        seed += (uint64_t)kind * 7919;
        if (pid == 0) {
            alarm(2);
            forge(kind);
        }
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    }
    /* And with the stack pointer at bad places. */
    for (int i = 0; i < 8; i++) {
        static const uint64_t places[] = {0, 8, STUB, STUB - 8, 0x7ffffffffff8, 0x800000000000, (uint64_t)-8, 1ull << 63};
        pid_t pid = fork();
        if (pid == 0)
            __asm__ volatile("mov %0, %%rsp; mov $15, %%eax; syscall; ud2" ::"r"(places[i]) : "memory");
        waitpid(pid, NULL, 0);
    }
}

/* One instruction in a child of its own; how it ends is between it and the CPU. */
#define ALONE(text)                        \
    do {                                   \
        pid_t pid_ = fork();               \
        if (pid_ == 0) {                   \
            alarm(2);                      \
            __asm__ volatile(text);            \
            _exit(0);                      \
        }                                  \
        CHECK(pid_ > 0 && waitpid(pid_, &status_, 0) == pid_); \
    } while (0)

static void instructions(void)
{
    int status_;
    ALONE("int3");
    ALONE("ud2");
    ALONE("hlt");
    ALONE("cli");
    ALONE("in $0x80, %al");
    ALONE("int $0x80");
    ALONE("mov $1, %eax; int $0x80");              /* exit of 32-bit */
    ALONE("mov $11, %eax; xor %ebx, %ebx; int $0x80"); /* execve */
    ALONE("lea 1f(%rip), %rcx; mov $252, %eax; int $0x80; 1: nop");
    ALONE("mov $162, %eax; lea 1f(%rip), %rcx; xor %ebx, %ebx; int $0x80; 1: nop"); /* rcx as `syscall` leaves it */
    ALONE("int $3; int $4; int $0x81");
    ALONE("mov %rsp, %rbp; sysenter");
    ALONE("mov $1, %eax; mov %rsp, %rbp; sysenter");
    ALONE("sysret");
    ALONE("iretq");
    ALONE("mov $0xffff, %eax; mov %ax, %ss");
    ALONE("xor %eax, %eax; mov %ax, %ss; syscall");
    ALONE("mov $0x2b, %eax; mov %ax, %ds; mov %ax, %es; mov %ax, %fs; mov %ax, %gs; mov $39, %eax; syscall");
    ALONE("mov $3, %eax; mov %ax, %fs; mov %ax, %gs; mov $39, %eax; syscall");
    ALONE("std; mov $39, %eax; syscall; mov $57, %eax; syscall");
    ALONE("pushfq; orq $0x40000, (%rsp); popfq; mov $39, %eax; syscall"); /* AC */
    ALONE("pushfq; orq $0x4000, (%rsp); popfq; mov $39, %eax; syscall");  /* NT */
    ALONE("pushfq; orq $0x3000, (%rsp); popfq; in $0x80, %al");            /* IOPL */
    ALONE("mov $0x40000027, %eax; syscall");
    ALONE("mov $0x40000201, %eax; syscall");
    ALONE("mov $-1, %rax; syscall");
    ALONE("mov $0x1000000000000027, %rax; syscall");
    ALONE("xor %ecx, %ecx; mov $-1, %r11; mov $39, %eax; syscall");
    ALONE("xor %esp, %esp; mov $39, %eax; syscall; mov $0, %rdi; mov $60, %eax; syscall");
    ALONE("mov $0x8000000000000000, %rsp; push %rax");
    ALONE("mov $0x8000000000000000, %rax; jmp *%rax");
    ALONE("mov $0x7ffffffffffe, %rax; jmp *%rax");
    ALONE("mov $0xffffffffff600000, %rax; sub $8, %rsp; xor %edi, %edi; xor %esi, %esi; call *%rax");
    ALONE("mov $0xffffffffff600400, %rax; mov $0xffff800000000000, %rdi; call *%rax");
    ALONE("mov $0xffffffffff600800, %rax; mov $8, %edi; mov $8, %esi; call *%rax");
    ALONE("mov $0xffffffffff600001, %rax; call *%rax");
    ALONE("mov $0xffffffffff600000, %rax; mov $0x1000, %rsp; jmp *%rax");
    ALONE("xor %edx, %edx; xor %eax, %eax; div %edx");
    ALONE("rdtsc; rdpmc");
    ALONE("xor %ecx, %ecx; xgetbv; xor %eax, %eax; xsetbv");
    ALONE("rdfsbase %rax; mov $-1, %rax; wrfsbase %rax");
    ALONE("mov $0x8000000000000000, %rax; wrgsbase %rax");
    ALONE("mov $0x7fffffffffff, %rax; wrfsbase %rax; mov $39, %eax; syscall; mov $57, %eax; syscall");
    ALONE("push $0x23; lea 1f(%rip), %rax; push %rax; lretq; 1: nop"); /* to 32-bit code */
    ALONE("push $0x2b; push %rsp; push $0x202; push $0x23; push $0x1000; iretq");
    ALONE("push $7; push $0; lretq");
    ALONE("fninit; fldz; fld1; fdiv %st(1); pushq $0; fldcw (%rsp); fldz; fldz; fdivp; fwait");
    ALONE("push $0; ldmxcsr (%rsp); xorps %xmm0, %xmm0; divps %xmm0, %xmm0");
    ALONE("push $-1; ldmxcsr (%rsp)");
    ALONE("mov $0, %rax; movq %rax, %rsp; int3");
}

/* 32-bit code at a low address: its int 0x80 and sysenter. */
static void compat(void)
{
    static const unsigned char calls[][12] = {
        {0xb8, 1, 0, 0, 0, 0xcd, 0x80, 0x0f, 0x0b},       /* mov $1,%eax; int $0x80; ud2 */
        {0xb8, 11, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80, 0x0f, 0x0b},
        {0xb8, 20, 0, 0, 0, 0x89, 0xe5, 0x0f, 0x34, 0x0f, 0x0b}, /* sysenter */
        {0xb8, 20, 0, 0, 0, 0x0f, 0x05, 0x0f, 0x0b},       /* syscall from compatibility mode */
        {0xcc, 0x0f, 0x0b},
        {0xea, 0, 0, 0, 0, 0x33, 0},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            char *low = mmap((void *)0x10000000, 8192, PROT_READ | PROT_WRITE | PROT_EXEC,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            alarm(2);
            memcpy(low, calls[i], sizeof calls[i]);
            __asm__ volatile("mov $0x10001f00, %%esp; pushq $0x23; pushq $0x10000000; lretq" ::: "memory");
        }
        CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
    }
}

static void arch(void)
{
    static const unsigned long values[] = {0, 1, STUB, 0x7fffffffefff, 0x7ffffffff000, 0x800000000000,
                                           0x8000000000000000, ~0ul, 0xffff800000000000};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            raw6(SYS_arch_prctl, ARCH_SET_GS, (long)values[i], 0, 0, 0, 0);
            raw6(SYS_getpid, 0, 0, 0, 0, 0, 0);
            raw6(SYS_arch_prctl, ARCH_GET_FS, (long)values[i], 0, 0, 0, 0);
            raw6(SYS_arch_prctl, ARCH_SET_FS, (long)values[i], 0, 0, 0, 0);
            raw6(SYS_getpid, 0, 0, 0, 0, 0, 0);
            if (raw6(SYS_fork, 0, 0, 0, 0, 0, 0) == 0)
                raw6(SYS_exit_group, 0, 0, 0, 0, 0, 0);
            raw6(SYS_exit_group, 0, 0, 0, 0, 0, 0);
        }
        CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
    }
    for (long code = 0; code < 0x5010; code += code == 0x40 ? 0xfc0 : 1) {
        if (code == 0x1020)
            code = 0x2000;
        if (code == 0x2010)
            code = 0x3000;
        if (code == 0x3010)
            code = 0x4000;
        if (code == 0x4010)
            code = 0x5000;
        if (code != ARCH_SET_FS)
            raw6(SYS_arch_prctl, code, (long)STUB, -1, 0, 0, 0);
    }
}

/* Code that changes itself, written twice into one page by two mappings. */
static void self_modifying(void)
{
    int fd = memfd_create("code", 0);
    CHECK(ftruncate(fd, 4096) == 0);
    unsigned char *w = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *x = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    CHECK(w != MAP_FAILED && x != MAP_FAILED);
    for (int i = 0; i < 200; i++) {
        unsigned char code[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xb8, (unsigned char)i, 0, 0, 0, 0xc3};
        memcpy(w, code, sizeof code);
        CHECK(((int (*)(void))x)() == i);
    }
}

/* The frame of a signal that cannot be written, again and again. */
static void no_stack(void)
{
    for (int i = 0; i < 6; i++) {
        static const uint64_t places[] = {0, 4096, STUB, STUB + 4096, 0x800000000000, 1ull << 63};
        pid_t pid = fork();
        if (pid == 0) {
            struct sigaction action = {.sa_handler = on_fault};
            sigaction(SIGSEGV, &action, NULL);
            sigaction(SIGALRM, &action, NULL);
            ualarm(1000, 1000);
            __asm__ volatile("mov %0, %%rsp; 1: jmp 1b" ::"r"(places[i]));
        }
        CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
    }
    pid_t pid = fork();
    if (pid == 0) {
        stack_t alt = {.ss_sp = (void *)(STUB - 65536), .ss_size = 1 << 20};
        struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK};
        sigaltstack(&alt, NULL);
        alt.ss_sp = (void *)-8192l;
        sigaltstack(&alt, NULL);
        sigaction(SIGUSR1, &action, NULL);
        raise(SIGUSR1);
    }
    CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
}

static const struct attack attacks[] = {
    {"top", top}, {"vdso", vdso}, {"stub_jump", stub_jump}, {"step", step}, {"sigreturn", forged_frames},
    {"instructions", instructions}, {"compat", compat}, {"arch", arch}, {"self_modifying", self_modifying},
    {"no_stack", no_stack}, {NULL, NULL}};

int main(int argc, char **argv) { return run_attack(attacks, argc, argv); }
