// sigaltstack(2), signal frames, rt_sigreturn(2): registers, floating point, masks, nesting.

#include <fpu_control.h>
#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

void install(int signal, void (*handler)(int, siginfo_t*, void*), int flags = 0) {
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO | flags;
    action.sa_sigaction = handler;
    CHILD_THAT(::sigaction(signal, &action, nullptr), succeeds());
}

alignas(64) char alternate_stack[256 * 1024];

bool on_alternate_stack(const void* address) {
    const char* p = static_cast<const char*>(address);
    return p >= alternate_stack && p < alternate_stack + sizeof alternate_stack;
}

void use_alternate_stack(int flags = 0) {
    const stack_t stack{alternate_stack, flags, sizeof alternate_stack};
    CHILD_THAT(::sigaltstack(&stack, nullptr), succeeds());
}

volatile int seen = 0;
volatile int recursion_sink = 0;
sigjmp_buf jump;

TEST_CASE("sigaltstack: handlers with SA_ONSTACK run there, others do not") {
    in_child([] {
        use_alternate_stack();
        const auto where = [](int, siginfo_t*, void*) {
            volatile char local = 0;
            seen = on_alternate_stack(const_cast<char*>(&local)) ? 1 : 2;
        };
        install(SIGUSR1, where, SA_ONSTACK);
        install(SIGUSR2, where);
        ::raise(SIGUSR1);
        CHILD_CHECK(seen == 1);
        ::raise(SIGUSR2);
        CHILD_CHECK(seen == 2);
    });
}

TEST_CASE("sigaltstack: says SS_ONSTACK inside and refuses a change there") {
    in_child([] {
        use_alternate_stack();
        install(
            SIGUSR1,
            [](int, siginfo_t*, void*) {
                stack_t now;
                ::sigaltstack(nullptr, &now);
                CHILD_CHECK(now.ss_flags & SS_ONSTACK);
                const stack_t none{nullptr, SS_DISABLE, 0};
                CHILD_THAT(::sigaltstack(&none, nullptr), fails_with(EPERM));
                seen = 1;
            },
            SA_ONSTACK);
        ::raise(SIGUSR1);
        CHILD_CHECK(seen == 1);
        stack_t now;
        ::sigaltstack(nullptr, &now);
        CHILD_CHECK(now.ss_flags == 0);
        CHILD_CHECK(now.ss_sp == alternate_stack);
        CHILD_CHECK(now.ss_size == sizeof alternate_stack);
    });
}

TEST_CASE("sigaltstack: too small, unknown flags and bad pointers fail") {
    const stack_t small{alternate_stack, 0, 512};
    CHECK_THAT(::sigaltstack(&small, nullptr), fails_with(ENOMEM));
    const stack_t flags{alternate_stack, 0x40, sizeof alternate_stack};
    CHECK_THAT(::sigaltstack(&flags, nullptr), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_sigaltstack, bad<stack_t>(), nullptr), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_sigaltstack, nullptr, bad<stack_t>()), fails_with(EFAULT));
}

TEST_CASE("sigaltstack: SS_AUTODISARM switches it off inside the handler") {
    in_child([] {
        use_alternate_stack(static_cast<int>(1U << 31));
        install(
            SIGUSR1,
            [](int, siginfo_t*, void*) {
                stack_t now;
                ::sigaltstack(nullptr, &now);
                seen = now.ss_flags & SS_DISABLE ? 1 : 2;
            },
            SA_ONSTACK);
        ::raise(SIGUSR1);
        CHILD_CHECK(seen == 1);
        stack_t now;
        ::sigaltstack(nullptr, &now);
        CHILD_CHECK(now.ss_sp == alternate_stack);  // armed again by the return
    });
}

TEST_CASE("sigaltstack: each thread has its own, a new thread has none") {
    in_child([] {
        use_alternate_stack();
        stack_t other;
        Thread thread([&] { ::sigaltstack(nullptr, &other); });
        thread.join();
        CHILD_CHECK(other.ss_flags & SS_DISABLE);
    });
}

__attribute__((noinline)) int overflow(int depth) {
    volatile char frame[4096];
    frame[0] = static_cast<char>(depth);
    recursion_sink = frame[0];
    return depth < 0 ? 0 : overflow(depth + 1) + frame[0];
}

TEST_CASE("sigaltstack: an overflown stack is caught there and left by siglongjmp, twice") {
    in_child([] {
        use_alternate_stack();
        install(
            SIGSEGV, [](int, siginfo_t*, void*) { siglongjmp(jump, 1); }, SA_ONSTACK);
        for (int round = 0; round < 2; ++round) {
            if (sigsetjmp(jump, 1) == 0) {
                overflow(0);
                CHILD_CHECK(false);
            }
            stack_t now;
            ::sigaltstack(nullptr, &now);
            CHILD_CHECK(!(now.ss_flags & SS_ONSTACK));
        }
    });
}

