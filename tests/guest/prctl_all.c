/* prctl(2): each operation of Linux 6.12, its argument checks, and what children and programs
 * inherit. */
#include "check.h"

#include <pthread.h>
#include <sys/prctl.h>

#define P(...) SHOW(syscall(SYS_prctl, __VA_ARGS__))

static void names(void)
{
    char name[17] = "";
    CASE("name");
    P(PR_SET_NAME, "a name that is too long", 0, 0, 0);
    P(PR_GET_NAME, name, 0, 0, 0);
    say("'%s'", name);
    P(PR_SET_NAME, BAD, 0, 0, 0);
    P(PR_GET_NAME, BAD, 0, 0, 0);
    P(PR_SET_NAME, "", 0, 0, 0);
    show_file("/proc/self/comm");
    P(PR_SET_NAME, "new", 0, 0, 0);
    pid_t pid = CHILD(prctl(PR_GET_NAME, name); say("child '%s'", name));
    reap("child", pid);
}

static void booleans(void)
{
    CASE("dumpable");
    P(PR_GET_DUMPABLE, 0, 0, 0, 0);
    P(PR_SET_DUMPABLE, 2, 0, 0, 0);
    P(PR_SET_DUMPABLE, -1, 0, 0, 0);
    P(PR_SET_DUMPABLE, 0, 0, 0, 0);
    P(PR_GET_DUMPABLE, 0, 0, 0, 0);
    pid_t pid = CHILD(P(PR_GET_DUMPABLE, 0, 0, 0, 0));
    reap("child", pid);
    P(PR_SET_DUMPABLE, 1, 0, 0, 0);
    CASE("keepcaps");
    P(PR_GET_KEEPCAPS, 0, 0, 0, 0);
    P(PR_SET_KEEPCAPS, 2, 0, 0, 0);
    P(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    P(PR_GET_KEEPCAPS, 0, 0, 0, 0);
    P(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    CASE("timing");
    P(PR_GET_TIMING, 0, 0, 0, 0);
    P(PR_SET_TIMING, 1, 0, 0, 0);
    P(PR_SET_TIMING, 0, 0, 0, 0);
    CASE("huge pages");
    P(PR_GET_THP_DISABLE, 0, 0, 0, 0);
    P(PR_GET_THP_DISABLE, 1, 0, 0, 0);
    P(PR_SET_THP_DISABLE, 1, 0, 0, 1);
    P(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    P(PR_GET_THP_DISABLE, 0, 0, 0, 0);
    pid = CHILD(P(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    reap("child", pid);
    P(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    CASE("no_new_privs");
    pid = CHILD(P(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); P(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0);
                P(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0); P(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0);
                P(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); P(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
                pid_t inner = CHILD(P(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); reap("inner", inner));
    reap("child", pid);
}

static void *slack_thread(void *arg)
{
    P(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    P(PR_SET_TIMERSLACK, 0, 0, 0, 0);
    P(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    return arg;
}

static void slack(void)
{
    CASE("timer slack");
    P(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    P(PR_SET_TIMERSLACK, 1234, 0, 0, 0);
    P(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, slack_thread, NULL);
    pthread_join(thread, NULL);
    P(PR_SET_TIMERSLACK, 0, 0, 0, 0);
    P(PR_GET_TIMERSLACK, 0, 0, 0, 0);
}

static void machine_checks(void)
{
    CASE("machine checks");
    P(PR_MCE_KILL_GET, 0, 0, 0, 0);
    P(PR_MCE_KILL_GET, 1, 0, 0, 0);
    P(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
    P(PR_MCE_KILL_GET, 0, 0, 0, 0);
    pid_t pid = CHILD(P(PR_MCE_KILL_GET, 0, 0, 0, 0));
    reap("child", pid);
    P(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_LATE, 0, 0);
    P(PR_MCE_KILL_GET, 0, 0, 0, 0);
    P(PR_MCE_KILL, PR_MCE_KILL_SET, 3, 0, 0);
    P(PR_MCE_KILL, PR_MCE_KILL_SET, 0, 1, 0);
    P(PR_MCE_KILL, PR_MCE_KILL_CLEAR, 1, 0, 0);
    P(PR_MCE_KILL, PR_MCE_KILL_CLEAR, 0, 0, 0);
    P(PR_MCE_KILL, 2, 0, 0, 0);
    P(PR_MCE_KILL_GET, 0, 0, 0, 0);
}

static void others(void)
{
    int *tid_address = NULL, word = -1;
    CASE("addresses");
    P(PR_GET_TID_ADDRESS, &tid_address, 0, 0, 0);
    SHOW_IF(tid_address != NULL);
    SHOW_OK(syscall(SYS_set_tid_address, &word));
    P(PR_GET_TID_ADDRESS, &tid_address, 0, 0, 0);
    SHOW_IF(tid_address == &word);
    P(PR_GET_TID_ADDRESS, BAD, 0, 0, 0);
    syscall(SYS_set_tid_address, NULL);
    CASE("speculation");
    P(PR_GET_SPECULATION_CTRL, 9, 0, 0, 0);
    P(PR_GET_SPECULATION_CTRL, 0, 1, 0, 0);
    P(PR_SET_SPECULATION_CTRL, 9, 0, 0, 0);
    P(PR_SET_SPECULATION_CTRL, 0, 0, 1, 0);
    CASE("of other machines");
    P(PR_GET_UNALIGN, &word, 0, 0, 0);
    P(PR_SET_UNALIGN, 0, 0, 0, 0);
    P(PR_GET_FPEMU, &word, 0, 0, 0);
    P(PR_SET_FPEMU, 0, 0, 0, 0);
    P(PR_GET_FPEXC, &word, 0, 0, 0);
    P(PR_GET_ENDIAN, &word, 0, 0, 0);
    P(PR_SET_FP_MODE, 0, 0, 0, 0);
    P(PR_SVE_GET_VL, 0, 0, 0, 0);
    P(PR_PAC_RESET_KEYS, 0, 0, 0, 0);
    P(PR_SET_TAGGED_ADDR_CTRL, 1, 0, 0, 0);
    P(PR_GET_TAGGED_ADDR_CTRL, 0, 0, 0, 0);
    P(43, 0, 0, 0, 0);
    P(44, 0, 0, 0, 0);
    P(0, 0, 0, 0, 0);
    P(9999, 0, 0, 0, 0);
    P(PR_GET_TSC, &word, 0, 0, 0);
    say("tsc %d", word);
    P(PR_SET_TSC, 3, 0, 0, 0);
    P(PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0);
    P(PR_GET_TSC, BAD, 0, 0, 0);
}

static void write_xor_execute(void)
{
    CASE("memory-deny-write-execute");
    P(66, 0, 0, 0, 0);
    P(66, 1, 0, 0, 0);
    P(65, 4, 0, 0, 0);
    P(65, 2, 0, 0, 0);
    P(65, 1, 1, 0, 0);
    pid_t pid = MUST(fork());
    if (pid == 0) {
        char *early = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        char *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        P(65, 1, 0, 0, 0);
        P(66, 0, 0, 0, 0);
        P(65, 0, 0, 0, 0);
        P(65, 1, 0, 0, 0);
        SHOW(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                  0) == MAP_FAILED);
        SHOW_OK((long)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        SHOW(mprotect(early, 4096, PROT_READ | PROT_WRITE));
        SHOW(mprotect(early, 4096, PROT_READ | PROT_EXEC));
        SHOW(mprotect(code, 4096, PROT_READ | PROT_EXEC));
        SHOW(mprotect(code, 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
        SHOW(mprotect(code, 4096, PROT_READ | PROT_WRITE));
        pid_t inner = CHILD(P(66, 0, 0, 0, 0); SHOW(mprotect(early, 4096, PROT_READ | PROT_EXEC)));
        reap("inner", inner);
        _exit(0);
    }
    reap("child", pid);
    pid = MUST(fork());
    if (pid == 0) {
        P(65, 3, 0, 0, 0);
        P(66, 0, 0, 0, 0);
        pid_t inner = CHILD(P(66, 0, 0, 0, 0));
        reap("not inherited", inner);
        _exit(0);
    }
    reap("child", pid);
}

static void auxv(void)
{
    unsigned long vector[80] = {0};
    CASE("auxv");
    long size = prctl(0x41555856, vector, sizeof vector, 0, 0);
    SHOW_IF(size > 100);
    SHOW_IF(vector[0] != 0);
    SHOW_IF(prctl(0x41555856, vector, 8, 0, 0) == size);
    P(0x41555856, vector, 8, 1, 0);
    P(0x41555856, BAD, 8, 0, 0);
}

int main(void)
{
    names();
    booleans();
    slack();
    machine_checks();
    others();
    write_xor_execute();
    auxv();
    return 0;
}
