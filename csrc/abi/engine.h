/* What C and Python share of the engine: structs, constants and calls.
 *
 * This header is included by the engine's sources and read by cffi (csrc/build_engine.py drops
 * the lines that start with '#', except plain integer #defines).  Calls return 0 or a count, or a
 * negative errno.  All of them belong to one thread: the one that called ptrace_boot, since ptrace
 * ties a tracee to the thread that attached it.
 */
#pragma once
#include <stdint.h>

/* guest_thread.kind, the same numbers as in sentry/platform/base.py. */
#define ENGINE_SYSCALL 1
#define ENGINE_FAULT 2
#define ENGINE_KICKED 3
#define ENGINE_DEAD 4
#define ENGINE_SITE 6 /* code 1: and then as SYSCALL; 0: the call has been answered without us */

/* guest_thread.state */
#define THREAD_FREE 0
#define THREAD_STOPPED 1  /* the Sentry owns it */
#define THREAD_RUNNING 2  /* it runs guest code */
#define THREAD_INJECTED 3 /* it runs a stub sequence, only ever while an engine call is on the way */
#define THREAD_NEWBORN 4  /* stopped after clone, not handed to Python yet */
#define THREAD_DYING 5    /* killed by us, to be reaped; Python has forgotten it */
#define THREAD_DEAD 6     /* reaped; Python has not forgotten it yet */
#define THREAD_PARKED 7   /* its call sleeps in C: for Python it runs (engine/parking.c) */

/* What is at an address, see memory_resident. */
#define PAGE_ABSENT 0
#define PAGE_RESIDENT 1
#define PAGE_ZERO 2 /* the one page of zeroes that all share */

/* engine_event.what */
#define EVENT_TRAP 1
#define EVENT_FD 2
#define EVENT_WOKEN 3 /* queue_take, vfile_take or vfile_take_closed has something */

/* The layout of Linux's user_regs_struct. */
struct guest_regs {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    uint64_t orig_rax, rip, cs, eflags, rsp, ss, fs_base, gs_base, ds, es, fs, gs;
};

/* What the program's own address space may know of its task, so that a platform can answer calls there.  On
 * `trap` it lies in memory that the guest can write. */
struct guest_hot {
    uint32_t forced;  /* every call has to be seen by the Sentry: reasons (FORCED_* in sentry/kernel/bound.py) */
    uint32_t known;   /* which are true: bits by HOT_*; HOT_SIGMASK: the mask may be changed there */
    uint32_t ids[8];  /* by HOT_* */
    uint64_t sigmask;
    uint64_t pending; /* signals that would be delivered if they were not blocked */
    uint64_t clear_tid, robust_list; /* where the program wants to be told of the end of its threads */
    uint64_t limits[32]; /* RLIMIT_*: soft, hard */
    uint64_t altstack; /* signal frames are Python's: an alternate stack, or a fault to be told of */
    uint64_t passes;   /* PASS_*: a forced call that the Sentry has seen, and that the stub shall make after all */
    uint64_t allowed[8]; /* calls that are not forced if there is no reason but FORCED_BY_NUMBER, by number */
};

#define FORCED_BY_NUMBER 12 /* FORCED_SECCOMP, FORCED_FUTEX */

#define PASS_ONCE 1  /* the next futex(2) */
#define PASS_BEGUN 2 /* it is under way; or a kick has ended its wait, let pass or not */

#define HOT_PID 0
#define HOT_TID 1
#define HOT_PPID 2
#define HOT_UID 3
#define HOT_EUID 4
#define HOT_GID 5
#define HOT_EGID 6
#define HOT_SIGMASK 7
#define HOT_TELL 8   /* clear_tid and robust_list may be changed there */
#define HOT_LIMITS 9
#define HOT_OWN_FUTEXES 10 /* futexes are the kernel's, not the host's */

/* What a task has read and written: bytes, and calls (proc_pid_io(5)). */
struct io_counts {
    uint64_t bytes[2], calls[2]; /* [0]: read, [1]: written */
};

