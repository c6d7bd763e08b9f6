// seccomp(2) and prctl(PR_SET_SECCOMP): strict mode, filters and their actions, inheritance,
// threads.

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <string>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

constexpr uint32_t kNr = offsetof(seccomp_data, nr);

int seccomp(unsigned operation, unsigned flags, const void* argument) {
    return static_cast<int>(::syscall(SYS_seccomp, operation, flags, argument));
}

int install(const std::vector<sock_filter>& code, unsigned flags = 0) {
    const sock_fprog program{static_cast<unsigned short>(code.size()),
                             const_cast<sock_filter*>(code.data())};
    return seccomp(SECCOMP_SET_MODE_FILTER, flags, &program);
}

/// `action` for one call, ALLOW for the others.
std::vector<sock_filter> only(int number, uint32_t action) {
    return {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNr),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1),
            BPF_STMT(BPF_RET | BPF_K, action), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
}

std::string status_line(const std::string& key, const std::string& who = "self") {
    std::ifstream file("/proc/" + who + "/status");
    for (std::string line; std::getline(file, line);) {
        if (line.rfind(key + ":\t", 0) == 0) {
            return line.substr(key.size() + 2);
        }
    }
    return "";
}

volatile sig_atomic_t trapped_call = 0;
volatile sig_atomic_t trapped_error = 0;
volatile sig_atomic_t trapped_code = 0;
volatile sig_atomic_t trapped_arch = 0;
volatile sig_atomic_t address_is_after = 0;

void on_sigsys(int, siginfo_t* info, void* context) {
    auto* uc = static_cast<ucontext_t*>(context);
    trapped_call = info->si_syscall;
    trapped_error = info->si_errno;
    trapped_code = info->si_code;
    trapped_arch = static_cast<int>(info->si_arch);
    address_is_after =
        reinterpret_cast<greg_t>(info->si_call_addr) == uc->uc_mcontext.gregs[REG_RIP] ? 1 : 0;
    // The number is back in rax; what is left there is the call's result.
    uc->uc_mcontext.gregs[REG_RAX] = uc->uc_mcontext.gregs[REG_RAX] == SYS_getppid ? 4242 : -1;
}

void handle_sigsys() {
    struct sigaction action {};
    action.sa_sigaction = on_sigsys;
    action.sa_flags = SA_SIGINFO;
    CHILD_THAT(::sigaction(SIGSYS, &action, nullptr), succeeds());
}

TEST_CASE("seccomp: strict mode lets read, write and exit through, anything else is SIGKILL") {
    CHECK(run_in_child([] {
              Pipe pipe;
              CHILD_THAT(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT), succeeds());
              char byte = 'x';
              CHILD_THAT(::write(pipe.write_end.get(), &byte, 1), succeeds_with(1));
              CHILD_THAT(::read(pipe.read_end.get(), &byte, 1), succeeds_with(1));
              ::syscall(SYS_exit, 7);  // exit_group is not on the list
          }) == exited(7));
    CHECK(run_in_child([] {
              CHILD_THAT(seccomp(SECCOMP_SET_MODE_STRICT, 0, nullptr), succeeds());
              ::syscall(SYS_getpid);
          }) == killed(SIGKILL));
}

TEST_CASE("seccomp: bad operations, flags and pointers") {
    in_child([] {
        CHILD_THAT(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), succeeds());
        const auto allow = only(SYS_getppid, SECCOMP_RET_ALLOW);
        CHILD_THAT(seccomp(99, 0, nullptr), fails_with(EINVAL));
        CHILD_THAT(seccomp(SECCOMP_SET_MODE_STRICT, 1, nullptr), fails_with(EINVAL));
        CHILD_THAT(seccomp(SECCOMP_SET_MODE_STRICT, 0, &allow), fails_with(EINVAL));
        CHILD_THAT(install(allow, 1u << 20), fails_with(EINVAL));
        CHILD_THAT(seccomp(SECCOMP_SET_MODE_FILTER, 0, bad<void>()), fails_with(EFAULT));
        const sock_fprog lost{3, bad<sock_filter>()};
        CHILD_THAT(seccomp(SECCOMP_SET_MODE_FILTER, 0, &lost), fails_with(EFAULT));
        CHILD_THAT(::prctl(PR_SET_SECCOMP, 9, 0, 0, 0), fails_with(EINVAL));
        CHILD_THAT(::prctl(PR_GET_SECCOMP), succeeds_with(0));
    });
}

