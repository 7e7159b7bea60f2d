/* Threads, forks, execs, signals and terminals, all at once, for some time: storm SECONDS SEED.
 *
 * Each round starts some workers, in sessions of their own, and ends when they and all that they have left behind are
 * gone.  Ten times in all it prints "rest" between two rounds, when there is no other process, and goes on when it
 * gets a byte: time for whoever started it to look at what is left of the rounds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 4
#define THREADS 6
#define RESTS 10
#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
            _exit(99);                                                                        \
        }                                                                                     \
    } while (0)

static unsigned seed;
static const char *self;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turns, ends[2];

static unsigned next(unsigned *state)
{
    *state = *state * 1103515245u + 12345u;
    return *state >> 16;
}

static void on_signal(int signo)
{
    (void)signo;
}

static void handle(int signo)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    CHECK(sigaction(signo, &action, NULL) == 0);
}

static void *busy(void *argument)
{
    unsigned mine = (unsigned)(uintptr_t)argument;
    int i;
    for (i = 0; i < 20; i++) {
        char *page;
        char byte;
        switch (next(&mine) % 6) {
        case 0:
            pthread_mutex_lock(&lock);
            turns++;
            pthread_cond_broadcast(&changed);
            pthread_mutex_unlock(&lock);
            break;
        case 1:
            CHECK(write(ends[1], "x", 1) == 1 && read(ends[0], &byte, 1) == 1);
            break;
        case 2:
            kill(getpid(), SIGUSR1);
            break;
        case 3:
            page = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            CHECK(page != MAP_FAILED);
            memset(page, 1, 65536);
            munmap(page, 65536);
            break;
        case 4:
            if (fork() == 0)
                _exit(7);
            break;
        default:
            usleep(next(&mine) % 300);
        }
    }
    return NULL;
}

static void threads(void)
{
    pthread_t all[THREADS];
    int i;
    CHECK(pipe(ends) == 0);
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_create(all + i, NULL, busy, (void *)(uintptr_t)next(&seed)) == 0);
    if (next(&seed) % 3 == 0)
        _exit(0); /* the others go with it, whatever they do */
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_join(all[i], NULL) == 0);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
}

static void *execute(void *depth)
{
    char number[16];
    snprintf(number, sizeof number, "%d", (int)(uintptr_t)depth);
    execl(self, self, "exec", number, NULL);
    _exit(98);
}

/* From a thread that is not the first, with others about. */
static void exec_chain(int depth)
{
    pthread_t thread, other;
    if (depth == 0)
        _exit(0);
    CHECK(pipe(ends) == 0);
    CHECK(pthread_create(&other, NULL, busy, (void *)(uintptr_t)depth) == 0);
    CHECK(pthread_create(&thread, NULL, execute, (void *)(uintptr_t)(depth - 1)) == 0);
    for (;;)
        pause();
}

static void terminal(void)
{
    static const char text[] = "hello\nworld\n";
    int master = posix_openpt(O_RDWR | O_NOCTTY), status;
    char name[64], got[256];
    size_t have = 0;
    pid_t child;
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    CHECK(ptsname_r(master, name, sizeof name) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char line[64];
        int slave;
        setsid();
        slave = open(name, O_RDWR);
        CHECK(slave >= 0);
        close(master);
        CHECK(write(slave, "go\n", 3) == 3);
        while (read(slave, line, sizeof line) > 0)
            ;
        _exit(1);
    }
    while (have < 4) { /* "go\r\n" */
        ssize_t n = read(master, got + have, sizeof got - have);
        CHECK(n > 0);
        have += n;
    }
    CHECK(write(master, text, sizeof text - 1) == sizeof text - 1);
    if (next(&seed) % 2)
        CHECK(write(master, "\3", 1) == 1); /* VINTR */
    else
        close(master);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && (WTERMSIG(status) == SIGINT || WTERMSIG(status) == SIGHUP));
}

static void signals(void)
{
    const struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    sigset_t all, old;
    int i;
    handle(SIGALRM);
    handle(SIGRTMIN);
    setitimer(ITIMER_REAL, &often, NULL);
    for (i = 0; i < 50; i++)
        CHECK(sigqueue(getpid(), SIGRTMIN, (union sigval){i}) == 0);
    sigfillset(&all);
    CHECK(sigprocmask(SIG_BLOCK, &all, &old) == 0);
    sigdelset(&all, SIGALRM);
    for (i = 0; i < 5; i++)
        sigsuspend(&all);
    setitimer(ITIMER_REAL, &never, NULL);
    CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
}

static void work(void)
{
    int i;
    handle(SIGUSR1);
    for (i = 0; i < 3; i++)
        switch (next(&seed) % 4) {
        case 0: threads(); break;
        case 1: terminal(); break;
        case 2: signals(); break;
        default:
            if (fork() == 0)
                exec_chain(3);
        }
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    _exit(0);
}

static void one_round(void)
{
    pid_t workers[WORKERS], pid;
    int killed = next(&seed) % 3 ? -1 : (int)(next(&seed) % WORKERS), i, status;
    for (i = 0; i < WORKERS; i++) {
        seed += 17;
        workers[i] = fork();
        CHECK(workers[i] >= 0);
        if (workers[i] == 0) {
            setsid();
            work();
        }
    }
    if (killed >= 0) {
        usleep(next(&seed) % 5000);
        if (kill(-workers[killed], SIGKILL) < 0)
            kill(workers[killed], SIGKILL);
    }
    while ((pid = waitpid(-1, &status, 0)) > 0 || errno == EINTR)
        for (i = 0; i < WORKERS && pid > 0; i++)
            if (pid == workers[i] && i != killed)
                CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    double start = now(), seconds;
    int rests = 0, rounds = 0;
    char byte;
    self = argv[0];
    if (argc == 3 && strcmp(argv[1], "exec") == 0)
        exec_chain(atoi(argv[2]));
    CHECK(argc == 3);
    seconds = atof(argv[1]);
    seed = (unsigned)atoi(argv[2]);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    while (rests < RESTS) {
        one_round();
        rounds++;
        if (now() - start < seconds * (rests + 1) / RESTS)
            continue;
        rests++;
        printf("rest %d\n", rounds);
        fflush(stdout);
        CHECK(read(0, &byte, 1) == 1);
    }
    return 0;
}
