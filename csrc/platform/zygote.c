/* Booting the zygote: the stub process of which every address space is a clone.
 *
 * A forked child executes the stub file; the Sentry has seized it before, so that the stub belongs
 * to the tracer from its first instruction.  By injected calls it then drops its descriptors, moves vvar
 * and vDSO below the stub page, installs the seccomp filter, and unmaps everything else.  What is
 * left has the stub's code, the vDSO, and no way to call the host but the filter's.
 * All of this happens before the Sentry locks itself down.
 *
 * The `trap` platform's zygote gets its record, its signal handlers and the page that it shares with the engine
 * on the way, and is detached in the end: from then on it is reached by its record only.
 */
#include "core.h"
#include "record.h"
#include "trace.h"
#include "trap.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define OPTIONS                                                                                      \
    (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |        \
     PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)
#define STACK_READ 4096
#define EXEC_TRIES 4
#define FRAME_REST 640 /* of a signal frame: what is not FP state, with the gaps for alignment */
/* SECCOMP_IOCTL_NOTIF_SET_FLAGS and SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, which older headers lack. */
#define NOTIF_SET_FLAGS _IOW('!', 4, uint64_t)
#define NOTIF_SYNC_WAKE_UP 1ul

struct boot {
    struct engine *e;
    struct thread *t;
    uint64_t stack; /* rsp at the start of the program */
    int kept[3];    /* descriptors that live through exec, -1 for none */
};

static int64_t call(struct boot *b, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3,
                    uint64_t a4)
{
    return ptrace_syscall(b->e, &b->t->g, nr, a0, a1, a2, a3, a4, 0);
}

/* Child side, between fork and exec: nothing but system calls. */
static void become_stub(int stub_fd, int go, const int kept[3])
{
    static const char badness[] = "1000";
    char *const argv[] = {(char *)"stub", NULL};
    char *const envp[] = {NULL};
    struct rlimit core = {1, 1};
    sigset_t blocked;
    char byte;
    int fd, i;

    setsid();
    setrlimit(RLIMIT_CORE, &core); /* core(5): 1 also stops dumps into a pipe, 0 does not */
    personality(ADDR_NO_RANDOMIZE);
    fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, badness, sizeof badness - 1) < 0) {
        /* a preference, no more */
    }
    /* Signals from outside shall not even wake it; those that the CPU raises get through anyhow. */
    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGFPE);
    sigdelset(&blocked, SIGILL);
    sigdelset(&blocked, SIGTRAP);
    sigdelset(&blocked, SIGSYS);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    for (i = 0; i < 3; i++)
        if (kept[i] >= 0)
            fcntl(kept[i], F_SETFD, 0);
    if (read(go, &byte, 1) == 1)
        syscall(SYS_execveat, stub_fd, "", argv, envp, AT_EMPTY_PATH);
    _exit(errno);
}

/* Fork, seize, exec: the child is stopped at the stub's first int3. */
static int start(struct boot *b, int stub_fd)
{
    int go[2] = {-1, -1}, status, r;
    pid_t pid;
    bool execed = false;

    if (pipe2(go, O_CLOEXEC) < 0)
        return -errno;
    pid = fork();
    if (pid == 0) {
        close(go[1]);
        become_stub(stub_fd, go[0], b->kept);
    }
    r = pid < 0 ? -errno : trace(PTRACE_SEIZE, pid, 0, (void *)(uintptr_t)OPTIONS);
    if (r < 0)
        goto out;
    r = -ENOEXEC;
    if (write(go[1], "", 1) != 1)
        goto out;
    for (;;) {
        if (waitpid(pid, &status, __WALL) < 0) {
            if (errno == EINTR)
                continue;
            r = -errno;
            goto out;
        }
        if (!WIFSTOPPED(status)) {
            pid = -1;
            if (WIFEXITED(status) && WEXITSTATUS(status))
                r = -WEXITSTATUS(status);
            goto out;
        }
        if (status >> 16 == PTRACE_EVENT_EXEC)
            execed = true;
        else if (execed && status >> 16 == 0 && WSTOPSIG(status) == SIGTRAP)
            break;
        trace(PTRACE_CONT, pid, 0, NULL);
    }
    b->t = thread_new(b->e, pid);
    r = -ENOMEM;
    if (!b->t)
        goto out;
    b->t->thread_count = 1;
    r = trace(PTRACE_GETREGS, pid, 0, &b->t->g.regs);
    b->stack = b->t->g.regs.rsp;
out:
    if (r < 0 && pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, __WALL);
        if (b->t)
            thread_free(b->e, b->t);
        b->t = NULL;
    }
    close(go[0]);
    close(go[1]);
    return r;
}

