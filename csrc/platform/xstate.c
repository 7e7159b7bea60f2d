/* The XSAVE area of a guest: what the host's kernel gives a program that has asked for nothing.
 *
 * XCR0 names more than that where the CPU has AMX: features of 8 KiB and up that a program has to
 * ask for by arch_prctl(ARCH_REQ_XCOMP_PERM), which guests are refused
 * (Documentation/arch/x86/xstate.rst).  A frame on a signal stack is made without them, a regset of
 * ptrace(2) with them; here the size of both is the frame's.
 */
#include "core.h"
#include "platform.h"
#include "trace.h"

#include <cpuid.h>
#include <elf.h>
#include <string.h>
#include <sys/uio.h>

#define XSTATE_LEAF 13
#define ON_DEMAND 4 /* ecx: the feature can be switched off in XFD */
#define HEADER_END 576

/* The feature bits, and the bytes that they take in XSAVE's standard form.  Not cheap: in a virtual
 * machine each CPUID is an exit. */
static void learn(struct engine *e)
{
    uint32_t low, high, size, offset, flags, unused, i;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    e->fp_features = (uint64_t)high << 32 | low;
    e->fpstate_size = HEADER_END;
    for (i = 2; i < 63; i++) {
        if (!(e->fp_features >> i & 1))
            continue;
        __cpuid_count(XSTATE_LEAF, i, size, offset, flags, unused);
        if (flags & ON_DEMAND)
            e->fp_features &= ~(1ull << i);
        else if (offset + size > e->fpstate_size)
            e->fpstate_size = offset + size;
    }
}

static int get(const struct guest_thread *g, uint8_t *state)
{
    struct iovec iov = {state, XSTATE_MAX};
    int r = trace(PTRACE_GETREGSET, g->pid, NT_X86_XSTATE, &iov);
    return r < 0 ? r : (int)iov.iov_len;
}

int xstate_learn(struct engine *e, const struct guest_thread *g)
{
    static uint8_t state[XSTATE_MAX];
    int size = get(g, state);
    if (size < HEADER_END)
        return size < 0 ? size : -ENOSYS;
    learn(e);
    if (e->fpstate_size > (uint32_t)size)
        return -ENOSYS;
    memcpy(&e->mxcsr_mask, state + 28, sizeof e->mxcsr_mask);
    if (!e->mxcsr_mask)
        e->mxcsr_mask = 0xffbf;
    memcpy(e->fp_software, state + XSTATE_SOFTWARE, sizeof e->fp_software);
    memcpy(e->fp_software, &e->fp_features, sizeof e->fp_features);
    return 0;
}

int ptrace_get_fpstate(struct guest_thread *g, void *buffer, uint32_t size)
{
    static uint8_t state[XSTATE_MAX];
    const struct engine *e = of_guest(g)->engine;
    int r;
    if (g->state != THREAD_STOPPED)
        return -ESRCH;
    if (size < e->fpstate_size)
        return -EINVAL;
    r = get(g, state);
    if (r < 0)
        return r;
    memcpy(buffer, state, e->fpstate_size);
    memcpy((char *)buffer + XSTATE_SOFTWARE, e->fp_software, sizeof e->fp_software);
    return (int)e->fpstate_size;
}

int ptrace_set_fpstate(struct guest_thread *g, const void *buffer, uint32_t size)
{
    static uint8_t state[XSTATE_MAX];
    const struct engine *e = of_guest(g)->engine;
    struct iovec iov = {state, 0};
    uint64_t features;
    int r;
    if (g->state != THREAD_STOPPED)
        return -ESRCH;
    if (size != e->fpstate_size)
        return -EINVAL;
    memcpy(&features, (const char *)buffer + 512, sizeof features);
    if (features & ~e->fp_features)
        return -EINVAL;
    r = get(g, state); /* the regset is set whole or not at all */
    if (r < 0)
        return r;
    memcpy(state, buffer, XSTATE_SOFTWARE);
    memcpy(state + 512, (const char *)buffer + 512, size - 512);
    iov.iov_len = (size_t)r;
    return trace(PTRACE_SETREGSET, g->pid, NT_X86_XSTATE, &iov);
}
