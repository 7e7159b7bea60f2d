/* execve(2): arguments, environment, scripts, what is kept and what is reset. Runs itself again. */
#include "check.h"

#include <sys/prctl.h>

extern char **environ;

static int shown(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        say("argv[%d] = '%s'", i, argv[i]);
    for (char **env = environ; *env; env++)
        say("env '%s'", *env);
    return argc;
}

/* What a new image sees of its process. */
static int state(void)
{
    sigset_t mask, pending;
    struct sigaction action;
    char name[16];
    struct stat st;
    MUST(sigprocmask(SIG_BLOCK, NULL, &mask));
    MUST(sigpending(&pending));
    say("mask USR1 %d USR2 %d", sigismember(&mask, SIGUSR1), sigismember(&mask, SIGUSR2));
    say("pending USR1 %d USR2 %d", sigismember(&pending, SIGUSR1), sigismember(&pending, SIGUSR2));
    MUST(sigaction(SIGINT, NULL, &action));
    say("INT %s", action.sa_handler == SIG_IGN ? "ignored" : action.sa_handler == SIG_DFL ? "default" : "handler");
    MUST(sigaction(SIGHUP, NULL, &action));
    say("HUP %s", action.sa_handler == SIG_IGN ? "ignored" : action.sa_handler == SIG_DFL ? "default" : "handler");
    stack_t stack;
    MUST(sigaltstack(NULL, &stack));
    say("altstack %s", stack.ss_flags & SS_DISABLE ? "off" : "on");
    MUST(prctl(PR_GET_NAME, name));
    say("name '%s'", name);
    for (int fd = 10; fd < 14; fd++)
        SHOW(fstat(fd, &st));
    struct itimerval timer;
    MUST(getitimer(ITIMER_REAL, &timer));
    say("itimer %s", timer.it_value.tv_sec ? "runs" : "off");
    say("umask %03o", umask(022));
    char cwd[64];
    say("cwd %s", getcwd(cwd, sizeof cwd));
    SHOW(prctl(PR_GET_DUMPABLE));
    SHOW(prctl(PR_GET_KEEPCAPS));
    return 0;
}

static void run(const char *what, const char *path, char **argv, char **env)
{
    reap(what, CHILD(execve(path, argv, env); say("execve: %s", error_name(errno)); _exit(111)));
}

#define LIST(...) ((char *[]){__VA_ARGS__, NULL})
#define NONE ((char *[]){NULL})

static void arguments(const char *self)
{
    CASE("arguments and environment");
    run("plain", self, LIST("me", "shown", "", "two words", "\xff\xfe"), LIST("A=1", "B=", "noequals"));
    run("empty environment", self, LIST("me", "shown"), NONE);
    run("NULL environment", self, LIST("me", "shown"), NULL);
    char *large = malloc(100001);
    memset(large, 'x', 100000);
    large[100000] = 0;
    run("long argument", self, LIST("me", "length", large), NONE);
    char *many[3003] = {"me", "count"};
    for (int i = 2; i < 3002; i++)
        many[i] = "arg";
    run("many arguments", self, many, NONE);
    large = realloc(large, 140001);
    memset(large, 'x', 140000);
    large[140000] = 0;
    CASE("E2BIG");
    run("one too long", self, LIST("me", "length", large), NONE);
    char **all = calloc(200, sizeof *all);
    large[100000] = 0;
    for (int i = 0; i < 150; i++)
        all[i] = large;
    run("all too long", self, all, NONE);
}