/* Its stack lies above STUB_BASE, where memory_read does not go. */
static int64_t peek(struct boot *b, uint64_t addr, void *buffer, size_t size)
{
    struct iovec local = {buffer, size}, remote = {(void *)addr, size};
    ssize_t n = process_vm_readv(b->t->g.pid, &local, 1, &remote, 1, 0);
    return n < 0 ? -errno : n;
}

static int poke(struct boot *b, uint64_t addr, const void *buffer, size_t size)
{
    struct iovec local = {(void *)buffer, size}, remote = {(void *)addr, size};
    ssize_t n = process_vm_writev(b->t->g.pid, &local, 1, &remote, 1, 0);
    return n < 0 ? -errno : (size_t)n == size ? 0 : -EFAULT;
}

/* AT_SYSINFO_EHDR from the new program's stack: argc argv[] NULL envp[] NULL auxv[]. */
static int find_vdso(struct boot *b, uint64_t *elf)
{
    uint64_t words[STACK_READ / 8] = {0};
    size_t n, i;
    int64_t got = peek(b, b->stack, words, sizeof words);
    if (got < 8)
        return got < 0 ? (int)got : -EFAULT;
    n = (size_t)got / 8;
    i = 1 + words[0] + 1;
    while (i < n && words[i])
        i++;
    for (i++; i + 1 < n && words[i] != AT_NULL; i += 2)
        if (words[i] == AT_SYSINFO_EHDR) {
            *elf = words[i + 1];
            return 0;
        }
    return -ENOENT;
}

/* Move vvar and vDSO, keeping their distances, so that the last one ends at STUB_BASE. */
static int move_vdso(struct boot *b, const struct vdso_part *parts, int count, uint64_t *start, uint64_t *elf)
{
    uint64_t old_elf;
    int64_t low = 0, high = 0, r;
    int i;

    *start = *elf = STUB_BASE;
    if (count == 0)
        return 0;
    r = find_vdso(b, &old_elf);
    if (r < 0)
        return (int)r;
    for (i = 0; i < count; i++) {
        int64_t end = parts[i].offset + (int64_t)parts[i].size;
        low = parts[i].offset < low ? parts[i].offset : low;
        high = end > high ? end : high;
    }
    *elf = STUB_BASE - (uint64_t)high;
    *start = *elf + (uint64_t)low;
    for (i = 0; i < count; i++) {
        uint64_t size = parts[i].size, to = *elf + (uint64_t)parts[i].offset;
        r = call(b, SYS_mremap, old_elf + (uint64_t)parts[i].offset, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
                 to);
        if (r < 0)
            return (int)r;
    }
    return 0;
}

/* The stub calls the vDSO for programs that make a system call of what they could have had there. */
static void share_clock(struct boot *b, const struct vdso_part *parts, int count, uint64_t elf)
{
    const uint8_t *own = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
    struct shared_page *shared = b->e->shared;
    int i;
    for (i = 0; own && i < count; i++) {
        uint64_t at = parts[i].offset ? 0 : vdso_function(own, parts[i].size, "__vdso_clock_gettime");
        if (!at)
            continue;
        memcpy(&shared->clock_gettime_code, own + at, sizeof shared->clock_gettime_code);
        shared->clock_gettime = elf + at;
    }
}

