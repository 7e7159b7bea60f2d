/* The stub: one page of code at the top of every guest address space.
 *
 * It never runs by itself.  The tracer points a stopped thread's rip at one of the two
 * sequences below, loads the registers, continues it and waits for the SIGTRAP of the int3.
 * There is no data and no stack: whatever a sequence needs comes in registers.  A guest that
 * jumps here gains nothing, since its own `syscall` instructions trap in the same way.
 */
#include "stub.h"

        .section .text, "ax"
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

        .org    STUB_SIZE, 0xcc
        .section .note.GNU-stack, "", @progbits
