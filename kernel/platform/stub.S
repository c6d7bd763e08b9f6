// The stub: the only code of ours in a guest's host process. It has no stack, no writable data and
// never touches the FPU. A guest may jump anywhere into it: every call it can make that way meets the
// calling thread's filter, whose border is the arguments, not the place.
//
//   spawner   the first host thread of a process that came from a zygote. Its filter is only the
//             process's base filter, so threads that it makes can have listeners of their own.
//   handler   the one handler of all host signals of a guest thread: reports to the sentry by EVENT,
//             with the registers in the thread's slot, and obeys the answer.
#include <asm/unistd_64.h>

#include "layout.h"

        .text
        .globl  stub_zygote, stub_handler, stub_restorer

// ---------------------------------------------------------------- zygote: r14 = last order obeyed
stub_zygote:
        movabs  $MOAT_AREA_BASE, %r15
zygote_loop:
        mov     MOAT_H_SEQ(%r15), %eax
        cmp     %r14d, %eax
        jne     1f
        lea     MOAT_H_SEQ(%r15), %rdi
        xor     %esi, %esi                      // FUTEX_WAIT
        mov     %r14d, %edx
        xor     %r10d, %r10d
        mov     $__NR_futex, %eax
        syscall
        jmp     zygote_loop
1:      mov     %eax, %r14d
        mov     $0x8011, %edi                   // CLONE_PARENT | SIGCHLD: a child of the sentry
        xor     %esi, %esi
        xor     %edx, %edx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        mov     $__NR_clone, %eax
        syscall
        test    %rax, %rax
        jz      child_birth
        js      2f
        mov     %rax, MOAT_H_RESULT(%r15)       // the child says "done", once its area exists
        lea     MOAT_H_RESULT(%r15), %rdi
        mov     $1, %esi                        // FUTEX_WAKE
        mov     $1, %edx
        mov     $__NR_futex, %eax
        syscall
        jmp     zygote_loop
2:      mov     %rax, MOAT_H_RESULT(%r15)
        mov     %r14d, MOAT_H_DONE(%r15)
        lea     MOAT_H_DONE(%r15), %rdi
        mov     $1, %esi                        // FUTEX_WAKE
        mov     $1, %edx
        mov     $__NR_futex, %eax
        syscall
        jmp     zygote_loop

// A new process: makes its own area, tells the sentry through the zygote's, maps its own over it.
child_birth:
        lea     area_name(%rip), %rdi
        mov     $1, %esi                        // MFD_CLOEXEC
        mov     $__NR_memfd_create, %eax
        syscall
        mov     %rax, %r13
        mov     %rax, %rdi
        mov     $MOAT_AREA_SIZE, %esi
        mov     $__NR_ftruncate, %eax
        syscall
        mov     $__NR_prctl, %eax               // PR_SET_PDEATHSIG, SIGKILL: not inherited
        mov     $1, %edi
        mov     $9, %esi
        syscall
        mov     %r13, MOAT_H_CHILD_FD(%r15)
        mov     %r14d, MOAT_H_DONE(%r15)
        lea     MOAT_H_DONE(%r15), %rdi
        mov     $1, %esi
        mov     $1, %edx
        mov     $__NR_futex, %eax
        syscall
        mov     %r15, %rdi
        mov     $MOAT_AREA_SIZE, %esi
        mov     $3, %edx                        // PROT_READ | PROT_WRITE
        mov     $0x11, %r10d                    // MAP_SHARED | MAP_FIXED
        mov     %r13, %r8
        xor     %r9d, %r9d
        mov     $__NR_mmap, %eax
        syscall
        xor     %r14d, %r14d

// ---------------------------------------------------------------- spawner: makes threads
spawner_loop:
        mov     MOAT_H_SEQ(%r15), %eax
        cmp     %r14d, %eax
        jne     1f
        lea     MOAT_H_SEQ(%r15), %rdi
        xor     %esi, %esi
        mov     %r14d, %edx
        xor     %r10d, %r10d
        mov     $__NR_futex, %eax
        syscall
        jmp     spawner_loop
