/* IPC namespaces: what is in one stays while anybody can enter it. */
#include "ns_common.h"

#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

enum { KEY = 4711 };

static void make(void)
{
    MUST(unshare(CLONE_NEWIPC));
    SHOW_OK(shmget(KEY, 4096, IPC_CREAT | IPC_EXCL | 0600));
    SHOW_OK(semget(KEY, 1, IPC_CREAT | IPC_EXCL | 0600));
    int queue = MUST(msgget(KEY, IPC_CREAT | IPC_EXCL | 0600));
    struct {
        long type;
        char text[4];
    } message = {1, "abc"};
    SHOW(msgsnd(queue, &message, 4, 0));
}

static void look(const char *path)
{
    struct {
        long type;
        char text[4];
    } message = {0};
    int fd = MUST(open(path, O_RDONLY));
    MUST(setns(fd, CLONE_NEWIPC));
    close(fd);
    SHOW_OK(shmget(KEY, 0, 0));
    SHOW_OK(semget(KEY, 0, 0));
    SHOW(msgrcv(msgget(KEY, 0), &message, 4, 0, IPC_NOWAIT));
    say("%s", message.text);
}

static void open_one(void)
{
    CASE("open");
    struct gate made = gate_make(), done = gate_make();
    pid_t pid = CHILD(make(); gate_open(made); gate_wait(done));
    char path[64];
    gate_wait(made);
    snprintf(path, sizeof path, "/proc/%d/ns/ipc", pid);
    int fd = MUST(open(path, O_RDONLY));
    gate_open(done);
    reap("maker", pid);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    reap("visitor", CHILD(look(path)));
    reap("visitor", CHILD(look(path)));
    close(fd);
}

static void bound(void)
{
    CASE("bound");
    char path[64];
    put_file("ns", "", 0600);
    struct gate made = gate_make(), done = gate_make();
    pid_t pid = CHILD(make(); gate_open(made); gate_wait(done));
    gate_wait(made);
    snprintf(path, sizeof path, "/proc/%d/ns/ipc", pid);
    SHOW(mount(path, "ns", NULL, MS_BIND, NULL));
    gate_open(done);
    reap("maker", pid);
    reap("visitor", CHILD(look("ns")));
    SHOW(umount2("ns", 0));
}

int main(void)
{
    enter();
    scratch();
    open_one();
    bound();
    return 0;
}
