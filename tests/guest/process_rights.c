/* Rights over other processes, where it takes a second look to see that they are missing.
 * USER: root
 */
#include "ptrace_common.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>

#define USER 4242

static void everybody(void)
{
    CASE("kill of all, where none is one's own");
    reap("child", CHILD({
             become(USER);
             SHOW(kill(-1, 0));
             SHOW(kill(-1, SIGRTMIN));
             SHOW(kill(-1, 99));
             siginfo_t info = {.si_code = -1};
             SHOW(syscall(SYS_rt_sigqueueinfo, 999999, 99, &info));
             SHOW(syscall(SYS_ioprio_set, 1, 0, 1 << 16 | 2 << 13));
             SHOW(syscall(SYS_ioprio_get, 1, 0));
         }));
}

static void *becomes_user(void *arg)
{
    const struct gate *ready = arg;
    MUST(syscall(SYS_setresuid, USER, USER, USER));
    pid_t me = gettid();
    MUST(write(ready->ends[1], &me, sizeof me));
    sleeps();
    return NULL;
}

static void thread_of_another_user(void)
{
    struct gate ready = gate_make();
    CASE("the rights over a thread are those over its own ids");
    pid_t pid = CHILD({
        pthread_t thread;
        pthread_create(&thread, NULL, becomes_user, &ready);
        sleeps();
    });
    pid_t tid;
    NEED(read(ready.ends[0], &tid, sizeof tid) == sizeof tid);
    reap("user", CHILD({
             become(USER);
             SHOW(kill(pid, 0));
             SHOW(syscall(SYS_tgkill, pid, pid, 0));
             SHOW(syscall(SYS_tgkill, pid, tid, 0));
         }));
    MUST(kill(pid, SIGKILL));
    reap("target", pid);
    gate_close(ready);
}

static void parents_end(void)
{
    struct gate ready = gate_make(), news = gate_make();
    CASE("PR_SET_PDEATHSIG of a child that the parent may not signal");
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t parent = CHILD({
        CHILD({
            pid_t before = getppid();
            MUST(prctl(PR_SET_PDEATHSIG, SIGUSR1));
            gate_open(ready);
            while (getppid() == before)
                usleep(1000);
            gate_open(news);
        });
        gate_wait(ready);
        become(USER);
    });
    reap("parent", parent);
    int status;
    MUST(waitpid(-1, &status, 0));
    show_status("child", status);
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 0));
    gate_close(ready);
    gate_close(news);
}

/* A copy of this program that its user may execute, but not read. */
static void make_hidden(void)
{
    static char buffer[1 << 16];
    int from = MUST(open("/proc/self/exe", O_RDONLY)), to = MUST(open("hidden", O_WRONLY | O_CREAT, 0700));
    long got;
    while ((got = MUST(read(from, buffer, sizeof buffer))) > 0)
        NEED(write(to, buffer, (size_t)got) == got);
    MUST(fchmod(to, 0711));
    close(from);
    close(to);
}

static bool has_line(const char *path, const char *line)
{
    char text[64] = "";
    FILE *file = fopen(path, "r");
    bool same = file && fgets(text, sizeof text, file) && strcspn(text, "\n") == strlen(line) &&
                strncmp(text, line, strlen(line)) == 0;
    if (file)
        fclose(file);
    return same;
}

static void hidden_program(void)
{
    char path[32];
    int status;
    CASE("a program that may not be read is not read by its tracer");
    make_hidden();
    pid_t pid = CHILD({
        become(USER);
        pid_t tracee = CHILD({
            MUST(ptrace(PTRACE_TRACEME, 0, 0, 0));
            execl("hidden", "hidden", "sleep", NULL);
            _exit(1);
        });
        NEED(waitpid(tracee, &status, 0) == tracee);
        show_stop("after execve", status);
        struct user_regs_struct regs;
        SHOW_OK(ptrace(PTRACE_GETREGS, tracee, 0, &regs));
        SHOW_OK(ptrace(PTRACE_PEEKTEXT, tracee, regs.rip, 0));
        SHOW_OK(ptrace(PTRACE_POKETEXT, tracee, regs.rip, 0));
        char buffer[16];
        struct iovec here = {buffer, 16};
        struct iovec there = {(void *)regs.rip, 16};
        SHOW_OK(process_vm_readv(tracee, &here, 1, &there, 1, 0));
        sprintf(path, "/proc/%d/mem", tracee);
        SHOW_OK(open(path, O_RDONLY));
        SHOW_OK(ptrace(PTRACE_DETACH, tracee, 0, 0));
        SHOW_OK(ptrace(PTRACE_ATTACH, tracee, 0, 0));
        /* Nor with the capabilities of a namespace that the file's owner is not in. */
        reap("with a namespace", CHILD({
                 MUST(unshare(CLONE_NEWUSER));
                 pid_t inside = CHILD({
                     execl("hidden", "hidden", "sleep", NULL);
                     _exit(1);
                 });
                 sprintf(path, "/proc/%d/comm", inside);
                 while (!has_line(path, "hidden"))
                     usleep(1000);
                 SHOW_OK(ptrace(PTRACE_ATTACH, inside, 0, 0));
                 MUST(kill(inside, SIGKILL));
                 MUST(waitpid(inside, &status, 0));
             }));
        MUST(kill(tracee, SIGKILL));
        MUST(waitpid(tracee, &status, 0));
        show_status("tracee", status);
    });
    reap("tracer", pid);
    unlink("hidden");
}

