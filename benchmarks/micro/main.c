/* The frame: finds each operation by its name, finds out how many make a batch, and times batches. */
#define _GNU_SOURCE
#include "micro.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_BATCHES 100
#define LONGEST_COUNT 100000000L

static const struct operation *const tables[] = {call_operations,    file_operations, memory_operations,
                                                 process_operations, wait_operations, socket_operations};
static const char *prefix, *running;
static jmp_buf skipped;
static pid_t child;

const char *own_path;
char block[65536];

const char *temporary(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s%s", prefix, name);
    return path;
}

static void report(const char *verdict, const char *what)
{
    printf("%s %s %s: %s\n", running, verdict, what, strerror(errno));
    fflush(stdout);
}

void fail(const char *what)
{
    report("fail", what);
    if (child > 0)
        kill(child, SIGKILL);
    _exit(1);
}

void skip(const char *what)
{
    report("skip", what);
    longjmp(skipped, 1);
}

void start_child(void (*serve)(void))
{
    child = fork();
    MUST(child >= 0);
    if (child == 0) {
        serve();
        _exit(0);
    }
}

void stop_child(void)
{
    MUST(waitpid(child, NULL, 0) == child);
    child = 0;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static double batch(const struct operation *op, long count)
{
    double start = now();
    for (long i = 0; i < count; i++)
        op->run();
    return now() - start;
}

/* How many operations take about `ns`; the runs that find it out also warm up what they use. */
static long calibrate(const struct operation *op, double ns)
{
    for (long count = 1;;) {
        double took = batch(op, count);
        double factor = took > 0 ? 1.1 * ns / took : 10;
        if (took >= 0.8 * ns || count >= LONGEST_COUNT)
            return count;
        count = (long)((double)count * (factor < 10 ? factor : 10)) + 1;
    }
}

static void measure(const struct operation *op, double batch_ns, int batches)
{
    double each[MOST_BATCHES];
    running = op->name;
    if (setjmp(skipped))
        return;
    if (op->setup)
        op->setup();
    long count = calibrate(op, batch_ns);
    for (int i = 0; i < batches; i++)
        each[i] = batch(op, count) / (double)count;
    if (op->teardown)
        op->teardown();
    printf("%s ok", op->name);
    for (int i = 0; i < batches; i++)
        printf(" %.2f", each[i]);
    printf("\n");
    fflush(stdout);
}

static const struct operation *find(const char *name)
{
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct operation *op = tables[i]; op->name; op++)
            if (strcmp(op->name, name) == 0)
                return op;
    return NULL;
}

/* Times a whole program from within the sandbox, so that the sandbox's own start doesn't count. */
static int time_command(char **argv)
{
    int status;
    pid_t pid;
    double start = now();
    if ((errno = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ)) != 0 || waitpid(pid, &status, 0) != pid) {
        perror(argv[0]);
        return 127;
    }
    printf("elapsed %.0f\n", now() - start);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "time") == 0)
        return time_command(argv + 2);
    if (argc == 2 && strcmp(argv[1], "exit") == 0)
        _exit(0);
    if (argc < 5) {
        fprintf(stderr, "usage: micro PREFIX BATCH_MS BATCHES OPERATION...\n");
        return 2;
    }
    own_path = argv[0];
    prefix = argv[1];
    double batch_ns = atof(argv[2]) * 1e6;
    int batches = atoi(argv[3]);
    if (batches < 1 || batches > MOST_BATCHES)
        batches = 3;
    for (int i = 4; i < argc; i++) {
        const struct operation *op = find(argv[i]);
        if (op)
            measure(op, batch_ns, batches);
        else
            printf("%s fail no such operation\n", argv[i]);
    }
    return 0;
}
