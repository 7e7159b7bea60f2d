/*
 * Credentials: the set*id family, groups, capabilities, securebits, NO_NEW_PRIVS.
 * USER: root
 */
#include "check.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

static void show_ids(const char *what)
{
    uid_t r, e, s;
    gid_t gr, ge, gs;
    MUST(getresuid(&r, &e, &s));
    MUST(getresgid(&gr, &ge, &gs));
    say("%s: uid %u %u %u %u gid %u %u %u", what, r, e, s, setfsuid(-1), gr, ge, gs);
}

static void show_caps(const char *what)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    MUST(syscall(SYS_capget, &header, data));
    say("%s: effective %s permitted %s inheritable %s", what, data[0].effective ? "some" : "none",
        data[0].permitted ? "some" : "none", data[0].inheritable ? "some" : "none");
}

#define RUN(what, ...) reap(what, CHILD(__VA_ARGS__))

int main(void)
{
    CASE("as root");
    show_ids("start");
    show_caps("start");
    RUN("setuid", SHOW(setuid(1000)); show_ids("now"); show_caps("now"); SHOW(setuid(0)); SHOW(setuid(1000)));
    RUN("seteuid", SHOW(seteuid(1000)); show_ids("now"); show_caps("now"); SHOW(seteuid(0)); show_ids("back");
        show_caps("back"));
    RUN("setreuid", SHOW(setreuid(1000, 2000)); show_ids("now"); SHOW(setreuid(2000, 1000)); show_ids("swapped");
        SHOW(setreuid(0, 0)));
    RUN("setresuid", SHOW(setresuid(1, 2, 3)); show_ids("now"); SHOW(setresuid(3, 1, 2)); show_ids("rotated");
        SHOW(setresuid(4, -1, -1)); SHOW(setresuid(-1, -1, -1)));
    RUN("keeping a saved 0", SHOW(setresuid(1000, 1000, 0)); show_caps("now"); SHOW(setuid(0)); show_ids("now");
        show_caps("now"));
    RUN("gids", SHOW(setgid(1000)); show_ids("now"); SHOW(setgid(0)); SHOW(setresgid(5, 6, 7)); show_ids("now"));
    RUN("gids as a user", MUST(setresgid(5, 6, 7)); MUST(setuid(1000)); SHOW(setgid(5)); show_ids("now");
        SHOW(setgid(8)); SHOW(setregid(5, 7)); show_ids("now"));
    RUN("setfsuid", say("%d", setfsuid(1000)); say("%d", setfsuid(-1)); show_caps("now"); setfsuid(0));
    RUN("setfsuid as a user", MUST(setuid(1000)); say("%d", setfsuid(5)); say("%d", setfsuid(-1)));
    RUN("setfsgid", say("%d", setfsgid(1000)); say("%d", setfsgid(-1)));
    CASE("groups");
    gid_t groups[40] = {10, 20, 10, 5};
    RUN("set", SHOW(setgroups(4, groups)); SHOW(getgroups(0, NULL)); SHOW(getgroups(40, groups));
        say("%u %u %u %u", groups[0], groups[1], groups[2], groups[3]); SHOW(getgroups(1, groups));
        SHOW(getgroups(-1, groups)); SHOW(getgroups(40, BAD)));
    RUN("none", SHOW(setgroups(0, NULL)); SHOW(getgroups(40, groups)));
    RUN("as a user", MUST(setuid(1000)); SHOW(setgroups(0, NULL)));
    RUN("too many", SHOW(syscall(SYS_setgroups, 65537, groups)); SHOW(setgroups(4, BAD)));
    CASE("capabilities");
    struct __user_cap_header_struct header = {0x12345678, 0};
    struct __user_cap_data_struct data[2];
    SHOW(syscall(SYS_capget, &header, data));
    say("%#x", header.version);
    SHOW(syscall(SYS_capget, &header, NULL));
    header.pid = 1 << 21;
    SHOW(syscall(SYS_capget, &header, data));
    header.pid = -1;
    SHOW(syscall(SYS_capget, &header, data));
    header.pid = 0;
    RUN("drop one", MUST(syscall(SYS_capget, &header, data)); data[0].effective &= ~(1u << CAP_SETUID);
        data[0].permitted &= ~(1u << CAP_SETUID); SHOW(syscall(SYS_capset, &header, data)); SHOW(setuid(1000));
        data[0].permitted |= 1u << CAP_SETUID; SHOW(syscall(SYS_capset, &header, data)));
    RUN("effective within permitted", MUST(syscall(SYS_capget, &header, data)); data[0].effective = ~0u;
        data[0].permitted = 0; SHOW(syscall(SYS_capset, &header, data)));
    RUN("bounding set", SHOW(prctl(PR_CAPBSET_READ, CAP_CHOWN)); SHOW(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
        SHOW(prctl(PR_CAPBSET_READ, CAP_CHOWN)); SHOW(prctl(PR_CAPBSET_READ, 63));
        SHOW(prctl(PR_CAPBSET_DROP, 63)));
    CASE("prctl");
    RUN("keepcaps", SHOW(prctl(PR_GET_KEEPCAPS)); SHOW(prctl(PR_SET_KEEPCAPS, 1)); MUST(setuid(1000));
        show_caps("kept"); SHOW(prctl(PR_GET_KEEPCAPS)); SHOW(prctl(PR_SET_KEEPCAPS, 2)));
    RUN("no new privileges", SHOW(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); SHOW(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        SHOW(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); SHOW(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
        RUN("inherited", SHOW(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))));
    RUN("securebits", SHOW(prctl(PR_GET_SECUREBITS)); SHOW(prctl(PR_SET_SECUREBITS, 1 << 2));
        MUST(setresuid(1000, 1000, 1000)); show_caps("no fixup"));
    RUN("dumpable", SHOW(prctl(PR_GET_DUMPABLE)); SHOW(prctl(PR_SET_DUMPABLE, 0)); SHOW(prctl(PR_GET_DUMPABLE));
        SHOW(prctl(PR_SET_DUMPABLE, 5)));
    RUN("ambient", SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0));
        SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
        SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)));
    CASE("over exec");
    RUN("a user keeps nothing", MUST(setuid(1000)); execl("/bin/sh", "sh", "-c", "id -u; id -g; exit 3", NULL));
    RUN("capabilities come back to effective root",
        execl("/bin/sh", "sh", "-c", "grep -q 'CapEff:.*0000000000000000$' /proc/self/status; echo $?", NULL));
    CASE("without privileges");
    RUN("chroot", SHOW(chroot(".")); MUST(setuid(1000)); SHOW(chroot(".")));
    RUN("sethostname", MUST(setuid(1000)); SHOW(sethostname("x", 1)));
    RUN("nice", MUST(setuid(1000)); SHOW(setpriority(PRIO_PROCESS, 0, 5)); SHOW(setpriority(PRIO_PROCESS, 0, 0)));
    return 0;
}
