// The host's filter of guest threads, run by the interpreter that guests' own filters run in.

#include "kernel/platform/filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <algorithm>
#include <random>

#include "kernel/mm/address_space.h"
#include "kernel/platform/layout.h"
#include "kernel/task/seccomp_filter.h"
#include "stub_symbols.h"

#undef CHECK  // the kernel's own; the tests' is doctest's
#undef REQUIRE
#include <doctest/doctest.h>

using namespace moat;

namespace {

constexpr uint64_t kGuestIp = 0x401000;
constexpr uint64_t kHeap = 0x7ffff7c00000;  // where the host maps what has no address, below it
constexpr uint64_t kGiB = 1 << 30;
constexpr uint64_t kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;

struct Call {
    int number;
    uint64_t arguments[6];
};

uint32_t ask(const std::vector<sock_filter>& program, const Call& call, uint64_t ip = kGuestIp) {
    const auto filter =
        kernel::SeccompFilter::create(program, nullptr, kernel::SeccompFilter::Log::kNo);
    REQUIRE(filter.ok());
    seccomp_data data{};
    data.nr = call.number;
    data.arch = AUDIT_ARCH_X86_64;
    data.instruction_pointer = ip;
    std::copy(std::begin(call.arguments), std::end(call.arguments), data.args);
    bool log = false;
    return (*filter)->verdict(data, &log);
}

uint32_t ask_guest_filter(const Call& call, uint64_t ip = kGuestIp) {
    static const auto program = platform::build_guest_filter(/*direct_brk=*/true);
    return ask(program, call, ip);
}

TEST_CASE("what a guest does with its own memory is allowed directly") {
    for (const Call& call : {
             Call{SYS_mmap, {0, 1 << 20, PROT_READ | PROT_WRITE, kPrivate, ~0ull, 0}},
             Call{SYS_mmap, {0, 64 * kGiB, PROT_NONE, kPrivate | MAP_NORESERVE, ~0ull, 0}},
             Call{SYS_mmap, {0, 8 << 20, PROT_NONE, kPrivate | MAP_STACK, ~0ull, 0}},
             Call{SYS_mmap, {kHeap, 4096, PROT_READ, kPrivate | MAP_FIXED, ~0ull, 0}},
             Call{SYS_mmap, {0xc000000000, 64 << 20, PROT_NONE, kPrivate, ~0ull, 0}},
             Call{SYS_munmap, {kHeap, 1 << 20}},
             Call{SYS_munmap, {MOAT_STUB_BASE - 0x2000, 4096}},
             Call{SYS_mprotect, {kHeap, 4096, PROT_READ}},
             Call{SYS_mremap, {kHeap, 4096, 8192, MREMAP_MAYMOVE, 0}},
             Call{SYS_madvise, {kHeap, 1 << 20, MADV_DONTNEED}},
             Call{SYS_madvise, {0xc000000000, 4 << 20, MADV_HUGEPAGE}},
         }) {
        CAPTURE(call.number);
        CAPTURE(call.arguments[0]);
        CHECK(ask_guest_filter(call) == SECCOMP_RET_ALLOW);
    }
}

TEST_CASE("what the sentry has to answer is notified") {
    for (const Call& call : {
             Call{SYS_getpid, {}},
             Call{SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, 0, 0}},  // shared
             Call{SYS_mmap, {0, 4096, PROT_READ, kPrivate | MAP_LOCKED, ~0ull, 0}},
             Call{SYS_mmap, {0, 4096, PROT_READ, kPrivate | MAP_HUGETLB, ~0ull, 0}},
             Call{SYS_mmap, {0, 4096, PROT_READ, kPrivate | MAP_GROWSDOWN, ~0ull, 0}},
             Call{SYS_mmap, {0, 4096, PROT_READ | uint64_t{1} << 32, kPrivate, ~0ull, 0}},
             Call{SYS_mmap, {0, 4096, PROT_READ, kPrivate | uint64_t{1} << 32, ~0ull, 0}},
             Call{SYS_mmap, {MOAT_AREA_BASE, 4096, 3, kPrivate | MAP_FIXED, ~0ull, 0}},
             Call{SYS_mremap, {kHeap, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, MOAT_STUB_BASE}},
             Call{SYS_mremap, {MOAT_AREA_BASE, 0, 4096, MREMAP_MAYMOVE, 0}},  // a second mapping
             Call{SYS_madvise, {kHeap, 4096, MADV_REMOVE}},
             Call{SYS_madvise, {kHeap, 4096, 32 + MADV_DONTNEED}},
             Call{SYS_madvise, {kHeap, 4096, MADV_DONTNEED | uint64_t{1} << 32}},
             Call{SYS_munmap, {kHeap, ~0xfffull}},
             Call{SYS_munmap, {MOAT_STUB_BASE - 4096, 4097}},
         }) {
        CAPTURE(call.number);
        CAPTURE(call.arguments[0]);
        CHECK(ask_guest_filter(call) == SECCOMP_RET_USER_NOTIF);
    }
}

TEST_CASE("brk is direct only where the host keeps the heap") {
    CHECK(ask_guest_filter({SYS_brk, {kHeap}}) == SECCOMP_RET_ALLOW);
    CHECK(ask(platform::build_guest_filter(/*direct_brk=*/false), {SYS_brk, {kHeap}}) ==
          SECCOMP_RET_USER_NOTIF);
}

TEST_CASE("what the sentry does by orders comes into the stub at once") {
    CHECK(ask_guest_filter({SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE, 3, 0}}) ==
          SECCOMP_RET_TRAP);  // a file
    CHECK(ask_guest_filter({SYS_clone, {}}) == SECCOMP_RET_TRAP);
}

