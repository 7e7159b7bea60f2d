/* ptrace(2): attaching to threads that are busy with calls and futexes, and letting them go again. */
#include "ptrace_common.h"
#include <linux/futex.h>
#include <stdatomic.h>
#include <pthread.h>

#define THREADS 3

struct shared {
    atomic_ulong rounds[THREADS + 1];
    pid_t tids[THREADS + 1];
};
static struct shared *shared;
static int baton;

extern const unsigned char busy_site[];

static long busy_call(void)
{
    long result;
    __asm__ volatile(".globl busy_site\n"
                     "busy_site: mov $110, %%eax\n\t"
                     "syscall"
                     : "=a"(result)::"rcx", "r11", "memory");
    return result;
}

static void *call_on(void *arg UNUSED)
{
    shared->tids[0] = (pid_t)syscall(SYS_gettid);
    while (shared) {
        busy_call();
        shared->rounds[0]++;
    }
    return NULL;
}

/* Two threads hand a baton to each other. */
static void *pass_on(void *arg)
{
    int me = (int)(long)arg;
    shared->tids[me] = (pid_t)syscall(SYS_gettid);
    while (shared) {
        while (__atomic_load_n(&baton, __ATOMIC_ACQUIRE) != me)
            syscall(SYS_futex, &baton, FUTEX_WAIT_PRIVATE, 3 - me, NULL);
        __atomic_store_n(&baton, 3 - me, __ATOMIC_RELEASE);
        syscall(SYS_futex, &baton, FUTEX_WAKE_PRIVATE, 1);
        shared->rounds[me]++;
    }
    return NULL;
}

static void run(void)
{
    pthread_t threads[THREADS];
    baton = 1;
    pthread_create(&threads[0], NULL, call_on, NULL);
    pthread_create(&threads[1], NULL, pass_on, (void *)1l);
    pthread_create(&threads[2], NULL, pass_on, (void *)2l);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* Whether every thread makes some rounds more. */
static const char *all_go_on(void)
{
    unsigned long before[THREADS];
    for (int i = 0; i < THREADS; i++)
        before[i] = shared->rounds[i];
    for (int i = 0; i < THREADS; i++)
        for (int tries = 0; shared->rounds[i] < before[i] + 100; tries++) {
            if (tries == 5000)
                return "no";
            usleep(1000);
        }
    return "yes";
}

static void show_text(pid_t tid)
{
    unsigned char text[8];
    long word = ptrace(PTRACE_PEEKTEXT, tid, busy_site, 0);
    memcpy(text, &word, 8);
    say("the site: %02x %02x %02x %02x %02x %02x %02x", text[0], text[1], text[2], text[3], text[4], text[5], text[6]);
}

static void attach_all(int request)
{
    CASE(request == PTRACE_ATTACH ? "attach to each thread" : "seize each thread");
    struct user_regs_struct regs;
    int status;
    for (int i = 0; i < THREADS; i++) {
        MUST(ptrace(request, shared->tids[i], 0, 0));
        if (request == PTRACE_SEIZE)
            MUST(ptrace(PTRACE_INTERRUPT, shared->tids[i], 0, 0));
        NEED(waitpid(shared->tids[i], &status, __WALL) == shared->tids[i]);
        show_stop("stop", status);
    }
    show_text(shared->tids[0]);
    for (int i = 0; i < 20; i++) {
        MUST(ptrace(PTRACE_SINGLESTEP, shared->tids[0], 0, 0));
        NEED(waitpid(shared->tids[0], &status, __WALL) == shared->tids[0]);
        MUST(ptrace(PTRACE_GETREGS, shared->tids[0], 0, &regs));
        if (WSTOPSIG(status) != SIGTRAP)
            show_stop("step", status);
    }
    SHOW_IF(regs.rip - (unsigned long)call_on < 0x100000 || (unsigned long)call_on - regs.rip < 0x100000);
    for (int i = 0; i < THREADS; i++)
        MUST(ptrace(PTRACE_CONT, shared->tids[i], 0, 0));
    say("all go on: %s", all_go_on());
    for (int i = 0; i < THREADS; i++) {
        MUST(syscall(SYS_tgkill, shared->tids[THREADS], shared->tids[i], SIGUSR1));
        NEED(waitpid(shared->tids[i], &status, __WALL) == shared->tids[i]);
        show_stop("stop", status);
        MUST(ptrace(PTRACE_DETACH, shared->tids[i], 0, 0));
    }
    say("all go on: %s", all_go_on());
}

static void attach_one(int which)
{
    CASE(which ? "one that waits for another" : "one that makes calls");
    int status;
    pid_t tid = shared->tids[which];
    MUST(ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD));
    say("all go on: %s", all_go_on());
    MUST(ptrace(PTRACE_INTERRUPT, tid, 0, 0));
    NEED(waitpid(tid, &status, __WALL) == tid);
    show_stop("stop", status);
    for (int i = 0; i < 50; i++) {
        MUST(ptrace(PTRACE_SYSCALL, tid, 0, 0));
        NEED(waitpid(tid, &status, __WALL) == tid);
        NEED(WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80));
    }
    MUST(ptrace(PTRACE_DETACH, tid, 0, 0));
    say("all go on: %s", all_go_on());
}

int main(void)
{
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 3; round++) {
        memset(shared, 0, sizeof *shared);
        pid_t pid = CHILD({ run(); });
        shared->tids[THREADS] = pid;
        say("all go on: %s", all_go_on());
        if (round == 0)
            attach_all(PTRACE_ATTACH);
        else if (round == 1)
            attach_all(PTRACE_SEIZE);
        for (int i = 0; i < THREADS; i++)
            attach_one(i);
        MUST(kill(pid, SIGKILL));
        reap("ends", pid);
    }
    return 0;
}
