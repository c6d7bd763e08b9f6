// A hostile guest. Each attack runs in forked children of this program; the parent then checks that
// it can still fork, wait, map, write files and be heard, and prints "PASS attack" or
// "FAIL attack: what". On Linux the program shows that the attacks themselves are sound.
//
//   hostile all [BASE SIZE]
//   hostile forks [COUNT]              under a pids limit; 64 by default
//   hostile scribble|jump|sigblock|remap [BASE SIZE]
//   hostile abi
//
// BASE and SIZE (hexadecimal) say where the sentry's stub lives in a guest's address space.

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "e2e/syscalls/hostile/attacks.h"

using namespace hostile;

namespace {

constexpr Range kDefaultRange{0x7ffffc000000, 0xa00000};
constexpr int kPatienceSeconds = 30;

int failures = 0;

struct End {
    bool in_time;
    int status;
};

std::string describe(const End& end) {
    if (!end.in_time) {
        return "did not end and was killed";
    }
    return WIFSIGNALED(end.status) ? "killed by signal " + std::to_string(WTERMSIG(end.status))
                                   : "exited " + std::to_string(WEXITSTATUS(end.status));
}

/// Reaps a child; kills it when it takes too long. A child that SIGKILL does not end within the
/// limit is the platform's failure: the status is then -1.
End end_of(pid_t pid, int seconds) {
    End end{true, 0};
    timespec start, now;
    ::clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        if (::waitpid(pid, &end.status, WNOHANG) == pid) {
            return end;
        }
        ::clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - start.tv_sec > seconds) {
            if (!end.in_time) {
                end.status = -1;
                return end;
            }
            end.in_time = false;
            ::kill(pid, SIGKILL);
            start = now;
            seconds = kPatienceSeconds;
        }
        const timespec pause{0, 1'000'000};
        ::nanosleep(&pause, nullptr);
    }
}

bool has_ended(pid_t pid) {
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
           info.si_pid == pid;
}

/// Until all have ended, or a second is over.
void give_a_second(const std::vector<pid_t>& pids) {
    for (int i = 0; i < 1000 && !std::all_of(pids.begin(), pids.end(), has_ended); ++i) {
        const timespec pause{0, 1'000'000};
        ::nanosleep(&pause, nullptr);
    }
}

/// Runs an attack in a process group of its own.
pid_t start(const std::function<void()>& attack) {
    ::fflush(stdout);
    const pid_t pid = ::fork();
    if (pid == 0) {
        ::setpgid(0, 0);
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        attack();
        ::_exit(0);
    }
    return pid;
}

/// What every process must still be able to do after its neighbour's attack.
const char* damage() {
    int fds[2];
    if (::pipe(fds) != 0) {
        return "pipe fails";
    }
    const pid_t pid = ::fork();
    if (pid < 0) {
        return "fork fails";
    }
    if (pid == 0) {
        ::_exit(::write(fds[1], "well", 4) == 4 ? 0 : 1);
    }
    char text[4] = {};
    const bool heard = ::read(fds[0], text, 4) == 4 && std::memcmp(text, "well", 4) == 0;
    ::close(fds[0]);
    ::close(fds[1]);
    const End end = end_of(pid, kPatienceSeconds);
    if (!heard || !end.in_time || end.status != 0) {
        return "a child cannot work";
    }
    void* memory =
        ::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return "mmap fails";
    }
    std::memset(memory, 1, 1 << 20);
    ::munmap(memory, 1 << 20);
    static volatile sig_atomic_t signalled;
    signalled = 0;
    ::signal(SIGUSR2, [](int) { signalled = 1; });
    ::raise(SIGUSR2);
    return signalled == 1 ? nullptr : "signals do not arrive";
}

void judge(const std::string& name, const std::string& outcome, const char* wrong = nullptr) {
    const char* damaged = wrong != nullptr ? wrong : damage();
    if (damaged != nullptr) {
        ++failures;
        std::printf("FAIL %s: %s (%s)\n", name.c_str(), damaged, outcome.c_str());
    } else {
        std::printf("PASS %s (%s)\n", name.c_str(), outcome.c_str());
    }
    std::fflush(stdout);
}

/// One attack that may end in any way, but must end.
void attack(const std::string& name, const std::function<void()>& body, int seconds = 5) {
    const pid_t pid = start(body);
    if (pid < 0) {
        judge(name, "no child", "fork fails");
        return;
    }
    const End end = end_of(pid, seconds);
    judge(name, describe(end), end.status == -1 ? "SIGKILL does not end the attacker" : nullptr);
}

void forks(long count) {
    attack(
        "forks: " + std::to_string(count) + " processes that stay",
        [=] { fork_without_end(count); }, kPatienceSeconds);
}

void scribbles(Range range) {
    for (const unsigned pattern : {0U, 0x41U, 0xffU}) {
        attack("scribble: pattern " + std::to_string(pattern), [=] { scribble(range, pattern); });
    }
}