TEST_CASE("frame: a stack without room kills with SIGSEGV") {
    CHECK(run_in_child([] {
              install(SIGUSR1, [](int, siginfo_t*, void*) {});
              const pid_t pid = ::getpid();
              asm volatile(
                  "mov $16, %%rsp\n"
                  "mov %[sig], %%esi\n"
                  "syscall\n"
                  :
                  : "a"(SYS_kill), "D"(static_cast<long>(pid)), [sig] "i"(SIGUSR1)
                  : "rcx", "r11", "rsi", "memory");
              ::_exit(1);
          }) == killed(SIGSEGV));
}

TEST_CASE("frame: a handler sees and may change the interrupted registers") {
    in_child([] {
        install(SIGILL, [](int, siginfo_t* info, void* context) {
            auto* uc = static_cast<ucontext_t*>(context);
            auto& registers = uc->uc_mcontext.gregs;
            CHILD_CHECK(reinterpret_cast<long>(info->si_addr) == registers[REG_RIP]);
            CHILD_CHECK(registers[REG_RBX] == 0x1122334455667788);
            CHILD_CHECK(registers[REG_R15] == -5);
            registers[REG_RIP] += 2;
            registers[REG_RBX] = 99;
            registers[REG_RAX] = 77;
        });
        long rax = 0, rbx = 0;
        asm volatile(
            "movabs $0x1122334455667788, %%rbx\n"
            "mov $-5, %%r15\n"
            "ud2\n"
            : "=a"(rax), "=b"(rbx)
            :
            : "r15", "memory");
        CHILD_CHECK(rax == 77);
        CHILD_CHECK(rbx == 99);
    });
}

TEST_CASE("frame: all general registers and the flags survive a signal at any instruction") {
    in_child([] {
        install(SIGUSR1, [](int, siginfo_t*, void*) { seen = seen + 1; });
        const pid_t pid = ::getpid();
        Child killer([=] {
            for (;;) {
                if (::kill(pid, SIGUSR1) != 0 || ::getppid() != pid) {
                    ::_exit(0);
                }
                ::sched_yield();
            }
        });
        long wrong = 0;
        while (seen < 200) {
            long result;
            asm volatile(
                "mov $1, %%rax\n mov $2, %%rbx\n mov $3, %%rcx\n mov $4, %%rdx\n"
                "mov $5, %%rsi\n mov $6, %%rdi\n mov $7, %%r8\n mov $8, %%r9\n"
                "mov $9, %%r10\n mov $10, %%r11\n mov $11, %%r12\n mov $12, %%r13\n"
                "mov $13, %%r14\n mov $14, %%r15\n stc\n"
                "mov $2000, %%eax\n"
                "1: lea -1(%%rax), %%rax\n jrcxz 2f\n 2: inc %%rax\n dec %%rax\n"
                "test %%rax, %%rax\n jnz 1b\n"
                "add %%rbx, %%rax\n add %%rcx, %%rax\n add %%rdx, %%rax\n add %%rsi, %%rax\n"
                "add %%rdi, %%rax\n add %%r8, %%rax\n add %%r9, %%rax\n add %%r10, %%rax\n"
                "add %%r11, %%rax\n add %%r12, %%rax\n add %%r13, %%rax\n add %%r14, %%rax\n"
                "add %%r15, %%rax\n"
                : "=a"(result)
                :
                : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
                  "r15", "cc", "memory");
            wrong += result != 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10 + 11 + 12 + 13 + 14;
        }
        CHILD_CHECK(wrong == 0);
        killer.kill(SIGKILL);
        killer.wait();
    });
}

TEST_CASE("frame: the red zone below the stack pointer is not overwritten") {
    in_child([] {
        install(SIGILL, [](int, siginfo_t*, void* context) {
            static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += 2;
            volatile char deep[8192];
            std::memset(const_cast<char*>(deep), 'x', sizeof deep);
        });
        long value = 0;
        asm volatile(
            "movq $1234567, -120(%%rsp)\n"
            "ud2\n"
            "movq -120(%%rsp), %0\n"
            : "=r"(value)
            :
            : "memory");
        CHILD_CHECK(value == 1234567);
    });
}

