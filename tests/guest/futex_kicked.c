/* A thread that wakes others while signals keep coming: each FUTEX_WAKE is done, and never says that it was interrupted. */
#include "check.h"

#include <linux/futex.h>
#include <pthread.h>

static uint32_t word;
static volatile bool done;
static volatile int strange;

static void nothing(int signo UNUSED)
{
}

static void *wake(void *arg UNUSED)
{
    while (!done)
        for (int i = 0; i < 100; i++)
            if (syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0) != 0)
                strange = errno ? errno : 1;
    return NULL;
}

int main(void)
{
    pthread_t thread;
    struct timespec now, end;
    handle_plain(SIGUSR1, nothing);
    MUST(-pthread_create(&thread, NULL, wake, NULL));
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec++;
    do {
        pthread_kill(thread, SIGUSR1);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
    done = true;
    pthread_join(thread, NULL);
    say("strange results: %s", strange ? error_name(strange) : "none");
    return 0;
}
