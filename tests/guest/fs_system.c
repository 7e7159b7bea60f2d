/*
 * What the system tells of file systems and of itself in old ways: sysfs(2), ustat(2), syslog(2).
 * USER: root
 */
#include "check.h"

struct ustat_answer {
    int free;
    unsigned long inodes;
    char name[6], pack[6];
};

static char text[8192];

static void types(void)
{
    CASE("sysfs");
    int count = (int)MUST(syscall(SYS_sysfs, 3));
    SHOW_IF(count > 5);
    SHOW_IF(syscall(SYS_sysfs, 1, "proc") > 0);
    SHOW(syscall(SYS_sysfs, 1, "nosuch"));
    SHOW(syscall(SYS_sysfs, 1, ""));
    SHOW(syscall(SYS_sysfs, 1, BAD));
    SHOW(syscall(SYS_sysfs, 2, 0, text));
    say("%s", text);
    SHOW(syscall(SYS_sysfs, 2, syscall(SYS_sysfs, 1, "tmpfs"), text));
    say("%s", text);
    SHOW(syscall(SYS_sysfs, 2, count - 1, text));
    SHOW(syscall(SYS_sysfs, 2, count, text));
    SHOW(syscall(SYS_sysfs, 2, -1, text));
    SHOW(syscall(SYS_sysfs, 2, 0, BAD));
    SHOW(syscall(SYS_sysfs, 0));
    SHOW(syscall(SYS_sysfs, 4, "proc"));
}

static void devices(void)
{
    CASE("ustat");
    struct stat st;
    struct ustat_answer answer;
    memset(&answer, 'z', sizeof answer);
    MUST(stat("/dev/shm", &st));
    SHOW(syscall(SYS_ustat, (unsigned)st.st_dev, &answer));
    say("%d %d %d %d", answer.free > 0, answer.inodes > 0, answer.name[0], answer.pack[5]);
    MUST(stat("/proc", &st));
    SHOW(syscall(SYS_ustat, (unsigned)st.st_dev, &answer));
    say("%d %lu", answer.free, answer.inodes);
    SHOW(syscall(SYS_ustat, -1u, &answer));
    SHOW(syscall(SYS_ustat, -1u, BAD));
    SHOW(syscall(SYS_ustat, (unsigned)st.st_dev, BAD));
}

static void messages(void)
{
    CASE("syslog");
    for (int kind = -1; kind < 13; kind++) {
        if (kind == 0 || kind == 1 || kind == 3 || kind > 10 || kind < 0) {
            say("kind %d", kind);
            SHOW(syscall(SYS_syslog, kind, text, 0));
            SHOW(syscall(SYS_syslog, kind, NULL, 10));
            SHOW(syscall(SYS_syslog, kind, text, -1));
        }
    }
    SHOW(syscall(SYS_syslog, 2, text, 0));
    SHOW(syscall(SYS_syslog, 2, NULL, 1));
    SHOW(syscall(SYS_syslog, 2, text, -1));
    SHOW(syscall(SYS_syslog, 3, text, 1));
    SHOW(syscall(SYS_syslog, 3, BAD, 0));
    SHOW(syscall(SYS_syslog, 8, NULL, 0));
    SHOW(syscall(SYS_syslog, 8, NULL, 9));
    SHOW_IF(syscall(SYS_syslog, 9, NULL, 0) >= 0);
    SHOW_IF(syscall(SYS_syslog, 10, NULL, 0) > 1000);
    long got = syscall(SYS_syslog, 3, text, sizeof text);
    SHOW_IF(got > 0 && text[0] == '<' && text[got - 1] == '\n');
    reap("without CAP_SYSLOG", CHILD({
             MUST(setuid(65534));
             SHOW(syscall(SYS_syslog, 2, text, 10));
             SHOW(syscall(SYS_syslog, 5, NULL, 0));
             SHOW(syscall(SYS_syslog, 8, NULL, 7));
             SHOW(syscall(SYS_syslog, 77, NULL, 0));
         }));
}

static void modules(void)
{
    CASE("lsm_list_modules");
    uint64_t ids[64] = {0};
    uint32_t size = sizeof ids, small = 0;
    long count = syscall(461, ids, &size, 0);
    SHOW_IF(count > 0 && size == 8 * count && ids[0] >= 100);
    SHOW(syscall(461, ids, &small, 0));
    SHOW_IF(small == size);
    SHOW(syscall(461, ids, &size, 1));
    SHOW(syscall(461, ids, BAD, 0));
    SHOW(syscall(461, BAD, &size, 0));
}

static void setting(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY);
    errno = 0;
    long result = write(fd, value, strlen(value));
    say("%s to %s: %s", value, path, result < 0 ? error_name(errno) : "ok");
    close(fd);
}

static void knobs(void)
{
    CASE("settings");
    char before[64] = "";
    int fd = MUST(open("/proc/sys/fs/nr_open", O_RDONLY));
    MUST(read(fd, before, sizeof before - 1));
    close(fd);
    setting("/proc/sys/fs/nr_open", "0");
    setting("/proc/sys/fs/nr_open", "-5");
    setting("/proc/sys/fs/nr_open", "many");
    setting("/proc/sys/fs/nr_open", before);
    setting("/proc/sys/kernel/pid_max", "1");
    setting("/proc/sys/kernel/pid_max", "4194305");
    struct rlimit beyond = {10, strtoul(before, NULL, 10) + 1};
    SHOW(setrlimit(RLIMIT_NOFILE, &beyond));
}

int main(void)
{
    types();
    devices();
    messages();
    modules();
    knobs();
    return 0;
}
