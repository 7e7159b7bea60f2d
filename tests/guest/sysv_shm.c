/* System V shared memory: shmget, shmat, shmdt, shmctl, and what fork, exec and exit do to attachments. */
#include "check.h"
#include <sys/ipc.h>
#include <sys/shm.h>

static key_t own_key(int n)
{
    return (key_t)(0x5e000000 | (getpid() & 0xfffff) << 4 | n);
}

static void stat_line(const char *what, int id)
{
    struct shmid_ds ds;
    if (shmctl(id, IPC_STAT, &ds) == -1) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    say("%s: size %zu nattch %ld mode %o key %s cpid %s lpid %s atime %d dtime %d ctime %d", what, ds.shm_segsz,
        (long)ds.shm_nattch, ds.shm_perm.mode, ds.shm_perm.__key ? "some" : "none",
        ds.shm_cpid == getpid() ? "me" : "other", ds.shm_lpid == getpid() ? "me" : ds.shm_lpid ? "other" : "none",
        ds.shm_atime != 0, ds.shm_dtime != 0, ds.shm_ctime != 0);
}

static void getting(void)
{
    CASE("shmget");
    key_t key = own_key(1);
    SHOW(shmget(key, 4096, 0600));
    int id = MUST(shmget(key, 5000, IPC_CREAT | IPC_EXCL | 0640));
    SHOW(shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600));
    SHOW_IF(shmget(key, 0, 0) == id);
    SHOW_IF(shmget(key, 5000, IPC_CREAT | 0600) == id);
    SHOW(shmget(key, 5001, 0600));
    SHOW(shmget(key, 8192, 0600));
    SHOW(shmget(IPC_PRIVATE, 0, 0600));
    SHOW(shmget(IPC_PRIVATE, (size_t)-1, 0600));
    SHOW(shmget(IPC_PRIVATE, (size_t)1 << 63, 0600));
    SHOW(shmget(own_key(2), 0, IPC_CREAT | 0600));
    stat_line("fresh", id);
    SHOW(shmctl(id, IPC_RMID, NULL));
    SHOW(shmctl(id, IPC_RMID, NULL));
    SHOW(shmget(key, 0, 0));
    int a = MUST(shmget(key, 4096, IPC_CREAT | 0600));
    SHOW_IF(a != id);
    MUST(shmctl(a, IPC_RMID, NULL));
}

static void attaching(void)
{
    CASE("shmat");
    int id = MUST(shmget(IPC_PRIVATE, 3 * 4096, 0600));
    char *a = shmat(id, NULL, 0);
    NEED(a != (void *)-1);
    SHOW_IF(((uintptr_t)a & 4095) == 0);
    strcpy(a, "hello");
    stat_line("one", id);
    char *b = shmat(id, NULL, SHM_RDONLY);
    NEED(b != (void *)-1);
    say("read-only view: %s", b);
    stat_line("two", id);
    SHOW(mprotect(b, 4096, PROT_READ | PROT_WRITE));
    SHOW(mprotect(b, 4096, PROT_NONE));
    stat_line("split", id);
    SHOW((long)shmat(id, a, 0));
    SHOW((long)shmat(id, a + 1, 0));
    SHOW((long)shmat(id, NULL, SHM_REMAP));
    SHOW((long)shmat(id, (void *)1, SHM_RND | SHM_REMAP));
    SHOW((long)shmat(-1, NULL, 0));
    SHOW((long)shmat(id + 1, NULL, 0));
    SHOW_IF(shmat(id, b + 5, SHM_RND | SHM_REMAP) == b);
    strcpy(b + 100, "written");
    say("%s", a + 100);
    stat_line("remapped", id);
    SHOW(shmdt(a + 4096));
    SHOW(shmdt(a + 1));
    SHOW(shmdt(a));
    SHOW(shmdt(a));
    stat_line("detached", id);
    SHOW(munmap(b + 4096, 4096));
    stat_line("hole", id);
    SHOW(shmdt(b));
    stat_line("none", id);
    SHOW(shmctl(id, IPC_RMID, NULL));
    SHOW((long)shmat(id, NULL, 0));
}

