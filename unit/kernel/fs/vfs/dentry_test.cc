#include "unit/kernel/fs/vfs/harness.h"

#include <sys/inotify.h>

#include <cstring>

#include "kernel/fs/inotify/inotify.h"

using namespace moat;
using namespace moat::kernel;
using moat::kernel::test::World;

TEST_CASE("dentries: the cache keeps to its bound, and nothing is lost by it") {
    World w;
    DentryCache::set_limit(1000);
    REQUIRE(w.mkdir("/d") == 0);
    for (int i = 0; i < 5000; i++) {
        w.write_file("/d/f" + std::to_string(i), "");
    }
    CHECK(DentryCache::size() <= 1001);
    CHECK(w.list("/d").size() == 5000);
    CHECK(w.stat_error("/d/f0") == 0);
    CHECK(w.stat_error("/d/f4999") == 0);
    DentryCache::set_limit(65536);
}

TEST_CASE("dentries: an answer that a change has overtaken is not remembered") {
    World w;
    Dentry& root = *w.task().fs().root().dentry();
    const uint64_t version = DentryCache::version(root);
    w.write_file("/f", "x");
    CHECK_FALSE(DentryCache::insert(root, "f", nullptr, version));
    CHECK(w.stat_error("/f") == 0);
}

TEST_CASE("inotify: tells of entries and of files") {
    World w;
    REQUIRE(w.mkdir("/d") == 0);
    auto instance = make_ref<InotifyFile>(O_RDONLY);
    const auto wd = instance->add_watch(*resolve(w.task(), kCwd, "/d"), IN_ALL_EVENTS);
    REQUIRE(wd.ok());
    w.write_file("/d/f", "x");
    CHECK(w.rename("/d/f", "/d/g") == 0);
    CHECK(w.unlink("/d/g") == 0);
    char bytes[4096];
    IoBuffer buffer = IoBuffer::sentry(bytes, sizeof bytes);
    const auto n = instance->read(w.task(), buffer);
    REQUIRE(n.ok());
    using Event = std::pair<uint32_t, std::string>;
    std::vector<Event> events;
    for (size_t i = 0; i < *n;) {
        inotify_event event;
        memcpy(&event, bytes + i, sizeof event);
        CHECK(event.wd == *wd);
        events.emplace_back(event.mask, event.len != 0 ? bytes + i + sizeof event : "");
        i += sizeof event + event.len;
    }
    REQUIRE(events.size() == 6);
    CHECK((events[0] == Event(IN_CREATE, "f")));
    CHECK((events[1] == Event(IN_OPEN, "f")));
    CHECK((events[2] == Event(IN_CLOSE_WRITE, "f")));
    CHECK((events[3] == Event(IN_MOVED_FROM, "f")));
    CHECK((events[4] == Event(IN_MOVED_TO, "g")));
    CHECK((events[5] == Event(IN_DELETE, "g")));
    CHECK(instance->read(w.task(), buffer).error() == EAGAIN);
    CHECK(w.rmdir("/d") == 0);
    IoBuffer rest = IoBuffer::sentry(bytes, sizeof bytes);
    CHECK(*instance->read(w.task(), rest) == 2 * sizeof(inotify_event));  // DELETE_SELF, IGNORED
    CHECK(instance->remove_watch(*wd).error() == EINVAL);
    CHECK(inotify_watch_count.load() == 0);
}

TEST_CASE("descriptor tables: the lowest free number, limits, close on exec") {
    World w;
    FdTable& fds = w.task().fds();
    w.write_file("/f", "x");
    RefPtr<File> file = w.open("/f");
    CHECK(to_integer(*fds.install(file, CloseOnExec::kNo, 10)) == 0);
    CHECK(to_integer(*fds.install(file, CloseOnExec::kYes, 10)) == 1);
    CHECK(to_integer(*fds.install(file, CloseOnExec::kNo, 10)) == 2);
    CHECK(fds.remove(Fd{1}).ok());
    CHECK(fds.remove(Fd{1}).error() == EBADF);
    CHECK(to_integer(*fds.install(file, CloseOnExec::kYes, 10, 5)) == 5);
    CHECK(to_integer(*fds.install(file, CloseOnExec::kNo, 10)) == 1);
    CHECK(fds.install(file, CloseOnExec::kNo, 3).error() == EMFILE);
    CHECK(fds.install(file, CloseOnExec::kNo, 10, 10).error() == EINVAL);
    CHECK(fds.install_pair(file, file, CloseOnExec::kNo, 4).error() == EMFILE);
    CHECK(to_integer(fds.install_pair(file, file, CloseOnExec::kNo, 10)->second) == 4);
    CHECK(fds.take_close_on_exec().size() == 1);
    CHECK(fds.get(Fd{5}).error() == EBADF);
    CHECK(fds.get(Fd{-1}).error() == EBADF);
    CHECK(fds.numbers().size() == 5);
}