/* One host thread of a stub.  Lives in memory that is never given back, so that a stale reference is
 * wrong but not dangerous.  Python writes `regs` only while the thread is stopped, nothing else. */
struct fd_table;
struct patch_table;
struct mm;
struct sighand;
struct fs_context;
struct vcred;
struct guest_thread {
    struct guest_regs regs;
    uint64_t addr;  /* of the last FAULT: si_addr */
    int32_t kind;   /* why it stopped, ENGINE_* */
    int32_t signo;  /* of the last FAULT, with the four below */
    int32_t code;   /* si_code */
    int32_t trapno; /* x86 exception vector, as sigcontext.trapno */
    int32_t error;  /* x86 error code as far as ptrace lets it be known */
    int32_t pid;    /* host thread id */
    int32_t tgid;   /* host process id */
    uint32_t slot;  /* index of this struct, reused after death */
    uint32_t state; /* THREAD_* */
    struct guest_hot *hot;  /* never NULL; lives as long as the thread does */
    uint64_t progress; /* of a trapped call that was parked before: bytes moved so far. */
    uint64_t deadline; /* and when it ends (CLOCK_MONOTONIC, ns; 0: never).  Who uses them sets them to 0 */
    uint64_t idle_ns;  /* time spent parked, see thread_take_idle */
    struct patch_table *patches; /* of its address space; NULL: call sites are not patched */
    struct fd_table *files; /* of the task that runs on it, for the fast paths; NULL: none are taken */
    struct mm *mm;          /* likewise; NULL: none on memory */
    struct sighand *sighand; /* likewise; NULL: none on signals */
    int32_t task_tgid, task_tid; /* in its namespace of process ids */
    uint32_t task_uid;
    uint32_t task_nested; /* that namespace is not the first one */
    uint32_t forced; /* no call is answered by a fast path (guest_hot.forced is the guest's to forge) */
    struct fs_context *fs;  /* likewise; NULL: no paths are walked */
    struct vcred *cred;
    uint64_t allowed[8]; /* as in guest_hot, where it is the guest's to forge */
    struct io_counts *io; /* of the task, as /proc/PID/io has them; NULL: there is none */
};

struct engine_event {
    uint64_t token;  /* EVENT_FD: as given to engine_watch */
    uint32_t what;   /* EVENT_* */
    uint32_t slot;   /* EVENT_TRAP: whose guest_thread to read */
    uint32_t events; /* EVENT_FD: EPOLL* bits */
};

/* A mapping of the vDSO family, relative to the ELF header of the vDSO. */
struct vdso_part {
    int64_t offset;
    uint64_t size;
};

struct engine;

/* engine/engine.c */
struct engine *engine_new(int pin, int *error);
void engine_free(struct engine *e);
struct guest_thread *engine_thread(struct engine *e, uint32_t slot);
int engine_watch(struct engine *e, int fd, uint32_t events, uint64_t token);
int engine_unwatch(struct engine *e, int fd);
/* Sleep until something happens; events[] gets at most `max` entries.  timeout_ns -1: no limit. */
int engine_wait(struct engine *e, int64_t timeout_ns, struct engine_event *events, int max);

/* engine/frames.c: what Python knows of a signal that is to be delivered. */
struct signal_frame {
    uint64_t handler, restorer, mask;
    uint64_t stack, lowest;               /* the frame lies below the one and not below the other */
    uint64_t alt_base, alt_flags, alt_size; /* stack_t */
    uint64_t error, trapno, cr2;
    uint8_t info[128]; /* siginfo_t */
};

/* Let the stopped thread run the handler: 0, or -EAGAIN where Python has to do it (nothing has happened). */
int guest_push_frame(struct engine *e, struct guest_thread *g, const struct signal_frame *s);

/* engine/fast.c: whether calls may be answered without Python. */
void engine_set_fast(struct engine *e, int on);
/* How many have been. */
uint64_t engine_fast_count(const struct engine *e);

/* engine/parking.c */
uint64_t thread_take_idle(struct guest_thread *g);

