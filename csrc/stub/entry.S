/* The ways in and out of the stub's C code on the `trap` platform.
 *
 *   in:   stub_signal_entry   the handler of every signal, on the record's stack
 *         stub_patched_entry  the jump from a patched call site
 *         newborn             a thread or process that ORDER_CLONE has made
 *   out:  leave               by rt_sigreturn, or by loading the registers (record.path)
 *
 * A kick is a signal, and one that comes between the last look at record.kick and the return to the guest
 * would be lost.  So those stretches stand between pairs of labels, and the handler moves a thread that it finds
 * in one to the code behind `kicked`.  The same goes for the look before a sleep in the host's futex.
 */
#include "record.h"

#define SYS_rt_sigreturn 15
#define SYS_mmap 9
#define SYS_close 3
#define SYS_madvise 28
#define SYS_exit 60
#define MADV_DONTFORK 10

        .section .text, "ax"

/* rdi signo, rsi siginfo, rdx ucontext */
        .globl  stub_signal_entry
stub_signal_entry:
        cld
        mov     %rsp, %rcx
        and     $-RECORD_SIZE, %rcx
        mov     %rcx, %rbx
        mov     %rdx, %r12
        sub     $8, %rsp
        call    stub_signal
        test    %eax, %eax
        jnz     leave
        mov     %r12, %rsp
        mov     $SYS_rt_sigreturn, %eax
        syscall
        ud2

/* From a trampoline: r11d the number, rcx the address to go on at, ax the flags by lahf and seto. */
        .globl  stub_patched_entry
stub_patched_entry:
        mov     %rsp, %gs:R_RSP
        mov     %rbx, %gs:R_RBX
        mov     %gs:R_SELF, %rbx
        lea     RECORD_STACK_TOP(%rbx), %rsp
        mov     %r11, R_ORIG_RAX(%rbx)
        mov     %r11, R_RAX(%rbx)
        add     $0x7f, %al
        sahf
        pushfq
        popq    R_EFLAGS(%rbx)
        cld
        mov     %r15, R_R15(%rbx)
        mov     %r14, R_R14(%rbx)
        mov     %r13, R_R13(%rbx)
        mov     %r12, R_R12(%rbx)
        mov     %rbp, R_RBP(%rbx)
        mov     %r10, R_R10(%rbx)
        mov     %r9, R_R9(%rbx)
        mov     %r8, R_R8(%rbx)
        mov     %rcx, R_RCX(%rbx)
        mov     %rcx, R_RIP(%rbx)
        mov     %rdx, R_RDX(%rbx)
        mov     %rsi, R_RSI(%rbx)
        mov     %rdi, R_RDI(%rbx)
        mov     R_EFLAGS(%rbx), %rax
        mov     %rax, R_R11(%rbx)
        mov     %rbx, %rdi
        call    stub_patched
        jmp     leave

/* rbx: the record */
        .globl  leave
leave:
        mov     %rbx, %rdi
        call    stub_prepare_leave
        test    %eax, %eax
        jz      leave_signal
        cmp     $1, %eax
        jne     leave_iret

/* All but rsp and rbx, which is the record. */
        .macro  load_registers
        mov     R_R15(%rbx), %r15
        mov     R_R14(%rbx), %r14
        mov     R_R13(%rbx), %r13
        mov     R_R12(%rbx), %r12
        mov     R_RBP(%rbx), %rbp
        mov     R_R11(%rbx), %r11
        mov     R_R10(%rbx), %r10
        mov     R_R9(%rbx), %r9
        mov     R_R8(%rbx), %r8
        mov     R_RAX(%rbx), %rax
        mov     R_RCX(%rbx), %rcx
        mov     R_RDX(%rbx), %rdx
        mov     R_RSI(%rbx), %rsi
        mov     R_RDI(%rbx), %rdi
        .endm

leave_direct:
        .globl  window_direct_start
window_direct_start:
        cmpl    $0, R_KICK(%rbx)
        jne     kicked
        pushq   R_EFLAGS(%rbx)
        popfq
        load_registers
        mov     R_RSP(%rbx), %rsp
        mov     R_RBX(%rbx), %rbx
        jmp     *%gs:R_RIP
        .globl  window_direct_end
window_direct_end:

/* The guest has a gs base of its own, or wants to be single-stepped. */
leave_iret:
        pushq   R_SS(%rbx)
        pushq   R_RSP(%rbx)
        pushq   R_EFLAGS(%rbx)
        pushq   R_CS(%rbx)
        pushq   R_RIP(%rbx)
        .globl  window_iret_start
window_iret_start:
        cmpl    $0, R_KICK(%rbx)
        jne     kicked
        load_registers
        mov     R_RBX(%rbx), %rbx
        iretq
        .globl  window_iret_end
window_iret_end:

leave_signal:
        mov     R_FRAME(%rbx), %rsp
        mov     $SYS_rt_sigreturn, %eax
        .globl  window_signal_start
window_signal_start:
        cmpl    $0, R_KICK(%rbx)
        jne     kicked
        syscall
        .globl  window_signal_end
window_signal_end:
        ud2

/* The stub's stack, as it was when the guest was left; rbx: the record. */
        .macro  fresh_stack
        lea     RECORD_STACK_TOP(%rbx), %rsp
        cmpb    $PATH_SIGNAL, R_PATH(%rbx)
        jne     1f
        mov     R_FRAME(%rbx), %rsp
        sub     $256, %rsp
        and     $-16, %rsp
1:
        .endm

/* rbx: the record.  The guest's context stands in it whole (and in the frame), so this is a trap. */
        .globl  kicked
