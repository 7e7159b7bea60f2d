/* process_vm_readv(2), process_vm_writev(2), kcmp(2): results, pieces, errors and permissions. */
#include "check.h"
#include <grp.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/uio.h>

static char theirs[8192] __attribute__((aligned(4096))) = "hello from the child";
static char mine[8192];
static char *big;
static char *hole; /* two pages, of which the second is not there */

static void copies(pid_t pid)
{
    CASE("copies");
    struct iovec local[2] = {{mine, 5}, {mine + 5, 15}}, remote[3] = {{theirs, 20}, {theirs, 4}, {theirs + 1, 0}};
    SHOW(process_vm_readv(pid, local, 2, remote, 1, 0));
    say("'%.20s'", mine);
    SHOW(process_vm_readv(pid, local, 1, remote, 1, 0));
    SHOW(process_vm_readv(pid, local, 2, remote + 1, 2, 0));
    SHOW(process_vm_readv(pid, local, 0, remote, 1, 0));
    SHOW(process_vm_readv(pid, NULL, 0, NULL, 0, 0));
    memcpy(mine, "HELLO", 5);
    SHOW(process_vm_writev(pid, local, 1, remote, 1, 0));
    memset(mine, 0, sizeof mine);
    SHOW(process_vm_readv(pid, local, 2, remote, 1, 0));
    say("'%.20s'", mine);
    SHOW(process_vm_readv(getpid(), local, 1, (struct iovec[]){{theirs, 5}}, 1, 0));
}

static void pieces(pid_t pid)
{
    CASE("partial results");
    struct iovec local = {mine, sizeof mine}, remote[2] = {{hole, 8192}, {theirs, 4}};
    SHOW(process_vm_readv(pid, &local, 1, remote, 1, 0));
    SHOW(process_vm_readv(pid, &local, 1, remote, 2, 0));
    remote[0] = (struct iovec){hole + 4096, 8};
    SHOW(process_vm_readv(pid, &local, 1, remote, 2, 0));
    SHOW(process_vm_readv(pid, &local, 1, (struct iovec[]){{theirs, 4}, {hole + 4096, 8}}, 2, 0));
    SHOW(process_vm_writev(pid, &local, 1, (struct iovec[]){{(void *)copies, 8}}, 1, 0));
    local = (struct iovec){BAD, 8};
    SHOW(process_vm_readv(pid, &local, 1, (struct iovec[]){{theirs, 4}}, 1, 0));
}

static void large(pid_t pid)
{
    CASE("large");
    size_t size = 40 << 20;
    char *here = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iovec local = {here, size}, remote = {big, size};
    SHOW_IF(process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)size);
    SHOW_IF(here[0] == 1 && here[size / 2] == 2 && here[size - 1] == 3);
    remote.iov_base = big + 4096;
    SHOW_IF(process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)size - 4096);
    munmap(here, size);
}

static void errors(pid_t pid)
{
    CASE("errors");
    struct iovec local = {mine, 4}, remote = {theirs, 4};
    SHOW(process_vm_readv(pid, &local, 1, &remote, 1, 1));
    SHOW(process_vm_readv(pid, &local, 1025, &remote, 1, 0));
    SHOW(process_vm_readv(pid, &local, 1, &remote, 1025, 0));
    SHOW(process_vm_readv(pid, BAD, 1, &remote, 1, 0));
    SHOW(process_vm_readv(pid, &local, 1, BAD, 1, 0));
    SHOW(process_vm_readv(4194303, &local, 1, &remote, 1, 0));
    SHOW(process_vm_readv(-1, &local, 1, &remote, 1, 0));
    remote.iov_len = -1;
    SHOW(process_vm_readv(pid, &local, 1, &remote, 1, 0));
    remote.iov_len = 4;
    local.iov_len = -1;
    SHOW(process_vm_readv(pid, &local, 1, &remote, 1, 0));
    local.iov_len = 0;
    SHOW(process_vm_readv(4194303, &local, 1, &remote, 1, 0));
}