TEST_CASE(
    "frame: SSE registers, rounding mode and x87 control survive a handler that changes them") {
    in_child([] {
        install(SIGUSR1, [](int, siginfo_t*, void*) {
            _mm_setcsr(0x1f80 | 0x6000);
            asm volatile("pcmpeqd %%xmm7, %%xmm7\n fninit\n" ::: "xmm7");
            seen = 1;
        });
        _mm_setcsr(0x1f80 | 0x2000);  // round down
        fpu_control_t control = 0x27f;
        _FPU_SETCW(control);
        double in = 2.5, out = 0;
        const pid_t pid = ::getpid();
        asm volatile(
            "movsd %[in], %%xmm7\n"
            "syscall\n"
            "movsd %%xmm7, %[out]\n"
            : [out] "=m"(out)
            : [in] "m"(in), "a"(SYS_kill), "D"(static_cast<long>(pid)),
              "S"(static_cast<long>(SIGUSR1))
            : "rcx", "r11", "xmm7", "memory");
        fpu_control_t now;
        _FPU_GETCW(now);
        CHILD_CHECK(seen == 1);
        CHILD_CHECK(out == 2.5);
        CHILD_CHECK((_mm_getcsr() & 0x6000) == 0x2000);
        CHILD_CHECK(now == 0x27f);
    });
}

__attribute__((target("avx"))) bool upper_half_survives() {
    alignas(32) long in[4] = {1, 2, 3, 4}, out[4] = {};
    const long pid = ::getpid();
    asm volatile(
        "vmovdqa %[in], %%ymm9\n"
        "syscall\n"
        "vmovdqa %%ymm9, %[out]\n"
        : [out] "=m"(out)
        : [in] "m"(in), "a"(SYS_kill), "D"(pid), "S"(static_cast<long>(SIGUSR1))
        : "rcx", "r11", "xmm9", "memory");
    return std::memcmp(in, out, sizeof in) == 0;
}

__attribute__((target("avx"))) void wipe_avx(int, siginfo_t*, void*) {
    asm volatile("vzeroall" ::
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    seen = 1;
}

TEST_CASE("frame: the upper halves of the AVX registers survive") {
    SKIP_UNLESS(__builtin_cpu_supports("avx"), "no AVX");
    in_child([] {
        install(SIGUSR1, wipe_avx);
        CHILD_CHECK(upper_half_survives());
        CHILD_CHECK(seen == 1);
    });
}

TEST_CASE("frame: a handler may change the saved floating point state") {
    in_child([] {
        install(SIGILL, [](int, siginfo_t*, void* context) {
            auto* uc = static_cast<ucontext_t*>(context);
            uc->uc_mcontext.gregs[REG_RIP] += 2;
            const double changed = 8.25;
            std::memcpy(&uc->uc_mcontext.fpregs->_xmm[6], &changed, sizeof changed);
        });
        double out = 0, in = 1;
        asm volatile(
            "movsd %[in], %%xmm6\n"
            "ud2\n"
            "movsd %%xmm6, %[out]\n"
            : [out] "=m"(out)
            : [in] "m"(in)
            : "xmm6", "memory");
        CHILD_CHECK(out == 8.25);
    });
}

TEST_CASE("frame: uc_sigmask is the interrupted mask, and its change takes effect") {
    in_child([] {
        sigset_t set;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGHUP);
        ::sigprocmask(SIG_SETMASK, &set, nullptr);
        install(SIGUSR1, [](int, siginfo_t*, void* context) {
            auto* uc = static_cast<ucontext_t*>(context);
            CHILD_CHECK(::sigismember(&uc->uc_sigmask, SIGHUP) == 1);
            CHILD_CHECK(::sigismember(&uc->uc_sigmask, SIGUSR1) == 0);
            ::sigaddset(&uc->uc_sigmask, SIGTERM);
            ::sigaddset(&uc->uc_sigmask, SIGKILL);
        });
        ::raise(SIGUSR1);
        sigset_t now;
        ::sigprocmask(SIG_SETMASK, nullptr, &now);
        CHILD_CHECK(::sigismember(&now, SIGTERM) == 1);
        CHILD_CHECK(::sigismember(&now, SIGHUP) == 1);
        CHILD_CHECK(::sigismember(&now, SIGKILL) == 0);
    });
}

TEST_CASE("frame: handlers nest, each returns to the one it interrupted") {
    in_child([] {
        install(SIGUSR2, [](int, siginfo_t*, void*) { seen = seen * 10 + 2; });
        install(SIGUSR1, [](int, siginfo_t*, void*) {
            seen = seen * 10 + 1;
            ::raise(SIGUSR2);
            seen = seen * 10 + 3;
        });
        ::raise(SIGUSR1);
        CHILD_CHECK(seen == 123);
    });
}