kicked:
        fresh_stack
        mov     %rbx, %rdi
        call    stub_kicked
        jmp     leave

/* The same for a call whose answer failed half-way. */
        .globl  abandoned
abandoned:
        fresh_stack
        mov     %rbx, %rdi
        call    stub_abandoned
        jmp     leave

/* long stub_futex(record, addr, op, value, timeout, addr2, value3): the host's futex(2), or -EINTR where a kick
 * came first.  C passes value3 on the stack. */
        .globl  stub_futex
stub_futex:
        push    %rbx
        mov     %rdi, %rbx
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        mov     %rcx, %rdx
        mov     %r8, %r10
        mov     %r9, %r8
        mov     16(%rsp), %r9
        mov     $202, %eax
        .globl  window_futex_start
window_futex_start:
        cmpl    $0, R_KICK(%rbx)
        jne     stub_futex_abort
        syscall
        .globl  window_futex_end
window_futex_end:
        pop     %rbx
        ret
        .globl  stub_futex_abort
stub_futex_abort:
        mov     $-4, %rax
        pop     %rbx
        ret

/* unsigned long stub_copy(to, from, size): how many bytes could not be copied. */
        .globl  stub_copy
stub_copy:
        mov     %rdx, %rcx
        .globl  copy_start
copy_start:
        rep movsb
        .globl  copy_end
copy_end:
        mov     %rcx, %rax
        ret

/* long stub_copy_string(to, from, size): its length with the NUL, or -1 for a fault or one longer than `size`. */
        .globl  stub_copy_string
stub_copy_string:
        xor     %eax, %eax
1:      cmp     %rdx, %rax
        jae     stub_fault
        .globl  string_start
string_start:
        movzbl  (%rsi,%rax), %ecx
        .globl  string_end
string_end:
        mov     %cl, (%rdi,%rax)
        inc     %rax
        test    %cl, %cl
        jnz     1b
        ret

/* long stub_probe(addr): 0 if the byte can be written, or -1. */
        .globl  stub_probe
stub_probe:
        xor     %eax, %eax
        .globl  probe_start
probe_start:
        lock orb $0, (%rdi)
        .globl  probe_end
probe_end:
        ret

/* long stub_store(addr, value): 0, or -1 for a fault. */
        .globl  stub_store
stub_store:
        xor     %eax, %eax
        .globl  store_start
store_start:
        mov     %rsi, (%rdi)
        .globl  store_end
store_end:
        ret

/* long stub_is_code(addr, code): whether these 8 bytes stand there, or -1 for a fault. */
        .globl  stub_is_code
stub_is_code:
        xor     %eax, %eax
        .globl  code_start
code_start:
        cmp     (%rdi), %rsi
        .globl  code_end
code_end:
        sete    %al
        ret

/* long stub_cmpxchg(addr, expected, new): the old value, or -1 for a fault. */
        .globl  stub_cmpxchg
stub_cmpxchg:
        mov     %esi, %eax
        .globl  cmpxchg_start
cmpxchg_start:
        lock cmpxchg %edx, (%rdi)
        .globl  cmpxchg_end
cmpxchg_end:
        mov     %eax, %eax
        ret

/* long stub_xrstor(area, features): 0, or -1 where the CPU refuses it. */
        .globl  stub_xrstor
stub_xrstor:
        mov     %esi, %eax
        mov     %rsi, %rdx
        shr     $32, %rdx
        .globl  xrstor_start
xrstor_start:
        xrstor64 (%rdi)
        .globl  xrstor_end
xrstor_end:
        xor     %eax, %eax
        ret

        .globl  stub_fault
stub_fault:
        mov     $-1, %rax
        ret

/* long stub_clone(flags, child's record, offset of the record in the child's memfd, where its id goes) */
        .globl  stub_clone
stub_clone:
        push    %rbx
        push    %r12
        push    %r13
        mov     %rsi, %rbx
        mov     %rdx, %r12
        mov     %rdi, %r13
        xor     %esi, %esi
        mov     %rcx, %rdx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        xor     %r9d, %r9d
        mov     $56, %eax
        syscall
        test    %rax, %rax
        jz      newborn
        pop     %r13
        pop     %r12
        pop     %rbx
        ret

/* No stack yet: the record that it is to lie in is mapped first, from the descriptor that came with the clone. */
newborn:
        mov     %rbx, %rdi
        mov     $RECORD_SIZE, %esi
        mov     $3, %edx        /* PROT_READ | PROT_WRITE */
        mov     $0x11, %r10d    /* MAP_SHARED | MAP_FIXED */
        mov     $LENT_FD, %r8d
        mov     %r12, %r9
        mov     $SYS_mmap, %eax
        syscall
        cmp     %rbx, %rax
        jne     die
        mov     $LENT_FD, %edi
        mov     $SYS_close, %eax
        syscall
        mov     %rbx, %rdi
        mov     $RECORD_SIZE, %esi
        mov     $MADV_DONTFORK, %edx
        mov     $SYS_madvise, %eax
        syscall
        fresh_stack             /* with a frame: that has been copied from the parent's record */
        /* Where the zygote starts, too. */
        .globl  stub_newborn_entry
stub_newborn_entry:
        mov     %rbx, %rdi
        call    stub_newborn
        jmp     leave

/* void stub_exit(state word): say that the record is free, and end.  Nothing of the record is used after. */
        .globl  stub_exit
stub_exit:
        mov     $RECORD_DONE, %eax
        xchg    %eax, (%rdi)
die:
        xor     %edi, %edi
        mov     $SYS_exit, %eax
        syscall
        ud2

        .section .note.GNU-stack, "", @progbits
