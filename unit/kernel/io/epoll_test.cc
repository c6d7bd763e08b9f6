#include "kernel/fs/epoll/epoll.h"

#include "unit/kernel/io/waiting.h"

using namespace moat;
using namespace moat::kernel;
using namespace moat::kernel::test;

namespace {

struct Instance {
    RefPtr<EpollFile> file = make_ref<EpollFile>();

    Status control(int operation, RefPtr<File> target, int fd, uint32_t events = 0,
                   uint64_t data = 0) {
        epoll_event event{};
        event.events = events;
        event.data.u64 = data;
        const WakeScope scope;
        return file->core().control(*file, operation, std::move(target), Fd{fd}, event);
    }
    Status add(RefPtr<File> target, int fd, uint32_t events, uint64_t data = 0) {
        return control(EPOLL_CTL_ADD, std::move(target), fd, events, data);
    }
    /// What epoll_wait(2) would give, without waiting.
    std::vector<epoll_event> wait() {
        const WakeScope scope;
        std::vector<epoll_event> result;
        size_t left = file->core().ready_count();
        EpollCore::Batch batch(file->core());
        while (left > 0) {
            const size_t taken = batch.take(left);
            if (taken == 0) {
                break;
            }
            left -= taken;
            result.insert(result.end(), batch.events(), batch.events() + batch.event_count());
            batch.settle(EpollCore::Batch::Settle::kDelivered);
        }
        return result;
    }
};

}  // namespace

TEST_CASE("epoll: level-triggered events stay, edge-triggered ones come once") {
    Instance epoll;
    const auto level = make_ref<FakeFile>();
    const auto edge = make_ref<FakeFile>();
    REQUIRE(epoll.add(level, 1, EPOLLIN, 11).ok());
    REQUIRE(epoll.add(edge, 2, EPOLLIN | EPOLLET, 22).ok());
    CHECK(epoll.wait().empty());
    level->raise(EPOLLIN);
    edge->raise(EPOLLIN);
    CHECK(epoll.wait().size() == 2);
    auto events = epoll.wait();
    REQUIRE(events.size() == 1);
    CHECK(uint64_t{events[0].data.u64} == 11);
    edge->raise(EPOLLIN);  // a second edge, though still ready
    CHECK(epoll.wait().size() == 2);
    level->ready = 0;
    CHECK(epoll.wait().empty());
    CHECK(epoll.file->core().ready_count() == 0);
}

TEST_CASE("epoll: an event that nobody asked for is none; errors and hang-ups always are") {
    Instance epoll;
    const auto file = make_ref<FakeFile>();
    REQUIRE(epoll.add(file, 1, EPOLLIN).ok());
    file->raise(EPOLLOUT);
    CHECK(epoll.wait().empty());
    file->raise(EPOLLHUP);
    const auto events = epoll.wait();
    REQUIRE(events.size() == 1);
    CHECK(uint32_t{events[0].events} == EPOLLHUP);
}

TEST_CASE("epoll: what is ready when added or modified is an event") {
    Instance epoll;
    const auto file = make_ref<FakeFile>();
    file->ready = EPOLLIN;
    REQUIRE(epoll.add(file, 1, EPOLLIN | EPOLLET).ok());
    CHECK(epoll.wait().size() == 1);
    CHECK(epoll.wait().empty());
    REQUIRE(epoll.control(EPOLL_CTL_MOD, file, 1, EPOLLIN | EPOLLET).ok());
    CHECK(epoll.wait().size() == 1);
}

TEST_CASE("epoll: one shot is one event until it is armed again") {
    Instance epoll;
    const auto file = make_ref<FakeFile>();
    REQUIRE(epoll.add(file, 1, EPOLLIN | EPOLLONESHOT).ok());
    file->raise(EPOLLIN);
    CHECK(epoll.wait().size() == 1);
    file->raise(EPOLLIN | EPOLLHUP);
    CHECK(epoll.wait().empty());
    REQUIRE(epoll.control(EPOLL_CTL_MOD, file, 1, EPOLLIN | EPOLLONESHOT).ok());
    CHECK(epoll.wait().size() == 1);
}

TEST_CASE("epoll: one shot armed again between taking and settling stays armed") {
    Instance epoll;
    const auto file = make_ref<FakeFile>();
    REQUIRE(epoll.add(file, 1, EPOLLIN | EPOLLONESHOT).ok());
    file->raise(EPOLLIN);
    const WakeScope scope;
    EpollCore::Batch batch(epoll.file->core());
    REQUIRE(batch.take(8) == 1);
    REQUIRE(epoll.control(EPOLL_CTL_MOD, file, 1, EPOLLIN | EPOLLONESHOT).ok());
    batch.settle(EpollCore::Batch::Settle::kDelivered);
    CHECK(epoll.wait().size() == 1);
}