TEST_CASE("seccomp: programs that Linux's verifier refuses") {
    in_child([] {
        CHILD_THAT(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), succeeds());
        const sock_filter ret = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        const std::vector<std::vector<sock_filter>> bad_programs = {
            {},
            {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNr)},                        // no return
            {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2), ret},                     // unaligned
            {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, sizeof(seccomp_data)), ret},  // out of bounds
            {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), ret},                     // bytes
            {BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), ret},
            {BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0), ret},
            {BPF_STMT(BPF_JMP | BPF_JA, 1), ret},  // past the end
            {BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), ret},
            {BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), ret},
            {BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), ret},
            {BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), ret},  // not for seccomp
            {BPF_STMT(BPF_LD | BPF_MEM, 3), ret},           // never written
            {BPF_STMT(BPF_ST, BPF_MEMWORDS), ret},
            {BPF_STMT(BPF_RET | BPF_X, 0)},
            {sock_filter{0xffff, 0, 0, 0}, ret},
        };
        for (const auto& program : bad_programs) {
            CHILD_THAT(install(program), fails_with(EINVAL));
        }
        CHILD_THAT(install(std::vector<sock_filter>(BPF_MAXINSNS + 1, ret)), fails_with(EINVAL));
        // A word written on one way only.
        CHILD_THAT(install({BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNr),
                            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1), BPF_STMT(BPF_ST, 2),
                            BPF_STMT(BPF_LD | BPF_MEM, 2), ret}),
                   fails_with(EINVAL));
        CHILD_THAT(::prctl(PR_GET_SECCOMP), succeeds_with(0));
        CHILD_THAT(install(std::vector<sock_filter>(BPF_MAXINSNS, ret)), succeeds());
    });
}

TEST_CASE("seccomp: a filter needs no_new_privs or CAP_SYS_ADMIN") {
    in_child([] {
        CHILD_THAT(::setgid(1000), succeeds());
        CHILD_THAT(::setuid(1000), succeeds());
        const auto deny = only(SYS_getppid, SECCOMP_RET_ERRNO | EBUSY);
        CHILD_THAT(install(deny), fails_with(EACCES));
        CHILD_THAT(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), succeeds());
        CHILD_THAT(install(deny), succeeds());
        CHILD_THAT(::syscall(SYS_getppid), fails_with(EBUSY));
        CHILD_THAT(::prctl(PR_GET_SECCOMP), succeeds_with(2));
        // Once in filter mode there is no strict mode.
        CHILD_THAT(seccomp(SECCOMP_SET_MODE_STRICT, 0, nullptr), fails_with(EINVAL));
    });
}

void give_up_privileges() { CHILD_THAT(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), succeeds()); }

TEST_CASE("seccomp: ERRNO gives its number, zero included, 4095 at most") {
    in_child([] {
        give_up_privileges();
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_ERRNO | ENOLINK)), succeeds());
        CHILD_THAT(::syscall(SYS_getppid), fails_with(ENOLINK));
        CHILD_THAT(install(only(SYS_getuid, SECCOMP_RET_ERRNO)), succeeds());
        CHILD_THAT(::syscall(SYS_getuid), succeeds_with(0));
        CHILD_THAT(install(only(SYS_getgid, SECCOMP_RET_ERRNO | 0xffff)), succeeds());
        CHILD_THAT(::syscall(SYS_getgid), fails_with(4095));
        CHILD_THAT(install(only(SYS_getegid, SECCOMP_RET_ERRNO | EINTR)), succeeds());
        CHILD_THAT(::syscall(SYS_getegid), fails_with(EINTR));
        // ERESTARTSYS of the kernel's own: no signal, so it comes out as it is.
        CHILD_THAT(install(only(SYS_geteuid, SECCOMP_RET_ERRNO | 600)), succeeds());
        CHILD_THAT(::syscall(SYS_geteuid), fails_with(600));
    });
}

TEST_CASE("seccomp: calls that only the host carries out are filtered too") {
    in_child([] {
        give_up_privileges();
        CHILD_THAT(install(only(SYS_munmap, SECCOMP_RET_ERRNO | EXDEV)), succeeds());
        CHILD_THAT(::munmap(nullptr, 4096), fails_with(EXDEV));
        CHILD_THAT(install(only(SYS_mmap, SECCOMP_RET_ERRNO | EXDEV)), succeeds());
        CHILD_THAT(::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                   fails_with(EXDEV));
        CHILD_THAT(install(only(SYS_fork, SECCOMP_RET_ERRNO | EXDEV)), succeeds());
        CHILD_THAT(::syscall(SYS_fork), fails_with(EXDEV));
        CHILD_THAT(install(only(SYS_execve, SECCOMP_RET_ERRNO | EXDEV)), succeeds());
        CHILD_THAT(exec_helper("seccomp_denied"), fails_with(EXDEV));
    });
}

