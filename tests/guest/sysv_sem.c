/* System V semaphores: semget, semop, semtimedop, semctl, SEM_UNDO. */
#include "check.h"
#include <pthread.h>
#include <sys/ipc.h>
#include <sys/sem.h>

#define COMMA ,

union arg {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
    struct seminfo *info;
};

static int op1(int id, int number, int change, int flags)
{
    struct sembuf op = {number, change, flags};
    return semop(id, &op, 1);
}

static void values(const char *what, int id, int count)
{
    unsigned short array[64] = {0};
    char text[512] = "";
    if (semctl(id, 0, GETALL, (union arg){.array = array}) == -1) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    for (int i = 0; i < count; i++)
        sprintf(text + strlen(text), " %d", array[i]);
    say("%s:%s", what, text);
}

/* Waits until `want` tasks sleep on a semaphore. */
static void await_sleepers(int id, int number, int command, int want)
{
    while (semctl(id, number, command) != want)
        usleep(1000);
}

static void getting(void)
{
    CASE("semget");
    key_t key = 0x5d000000 | (getpid() & 0xfffff) << 4;
    SHOW(semget(key, 1, 0600));
    int id = MUST(semget(key, 3, IPC_CREAT | IPC_EXCL | 0600));
    SHOW(semget(key, 3, IPC_CREAT | IPC_EXCL | 0600));
    SHOW_IF(semget(key, 0, 0) == id);
    SHOW_IF(semget(key, 3, IPC_CREAT | 0600) == id);
    SHOW(semget(key, 4, 0600));
    SHOW(semget(IPC_PRIVATE, 0, 0600));
    SHOW(semget(IPC_PRIVATE, -1, 0600));
    SHOW(semget(IPC_PRIVATE, 32001, 0600));
    int n = semget(IPC_PRIVATE, 32000, 0600);
    SHOW_IF(n >= 0);
    SHOW(semctl(n, 0, IPC_RMID));
    SHOW(semctl(id, 0, IPC_RMID));
    SHOW(semctl(id, 0, IPC_RMID));
    SHOW(semctl(id, 0, GETVAL));
}

static void operations(void)
{
    CASE("semop");
    int id = MUST(semget(IPC_PRIVATE, 4, 0600));
    struct sembuf ops[600] = {{0, 2, 0}, {1, 3, 0}};
    values("fresh", id, 4);
    SHOW(semop(id, ops, 2));
    values("added", id, 4);
    struct sembuf both[] = {{0, -1, IPC_NOWAIT}, {1, -4, IPC_NOWAIT}};
    SHOW(semop(id, both, 2));
    values("nothing done", id, 4);
    struct sembuf twice[] = {{2, 1, 0}, {2, 0, IPC_NOWAIT}};
    SHOW(semop(id, twice, 2));
    struct sembuf there_and_back[] = {{2, 5, 0}, {2, -5, 0}, {2, 0, 0}};
    SHOW(semop(id, there_and_back, 3));
    SHOW(op1(id, 2, 32767, 0));
    SHOW(op1(id, 2, 1, 0));
    SHOW(op1(id, 2, -32767, 0));
    SHOW(op1(id, 2, -32768, IPC_NOWAIT));
    SHOW(op1(id, 0, 0, IPC_NOWAIT));
    SHOW(op1(id, 4, 1, 0));
    SHOW(op1(id, 65535, 1, 0));
    for (int i = 0; i < 600; i++)
        ops[i] = (struct sembuf){3, 0, 0};
    SHOW(semop(id, ops, 0));
    SHOW(semop(id, ops, 501));
    SHOW(semop(id, ops, 500));
    SHOW(semop(id, BAD, 1));
    SHOW(semop(-1, ops, 1));
    SHOW(semop(id + 1, ops, 1));
    SHOW(semop(-1, BAD, 1));
    struct timespec bad = {0, 1000000000}, negative = {-1, 0}, zero = {0, 0};
    SHOW(semtimedop(id, ops, 1, BAD));
    SHOW(semtimedop(id, ops, 1, &bad));
    SHOW(semtimedop(id, ops, 1, &negative));
    struct sembuf wait[] = {{3, -1, 0}};
    SHOW(semtimedop(id, wait, 1, &zero));
    struct timespec some = {0, 20000000};
    SHOW(semtimedop(id, wait, 1, &some));
    values("end", id, 4);
    SHOW_IF(semctl(id, 0, GETPID) == getpid());
    SHOW_IF(semctl(id, 3, GETPID) == getpid());
    struct semid_ds ds;
    MUST(semctl(id, 0, IPC_STAT, (union arg){.buf = &ds}));
    SHOW_IF(ds.sem_otime != 0);
    say("nsems %lu", ds.sem_nsems);
    MUST(semctl(id, 0, IPC_RMID));
}

