/* What the stub's rooms share: the ways to the host and to guest memory, and what the host's kernel puts on our stack. */
#pragma once
#include "record.h"

#include <stdbool.h>
#include <stddef.h>

#define EXPORT __attribute__((used))

#define UNBLOCKABLE SIGNALS_UNBLOCKABLE
#define EFLAGS_TF 0x100

enum {
    NR_read = 0, NR_write = 1, NR_open = 2, NR_close = 3, NR_stat = 4, NR_lstat = 6, NR_mprotect = 10,
    NR_rt_sigaction = 13, NR_rt_sigprocmask = 14, NR_rt_sigreturn = 15, NR_pwrite64 = 18, NR_access = 21, NR_sched_yield = 24, NR_getpid = 39,
    NR_sendto = 44, NR_recvfrom = 45, NR_kill = 62, NR_fcntl = 72, NR_readlink = 89, NR_gettimeofday = 96, NR_getuid = 102, NR_getgid = 104, NR_geteuid = 107,
    NR_getegid = 108, NR_getppid = 110, NR_sigaltstack = 131, NR_gettid = 186, NR_tkill = 200, NR_time = 201,
    NR_futex = 202, NR_getdents64 = 217, NR_clock_gettime = 228, NR_epoll_wait = 232, NR_tgkill = 234, NR_openat = 257,
    NR_newfstatat = 262, NR_readlinkat = 267, NR_faccessat = 269, NR_epoll_pwait = 281, NR_statx = 332,
    NR_faccessat2 = 439, NR_getrlimit = 97, NR_arch_prctl = 158, NR_set_tid_address = 218, NR_set_robust_list = 273,
    NR_prlimit64 = 302, NR_getrandom = 318, NR_rseq = 334,
};

struct siginfo {
    int32_t signo, error, code, pad;
    uint64_t addr; /* of a fault, or of the instruction behind a call */
    int32_t number;
    uint32_t arch;
};

struct ucontext {
    uint64_t flags, link, stack[3];
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
    uint16_t cs, gs, fs, ss;
    uint64_t err, trapno, oldmask, cr2;
    struct fpstate *fpstate;
    uint64_t reserved[8];
    uint64_t sigmask;
};

/* As XSAVE writes it, with the kernel's struct _fpx_sw_bytes inside. */
struct fpstate {
    uint8_t before_mxcsr[24];
    uint32_t mxcsr;
    uint8_t registers[436];
    uint32_t magic1, extended_size;
    uint64_t features;
    uint32_t size, padding[7];
    uint64_t present; /* the header begins */
    uint64_t zero[7];
};
_Static_assert(offsetof(struct ucontext, fpstate) == 224 && sizeof(struct ucontext) == 304, "as on Linux");
_Static_assert(offsetof(struct fpstate, magic1) == 464 && offsetof(struct fpstate, present) == 512, "as on Linux");

/* entry.S: places where a signal is something special, and what can't be said in C. */
extern const char stub_start[], window_direct_start[], window_direct_end[], window_iret_start[], window_iret_end[],
    window_signal_start[], window_signal_end[], window_futex_start[], window_futex_end[], stub_futex_abort[],
    kicked[], copy_start[], copy_end[], string_start[], string_end[], cmpxchg_start[], cmpxchg_end[],
    probe_start[], probe_end[], store_start[], store_end[], code_start[], code_end[], abandoned[],
    xrstor_start[], xrstor_end[], stub_fault[];
uint64_t stub_copy(void *to, const void *from, uint64_t size);
int64_t stub_copy_string(void *to, const void *from, uint64_t size);
int64_t stub_probe(uint64_t addr);
int64_t stub_store(uint64_t addr, uint64_t value);
int64_t stub_is_code(uint64_t addr, uint64_t code);
int64_t stub_cmpxchg(uint64_t addr, uint32_t expected, uint32_t wanted);
int64_t stub_xrstor(const void *area, uint64_t features);
int64_t stub_clone(uint64_t flags, uint64_t child, uint64_t offset, uint64_t parent_tid);
int64_t stub_futex(struct record *r, uint64_t addr, uint64_t op, uint64_t value, uint64_t timeout, uint64_t addr2,
                   uint64_t value3);
void stub_exit(uint32_t *state) __attribute__((noreturn));

static const struct shared_page *const shared = (const struct shared_page *)SHARED_PAGE;

static inline bool within(uint64_t rip, const char *start, const char *end)
{
    return rip >= (uint64_t)start && rip < (uint64_t)end;
}

static inline int64_t host_call(uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                                uint64_t a5)
{
    register uint64_t r10 __asm__("r10") = a3;
    register uint64_t r8 __asm__("r8") = a4;
    register uint64_t r9 __asm__("r9") = a5;
    int64_t result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a0), "S"(a1), "d"(a2), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static inline uint64_t ticks(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static inline uint64_t get_fs(void)
{
    uint64_t value;
    __asm__ volatile("rdfsbase %0" : "=r"(value));
    return value;
}

static inline uint64_t get_gs(void)
{
    uint64_t value;
    __asm__ volatile("rdgsbase %0" : "=r"(value));
    return value;
}

static inline void fence(void)
{
    __asm__ volatile("lock orq $0, (%%rsp)" ::: "memory", "cc");
}

static inline uint32_t get(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void set(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* Guest memory ends where ours begins: what lies there is a bad address for a call. */
static inline bool is_guests(uint64_t addr, uint64_t size)
{
    return addr < STUB_BASE && size <= STUB_BASE - addr;
}

/* How many bytes could not be copied. */
static inline uint64_t copy_in(void *to, uint64_t from, uint64_t size)
{
    return is_guests(from, size) ? stub_copy(to, (const void *)from, size) : size;
}

static inline uint64_t copy_out(uint64_t to, const void *from, uint64_t size)
{
    return is_guests(to, size) ? stub_copy((void *)to, from, size) : size;
}

static inline uint8_t *window_of(struct record *r)
{
    return (uint8_t *)r + RECORD_WINDOW;
}

static inline struct ucontext *frame_of(const struct record *r)
{
    return (struct ucontext *)r->frame;
}

static inline bool signals_wait(const struct record *r, uint64_t mask)
{
    return __atomic_load_n(&r->hot.pending, __ATOMIC_ACQUIRE) & ~mask;
}

/* Whether the engine has to see the call. */
static inline bool is_forced(const struct record *r, uint64_t nr)
{
    uint32_t forced = r->hot.forced;
    return forced && (forced & ~FORCED_BY_NUMBER || nr >= 512 || !(r->hot.allowed[nr / 64] >> nr % 64 & 1));
}

/* answer.c: whether the call has been answered, and what with. */
bool answer(struct record *r, int64_t *result);

/* The same for a call that is forced, but that the Sentry lets pass this time. */
bool answer_passed(struct record *r, int64_t *result);

/* sigreturn.c: whether the guest's registers are those of its signal frame now. */
bool do_sigreturn(struct record *r);

/* prefetch.c */
void save_fp(struct record *r);
void prefetch(struct record *r);

/* order.c */
void do_order(struct record *r);
/* What the engine lets the thread go with (RECORD_PARTING): whether it succeeded. */
bool do_last_order(struct record *r);

/* handover.c */
void tell(struct record *r, uint32_t state);
void serve(struct record *r);
void trap(struct record *r, uint32_t kind);

/* signal.c */
void restore(const struct record *r, struct ucontext *u);

/* stub.c */
void take_call(struct record *r);
