/* seccomp(2): SECCOMP_RET_TRAP's signal, threads and their synchronisation. */
#include "seccomp_common.h"

#include <linux/audit.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <ucontext.h>

static volatile int sigsys;

static void on_sigsys(int signo, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    sigsys++;
    say("%s code %d errno %d syscall %d arch %s address %s rax %lld", signal_name(signo), info->si_code,
        info->si_errno, info->si_syscall, info->si_arch == AUDIT_ARCH_X86_64 ? "x86-64" : "?",
        (long long)info->si_call_addr == regs[REG_RIP] ? "is rip" : "is not rip", (long long)regs[REG_RAX]);
    say("arguments %lld %lld %lld", (long long)regs[REG_RDI], (long long)regs[REG_RSI], (long long)regs[REG_RDX]);
    regs[REG_RAX] = 4711;
}

static void trapped(void)
{
    CASE("a handler answers");
    handle_flags(SIGSYS, on_sigsys, 0);
    MUST(install(0, SYS_getpriority, SECCOMP_RET_TRAP | 99));
    SHOW(syscall(SYS_getpriority, 5, 6, 7));
    SHOW(syscall(SYS_getpriority, 5, 6, 7));
    MUST(install(0, SYS_getpid, SECCOMP_RET_TRAP));
    SHOW(syscall(SYS_getpid, 1, 2, 3));
    MUST(install(0, SYS_nanosleep, SECCOMP_RET_TRAP | 3));
    SHOW(syscall(SYS_nanosleep, 1, 2, 3));
    say("%d signals", sigsys);
    no_core();
    CASE("blocked or ignored: fatal");
    reap("blocked", CHILD({
        sigset_t set = set_of(SIGSYS);
        sigprocmask(SIG_BLOCK, &set, NULL);
        syscall(SYS_getpriority, 0, 0, 0);
    }));
    reap("ignored", CHILD(signal(SIGSYS, SIG_IGN); syscall(SYS_getpriority, 0, 0, 0)));
    reap("default", CHILD(signal(SIGSYS, SIG_DFL); syscall(SYS_getpriority, 0, 0, 0)));
}

static volatile int stage;
static int tid;
static uint32_t word;

static void *waiter(void *unused)
{
    tid = (int)syscall(SYS_gettid);
    stage = 1;
    while (stage != 2)
        sched_yield();
    errno = 0;
    long result = syscall(SYS_getpriority, 0, 0);
    say("thread: %s %s", result > 0 ? "a priority" : "-1", error_name(errno));
    say("thread: mode %d nnp %d", prctl(PR_GET_SECCOMP), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    return unused;
}

static void *other_filter(void *unused)
{
    tid = (int)syscall(SYS_gettid);
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(install(0, SYS_sched_rr_get_interval, SECCOMP_RET_ERRNO | 5));
    stage = 1;
    while (stage != 2)
        sched_yield();
    return unused;
}

static pthread_t start(void *(*function)(void *))
{
    pthread_t thread;
    stage = 0;
    NEED(pthread_create(&thread, NULL, function, NULL) == 0);
    while (stage != 1)
        sched_yield();
    return thread;
}

static void finish(pthread_t thread)
{
    stage = 2;
    pthread_join(thread, NULL);
}

static void synchronised(void)
{
    CASE("without TSYNC: the caller only");
    pthread_t thread = start(waiter);
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(install(0, SYS_getpriority, SECCOMP_RET_ERRNO | EUCLEAN));
    finish(thread);
    CASE("a new thread inherits");
    finish(start(waiter));
    CASE("TSYNC");
    thread = start(waiter);
    SHOW(install(SECCOMP_FILTER_FLAG_TSYNC, SYS_getpriority, SECCOMP_RET_ERRNO | EISNAM));
    finish(thread);
    CASE("TSYNC that fails");
    thread = start(other_filter);
    SHOW(install(SECCOMP_FILTER_FLAG_TSYNC, SYS_getpriority, SECCOMP_RET_ERRNO | EREMOTEIO) == tid);
    SHOW(install(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, SYS_getpriority, SECCOMP_RET_ERRNO));
    SHOW(syscall(SYS_getpriority, 0, 0));
    SHOW(install(SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW, SYS_getpriority, SECCOMP_RET_LOG));
    finish(thread);
}

static void *killed(void *call)
{
    syscall((long)call);
    say("not reached");
    return NULL;
}

static void threads_die(void)
{
    pthread_t thread;
    CASE("KILL_THREAD ends a thread, KILL_PROCESS all");
    no_core();
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(install(0, SYS_getpriority, SECCOMP_RET_KILL_THREAD));
    NEED(pthread_create(&thread, NULL, killed, (void *)SYS_getpriority) == 0);
    pthread_join(thread, NULL);
    say("joined");
    MUST(install(0, SYS_sched_yield, SECCOMP_RET_KILL_PROCESS));
    NEED(pthread_create(&thread, NULL, killed, (void *)SYS_sched_yield) == 0);
    pthread_join(thread, NULL);
    say("not reached");
}

static void *sleeper(void *unused)
{
    long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    say("woken: %ld", result);
    return unused;
}

static void nothing(int signo UNUSED) {}

/* The filter looks at an argument of futex(2), so that none is answered before it has been asked. */
static void futexes(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FUTEX_WAKE_OP_PRIVATE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EDOM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {7, code};
    pthread_t before, after;
    CASE("futexes under a filter");
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    NEED(pthread_create(&before, NULL, sleeper, NULL) == 0);
    MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
    NEED(pthread_create(&after, NULL, sleeper, NULL) == 0);
    SHOW(syscall(SYS_futex, &word, FUTEX_WAKE_OP_PRIVATE, 1, NULL, &word, 0));
    SHOW(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0));
    struct timespec soon = {0, 20000000}, later = {100, 0};
    SHOW(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &soon, NULL, 0));
    handle_plain(SIGALRM, nothing);
    struct itimerval once = {{0, 0}, {0, 20000}};
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    sigset_t set = set_of(SIGALRM);
    SHOW(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &later, NULL, 0));
    (void)set;
    int woken = 0;
    while (woken < 2)
        woken += syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 2, NULL, NULL, 0);
    pthread_join(before, NULL);
    pthread_join(after, NULL);
}

int main(void)
{
    reap("synchronised", CHILD(synchronised()));
    reap("threads", CHILD(threads_die()));
    reap("futexes", CHILD(futexes()));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    reap("trapped", CHILD(trapped()));
    return 0;
}
