// mount(2), umount2(2), unshare(2), pivot_root(2): small. Natively only in a mount namespace of its
// own.

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

/// True when this child may mount without anybody else seeing it.
bool private_namespace() {
    return ::unshare(CLONE_NEWNS) == 0 &&
           ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

bool can_mount() {
    return run_in_child([] { ::_exit(private_namespace() ? 0 : 1); }) == exited(0);
}

#define NEEDS_MOUNT SKIP_UNLESS(can_mount(), "no private mount namespace to be had")

TEST_CASE("mount: a tmpfs hides the directory and takes files, umount shows it again") {
    NEEDS_MOUNT;
    TempDir dir;
    dir.file("hidden", "below");
    in_child([&] {
        CHILD_CHECK(private_namespace());
        CHILD_THAT(::mount("none", dir.path().c_str(), "tmpfs", MS_NODEV, "size=1m,mode=0700"),
                   succeeds());
        CHILD_THAT(::access((dir / "hidden").c_str(), F_OK), fails_with(ENOENT));
        dir.file("new", "above");
        struct statfs fs;
        CHILD_THAT(::statfs(dir.path().c_str(), &fs), succeeds());
        CHILD_CHECK(fs.f_type == 0x01021994);
        CHILD_THAT(::umount2(dir.path().c_str(), 0), succeeds());
        CHILD_CHECK(read_file(dir / "hidden") == "below");
    });
}

TEST_CASE("mount: a full tmpfs fails with ENOSPC") {
    NEEDS_MOUNT;
    TempDir dir;
    in_child([&] {
        CHILD_CHECK(private_namespace());
        CHILD_THAT(::mount("none", dir.path().c_str(), "tmpfs", 0, "size=64k"), succeeds());
        const FileDescriptor fd(::open((dir / "f").c_str(), O_CREAT | O_WRONLY, 0600));
        const std::string block(65536, 'x');
        CHILD_CHECK(::write(fd.get(), block.data(), block.size()) <= 65536);
        CHILD_THAT(::write(fd.get(), block.data(), block.size()), fails_with(ENOSPC));
    });
}

TEST_CASE("mount: read-only means EROFS, also after a remount") {
    NEEDS_MOUNT;
    TempDir dir;
    in_child([&] {
        CHILD_CHECK(private_namespace());
        CHILD_THAT(::mount("none", dir.path().c_str(), "tmpfs", 0, nullptr), succeeds());
        dir.file("f", "x");
        CHILD_THAT(::mount("none", dir.path().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr),
                   succeeds());
        CHILD_THAT(::open((dir / "f").c_str(), O_WRONLY), fails_with(EROFS));
        CHILD_THAT(::mkdir((dir / "d").c_str(), 0755), fails_with(EROFS));
        CHILD_THAT(::unlink((dir / "f").c_str()), fails_with(EROFS));
        CHILD_CHECK(read_file(dir / "f") == "x");
    });
}

TEST_CASE("mount: a bind mount shows one directory at two places") {
    NEEDS_MOUNT;
    TempDir dir;
    REQUIRE_THAT(::mkdir((dir / "a").c_str(), 0755), succeeds());
    REQUIRE_THAT(::mkdir((dir / "b").c_str(), 0755), succeeds());
    in_child([&] {
        CHILD_CHECK(private_namespace());
        CHILD_THAT(::mount((dir / "a").c_str(), (dir / "b").c_str(), nullptr, MS_BIND, nullptr),
                   succeeds());
        dir.file("a/f", "both");
        CHILD_CHECK(read_file(dir / "b/f") == "both");
        CHILD_THAT(::rename((dir / "a/f").c_str(), (dir / "b/g").c_str()), fails_with(EXDEV));
        CHILD_THAT(::rmdir((dir / "b").c_str()), fails_with(EBUSY));
    });
}

TEST_CASE("umount: busy and missing mounts, MNT_DETACH") {
    NEEDS_MOUNT;
    TempDir dir;
    in_child([&] {
        CHILD_CHECK(private_namespace());
        CHILD_THAT(::umount2(dir.path().c_str(), 0), fails_with(EINVAL));
        CHILD_THAT(::mount("none", dir.path().c_str(), "tmpfs", 0, nullptr), succeeds());
        dir.file("f", "still");
        const FileDescriptor fd = open_file(dir / "f", O_RDONLY);
        CHILD_THAT(::umount2(dir.path().c_str(), 0), fails_with(EBUSY));
        CHILD_THAT(::umount2(dir.path().c_str(), MNT_DETACH), succeeds());
        CHILD_CHECK(read_exactly(fd.get(), 5) == "still");
    });
}

TEST_CASE("mount: users may not, unknown types and bad pointers fail") {
    TempDir dir;
    in_child([&] {
        CHILD_THAT(::setuid(12345), succeeds());
        CHILD_THAT(::mount("none", dir.path().c_str(), "tmpfs", 0, nullptr), fails_with(EPERM));
        CHILD_THAT(::umount2("/proc", 0), fails_with(EPERM));
    });
    NEEDS_MOUNT;
    in_child([&] {
        CHILD_CHECK(private_namespace());
        CHILD_THAT(::mount("none", dir.path().c_str(), "nosuchfs", 0, nullptr), fails_with(ENODEV));
        CHILD_THAT(::mount("none", (dir / "missing").c_str(), "tmpfs", 0, nullptr),
                   fails_with(ENOENT));
        CHILD_THAT(::mount("none", bad<char>(), "tmpfs", 0, nullptr), fails_with(EFAULT));
    });
}

}  // namespace
