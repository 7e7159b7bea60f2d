/* Attacks by interprocess communication, asynchronous I/O and mounts: memory that nobody counts, and calls that
 * do not end. */
#include "hostile.h"

#include <linux/aio_abi.h>
#include <mqueue.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/socket.h>

static void store(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) > 0);
    close(fd);
}

static int ready[2];

static void go(void) { CHECK(write(ready[1], "x", 1) == 1); }

/* The child that `run` is done in must die when it is killed, whatever it is doing since it said `go`. */
static void must_die(void (*run)(void))
{
    int status;
    char byte;
    CHECK(pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        run();
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    sleep(1);
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status));
}

/* `size` bytes that can be read and cost nothing: a file of 16 MiB again and again. */
static char *cheap(size_t size, const void *pattern, size_t unit)
{
    const size_t piece = size < 16 << 20 ? size : 16 << 20;
    int fd = memfd_create("cheap", 0);
    char *base = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(fd >= 0 && base != MAP_FAILED && ftruncate(fd, piece) == 0);
    for (size_t at = 0; at < size; at += piece)
        CHECK(mmap(base + at, piece, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED);
    for (size_t at = 0; at < piece; at += unit)
        memcpy(base + at, pattern, unit);
    close(fd);
    return base;
}

/* The same request over and over: each waits by itself. */
static void aio_polls(void)
{
    aio_context_t ctx = 0;
    int two[2];
    long i;
    CHECK(pipe(two) == 0 && syscall(SYS_io_setup, 8, &ctx) == 0);
    struct iocb cb = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = two[0], .aio_buf = POLLIN};
    struct iocb *list[] = {&cb};
    for (i = 0; i < 100000; i++)
        if (syscall(SYS_io_submit, ctx, 1, list) != 1)
            break;
    printf("%ld polls, errno %d\n", i, errno);
    CHECK(i < 50000 && errno == EAGAIN);
    CHECK(write(two[1], "x", 1) == 1);
    struct io_event events[64];
    CHECK(syscall(SYS_io_getevents, ctx, i < 64 ? i : 64, 64, events, NULL) == (i < 64 ? i : 64));
}

/* Root may set the limit to anything. */
static void aio_limit(void)
{
    aio_context_t ctx;
    long i;
    store("/proc/sys/fs/aio-max-nr", "2147483647");
    for (i = 0; i < 1000; i++) {
        ctx = 0;
        if (syscall(SYS_io_setup, 4000000, &ctx) < 0)
            break;
    }
    printf("%ld contexts, errno %d\n", i, errno);
    CHECK(i < 1000 && (errno == EAGAIN || errno == ENOMEM));
}

static void *scribble(void *arg)
{
    volatile unsigned *ring = arg;
    for (unsigned i = 0;; i++)
        ring[i % 7 + 1] = i * 2654435761u; /* all but its number */
    return NULL;
}

/* Contexts without number, and a ring in which the program writes what it likes. */
static void aio_rings(void)
{
    aio_context_t ctx = 0;
    struct io_event events[16];
    int fd = open("/tmp/ring", O_RDWR | O_CREAT, 0600);
    struct iocb cb = {.aio_lio_opcode = IOCB_CMD_FSYNC, .aio_fildes = fd};
    struct iocb *list[] = {&cb, &cb};
    pthread_t thread;
    long done = 0, i;
    CHECK(syscall(SYS_io_setup, 8, &ctx) == 0);
    CHECK(pthread_create(&thread, NULL, scribble, (void *)ctx) == 0);
    for (i = 0; i < 20000; i++) {
        syscall(SYS_io_submit, ctx, 2L, list);
        struct timespec none = {0, 0};
        done += syscall(SYS_io_getevents, ctx, 0L, 16L, events, &none) > 0;
    }
    CHECK(done > 0);
    for (i = 0; i < 100000; i++) {
        ctx = 0;
        if (syscall(SYS_io_setup, 1, &ctx) < 0)
            break;
    }
    printf("%ld contexts, errno %d\n", i, errno);
    CHECK(i < 100000 && (errno == EAGAIN || errno == ENOMEM));
}

static void submit_much(void)
{
    enum { COUNT = 20000 };
    static struct iocb *list[COUNT];
    aio_context_t ctx = 0;
    int fd = open("/dev/zero", O_RDONLY);
    char *buf = mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iocb cb = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd, .aio_buf = (uintptr_t)buf,
                      .aio_nbytes = 64 << 20};
    for (int i = 0; i < COUNT; i++)
        list[i] = &cb;
    CHECK(syscall(SYS_io_setup, COUNT, &ctx) == 0);
    go();
    syscall(SYS_io_submit, ctx, (long)COUNT, list);
}

