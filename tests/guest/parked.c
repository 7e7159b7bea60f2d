/* Calls that sleep on pipes and event counters: who wakes them, what interrupts them, and what ends under
 * them. */
#include "parked.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

struct job {
    pthread_t thread;
    volatile pid_t tid;
    int fd;
    ssize_t result;
    int error;
    char data[16];
    const char *out;
    size_t size;
};

static void *reader(void *argument)
{
    struct job *job = argument;
    job->tid = (pid_t)syscall(SYS_gettid);
    job->result = read(job->fd, job->data, sizeof job->data);
    job->error = job->result < 0 ? errno : 0;
    return NULL;
}

static void *writer(void *argument)
{
    struct job *job = argument;
    job->tid = (pid_t)syscall(SYS_gettid);
    job->result = write(job->fd, job->out, job->size);
    job->error = job->result < 0 ? errno : 0;
    return NULL;
}

/* In three pieces, one of them empty. */
static void *vector_writer(void *argument)
{
    struct job *job = argument;
    struct iovec vectors[] = {{(char *)job->out, 10}, {NULL, 0}, {(char *)job->out + 10, job->size - 10}};
    job->tid = (pid_t)syscall(SYS_gettid);
    job->result = writev(job->fd, vectors, 3);
    job->error = job->result < 0 ? errno : 0;
    return NULL;
}

static void start(struct job *job, int fd, void *(*body)(void *))
{
    job->fd = fd;
    memset(job->data, 0, sizeof job->data);
    job->thread = start_parked(body, job, &job->tid);
}

static void finish(const char *what, struct job *job)
{
    pthread_join(job->thread, NULL);
    say("%s: %zd %s \"%.16s\"", what, job->result, job->error ? error_name(job->error) : "-", job->data);
}

static void woken_by_a_write(void)
{
    struct job job = {0};
    int fds[2];
    NEED(pipe(fds) == 0);
    start(&job, fds[0], reader);
    NEED(write(fds[1], "hello", 5) == 5);
    finish("written", &job);
    start(&job, fds[0], reader);
    close(fds[1]);
    finish("no writers", &job);
    close(fds[0]);
}

static void many_readers(void)
{
    struct job jobs[8] = {0};
    int fds[2], total = 0, i;
    NEED(pipe(fds) == 0);
    for (i = 0; i < 8; i++)
        start(&jobs[i], fds[0], reader);
    for (i = 0; i < 4; i++)
        NEED(write(fds[1], "0123456789abcdef", 16) == 16);
    close(fds[1]);
    for (i = 0; i < 8; i++) {
        pthread_join(jobs[i].thread, NULL);
        total += (int)jobs[i].result;
    }
    say("many readers: %d bytes", total);
    close(fds[0]);
}

static char big[200000];

static void long_writes(void)
{
    struct job job = {.out = big, .size = sizeof big};
    static char copy[sizeof big];
    size_t got = 0;
    int fds[2];
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * 7 + i / 251);
    NEED(pipe(fds) == 0);
    start(&job, fds[1], writer);
    while (got < sizeof copy) {
        ssize_t n = read(fds[0], copy + got, 5000);
        NEED(n > 0);
        got += (size_t)n;
    }
    finish("long write", &job);
    say("same bytes: %d", memcmp(big, copy, sizeof big) == 0);

    handle(0);
    start(&job, fds[1], writer);
    pthread_kill(job.thread, SIGUSR1);
    finish("interrupted after some", &job);
    say("signals: %d", (int)signals);
    job.size = 100;
    start(&job, fds[1], writer);
    pthread_kill(job.thread, SIGUSR1);
    finish("interrupted before any", &job);
    handle(SA_RESTART);
    start(&job, fds[1], writer);
    pthread_kill(job.thread, SIGUSR1);
    while (!signals)
        sched_yield();
    NEED(read(fds[0], copy, 65536) == 65536);
    finish("restarted", &job);

    signal(SIGPIPE, SIG_IGN);
    job.size = sizeof big;
    start(&job, fds[1], writer);
    close(fds[0]);
    finish("readers gone after some", &job);
    close(fds[1]);

    NEED(pipe(fds) == 0);
    NEED(write(fds[1], big, 65536) == 65536);
    start(&job, fds[1], writer);
    close(fds[0]);
    finish("readers gone before any", &job);
    close(fds[1]);
    signal(SIGPIPE, SIG_DFL);
}