TEST_CASE("seccomp: arguments are seen in full") {
    in_child([] {
        give_up_privileges();
        // The upper half of the third argument of a call that ignores it.
        CHILD_THAT(install({BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNr),
                            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 3),
                            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2]) + 4),
                            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xabcd, 0, 1),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}),
                   succeeds());
        CHILD_THAT(::syscall(SYS_getppid, 0, 0, 0xabcdL << 32), fails_with(EXDEV));
        CHILD_THAT(::syscall(SYS_getppid, 0, 0, 0xabceL << 32), succeeds());
    });
}

TEST_CASE("seccomp: arithmetic, scratch memory and registers") {
    in_child([] {
        give_up_privileges();
        // ((nr * 3 + 5) ^ 1) >> 1 kept in M[1], X and back; compared with what we compute.
        const uint32_t expected = ((SYS_getppid * 3 + 5) ^ 1) >> 1;
        CHILD_THAT(
            install({BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNr),
                     BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 3), BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 5),
                     BPF_STMT(BPF_ALU | BPF_XOR | BPF_K, 1), BPF_STMT(BPF_LDX | BPF_IMM, 1),
                     BPF_STMT(BPF_ALU | BPF_RSH | BPF_X, 0), BPF_STMT(BPF_ST, 1),
                     BPF_STMT(BPF_LD | BPF_IMM, 0), BPF_STMT(BPF_LDX | BPF_MEM, 1),
                     BPF_STMT(BPF_MISC | BPF_TXA, 0),
                     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, expected, 0, 1),
                     BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
                     BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}),
            succeeds());
        CHILD_THAT(::syscall(SYS_getppid), fails_with(EXDEV));
        CHILD_THAT(::syscall(SYS_getpid), succeeds());
    });
    // A division by a zero in X ends the program with KILL_THREAD.
    CHECK(run_in_child([] {
              give_up_privileges();
              CHILD_THAT(
                  install({BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNr),
                           BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 2),
                           BPF_STMT(BPF_LDX | BPF_IMM, 0), BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0),
                           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}),
                  succeeds());
              ::syscall(SYS_getppid);
          }) == killed(SIGSYS));
}

TEST_CASE("seccomp: the strictest of several filters wins, the newest among equals") {
    in_child([] {
        give_up_privileges();
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV)), succeeds());
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_ERRNO | EBUSY)), succeeds());
        CHILD_THAT(::syscall(SYS_getppid), fails_with(EBUSY));
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_ALLOW)), succeeds());
        CHILD_THAT(::syscall(SYS_getppid), fails_with(EBUSY));
        handle_sigsys();
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_TRAP)), succeeds());
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV)), succeeds());
        CHILD_THAT(::syscall(SYS_getppid), succeeds_with(4242));
    });
}

TEST_CASE("seccomp: TRAP is a SIGSYS that tells which call, from where, and the filter's data") {
    in_child([] {
        give_up_privileges();
        handle_sigsys();
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_TRAP | 77)), succeeds());
        CHILD_THAT(::syscall(SYS_getppid), succeeds_with(4242));
        CHILD_CHECK(trapped_call == SYS_getppid);
        CHILD_CHECK(trapped_error == 77);
        CHILD_CHECK(trapped_code == 1);  // SYS_SECCOMP
        CHILD_CHECK(static_cast<uint32_t>(trapped_arch) == AUDIT_ARCH_X86_64);
        CHILD_CHECK(address_is_after == 1);
    });
    CHECK(run_in_child([] {
              give_up_privileges();
              ::signal(SIGSYS, SIG_IGN);  // does not help
              CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_TRAP)), succeeds());
              ::syscall(SYS_getppid);
          }) == killed(SIGSYS));
}

TEST_CASE("seccomp: TRACE and USER_NOTIF answer ENOSYS when nobody is there, LOG lets through") {
    in_child([] {
        give_up_privileges();
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_TRACE | 5)), succeeds());
        CHILD_THAT(::syscall(SYS_getppid), fails_with(ENOSYS));
        CHILD_THAT(install(only(SYS_getuid, SECCOMP_RET_USER_NOTIF)), succeeds());
        CHILD_THAT(::syscall(SYS_getuid), fails_with(ENOSYS));
        CHILD_THAT(install(only(SYS_getgid, SECCOMP_RET_LOG)), succeeds());
        CHILD_THAT(::syscall(SYS_getgid), succeeds());
    });
}

