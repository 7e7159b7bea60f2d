/* Attacks by time: threads that pull memory, descriptors and each other away under running calls. */
#include "hostile.h"

#include <sys/epoll.h>
#include <sys/prctl.h>

static double started;
static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}
/* How long each race goes on. */
static int over(void) { return now() - started > 1.5; }

static char *volatile shared_page;
static struct iovec vector[64];
static char path[4096];
static volatile int stop;

static void *pull_memory(void *arg)
{
    (void)arg;
    while (!stop) {
        munmap(shared_page, 1 << 20);
        mmap(shared_page, 1 << 20, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(shared_page, 4096, PROT_NONE);
        mprotect(shared_page, 8192, PROT_READ | PROT_WRITE);
        madvise(shared_page, 1 << 20, MADV_DONTNEED);
        mremap(shared_page, 8192, 4096, 0);
    }
    return NULL;
}

static void *change_arguments(void *arg)
{
    (void)arg;
    unsigned i = 0;
    while (!stop) {
        struct iovec *v = &vector[i++ % 64];
        v->iov_base = i & 1 ? (void *)-1l : shared_page;
        v->iov_len = i & 2 ? (size_t)-1 : 4096;
        path[i % 4096] = (char)i;
        path[i % 7] = '/';
    }
    return NULL;
}

static void *use_memory(void *arg)
{
    int two[2], file = open("/tmp/race", O_RDWR | O_CREAT, 0600), zero = open("/dev/zero", O_RDONLY);
    struct stat st;
    (void)arg;
    if (pipe2(two, O_NONBLOCK) < 0)
        return NULL;
    while (!stop) {
        (void)!write(two[1], shared_page, 65536);
        (void)!read(two[0], shared_page, 65536);
        (void)!writev(file, vector, 64);
        (void)!preadv(file, vector, 64, 0);
        (void)!pread(zero, shared_page, 1 << 20, 0);
        stat(path, &st);
        open(shared_page, O_RDONLY | O_DIRECTORY);
        syscall(SYS_getrandom, shared_page, 1 << 20, 0);
        (void)!getcwd(shared_page, 4096);
        syscall(SYS_futex, shared_page, 1, 1, NULL, NULL, 0);
        syscall(SYS_futex, shared_page, 5, 1, 1, shared_page + 4, 0x0f000000);
        syscall(SYS_process_vm_readv, getpid(), vector, 4, vector, 4, 0);
        lseek(file, 0, SEEK_SET);
    }
    return NULL;
}

static void memory(void)
{
    pthread_t threads[6];
    shared_page = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 6; i++)
        pthread_create(&threads[i], NULL, i == 5 ? pull_memory : i < 2 ? change_arguments : use_memory, NULL);
    while (!over())
        usleep(10000);
    stop = 1;
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
}

static void *close_all(void *arg)
{
    (void)arg;
    while (!stop) {
        for (int fd = 3; fd < 40; fd++)
            close(fd);
        for (int fd = 3; fd < 40; fd++)
            dup2(0, fd);
    }
    return NULL;
}

static void *use_descriptors(void *arg)
{
    char buffer[64];
    struct epoll_event e = {EPOLLIN, {0}};
    (void)arg;
    while (!stop) {
        int two[2], ep = epoll_create1(0);
        if (pipe2(two, O_NONBLOCK) < 0)
            continue;
        epoll_ctl(ep, EPOLL_CTL_ADD, two[0], &e);
        (void)!write(two[1], buffer, 64);
        epoll_wait(ep, &e, 1, 1);
        struct timeval tv = {0, 500};
        fd_set set;
        FD_ZERO(&set);
        FD_SET(5, &set);
        select(40, &set, NULL, NULL, &tv);
        (void)!read(two[0], buffer, 64);
        int fd = open("/tmp/race", O_RDWR | O_CREAT, 0600);
        (void)!ftruncate(fd, 100000);
        char *p = mmap(NULL, 100000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        (void)!write(fd, buffer, 64);
        if (p != MAP_FAILED)
            munmap(p, 100000);
        fcntl(fd, F_SETLK, &(struct flock){.l_type = F_WRLCK});
    }
    return NULL;
}

static void descriptors(void)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, i == 0 ? close_all : use_descriptors, NULL);
    while (!over())
        usleep(10000);
    stop = 1;
    usleep(50000);
    _exit(0);
}

static void *thread_forks(void *arg)
{
    for (;;) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        if (pid > 0)
            waitpid(pid, NULL, 0);
        if (arg)
            raw6(SYS_exit, 0, 0, 0, 0, 0, 0);
    }
}

static void *thread_spins(void *arg)
{
    (void)arg;
    for (;;)
        __asm__ volatile("pause");
}