static void scripts(const char *self)
{
    char text[512];
    CASE("scripts");
    snprintf(text, sizeof text, "#!%s shown\nrubbish\n", self);
    put_file("plain", text, 0755);
    run("plain", "./plain", LIST("zero", "one"), NONE);
    snprintf(text, sizeof text, "#!   %s \t shown  with spaces\t \nrubbish\n", self);
    put_file("spaces", text, 0755);
    run("one argument with spaces", "./spaces", LIST("zero", "one"), NONE);
    put_file("nested", "#!./plain extra\n", 0755);
    run("nested", "./nested", LIST("zero", "one"), NONE);
    put_file("echo", "#!/bin/sh\necho \"$0\" \"$@\"\n", 0755);
    run("sh", "./echo", LIST("zero", "one"), NONE);
    run("empty argv", "./echo", LIST("zero"), NONE);
    put_file("noline", "#!/bin/echo", 0755);
    run("no newline", "./noline", LIST("zero", "one"), NONE);
    put_file("missing", "#!/nonexistent/interpreter\n", 0755);
    run("missing interpreter", "./missing", LIST("zero"), NONE);
    put_file("not-executable", "", 0644);
    put_file("by-it", "#!./not-executable\n", 0755);
    for (int i = 0; i < 2; i++)
        SHOW(execl("./by-it", "by-it", NULL));
    put_file("by-directory", "#!/\n", 0755);
    SHOW(execl("./by-directory", "by-directory", NULL));
    put_file("loop", "#!./loop\n", 0755);
    run("loop", "./loop", LIST("zero"), NONE);
    put_file("empty-line", "#!\n", 0755);
    run("no interpreter", "./empty-line", LIST("zero"), NONE);
    put_file("blank-line", "#!   \n", 0755);
    run("blank interpreter", "./blank-line", LIST("zero"), NONE);
    put_file("four", "#!./nested4\n", 0755);
    put_file("nested2", "#!./nested\n", 0755);
    put_file("nested3", "#!./nested2\n", 0755);
    put_file("nested4", "#!./nested3\n", 0755);
    run("three deep", "./nested2", LIST("zero"), NONE);
    run("four deep", "./nested3", LIST("zero"), NONE);
    run("five deep", "./nested4", LIST("zero"), NONE);
    run("six deep", "./four", LIST("zero"), NONE);
}

static void errors(const char *self)
{
    CASE("errors");
    put_file("text", "echo hello\n", 0755);
    put_file("empty", "", 0755);
    put_file("private", "#!/bin/sh\n", 0644);
    put_file("short-elf", "\177ELF", 0755);
    MUST(mkdir("dir", 0755));
    MUST(mkfifo("fifo", 0755));
    MUST(symlink("self-loop", "self-loop"));
    MUST(symlink(self, "link"));
    run("text", "./text", LIST("x"), NONE);
    run("empty", "./empty", LIST("x"), NONE);
    run("no x bit", "./private", LIST("x"), NONE);
    run("short ELF", "./short-elf", LIST("x"), NONE);
    run("directory", "./dir", LIST("x"), NONE);
    run("fifo", "./fifo", LIST("x"), NONE);
    run("absent", "./absent", LIST("x"), NONE);
    run("not a directory", "./text/x", LIST("x"), NONE);
    run("loop", "./self-loop", LIST("x"), NONE);
    run("no path", "", LIST("x"), NONE);
    run("device", "/dev/null", LIST("x"), NONE);
    run("symlink", "./link", LIST("me", "shown"), NONE);
    run("slash behind a file", "./text/", LIST("x"), NONE);
    run("bad path", (char *)8, LIST("x"), NONE);
    run("bad argv", self, (char **)8, NONE);
    run("bad string", self, LIST("x", (char *)8), NONE);
    run("bad environment", self, LIST("me", "shown"), (char **)16);
    run("execlp of text", "/bin/sh", LIST("sh", "-c", "./text"), NONE);
    SHOW(execveat(AT_FDCWD, self, LIST("x"), NONE, 0x8000));
    SHOW(execveat(77, "x", LIST("x"), NONE, 0));
    SHOW(execveat(77, "", LIST("x"), NONE, AT_EMPTY_PATH));
    SHOW(execveat(AT_FDCWD, "link", LIST("x"), NONE, AT_SYMLINK_NOFOLLOW));
}

static void with_execveat(const char *self)
{
    CASE("execveat and fexecve");
    int fd = MUST(open(self, O_RDONLY | O_CLOEXEC));
    reap("empty path", CHILD(execveat(fd, "", LIST("me", "shown"), NONE, AT_EMPTY_PATH)));
    int path_fd = MUST(open(self, O_PATH | O_CLOEXEC));
    reap("O_PATH", CHILD(fexecve(path_fd, LIST("me", "shown"), NONE)));
    int dir = MUST(open(".", O_RDONLY | O_DIRECTORY));
    reap("relative", CHILD(execveat(dir, "link", LIST("me", "shown"), NONE, 0)));
    close(fd);
    put_file("script", "#! /bin/echo by echo\n", 0755);
    fd = MUST(open("script", O_RDONLY | O_CLOEXEC));
    SHOW(execveat(fd, "", LIST("x"), NONE, AT_EMPTY_PATH));
    close(fd);
    close(path_fd);
    close(dir);
}

