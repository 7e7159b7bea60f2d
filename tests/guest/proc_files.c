/* The files of /proc/PID: who may read and write them, and what they tell once the task executes another program
 * or has ended.
 * USER: root
 */
#include "ptrace_common.h"
#include <dirent.h>
#include <sys/prctl.h>

#define USER 4242

static char text[1 << 20];

static ssize_t contents(int fd)
{
    ssize_t total = 0, got;
    while ((got = read(fd, text + total, sizeof text - 8 - (size_t)total)) > 0)
        total += got;
    text[total] = 0;
    return got < 0 ? got : total;
}

static const char *outcome(ssize_t got)
{
    return got < 0 ? error_name(errno) : got ? "something" : "nothing";
}

static const char *path_of(pid_t pid, const char *name)
{
    static char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    return path;
}

/* Which of the fields that tell where things are say so. */
static void addresses(const char *what, pid_t pid)
{
    int fd = MUST(open(path_of(pid, "stat"), O_RDONLY)), number = 3;
    char line[256] = "";
    MUST(contents(fd));
    close(fd);
    for (char *word = strtok(strrchr(text, ')') + 2, " \n"); word; word = strtok(NULL, " \n"), number++)
        if ((number >= 26 && number <= 30) || (number >= 45 && number <= 51))
            strcat(strcat(line, " "), strlen(word) > 1 ? "X" : word);
    say("%s:%s", what, line);
}

static void of_others(void)
{
    static const char *const files[] = {
        "auxv", "clear_refs", "cmdline", "comm", "environ", "io", "limits", "maps", "mem", "mountinfo", "numa_maps",
        "oom_score_adj", "pagemap", "personality", "sched", "setgroups", "smaps", "smaps_rollup", "statm", "status",
        "syscall", "timerslack_ns", "uid_map", "wchan",
    };
    static const char *const places[] = {
        "cwd", "exe", "fd", "fd/1", "fdinfo", "fdinfo/1", "map_files", "ns", "ns/uts", "root", "task",
    };
    CASE("what is another user's");
    pid_t pid = CHILD(sleeps());
    reap("user", CHILD({
             become(USER);
             addresses("addresses", pid);
             addresses("one's own", getpid());
             for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
                 struct stat st = {0};
                 int found = stat(path_of(pid, files[i]), &st), fd = open(path_of(pid, files[i]), O_RDONLY);
                 say("%s: %s, mode %o, open %s, read %s", files[i], found < 0 ? "not there" : "there", st.st_mode,
                     fd < 0 ? error_name(errno) : "ok", fd < 0 ? "-" : outcome(contents(fd)));
                 close(fd);
             }
             for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
                 struct stat st;
                 char target[256];
                 say("%s", places[i]);
                 SHOW_OK(lstat(path_of(pid, places[i]), &st));
                 SHOW_OK(open(path_of(pid, places[i]), O_RDONLY | O_NONBLOCK));
                 SHOW_OK(readlink(path_of(pid, places[i]), target, sizeof target));
             }
             int slack = MUST(open(path_of(pid, "timerslack_ns"), O_WRONLY));
             SHOW(write(slack, "100000", 6));
             SHOW_OK(open(path_of(pid, "comm"), O_WRONLY));
         }));
    MUST(kill(pid, SIGKILL));
    reap("target", pid);
}

/* Whoever gives up a user id can't be dumped: all files are root's then, but this is asked for all the same, by
 * programs that close what they have inherited, say. */
static void not_dumpable(void)
{
    CASE("what a process that can't be dumped may see of itself");
    reap("user", CHILD({
             char target[256];
             become(USER);
             SHOW(prctl(PR_GET_DUMPABLE));
             SHOW_IF(opendir("/proc/self/fd") != NULL);
             SHOW_IF(opendir("/proc/self/fdinfo") != NULL);
             SHOW_IF(opendir("/proc/self/map_files") != NULL);
             SHOW_IF(opendir("/proc/self/task") != NULL);
             SHOW_OK(readlink("/proc/self/fd/1", target, sizeof target));
             SHOW_OK(open("/proc/self/fdinfo/1", O_RDONLY));
             SHOW_OK(open("/proc/self/maps", O_RDONLY));
             SHOW_OK(open("/proc/self/environ", O_RDONLY));
             SHOW_OK(open("/proc/self/mem", O_RDONLY));
             SHOW_OK(open("/proc/self/comm", O_RDWR));
             pid_t parent = getpid();
             reap("child", CHILD({
                      SHOW_IF(opendir(path_of(parent, "fd")) != NULL);
                      SHOW_IF(opendir(path_of(parent, "fdinfo")) != NULL);
                  }));
         }));
}

static void oom_score_adj(void)
{
    static const char *const numbers[] = {
        "500", "0", "-1", "0x10", "010", "0x", "08", "1_0", "0x0x1", "1001", "-1001", " 5 \n", "+5", "-+5", "x", "5 5",
        "0000000000005", "00000000000x",
    };
    CASE("oom_score_adj goes down to what root has set");
    reap("user", CHILD({
             become(USER);
             MUST(prctl(PR_SET_DUMPABLE, 1));
             int fd = MUST(open("/proc/self/oom_score_adj", O_RDWR));
             for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
                 say("'%s'", numbers[i]);
                 SHOW_OK(pwrite(fd, numbers[i], strlen(numbers[i]), 0));
                 MUST(lseek(fd, 0, SEEK_SET));
                 MUST(contents(fd));
                 say("is %d", atoi(text));
             }
             MUST(pwrite(fd, "700", 3, 0));
             reap("child", CHILD({
                      int own = MUST(open("/proc/self/oom_score_adj", O_RDWR));
                      SHOW(pwrite(own, "0", 1, 0));
                  }));
         }));
}

