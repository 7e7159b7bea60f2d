/*
 * One operation after the other, best of three batches, nanoseconds each: `syscalls [SCALE]`.
 * Runs natively and in a sandbox alike; benchmarks/syscalls.py sets the two side by side.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int null_fd, zero_fd, file_fd, event_fd, epoll_fd, ends[2], back[2];
static char block[65536], path[64];

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void op_getppid(void) { getppid(); }
static void op_getppid_generic(void) { syscall(SYS_getppid); }
static void op_clock_gettime(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); }
static void op_read_zero(void) { if (read(zero_fd, block, 1) != 1) abort(); }
static void op_write_null(void) { if (write(null_fd, block, 1) != 1) abort(); }
static void op_lseek(void) { lseek(file_fd, 0, SEEK_SET); }
static void op_fstat(void) { struct stat st; fstat(file_fd, &st); }
static void op_pread_4k(void) { if (pread(file_fd, block, 4096, 0) != 4096) abort(); }
static void op_pread_64k(void) { if (pread(file_fd, block, 65536, 0) != 65536) abort(); }
static void op_pwrite_4k(void) { if (pwrite(file_fd, block, 4096, 0) != 4096) abort(); }
static void op_open_close(void) { close(open(path, O_RDONLY)); }
static void op_stat(void) { struct stat st; stat(path, &st); }
static void op_stat_enoent(void) { struct stat st; stat("/tmp/no-such-file", &st); }
static void op_sigprocmask(void) { sigset_t set; sigprocmask(SIG_BLOCK, NULL, &set); }
static void op_futex_wake(void) { static int word; syscall(SYS_futex, &word, 129, 1, 0, 0, 0); }
static void op_sched_yield(void) { sched_yield(); }
static void op_dup_close(void) { close(dup(null_fd)); }

static void op_create_unlink(void)
{
    close(open("/tmp/bench-new", O_WRONLY | O_CREAT, 0644));
    unlink("/tmp/bench-new");
}

static void op_mmap_munmap(void)
{
    munmap(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 65536);
}

static void op_anon_fault(void)
{
    char *at = mmap(NULL, 512 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 512; i++)
        at[i * 4096] = 1;
    munmap(at, 512 * 4096);
}

static void op_pipe_write_read(void)
{
    if (write(ends[1], block, 1) != 1 || read(ends[0], block, 1) != 1)
        abort();
}

static void op_eventfd(void)
{
    unsigned long value = 1;
    if (write(event_fd, &value, 8) != 8 || read(event_fd, &value, 8) != 8)
        abort();
}

static void op_epoll_wait(void)
{
    struct epoll_event event;
    epoll_wait(epoll_fd, &event, 1, 0);
}

static void on_signal(int signo) { (void)signo; }
static void op_signal(void) { raise(SIGUSR1); }

static void op_fork_exit_wait(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
}

static void op_spawn_exec_wait(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/bin/true", "true", NULL);
        _exit(1);
    }
    waitpid(pid, NULL, 0);
}

static void *nothing(void *arg) { return arg; }

static void op_thread(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, nothing, NULL);
    pthread_join(thread, NULL);
}

static pid_t echoer;

static void op_pipe_pingpong(void)
{
    if (write(ends[1], block, 1) != 1 || read(back[0], block, 1) != 1)
        abort();
}

static void op_cpu(void)
{
    for (volatile int i = 0; i < 1000000; i++)
        ;
}

static const struct {
    const char *name;
    void (*run)(void);
    int count;
} operations[] = {
    {"cpu_loop_1M", op_cpu, 20},
    {"getppid", op_getppid, 10000},
    {"getppid_generic", op_getppid_generic, 10000},
    {"clock_gettime", op_clock_gettime, 100000},
    {"sched_yield", op_sched_yield, 5000},
    {"read_zero_1", op_read_zero, 5000},
    {"write_null_1", op_write_null, 5000},
    {"lseek", op_lseek, 5000},
    {"fstat", op_fstat, 5000},
    {"pread_4k", op_pread_4k, 5000},
    {"pread_64k", op_pread_64k, 2000},
    {"pwrite_4k", op_pwrite_4k, 2000},
    {"open_close", op_open_close, 1000},
    {"stat", op_stat, 2000},
    {"stat_enoent", op_stat_enoent, 2000},
    {"create_unlink", op_create_unlink, 500},
    {"dup_close", op_dup_close, 2000},
    {"mmap_munmap", op_mmap_munmap, 1000},
    {"anon_fault", op_anon_fault, 10},
    {"signal_self", op_signal, 1000},
    {"sigprocmask", op_sigprocmask, 5000},
    {"futex_wake_none", op_futex_wake, 5000},
    {"pipe_write_read_1", op_pipe_write_read, 2000},
    {"eventfd_write_read", op_eventfd, 2000},
    {"epoll_wait_ready", op_epoll_wait, 5000},
    {"thread_create_join", op_thread, 200},
    {"fork_exit_wait", op_fork_exit_wait, 50},
    {"spawn_exec_wait", op_spawn_exec_wait, 20},
    {"pipe_pingpong", op_pipe_pingpong, 1000},
};

int main(int argc, char **argv)
{
    double scale = argc > 1 ? atof(argv[1]) : 1;
    null_fd = open("/dev/null", O_RDWR);
    zero_fd = open("/dev/zero", O_RDONLY);
    snprintf(path, sizeof path, "/tmp/bench-%d", getpid());
    file_fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    event_fd = eventfd(0, 0);
    epoll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    int ready = eventfd(1, 0);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ready, &event);
    signal(SIGUSR1, on_signal);
    if (file_fd < 0 || write(file_fd, block, sizeof block) != sizeof block || pipe(ends) || pipe(back))
        return 1;
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (operations[i].run == op_pipe_pingpong && (echoer = fork()) == 0) {
            char byte;
            while (read(ends[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
                ;
            _exit(0);
        }
        int count = operations[i].count * scale;
        if (count < 1)
            count = 1;
        double best = 1e18;
        for (int batch = 0; batch < 3; batch++) {
            double start = now();
            for (int j = 0; j < count; j++)
                operations[i].run();
            double each = (now() - start) / count;
            if (each < best)
                best = each;
        }
        printf("%s %.0f\n", operations[i].name, best);
        fflush(stdout);
    }
    kill(echoer, SIGKILL);
    waitpid(echoer, NULL, 0);
    unlink(path);
    return 0;
}
