// The address-space layout of a guest's host process and the protocol between sentry and stub.
// Included from C++, C and assembler: #defines only.
#pragma once
//
//   kStub   stub text, r-x, the stub's ELF image itself; it holds the threads' seccomp filter
//   kArea   one memfd per process, MAP_SHARED, rw for the guest: a header for the spawner, then one
//           slot per host thread. Hostile input for the sentry, and nothing in it can make a thread
//           of the process do what its filter does not allow.
//   kAlt    private: one signal stack per host thread
// No call of the guest on its address space may touch [MOAT_STUB_BASE, MOAT_STUB_END).

#define MOAT_STUB_BASE 0x7ffffc000000
#define MOAT_AREA_BASE 0x7ffffc100000
#define MOAT_ALT_BASE 0x7ffffd000000
#define MOAT_ALT_SHIFT 15
#define MOAT_MAX_THREADS 256
#define MOAT_STUB_END 0x7ffffd800000 /* MOAT_ALT_BASE + MOAT_MAX_THREADS << MOAT_ALT_SHIFT */

#define MOAT_HEADER_SIZE 0x4000
#define MOAT_SLOT_SHIFT 14 /* 16 KiB */
#define MOAT_AREA_SIZE (MOAT_HEADER_SIZE + (MOAT_MAX_THREADS << MOAT_SLOT_SHIFT))

/* At which number a process that forks is lent the memfd of its child's area, for as long as the
   clone takes, and the first of the numbers at which files are lent for one mapping. Guests' own
   numbers mean nothing to the host, so these are small: beyond 64 the host would grow the
   descriptor table, which with several threads waits for an RCU grace period (15 ms at each
   execve), and would be copied by every fork. Above what listeners of new threads get. */
#define MOAT_AREA_FD 56
#define MOAT_LEND_FD 57

/* The "system call" by which the stub talks to the sentry; no such call exists on the host. */
#define MOAT_EVENT 0x7000
/* A pseudo call in a batch: copy `rdx` bytes from `rsi` to `rdi` inside the process. */
#define MOAT_COPY 0x7001
/* Host signal that brings a thread into the stub: SIGUSR1 of the host, unseen by the guest. */
#define MOAT_KICK 10

/* EVENT(kind, a, b, ...): kind is a host signal number (a: si_code, b: si_addr) or one of: */
#define MOAT_EV_BATCH 1000  /* a: last result, b: orders left undone */
#define MOAT_EV_START 1001  /* a thread with a listener of its own has come to be; a: its slot */
#define MOAT_EV_CHILD 1002  /* a cloned thread, still on its parent's slot */
#define MOAT_EV_FORKED 1003 /* a cloned process; a: where it mapped its own area, or -errno */
/* The sentry's answer: 0 loads the slot's registers and goes to the guest; 1..32 runs that many of
   the slot's orders. What the host answers when it has lent a descriptor: MOAT_AREA_FD forks,
   MOAT_LEND_FD runs as many orders as the slot's MOAT_S_COUNT says. 4096+slot moves to another
   slot, then runs one of its orders; 2048 copies as its first order says and then goes to the
   guest. */
#define MOAT_COPY_AND_RESUME 2048
#define MOAT_MOVE 4096

/* Header: offsets */
#define MOAT_H_SEQ 0       /* u32: number of the newest order; futex word of the spawner */
#define MOAT_H_KIND 4      /* u32 */
#define MOAT_H_SLOT 8      /* u32: slot of the thread to be made */
#define MOAT_H_DONE 16     /* u32: order done; futex word of the sentry */
#define MOAT_H_RESULT 24   /* i64: zygote: pid; else the listener's descriptor or -errno */
#define MOAT_H_CHILD_FD 32 /* i64: zygote: memfd of the child's area, in the child */
#define MOAT_KIND_THREAD 1
#define MOAT_KIND_ZYGOTE 2 /* only as the very first order of a process */
#define MOAT_KIND_FORK 3   /* zygotes only */

/* Slot: offsets */
#define MOAT_S_REGISTERS 0    /* 23 registers in signal frame order, fs base, gs base */
#define MOAT_S_FPSTATE 200    /* address of the FPU part of the frame; 0: clean FPU */
#define MOAT_S_FRAME 208      /* out: address of the ucontext, for copying FPU state */
#define MOAT_S_STACK 0x100    /* stack_t of this thread's signal stack */
#define MOAT_S_COUNT 0x120    /* u32: orders to run with what was lent */
#define MOAT_S_ORDERS 0x400   /* 32 orders of 64 bytes: nr, 6 arguments, padding */
#define MOAT_S_MARSHAL 0x1000 /* 12 KiB */
#define MOAT_ORDER_COUNT 32

/* Room in the stub's text for the threads' filter, in instructions. */
#define MOAT_FILTER_SIZE 160

/* Where the first frame of a new thread is built, below the top of its signal stack: room above it
   for an inherited FPU state. */
#define MOAT_FIRST_FRAME 0x4000
