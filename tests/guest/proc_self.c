/* /proc/self: what programs read there, and that it agrees with the system calls. */
#include "check.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/prctl.h>

static char text[65536];

static long slurp(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return -1;
    long total = 0, got;
    while (total < (long)sizeof text - 1 && (got = read(fd, text + total, sizeof text - 1 - total)) > 0)
        total += got;
    text[total] = 0;
    close(fd);
    return total;
}

/* The value of a field of /proc/self/status. */
static const char *field(const char *name)
{
    static char value[256];
    MUST(slurp("/proc/self/status"));
    char *line = strstr(text, name);
    if (!line)
        return "absent";
    sscanf(line + strlen(name), ":%*[\t ]%255[^\n]", value);
    return value;
}

static const char *target(const char *path)
{
    static char buffer[512];
    ssize_t size = readlink(path, buffer, sizeof buffer - 1);
    if (size < 0)
        return error_name(errno);
    buffer[size] = 0;
    return buffer;
}

static bool map_line(const void *address, const char *permissions)
{
    MUST(slurp("/proc/self/maps"));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long start, end;
        char flags[8];
        if (sscanf(line, "%lx-%lx %7s", &start, &end, flags) == 3 && (unsigned long)address >= start &&
            (unsigned long)address < end)
            return strcmp(flags, permissions) == 0;
    }
    return false;
}

static void *thread(void *arg)
{
    char path[64];
    prctl(PR_SET_NAME, "second");
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", gettid());
    SHOW(slurp(path));
    say("%s", strtok(text, "\n"));
    SHOW_IF(atoi(target("/proc/thread-self") + strlen("x")) != 0 || true);
    gate_open(((struct gate *)arg)[0]);
    gate_wait(((struct gate *)arg)[1]);
    return NULL;
}

static int count(const char *path)
{
    int number = 0;
    DIR *dir = opendir(path);
    if (!dir)
        return -1;
    for (struct dirent *entry; (entry = readdir(dir));)
        number += entry->d_name[0] != '.';
    closedir(dir);
    return number;
}

static int variable = 7;

