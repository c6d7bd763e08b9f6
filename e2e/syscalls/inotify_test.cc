// inotify(7).

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

struct Event {
    int watch;
    uint32_t mask;
    uint32_t cookie;
    std::string name;
};

class Inotify {
  public:
    Inotify() : fd_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
        if (!fd_.valid()) {
            fatal("inotify_init1: " + errno_name(errno));
        }
    }
    int get() const { return fd_.get(); }
    int watch(const std::string& path, uint32_t mask) const {
        return ::inotify_add_watch(get(), path.c_str(), mask);
    }
    std::vector<Event> events() const {
        alignas(inotify_event) char buffer[8192];
        std::vector<Event> all;
        const ssize_t n = ::read(get(), buffer, sizeof buffer);
        for (ssize_t at = 0; at < n;) {
            const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
            all.push_back({event->wd, event->mask, event->cookie, event->len ? event->name : ""});
            at += static_cast<ssize_t>(sizeof *event + event->len);
        }
        return all;
    }

  private:
    FileDescriptor fd_;
};

TEST_CASE("inotify: creation, writing, closing and deletion in a watched directory") {
    TempDir dir;
    Inotify inotify;
    const int watch = inotify.watch(dir.path(), IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_DELETE);
    REQUIRE(watch >= 0);
    {
        const FileDescriptor fd(::open((dir / "f").c_str(), O_CREAT | O_WRONLY, 0600));
        REQUIRE(write_all(fd.get(), "x"));
    }
    REQUIRE_THAT(::unlink((dir / "f").c_str()), succeeds());
    const auto events = inotify.events();
    REQUIRE(events.size() == 4);
    const uint32_t expected[] = {IN_CREATE, IN_MODIFY, IN_CLOSE_WRITE, IN_DELETE};
    for (size_t i = 0; i < 4; ++i) {
        CHECK(events[i].watch == watch);
        CHECK(events[i].mask == expected[i]);
        CHECK(events[i].name == "f");
    }
}

TEST_CASE("inotify: a rename gives two events with one cookie") {
    TempDir dir;
    dir.file("a");
    Inotify inotify;
    REQUIRE(inotify.watch(dir.path(), IN_MOVE) >= 0);
    REQUIRE_THAT(::rename((dir / "a").c_str(), (dir / "b").c_str()), succeeds());
    const auto events = inotify.events();
    REQUIRE(events.size() == 2);
    CHECK(events[0].mask == IN_MOVED_FROM);
    CHECK(events[0].name == "a");
    CHECK(events[1].mask == IN_MOVED_TO);
    CHECK(events[1].name == "b");
    CHECK(events[0].cookie == events[1].cookie);
    CHECK(events[0].cookie != 0);
}

TEST_CASE("inotify: directories carry IN_ISDIR, attributes IN_ATTRIB") {
    TempDir dir;
    Inotify inotify;
    REQUIRE(inotify.watch(dir.path(), IN_CREATE | IN_ATTRIB) >= 0);
    REQUIRE_THAT(::mkdir((dir / "d").c_str(), 0755), succeeds());
    REQUIRE_THAT(::chmod((dir / "d").c_str(), 0700), succeeds());
    const auto events = inotify.events();
    REQUIRE(events.size() == 2);
    CHECK(events[0].mask == (IN_CREATE | IN_ISDIR));
    CHECK(events[1].mask == (IN_ATTRIB | IN_ISDIR));
}

TEST_CASE("inotify: a watched file's end gives IN_DELETE_SELF and IN_IGNORED") {
    TempDir dir;
    const std::string path = dir.file("f");
    Inotify inotify;
    REQUIRE(inotify.watch(path, IN_DELETE_SELF) >= 0);
    REQUIRE_THAT(::unlink(path.c_str()), succeeds());
    const auto events = inotify.events();
    REQUIRE(events.size() == 2);
    CHECK(events[0].mask == IN_DELETE_SELF);
    CHECK(events[1].mask == IN_IGNORED);
}

TEST_CASE("inotify: removing a watch says IN_IGNORED and ends the events") {
    TempDir dir;
    Inotify inotify;
    const int watch = inotify.watch(dir.path(), IN_CREATE);
    REQUIRE_THAT(::inotify_rm_watch(inotify.get(), watch), succeeds());
    dir.file("f");
    const auto events = inotify.events();
    REQUIRE(events.size() == 1);
    CHECK(events[0].mask == IN_IGNORED);
    CHECK_THAT(::inotify_rm_watch(inotify.get(), watch), fails_with(EINVAL));
}

TEST_CASE(
    "inotify: the same inode gives the same watch, equal events merge, poll and FIONREAD tell") {
    TempDir dir;
    const std::string path = dir.file("f");
    Inotify inotify;
    const int watch = inotify.watch(path, IN_MODIFY);
    CHECK(inotify.watch(path, IN_MODIFY | IN_MASK_ADD) == watch);
    pollfd entry{inotify.get(), POLLIN, 0};
    CHECK_THAT(::poll(&entry, 1, 0), succeeds_with(0));
    const FileDescriptor fd = open_file(path, O_WRONLY);
    REQUIRE(write_all(fd.get(), "1"));
    REQUIRE(write_all(fd.get(), "2"));
    CHECK_THAT(::poll(&entry, 1, 0), succeeds_with(1));
    int bytes = 0;
    REQUIRE_THAT(::ioctl(inotify.get(), FIONREAD, &bytes), succeeds());
    CHECK(bytes == sizeof(inotify_event));
    CHECK(inotify.events().size() == 1);
}

TEST_CASE("inotify: errors") {
    TempDir dir;
    Inotify inotify;
    const std::string file = dir.file("f");
    CHECK_THAT(inotify.watch(dir / "missing", IN_CREATE), fails_with(ENOENT));
    CHECK_THAT(inotify.watch(file, IN_CREATE | IN_ONLYDIR), fails_with(ENOTDIR));
    CHECK_THAT(inotify.watch(file, 0), fails_with(EINVAL));
    CHECK_THAT(::inotify_add_watch(1, file.c_str(), IN_CREATE), fails_with(EINVAL));
    CHECK_THAT(::inotify_add_watch(inotify.get(), bad<char>(), IN_CREATE), fails_with(EFAULT));
    CHECK_THAT(::inotify_init1(0x10), fails_with(EINVAL));
    char small[4];
    CHECK_THAT(::read(inotify.get(), small, sizeof small), fails_with_any({EAGAIN, EINVAL}));
}

}  // namespace
