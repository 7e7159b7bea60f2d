/*
 * Capabilities: capget and capset with their versions and rules, bounding, ambient and securebits,
 * and what execve and changes of user ids make of them.
 *
 * USER: root
 */
#include "check.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>

struct sets {
    uint64_t effective, permitted, inheritable;
};

static struct sets get(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    MUST(syscall(SYS_capget, &head, data));
    return (struct sets){data[0].effective | (uint64_t)data[1].effective << 32,
                         data[0].permitted | (uint64_t)data[1].permitted << 32,
                         data[0].inheritable | (uint64_t)data[1].inheritable << 32};
}

static long set(struct sets s)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)s.effective, (uint32_t)s.permitted, (uint32_t)s.inheritable},
        {(uint32_t)(s.effective >> 32), (uint32_t)(s.permitted >> 32),
         (uint32_t)(s.inheritable >> 32)}};
    return syscall(SYS_capset, &head, data);
}

#define BIT(cap) (1ull << (cap))
/* Those that every root of a container has, so that the output is the same on hosts that keep some
 * back. */
#define COMMON                                                                                    \
    (BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_KILL) | BIT(CAP_SETGID) | \
     BIT(CAP_SETUID) | BIT(CAP_SETPCAP) | BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SYS_CHROOT))

static void show(const char *what)
{
    struct sets s = get();
    int ambient = 0;
    for (int cap = 0; cap < 20; cap++)
        ambient |= prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1 ? 1 << cap : 0;
    say("%s: e %#llx p %#llx i %#llx a %#x", what, (unsigned long long)(s.effective & COMMON),
        (unsigned long long)(s.permitted & COMMON), (unsigned long long)(s.inheritable & COMMON),
        ambient);
}

static void versions(void)
{
    CASE("versions");
    struct __user_cap_header_struct head = {0x12345678, 0};
    struct __user_cap_data_struct data[2];
    SHOW(syscall(SYS_capget, &head, NULL));
    SHOW_IF(head.version == _LINUX_CAPABILITY_VERSION_3);
    head.version = 1;
    SHOW(syscall(SYS_capget, &head, data));
    SHOW_IF(head.version == _LINUX_CAPABILITY_VERSION_3);
    head.version = _LINUX_CAPABILITY_VERSION_1;
    SHOW(syscall(SYS_capget, &head, data));
    head.version = _LINUX_CAPABILITY_VERSION_2;
    SHOW(syscall(SYS_capget, &head, data));
    SHOW(syscall(SYS_capget, BAD, data));
    SHOW(syscall(SYS_capget, &head, BAD));
    SHOW(syscall(SYS_capget, &head, NULL));
    head.pid = -1;
    SHOW(syscall(SYS_capget, &head, data));
    head.pid = INT_MAX;
    SHOW(syscall(SYS_capget, &head, data));
    head.pid = getppid();
    SHOW(syscall(SYS_capget, &head, data) == 0 || errno == ESRCH);
    head.version = 7;
    SHOW(syscall(SYS_capset, &head, data));
    head.version = _LINUX_CAPABILITY_VERSION_3;
    SHOW(syscall(SYS_capset, &head, BAD));
    SHOW(syscall(SYS_capset, BAD, data));
    head.pid = INT_MAX;
    SHOW(syscall(SYS_capset, &head, data));
    head.pid = getpid();
    SHOW(syscall(SYS_capget, &head, data));
    SHOW(syscall(SYS_capset, &head, data));
}

static void rules(void)
{
    CASE("capset");
    struct sets s = get();
    show("all");
    s.effective &= ~BIT(CAP_KILL);
    SHOW(set(s));
    show("less effective");
    s.effective |= BIT(CAP_KILL);
    SHOW(set(s));
    s.inheritable = BIT(CAP_CHOWN) | BIT(CAP_KILL);
    SHOW(set(s));
    show("inheritable");
    s.permitted &= ~BIT(CAP_KILL);
    SHOW(set(s));
    s.effective &= ~BIT(CAP_KILL);
    SHOW(set(s));
    show("less permitted");
    s.permitted |= BIT(CAP_KILL);
    SHOW(set(s));
    s.permitted &= ~BIT(CAP_KILL);
    s.effective &= ~BIT(CAP_SETPCAP);
    SHOW(set(s));
    s.inheritable |= BIT(CAP_FOWNER);
    SHOW(set(s));
    s.inheritable |= BIT(CAP_SYS_BOOT + 30);
    SHOW(set(s));
    SHOW(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
    SHOW(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT));
}

