// First code of the root zygote: maps area and signal stacks, sets the handlers, blocks all host
// signals, installs the base filter, drops every other descriptor and becomes a zygote.
// Freestanding; runs once, before any guest code exists.
#include <asm/unistd_64.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#include "layout.h"

extern char stub_zygote[] __attribute__((visibility("hidden")));
extern char stub_handler[] __attribute__((visibility("hidden")));
extern char stub_restorer[] __attribute__((visibility("hidden")));
extern char stub_text_end[] __attribute__((visibility("hidden")));

static inline long call(long nr, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static void require(long result, int code) {
    if (result < 0) {
        call(__NR_exit_group, code, 0, 0, 0, 0, 0);
    }
}

struct kernel_sigaction {
    void* handler;
    unsigned long flags;
    void* restorer;
    unsigned long mask;
};

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF_EQUAL(k, t, f) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (k), (t), (f))
#define RETURN(k) BPF_STMT(BPF_RET | BPF_K, (k))

__attribute__((used)) void stub_start_c(void) {
    // The sentry leaves the area's memfd at MOAT_AREA_FD.
    require(call(__NR_mmap, MOAT_AREA_BASE, MOAT_AREA_SIZE, 3, 0x11, MOAT_AREA_FD, 0), 41);
    // PRIVATE | ANONYMOUS | FIXED | NORESERVE
    require(
        call(__NR_mmap, MOAT_ALT_BASE, (long)MOAT_MAX_THREADS << MOAT_ALT_SHIFT, 3, 0x4032, -1, 0),
        42);
    // SIGINFO | ONSTACK | RESTORER | RESTART: a kick before the sentry has received a notification
    // makes the call restart and notify again.
    struct kernel_sigaction action = {stub_handler, 0x4 | 0x08000000 | 0x04000000 | 0x10000000,
                                      stub_restorer, ~0ul};
    const int signals[] = {31, 11, 7, 8, 4, 5, MOAT_KICK};  // SYS SEGV BUS FPE ILL TRAP, the kick
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) {
        require(call(__NR_rt_sigaction, signals[i], (long)&action, 0, 8, 0, 0), 43);
    }
    unsigned long all = ~0ul;
    require(call(__NR_rt_sigprocmask, 2, (long)&all, 0, 8, 0, 0), 44);
    require(call(__NR_prctl, 1, 9, 0, 0, 0, 0), 45);   // PR_SET_PDEATHSIG, SIGKILL
    require(call(__NR_prctl, 38, 1, 0, 0, 0, 0), 46);  // PR_SET_NO_NEW_PRIVS
    call(__NR_close_range, 0, ~0u, 0, 0, 0, 0);
    // mseal(2), Linux 6.10: not even a call that slips past the sentry's range check unmaps the
    // text.
    call(462, MOAT_STUB_BASE, ((long)stub_text_end - MOAT_STUB_BASE + 4095) & ~4095l, 0, 0, 0, 0);
    // The base filter: what spawners and zygotes need. Its default is USER_NOTIF without a
    // listener, which the host answers with ENOSYS. In guest threads the newer filter says
    // USER_NOTIF too and wins as the newer one, so this default costs them nothing; what that
    // filter allows must be allowed here as well.
    struct sock_filter filter[] = {
        LOAD(arch),
        IF_EQUAL(AUDIT_ARCH_X86_64, 1, 0),
        RETURN(SECCOMP_RET_KILL_PROCESS),
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
        RETURN(SECCOMP_RET_KILL_PROCESS),
        IF_EQUAL(__NR_futex, 15, 0),
        IF_EQUAL(__NR_clone, 14, 0),
        IF_EQUAL(__NR_mmap, 13, 0),
        IF_EQUAL(__NR_munmap, 12, 0),
        IF_EQUAL(__NR_mprotect, 11, 0),
        IF_EQUAL(__NR_mremap, 10, 0),
        IF_EQUAL(__NR_brk, 9, 0),
        IF_EQUAL(__NR_madvise, 8, 0),
        IF_EQUAL(__NR_rt_sigreturn, 7, 0),
        IF_EQUAL(__NR_close, 6, 0),
        IF_EQUAL(__NR_sigaltstack, 5, 0),
        IF_EQUAL(__NR_seccomp, 4, 0),
        IF_EQUAL(__NR_memfd_create, 3, 0),
        IF_EQUAL(__NR_ftruncate, 2, 0),
        IF_EQUAL(__NR_prctl, 1, 0),
        RETURN(SECCOMP_RET_USER_NOTIF),
        RETURN(SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    require(call(__NR_seccomp, 1, 0, (long)&program, 0, 0, 0), 47);
}

// Then drops the initial stack, which nothing of ours needs. ADDR_NO_RANDOMIZE fixes where it is.
__asm__(
    ".globl _start\n_start:\n"
    "  xor %ebp, %ebp\n"
    "  and $-16, %rsp\n"
    "  call stub_start_c\n"
    "  movabs $0x7fffff000000, %rdi\n"
    "  mov $0xfff000, %esi\n"
    "  mov $11, %eax\n"  // munmap
    "  syscall\n"
    "  xor %r14d, %r14d\n"
    "  jmp stub_zygote\n");
