// epoll_create1(2), epoll_ctl(2), epoll_wait(2), epoll_pwait(2).

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

class Epoll {
  public:
    Epoll() : fd_(::epoll_create1(EPOLL_CLOEXEC)) {
        if (!fd_.valid()) {
            fatal("epoll_create1: " + errno_name(errno));
        }
    }
    int get() const { return fd_.get(); }
    int control(int operation, int fd, uint32_t events, uint64_t data = 0) const {
        epoll_event event{};
        event.events = events;
        event.data.u64 = data;
        return ::epoll_ctl(get(), operation, fd, &event);
    }
    /// The events that are ready now, or come within the limit.
    std::vector<epoll_event> wait(int timeout_ms = 0, int limit = 16) const {
        std::vector<epoll_event> events(static_cast<size_t>(limit));
        const int n = ::epoll_wait(get(), events.data(), limit, timeout_ms);
        events.resize(n > 0 ? static_cast<size_t>(n) : 0);
        return events;
    }

  private:
    FileDescriptor fd_;
};

constexpr int kLong = kPatienceSeconds * 1000;

TEST_CASE("epoll: reports readiness with the data that was registered, level by level") {
    Epoll epoll;
    Pipe pipe;
    REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, pipe.read_end.get(), EPOLLIN, 0x123456789abcdef0),
                 succeeds());
    CHECK(epoll.wait().empty());
    REQUIRE(write_all(pipe.write_end.get(), "x"));
    for (int i = 0; i < 2; ++i) {
        const auto events = epoll.wait();
        REQUIRE(events.size() == 1);
        CHECK(+events[0].events == EPOLLIN);
        CHECK(+events[0].data.u64 == 0x123456789abcdef0);
    }
    read_exactly(pipe.read_end.get(), 1);
    CHECK(epoll.wait().empty());
}

TEST_CASE("epoll: EPOLLET reports each arrival once") {
    Epoll epoll;
    Pipe pipe;
    REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, pipe.read_end.get(), EPOLLIN | EPOLLET), succeeds());
    REQUIRE(write_all(pipe.write_end.get(), "x"));
    CHECK(epoll.wait().size() == 1);
    CHECK(epoll.wait().empty());
    REQUIRE(write_all(pipe.write_end.get(), "y"));
    CHECK(epoll.wait().size() == 1);
    CHECK(epoll.wait().empty());
}

TEST_CASE("epoll: EPOLLONESHOT is silent until it is armed again") {
    Epoll epoll;
    const FileDescriptor event(::eventfd(1, EFD_NONBLOCK));
    REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, event.get(), EPOLLIN | EPOLLONESHOT), succeeds());
    CHECK(epoll.wait().size() == 1);
    CHECK(epoll.wait().empty());
    REQUIRE_THAT(epoll.control(EPOLL_CTL_MOD, event.get(), EPOLLIN | EPOLLONESHOT), succeeds());
    CHECK(epoll.wait().size() == 1);
}

TEST_CASE("epoll: a sleeping waiter is woken by a write, a modification and an addition") {
    Epoll epoll;
    Pipe pipe;
    REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, pipe.read_end.get(), EPOLLIN), succeeds());
    {
        size_t n = 0;
        Thread waiter([&] { n = epoll.wait(kLong).size(); });
        wait_until_blocked(::getpid(), waiter.tid());
        REQUIRE(write_all(pipe.write_end.get(), "x"));
        waiter.join();
        CHECK(n == 1);
    }
    REQUIRE_THAT(epoll.control(EPOLL_CTL_MOD, pipe.read_end.get(), 0), succeeds());
    {
        size_t n = 0;
        Thread waiter([&] { n = epoll.wait(kLong).size(); });
        wait_until_blocked(::getpid(), waiter.tid());
        REQUIRE_THAT(epoll.control(EPOLL_CTL_MOD, pipe.read_end.get(), EPOLLIN), succeeds());
        waiter.join();
        CHECK(n == 1);
    }
    REQUIRE_THAT(epoll.control(EPOLL_CTL_DEL, pipe.read_end.get(), 0), succeeds());
    {
        size_t n = 0;
        Thread waiter([&] { n = epoll.wait(kLong).size(); });
        wait_until_blocked(::getpid(), waiter.tid());
        REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, pipe.read_end.get(), EPOLLIN), succeeds());
        waiter.join();
        CHECK(n == 1);
    }
}

