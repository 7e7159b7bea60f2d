/* seccomp(2): installing filters and what they may say: validation, limits, privileges, chains, inheritance. */
#include "check.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>

#define NR offsetof(struct seccomp_data, nr)
#define ARG(i) (offsetof(struct seccomp_data, args) + 8 * (i))

static long seccomp(unsigned op, unsigned flags, void *args)
{
    return syscall(SYS_seccomp, op, flags, args);
}

static long install(unsigned flags, struct sock_filter *code, unsigned count)
{
    struct sock_fprog program = {count, code};
    return seccomp(SECCOMP_SET_MODE_FILTER, flags, &program);
}

#define INSTALL(...)                                             \
    ({                                                           \
        struct sock_filter code_[] = {__VA_ARGS__};              \
        install(0, code_, sizeof code_ / sizeof *code_);         \
    })
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)
#define ON(call, value)                                    \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NR),                \
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),   \
        RETURN(value), RETURN(SECCOMP_RET_ALLOW)

static void no_new_privs(void)
{
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static void show_status_lines(void)
{
    char text[4096], *at;
    int fd = MUST(open("/proc/self/status", O_RDONLY));
    ssize_t got = MUST(read(fd, text, sizeof text - 1));
    text[got] = 0;
    close(fd);
    for (const char *const *name = (const char *const[]){"NoNewPrivs:", "Seccomp:", "Seccomp_filters:", NULL}; *name; name++)
        if ((at = strstr(text, *name)))
            say("%.*s", (int)strcspn(at, "\n"), at);
}

static void operations(void)
{
    uint32_t action;
    uint16_t sizes[3] = {0};
    CASE("operations");
    static const uint32_t actions[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP,
                                       SECCOMP_RET_ERRNO, SECCOMP_RET_USER_NOTIF, SECCOMP_RET_TRACE,
                                       SECCOMP_RET_LOG, SECCOMP_RET_ALLOW, 0x00010000, SECCOMP_RET_ERRNO | 1};
    for (unsigned i = 0; i < sizeof actions / sizeof *actions; i++) {
        action = actions[i];
        errno = 0;
        say("action %#x: %ld %s", action, seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &action), error_name(errno));
    }
    SHOW(seccomp(SECCOMP_GET_ACTION_AVAIL, 1, &action));
    SHOW(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, BAD));
    SHOW(seccomp(SECCOMP_GET_NOTIF_SIZES, 0, sizes));
    say("sizes %u %u %u", sizes[0], sizes[1], sizes[2]);
    SHOW(seccomp(SECCOMP_GET_NOTIF_SIZES, 1, sizes));
    SHOW(seccomp(SECCOMP_GET_NOTIF_SIZES, 0, BAD));
    SHOW(seccomp(SECCOMP_SET_MODE_STRICT, 1, NULL));
    SHOW(seccomp(SECCOMP_SET_MODE_STRICT, 0, &action));
    SHOW(seccomp(4, 0, NULL));
    SHOW(seccomp(-1, 0, NULL));
    SHOW(seccomp(SECCOMP_SET_MODE_FILTER, 0, NULL));
    SHOW(seccomp(SECCOMP_SET_MODE_FILTER, 0, BAD));
    SHOW(seccomp(SECCOMP_SET_MODE_FILTER, 64, NULL));
    SHOW(seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, NULL));
    SHOW(prctl(PR_SET_SECCOMP, 3, 0));
    SHOW(prctl(PR_SET_SECCOMP, 0, 0));
    SHOW(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, BAD));
    SHOW(prctl(PR_GET_SECCOMP));
}

static void privileges(void)
{
    CASE("privileges");
    if (geteuid() == 0)
        MUST(setresuid(1000, 1000, 1000));
    struct sock_filter bad[] = {RETURN(SECCOMP_RET_ALLOW), BPF_STMT(BPF_LD, 0)};
    SHOW(INSTALL(RETURN(SECCOMP_RET_ALLOW)));
    SHOW(install(0, bad, 2));
    SHOW(install(0, BAD, 2));
    SHOW(install(0, bad, 0));
    SHOW(install(0, bad, 4097));
    no_new_privs();
    SHOW(install(0, bad, 2));
    SHOW(install(0, BAD, 2));
    SHOW(INSTALL(RETURN(SECCOMP_RET_ALLOW)));
    show_status_lines();
}

