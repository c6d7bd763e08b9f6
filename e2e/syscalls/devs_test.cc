// /dev: null, zero, full, random, urandom, tty, ptmx, the standard links.

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

TEST_CASE("/dev: the character devices have Linux's numbers") {
    const struct {
        const char* path;
        unsigned major, minor;
    } devices[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
                   {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};
    for (const auto& device : devices) {
        CAPTURE(device.path);
        struct stat st;
        REQUIRE_THAT(::stat(device.path, &st), succeeds());
        CHECK(S_ISCHR(st.st_mode));
        CHECK(major(st.st_rdev) == device.major);
        CHECK(minor(st.st_rdev) == device.minor);
        CHECK((st.st_mode & 0666) == 0666);
    }
}

TEST_CASE("/dev/null: swallows all and is empty") {
    const FileDescriptor fd = open_file("/dev/null", O_RDWR);
    char c;
    CHECK_THAT(::write(fd.get(), "anything", 8), succeeds_with(8));
    CHECK_THAT(::read(fd.get(), &c, 1), succeeds_with(0));
    CHECK_THAT(::lseek(fd.get(), 100, SEEK_SET), succeeds());
    CHECK_THAT(::ftruncate(fd.get(), 0), fails_with(EINVAL));
    CHECK_THAT(::open("/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0600), succeeds());
}

TEST_CASE("/dev/zero: reads zeroes, maps as fresh memory") {
    const FileDescriptor fd = open_file("/dev/zero", O_RDWR);
    FencedBuffer buffer(5000);
    CHECK_THAT(::read(fd.get(), buffer.data(), 5000), succeeds_with(5000));
    CHECK(std::string(buffer.data(), 5000) == std::string(5000, '\0'));
    CHECK(buffer.intact());
    Mapping map(8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd.get());
    map.data()[8191] = 'z';
    CHECK(map.data()[0] == 0);
    Mapping shared(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
    in_child([&] { shared.data()[0] = 's'; });
    CHECK(shared.data()[0] == 's');
}

TEST_CASE("/dev/full: reads zeroes, has no room") {
    const FileDescriptor fd = open_file("/dev/full", O_RDWR);
    char c = 1;
    CHECK_THAT(::read(fd.get(), &c, 1), succeeds_with(1));
    CHECK(c == 0);
    CHECK_THAT(::write(fd.get(), "x", 1), fails_with(ENOSPC));
}

TEST_CASE("/dev/urandom: gives as much as asked, never twice the same") {
    const FileDescriptor fd = open_file("/dev/urandom", O_RDONLY);
    const std::string a = read_exactly(fd.get(), 10'000), b = read_exactly(fd.get(), 10'000);
    CHECK(a.size() == 10'000);
    CHECK(a != b);
    CHECK_THAT(::read(fd.get(), bad<char>(), 10), fails_with(EFAULT));
}

TEST_CASE("/dev: is ready for poll at any time") {
    for (const char* path : {"/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"}) {
        CAPTURE(path);
        const FileDescriptor fd = open_file(path, O_RDWR);
        pollfd entry{fd.get(), POLLIN | POLLOUT, 0};
        CHECK_THAT(::poll(&entry, 1, 0), succeeds_with(1));
        CHECK((entry.revents & POLLIN) != 0);
    }
}

TEST_CASE("/dev/tty: without a controlling terminal fails with ENXIO") {
    in_child([] {
        CHILD_CHECK(::setsid() == ::getpid());
        CHILD_THAT(::open("/dev/tty", O_RDWR), fails_with(ENXIO));
    });
}

TEST_CASE("/dev/fd and the standard links: lead to one's own descriptors") {
    SKIP_UNLESS(::access("/dev/fd", F_OK) == 0, "this /dev has no /dev/fd");
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "by number"), O_RDONLY);
    CHECK(read_file("/dev/fd/" + std::to_string(fd.get())) == "by number");
    struct stat st;
    CHECK_THAT(::lstat("/dev/stdout", &st), succeeds());
    CHECK(S_ISLNK(st.st_mode));
}

TEST_CASE("/dev/shm: is a place for files that can be mapped and shared") {
    const std::string path = "/dev/shm/moat-guest-" + std::to_string(::getpid());
    const FileDescriptor fd(::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
    SKIP_UNLESS(fd.valid() || errno != ENOENT, "no /dev/shm");
    REQUIRE(fd.valid());
    CHECK_THAT(::unlink(path.c_str()), succeeds());
    REQUIRE_THAT(::ftruncate(fd.get(), 4096), succeeds());
    Mapping map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
    in_child([&] { map.data()[5] = 'm'; });
    CHECK(map.data()[5] == 'm');
}

TEST_CASE("/dev/ptmx: each opening is another terminal") {
    const FileDescriptor a = open_file("/dev/ptmx", O_RDWR | O_NOCTTY);
    const FileDescriptor b = open_file("/dev/ptmx", O_RDWR | O_NOCTTY);
    char first[64], second[64];
    REQUIRE(::ptsname_r(a.get(), first, sizeof first) == 0);
    REQUIRE(::ptsname_r(b.get(), second, sizeof second) == 0);
    CHECK(std::string(first) != second);
    CHECK(std::string(first).starts_with("/dev/pts/"));
}

}  // namespace