static void *thread_sleeps(void *arg)
{
    (void)arg;
    for (;;)
        pause();
}

static void *thread_reads(void *arg)
{
    int two[2];
    char c;
    (void)arg;
    if (pipe(two) == 0)
        (void)!read(two[0], &c, 1);
    return NULL;
}

static void *thread_execs(void *arg)
{
    (void)arg;
    char *argv[] = {"machine", "again", NULL};
    execv("/proc/self/exe", argv);
    execv("/nonexistent", argv);
    return NULL;
}

static void *thread_kills(void *arg)
{
    (void)arg;
    usleep(2000);
    kill(getpid(), SIGKILL);
    return NULL;
}

static void *thread_vforks(void *arg)
{
    (void)arg;
    for (;;) {
        pid_t pid = vfork();
        if (pid == 0) {
            execl("/nonexistent", "x", (char *)NULL);
            raw6(SYS_kill, raw6(SYS_getpid, 0, 0, 0, 0, 0, 0), SIGKILL, 0, 0, 0, 0);
        }
        if (pid > 0)
            waitpid(pid, NULL, 0);
    }
}

/* All kinds of threads, and one that ends the process in one of several ways. */
static void process_ends(void)
{
    void *(*const work[])(void *) = {thread_forks, thread_spins, thread_sleeps, thread_reads, thread_vforks};
    void *(*const end[])(void *) = {thread_execs, thread_kills, thread_execs};
    for (int round = 0; !over() || round < 12; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            pthread_t t;
            alarm(3);
            for (int i = 0; i < 6; i++)
                pthread_create(&t, NULL, work[(round + i) % 5], NULL);
            usleep((useconds_t)(round * 137 % 3000));
            pthread_create(&t, NULL, end[round % 3], NULL);
            if (round % 4 == 0)
                pthread_create(&t, NULL, end[(round + 1) % 3], NULL);
            if (round % 5 == 0)
                pthread_exit(NULL);
            pause();
        }
        CHECK(pid > 0);
        if (round % 3 == 0)
            usleep(3000), kill(pid, SIGSTOP), kill(pid, SIGCONT), kill(pid, SIGKILL);
        CHECK(waitpid(pid, NULL, 0) == pid);
    }
}

static void signal_storm(void)
{
    pid_t pids[6];
    for (int i = 0; i < 6; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            if (i & 1)
                thread_forks(NULL);
            if (i == 2)
                thread_vforks(NULL);
            thread_spins(NULL);
        }
    }
    for (unsigned n = 0; !over(); n++) {
        static const int signals[] = {SIGSTOP, SIGCONT, SIGTSTP, SIGCONT, SIGUSR1, SIGTTIN, SIGCONT, SIGCHLD, SIGWINCH};
        int i = (int)(n % 6), s = signals[n * 7 % 9];
        if (s == SIGUSR1 && n % 50)
            continue;
        kill(pids[i], s);
        if (n % 31 == 0) {
            int status;
            kill(pids[i], n % 2 ? SIGKILL : SIGSTOP);
            waitpid(pids[i], &status, WUNTRACED | WCONTINUED | WNOHANG);
            kill(pids[i], SIGKILL);
            waitpid(pids[i], &status, 0);
            pids[i] = fork();
            if (pids[i] == 0)
                thread_forks(NULL);
        }
    }
    for (int i = 0; i < 6; i++)
        kill(pids[i], SIGKILL);
    while (wait(NULL) > 0)
        ;
}

static volatile int handled;
static void on_signal(int signo)
{
    handled++;
    if (handled % 3 == 0 && handled < 2000)
        raise(signo);
}

static void *send_signals(void *arg)
{
    pid_t pid = getpid(), tid = (pid_t)(long)arg;
    while (!stop) {
        syscall(SYS_tgkill, pid, tid, SIGUSR1);
        syscall(SYS_tgkill, pid, tid, SIGRTMIN + 3);
        kill(pid, SIGUSR2);
        usleep(300);
    }
    return NULL;
}

static void handlers(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_NODEFER | SA_RESTART};
    pthread_t threads[3];
    char c;
    int two[2];
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigaction(SIGRTMIN + 3, &action, NULL);
    CHECK(pipe(two) == 0);
    raise_limit(RLIMIT_STACK);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, send_signals, (void *)(long)getpid());
    while (!over()) {
        struct timespec ts = {0, 1000};
        nanosleep(&ts, NULL);
        (void)!write(two[1], "x", 1);
        (void)!read(two[0], &c, 1);
        if (fork() == 0)
            _exit(0);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
    stop = 1;
}