TEST_CASE("epoll: EPOLLHUP and EPOLLERR come unasked") {
    Epoll epoll;
    Pipe a, b;
    REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, a.read_end.get(), 0, 1), succeeds());
    a.write_end.reset();
    auto events = epoll.wait();
    REQUIRE(events.size() == 1);
    CHECK(+events[0].events == EPOLLHUP);
    REQUIRE_THAT(epoll.control(EPOLL_CTL_DEL, a.read_end.get(), 0), succeeds());
    REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, b.write_end.get(), EPOLLOUT, 2), succeeds());
    b.read_end.reset();
    events = epoll.wait();
    REQUIRE(events.size() == 1);
    CHECK((events[0].events & EPOLLERR) != 0);
}

TEST_CASE("epoll: EPOLLRDHUP tells the peer's shutdown of a socket") {
    Epoll epoll;
    SocketPair pair(SOCK_STREAM);
    REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, pair.a.get(), EPOLLRDHUP), succeeds());
    CHECK(epoll.wait().empty());
    REQUIRE_THAT(::shutdown(pair.b.get(), SHUT_WR), succeeds());
    const auto events = epoll.wait(kLong);
    REQUIRE(events.size() == 1);
    CHECK(+events[0].events == EPOLLRDHUP);
}

TEST_CASE("epoll: no more than maxevents at once, the others come next") {
    Epoll epoll;
    std::vector<FileDescriptor> events;
    for (int i = 0; i < 5; ++i) {
        events.emplace_back(::eventfd(1, 0));
        REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, events.back().get(), EPOLLIN | EPOLLET, i),
                     succeeds());
    }
    FencedBuffer buffer(2 * sizeof(epoll_event));
    CHECK_THAT(::epoll_wait(epoll.get(), reinterpret_cast<epoll_event*>(buffer.data()), 2, 0),
               succeeds_with(2));
    CHECK(buffer.intact());
    CHECK(epoll.wait().size() == 3);
}

TEST_CASE("epoll: closing the last descriptor removes the file, a copy keeps it") {
    Epoll epoll;
    FileDescriptor event(::eventfd(1, 0));
    REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, event.get(), EPOLLIN), succeeds());
    FileDescriptor copy(::dup(event.get()));
    event.reset();
    CHECK(epoll.wait().size() == 1);
    copy.reset();
    CHECK(epoll.wait().empty());
}

TEST_CASE("epoll: one may watch another, but not in a circle or itself") {
    Epoll outer, inner;
    const FileDescriptor event(::eventfd(0, 0));
    REQUIRE_THAT(inner.control(EPOLL_CTL_ADD, event.get(), EPOLLIN), succeeds());
    REQUIRE_THAT(outer.control(EPOLL_CTL_ADD, inner.get(), EPOLLIN), succeeds());
    CHECK(outer.wait().empty());
    REQUIRE_THAT(::eventfd_write(event.get(), 1), succeeds());
    CHECK(outer.wait().size() == 1);
    CHECK_THAT(inner.control(EPOLL_CTL_ADD, outer.get(), EPOLLIN), fails_with(ELOOP));
    CHECK_THAT(outer.control(EPOLL_CTL_ADD, outer.get(), EPOLLIN), fails_with(EINVAL));
}

TEST_CASE("epoll: EPOLLEXCLUSIVE and many waiters: one write wakes at least one") {
    Epoll epoll;
    Pipe pipe;
    REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, pipe.read_end.get(), EPOLLIN | EPOLLEXCLUSIVE),
                 succeeds());
    CHECK_THAT(epoll.control(EPOLL_CTL_MOD, pipe.read_end.get(), EPOLLIN | EPOLLEXCLUSIVE),
               fails_with(EINVAL));
    size_t n = 0;
    Thread waiter([&] { n = epoll.wait(kLong).size(); });
    wait_until_blocked(::getpid(), waiter.tid());
    REQUIRE(write_all(pipe.write_end.get(), "x"));
    waiter.join();
    CHECK(n == 1);
}