static void vectors(void)
{
    struct job job = {.out = big, .size = 50000};
    static char copy[sizeof big];
    int fds[2];
    NEED(pipe(fds) == 0);
    NEED(write(fds[1], big, 40000) == 40000);
    start(&job, fds[1], vector_writer);
    NEED(read(fds[0], copy, 40000) == 40000);
    finish("writev", &job);
    NEED(read(fds[0], copy, sizeof copy) == 50000);
    say("same bytes: %d", memcmp(big, copy, 50000) == 0);

    handle(0);
    NEED(write(fds[1], big, 40000) == 40000);
    start(&job, fds[1], vector_writer);
    pthread_kill(job.thread, SIGUSR1);
    finish("writev interrupted after some", &job);
    start(&job, fds[1], vector_writer);
    pthread_kill(job.thread, SIGUSR1);
    finish("writev interrupted before any", &job);
    close(fds[0]);
    close(fds[1]);
}

static void signals_and_reads(void)
{
    struct job job = {0};
    int fds[2];
    NEED(pipe(fds) == 0);
    handle(0);
    start(&job, fds[0], reader);
    pthread_kill(job.thread, SIGUSR1);
    finish("EINTR", &job);
    handle(SA_RESTART);
    start(&job, fds[0], reader);
    pthread_kill(job.thread, SIGUSR1);
    while (!signals)
        sched_yield();
    until_asleep(job.tid);
    NEED(write(fds[1], "again", 5) == 5);
    finish("restarted", &job);
    close(fds[0]);
    close(fds[1]);
}

static void closed_meanwhile(void)
{
    struct job job = {0};
    int fds[2], extra;
    NEED(pipe(fds) == 0);
    start(&job, fds[0], reader);
    close(fds[0]);
    NEED(write(fds[1], "held", 4) == 4);
    finish("closed", &job);
    signal(SIGPIPE, SIG_IGN);
    SHOW(write(fds[1], "x", 1));
    signal(SIGPIPE, SIG_DFL);
    close(fds[1]);

    NEED(pipe(fds) == 0);
    start(&job, fds[0], reader);
    extra = open("/dev/zero", O_RDONLY);
    NEED(dup2(extra, fds[0]) == fds[0]);
    NEED(write(fds[1], "old file", 8) == 8);
    finish("replaced", &job);
    say("and the new one: %zd", read(fds[0], job.data, 3));
    close(extra);
    close(fds[0]);
    close(fds[1]);

    NEED(pipe(fds) == 0);
    handle(0);
    start(&job, fds[0], reader);
    close(fds[0]);
    pthread_kill(job.thread, SIGUSR1);
    finish("closed and interrupted", &job);
    close(fds[1]);

    NEED(pipe(fds) == 0);
    start(&job, fds[0], reader);
    extra = open("/dev/zero", O_RDONLY);
    NEED(dup2(extra, fds[0]) == fds[0]);
    pthread_kill(job.thread, SIGUSR1);
    finish("replaced and interrupted", &job);
    close(extra);
    close(fds[0]);
    close(fds[1]);

    NEED(pipe(fds) == 0);
    extra = dup(fds[0]);
    start(&job, extra, reader);
    close(extra);
    close(fds[0]);
    close(fds[1]);
    finish("all closed", &job);
}

static void fork_while_parked(void)
{
    struct job job = {0};
    int fds[2], status;
    pid_t child;
    NEED(pipe(fds) == 0);
    start(&job, fds[0], reader);
    child = fork();
    if (child == 0) {
        NEED(write(fds[1], "child", 5) == 5);
        _exit(7);
    }
    finish("written by a child", &job);
    NEED(waitpid(child, &status, 0) == child);
    say("status %x", status);
    close(fds[0]);
    close(fds[1]);
}

static void ends_with_parked_threads(void)
{
    int fds[2], status, i;
    pid_t child;
    NEED(pipe(fds) == 0);
    child = fork();
    if (child == 0) {
        static struct job jobs[4];
        for (i = 0; i < 4; i++)
            start(&jobs[i], fds[0], reader);
        exit(3);
    }
    NEED(waitpid(child, &status, 0) == child);
    say("exit_group: %x", status);
    child = fork();
    if (child == 0) {
        char byte;
        ssize_t n = read(fds[0], &byte, 1);
        _exit(n < 0);
    }
    until_asleep(child);
    kill(child, SIGKILL);
    NEED(waitpid(child, &status, 0) == child);
    say("killed: %x", status);
    child = fork();
    if (child == 0) {
        static struct job jobs[2];
        for (i = 0; i < 2; i++)
            start(&jobs[i], fds[0], reader);
        execl("/bin/true", "true", (char *)NULL);
        _exit(9);
    }
    NEED(waitpid(child, &status, 0) == child);
    say("execve: %x", status);
    close(fds[0]);
    close(fds[1]);
}

