/* What the programs on ptrace(2) share. */
#include "check.h"
#include <elf.h>
#include <grp.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

UNUSED static void show_stop(const char *what, int status)
{
    if (WIFSTOPPED(status) && status >> 16)
        say("%s: event %d with %s", what, status >> 16, signal_name(WSTOPSIG(status)));
    else if (WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80))
        say("%s: a call", what);
    else
        show_status(what, status);
}

/* The next stop of `pid`, or its end. */
UNUSED static int next_stop(const char *what, pid_t pid)
{
    int status = 0;
    NEED(waitpid(pid, &status, __WALL) == pid);
    show_stop(what, status);
    return status;
}

/* Lets it go on to the next stop. */
UNUSED static int go(const char *what, int request, pid_t pid, int signo)
{
    MUST(ptrace(request, pid, 0, (long)signo));
    return next_stop(what, pid);
}

/* A child that is traced, and has stopped before `body`. */
UNUSED static pid_t traced(void (*body)(void))
{
    pid_t pid = CHILD({
        MUST(ptrace(PTRACE_TRACEME, 0, 0, 0));
        raise(SIGSTOP);
        body();
    });
    int status;
    NEED(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    return pid;
}

UNUSED static unsigned long message_of(pid_t pid)
{
    unsigned long message = 0;
    MUST(ptrace(PTRACE_GETEVENTMSG, pid, 0, &message));
    return message;
}

UNUSED static void set_options(pid_t pid, long options)
{
    MUST(ptrace(PTRACE_SETOPTIONS, pid, 0, options));
}

/* The field of /proc/PID/status. */
UNUSED static void show_proc(pid_t pid, const char *field)
{
    char path[64], text[4096], *p;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[got < 0 ? 0 : got] = 0;
    close(fd);
    p = strstr(text, field);
    if (!p)
        say("%s: none", field);
    else if (strcmp(field, "TracerPid:") == 0)
        say("TracerPid: %s", atoi(p + 10) == 0 ? "none" : atoi(p + 10) == getpid() ? "we" : "somebody");
    else
        say("%.*s", (int)strcspn(p, "\n"), p);
}

/* Another user for good. */
UNUSED static void become(uid_t uid)
{
    MUST(setgroups(0, NULL));
    MUST(setresgid(uid, uid, uid));
    MUST(setresuid(uid, uid, uid));
}

UNUSED static void sleeps(void)
{
    for (;;)
        pause();
}