/* Install the filter; its listener comes over to the Sentry and is closed in the stub. */
static int install_filter(struct boot *b, const void *filter, uint32_t size)
{
    const uint64_t at = (b->stack - 16384 - size) & ~15ull;
    struct sock_fprog prog = {.len = (unsigned short)(size / sizeof(struct sock_filter)),
                              .filter = (struct sock_filter *)(at + sizeof prog)};
    int64_t r, fd;
    int pidfd = -1;

    r = poke(b, at, &prog, sizeof prog);
    if (r == 0)
        r = poke(b, at + sizeof prog, filter, size);
    if (r == 0)
        r = call(b, SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (r < 0)
        return (int)r;
    /* SPEC_ALLOW: there is nothing in a stub that a guest's speculation could not read anyway. */
    fd = call(b, SYS_seccomp, SECCOMP_SET_MODE_FILTER,
              SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_SPEC_ALLOW, at, 0, 0);
    if (fd < 0)
        return (int)fd;
    pidfd = (int)syscall(SYS_pidfd_open, b->t->g.pid, 0);
    b->e->listener = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, (int)fd, 0);
    /* Since Linux 6.6: who makes the call and who answers it take turns on one CPU.  Without, it is slower. */
    if (b->e->listener >= 0)
        b->e->sync_wake = ioctl(b->e->listener, NOTIF_SET_FLAGS, NOTIF_SYNC_WAKE_UP) == 0;
    r = b->e->listener < 0 ? -errno : call(b, SYS_close, (uint64_t)fd, 0, 0, 0, 0);
    if (pidfd >= 0)
        close(pidfd);
    return (int)r;
}

static int unmap_rest(struct boot *b, uint64_t vdso_start)
{
    int64_t r = call(b, SYS_munmap, 0, vdso_start, 0, 0, 0);
    uint64_t from = STUB_BASE + STUB_SIZE;
    if (r == 0 && b->e->trap) {
        r = call(b, SYS_munmap, from, SHARED_PAGE - from, 0, 0, 0);
        from = SHARED_PAGE + 0x1000;
        if (r == 0)
            r = call(b, SYS_munmap, from, RECORDS_BASE - from, 0, 0, 0);
        from = RECORDS_BASE + RECORD_SIZE;
    }
    if (r == 0)
        r = call(b, SYS_munmap, from, STUB_TASK_END - from, 0, 0, 0);
    return (int)r;
}

