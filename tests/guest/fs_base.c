/* The FS base, as a program sets it by a call and by an instruction, and what calls leave of it. */
#include "check.h"

#include <asm/prctl.h>
#include <sys/auxv.h>

#define ROUNDS 4000

static uint64_t area[16];

static inline __attribute__((always_inline)) uint64_t get_base(void)
{
    uint64_t value;
    __asm__ volatile("rdfsbase %0" : "=r"(value));
    return value;
}

static inline __attribute__((always_inline)) void put_base(uint64_t value)
{
    __asm__ volatile("wrfsbase %0" ::"r"(value));
}

static inline __attribute__((always_inline)) long set_by_call(uint64_t value)
{
    long result;
    __asm__ volatile("mov $158, %%eax; syscall"
                     : "=&a"(result)
                     : "D"(ARCH_SET_FS), "S"(value)
                     : "rcx", "r11", "memory");
    return result;
}

static inline __attribute__((always_inline)) long get_parent(void)
{
    long result;
    __asm__ volatile("mov $110, %%eax; syscall" : "=&a"(result)::"rcx", "r11", "memory");
    return result;
}

/* Nothing here may look at thread-local storage. */
__attribute__((noinline, optimize("no-stack-protector"))) static int by_call(void)
{
    const uint64_t own = get_base();
    int right = 0;
    for (int i = 0; i < ROUNDS; i++) {
        const uint64_t other = (uint64_t)(area + i % 16);
        long first = set_by_call(other);
        uint64_t seen = get_base();
        long second = set_by_call(own);
        right += first == 0 && seen == other && second == 0 && get_base() == own;
    }
    return right;
}

__attribute__((noinline, optimize("no-stack-protector"))) static int by_instruction(void)
{
    const uint64_t own = get_base();
    int right = 0;
    for (int i = 0; i < ROUNDS; i++) {
        const uint64_t other = (uint64_t)(area + i % 16);
        put_base(other);
        get_parent();
        right += get_base() == other;
    }
    put_base(own);
    return right;
}

int main(void)
{
    NEED(getauxval(AT_HWCAP2) & 2);
    say("by call: %d of %d", by_call(), ROUNDS);
    say("by instruction: %d of %d", by_instruction(), ROUNDS);
    SHOW(syscall(SYS_arch_prctl, ARCH_SET_FS, 0x7ffffffff000ul));
    SHOW(syscall(SYS_arch_prctl, ARCH_SET_FS, ~0ul));
    return 0;
}
