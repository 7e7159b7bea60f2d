/* ptrace(2): who may trace whom.
 * USER: root
 */
#include "ptrace_common.h"
#include <linux/capability.h>
#include <sys/prctl.h>

/* A process with these ids that waits to be killed. */
static pid_t target(uid_t uid, bool dumpable)
{
    struct gate ready = gate_make();
    pid_t pid = CHILD({
        if (uid)
            become(uid);
        prctl(PR_SET_DUMPABLE, dumpable);
        gate_open(ready);
        sleeps();
    });
    gate_wait(ready);
    gate_close(ready);
    return pid;
}

static void try(uid_t uid, pid_t pid, const char *what)
{
    pid_t tracer = CHILD({
        int status;
        if (uid)
            become(uid);
        long result = ptrace(PTRACE_ATTACH, pid, 0, 0);
        show_ok(what, result);
        if (result == 0) {
            NEED(waitpid(pid, &status, __WALL) == pid);
            MUST(ptrace(PTRACE_DETACH, pid, 0, 0));
        }
        result = ptrace(PTRACE_SEIZE, pid, 0, 0);
        show_ok("seize", result);
        if (result == 0) {
            MUST(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
            NEED(waitpid(pid, &status, __WALL) == pid);
            MUST(ptrace(PTRACE_DETACH, pid, 0, 0));
        }
    });
    int status;
    MUST(waitpid(tracer, &status, 0));
    NEED(status == 0);
}

static void users(void)
{
    CASE("users");
    pid_t mine = target(1234, true), other = target(1235, true), hidden = target(1234, false), root = target(0, true);
    try(1234, mine, "the same user's");
    try(1234, other, "another user's");
    try(1234, hidden, "not dumpable");
    try(1234, root, "root's");
    try(0, other, "by root");
    try(0, hidden, "by root, not dumpable");
    kill(mine, SIGKILL), kill(other, SIGKILL), kill(hidden, SIGKILL), kill(root, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0)
        ;
}

static void capabilities(void)
{
    CASE("capabilities");
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    pid_t root = target(0, true);
    pid_t tracer = CHILD({
        MUST(syscall(SYS_capget, &header, data));
        data[CAP_SYS_PTRACE / 32].effective &= ~(1u << CAP_SYS_PTRACE % 32);
        data[CAP_SYS_PTRACE / 32].permitted &= ~(1u << CAP_SYS_PTRACE % 32);
        MUST(syscall(SYS_capset, &header, data));
        SHOW_OK(ptrace(PTRACE_SEIZE, root, 0, 0)); /* has what we have not */
    });
    reap("tracer", tracer);
    kill(root, SIGKILL);
    reap("root's", root);
    pid_t parent = CHILD({
        pid_t child = CHILD({
            SHOW_OK(ptrace(PTRACE_TRACEME, 0, 0, 0));
        });
        reap("child", child);
    });
    reap("parent", parent);
}

static void set_id_program(void)
{
    CASE("a set-user-ID program");
    char self[PATH_MAX], copy[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    NEED(length > 0);
    self[length] = 0;
    snprintf(copy, sizeof copy, "%s/program", scratch());
    int from = MUST(open(self, O_RDONLY)), to = MUST(open(copy, O_WRONLY | O_CREAT, 0700));
    static char block[65536];
    for (ssize_t got; (got = MUST(read(from, block, sizeof block))) > 0;)
        NEED(write(to, block, got) == got);
    close(from);
    MUST(fchmod(to, 04755));
    close(to);
    for (int traced = 0; traced < 3; traced++) {
        pid_t tracer = CHILD({
            if (traced != 2)
                become(1234);
            pid_t pid = CHILD({
                if (traced) {
                    MUST(ptrace(PTRACE_TRACEME, 0, 0, 0));
                    if (traced == 2)
                        become(1234);
                }
                execl(copy, "program", "ids", (char *)NULL);
                say("exec failed: %s", error_name(errno));
            });
            int status;
            while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
                MUST(ptrace(PTRACE_CONT, pid, 0, 0));
            show_status(traced ? "traced" : "not traced", status);
        });
        MUST(waitpid(tracer, NULL, 0));
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "ids") == 0) {
        say("uid %s, euid %s", getuid() ? "user" : "root", geteuid() ? "user" : "root");
        return 0;
    }
    users();
    capabilities();
    set_id_program();
    return 0;
}