/* Before the exec: what the engine and all stubs share, and the zygote's record. */
static int make_shared(struct boot *b)
{
    struct engine *e = b->e;
    e->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    e->shared_fd = memfd_create("shared", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (e->bell < 0 || e->shared_fd < 0 || ftruncate(e->shared_fd, 0x1000) < 0)
        return -errno;
    e->shared = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED, e->shared_fd, 0);
    if (e->shared == MAP_FAILED) {
        e->shared = NULL;
        return -errno;
    }
    /* Nobody can ever map it writable but we, who have. */
    if (fcntl(e->shared_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    e->shared->one = 1;
    e->zygote_record_fd = memfd_create("record", MFD_CLOEXEC);
    if (e->zygote_record_fd < 0 || ftruncate(e->zygote_record_fd, RECORD_SIZE) < 0)
        return -errno;
    b->kept[0] = e->bell;
    b->kept[1] = e->shared_fd;
    b->kept[2] = e->zygote_record_fd;
    return 0;
}

static int set_handlers(struct boot *b)
{
    static const int signals[] = {SIGSYS, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, KICK_SIGNAL};
    /* The kernel's struct sigaction: handler, flags, restorer (never used: the stub leaves by itself), mask. */
    const uint64_t action[4] = {STUB_BASE + STUB_SIGNAL_OFFSET, SA_SIGINFO | SA_ONSTACK | SA_NODEFER | 0x04000000,
                                STUB_BASE, 0};
    const uint64_t kick = 1ull << (KICK_SIGNAL - 1), stack[3] = {RECORDS_BASE + 0x1000, 0, RECORD_STACK_TOP - 0x1000};
    const uint64_t at = b->stack - 8192;
    size_t i;
    int64_t r = poke(b, at, action, sizeof action);
    for (i = 0; r == 0 && i < sizeof signals / sizeof *signals; i++)
        r = call(b, SYS_rt_sigaction, (uint64_t)signals[i], at, 0, 8, 0);
    if (r == 0)
        r = poke(b, at, &kick, sizeof kick);
    if (r == 0)
        r = call(b, SYS_rt_sigprocmask, SIG_UNBLOCK, at, 0, 8, 0);
    if (r == 0)
        r = poke(b, at, stack, sizeof stack);
    return r < 0 ? (int)r : (int)call(b, SYS_sigaltstack, at, 0, 0, 0, 0);
}

static int map_shared(struct boot *b)
{
    struct engine *e = b->e;
    struct record *r;
    int64_t at = ptrace_syscall(e, &b->t->g, SYS_mmap, SHARED_PAGE, 0x1000, PROT_READ, MAP_SHARED | MAP_FIXED,
                                (uint64_t)e->shared_fd, 0);
    if (at < 0)
        return (int)at;
    at = ptrace_syscall(e, &b->t->g, SYS_mmap, RECORDS_BASE, RECORD_SIZE, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_FIXED, (uint64_t)e->zygote_record_fd, 0);
    if (at >= 0)
        at = call(b, SYS_madvise, RECORDS_BASE, RECORD_SIZE, MADV_DONTFORK, 0, 0);
    if (at >= 0 && e->bell != BELL_FD)
        at = call(b, SYS_dup2, (uint64_t)e->bell, BELL_FD, 0, 0, 0);
    if (at < 0)
        return (int)at;
    e->shared->fp_features = e->fp_features;
    e->shared->frame_size = e->fpstate_size + FRAME_REST;
    b->t->record_fd = e->zygote_record_fd;
    e->zygote_record_fd = -1;
    b->t->first_record = RECORDS_BASE;
    b->t->record_count = 1;
    at = record_make(b->t, b->t, 0, RECORDS_BASE);
    if (at < 0)
        return (int)at;
    r = b->t->record;
    r->state = RECORD_BIRTH;
    r->self = RECORDS_BASE;
    r->path = PATH_DIRECT;
    return 0;
}

/* The zygote runs into the stub's loop, and is ours by its record alone. */
static int let_go(struct boot *b)
{
    struct thread *t = b->t;
    struct guest_regs regs;
    int r;
    memset(&t->g.regs, 0, sizeof t->g.regs);
    t->g.regs.rip = STUB_BASE + STUB_NEWBORN_OFFSET;
    t->g.regs.rbx = RECORDS_BASE;
    t->g.regs.rsp = RECORDS_BASE + RECORD_STACK_TOP;
    regs_sanitize(&regs, &t->g.regs);
    r = trace(PTRACE_SETREGS, t->g.pid, 0, &regs);
    if (r == 0)
        r = trace(PTRACE_DETACH, t->g.pid, 0, NULL);
    if (r == 0)
        r = trap_await_done(b->e, t);
    return r;
}

int ptrace_boot(struct engine *e, int stub_fd, const void *filter, uint32_t filter_size,
                const struct vdso_part *parts, int part_count, uint64_t *vdso_start, uint64_t *vdso_elf,
                struct guest_thread **zygote)
{
    struct boot b = {.e = e, .kept = {-1, -1, -1}};
    int tries, r = -EINVAL;

    e->resume = ptrace_resume;
    if (filter_size == 0 || filter_size % sizeof(struct sock_filter) ||
        filter_size > 4096 * sizeof(struct sock_filter) || e->listener >= 0)
        return r;
    if (e->trap) {
        r = make_shared(&b);
        if (r == 0)
            r = trap_init(e);
        if (r < 0)
            return r;
    }
    /* Where personality(2) is forbidden, the stack's random place may be the stub's: try again. */
    for (tries = 0, r = -ENOEXEC; r == -ENOEXEC && tries < EXEC_TRIES; tries++)
        r = start(&b, stub_fd);
    if (r < 0)
        return r;
    r = xstate_learn(e, &b.t->g);
    if (r == 0 && e->trap)
        r = map_shared(&b);
    if (r == 0 && e->trap)
        r = set_handlers(&b);
    if (r == 0)
        r = (int)call(&b, SYS_close_range, e->trap ? BELL_FD + 1 : 0, ~0u, 0, 0, 0);
    if (r == 0)
        r = move_vdso(&b, parts, part_count, vdso_start, vdso_elf);
    if (r == 0 && e->trap)
        share_clock(&b, parts, part_count, *vdso_elf);
    if (r == 0)
        r = install_filter(&b, filter, filter_size);
    if (r == 0 && e->trap)
        r = trap_listen(e);
    if (r == 0)
        r = unmap_rest(&b, *vdso_start);
    if (r == 0 && e->trap)
        r = let_go(&b);
    if (r < 0) {
        guest_kill(e, &b.t->g);
        guest_forget(e, &b.t->g);
        guest_reap(e);
        return r;
    }
    memset(&b.t->g.regs, 0, sizeof b.t->g.regs);
    *zygote = &b.t->g;
    return 0;
}
