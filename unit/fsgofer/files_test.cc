#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>

#include "unit/fsgofer/harness.h"

using namespace moat;
using namespace moat::gofer;
using namespace moat::gofer::test;

TEST_CASE("open: a descriptor for reading can be mapped and not written") {
    TempDir dir;
    dir.file("f", "abc");
    Gofer gofer(dir);
    const auto opened = MUST(gofer->open(gofer.at("f").id, O_RDONLY));
    CHECK(opened.attributes.size == 3);
    const int fd = opened.file.get();
    CHECK((::fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
    CHECK(::write(fd, "x", 1) == -1);
    CHECK(errno == EBADF);
    CHECK(::ftruncate(fd, 0) == -1);
    CHECK(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    void* map = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
    REQUIRE(map != MAP_FAILED);
    CHECK(memcmp(map, "abc", 3) == 0);
    ::munmap(map, 4096);
    CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("open: for writing, appending and truncating") {
    TempDir dir;
    dir.file("f", "abc");
    Gofer gofer(dir);
    const NodeId node = gofer.at("f").id;
    {
        const auto opened = MUST(gofer->open(node, O_WRONLY | O_APPEND));
        CHECK(::write(opened.file.get(), "d", 1) == 1);
    }
    CHECK(dir.read("f") == "abcd");
    const auto opened = MUST(gofer->open(node, O_RDWR | O_TRUNC));
    CHECK(opened.attributes.size == 0);
    CHECK(dir.read("f").empty());
    CHECK_ERRNO(EINVAL, gofer->open(node, O_RDONLY | O_TRUNC));
    CHECK_ERRNO(EINVAL, gofer->open(node, O_RDWR | O_CREAT));
    CHECK_ERRNO(EINVAL, gofer->open(node, O_PATH));
    CHECK_ERRNO(EINVAL, gofer->open(node, O_ACCMODE));
}

TEST_CASE("open: only regular files are donated unless the mount says so") {
    TempDir dir;
    dir.directory("d");
    dir.link("l", "f");
    REQUIRE(::mkfifo((dir / "p").c_str(), 0644) == 0);
    {
        Gofer gofer(dir);
        CHECK_ERRNO(EISDIR, gofer->open(gofer.at("d").id, O_RDONLY));
        CHECK_ERRNO(ELOOP, gofer->open(gofer.at("l").id, O_RDONLY));
        CHECK_ERRNO(ENXIO, gofer->open(gofer.at("p").id, O_RDONLY));
        CHECK_ERRNO(ENXIO, gofer->open(gofer.at("p").id, O_RDWR));
    }
    Gofer::Options options;
    options.flags = kMountFifos;
    Gofer gofer(dir, options);
    const auto fifo = MUST(gofer->open(gofer.at("p").id, O_RDWR));
    CHECK(::write(fifo.file.get(), "x", 1) == 1);
    CHECK((::fcntl(fifo.file.get(), F_GETFL) & O_NONBLOCK) == 0);
}

TEST_CASE("create: with the owner and mode asked for, and only if the name is free") {
    TempDir dir;
    Gofer gofer(dir);
    const auto created = MUST(gofer->create(gofer.root(), "f", O_RDWR, {06751, 1234, 2345}));
    CHECK(created.node.attributes.mode == (S_IFREG | 06751));
    CHECK(created.node.attributes.uid == 1234);
    CHECK(created.node.attributes.gid == 2345);
    CHECK(::write(created.file.get(), "hi", 2) == 2);
    CHECK(dir.read("f") == "hi");
    struct stat s;
    REQUIRE(::stat((dir / "f").c_str(), &s) == 0);
    CHECK(s.st_mode == (S_IFREG | 06751));
    CHECK(MUST(gofer->walk(gofer.root(), "f")).nodes[0].id == created.node.id);
    CHECK_ERRNO(EEXIST, gofer->create(gofer.root(), "f", O_RDWR, {0644, 0, 0}));
    CHECK_ERRNO(EINVAL, gofer->create(gofer.root(), "g", O_RDWR, {0100644, 0, 0}));
    CHECK_ERRNO(EINVAL, gofer->create(gofer.root(), "../g", O_RDWR, {0644, 0, 0}));
    CHECK_ERRNO(EINVAL, gofer->create(gofer.root(), "..", O_RDWR, {0644, 0, 0}));
    CHECK_ERRNO(ENAMETOOLONG,
                gofer->create(gofer.root(), std::string(256, 'x'), O_RDWR, {0644, 0, 0}));
    CHECK_ERRNO(ENOTDIR, gofer->create(created.node.id, "g", O_RDWR, {0644, 0, 0}));
    dir.link("dangling", "nowhere");
    CHECK_ERRNO(EEXIST, gofer->create(gofer.root(), "dangling", O_RDWR, {0644, 0, 0}));
}

TEST_CASE("set_attributes: each of them, also without a descriptor and on unlinked files") {
    TempDir dir;
    dir.file("f", "abcdef");
    dir.directory("d");
    dir.link("l", "f");
    Gofer gofer(dir);
    SetAttributesRequest request;
    request.node = gofer.at("f").id;
    request.mask = kSetMode | kSetUid | kSetGid | kSetSize | kSetAccessTime | kSetModifyTime;
    request.mode = 04711;
    request.uid = 11;
    request.gid = 22;
    request.size = 3;
    request.access_time = {1000, 5, 0};
    request.modify_time = {-2000, 7, 0};
    auto a = MUST(gofer->set_attributes(request));
    // Truncating comes after the mode and clears the set-user-id bit only for those without
    // CAP_FSETID.
    CHECK(a.mode == (S_IFREG | 04711));
    CHECK(a.uid == 11);
    CHECK(a.gid == 22);
    CHECK(a.size == 3);
    CHECK(a.access_time.seconds == 1000);
    CHECK(a.access_time.nanoseconds == 5);
    CHECK(a.modify_time.seconds == -2000);
    CHECK(dir.read("f") == "abc");

    REQUIRE(gofer->unlink(gofer.root(), "f").ok());
    request.mask = kSetMode;
    request.mode = 0600;
    a = MUST(gofer->set_attributes(request));
    CHECK(a.mode == (S_IFREG | 0600));
    CHECK(a.nlink == 0);

    request.node = gofer.at("l").id;
    CHECK_ERRNO(EOPNOTSUPP, gofer->set_attributes(request));
    request.mask = kSetUid;
    CHECK(MUST(gofer->set_attributes(request)).uid == 11);
    request.node = gofer.at("d").id;
    request.mask = kSetSize;
    CHECK_ERRNO(EISDIR, gofer->set_attributes(request));
    request.mask = kSetModifyTimeNow | kSetModifyTime;
    CHECK_ERRNO(EINVAL, gofer->set_attributes(request));
    request.mask = 1u << 20;
    CHECK_ERRNO(EINVAL, gofer->set_attributes(request));
    request.mask = kSetModifyTime;
    request.modify_time = {0, UTIME_NOW, 0};
    CHECK_ERRNO(EINVAL, gofer->set_attributes(request));
    request.mask = kSetModifyTimeNow;
    CHECK(MUST(gofer->set_attributes(request)).modify_time.seconds > 1'700'000'000);
}

TEST_CASE("statfs and fsync") {
    TempDir dir;
    dir.file("f");
    dir.link("l", "f");
    Gofer gofer(dir);
    const auto s = MUST(gofer->statfs(gofer.at("f").id));
    CHECK(s.type == gofer->mounts()[0].fs_type);
    CHECK(s.block_size > 0);
    CHECK(s.name_length == 255);
    CHECK(gofer->fsync(gofer.at("f").id, true).ok());
    CHECK(gofer->fsync(gofer.root(), false).ok());
    CHECK_ERRNO(EINVAL, gofer->fsync(gofer.at("l").id, false));
}

TEST_CASE("xattrs: of files, directories and symlinks") {
    TempDir dir;
    dir.file("f");
    dir.directory("d");
    dir.file("d/g");
    Gofer gofer(dir);
    if (::setxattr((dir / "f").c_str(), "user.probe", "1", 1, 0) != 0) {
        MESSAGE("skipped: no user xattrs on this file system, errno " << errno);
        return;
    }
    const NodeId file = gofer.at("f").id;
    CHECK(MUST(gofer->get_xattr(file, "user.probe")) == "1");
    CHECK(gofer->set_xattr(file, "user.big", std::string(1000, 'x'), 0).ok());
    CHECK(MUST(gofer->get_xattr(file, "user.big")).size() == 1000);
    CHECK(MUST(gofer->list_xattr(file)).find(std::string("user.big\0", 9)) != std::string::npos);
    CHECK_ERRNO(EEXIST, gofer->set_xattr(file, "user.big", "", XATTR_CREATE));
    CHECK_ERRNO(ENODATA, gofer->set_xattr(file, "user.none", "", XATTR_REPLACE));
    CHECK(gofer->remove_xattr(file, "user.big").ok());
    CHECK_ERRNO(ENODATA, gofer->get_xattr(file, "user.big"));
    CHECK(gofer->set_xattr(gofer.at("d/g").id, "user.in", "deep", 0).ok());
    CHECK(gofer->set_xattr(gofer.root(), "user.root", "r", 0).ok());
    CHECK(MUST(gofer->get_xattr(gofer.root(), "user.root")) == "r");
    CHECK_ERRNO(EINVAL, gofer->set_xattr(file, "user.x", "", 4));
    CHECK_ERRNO(EINVAL, gofer->get_xattr(file, ""));
    CHECK_ERRNO(ERANGE, gofer->get_xattr(file, std::string(256, 'x')));
    // The name means another file now.
    dir.file("h");
    REQUIRE(::rename((dir / "h").c_str(), (dir / "f").c_str()) == 0);
    CHECK_ERRNO(ESTALE, gofer->get_xattr(file, "user.probe"));
}

TEST_CASE("connect: to a host's socket only if the mount allows it") {
    TempDir dir;
    ScopedFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE((dir / "s").size() < sizeof address.sun_path);
    strcpy(address.sun_path, (dir / "s").c_str());
    REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(listener.get(), 1) == 0);
    dir.file("f");
    {
        Gofer gofer(dir);
        CHECK_ERRNO(EPERM, gofer->connect_socket(gofer.at("s").id, SOCK_STREAM));
    }
    Gofer::Options options;
    options.flags = kMountConnect;
    Gofer gofer(dir, options);
    CHECK_ERRNO(ECONNREFUSED, gofer->connect_socket(gofer.at("f").id, SOCK_STREAM));
    CHECK_ERRNO(EINVAL, gofer->connect_socket(gofer.at("s").id, SOCK_RAW));
    const auto connected = MUST(gofer->connect_socket(gofer.at("s").id, SOCK_STREAM));
    const ScopedFd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    REQUIRE(accepted.valid());
    CHECK(::send(connected.get(), "x", 1, MSG_NOSIGNAL) == 1);
    char c = 0;
    CHECK(::recv(accepted.get(), &c, 1, 0) == 1);
    CHECK(c == 'x');
}

TEST_CASE("read-only mount: every change is EROFS, reading goes on") {
    TempDir dir;
    dir.file("f", "abc");
    dir.directory("d");
    Gofer::Options options;
    options.flags = kMountReadOnly;
    Gofer gofer(dir, options);
    CHECK((gofer->mounts()[0].flags & kMountReadOnly) != 0);
    const NodeId root = gofer.root();
    const NodeId file = gofer.at("f").id;
    const NodeId sub = gofer.at("d").id;
    CHECK(MUST(gofer->open(file, O_RDONLY)).file.valid());
    CHECK_ERRNO(EROFS, gofer->open(file, O_RDWR));
    CHECK_ERRNO(EROFS, gofer->open(file, O_WRONLY | O_TRUNC));
    CHECK(MUST(gofer->walk(root, "f", O_RDWR)).open_error == EROFS);
    CHECK_ERRNO(EROFS, gofer->create(root, "g", O_RDONLY, {0644, 0, 0}));
    CHECK_ERRNO(EROFS, gofer->mkdir(root, "g", {0755, 0, 0}));
    CHECK_ERRNO(EROFS, gofer->mknod(root, "g", {S_IFIFO | 0644, 0, 0}, 0, 0));
    CHECK_ERRNO(EROFS, gofer->symlink(root, "g", "f", {0777, 0, 0}));
    CHECK_ERRNO(EROFS, gofer->link(file, sub, "g"));
    CHECK_ERRNO(EROFS, gofer->unlink(root, "f"));
    CHECK_ERRNO(EROFS, gofer->rmdir(root, "d"));
    CHECK_ERRNO(EROFS, gofer->rename(root, "f", root, "g"));
    CHECK_ERRNO(EROFS, gofer->set_xattr(file, "user.a", "b", 0));
    CHECK_ERRNO(EROFS, gofer->remove_xattr(file, "user.a"));
    SetAttributesRequest request;
    request.node = file;
    request.mask = kSetMode;
    CHECK_ERRNO(EROFS, gofer->set_attributes(request));
    CHECK(dir.read("f") == "abc");
}