static void validation(void)
{
    CASE("validation");
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 60), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0xfffff000), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LDX | BPF_W | BPF_LEN, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_IMM, 7), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LDX | BPF_IMM, 7), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_ST, 15), BPF_STMT(BPF_LD | BPF_MEM, 15), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_ST, 16), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_STX, 16), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_MEM, 3), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_LDX | BPF_MEM, 16), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), BPF_STMT(BPF_ST, 1), BPF_STMT(BPF_LD | BPF_MEM, 1),
                 RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2), BPF_STMT(BPF_ST, 1), BPF_STMT(BPF_JMP | BPF_JA, 1),
                 BPF_STMT(BPF_STX, 1), BPF_STMT(BPF_LD | BPF_MEM, 1), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 31), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 32), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_ALU | BPF_NEG, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_JMP | BPF_JA, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_JMP | BPF_JA, 1), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_JMP | BPF_JA, -1), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_JUMP(BPF_JMP | BPF_JGT | BPF_X, 0, 0, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_JUMP(BPF_JMP | BPF_JGT | BPF_X, 0, 1, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0, 0, 1), RETURN(0x7fff0000)));
    SHOW(INSTALL(RETURN(0x7fff0000), BPF_STMT(BPF_LD | BPF_IMM, 7)));
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_IMM, 0x7fff0000), BPF_STMT(BPF_RET | BPF_A, 0)));
    SHOW(INSTALL(BPF_STMT(BPF_RET | BPF_X, 0)));
    SHOW(INSTALL(BPF_STMT(0xffff, 0), RETURN(0x7fff0000)));
    SHOW(INSTALL(BPF_STMT(BPF_MISC | BPF_TAX, 0), BPF_STMT(BPF_MISC | BPF_TXA, 0), RETURN(0x7fff0000)));
    show_status_lines();
}

static void machine(void)
{
    CASE("the machine");
    /* Arguments of getpriority decide which errno it answers with. */
    SHOW(INSTALL(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NR), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpriority, 1, 0),
                 RETURN(SECCOMP_RET_ALLOW), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG(1)), BPF_STMT(BPF_MISC | BPF_TAX, 0),
                 BPF_STMT(BPF_STX, 4), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG(0)), /* A first, X second argument */
                 BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0), BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 3),
                 BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 1), BPF_STMT(BPF_LDX | BPF_MEM, 4),
                 BPF_STMT(BPF_ALU | BPF_SUB | BPF_X, 0), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff),
                 BPF_STMT(BPF_ALU | BPF_XOR | BPF_K, 1), BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO),
                 BPF_STMT(BPF_RET | BPF_A, 0)));
    static const int values[][2] = {{6, 2}, {7, 7}, {100, 9}, {-1, 1000000}, {1, 3}};
    for (unsigned i = 0; i < 5; i++) {
        errno = 0;
        long result = syscall(SYS_getpriority, values[i][0], values[i][1]);
        say("%d %d: %ld %d", values[i][0], values[i][1], result, errno);
    }
    no_core();
    syscall(SYS_getpriority, 1, 0); /* division by zero */
    say("not reached");
}

static void limits(void)
{
    struct sock_filter *code = malloc(4096 * sizeof *code);
    CASE("limits");
    for (int i = 0; i < 4096; i++)
        code[i] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
    int filters = 0;
    while (install(0, code, 4096) == 0)
        filters++;
    say("%d filters, then %s", filters, error_name(errno));
    show_status_lines();
    SHOW(syscall(SYS_getpriority, 0, 0) > 0);
}

