/* vfork, posix_spawn, system, popen: the ways in which real programs start others. */
#include "check.h"

#include <spawn.h>

extern char **environ;

static volatile int shared_word;

static void with_vfork(void)
{
    CASE("vfork");
    pid_t us = getpid();
    shared_word = 1;
    pid_t pid = vfork();
    if (pid == 0) {
        shared_word = getpid() != us ? 2 : 3;
        _exit(4);
    }
    SHOW_IF(shared_word == 2);
    reap("child", pid);
    pid = vfork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "exit 23", NULL);
        _exit(1);
    }
    reap("exec", pid);
    pid = vfork();
    if (pid == 0) {
        execl("/nonexistent", "x", NULL);
        shared_word = errno;
        _exit(127);
    }
    say("errno seen by the parent: %s", error_name(shared_word));
    reap("failed exec", pid);
    CASE("vfork child killed");
    pid = vfork();
    if (pid == 0) {
        kill(getpid(), SIGKILL);
        _exit(1);
    }
    reap("killed", pid);
}

static void with_posix_spawn(void)
{
    pid_t pid;
    char *echo[] = {"echo", "from spawn", NULL};
    char *sh[] = {"sh", "-c", "echo out; echo err >&2; exit 9", NULL};
    CASE("posix_spawn");
    /* Nothing is printed while the child runs: the two would race. */
    int got_plain = posix_spawn(&pid, "/bin/echo", NULL, NULL, echo, environ);
    reap("echo", pid);
    int got_path = posix_spawnp(&pid, "echo", NULL, NULL, echo, environ);
    reap("echo", pid);
    say("%d %d", got_plain, got_path);
    say("%s", error_name(posix_spawn(&pid, "/nonexistent", NULL, NULL, echo, environ)));
    say("%s", error_name(posix_spawn(&pid, "/", NULL, NULL, echo, environ)));
    CASE("file actions");
    int ends[2];
    posix_spawn_file_actions_t actions;
    MUST(pipe(ends));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    SHOW(posix_spawn(&pid, "/bin/sh", &actions, NULL, sh, environ));
    close(ends[1]);
    char text[64];
    ssize_t got, total = 0;
    while ((got = read(ends[0], text + total, sizeof text - 1 - total)) > 0)
        total += got;
    text[total] = 0;
    say("'%.3s' '%.3s' %zd", text, text + 4, total);
    reap("sh", pid);
    close(ends[0]);
    CASE("attributes");
    posix_spawnattr_t attr;
    posix_spawnattr_init(&attr);
    sigset_t mask = set_of(SIGUSR1), defaults = set_of(SIGINT);
    signal(SIGINT, SIG_IGN);
    posix_spawnattr_setsigmask(&attr, &mask);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setpgroup(&attr, 0);
    char *status[] = {"spawn", "signals", NULL};
    int got_attr = posix_spawn(&pid, "/proc/self/exe", NULL, &attr, status, environ);
    pid_t group = getpgid(pid);
    reap("signals", pid);
    say("%d, a group of its own %d", got_attr, group == pid);
    signal(SIGINT, SIG_DFL);
}

static void with_stdio(void)
{
    CASE("system");
    say("%d", WEXITSTATUS(system("exit 5")));
    say("%d", WEXITSTATUS(system("no-such-program-here 2>/dev/null")));
    say("%d", system(NULL) != 0);
    CASE("popen");
    char line[64] = "";
    FILE *pipe_in = popen("echo one; echo two", "r");
    while (fgets(line, sizeof line, pipe_in))
        say("%.3s", line);
    say("%d", pclose(pipe_in));
    FILE *pipe_out = popen("tr a-z A-Z; exit 3", "w");
    fputs("shout\n", pipe_out);
    say("%d", WEXITSTATUS(pclose(pipe_out)));
}

static int signals(void)
{
    sigset_t mask;
    struct sigaction action;
    MUST(sigprocmask(SIG_BLOCK, NULL, &mask));
    MUST(sigaction(SIGINT, NULL, &action));
    say("USR1 blocked %d, USR2 blocked %d, INT default %d", sigismember(&mask, SIGUSR1),
        sigismember(&mask, SIGUSR2), action.sa_handler == SIG_DFL);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "signals") == 0)
        return signals();
    with_vfork();
    with_posix_spawn();
    with_stdio();
    return 0;
}
