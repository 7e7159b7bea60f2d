/*
 * Helpers for the guest programs.
 *
 * A guest program runs natively and then in the sandbox, and its output is compared, so it may
 * print only what is the same in both: results, names of errors and signals, and relations between
 * values; never a pid, an address, or a time.  One line is one write(2), so that output keeps its
 * order over fork and threads.
 *
 * Directives that the harness reads in a program's opening comment:
 *   USER: root    needs privileges, is not run as an ordinary user
 *   NEEDS: ...    paths that have to be there natively, or PATH=what has to stand there
 *   FLAGS: ...    more flags for gcc
 *   ARGS: ...     arguments to run it with
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/* Tests pass buffers and sizes that are wrong on purpose. */
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#pragma GCC diagnostic ignored "-Wstringop-overread"
#pragma GCC diagnostic ignored "-Wnonnull"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

UNUSED __attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char line[4096];
    va_list args;
    int saved = errno;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    if (write(1, line, length) != length)
        _exit(98);
    errno = saved;
}

UNUSED static const char *error_name(int error)
{
    const char *name = strerrorname_np(error);
    return name ? name : "unknown";
}

UNUSED static const char *signal_name(int signo)
{
    static _Thread_local char other[16];
    const char *name = sigabbrev_np(signo);
    if (name)
        return name;
    snprintf(other, sizeof other, "RT%+d", signo - 32);
    return other;
}

UNUSED static void show_result(const char *what, long result)
{
    if (result == -1)
        say("%s = -1 %s", what, error_name(errno));
    else
        say("%s = %ld", what, result);
}

UNUSED static void show_ok(const char *what, long result)
{
    say("%s: %s", what, result == -1 ? error_name(errno) : "ok");
}

UNUSED static long must(const char *what, int line, long result)
{
    if (result == -1) {
        say("line %d: %s failed: %s", line, what, error_name(errno));
        _exit(97);
    }
    return result;
}

/* Evaluates a call and prints its value, or the error. */
#define SHOW(...) (errno = 0, show_result(#__VA_ARGS__, (long)(__VA_ARGS__)))
/* The same for a call whose value differs from run to run. */
#define SHOW_OK(...) (errno = 0, show_ok(#__VA_ARGS__, (long)(__VA_ARGS__)))
/* A condition: prints it and whether it holds. */
#define SHOW_IF(...) say("%s: %s", #__VA_ARGS__, (__VA_ARGS__) ? "yes" : "no")
/* A call that the test needs: ends the program when it fails. */
#define MUST(...) must(#__VA_ARGS__, __LINE__, (long)(__VA_ARGS__))
#define NEED(condition) MUST((condition) ? 0 : -1)
/* An address that is never mapped; the compiler must not know it. */
UNUSED static volatile uintptr_t bad_address = 8;
#define BAD ((void *)bad_address)
#define CASE(name) say("-- %s", name)

/* Runs the statements in a child, which exits with 0 behind the last of them; gives its pid. */
#define CHILD(...)                        \
    ({                                    \
        pid_t child_pid_ = MUST(fork());  \
        if (child_pid_ == 0) {            \
            __VA_ARGS__;                  \
            _exit(0);                     \
        }                                 \
        child_pid_;                       \
    })

UNUSED static void show_status(const char *what, int status)
{
    if (WIFEXITED(status))
        say("%s: exited %d", what, WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        say("%s: killed by %s", what, signal_name(WTERMSIG(status)));
    else if (WIFSTOPPED(status))
        say("%s: stopped by %s", what, signal_name(WSTOPSIG(status)));
    else if (WIFCONTINUED(status))
        say("%s: continued", what);
    else
        say("%s: strange status %#x", what, status);
}

UNUSED static int reap(const char *what, pid_t pid)
{
    int status = 0;
    MUST(waitpid(pid, &status, 0));
    show_status(what, status);
    return status;
}

/* A gate lets one process or thread wait for another: gate_open lets one gate_wait pass. */
struct gate {
    int ends[2];
};

UNUSED static struct gate gate_make(void)
{
    struct gate gate;
    MUST(pipe2(gate.ends, O_CLOEXEC));
    return gate;
}

UNUSED static void gate_open(struct gate gate)
{
    MUST(write(gate.ends[1], "x", 1));
}

UNUSED static void gate_wait(struct gate gate)
{
    char byte;
    long got;
    while ((got = read(gate.ends[0], &byte, 1)) == -1 && errno == EINTR)
        ;
    NEED(got == 1);
}

UNUSED static void gate_close(struct gate gate)
{
    close(gate.ends[0]);
    close(gate.ends[1]);
}

/* The state of a process or thread as /proc/PID/stat tells it, or 0 where there is none. */
UNUSED static char task_state(pid_t id)
{
    char path[32], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", id);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[got < 0 ? 0 : got] = 0;
    char *name_end = strrchr(text, ')');
    return name_end ? name_end[2] : 0;
}

/* Until the process or thread sleeps in a call, or has ended. */
UNUSED static void until_asleep(pid_t id)
{
    for (;;) {
        char state = task_state(id);
        if (state == 'S' || state == 'Z' || state == 0)
            return;
        sched_yield();
    }
}

/* This clock's time in `ms` milliseconds. */
UNUSED static struct timespec time_in(int clock, long ms)
{
    struct timespec t;
    MUST(clock_gettime(clock, &t));
    t.tv_nsec += ms * 1000000;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

UNUSED static void handle_flags(int signo, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigemptyset(&action.sa_mask);
    MUST(sigaction(signo, &action, NULL));
}

UNUSED static void handle_plain(int signo, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    sigemptyset(&action.sa_mask);
    MUST(sigaction(signo, &action, NULL));
}

UNUSED static sigset_t set_of(int signo)
{
    sigset_t set;
    sigemptyset(&set);
    if (signo)
        sigaddset(&set, signo);
    return set;
}

UNUSED static void no_core(void)
{
    struct rlimit none = {0, 0};
    MUST(setrlimit(RLIMIT_CORE, &none));
}

/* scratch() makes a fresh directory under /tmp, enters it, and has it removed at exit. */
static char scratch_path[64];
static pid_t scratch_owner;

UNUSED static int scratch_remove_one(const char *path, const struct stat *st UNUSED, int type UNUSED,
                                     struct FTW *ftw UNUSED)
{
    return remove(path);
}

UNUSED static void scratch_remove(void)
{
    if (getpid() != scratch_owner)
        return;
    if (chdir("/") == 0)
        nftw(scratch_path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

UNUSED static const char *scratch(void)
{
    strcpy(scratch_path, "/tmp/guest.XXXXXX");
    NEED(mkdtemp(scratch_path) != NULL);
    MUST(chdir(scratch_path));
    MUST(chmod(".", 0755));
    scratch_owner = getpid();
    atexit(scratch_remove);
    umask(022);
    return scratch_path;
}

UNUSED static void put_file(const char *path, const char *text, mode_t mode)
{
    int fd = MUST(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600));
    size_t size = strlen(text);
    NEED(write(fd, text, size) == (ssize_t)size);
    MUST(fchmod(fd, mode));
    MUST(close(fd));
}

UNUSED static void show_file(const char *path)
{
    char text[512];
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        say("%s: %s", path, error_name(errno));
        return;
    }
    ssize_t got = read(fd, text, sizeof text - 1);
    text[got < 0 ? 0 : got] = 0;
    for (char *p = text; *p; p++)
        if (*p == '\n')
            *p = '|';
    say("%s: %zd bytes '%s'", path, got, text);
    close(fd);
}

#endif