static void controlling(void)
{
    CASE("semctl");
    int id = MUST(semget(IPC_PRIVATE, 3, 0600));
    struct semid_ds ds;
    SHOW(semctl(id, 0, IPC_STAT, (union arg){.buf = &ds}));
    say("nsems %lu otime %d mode %o", ds.sem_nsems, ds.sem_otime != 0, ds.sem_perm.mode);
    ds.sem_perm.mode = 07640;
    SHOW(semctl(id, 0, IPC_SET, (union arg){.buf = &ds}));
    MUST(semctl(id, 0, IPC_STAT, (union arg){.buf = &ds}));
    say("mode %o", ds.sem_perm.mode);
    SHOW(semctl(id, 0, SETVAL, 5));
    SHOW(semctl(id, 1, SETVAL, 32767));
    SHOW(semctl(id, 1, SETVAL, 32768));
    SHOW(semctl(id, 1, SETVAL, -1));
    SHOW(semctl(id, 3, SETVAL, 1));
    SHOW(semctl(id, -1, SETVAL, 1));
    SHOW(semctl(-1, 0, SETVAL, 99999));
    SHOW(semctl(id, 3, GETVAL));
    SHOW(semctl(id, 0, GETVAL));
    unsigned short array[] = {1, 2, 3}, large[] = {1, 32768, 3};
    SHOW(semctl(id, 0, SETALL, (union arg){.array = large}));
    values("unchanged", id, 3);
    SHOW(semctl(id, 77, SETALL, (union arg){.array = array}));
    values("set", id, 3);
    SHOW(semctl(id, 0, SETALL, BAD));
    SHOW(semctl(id, 0, GETALL, BAD));
    SHOW(semctl(id, 0, IPC_STAT, BAD));
    SHOW(semctl(id, 0, IPC_SET, BAD));
    SHOW(semctl(id, 0, 99, 0));
    SHOW(semctl(id, 0, GETNCNT));
    SHOW(semctl(id, 0, GETZCNT));
    SHOW_IF(semctl(id & 0x7fff, 0, SEM_STAT, (union arg){.buf = &ds}) == id);
    SHOW_IF(semctl(id & 0x7fff, 0, SEM_STAT_ANY, (union arg){.buf = &ds}) == id);
    struct seminfo info;
    SHOW_OK(semctl(0, 0, IPC_INFO, (union arg){.info = &info}));
    say("%d %d %d %d %d %d %d %d %d %d", info.semmap, info.semmni, info.semmns, info.semmnu, info.semmsl, info.semopm,
        info.semume, info.semusz, info.semvmx, info.semaem);
    SHOW_OK(semctl(0, 0, SEM_INFO, (union arg){.info = &info}));
    SHOW_IF(info.semusz >= 1 && info.semaem >= 3);
    MUST(semctl(id, 0, IPC_RMID));
}

static void waiting(void)
{
    CASE("waiting");
    int id = MUST(semget(IPC_PRIVATE, 3, 0600));
    pid_t down = CHILD(_exit(op1(id, 0, -2, 0) == 0 ? 0 : errno));
    await_sleepers(id, 0, GETNCNT, 1);
    SHOW(semctl(id, 0, GETZCNT));
    SHOW(op1(id, 0, 1, 0));
    SHOW(semctl(id, 0, GETNCNT));
    SHOW(op1(id, 0, 2, 0));
    reap("down", down);
    SHOW_IF(semctl(id, 0, GETPID) == down);
    values("after", id, 3);
    pid_t zero = CHILD(_exit(op1(id, 0, 0, 0) == 0 ? 0 : errno));
    await_sleepers(id, 0, GETZCNT, 1);
    SHOW(semctl(id, 0, SETVAL, 0));
    reap("zero", zero);
    struct sembuf both[] = {{0, -1, 0}, {1, -1, 0}};
    pid_t two = CHILD(_exit(semop(id, both, 2) == 0 ? 0 : errno));
    await_sleepers(id, 0, GETNCNT, 1);
    SHOW(op1(id, 0, 1, 0));
    await_sleepers(id, 1, GETNCNT, 1);
    SHOW(semctl(id, 0, GETNCNT));
    values("not yet", id, 3);
    SHOW(op1(id, 1, 1, 0));
    reap("two", two);
    values("both", id, 3);
    pid_t over = CHILD(struct sembuf o[] = {{2, 32767, 0} COMMA {2, -1, 0} COMMA {0, -1, 0} COMMA {2, 2, 0}};
                       _exit(semop(id, o, 4) == 0 ? 0 : errno));
    await_sleepers(id, 0, GETNCNT, 1);
    SHOW(op1(id, 0, 1, 0));
    reap("over", over);
    pid_t removed = CHILD(_exit(op1(id, 1, -1, 0) == 0 ? 0 : errno));
    await_sleepers(id, 1, GETNCNT, 1);
    SHOW(semctl(id, 0, IPC_RMID));
    reap("removed", removed);
}