TEST_CASE("no direct call reaches the stub's area, whatever its range") {
    std::mt19937_64 random(1);
    const uint64_t places[] = {0,
                               kHeap,
                               MOAT_STUB_BASE,
                               MOAT_AREA_BASE,
                               MOAT_ALT_BASE,
                               MOAT_STUB_END,
                               uint64_t{0x7ffe} << 32,
                               uint64_t{0x7fff} << 32,
                               uint64_t{0x8000} << 32,
                               ~0xfffull};
    const auto near = [&](uint64_t place) {
        const int bits = static_cast<int>(random() % 45);
        const uint64_t distance = random() >> (63 - bits);
        return random() % 2 == 0 ? place + distance : place - distance;
    };
    int allowed = 0;
    for (int i = 0; i < 200'000; i++) {
        const uint64_t address = near(places[random() % std::size(places)]);
        const uint64_t end = near(places[random() % std::size(places)]);
        const uint64_t size = random() % 2 == 0 ? end - address : near(0);
        const uint64_t new_size = near(0);
        for (const Call& call :
             {Call{SYS_munmap, {address, size}}, Call{SYS_mprotect, {address, size, random() % 8}},
              Call{SYS_madvise, {address, size, random() % 40}},
              Call{SYS_mremap, {address, size, new_size, random() % 8, random()}},
              Call{SYS_mmap, {address, size, random() % 16, kPrivate | MAP_FIXED, ~0ull, 0}}}) {
            const uint32_t answer = ask_guest_filter(call);
            REQUIRE((answer == SECCOMP_RET_ALLOW || answer == SECCOMP_RET_USER_NOTIF));
            if (answer == SECCOMP_RET_ALLOW) {
                allowed++;
                CAPTURE(call.number);
                CAPTURE(address);
                CAPTURE(size);
                REQUIRE(kernel::is_clear_of_stub(address, size));
            }
        }
    }
    CHECK(allowed > 10'000);
}

TEST_CASE("of futex(2), what is private to a process and has no owner is direct") {
    for (const uint32_t operation : {FUTEX_WAIT, FUTEX_WAKE, FUTEX_REQUEUE, FUTEX_CMP_REQUEUE,
                                     FUTEX_WAKE_OP, FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET}) {
        CAPTURE(operation);
        const uint64_t direct = operation | FUTEX_PRIVATE_FLAG;
        CHECK(ask_guest_filter({SYS_futex, {kHeap, direct}}) == SECCOMP_RET_ALLOW);
        CHECK(ask_guest_filter({SYS_futex, {kHeap, direct | FUTEX_CLOCK_REALTIME}}) ==
              SECCOMP_RET_ALLOW);
        CHECK(ask_guest_filter({SYS_futex, {kHeap, operation}}) == SECCOMP_RET_USER_NOTIF);
        CHECK(ask_guest_filter({SYS_futex, {kHeap, direct | uint64_t{1} << 32}}) ==
              SECCOMP_RET_USER_NOTIF);
        const auto ending = platform::build_ending_filter(platform::kFutexCalls);
        CHECK(ask(ending, {SYS_futex, {kHeap, direct}}) == SECCOMP_RET_TRAP);
        CHECK(ask(ending, {SYS_futex, {kHeap, operation}}) == SECCOMP_RET_ALLOW);
        CHECK(ask(ending, {SYS_mmap, {0, 4096}}) == SECCOMP_RET_ALLOW);
    }
    for (const uint32_t operation :
         {FUTEX_LOCK_PI, FUTEX_UNLOCK_PI, FUTEX_TRYLOCK_PI, FUTEX_LOCK_PI2, FUTEX_WAIT_REQUEUE_PI,
          FUTEX_CMP_REQUEUE_PI, FUTEX_FD, 99}) {
        CAPTURE(operation);
        CHECK(ask_guest_filter({SYS_futex, {kHeap, operation | uint64_t{FUTEX_PRIVATE_FLAG}}}) ==
              SECCOMP_RET_USER_NOTIF);
    }
}

TEST_CASE("orders are notified, whatever direct calls have ended") {
    const uint64_t order_ip = MOAT_STUB_BATCH_INSTRUCTION + 2;
    for (const auto group : {platform::kMemoryCalls, platform::kFutexCalls}) {
        const auto ending = platform::build_ending_filter(group);
        for (const Call& call : {Call{SYS_mmap, {kHeap, 4096}}, Call{SYS_brk, {0}},
                                 Call{SYS_futex, {kHeap, FUTEX_WAKE_OP_PRIVATE}}}) {
            CHECK(ask(ending, call, order_ip) == SECCOMP_RET_ALLOW);
            CHECK(ask_guest_filter(call, order_ip) == SECCOMP_RET_USER_NOTIF);
        }
    }
}

TEST_CASE("threads whose calls on memory are to be seen come into the stub by those, by no other") {
    const auto program = platform::build_ending_filter(platform::kMemoryCalls);
    for (const uint32_t number : platform::kMemoryCallNumbers) {
        CHECK(ask(program, {static_cast<int>(number), {kHeap, 4096}}) == SECCOMP_RET_TRAP);
        // Jumping into the stub for it does not help.
        CHECK(ask(program, {static_cast<int>(number), {kHeap, 4096}}, MOAT_STUB_BASE + 0x1000) ==
              SECCOMP_RET_TRAP);
    }
    CHECK(ask(program, {SYS_getpid, {}}) == SECCOMP_RET_ALLOW);
    CHECK(ask(program, {SYS_futex, {kHeap, FUTEX_WAKE_PRIVATE}}) == SECCOMP_RET_ALLOW);
}

}  // namespace
