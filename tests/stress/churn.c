/* Threads, forks, signals and execs at the same time, again and again.
 *
 *   churn ITERATIONS SEED
 *
 * Each iteration is a process whose threads compute, sleep on pipes and futexes, signal each other, fork, and
 * execute; it ends in one of several ways while they are at it.  Whatever has a result is checked.  The program
 * prints one line at the end; a hang is for whoever started it to notice.
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
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 6
#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
            abort();                                                                          \
        }                                                                                     \
    } while (0)

static atomic_int signals_seen, stop;
static pthread_t threads[THREADS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned shared_count;

static unsigned next(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 16;
}

static void on_signal(int signo)
{
    int saved = errno;
    (void)signo;
    atomic_fetch_add(&signals_seen, 1);
    getppid();
    errno = saved;
}

static ssize_t all(ssize_t (*call)(), int fd, void *buffer, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = call(fd, (char *)buffer + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static pid_t wait_for(pid_t pid, int *status)
{
    pid_t r;
    do
        r = waitpid(pid, status, 0);
    while (r < 0 && errno == EINTR);
    return r;
}

static void with_pipe(unsigned *seed)
{
    unsigned char out[5000], in[5000];
    int two[2];
    size_t size = 1 + next(seed) % sizeof out;
    memset(out, (int)next(seed), size);
    CHECK(pipe(two) == 0);
    CHECK(all((ssize_t(*)())write, two[1], out, size) == (ssize_t)size);
    CHECK(all((ssize_t(*)())read, two[0], in, size) == (ssize_t)size && memcmp(in, out, size) == 0);
    close(two[0]), close(two[1]);
}

static void with_memory(unsigned *seed)
{
    size_t size = 4096 * (1 + next(seed) % 32);
    volatile unsigned char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED);
    for (size_t i = 0; i < size; i += 4096)
        map[i] = (unsigned char)(i >> 12);
    CHECK(mprotect((void *)map, size, PROT_READ) == 0);
    for (size_t i = 0; i < size; i += 4096)
        CHECK(map[i] == (unsigned char)(i >> 12));
    CHECK(munmap((void *)map, size) == 0);
}

/* vfork and fork; the child's exit status comes through whole, whatever signals arrive. */
static void with_child(unsigned *seed)
{
    int code = (int)(next(seed) % 200), status, how = (int)(next(seed) % 4);
    char text[16];
    pid_t pid;
    snprintf(text, sizeof text, "%d", code);
    pid = how == 0 ? vfork() : fork();
    if (pid == 0) {
        if (how <= 1)
            execl("/proc/self/exe", "churn", "leaf", text, (char *)NULL);
        _exit(code);
    }
    CHECK(pid > 0 && wait_for(pid, &status) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code);
}

static void with_lock(unsigned *seed)
{
    struct timespec until;
    pthread_mutex_lock(&lock);
    shared_count++;
    pthread_cond_broadcast(&changed);
    if (next(seed) % 2) {
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 1000000;
        if (until.tv_nsec >= 1000000000)
            until.tv_sec++, until.tv_nsec -= 1000000000;
        pthread_cond_timedwait(&changed, &lock, &until);
    }
    pthread_mutex_unlock(&lock);
}

static void *nothing(void *argument)
{
    return argument;
}

static void *work(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    double x = (double)(seed % 1000) + 1, product = x * 3.5;
    while (!atomic_load(&stop)) {
        pthread_t other;
        void *back;
        switch (next(&seed) % 8) {
        case 0: with_pipe(&seed); break;
        case 1: with_memory(&seed); break;
        case 2: with_child(&seed); break;
        case 3: with_lock(&seed); break;
        case 4:
            if ((other = threads[next(&seed) % THREADS]))
                pthread_kill(other, SIGUSR1);
            break;
        case 5: kill(getpid(), SIGUSR2); break;
        case 6:
            CHECK(pthread_create(&other, NULL, nothing, &seed) == 0);
            CHECK(pthread_join(other, &back) == 0 && back == &seed);
            break;
        default:
            for (volatile int i = 0; i < 5000; i++)
                ;
        }
        CHECK(x * 3.5 == product);
    }
    return NULL;
}

/* One iteration: how it ended must be how it was meant to. */
static void process(unsigned seed)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = seed % 2 ? SA_RESTART : 0};
    struct itimerval timer = {{0, 3000}, {0, 3000}};
    sigset_t set;
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(seed * 31 + (unsigned)i)) == 0);
    for (int i = 0; i < 4; i++)
        usleep(1000 + seed % 4000);
    switch (seed % 4) {
    case 0:
        atomic_store(&stop, 1);
        for (int i = 0; i < THREADS; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        _exit(40);
    case 1: _exit(41);
    case 2: /* no handlers on the other side */
        sigfillset(&set);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
        execl("/proc/self/exe", "churn", "leaf", "42", (char *)NULL);
        break;
    default: raise(SIGKILL);
    }
    abort();
}

int main(int argc, char **argv)
{
    int iterations = argc > 2 ? atoi(argv[1]) : 0, i;
    unsigned seed = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    if (argc == 3 && strcmp(argv[1], "leaf") == 0)
        return atoi(argv[2]);
    for (i = 0; i < iterations; i++) {
        unsigned mine = next(&seed);
        int status;
        pid_t pid = fork();
        if (pid == 0)
            process(mine);
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        if (mine % 4 == 3)
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        else if (!WIFEXITED(status) || WEXITSTATUS(status) != 40 + (int)(mine % 4)) {
            fprintf(stderr, "iteration %d, seed %u: status %x\n", i, mine, status);
            return 1;
        }
    }
    printf("%d iterations\n", i);
    return 0;
}
