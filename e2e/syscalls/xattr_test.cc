// setxattr(2), getxattr(2), listxattr(2), removexattr(2).

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

/// Whether user attributes work where the temporary files are.
bool supported(const std::string& path) {
    return ::setxattr(path.c_str(), "user.probe", "1", 1, 0) == 0 &&
           ::removexattr(path.c_str(), "user.probe") == 0;
}

#define NEEDS_XATTR(path) SKIP_UNLESS(supported(path), "no user attributes on this file system")

TEST_CASE("xattr: what is set is read back, with its length") {
    TempDir dir;
    const std::string path = dir.file("f");
    NEEDS_XATTR(path);
    CHECK_THAT(::setxattr(path.c_str(), "user.name", "value\0x", 7, 0), succeeds());
    FencedBuffer buffer(7);
    CHECK_THAT(::getxattr(path.c_str(), "user.name", buffer.data(), 7), succeeds_with(7));
    CHECK(std::memcmp(buffer.data(), "value\0x", 7) == 0);
    CHECK(buffer.intact());
    CHECK_THAT(::getxattr(path.c_str(), "user.name", nullptr, 0), succeeds_with(7));
    CHECK_THAT(::getxattr(path.c_str(), "user.name", buffer.data(), 6), fails_with(ERANGE));
}

TEST_CASE("xattr: XATTR_CREATE and XATTR_REPLACE") {
    TempDir dir;
    const std::string path = dir.file("f");
    NEEDS_XATTR(path);
    CHECK_THAT(::setxattr(path.c_str(), "user.a", "1", 1, XATTR_REPLACE), fails_with(ENODATA));
    CHECK_THAT(::setxattr(path.c_str(), "user.a", "1", 1, XATTR_CREATE), succeeds());
    CHECK_THAT(::setxattr(path.c_str(), "user.a", "2", 1, XATTR_CREATE), fails_with(EEXIST));
    CHECK_THAT(::setxattr(path.c_str(), "user.a", "22", 2, XATTR_REPLACE), succeeds());
    CHECK_THAT(::getxattr(path.c_str(), "user.a", nullptr, 0), succeeds_with(2));
    CHECK_THAT(::setxattr(path.c_str(), "user.a", "1", 1, 0x10), fails_with(EINVAL));
}

TEST_CASE("xattr: an empty value is not the same as none") {
    TempDir dir;
    const std::string path = dir.file("f");
    NEEDS_XATTR(path);
    CHECK_THAT(::setxattr(path.c_str(), "user.empty", nullptr, 0, 0), succeeds());
    CHECK_THAT(::getxattr(path.c_str(), "user.empty", nullptr, 0), succeeds_with(0));
    CHECK_THAT(::getxattr(path.c_str(), "user.none", nullptr, 0), fails_with(ENODATA));
}

TEST_CASE("xattr: the list has every name with its zero") {
    TempDir dir;
    const std::string path = dir.file("f");
    NEEDS_XATTR(path);
    const ssize_t before = ::listxattr(path.c_str(), nullptr, 0);
    REQUIRE(before >= 0);
    CHECK_THAT(::setxattr(path.c_str(), "user.one", "1", 1, 0), succeeds());
    CHECK_THAT(::setxattr(path.c_str(), "user.two", "2", 1, 0), succeeds());
    const size_t size = static_cast<size_t>(before) + 18;
    FencedBuffer buffer(size);
    CHECK_THAT(::listxattr(path.c_str(), buffer.data(), size),
               succeeds_with(static_cast<long>(size)));
    const std::string list(buffer.data(), size);
    CHECK(list.find(std::string("user.one\0", 9)) != std::string::npos);
    CHECK(list.find(std::string("user.two\0", 9)) != std::string::npos);
    CHECK_THAT(::listxattr(path.c_str(), buffer.data(), size - 1), fails_with(ERANGE));
    CHECK(buffer.intact());
}

TEST_CASE("xattr: removing works once") {
    TempDir dir;
    const std::string path = dir.file("f");
    NEEDS_XATTR(path);
    CHECK_THAT(::setxattr(path.c_str(), "user.x", "1", 1, 0), succeeds());
    CHECK_THAT(::removexattr(path.c_str(), "user.x"), succeeds());
    CHECK_THAT(::removexattr(path.c_str(), "user.x"), fails_with(ENODATA));
}

TEST_CASE("xattr: descriptors and directories work, symbolic links refuse user attributes") {
    TempDir dir;
    const std::string path = dir.file("f");
    NEEDS_XATTR(path);
    const FileDescriptor fd = open_file(path, O_RDONLY);
    CHECK_THAT(::fsetxattr(fd.get(), "user.fd", "1", 1, 0), succeeds());
    CHECK_THAT(::fgetxattr(fd.get(), "user.fd", nullptr, 0), succeeds_with(1));
    CHECK_THAT(::setxattr(dir.path().c_str(), "user.dir", "1", 1, 0), succeeds());
    REQUIRE_THAT(::symlink("f", (dir / "link").c_str()), succeeds());
    CHECK_THAT(::getxattr((dir / "link").c_str(), "user.fd", nullptr, 0), succeeds_with(1));
    CHECK_THAT(::lsetxattr((dir / "link").c_str(), "user.link", "1", 1, 0), fails_with(EPERM));
    CHECK_THAT(::lgetxattr((dir / "link").c_str(), "user.fd", nullptr, 0),
               fails_with_any({ENODATA, EPERM}));
}

TEST_CASE("xattr: names and sizes are limited") {
    TempDir dir;
    const std::string path = dir.file("f");
    NEEDS_XATTR(path);
    CHECK_THAT(::setxattr(path.c_str(), ("user." + std::string(251, 'n')).c_str(), "1", 1, 0),
               fails_with(ERANGE));
    CHECK_THAT(::setxattr(path.c_str(), "", "1", 1, 0), fails_with(ERANGE));
    CHECK_THAT(::setxattr(path.c_str(), "noprefix", "1", 1, 0), fails_with(EOPNOTSUPP));
    Mapping big(65537);
    CHECK_THAT(::setxattr(path.c_str(), "user.big", big.data(), 65537, 0), fails_with(E2BIG));
    CHECK_THAT(::setxattr(path.c_str(), "user.bad", bad<char>(), 4, 0), fails_with(EFAULT));
    CHECK_THAT(::setxattr(path.c_str(), bad<char>(), "1", 1, 0), fails_with(EFAULT));
    CHECK_THAT(::setxattr((dir / "missing").c_str(), "user.x", "1", 1, 0), fails_with(ENOENT));
}

TEST_CASE("xattr: user attributes follow the file's permissions, trusted ones need a capability") {
    TempDir dir;
    const std::string path = dir.file("f", "", 0644);
    NEEDS_XATTR(path);
    in_child([&] {
        CHILD_THAT(::setgid(12345), succeeds());
        CHILD_THAT(::setuid(12345), succeeds());
        CHILD_THAT(::setxattr(path.c_str(), "user.x", "1", 1, 0), fails_with(EACCES));
        CHILD_THAT(::getxattr(path.c_str(), "user.x", nullptr, 0), fails_with(ENODATA));
        CHILD_THAT(::setxattr(path.c_str(), "trusted.x", "1", 1, 0),
                   fails_with_any({EPERM, EOPNOTSUPP}));
    });
}

}  // namespace
