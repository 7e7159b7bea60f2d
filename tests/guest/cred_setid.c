/*
 * Set-user-ID and set-group-ID programs: what they gain, what no_new_privs, nosuid and sharing take
 * away, what is cleared, and the rules of setpgid after execve.
 *
 * USER: root
 */
#include "check.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/auxv.h>
#include <sys/mount.h>
#include <sys/prctl.h>

static void show_ids(const char *what)
{
    uid_t u[3];
    gid_t g[3];
    getresuid(u, u + 1, u + 2);
    getresgid(g, g + 1, g + 2);
    int death = 0;
    prctl(PR_GET_PDEATHSIG, &death);
    say("%s: uid %u %u %u gid %u %u %u secure %lu dumpable %d pdeath %d nnp %d", what, u[0], u[1],
        u[2], g[0], g[1], g[2], getauxval(AT_SECURE), prctl(PR_GET_DUMPABLE), death,
        prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

static void copy_self(const char *to, mode_t mode, uid_t uid, gid_t gid)
{
    char buffer[65536];
    int in = MUST(open("/proc/self/exe", O_RDONLY)),
        out = MUST(open(to, O_WRONLY | O_CREAT | O_TRUNC, 0700));
    ssize_t size;
    while ((size = read(in, buffer, sizeof buffer)) > 0)
        NEED(write(out, buffer, (size_t)size) == size);
    close(in);
    MUST(fchown(out, uid, gid));
    MUST(fchmod(out, mode));
    close(out);
}

static void run(const char *program, const char *what)
{
    char *argv[] = {(char *)program, (char *)what, NULL};
    prctl(PR_SET_PDEATHSIG, SIGUSR1);
    execv(program, argv);
    say("%s: %s", what, error_name(errno));
}

static void drop(void)
{
    MUST(setgroups(0, NULL));
    MUST(setresgid(1001, 1001, 1001));
    MUST(setresuid(1000, 1000, 1000));
}

#define TRY(what, ...) reap(what, CHILD(__VA_ARGS__))

int main(int argc, char **argv)
{
    if (argc == 2) {
        show_ids(argv[1]);
        return 0;
    }
    scratch();
    copy_self("plain", 0755, 0, 0);
    copy_self("suid", 04755, 2000, 0);
    copy_self("sgid", 02755, 0, 2001);
    copy_self("both", 06755, 2000, 2001);
    copy_self("root", 04755, 0, 0);
    copy_self("lock", 02745, 0, 2001);
    CASE("programs");
    TRY("plain", drop(); run("./plain", "plain"));
    TRY("suid", drop(); run("./suid", "suid"));
    TRY("sgid", drop(); run("./sgid", "sgid"));
    TRY("both", drop(); run("./both", "both"));
    TRY("root", drop(); run("./root", "suid root"));
    TRY("not executable by its group", drop(); run("./lock", "lock"));
    TRY("by root", run("./suid", "suid by root"));
    TRY("its own user", drop(); MUST(prctl(PR_SET_DUMPABLE, 0)); run("./plain", "dumpable again"));
    TRY("another effective user", {
        MUST(setresuid(1000, 1500, 1000));
        run("./plain", "other euid");
    });
    CASE("who shares his file system context gains nothing");
    static const char *const programs[] = {"./suid", "./sgid", "./root", "./plain"};
    for (unsigned i = 0; i < sizeof programs / sizeof *programs; i++)
        TRY("shared", {
            drop();
            pid_t pid = (pid_t)MUST(syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0));
            if (pid == 0)
                run(programs[i], programs[i] + 2);
            reap("it", pid);
        });
    CASE("no_new_privs");
    TRY("nnp suid", drop(); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); run("./both", "both"));
    TRY("nnp root", drop(); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); run("./root", "suid root"));
    CASE("nosuid");
    MUST(unshare(CLONE_NEWNS));
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    MUST(mkdir("m", 0755));
    MUST(mount("none", "m", "tmpfs", MS_NOSUID, "mode=755"));
    copy_self("m/both", 06755, 2000, 2001);
    TRY("nosuid", drop(); run("./m/both", "both"));
    MUST(mount(NULL, "m", NULL, MS_REMOUNT | MS_NOEXEC, NULL));
    TRY("noexec", drop(); run("./m/both", "both"));
    MUST(umount2("m", 0));
    CASE("changes of the file");
    struct stat st;
    MUST(chown("both", 2002, -1));
    MUST(stat("both", &st));
    say("mode %o", st.st_mode & 07777);
    CASE("in a user namespace without these ids");
    TRY("unmapped", {
        drop();
        MUST(unshare(CLONE_NEWUSER));
        run("./suid", "suid");
    });
    CASE("setpgid behind execve");
    struct gate gate = gate_make();
    pid_t pid = MUST(fork());
    if (pid == 0) {
        fcntl(gate.ends[0], F_SETFD, 0);
        dup2(gate.ends[0], 0);
        execlp("cat", "cat", NULL);
        _exit(1);
    }
    usleep(100000);
    SHOW(setpgid(pid, pid));
    SHOW(setpgid(pid, getpgrp()));
    gate_close(gate);
    reap("cat", pid);
    return 0;
}