static void stopped(void)
{
    int fds[2], status;
    pid_t child;
    char byte = 0;
    NEED(pipe(fds) == 0);
    child = fork();
    if (child == 0) {
        NEED(read(fds[0], &byte, 1) == 1);
        _exit(byte);
    }
    until_asleep(child);
    kill(child, SIGSTOP);
    NEED(waitpid(child, &status, WUNTRACED) == child);
    say("stopped: %x", status);
    NEED(write(fds[1], "\5", 1) == 1);
    kill(child, SIGCONT);
    NEED(waitpid(child, &status, 0) == child);
    say("went on: %x", status);
    close(fds[0]);
    close(fds[1]);
}

static void *ponger(void *argument)
{
    int *fds = argument;
    char byte;
    while (read(fds[0], &byte, 1) == 1) {
        byte++;
        NEED(write(fds[3], &byte, 1) == 1);
    }
    return NULL;
}

static void ping_pong(void)
{
    int fds[4], i, wrong = 0, status;
    pthread_t thread;
    pid_t child;
    char byte;
    NEED(pipe(fds) == 0 && pipe(fds + 2) == 0);
    pthread_create(&thread, NULL, ponger, fds);
    for (i = 0; i < 1000; i++) {
        byte = (char)i;
        NEED(write(fds[1], &byte, 1) == 1);
        NEED(read(fds[2], &byte, 1) == 1);
        wrong += byte != (char)(i + 1);
    }
    child = fork();
    if (child == 0) {
        close(fds[1]);
        ponger(fds);
        _exit(0);
    }
    for (i = 0; i < 1000; i++) {
        byte = (char)i;
        NEED(write(fds[1], &byte, 1) == 1);
        NEED(read(fds[2], &byte, 1) == 1);
        wrong += byte != (char)(i + 1);
    }
    close(fds[1]);
    NEED(waitpid(child, &status, 0) == child);
    pthread_join(thread, NULL);
    say("ping-pong: %d wrong, status %x", wrong, status);
}

static void event_counters(void)
{
    struct job job = {0};
    uint64_t value = 3, most = UINT64_MAX - 1;
    int fd = eventfd(0, 0), i;
    start(&job, fd, reader);
    NEED(write(fd, &value, 8) == 8);
    pthread_join(job.thread, NULL);
    memcpy(&value, job.data, 8);
    say("eventfd: %zd %llu", job.result, (unsigned long long)value);

    NEED(write(fd, &most, 8) == 8);
    value = 5;
    job.out = (char *)&value;
    job.size = 8;
    start(&job, fd, writer);
    NEED(read(fd, &most, 8) == 8);
    finish("writer had to wait", &job);
    NEED(read(fd, &most, 8) == 8);
    say("then: %llu", (unsigned long long)most);
    close(fd);

    fd = eventfd(0, EFD_SEMAPHORE);
    for (i = 0; i < 3; i++) {
        struct job waiter = {0};
        start(&waiter, fd, reader);
        value = 1;
        NEED(write(fd, &value, 8) == 8);
        pthread_join(waiter.thread, NULL);
        memcpy(&value, waiter.data, 8);
        say("semaphore: %zd %llu", waiter.result, (unsigned long long)value);
    }
    handle(0);
    start(&job, fd, reader);
    pthread_kill(job.thread, SIGUSR1);
    finish("eventfd EINTR", &job);
    close(fd);
}

static void fifos(void)
{
    struct job job = {0};
    char path[64];
    int in, out;
    snprintf(path, sizeof path, "/tmp/parked-%d", getpid());
    NEED(mkfifo(path, 0600) == 0);
    in = open(path, O_RDONLY | O_NONBLOCK);
    out = open(path, O_WRONLY);
    NEED(in >= 0 && out >= 0);
    NEED(fcntl(in, F_SETFL, 0) == 0);
    start(&job, in, reader);
    NEED(write(out, "fifo", 4) == 4);
    finish("fifo", &job);
    start(&job, in, reader);
    close(out);
    finish("fifo without writers", &job);
    close(in);
    unlink(path);
}

static void bad_buffers(void)
{
    int fds[2];
    char byte[4];
    NEED(pipe(fds) == 0);
    NEED(write(fds[1], "data", 4) == 4);
    SHOW(write(fds[1], BAD, 4));
    SHOW(read(fds[0], (void *)-8, 4));
    say("still there: %zd", read(fds[0], byte, 4));
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    woken_by_a_write();
    many_readers();
    long_writes();
    vectors();
    signals_and_reads();
    closed_meanwhile();
    fork_while_parked();
    ends_with_parked_threads();
    stopped();
    ping_pong();
    event_counters();
    fifos();
    bad_buffers();
    return 0;
}
