/* Pipes, eventfd, epoll, and threads or processes that wake each other. */
#define _GNU_SOURCE
#include "micro.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

static int there[2], back[2], event_fd, epoll_fd;

static void open_pipe(void)
{
    MUST(pipe(there) == 0);
}

static void close_pipe(void)
{
    close(there[0]);
    close(there[1]);
}

static void op_pipe_write_read(void)
{
    MUST(write(there[1], block, 1) == 1);
    MUST(read(there[0], block, 1) == 1);
}

static void echo(void)
{
    char byte;
    close(there[1]);
    while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
        ;
}

static void open_pipes(void)
{
    MUST(pipe(there) == 0);
    MUST(pipe(back) == 0);
    start_child(echo);
}

static void close_pipes(void)
{
    close_pipe();
    stop_child();
    close(back[0]);
    close(back[1]);
}

static void op_pipe_pingpong(void)
{
    MUST(write(there[1], block, 1) == 1);
    MUST(read(back[0], block, 1) == 1);
}

static void drain(void)
{
    close(there[1]);
    while (read(there[0], block, sizeof block) > 0)
        ;
}

static void open_drained(void)
{
    MUST(pipe(there) == 0);
    start_child(drain);
}

static void close_drained(void)
{
    close_pipe();
    stop_child();
}

static void op_pipe_chunk(void)
{
    MUST(write(there[1], block, sizeof block) == sizeof block);
}

static void open_eventfd(void)
{
    MUST((event_fd = eventfd(0, 0)) >= 0);
}

static void close_eventfd(void)
{
    close(event_fd);
}

static void op_eventfd(void)
{
    uint64_t value = 1;
    MUST(write(event_fd, &value, sizeof value) == sizeof value);
    MUST(read(event_fd, &value, sizeof value) == sizeof value);
}

static void open_epoll(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    MUST((event_fd = eventfd(1, 0)) >= 0);
    MUST((epoll_fd = epoll_create1(0)) >= 0);
    MUST(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event) == 0);
}

static void close_epoll(void)
{
    close(epoll_fd);
    close(event_fd);
}

static void op_epoll_wait(void)
{
    struct epoll_event event;
    MUST(epoll_wait(epoll_fd, &event, 1, 0) == 1);
}

/* Whose turn it is; each side sleeps until the word has its own number. */
enum { OURS, THEIRS, OVER };
static uint32_t turn;
static pthread_t partner;

static void sleep_while(uint32_t value)
{
    while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) == value)
        syscall(SYS_futex, &turn, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void give(uint32_t value)
{
    __atomic_store_n(&turn, value, __ATOMIC_RELEASE);
    syscall(SYS_futex, &turn, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

static void *play(void *arg)
{
    for (;;) {
        sleep_while(OURS);
        if (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) == OVER)
            return arg;
        give(OURS);
    }
}

static void start_partner(void)
{
    turn = OURS;
    MUST(pthread_create(&partner, NULL, play, NULL) == 0);
}

static void stop_partner(void)
{
    give(OVER);
    pthread_join(partner, NULL);
}

static void op_futex_pingpong(void)
{
    give(THEIRS);
    sleep_while(THEIRS);
}

const struct operation wait_operations[] = {
    {"pipe_write_read_1", op_pipe_write_read, open_pipe, close_pipe},
    {"pipe_pingpong", op_pipe_pingpong, open_pipes, close_pipes},
    {"pipe_64k_chunk", op_pipe_chunk, open_drained, close_drained},
    {"eventfd_write_read", op_eventfd, open_eventfd, close_eventfd},
    {"epoll_wait_ready", op_epoll_wait, open_epoll, close_epoll},
    {"futex_pingpong", op_futex_pingpong, start_partner, stop_partner},
    {NULL, NULL, NULL, NULL},
};
