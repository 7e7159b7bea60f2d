/* What can't be changed in /proc and /sys, and what can: attributes and names, places in files without a
 * size, coredump_filter, oom_score_adj of processes that share memory, and polling for a new host name.
 * USER: root
 */
#include "ns_common.h"

#include <linux/capability.h>
#include <sys/epoll.h>

static void names(const char *directory, const char *name)
{
    char there[256], none[256], other[256];
    snprintf(there, sizeof there, "%s/%s", directory, name);
    snprintf(none, sizeof none, "%s/none", directory);
    snprintf(other, sizeof other, "%s/other", directory);
    SHOW(rmdir(there));
    SHOW(unlink(there));
    SHOW(rmdir(none));
    SHOW(unlink(none));
    SHOW(mkdir(there, 0755));
    SHOW(mkdir(none, 0755));
    SHOW(mknod(there, S_IFREG | 0644, 0));
    SHOW(mknod(none, S_IFREG | 0644, 0));
    SHOW(symlink("x", there));
    SHOW(symlink("x", none));
    SHOW(link(there, none));
    SHOW(rename(there, none));
    SHOW(rename(none, other));
    SHOW(open(none, O_CREAT | O_RDWR, 0644));
    SHOW(open(none, O_CREAT | O_EXCL | O_RDWR, 0644));
    SHOW(open(there, O_CREAT | O_EXCL | O_RDWR, 0644));
    SHOW(access(directory, W_OK));
    SHOW(access(there, W_OK));
}

/* Of what is this process's own: a change lasts for as long as nobody looks. */
static void attributes(const char *path)
{
    SHOW(chmod(path, 0700));
    SHOW(chown(path, 1, 1));
    SHOW(chown(path, -1, -1));
    SHOW(utimensat(AT_FDCWD, path, NULL, 0));
}

static void all_names(void)
{
    static const char *const places[][2] = {
        {"/proc/self", "task"}, {"/proc/self", "comm"}, {"/proc/self/fd", "1"}, {"/proc/self/fdinfo", "1"},
        {"/proc/self/ns", "net"}, {"/proc/self/map_files", "0"}, {"/proc", "sys"}, {"/proc", "meminfo"},
        {"/proc", "self"}, {"/proc/sys", "kernel"}, {"/sys", "kernel"},
        {"/proc/sys/kernel", "hostname"}, {"/proc/sys/kernel", "ostype"},
    };
    char number[32], task[64];
    snprintf(number, sizeof number, "%d", getpid());
    snprintf(task, sizeof task, "/proc/self/task/%d", getpid());
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        say("in %s: %s", places[i][0], places[i][1]);
        names(places[i][0], places[i][1]);
    }
    say("a process");
    names("/proc", number);
    say("a thread");
    names("/proc/self/task", number);
    names(task, "fd");
    attributes("/proc/self");
    attributes("/proc/self/task");
    attributes(task);
    attributes("/proc/self/fd");
    attributes("/proc/self/fdinfo");
    attributes("/proc/self/ns");
    attributes("/proc/self/ns/net");
    attributes("/proc/self/map_files");
    SHOW(chown("/proc/sys", -1, -1));
}

static void without_rights(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    MUST(syscall(SYS_capget, &head, data));
    data[0].effective &= ~(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH);
    MUST(syscall(SYS_capset, &head, data));
}