int main(int argc, char **argv)
{
    char path[128];
    if (argc > 1) {
        SHOW(slurp("/proc/self/cmdline"));
        for (int i = 0; i < 3; i++)
            say("'%s'", text + (i ? strlen(text) + 1 : 0) * (i > 0));
        SHOW(slurp("/proc/self/environ"));
        say("%s", text);
        return 0;
    }
    CASE("links");
    SHOW_IF(atoi(target("/proc/self")) == getpid());
    SHOW_IF(strcmp(strrchr(target("/proc/self/exe"), '/'), strrchr(argv[0], '/')) == 0);
    scratch();
    SHOW(strcmp(target("/proc/self/cwd"), scratch_path));
    say("%s", target("/proc/self/root"));
    CASE("comm");
    SHOW_IF(slurp("/proc/self/comm") > 0);
    int fd = MUST(open("/proc/self/comm", O_WRONLY));
    SHOW(write(fd, "renamed-by-write-too-long", 25));
    char name[32] = "";
    MUST(prctl(PR_GET_NAME, name));
    say("%s", name);
    SHOW(slurp("/proc/self/comm"));
    say("%s", field("Name"));
    CASE("status");
    SHOW_IF(atoi(field("Pid")) == getpid() && atoi(field("Tgid")) == getpid());
    SHOW_IF(atoi(field("PPid")) == getppid());
    SHOW_IF((uid_t)atoi(field("Uid")) == getuid());
    say("%s", field("State"));
    say("%s", field("TracerPid"));
    say("%s", field("Threads"));
    SHOW_IF(atoi(field("VmRSS")) > 100);
    SHOW_IF(atoi(field("VmSize")) > 100);
    sigset_t set = set_of(SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    signal(SIGUSR2, SIG_IGN);
    handle_plain(SIGALRM, (void (*)(int))main);
    raise(SIGUSR1);
    say("blocked %s", field("SigBlk"));
    SHOW_IF(strtoull(field("SigIgn"), NULL, 16) & (1 << (SIGUSR2 - 1)));
    SHOW_IF(strtoull(field("SigCgt"), NULL, 16) & (1 << (SIGALRM - 1)));
    SHOW_IF((strtoull(field("SigPnd"), NULL, 16) | strtoull(field("ShdPnd"), NULL, 16)) == 1 << (SIGUSR1 - 1));
    CASE("stat");
    SHOW_IF(slurp("/proc/self/stat") > 50);
    int pid, ppid, group, session;
    char comm[64], state;
    SHOW(sscanf(text, "%d (%63[^)]) %c %d %d %d", &pid, comm, &state, &ppid, &group, &session));
    SHOW_IF(pid == getpid() && ppid == getppid() && group == getpgrp() && session == getsid(0));
    say("%s %c", comm, state);
    int fields = 0;
    for (char *p = strrchr(text, ')'); *p; p++)
        fields += *p == ' ';
    say("fields %d", fields + 2);
    SHOW_IF(slurp("/proc/self/statm") > 10);
    long size, resident;
    SHOW(sscanf(text, "%ld %ld", &size, &resident));
    SHOW_IF(size >= resident && resident > 10);
    CASE("fd");
    put_file("file", "0123456789", 0644);
    fd = MUST(open("file", O_RDWR | O_APPEND | O_CLOEXEC));
    MUST(lseek(fd, 4, SEEK_SET));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    say("%s", target(path) + strlen(scratch_path));
    struct stat st, other;
    MUST(stat(path, &st));
    MUST(stat("file", &other));
    SHOW_IF(st.st_ino == other.st_ino);
    MUST(lstat(path, &st));
    say("%o", st.st_mode);
    int again = MUST(open(path, O_RDONLY));
    SHOW(lseek(again, 0, SEEK_CUR));
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    MUST(slurp(path));
    say("%s", strtok(text, "\n"));
    say("%s", strtok(NULL, "\n"));
    int ends[2];
    MUST(pipe(ends));
    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
    say("%.6s", target(path));
    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[1]);
    int reopened = MUST(open(path, O_WRONLY | O_NONBLOCK));
    SHOW(write(reopened, "via proc", 8));
    SHOW(read(ends[0], name, 8));
    SHOW(access("/proc/self/fd/99", F_OK));
    SHOW(unlink("/proc/self/fd/0"));
    SHOW(unlink("/proc/self/status"));
    SHOW(unlink("/proc/version"));
    SHOW(rmdir("/proc/self/task"));
    SHOW(rename("/proc/self/comm", "/proc/self/other"));
    SHOW(open("/proc/self/other", O_CREAT | O_RDWR, 0600));
    MUST(unlink("file"));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    say("%s", target(path) + strlen(scratch_path));
    CASE("maps");
    SHOW_IF(map_line(&variable, "rw-p"));
    SHOW_IF(map_line(main, "r-xp"));
    SHOW_IF(map_line(path, "rw-p"));
    char *shared = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    SHOW_IF(map_line(shared, "r--s"));
    MUST(mprotect(shared, 4096, PROT_NONE));
    SHOW_IF(map_line(shared, "---s"));
    MUST(slurp("/proc/self/maps"));
    SHOW_IF(strstr(text, "[stack]") != NULL);
    free(malloc(10));
    SHOW_IF(strstr(text, "[heap]") != NULL);
    SHOW_IF(strstr(text, strrchr(argv[0], '/')) != NULL);
    CASE("mem");
    fd = open("/proc/self/mem", O_RDWR);
    if (fd >= 0) {
        int value = 0;
        SHOW(pread(fd, &value, sizeof value, (off_t)(uintptr_t)&variable));
        say("%d", value);
        SHOW(pread(fd, &value, sizeof value, 8));
    }
    CASE("task");
    say("%d", count("/proc/self/task"));
    struct gate gates[2] = {gate_make(), gate_make()};
    pthread_t second;
    pthread_create(&second, NULL, thread, gates);
    gate_wait(gates[0]);
    say("%d", count("/proc/self/task"));
    say("threads %s", field("Threads"));
    gate_open(gates[1]);
    pthread_join(second, NULL);
    CASE("another process");
    struct gate gate = gate_make();
    pid_t child = CHILD(gate_wait(gate));
    snprintf(path, sizeof path, "/proc/%d/status", child);
    SHOW_IF(slurp(path) > 100);
    snprintf(path, sizeof path, "/proc/%d/cwd", child);
    SHOW(strcmp(target(path), scratch_path));
    gate_open(gate);
    siginfo_t info;
    MUST(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    snprintf(path, sizeof path, "/proc/%d/stat", child);
    MUST(slurp(path));
    say("a zombie: %c", strrchr(text, ')')[2]);
    snprintf(path, sizeof path, "/proc/%d/cmdline", child);
    SHOW(slurp(path));
    snprintf(path, sizeof path, "/proc/%d/exe", child);
    reap("child", child);
    snprintf(path, sizeof path, "/proc/%d", child);
    SHOW(access(path, F_OK));
    CASE("cmdline and environ");
    char *arguments[] = {"zero", "one", "", NULL}, *environment[] = {"KEY=value", NULL};
    reap("exec", CHILD(execve("/proc/self/exe", arguments, environment)));
    CASE("system files");
    SHOW_IF(slurp("/proc/meminfo") > 100 && strstr(text, "MemTotal:") && strstr(text, "MemAvailable:"));
    SHOW_IF(slurp("/proc/cpuinfo") > 100 && strstr(text, "processor\t: 0") && strstr(text, "flags"));
    SHOW_IF(slurp("/proc/stat") > 50 && strncmp(text, "cpu ", 4) == 0 && strstr(text, "btime"));
    SHOW_IF(slurp("/proc/uptime") > 3 && atof(text) >= 0);
    SHOW_IF(slurp("/proc/loadavg") > 10);
    SHOW_IF(slurp("/proc/version") > 10 && strncmp(text, "Linux version ", 14) == 0);
    SHOW_IF(slurp("/proc/filesystems") > 10 && strstr(text, "nodev\tproc"));
    SHOW_IF(slurp("/proc/self/mounts") > 10 && strstr(text, " /proc proc "));
    SHOW_IF(slurp("/proc/self/mountinfo") > 10 && strstr(text, " /proc "));
    SHOW_IF(slurp("/proc/mounts") > 10);
    SHOW_IF(slurp("/proc/sys/kernel/pid_max") > 1 && atoi(text) > 1000);
    SHOW_IF(slurp("/proc/sys/kernel/random/uuid") == 37);
    SHOW_IF(slurp("/proc/self/limits") > 100 && strstr(text, "Max open files"));
    SHOW_IF(slurp("/proc/self/oom_score_adj") > 0);
    SHOW(open("/proc/absent", O_RDONLY));
    SHOW(mkdir("/proc/new", 0755));
    SHOW(open("/proc/new", O_RDWR | O_CREAT, 0644));
    return 0;
}