static void places(void)
{
    CASE("places");
    int id = MUST(shmget(IPC_PRIVATE, 2 * 4096, 0700));
    char *area = mmap(NULL, 8 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(area != MAP_FAILED);
    SHOW((long)shmat(id, area, 0));
    SHOW_IF(shmat(id, area, SHM_REMAP) == area);
    MUST(munmap(area + 4 * 4096, 4 * 4096));
    SHOW_IF(shmat(id, area + 5 * 4096 + 17, SHM_RND) == area + 5 * 4096);
    SHOW((long)shmat(id, area + 4 * 4096, 0));
    stat_line("two places", id);
    area[0] = 'x';
    SHOW_IF(area[5 * 4096] == 'x');
    SHOW(munmap(area, 8 * 4096));
    stat_line("unmapped", id);
    char *code = shmat(id, NULL, SHM_EXEC);
    NEED(code != (void *)-1);
    memcpy(code, "\xb8\x2a\0\0\0\xc3", 6);
    say("runs: %d", ((int (*)(void))code)());
    SHOW(shmdt(code));
    MUST(shmctl(id, IPC_RMID, NULL));
}

static void removing(void)
{
    CASE("removed while attached");
    key_t key = own_key(3);
    int id = MUST(shmget(key, 4096, IPC_CREAT | 0600));
    int *a = shmat(id, NULL, 0);
    NEED(a != (void *)-1);
    *a = 17;
    SHOW(shmctl(id, IPC_RMID, NULL));
    stat_line("marked", id);
    SHOW(shmget(key, 4096, 0600));
    int *b = shmat(id, NULL, 0);
    SHOW_IF(b != (void *)-1 && *b == 17);
    SHOW(shmctl(id, IPC_RMID, NULL));
    SHOW(shmdt(a));
    stat_line("one left", id);
    SHOW_IF(*b == 17);
    SHOW(shmdt(b));
    stat_line("gone", id);
}

static void inheriting(void)
{
    CASE("fork, exit, exec");
    int id = MUST(shmget(IPC_PRIVATE, 4096, 0600));
    volatile int *a = shmat(id, NULL, 0);
    NEED(a != (void *)-1);
    struct gate up = gate_make(), down = gate_make();
    pid_t child = CHILD(a[0] = 1; gate_open(up); gate_wait(down));
    gate_wait(up);
    say("child wrote %d", a[0]);
    stat_line("forked", id);
    gate_open(down);
    reap("child", child);
    stat_line("child gone", id);
    child = CHILD(a[0] = 2; execl("/bin/sh", "sh", "-c", "read x", NULL));
    sleep(0);
    MUST(kill(child, SIGKILL));
    waitpid(child, NULL, 0);
    stat_line("exec gone", id);
    child = CHILD(shmdt((void *)a); stat_line("detached in child", id));
    reap("child", child);
    stat_line("after", id);
    child = CHILD(MUST(shmctl(id, IPC_RMID, NULL)));
    reap("remover", child);
    stat_line("marked", id);
    SHOW(shmdt((void *)a));
    stat_line("gone", id);
    MUST(madvise(NULL, 0, MADV_NORMAL));
    id = MUST(shmget(IPC_PRIVATE, 4096, 0600));
    a = shmat(id, NULL, 0);
    MUST(madvise((void *)a, 4096, MADV_DONTFORK));
    child = CHILD(stat_line("not inherited", id));
    reap("child", child);
    MUST(shmctl(id, IPC_RMID, NULL));
    shmdt((void *)a);
}

static void controlling(void)
{
    CASE("shmctl");
    int id = MUST(shmget(IPC_PRIVATE, 4096, 0600));
    struct shmid_ds ds, other;
    MUST(shmctl(id, IPC_STAT, &ds));
    SHOW_IF(ds.shm_perm.uid == geteuid() && ds.shm_perm.cuid == geteuid());
    SHOW_IF(ds.shm_perm.gid == getegid() && ds.shm_perm.cgid == getegid());
    ds.shm_perm.mode = 07777;
    SHOW(shmctl(id, IPC_SET, &ds));
    stat_line("set", id);
    ds.shm_perm.uid = -1;
    SHOW(shmctl(id, IPC_SET, &ds));
    SHOW(shmctl(id, IPC_STAT, BAD));
    SHOW(shmctl(id, IPC_SET, BAD));
    SHOW(shmctl(id, -1, &ds));
    SHOW(shmctl(id, 99, &ds));
    SHOW(shmctl(-1, IPC_STAT, &ds));
    SHOW(shmctl(-1, IPC_INFO, &ds));
    SHOW_IF(shmctl(id & 0x7fff, SHM_STAT, &other) == id);
    SHOW_IF(shmctl(id & 0x7fff, SHM_STAT_ANY, &other) == id);
    SHOW_IF(other.shm_segsz == 4096);
    SHOW(shmctl(id, SHM_LOCK, NULL));
    stat_line("locked", id);
    SHOW(shmctl(id, SHM_UNLOCK, NULL));
    stat_line("unlocked", id);
    struct shminfo info;
    SHOW_OK(shmctl(0, IPC_INFO, (void *)&info));
    say("shmmin %lu shmmni %lu shmseg %lu", info.shmmin, info.shmmni, info.shmseg);
    SHOW_IF(info.shmmax == ULONG_MAX - (1 << 24) && info.shmall == info.shmmax);
    struct shm_info used;
    SHOW_IF(shmctl(0, SHM_INFO, (void *)&used) >= 0 && used.used_ids >= 1 && used.shm_tot >= 1);
    SHOW(shmctl(0, SHM_INFO, BAD));
    MUST(shmctl(id, IPC_RMID, NULL));
}

static void futexes(void)
{
    CASE("the same memory at two addresses");
    int id = MUST(shmget(IPC_PRIVATE, 8192, 0600));
    uint32_t *a = shmat(id, NULL, 0), *b = shmat(id, NULL, SHM_RDONLY);
    NEED(a != (void *)-1 && b != (void *)-1);
    struct gate up = gate_make();
    pid_t child = CHILD(gate_open(up); while (a[3] == 0) syscall(SYS_futex, a + 3, 0, 0, NULL, NULL, 0));
    gate_wait(up);
    __atomic_store_n(a + 3, 1, __ATOMIC_SEQ_CST);
    say("seen through the other: %u", b[3]);
    syscall(SYS_futex, a + 3, 1, 1, NULL, NULL, 0);
    reap("waiter", child);
    MUST(shmctl(id, IPC_RMID, NULL));
}

static void remapping(void)
{
    CASE("remap_file_pages");
    for (int variant = 0; variant < 18; variant++) {
        int pages = 1 + variant / 6, marked = variant & 1, twice = variant / 2 % 3, reading = twice == 2;
        say("%d pages%s%s%s", pages, marked ? ", marked" : "", twice ? ", twice" : "", reading ? ", to read" : "");
        int id = MUST(shmget(IPC_PRIVATE, pages * 4096, 0600));
        char *a = shmat(id, NULL, reading ? SHM_RDONLY : 0), *b = twice ? shmat(id, NULL, 0) : NULL;
        NEED(a != (void *)-1 && b != (void *)-1);
        strcpy((b ? b : a) + (pages - 1) * 4096, "last");
        if (marked)
            MUST(shmctl(id, IPC_RMID, NULL));
        SHOW(remap_file_pages(a, 4096, 0, pages - 1, 0));
        stat_line("remapped", id);
        unsigned char present;
        for (int i = 0; i < pages; i++)
            SHOW_IF(mincore(a + i * 4096, 4096, &present) == 0 && strcmp(a + i * 4096, "last") == 0);
        SHOW(shmdt(a));
        stat_line("detached", id);
        if (b)
            SHOW(shmdt(b));
        munmap(a, pages * 4096);
        stat_line("at last", id);
        if (!marked)
            MUST(shmctl(id, IPC_RMID, NULL));
    }
}

int main(void)
{
    getting();
    attaching();
    places();
    removing();
    inheriting();
    controlling();
    futexes();
    remapping();
    return 0;
}