static void places(void)
{
    static const char *const files[] = {
        "/proc", "/proc/self", "/proc/self/task", "/proc/self/fd", "/proc/self/fdinfo", "/proc/self/ns",
        "/proc/self/map_files", "/proc/self/net", "/proc/sys", "/proc/sys/kernel", "/sys", "/sys/kernel",
        "/proc/self/environ", "/proc/self/auxv", "/proc/self/cmdline", "/proc/self/coredump_filter",
        "/proc/self/oom_score_adj", "/proc/sys/kernel/hostname", "/proc/self/comm", "/proc/self/maps",
        "/proc/self/status", "/proc/self/mem", "/proc/meminfo", "/proc/mounts", "/proc/uptime",
    };
    CASE("lseek");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        int fd = MUST(open(files[i], O_RDONLY));
        say("%s", files[i]);
        SHOW(lseek(fd, 0, SEEK_END));
        SHOW(lseek(fd, 3, SEEK_END));
        SHOW(lseek(fd, -3, SEEK_END));
        SHOW(lseek(fd, 0, SEEK_CUR));
        SHOW(lseek(fd, 1000, SEEK_SET));
        SHOW(lseek(fd, 1L << 31, SEEK_SET));
        SHOW(lseek(fd, LONG_MAX, SEEK_SET));
        SHOW(lseek(fd, 0, SEEK_DATA));
        SHOW(lseek(fd, 0, SEEK_HOLE));
        close(fd);
    }
}

static const char *filter_of(const char *path)
{
    static char text[64];
    int fd = MUST(open(path, O_RDONLY));
    ssize_t got = MUST(read(fd, text, sizeof text - 1));
    close(fd);
    text[got] = 0;
    return text;
}

static void dump_filter(const char *program)
{
    static const char own[] = "/proc/self/coredump_filter";
    static const char *const texts[] = {
        "7", "0x7f", "017", "+3", "-3", "-0", "5\n", "5\n\n", " 5", "5 ", "x", "0x", "08", "0xffffffff",
        "4294967296",
        "99999999999999999999", "0x1ff", "0x200", "0000000000000000000000000000000005",
        "00000000000000000000000000000000000000000000000",
    };
    CASE("coredump_filter");
    say("%s", filter_of(own));
    int fd = MUST(open(own, O_RDWR));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        say("'%s'", texts[i]);
        SHOW(pwrite(fd, texts[i], strlen(texts[i]), 0));
        say("%s", filter_of(own));
    }
    SHOW(pwrite(fd, "7\0x", 3, 0));
    SHOW(pwrite(fd, "", 1, 0));
    say("%s", filter_of(own));
    MUST(pwrite(fd, "0x1f", 4, 0));
    reap("child", CHILD({
             say("inherited: %s", filter_of(own));
             SHOW(pwrite(fd, "9", 1, 0));
             int mine = MUST(open(own, O_RDWR));
             SHOW(pwrite(mine, "0x11", 4, 0));
             say("set: %s", filter_of(own));
             MUST(execl(program, program, "filter", NULL));
         }));
    say("what it was, and then set by the child: %s", filter_of(own));
    if (vfork() == 0) {
        execl(program, program, "filter", NULL);
        _exit(1);
    }
    wait(NULL);
    pid_t pid = CHILD(pause());
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/coredump_filter", pid);
    int its = MUST(open(path, O_RDWR));
    MUST(kill(pid, SIGKILL));
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
    char byte;
    SHOW(read(its, &byte, 1));
    SHOW(write(its, "1", 1));
    SHOW(write(its, "x", 1));
    reap("zombie", pid);
    SHOW(pread(its, &byte, 1, 0));
    SHOW(pwrite(its, "1", 1, 0));
    close(its);
    MUST(pwrite(fd, "0x33", 4, 0));
    close(fd);
}

static int score(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
    return atoi(filter_of(path));
}

static void set_score(pid_t pid, const char *value)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
    put(path, value);
}

static struct gate told, done;

static int waits(void *arg UNUSED)
{
    gate_open(told);
    gate_wait(done);
    _exit(0);
}

static pid_t beside(int flags)
{
    static char stacks[8][65536];
    static int count;
    return (pid_t)MUST(clone(waits, stacks[count++] + 65536, flags | SIGCHLD, NULL));
}

/* A child of vfork(2) has a score of its own. */
static int vforked(void *arg)
{
    const pid_t parent = *(const pid_t *)arg;
    say("at first: %d", score(getpid()));
    set_score(parent, "50");
    say("the parent's set: %d, %d", score(parent), score(getpid()));
    set_score(getpid(), "60");
    say("its own set: %d, %d", score(parent), score(getpid()));
    _exit(0);
}

