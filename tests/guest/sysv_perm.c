/* Permissions of System V objects between users; /proc/sysvipc and the limits in /proc/sys/kernel.
 *
 * USER: root
 */
#include "check.h"
#include <grp.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

static void become(uid_t uid, gid_t gid)
{
    MUST(setgroups(0, NULL));
    MUST(setresgid(gid, gid, gid));
    MUST(setresuid(uid, uid, uid));
}

static void try_shm(int id)
{
    struct shmid_ds ds;
    SHOW_OK(shmat(id, NULL, 0));
    SHOW_OK(shmat(id, NULL, SHM_RDONLY));
    SHOW_OK(shmat(id, NULL, SHM_RDONLY | SHM_EXEC));
    SHOW(shmctl(id, IPC_STAT, &ds));
    SHOW_OK(shmctl(id & 0x7fff, SHM_STAT, &ds));
    SHOW_OK(shmctl(id & 0x7fff, 15, &ds));
    SHOW(shmctl(id, SHM_LOCK, NULL));
    SHOW(shmctl(id, IPC_SET, &ds));
    SHOW(shmctl(id, IPC_RMID, NULL));
}

static void shm(void)
{
    CASE("segments");
    key_t key = 0x5b000000 | (getpid() & 0xfffff) << 4;
    int id = MUST(shmget(key, 4096, IPC_CREAT | 0640));
    struct shmid_ds ds;
    MUST(shmctl(id, IPC_STAT, &ds));
    ds.shm_perm.gid = 1000;
    MUST(shmctl(id, IPC_SET, &ds));
    reap("stranger", CHILD(become(2000, 2000); try_shm(id); SHOW_OK(shmget(key, 4096, 0)); SHOW_OK(shmget(key, 4096, 0400));
                           SHOW_OK(shmget(key, 4096, 0040)); SHOW_OK(shmget(key, 4096, 0004))));
    reap("group", CHILD(become(2000, 1000); try_shm(id); SHOW_OK(shmget(key, 4096, 0400)); SHOW_OK(shmget(key, 4096, 0200))));
    ds.shm_perm.uid = 2000;
    MUST(shmctl(id, IPC_SET, &ds));
    reap("owner", CHILD(become(2000, 2000); try_shm(id)));
    SHOW(shmctl(id, IPC_STAT, &ds));
    id = MUST(shmget(IPC_PRIVATE, 4096, 0));
    SHOW_OK(shmat(id, NULL, 0));
    MUST(shmctl(id, IPC_RMID, NULL));
}

static void sem(void)
{
    CASE("semaphores");
    int id = MUST(semget(IPC_PRIVATE, 2, 0604));
    struct semid_ds ds;
    unsigned short array[2] = {1, 1};
    struct sembuf up = {0, 1, 0}, zero = {1, 0, IPC_NOWAIT};
    MUST(semctl(id, 0, IPC_STAT, &ds));
    reap("stranger", CHILD(become(2000, 2000); SHOW(semop(id, &up, 1)); SHOW(semop(id, &zero, 1)); SHOW(semctl(id, 0, GETVAL));
                           SHOW(semctl(id, 0, SETVAL, 1)); SHOW(semctl(id, 0, GETALL, array)); SHOW(semctl(id, 0, SETALL, array));
                           SHOW(semctl(id, 9, GETVAL)); SHOW(semctl(id, 9, SETVAL, 1)); SHOW(semctl(id, 0, IPC_STAT, &ds));
                           SHOW(semctl(id, 0, IPC_SET, &ds)); SHOW(semctl(id, 0, IPC_RMID))));
    ds.sem_perm.mode = 0060;
    MUST(semctl(id, 0, IPC_SET, &ds));
    reap("same group", CHILD(become(2000, 0); SHOW(semop(id, &up, 1)); SHOW(semctl(id, 0, GETVAL)); SHOW(semctl(id, 0, IPC_RMID))));
    MUST(semctl(id, 0, IPC_RMID));
}

static void msg(void)
{
    CASE("queues");
    struct {
        long type;
        char data[10];
    } text = {1, "x"};
    int id = MUST(msgget(IPC_PRIVATE, 0602));
    struct msqid_ds ds;
    MUST(msgctl(id, IPC_STAT, &ds));
    reap("stranger", CHILD(become(2000, 2000); SHOW(msgsnd(id, &text, 1, 0)); SHOW(msgrcv(id, &text, 1, 0, IPC_NOWAIT));
                           SHOW(msgctl(id, IPC_STAT, &ds)); SHOW(msgctl(id, IPC_SET, &ds)); SHOW(msgctl(id, IPC_RMID, NULL))));
    ds.msg_perm.uid = 2000;
    SHOW(msgctl(id, IPC_SET, &ds));
    reap("owner", CHILD(become(2000, 2000); SHOW(msgrcv(id, &text, 1, 0, IPC_NOWAIT)); SHOW(msgctl(id, IPC_STAT, &ds));
                        ds.msg_qbytes = 16384; SHOW(msgctl(id, IPC_SET, &ds)); ds.msg_qbytes = 16385;
                        SHOW(msgctl(id, IPC_SET, &ds)); SHOW(msgctl(id, IPC_RMID, NULL))));
}

/* The line of /proc/sysvipc/`kind` with this id. */
static void show_line(const char *kind, int id)
{
    char path[64], line[512];
    sprintf(path, "/proc/sysvipc/%s", kind);
    FILE *file = fopen(path, "r");
    NEED(file != NULL);
    NEED(fgets(line, sizeof line, file) != NULL);
    say("%s: %.*s", kind, (int)strlen(line) - 1, line);
    while (fgets(line, sizeof line, file)) {
        int key, number, mode, at = 0;
        if (sscanf(line, "%d %d %o%n", &key, &number, &mode, &at) == 3 && number == id)
            say("key %d mode %o, line of %zu, %.22s", key, mode, strlen(line), line + at);
    }
    fclose(file);
}

static void listings(void)
{
    CASE("/proc/sysvipc");
    int id = MUST(shmget(IPC_PRIVATE, 12345, 0611));
    show_line("shm", id);
    MUST(shmctl(id, IPC_RMID, NULL));
    id = MUST(semget(IPC_PRIVATE, 7, 0622));
    show_line("sem", id);
    MUST(semctl(id, 0, IPC_RMID));
    id = MUST(msgget(IPC_PRIVATE, 0633));
    show_line("msg", id);
    MUST(msgctl(id, IPC_RMID, NULL));
    static const char *const names[] = {"shmmax", "shmall", "shmmni", "shm_rmid_forced", "sem", "msgmax", "msgmnb", "msgmni",
                                        "shm_next_id", "sem_next_id", "msg_next_id"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        sprintf(path, "/proc/sys/kernel/%s", names[i]);
        struct stat st;
        MUST(stat(path, &st));
        say("mode %o", st.st_mode);
        show_file(path);
    }
}

int main(void)
{
    shm();
    sem();
    msg();
    listings();
    return 0;
}
