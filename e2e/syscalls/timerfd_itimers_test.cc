// timerfd, setitimer(2), POSIX timers, nanosleep(2), clock_nanosleep(2). No case depends on how
// fast the machine is: only that nothing comes too early and everything comes in the end.

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

constexpr long kMillisecond = 1'000'000;

int64_t now_ns(clockid_t clock = CLOCK_MONOTONIC) {
    timespec t;
    ::clock_gettime(clock, &t);
    return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

timespec from_ns(int64_t ns) { return {ns / 1'000'000'000, ns % 1'000'000'000}; }

volatile sig_atomic_t calls = 0;
siginfo_t last_info;

void handle(int signal) {
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
        last_info = *info;
        calls = calls + 1;
    };
    CHILD_THAT(::sigaction(signal, &action, nullptr), succeeds());
}

TEST_CASE("nanosleep: sleeps at least as long as asked") {
    const int64_t start = now_ns();
    const timespec ask{0, 20 * kMillisecond};
    CHECK_THAT(::nanosleep(&ask, nullptr), succeeds());
    CHECK(now_ns() - start >= 20 * kMillisecond);
}

TEST_CASE("nanosleep: wrong times and pointers fail") {
    const timespec negative{-1, 0}, large{0, 1'000'000'000}, zero{0, 0};
    CHECK_THAT(::nanosleep(&negative, nullptr), fails_with(EINVAL));
    CHECK_THAT(::nanosleep(&large, nullptr), fails_with(EINVAL));
    CHECK_THAT(::nanosleep(&zero, nullptr), succeeds());
    CHECK_THAT(::syscall(SYS_nanosleep, bad<timespec>(), nullptr), fails_with(EFAULT));
}

TEST_CASE("clock_nanosleep: absolute times end there, past ones at once, clocks are checked") {
    const timespec target = from_ns(now_ns() + 20 * kMillisecond);
    CHECK(::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &target, nullptr) == 0);
    CHECK(now_ns() >= target.tv_sec * 1'000'000'000 + target.tv_nsec);
    const timespec past{1, 0};
    CHECK(::clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &past, nullptr) == 0);
    CHECK(::clock_nanosleep(99, 0, &past, nullptr) == EINVAL);
    CHECK_THAT(::syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &past, nullptr),
               fails_with_any({EINVAL, EOPNOTSUPP}));
}

TEST_CASE("timerfd: one shot becomes readable and counts one") {
    const FileDescriptor fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
    REQUIRE(fd.valid());
    const itimerspec once{{0, 0}, {0, 5 * kMillisecond}};
    const int64_t start = now_ns();
    REQUIRE_THAT(::timerfd_settime(fd.get(), 0, &once, nullptr), succeeds());
    uint64_t expirations = 0;
    CHECK_THAT(::read(fd.get(), &expirations, 8), succeeds_with(8));
    CHECK(expirations == 1);
    CHECK(now_ns() - start >= 5 * kMillisecond);
    itimerspec now;
    REQUIRE_THAT(::timerfd_gettime(fd.get(), &now), succeeds());
    CHECK(now.it_value.tv_sec == 0);
    CHECK(now.it_value.tv_nsec == 0);
}

TEST_CASE("timerfd: intervals add up while nobody reads") {
    const FileDescriptor fd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    const itimerspec every{{0, 2 * kMillisecond}, {0, 2 * kMillisecond}};
    const int64_t start = now_ns();
    REQUIRE_THAT(::timerfd_settime(fd.get(), 0, &every, nullptr), succeeds());
    const timespec pause{0, 25 * kMillisecond};
    ::nanosleep(&pause, nullptr);
    uint64_t expirations = 0;
    CHECK_THAT(::read(fd.get(), &expirations, 8), succeeds_with(8));
    CHECK(expirations >= 10);
    CHECK(static_cast<int64_t>(expirations) <= (now_ns() - start) / (2 * kMillisecond) + 1);
}