/* A directory that no path leads to. */
static void long_path(void)
{
    static char name[251], text[100000];
    CASE("a path longer than a page");
    memset(name, 'd', 250);
    scratch();
    for (int i = 0; i < 20; i++)
        MUST(mkdir(name, 0700) == 0 ? chdir(name) : -1);
    SHOW(readlink("/proc/self/cwd", text, sizeof text));
    SHOW(readlink("/proc/self/cwd", text, 10));
    SHOW(syscall(SYS_getcwd, text, sizeof text));
    SHOW(syscall(SYS_getcwd, text, 10));
    int fd = MUST(open(".", O_RDONLY));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    SHOW(readlink(path, text, sizeof text));
    for (int i = 0; i < 20; i++)
        MUST(chdir("..") == 0 ? rmdir(name) : -1);
}

static const char *const lasting[] = {
    "auxv", "cgroup", "cmdline", "comm", "environ", "fdinfo/1", "io", "limits", "maps", "mem", "mountinfo", "mounts",
    "numa_maps", "oom_score_adj", "pagemap", "personality", "sched", "schedstat", "setgroups", "smaps", "smaps_rollup",
    "stat", "statm", "status", "syscall", "timerslack_ns", "uid_map", "wchan",
};
#define LASTING (sizeof lasting / sizeof *lasting)

static void show_held(const char *when, const int *fds)
{
    say("%s", when);
    for (size_t i = 0; i < LASTING; i++) {
        MUST(lseek(fds[i], 0, SEEK_SET));
        ssize_t got = contents(fds[i]);
        say("%s: %s%s", lasting[i], outcome(got), got > 0 && strstr(text, "A_SECRET") ? ", with a secret" : "");
    }
}

/* Somebody lists processes while they end. */
static void directories(void)
{
    static const char *const names[] = {"", "fd", "fdinfo", "map_files", "ns", "task"};
    static const char *const below[] = {"stat", "1", "1", NULL, "uts", NULL};
    enum { COUNT = sizeof names / sizeof *names };
    int fds[COUNT];
    CASE("directories that are kept open");
    pid_t pid = CHILD(sleeps());
    for (int i = 0; i < COUNT; i++)
        fds[i] = MUST(open(path_of(pid, names[i]), O_RDONLY));
    SHOW(lseek(fds[1], 1 << 30, SEEK_SET));
    SHOW(syscall(SYS_getdents64, fds[1], text, 4096));
    for (int round = 0; round < 3; round++) {
        siginfo_t info;
        if (round == 1) {
            MUST(kill(pid, SIGKILL));
            MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
        } else if (round == 2) {
            reap("target", pid);
        }
        for (int i = 0; i < COUNT; i++) {
            MUST(lseek(fds[i], 0, SEEK_SET));
            ssize_t got = syscall(SYS_getdents64, fds[i], text, 4096);
            say("'%s' lists %s", names[i], outcome(got));
            if (below[i])
                SHOW_OK(openat(fds[i], below[i], O_PATH | O_NOFOLLOW));
        }
    }
    for (int i = 0; i < COUNT; i++)
        close(fds[i]);
}

/* An open file tells of the memory that was there when it was opened. */
static void kept_open(char *program)
{
    struct gate go = gate_make(), on = gate_make();
    int fds[LASTING];
    CASE("files that are kept open");
    pid_t pid = CHILD({
        char number[16];
        gate_wait(go);
        MUST(fcntl(on.ends[1], F_SETFD, 0));
        snprintf(number, sizeof number, "%d", on.ends[1]);
        char *arguments[] = {program, "sleep", number, NULL}, *environment[] = {"A_SECRET=1", NULL};
        MUST(execve("/proc/self/exe", arguments, environment));
    });
    for (size_t i = 0; i < LASTING; i++)
        fds[i] = MUST(open(path_of(pid, lasting[i]), O_RDONLY));
    gate_open(go);
    gate_wait(on);
    show_held("after execve", fds);
    MUST(kill(pid, SIGKILL));
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
    show_held("of a zombie", fds);
    say("opened");
    for (size_t i = 0; i < LASTING; i++) {
        int fd = open(path_of(pid, lasting[i]), O_RDONLY);
        say("%s: open %s, read %s", lasting[i], fd < 0 ? error_name(errno) : "ok",
            fd < 0 ? "-" : outcome(contents(fd)));
        close(fd);
    }
    reap("target", pid);
    show_held("of nobody", fds);
    for (size_t i = 0; i < LASTING; i++)
        close(fds[i]);
    gate_close(go);
    gate_close(on);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "sleep") == 0) {
        MUST(write(atoi(argv[2]), "x", 1));
        sleeps();
    }
    of_others();
    not_dumpable();
    oom_score_adj();
    long_path();
    directories();
    kept_open(argv[0]);
    return 0;
}
