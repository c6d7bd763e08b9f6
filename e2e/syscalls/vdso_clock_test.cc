// Clocks, by the vDSO and by system calls.

#include <elf.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

int64_t ns(const timespec& t) { return t.tv_sec * 1'000'000'000L + t.tv_nsec; }

int64_t by_vdso(clockid_t clock) {
    timespec t{};
    ::clock_gettime(clock, &t);
    return ns(t);
}

int64_t by_call(clockid_t clock) {
    timespec t{};
    ::syscall(SYS_clock_gettime, clock, &t);
    return ns(t);
}

TEST_CASE("vdso: is an ELF image that the auxiliary vector names") {
    const auto* header = reinterpret_cast<const Elf64_Ehdr*>(::getauxval(AT_SYSINFO_EHDR));
    REQUIRE(header != nullptr);
    CHECK(std::memcmp(header->e_ident, ELFMAG, SELFMAG) == 0);
    CHECK(header->e_machine == EM_X86_64);
}

TEST_CASE("clocks: vDSO and system call tell the same time") {
    for (const clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME}) {
        CAPTURE(clock);
        const int64_t before = by_call(clock), between = by_vdso(clock), after = by_call(clock);
        CHECK(before <= between);
        CHECK(between <= after);
    }
}

TEST_CASE("clocks: the monotonic one never goes back, on two threads") {
    const auto watch = [] {
        int64_t last = 0, wrong = 0;
        for (int i = 0; i < 50'000; ++i) {
            const int64_t now = by_vdso(CLOCK_MONOTONIC);
            wrong += now < last;
            last = now;
        }
        return wrong;
    };
    int64_t a = -1, b = -1;
    {
        Thread first([&] { a = watch(); });
        Thread second([&] { b = watch(); });
    }
    CHECK(a == 0);
    CHECK(b == 0);
}

TEST_CASE("clocks: time, gettimeofday and CLOCK_REALTIME agree") {
    const time_t before =
        static_cast<time_t>(by_call(CLOCK_REALTIME) / 1'000'000'000) - 1;  // coarse may lag
    timeval now;
    REQUIRE_THAT(::gettimeofday(&now, nullptr), succeeds());
    const time_t seconds = ::time(nullptr);
    const time_t after = static_cast<time_t>(by_call(CLOCK_REALTIME) / 1'000'000'000);
    CHECK(now.tv_sec >= before);
    CHECK(now.tv_sec <= after);
    CHECK(seconds >= before);
    CHECK(seconds <= after);
}

TEST_CASE("clocks: the coarse ones lag, but not by much") {
    const int64_t coarse = by_vdso(CLOCK_MONOTONIC_COARSE), fine = by_vdso(CLOCK_MONOTONIC);
    CHECK(coarse <= fine);
    CHECK(fine - coarse < kPatienceSeconds * 1'000'000'000L);
    timespec resolution;
    REQUIRE_THAT(::clock_getres(CLOCK_MONOTONIC, &resolution), succeeds());
    CHECK(ns(resolution) >= 1);
    CHECK(ns(resolution) <= 10'000'000);
}

TEST_CASE("clocks: processor time grows with work, a thread's is at most the process's") {
    const int64_t start = by_call(CLOCK_PROCESS_CPUTIME_ID);
    while (by_call(CLOCK_PROCESS_CPUTIME_ID) - start < 5'000'000) {
    }
    const int64_t thread = by_call(CLOCK_THREAD_CPUTIME_ID),
                  process = by_call(CLOCK_PROCESS_CPUTIME_ID);
    CHECK(thread > 0);
    CHECK(thread <= process);
}

TEST_CASE("clocks: another process's processor clock can be read") {
    Child child([] { spin_forever(); });
    clockid_t clock;
    REQUIRE(::clock_getcpuclockid(child.pid(), &clock) == 0);
    CHECK(eventually([&] { return by_call(clock) > 1'000'000; }));
}

TEST_CASE("clocks: each thread has a processor clock that the others can read") {
    std::atomic<bool> end{false};
    Pipe pipe;
    char c;
    {
        Thread busy([&] {
            while (!end) {
            }
        });
        Thread idle([&] { (void)::read(pipe.read_end.get(), &c, 1); });
        wait_until_blocked(::getpid(), idle.tid());
        clockid_t busy_clock, idle_clock;
        REQUIRE(::pthread_getcpuclockid(busy.handle(), &busy_clock) == 0);
        REQUIRE(::pthread_getcpuclockid(idle.handle(), &idle_clock) == 0);
        const int64_t idle_before = by_call(idle_clock), busy_before = by_call(busy_clock);
        CHECK(eventually([&] { return by_call(busy_clock) > busy_before + 100'000'000; }));
        CHECK(by_call(idle_clock) < idle_before + 20'000'000);
        end = true;
        CHECK(write_all(pipe.write_end.get(), "x"));
    }
}

TEST_CASE("clocks: errors") {
    timespec t;
    CHECK_THAT(::syscall(SYS_clock_gettime, 99, &t), fails_with(EINVAL));
    CHECK_THAT(::clock_gettime(99, &t), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_clock_gettime, CLOCK_MONOTONIC, bad<timespec>()), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_clock_getres, CLOCK_MONOTONIC, bad<timespec>()), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_gettimeofday, bad<timeval>(), nullptr), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_time, bad<time_t>()), fails_with(EFAULT));
    in_child([] {
        CHILD_THAT(::setuid(12345), succeeds());
        const timespec now{1, 0};
        CHILD_THAT(::clock_settime(CLOCK_REALTIME, &now), fails_with(EPERM));
        CHILD_THAT(::clock_settime(CLOCK_MONOTONIC, &now), fails_with_any({EINVAL, EPERM}));
    });
}

TEST_CASE("clocks: a forked child and an executed program go on with the same time") {
    const int64_t before = by_vdso(CLOCK_MONOTONIC);
    in_child([=] {
        CHILD_CHECK(by_vdso(CLOCK_MONOTONIC) >= before);
        CHILD_CHECK(by_call(CLOCK_MONOTONIC) >= before);
    });
}

}  // namespace