void jumps(Range range) {
    static char path[] = "/proc/version";
    const struct {
        const char* what;
        long number;
        long args[6];
    } calls[] = {
        {"open", SYS_open, {reinterpret_cast<long>(path), 0}},
        {"mmap", SYS_mmap, {0x10000000, 4096, 7, 0x22, -1, 0}},
        {"munmap of the stub",
         SYS_munmap,
         {static_cast<long>(range.base), static_cast<long>(range.size)}},
        {"ptrace", SYS_ptrace, {16, 1}},
        {"execve", SYS_execve, {reinterpret_cast<long>(path), 0, 0}},
        {"clone", SYS_clone, {CLONE_PARENT | SIGCHLD, 0}},
        {"close of everything", SYS_close_range, {0, 0xffffffffL, 0}},
        {"a number of the stub's own", 0x7000, {2, 5, 0x1234}},
        // What a stub of moat's does itself (kernel/platform/layout.h): elsewhere just bad calls.
        {"the fork of the stub's own", SYS_clone, {CLONE_PARENT | SIGCHLD, 0, 0, 0, 0, 0}},
        {"the mapping of the stub's own",
         SYS_mmap,
         {static_cast<long>(range.base) + 0x100000, 0x404000, PROT_READ | PROT_WRITE,
          MAP_SHARED | MAP_FIXED, 56, 0}},
    };
    const auto targets = jump_targets(range);
    for (const auto& call : calls) {
        std::string outcome;
        bool killable = true;
        // At once: many end up asleep somewhere in the stub, and then take all the time there is.
        std::vector<pid_t> attackers;
        for (const uint64_t target : targets) {
            attackers.push_back(start([&] { jump(target, call.number, call.args); }));
        }
        give_a_second(attackers);
        for (const pid_t attacker : attackers) {
            ::kill(attacker, SIGKILL);
            const End end = end_of(attacker, kPatienceSeconds);
            killable = killable && end.status != -1;
            outcome = describe(end);
        }
        judge(
            std::string("jump: ") + call.what + " at " + std::to_string(targets.size()) + " places",
            "the last one: " + outcome, killable ? nullptr : "SIGKILL does not end the attacker");
    }
}

void foreign_abis() {
    attack("abi: int 0x80", [] { int80(); });
    attack("abi: x32", [] { x32(); });
}

/// A system call instruction of this program's own.
uint64_t own_syscall_instruction() {
    const auto* code = reinterpret_cast<const unsigned char*>(&::syscall);
    for (int i = 0; i < 128; ++i) {
        if (code[i] == 0x0f && code[i + 1] == 0x05) {
            return reinterpret_cast<uint64_t>(code + i);
        }
    }
    return 0;
}

void blocked_signals(Range range) {
    auto targets = jump_targets(range);
    if (targets.size() > 8) {
        targets.resize(8);
    }
    targets.insert(targets.begin(), own_syscall_instruction());
    void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        judge("sigblock", "", "mmap fails");
        return;
    }
    auto* spinning = static_cast<std::atomic<int>*>(page);
    for (const uint64_t target : targets) {
        *spinning = 0;
        const pid_t pid = start([=] { block_signals_and_spin(target, spinning); });
        timespec begin, now;
        ::clock_gettime(CLOCK_MONOTONIC, &begin);
        siginfo_t info;
        do {  // until it spins or is dead; a jump that sleeps somewhere gets two seconds
            const timespec pause{0, 1'000'000};
            ::nanosleep(&pause, nullptr);
            ::clock_gettime(CLOCK_MONOTONIC, &now);
            info.si_pid = 0;
            ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT);
        } while (*spinning == 0 && info.si_pid == 0 && now.tv_sec - begin.tv_sec < 2);
        const bool spins = *spinning == 1;
        // Signals that it has blocked, a stop and a continuation must not confuse anybody.
        for (const int signal : {SIGUSR1, SIGTERM, SIGSTOP, SIGCONT, SIGKILL}) {
            ::kill(pid, signal);
        }
        const End end = end_of(pid, kPatienceSeconds);
        char name[80];
        std::snprintf(name, sizeof name, "sigblock: by the instruction at 0x%lx", target);
        const bool own = target == targets.front();
        judge(name, std::string(spins ? "span, " : "did not get to spin, ") + describe(end),
              !end.in_time    ? "SIGKILL does not end the attacker"
              : own && !spins ? "a return to one's own frame does not work"
                              : nullptr);
    }
    ::munmap(page, 4096);
}

void remaps(Range range) {
    attack("remap: munmap, mprotect, mremap, madvise and mmap over the range",
           [=] { remap(range); });
}

}  // namespace

int main(int argc, char** argv) {
    const std::string what = argc > 1 ? argv[1] : "";
    Range range = kDefaultRange;
    if (argc > 3 && what != "forks") {
        range = {std::strtoull(argv[2], nullptr, 16), std::strtoull(argv[3], nullptr, 16)};
    }
    const bool all = what == "all";
    bool known = false;
    const auto wanted = [&](const char* name) {
        known = known || all || what == name;
        return all || what == name;
    };
    if (wanted("forks")) {
        forks(argc > 2 && !all ? std::atol(argv[2]) : 64);
    }
    if (wanted("scribble")) {
        scribbles(range);
    }
    if (wanted("jump")) {
        jumps(range);
    }
    if (wanted("abi")) {
        foreign_abis();
    }
    if (wanted("sigblock")) {
        blocked_signals(range);
    }
    if (wanted("remap")) {
        remaps(range);
    }
    if (!known) {
        std::fprintf(
            stderr,
            "usage: hostile all|scribble|jump|sigblock|remap [BASE SIZE] | forks [COUNT] | abi\n");
        return 2;
    }
    std::printf("%s\n", failures == 0 ? "PASS" : "FAIL");
    return failures == 0 ? 0 : 1;
}