TEST_CASE("epoll: errors") {
    Epoll epoll;
    Pipe pipe;
    TempDir dir;
    const FileDescriptor file = open_file(dir.file("f"), O_RDONLY);
    CHECK_THAT(epoll.control(EPOLL_CTL_ADD, file.get(), EPOLLIN), fails_with(EPERM));
    CHECK_THAT(epoll.control(EPOLL_CTL_ADD, 999, EPOLLIN), fails_with(EBADF));
    CHECK_THAT(epoll.control(EPOLL_CTL_MOD, pipe.read_end.get(), EPOLLIN), fails_with(ENOENT));
    CHECK_THAT(epoll.control(EPOLL_CTL_DEL, pipe.read_end.get(), EPOLLIN), fails_with(ENOENT));
    CHECK_THAT(epoll.control(EPOLL_CTL_ADD, pipe.read_end.get(), EPOLLIN), succeeds());
    CHECK_THAT(epoll.control(EPOLL_CTL_ADD, pipe.read_end.get(), EPOLLIN), fails_with(EEXIST));
    CHECK_THAT(epoll.control(77, pipe.write_end.get(), EPOLLIN), fails_with(EINVAL));
    CHECK_THAT(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, pipe.write_end.get(), bad<epoll_event>()),
               fails_with(EFAULT));
    epoll_event event{};
    CHECK_THAT(::epoll_ctl(pipe.read_end.get(), EPOLL_CTL_ADD, pipe.write_end.get(), &event),
               fails_with(EINVAL));
    CHECK_THAT(::epoll_wait(epoll.get(), &event, 0, 0), fails_with(EINVAL));
    CHECK_THAT(::epoll_wait(epoll.get(), &event, -1, 0), fails_with(EINVAL));
    CHECK_THAT(::epoll_wait(pipe.read_end.get(), &event, 1, 0), fails_with(EINVAL));
    CHECK_THAT(::epoll_create1(0x40), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_epoll_create, 0), fails_with(EINVAL));
    char c;
    CHECK_THAT(::read(epoll.get(), &c, 1), fails_with(EINVAL));
}

TEST_CASE("epoll_wait: a bad event buffer fails with EFAULT and loses no event") {
    Epoll epoll;
    const FileDescriptor event(::eventfd(1, 0));
    REQUIRE_THAT(epoll.control(EPOLL_CTL_ADD, event.get(), EPOLLIN), succeeds());
    CHECK_THAT(::epoll_wait(epoll.get(), bad<epoll_event>(), 1, 0), fails_with(EFAULT));
    CHECK(epoll.wait().size() == 1);
}

TEST_CASE("epoll_pwait: the mask holds during the wait only") {
    in_child([] {
        static volatile sig_atomic_t calls = 0;
        ::signal(SIGUSR1, [](int) { calls = calls + 1; });
        sigset_t blocked, none;
        ::sigemptyset(&none);
        ::sigemptyset(&blocked);
        ::sigaddset(&blocked, SIGUSR1);
        ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
        ::raise(SIGUSR1);
        Epoll epoll;
        epoll_event event;
        CHILD_THAT(::epoll_pwait(epoll.get(), &event, 1, -1, &none), fails_with(EINTR));
        CHILD_CHECK(calls == 1);
        sigset_t now;
        ::sigprocmask(SIG_BLOCK, nullptr, &now);
        CHILD_CHECK(::sigismember(&now, SIGUSR1));
    });
}

TEST_CASE("close of the epoll descriptor while another thread waits on it") {
    auto* epoll = new Epoll;
    const FileDescriptor event(::eventfd(0, 0));
    REQUIRE_THAT(epoll->control(EPOLL_CTL_ADD, event.get(), EPOLLIN), succeeds());
    int n = -2;
    const int fd = epoll->get();
    Thread waiter([&] {
        epoll_event got;
        n = ::epoll_wait(fd, &got, 1, kLong);
    });
    wait_until_blocked(::getpid(), waiter.tid());
    delete epoll;
    REQUIRE_THAT(::eventfd_write(event.get(), 1), succeeds());
    waiter.join();
    CHECK(n == 1);
}

}  // namespace