1:      mov     %eax, %ebx
        test    %r13, %r13                      // first order: the sentry has its copy of the memfd
        js      2f
        mov     %r13, %rdi
        mov     $__NR_close, %eax
        syscall
        mov     $-1, %r13
        mov     %ebx, %r14d
        cmpl    $MOAT_KIND_ZYGOTE, MOAT_H_KIND(%r15)
        jne     2f                              // never later: a guest writes to the header, too
        mov     %r14d, MOAT_H_DONE(%r15)        // before that the next order would be a spawner's
        lea     MOAT_H_DONE(%r15), %rdi
        mov     $1, %esi
        mov     $1, %edx
        mov     $__NR_futex, %eax
        syscall
        jmp     zygote_loop
2:      mov     %ebx, %r14d
        mov     MOAT_H_SLOT(%r15), %ebp
        and     $(MOAT_MAX_THREADS - 1), %ebp
        mov     $0x50f00, %edi                  // VM|FS|FILES|SIGHAND|THREAD|SYSVSEM
        xor     %esi, %esi
        xor     %edx, %edx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        mov     $__NR_clone, %eax
        syscall
        test    %rax, %rax
        jz      new_thread
        jns     spawner_loop                    // the thread itself says "done"
        mov     %rax, MOAT_H_RESULT(%r15)
        mov     %r14d, MOAT_H_DONE(%r15)
        lea     MOAT_H_DONE(%r15), %rdi
        mov     $1, %esi
        mov     $1, %edx
        mov     $__NR_futex, %eax
        syscall
        jmp     spawner_loop

new_thread:                                     // ebp = slot; all host signals are blocked here
        mov     %ebp, %r12d
        shl     $MOAT_SLOT_SHIFT, %r12
        lea     MOAT_HEADER_SIZE(%r15,%r12), %rbx  // our slot
        mov     %ebp, %r12d
        shl     $MOAT_ALT_SHIFT, %r12
        movabs  $(MOAT_ALT_BASE + (1 << MOAT_ALT_SHIFT) - MOAT_FIRST_FRAME), %rax
        add     %rax, %r12                      // our first frame
        lea     MOAT_S_STACK(%rbx), %rdi
        xor     %esi, %esi
        mov     $__NR_sigaltstack, %eax
        syscall
        mov     $1, %edi                        // SECCOMP_SET_MODE_FILTER
        mov     $0x28, %esi                     // NEW_LISTENER | WAIT_KILLABLE_RECV
        lea     stub_filter_program(%rip), %rdx
        mov     $__NR_seccomp, %eax
        syscall
        mov     %rax, %r13
        mov     %rax, MOAT_H_RESULT(%r15)
        mov     %r14d, MOAT_H_DONE(%r15)
        lea     MOAT_H_DONE(%r15), %rdi
        mov     $1, %esi
        mov     $1, %edx
        mov     $__NR_futex, %eax
        .globl  stub_wake_instruction
stub_wake_instruction:
        syscall                                 // allowed by its arguments
        mov     $MOAT_EV_START, %edi
        mov     %ebp, %esi
        xor     %edx, %edx
        mov     $MOAT_EVENT, %eax
        .globl  stub_start_instruction
stub_start_instruction:
        syscall                                 // answered once the sentry has its copy of the listener
        mov     %rax, %rbp
        mov     %r13, %rdi
        mov     $__NR_close, %eax
        .globl  stub_close_instruction
stub_close_instruction:
        syscall                                 // allowed by its place: harms at most the caller itself
        mov     %rbp, %rax
        jmp     obey