static void chains(void)
{
    CASE("chains: the strictest, and of equals the newest");
    SHOW(INSTALL(ON(SYS_getpriority, SECCOMP_RET_ERRNO | 11)));
    SHOW(getpriority(0, 0));
    SHOW(INSTALL(ON(SYS_getpriority, SECCOMP_RET_ERRNO | 12)));
    SHOW(getpriority(0, 0));
    SHOW(INSTALL(ON(SYS_getpriority, SECCOMP_RET_LOG)));
    SHOW(getpriority(0, 0));
    SHOW(INSTALL(ON(SYS_sched_yield, SECCOMP_RET_TRACE | 5)));
    SHOW(sched_yield());
    SHOW(INSTALL(ON(SYS_sched_yield, SECCOMP_RET_USER_NOTIF)));
    SHOW(sched_yield());
    SHOW(INSTALL(ON(SYS_getppid, SECCOMP_RET_ERRNO | 0xffff)));
    SHOW(syscall(SYS_getppid) == -4095 || errno == 4095);
    SHOW(INSTALL(ON(SYS_getuid, SECCOMP_RET_ERRNO)));
    SHOW(syscall(SYS_getuid));
    SHOW(INSTALL(ON(SYS_clock_gettime, SECCOMP_RET_ERRNO | ENOTTY)));
    struct timespec now;
    SHOW(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now));
    SHOW(INSTALL(ON(SYS_rt_sigprocmask, SECCOMP_RET_ERRNO | EXDEV)));
    SHOW(syscall(SYS_rt_sigprocmask, 0, NULL, NULL, 8));
    SHOW(INSTALL(ON(SYS_lseek, SECCOMP_RET_ERRNO | EDOM)));
    SHOW(lseek(0, 0, SEEK_CUR));
    SHOW(INSTALL(ON(SYS_futex, SECCOMP_RET_ERRNO | EXFULL)));
    int word = 0;
    SHOW(syscall(SYS_futex, &word, 128 | 1, 1, NULL, NULL, 0));
    show_status_lines();
    CASE("inherited");
    SHOW(prctl(PR_GET_SECCOMP));
    reap("child", CHILD(SHOW(getpriority(0, 0)); show_status_lines()));
    CASE("a call on which everything turns");
    no_core();
    reap("child", CHILD(SHOW(INSTALL(ON(SYS_getpriority, SECCOMP_RET_KILL_PROCESS))); getpriority(0, 0); say("not reached")));
    reap("child", CHILD(SHOW(INSTALL(ON(SYS_getpriority, SECCOMP_RET_KILL_THREAD))); getpriority(0, 0); say("not reached")));
    reap("child", CHILD(SHOW(INSTALL(ON(SYS_getpriority, 0x00070000))); getpriority(0, 0); say("not reached")));
    reap("child", CHILD(SHOW(INSTALL(ON(SYS_getpriority, SECCOMP_RET_TRAP))); getpriority(0, 0); say("not reached")));
}

static void strict(void)
{
    CASE("strict");
    reap("allowed", CHILD({
        SHOW(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
        say("write works");
        syscall(SYS_exit, 3);
    }));
    reap("exit_group", CHILD({
        MUST(seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL));
        syscall(SYS_exit_group, 3);
    }));
    reap("getpid", CHILD({
        MUST(seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL));
        syscall(SYS_getpid);
    }));
    reap("prctl", CHILD({
        MUST(seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL));
        prctl(PR_GET_SECCOMP);
    }));
    reap("filter first", CHILD({
        MUST(INSTALL(RETURN(SECCOMP_RET_ALLOW)));
        SHOW(seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL));
        SHOW(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
        SHOW(prctl(PR_GET_SECCOMP));
    }));
}

static void across_exec(char *self)
{
    CASE("execve");
    SHOW(INSTALL(ON(SYS_getpriority, SECCOMP_RET_ERRNO | EUCLEAN)));
    execl(self, self, "again", NULL);
}

int main(int count, char **words)
{
    if (count > 1) {
        SHOW(getpriority(0, 0));
        show_status_lines();
        return 0;
    }
    operations();
    reap("privileges", CHILD(privileges()));
    no_new_privs();
    reap("validation", CHILD(validation()));
    reap("machine", CHILD(machine()));
    reap("limits", CHILD(limits()));
    reap("chains", CHILD(chains()));
    reap("strict", CHILD(strict()));
    across_exec(words[0]);
    return 1;
}
