#include "e2e/syscalls/hostile/attacks.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <functional>

namespace hostile {

std::vector<Area> read_areas() {
    std::vector<Area> all;
    FILE* maps = ::fopen("/proc/self/maps", "re");
    if (maps == nullptr) {
        return all;
    }
    char line[4096];
    while (::fgets(line, sizeof line, maps) != nullptr) {
        unsigned long start, end;
        char permissions[5], name[4096] = "";
        if (::sscanf(line, "%lx-%lx %4s %*s %*s %*s %4095[^\n]", &start, &end, permissions, name) >=
            3) {
            all.push_back({start, end, permissions[0] == 'r', permissions[1] == 'w',
                           permissions[2] == 'x', name});
        }
    }
    ::fclose(maps);
    return all;
}

namespace {

sigjmp_buf after_fault;

bool can(const std::function<void()>& touch) {
    if (sigsetjmp(after_fault, 1) != 0) {
        return false;
    }
    touch();
    return true;
}

}  // namespace

std::vector<Area> find_hidden_areas(Range range) {
    const std::vector<Area> shown = read_areas();
    struct sigaction jump_back {};
    struct sigaction old_segv, old_bus;
    jump_back.sa_handler = [](int) { siglongjmp(after_fault, 1); };
    ::sigaction(SIGSEGV, &jump_back, &old_segv);
    ::sigaction(SIGBUS, &jump_back, &old_bus);
    std::vector<Area> found;
    for (uint64_t at = range.base; at < range.end(); at += 4096) {
        if (std::any_of(shown.begin(), shown.end(),
                        [at](const Area& a) { return a.start <= at && at < a.end; })) {
            continue;
        }
        auto* page = reinterpret_cast<volatile char*>(at);
        const bool readable = can([page] { (void)*page; });
        const bool writable = readable && can([page] { *page = *page; });
        if (!readable) {
            continue;
        }
        if (!found.empty() && found.back().end == at && found.back().writable == writable) {
            found.back().end += 4096;
        } else {
            found.push_back({at, at + 4096, true, writable, !writable, "(hidden)"});
        }
    }
    ::sigaction(SIGSEGV, &old_segv, nullptr);
    ::sigaction(SIGBUS, &old_bus, nullptr);
    return found;
}

void fork_without_end(long count) {
    int refused = 0;
    for (long i = 0; i < count && refused < 100; ++i) {
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::pause();
            ::_exit(0);
        }
        refused += pid < 0;
    }
    ::kill(0, SIGKILL);  // the group that main() has put this process into: its children and itself
}

namespace {

std::atomic<bool> stop_scribbling{false};

struct ScribbleOrder {
    Range range;
    unsigned pattern;
    std::vector<Area> areas;
};

void* scribbler(void* argument) {
    const auto* order = static_cast<const ScribbleOrder*>(argument);
    while (!stop_scribbling) {
        for (const Area& area : order->areas) {
            // Its own stack may lie up there: that one belongs to it.
            if (!area.writable || area.start < order->range.base || area.end > order->range.end() ||
                area.name == "[stack]") {
                continue;
            }
            for (uint64_t at = area.start; at < area.end; at += 8) {
                *reinterpret_cast<volatile uint64_t*>(at) =
                    order->pattern == 0 ? 0 : order->pattern * 0x0101010101010101UL + at;
            }
        }
    }
    return nullptr;
}

void* nothing(void*) { return nullptr; }

}  // namespace

void scribble(Range range, unsigned pattern) {
    static ScribbleOrder order;
    order = {range, pattern, read_areas()};
    const std::vector<Area> hidden = find_hidden_areas(range);
    order.areas.insert(order.areas.end(), hidden.begin(), hidden.end());
    pthread_t thread;
    if (::pthread_create(&thread, nullptr, scribbler, &order) != 0) {
        ::_exit(1);
    }
    for (int i = 0; i < 50; ++i) {
        pthread_t other;
        if (::pthread_create(&other, nullptr, nothing, nullptr) == 0) {
            ::pthread_join(other, nullptr);
        }
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::_exit(0);
        }
        if (pid > 0) {
            ::waitpid(pid, nullptr, 0);
        }
        ::kill(::getpid(), 0);
    }
    stop_scribbling = true;
    ::pthread_join(thread, nullptr);
}

