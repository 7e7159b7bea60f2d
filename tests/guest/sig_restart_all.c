/* Which of the other sleeping calls a handler ends, with and without SA_RESTART. */
#include "check.h"

#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>

static volatile sig_atomic_t calls;

static void count(int signo UNUSED)
{
    /* The third one jumps out of what has been restarted twice. */
    calls++;
}

static void alarms(int flags, bool on)
{
    struct sigaction action = {.sa_handler = count, .sa_flags = flags};
    MUST(sigaction(SIGALRM, &action, NULL));
    struct itimerval timer = {{0, 0}, {0, on ? 40000 : 0}};
    calls = 0;
    MUST(setitimer(ITIMER_REAL, &timer, NULL));
}

static pid_t helper_pid;
static void (*release)(void);
static int fds[2];

/* After 150 ms somebody else lets the call end: a restarted one comes to its end by that, another has ended before. */
static void *releases(void *unused)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    usleep(150000);
    release();
    return unused;
}

#define TRY(how, ...)                                                                              \
    do {                                                                                           \
        for (int flags_ = 0; flags_ <= SA_RESTART; flags_ += SA_RESTART) {                         \
            pthread_t thread_;                                                                     \
            release = how;                                                                         \
            pthread_create(&thread_, NULL, releases, NULL);                                        \
            alarms(flags_, true);                                                                  \
            errno = 0;                                                                             \
            long result_ = (long)(__VA_ARGS__);                                                    \
            int error_ = errno;                                                                    \
            pthread_join(thread_, NULL);                                                           \
            alarms(flags_, false);                                                                 \
            drain();                                                                               \
            say("%s %s: %ld %s", flags_ ? "restart" : "plain", #__VA_ARGS__, result_,              \
                result_ < 0 ? error_name(error_) : "");                                            \
        }                                                                                          \
    } while (0)

static char buffer[65536];
static int drain_fd = -1;

static void drain(void)
{
    if (drain_fd < 0)
        return;
    int flags = fcntl(drain_fd, F_GETFL);
    fcntl(drain_fd, F_SETFL, flags | O_NONBLOCK);
    while (read(drain_fd, buffer, sizeof buffer) > 0)
        ;
    fcntl(drain_fd, F_SETFL, flags);
}

static void write_byte(void)
{
    MUST(write(fds[1], "12345678", 8));
}

static void nobody(void) {}

static fd_set *only(fd_set *set)
{
    FD_ZERO(set);
    FD_SET(fds[0], set);
    return set;
}

static void descriptors(void)
{
    CASE("eventfd, timerfd, signalfd, inotify");
    fds[0] = fds[1] = drain_fd = MUST(eventfd(0, 0));
    TRY(write_byte, read(fds[0], buffer, 8));
    close(fds[0]);
    int timer = drain_fd = MUST(timerfd_create(CLOCK_MONOTONIC, 0));
    struct itimerspec soon = {{0, 0}, {0, 150000000}};
    TRY(nobody, timerfd_settime(timer, 0, &soon, NULL) + read(timer, buffer, 8));
    close(timer);
    drain_fd = -1;
    CASE("poll and its kin");
    MUST(pipe(fds));
    drain_fd = fds[0];
    struct pollfd one = {fds[0], POLLIN, 0};
    fd_set set;
    struct timespec later = {5, 0};
    struct timeval late = {5, 0};
    int epoll = MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLIN};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event));
    TRY(write_byte, poll(&one, 1, -1));
    TRY(write_byte, poll(&one, 1, 5000));
    TRY(write_byte, ppoll(&one, 1, &later, NULL));
    TRY(write_byte, select(fds[0] + 1, only(&set), NULL, NULL, &late));
    TRY(write_byte, pselect(fds[0] + 1, only(&set), NULL, NULL, NULL, NULL));
    TRY(write_byte, epoll_wait(epoll, &event, 1, -1));
    TRY(write_byte, epoll_pwait(epoll, &event, 1, 5000, NULL));
    close(epoll);
    CASE("splice and tee");
    int other[2];
    MUST(pipe(other));
    TRY(write_byte, splice(fds[0], NULL, other[1], NULL, 8, 0));
    TRY(write_byte, tee(fds[0], other[1], 8, 0));
    CASE("readv, preadv2");
    struct iovec vector = {buffer, 8};
    TRY(write_byte, readv(fds[0], &vector, 1));
    drain_fd = -1;
}

static void sockets(void)
{
    CASE("sockets");
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    drain_fd = fds[0];
    struct iovec vector = {buffer, 8};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    struct mmsghdr many = {message, 0};
    TRY(write_byte, read(fds[0], buffer, 8));
    TRY(write_byte, recv(fds[0], buffer, 8, 0));
    TRY(write_byte, recvmsg(fds[0], &message, 0));
    TRY(write_byte, recvmmsg(fds[0], &many, 1, 0, NULL));
    struct timeval limit = {5, 0};
    MUST(setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    TRY(write_byte, recv(fds[0], buffer, 8, 0));
    drain_fd = -1;
    close(fds[0]);
    close(fds[1]);
}

static struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "s"};

