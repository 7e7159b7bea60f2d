/* Shared futexes between processes, whoever keeps their waiters: at several addresses, requeued, traced, dying. */
#include "check.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/shm.h>

static long futex(void *addr, int op, uint32_t value, const void *timeout, void *addr2, uint32_t value3)
{
    return syscall(SYS_futex, addr, op, value, timeout, addr2, value3);
}

/* A child that makes the call, and exits with its error, or 0. */
#define WAITER(call) CHILD(_exit((call) == -1 ? errno : 0))

/* Wakes once as many as are meant to be asleep are: the sum. */
static long wake_all(void *addr, int count)
{
    long woken = 0;
    for (int i = 0; i < 5000 && woken < count; i++) {
        long now = futex(addr, FUTEX_WAKE, count - (int)woken, NULL, NULL, 0);
        if (now == -1)
            return -1;
        woken += now;
        if (!now)
            usleep(1000);
    }
    return woken;
}

static uint32_t *map(int fd, int flags)
{
    void *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, flags, fd, 0);
    NEED(memory != MAP_FAILED);
    return memory;
}

static void two_addresses(const char *what, int fd)
{
    say("-- one page, two addresses: %s", what);
    uint32_t *here = map(fd, MAP_SHARED), *there = map(fd, MAP_SHARED), *copy = map(fd, MAP_PRIVATE);
    pid_t pid = WAITER(futex(here + 1025, FUTEX_WAIT, 0, NULL, NULL, 0));
    SHOW(futex(copy + 1, FUTEX_WAKE, 9, NULL, NULL, 0));
    SHOW(wake_all(there + 1025, 1));
    reap("waiter", pid);
    copy[1025] = 0;
    pid = WAITER(futex(here + 1025, FUTEX_WAIT, 0, NULL, NULL, 0));
    usleep(50000);
    SHOW(futex(copy + 1025, FUTEX_WAKE, 9, NULL, NULL, 0));
    SHOW(futex(there + 1026, FUTEX_WAKE, 9, NULL, NULL, 0));
    SHOW(futex(there + 1025, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 9, NULL, NULL, 0));
    SHOW(wake_all(there + 1025, 1));
    reap("waiter", pid);
    munmap(here, 8192);
    munmap(there, 8192);
    munmap(copy, 8192);
}

static void places(void)
{
    int fd = MUST(memfd_create("words", 0));
    MUST(ftruncate(fd, 8192));
    two_addresses("a memfd", fd);
    close(fd);
    fd = MUST(open("words", O_RDWR | O_CREAT, 0600));
    MUST(ftruncate(fd, 8192));
    two_addresses("a file", fd);
    close(fd);
    CASE("a segment, attached twice, once for reading");
    int id = MUST(shmget(IPC_PRIVATE, 4096, 0600));
    uint32_t *here = shmat(id, NULL, 0), *there = shmat(id, NULL, SHM_RDONLY);
    pid_t pid = WAITER(futex(there, FUTEX_WAIT, 0, NULL, NULL, 0));
    SHOW(wake_all(here, 1));
    reap("waiter", pid);
    MUST(shmctl(id, IPC_RMID, NULL));
    CASE("memory of one's own, not said to be private");
    uint32_t *own = map(-1, MAP_PRIVATE | MAP_ANONYMOUS);
    pid = CHILD(struct timespec t = {0, 100000000}; _exit(futex(own, FUTEX_WAIT, 0, &t, NULL, 0) == -1 ? errno : 0));
    SHOW(futex(own, FUTEX_WAKE, 9, NULL, NULL, 0));
    usleep(50000);
    SHOW(futex(own, FUTEX_WAKE, 9, NULL, NULL, 0));
    reap("waiter", pid);
}

static uint32_t *words;