static void bounding(void)
{
    CASE("bounding set");
    SHOW(prctl(PR_CAPBSET_READ, CAP_CHOWN));
    SHOW(prctl(PR_CAPBSET_READ, 99));
    SHOW(prctl(PR_CAPBSET_DROP, 99));
    SHOW(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
    SHOW(prctl(PR_CAPBSET_READ, CAP_CHOWN));
    struct sets s = get();
    s.inheritable = BIT(CAP_CHOWN);
    SHOW(set(s));
    show("still permitted");
}

static void ambient(void)
{
    CASE("ambient set");
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
    struct sets s = get();
    s.inheritable = BIT(CAP_CHOWN) | BIT(CAP_KILL);
    MUST(set(s));
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_FOWNER, 0, 0));
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 99, 0, 0));
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 1, 0));
    SHOW(prctl(PR_CAP_AMBIENT, 9, CAP_KILL, 0, 0));
    show("raised");
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_KILL, 0, 0));
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0));
    s.inheritable = 0;
    MUST(set(s));
    show("not inheritable any more");
    s.inheritable = BIT(CAP_CHOWN);
    MUST(set(s));
    SHOW(prctl(PR_SET_SECUREBITS, SECBIT_NO_CAP_AMBIENT_RAISE));
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 1, 0, 0));
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
}

static void securebits(void)
{
    CASE("securebits");
    SHOW(prctl(PR_GET_SECUREBITS));
    SHOW(prctl(PR_SET_SECUREBITS, 1 << 12));
    SHOW(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS));
    SHOW(prctl(PR_GET_KEEPCAPS));
    SHOW(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS_LOCKED));
    SHOW(prctl(PR_SET_KEEPCAPS, 1));
    SHOW(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_KEEP_CAPS_LOCKED));
    SHOW(prctl(PR_SET_SECUREBITS, 0));
    SHOW(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS_LOCKED | SECBIT_NOROOT | SECBIT_NOROOT_LOCKED));
    SHOW(prctl(PR_GET_SECUREBITS));
}

static void ids(void)
{
    CASE("user ids");
    SHOW(seteuid(1000));
    show("euid 1000");
    SHOW(seteuid(0));
    show("euid 0");
    SHOW(setresuid(1000, 1000, 0));
    show("saved 0");
    SHOW(seteuid(0));
    show("euid 0");
    SHOW(prctl(PR_SET_KEEPCAPS, 1));
    SHOW(setresuid(1000, 1000, 1000));
    show("kept");
    SHOW(setuid(0));
    struct sets s = get();
    s.effective = s.permitted;
    SHOW(set(s));
    SHOW(setuid(0));
    show("back");
}

static void all_gone(void)
{
    CASE("without keepcaps");
    SHOW(setuid(1000));
    show("1000");
    SHOW(setuid(0));
    SHOW(chown("/", 0, 0));
}

static void fixup(void)
{
    CASE("no fixup");
    SHOW(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP));
    SHOW(setresuid(1000, 1000, 1000));
    show("1000");
}

static void run_self(const char *what)
{
    char *argv[] = {"cred_caps", (char *)what, NULL};
    execv("/proc/self/exe", argv);
    say("execv: %s", error_name(errno));
}

static void exec_root(void)
{
    struct sets s = get();
    s.permitted = s.effective = BIT(CAP_SETPCAP) | BIT(CAP_SETUID) | BIT(CAP_KILL);
    s.inheritable = BIT(CAP_KILL);
    MUST(set(s));
    run_self("root gets all back");
}

static void exec_noroot(void)
{
    MUST(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT));
    run_self("root without its magic");
}

static void exec_user(void)
{
    MUST(prctl(PR_SET_KEEPCAPS, 1));
    MUST(setresuid(1000, 1000, 1000));
    run_self("a user loses all");
}

static void exec_ambient(void)
{
    MUST(prctl(PR_SET_KEEPCAPS, 1));
    MUST(setresuid(1000, 1000, 1000));
    struct sets s = get();
    s.inheritable = BIT(CAP_KILL) | BIT(CAP_CHOWN);
    s.effective = s.permitted;
    MUST(set(s));
    MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
    run_self("ambient ones stay");
}

static void exec_bounded(void)
{
    MUST(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
    MUST(prctl(PR_CAPBSET_DROP, CAP_KILL));
    run_self("root within bounds");
}

static void run(void (*test)(void))
{
    reap("child", CHILD(test()));
}

int main(int argc, char **argv)
{
    if (argc == 2) {
        show(argv[1]);
        say("keepcaps %d securebits %#x", prctl(PR_GET_KEEPCAPS), prctl(PR_GET_SECUREBITS));
        return 0;
    }
    void (*tests[])(void) = {versions,  rules,        bounding,    ambient,   securebits,
                             ids,       all_gone,     fixup,       exec_root, exec_noroot,
                             exec_user, exec_ambient, exec_bounded};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        run(tests[i]);
    return 0;
}
