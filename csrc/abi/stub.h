/* Where the stub lies in every guest address space.
 *
 * Included by assembler and C, so plain numbers only.  Everything of ours in a stub process lies between
 * STUB_BASE and the end of user space: the stub's code, on the `trap` platform also a page that the
 * engine writes and all stubs read, and one record a thread (csrc/abi/record.h).
 */
#pragma once

#define STUB_BASE 0x7fff00000000 /* == GUEST_TOP of sentry/platform/base.py */
#define STUB_SIZE 0x4000
#define STUB_SYSCALL_OFFSET 0  /* syscall; int3 */
#define STUB_CMPXCHG_OFFSET 16 /* lock cmpxchg %ecx, (%rdi); int3 */
#define STUB_TASK_END 0x7ffffffff000 /* TASK_SIZE with four-level page tables */

/* Only `trap` uses what follows. */
#define STUB_SIGNAL_OFFSET 32  /* the handler of every signal */
#define STUB_PATCHED_OFFSET 40 /* where trampolines jump to */
#define STUB_NEWBORN_OFFSET 48 /* where the zygote starts: rbx the record, rsp the top of its stack */
#define SHARED_PAGE 0x7fff00010000  /* struct shared_page, read-only here */
#define RECORDS_BASE 0x7fff01000000
#define RECORDS_END 0x7fffff000000
#define RECORD_SIZE 0x20000 /* their alignment, too: a stack pointer tells the record */
