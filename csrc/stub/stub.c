/* The stub of the `trap` platform: what runs in a guest's process on our behalf.
 *
 * A trap is a signal (SIGSYS from the seccomp filter, a fault, a kick) or a jump from a patched call site.  The
 * guest's registers are put into the thread's record; some calls are answered here and now (the first room); for
 * the rest the record goes to the engine, and this thread waits: spinning for a little while, then asleep.  What
 * comes back is an order (a host system call, a thread to make) or the word to go on.
 *
 * The code is freestanding, has no data of its own, and uses no FPU or vector register: a guest that comes here
 * by a jump keeps its own.  It shares its address space with a hostile program, which may overwrite or call all of
 * this; nothing here is a boundary.  The seccomp filter and the engine's checks are.
 */
#include "record.h"

#include <stdbool.h>
#include <stddef.h>

#define OFFSET(field, value) _Static_assert(offsetof(struct record, field) == (value), #field)
OFFSET(state, R_STATE);
OFFSET(kick, R_KICK);
OFFSET(path, R_PATH);
OFFSET(frame, R_FRAME);
OFFSET(self, R_SELF);
OFFSET(child, R_CHILD);
OFFSET(regs, R_REGS);
OFFSET(regs.rbx, R_RBX);
OFFSET(regs.r11, R_R11);
OFFSET(regs.orig_rax, R_ORIG_RAX);
OFFSET(regs.rip, R_RIP);
OFFSET(regs.ss, R_SS);
_Static_assert(sizeof(struct record) <= 0x1000, "the control page");

#define EXPORT __attribute__((used))

#define EINTR 4
#define EBADF 9
#define ENOSYS 38
#define SIGTRAP 5
#define UNBLOCKABLE (1ull << 8 | 1ull << 18) /* SIGKILL, SIGSTOP */
#define SIGSEGV 11
#define SIGSYS 31
#define SI_KERNEL 0x80
#define AUDIT_ARCH_X86_64 0xc000003e
#define EFLAGS_TF 0x100
#define CODE_SELECTOR 0x33
#define DATA_SELECTOR 0x2b
#define CLOCK_REALTIME 0
#define CLOCK_MONOTONIC 1
#define CLOCK_MONOTONIC_RAW 4
#define CLOCK_REALTIME_COARSE 5
#define CLOCK_MONOTONIC_COARSE 6
#define CLOCK_BOOTTIME 7
#define CLOCK_TAI 11
#define SS_DISABLE 2
#define EFLAGS_RESTORED 0x50dd5 /* by rt_sigreturn, as on Linux */
#define RED_ZONE 128
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define FUTEX_PRIVATE 128
#define FUTEX_CLOCK_REALTIME 256
#define SS_SIZE (RECORD_STACK_TOP - 0x1000)
#define CLONE_FILES 0x400
#define PROT_RWX 7
#define SITE_PERIOD 8
#define YIELDS 24