TEST_CASE("seccomp: KILL_PROCESS ends all threads with SIGSYS, KILL_THREAD only its own") {
    CHECK(run_in_child([] {
              give_up_privileges();
              CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_KILL_PROCESS)), succeeds());
              ::syscall(SYS_getppid);
          }) == killed(SIGSYS));
    CHECK(run_in_child([] {
              give_up_privileges();
              CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_KILL_THREAD)), succeeds());
              ::syscall(SYS_getppid);
          }) == killed(SIGSYS));
    CHECK(run_in_child([] {
              give_up_privileges();
              CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_KILL_PROCESS)), succeeds());
              Thread thread([] { ::syscall(SYS_getppid); });
              for (;;) {
                  ::pause();
              }
          }) == killed(SIGSYS));
    in_child([] {
        give_up_privileges();
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_KILL_THREAD)), succeeds());
        Thread thread([] { ::syscall(SYS_getppid); });
        const pid_t tid = thread.tid();
        thread.forget();
        CHILD_CHECK(eventually([&] {
            return ::access(("/proc/self/task/" + std::to_string(tid)).c_str(), F_OK) != 0;
        }));
    });
}

GUEST_HELPER(seccomp_denied) {
    return ::syscall(SYS_getppid) == -1 && errno == EBUSY && ::prctl(PR_GET_SECCOMP) == 2 ? 0 : 1;
}

TEST_CASE("seccomp: fork, threads and execve inherit") {
    in_child([] {
        give_up_privileges();
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_ERRNO | EBUSY)), succeeds());
        Child child([] { CHILD_THAT(::syscall(SYS_getppid), fails_with(EBUSY)); });
        CHILD_CHECK(child.wait() == exited(0));
        bool denied = false;
        Thread thread([&] { denied = ::syscall(SYS_getppid) == -1 && errno == EBUSY; });
        thread.join();
        CHILD_CHECK(denied);
        exec_helper("seccomp_denied");
        child_failed(__FILE__, __LINE__, "execve came back");
    });
}

TEST_CASE("seccomp: /proc/PID/status tells mode and number of filters") {
    in_child([] {
        give_up_privileges();
        const std::string before = status_line("Seccomp_filters");
        const int already = std::stoi(before);
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_ALLOW)), succeeds());
        CHILD_CHECK(status_line("Seccomp") == "2");
        CHILD_CHECK(status_line("Seccomp_filters") == std::to_string(already + 1));
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_ALLOW)), succeeds());
        CHILD_CHECK(status_line("Seccomp_filters") == std::to_string(already + 2));
        CHILD_CHECK(status_line("NoNewPrivs") == "1");
    });
}

TEST_CASE("seccomp: TSYNC gives all threads the filter, or names the one in the way") {
    in_child([] {
        give_up_privileges();
        Gate go, done;
        bool denied = false;
        Thread thread([&] {
            go.wait();
            denied = ::syscall(SYS_getppid) == -1 && errno == EBUSY;
            done.open();
        });
        (void)thread.tid();
        CHILD_THAT(install(only(SYS_getppid, SECCOMP_RET_ERRNO | EBUSY), SECCOMP_FILTER_FLAG_TSYNC),
                   succeeds_with(0));
        go.open();
        done.wait();
        CHILD_CHECK(denied);
        thread.join();
    });
    in_child([] {
        give_up_privileges();
        Gate installed, finish;
        Thread thread([&] {
            CHILD_THAT(install(only(SYS_getuid, SECCOMP_RET_ALLOW)), succeeds());
            installed.open();
            finish.wait();
        });
        installed.wait();
        const auto deny = only(SYS_getppid, SECCOMP_RET_ERRNO | EBUSY);
        CHILD_THAT(install(deny, SECCOMP_FILTER_FLAG_TSYNC), succeeds_with(thread.tid()));
        CHILD_THAT(install(deny, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH),
                   fails_with(ESRCH));
        CHILD_THAT(::syscall(SYS_getppid), succeeds());
        finish.open();
        thread.join();
    });
}

/// EPERM for mprotect() to something executable, which is a matter of the arguments.
std::vector<sock_filter> no_new_code() {
    return {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNr),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 3),
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args) + 16),
            BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
}