static void shared_scores(void)
{
    CASE("oom_score_adj of who shares memory");
    reap("family", CHILD({
             static char stack[65536];
             pid_t self = getpid();
             told = gate_make();
             done = gate_make();
             set_score(self, "10");
             MUST(clone(vforked, stack + 65536, CLONE_VM | CLONE_VFORK | SIGCHLD, &self));
             wait(NULL);
             say("then: %d", score(self));
             pid_t sharing = beside(CLONE_VM);
             pid_t alone = beside(0);
             gate_wait(told);
             gate_wait(told);
             say("inherited: %d, %d", score(sharing), score(alone));
             set_score(self, "20");
             say("set: %d, %d, %d", score(self), score(sharing), score(alone));
             set_score(sharing, "30");
             say("set by the other: %d, %d, %d", score(self), score(sharing), score(alone));
             set_score(alone, "40");
             say("alone: %d, %d, %d", score(self), score(sharing), score(alone));
             MUST(clone(vforked, stack + 65536, CLONE_VM | CLONE_VFORK | SIGCHLD, &self));
             say("after vfork: %d, %d, %d", score(self), score(sharing), score(alone));
             gate_open(done);
             gate_open(done);
             while (wait(NULL) > 0)
                 ;
         }));
}

static void show_ready(const char *what, int fd)
{
    struct pollfd entry = {fd, POLLIN | POLLOUT | POLLPRI, 0};
    int count = poll(&entry, 1, 0);
    say("%s: %d, %s%s%s%s", what, count, entry.revents & POLLIN ? "in " : "",
        entry.revents & POLLOUT ? "out " : "",
        entry.revents & POLLPRI ? "pri " : "", entry.revents & POLLERR ? "err" : "");
}

static void new_names(void)
{
    struct epoll_event event = {.events = EPOLLPRI}, got;
    CASE("polling for a name");
    int host = MUST(open("/proc/sys/kernel/hostname", O_RDWR));
    int domain = MUST(open("/proc/sys/kernel/domainname", O_RDONLY));
    int second = MUST(open("/proc/sys/kernel/hostname", O_RDONLY));
    int other = MUST(open("/proc/sys/kernel/ostype", O_RDONLY));
    int set = MUST(epoll_create1(0));
    show_ready("at first", host);
    show_ready("another", other);
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, host, &event));
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, other, &event));
    SHOW(epoll_wait(set, &got, 1, 0));
    MUST(unshare(CLONE_NEWUTS));
    SHOW(epoll_wait(set, &got, 1, 0));
    SHOW(sethostname("first", 5));
    SHOW(epoll_wait(set, &got, 1, 5000));
    say("events %x", got.events);
    SHOW(epoll_wait(set, &got, 1, 0));
    show_ready("told by then", host);
    show_ready("the second", second);
    show_ready("again", second);
    show_ready("domain", domain);
    SHOW(setdomainname("elsewhere", 9));
    show_ready("domain set", domain);
    show_ready("host", host);
    SHOW(pwrite(host, "written", 7, 0));
    show_ready("written", host);
    SHOW(sethostname("written", 7));
    show_ready("the same once more", host);
    SHOW(sethostname(BAD, 7));
    SHOW(sethostname("x", 65));
    show_ready("failed", host);
    show_ready("opened later", MUST(open("/proc/sys/kernel/hostname", O_RDONLY)));
    pid_t pid = CHILD({
        usleep(50000);
        MUST(unshare(CLONE_NEWUTS));
        MUST(sethostname("elsewhere", 9));
    });
    SHOW(epoll_wait(set, &got, 1, 5000));
    reap("of another namespace", pid);
    SHOW_OK(open("/proc/sys/kernel/ostype", O_RDWR));
    SHOW_OK(open("/proc/sys/kernel/ostype", O_RDONLY));
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        say("after execve: %s", filter_of("/proc/self/coredump_filter"));
        return 0;
    }
    CASE("names and attributes");
    reap("as root", CHILD(all_names()));
    reap("without rights", CHILD(without_rights(); all_names()));
    places();
    dump_filter(argv[0]);
    shared_scores();
    new_names();
    return 0;
}