enum {
    NR_read = 0, NR_mmap = 9, NR_mprotect = 10, NR_epoll_wait = 232, NR_epoll_pwait = 281, NR_write = 1, NR_open = 2, NR_close = 3, NR_stat = 4, NR_lstat = 6, NR_rt_sigprocmask = 14, NR_rt_sigreturn = 15, NR_pwrite64 = 18, NR_access = 21,
    NR_sched_yield = 24, NR_getpid = 39, NR_kill = 62, NR_fcntl = 72, NR_readlink = 89, NR_gettimeofday = 96, NR_getuid = 102, NR_getgid = 104, NR_geteuid = 107,
    NR_getegid = 108, NR_getppid = 110, NR_sigaltstack = 131, NR_gettid = 186, NR_tkill = 200, NR_time = 201, NR_futex = 202,
    NR_clock_gettime = 228, NR_tgkill = 234, NR_openat = 257, NR_newfstatat = 262, NR_readlinkat = 267, NR_faccessat = 269,
    NR_statx = 332, NR_faccessat2 = 439,
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

#define FP_MAGIC1 0x46505853

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
int64_t stub_xrstor(const void *area);
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
static bool is_guests(uint64_t addr, uint64_t size)
{
    return addr < STUB_BASE && size <= STUB_BASE - addr;
}

/* How many bytes could not be copied. */
static uint64_t copy_in(void *to, uint64_t from, uint64_t size)
{
    return is_guests(from, size) ? stub_copy(to, (const void *)from, size) : size;
}

static uint64_t copy_out(uint64_t to, const void *from, uint64_t size)
{
    return is_guests(to, size) ? stub_copy((void *)to, from, size) : size;
}

static uint8_t *window_of(struct record *r)
{
    return (uint8_t *)r + RECORD_WINDOW;
}

/* The answers of the first room. */

static bool signals_wait(const struct record *r, uint64_t mask)
{
    return __atomic_load_n(&r->hot.pending, __ATOMIC_ACQUIRE) & ~mask;
}

/* rt_sigprocmask(how, set, old, 8); false: the kernel has to do it. */
static bool do_sigprocmask(struct record *r, int64_t *result)
{
    uint64_t mask = r->hot.sigmask, old = mask, bits;
    struct guest_regs *g = &r->regs;
    if (g->r10 != 8)
        return false;
    if (g->rsi) {
        if (copy_in(&bits, g->rsi, 8))
            return false;
        bits &= ~UNBLOCKABLE;
        switch ((int32_t)g->rdi) {
        case 0:
            mask |= bits;
            break;
        case 1:
            mask &= ~bits;
            break;
        case 2:
            mask = bits;
            break;
        default:
            return false;
        }
    }
    if (signals_wait(r, mask))
        return false;
    if (g->rdx && copy_out(g->rdx, &old, 8))
        return false;
    if (mask != old) {
        r->hot.sigmask = mask;
        fence(); /* the engine stores `pending`, fences, and reads the mask: one of us sees the other */
        if (signals_wait(r, mask)) {
            r->hot.sigmask = old;
            return false;
        }
    }
    *result = 0;
    return true;
}

struct timespec {
    int64_t sec, nsec;
};

/* By the vDSO, as long as it is where it was: it lies in the guest's memory.  If it is torn away meanwhile, the
 * fault ends up in stub_abandoned; if it wants to make a system call, that fails (stub_signal). */
static bool read_clock(uint32_t clock, struct timespec *now)
{
    int64_t (*function)(uint64_t, void *) = (int64_t (*)(uint64_t, void *))shared->clock_gettime;
    return function && stub_is_code(shared->clock_gettime, shared->clock_gettime_code) == 1 &&
           function(clock, now) == 0;
}

/* Clocks that are the same for everybody. */
static bool do_clock_gettime(struct record *r, int64_t *result)
{
    const uint32_t everybodys = 1 << CLOCK_REALTIME | 1 << CLOCK_MONOTONIC | 1 << CLOCK_MONOTONIC_RAW |
                                1 << CLOCK_REALTIME_COARSE | 1 << CLOCK_MONOTONIC_COARSE | 1 << CLOCK_BOOTTIME |
                                1 << CLOCK_TAI;
    uint32_t clock = (uint32_t)r->regs.rdi;
    struct timespec now;
    if (clock >= 32 || !(everybodys & 1u << clock) || !read_clock(clock, &now) ||
        copy_out(r->regs.rsi, &now, sizeof now))
        return false;
    *result = 0;
    return true;
}

static bool do_gettimeofday(struct record *r, int64_t *result)
{
    const uint64_t utc = 0; /* struct timezone */
    struct timespec now;
    if (!read_clock(CLOCK_REALTIME, &now))
        return false;
    now.nsec = (int64_t)((uint64_t)now.nsec / 1000);
    if (r->regs.rdi && copy_out(r->regs.rdi, &now, sizeof now))
        return false;
    if (r->regs.rsi && copy_out(r->regs.rsi, &utc, sizeof utc))
        return false;
    *result = 0;
    return true;
}

/* Linux tells the second of the last tick, which may still be the one before. */
static bool do_time(struct record *r, int64_t *result)
{
    struct timespec now;
    if (!read_clock(CLOCK_REALTIME_COARSE, &now) || (r->regs.rdi && copy_out(r->regs.rdi, &now.sec, sizeof now.sec)))
        return false;
    *result = now.sec;
    return true;
}

/* Private futexes are the host's: their waiters and wakers share this address space. */
static bool do_futex(struct record *r, int64_t *result)
{
    struct guest_regs *g = &r->regs;
    uint32_t op = (uint32_t)g->rsi, command = op & ~(uint32_t)(FUTEX_PRIVATE | FUTEX_CLOCK_REALTIME);
    bool waits = command == 0 || command == 9;
    if (!(op & FUTEX_PRIVATE) || command > 10 || command == 2 || (command >= 6 && command <= 8))
        return false;
    r->interrupted = 0;
    if (waits)
        r->blocked = 1;
    *result = stub_futex(r, g->rdi, g->rsi, g->rdx, g->r10, g->r8, g->r9);
    r->blocked = 0;
    if (waits && *result == -EINTR) {
        r->interrupted = 1;
        return false;
    }
    return true;
}

/* The FP state of the guest's frame goes into ours, from where the kernel restores it.  A state that the CPU might
 * refuse is looked at by the engine. */
static bool load_fpstate(struct record *r, uint64_t from)
{
    struct fpstate *to = ((struct ucontext *)r->frame)->fpstate, *s = (struct fpstate *)window_of(r);
    uint64_t size = to->size, i;
    if (to->magic1 != FP_MAGIC1 || size < sizeof *s || size > RECORD_WINDOW_SIZE || copy_in(s, from, size) ||
        s->magic1 != FP_MAGIC1 || s->size != size || s->extended_size < size || s->mxcsr & ~0xffffu)
        return false;
    s->present &= s->features;
    if (s->present & ~to->features)
        return false;
    for (i = 0; i < 7; i++)
        if (s->zero[i])
            return false;
    stub_copy(to, s, offsetof(struct fpstate, magic1));
    stub_copy(&to->present, &s->present, size - offsetof(struct fpstate, present));
    return true;
}

/* rt_sigreturn(): back from a handler that was entered without an alternate stack. */
static bool do_sigreturn(struct record *r)
{
    struct guest_regs *g = &r->regs;
    struct ucontext u;
    uint64_t old = r->hot.sigmask, mask;
    if (r->path != PATH_SIGNAL || r->hot.forced || r->hot.altstack || !(r->hot.known & 1u << HOT_SIGMASK) ||
        copy_in(&u, g->rsp, sizeof u) || (uint32_t)u.stack[1] != SS_DISABLE || !is_guests(u.rip, 0) ||
        u.eflags & EFLAGS_TF)
        return false;
    mask = u.sigmask & ~UNBLOCKABLE;
    if (signals_wait(r, mask) || !load_fpstate(r, (uint64_t)u.fpstate))
        return false;
    r->hot.sigmask = mask;
    fence();
    if (signals_wait(r, mask)) {
        r->hot.sigmask = old;
        return false;
    }
    g->r8 = u.r8, g->r9 = u.r9, g->r10 = u.r10, g->r11 = u.r11, g->r12 = u.r12, g->r13 = u.r13, g->r14 = u.r14;
    g->r15 = u.r15, g->rdi = u.rdi, g->rsi = u.rsi, g->rbp = u.rbp, g->rbx = u.rbx, g->rdx = u.rdx, g->rax = u.rax;
    g->rcx = u.rcx, g->rsp = u.rsp, g->rip = u.rip;
    g->eflags = (g->eflags & ~(uint64_t)EFLAGS_RESTORED) | (u.eflags & EFLAGS_RESTORED);
    return true;
}

static bool answer_id(struct record *r, int which, int64_t *result)
{
    if (!(r->hot.known & 1u << which))
        return false;
    *result = r->hot.ids[which];
    return true;
}

static bool answer(struct record *r, int64_t *result)
{
    if (r->hot.forced)
        return r->regs.orig_rax == NR_futex && do_futex(r, result);
    switch (r->regs.orig_rax) {
    case NR_getpid:
        return answer_id(r, HOT_PID, result);
    case NR_gettid:
        return answer_id(r, HOT_TID, result);
    case NR_getppid:
        return answer_id(r, HOT_PPID, result);
    case NR_getuid:
        return answer_id(r, HOT_UID, result);
    case NR_geteuid:
        return answer_id(r, HOT_EUID, result);
    case NR_getgid:
        return answer_id(r, HOT_GID, result);
    case NR_getegid:
        return answer_id(r, HOT_EGID, result);
    case NR_rt_sigprocmask:
        return r->hot.known & 1u << HOT_SIGMASK && do_sigprocmask(r, result);
    case NR_sched_yield:
        *result = host_call(NR_sched_yield, 0, 0, 0, 0, 0, 0);
        return true;
    case NR_clock_gettime:
        return do_clock_gettime(r, result);
    case NR_gettimeofday:
        return do_gettimeofday(r, result);
    case NR_time:
        return do_time(r, result);
    case NR_futex:
        return do_futex(r, result);
    }
    return false;
}

/* Is there memory to write to?  For calls that could not be undone if there were none. */
static void probe(struct record *r, uint64_t addr, uint64_t size)
{
    uint64_t at;
    if (size == 0 || addr >= STUB_BASE)
        return;
    if (size > RECORD_WINDOW_SIZE)
        size = RECORD_WINDOW_SIZE; /* more is never delivered at once */
    for (at = addr; at < addr + size; at = (at | 0xfff) + 1)
        if (stub_probe(at))
            return;
    r->probed_addr = addr;
    r->probed_size = (uint32_t)size;
}

/* The guest's FP state, which nothing here changes. */
static void save_fp(struct record *r)
{
    if (r->fp_saved)
        return;
    __asm__ volatile("xsave64 (%0)" ::"r"((uint8_t *)r + RECORD_FP_SAVED), "a"(-1), "d"(-1) : "memory");
    set(&r->fp_saved, 1);
}

/* For a signal to oneself: the state that goes into its frame, and room for the frame. */
static void prepare_frame(struct record *r)
{
    if (r->path == PATH_DIRECT)
        save_fp(r);
    probe(r, r->regs.rsp - RED_ZONE - shared->frame_size, shared->frame_size);
}

/* Put into the window what the engine will want to see. */
static void prefetch(struct record *r)
{
    const struct guest_regs *g = &r->regs;
    uint64_t from, size;
    int64_t length;
    r->in_size = 0;
    r->probed_size = 0;
    switch (g->orig_rax) {
    case NR_read:
        probe(r, g->rsi, g->rdx);
        return;
    case NR_epoll_wait:
    case NR_epoll_pwait:
        if ((uint32_t)g->rdx < 1024)
            probe(r, g->rsi, 12 * (uint32_t)g->rdx);
        return;
    case NR_kill:
    case NR_tkill:
    case NR_tgkill:
        prepare_frame(r);
        return;
    case NR_write:
    case NR_pwrite64:
        from = g->rsi;
        size = g->rdx;
        if (size > RECORD_WINDOW_SIZE)
            return;
        size -= copy_in(window_of(r), from, size);
        break;
    case NR_fcntl:
        from = g->rdx;
        size = 32; /* struct flock, of the six lock commands */
        if ((g->rsi & ~32ull) - (g->rsi & 32 ? 4 : 5) > 2)
            return;
        size -= copy_in(window_of(r), from, size);
        break;
    case NR_open:
    case NR_stat:
    case NR_lstat:
    case NR_access:
    case NR_readlink:
        from = g->rdi;
        goto string;
    case NR_openat:
    case NR_newfstatat:
    case NR_readlinkat:
    case NR_faccessat:
    case NR_faccessat2:
    case NR_statx:
        from = g->rsi;
    string:
        length = is_guests(from, 4096) ? stub_copy_string(window_of(r), (void *)from, 4096) : -1;
        if (length < 0)
            return;
        size = (uint64_t)length;
        break;
    default:
        return;
    }
    r->in_addr = from;
    r->in_size = (uint32_t)size;
}

/* The engine's side. */

static void ring(void)
{
    fence();
    if (get(&shared->sleeping))
        host_call(NR_write, BELL_FD, (uint64_t)&shared->one, 8, 0, 0, 0);
}

static void tell(struct record *r, uint32_t state)
{
    set(&r->state, state);
    if (state == RECORD_DONE) {
        fence();
        if (get(&r->engine_waits))
            host_call(NR_futex, (uint64_t)&r->state, FUTEX_WAKE, 1, 0, 0, 0);
    }
}

static bool is_engines_turn(uint32_t state)
{
    return state == RECORD_TRAPPED || state == RECORD_DONE || state == RECORD_PARKED;
}

/* Until the engine has changed the state. */
static uint32_t await_engine(struct record *r)
{
    uint32_t state = get(&r->state), i, yields = 0;
    uint64_t end = 0;
    while (is_engines_turn(state) && state != RECORD_PARKED && yields < YIELDS && !get(&shared->overloaded)) {
        uint64_t now = ticks();
        if (end == 0)
            end = now + shared->spin;
        set(&r->cpu, current_cpu());
        if (now >= end || get(&shared->sleeping) || r->cpu == get(&shared->engine_cpu)) {
            if (get(&shared->crowded))
                break;
            host_call(NR_sched_yield, 0, 0, 0, 0, 0, 0);
            yields += now >= end;
            state = get(&r->state);
        }
        for (i = 0; i < 16 && is_engines_turn(state = get(&r->state)) && state != RECORD_PARKED; i++)
            __asm__ volatile("pause");
    }
    if (!is_engines_turn(state))
        return state;
    if (r->path == PATH_DIRECT)
        save_fp(r); /* so that nobody has to be woken for it */
    set(&r->sleeping, 1);
    fence();
    while (is_engines_turn(state = get(&r->state)))
        host_call(NR_futex, (uint64_t)&r->state, FUTEX_WAIT, state, 0, 0, 0);
    set(&r->sleeping, 0);
    return state;
}

/* Others may execute the page all the while.  The second mprotect takes a right away, so every CPU that runs a
 * thread of ours is interrupted for it: none goes on with the old bytes. */
static int64_t store_code(const uint64_t *a)
{
    int64_t result = host_call(NR_mprotect, a[2], a[3], PROT_RWX, 0, 0, 0);
    if (result == 0) {
        result = stub_store(a[0], a[1]);
        host_call(NR_mprotect, a[2], a[3], a[4], 0, 0, 0);
    }
    return result;
}

static void give_back(uint32_t lends)
{
    uint32_t i;
    for (i = 0; i < lends && i < LENT_MAX; i++)
        host_call(NR_close, LENT_FD + i, 0, 0, 0, 0, 0);
}

static void do_order(struct record *r)
{
    const uint64_t *a = r->order_args;
    uint32_t lends = r->order_lends;
    if (lends && r->order_nr != ORDER_CLONE) {
        int64_t lent = host_call(NR_close, LEND_TOKEN, 0, 0, 0, 0, 0);
        if (lent != -EBADF) {
            r->order_result = lent;
            goto done;
        }
    }
    switch (r->order_nr) {
    case ORDER_CLONE:
        /* Lent by the call itself.  A thread that shares them gives them back when it has its record. */
        r->order_result = stub_clone(a[0], a[1], a[2], a[3]);
        if (r->order_result >= 0 && a[0] & CLONE_FILES)
            lends = 0;
        break;
    case ORDER_CMPXCHG:
        r->order_result = stub_cmpxchg(a[0], (uint32_t)a[1], (uint32_t)a[2]);
        break;
    case ORDER_XSAVE:
        save_fp(r);
        r->order_result = 0;
        break;
    case ORDER_STORE:
        r->order_result = store_code(a);
        break;
    case ORDER_EXIT:
        stub_exit(&r->state);
    default:
        r->order_result = host_call(r->order_nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
done:
    give_back(lends);
    tell(r, RECORD_DONE);
}

/* Serve the engine until it lets the thread go. */
static void serve(struct record *r)
{
    for (;;) {
        while (await_engine(r) == RECORD_ORDER)
            do_order(r);
        if (r->out_size == 0)
            return;
        if (r->out_size <= RECORD_WINDOW_SIZE &&
            copy_out(r->out_addr, window_of(r), r->out_size) == 0) {
            r->out_size = 0;
            return;
        }
        r->out_size = 0;
        r->kind = ENGINE_COPY_FAULT;
        set(&r->state, RECORD_TRAPPED);
        ring();
    }
}

static void trap(struct record *r, uint32_t kind)
{
    r->kind = kind;
    if (kind != ENGINE_SYSCALL)
        r->fp_saved = 0;
    r->regs.fs_base = get_fs();
    set(&r->cpu, current_cpu());
    set(&r->state, RECORD_TRAPPED);
    ring();
    serve(r);
}

/* A call: answered here, or by the engine. */
static void take_call(struct record *r)
{
    int64_t result;
    uint64_t nr = r->regs.orig_rax;
    if (nr == NR_rt_sigreturn && do_sigreturn(r))
        return;
    if (answer(r, &result)) {
        if (r->path == PATH_SIGNAL && ++r->unpatched % SITE_PERIOD == 0) {
            /* Worth a jump instead of a signal?  The engine counts.  The registers are as they were. */
            trap(r, ENGINE_SITE);
            r->regs.orig_rax = nr;
        }
        r->regs.rax = (uint64_t)result;
        return;
    }
    r->fp_saved = 0;
    prefetch(r);
    trap(r, ENGINE_SYSCALL);
}

/* The signal path. */

static struct ucontext *frame_of(const struct record *r)
{
    return (struct ucontext *)r->frame;
}

static void save(struct record *r, const struct ucontext *u)
{
    struct guest_regs *g = &r->regs;
    uint64_t gs = get_gs();
    g->r15 = u->r15;
    g->r14 = u->r14;
    g->r13 = u->r13;
    g->r12 = u->r12;
    g->rbp = u->rbp;
    g->rbx = u->rbx;
    g->r11 = u->r11;
    g->r10 = u->r10;
    g->r9 = u->r9;
    g->r8 = u->r8;
    g->rax = u->rax;
    g->rcx = u->rcx;
    g->rdx = u->rdx;
    g->rsi = u->rsi;
    g->rdi = u->rdi;
    g->orig_rax = u->rax;
    g->rip = u->rip;
    g->cs = u->cs;
    g->eflags = u->eflags;
    g->rsp = u->rsp;
    g->ss = u->ss;
    g->fs_base = get_fs();
    g->gs_base = gs == (uint64_t)r ? 0 : gs;
}

static void restore(const struct record *r, struct ucontext *u)
{
    const struct guest_regs *g = &r->regs;
    u->r15 = g->r15;
    u->r14 = g->r14;
    u->r13 = g->r13;
    u->r12 = g->r12;
    u->rbp = g->rbp;
    u->rbx = g->rbx;
    u->r11 = g->r11;
    u->r10 = g->r10;
    u->r9 = g->r9;
    u->r8 = g->r8;
    u->rax = g->rax;
    u->rcx = g->rcx;
    u->rdx = g->rdx;
    u->rsi = g->rsi;
    u->rdi = g->rdi;
    u->rip = g->rip;
    u->eflags = g->eflags;
    u->rsp = g->rsp;
}

/* A kick came while the stub's own code was running: note it, and if the thread is past the last look at the
 * note, send it back. */
static void note_kick(struct record *r, struct ucontext *u)
{
    __atomic_store_n(&r->kick, 1, __ATOMIC_SEQ_CST);
    if (within(u->rip, window_direct_start, window_direct_end) || within(u->rip, window_iret_start, window_iret_end) ||
        within(u->rip, window_signal_start, window_signal_end)) {
        u->rbx = (uint64_t)r;
        u->rip = (uint64_t)kicked;
    } else if (within(u->rip, window_futex_start, window_futex_end)) {
        u->rip = (uint64_t)stub_futex_abort;
    }
}

/* A fault in code that touches guest memory is an answer, not an event. */
static bool fix_fault(struct ucontext *u)
{
    if (within(u->rip, copy_start, copy_end))
        u->rip = (uint64_t)copy_end;
    else if (within(u->rip, string_start, string_end) || within(u->rip, cmpxchg_start, cmpxchg_end) ||
             within(u->rip, probe_start, probe_end) || within(u->rip, store_start, store_end) || within(u->rip, code_start, code_end) ||
             within(u->rip, xrstor_start, xrstor_end))
        u->rip = (uint64_t)stub_fault;
    else
        return false;
    return true;
}

static void take_syscall(struct record *r, const struct siginfo *info)
{
    if (info->arch == AUDIT_ARCH_X86_64) {
        /* A number that looks like ERESTARTSYS and its like made the host "restart" the call. */
        if (r->regs.rip + 2 == info->addr)
            r->regs.rip = info->addr;
        if ((int32_t)r->regs.orig_rax != info->number)
            r->regs.rax = r->regs.orig_rax = (uint64_t)(int64_t)info->number;
        take_call(r);
        return;
    }
    /* int 0x80 where the kernel has no 32-bit emulation: a general protection fault on the instruction. */
    r->regs.rip -= 2;
    r->signo = SIGSEGV;
    r->code = SI_KERNEL;
    r->addr = 0;
    r->trapno = 13;
    r->error = (0x80 << 3) | 2;
    trap(r, ENGINE_FAULT);
}

/* Every signal.  0: back to where it came from; 1: the record says where to. */
EXPORT int stub_signal(int signo, const struct siginfo *info, struct ucontext *u, struct record *r)
{
    bool ours = u->rip >= STUB_BASE && u->rip < STUB_BASE + STUB_SIZE;
    if (signo == KICK_SIGNAL) {
        if (ours || r->busy) {
            note_kick(r, u);
            return 0;
        }
    } else if (info->code <= 0) {
        return 0; /* from outside: neither the CPU nor the filter raised it */
    } else if (ours && signo != SIGSYS && fix_fault(u)) {
        return 0;
    } else if (r->busy && signo == SIGSYS) {
        u->rax = (uint64_t)-ENOSYS; /* the vDSO, called by us, wants to make a real call */
        return 0;
    } else if (r->busy && !ours) {
        u->rbx = (uint64_t)r; /* the vDSO is there no more */
        u->rip = (uint64_t)abandoned;
        return 0;
    }
    r->busy = 1;
    r->path = PATH_SIGNAL;
    r->frame = (uint64_t)u;
    save(r, u);
    switch (signo) {
    case SIGSYS:
        take_syscall(r, info);
        break;
    case KICK_SIGNAL:
        trap(r, ENGINE_KICKED);
        break;
    default:
        r->signo = signo;
        r->code = info->code;
        r->addr = info->code == SI_KERNEL ? 0 : info->addr;
        r->trapno = (int32_t)u->trapno;
        r->error = (int32_t)u->err;
        trap(r, ENGINE_FAULT);
    }
    return 1;
}

EXPORT void stub_patched(struct record *r)
{
    r->busy = 1;
    r->path = PATH_DIRECT;
    r->regs.gs_base = 0;
    take_call(r);
}

EXPORT void stub_kicked(struct record *r)
{
    r->busy = 1;
    trap(r, ENGINE_KICKED);
}

/* A call that could not be answered here after all; nothing of it has happened. */
EXPORT void stub_abandoned(struct record *r)
{
    r->fp_saved = 0;
    trap(r, ENGINE_SYSCALL);
}

/* The last C code before the guest: 0 by rt_sigreturn, 1 by loading registers, 2 by iret. */
EXPORT int stub_prepare_leave(struct record *r)
{
    struct guest_regs *g = &r->regs;
    uint64_t gs = g->gs_base ? g->gs_base : (uint64_t)r;
    if (get(&r->kick)) {
        trap(r, ENGINE_KICKED);
        gs = g->gs_base ? g->gs_base : (uint64_t)r;
    }
    if (r->fp_load) {
        r->fp_load = 0;
        stub_xrstor((const uint8_t *)r + RECORD_FP_LOAD);
    }
    if (get_fs() != g->fs_base)
        __asm__ volatile("wrfsbase %0" ::"r"(g->fs_base));
    if (get_gs() != gs)
        __asm__ volatile("wrgsbase %0" ::"r"(gs));
    r->busy = 0;
    if (r->path == PATH_SIGNAL) {
        restore(r, frame_of(r));
        return 0;
    }
    g->cs = CODE_SELECTOR;
    g->ss = DATA_SELECTOR;
    return gs != (uint64_t)r || g->eflags & EFLAGS_TF ? 2 : 1;
}

/* A thread's first steps, and the zygote's. */
EXPORT void stub_newborn(struct record *r)
{
    uint64_t stack[3] = {(uint64_t)r + 0x1000, 0, SS_SIZE};
    const uint64_t *a = r->order_args;
    r->self = (uint64_t)r;
    r->busy = 1;
    __asm__ volatile("wrgsbase %0" ::"r"((uint64_t)r));
    host_call(NR_sigaltstack, (uint64_t)stack, 0, 0, 0, 0, 0);
    if (r->order_nr)
        r->order_result = host_call(r->order_nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    tell(r, RECORD_DONE);
    serve(r);
}