static void aio_long(void) { must_die(submit_much); }

static void peek_much(void)
{
    static struct mmsghdr head;
    int two[2];
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, two) == 0 && send(two[0], "x", 1, 0) == 1);
    char *headers = cheap(4096ul << 20, &head, sizeof head);
    go();
    recvmmsg(two[1], (void *)headers, 64u << 20, MSG_PEEK | MSG_DONTWAIT, NULL);
}

static void peek_long(void) { must_die(peek_much); }

/* Sockets in sockets in sockets, and the outermost one is closed. */
static void rights_chain(void)
{
    enum { LENGTH = 3000 };
    int outer[2], inner[2];
    raise_limit(RLIMIT_NOFILE);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, inner) == 0);
    for (int i = 0; i < LENGTH; i++) {
        char control[CMSG_SPACE(2 * sizeof(int))] = {0}, byte = 0;
        struct iovec iov = {&byte, 1};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET, cmsg->cmsg_type = SCM_RIGHTS, cmsg->cmsg_len = CMSG_LEN(sizeof inner);
        CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, outer) == 0);
        memcpy(CMSG_DATA(cmsg), inner, sizeof inner);
        if (sendmsg(outer[0], &msg, 0) < 0) {
            CHECK(errno == ETOOMANYREFS);
            break;
        }
        close(inner[0]), close(inner[1]);
        inner[0] = outer[0], inner[1] = outer[1];
    }
    close(inner[0]), close(inner[1]);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, inner) == 0);
}

static void sem_operations(void)
{
    struct sembuf one = {0, 0, 0};
    char *operations = mmap(NULL, 6ul << 29, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int id = semget(IPC_PRIVATE, 1, 0600);
    CHECK(id >= 0 && operations != MAP_FAILED);
    store("/proc/sys/kernel/sem", "32000 1024000000 2147483647 32000");
    CHECK(semop(id, &one, 1) == 0);
    CHECK(semop(id, (void *)operations, 1u << 29) < 0 && (errno == ENOMEM || errno == E2BIG));
    semctl(id, 0, IPC_RMID);
}

static char *letter;

static void *send_message(void *id)
{
    msgsnd((long)id, letter, 200 << 20, 0);
    return NULL;
}

/* The messages of those who wait for room count, too. */
static void msg_senders(void)
{
    pthread_t thread;
    long id = msgget(IPC_PRIVATE, 0600);
    letter = cheap(256 << 20, &(long){1}, 8);
    store("/proc/sys/kernel/msgmax", "2147483647");
    for (int i = 0; i < 8; i++)
        pthread_create(&thread, NULL, send_message, (void *)id);
    sleep(2);
    msgctl(id, IPC_RMID, NULL);
}

static mqd_t queue;

static void *send_letter(void *unused)
{
    mq_send(queue, letter, 16 << 20, 0);
    return NULL;
}

static void mq_senders(void)
{
    pthread_t thread;
    struct rlimit most = {RLIM_INFINITY, RLIM_INFINITY};
    struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 16 << 20};
    CHECK(setrlimit(RLIMIT_MSGQUEUE, &most) == 0);
    letter = cheap(16 << 20, &(long){0}, 8);
    queue = mq_open("/hostile", O_CREAT | O_RDWR, 0600, &attr);
    CHECK(queue >= 0 && mq_send(queue, letter, 16 << 20, 0) == 0);
    for (int i = 0; i < 100; i++)
        pthread_create(&thread, NULL, send_letter, NULL);
    sleep(3);
    mq_unlink("/hostile");
}

static void datagrams(void)
{
    int two[2], most = 0x3fffffff;
    char *data = cheap(1024ul << 20, &(long){0}, 8);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, two) == 0);
    CHECK(setsockopt(two[0], SOL_SOCKET, SO_SNDBUFFORCE, &most, sizeof most) == 0);
    CHECK(send(two[0], data, 1024ul << 20, MSG_DONTWAIT) < 0 && (errno == ENOBUFS || errno == EMSGSIZE));
}

/* Events with long names in many queues. */
static void inotify_events(void)
{
    char name[300], other[300];
    int dirs[128];
    mkdir("/tmp/watched", 0700);
    CHECK(chdir("/tmp/watched") == 0);
    store("/proc/sys/fs/inotify/max_user_instances", "100000");
    for (int i = 0; i < 128; i++) {
        dirs[i] = inotify_init();
        CHECK(dirs[i] >= 0 && inotify_add_watch(dirs[i], ".", IN_ALL_EVENTS) >= 0);
    }
    memset(name, 'n', 250), memset(other, 'o', 250);
    name[250] = other[250] = 0;
    CHECK(open(name, O_CREAT | O_WRONLY, 0600) >= 0);
    for (int i = 0; i < 4100; i++) {
        rename(name, other);
        rename(other, name);
    }
}