static void connects(void)
{
    int fd = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(fd, (struct sockaddr *)&address, sizeof address));
    close(fd);
}

static void accepts(void)
{
    CASE("accept");
    int listener = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(bind(listener, (struct sockaddr *)&address, sizeof address));
    MUST(listen(listener, 5));
    long got;
    TRY(connects, (got = accept(listener, NULL, NULL)) < 0 ? got : 0);
    close(listener);
}

static int lock_fd;

static void unlock(void)
{
    MUST(kill(helper_pid, SIGUSR1));
}

static void unlocks(int signo UNUSED) {}

static pid_t locker(bool posix)
{
    struct gate gate = gate_make();
    pid_t pid = CHILD({
        handle_plain(SIGUSR1, unlocks);
        int fd = MUST(open("lock", O_RDWR));
        struct flock whole = {.l_type = F_WRLCK};
        MUST(posix ? fcntl(fd, F_SETLK, &whole) : flock(fd, LOCK_EX));
        gate_open(gate);
        pause();
    });
    gate_wait(gate);
    gate_close(gate);
    return pid;
}

static void locks(void)
{
    struct flock whole = {.l_type = F_WRLCK};
    put_file("lock", "", 0600);
    lock_fd = MUST(open("lock", O_RDWR));
    for (int posix = 0; posix < 2; posix++)
        for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART) {
            pthread_t thread;
            helper_pid = locker(posix);
            release = unlock;
            pthread_create(&thread, NULL, releases, NULL);
            alarms(flags, true);
            errno = 0;
            int result = posix ? fcntl(lock_fd, F_SETLKW, &whole) : flock(lock_fd, LOCK_EX);
            int error = errno;
            pthread_join(thread, NULL);
            alarms(flags, false);
            MUST(waitpid(helper_pid, NULL, 0));
            say("%s %s: %d %s", flags ? "restart" : "plain", posix ? "fcntl" : "flock", result, result ? error_name(error) : "");
            flock(lock_fd, LOCK_UN);
        }
    close(lock_fd);
}

static int queue, semaphore;
static mqd_t messages;

static void send_message(void)
{
    struct {
        long type;
        char text[4];
    } message = {1, "abc"};
    MUST(msgsnd(queue, &message, 4, 0));
}

static void take_message(void)
{
    msgrcv(queue, buffer, 100, 0, IPC_NOWAIT);
}

static void post(void)
{
    MUST(semctl(semaphore, 0, SETVAL, 1));
}

static void reset(void)
{
    MUST(semctl(semaphore, 0, SETVAL, 0));
}

static void system_v(void)
{
    CASE("System V");
    struct sembuf down = {0, -1, 0};
    struct timespec later = {5, 0};
    queue = MUST(msgget(IPC_PRIVATE, 0600));
    semaphore = MUST(semget(IPC_PRIVATE, 1, 0600));
    TRY(send_message, msgrcv(queue, buffer, 100, 0, 0));
    take_message();
    reset();
    TRY(post, semop(semaphore, &down, 1));
    reset();
    TRY(post, semtimedop(semaphore, &down, 1, &later));
    msgctl(queue, IPC_RMID, NULL);
    semctl(semaphore, 0, IPC_RMID);
}

static void send_posix(void)
{
    MUST(mq_send(messages, "x", 1, 0));
}

static void posix_queues(void)
{
    CASE("POSIX message queues");
    struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = 16};
    char name[40];
    snprintf(name, sizeof name, "/restart.%d", getpid());
    messages = MUST(mq_open(name, O_RDWR | O_CREAT, 0600, &attr));
    mq_unlink(name);
    struct timespec never = {4000000000, 0};
    TRY(send_posix, mq_receive(messages, buffer, 16, NULL));
    attr.mq_flags = O_NONBLOCK;
    mq_setattr(messages, &attr, NULL);
    mq_receive(messages, buffer, 16, NULL);
    attr.mq_flags = 0;
    mq_setattr(messages, &attr, NULL);
    TRY(send_posix, mq_timedreceive(messages, buffer, 16, NULL, &never));
}

static void open_other_end(void)
{
    close(MUST(open("fifo", O_RDWR)));
}

static void fifos(void)
{
    CASE("opening a FIFO");
    MUST(mkfifo("fifo", 0600));
    long fd;
    TRY(open_other_end, (fd = open("fifo", O_RDONLY)) < 0 ? fd : close(fd));
}

int main(void)
{
    scratch();
    descriptors();
    sockets();
    accepts();
    locks();
    system_v();
    posix_queues();
    fifos();
    return 0;
}