static void wrong_places(void)
{
    CASE("places where no futex is");
    char *gap = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SHOW(futex(gap, FUTEX_WAKE, 1, NULL, NULL, 0));
    SHOW(futex(gap, FUTEX_WAIT, 0, NULL, NULL, 0));
    SHOW(futex(words, FUTEX_REQUEUE, 0, (void *)1, gap, 0));
    munmap(gap, 4096);
    SHOW(futex(gap, FUTEX_WAKE, 1, NULL, NULL, 0));
    SHOW(futex((char *)words + 2, FUTEX_WAKE, 1, NULL, NULL, 0));
    SHOW(futex((void *)-4l, FUTEX_WAKE, 1, NULL, NULL, 0));
    SHOW(futex((void *)-4l, FUTEX_WAIT, 0, NULL, NULL, 0));
    int fd = MUST(open("words", O_RDWR));
    uint32_t *file = map(fd, MAP_SHARED);
    MUST(ftruncate(fd, 4096));
    SHOW(futex(file + 1024, FUTEX_WAKE, 1, NULL, NULL, 0));
    SHOW(futex(file + 1024, FUTEX_WAIT, 0, NULL, NULL, 0));
    munmap(file, 8192);
    close(fd);
}

static void several(void)
{
    pid_t pids[3];
    CASE("three processes wait, two are moved");
    for (int i = 0; i < 3; i++)
        pids[i] = WAITER(futex(&words[0], FUTEX_WAIT, 0, NULL, NULL, 0));
    usleep(100000);
    SHOW(futex(&words[0], FUTEX_CMP_REQUEUE, 1, (void *)9, &words[1], 7));
    SHOW(futex(&words[0], FUTEX_CMP_REQUEUE, 1, (void *)9, &words[1], 0));
    SHOW(futex(&words[0], FUTEX_WAKE, 9, NULL, NULL, 0));
    SHOW(futex(&words[1], FUTEX_WAKE, 9, NULL, NULL, 0));
    for (int i = 0; i < 3; i++)
        reap("waiter", pids[i]);
    CASE("by bits");
    pid_t pid = WAITER(futex(&words[0], FUTEX_WAIT_BITSET, 0, NULL, NULL, 4));
    usleep(50000);
    SHOW(futex(&words[0], FUTEX_WAKE_BITSET, 9, NULL, NULL, 3));
    SHOW(futex(&words[0], FUTEX_WAKE_BITSET, 9, NULL, NULL, 6));
    SHOW(futex(&words[0], FUTEX_WAKE_BITSET, 9, NULL, NULL, 0));
    reap("waiter", pid);
    CASE("two words at once");
    pids[0] = WAITER(futex(&words[0], FUTEX_WAIT, 0, NULL, NULL, 0));
    pids[1] = WAITER(futex(&words[2], FUTEX_WAIT, 0, NULL, NULL, 0));
    usleep(50000);
    SHOW(futex(&words[0], FUTEX_WAKE_OP, 1, (void *)1, &words[2], 1u << 28 | 5 << 12));
    say("%u", words[2]);
    reap("waiter", pids[0]);
    reap("waiter", pids[1]);
    words[2] = 0;
    CASE("one that was killed is not woken");
    pid = CHILD(futex(&words[0], FUTEX_WAIT, 0, NULL, NULL, 0));
    usleep(50000);
    MUST(kill(pid, SIGKILL));
    reap("waiter", pid);
    SHOW(futex(&words[0], FUTEX_WAKE, 9, NULL, NULL, 0));
}

/* One waits as who waits for several does, one as ever: the wakers need not know. */
static void mixed(void)
{
    struct {
        uint64_t value, addr;
        uint32_t flags, reserved;
    } pair[2] = {{0, (uintptr_t)&words[0], 2, 0}, {0, (uintptr_t)&words[1], 2, 0}};
    CASE("all kinds of waiters at one word");
    pid_t first = WAITER(syscall(449, pair, 2, 0, NULL, 0));
    pid_t second = CHILD(futex(&words[0], FUTEX_WAIT, 0, NULL, NULL, 0));
    SHOW(wake_all(&words[0], 2));
    reap("of two", first);
    reap("of one", second);
    second = CHILD(futex(&words[0], FUTEX_WAIT, 0, NULL, NULL, 0));
    usleep(50000);
    first = CHILD(syscall(449, pair, 2, 0, NULL, 0));
    usleep(50000);
    SHOW(futex(&words[0], FUTEX_REQUEUE, 0, (void *)9, &words[3], 0));
    SHOW(wake_all(&words[3], 2));
    reap("of two", first);
    reap("of one", second);
}