TEST_CASE("timerfd: disarmed and non-blocking fails with EAGAIN, poll sleeps until it fires") {
    const FileDescriptor fd(::timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
    uint64_t expirations;
    CHECK_THAT(::read(fd.get(), &expirations, 8), fails_with(EAGAIN));
    pollfd entry{fd.get(), POLLIN, 0};
    CHECK_THAT(::poll(&entry, 1, 0), succeeds_with(0));
    const itimerspec once{{0, 0}, {0, kMillisecond}};
    REQUIRE_THAT(::timerfd_settime(fd.get(), 0, &once, nullptr), succeeds());
    CHECK_THAT(::poll(&entry, 1, kPatienceSeconds * 1000), succeeds_with(1));
    CHECK(entry.revents == POLLIN);
}

TEST_CASE("timerfd: settime returns the old setting, an absolute past time fires at once") {
    const FileDescriptor fd(::timerfd_create(CLOCK_MONOTONIC, 0));
    const itimerspec hour{{7, 8}, {3600, 0}};
    REQUIRE_THAT(::timerfd_settime(fd.get(), 0, &hour, nullptr), succeeds());
    Fenced<itimerspec> old;
    const itimerspec past{{0, 0}, {0, 1}};
    REQUIRE_THAT(::timerfd_settime(fd.get(), TFD_TIMER_ABSTIME, &past, old.get()), succeeds());
    CHECK(old->it_interval.tv_sec == 7);
    CHECK(old->it_interval.tv_nsec == 8);
    CHECK(old->it_value.tv_sec >= 3000);
    CHECK(old.intact());
    uint64_t expirations = 0;
    CHECK_THAT(::read(fd.get(), &expirations, 8), succeeds_with(8));
    CHECK(expirations == 1);
}

TEST_CASE("timerfd: errors") {
    const FileDescriptor fd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    uint64_t value;
    const itimerspec wrong{{0, 0}, {0, 1'000'000'000}};
    CHECK_THAT(::timerfd_create(99, 0), fails_with(EINVAL));
    CHECK_THAT(::timerfd_create(CLOCK_MONOTONIC, 0x10), fails_with(EINVAL));
    CHECK_THAT(::timerfd_settime(fd.get(), 0, &wrong, nullptr), fails_with(EINVAL));
    CHECK_THAT(::timerfd_settime(fd.get(), 0x100, &wrong, nullptr), fails_with(EINVAL));
    CHECK_THAT(::timerfd_settime(1, 0, &wrong, nullptr), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_timerfd_settime, fd.get(), 0, bad<itimerspec>(), nullptr),
               fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_timerfd_gettime, fd.get(), bad<itimerspec>()), fails_with(EFAULT));
    CHECK_THAT(::read(fd.get(), &value, 4), fails_with(EINVAL));
}

TEST_CASE("setitimer: ITIMER_REAL sends SIGALRM, once or again and again") {
    in_child([] {
        handle(SIGALRM);
        const itimerval every{{0, 2000}, {0, 2000}};
        CHILD_THAT(::setitimer(ITIMER_REAL, &every, nullptr), succeeds());
        while (calls < 5) {
            ::pause();
        }
        itimerval old;
        const itimerval off{};
        CHILD_THAT(::setitimer(ITIMER_REAL, &off, &old), succeeds());
        CHILD_CHECK(old.it_interval.tv_usec == 2000);
        CHILD_THAT(::getitimer(ITIMER_REAL, &old), succeeds());
        CHILD_CHECK(old.it_value.tv_sec == 0 && old.it_value.tv_usec == 0);
    });
}

TEST_CASE("setitimer: ITIMER_VIRTUAL and ITIMER_PROF count processor time") {
    in_child([] {
        handle(SIGVTALRM);
        handle(SIGPROF);
        const itimerval soon{{0, 0}, {0, 10'000}};
        CHILD_THAT(::setitimer(ITIMER_VIRTUAL, &soon, nullptr), succeeds());
        while (calls == 0) {
            asm volatile("" ::: "memory");
        }
        CHILD_CHECK(last_info.si_signo == SIGVTALRM);
        CHILD_THAT(::setitimer(ITIMER_PROF, &soon, nullptr), succeeds());
        while (calls == 1) {
            asm volatile("" ::: "memory");
        }
        CHILD_CHECK(last_info.si_signo == SIGPROF);
    });
}

TEST_CASE("setitimer: errors") {
    itimerval value{};
    CHECK_THAT(::syscall(SYS_setitimer, 9, &value, nullptr), fails_with(EINVAL));
    value.it_value.tv_usec = 1'000'000;
    CHECK_THAT(::setitimer(ITIMER_REAL, &value, nullptr), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_getitimer, ITIMER_REAL, bad<itimerval>()), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_getitimer, 9, &value), fails_with(EINVAL));
}

TEST_CASE("POSIX timer: signals with its value and SI_TIMER, and tells what is left") {
    in_child([] {
        handle(SIGUSR1);
        sigevent event{};
        event.sigev_notify = SIGEV_SIGNAL;
        event.sigev_signo = SIGUSR1;
        event.sigev_value.sival_int = 4711;
        timer_t timer;
        CHILD_THAT(::timer_create(CLOCK_MONOTONIC, &event, &timer), succeeds());
        const itimerspec once{{0, 0}, {0, 3 * kMillisecond}};
        CHILD_THAT(::timer_settime(timer, 0, &once, nullptr), succeeds());
        while (calls == 0) {
            ::pause();
        }
        CHILD_CHECK(last_info.si_code == SI_TIMER);
        CHILD_CHECK(last_info.si_value.sival_int == 4711);
        const itimerspec hour{{0, 0}, {3600, 0}};
        itimerspec left;
        CHILD_THAT(::timer_settime(timer, 0, &hour, nullptr), succeeds());
        CHILD_THAT(::timer_gettime(timer, &left), succeeds());
        CHILD_CHECK(left.it_value.tv_sec > 3000);
        CHILD_THAT(::timer_delete(timer), succeeds());
    });
}

TEST_CASE("POSIX timer: expirations while the signal is blocked are overruns") {
    in_child([] {
        handle(SIGUSR1);
        sigset_t set;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGUSR1);
        ::sigprocmask(SIG_BLOCK, &set, nullptr);
        sigevent event{};
        event.sigev_notify = SIGEV_SIGNAL;
        event.sigev_signo = SIGUSR1;
        timer_t timer;
        CHILD_THAT(::timer_create(CLOCK_MONOTONIC, &event, &timer), succeeds());
        const itimerspec every{{0, kMillisecond}, {0, kMillisecond}};
        CHILD_THAT(::timer_settime(timer, 0, &every, nullptr), succeeds());
        const timespec pause{0, 20 * kMillisecond};
        ::nanosleep(&pause, nullptr);
        siginfo_t info;
        CHILD_THAT(::sigwaitinfo(&set, &info), succeeds_with(SIGUSR1));
        CHILD_CHECK(::timer_getoverrun(timer) >= 5);
        CHILD_CHECK(calls == 0);
    });
}

