// poll(2), ppoll(2), select(2), pselect6(2).

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

TEST_CASE("poll: tells which of several are ready, and leaves the others at zero") {
    Pipe a, b;
    REQUIRE(write_all(b.write_end.get(), "x"));
    pollfd entries[] = {{a.read_end.get(), POLLIN, -1},
                        {b.read_end.get(), POLLIN, -1},
                        {a.write_end.get(), POLLOUT, -1},
                        {-5, POLLIN, -1}};
    CHECK_THAT(::poll(entries, 4, 0), succeeds_with(2));
    CHECK(entries[0].revents == 0);
    CHECK(entries[1].revents == POLLIN);
    CHECK(entries[2].revents == POLLOUT);
    CHECK(entries[3].revents == 0);
}

TEST_CASE("poll: a closed descriptor is POLLNVAL, not an error") {
    pollfd entry{999, POLLIN, 0};
    CHECK_THAT(::poll(&entry, 1, -1), succeeds_with(1));
    CHECK(entry.revents == POLLNVAL);
}

TEST_CASE("poll: POLLHUP of a reader, POLLERR of a writer without the other end") {
    Pipe a, b;
    a.write_end.reset();
    b.read_end.reset();
    pollfd entries[] = {{a.read_end.get(), POLLIN, 0}, {b.write_end.get(), POLLOUT, 0}};
    CHECK_THAT(::poll(entries, 2, 0), succeeds_with(2));
    CHECK(entries[0].revents == POLLHUP);
    CHECK((entries[1].revents & POLLERR) != 0);
}

TEST_CASE("poll: regular files are always ready") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f"), O_RDWR);
    pollfd entry{fd.get(), POLLIN | POLLOUT | POLLPRI, 0};
    CHECK_THAT(::poll(&entry, 1, 0), succeeds_with(1));
    CHECK(entry.revents == (POLLIN | POLLOUT));
}

TEST_CASE("poll: sleeps until one is ready, and returns zero when the time is over") {
    Pipe pipe;
    pollfd entry{pipe.read_end.get(), POLLIN, 0};
    CHECK_THAT(::poll(&entry, 1, 5), succeeds_with(0));
    int n = 0;
    Thread poller([&] {
        pollfd mine{pipe.read_end.get(), POLLIN, 0};
        n = ::poll(&mine, 1, -1);
    });
    wait_until_blocked(::getpid(), poller.tid());
    REQUIRE(write_all(pipe.write_end.get(), "x"));
    poller.join();
    CHECK(n == 1);
}

TEST_CASE("poll: the close of the writing end wakes the sleeper") {
    Pipe pipe;
    short revents = 0;
    Thread poller([&] {
        pollfd mine{pipe.read_end.get(), POLLIN, 0};
        ::poll(&mine, 1, -1);
        revents = mine.revents;
    });
    wait_until_blocked(::getpid(), poller.tid());
    pipe.write_end.reset();
    poller.join();
    CHECK(revents == POLLHUP);
}

TEST_CASE("poll: bad pointers, and more entries than descriptors are allowed") {
    CHECK_THAT(::poll(bad<pollfd>(), 1, 0), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_poll, read_only_page(), 1, 0), fails_with(EFAULT));
    in_child([] {
        const rlimit limit{10, 10};
        ::setrlimit(RLIMIT_NOFILE, &limit);
        std::vector<pollfd> many(11, {-1, 0, 0});
        CHILD_THAT(::poll(many.data(), many.size(), 0), fails_with(EINVAL));
        CHILD_THAT(::poll(many.data(), 10, 0), succeeds_with(0));
    });
}

TEST_CASE("ppoll: the mask holds during the wait, the time left is written back") {
    in_child([] {
        static volatile sig_atomic_t calls = 0;
        ::signal(SIGUSR1, [](int) { calls = calls + 1; });
        sigset_t blocked, none;
        ::sigemptyset(&none);
        ::sigemptyset(&blocked);
        ::sigaddset(&blocked, SIGUSR1);
        ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
        ::raise(SIGUSR1);
        timespec limit{1000, 0};
        CHILD_THAT(::syscall(SYS_ppoll, nullptr, 0, &limit, &none, 8), fails_with(EINTR));
        CHILD_CHECK(calls == 1);
        CHILD_CHECK(limit.tv_sec < 1000 && limit.tv_sec > 900);
        limit = {0, -1};
        CHILD_THAT(::syscall(SYS_ppoll, nullptr, 0, &limit, nullptr, 8), fails_with(EINVAL));
        limit = {0, 0};
        CHILD_THAT(::syscall(SYS_ppoll, nullptr, 0, &limit, &none, 4), fails_with(EINVAL));
    });
}

TEST_CASE("select: sets are cut down to what is ready") {
    Pipe a, b;
    REQUIRE(write_all(a.write_end.get(), "x"));
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(a.read_end.get(), &in);
    FD_SET(b.read_end.get(), &in);
    FD_SET(b.write_end.get(), &out);
    timeval none{0, 0};
    CHECK_THAT(::select(64, &in, &out, nullptr, &none), succeeds_with(2));
    CHECK(FD_ISSET(a.read_end.get(), &in));
    CHECK(!FD_ISSET(b.read_end.get(), &in));
    CHECK(FD_ISSET(b.write_end.get(), &out));
}

TEST_CASE("select: an end of file counts as readable") {
    Pipe pipe;
    pipe.write_end.reset();
    fd_set in;
    FD_ZERO(&in);
    FD_SET(pipe.read_end.get(), &in);
    CHECK_THAT(::select(64, &in, nullptr, nullptr, nullptr), succeeds_with(1));
}

TEST_CASE("select: writes no byte behind the sets of nfds bits") {
    Pipe pipe;
    const int fd = ::fcntl(pipe.write_end.get(), F_DUPFD, 0);
    REQUIRE(fd < 64);
    FencedBuffer set(8);  // 64 bits: one long
    std::fill(set.data(), set.data() + 8, 0);
    set.data()[fd / 8] = static_cast<char>(1 << (fd % 8));
    CHECK_THAT(::syscall(SYS_select, fd + 1, nullptr, set.data(), nullptr, nullptr),
               succeeds_with(1));
    CHECK(set.intact());
    ::close(fd);
}

TEST_CASE("select: errors") {
    fd_set in;
    FD_ZERO(&in);
    FD_SET(63, &in);
    timeval none{0, 0};
    ::close(63);
    CHECK_THAT(::select(64, &in, nullptr, nullptr, &none), fails_with(EBADF));
    CHECK_THAT(::select(-1, nullptr, nullptr, nullptr, &none), fails_with(EINVAL));
    timeval wrong{-1, 0};
    CHECK_THAT(::select(0, nullptr, nullptr, nullptr, &wrong), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_select, 64, bad<fd_set>(), nullptr, nullptr, &none),
               fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_select, 0, nullptr, nullptr, nullptr, bad<timeval>()),
               fails_with(EFAULT));
}

TEST_CASE("pselect: takes pending signals with its mask") {
    in_child([] {
        static volatile sig_atomic_t calls = 0;
        ::signal(SIGUSR1, [](int) { calls = calls + 1; });
        sigset_t blocked, none;
        ::sigemptyset(&none);
        ::sigemptyset(&blocked);
        ::sigaddset(&blocked, SIGUSR1);
        ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
        ::raise(SIGUSR1);
        CHILD_THAT(::pselect(0, nullptr, nullptr, nullptr, nullptr, &none), fails_with(EINTR));
        CHILD_CHECK(calls == 1);
    });
}

}  // namespace