/* engine/memory.c: bytes moved, at least one (less than `size`: the rest cannot be reached). */
int64_t memory_read(int pid, uint64_t addr, void *buffer, uint64_t size);
int64_t memory_write(int pid, uint64_t addr, const void *buffer, uint64_t size);
/* Of `count` pages, `stride` bytes from each to the next: how many are in memory; `pages` (may be NULL) gets a PAGE_*
 * for each.  A page that is not mapped at all counts as PAGE_ZERO.  -ENOSYS, -EPERM: the host doesn't tell. */
int64_t memory_resident(int pid, uint64_t addr, uint64_t stride, uint64_t count, uint8_t *pages);

/* platform/zygote.c: start the zygote; the thread it returns is never resumed, only cloned. */
int ptrace_boot(struct engine *e, int stub_fd, const void *filter, uint32_t filter_size,
                const struct vdso_part *parts, int part_count, uint64_t *vdso_start, uint64_t *vdso_elf,
                struct guest_thread **zygote);

/* platform/boot.c: the same by a thread, for `trap` only.  NULL when there is none; what `filter` and `parts` point
 * to must stay until the end. */
struct boot_thread;
struct boot_thread *ptrace_boot_begin(struct engine *e, int stub_fd, const void *filter, uint32_t filter_size,
                                      const struct vdso_part *parts, int part_count);
int ptrace_boot_end(struct boot_thread *b, uint64_t *vdso_start, uint64_t *vdso_elf, struct guest_thread **zygote);

/* platform/vdso.c: where a function of the vDSO lies, relative to its ELF header; 0: it has none of that name. */
uint64_t vdso_function(const void *elf, uint64_t size, const char *name);

/* platform/platform.c: the same calls for either platform.  Before boot, say which one it is. */
void engine_use_trap(struct engine *e);
int guest_resume(struct engine *e, struct guest_thread *g);
void guest_set_pending(struct guest_thread *g, uint64_t bits);
int guest_kick(struct engine *e, struct guest_thread *g);
int guest_stop(struct engine *e, struct guest_thread *g);
int guest_get_fpstate(struct engine *e, struct guest_thread *g, void *buffer, uint32_t size);
int guest_set_fpstate(struct engine *e, struct guest_thread *g, const void *buffer, uint32_t size);
/* What a program starts with, and a signal handler (frames.c). */
void guest_fresh_fpstate(const void *state, uint32_t size);
int guest_kill(struct engine *e, struct guest_thread *leader);
int guest_forget(struct engine *e, struct guest_thread *g);
int guest_reap(struct engine *e);
int64_t guest_syscall(struct engine *e, struct guest_thread *g, uint64_t number, uint64_t a0, uint64_t a1,
                      uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5);
/* Whether the running thread sleeps in a futex of the host's, as it says itself. */
int guest_blocked(const struct engine *e, const struct guest_thread *g);
/* clock_gettime(what) or getrusage(what), asked by the stopped thread of its host: 0, or -ENOSYS on `ptrace`. */
int guest_ask(struct engine *e, struct guest_thread *g, uint64_t nr, uint64_t what, void *buffer, uint32_t size);
int64_t guest_cmpxchg32(struct engine *e, struct guest_thread *g, uint64_t addr, uint32_t expected,
                        uint32_t wanted);
int guest_clone(struct engine *e, struct guest_thread *g, int thread, struct guest_thread **child);
/* A clone of the process that has private anonymous memory at `addr`. */
int guest_clone_with(struct engine *e, struct guest_thread *g, uint64_t addr, uint64_t size, int prot,
                     struct guest_thread **child);
/* Bytes of private executable memory whose protection is `prot`, each aligned word by one store; behind it no
 * processor executes what was there before. */
int guest_write_code(struct engine *e, struct guest_thread *g, uint64_t addr, const void *data, uint32_t size,
                     int prot);
int guest_exit_thread(struct engine *e, struct guest_thread *g);
/* Registers and FP state of a stopped thread as those of another. */
int guest_become(struct engine *e, struct guest_thread *g, struct guest_thread *like);
int64_t guest_map_file(struct engine *e, struct guest_thread *g, uint64_t addr, uint64_t size, int prot,
                       int flags, int host_fd, uint64_t offset);