static void vforks(void)
{
    for (int i = 0; i < 300; i++) {
        pid_t pid = vfork();
        if (pid == 0) {
            switch (i % 6) {
            case 0: _exit(0);
            case 1: execl("/nonexistent", "x", (char *)NULL); _exit(1);
            case 2: raw6(SYS_kill, raw6(SYS_getpid, 0, 0, 0, 0, 0, 0), SIGKILL, 0, 0, 0, 0); break;
            case 3: *(volatile int *)0 = 0; break;
            case 4: execl("/tmp", "x", (char *)NULL); execl("/etc/passwd", "x", (char *)NULL); _exit(2);
            default: execl("/proc/self/exe", "x", "again", (char *)NULL); _exit(3);
            }
        }
        CHECK(pid > 0);
        waitpid(pid, NULL, 0);
    }
    /* The waiting parent is killed; the child goes on. */
    for (int i = 0; i < 10; i++) {
        pid_t parent = fork();
        if (parent == 0) {
            pid_t me = getpid();
            if (vfork() == 0) {
                raw6(SYS_kill, me, i & 1 ? SIGKILL : SIGSTOP, 0, 0, 0, 0);
                struct timespec ts = {0, 1000000};
                raw6(SYS_nanosleep, (long)&ts, 0, 0, 0, 0, 0);
                _exit(0);
            }
            _exit(0);
        }
        usleep(5000);
        kill(parent, SIGKILL);
        CHECK(waitpid(parent, NULL, 0) == parent);
    }
}

static void hangups(void)
{
    for (int i = 0; i < 40; i++) {
        int master = open("/dev/ptmx", O_RDWR | O_NOCTTY), number = -1, zero = 0;
        char name[32], buffer[4096];
        CHECK(master >= 0);
        ioctl(master, 0x40045431, &zero);
        ioctl(master, 0x80045430, &number);
        snprintf(name, sizeof name, "/dev/pts/%d", number);
        pid_t pid = fork();
        if (pid == 0) {
            setsid();
            int slave = open(name, O_RDWR);
            dup2(slave, 0);
            ioctl(slave, 0x540e, 0);
            if (fork() == 0) {
                setpgid(0, 0);
                (void)!read(slave, buffer, 1); /* background: stopped, later orphaned */
                _exit(0);
            }
            if (i % 3 == 0) {
                setpgid(0, getpid());
                raise(SIGSTOP);
            }
            if (i % 2)
                (void)!read(slave, buffer, sizeof buffer);
            usleep(1000);
            _exit(0);
        }
        usleep(2000);
        memset(buffer, 3, sizeof buffer);
        (void)!write(master, buffer, i % 4 ? 5 : sizeof buffer);
        close(master);
        kill(pid, SIGCONT);
        usleep(1000);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

static void *rename_things(void *arg)
{
    (void)arg;
    while (!stop) {
        rename("/tmp/r/a", "/tmp/r/b");
        rename("/tmp/r/b", "/tmp/r/a");
        unlink("/tmp/r/a/l");
        symlink("..", "/tmp/r/a/l");
        syscall(SYS_renameat2, AT_FDCWD, "/tmp/r/a", AT_FDCWD, "/tmp/r/c", 2);
        rmdir("/tmp/r/c/d");
        mkdir("/tmp/r/c/d", 0700);
    }
    return NULL;
}

static void *walk_things(void *arg)
{
    struct stat st;
    char buffer[4096];
    (void)arg;
    while (!stop) {
        stat("/tmp/r/a/l/a/l/b/l/c/d", &st);
        int fd = open("/tmp/r/a/l/c/d/../f", O_CREAT | O_RDWR, 0600);
        if (fd >= 0) {
            (void)!write(fd, buffer, 100);
            close(fd);
        }
        unlink("/tmp/r/c/f");
        int dir = open("/tmp/r/a", O_RDONLY | O_DIRECTORY);
        if (dir >= 0) {
            syscall(SYS_getdents64, dir, buffer, sizeof buffer);
            fchdir(dir);
            (void)!getcwd(buffer, sizeof buffer);
            close(dir);
        }
    }
    return NULL;
}

static void tree(void)
{
    pthread_t t;
    mkdir("/tmp/r", 0700), mkdir("/tmp/r/a", 0700), mkdir("/tmp/r/c", 0700);
    for (int i = 0; i < 4; i++)
        pthread_create(&t, NULL, i & 1 ? rename_things : walk_things, NULL);
    while (!over())
        usleep(10000);
    _exit(0);
}

static const struct attack attacks[] = {
    {"memory", memory}, {"descriptors", descriptors}, {"process_ends", process_ends}, {"signal_storm", signal_storm},
    {"handlers", handlers}, {"vforks", vforks}, {"hangups", hangups}, {"tree", tree}, {NULL, NULL}};

int main(int argc, char **argv)
{
    started = now();
    return run_attack(attacks, argc, argv);
}
