/* Where the stub lies in every guest address space.
 *
 * Included by the assembler, by the linker script's counterpart in stub.S and by the engine, so
 * plain numbers only.  The page at STUB_BASE is the only code of ours that a stub process has;
 * the tracer moves a stopped thread's rip to one of the entries and lets it run to the int3.
 */
#pragma once

#define STUB_BASE 0x7ffffc000000 /* == GUEST_TOP of sentry/platform/base.py */
#define STUB_SIZE 0x1000
#define STUB_SYSCALL_OFFSET 0  /* syscall; int3 */
#define STUB_CMPXCHG_OFFSET 16 /* lock cmpxchg %ecx, (%rdi); int3 */
#define STUB_TASK_END 0x7ffffffff000 /* TASK_SIZE with four-level page tables */
