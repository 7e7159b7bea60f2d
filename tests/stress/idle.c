/* Threads that wait, each in one of the ways there are, and nothing else: idle COUNT.
 *
 * Prints a line when all of them wait, and ends when its standard input does.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WAYS 8

static int word, ends[2], epoll, event;
static atomic_int waiting;

static void *wait_forever(void *way)
{
    const struct timespec long_time = {100000, 0};
    struct pollfd readable = {ends[0], POLLIN, 0};
    struct epoll_event ready;
    sigset_t none;
    char byte[8];
    sigemptyset(&none);
    atomic_fetch_add(&waiting, 1);
    switch ((long)way) {
    case 0: syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0); break;
    case 1: syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0); break;
    case 2: nanosleep(&long_time, NULL); break;
    case 3: poll(&readable, 1, -1); break;
    case 4: (void)!read(ends[0], byte, 1); break;
    case 5: sigsuspend(&none); break;
    case 6: epoll_wait(epoll, &ready, 1, -1); break;
    case 7: (void)!read(event, byte, 8); break;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const int count = argc > 1 ? atoi(argv[1]) : 1;
    struct epoll_event interest = {.events = EPOLLIN};
    pthread_attr_t small;
    char byte;
    int i;
    if (pipe(ends) < 0 || (epoll = epoll_create1(0)) < 0 || (event = eventfd(0, 0)) < 0 ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &interest) < 0)
        return 1;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    for (i = 0; i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, &small, wait_forever, (void *)(long)(i % WAYS)) != 0)
            return 2;
    }
    while (atomic_load(&waiting) < count)
        usleep(1000);
    usleep(300000);
    printf("waiting\n");
    fflush(stdout);
    (void)!read(0, &byte, 1);
    _exit(0);
}