char* a_page() {
    void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHILD_THAT(page, succeeds());
    return static_cast<char*>(page);
}

TEST_CASE("seccomp: what a thread does with its memory is filtered, whoever installed the filter") {
    in_child([] {
        give_up_privileges();
        std::atomic<bool> installed{false}, mapping{false};
        std::atomic<int> denied{0};
        // One that makes such calls all the while, and no others.
        Thread busy([&] {
            while (!installed) {
                char* page = a_page();
                mapping = true;
                CHILD_THAT(::munmap(page, 4096), succeeds());
            }
            char* page = a_page();
            denied += ::mprotect(page, 4096, PROT_READ | PROT_EXEC) == -1 && errno == EPERM;
            CHILD_THAT(::mprotect(page, 4096, PROT_READ), succeeds());
        });
        while (!mapping) {
        }
        CHILD_THAT(install(no_new_code(), SECCOMP_FILTER_FLAG_TSYNC), succeeds());
        installed = true;
        busy.join();
        CHILD_CHECK(denied == 1);
        char* page = a_page();
        CHILD_THAT(::mprotect(page, 4096, PROT_READ | PROT_EXEC), fails_with(EPERM));
        // Threads and processes that come later, too.
        Thread later([&] {
            denied += ::mprotect(page, 4096, PROT_READ | PROT_EXEC) == -1 && errno == EPERM;
        });
        later.join();
        CHILD_CHECK(denied == 2);
        const pid_t child = ::fork();
        if (child == 0) {
            ::_exit(::mprotect(page, 4096, PROT_READ | PROT_EXEC) == -1 && errno == EPERM ? 0 : 1);
        }
        int status = -1;
        CHILD_THAT(::waitpid(child, &status, 0), succeeds_with(child));
        CHILD_CHECK(status == 0);
        CHILD_THAT(::munmap(page, 4096), succeeds());
    });
}

/// EPERM for FUTEX_WAKE of 77 waiters.
std::vector<sock_filter> no_77_wakes() {
    return {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNr),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 3),
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args) + 16),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 77, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
}

TEST_CASE("seccomp: futex calls are filtered, and a thread that waits meanwhile is woken") {
    in_child([] {
        give_up_privileges();
        static std::atomic<uint32_t> word{0};
        const auto futex = [](int operation, uint32_t value) {
            return ::syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
        };
        Thread waiter([&] {
            while (word == 0) {
                futex(FUTEX_WAIT_PRIVATE, 0);
            }
        });
        wait_until_blocked(::getpid(), waiter.tid());
        CHILD_THAT(futex(FUTEX_WAKE_PRIVATE, 77), succeeds_with(1));
        wait_until_blocked(::getpid(), waiter.tid());
        CHILD_THAT(install(no_77_wakes(), SECCOMP_FILTER_FLAG_TSYNC), succeeds());
        CHILD_THAT(futex(FUTEX_WAKE_PRIVATE, 77), fails_with(EPERM));
        word = 1;
        CHILD_THAT(futex(FUTEX_WAKE_PRIVATE, 1), succeeds());
        waiter.join();
    });
}

TEST_CASE("seccomp: GET_ACTION_AVAIL knows the actions") {
    for (const uint32_t action :
         {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO,
          SECCOMP_RET_TRACE, SECCOMP_RET_LOG, SECCOMP_RET_ALLOW}) {
        CHECK_THAT(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &action), succeeds());
    }
    const uint32_t none = 0x12340000;
    CHECK_THAT(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &none), fails_with(EOPNOTSUPP));
    CHECK_THAT(seccomp(SECCOMP_GET_ACTION_AVAIL, 1, &none), fails_with(EINVAL));
    CHECK_THAT(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, bad<uint32_t>()), fails_with(EFAULT));
}

TEST_CASE("seccomp: there is an end to the number of filters") {
    in_child([] {
        give_up_privileges();
        const sock_filter ret = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        const std::vector<sock_filter> large(BPF_MAXINSNS, ret);
        // Linux counts the instructions that its own engine makes of ours, so only the order is
        // known.
        int installed = 0;
        while (installed < 100 && install(large) == 0) {
            installed++;
        }
        CHILD_THAT(install(large), fails_with(ENOMEM));
        CHILD_CHECK(installed >= 2 && installed < 10);
        CHILD_THAT(::syscall(SYS_getppid), succeeds());
    });
}

}  // namespace
