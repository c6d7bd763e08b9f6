// memfd_create(2) and file seals.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

TEST_CASE("memfd: is a regular file of size zero with the name in /proc/self/fd") {
    const FileDescriptor fd(::memfd_create("a-name", MFD_CLOEXEC));
    REQUIRE(fd.valid());
    struct stat st;
    REQUIRE_THAT(::fstat(fd.get(), &st), succeeds());
    CHECK(S_ISREG(st.st_mode));
    CHECK(st.st_size == 0);
    char target[100] = {};
    const std::string link = "/proc/self/fd/" + std::to_string(fd.get());
    CHECK_THAT(::readlink(link.c_str(), target, sizeof target - 1), succeeds());
    CHECK(std::string(target) == "/memfd:a-name (deleted)");
}

TEST_CASE("memfd: written, mapped and shared with a child") {
    const FileDescriptor fd(::memfd_create("m", 0));
    REQUIRE(write_all(fd.get(), "by write"));
    Mapping map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
    CHECK(std::string(map.data()) == "by write");
    in_child([&] { map.data()[0] = 'B'; });
    char c;
    CHECK_THAT(::pread(fd.get(), &c, 1, 0), succeeds_with(1));
    CHECK(c == 'B');
}

TEST_CASE("memfd: seals forbid what they say, and cannot be taken back") {
    const FileDescriptor fd(::memfd_create("sealed", MFD_ALLOW_SEALING));
    REQUIRE(write_all(fd.get(), "0123456789"));
    CHECK_THAT(::fcntl(fd.get(), F_GET_SEALS), succeeds_with(0));
    CHECK_THAT(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), succeeds());
    CHECK_THAT(::ftruncate(fd.get(), 5), fails_with(EPERM));
    CHECK_THAT(::ftruncate(fd.get(), 50), fails_with(EPERM));
    CHECK_THAT(::pwrite(fd.get(), "x", 1, 0), succeeds_with(1));
    CHECK_THAT(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL), succeeds());
    CHECK_THAT(::pwrite(fd.get(), "x", 1, 0), fails_with(EPERM));
    CHECK_THAT(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0),
               fails_with(EPERM));
    CHECK_THAT(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE), fails_with(EPERM));
}

TEST_CASE("memfd: F_SEAL_WRITE is refused while a shared writable mapping lives") {
    const FileDescriptor fd(::memfd_create("busy", MFD_ALLOW_SEALING));
    REQUIRE_THAT(::ftruncate(fd.get(), 4096), succeeds());
    {
        Mapping map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
        CHECK_THAT(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE), fails_with(EBUSY));
    }
    CHECK_THAT(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE), succeeds());
}

TEST_CASE("memfd: without MFD_ALLOW_SEALING it is sealed against seals") {
    const FileDescriptor fd(::memfd_create("plain", 0));
    CHECK_THAT(::fcntl(fd.get(), F_GET_SEALS), succeeds_with(F_SEAL_SEAL));
    CHECK_THAT(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_GROW), fails_with(EPERM));
}

TEST_CASE("memfd: can be executed through /proc/self/fd") {
    const FileDescriptor fd(::memfd_create("program", 0));
    REQUIRE(write_all(fd.get(), read_file(self_exe())));
    CHECK(run_in_child([&] {
              exec_path("/proc/self/fd/" + std::to_string(fd.get()), {"x", "--helper=exit_thirty"},
                        {});
          }) == exited(30));
}

GUEST_HELPER(exit_thirty) { return 30; }

TEST_CASE("memfd: errors") {
    CHECK_THAT(::memfd_create("x", 0x8000), fails_with(EINVAL));
    CHECK_THAT(::memfd_create(bad<char>(), 0), fails_with(EFAULT));
    CHECK_THAT(::memfd_create(std::string(250, 'n').c_str(), 0), fails_with(EINVAL));
    CHECK_THAT(::memfd_create(std::string(249, 'n').c_str(), 0), succeeds());
    TempDir dir;
    const FileDescriptor file = open_file(dir.file("f"), O_RDWR);
    if (::fcntl(file.get(), F_GET_SEALS) == -1) {
        CHECK_THAT(::fcntl(file.get(), F_GET_SEALS), fails_with(EINVAL));
    }
}

}  // namespace