// ---------------------------------------------------------------- handler
// In: rdi = signal, rsi = &siginfo, rdx = &ucontext on this thread's signal stack.
// r12 = ucontext, rbx = slot, from here to the end.
stub_handler:
        mov     %rdx, %r12
        movabs  $MOAT_ALT_BASE, %rax
        mov     %rdx, %rbx
        sub     %rax, %rbx
        shr     $MOAT_ALT_SHIFT, %rbx
        and     $(MOAT_MAX_THREADS - 1), %ebx
        shl     $MOAT_SLOT_SHIFT, %rbx
        movabs  $(MOAT_AREA_BASE + MOAT_HEADER_SIZE), %rax
        add     %rax, %rbx
        mov     %edi, %ebp
        mov     %rsi, %r14
        // registers: the ucontext's 23 to the slot (ucontext + 40)
        lea     40(%r12), %rsi
        mov     %rbx, %rdi
        mov     $23, %ecx
        cld
        rep movsq
        rdfsbase %rax
        mov     %rax, 184(%rbx)
        rdgsbase %rax
        mov     %rax, 192(%rbx)
        mov     224(%r12), %rax                 // fpstate
        mov     %rax, MOAT_S_FPSTATE(%rbx)
        mov     %r12, MOAT_S_FRAME(%rbx)
        mov     %ebp, %edi
        movslq  8(%r14), %rsi                   // si_code
        mov     16(%r14), %rdx                  // si_addr or si_call_addr
event:  mov     $MOAT_EVENT, %eax
        .globl  stub_event_instruction
stub_event_instruction:
        syscall
obey:   test    %rax, %rax
        jz      resume
        cmp     $MOAT_MOVE, %rax
        jae     move
        cmp     $MOAT_COPY_AND_RESUME, %rax
        je      copy_and_resume
        cmp     $MOAT_AREA_FD, %rax
        je      fork
        lea     MOAT_S_ORDERS(%rbx), %r14
        cmp     $MOAT_LEND_FD, %rax
        jne     1f
        mov     MOAT_S_COUNT(%rbx), %eax
1:      mov     %eax, %r13d
batch:  mov     0(%r14), %rax
        mov     8(%r14), %rdi
        mov     16(%r14), %rsi
        mov     24(%r14), %rdx
        cmp     $MOAT_COPY, %rax
        je      copy
        mov     32(%r14), %r10
        mov     40(%r14), %r8
        mov     48(%r14), %r9
        mov     %eax, %ebp
        .globl  stub_batch_instruction
stub_batch_instruction:
        syscall
        test    %ebp, %ebp
        js      forked
        cmp     $__NR_clone, %ebp
        jne     2f
        test    %rax, %rax
        jz      cloned
2:      add     $64, %r14
        dec     %r13d
        jz      3f
        cmp     $-4095, %rax
        jb      batch
3:      mov     $MOAT_EV_BATCH, %edi
        mov     %rax, %rsi
        mov     %r13, %rdx
        jmp     event
copy:   mov     %rdx, %rcx
        cld
        rep movsb
        xor     %eax, %eax
        jmp     2b
cloned: mov     $MOAT_EV_CHILD, %edi            // touches nothing: the slot is still the parent's
        xor     %esi, %esi
        xor     %edx, %edx
        jmp     event

// The child maps its own area over its copy of the parent's mapping before it reports; nothing here
// comes from memory or registers that the guest may have set. Both drop their number of the memfd.
fork:   mov     $0x8011, %edi                   // CLONE_PARENT | SIGCHLD: a child of the sentry
        xor     %esi, %esi
        xor     %edx, %edx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        xor     %r9d, %r9d
        mov     $__NR_clone, %eax
        mov     $-1, %ebp                       // not an order of the slot's
        jmp     stub_batch_instruction
forked: mov     %rax, %r14
        test    %rax, %rax
        jnz     1f
        movabs  $MOAT_AREA_BASE, %rdi
        mov     $MOAT_AREA_SIZE, %esi
        mov     $3, %edx                        // PROT_READ | PROT_WRITE
        mov     $0x11, %r10d                    // MAP_SHARED | MAP_FIXED
        mov     $MOAT_AREA_FD, %r8d
        xor     %r9d, %r9d
        mov     $__NR_mmap, %eax
        .globl  stub_map_instruction