std::vector<uint64_t> jump_targets(Range range) {
    std::vector<uint64_t> targets;
    std::vector<Area> areas = read_areas();
    const std::vector<Area> hidden = find_hidden_areas(range);
    areas.insert(areas.end(), hidden.begin(), hidden.end());
    for (const Area& area : areas) {
        if (!area.executable || area.start < range.base || area.end > range.end()) {
            continue;
        }
        if (!area.readable) {
            for (uint64_t at = area.start; at < area.end && targets.size() < 256; at += 16) {
                targets.push_back(at);
            }
            continue;
        }
        const auto* bytes = reinterpret_cast<const unsigned char*>(area.start);
        for (uint64_t i = 0; i + 1 < area.end - area.start && targets.size() < 256; ++i) {
            if (bytes[i] == 0x0f && bytes[i + 1] == 0x05) {
                targets.push_back(area.start + i);
            }
        }
        targets.push_back(area.start);
    }
    if (targets.empty()) {
        // Nothing visible: perhaps the kernel hides it. Every 64th page is worth a try.
        for (uint64_t at = range.base; at < range.end() && targets.size() < 64; at += 64 * 4096) {
            targets.push_back(at);
        }
    }
    return targets;
}

void jump(uint64_t address, long number, const long* args) {
    register long r10 asm("r10") = args[3];
    register long r8 asm("r8") = args[4];
    register long r9 asm("r9") = args[5];
    // rbx, r12 to r15: what a stub might take for its own state.
    asm volatile(
        "mov $-1, %%rbx\n"
        "xor %%r12d, %%r12d\n"
        "mov $1, %%r13d\n"
        "xor %%r14d, %%r14d\n"
        "jmp *%[target]\n"
        :
        : "a"(number), "D"(args[0]), "S"(args[1]), "d"(args[2]), "r"(r10), "r"(r8),
          "r"(r9), [target] "c"(address)
        : "rbx", "r12", "r13", "r14", "memory");
    __builtin_unreachable();
}

void int80() {
    const struct {
        long number, a, b, c;
    } calls[] = {{20, 0, 0, 0},            // getpid
                 {5, 0, 0, 0},             // open
                 {125, 0x10000, 4096, 7},  // mprotect
                 {9999, 0, 0, 0}};
    for (const auto& call : calls) {
        long result = call.number;
        asm volatile("int $0x80"
                     : "+a"(result)
                     : "b"(call.a), "c"(call.b), "d"(call.c)
                     : "memory", "r8", "r9", "r10", "r11");
    }
}

void x32() {
    constexpr long kX32 = 0x40000000;
    for (const long number : {39L, 57L, 9L, 520L, 15L}) {
        const long result = ::syscall(kX32 + number, 0, 4096, 3, 0x22, -1, 0);
        if (number == 57 && result == 0) {
            ::_exit(0);
        }
    }
}

void block_signals_and_spin(uint64_t syscall_instruction, std::atomic<int>* spinning) {
    static std::atomic<int>* flag;  // not on the stack that is left behind
    flag = spinning;
    // The kernel's rt_sigframe without its first word, which the handler's ret would have taken.
    struct Frame {
        unsigned long flags;
        void* link;
        stack_t stack;
        greg_t registers[NGREG];
        void* floating_point;
        unsigned long reserved[8];
        unsigned long mask;
    };
    alignas(16) static Frame frame;
    static char stack[65536];
    frame.flags = 6;  // UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
    frame.stack.ss_flags = SS_DISABLE;
    frame.registers[REG_RIP] = reinterpret_cast<greg_t>(&&spin);
    frame.registers[REG_RSP] = (reinterpret_cast<greg_t>(stack) + 60000) & ~15L;
    frame.registers[REG_EFL] = 0x202;
    frame.registers[REG_CSGSFS] = 0x002b'0000'0000'0033;
    frame.mask = ~0UL;
    asm volatile(
        "mov %0, %%rsp\n"
        "mov %2, %%eax\n"
        "jmp *%1\n"
        :
        : "r"(&frame), "r"(syscall_instruction), "i"(SYS_rt_sigreturn)
        : "rax", "memory");
spin:
    *flag = 1;
    for (;;) {
        asm volatile("pause");
    }
}

void remap(Range range) {
    const auto base = static_cast<long>(range.base), size = static_cast<long>(range.size);
    static char byte[4096];
    const pid_t me = ::getpid();
    ::syscall(SYS_mprotect, base, size, PROT_READ | PROT_WRITE | PROT_EXEC);
    ::syscall(SYS_madvise, base, size, MADV_DONTNEED);
    ::syscall(SYS_mremap, base, 4096, 8192, MREMAP_MAYMOVE, 0);
    ::syscall(SYS_mremap, byte, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, base + 4096);
    ::syscall(SYS_mmap, base, 65536, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    ::syscall(SYS_munmap, base - 4096, -4096L);
    ::syscall(SYS_munmap, base, size);
    std::vector<Area> areas = read_areas();
    const std::vector<Area> hidden = find_hidden_areas(range);
    areas.insert(areas.end(), hidden.begin(), hidden.end());
    for (const Area& area : areas) {
        if (area.start >= range.base && area.end <= range.end() && area.name != "[stack]") {
            ::syscall(SYS_munmap, area.start, area.end - area.start);
        }
    }
    ::_exit(::getpid() == me ? 0 : 1);
}

}  // namespace hostile