TEST_CASE("POSIX timer: SIGEV_THREAD_ID reaches that thread, SIGEV_NONE nobody") {
    in_child([] {
        static std::atomic<pid_t> receiver{0};
        ::signal(SIGUSR1, [](int) { receiver = gettid_now(); });
        Gate leave;
        Thread thread([&] { leave.wait(); });
        sigevent event{};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGUSR1;
        event._sigev_un._tid = thread.tid();
        int timer = -1;
        CHILD_THAT(::syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer), succeeds());
        const itimerspec once{{0, 0}, {0, kMillisecond}};
        CHILD_THAT(::syscall(SYS_timer_settime, timer, 0, &once, nullptr), succeeds());
        CHILD_CHECK(eventually([] { return receiver != 0; }));
        CHILD_CHECK(receiver == thread.tid());
        leave.open();
    });
}

TEST_CASE("POSIX timer: are not inherited by a forked child") {
    in_child([] {
        timer_t timer;
        sigevent event{};
        event.sigev_notify = SIGEV_NONE;
        CHILD_THAT(::timer_create(CLOCK_MONOTONIC, &event, &timer), succeeds());
        Child child([=] {
            itimerspec left;
            CHILD_THAT(::timer_gettime(timer, &left), fails_with(EINVAL));
        });
        CHILD_CHECK(child.wait() == exited(0));
    });
}

TEST_CASE("POSIX timer: errors") {
    int id;
    sigevent event{};
    event.sigev_notify = 77;
    CHECK_THAT(::syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id), fails_with(EINVAL));
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = 99;
    CHECK_THAT(::syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_timer_create, 99, nullptr, &id), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_timer_create, CLOCK_MONOTONIC, bad<sigevent>(), &id),
               fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_timer_create, CLOCK_MONOTONIC, nullptr, bad<int>()),
               fails_with(EFAULT));
    itimerspec value{};
    CHECK_THAT(::syscall(SYS_timer_settime, 12345, 0, &value, nullptr), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_timer_gettime, 12345, &value), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_timer_delete, 12345), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_timer_getoverrun, 12345), fails_with(EINVAL));
}

}  // namespace