static void traced(void)
{
    CASE("a traced process waits, another wakes it; and the other way round");
    pid_t pid = CHILD({
        MUST(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
        raise(SIGSTOP);
        if (futex(&words[0], FUTEX_WAIT, 0, NULL, NULL, 0) == -1)
            _exit(errno);
        _exit(wake_all(&words[1], 1) == 1 ? 0 : 1);
    });
    int status;
    MUST(waitpid(pid, &status, 0));
    show_status("traced", status);
    MUST(ptrace(PTRACE_CONT, pid, NULL, NULL));
    SHOW(wake_all(&words[0], 1));
    SHOW(futex(&words[1], FUTEX_WAIT, 0, NULL, NULL, 0));
    reap("traced", pid);
    CASE("a waiter is attached to, and let go");
    pid = WAITER(futex(&words[0], FUTEX_WAIT, 0, NULL, NULL, 0));
    usleep(50000);
    MUST(ptrace(PTRACE_SEIZE, pid, NULL, NULL));
    usleep(50000);
    SHOW(wake_all(&words[0], 1));
    reap("traced", pid);
    pid = WAITER(futex(&words[0], FUTEX_WAIT, 0, NULL, NULL, 0));
    usleep(50000);
    MUST(ptrace(PTRACE_ATTACH, pid, NULL, NULL));
    MUST(waitpid(pid, &status, 0));
    show_status("attached", status);
    MUST(ptrace(PTRACE_DETACH, pid, NULL, NULL));
    SHOW(wake_all(&words[0], 1));
    reap("detached", pid);
}

static volatile int alarms;

static void on_alarm(int signo UNUSED)
{
    alarms++;
}

static void interrupted(void)
{
    struct itimerval once = {{0, 0}, {0, 30000}};
    struct timespec later = {0, 100000000};
    CASE("interrupted");
    handle_plain(SIGALRM, on_alarm);
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    SHOW(futex(words, FUTEX_WAIT, 0, NULL, NULL, 0));
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    SHOW(futex(words, FUTEX_WAIT, 0, &later, NULL, 0));
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    MUST(setitimer(ITIMER_REAL, &once, NULL));
    pid_t pid = CHILD(usleep(100000); _exit((int)wake_all(words, 1)));
    SHOW(futex(words, FUTEX_WAIT, 0, NULL, NULL, 0));
    reap("waker", pid);
    say("%d alarms", alarms);
    SHOW(futex(words, FUTEX_WAIT, 0, &later, NULL, 0));
    struct timespec wrong = {0, -1};
    SHOW(futex(words, FUTEX_WAIT, 0, &wrong, NULL, 0));
    SHOW(futex(words, FUTEX_WAIT, 0, BAD, NULL, 0));
}

static void *first_thread(void *arg)
{
    return arg;
}

static void *last_thread(void *main_thread)
{
    void *result;
    SHOW(pthread_join(*(pthread_t *)main_thread, &result));
    say("result %d", (int)(intptr_t)result);
    exit(3);
}

static void ends(void)
{
    pthread_t thread;
    void *result;
    CASE("threads that are joined: one that has ended, the first one");
    pthread_create(&thread, NULL, first_thread, (void *)7);
    usleep(20000);
    SHOW(pthread_join(thread, &result));
    say("result %d", (int)(intptr_t)result);
    fflush(NULL);
    pid_t pid = CHILD({
        pthread_t self = pthread_self();
        pthread_create(&thread, NULL, last_thread, &self);
        pthread_exit((void *)9);
    });
    reap("child", pid);
    CASE("robust, between processes: killed in the midst, and in exec");
    pthread_mutex_t *lock = (pthread_mutex_t *)(words + 64);
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    for (int i = 0; i < 2; i++) {
        MUST(pthread_mutex_init(lock, &attr));
        struct gate held = gate_make();
        pid = CHILD({
            pthread_mutex_lock(lock);
            gate_open(held);
            usleep(100000);
            if (i)
                execl("/bin/true", "true", NULL);
            kill(getpid(), SIGKILL);
        });
        gate_wait(held);
        say("%s", error_name(pthread_mutex_lock(lock)));
        say("%d", pthread_mutex_consistent(lock));
        say("%d", pthread_mutex_unlock(lock));
        reap("owner", pid);
        gate_close(held);
    }
}

int main(void)
{
    scratch();
    words = map(-1, MAP_SHARED | MAP_ANONYMOUS);
    places();
    wrong_places();
    several();
    mixed();
    traced();
    interrupted();
    ends();
    return 0;
}
