/*
 * File capabilities: what execve gives by them, and when it does not.
 *
 * USER: root
 */
#include "check.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/xattr.h>

static void show(const char *what)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    MUST(syscall(SYS_capget, &head, data));
    say("%s: uid %u euid %u e %#x p %#x i %#x secure %lu", what, getuid(), geteuid(),
        data[0].effective & 0xff, data[0].permitted & 0xff, data[0].inheritable & 0xff,
        getauxval(AT_SECURE));
}

static void give(uint32_t permitted, uint32_t inheritable, bool effective)
{
    struct vfs_cap_data value = {.magic_etc =
                                     VFS_CAP_REVISION_2 | (effective ? VFS_CAP_FLAGS_EFFECTIVE : 0),
                                 .data = {{permitted, inheritable}}};
    SHOW(setxattr("program", "security.capability", &value, sizeof value, 0));
}

static void drop(uint32_t inheritable)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    MUST(setgroups(0, NULL));
    MUST(syscall(SYS_capget, &head, data));
    data[0].inheritable = inheritable;
    MUST(syscall(SYS_capset, &head, data));
    MUST(setresgid(1001, 1001, 1001));
    MUST(setresuid(1000, 1000, 1000));
}

static void run(const char *what)
{
    char *argv[] = {"program", (char *)what, NULL};
    execv("./program", argv);
    say("%s: %s", what, error_name(errno));
}

#define TRY(what, ...) reap(what, CHILD(__VA_ARGS__; run(what)))
#define KILL (1u << CAP_KILL)
#define CHOWN (1u << CAP_CHOWN)

int main(int argc, char **argv)
{
    if (argc == 2) {
        show(argv[1]);
        return 0;
    }
    char buffer[65536];
    ssize_t size;
    scratch();
    int in = MUST(open("/proc/self/exe", O_RDONLY)),
        out = MUST(open("program", O_WRONLY | O_CREAT, 0755));
    while ((size = read(in, buffer, sizeof buffer)) > 0)
        NEED(write(out, buffer, (size_t)size) == size);
    close(in), close(out);
    TRY("none", drop(0));
    give(KILL, 0, true);
    TRY("permitted, effective", drop(0));
    TRY("by root", (void)0);
    TRY("no_new_privs", drop(0); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    TRY("out of bounds", prctl(PR_CAPBSET_DROP, CAP_KILL); drop(0));
    give(KILL, 0, false);
    TRY("permitted only", drop(0));
    TRY("out of bounds, not effective", prctl(PR_CAPBSET_DROP, CAP_KILL); drop(0));
    give(0, KILL | CHOWN, true);
    TRY("inheritable, none had", drop(0));
    TRY("inheritable, one had", drop(KILL));
    MUST(chmod("program", 04755));
    give(CHOWN, 0, true);
    TRY("set-user-ID root with capabilities", drop(0));
    SHOW(setxattr("program", "security.capability", "short", 5, 0));
    SHOW(removexattr("program", "security.capability"));
    MUST(chmod("program", 0755));
    TRY("removed", drop(0));
    return 0;
}