static void map_opened_by_another(void)
{
    char path[40];
    struct gate ready = gate_make();
    CASE("a map counts the rights of who opened it");
    pid_t inside = CHILD({
        become(USER);
        MUST(prctl(PR_SET_DUMPABLE, 1));
        MUST(unshare(CLONE_NEWUSER));
        gate_open(ready);
        sleeps();
    });
    gate_wait(ready);
    reap("writer", CHILD({
             static const char *names[] = {"uid_map", "gid_map", "setgroups"};
             int fds[3];
             MUST(setegid(USER));
             MUST(seteuid(USER));
             for (int i = 0; i < 3; i++) {
                 sprintf(path, "/proc/%d/%s", inside, names[i]);
                 fds[i] = MUST(open(path, O_RDWR));
             }
             MUST(seteuid(0));
             MUST(setegid(0));
             SHOW(write(fds[0], "0 0 10", 6));
             SHOW(write(fds[1], "0 0 10", 6));
             SHOW(write(fds[0], "0 4242 1", 8));
             SHOW(write(fds[2], "deny", 4));
             SHOW(write(fds[1], "0 4242 1", 8));
         }));
    MUST(kill(inside, SIGKILL));
    reap("inside", inside);
    gate_close(ready);
}

static void trace_me_from_inside(void)
{
    CASE("PTRACE_TRACEME in a user namespace that the parent has made");
    reap("user", CHILD({
             become(USER);
             pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
             if (pid == 0) {
                 SHOW(ptrace(PTRACE_TRACEME, 0, 0, 0));
                 _exit(0);
             }
             int status;
             MUST(waitpid(pid, &status, 0));
             show_status("child", status);
         }));
}

static void *with_filter(void *arg)
{
    struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {1, allow};
    struct gate *gates = arg;
    pid_t me = gettid();
    MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
    MUST(write(gates[0].ends[1], &me, sizeof me));
    gate_wait(gates[1]);
    return NULL;
}

static void filters_in_a_namespace(void)
{
    CASE("who cannot be synchronised, as the caller's namespace numbers threads");
    pid_t pid = (pid_t)MUST(syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0));
    if (pid == 0) {
        struct gate gates[2] = {gate_make(), gate_make()};
        struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        struct sock_fprog program = {1, allow};
        pthread_t thread;
        pid_t tid;
        pthread_create(&thread, NULL, with_filter, gates);
        NEED(read(gates[0].ends[0], &tid, sizeof tid) == sizeof tid);
        SHOW_IF(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == tid);
        gate_open(gates[1]);
        pthread_join(thread, NULL);
        _exit(0);
    }
    reap("init", pid);
}

/* Whether its memory is gone already. */
static bool is_ending(pid_t pid)
{
    char path[40];
    struct stat st;
    sprintf(path, "/proc/%d/exe", pid);
    return stat(path, &st) == -1;
}

static void zombie_of_a_tracer(void)
{
    struct gate made = gate_make(), on = gate_make(), last = gate_make();
    pid_t pid;
    int status;
    CASE("the init of a namespace ends when a tracer outside has waited for the last one");
    pid_t init = (pid_t)MUST(syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0));
    if (init == 0) {
        CHILD({
            gate_open(made);
            gate_wait(on);
            _exit(3);
        });
        gate_wait(last);
        _exit(0);
    }
    gate_wait(made);
    char path[64];
    sprintf(path, "/proc/%d/task/%d/children", init, init);
    FILE *file = fopen(path, "r");
    NEED(file && fscanf(file, "%d", &pid) == 1);
    fclose(file);
    SHOW(ptrace(PTRACE_SEIZE, pid, 0, 0));
    gate_open(on);
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | __WALL));
    gate_open(last);
    while (!is_ending(init))
        usleep(1000);
    SHOW(waitpid(init, &status, WNOHANG));
    NEED(waitpid(pid, &status, __WALL) == pid);
    show_status("the last one", status);
    reap("init", init);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "sleep") == 0)
        sleeps();
    scratch();
    MUST(chmod(".", 0777));
    everybody();
    thread_of_another_user();
    parents_end();
    hidden_program();
    map_opened_by_another();
    trace_me_from_inside();
    filters_in_a_namespace();
    zombie_of_a_tracer();
    return 0;
}
