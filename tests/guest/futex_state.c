/* What /proc/PID/stat says of threads that sleep in a futex, private or shared, and of one that
 * runs. */
#include "check.h"

#include <linux/futex.h>
#include <pthread.h>

static int word, shared_word;
static volatile pid_t tids[3];
static volatile int spin = 1;

static char state_of(pid_t tid)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    int fd = MUST(open(path, O_RDONLY));
    MUST(read(fd, text, sizeof text - 1));
    close(fd);
    return *(strrchr(text, ')') + 2);
}

static void *wait_private(void *arg UNUSED)
{
    tids[0] = (pid_t)syscall(SYS_gettid);
    syscall(SYS_futex, &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, NULL);
    return NULL;
}

static void *wait_shared(void *arg UNUSED)
{
    tids[1] = (pid_t)syscall(SYS_gettid);
    syscall(SYS_futex, &shared_word, FUTEX_WAIT, 0, NULL);
    return NULL;
}

static void *run(void *arg UNUSED)
{
    tids[2] = (pid_t)syscall(SYS_gettid);
    while (spin)
        ;
    return NULL;
}

static void await(const char *what, volatile pid_t *tid, char wanted)
{
    char state = '?';
    for (int i = 0; i < 500 && state != wanted; i++) {
        usleep(10000);
        state = *tid ? state_of(*tid) : '?';
    }
    say("%s: %c", what, state);
}

int main(void)
{
    pthread_t threads[3];
    NEED(!pthread_create(&threads[0], NULL, wait_private, NULL));
    NEED(!pthread_create(&threads[1], NULL, wait_shared, NULL));
    NEED(!pthread_create(&threads[2], NULL, run, NULL));
    await("in a private futex", &tids[0], 'S');
    await("in a shared futex", &tids[1], 'S');
    await("running", &tids[2], 'R');
    say("this one: %c", state_of((pid_t)syscall(SYS_gettid)));
    spin = 0;
    SHOW(syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1));
    SHOW(syscall(SYS_futex, &shared_word, FUTEX_WAKE, 1));
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