static void forbidden(void)
{
    CASE("permission");
    struct gate done = gate_make(), ready = gate_make();
    pid_t pid = CHILD({
        prctl(PR_SET_DUMPABLE, 0);
        gate_open(ready);
        gate_wait(done);
    });
    gate_wait(ready);
    struct iovec local = {mine, 4}, remote = {theirs, 4};
    pid_t other = CHILD({
        if (getuid() == 0) {
            setgroups(0, NULL);
            MUST(setresgid(1234, 1234, 1234));
            MUST(setresuid(1234, 1234, 1234));
        }
        SHOW(process_vm_readv(pid, &local, 1, &remote, 1, 0));
        SHOW(process_vm_writev(pid, &local, 1, &remote, 1, 0));
        SHOW(syscall(SYS_kcmp, pid, getpid(), KCMP_VM, 0, 0));
    });
    reap("other", other);
    gate_open(done);
    reap("child", pid);
}

static void compares(pid_t pid)
{
    CASE("kcmp");
    int fd = MUST(open("/dev/null", O_RDONLY)), copy = MUST(dup(fd)), other = MUST(open("/dev/null", O_RDONLY));
    pid_t me = getpid();
    SHOW(syscall(SYS_kcmp, me, me, KCMP_FILE, fd, copy));
    SHOW_IF(syscall(SYS_kcmp, me, me, KCMP_FILE, fd, other) > 0);
    SHOW(syscall(SYS_kcmp, me, me, KCMP_FILE, fd, 999));
    SHOW(syscall(SYS_kcmp, me, pid, KCMP_FILE, 1, 1));
    for (int type = KCMP_VM; type <= KCMP_SYSVSEM; type++) {
        say("type %d with itself: %ld", type, syscall(SYS_kcmp, me, me, type, 0, 0));
        if (type < KCMP_IO)
            SHOW_IF(syscall(SYS_kcmp, me, pid, type, 0, 0) > 0);
    }
    SHOW(syscall(SYS_kcmp, me, me, 99, 0, 0));
    SHOW(syscall(SYS_kcmp, me, 4194303, KCMP_VM, 0, 0));
    int set = MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLIN};
    int ends[2];
    MUST(pipe(ends));
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event));
    struct kcmp_epoll_slot slot = {.efd = (unsigned)set, .tfd = (unsigned)ends[0], .toff = 0};
    SHOW(syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, ends[0], &slot));
    SHOW_IF(syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, ends[1], &slot) > 0);
    slot.toff = 1;
    SHOW(syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, ends[0], &slot));
    slot = (struct kcmp_epoll_slot){.efd = (unsigned)set, .tfd = 999};
    SHOW(syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, ends[0], &slot));
    slot.efd = (unsigned)ends[0];
    SHOW(syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, ends[0], &slot));
    SHOW(syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, 999, &slot));
    SHOW(syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, ends[0], BAD));
}

static void nothing_to_do(void)
{
    char buffer[16];
    struct iovec some = {buffer, 16};
    struct iovec none = {buffer, 0};
    struct iovec negative = {buffer, (size_t)-1};
    CASE("nothing to copy, or nobody there");
    SHOW(process_vm_readv(getpid(), &none, 1, BAD, 1, 0));
    SHOW(process_vm_readv(999999, &some, 1, &none, 1, 0));
    SHOW(process_vm_readv(999999, &some, 1, &some, 0, 0));
    SHOW(process_vm_readv(999999, &none, 1, &some, 1, 0));
    SHOW(process_vm_readv(999999, &some, 1, &negative, 1, 0));
    SHOW(process_vm_readv(999999, &some, 1, &some, 1, 0));
}

int main(void)
{
    struct gate ready = gate_make(), done = gate_make();
    hole = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(munmap(hole + 4096, 4096));
    big = mmap(NULL, (40 << 20) + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(munmap(big + (40 << 20), 4096));
    big[0] = 1, big[20 << 20] = 2, big[(40 << 20) - 1] = 3;
    pid_t pid = CHILD({
        gate_open(ready);
        gate_wait(done);
        say("the child has '%.20s'", theirs);
    });
    gate_wait(ready);
    copies(pid);
    pieces(pid);
    large(pid);
    errors(pid);
    compares(pid);
    gate_open(done);
    reap("child", pid);
    forbidden();
    nothing_to_do();
    return 0;
}