static void on_signal(int signo UNUSED)
{
}

static void interrupted(void)
{
    CASE("signals");
    int id = MUST(semget(IPC_PRIVATE, 1, 0600));
    for (int restart = 0; restart < 2; restart++) {
        pid_t child = CHILD(struct sigaction sa = {.sa_handler = on_signal COMMA.sa_flags = restart ? SA_RESTART : 0};
                            sigaction(SIGUSR1, &sa, NULL); _exit(op1(id, 0, -1, 0) == 0 ? 0 : errno));
        await_sleepers(id, 0, GETNCNT, 1);
        MUST(kill(child, SIGUSR1));
        reap("child", child);
        SHOW(semctl(id, 0, GETNCNT));
    }
    pid_t child = CHILD(SHOW(op1(id, 0, -1, 0)));
    await_sleepers(id, 0, GETNCNT, 1);
    MUST(kill(child, SIGKILL));
    reap("killed", child);
    SHOW(semctl(id, 0, GETNCNT));
    MUST(semctl(id, 0, IPC_RMID));
}

static void *undo_in_thread(void *arg)
{
    op1(*(int *)arg, 2, 7, SEM_UNDO);
    return NULL;
}

static int unshares(void *arg)
{
    int id = *(int *)arg;
    op1(id, 0, 4, SEM_UNDO);
    values("before unshare", id, 3);
    SHOW(unshare(CLONE_SYSVSEM));
    values("after unshare", id, 3);
    return 0;
}

static void undoing(void)
{
    CASE("SEM_UNDO");
    int id = MUST(semget(IPC_PRIVATE, 3, 0600));
    SHOW(semctl(id, 0, SETVAL, 5));
    pid_t child = CHILD(op1(id, 0, -3, SEM_UNDO); op1(id, 1, 2, SEM_UNDO); values("in child", id, 3));
    reap("child", child);
    values("undone", id, 3);
    SHOW_IF(semctl(id, 0, GETPID) == child);
    child = CHILD(op1(id, 0, -3, SEM_UNDO); op1(id, 0, 3, SEM_UNDO); op1(id, 1, 1, SEM_UNDO); semctl(id, 1, SETVAL, 9));
    reap("balanced, set", child);
    values("nothing to undo", id, 3);
    child = CHILD(op1(id, 0, 5, SEM_UNDO); op1(id, 0, -8, 0));
    reap("clamped", child);
    values("not below zero", id, 3);
    SHOW(semctl(id, 0, SETVAL, 5));
    child = CHILD(op1(id, 0, -2, SEM_UNDO); execl("/bin/true", "true", NULL));
    reap("exec keeps it", child);
    values("undone", id, 3);
    child = CHILD(op1(id, 2, 3, SEM_UNDO); pid_t grandchild = fork(); if (grandchild == 0) _exit(0);
                  waitpid(grandchild, NULL, 0); values("fork does not inherit", id, 3); kill(getpid(), SIGKILL));
    reap("killed", child);
    values("undone", id, 3);
    child = CHILD(pthread_t t; pthread_create(&t, NULL, undo_in_thread, &id); pthread_join(t, NULL);
                  values("threads share it", id, 3));
    reap("threads", child);
    values("undone", id, 3);
    child = CHILD(SHOW(op1(id, 0, -32768, SEM_UNDO | IPC_NOWAIT)); semctl(id, 2, SETVAL, 0);
                  SHOW(op1(id, 2, 32767, SEM_UNDO)); SHOW(op1(id, 2, -32767, 0)); SHOW(op1(id, 2, 2, SEM_UNDO)));
    reap("range", child);
    child = CHILD(unshares(&id));
    reap("unshare", child);
    values("end", id, 3);
    pid_t sleeper = CHILD(_exit(op1(id, 0, -6, SEM_UNDO) == 0 ? 0 : errno));
    await_sleepers(id, 0, GETNCNT, 1);
    child = CHILD(op1(id, 0, -1, SEM_UNDO); op1(id, 1, 0, IPC_NOWAIT));
    reap("helper", child);
    SHOW(op1(id, 0, 6, 0));
    reap("sleeper", sleeper);
    MUST(semctl(id, 0, IPC_RMID));
    child = CHILD(int other = MUST(semget(IPC_PRIVATE, 1, 0600)); op1(other, 0, 1, SEM_UNDO); SHOW(semctl(other, 0, IPC_RMID)));
    reap("removed before the undo", child);
}

int main(void)
{
    getting();
    operations();
    controlling();
    waiting();
    interrupted();
    undoing();
    return 0;
}
