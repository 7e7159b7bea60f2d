/* The stub's entries for the ptrace platform, and for booting either platform.
 *
 * They never run by themselves.  The tracer points a stopped thread's rip at one of the two
 * sequences below, loads the registers, continues it and waits for the SIGTRAP of the int3.
 * There is no data and no stack: whatever a sequence needs comes in registers.  A guest that
 * jumps here gains nothing, since its own `syscall` instructions trap in the same way.
 */
#include "stub.h"

        .section .text.first, "ax"
        .globl  stub_start
stub_start:
        .org    STUB_SYSCALL_OFFSET
        syscall
        /* The program's entry point: exec ends in the first int3, where the tracer takes over. */
        .globl  stub_entry
stub_entry:
        int3

        .org    STUB_CMPXCHG_OFFSET, 0xcc
        lock cmpxchg %ecx, (%rdi)
        int3

        .org    STUB_SIGNAL_OFFSET, 0xcc
        jmp     stub_signal_entry
        .org    STUB_PATCHED_OFFSET, 0xcc
        jmp     stub_patched_entry
        .org    STUB_NEWBORN_OFFSET, 0xcc
        jmp     stub_newborn_entry

        .section .note.GNU-stack, "", @progbits
