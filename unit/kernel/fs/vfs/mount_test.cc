#include "unit/kernel/fs/vfs/harness.h"

using namespace moat;
using namespace moat::kernel;
using moat::kernel::test::World;

namespace {

Path at(World& w, const std::string& path) {
    auto found = resolve(w.task(), kCwd, path);
    REQUIRE_MESSAGE(found.ok(), path);
    return *found;
}

}  // namespace

TEST_CASE("mount: hides what is below, and umount shows it again") {
    World w;
    REQUIRE(w.mkdir("/mnt") == 0);
    w.write_file("/mnt/below", "b");
    auto fs = TmpfsFileSystem::create({});
    REQUIRE(w.mounts().mount(at(w, "/mnt"), fs, 0, "tmpfs").ok());
    CHECK(w.stat_error("/mnt/below") == ENOENT);
    w.write_file("/mnt/above", "a");
    CHECK(w.stat("/mnt").st_dev != w.stat("/").st_dev);
    CHECK(w.stat("/mnt/..").st_ino == w.stat("/").st_ino);
    CHECK(w.rmdir("/mnt") == EBUSY);
    CHECK(w.rename("/mnt", "/x") == EBUSY);
    CHECK(w.rename("/mnt/above", "/above") == EXDEV);
    CHECK(w.link("/mnt/above", "/above") == EXDEV);
    REQUIRE(w.chdir("/mnt") == 0);
    CHECK(w.cwd() == "/mnt");
    CHECK(w.mounts().unmount(at(w, "/mnt"), 0).error() == EBUSY);
    REQUIRE(w.chdir("/") == 0);
    CHECK(w.mounts().unmount(at(w, "/mnt"), 0).ok());
    CHECK(w.read_file("/mnt/below") == "b");
    CHECK(w.mounts().unmount(at(w, "/mnt"), 0).error() == EINVAL);
    CHECK(w.mounts().unmount(at(w, "/"), 0).error() == EINVAL);
    CHECK(w.rmdir("/mnt") == ENOTEMPTY);
}

TEST_CASE("mount: read-only, noexec and nodev are the mount's, not the file system's") {
    World w;
    REQUIRE(w.mkdir("/a") == 0);
    REQUIRE(w.mkdir("/b") == 0);
    w.write_file("/a/f", "x");
    REQUIRE(w.chmod("/a/f", 0755) == 0);
    auto bound = w.mounts().bind(at(w, "/a"), at(w, "/b"), MountNamespace::Recursive::kNo);
    REQUIRE(bound.ok());
    (*bound)->set_flags(MS_RDONLY | MS_NOEXEC | MS_NODEV);
    CHECK(w.read_file("/b/f") == "x");
    CHECK(w.open_error("/b/f", O_WRONLY) == EROFS);
    CHECK(w.open_error("/b/new", O_WRONLY | O_CREAT) == EROFS);
    CHECK(w.open_error("/b/f", O_WRONLY | O_CREAT | O_EXCL) == EEXIST);
    CHECK(w.mkdir("/b/d") == EROFS);
    CHECK(w.unlink("/b/f") == EROFS);
    CHECK(w.chmod("/b/f", 0700) == EROFS);
    CHECK(open_executable(w.task(), kCwd, "/b/f", 0).error() == EACCES);
    CHECK(open_executable(w.task(), kCwd, "/a/f", 0).ok());
    CHECK(open_executable(w.task(), kCwd, "/a", 0).error() == EACCES);
    REQUIRE(make_node(w.task(), kCwd, "/a/null", S_IFCHR | 0666, 0x103).ok());
    CHECK(w.open_error("/b/null", O_RDONLY) == EACCES);
    w.write_file("/a/g", "seen through both");
    CHECK(w.read_file("/b/g") == "seen through both");
    CHECK(w.stat("/a/g").st_ino == w.stat("/b/g").st_ino);
}

TEST_CASE("mount: binds take what is mounted below along only when asked") {
    World w;
    REQUIRE(w.mkdir("/a") == 0);
    REQUIRE(w.mkdir("/a/m") == 0);
    REQUIRE(w.mkdir("/b") == 0);
    REQUIRE(w.mkdir("/c") == 0);
    REQUIRE(w.mounts().mount(at(w, "/a/m"), TmpfsFileSystem::create({}), 0, "tmpfs").ok());
    w.write_file("/a/m/f", "x");
    REQUIRE(w.mounts().bind(at(w, "/a"), at(w, "/b"), MountNamespace::Recursive::kNo).ok());
    REQUIRE(w.mounts().bind(at(w, "/a"), at(w, "/c"), MountNamespace::Recursive::kYes).ok());
    CHECK(w.stat_error("/b/m/f") == ENOENT);
    CHECK(w.read_file("/c/m/f") == "x");
    CHECK(w.mounts().unmount(at(w, "/c"), 0).error() == EBUSY);
    CHECK(w.mounts().unmount(at(w, "/c"), MNT_DETACH).ok());
    CHECK(w.read_file("/a/m/f") == "x");
    w.write_file("/file", "f");
    CHECK(w.mounts().bind(at(w, "/file"), at(w, "/b"), MountNamespace::Recursive::kNo).error() ==
          ENOTDIR);
}

TEST_CASE("mount: the tables of /proc name every mount") {
    World w;
    REQUIRE(w.mkdir("/with space") == 0);
    REQUIRE(w.mounts()
                .mount(at(w, "/with space"),
                       TmpfsFileSystem::create(*TmpfsOptions::parse({"size=1m"})),
                       MS_NOSUID | MS_RDONLY, "vol")
                .ok());
    const Path root = w.task().fs().root();
    CHECK(w.mounts().mounts_text(root) ==
          "root / tmpfs rw,relatime 0 0\n"
          "vol /with\\040space tmpfs ro,nosuid,relatime,size=1024k 0 0\n");
    CHECK(w.mounts().mountinfo_text(root).find(
              " / /with\\040space ro,nosuid,relatime - tmpfs vol ro") != std::string::npos);
}

TEST_CASE("mount: a namespace that goes leaves nothing behind") {
    auto fs = TmpfsFileSystem::create({});
    {
        World w(fs);
        REQUIRE(w.mkdir("/m") == 0);
        REQUIRE(w.mounts().mount(at(w, "/m"), TmpfsFileSystem::create({}), 0, "t").ok());
        w.write_file("/m/f", "x");
    }
    World again(fs);
    CHECK(again.rmdir("/m") == 0);  // nothing is mounted there any more
}

TEST_CASE("pivot_root: the old root goes where it was told to") {
    World w;
    REQUIRE(w.mkdir("/new") == 0);
    w.write_file("/old_file", "o");
    REQUIRE(w.mounts().mount(at(w, "/new"), TmpfsFileSystem::create({}), 0, "t").ok());
    REQUIRE(w.mkdir("/new/put") == 0);
    const Path next = at(w, "/new");
    CHECK(w.mounts().pivot_root(at(w, "/new/put"), at(w, "/new")).error() == EINVAL);
    REQUIRE(w.mounts().pivot_root(next, at(w, "/new/put")).ok());
    w.task().fs().set_root(next);
    w.task().fs().set_cwd(next);
    CHECK(w.read_file("/put/old_file") == "o");
    CHECK(w.mounts().unmount(at(w, "/put"), MNT_DETACH).ok());
    CHECK(w.list("/put").empty());
}