stub_map_instruction:
        syscall                                 // allowed by its arguments
        mov     %rax, %r13
1:      mov     $MOAT_AREA_FD, %edi
        mov     $__NR_close, %eax
        .globl  stub_fork_close_instruction
stub_fork_close_instruction:
        syscall                                 // allowed by its place, as the other
        mov     $MOAT_EV_BATCH, %edi
        mov     %r14, %rsi
        xor     %edx, %edx
        test    %r14, %r14
        jnz     event
        mov     $MOAT_EV_FORKED, %edi
        mov     %r13, %rsi
        jmp     event

move:   sub     $MOAT_MOVE, %rax
        and     $(MOAT_MAX_THREADS - 1), %eax
        mov     %eax, %r12d
        shl     $MOAT_ALT_SHIFT, %r12
        movabs  $(MOAT_ALT_BASE + (1 << MOAT_ALT_SHIFT) - MOAT_FIRST_FRAME), %rcx
        add     %rcx, %r12
        mov     %eax, %ebx
        shl     $MOAT_SLOT_SHIFT, %rbx
        movabs  $(MOAT_AREA_BASE + MOAT_HEADER_SIZE), %rcx
        add     %rcx, %rbx
        mov     $1, %eax
        jmp     obey

copy_and_resume:
        mov     MOAT_S_ORDERS+8(%rbx), %rdi
        mov     MOAT_S_ORDERS+16(%rbx), %rsi
        mov     MOAT_S_ORDERS+24(%rbx), %rcx
        cld
        rep movsb
        // Loads the slot's registers into the frame at r12 and returns through it.
resume: movq    $6, 0(%r12)                     // uc_flags: UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
        movq    $0, 8(%r12)
        mov     MOAT_S_STACK(%rbx), %rax        // uc_stack: sigreturn sets the signal stack from it
        mov     %rax, 16(%r12)
        mov     MOAT_S_STACK+8(%rbx), %rax
        mov     %rax, 24(%r12)
        mov     MOAT_S_STACK+16(%rbx), %rax
        mov     %rax, 32(%r12)
        mov     %rbx, %rsi
        lea     40(%r12), %rdi
        mov     $23, %ecx
        cld
        rep movsq
        mov     MOAT_S_FPSTATE(%rbx), %rax
        mov     %rax, 224(%r12)
        test    %rax, %rax
        jz      4f
        orq     $1, 0(%r12)                     // UC_FP_XSTATE
4:      movq    $0, 296(%r12)                   // no host signal is blocked in guest code
        mov     184(%rbx), %rax
        wrfsbase %rax
        mov     192(%rbx), %rax
        wrgsbase %rax
        mov     %r12, %rsp
stub_restorer:
        mov     $__NR_rt_sigreturn, %eax
        .globl  stub_sigreturn_instruction
stub_sigreturn_instruction:
        syscall
        ud2

        .section .rodata
area_name:
        .asciz  "moat-area"
        .balign 8
        // struct sock_fprog and its instructions, written by the sentry into the image before it is
        // executed: the filter of every guest thread lies in sealed text.
        .globl  stub_filter_program, stub_filter
stub_filter_program:
        .quad   0
        .quad   stub_filter
stub_filter:
        .zero   MOAT_FILTER_SIZE * 8
        // On top of it where the sentry has to see every call (filter.h).
        .globl  stub_end_memory_filter_program, stub_end_memory_filter
stub_end_memory_filter_program:
        .quad   0
        .quad   stub_end_memory_filter
stub_end_memory_filter:
        .zero   MOAT_FILTER_SIZE * 8
        .globl  stub_end_futex_filter_program, stub_end_futex_filter
stub_end_futex_filter_program:
        .quad   0
        .quad   stub_end_futex_filter
stub_end_futex_filter:
        .zero   MOAT_FILTER_SIZE * 8
        .section .note.GNU-stack,"",@progbits
