/* What a program asks about its machine and itself: uname, sysinfo, affinity, scheduling, prctl, arch_prctl. */
#include "check.h"

#include <asm/prctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

int main(void)
{
    struct utsname name;
    struct sysinfo info;
    CASE("uname");
    SHOW(uname(&name));
    say("%s %s", name.sysname, name.machine);
    SHOW_IF(name.release[0] >= '1' && name.release[0] <= '9');
    SHOW(syscall(SYS_uname, BAD));
    char host[65];
    SHOW(gethostname(host, sizeof host));
    SHOW(strcmp(host, name.nodename));
    CASE("sysinfo");
    SHOW(sysinfo(&info));
    SHOW_IF(info.totalram > 0 && info.freeram <= info.totalram && info.mem_unit >= 1);
    SHOW_IF(info.procs >= 1);
    SHOW(syscall(SYS_sysinfo, BAD));
    SHOW_IF(sysconf(_SC_NPROCESSORS_ONLN) >= 1);
    say("%ld %ld", sysconf(_SC_PAGESIZE), sysconf(_SC_CLK_TCK));
    CASE("affinity");
    cpu_set_t set, one;
    SHOW_IF(sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) >= 1);
    SHOW_IF(CPU_COUNT(&set) == sysconf(_SC_NPROCESSORS_ONLN));
    CPU_ZERO(&one);
    for (int i = 0; i < 1024; i++)
        if (CPU_ISSET(i, &set)) {
            CPU_SET(i, &one);
            break;
        }
    SHOW(sched_setaffinity(0, sizeof one, &one));
    SHOW_IF(sched_getaffinity(0, sizeof set, &set) == 0 && CPU_EQUAL(&set, &one));
    CPU_ZERO(&one);
    SHOW(sched_setaffinity(0, sizeof one, &one));
    SHOW(sched_getaffinity(1 << 21, sizeof set, &set));
    SHOW(syscall(SYS_sched_getaffinity, 0, 1, &set));
    unsigned cpu = 9999, node = 9999;
    SHOW(syscall(SYS_getcpu, &cpu, &node, NULL));
    SHOW_IF(cpu < 1024 && node < 64);
    SHOW_IF(sched_getcpu() >= 0);
    CASE("scheduling");
    SHOW(sched_yield());
    SHOW(sched_getscheduler(0));
    struct sched_param param;
    SHOW(sched_getparam(0, &param));
    say("%d", param.sched_priority);
    SHOW(sched_get_priority_max(SCHED_FIFO));
    SHOW(sched_get_priority_min(SCHED_FIFO));
    SHOW(sched_get_priority_max(SCHED_OTHER));
    SHOW(sched_get_priority_max(77));
    SHOW(sched_getscheduler(1 << 21));
    param.sched_priority = 5;
    SHOW(sched_setscheduler(0, SCHED_OTHER, &param));
    param.sched_priority = 0;
    SHOW(sched_setscheduler(0, SCHED_BATCH, &param));
    SHOW(sched_getscheduler(0));
    CASE("prctl");
    char text[32] = "";
    SHOW(prctl(PR_SET_NAME, "a name that is too long"));
    SHOW(prctl(PR_GET_NAME, text));
    say("%s", text);
    SHOW(prctl(PR_SET_NAME, BAD));
    SHOW(prctl(PR_GET_NAME, BAD));
    SHOW(prctl(12345, 0, 0, 0, 0));
    SHOW(prctl(PR_GET_DUMPABLE));
    SHOW(prctl(PR_GET_TIMERSLACK) > 0);
    SHOW(prctl(PR_GET_TIMING));
    SHOW(prctl(PR_SET_TIMING, 1));
    SHOW(prctl(PR_GET_SECCOMP));
    SHOW(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    SHOW(prctl(PR_GET_TSC, BAD));
    CASE("arch_prctl");
    unsigned long base = 0, again = 0;
    SHOW(syscall(SYS_arch_prctl, ARCH_GET_FS, &base));
    SHOW_IF(base != 0);
    SHOW(syscall(SYS_arch_prctl, ARCH_SET_GS, 0x12345000));
    SHOW(syscall(SYS_arch_prctl, ARCH_GET_GS, &again));
    say("%#lx", again);
    SHOW(syscall(SYS_arch_prctl, ARCH_SET_FS, base));
    SHOW(syscall(SYS_arch_prctl, ARCH_SET_FS, 1ul << 63));
    SHOW(syscall(SYS_arch_prctl, ARCH_GET_FS, BAD));
    SHOW(syscall(SYS_arch_prctl, 0x9999, 0));
    SHOW(syscall(SYS_arch_prctl, ARCH_SET_GS, 0));
    reap("kept over fork", CHILD(MUST(syscall(SYS_arch_prctl, ARCH_SET_GS, 0x777000));
                                 reap("child", CHILD(syscall(SYS_arch_prctl, ARCH_GET_GS, &again);
                                                     say("%#lx", again)))));
    CASE("personality");
    SHOW(personality(0xffffffff));
    SHOW(personality(ADDR_NO_RANDOMIZE));
    SHOW(personality(0xffffffff));
    SHOW(personality(0));
    CASE("umask and ids");
    SHOW(umask(0123));
    SHOW(umask(07777));
    SHOW(umask(022));
    SHOW_IF(getpid() == (pid_t)syscall(SYS_getpid) && gettid() == (pid_t)syscall(SYS_gettid));
    SHOW_IF(getuid() == (uid_t)syscall(SYS_getuid) && geteuid() == (uid_t)syscall(SYS_geteuid));
    CASE("membarrier, rseq and other questions of a libc");
    SHOW_IF(syscall(SYS_membarrier, 0, 0, 0) >= -1);
    SHOW(syscall(SYS_membarrier, 1 << 30, 0, 0));
    SHOW(syscall(SYS_get_mempolicy, NULL, NULL, 0, NULL, 0) <= 0);
    SHOW(syscall(SYS_ioprio_get, 1, 0));
    SHOW(syscall(SYS_kcmp, getpid(), getpid(), 99, 0, 0));
    return 0;
}