/* A file may be open for writing, or be a program under way, but not both. */
static void busy(const char *self)
{
    CASE("ETXTBSY");
    int fd = MUST(open(self, O_WRONLY));
    run("open for writing", self, LIST("me", "shown"), NONE);
    MUST(close(fd));
    struct gate begun = gate_make();
    pid_t pid = CHILD(MUST(fcntl(begun.ends[1], F_SETFD, 0)); MUST(dup2(begun.ends[1], 1));
                      execve(self, LIST("me", "wait"), NONE));
    gate_wait(begun);
    SHOW(open(self, O_RDWR));
    SHOW(open(self, O_RDONLY | O_TRUNC));
    SHOW(truncate(self, 0));
    SHOW_OK(open(self, O_RDONLY));
    kill(pid, SIGKILL);
    reap("running", pid);
    SHOW_OK(open(self, O_RDWR));
}

static void handler(int signo UNUSED) {}

static void kept(const char *self)
{
    CASE("kept and reset");
    reap("state", CHILD({
        sigset_t set = set_of(SIGUSR1);
        MUST(sigprocmask(SIG_BLOCK, &set, NULL));
        raise(SIGUSR1);
        signal(SIGINT, SIG_IGN);
        handle_plain(SIGHUP, handler);
        stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
        MUST(sigaltstack(&stack, NULL));
        prctl(PR_SET_NAME, "renamed");
        int null = MUST(open("/dev/null", O_RDWR));
        MUST(dup2(null, 10));
        MUST(dup3(null, 11, O_CLOEXEC));
        MUST(dup2(null, 12));
        MUST(fcntl(12, F_SETFD, FD_CLOEXEC));
        MUST(dup3(null, 13, O_CLOEXEC));
        MUST(fcntl(13, F_SETFD, 0));
        struct itimerval timer = {.it_value = {1000, 0}};
        MUST(setitimer(ITIMER_REAL, &timer, NULL));
        umask(027);
        chdir("/");
        prctl(PR_SET_DUMPABLE, 0);
        char link[128];
        snprintf(link, sizeof link, "%s/a-name-longer-than-15", scratch_path);
        MUST(symlink(self, link));
        execl(link, "zero", "state", NULL);
    }));
    CASE("pid stays");
    char text[32];
    reap("pid", CHILD(snprintf(text, sizeof text, "%d", getpid()); execl(self, "me", "pid", text, NULL)));
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "count") == 0)
        return say("argc %d", argc), 0;
    if (argc > 1 && strcmp(argv[1], "length") == 0)
        return say("length %zu", strlen(argv[2])), 0;
    if (argc > 1 && strcmp(argv[1], "state") == 0)
        return state();
    if (argc > 1 && strcmp(argv[1], "wait") == 0)
        return (int)write(1, "x", 1) + pause();
    if (argc > 1 && strcmp(argv[1], "pid") == 0)
        return say("the same pid: %s", atoi(argv[2]) == getpid() ? "yes" : "no"), 0;
    if (argc > 1)
        return shown(argc, argv);
    /* Short names, so that the output doesn't depend on where the program stands. */
    scratch();
    int in = MUST(open("/proc/self/exe", O_RDONLY)), out = MUST(open("me", O_WRONLY | O_CREAT, 0755));
    char block[65536];
    ssize_t got;
    while ((got = read(in, block, sizeof block)) > 0)
        NEED(write(out, block, got) == got);
    close(in);
    close(out);
    char self[128];
    snprintf(self, sizeof self, "%s/me", scratch_path);
    arguments(self);
    MUST(symlink("me", "s"));
    scripts("./me");
    errors("./me");
    with_execveat("./me");
    busy("./me");
    kept(self);
    return 0;
}
