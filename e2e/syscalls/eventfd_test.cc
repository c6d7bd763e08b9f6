// eventfd2(2).

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

TEST_CASE("eventfd: writes add up, one read takes all") {
    const FileDescriptor fd(::eventfd(3, EFD_CLOEXEC));
    REQUIRE(fd.valid());
    REQUIRE_THAT(::eventfd_write(fd.get(), 4), succeeds());
    eventfd_t value = 0;
    CHECK_THAT(::eventfd_read(fd.get(), &value), succeeds());
    CHECK(value == 7);
}

TEST_CASE("eventfd: a semaphore gives one at a time") {
    const FileDescriptor fd(::eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
    eventfd_t value = 0;
    for (int i = 0; i < 2; ++i) {
        CHECK_THAT(::eventfd_read(fd.get(), &value), succeeds());
        CHECK(value == 1);
    }
    CHECK_THAT(::eventfd_read(fd.get(), &value), fails_with(EAGAIN));
}

TEST_CASE("eventfd: a reader of zero sleeps until a write") {
    const FileDescriptor fd(::eventfd(0, 0));
    eventfd_t value = 0;
    Thread reader([&] { ::eventfd_read(fd.get(), &value); });
    wait_until_blocked(::getpid(), reader.tid());
    REQUIRE_THAT(::eventfd_write(fd.get(), 9), succeeds());
    reader.join();
    CHECK(value == 9);
}

TEST_CASE("eventfd: a full counter makes writers sleep until a read") {
    const FileDescriptor fd(::eventfd(0, 0));
    REQUIRE_THAT(::eventfd_write(fd.get(), UINT64_MAX - 1), succeeds());
    Thread writer([&] { ::eventfd_write(fd.get(), 5); });
    wait_until_blocked(::getpid(), writer.tid());
    eventfd_t value = 0;
    CHECK_THAT(::eventfd_read(fd.get(), &value), succeeds());
    CHECK(value == UINT64_MAX - 1);
    writer.join();
    CHECK_THAT(::eventfd_read(fd.get(), &value), succeeds());
    CHECK(value == 5);
}

TEST_CASE("eventfd: poll shows readable and writable") {
    const FileDescriptor fd(::eventfd(0, EFD_NONBLOCK));
    pollfd entry{fd.get(), POLLIN | POLLOUT, 0};
    CHECK_THAT(::poll(&entry, 1, 0), succeeds_with(1));
    CHECK(entry.revents == POLLOUT);
    REQUIRE_THAT(::eventfd_write(fd.get(), UINT64_MAX - 1), succeeds());
    CHECK_THAT(::poll(&entry, 1, 0), succeeds_with(1));
    CHECK(entry.revents == POLLIN);
    CHECK_THAT(::eventfd_write(fd.get(), 1), fails_with(EAGAIN));
}

TEST_CASE("eventfd: wrong sizes, values and flags fail") {
    const FileDescriptor fd(::eventfd(1, EFD_NONBLOCK));
    uint64_t value = UINT64_MAX;
    CHECK_THAT(::write(fd.get(), &value, 8), fails_with(EINVAL));
    CHECK_THAT(::write(fd.get(), &value, 4), fails_with(EINVAL));
    CHECK_THAT(::read(fd.get(), &value, 7), fails_with(EINVAL));
    CHECK_THAT(::read(fd.get(), bad<char>(), 8), fails_with(EFAULT));
    CHECK_THAT(::eventfd(0, 0x10), fails_with(EINVAL));
}

TEST_CASE("eventfd: a forked child shares the counter") {
    const FileDescriptor fd(::eventfd(0, 0));
    Child child([&] { CHILD_THAT(::eventfd_write(fd.get(), 11), succeeds()); });
    eventfd_t value = 0;
    CHECK_THAT(::eventfd_read(fd.get(), &value), succeeds());
    CHECK(value == 11);
    CHECK(child.wait() == exited(0));
}

}  // namespace