/* Each mount of one doubles what there is. */
static void mounts(void)
{
    char path[64];
    int i;
    CHECK(unshare(CLONE_NEWNS) == 0);
    mkdir("/tmp/tree", 0700);
    CHECK(mount("none", "/tmp/tree", "tmpfs", 0, "") == 0);
    CHECK(mount("none", "/tmp/tree", NULL, MS_SHARED, NULL) == 0);
    for (i = 0; i < 600; i++) {
        sprintf(path, "/tmp/tree/%d", i);
        mkdir(path, 0700);
        if (mount("/tmp/tree", path, NULL, MS_BIND | MS_REC, NULL) < 0)
            break;
    }
    printf("%d, errno %d\n", i, errno);
    CHECK(errno == ENOSPC);
    FILE *file = fopen("/proc/self/mounts", "r");
    int count = 0;
    for (int c; (c = fgetc(file)) != EOF;)
        count += c == '\n';
    printf("%d mounts\n", count);
    CHECK(count <= 1100);
    CHECK(umount2("/tmp/tree", MNT_DETACH) == 0);
}

/* Many mounts at a place with a long name: the text of all of them would fill any memory. */
static void mount_names(void)
{
    static char name[256], buffer[1 << 20];
    int count = 0;
    long size = 0, got;
    memset(name, 'd', 250);
    CHECK(unshare(CLONE_NEWNS) == 0);
    mkdir("/tmp/deep", 0700);
    CHECK(mount("none", "/tmp/deep", "tmpfs", 0, "") == 0 && chdir("/tmp/deep") == 0);
    for (int i = 0; i < 4000; i++)
        CHECK(mkdir(name, 0700) == 0 && chdir(name) == 0);
    while (count < 900 && mount("none", ".", "tmpfs", 0, "") == 0)
        count++;
    CHECK(count > 500);
    int fd = open("/proc/self/mountinfo", O_RDONLY);
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
        size += got;
    printf("%d mounts, %ld MiB of text\n", count, size >> 20);
    CHECK(got == 0 && size > count * 1000000l);
    /* Those that the root does not see cost as much, and say nothing. */
    CHECK(chroot("/proc") == 0);
    lseek(fd = open("/self/mounts", O_RDONLY), 0, SEEK_SET);
    for (size = 0; (got = read(fd, buffer, sizeof buffer)) > 0;)
        size += got;
    CHECK(got == 0 && size < 10000);
}

/* Each instance of devpts counts, and so does a slave whose master has gone. */
static void terminals(void)
{
    char path[64];
    int masters = 0, slaves = 0, fd;
    raise_limit(RLIMIT_NOFILE);
    CHECK(unshare(CLONE_NEWNS) == 0);
    for (int i = 0; i < 4; i++) {
        sprintf(path, "/tmp/pts%d", i);
        mkdir(path, 0700);
        CHECK(mount("none", path, "devpts", 0, "newinstance,ptmxmode=0666") == 0);
        strcat(path, "/ptmx");
        for (int n = 0; n < 1500 && open(path, O_RDWR | O_NOCTTY) >= 0; n++)
            masters++;
    }
    printf("%d masters, errno %d\n", masters, errno);
    CHECK(masters <= 4096 && errno == ENOSPC);
    while ((fd = open("/dev/ptmx", O_RDWR | O_NOCTTY)) >= 0) {
        int unlocked = 0;
        CHECK(ioctl(fd, TIOCSPTLCK, &unlocked) == 0 && ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY) >= 0);
        close(fd);
        slaves++;
        CHECK(slaves <= 4096);
    }
    printf("%d slaves, errno %d\n", slaves, errno);
    CHECK(slaves > 500 && errno == ENOSPC);
}

static const struct attack attacks[] = {
    {"aio_polls", aio_polls}, {"aio_limit", aio_limit}, {"aio_rings", aio_rings}, {"aio_long", aio_long},
    {"peek_long", peek_long},
    {"rights_chain", rights_chain}, {"sem_operations", sem_operations}, {"msg_senders", msg_senders},
    {"mq_senders", mq_senders}, {"datagrams", datagrams}, {"inotify_events", inotify_events}, {"mounts", mounts},
    {"mount_names", mount_names}, {"terminals", terminals}, {NULL, NULL}};

int main(int argc, char **argv) { return run_attack(attacks, argc, argv); }