TEST_CASE("epoll: an event that comes while its item is being asked is not lost") {
    Instance epoll;
    const auto file = make_ref<FakeFile>();
    REQUIRE(epoll.add(file, 1, EPOLLIN | EPOLLET).ok());
    file->raise(EPOLLIN);
    const WakeScope scope;
    EpollCore::Batch batch(epoll.file->core());
    REQUIRE(batch.take(8) == 1);
    file->raise(EPOLLIN);
    WakeScope::flush();
    batch.settle(EpollCore::Batch::Settle::kDelivered);
    CHECK(epoll.wait().size() == 1);
}

TEST_CASE("epoll: operations on what is there twice or not at all") {
    Instance epoll;
    const auto file = make_ref<FakeFile>();
    CHECK(epoll.control(EPOLL_CTL_DEL, file, 1).error() == ENOENT);
    CHECK(epoll.control(EPOLL_CTL_MOD, file, 1, EPOLLIN).error() == ENOENT);
    REQUIRE(epoll.add(file, 1, EPOLLIN).ok());
    CHECK(epoll.add(file, 1, EPOLLIN).error() == EEXIST);
    CHECK(epoll.add(file, 2, EPOLLIN).ok());  // another number of the same file is another item
    CHECK(epoll.control(EPOLL_CTL_DEL, file, 1).ok());
    file->raise(EPOLLIN);
    CHECK(epoll.wait().size() == 1);
    CHECK(epoll.control(99, file, 2).error() == EINVAL);
    CHECK(epoll.add(epoll.file, 3, EPOLLIN).error() == EINVAL);
    CHECK(epoll.add(file, 4, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT).error() == EINVAL);
    CHECK(epoll.add(file, 4, EPOLLIN | EPOLLEXCLUSIVE).ok());
    CHECK(epoll.control(EPOLL_CTL_MOD, file, 4, EPOLLIN).error() == EINVAL);
}

TEST_CASE("epoll: a file's end takes its items away") {
    Instance epoll;
    bool destroyed = false;
    auto file = make_ref<FakeFile>(&destroyed);
    REQUIRE(epoll.add(file, 1, EPOLLIN).ok());
    file->raise(EPOLLIN);
    CHECK(epoll.file->core().ready_count() == 1);
    {
        const WakeScope scope;
        file.reset();
    }
    CHECK(destroyed);
    CHECK(epoll.file->core().ready_count() == 0);
    CHECK(epoll.file->watches().empty());
    CHECK(epoll.wait().empty());
}

TEST_CASE("epoll: an instance's end leaves nothing in the file's queue") {
    const auto file = make_ref<FakeFile>();
    {
        Instance epoll;
        REQUIRE(epoll.add(file, 1, EPOLLIN).ok());
        CHECK(file->queue.has_waiters());
    }
    CHECK(!file->queue.has_waiters());
}

TEST_CASE("epoll: an instance in an instance is readable when it has events") {
    Instance outer;
    Instance inner;
    const auto file = make_ref<FakeFile>();
    REQUIRE(inner.add(file, 1, EPOLLIN).ok());
    REQUIRE(outer.add(inner.file, 2, EPOLLIN, 7).ok());
    CHECK(outer.wait().empty());
    file->raise(EPOLLIN);
    const auto events = outer.wait();
    REQUIRE(events.size() == 1);
    CHECK(uint64_t{events[0].data.u64} == 7);
    file->ready = 0;
    CHECK(outer.wait().empty());
}

TEST_CASE("epoll: circles and deep nests are refused") {
    Instance chain[7];
    for (int i = 0; i + 1 < 5; i++) {
        REQUIRE(chain[i].add(chain[i + 1].file, 1, EPOLLIN).ok());
    }
    // Five instances above each other are as deep as it goes, from whichever end it grows.
    CHECK(chain[4].add(chain[5].file, 1, EPOLLIN).error() == ELOOP);
    CHECK(chain[5].add(chain[0].file, 1, EPOLLIN).error() == ELOOP);
    CHECK(chain[4].add(chain[0].file, 1, EPOLLIN).error() == ELOOP);
    CHECK(chain[2].add(chain[1].file, 9, EPOLLIN).error() == ELOOP);
    // Taking a link out makes room again.
    REQUIRE(chain[1].control(EPOLL_CTL_DEL, chain[2].file, 1).ok());
    CHECK(chain[4].add(chain[5].file, 1, EPOLLIN).ok());
}

TEST_CASE("epoll: a look by poll(2) uses up no edge") {
    Instance epoll;
    const auto file = make_ref<FakeFile>();
    REQUIRE(epoll.add(file, 1, EPOLLIN | EPOLLET).ok());
    file->raise(EPOLLIN);
    const WakeScope scope;
    CHECK(epoll.file->poll() == (EPOLLIN | EPOLLRDNORM));
    CHECK(epoll.file->poll() == (EPOLLIN | EPOLLRDNORM));
    CHECK(epoll.wait().size() == 1);
    CHECK(epoll.file->poll() == 0);
}
