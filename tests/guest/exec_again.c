/* The same program executed many times: each run is a new one, with everything of its own but the files. */
#include "check.h"

#define RUNS 40

/* What /bin/cat prints of `file` in its own /proc entry. */
static char *cat_self(const char *file, size_t *size)
{
    static char text[65536];
    int ends[2], status;
    size_t done = 0;
    ssize_t got;
    pid_t pid;
    MUST(pipe(ends));
    pid = CHILD(dup2(ends[1], 1); execl("/bin/cat", "cat", file, NULL); _exit(111));
    close(ends[1]);
    while ((got = read(ends[0], text + done, sizeof text - 1 - done)) > 0)
        done += (size_t)got;
    close(ends[0]);
    MUST(waitpid(pid, &status, 0));
    NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    text[done] = 0;
    if (size)
        *size = done;
    return text;
}

/* Of the mappings with a file: protection and name; and where the stack is. */
static void digest(const char *maps, char *out, size_t room, unsigned long *stack)
{
    size_t used = 0;
    char copy[65536], *line, *rest = copy;
    strcpy(copy, maps);
    out[0] = 0;
    while ((line = strsep(&rest, "\n")) && *line) {
        unsigned long start;
        char prot[8], name[256] = "";
        NEED(sscanf(line, "%lx-%*x %7s %*s %*s %*s %255s", &start, prot, name) >= 2);
        if (!strcmp(name, "[stack]"))
            *stack = start;
        if (name[0] == '/')
            used += (size_t)snprintf(out + used, room - used, "%s %s;", prot, name);
    }
}

static void maps(void)
{
    static char first[16384], now[16384];
    unsigned long stack = 0, before = 0;
    int same = 0, moved = 0;
    CASE("maps");
    digest(cat_self("/proc/self/maps", NULL), first, sizeof first, &before);
    for (int i = 0; i < RUNS; i++) {
        digest(cat_self("/proc/self/maps", NULL), now, sizeof now, &stack);
        same += !strcmp(first, now);
        moved += stack != before;
        before = stack;
    }
    say("same files %d of %d", same, RUNS);
    SHOW_IF(moved > RUNS / 2);
}

/* AT_RANDOM's bytes lie elsewhere each time, and the vector leads to the program's own headers. */
static void vectors(void)
{
    int whole = 0;
    CASE("auxiliary vectors");
    for (int i = 0; i < RUNS; i++) {
        size_t size;
        char *text = cat_self("/proc/self/auxv", &size);
        unsigned long *words = (unsigned long *)text;
        bool random = false, headers = false, end = false;
        for (size_t at = 0; at + 1 < size / 8; at += 2) {
            random |= words[at] == 25 && words[at + 1];
            headers |= words[at] == 3 && words[at + 1];
            end |= words[at] == 0;
        }
        whole += random && headers && end;
    }
    say("whole %d of %d", whole, RUNS);
}

static void arguments(void)
{
    int right = 0;
    CASE("arguments and environment");
    for (int i = 0; i < RUNS; i++) {
        char script[64], variable[32], number[16];
        int status;
        pid_t pid;
        snprintf(script, sizeof script, "test \"$1$V\" = %d%d && exit %d", i, 2 * i, i);
        snprintf(variable, sizeof variable, "V=%d", 2 * i);
        snprintf(number, sizeof number, "%d", i);
        pid = CHILD(execle("/bin/sh", "sh", "-c", script, "sh", number, NULL, (char *[]){variable, NULL}));
        MUST(waitpid(pid, &status, 0));
        right += WIFEXITED(status) && WEXITSTATUS(status) == i;
    }
    say("right %d of %d", right, RUNS);
}

/* A run has the limits of whoever executes it. */
static void limits(void)
{
    struct rlimit little;
    int killed = 0, status;
    CASE("limits");
    MUST(getrlimit(RLIMIT_AS, &little));
    for (int i = 0; i < 4; i++) {
        pid_t pid = CHILD(little.rlim_cur = 1 << 16; MUST(setrlimit(RLIMIT_AS, &little));
                          execl("/bin/cat", "cat", "/dev/null", NULL); _exit(111));
        MUST(waitpid(pid, &status, 0));
        killed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    say("failed %d of 4", killed);
}

int main(void)
{
    maps();
    vectors();
    arguments();
    limits();
    return 0;
}