TEST_CASE("frame: the stack is aligned for the handler as for any function") {
    in_child([] {
        install(SIGUSR1, [](int, siginfo_t*, void*) {
            seen = reinterpret_cast<unsigned long>(__builtin_frame_address(0)) % 16 == 0 ? 1 : 2;
        });
        ::raise(SIGUSR1);
        CHILD_CHECK(seen == 1);
    });
}

TEST_CASE("frame: a division by zero is SIGFPE with FPE_INTDIV") {
    in_child([] {
        install(SIGFPE, [](int, siginfo_t* info, void*) {
            seen = info->si_code;
            siglongjmp(jump, 1);
        });
        if (sigsetjmp(jump, 1) == 0) {
            asm volatile("xor %%edx, %%edx\n mov $1, %%eax\n xor %%ecx, %%ecx\n div %%ecx" ::
                             : "eax", "ecx", "edx", "cc");
            CHILD_CHECK(false);
        }
        CHILD_CHECK(seen == FPE_INTDIV);
    });
}

TEST_CASE("frame: int3 is SIGTRAP, ud2 SIGILL, a non-canonical address SIGSEGV") {
    CHECK(run_in_child([] { asm volatile("int3"); }) == killed(SIGTRAP));
    CHECK(run_in_child([] { asm volatile("ud2"); }) == killed(SIGILL));
    CHECK(run_in_child([] { asm volatile("hlt"); }) == killed(SIGSEGV));
    CHECK(run_in_child([] { *reinterpret_cast<volatile char*>(0x8000'0000'0000'0000UL) = 1; }) ==
          killed(SIGSEGV));
}

TEST_CASE("frame: a blocked or ignored synchronous fault still kills") {
    CHECK(run_in_child([] {
              sigset_t set;
              ::sigfillset(&set);
              ::sigprocmask(SIG_SETMASK, &set, nullptr);
              *reinterpret_cast<volatile char*>(16) = 1;
          }) == killed(SIGSEGV));
    CHECK(run_in_child([] {
              ::signal(SIGSEGV, SIG_IGN);
              *reinterpret_cast<volatile char*>(16) = 1;
          }) == killed(SIGSEGV));
}

TEST_CASE("frame: a fault inside the fault's handler kills") {
    CHECK(run_in_child([] {
              install(SIGSEGV,
                      [](int, siginfo_t*, void*) { *reinterpret_cast<volatile char*>(16) = 1; });
              *reinterpret_cast<volatile char*>(16) = 1;
          }) == killed(SIGSEGV));
}

TEST_CASE("rt_sigreturn: a frame at an unreadable address kills the process, not the kernel") {
    CHECK(run_in_child([] {
              asm volatile("mov $64, %%rsp\n mov %0, %%eax\n syscall\n" ::"i"(SYS_rt_sigreturn)
                           : "memory");
          }) == killed(SIGSEGV));
}

TEST_CASE("rt_sigreturn: a forged frame cannot raise privileges by segments or flags") {
    // Kernel code segment, IOPL 3 and a kernel address as the instruction pointer.
    const WaitStatus status = run_in_child([] {
        install(SIGUSR1, [](int, siginfo_t*, void* context) {
            auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
            registers[REG_CSGSFS] = 0x10;
            registers[REG_EFL] |= 0x3000;
            registers[REG_RIP] = static_cast<long>(0xffffffff81000000UL);
        });
        ::raise(SIGUSR1);
        ::_exit(1);
    });
    CHECK(status == killed(SIGSEGV));
}

TEST_CASE("frame: the trap flag set by a handler gives one SIGTRAP and goes away") {
    in_child([] {
        static volatile int traps = 0;
        install(SIGTRAP, [](int, siginfo_t*, void* context) {
            traps = traps + 1;
            static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~0x100L;
        });
        install(SIGUSR1, [](int, siginfo_t*, void* context) {
            static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= 0x100;
        });
        ::raise(SIGUSR1);
        CHILD_CHECK(traps == 1);
    });
}

TEST_CASE("siglongjmp: out of a handler, a thousand times, restores the mask") {
    in_child([] {
        install(SIGUSR1, [](int, siginfo_t*, void*) { siglongjmp(jump, 1); });
        static int rounds;  // not in a register: siglongjmp would lose it
        for (rounds = 0; rounds < 1000; ++rounds) {
            if (sigsetjmp(jump, 1) == 0) {
                ::raise(SIGUSR1);
                CHILD_CHECK(false);
            }
        }
        sigset_t now;
        ::sigprocmask(SIG_SETMASK, nullptr, &now);
        CHILD_CHECK(::sigismember(&now, SIGUSR1) == 0);
    });
}

}  // namespace
