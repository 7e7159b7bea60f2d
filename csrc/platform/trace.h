/* ptrace(2) without glibc's prototype: the raw call, the raw error. */
#pragma once
#include <asm/ptrace-abi.h> /* PTRACE_SYSEMU, PTRACE_GETREGS */
#include <errno.h>
#include <linux/ptrace.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline int trace(long request, int pid, uintptr_t addr, const void *data)
{
    return syscall(SYS_ptrace, request, (long)pid, addr, data) < 0 ? -errno : 0;
}

#define CODE_SELECTOR 0x33 /* __USER_CS */
#define DATA_SELECTOR 0x2b /* __USER_DS */
#define EFLAGS_FIXED 0x202 /* bit 1 and the interrupt flag */
