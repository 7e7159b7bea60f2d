/* Nonsense from the program: unknown calls, bad pointers, 32-bit entries, odd descriptors. */
#include "check.h"

#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/xattr.h>
#include <sys/epoll.h>
#include <sys/statfs.h>
#include <sys/times.h>
#include <utime.h>

int main(void)
{
    CASE("unknown numbers");
    static const long numbers[] = {500, 501, 999, 1000, 4095, 100000, -1, -100, 1L << 31, 1L << 40, 0x40000000 + 39};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        errno = 0;
        long result = syscall(numbers[i], 1, 2, 3, 4, 5, 6);
        say("syscall %ld: %ld %s", numbers[i], result, error_name(errno));
    }
    CASE("numbers without a call");
    SHOW(syscall(174 /* create_module */, 0, 0));
    SHOW(syscall(177 /* get_kernel_syms */, 0));
    SHOW(syscall(178 /* query_module */, 0));
    SHOW(syscall(180 /* nfsservctl */, 0));
    SHOW(syscall(181 /* getpmsg */, 0));
    SHOW(syscall(183 /* afs_syscall */, 0));
    SHOW(syscall(205 /* set_thread_area */, 0));
    SHOW(syscall(236 /* vserver */, 0));
    CASE("bad pointers");
    scratch();
    put_file("file", "0123456789", 0644);
    int fd = MUST(open("file", O_RDWR)), ends[2];
    MUST(pipe(ends));
    struct {
        const char *name;
        long number, args[6];
    } calls[] = {
        {"read", SYS_read, {fd, 8, 10}},
        {"write", SYS_write, {fd, 8, 10}},
        {"open", SYS_open, {8, 0}},
        {"stat", SYS_stat, {8, 8}},
        {"fstat", SYS_fstat, {fd, 8}},
        {"lstat", SYS_lstat, {8, 8}},
        {"poll", SYS_poll, {8, 1, 0}},
        {"rt_sigaction", SYS_rt_sigaction, {10, 8, 0, 8}},
        {"rt_sigprocmask", SYS_rt_sigprocmask, {0, 8, 0, 8}},
        {"pread", SYS_pread64, {fd, 8, 10, 0}},
        {"pwrite", SYS_pwrite64, {fd, 8, 10, 0}},
        {"readv", SYS_readv, {fd, 8, 1}},
        {"writev", SYS_writev, {fd, 8, 1}},
        {"access", SYS_access, {8, 0}},
        {"pipe", SYS_pipe, {8}},
        {"select", SYS_select, {1, 8, 0, 0, 0}},
        {"nanosleep", SYS_nanosleep, {8, 0}},
        {"getitimer", SYS_getitimer, {0, 8}},
        {"setitimer", SYS_setitimer, {0, 8, 0}},
        {"uname", SYS_uname, {8}},
        {"fcntl getlk", SYS_fcntl, {fd, F_GETLK, 8}},
        {"truncate", SYS_truncate, {8, 0}},
        {"getdents64", SYS_getdents64, {AT_FDCWD, 8, 100}},
        {"getcwd", SYS_getcwd, {8, 4096}},
        {"chdir", SYS_chdir, {8}},
        {"rename", SYS_rename, {8, 8}},
        {"mkdir", SYS_mkdir, {8, 0}},
        {"rmdir", SYS_rmdir, {8}},
        {"link", SYS_link, {8, 8}},
        {"unlink", SYS_unlink, {8}},
        {"symlink", SYS_symlink, {8, 8}},
        {"readlink", SYS_readlink, {8, 8, 10}},
        {"chmod", SYS_chmod, {8, 0}},
        {"chown", SYS_chown, {8, 0, 0}},
        {"gettimeofday", SYS_gettimeofday, {8, 0}},
        {"getrlimit", SYS_getrlimit, {0, 8}},
        {"getrusage", SYS_getrusage, {0, 8}},
        {"sysinfo", SYS_sysinfo, {8}},
        {"times", SYS_times, {8}},
        {"statfs", SYS_statfs, {8, 8}},
        {"fstatfs", SYS_fstatfs, {fd, 8}},
        {"rt_sigpending", SYS_rt_sigpending, {8, 8}},
        {"sigaltstack", SYS_sigaltstack, {8, 0}},
        {"mknod", SYS_mknod, {8, 0, 0}},
        {"clock_gettime", SYS_clock_gettime, {0, 8}},
        {"clock_getres", SYS_clock_getres, {0, 8}},
        {"epoll_wait", SYS_epoll_create1, {1 << 20}},
        {"utimensat", SYS_utimensat, {AT_FDCWD, 8, 0, 0}},
        {"pipe2", SYS_pipe2, {8, 0}},
        {"getrandom", SYS_getrandom, {8, 10, 0}},
        {"execve", SYS_execve, {8, 0, 0}},
        {"wait4", SYS_wait4, {-1, 8, WNOHANG, 0}},
        {"getresuid", SYS_getresuid, {8, 8, 8}},
        {"statx", SYS_statx, {AT_FDCWD, 8, 0, 0, 8}},
        {"memfd_create", SYS_memfd_create, {8, 0}},
        {"prlimit64", SYS_prlimit64, {0, 0, 0, 8}},
        {"getxattr", SYS_getxattr, {8, 8, 8, 8}},
        {"timer_create", SYS_timer_create, {0, 8, 8}},
        {"futex", SYS_futex, {8, 0, 0, 0, 0, 0}},
        {"openat2", SYS_openat2, {AT_FDCWD, 8, 8, 24}},
        {"clone3", SYS_clone3, {8, 88}},
        {"sched_getaffinity", SYS_sched_getaffinity, {0, 128, 8}},
        {"capget", SYS_capget, {8, 8}},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        long *a = calls[i].args;
        errno = 0;
        long result = syscall(calls[i].number, a[0], a[1], a[2], a[3], a[4], a[5]);
        say("%s: %ld %s", calls[i].name, result, error_name(errno));
    }
    CASE("kernel addresses and wrap-around");
    char *high = (char *)(bad_address + 0xffff800000000000);
    SHOW(write(ends[1], high, 1));
    SHOW(write(ends[1], (char *)(bad_address - 16), 64));
    SHOW(read(fd, high, 1));
    SHOW(open(high, O_RDONLY));
    SHOW(write(ends[1], (char *)(bad_address + 0x7ffffffff000), 1));
    CASE("buffers that end at a hole");
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(munmap(page + 4096, 4096));
    strcpy(page + 4096 - 5, "file");
    SHOW_OK(open(page + 4096 - 5, O_RDONLY));
    memset(page + 4096 - 4, 'f', 4);
    SHOW(open(page + 4096 - 4, O_RDONLY));
    struct timespec *half = (void *)(page + 4096 - 8);
    SHOW(syscall(SYS_nanosleep, half, NULL));
    CASE("sizes");
    SHOW(read(fd, page, -1ul) >= 0 || errno == EFAULT);
    SHOW(pread(fd, page, 0x7fffffffffffffff, 1L << 40));
    SHOW(write(ends[1], page, 0));
    CASE("closed and odd descriptors");
    SHOW(read(-1, page, 1));
    SHOW(read(1 << 20, page, 1));
    SHOW(read(INT_MAX, page, 1));
    SHOW(write(INT_MIN, page, 1));
    SHOW(close(-1));
    SHOW(syscall(SYS_close, 0xffffffff00000000ul + 77));
    CASE("32-bit entry");
    long result = 20;
    pid_t pid = CHILD({
        no_core();
        __asm__ volatile("int $0x80" : "+a"(result)::"memory");
        _exit(0);
    });
    int status;
    MUST(waitpid(pid, &status, 0));
    /* Hosts without the 32-bit entry kill the caller, as the sandbox may: only that nothing else happens. */
    SHOW_IF(WIFEXITED(status) || WTERMSIG(status) == SIGSEGV);
    CASE("instructions that need privileges");
    no_core();
    reap("hlt", CHILD(__asm__ volatile("hlt")));
    reap("undefined", CHILD(__asm__ volatile("ud2")));
    reap("sysenter", CHILD(_exit(0)));
    CASE("syscall keeps every register but rax, rcx, r11");
    unsigned long rbx = 1, r12 = 2, r15 = 3, rdx = 4, r10 = 5;
    __asm__ volatile("mov $39, %%eax\n\tmov $11, %%rbx\n\tmov $12, %%r12\n\tmov $15, %%r15\n\tmov $22, %%rdx\n\t"
                     "mov $33, %%r10\n\tsyscall\n\tmov %%rbx, %0\n\tmov %%r12, %1\n\tmov %%r15, %2\n\tmov %%rdx, %3\n\t"
                     "mov %%r10, %4"
                     : "=m"(rbx), "=m"(r12), "=m"(r15), "=m"(rdx), "=m"(r10)::"rax", "rbx", "rcx", "rdx", "r10", "r11",
                       "r12", "r15", "memory");
    say("%lu %lu %lu %lu %lu", rbx, r12, r15, rdx, r10);
    unsigned long rcx_is_rip, r11_is_flags;
    __asm__ volatile("mov $39, %%eax\n\tsyscall\n1:\tlea 1b(%%rip), %%rdx\n\tsub %%rdx, %%rcx\n\tmov %%rcx, %0\n\tmov %%r11, %1"
                     : "=m"(rcx_is_rip), "=m"(r11_is_flags)::"rax", "rcx", "rdx", "r11", "memory");
    say("rcx-rip %ld, r11 has the flags %d", rcx_is_rip, (r11_is_flags & 0x202) == 0x202);
    return 0;
}
